"""Whether and when a subscription that has ended is begun again (RFC 6665 4.1.2.2, 4.1.3)."""

from __future__ import annotations

from p2psip.core.event_headers import SubscriptionStateValue, retry_after
from p2psip.core.redirection import NO_ANSWER
from p2psip.message import Response

RETRY_DELAY = 30.0
"""Seconds after ``probation`` or ``giveup`` without Retry-After, and between subscriptions that do not last."""
LONGEST_DELAY = 900.0
"""Seconds: after an attempt that found no way the delay is twice the one before, up to this."""
AT_ONCE_AGAIN = 2
"""How often in a row a subscription that did not last is begun again without waiting."""
AT_ONCE = frozenset(("deactivated", "timeout"))
LATER = frozenset(("probation", "giveup"))
IS_GONE = frozenset((404, 405, 410, 416, *range(480, 486), 489, 501, 604))
"""Answers to a refresh that say that the subscription is no more (RFC 6665 4.1.2.2)."""
MAY_BE_BACK = frozenset((480, 500, 503))
"""Answers whose Retry-After is heeded."""
IS_OUT_OF_ORDER = frozenset((408, 500, 502, 503, 504))
"""Answers that say of the peer, or of the way there, that it may do later."""


def delay_after_end(state: SubscriptionStateValue) -> float | None:
    """Seconds until a subscription that its notifier has ended is begun again; None: never."""
    if state.reason in AT_ONCE:
        return 0.0
    if state.reason in LATER or (state.reason is None and state.retry_after is not None):
        return RETRY_DELAY if state.retry_after is None else float(state.retry_after)
    return None  # rejected, noresource, invariant, and reasons that nobody knows


def delay_after_answer(response: Response) -> float | None:
    """The same after a SUBSCRIBE that was refused."""
    seconds = retry_after(response) if response.status_code in MAY_BE_BACK else None
    return None if seconds is None else float(seconds)


class Retries:
    """The attempts of one subscription. None is made too soon where those before did not last."""

    def __init__(self) -> None:
        self._begun_at = 0.0
        self._in_a_row = 0
        self._delay = RETRY_DELAY

    def begun(self, now: float) -> None:
        """An attempt is made."""
        self._begun_at = now

    def succeeded(self) -> None:
        """It was accepted."""
        self._delay = RETRY_DELAY

    def delay(self, now: float, seconds: float) -> float:
        """How long to wait where that many seconds were asked for."""
        lasted = now - self._begun_at >= RETRY_DELAY
        self._in_a_row = 0 if lasted else self._in_a_row + 1
        return max(seconds, RETRY_DELAY) if self._in_a_row > AT_ONCE_AGAIN else seconds

    def delay_after_failure(self, response: Response | None, error: Exception | None) -> float | None:
        """How long to wait after an attempt that found no way, no answer or a peer that is out of order; None after
        other failures, which another attempt would not mend."""
        may_do_later = isinstance(error, NO_ANSWER) if response is None else response.status_code in IS_OUT_OF_ORDER
        if not may_do_later:
            return None
        seconds, self._delay = self._delay, min(2 * self._delay, LONGEST_DELAY)
        return seconds
