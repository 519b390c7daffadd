"""What goes over the wire as packets, with the keys of TLS, in a file for Wireshark."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from p2psip._version import __version__
from p2psip.logs import Log
from p2psip.net import pcapng
from p2psip.net.packets import Conversation, Packet
from p2psip.recording import Recording

_log = Log(__name__)

MOST_HELD = 256 * 1024
"""Octets of one handshake that wait for its keys."""
MOST_KEYS = 4096
"""Connections whose keys are kept until they are wanted: others may write theirs into the same file."""


class _Event(NamedTuple):
    """Something that the tap was told."""

    kind: str
    number: int
    when: float
    arguments: tuple[Any, ...] = ()


class _Stream:
    """One connection, for the writer."""

    def __init__(self, local: tuple[str, int], remote: tuple[str, int], is_incoming: bool) -> None:
        self.is_incoming = is_incoming
        self.conversation = Conversation(*((remote, local) if is_incoming else (local, remote)))
        self.expected = [0, 0]  # octets sent and received
        self.held: list[tuple[float, Packet, str]] | None = None  # until the keys are known
        self.held_bytes = 0
        self.hello = b""  # the beginning of what the client says

    @property
    def client_random(self) -> str:
        """What the lines of a key log name the connection by (RFC 8446 4.1.2): in hexadecimal digits."""
        return self.hello[11:43].hex() if self.hello[:1] == b"\x16" and self.hello[5:6] == b"\x01" else ""


class _Tap:
    """Tells the writer what connections carry (:class:`p2psip.net.tap.Tap`)."""

    def __init__(self, put: Callable[[_Event, int, bool], bool]) -> None:
        self._put = put
        self._begun: set[int] = set()  # those whose beginning was not left out; so their end is not either

    def opened(self, number: int, local: tuple[str, int], remote: tuple[str, int], is_incoming: bool) -> None:
        if self._put(_Event("opened", number, time.time(), (local, remote, is_incoming)), 0, False):
            self._begun.add(number)

    def securing(self, number: int) -> None:
        self._put(_Event("securing", number, 0.0), 0, False)

    def secured(self, number: int) -> None:
        self._put(_Event("secured", number, 0.0), 0, False)

    def carried(self, number: int, is_sent: bool, offset: int, data: bytes) -> None:
        self._put(_Event("carried", number, time.time(), (is_sent, offset, data)), len(data), False)

    def closed(self, number: int, by_peer: bool) -> None:
        if number in self._begun:
            self._begun.remove(number)
            self._put(_Event("closed", number, time.time(), (by_peer,)), 0, True)


class CaptureFile(Recording):
    """The packets of a manager's new connections, for Wireshark: made by ``manager.capture_to``.

    The records of TLS are those that went over the wire, and with their keys in the file Wireshark shows the SIP in them.
    So whoever has the file reads everything, passwords' digests included. A context manager; leaving it closes it. Usable
    from any thread.
    """

    def __init__(
        self, path: str | os.PathLike[str], maximum_bytes: int, title: str, key_log: str | None, is_tls: bool
    ) -> None:
        self._title = title
        self._detacher: Callable[[], object] | None = None
        self._streams: dict[int, _Stream] = {}
        self._keys: dict[str, list[bytes]] = {}
        self._packets = 0
        self._lost_bytes = 0
        self._is_full = False
        self._own_key_log: str | None = None
        self._tap = _Tap(self._put)
        super().__init__(path, maximum_bytes, append=False)
        try:
            if key_log is None and is_tls:
                descriptor, key_log = tempfile.mkstemp(".keys", ".p2psip-", self._path.parent)
                os.close(descriptor)
                self._own_key_log = key_log
            self._key_log = key_log
            there = None if key_log is None else Path(key_log)
            self._key_log_at = there.stat().st_size if there is not None and there.exists() else 0
        except BaseException:
            self._file.close()
            raise
        _log.warning("Everything on new connections of %s, secrets included, goes to %s.", title, self._path)

    @property
    def is_full(self) -> bool:
        """It has ended because it has its greatest size."""
        return self._is_full

    def _start(self, detach: Callable[[], object]) -> None:
        self._detacher = detach
        self._thread.start()

    def _detach(self) -> None:
        detach, self._detacher = self._detacher, None
        if detach is not None:
            detach()

    # ------------------------------------------------------------------ the writer

    def _begin(self) -> None:
        self._append(pcapng.section_header(f"p2psip {__version__}") + pcapng.interface(self._title))

    def _write(self, event: _Event) -> bool:
        if event.kind == "opened":
            stream = self._streams[event.number] = _Stream(*event.arguments)
            self._show(stream, event.when, stream.conversation.begin())
        elif event.number in self._streams:  # else its beginning was left out
            stream = self._streams[event.number]
            if event.kind == "securing":
                stream.held = []
            elif event.kind == "secured":
                self._unlock(stream)
            elif event.kind == "carried":
                self._carried(stream, event.when, *event.arguments)
            else:
                self._unlock(stream)
                (by_peer,) = event.arguments
                self._show(stream, event.when, stream.conversation.end(by_peer == stream.is_incoming))
                del self._streams[event.number]
        if self._written > self._maximum_bytes:
            self._is_full = self._is_over = True
            _log.warning(
                "%s has reached its greatest size (%d bytes); no more is recorded there.", self._path, self._written
            )
            return False
        return True

    def _carried(self, stream: _Stream, when: float, is_sent: bool, offset: int, data: bytes) -> None:
        from_client = is_sent != stream.is_incoming
        lost = offset - stream.expected[is_sent]
        stream.expected[is_sent] = offset + len(data)
        comment = ""
        if lost:
            self._lost_bytes += lost
            comment = f"{lost} bytes before these were left out, because the disk did not keep up"
        if from_client and len(stream.hello) < 43:
            stream.hello += data[:43]
        self._show(stream, when, stream.conversation.carry(from_client, data, offset), comment)

    def _show(self, stream: _Stream, when: float, packets: list[Packet], comment: str = "") -> None:
        for packet in packets:
            if stream.held is None:
                self._append_packet(stream, when, packet, comment)
            else:
                stream.held.append((when, packet, comment))
                stream.held_bytes += len(packet.data)
            comment = ""
        if stream.held_bytes > MOST_HELD:
            self._unlock(stream)

    def _unlock(self, stream: _Stream) -> None:
        """The keys come first, because readers want them first; then what has waited for them."""
        held, stream.held, stream.held_bytes = stream.held, None, 0
        if held is None:
            return
        self._read_keys()
        lines = self._keys.pop(stream.client_random, None)
        if lines:
            self._append(pcapng.secrets(b"".join(lines)))
        for when, packet, comment in held:
            self._append_packet(stream, when, packet, comment)

    def _append_packet(self, stream: _Stream, when: float, packet: Packet, comment: str) -> None:
        is_sent = packet.from_client != stream.is_incoming
        self._packets += 1
        self._append(pcapng.packet(when, packet.data, is_sent=is_sent, comment=comment))

    def _read_keys(self) -> None:
        """What OpenSSL has added to the key log; each line names its connection."""
        if self._key_log is None:
            return
        with Path(self._key_log).open("rb") as file:
            file.seek(self._key_log_at)
            added = file.read()
        complete = added[: added.rfind(b"\n") + 1]
        self._key_log_at += len(complete)
        for line in complete.splitlines(keepends=True):
            words = line.split()
            if len(words) == 3:
                self._keys.setdefault(words[1].decode("latin-1"), []).append(line)
        for other in list(self._keys)[:-MOST_KEYS]:
            del self._keys[other]

    def _end(self) -> None:
        for stream in self._streams.values():
            self._unlock(stream)
        lost = self._left_out
        comment = (
            f"{lost} events and {self._lost_bytes} bytes were left out, because the disk did not keep up"
            if lost
            else ""
        )
        if self._is_full:
            comment = f"ended because of maximum_bytes; {comment}".rstrip("; ")
        self._append(pcapng.interface_statistics(time.time(), self._packets, lost, comment or "nothing was left out"))

    def _clean_up(self) -> None:
        if self._own_key_log is not None:
            Path(self._own_key_log).unlink(missing_ok=True)

    def _append(self, octets: bytes) -> None:
        self._file.write(octets)
        self._written += len(octets)
