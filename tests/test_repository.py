"""The repository as a whole: what lies where, what the README promises, what every public name owes its reader."""

from __future__ import annotations

import ast
import contextlib
import inspect
import itertools
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import NamedTuple

import pytest

import p2psip
from p2psip.testing import CertificateAuthority, MemoryNetwork, living_in, tls_manager

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


# ---------------------------------------------------------------------- the README


class Snippet(NamedTuple):
    """A ``.. code-block::`` of the README."""

    language: str
    line: int
    text: str


def snippets(text: str) -> list[Snippet]:
    """All blocks of code."""
    lines = text.split("\n")
    found = []
    for number, line in enumerate(lines, 1):
        match = re.fullmatch(r"( *)\.\. code-block:: (\w+)", line)
        if match is not None:
            indent = len(match[1])
            body = itertools.takewhile(lambda f, i=indent: not f.strip() or f[: i + 1].isspace(), lines[number:])
            found.append(Snippet(match[2], number, inspect.cleandoc("\n".join(body)) + "\n"))
    return found


README = (ROOT / "README.rst").read_text(encoding="utf-8")
PYTHON = [snippet for snippet in snippets(README) if snippet.language == "python"]
CONSOLE = [snippet for snippet in snippets(README) if snippet.language == "console"]


def test_the_readme_shows_code_and_commands() -> None:
    assert PYTHON
    assert CONSOLE
    assert {snippet.language for snippet in snippets(README)} == {"python", "console"}


@pytest.fixture
def contoso(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The world that the README speaks of: its store, its files, and two machines of Contoso that answer."""
    authority = CertificateAuthority("Contoso Issuing CA")
    ours = authority.issue("sip:contoso.com", "contoso.com", serial=0x5F3A00C1)
    monkeypatch.setenv("P2PSIP_CERTIFICATE_STORE", str(authority.store(tmp_path / "certificates", ours).path))
    alice = authority.issue("alice.example.com")
    (tmp_path / "alice.pem").write_bytes(alice.pem)
    (tmp_path / "alice.key").touch(0o600)
    (tmp_path / "alice.key").write_bytes(alice.key_pem())
    (tmp_path / "roots.pem").write_bytes(authority.pem)
    monkeypatch.chdir(tmp_path)
    with contextlib.ExitStack() as end:
        network = end.enter_context(MemoryNetwork())
        for name, address in (("sales.contoso.com", "192.0.2.10"), ("bob.contoso.com", "192.0.2.11")):
            network.hosts[name] = [address]
            with living_in(network.machine(address)):
                manager = end.enter_context(tls_manager(authority, name))
            manager.default_endpoint = p2psip.SipPeerToPeerEndpoint(f"sip:{name}", manager)
            manager.default_endpoint.message_received += lambda sender, args: None
            manager.start_listening(p2psip.IPEndPoint(p2psip.IPAddress.ANY, 5061))
        end.enter_context(living_in(network))
        yield


@pytest.mark.usefixtures("contoso")
@pytest.mark.parametrize("snippet", PYTHON, ids=lambda snippet: f"line{snippet.line}")
def test_python_of_the_readme_runs(snippet: Snippet, capsys: pytest.CaptureFixture[str]) -> None:
    """Each block is a program, and none takes the branch of its failure."""
    blank_lines = "\n" * snippet.line  # a traceback shows the line of the README
    exec(compile(blank_lines + snippet.text, str(ROOT / "README.rst"), "exec"), {"__name__": "__main__"})
    out = capsys.readouterr().out
    assert not re.search("^(failed|certificates|bob does not want it|a handler raised):", out, re.MULTILINE), out


@pytest.mark.parametrize("snippet", CONSOLE, ids=lambda snippet: f"line{snippet.line}")
def test_commands_of_the_readme_run(snippet: Snippet, tmp_path: Path) -> None:
    """In order, in one folder; a command that ends with ``&`` runs until the block is over."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "P2PSIP_CERTIFICATE_STORE": str(tmp_path / "certificates"),
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "error",
    }
    with contextlib.ExitStack() as end:
        for line in snippet.text.replace("5061", str(port)).splitlines():
            assert line.startswith("$ "), f"README.rst:{snippet.line} has a line that is no command: {line}"
            words = shlex.split(line[2:], comments=True)
            text = None
            if words[0] == "echo":
                bar = words.index("|")
                text, words = f"{' '.join(words[1:bar])}\n", words[bar + 1 :]
            assert words[0] == "p2psip", f"README.rst:{snippet.line} has a command that this test cannot run: {line}"
            command = [sys.executable, "-m", "p2psip", *words[1:]]
            if words[-1] == "&":
                process = subprocess.Popen(command[:-1], cwd=tmp_path, env=environment, stdout=subprocess.PIPE)
                end.enter_context(process)
                end.callback(process.kill)
                assert process.stdout is not None
                assert process.stdout.readline(), f"{line} ended without a word"
                continue
            done = subprocess.run(
                command,
                cwd=tmp_path,
                env=environment,
                input=text or "",
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.returncode == 0, f"README.rst:{snippet.line}: {line}\n{done.stdout}{done.stderr}"


def test_snippets_are_found_as_they_are_written() -> None:
    text = (
        "Title\n=====\n\n.. code-block:: python\n\n    x = 1\n\n    if x:\n        y = 2\n\nWords.\n\n"
        "  .. code-block:: console\n\n     $ p2psip demo\n\n  Words.\n"
    )
    assert snippets(text) == [
        Snippet("python", 4, "x = 1\n\nif x:\n    y = 2\n"),
        Snippet("console", 13, "$ p2psip demo\n"),
    ]
