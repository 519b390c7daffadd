"""The wire trace in a file, as text."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable
from typing import NamedTuple

from p2psip._version import __version__
from p2psip.net.connection import Connection
from p2psip.net.sockets import host_and_port
from p2psip.recording import Recording
from p2psip.trace import mask, readable


class _Entry(NamedTuple):
    """One message. The addresses are looked up by the writer, who has the time."""

    direction: str
    connection: Connection
    when: float
    data: bytes
    left_out: int


class TraceFile(Recording):
    """Every message that a manager sends and receives, in a file that people read: made by ``manager.trace_to``.

    A context manager; leaving it closes it. Usable from any thread.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        maximum_bytes: int,
        title: str,
        mask_secrets: bool,
        detach: Callable[[TraceFile], object],
    ) -> None:
        self._title = title
        self._mask_secrets = mask_secrets
        self._detacher = detach
        self._told = 0  # of what was left out
        super().__init__(path, maximum_bytes, append=True)
        self._thread.start()

    def _detach(self) -> None:
        self._detacher(self)

    def _record(self, direction: str, connection: Connection, when: float, data: bytes) -> None:
        """Loop thread: one message."""
        left_out = self._left_out
        if self._put(_Entry(direction, connection, when, data, left_out - self._told), len(data)):
            self._told = left_out

    # ------------------------------------------------------------------ the writer

    def _begin(self) -> None:
        self._written = self._file.tell()
        secrets = "are masked" if self._mask_secrets else "are in it"
        self._append(f"# p2psip {__version__}, {self._title}, from {_time()} on; secrets {secrets}\n\n")

    def _write(self, entry: _Entry) -> bool:
        data = mask(entry.data) if self._mask_secrets else entry.data
        arrow, word = ("-->", "to") if entry.direction == "sent" else ("<--", "from")
        connection = entry.connection
        text = (
            f"{arrow} {_time(entry.when)} {entry.direction} {word} {host_and_port(*connection.remote)} over "
            f"{connection.transport} on {host_and_port(*connection.local)}, connection {connection.id}, {len(entry.data)} bytes\n"
        )
        lines = "".join(f"    {line}".rstrip() + "\n" for line in readable(data).split("\n"))
        if entry.left_out:
            text = f"# {entry.left_out} messages were left out here, because the disk did not keep up\n\n{text}"
        self._append(text + lines + "\n")
        return True

    def _end(self) -> None:
        untold = self._left_out - self._told
        if untold:
            self._append(f"# {untold} messages were left out here, because the disk did not keep up\n\n")
        self._append(f"# ended {_time()}\n\n")

    def _append(self, text: str) -> None:
        octets = text.encode("utf-8", "backslashreplace")
        if self._written and self._written + len(octets) > self._maximum_bytes:
            self._file.close()
            self._path.replace(f"{self._path}.1")
            self._file = self._open(append=True)
            self._written = 0
        self._file.write(octets)
        self._written += len(octets)


def _time(when: float | None = None) -> str:
    moment = datetime.datetime.now() if when is None else datetime.datetime.fromtimestamp(when)
    return moment.strftime("%Y-%m-%d %H:%M:%S.%f")
