"""Log records that no stranger can flood or forge, and that hold no secrets: the way in which this library logs.

Each line has a kind: the format that it is made of. Of one kind come at most ten lines a second; how many more there
were is said a second later. What is put into the format is made printable, masked and cut (:func:`clean`), and so are
the sentences of exceptions in a traceback, so that a record is what we wrote and not what a peer did.
"""

from __future__ import annotations

import atexit
import logging
import os
import re
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any

from p2psip.trace import excerpt

LINES_PER_SECOND = 10
"""Of one kind."""
PAUSE = 1.0
"""Seconds after which is said how many were left out."""
LONGEST = 200
"""Characters of what is put into a line."""
LONGEST_SENTENCE = 1000
"""Characters of an exception's sentence, in which what peers wrote has been cut before."""
DEEPEST = 20
"""Calls of each traceback, the last ones, and exceptions that led to one another."""
_PLACE = re.compile(r"%[-#0 +]*\d*(?:\.\d+)?[a-z]")
"""Where a format takes an argument."""


def clean(value: object) -> str:
    """What may stand in a line: printable, no secrets that can be told to be ones, not too long."""
    if isinstance(value, bytes):
        return excerpt(value, LONGEST)
    limit = LONGEST_SENTENCE if isinstance(value, BaseException) else LONGEST
    try:
        text = str(value)
    except Exception as error:  # of a user's class
        text = f"<{type(value).__name__} that cannot be shown: {type(error).__name__}>"
    return excerpt(text, limit)


class Log:
    """The log of one module. Usable from any thread; does not block but for the handlers of ``logging``.

    Args:
        name: Of the logger of the ``logging`` module that gets the records.
        clock: Seconds; for tests.
    """

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger = logging.getLogger(name)
        self._clock = clock
        self._lock = threading.RLock()  # a signal handler may come back here
        self._kinds: dict[str, _Kind] = {}
        _logs.append(self)

    def debug(self, kind: str, *args: object) -> None:
        """``kind`` is the format of the line; so in all of these."""
        self._write(logging.DEBUG, kind, args, None)

    def info(self, kind: str, *args: object) -> None:
        self._write(logging.INFO, kind, args, None)

    def warning(self, kind: str, *args: object) -> None:
        self._write(logging.WARNING, kind, args, None)

    def error(self, kind: str, *args: object, exc_info: BaseException | None = None) -> None:
        self._write(logging.ERROR, kind, args, exc_info)

    def exception(self, kind: str, *args: object) -> None:
        """An error with the traceback of the exception that is being handled."""
        self._write(logging.ERROR, kind, args, sys.exc_info()[1])

    def critical(self, kind: str, *args: object) -> None:
        """The same when it ends a thread."""
        self._write(logging.CRITICAL, kind, args, sys.exc_info()[1])

    def _write(self, level: int, kind: str, args: tuple[object, ...], error: BaseException | None) -> None:
        if not self._logger.isEnabledFor(level):
            return
        with self._lock:
            state = self._kinds.get(kind)
            if state is None:
                state = self._kinds[kind] = _Kind(level)
            left_out, state.left_out = state.left_out, 0
            if not state.takes(self._clock()):
                state.left_out = left_out + 1
                if not left_out:
                    _tell_soon()
                return
        if left_out:
            self._tell(level, kind, left_out)
        self._emit(level, kind, tuple(map(_argument, args)), error)

    def tell_left_out(self) -> None:
        """Say how many lines were left out, where there were any."""
        with self._lock:
            due = [(state.level, kind, state.left_out) for kind, state in self._kinds.items() if state.left_out]
            for state in self._kinds.values():
                state.left_out = 0
        for level, kind, left_out in due:
            self._tell(level, kind, left_out)

    def _tell(self, level: int, kind: str, left_out: int) -> None:
        self._emit(level, "%d more like this were left out: %s", (left_out, _PLACE.sub("...", kind)), None)

    def _emit(self, level: int, kind: str, args: tuple[object, ...], error: BaseException | None) -> None:
        frame = sys._getframe(1)
        while frame.f_back is not None and frame.f_code.co_filename == __file__:
            frame = frame.f_back
        code, logger = frame.f_code, self._logger
        exc_info = None if error is None else (type(error), error, error.__traceback__)
        record = logger.makeRecord(
            logger.name, level, code.co_filename, frame.f_lineno, kind, args, exc_info, code.co_name
        )
        if error is not None:
            record.exc_text = _traceback(error)  # which formatters take in place of their own
        logger.handle(record)

    def _forked(self) -> None:
        self._lock = threading.RLock()


class _Kind:
    """Of one kind of line: when the last ones were written, and how many were not."""

    __slots__ = ("left_out", "level", "times")

    def __init__(self, level: int) -> None:
        self.level = level
        self.left_out = 0
        self.times: deque[float] = deque(maxlen=LINES_PER_SECOND)

    def takes(self, now: float) -> bool:
        times = self.times
        if len(times) == LINES_PER_SECOND and now - times[0] < 1.0:
            return False
        times.append(now)
        return True


def _argument(value: object) -> object:
    """Numbers stay what they are, for ``%d``; all else becomes text."""
    return value if isinstance(value, int | float) else clean(value)


def _traceback(error: BaseException) -> str:
    """As Python shows it, but for the sentences, which are cleaned: a line end in one would begin a line of its own."""
    parts: list[str] = []
    seen: set[int] = set()
    link: str | None = None
    following: BaseException | None = error
    while following is not None and id(following) not in seen and len(seen) < DEEPEST:
        shown = following
        seen.add(id(shown))
        kind = type(shown)
        name = (
            kind.__qualname__
            if kind.__module__ in ("builtins", "__main__")
            else f"{kind.__module__}.{kind.__qualname__}"
        )
        calls = "".join(traceback.format_tb(shown.__traceback__, limit=-DEEPEST))
        begin = "Traceback (most recent call last):\n" if calls else ""
        parts.append(f"{begin}{calls}{name}: {clean(shown)}" + ("" if link is None else f"\n\n{link}\n"))
        if shown.__cause__ is not None:
            following, link = shown.__cause__, "The above exception was the direct cause of the following exception:"
        elif shown.__context__ is not None and not shown.__suppress_context__:
            following, link = shown.__context__, "During handling of the above exception, another exception occurred:"
        else:
            following = None
    return "\n".join(reversed(parts))


# ---------------------------------------------------------------------- what was left out


_logs: list[Log] = []
_timer: list[threading.Timer] = []
_timer_lock = threading.RLock()


def _tell_soon() -> None:
    """In a second, by a thread that lives no longer."""
    with _timer_lock:
        if not _timer:
            timer = threading.Timer(PAUSE, _tell_all)
            timer.name = "p2psip log"
            timer.daemon = True
            _timer.append(timer)
            try:
                timer.start()
            except RuntimeError:  # no more threads: the next line of the kind says it
                _timer.clear()


@atexit.register
def _tell_all() -> None:
    with _timer_lock:
        _timer.clear()
    for log in list(_logs):
        log.tell_left_out()


def _forked(*_: Any) -> None:
    """In the child nobody holds a lock, and the timer's thread does not exist."""
    global _timer_lock
    _timer_lock = threading.RLock()
    _timer.clear()
    for log in _logs:
        log._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
