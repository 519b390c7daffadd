"""Pools: one connection, requests in order, more only under pressure, addresses in turn."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from net_support import Outcome, Side, answer, message, sides, tcp

from p2psip.config import ManagerSettings
from p2psip.errors import ConnectionFailureException, OperationFailureException, OperationFailureReason
from p2psip.net.connection import Connection
from p2psip.net.network import Target
from p2psip.net.sockets import SystemSockets
from p2psip.testing.clock import FakeClock
from p2psip.testing.network import MemoryNetwork

__all__ = ["sides"]

Make = Callable[..., Side]


@pytest.fixture
def world() -> Iterator[MemoryNetwork]:
    with MemoryNetwork(FakeClock()) as network:
        yield network


Pair = tuple[Side, Side, Target]


@pytest.fixture
def pair(sides: Make, world: MemoryNetwork) -> Callable[..., Pair]:
    """Our side, the peer's side, and the way there."""

    def make(settings: ManagerSettings | None = None) -> Pair:
        world.hosts["b.example"] = ["192.0.2.2"]
        peer = sides(factory=world.machine("192.0.2.2"), hosts=world.hosts, clock=world.clock)
        peer.listen("0.0.0.0", 5060)
        side = sides(settings, factory=world, hosts=world.hosts, clock=world.clock)
        return side, peer, tcp(5060, "b.example")

    return make


def test_requests_share_one_connection(pair: Callable[..., Pair]) -> None:
    side, peer, target = pair()
    first = side.acquire(target).connection()
    assert all(side.acquire(target).connection() is first for _ in range(20))
    assert len(peer.recorder.wait("ready")) == 1
    assert side.recorder.wait("pool added") == [(first.pool,)]
    assert [pool.target for pool in side.network.pools()] == [target]
    assert first.pool.connections == [first]
    assert (first.host, first.is_incoming) == ("b.example", False)


def test_a_free_connection_is_given_at_once(pair: Callable[..., Pair]) -> None:
    side, _, target = pair()
    first = side.acquire(target).connection()

    def ask() -> list[Any]:
        seen: list[Any] = []
        side.network.acquire(target, seen.append, seen.append)
        return seen

    assert side.call(ask) == [first]


def test_requests_that_wait_for_the_connection_keep_their_order(
    pair: Callable[..., Pair], world: MemoryNetwork
) -> None:
    side, peer, target = pair()
    world.delay("192.0.2.2")
    sent = [message(number=n) for n in range(100)]

    def ask(data: bytes) -> None:
        side.network.acquire(target, lambda connection: connection.send(data), pytest.fail)

    side.call(lambda: [ask(data) for data in sent])
    (link,) = world.wait_for_links(1)
    side.settle()
    link.release()
    assert [m.to_bytes() for _, m in peer.recorder.wait("message", 100)] == sent
    assert peer.recorder.count("ready") == 1


@pytest.mark.holds("R10")
@pytest.mark.parametrize(
    "other",
    [
        Target("TCP", "b.example", 5061, None),
        Target("TCP", "192.0.2.2", 5060, None),
        Target("TCP", "b.example", 5060, "b.example"),
    ],
)
def test_another_target_is_another_connection(pair: Callable[..., Pair], sides: Make, other: Target) -> None:
    side, peer, target = pair()
    second = sides(factory=peer.network.factory, hosts={}, clock=peer.loop.clock)
    second.listen("0.0.0.0", 5061)
    first = side.acquire(target).connection()
    assert side.acquire(other).connection() is not first
    assert len(side.network.pools()) == 2


@pytest.mark.parametrize("pressure", ["queue", "unanswered"])
def test_another_one_is_opened_only_while_all_are_busy(pair: Callable[..., Pair], pressure: str) -> None:
    side, _, target = pair(ManagerSettings(maximum_connections_per_pool=3, maximum_unanswered_per_connection=100))

    def press(connection: Connection) -> None:
        if pressure == "queue":
            connection._queued += 1_000_000
        else:
            connection.unanswered = 100

    def relieve(connection: Connection) -> None:
        if pressure == "queue":
            connection._queued -= 1_000_000
        else:
            connection.unanswered = 99

    first = side.acquire(target).connection()
    side.call(press, first)
    second = side.acquire(target).connection()
    assert second is not first
    assert side.acquire(target).connection() is second
    side.call(relieve, first)
    assert side.acquire(target).connection() is first
    side.call(press, first)
    side.call(press, second)
    third = side.acquire(target).connection()
    assert first.pool.connections == [first, second, third]
    side.call(press, third)
    error = side.acquire(target).error()
    assert isinstance(error, OperationFailureException)
    assert error.failure_reason is OperationFailureReason.THROTTLED
    assert "b.example:5060" in str(error)
    for connection in (first, second, third):
        side.call(relieve, connection)


def test_a_burst_in_one_turn_needs_one_connection(pair: Callable[..., Pair]) -> None:
    """What is queued and not yet offered to the system is no pressure."""
    side, peer, target = pair(ManagerSettings(send_high_mark=256 * 1024))
    peer.call(lambda: None)
    data = [message(b"x" * 700, number=n) for n in range(400)]

    def ask(each: bytes) -> None:
        side.network.acquire(target, lambda connection: connection.send(each), pytest.fail)

    for start in range(0, 400, 50):
        side.call(lambda start=start: [ask(each) for each in data[start : start + 50]])
    assert [m.to_bytes() for _, m in peer.recorder.wait("message", 400)] == data
    assert peer.recorder.count("ready") == 1


def test_those_that_wait_are_served_when_a_connection_is_relieved(
    pair: Callable[..., Pair], world: MemoryNetwork
) -> None:
    side, peer, target = pair(ManagerSettings(maximum_connections_per_pool=2))
    first = side.acquire(target).connection()
    world.delay("192.0.2.2")
    side.call(lambda: setattr(first, "_queued", first._queued + 1_000_000))
    waiting = side.acquire(target)
    world.wait_for_links(2)
    side.settle()
    assert waiting.calls == 0
    side.call(lambda: setattr(first, "_queued", first._queued - 1_000_000))
    side.send(first, message())
    assert waiting.connection() is first
    peer.recorder.wait("message")


def test_those_that_wait_are_served_when_an_answer_comes(pair: Callable[..., Pair], world: MemoryNetwork) -> None:
    side, peer, target = pair(ManagerSettings(maximum_unanswered_per_connection=1))
    first = side.acquire(target).connection()
    side.send(first, message())
    ((received_on, _),) = peer.recorder.wait("message")
    world.delay("192.0.2.2")
    first.unanswered = 1
    waiting = side.acquire(target)

    def answered(connection: Connection, messages: list[Any]) -> None:
        connection.unanswered = 0

    side.recorder.on_messages = answered
    side.settle()
    assert waiting.calls == 0
    peer.send(received_on, answer())
    assert waiting.connection() is first


def test_too_many_waiting_requests_are_throttled(pair: Callable[..., Pair], world: MemoryNetwork) -> None:
    side, _, target = pair(ManagerSettings(maximum_unanswered_per_connection=10))
    world.ignore("192.0.2.2")
    outcomes = [side.acquire(target) for _ in range(11)]
    error = outcomes[10].error()
    assert isinstance(error, OperationFailureException)
    assert error.failure_reason is OperationFailureReason.THROTTLED
    assert [outcome.calls for outcome in outcomes[:10]] == [0] * 10


def test_a_lost_connection_is_replaced_by_the_next_request_and_not_before(
    pair: Callable[..., Pair], world: MemoryNetwork
) -> None:
    side, _, target = pair()
    first = side.acquire(target).connection()
    world.links[0].cut()
    assert side.recorder.wait("closed") == [(first, None)]
    assert side.recorder.wait("pool removed") == [(first.pool,)]
    side.settle()
    assert side.network.pools() == ()
    assert len(world.links) == 1
    assert side.acquire(target).connection() is not first
    assert len(world.links) == 2


def test_a_closing_connection_is_not_given_out(pair: Callable[..., Pair]) -> None:
    side, _, target = pair()
    first = side.acquire(target).connection()

    def close_and_ask() -> Outcome:
        outcome = Outcome()
        first.close()
        side.network.acquire(target, outcome, outcome)
        return outcome

    assert side.call(close_and_ask).connection() is not first


# ---------------------------------------------------------------------- failures


@pytest.mark.holds("R36", "A22")
def test_failure_is_told_to_each_with_an_error_of_its_own(pair: Callable[..., Pair], world: MemoryNetwork) -> None:
    side, _, target = pair()
    world.ignore("192.0.2.2")
    outcomes = [side.acquire(target) for _ in range(3)]
    world.wait_for_links(1)
    side.settle()
    world.clock.advance(10.1)  # type: ignore[attr-defined]
    errors = [outcome.error() for outcome in outcomes]
    assert len({id(error) for error in errors}) == 3
    for error in errors:
        assert isinstance(error, ConnectionFailureException)
        assert "b.example:5060 over TCP (192.0.2.2:5060: no answer within 10 s)" in str(error)
    side.recorder.wait("pool removed")


def test_addresses_are_tried_in_turn_and_dead_ones_last(pair: Callable[..., Pair], world: MemoryNetwork) -> None:
    side, _, target = pair()
    world.hosts["b.example"] = ["192.0.2.7", "192.0.2.8", "192.0.2.2"]
    world.ignore("192.0.2.8")
    outcome = side.acquire(target)
    world.wait_for_links(1)  # 192.0.2.7 refuses, 192.0.2.8 is silent
    side.settle()
    world.clock.advance(10.1)  # type: ignore[attr-defined]
    first = outcome.connection()
    assert first.remote == ("192.0.2.2", 5060)
    assert first.host == "b.example"
    world.links[1].cut()
    side.recorder.wait("closed")
    assert side.acquire(target).connection().remote == ("192.0.2.2", 5060)  # at once
    assert [link.destination[0] for link in world.links] == ["192.0.2.8", "192.0.2.2", "192.0.2.2"]
    world.links[2].cut()
    side.recorder.wait("closed", 2)
    world.clock.advance(31)  # type: ignore[attr-defined]
    side.acquire(target)
    assert world.wait_for_links(4)[3].destination[0] == "192.0.2.8"  # it is given another chance


def test_all_that_was_tried_is_named(pair: Callable[..., Pair], world: MemoryNetwork) -> None:
    side, _, target = pair()
    world.hosts["b.example"] = ["192.0.2.7", "2001:db8::7"]
    error = side.acquire(target).error()
    assert isinstance(error, ConnectionFailureException)
    assert isinstance(error.__cause__, OSError)
    assert "b.example:5060" in str(error)
    assert "192.0.2.7:5060: the connection was refused" in str(error)
    assert "[2001:db8::7]:5060: the connection was refused" in str(error)


def test_an_unknown_host_is_a_connection_failure(pair: Callable[..., Pair]) -> None:
    side, _, _ = pair()
    outcome = side.acquire(tcp(5060, "nobody.example"))
    assert "'nobody.example' could not be resolved" in str(outcome.error())
    side.recorder.wait("pool removed")


def test_a_closed_port_of_this_machine(sides: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    error = sides().acquire(tcp(port)).error()
    assert isinstance(error, ConnectionFailureException)
    assert isinstance(error.__cause__, ConnectionRefusedError)
    assert f"127.0.0.1:{port}" in str(error)


@pytest.mark.holds("F17")
@pytest.mark.parametrize(
    "number", [errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EINVAL, errno.EACCES, errno.EADDRNOTAVAIL, errno.EMFILE]
)
def test_every_error_of_connect_is_typed(sides: Make, number: int) -> None:
    class Failing(SystemSockets):
        def connect(self, family: int, address: Any) -> socket.socket:
            raise OSError(number, "whatever")

    error = sides(factory=Failing()).acquire(tcp(5060)).error()
    assert isinstance(error, ConnectionFailureException)
    assert isinstance(error.__cause__, OSError)


@pytest.mark.holds("F37")
def test_a_connection_that_meets_itself_is_none(sides: Make) -> None:
    class Mirror(SystemSockets):
        def connect(self, family: int, address: Any) -> socket.socket:
            sock = socket.socket(family, socket.SOCK_STREAM)
            sock.bind(("127.0.0.1", 0))
            sock.connect(sock.getsockname())  # TCP's simultaneous open with itself
            sock.setblocking(False)
            return sock

    error = sides(factory=Mirror()).acquire(tcp(5060)).error()
    assert isinstance(error, ConnectionFailureException)
    assert "met itself" in str(error)


def test_no_more_than_the_maximum_of_connections(pair: Callable[..., Pair]) -> None:
    side, _, target = pair(ManagerSettings(maximum_connections=1))
    side.acquire(target).connection()
    error = side.acquire(Target("TCP", "192.0.2.2", 5060, None)).error()
    assert isinstance(error, OperationFailureException)
    assert error.failure_reason is OperationFailureReason.THROTTLED


@pytest.mark.holds("R11")
def test_tls_without_certificates_is_refused_and_never_tcp(pair: Callable[..., Pair], world: MemoryNetwork) -> None:
    side, _, _ = pair()
    error = side.acquire(Target("TLS", "b.example", 5060, "b.example")).error()
    assert isinstance(error, ConnectionFailureException)
    assert "RealTimeServerTlsConnectionManager" in str(error)
    assert world.links == ()


@pytest.mark.parametrize("mistake", [MemoryError("no room"), RecursionError("too deep"), ValueError("no name")])
def test_a_mistake_of_ours_in_the_middle_of_a_connect_leaves_nobody_waiting(
    sides: Make, monkeypatch: pytest.MonkeyPatch, mistake: Exception
) -> None:
    side = sides()
    port = side.listen()

    def fail(*args: Any) -> None:
        raise mistake

    with monkeypatch.context() as patch:
        patch.setattr(side.network, "adopt_outgoing", fail)
        error = side.acquire(tcp(port)).error()
    assert isinstance(error, ConnectionFailureException)
    assert error.__cause__ is mistake
    assert side.acquire(tcp(port)).connection().is_connected


@pytest.mark.holds("A22")
def test_failures_never_come_from_within(pair: Callable[..., Pair]) -> None:
    side, _, _ = pair()

    def ask() -> int:
        outcome = Outcome()
        for target in (Target("TLS", "b.example", 1, "b.example"), tcp(1, "b.example"), tcp(1, "nobody.example")):
            side.network.acquire(target, outcome, outcome)
        return outcome.calls

    assert side.call(ask) == 0


def test_one_request_that_fails_in_our_hands_does_not_stop_the_next(
    pair: Callable[..., Pair], caplog: pytest.LogCaptureFixture
) -> None:
    side, _, target = pair()

    def fail(connection: object) -> None:
        raise KeyError("a bug")

    outcome = Outcome()
    side.call(lambda: (side.network.acquire(target, fail, fail), side.network.acquire(target, outcome, outcome)))
    outcome.connection()
    assert len(caplog.records) == 1
    caplog.clear()


def test_a_silent_connection_is_passed_over_until_it_is_heard_again(
    pair: Callable[..., Pair], world: MemoryNetwork
) -> None:
    side, peer, target = pair(ManagerSettings(maximum_connections_per_pool=1))
    first = side.acquire(target).connection()
    ((incoming,),) = peer.recorder.wait("ready")
    asked_at = side.loop.now
    world.clock.advance(30)  # type: ignore[attr-defined]
    side.call(first.doubt, asked_at)
    second = side.acquire(target).connection()
    assert second is not first
    assert first.is_connected  # what it still has to say is welcome
    assert side.acquire(target).connection() is second
    peer.send(incoming, message())
    side.recorder.wait("message")
    assert side.acquire(target).connection() is first
    side.call(first.doubt, asked_at + 20)  # it was heard since
    assert side.acquire(target).connection() is first


def test_nobody_waits_for_a_silent_connection_when_there_is_no_other(
    pair: Callable[..., Pair], world: MemoryNetwork
) -> None:
    side, _, target = pair()
    first = side.acquire(target).connection()
    world.refuse("192.0.2.2")
    side.call(first.doubt, side.loop.now)
    assert "refused" in str(side.acquire(target).error())


# ---------------------------------------------------------------------- peers that could not be reached


def failed_at(side: Side, target: Target, attempts: list[Any], count: int) -> Outcome:
    """A request that makes so many attempts in all, the last of which fails."""
    outcome = side.acquire(target)
    assert "refused" in str(outcome.error())
    assert len(attempts) == count
    return outcome


def watch(side: Side) -> list[Any]:
    """The attempts to connect."""
    attempts: list[Any] = []
    factory, connect = side.network.factory, side.network.factory.connect
    factory.connect = lambda *args: (attempts.append(args), connect(*args))[1]  # type: ignore[method-assign]
    return attempts


def test_who_could_not_be_reached_is_tried_again_after_pauses_that_grow(
    pair: Callable[..., Pair], world: MemoryNetwork
) -> None:
    side, _, target = pair(ManagerSettings(connect_back_off=2))
    world.refuse("192.0.2.2")
    attempts = watch(side)
    failed_at(side, target, attempts, 1)
    failed_at(side, target, attempts, 2)  # at once: who has just been started is found
    for number, pause in enumerate((0.1, 0.2, 0.4, 0.8, 1.6, 2, 2), start=3):
        outcomes = [side.acquire(target) for _ in range(3)]
        world.clock.advance(pause / 2 - 0.001)  # type: ignore[attr-defined]
        side.settle()
        assert (len(attempts), outcomes[0].calls) == (number - 1, 0)
        world.clock.advance(pause / 2 + 0.002)  # type: ignore[attr-defined]
        assert all("refused" in str(outcome.error()) for outcome in outcomes)
        assert len(attempts) == number
    world.allow("192.0.2.2")
    outcome = side.acquire(target)  # nobody is told of a failure when the peer is back
    world.clock.advance(2)  # type: ignore[attr-defined]
    outcome.connection()


def test_pauses_end_with_an_answer_and_are_forgotten_in_time(pair: Callable[..., Pair], world: MemoryNetwork) -> None:
    side, peer, target = pair()

    def fail_twice() -> None:
        world.refuse("192.0.2.2")
        for _ in range(2):
            assert side.call(side.network.reach.pause, target) == 0.0
            side.acquire(target).error()
        assert side.call(side.network.reach.pause, target) >= 0.05
        world.allow("192.0.2.2")

    fail_twice()
    world.clock.advance(2)  # type: ignore[attr-defined]
    connection = side.acquire(target).connection()
    ((incoming,),) = peer.recorder.wait("ready")
    peer.send(incoming, message())
    side.recorder.wait("message")
    side.call(connection.abort)
    side.recorder.wait("closed")
    fail_twice()
    world.clock.advance(100)  # type: ignore[attr-defined]
    fail_twice()


def test_a_pause_ends_with_the_network(pair: Callable[..., Pair], world: MemoryNetwork) -> None:
    side, _, target = pair()
    world.refuse("192.0.2.2")
    attempts = watch(side)
    for _ in range(2):
        side.acquire(target).error()
    outcome = side.acquire(target)
    side.call(side.network.close_all, 5, lambda: None)
    assert isinstance(outcome.error(), OperationFailureException)
    world.clock.advance(5)  # type: ignore[attr-defined]
    side.settle()
    assert len(attempts) == 2


def test_who_can_go_elsewhere_does_not_wait_for_who_did_not_answer(
    pair: Callable[..., Pair], world: MemoryNetwork
) -> None:
    """For as long as that took; half of it at least."""
    side, _, target = pair(ManagerSettings(connect_timeout=10, connect_back_off=2))
    world.ignore("192.0.2.2")
    outcome = side.acquire(target)
    world.wait_for_links(1)
    side.settle()
    world.clock.advance(10.1)  # type: ignore[attr-defined]
    assert "no answer within 10 s" in str(outcome.error())
    side.recorder.wait("pool removed")
    world.clock.advance(4.9)  # type: ignore[attr-defined]

    def go(has_other_ways: bool) -> Outcome:
        outcome = Outcome()
        side.call(side.network.acquire, target, outcome, outcome, (), has_other_ways)
        return outcome

    assert "no answer within 10 s): check host and port" in str(go(True).error())
    assert side.recorder.count("pool added") == len(world.links) == 1
    waiting = go(False)
    world.wait_for_links(2)
    assert "no answer within 10 s" in str(go(True).error())  # also while another one is making sure
    assert waiting.calls == 0
    side.call(side.network.reach.reached, target)
    assert go(True).calls == 0


def test_without_back_off_each_request_tries_at_once(pair: Callable[..., Pair], world: MemoryNetwork) -> None:
    side, _, target = pair(ManagerSettings(connect_back_off=0))
    world.refuse("192.0.2.2")
    attempts = watch(side)
    for number in range(1, 6):
        failed_at(side, target, attempts, number)


def test_what_is_kept_of_those_that_cannot_be_reached_is_bounded(sides: Make) -> None:
    side = sides()
    reach = side.network.reach
    failure = ConnectionFailureException("Refused.")

    def fill() -> None:
        for port in range(1, 5000):
            reach.failed(tcp(port), failure, 0.0)
            reach.remember_dead(("192.0.2.1", port))

    side.call(fill)
    assert len(reach._failures) <= 1024
    assert len(reach._dead) <= 1024
    assert reach.is_dead(("192.0.2.1", 4999))
