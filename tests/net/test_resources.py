"""What one peer may take up of time, memory and connections: over TCP and over TLS alike, with the design's numbers."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from net_support import PATIENCE, Side, answer, dial, message, read, read_to_end, sides, tcp
from scale import scaled
from tls_support import NAME, bare_context, contexts, issued

from p2psip.config import ManagerSettings
from p2psip.errors import ConnectionFailureException
from p2psip.net import channel, listener
from p2psip.net.connection import Connection
from p2psip.net.network import Target
from p2psip.testing.clock import FakeClock
from p2psip.testing.network import MemoryNetwork

__all__ = ["sides"]

DEFAULTS = ManagerSettings()


class Wire:
    """Makes our side, and peers that are written with sockets alone."""

    def __init__(self, sides: Callable[..., Side], is_tls: bool) -> None:
        self.is_tls = is_tls
        self._sides = sides
        self._opened: list[socket.socket] = []

    def side(self, settings: ManagerSettings | None = None, **options: Any) -> Side:
        return self._sides(settings, tls=contexts() if self.is_tls else None, **options)

    def secure(self, raw: socket.socket, server: bool = False) -> socket.socket:
        """The peer's handshake, where there is one."""
        raw.settimeout(PATIENCE)
        if not self.is_tls:
            return self.kept(raw)
        context = bare_context(server=server, certificate=issued())
        try:
            wrapped = context.wrap_socket(
                raw, server_side=server, server_hostname=None if server else NAME, suppress_ragged_eofs=False
            )
        except OSError:
            raw.close()
            raise
        return self.kept(wrapped)

    def kept(self, sock: socket.socket) -> socket.socket:
        """Closed at the end."""
        self._opened.append(sock)
        return sock

    def incoming(self, side: Side) -> tuple[socket.socket, Connection]:
        """A peer that has connected, and our end."""
        known = side.recorder.count("ready")
        peer = self.secure(dial(side.network.listening_port or side.listen()))
        return peer, side.recorder.wait("ready", known + 1)[known][0]

    def outgoing(self, side: Side) -> tuple[socket.socket, Connection]:
        """A peer that we have connected to, and our end."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            outcome = side.acquire(Target("TLS", "127.0.0.1", port, NAME) if self.is_tls else tcp(port))
            peer = self.secure(server.accept()[0], server=True)
        return peer, outcome.connection()

    def close(self) -> None:
        for sock in self._opened:
            sock.close()


@pytest.fixture(params=[False, True], ids=["TCP", "TLS"])
def wire(request: pytest.FixtureRequest, sides: Callable[..., Side]) -> Iterator[Wire]:
    with contextlib.closing(Wire(sides, request.param)) as made:
        yield made


def until(side: Side, condition: Callable[[], bool]) -> None:
    """Let the loop turn until it is so."""
    for _ in range(20_000):
        if side.call(condition):
            return
    raise AssertionError("it does not become so")


def ending(side: Side, connection: Connection) -> str:
    """Why the connection was closed, once it is."""
    until(side, lambda: not connection.is_connected)
    side.settle()
    ((closed, error),) = side.recorder.wait("closed")
    assert closed is connection
    assert isinstance(error, ConnectionFailureException)
    return str(error)


def over(sock: socket.socket) -> bool:
    """The other side has ended it, in whatever way."""
    try:
        while sock.recv(65536):
            pass
    except (ConnectionError, ssl.SSLError):
        pass
    return True


@pytest.mark.holds("R25", "R26", "R27", "R28", "R29", "R30")
def test_the_limits_are_those_of_the_design() -> None:
    settings = DEFAULTS
    assert (settings.first_message_timeout, settings.message_timeout) == (32, 15)
    assert (settings.idle_timeout, settings.pong_timeout, settings.maximum_pings_per_second) == (900, 10, 10)
    assert (settings.maximum_connections, settings.maximum_connections_per_address) == (4096, 128)
    assert (settings.maximum_handshakes, settings.maximum_handshakes_per_address) == (256, 32)
    assert (listener.BURST, listener.BACKLOG >= 128) == (32, True)
    assert (settings.send_high_mark, settings.maximum_send_queue) == (256 * 1024, 1024 * 1024)
    assert (settings.send_timeout, settings.maximum_buffered) == (20, 64 * 1024 * 1024)
    assert (settings.maximum_transactions, settings.maximum_unanswered_per_connection) == (100_000, 10_000)
    assert (settings.maximum_dialogs, settings.strand_high_mark, settings.strand_low_mark) == (100_000, 1000, 500)
    assert settings.maximum_handshakes_per_second is None
    assert settings.maximum_handshakes_per_second_per_address is None
    assert settings.maximum_requests_per_second is None


# ---------------------------------------------------------------------- time


@pytest.mark.holds("R25")
@pytest.mark.parametrize("begun", [b"", message()[:-1], b"\r\n\r\n", message().replace(b"CSeq: ", b"CSeq ")])
def test_the_first_message_comes_in_time_after_the_handshake(wire: Wire, begun: bytes) -> None:
    """Neither a part of one, nor a ping, nor what is none is one."""
    clock = FakeClock()
    side = wire.side(clock=clock)
    raw = dial(side.listen())
    until(side, lambda: len(side.network._all) == 1)
    clock.advance(9)  # which the handshake may take, where there is one
    peer = wire.secure(raw)
    ((connection,),) = side.recorder.wait("ready")
    shaken = 0.0 if wire.is_tls else 9.0
    clock.advance(31.9 - shaken - 10)
    if begun:
        peer.sendall(begun)
        until(side, lambda: connection.bytes_received == len(begun))
    clock.advance(10)
    assert connection.is_connected
    clock.advance(0.2)
    assert "a valid message within 32 s" in ending(side, connection)


@pytest.mark.holds("R25")
def test_a_message_has_15_seconds_in_all_however_it_comes(wire: Wire) -> None:
    clock = FakeClock()
    side = wire.side(clock=clock)
    peer, connection = wire.incoming(side)
    data = message(b"x" * 100)
    peer.sendall(data + data[:1])
    side.recorder.wait("message")
    for count in range(1, 15):
        clock.advance(1)
        peer.sendall(data[count : count + 1])
        until(side, lambda count=count: connection.bytes_received == len(data) + 1 + count)  # type: ignore[misc]
    clock.advance(0.9)
    assert connection.is_connected
    clock.advance(0.2)
    assert "one message to the end within 15 s" in ending(side, connection)
    assert side.recorder.count("message") == 1


@pytest.mark.holds("R26")
def test_pings_keep_a_connection_alive_that_says_nothing_else(wire: Wire) -> None:
    clock = FakeClock()
    side = wire.side(clock=clock)
    peer, connection = wire.incoming(side)
    peer.sendall(message())
    side.recorder.wait("message")
    for _ in range(5):
        clock.advance(899)
        peer.sendall(b"\r\n\r\n")
        assert read(peer, 2) == b"\r\n"
    clock.advance(899)
    assert connection.is_connected
    clock.advance(1.1)
    assert "for 900 s" in ending(side, connection)


@pytest.mark.holds("R26")
@pytest.mark.parametrize("noise", [b"\r\n\r\n" * 11, b"\r\n" * 512, b"\r\n" * 4096], ids=["pings", "1 KiB", "8 KiB"])
@pytest.mark.parametrize("before", [b"", message()], ids=["at first", "between messages"])
def test_blank_lines_are_not_read_for_ever(wire: Wire, noise: bytes, before: bytes) -> None:
    side = wire.side(clock=FakeClock())
    peer, connection = wire.incoming(side)
    peer.sendall(before + noise)
    assert "10 keep-alive pings a second" in ending(side, connection)


@pytest.mark.holds("R26")
def test_we_ping_every_two_minutes_or_a_little_more_often_and_want_an_answer(wire: Wire) -> None:
    """RFC 5626 4.4.1: 80 to 100 % of the interval."""
    clock = FakeClock()
    side = wire.side(ManagerSettings(keep_alive_interval=120), clock=clock)
    peer, connection = wire.outgoing(side)
    for count in range(3):
        clock.advance(95.9)
        side.settle()
        assert connection.bytes_sent == 4 * count
        clock.advance(24.1)
        assert read(peer, 4) == b"\r\n\r\n"
        peer.sendall(b"\r\n" + message())
        side.recorder.wait("message", count + 1)
    clock.advance(120)
    assert read(peer, 4) == b"\r\n\r\n"
    clock.advance(9.9)
    assert connection.is_connected
    clock.advance(0.2)
    assert "did not answer a keep-alive ping within 10 s" in ending(side, connection)


# ---------------------------------------------------------------------- connections


@pytest.mark.holds("R27")
def test_a_site_has_128_connections_and_the_surplus_is_closed_at_once(sides: Callable[..., Side]) -> None:
    """An IPv6 site counts as one: it owns a /64."""
    with MemoryNetwork() as network:
        bob = sides(factory=network.machine("2001:db8:b::1"))
        bob.listen("::", 5060)
        machines = [network.machine(f"2001:db8:a::{host}") for host in (1, 2)]

        def connect(machine: Any) -> socket.socket:
            return machine.connect(socket.AF_INET6, ("2001:db8:b::1", 5060))  # type: ignore[no-any-return]

        held = [connect(machines[number % 2]) for number in range(128)]
        bob.recorder.wait("ready", 128)
        surplus = connect(machines[0])
        surplus.settimeout(PATIENCE)
        assert over(surplus)
        other = connect(network.machine("2001:db8:a:1::1"))
        bob.recorder.wait("ready", 129)
        held[0].close()
        bob.recorder.wait("closed")
        bob.settle()
        held.append(connect(machines[1]))
        bob.recorder.wait("ready", 130)
        for sock in (*held, surplus, other):
            sock.close()


@pytest.mark.holds("R27")
def test_an_address_has_32_handshakes_at_a_time(sides: Callable[..., Side]) -> None:
    with MemoryNetwork(FakeClock()) as network:
        bob = sides(factory=network.machine("192.0.2.2"), tls=contexts(), clock=network.clock)
        bob.listen("0.0.0.0", 5061)

        def connect(address: str) -> socket.socket:
            return network.machine(address).connect(socket.AF_INET, ("192.0.2.2", 5061))

        silent = [connect("203.0.113.66") for _ in range(32)]
        until(bob, lambda: len(bob.network._shaking) == 32)
        surplus = connect("203.0.113.66")
        surplus.settimeout(PATIENCE)
        assert over(surplus)
        other = connect("203.0.113.67")
        until(bob, lambda: len(bob.network._shaking) == 33)
        network.clock.advance(10.1)  # type: ignore[attr-defined]
        until(bob, lambda: not bob.network._all and not bob.network._shaking)
        for sock in (*silent, surplus, other):
            sock.close()


@pytest.mark.holds("R27", "R30")
def test_the_surplus_is_closed_over_tls_as_well(wire: Wire) -> None:
    side = wire.side(ManagerSettings(maximum_connections_per_address=1))
    first, _ = wire.incoming(side)
    second = wire.kept(dial(side.network.listening_port))
    assert over(second)
    first.close()
    side.recorder.wait("closed")
    until(side, lambda: not side.network._all)
    wire.incoming(side)


@pytest.mark.holds("R30")
@pytest.mark.parametrize(
    "settings",
    [
        ManagerSettings(maximum_handshakes_per_second=2),
        ManagerSettings(maximum_handshakes_per_second_per_address=2),
    ],
    ids=["in all", "per address"],
)
def test_connections_above_the_rate_are_closed_at_once(wire: Wire, settings: ManagerSettings) -> None:
    clock = FakeClock()
    side = wire.side(settings, clock=clock)
    for _ in range(2):
        wire.incoming(side)
    assert over(wire.kept(dial(side.network.listening_port)))
    clock.advance(0.6)
    wire.incoming(side)
    assert over(wire.kept(dial(side.network.listening_port)))


@pytest.mark.holds("R30")
def test_requests_above_the_rate_wait_and_nothing_is_lost(wire: Wire) -> None:
    clock = FakeClock()
    side = wire.side(ManagerSettings(maximum_requests_per_second=200), clock=clock)
    peer, connection = wire.incoming(side)
    peer.sendall(b"".join(message(number=number) for number in range(1000)))
    until(side, lambda: bool(connection._paused))
    for seconds in range(1, 6):
        count = side.recorder.count("message")
        assert count <= 200 * seconds + channel.READ_SIZE // len(message())
        if count == 1000:
            break
        clock.advance(1)
        until(side, lambda: bool(connection._paused) or side.recorder.count("message") == 1000)
    numbers = [received.cseq.number for _, received in side.recorder.wait("message", 1000)]
    assert numbers == list(range(1000))


@pytest.mark.holds("R30")
def test_without_a_rate_there_is_none(wire: Wire) -> None:
    side = wire.side(clock=FakeClock())
    peer, _ = wire.incoming(side)
    peer.sendall(b"".join(message(number=number) for number in range(1000)))
    side.recorder.wait("message", 1000)
    for _ in range(30):
        wire.incoming(side)


# ---------------------------------------------------------------------- what is kept for a peer


def fill(side: Side, connection: Connection) -> None:
    """Answer until the system takes no more, because the peer does not read."""
    with socket.socket(fileno=side.call(lambda: connection._socket.fileno())) as ours:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        ours.detach()
    data = answer()[:-4] + b"\r\nX: " + b"x" * 60_000 + b"\r\n\r\n"
    for _ in range(200):
        side.send(connection, data)
        side.settle()
        if side.call(lambda: connection._stalled_since is not None):
            return
    raise AssertionError("the system takes everything")


@pytest.mark.holds("R28")
def test_who_does_not_read_is_not_read_then_dropped(wire: Wire) -> None:
    side = wire.side()
    peer, connection = wire.incoming(side)
    fill(side, connection)
    kilobyte = answer()[:-4] + b"\r\nX: " + b"x" * 800 + b"\r\n\r\n"
    while side.call(lambda: connection.queued) <= DEFAULTS.send_high_mark:
        side.send(connection, kilobyte)
    side.settle()
    received = connection.bytes_received
    peer.sendall(message())
    side.settle(10)
    assert connection.bytes_received == received
    assert connection.is_connected
    while side.call(lambda: connection.queued) <= DEFAULTS.maximum_send_queue and connection.is_connected:
        side.send(connection, kilobyte * 20)
    assert connection.is_connected
    side.send(connection, kilobyte)
    assert "1048576 bytes were waiting" in ending(side, connection)
    assert side.call(lambda: side.network._buffered) == 0


@pytest.mark.holds("R28")
def test_who_reads_again_is_read_again(wire: Wire) -> None:
    side = wire.side()
    peer, connection = wire.incoming(side)
    fill(side, connection)
    while side.call(lambda: connection.queued) <= DEFAULTS.send_high_mark:
        side.send(connection, answer() * 100)
    peer.sendall(message())
    side.settle(10)
    assert side.recorder.count("message") == 0
    left = side.call(lambda: connection.queued + connection.bytes_sent)
    read(peer, left)
    side.recorder.wait("message")
    assert side.call(lambda: (connection.queued, side.network._buffered)) == (0, 0)


@pytest.mark.holds("R28")
def test_20_seconds_without_progress_are_the_end(wire: Wire) -> None:
    clock = FakeClock()
    side = wire.side(clock=clock)
    _, connection = wire.incoming(side)
    fill(side, connection)
    clock.advance(10)
    side.send(connection, answer())  # to try is no progress
    side.settle()
    clock.advance(9.9)
    assert connection.is_connected
    clock.advance(0.2)
    assert "took nothing of what was sent to it for 20 s" in ending(side, connection)


@pytest.mark.holds("R28", "R31")
def test_all_together_keep_64_mebibytes_both_ways(wire: Wire) -> None:
    """With a smaller number: what comes in and what waits to be sent are counted together."""
    side = wire.side(ManagerSettings(maximum_buffered=1_000_000, maximum_send_queue=10_000_000))
    reader, mine = wire.incoming(side)
    deaf, theirs = wire.incoming(side)
    reader.sendall(message(b"x" * 400_000)[:-1])
    until(side, lambda: mine.buffered > 400_000)
    fill(side, theirs)
    while theirs.is_connected:
        assert side.call(lambda: side.network._buffered) <= 1_000_000
        side.send(theirs, answer() * 100)
        side.settle()
    ((closed, error),) = side.recorder.wait("closed")
    assert closed is theirs
    assert "maximum_buffered" in str(error)
    reader.sendall(b"x")
    side.recorder.wait("message")
    assert side.call(lambda: side.network._buffered) == 0
    assert over(deaf)


# ---------------------------------------------------------------------- the end


@pytest.mark.long
@pytest.mark.holds("R38")
@pytest.mark.parametrize("pipelined", [False, True], ids=["nothing unread", "unread input"])
def test_the_last_answer_arrives_before_the_end(wire: Wire, pipelined: bool) -> None:
    """Each time, and in order: close_notify, FIN, and no reset."""
    side = wire.side()

    def answer_and_close(connection: Connection, messages: list[Any]) -> None:
        connection.send(answer(1) * 50)
        connection.send(answer(2))
        connection.close()

    side.recorder.on_messages = answer_and_close
    for _ in range(scaled(1000)):
        peer, _connection = wire.incoming(side)
        peer.sendall(message() + (message() * 20)[:-1] * pipelined)
        said = b""
        while data := peer.recv(65536):  # raises where the end is not an orderly one
            said += data
        assert said == answer(1) * 50 + answer(2)
        peer.close()
    until(side, lambda: not side.network._all)


@pytest.mark.holds("R38")
def test_what_a_peer_says_to_one_that_closes_costs_it_nothing(wire: Wire) -> None:
    """It has not read all yet. A socket that is closed with input unread is reset, and what was on its way is lost."""
    side = wire.side(clock=FakeClock())
    peer, connection = wire.incoming(side)
    with socket.socket(fileno=side.call(lambda: connection._socket.fileno())) as ours:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        ours.detach()
    data = answer() * 1200  # more than the window, and less than the buffer
    side.send(connection, data)
    side.call(connection.close)
    until(side, lambda: connection.phase == channel.LINGERING)
    peer.sendall(message())
    side.settle(10)
    assert read_to_end(peer) == data


@pytest.mark.holds("R38")
def test_closing_takes_five_seconds_to_flush_and_one_to_drain(wire: Wire) -> None:
    clock = FakeClock()
    side = wire.side(clock=clock)
    peer, connection = wire.incoming(side)
    fill(side, connection)
    side.call(connection.close)
    side.settle()
    assert side.call(lambda: connection.phase) == channel.FLUSHING
    clock.advance(4.9)
    assert side.call(lambda: connection.phase) == channel.FLUSHING
    clock.advance(0.2)
    assert side.call(lambda: connection.phase) == channel.CLOSED
    assert over(peer)
    peer, connection = wire.incoming(side)
    side.call(connection.close)
    assert over(peer)
    until(side, lambda: connection.phase == channel.LINGERING)
    clock.advance(0.9)
    assert side.call(lambda: connection.phase) == channel.LINGERING
    clock.advance(0.2)
    assert side.call(lambda: connection.phase) == channel.CLOSED
    until(side, lambda: not side.network._all)
