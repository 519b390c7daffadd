"""Subscriptions and a publication of which anything is asked at any time, over a network that does anything.

Whatever happens: each operation ends once, and when all is over nothing is left. The seed of a failure reproduces it.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
from call_support import World
from publication_support import CLOSED, OPEN, Compositor, publication
from scale import scaled
from subscription_support import PRESENCE, Watch

from p2psip.core.notify import Notifier

RUNS = scaled(10_000)
BATCH = 25

REASONS = ("deactivated", "probation", "rejected", "timeout", "giveup", "noresource", "invariant", None)


class Run:
    """One of them."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.world = world = World(seed=seed)
        world.delay = self.one_of(0.0, 0.01, 0.2)
        world.jitter = self.one_of(0.0, 0.1, 2.0)
        world.duplicates = self.one_of(0.0, 0.1)
        world.spread = self.one_of(0.0, 0.3)
        self.there = Compositor(world)
        self.publication = publication(world, expires=self.one_of(60, 100, 600))
        self.watches: list[Watch] = []
        self.is_too_much = False
        world.reactions.append(self.decide)

    def one_of(self, *choices: Any) -> Any:
        return self.random.choice(choices)

    def is_busy(self, flow: Any) -> bool:
        """Handlers do not keep up for a while, at either side."""
        return self.is_too_much and self.random.random() < 0.5

    def decide(self, party: Any, usage: Any, event: Any) -> None:
        """Bob answers a SUBSCRIBE, or leaves it."""
        usage.is_busy = self.is_busy
        if event is None and isinstance(usage, Notifier):
            chance = self.random.random()
            if chance < 0.6:
                pending = self.random.random() < 0.3
                usage.accept(self.world.now, self.one_of(None, 90), (), PRESENCE, pending=pending)
            elif chance < 0.8:
                headers = self.one_of((), [("Retry-After", "3")])
                usage.decline(self.world.now, self.one_of(403, 408, 480, 503), None, headers)

    def step(self) -> None:
        world, chance = self.world, self.random.random()
        notifiers = [usage for usage in world.bob.sessions if isinstance(usage, Notifier)]
        if chance < 0.2:
            is_query = self.random.random() < 0.2
            self.watches.append(Watch(world, expires=self.one_of(5, 60, 100, 3600), is_query=is_query))
        elif chance < 0.45 and self.watches:
            subscriber = self.one_of(*self.watches).subscriber
            command = self.one_of("refresh", "refresh", "terminate", "terminate", "subscribe")
            world.alice.do(getattr(subscriber, command), (), *([] if command == "terminate" else [None]))
        elif chance < 0.6 and notifiers:
            notifier = self.one_of(*notifiers)
            notifier.minimum_interval = self.one_of(0.0, 5.0)
            world.bob.do(notifier.notify, PRESENCE, ())
        elif chance < 0.7 and notifiers:
            world.bob.do(self.one_of(*notifiers).terminate, self.one_of(*REASONS), self.one_of(None, 1), None)
        elif chance < 0.74:
            world.cut()
        elif chance < 0.77:
            self.is_too_much = not self.is_too_much
        elif chance < 0.8:
            world.unreachable = not world.unreachable
        elif chance < 0.92:
            world.alice.do(self.publication.publish, self.one_of(OPEN, CLOSED), ())
        elif chance < 0.94:
            world.alice.do(self.publication.remove)
        else:
            headers = self.one_of([], [("Min-Expires", "700")], [("SIP-ETag", "x")])
            self.there.answers = [(self.one_of(200, 412, 423, 503), headers)]
        world.pass_time(self.one_of(0.0, 0.0, 0.05, 1.0, 10.0, 40.0, 400.0))

    def end(self) -> None:
        world = self.world
        world.unreachable = self.is_too_much = False
        world.pass_time(world.alice.engine.settings.request_ceiling + 1.0)
        assert [operation for operation in world.operations if not operation.ends] == []
        for watch in self.watches:
            world.alice.do(watch.subscriber.terminate, ())
        world.alice.do(self.publication.remove)
        world.reactions.clear()
        world.pass_time(100.0)
        for notifier in world.bob.sessions:
            world.bob.do(notifier.terminate, None, None, None)
        world.pass_time(100.0)
        world.assert_over()


@pytest.mark.long
@pytest.mark.parametrize("first", range(0, RUNS, BATCH))
def test_each_operation_ends_and_nothing_is_left(first: int) -> None:
    for seed in range(first, min(first + BATCH, RUNS)):
        try:
            run = Run(seed)
            for _ in range(run.random.randrange(5, 40)):
                run.step()
            run.end()
        except BaseException as error:
            raise AssertionError(f"Seed {seed}.") from error
