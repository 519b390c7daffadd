"""From a name to a connection: several hosts, several addresses, dead ones, and what is said when none is left."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from net_support import Outcome, Side, sides

from p2psip.config import ManagerSettings
from p2psip.errors import ConnectionFailureException, OperationFailureException, OperationFailureReason
from p2psip.net.connection import Connection
from p2psip.net.network import Target
from p2psip.net.selection import Answer
from p2psip.testing.clock import FakeClock
from p2psip.testing.network import MemoryNetwork

__all__ = ["sides"]

Make = Callable[..., Side]
TARGET = Target("TCP", "b.example", None, None)
ONE, TWO, THREE = "192.0.2.1", "192.0.2.2", "192.0.2.3"


class World:
    """Bob's name is served by two hosts, the second of which has two addresses."""

    def __init__(self, sides: Make, network: MemoryNetwork, clock: FakeClock) -> None:
        self.network = network
        self.clock = clock
        self.tried: list[str] = []
        network.hosts["_sip._tcp.b.example"] = [(1, 0, 5060, "one.b.example"), (2, 0, 5070, "two.b.example")]
        network.hosts["one.b.example"] = [ONE]
        network.hosts["two.b.example"] = [TWO, THREE]
        self._sides = sides
        for address, port in ((ONE, 5060), (TWO, 5070), (THREE, 5070)):
            sides(clock=clock, factory=network.machine(address)).listen("0.0.0.0", port)

    def connect(self, family: int, address: Any) -> Any:
        self.tried.append(f"{address[0]}:{address[1]}")
        return self.network.connect(family, address)

    def listen(self, *args: Any) -> Any:
        return self.network.listen(*args)

    def side(self, settings: ManagerSettings | None = None, **options: Any) -> Side:
        options.setdefault("hosts", self.network.hosts)
        return self._sides(settings, clock=self.clock, factory=self, **options)


@pytest.fixture
def world(sides: Make) -> Iterator[World]:
    clock = FakeClock()
    with MemoryNetwork(clock) as network:
        yield World(sides, network, clock)


def avoid(side: Side, *connections: Connection, target: Target = TARGET) -> Outcome:
    outcome = Outcome()
    side.call(side.network.acquire, target, outcome, outcome, connections)
    return outcome


def test_the_first_server_that_is_there_gets_the_request(world: World) -> None:
    connection = world.side().acquire(TARGET).connection()
    assert connection.remote == (ONE, 5060)
    assert world.tried == [f"{ONE}:5060"]


def test_each_host_and_each_address_with_the_port_of_its_record(world: World) -> None:
    world.network.refuse(ONE)
    world.network.refuse(TWO)
    connection = world.side().acquire(TARGET).connection()
    assert connection.remote == (THREE, 5070)
    assert world.tried == [f"{ONE}:5060", f"{TWO}:5070", f"{THREE}:5070"]


def test_a_port_that_is_given_asks_for_no_service(world: World) -> None:
    world.network.hosts["b.example"] = [THREE]
    connection = world.side().acquire(TARGET._replace(port=5070)).connection()
    assert connection.remote == (THREE, 5070)


def test_dead_ones_come_last_and_are_forgiven(world: World) -> None:
    world.network.refuse(ONE)
    side = world.side()
    first = side.acquire(TARGET).connection()
    assert first.remote == (TWO, 5070)
    side.call(first.abort)
    side.acquire(TARGET).connection()
    assert world.tried == [f"{ONE}:5060", f"{TWO}:5070", f"{TWO}:5070"]
    world.network.allow(ONE)
    world.network.refuse(TWO)
    world.network.refuse(THREE)
    side.call(side.network.connections()[0].abort)
    assert side.acquire(TARGET).connection().remote == (ONE, 5060)  # dead, but there is no other
    world.clock.advance(31)
    for address in (TWO, THREE):
        world.network.allow(address)
    side.call(side.network.connections()[0].abort)
    assert side.acquire(TARGET).connection().remote == (ONE, 5060)


def test_the_sentence_says_what_was_tried_what_came_back_and_why_there(world: World) -> None:
    for address in (ONE, TWO):
        world.network.refuse(address)
    world.network.hosts["two.b.example"] = [TWO]
    world.network.hosts["_sip._tcp.b.example"].append((3, 0, 5080, "three.b.example"))
    error = world.side().acquire(TARGET).error()
    assert isinstance(error, ConnectionFailureException)
    refused = "the connection was refused, nothing listens there"
    assert str(error) == (
        f"Could not connect to b.example (SRV _sip._tcp.b.example) over TCP (one.b.example at 192.0.2.1:5060: {refused};"
        f" two.b.example at 192.0.2.2:5070: {refused}; three.b.example: there is no such host): "
        "check host and port, and that the peer is listening."
    )
    assert isinstance(error.__cause__, ConnectionFailureException)


def test_the_sentence_says_what_the_dns_did_not_tell(world: World) -> None:
    def ask(*_: object) -> tuple[Answer, float]:
        return Answer(problem="the nameserver answered SERVFAIL"), 10

    world.network.refuse("192.0.2.9")
    side = world.side(hosts={}, ask=ask, lookup=lambda *_, **__: [(2, 1, 6, "", ("192.0.2.9", 0))])
    error = side.acquire(Target("TCP", "c.example", None, None)).error()
    assert "192.0.2.9:5060: the connection was refused" in str(error)
    assert str(error).endswith(
        "The DNS could not tell everything: SRV _sip._tcp.c.example: the nameserver answered SERVFAIL."
    )


def test_servers_without_any_address(world: World) -> None:
    world.network.hosts["one.b.example"] = world.network.hosts["two.b.example"] = []
    assert str(world.side().acquire(TARGET).error()) == (
        "Could not connect to b.example (SRV _sip._tcp.b.example) over TCP (one.b.example: there is no such host; "
        "two.b.example: there is no such host): check the name and the DNS."
    )


def test_a_name_that_offers_no_such_service(world: World) -> None:
    world.network.hosts["_sip._tcp.b.example"] = [(0, 0, 0, ".")]
    error = world.side().acquire(TARGET).error()
    assert str(error) == (
        "b.example does not offer SIP over TCP: the record SRV _sip._tcp.b.example says so; "
        "check the transport, or give the port."
    )
    assert world.tried == []


def test_a_name_that_nobody_knows_keeps_its_own_sentence(world: World) -> None:
    error = world.side().acquire(Target("TCP", "nobody.example", None, None)).error()
    assert str(error).startswith("The host name 'nobody.example' could not be resolved: there is no such host")


def test_black_holes_share_the_time_that_a_request_has(world: World) -> None:
    world.network.hosts["two.b.example"] = [f"192.0.2.{n}" for n in range(100, 120)]
    for address in (ONE, *world.network.hosts["two.b.example"]):
        world.network.ignore(address)
    side = world.side(ManagerSettings(request_ceiling=60, connect_timeout=10))
    outcome = side.acquire(TARGET)
    seconds = 0.0
    for count in range(1, 22):
        world.network.wait_for_links(count)
        side.settle()
        while len(world.network.links) == count and outcome.calls == 0:
            world.clock.advance(0.25)
            side.settle()
            seconds += 0.25
    error = outcome.error()
    assert isinstance(error, ConnectionFailureException)
    assert str(error).count("no answer within") == 21
    assert "192.0.2.1:5060: no answer within 10 s" in str(error)
    assert 45 < seconds < 60


def test_a_request_that_failed_there_goes_elsewhere(world: World) -> None:
    side = world.side()
    first = side.acquire(TARGET).connection()
    second = avoid(side, first).connection()
    third = avoid(side, first, second).connection()
    assert [c.remote for c in (first, second, third)] == [(ONE, 5060), (TWO, 5070), (THREE, 5070)]
    error = avoid(side, first, second, third).error()
    assert isinstance(error, ConnectionFailureException)
    assert "3 more had failed this request before" in str(error)
    assert len(side.network.pools()) == 1
    assert len(side.network.pools()[0].connections) == 3


def test_what_failed_one_request_is_second_choice_for_the_others(world: World) -> None:
    side = world.side()
    first = side.acquire(TARGET).connection()
    second = avoid(side, first).connection()
    assert side.acquire(TARGET).connection() is second
    world.clock.advance(31)
    assert side.acquire(TARGET).connection() is first


def test_where_there_is_only_one_address_there_is_no_other(world: World) -> None:
    target = Target("TCP", ONE, 5060, None)
    side = world.side()
    first = side.acquire(target).connection()
    assert isinstance(avoid(side, first, target=target).error(), ConnectionFailureException)
    assert side.acquire(target).connection() is first
    assert len(world.tried) == 1


def test_a_detour_takes_a_connection_that_is_there_already(world: World) -> None:
    side = world.side()
    first = side.acquire(TARGET).connection()
    second = avoid(side, first).connection()
    assert avoid(side, first).connection() is second
    assert len(world.tried) == 2


def test_a_detour_does_not_wait_with_the_others_and_they_not_with_it(world: World) -> None:
    side = world.side(ManagerSettings(maximum_connections_per_pool=5))
    first = side.acquire(TARGET).connection()
    side.call(first.abort)
    world.network.delay(ONE)
    waiting = side.acquire(TARGET)  # tries the first again, which takes its time
    world.network.wait_for_links(2)
    second = avoid(side, first).connection()
    assert second.remote == (TWO, 5070)
    assert waiting.connection() is second
    world.network.links[1].release()


def test_detours_count_as_connections_of_the_pool(world: World) -> None:
    side = world.side(ManagerSettings(maximum_connections_per_pool=1))
    first = side.acquire(TARGET).connection()
    assert isinstance(avoid(side, first).error(), OperationFailureException)


def test_the_end_of_the_network_ends_detours(world: World) -> None:
    side = world.side()
    first = side.acquire(TARGET).connection()
    world.network.delay(TWO)
    outcome = avoid(side, first)
    world.network.wait_for_links(2)
    closed = Outcome()
    side.call(side.network.close_all, 0.0, lambda: closed(None))
    assert isinstance(outcome.error(), OperationFailureException)
    world.clock.advance(1)
    closed.wait()
    assert side.network.pools() == ()


def test_connections_that_are_being_made_count(world: World) -> None:
    """They have descriptors; where there is only ``select``, too many of those end the loop."""
    side = world.side(ManagerSettings(maximum_connections=2))
    world.network.ignore("192.0.2.9")
    for number in (1, 2):
        side.acquire(Target("TCP", "192.0.2.9", number, None))
    world.network.wait_for_links(2)
    error = side.acquire(Target("TCP", "192.0.2.9", 3, None)).error()
    assert isinstance(error, OperationFailureException)
    assert error.failure_reason is OperationFailureReason.THROTTLED
    assert side.network.reach.attempts == 2
    world.clock.advance(10)  # connect_timeout
    side.settle()
    assert side.network.reach.attempts == 0


def test_peers_are_turned_away_where_connections_that_are_being_made_take_the_room(world: World) -> None:
    side = world.side(ManagerSettings(maximum_connections=1))
    world.network.ignore("192.0.2.9")
    side.acquire(Target("TCP", "192.0.2.9", 1, None))
    world.network.wait_for_links(1)
    taken, ours = socket.socketpair()
    with ours:
        side.loop.post(side.network.accepted, taken, ("192.0.2.7", 5060))
        side.settle()
        assert side.network.counts.refused["maximum_connections"] == 1
        assert taken.fileno() == -1
