"""What people and scripts get to see."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import Any

from p2psip.cli.exits import CommandError, ExitCode


def printable(text: str | bytes, *, lines: bool = False) -> str:
    """Text of a peer without what could move a terminal's cursor or colour it: such characters are escaped.

    Args:
        lines: Keep line ends and tabs.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    if lines:
        text = text.replace("\r\n", "\n")
    kept = "\n\t" if lines else ""
    return "".join(
        c if c.isprintable() or c in kept else c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in text
    )


def say(text: str = "") -> None:
    """A line on standard output, at once.

    Raises:
        BrokenPipeError: Nobody reads any more.
        CommandError: It cannot be written, such as to a disk that is full.
    """
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        forget_output()
        raise CommandError(f"Standard output cannot be written: {error.strerror}.", ExitCode.FAILED) from error


def forget_output() -> None:
    """What is still buffered must not fail once more at the end of the interpreter."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say_json(value: dict[str, Any]) -> None:
    """One JSON object on a line of its own, at once."""
    say(json.dumps(value, ensure_ascii=True))


def complain(text: str) -> None:
    """A line on standard error, at once."""
    print(text, file=sys.stderr, flush=True)


def table(rows: list[tuple[str, str]], *, indent: str = "  ") -> list[str]:
    """Two columns: what it is, and its value."""
    width = max((len(name) for name, _ in rows), default=0)
    return [f"{indent}{name:<{width}}  {value}".rstrip() for name, value in rows]


def milliseconds(seconds: float) -> str:
    """``0.48 ms``, ``12.3 ms``, ``1204 ms``: three figures are enough."""
    value = seconds * 1000
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f} ms"


def endpoint(address: tuple[str, int]) -> str:
    """``host:port``, with brackets around an IPv6 address."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
