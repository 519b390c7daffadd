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
        self._heap: list[tuple[float, int, Expiring]] = []
        self._order = itertools.count()
        self._stale = 0  # entries of the heap that an earlier one has replaced

    def arm(self, item: Expiring, deadline: float) -> None:
        """Call ``item.expire`` at the deadline, if nothing is armed for an earlier time."""
        if deadline < item.deadline:
            self.disarm(item)
            item.deadline = deadline
            heapq.heappush(self._heap, (deadline, next(self._order), item))

    def disarm(self, item: Expiring) -> None:
        """Nothing is due any more."""
        if item.deadline != NEVER:
            item.deadline = NEVER
            self._stale += 1
            if self._stale > 64 and self._stale * 2 > len(self._heap):
                self._heap = [entry for entry in self._heap if entry[0] == entry[2].deadline]
                heapq.heapify(self._heap)
                self._stale = 0

    def next_deadline(self) -> float | None:
        heap = self._heap
        while heap:
            deadline, _, item = heap[0]
            if deadline == item.deadline:
                return deadline
            heapq.heappop(heap)
            self._stale -= 1
        return None

    def advance(self, now: float) -> None:
        while True:
            deadline = self.next_deadline()
            if deadline is None or deadline > now:
                return
            item = heapq.heappop(self._heap)[2]
            item.deadline = NEVER
            item.expire(now)
