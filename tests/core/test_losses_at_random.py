"""Calls at random behind proxies that lose messages: every operation ends once all the same, and nothing is left."""

from __future__ import annotations

import pytest
from scale import scaled
from test_calls_at_random import Storm

from p2psip.enums import SignalingState

RUNS = scaled(10_000)
BATCH = 50


class LossyStorm(Storm):
    """Both sides need not agree here: what would tell them may be lost, too, until the session timer ends it."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        chance = self.pick((0.05, 0.1, 0.3))
        self.world.lose = lambda _: self.random.random() < chance

    def agree(self) -> None:
        self.world.pass_time(900.0)
        states = {session.state for party in (self.world.alice, self.world.bob) for session in party.sessions}
        assert states <= {SignalingState.CONNECTED, SignalingState.DISCONNECTED}, states


@pytest.mark.long
@pytest.mark.parametrize("first", range(0, RUNS, BATCH))
def test_lost_messages_leave_nothing(first: int) -> None:
    for seed in range(first, min(first + BATCH, RUNS)):
        try:
            LossyStorm(seed).run()
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error!r}") from error
