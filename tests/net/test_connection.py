"""One connection over TCP: framing, writing, keep-alive, time-outs, and every way in which it may end."""

from __future__ import annotations

import errno
import os
import selectors
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any

import pytest
from net_support import PATIENCE, Side, answer, dial, message, read, read_to_end, sides, tcp

from p2psip.config import ManagerSettings
from p2psip.errors import ConnectionFailureException, TlsFailureException, TlsFailureReason
from p2psip.message import Malformed
from p2psip.net import channel
from p2psip.net.connection import Connection
from p2psip.testing.clock import FakeClock

__all__ = ["sides"]  # a fixture

Make = Callable[..., Side]


def incoming(side: Side) -> tuple[socket.socket, Connection]:
    """A plain peer, and our end of its connection."""
    known = side.recorder.count("ready")
    peer = dial(side.network.listening_port or side.listen())
    return peer, side.recorder.wait("ready", known + 1)[known][0]


def outgoing(side: Side) -> tuple[socket.socket, Connection]:
    """The same, opened by us."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        outcome = side.acquire(tcp(server.getsockname()[1]))
        peer, _ = server.accept()
    peer.settimeout(PATIENCE)
    return peer, outcome.connection()


# ---------------------------------------------------------------------- messages in


def test_messages_arrive_as_they_were_sent(sides: Make) -> None:
    side = sides()
    peer, connection = incoming(side)
    with peer:
        sent = [message(b"x" * n) for n in range(5)]
        peer.sendall(b"".join(sent))
        received = side.recorder.wait("message", 5)
    assert [m.to_bytes() for _, m in received] == sent
    assert {c for c, _ in received} == {connection}
    assert connection.is_incoming
    assert (connection.transport, connection.reliable, connection.tls) == ("TCP", True, None)
    assert connection.remote == peer_address(connection)
    assert connection.messages_received == 5
    assert connection.bytes_received == sum(map(len, sent))


def peer_address(connection: Connection) -> tuple[str, int]:
    return ("127.0.0.1", connection.remote[1])


@pytest.mark.holds("F20")
def test_one_byte_at_a_time_makes_the_same_messages(sides: Make) -> None:
    side = sides()
    peer, _ = incoming(side)
    with peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sent = [message(b"\r\n\r\nbody"), message(b"")]
        for byte in b"".join(sent):
            peer.send(bytes([byte]))
        received = side.recorder.wait("message", 2)
    assert [m.to_bytes() for _, m in received] == sent


@pytest.mark.holds("F20")
def test_500_messages_in_one_go(sides: Make) -> None:
    side = sides()
    peer, _ = incoming(side)
    with peer:
        sent = [message(b"n" * n) for n in range(500)]
        peer.sendall(b"".join(sent))
        received = side.recorder.wait("message", 500)
    assert [m.to_bytes() for _, m in received] == sent


def test_a_busy_connection_lets_the_others_have_their_turn(sides: Make) -> None:
    side = sides()
    first, busy = incoming(side)
    second, _ = incoming(side)
    with first, second:
        real = busy._socket

        class Endless(Wrapped):
            """A socket whose data never ends."""

            def receive(self, size: int) -> bytes:
                return bytes(size)

        class Deaf:
            error = None
            in_message = False

            def feed(self, data: bytes) -> list[Any]:
                return []

            def close(self) -> bool:
                return False

        def make_busy() -> None:
            busy._socket = Endless(real)  # type: ignore[assignment]
            busy._framer = Deaf()  # type: ignore[assignment]

        side.call(make_busy)
        first.send(b"\r\n")
        wait_until(side, lambda: busy.bytes_received > 10_000_000)
        second.sendall(message())
        side.recorder.wait("message")
        side.call(setattr, busy, "_socket", real)


def test_a_malformed_message_disturbs_nothing(sides: Make) -> None:
    side = sides()
    peer, _ = incoming(side)
    with peer:
        broken = message().replace(b"MESSAGE sip:", b"MESS AGE sip:")
        peer.sendall(broken + message())
        (_, first), (_, second) = side.recorder.wait("message", 2)
    assert isinstance(first, Malformed)
    assert second.method == "MESSAGE"


def test_nothing_is_owed_to_who_sends_what_is_never_answered(sides: Make) -> None:
    """Over the connection of a proxy, that would add up."""
    side = sides()
    peer, connection = incoming(side)
    with peer:
        peer.sendall(answer().replace(b"Via: ", b"Via\t\0: ") + message(method="ACK").replace(b"CSeq: ", b"CSeq "))
        peer.sendall(message().replace(b"Max-Forwards: ", b"Max-Forwards ") + message())
        side.recorder.wait("message", 4)
        assert connection.owed == 2


def test_nothing_is_read_while_reading_is_paused(sides: Make) -> None:
    side = sides()
    peer, connection = incoming(side)
    with peer:
        side.call(connection.pause_reading, "one")
        side.call(connection.pause_reading, "two")
        peer.sendall(message())
        side.settle()
        side.call(connection.resume_reading, "one")
        side.settle()
        assert side.recorder.count("message") == 0
        side.call(connection.resume_reading, "two")
        side.recorder.wait("message")


def test_requests_above_the_rate_wait(sides: Make) -> None:
    clock = FakeClock()
    side = sides(ManagerSettings(maximum_requests_per_second=10), clock=clock)
    peer, connection = incoming(side)
    with peer:
        peer.sendall(b"".join(message() for _ in range(15)))
        side.recorder.wait("message", 15)
        peer.sendall(message())
        side.settle()
        assert side.call(lambda: connection._paused) == ("rate",)
        assert side.recorder.count("message") == 15
        clock.advance(0.6)
        side.recorder.wait("message", 16)


# ---------------------------------------------------------------------- framing is lost


@pytest.mark.holds("R23")
def test_lost_framing_is_answered_and_ends_the_connection(sides: Make) -> None:
    side = sides()
    peer, connection = incoming(side)
    with peer:
        hidden = message()
        peer.sendall(message().replace(b"Content-Length: 5", b"Content-Length: x") + hidden)
        said = read_to_end(peer)
    assert said.startswith(b"SIP/2.0 400 ")
    assert said.count(b"SIP/2.0 ") == 1
    ((closed, error),) = side.recorder.wait("closed")
    assert closed is connection
    assert isinstance(error, ConnectionFailureException)
    assert "cannot be cut into SIP messages" in str(error)
    assert side.recorder.count("message") == 0


@pytest.mark.holds("R23")
def test_what_came_before_lost_framing_is_still_answered(sides: Make) -> None:
    side = sides()
    peer, connection = incoming(side)
    with peer:
        good = message(number=1)
        peer.sendall(good + b"garbage\r\n\r\n" + message())
        ((_, received),) = side.recorder.wait("message")
        assert received.to_bytes() == good
        side.settle()
        side.send(connection, answer(1))
        assert answer(1) in read_to_end(peer)
    side.recorder.wait("closed")
    assert side.recorder.count("message") == 1


@pytest.mark.holds("R19")
def test_a_body_that_is_too_long_is_refused_before_it_comes(sides: Make) -> None:
    side = sides(ManagerSettings(maximum_body=100))
    peer, _ = incoming(side)
    with peer:
        peer.sendall(message(b"x" * 101)[:-101])
        assert read_to_end(peer).startswith(b"SIP/2.0 413 ")
    side.recorder.wait("closed")


# ---------------------------------------------------------------------- messages out


def test_what_is_sent_in_one_turn_is_one_write(sides: Make) -> None:
    side = sides()
    peer, connection = outgoing(side)
    with peer:
        writes: list[int] = []
        spy(connection, side, writes)
        sent = [message() for _ in range(50)]
        side.call(lambda: [connection.send(data) for data in sent])
        assert read(peer, sum(map(len, sent))) == b"".join(sent)
        assert len(writes) == 1
        assert connection.messages_sent == 50
        assert side.call(lambda: connection.bytes_sent) == sum(map(len, sent))


class Wrapped:
    """A socket between the connection and the real one."""

    def __init__(self, real: Any) -> None:
        self.real = real

    @property
    def wants(self) -> int:
        return self.real.wants  # type: ignore[no-any-return]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


def spy(connection: Connection, side: Side, writes: list[int]) -> None:
    class Spy(Wrapped):
        def send(self, view: memoryview) -> int:
            writes.append(len(view))
            return self.real.send(view)  # type: ignore[no-any-return]

    side.call(setattr, connection, "_socket", Spy(connection._socket))


@pytest.mark.holds("F19")
def test_one_byte_at_a_time_and_not_now_every_second_time(sides: Make) -> None:
    class Trickle(Wrapped):
        calls = 0

        @property
        def wants(self) -> int:
            return selectors.EVENT_WRITE

        def send(self, view: memoryview) -> int:
            self.calls += 1
            if self.offered is not None:
                assert bytes(view[: len(self.offered)]) == self.offered, "other bytes than before were offered"
            if self.calls % 2:
                self.offered = bytes(view[:16])
                return 0
            self.offered = None
            return self.real.send(view[:1])  # type: ignore[no-any-return]

        offered: bytes | None = None

    side = sides()
    peer, connection = outgoing(side)
    with peer:
        side.call(setattr, connection, "_socket", Trickle(connection._socket))
        sent = [message(b"x" * n) for n in range(3)]
        for data in sent:
            side.send(connection, data)
        assert read(peer, sum(map(len, sent))) == b"".join(sent)


def fill(side: Side, connection: Connection, peer: socket.socket) -> None:
    """Send until the system takes no more."""
    connection._socket._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # type: ignore[attr-defined]
    data = message(b"x" * 60_000)

    def send() -> bool:
        connection.send(data)
        return connection.queued > 0

    for _ in range(200):
        side.call(send)
        if side.call(lambda: connection._stalled_since is not None):
            return
    raise AssertionError("the system takes everything")


@pytest.mark.parametrize("how", ["closed", "reset"])
def test_what_had_not_left_when_the_connection_was_lost_is_known(sides: Make, how: str) -> None:
    """A request of which nothing has left can go another way. What ends the stream in order is not answered either."""
    side = sides(ManagerSettings(maximum_send_queue=10_000_000))
    peer, connection = outgoing(side)
    with peer:
        fill(side, connection, peer)
        side.send(connection, answer(1_000_001))
        side.send(connection, message(number=1_000_002))
        side.send(connection, message(number=1_000_003))
        assert not connection.is_unsent("z9hG4bK1000002")
        if how == "reset":
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()
        else:
            peer.shutdown(socket.SHUT_WR)
        side.recorder.wait("closed")
        assert connection.is_unsent("z9hG4bK1000002")
        assert connection.is_unsent("z9hG4bK1000003")
        assert not connection.is_unsent("z9hG4bK1000001")
        if how == "closed":  # an answer is still welcome, and then it ends
            assert read_to_end(peer).endswith(answer(1_000_001))


def test_requests_that_waited_together_have_left_when_the_first_byte_of_each_has(sides: Make) -> None:
    class Half(Wrapped):
        def send(self, view: memoryview) -> int:
            if self.fails:
                raise ConnectionFailureException("broken")
            self.fails = True
            return self.real.send(view[: len(message(number=11)) + 1])  # type: ignore[no-any-return]

        fails = False

    side = sides()
    peer, connection = outgoing(side)
    with peer:
        side.call(setattr, connection, "_socket", Half(connection._socket))
        side.call(lambda: [connection.send(message(number=number)) for number in (11, 12, 13)])
        side.recorder.wait("closed")
        assert [number for number in (11, 12, 13) if connection.is_unsent(f"z9hG4bK{number}")] == [13]


def test_who_does_not_take_answers_asks_no_more(sides: Make) -> None:
    side = sides(ManagerSettings(send_high_mark=100_000))
    peer, connection = incoming(side)
    with peer:
        fill(side, connection, peer)
        while side.call(lambda: connection.queued) <= 300_000:
            side.send(connection, answer() * 100)
        side.settle()
        peer.sendall(message())
        side.settle()
        assert side.recorder.count("message") == 0
        assert side.call(lambda: not connection.takes_requests)
        drain(side, peer)
        assert side.call(lambda: connection.takes_requests)


def drain(side: Side, peer: socket.socket) -> None:
    """Read on until the message that waited has been read by the other side."""
    stop = threading.Event()

    def read_on() -> None:
        peer.settimeout(0.05)
        while not stop.is_set():
            try:
                peer.recv(1 << 20)
            except TimeoutError:
                pass

    reader = threading.Thread(target=read_on)
    reader.start()
    try:
        side.recorder.wait("message")
    finally:
        stop.set()
        reader.join(PATIENCE)


def test_answers_to_us_are_read_however_much_waits(sides: Make) -> None:
    side = sides(ManagerSettings(send_high_mark=100_000))
    peer, connection = outgoing(side)
    with peer:
        connection.unanswered = 1
        fill(side, connection, peer)
        while side.call(lambda: connection.queued) <= 100_000:
            side.send(connection, message(b"x" * 10_000))
        side.settle()
        peer.sendall(answer())
        side.recorder.wait("message")


@pytest.mark.holds("F23")
def test_a_queue_that_is_too_long_ends_the_connection(sides: Make) -> None:
    side = sides(ManagerSettings(send_high_mark=50_000, maximum_send_queue=200_000))
    peer, connection = incoming(side)
    with peer:
        fill(side, connection, peer)
        for _ in range(10):
            side.send(connection, message(b"x" * 60_000))
        ((_, error),) = side.recorder.wait("closed")
        assert "too slowly" in str(error)
        assert "200000 bytes" in str(error)
        assert not connection.is_connected


def test_one_message_longer_than_the_queue_may_be_is_sent(sides: Make) -> None:
    side = sides(ManagerSettings(maximum_send_queue=1000))
    peer, connection = outgoing(side)
    with peer:
        data = message(b"x" * 100_000)
        side.send(connection, data)
        assert read(peer, len(data)) == data


@pytest.mark.holds("F23")
def test_no_progress_in_sending_ends_the_connection(sides: Make) -> None:
    clock = FakeClock()
    side = sides(ManagerSettings(send_timeout=20), clock=clock)
    peer, connection = outgoing(side)
    with peer:
        fill(side, connection, peer)
        clock.advance(19.9)
        assert side.recorder.count("closed") == 0
        clock.advance(0.2)
        ((_, error),) = side.recorder.wait("closed")
        assert "took nothing of what was sent to it for 20 s" in str(error)


def test_closing_a_closed_connection_leaves_nothing_behind(sides: Make) -> None:
    side = sides()
    peer, connection = incoming(side)
    with peer:
        side.call(connection.abort)
        side.recorder.wait("closed")
        side.call(connection.close)
        assert side.call(side.network.deadlines.next_deadline) is None


def test_sending_on_a_closed_connection_is_dropped(sides: Make) -> None:
    side = sides()
    peer, connection = outgoing(side)
    with peer:
        side.call(connection.close)
        side.send(connection, message())
        assert read_to_end(peer) == b""
        assert connection.messages_sent == 0


# ---------------------------------------------------------------------- keep-alive


def test_pings_are_answered_and_not_passed_on(sides: Make) -> None:
    side = sides()
    peer, _ = incoming(side)
    with peer:
        peer.sendall(b"\r\n\r\n")
        assert read(peer, 2) == b"\r\n"
        peer.sendall(message() + b"\r\n\r\n\r\n\r\n")
        assert read(peer, 4) == b"\r\n\r\n"
        peer.sendall(b"\r\n" + message())
        side.recorder.wait("message", 2)
    assert side.recorder.count("message") == 2


def test_too_many_pings_end_the_connection(sides: Make) -> None:
    clock = FakeClock()
    side = sides(ManagerSettings(maximum_pings_per_second=10), clock=clock)
    peer, _ = incoming(side)
    with peer:
        peer.sendall(b"\r\n\r\n" * 10)
        assert read(peer, 20) == b"\r\n" * 10
        clock.advance(1)
        peer.sendall(b"\r\n\r\n" * 10)
        assert read(peer, 20) == b"\r\n" * 10
        peer.sendall(b"\r\n\r\n")
        assert read_to_end(peer) == b""
        ((_, error),) = side.recorder.wait("closed")
        assert "10 keep-alive pings a second" in str(error)


def test_our_pings_keep_a_connection_alive(sides: Make) -> None:
    clock = FakeClock()
    side = sides(ManagerSettings(keep_alive_interval=100, idle_timeout=300), clock=clock)
    peer, _ = outgoing(side)
    with peer:
        for _ in range(10):
            clock.advance(100)
            assert read(peer, 4) == b"\r\n\r\n"
            peer.sendall(b"\r\n" + message())
            side.recorder.wait("message", _ + 1)
        assert side.recorder.count("closed") == 0


def test_each_connection_pings_at_a_time_of_its_own(sides: Make) -> None:
    """RFC 5626 4.4.1: between 80 and 100 % of the interval, so that not all of them come at once; drawn each time."""
    clock = FakeClock()
    side = sides(ManagerSettings(keep_alive_interval=100, pong_timeout=1000), clock=clock)
    made = [outgoing(side) for _ in range(12)]
    connections = [connection for _, connection in made]
    for _ in range(2):
        waits = side.call(lambda: [connection._ping_at - side.loop.now for connection in connections])
        assert all(79.9 <= wait <= 100 for wait in waits)
        assert len(set(waits)) == len(waits)
        assert max(waits) - min(waits) > 3
        sent = [connection.bytes_sent for connection in connections]
        clock.advance(79.8)
        side.settle()
        assert [connection.bytes_sent for connection in connections] == sent
        clock.advance(20.2)
        for peer, _ in made:
            assert read(peer, 4) == b"\r\n\r\n"
            peer.sendall(b"\r\n")
        wait_until(side, lambda: all(connection._ping_sent is None for connection in connections))
    for peer, _ in made:
        peer.close()


@pytest.mark.holds("F22")
@pytest.mark.parametrize("interval", [100, 4])
def test_a_ping_without_pong_ends_the_connection(sides: Make, interval: float) -> None:
    """However often they are sent."""
    clock = FakeClock()
    side = sides(ManagerSettings(keep_alive_interval=interval, pong_timeout=10), clock=clock)
    peer, _ = outgoing(side)
    with peer:
        clock.advance(interval)
        assert read(peer, 4) == b"\r\n\r\n"
        clock.advance(9.9)
        assert side.recorder.count("closed") == 0
        clock.advance(0.2)
        ((_, error),) = side.recorder.wait("closed")
        assert isinstance(error, ConnectionFailureException)
        assert "did not answer a keep-alive ping within 10 s" in str(error)


def test_without_an_interval_nobody_pings(sides: Make) -> None:
    clock = FakeClock()
    side = sides(clock=clock)
    peer, connection = outgoing(side)
    with peer:
        clock.advance(800)
        assert connection.bytes_sent == 0
        assert connection.is_connected


def test_the_system_looks_for_peers_that_have_vanished(sides: Make) -> None:
    """Without pings of ours: what is not acknowledged for as long as send_timeout ends the connection."""
    side = sides(ManagerSettings(send_timeout=20))
    for make in (incoming, outgoing):
        peer, connection = make(side)
        with peer, socket.socket(fileno=os.dup(connection._socket.fileno())) as ours:
            assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 20_000
            if hasattr(socket, "TCP_KEEPIDLE"):
                assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60


# ---------------------------------------------------------------------- time-outs


def test_a_fresh_connection_must_say_something_valid(sides: Make) -> None:
    clock = FakeClock()
    side = sides(ManagerSettings(first_message_timeout=32), clock=clock)
    peer, _ = incoming(side)
    with peer:
        peer.sendall(message().replace(b"CSeq: ", b"CSeq ") + b"\r\n\r\n")
        assert read(peer, 2) == b"\r\n"
        clock.advance(31.9)
        assert side.recorder.count("closed") == 0
        clock.advance(0.2)
        ((_, error),) = side.recorder.wait("closed")
        assert "a valid message within 32 s" in str(error)


def test_a_connection_that_has_proved_itself_may_be_silent(sides: Make) -> None:
    clock = FakeClock()
    side = sides(ManagerSettings(first_message_timeout=32, idle_timeout=900), clock=clock)
    peer, connection = incoming(side)
    with peer:
        peer.sendall(message())
        side.recorder.wait("message")
        clock.advance(899)
        assert connection.is_connected
        clock.advance(2)
        ((_, error),) = side.recorder.wait("closed")
        assert "for 900 s" in str(error)


def test_our_own_connection_may_be_silent_from_the_beginning(sides: Make) -> None:
    clock = FakeClock()
    side = sides(clock=clock)
    peer, connection = outgoing(side)
    with peer:
        clock.advance(899)
        assert connection.is_connected
        clock.advance(2)
        side.recorder.wait("closed")


def test_a_message_must_be_complete_in_time_however_it_trickles(sides: Make) -> None:
    clock = FakeClock()
    side = sides(ManagerSettings(message_timeout=15), clock=clock)
    peer, connection = incoming(side)
    with peer:
        data = message()
        peer.sendall(data + data[:10])
        side.recorder.wait("message")
        for count in range(1, 15):
            clock.advance(1)
            peer.sendall(data[9 + count : 10 + count])
            wait_until(side, lambda count=count: connection.bytes_received == len(data) + 10 + count)
        assert connection.is_connected
        clock.advance(1)
        ((_, error),) = side.recorder.wait("closed")
        assert "one message to the end within 15 s" in str(error)


def wait_until(side: Side, condition: Callable[[], bool]) -> None:
    """Let the loop turn until it is so."""
    for _ in range(20_000):
        if side.call(condition):
            return
    raise AssertionError("it does not become so")


def test_each_message_has_its_own_time(sides: Make) -> None:
    clock = FakeClock()
    side = sides(ManagerSettings(message_timeout=15), clock=clock)
    peer, connection = incoming(side)
    with peer:
        data = message()
        peer.sendall(data + data[:10])
        side.recorder.wait("message")
        clock.advance(14)
        peer.sendall(data[10:] + data[:10])
        side.recorder.wait("message", 2)
        clock.advance(14)
        assert connection.is_connected
        peer.sendall(data[10:])
        side.recorder.wait("message", 3)
        clock.advance(100)
        assert connection.is_connected


def test_time_does_not_pass_for_a_peer_that_we_do_not_read(sides: Make) -> None:
    clock = FakeClock()
    side = sides(ManagerSettings(message_timeout=15, first_message_timeout=1000), clock=clock)
    peer, connection = incoming(side)
    with peer:
        data = message()
        peer.sendall(data[:10])
        wait_until(side, lambda: connection.bytes_received == 10)
        side.call(connection.pause_reading, "strand")
        clock.advance(100)
        side.call(connection.resume_reading, "strand")
        clock.advance(14)
        peer.sendall(data[10:])
        side.recorder.wait("message")


# ---------------------------------------------------------------------- the end


def test_a_peer_that_closes_in_order_is_no_error(sides: Make) -> None:
    side = sides()
    peer, connection = outgoing(side)
    peer.close()
    assert side.recorder.wait("closed") == [(connection, None)]
    assert not connection.is_connected
    assert side.network.connections() == ()


@pytest.mark.holds("R24", "A3")
def test_a_message_that_is_cut_off_is_an_error_and_not_delivered(sides: Make) -> None:
    side = sides()
    peer, _ = incoming(side)
    peer.sendall(message()[:-1])
    peer.close()
    ((_, error),) = side.recorder.wait("closed")
    assert "in the middle of a message" in str(error)
    assert side.recorder.count("message") == 0


def test_a_reset_is_an_error_with_its_cause(sides: Make) -> None:
    side = sides()
    peer, connection = incoming(side)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    peer.close()
    ((_, error),) = side.recorder.wait("closed")
    assert isinstance(error, ConnectionFailureException)
    assert error.__traceback__ is None  # its frames hold whatever was done in the same turn, for as long as it is kept
    assert isinstance(error.__cause__, OSError)
    assert error.__cause__.__traceback__ is None
    assert f"127.0.0.1:{connection.remote[1]}" in str(error)


def test_who_half_closes_still_gets_the_answer(sides: Make) -> None:
    side = sides()
    peer, connection = incoming(side)
    with peer:
        peer.sendall(message(number=7))
        peer.shutdown(socket.SHUT_WR)
        side.recorder.wait("message")
        wait_until(side, lambda: connection.phase == channel.DEAF)
        assert not connection.is_connected  # nothing is asked there any more: no answer could come
        assert side.recorder.count("closed") == 0
        side.send(connection, answer(7, 100))
        side.settle()
        assert side.recorder.count("closed") == 0
        side.send(connection, answer(7))
        assert read_to_end(peer) == answer(7, 100) + answer(7)
    assert side.recorder.wait("closed") == [(connection, None)]


def test_a_half_closed_connection_does_not_wait_for_ever(sides: Make) -> None:
    clock = FakeClock()
    side = sides(ManagerSettings(handler_limit=30), clock=clock)
    peer, connection = incoming(side)
    with peer:
        peer.sendall(message())
        peer.shutdown(socket.SHUT_WR)
        wait_until(side, lambda: connection.phase == channel.DEAF)
        clock.advance(29)
        assert side.recorder.count("closed") == 0
        clock.advance(2)
        side.recorder.wait("closed")


def test_the_end_is_told_at_once_to_who_waits_for_an_answer(sides: Make) -> None:
    side = sides()
    peer, connection = incoming(side)
    with peer:
        connection.unanswered = 1
        peer.sendall(message())
        peer.shutdown(socket.SHUT_WR)
        assert side.recorder.wait("closed") == [(connection, None)]


@pytest.mark.holds("R38")
def test_what_is_queued_is_sent_before_the_end(sides: Make) -> None:
    side = sides()
    for _ in range(20):
        peer, connection = incoming(side)
        with peer:
            peer.sendall(message() * 5)  # unread input must not turn the end into a reset

            def answer_and_close(connection: Connection = connection) -> None:
                connection.send(answer())
                connection.close()

            side.call(answer_and_close)
            assert read_to_end(peer) == answer()


@pytest.mark.holds("R38")
def test_a_close_that_cannot_flush_is_cut(sides: Make) -> None:
    clock = FakeClock()
    side = sides(clock=clock)
    peer, connection = incoming(side)
    with peer:
        fill(side, connection, peer)
        side.call(connection.close)
        side.settle()
        assert side.call(lambda: connection.phase) == channel.FLUSHING
        clock.advance(5.1)
        assert side.call(lambda: connection.phase) == channel.CLOSED
        assert side.recorder.wait("closed") == [(connection, None)]


def test_a_peer_that_does_not_close_is_not_waited_for(sides: Make) -> None:
    clock = FakeClock()
    side = sides(clock=clock)
    peer, connection = incoming(side)
    with peer:
        side.call(connection.close)
        assert read_to_end(peer) == b""
        side.settle()
        assert side.call(lambda: connection.phase) == channel.LINGERING
        clock.advance(1.1)
        assert side.call(lambda: connection.phase) == channel.CLOSED


@pytest.mark.parametrize("way", ["close", "abort"])
def test_the_observer_is_not_told_from_within(sides: Make, way: str) -> None:
    side = sides()
    peer, connection = incoming(side)
    with peer:

        def end() -> int:
            error = ConnectionFailureException("ours")
            getattr(connection, way)(error)
            getattr(connection, way)(error)
            return side.recorder.count("closed")

        assert side.call(end) == 0
        ((_, error),) = side.recorder.wait("closed")
        assert str(error) == "ours"
        side.settle()
        assert side.recorder.count("closed") == 1


def test_an_observer_may_close_in_the_middle_of_messages(sides: Make) -> None:
    side = sides()
    side.recorder.on_messages = lambda connection, messages: connection.close()
    peer, _ = incoming(side)
    with peer:
        peer.sendall(message())
        assert read_to_end(peer) == b""
    side.recorder.wait("closed")


# ---------------------------------------------------------------------- what the system may say


@pytest.mark.holds("R37", "F18")
@pytest.mark.parametrize(
    "number",
    [errno.ECONNRESET, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENOBUFS, errno.EPIPE, errno.EBADF],
)
@pytest.mark.parametrize("way", ["recv", "send"])
def test_every_error_of_the_system_ends_that_connection_alone(sides: Make, number: int, way: str) -> None:
    side = sides()
    peer, connection = incoming(side)
    other, _ = incoming(side)
    with peer, other:
        real = connection._socket._socket  # type: ignore[attr-defined]

        class Broken:
            def __getattr__(self, name: str) -> Any:
                if name == way:
                    return self.fail
                return getattr(real, name)

            def fail(self, *_: object) -> None:
                raise OSError(number, "whatever the system says")

        side.call(setattr, connection._socket, "_socket", Broken())
        if way == "recv":
            peer.sendall(message())
        else:
            side.send(connection, answer())
        ((closed, error),) = side.recorder.wait("closed")
        assert closed is connection
        assert isinstance(error, ConnectionFailureException)
        assert isinstance(error.__cause__, OSError)
        other.sendall(message())
        side.recorder.wait("message")


@pytest.mark.holds("F18")
def test_interrupted_calls_are_tried_again(sides: Make) -> None:
    side = sides()
    peer, connection = incoming(side)
    with peer:
        real = connection._socket._socket  # type: ignore[attr-defined]
        errors = [InterruptedError(errno.EINTR, "signal"), BlockingIOError(errno.EAGAIN, "later")] * 2
        interruptions = {"recv": errors, "send": errors.copy()}

        class Interrupted:
            def __getattr__(self, name: str) -> Any:
                if interruptions.get(name):
                    error = interruptions[name].pop()

                    def fail(*_: object) -> None:
                        raise error

                    return fail
                return getattr(real, name)

        side.call(setattr, connection._socket, "_socket", Interrupted())
        peer.sendall(message())
        side.recorder.wait("message")
        side.send(connection, answer())
        assert read(peer, len(answer())) == answer()
        assert interruptions == {"recv": [], "send": []}


def test_an_answer_that_came_before_a_failed_write_is_delivered(sides: Make) -> None:
    side = sides()
    peer, connection = outgoing(side)
    with peer:
        side.call(connection.pause_reading, "test")
        peer.sendall(answer())

        class Failing(Wrapped):
            def send(self, view: memoryview) -> int:
                raise ConnectionFailureException("lost")

        side.call(setattr, connection, "_socket", Failing(connection._socket))
        side.send(connection, message())
        side.recorder.wait("message")
        ((_, error),) = side.recorder.wait("closed")
        assert str(error) == "lost"


def test_many_answers_that_came_before_a_failed_write_are_delivered(sides: Make) -> None:
    side = sides()
    peer, connection = outgoing(side)
    count = 200
    with peer:
        side.call(connection.pause_reading, "test")
        peer.sendall(b"".join(answer(number) for number in range(count)))
        peer.sendall(answer(count))

        class Failing(Wrapped):
            def send(self, view: memoryview) -> int:
                raise ConnectionFailureException("lost")

        side.call(setattr, connection, "_socket", Failing(connection._socket))
        side.send(connection, message())
        side.recorder.wait("closed")
        assert side.recorder.count("message") == count + 1


REFUSED = TlsFailureException("it does not want us", TlsFailureReason.TLS_NEGOTIATION_FAILURE)
GONE = TlsFailureException("it has gone", TlsFailureReason.REMOTE_DISCONNECTED)


class Refusing(Wrapped):
    """TLS 1.3, unconfirmed: the peer has closed, and why comes later than our write."""

    said: TlsFailureException | None = None

    def send(self, view: memoryview) -> int:
        raise GONE

    def receive(self, size: int) -> bytes | None:
        if self.said is not None:
            raise self.said
        return None

    @property
    def wants(self) -> int:
        return selectors.EVENT_READ


@pytest.mark.holds("R6")
@pytest.mark.parametrize("comes", ["before", "a little later", "never"])
def test_a_refusal_tells_more_than_the_failed_write(sides: Make, comes: str) -> None:
    clock = FakeClock()
    side = sides(clock=clock)
    peer, connection = outgoing(side)
    with peer:
        sock = Refusing(connection._socket)
        sock.said = REFUSED if comes == "before" else None
        side.call(setattr, connection, "_socket", sock)
        side.send(connection, message())
        if comes != "before":
            side.send(connection, message())
            clock.advance(0.1)
            assert side.recorder.count("closed") == 0
        if comes == "a little later":
            sock.said = REFUSED
            peer.send(b"x")  # wakes the selector
        elif comes == "never":
            clock.advance(0.2)
        assert side.recorder.wait("closed") == [(connection, GONE if comes == "never" else REFUSED)]


def test_a_read_may_wait_for_room_to_write(sides: Make) -> None:
    class Turning(Wrapped):
        """As TLS may, once."""

        waits = True

        def receive(self, size: int) -> bytes | None:
            if self.waits:
                return None
            return self.real.receive(size)  # type: ignore[no-any-return]

        @property
        def wants(self) -> int:
            waits, self.waits = self.waits, False
            return selectors.EVENT_WRITE if waits else selectors.EVENT_READ

    side = sides()
    peer, connection = outgoing(side)
    with peer:
        side.call(setattr, connection, "_socket", Turning(connection._socket))
        peer.sendall(message())
        side.recorder.wait("message")


def test_an_end_that_cannot_be_told_at_once_is_told_later(sides: Make) -> None:
    class Slow(Wrapped):
        """close_notify finds no room, once."""

        finished = 0

        def finish(self) -> bool:
            self.finished += 1
            return self.finished > 1 and self.real.finish()

        @property
        def wants(self) -> int:
            return selectors.EVENT_WRITE

    side = sides()
    peer, connection = outgoing(side)
    with peer:
        side.call(setattr, connection, "_socket", Slow(connection._socket))
        side.call(connection.close)
        assert read_to_end(peer) == b""


def test_a_second_close_may_hurry_the_first(sides: Make) -> None:
    clock = FakeClock()
    side = sides(clock=clock)
    peer, connection = incoming(side)
    with peer:
        fill(side, connection, peer)
        side.call(connection.close)
        side.call(connection.close, None, 1)
        side.call(connection.close)
        clock.advance(1.1)
        assert side.call(lambda: connection.phase) == channel.CLOSED


@pytest.mark.holds("R12", "A26")
def test_sockets_are_touched_on_the_loop_s_thread_only(sides: Make) -> None:
    """Two threads in one object of ``ssl`` may end the process."""
    side = sides()
    peer, connection = incoming(side)
    with peer:
        for step in (connection._flush, lambda: connection._guard(connection._read)):
            with pytest.raises(AssertionError):
                step()
        assert connection.is_connected


@pytest.mark.holds("R37", "F36")
@pytest.mark.parametrize("error", [MemoryError(), RecursionError(), KeyError("a bug")])
def test_an_error_of_ours_ends_one_connection(sides: Make, error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    side = sides()
    peer, connection = incoming(side)
    other, _ = incoming(side)
    with peer, other:

        class Broken:
            error = None
            in_message = False

            def feed(self, data: bytes) -> list[Any]:
                raise error

        side.call(setattr, connection, "_framer", Broken())
        peer.sendall(message())
        ((closed, reason),) = side.recorder.wait("closed")
        assert closed is connection
        assert reason.__cause__ is error
        other.sendall(message())
        side.recorder.wait("message")
        assert [r.levelname for r in caplog.records] == ["ERROR"]
        caplog.clear()
