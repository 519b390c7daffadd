"""What takes its time is asked on daemon threads, the same thing once at a time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable
from typing import Any

from p2psip.logs import Log
from p2psip.net.loop import Loop, LoopEnded
from p2psip.timers import Timer

_log = Log(__name__)

MAXIMUM_THREADS = 16

Heard = Callable[[Any], object]
"""Takes what the work returned, or the exception in its place."""


class _Question:
    """One thing that is being asked, for all who want to know meanwhile."""

    __slots__ = ("askers", "key", "work")

    def __init__(self, key: Hashable, work: Callable[[], Any]) -> None:
        self.key = key
        self.work = work
        self.askers: dict[Heard, Timer] = {}


class Questions:
    """For the loop's thread, which it never holds up.

    Args:
        remember: Called with the key and the outcome of each question, whether or not anybody still waits for it.
    """

    def __init__(self, loop: Loop, remember: Callable[[Any, Any], object]) -> None:
        self._loop = loop
        self._remember = remember
        self._open: dict[Hashable, _Question] = {}
        self._queue: deque[_Question] = deque()
        self._threads = 0

    def ask(self, key: Hashable, work: Callable[[], Any], heard: Heard, seconds: float) -> None:
        """Have the work done on a thread, unless the same is being asked already.

        ``heard`` is called once, never from within this call: with what the work returned, or with the exception: the
        work's, or a TimeoutError when the seconds are over.
        """
        question = self._open.get(key)
        if question is None:
            question = self._open[key] = _Question(key, work)
            self._queue.append(question)
            self._loop.at_turn_end(self._start_threads)
        question.askers[heard] = self._loop.call_later(seconds, self._give_up, question, heard)

    def _start_threads(self) -> None:
        while self._queue and self._threads < MAXIMUM_THREADS:
            question = self._queue.popleft()
            thread = threading.Thread(
                target=self._run, args=(question,), name=f"{self._loop.name} resolver", daemon=True
            )
            try:
                thread.start()
            except RuntimeError as error:  # the system has no thread left
                self._tell(question, error)
            else:
                self._threads += 1

    def _run(self, question: _Question) -> None:
        """On a thread of its own."""
        try:
            outcome = question.work()
        except Exception as error:
            outcome = error
        try:
            self._loop.post(self._over, question, outcome)
        except LoopEnded:
            pass

    def _over(self, question: _Question, outcome: Any) -> None:
        self._threads -= 1
        self._start_threads()
        self._remember(question.key, outcome)
        self._tell(question, outcome)

    def _tell(self, question: _Question, outcome: Any) -> None:
        self._forget(question)
        while question.askers:
            heard = next(iter(question.askers))  # first come, first served
            self._loop.timers.cancel(question.askers.pop(heard))
            self._call(heard, outcome)

    def _give_up(self, question: _Question, heard: Heard) -> None:
        del question.askers[heard]
        if not question.askers:
            self._forget(question)
        self._call(heard, TimeoutError())

    def _forget(self, question: _Question) -> None:
        if self._open.get(question.key) is question:
            del self._open[question.key]
        if question in self._queue:
            self._queue.remove(question)

    def _call(self, function: Heard, argument: object) -> None:
        try:
            function(argument)
        except Exception:
            _log.exception("%r failed.", function)
