"""What crosses, what is lost, what comes late: each seen from both sides."""

from __future__ import annotations

from typing import Any

import pytest
from call_support import ANSWER, OFFER, World, acknowledge_at_once, connected

from p2psip.core.dialog import Content
from p2psip.core.session import Session, SessionOptions
from p2psip.core.usage import ClientUsage
from p2psip.enums import ExtensionFeatureSupport, SignalingState, SignalingTransitionReason
from p2psip.errors import (
    ConnectionFailureException,
    OperationFailureException,
    OperationFailureReason,
    OperationTimeoutException,
)
from p2psip.message import Request, Response, parse_message

CONNECTED, DISCONNECTED = SignalingState.CONNECTED, SignalingState.DISCONNECTED
AGAIN = Content("application/sdp", b"v=0\r\ns=again\r\n")


@pytest.fixture
def world() -> World:
    world = World()
    world.reactions.append(acknowledge_at_once)
    return world


def ringing(world: World, **more: Any) -> tuple[Session, Any, Session]:
    """Alice's call rings at Bob."""
    session, establish = world.alice.call(**more)
    theirs = world.bob.sessions[-1]
    world.bob.do(theirs.send_provisional, 180, None, (), None, False)
    assert session.state is SignalingState.ALERTED
    return session, establish, theirs


def over(world: World, *sessions: Session) -> None:
    world.pass_time(400.0)
    assert {session.state for session in sessions} == {DISCONNECTED}
    world.assert_over()


def is_method(name: str) -> Any:
    return lambda message: isinstance(message, Request) and message.method == name


def loses(*names: str) -> Any:
    """Loses the first message of each name."""
    left = list(names)

    def lose(message: Any) -> bool:
        name = message.method if isinstance(message, Request) else f"{message.status_code} {message.cseq.method}"
        if name in left:
            left.remove(name)
            return True
        return False

    return lose


def test_a_call_from_invite_to_bye(world: World) -> None:
    session, theirs = connected(world)
    assert (session.local_content, session.remote_content) == (OFFER, ANSWER)
    assert (theirs.local_content, theirs.remote_content) == (ANSWER, OFFER)
    world.alice.do(session.terminate, ())
    assert theirs.reason is SignalingTransitionReason.TERMINATED_REMOTELY
    assert world.log == ["INVITE", "200", "ACK", "BYE", "200"]
    over(world, session, theirs)


def test_cancel_crosses_the_200(world: World) -> None:
    session, establish, theirs = ringing(world)
    world.held = []
    accept = world.bob.do(theirs.accept, ANSWER, ())
    terminate = world.alice.do(session.terminate, ())
    world.release()
    assert isinstance(establish.error, OperationFailureException)
    assert terminate.ends == [(None, None)]
    assert accept.message.method == "ACK"
    # The CANCEL is too late for the INVITE, and answered; the call that came of it is ended.
    assert world.log[:4] == ["INVITE", "180", "200", "CANCEL"]
    assert sorted(world.log[4:]) == ["200", "200", "ACK", "BYE"]
    over(world, session, theirs)


def test_cancel_is_held_until_a_provisional_response(world: World) -> None:
    session, _ = world.alice.call()
    world.alice.do(session.terminate, ())
    assert world.log == ["INVITE"]
    assert session.state is DISCONNECTED
    world.pass_time(0.3)  # Bob's transaction says 100
    assert world.log == ["INVITE", "100", "CANCEL", "200", "487", "ACK"]
    assert world.bob.sessions[0].reason is SignalingTransitionReason.CANCELED
    over(world, session, world.bob.sessions[0])


def test_the_caller_takes_back_what_is_being_accepted(world: World) -> None:
    session, _, theirs = ringing(world)
    world.alice.do(session.terminate, ())
    accept = world.bob.do(theirs.accept, ANSWER, ())
    assert accept.error.failure_reason is OperationFailureReason.INVALID_SESSION_STATE
    assert "the caller has taken the call back" in str(accept.error)
    over(world, session, theirs)


def test_bye_crosses_bye(world: World) -> None:
    session, theirs = connected(world)
    world.held = []
    ends = [world.alice.do(session.terminate, ()), world.bob.do(theirs.terminate, ())]
    world.release()
    assert [end.ends for end in ends] == [[(None, None)], [(None, None)]]
    assert session.reason is theirs.reason is SignalingTransitionReason.TERMINATED_LOCALLY
    over(world, session, theirs)


@pytest.mark.parametrize("reverse", [False, True])
def test_bye_crosses_re_invite(world: World, reverse: bool) -> None:
    session, theirs = connected(world)
    world.held = []
    renegotiate = world.alice.do(session.renegotiate, AGAIN, ())
    terminate = world.bob.do(theirs.terminate, ())
    world.release(reverse=reverse)
    assert terminate.ends == [(None, None)]
    assert renegotiate.error is not None or renegotiate.message.status_code == 481
    over(world, session, theirs)


def test_re_invites_cross_and_both_get_through(world: World) -> None:
    session, theirs = connected(world)
    world.reactions.append(accept_every_offer)
    world.held = []
    mine = world.alice.do(session.renegotiate, AGAIN, ())
    yours = world.bob.do(theirs.renegotiate, AGAIN, ())
    world.release()
    assert world.log.count("491") == 2
    world.pass_time(10.0)
    assert mine.message.status_code == yours.message.status_code == 200
    assert session.state is theirs.state is CONNECTED
    world.alice.do(session.terminate, ())
    over(world, session, theirs)


def accept_every_offer(party: Any, session: Session, event: Any) -> None:
    if type(event).__name__ == "OfferReceived":
        session.accept_offer(party.world.now, event.transaction, ANSWER)


def test_update_with_an_offer_during_a_re_invite_is_refused(world: World) -> None:
    session, theirs = connected(world)
    world.alice.do(session.renegotiate, AGAIN, ())
    assert theirs.dialog is not None
    update = world.bob.do(theirs.send_request, "UPDATE", [("Allow", "UPDATE"), ("Supported", "timer")], AGAIN)
    assert update.message.status_code == 491
    second = world.alice.do(session.send_request, "UPDATE", [("Allow", "UPDATE"), ("Supported", "timer")], AGAIN)
    assert second.message.status_code == 500
    assert second.message.headers.get("Retry-After") is not None
    world.alice.do(session.terminate, ())
    over(world, session, theirs)


def test_the_200_comes_again_because_the_ack_was_lost(world: World) -> None:
    world.lose = loses("ACK", "ACK")
    session, _, theirs = ringing(world)
    accept = world.bob.do(theirs.accept, ANSWER, ())
    assert not accept.ends
    world.pass_time(5.0)
    assert accept.message.method == "ACK"
    acks = {message.to_bytes() for _, message in world.messages if is_method("ACK")(message)}
    assert len(acks) == 1
    assert world.log.count("200") == 3
    assert session.state is theirs.state is CONNECTED
    world.bob.do(theirs.terminate, ())
    over(world, session, theirs)


def test_no_ack_at_all_is_a_bye(world: World) -> None:
    world.lose = is_method("ACK")
    session, _, theirs = ringing(world)
    accept = world.bob.do(theirs.accept, ANSWER, ())
    world.pass_time(33.0)
    assert isinstance(accept.error, OperationTimeoutException)
    assert theirs.reason is SignalingTransitionReason.TIMEOUT
    assert session.reason is SignalingTransitionReason.TERMINATED_REMOTELY
    over(world, session, theirs)


def test_bye_waits_for_the_ack(world: World) -> None:
    world.lose = loses("ACK")
    session, _, theirs = ringing(world)
    accept = world.bob.do(theirs.accept, ANSWER, ())
    terminate = world.bob.do(theirs.terminate, ())
    assert "BYE" not in world.log
    assert accept.error.failure_reason is OperationFailureReason.SESSION_TERMINATED
    world.pass_time(2.0)
    assert terminate.ends == [(None, None)]
    over(world, session, theirs)


def fork(world: World, response: Response, tag: str) -> None:
    """Another fork says the same."""
    text = response.to_bytes().decode()
    old = response.to_tag
    twin = parse_message(text.replace(f"tag={old}", f"tag={tag}").encode())
    world.alice.engine.receive(world.now, world.alice.flows[0], twin)
    world.run()


@pytest.mark.parametrize("late", [0.0, 20.0])
def test_a_second_fork_that_answers_is_acknowledged_and_ended(world: World, late: float) -> None:
    session, theirs = connected(world)
    success = next(m for _, m in world.messages if isinstance(m, Response) and m.status_code == 200)
    world.pass_time(late)
    before = len(world.messages)
    fork(world, success, "other")
    sent = [m for _, m in world.messages[before:] if isinstance(m, Request)]
    assert [(m.method, m.to_tag) for m in sent] == [("ACK", "other"), ("BYE", "other")]
    assert session.state is CONNECTED
    fork(world, success, "other")
    assert world.messages[-1][1].method == "ACK"
    world.alice.do(session.terminate, ())
    over(world, session, theirs)


def test_early_dialogs_of_other_forks_end_with_the_call(world: World) -> None:
    session, _, theirs = ringing(world)
    ring = next(m for _, m in world.messages if isinstance(m, Response) and m.status_code == 180)
    fork(world, ring, "other")
    assert len(world.alice.engine.dialogs) == 2
    assert {event.to_tag for event in world.alice.happened("ProvisionalReceived")} == {"other", theirs.to_tag}
    world.bob.do(theirs.accept, ANSWER, ())
    assert len(world.alice.engine.dialogs) == 1
    world.alice.do(session.terminate, ())
    over(world, session, theirs)


# ---------------------------------------------------------------------- reliable provisional responses


def test_a_reliable_provisional_response_is_acknowledged(world: World) -> None:
    session, _ = world.alice.call()
    theirs = world.bob.sessions[0]
    reliable = world.bob.do(theirs.send_provisional, 183, None, (), ANSWER, True)
    assert reliable.message.method == "PRACK"
    assert world.log == ["INVITE", "183", "PRACK", "200"]
    (event,) = world.alice.happened("ProvisionalReceived")
    assert (event.is_reliable, event.content, event.needs_answer) == (True, ANSWER, False)
    world.bob.do(theirs.accept, None, ())
    assert session.remote_content == ANSWER
    world.alice.do(session.terminate, ())
    over(world, session, theirs)


def test_prack_is_late_and_the_response_comes_again(world: World) -> None:
    session, _ = world.alice.call()
    theirs = world.bob.sessions[0]
    world.lose = loses("PRACK")
    reliable = world.bob.do(theirs.send_provisional, 180, None, (), None, True)
    assert not reliable.ends
    world.lose = None
    # The PRACK is on its way on a connection that lost it: only its transaction's end, or a new one, could help; the
    # repeated response is one that was seen, and is dropped (RFC 3262 4).
    world.pass_time(3.0)
    assert len(world.alice.happened("ProvisionalReceived")) == 1
    assert world.log.count("180") >= 3
    world.pass_time(40.0)
    assert theirs.reason is SignalingTransitionReason.TIMEOUT
    assert isinstance(reliable.error, OperationTimeoutException)
    over(world, session, theirs)


def test_no_prack_is_the_end_of_the_call(world: World) -> None:
    session, establish = world.alice.call()
    theirs = world.bob.sessions[0]
    world.lose = is_method("PRACK")
    world.bob.do(theirs.send_provisional, 180, None, (), None, True)
    world.pass_time(33.0)
    assert establish.message.status_code == 504
    over(world, session, theirs)


def test_a_repeated_prack_is_refused(world: World) -> None:
    session, _ = world.alice.call()
    theirs = world.bob.sessions[0]
    world.bob.do(theirs.send_provisional, 180, None, (), None, True)
    prack = next(m for _, m in world.messages if is_method("PRACK")(m))
    assert session.dialog is not None
    repeat = session.dialog.create_request("PRACK", [("RAck", prack.headers.get("RAck") or "")])
    session.dialog.send(world.now, repeat, _Ignored())
    world.run()
    assert world.log[-2:] == ["PRACK", "481"]
    world.alice.do(session.terminate, ())
    over(world, session, theirs)


class _Ignored(ClientUsage):
    """Whatever the answer is."""


def test_reliable_responses_go_one_at_a_time_and_the_200_waits_for_a_description(world: World) -> None:
    session, establish = world.alice.call()
    theirs = world.bob.sessions[0]
    world.held = []
    first = world.bob.do(theirs.send_provisional, 183, None, (), ANSWER, True)
    second = world.bob.do(theirs.send_provisional, 180, None, (), None, True)
    accept = world.bob.do(theirs.accept, None, ())
    assert world.log == ["INVITE", "183"]
    world.release()
    assert first.message.method == "PRACK"
    assert len(second.ends) == 1
    assert accept.message.method == "ACK"
    assert establish.message.status_code == 200
    world.alice.do(session.terminate, ())
    over(world, session, theirs)


def test_reliable_responses_out_of_order_are_dropped(world: World) -> None:
    session, _ = world.alice.call()
    theirs = world.bob.sessions[0]
    world.bob.do(theirs.send_provisional, 183, None, (), None, True)
    first = next(m for _, m in world.messages if isinstance(m, Response) and m.status_code == 183)
    late = type(first)(180, "Ringing", list(first.headers), b"")
    late.headers.set("RSeq", str(int(first.headers.get("RSeq") or 0) + 5))
    world.alice.engine.receive(world.now, world.alice.flows[0], late)
    world.run()
    assert len(world.alice.happened("ProvisionalReceived")) == 1
    world.alice.do(session.terminate, ())
    over(world, session, theirs)


def test_an_offer_in_a_reliable_response_is_answered_in_prack(world: World) -> None:
    session, _ = world.alice.call(offer=None)
    theirs = world.bob.sessions[0]
    reliable = world.bob.do(theirs.send_provisional, 183, None, (), OFFER, True)
    (event,) = world.alice.happened("ProvisionalReceived")
    assert event.needs_answer
    assert not reliable.ends
    session.answer_provisional(world.now, ANSWER, ())
    world.run()
    assert reliable.message.body == ANSWER.body
    assert theirs.remote_content == ANSWER
    world.bob.do(theirs.accept, None, ())
    (accepted,) = world.alice.happened("InvitationAccepted")
    assert not accepted.needs_answer
    assert (session.local_content, session.remote_content) == (ANSWER, OFFER)
    world.alice.do(session.terminate, ())
    over(world, session, theirs)


@pytest.mark.parametrize("side", ["caller", "callee"])
def test_who_requires_reliable_responses_gets_them(world: World, side: str) -> None:
    required = SessionOptions(reliable=ExtensionFeatureSupport.REQUIRED)
    session, _ = world.alice.call(options=required if side == "caller" else None)
    theirs = world.bob.sessions[0]
    if side == "callee":
        theirs.options.reliable = ExtensionFeatureSupport.REQUIRED
    ring = world.bob.do(theirs.send_provisional, 180, None, (), None, False)
    assert ring.message.method == "PRACK"
    world.alice.do(session.terminate, ())
    over(world, session, theirs)


def test_a_peer_without_the_required_extension_is_told_so(world: World) -> None:
    session, establish = world.alice.call(options=SessionOptions(reliable=ExtensionFeatureSupport.UNSUPPORTED))
    theirs = world.bob.sessions[0]
    theirs.options.reliable = ExtensionFeatureSupport.REQUIRED
    world.bob.do(theirs.accept, ANSWER, ())
    assert establish.message.status_code == 421
    assert establish.message.headers.get("Require") == "100rel"
    over(world, session, theirs)


# ---------------------------------------------------------------------- lost connections, lost peers


def test_the_connection_is_lost_before_there_is_an_answer(world: World) -> None:
    session, establish, theirs = ringing(world)
    world.cut()
    assert isinstance(establish.error, ConnectionFailureException)
    assert session.reason is theirs.reason is SignalingTransitionReason.UNREACHABLE
    over(world, session, theirs)


def test_the_connection_is_lost_between_200_and_ack(world: World) -> None:
    session, establish, theirs = ringing(world)
    world.lose = is_method("ACK")
    accept = world.bob.do(theirs.accept, ANSWER, ())
    world.cut()
    assert establish.message.status_code == 200
    world.lose = None
    world.pass_time(40.0)
    assert isinstance(accept.error, OperationTimeoutException)
    over(world, session, theirs)


def test_a_session_survives_its_connection(world: World) -> None:
    session, theirs = connected(world)
    world.cut()
    assert session.state is theirs.state is CONNECTED
    assert [event.error is not None for event in world.alice.happened("RouteSetChanged")] == [True]
    info = world.alice.do(session.send_request, "INFO", (), None)
    (received,) = world.bob.happened("RequestReceived")
    world.bob.engine.respond(world.now, received.transaction, received.transaction.create_response(200))
    world.run()
    assert info.message.status_code == 200
    assert [event.error is None for event in world.alice.happened("RouteSetChanged")] == [False, True]
    world.bob.do(theirs.terminate, ())
    over(world, session, theirs)


def test_the_connection_is_lost_while_the_bye_is_under_way(world: World) -> None:
    session, theirs = connected(world)
    world.held = []
    terminate = world.alice.do(session.terminate, ())
    world.cut()
    world.release()
    assert terminate.ends == [(None, None)]
    world.bob.do(theirs.terminate, ())
    over(world, session, theirs)


def test_the_peer_cannot_be_reached_at_all(world: World) -> None:
    world.unreachable = True
    session, establish = world.alice.call()
    assert isinstance(establish.error, ConnectionFailureException)
    over(world, session)


def test_the_peer_was_restarted(world: World) -> None:
    session, theirs = connected(world)
    assert theirs.dialog is not None
    theirs.dialog.remove(theirs)
    info = world.alice.do(session.send_request, "INFO", (), None)
    assert info.message.status_code == 481
    assert session.reason is SignalingTransitionReason.SESSION_DOES_NOT_EXIST
    theirs.timer.stop()
    world.pass_time(100.0)
    world.assert_over()


# ---------------------------------------------------------------------- time


@pytest.mark.parametrize("who", ["alice", "bob"])
def test_the_session_timer_expires_when_the_peer_is_silent(world: World, who: str) -> None:
    session, theirs = connected(world)
    assert session.timer.interval == theirs.timer.interval == 1800
    assert (session.timer.is_refresher, theirs.timer.is_refresher) == (True, False)
    mine = getattr(world, who)
    world.lose = lambda message: True
    world.pass_time(1800.0)
    assert mine.sessions[0].reason is SignalingTransitionReason.SESSION_TIMER_EXPIRED
    world.lose = None
    over(world, session, theirs)


def test_a_session_is_refreshed_for_hours(world: World) -> None:
    session, theirs = connected(world)
    before = len(world.log)
    world.pass_time(4 * 3600.0)
    assert set(world.log[before:]) == {"UPDATE", "200"}
    assert session.state is theirs.state is CONNECTED
    world.alice.do(session.terminate, ())
    over(world, session, theirs)


def test_a_peer_without_update_is_refreshed_by_re_invite(world: World) -> None:
    session, theirs = connected(world)
    world.reactions.append(accept_every_offer)
    session.peer_allow = session.peer_allow - {"UPDATE"}
    before = len(world.log)
    world.pass_time(1000.0)
    assert world.log[before:] == ["INVITE", "200", "ACK"]
    assert len(world.alice.happened("RefreshNeeded")) == 1
    world.alice.do(session.terminate, ())
    over(world, session, theirs)


def test_an_interval_that_is_too_short_is_asked_for_again(world: World) -> None:
    world.bob.record.minimum_session_interval = 600
    session, establish = world.alice.call(options=SessionOptions(session_interval=120))
    (theirs,) = world.bob.sessions
    world.bob.do(theirs.accept, ANSWER, ())
    assert world.log == ["INVITE", "422", "ACK", "INVITE", "200", "ACK"]
    assert establish.message.headers.get("Session-Expires") == "600;refresher=uac"
    assert session.timer.interval == theirs.timer.interval == 600
    world.alice.do(session.terminate, ())
    over(world, session, theirs)


def test_it_rings_too_long(world: World) -> None:
    session, establish, theirs = ringing(world)
    world.pass_time(181.0)
    assert isinstance(establish.error, OperationTimeoutException)
    assert session.reason is SignalingTransitionReason.TIMEOUT
    over(world, session, theirs)


def test_a_timeout_takes_the_call_back(world: World) -> None:
    session, establish, theirs = ringing(world, timeout=5.0)
    world.pass_time(5.0)
    assert isinstance(establish.error, OperationTimeoutException)
    assert theirs.reason is SignalingTransitionReason.CANCELED
    over(world, session, theirs)


def test_nobody_decides(world: World) -> None:
    session, establish = world.alice.call()
    world.pass_time(31.0)
    assert establish.message.status_code == 500
    over(world, session, world.bob.sessions[0])


def test_the_200_comes_again_at_t1_doubled_up_to_t2(world: World) -> None:
    """RFC 3261 13.3.1.4."""
    times: list[float] = []

    def lose(message: Any) -> bool:
        if isinstance(message, Response) and message.status_code == 200 and message.cseq.method == "INVITE":
            times.append(world.now)
        return bool(is_method("ACK")(message))

    session, _, theirs = ringing(world)
    world.lose = lose
    world.bob.do(theirs.accept, ANSWER, ())
    world.pass_time(33.0)
    assert [time - times[0] for time in times] == [0.0, 0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5]
    assert world.bob.engine.counts.retransmitted == 10
    over(world, session, theirs)
