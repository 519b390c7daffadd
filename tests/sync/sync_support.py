"""What the tests of the thread tools share."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable
from typing import Any

from p2psip.sync import Operation

BOUND = 20.0
"""Seconds: no wait of these tests is longer, and none that passes takes it."""


class Recorder:
    """A callable that keeps what it is called with, and on which thread."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.threads: list[threading.Thread] = []
        self._count = threading.Condition()

    def __call__(self, *args: Any) -> None:
        with self._count:
            self.calls.append(args)
            self.threads.append(threading.current_thread())
            self._count.notify_all()

    def wait(self, count: int) -> list[tuple[Any, ...]]:
        """The calls, as soon as there are that many."""
        with self._count:
            assert self._count.wait_for(lambda: len(self.calls) >= count, BOUND), self.calls
            return list(self.calls)


def in_thread(function: Callable[[], Any]) -> Any:
    """Run it in a thread of its own; its result or its exception."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result(BOUND)


def blocked_threads(operation: Operation[Any], function: Callable[[], Any], count: int = 1) -> list[Any]:
    """Futures of threads that run ``function`` and are known to wait for the operation."""
    futures: list[concurrent.futures.Future[Any]] = [concurrent.futures.Future() for _ in range(count)]

    def run(future: concurrent.futures.Future[Any]) -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    for future in futures:
        threading.Thread(target=run, args=(future,), daemon=True).start()
    until(lambda: len(operation._waiters) == count)
    return futures


def until(condition: Callable[[], bool]) -> None:
    """Let other threads run until the condition holds."""
    pause = threading.Event()
    for _ in range(int(BOUND * 1000)):
        if condition():
            return
        pause.wait(0.001)
    raise AssertionError("the condition never came true")


def wait_quietly(operation: Operation[Any]) -> None:
    try:
        operation.result()
    except (ValueError, concurrent.futures.CancelledError):
        pass
