"""The call flows of the RFCs, as far as user agents are concerned: what goes over the wire, in which order, to whom.

What each single message has to bear is checked for every message that the engines send, in ``call_support``. Both user
agents are ours here; see ``test_basic_flows``, ``test_service_flows`` and ``test_recorded_flows`` for what is printed.
"""

from __future__ import annotations

from typing import Any

import pytest
from call_support import ANSWER, OFFER, Party, World, acknowledge_at_once, connected

from p2psip.core.dialog import Content
from p2psip.core.refer import OutgoingRefer
from p2psip.core.session import Session
from p2psip.enums import SignalingState, SignalingTransitionReason
from p2psip.errors import OperationTimeoutException
from p2psip.message import Request, Response

HOLD = Content("application/sdp", b"v=0\r\na=sendonly\r\n")
HELD = Content("application/sdp", b"v=0\r\na=recvonly\r\n")
PROXIES = ("<sip:ss2.b.example;lr>", "<sip:ss1.a.example;lr>")
"""As the called side sees them in Record-Route: the nearest first."""


@pytest.fixture
def world() -> World:
    world = World()
    world.reactions.append(acknowledge_at_once)
    return world


def ring(world: World) -> tuple[Session, Any, Session]:
    session, establish = world.alice.call()
    theirs = world.bob.sessions[-1]
    world.bob.do(theirs.send_provisional, 180, None, (), None, False)
    return session, establish, theirs


def requests(world: World, method: str) -> list[Request]:
    return [m for _, m in world.messages if isinstance(m, Request) and m.method == method]


def responses(world: World, code: int, method: str = "INVITE") -> list[Response]:
    return [
        m for _, m in world.messages if isinstance(m, Response) and (m.status_code, m.cseq.method) == (code, method)
    ]


def test_rfc_3665_3_1_successful_session_establishment(world: World) -> None:
    _, _, theirs = ring(world)
    world.bob.do(theirs.accept, ANSWER, ())
    world.bob.do(theirs.terminate, ())
    assert world.log == ["INVITE", "180", "200", "ACK", "BYE", "200"]
    (invite,), (ack,), (bye,) = requests(world, "INVITE"), requests(world, "ACK"), requests(world, "BYE")
    (success,) = responses(world, 200)
    # RFC 3261 12.1: the contacts become the targets, the tags are those of the dialog.
    assert ack.uri == bye_target(success)
    assert bye.uri == bye_target(invite)
    assert (ack.from_tag, ack.to_tag) == (invite.from_tag, success.to_tag)
    assert (bye.from_tag, bye.to_tag) == (success.to_tag, invite.from_tag)
    assert {m.call_id for _, m in world.messages} == {invite.call_id}
    assert (str(invite.cseq), str(ack.cseq), str(bye.cseq)) == ("1 INVITE", "1 ACK", "1 BYE")
    assert ack.top_branch not in (invite.top_branch, bye.top_branch)
    assert (invite.body, success.body) == (OFFER.body, ANSWER.body)
    assert invite.content_type == success.content_type == "application/sdp"
    world.pass_time(100.0)
    world.assert_over()


def bye_target(message: Request | Response) -> str:
    contacts = message.contact
    assert not isinstance(contacts, str)
    return str(contacts[0].uri)


def through_proxies(world: World) -> None:
    """What two proxies that stay on the path write into the INVITE, on its way to Bob."""
    send = world._send

    def record(party: Party, flow: Any, message: Any) -> None:
        if isinstance(message, Request) and message.method == "INVITE" and message.to_tag is None:
            message.headers.add("Record-Route", ", ".join(PROXIES))
        send(party, flow, message)

    world._send = record  # type: ignore[method-assign]


def test_rfc_3665_3_2_through_two_proxies(world: World) -> None:
    through_proxies(world)
    session, theirs = connected(world)
    (success,) = responses(world, 200)
    assert success.headers.get_all("Record-Route") == list(PROXIES)
    (ack,) = requests(world, "ACK")
    assert ack.headers.get_all("Route") == list(PROXIES[::-1])
    world.bob.do(theirs.renegotiate, HOLD, ())
    (_, re_invite) = requests(world, "INVITE")
    assert re_invite.headers.get_all("Route") == list(PROXIES)
    session.accept_offer(world.now, session.renegotiation._theirs, HELD)  # type: ignore[arg-type]
    world.run()
    world.alice.do(session.terminate, ())
    (bye,) = requests(world, "BYE")
    assert bye.headers.get_all("Route") == list(PROXIES[::-1])
    assert bye.uri == bye_target(success)
    world.pass_time(100.0)
    world.assert_over()


def test_rfc_3665_3_8_no_answer(world: World) -> None:
    session, _, theirs = ring(world)
    world.alice.do(session.terminate, [("Reason", 'SIP;cause=487;text="No answer"')])
    assert world.log == ["INVITE", "180", "CANCEL", "200", "487", "ACK"]
    (invite,), (cancel,), (ack,) = requests(world, "INVITE"), requests(world, "CANCEL"), requests(world, "ACK")
    # RFC 3261 9.1 and 17.1.1.3: both are of the INVITE's hop, and bear its number.
    assert cancel.top_branch == ack.top_branch == invite.top_branch
    assert cancel.uri == ack.uri == invite.uri
    assert (str(cancel.cseq), str(ack.cseq)) == ("1 CANCEL", "1 ACK")
    assert cancel.to_tag is None
    assert ack.to_tag == responses(world, 487)[0].to_tag
    assert cancel.headers.get("Reason") == 'SIP;cause=487;text="No answer"'
    assert theirs.reason is SignalingTransitionReason.CANCELED
    world.pass_time(100.0)
    world.assert_over()


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (486, SignalingTransitionReason.BUSY),  # 3.9
        (480, SignalingTransitionReason.TEMPORARILY_UNAVAILABLE),  # 3.11
        (408, SignalingTransitionReason.TIMEOUT),  # 3.10, what a proxy says
        (603, SignalingTransitionReason.DECLINED),
    ],
)
def test_rfc_3665_3_9_to_3_11_unsuccessful(world: World, code: int, reason: SignalingTransitionReason) -> None:
    session, establish = world.alice.call()
    (theirs,) = world.bob.sessions
    world.bob.do(lambda now, op: theirs.reject(now, code, None, (), op))
    assert establish.message.status_code == code
    assert world.log == ["INVITE", str(code), "ACK"]
    assert session.reason is reason
    world.pass_time(100.0)
    world.assert_over()


def test_rfc_3665_3_6_redirect(world: World) -> None:
    session, establish = world.alice.call()
    (first,) = world.bob.sessions
    contact = [("Contact", "<sip:bob@second.example>;q=0.5, <sip:bob@first.example>;q=0.9")]
    world.bob.do(lambda now, op: first.reject(now, 302, None, contact, op))
    (event,) = world.alice.happened("Redirected")
    assert event.targets == ("sip:bob@first.example", "sip:bob@second.example")
    assert session.state is SignalingState.REDIRECTING
    session.follow(world.now, event.targets[0], ())
    world.run()
    one, two = requests(world, "INVITE")
    assert (two.uri, two.cseq.number) == ("sip:bob@first.example", 2)
    # RFC 3261 8.1.3.4 recommends the same To, From and Call-ID.
    assert [two.headers.get(name) for name in ("To", "From", "Call-ID")] == [
        one.headers.get(name) for name in ("To", "From", "Call-ID")
    ]
    # Nobody of that name is there: the next one is offered.
    (_, event) = world.alice.happened("Redirected")
    assert event.targets == ("sip:bob@second.example",)
    session.give_up(world.now)
    world.run()
    assert establish.message.status_code == 404
    world.pass_time(100.0)
    world.assert_over()


def test_rfc_5359_2_1_hold_and_2_2_resume(world: World) -> None:
    session, theirs = connected(world)
    for offer, answer in ((HOLD, HELD), (OFFER, ANSWER)):
        change = world.bob.do(theirs.renegotiate, offer, ())
        session.accept_offer(world.now, session.renegotiation._theirs, answer)  # type: ignore[arg-type]
        world.run()
        assert change.message.body == answer.body
        assert (theirs.local_content, theirs.remote_content) == (offer, answer)
        assert (session.local_content, session.remote_content) == (answer, offer)
    assert world.log == ["INVITE", "200", "ACK"] + ["INVITE", "200", "ACK"] * 2
    _, hold, resume = requests(world, "INVITE")
    assert (hold.cseq.number, resume.cseq.number) == (1, 2)
    assert hold.to_tag == resume.to_tag == session.from_tag
    world.alice.do(session.terminate, ())
    world.pass_time(100.0)
    world.assert_over()


def test_rfc_5359_2_4_unattended_transfer(world: World) -> None:
    _, theirs = connected(world)
    refer = OutgoingRefer(theirs, world.bob)
    accepted = world.bob.do(refer.refer, "<sip:carol@c.example>", (), None, True)
    (event,) = world.alice.happened("ReferReceived")
    event.refer.user = world.alice
    event.refer.accept(world.now)
    world.run()
    assert accepted.message.status_code == 202
    event.refer.progress(world.now, 200, None, None, True)
    world.run()
    world.bob.do(theirs.terminate, ())
    assert world.log[3:] == ["REFER", "202", "NOTIFY", "200", "NOTIFY", "200", "BYE", "200"]
    (request,) = requests(world, "REFER")
    assert request.headers.get("Refer-To") == "<sip:carol@c.example>"
    assert request.headers.get("Referred-By") == "<sip:bob@bob.example>"
    trying, last = requests(world, "NOTIFY")
    assert trying.headers.get("Event") == f"refer;id={request.cseq.number}"
    assert (trying.body, last.body) == (b"SIP/2.0 100 Trying\r\n", b"SIP/2.0 200 OK\r\n")
    assert last.headers.get("Subscription-State") == "terminated;reason=noresource"
    assert [event.status_code for event in world.bob.happened("ReferProgress")] == [100, 200]
    world.pass_time(100.0)
    world.assert_over()


def test_rfc_5359_2_5_attended_transfer_ends_the_replaced_session(world: World) -> None:
    _, theirs = connected(world)
    dialog = theirs.dialog
    assert dialog is not None
    replaces = f"{dialog.call_id};to-tag={dialog.local_tag};from-tag={dialog.remote_tag}"
    new = Session(world.alice.engine, world.alice.record, world.alice)
    world.alice.sessions.append(new)
    uri, operation = "sip:bob@bob.example", world.operation("establish")
    hop = world.alice.record.endpoint._next_hop(theirs.record.owner, False, False)
    headers = [("Require", "replaces"), ("Replaces", replaces)]
    new.establish(world.now, uri, f"<{uri}>", hop, OFFER, headers, operation)
    world.run()
    incoming = world.bob.sessions[-1]
    assert incoming.replaces is theirs
    world.bob.do(incoming.accept, ANSWER, ())
    world.bob.do(theirs.terminate, ())
    assert operation.message.status_code == 200
    world.alice.do(new.terminate, ())
    world.pass_time(100.0)
    world.assert_over()


def test_replaces_of_nothing_is_refused(world: World) -> None:
    session = Session(world.alice.engine, world.alice.record, world.alice)
    operation = world.operation("establish")
    hop = world.alice.record.endpoint._next_hop(world.bob.record.owner, False, False)
    headers = [("Require", "replaces"), ("Replaces", "no-such-call;to-tag=1;from-tag=2")]
    session.establish(0.0, "sip:bob@bob.example", "<sip:bob@bob.example>", hop, OFFER, headers, operation)
    world.run()
    assert operation.message.status_code == 481
    world.pass_time(100.0)
    world.assert_over()


def test_rfc_3665_3_10_nobody_answers_at_all(world: World) -> None:
    world.lose = lambda message: isinstance(message, Request) and message.method == "INVITE"
    session, establish = world.alice.call()
    world.pass_time(33.0)
    assert isinstance(establish.error, OperationTimeoutException)
    assert session.reason is SignalingTransitionReason.TIMEOUT
    assert world.log == ["INVITE"]
    world.assert_over()
