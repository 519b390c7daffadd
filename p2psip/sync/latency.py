"""How long handlers take: a histogram that one thread writes and any thread may read."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import NamedTuple

BOUNDS = (0.001, 0.01, 0.1, 1.0, 10.0)
"""Seconds; the upper ends of the buckets. What took longer is in one more."""


class LatencyFigures(NamedTuple):
    """What a histogram says.

    Attributes:
        buckets: How many took up to so many seconds and longer than the bound before: one for each of ``BOUNDS``, and one for the rest.
        total: Seconds, all together.
        longest: Seconds.
    """

    buckets: tuple[int, ...]
    total: float
    longest: float


class Latency:
    """The histogram of one worker."""

    __slots__ = ("buckets", "longest", "total")

    def __init__(self) -> None:
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.total = 0.0
        self.longest = 0.0

    def add(self, seconds: float) -> None:
        """One more. For each event, so the usual case comes first."""
        self.buckets[0 if seconds <= BOUNDS[0] else bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds
        if seconds > self.longest:
            self.longest = seconds

    def join(self, other: Latency) -> None:
        """Take over what another one has counted."""
        self.buckets = [mine + its for mine, its in zip(self.buckets, other.buckets, strict=True)]
        self.total += other.total
        self.longest = max(self.longest, other.longest)


def together(latencies: Iterable[Latency]) -> LatencyFigures:
    """The sum of them all."""
    result = Latency()
    for each in latencies:
        result.join(each)
    return LatencyFigures(tuple(result.buckets), result.total, result.longest)
