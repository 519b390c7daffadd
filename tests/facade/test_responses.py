"""Where a response goes when the connection of its request is gone (RFC 3261 18.2.2, RFC 3263 5)."""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from p2psip import (
    ManagerSettings,
    MessageType,
    RealTimeException,
    RealTimeServerConnectionManager,
    RealTimeServerTcpConnectionManager,
    SipPeerToPeerEndpoint,
    SipTransportType,
)
from p2psip.message import Via
from p2psip.net import returns
from p2psip.net.given import GivenNames
from p2psip.net.pool import Target
from p2psip.net.returns import MOST, MOST_NAMES, UNUSED
from p2psip.testing import CertificateAuthority, MemoryNetwork, living_in, tls_manager

BOUND = 20.0
TABLE = Path(__file__).resolve().parent.parent / "data" / "corpus" / "tables" / "dns_selection.json"
ROWS = {row["id"].rpartition("-")[2]: row for row in json.loads(TABLE.read_text(encoding="utf-8"))["rows"]}
BOB, ALICE, OTHER = "192.0.2.20", "192.0.2.8", "192.0.2.99"


class World:
    """Alice asks bob, her connection is cut, and bob answers then."""

    def __init__(self, network: MemoryNetwork, end: contextlib.ExitStack, transport: SipTransportType) -> None:
        self.network = network
        self.transport = transport
        self.heard: queue.Queue[tuple[str, str]] = queue.Queue()
        self._end = end
        self._authority = CertificateAuthority()
        network.hosts["bob.example.com"] = [BOB]
        self.bob = self.manager(BOB, "bob.example.com", 5060)
        self.endpoint = SipPeerToPeerEndpoint("sip:bob@example.com", self.bob)

    def manager(self, address: str, name: str, port: int | None, certified: str | None = None) -> Any:
        """One at that address, which goes by that name, and writes down the responses that come to it."""
        with living_in(self.network.machine(address)):
            manager: RealTimeServerConnectionManager
            if self.transport is SipTransportType.TLS:
                manager = tls_manager(self._authority, certified or name, local_host=name)
            else:
                # Over TCP an end may be half an end: that it is a whole one shows when something is written.
                manager = RealTimeServerTcpConnectionManager(name, settings=ManagerSettings(provisional_delay=0.05))
        self._end.enter_context(manager)
        if port is not None:
            manager.start_listening((address, port))

        def traced(sender: object, args: Any) -> None:
            if args.direction == "received" and args.data.startswith(b"SIP/2.0 200"):
                self.heard.put((address, args.connection.transport.name))

        manager.trace += traced
        return manager

    def ask(self, alice: RealTimeServerConnectionManager) -> None:
        gone = threading.Event()
        self.bob.incoming_connection_removed += lambda sender, args: gone.set()

        def received(sender: object, args: Any) -> None:
            self.network.links[0].cut()
            assert gone.wait(BOUND)
            args.send_response(200)

        self.endpoint.message_received += received
        endpoint = SipPeerToPeerEndpoint("sip:alice@example.com", alice)
        with pytest.raises(RealTimeException):  # her request fails with its connection, the answer is for whoever waits
            endpoint.send_message(MessageType.MESSAGE, "sip:bob@bob.example.com:5060", body="x", timeout=BOUND)


@pytest.fixture
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    with MemoryNetwork() as network, contextlib.ExitStack() as end:
        yield World(network, end, getattr(request, "param", SipTransportType.TCP))


def sender_of(number: str) -> Via:
    """Via of the row, as it is written there."""
    return Via.parse(ROWS[number]["uri"].removeprefix("via:"))


def test_the_row_with_an_address_that_it_came_from(world: World) -> None:
    """First the open connection, then a new one to where it came from, at the port of sent-by."""
    via, expected = sender_of("0023"), ROWS["0023"]["expected"]
    world.network.hosts[via.host] = [OTHER]  # which nobody has to ask for
    world.ask(world.manager(ALICE, via.host, via.port))
    assert world.heard.get(timeout=BOUND) == (ALICE, expected["transport"])
    assert world.network.links[-1].destination == (expected["hosts"][0], expected["port"])


def test_the_row_with_a_name(world: World) -> None:
    """The address that it came from is tried before, because what RFC 3261 18.2.1 adds as ``received`` is always known
    here; then the addresses of the name, and its port, for which no service is asked."""
    via, expected = sender_of("0022"), ROWS["0022"]["expected"]
    world.network.hosts[via.host] = [OTHER]
    world.network.hosts[f"_sip._tcp.{via.host}"] = [(0, 0, 5099, "other.example.com")]
    world.manager(OTHER, via.host, via.port)
    alice = world.manager(ALICE, via.host, via.port)
    world.network.refuse(ALICE)
    world.ask(alice)
    assert world.heard.get(timeout=BOUND) == (OTHER, expected["transport"])
    assert world.network.links[-1].destination == (OTHER, expected["port"])


def test_a_name_without_port_is_asked_for_its_services(world: World) -> None:
    world.network.hosts["_sip._tcp.alice.example.com"] = [(0, 0, 5099, "other.example.com")]
    world.network.hosts["other.example.com"] = [OTHER]
    world.manager(OTHER, "alice.example.com", 5099)
    alice = world.manager(ALICE, "alice.example.com", 5070)
    alice._sent_by = lambda connection: "alice.example.com"
    world.network.refuse(ALICE)
    world.ask(alice)
    assert world.heard.get(timeout=BOUND) == (OTHER, "TCP")


@pytest.mark.parametrize("world", [SipTransportType.TLS], indirect=True)
def test_over_tls_the_answer_goes_back_over_tls(world: World) -> None:
    world.network.hosts["alice.example.com"] = [ALICE]
    world.ask(world.manager(ALICE, "alice.example.com", 5070))
    assert world.heard.get(timeout=BOUND) == (ALICE, "TLS")


@pytest.mark.parametrize("world", [SipTransportType.TLS], indirect=True)
def test_over_tls_nobody_else_gets_the_answer(world: World) -> None:
    """Whoever answers at the address or at the name of Via has to prove that it is that name."""
    world.network.hosts["alice.example.com"] = [OTHER]
    world.manager(OTHER, "alice.example.com", 5070, certified="mallory.example.com")
    alice = world.manager(ALICE, "alice.example.com", 5070)
    world.network.refuse(ALICE)
    removed: queue.Queue[str] = queue.Queue()
    world.bob.connection_pool_removed += lambda sender, args: removed.put(args.item.host_name)
    world.ask(alice)
    assert [removed.get(timeout=BOUND) for _ in range(2)] == [ALICE, "alice.example.com"]
    assert world.network.links[-1].destination == (OTHER, 5070)
    assert world.heard.empty()


STRANGER = "192.0.2.66"


class Strangers(World):
    """Somebody asks bob many times, with another Via each time, and is gone before bob answers."""

    def ask_and_leave(self, places: list[str]) -> None:
        all_here, gone = threading.Semaphore(0), threading.Event()
        self.bob.incoming_connection_removed += lambda sender, args: gone.set()
        arrived: list[Any] = []

        def received(sender: object, args: Any) -> None:
            args.disable_automatic_response = True
            arrived.append(args)
            all_here.release()

        self.endpoint.message_received += received
        sock = self.network.machine(STRANGER).connect(socket.AF_INET, (BOB, 5060))
        sock.setblocking(True)
        for number, place in enumerate(places):
            sock.sendall(
                f"MESSAGE sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/TCP {place};branch=z9hG4bK{number}\r\n"
                f"From: <sip:x@x.example>;tag=1\r\nTo: <sip:bob@example.com>\r\nCall-ID: {number}\r\n"
                "CSeq: 1 MESSAGE\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n".encode()
            )
        for _ in places:
            assert all_here.acquire(timeout=BOUND)
        self.network.links[0].cut()
        sock.close()
        assert gone.wait(BOUND)
        for args in arrived:
            args.send_response(200)
        self.settle()

    def settle(self) -> None:
        for _ in range(5):
            self.bob._stack.call("a turn of the loop", int).result(BOUND)


@pytest.fixture
def strangers() -> Iterator[Strangers]:
    with MemoryNetwork() as network, contextlib.ExitStack() as end:
        yield Strangers(network, end, SipTransportType.TCP)


def test_strangers_who_are_gone_have_few_places_reached_at_a_time(
    strangers: Strangers, caplog: pytest.LogCaptureFixture
) -> None:
    """Each place may take a descriptor for 10 s, and whoever names it pays nothing."""
    strangers.network.ignore(STRANGER)
    strangers.ask_and_leave([f"{STRANGER}:{6000 + number}" for number in range(200)])
    strangers.network.wait_for_links(1 + MOST)
    strangers.settle()
    assert len(strangers.network.links) == 1 + MOST
    assert "many others are on their way" in caplog.text
    caplog.clear()


@pytest.mark.parametrize("unused", [UNUSED, 0.0])
def test_strangers_who_are_gone_have_few_connections_made_to_them(
    strangers: Strangers, monkeypatch: pytest.MonkeyPatch, unused: float
) -> None:
    """They would be kept for a while, and together they are all that there may be."""
    monkeypatch.setattr(returns, "UNUSED", unused)
    closed = threading.Semaphore(0)
    strangers.bob.connection_pool_removed += lambda sender, args: closed.release()
    with contextlib.ExitStack() as opened:
        for port in range(6000, 6080):
            listener = strangers.network.machine(STRANGER).listen(socket.AF_INET, (STRANGER, port), 8)
            opened.callback(listener.close)
        strangers.ask_and_leave([f"{STRANGER}:{port}" for port in range(6000, 6080)])
        strangers.network.wait_for_links(1 + MOST)
        strangers.settle()
        if unused:  # those that are there can be used, and there are no more
            assert len(strangers.network.links) == 1 + MOST
            stack, outcome = strangers.bob._stack, queue.Queue[Any]()
            there = {link.destination[1] for link in strangers.network.links}
            for port in (min(there - {5060}), min(set(range(6000, 6080)) - there)):
                stack.post(stack._returns.acquire, Target("TCP", STRANGER, port, None), outcome.put, outcome.put)
            assert outcome.get(timeout=BOUND).is_connected
            assert isinstance(outcome.get(timeout=BOUND), RealTimeException)
        else:  # they are closed again, which makes room for others
            for _ in range(MOST):
                assert closed.acquire(timeout=BOUND)


def test_answers_to_one_place_are_as_many_as_they_like(strangers: Strangers) -> None:
    """A proxy has lost its connection: its own answers are all for one place."""
    listener = strangers.network.machine(STRANGER).listen(socket.AF_INET, (STRANGER, 6000), 8)
    sent = threading.Semaphore(0)
    strangers.bob.trace += lambda sender, args: sent.release() if args.data.startswith(b"SIP/2.0 200") else None
    strangers.ask_and_leave([f"{STRANGER}:6000"] * 200)
    for _ in range(200):
        assert sent.acquire(timeout=BOUND)
    assert len(strangers.network.links) == 2
    listener.close()


def test_names_of_strangers_leave_threads_for_the_names_of_others(strangers: Strangers) -> None:
    """The names are those of somebody's own DNS server, which says nothing."""
    strangers.network.refuse(STRANGER)
    asked: queue.Queue[str] = queue.Queue()
    end = threading.Event()

    def lookup(host: str, *args: Any, **options: Any) -> Any:
        asked.put(host)
        end.wait(BOUND)
        raise OSError("no")

    resolver = strangers.bob._stack.network.resolver
    resolver._given = GivenNames({".": []})
    resolver._lookup = lookup
    strangers.ask_and_leave([f"n{number}.example:5060" for number in range(200)])
    heard = {asked.get(timeout=BOUND) for _ in range(MOST_NAMES)}
    assert len(heard) == MOST_NAMES
    outcome: queue.Queue[object] = queue.Queue()
    strangers.bob._stack.post(resolver.resolve, "friend.example", outcome.put, outcome.put)
    assert asked.get(timeout=BOUND) == "friend.example"
    end.set()
