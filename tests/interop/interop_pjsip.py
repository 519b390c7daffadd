"""Runs PJSIP (package index: pjsua2-python), a user agent for people, in a process and with a Python of its own."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from interop_support import LOOPBACK, PATIENCE, Identity

AGENT = Path(__file__).resolve().parent / "pjsip_agent.py"
ROOT = Path(__file__).resolve().parent.parent.parent
PYTHONS = (sys.executable, str(ROOT / ".venv-peers" / "bin" / "python"))
"""Which may have it. Its wheels are for some versions of Python only, so the second need not be ours."""


@functools.cache
def _find_pjsip() -> str | None:
    for python in filter(os.path.exists, PYTHONS):
        if subprocess.run([python, "-c", "import pjsua2"], capture_output=True).returncode == 0:
            return python
    return None


def require_pjsip() -> str:
    """A Python that has it; without one the test is skipped, or fails where P2PSIP_REQUIRE_INTEROP is 1."""
    python = _find_pjsip()
    if python is not None:
        return python
    sentence = "PJSIP is not installed here; `python3 tools/environment.py --peers` installs it into .venv-peers."
    if os.environ.get("P2PSIP_REQUIRE_INTEROP") == "1":
        pytest.fail(sentence)
    pytest.skip(sentence)


class Pjsip:
    """It takes calls at :attr:`address` by itself and does what :meth:`order` says.

    Args:
        python: Which has it.
        folder: Where its files go; a new one.
        identity: What it shows and trusts: mutual TLS 1.2 in place of TCP. It checks whom it calls and who calls.
    """

    def __init__(self, python: str, folder: Path, identity: Identity | None = None) -> None:
        folder.mkdir()
        self._log = folder / "log"
        tls = None
        if identity is not None:
            tls = {
                "roots": str(identity.trusted),
                "certificate": str(identity.certificate),
                "key": str(identity.key),
            }
        words = json.dumps({"host": LOOPBACK, "tls": tls, "log": str(self._log)})
        self._errors = (folder / "errors").open("w+b")
        self._process = subprocess.Popen(
            [python, str(AGENT), words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, cwd=folder
        )
        self._news = threading.Condition()
        self._ended = False
        self.events: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read, name="events of PJSIP", daemon=True)
        self._reader.start()
        try:
            self.address: str = self.wait_for("ready")["address"]
        except BaseException:
            self.stop()
            raise

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._news:
                self.events.append(json.loads(line))
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def __str__(self) -> str:
        """What it has said, for somebody who has to find out what went wrong."""
        self._errors.seek(0)
        log = self._log.read_text("utf-8", "replace") if self._log.exists() else ""
        return f"{self.events}\n{self._errors.read().decode('utf-8', 'replace')}\n{log[-8000:]}"

    def order(self, name: str, **words: object) -> None:
        """Have it do something, and wait until it has begun."""
        assert self._process.stdin is not None
        count = len(self.of("done"))
        self._process.stdin.write(json.dumps({"order": name, **words}).encode() + b"\n")
        self._process.stdin.flush()
        self.wait_for("done", count + 1)
        assert self.of("done")[count]["error"] is None, str(self)

    def of(self, event: str, **values: object) -> list[dict[str, Any]]:
        """The events of that name with those values, the oldest first."""
        return [said for said in self.events if said["event"] == event and values.items() <= said.items()]

    def wait_for(self, event: str, count: int = 1, **values: object) -> dict[str, Any]:
        """Wait until so many of these have come; the last of them."""

        def enough() -> bool:
            return self._ended or len(self.of(event, **values)) >= count

        with self._news:
            self._news.wait_for(enough, PATIENCE)
            found = self.of(event, **values)
        assert len(found) >= count, f"no {event} {values}: {self}"
        return found[count - 1]

    def stop(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._errors.close()
