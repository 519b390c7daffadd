"""Timers without a clock: the owner says what time it is and fires what is due.

Most SIP timers share a few delays (64*T1, 3.5 s, 30 s ...). Timers of one delay expire in the order in which
they were started, so each common delay has a queue of its own in which starting, cancelling and finding the
first are all of constant cost, and a cancelled timer leaves nothing behind. Delays beyond the first few
different ones (jittered intervals, say) share a heap.
"""

from __future__ import annotations

import heapq
import itertools
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

_MAXIMUM_QUEUES = 32


class Timer:
    """One running timer; made by :meth:`Timers.start`."""

    __slots__ = ("args", "callback", "deadline", "delay")

    def __init__(self, deadline: float, delay: float, callback: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.deadline = deadline
        self.delay = delay
        self.callback: Callable[..., Any] | None = callback
        self.args = args


class Timers:
    """The running timers of one owner. Times are seconds on any monotonic clock."""

    __slots__ = ("_cancelled", "_heap", "_order", "_queues")

    def __init__(self) -> None:
        self._queues: dict[float, OrderedDict[Timer, None]] = {}
        self._heap: list[tuple[float, int, Timer]] = []
        self._cancelled = 0  # entries of the heap that are no longer wanted
        self._order = itertools.count()

    def __len__(self) -> int:
        return sum(map(len, self._queues.values())) + len(self._heap) - self._cancelled

    def start(self, now: float, delay: float, callback: Callable[..., Any], *args: Any) -> Timer:
        """Call ``callback(*args)`` from :meth:`advance` once ``now + delay`` is reached."""
        timer = Timer(now + delay, delay, callback, args)
        queue = self._queues.get(delay)
        if queue is None:
            if len(self._queues) >= _MAXIMUM_QUEUES:
                heapq.heappush(self._heap, (timer.deadline, next(self._order), timer))
                return timer
            queue = self._queues[delay] = OrderedDict()
        queue[timer] = None
        return timer

    def cancel(self, timer: Timer | None) -> None:
        """Forget the timer. None, a fired and a cancelled timer are fine."""
        if timer is None or timer.callback is None:
            return
        timer.callback = None
        timer.args = ()
        queue = self._queues.get(timer.delay)
        if queue is not None and queue.pop(timer, self) is None:
            if not queue:
                del self._queues[timer.delay]
            return
        self._cancelled += 1
        if self._cancelled > 64 and self._cancelled * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].callback is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def next_deadline(self) -> float | None:
        """When :meth:`advance` has to be called, or None."""
        first = self._first()
        return None if first is None else first.deadline

    def advance(self, now: float) -> None:
        """Fire all that is due, earliest first. A callback may start and cancel timers."""
        while True:
            due = self._first()
            if due is None or due.deadline > now:
                return
            callback, args = due.callback, due.args
            self.cancel(due)
            assert callback is not None
            callback(*args)

    def _first(self) -> Timer | None:
        heap = self._heap
        while heap and heap[0][2].callback is None:
            heapq.heappop(heap)
            self._cancelled -= 1
        first = heap[0][2] if heap else None
        for queue in self._queues.values():
            timer = next(iter(queue))
            if first is None or timer.deadline < first.deadline:
                first = timer
        return first
