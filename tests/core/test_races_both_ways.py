"""Which test shows which race, seen by who does it and by whom it is done to; and those that are shown nowhere else."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from call_support import ANSWER, Party, World, acknowledge_at_once, connected
from core_support import FakeFlow
from subscription_support import PRESENCE, S, Watch

from p2psip.core.dialog import Content
from p2psip.core.refer import OutgoingRefer
from p2psip.core.session import Session
from p2psip.enums import SignalingState, SignalingTransitionReason
from p2psip.message import Request, Response, parse_message

CONNECTED, DISCONNECTED = SignalingState.CONNECTED, SignalingState.DISCONNECTED
AGAIN = Content("application/sdp", b"v=0\r\ns=again\r\n")
UPDATE = [("Allow", "UPDATE"), ("Supported", "timer")]

RACES = {
    "CANCEL crosses 200": (
        "core/test_call_races.py::test_cancel_crosses_the_200",
        "core/test_call_cuts.py::test_cancel_of_a_re_invite_crosses_its_200",
    ),
    "CANCEL before 100": (
        "core/test_call_races.py::test_cancel_is_held_until_a_provisional_response",
        "core/test_races_both_ways.py::test_a_peer_cancels_before_any_answer",
    ),
    "CANCEL overtakes its INVITE": (
        "core/test_call_races.py::test_cancel_is_held_until_a_provisional_response",
        "core/test_races_both_ways.py::test_a_cancel_that_overtakes_its_invite",
    ),
    "BYE crosses BYE": (
        "core/test_call_races.py::test_bye_crosses_bye",
        "core/test_races_both_ways.py::test_bye_crosses_bye_and_one_of_them_is_first",
    ),
    "BYE crosses re-INVITE": (
        "core/test_call_cuts.py::test_bye_and_re_invite_cross",
        "core/test_call_cuts.py::test_bye_while_a_re_invite_waits_for_its_answer",
    ),
    "re-INVITE glare": (
        "core/test_call_races.py::test_re_invites_cross_and_both_get_through",
        "core/test_renegotiation.py::test_the_wait_after_491_depends_on_who_chose_the_call_id",
    ),
    "UPDATE during a re-INVITE": (
        "core/test_call_cuts.py::test_update_during_a_re_invite",
        "core/test_renegotiation.py::test_update_without_a_body_is_answered_at_any_time",
    ),
    "UPDATE crosses UPDATE": (
        "core/test_renegotiation.py::test_update_crosses_update",
        "core/test_renegotiation.py::test_a_second_offer_before_the_first_is_answered",
    ),
    "the ACK is lost and the 200 comes again": (
        "core/test_call_races.py::test_the_200_comes_again_because_the_ack_was_lost",
        "core/test_call_cuts.py::test_the_ack_of_a_re_invite_is_lost",
    ),
    "no ACK at all": (
        "core/test_session_ends.py::test_nobody_acknowledges_by_hand",
        "core/test_call_races.py::test_no_ack_at_all_is_a_bye",
    ),
    "two forks answer 200": (
        "core/test_recorded_flows.py::test_two_forks_answer",
        "core/test_recorded_flows.py::test_being_one_of_two_forks",
    ),
    "a late fork answers": (
        "core/test_call_races.py::test_a_second_fork_that_answers_is_acknowledged_and_ended",
        "core/test_races_both_ways.py::test_being_the_late_fork",
    ),
    "PRACK is missing": (
        "core/test_races_both_ways.py::test_our_prack_never_arrives",
        "core/test_call_races.py::test_no_prack_is_the_end_of_the_call",
    ),
    "PRACK is late": (
        "core/test_reliable.py::test_one_that_comes_again_has_no_second_prack",
        "core/test_reliable.py::test_a_prack_that_crosses_the_200_is_taken",
    ),
    "PRACK comes twice": (
        "core/test_reliable.py::test_a_prack_whose_connection_is_lost_is_sent_again",
        "core/test_races_both_ways.py::test_a_prack_comes_twice",
    ),
    "provisional responses out of order": (
        "core/test_reliable.py::test_one_that_overtakes_another_is_taken_when_it_comes_again",
        "core/test_reliable.py::test_a_prack_for_something_else_is_refused_and_the_right_one_is_not",
    ),
    "the connection is lost": (
        "core/test_call_cuts.py::test_the_connection_is_lost",
        "core/test_races_both_ways.py::test_the_connection_is_lost_while_the_called_side_acts",
    ),
    "the peer was restarted": (
        "core/test_races_both_ways.py::test_the_peer_was_restarted",
        "core/test_races_both_ways.py::test_who_was_restarted_says_481",
    ),
    "the session timer expires": (
        "core/test_call_races.py::test_the_session_timer_expires_when_the_peer_is_silent",
        "core/test_session_timer.py::test_the_called_side_refreshes_and_the_caller_is_silent",
    ),
    "NOTIFY before the 200": (
        "core/test_races_both_ways.py::test_a_notify_is_answered_before_the_200_is_there",
        "core/test_subscriptions.py::test_notify_comes_before_the_200",
    ),
    "NOTIFY after the end": (
        "core/test_races_both_ways.py::test_the_subscriber_forgets_at_once",
        "core/test_subscriptions.py::test_notify_after_the_end_is_refused",
    ),
    "a handler blocks while the peer cancels": (
        "facade/test_sessions.py::test_terminate_takes_the_call_back",
        "facade/test_sessions.py::test_a_handler_that_blocks_while_the_peer_cancels",
    ),
    "accept and cancel at the same moment": (
        "core/test_call_cuts.py::test_accept_and_take_back_at_the_same_moment",
        "facade/test_sessions.py::test_accept_and_cancel_at_the_same_moment",
    ),
}
"""For each race: the test in which our side does it (or is the caller), and the one in which it is done to our side. Some
show both at once, for both sides of theirs are ours."""


@pytest.mark.parametrize("race", RACES)
def test_the_tests_are_there(race: str) -> None:
    for name in RACES[race]:
        path, _, test = name.partition("::")
        text = (Path(__file__).resolve().parents[1] / path).read_text(encoding="utf-8")
        assert re.search(rf"^def {test}\(", text, re.MULTILINE), name


@pytest.fixture
def world() -> World:
    world = World()
    world.reactions.append(acknowledge_at_once)
    return world


def over(world: World) -> None:
    """Whoever still has a session ends it; then nothing is left."""
    for party in (world.alice, world.bob):
        for session in party.sessions:
            if isinstance(session, Session):
                party.do(session.terminate, ())
    world.pass_time(400.0)
    assert {s.state for p in (world.alice, world.bob) for s in p.sessions if isinstance(s, Session)} <= {DISCONNECTED}
    world.assert_over()


def roles(world: World, who: str) -> tuple[Party, Party, Session, Session]:
    """Who does it, to whom it is done, and their sessions."""
    session, theirs = connected(world)
    if who == "caller":
        return world.alice, world.bob, session, theirs
    return world.bob, world.alice, theirs, session


either_side = pytest.mark.parametrize("who", ["caller", "called"])


def requests(world: World, method: str) -> list[Request]:
    return [m for _, m in world.messages if isinstance(m, Request) and m.method == method]


def is_method(name: str) -> Callable[[Any], bool]:
    return lambda message: isinstance(message, Request) and message.method == name


def reaches_bob(world: World, request: Request, flow: FakeFlow | None = None) -> None:
    """A request of a peer that is none of ours."""
    world.bob.engine.receive(world.now, flow or world.bob.flows[-1], parse_message(request.to_bytes()))
    world.run()


def cancel_of(invite: Request) -> Request:
    names = ("Via", "Max-Forwards", "From", "To", "Call-ID")
    pairs = [(name, invite.headers.get(name) or "") for name in names]
    return Request("CANCEL", invite.uri, [*pairs, ("CSeq", f"{invite.cseq.number} CANCEL")])


# ---------------------------------------------------------------------- CANCEL


def test_a_peer_cancels_before_any_answer(world: World) -> None:
    """A peer need not wait for a provisional response where it knows no better."""
    world.alice.call()
    (theirs,) = world.bob.sessions
    (invite,) = requests(world, "INVITE")
    reaches_bob(world, cancel_of(invite))
    assert world.log == ["INVITE", "200", "487", "ACK"]
    assert theirs.reason is SignalingTransitionReason.CANCELED
    accept = world.bob.do(theirs.accept, ANSWER, ())
    assert "the caller has taken the call back" in str(accept.error)
    over(world)


def test_a_cancel_that_overtakes_its_invite(world: World) -> None:
    """There is nothing yet that could be taken back: 481, and the call rings."""
    world.held = []
    world.alice.call()
    ((_, _, invite),) = world.held
    reaches_bob(world, cancel_of(invite))
    ((_, _, answer),) = world.held[1:]
    assert isinstance(answer, Response)
    assert (answer.status_code, answer.cseq.method) == (481, "CANCEL")
    world.held.pop()  # nobody has asked for it here
    world.release()
    assert world.bob.sessions[0].state is SignalingState.INCOMING
    over(world)


# ---------------------------------------------------------------------- BYE


@either_side
def test_bye_crosses_bye_and_one_of_them_is_first(world: World, who: str) -> None:
    """The BYE that comes second finds nothing, or somebody who says goodbye as well; neither waits for the other."""
    one, two, session, theirs = roles(world, who)
    world.held = []
    first = one.do(session.terminate, ())
    ((party, flow, bye),) = world.held
    second = two.do(theirs.terminate, ())
    world.held.remove((party, flow, bye))
    world.release()  # the second one's BYE and what comes of it, before the first one's
    assert second.ends == [(None, None)]
    party.engine.receive(world.now, flow, bye)
    world.run()
    assert first.ends == [(None, None)]
    assert session.reason is theirs.reason is SignalingTransitionReason.TERMINATED_LOCALLY
    assert not one.happened("TerminatedByPeer")
    assert not two.happened("TerminatedByPeer")
    assert set(world.log[-2:]) <= {"200", "481"}
    over(world)


# ---------------------------------------------------------------------- forks


def test_being_the_late_fork(world: World) -> None:
    """We answer when the caller has another one already: it acknowledges, and hangs up at once."""
    session, _ = world.alice.call()
    (theirs,) = world.bob.sessions
    world.pass_time(20.0)
    success = Response(200, "OK", [("Contact", "<sip:bob@other.example>")])
    (invite,) = requests(world, "INVITE")
    for name in ("Via", "From", "Call-ID", "CSeq"):
        success.headers.add(name, invite.headers.get(name) or "")
    success.headers.add("To", "<sip:bob@bob.example>;tag=other")
    success.headers.add("Content-Type", "application/sdp")
    first = Response(200, "OK", list(success.headers), b"v=0\r\n")
    world.alice.engine.receive(world.now, world.alice.flows[0], parse_message(first.to_bytes()))
    world.lose = lambda message: isinstance(message, Request) and message.to_tag == "other"
    world.run()
    assert (session.state, session.to_tag) == (CONNECTED, "other")
    accept = world.bob.do(theirs.accept, ANSWER, ())
    assert accept.message.method == "ACK"
    assert theirs.reason is SignalingTransitionReason.TERMINATED_REMOTELY
    assert session.state is CONNECTED
    over(world)


# ---------------------------------------------------------------------- PRACK


def test_our_prack_never_arrives(world: World) -> None:
    """The called side gives up and says so, and that is how the caller learns of it."""
    session, establish = world.alice.call()
    world.lose = is_method("PRACK")
    world.bob.do(world.bob.sessions[0].send_provisional, 183, None, (), ANSWER, True)
    assert session.state is SignalingState.ALERTED
    world.pass_time(33.0)
    assert establish.message.status_code == 504
    assert session.state is DISCONNECTED
    assert len(requests(world, "PRACK")) == 1
    over(world)


def test_a_prack_comes_twice(world: World) -> None:
    """A copy of it has a number that was used: it is refused (RFC 3261 12.2.2), and ends nothing."""
    world.alice.call()
    (theirs,) = world.bob.sessions
    reliable = world.bob.do(theirs.send_provisional, 180, None, (), None, True)
    (prack,) = requests(world, "PRACK")
    before = len(world.log)
    reaches_bob(world, prack)
    assert world.log[before:] == ["500"]
    assert reliable.message.method == "PRACK"
    accept = world.bob.do(theirs.accept, ANSWER, ())
    assert accept.message.method == "ACK"
    over(world)


# ---------------------------------------------------------------------- a cut


def changing(world: World) -> None:
    world.bob.do(world.bob.sessions[0].renegotiate, AGAIN, ())


def updating(world: World) -> None:
    world.bob.do(world.bob.sessions[0].send_request, "UPDATE", UPDATE, AGAIN)


def waiting_for_the_ack_of_a_change(world: World) -> None:
    """The called side has changed it, and the caller has agreed."""
    changing(world)
    session = world.alice.sessions[0]
    world.held = []
    operation = world.operation("accept_offer")
    session.accept_offer(world.now, session.renegotiation._theirs, ANSWER, (), operation)
    world.run()


def transferring(world: World) -> None:
    world.bob.do(OutgoingRefer(world.bob.sessions[0], world.bob).refer, "<sip:c@c.example>", (), None, True)


def progressing(world: World) -> None:
    transferring(world)
    (event,) = world.alice.happened("ReferReceived")
    event.refer.user = world.alice
    world.held = []
    event.refer.accept(world.now)
    world.run()


def asking(world: World) -> None:
    world.bob.do(world.bob.sessions[0].send_request, "INFO", (), None)


def leaving(world: World) -> None:
    world.held = []
    world.bob.do(world.bob.sessions[0].terminate, ())


@pytest.mark.parametrize("comes_back", [True, False])
@pytest.mark.parametrize(
    "state",
    [changing, updating, waiting_for_the_ack_of_a_change, transferring, progressing, asking, leaving],
    ids=lambda state: state.__name__,
)
def test_the_connection_is_lost_while_the_called_side_acts(
    world: World, state: Callable[[World], None], comes_back: bool
) -> None:
    session, theirs = connected(world)
    state(world)
    world.unreachable = not comes_back
    world.cut()
    world.held = None
    # What was under way has failed at once; but for what is lost with a connection and may come by another one.
    assert {operation.name for operation in world.operations if not operation.ends} <= {"accept_offer", "terminate"}
    assert session.state is CONNECTED
    if state is not leaving:
        assert theirs.state is CONNECTED
    info = world.alice.do(session.send_request, "INFO", (), None)
    if not comes_back:
        assert info.error is not None
    over(world)


# ---------------------------------------------------------------------- restarts


def restarted(session: Session) -> None:
    """That side knows nothing of it any more."""
    assert session.dialog is not None
    for usage in list(session.dialog.usages):
        session.dialog.remove(usage)
    session.timer.stop()


@either_side
@pytest.mark.parametrize("method", ["BYE", "INVITE", "UPDATE", "INFO"])
def test_the_peer_was_restarted(world: World, method: str, who: str) -> None:
    asker, _, session, theirs = roles(world, who)
    restarted(theirs)
    if method == "BYE":
        assert asker.do(session.terminate, ()).ends == [(None, None)]
        assert session.reason is SignalingTransitionReason.TERMINATED_LOCALLY
    else:
        if method == "INVITE":
            asked = asker.do(session.renegotiate, AGAIN, ())
        else:
            update = method == "UPDATE"
            asked = asker.do(session.send_request, method, UPDATE if update else (), AGAIN if update else None)
        assert asked.message.status_code == 481
        assert session.reason is SignalingTransitionReason.SESSION_DOES_NOT_EXIST
    # RFC 5057 5.1: the session is no more, and nothing is sent into it; but an answer to an INVITE has its ACK.
    assert [name for name in world.log if name in ("BYE", "481")] == ["BYE", "481"][method != "BYE" :]
    world.pass_time(400.0)
    world.assert_over()


@either_side
def test_who_is_told_of_a_transfer_was_restarted(world: World, who: str) -> None:
    """RFC 5057 5.1: a NOTIFY that is answered 481 ends the subscription, not the session, whose own requests find out."""
    asked, asker, session, theirs = roles(world, who)
    asker.do(OutgoingRefer(theirs, asker).refer, "<sip:c@c.example>", (), None, True)
    (event,) = asked.happened("ReferReceived")
    refer = event.refer
    refer.accept(world.now)
    world.run()
    for usage in list(theirs.dialog.usages):  # type: ignore[union-attr]
        if isinstance(usage, OutgoingRefer):
            usage.stop()
    restarted(theirs)
    refer.progress(world.now, 180, None, None, False)
    world.run()
    assert world.log[-2:] == ["NOTIFY", "481"]
    assert not refer.is_active
    assert session.state is CONNECTED
    assert asked.do(session.terminate, ()).ends == [(None, None)]
    world.pass_time(400.0)
    world.assert_over()


@pytest.mark.parametrize("method", ["BYE", "INVITE", "UPDATE", "NOTIFY", "PRACK", "INFO", "REFER", "MESSAGE", "ACK"])
def test_who_was_restarted_says_481(world: World, method: str) -> None:
    """To everything that belongs to a dialog but ACK, which nobody answers (RFC 3261 12.2.2, 17)."""
    session, theirs = connected(world)
    restarted(theirs)
    assert session.dialog is not None
    more = {
        "INVITE": [("Contact", "<sip:alice@a.example>")],
        "NOTIFY": [("Event", "refer"), ("Subscription-State", "active")],
        "PRACK": [("RAck", "1 1 INVITE")],
        "REFER": [("Refer-To", "<sip:c@c.example>")],
    }
    request = session.dialog.create_request(method, more.get(method, []))
    request.headers.prepend("Via", f"SIP/2.0/TLS 192.0.2.1:5061;branch=z9hG4bK-{method}")
    if method == "ACK":
        request.headers.set("CSeq", "7 ACK")
    world.lose = lambda message: True  # nobody waits for it at Alice's
    before = len(world.log)
    reaches_bob(world, request)
    assert world.log[before:] == ([] if method == "ACK" else ["481"])
    world.lose = None
    session.dialog.remove(session)
    session.timer.stop()
    world.pass_time(400.0)
    world.assert_over()


# ---------------------------------------------------------------------- NOTIFY


def test_a_notify_is_answered_before_the_200_is_there() -> None:
    """For who is subscribed to: the answer to its NOTIFY comes while its own answer is still on its way."""
    world = World()
    watch = Watch(world)
    world.held = []
    watch.accept()
    answer, notify = world.held
    assert (answer[2].status_code, notify[2].method) == (200, "NOTIFY")
    world.held = None
    notify[0].engine.receive(world.now, notify[1], notify[2])
    world.run()
    assert world.log[-1] == "200"
    assert len(watch.notifications) == 1
    assert not watch.operation.ends
    told = world.bob.do(watch.notifier.notify, PRESENCE, ())
    assert told.message.status_code == 200
    answer[0].engine.receive(world.now, answer[1], answer[2])
    world.run()
    assert watch.operation.message.status_code == 200
    assert len(watch.notifications) == 2
    assert watch.subscriber.state is S.SUBSCRIBED
    watch.unsubscribe()


def test_the_subscriber_forgets_at_once() -> None:
    """For who is subscribed to: a peer unsubscribes and takes no more NOTIFYs, not even the last one."""
    world = World()
    watch = Watch(world).accept()
    world.held = []
    late = world.bob.do(watch.notifier.notify, PRESENCE, ())
    world.alice.do(watch.subscriber.terminate, ())
    for leg in list(watch.subscriber._legs.values()):
        watch.subscriber.remove_leg(leg)
    assert watch.subscriber._opening is not None
    watch.subscriber._opening.expect_no_more()
    world.release()
    assert late.message.status_code == 481
    assert [event.why for event in world.bob.happened("SubscriptionEnded")] == ["unsubscribed"]
    world.pass_time(100.0)
    world.assert_over()
