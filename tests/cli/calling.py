"""A user with a certificate, and ``p2psip answer`` for calls."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cli_support import CommandLine, Running

from p2psip.testing import CertificateAuthority


class Phone:
    """A user whose store has one certificate, for this machine."""

    def __init__(self, folder: Path) -> None:
        authority = CertificateAuthority()
        store = folder / "certificates"
        authority.store(store, authority.issue("localhost", "127.0.0.1"))
        self.folder = folder
        self.command = CommandLine(folder)
        self.command.environment["P2PSIP_CERTIFICATE_STORE"] = str(store)

    @contextlib.contextmanager
    def answering(self, *arguments: str | Path) -> Iterator[tuple[Running, str]]:
        """``p2psip answer`` with these arguments, and the address where it can be called."""
        running = self.command.start("answer", "--json", "--port", "0", "--host", "127.0.0.1", *arguments)
        try:
            announced = running.json_line()
            assert announced["event"] == "listening"
            yield running, f"sip:bob@127.0.0.1:{announced['port']}"
        finally:
            running.kill()


def until(running: Running, event: str, **facts: Any) -> dict[str, Any]:
    """The next line that tells of this event with these facts."""
    while True:
        line = running.json_line()
        if line.get("event") == event and facts.items() <= line.items():
            return line


def states(lines: list[dict[str, Any]]) -> list[str]:
    return [line["state"] for line in lines if line.get("event") == "state"]


def ladder(lines: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """What went over the wire: a direction, and a method or a status with its method."""
    steps = []
    for line in lines:
        if line.get("event") != "ladder":
            continue
        for step in line["messages"]:
            words = step["message"].split()
            name = words[0] if not words[0].isdigit() else f"{words[0]} {words[-1]}"
            steps.append((step["direction"], name))
    return steps
