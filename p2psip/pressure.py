"""What happens when handlers do not keep up: nothing is dropped, peers are read more slowly (design rule 8)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from p2psip.config import ManagerSettings
from p2psip.net.connection import Connection
from p2psip.net.loop import LoopEnded
from p2psip.sync import Strand


class Pressure:
    """The connections of one stack that full strands keep from being read. Loop thread.

    Attributes:
        counts: ``"paused"``: how often reading was stopped; ``"refused"``: requests that were answered 503.
    """

    def __init__(self, post: Callable[..., object], settings: ManagerSettings) -> None:
        self._post = post  # to the loop thread
        self._settings = settings
        self._held: dict[Strand, list[Connection]] = {}
        self.counts: Counter[str] = Counter()

    def is_too_high(self, strand: Strand, connection: Connection) -> bool:
        """Something from the connection is about to be posted: it is read no more while the strand is above its high
        mark. True when that was not enough, and the strand holds twice as much."""
        depth, high = strand.depth, self._settings.strand_high_mark
        if depth < high:
            return False
        self._hold(strand, connection)
        return depth >= 2 * high

    def refuses(self, strand: Strand, connection: Connection) -> bool:
        """The same for a request, which is answered 503 then."""
        too_high = self.is_too_high(strand, connection)
        self.counts["refused"] += too_high
        return too_high

    def forget(self, connection: Connection) -> None:
        """The connection is closed."""
        for held in self._held.values():
            if connection in held:
                held.remove(connection)

    def _hold(self, strand: Strand, connection: Connection) -> None:
        """Read no more from the connection until the strand has come down to its low mark."""
        held = self._held.get(strand)
        if held is None:
            held = self._held[strand] = []
            strand.on_depth(self._settings.strand_low_mark, lambda: self._relieved(strand))
        if connection not in held:
            held.append(connection)
            self.counts["paused"] += 1
            connection.pause_reading(f"strand {id(strand)}")

    def _relieved(self, strand: Strand) -> None:
        """Worker thread: the strand has come down."""
        try:
            self._post(self._release, strand)
        except LoopEnded:
            pass

    def _release(self, strand: Strand) -> None:
        for connection in self._held.pop(strand, ()):
            connection.resume_reading(f"strand {id(strand)}")
