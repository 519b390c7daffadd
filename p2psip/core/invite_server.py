"""The INVITE that a peer sends, from its arrival to the ACK of our 2xx (RFC 3261 13.3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from p2psip.core.dialog import Content, Pairs
from p2psip.core.events import InvitationCompleted, TerminatedByPeer, end_reason
from p2psip.core.progress import Progress
from p2psip.core.reliable import option_tags
from p2psip.enums import ExtensionFeatureSupport, SignalingState, SignalingTransitionReason
from p2psip.errors import (
    OperationTimeoutException,
    RealTimeException,
    fresh,
)
from p2psip.message import Request, Response
from p2psip.timers import Timer

if TYPE_CHECKING:
    from p2psip.core.session import Session
    from p2psip.core.transaction import ServerTransaction


class AwaitedAck:
    """A 2xx that is sent again until its ACK comes: no transport keeps it from being lost behind a proxy
    (RFC 3261 13.3.1.4)."""

    def __init__(
        self,
        session: Session,
        transaction: ServerTransaction,
        response: Response,
        missing: Callable[[], object],
    ) -> None:
        engine = session.engine
        self.sequence = transaction.request.cseq.number
        self._session = session
        self._transaction = transaction
        self._response = response
        self._interval = engine.settings.t1
        self._over_at = engine.now + 64 * engine.settings.t1
        self._missing = missing
        self._timer: Timer
        self._wait(engine.now)

    def _wait(self, now: float) -> None:
        left, timers = self._over_at - now, self._session.engine.timers
        if left <= self._interval:
            self._timer = timers.start(now, left, self._give_up)
        else:
            self._timer = timers.start(now, self._interval, self._repeat)

    def _repeat(self) -> None:
        engine = self._session.engine
        engine.counts.retransmitted += 1
        self._transaction.respond(self._response)
        self._interval = min(2 * self._interval, engine.settings.t2)
        self._wait(engine.now)

    def _give_up(self) -> None:
        self._session.engine.counts.timeouts["acknowledgement"] += 1
        self._missing()

    def stop(self) -> None:
        """It has come, or nobody waits for it any more; nor for copies of it."""
        self._session.engine.timers.cancel(self._timer)
        self._transaction.usage = None


class IncomingInvite:
    """The peer's INVITE, and what we answer to it."""

    def __init__(self, session: Session, transaction: ServerTransaction) -> None:
        self.transaction = transaction
        self._session = session
        self._operation: Any = None
        self._ack: AwaitedAck | None = None
        self._ring: Timer | None = None
        self._farewell: Pairs | None = None  # terminate() came before the ACK: BYE has to wait for it
        self._is_offer_ours = False
        self._progress = Progress(session, transaction)
        self._held_back: tuple[Content | None, Pairs] | None = None

    @property
    def waits_to_hang_up(self) -> bool:
        """terminate() came before the ACK, and the ACK has not come yet."""
        return self._farewell is not None and self._ack is not None

    def start(self, now: float) -> None:
        """How long it may ring: as long as the settings say, and the caller (RFC 3261 13.3.1)."""
        engine = self._session.engine
        limit, code = engine.settings.ring_limit, 480
        expires = self.transaction.request.headers.get("Expires")
        is_said = expires is not None and expires.isascii() and expires.isdigit() and len(expires) <= 9
        if expires is not None and is_said and 0 < int(expires) < limit:
            limit, code = float(expires), 487
        self._ring = engine.timers.start(now, limit, self._rang_too_long, code)

    def _rang_too_long(self, code: int) -> None:
        self._session.engine.counts.timeouts["ring_limit"] += 1
        self.reject(self._session.engine.now, code, None, (), None, SignalingTransitionReason.TIMEOUT)

    def _is_refused(self, now: float) -> bool:
        """It requires reliable provisional responses, which the application has switched off since it came."""
        options = self._session.options
        if options.reliable is not ExtensionFeatureSupport.UNSUPPORTED:
            return False
        if "100rel" not in option_tags(self.transaction.request, "Require"):
            return False
        self.reject(now, 420, None, [("Unsupported", "100rel")])
        return True

    # ------------------------------------------------------------------ answers

    def send_provisional(
        self,
        now: float,
        code: int,
        reason: str | None,
        headers: Pairs,
        content: Content | None,
        reliable: bool,
        operation: Any,
    ) -> None:
        """Reliably where the peer demands it, or where it can and we want to (RFC 3262 3)."""
        session, request = self._session, self.transaction.request
        session.engine.now = now
        if self._is_refused(now):
            session.refuse(operation, f"answered {code}")
            return
        can = "100rel" in option_tags(request, "Supported") and (
            session.options.reliable is not ExtensionFeatureSupport.UNSUPPORTED
        )
        must = "100rel" in option_tags(request, "Require") or (
            can and session.options.reliable is ExtensionFeatureSupport.REQUIRED
        )
        is_reliable = code > 100 and (must or (reliable and can))
        self._progress.send(code, reason, headers, content, operation, self.give_up if is_reliable else None)

    def received_prack(self, now: float, transaction: ServerTransaction) -> None:
        """A 2xx may have waited for it."""
        self._progress.received_prack(now, transaction)
        accept, self._held_back = self._held_back, None
        if accept is not None and self._session.state is SignalingState.CONNECTING:
            self._answer(now, *accept)

    def accept(self, now: float, content: Content | None, headers: Pairs, operation: Any) -> None:
        session, request = self._session, self.transaction.request
        session.engine.now = now
        if self._is_refused(now):
            session.refuse(operation, "accepted")
            return
        if session.options.reliable is ExtensionFeatureSupport.REQUIRED and "100rel" not in option_tags(
            request, "Supported"
        ) | option_tags(request, "Require"):
            session.refuse(operation, "accepted, because the peer does not know 100rel, which is required here")
            self.reject(now, 421, None, [("Require", "100rel")])
            return
        self._stop_ring()
        self._operation = operation
        session.change(SignalingState.CONNECTING, SignalingTransitionReason.NONE, None)
        if self._progress.holds_back:
            self._held_back = (content, headers)
        else:
            self._answer(now, content, headers)

    def _answer(self, now: float, content: Content | None, headers: Pairs) -> None:
        """The 200."""
        session, transaction = self._session, self.transaction
        self._progress.stop()
        response = session.respond(transaction, 200, None, headers, content)
        self._ack = AwaitedAck(session, transaction, response, self._not_acknowledged)
        offer, dialog = Content.of(transaction.request), session.dialog
        # An early answer may have settled it, and UPDATE may have changed it since.
        self._is_offer_ours = offer is None and content is not None and session.remote_content is None
        if dialog is not None:
            dialog.agree(content, dialog.remote_content or offer)
            dialog.is_early = False

    def reject(
        self,
        now: float,
        code: int,
        reason: str | None,
        headers: Pairs,
        content: Content | None = None,
        why: SignalingTransitionReason | None = None,
    ) -> None:
        self._stop_ring()
        self._progress.stop()
        response = self._session.respond(self.transaction, code, reason, headers, content)
        self._session.end(now, why if why is not None else end_reason(response), response)

    # ------------------------------------------------------------------ what comes of it

    def acknowledged(self, now: float, ack: Request) -> bool:
        """True when it was for this INVITE."""
        if ack.cseq.number != self.transaction.request.cseq.number:
            return False
        if self._ack is None:
            return True  # again
        self._ack.stop()
        self._ack = None
        session = self._session
        content = Content.of(ack)
        if self._is_offer_ours and session.dialog is not None:
            session.dialog.agree(None, content)
        if session.state is SignalingState.CONNECTING:
            session.tell(InvitationCompleted(ack, content if self._is_offer_ours else None))
            session.change(SignalingState.CONNECTED, SignalingTransitionReason.NONE, ack)
            self._complete(ack, None)
        if self._farewell is not None:
            session.hang_up(now, self._farewell, SignalingTransitionReason.TERMINATED_LOCALLY)
        return True

    def _not_acknowledged(self) -> None:
        session = self._session
        self._ack = None
        error = OperationTimeoutException(
            f"The call from {session.dialog.remote if session.dialog else 'the peer'} was accepted, but no ACK came "
            f"within {64 * session.engine.settings.t1:g} s; it was ended."
        )
        session.hang_up(session.engine.now, self._farewell or (), SignalingTransitionReason.TIMEOUT)
        self._complete(None, error)

    def cancelled(self, now: float) -> None:
        """487 was sent."""
        self._stop_ring()
        self._progress.stop()
        self._held_back = None
        self._session.tell(TerminatedByPeer(self.transaction.request))
        self._session.end(now, SignalingTransitionReason.CANCELED, self.transaction.request)
        self.overtaken()

    def failed(self, now: float, error: RealTimeException | None) -> None:
        """Nobody answered in time (500 was sent), or the connection is lost. After a 2xx the ACK may come by another
        one; a refusal that nobody acknowledges is still one."""
        if self._session.state is not SignalingState.INCOMING and self._held_back is None:
            return
        self._stop_ring()
        self._progress.stop()
        self._held_back = None
        timed_out = isinstance(error, OperationTimeoutException)
        self._session.end(
            now, SignalingTransitionReason.TIMEOUT if timed_out else SignalingTransitionReason.UNREACHABLE, None
        )
        self.overtaken()

    def give_up(self, now: float, error: RealTimeException) -> None:
        """A PRACK did not come; a 2xx may have waited for it (RFC 3262 3)."""
        self._held_back = None
        self.reject(now, 504, None, (), None, SignalingTransitionReason.TIMEOUT)
        self._complete(None, fresh(error))

    def terminate(self, now: float, headers: Pairs) -> None:
        """After our 2xx: BYE has to wait for the ACK (RFC 3261 15)."""
        if self._held_back is not None:
            self._held_back = None
            self.reject(now, 603, None, headers, None, SignalingTransitionReason.TERMINATED_LOCALLY)
            self.overtaken()
            self._session.said_farewell()
            return
        self._farewell = headers
        self._session.end(now, SignalingTransitionReason.TERMINATED_LOCALLY, None)
        self.overtaken()

    def peer_hung_up(self, now: float) -> None:
        """BYE before the ACK or before our answer."""
        self._stop_ring()
        self._progress.stop()
        self._held_back = None
        if self._ack is not None:
            self._ack.stop()
            self._ack = None
        if not self.transaction.is_answered:
            self._session.respond(self.transaction, 487)

    def overtaken(self) -> None:
        """The session has ended before the ACK came."""
        operation, self._operation = self._operation, None
        self._session.overtake(operation)

    def let_go(self) -> None:
        """The session is left: whatever its transaction still waits for, nobody is to be told of."""
        self.transaction.usage = None

    def abandon(self, error: RealTimeException) -> None:
        self._stop_ring()
        self._progress.stop()
        if self._ack is not None:
            self._ack.stop()
            self._ack = None
        self._complete(None, fresh(error))

    def _complete(self, ack: Request | None, error: Exception | None) -> None:
        operation, self._operation = self._operation, None
        self._session.complete(operation, ack, error)

    def _stop_ring(self) -> None:
        if self._ring is not None:
            self._session.engine.timers.cancel(self._ring)
            self._ring = None
        self._progress.fall_silent()
