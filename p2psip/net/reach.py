"""What could not be reached lately: addresses that are tried last, and targets that are left alone for a moment."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from p2psip.config import ManagerSettings
from p2psip.errors import OperationFailureException, RealTimeException, fresh
from p2psip.net.loop import Loop

if TYPE_CHECKING:
    from p2psip.net.pool import Target

Remote = tuple[str, int]
"""Address and port, as they are shown."""

DEAD_TIME = 30.0
"""Seconds that an address which could not be reached is tried last (RFC 3263 4.3)."""
MAXIMUM_KEPT = 1024
FIRST_PAUSE = 0.1
"""Seconds after the second failure in a row; it doubles with each further one."""
FORGOTTEN = 60.0
"""Seconds without an attempt after which what came before does not count any more."""

KeyT = TypeVar("KeyT")
ValueT = TypeVar("ValueT")


class Failure(NamedTuple):
    """What came of the last attempt to reach a target.

    Attributes:
        error: Why it failed.
        at: When.
        times: How many have failed in a row.
        until: No other one is made before.
    """

    error: RealTimeException
    at: float
    times: int
    until: float


class Reach:
    """For the loop's thread."""

    def __init__(self, loop: Loop, settings: ManagerSettings) -> None:
        self._loop = loop
        self._settings = settings
        self._dead: dict[Remote, float] = {}
        self._failures: dict[Target, Failure] = {}

    # ------------------------------------------------------------------ addresses

    def is_dead(self, remote: Remote) -> bool:
        """It could not be reached lately."""
        return self._dead.get(remote, 0.0) > self._loop.now

    def remember_dead(self, remote: Remote) -> None:
        """It could not be reached, or did not serve."""
        now = self._loop.now
        _make_room(self._dead, lambda until: until > now)
        self._dead[remote] = now + DEAD_TIME

    # ------------------------------------------------------------------ targets

    def failed(self, target: Target, error: RealTimeException, seconds: float) -> None:
        """An attempt has failed after so many seconds.

        The first one after a success costs nothing: the peer may just be starting. From the second one on there is a
        pause, which grows up to ``settings.connect_back_off``, or to what the attempt took where that is longer: who
        does not answer at all keeps requests waiting, who refuses does not. It is drawn from its upper half, so that
        many do not come back at the same time (RFC 5626 4.5).
        """
        limit, now = self._settings.connect_back_off, self._loop.now
        if isinstance(error, OperationFailureException) or not limit:  # which says nothing of the peer
            return
        last = self._failures.get(target)
        count = 1 if last is None or now - last.until > FORGOTTEN else last.times + 1
        pause = 0.0
        if count > 1:
            pause = max(min(limit, FIRST_PAUSE * 2.0 ** min(count - 2, 32)), seconds) * random.uniform(0.5, 1.0)
        _make_room(self._failures, lambda failure: now - failure.until <= FORGOTTEN)
        self._failures[target] = Failure(error, now, count, now + pause)

    def reached(self, target: Target) -> None:
        """It answers."""
        self._failures.pop(target, None)

    def forget(self) -> None:
        """Whatever has failed may have failed for a reason that is gone."""
        self._failures.clear()

    def refusal(self, target: Target) -> RealTimeException | None:
        """Why no attempt is made now, for one more request; None where one may be made."""
        failure, now = self._failures.get(target), self._loop.now
        if failure is None or now >= failure.until:
            return None
        error = fresh(failure.error)
        error.args = (
            f"{error} That has failed {failure.times} times in a row, the last time {now - failure.at:.1f} s ago, and is "
            f"tried again in {failure.until - now:.1f} s at the earliest (see connect_back_off).",
            *error.args[1:],
        )
        return error


def _make_room(kept: dict[KeyT, ValueT], is_wanted: Callable[[ValueT], bool]) -> None:
    """For one more: what is not wanted any more goes, or all where that is not enough."""
    if len(kept) >= MAXIMUM_KEPT:
        wanted = {key: value for key, value in kept.items() if is_wanted(value)}
        kept.clear()
        if len(wanted) < MAXIMUM_KEPT:
            kept.update(wanted)
