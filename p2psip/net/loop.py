"""One thread that owns sockets and timers, and the inbox by which other threads reach it."""

from __future__ import annotations

import os
import selectors
import socket
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from p2psip.errors import (
    ConnectionFailureException,
    OperationFailureException,
    OperationFailureReason,
    RealTimeInvalidOperationException,
)
from p2psip.logs import Log
from p2psip.timers import Timer, Timers

_log = Log(__name__)

LONGEST_SLEEP = 3600.0
"""Seconds; what a selector is asked to wait at most, because some take no more than an int of milliseconds."""


SELECT_LIMIT = 480
"""Files that are watched where there is only ``select``, as on Windows: 512 end it, and with it the loop."""


class HasDeadline(Protocol):
    """Something with timers of its own that a loop drives."""

    def next_deadline(self) -> float | None:
        """When ``advance`` has to be called, in loop time; None: not now."""

    def advance(self, now: float) -> None:
        """Do what is due."""


class Clock(Protocol):
    """What time it is, and how long a loop may sleep."""

    def now(self) -> float:
        """Seconds on a clock that never goes back."""

    def time(self) -> float:
        """Seconds since the epoch; only the dates in certificates are compared with it."""

    def sleep_time(self, deadline: float) -> float | None:
        """How many real seconds may be slept through before ``deadline``; None: as long as nobody calls."""

    def attach(self, loop: Loop) -> None:
        """The loop lives by this clock from now on."""

    def detach(self, loop: Loop) -> None:
        """The loop has ended."""


class MonotonicClock:
    """The real time."""

    now = staticmethod(time.monotonic)
    time = staticmethod(time.time)

    def sleep_time(self, deadline: float) -> float | None:
        return min(LONGEST_SLEEP, max(0.0, deadline - time.monotonic()))

    def attach(self, loop: Loop) -> None:
        pass

    def detach(self, loop: Loop) -> None:
        pass


class LoopEnded(RuntimeError):
    """There is no loop any more that could do it.

    Attributes:
        forked: This is a child process; the loop lives in its parent.
    """

    def __init__(self, message: str, *, forked: bool = False) -> None:
        super().__init__(message)
        self.forked = forked

    def failure(self) -> Exception:
        """What a caller is told who comes too late."""
        failure: Exception
        if self.forked:
            failure = RealTimeInvalidOperationException(str(self))
        else:
            failure = OperationFailureException(str(self), OperationFailureReason.ABORTED)
        failure.__cause__ = self
        return failure


class Loop:
    """Sockets, timers and posted functions, one after the other on one daemon thread.

    A turn is: what the sockets have, what is due, what was posted before the turn looked, what wanted to be done at
    the end of the turn. All methods but ``post``, ``start``, ``stop``, ``join`` and ``in_loop`` are for the loop's
    thread. A function that raises is logged and confines its error to itself; only what is not an ``Exception``
    ends the loop.

    Args:
        name: Of the thread.
        on_ended: Called as the thread's last act, with what ended it (None after ``stop``).
        clock: The real one unless a test brings its own.

    Attributes:
        now: The loop's time in seconds, the same during one turn.
        turn: The number of the turn.
        timers: Run by the loop; ``call_later`` is the short way.
    """

    def __init__(
        self, name: str, on_ended: Callable[[BaseException | None], object], clock: Clock | None = None
    ) -> None:
        self.name = name
        self.clock: Clock = MonotonicClock() if clock is None else clock
        self.now = self.clock.now()
        self.turn = 0
        self.timers = Timers()
        self._on_ended = on_ended
        self._clocks: list[HasDeadline] = [self.timers]
        self._closers: list[Callable[[], object]] = []
        self._turn_end: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self._lock = threading.RLock()  # a signal handler or a finalizer may post in the middle of a post
        self._inbox: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._asleep = False  # in the selector or about to be, and no wake byte is on its way
        self._ended: LoopEnded | None = None
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._identity: int | None = None
        self._selector: selectors.BaseSelector
        self._wake_out: socket.socket
        self._wake_in: socket.socket

    # ------------------------------------------------------------------ any thread

    @property
    def has_ended(self) -> bool:
        """Nothing will run on it any more: it has ended, or it is that of the process that this one was forked from."""
        return self._ended is not None

    def start(self) -> None:
        """Start the thread. Raises ConnectionFailureException when the process has no descriptors left."""
        if self._ended is not None:
            raise LoopEnded(str(self._ended), forked=self._ended.forked)
        try:
            self._wake_in, self._wake_out = socket.socketpair()
            self._selector = selectors.DefaultSelector()
        except OSError as error:
            raise ConnectionFailureException(
                f"The thread {self.name!r} cannot start because the system gives it no descriptors ({error}): "
                "close what is not needed or raise the limit."
            ) from error
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        try:  # where it is TCP, as on Windows, a wake byte must not wait until the one before it is acknowledged
            self._wake_out.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            pass
        self._selector.register(self._wake_in, selectors.EVENT_READ, self._wake_up)
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        _loops.add(self)
        self.clock.attach(self)
        self._thread.start()

    def post(self, function: Callable[..., object], *args: Any) -> None:
        """Run ``function(*args)`` on the loop's thread soon, in the order of the calls.

        Raises:
            LoopEnded: The loop has ended. What was posted before is still run.
        """
        wake = False
        try:
            with self._lock:
                if self._ended is not None:
                    raise LoopEnded(str(self._ended), forked=self._ended.forked) from self._ended.__cause__
                # In this order: Ctrl-C between two of these lines costs a needless turn, never a missed one.
                wake = self._asleep
                self._asleep = False
                self._inbox.append((function, args))
        finally:  # even when Ctrl-C comes now; and not under the lock, which the loop may want as soon as it wakes
            if wake:
                try:
                    self._wake_out.send(b"\0")
                except OSError:  # the loop has more than enough to wake it, or has ended and run what was posted
                    pass

    @property
    def capacity(self) -> int:
        """How many files it can watch."""
        return SELECT_LIMIT if issubclass(selectors.DefaultSelector, selectors.SelectSelector) else sys.maxsize

    @property
    def backlog(self) -> int:
        """How much was posted and has not been run yet."""
        return len(self._inbox)

    def in_loop(self) -> bool:
        """Whether the caller is on the loop's thread."""
        return threading.get_ident() == self._identity

    def stop(self) -> None:
        """End after this turn. Calling it again, or too late, is fine."""
        try:
            self.post(self._stop)
        except LoopEnded:
            pass

    def join(self, timeout: float | None = None) -> bool:
        """Wait until the thread has ended. False when ``timeout`` seconds went by, or from the loop's own thread."""
        if self._thread is None or (self._ended is not None and self._ended.forked):
            return True
        if self.in_loop():
            return False
        self._thread.join(timeout)
        return not self._thread.is_alive()

    # ------------------------------------------------------------------ the loop's thread

    def add_clock(self, clock: HasDeadline) -> None:
        """Drive its deadlines as well. Allowed before ``start`` on any thread."""
        self._clocks.append(clock)

    def add_closer(self, closer: Callable[[], object]) -> None:
        """Have it close descriptors, without any traffic, when the loop ends and in a forked child."""
        self._closers.append(closer)

    def call_later(self, delay: float, function: Callable[..., object], *args: Any) -> Timer:
        """Run it after ``delay`` seconds; ``timers.cancel`` takes it back."""
        return self.timers.start(self.now, delay, function, *args)

    def at_turn_end(self, function: Callable[..., object], *args: Any) -> None:
        """Run it after everything else of this turn; in the next turn, when asked at the end of one."""
        self._turn_end.append((function, args))

    def register(self, fileobj: Any, events: int, callback: Callable[[int], object]) -> None:
        """Call ``callback(events)`` whenever the file is ready. One that raises is not watched any more."""
        self._selector.register(fileobj, events, callback)

    def modify(self, fileobj: Any, events: int, callback: Callable[[int], object]) -> None:
        """Watch for other events."""
        self._selector.modify(fileobj, events, callback)

    def unregister(self, fileobj: Any) -> None:
        """Watch no more. Comes before the file is closed; unknown files are fine."""
        try:
            self._selector.unregister(fileobj)
        except (KeyError, ValueError):
            pass

    # ------------------------------------------------------------------ inside

    def _run(self) -> None:
        self._identity = threading.get_ident()
        cause: BaseException | None = None
        try:
            while not self._stopping:
                self._turn()
        except BaseException as error:
            cause = error
            _log.critical("The thread %r has ended because of an error.", self.name)
        self._end(cause)

    def _turn(self) -> None:
        deadline: float | None = None
        for clock in self._clocks:
            due = clock.next_deadline()
            if due is not None and (deadline is None or due < deadline):
                deadline = due
        if self._inbox or self._turn_end:
            sleep: float | None = 0
        else:
            sleep = None if deadline is None else self.clock.sleep_time(deadline)
            with self._lock:
                if self._inbox:
                    sleep = 0
                else:
                    self._asleep = True
        ready = self._selector.select(sleep)
        self._asleep = False
        self.now = self.clock.now()
        self.turn += 1
        for key, events in ready:
            try:
                key.data(events)
            except Exception:
                _log.exception("The file %r of the thread %r failed and is let go.", key.fileobj, self.name)
                self.unregister(key.fileobj)
        if deadline is not None and deadline <= self.now:
            self._advance()
        inbox = self._inbox
        for _ in range(len(inbox)):
            function, args = inbox.popleft()
            try:
                function(*args)
            except Exception:
                self._log_failure(function)
        if self._turn_end:
            turn_end, self._turn_end = self._turn_end, []
            for function, args in turn_end:
                try:
                    function(*args)
                except Exception:
                    self._log_failure(function)

    def _advance(self) -> None:
        for clock in self._clocks:
            try:
                clock.advance(self.now)
            except Exception:  # the timer that raised is gone; the others have their next turn
                self._log_failure(clock.advance)

    def _log_failure(self, function: Callable[..., object]) -> None:
        _log.exception("%r failed on the thread %r.", function, self.name)

    def _wake_up(self, events: int) -> None:
        try:
            self._wake_in.recv(64)
        except BlockingIOError:
            pass

    def _stop(self) -> None:
        self._stopping = True

    def _end(self, cause: BaseException | None) -> None:
        ended = LoopEnded(
            f"The thread {self.name!r} has ended"
            + ("." if cause is None else f" because of an error of its own: {cause!r}.")
        )
        ended.__cause__ = cause
        with self._lock:
            self._ended = ended
        try:
            while self._inbox:
                function, args = self._inbox.popleft()
                try:
                    function(*args)
                except Exception:
                    self._log_failure(function)
            self._close()
            self.clock.detach(self)
        finally:
            self._on_ended(cause)

    def _close(self) -> None:
        for closer in self._closers:
            try:
                closer()
            except Exception:
                self._log_failure(closer)
        self._wake_in.close()
        self._wake_out.close()
        try:
            self._selector.close()
        except OSError:  # a child has no kqueue
            pass

    def _forked(self) -> None:
        """Here, in the child, the thread does not exist, and its descriptors belong to the parent's connections."""
        self._lock = threading.RLock()
        if self._ended is None:
            self._ended = LoopEnded(
                f"The thread {self.name!r} lives in the process that this one was forked from: "
                "make a new connection manager in the child.",
                forked=True,
            )
            self._inbox.clear()
            self._turn_end.clear()
            self._close()


_loops: weakref.WeakSet[Loop] = weakref.WeakSet()


def _forked() -> None:
    for loop in list(_loops):
        loop._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
