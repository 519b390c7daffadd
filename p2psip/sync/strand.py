"""Strands: queues that keep what users wrote in order, on whatever worker it runs."""

from __future__ import annotations

import collections
import threading
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from p2psip.sync import waiting

if TYPE_CHECKING:
    from p2psip.sync.dispatch import Dispatcher
    from p2psip.sync.latency import Latency

BATCH = 64
"""Items of one strand before another strand has its turn."""

Item = tuple[Callable[..., object], tuple[Any, ...]]
"""A function and its arguments."""


class Strand:
    """A queue of one object: what is posted runs in order and one at a time, on any worker. Made by a dispatcher.

    Attributes:
        running_since: When what runs now was begun (``time.monotonic``); 0 when nothing runs.
        handler: What runs, or ran last; of an event the handler whose turn it is.
    """

    __slots__ = (
        "__weakref__",
        "_dispatcher",
        "_lock",
        "_owner",
        "_queue",
        "_scheduled",
        "handler",
        "name",
        "running_since",
    )

    def __init__(self, dispatcher: Dispatcher, name: str, owner: object) -> None:
        self.name = name
        self._dispatcher = dispatcher
        self._owner = None if owner is None else weakref.ref(owner)
        self._queue: collections.deque[Item] = collections.deque()
        self._lock = threading.RLock()  # a finalizer may come back here
        self._scheduled = False
        self.running_since = 0.0
        self.handler: object = None

    @property
    def owner(self) -> object:
        """The object whose events these are; None when it has none or it is gone."""
        return None if self._owner is None else self._owner()

    @property
    def depth(self) -> int:
        """What waits here, without the one that runs."""
        return len(self._queue)

    @property
    def is_idle(self) -> bool:
        """Nothing runs here, and nothing waits."""
        return not self._scheduled

    @property
    def is_current(self) -> bool:
        """The calling thread is in something that was posted here."""
        return waiting.here.strand is self

    def __repr__(self) -> str:
        return f"<Strand {self.name!r}, {len(self._queue)} waiting>"

    def post(self, function: Callable[..., object], *args: Any) -> bool:
        """Have ``function(*args)`` called after what was posted before. Any thread; does not block.

        Returns:
            False: The dispatcher is stopped, and nothing will be called.
        """
        dispatcher = self._dispatcher
        if dispatcher._stopped:
            return False
        queue = self._queue
        queue.append((function, args))
        if dispatcher._stopped:  # meanwhile, and nobody may come by this queue any more
            dispatcher._drop(self)
            return False
        if not self._scheduled:
            # The runner clears the flag before it looks at the queue for the last time, so either we see the flag
            # cleared or the runner sees the item.
            with self._lock:
                begin = not self._scheduled
                if begin:
                    # Nothing between these two: Ctrl-C there would leave a strand that never runs again.
                    self._scheduled = True
                    dispatcher._ready.append(self)
            if begin:
                dispatcher._rouse()
        return True

    def _run(self, latency: Latency) -> bool:
        """One batch, on a worker. True: there is more, and the strand wants another turn."""
        queue, dispatcher = self._queue, self._dispatcher
        begun = self.running_since = time.monotonic()
        owner = waiting.here.owner = self.owner
        waiting.here.strand = self
        try:
            for _ in range(BATCH):
                if dispatcher._stopped:
                    dispatcher._drop(self)
                try:
                    function, args = queue.popleft()
                except IndexError:
                    with self._lock:
                        self._scheduled = False
                        if not queue:
                            return False
                        self._scheduled = True
                    continue
                self.handler = function
                try:
                    function(*args)
                except BaseException as error:
                    dispatcher._report(owner, error, function)
                del function, args
                ended = time.monotonic()
                latency.add(ended - begun)
                begun = self.running_since = ended
            return True
        finally:
            self.running_since, self.handler = 0.0, None
            waiting.here.owner = waiting.here.strand = None
