"""The dispatcher: worker threads for what users wrote."""

from __future__ import annotations

import collections
import itertools
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from p2psip.logs import Log
from p2psip.sync import waiting
from p2psip.sync.event import OnError
from p2psip.sync.latency import Latency, LatencyFigures, together
from p2psip.sync.strand import Item, Strand

_log = Log(__name__)

KEEP_ALIVE = 10.0
"""Seconds that a thread without work stays."""
PATIENCE = 0.005
"""Seconds that work waits for a worker that runs a handler before another worker may be added."""
LIVELY = 2
"""Workers that may run handlers without a look at how busy the processor is: more would only fight for the
interpreter's lock, with each other and with the thread that owns the connections."""
BUSY = 0.8
"""Share of one processor from which on the interpreter's lock is what is scarce."""
STUCK = 20
"""Times PATIENCE without any item begun, after which a worker is added however busy the processor is."""


class Dispatcher:
    """Worker threads that come with the work and go without it. Usable from any thread.

    A worker that waits for an operation, or that a handler keeps for long, is made up for by another one, so that no
    strand waits for another strand's handler; up to a maximum.
    """

    def __init__(
        self,
        name: str,
        maximum_workers: int,
        on_error: OnError | None = None,
        on_dropped: Callable[[Any, int], object] | None = None,
    ) -> None:
        """Starts no thread yet.

        Args:
            name: Threads bear it.
            maximum_workers: As many handlers as can be blocked at one time.
            on_error: Told of exceptions that escape from what runs here: the owner of the strand, the exception,
                the function. They are logged before.
            on_dropped: Told of what waited in a strand when the dispatcher was stopped: its owner, and how many.
        """
        self.name = name
        self.maximum_workers = maximum_workers
        self.on_error = on_error
        self.on_dropped = on_dropped
        self._numbers = itertools.count(1)
        self.exits = False  # with the interpreter: Python 3.12 starts no threads any more then
        self._stopped = False
        self._reset()
        _dispatchers.add(self)

    def _reset(self) -> None:
        self._lock = threading.RLock()
        self._quiet = threading.Condition(self._lock)  # a worker ended
        self._ready: collections.deque[Strand | Item] = collections.deque()
        self._idle: list[_Worker] = []
        self._workers: set[_Worker] = set()
        self._active = 0  # workers that run something, or are woken to do so, and do not wait
        self._begun = 0  # items taken so far
        self._emptied = 0  # times that the last item was taken
        self._leaving = 0  # workers inside stop()
        self._latency = Latency()  # of workers that have ended
        self._watcher: _Watcher | None = None

    def strand(self, name: str, owner: object = None) -> Strand:
        """A new strand; ``owner`` is whose events it carries, kept by a weak reference."""
        return Strand(self, name, owner)

    def submit(self, function: Callable[..., object], *args: Any) -> bool:
        """Have ``function(*args)`` called on a worker, in no strand; begun in the order of submission.

        Returns:
            False: The dispatcher is stopped, and nothing will be called.
        """
        if self._stopped:
            return False
        self._ready.append((function, args))
        self._rouse()
        return True

    @property
    def in_worker(self) -> bool:
        """The calling thread is one of the workers."""
        worker = waiting.here.worker
        return isinstance(worker, _Worker) and worker.dispatcher is self

    @property
    def workers(self) -> int:
        """Threads of just now."""
        return len(self._workers)

    @property
    def depth(self) -> int:
        """What waits for a worker: strands that have something to run, and callbacks."""
        return len(self._ready)

    @property
    def is_exhausted(self) -> bool:
        """There are as many workers as there may be, and each waits inside of a handler for something else."""
        return self._active <= 0 and len(self._workers) >= self.maximum_workers and not self._idle

    def latency(self) -> LatencyFigures:
        """How long handlers have taken so far. Any thread."""
        with self._lock:
            return together([self._latency, *(worker.latency for worker in self._workers)])

    def busy_strands(self) -> list[Strand]:
        """Those that run something or have something waiting, as of just now. Any thread."""
        with self._lock:
            found = [worker.running for worker in self._workers]
            found += self._ready.copy()
        return list(dict.fromkeys(each for each in found if isinstance(each, Strand)))

    # ------------------------------------------------------------------ work in, work out

    def _rouse(self) -> None:
        """Something was added to what is ready: see to it that somebody runs it."""
        # No lock in the usual case: a worker stops counting as active, and the watcher as awake, before it looks at
        # what is ready for the last time. So either we see that, or it sees the item.
        watcher = self._watcher
        if self._active <= 0 or watcher is None or watcher.asleep:
            with self._lock:
                if not self._ready:
                    start: _Thread | None = None
                elif self._active <= 0:
                    start = self._attend()
                else:
                    start = self._watch()
            if start is not None:
                start.begin()

    def _attend(self) -> _Worker | None:
        """Under the lock: one more worker for what is ready. Returns the thread to start, if it is a new one."""
        if self._idle:
            self._active += 1
            self._idle.pop().wake.release()
            return None
        if len(self._workers) >= self.maximum_workers:
            return None
        self._active += 1
        worker = _Worker(self, next(self._numbers))
        self._workers.add(worker)
        return worker

    def _watch(self) -> _Watcher | None:
        """Under the lock: have somebody see to it that what is ready does not wait for long."""
        watcher = self._watcher
        if watcher is None:
            watcher = self._watcher = _Watcher(self)
            return watcher
        if watcher.asleep:
            watcher.asleep = False
            watcher.wake.release()
        return None

    def _call(self, owner: object, function: Callable[..., object], args: tuple[Any, ...]) -> None:
        try:
            function(*args)
        except BaseException as error:
            self._report(owner, error, function)

    def _report(self, owner: object, error: BaseException, function: object) -> None:
        name = getattr(function, "__qualname__", None) or repr(function)
        _log.error("%s, called by a worker of %s, raised", name, self.name, exc_info=error)
        if self.on_error is not None:
            try:
                self.on_error(owner, error, function)
            except Exception:
                _log.exception("Reporting an exception of %s raised one itself", name)

    def _drop(self, strand: Strand) -> None:
        dropped = len(strand._queue)
        strand._queue.clear()
        if dropped:
            _log.info("%s is stopped: %d events of %s are dropped", self.name, dropped, strand.name)
            if self.on_dropped is not None:
                self._call(strand.owner, self.on_dropped, (strand.owner, dropped))

    # ------------------------------------------------------------------ the end

    def stop(self, timeout: float | None = 0.0) -> bool:
        """Take no more work, drop what waits in strands, and wait for the handlers that run.

        What was submitted outside of strands (callbacks of operations) still runs. Any thread, also from a handler,
        which is then not waited for; calling it again only waits.

        Args:
            timeout: Seconds; 0 does not wait.

        Returns:
            True: No worker is left but those inside this method.
        """
        start: _Thread | None = None
        strands: list[Strand] = []
        with self._lock:
            self._stopped = True
            for _ in range(len(self._ready)):
                try:
                    item = self._ready.popleft()
                except IndexError:
                    break  # workers take items at the same time
                if isinstance(item, Strand):
                    strands.append(item)
                else:
                    self._ready.append(item)
            while self._idle:
                self._active += 1
                self._idle.pop().wake.release()
            if self._watcher is not None and self._watcher.asleep:
                self._watcher.asleep = False
                self._watcher.wake.release()
            if self._ready and self._active <= 0:
                start = self._attend()
        if start is not None:
            start.begin()
        for strand in strands:
            self._drop(strand)
        if timeout == 0.0:
            return not self._workers
        inside = self.in_worker
        deadline = waiting.Deadline(timeout)
        with waiting.worker_blocks(f"{self.name}.stop()"), self._lock:
            self._leaving += inside
            try:
                self._quiet.notify_all()
                while len(self._workers) > self._leaving:
                    remaining = deadline.remaining()
                    if remaining == 0.0:
                        return False
                    self._quiet.wait(waiting.SLICE if remaining is None else min(remaining, waiting.SLICE))
                return True
            finally:
                self._leaving -= inside

    def _forked(self) -> None:
        """In the child of a fork none of the threads exist, and locks are as they were at that moment."""
        self._stopped = True
        self._reset()


class _Thread:
    """A daemon thread of a dispatcher that sleeps on a lock of its own while there is nothing to do."""

    def __init__(self, dispatcher: Dispatcher, name: str) -> None:
        self.dispatcher = dispatcher
        self.wake = threading.Lock()
        self.wake.acquire()
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)

    def begin(self) -> None:
        """Start it; without the dispatcher's lock, because it waits until the thread runs."""
        try:
            self._thread.start()
        except RuntimeError as error:
            with self.dispatcher._lock:
                self._not_started()
            log = _log.info if self.dispatcher.exits else _log.error
            log("The thread %s could not be started: %s", self._thread.name, error)

    def _not_started(self) -> None:
        raise NotImplementedError

    def _main(self) -> None:
        raise NotImplementedError


class _Worker(_Thread):
    """Runs what is ready."""

    def __init__(self, dispatcher: Dispatcher, number: int) -> None:
        super().__init__(dispatcher, f"{dispatcher.name} worker {number}")
        self.latency = Latency()
        self.running: Strand | Item | None = None

    def blocked(self) -> None:
        dispatcher = self.dispatcher
        start = None
        with dispatcher._lock:
            dispatcher._active -= 1
            if dispatcher._ready and dispatcher._active <= 0:
                start = dispatcher._attend()
        if start is not None:
            start.begin()

    def unblocked(self) -> None:
        with self.dispatcher._lock:
            self.dispatcher._active += 1

    def _main(self) -> None:
        waiting.here.worker = self
        dispatcher = self.dispatcher
        again: Strand | None = None
        while True:
            item = self._next(again)
            again = None
            if item is None:
                return
            self.running = item
            if isinstance(item, Strand):
                if item._run(self.latency):
                    again = item
            else:
                dispatcher._call(None, *item)
            self.running = None
            del item  # nothing is kept alive by a worker that is idle

    def _next(self, again: Strand | None) -> Strand | Item | None:
        """What to run now; ``again`` takes its turn behind what is ready. None: this thread ends."""
        dispatcher = self.dispatcher
        ready = dispatcher._ready
        if again is not None:
            ready.append(again)
        while True:
            try:
                item = ready.popleft()
            except IndexError:
                pass
            else:
                dispatcher._begun += 1
                if not ready:
                    dispatcher._emptied += 1
                return item
            with dispatcher._lock:
                dispatcher._active -= 1
                if ready:
                    dispatcher._active += 1
                    continue
                if dispatcher._stopped:
                    self._leave()
                    return None
                dispatcher._idle.append(self)
            if not self.wake.acquire(True, KEEP_ALIVE):
                with dispatcher._lock:
                    if self in dispatcher._idle:
                        dispatcher._idle.remove(self)
                        self._leave()
                        return None
                self.wake.acquire()  # somebody wanted it at the last moment

    def _leave(self) -> None:
        if self in self.dispatcher._workers:
            self.dispatcher._workers.discard(self)
            self.dispatcher._latency.join(self.latency)
        self.dispatcher._quiet.notify_all()

    def _not_started(self) -> None:
        self.dispatcher._active -= 1
        self._leave()


class _Watcher(_Thread):
    """Adds workers while work waits although none of the workers waits, as far as we know.

    It is awake only while there is more to do than workers that do it.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        super().__init__(dispatcher, f"{dispatcher.name} watcher")
        self.asleep = False

    def _main(self) -> None:
        dispatcher = self.dispatcher
        emptied = dispatcher._emptied
        begun, looks = -1, 0
        since, burnt = time.monotonic(), time.process_time()
        while True:
            time.sleep(PATIENCE)
            start = None
            with dispatcher._lock:
                self.asleep = True
                asleep = self.asleep = not dispatcher._ready
                if asleep and dispatcher._stopped:
                    dispatcher._watcher = None
                    return
                if not asleep and dispatcher._emptied == emptied:
                    looks = looks + 1 if dispatcher._begun == begun else 0
                    share = (time.process_time() - burnt) / max(time.monotonic() - since, PATIENCE)
                    if dispatcher._active < LIVELY or share < BUSY or looks >= STUCK:
                        start = dispatcher._attend()
                        looks = 0
                        since, burnt = time.monotonic(), time.process_time()
                emptied, begun = dispatcher._emptied, dispatcher._begun
            if start is not None:
                start.begin()
            if asleep:
                if not self.wake.acquire(True, KEEP_ALIVE):
                    with dispatcher._lock:
                        if self.asleep:
                            dispatcher._watcher = None
                            return
                    self.wake.acquire()
                emptied = dispatcher._emptied
                since, burnt = time.monotonic(), time.process_time()

    def _not_started(self) -> None:
        self.dispatcher._watcher = None


_dispatchers: weakref.WeakSet[Dispatcher] = weakref.WeakSet()


def _forked() -> None:
    for dispatcher in list(_dispatchers):
        dispatcher._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
