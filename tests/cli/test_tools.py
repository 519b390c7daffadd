"""The tools for newcomers: what they need, what they say, and that they do nothing twice."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import runpy
import sys
from pathlib import Path
from types import ModuleType

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"
FIRST = ("environment.py", "demo.py", "test.py")


class Checkout:
    """A checkout in a scratch folder; what would be installed is written down instead."""

    def __init__(self, root: Path, module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
        self.module = module
        self.installed: list[tuple[list[str], bool]] = []
        self.made = 0
        (root / "p2psip").mkdir()
        (root / ".venv").mkdir()
        self.setup = root / "setup.py"
        self.source = root / "p2psip" / "endpoint.py"
        for path in (self.setup, self.source, root / "p2psip" / "_version.py"):
            path.write_text("1\n", encoding="utf-8")
        self.stamp = root / ".venv" / "p2psip.json"
        monkeypatch.setattr(module, "ROOT", root)
        monkeypatch.setattr(module, "STAMP", self.stamp)
        monkeypatch.setattr(module, "PYTHON", Path(sys.executable))
        monkeypatch.setattr(module, "make_environment", self._make)
        monkeypatch.setattr(module, "install", lambda extras, link: self.installed.append((extras, link)))

    def _make(self, python: str, folder: Path) -> None:
        self.made += 1


@pytest.fixture
def environment() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tools_environment", TOOLS / "environment.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def checkout(tmp_path: Path, environment: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    return Checkout(tmp_path, environment, monkeypatch)


@pytest.mark.parametrize("name", FIRST)
def test_an_old_python_can_read_it_and_say_so(name: str) -> None:
    ast.parse((TOOLS / name).read_text(encoding="utf-8"), feature_version=(3, 7))


def test_old_python_gets_a_sentence(environment: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "OLDEST", (99, 1))
    with pytest.raises(SystemExit, match=r"needs Python 99\.1 or newer"):
        environment.prepare()


@pytest.mark.parametrize("missing", ["venv", "ensurepip"])
def test_python_without_venv_gets_a_sentence(
    environment: ModuleType, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setattr(environment, "find_spec", lambda name: None if name == missing else object())
    with pytest.raises(SystemExit, match="apt install python3-venv"):
        environment.prepare()


def test_nothing_is_installed_twice(checkout: Checkout) -> None:
    for _ in range(3):
        assert checkout.module.prepare(["test"]) == Path(sys.executable)
    assert checkout.installed == [(["test"], True)]
    assert checkout.made == 1


def test_changed_metadata_is_installed_again(checkout: Checkout) -> None:
    checkout.module.prepare(["test"])
    checkout.setup.write_text("2\n", encoding="utf-8")
    checkout.module.prepare(["test"])
    assert checkout.installed == [(["test"], True)] * 2


def test_a_copy_follows_the_sources_and_a_link_needs_not(checkout: Checkout) -> None:
    checkout.module.prepare(editable=False)
    checkout.source.write_text("2\n", encoding="utf-8")
    checkout.module.prepare(editable=False)
    assert checkout.installed == [([], False)] * 2
    checkout.module.prepare()
    checkout.source.write_text("3\n", encoding="utf-8")
    checkout.module.prepare()
    checkout.module.prepare(editable=False)
    assert checkout.installed == [([], False), ([], False), ([], True)]


def test_extras_add_up(checkout: Checkout) -> None:
    checkout.module.prepare(["test"])
    checkout.module.prepare(["lint"])
    checkout.module.prepare(["test"])
    assert checkout.installed == [(["test"], True), (["lint", "test"], True)]


@pytest.mark.parametrize("damage", ["no stamp", "garbage", "no python"])
def test_a_broken_environment_is_made_anew(checkout: Checkout, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    checkout.module.prepare()
    if damage == "no stamp":
        checkout.stamp.unlink()
    elif damage == "garbage":
        checkout.stamp.write_text("{", encoding="utf-8")
    else:
        monkeypatch.setattr(checkout.module, "PYTHON", checkout.setup.parent / "gone")
    checkout.module.prepare()
    assert checkout.made == 2
    assert json.loads(checkout.stamp.read_text(encoding="utf-8"))["editable"] is True


@pytest.mark.parametrize(
    ("tool", "extras", "command"),
    [("demo.py", [], ["p2psip", "demo", "more"]), ("test.py", ["test"], ["python", "-m", "pytest", "more"])],
)
def test_what_newcomers_call_runs_what_it_says(
    environment: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tool: str,
    extras: list[str],
    command: list[str],
) -> None:
    """In the environment of the checkout, with what else is given."""
    prepared: list[list[str]] = []
    ran: list[list[str]] = []

    def prepare(extras: tuple[str, ...] = (), editable: bool = True) -> Path:
        prepared.append(list(extras))
        return Path(environment.PYTHON)

    def run(words: list[str]) -> int:
        ran.append(words)
        return 7

    monkeypatch.setattr(environment, "prepare", prepare)
    monkeypatch.setattr(environment, "run", run)
    monkeypatch.setitem(sys.modules, "environment", environment)
    monkeypatch.setattr(sys, "argv", [tool, "more"])
    monkeypatch.chdir(TOOLS)
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(TOOLS / tool), run_name="__main__")
    assert end.value.code == 7
    assert prepared == [extras]
    ((program, *words),) = ran
    assert Path(program).parent == environment.FOLDER / ("Scripts" if os.name == "nt" else "bin")
    assert [Path(program).stem, *words] == command


@pytest.mark.parametrize("failing", ["", "cli/test_one", "net/test_two"])
def test_the_suite_is_run_in_two_halves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], failing: str
) -> None:
    """Each test once, both halves are shown, and the exit code tells of a failure of either."""
    monkeypatch.syspath_prepend(str(TOOLS))
    tool = runpy.run_path(str(TOOLS / "test.py"), run_name="tool")
    for folder in tool["FIRST"]:
        (tmp_path / folder).mkdir(parents=True)
    for name in ("cli/test_one", "net/test_two"):
        path = tmp_path / "tests" / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"def test_it():\n    print('ran', {name!r})\n    assert {name != failing}\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    code = tool["side_by_side"](sys.executable, ["-q", "-s", "-p", "no:cacheprovider"])
    out = capfd.readouterr().out
    assert code == (1 if failing else 0)
    assert [out.count(f"ran {name}\n") for name in ("cli/test_one", "net/test_two")] == [1, 1]
    assert out.count("1 passed") == (1 if failing else 2)
    assert ("A test failed" in out) is bool(failing)
