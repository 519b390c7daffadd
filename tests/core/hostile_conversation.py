"""A peer that says anything at any time to an engine whose application does anything at any time.

A conversation is a list of steps. Each is a small tuple of choices, so that Hypothesis can make and shrink it, and so
that a fuzzer can make it of octets: ``Conversation(steps).run()`` and ``Conversation(steps_of(octets)).run()`` check
after each step what must always hold, and in the end that nothing is left.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from typing import Any

from call_support import AnyRealm, Home
from core_support import CountingTokens, FakeFlow, Target, changed
from hostile_application import Application
from hostile_headers import PIECES, our_headers
from hostile_peer import BOUNDLESS, Peer
from hostile_steps import Ask, Change, Mangle, Pieces, Repeat, Reply, Step, Wait

from p2psip.config import ManagerSettings
from p2psip.core.directory import Directory, EndpointRecord
from p2psip.core.effects import Arrived, Complete, Deliver, Expired, OpenFlow, Provisional, Send, SendBack, Tell
from p2psip.core.engine import Engine
from p2psip.core.events import ReferReceived
from p2psip.core.notify import receive_subscribe
from p2psip.core.refer_outside import receive_refer
from p2psip.core.sender import Sender
from p2psip.core.session_arrival import receive_invite
from p2psip.enums import SenderPolicy
from p2psip.errors import ConnectionFailureException, MessageParsingException, RealTimeException
from p2psip.message import Malformed, Ping, Pong, Request, Response, SipUri, StreamFramer, parse_message

FAILED = ConnectionFailureException("No way there.")
LONG = 400.0
"""Seconds after which nothing may be left that nobody wants any more: ringing has ended by then, and what waits for the
end of a transaction."""
MOST_AT_ONCE = 4
"""Messages that one message of a peer may make us send at once: an answer, an ACK and a BYE, say."""


class Us(Home):
    """Our endpoint."""

    def _next_hop(self, uri: SipUri | str, secure: bool, learned: bool) -> Target:
        if not isinstance(uri, SipUri):
            raise ConnectionFailureException(f"There is no way to {uri}.")
        return Target("TLS", uri.host, uri.port or 5061, uri.host)


class Conversation(Application):
    """One of them."""

    def __init__(self, steps: Sequence[Step]) -> None:
        super().__init__()
        self.steps = steps
        self.now = 0.0
        self.log: list[str] = []
        self.engine = Engine(ManagerSettings(), CountingTokens("us"), Directory())
        self.record = EndpointRecord(
            endpoint=Us("us"), owner=SipUri.parse("sip:us@us.example"), opaque="us", gruu=None, epid="us"
        )
        self.record.credentials = AnyRealm()
        self.engine.directory.add(self.record)
        for method, accept in (("INVITE", receive_invite), ("SUBSCRIBE", receive_subscribe), ("REFER", receive_refer)):
            self.engine.acceptors[method] = functools.partial(accept, self.engine)
        self.flows: list[FakeFlow] = []
        self.framers: dict[FakeFlow, StreamFramer] = {}
        self.connect()
        self.is_reachable = True
        self.is_slow = False
        self.opening: list[Any] = []
        self.peer = Peer()
        # What must hold
        self.asked: set[tuple[str | None, ...]] = set()
        self.numbers: dict[tuple[str | None, ...], int] = {}
        self.branches: set[str | None] = set()

    def connect(self, transport: str = "TLS") -> FakeFlow:
        local, remote = ("192.0.2.1", 5061), ("192.0.2.2", 40000 + len(self.framers))
        flow = FakeFlow(local, remote, transport, sent_by="us.example:5061", names=["them.example"])
        self.flows.append(flow)
        self.framers[flow] = StreamFramer()
        return flow

    def run(self) -> None:
        """All steps, then the end."""
        for step in self.steps:
            self.log.append(repr(step))
            self.take(step)
            self.check_counts()
        self.end()

    def check_counts(self) -> None:
        """The engine's books are right."""
        for traffic in self.engine._flows.values():
            assert traffic.unanswered == sum(not server.is_answered for server in traffic.servers)
            assert traffic.clients or traffic.servers
        assert all(flow.unanswered >= 0 for flow in self.framers)

    def take(self, step: Step) -> None:
        if isinstance(step, Ask):
            self.send(self.peer.request(step))
        elif isinstance(step, Reply):
            if self.peer.ours:
                self.send(self.peer.response(step))
        elif isinstance(step, Repeat):
            known = self.peer.all_of_ours if step.is_ours else self.peer.theirs
            if known:
                self.send(known[-1 - step.which % len(known)])
        elif isinstance(step, Mangle):
            self.peer.mangle = step
        elif isinstance(step, Pieces):
            self.receive(PIECES[step.first] + PIECES[step.second])
        elif isinstance(step, Change):
            self.change(step.what)
        elif isinstance(step, Wait):
            self.pass_time(step.seconds)
        else:
            self.do(step)
        self.carry_out()

    # ------------------------------------------------------------------ what the peer says

    def send(self, octets: bytes) -> None:
        self.receive(self.peer.spoil(octets))

    def receive(self, octets: bytes) -> None:
        """The octets come over the newest connection; a stream whose framing is lost is closed, as the network does."""
        flow = self.flows[-1] if self.flows else self.connect()
        framer = self.framers[flow]
        items: list[Any] = []
        with contextlib.suppress(MessageParsingException):
            items = framer.feed(octets)
        for item in items:
            if not isinstance(item, Ping | Pong):
                self.take_in(flow, item)
        error = framer.error
        if error is not None:
            if error.answer is not None:
                parse_message(error.answer.to_bytes(), BOUNDLESS)
            self.close(flow, ConnectionFailureException("Framing was lost."))

    def take_in(self, flow: FakeFlow, message: Request | Response | Malformed) -> None:
        """One message; and what comes of it at once must be seemly."""
        if not flow.is_connected:
            return
        raw = message.data if isinstance(message, Malformed) else message.to_bytes()
        self.remember(message)
        flow.messages_received += 1
        self.engine.receive(self.now, flow, message)
        sent = [effect for effect in self.engine.effects if isinstance(effect, Send)]
        assert len(sent) <= MOST_AT_ONCE, f"{len(sent)} messages for one"
        answers = [parse_message(effect.data, BOUNDLESS) for effect in sent]
        if raw.startswith((b"ACK ", b"SIP/")):
            codes = [answer.status_code for answer in answers if isinstance(answer, Response)]
            assert not codes, f"{raw[:40]!r} was answered {codes}"
        self.carry_out()

    def remember(self, message: Request | Response | Malformed) -> None:
        if isinstance(message, Malformed):
            answer = message.error.answer
            if answer is not None:
                self.asked.add(name_of(answer))
        elif isinstance(message, Request) and message.method != "ACK":
            self.asked.add(name_of(message))

    # ------------------------------------------------------------------ connections and time

    def change(self, what: str) -> None:
        if what == "close" and self.flows:
            self.close(self.flows[-1], None)
        elif what == "lose" and self.flows:
            self.close(self.flows[-1], ConnectionFailureException("The connection was lost."))
        elif what == "connect":
            self.connect()
        elif what in ("reachable", "unreachable"):
            self.is_reachable = what == "reachable"
        elif what == "slow":
            self.is_slow = not self.is_slow
        elif what == "open":
            self.open_what_waits()
        elif what == "datagrams":
            self.connect("UDP")
        elif what == "certified":
            self.record.sender_policy = SenderPolicy.CERTIFIED
            self.record.trusted_peers = frozenset(["them.example"])
        elif what == "few":
            self.engine.settings = changed(
                maximum_transactions=3, maximum_unanswered_per_connection=2, maximum_dialogs=1
            )
        elif what == "shut down":
            self.engine.shutdown(self.now, ConnectionFailureException("It is over."))

    def close(self, flow: FakeFlow, error: Exception | None) -> None:
        if flow.is_connected:
            flow.is_connected = False
            self.flows.remove(flow)
            self.engine.flow_closed(self.now, flow, error)  # type: ignore[arg-type]

    def open_what_waits(self) -> None:
        opening, self.opening = self.opening, []
        for effect in opening:
            self.open(effect)

    def open(self, effect: OpenFlow | SendBack) -> None:
        flow = effect.flow if isinstance(effect, OpenFlow) else None
        if flow is None or not flow.is_connected:
            if isinstance(effect, OpenFlow) and isinstance(effect.target, Exception):
                self.engine.flow_failed(self.now, effect.client_request, effect.target)  # type: ignore[arg-type]
                return
            if not self.is_reachable:
                if isinstance(effect, OpenFlow):
                    self.engine.flow_failed(self.now, effect.client_request, FAILED)
                else:
                    effect.late.failed(self.now, FAILED)
                return
            flow = self.flows[-1] if self.flows else self.connect()
        if isinstance(effect, OpenFlow):
            self.engine.flow_opened(self.now, effect.client_request, flow)
        else:
            effect.late.opened(self.now, flow)

    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        for _ in range(20_000):
            self.carry_out()
            deadline = self.engine.next_deadline()
            if deadline is None or deadline > end:
                break
            self.now = max(self.now, deadline)
            self.engine.advance(self.now)
        else:
            raise AssertionError("There is always another timer.")
        self.now = end
        self.engine.advance(self.now)
        self.carry_out()

    # ------------------------------------------------------------------ what the engine wants

    def carry_out(self) -> None:
        while effects := self.engine.take_effects():
            for effect in effects:
                self.carry_out_one(effect)

    def carry_out_one(self, effect: Any) -> None:
        if isinstance(effect, Send):
            self.check(effect.data)
        elif isinstance(effect, OpenFlow | SendBack):
            if self.is_slow:
                self.opening.append(effect)
            else:
                self.open(effect)
        elif isinstance(effect, Arrived):
            effect.usage.user = self
            self.usages.append(effect.usage)
            look_at(effect.usage.sender)
        elif isinstance(effect, Tell):
            repr(effect.event)
            self.told.append((effect.usage, effect.event))
            if isinstance(effect.event, ReferReceived):
                effect.event.refer.user = self
                self.usages.append(effect.event.refer)
        elif isinstance(effect, Complete):
            effect.user.ends.append((effect.response, effect.error))
            assert len(effect.user.ends) == 1, f"ended twice: {effect.user}"
        elif isinstance(effect, Deliver):
            self.transactions.append(effect.transaction)
            look_at(Sender(effect.request, effect.transaction.flow, effect.record))
        else:
            assert isinstance(effect, Provisional | Expired), effect

    def check(self, octets: bytes) -> None:
        """What we send is one message, of header fields that we know, and is owed or new."""
        framer = StreamFramer(BOUNDLESS)
        (message,) = framer.feed(octets)
        assert not framer.in_message
        assert isinstance(message, Request | Response), message
        head = octets[: len(octets) - len(message.body)]
        assert head.count(b"\r") == head.count(b"\n") == head.count(b"\r\n"), head
        names = {name.lower() for name, _ in message.headers}
        assert names <= our_headers(), names - our_headers()
        if isinstance(message, Response):
            self.log.append(f"    we answer {message.status_code} to {message.headers.get('CSeq')}")
            assert name_of(message) in self.asked, f"nobody asked for {message!r}"
        else:
            self.log.append(f"    we send {message.method} {message.cseq.number}")
            self.check_request(message)
        self.peer.hear(octets, message)

    def check_request(self, request: Request) -> None:
        request.validate()
        assert request.headers.get("Max-Forwards") == "70"
        assert len(request.via) == 1
        assert (request.top_branch or "").startswith("z9hG4bK-us")
        if request.method in ("ACK", "CANCEL"):
            return
        # RFC 3261 12.2.1.1: in a dialog each has a higher number than the one before, or is the same once more. Outside
        # it may go to another server as it is, but for its branch (RFC 3263 4.3).
        line = (request.call_id, request.from_tag, request.to_tag)
        branch, number = request.top_branch, request.cseq.number
        if branch not in self.branches:
            assert number >= self.numbers.get(line, -1) + (request.to_tag is not None), (request, self.numbers)
            self.numbers[line] = number
            self.branches.add(branch)

    # ------------------------------------------------------------------ the end

    def end(self) -> None:
        """Everybody is tired of it. Once time has passed, all operations have ended and nothing is left."""
        self.log.append("the end")
        self.is_slow = self.is_reachable = False
        self.open_what_waits()
        self.carry_out()
        self.terminate_all()
        self.pass_time(LONG)
        engine = self.engine
        waiting = [operation for operation in self.operations if not operation.ends]
        assert not waiting, f"never ended: {waiting}"
        for operation in self.operations:
            for _, error in operation.ends:
                assert error is None or (isinstance(error, RealTimeException) and str(error)), operation
        assert not engine._opening and not engine._clients and not engine._servers and not engine._merges
        assert not engine._flows
        assert len(engine.dialogs) == 0, list(engine.dialogs)
        assert not engine.dialogs._flows and not engine.dialogs._expected
        assert len(engine.timers) == 0, [t for queue in engine.timers._queues.values() for t in queue]
        assert all(flow.unanswered == 0 for flow in self.framers), [flow.unanswered for flow in self.framers]


def look_at(sender: Sender) -> None:
    """As an application would."""
    assert isinstance(sender.is_proved, bool)
    assert not set("\r\n") & set(f"{sender.user}{sender.asserted_identity}")


def name_of(message: Request | Response) -> tuple[str | None, ...]:
    """What a response has in common with its request, as written."""
    return tuple(message.headers.get(name) for name in ("From", "Call-ID", "CSeq"))
