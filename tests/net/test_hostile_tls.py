"""Peers that do with TLS what they should not, on real sockets."""

from __future__ import annotations

import dataclasses
import gc
import os
import re
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from net_support import PATIENCE, Side, answer, dial, message, sides
from tls_support import NAME, TLS12, TLS13, VERSIONS, bare_context, contexts, issued

from p2psip.config import ManagerSettings
from p2psip.errors import ConnectionFailureException, TlsFailureReason
from p2psip.net.network import Target

__all__ = ["sides"]

Make = Callable[..., Side]

HANDSHAKE, APPLICATION = 22, 23


class Peer:
    """A client whose records are in our hands before they leave."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self.sock = dial(port)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=NAME)

    def step(self) -> bytes | None:
        """The next flight that wants to be sent; None when our part of the handshake was the last."""
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return self.outgoing.read()
        return None

    def hear(self) -> None:
        self.incoming.write(self.sock.recv(65536))

    def shake(self) -> None:
        while (flight := self.step()) is not None:
            self.sock.sendall(flight)
            self.hear()
        self.sock.sendall(self.outgoing.read())

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


def become(side: Side, condition: Callable[[], bool]) -> None:
    for _ in range(20_000):
        if side.call(condition):
            return
    raise AssertionError("it does not become so")


# ---------------------------------------------------------------------- going away


def give_up(peer: Peer, step: int, *, reset: bool) -> None:
    """Leave at one of the points where one can leave in a handshake."""
    part, half = divmod(step, 2)
    for number in range(part + 1):
        flight = peer.step()
        if flight is None:
            flight = peer.outgoing.read()
        peer.sock.sendall(flight[: len(flight) // 2] if half and number == part else flight)
        if number < part:
            peer.hear()
    if reset:
        peer.reset()
    else:
        peer.sock.close()


@pytest.mark.holds("A5")
@pytest.mark.parametrize("version", VERSIONS)
def test_peers_that_leave_in_the_handshake_while_listening_stops_and_starts(
    sides: Make, version: ssl.TLSVersion
) -> None:
    settings = ManagerSettings(maximum_handshakes=48, maximum_handshakes_per_address=48)
    side = sides(settings, tls=contexts())
    context = bare_context(server=False, version=version, certificate=issued())
    port = side.listen()
    for number in range(48):
        peer = Peer(port, context)
        if number % 3 == 0:
            become(side, lambda: bool(side.network._all))
            side.call(side.network.stop_listening)
        give_up(peer, number % 4, reset=number % 2 == 0)
        if number % 3 == 0:
            assert side.listen("127.0.0.1", port) == port
    good = Peer(port, context)
    with good.sock:
        good.shake()
        good.tls.write(message())
        good.sock.sendall(good.outgoing.read())
        side.recorder.wait("message")
        become(side, lambda: len(side.network._all) == 1)
        assert side.call(lambda: len(side.network._shaking)) == 0
        assert side.recorder.count("closed") == side.recorder.count("ready") - 1


@pytest.mark.holds("F37")
@pytest.mark.holds("R31")
@pytest.mark.parametrize("said", [b"", b"MESSAGE sip:bob@b.example SIP/2.0\r\n"], ids=["silent", "hasty"])
def test_peers_that_are_gone_before_they_are_accepted_leave_no_descriptor(sides: Make, said: bytes) -> None:
    """``ssl`` makes a socket of its own before it looks whether there is a peer, and may leave it to the collector."""
    side = sides(tls=contexts())
    port = side.listen()

    def lowest() -> int:
        with open(os.devnull) as file:
            return file.fileno()

    entered, leave = threading.Event(), threading.Event()

    def block() -> None:
        entered.set()
        leave.wait(PATIENCE)

    side.loop.post(block)
    assert entered.wait(PATIENCE)
    before = lowest()
    gc.disable()
    try:
        for _ in range(20):
            peer = Peer(port, bare_context(server=False))
            peer.sock.sendall(said)
            peer.reset()
        leave.set()
        for _, error in side.recorder.wait("handshake failed", 20):
            assert error.failure_reason is TlsFailureReason.REMOTE_DISCONNECTED
        become(side, lambda: not side.network._all)
        assert lowest() == before
    finally:
        gc.enable()


def test_we_may_be_our_own_peer(sides: Make) -> None:
    side = sides(tls=contexts(), hosts={NAME: ["127.0.0.1"]})
    connection = side.acquire(Target("TLS", NAME, side.listen(), NAME)).connection()
    side.send(connection, message())
    ((received_on, _),) = side.recorder.wait("message")
    assert received_on is not connection
    side.send(received_on, answer())
    side.recorder.wait("message", 2)
    side.call(connection.close)
    side.recorder.wait("closed", 2)


# ---------------------------------------------------------------------- odd records


@pytest.mark.holds("F41")
@pytest.mark.parametrize("version", VERSIONS)
def test_records_of_one_byte(sides: Make, version: ssl.TLSVersion) -> None:
    side = sides(tls=contexts())
    peer = Peer(side.listen(), bare_context(server=False, version=version, certificate=issued()))
    data = message(b"x" * 500)
    with peer.sock:
        peer.shake()
        for octet in data:
            peer.tls.write(bytes([octet]))
        peer.sock.sendall(peer.outgoing.read())
        assert side.recorder.wait("message")[0][1].to_bytes() == data


@dataclasses.dataclass
class Writer:
    """Writes the records of TLS 1.3 itself (RFC 8446 5.2, 7.1 to 7.3), with AES-256-GCM and SHA-384."""

    secret: bytes
    sequence: int = 0

    def _expand(self, label: str, length: int) -> bytes:
        name = b"tls13 " + label.encode()
        info = struct.pack("!HB", length, len(name)) + name + b"\0"
        return HKDFExpand(hashes.SHA384(), length, info).derive(self.secret)

    def record(self, kind: int, content: bytes) -> bytes:
        head = struct.pack("!BHH", APPLICATION, 0x0303, len(content) + 1 + 16)
        nonce = int.from_bytes(self._expand("iv", 12), "big") ^ self.sequence
        self.sequence += 1
        key = AESGCM(self._expand("key", 32))
        return head + key.encrypt(nonce.to_bytes(12, "big"), content + bytes([kind]), head)

    def key_update(self, *, wants_one: bool) -> bytes:
        record = self.record(HANDSHAKE, b"\x18\0\0\x01" + bytes([wants_one]))
        self.secret, self.sequence = self._expand("traffic upd", 48), 0
        return record


def shaken(side: Side, folder: Path) -> tuple[Peer, Writer]:
    """A peer that has shaken hands and writes with its own pen from then on."""
    context = bare_context(server=False, version=TLS13, certificate=issued())
    context.keylog_filename = str(folder / "keys")
    peer = Peer(side.listen(), context)
    peer.shake()
    cipher = peer.tls.cipher()
    assert cipher is not None and cipher[0] == "TLS_AES_256_GCM_SHA384"
    found = re.search(r"CLIENT_TRAFFIC_SECRET_0 \w+ (\w+)", (folder / "keys").read_text(encoding="ascii"))
    assert found is not None
    return peer, Writer(bytes.fromhex(found[1]))


@pytest.mark.holds("F41")
@pytest.mark.parametrize("wants_one", [False, True])
def test_hundreds_of_key_updates(sides: Make, tmp_path: Path, wants_one: bool) -> None:
    side = sides(tls=contexts())
    peer, writer = shaken(side, tmp_path)
    data = message()
    with peer.sock:
        for _ in range(5):
            peer.sock.sendall(b"".join(writer.key_update(wants_one=wants_one) for _ in range(100)))
        peer.sock.sendall(writer.record(APPLICATION, data))
        assert side.recorder.wait("message")[0][1].to_bytes() == data


@pytest.mark.holds("F41")
def test_a_few_empty_records_are_no_matter(sides: Make, tmp_path: Path) -> None:
    side = sides(tls=contexts())
    peer, writer = shaken(side, tmp_path)
    data = message()
    with peer.sock:
        for piece in (data[:100], data[100:]):
            peer.sock.sendall(b"".join(writer.record(APPLICATION, b"") for _ in range(10)))
            peer.sock.sendall(writer.record(APPLICATION, piece))
        assert side.recorder.wait("message")[0][1].to_bytes() == data


@pytest.mark.holds("F41")
def test_a_flood_of_empty_records_ends_the_connection(sides: Make, tmp_path: Path) -> None:
    side = sides(tls=contexts())
    peer, writer = shaken(side, tmp_path)
    with peer.sock:
        side.recorder.wait("ready")
        peer.sock.sendall(b"".join(writer.record(APPLICATION, b"") for _ in range(500)))
        ((_, error),) = side.recorder.wait("closed")
    assert isinstance(error, ConnectionFailureException)


# ---------------------------------------------------------------------- sessions


@pytest.mark.holds("R8")
def test_a_revoked_client_does_not_come_back_by_its_session(sides: Make) -> None:
    """TLS 1.2 resumes sessions on the strength of the first handshake; new contexts know no old sessions."""
    side = sides(tls=contexts())
    context = bare_context(server=False, version=TLS12, certificate=issued())
    port = side.listen()
    first = Peer(port, context)
    with first.sock:
        first.shake()
        side.recorder.wait("ready")
        session = first.tls.session
    side.call(side.network.use_tls, contexts())
    second = Peer(port, context)
    second.tls = context.wrap_bio(second.incoming, second.outgoing, server_hostname=NAME, session=session)
    with second.sock:
        second.shake()
        side.recorder.wait("ready", 2)
        assert not second.tls.session_reused
