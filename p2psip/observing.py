"""What an operator sees of a connection manager: numbers, what is alive, and what goes over the wire."""

from __future__ import annotations

import concurrent.futures
import math
from typing import TYPE_CHECKING

from p2psip import arguments, snapshots
from p2psip.errors import OperationFailureException, OperationTimeoutException
from p2psip.snapshots import ManagerSnapshot
from p2psip.statistics import ManagerStatistics, statistics_of

if TYPE_CHECKING:
    from p2psip.stack import Stack

MOST = 1000
"""Entries of a kind in a snapshot, unless more are asked for: the loop's thread makes them."""


class Observing:
    """The part of a connection manager that can be looked at. Usable from any thread."""

    _stack: Stack
    _began_at: float
    _ended_at: float | None

    def statistics(self) -> ManagerStatistics:
        """What it has done so far, as numbers.

        Does not block, and works in handlers and after ``dispose()`` as well. Each number is right as of some moment
        during the call, not all of the same; counters never go back.
        """
        ended_at = self._ended_at
        now = self._stack.loop.clock.now() if ended_at is None else ended_at
        return statistics_of(self._stack, now - self._began_at)

    def snapshot(self, timeout: float = 5.0, *, maximum: int = MOST) -> ManagerSnapshot:
        """What is alive at this moment: listeners, connections, transactions, dialogs, and strands with events.

        Taken on the loop's thread between two messages, so all of it is of one moment. Blocks until that thread gets to
        it, which takes milliseconds as a rule; allowed in handlers, where another worker stands in meanwhile. After
        ``dispose()`` it is empty.

        Args:
            timeout: Seconds.
            maximum: Entries of each kind, oldest first. Each takes that thread some microseconds.

        Raises:
            OperationTimeoutException: The loop's thread did not get to it in time: it is overloaded, or stands still.
            ValueError, TypeError: An argument.
        """
        seconds = arguments.timeout(timeout)
        if seconds is None or seconds == math.inf:
            raise ValueError("The timeout of snapshot() is a number of seconds: it never waits without end.")
        if isinstance(maximum, bool) or not isinstance(maximum, int):
            raise TypeError(f"The maximum of snapshot() is a whole number, not {maximum!r}.")
        if maximum < 0:
            raise ValueError(f"The maximum of snapshot() cannot be {maximum}.")
        stack = self._stack
        if stack._started and not stack.loop.has_ended:
            operation = stack.call("snapshot", snapshots.take, stack, maximum)
            try:
                snapshot: ManagerSnapshot = operation.result(seconds)
                return snapshot
            except concurrent.futures.TimeoutError:
                raise OperationTimeoutException(
                    f"No snapshot of {stack.loop.name} could be taken within {seconds:g} s, because its thread was busy "
                    "with something else all the time."
                ) from None
            except OperationFailureException:  # it has ended meanwhile
                pass
        return snapshots.take(stack, maximum)
