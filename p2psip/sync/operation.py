"""Operations: network calls that are under way."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from p2psip.errors import RealTimeInvalidOperationException, fresh
from p2psip.logs import Log
from p2psip.sync import waiting

_log = Log(__name__)

_Lock = type(threading.RLock())
"""The class itself: the function of that name in ``threading`` is Python code, and one is made for each operation."""

T = TypeVar("T")

# The states of concurrent.futures, by the names that its wait() and as_completed() look at.
_RUNNING = "RUNNING"
_FINISHED = "FINISHED"
_CANCELLED = "CANCELLED_AND_NOTIFIED"


class _Sleeper:
    """A thread in ``result`` or ``exception``; stands in ``_waiters`` next to those of ``concurrent.futures``."""

    __slots__ = ("_lock", "acquire")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self.acquire = self._lock.acquire

    def add_result(self, _: object) -> None:
        self._lock.release()

    add_exception = add_cancelled = add_result


class Operation(concurrent.futures.Future[T]):
    """A network call that is under way. It ends exactly once: with a result, an error, or cancelled.

    Usable from any thread, and wherever a ``concurrent.futures.Future`` is: ``wait``, ``as_completed`` and
    ``asyncio.wrap_future`` work. Callbacks run on a worker thread of the connection manager, never on the thread
    that ends the operation and never inside ``add_done_callback``.

    Attributes:
        name: What is done, for people: ``MESSAGE to sip:bob@contoso.com``.
        context: Whatever the canceller needs; forgotten when the operation ends.
    """

    # A Future makes a Condition for each instance, which costs more than all the rest. What concurrent.futures
    # wants of `_condition` from outside is a lock, and those who wait in result() bring their own.
    _condition: Any
    _state = _RUNNING
    _result: T | None = None
    _exception: BaseException | None = None
    _done_callbacks: list[Callable[[Operation[T]], object]] | None = None
    _asked = False
    context: Any = None

    def __init__(
        self,
        name: str,
        *,
        callbacks: Callable[..., object],
        cancel: Callable[[Operation[Any]], object] | None = None,
    ) -> None:
        """Begin it.

        Args:
            callbacks: Called with a function and its arguments, queues it for a worker thread and returns at once;
                returning False says that there are no workers any more.
            cancel: Asks for the end of this operation, from any thread; whoever it asks calls ``end_cancelled``,
                ``fail`` or ``complete`` later. None: it cannot be cancelled.
        """
        self.name = name
        self._condition = _Lock()  # reentrant: a signal handler may complete what it interrupted
        self._waiters: list[Any] = []
        self._queue = callbacks
        self._canceller = cancel
        self._generation = waiting.process.generation

    def __repr__(self) -> str:
        state = {_RUNNING: "running", _CANCELLED: "cancelled"}.get(self._state)
        if state is None:
            state = "done" if self._exception is None else f"failed: {self._exception!r}"
        return f"<Operation {self.name!r}, {state}>"

    # ------------------------------------------------------------------ the end

    def complete(self, result: T) -> bool:
        """End it with a result. False: it has ended before, and nothing changes."""
        with self._condition:
            if self._state is not _RUNNING:
                return False
            self._result = result
            self._state = _FINISHED
            for waiter in self._waiters:
                waiter.add_result(self)
        self._ended()
        return True

    def fail(self, error: BaseException) -> bool:
        """End it with an error. False: it has ended before, and nothing changes."""
        with self._condition:
            if self._state is not _RUNNING:
                return False
            self._exception = error
            self._state = _FINISHED
            for waiter in self._waiters:
                waiter.add_exception(self)
        self._ended()
        return True

    def end_cancelled(self) -> bool:
        """End it as cancelled: who waits gets CancelledError. False: it has ended before, and nothing changes."""
        with self._condition:
            if self._state is not _RUNNING:
                return False
            self._state = _CANCELLED
            for waiter in self._waiters:
                waiter.add_cancelled(self)
        self._ended()
        return True

    def _ended(self) -> None:
        self._canceller = self.context = None  # they lead back here
        callbacks = self._done_callbacks
        if callbacks is not None:
            self._done_callbacks = None
            self._call(callbacks)

    def _call(self, callbacks: list[Callable[[Operation[T]], object]]) -> None:
        """Have the callbacks run, in order."""
        foreign = []
        for callback in callbacks:
            # wrap_future's callback only wakes its event loop: it waits as result() does, and asks for no worker.
            if getattr(callback, "__module__", None) == "asyncio.futures":
                self._run_callbacks([callback])
            else:
                foreign.append(callback)
        if foreign and self._queue(self._run_callbacks, foreign) is False:
            # The workers are gone, as with the operation of dispose() itself.
            threading.Thread(target=self._run_callbacks, args=(foreign,), name="p2psip callbacks", daemon=True).start()

    def _run_callbacks(self, callbacks: list[Callable[[Operation[T]], object]]) -> None:
        for callback in callbacks:
            try:
                callback(self)
            except (Exception, SystemExit):
                _log.exception("A callback of the operation %r raised", self.name)

    # ------------------------------------------------------------------ for users

    def add_done_callback(self, fn: Callable[[Operation[T]], object]) -> None:
        """Have ``fn(operation)`` called on a worker thread once it has ended; in the order in which they are added.

        An exception that it raises is logged.
        """
        with self._condition:
            if self._state is _RUNNING:
                if self._done_callbacks is None:
                    self._done_callbacks = []
                self._done_callbacks.append(fn)
                return
        self._call([fn])

    def cancel(self) -> bool:
        """Ask for its end; does not wait for it.

        Returns:
            True: It was asked for (then ``result`` raises CancelledError soon, or an error that says more; where the
            operation wins the race it ends as if nobody had asked), or it has ended by being cancelled before.
            False: It has ended otherwise, or cannot be cancelled.
        """
        with self._condition:
            canceller = self._canceller
            if self._state is not _RUNNING:
                return self._state is _CANCELLED
            if canceller is None:
                return False
            if self._asked:
                return True
            self._asked = True
        canceller(self)
        return True

    def cancelled(self) -> bool:
        """It has ended by being cancelled."""
        return self._state is _CANCELLED

    def running(self) -> bool:
        """It has not ended."""
        return self._state is _RUNNING

    def done(self) -> bool:
        """It has ended in some way."""
        return self._state is not _RUNNING

    def result(self, timeout: float | None = None) -> T:
        """Wait for its end.

        Blocks the calling thread; allowed in event handlers.

        Args:
            timeout: Seconds to wait here; the operation goes on when they are over. None: until it ends, which it
                does, because each operation has a time limit of its own.

        Raises:
            concurrent.futures.TimeoutError: It did not end within ``timeout``.
            concurrent.futures.CancelledError: It was cancelled.
            RealTimeInvalidOperationException: Called on the manager's own thread, or in a process forked later.
            RealTimeException: The operation failed; each caller gets an exception of its own.
        """
        if self._state is _RUNNING:
            self._wait(timeout, "result")
        if self._exception is not None:
            raise _copy(self._exception)
        if self._state is _CANCELLED:
            raise concurrent.futures.CancelledError(f"{self.name} was cancelled.")
        return self._result  # type: ignore[return-value]

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for its end as :meth:`result` does; returns the error, None where there is none."""
        if self._state is _RUNNING:
            self._wait(timeout, "exception")
        if self._state is _CANCELLED:
            raise concurrent.futures.CancelledError(f"{self.name} was cancelled.")
        return None if self._exception is None else _copy(self._exception)

    def _wait(self, timeout: float | None, call: str) -> None:
        if self._generation != waiting.process.generation:
            raise RealTimeInvalidOperationException(
                f"{self.name} was begun before this process was forked; only the parent can wait for it."
            )
        sleeper = _Sleeper()
        with self._condition:
            if self._state is not _RUNNING:
                return
            self._waiters.append(sleeper)
        try:
            ended = waiting.wait(sleeper.acquire, timeout, f"{call}() of {self.name}")
        finally:
            with self._condition:
                self._waiters.remove(sleeper)
        if not ended and self._state is _RUNNING:
            raise concurrent.futures.TimeoutError(f"{self.name} has not ended within {timeout:g} s; it goes on.")

    # ------------------------------------------------------------------ what executors call on a Future

    def set_result(self, result: T) -> None:
        """:meth:`complete`, but an error where it has ended before."""
        if not self.complete(result):
            raise concurrent.futures.InvalidStateError(f"{self!r} has ended.")

    def set_exception(self, exception: BaseException | None) -> None:
        """:meth:`fail`, but an error where it has ended before."""
        if exception is None or not self.fail(exception):
            raise concurrent.futures.InvalidStateError(f"{self!r} has ended.")


def _copy(error: BaseException) -> BaseException:
    """A fresh error for one waiter; the shared one where its class cannot be copied."""
    try:
        return fresh(error)
    except Exception:
        return error.with_traceback(None)
