"""How calls end that do not go as they should: each operation ends once, both sides know, and nothing is left."""

from __future__ import annotations

from typing import Any

import pytest
from call_support import ANSWER, OFFER, Operation, World, acknowledge_at_once, connected

from p2psip.config import ManagerSettings
from p2psip.core.dialog import Content
from p2psip.core.directory import EndpointRecord
from p2psip.core.invite_forks import MAXIMUM_FORKS
from p2psip.core.refer import OutgoingRefer
from p2psip.core.session import Session, SessionOptions
from p2psip.core.usage import ClientUsage
from p2psip.enums import ExtensionFeatureSupport, SignalingState, SignalingTransitionReason
from p2psip.errors import (
    ConnectionFailureException,
    OperationFailureException,
    OperationFailureReason,
    OperationTimeoutException,
)
from p2psip.message import Request, Response, SipUri, create_response, parse_message

CONNECTED, DISCONNECTED = SignalingState.CONNECTED, SignalingState.DISCONNECTED
AGAIN = Content("application/sdp", b"v=0\r\ns=again\r\n")
ELSEWHERE = [("Contact", "<sip:bob@bob.example;again=1>, <sip:bob@bob.example;again=2>;q=0.5")]


@pytest.fixture
def world() -> World:
    world = World()
    world.reactions.append(acknowledge_at_once)
    return world


def ringing(world: World, *, reliable: bool = False, content: Content | None = None) -> tuple[Session, Any, Session]:
    """Alice's call rings at Bob."""
    session, establish = world.alice.call()
    theirs = world.bob.sessions[-1]
    world.bob.do(theirs.send_provisional, 180, None, (), content, reliable)
    assert session.state is SignalingState.ALERTED
    return session, establish, theirs


def over(world: World, *sessions: Session) -> None:
    world.pass_time(400.0)
    assert {session.state for session in sessions} <= {DISCONNECTED}
    world.assert_over()


def is_method(*names: str) -> Any:
    return lambda message: isinstance(message, Request) and message.method in names


def sent(world: World, name: str) -> list[Any]:
    """The requests of that method, or the responses of that code."""
    return [m for _, m in world.messages if (m.method if isinstance(m, Request) else str(m.status_code)) == name]


def changes(world: World, session: Session) -> list[str]:
    """What the user of the session was told, in order."""
    told: list[str] = []
    world.reactions.append(lambda _, usage, event: told.append(type(event).__name__) if usage is session else None)
    return told


def again_as(world: World, response: Response, tag: str, more: str = "") -> None:
    """Another fork of Alice's INVITE says the same."""
    text = response.to_bytes().decode().replace(f"tag={response.to_tag}", f"tag={tag}")
    head, _, body = text.partition("\r\n\r\n")
    world.alice.engine.receive(world.now, world.alice.flows[0], parse_message(f"{head}{more}\r\n\r\n{body}".encode()))
    world.run()


# ---------------------------------------------------------------------- taken back by the caller


@pytest.mark.parametrize("how", ["terminate", "timeout", "ring limit"])
def test_a_call_that_is_taken_back_and_never_answered(how: str) -> None:
    """The peer rings, answers the CANCEL and says nothing more (RFC 3261 9.1: 64*T1)."""
    world = World()
    options = SessionOptions(ring_limit=5.0 if how == "ring limit" else None)
    session, establish = world.alice.call(timeout=5.0 if how == "timeout" else None, options=options)
    world.bob.do(world.bob.sessions[0].send_provisional, 180, None, (), None, False)
    world.lose = lambda message: isinstance(message, Response) and message.status_code == 487
    if how == "terminate":
        terminate = world.alice.do(session.terminate, [("Reason", 'SIP;cause=200;text="elsewhere"')])
        assert sent(world, "CANCEL")[0].headers.get("Reason") == 'SIP;cause=200;text="elsewhere"'
        assert establish.error.failure_reason is OperationFailureReason.SESSION_TERMINATED
        assert not terminate.ends
        assert session.reason is SignalingTransitionReason.TERMINATED_LOCALLY
    else:
        world.pass_time(5.0)
        assert isinstance(establish.error, OperationTimeoutException)
        assert session.reason is SignalingTransitionReason.TIMEOUT
    assert world.bob.sessions[0].reason is SignalingTransitionReason.CANCELED
    over(world, session, *world.bob.sessions)


def test_a_call_is_taken_back_after_prack_and_answered_at_the_same_moment(world: World) -> None:
    """The BYE has a number of its own although PRACK and UPDATE had one before (RFC 3261 12.2.1.1)."""
    session, establish, theirs = ringing(world, reliable=True, content=ANSWER)
    update = world.alice.do(session.renegotiate, AGAIN, ())
    (offer,) = world.bob.happened("OfferReceived")
    theirs.accept_offer(world.now, offer.transaction, ANSWER)
    world.run()
    assert update.message.status_code == 200
    world.held = []
    accept = world.bob.do(theirs.accept, None, ())
    world.alice.do(session.terminate, ())
    world.release()
    assert accept.message.method == "ACK"
    assert isinstance(establish.error, OperationFailureException)
    assert [bye.cseq.number for bye in sent(world, "BYE")] == [4]
    assert theirs.reason is SignalingTransitionReason.TERMINATED_REMOTELY
    assert theirs.state is DISCONNECTED
    over(world, session, theirs)


def test_a_fork_that_loses_after_its_prack_is_ended_with_the_next_number(world: World) -> None:
    session, _, theirs = ringing(world, reliable=True)
    again_as(world, sent(world, "180")[0], "other")
    assert [(prack.to_tag, prack.cseq.number) for prack in sent(world, "PRACK")] == [(theirs.to_tag, 2), ("other", 2)]
    world.bob.do(theirs.accept, ANSWER, ())
    success = next(m for m in sent(world, "200") if m.cseq.method == "INVITE")
    again_as(world, success, "other")
    (bye,) = sent(world, "BYE")
    assert (bye.to_tag, bye.cseq.number) == ("other", 3)
    assert session.state is CONNECTED
    world.alice.do(session.terminate, ())
    over(world, session, theirs)


def test_terminate_while_the_2xx_waits_for_its_ack() -> None:
    """Nobody has acknowledged the 2xx yet: it is acknowledged and ended."""
    world = World()
    session, establish = world.alice.call()
    theirs = world.bob.sessions[0]
    accept = world.bob.do(theirs.accept, ANSWER, ())
    assert session.state is SignalingState.CONNECTING
    terminate = world.alice.do(session.terminate, ())
    assert len(establish.ends) == 1
    assert accept.message.method == "ACK"
    assert terminate.ends == [(None, None)]
    assert world.log[-4:] == ["200", "ACK", "BYE", "200"]
    over(world, session, theirs)


def test_nobody_acknowledges_by_hand() -> None:
    world = World(settings=ManagerSettings(handler_limit=3.0))
    session, establish = world.alice.call()
    world.bob.do(world.bob.sessions[0].accept, ANSWER, ())
    world.pass_time(2.9)
    assert not establish.ends
    world.pass_time(0.2)
    assert session.state is world.bob.sessions[0].state is CONNECTED
    world.alice.do(session.terminate, ())
    over(world, session)


# ---------------------------------------------------------------------- ended by the called side


def test_a_bye_of_the_caller_overtakes_the_bye_that_waits_for_the_ack(world: World) -> None:
    session, _, theirs = ringing(world)
    world.lose = is_method("ACK")
    world.bob.do(theirs.accept, ANSWER, ())
    terminate = world.bob.do(theirs.terminate, ())
    assert not terminate.ends
    world.alice.do(session.terminate, ())
    assert terminate.ends == [(None, None)]
    world.pass_time(400.0)
    assert len(sent(world, "BYE")) == 1
    over(world, session, theirs)


def test_no_ack_after_terminate(world: World) -> None:
    session, _, theirs = ringing(world)
    world.lose = is_method("ACK")
    accept = world.bob.do(theirs.accept, ANSWER, ())
    terminate = world.bob.do(theirs.terminate, ())
    again = world.bob.do(theirs.terminate, ())
    assert accept.error.failure_reason is OperationFailureReason.SESSION_TERMINATED
    world.pass_time(31.9)
    assert not sent(world, "BYE")
    world.pass_time(0.2)
    assert len(sent(world, "BYE")) == 1
    assert terminate.ends == again.ends == [(None, None)]
    over(world, session, theirs)


def test_the_caller_hangs_up_while_the_200_waits_for_a_prack(world: World) -> None:
    """BYE in the early dialog."""
    session, _ = world.alice.call()
    (theirs,) = world.bob.sessions
    world.lose = is_method("PRACK")
    provisional = world.bob.do(theirs.send_provisional, 183, None, (), ANSWER, True)
    told = changes(world, theirs)
    accept = world.bob.do(theirs.accept, None, ())
    assert session.dialog is not None
    session.dialog.send(world.now, session.dialog.create_request("BYE"), ClientUsage())
    world.run()
    assert accept.error.failure_reason is OperationFailureReason.SESSION_TERMINATED
    assert "ended by the peer" in str(accept.error)
    assert told == ["SessionStateChanged", "TerminatedByPeer", "SessionStateChanged"]
    assert len(provisional.ends) == 1
    over(world, session, theirs)


def test_the_prack_that_the_200_waits_for_never_comes(world: World) -> None:
    """RFC 3262 3: the INVITE is refused with a 5xx."""
    session, establish = world.alice.call()
    (theirs,) = world.bob.sessions
    world.lose = is_method("PRACK")
    provisional = world.bob.do(theirs.send_provisional, 183, None, (), ANSWER, True)
    accept = world.bob.do(theirs.accept, None, ())
    assert theirs.state is SignalingState.CONNECTING
    world.pass_time(33.0)
    assert isinstance(provisional.error, OperationTimeoutException)
    assert isinstance(accept.error, OperationTimeoutException)
    assert establish.message.status_code == 504
    assert theirs.reason is SignalingTransitionReason.TIMEOUT
    over(world, session, theirs)


def test_the_caller_takes_back_what_waits_for_a_prack(world: World) -> None:
    session, _ = world.alice.call()
    (theirs,) = world.bob.sessions
    world.lose = is_method("PRACK")
    world.bob.do(theirs.send_provisional, 183, None, (), ANSWER, True)
    accept = world.bob.do(theirs.accept, None, ())
    world.alice.do(session.terminate, ())
    assert "ended by the peer" in str(accept.error)
    assert theirs.reason is SignalingTransitionReason.CANCELED
    over(world, session, theirs)


# ---------------------------------------------------------------------- commands at the wrong time


def test_every_command_in_every_state_ends_its_operation(world: World) -> None:
    def try_all(session: Session) -> list[Operation]:
        do, owner = world.alice.do, session
        return [
            do(lambda now, op: owner.establish(now, "sip:b@b", "<sip:b@b>", None, None, (), op)),
            do(owner.accept, ANSWER, ()),
            do(owner.send_provisional, 180, None, (), None, False),
            do(owner.reject, 486, None, ()),
            do(owner.send_request, "INFO", (), None),
            do(owner.renegotiate, AGAIN, ()),
        ]

    def refused(operations: list[Operation]) -> None:
        for operation in operations:
            assert operation.error.failure_reason is OperationFailureReason.INVALID_SESSION_STATE

    idle = Session(world.alice.engine, world.alice.record, world.alice)
    refused(try_all(idle)[1:])
    session, _, theirs = ringing(world)
    refused(try_all(session))
    world.bob.do(theirs.reject, 302, None, ELSEWHERE)
    assert session.state is SignalingState.REDIRECTING
    refused(try_all(session))
    session.acknowledge(world.now, None, ())
    session.answer_provisional(world.now, None, ())
    world.alice.do(session.terminate, ())
    refused(try_all(session))
    assert world.alice.do(session.terminate, ()).ends == [(None, None)]
    session.follow(world.now, "sip:bob@bob.example;again=1", ())
    session.give_up(world.now)
    assert not session.cancel_renegotiation(world.now)
    over(world, session, theirs)


def test_an_idle_session_that_is_terminated(world: World) -> None:
    session = Session(world.alice.engine, world.alice.record, world.alice)
    assert world.alice.do(session.terminate, ()).ends == [(None, None)]
    assert session.state is DISCONNECTED
    over(world)


@pytest.mark.parametrize("code", [481, 404])
def test_an_answer_in_the_session_that_says_it_is_gone(world: World, code: int) -> None:
    """RFC 5057 5.1. Only 481 says that the peer knows of nothing: with the others somebody on the way has spoken, or the
    peer itself without knowing what it said, and BYE keeps it from being left alone in a call.
    """
    session, theirs = connected(world)
    world.reactions.append(
        lambda party, _, event: (
            party.engine.respond(world.now, event.transaction, event.transaction.create_response(code))
            if type(event).__name__ == "RequestReceived"
            else None
        )
    )
    told = changes(world, session)
    info = world.alice.do(session.send_request, "INFO", (), None)
    assert info.message.status_code == code
    assert session.reason is SignalingTransitionReason.SESSION_DOES_NOT_EXIST
    assert told == ["SessionStateChanged"]
    assert len(sent(world, "BYE")) == (0 if code == 481 else 1)
    assert theirs.state is (CONNECTED if code == 481 else DISCONNECTED)
    world.bob.do(theirs.terminate, ())
    over(world, session, theirs)


@pytest.mark.parametrize("timeout", [None, 5.0, 90.0])
def test_a_request_in_the_session_that_nobody_answers(world: World, timeout: float | None) -> None:
    """RFC 3261 12.2.1.2: as if 408 had come. Not before the protocol's own time is over."""
    session, theirs = connected(world)
    world.lose = is_method("INFO")
    operation = world.operation("INFO")
    session.send_request(world.now, "INFO", (), None, operation, timeout)
    world.run()
    world.pass_time(33.0)
    assert isinstance(operation.error, OperationTimeoutException)
    if timeout == 5.0:
        assert session.state is theirs.state is CONNECTED
        world.alice.do(session.terminate, ())
    else:
        assert session.reason is SignalingTransitionReason.TIMEOUT
        assert theirs.reason is SignalingTransitionReason.TERMINATED_REMOTELY
    over(world, session, theirs)


@pytest.mark.parametrize("what", ["INFO", "INVITE", "REFER"])
def test_a_request_in_the_session_that_could_not_be_sent(world: World, what: str) -> None:
    """No connection in time is not the peer's silence: the session lives."""
    session, theirs = connected(world)
    world.cut()
    carry_out = world._open
    world._open = lambda party, effect: None  # type: ignore[method-assign]
    if what == "INFO":
        operation = world.alice.do(session.send_request, "INFO", (), None)
    elif what == "INVITE":
        operation = world.alice.do(session.renegotiate, AGAIN, ())
    else:
        operation = world.alice.do(OutgoingRefer(session, world.alice).refer, "<sip:c@c.example>", (), None, True)
    world.pass_time(200.0)
    assert isinstance(operation.error, OperationTimeoutException)
    assert session.state is CONNECTED
    world._open = carry_out  # type: ignore[method-assign]
    world.alice.do(session.terminate, ())
    over(world, session, theirs)


def test_a_copy_of_a_request_that_comes_by_another_way_harms_nothing(world: World) -> None:
    """RFC 3261 12.2.2: with a branch of its own over another connection, while the first one was lost to its sender."""
    session, theirs = connected(world)
    world.alice.do(session.send_request, "INFO", (), None)
    dialog = session.dialog
    assert dialog is not None
    dialog.local_sequence -= 1
    again = world.alice.do(session.send_request, "INFO", (), None)
    assert again.message.status_code == 500
    assert len(world.bob.happened("RequestReceived")) == 1
    assert session.state is theirs.state is CONNECTED
    world.alice.do(session.terminate, ())
    over(world, session, theirs)


def test_a_proxy_that_gets_no_answer_says_408(world: World) -> None:
    session, theirs = connected(world)
    world.lose = is_method("INFO")
    info = world.alice.do(session.send_request, "INFO", (), None)
    answer = create_response(sent(world, "INFO")[0], 408, to_tag=theirs.to_tag)
    world.alice.engine.receive(world.now, world.alice.flows[0], parse_message(answer.to_bytes()))
    world.run()
    assert info.message.status_code == 408
    assert session.reason is SignalingTransitionReason.TIMEOUT
    assert theirs.reason is SignalingTransitionReason.TERMINATED_REMOTELY
    over(world, session, theirs)


@pytest.mark.parametrize("code", [481, 408, 488, 500, 491])
def test_an_answer_to_a_change(world: World, code: int) -> None:
    session, theirs = connected(world)
    world.reactions.append(
        lambda party, usage, event: (
            usage.decline_offer(world.now, event.transaction, code) if type(event).__name__ == "OfferReceived" else None
        )
    )
    change = world.alice.do(session.renegotiate, AGAIN, ())
    world.pass_time(30.0)
    assert change.message.status_code == code
    assert session.state is (DISCONNECTED if code in (481, 408) else CONNECTED)
    assert session.local_content == OFFER
    world.bob.do(theirs.terminate, ())
    over(world, session, theirs)


# ---------------------------------------------------------------------- redirections


def redirected(world: World) -> tuple[Session, Operation]:
    session, establish = world.alice.call()
    world.bob.do(world.bob.sessions[-1].reject, 302, None, ELSEWHERE)
    assert session.state is SignalingState.REDIRECTING
    return session, establish


def test_a_redirected_call_rings_as_long_as_the_first_one() -> None:
    world = World(settings=ManagerSettings(ring_limit=20.0))
    session, _, first = ringing(world)
    world.pass_time(15.0)
    world.bob.do(first.reject, 302, None, ELSEWHERE)
    session.follow(world.now, "sip:bob@bob.example;again=1", ())
    world.run()
    second = world.bob.sessions[-1]
    world.bob.do(second.send_provisional, 180, None, (), None, False)
    world.pass_time(15.0)
    assert session.state is SignalingState.ALERTED
    world.pass_time(10.0)
    assert session.reason is SignalingTransitionReason.TIMEOUT
    over(world, session, first, second)


def test_a_target_that_cannot_be_reached_leads_to_the_next(world: World) -> None:
    """RFC 3261 8.1.3.1 and 8.1.3.4: like a 503."""
    session, establish = redirected(world)
    for party in (world.alice, world.bob):
        party.flows.clear()
    world.unreachable = True
    session.follow(world.now, "sip:bob@bob.example;again=1", ())
    world.run()
    event = world.alice.happened("Redirected")[-1]
    assert event.targets == ("sip:bob@bob.example;again=2",)
    assert event.response.status_code == 302
    session.follow(world.now, event.targets[0], ())
    world.run()
    assert isinstance(establish.error, ConnectionFailureException)
    assert session.reason is SignalingTransitionReason.UNREACHABLE
    over(world, session)


def test_redirections_have_a_limit(world: World) -> None:
    session, establish = world.alice.call(options=SessionOptions(maximum_redirects=2))
    for number in range(3):
        where = [("Contact", f"<sip:bob@bob.example;again={number}>")]
        world.bob.do(world.bob.sessions[-1].reject, 302, None, where)
        if number < 2:
            session.follow(world.now, f"sip:bob@bob.example;again={number}", ())
            world.run()
    assert establish.message.status_code == 302
    assert session.state is DISCONNECTED
    assert [invite.cseq.number for invite in sent(world, "INVITE")] == [1, 2, 3]
    over(world, session)


@pytest.mark.parametrize("contact", ["<sip:bob@bob.example>", "<mailto:bob@bob.example>", "*"])
def test_a_redirection_to_nowhere_is_the_end(world: World, contact: str) -> None:
    session, establish = world.alice.call()
    world.bob.do(world.bob.sessions[-1].reject, 302, None, [("Contact", contact)])
    assert establish.message.status_code == 302
    assert not world.alice.happened("Redirected")
    over(world, session)


def test_nobody_decides_about_a_redirection(world: World) -> None:
    session, establish = redirected(world)
    world.pass_time(31.0)
    assert establish.message.status_code == 302
    over(world, session)


def test_an_interval_that_grows_is_not_followed_for_ever(world: World) -> None:
    world.bob.engine.acceptors["INVITE"] = lambda _, transaction, __: transaction.respond(
        transaction.create_response(422, headers=[("Min-SE", str(1800 + 100 * transaction.request.cseq.number))])
    )
    session, establish = world.alice.call()
    assert establish.message.status_code == 422
    assert len(sent(world, "INVITE")) <= 5
    over(world, session)


# ---------------------------------------------------------------------- the end of the engine


def _state_redirecting(world: World) -> None:
    redirected(world)


def _state_calling(world: World) -> None:
    world.lose = is_method("INVITE")
    world.alice.call()


def _state_ringing(world: World) -> None:
    ringing(world)


def _state_pracking(world: World) -> None:
    world.lose = is_method("PRACK")
    world.alice.call()
    world.bob.do(world.bob.sessions[0].send_provisional, 183, None, (), ANSWER, True)
    world.bob.do(world.bob.sessions[0].send_provisional, 183, None, (), None, True)
    world.bob.do(world.bob.sessions[0].accept, None, ())


def _state_without_ack(world: World) -> None:
    world.lose = is_method("ACK")
    world.alice.call()
    world.bob.do(world.bob.sessions[0].accept, ANSWER, ())


def _state_ended_without_ack(world: World) -> None:
    _state_without_ack(world)
    world.bob.do(world.bob.sessions[0].terminate, ())


def _state_changing(world: World) -> None:
    session, theirs = connected(world)
    world.alice.do(session.renegotiate, AGAIN, ())
    world.bob.do(theirs.send_request, "INFO", (), None)


def _state_change_without_ack(world: World) -> None:
    session, theirs = connected(world)
    world.lose = is_method("ACK")
    world.alice.do(session.renegotiate, AGAIN, ())
    (offer,) = world.bob.happened("OfferReceived")
    world.bob.do(lambda now, op: theirs.accept_offer(now, offer.transaction, ANSWER, (), op))


def _state_hanging_up(world: World) -> None:
    session, _ = connected(world)
    world.lose = is_method("BYE")
    world.alice.do(session.terminate, ())


def _state_taken_back(world: World) -> None:
    session, _, _ = ringing(world)
    world.lose = is_method("CANCEL")
    world.alice.do(session.terminate, ())


STATES = {name.removeprefix("_state_"): value for name, value in list(globals().items()) if name.startswith("_state_")}


@pytest.mark.parametrize("state", STATES)
def test_the_engine_ends(world: World, state: str) -> None:
    """Every operation has ended without any more time, and the sessions are over."""
    STATES[state](world)
    error = OperationFailureException("The manager was disposed.", OperationFailureReason.ABORTED)
    for party in (world.alice, world.bob):
        party.engine.shutdown(world.now, error)
    world.run()
    assert not [operation for operation in world.operations if not operation.ends]
    for party in (world.alice, world.bob):
        assert {session.state for session in party.sessions} <= {DISCONNECTED}
        party.assert_empty()


# ---------------------------------------------------------------------- what an INVITE may ask for


def test_what_the_called_side_does_not_want_is_not_required_of_it(world: World) -> None:
    """RFC 3262 3: 420 where 100rel is required and not supported."""
    session, establish = world.alice.call(options=SessionOptions(reliable=ExtensionFeatureSupport.REQUIRED))
    (theirs,) = world.bob.sessions
    theirs.options.reliable = ExtensionFeatureSupport.UNSUPPORTED
    accept = world.bob.do(theirs.accept, ANSWER, ())
    assert accept.error.failure_reason is OperationFailureReason.INVALID_SESSION_STATE
    assert establish.message.status_code == 420
    assert establish.message.headers.get("Unsupported") == "100rel"
    over(world, session, theirs)


def test_a_call_that_expires_while_it_rings(world: World) -> None:
    """RFC 3261 13.3.1: 487 once the time in Expires is over."""
    session, establish = world.alice.call(headers=[("Expires", "10")])
    (theirs,) = world.bob.sessions
    world.bob.do(theirs.send_provisional, 180, None, (), None, False)
    world.pass_time(9.0)
    assert theirs.state is SignalingState.INCOMING
    world.pass_time(2.0)
    assert establish.message.status_code == 487
    assert theirs.reason is SignalingTransitionReason.TIMEOUT
    over(world, session, theirs)


def test_a_long_ring_is_heard_of_every_minute(world: World) -> None:
    """RFC 3261 13.3.1.1: proxies would take it back after three minutes."""
    session, _, theirs = ringing(world)
    world.pass_time(125.0)
    assert world.log.count("180") == 3
    world.bob.do(theirs.accept, ANSWER, ())
    world.pass_time(125.0)
    assert world.log.count("180") == 3
    world.alice.do(session.terminate, ())
    over(world, session, theirs)


def replacing(world: World, value: str, name: str = "Replaces") -> Operation:
    _, establish = world.alice.call(headers=[("Require", name.lower()), (name, value)])
    return establish


@pytest.mark.parametrize("is_ours", [True, False])
def test_replaces_in_an_early_dialog(world: World, is_ours: bool) -> None:
    """RFC 3891 3: only whoever began it can have it replaced before it is answered."""
    if is_ours:
        old, _ = world.bob.call()
        world.alice.do(world.alice.sessions[-1].send_provisional, 180, None, (), None, False)
    else:
        _, _, old = ringing(world)
    assert old.dialog is not None
    new = replacing(world, f"{old.call_id};to-tag={old.dialog.local_tag};from-tag={old.dialog.remote_tag};early-only")
    if is_ours:
        assert world.bob.sessions[-1].replaces is old
        world.bob.do(world.bob.sessions[-1].reject, 603, None, ())
    else:
        assert new.message.status_code == 481
    for party in (world.alice, world.bob):
        for session in party.sessions:
            party.do(session.terminate, ())
    over(world)


@pytest.mark.parametrize(
    ("more", "headers", "code"),
    [
        (";early-only", (), 486),
        ("", [("Replaces", "x;to-tag=1;from-tag=2")], 400),
        ("", [("Join", "x;to-tag=1;from-tag=2")], 400),
    ],
)
def test_replaces_that_cannot_be(world: World, more: str, headers: Any, code: int) -> None:
    session, theirs = connected(world)
    dialog = theirs.dialog
    assert dialog is not None
    value = f"{dialog.call_id};to-tag={dialog.local_tag};from-tag={dialog.remote_tag}{more}"
    _, establish = world.alice.call(headers=[("Replaces", value), *headers])
    assert establish.message.status_code == code
    world.alice.do(session.terminate, ())
    over(world, session, theirs)


@pytest.mark.parametrize("name", ["Replaces", "Join"])
def test_a_call_that_has_ended_is_not_replaced(world: World, name: str) -> None:
    """RFC 3891 3, RFC 3911 4: 603, for 481 would say that there never was one."""
    session, theirs = connected(world)
    dialog = theirs.dialog
    assert dialog is not None
    world.lose = is_method("BYE")
    world.bob.do(theirs.terminate, ())
    value = f"{dialog.call_id};to-tag={dialog.local_tag};from-tag={dialog.remote_tag}"
    assert replacing(world, value, name).message.status_code == 603
    world.lose = None
    world.alice.do(session.terminate, ())
    over(world, session, theirs)


def test_nobody_replaces_the_call_of_another_endpoint(world: World) -> None:
    session, theirs = connected(world)
    dialog = theirs.dialog
    assert dialog is not None
    dialog.record = EndpointRecord(
        endpoint=dialog.record.endpoint, owner=SipUri.parse("sip:x@x"), opaque="x", gruu=None, epid="x"
    )
    value = f"{dialog.call_id};to-tag={dialog.local_tag};from-tag={dialog.remote_tag}"
    assert replacing(world, value).message.status_code == 481
    assert replacing(world, value, "Join").message.status_code == 481
    world.alice.do(session.terminate, ())
    over(world, session, theirs)


# ---------------------------------------------------------------------- the way to the peer


def test_the_peer_comes_back_by_another_connection(world: World) -> None:
    session, theirs = connected(world)
    world.cut()
    assert [event.error is None for event in world.bob.happened("RouteSetChanged")] == [False]
    world.reactions.append(
        lambda party, _, event: (
            party.engine.respond(world.now, event.transaction, event.transaction.create_response(200))
            if type(event).__name__ == "RequestReceived"
            else None
        )
    )
    world.alice.do(session.send_request, "INFO", (), None)
    for party in (world.alice, world.bob):
        assert [event.error is None for event in party.happened("RouteSetChanged")] == [False, True]
    world.bob.do(theirs.send_request, "INFO", (), None)
    assert len(world.bob.happened("RouteSetChanged")) == 2
    world.alice.do(session.terminate, ())
    over(world, session, theirs)


def test_a_change_that_is_taken_back_while_it_waits_for_its_turn(world: World) -> None:
    session, theirs = connected(world)
    world.reactions.append(
        lambda _, usage, event: (
            usage.decline_offer(world.now, event.transaction, 491) if type(event).__name__ == "OfferReceived" else None
        )
    )
    change = world.alice.do(session.renegotiate, AGAIN, ())
    assert not change.ends
    assert session.cancel_renegotiation(world.now)
    world.run()
    assert "taken back" in str(change.error)
    assert session.state is CONNECTED
    world.pass_time(10.0)
    assert len(sent(world, "INVITE")) == 2
    world.alice.do(session.terminate, ())
    over(world, session, theirs)


def test_forks_without_end_come_to_one(world: World) -> None:
    """Each 2xx of another fork costs an ACK and a BYE; more forks than any proxy has are let be."""
    session, theirs = connected(world)
    success = sent(world, "200")[0]
    for number in range(200):
        again_as(world, success, f"fork{number}")
    assert len(sent(world, "BYE")) == MAXIMUM_FORKS
    again_as(world, success, "fork0")
    assert len(sent(world, "ACK")) == MAXIMUM_FORKS + 2
    world.alice.do(session.terminate, ())
    over(world, session, theirs)


def test_a_request_that_outlives_its_session_does_not_end_it_again(world: World) -> None:
    session, theirs = connected(world)
    world.lose = is_method("INFO")
    info = world.alice.do(session.send_request, "INFO", (), None)
    world.pass_time(10.0)
    world.alice.do(session.terminate, ())
    world.pass_time(60.0)
    assert info.error.failure_reason is OperationFailureReason.SESSION_TERMINATED
    assert len(sent(world, "BYE")) == 1
    over(world, session, theirs)


def test_a_ring_that_crosses_the_end_does_not_revive_the_call(world: World) -> None:
    session, _, theirs = ringing(world)
    world.lose = is_method("CANCEL")
    world.alice.do(session.terminate, ())
    told = changes(world, session)
    again_as(world, sent(world, "180")[0], "fork")
    assert session.state is DISCONNECTED
    assert not told
    assert len(world.alice.engine.dialogs) == 1  # until the INVITE has its answer
    over(world, session, theirs)


@pytest.mark.parametrize("how", ["terminate", "time", "BYE"])
def test_a_call_that_rang_ends_while_another_server_is_looked_for(
    world: World, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of its early dialogs end with it."""
    session, establish = world.alice.call(timeout=5.0)
    theirs = world.bob.sessions[-1]
    world.bob.do(theirs.send_provisional, 180, None, (), None, False)
    rings = world.messages[-1][1]
    fork = rings.to_bytes().replace(f"tag={rings.to_tag}".encode(), b"tag=fork")
    world.alice.engine.receive(world.now, world.alice.flows[-1], parse_message(fork))
    world.run()
    assert len(world.alice.engine.dialogs) == 2
    request = session._outgoing._client_request
    request.target = request.target._replace(port=None)  # a name, which may have more servers
    world.held = []
    if how == "BYE":
        bye = theirs.dialog.create_request("BYE")
        theirs.dialog.send(world.now, bye, ClientUsage())
        world.run()
        world.held.reverse()
    world.bob.do(theirs.reject, 503, None, ())
    held, world.held = world.held, None
    monkeypatch.setattr(world, "_open", lambda party, effect: None)  # it takes its time
    refusal = next(each for each in held if isinstance(each[2], Response) and each[2].status_code == 503)
    others = [each for each in held if each is not refusal]
    for party, flow, message in (refusal, *others):
        party.engine.receive(world.now, flow, message)
        world.run()
    if how == "terminate":
        world.alice.do(session.terminate, ())
    elif how == "time":
        world.pass_time(6.0)
    assert establish.error is not None
    assert session.state is SignalingState.DISCONNECTED
    over(world, session, theirs)
