"""One user agent of a printed flow: the engine is that one, the print is all the others.

What the peers say is taken from the print, with our tags, branches and Call-IDs in place of the printed ones. What the
engine says is compared with the print: start line, path, tags, numbers, targets, and every header that is printed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from call_support import Home, Operation, check_what_every_message_needs
from core_support import CountingTokens, FakeFlow, Target

from p2psip.config import ManagerSettings
from p2psip.core.authentication import Credential
from p2psip.core.dialog import Content
from p2psip.core.directory import Directory, EndpointRecord
from p2psip.core.effects import Arrived, Complete, Deliver, Expired, OpenFlow, Send, Tell
from p2psip.core.engine import Engine
from p2psip.core.session import Session, SessionOptions
from p2psip.core.usages import install
from p2psip.core.ways import Way, Ways
from p2psip.enums import SignalingState
from p2psip.message import Request, Response, SipUri, parse_message, unescape

PEER = Target("TLS", "peer.example", 5061, "peer.example")
NOT_OURS = {
    "content-length",  # the stream has it anyway
    "date",  # nobody needs it
    "identity",
    "identity-info",
    "proxy-authorization",
    "route",  # compared as a whole
    "record-route",
}
GENERATED = {"via", "call-id", "cseq", "max-forwards"}
"""Compared each in its own way, or with the number that RFC 3261 recommends."""
LISTS = {"allow", "supported"}
"""We may know more than is printed."""
NOT_KNOWN = {"gruu"}
"""Option tags that are printed and that we do not claim."""


class Known:
    """Alice, at the proxies of RFC 3665, which know nothing better than MD5."""

    def find(self, realm: str) -> Credential:
        return Credential("alice", realm, allow_md5=True)


class PrintedHome(Home):
    """An endpoint whose Contact is printed."""

    contact: str | None = None

    def _contact(self, flow: Any, request_uri: str) -> str:
        return self.contact or super()._contact(flow, request_uri)


class Player:
    """One side of a flow."""

    def __init__(self, messages: Mapping[str, bytes], *, is_exact: bool = False) -> None:
        """``is_exact``: the values of headers are compared, too, and not only that they are there."""
        self.now = 0.0
        self.messages = messages
        self.is_exact = is_exact
        self.engine = Engine(ManagerSettings(), CountingTokens("x"), Directory())
        install(self.engine)
        self.flow = FakeFlow()
        self.record: Any = None
        self.sent: list[Any] = []
        self.events: list[Any] = []
        self.operations: list[Operation] = []
        self.usage: Any = None
        """The session, subscription, transfer or request that has arrived last."""
        self.words: dict[str, str] = {}
        """Printed tags, branches, Call-IDs, and ours in their place."""
        self.vias: dict[str, str] = {}
        self.rseqs: dict[str, str] = {}
        self.offsets: dict[str, int] = {}
        """How far our numbers in CSeq are from the printed ones, by the printed Call-ID."""

    def printed(self, label: str) -> Any:
        return parse_message(self.messages[label])

    def content(self, label: str) -> Content:
        content = Content.of(self.printed(label))
        assert content is not None
        return content

    def be(self, uri: str, *, contact: str | None = None, hosts: Iterable[str] = ()) -> None:
        """The user agent that has that address. ``hosts``: names of the machine that it is on."""
        if self.record is None:
            owner = SipUri.parse(uri)
            home = PrintedHome(owner.user or "")
            home.contact = contact
            gruu = SipUri.parse(contact.strip("<>")) if contact is not None and contact.endswith(";gr>") else None
            self.record = EndpointRecord(endpoint=home, owner=owner, opaque="op", gruu=gruu, epid="e")
            self.engine.directory.add(self.record)
            self.engine.directory.local_hosts |= set(hosts)

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
                    if message.cseq.method != "MESSAGE":  # which is outside of any dialog here
                        check_what_every_message_needs(message)
                    self.sent.append(message)
                elif isinstance(effect, OpenFlow):
                    self.engine.flow_opened(self.now, effect.client_request, self.flow)
                elif isinstance(effect, Arrived):
                    self.usage = effect.usage
                    self.usage.user = self
                elif isinstance(effect, Deliver):
                    self.usage = effect.transaction
                elif isinstance(effect, Tell):
                    self.events.append(effect.event)
                elif isinstance(effect, Complete):
                    effect.user.ends.append((effect.response, effect.error))
                else:
                    assert isinstance(effect, Expired), effect

    def happened(self, kind: str) -> list[Any]:
        return [event for event in self.events if type(event).__name__ == kind]

    def call(
        self, label: str, headers: Iterable[tuple[str, str]] = (), ways: Ways | None = None
    ) -> tuple[Session, Operation]:
        """Send the INVITE that is printed, by the route that is printed unless there are ``ways``."""
        invite = self.printed(label)
        self.be(str(invite.from_.uri))
        options = SessionOptions(local_from=(invite.headers.get("From") or "").partition("tag=")[0] + "tag=")
        session = Session(self.engine, self.record, self, options)
        route = tuple(invite.headers.get_all("Route")) if self.is_exact else ()
        to = invite.headers.get("To") or ""
        target = ways or Ways([Way(PEER, route)])
        establish = self.do(session.establish, invite.uri, to, target, Content.of(invite), [*headers])
        self.sends(label)
        return session, establish

    def acknowledge(self, session: Session, answer: Content | None = None) -> None:
        session.acknowledge(self.now, answer, ())
        self.run()

    def arrive(self, label: str, change: Iterable[tuple[str, str]] = ()) -> Session:
        """The INVITE that is printed comes in."""
        invite = self.printed(label)
        self.be(invite.uri)
        self.gets(label, change=change)
        session = self.usage
        assert isinstance(session, Session)
        assert session.state is SignalingState.INCOMING
        assert session.request is not None
        assert session.request.body == invite.body
        session.options.is_timer_supported = False
        return session

    def calls(
        self, invite: str, ring: tuple[str, ...], success: str, ack: str, headers: Iterable[tuple[str, str]] = ()
    ) -> Session:
        """A call of ours, until it is up."""
        session, establish = self.call(invite, headers)
        self.gets(*ring, success)
        self.acknowledge(session)
        self.sends(ack)
        assert establish.message.status_code == 200
        assert session.state is SignalingState.CONNECTED
        return session

    def is_called(self, invite: str, ring: str | None, success: str, ack: str) -> Session:
        """A call of somebody else, until it is up."""
        session = self.arrive(invite)
        if ring is not None:
            self.rings(session, ring)
        accept = self.accepts(session, success)
        self.gets(ack)
        assert accept.message.method == "ACK"
        assert session.state is SignalingState.CONNECTED
        return session

    def answers(self, request: str, answer: str) -> None:
        """A request of the peer, and what we answer at once."""
        self.gets(request)
        self.sends(answer)

    def ends(self, session: Session) -> None:
        """Hang up, where the print goes no further."""
        self.do(session.terminate, ())
        assert self.sent.pop().method == "BYE"

    def rings(self, session: Session, label: str) -> None:
        self.do(session.send_provisional, 180, None, (), None, False)
        self.sends(label)

    def accepts(self, session: Session, label: str) -> Operation:
        accept = self.do(session.accept, self.content(label), ())
        self.sends(label)
        return accept

    def changes(self, session: Session, offer: str, answer: str, ack: str) -> None:
        """A re-INVITE of ours, from its offer to its ACK."""
        change = self.do(session.renegotiate, self.content(offer), ())
        self.sends(offer)
        self.gets(answer)
        self.sends(ack)
        assert change.message.body == self.content(answer).body
        assert (session.local_content, session.remote_content) == (self.content(offer), self.content(answer))

    def is_changed(self, session: Session, offer: str, answer: str, ack: str) -> None:
        """A re-INVITE of the peer."""
        self.gets(offer)
        offered = self.events[-1]
        assert offered.content == self.content(offer)
        session.accept_offer(self.now, offered.transaction, self.content(answer))
        self.run()
        self.sends(answer)
        self.gets(ack)
        assert (session.local_content, session.remote_content) == (self.content(answer), self.content(offer))

    def hangs_up(self, session: Session, bye: str, answer: str) -> None:
        end = self.do(session.terminate, ())
        self.sends(bye)
        self.gets(answer)
        assert end.ends == [(None, None)]

    def is_hung_up(self, session: Session, bye: str, answer: str) -> None:
        self.gets(bye)
        self.sends(answer)
        assert session.state is SignalingState.DISCONNECTED

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.engine.advance(self.now)
        self.run()

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

    def gets(self, *labels: str, change: Iterable[tuple[str, str]] = ()) -> None:
        """``change``: headers whose printed value stands for another one."""
        for label in labels:
            message = self.printed(label)
            headers = message.headers
            for name in ("From", "To", "Replaces"):
                if (value := headers.get(name)) is not None:
                    headers.set(name, self.translated(value))
            for name, value in change:
                headers.set(name, value)
            printed_call = message.call_id
            headers.set("Call-ID", self.words.get(printed_call, printed_call))
            if isinstance(message, Response):
                via = self.vias[message.top_branch or ""]
                headers.remove("Via")
                headers.prepend("Via", via)
                headers.set("CSeq", f"{message.cseq.number + self.offsets[printed_call]} {message.cseq.method}")
            elif message.method == "PRACK":
                rseq, rest = (headers.get("RAck") or "").split(" ", 1)
                headers.set("RAck", f"{self.rseqs[rseq]} {rest}")
            self.engine.receive(self.now, self.flow, parse_message(message.to_bytes()))
            self.run()

    def translated(self, text: str) -> str:
        """With our words in place of the printed ones: the tags, and the Call-ID that a value of Replaces begins with."""
        call_id, semicolon, rest = text.partition(";")
        text = self.words.get(call_id, call_id) + semicolon + rest
        return re.sub(r"(?<=tag=)[^;>\s]+", lambda found: self.words.get(found[0], found[0]), text)

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
        method, is_answer = printed.cseq.method, isinstance(ours, Response)
        if is_answer:
            names.discard("max-forwards")  # printed by mistake in some
        if method in ("BYE", "CANCEL", "ACK", "MESSAGE") or (method == "NOTIFY" and is_answer):
            names.discard("contact")
        if not self.is_exact:
            names.discard("supported")
        assert not {name for name in names if ours.headers.get(name) is None}
        if self.is_exact:
            for name in sorted(names - GENERATED):
                self.compare_values(name, printed.headers.get(name) or "", ours.headers.get(name) or "")
        else:
            assert ours.content_type == printed.content_type
        assert ours.body == printed.body

    def compare_values(self, name: str, printed: str, ours: str) -> None:
        if name in LISTS:
            assert _words(printed) - NOT_KNOWN <= _words(ours), name
            return
        if name == "replaces":
            assert _parts(ours) == _parts(self.translated(printed))
            return
        if name == "refer-to":
            uri, _, replaces = unescape(printed.strip("<>")).partition("?Replaces=")
            ours_uri, _, ours_replaces = unescape(ours.strip("<>")).partition("?Replaces=")
            assert ours_uri == uri
            replaces, _, more = replaces.partition("&")
            ours_replaces, _, ours_more = ours_replaces.partition("&")
            assert _parts(ours_replaces) == _parts(self.translated(replaces))
            assert ours_more == more
            return
        if name in ("event", "content-type"):  # ours has an id (RFC 3515 2.4.6), or a version (RFC 3420)
            printed, ours = printed.partition(";")[0], ours.partition(";")[0]
        elif name == "contact":  # no features of ours (RFC 3840)
            printed, ours = printed.partition(">")[0], ours.partition(">")[0]
        elif name == "subscription-state":  # each chooses how long
            printed, ours = re.sub(r";expires=\d+", "", printed), re.sub(r";expires=\d+", "", ours)
        elif name in ("from", "to"):
            printed = self.translated(printed)
        assert ours == printed, name

    def compare_requests(self, printed: Request, ours: Request) -> None:
        assert ours.method == printed.method
        self.learn(printed.top_branch, ours.top_branch)
        self.vias[printed.top_branch or ""] = ours.headers.get_all("Via")[0]
        assert len(ours.via) == 1
        if self.is_exact:
            assert ours.uri == printed.uri
        else:  # that print leaves parameters out, and does not care for case
            assert ours.uri.partition(";")[0].lower() == printed.uri.partition(";")[0].lower()
        if printed.to_tag is not None or self.is_exact:
            assert ours.headers.get_all("Route") == printed.headers.get_all("Route")
        offset = ours.cseq.number - printed.cseq.number
        assert self.offsets.setdefault(printed.call_id or "", offset) == offset
        if printed.method == "PRACK":
            rseq, number, method = (printed.headers.get("RAck") or "").split()
            assert ours.headers.get("RAck") == f"{rseq} {int(number) + offset} {method}"

    def learn(self, printed: str | None, ours: str | None) -> None:
        """The same word always stands for the same word, and for no other."""
        assert (printed is None) == (ours is None)
        if printed is not None and ours is not None:
            assert self.words.setdefault(printed, ours) == ours
            assert [ours] == [word for word in self.words.values() if word == ours]


def _words(value: str) -> set[str]:
    return {word.strip().lower() for word in value.split(",")}


def _parts(replaces: str) -> set[str]:
    """The tags may come in any order."""
    return set(replaces.split(";"))
