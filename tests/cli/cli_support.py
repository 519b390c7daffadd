"""Runs the command line as a user does: in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from p2psip.testing import IssuedCertificate

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 40.0
"""Seconds after which something hangs; nothing here takes a tenth of it."""


class Result:
    """A command that has ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err

    @property
    def json(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def sentence(self) -> str:
        """What stands on standard error: one line and no more."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        return lines[0]

    def __repr__(self) -> str:
        return f"exit code {self.code}\n{self.out}\n{self.err}"


class CommandLine:
    """Starts commands; a user's home and environment with nothing in it that concerns us."""

    def __init__(self, home: Path) -> None:
        self.home = home
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("P2PSIP_", "XDG_", "PYTHON"))}
        self.environment = {
            **kept,
            "HOME": str(home),
            "USERPROFILE": str(home),
            "APPDATA": str(home),
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "error",
            "PYTHONIOENCODING": "utf-8",
            "COLUMNS": "80",
        }

    def start(self, *arguments: str | Path, **options: Any) -> Running:
        command = [sys.executable, "-m", "p2psip", *map(str, arguments)]
        return Running(
            subprocess.Popen(
                command,
                cwd=self.home,
                env=self.environment,
                stdin=options.pop("stdin", subprocess.DEVNULL),
                stdout=options.pop("stdout", subprocess.PIPE),
                stderr=options.pop("stderr", subprocess.PIPE),
                **options,
            )
        )

    def run(self, *arguments: str | Path, text: bytes | None = None) -> Result:
        running = self.start(*arguments, **({} if text is None else {"stdin": subprocess.PIPE}))
        return running.wait(text)


class Running:
    """A command that runs."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader: threading.Thread | None = None

    def wait(self, text: bytes | None = None) -> Result:
        """Let it end by itself."""
        out, err = self.process.communicate(text, timeout=PATIENCE)
        return Result(self.process.returncode, (out or b"").decode("utf-8"), err.decode("utf-8"))

    def line(self) -> str:
        """The next line of standard output."""
        if self._reader is None:
            self._reader = threading.Thread(target=self._read, daemon=True)
            self._reader.start()
        line = self._lines.get(timeout=PATIENCE)
        if line is None:
            assert self.process.stderr is not None
            raise AssertionError(f"it ended: {self.process.stderr.read().decode()}")
        return line

    def json_line(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.line())
        return value

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.decode("utf-8").rstrip("\r\n"))
        self._lines.put(None)

    def interrupt(self) -> Result:
        """Press Ctrl-C; what line() has not taken is lost."""
        self.process.send_signal(signal.SIGINT)
        return self.end()

    def end(self) -> Result:
        """Wait until it has ended, with line() in use."""
        code = self.process.wait(timeout=PATIENCE)
        assert self.process.stderr is not None
        with self.process.stderr:
            err = self.process.stderr.read().decode("utf-8")
        if self._reader is not None:
            self._reader.join(PATIENCE)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return Result(code, "", err)

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """End it, unless it has ended and been looked at."""
        assert self.process.stderr is not None
        if self.process.poll() is None:
            self.process.kill()
        if not self.process.stderr.closed:
            self.end()


@contextlib.contextmanager
def silent_port() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def closed_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


@contextlib.contextmanager
def serve(talk: Callable[[socket.socket], object]) -> Iterator[int]:
    """A server that talks to one connection after the other; what goes wrong there is the test's matter."""
    server = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), connection:
                connection.settimeout(PATIENCE)
                talk(connection)

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield server.getsockname()[1]
    finally:
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(PATIENCE)


def tls_server(certificate: IssuedCertificate, trusted: bytes | None = None) -> contextlib.AbstractContextManager[int]:
    """A TLS server that shows any certificate, also those which the library would not: it shakes hands, no more.

    Args:
        trusted: The root (PEM) whose clients get in; None lets everybody in.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.load_into(context)
    if trusted is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=trusted.decode("ascii"))

    def talk(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            while secure.recv(4096):
                pass

    return serve(talk)


def plain_server() -> contextlib.AbstractContextManager[int]:
    """A server that answers whatever comes with words, not with TLS."""

    def talk(connection: socket.socket) -> None:
        connection.recv(1)
        connection.sendall(b"220 this is something else\r\n")
        while connection.recv(4096):
            pass

    return serve(talk)
