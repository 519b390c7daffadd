"""Connections that peers opened and that serve requests of ours (RFC 5923): who may, and for whom."""

from __future__ import annotations

import datetime
import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from net_support import Side, answer, message, sides
from tls_support import VERSIONS, authority, local

from p2psip.net.aliases import _may_serve
from p2psip.net.connection import Connection
from p2psip.net.network import Target
from p2psip.net.tls import TlsContexts
from p2psip.testing.clock import FakeClock
from p2psip.testing.network import MemoryNetwork

__all__ = ["sides"]

Make = Callable[..., Side]

ALICE, BOB = "192.0.2.1", "192.0.2.2"


def contexts(*names: str, mutual: bool = True) -> TlsContexts:
    issued = authority().issue(*names)
    return TlsContexts(local(issued), authority().trusted, need_mutual_tls=mutual)


def target(name: str = "a.example", port: int | None = None, host: str | None = None, how: str = "TLS") -> Target:
    return Target(how, host or name, port, name)


def request(via: str = "SIP/2.0/TLS a.example;branch=z9hG4bK1;alias") -> bytes:
    return message(number=1).replace(b"SIP/2.0/TCP a.example;branch=z9hG4bK1", via.encode())


@pytest.fixture
def memory() -> Iterator[MemoryNetwork]:
    with MemoryNetwork(FakeClock(epoch=time.time())) as network:
        yield network


class Met(NamedTuple):
    """Bob listens, and Alice has opened a connection to him and said something."""

    alice: Side
    bob: Side
    hers: Connection
    his: Connection

    def finds(self, wanted: Target) -> bool:
        """Bob's request to that target goes over her connection."""
        found: Connection | None = self.bob.call(self.bob.network.free, wanted)
        outcome = self.bob.acquire(wanted)
        assert found is None or outcome.connection() is found
        return found is self.his


def meet(sides: Make, memory: MemoryNetwork, data: bytes | None, **options: Any) -> Met:
    mine = options.get("mine") or contexts("sip:a.example", "sip:also.example")
    his = options.get("his") or contexts("sip:b.example")
    memory.hosts.update({"a.example": [ALICE], "b.example": [BOB], "other.example": [ALICE]})
    bob = sides(factory=memory.machine(BOB), hosts=memory.hosts, clock=memory.clock, tls=his)
    bob.listen("0.0.0.0", 5061)
    alice = sides(factory=memory.machine(ALICE), hosts=memory.hosts, clock=memory.clock, tls=mine)
    hers = alice.acquire(Target("TLS", "b.example", None, "b.example")).connection()
    alice.send(hers, request() if data is None else data)
    ((incoming, _),) = bob.recorder.wait("message")
    bob.settle()
    return Met(alice, bob, hers, incoming)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_request_goes_over_the_connection_that_its_target_has_opened(
    sides: Make, memory: MemoryNetwork, version: ssl.TLSVersion
) -> None:
    his = contexts("sip:b.example")
    his._server.maximum_version = version
    met = meet(sides, memory, None, his=his)
    assert met.his.tls is not None and met.his.tls.version == version.name.replace("_", ".")
    assert met.finds(target())
    assert met.finds(target("A.Example", 5061, ALICE))
    assert met.finds(target("also.example", host="a.example"))
    assert met.bob.network.pools() == ()
    met.bob.send(met.his, answer())
    met.alice.recorder.wait("message")
    met.alice.call(met.hers.close)
    met.bob.recorder.wait("closed")
    assert not met.finds(target())
    aliases = met.bob.network._aliases
    assert (aliases._places, aliases._offers) == ({}, {})


@pytest.mark.holds("R10", "A6")
@pytest.mark.parametrize(
    "wanted",
    [
        target("other.example"),
        target("other.example", host="a.example"),
        target("a.example", host="other.example"),
        target("a.example", host="192.0.2.3"),
        target("a.example", 5062),
        target("a.example", 5060),
        target("a.example", how="TCP"),
    ],
    ids=str,
)
def test_it_serves_nobody_else(sides: Make, memory: MemoryNetwork, wanted: Target) -> None:
    met = meet(sides, memory, None)
    assert not met.finds(wanted)
    assert met.finds(target())


@pytest.mark.holds("R10")
@pytest.mark.parametrize(
    "data",
    [
        request("SIP/2.0/TLS a.example;branch=z9hG4bK1"),
        request("SIP/2.0/TCP a.example;branch=z9hG4bK1;alias"),
        request("SIP/2.0/TLS other.example;branch=z9hG4bK1;alias"),
        request("SIP/2.0/TLS 192.0.2.1;branch=z9hG4bK1;alias"),  # where it comes from is no proof
        request("SIP/2.0/TLS a.example:5062;branch=z9hG4bK1;alias"),
        request("SIP/2.0/TLS b.example;branch=z9hG4bK2, SIP/2.0/TLS a.example;branch=z9hG4bK1;alias"),
        request().replace(b"Max-Forwards: 70", b"Max-Forwards: x"),
        request().replace(b"Call-ID", b"X-Call-ID"),
        answer().replace(b"TCP a.example;branch=z9hG4bK1", b"TLS a.example;branch=z9hG4bK1;alias"),
    ],
)
def test_what_does_not_offer_it(sides: Make, memory: MemoryNetwork, data: bytes) -> None:
    met = meet(sides, memory, data)
    assert not met.finds(target())
    assert not met.finds(target(host=ALICE))
    assert not met.finds(target(host="other.example"))


def test_the_port_that_the_peer_said_last_counts(sides: Make, memory: MemoryNetwork) -> None:
    met = meet(sides, memory, None)
    met.alice.send(met.hers, request("SIP/2.0/TLS a.example:5071;branch=z9hG4bK2;alias"))
    met.bob.recorder.wait("message", 2)
    met.bob.settle()
    assert met.finds(target(port=5071))
    assert not met.finds(target())


@pytest.mark.holds("R10")
def test_another_node_with_the_same_certificate_is_not_meant(sides: Make, memory: MemoryNetwork) -> None:
    """A certificate may stand for a whole farm. What is for one node of it, in a dialog say, is not for another one."""
    farm = contexts("sip:a.example", "sip:node1.a.example", "sip:node2.a.example")
    met = meet(sides, memory, request("SIP/2.0/TLS node1.a.example;branch=z9hG4bK1;alias"), mine=farm)
    assert met.finds(target("node1.a.example"))
    assert met.finds(target("a.example", host="node1.a.example"))
    assert met.finds(target("a.example", host=ALICE))
    assert not met.finds(target("node2.a.example"))
    assert not met.finds(target("a.example"))  # whose SRV records may say anything


@pytest.mark.holds("R10")
def test_only_a_certificate_proves_it(sides: Make, memory: MemoryNetwork) -> None:
    met = meet(sides, memory, None, his=contexts("sip:b.example", mutual=False))
    assert not met.finds(target())


def test_not_without_mutual_tls_any_more(sides: Make, memory: MemoryNetwork) -> None:
    met = meet(sides, memory, None)
    assert met.finds(target())
    met.bob.call(met.bob.network.use_tls, contexts("sip:b.example", mutual=False))
    assert met.his.is_connected and not met.finds(target())


@pytest.mark.holds("R10")
def test_not_when_the_certificate_has_expired(sides: Make, memory: MemoryNetwork) -> None:
    soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=15)
    issued = authority().issue("sip:a.example", not_after=soon)
    met = meet(sides, memory, None, mine=TlsContexts(issued.local, authority().trusted))
    assert met.finds(target())
    memory.clock.advance(20.0)  # type: ignore[attr-defined]
    assert not met.finds(target())


def test_not_while_it_is_busy(sides: Make, memory: MemoryNetwork) -> None:
    met = meet(sides, memory, None)
    met.his.unanswered = met.bob.settings.maximum_unanswered_per_connection
    assert not met.finds(target())


def test_not_when_the_peer_has_let_a_request_wait_for_ever(sides: Make, memory: MemoryNetwork) -> None:
    met = meet(sides, memory, None)
    met.bob.call(met.his.doubt, memory.clock.now())
    assert not met.his.is_present and not met.finds(target())


def test_who_may_only_connect_does_not_serve() -> None:
    names = [x509.DNSName("a.example")]
    for usages, may in [((), True), (("CLIENT_AUTH",), False), (("CLIENT_AUTH", "SERVER_AUTH"), True)]:
        key = ec.generate_private_key(ec.SECP256R1())
        day = datetime.datetime(2026, 1, 1)
        builder = x509.CertificateBuilder(
            x509.Name([]), x509.Name([]), key.public_key(), 1, day, day + datetime.timedelta(days=1)
        ).add_extension(x509.SubjectAlternativeName(names), True)
        if usages:
            builder = builder.add_extension(
                x509.ExtendedKeyUsage([getattr(ExtendedKeyUsageOID, usage) for usage in usages]), False
            )
        assert _may_serve(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)) is may


def test_our_via_says_alias_only_where_it_is_true(sides: Make, memory: MemoryNetwork) -> None:
    met = meet(sides, memory, None)
    assert met.hers.via_parameters == met.his.via_parameters == ""
    met.alice.listen("0.0.0.0", 5061)
    for connection in (met.hers, met.his):  # whoever listens anew says anew what connections are called
        connection.be_called("a.example:5061")
    assert (met.hers.via_parameters, met.his.via_parameters) == (";alias", "")
    met.alice.call(met.alice.network.stop_listening)
    met.hers.be_called("a.example:5061")
    assert met.hers.via_parameters == ""
