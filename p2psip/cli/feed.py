"""What happens is queued and handled by the main thread, which also has timers: so what is printed is never mixed."""

from __future__ import annotations

import datetime
import heapq
import itertools
import queue
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from p2psip.cli import console

_SLICE = 0.5  # a wait without end cannot be interrupted by Ctrl-C on Windows


class Feed:
    """News of other threads, and what is to be done later; all of it runs in the main thread.

    Args:
        json: Tell it as JSON.
    """

    def __init__(self, *, json: bool) -> None:
        self._json = json
        self._work: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._later: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()

    def post(self, work: Callable[[], object]) -> None:
        """Any thread: have the main thread do it soon."""
        self._work.put(work)

    def later(self, seconds: float, work: Callable[[], object]) -> None:
        """Main thread: do it when so many seconds are over."""
        heapq.heappush(self._later, (time.monotonic() + seconds, next(self._numbers), work))

    def when_done(self, operation: Future[Any], work: Callable[[BaseException | None], object]) -> None:
        """Have the main thread told how the operation ended: by None, or by its exception."""
        operation.add_done_callback(lambda done: self.post(lambda: work(done.exception())))

    def run(self, is_over: Callable[[], bool]) -> None:
        """Main thread: do what comes until it is over."""
        while not is_over():
            wait = _SLICE
            if self._later:
                wait = min(wait, self._later[0][0] - time.monotonic())
                if wait <= 0:
                    heapq.heappop(self._later)[2]()
                    continue
            try:
                work = self._work.get(timeout=wait)
            except queue.Empty:
                continue
            work()

    def drain(self) -> None:
        """Main thread: do what is queued, and wait for nothing."""
        while True:
            try:
                work = self._work.get_nowait()
            except queue.Empty:
                return
            work()

    def tell(self, event: str, sentence: str, /, **facts: Any) -> None:
        """Main thread: say what happened, to people or to scripts."""
        if self._json:
            console.say_json({"event": event, **facts})
        else:
            console.say(f"{datetime.datetime.now():%H:%M:%S} {console.printable(sentence)}")
