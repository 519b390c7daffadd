"""What a connection manager counts: each number against what has happened."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from facade_support import BOUND, tcp_pair

from p2psip import (
    IPAddress,
    IPEndPoint,
    ManagerSettings,
    ManagerStatistics,
    MessageReceivedEventArgs,
    MessageType,
    RealTimeException,
    RealTimeServerTcpConnectionManager,
    SignalingSession,
    SipPeerToPeerEndpoint,
    SipTransportType,
    TlsFailureException,
)
from p2psip.core.engine import KNOWN_METHODS
from p2psip.message import StreamFramer
from p2psip.net.counts import MOST_KINDS, Counts, Sent
from p2psip.statistics import ENDINGS, HANDSHAKE_RESULTS, LIMITS, TIMEOUTS, TransactionStatistics
from p2psip.testing import CertificateAuthority, MemoryNetwork, endpoint_pair, living_in, tls_manager

TCP = SipTransportType.TCP


def flat(statistics: ManagerStatistics) -> dict[str, float]:
    """Every number by the way to it."""

    def walk(name: str, value: Any) -> Iterator[tuple[str, float]]:
        if isinstance(value, dict):
            for key, each in value.items():
                yield from walk(f"{name}.{key}", each)
        else:
            yield name, value

    return dict(walk("", statistics.as_dict()))


GAUGES = (
    ".connections.open",
    ".dialogs",
    ".queues.",
    *(f".transactions.{name}" for name in ("clients", "servers", "opening")),
)


def counters(statistics: ManagerStatistics) -> dict[str, float]:
    totals = ("_total", "retransmitted", "absorbed", "strays")
    return {name: n for name, n in flat(statistics).items() if name.endswith(totals) or not name.startswith(GAUGES)}


def wait_for(condition: Callable[[], object], manager: Any) -> None:
    """Until it holds, looking again after each turn of the manager's loop."""
    for _ in range(100_000):
        if condition():
            return
        manager._stack.call("a look", lambda: None).result(BOUND)
    raise AssertionError("it never held")


# ---------------------------------------------------------------------- what is counted


def test_an_exchange_counts_on_both_sides() -> None:
    with endpoint_pair(TCP) as pair:
        pair.bob.message_received += lambda sender, args: None
        for _ in range(3):
            pair.alice.send_message(MessageType.MESSAGE, pair.bob.uri, body="hello", timeout=BOUND)
        # Bob counts what he has sent and what has run a moment after Alice has his answer.
        bob = pair.bob.connection_manager
        wait_for(lambda: bob.statistics().handlers.count >= 3 and not bob.statistics().queues.unsent_bytes, bob)
        one, two = (each.connection_manager.statistics() for each in (pair.alice, pair.bob))
    assert (one.sent.requests, one.received.responses) == ({"MESSAGE": 3}, {200: 3})
    assert (two.received.requests, two.sent.responses) == ({"MESSAGE": 3}, {200: 3})
    assert one.sent.total == two.received.total == 3
    assert (one.connections.opened, two.connections.opened) == (
        {"incoming": 0, "outgoing": 1},
        {"incoming": 1, "outgoing": 0},
    )
    assert one.connections.open == two.connections.open == 1
    assert one.connections.bytes_sent == two.connections.bytes_received > 500
    assert one.connections.bytes_received == two.connections.bytes_sent > 500
    assert (one.transactions.clients_total, two.transactions.servers_total) == (3, 3)
    assert (one.transactions.clients, two.transactions.servers) == (0, 0)
    assert two.handlers.count == two.handlers.buckets[float("inf")] >= 3
    assert two.handlers.longest <= two.handlers.seconds < BOUND
    assert not any(one.refusals.values()) and not any(one.timeouts.values())
    assert 0 < one.uptime < BOUND


def test_a_call_is_a_dialog_and_its_messages_count() -> None:
    with endpoint_pair(TCP) as pair:
        pair.bob.session_received += lambda sender, args: args.session.accept()
        call = SignalingSession(pair.alice, pair.bob.uri)
        call.establish(timeout=BOUND)
        assert pair.alice.connection_manager.statistics().dialogs == 1
        call.terminate()
        statistics = pair.alice.connection_manager.statistics()
    assert statistics.sent.requests == {"ACK": 1, "BYE": 1, "INVITE": 1}
    assert statistics.received.responses[200] == 2
    assert statistics.dialogs == 0
    assert statistics.transactions.clients_total == 2  # the ACK has none


@pytest.mark.parametrize("need", ["ok", "unknown"])
def test_handshakes_count_by_their_result(need: str) -> None:
    ours, theirs = CertificateAuthority(), CertificateAuthority()
    with MemoryNetwork() as network, contextlib.ExitStack() as end:
        network.hosts["bob.example"] = ["192.0.2.2"]
        with living_in(network):
            bob = end.enter_context(tls_manager(ours, "bob.example"))
            alice = end.enter_context(tls_manager(ours if need == "ok" else theirs, "alice.example"))
        bob.start_listening(IPEndPoint(IPAddress.ANY, 5061))
        endpoint = SipPeerToPeerEndpoint("sip:bob@bob.example", bob)
        caller = SipPeerToPeerEndpoint("sip:alice@alice.example", alice)
        if need == "ok":
            caller.send_message(MessageType.OPTIONS, endpoint.uri, timeout=BOUND)
        else:
            with pytest.raises(TlsFailureException):
                caller.send_message(MessageType.OPTIONS, endpoint.uri, timeout=BOUND)
        key = ".connections.handshakes."
        wait_for(lambda: sum(bob.statistics().connections.handshakes.values()), bob)
        one, two = (
            {name[len(key) :]: n for name, n in flat(m.statistics()).items() if name.startswith(key) and n}
            for m in (alice, bob)
        )
    if need == "ok":
        assert (one, two) == ({"ok": 1}, {"ok": 1})
    else:
        assert one == {"untrusted_remote_certificate": 1}
        assert two == {"tls_negotiation_failure": 1}


def test_a_late_refusal_counts_as_well() -> None:
    ours, theirs = CertificateAuthority(), CertificateAuthority()
    with MemoryNetwork() as network, contextlib.ExitStack() as end:
        network.hosts["bob.example"] = ["192.0.2.2"]
        with living_in(network):
            bob = end.enter_context(tls_manager(ours, "bob.example"))
            alice = end.enter_context(tls_manager(theirs, "alice.example", trusted_roots=[ours.root.certificate]))
        bob.start_listening(IPEndPoint(IPAddress.ANY, 5061))
        endpoint = SipPeerToPeerEndpoint("sip:bob@bob.example", bob)
        caller = SipPeerToPeerEndpoint("sip:alice@alice.example", alice)
        with pytest.raises(TlsFailureException):
            caller.send_message(MessageType.OPTIONS, endpoint.uri, timeout=BOUND)
        statistics = alice.statistics()
    assert statistics.connections.handshakes["ok"] == 1
    assert statistics.connections.handshakes["refused_afterwards"] == 1


def test_a_handshake_that_takes_too_long_is_a_time_out() -> None:
    with (
        MemoryNetwork() as network,
        living_in(network),
        tls_manager(CertificateAuthority(), "bob.example", settings=ManagerSettings(handshake_timeout=0.02)) as bob,
    ):
        bob.start_listening(IPEndPoint("192.0.2.2", 5061))
        silent = network.connect(socket.AF_INET, ("192.0.2.2", 5061))
        wait_for(lambda: bob.statistics().connections.closed["handshake_timeout"], bob)
        statistics = bob.statistics()
        silent.close()
    assert statistics.connections.handshakes["timeout"] == 1
    assert statistics.timeouts["handshake_timeout"] == 1


# ---------------------------------------------------------------------- limits


def head(lines: str = "", start: str = "OPTIONS sip:bob@example.com SIP/2.0", length: object = 0) -> bytes:
    return (
        f"{start}\r\nVia: SIP/2.0/TCP a.example;branch=z9hG4bK1\r\nFrom: <sip:a@a.example>;tag=1\r\n"
        f"To: <sip:bob@example.com>\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\n{lines}"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()


OFFENCES: dict[str, tuple[dict[str, Any], bytes]] = {
    "maximum_start_line": ({"maximum_start_line": 200}, head(start=f"OPTIONS sip:{'b' * 300}@example.com SIP/2.0")),
    "maximum_header": ({"maximum_header": 200}, head(f"Subject: {'x' * 300}\r\n")),
    "maximum_head": ({"maximum_head": 500}, head("X: y\r\n" * 200)),
    "maximum_headers": ({"maximum_headers": 20}, head("X: y\r\n" * 30)),
    "maximum_values": ({"maximum_values": 10}, head("Route: " + ", ".join(["<sip:p>"] * 20) + "\r\n")),
    "maximum_body": ({"maximum_body": 100}, head(length=101)),
    "maximum_pings_per_second": ({"maximum_pings_per_second": 3}, b"\r\n\r\n" * 50),
    "maximum_requests_per_second": ({"maximum_requests_per_second": 1.0}, head() * 3),
    "maximum_transactions": ({"maximum_transactions": 0}, head()),
    "maximum_unanswered_per_connection": ({"maximum_unanswered_per_connection": 0}, head()),
}


@contextlib.contextmanager
def listener(settings: ManagerSettings) -> Iterator[tuple[MemoryNetwork, RealTimeServerTcpConnectionManager]]:
    """One that takes everything in, at 192.0.2.2."""
    with (
        MemoryNetwork() as network,
        living_in(network),
        RealTimeServerTcpConnectionManager(settings=settings) as manager,
    ):
        manager.default_endpoint = SipPeerToPeerEndpoint("sip:bob@example.com", manager)
        manager.start_listening(IPEndPoint("192.0.2.2", 5060))
        yield network, manager


@pytest.mark.parametrize("limit", OFFENCES)
def test_what_a_limit_refuses_counts_by_its_name(limit: str) -> None:
    changes, octets = OFFENCES[limit]
    with listener(ManagerSettings(**changes)) as (network, manager):
        sock = network.connect(socket.AF_INET, ("192.0.2.2", 5060))
        sock.send(octets)
        wait_for(lambda: manager.statistics().refusals[limit], manager)
        refusals = manager.statistics().refusals
        sock.close()
    assert {name: count for name, count in refusals.items() if count} == {limit: 1}


@pytest.mark.parametrize(
    "limit",
    ["maximum_connections", "maximum_connections_per_address", "maximum_handshakes_per_second"],
)
def test_connections_that_are_turned_away_count(limit: str) -> None:
    with listener(ManagerSettings(**{limit: 1})) as (network, manager):  # type: ignore[arg-type]
        socks = [network.connect(socket.AF_INET, ("192.0.2.2", 5060)) for _ in range(3)]
        wait_for(lambda: manager.statistics().refusals[limit] == 2, manager)
        assert manager.statistics().connections.opened["incoming"] == 1
        for sock in socks:
            sock.close()


@pytest.mark.parametrize(
    "limit", ["maximum_handshakes", "maximum_handshakes_per_address", "maximum_handshakes_per_second_per_address"]
)
def test_handshakes_that_are_too_many_count(limit: str) -> None:
    settings = ManagerSettings(**{limit: 1})  # type: ignore[arg-type]
    with (
        MemoryNetwork() as network,
        living_in(network),
        tls_manager(CertificateAuthority(), "bob.example", settings=settings) as manager,
    ):
        manager.start_listening(IPEndPoint("192.0.2.2", 5061))
        silent = [network.connect(socket.AF_INET, ("192.0.2.2", 5061)) for _ in range(3)]
        wait_for(lambda: manager.statistics().refusals[limit] == 2, manager)
        for sock in silent:
            sock.close()


def test_a_peer_that_takes_no_answers_counts() -> None:
    settings = ManagerSettings(send_high_mark=50_000, maximum_send_queue=200_000)
    with listener(settings) as (network, manager):
        (endpoint,) = manager.endpoints
        endpoint.message_received += lambda sender, args: args.send_response(200, body="x" * 100_000)
        sock = network.connect(socket.AF_INET, ("192.0.2.2", 5060))
        for number in range(100):
            with contextlib.suppress(OSError):  # no more is read from us, or we are cut off
                sock.send(head().replace(b"bK1", b"bK%d" % number).replace(b"-ID: 1", b"-ID: %d" % number))
        wait_for(lambda: manager.statistics().refusals["send_high_mark"], manager)
        wait_for(lambda: manager.statistics().connections.closed["maximum_send_queue"], manager)
        assert manager.statistics().refusals["maximum_send_queue"] == 1
        sock.close()


def test_too_much_on_all_connections_together_counts() -> None:
    with listener(ManagerSettings(maximum_buffered=10_000)) as (network, manager):
        socks = [network.connect(socket.AF_INET, ("192.0.2.2", 5060)) for _ in range(3)]
        for sock in socks:
            sock.send(head(length=9000) + bytes(5000))
        wait_for(lambda: manager.statistics().refusals["maximum_buffered"], manager)
        for sock in socks:
            sock.close()


def test_requests_that_no_connection_takes_count() -> None:
    settings = ManagerSettings(maximum_unanswered_per_connection=1, maximum_connections_per_pool=1)
    with endpoint_pair(TCP, settings=settings) as pair:
        release = threading.Event()
        pair.bob.message_received += lambda sender, args: release.wait(BOUND)
        manager = pair.alice.connection_manager
        operations = [pair.alice.begin_send_message(MessageType.MESSAGE, pair.bob.uri, body="x") for _ in range(10)]
        wait_for(lambda: manager.statistics().refusals["maximum_connections_per_pool"], manager)
        release.set()
        for operation in operations:
            operation.exception(BOUND)


def test_dialogs_above_their_limit_count() -> None:
    with endpoint_pair(TCP, settings=ManagerSettings(maximum_dialogs=0)) as pair:
        with pytest.raises(RealTimeException):
            SignalingSession(pair.alice, pair.bob.uri).establish(timeout=BOUND)
        assert pair.alice.connection_manager.statistics().refusals["maximum_dialogs"] == 1


def test_handlers_that_do_not_keep_up_count() -> None:
    with endpoint_pair(TCP, settings=ManagerSettings(strand_high_mark=2, strand_low_mark=1)) as pair:
        begun, release = threading.Event(), threading.Event()

        def hang(sender: object, args: object) -> None:
            begun.set()
            release.wait(BOUND)

        pair.bob.message_received += hang
        manager = pair.bob.connection_manager
        operations = [pair.alice.begin_send_message(MessageType.MESSAGE, pair.bob.uri, body="x")]
        assert begun.wait(BOUND)  # from now on what waits becomes no less
        operations += [pair.alice.begin_send_message(MessageType.MESSAGE, pair.bob.uri, body="x") for _ in range(9)]
        wait_for(lambda: manager.statistics().refusals["strand_high_mark"], manager)
        queues = manager.statistics().queues
        assert queues.events == queues.deepest_strand >= 2
        assert queues.busy_strands >= 1 <= queues.workers
        release.set()
        for operation in operations:
            operation.exception(BOUND)


def test_time_outs_of_requests_count() -> None:
    with endpoint_pair(TCP) as pair:
        release = threading.Event()
        pair.bob.message_received += lambda sender, args: release.wait(BOUND)
        with pytest.raises(RealTimeException):
            pair.alice.send_message(MessageType.MESSAGE, pair.bob.uri, body="x", timeout=0.01)
        release.set()
        timeouts = pair.alice.connection_manager.statistics().timeouts
    assert {name: count for name, count in timeouts.items() if count} == {"caller": 1}


def test_a_nameserver_that_does_not_answer_counts() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        settings = ManagerSettings(resolve_timeout=0.02)
        with RealTimeServerTcpConnectionManager(settings=settings, resolver={".": [silent.getsockname()]}) as manager:
            endpoint = SipPeerToPeerEndpoint("sip:alice@example.com", manager)
            with pytest.raises(RealTimeException):
                endpoint.send_message(MessageType.OPTIONS, "sip:bob@bob.example:5060", timeout=BOUND)
            timeouts = manager.statistics().timeouts
    assert {name: count for name, count in timeouts.items() if count} == {"resolve_timeout": 1}


def test_an_address_that_does_not_answer_counts() -> None:
    with MemoryNetwork() as network, living_in(network):
        network.ignore("192.0.2.2")
        with RealTimeServerTcpConnectionManager(settings=ManagerSettings(connect_timeout=0.01)) as manager:
            endpoint = SipPeerToPeerEndpoint("sip:alice@example.com", manager)
            with pytest.raises(RealTimeException):
                endpoint.send_message(MessageType.OPTIONS, "sip:bob@192.0.2.2", timeout=BOUND)
            assert manager.statistics().timeouts["connect_timeout"] == 1


def test_every_limit_and_time_out_of_the_settings_has_a_counter() -> None:
    names = {field.name for field in dataclasses.fields(ManagerSettings)}
    never_refuse = {"maximum_workers"}
    assert {name for name in names if name.startswith("maximum_")} - never_refuse <= set(LIMITS)
    assert {name for name in names if name.endswith("_timeout")} <= set(TIMEOUTS)
    for name in (*LIMITS, *TIMEOUTS):
        assert name in names or name in ("transaction", "caller", "acknowledgement"), name


# ---------------------------------------------------------------------- the value


def test_it_cannot_be_changed_and_becomes_json() -> None:
    with RealTimeServerTcpConnectionManager() as manager:
        statistics = manager.statistics()
    with pytest.raises(dataclasses.FrozenInstanceError):
        statistics.dialogs = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        statistics.refusals["maximum_body"] = 1  # type: ignore[index]
    as_dict = json.loads(json.dumps(statistics.as_dict()))
    assert as_dict["connections"]["handshakes"] == dict.fromkeys(HANDSHAKE_RESULTS, 0)
    assert set(as_dict["connections"]["closed"]) == set(ENDINGS)
    assert as_dict["handlers"]["buckets"]["inf"] == 0
    assert "uptime" in str(statistics)


def test_each_number_has_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with RealTimeServerTcpConnectionManager() as manager:
        stack = manager._stack
        for number, name in enumerate(("clients", "servers", "retransmitted", "absorbed", "strays"), 1):
            setattr(stack.engine.counts, name, number)
        with monkeypatch.context() as instead:
            for owner, method, values in (
                (stack.network, "every_connection", [SimpleNamespace(queued=queued) for queued in (30, 5, 0)]),
                (stack.network, "pools", [SimpleNamespace(waiting=[1] * n) for n in (2, 1)]),
                (stack.dispatcher, "busy_strands", [SimpleNamespace(depth=depth) for depth in (4, 0, 7)]),
            ):
                instead.setattr(owner, method, lambda values=values: values)
            statistics = manager.statistics()
    assert statistics.transactions == TransactionStatistics(
        0, 0, 0, clients_total=1, servers_total=2, retransmitted=3, absorbed=4, strays=5
    )
    queues = statistics.queues
    assert (queues.unsent_bytes, queues.most_unsent_bytes, queues.waiting_for_connection) == (35, 30, 3)
    assert (queues.events, queues.deepest_strand, queues.busy_strands) == (11, 7, 3)
    assert statistics.connections.open == 3


def test_it_can_be_had_after_the_end_and_in_handlers() -> None:
    seen: list[ManagerStatistics] = []

    def received(sender: SipPeerToPeerEndpoint, args: MessageReceivedEventArgs) -> None:
        seen.append(sender.connection_manager.statistics())

    with endpoint_pair(TCP) as pair:
        pair.bob.message_received += received
        pair.alice.send_message(MessageType.MESSAGE, pair.bob.uri, body="x", timeout=BOUND)
        manager = pair.alice.connection_manager
        before = manager.statistics()
    after = manager.statistics()
    assert seen[0].received.requests == {"MESSAGE": 1}
    assert after.sent.requests == {"MESSAGE": 1}
    assert sum(after.connections.closed.values()) == 1
    assert after.connections.open == 0
    assert after.uptime == manager.statistics().uptime
    assert all(after_count >= counters(before)[name] for name, after_count in counters(after).items())


def test_counters_never_go_back_while_connections_and_workers_come_and_go() -> None:
    with tcp_pair() as pair:
        pair.bob.message_received += lambda sender, args: None
        manager, done = pair.bob.connection_manager, threading.Event()
        wrong: list[str] = []

        def look() -> None:
            last = counters(manager.statistics())
            while not done.is_set():
                now = counters(manager.statistics())
                wrong.extend(name for name, count in last.items() if now.get(name, -1) < count)
                last = now

        watcher = threading.Thread(target=look)
        watcher.start()
        for _ in range(20):
            pair.alice.send_message(MessageType.MESSAGE, pair.bob.uri, body="x", timeout=BOUND)
            for connection in pair.alice.connection_manager.connections():
                connection.disconnect()
        done.set()
        watcher.join(BOUND)
        statistics = manager.statistics()
    assert wrong == []
    assert statistics.received.requests == {"MESSAGE": 20}
    assert statistics.connections.opened["incoming"] >= 1


def test_what_a_stranger_invents_is_bounded() -> None:
    counts = Counts()
    manager = RealTimeServerTcpConnectionManager()
    manager._stack.network.counts = counts
    for number in range(2000):
        counts.messages_received(_parsed(f"Y{number} sip:b SIP/2.0\r\nContent-Length: 0\r\n\r\n".encode()))
    assert len(counts.received) == 1
    counts.messages_received(_parsed(b"Z" * 5000 + b" sip:b SIP/2.0\r\nContent-Length: 0\r\n\r\n"))
    assert max(len(str(kind)) for kind in counts.received) < 100
    for start_line in (b"INFO sip:b SIP/2.0", b"SIP/2.0 503 Later"):  # is told from them all the same
        counts.messages_received(_parsed(start_line + b"\r\nContent-Length: 0\r\n\r\n"))
    received = manager.statistics().received
    assert received.requests == {"INFO": 1, "other": 2001} and received.responses == {503: 1}
    manager.dispose()


def _parsed(octets: bytes) -> list[Any]:
    return StreamFramer().feed(octets)  # type: ignore[return-value]


@pytest.mark.parametrize("method", sorted(KNOWN_METHODS))
def test_methods_are_told_apart_by_their_beginning(method: str) -> None:
    assert Sent.kind(f"{method} tel:1 SIP/2.0".encode()[:7]) == method


def test_other_beginnings() -> None:
    assert [Sent.kind(beginning) for beginning in (b"200", b"FOO sip", b"INVITED", b"MESSAGX")] == [
        200,
        *["other"] * 3,
    ]


def test_methods_that_applications_think_of_are_not_kept_for_ever() -> None:
    sent = Sent()
    for number in range(3 * MOST_KINDS):
        sent[b"X%06d" % number] += 1
        sent[b"MESSAGE"] += 1
    assert len(sent) <= MOST_KINDS
    kinds = Counter[str | int]()
    for kind, count in sent.items():
        kinds[Sent.kind(kind)] += count
    assert kinds["MESSAGE"] == 3 * MOST_KINDS
    assert kinds.total() == 6 * MOST_KINDS
