"""Transfers: blind and attended, told about and not, refused and failed; each in a few lines of an application."""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from facade_support import BOUND

import p2psip
from p2psip import (
    ContentDescription,
    FailureResponseException,
    OperationFailureException,
    OperationTimeoutException,
    ReferState,
    SignalingSession,
    SignalingState,
    SipPeerToPeerEndpoint,
)
from p2psip.core.events import ReferProgress
from p2psip.referral import ReferStatus
from p2psip.sync import Operation
from p2psip.testing import CertificateAuthority, MemoryNetwork, endpoint_pair, living_in, tls_manager

AUTHORITY = CertificateAuthority()
SDP = ContentDescription("application/sdp", "v=0\r\n")


class Three:
    """Alice has called Bob, who follows transfers; Carol takes calls."""

    def __init__(self, pair: Any, carol: SipPeerToPeerEndpoint) -> None:
        self.alice, self.bob, self.carol = pair.alice, pair.bob, carol
        self.calls: concurrent.futures.Future[SignalingSession] = concurrent.futures.Future()
        self.carols: list[SignalingSession] = []
        self.bob.session_received += self.bob_is_called
        self.carol.session_received += self.carol_is_called
        self.follow = True
        self.followed: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def bob_is_called(self, sender: object, args: p2psip.SessionReceivedEventArgs) -> None:
        args.session.refer_received += self.refer_received
        args.session.accept(SDP)
        self.calls.set_result(args.session)

    def refer_received(self, sender: object, args: p2psip.ReferReceivedEventArgs) -> None:
        if self.follow:
            try:
                self.followed.set_result(args.follow(SDP))
            except p2psip.RealTimeException as error:
                self.followed.set_exception(error)

    def carol_is_called(self, sender: object, args: p2psip.SessionReceivedEventArgs) -> None:
        replaced = args.session.replaced_session
        self.carols.append(args.session)
        args.session.accept(SDP)
        if replaced is not None:
            replaced.terminate()

    def call(self, endpoint: SipPeerToPeerEndpoint) -> SignalingSession:
        session = SignalingSession(self.alice, endpoint.uri)
        session.establish(SDP)
        return session


@pytest.fixture
def three() -> Iterator[Three]:
    with contextlib.ExitStack() as end:
        network = end.enter_context(MemoryNetwork())
        pair = end.enter_context(endpoint_pair(authority=AUTHORITY, network=network))
        network.hosts["carol.example"] = ["192.0.2.3"]
        with living_in(network.machine("192.0.2.3")):
            manager = end.enter_context(tls_manager(AUTHORITY, "carol.example"))
        manager.start_listening(p2psip.IPEndPoint(p2psip.IPAddress.ANY, 0))
        yield Three(pair, SipPeerToPeerEndpoint("sip:carol@carol.example", manager))


def test_a_blind_transfer(three: Three) -> None:
    session = three.call(three.bob)
    session.transfer(three.carol.uri)
    call = three.followed.result(BOUND)
    assert call.state is SignalingState.CONNECTED
    assert session.is_terminated
    assert three.calls.result(BOUND).remote_participant.uri.startswith("sip:alice@")
    call.terminate()


def test_an_attended_transfer(three: Three) -> None:
    session, consultation = three.call(three.bob), three.call(three.carol)
    session.transfer(consultation)
    call = three.followed.result(BOUND)
    assert call.state is SignalingState.CONNECTED
    assert session.is_terminated
    assert consultation.is_terminated
    first, second = three.carols
    assert second.replaced_session is first
    call.terminate()


def test_the_progress_is_told(three: Three) -> None:
    session = three.call(three.bob)
    states: list[ReferState] = []
    status = session.refer(three.carol.uri)
    status.state_changed += lambda sender, args: states.append(args.state)
    assert status.over.result(BOUND) is ReferState.SUCCEEDED
    assert not status.is_subscription_active
    three.followed.result(BOUND).terminate()
    session.terminate()


def test_nothing_is_told_where_nobody_wants_to_know(three: Three) -> None:
    session = three.call(three.bob)
    status = session.refer(three.carol.uri, subscribe=False)
    assert status.over.result(BOUND) is ReferState.REFER_ACCEPTED
    three.followed.result(BOUND).terminate()
    session.terminate()


def test_a_refused_transfer_leaves_the_call_up(three: Three) -> None:
    three.follow = False
    session = three.call(three.bob)
    with pytest.raises(FailureResponseException) as failure:
        session.transfer(three.carol.uri)
    assert failure.value.response_data.response_code == 603
    assert session.state is SignalingState.CONNECTED
    session.terminate()


def test_a_transfer_to_somebody_who_is_busy_fails(three: Three) -> None:
    three.carol.session_received -= three.carol_is_called
    three.carol.session_received += lambda sender, args: args.session.terminate_with_rejection(486)
    session = three.call(three.bob)
    with pytest.raises(OperationFailureException, match="486 Busy Here"):
        session.transfer(three.carol.uri)
    assert session.state is SignalingState.CONNECTED
    with pytest.raises(FailureResponseException):
        three.followed.result(BOUND)
    session.terminate()


def test_a_transfer_that_takes_too_long_is_given_up(three: Three) -> None:
    """Nobody tells how the call goes. The session is left as it is."""
    three.follow = False
    session = three.call(three.bob)
    taken: concurrent.futures.Future[p2psip.ReferNotifier] = concurrent.futures.Future()
    three.calls.result(BOUND).refer_received += lambda sender, args: taken.set_result(args.accept())
    with pytest.raises(OperationTimeoutException, match=r"not over after 0.2 s"):
        session.transfer(three.carol.uri, timeout=0.2)
    assert session.state is SignalingState.CONNECTED
    taken.result(BOUND).set_state(200)  # too late to end the session
    session.renegotiate(SDP)  # a round trip later
    assert session.state is SignalingState.CONNECTED
    session.terminate()


def test_a_refer_that_nobody_answers_in_time(three: Three) -> None:
    session = three.call(three.bob)
    asked, answer = threading.Event(), threading.Event()

    def wait(sender: object, args: p2psip.ReferReceivedEventArgs) -> None:
        asked.set()
        answer.wait(BOUND)

    three.follow = False
    three.calls.result(BOUND).refer_received += wait
    operation = session.begin_refer(three.carol.uri, timeout=0.2)
    try:
        assert asked.wait(BOUND)
        with pytest.raises(OperationTimeoutException, match="REFER"):
            operation.result(BOUND)
    finally:
        answer.set()
    assert session.state is SignalingState.CONNECTED


@pytest.mark.parametrize("in_session", [True, False])
def test_a_refer_with_a_body(three: Three, in_session: bool) -> None:
    asked: concurrent.futures.Future[p2psip.SipRequestData] = concurrent.futures.Future()

    def received(sender: object, args: p2psip.ReferReceivedEventArgs) -> None:
        asked.set_result(args.request_data)
        for code in (408, 200, 700):
            with pytest.raises(ValueError, match=str(code)):
                args.decline(code)
        args.accept()

    three.follow = False
    three.bob.refer_received += received
    if in_session:
        session = three.call(three.bob)
        three.calls.result(BOUND).refer_received += received
        session.refer(three.carol.uri, content_type="text/plain", body="why")
    else:
        three.alice.refer(three.bob.uri, three.carol.uri, content_type="text/plain", body="why")
    assert (asked.result(BOUND).content_type, asked.result(BOUND).body) == ("text/plain", b"why")


def test_a_call_that_is_not_up_cannot_be_transferred(three: Three) -> None:
    session = three.call(three.bob)
    session.terminate()
    with pytest.raises((OperationFailureException, p2psip.RealTimeInvalidOperationException)):
        session.transfer(three.carol.uri)


# ------------------------------------------------------------------ outside of any session


def test_somebody_is_asked_without_a_session(three: Three) -> None:
    three.bob.refer_received += three.refer_received
    states: list[ReferState] = []
    status = three.alice.refer(three.bob.uri, three.carol.uri, [("X-Why", "because")])
    status.state_changed += lambda sender, args: states.append(args.state)
    assert status.over.result(BOUND) is ReferState.SUCCEEDED
    assert status.session is None
    assert not status.is_subscription_active
    call = three.followed.result(BOUND)
    assert call.state is SignalingState.CONNECTED
    assert three.carols[0].remote_participant.uri.startswith("sip:bob@")
    call.terminate()
    assert_nothing_left(three)


def test_asked_without_a_session_to_take_over_a_call(three: Three) -> None:
    consultation = three.call(three.carol)
    three.bob.refer_received += three.refer_received
    status = three.alice.refer(three.bob.uri, three.carol.uri, replaces=consultation)
    assert status.over.result(BOUND) is ReferState.SUCCEEDED
    first, second = three.carols
    assert second.replaced_session is first
    consultation.terminate()
    three.followed.result(BOUND).terminate()


def test_the_progress_is_told_by_hand(three: Three) -> None:
    taken: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def received(sender: object, args: p2psip.ReferReceivedEventArgs) -> None:
        assert args.session is None
        assert args.endpoint is three.bob
        assert args.method == "INVITE"
        assert args.replaces is None
        assert args.referred_by == "<sip:alice@alice.example>"
        assert args.request_data.header("X-Why") == "because"
        taken.set_result(args.accept())

    three.bob.refer_received += received
    status = three.alice.refer(three.bob.uri, "sip:nobody@carol.example", [("X-Why", "because")])
    notifier = taken.result(BOUND)
    with status.state_changed.expect(BOUND, lambda args: args.state is ReferState.ALERTED) as got:
        notifier.set_state(183, "Slowly")
    assert (got.args.notify_status_code, got.args.notify_status_text) == (183, "Slowly")
    notifier.set_state(ReferState.REDIRECTED)
    assert status.over.result(BOUND) is ReferState.REDIRECTED
    with pytest.raises(ValueError, match="cannot be told"):
        notifier.set_state(ReferState.REFER_ACCEPTED)
    assert_nothing_left(three)


def test_nothing_is_told_outside_of_sessions_either(three: Three) -> None:
    three.bob.refer_received += three.refer_received
    status = three.alice.refer(three.bob.uri, three.carol.uri, subscribe=False)
    assert status.over.result(BOUND) is ReferState.REFER_ACCEPTED
    three.followed.result(BOUND).terminate()
    assert_nothing_left(three)


def test_hearing_no_more_of_it(three: Three) -> None:
    three.bob.refer_received += lambda sender, args: args.accept()
    status = three.alice.refer(three.bob.uri, three.carol.uri)
    status.terminate_subscription()
    assert status.over.result(BOUND) in (ReferState.REFER_ACCEPTED, ReferState.TRYING)
    assert not status.is_subscription_active


@pytest.mark.parametrize("handled", [False, True])
def test_a_refusal(three: Three, handled: bool) -> None:
    if handled:
        three.bob.refer_received += lambda sender, args: args.decline(488)
    with pytest.raises(FailureResponseException) as failure:
        three.alice.refer(three.bob.uri, three.carol.uri)
    assert failure.value.response_data.response_code == (488 if handled else 603)
    assert_nothing_left(three)


@pytest.mark.parametrize(("who", "in_session"), [("alice", False), ("bob", False), ("alice", True)])
def test_the_end_of_an_endpoint_ends_what_is_told(three: Three, who: str, in_session: bool) -> None:
    three.follow = False
    accepting = lambda sender, args: args.accept()  # noqa: E731
    three.bob.refer_received += accepting
    if in_session:
        session = three.call(three.bob)
        three.calls.result(BOUND).refer_received += accepting
        status = session.refer(three.carol.uri)
        three.calls.result(BOUND)
    else:
        status = three.alice.refer(three.bob.uri, three.carol.uri)
    (three.alice if who == "alice" else three.bob).terminate()
    assert status.over.result(BOUND) in (ReferState.REFER_ACCEPTED, ReferState.TRYING, ReferState.FAILED)
    assert not status.is_subscription_active


@pytest.mark.parametrize("in_session", [False, True])
def test_the_end_of_a_manager_leaves_nobody_waiting(three: Three, in_session: bool) -> None:
    three.follow = False
    accepting = lambda sender, args: args.accept()  # noqa: E731
    three.bob.refer_received += accepting
    if in_session:
        session = three.call(three.bob)
        three.calls.result(BOUND).refer_received += accepting
        status = session.refer(three.carol.uri)
    else:
        status = three.alice.refer(three.bob.uri, three.carol.uri)
    three.alice.connection_manager.dispose()
    assert status.over.result(BOUND) in (ReferState.REFER_ACCEPTED, ReferState.TRYING)


def test_only_calls_are_followed(three: Three) -> None:
    failures: list[Exception] = []

    def received(sender: object, args: p2psip.ReferReceivedEventArgs) -> None:
        try:
            args.follow(SDP)
        except ValueError as error:
            failures.append(error)

    three.bob.refer_received += received
    for target in (f"{three.carol.uri};method=BYE", "tel:+358-555-1234567"):
        with pytest.raises(FailureResponseException) as failure:
            three.alice.refer(three.bob.uri, target)
        assert failure.value.response_data.response_code == 488
    assert len(failures) == 2


def test_a_terminated_endpoint_asks_nobody(three: Three) -> None:
    three.alice.terminate()
    with pytest.raises(OperationFailureException):
        three.alice.refer(three.bob.uri, three.carol.uri)


def assert_nothing_left(three: Three) -> None:
    """Neither endpoint holds anything of it once their loops have come round."""
    for endpoint in (three.alice, three.bob):
        for _ in range(200):
            if not endpoint._stack.call("look", lambda endpoint=endpoint: len(endpoint._sessions)).result(BOUND):
                break
        assert not endpoint._sessions


def test_the_last_state_counts_also_when_it_comes_while_the_answer_is_told() -> None:
    calls: list[Any] = []
    stack = SimpleNamespace(dispatcher=SimpleNamespace(submit=lambda function: function()))
    endpoint = SimpleNamespace(_stack=stack, _release=print, _manager=SimpleNamespace(_report_unhandled=print))
    strand = SimpleNamespace(post=lambda *args: None)
    host: Any = SimpleNamespace(_endpoint=endpoint, _name="a transfer", _strand=strand, _engine_call=calls.append)
    core: Any = SimpleNamespace(is_active=False)  # the loop's thread has the last NOTIFY, and is about to tell it
    status = ReferStatus(host, lambda status: core)
    answered: Operation[None] = Operation("REFER", callbacks=stack.dispatcher.submit)
    answered.complete(None)
    status._answered(answered)
    request: Any = None
    status._happened(ReferProgress(request, 503, "Service Unavailable", b"", is_over=True))
    for call in calls:
        call(0.0)
    assert status.over.result(0) is ReferState.FAILED


@pytest.mark.parametrize(
    ("told", "status", "end"),
    [
        (ReferState.SUCCEEDED, 200, ReferState.SUCCEEDED),
        (ReferState.FAILED, 503, ReferState.FAILED),
        (ReferState.REDIRECTED, 302, ReferState.REDIRECTED),
        (486, 486, ReferState.FAILED),
    ],
)
def test_the_application_tells_how_it_goes(three: Three, told: ReferState | int, status: int, end: ReferState) -> None:
    session = three.call(three.bob)
    lines: list[bytes] = []

    def trace(sender: object, args: p2psip.TraceEventArgs) -> None:
        if args.data.startswith(b"NOTIFY"):
            lines.append(args.data.rpartition(b"\r\n\r\n")[2])

    def accept(sender: object, args: p2psip.ReferReceivedEventArgs) -> None:
        notifier = args.accept()
        notifier.set_state(ReferState.ALERTED)
        notifier.set_state(told)
        assert notifier.state is end
        with pytest.raises(ValueError, match="cannot be told"):
            notifier.set_state(ReferState.REFER_REJECTED)

    theirs = three.calls.result(BOUND)
    theirs.refer_received -= three.refer_received
    theirs.refer_received += accept
    three.alice.connection_manager.trace += trace
    assert session.refer(three.carol.uri).over.result(BOUND) is end
    session.terminate()
    three.alice.connection_manager.dispose()  # the last trace events have run
    assert [line.split()[1] for line in lines] == [b"100", b"180", str(status).encode()]
