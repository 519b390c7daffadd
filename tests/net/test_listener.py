"""Listening: addresses and ports, limits, and what accept may come back with."""

from __future__ import annotations

import errno
import itertools
import selectors
import socket
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from net_support import PATIENCE, Side, dial, message, read_to_end, sides, tcp
from tls_support import NAME, bare_context, contexts, issued

from p2psip.config import ManagerSettings
from p2psip.errors import ConnectionFailureException, OperationFailureException
from p2psip.net import listener
from p2psip.net.limits import LEAST, MOST, TOGETHER, Admission, Quota, Share, address_key, plain_host
from p2psip.net.sockets import SystemSockets
from p2psip.testing.clock import FakeClock

__all__ = ["sides"]

Make = Callable[..., Side]


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


# ---------------------------------------------------------------------- addresses and ports


@pytest.mark.holds("F38")
def test_any_address_is_both_families_on_one_port(sides: Make) -> None:
    side = sides()
    port = side.listen("0.0.0.0")
    assert port == side.network.listening_port != 0
    with dial(port) as four:
        four.sendall(message())
        side.recorder.wait("message")
        assert side.recorder.wait("ready")[0][0].local == ("127.0.0.1", port)
    if has_ipv6():
        assert side.network.listening_addresses == (("0.0.0.0", port), ("::", port))
        with dial(port, "::1") as six:
            six.sendall(message())
            side.recorder.wait("message", 2)
            assert side.recorder.wait("ready", 2)[1][0].remote[0] == "::1"


def test_a_machine_without_ipv6_listens_on_ipv4(sides: Make) -> None:
    class NoIpv6(SystemSockets):
        def listen(self, family: int, address: Any, backlog: int, reuse_port: bool) -> Any:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "no such family")
            return super().listen(family, address, backlog, reuse_port)

    side = sides(factory=NoIpv6())
    port = side.listen("0.0.0.0")
    assert side.network.listening_addresses == (("0.0.0.0", port),)


def test_a_port_that_is_taken_for_ipv6_is_not_chosen(sides: Make) -> None:
    class Taken(SystemSockets):
        refused = 0

        def listen(self, family: int, address: Any, backlog: int, reuse_port: bool) -> Any:
            assert backlog >= 128
            if family == socket.AF_INET6 and self.refused < 3:
                self.refused += 1
                raise OSError(errno.EADDRINUSE, "taken")
            return super().listen(family, address, backlog, reuse_port)

    factory = Taken()
    side = sides(factory=factory)
    side.listen("0.0.0.0")
    assert factory.refused == 3


@pytest.mark.holds("F38")
@pytest.mark.skipif(not has_ipv6(), reason="there is no IPv6 here")
def test_the_ipv6_any_address_is_ipv6_only(sides: Make) -> None:
    for _ in range(5):  # somebody else's process may listen on the same port of IPv4
        side = sides()
        port = side.listen("::")
        with dial(port, "::1"):
            side.recorder.wait("ready")
        try:
            with socket.socket() as nobody_elses:
                nobody_elses.bind(("127.0.0.1", port))
                with pytest.raises(ConnectionRefusedError):
                    dial(port)
            return
        except OSError:
            continue
    pytest.fail("The ports of IPv4 are taken as well.")


@pytest.mark.parametrize(
    ("host", "port"),
    [("192.0.2.77", 0), ("127.0.0.1", None)],
    ids=["not ours", "taken"],
)
def test_what_cannot_be_listened_on_is_typed(sides: Make, host: str, port: int | None) -> None:
    side = sides()
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1] if port is None else port
        with pytest.raises(ConnectionFailureException, match=f"Could not listen on {host}:{number}") as caught:
            side.listen(host, number)
        assert isinstance(caught.value.__cause__, OSError)
    assert side.network.listening_port == 0
    assert side.network.listening_addresses == ()


def test_the_port_is_free_at_once_and_connections_live_on(sides: Make) -> None:
    side = sides()
    port = side.listen()
    with dial(port) as peer:
        side.recorder.wait("ready")
        side.call(side.network.stop_listening)
        with pytest.raises(ConnectionRefusedError):
            dial(port)
        peer.sendall(message())
        side.recorder.wait("message")
        assert side.listen("127.0.0.1", port) == port
        with dial(port):
            side.recorder.wait("ready", 2)


@pytest.mark.holds("F30")
def test_start_and_stop_200_times_under_connects(sides: Make) -> None:
    side = sides()
    port = side.listen()
    for _ in range(200):
        peer = dial(port)
        side.call(side.network.stop_listening)
        peer.close()
        assert side.listen("127.0.0.1", port) == port
    assert side.recorder.count("aborted") == 0


# ---------------------------------------------------------------------- what accept may come back with


class Scripted(SystemSockets):
    """A listener whose accept fails as often as it is told, before it does its work."""

    def __init__(self) -> None:
        self.errors: list[OSError] = []
        self.accepts = 0

    def listen(self, family: int, address: Any, backlog: int, reuse_port: bool) -> Any:
        real = super().listen(family, address, backlog, reuse_port)
        factory = self

        class Listening:
            def accept(self) -> Any:
                factory.accepts += 1
                if factory.errors:
                    raise factory.errors.pop(0)
                return real.accept()

            def __getattr__(self, name: str) -> Any:
                return getattr(real, name)

            def fileno(self) -> int:
                return real.fileno()  # type: ignore[no-any-return]

        return Listening()


@pytest.mark.holds("F18")
@pytest.mark.parametrize("number", sorted(listener.LOST))
def test_a_peer_that_was_lost_stops_nothing(sides: Make, number: int) -> None:
    factory = Scripted()
    side = sides(factory=factory)
    port = side.listen()
    factory.errors = [OSError(number, "gone")] * 3
    with dial(port):
        side.recorder.wait("ready")
    assert side.recorder.count("aborted") == 0


@pytest.mark.holds("R33", "F18")
@pytest.mark.parametrize("number", sorted(listener.EXHAUSTED))
def test_without_descriptors_accepting_rests(sides: Make, number: int) -> None:
    clock = FakeClock()
    factory = Scripted()
    side = sides(ManagerSettings(accept_pause=0.2), factory=factory, clock=clock)
    port = side.listen()
    with dial(port) as old:
        side.recorder.wait("ready")
        side.settle()
        factory.errors = [OSError(number, "none left")]
        with dial(port) as shed, dial(port):
            assert read_to_end(shed) == b""  # the reserve was used to turn it away
            before = factory.accepts
            side.settle(10)
            assert factory.accepts == before  # no busy loop
            old.sendall(message())
            side.recorder.wait("message")
            clock.advance(0.3)
            side.recorder.wait("ready", 2)
    assert side.recorder.count("aborted") == 0


@pytest.mark.holds("F18")
def test_a_dead_listener_is_told_and_let_go(sides: Make) -> None:
    factory = Scripted()
    side = sides(factory=factory)
    port = side.listen()
    factory.errors = [OSError(errno.EINVAL, "not listening")]
    try:
        dial(port).close()
    except ConnectionError:  # the listener was closed before it was accepted
        pass
    ((error,),) = side.recorder.wait("aborted")
    assert isinstance(error, ConnectionFailureException)
    assert isinstance(error.__cause__, OSError)
    assert str(port) in str(error)
    assert side.network.listening_port == 0


@pytest.mark.holds("A5")
def test_who_is_accepted_may_end_the_listening(sides: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """With others waiting: nothing is asked of a socket that is closed."""
    side = sides()
    port = side.listen()
    accepted: list[object] = []

    def accept_one(sock: socket.socket, address: object) -> None:
        accepted.append(address)
        sock.close()
        side.network.stop_listening()
        side.network.listen("127.0.0.1", 0)

    monkeypatch.setattr(side.network, "accepted", accept_one)
    entered, leave = threading.Event(), threading.Event()
    side.loop.post(lambda: (entered.set(), leave.wait(PATIENCE)))
    assert entered.wait(PATIENCE)
    with dial(port), dial(port):
        leave.set()
        side.settle(5)
    assert len(accepted) == 1
    assert side.recorder.count("aborted") == 0
    assert side.call(lambda: side.network.listening_port) not in (0, port)


@pytest.mark.holds("R27")
def test_a_burst_does_not_keep_the_others_waiting(sides: Make) -> None:
    class Endless(SystemSockets):
        accepted = 0

        def listen(self, family: int, address: Any, backlog: int, reuse_port: bool) -> Any:
            real = super().listen(family, address, backlog, reuse_port)
            factory = self

            class Listening:
                def accept(self) -> Any:
                    factory.accepted += 1
                    raise OSError(errno.ECONNABORTED, "again and again")

                def __getattr__(self, name: str) -> Any:
                    return getattr(real, name)

                def fileno(self) -> int:
                    return real.fileno()  # type: ignore[no-any-return]

            return Listening()

    factory = Endless()
    side = sides(factory=factory)
    port = side.listen()
    with dial(port):
        counts: list[int] = []

        def count() -> None:
            counts.append(factory.accepted)
            if len(counts) < 10:
                side.loop.at_turn_end(count)

        side.call(count)
        while len(counts) < 10:
            side.settle()
    steps = [after - before for before, after in itertools.pairwise(counts)]
    assert max(steps) == listener.BURST


# ---------------------------------------------------------------------- limits


@pytest.mark.holds("R27", "A8")
def test_surplus_connections_of_one_address_are_closed_at_once(sides: Make) -> None:
    side = sides(ManagerSettings(maximum_connections_per_address=2))
    port = side.listen()
    first, second = dial(port), dial(port)
    with first, second:
        side.recorder.wait("ready", 2)
        with dial(port) as third:
            assert ended(third)
        first.close()
        side.recorder.wait("closed")
        side.settle()
        with dial(port):
            side.recorder.wait("ready", 3)


def ended(sock: socket.socket) -> bool:
    """The peer has closed or reset it."""
    sock.settimeout(PATIENCE)
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


def test_trusted_addresses_are_exempt(sides: Make) -> None:
    settings = ManagerSettings(maximum_connections_per_address=1, trusted_addresses=frozenset({"127.0.0.1"}))
    side = sides(settings)
    port = side.listen()
    with dial(port), dial(port), dial(port):
        side.recorder.wait("ready", 3)


@pytest.mark.holds("R27")
def test_the_limit_of_all_counts_for_the_trusted_as_well(sides: Make) -> None:
    settings = ManagerSettings(maximum_connections=1, trusted_addresses=frozenset({"127.0.0.1"}))
    side = sides(settings)
    port = side.listen()
    with dial(port):
        side.recorder.wait("ready")
        with dial(port) as surplus:
            assert ended(surplus)


def test_where_there_is_only_select_it_is_not_asked_for_more_than_it_takes(
    sides: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selectors.DefaultSelector", selectors.SelectSelector)
    monkeypatch.setattr("p2psip.net.loop.SELECT_LIMIT", 1)
    side = sides()
    port = side.listen()
    with dial(port):
        side.recorder.wait("ready")
        with dial(port) as surplus:
            assert ended(surplus)
        error = side.acquire(tcp(port)).error()
        assert isinstance(error, OperationFailureException)
        assert "already 1 connections" in str(error)


def test_the_log_of_refusals_is_quiet(sides: Make, caplog: pytest.LogCaptureFixture) -> None:
    side = sides(ManagerSettings(maximum_connections=0), clock=FakeClock())
    port = side.listen()
    for _ in range(30):
        with dial(port) as peer:
            assert ended(peer)
    lines = [record.getMessage() for record in caplog.records]
    assert 1 <= len(lines) <= 10
    assert "127.0.0.1" in lines[0]
    assert "maximum_connections" in lines[0]


@pytest.mark.holds("R27")
def test_handshakes_are_counted_and_given_back() -> None:
    admission = Admission(ManagerSettings(maximum_handshakes=3, maximum_handshakes_per_address=2), 4096)
    for _ in range(2):
        assert admission.refusal("192.0.2.1", 0, 0) is None
        admission.begin("192.0.2.1")
    assert "maximum_handshakes_per_address" in str(admission.refusal("192.0.2.1", 0, 2))
    assert admission.refusal("192.0.2.2", 0, 2) is None
    admission.begin("192.0.2.2")
    assert "maximum_handshakes (3)" in str(admission.refusal("192.0.2.3", 0, 3))
    admission.handshake_over("192.0.2.1")
    assert admission.refusal("192.0.2.1", 0, 3) is None


@pytest.mark.holds("R27")
def test_ipv6_addresses_of_one_site_are_one() -> None:
    admission = Admission(ManagerSettings(maximum_connections_per_address=1), 4096)
    admission.begin("2001:db8:0:1::1")
    admission.handshake_over("2001:db8:0:1::1")
    assert admission.refusal("2001:db8:0:1:ffff::2", 0, 1) is not None
    assert admission.refusal("2001:db8:0:2::1", 0, 1) is None
    admission.end("2001:db8:0:1::1")
    assert admission.refusal("2001:db8:0:1:ffff::2", 0, 0) is None


@pytest.mark.holds("R30")
def test_handshake_rates_are_off_until_set() -> None:
    free = Admission(ManagerSettings(), 4096)
    assert all(free.refusal("192.0.2.1", 0, 0) is None for _ in range(10_000))
    limited = Admission(
        ManagerSettings(maximum_handshakes_per_second=20, maximum_handshakes_per_second_per_address=5), 4096
    )
    outcomes = [limited.refusal("192.0.2.1", 0, 0) for _ in range(6)]
    assert outcomes[:5] == [None] * 5
    assert "per_second_per_address" in str(outcomes[5])
    assert [limited.refusal(f"192.0.2.{n}", 0, 0) is None for n in range(2, 20)].count(True) == 15
    assert limited.refusal("192.0.2.1", 1, 0) is None


@pytest.mark.holds("R30")
def test_a_quota_fills_up_and_can_be_owed() -> None:
    quota = Quota(10, 0)
    assert quota.take(0, 10)
    assert not quota.take(0)
    assert quota.take(0.1)
    assert quota.owe(0.1, 5) == pytest.approx(0.5)
    assert quota.owe(5, 5) == 0
    assert quota.is_full(100)


@pytest.mark.holds("R32")
def test_who_has_many_connections_does_not_read_much_more_than_who_has_few() -> None:
    share = Share()
    assert [share.take(1) for _ in range(2)] == [MOST] * 2
    burst = [share.take(2) for _ in range(100)]
    assert burst == [MOST] * 4 + [LEAST] * 96
    fair = [share.take(3) for _ in range(100)]
    assert fair == [TOGETHER // 100] * 100
    assert [share.take(4) for _ in range(1000)][-1] == LEAST
    share.take(5)
    assert share.take(6) == MOST


def test_connections_of_one_address_share_and_the_trusted_do_not() -> None:
    admission = Admission(ManagerSettings(trusted_addresses=frozenset({"192.0.2.9"})), 4096)
    first, second = (admission.begin(f"2001:db8::{n}") for n in range(2))
    assert first is second
    assert admission.begin("192.0.2.1") is not first
    assert admission.begin("192.0.2.9") is not admission.begin("192.0.2.9")
    for n in range(2):
        admission.end(f"2001:db8::{n}")
    assert admission.begin("2001:db8::1") is not first


@pytest.mark.holds("R32")
@pytest.mark.parametrize("secure", [False, True], ids=["TCP", "TLS"])
def test_a_turn_takes_in_no_more_from_many_connections_of_one_address(sides: Make, secure: bool) -> None:
    """A peer at another address waits for turns, and each of them would take as long as there are connections."""
    side = sides(tls=contexts() if secure else None)
    port = side.listen()
    context = bare_context(server=False, certificate=issued())
    peers = []
    for _ in range(40):
        sock = dial(port)
        peers.append(context.wrap_socket(sock, server_hostname=NAME) if secure else sock)
    side.recorder.wait("ready", 40)
    taken: Counter[int] = Counter()
    side.recorder.on_messages = lambda connection, messages: taken.update({side.loop.turn: len(messages)})
    data = message(number=1)
    each = MOST // len(data)
    entered, leave = threading.Event(), threading.Event()

    def block() -> None:
        entered.set()
        leave.wait(PATIENCE)

    side.loop.post(block)
    assert entered.wait(PATIENCE)
    for peer in peers:
        peer.sendall(data * each)
    leave.set()
    side.recorder.wait("message", 40 * each)
    # What TLS holds already may be asked for once more in the turn; and a message may be complete with its last byte.
    assert max(taken.values()) * len(data) <= TOGETHER + 40 * (LEAST * (1 + secure) + len(data))
    for peer in peers:
        peer.close()


@pytest.mark.holds("R43")
@pytest.mark.parametrize(
    ("host", "plain"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("::1", "::1"),
    ],
)
def test_addresses_as_they_are_shown(host: str, plain: str) -> None:
    assert plain_host(host) == plain


def test_addresses_as_they_are_counted() -> None:
    assert address_key("192.0.2.1") == "192.0.2.1"
    assert address_key("2001:db8::1") == address_key("2001:db8::ffff:1")
    assert address_key("2001:db8::1") != address_key("2001:db8:0:1::1")
