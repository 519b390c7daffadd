"""The repository as a whole: what lies where, what the README promises, what every public name owes its reader."""

from __future__ import annotations

import ast
import inspect
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import p2psip

ROOT = Path(__file__).resolve().parent.parent

TOP_LEVEL = {
    *("p2psip", "tests", "tools", "setup.py", "README.rst", "LICENSE"),
    *(".ci", ".gitattributes", ".gitignore", ".mypy.ini", ".pytest.ini", ".ruff.toml"),
}
LONGEST_MODULE = 500


def tracked() -> list[str]:
    """The files of the repository; those of the folder where there is no git."""
    try:
        listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, timeout=30)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is no git checkout, and what else lies here is not ours")
    return [name for name in os.fsdecode(listing.stdout).split("\0") if name]


# ---------------------------------------------------------------------- what lies where


def test_top_level_holds_what_it_may_and_no_more() -> None:
    assert {name.partition("/")[0] for name in tracked()} == TOP_LEVEL


def test_no_module_is_too_long() -> None:
    ours = [name for name in tracked() if name.endswith(".py") and name.startswith(("p2psip/", "tools/"))]
    lengths = {name: len((ROOT / name).read_bytes().splitlines()) for name in ours}
    assert {name: length for name, length in lengths.items() if length > LONGEST_MODULE} == {}


def test_test_modules_have_names_of_their_own() -> None:
    """Test folders are no packages: pytest would import one module for two of the same name."""
    names = [Path(name).name for name in tracked() if name.startswith("tests/") and name.endswith(".py")]
    assert sorted(names) == sorted(set(names))
    assert "__init__.py" not in names


def test_a_source_distribution_is_the_library_and_nothing_else(tmp_path: Path) -> None:
    for name in tracked():
        if name.startswith(("p2psip/", "tests/test_")) or name in ("setup.py", "README.rst", "LICENSE"):
            copy = tmp_path / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes((ROOT / name).read_bytes())
    pytest.importorskip("setuptools", reason="this Python has no setuptools of its own to pack with")
    command = [sys.executable, "setup.py", "--quiet", "sdist", "--formats", "gztar"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    (archive,) = (tmp_path / "dist").iterdir()
    with tarfile.open(archive) as packed:
        tops = {Path(name).parts[1] for name in packed.getnames() if len(Path(name).parts) > 1}
    assert {"p2psip", "setup.py", "README.rst", "LICENSE"} <= tops
    assert not tops & {"tests", "tools"}


# ---------------------------------------------------------------------- docstrings


def public_objects() -> Iterator[tuple[str, object]]:
    """Every name that ``p2psip`` exports, and the methods that its classes define themselves."""
    for name in p2psip.__all__:
        value = getattr(p2psip, name)
        if not (inspect.isclass(value) or inspect.isroutine(value)):
            continue
        yield name, value
        if inspect.isclass(value):
            for member, item in vars(value).items():
                function = item.__func__ if isinstance(item, classmethod | staticmethod) else item
                if not member.startswith("_") and inspect.isfunction(function):
                    yield f"{name}.{member}", function


def test_no_public_name_without_docstring() -> None:
    named = dict(public_objects())
    assert len(named) > 50
    assert [name for name, value in named.items() if not (getattr(value, "__doc__", None) or "").strip()] == []


@pytest.mark.parametrize(
    "path", sorted((ROOT / "p2psip").rglob("*.py")), ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_every_module_says_what_it_is(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not tree.body or ast.get_docstring(tree), "a module begins with a docstring"


def test_every_exported_name_exists_once() -> None:
    assert sorted(p2psip.__all__) == sorted(set(p2psip.__all__))
    assert [name for name in p2psip.__all__ if not hasattr(p2psip, name)] == []


# ---------------------------------------------------------------------- the pytest plug-in


def test_plug_in_imports_pytest_alone() -> None:
    tree = ast.parse((ROOT / "p2psip" / "_pytest.py").read_text(encoding="utf-8"))
    roots = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            roots |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            roots.add((node.module or "").partition(".")[0])
    assert roots - sys.stdlib_module_names == {"pytest"}


def test_foreign_pytest_run_without_trustme_is_not_disturbed(tmp_path: Path) -> None:
    (tmp_path / "trustme.py").write_text("raise ImportError('not installed here')\n", encoding="utf-8")
    (tmp_path / "test_foreign.py").write_text(
        "import sys\n\n\ndef test_foreign():\n    assert 'p2psip.testing' not in sys.modules\n", encoding="utf-8"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "p2psip._pytest",
        "-p",
        "no:cacheprovider",
        "test_foreign.py",
    ]
    if _is_installed():
        del command[5:7]  # the entry point registers it
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def _is_installed() -> bool:
    return any(entry.value == "p2psip._pytest" for entry in entry_points(group="pytest11"))
