"""Time that passes when a test says so."""

from __future__ import annotations

import threading

from p2psip.net.loop import Loop, LoopEnded

PATIENCE = 10.0
"""Real seconds that a loop gets to notice the new time."""

TURNS = 3
"""Of a loop: one may have looked at the clock before, one does what is due, one what that left for later."""


class FakeClock:
    """Stands still until ``advance`` is called. Usable from any thread.

    Loops that live by it sleep until it is advanced or something arrives; ``advance`` returns when each of them has
    done what had become due.
    """

    def __init__(self, start: float = 1000.0, *, epoch: float = 1_700_000_000.0) -> None:
        """``start`` is the first ``now()``, ``epoch`` the first ``time()``."""
        self._now = start
        self._epoch = epoch - start
        self._loops: set[Loop] = set()
        self._lock = threading.Lock()

    def now(self) -> float:
        """Seconds on the clock that never goes back."""
        return self._now

    def time(self) -> float:
        """Seconds since the epoch, of the same day."""
        return self._epoch + self._now

    def advance(self, seconds: float) -> None:
        """Let that much time pass, at once, and wait until every loop has acted on it."""
        if seconds < 0:
            raise ValueError("Time does not go back.")
        with self._lock:
            self._now += seconds
        self.settle()

    def set_wall_clock(self, seconds: float) -> None:
        """Somebody sets the clock on the wall that much forward, or back: ``time`` changes, ``now`` does not."""
        with self._lock:
            self._epoch += seconds
        self.settle()

    def settle(self) -> None:
        """Wait until every loop has acted on the time that it is. On a loop's own thread nothing is waited for."""
        for loop in list(self._loops):
            if loop.in_loop():
                continue
            seen = threading.Event()
            try:
                loop.post(_again, loop, seen, TURNS)
            except LoopEnded:
                continue
            if not seen.wait(PATIENCE):
                raise TimeoutError(f"The thread {loop.name!r} did not look at the clock within {PATIENCE:.0f} s.")

    # ------------------------------------------------------------------ for loops

    def sleep_time(self, deadline: float) -> float | None:
        """A loop sleeps until it is called, unless something is due."""
        return 0.0 if deadline <= self._now else None

    def attach(self, loop: Loop) -> None:
        with self._lock:
            self._loops.add(loop)

    def detach(self, loop: Loop) -> None:
        with self._lock:
            self._loops.discard(loop)


def _again(loop: Loop, seen: threading.Event, turns: int) -> None:
    if turns:
        loop.post(_again, loop, seen, turns - 1)
    else:
        seen.set()
