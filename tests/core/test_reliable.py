"""Reliable provisional responses, rule by rule (RFC 3262)."""

from __future__ import annotations

from typing import Any

import pytest
from call_support import ANSWER, OFFER, World, acknowledge_at_once

from p2psip.config import ManagerSettings
from p2psip.core.dialog import Content
from p2psip.core.session import Session, SessionOptions
from p2psip.core.tables import Input
from p2psip.core.usage import ClientUsage
from p2psip.enums import ExtensionFeatureSupport, SignalingState
from p2psip.errors import ConnectionFailureException, OperationFailureException
from p2psip.message import Request, Response

NEXT = Content("application/sdp", b"v=0\r\ns=next\r\n")
REPLY = Content("application/sdp", b"v=0\r\ns=reply\r\n")


@pytest.fixture
def world() -> World:
    world = World()
    world.reactions.append(acknowledge_at_once)
    return world


class Asked(ClientUsage):
    """A request that a test writes itself, and what it was answered."""

    def __init__(self) -> None:
        self.codes: list[int] = []

    def responded(self, now: float, client_request: Any, response: Response) -> None:
        self.codes.append(response.status_code)


def calling(world: World, **more: Any) -> tuple[Session, Any, Session]:
    session, establish = world.alice.call(**more)
    return session, establish, world.bob.sessions[-1]


def provisional(world: World, session: Session, code: int = 180, content: Any = None, reliable: bool = True) -> Any:
    return world.bob.do(session.send_provisional, code, None, (), content, reliable)


def requests(world: World, method: str) -> list[Request]:
    return [m for _, m in world.messages if isinstance(m, Request) and m.method == method]


def responses(world: World, code: int) -> list[Response]:
    return [m for _, m in world.messages if isinstance(m, Response) and m.status_code == code]


def prack(world: World, session: Session, rack: str | None, content: Any = None) -> int:
    """Alice sends a PRACK of the test's making; the answer."""
    asked = Asked()
    assert session.dialog is not None
    pairs = [] if rack is None else [("RAck", rack)]
    session.dialog.send(world.now, session.dialog.create_request("PRACK", pairs, content), asked)
    world.run()
    (code,) = asked.codes
    return code


def is_method(name: str) -> Any:
    return lambda message: isinstance(message, Request) and message.method == name


def over(world: World, session: Session) -> None:
    world.lose = None
    world.alice.do(session.terminate, ())
    world.pass_time(400.0)
    world.assert_over()


def test_each_has_the_next_number_and_a_prack_of_its_own(world: World) -> None:
    session, _, theirs = calling(world)
    operations = [provisional(world, theirs, code) for code in (180, 181, 182, 183)]
    sent = [responses(world, code)[0] for code in (180, 181, 182, 183)]
    numbers = [int(response.headers.get("RSeq") or 0) for response in sent]
    assert numbers == list(range(numbers[0], numbers[0] + 4))
    assert 1 <= numbers[0] < 2**31
    assert all("100rel" in response.headers.get_all("Require") for response in sent)
    assert [r.headers.get("RAck") for r in requests(world, "PRACK")] == [f"{n} 1 INVITE" for n in numbers]
    assert [operation.message.method for operation in operations] == ["PRACK"] * 4
    assert [r.cseq.number for r in requests(world, "PRACK")] == [2, 3, 4, 5]
    over(world, session)


def test_it_comes_again_at_t1_doubled_each_time_without_a_bound(world: World) -> None:
    """RFC 3262 3: not held down to T2."""
    session, _, theirs = calling(world)
    world.lose = is_method("PRACK")
    provisional(world, theirs)
    times = [0.0]
    while world.now < 31.9:
        before = len(responses(world, 180))
        world.pass_time(0.5)
        times += [world.now] * (len(responses(world, 180)) - before)
    assert times == [0.0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5]
    world.pass_time(1.0)
    assert len(responses(world, 504)) == 1
    assert len(responses(world, 180)) == 7
    assert world.bob.engine.counts.retransmitted == 6
    over(world, session)


def test_the_prack_ends_the_repetition(world: World) -> None:
    session, _, theirs = calling(world)
    provisional(world, theirs)
    world.pass_time(50.0)
    assert len(responses(world, 180)) == 1
    over(world, session)


def test_a_long_ring_is_heard_of_every_two_and_a_half_minutes(world: World) -> None:
    """RFC 3262 3: less often than without PRACK, because none gets lost. A description is not said again."""
    world.bob.engine.settings = world.alice.engine.settings = ManagerSettings(ring_limit=900.0)
    session, _, theirs = calling(world)
    world.bob.do(theirs.send_provisional, 183, "Soon", [("Alert-Info", "<urn:alert:tone>")], ANSWER, True)
    world.pass_time(149.0)
    assert len(responses(world, 183)) == 1
    world.pass_time(2.0)
    first, second = responses(world, 183)
    assert int(second.headers.get("RSeq") or 0) == int(first.headers.get("RSeq") or 0) + 1
    assert (second.reason, second.headers.get("Alert-Info"), second.body) == ("Soon", "<urn:alert:tone>", b"")
    assert len(requests(world, "PRACK")) == 2
    world.pass_time(150.0)
    assert len(responses(world, 183)) == 3
    provisional(world, theirs, 180, reliable=False)  # from here on every minute
    world.pass_time(61.0)
    assert (len(responses(world, 183)), len(responses(world, 180))) == (3, 2)
    world.bob.do(theirs.accept, None, ())
    world.pass_time(300.0)
    assert (len(responses(world, 183)), len(responses(world, 180))) == (3, 2)
    over(world, session)


@pytest.mark.parametrize("is_answer", [False, True])
def test_a_prack_whose_connection_is_lost_is_sent_again(world: World, is_answer: bool) -> None:
    """The INVITE lives on over the connection of a proxy, and the peer says the provisional response again."""
    session, establish, theirs = calling(world, offer=None if is_answer else OFFER)
    world.lose = is_method("PRACK")
    operation = provisional(world, theirs, 183, OFFER if is_answer else ANSWER)
    if is_answer:
        session.answer_provisional(world.now, ANSWER, ())
        world.run()
    world.lose = None
    (client,) = [c for c in world.alice.engine._clients.values() if c.request.method == "PRACK"]
    client.user.flow_lost(ConnectionFailureException("The connection was lost."))
    client.take(Input.ABANDON)
    world.pass_time(0.6)
    assert [r.cseq.number for r in requests(world, "PRACK")] == [2, 3]
    assert len({(r.headers.get("RAck"), r.body) for r in requests(world, "PRACK")}) == 1
    assert operation.message.method == "PRACK"
    assert len(world.alice.happened("ProvisionalReceived")) == 1
    world.bob.do(theirs.accept, None, ())
    assert establish.message.status_code == 200
    over(world, session)


def test_one_that_comes_again_has_no_second_prack(world: World) -> None:
    session, _, theirs = calling(world)
    world.held = []
    provisional(world, theirs)
    world.pass_time(0.6)  # it has been repeated by now
    world.release()
    assert len(responses(world, 180)) == 2
    assert len(requests(world, "PRACK")) == 1
    assert len(world.alice.happened("ProvisionalReceived")) == 1
    over(world, session)


def test_one_that_overtakes_another_is_taken_when_it_comes_again(world: World) -> None:
    """RFC 3262 4: a gap is not filled by waiting; the other side repeats."""
    session, _, theirs = calling(world)
    provisional(world, theirs, 183)
    first = responses(world, 183)[0]
    number = int(first.headers.get("RSeq") or 0)

    def comes(code: int, rseq: int) -> None:
        response = Response(code, "Odd", list(first.headers), b"")
        response.headers.set("RSeq", str(rseq))
        world.alice.engine.receive(world.now, world.alice.flows[0], response)

    for code, rseq in ((182, 2), (181, 1), (182, 2), (181, 1), (183, 0)):
        comes(code, number + rseq)
    world.run()
    seen = [event.response.status_code for event in world.alice.happened("ProvisionalReceived")]
    assert seen == [183, 181, 182]
    racks = [r.headers.get("RAck") for r in requests(world, "PRACK")]
    assert racks == [f"{number + step} 1 INVITE" for step in range(3)]
    over(world, session)


def test_a_prack_for_something_else_is_refused_and_the_right_one_is_not(world: World) -> None:
    session, _, theirs = calling(world)
    world.lose = is_method("PRACK")
    operation = provisional(world, theirs)
    world.lose = None
    number = int(responses(world, 180)[0].headers.get("RSeq") or 0)
    for rack in (
        f"{number + 1} 1 INVITE",
        f"{number} 2 INVITE",
        f"{number} 1 UPDATE",
        f"{number} 1",
        "one two INVITE",
        None,
    ):
        assert prack(world, session, rack) == 481
    assert not operation.ends
    assert prack(world, session, f"{number} 1 INVITE") == 200
    assert operation.message.method == "PRACK"
    over(world, session)


def test_a_prack_of_nothing_at_all(world: World) -> None:
    session, _, theirs = calling(world)
    provisional(world, theirs, reliable=False)
    assert prack(world, session, "1 1 INVITE") == 481
    over(world, session)


def test_the_caller_is_sent_a_prack(world: World) -> None:
    session, _, theirs = calling(world)
    provisional(world, theirs)
    asked = Asked()
    assert theirs.dialog is not None
    theirs.dialog.send(world.now, theirs.dialog.create_request("PRACK", [("RAck", "1 1 INVITE")]), asked)
    world.run()
    assert asked.codes == [481]
    over(world, session)


@pytest.mark.parametrize(
    ("caller", "callee", "wanted", "is_reliable"),
    [
        (ExtensionFeatureSupport.UNSUPPORTED, ExtensionFeatureSupport.SUPPORTED, True, False),
        (ExtensionFeatureSupport.SUPPORTED, ExtensionFeatureSupport.UNSUPPORTED, True, False),
        (ExtensionFeatureSupport.SUPPORTED, ExtensionFeatureSupport.SUPPORTED, False, False),
        (ExtensionFeatureSupport.SUPPORTED, ExtensionFeatureSupport.SUPPORTED, True, True),
        (ExtensionFeatureSupport.SUPPORTED, ExtensionFeatureSupport.REQUIRED, False, True),
        (ExtensionFeatureSupport.REQUIRED, ExtensionFeatureSupport.SUPPORTED, False, True),
    ],
)
def test_what_the_two_policies_come_to(
    world: World, caller: ExtensionFeatureSupport, callee: ExtensionFeatureSupport, wanted: bool, is_reliable: bool
) -> None:
    session, _, theirs = calling(world, options=SessionOptions(reliable=caller))
    theirs.options.reliable = callee
    operation = provisional(world, theirs, reliable=wanted)
    (response,) = responses(world, 180)
    assert (response.headers.get("RSeq") is not None) is is_reliable
    assert ("100rel" in (response.headers.get("Require") or "")) is is_reliable
    assert (operation.message is not None) is is_reliable
    (event,) = world.alice.happened("ProvisionalReceived")
    assert event.is_reliable is is_reliable
    over(world, session)


def test_100_is_never_reliable(world: World) -> None:
    session, _, theirs = calling(world, options=SessionOptions(reliable=ExtensionFeatureSupport.REQUIRED))
    provisional(world, theirs, 100)
    assert responses(world, 100)[0].headers.get("RSeq") is None
    over(world, session)


def test_the_200_does_not_wait_for_one_without_a_description(world: World) -> None:
    session, establish, theirs = calling(world)
    world.lose = is_method("PRACK")
    provisional(world, theirs)
    world.bob.do(theirs.accept, ANSWER, ())
    assert establish.message.status_code == 200
    world.pass_time(20.0)
    assert len(responses(world, 180)) == 1  # RFC 3262 3: it is not repeated after the final response
    over(world, session)


def test_what_waits_in_line_is_not_sent_after_the_end(world: World) -> None:
    session, _, theirs = calling(world)
    world.lose = is_method("PRACK")
    operations = [provisional(world, theirs, code) for code in (180, 181, 182)]
    world.bob.do(theirs.reject, 486, None, ())
    assert all(operation.ends for operation in operations)
    assert not responses(world, 181)
    world.pass_time(100.0)
    assert session.state is theirs.state is SignalingState.DISCONNECTED
    world.lose = None
    world.assert_over()


@pytest.mark.parametrize("who", ["caller", "callee"])
def test_update_in_the_early_dialog_after_offer_and_answer(world: World, who: str) -> None:
    """RFC 3311 5.1."""
    session, establish, theirs = calling(world)
    provisional(world, theirs, 183, ANSWER)
    mine, other = (session, theirs) if who == "caller" else (theirs, session)
    party = world.alice if who == "caller" else world.bob
    change = party.do(mine.renegotiate, OFFER, ())
    (event,) = world.other(party).happened("OfferReceived")
    assert event.content == OFFER
    world.other(party).do(other.accept_offer, event.transaction, ANSWER, ())
    assert change.message.status_code == 200
    assert (mine.local_content, mine.remote_content) == (OFFER, ANSWER)
    assert (other.local_content, other.remote_content) == (ANSWER, OFFER)
    assert [r.method for _, r in world.messages if isinstance(r, Request)] == ["INVITE", "PRACK", "UPDATE"]
    world.bob.do(theirs.accept, None, ())
    assert establish.message.status_code == 200
    over(world, session)


def test_forks_count_each_on_their_own(world: World) -> None:
    session, _, theirs = calling(world)
    provisional(world, theirs, 183)
    first = responses(world, 183)[0]
    for tag, number in (("fork", 7), ("fork", 8), ("other", 7)):
        response = Response(183, "Session Progress", list(first.headers), b"")
        response.headers.set("To", f"<sip:bob@bob.example>;tag={tag}")
        response.headers.set("RSeq", str(number))
        world.alice.engine.receive(world.now, world.alice.flows[0], response)
    world.run()
    racks = [(r.to_tag, (r.headers.get("RAck") or "").split()[0]) for r in requests(world, "PRACK")][1:]
    assert racks == [("fork", "7"), ("fork", "8"), ("other", "7")]
    numbers = [r.cseq.number for r in requests(world, "PRACK") if r.to_tag == "fork"]
    assert numbers == [2, 3]
    over(world, session)


def test_the_offer_of_a_provisional_response_that_is_never_answered(world: World) -> None:
    session, establish, theirs = calling(world, offer=None)
    operation = provisional(world, theirs, 183, OFFER)
    world.pass_time(33.0)
    assert operation.error is not None
    assert establish.message.status_code == 504
    session.answer_provisional(world.now, ANSWER, ())
    world.run()
    assert not requests(world, "PRACK")
    over(world, session)


def lost_prack(world: World, theirs: Session, content: Content | None = None) -> str:
    """A reliable 183 whose PRACK is lost; what another PRACK has to say in RAck."""
    world.lose = is_method("PRACK")
    provisional(world, theirs, 183, content)
    world.lose = None
    return f"{responses(world, 183)[0].headers.get('RSeq')} 1 INVITE"


def test_a_prack_that_crosses_the_200_is_taken(world: World) -> None:
    """RFC 3262 3: whoever has sent the final response is prepared for what was outstanding. Once."""
    session, establish, theirs = calling(world)
    rack = lost_prack(world, theirs)
    world.bob.do(theirs.accept, ANSWER, ())
    assert establish.message.status_code == 200
    assert prack(world, session, rack) == 200
    assert prack(world, session, rack) == 481
    over(world, session)


@pytest.mark.parametrize("code", [200, 488])
def test_another_offer_in_a_prack(world: World, code: int) -> None:
    """RFC 3262 5: the answer is in the 2xx to it."""
    session, establish, theirs = calling(world)
    rack = lost_prack(world, theirs, ANSWER)
    asked = Asked()
    assert session.dialog is not None
    session.dialog.send(world.now, session.dialog.create_request("PRACK", [("RAck", rack)], NEXT), asked)
    world.run()
    assert not asked.codes
    (event,) = world.bob.happened("OfferReceived")
    assert event.content == NEXT
    if code == 200:
        world.bob.do(theirs.accept_offer, event.transaction, REPLY, ())
        assert world.messages[-1][1].body == REPLY.body
        assert (theirs.local_content, theirs.remote_content) == (REPLY, NEXT)
    else:
        theirs.decline_offer(world.now, event.transaction, code)
        world.run()
        assert (theirs.local_content, theirs.remote_content) == (ANSWER, OFFER)
    assert asked.codes == [code]
    world.bob.do(theirs.accept, None, ())
    assert establish.message.status_code == 200
    over(world, session)


def test_an_offer_in_a_prack_while_one_of_ours_is_open(world: World) -> None:
    session, _, theirs = calling(world)
    provisional(world, theirs, 180, ANSWER)
    rack = lost_prack(world, theirs)
    world.bob.do(theirs.renegotiate, REPLY, ())
    assert prack(world, session, rack, NEXT) == 491
    (event,) = world.alice.happened("OfferReceived")
    world.alice.do(session.accept_offer, event.transaction, ANSWER, ())
    over(world, session)


def test_the_200_repeats_an_offer_that_is_answered_already(world: World) -> None:
    session, _, theirs = calling(world, offer=None)
    provisional(world, theirs, 183, OFFER)
    session.answer_provisional(world.now, ANSWER, ())
    world.run()
    accept = world.bob.do(theirs.accept, OFFER, ())
    assert accept.message.body == b""
    (completed,) = world.bob.happened("InvitationCompleted")
    assert completed.content is None
    assert (theirs.local_content, theirs.remote_content) == (OFFER, ANSWER)
    assert (session.local_content, session.remote_content) == (ANSWER, OFFER)
    over(world, session)


@pytest.mark.parametrize("who", ["caller", "callee"])
def test_what_update_has_changed_is_not_undone_by_the_200(world: World, who: str) -> None:
    session, _, theirs = calling(world)
    provisional(world, theirs, 183, ANSWER)
    mine, other = (session, theirs) if who == "caller" else (theirs, session)
    party = world.alice if who == "caller" else world.bob
    party.do(mine.renegotiate, NEXT, ())
    (event,) = world.other(party).happened("OfferReceived")
    world.other(party).do(other.accept_offer, event.transaction, REPLY, ())
    world.bob.do(theirs.accept, None, ())
    assert mine.state is other.state is SignalingState.CONNECTED
    assert (mine.local_content, mine.remote_content) == (NEXT, REPLY)
    assert (other.local_content, other.remote_content) == (REPLY, NEXT)
    over(world, session)


def from_fork(world: World, code: int, tag: str, rseq: int | None, content: Content | None) -> None:
    """A response to Alice's INVITE from another fork of it."""
    headers = [(name, value) for name, value in responses(world, 183)[0].headers if name not in ("Require", "RSeq")]
    body = b"" if content is None else content.body
    response = Response(code, "Fork", headers, body)
    response.headers.set("To", f"<sip:bob@bob.example>;tag={tag}")
    if rseq is not None:
        response.headers.set("Require", "100rel")
        response.headers.set("RSeq", str(rseq))
    world.alice.engine.receive(world.now, world.alice.flows[0], response)
    world.run()


def test_each_fork_has_an_answer_of_its_own(world: World) -> None:
    """The one that wins without a description in its 2xx has agreed to its own, not to the last one that came."""
    session, establish, theirs = calling(world)
    provisional(world, theirs, 183, ANSWER)
    from_fork(world, 183, "fork", 7, REPLY)
    assert session.remote_content == REPLY
    world.bob.do(theirs.accept, None, ())
    assert establish.message.status_code == 200
    assert (session.local_content, session.remote_content) == (OFFER, ANSWER)
    over(world, session)


def test_a_fork_whose_offer_was_not_answered_before_has_its_answer_in_the_ack(world: World) -> None:
    session, _, theirs = calling(world, offer=None)
    provisional(world, theirs, 183, OFFER)
    session.answer_provisional(world.now, ANSWER, ())
    world.run()
    from_fork(world, 200, "fork", None, NEXT)
    (event,) = world.alice.happened("InvitationAccepted")
    assert (event.content, event.needs_answer) == (NEXT, True)
    assert requests(world, "ACK")[0].body == ANSWER.body
    assert (session.local_content, session.remote_content) == (ANSWER, NEXT)
    over(world, session)


def test_an_update_of_one_fork_does_not_move_the_other(world: World) -> None:
    session, establish, theirs = calling(world)
    provisional(world, theirs, 183, ANSWER)
    from_fork(world, 183, "fork", 7, REPLY)
    change = world.bob.do(theirs.renegotiate, NEXT, ())
    other = session.dialog
    assert other is not None
    assert other.remote_tag == "fork"
    target = other.remote_target = "sip:elsewhere@192.0.2.9"
    (event,) = world.alice.happened("OfferReceived")
    world.alice.do(session.accept_offer, event.transaction, OFFER, ())
    assert change.message.status_code == 200
    assert (other.remote_target, other.remote_content) == (target, REPLY)
    world.bob.do(theirs.accept, None, ())
    assert establish.message.status_code == 200
    assert session.remote_content == NEXT
    over(world, session)


def test_a_fork_that_rings_while_an_update_is_under_way_changes_nothing(world: World) -> None:
    session, establish, theirs = calling(world)
    provisional(world, theirs, 183, ANSWER)
    change = world.alice.do(session.renegotiate, NEXT, ())
    from_fork(world, 183, "fork", 7, None)
    (event,) = world.bob.happened("OfferReceived")
    world.bob.do(theirs.accept_offer, event.transaction, REPLY, ())
    assert change.message.status_code == 200
    assert (session.remote_content,) == (None,)
    world.bob.do(theirs.accept, None, ())
    assert establish.message.status_code == 200
    assert (session.local_content, session.remote_content) == (NEXT, REPLY)
    over(world, session)


def lost(world: World, rseq: int) -> None:
    """The PRACK of that response is lost with its connection, as far as Alice knows."""
    for client in list(world.alice.engine._clients.values()):
        if (client.request.headers.get("RAck") or "").startswith(f"{rseq} "):
            client.user.flow_lost(ConnectionFailureException("The connection was lost."))
            client.take(Input.ABANDON)


def test_a_lost_prack_is_not_sent_for_the_next_response(world: World) -> None:
    """It had arrived: only its answer was lost."""
    session, _, theirs = calling(world, offer=None)
    world.lose = lambda message: isinstance(message, Response) and message.cseq.method == "PRACK"
    provisional(world, theirs, 183)
    lost(world, int(responses(world, 183)[0].headers.get("RSeq") or 0))
    world.lose = None
    provisional(world, theirs, 183, OFFER)
    world.pass_time(2.0)  # it is repeated, because nobody has answered the offer
    assert len(responses(world, 183)) > 2
    assert len(requests(world, "PRACK")) == 1
    session.answer_provisional(world.now, ANSWER, ())
    world.run()
    assert len(requests(world, "PRACK")) == 2
    over(world, session)


def test_an_older_prack_that_is_lost_does_not_repeat_the_newer_one(world: World) -> None:
    session, _, theirs = calling(world)
    world.lose = lambda message: isinstance(message, Response) and message.cseq.method == "PRACK"
    for code in (181, 183):
        provisional(world, theirs, code)
    lost(world, int(responses(world, 181)[0].headers.get("RSeq") or 0))
    world.lose = None
    world.alice.engine.receive(world.now, world.alice.flows[0], responses(world, 183)[0])
    world.run()
    assert len(requests(world, "PRACK")) == 2
    over(world, session)


def test_100_is_not_said_again(world: World) -> None:
    session, _, theirs = calling(world)
    world.bob.do(theirs.send_provisional, 100, None, (), None, False)
    world.pass_time(130.0)
    assert len(responses(world, 100)) == 1
    over(world, session)


def test_no_update_before_the_offer_in_a_provisional_response_is_answered(world: World) -> None:
    """RFC 3311 5.1."""
    session, _, theirs = calling(world, offer=None)
    provisional(world, theirs, 183, OFFER)
    session.answer_provisional(world.now, None, ())
    world.run()
    change = world.bob.do(theirs.renegotiate, NEXT, ())
    assert isinstance(change.error, OperationFailureException)
    assert not requests(world, "UPDATE")
    over(world, session)


def test_a_late_prack_finds_its_invite_while_a_re_invite_is_announced(world: World) -> None:
    session, _, theirs = calling(world)
    rack = lost_prack(world, theirs)
    world.bob.do(theirs.accept, ANSWER, ())
    change = world.alice.do(session.renegotiate, NEXT, [("Require", "100rel")])
    (event,) = world.bob.happened("OfferReceived")
    world.bob.do(theirs.send_progress, event.transaction, 183, None, ())
    assert prack(world, session, rack) == 200
    world.bob.do(theirs.accept_offer, event.transaction, REPLY, ())
    assert change.message.status_code == 200
    over(world, session)
