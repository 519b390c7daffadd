"""What users are told when the network, the names or the peer fail, and how long that takes.

``pytest -rP tests/facade/test_faults.py`` prints the sentences.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from facade_support import BOUND
from suspend import suspended

import p2psip
from p2psip import (
    ConnectionFailureException,
    ManagerSettings,
    MessageType,
    OperationTimeoutException,
    RealTimeServerTcpConnectionManager,
    RealTimeServerTlsConnectionManager,
    SignalingSession,
    SignalingState,
    SipPeerToPeerEndpoint,
    TlsFailureException,
    TlsFailureReason,
)
from p2psip.net.sockets import SystemSockets
from p2psip.testing import CertificateAuthority, MemoryNetwork, endpoint_pair, living_in, tls_manager

LOOPBACK = "127.0.0.1"
AUTHORITY = CertificateAuthority()
ANSWER = b"SIP/2.0 200 OK\r\n%s\r\nContent-Length: 0\r\n\r\n"


class Outcome:
    """What came of a request, and when."""

    def __init__(self, fault: str, action: Callable[[], object]) -> None:
        begun = time.monotonic()
        self.error: BaseException | None = None
        try:
            action()
        except Exception as error:
            self.error = error
        self.seconds = time.monotonic() - begun
        print(f"{fault}: {type(self.error).__name__} after {self.seconds:.2f} s: {self.error}")

    def check(self, kind: type[Exception], *said: str, at_most: float, at_least: float = 0.0) -> None:
        assert type(self.error) is kind, repr(self.error)
        for words in said:
            assert words in str(self.error)
        assert at_least <= self.seconds <= at_most


@contextlib.contextmanager
def alice(manager: Any = None, **options: Any) -> Iterator[SipPeerToPeerEndpoint]:
    with manager or RealTimeServerTcpConnectionManager(LOOPBACK, **options) as used:
        yield SipPeerToPeerEndpoint("sip:alice@a.example", used)


def message(endpoint: SipPeerToPeerEndpoint, address: str, timeout: float = BOUND) -> Callable[[], object]:
    return lambda: endpoint.send_message(MessageType.MESSAGE, address, body="hello", timeout=timeout)


def wait_until(condition: Callable[[], bool]) -> None:
    """Of what nobody tells."""
    end = time.monotonic() + BOUND
    while not condition():
        assert time.monotonic() < end
        threading.Event().wait(0.005)


def closed_port() -> int:
    return closed_ports(1)[0]


def closed_ports(count: int) -> list[int]:
    """So many different ones."""
    with contextlib.ExitStack() as end:
        servers = [end.enter_context(socket.create_server((LOOPBACK, 0))) for _ in range(count)]
        return [int(server.getsockname()[1]) for server in servers]


class Peer:
    """A bare server on loopback that does one thing with each connection.

    Args:
        behave: Gets the connected socket, on a thread of its own.
    """

    def __init__(self, behave: Callable[[socket.socket], object]) -> None:
        self._server = socket.create_server((LOOPBACK, 0))
        self.port = int(self._server.getsockname()[1])
        self.address = f"sip:bob@{LOOPBACK}:{self.port}"
        self.connections = 0
        self._behave = behave
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            self._behave(connection)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        # Linux wakes the thread that accepts for this only.
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()


def receive(connection: socket.socket) -> bytes:
    """One request without much of a body, whole."""
    data = b""
    while b"\r\n\r\n" not in data or b"hello" not in data:
        chunk = connection.recv(65536)
        if not chunk:
            raise OSError(errno.ECONNRESET, "closed")
        data += chunk
    return data


def answer(connection: socket.socket) -> None:
    lines = receive(connection).split(b"\r\n")
    keep = [line for line in lines if line.split(b":")[0] in (b"Via", b"From", b"To", b"Call-ID", b"CSeq")]
    connection.sendall(ANSWER % b"\r\n".join(keep))


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


# ---------------------------------------------------------------------- no way there


@pytest.mark.holds("F17")
def test_refused() -> None:
    port = closed_port()
    with alice() as endpoint:
        outcome = Outcome("connect refused", message(endpoint, f"sip:bob@{LOOPBACK}:{port}"))
    outcome.check(ConnectionFailureException, f"{LOOPBACK}:{port}", "refused", at_most=2)


class Unreachable(SystemSockets):
    """The machine has no route to anywhere."""

    def __init__(self) -> None:
        network = MemoryNetwork()
        self.hosts, self.clock = network.hosts, network.clock
        self.hosts["b.example"] = ["192.0.2.66"]
        self.close = network.close

    def connect(self, family: int, address: Any) -> socket.socket:
        raise OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH))


def test_refused_again_and_again() -> None:
    """It is tried at once after the first failure; then there are pauses, at whose end it is found when it is back."""
    port = closed_port()
    with alice() as endpoint:
        send = message(endpoint, f"sip:bob@{LOOPBACK}:{port}")
        for pause in (0, 0, 0.1, 0.2):
            outcome = Outcome("refused again", send)
            told = (ConnectionFailureException, f"{LOOPBACK}:{port}", "refused")
            outcome.check(*told, at_least=pause / 2, at_most=pause + 1)
        with RealTimeServerTcpConnectionManager(LOOPBACK) as manager:
            bob = SipPeerToPeerEndpoint(f"sip:bob@{LOOPBACK}", manager)
            bob.message_received += lambda sender, args: None
            manager.start_listening((LOOPBACK, port))
            assert Outcome("back again", send).error is None


def test_a_proxy_that_does_not_answer_delays_one_request_only() -> None:
    with MemoryNetwork() as network:
        network.hosts.update({"one.example": ["192.0.2.66"], "two.example": ["192.0.2.2"]})
        network.ignore("192.0.2.66")
        with living_in(network.machine("192.0.2.2")):
            theirs = RealTimeServerTcpConnectionManager("two.example")
        proxy = SipPeerToPeerEndpoint("sip:proxy@two.example", theirs)
        proxy.message_received += lambda sender, args: None
        theirs.default_endpoint = proxy
        theirs.start_listening(("0.0.0.0", 5060))
        with (
            theirs,
            living_in(network),
            RealTimeServerTcpConnectionManager(settings=ManagerSettings(connect_timeout=1.5)) as m,
        ):
            proxies = [("one.example", 5060), ("two.example", 5060)]
            endpoint = SipPeerToPeerEndpoint("sip:alice@a.example", m, proxies=proxies)
            times = [Outcome("first proxy silent", message(endpoint, "sip:bob@b.example")) for _ in range(5)]
        assert [outcome.error for outcome in times] == [None] * 5
        assert times[0].seconds >= 1.5
        assert sum(outcome.seconds for outcome in times[1:]) < 0.75


@pytest.mark.holds("F17")
def test_unreachable() -> None:
    world = Unreachable()
    with contextlib.closing(world), living_in(world), alice() as endpoint:
        outcome = Outcome("unreachable", message(endpoint, "sip:bob@b.example:5060"))
    outcome.check(ConnectionFailureException, "b.example", "192.0.2.66", "cannot be reached", at_most=2)


@pytest.mark.holds("R7", "F17")
def test_a_black_hole() -> None:
    with MemoryNetwork() as network:
        network.hosts["b.example"] = ["192.0.2.66"]
        network.ignore("192.0.2.66")
        settings = ManagerSettings(connect_timeout=0.3)
        with living_in(network), alice(settings=settings) as endpoint:
            outcome = Outcome("black hole", message(endpoint, "sip:bob@b.example:5060"))
    outcome.check(ConnectionFailureException, "192.0.2.66", "no answer within 0.3 s", at_least=0.3, at_most=2)


@pytest.mark.holds("F17")
def test_a_name_that_does_not_exist() -> None:
    with alice(resolver={"nowhere.example": []}) as endpoint:
        outcome = Outcome("DNS failure", message(endpoint, "sip:bob@nowhere.example:5060"))
    outcome.check(ConnectionFailureException, "nowhere.example", at_most=2)


@pytest.mark.holds("F17")
def test_a_nameserver_that_never_answers() -> None:
    """Neither for the services of the name nor for its addresses."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind((LOOPBACK, 0))
        settings = ManagerSettings(resolve_timeout=0.5)
        with alice(resolver={".": [silent.getsockname()]}, settings=settings) as endpoint:
            outcome = Outcome("DNS that never answers", message(endpoint, "sip:bob@b.example"))
    outcome.check(ConnectionFailureException, "b.example", "no answer within", "DNS", at_least=0.4, at_most=2)


def test_the_first_server_of_a_service_is_dead() -> None:
    port = closed_port()
    with Peer(answer) as bob:
        names = {
            "_sip._tcp.b.example": [(1, 0, port, "one.example"), (2, 0, bob.port, "two.example")],
            **{host: [LOOPBACK] for host in ("one.example", "two.example")},
        }
        with alice(resolver=names) as endpoint:
            outcome = Outcome("SRV with a dead first target", message(endpoint, "sip:bob@b.example"))
    assert outcome.error is None
    assert outcome.seconds < 2


def test_all_servers_of_a_service_are_dead() -> None:
    ports = closed_ports(2)
    names = {"_sip._tcp.b.example": [(1, 0, ports[0], "one.example"), (2, 0, ports[1], "two.example")]}
    names |= {host: [LOOPBACK] for host in ("one.example", "two.example")}  # type: ignore[misc]
    with alice(resolver=names) as endpoint:
        outcome = Outcome("SRV, all dead", message(endpoint, "sip:bob@b.example"))
    said = [f"{LOOPBACK}:{port}" for port in ports]
    outcome.check(ConnectionFailureException, "b.example", "one.example", "two.example", *said, at_most=2)


# ---------------------------------------------------------------------- the connection is lost


def test_cut_before_the_request_is_written() -> None:
    """The peer has closed the connection of the request before: the next one takes a connection of its own."""
    closed = threading.Event()

    def once(connection: socket.socket) -> None:
        answer(connection)
        connection.close()
        closed.set()

    with Peer(once) as bob, alice() as endpoint:
        for _ in range(3):
            closed.clear()
            outcome = Outcome("cut before the request", message(endpoint, bob.address))
            assert outcome.error is None
            assert closed.wait(BOUND)
        assert bob.connections == 3


def test_cut_while_the_request_is_written() -> None:
    def half(connection: socket.socket) -> None:
        connection.recv(20)
        reset(connection)

    with Peer(half) as bob, alice() as endpoint:
        big = "hello" + "x" * 900_000
        send = lambda: endpoint.send_message(MessageType.MESSAGE, bob.address, body=big, timeout=BOUND)  # noqa: E731
        outcome = Outcome("cut during the request", send)
    outcome.check(ConnectionFailureException, f"{LOOPBACK}:{bob.port}", at_most=3)


@pytest.mark.parametrize("authority", [None, AUTHORITY], ids=["TCP", "TLS"])
def test_what_had_not_left_when_the_connection_broke_goes_over_a_new_one(
    authority: CertificateAuthority | None,
) -> None:
    """What is stuck halfway may have come; what waits behind it has not, and comes once."""
    received: list[str | None] = []
    transport = p2psip.SipTransportType.TCP if authority is None else p2psip.SipTransportType.TLS
    settings = ManagerSettings(send_high_mark=1024 * 1024)  # else the others would take another connection at once
    with endpoint_pair(transport, authority=authority, settings=settings) as pair:
        pair.bob.message_received += lambda sender, args: received.append(args.text_body)
        message(pair.alice, pair.bob.uri)()
        (link,) = pair.network.links
        link.hold()
        big = pair.alice.begin_send_message(MessageType.MESSAGE, pair.bob.uri, body="x" * 900_000)
        connection = pair.alice.connection_manager._stack.network.connections()[0]
        wait_until(lambda: connection._stalled_since is not None)
        small = [pair.alice.begin_send_message(MessageType.MESSAGE, pair.bob.uri, body=str(n)) for n in range(3)]
        wait_until(lambda: connection.messages_sent == 5)
        link.cut()
        stuck = Outcome("cut during the request", lambda: big.result(BOUND))
        stuck.check(ConnectionFailureException, "b.example", "not known", at_most=3)
        assert [operation.result(BOUND).response_code for operation in small] == [200, 200, 200]
        assert received == ["hello", "0", "1", "2"]
        assert len(pair.network.links) == 2


@pytest.mark.parametrize("how", ["closed", "reset"])
def test_cut_after_the_request_is_written(how: str) -> None:
    """It may have taken effect, so that it is not repeated, and the user is told so."""

    def leave(connection: socket.socket) -> None:
        receive(connection)
        if how == "reset":
            reset(connection)

    with Peer(leave) as bob, alice() as endpoint:
        outcome = Outcome(f"{how} after the request", message(endpoint, bob.address))
        assert bob.connections == 1
    outcome.check(ConnectionFailureException, f"{LOOPBACK}:{bob.port}", "not known", at_most=3)


def test_the_next_request_after_a_reset_has_a_new_connection() -> None:
    behaviours = iter([lambda connection: (receive(connection), reset(connection)), answer])

    with Peer(lambda connection: next(behaviours)(connection)) as bob, alice() as endpoint:
        with pytest.raises(ConnectionFailureException):
            message(endpoint, bob.address)()
        message(endpoint, bob.address)()
        assert bob.connections == 2


class Relay(Peer):
    """What stands between us and a peer, and may swallow what comes on the connections that it has so far."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._swallows: set[socket.socket] = set()
        self._ways: list[socket.socket] = []
        super().__init__(self._pass_on)

    def forget(self) -> None:
        """As a NAT does: those who use them are not told."""
        self._swallows.update(self._ways)

    def _pass_on(self, near: socket.socket) -> None:
        with socket.create_connection((LOOPBACK, self._to)) as far:
            self._ways += [near, far]
            threading.Thread(target=self._pump, args=(far, near), daemon=True).start()
            self._pump(near, far)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if source not in self._swallows:
                    sink.sendall(data)


@pytest.mark.holds("F22")
@pytest.mark.parametrize("pings", [False, True])
def test_a_way_that_is_lost_without_a_word(pings: bool) -> None:
    """Without pings the request's own time goes by first. The next request takes another connection in both cases."""
    interval = 0.1 if pings else None
    settings = ManagerSettings(t1=0.02, keep_alive_interval=interval, pong_timeout=0.3)
    with contextlib.ExitStack() as end:
        bob = end.enter_context(Peer(lambda connection: [answer(connection) for _ in range(9)]))
        relay = end.enter_context(Relay(bob.port))
        endpoint = end.enter_context(alice(settings=settings))
        message(endpoint, relay.address)()
        relay.forget()
        outcome = Outcome(f"NAT time-out, pings {pings}", message(endpoint, relay.address))
        if pings:
            outcome.check(ConnectionFailureException, "keep-alive ping within 0.3 s", "not known", at_most=1.2)
        else:
            outcome.check(OperationTimeoutException, "not answered within 1.28 s", at_least=1.28, at_most=3)
        message(endpoint, relay.address)()
        assert relay.connections == 2


PROCESS = """
import sys
import p2psip

manager = p2psip.RealTimeServerTcpConnectionManager("127.0.0.1")
endpoint = p2psip.SipPeerToPeerEndpoint("sip:bob@127.0.0.1", manager)
endpoint.message_received += lambda sender, args: None
manager.start_listening(("127.0.0.1", 0))
print(manager.listening_port, flush=True)
sys.stdin.read()
"""


@pytest.mark.holds("F22")
@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="processes cannot be stopped here")
def test_a_peer_that_stands_still_and_goes_on() -> None:
    command = [sys.executable, "-c", PROCESS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        address = f"sip:bob@{LOOPBACK}:{int(process.stdout.readline())}"
        with alice() as endpoint:
            message(endpoint, address)()
            with suspended(process):
                outcome = Outcome("peer stopped", message(endpoint, address, timeout=0.5))
            outcome.check(OperationTimeoutException, "0.5 s", LOOPBACK, at_least=0.5, at_most=2)
            outcome = Outcome("peer continued", message(endpoint, address))
            assert outcome.error is None
            assert len(endpoint.connection_manager.connections()) == 1
        process.stdin.close()


# ---------------------------------------------------------------------- certificates


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def test_the_peer_s_certificate_is_another_one_meanwhile(version: ssl.TLSVersion, tmp_path: Path) -> None:
    """What was verified once is verified again on each new connection."""
    with MemoryNetwork() as network, contextlib.ExitStack() as end:
        network.hosts["b.example"] = ["192.0.2.2"]
        first, other = AUTHORITY.issue("b.example"), AUTHORITY.issue("c.example")
        store = AUTHORITY.store(tmp_path, first, other)
        with living_in(network):
            ours = end.enter_context(tls_manager(AUTHORITY, "a.example"))
            theirs = end.enter_context(
                RealTimeServerTlsConnectionManager(
                    first.issuer, first.serial, certificate_store=store, minimum_tls_version=version
                )
            )
        bob = SipPeerToPeerEndpoint("sip:bob@b.example", theirs)
        bob.message_received += lambda sender, args: None
        theirs.start_listening(("0.0.0.0", 5061))
        endpoint = SipPeerToPeerEndpoint("sip:alice@a.example", ours)
        message(endpoint, "sip:bob@b.example:5061")()
        theirs.set_local_certificate(other.issuer, other.serial)
        for link in network.links:
            link.cut()
        outcome = Outcome("another certificate", message(endpoint, "sip:bob@b.example:5061"))
    outcome.check(TlsFailureException, "b.example", "c.example", at_most=3)
    assert isinstance(outcome.error, TlsFailureException)
    assert outcome.error.failure_reason is TlsFailureReason.INCORRECT_NAME_IN_REMOTE_CERTIFICATE


@pytest.mark.parametrize("named", [False, True])
def test_a_proxy_whose_certificate_bears_another_name(named: bool) -> None:
    with MemoryNetwork() as network, contextlib.ExitStack() as end:
        network.hosts["proxy.example"] = ["192.0.2.2"]
        with living_in(network):
            ours = end.enter_context(tls_manager(AUTHORITY, "a.example"))
            theirs = end.enter_context(tls_manager(AUTHORITY, "farm.example"))
        proxy = SipPeerToPeerEndpoint("sip:proxy@farm.example", theirs)
        proxy.message_received += lambda sender, args: None
        theirs.default_endpoint = proxy
        theirs.start_listening(("0.0.0.0", 5061))
        endpoint = SipPeerToPeerEndpoint("sip:alice@a.example", ours, None, "proxy.example", 5061)
        if named:
            endpoint.proxy_certificate_subject = "farm.example"
        outcome = Outcome("proxy with another name", message(endpoint, "sip:bob@b.example"))
    if named:
        assert outcome.error is None
    else:
        outcome.check(TlsFailureException, "proxy.example", "farm.example", at_most=3)


# ---------------------------------------------------------------------- dialogs


@pytest.mark.parametrize(
    ("how", "who"), [("cut", "caller"), ("cut", "called"), ("cut", "both at once"), ("held", "caller")]
)
@pytest.mark.parametrize("authority", [None, AUTHORITY], ids=["TCP", "TLS"])
def test_a_call_survives_its_connection(how: str, who: str, authority: CertificateAuthority | None) -> None:
    """Cut: both know. Held: the way is lost without a word, as behind a NAT; a ping that is not answered finds out."""
    settings = ManagerSettings(keep_alive_interval=0.2, pong_timeout=0.3)
    offer = p2psip.ContentDescription("application/sdp", "v=0\r\n")
    calls: list[SignalingSession] = []
    up = threading.Event()

    def take(sender: object, args: p2psip.SessionReceivedEventArgs) -> None:
        args.session.message_received += lambda sender, args: None
        args.session.accept(offer)
        calls.append(args.session)
        up.set()

    transport = p2psip.SipTransportType.TCP if authority is None else p2psip.SipTransportType.TLS
    with endpoint_pair(transport, authority=authority, settings=settings) as pair:
        pair.bob.session_received += take
        session = SignalingSession(pair.alice, pair.bob.uri)
        session.establish(offer)
        assert up.wait(BOUND)
        session.message_received += lambda sender, args: None
        (called,) = calls
        watched = called if who == "called" else session
        lost, over = threading.Event(), threading.Event()
        watched.route_set_status_changed += lambda sender, args: lost.set()
        called.state_changed += lambda sender, args: called.state is SignalingState.DISCONNECTED and over.set()
        for link in pair.network.links:
            link.cut() if how == "cut" else link.hold()
        assert lost.wait(BOUND)
        order = [called, session] if who == "called" else [session, called]
        if who == "both at once":
            both = [each.begin_send_message(MessageType.MESSAGE, body="?", timeout=BOUND) for each in order]
            assert [operation.result(BOUND).response_code for operation in both] == [200, 200]
        for each in order:
            assert each.send_message(MessageType.MESSAGE, body="?", timeout=BOUND).response_code == 200
        order[-1].terminate()
        assert over.wait(BOUND)
