"""Random interleavings: whatever happens in whatever order, each request ends once and nothing is left."""

from __future__ import annotations

import collections
import random
from typing import Any

import pytest
from core_support import TARGET, FakeFlow, Side, changed, flow_pair, make_record, make_request

from p2psip.core.engine import ClientRequest
from p2psip.core.transaction import ServerTransaction
from p2psip.errors import ConnectionFailureException, OperationFailureException, RealTimeException
from p2psip.message import Request, Response

STEPS = 250


class Calls:
    """The usage of all INVITEs of both sides: acknowledges 2xx and counts final words."""

    def __init__(self, world: World) -> None:
        self.world = world

    def find(self, request: Request, flow: Any) -> Calls | None:
        return self if request.method == "ACK" else None

    def received(self, now: float, transaction: ServerTransaction) -> None:
        raise AssertionError

    cancelled = received

    def transaction_failed(self, now: float, transaction: ServerTransaction, error: Exception | None) -> None:
        raise AssertionError

    def acknowledged(self, now: float, flow: Any, ack: Request) -> None:
        assert (ack.call_id or "").startswith("invite")

    def responded(self, now: float, client_request: ClientRequest, response: Response) -> None:
        code = response.status_code
        if 200 <= code < 300:
            ack = make_request("ACK", call_id=client_request.request.call_id)
            self.world.side_of(client_request.flow).engine.send_ack(now, client_request.flow, ack)
        if code >= 300 or (code >= 200 and client_request.request.call_id not in self.world.ends):
            self.world.ended(client_request.request)

    def failed(self, now: float, client_request: ClientRequest, error: RealTimeException) -> None:
        self.world.ended(client_request.request)


class World:
    """Two engines and a network that delays, duplicates, reorders, drops and cuts."""

    def __init__(self, seed: int, transport: str) -> None:
        self.random = random.Random(seed)
        self.transport = transport
        self.now = 0.0
        self.sides = (Side("a", changed(request_ceiling=40.0)), Side("b", changed(request_ceiling=40.0)))
        self.calls = Calls(self)
        for side in self.sides:
            side.directory.add(make_record())
            side.engine.usages.append(self.calls)
        self.flows: list[FakeFlow] = []
        self.all_flows: list[FakeFlow] = []
        self.wire: list[tuple[FakeFlow, Request | Response]] = []
        self.opening: list[tuple[Side, ClientRequest]] = []
        self.waiting: list[tuple[Side, ServerTransaction]] = []
        self.requests: list[tuple[Side, ClientRequest]] = []
        self.forgotten: set[str | None] = set()
        self.ends: collections.Counter[str | None] = collections.Counter()
        self.connect()

    def connect(self) -> None:
        pair = flow_pair(self.transport)
        self.flows += pair
        self.all_flows += pair

    def side_of(self, flow: FakeFlow) -> Side:
        return self.sides[self.all_flows.index(flow) % 2]

    def ended(self, request: Request) -> None:
        self.ends[request.call_id] += 1

    def collect(self) -> None:
        for side in self.sides:
            side.take()
            self.wire += side.sent
            side.sent.clear()
            self.opening += [(side, client_request) for client_request in side.opening]
            side.opening.clear()
            self.waiting += [(side, transaction) for transaction in side.delivered]
            side.delivered.clear()
            for complete in side.completed:
                assert (complete.response is None) is not (complete.error is None)
                self.ended(complete.user)
            side.completed.clear()

    def step(self) -> None:
        chosen = self.random.choices(
            (self.send, self.deliver, self.open, self.respond, self.pass_time, self.cancel, self.cut),
            (4, 12, 5, 6, 4, 1, 0.4),
        )[0]
        chosen()
        self.collect()

    def send(self) -> None:
        side = self.random.choice(self.sides)
        method = self.random.choice(("MESSAGE", "OPTIONS", "INVITE"))
        request = make_request(method, call_id=f"{method.lower()}{len(self.requests)}")
        timeout = self.random.choice((None, None, 0.0, 1.0, 20.0, 100.0))
        usage = self.calls if method == "INVITE" else None
        client_request = side.engine.send_request(self.now, request, TARGET, request, timeout=timeout, usage=usage)
        self.requests.append((side, client_request))

    def open(self) -> None:
        if self.opening:
            side, client_request = self.opening.pop(self.random.randrange(len(self.opening)))
            mine = [flow for flow in self.flows if self.side_of(flow) is side]
            if mine and self.random.random() < 0.9:
                side.engine.flow_opened(self.now, client_request, self.random.choice(mine))
            else:
                side.engine.flow_failed(self.now, client_request, ConnectionFailureException("no way"))

    def deliver(self) -> None:
        if self.wire:
            reliable = self.transport != "UDP"
            flow, message = self.wire.pop(0 if reliable else self.random.randrange(min(4, len(self.wire))))
            assert flow.peer is not None
            if flow not in self.flows:
                return
            luck = 1.0 if reliable else self.random.random()
            for _n in range(0 if luck < 0.15 else 2 if luck < 0.3 else 1):
                self.side_of(flow.peer).engine.receive(self.now, flow.peer, message)

    def respond(self) -> None:
        if self.waiting:
            index = self.random.randrange(len(self.waiting))
            side, transaction = self.waiting[index]
            ringing = 180 if transaction.request.method == "INVITE" else 100
            code = self.random.choice((100, ringing, 200, 200, 302, 404, 500))
            side.engine.respond(self.now, transaction, transaction.create_response(code))
            if code >= 200 and self.random.random() < 0.9:
                del self.waiting[index]

    def pass_time(self) -> None:
        self.now += self.random.choice((0.01, 0.2, 1.0, 5.0, 33.0))
        for side in self.sides:
            side.engine.advance(self.now)

    def cancel(self) -> None:
        if self.requests:
            side, client_request = self.random.choice(self.requests)
            done = client_request.is_done
            if not side.engine.cancel_request(self.now, client_request) and not done:
                self.forgotten.add(client_request.request.call_id)

    def cut(self) -> None:
        flow = self.random.choice(self.flows)
        assert flow.peer is not None
        error = self.random.choice((None, ConnectionFailureException("cut")))
        for end in (flow, flow.peer):
            self.flows.remove(end)
            self.side_of(end).engine.flow_closed(self.now, end, error)
        if not self.flows:
            self.connect()

    def finish(self) -> None:
        """Everybody falls silent, time goes by; ringing calls, which no timer ends, lose their flows."""
        for _n in range(40):
            self.now += 5.0
            for side in self.sides:
                side.engine.advance(self.now)
            self.collect()
            while self.wire:
                self.deliver()
                self.collect()
        while any(flow.unanswered or side.engine._flows for side in self.sides for flow in self.flows):
            self.cut()
            self.collect()

    def check(self) -> None:
        for side in self.sides:
            side.assert_empty()
        for flow in self.all_flows:
            assert flow.unanswered == 0
        for _, client_request in self.requests:
            assert client_request.is_done
            call_id = client_request.request.call_id
            assert self.ends[call_id] == (0 if call_id in self.forgotten else 1), call_id


@pytest.mark.parametrize("transport", ["TLS", "UDP"])
@pytest.mark.parametrize("block", range(4))
def test_each_request_ends_once_and_nothing_is_left(transport: str, block: int) -> None:
    for seed in range(block * 25, block * 25 + 25):
        world = World(seed, transport)
        try:
            for _n in range(STEPS):
                world.step()
            world.finish()
            world.check()
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error


@pytest.mark.parametrize("transport", ["TLS", "UDP"])
def test_a_shutdown_at_any_moment_ends_everything_once(transport: str) -> None:
    for seed in range(25):
        world = World(1000 + seed, transport)
        for _n in range(world.random.randrange(STEPS)):
            world.step()
        for side in world.sides:
            side.engine.shutdown(world.now, OperationFailureException("gone"))
        world.collect()
        world.check()


def test_the_interleavings_reach_what_they_should() -> None:
    """A test of the test: all kinds of ends occur."""
    seen: set[str] = set()
    for seed in range(10):
        world = World(seed, "UDP")
        for _n in range(STEPS):
            world.step()
            for side in world.sides:
                for transaction in (*side.engine._servers.values(), *side.engine._clients.values()):
                    seen.add(type(transaction).__name__ + transaction.state.name)
    assert seen >= {
        "InviteServerTransactionPROCEEDING",
        "InviteServerTransactionACCEPTED",
        "InviteServerTransactionCOMPLETED",
        "InviteServerTransactionCONFIRMED",
        "NonInviteServerTransactionTRYING",
        "NonInviteServerTransactionPROCEEDING",
        "NonInviteServerTransactionCOMPLETED",
        "InviteClientTransactionCALLING",
        "InviteClientTransactionPROCEEDING",
        "InviteClientTransactionACCEPTED",
        "InviteClientTransactionCOMPLETED",
        "NonInviteClientTransactionTRYING",
        "NonInviteClientTransactionPROCEEDING",
        "NonInviteClientTransactionCOMPLETED",
    }
