"""Calls at random: whatever happens in whatever order, both sides agree in the end and nothing is left.

``P2PSIP_RANDOM_RUNS`` says how many runs there are; a failing run names its seed, and that seed does it again.
"""

from __future__ import annotations

import gc
import os
import weakref
from typing import Any

import pytest
from call_support import ANSWER, OFFER, Party, World, acknowledge_at_once

from p2psip.core.dialog import Content
from p2psip.core.events import OfferReceived, ReferReceived, RequestReceived, SessionState
from p2psip.core.refer import IncomingRefer, OutgoingRefer
from p2psip.core.session import Session

RUNS = int(os.environ.get("P2PSIP_RANDOM_RUNS", "1000"))
BATCH = 100
STEPS = 14


class Storm:
    """One run."""

    def __init__(self, seed: int) -> None:
        self.world = world = World(seed=seed)
        self.random = world.random
        world.delay, world.jitter = 0.01, self.random.choice((0.0, 0.5, 3.0))
        world.duplicates = self.random.choice((0.0, 0.1))
        world.reactions += [acknowledge_at_once, self.react]
        self.refers: list[IncomingRefer] = []
        self.cuts = self.random.random() < 0.4

    def react(self, party: Party, session: Session, event: Any) -> None:
        now, engine = self.world.now, party.engine
        session.wants_messages = True
        if isinstance(event, RequestReceived):
            engine.respond(now, event.transaction, event.transaction.create_response(200))
        elif isinstance(event, ReferReceived):
            event.refer.user = self
            if self.random.random() < 0.3:
                event.refer.decline(now, 603)
            else:
                event.refer.accept(now)
                self.refers.append(event.refer)
        elif isinstance(event, OfferReceived):
            if self.random.random() < 0.7:
                session.accept_offer(now, event.transaction, ANSWER, (), self.world.operation("accept_offer"))
            else:
                session.decline_offer(now, event.transaction, 488)

    def step(self) -> None:
        world, chance = self.world, self.random.random()
        party = self.random.choice((world.alice, world.bob))
        alive = [s for s in party.sessions if s.state is not SessionState.DISCONNECTED]
        session = self.random.choice(alive or party.sessions or [None])
        if session is None or (chance < 0.1 and len(world.operations) < 40):
            party.call(
                offer=self.random.choice((OFFER, None)), timeout=self.random.choice((None, None, None, 0.3, 5.0))
            )
        elif chance < 0.4:
            party.do(session.accept, ANSWER, ())
        elif chance < 0.5:
            party.do(
                session.send_provisional,
                self.random.choice((180, 183)),
                None,
                (),
                self.random.choice((None, ANSWER)),
                self.random.random() < 0.5,
            )
        elif chance < 0.55:
            party.do(session.reject, self.random.choice((302, 404, 486, 603)), None, ())
        elif chance < 0.7:
            party.do(session.renegotiate, Content("application/sdp", b"again"), ())
        elif chance < 0.75:
            session.cancel_renegotiation(world.now)
            world.run()
        elif chance < 0.85:
            party.do(session.send_request, "INFO", (), None)
        elif chance < 0.88:
            refer = OutgoingRefer(session, party)
            party.do(refer.refer, "<sip:carol@carol.example>", (), None, self.random.random() < 0.8)
        elif chance < 0.91 and self.refers:
            refer_in = self.random.choice(self.refers)
            code = self.random.choice((180, 200, 486))
            refer_in.progress(world.now, code, None, None, code >= 200)
            world.run()
        elif chance < 0.95:
            party.do(session.terminate, ())
        elif self.cuts:
            world.cut()
        world.pass_time(self.random.choice((0.0, 0.005, 0.02, 0.4, 2.0, 9.0)))

    def agree(self) -> None:
        """Sessions that are up ask whether the other side is, too; then both must say the same."""
        world = self.world
        world.pass_time(400.0)
        for _ in range(2):
            for party in (world.alice, world.bob):
                for session in party.sessions:
                    if session.state is SessionState.CONNECTED:
                        party.do(session.send_request, "INFO", (), None)
            world.pass_time(100.0)
        up = [
            {s.call_id for s in party.sessions if s.state is SessionState.CONNECTED}
            for party in (world.alice, world.bob)
        ]
        assert up[0] == up[1]
        states = {s.state for party in (world.alice, world.bob) for s in party.sessions}
        assert states <= {SessionState.CONNECTED, SessionState.DISCONNECTED}, states

    def run(self) -> list[weakref.ref[Session]]:
        for _ in range(STEPS):
            self.step()
        self.agree()
        world = self.world
        for party in (world.alice, world.bob):
            for session in party.sessions:
                party.do(session.terminate, ())
        world.pass_time(400.0)
        world.assert_over()
        return [weakref.ref(session) for party in (world.alice, world.bob) for session in party.sessions]


@pytest.mark.parametrize("first", range(0, RUNS, BATCH))
def test_every_run_ends_alike_and_leaves_nothing(first: int) -> None:
    left = []
    for seed in range(first, min(first + BATCH, RUNS)):
        try:
            left += Storm(seed).run()
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error!r}") from error
    gc.collect()
    assert not [reference for reference in left if reference() is not None]
