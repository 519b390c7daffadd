"""What is being reached, and what could not be lately: addresses that are tried last, and targets that are tried again after a pause."""

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
        paused_until: No other one is made before.
        shunned_until: Requests that can go elsewhere do so.
    """

    error: RealTimeException
    at: float
    times: int
    paused_until: float
    shunned_until: float


class Reach:
    """For the loop's thread.

    Attributes:
        attempts: Sockets that are being connected.
    """

    def __init__(self, loop: Loop, settings: ManagerSettings) -> None:
        self._loop = loop
        self._settings = settings
        self.attempts = 0
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

        The next one may be made at once: the peer may just be starting. From the second failure in a row on there are
        pauses, which grow up to ``settings.connect_back_off``. They are drawn from their upper half, so that many do not
        come back at the same time (RFC 5626 4.5). Who can go elsewhere does not pay for the first one, nor, where it
        took longer than any pause, for more of its like.
        """
        limit, now = self._settings.connect_back_off, self._loop.now
        if isinstance(error, OperationFailureException) or not limit:  # which says nothing of the peer
            return
        last = self._failures.get(target)
        times = 1 if last is None or now - last.at > FORGOTTEN else last.times + 1
        share = random.uniform(0.5, 1.0)
        pause = share * min(limit, FIRST_PAUSE * 2.0 ** min(times - 2, 32))
        paused_until = now + pause if times > 1 else now
        _make_room(self._failures, lambda failure: now - failure.at <= FORGOTTEN)
        self._failures[target] = Failure(error, now, times, paused_until, now + max(pause, share * seconds))

    def reached(self, target: Target) -> None:
        """It answers."""
        self._failures.pop(target, None)

    def forget(self) -> None:
        """Whatever has failed may have failed for a reason that is gone."""
        self._failures.clear()

    def pause(self, target: Target) -> float:
        """Seconds until the next attempt may be made."""
        failure = self._failures.get(target)
        return 0.0 if failure is None else max(0.0, failure.paused_until - self._loop.now)

    def refusal(self, target: Target) -> RealTimeException | None:
        """Why a request that can go elsewhere does so; None where it may come here."""
        failure, now = self._failures.get(target), self._loop.now
        if failure is None or now >= failure.shunned_until:
            return None
        error = fresh(failure.error)
        error.args = (f"{error} That was {now - failure.at:.1f} s ago.", *error.args[1:])
        return error


def _make_room(kept: dict[KeyT, ValueT], is_wanted: Callable[[ValueT], bool]) -> None:
    """For one more: what is not wanted any more goes, or all where that is not enough."""
    if len(kept) >= MAXIMUM_KEPT:
        wanted = {key: value for key, value in kept.items() if is_wanted(value)}
        kept.clear()
        if len(wanted) < MAXIMUM_KEPT:
            kept.update(wanted)
