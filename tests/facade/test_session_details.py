"""Sessions as applications see them: what is rarer than a call, its change and its end."""

from __future__ import annotations

import concurrent.futures
import contextlib
import gc
import time
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from facade_support import BOUND

import p2psip
from p2psip import (
    ContentDescription,
    FailureResponseException,
    MessageType,
    OperationFailureException,
    RealTimeInvalidOperationException,
    RouteSetStatus,
    SessionReceivedEventArgs,
    SignalingSession,
    SignalingSessionSettings,
    SignalingState,
    SignalingTransitionReason,
)
from p2psip.message import Request, parse_message
from p2psip.testing import CertificateAuthority, EndpointPair, endpoint_pair

AUTHORITY = CertificateAuthority()
OFFER = ContentDescription("application/sdp", "v=0\r\no=alice\r\n")
ANSWER = ContentDescription("application/sdp", "v=0\r\no=bob\r\n")
HOLD = ContentDescription("application/sdp", "v=0\r\no=alice\r\na=sendonly\r\n")


@pytest.fixture
def pair() -> Iterator[EndpointPair]:
    with endpoint_pair(authority=AUTHORITY) as found:
        yield found


def up(pair: EndpointPair, answer: Any = ANSWER) -> tuple[SignalingSession, SignalingSession]:
    """A call that is up, on both sides."""
    with pair.bob.session_received.expect(BOUND) as got:
        session = SignalingSession(pair.alice, pair.bob.uri)
        operation = session.begin_establish(OFFER)
    got.args.session.accept(answer)
    operation.result(BOUND)
    return session, got.args.session


def test_who_listens_in_session_received_misses_nothing(pair: EndpointPair) -> None:
    """Not even what had happened by the time that the handler ran."""
    heard: list[object] = []
    ended: concurrent.futures.Future[object] = concurrent.futures.Future()

    def received(sender: object, args: SessionReceivedEventArgs) -> None:
        caller.terminate()
        pair.bob.connection_manager._stack.call("what was to be told", bool).result(BOUND)
        assert args.session.is_terminated
        args.session.terminated_by_remote += lambda sender, args: heard.append(args.request_data.message_type)
        args.session.state_changed += lambda sender, args: ended.set_result(args.state)

    pair.bob.session_received += received
    caller = SignalingSession(pair.alice, pair.bob.uri)
    caller.begin_establish(OFFER)
    assert ended.result(BOUND) is SignalingState.DISCONNECTED
    assert len(heard) == 1


@pytest.mark.parametrize("who", [0, 1], ids=["the caller", "the callee"])
def test_a_call_that_is_over_is_let_go_on_both_sides(pair: EndpointPair, who: int) -> None:
    """At once: the transactions of its INVITE wait for copies for half a minute, but not with the session."""
    sessions = list(up(pair))
    seen = [weakref.ref(session) for session in sessions]
    with sessions[1 - who].state_changed.expect(BOUND):
        sessions[who].terminate()
    sessions.clear()
    deadline = time.monotonic() + 5.0
    while any(reference() for reference in seen) and time.monotonic() < deadline:
        gc.collect()  # until the workers have returned from its handlers
    assert [reference() for reference in seen] == [None, None]


def test_a_call_that_replaces_another(pair: EndpointPair) -> None:
    old, bobs_old = up(pair)

    def take(sender: object, args: SessionReceivedEventArgs) -> None:
        replaced.append(args.session.replaced_session)
        args.session.accept(ANSWER)
        assert args.session.replaced_session is not None
        args.session.replaced_session.terminate()

    replaced: list[Any] = []
    pair.bob.session_received += take
    new = SignalingSession(pair.alice, pair.bob.uri)
    with old.terminated_by_remote.expect(BOUND):
        new.establish(OFFER, replaces=old)
    assert replaced == [bobs_old]
    assert new.state is SignalingState.CONNECTED
    new.terminate()
    with pytest.raises(RealTimeInvalidOperationException, match="not up"):
        SignalingSession(pair.alice, pair.bob.uri).begin_establish(OFFER, replaces=old)


def test_a_call_that_replaces_nothing(pair: EndpointPair) -> None:
    pair.bob.session_received += lambda sender, args: args.session.accept(ANSWER)
    with pytest.raises(FailureResponseException) as failure:
        SignalingSession(pair.alice, pair.bob.uri).establish(OFFER, replaces="nobody@there;to-tag=1;from-tag=2")
    assert failure.value.response_data.response_code == 481


def test_who_calls(pair: EndpointPair) -> None:
    settings = SignalingSessionSettings(local_identity=("sip:desk@alice.example", "Front desk"))
    with pair.bob.session_received.expect(BOUND) as got:
        session = SignalingSession(pair.alice, pair.bob.uri, settings=settings)
        operation = session.begin_establish(OFFER)
    peer = got.args.session.remote_participant
    assert (peer.uri, peer.name) == ("sip:desk@alice.example", "Front desk")
    got.args.session.terminate_with_rejection(404)
    assert isinstance(operation.exception(BOUND), FailureResponseException)


def test_an_ack_that_comes_later(pair: EndpointPair) -> None:
    waiting: concurrent.futures.Future[p2psip.InvitationAcceptedEventArgs] = concurrent.futures.Future()

    def accepted(sender: object, args: p2psip.InvitationAcceptedEventArgs) -> None:
        args.delay_ack = True
        waiting.set_result(args)

    with pair.bob.session_received.expect(BOUND) as got:
        session = SignalingSession(pair.alice, pair.bob.uri)
        session.invitation_accepted += accepted
        operation = session.begin_establish(OFFER)
    taken = got.args.session.begin_accept(ANSWER)
    args = waiting.result(BOUND)
    assert not operation.done() and not taken.done()
    assert (args.response_data.response_code, args.is_null_original_offer) == (200, False)
    args.send_acknowledgement([("X-Late", "1")])
    assert taken.result(BOUND).header("X-Late") == "1"
    assert operation.result(BOUND).response_code == 200
    with pytest.raises(RealTimeInvalidOperationException, match="already"):
        args.send_acknowledgement()
    session.terminate()


def test_a_handler_of_the_invitation_may_wait_for_the_call(pair: EndpointPair) -> None:
    """The negotiation is not held up by handlers: the answer goes out while one of them waits for the call."""
    pair.bob.session_received += lambda sender, args: args.session.accept(OFFER)
    session = SignalingSession(pair.alice, pair.bob.uri)
    operations: list[p2psip.Operation[p2psip.SipResponseData]] = []
    codes: concurrent.futures.Future[int] = concurrent.futures.Future()

    def handler(sender: object, args: p2psip.InvitationAcceptedEventArgs) -> None:
        assert args.is_null_original_offer
        with pytest.raises(RealTimeInvalidOperationException, match="negotiation"):
            args.send_acknowledgement()
        codes.set_result(operations[0].result(BOUND).response_code)

    session.invitation_accepted += handler
    with session.state_changed.expect(BOUND, lambda args: args.state is SignalingState.CONNECTED):
        operations.append(session.begin_establish(answer=ANSWER))
    assert codes.result(BOUND) == 200
    session.terminate()


def test_an_answer_that_cannot_be_made_ends_the_call(pair: EndpointPair) -> None:
    pair.bob.session_received += lambda sender, args: args.session.accept(OFFER)
    session = SignalingSession(pair.alice, pair.bob.uri)

    def broken(offer: object) -> ContentDescription:
        raise LookupError("no codec")

    with (
        session.state_changed.expect(BOUND, lambda args: args.state is SignalingState.DISCONNECTED),
        pair.alice.connection_manager.unhandled_exception.expect(BOUND) as reported,
    ):
        operation = session.begin_establish(answer=broken)
    assert isinstance(reported.args.exception, LookupError)
    operation.exception(BOUND)


def test_an_answer_to_a_change_that_cannot_be_made_refuses_it(pair: EndpointPair) -> None:
    offers: list[object] = []

    def broken(offer: object) -> ContentDescription:
        offers.append(offer)
        if len(offers) > 1:
            raise LookupError("no codec")
        return ANSWER

    session, other = up(pair, broken)
    with (
        pair.bob.connection_manager.unhandled_exception.expect(BOUND),
        pytest.raises(FailureResponseException) as failure,
    ):
        session.renegotiate(HOLD)
    assert failure.value.response_data.response_code == 488
    assert other.state is session.state is SignalingState.CONNECTED
    session.terminate()


class Undecided:
    """A negotiation that keeps the peer waiting."""

    def __init__(self) -> None:
        self.waiting: concurrent.futures.Future[p2psip.OfferInReInviteEventArgs] = concurrent.futures.Future()

    def get_offer(self, session: SignalingSession) -> ContentDescription | None:
        return ANSWER

    def get_answer(self, session: SignalingSession, offer: ContentDescription) -> ContentDescription | None:
        return ANSWER

    def set_answer(self, session: SignalingSession, answer: ContentDescription) -> None:
        raise AssertionError("nothing was offered")

    def handle_offer_in_invite_response(
        self, session: SignalingSession, args: p2psip.OfferInInviteResponseEventArgs
    ) -> None:
        raise AssertionError("nothing was called")

    def handle_offer_in_reinvite(self, session: SignalingSession, args: p2psip.OfferInReInviteEventArgs) -> None:
        self.waiting.set_result(args)


def test_a_change_that_is_taken_back(pair: EndpointPair) -> None:
    session, other = up(pair)
    assert not session.try_cancel_renegotiation()
    negotiation = Undecided()
    other.offer_answer_negotiation = negotiation
    operation = session.begin_renegotiate(HOLD)
    args = negotiation.waiting.result(BOUND)
    assert args.session is other and args.offer == HOLD and args.request_data.message_type == "INVITE"
    with args.cancelled.expect(BOUND):
        assert session.try_cancel_renegotiation()
    assert args.is_cancelled
    with pytest.raises(FailureResponseException) as failure:
        operation.result(BOUND)
    assert failure.value.response_data.response_code == 487
    with pytest.raises(RealTimeInvalidOperationException, match="taken back"):
        args.accept()
    assert session.state is other.state is SignalingState.CONNECTED
    session.terminate()


def test_a_change_that_is_decided_later(pair: EndpointPair) -> None:
    session, other = up(pair)
    negotiation = Undecided()
    other.offer_answer_negotiation = negotiation
    operation = session.begin_renegotiate(HOLD)
    args = negotiation.waiting.result(BOUND)
    ack = args.accept([("X-Answer", "yes")])
    assert ack is not None and ack.message_type == "ACK"
    assert operation.result(BOUND).header("X-Answer") == "yes"
    with pytest.raises(RealTimeInvalidOperationException, match="accepted"):
        args.decline()
    session.terminate()


def test_a_change_that_is_announced(pair: EndpointPair) -> None:
    session, other = up(pair)
    negotiation = Undecided()
    other.offer_answer_negotiation = negotiation
    operation = session.begin_renegotiate(HOLD)
    args = negotiation.waiting.result(BOUND)
    with session.request_or_response_received.expect(BOUND) as heard:
        args.send_provisional_response(183, "Asking somebody", [("X-Who", "Carol")])
    data = heard.args.message_data
    assert isinstance(data, p2psip.SipResponseData)
    assert (data.response_code, data.response_text, data.header("X-Who")) == (183, "Asking somebody", "Carol")
    with pytest.raises(ValueError, match="199"):
        args.send_provisional_response(200)
    args.accept()
    assert operation.result(BOUND).response_code == 200
    with pytest.raises(RealTimeInvalidOperationException, match="accepted"):
        args.send_provisional_response()
    session.terminate()


def test_an_update_is_not_announced(pair: EndpointPair) -> None:
    """RFC 4320 4.1: it is answered at once."""
    with pair.bob.session_received.expect(BOUND) as got:
        session = SignalingSession(pair.alice, pair.bob.uri)
        operation = session.begin_establish(OFFER)
    other = got.args.session
    other.send_reliable_provisional_response(183, answer=ANSWER)
    negotiation = Undecided()
    other.offer_answer_negotiation = negotiation
    change = session.begin_renegotiate(HOLD)
    args = negotiation.waiting.result(BOUND)
    with pytest.raises(RealTimeInvalidOperationException, match="UPDATE"):
        args.send_provisional_response(183)
    assert args.accept() is None
    assert change.result(BOUND).response_code == 200
    other.accept()
    assert operation.result(BOUND).response_code == 200
    session.terminate()


@pytest.mark.parametrize(
    ("vias", "wish", "is_forked"),
    [
        (1, None, False),
        (2, None, True),
        (2, "proxy, queue", True),
        (2, "proxy, No-Fork", False),
    ],
)
def test_a_call_that_may_ring_elsewhere(pair: EndpointPair, vias: int, wish: str | None, is_forked: bool) -> None:
    with pair.bob.session_received.expect(BOUND) as got:
        session = SignalingSession(pair.alice, pair.bob.uri)
        headers = [] if wish is None else [("Request-Disposition", wish)]
        operation = session.begin_establish(OFFER, headers)
    message = parse_message(got.args.request_data.to_bytes())
    assert isinstance(message, Request)
    for _ in range(vias - 1):
        message.headers.prepend("Via", "SIP/2.0/TLS proxy.example;branch=z9hG4bKproxy")
    args = SessionReceivedEventArgs(got.args.session, p2psip.SipRequestData(message))
    assert args.is_forked is is_forked
    got.args.session.terminate_with_rejection(486)
    with pytest.raises(FailureResponseException):
        operation.result(BOUND)


def test_a_connection_that_is_lost_and_found(pair: EndpointPair) -> None:
    session, other = up(pair)
    other.message_received += lambda sender, args: None
    connection = session.connection
    assert connection is not None
    with session.route_set_status_changed.expect(BOUND) as lost:
        connection.disconnect()
    assert lost.args.route_set_status is RouteSetStatus.RECOVERING
    assert session.state is SignalingState.CONNECTED
    with session.route_set_status_changed.expect(BOUND) as found:
        assert session.send_message(MessageType.INFO).response_code == 200
    assert (found.args.route_set_status, session.route_set_status) == (RouteSetStatus.HEALTHY, RouteSetStatus.HEALTHY)
    with other.terminated_by_remote.expect(BOUND):
        session.terminate()


def test_headers_that_a_redirection_cannot_have(pair: EndpointPair) -> None:
    pair.bob.session_received += lambda sender, args: args.session.terminate_with_redirection("sip:carol@example.com")
    session = SignalingSession(pair.alice, pair.bob.uri)
    session.redirecting += lambda sender, args: args.headers.append(("Via", "me"))
    with (
        pair.alice.connection_manager.unhandled_exception.expect(BOUND) as reported,
        pytest.raises(FailureResponseException) as failure,
    ):
        session.establish(OFFER)
    assert isinstance(reported.args.exception, ValueError)
    assert failure.value.response_data.response_code == 302


def test_the_session_timer(pair: EndpointPair) -> None:
    with pair.bob.session_received.expect(BOUND) as got:
        session = SignalingSession(pair.alice, pair.bob.uri)
        session.desired_session_timer_interval = 600
        operation = session.begin_establish(OFFER)
    got.args.session.accept(ANSWER)
    operation.result(BOUND)
    assert session.session_timer_interval == got.args.session.session_timer_interval == 600
    assert session.minimum_session_expires_interval == 90
    with pytest.raises(RealTimeInvalidOperationException):
        session.desired_session_timer_interval = 900
    session.terminate()


def test_a_session_without_timer(pair: EndpointPair) -> None:
    with pair.bob.session_received.expect(BOUND) as got:
        session = SignalingSession(pair.alice, pair.bob.uri)
        session.is_session_timer_supported = False
        operation = session.begin_establish(OFFER)
    got.args.session.is_session_timer_supported = False
    got.args.session.accept(ANSWER)
    assert operation.result(BOUND).header("Session-Expires") is None
    assert session.session_timer_interval == 0
    session.terminate()


@pytest.mark.holds("F21")
@pytest.mark.parametrize("what", ["endpoint", "manager"])
@pytest.mark.parametrize("side", ["caller", "called"])
def test_everything_may_be_ended_from_inside_a_handler(pair: EndpointPair, what: str, side: str) -> None:
    ended: concurrent.futures.Future[None] = concurrent.futures.Future()

    called: list[SignalingSession] = []

    def end(sender: SignalingSession, args: p2psip.SignalingStateChangedEventArgs) -> None:
        if args.state is SignalingState.CONNECTED:
            if what == "endpoint":
                sender.endpoint.terminate()
            else:
                sender.endpoint.connection_manager.dispose()
            ended.set_result(None)

    def take(sender: object, args: SessionReceivedEventArgs) -> None:
        called.append(args.session)
        if side == "called":
            args.session.state_changed += end
        args.session.begin_accept(ANSWER)

    pair.bob.session_received += take
    session = SignalingSession(pair.alice, pair.bob.uri)
    if side == "caller":
        session.state_changed += end
    with contextlib.suppress(OperationFailureException):
        session.establish(OFFER)
    ended.result(BOUND)
    assert (session if side == "caller" else called[0]).is_terminated


def test_a_context_manager_hangs_up(pair: EndpointPair) -> None:
    session, other = up(pair)
    with other.terminated_by_remote.expect(BOUND), session:
        pass
    assert session.transition_reason is SignalingTransitionReason.TERMINATED_LOCALLY
    assert "DISCONNECTED" in repr(session)
