"""What is left of a call that is over: no session, only what copies and late forks are answered with."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from call_support import ANSWER, OFFER, Party, World, acknowledge_at_once, connected

from p2psip.core.dialog import Content
from p2psip.core.invite_forks import MAXIMUM_FORKS
from p2psip.core.session import Session
from p2psip.message import Request, parse_message

AGAIN = Content("application/sdp", b"v=0\r\ns=again\r\n")
References = list[weakref.ref[Session]]


@pytest.fixture
def world() -> World:
    world = World()
    world.reactions.append(acknowledge_at_once)
    return world


def messages(world: World, name: str) -> list[Any]:
    return [m for _, m in world.messages if (m.method if isinstance(m, Request) else str(m.status_code)) == name]


def accept_offers(party: Party, session: Session, event: Any) -> None:
    if type(event).__name__ == "OfferReceived":
        session.accept_offer(party.world.now, event.transaction, AGAIN)


def no_more_known(world: World) -> None:
    """Forget what the test itself knows of sessions."""
    world.operations.clear()
    for party in (world.alice, world.bob):
        party.sessions.clear()
        party.events.clear()
    gc.collect()


def hung_up_by_the_caller(world: World) -> References:
    session, theirs = connected(world)
    world.alice.do(session.terminate, ())
    return [weakref.ref(session), weakref.ref(theirs)]


def hung_up_by_the_callee(world: World) -> References:
    session, theirs = connected(world)
    world.bob.do(theirs.terminate, ())
    return [weakref.ref(session), weakref.ref(theirs)]


def changed_by_both(world: World) -> References:
    session, theirs = connected(world)
    world.reactions.append(accept_offers)
    world.alice.do(session.renegotiate, OFFER, ())
    world.bob.do(theirs.renegotiate, OFFER, ())
    assert world.log.count("INVITE") == 3
    world.alice.do(session.terminate, ())
    return [weakref.ref(session), weakref.ref(theirs)]


def hung_up_before_the_ack(world: World) -> References:
    world.reactions.remove(acknowledge_at_once)
    session, _ = world.alice.call()
    theirs = world.bob.sessions[-1]
    world.bob.do(theirs.accept, ANSWER, ())
    world.alice.do(session.terminate, ())
    return [weakref.ref(session), weakref.ref(theirs)]


ANSWERED: list[Callable[[World], References]] = [
    hung_up_by_the_caller,
    hung_up_by_the_callee,
    changed_by_both,
    hung_up_before_the_ack,
]


@pytest.mark.parametrize("call", ANSWERED, ids=lambda call: call.__name__)
def test_sessions_are_let_go_when_they_are_over(world: World, call: Callable[[World], References]) -> None:
    gone = call(world)
    no_more_known(world)
    assert [reference() for reference in gone] == [None, None]
    assert world.alice.engine._clients  # the INVITE's, which takes copies of the 2xx
    assert world.bob.engine._servers  # the same, of the INVITE
    world.pass_time(32.0)
    world.assert_over()


@pytest.mark.parametrize("call", ANSWERED, ids=lambda call: call.__name__)
def test_copies_are_answered_when_the_call_is_over(world: World, call: Callable[[World], References]) -> None:
    call(world)
    no_more_known(world)
    world.log.clear()
    for success in [m for m in messages(world, "200") if m.cseq.method == "INVITE"]:
        party = world.alice if success.from_.uri.user == "alice" else world.bob
        party.engine.receive(world.now, party.flows[0], parse_message(success.to_bytes()))
        world.run()
        assert world.log.pop() == "ACK"
        assert world.log == []
        acks = [m.to_bytes() for m in messages(world, "ACK") if m.cseq.number == success.cseq.number]
        assert acks[-1] in acks[:-1]
    for invite in messages(world, "INVITE"):
        party = world.bob if invite.from_.uri.user == "alice" else world.alice
        party.engine.receive(world.now, party.flows[0], parse_message(invite.to_bytes()))
        world.run()
        assert world.log == []
    world.pass_time(32.0)
    world.assert_over()


def test_a_fork_that_answers_when_the_call_is_over_is_acknowledged_and_ended(world: World) -> None:
    gone = hung_up_by_the_caller(world)
    no_more_known(world)
    assert gone[0]() is None
    success = next(m for m in messages(world, "200") if m.cseq.method == "INVITE")
    other = success.to_bytes().replace(f"tag={success.to_tag}".encode(), b"tag=another")
    world.log.clear()
    for sent in (["ACK", "BYE", "481"], ["ACK"]):  # Bob's engine knows of no such fork
        world.alice.engine.receive(world.now, world.alice.flows[0], parse_message(other))
        world.run()
        assert world.log == sent
        world.log.clear()
    assert messages(world, "BYE")[-1].to_tag == "another"
    world.pass_time(32.0)
    world.assert_over()


def test_forks_that_answer_without_end_are_a_flood(world: World) -> None:
    hung_up_by_the_caller(world)
    success = next(m for m in messages(world, "200") if m.cseq.method == "INVITE")
    world.log.clear()
    for number in range(2 * MAXIMUM_FORKS):
        late = success.to_bytes().replace(f"tag={success.to_tag}".encode(), f"tag=another{number}".encode())
        world.alice.engine.receive(world.now, world.alice.flows[0], parse_message(late))
        world.run()
    assert world.log == ["ACK", "BYE", "481"] * MAXIMUM_FORKS


@pytest.mark.parametrize("who", ["alice", "bob"])
def test_a_call_that_was_not_answered_leaves_no_session(world: World, who: str) -> None:
    session, _ = world.alice.call()
    theirs = world.bob.sessions[-1]
    world.bob.do(theirs.send_provisional, 180, None, (), None, False)
    if who == "alice":
        world.alice.do(session.terminate, ())
    else:
        world.bob.do(theirs.reject, 486, None, ())
    gone = [weakref.ref(session), weakref.ref(theirs)]
    del session, theirs
    no_more_known(world)
    assert [reference() for reference in gone] == [None, None]
    world.pass_time(32.0)
    world.assert_over()


def test_a_bye_in_an_early_dialog_leaves_no_session_once_the_invite_is_answered(world: World) -> None:
    session, _ = world.alice.call()
    theirs = world.bob.sessions[-1]
    world.bob.do(theirs.send_provisional, 180, None, (), None, False)
    gone = weakref.ref(session)
    world.held = []
    dialog = theirs.dialog
    assert dialog is not None
    bye = dialog.create_request("BYE")
    bye.headers.prepend("Via", "SIP/2.0/TLS b.example;branch=z9hG4bKearly")
    world.alice.engine.receive(world.now, world.alice.flows[0], parse_message(bye.to_bytes()))
    world.run()
    assert session.is_incoming is False
    assert gone() is session
    del session, theirs, dialog
    world.release()  # CANCEL, and with it 487
    no_more_known(world)
    assert gone() is None
    world.pass_time(32.0)
    world.assert_over()
