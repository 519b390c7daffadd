"""Waiting: which threads may, in what steps they do, and who is told about it."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol

from p2psip.errors import RealTimeInvalidOperationException

SLICE = 0.2
"""Seconds: on Windows a wait in the main thread hears Ctrl-C only between two waits."""


class Worker(Protocol):
    """A thread of a dispatcher, as the waits of this package see it."""

    def blocked(self) -> None:
        """It is about to wait: others must do its work."""

    def unblocked(self) -> None:
        """It goes on."""


class Strand(Protocol):
    """What is being run, as the waits and events of this package see it."""

    handler: object


class _Here(threading.local):
    """What is known about the thread that looks."""

    forbidden: str | None = None
    """The name of a thread that must not wait."""
    worker: Worker | None = None
    owner: object = None
    """Of the strand that is being run."""
    strand: Strand | None = None


here = _Here()


class _Process:
    """Tells the processes of a fork apart: the generation is 0 in the first one and grows in each child."""

    generation = 0


process = _Process()

_locks: weakref.WeakSet[Any] = weakref.WeakSet()


def fork_safe_lock() -> threading.RLock:
    """A lock of an object that a forked child may ask to end: there nobody holds it, whoever did at that moment.
    Reentrant: a signal handler may come back to it."""
    made = threading.RLock()
    _locks.add(made)
    return made


def _forked() -> None:
    process.generation += 1
    for each in list(_locks):
        each._at_fork_reinit()  # as the standard library does with its own
    here.forbidden = None
    here.worker = here.owner = here.strand = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def forbid_blocking(name: str) -> None:
    """From now on the calling thread, known to people as ``name``, must not wait; what would wait raises."""
    here.forbidden = name


def check_blocking(call: str) -> None:
    """Raise RealTimeInvalidOperationException if the calling thread must not wait; ``call`` is named."""
    if here.forbidden is not None:
        raise RealTimeInvalidOperationException(
            f"{call} would block the thread {here.forbidden!r}, on which every connection depends: "
            "call it on another thread."
        )


class Deadline:
    """One time-out that several steps share. ``None`` never ends."""

    __slots__ = ("_end",)

    def __init__(self, timeout: float | None) -> None:
        self._end = None if timeout is None else time.monotonic() + timeout

    def remaining(self) -> float | None:
        """Seconds, never below 0; None when there is no end."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())


class worker_blocks:  # noqa: N801 - reads as a statement: with worker_blocks("stop()"):
    """While its block runs, the calling thread waits for something; ``call`` says what.

    A dispatcher whose worker waits lets another one do its work. Raises RealTimeInvalidOperationException on a
    thread that must not wait.
    """

    __slots__ = ("_worker",)

    def __init__(self, call: str) -> None:
        check_blocking(call)
        self._worker = here.worker

    def __enter__(self) -> None:
        if self._worker is not None:
            self._worker.blocked()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._worker is not None:
            self._worker.unblocked()


def wait(acquire: Callable[[bool, float], bool], timeout: float | None, call: str) -> bool:
    """Wait until ``acquire`` (of a lock or semaphore) succeeds; False when ``timeout`` seconds went by before.

    Ctrl-C in the main thread ends the wait on every platform.

    Raises:
        RealTimeInvalidOperationException: This thread must not wait; the sentence names ``call``.
    """
    with worker_blocks(call):
        if threading.get_ident() != threading.main_thread().ident:
            return acquire(True, -1 if timeout is None else max(0.0, min(timeout, threading.TIMEOUT_MAX)))
        deadline = Deadline(timeout)
        while True:
            remaining = deadline.remaining()
            if remaining is None or remaining > SLICE:
                if acquire(True, SLICE):
                    return True
            else:
                return acquire(True, remaining)
