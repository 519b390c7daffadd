"""Where a response goes when the connection of its request is gone (RFC 3261 18.2.2, RFC 3263 5)."""

from __future__ import annotations

import contextlib
import json
import queue
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
