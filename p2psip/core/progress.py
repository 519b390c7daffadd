"""What is said of a peer's INVITE before its final response: as long as it takes, and so that it arrives."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from p2psip.core.dialog import Content, Pairs
from p2psip.core.reliable import ReliableSender
from p2psip.errors import OperationTimeoutException
from p2psip.timers import Timer

if TYPE_CHECKING:
    from p2psip.core.session import Session
    from p2psip.core.transaction import ServerTransaction

RING_AGAIN = 60.0
"""Seconds between two provisional responses (RFC 3261 13.3.1.1)."""
RING_AGAIN_RELIABLY = 150.0
"""The same where none of them gets lost (RFC 3262 3)."""


class Progress:
    """The provisional responses to one INVITE."""

    def __init__(self, session: Session, transaction: ServerTransaction) -> None:
        self.transaction = transaction
        self._session = session
        self._reliable: ReliableSender | None = None
        self._again: Timer | None = None

    @property
    def holds_back(self) -> bool:
        """A 2xx has to wait for a PRACK."""
        return self._reliable is not None and self._reliable.holds_back

    def send(
        self,
        code: int,
        reason: str | None,
        headers: Pairs,
        content: Content | None,
        operation: Any,
        give_up: Callable[[float, OperationTimeoutException], object] | None,
    ) -> None:
        """Send it; the operation ends with the PRACK, or at once where it is not reliable.

        Args:
            give_up: Told when it is not acknowledged: the time and why. None: it is not sent reliably.
        """
        session = self._session
        if give_up is not None:
            if self._reliable is None:
                self._reliable = ReliableSender(session, self.transaction, give_up)
            self._send_reliably(code, reason, headers, content, operation)
            self._go_on(RING_AGAIN_RELIABLY, self._send_reliably, code, reason, headers)
            return
        response = session.respond(self.transaction, code, reason, headers, content)
        if code > 100:
            self._go_on(RING_AGAIN, self.transaction.respond, response)
        session.complete(operation, None, None)

    def _send_reliably(
        self, code: int, reason: str | None, headers: Pairs, content: Content | None = None, operation: Any = None
    ) -> None:
        assert self._reliable is not None
        self._reliable.send(self._session.engine.now, code, reason, headers, content, operation)

    def _go_on(self, seconds: float, say: Callable[..., object], *what: Any) -> None:
        """Say it again from time to time: proxies wait for no more than three minutes."""
        self.fall_silent()
        engine = self._session.engine
        self._again = engine.timers.start(engine.now, seconds, self._say_again, seconds, say, what)

    def _say_again(self, seconds: float, say: Callable[..., object], what: Any) -> None:
        say(*what)
        self._go_on(seconds, say, *what)

    def expects(self, prack: ServerTransaction) -> bool:
        """The PRACK is for the last of them."""
        return self._reliable is not None and self._reliable.acknowledges(prack.request)

    def received_prack(self, now: float, prack: ServerTransaction) -> None:
        """Answer it."""
        if self._reliable is None:
            self._session.respond(prack, 481)
        else:
            self._reliable.received_prack(now, prack)

    def fall_silent(self) -> None:
        """It is decided: what was said is not said again. A PRACK may be waited for still."""
        if self._again is not None:
            self._session.engine.timers.cancel(self._again)
            self._again = None

    def stop(self) -> None:
        """The final response is there, or the end."""
        self.fall_silent()
        if self._reliable is not None:
            self._reliable.stop()
