"""Session timers, rule by rule (RFC 4028)."""

from __future__ import annotations

from typing import Any

import pytest
from call_support import ANSWER, OFFER, Party, World, acknowledge_at_once

from p2psip.core.dialog import Content
from p2psip.core.session import Session, SessionOptions
from p2psip.core.session_timer import min_se, session_expires
from p2psip.core.usage import ClientUsage
from p2psip.enums import SignalingState, SignalingTransitionReason
from p2psip.message import Request, Response

CONNECTED, DISCONNECTED = SignalingState.CONNECTED, SignalingState.DISCONNECTED
SHORT = 90


@pytest.fixture
def world() -> World:
    world = World()
    world.reactions.append(acknowledge_at_once)
    return world


class Asked(ClientUsage):
    """A request that a test writes itself, and what it was answered."""

    def __init__(self) -> None:
        self.responses: list[Response] = []

    def responded(self, now: float, client_request: Any, response: Response) -> None:
        self.responses.append(response)


def up(world: World, interval: int = SHORT, *headers: tuple[str, str], **options: Any) -> tuple[Session, Session]:
    session, _ = world.alice.call(options=SessionOptions(session_interval=interval, **options), headers=headers)
    theirs = world.bob.sessions[-1]
    world.bob.do(theirs.accept, ANSWER, ())
    assert session.state is theirs.state is CONNECTED
    return session, theirs


def peer_refreshes(world: World) -> tuple[Session, Session]:
    """Bob refreshes: a proxy asked for a timer that Alice does not know."""
    return up(world, 0, ("Session-Expires", "90"), is_timer_supported=False)


def update(world: World, session: Session, *headers: tuple[str, str]) -> Response:
    asked = Asked()
    assert session.dialog is not None
    if "Supported" not in dict(headers):
        headers = (*headers, ("Supported", "replaces"))
    session.dialog.send(world.now, session.dialog.create_request("UPDATE", [("Allow", "UPDATE"), *headers]), asked)
    world.run()
    return asked.responses[-1]


def sent(world: World, party: Party, method: str) -> list[Request]:
    return [m for p, m in world.messages if p is party and isinstance(m, Request) and m.method == method]


def answered(world: World, method: str, code: int = 200) -> Response:
    return [
        m for _, m in world.messages if isinstance(m, Response) and m.cseq.method == method and m.status_code == code
    ][-1]


def is_method(name: str) -> Any:
    return lambda message: isinstance(message, Request) and message.method == name


def over(world: World, session: Session) -> None:
    world.lose = None
    world.alice.do(session.terminate, ())
    world.pass_time(400.0)
    assert {each.state for party in (world.alice, world.bob) for each in party.sessions} == {DISCONNECTED}
    world.assert_over()


# ---------------------------------------------------------------------- who refreshes, and when


def test_the_caller_refreshes_at_half_the_interval(world: World) -> None:
    session, theirs = up(world)
    assert answered(world, "INVITE").headers.get("Session-Expires") == "90;refresher=uac"
    assert "timer" in answered(world, "INVITE").headers.get_all("Require")
    world.pass_time(44.9)
    assert not sent(world, world.alice, "UPDATE")
    world.pass_time(0.2)
    (refresh,) = sent(world, world.alice, "UPDATE")
    assert refresh.headers.get("Session-Expires") == "90;refresher=uac"
    assert refresh.body == b""
    assert answered(world, "UPDATE").headers.get("Session-Expires") == "90;refresher=uac"
    world.pass_time(450.0)
    assert len(sent(world, world.alice, "UPDATE")) == 11
    assert not sent(world, world.bob, "UPDATE")
    assert not world.bob.happened("OfferReceived")
    assert session.state is theirs.state is CONNECTED
    over(world, session)


def test_the_called_side_refreshes_where_the_caller_cannot(world: World) -> None:
    """RFC 4028 9, table 2; ``timer`` is not required of a peer that does not know it."""
    session, theirs = peer_refreshes(world)
    success = answered(world, "INVITE")
    assert success.headers.get("Session-Expires") == "90;refresher=uas"
    assert success.headers.get("Require") is None
    assert (theirs.timer.is_refresher, session.timer.is_refresher) == (True, False)
    world.pass_time(45.1)
    (refresh,) = sent(world, world.bob, "UPDATE")
    # In this request Bob is the client.
    assert refresh.headers.get("Session-Expires") == "90;refresher=uac"
    world.pass_time(300.0)
    assert session.state is theirs.state is CONNECTED
    over(world, session)


def test_the_caller_may_name_the_called_side(world: World) -> None:
    session, theirs = up(world, 0, ("Session-Expires", "120;refresher=uas"))
    assert answered(world, "INVITE").headers.get("Session-Expires") == "120;refresher=uas"
    assert (theirs.timer.is_refresher, session.timer.is_refresher) == (True, False)
    world.pass_time(60.1)
    assert len(sent(world, world.bob, "UPDATE")) == 1
    assert not sent(world, world.alice, "UPDATE")
    over(world, session)


def test_roles_stay_when_the_other_side_changes_the_session(world: World) -> None:
    """RFC 4028 7.4: whoever sends the request, it names the one who refreshes now."""
    session, theirs = up(world)
    world.reactions.append(
        lambda _, usage, event: (
            usage.accept_offer(world.now, event.transaction, ANSWER)
            if type(event).__name__ == "OfferReceived"
            else None
        )
    )
    change = world.bob.do(theirs.renegotiate, OFFER, ())
    assert change.message.status_code == 200
    (invite,) = sent(world, world.bob, "INVITE")
    assert invite.headers.get("Session-Expires") == "90;refresher=uas"
    assert (session.timer.is_refresher, theirs.timer.is_refresher) == (True, False)
    over(world, session)


def test_a_change_is_a_refresh(world: World) -> None:
    session, theirs = up(world)
    world.reactions.append(
        lambda _, usage, event: (
            usage.accept_offer(world.now, event.transaction, ANSWER)
            if type(event).__name__ == "OfferReceived"
            else None
        )
    )
    world.pass_time(40.0)
    world.alice.do(session.renegotiate, OFFER, ())
    world.pass_time(40.0)
    assert not sent(world, world.alice, "UPDATE")
    world.pass_time(6.0)
    assert len(sent(world, world.alice, "UPDATE")) == 1
    assert session.state is theirs.state is CONNECTED
    over(world, session)


# ---------------------------------------------------------------------- no timer


@pytest.mark.parametrize("who", ["caller", "nobody"])
def test_no_timer_unless_somebody_asks(world: World, who: str) -> None:
    if who == "caller":
        session, theirs = up(world, 0, is_timer_supported=False)
    else:
        session, _ = world.alice.call(options=SessionOptions(session_interval=0))
        theirs = world.bob.sessions[-1]
        theirs.options.session_interval = 0
        world.bob.do(theirs.accept, ANSWER, ())
    assert answered(world, "INVITE").headers.get("Session-Expires") is None
    assert session.timer.interval == theirs.timer.interval == 0
    world.pass_time(100_000.0)
    assert session.state is theirs.state is CONNECTED
    assert not sent(world, world.alice, "UPDATE")
    over(world, session)


def test_the_called_side_may_ask_for_one(world: World) -> None:
    session, _ = world.alice.call(options=SessionOptions(session_interval=0))
    theirs = world.bob.sessions[-1]
    theirs.options.session_interval = 200
    world.bob.do(theirs.accept, ANSWER, ())
    assert answered(world, "INVITE").headers.get("Session-Expires") == "200;refresher=uac"
    assert session.timer.is_refresher
    over(world, session)


def test_the_called_side_may_shorten_it(world: World) -> None:
    session, _ = world.alice.call(options=SessionOptions(session_interval=1800))
    theirs = world.bob.sessions[-1]
    theirs.options.session_interval = 300
    world.bob.do(theirs.accept, ANSWER, ())
    assert session.timer.interval == theirs.timer.interval == 300
    over(world, session)


def test_but_not_below_the_callers_minimum(world: World) -> None:
    session, _ = world.alice.call(options=SessionOptions(session_interval=1800, minimum_interval=600))
    theirs = world.bob.sessions[-1]
    theirs.options.session_interval = 300
    world.bob.do(theirs.accept, ANSWER, ())
    assert sent(world, world.alice, "INVITE")[0].headers.get("Min-SE") == "600"
    assert session.timer.interval == theirs.timer.interval == 600
    over(world, session)


def test_a_refresh_without_the_header_ends_the_timer(world: World) -> None:
    """RFC 4028 7.2: without Session-Expires in the 2xx there is no expiration."""
    session, theirs = up(world)
    theirs.options.session_interval = 0
    assert update(world, session).headers.get("Session-Expires") is None
    assert theirs.timer.interval == 0
    over(world, session)


# ---------------------------------------------------------------------- expiry


@pytest.mark.parametrize(("interval", "end"), [(90, 60.0), (96, 64.0), (300, 268.0), (1800, 1768.0)])
def test_bye_comes_in_time_before_the_end(world: World, interval: int, end: float) -> None:
    """RFC 4028 10: by the smaller of 32 s and a third of the interval."""
    session, theirs = up(world, interval)
    world.lose = lambda message: not is_method("BYE")(message)
    session.timer.stop()  # nobody refreshes
    world.pass_time(end - 0.1)
    assert theirs.state is CONNECTED
    world.pass_time(0.2)
    assert theirs.reason is SignalingTransitionReason.SESSION_TIMER_EXPIRED
    assert len(sent(world, world.bob, "BYE")) == 1
    assert session.reason is SignalingTransitionReason.TERMINATED_REMOTELY
    over(world, session)


def test_the_called_side_refreshes_and_the_caller_is_silent(world: World) -> None:
    _, theirs = peer_refreshes(world)
    world.lose = lambda message: True
    world.pass_time(61.0)
    assert theirs.reason is SignalingTransitionReason.SESSION_TIMER_EXPIRED
    over(world, world.alice.sessions[0])


def test_the_called_side_refreshes_no_more(world: World) -> None:
    session, _ = peer_refreshes(world)
    world.lose = is_method("UPDATE")
    world.bob.sessions[0].timer.stop()
    world.pass_time(61.0)
    assert session.reason is SignalingTransitionReason.SESSION_TIMER_EXPIRED
    assert world.bob.sessions[0].reason is SignalingTransitionReason.TERMINATED_REMOTELY
    over(world, session)


def test_each_refresh_begins_the_time_anew_on_both_sides(world: World) -> None:
    session, theirs = up(world)
    world.pass_time(46.0)
    world.lose = lambda message: True
    world.pass_time(58.0)  # 104: 59 s after the refresh
    assert session.state is theirs.state is CONNECTED
    world.pass_time(2.0)
    assert theirs.reason is SignalingTransitionReason.SESSION_TIMER_EXPIRED
    over(world, session)


def test_no_timer_outlives_the_session(world: World) -> None:
    session, _ = up(world, 1800)
    world.alice.do(session.terminate, ())
    world.pass_time(64.0)
    world.assert_over()


# ---------------------------------------------------------------------- 422


def test_422_says_what_would_do(world: World) -> None:
    session, theirs = up(world)
    theirs.options.minimum_interval = 300
    refused = update(world, session, ("Supported", "timer"), ("Session-Expires", "100"))
    assert (refused.status_code, refused.headers.get("Min-SE")) == (422, "300")
    assert theirs.timer.interval == SHORT
    over(world, session)


def test_422_is_for_those_who_know_timers(world: World) -> None:
    session, theirs = up(world)
    theirs.options.minimum_interval = 300
    assert update(world, session, ("Session-Expires", "100")).status_code == 200
    over(world, session)


def test_a_refresh_that_is_answered_422(world: World) -> None:
    session, theirs = up(world)
    theirs.options.minimum_interval = 300
    world.pass_time(60.0)
    first, second = sent(world, world.alice, "UPDATE")
    assert first.headers.get("Session-Expires") == "90;refresher=uac"
    assert second.headers.get("Session-Expires") == "300;refresher=uac"
    assert second.headers.get("Min-SE") == "300"
    assert session.timer.interval == theirs.timer.interval == 300
    over(world, session)


def test_a_change_that_is_answered_422(world: World) -> None:
    session, theirs = up(world)
    world.reactions.append(
        lambda _, usage, event: (
            usage.accept_offer(world.now, event.transaction, ANSWER)
            if type(event).__name__ == "OfferReceived"
            else None
        )
    )
    theirs.options.minimum_interval = 300
    change = world.alice.do(session.renegotiate, OFFER, ())
    assert change.message.status_code == 200
    assert session.timer.interval == theirs.timer.interval == 300
    over(world, session)


def test_422_without_a_larger_minimum_is_the_end_of_it(world: World) -> None:
    _, establish = world.alice.call(options=SessionOptions(session_interval=SHORT))
    theirs = world.bob.sessions[-1]
    world.bob.do(lambda now, operation: theirs.reject(now, 422, None, [("Min-SE", "90")], operation))
    assert establish.message.status_code == 422
    assert len(sent(world, world.alice, "INVITE")) == 1
    world.pass_time(64.0)
    world.assert_over()


# ---------------------------------------------------------------------- refreshes that fail


@pytest.mark.parametrize("code", [491, 500, 503])
def test_a_refresh_that_is_refused_is_sent_again(world: World, code: int) -> None:
    session, theirs = up(world)
    received = theirs.renegotiation.received
    refused = 0

    def refuse(now: float, transaction: Any) -> None:
        nonlocal refused
        refused += 1
        theirs.respond(transaction, code) if refused == 1 else received(now, transaction)

    theirs.renegotiation.received = refuse  # type: ignore[method-assign]
    world.pass_time(58.0)
    assert refused == 2
    world.pass_time(200.0)
    assert session.state is theirs.state is CONNECTED
    over(world, session)


@pytest.mark.parametrize("code", [405, 501])
def test_a_peer_that_does_not_know_update_after_all(world: World, code: int) -> None:
    """It is refreshed by re-INVITE instead, whatever its Allow has said."""
    session, theirs = up(world)
    received = theirs.renegotiation.received

    def receive(now: float, transaction: Any) -> None:
        if transaction.request.method == "UPDATE":
            theirs.respond(transaction, code)
        else:
            received(now, transaction)

    theirs.renegotiation.received = receive  # type: ignore[method-assign]
    world.reactions.append(
        lambda _, usage, event: (
            usage.accept_offer(world.now, event.transaction, ANSWER, ())
            if type(event).__name__ == "OfferReceived"
            else None
        )
    )
    world.pass_time(88.0)
    assert len(sent(world, world.alice, "UPDATE")) == 1
    assert len(sent(world, world.alice, "INVITE")) == 2
    assert session.state is theirs.state is CONNECTED
    over(world, session)


def test_a_refresh_that_is_answered_481_is_the_end(world: World) -> None:
    session, theirs = up(world)
    theirs.renegotiation.received = lambda now, transaction: theirs.respond(transaction, 481)  # type: ignore[assignment, method-assign]
    world.pass_time(46.0)
    assert session.reason is SignalingTransitionReason.SESSION_DOES_NOT_EXIST
    assert not sent(world, world.alice, "BYE")
    world.bob.do(theirs.terminate, ())
    over(world, session)


def test_a_refresh_survives_a_lost_connection(world: World) -> None:
    session, theirs = up(world)
    world.pass_time(44.0)
    world.cut()
    world.pass_time(100.0)
    assert session.state is theirs.state is CONNECTED
    assert len(sent(world, world.alice, "UPDATE")) >= 2
    over(world, session)


# ---------------------------------------------------------------------- what peers write


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1800", (1800, None)),
        ("90 ; refresher = UAC", (90, "uac")),
        ("90;x=y;refresher=uas;z", (90, "uas")),
        ("90;refresher=both", (90, None)),
        ("-5", (0, None)),
        ("", (0, None)),
        ("ninety", (0, None)),
        ("9" * 30, (0, None)),
        ("\u0663\u0660", (0, None)),
    ],
)
def test_session_expires_as_it_is_written(value: str, expected: tuple[int, str | None]) -> None:
    request = Request("UPDATE", "sip:bob@b.example", [("Session-Expires", value)], b"")
    assert session_expires(request) == expected
    assert min_se(Request("UPDATE", "sip:bob@b.example", [("Min-SE", value)], b"")) == expected[0]


def test_no_header_is_no_interval() -> None:
    request = Request("UPDATE", "sip:bob@b.example", [], b"")
    assert session_expires(request) == (0, None)
    assert min_se(request) == 0


# ---------------------------------------------------------------------- the letter of the RFC


@pytest.mark.parametrize(("asked", "given"), [("100", 100), ("90", 90), ("20", 90)])
def test_the_interval_is_never_made_longer(world: World, asked: str, given: int) -> None:
    """RFC 4028 9; less than 90 s is nothing that anybody may ask for (4)."""
    session, theirs = up(world)
    theirs.options.minimum_interval = 300
    assert update(world, session, ("Session-Expires", asked)).headers.get("Session-Expires") == f"{given};refresher=uas"
    over(world, session)


def test_a_refresh_without_an_answer_is_the_end(world: World) -> None:
    """RFC 4028 10: BYE, without waiting for the expiry."""
    session, _ = up(world, 1800)
    world.lose = is_method("UPDATE")
    world.pass_time(900.0 + 33.0)
    assert session.reason is SignalingTransitionReason.SESSION_TIMER_EXPIRED
    assert len(sent(world, world.alice, "BYE")) == 1
    over(world, session)


def without_update(world: World, *answers: int) -> tuple[Session, Session]:
    """A peer that knows no UPDATE and answers re-INVITEs so, and 200 from then on."""
    session, theirs = up(world)
    session.peer_allow = session.peer_allow - {"UPDATE"}
    left = list(answers)

    def react(_: Any, usage: Session, event: Any) -> None:
        if type(event).__name__ == "OfferReceived":
            code = left.pop(0) if left else 200
            if code == 200:
                usage.accept_offer(world.now, event.transaction, ANSWER)
            else:
                usage.decline_offer(world.now, event.transaction, code)

    world.reactions.append(react)
    return session, theirs


def test_the_user_may_refresh_by_a_change(world: World) -> None:
    session, theirs = without_update(world)
    other = Content("application/sdp", b"v=0\r\ns=other\r\n")
    operation = world.operation("renegotiate")

    def react(_: Any, usage: Session, event: Any) -> None:
        if type(event).__name__ == "RefreshNeeded" and not operation.ends:
            usage.renegotiate(world.now, other, (), operation)

    world.reactions.append(react)
    world.pass_time(80.0)
    assert operation.message.status_code == 200
    assert len(sent(world, world.alice, "INVITE")) == 2
    assert (session.local_content, theirs.remote_content) == (other, other)
    over(world, session)


@pytest.mark.parametrize("answers", [(500,), (488, 503), (491,)])
def test_a_re_invite_for_the_refresh_is_sent_again(world: World, answers: tuple[int, ...]) -> None:
    session, theirs = without_update(world, *answers)
    world.pass_time(400.0)
    assert session.state is theirs.state is CONNECTED
    assert len(sent(world, world.alice, "INVITE")) == 2 + len(answers)  # its 200 says that it knows UPDATE after all
    over(world, session)
