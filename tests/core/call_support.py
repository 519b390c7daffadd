"""Two engines that call each other over a network that does what the test says."""

from __future__ import annotations

import functools
import heapq
import itertools
import random
from collections.abc import Iterable
from typing import Any

from core_support import CountingTokens, FakeFlow, Target

from p2psip.config import ManagerSettings
from p2psip.core.authentication import Credential
from p2psip.core.dialog import Content
from p2psip.core.digest_demand import DigestDemand
from p2psip.core.directory import Directory, EndpointRecord
from p2psip.core.effects import Arrived, Complete, Deliver, Expired, OpenFlow, Provisional, Send, SendBack, Tell
from p2psip.core.engine import Engine
from p2psip.core.notify import receive_subscribe
from p2psip.core.refer_outside import receive_refer
from p2psip.core.session import Session
from p2psip.core.session_arrival import receive_invite
from p2psip.errors import ConnectionFailureException
from p2psip.message import Request, Response, SipUri, parse_message

OFFER = Content("application/sdp", b"v=0\r\no=alice 1 1 IN IP4 a.example\r\ns=-\r\n")
ANSWER = Content("application/sdp", b"v=0\r\no=bob 1 1 IN IP4 b.example\r\ns=-\r\n")


class Operation:
    """What a command ends; a test that sees it ended twice fails."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ends: list[tuple[Any, Any]] = []

    def __repr__(self) -> str:
        return f"<{self.name} {self.ends}>"

    @property
    def message(self) -> Any:
        ((message, _),) = self.ends
        return message

    @property
    def error(self) -> Any:
        ((_, error),) = self.ends
        return error


class Home:
    """An endpoint as the core sees it."""

    user_agent = "test"

    def __init__(self, user: str) -> None:
        self.user = user

    def _contact(self, flow: Any, request_uri: str) -> str:
        return f"<sip:{self.user}@{flow.sent_by};transport={flow.transport.lower()}>"

    def _next_hop(self, uri: SipUri | str, secure: bool, learned: bool) -> Target:
        assert isinstance(uri, SipUri)
        return Target("TLS", uri.host, uri.port or 5061, uri.host)

    def _allowed_methods(self) -> list[str]:
        return ["OPTIONS", "MESSAGE"]

    def _arrived(self, usage: Any) -> None:
        raise AssertionError("The world carries out effects by itself.")

    packages: tuple[str, ...] = ()

    def _event_packages(self) -> tuple[str, ...]:
        return self.packages


class AnyRealm:
    """What is said to every challenge."""

    def __init__(self) -> None:
        self._credential = Credential("them", "secret")

    def find(self, realm: str) -> Credential:
        return self._credential


class Party:
    """One engine with one endpoint, and all that it was told."""

    def __init__(self, world: World, user: str, address: str, settings: ManagerSettings) -> None:
        self.world = world
        self.user = user
        self.address = address
        self.engine = Engine(settings, CountingTokens(user), Directory())
        self.record = EndpointRecord(
            endpoint=Home(user), owner=SipUri.parse(f"sip:{user}@{user}.example"), opaque=user, gruu=None, epid=user
        )
        self.engine.directory.add(self.record)
        self.engine.acceptors["INVITE"] = functools.partial(receive_invite, self.engine)
        self.engine.acceptors["SUBSCRIBE"] = functools.partial(receive_subscribe, self.engine)
        self.engine.acceptors["REFER"] = functools.partial(receive_refer, self.engine)
        self.events: list[Any] = []
        self.sessions: list[Any] = []
        self.flows: list[FakeFlow] = []

    def call(
        self,
        *,
        offer: Content | None = OFFER,
        timeout: float | None = None,
        headers: Iterable[tuple[str, str]] = (),
        **options: Any,
    ) -> tuple[Session, Operation]:
        """Call the other one."""
        session = Session(self.engine, self.record, self, **options)
        other = self.world.other(self)
        operation = self.world.operation("establish")
        uri = f"sip:{other.user}@{other.user}.example"
        target = Target("TLS", f"{other.user}.example", 5061, f"{other.user}.example")
        session.establish(self.world.now, uri, f"<{uri}>", target, offer, [*headers], operation, timeout)
        self.sessions.append(session)
        self.world.run()
        return session, operation

    def do(self, command: Any, *args: Any) -> Operation:
        """``command(now, *args, operation)``."""
        operation = self.world.operation(getattr(command, "__name__", "command"))
        command(self.world.now, *args, operation)
        self.world.run()
        return operation

    def happened(self, kind: str) -> list[Any]:
        return [event for event in self.events if type(event).__name__ == kind]

    def assert_empty(self) -> None:
        engine = self.engine
        assert len(engine.dialogs) == 0, list(engine.dialogs)
        assert not engine._opening
        assert not engine._clients
        assert not engine._servers
        assert not any(record.serving for record in engine.directory.records)
        assert not engine._flows
        assert not engine.dialogs._flows
        assert not engine.dialogs._expected
        assert len(engine.timers) == 0, [t for queue in engine.timers._queues.values() for t in queue]


class World:
    """The network between them: in order on each connection, with a delay, until something is held, dropped or cut."""

    def __init__(self, *, settings: ManagerSettings | None = None, seed: int = 0) -> None:
        self.now = 0.0
        self.random = random.Random(seed)
        self.alice = Party(self, "alice", "192.0.2.1", settings or ManagerSettings())
        self.bob = Party(self, "bob", "192.0.2.2", settings or ManagerSettings())
        self.log: list[str] = []
        self.messages: list[Any] = []
        self.operations: list[Operation] = []
        self.delay = 0.0
        self.jitter = 0.0
        self.duplicates = 0.0
        self.spread = 0.0
        """How probably a request takes a new connection, on which it may overtake others."""
        self.unreachable = False
        self.lose: Any = None
        """A function of a message: True loses it."""
        self.held: list[tuple[Party, FakeFlow, Any]] | None = None
        """Messages that wait, once it is a list."""
        self.reactions: list[Any] = []
        self._queue: list[tuple[float, int, Party, FakeFlow, Any]] = []
        self._order = itertools.count()
        self._running = False
        self._last: dict[FakeFlow, float] = {}

    def demand_digest(self) -> None:
        """Each side wants it of the other one from now on, for every request."""
        for party in (self.alice, self.bob):
            users = {"them": Credential("them", "secret")}
            party.record.demand = DigestDemand(party.user, users, ["SHA-256"], party.user, except_certificates=False)
            party.record.credentials = AnyRealm()

    def other(self, party: Party) -> Party:
        return self.bob if party is self.alice else self.alice

    def operation(self, name: str) -> Operation:
        operation = Operation(name)
        self.operations.append(operation)
        return operation

    # ------------------------------------------------------------------ effects

    def run(self) -> None:
        """Carry out what the engines ask for; what takes no time happens at once."""
        if self._running:
            return
        self._running = True
        try:
            while True:
                for party in (self.alice, self.bob):
                    for effect in party.engine.take_effects():
                        self._carry_out(party, effect)
                if self._queue and self._queue[0][0] <= self.now:
                    _, _, party, flow, message = heapq.heappop(self._queue)
                    if flow.is_connected:
                        party.engine.receive(self.now, flow, message)
                elif not (self.alice.engine.effects or self.bob.engine.effects):
                    return
        finally:
            self._running = False

    def _carry_out(self, party: Party, effect: Any) -> None:
        if isinstance(effect, Send):
            self._send(party, effect.flow, parse_message(effect.data))
        elif isinstance(effect, OpenFlow):
            self._open(party, effect)
        elif isinstance(effect, SendBack):
            self._send_back(party, effect)
        elif isinstance(effect, Arrived):
            effect.usage.user = party
            party.sessions.append(effect.usage)
            for reaction in self.reactions:
                reaction(party, effect.usage, None)
        elif isinstance(effect, Tell):
            party.events.append(effect.event)
            for reaction in self.reactions:
                reaction(party, effect.usage, effect.event)
        elif isinstance(effect, Complete):
            effect.user.ends.append((effect.response, effect.error))
            assert len(effect.user.ends) == 1, effect.user
        elif isinstance(effect, Deliver):
            party.engine.respond(self.now, effect.transaction, effect.transaction.create_response(200))
        else:
            assert isinstance(effect, Provisional | Expired), effect

    def _open(self, party: Party, effect: OpenFlow) -> None:
        flow = effect.flow
        if self.spread and not isinstance(effect.target, Exception) and self.random.random() < self.spread:
            flow = self.connect(party)
        if flow is None or not flow.is_connected:
            if isinstance(effect.target, Exception):
                party.engine.flow_failed(self.now, effect.client_request, effect.target)  # type: ignore[arg-type]
                return
            mine = [flow for flow in party.flows if flow.is_connected and not flow.is_incoming]
            if self.unreachable and not mine:
                error = ConnectionFailureException("No way there.")
                party.engine.flow_failed(self.now, effect.client_request, error)
                return
            flow = mine[0] if mine else self.connect(party)
        party.engine.flow_opened(self.now, effect.client_request, flow)

    def _send_back(self, party: Party, effect: SendBack) -> None:
        if self.unreachable:
            effect.late.failed(self.now, ConnectionFailureException("No way there."))
        else:
            effect.late.opened(self.now, self.connect(party))

    def connect(self, party: Party) -> FakeFlow:
        """A connection from that party to the other one."""
        other = self.other(party)
        port = 40000 + next(self._order)
        mine = FakeFlow((party.address, port), (other.address, 5061), sent_by=f"{party.address}:5061")
        theirs = FakeFlow((other.address, 5061), (party.address, port))
        theirs.is_incoming = True
        mine.peer, theirs.peer = theirs, mine
        party.flows.append(mine)
        other.flows.append(theirs)
        return mine

    def _send(self, party: Party, flow: FakeFlow, message: Any) -> None:
        name = message.method if isinstance(message, Request) else str(message.status_code)
        self.log.append(name)
        check_what_every_message_needs(message)
        self.messages.append((party, message))
        assert flow.peer is not None
        if not flow.is_connected or (self.lose is not None and self.lose(message)):
            return
        if self.held is not None:
            self.held.append((self.other(party), flow.peer, message))
            return
        for _ in range(2 if self.random.random() < self.duplicates else 1):
            when = self.now + self.delay + self.random.random() * self.jitter
            when = self._last[flow.peer] = max(when, self._last.get(flow.peer, 0.0))
            heapq.heappush(self._queue, (when, next(self._order), self.other(party), flow.peer, message))

    def release(self, *, reverse: bool = False) -> None:
        """Let what is held arrive."""
        held, self.held = self.held or [], None
        for party, flow, message in reversed(held) if reverse else held:
            party.engine.receive(self.now, flow, message)
        self.run()

    def cut(self) -> None:
        """All connections are lost, and what is under way on them."""
        for party in (self.alice, self.bob):
            flows, party.flows = party.flows, []
            for flow in flows:
                flow.is_connected = False
                party.engine.flow_closed(self.now, flow, ConnectionFailureException("The connection was cut."))
        self.run()

    # ------------------------------------------------------------------ time

    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            times = [t for p in (self.alice, self.bob) if (t := p.engine.next_deadline()) is not None]
            if self._queue:
                times.append(self._queue[0][0])
            if not times or min(times) > end:
                break
            self.now = max(self.now, min(times))
            self._advance()
        self.now = end
        self._advance()

    def _advance(self) -> None:
        for party in (self.alice, self.bob):
            party.engine.advance(self.now)
        self.run()

    def assert_over(self) -> None:
        """Every operation has ended, and nothing is left."""
        waiting = [operation for operation in self.operations if not operation.ends]
        assert not waiting, waiting
        for party in (self.alice, self.bob):
            party.assert_empty()


def check_what_every_message_needs(message: Any) -> None:
    """RFC 3261 8.1.1, 8.2.6, 12.1, 13.2, 13.3: what each message that we send has to bear."""
    message.validate()
    headers, method = message.headers, message.cseq.method
    assert message.from_tag
    if isinstance(message, Request):
        assert headers.get("Max-Forwards") == "70"
        assert message.top_branch is not None
        assert message.top_branch.startswith("z9hG4bK")
        assert (message.to_tag is not None) or method in ("INVITE", "CANCEL", "SUBSCRIBE", "ACK", "PUBLISH", "REFER")
    elif message.status_code > 100:
        assert message.to_tag
    is_answer = isinstance(message, Response)
    if method in ("INVITE", "UPDATE", "SUBSCRIBE", "REFER") and (not is_answer or 101 <= message.status_code < 300):
        assert headers.count("Contact") == 1
    if method in ("INVITE", "UPDATE") and (not is_answer or 200 <= message.status_code < 300):
        assert headers.get("Allow")
        assert headers.get("Supported")
    if method == "NOTIFY" and not is_answer:
        assert headers.get("Event")
    if method in ("ACK", "BYE", "CANCEL") and not is_answer:
        assert headers.get("Contact") is None


def connected(world: World) -> tuple[Session, Session]:
    """A call from Alice to Bob that is up, on both sides; a 2xx is acknowledged at once."""
    world.reactions.append(acknowledge_at_once)
    session, establish = world.alice.call()
    accept = world.bob.do(world.bob.sessions[-1].accept, ANSWER, ())
    assert establish.message.status_code == 200
    assert accept.message.method == "ACK"
    return session, world.bob.sessions[-1]


def acknowledge_at_once(party: Party, session: Session, event: Any) -> None:
    if type(event).__name__ == "InvitationAccepted":
        session.acknowledge(party.world.now, ANSWER if event.needs_answer else None, ())
