"""The INVITE that a peer sends, from its arrival to the ACK of our 2xx (RFC 3261 13.3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from p2psip.core.dialog import Content, Pairs, contact_uri
from p2psip.core.events import InvitationCompleted, SessionReason, SessionState, TerminatedByPeer, end_reason
from p2psip.core.uas import Refusal
from p2psip.errors import (
    OperationTimeoutException,
    RealTimeException,
    fresh,
)
from p2psip.message import Request, Response
from p2psip.timers import Timer

if TYPE_CHECKING:
    from p2psip.core.engine import Engine
    from p2psip.core.session import Session
    from p2psip.core.transaction import ServerTransaction


def examine(engine: Engine, request: Request) -> Refusal | None:
    """Why an INVITE outside of any dialog cannot begin a session."""
    if len(engine.dialogs) >= engine.settings.maximum_dialogs:
        return Refusal(503, [("Retry-After", "5")])
    if contact_uri(request) is None:
        return Refusal(400)  # RFC 3261 8.1.1.8: there would be no way back
    if request.headers.get("Replaces") is not None and request.headers.get("Join") is not None:
        return Refusal(400)  # RFC 3911 4
    return None


def named_dialog(request: Request, header: str) -> tuple[str, str | None, str | None] | None:
    """Call-ID, our tag and the peer's in Replaces or Join (RFC 3891 6.1, RFC 3911 7.1); None when it says neither."""
    value = request.headers.get(header)
    if value is None:
        return None
    call_id, *parameters = value.split(";")
    tags: dict[str, str] = {}
    for parameter in parameters:
        name, _, tag = parameter.partition("=")
        tags[name.strip().lower()] = tag.strip()
    return call_id.strip(), tags.get("to-tag"), tags.get("from-tag")


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
        self._limit = engine.timers.start(engine.now, 64 * engine.settings.t1, self._missing, missing)
        self._again: Timer | None = engine.timers.start(engine.now, self._interval, self._repeat)

    def _repeat(self) -> None:
        engine = self._session.engine
        self._transaction.respond(self._response)
        self._interval = min(2 * self._interval, engine.settings.t2)
        self._again = engine.timers.start(engine.now, self._interval, self._repeat)

    def _missing(self, missing: Callable[[], object]) -> None:
        self.stop()
        missing()

    def stop(self) -> None:
        """It has come, or nobody waits for it any more."""
        timers = self._session.engine.timers
        timers.cancel(self._limit)
        timers.cancel(self._again)


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

    def start(self, now: float) -> None:
        """How long it may ring."""
        engine = self._session.engine
        self._ring = engine.timers.start(now, engine.settings.ring_limit, self._rang_too_long)

    def _rang_too_long(self) -> None:
        self.reject(self._session.engine.now, 480, None, (), None, SessionReason.TIMEOUT)

    # ------------------------------------------------------------------ answers

    def send_provisional(
        self, now: float, code: int, reason: str | None, headers: Pairs, content: Content | None
    ) -> None:
        self._session.respond(self.transaction, code, reason, headers, content)

    def accept(self, now: float, content: Content | None, headers: Pairs, operation: Any) -> None:
        session, transaction = self._session, self.transaction
        self._stop_ring()
        self._operation = operation
        session.engine.now = now
        session.change(SessionState.CONNECTING, SessionReason.NONE, None)
        response = session.respond(transaction, 200, None, headers, content)
        self._ack = AwaitedAck(session, transaction, response, self._not_acknowledged)
        offer = Content.of(transaction.request)
        self._is_offer_ours = offer is None and content is not None
        session.remote_content, session.local_content = offer, content
        if session.dialog is not None:
            session.dialog.is_early = False

    def reject(
        self,
        now: float,
        code: int,
        reason: str | None,
        headers: Pairs,
        content: Content | None = None,
        why: SessionReason | None = None,
    ) -> None:
        self._stop_ring()
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
        if self._is_offer_ours:
            session.remote_content = content
        if session.state is SessionState.CONNECTING:
            session.tell(InvitationCompleted(ack, content if self._is_offer_ours else None))
            session.change(SessionState.CONNECTED, SessionReason.NONE, ack)
            self._complete(ack, None)
        if self._farewell is not None:
            session.hang_up(now, self._farewell, SessionReason.TERMINATED_LOCALLY)
        return True

    def _not_acknowledged(self) -> None:
        session = self._session
        self._ack = None
        error = OperationTimeoutException(
            f"The call from {session.dialog.remote if session.dialog else 'the peer'} was accepted, but no ACK came "
            f"within {64 * session.engine.settings.t1:g} s; it was ended."
        )
        session.hang_up(session.engine.now, self._farewell or (), SessionReason.TIMEOUT)
        self._complete(None, error)

    def cancelled(self, now: float) -> None:
        """487 was sent."""
        self._stop_ring()
        self._session.tell(TerminatedByPeer(self.transaction.request))
        self._session.end(now, SessionReason.CANCELED, self.transaction.request)

    def failed(self, now: float, error: RealTimeException | None) -> None:
        """Nobody answered in time (500 was sent), or the connection is lost. After a 2xx the ACK may come by another
        one; a refusal that nobody acknowledges is still one."""
        if self._session.state is not SessionState.INCOMING:
            return
        self._stop_ring()
        timed_out = isinstance(error, OperationTimeoutException)
        self._session.end(now, SessionReason.TIMEOUT if timed_out else SessionReason.UNREACHABLE, None)

    def terminate(self, now: float, headers: Pairs) -> None:
        """After our 2xx: BYE has to wait for the ACK (RFC 3261 15)."""
        self._farewell = headers
        session = self._session
        session.end(now, SessionReason.TERMINATED_LOCALLY, None)
        self._complete(None, session.ended_error())

    def peer_hung_up(self, now: float) -> None:
        """BYE before the ACK or before our answer."""
        self._stop_ring()
        if self._ack is not None:
            self._ack.stop()
            self._ack = None
            self._complete(None, self._session.ended_error())
        if not self.transaction.is_answered:
            self._session.respond(self.transaction, 487)

    def abandon(self, error: RealTimeException) -> None:
        self._stop_ring()
        if self._ack is not None:
            self._ack.stop()
            self._ack = None
        self._complete(None, fresh(error))

    def _complete(self, ack: Request | None, error: Exception | None) -> None:
        operation, self._operation = self._operation, None
        self._session.complete(operation, ack, error)

    def _stop_ring(self) -> None:
        self._session.engine.timers.cancel(self._ring)
        self._ring = None
