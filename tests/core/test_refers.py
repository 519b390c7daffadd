"""REFER in a session: the subscription that shares its dialog, and what becomes of both (RFC 3515, 4488, 5057)."""

from __future__ import annotations

from typing import Any

import pytest
from call_support import World, connected
from subscription_support import deliver_next

from p2psip.core.dialog import Content
from p2psip.core.refer import LIFETIME, IncomingRefer, OutgoingRefer
from p2psip.core.session import Session
from p2psip.core.usage import ClientUsage
from p2psip.enums import SignalingState, SignalingTransitionReason
from p2psip.errors import (
    ConnectionFailureException,
    OperationFailureException,
    OperationTimeoutException,
    RealTimeException,
)
from p2psip.message import Request, Response

CAROL = "<sip:carol@carol.example>"


class Transfer:
    """Alice asks Bob, with whom she has a session, to call Carol."""

    def __init__(
        self,
        world: World,
        session: Session,
        *,
        refer_to: str = CAROL,
        subscribe: bool = True,
        headers: Any = (),
        by_bob: bool = False,
    ) -> None:
        self.world = world
        self.asker, self.asked = (world.bob, world.alice) if by_bob else (world.alice, world.bob)
        before = len(self.asked.happened("ReferReceived"))
        self.user = Teller()
        self.refer = OutgoingRefer(session, self.user)
        self.operation = self.asker.do(self.refer.refer, refer_to, headers, None, subscribe)
        arrived = self.asked.happened("ReferReceived")[before:]
        self._taken = arrived[0].refer if arrived else None
        world.reactions.append(self._note)
        self.told: list[tuple[int, bool]] = []

    def _note(self, party: Any, usage: Any, event: Any) -> None:
        if usage is self.refer:
            self.told.append((event.status_code, event.is_over))

    @property
    def taken(self) -> IncomingRefer:
        assert isinstance(self._taken, IncomingRefer)
        return self._taken

    def accept(self) -> Transfer:
        assert self.taken.accept(self.world.now)
        self.world.run()
        return self

    def tell(self, code: int, fragment: str | None = None) -> None:
        self.taken.progress(self.world.now, code, None, fragment, code >= 200)
        self.world.run()


class Teller:
    """Who a REFER of ours is told to; the reactions of the world see it all."""


class Answer(ClientUsage):
    """What a request was answered."""

    def __init__(self) -> None:
        self.code = 0
        self.headers: Any = None

    def responded(self, now: float, client_request: Any, response: Response) -> None:
        self.code, self.headers = response.status_code, response.headers


@pytest.fixture
def world() -> World:
    return World()


def over(world: World) -> None:
    """Both hang up, and nothing is left."""
    for party in (world.alice, world.bob):
        for session in party.sessions:
            if isinstance(session, Session):
                party.do(session.terminate, ())
    world.pass_time(300.0)
    world.assert_over()


def requests(world: World, method: str) -> list[Request]:
    return [m for _, m in world.messages if isinstance(m, Request) and m.method == method]


# ---------------------------------------------------------------------- how it goes


def test_followed_and_told(world: World) -> None:
    session, theirs = connected(world)
    before = len(world.log)
    transfer = Transfer(world, session, headers=[("X-Why", "because")]).accept()
    assert transfer.operation.message.status_code == 202
    transfer.tell(180)
    transfer.tell(200)
    assert world.log[before:] == ["REFER", "202", "NOTIFY", "200", "NOTIFY", "200", "NOTIFY", "200"]
    assert transfer.told == [(100, False), (180, False), (200, True)]
    (refer,) = requests(world, "REFER")
    assert refer.headers.get("Refer-To") == CAROL
    assert refer.headers.get("Referred-By") == "<sip:alice@alice.example>"
    assert refer.headers.get("X-Why") == "because"
    notifies = requests(world, "NOTIFY")
    for notify in notifies:  # RFC 5057: they share the dialog, and the id tells them apart
        assert (notify.call_id, notify.from_tag, notify.to_tag) == (refer.call_id, refer.to_tag, refer.from_tag)
        assert notify.headers.get("Event") == f"refer;id={refer.cseq.number}"
        assert notify.headers.get("Content-Type") == "message/sipfrag;version=2.0"
        assert notify.headers.count("Contact") == 1
    assert [n.headers.get("Subscription-State") for n in notifies] == [
        "active;expires=180",
        "active;expires=180",
        "terminated;reason=noresource",
    ]
    assert [n.body for n in notifies] == [
        b"SIP/2.0 100 Trying\r\n",
        b"SIP/2.0 180 Ringing\r\n",
        b"SIP/2.0 200 OK\r\n",
    ]
    assert not transfer.refer.is_active
    assert not transfer.taken.is_active
    assert session.state is theirs.state is SignalingState.CONNECTED
    over(world)


def test_a_fragment_with_more_than_a_status_line(world: World) -> None:
    session, _ = connected(world)
    transfer = Transfer(world, session).accept()
    fragment = "SIP/2.0 486 Busy Here\r\nReason: SIP;cause=486\r\n"
    transfer.tell(486, fragment)
    assert requests(world, "NOTIFY")[-1].body == fragment.encode()
    assert transfer.told[-1] == (486, True)
    over(world)


def test_notify_comes_before_the_202(world: World) -> None:
    session, _ = connected(world)
    transfer = Transfer(world, session)
    world.held = []
    transfer.accept()
    world.release(reverse=True)
    assert transfer.told == [(100, False)]
    assert transfer.operation.message.status_code == 202
    transfer.tell(200)
    over(world)


def test_several_at_once(world: World) -> None:
    session, theirs = connected(world)
    transfers = [Transfer(world, session).accept() for _ in range(3)]
    ids = [request.cseq.number for request in requests(world, "REFER")]
    assert len(set(ids)) == 3
    first, second, third = transfers
    second.tell(180)
    first.tell(486)
    third.tell(200)
    second.tell(603)
    assert first.told == [(100, False), (486, True)]
    assert second.told == [(100, False), (180, False), (603, True)]
    assert third.told == [(100, False), (200, True)]
    assert len(theirs.dialog.usages) == 1  # type: ignore[union-attr]
    over(world)


def test_each_asks_the_other_with_the_same_number(world: World) -> None:
    session, theirs = connected(world)
    for _ in range(5):  # their CSeq numbers meet
        if session.dialog.local_sequence == theirs.dialog.local_sequence:  # type: ignore[union-attr]
            break
        theirs.dialog.create_request("INFO")  # type: ignore[union-attr]
    ours, others = Transfer(world, session), Transfer(world, theirs, by_bob=True)
    assert len({refer.cseq.number for refer in requests(world, "REFER")}) == 1
    ours.accept().tell(200)
    others.accept().tell(486)
    assert ours.told == [(100, False), (200, True)]
    assert others.told == [(100, False), (486, True)]
    over(world)


def test_nobody_wants_to_know(world: World) -> None:
    session, theirs = connected(world)
    before = len(world.log)
    transfer = Transfer(world, session, subscribe=False).accept()
    (refer,) = requests(world, "REFER")
    assert refer.headers.get("Refer-Sub") == "false"
    assert refer.headers.get_all("Supported") == ["norefersub"]
    assert transfer.operation.message.headers.get("Refer-Sub") == "false"
    transfer.tell(200)
    assert world.log[before:] == ["REFER", "202"]
    assert len(theirs.dialog.usages) == 1  # type: ignore[union-attr]
    over(world)


def test_the_peer_wants_to_tell_nothing(world: World) -> None:
    """RFC 4488 4: only its 202 says that there is no subscription."""
    session, _ = connected(world)
    transfer = Transfer(world, session)
    transfer.taken.wants_progress = False
    transfer.accept()
    assert transfer.operation.message.headers.get("Refer-Sub") == "false"
    assert not transfer.refer.is_active
    over(world)


@pytest.mark.parametrize("value", ["false", "False ;x=y", " FALSE"])
def test_refer_sub_in_any_form(world: World, value: str) -> None:
    session, _ = connected(world)
    transfer = Transfer(world, session, headers=[("Refer-Sub", value)])
    assert not transfer.taken.wants_progress
    transfer.accept()
    over(world)


@pytest.mark.parametrize(
    ("refer_to", "target", "method", "replaces"),
    [
        ("sip:carol@c.example", "sip:carol@c.example", "INVITE", None),
        ("Carol <sips:carol@c.example>", "sips:carol@c.example", "INVITE", None),
        ("<sip:c@c.example;method=bye>", "sip:c@c.example;method=bye", "BYE", None),
        (
            "<sip:c@c.example?Subject=x&REPLACES=1%402%3Bto-tag%3Da%3Bfrom-tag%3Db>",
            "sip:c@c.example",
            "INVITE",
            "1@2;to-tag=a;from-tag=b",
        ),
        ("<tel:+358-555-1234567>", "tel:+358-555-1234567", "INVITE", None),
    ],
)
def test_what_is_asked_for(world: World, refer_to: str, target: str, method: str, replaces: str | None) -> None:
    session, _ = connected(world)
    transfer = Transfer(world, session, refer_to=refer_to)
    taken = transfer.taken
    assert (taken.target, taken.method, taken.replaces) == (target, method, replaces)
    assert taken.referred_by == "<sip:alice@alice.example>"
    taken.decline(world.now, 603)
    over(world)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Refer-To: ", "X-Refer-To: "),
        (f"Refer-To: {CAROL}", f"Refer-To: {CAROL}\r\nr: {CAROL}"),
        (f"Refer-To: {CAROL}", "Refer-To: <<<"),
        (f"Refer-To: {CAROL}", "Refer-To: "),
    ],
)
def test_what_cannot_be_followed(world: World, old: str, new: str) -> None:
    session, theirs = connected(world)
    world.held = []
    transfer = Transfer(world, session)
    deliver_next(world, (old, new))
    world.release()
    assert transfer.operation.message.status_code == 400
    assert not transfer.refer.is_active
    assert session.state is theirs.state is SignalingState.CONNECTED
    over(world)


# ---------------------------------------------------------------------- how it does not


@pytest.mark.parametrize(("code", "answer"), [(603, 603), (488, 488), (408, 504)])
def test_declined(world: World, code: int, answer: int) -> None:
    session, _ = connected(world)
    transfer = Transfer(world, session)
    transfer.taken.decline(world.now, code, None, [("X-Why", "because")])
    world.run()
    assert transfer.operation.message.status_code == answer
    assert transfer.operation.message.headers.get("X-Why") == "because"
    assert transfer.taken.is_answered
    assert not transfer.taken.accept(world.now)
    assert not transfer.refer.is_active
    assert session.state is SignalingState.CONNECTED
    over(world)


def test_nobody_decides(world: World) -> None:
    session, _ = connected(world)
    transfer = Transfer(world, session)
    world.pass_time(40.0)
    assert transfer.operation.message.status_code == 500
    assert not transfer.taken.accept(world.now)
    over(world)


def test_a_call_that_is_not_up_cannot_be_transferred(world: World) -> None:
    session, _ = world.alice.call()
    transfer = Transfer(world, session)
    assert "cannot be transferred" in str(transfer.operation.error)
    assert requests(world, "REFER") == []
    over(world)


def test_each_is_sent_once(world: World) -> None:
    session, _ = connected(world)
    transfer = Transfer(world, session)
    again = world.alice.do(transfer.refer.refer, CAROL, (), None, True)
    assert isinstance(again.error, OperationFailureException)
    transfer.accept().tell(200)
    assert transfer.operation.message.status_code == 202
    over(world)


@pytest.mark.parametrize("code", [404, 484, 502])
def test_what_the_peer_says_of_the_target_is_no_end_of_the_session(world: World, code: int) -> None:
    """RFC 5057 5.1 takes these for answers about the peer; PBXes give them about whom they were referred to."""
    session, theirs = connected(world)
    transfer = Transfer(world, session)
    transfer.taken.decline(world.now, code)
    world.run()
    assert transfer.operation.message.status_code == code
    assert session.state is theirs.state is SignalingState.CONNECTED
    over(world)


def test_a_refer_that_nobody_answers(world: World) -> None:
    session, theirs = connected(world)
    world.lose = lambda message: isinstance(message, Request) and message.method == "REFER"
    operation = world.alice.do(OutgoingRefer(session, world.alice).refer, CAROL, (), None, True)
    world.pass_time(33.0)
    assert isinstance(operation.error, OperationTimeoutException)
    assert session.reason is SignalingTransitionReason.TIMEOUT
    assert theirs.state is SignalingState.DISCONNECTED
    over(world)


def test_the_peer_does_not_know_the_session_any_more(world: World) -> None:
    session, theirs = connected(world)
    assert theirs.dialog is not None
    theirs.dialog.remove(theirs)
    transfer = Transfer(world, session)
    assert transfer.operation.message.status_code == 481
    assert session.state is SignalingState.DISCONNECTED
    theirs.abandon(world.now, RealTimeException("Restarted."))
    over(world)


def test_the_peer_falls_silent(world: World) -> None:
    session, _ = connected(world)
    transfer = Transfer(world, session).accept()
    world.bob.engine.timers.cancel(transfer.taken._end)
    world.pass_time(LIFETIME + 31.0)
    assert transfer.told == [(100, False)]
    world.pass_time(2.0)
    assert transfer.told == [(100, False), (0, True)]
    transfer.taken.stop()
    over(world)


def test_a_peer_that_takes_longer_and_says_so(world: World) -> None:
    session, _ = connected(world)
    transfer = Transfer(world, session)
    world.held = []
    transfer.accept()
    deliver_next(world)
    deliver_next(world, ("active;expires=180", "active;expires=600"))
    world.release()
    world.bob.engine.timers.cancel(transfer.taken._end)
    world.pass_time(500.0)
    transfer.tell(200)
    assert transfer.told == [(100, False), (200, True)]
    over(world)


def test_too_long_is_told_as_a_timeout(world: World) -> None:
    session, theirs = connected(world)
    transfer = Transfer(world, session).accept()
    world.pass_time(LIFETIME + 1.0)
    assert transfer.told == [(100, False), (408, True)]
    assert session.state is theirs.state is SignalingState.CONNECTED
    over(world)


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("Event: refer;id=", "Event: refer;id=9", 481),
        ("Event: refer", "Event: presence", 481),
        ("Subscription-State", "X-State", 400),
    ],
)
def test_a_notify_that_belongs_to_nothing_harms_nothing(world: World, old: str, new: str, code: int) -> None:
    session, theirs = connected(world)
    transfer = Transfer(world, session)
    world.held = []
    transfer.accept()
    deliver_next(world)
    deliver_next(world, (old, new))
    ((_, _, answer),) = world.held
    assert answer.status_code == code
    world.release()
    assert transfer.told == []
    assert session.state is theirs.state is SignalingState.CONNECTED
    assert not transfer.taken.is_active  # RFC 5057 5.1: the subscription alone has ended
    over(world)


def test_a_notify_without_id_is_of_the_first(world: World) -> None:
    """RFC 3515 2.4.6: the first REFER of a dialog needs none."""
    session, _ = connected(world)
    transfer = Transfer(world, session)
    world.held = []
    transfer.accept()
    deliver_next(world)
    number = requests(world, "REFER")[0].cseq.number
    deliver_next(world, (f"Event: refer;id={number}", "Event: refer"))
    world.release()
    assert transfer.told == [(100, False)]
    transfer.tell(200)
    over(world)


@pytest.mark.parametrize("body", [b"", b"busy", b"SIP/2.0 2000 OK", b"HTTP/1.1 200 OK", b"\xff\xfe", b"SIP/2.0 200"])
def test_a_fragment_that_nobody_understands(world: World, body: bytes) -> None:
    session, theirs = connected(world)
    transfer = Transfer(world, session).accept()
    dialog = theirs.dialog
    assert dialog is not None
    number = requests(world, "REFER")[0].cseq.number
    pairs = [("Event", f"refer;id={number}"), ("Subscription-State", "active")]
    answer = Answer()
    dialog.send(world.now, dialog.create_request("NOTIFY", pairs, Content("message/sipfrag", body)), answer)
    world.run()
    assert answer.code == 200
    assert transfer.told[-1] == (200 if body == b"SIP/2.0 200" else 0, False)
    transfer.tell(200)
    over(world)


# ---------------------------------------------------------------------- SUBSCRIBE to it


@pytest.mark.parametrize(
    ("expires", "granted", "left"), [("60", "60", 60), ("9999", "180", 180), (None, "180", 180), ("soon", "180", 180)]
)
def test_heard_for_as_long_as_is_asked(world: World, expires: str | None, granted: str, left: int) -> None:
    session, _ = connected(world)
    transfer = Transfer(world, session).accept()
    number = requests(world, "REFER")[0].cseq.number
    answer, dialog = Answer(), session.dialog
    assert dialog is not None
    pairs = [("Event", f"refer;id={number}")] + ([] if expires is None else [("Expires", expires)])
    dialog.send(world.now, dialog.create_request("SUBSCRIBE", pairs), answer)
    world.run()
    assert (answer.code, answer.headers.get("Expires")) == (200, granted)
    assert requests(world, "NOTIFY")[-1].headers.get("Subscription-State") == f"active;expires={left}"
    world.pass_time(left - 1.0)
    assert transfer.taken.is_active
    world.pass_time(2.0)
    assert transfer.told[-1] == (408, True)
    over(world)


def test_a_subscribe_to_another_one_is_refused(world: World) -> None:
    session, _ = connected(world)
    transfer = Transfer(world, session).accept()
    answer, dialog = Answer(), session.dialog
    assert dialog is not None
    dialog.send(world.now, dialog.create_request("SUBSCRIBE", [("Event", "refer;id=77")]), answer)
    world.run()
    assert answer.code == 481
    assert transfer.taken.is_active
    transfer.tell(200)
    over(world)


# ---------------------------------------------------------------------- the session ends, or its connection


@pytest.mark.parametrize("who", ["alice", "bob"])
def test_the_subscription_outlives_its_session(world: World, who: str) -> None:
    """RFC 5057 4.1: the dialog stays as long as one of its usages."""
    session, theirs = connected(world)
    transfer = Transfer(world, session).accept()
    party, ended = (world.alice, session) if who == "alice" else (world.bob, theirs)
    party.do(ended.terminate, ())
    assert session.state is theirs.state is SignalingState.DISCONNECTED
    assert len(world.alice.engine.dialogs) == len(world.bob.engine.dialogs) == 1
    transfer.tell(180)
    transfer.tell(200)
    assert transfer.told == [(100, False), (180, False), (200, True)]
    assert len(world.alice.engine.dialogs) == len(world.bob.engine.dialogs) == 0
    over(world)


def test_hung_up_before_it_is_accepted(world: World) -> None:
    session, _ = connected(world)
    transfer = Transfer(world, session)
    world.alice.do(session.terminate, ())
    transfer.accept()
    assert transfer.operation.message.status_code == 202
    transfer.tell(200)
    assert transfer.told == [(100, False), (200, True)]
    over(world)


def test_hung_up_by_who_was_asked(world: World) -> None:
    session, theirs = connected(world)
    transfer = Transfer(world, session)
    world.bob.do(theirs.terminate, ())
    transfer.taken.decline(world.now, 480)
    world.run()
    assert transfer.operation.message.status_code == 480
    over(world)


def test_a_lost_connection_is_replaced(world: World) -> None:
    session, _ = connected(world)
    transfer = Transfer(world, session).accept()
    world.cut()
    transfer.tell(180)
    world.cut()
    transfer.tell(200)
    assert transfer.told == [(100, False), (180, False), (200, True)]
    over(world)


def test_the_connection_is_lost_before_the_202(world: World) -> None:
    session, _ = connected(world)
    transfer = Transfer(world, session)
    world.cut()
    assert isinstance(transfer.operation.error, ConnectionFailureException)
    assert not transfer.refer.is_active
    if transfer.taken.accept(world.now):
        world.run()
    assert transfer.told == []
    assert session.state is SignalingState.CONNECTED
    over(world)


def test_nobody_can_be_told(world: World) -> None:
    session, _ = connected(world)
    transfer = Transfer(world, session).accept()
    world.cut()
    world.unreachable = True
    transfer.tell(180)
    assert not transfer.taken.is_active
    world.pass_time(LIFETIME + 40.0)
    assert transfer.told == [(100, False), (0, True)]
    world.unreachable = False
    over(world)


@pytest.mark.parametrize("accepted", [False, True])
@pytest.mark.parametrize("who", ["alice", "bob"])
def test_an_engine_ends(world: World, who: str, accepted: bool) -> None:
    session, theirs = connected(world)
    transfer = Transfer(world, session)
    if accepted:
        transfer.accept()
    party = world.alice if who == "alice" else world.bob
    party.engine.shutdown(world.now, OperationFailureException("The end of everything."))
    world.run()
    if who == "alice":
        assert transfer.operation.ends
        assert not transfer.refer.is_active
        assert transfer.told == ([(100, False), (0, True)] if accepted else [])
    else:
        assert not transfer.taken.is_active
        assert not transfer.taken.accept(world.now)
    world.cut()
    for each in (session, theirs):
        each.abandon(world.now, RealTimeException("The end of everything."))
    over(world)


def test_the_id_is_the_number_of_the_request_that_was_let_in(world: World) -> None:
    """RFC 3515 2.4.6. The one before was asked for a password."""
    session, _ = connected(world)
    world.demand_digest()
    transfer = Transfer(world, session).accept()
    transfer.tell(180)
    transfer.tell(200)
    assert transfer.told == [(100, False), (180, False), (200, True)]
