"""What happens when handlers do not keep up: peers are read more slowly, then refused, and nothing is dropped in silence
(design rule 8).

A queue that reaches its high mark stops the reading of the connections that fill it, until it has come down to its low
mark. Requests can be refused, so for them that lasts no longer than ``PATIENCE``: a handler that hangs must not keep the
connection from whatever else uses it. From then on, until the queue has come down, they are answered 503.
"""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

from p2psip.config import ManagerSettings
from p2psip.net.connection import Connection
from p2psip.net.limits import Quota
from p2psip.net.loop import Clock, LoopEnded
from p2psip.sync import Strand

PATIENCE = 0.5
"""Seconds that requests stay unread so that handlers can catch up."""
LOOK = 0.02
"""Seconds between two looks at queues that are full."""
REFUSALS = 4000.0
"""A second. To refuse is work as well, and handlers want the processor too; what is more stays unread meanwhile."""
REST = 1.0
"""Seconds that a connection stays unread for that at most: what others owe is not to keep its answers to us for long."""
YIELD = 15
INSTANT = 1e-6
"""After so many refusals so many seconds of sleep: else a handler that could go on waits for the interpreter's lock until
this thread has nothing to do, or for 5 ms."""
HEAVY = 8192
"""Bytes of a request that counts by its size as well."""
RINGING = 0.2
"""Seconds between two looks at heavy calls that ring."""
REFUSED = "refused"
"""The reason not to read that has to do with no queue."""


class Queue(Protocol):
    """Where things wait for handlers: a strand, or the dispatcher, where strands wait for a worker."""

    @property
    def depth(self) -> int:
        """How much waits."""


class Workers(Queue, Protocol):
    """The dispatcher."""

    @property
    def is_exhausted(self) -> bool:
        """All that there may be wait inside of handlers."""


class LoopThread(Protocol):
    """Whose connections these are."""

    now: float
    clock: Clock

    def call_later(self, delay: float, function: Callable[..., object], *args: Any) -> object:
        """Loop thread: run it then."""

    def post(self, function: Callable[..., object], *args: Any) -> None:
        """Any thread: run it soon."""


class Transaction(Protocol):
    """A request that is to be answered."""

    is_answered: bool

    @property
    def is_terminated(self) -> bool:
        """Nobody waits for the answer any more."""

    @property
    def flow(self) -> Any:
        """The connection that it came over."""

    @property
    def request(self) -> Any:
        """The message."""


class Weight:
    """Bytes of the heavy requests that wait for handlers, in whatever strand, or for the answer to a call.

    Attributes:
        shares: What came over which connection.
    """

    __slots__ = ("shares",)

    def __init__(self) -> None:
        self.shares: Counter[Connection] = Counter()

    @property
    def depth(self) -> int:
        """All together."""
        return self.shares.total()

    def lighten(self, connection: Connection, size: int) -> None:
        """So much less."""
        self.shares[connection] -= size
        if not self.shares[connection]:
            del self.shares[connection]


class _Full:
    """A queue that has reached its high mark, until it has been below its low mark for ``PATIENCE``.

    Attributes:
        high, low: Its marks.
        held: The connections that are not read because of it; whether what they bring can be refused.
        refuses_at: From when on requests are refused; None where it has had none yet.
        over_at: When it is full no more; None while it is above its low mark.
    """

    __slots__ = ("held", "high", "low", "over_at", "refuses_at")

    def __init__(self, high: int, low: int) -> None:
        self.high = high
        self.low = low
        self.held: dict[Connection, bool] = {}
        self.refuses_at: float | None = None
        self.over_at: float | None = None


class Pressure:
    """The full queues of one stack. Loop thread.

    Attributes:
        counts: ``"paused"``: how often reading was stopped; ``"refused"``: requests that were answered 503.
        weight: Of what waits for handlers, and of calls that ring: that may take minutes, and all the while they keep
            what they came with.
    """

    def __init__(
        self, loop: LoopThread, settings: ManagerSettings, workers: Workers, refuse: Callable[[Any], object]
    ) -> None:
        """``refuse`` answers 503, on the loop thread."""
        self._loop = loop
        self._workers = workers
        self._settings = settings
        self._refuse = refuse
        self._held: dict[Queue, _Full] = {}
        self._refusals = Quota(REFUSALS, loop.now)
        self._resting: set[Connection] = set()  # read again when there is time to refuse more
        self._ringing: dict[Transaction, int] = {}  # heavy ones that began something, and are not answered yet
        self._longest = settings.handler_limit / 2
        self.weight = Weight()
        self.counts: Counter[str] = Counter()

    # ------------------------------------------------------------------ what comes in

    def deliver(self, strand: Strand, transaction: Transaction, function: Callable[..., object], *args: object) -> None:
        """Have ``function(*args)``, which answers the request of that transaction, called on the strand; or answer 503
        where too much waits there already."""
        size = len(transaction.request.to_bytes())
        if self._is_full(strand, transaction.flow, size):
            self._refuse(transaction)
            return
        if size >= HEAVY:
            self.weight.shares[transaction.flow] += size
        strand.post(self._turn, self._loop.now, size, transaction, function, args)

    def guard(self, acceptors: dict[str, Callable[..., object]]) -> None:
        """Put in front of what takes requests that begin something with a strand of its own: they are answered 503 where
        too many strands wait for a worker."""
        for method, accept in acceptors.items():
            acceptors[method] = functools.partial(self._accept, accept)

    def _accept(self, accept: Callable[..., object], now: float, transaction: Transaction, *args: object) -> None:
        size = len(transaction.request.to_bytes())
        if self.refuses(self._workers, transaction.flow) or (size >= HEAVY and self._is_heavy(transaction.flow)):
            self._refuse(transaction)
            return
        if size >= HEAVY:
            if not self._ringing:
                self._loop.call_later(RINGING, self._look_at_calls)
            self._ringing[transaction] = size
            self.weight.shares[transaction.flow] += size
        accept(now, transaction, *args)

    def _look_at_calls(self) -> None:
        """Which heavy ones are answered, or over?"""
        for transaction, size in list(self._ringing.items()):
            if transaction.is_answered or transaction.is_terminated:
                del self._ringing[transaction]
                self.weight.lighten(transaction.flow, size)
        if self._ringing:
            self._loop.call_later(RINGING, self._look_at_calls)

    def refuses(self, queue: Queue, connection: Connection) -> bool:
        """A request has come that is answered before its handler runs, or is the first one of a queue of its own. True:
        it is to be answered 503, since too much waits there."""
        high = self._settings.strand_high_mark
        return queue.depth >= high and self._is_crowded(
            queue, high, self._settings.strand_low_mark, connection, queue.depth
        )

    def slow_down(self, strand: Strand, connection: Connection) -> None:
        """Something from the connection is about to be posted that cannot be refused: it is read no more while the
        strand is above its high mark."""
        high = self._settings.strand_high_mark
        if strand.depth >= high:
            full = self._held.get(strand) or self._fill(strand, high, self._settings.strand_low_mark)
            self._hold(strand, full, connection, False)

    def forget(self, connection: Connection) -> None:
        """The connection is closed."""
        for full in self._held.values():
            full.held.pop(connection, None)

    # ------------------------------------------------------------------ full queues

    def _is_full(self, strand: Strand, connection: Connection, size: int) -> bool:
        high, low = self._settings.strand_high_mark, self._settings.strand_low_mark
        if strand.depth >= high and self._is_crowded(strand, high, low, connection, connection.owed):
            return True
        return size >= HEAVY and self._is_heavy(connection)

    def _is_heavy(self, connection: Connection) -> bool:
        """Likewise of the bytes of what waits, or rings."""
        high = self._settings.maximum_buffered // 4
        share = self.weight.shares[connection]
        return self.weight.depth >= high and self._is_crowded(self.weight, high, high // 2, connection, share)

    def _is_crowded(self, queue: Queue, high: int, low: int, connection: Connection, share: int) -> bool:
        """The queue is above its high mark, and at most so much in it is from that connection: which is read no more
        for now. True: that was not enough."""
        # One connection may fill it up to its high mark. Of several each may have as much in it as there is room left
        # below twice that mark, so that there is always some for who comes last.
        room = 2 * high - queue.depth
        if share < room:
            return False
        now = self._loop.now
        full = self._held.get(queue) or self._fill(queue, high, low)
        if full.refuses_at is None:
            full.refuses_at = now + PATIENCE
        if room > 0 and now < full.refuses_at:
            self._hold(queue, full, connection, True)
            return False
        self.counts["refused"] += 1
        if not self.counts["refused"] % YIELD:
            time.sleep(INSTANT)
        debt = self._refusals.owe(now, 1)
        if debt and connection not in self._resting:
            self._resting.add(connection)
            connection.pause_reading(REFUSED)
            self._loop.call_later(min(debt, REST), self._rested, connection)
        return True

    def _rested(self, connection: Connection) -> None:
        self._resting.discard(connection)
        connection.resume_reading(REFUSED)

    def _fill(self, queue: Queue, high: int, low: int) -> _Full:
        if not self._held:
            self._loop.call_later(LOOK, self._look)
        full = self._held[queue] = _Full(high, low)
        return full

    def _hold(self, queue: Queue, full: _Full, connection: Connection, refusable: bool) -> None:
        if connection not in full.held:
            self.counts["paused"] += 1
        full.held[connection] = refusable
        connection.pause_reading(_reason(queue))

    def _look(self) -> None:
        """Has one of them come down?"""
        now = self._loop.now
        for queue, full in list(self._held.items()):
            depth = queue.depth
            if depth <= full.low:
                released = list(full.held)
                if full.over_at is None:
                    full.over_at = now + PATIENCE
                if now >= full.over_at:
                    del self._held[queue]
            else:
                full.over_at = None
                refuses = full.refuses_at is not None and now >= full.refuses_at
                # A handler may be waiting for the answer to a request of ours, and the queue for that handler; or all
                # of them wait, for the ACK to a call that they have accepted, say, and the queue for any of them.
                exhausted = self._workers.is_exhausted
                released = [
                    connection
                    for connection, refusable in full.held.items()
                    if (refuses and refusable)
                    or ((connection.unanswered or exhausted) and (refusable or depth < 2 * full.high))
                ]
            for connection in released:
                del full.held[connection]
                connection.resume_reading(_reason(queue))
        if self._held:
            self._loop.call_later(LOOK, self._look)

    # ------------------------------------------------------------------ what has its turn

    def _turn(
        self,
        since: float,
        size: int,
        transaction: Transaction,
        function: Callable[..., object],
        args: tuple[object, ...],
    ) -> None:
        """Worker thread: what was delivered then is at the head of its strand. If its sender has no answer yet, and
        there is time enough to give one, it is handled."""
        if size >= HEAVY:
            self._post(self.weight.lighten, transaction.flow, size)
        if transaction.is_answered:
            return
        if self._loop.clock.now() - since > self._longest:
            self._post(self._refuse_late, transaction)
        else:
            function(*args)

    def _post(self, function: Callable[..., object], *args: object) -> None:
        try:
            self._loop.post(function, *args)
        except LoopEnded:
            pass

    def _refuse_late(self, transaction: Transaction) -> None:
        self.counts["refused"] += 1
        self._refuse(transaction)


def _reason(queue: Queue) -> str:
    return f"queue {id(queue)}"
