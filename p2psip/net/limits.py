"""Who may have how much: addresses as they are counted, quotas over time, and how many connections at once."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Collection
from typing import Protocol, TypeVar

from p2psip.config import ManagerSettings

MAXIMUM_QUOTAS = 4096
"""Addresses of which a handshake rate is remembered."""
FAR_TOO_MANY = 10
"""Times ``strand_high_mark``."""
MOST = 16384
LEAST = 512
TOGETHER = 4 * MOST
"""Bytes that one connection reads in a turn at most, and at least; and all of one address, but for those last ones."""


def plain_host(host: str) -> str:
    """The address as it may be shown to others: no zone, and IPv4 as IPv4 (RFC 4291 2.5.5.2)."""
    host = host.partition("%")[0]
    if host.startswith("::") and "." in host:
        mapped = ipaddress.IPv6Address(host).ipv4_mapped
        if mapped is not None:
            return str(mapped)
    return host


def address_key(host: str) -> str:
    """What the limits per address count as one: an IPv4 address, or the /64 that one IPv6 site owns."""
    if ":" not in host:
        return host
    try:
        network = ipaddress.IPv6Network((host, 64), strict=False)
    except ValueError:
        return host
    return str(network)


class Quota:
    """``rate`` a second, and at most one second's worth at once."""

    __slots__ = ("_left", "_rate", "_size", "_when")

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._size = max(1.0, rate)
        self._left = self._size
        self._when = now

    def take(self, now: float, count: int = 1) -> bool:
        """Use some up. False, and nothing used, when there is not enough."""
        self._refill(now)
        if self._left < count:
            return False
        self._left -= count
        return True

    def owe(self, now: float, count: int) -> float:
        """Use some up in any case. How many seconds it takes until the debt is paid; 0 when there is none."""
        self._refill(now)
        self._left -= count
        return -self._left / self._rate if self._left < 0 else 0.0

    def is_full(self, now: float) -> bool:
        """Nothing of it was used lately."""
        self._refill(now)
        return self._left >= self._size

    def _refill(self, now: float) -> None:
        self._left = min(self._size, self._left + (now - self._when) * self._rate)
        self._when = now


class Share:
    """What the connections of one address read in one turn of the loop: not much more than a few of them would, so that
    whoever has many keeps the peers at other addresses waiting no longer."""

    __slots__ = ("_each", "_left", "_readers", "_turn")

    def __init__(self) -> None:
        self._turn = 0
        self._readers = 0
        self._each = MOST
        self._left = TOGETHER

    def take(self, turn: int) -> int:
        """How many bytes the next of them may read in that turn."""
        if turn != self._turn:
            readers = self._readers
            self._each = MOST if readers * MOST <= TOGETHER else max(LEAST, TOGETHER // readers)
            self._turn, self._readers, self._left = turn, 0, TOGETHER
        self._readers += 1
        part = self._each if self._each <= self._left else max(LEAST, self._left)
        self._left -= part
        return part


class Keeping(Protocol):
    """A connection, as far as it matters here."""

    share: Share
    buffered: int


_Kept = TypeVar("_Kept", bound=Keeping)


def greatest(connections: Collection[_Kept]) -> _Kept:
    """That of these which keeps most, of the address whose connections keep most: so that whoever has many, each with
    little, does not end those of others."""
    together: Counter[Share] = Counter()
    for each in connections:
        together[each.share] += each.buffered
    return max(connections, key=lambda each: (together[each.share], each.buffered))


class Queue(Protocol):
    """Where events wait."""

    @property
    def depth(self) -> int:
        """How many."""


class Admission:
    """Counts the connections that peers have opened, and says which one is too many.

    Attributes:
        events: Where those of connections wait for their handlers: when there are far too many, handlers have to come
            first, because nothing else would keep strangers from making more.
    """

    def __init__(self, settings: ManagerSettings, maximum_connections: int) -> None:
        self.events: Queue | None = None
        self._settings = settings
        self._maximum_connections = maximum_connections
        self._by_address: Counter[str] = Counter()
        self._shaking = 0
        self._shaking_by_address: Counter[str] = Counter()
        self._shares: dict[str, Share] = {}
        self._rate: Quota | None = None
        self._rates: dict[str, Quota] = {}

    def refusal(self, host: str, now: float, connections: int) -> str | None:
        """Why one more connection from there is refused; None: it is welcome. ``connections`` are those of all."""
        settings, key = self._settings, address_key(host)
        if connections >= self._maximum_connections:
            return f"maximum_connections ({self._maximum_connections})"
        if self.events is not None and self.events.depth >= FAR_TOO_MANY * settings.strand_high_mark:
            return f"strand_high_mark ({FAR_TOO_MANY} times {settings.strand_high_mark})"
        if self._shaking >= settings.maximum_handshakes:
            return f"maximum_handshakes ({settings.maximum_handshakes})"
        if host not in settings.trusted_addresses:
            if self._by_address[key] >= settings.maximum_connections_per_address:
                return f"maximum_connections_per_address ({settings.maximum_connections_per_address})"
            if self._shaking_by_address[key] >= settings.maximum_handshakes_per_address:
                return f"maximum_handshakes_per_address ({settings.maximum_handshakes_per_address})"
            rate = settings.maximum_handshakes_per_second_per_address
            if rate is not None and not self._quota_of(key, rate, now).take(now):
                return f"maximum_handshakes_per_second_per_address ({rate:g})"
        rate = settings.maximum_handshakes_per_second
        if rate is not None:
            if self._rate is None:
                self._rate = Quota(rate, now)
            if not self._rate.take(now):
                return f"maximum_handshakes_per_second ({rate:g})"
        return None

    def _quota_of(self, key: str, rate: float, now: float) -> Quota:
        quota = self._rates.get(key)
        if quota is None:
            if len(self._rates) >= MAXIMUM_QUOTAS:
                self._rates = {key: quota for key, quota in self._rates.items() if not quota.is_full(now)}
                if len(self._rates) >= MAXIMUM_QUOTAS:
                    self._rates.clear()
            quota = self._rates[key] = Quota(rate, now)
        return quota

    def begin(self, host: str) -> Share:
        """A connection was accepted; its handshake begins. Returns what it reads by, together with its like."""
        key = address_key(host)
        self._by_address[key] += 1
        self._shaking += 1
        self._shaking_by_address[key] += 1
        if host in self._settings.trusted_addresses:
            return Share()
        share = self._shares.get(key)
        if share is None:
            share = self._shares[key] = Share()
        return share

    def handshake_over(self, host: str) -> None:
        """It is done or has failed."""
        self._shaking -= 1
        _less(self._shaking_by_address, address_key(host))

    def end(self, host: str) -> None:
        """The connection is gone."""
        key = address_key(host)
        _less(self._by_address, key)
        if key not in self._by_address:
            self._shares.pop(key, None)


def _less(counter: Counter[str], key: str) -> None:
    counter[key] -= 1
    if counter[key] <= 0:
        del counter[key]
