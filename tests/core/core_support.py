"""What the tests of the core share: flows, tokens, and two engines that are wired back to back on a fake clock."""

from __future__ import annotations

import dataclasses
import itertools
from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple

from p2psip.config import ManagerSettings
from p2psip.core.directory import Directory, EndpointRecord
from p2psip.core.effects import Arrived, Complete, Deliver, Effect, Expired, OpenFlow, Provisional, Send, SendBack, Tell
from p2psip.core.engine import ClientRequest, Engine
from p2psip.core.transaction import ServerTransaction
from p2psip.message import Request, Response, SipUri, parse_message
from p2psip.net.identity import Identities


class Target(NamedTuple):
    transport: str
    host: str
    port: int
    identity: str | None


NOBODY: Any = None
"""In place of an endpoint, where nothing is asked of one."""
TARGET = Target("TLS", "b.example", 5061, "b.example")


class FakeFlow:
    """A connection as the core sees it; its peer is the other end, whose certificate carries the names."""

    def __init__(
        self,
        local: tuple[str, int] = ("192.0.2.1", 5061),
        remote: tuple[str, int] = ("192.0.2.2", 5061),
        transport: str = "TLS",
        sent_by: str | None = None,
        names: Iterable[str] = (),
    ) -> None:
        self.identities = Identities(names, ())
        self.transport = transport
        self.reliable = transport != "UDP"
        self.local = local
        self.remote = remote
        self.sent_by = sent_by or f"{local[0]}:{local[1]}"
        self.via_parameters = ""
        self.is_incoming = False
        self.is_connected = True
        self.is_authenticated = transport == "TLS"
        self.unanswered = 0
        self.messages_received = 1
        self.peer: FakeFlow | None = None
        self.unsent: set[str] = set()
        self.doubts: list[float] = []

    def doubt(self, since: float) -> None:
        self.doubts.append(since)

    def is_unsent(self, branch: str) -> bool:
        return branch in self.unsent

    def covers(self, host: str) -> bool:
        return host == self.remote[0]

    def certifies(self, host: str) -> bool:
        return self.identities.covers(host)

    def certified_as(self, domains: Iterable[str]) -> str | None:
        return self.identities.matching(domains)


class CountingTokens:
    """Identifiers that tell in a failing test whose they are."""

    def __init__(self, name: str = "a") -> None:
        self._name = name
        self._count = itertools.count(1)

    def branch(self) -> str:
        return f"z9hG4bK-{self._name}{next(self._count)}"

    def tag(self) -> str:
        return f"tag{self._name}{next(self._count)}"

    call_id = tag

    def fraction(self) -> float:
        return 0.5


def make_record(
    owner: str = "sip:bob@b.example", opaque: str = "op", epid: str = "e1", gruu: str | None = None
) -> EndpointRecord:
    return EndpointRecord(
        endpoint=NOBODY,
        owner=SipUri.parse(owner),
        opaque=opaque,
        gruu=None if gruu is None else SipUri.parse(gruu),
        epid=epid,
    )


_numbers = itertools.count(1)


def make_request(
    method: str = "MESSAGE",
    uri: str = "sip:bob@b.example",
    *,
    headers: Iterable[tuple[str, str]] = (),
    body: bytes = b"",
    to: str | None = None,
    call_id: str | None = None,
    cseq: int = 1,
    from_tag: str = "from",
) -> Request:
    """A request of ours: complete but for Via."""
    return Request(
        method,
        uri,
        [
            ("Max-Forwards", "70"),
            ("From", f"<sip:alice@a.example>;tag={from_tag}"),
            ("To", to or "<sip:bob@b.example>"),
            ("Call-ID", call_id or f"call{next(_numbers)}@a.example"),
            ("CSeq", f"{cseq} {method}"),
            *headers,
        ],
        body,
    )


def received(request: Request, via: str | None = None) -> Request:
    """The request as it comes off the wire."""
    if via is None:
        via = f"SIP/2.0/TLS 192.0.2.2:5061;branch=z9hG4bK-w{next(_numbers)}"
    request.headers.prepend("Via", via)
    message = parse_message(request.to_bytes())
    assert isinstance(message, Request)
    return message


def incoming(
    method: str = "MESSAGE", uri: str = "sip:bob@b.example", *, via: str | None = None, **more: Any
) -> Request:
    return received(make_request(method, uri, **more), via)


class Side:
    """One engine, what it was told to do, and the flows to the other side."""

    def __init__(self, name: str, settings: ManagerSettings | None = None) -> None:
        self.directory = Directory()
        self.engine = Engine(settings or ManagerSettings(), CountingTokens(name), self.directory)
        self.completed: list[Complete] = []
        self.provisionals: list[Provisional] = []
        self.delivered: list[ServerTransaction] = []
        self.expired: list[ServerTransaction] = []
        self.arrived: list[Any] = []
        self.told: list[Any] = []
        self.opening: list[Any] = []
        self.late: list[SendBack] = []
        self.sent: list[tuple[FakeFlow, Request | Response]] = []

    def take(self) -> list[Effect]:
        """Sort the effects into the lists; all of them are returned as well."""
        effects = self.engine.take_effects()
        for effect in effects:
            if isinstance(effect, Send):
                self.sent.append((effect.flow, parse_message(effect.data)))
            elif isinstance(effect, OpenFlow):
                self.opening.append(effect.client_request)
            elif isinstance(effect, SendBack):
                self.late.append(effect)
            elif isinstance(effect, Complete):
                self.completed.append(effect)
            elif isinstance(effect, Provisional):
                self.provisionals.append(effect)
            elif isinstance(effect, Deliver):
                self.delivered.append(effect.transaction)
            elif isinstance(effect, Expired):
                self.expired.append(effect.transaction)
            elif isinstance(effect, Arrived):
                self.arrived.append(effect.usage)
            elif isinstance(effect, Tell):
                self.told.append(effect.event)
            else:
                raise AssertionError(f"{effect!r} is no effect that tests know")
        return effects

    def wire(self) -> list[str]:
        """Methods and status codes of what was sent since the last call."""
        self.take()
        shown = [m.method if isinstance(m, Request) else str(m.status_code) for _, m in self.sent]
        self.sent.clear()
        return shown

    def last(self) -> Request | Response:
        """The message that was sent last."""
        self.take()
        return self.sent[-1][1]

    @property
    def errors(self) -> list[Exception]:
        self.take()
        return [effect.error for effect in self.completed if effect.error is not None]

    @property
    def codes(self) -> list[int]:
        self.take()
        return [effect.response.status_code for effect in self.completed if isinstance(effect.response, Response)]

    def assert_empty(self) -> None:
        """Nothing is left of anything."""
        engine = self.engine
        assert not engine._opening
        assert not engine._clients
        assert not engine._servers
        assert not any(record.serving for record in self.directory.records)
        assert not engine._merges
        assert not engine._flows
        assert len(engine.timers) == 0
        assert engine.next_deadline() is None


def changed(**values: Any) -> ManagerSettings:
    return dataclasses.replace(ManagerSettings(), **values)


def flow_pair(transport: str = "TLS") -> tuple[FakeFlow, FakeFlow]:
    a = FakeFlow(("192.0.2.1", 5061), ("192.0.2.2", 5061), transport)
    b = FakeFlow(("192.0.2.2", 5061), ("192.0.2.1", 5061), transport)
    a.peer, b.peer = b, a
    return a, b


class Pair:
    """Alice's and Bob's engines with a perfect network between them, unless ``drop`` says otherwise."""

    def __init__(self, transport: str = "TLS", settings: ManagerSettings | None = None) -> None:
        self.now = 0.0
        self.alice = Side("a", settings)
        self.bob = Side("b", settings)
        self.flow, self.back = flow_pair(transport)
        self.bob.directory.add(make_record())
        self.log: list[str] = []
        self.drop: deque[bool] = deque()
        """For each message that is sent next: whether it is lost."""

    def send(self, request: Request, **more: Any) -> ClientRequest:
        return self.alice.engine.send_request(self.now, request, TARGET, request, **more)

    def settle(self) -> None:
        """Carry messages until there are none."""
        while self.alice.engine.effects or self.bob.engine.effects:
            for side, other in ((self.alice, self.bob), (self.bob, self.alice)):
                side.take()
                for client_request in side.opening:
                    side.engine.flow_opened(self.now, client_request, self.flow if side is self.alice else self.back)
                side.opening.clear()
                side.take()
                for flow, message in side.sent:
                    self.log.append(message.method if isinstance(message, Request) else str(message.status_code))
                    if not (self.drop and self.drop.popleft()):
                        assert flow.peer is not None
                        other.engine.receive(self.now, flow.peer, message)
                side.sent.clear()

    def pass_time(self, seconds: float) -> None:
        """Let time go by from deadline to deadline."""
        end = self.now + seconds
        while True:
            deadlines = [d for side in (self.alice, self.bob) if (d := side.engine.next_deadline()) is not None]
            if not deadlines or min(deadlines) > end:
                break
            self.now = min(deadlines)
            for side in (self.alice, self.bob):
                side.engine.advance(self.now)
            self.settle()
        self.now = end
        for side in (self.alice, self.bob):
            side.engine.advance(self.now)
        self.settle()

    def answer(self, code: int = 200, **more: Any) -> ServerTransaction:
        """Bob answers the request that was delivered last."""
        transaction = self.bob.delivered[-1]
        self.bob.engine.respond(self.now, transaction, transaction.create_response(code, **more))
        self.settle()
        return transaction

    def assert_empty(self) -> None:
        self.alice.assert_empty()
        self.bob.assert_empty()
        assert self.flow.unanswered == self.back.unanswered == 0
