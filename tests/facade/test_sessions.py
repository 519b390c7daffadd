"""Sessions as applications see them, over TLS on a network in memory and over TCP on loopback."""

from __future__ import annotations

import concurrent.futures
import contextlib
import queue
import time
from collections.abc import Iterator
from typing import Any

import pytest
from facade_support import BOUND, TcpPair, tcp_pair

import p2psip
from p2psip import (
    ContentDescription,
    ExtensionFeatureSupport,
    FailureResponseException,
    ManagerSettings,
    MessageType,
    OperationFailureException,
    OperationFailureReason,
    OperationTimeoutException,
    RealTimeInvalidOperationException,
    RedirectAction,
    SessionReceivedEventArgs,
    SignalingSession,
    SignalingState,
    SignalingTransitionReason,
)
from p2psip.testing import CertificateAuthority, EndpointPair, endpoint_pair

Pair = TcpPair | EndpointPair
AUTHORITY = CertificateAuthority()
OFFER = ContentDescription("application/sdp", "v=0\r\no=alice\r\n")
ANSWER = ContentDescription("application/sdp", "v=0\r\no=bob\r\n")
HOLD = ContentDescription("application/sdp", "v=0\r\no=alice\r\na=sendonly\r\n")
HELD = ContentDescription("application/sdp", "v=0\r\no=bob\r\na=recvonly\r\n")


@contextlib.contextmanager
def any_pair(kind: str, settings: ManagerSettings | None = None) -> Iterator[Any]:
    if kind == "tcp":
        with tcp_pair(settings) as tcp:
            yield tcp
    else:
        with endpoint_pair(authority=AUTHORITY, settings=settings) as tls:
            yield tls


@pytest.fixture(params=["tls", "tcp"])
def pair(request: pytest.FixtureRequest) -> Iterator[Any]:
    with any_pair(request.param) as found:
        yield found


@pytest.fixture
def tls() -> Iterator[EndpointPair]:
    with endpoint_pair(authority=AUTHORITY) as found:
        yield found


def answering(pair: Any, answer: Any = ANSWER, calls: list[SignalingSession] | None = None) -> list[SignalingSession]:
    """Bob takes every call; his sessions come into the list."""
    taken: list[SignalingSession] = [] if calls is None else calls

    def take(sender: object, args: SessionReceivedEventArgs) -> None:
        taken.append(args.session)
        args.session.accept(answer)

    pair.bob.session_received += take
    return taken


def call(pair: Any, offer: ContentDescription | None = OFFER, **options: Any) -> SignalingSession:
    session = SignalingSession(pair.alice, pair.bob.uri)
    session.establish(offer, **options)
    return session


def until(session: SignalingSession, state: SignalingState) -> None:
    """Wait for the state; it may be there already."""
    with (
        contextlib.suppress(OperationTimeoutException),
        session.state_changed.expect(BOUND, lambda args: session.state is state) as got,
    ):
        if session.state is state:
            raise OperationTimeoutException("it is there")
    del got
    assert session.state is state


# ---------------------------------------------------------------------- calls


def test_a_call_and_its_end(pair: Pair) -> None:
    calls: list[SignalingSession] = []
    seen: list[Any] = []
    answering(pair, calls=calls)
    session = SignalingSession(pair.alice, pair.bob.uri)
    assert (session.state, session.from_tag, session.is_incoming) == (SignalingState.IDLE, None, False)
    session.state_changed += lambda sender, args: seen.append(args.state)
    with session.state_changed.expect(BOUND, lambda args: args.state is SignalingState.CONNECTED):
        answer = session.establish(OFFER, [("X-Call", "1")])
    assert answer.response_code == 200
    assert session.state is SignalingState.CONNECTED
    assert (session.local_description, session.remote_description) == (OFFER, ANSWER)
    assert session.from_tag == answer.from_.tag
    assert session.to_tag == answer.to.tag
    assert session.connection is not None and session.connection.is_connected
    assert (session.local_participant.uri, session.remote_participant.contact_uri) == (
        pair.alice.owner_uri,
        pair.bob.uri,
    )
    other = calls[0]
    assert (other.is_incoming, other.call_id, other.remote_participant.uri) == (
        True,
        session.call_id,
        pair.alice.owner_uri,
    )
    with (
        other.terminated_by_remote.expect(BOUND) as gone,
        other.state_changed.expect(BOUND, lambda args: args.state is SignalingState.DISCONNECTED) as changed,
    ):
        session.terminate([("Reason", 'SIP;cause=200;text="done"')])
    assert gone.args.request_data.header("Reason") == 'SIP;cause=200;text="done"'
    assert (changed.args.state, changed.args.reason) == (
        SignalingState.DISCONNECTED,
        SignalingTransitionReason.TERMINATED_REMOTELY,
    )
    assert (session.state, session.transition_reason) == (
        SignalingState.DISCONNECTED,
        SignalingTransitionReason.TERMINATED_LOCALLY,
    )
    session.terminate()
    other.terminate()
    assert seen[:2] == [SignalingState.CONNECTING, SignalingState.CONNECTED]


def test_the_called_side_hangs_up(pair: Pair) -> None:
    calls = answering(pair)
    with (
        call(pair) as session,
        session.state_changed.expect(BOUND, lambda args: args.state is SignalingState.DISCONNECTED) as changed,
    ):
        calls[0].terminate()
    assert changed.args.reason is SignalingTransitionReason.TERMINATED_REMOTELY


def test_a_call_the_other_way_over_the_same_connection(pair: Pair) -> None:
    answering(pair)
    with call(pair):
        pair.alice.session_received += lambda sender, args: args.session.accept(ANSWER)
        with SignalingSession(pair.bob, pair.alice.uri) as back:
            assert back.establish(OFFER).response_code == 200


def test_what_an_incoming_call_shows(tls: EndpointPair) -> None:
    with tls.bob.session_received.expect(BOUND) as got:
        session = SignalingSession(tls.alice, tls.bob.uri, call_id="my-call@alice")
        operation = session.begin_establish(OFFER, [("Subject", "lunch")])
    args = got.args
    assert args.request_data.header("Subject") == "lunch"
    assert (args.request_uri, args.media_description) == (tls.bob.uri, OFFER)
    incoming = args.session
    assert (incoming.state, incoming.call_id) == (SignalingState.INCOMING, "my-call@alice")
    assert incoming.session_target == p2psip.RealTimeAddress(tls.alice.owner_uri)
    assert args.remote_participant.is_update_supported
    ack = incoming.accept(ANSWER)
    assert ack.message_type == "ACK"
    assert operation.result(BOUND).response_code == 200
    session.terminate()


def test_an_offer_in_the_2xx(pair: Pair) -> None:
    def take(sender: object, args: SessionReceivedEventArgs) -> None:
        assert args.media_description is None
        args.session.accept(OFFER)
        done.set_result(args.session)

    done: concurrent.futures.Future[SignalingSession] = concurrent.futures.Future()
    pair.bob.session_received += take
    with call(pair, None, answer=lambda offer: ANSWER if offer == OFFER else None) as session:
        assert (session.local_description, session.remote_description) == (ANSWER, OFFER)
        assert (done.result(BOUND).local_description, done.result().remote_description) == (OFFER, ANSWER)


def test_early_media_and_ringing(pair: Pair) -> None:
    def take(sender: object, args: SessionReceivedEventArgs) -> None:
        args.session.send_provisional_response(180, "Ringing loud", [("Alert-Info", "<http://example.com/bell>")])
        args.session.send_provisional_response(183, answer=ANSWER)
        args.session.accept()

    pair.bob.session_received += take
    session = SignalingSession(pair.alice, pair.bob.uri)
    provisional: list[Any] = []
    session.provisional_response_received += lambda sender, args: provisional.append(args)
    with session.state_changed.expect(BOUND, lambda args: args.state is SignalingState.CONNECTED):
        answer = session.establish(OFFER)
    assert answer.body == ANSWER.body
    assert [(args.response_data.response_code, args.description) for args in provisional] == [
        (180, None),
        (183, ANSWER),
    ]
    session.terminate()


def test_reliable_provisional_responses(pair: Pair) -> None:
    pracks: list[Any] = []

    def take(sender: object, args: SessionReceivedEventArgs) -> None:
        pracks.append(args.session.send_reliable_provisional_response(183, answer=ANSWER))
        args.session.accept()

    pair.bob.session_received += take
    session = SignalingSession(pair.alice, pair.bob.uri)
    with session.provisional_response_received.expect(BOUND) as got:
        answer = session.establish(OFFER)
    assert got.args.is_reliable and got.args.has_offer_answer
    assert pracks[0].message_type == "PRACK"
    assert answer.body == b""
    assert (session.local_description, session.remote_description) == (OFFER, ANSWER)
    session.terminate()


def test_a_caller_without_100rel_gets_them_unreliably(tls: EndpointPair) -> None:
    results: list[Any] = []

    def take(sender: object, args: SessionReceivedEventArgs) -> None:
        results.append(args.session.send_reliable_provisional_response(183, answer=ANSWER))
        args.session.accept()

    tls.bob.session_received += take
    session = SignalingSession(tls.alice, tls.bob.uri)
    session.reliable_provisional_response_policy = ExtensionFeatureSupport.UNSUPPORTED
    assert session.establish(OFFER).body == ANSWER.body
    assert results == [None]
    session.terminate()


# ---------------------------------------------------------------------- refusals, redirections, cancelling


def test_a_rejection(pair: Pair) -> None:
    pair.bob.session_received += lambda sender, args: args.session.terminate_with_rejection(
        486, "On the phone", [("Retry-After", "120 (in a meeting)")]
    )
    session = SignalingSession(pair.alice, pair.bob.uri)
    with pytest.raises(FailureResponseException, match="486 On the phone") as failure:
        session.establish(OFFER)
    assert failure.value.response_data.response_code == 486
    assert failure.value.retry_after == 120
    assert (session.state, session.transition_reason) == (
        SignalingState.DISCONNECTED,
        SignalingTransitionReason.BUSY,
    )
    with pytest.raises(RealTimeInvalidOperationException):
        session.begin_establish(OFFER)


def test_nobody_takes_calls(tls: EndpointPair) -> None:
    with pytest.raises(FailureResponseException) as failure:
        call(tls)
    assert failure.value.response_data.response_code == 480


def test_a_handler_that_raises(tls: EndpointPair) -> None:
    tls.bob.session_received += lambda sender, args: 1 / 0
    with (
        tls.bob.connection_manager.unhandled_exception.expect(BOUND),
        pytest.raises(FailureResponseException) as failure,
    ):
        call(tls)
    assert failure.value.response_data.response_code == 500


def carol_and_dave(pair: EndpointPair) -> tuple[p2psip.SipPeerToPeerEndpoint, p2psip.SipPeerToPeerEndpoint]:
    manager = pair.bob.connection_manager
    carol = p2psip.SipPeerToPeerEndpoint("sip:carol@bob.example", manager)
    dave = p2psip.SipPeerToPeerEndpoint("sip:dave@bob.example", manager)
    carol.session_received += lambda sender, args: args.session.terminate_with_rejection(486)
    dave.session_received += lambda sender, args: args.session.accept(ANSWER)
    pair.bob.session_received += lambda sender, args: args.session.terminate_with_redirection([carol.uri, dave.uri])
    return carol, dave


def test_redirections_are_followed(tls: EndpointPair) -> None:
    carol_and_dave(tls)
    session = SignalingSession(tls.alice, tls.bob.uri)
    seen: list[SignalingState] = []
    session.state_changed += lambda sender, args: seen.append(args.state)
    with session.state_changed.expect(BOUND, lambda args: args.state is SignalingState.CONNECTED):
        assert session.establish(OFFER).cseq == 3
    assert SignalingState.REDIRECTING in seen
    session.terminate()


@pytest.mark.parametrize(
    ("actions", "tried", "code"),
    [
        ([RedirectAction.TRY_ALL], ["carol"], 200),
        ([RedirectAction.TRY_THIS, RedirectAction.TRY_THIS], ["carol", "dave"], 200),
        ([RedirectAction.TRY_THIS, RedirectAction.TRY_NONE], ["carol", "dave"], 486),
        ([RedirectAction.SKIP_THIS, RedirectAction.TRY_THIS], ["carol", "dave"], 200),
        ([RedirectAction.SKIP_THIS, RedirectAction.SKIP_THIS], ["carol", "dave"], 302),
        ([RedirectAction.TRY_NONE], ["carol"], 302),
    ],
)
def test_redirect_actions(tls: EndpointPair, actions: list[RedirectAction], tried: list[str], code: int) -> None:
    carol_and_dave(tls)
    session = SignalingSession(tls.alice, tls.bob.uri)
    asked: list[str] = []
    left = list(actions)

    def redirecting(sender: object, args: p2psip.RedirectingEventArgs) -> None:
        assert args.current_target is not None
        asked.append(args.current_target.partition(":")[2].partition("@")[0])
        args.headers.append(("X-Redirected", "yes"))
        args.action = left.pop(0)

    session.redirecting += redirecting
    if code == 200:
        assert session.establish(OFFER).response_code == 200
    else:
        with pytest.raises(FailureResponseException) as failure:
            session.establish(OFFER)
        assert failure.value.response_data.response_code == code
    assert asked == tried
    session.terminate()


def test_a_redirection_that_is_decided_later(tls: EndpointPair) -> None:
    carol_and_dave(tls)
    session = SignalingSession(tls.alice, tls.bob.uri)
    waiting: list[p2psip.RedirectingEventArgs] = []

    def redirecting(sender: object, args: p2psip.RedirectingEventArgs) -> None:
        args.disable_automatic_redirection = True
        waiting.append(args)

    session.redirecting += redirecting
    with session.redirecting.expect(BOUND):
        operation = session.begin_establish(OFFER)
    waiting[0].resume_redirection()
    assert operation.result(BOUND).response_code == 200
    with pytest.raises(RealTimeInvalidOperationException):
        waiting[0].resume_redirection()
    session.terminate()


def test_one_cannot_be_redirected_to_oneself(tls: EndpointPair) -> None:
    with tls.bob.session_received.expect(BOUND) as got:
        operation = SignalingSession(tls.alice, tls.bob.uri).begin_establish(OFFER)
    for target in (tls.bob.uri, tls.alice.owner_uri):
        with pytest.raises(ValueError, match="come back"):
            got.args.session.terminate_with_redirection(target)
    with pytest.raises(ValueError, match="300"):
        got.args.session.terminate_with_redirection("sip:carol@example.com", 200)
    got.args.session.terminate_with_redirection("sip:carol@example.com", 301)
    operation.cancel()


def test_terminate_takes_the_call_back(pair: Pair) -> None:
    with pair.bob.session_received.expect(BOUND) as got:
        session = SignalingSession(pair.alice, pair.bob.uri)
        operation = session.begin_establish(OFFER)
    incoming = got.args.session
    with session.provisional_response_received.expect(BOUND):
        incoming.send_provisional_response(180)
    with incoming.terminated_by_remote.expect(BOUND):
        session.terminate()
    with pytest.raises(OperationFailureException) as failure:
        operation.result(BOUND)
    assert failure.value.failure_reason is OperationFailureReason.SESSION_TERMINATED
    until(incoming, SignalingState.DISCONNECTED)
    assert incoming.transition_reason is SignalingTransitionReason.CANCELED
    with pytest.raises(RealTimeInvalidOperationException, match="CANCELED"):
        incoming.accept(ANSWER)


def test_to_cancel_the_operation_is_to_cancel_the_call(tls: EndpointPair) -> None:
    with tls.bob.session_received.expect(BOUND) as got:
        session = SignalingSession(tls.alice, tls.bob.uri)
        operation = session.begin_establish(OFFER)
    with got.args.session.terminated_by_remote.expect(BOUND):
        assert operation.cancel()
    with pytest.raises(concurrent.futures.CancelledError):
        operation.result(BOUND)


def test_a_time_limit(tls: EndpointPair) -> None:
    tls.bob.session_received += lambda sender, args: args.session.send_provisional_response(180)
    session = SignalingSession(tls.alice, tls.bob.uri)
    with pytest.raises(OperationTimeoutException):
        session.establish(OFFER, timeout=0.2)
    assert session.transition_reason is SignalingTransitionReason.TIMEOUT


def test_an_undecided_call_is_declined_by_terminate(tls: EndpointPair) -> None:
    tls.bob.session_received += lambda sender, args: args.session.terminate()
    with pytest.raises(FailureResponseException) as failure:
        call(tls)
    assert failure.value.response_data.response_code == 603


def test_accept_and_cancel_at_the_same_moment(tls: EndpointPair) -> None:
    outcomes = set()
    for _ in range(20):
        with tls.bob.session_received.expect(BOUND) as got:
            session = SignalingSession(tls.alice, tls.bob.uri)
            operation = session.begin_establish(OFFER)
        end = session.begin_terminate()
        try:
            got.args.session.begin_accept(ANSWER).result(BOUND)
            outcomes.add("accepted")
        except RealTimeInvalidOperationException:
            outcomes.add("known")
        except OperationFailureException as error:
            assert error.failure_reason in (
                OperationFailureReason.INVALID_SESSION_STATE,
                OperationFailureReason.SESSION_TERMINATED,
            )
            outcomes.add("told")
        end.result(BOUND)
        failure = operation.exception(BOUND)  # none where the 200 was there before terminate() was
        assert failure is None or isinstance(failure, OperationFailureException)
        until(got.args.session, SignalingState.DISCONNECTED)
        assert session.is_terminated
    assert outcomes


def test_a_handler_that_blocks_while_the_peer_cancels(tls: EndpointPair) -> None:
    entered: concurrent.futures.Future[SignalingSession] = concurrent.futures.Future()
    go_on: concurrent.futures.Future[None] = concurrent.futures.Future()
    errors: concurrent.futures.Future[BaseException] = concurrent.futures.Future()

    def take(sender: object, args: SessionReceivedEventArgs) -> None:
        args.session.send_provisional_response(180)
        entered.set_result(args.session)
        go_on.result(BOUND)
        try:
            args.session.accept(ANSWER)
        except Exception as error:
            errors.set_result(error)

    tls.bob.session_received += take
    session = SignalingSession(tls.alice, tls.bob.uri)
    operation = session.begin_establish(OFFER)
    entered.result(BOUND)
    session.terminate()
    go_on.set_result(None)
    assert isinstance(errors.result(BOUND), RealTimeInvalidOperationException | OperationFailureException)
    assert isinstance(operation.exception(BOUND), OperationFailureException)


# ---------------------------------------------------------------------- while it is up


def test_messages_within_a_session(pair: Pair) -> None:
    calls = answering(pair)
    with call(pair) as session:
        with pytest.raises(FailureResponseException) as failure:
            session.send_message(MessageType.MESSAGE, body="anybody?")
        assert failure.value.response_data.response_code == 405
        with calls[0].message_received.expect(BOUND) as got:
            operation = session.begin_send_message(MessageType.INFO, "application/dtmf-relay", "Signal=5\r\n")
        assert operation.result(BOUND).response_code == 200
        assert got.args.message_type is MessageType.INFO
        assert got.args.body == b"Signal=5\r\n"
        session.message_received += lambda sender, args: args.send_response(202)
        assert calls[0].send_message(MessageType.MESSAGE, body="back").response_code == 202
    with pytest.raises(RealTimeInvalidOperationException):
        session.send_message(MessageType.MESSAGE, body="too late")


def test_hold_by_a_function_of_the_offer(pair: Pair) -> None:
    offers: list[Any] = []

    def answer(offer: ContentDescription | None) -> ContentDescription:
        offers.append(offer)
        return HELD if offer == HOLD else ANSWER

    calls = answering(pair, answer)
    with call(pair) as session:
        with calls[0].re_invite_received.expect(BOUND) as got:
            assert session.renegotiate(HOLD).body == HELD.body
        assert got.args.description == HOLD
        assert (session.local_description, session.remote_description) == (HOLD, HELD)
        assert session.renegotiate(OFFER).body == ANSWER.body
        assert offers == [OFFER, HOLD, OFFER]


def test_a_fixed_answer_takes_the_same_offer_only(pair: Pair) -> None:
    answering(pair)
    with call(pair) as session:
        assert session.renegotiate(OFFER).body == ANSWER.body
        with pytest.raises(FailureResponseException) as failure:
            session.renegotiate(HOLD)
        assert failure.value.response_data.response_code == 488
        assert session.state is SignalingState.CONNECTED
        assert session.local_description == OFFER
        with pytest.raises(OperationFailureException):
            session.renegotiate()


class Negotiator:
    """UCMA's callbacks."""

    def __init__(self, offer: ContentDescription | None, answer: ContentDescription) -> None:
        self.offer = offer
        self.answer = answer
        self.seen: list[Any] = []
        self.answers: queue.SimpleQueue[ContentDescription] = queue.SimpleQueue()

    def get_offer(self, session: SignalingSession) -> ContentDescription | None:
        self.seen.append("get_offer")
        return self.offer

    def get_answer(self, session: SignalingSession, offer: ContentDescription) -> ContentDescription | None:
        self.seen.append(("get_answer", offer))
        return self.answer

    def set_answer(self, session: SignalingSession, answer: ContentDescription) -> None:
        self.answers.put(answer)

    def handle_offer_in_invite_response(
        self, session: SignalingSession, args: p2psip.OfferInInviteResponseEventArgs
    ) -> None:
        self.seen.append(("handle_offer_in_invite_response", args.offer))
        args.ready_to_answer([("X-Ack", "1")])
        with pytest.raises(RealTimeInvalidOperationException):
            args.ready_to_answer()

    def handle_offer_in_reinvite(self, session: SignalingSession, args: p2psip.OfferInReInviteEventArgs) -> None:
        self.seen.append(("handle_offer_in_reinvite", args.offer))
        if args.offer == HOLD:
            args.decline(488, "No hold", [("X-Why", "no")])
        else:
            args.accept()


def test_callbacks(pair: Pair) -> None:
    ours, theirs = Negotiator(OFFER, HELD), Negotiator(ANSWER, ANSWER)

    def take(sender: object, args: SessionReceivedEventArgs) -> None:
        args.session.offer_answer_negotiation = theirs
        args.session.accept()

    pair.bob.session_received += take
    session = SignalingSession(pair.alice, pair.bob.uri)
    session.offer_answer_negotiation = ours
    session.establish()
    assert session.renegotiate().body == ANSWER.body
    with pytest.raises(FailureResponseException, match="No hold") as failure:
        session.renegotiate(HOLD)
    assert failure.value.response_data.header("X-Why") == "no"
    session.terminate()
    assert theirs.seen == [
        ("get_answer", OFFER),
        ("handle_offer_in_reinvite", OFFER),
        ("get_answer", OFFER),
        ("handle_offer_in_reinvite", HOLD),
    ]
    assert ours.seen == ["get_offer", "get_offer"]
    assert [ours.answers.get(timeout=BOUND) for _ in range(2)] == [ANSWER, ANSWER]


def test_callbacks_with_the_offer_in_the_2xx(tls: EndpointPair) -> None:
    ours, theirs = Negotiator(None, ANSWER), Negotiator(OFFER, HELD)
    acks: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def take(sender: object, args: SessionReceivedEventArgs) -> None:
        args.session.offer_answer_negotiation = theirs
        acks.set_result(args.session.accept())

    tls.bob.session_received += take
    session = SignalingSession(tls.alice, tls.bob.uri)
    session.offer_answer_negotiation = ours
    session.establish()
    ack = acks.result(BOUND)
    assert (ack.body, ack.header("X-Ack")) == (ANSWER.body, "1")
    assert ours.seen == ["get_offer", ("handle_offer_in_invite_response", OFFER), ("get_answer", OFFER)]
    session.terminate()
    assert theirs.seen[0] == "get_offer"


def test_headers_of_the_ack(tls: EndpointPair) -> None:
    acks: concurrent.futures.Future[Any] = concurrent.futures.Future()
    tls.bob.session_received += lambda sender, args: acks.set_result(args.session.accept(ANSWER))
    session = SignalingSession(tls.alice, tls.bob.uri)
    session.invitation_accepted += lambda sender, args: args.send_acknowledgement([("X-Ack", "2")])
    session.establish(OFFER)
    assert acks.result(BOUND).header("X-Ack") == "2"
    session.terminate()


def test_every_message_can_be_looked_at(tls: EndpointPair) -> None:
    answering(tls)
    session = SignalingSession(tls.alice, tls.bob.uri)
    seen: list[str] = []
    session.request_or_response_received += lambda sender, args: seen.append(str(args.message_data))
    session.establish(OFFER)
    session.terminate()
    assert any("200" in line for line in seen)


# ---------------------------------------------------------------------- threads


@pytest.mark.parametrize("name", ["state_changed", "provisional_response_received", "invitation_accepted"])
def test_terminate_from_inside_a_handler_of_the_caller(tls: EndpointPair, name: str) -> None:
    def take(sender: object, args: SessionReceivedEventArgs) -> None:
        args.session.send_provisional_response(180)
        with contextlib.suppress(OperationFailureException, RealTimeInvalidOperationException):
            args.session.accept(ANSWER)

    tls.bob.session_received += take
    session = SignalingSession(tls.alice, tls.bob.uri)
    ended: concurrent.futures.Future[None] = concurrent.futures.Future()

    def handler(sender: SignalingSession, args: Any) -> None:
        sender.terminate()
        if not ended.done():
            ended.set_result(None)

    event = getattr(session, name)
    event += handler
    with contextlib.suppress(OperationFailureException):
        session.establish(OFFER)
    ended.result(BOUND)
    assert session.is_terminated


@pytest.mark.parametrize(
    "name",
    [
        "session_received",
        "state_changed",
        "invitation_completed",
        "message_received",
        "re_invite_received",
        "terminated_by_remote",
    ],
)
def test_terminate_from_inside_a_handler_of_the_called(tls: EndpointPair, name: str) -> None:
    ended: concurrent.futures.Future[None] = concurrent.futures.Future()

    def handler(sender: Any, args: Any) -> None:
        (args.session if name == "session_received" else sender).terminate()
        if not ended.done():
            ended.set_result(None)

    def take(sender: object, args: SessionReceivedEventArgs) -> None:
        if name == "session_received":
            return
        event = getattr(args.session, name)
        event += handler
        with contextlib.suppress(OperationFailureException):
            args.session.accept(lambda offer: ANSWER)

    tls.bob.session_received += take
    if name == "session_received":
        tls.bob.session_received += handler
    session = SignalingSession(tls.alice, tls.bob.uri)
    with contextlib.suppress(p2psip.RealTimeException, RealTimeInvalidOperationException):
        session.establish(OFFER)
        if name == "message_received":
            session.send_message(MessageType.INFO)
        elif name == "re_invite_received":
            session.renegotiate(HOLD)
        elif name == "terminated_by_remote":
            session.terminate()
    ended.result(BOUND)
    until(session, SignalingState.DISCONNECTED)


def test_blocking_calls_inside_handlers(tls: EndpointPair) -> None:
    """A handler of the session waits for requests of the same session, on both sides."""
    done: concurrent.futures.Future[int] = concurrent.futures.Future()

    def echo(sender: SignalingSession, args: p2psip.MessageReceivedEventArgs) -> None:
        args.send_response(200)
        if args.text_body == "1":
            sender.send_message(MessageType.MESSAGE, body="2")
            sender.renegotiate(OFFER)
            done.set_result(sender.send_message(MessageType.INFO, body="3").response_code)

    def take(sender: object, args: SessionReceivedEventArgs) -> None:
        args.session.message_received += echo
        args.session.accept(lambda offer: ANSWER)

    tls.bob.session_received += take
    session = SignalingSession(tls.alice, tls.bob.uri)
    session.message_received += lambda sender, args: None
    session.establish(OFFER, answer=lambda offer: OFFER)
    with session:
        session.send_message(MessageType.MESSAGE, body="1")
        assert done.result(BOUND) == 200


def test_a_handler_may_place_another_call(tls: EndpointPair) -> None:
    calls = answering(tls)
    second: concurrent.futures.Future[SignalingSession] = concurrent.futures.Future()
    first = SignalingSession(tls.alice, tls.bob.uri)

    def handler(sender: object, args: p2psip.SignalingStateChangedEventArgs) -> None:
        if args.state is SignalingState.CONNECTED:
            second.set_result(call(tls))

    first.state_changed += handler
    first.establish(OFFER)
    assert second.result(BOUND).state is SignalingState.CONNECTED
    assert len(calls) == 2 or calls
    first.terminate()
    second.result().terminate()


def test_fifty_sessions_at_once_each_in_order(pair: Pair) -> None:
    seen: dict[str, list[str]] = {}

    def got(sender: SignalingSession, args: p2psip.MessageReceivedEventArgs) -> None:
        seen[sender.call_id].append(args.text_body or "")

    def take(sender: object, args: SessionReceivedEventArgs) -> None:
        seen[args.session.call_id] = []
        args.session.message_received += got
        args.session.state_changed += lambda sender, changed: seen[sender.call_id].append(changed.state.name)
        args.session.begin_accept(ANSWER)

    pair.bob.session_received += take
    sessions = [SignalingSession(pair.alice, pair.bob.uri) for _ in range(50)]
    for operation in [session.begin_establish(OFFER) for session in sessions]:
        assert operation.result(BOUND).response_code == 200
    operations = [
        session.begin_send_message(MessageType.MESSAGE, body=str(number))
        for number in range(10)
        for session in sessions
    ]
    for sent in operations:
        assert sent.result(BOUND).response_code == 200
    for end in [session.begin_terminate() for session in sessions]:
        end.result(BOUND)
    pair.bob.terminate()
    expected = ["CONNECTING", "CONNECTED", *map(str, range(10))]
    assert [seen[session.call_id][:12] for session in sessions] == [expected] * 50


# ---------------------------------------------------------------------- the end of the endpoint


def test_an_endpoint_ends_with_its_sessions(pair: Pair) -> None:
    calls = answering(pair)
    sessions = [call(pair) for _ in range(3)]
    pair.alice.terminate()
    assert all(session.is_terminated for session in sessions)
    for other in calls:
        until(other, SignalingState.DISCONNECTED)
        assert other.transition_reason is SignalingTransitionReason.TERMINATED_REMOTELY
    with pytest.raises(OperationFailureException) as failure:
        SignalingSession(pair.alice, pair.bob.uri)
    assert failure.value.failure_reason is OperationFailureReason.ENDPOINT_TERMINATED


def test_an_endpoint_ends_while_calls_are_undecided(tls: EndpointPair) -> None:
    with tls.bob.session_received.expect(BOUND) as got:
        session = SignalingSession(tls.alice, tls.bob.uri)
        operation = session.begin_establish(OFFER)
    tls.bob.terminate()
    assert got.args.session.is_terminated
    with pytest.raises(FailureResponseException) as failure:
        operation.result(BOUND)
    assert failure.value.response_data.response_code == 603


def test_the_manager_is_disposed_with_sessions_up(pair: Pair) -> None:
    answering(pair)
    session = call(pair)
    seen: list[SignalingState] = []
    session.state_changed += lambda sender, args: seen.append(args.state)
    pending = session.begin_renegotiate(HOLD)
    pair.alice.connection_manager.dispose()
    assert seen[-1:] == [SignalingState.DISCONNECTED]
    assert session.is_terminated
    assert pending.done()
    session.terminate()
    with pytest.raises((OperationFailureException, RealTimeInvalidOperationException)):
        session.send_message(MessageType.MESSAGE, body="late")


def test_a_manager_that_is_disposed_waits_for_the_answer_to_its_bye(pair: Pair) -> None:
    calls = answering(pair)
    call(pair)
    seen: list[str] = []
    pair.alice.connection_manager.trace += lambda sender, args: seen.append(args.start_line)
    pair.alice.connection_manager.dispose()
    assert [line.partition(" sip")[0] for line in seen] == ["BYE", "SIP/2.0 200 OK"]
    until(calls[0], SignalingState.DISCONNECTED)
    assert calls[0].transition_reason is SignalingTransitionReason.TERMINATED_REMOTELY


def test_a_manager_that_is_disposed_waits_for_nobody_for_long(tls: EndpointPair) -> None:
    answering(tls)
    session = call(tls)
    for link in tls.network.links:
        link.hold()
    pending = tls.alice.begin_send_message(MessageType.OPTIONS, tls.bob.uri)
    begun = time.monotonic()
    pending_over: list[float] = []
    pending.add_done_callback(lambda _: pending_over.append(time.monotonic() - begun))
    tls.alice.connection_manager.dispose()
    assert time.monotonic() - begun < tls.alice.connection_manager.settings.dispose_grace + 1
    assert type(pending.exception()) is OperationFailureException
    assert pending_over[0] < 2
    assert session.is_terminated


# ---------------------------------------------------------------------- arguments


def test_arguments(tls: EndpointPair) -> None:
    session = SignalingSession(tls.alice, tls.bob.uri)
    with pytest.raises(ValueError, match="Contact"):
        session.begin_establish(OFFER, [("Contact", "<sip:me@example.com>")])
    with pytest.raises(TypeError):
        session.begin_establish("v=0")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Call-ID"):
        SignalingSession(tls.alice, tls.bob.uri, call_id="a b")
    with pytest.raises(RealTimeInvalidOperationException):
        session.begin_accept(ANSWER)
    with pytest.raises(RealTimeInvalidOperationException):
        session.terminate_with_rejection(486)
    with pytest.raises(RealTimeInvalidOperationException):
        session.send_message(MessageType.INFO)
    with pytest.raises(ValueError, match="90"):
        session.desired_session_timer_interval = 10
    session.terminate()
    assert session.is_terminated


@pytest.mark.parametrize("code", [200, 299, 400, 500])
def test_a_redirection_has_a_code_of_its_own(tls: EndpointPair, code: int) -> None:
    errors: concurrent.futures.Future[BaseException] = concurrent.futures.Future()

    def received(sender: object, args: SessionReceivedEventArgs) -> None:
        try:
            args.session.terminate_with_redirection("sip:carol@carol.example", code)
        except ValueError as error:
            errors.set_result(error)
        args.session.terminate_with_rejection(486)

    tls.bob.session_received += received
    with pytest.raises(FailureResponseException):
        SignalingSession(tls.alice, tls.bob.uri).establish(OFFER)
    assert "300 to 399" in str(errors.result(BOUND))
