"""The flows that RFCs print, message by message: the engine is one of the user agents, the print is the others.

What the peers say is taken from the files, with our tags, branches and Call-IDs in place of the printed ones. What the
engine says is compared with the print: start line, path, tags, numbers, targets, and every header that is printed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from call_support import Home, Operation, check_what_every_message_needs
from core_support import CountingTokens, FakeFlow, Target

from p2psip.config import ManagerSettings
from p2psip.core.dialog import Content
from p2psip.core.directory import Directory, EndpointRecord
from p2psip.core.effects import Arrived, Complete, Expired, OpenFlow, Send, Tell
from p2psip.core.engine import Engine
from p2psip.core.session import Session, SessionOptions
from p2psip.core.subscribe import Subscriber
from p2psip.core.usages import install
from p2psip.enums import SignalingState, SignalingTransitionReason, SubscriptionSignalingState
from p2psip.message import Request, Response, SipUri, parse_message

FLOWS = Path(__file__).resolve().parents[1] / "data" / "corpus" / "messages" / "flows"

NOT_OURS = {
    "content-length",  # the stream has it anyway
    "date",  # nobody needs it
    "identity",
    "identity-info",
    "proxy-authorization",
    "route",  # compared as a whole
    "record-route",
    "supported",
}


class Player:
    """One side of a flow."""

    def __init__(self, flow: str) -> None:
        self.now = 0.0
        self.files = {path.stem.partition("-")[2]: path for path in (FLOWS / flow).iterdir()}
        self.engine = Engine(ManagerSettings(), CountingTokens("x"), Directory())
        install(self.engine)
        self.flow = FakeFlow()
        self.record: Any = None
        self.sent: list[Any] = []
        self.events: list[Any] = []
        self.operations: list[Operation] = []
        self.usage: Any = None
        self.words: dict[str, str] = {}
        """Printed tags, branches, Call-IDs, and ours in their place."""
        self.vias: dict[str, str] = {}
        self.rseqs: dict[str, str] = {}
        self.offset: int | None = None
        """How far our numbers in CSeq are from the printed ones."""

    def printed(self, label: str) -> Any:
        return parse_message(self.files[label].read_bytes())

    def content(self, label: str) -> Content:
        content = Content.of(self.printed(label))
        assert content is not None
        return content

    def be(self, uri: str) -> None:
        """The user agent that has that address."""
        owner = SipUri.parse(uri)
        self.record = EndpointRecord(endpoint=Home(owner.user or ""), owner=owner, opaque="op", gruu=None, epid="e")
        self.engine.directory.add(self.record)

    # ------------------------------------------------------------------ the engine

    def do(self, command: Any, *args: Any) -> Operation:
        operation = Operation(command.__name__)
        self.operations.append(operation)
        command(self.now, *args, operation)
        self.run()
        return operation

    def run(self) -> None:
        while effects := self.engine.take_effects():
            for effect in effects:
                if isinstance(effect, Send):
                    message = parse_message(effect.data)
                    check_what_every_message_needs(message)
                    self.sent.append(message)
                elif isinstance(effect, OpenFlow):
                    self.engine.flow_opened(self.now, effect.client_request, self.flow)
                elif isinstance(effect, Arrived):
                    self.usage = effect.usage
                    self.usage.user = self
                elif isinstance(effect, Tell):
                    self.events.append(effect.event)
                elif isinstance(effect, Complete):
                    effect.user.ends.append((effect.response, effect.error))
                else:
                    assert isinstance(effect, Expired), effect

    def call(self, label: str) -> tuple[Session, Operation]:
        """Send the INVITE that is printed."""
        invite = self.printed(label)
        self.be(str(invite.from_.uri))
        options = SessionOptions(local_from=(invite.headers.get("From") or "").partition("tag=")[0] + "tag=")
        session = Session(self.engine, self.record, self, options)
        target = Target("TLS", "peer.example", 5061, "peer.example")
        to = invite.headers.get("To") or ""
        establish = self.do(session.establish, invite.uri, to, target, Content.of(invite), ())
        self.sends(label)
        return session, establish

    def finish(self) -> None:
        """Time passes, and nothing is left."""
        assert not self.sent
        for _ in range(200):
            deadline = self.engine.next_deadline()
            if deadline is None:
                break
            self.now = max(self.now, deadline)
            self.engine.advance(self.now)
            self.run()
            self.sent.clear()
        engine = self.engine
        assert [len(operation.ends) for operation in self.operations] == [1] * len(self.operations)
        assert len(engine.dialogs) == 0
        assert not engine._clients
        assert not engine._servers
        assert len(engine.timers) == 0

    # ------------------------------------------------------------------ what the peers say

    def gets(self, *labels: str) -> None:
        for label in labels:
            message = self.printed(label)
            headers = message.headers
            for name in ("From", "To"):
                headers.set(name, self.translated(headers.get(name) or ""))
            headers.set("Call-ID", self.words.get(message.call_id, message.call_id))
            if isinstance(message, Response):
                via = self.vias[message.top_branch or ""]
                headers.remove("Via")
                headers.prepend("Via", via)
                assert self.offset is not None
                headers.set("CSeq", f"{message.cseq.number + self.offset} {message.cseq.method}")
            elif message.method == "PRACK":
                rseq, rest = (headers.get("RAck") or "").split(" ", 1)
                headers.set("RAck", f"{self.rseqs[rseq]} {rest}")
            self.engine.receive(self.now, self.flow, parse_message(message.to_bytes()))
            self.run()

    def translated(self, text: str) -> str:
        before, found, tag = text.partition(";tag=")
        return f"{before}{found}{self.words.get(tag, tag)}"

    # ------------------------------------------------------------------ what the engine says

    def sends(self, *labels: str) -> None:
        for label in labels:
            assert self.sent, f"{label} was not sent"
            self.compare(self.printed(label), self.sent.pop(0))

    def compare(self, printed: Any, ours: Any) -> None:
        assert type(printed) is type(ours)
        for name in ("call_id", "from_tag", "to_tag"):
            self.learn(getattr(printed, name), getattr(ours, name))
        if isinstance(ours, Request):
            self.compare_requests(printed, ours)
        else:
            assert ours.status_code == printed.status_code
            assert str(ours.cseq) == str(printed.cseq)
            assert [via.branch for via in ours.via] == [via.branch for via in printed.via]
            assert ours.headers.get_all("Record-Route") == printed.headers.get_all("Record-Route")
            if (rseq := printed.headers.get("RSeq")) is not None:
                self.rseqs[rseq] = ours.headers.get("RSeq") or ""
        names = {field.lower() for field, _ in printed.headers} - NOT_OURS
        if isinstance(ours, Response):
            names.discard("max-forwards")  # printed by mistake in some
        if printed.cseq.method in ("BYE", "CANCEL", "ACK", "NOTIFY"):
            names.discard("contact")
        assert not {name for name in names if ours.headers.get(name) is None}
        assert ours.content_type == printed.content_type
        assert ours.body == printed.body

    def compare_requests(self, printed: Request, ours: Request) -> None:
        assert ours.method == printed.method
        self.learn(printed.top_branch, ours.top_branch)
        self.vias[printed.top_branch or ""] = ours.headers.get_all("Via")[0]
        assert len(ours.via) == 1
        # The print leaves parameters out, and does not care for case.
        assert ours.uri.partition(";")[0].lower() == printed.uri.partition(";")[0].lower()
        if printed.to_tag is not None:
            assert ours.headers.get_all("Route") == printed.headers.get_all("Route")
        offset = ours.cseq.number - printed.cseq.number
        assert self.offset in (None, offset)
        self.offset = offset
        if printed.method == "PRACK":
            rseq, number, method = (printed.headers.get("RAck") or "").split()
            assert ours.headers.get("RAck") == f"{rseq} {int(number) + offset} {method}"

    def learn(self, printed: str | None, ours: str | None) -> None:
        """The same word always stands for the same word, and for no other."""
        assert (printed is None) == (ours is None)
        if printed is not None and ours is not None:
            assert self.words.setdefault(printed, ours) == ours
            assert [ours] == [word for word in self.words.values() if word == ours]


@pytest.fixture
def play() -> Iterator[Any]:
    players: list[Player] = []

    def begin(flow: str) -> Player:
        players.append(Player(flow))
        return players[-1]

    yield begin
    for player in players:
        player.finish()


def acknowledge(player: Player, session: Session, answer: Content | None = None) -> None:
    session.acknowledge(player.now, answer, ())
    player.run()


# ---------------------------------------------------------------------- calls, the calling side


@pytest.mark.parametrize(
    ("flow", "responses", "ack", "bye"),
    [
        ("rfc3261-24.2", ("F2", "F8", "F11"), "F12", ("<", "F13", "F14")),
        ("rfc3665-3.1", ("F2", "F3"), "F4", ("<", "F5", "F6")),
        ("rfc3665-3.5", ("F3", "F8", "F11"), "F12", (">", "F14", "F17")),
        ("rfc4916-5.1", ("F4",), "F5", None),
    ],
)
def test_calling(play: Any, flow: str, responses: tuple[str, ...], ack: str, bye: tuple[str, ...] | None) -> None:
    player = play(flow)
    session, establish = player.call("F1")
    player.gets(*responses)
    acknowledge(player, session)
    player.sends(ack)
    assert establish.message.status_code == 200
    assert session.state is SignalingState.CONNECTED
    assert session.remote_content == player.content(responses[-1])
    if bye is None:  # RFC 4916 5.1: the peer says who it is
        player.gets("F8")
        player.sends("F9")
        player.do(session.terminate, ())
        assert player.sent.pop().method == "BYE"
    elif bye[0] == "<":
        player.gets(bye[1])
        player.sends(bye[2])
        assert session.reason is SignalingTransitionReason.TERMINATED_REMOTELY
    else:
        end = player.do(session.terminate, ())
        player.sends(bye[1])
        player.gets(bye[2])
        assert end.ends == [(None, None)]


def test_calling_where_a_proxy_wants_credentials(play: Any) -> None:
    """RFC 3665 3.3: that is refused, as far as we are concerned, and then a call with a route set."""
    player = play("rfc3665-3.3")
    session, establish = player.call("F1")
    player.gets("F2")
    player.sends("F3")
    assert establish.message.status_code == 407
    again = play("rfc3665-3.3")
    session, establish = again.call("F11")
    again.gets("F12", "F18")
    acknowledge(again, session)
    assert len(again.sent) == 1
    ack, printed = again.sent[0], again.printed("F19")
    assert ack.headers.get_all("Route") == printed.headers.get_all("Route")
    again.sends("F19")
    assert establish.message.status_code == 200
    again.do(session.terminate, ())
    assert again.sent.pop().headers.get_all("Route") == printed.headers.get_all("Route")


def test_calling_and_a_change_of_address_there(play: Any) -> None:
    """RFC 3665 3.7: the re-INVITE brings another Contact, and BYE goes there."""
    player = play("rfc3665-3.7")
    session, _ = player.call("F1")
    player.gets("F3", "F5", "F7")
    acknowledge(player, session)
    player.sends("F8")
    player.gets("F9")
    (offer,) = [event for event in player.events if type(event).__name__ == "OfferReceived"]
    assert offer.content == player.content("F9")
    session.accept_offer(player.now, offer.transaction, player.content("F10"))
    player.run()
    player.sends("F10")
    player.gets("F11")
    player.do(session.terminate, ())
    player.sends("F12")
    player.gets("F13")


def test_calling_somebody_who_is_busy(play: Any) -> None:
    player = play("rfc3665-3.9")
    session, establish = player.call("F1")
    player.gets("F3", "F10")
    player.sends("F11")
    assert establish.message.status_code == 486
    assert session.reason is SignalingTransitionReason.BUSY


def test_taking_a_call_back(play: Any) -> None:
    player = play("cancel-1")
    session, establish = player.call("F1")
    player.gets("F2", "F3")
    end = player.do(session.terminate, ())
    player.sends("F4")
    player.gets("F5", "F6")
    player.sends("F7")
    assert establish.error is not None
    assert end.ends == [(None, None)]


def test_acknowledging_provisional_responses(play: Any) -> None:
    player = play("prack-1")
    session, establish = player.call("F1")
    player.gets("F2")
    player.sends("F3")
    player.gets("F4", "F5")
    player.sends("F6")
    player.gets("F7", "F8")
    acknowledge(player, session)
    player.sends("F9")
    assert establish.message.status_code == 200
    assert session.remote_content == player.content("F2")
    player.do(session.terminate, ())
    assert player.sent.pop().method == "BYE"


def test_two_forks_answer(play: Any) -> None:
    player = play("fork-1")
    session, _ = player.call("F1")
    player.gets("F2", "F3", "F4")
    acknowledge(player, session)
    player.sends("F6")
    player.gets("F5")
    player.sends("F7", "F8")
    assert session.state is SignalingState.CONNECTED
    assert session.to_tag == "c1B"
    player.do(session.terminate, ())
    bye = player.sent.pop()
    assert bye.headers.get_all("Route") == player.printed("F6").headers.get_all("Route")


# ---------------------------------------------------------------------- calls, the called side


def arrive(player: Player, label: str) -> Session:
    invite = player.printed(label)
    player.be(invite.uri)
    player.gets(label)
    session = player.usage
    assert session.state is SignalingState.INCOMING
    assert session.request.body == invite.body
    session.options.is_timer_supported = False
    return session  # type: ignore[no-any-return]


def rings(player: Player, session: Session, label: str) -> None:
    player.do(session.send_provisional, 180, None, (), None, False)
    player.sends(label)


def accepts(player: Player, session: Session, label: str) -> Operation:
    accept = player.do(session.accept, player.content(label), ())
    player.sends(label)
    return accept


@pytest.mark.parametrize(
    ("flow", "invite", "ring", "success", "ack", "bye"),
    [
        ("rfc3261-24.2", "F5", "F6", "F9", "F12", (">", "F13", "F14")),
        ("rfc3665-3.1", "F1", "F2", "F3", "F4", (">", "F5", "F6")),
        ("rfc3665-3.3", "F15", None, "F16", "F21", None),
        ("rfc3665-3.5", "F4", "F6", "F9", "F13", ("<", "F15", "F16")),
        ("rfc3665-3.7", "F2", "F4", "F6", "F8", None),
        ("rfc4916-5.1", "F2", None, "F3", "F6", None),
    ],
)
def test_being_called(
    play: Any, flow: str, invite: str, ring: str | None, success: str, ack: str, bye: tuple[str, ...] | None
) -> None:
    player = play(flow)
    session = arrive(player, invite)
    if ring is not None:
        rings(player, session, ring)
    accept = accepts(player, session, success)
    player.gets(ack)
    assert accept.message.method == "ACK"
    assert session.state is SignalingState.CONNECTED
    if bye is not None and bye[0] == "<":
        player.gets(bye[1])
        player.sends(bye[2])
        return
    player.do(session.terminate, ())
    if bye is not None:
        player.sends(bye[1])
        player.gets(bye[2])
    else:
        sent, printed = player.sent.pop(), player.printed(invite)
        assert sent.headers.get_all("Route") == printed.headers.get_all("Record-Route")


def test_being_called_and_changing_the_address(play: Any) -> None:
    player = play("rfc3665-3.7")
    session = arrive(player, "F2")
    rings(player, session, "F4")
    accepts(player, session, "F6")
    player.gets("F8")
    change = player.do(session.renegotiate, player.content("F9"), ())
    player.sends("F9")
    player.gets("F10")
    player.sends("F11")
    assert change.message.status_code == 200
    player.gets("F12")
    player.sends("F13")


def test_being_busy(play: Any) -> None:
    player = play("rfc3665-3.9")
    session = arrive(player, "F4")
    player.do(session.reject, 486, None, ())
    player.sends("F6")
    player.gets("F7")
    assert session.reason is SignalingTransitionReason.BUSY


def test_a_call_is_taken_back(play: Any) -> None:
    player = play("cancel-1")
    session = arrive(player, "F1")
    rings(player, session, "F3")
    player.gets("F4")
    player.sends("F5", "F6")
    player.gets("F7")
    assert session.reason is SignalingTransitionReason.CANCELED


def test_provisional_responses_are_acknowledged(play: Any) -> None:
    player = play("prack-1")
    session = arrive(player, "F1")
    first = player.do(session.send_provisional, 183, None, (), player.content("F2"), True)
    player.sends("F2")
    player.gets("F3")
    player.sends("F4")
    assert first.message.method == "PRACK"
    player.do(session.send_provisional, 180, None, (), None, True)
    player.sends("F5")
    player.gets("F6")
    player.sends("F7")
    player.do(session.accept, None, ())
    player.sends("F8")
    player.gets("F9")
    assert session.state is SignalingState.CONNECTED
    player.do(session.terminate, ())
    assert player.sent.pop().method == "BYE"


# ---------------------------------------------------------------------- subscriptions


def test_subscribing(play: Any) -> None:
    player = play("subscribe-1")
    printed = player.printed("F1")
    player.be(str(printed.from_.uri))
    subscriber = Subscriber(
        player.engine,
        player.record,
        player,
        event="presence",
        uri=printed.uri,
        to=printed.headers.get("To"),
        target=Target("TLS", "peer.example", 5061, "peer.example"),
        expires=600,
        accept=["application/pidf+xml"],
        local_from='"Anna" <sips:anna@corp.example>;tag=',
    )
    player.do(subscriber.subscribe, (), None)
    assert player.sent[0].headers.get("Expires") == "600"
    player.sends("F1")
    player.gets("F2", "F3")
    player.sends("F4")
    assert subscriber.state is SubscriptionSignalingState.SUBSCRIBED
    assert subscriber.time_remaining(player.now) == 299 / 2  # when it is refreshed
    player.do(subscriber.terminate, ())
    assert player.sent[0].headers.get("Expires") == "0"
    player.sends("F5")
    player.gets("F6", "F7")
    assert player.sent.pop().status_code == 200
    assert subscriber.state is SubscriptionSignalingState.TERMINATED


def test_being_subscribed_to(play: Any) -> None:
    player = play("subscribe-1")
    player.be("sips:bert@corp.example")
    player.gets("F1")
    notifier = player.usage
    notifier.accept(player.now, 300, (), player.content("F3"))
    player.run()
    assert player.sent[0].headers.get("Expires") == "300"
    player.sends("F2")
    assert player.sent[0].headers.get("Subscription-State") == "active;expires=300"
    player.sends("F3")
    player.gets("F4", "F5")
    player.sends("F6")
    assert player.sent[0].headers.get("Subscription-State") == "terminated;reason=timeout"
    assert player.sent.pop().method == "NOTIFY"
