"""Sockets under TLS that do what sockets may do: fail in every way, take or give one byte, ask to be called again."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

import pytest
from net_support import Side, answer, dial, message, read, sides
from tls_support import NAME, VERSIONS, bare_context, contexts, issued

from p2psip.config import ManagerSettings
from p2psip.errors import ConnectionFailureException, RealTimeException
from p2psip.net import listener
from p2psip.net.connection import Connection
from p2psip.net.network import Target
from p2psip.net.sockets import SystemSockets, discard
from p2psip.net.tls import TlsContexts

__all__ = ["sides"]

Make = Callable[..., Side]

LOST = (
    *("ECONNABORTED", "EPROTO", "ENETDOWN", "ENOPROTOOPT", "EHOSTDOWN", "ENONET", "EHOSTUNREACH", "ENETUNREACH"),
    *("EOPNOTSUPP", "EPERM", "EINTR", "EAGAIN"),
)
EXHAUSTED = ("EMFILE", "ENFILE", "ENOBUFS", "ENOMEM")
"""What Linux's accept may say, of a peer and of the system."""
ERRNOS = [
    getattr(errno, name) for name in (*LOST, *EXHAUSTED, "ECONNRESET", "EPIPE", "ETIMEDOUT") if hasattr(errno, name)
]


def become(side: Side, condition: Callable[[], bool]) -> None:
    for _ in range(20_000):
        if side.call(condition):
            return
    raise AssertionError("it does not become so")


def client(port: int, version: ssl.TLSVersion | None = None) -> ssl.SSLSocket:
    """A peer that has shaken hands."""
    context = bare_context(server=False, version=version, certificate=issued())
    return context.wrap_socket(dial(port), server_hostname=NAME)


def incoming(side: Side, port: int) -> tuple[ssl.SSLSocket, Connection]:
    known = side.recorder.count("ready")
    peer = client(port)
    return peer, side.recorder.wait("ready", known + 1)[known][0]


def fails(connection: Connection, **methods: Callable[..., Any]) -> None:
    """From now on the TLS socket below the connection has these methods. For the loop's thread."""
    tls = connection._socket._socket  # type: ignore[attr-defined]
    tls.__class__ = type("Faulty", (type(tls),), methods)


# ---------------------------------------------------------------------- errors


@pytest.mark.holds("F18")
def test_accept_says_everything_that_it_may_say(sides: Make) -> None:
    numbers = [getattr(errno, name) for name in (*LOST, *EXHAUSTED) if hasattr(errno, name)]
    left = list(numbers)

    class Listening(socket.socket):
        __slots__ = ()

        def accept(self) -> Any:
            if left:
                raise OSError(left.pop(0), "whatever")
            return super().accept()

    class Failing(SystemSockets):
        def listen(self, family: int, address: Any, backlog: int, reuse_port: bool) -> Any:
            sock: Any = super().listen(family, address, backlog, reuse_port)
            sock.__class__ = Listening
            return sock

    side = sides(ManagerSettings(accept_pause=0.01), tls=contexts(), factory=Failing())
    port = side.listen()
    with dial(port):
        become(side, lambda: not left)
    peer, _ = incoming(side, port)
    with peer:
        peer.sendall(message())
        side.recorder.wait("message")
    assert side.recorder.count("aborted") == 0
    assert {n for n in numbers if n in listener.EXHAUSTED} == {getattr(errno, name) for name in EXHAUSTED}


@pytest.mark.holds("F18", "F36", "R37")
@pytest.mark.parametrize("way", ["read", "write"])
@pytest.mark.parametrize("kind", ["of the system", "of ours"])
def test_every_error_costs_one_connection(sides: Make, way: str, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """Also memory that has run out in the middle of it, and a stack that is too deep."""
    side = sides(tls=contexts())
    port = side.listen()
    other, _ = incoming(side, port)
    errors: list[BaseException] = [MemoryError(), RecursionError()]
    if kind == "of the system":
        errors = [OSError(number, os.strerror(number)) for number in ERRNOS]
    with other:
        for count, error in enumerate(errors, 1):

            def fail(self: Any, *args: Any, error: BaseException = error) -> Any:
                raise error

            peer, connection = incoming(side, port)
            with peer:
                side.call(lambda connection=connection, fail=fail: fails(connection, **{way: fail}))
                if way == "read":
                    peer.sendall(message())
                else:
                    side.send(connection, answer())
                closed, told = side.recorder.wait("closed", count)[-1]
                assert closed is connection
                assert isinstance(told, RealTimeException)
                assert told.__cause__ is error or (told.__cause__ is not None and told.__cause__.__cause__ is error)
        other.sendall(message())
        side.recorder.wait("message")
        assert side.recorder.count("message") == 1
    if kind == "of ours":
        assert [record.levelname for record in caplog.records].count("ERROR") == len(errors)
        caplog.clear()


@pytest.mark.holds("F36", "R37")
@pytest.mark.parametrize("where", ["wrap_server", "wrap_client", "do_handshake", "verify"])
@pytest.mark.parametrize("error", [MemoryError, RecursionError])
def test_memory_runs_out_while_a_connection_begins(
    sides: Make,
    where: str,
    error: type[Exception],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    side, us = sides(tls=contexts()), sides(tls=contexts(), hosts={NAME: ["127.0.0.1"]})
    port = side.listen()
    other, _ = incoming(side, port)

    def fail(*args: Any, **more: Any) -> Any:
        raise error

    place = {"do_handshake": ssl.SSLSocket, "verify": type(contexts().verifier)}.get(where, TlsContexts)
    with other:
        with monkeypatch.context() as patch:
            patch.setattr(place, where, fail)
            if where in ("wrap_client", "do_handshake"):
                told = us.acquire(Target("TLS", NAME, port, NAME)).error()
                assert isinstance(told, ConnectionFailureException)
            else:
                with contextlib.suppress(OSError), client(port) as peer:
                    assert peer.recv(1) == b""
            become(side, lambda: len(side.network._all) == 1)
        peer, _ = incoming(side, port)
        with peer:
            for count, sock in enumerate((other, peer), 1):
                sock.sendall(message())
                side.recorder.wait("message", count)
        connection = us.acquire(Target("TLS", NAME, port, NAME)).connection()
        assert connection.is_connected
    assert side.recorder.count("aborted") == 0
    caplog.clear()


# ---------------------------------------------------------------------- bit by bit


@pytest.mark.holds("F19")
def test_one_byte_at_a_time_and_not_now_every_second_time_in_tls(sides: Make) -> None:
    calls = 0
    offered: bytes | None = None

    def write(self: Any, data: Any) -> int:
        nonlocal calls, offered
        calls += 1
        if offered is not None:
            assert bytes(data) == offered, "other bytes than before were offered"
        if calls % 2:
            offered = bytes(data)
            raise ssl.SSLWantWriteError
        offered = None
        return ssl.SSLSocket.write(self, bytes(data[:1]))

    side = sides(tls=contexts())
    peer, connection = incoming(side, side.listen())
    with peer:
        side.call(lambda: fails(connection, write=write))
        sent = [message(b"x" * n) for n in range(3)]
        for data in sent:
            side.send(connection, data)
        assert read(peer, sum(map(len, sent))) == b"".join(sent)
    assert calls >= 2 * sum(map(len, sent))


@pytest.mark.holds("F20")
@pytest.mark.parametrize("size", [1, 65536])
def test_pieces_of_every_size_make_the_same_messages_in_tls(sides: Make, size: int) -> None:
    """A byte at a time, and all that is there at once."""

    def receive(self: Any, length: int) -> bytes:
        data = b""
        try:
            while len(data) < size:
                piece = ssl.SSLSocket.read(self, min(length, size))
                data += piece
                if not piece:
                    break
        except ssl.SSLWantReadError:
            if not data:
                raise
        return data

    side = sides(tls=contexts())
    peer, connection = incoming(side, side.listen())
    with peer:
        side.call(lambda: fails(connection, read=receive))
        sent = [message(b"n" * n) for n in range(500 if size > 1 else 20)]
        peer.sendall(b"".join(sent))
        received = side.recorder.wait("message", len(sent))
    assert [each.to_bytes() for _, each in received] == sent


# ---------------------------------------------------------------------- answers in order


@pytest.mark.holds("F40")
@pytest.mark.parametrize("version", VERSIONS)
def test_all_that_comes_with_the_handshake_is_answered_in_order(sides: Make, version: ssl.TLSVersion) -> None:
    """The first request in the segment of Finished, two in one record, and one over forty records."""
    side = sides(tls=contexts())
    port = side.listen()

    def respond(connection: Connection, messages: list[Any]) -> None:
        for each in messages:
            connection.send(answer(each.cseq.number))

    side.recorder.on_messages = respond
    requests = [message(number=number) for number in range(1, 5)]
    inward, outward = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = bare_context(server=False, version=version, certificate=issued())
    tls = context.wrap_bio(inward, outward, server_hostname=NAME)
    with dial(port) as sock:
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                sock.sendall(outward.read())
                inward.write(sock.recv(65536))
        tls.write(requests[0])
        tls.write(requests[1] + requests[2])
        step = -(-len(requests[3]) // 40)
        for start in range(0, len(requests[3]), step):
            tls.write(requests[3][start : start + step])
        sock.sendall(outward.read())
        expected = b"".join(answer(number) for number in range(1, 5))
        got = b""
        while len(got) < len(expected):
            try:
                got += tls.read(65536)
            except ssl.SSLWantReadError:
                inward.write(sock.recv(65536))
    assert got == expected


# ---------------------------------------------------------------------- odd records cost little


@pytest.mark.holds("F41")
def test_a_thousand_records_of_one_byte_cost_little(sides: Make) -> None:
    """The loop's own share of the processor, per second of a peer that sends a hundred of them a second."""
    side = sides(tls=contexts())
    peer, _ = incoming(side, side.listen())
    data = message(b"x" * 700)
    with peer:
        before = side.call(time.thread_time)
        for octet in data:
            peer.write(bytes([octet]))  # type: ignore[arg-type]
        assert side.recorder.wait("message")[0][1].to_bytes() == data
        spent = side.call(time.thread_time) - before
    assert spent / len(data) * 100 < 0.05


def test_what_the_system_knows_nothing_of_has_ended() -> None:
    """As a socket that was reset on macOS, whose address cannot be asked for."""
    reading, writing = os.pipe()
    try:
        assert discard(reading)
    finally:
        os.close(reading)
        os.close(writing)
