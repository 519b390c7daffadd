"""The next deadline of each of many connections, in one heap."""

from __future__ import annotations

import heapq
import itertools
import math
from typing import Protocol

NEVER = math.inf


class Expiring(Protocol):
    """Something that has something due."""

    deadline: float
    """When ``expire`` is called; NEVER when nothing is armed. Written by ``Deadlines`` alone."""

    def expire(self, now: float) -> None:
        """Do what is due, and arm what comes next."""


class Deadlines:
    """Driven by a loop.

    A connection has a dozen time-outs, and most of them move with every message. So it arms only the first one and
    looks at all of them when that is over; a message costs no timer.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int]] = []
        self._order = itertools.count()
        # What the heap's entries are for, by their numbers, and the other way round. An entry without is stale; the
        # connection that it was for may be closed long since, and is not kept alive by it.
        self._items: dict[int, Expiring] = {}
        self._numbers: dict[Expiring, int] = {}

    def arm(self, item: Expiring, deadline: float) -> None:
        """Call ``item.expire`` at the deadline, if nothing is armed for an earlier time."""
        if deadline < item.deadline:
            self.disarm(item)
            item.deadline = deadline
            number = next(self._order)
            self._items[number] = item
            self._numbers[item] = number
            heapq.heappush(self._heap, (deadline, number))

    def disarm(self, item: Expiring) -> None:
        """Nothing is due any more."""
        if item.deadline != NEVER:
            self._forget(item)
            stale = len(self._heap) - len(self._items)
            if stale > 64 and stale * 2 > len(self._heap):
                self._heap = [entry for entry in self._heap if entry[1] in self._items]
                heapq.heapify(self._heap)

    def _forget(self, item: Expiring) -> None:
        item.deadline = NEVER
        del self._items[self._numbers.pop(item)]

    def next_deadline(self) -> float | None:
        heap = self._heap
        while heap:
            deadline, number = heap[0]
            if number in self._items:
                return deadline
            heapq.heappop(heap)
        return None

    def advance(self, now: float) -> None:
        while True:
            deadline = self.next_deadline()
            if deadline is None or deadline > now:
                return
            item = self._items[heapq.heappop(self._heap)[1]]
            self._forget(item)
            item.expire(now)
