"""The network as a whole: TLS, authorization, dates of certificates, and the end."""

from __future__ import annotations

import contextlib
import datetime
import os
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import Encoding
from net_support import PATIENCE, Outcome, Side, answer, dial, message, read_to_end, sides, tcp

from p2psip.config import ManagerSettings
from p2psip.errors import (
    ConnectionFailureException,
    OperationFailureException,
    OperationFailureReason,
    TlsFailureException,
    TlsFailureReason,
)
from p2psip.net.certificates import LocalCertificate
from p2psip.net.channel import HANDSHAKE
from p2psip.net.connection import Connection
from p2psip.net.loop import LoopEnded
from p2psip.net.network import Target
from p2psip.net.tls import TlsContexts
from p2psip.net.trust import TrustAnchors
from p2psip.testing.authority import CertificateAuthority
from p2psip.testing.clock import FakeClock
from p2psip.testing.leaf import IssuedCertificate
from p2psip.testing.network import MemoryNetwork

__all__ = ["sides"]

Make = Callable[..., Side]


class World:
    """Two authorities and the contexts that come from them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = trustme.CA()
        self.other = trustme.CA()
        self._count = 0

    def pem(self, blob: trustme.Blob, suffix: str) -> Path:
        self._count += 1
        path = self.folder / f"{self._count}.{suffix}"
        blob.write_to_path(str(path))
        return path

    def files(self, *names: str, ca: trustme.CA | None = None, **options: Any) -> tuple[Path, Path]:
        leaf = (ca or self.ca).issue_cert(*names, **options)
        chain = self.pem(leaf.cert_chain_pems[0], "pem")
        key = self.pem(leaf.private_key_pem, "key")
        key.chmod(0o600)
        return chain, key

    def contexts(
        self, *names: str, ca: trustme.CA | None = None, trusts: trustme.CA | None = None, **options: Any
    ) -> TlsContexts:
        dates = {"not_after": options.pop("not_after")} if "not_after" in options else {}
        certificate = LocalCertificate.from_files(*self.files(*names, ca=ca, **dates))
        return TlsContexts(certificate, TrustAnchors.load(self.pem((trusts or self.ca).cert_pem, "pem")), **options)

    def client_context(self, *names: str, ca: trustme.CA | None = None) -> ssl.SSLContext:
        """A peer that is not ours."""
        context = ssl.create_default_context(cafile=str(self.pem(self.ca.cert_pem, "pem")))
        context.check_hostname = False
        if names:
            context.load_cert_chain(*self.files(*names, ca=ca))
        return context


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def memory() -> Iterator[MemoryNetwork]:
    with MemoryNetwork(FakeClock(epoch=time.time())) as network:
        network.hosts["b.example"] = ["192.0.2.2"]
        network.hosts["c.example"] = ["192.0.2.2"]
        yield network
        for link in network.links:  # whatever a test does: nothing in clear where TLS is listened for
            if link.destination[1] == 5061:
                records(bytes(link.to_source), cut=True)
                if link.to_destination[:1] == b"\x16":  # not a stranger's
                    records(bytes(link.to_destination), cut=True)


def tls(name: str = "b.example", port: int = 5061) -> Target:
    return Target("TLS", name, port, name)


def make_pair(sides: Make, world: World, memory: MemoryNetwork, **options: Any) -> tuple[Side, Side]:
    """Alice, who connects, and Bob, who listens as b.example on TLS."""
    settings = options.pop("settings", None)
    mine = options.pop("mine", None) or world.contexts("a.example")
    theirs = options.pop("theirs", None) or world.contexts("b.example")
    bob = sides(settings, factory=memory.machine("192.0.2.2"), hosts=memory.hosts, clock=memory.clock, tls=theirs)
    for name, value in options.items():
        setattr(bob.network, name, value)
    bob.listen("0.0.0.0", 5061)
    alice = sides(settings, factory=memory, hosts=memory.hosts, clock=memory.clock, tls=mine)
    return alice, bob


def records(data: bytes, *, cut: bool = False) -> list[int]:
    """The types of the TLS records that the bytes are made of; fails when they are anything else. The last one may be
    ``cut`` off."""
    types = []
    while len(data) >= 5 or (data and not cut):
        kind, major, _, length = struct.unpack("!BBBH", data[:5])
        assert kind in (20, 21, 22, 23), data[:40]
        assert major == 3
        assert cut or len(data) >= 5 + length
        types.append(kind)
        data = data[5 + length :]
    return types


# ---------------------------------------------------------------------- TLS


@pytest.mark.holds("R13")
@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_messages_go_both_ways_and_nothing_goes_in_clear(
    sides: Make, world: World, memory: MemoryNetwork, version: str
) -> None:
    maximum = ssl.TLSVersion[version]
    theirs = world.contexts("b.example")
    theirs._server.maximum_version = maximum
    alice, bob = make_pair(sides, world, memory, theirs=theirs)
    ours = alice.acquire(tls()).connection()
    request = message(b"secret" * 100, number=1)
    alice.send(ours, request)
    ((yours, received),) = bob.recorder.wait("message")
    assert received.to_bytes() == request
    bob.send(yours, answer(1))
    assert alice.recorder.wait("message")[0][1].to_bytes() == answer(1)
    assert ours.tls is not None
    assert yours.tls is not None
    assert ours.tls.version == yours.tls.version == version.replace("_", ".")
    assert ours.tls.identities is not None
    assert "b.example" in ours.tls.identities.names
    assert yours.tls.matching(frozenset({"a.example"})) == "a.example"
    assert (ours.transport, ours.host, ours.remote) == ("TLS", "b.example", ("192.0.2.2", 5061))
    alice.call(ours.close)
    bob.recorder.wait("closed")
    (link,) = memory.links
    assert 23 in records(bytes(link.to_destination))
    assert 23 in records(bytes(link.to_source))


@pytest.mark.holds("F40", "A5")
def test_the_first_request_may_come_with_the_end_of_the_handshake(sides: Make, world: World) -> None:
    bob = sides(tls=world.contexts("b.example"))
    port = bob.listen()
    data = [message(number=n) for n in range(3)]
    with dial(port) as raw:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        peer = world.client_context("a.example").wrap_bio(incoming, outgoing, server_hostname="b.example")
        while True:
            try:
                peer.do_handshake()
                break
            except ssl.SSLWantReadError:
                raw.sendall(outgoing.read())
                incoming.write(raw.recv(65536))
        peer.write(data[0] + data[1])  # two requests in one record
        for start in range(0, len(data[2]), 6):  # one request in some forty records
            peer.write(data[2][start : start + 6])
        raw.sendall(outgoing.read())
        assert [m.to_bytes() for _, m in bob.recorder.wait("message", 3)] == data


@pytest.mark.holds("R6")
@pytest.mark.parametrize("waiting", [1, 3, 100])
def test_a_late_refusal_is_a_failure_of_tls_for_every_request(
    sides: Make, world: World, memory: MemoryNetwork, waiting: int
) -> None:
    """TLS 1.3: the handshake is over for us before the server has judged our certificate."""
    alice, bob = make_pair(sides, world, memory, mine=world.contexts("a.example", ca=world.other))

    def ask() -> None:
        for _ in range(waiting):
            alice.network.acquire(tls(), lambda connection: connection.send(message()), pytest.fail)

    alice.call(ask)
    ((connection, error),) = alice.recorder.wait("closed")
    assert isinstance(error, TlsFailureException)
    assert error.failure_reason is TlsFailureReason.TLS_NEGOTIATION_FAILURE
    ((_, refusal),) = bob.recorder.wait("handshake failed")
    assert refusal.failure_reason is TlsFailureReason.UNTRUSTED_REMOTE_CERTIFICATE
    alice.settle()
    assert len(memory.links) == 1  # nothing was tried again
    assert bob.recorder.count("message") == bob.recorder.count("ready") == 0
    assert not connection.is_connected


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def test_who_refuses_us_is_asked_again_after_a_pause(
    sides: Make, world: World, memory: MemoryNetwork, version: ssl.TLSVersion
) -> None:
    """Unless we have another certificate. With TLS 1.2 the handshake fails, with 1.3 it is over by then."""
    clock = FakeClock()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*world.files("b.example"))
    context.load_verify_locations(world.pem(world.ca.cert_pem, "pem"))
    context.verify_mode = ssl.CERT_REQUIRED
    context.maximum_version = version
    alice = sides(tls=world.contexts("a.example", ca=world.other), clock=clock)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    peer, _ = server.accept()
                except OSError:
                    return
                try:
                    with context.wrap_socket(peer, server_side=True) as wrapped:
                        wrapped.recv(1)
                except OSError:
                    pass

        threading.Thread(target=serve, daemon=True).start()
        target = Target("TLS", "127.0.0.1", server.getsockname()[1], "b.example")

        def refused(count: int) -> Any:
            outcome = alice.acquire(target)
            result = outcome.wait()
            return result if isinstance(result, Exception) else alice.recorder.wait("closed", count)[-1][1]

        for number in (1, 2):
            assert alice.call(alice.network.reach.pause, target) == 0.0
            error = refused(number)
            assert isinstance(error, TlsFailureException)
            assert error.failure_reason is TlsFailureReason.TLS_NEGOTIATION_FAILURE
            alice.settle()
        assert alice.call(alice.network.reach.pause, target) >= 0.05
        alice.call(alice.network.use_tls, world.contexts("a.example"))
        alice.acquire(target).connection()
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.holds("R2")
def test_a_peer_without_certificate_is_never_heard(sides: Make, world: World) -> None:
    bob = sides(tls=world.contexts("b.example"))
    port = bob.listen()
    context = world.client_context()
    with dial(port) as raw, context.wrap_socket(raw, server_hostname="b.example") as peer:
        try:
            peer.sendall(message())
            assert peer.recv(65536) == b""
        except (ssl.SSLError, ConnectionError):
            pass
    ((_, error),) = bob.recorder.wait("handshake failed")
    assert isinstance(error, TlsFailureException)
    assert bob.recorder.count("ready") == bob.recorder.count("message") == 0


@pytest.mark.holds("A20")
@pytest.mark.parametrize("garbage", [b"\0" * 100, message(), b"GET / HTTP/1.1\r\n\r\n"])
def test_a_bad_handshake_touches_nobody_else(sides: Make, world: World, memory: MemoryNetwork, garbage: bytes) -> None:
    alice, bob = make_pair(sides, world, memory)
    ours = alice.acquire(tls()).connection()
    sock = memory.connect(socket.AF_INET, ("192.0.2.2", 5061))
    sock.sendall(garbage)
    bob.recorder.wait("handshake failed")
    alice.send(ours, message())
    bob.recorder.wait("message")
    sock.close()


@pytest.mark.holds("R10", "F32", "A6")
def test_another_name_on_the_same_address_is_refused(sides: Make, world: World, memory: MemoryNetwork) -> None:
    alice, bob = make_pair(sides, world, memory)
    first = alice.acquire(tls("b.example")).connection()
    error = alice.acquire(tls("c.example")).error()
    assert isinstance(error, TlsFailureException)
    assert error.failure_reason is TlsFailureReason.INCORRECT_NAME_IN_REMOTE_CERTIFICATE
    assert "c.example" in str(error)
    assert "tls_target_name; proxy_certificate_subject for an outbound proxy" in str(error)
    assert first.is_connected
    assert bob.recorder.count("message") == 0


def test_new_contexts_serve_new_connections_and_old_ones_live_on(
    sides: Make, world: World, memory: MemoryNetwork
) -> None:
    alice, bob = make_pair(sides, world, memory)
    old = alice.acquire(tls("b.example")).connection()
    bob.call(bob.network.use_tls, world.contexts("c.example"))
    assert alice.acquire(tls("c.example")).connection().is_connected
    alice.send(old, message())
    bob.recorder.wait("message")


def test_listening_without_roots_is_refused(sides: Make, world: World) -> None:
    certificate = LocalCertificate.from_files(*world.files("b.example"))
    bob = sides(tls=TlsContexts(certificate, TrustAnchors()))
    with pytest.raises(TlsFailureException) as caught:
        bob.listen()
    assert caught.value.failure_reason is TlsFailureReason.UNTRUSTED_REMOTE_CERTIFICATE
    assert bob.network.listening_port == 0


@pytest.mark.holds("R3")
def test_connecting_without_roots_is_refused(sides: Make, world: World, memory: MemoryNetwork) -> None:
    certificate = LocalCertificate.from_files(*world.files("a.example"))
    alice, _ = make_pair(sides, world, memory, mine=TlsContexts(certificate, TrustAnchors()))
    error = alice.acquire(tls()).error()
    assert isinstance(error, TlsFailureException)
    assert error.failure_reason is TlsFailureReason.UNTRUSTED_REMOTE_CERTIFICATE


@pytest.mark.holds("A25")
def test_a_peer_that_has_gone_before_tls_begins(sides: Make, world: World) -> None:
    """What it sent before the handshake is never taken for its words (CVE-2023-40217)."""
    bob = sides(tls=world.contexts("b.example"))
    port = bob.listen()
    entered, leave = threading.Event(), threading.Event()

    def block() -> None:
        entered.set()
        leave.wait(PATIENCE)

    bob.loop.post(block)
    assert entered.wait(PATIENCE)
    peer = dial(port)
    peer.sendall(message())
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
    leave.set()
    ((_, error),) = bob.recorder.wait("handshake failed")
    assert isinstance(error, TlsFailureException)
    wait_for(bob, lambda: not bob.network._all)
    assert bob.recorder.count("message") == 0


# ---------------------------------------------------------------------- handshakes that take too long


@pytest.mark.holds("R7", "A4")
@pytest.mark.parametrize("drip", [False, True], ids=["silent", "byte by byte"])
def test_an_incoming_handshake_has_ten_seconds(sides: Make, world: World, memory: MemoryNetwork, drip: bool) -> None:
    settings = ManagerSettings(handshake_timeout=10, maximum_handshakes=1)
    alice, bob = make_pair(sides, world, memory, settings=settings)
    sock = memory.connect(socket.AF_INET, ("192.0.2.2", 5061))
    wait_for(bob, lambda: len(bob.network._all) == 1)
    hello = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        world.client_context("a.example").wrap_bio(ssl.MemoryBIO(), hello).do_handshake()
    for _ in range(9):
        if drip:
            sock.send(hello.read(1))
        memory.clock.advance(1)  # type: ignore[attr-defined]
    surplus = memory.connect(socket.AF_INET, ("192.0.2.2", 5061))
    surplus.setblocking(True)
    surplus.settimeout(PATIENCE)
    assert surplus.recv(1) == b""  # one handshake at a time
    assert bob.call(lambda: len(bob.network._all)) == 1
    memory.clock.advance(1.1)  # type: ignore[attr-defined]
    wait_for(bob, lambda: not bob.network._all)
    assert bob.recorder.heard.get("ready") is None
    assert alice.acquire(tls()).connection().is_connected
    sock.close()
    surplus.close()


def wait_for(side: Side, condition: Callable[[], bool]) -> None:
    for _ in range(20_000):
        if side.call(condition):
            return
    raise AssertionError("it does not become so")


@pytest.mark.holds("A8")
def test_a_flood_from_one_address_leaves_the_others_served(sides: Make, world: World, memory: MemoryNetwork) -> None:
    settings = ManagerSettings(maximum_handshakes_per_address=5)
    alice, bob = make_pair(sides, world, memory, settings=settings)
    stranger = memory.machine("203.0.113.66")
    flood = [stranger.connect(socket.AF_INET, ("192.0.2.2", 5061)) for _ in range(100)]
    for number, sock in enumerate(flood):
        try:
            sock.send(b"\x16\x03\x01\x02" if number % 2 else b"INVITE sip:b")
        except OSError:  # turned away
            pass
    alice.send(alice.acquire(tls()).connection(), message())
    ((connection, _),) = bob.recorder.wait("message")
    assert connection.remote[0] != "203.0.113.66"
    # Others have been told already that this is no TLS, and are given time to read it.
    assert bob.call(lambda: sum(each.phase == HANDSHAKE for each in bob.network._all)) <= 5
    assert bob.network.counts.refused["maximum_handshakes_per_address"] > 0
    for sock in flood:
        sock.close()


@pytest.mark.holds("R7")
def test_an_outgoing_handshake_has_ten_seconds(sides: Make, world: World) -> None:
    clock = FakeClock()
    alice = sides(tls=world.contexts("a.example"), clock=clock, hosts={"b.example": ["127.0.0.1"]})
    with socket.create_server(("127.0.0.1", 0)) as server:
        outcome = alice.acquire(tls("b.example", server.getsockname()[1]))
        silent, _ = server.accept()
        with silent:
            assert silent.recv(1) == b"\x16"
            clock.advance(10.1)
            error = outcome.error()
    assert isinstance(error, ConnectionFailureException)
    assert "did not finish the TLS handshake within 10 s" in str(error)


def test_a_tls_failure_does_not_try_the_next_address(sides: Make, world: World, memory: MemoryNetwork) -> None:
    memory.hosts["c.example"] = ["192.0.2.2", "192.0.2.3"]
    alice, _ = make_pair(sides, world, memory)
    error = alice.acquire(tls("c.example")).error()
    assert isinstance(error, TlsFailureException)
    assert [link.destination for link in memory.links] == [("192.0.2.2", 5061)]


# ---------------------------------------------------------------------- who may connect


@pytest.mark.holds("R45")
def test_allowed_domains_let_in_who_carries_one(sides: Make, world: World, memory: MemoryNetwork) -> None:
    alice, bob = make_pair(sides, world, memory, allowed_domains=frozenset({"a.example"}))
    alice.send(alice.acquire(tls()).connection(), message())
    ((connection, _),) = bob.recorder.wait("message")
    assert connection.matching_domain_name == "a.example"


@pytest.mark.holds("R2", "R45")
def test_others_are_refused_before_any_sip_byte(sides: Make, world: World, memory: MemoryNetwork) -> None:
    alice, bob = make_pair(sides, world, memory, allowed_domains=frozenset({"c.example", ".d.example"}))
    alice.call(alice.network.acquire, tls(), lambda connection: connection.send(message()), lambda error: None)
    ((_, refusal),) = bob.recorder.wait("handshake failed")
    assert refusal.failure_reason is TlsFailureReason.INCORRECT_NAME_IN_REMOTE_CERTIFICATE
    assert "a.example" in str(refusal)
    ((_, error),) = alice.recorder.wait("closed")
    assert isinstance(error, TlsFailureException)
    assert bob.recorder.count("message") == bob.recorder.count("ready") == 0


def test_the_names_of_who_is_refused_are_printable(sides: Make, world: World, memory: MemoryNetwork) -> None:
    ca = CertificateAuthority()
    issued = ca.issue("evil\n\x1b[2J.example", common_name="evil")
    mine = TlsContexts(issued.local, TrustAnchors.load(world.ca.cert_pem.bytes()))
    theirs = TlsContexts(
        LocalCertificate.from_files(*world.files("b.example")),
        TrustAnchors.load([ca.certificate, world.ca.cert_pem.bytes()]),
    )
    alice, bob = make_pair(sides, world, memory, mine=mine, theirs=theirs, allowed_domains=frozenset({"c.example"}))
    alice.acquire(tls())
    ((_, refusal),) = bob.recorder.wait("handshake failed")
    assert "evil" in str(refusal)
    assert str(refusal).isprintable()


@pytest.mark.parametrize("incoming", [True, False])
@pytest.mark.parametrize("allowed", [True, False])
def test_authorization_comes_before_any_message(
    sides: Make, world: World, memory: MemoryNetwork, incoming: bool, allowed: bool
) -> None:
    alice, bob = make_pair(sides, world, memory)
    asked = bob if incoming else alice
    asked.recorder.authorization_wanted = True
    outcome = Outcome()

    def ready(connection: Any) -> None:
        connection.send(message())
        outcome(connection)

    alice.call(alice.network.acquire, tls(), ready, outcome)
    ((connection,),) = asked.recorder.wait("authorize")
    assert connection.is_connected
    assert connection.tls is not None
    asked.settle()
    assert bob.recorder.count("message") == 0
    assert asked.recorder.count("ready") == 0
    asked.call(connection.authorize, allowed)
    asked.call(connection.authorize, not allowed)
    if allowed:
        bob.recorder.wait("message")
        assert asked.recorder.wait("ready") == [(connection,)]
    elif incoming:
        alice.recorder.wait("closed")
        assert bob.recorder.count("ready") == bob.recorder.count("message") == bob.recorder.count("closed") == 0
    else:
        error = outcome.error()
        assert isinstance(error, OperationFailureException)
        assert error.failure_reason is OperationFailureReason.CONNECTION_AUTHORIZATION_FAILED
        assert alice.recorder.count("closed") == 0


def test_who_nobody_decides_on_is_denied(sides: Make, memory: MemoryNetwork) -> None:
    bob = sides(factory=memory.machine("192.0.2.2"), hosts=memory.hosts, clock=memory.clock)
    bob.listen("0.0.0.0", 5060)
    alice = sides(ManagerSettings(authorization_timeout=30), factory=memory, hosts=memory.hosts, clock=memory.clock)
    alice.recorder.authorization_wanted = True
    outcomes = [alice.acquire(tcp(5060, "b.example")) for _ in range(2)]
    alice.recorder.wait("authorize")
    memory.clock.advance(29.9)  # type: ignore[attr-defined]
    assert [outcome.calls for outcome in outcomes] == [0, 0]
    memory.clock.advance(0.2)  # type: ignore[attr-defined]
    for outcome in outcomes:
        error = outcome.error()
        assert isinstance(error, OperationFailureException)
        assert error.failure_reason is OperationFailureReason.CONNECTION_AUTHORIZATION_FAILED
        assert "within 30 s" in str(error)


# ---------------------------------------------------------------------- dates of certificates


@pytest.mark.holds("R9")
def test_a_connection_does_not_outlive_the_certificate_of_its_peer(
    sides: Make, world: World, memory: MemoryNetwork
) -> None:
    end = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
    settings = ManagerSettings(idle_timeout=1e6, first_message_timeout=1e6)
    alice, bob = make_pair(sides, world, memory, settings=settings, theirs=world.contexts("b.example", not_after=end))
    first = alice.acquire(tls()).connection()
    assert bob.recorder.wait("ready")
    memory.clock.advance(3500)  # type: ignore[attr-defined]
    assert first.is_connected
    assert alice.acquire(tls()).connection() is first
    memory.clock.advance(105)  # type: ignore[attr-defined]
    ((closed, error),) = alice.recorder.wait("closed")
    assert closed is first
    assert isinstance(error, TlsFailureException)
    assert error.failure_reason is TlsFailureReason.CERTIFICATE_EXPIRED
    assert bob.recorder.wait("closed")[0][1] is None  # in order


@pytest.mark.holds("R42", "F26", "A24")
def test_timers_do_not_hang_on_the_wall_clock(sides: Make, world: World, memory: MemoryNetwork) -> None:
    settings = ManagerSettings(idle_timeout=100, keep_alive_interval=40, pong_timeout=10)
    alice, bob = make_pair(sides, world, memory, settings=settings)
    connection = alice.acquire(tls()).connection()
    bob.recorder.wait("ready")
    silent = memory.connect(socket.AF_INET, ("192.0.2.2", 5061))  # has ten seconds for its handshake
    wait_for(bob, lambda: len(bob.network._all) == 2)
    for seconds in (3600, -7200, 3600):
        memory.clock.set_wall_clock(seconds)  # type: ignore[attr-defined]
        memory.clock.advance(3)  # type: ignore[attr-defined]
        assert bob.call(lambda: len(bob.network._all)) == 2
    memory.clock.advance(1.1)  # type: ignore[attr-defined]
    wait_for(bob, lambda: len(bob.network._all) == 1)
    silent.close()
    assert connection.is_connected
    alice.send(connection, message())
    bob.recorder.wait("message")


@pytest.mark.holds("R9")
@pytest.mark.parametrize("hours", [1.0, 0.001])
def test_a_connection_ends_with_the_certificate_of_its_peer_and_not_half_a_minute_later(
    sides: Make, world: World, memory: MemoryNetwork, hours: float
) -> None:
    """Nothing goes over it any more then, in dialogs either, which keep to their connection."""
    end = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=hours)
    settings = ManagerSettings(idle_timeout=1e6, first_message_timeout=1e6)
    mine, theirs = world.contexts("a.example", not_after=end), world.contexts("b.example")
    alice, bob = make_pair(sides, world, memory, settings=settings, mine=mine, theirs=theirs)
    alice.acquire(tls()).connection()
    ((connection,),) = bob.recorder.wait("ready")
    left = connection.tls.not_after - memory.clock.time()  # type: ignore[attr-defined]
    memory.clock.advance(left - 0.1)  # type: ignore[attr-defined]
    assert connection.is_connected and not connection.is_expired
    memory.clock.advance(0.2)  # type: ignore[attr-defined]
    ((closed, error),) = bob.recorder.wait("closed")
    assert closed is connection
    assert error.failure_reason is TlsFailureReason.CERTIFICATE_EXPIRED


@pytest.mark.holds("R42", "F26")
def test_a_clock_on_the_wall_that_is_set_forward_ends_who_has_expired_by_it(
    sides: Make, world: World, memory: MemoryNetwork
) -> None:
    end = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
    alice, _ = make_pair(sides, world, memory, theirs=world.contexts("b.example", not_after=end))
    alice.acquire(tls()).connection()
    memory.clock.set_wall_clock(7200)  # type: ignore[attr-defined]
    memory.clock.advance(31)  # type: ignore[attr-defined]
    ((_, error),) = alice.recorder.wait("closed")
    assert error.failure_reason is TlsFailureReason.CERTIFICATE_EXPIRED


@pytest.mark.holds("R9")
def test_no_new_request_goes_to_an_expired_peer(sides: Make, world: World, memory: MemoryNetwork) -> None:
    alice, _ = make_pair(sides, world, memory)
    first = alice.acquire(tls()).connection()
    assert first.tls is not None
    first.tls.not_after = alice.loop.clock.time() - 1
    assert alice.acquire(tls()).connection() is not first


# ---------------------------------------------------------------------- revoked while connected


class Revoking:
    """An authority whose lists of revoked certificates grow while its peers are connected."""

    def __init__(self) -> None:
        self.ca = CertificateAuthority()
        self.lower = self.ca.intermediate()

    def again(self, issued: IssuedCertificate, **options: Any) -> TlsContexts:
        """With that certificate of ours, and the lists as they are now."""
        return TlsContexts(
            issued.local, TrustAnchors([self.ca.certificate], [self.ca.crl(), self.lower.crl()]), **options
        )


@pytest.mark.holds("R9")
@pytest.mark.parametrize("which", ["leaf", "intermediate"])
@pytest.mark.parametrize("revocation", ["available", "strict"])
@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_a_peer_that_is_revoked_meanwhile_is_let_go(
    sides: Make, world: World, memory: MemoryNetwork, which: str, revocation: str, version: str
) -> None:
    own = Revoking()
    mine, theirs = own.lower.issue("a.example"), own.ca.issue("b.example")
    before = own.again(theirs, revocation=revocation)
    before._server.maximum_version = ssl.TLSVersion[version]
    alice, bob = make_pair(sides, world, memory, mine=own.again(mine), theirs=before)
    ours = alice.acquire(tls()).connection()
    ((yours,),) = bob.recorder.wait("ready")
    bob.call(bob.network.use_tls, own.again(theirs, revocation=revocation))
    bob.settle()
    assert yours.is_connected

    if which == "leaf":
        own.lower.revoke(mine)
    else:
        own.ca._revoked.append(own.lower.certificate.serial_number)
    bob.call(bob.network.use_tls, own.again(theirs, revocation="off"))
    bob.settle()
    assert yours.is_connected
    bob.call(bob.network.use_tls, own.again(theirs, revocation=revocation))
    ((closed, error),) = bob.recorder.wait("closed")
    assert closed is yours
    assert isinstance(error, TlsFailureException)
    assert error.failure_reason is TlsFailureReason.REMOTE_CERTIFICATE_REVOKED
    assert error.remote_certificate == mine.certificate.public_bytes(Encoding.DER)
    assert "handshake" not in str(error)
    alice.recorder.wait("closed")
    assert not ours.is_connected


@pytest.mark.holds("R9")
def test_requests_to_a_peer_that_is_revoked_meanwhile_fail_with_the_reason(
    sides: Make, world: World, memory: MemoryNetwork
) -> None:
    own = Revoking()
    mine, theirs = own.ca.issue("a.example"), own.ca.issue("b.example")
    alice, _ = make_pair(sides, world, memory, mine=own.again(mine), theirs=own.again(theirs))
    alice.acquire(tls()).connection()
    own.ca.revoke(theirs)
    alice.call(alice.network.use_tls, own.again(mine))
    ((_, error),) = alice.recorder.wait("closed")
    assert error.failure_reason is TlsFailureReason.REMOTE_CERTIFICATE_REVOKED
    assert alice.acquire(tls()).error().failure_reason is TlsFailureReason.REMOTE_CERTIFICATE_REVOKED  # type: ignore[attr-defined]


def test_lists_that_say_nothing_of_live_peers_end_none(sides: Make, world: World, memory: MemoryNetwork) -> None:
    """Expired ones refuse new peers, but nobody is known to be revoked."""
    own = Revoking()
    mine, theirs = own.ca.issue("a.example"), own.ca.issue("b.example")
    alice, bob = make_pair(sides, world, memory, mine=own.again(mine), theirs=own.again(theirs))
    alice.acquire(tls()).connection()
    ((yours,),) = bob.recorder.wait("ready")
    expired = TrustAnchors([own.ca.certificate], [own.ca.crl(expired=True)])
    bob.call(bob.network.use_tls, TlsContexts(theirs.local, expired))
    bob.settle()
    assert yours.is_connected


@pytest.mark.holds("R9")
def test_a_handshake_under_way_ends_under_the_new_lists(sides: Make) -> None:
    own = Revoking()
    mine, theirs = own.ca.issue("a.example"), own.ca.issue("b.example")
    bob = sides(tls=own.again(theirs))
    with dial(bob.listen()) as raw:
        wait_for(bob, lambda: len(bob.network._all) == 1)
        own.ca.revoke(mine)
        bob.call(bob.network.use_tls, own.again(theirs))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=own.ca.pem.decode())
        mine.load_into(context)
        with context.wrap_socket(raw, server_hostname="b.example") as peer:
            peer.sendall(message())
            assert peer.recv(1) == b""
    ((_, error),) = bob.recorder.wait("handshake failed")
    assert error.failure_reason is TlsFailureReason.REMOTE_CERTIFICATE_REVOKED
    assert bob.recorder.count("ready") == 0


@pytest.mark.holds("R9")
def test_many_live_peers_are_looked_at_a_few_at_a_time(sides: Make, world: World, memory: MemoryNetwork) -> None:
    own = Revoking()
    mine, theirs = own.ca.issue("a.example"), own.ca.issue("b.example")
    settings = ManagerSettings(maximum_connections_per_pool=60, maximum_unanswered_per_connection=1)
    alice, bob = make_pair(sides, world, memory, settings=settings, mine=own.again(mine), theirs=own.again(theirs))
    for count in range(1, 51):
        alice.acquire(tls()).connection().unanswered = 1
        bob.recorder.wait("ready", count)
    own.ca.revoke(mine)
    later = own.again(theirs)

    def swap() -> int:
        bob.network.use_tls(later)
        return sum(connection.is_connected for connection in bob.network.connections())

    assert 0 < bob.call(swap) < 50
    bob.recorder.wait("closed", 50)


# ---------------------------------------------------------------------- memory


def test_the_worst_is_closed_when_all_together_keep_too_much_of_what_comes_in(sides: Make) -> None:
    side = sides(ManagerSettings(maximum_buffered=100_000))
    port = side.listen()
    head = message(b"x" * 90_000)[:-90_000]
    with dial(port) as good, dial(port) as bad:
        good.sendall(message())
        ((kept, _),) = side.recorder.wait("message")
        good.sendall(head + b"x" * 40_000)
        wait_for(side, lambda: kept.buffered > 40_000)
        bad.sendall(head + b"x" * 70_000)
        ((closed, error),) = side.recorder.wait("closed")
        assert closed is not kept
        assert isinstance(error, ConnectionFailureException)
        assert "maximum_buffered" in str(error)
        good.sendall(b"x" * 50_000)
        side.recorder.wait("message", 2)
        assert side.call(lambda: side.network._buffered) == 0


def test_whoever_has_many_connections_does_not_end_those_of_others(sides: Make, memory: MemoryNetwork) -> None:
    """Each of them keeps less than the one of somebody else."""
    side = sides(ManagerSettings(maximum_buffered=150_000), factory=memory.machine("192.0.2.2"))
    side.listen("0.0.0.0", 5060)
    begun = message(b"x" * 90_000)

    def connect(address: str, size: int) -> Connection:
        known = side.recorder.count("ready")
        sock = memory.machine(address).connect(socket.AF_INET, ("192.0.2.2", 5060))
        opened.enter_context(sock)
        ((connection,),) = side.recorder.wait("ready", known + 1)[known:]
        sock.setblocking(True)
        sock.sendall(begun[:size])
        wait_for(side, lambda: connection.buffered == size or not connection.is_connected)
        return connection

    with contextlib.ExitStack() as opened:
        friend = connect("192.0.2.8", 60_000)
        strangers = [connect("192.0.2.66", 30_000) for _ in range(4)]
        side.recorder.wait("closed")
        assert friend.is_connected
        assert [each.is_connected for each in strangers].count(False) == 1


def test_the_worst_is_closed_when_all_together_keep_too_much_to_send(sides: Make, memory: MemoryNetwork) -> None:
    bob = sides(factory=memory.machine("192.0.2.2"), hosts=memory.hosts)
    bob.listen("0.0.0.0", 5060)
    alice = sides(
        ManagerSettings(maximum_buffered=1_000_000, maximum_send_queue=10_000_000), factory=memory, hosts=memory.hosts
    )
    targets = [tcp(5060, "b.example"), tcp(5060, "c.example")]
    one, two = (alice.acquire(target).connection() for target in targets)
    bob.recorder.wait("ready", 2)
    for connection in bob.network.connections():
        bob.call(connection.pause_reading, "test")
    alice.send(one, message(b"x" * 400_000))  # within the limits of one connection
    for _ in range(50):
        if not two.is_connected:
            break
        alice.send(two, message(b"x" * 100_000))
    ((closed, error),) = alice.recorder.wait("closed")
    assert closed is two
    assert "maximum_buffered" in str(error)
    alice.settle()
    assert one.is_connected
    assert alice.call(lambda: alice.network._buffered) == one.buffered


# ---------------------------------------------------------------------- ourselves, and IPv6


@pytest.mark.holds("F37")
def test_a_connection_to_our_own_listener_works(sides: Make) -> None:
    side = sides()
    connection = side.acquire(tcp(side.listen())).connection()
    side.send(connection, message())
    ((received_on, _),) = side.recorder.wait("message")
    assert received_on is not connection
    assert len(side.network.connections()) == 2


@pytest.mark.holds("F38")
def test_ipv6(sides: Make) -> None:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError:
        pytest.skip("there is no IPv6 here")
    side = sides()
    port = side.listen("::1")
    connection = side.acquire(tcp(port, "[::1]")).connection()
    assert connection.remote == ("::1", port)
    assert connection.local[0] == "::1"
    assert connection.sent_by.startswith("[::1]:")
    side.send(connection, message())
    side.recorder.wait("message")


@pytest.mark.holds("F17", "F38")
def test_an_address_with_an_unknown_zone_is_a_connection_failure(sides: Make) -> None:
    assert isinstance(sides().acquire(tcp(5060, "fe80::1%no-such-zone")).error(), ConnectionFailureException)


# ---------------------------------------------------------------------- the end


def close_all(side: Side, grace: float) -> threading.Event:
    done = threading.Event()
    side.call(side.network.close_all, grace, done.set)
    return done


def test_close_all_ends_everything_in_order(sides: Make) -> None:
    side = sides()
    port = side.listen()
    with dial(port) as peer:
        ((connection,),) = side.recorder.wait("ready")
        with socket.create_server(("127.0.0.1", 0)) as server:
            side.acquire(tcp(server.getsockname()[1])).connection()
            other, _ = server.accept()

        def answer_and_close() -> threading.Event:
            done = threading.Event()
            connection.send(answer())
            side.network.close_all(5, done.set)
            return done

        done = side.call(answer_and_close)
        assert read_to_end(peer) == answer()
        other.settimeout(PATIENCE)
        assert read_to_end(other) == b""
        assert not done.is_set()
        other.close()
    assert done.wait(PATIENCE)
    assert len(side.recorder.wait("closed", 2)) == 2
    assert side.network.connections() == side.network.pools() == ()
    assert side.network.listening_port == 0
    with pytest.raises(ConnectionRefusedError):
        dial(port)
    error = side.acquire(tcp(port)).error()
    assert isinstance(error, OperationFailureException)
    assert error.failure_reason is OperationFailureReason.ABORTED


def test_close_all_with_nothing_to_close(sides: Make) -> None:
    assert close_all(sides(), 5).wait(PATIENCE)


def test_close_all_fails_what_waits_and_stops_dialling(sides: Make, memory: MemoryNetwork) -> None:
    memory.ignore("192.0.2.2")
    side = sides(factory=memory, hosts=memory.hosts, clock=memory.clock)
    outcome = side.acquire(tcp(5060, "b.example"))
    memory.wait_for_links(1)
    side.settle()
    assert close_all(side, 5).wait(PATIENCE)
    assert isinstance(outcome.error(), OperationFailureException)
    assert side.network.pools() == ()


def test_close_all_stops_a_handshake_that_goes_on(sides: Make, world: World) -> None:
    alice = sides(tls=world.contexts("a.example"), hosts={"b.example": ["127.0.0.1"]})
    with socket.create_server(("127.0.0.1", 0)) as server:
        outcome = alice.acquire(tls("b.example", server.getsockname()[1]))
        silent, _ = server.accept()
        with silent:
            assert silent.recv(1) == b"\x16"
            assert close_all(alice, 5).wait(PATIENCE)
            assert isinstance(outcome.error(), OperationFailureException)
    assert alice.recorder.count("pool removed") == 1


def test_the_end_of_the_loop_in_the_middle_of_a_connect(sides: Make, memory: MemoryNetwork) -> None:
    memory.ignore("192.0.2.2")
    side = sides(factory=memory, hosts=memory.hosts, clock=memory.clock)
    side.acquire(tcp(5060, "b.example"))
    (link,) = memory.wait_for_links(1)
    side.settle()
    side.close()
    assert link.client.fileno() == -1


def test_close_all_does_not_wait_longer_than_its_grace(sides: Make, memory: MemoryNetwork) -> None:
    bob = sides(factory=memory.machine("192.0.2.2"), hosts=memory.hosts)
    bob.listen("0.0.0.0", 5060)
    side = sides(factory=memory, hosts=memory.hosts, clock=memory.clock)
    side.acquire(tcp(5060, "b.example")).connection()
    memory.links[0].hold()
    done = close_all(side, 0.5)
    side.settle()
    assert not done.is_set()
    memory.clock.advance(0.6)  # type: ignore[attr-defined]
    assert done.wait(PATIENCE)


def test_the_end_of_the_loop_closes_every_descriptor(sides: Make) -> None:
    side = sides()
    port = side.listen()
    with dial(port) as peer:
        side.recorder.wait("ready")
        side.loop.stop()
        assert side.loop.join(PATIENCE)
        try:
            assert peer.recv(1) == b""
        except ConnectionResetError:
            pass
    with pytest.raises(ConnectionRefusedError):
        dial(port)
    with pytest.raises(LoopEnded):
        side.loop.post(print)


@pytest.mark.holds("R40", "F27")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # 3.12 warns of threads and fork, which is the point
def test_a_forked_child_holds_nothing_and_says_nothing(sides: Make, world: World) -> None:
    bob = sides(tls=world.contexts("b.example"))
    port = bob.listen()
    alice = sides(tls=world.contexts("a.example"), hosts={"b.example": ["127.0.0.1"]})
    ours = alice.acquire(tls("b.example", port)).connection()
    bob.recorder.wait("ready")
    go, stay = os.pipe()
    born, bear = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            held = [c._socket.fileno() for side in (alice, bob) for c in list(side.network._all)]
            if held and set(held) == {-1} and bob.network.listening_port == 0 and not ours.is_connected:
                status = 0
            os.write(bear, b"x")
            os.read(go, 1)
        finally:
            os._exit(status)
    try:
        os.read(born, 1)
        alice.send(ours, message())  # the connection lives on in the parent
        ((yours, _),) = bob.recorder.wait("message")
        bob.send(yours, answer())
        alice.recorder.wait("message")
        bob.call(bob.network.stop_listening)
        with pytest.raises(ConnectionRefusedError):  # though the child lives
            dial(port)
        alice.call(ours.close)
        bob.recorder.wait("closed")
    finally:
        os.write(stay, b"x")
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        for descriptor in (go, stay, born, bear):
            os.close(descriptor)


@pytest.mark.holds("F39")
def test_descriptors_come_back(sides: Make) -> None:
    side = sides()
    port = side.listen()

    def count() -> int:
        with open(os.devnull) as lowest:
            return lowest.fileno()

    with dial(port):
        side.recorder.wait("ready")
    wait_for(side, lambda: not side.network._all)
    before = count()
    for number in range(200):
        connection = side.acquire(tcp(port)).connection()
        side.call(connection.close)
        side.recorder.wait("closed", 2 * number + 3)
        wait_for(side, lambda: not side.network._all)
    assert count() <= before + 1
