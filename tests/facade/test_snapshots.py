"""What is alive in a connection manager, as an operator sees it."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
from facade_support import BOUND

from p2psip import (
    ConnectionSnapshot,
    DialogSnapshot,
    IPEndPoint,
    ManagerSnapshot,
    MessageReceivedEventArgs,
    MessageType,
    OperationFailureException,
    OperationFailureReason,
    OperationTimeoutException,
    RealTimeInvalidOperationException,
    RealTimeServerTcpConnectionManager,
    SignalingSession,
    SipPeerToPeerEndpoint,
    SipTransportType,
    StrandSnapshot,
    TransactionSnapshot,
    snapshots,
)
from p2psip.core.tables import State
from p2psip.message import Request
from p2psip.net import channel
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
            for _ in range(10_000):
                (strand,) = [each for each in manager.snapshot().strands if each.handler is not None]
                if strand.waiting == 4:
                    break
            assert strand.waiting == 4
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


def test_a_loop_that_ends_meanwhile_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with RealTimeServerTcpConnectionManager() as manager:
        manager.start_listening(("127.0.0.1", 0))
        ended: concurrent.futures.Future[ManagerSnapshot] = concurrent.futures.Future()
        ended.set_exception(OperationFailureException("Its thread has ended.", OperationFailureReason.ABORTED))
        with monkeypatch.context() as instead:
            instead.setattr(manager._stack, "call", lambda *args: ended)
            assert manager.snapshot().transactions == ()


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


def test_what_is_left_out_is_counted_by_its_kind() -> None:
    with endpoint_pair(TCP) as pair:
        pair.bob.session_received += lambda sender, args: args.session.accept()
        SignalingSession(pair.alice, pair.bob.uri).establish(timeout=BOUND)
        end = time.monotonic() + BOUND
        while pair.bob.connection_manager.snapshot().strands:  # which are told of the call
            assert time.monotonic() < end
        release, operations = busy_pair(pair)
        try:
            nothing = pair.bob.connection_manager.snapshot(maximum=0)
        finally:
            release.set()
        for operation in operations:
            operation.result(BOUND)  # type: ignore[attr-defined]
    assert (nothing.connections, nothing.transactions, nothing.dialogs, nothing.strands) == ((), (), (), ())
    assert {name: nothing.left_out[name] for name in ("connections", "dialogs", "strands")} == {
        "connections": 1,
        "dialogs": 1,
        "strands": 1,
    }
    assert nothing.left_out["transactions"] >= 1


def test_transactions_of_all_kinds_together_are_as_many_as_are_asked_for() -> None:
    with endpoint_pair(TCP) as pair:
        pair.network.ignore("192.0.2.77")
        opening = [
            pair.alice.begin_send_message(MessageType.OPTIONS, "sip:x@192.0.2.77", timeout=BOUND) for _ in range(2)
        ]
        release, operations = busy_pair(pair)
        try:
            snapshot = pair.alice.connection_manager.snapshot(maximum=3)
        finally:
            release.set()
        for operation in opening:
            operation.cancel()
        for operation in operations:
            operation.result(BOUND)  # type: ignore[attr-defined]
    assert [each.state for each in snapshot.transactions] == ["Opening", "Opening", "Trying"]
    assert snapshot.left_out["transactions"] == 2


@pytest.mark.parametrize("arguments", [{"timeout": None}, {"timeout": float("inf")}, {"timeout": -1}, {"maximum": -1}])
def test_it_never_waits_without_end(arguments: dict[str, float]) -> None:
    with RealTimeServerTcpConnectionManager() as manager, pytest.raises(ValueError):
        manager.snapshot(**arguments)  # type: ignore[arg-type]


# ---------------------------------------------------------------------- each of them


def a_connection(**changes: object) -> Any:
    """What a snapshot looks at."""
    usual: dict[str, Any] = {
        "id": 7,
        "transport": "TLS",
        "is_incoming": True,
        "host": None,
        "tls": None,
        "is_paused": True,
        "local": ("192.0.2.1", 5061),
        "remote": ("192.0.2.2", 40000),
        "phase": channel.OPEN,
        "opened_at": 90.0,
        "bytes_sent": 1,
        "bytes_received": 2,
        "messages_sent": 3,
        "messages_received": 4,
        "queued": 5,
        "unanswered": 6,
        "idle": lambda now: now - 97.0,
    }
    return SimpleNamespace(**{**usual, **changes})


def test_each_number_of_a_connection_has_its_name() -> None:
    seen = snapshots._connection(a_connection(), 100.0)
    assert (seen.age, seen.idle, seen.unsent, seen.unanswered, seen.is_paused) == (10.0, 3.0, 5, 6, True)
    assert (seen.bytes_sent, seen.bytes_received, seen.messages_sent, seen.messages_received) == (1, 2, 3, 4)
    assert str(seen) == (
        "7: TLS from 192.0.2.2:40000, open (not read), 10 s old, idle 3 s, sent 3 (1 bytes), received 4 (2 bytes), "
        "5 bytes unsent, 6 unanswered"
    )


@pytest.mark.parametrize(
    ("phase", "state"),
    [
        (channel.HANDSHAKE, "handshake"),
        (channel.AUTHORIZATION, "waiting for authorization"),
        (channel.OPEN, "open"),
        (channel.DEAF, "answering the last requests"),
        *((phase, "closing") for phase in (channel.FLUSHING, channel.FINISHING, channel.LINGERING, channel.CLOSED)),
    ],
)
def test_states_of_connections(phase: int, state: str) -> None:
    assert snapshots._connection(a_connection(phase=phase), 100.0).state == state


@pytest.mark.parametrize(("is_early", "state"), [(True, "early"), (False, "confirmed")])
def test_states_of_dialogs(is_early: bool, state: str) -> None:
    dialog: Any = SimpleNamespace(
        key=("call", "ours", None),
        usages=(),
        is_early=is_early,
        began_at=1.0,
        record=SimpleNamespace(owner="sip:a"),
        flow=None,
    )
    seen = snapshots._dialog(dialog, 3.0)
    assert (seen.state, seen.age, seen.owner, seen.peer) == (state, 2.0, "sip:a", None)


def test_a_transaction_of_an_element_of_rfc_2543_has_no_branch() -> None:
    request = Request("OPTIONS", "sip:b@b.example", [("Via", "not one"), ("Call-ID", "call")])
    transaction: Any = SimpleNamespace(
        request=request, flow=SimpleNamespace(remote=("192.0.2.2", 5060)), state=State.TRYING, began_at=1.0
    )
    seen = snapshots._transaction(transaction, 3.0)
    assert (seen.branch, seen.call_id, seen.is_client, seen.age) == (None, "call", False, 2.0)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(-1, "0 s"), (0.214, "0.21 s"), (43.4, "43 s"), (100, "0:01:40 h"), (7509, "2:05:09 h")],
)
def test_how_long_it_lasts(seconds: float, shown: str) -> None:
    assert snapshots._time(seconds) == shown


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
