"""What is alive in a connection manager, as an operator sees it."""

from __future__ import annotations

import dataclasses
import json
import threading

import pytest
from facade_support import BOUND

from p2psip import (
    ConnectionSnapshot,
    DialogSnapshot,
    IPEndPoint,
    ManagerSnapshot,
    MessageReceivedEventArgs,
    MessageType,
    OperationTimeoutException,
    RealTimeInvalidOperationException,
    RealTimeServerTcpConnectionManager,
    SignalingSession,
    SipPeerToPeerEndpoint,
    SipTransportType,
    StrandSnapshot,
    TransactionSnapshot,
)
from p2psip.testing import EndpointPair, endpoint_pair

TCP = SipTransportType.TCP


def busy_pair(pair: EndpointPair, requests: int = 3) -> tuple[threading.Event, list[object]]:
    """Bob's handler holds the first of some requests until the event is set."""
    release, begun = threading.Event(), threading.Event()

    def slow_handler(sender: object, args: object) -> None:
        begun.set()
        release.wait(BOUND)

    pair.bob.message_received += slow_handler
    operations: list[object] = [
        pair.alice.begin_send_message(MessageType.MESSAGE, pair.bob.uri, body=str(n), timeout=BOUND)
        for n in range(requests)
    ]
    assert begun.wait(BOUND)
    return release, operations


def test_what_is_alive_is_seen_from_both_sides() -> None:
    with endpoint_pair() as pair:
        release, operations = busy_pair(pair)
        try:
            ours, theirs = (each.connection_manager.snapshot() for each in (pair.alice, pair.bob))
        finally:
            release.set()
        for operation in operations:
            operation.result(BOUND)  # type: ignore[attr-defined]
    (one,), (two,) = ours.connections, theirs.connections
    assert (one.is_incoming, two.is_incoming) == (False, True)
    assert (one.local, one.peer) == (two.peer, two.local)
    assert (one.state, one.transport, one.tls_version) == ("open", "TLS", "TLSv1.3")
    assert two.identities and one.host == "bob.example"
    assert one.bytes_sent >= two.bytes_received > 0 and one.messages_sent == 3
    assert one.unanswered == 3 and 0 <= one.idle <= one.age < BOUND
    assert [(each.is_client, each.method, each.state) for each in ours.transactions] == [
        (True, "MESSAGE", "Trying")
    ] * 3
    assert {each.branch for each in theirs.transactions} <= {each.branch for each in ours.transactions}
    assert all(each.peer == one.peer for each in ours.transactions)
    (strand,) = [each for each in theirs.strands if each.handler is not None]
    assert "slow_handler" in (strand.handler or "")
    assert strand.name == "endpoint sip:bob@bob.example"
    assert strand.running_for is not None and 0 <= strand.running_for < BOUND
    assert theirs.listeners[0].address == two.local
    assert theirs.listeners[0].transport == "TLS"


def test_what_waits_in_a_strand_is_counted() -> None:
    with endpoint_pair(TCP) as pair:
        release, operations = busy_pair(pair, 5)
        manager = pair.bob.connection_manager
        try:
            while True:
                (strand,) = [each for each in manager.snapshot().strands if each.handler is not None]
                if strand.waiting == 4:
                    break
        finally:
            release.set()
        for operation in operations:
            operation.result(BOUND)  # type: ignore[attr-defined]


def test_dialogs_are_named_by_what_lives_in_them() -> None:
    with endpoint_pair(TCP) as pair:
        pair.bob.session_received += lambda sender, args: args.session.accept()
        call = SignalingSession(pair.alice, pair.bob.uri)
        call.establish(timeout=BOUND)
        (dialog,) = pair.alice.connection_manager.snapshot().dialogs
        (other,) = pair.bob.connection_manager.snapshot().dialogs
    assert dialog.call_id == other.call_id == call.call_id
    assert (dialog.local_tag, dialog.remote_tag) == (other.remote_tag, other.local_tag)
    assert (dialog.usages, dialog.state, dialog.owner) == (
        ("session (connected)",),
        "confirmed",
        "sip:alice@alice.example",
    )
    assert dialog.peer is not None and 0 <= dialog.age < BOUND


def test_a_request_without_a_connection_is_opening() -> None:
    with endpoint_pair(TCP) as pair:
        pair.network.ignore("192.0.2.77")
        pair.network.hosts["nobody.example"] = ["192.0.2.77"]
        operation = pair.alice.begin_send_message(MessageType.OPTIONS, "sip:x@nobody.example", timeout=BOUND)
        manager = pair.alice.connection_manager
        (request,) = manager.snapshot().transactions
        assert (request.method, request.state, request.peer) == ("OPTIONS", "Opening", None)
        assert manager.statistics().transactions.opening == 1
        operation.cancel()


def test_a_handler_may_take_one() -> None:
    seen: list[ManagerSnapshot] = []

    def received(sender: SipPeerToPeerEndpoint, args: MessageReceivedEventArgs) -> None:
        seen.append(sender.connection_manager.snapshot())

    with endpoint_pair(TCP) as pair:
        pair.bob.message_received += received
        pair.alice.send_message(MessageType.MESSAGE, pair.bob.uri, body="x", timeout=BOUND)
    assert [each.method for each in seen[0].transactions] == ["MESSAGE"]
    assert "received" in (seen[0].strands[0].handler or "")


def test_before_the_beginning_and_after_the_end_it_is_empty() -> None:
    manager = RealTimeServerTcpConnectionManager()
    before = manager.snapshot()
    assert not manager._stack._started  # no thread is started for it
    manager.dispose()
    for snapshot in (before, manager.snapshot()):
        assert (snapshot.connections, snapshot.transactions, snapshot.strands, snapshot.listeners) == ((), (), (), ())
    with endpoint_pair(TCP) as pair:
        pair.alice.send_message(MessageType.OPTIONS, pair.bob.uri, timeout=BOUND)
    assert pair.alice.connection_manager.snapshot().connections == ()


def test_a_loop_that_stands_still_is_not_waited_for() -> None:
    with endpoint_pair(TCP) as pair:
        manager, release, held = pair.bob.connection_manager, threading.Event(), threading.Event()

        def hold() -> None:
            held.set()
            release.wait(BOUND)

        manager._stack.post(hold)
        assert held.wait(BOUND)
        with pytest.raises(OperationTimeoutException, match="busy"):
            manager.snapshot(0.01)
        assert manager.statistics().queues.inbox >= 0  # which needs nobody
        release.set()


def test_on_the_loop_thread_it_raises() -> None:
    with endpoint_pair(TCP) as pair:
        manager = pair.bob.connection_manager
        operation = manager._stack.call("a snapshot of its own", manager.snapshot)
        with pytest.raises(RealTimeInvalidOperationException):
            operation.result(BOUND)


def test_of_each_kind_come_as_many_as_are_asked_for() -> None:
    with endpoint_pair(TCP) as pair:
        release, operations = busy_pair(pair, 5)
        try:
            snapshot = pair.alice.connection_manager.snapshot(maximum=2)
        finally:
            release.set()
        for operation in operations:
            operation.result(BOUND)  # type: ignore[attr-defined]
    assert len(snapshot.transactions) == 2
    assert snapshot.left_out["transactions"] == 3
    assert "and 3 more" in str(snapshot)


@pytest.mark.parametrize("arguments", [{"timeout": None}, {"timeout": float("inf")}, {"timeout": -1}, {"maximum": -1}])
def test_it_never_waits_without_end(arguments: dict[str, float]) -> None:
    with RealTimeServerTcpConnectionManager() as manager, pytest.raises(ValueError):
        manager.snapshot(**arguments)  # type: ignore[arg-type]


# ---------------------------------------------------------------------- what people read


HOSTILE = "x\r\n  1: TLS from 192.0.2.1 \x1b[31m\u202e"


def test_it_can_be_read_and_becomes_json() -> None:
    with endpoint_pair() as pair:
        release, operations = busy_pair(pair)
        snapshot = pair.bob.connection_manager.snapshot()
        release.set()
        for operation in operations:
            operation.result(BOUND)  # type: ignore[attr-defined]
    text = str(snapshot)
    for part in (
        "listeners: 1\n",
        "connections: 1\n",
        "TLSv1.3 from",
        "transactions: ",
        "MESSAGE of",
        "slow_handler for",
    ):
        assert part in text
    assert json.loads(json.dumps(snapshot.as_dict()))["connections"][0]["state"] == "open"
    with pytest.raises(dataclasses.FrozenInstanceError):
        snapshot.name = "x"  # type: ignore[misc]


def test_a_peer_cannot_forge_a_line_of_it() -> None:
    here = IPEndPoint("192.0.2.1", 5060)
    for entry in (
        TransactionSnapshot(False, HOSTILE, here, "Trying", 1.0, HOSTILE, HOSTILE),
        DialogSnapshot(HOSTILE, HOSTILE, None, ("session",), "early", 10_000.0, HOSTILE, None),
        StrandSnapshot(HOSTILE, 1, HOSTILE, 200.0),
        ConnectionSnapshot(1, "TLS", True, here, here, None, "open", 1, 1, 0, 0, 0, 0, 1, 1, True, (HOSTILE,), None),
    ):
        assert str(entry).isprintable()


def test_no_secret_is_in_it() -> None:
    with endpoint_pair() as pair:
        release, begun = threading.Event(), threading.Event()
        pair.bob.message_received += lambda sender, args: (begun.set(), release.wait(BOUND))
        operation = pair.alice.begin_send_message(
            MessageType.MESSAGE,
            pair.bob.uri,
            body="hunter2",
            headers=[("Authorization", 'Digest response="hunter2"')],
            timeout=BOUND,
        )
        assert begun.wait(BOUND)
        for each in (pair.alice, pair.bob):
            snapshot = each.connection_manager.snapshot()
            assert "hunter2" not in str(snapshot) + repr(snapshot) + json.dumps(snapshot.as_dict())
        release.set()
        operation.result(BOUND)
