"""The layers: who may import whom. Read from the sources with ``ast``; nothing is imported here.

The words of the picture: *message* is text and values, *core* is state machines, *net* is sockets, *sync* is thread
tools, *stack* is the glue, and what else lies at the top of the package is the facade that applications see.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "p2psip"

FOUNDATIONS = frozenset({"errors", "config", "timers", "trace", "tokens", "enums", "_version"})
VALUES = frozenset({"values", "arguments", "domains"})

ALLOWED = {
    # An area of p2psip, and the areas that it may import besides itself.
    **dict.fromkeys(FOUNDATIONS, frozenset[str]()),
    "message": frozenset({"errors", "config"}),
    "core": frozenset({"message", "trace", "enums", "errors", "config", "timers"}),
    "logs": frozenset({"trace"}),
    "net": frozenset({"message", "errors", "config", "timers", "logs"}),
    "sync": frozenset({"errors", "logs"}),
    "values": frozenset({"errors", "message"}),
    "arguments": frozenset({"enums", "errors", "message", "values"}),
    "domains": frozenset({"arguments"}),
    "pressure": FOUNDATIONS | {"net", "sync"},
    "drains": FOUNDATIONS | {"core", "sync"},
    "stack": FOUNDATIONS | {"logs", "message", "core", "net", "sync", "pressure", "drains"},
    "cli": FOUNDATIONS | VALUES | {"", "message", "net"},
    "testing": FOUNDATIONS | VALUES | {"", "message", "net", "stack"},
    "__main__": frozenset({"cli"}),
    "_pytest": frozenset({"testing"}),
}
ABOVE = frozenset({"cli", "testing", "_pytest", "__main__"})
"""What the facade and ``testing``, which may import all the rest, must not know."""

TYPES_ONLY = {("errors", "message"), ("values", "credentials")}
"""Under ``TYPE_CHECKING`` alone, besides what the facade does there: an exception may carry a message, and options the
credentials."""

MACHINES = {
    "core": frozenset({"Engine", "effects", "Directory"}),
    "net": frozenset({"Loop", "Network", "Resolver"}),
    "sync": frozenset({"Dispatcher"}),
}
"""What runs. Only the stack puts these together; the facade handles the values that they take and give."""

NEEDS_NO_WORLD = frozenset({"message", "core"})
WORLD = frozenset(
    {"socket", "ssl", "select", "selectors", "threading", "queue", "time", "random", "secrets", "os", "asyncio"}
    | {"subprocess", "multiprocessing", "signal", "datetime"}
)
"""What a state machine must be told rather than find out."""

THIRD_PARTY = {
    "net": frozenset({"cryptography", "dns"}),
    "cli": frozenset({"cryptography"}),
    "testing": frozenset({"cryptography", "trustme", "pytest"}),
    "_pytest": frozenset({"pytest"}),
}


class Import(NamedTuple):
    """One imported name."""

    module: str
    name: str
    line: int
    in_function: bool
    for_types: bool


def imports(source: str) -> Iterator[Import]:
    """Every import of a module, wherever it stands."""

    def visit(node: ast.AST, in_function: bool, for_types: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, "", node.lineno, in_function, for_types)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            for alias in node.names:
                yield Import(module, alias.name, node.lineno, in_function, for_types)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for child in node.body:
                yield from visit(child, in_function, True)
            for child in node.orelse:
                yield from visit(child, in_function, for_types)
        else:
            inside = in_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for child in ast.iter_child_nodes(node):
                yield from visit(child, inside, for_types)

    yield from visit(ast.parse(source), False, False)


def area(module: str) -> str:
    """``p2psip.net.tls`` lies in ``net``; the package itself is ``""``."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def tops() -> frozenset[str]:
    return frozenset(path.stem for path in PACKAGE.iterdir() if path.is_dir() or path.suffix == ".py")


def violations(module: str, source: str, areas: frozenset[str]) -> list[str]:
    """What a module imports and must not, a sentence each."""
    here = area(module)
    known = here in ALLOWED
    found = []
    for item in imports(source):
        root = item.module.partition(".")[0]
        where = f"{module}:{item.line}"
        if item.in_function and here not in ("cli", "_pytest"):
            found.append(f"{where} imports {item.module} inside a function")
        if not root:
            found.append(f"{where}: a relative import, which hides its layer")
        elif root == "p2psip":
            # `from p2psip import x`: x is a module of ours, or a public name of the facade.
            there = area(item.module) or (item.name if item.name in areas else "")
            if there == here or (item.for_types and (not known or (here, there) in TYPES_ONLY)):
                continue
            if known and there not in ALLOWED[here]:
                found.append(f"{where}: {here} must not import {there or 'the facade'}")
            elif not known and there in ABOVE:
                found.append(f"{where}: {here or 'p2psip'} must not import {there}")
            elif not known and item.name in MACHINES.get(there, ()) and here != "testing":
                found.append(f"{where}: {item.name} belongs to the stack alone")
        elif root in sys.stdlib_module_names:
            if here in NEEDS_NO_WORLD and root in WORLD:
                found.append(f"{where}: {here} must not know {root}")
        elif root not in THIRD_PARTY.get(here, ()):
            found.append(f"{where}: {here or 'p2psip'} must not depend on {root}")
    return found


def sources() -> list[tuple[str, Path]]:
    result = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        result.append((".".join(parts[:-1] if parts[-1] == "__init__" else parts), path))
    return result


@pytest.mark.parametrize(("module", "path"), sources(), ids=[module for module, _ in sources()])
def test_module_keeps_to_its_layer(module: str, path: Path) -> None:
    assert violations(module, path.read_text(encoding="utf-8"), tops()) == []


def test_every_area_of_the_table_exists() -> None:
    assert set(ALLOWED) <= tops()


def test_only_the_stack_sees_core_net_and_sync_together() -> None:
    machines = {name for names in MACHINES.values() for name in names}
    users = {
        module
        for module, path in sources()
        for item in imports(path.read_text(encoding="utf-8"))
        if area(item.module) in MACHINES and item.name in machines and area(module) not in MACHINES
    }
    assert {user for user in users if area(user) != "testing"} == {"p2psip.stack"}


AREAS = frozenset(
    {"core", "net", "sync", "message", "stack", "cli", "testing", "errors", "endpoint", "values", "enums"}
)


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("p2psip.core.engine", "import time", "core must not know time"),
        ("p2psip.core.engine", "from threading import Lock", "core must not know threading"),
        ("p2psip.message.uri", "import os.path", "message must not know os"),
        ("p2psip.message.uri", "from p2psip.core import engine", "message must not import core"),
        ("p2psip.core.engine", "from p2psip.net.loop import Loop", "core must not import net"),
        ("p2psip.net.pool", "from p2psip.core.effects import Send", "net must not import core"),
        ("p2psip.net.pool", "from p2psip import sync", "net must not import sync"),
        ("p2psip.net.pool", "if TYPE_CHECKING:\n    from p2psip.core.effects import Send", "net must not import core"),
        ("p2psip.sync.event", "from p2psip.message import Request", "sync must not import message"),
        ("p2psip.sync.event", "from p2psip import Request", "sync must not import the facade"),
        ("p2psip.net.pool", "from ..core import engine", "a relative import"),
        ("p2psip.stack", "from p2psip.endpoint import RealTimeEndpoint", "stack must not import endpoint"),
        ("p2psip.endpoint", "from p2psip.core.engine import Engine", "Engine belongs to the stack alone"),
        ("p2psip.endpoint", "from p2psip.core import effects", "effects belongs to the stack alone"),
        ("p2psip.endpoint", "from p2psip.cli.main import main", "endpoint must not import cli"),
        ("p2psip.endpoint", "def f():\n    import json", "imports json inside a function"),
        ("p2psip.endpoint", "import trustme", "must not depend on trustme"),
        (
            "p2psip.core.engine",
            "try:\n    import cryptography\nexcept ImportError:\n    pass",
            "core must not depend on",
        ),
        ("p2psip.values", "from p2psip.stack import Stack", "values must not import stack"),
        ("p2psip.cli.send", "from p2psip.stack import Stack", "cli must not import stack"),
    ],
)
def test_a_wrong_import_is_found(module: str, source: str, complaint: str) -> None:
    assert [line for line in violations(module, source, AREAS) if complaint in line]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("p2psip.core.engine", "import enum\nfrom p2psip.message import Request\nfrom p2psip.core import effects"),
        ("p2psip.errors", "if TYPE_CHECKING:\n    from p2psip.message import Response"),
        ("p2psip.endpoint", "from p2psip.core.directory import EndpointRecord\nfrom p2psip import values"),
        ("p2psip.endpoint", "if TYPE_CHECKING:\n    from p2psip.testing.network import InMemoryNetwork"),
        ("p2psip.cli.send", "def f():\n    from p2psip import SipPeerToPeerEndpoint"),
        ("p2psip.stack", "from p2psip.core.engine import Engine\nfrom p2psip.net.loop import Loop"),
    ],
)
def test_a_right_import_passes(module: str, source: str) -> None:
    assert violations(module, source, AREAS) == []
