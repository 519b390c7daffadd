"""Runs SIPp, and stunnel in front of it where it is to speak TLS, as peers on loopback.

SIPp (Debian: sip-tester) plays a scenario of the folder ``scenarios``, in which words such as ``@METHOD@`` are filled
in here. It has no TLS of its own: stunnel (Debian: stunnel4) carries its bytes.
"""

from __future__ import annotations

import contextlib
import csv
import os
import random
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import pytest
from interop_script import Script
from suspend import suspended

LOOPBACK = "127.0.0.1"
SCENARIOS = Path(__file__).resolve().parent / "scenarios"
PATIENCE = 30.0
"""Seconds after which something hangs; nothing here takes a third of it."""

_Self = TypeVar("_Self", bound="Program")

_ESCAPE = re.compile(r"\x1b(?:\[[\d;?]*[A-Za-z]|[()][0B]|[>=])")


def require(package: str, *names: str) -> str:
    """The path of a program; without it the test is skipped, or fails where P2PSIP_REQUIRE_INTEROP is 1."""
    for name in names:
        path = shutil.which(name)
        if path is not None and hasattr(os, "openpty"):
            return path
    sentence = f"{names[0]} is not installed here; on Debian and Ubuntu it is in the package {package}."
    if os.environ.get("P2PSIP_REQUIRE_INTEROP") == "1":
        pytest.fail(sentence)
    pytest.skip(sentence)


def require_sipp() -> str:
    return require("sip-tester", "sipp")


def require_stunnel() -> str:
    return require("stunnel4", "stunnel4", "stunnel")


def free_port() -> int:
    """For SIPp, which left to itself takes 5060, where a stray message of somebody else would reach it.

    It is below those that outgoing connections take.
    """
    while True:
        port = random.randrange(20000, 32000)
        with contextlib.suppress(OSError), socket.create_server((LOOPBACK, port)):
            return port


class Program:
    """A program that runs until it ends by itself or until the block is over.

    It has a terminal of its own, because SIPp prints nothing to a pipe before it ends.
    """

    def __init__(self, command: Sequence[str | Path], folder: Path) -> None:
        self.name = Path(command[0]).name
        self._text = ""
        self._ended = False
        self._news = threading.Condition()
        self._terminal, other_end = os.openpty()
        try:
            self._process = subprocess.Popen(
                [str(word) for word in command],
                cwd=folder,
                env={**os.environ, "TERM": "vt100", "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=other_end,
                stderr=other_end,
            )
        finally:
            os.close(other_end)
        self._reader = threading.Thread(target=self._read, name=f"output of {self.name}", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                chunk = os.read(self._terminal, 65536)
            except OSError:  # Linux says so when the other end is closed
                chunk = b""
            with self._news:
                self._text += chunk.decode("utf-8", "replace")
                self._ended = not chunk
                self._news.notify_all()
            if not chunk:
                return

    @property
    def output(self) -> str:
        """What it has printed."""
        return _ESCAPE.sub(" ", self._text)

    def expect_port(self, pattern: str) -> int:
        """Wait until it says which port it listens on; end it if it does not."""

        def found() -> re.Match[str] | None:
            return re.search(pattern, self.output)

        with self._news:
            self._news.wait_for(lambda: self._ended or found(), PATIENCE)
            match = found()
        if match is None:
            self.stop()
            raise AssertionError(f"{self.name} does not listen, but says:\n{self.output}")
        return int(match[1])

    _patience = PATIENCE

    def wait(self) -> int:
        """Wait until it ends by itself; its exit code."""
        with self._news:
            assert self._news.wait_for(lambda: self._ended, self._patience), f"{self.name} hangs:\n{self.output}"
        return self._process.wait(PATIENCE)

    @contextlib.contextmanager
    def suspended(self) -> Iterator[None]:
        """It stands still, while what is sent to it waits in its sockets."""
        with suspended(self._process):
            yield

    def stop(self) -> None:
        """End it."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        if self._terminal >= 0:
            os.close(self._terminal)
            self._terminal = -1

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()


class Identity(NamedTuple):
    """What stunnel shows and what it trusts: PEM files.

    Attributes:
        certificate: Certificate and chain; None shows none.
        key: Its key.
        trusted: Who may have issued the other side's certificate, which must be shown.
    """

    certificate: Path | None
    key: Path | None
    trusted: Path


class Stunnel(Program):
    """TLS on one side, TCP on the other."""

    def __init__(
        self, folder: Path, identity: Identity, connect: int, *, is_client: bool, version: str | None = None
    ) -> None:
        lines = ["foreground = yes", "debug = info", "pid =", "syslog = no", "[sip]"]
        lines += [
            f"client = {'yes' if is_client else 'no'}",
            f"accept = {LOOPBACK}:0",
            f"connect = {LOOPBACK}:{connect}",
        ]
        lines += ["sslVersionMin = TLSv1.2", f"CAfile = {identity.trusted}", "verifyChain = yes"]
        if version is not None:
            lines.append(f"sslVersion = {version}")
        if identity.certificate is not None:
            lines += [f"cert = {identity.certificate}", f"key = {identity.key}"]
        configuration = folder / f"stunnel-{'client' if is_client else 'server'}.conf"
        configuration.write_text("\n".join(lines) + "\n")
        super().__init__([require_stunnel(), configuration], folder)
        self.port = self.expect_port(rf"bound to {re.escape(LOOPBACK)}:(\d+)\s")


class Statistics(NamedTuple):
    """What SIPp counted, as it ended."""

    created: int
    successful: int
    failed: int
    out_of_call: int
    dead_call: int
    retransmissions: int


class Sipp(Program):
    """SIPp over TCP, in one role of a scenario.

    Args:
        folder: Where its files go.
        scenario: One of the folder ``scenarios``, or a script.
        remote: The port to call; None makes it a server.
        port: Where it listens as a server; None takes a free one.
        calls: After so many it ends.
        in_flight: As a client, so many calls at a time.
        connection_per_call: As a client, or all calls over one.
        rate: As a client, so many calls a second.
        patience: Seconds after which it hangs.
        words: What ``@WORD@`` in the scenario stands for.
    """

    def __init__(
        self,
        folder: Path,
        scenario: str | Script,
        *,
        remote: int | None = None,
        port: int | None = None,
        calls: int = 1,
        in_flight: int = 50,
        connection_per_call: bool = False,
        rate: int = 10000,
        patience: float = PATIENCE,
        words: dict[str, object] | None = None,
    ) -> None:
        if isinstance(scenario, Script):
            text, scenario = scenario.xml, scenario.name
        else:
            text = (SCENARIOS / f"{scenario}.xml").read_text()
        self._patience = patience
        for word, value in (words or {}).items():
            text = text.replace(f"@{word}@", str(value))
        missing = re.findall(r"@[A-Z_]+@", text)
        assert not missing, f"the scenario {scenario} wants {missing}"
        self.calls = calls
        self._files = {
            kind: folder / f"{scenario}-{kind}" for kind in ("scenario", "statistics", "errors", "messages", "log")
        }
        self._files["scenario"].write_text(text)
        command: list[str | Path] = [require_sipp(), "-sf", self._files["scenario"], "-i", LOOPBACK, "-bind_local"]
        command += ["-t", "tn" if connection_per_call else "t1", "-m", str(calls), "-max_socket", "2000"]
        # On a surprise it would send a BYE of its own making.
        command += ["-nostdin", "-default_behaviors", "all,-bye"]
        command += ["-recv_timeout", "15s", "-timeout", f"{patience - 5:g}s", "-timeout_error", "-f", "3600"]
        command += ["-trace_stat", "-fd", "3600", "-stf", self._files["statistics"]]
        command += ["-trace_err", "-error_file", self._files["errors"]]
        command += ["-trace_msg", "-message_file", self._files["messages"]]
        command += ["-trace_logs", "-log_file", self._files["log"]]
        if remote is None:
            command += ["-p", str(port or free_port())]
        else:
            command += ["-r", str(rate), "-l", str(in_flight), f"{LOOPBACK}:{remote}"]
        super().__init__(command, folder)
        self.port = 0 if remote is not None else self.expect_port(r"Transport\s+(\d+)\s")

    def _file(self, kind: str) -> str:
        path = self._files[kind]
        return path.read_text("utf-8", "replace") if path.exists() else ""

    @property
    def log(self) -> list[str]:
        """What the scenario logged: a line for each time."""
        return self._file("log").splitlines()

    @property
    def messages(self) -> str:
        """What it sent and received."""
        return self._file("messages")

    @property
    def statistics(self) -> Statistics:
        """What it counted; once it has ended."""
        *_, last = csv.DictReader(self._file("statistics").splitlines(), delimiter=";")
        columns = (
            *("TotalCallCreated", "SuccessfulCall(C)", "FailedCall(C)"),
            *("OutOfCallMsgs(C)", "DeadCallMsgs(C)", "Retransmissions(C)"),
        )
        return Statistics(*(int(last[column]) for column in columns))

    def check(self) -> None:
        """Wait until it has ended: all calls went as the scenario says, and nothing else came."""
        code = self.wait()
        about = f"{self._file('errors')}\n{self.messages[-4000:]}\n{self.output[-2000:]}"
        assert self.statistics == Statistics(self.calls, self.calls, 0, 0, 0, 0), about
        assert code == 0, about
