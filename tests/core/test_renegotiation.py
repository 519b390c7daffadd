"""Re-INVITE and UPDATE, rule by rule (RFC 3261 14, RFC 3311)."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from call_support import ANSWER, OFFER, Party, World, connected

from p2psip.core.dialog import Content
from p2psip.core.session import Session
from p2psip.core.usage import ClientUsage
from p2psip.enums import SignalingState, SignalingTransitionReason
from p2psip.errors import OperationFailureException, OperationFailureReason, OperationTimeoutException
from p2psip.message import Request, Response, create_response, parse_message

CONNECTED, DISCONNECTED = SignalingState.CONNECTED, SignalingState.DISCONNECTED
NEXT = Content("application/sdp", b"v=0\r\ns=next\r\n")
REPLY = Content("application/sdp", b"v=0\r\ns=reply\r\n")


@pytest.fixture
def world() -> World:
    return World()


class Asked(ClientUsage):
    """A request that a test writes itself, and what it was answered."""

    def __init__(self) -> None:
        self.responses: list[Response] = []

    def responded(self, now: float, client_request: Any, response: Response) -> None:
        self.responses.append(response)

    @property
    def codes(self) -> list[int]:
        return [response.status_code for response in self.responses]


def both(world: World, swapped: bool) -> tuple[Party, Party, Session, Session]:
    session, theirs = connected(world)
    return (world.bob, world.alice, theirs, session) if swapped else (world.alice, world.bob, session, theirs)


def asks(world: World, session: Session, method: str, content: Content | None, *headers: tuple[str, str]) -> Asked:
    asked = Asked()
    assert session.dialog is not None
    pairs = [("Allow", "INVITE, ACK, BYE, UPDATE"), ("Supported", "timer"), *headers]
    session.dialog.send(world.now, session.dialog.create_request(method, pairs, content), asked)
    world.run()
    return asked


def requests(world: World, method: str) -> list[Request]:
    return [m for _, m in world.messages if isinstance(m, Request) and m.method == method]


def is_method(name: str) -> Any:
    return lambda message: isinstance(message, Request) and message.method == name


def is_answer(method: str) -> Any:
    return lambda message: isinstance(message, Response) and message.cseq.method == method


def answers(world: World, method: str, code: int) -> list[Response]:
    return [m for _, m in world.messages if is_answer(method)(m) and m.status_code == code]


def accepts(content: Content | None) -> Any:
    def react(party: Party, session: Session, event: Any) -> None:
        if type(event).__name__ == "OfferReceived":
            session.accept_offer(party.world.now, event.transaction, content)

    return react


def declines(code: int) -> Any:
    def react(party: Party, session: Session, event: Any) -> None:
        if type(event).__name__ == "OfferReceived":
            session.decline_offer(party.world.now, event.transaction, code)

    return react


def over(world: World) -> None:
    world.lose = None
    session = world.alice.sessions[0]
    world.alice.do(session.terminate, ())
    world.pass_time(400.0)
    assert {each.state for party in (world.alice, world.bob) for each in party.sessions} == {DISCONNECTED}
    world.assert_over()


# ---------------------------------------------------------------------- glare


@pytest.mark.parametrize(("swapped", "wait"), [(False, 3.05), (True, 1.0)])
def test_the_wait_after_491_depends_on_who_chose_the_call_id(world: World, swapped: bool, wait: float) -> None:
    """RFC 3261 14.1: 2.1 to 4 s for the owner of the Call-ID, 0 to 2 s for the other; chance is 0.5 here."""
    party, _, session, _ = both(world, swapped)
    before = len(requests(world, "INVITE"))
    world.reactions.append(declines(491))
    party.do(session.renegotiate, NEXT, ())
    assert len(requests(world, "INVITE")) == before + 1
    world.pass_time(wait - 0.01)
    assert len(requests(world, "INVITE")) == before + 1
    world.pass_time(0.02)
    assert len(requests(world, "INVITE")) == before + 2
    over(world)


def test_a_peer_that_always_says_491_is_asked_five_times(world: World) -> None:
    session, theirs = connected(world)
    world.reactions.append(declines(491))
    change = world.alice.do(session.renegotiate, NEXT, ())
    world.pass_time(60.0)
    assert change.message.status_code == 491
    assert world.log.count("491") == 5
    assert session.state is theirs.state is CONNECTED
    numbers = [request.cseq.number for request in requests(world, "INVITE")[1:]]
    assert numbers == list(range(numbers[0], numbers[0] + 5))
    over(world)


def test_after_glare_the_later_one_does_not_undo_the_earlier(world: World) -> None:
    session, theirs = connected(world)
    world.reactions.append(accepts(REPLY))
    world.held = []
    mine = world.alice.do(session.renegotiate, NEXT, ())
    yours = world.bob.do(theirs.renegotiate, OFFER, ())
    world.release()
    world.pass_time(2.0)  # Bob's second one, who has to wait less
    assert yours.message.status_code == 200
    assert (theirs.local_content, theirs.remote_content) == (OFFER, REPLY)
    assert not mine.ends
    world.pass_time(3.0)
    assert mine.message.status_code == 200
    assert (session.local_content, session.remote_content) == (NEXT, REPLY)
    assert (theirs.local_content, theirs.remote_content) == (REPLY, NEXT)
    over(world)


def test_update_crosses_update(world: World) -> None:
    """RFC 3311 5.2, while the call rings: 491 for both, and nobody tries again by itself."""
    session, _ = world.alice.call()
    theirs = world.bob.sessions[-1]
    world.bob.do(theirs.send_provisional, 183, None, (), ANSWER, True)
    world.held = []
    mine = world.alice.do(session.renegotiate, NEXT, ())
    yours = world.bob.do(theirs.renegotiate, REPLY, ())
    world.release()
    assert mine.message.status_code == yours.message.status_code == 491
    assert (session.local_content, session.remote_content) == (OFFER, ANSWER)
    assert (theirs.local_content, theirs.remote_content) == (ANSWER, OFFER)
    over(world)


# ---------------------------------------------------------------------- offers of the peer


@pytest.mark.parametrize("swapped", [False, True])
def test_a_re_invite_without_an_offer_has_its_answer_in_the_ack(world: World, swapped: bool) -> None:
    _, other, session, theirs = both(world, swapped)
    asked = asks(world, session, "INVITE", None)
    (event,) = other.happened("OfferReceived")
    assert event.content is None
    accept = other.do(theirs.accept_offer, event.transaction, NEXT, ())
    (success,) = [response for response in asked.responses if response.status_code == 200]
    assert success.body == NEXT.body
    assert session.dialog is not None
    ack = session.dialog.create_request("ACK", (), REPLY, sequence=success.cseq.number)
    session.dialog.send_ack(world.now, ack)
    world.run()
    assert accept.message.method == "ACK"
    (answer,) = other.happened("AnswerReceived")
    assert answer.content == REPLY
    assert (theirs.local_content, theirs.remote_content) == (NEXT, REPLY)
    over(world)


@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
def test_a_second_offer_before_the_first_is_answered(world: World, method: str) -> None:
    """RFC 3261 14.2, RFC 3311 5.2: 500, with a Retry-After of 0 to 10 s."""
    session, theirs = connected(world)
    first = asks(world, session, "INVITE", NEXT)
    second = asks(world, session, method, NEXT)
    assert second.codes == [500]
    assert 0 <= int(second.responses[0].headers.get("Retry-After") or -1) <= 10
    assert len(world.bob.happened("OfferReceived")) == 1
    (event,) = world.bob.happened("OfferReceived")
    theirs.decline_offer(world.now, event.transaction, 488)
    world.run()
    assert first.codes[-1] == 488
    over(world)


@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
def test_who_goes_on_has_our_200_whatever_has_become_of_the_ack(world: World, method: str) -> None:
    """RFC 3261 14.2 refuses what comes before our final response only. The ACK may be lost with a proxy."""
    session, _ = connected(world)
    world.reactions.append(accepts(REPLY))
    world.lose = is_method("ACK")
    assert world.alice.do(session.renegotiate, NEXT, ()).message.status_code == 200
    world.lose = None
    assert asks(world, session, method, OFFER).codes[-1] == 200
    acks = len(requests(world, "ACK"))
    if method == "UPDATE":
        world.pass_time(5.0)
        assert len(requests(world, "ACK")) == acks  # the 200 is not said again
    over(world)


@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
def test_our_offer_in_a_200_is_to_be_answered_first(world: World, method: str) -> None:
    session, _ = connected(world)
    world.reactions.append(accepts(REPLY))
    world.lose = is_method("ACK")
    assert asks(world, session, "INVITE", None).codes[-1] == 200
    assert asks(world, session, method, OFFER).codes == [500]
    assert asks(world, session, "UPDATE", None).codes == [200]


def test_an_offer_of_ours_waits_for_the_ack_of_theirs(world: World) -> None:
    """The application cannot know that it is on its way."""
    session, theirs = connected(world)
    world.reactions.append(accepts(REPLY))
    world.lose = is_method("ACK")
    assert world.alice.do(session.renegotiate, NEXT, ()).message.status_code == 200
    mine = world.bob.do(theirs.renegotiate, OFFER, ())
    assert mine.ends == []
    world.lose = None
    world.pass_time(1.0)  # the 200 comes again, and is acknowledged
    assert mine.message.status_code == 200
    over(world)


def test_an_offer_of_ours_whose_turn_never_comes(world: World) -> None:
    session, theirs = connected(world)
    world.reactions.append(accepts(REPLY))
    world.lose = is_method("ACK")
    world.alice.do(session.renegotiate, NEXT, ())
    mine = world.bob.do(theirs.renegotiate, OFFER, ())
    world.pass_time(100.0)
    assert isinstance(mine.error, OperationFailureException)
    world.assert_over()


@pytest.mark.parametrize("pending", ["ours", "theirs", "none"])
def test_update_without_a_body_is_answered_at_any_time(world: World, pending: str) -> None:
    session, theirs = connected(world)
    if pending == "ours":
        world.bob.do(theirs.renegotiate, NEXT, ())
    elif pending == "theirs":
        world.alice.do(session.renegotiate, NEXT, ())
    told = len(world.bob.happened("OfferReceived"))
    assert asks(world, session, "UPDATE", None).codes == [200]
    assert len(world.bob.happened("OfferReceived")) == told
    over(world)


def test_nobody_answers_an_offer(world: World) -> None:
    """500 after the handler limit; the session is as it was."""
    session, theirs = connected(world)
    change = world.alice.do(session.renegotiate, NEXT, ())
    world.pass_time(31.0)
    assert change.message.status_code == 500
    assert len(world.bob.happened("OfferCancelled")) == 1
    assert session.state is theirs.state is CONNECTED
    assert (session.local_content, theirs.remote_content) == (OFFER, OFFER)
    (event,) = world.bob.happened("OfferReceived")
    late = world.bob.do(theirs.accept_offer, event.transaction, REPLY, ())
    assert late.error.failure_reason is OperationFailureReason.INVALID_SESSION_STATE
    assert theirs.local_content == ANSWER
    over(world)


@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
@pytest.mark.parametrize("code", [200, 488])
def test_the_new_address_counts_only_where_the_change_is_accepted(world: World, method: str, code: int) -> None:
    """RFC 3261 12.2.2, RFC 3311 5.2."""
    session, theirs = connected(world)
    world.reactions.append(accepts(REPLY) if code == 200 else declines(code))
    assert theirs.dialog is not None
    before = theirs.dialog.remote_target
    session.record.endpoint.user = "moved"  # type: ignore[attr-defined]
    asks(world, session, method, NEXT)
    assert ("moved" in theirs.dialog.remote_target) is (code == 200)
    assert (theirs.dialog.remote_target == before) is (code == 488)
    if method == "INVITE" and code == 200:
        assert session.dialog is not None
        number = session.dialog.local_sequence
        session.dialog.send_ack(world.now, session.dialog.create_request("ACK", sequence=number))
        world.run()
    over(world)


def test_the_address_in_the_200_to_ours_counts_for_the_ack(world: World) -> None:
    session, theirs = connected(world)
    world.reactions.append(accepts(REPLY))
    theirs.record.endpoint.user = "elsewhere"  # type: ignore[attr-defined]
    world.alice.do(session.renegotiate, NEXT, ())
    assert "elsewhere" in requests(world, "ACK")[-1].uri
    over(world)


def test_an_ack_with_another_number_is_no_ack(world: World) -> None:
    session, theirs = connected(world)
    world.reactions.append(accepts(REPLY))
    world.lose = is_method("ACK")
    world.alice.do(session.renegotiate, NEXT, ())
    world.lose = None
    assert session.dialog is not None
    session.dialog.send_ack(world.now, session.dialog.create_request("ACK", sequence=1))
    world.run()
    assert theirs.renegotiation.is_busy
    world.pass_time(1.0)  # the 200 comes again, and so does the right one
    assert not theirs.renegotiation.is_busy
    over(world)


# ---------------------------------------------------------------------- offers of ours


def test_the_same_ack_for_each_200(world: World) -> None:
    session, _ = connected(world)
    world.reactions.append(accepts(REPLY))
    lost: list[bytes] = []

    def lose(message: Any) -> bool:
        if is_method("ACK")(message) and len(lost) < 3:
            lost.append(message.to_bytes())
            return True
        return False

    world.lose = lose
    world.alice.do(session.renegotiate, NEXT, ())
    world.pass_time(10.0)
    acks = [request.to_bytes() for request in requests(world, "ACK")[1:]]
    assert len(acks) == 4
    assert set(acks) == set(lost)
    over(world)


def test_a_second_change_has_to_wait_for_the_first(world: World) -> None:
    session, theirs = connected(world)
    first = world.alice.do(session.renegotiate, NEXT, ())
    second = world.alice.do(session.renegotiate, REPLY, ())
    assert isinstance(second.error, OperationFailureException)
    assert second.error.failure_reason is OperationFailureReason.INVALID_SESSION_STATE
    (event,) = world.bob.happened("OfferReceived")
    crossing = world.bob.do(theirs.renegotiate, REPLY, ())
    assert crossing.error.failure_reason is OperationFailureReason.INVALID_SESSION_STATE
    world.bob.do(theirs.accept_offer, event.transaction, REPLY, ())
    assert first.message.status_code == 200
    over(world)


@pytest.mark.parametrize("code", [300, 403, 415, 488, 500, 503, 603])
def test_a_change_that_is_refused_leaves_all_as_it_was(world: World, code: int) -> None:
    session, theirs = connected(world)
    world.reactions.append(declines(code))
    change = world.alice.do(session.renegotiate, NEXT, ())
    assert change.message.status_code == code
    assert session.state is theirs.state is CONNECTED
    assert (session.local_content, session.remote_content) == (OFFER, ANSWER)
    assert (theirs.local_content, theirs.remote_content) == (ANSWER, OFFER)
    world.reactions[-1] = accepts(REPLY)
    assert world.alice.do(session.renegotiate, NEXT, ()).message.status_code == 200
    over(world)


def test_a_change_that_the_peer_never_answers_ends_the_session(world: World) -> None:
    """RFC 3261 12.2.1.2: no answer at all is like 408."""
    session, _ = connected(world)
    world.lose = is_method("INVITE")
    change = world.alice.do(session.renegotiate, NEXT, ())
    world.pass_time(33.0)
    assert isinstance(change.error, OperationTimeoutException)
    assert session.reason is SignalingTransitionReason.TIMEOUT
    assert requests(world, "BYE")
    over(world)


def test_taken_back_before_anything_was_heard(world: World) -> None:
    """RFC 3261 9.1: CANCEL waits for a provisional response."""
    session, theirs = connected(world)
    world.held = []
    change = world.alice.do(session.renegotiate, NEXT, ())
    assert session.cancel_renegotiation(world.now)
    world.run()
    assert not requests(world, "CANCEL")
    world.release()
    world.pass_time(0.3)
    assert len(requests(world, "CANCEL")) == 1
    assert change.message.status_code == 487
    assert session.state is theirs.state is CONNECTED
    assert not session.cancel_renegotiation(world.now)
    over(world)


def test_taken_back_too_late(world: World) -> None:
    session, _ = connected(world)
    world.reactions.append(accepts(REPLY))
    change = world.alice.do(session.renegotiate, NEXT, ())
    assert not session.cancel_renegotiation(world.now)
    assert change.message.status_code == 200
    assert not requests(world, "CANCEL")
    over(world)


def test_bye_while_we_wait_for_our_turn(world: World) -> None:
    session, theirs = connected(world)
    world.reactions.append(declines(491))
    change = world.alice.do(session.renegotiate, NEXT, ())
    world.bob.do(theirs.terminate, ())
    assert change.error.failure_reason is OperationFailureReason.SESSION_TERMINATED
    over(world)


def test_a_200_that_comes_after_the_bye_is_acknowledged(world: World) -> None:
    session, theirs = connected(world)
    change = world.alice.do(session.renegotiate, NEXT, ())
    (event,) = world.bob.happened("OfferReceived")
    world.held = []
    accept = world.bob.do(theirs.accept_offer, event.transaction, REPLY, ())
    world.alice.do(session.terminate, ())
    assert change.error.failure_reason is OperationFailureReason.SESSION_TERMINATED
    world.release()
    number = requests(world, "INVITE")[-1].cseq.number
    assert number in [request.cseq.number for request in requests(world, "ACK")]
    assert accept.ends
    over(world)


def test_a_second_200_of_the_re_invite_long_after(world: World) -> None:
    session, _ = connected(world)
    world.reactions.append(accepts(REPLY))
    world.alice.do(session.renegotiate, NEXT, ())
    invite, acks = requests(world, "INVITE")[-1], len(requests(world, "ACK"))
    again = create_response(invite, 200, headers=[("Contact", "<sip:bob@192.0.2.2:5061;transport=tls>")])
    world.pass_time(20.0)
    world.alice.engine.receive(world.now, world.alice.flows[0], parse_message(again.to_bytes()))
    world.run()
    assert len(requests(world, "ACK")) == acks + 1
    over(world)


def test_a_provisional_response_and_then_silence(world: World) -> None:
    """The ring limit is for re-INVITEs too; a peer that does not even answer CANCEL is gone."""
    session, _ = connected(world)
    change = world.alice.do(session.renegotiate, NEXT, ())
    world.pass_time(0.3)
    world.lose = lambda message: not is_method("BYE")(message)
    world.pass_time(179.0)
    assert not change.ends
    world.pass_time(40.0)
    assert isinstance(change.error, OperationTimeoutException)
    assert session.reason is SignalingTransitionReason.TIMEOUT
    over(world)


def test_a_change_that_nobody_decides_about_is_taken_back(world: World) -> None:
    session, theirs = connected(world)
    world.lose = lambda message: is_answer("INVITE")(message) and message.status_code == 500
    change = world.alice.do(session.renegotiate, NEXT, ())
    (event,) = world.bob.happened("OfferReceived")
    world.pass_time(0.3)
    world.alice.engine.timers.cancel(session.renegotiation._limit)
    session.renegotiation._out_of_time()  # before the peer's own limit
    world.run()
    assert isinstance(change.error, OperationTimeoutException)
    assert event.transaction.is_answered
    assert session.state is theirs.state is CONNECTED
    over(world)


@pytest.mark.parametrize("body", [b"", REPLY.body])
def test_a_reliable_provisional_response_to_a_re_invite(world: World, body: bytes) -> None:
    """RFC 3262 4: whoever supports 100rel acknowledges it here as well; it may bring the answer."""
    session, theirs = connected(world)
    change = world.alice.do(session.renegotiate, NEXT, ())
    (event,) = world.bob.happened("OfferReceived")
    pairs = [("Contact", "<sip:bob@192.0.2.2:5061;transport=tls>"), ("Require", "100rel"), ("RSeq", "9")]
    for _ in range(2):
        progress = event.transaction.create_response(
            183, headers=pairs, content_type="application/sdp" if body else None, body=body
        )
        world.bob.engine.respond(world.now, event.transaction, progress)
        world.run()
    (prack,) = requests(world, "PRACK")
    assert prack.headers.get("RAck") == f"9 {event.transaction.request.cseq.number} INVITE"
    world.bob.do(theirs.accept_offer, event.transaction, None if body else REPLY, ())
    assert change.message.status_code == 200
    assert (session.local_content, session.remote_content) == (NEXT, REPLY)
    over(world)


@pytest.mark.parametrize("required", [False, True])
def test_a_change_that_takes_a_while_is_announced(world: World, required: bool) -> None:
    """Reliably where the peer requires that (RFC 3262 3)."""
    session, theirs = connected(world)
    more = [("Require", "100rel")] if required else []
    change = world.alice.do(session.renegotiate, NEXT, more)
    (event,) = world.bob.happened("OfferReceived")
    announced = world.bob.do(theirs.send_progress, event.transaction, 183, "Asking", [("X-Why", "slow")])
    progress = answers(world, "INVITE", 183)[-1]
    assert (progress.reason, progress.headers.get("X-Why")) == ("Asking", "slow")
    assert (progress.headers.get("RSeq") is not None) is required
    assert len(requests(world, "PRACK")) == (1 if required else 0)
    assert announced.error is None
    world.pass_time(125.0)  # the handler's time does not count any more
    assert len(answers(world, "INVITE", 183)) == (1 if required else 3)
    assert not change.ends
    accept = world.bob.do(theirs.accept_offer, event.transaction, REPLY, ())
    assert accept.message.method == "ACK"
    assert change.message.status_code == 200
    assert (session.remote_content, theirs.remote_content) == (REPLY, NEXT)
    late = world.bob.do(theirs.send_progress, event.transaction, 183, None, ())
    assert isinstance(late.error, OperationFailureException)
    over(world)


def test_a_change_that_is_announced_and_never_decided(world: World) -> None:
    session, theirs = connected(world)
    world.alice.engine.settings = dataclasses.replace(world.alice.engine.settings, ring_limit=900.0)
    change = world.alice.do(session.renegotiate, NEXT, ())
    (event,) = world.bob.happened("OfferReceived")
    world.bob.do(theirs.send_progress, event.transaction, 180, None, ())
    world.pass_time(181.0)
    assert change.message.status_code == 480
    assert len(world.bob.happened("OfferCancelled")) == 1
    assert session.state is theirs.state is CONNECTED
    over(world)


def test_the_prack_of_what_was_announced_never_comes(world: World) -> None:
    session, theirs = connected(world)
    world.lose = is_method("PRACK")
    change = world.alice.do(session.renegotiate, NEXT, [("Require", "100rel")])
    (event,) = world.bob.happened("OfferReceived")
    announced = world.bob.do(theirs.send_progress, event.transaction, 180, None, ())
    world.pass_time(33.0)
    assert isinstance(announced.error, OperationTimeoutException)
    assert change.message.status_code == 504
    assert session.state is theirs.state is CONNECTED
    over(world)


@pytest.mark.parametrize("how", ["declined", "hung up", "taken back"])
def test_what_was_announced_is_not_said_again_after_its_end(world: World, how: str) -> None:
    session, theirs = connected(world)
    world.alice.do(session.renegotiate, NEXT, ())
    (event,) = world.bob.happened("OfferReceived")
    world.bob.do(theirs.send_progress, event.transaction, 180, None, ())
    if how == "declined":
        theirs.decline_offer(world.now, event.transaction, 488)
        world.run()
    elif how == "hung up":
        world.bob.do(theirs.terminate, ())
    else:
        assert session.cancel_renegotiation(world.now)
        world.run()
    world.pass_time(200.0)
    assert len(answers(world, "INVITE", 180)) == 1
    over(world)


def test_an_update_is_not_announced(world: World) -> None:
    """RFC 4320 4.1."""
    session, theirs = connected(world)
    asked = asks(world, session, "UPDATE", NEXT)
    (event,) = world.bob.happened("OfferReceived")
    announced = world.bob.do(theirs.send_progress, event.transaction, 183, None, ())
    assert isinstance(announced.error, OperationFailureException)
    world.bob.do(theirs.accept_offer, event.transaction, REPLY, ())
    assert asked.codes == [200]
    over(world)


def test_each_change_is_announced_on_its_own(world: World) -> None:
    session, theirs = connected(world)
    for number in range(2):
        change = world.alice.do(session.renegotiate, NEXT, ())
        event = world.bob.happened("OfferReceived")[number]
        world.bob.do(theirs.send_progress, event.transaction, 183, None, ())
        assert answers(world, "INVITE", 183)[-1].cseq == event.transaction.request.cseq
        world.pass_time(100.0)  # together more than the ring limit
        world.bob.do(theirs.accept_offer, event.transaction, REPLY, ())
        assert change.message.status_code == 200
    over(world)


def test_an_ack_that_answers_nothing_changes_nothing(world: World) -> None:
    """Its body is no answer where the INVITE brought the offer, nor where a PRACK has brought the answer before."""
    session, _ = world.alice.call()
    (theirs,) = world.bob.sessions
    world.bob.do(theirs.accept, ANSWER, ())
    session.acknowledge(world.now, REPLY, ())
    world.run()
    (completed,) = world.bob.happened("InvitationCompleted")
    assert completed.content is None
    assert (theirs.local_content, theirs.remote_content) == (ANSWER, OFFER)
    over(world)
    session, _ = world.alice.call(offer=None)
    theirs = world.bob.sessions[-1]
    world.bob.do(theirs.send_provisional, 183, None, (), OFFER, True)
    session.answer_provisional(world.now, ANSWER, ())
    world.run()
    world.bob.do(theirs.accept, OFFER, ())
    session.acknowledge(world.now, REPLY, ())
    world.run()
    assert world.bob.happened("InvitationCompleted")[-1].content is None
    assert (theirs.local_content, theirs.remote_content) == (OFFER, ANSWER)
    world.alice.do(session.terminate, ())
    over(world)
