"""Names, as endpoints follow them: servers, what DNS may change of the transport, and who has to be there."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import pytest

from p2psip import (
    ConnectionFailureException,
    ManagerSettings,
    MessageType,
    RealTimeServerConnectionManager,
    RealTimeServerTcpConnectionManager,
    SipPeerToPeerEndpoint,
    SipTransportType,
    TlsFailureException,
    TlsFailureReason,
)
from p2psip.testing import CertificateAuthority, MemoryNetwork, living_in, tls_manager

TCP, TLS = SipTransportType.TCP, SipTransportType.TLS
ONE, TWO = "192.0.2.1", "192.0.2.2"
POINTERS: list[Any] = [
    (10, 0, "s", "SIPS+D2T", "", "_sips._tcp.bob.example"),
    (20, 0, "s", "SIP+D2T", "", "_sip._tcp.bob.example"),
]


class World:
    """Bob's servers are managers in a network; alice is made with the names that a test gives."""

    def __init__(self, network: MemoryNetwork, end: contextlib.ExitStack) -> None:
        self.network = network
        self.authority = CertificateAuthority()
        self._end = end

    def server(self, address: str, port: int, name: str | None = "bob.example") -> None:
        """One on TLS whose certificate bears the name, or one on TCP."""
        manager: RealTimeServerConnectionManager
        with living_in(self.network.machine(address)):
            manager = RealTimeServerTcpConnectionManager() if name is None else tls_manager(self.authority, name)
        self._end.enter_context(manager)
        manager.start_listening((address, port))
        endpoint = manager.default_endpoint = SipPeerToPeerEndpoint("sip:bob@bob.example", manager)
        endpoint.message_received += lambda sender, args: None

    def alice(
        self, names: dict[str, Any], default: SipTransportType = TLS, manager: SipTransportType = TLS, **options: Any
    ) -> SipPeerToPeerEndpoint:
        with living_in(self.network):
            made: RealTimeServerConnectionManager
            if manager is TLS:
                made = tls_manager(self.authority, "alice.example", resolver=names, **options)
            else:
                made = RealTimeServerTcpConnectionManager(resolver=names, **options)
        self._end.enter_context(made)
        return SipPeerToPeerEndpoint("sip:alice@alice.example", made, default)


@pytest.fixture
def world() -> Iterator[World]:
    with MemoryNetwork() as network, contextlib.ExitStack() as end:
        yield World(network, end)


def ask(alice: SipPeerToPeerEndpoint, address: str = "sip:bob@bob.example") -> tuple[SipTransportType, str, int]:
    """Send it, and say what it went over."""
    assert alice.send_message(MessageType.MESSAGE, address, body="x", timeout=20).response_code == 200
    connection = alice.connection_manager.connections()[-1]
    return (connection.transport, *connection.remote_endpoint)


def test_the_certificate_bears_the_name_that_was_asked_for(world: World) -> None:
    world.server(ONE, 5099)
    alice = world.alice({"_sips._tcp.bob.example": [(1, 0, 5099, "farm.example")], "farm.example": [ONE]})
    assert ask(alice) == (TLS, ONE, 5099)


def test_the_name_of_the_server_does_not_do(world: World) -> None:
    """RFC 5922 7.1, RFC 3263 10: whoever controls the DNS could name a server of his own."""
    world.server(ONE, 5099, "farm.example")
    alice = world.alice({"_sips._tcp.bob.example": [(1, 0, 5099, "farm.example")], "farm.example": [ONE]})
    with pytest.raises(TlsFailureException) as caught:
        ask(alice)
    assert caught.value.failure_reason is TlsFailureReason.INCORRECT_NAME_IN_REMOTE_CERTIFICATE


def test_a_refusal_of_tls_is_final(world: World) -> None:
    world.server(ONE, 5061, "mallory.example")
    world.server(TWO, 5061)
    names = {"_sips._tcp.bob.example": [(1, 0, 5061, "one.example"), (2, 0, 5061, "two.example")]}
    alice = world.alice({**names, "one.example": ONE, "two.example": TWO})
    with pytest.raises(TlsFailureException):
        ask(alice)
    assert [link.destination[0] for link in world.network.links] == [ONE]


def test_the_dns_may_raise_tcp_to_tls(world: World) -> None:
    world.server(ONE, 5061)
    world.server(TWO, 5060, None)
    names = {
        "bob.example": [*POINTERS, TWO],
        "_sips._tcp.bob.example": [(1, 0, 5061, "one.example")],
        "_sip._tcp.bob.example": [(1, 0, 5060, "two.example")],
        "one.example": ONE,
        "two.example": TWO,
    }
    assert ask(world.alice(names, TCP)) == (TLS, ONE, 5061)
    assert ask(world.alice(names, TCP), "sip:bob@bob.example;transport=tcp") == (TCP, TWO, 5060)
    assert ask(world.alice(names, TCP), "sip:bob@bob.example:5060") == (TCP, TWO, 5060)
    assert ask(world.alice(names, TCP, TCP)) == (TCP, TWO, 5060)


@pytest.mark.holds("R11")
def test_what_was_raised_to_tls_never_falls_back_to_tcp(world: World) -> None:
    world.server(TWO, 5060, None)
    names = {
        "bob.example": [*POINTERS, TWO],
        "_sips._tcp.bob.example": [(1, 0, 5061, "one.example")],
        "_sip._tcp.bob.example": [(1, 0, 5060, "two.example")],
        "one.example": ONE,
        "two.example": TWO,
    }
    with pytest.raises(ConnectionFailureException) as caught:
        ask(world.alice(names, TCP))
    assert "SRV _sips._tcp.bob.example" in str(caught.value)
    assert world.network.links == ()


@pytest.mark.holds("R11")
@pytest.mark.parametrize(
    "address", ["sips:bob@bob.example", "sip:bob@bob.example", "sip:bob@bob.example;transport=tls"]
)
def test_the_dns_lowers_nothing(world: World, address: str) -> None:
    world.server(TWO, 5060, None)
    world.server(ONE, 5061)
    names = {
        "bob.example": [POINTERS[1], ONE],
        "_sip._tcp.bob.example": [(1, 0, 5060, "two.example")],
        "two.example": TWO,
    }
    assert ask(world.alice(names), address) == (TLS, ONE, 5061)


def test_via_and_contact_say_what_the_connection_is(world: World) -> None:
    world.server(ONE, 5061)
    names = {
        "bob.example": POINTERS,
        "_sips._tcp.bob.example": [(1, 0, 5061, "one.example")],
        "one.example": ONE,
    }
    alice = world.alice(names, TCP)
    sent: list[bytes] = []
    with alice.connection_manager.trace.expect(timeout=20) as got:
        ask(alice)
    sent.append(got.args.data)
    assert b"Via: SIP/2.0/TLS alice.example:" in sent[0]


def test_a_proxy_without_port_is_followed_too(world: World) -> None:
    world.server(ONE, 5070, "proxy.example")
    alice = world.alice({"_sips._tcp.proxy.example": [(1, 0, 5070, "one.example")], "one.example": ONE})
    with SipPeerToPeerEndpoint("sip:carol@alice.example", alice.connection_manager, TLS, "proxy.example") as carol:
        assert ask(carol) == (TLS, ONE, 5070)


def test_pools_show_what_was_asked_for(world: World) -> None:
    world.server(ONE, 5099)
    alice = world.alice({"_sips._tcp.bob.example": [(1, 0, 5099, "farm.example")], "farm.example": [ONE]})
    ask(alice)
    (pool,) = alice.connection_manager.connection_pools()
    assert (pool.host_name, pool.port, pool.identity) == ("bob.example", None, "bob.example")
    assert repr(pool) == "<ConnectionPool TLS bob.example, 1 connections>"


def test_a_mistake_in_the_names_is_an_argument_error(world: World) -> None:
    with pytest.raises(ValueError, match="an entry is an IP address"):
        world.alice({"b.example": ["c.example"]}, manager=TCP, default=TCP)
    with pytest.raises(TypeError):
        RealTimeServerTcpConnectionManager(resolver=[("b.example", "192.0.2.1")])  # type: ignore[arg-type]


def test_a_name_of_this_machine_stays_instant_without_any_dns() -> None:
    """The nameserver is a black hole: a port that somebody holds and never reads."""
    settings = ManagerSettings(resolve_timeout=10)
    with (
        RealTimeServerTcpConnectionManager() as bob,
        RealTimeServerTcpConnectionManager(settings=settings, resolver={".": [("127.0.0.1", 9)]}) as alice,
    ):
        bob.start_listening(("127.0.0.1", 0))
        one = SipPeerToPeerEndpoint("sip:bob@localhost", bob)
        one.message_received += lambda sender, args: None
        two = SipPeerToPeerEndpoint("sip:alice@localhost", alice)
        begun = time.monotonic()
        assert two.send_message(MessageType.MESSAGE, f"sip:bob@localhost:{bob.listening_port}", body="x").response_code
        with pytest.raises(ConnectionFailureException):
            two.send_message(MessageType.MESSAGE, "sip:bob@nobody.localhost.invalid", body="x")
        assert time.monotonic() - begun < 2
