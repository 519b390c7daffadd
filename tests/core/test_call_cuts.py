"""Connections that are lost in each state of a call, and races with the parts exchanged: both sides each time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from call_support import ANSWER, OFFER, World, acknowledge_at_once, connected

from p2psip.core.dialog import Content
from p2psip.core.refer import OutgoingRefer
from p2psip.core.session import Session
from p2psip.core.usage import ClientUsage
from p2psip.enums import SignalingState, SignalingTransitionReason
from p2psip.errors import ConnectionFailureException, OperationFailureException, OperationFailureReason
from p2psip.message import Request, Response, parse_message

CONNECTED, DISCONNECTED = SignalingState.CONNECTED, SignalingState.DISCONNECTED
AGAIN = Content("application/sdp", b"v=0\r\ns=again\r\n")


@pytest.fixture
def world() -> World:
    world = World()
    world.reactions.append(acknowledge_at_once)
    return world


def over(world: World) -> None:
    """Whoever still has a session ends it; then nothing is left."""
    for party in (world.alice, world.bob):
        for session in party.sessions:
            party.do(session.terminate, ())
    world.pass_time(400.0)
    assert {s.state for p in (world.alice, world.bob) for s in p.sessions} <= {DISCONNECTED}
    world.assert_over()


def pair(world: World) -> tuple[Any, Any, Session, Session]:
    session, theirs = connected(world)
    return world.alice, world.bob, session, theirs


def both(world: World, swapped: bool) -> tuple[Any, Any, Session, Session]:
    """Who does it, who sees it, and their sessions: the caller first, or the called side."""
    alice, bob, session, theirs = pair(world)
    return (bob, alice, theirs, session) if swapped else (alice, bob, session, theirs)


# ---------------------------------------------------------------------- a cut in each state


def connecting(world: World) -> None:
    world.held = []
    world.alice.call()


def reached(world: World) -> None:
    world.alice.call()


def rung(world: World) -> None:
    world.alice.call()
    world.bob.do(world.bob.sessions[-1].send_provisional, 180, None, (), None, False)


def waiting_for_prack(world: World) -> None:
    world.alice.call()
    world.lose = lambda m: isinstance(m, Request) and m.method == "PRACK"
    world.bob.do(world.bob.sessions[-1].send_provisional, 183, None, (), ANSWER, True)


def accepted_behind_a_prack(world: World) -> None:
    waiting_for_prack(world)
    world.bob.do(world.bob.sessions[-1].accept, None, ())


def answer_under_way(world: World) -> None:
    rung(world)
    world.held = []
    world.bob.do(world.bob.sessions[-1].accept, ANSWER, ())


def refusal_under_way(world: World) -> None:
    rung(world)
    world.held = []
    world.bob.do(world.bob.sessions[-1].reject, 486, None, ())


def cancel_under_way(world: World) -> None:
    rung(world)
    world.held = []
    world.alice.do(world.alice.sessions[-1].terminate, ())


def redirecting(world: World) -> None:
    rung(world)
    contact = [("Contact", "<sip:bob@bob.example;again=1>")]
    world.bob.do(world.bob.sessions[-1].reject, 302, None, contact)
    assert world.alice.sessions[-1].state is SignalingState.REDIRECTING


def up(world: World) -> None:
    connected(world)


def changing(world: World) -> None:
    session, _ = connected(world)
    world.alice.do(session.renegotiate, AGAIN, ())


def being_changed(world: World) -> None:
    _, theirs = connected(world)
    world.bob.do(theirs.renegotiate, AGAIN, ())


def waiting_for_the_ack_of_a_change(world: World) -> None:
    changing(world)
    theirs = world.bob.sessions[-1]
    world.held = []
    operation = world.operation("accept_offer")
    theirs.accept_offer(world.now, theirs.renegotiation._theirs, ANSWER, (), operation)
    world.run()


def transferring(world: World) -> None:
    session, _ = connected(world)
    world.alice.do(OutgoingRefer(session, world.alice).refer, "<sip:c@c.example>", (), None, True)


def progressing(world: World) -> None:
    transferring(world)
    (event,) = world.bob.happened("ReferReceived")
    event.refer.user = world.bob
    world.held = []
    event.refer.accept(world.now)
    world.run()


def asking(world: World) -> None:
    session, _ = connected(world)
    world.alice.do(session.send_request, "INFO", (), None)


def leaving(world: World) -> None:
    session, _ = connected(world)
    world.held = []
    world.alice.do(session.terminate, ())


BEFORE = [connecting, reached, rung, waiting_for_prack, accepted_behind_a_prack, answer_under_way]
AFTERWARDS = [
    up,
    changing,
    being_changed,
    waiting_for_the_ack_of_a_change,
    transferring,
    progressing,
    asking,
    leaving,
    cancel_under_way,
    refusal_under_way,
    redirecting,
]


@pytest.mark.parametrize("state", [*BEFORE, *AFTERWARDS], ids=lambda state: state.__name__)
@pytest.mark.parametrize("comes_back", [True, False])
def test_the_connection_is_lost(world: World, state: Callable[[World], None], comes_back: bool) -> None:
    state(world)
    sessions = [*world.alice.sessions, *world.bob.sessions]
    before = [session.state for session in sessions]
    world.unreachable = not comes_back
    world.cut()
    world.held = world.lose = None
    for session, was in zip(sessions, before, strict=True):
        if was is CONNECTED:
            assert session.state is CONNECTED
        elif (
            was in (SignalingState.INCOMING, SignalingState.CONNECTING, SignalingState.ALERTED) and state in BEFORE[:4]
        ):
            assert session.reason is SignalingTransitionReason.UNREACHABLE
    if state in BEFORE:
        (establish,) = [o for o in world.operations if o.name == "establish"]
        assert isinstance(establish.error, ConnectionFailureException)
    over(world)


@pytest.mark.parametrize("swapped", [False, True])
def test_one_request_lost_with_its_connection_is_no_end(world: World, swapped: bool) -> None:
    asker, other, session, theirs = both(world, swapped)
    world.held = []
    lost = asker.do(session.send_request, "INFO", (), None)
    world.cut()
    world.held = None
    assert isinstance(lost.error, ConnectionFailureException)
    again = asker.do(session.send_request, "INFO", (), None)
    (received,) = other.happened("RequestReceived")
    other.engine.respond(world.now, received.transaction, received.transaction.create_response(200))
    world.run()
    assert again.message.status_code == 200
    assert session.state is theirs.state is CONNECTED
    over(world)


# ---------------------------------------------------------------------- the other side of races


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_bye_and_re_invite_cross(world: World, swapped: bool, reverse: bool) -> None:
    changer, leaver, session, theirs = both(world, swapped)
    world.held = []
    change = changer.do(session.renegotiate, AGAIN, ())
    end = leaver.do(theirs.terminate, ())
    world.release(reverse=reverse)
    assert end.ends == [(None, None)]
    assert change.error is not None or change.message.status_code == 481
    assert session.reason in (
        SignalingTransitionReason.TERMINATED_REMOTELY,
        SignalingTransitionReason.SESSION_DOES_NOT_EXIST,
    )
    assert theirs.reason is SignalingTransitionReason.TERMINATED_LOCALLY
    over(world)


@pytest.mark.parametrize("swapped", [False, True])
def test_bye_while_a_re_invite_waits_for_its_answer(world: World, swapped: bool) -> None:
    changer, leaver, session, theirs = both(world, swapped)
    change = changer.do(session.renegotiate, AGAIN, ())
    end = leaver.do(theirs.terminate, ())
    assert change.message.status_code == 487
    assert end.ends == [(None, None)]
    assert (session.reason, theirs.reason) == (
        SignalingTransitionReason.TERMINATED_REMOTELY,
        SignalingTransitionReason.TERMINATED_LOCALLY,
    )
    over(world)


@pytest.mark.parametrize("swapped", [False, True])
def test_update_during_a_re_invite(world: World, swapped: bool) -> None:
    """RFC 3311 5.2: 491 while the offer of ours is open, 500 with Retry-After while the peer's is."""
    changer, other, session, theirs = both(world, swapped)
    change = changer.do(session.renegotiate, AGAIN, ())
    pairs = [("Allow", "UPDATE"), ("Supported", "timer")]
    assert other.do(theirs.send_request, "UPDATE", pairs, AGAIN).message.status_code == 491
    refused = changer.do(session.send_request, "UPDATE", pairs, AGAIN).message
    assert (refused.status_code, refused.headers.get("Retry-After")) == (500, "1")
    theirs.accept_offer(world.now, theirs.renegotiation._theirs, ANSWER)  # type: ignore[arg-type]
    world.run()
    assert change.message.status_code == 200
    over(world)


@pytest.mark.parametrize("swapped", [False, True])
def test_cancel_of_a_re_invite_crosses_its_200(world: World, swapped: bool) -> None:
    changer, _, session, theirs = both(world, swapped)
    change = changer.do(session.renegotiate, AGAIN, ())
    world.held = []
    assert session.cancel_renegotiation(world.now)
    theirs.accept_offer(world.now, theirs.renegotiation._theirs, ANSWER)  # type: ignore[arg-type]
    world.run()
    world.release()
    world.pass_time(1.0)
    assert change.message.status_code in (200, 487)
    assert session.state is theirs.state is CONNECTED
    over(world)


@pytest.mark.parametrize("swapped", [False, True])
def test_a_re_invite_that_is_taken_back(world: World, swapped: bool) -> None:
    changer, other, session, theirs = both(world, swapped)
    change = changer.do(session.renegotiate, AGAIN, ())
    world.pass_time(0.3)
    assert session.cancel_renegotiation(world.now)
    world.run()
    assert change.message.status_code == 487
    assert len(other.happened("OfferCancelled")) == 1
    assert session.state is theirs.state is CONNECTED
    over(world)


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("lost", [2, 1000])
def test_the_ack_of_a_re_invite_is_lost(world: World, swapped: bool, lost: int) -> None:
    changer, _, session, theirs = both(world, swapped)
    changer.do(session.renegotiate, AGAIN, ())
    left = [None] * lost
    world.lose = lambda m: isinstance(m, Request) and m.method == "ACK" and bool(left) and left.pop() is None
    operation = world.operation("accept_offer")
    theirs.accept_offer(world.now, theirs.renegotiation._theirs, ANSWER, (), operation)  # type: ignore[arg-type]
    world.run()
    world.pass_time(40.0)
    if lost == 2:
        assert operation.message.method == "ACK"
        assert session.state is theirs.state is CONNECTED
    else:
        assert operation.error is not None
        assert theirs.reason is SignalingTransitionReason.TIMEOUT
        assert session.reason is SignalingTransitionReason.TERMINATED_REMOTELY
    over(world)


@pytest.mark.parametrize("swapped", [False, True])
def test_the_peer_was_restarted(world: World, swapped: bool) -> None:
    asker, _, session, theirs = both(world, swapped)
    assert theirs.dialog is not None
    theirs.dialog.remove(theirs)
    theirs.timer.stop()
    change = asker.do(session.renegotiate, AGAIN, ())
    assert change.message.status_code == 481
    assert session.reason is SignalingTransitionReason.SESSION_DOES_NOT_EXIST
    world.pass_time(400.0)
    world.assert_over()


@pytest.mark.parametrize("offers", [True, False])
def test_accept_and_take_back_at_the_same_moment(world: World, offers: bool) -> None:
    """Whichever is first, both operations end, and both sides know."""
    session, establish = world.alice.call(offer=OFFER if offers else None)
    theirs = world.bob.sessions[-1]
    world.pass_time(0.3)
    world.held = []
    end = world.alice.do(session.terminate, ())
    accept = world.bob.do(theirs.accept, ANSWER, ())
    world.release(reverse=True)
    world.pass_time(1.0)
    assert isinstance(establish.error, OperationFailureException)
    assert end.ends == [(None, None)]
    assert len(accept.ends) == 1
    over(world)


def test_a_provisional_response_after_the_200_changes_nothing(world: World) -> None:
    session, theirs = connected(world)
    success = next(m for _, m in world.messages if isinstance(m, Response) and m.status_code == 200)
    late = Response(180, "Ringing", list(success.headers))
    world.alice.engine.receive(world.now, world.alice.flows[0], parse_message(late.to_bytes()))
    world.run()
    assert not world.alice.happened("ProvisionalReceived")
    assert session.state is theirs.state is CONNECTED
    assert len(world.alice.engine.dialogs) == 1
    over(world)


# ---------------------------------------------------------------------- offers before the call is answered


def test_no_second_offer_before_the_first_is_answered(world: World) -> None:
    """RFC 3311 5.1 and 5.2, each side."""
    session, _ = world.alice.call()
    (theirs,) = world.bob.sessions
    world.bob.do(theirs.send_provisional, 180, None, (), None, True)
    for party, own in ((world.alice, session), (world.bob, theirs)):
        refused = party.do(own.renegotiate, AGAIN, ())
        assert refused.error.failure_reason is OperationFailureReason.INVALID_SESSION_STATE
    assert "UPDATE" not in world.log
    for own, code in ((session, 500), (theirs, 491)):
        dialog, answers = own.dialog, Answers()
        assert dialog is not None
        pairs = [("Allow", "UPDATE"), ("Supported", "timer")]
        dialog.send(world.now, dialog.create_request("UPDATE", pairs, AGAIN), answers)
        world.run()
        assert answers.codes == [code]
    world.bob.do(theirs.accept, ANSWER, ())
    assert session.state is theirs.state is CONNECTED
    over(world)


@pytest.mark.parametrize("side", ["caller", "callee"])
def test_early_offers_once_there_is_an_answer(world: World, side: str) -> None:
    session, _ = world.alice.call()
    (theirs,) = world.bob.sessions
    world.bob.do(theirs.send_provisional, 183, None, (), ANSWER, True)
    party, own, other = (world.alice, session, theirs) if side == "caller" else (world.bob, theirs, session)
    update = party.do(own.renegotiate, AGAIN, ())
    other.accept_offer(world.now, other.renegotiation._theirs, ANSWER)  # type: ignore[arg-type]
    world.run()
    assert update.message.status_code == 200
    assert (own.local_content, other.remote_content) == (AGAIN, AGAIN)
    world.bob.do(theirs.accept, None, ())
    assert session.state is theirs.state is CONNECTED
    over(world)


class Answers(ClientUsage):
    def __init__(self) -> None:
        self.codes: list[int] = []

    def responded(self, now: float, client_request: Any, response: Response) -> None:
        self.codes.append(response.status_code)

    def failed(self, now: float, client_request: Any, error: Exception) -> None:
        raise AssertionError(error)


# ---------------------------------------------------------------------- what peers write


def test_targets_that_cannot_be_read_are_none(world: World) -> None:
    session, establish = world.alice.call()
    (first,) = world.bob.sessions
    odd = "<sip:a@a.example>;q=nonsense, <sip:b@b.example>;q=0.9"
    world.bob.do(first.reject, 302, None, [("Contact", odd)])
    assert not world.alice.happened("Redirected")
    assert establish.message.status_code == 302
    assert session.state is DISCONNECTED
    over(world)


@pytest.mark.parametrize("number", ["\u00b2", "\u0663", "-1", "", "99999999999"])
def test_rseq_that_is_no_number_asks_for_nothing(world: World, number: str) -> None:
    session, _ = world.alice.call()
    (theirs,) = world.bob.sessions
    assert theirs.dialog is not None
    pairs = [("Require", "100rel"), ("RSeq", number), ("Contact", "<sip:bob@192.0.2.2;transport=tls>")]
    transaction = theirs._incoming.transaction
    odd = transaction.create_response(183, headers=pairs)
    world.alice.engine.receive(world.now, world.alice.flows[0], parse_message(odd.to_bytes()))
    world.run()
    assert "PRACK" not in world.log
    (event,) = world.alice.happened("ProvisionalReceived")
    assert not event.is_reliable
    assert session.state is SignalingState.ALERTED
    over(world)


# ---------------------------------------------------------------------- the subscription of a transfer


def test_unsubscribing_from_a_transfer_has_its_notify_and_harms_nothing(world: World) -> None:
    session, theirs = connected(world)
    refer = OutgoingRefer(session, world.alice)
    world.alice.do(refer.refer, "<sip:c@c.example>", (), None, True)
    (event,) = world.bob.happened("ReferReceived")
    event.refer.user = world.bob
    event.refer.accept(world.now)
    world.run()
    before = len(world.log)
    refer.terminate_subscription(world.now)
    world.run()
    assert world.log[before:] == ["SUBSCRIBE", "200", "NOTIFY", "200"]
    last = next(m for _, m in reversed(world.messages) if isinstance(m, Request))
    assert last.headers.get("Subscription-State") == "terminated;reason=timeout"
    assert len(world.alice.happened("ReferProgress")) == 1
    assert not event.refer.is_active
    assert session.state is theirs.state is CONNECTED
    over(world)


def test_a_notify_crosses_the_unsubscription_of_a_transfer(world: World) -> None:
    session, theirs = connected(world)
    refer = OutgoingRefer(session, world.alice)
    world.alice.do(refer.refer, "<sip:c@c.example>", (), None, True)
    (event,) = world.bob.happened("ReferReceived")
    event.refer.user = world.bob
    event.refer.accept(world.now)
    world.run()
    world.held = []
    event.refer.progress(world.now, 180, None, None, False)
    refer.terminate_subscription(world.now)
    world.run()
    world.release()
    assert "481" not in world.log
    assert [e.status_code for e in world.alice.happened("ReferProgress")] == [100]
    assert session.state is theirs.state is CONNECTED
    over(world)


def test_a_transfer_may_be_subscribed_to_for_longer(world: World) -> None:
    session, theirs = connected(world)
    refer = OutgoingRefer(session, world.alice)
    world.alice.do(refer.refer, "<sip:c@c.example>", (), None, True)
    (event,) = world.bob.happened("ReferReceived")
    event.refer.user = world.bob
    event.refer.accept(world.now)
    event.refer.progress(world.now, 180, None, None, False)
    world.run()
    dialog, answers = session.dialog, Answers()
    assert dialog is not None
    world.pass_time(100.0)
    dialog.send(world.now, dialog.create_request("SUBSCRIBE", [("Event", "refer"), ("Expires", "180")]), answers)
    world.run()
    assert answers.codes == [200]
    assert [e.status_code for e in world.alice.happened("ReferProgress")] == [100, 180, 180]
    world.pass_time(100.0)
    assert event.refer.is_active
    world.pass_time(100.0)
    assert not event.refer.is_active
    assert theirs.state is CONNECTED
    over(world)
