"""Changing a session that is up: re-INVITE and UPDATE, both ways (RFC 3261 14, RFC 3311)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from p2psip.core.dialog import Content, Dialog, Pairs
from p2psip.core.events import AnswerReceived, OfferCancelled, OfferReceived
from p2psip.core.invite_forks import Acknowledged
from p2psip.core.invite_server import AwaitedAck
from p2psip.core.progress import Progress
from p2psip.core.reliable import ReliableReceiver, option_tags, rseq
from p2psip.core.session_errors import taken_back
from p2psip.core.usage import ClientUsage
from p2psip.enums import SignalingState, SignalingTransitionReason
from p2psip.errors import (
    OperationFailureException,
    OperationFailureReason,
    OperationTimeoutException,
    RealTimeException,
)
from p2psip.message import Request, Response
from p2psip.timers import Timer

if TYPE_CHECKING:
    from p2psip.core.request import ClientRequest
    from p2psip.core.session import Session
    from p2psip.core.transaction import ServerTransaction

MAXIMUM_TRIES = 5
"""Of one re-INVITE against a peer that always has one of its own under way."""


class Renegotiation(ClientUsage):
    """At most one offer is under way at a time, ours or the peer's."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._operation: Any = None
        self._offer: Content | None = None
        self._headers: Pairs = ()
        self._tries = 0
        self._client_request: ClientRequest | None = None
        self._dialog: Dialog | None = None  # of ours: while there are several early ones, others may come
        self._retry: Timer | None = None
        self._limit: Timer | None = None  # a re-INVITE must not ring for ever either
        self._is_too_late = False
        self._receiver = ReliableReceiver()
        self._early_answer: Content | None = None
        self._theirs: ServerTransaction | None = None  # not answered yet
        self._progress: Progress | None = None  # said of it, or of the one before
        self._patience: Timer | None = None
        self._awaited: AwaitedAck | None = None
        self._accepted: tuple[Any, bool] = (None, False)  # the operation that waits for the ACK; we made the offer

    @property
    def is_busy(self) -> bool:
        """An offer is under way, ours or the peer's."""
        return self._is_ours_pending or self._theirs is not None or self._awaited is not None

    @property
    def is_possible_early(self) -> bool:
        """UPDATE with an offer may be sent before the call is answered: the first offer has its answer, which both
        sides know of, because it came in a reliable provisional response (RFC 3311 5.1)."""
        session = self._session
        early = session.state in (SignalingState.ALERTED, SignalingState.INCOMING)
        is_agreed = session.local_content is not None and session.remote_content is not None
        return early and is_agreed and "UPDATE" in session.peer_allow

    @property
    def _is_ours_pending(self) -> bool:
        return self._client_request is not None or self._retry is not None

    # ------------------------------------------------------------------ ours

    def begin(self, now: float, offer: Content, headers: Pairs, operation: Any) -> None:
        if self._is_ours_pending or self._theirs is not None:
            self._session.complete(
                operation,
                None,
                OperationFailureException(
                    f"The session {self._session.call_id} is being renegotiated already: wait for the end of that, and "
                    "try again.",
                    OperationFailureReason.INVALID_SESSION_STATE,
                ),
            )
            return
        self._operation, self._offer, self._headers, self._tries = operation, offer, headers, 0
        if self._awaited is None:
            self._send(now)
        else:  # the ACK to the peer's is on its way, of which the application cannot know
            engine = self._session.engine
            self._retry = engine.timers.start(now, 64 * engine.settings.t1, self._send_again)

    def _send(self, now: float) -> None:
        session = self._session
        dialog, offer = session.dialog, self._offer
        assert dialog is not None
        self._retry = None
        self._receiver, self._early_answer, self._is_too_late = ReliableReceiver(), None, False
        self._tries += 1
        method = "INVITE" if session.state is SignalingState.CONNECTED else "UPDATE"
        request = dialog.create_request(
            method, [*session.supported(), *session.timer.request_headers(), *self._headers], offer
        )
        self._dialog = dialog
        self._client_request = dialog.send(now, request, self)

    def _send_again(self) -> None:
        session = self._session
        if self._theirs is not None or self._awaited is not None:  # the peer's has come first
            self._retry = session.engine.timers.start(session.engine.now, self._wait(), self._send_again)
        else:
            self._send(session.engine.now)

    def responded(self, now: float, client_request: ClientRequest, response: Response) -> None:
        session, dialog, code = self._session, self._dialog, response.status_code
        session.see(response)
        if code < 200:
            if client_request is self._client_request and client_request.request.method == "INVITE":
                self._progressed(now, client_request.request, response)
            return
        session.way_found(client_request.flow)
        if code < 300 and dialog is not None:
            dialog.refresh_target(response)
            if client_request.request.method == "INVITE":
                ack = dialog.create_ack(client_request.request)
                dialog.send_ack(now, ack)
                client_request.usage = Acknowledged(dialog, ack)
            session.learn(response)
            if session.state is SignalingState.CONNECTED:
                session.timer.accept_response(now, response)
        if client_request is not self._client_request:
            return
        self._settle()
        if code == 422 and self._tries < MAXIMUM_TRIES and session.timer.too_small(response):
            self._send(now)
            return
        if code == 491 and self._tries < MAXIMUM_TRIES and session.state is SignalingState.CONNECTED:
            self._retry = session.engine.timers.start(now, self._wait(), self._send_again)
            return
        if code < 300 and dialog is not None:
            dialog.agree(self._offer, Content.of(response) or self._early_answer)
        operation, self._operation = self._operation, None
        session.failed_by(now, response)
        if code == 487 and self._is_too_late:
            session.complete(operation, None, self._took_too_long())
        else:
            session.complete(operation, response, None)

    def _progressed(self, now: float, invite: Request, response: Response) -> None:
        """A provisional response: from here on no transaction timer runs."""
        session = self._session
        if self._limit is None:
            limit = session.engine.settings.ring_limit
            self._limit = session.engine.timers.start(now, limit, self._out_of_time)
        if self._dialog is not None and rseq(response) is not None and self._receiver.accepts(now, response):
            self._early_answer = self._early_answer or Content.of(response)
            self._receiver.acknowledge(now, self._dialog, invite, response, None)

    def _out_of_time(self) -> None:
        """Nobody answers it: take it back. The session stays as it was, unless the peer does not answer that either."""
        self._limit, self._is_too_late = None, True
        if self._client_request is not None:
            self._session.engine.cancel_request(self._session.engine.now, self._client_request)

    def _took_too_long(self) -> OperationTimeoutException:
        session = self._session
        return OperationTimeoutException(
            f"The change of the session {session.call_id} was not answered within "
            f"{session.engine.settings.ring_limit:g} s, and was taken back."
        )

    def _settle(self) -> None:
        """Nothing of ours is under way any more."""
        self._client_request = None
        self._session.engine.timers.cancel(self._limit)
        self._limit = None

    def _wait(self) -> float:
        """RFC 3261 14.1: whoever chose the Call-ID waits longer; in steps of 10 ms."""
        fraction = self._session.engine.tokens.fraction()
        seconds = 2.0 * fraction if self._session.is_incoming else 2.1 + 1.9 * fraction
        return round(seconds, 2)

    def failed(self, now: float, client_request: ClientRequest, error: RealTimeException) -> None:
        if client_request is not self._client_request:
            return
        self._settle()
        operation, self._operation = self._operation, None
        self._session.unanswered(now, client_request, error)
        self._session.complete(operation, None, error)

    def cancel(self, now: float, headers: Pairs) -> bool:
        """Take ours back; its operation ends with 487, or with the 2xx that was faster."""
        if self._retry is not None:
            self._session.engine.timers.cancel(self._retry)
            self._retry = None
            return self._forgotten()
        if self._client_request is None:
            return False
        return self._session.engine.cancel_request(now, self._client_request, headers) or self._forgotten()

    def _forgotten(self) -> bool:
        self._settle()
        self._complete(None, taken_back(self._session))
        return True

    # ------------------------------------------------------------------ the peer's

    def received(self, now: float, transaction: ServerTransaction) -> None:
        session, request = self._session, transaction.request
        session.learn(request)
        content = Content.of(request)
        dialog, is_update = session.dialog_of(request), request.method == "UPDATE"
        is_agreed = dialog is not None and None not in (dialog.local_content, dialog.remote_content)
        if session.state is not SignalingState.CONNECTED and (not is_update or (content is not None and not is_agreed)):
            # Our 2xx, or our first INVITE, has no ACK yet; or the first offer has no answer (RFC 3311 5.2).
            session.respond(transaction, 491 if not session.is_incoming else 500, headers=[("Retry-After", "1")])
        elif (too_small := session.timer.refusal(request)) is not None:
            session.respond(transaction, 422, headers=too_small)
        elif is_update and content is None:
            self._refresh(transaction)
            session.respond(transaction, 200)
        else:
            self.offered(transaction, content)

    def offered(self, transaction: ServerTransaction, content: Content | None) -> None:
        """The peer's offer, in an INVITE, an UPDATE or a PRACK, or an INVITE that asks for one of ours."""
        session = self._session
        if self._client_request is not None:
            session.respond(transaction, 491)
        elif self._theirs is not None or (self._awaited is not None and self._accepted[1]):
            session.respond(transaction, 500, headers=[("Retry-After", "1")])  # RFC 3261 14.2, RFC 3311 5.2
        else:
            if self._awaited is not None:  # who goes on has our 2xx, whatever has become of the ACK
                self._settled(None)
            self._theirs = transaction
            session.tell(OfferReceived(transaction, content))

    def _refresh(self, transaction: ServerTransaction) -> None:
        dialog = self._session.dialog_of(transaction.request)
        if dialog is not None:
            dialog.refresh_target(transaction.request)

    def accept(
        self, now: float, transaction: ServerTransaction, content: Content | None, headers: Pairs, operation: Any
    ) -> None:
        session = self._session
        if transaction is not self._theirs:
            session.refuse(operation, "changed, because the offer was taken back or answered before")
            return
        session.engine.now = now
        self._decided()
        if transaction.request.method != "PRACK":
            self._refresh(transaction)
        response = session.respond(transaction, 200, None, headers, content)
        offer, dialog = Content.of(transaction.request), session.dialog_of(transaction.request)
        if dialog is not None:
            dialog.agree(content, offer)
        if transaction.request.method == "INVITE":
            self._accepted = (operation, offer is None)
            self._awaited = AwaitedAck(session, transaction, response, self._not_acknowledged)
        else:
            session.complete(operation, None, None)

    def _decided(self) -> None:
        """Nothing of the peer's waits for an answer any more."""
        self._theirs = None
        self._session.engine.timers.cancel(self._patience)
        self._patience = None
        if self._progress is not None:
            self._progress.stop()

    def send_progress(
        self,
        now: float,
        transaction: ServerTransaction,
        code: int,
        reason: str | None,
        headers: Pairs,
        operation: Any,
    ) -> None:
        session = self._session
        if transaction is not self._theirs or transaction.request.method != "INVITE":
            session.refuse(operation, f"answered {code} for the time being")
            return
        session.engine.now = now
        engine, progress = session.engine, self._progress
        if progress is None or progress.transaction is not transaction:
            progress = self._progress = Progress(session, transaction)
            self._patience = engine.timers.start(now, engine.settings.ring_limit, self._undecided, 480)
        is_reliable = "100rel" in option_tags(transaction.request, "Require")
        progress.send(code, reason, headers, None, operation, self._not_heard if is_reliable else None)

    def _not_heard(self, now: float, error: OperationTimeoutException) -> None:
        self._undecided(504)

    def _undecided(self, code: int) -> None:
        """It took too long, or the PRACK has not come."""
        transaction, now = self._theirs, self._session.engine.now
        if transaction is not None:
            self.cancelled(now, transaction)
            self._session.respond(transaction, code)

    def received_prack(self, now: float, transaction: ServerTransaction) -> bool:
        """True when it was for what was said of the peer's re-INVITE."""
        progress = self._progress
        if progress is None or not progress.expects(transaction):
            return False
        progress.received_prack(now, transaction)
        return True

    def decline(
        self,
        now: float,
        transaction: ServerTransaction,
        code: int,
        reason: str | None,
        headers: Pairs,
        content: Content | None,
    ) -> None:
        if transaction is self._theirs:
            self._session.engine.now = now
            self._decided()
            self._session.respond(transaction, code, reason, headers, content)

    def acknowledged(self, now: float, flow: Any, ack: Request) -> None:
        awaited = self._awaited
        if awaited is None or ack.cseq.number != awaited.sequence:
            return
        content = Content.of(ack)
        if self._accepted[1] and content is not None and self._session.dialog is not None:
            self._session.dialog.agree(None, content)
            self._session.tell(AnswerReceived(ack, content))
        self._settled(ack)
        if self._retry is not None and not self._tries:  # one of ours has waited for this
            self._session.engine.timers.cancel(self._retry)
            self._send(now)

    def _settled(self, ack: Request | None) -> None:
        """Our 2xx has arrived."""
        if self._awaited is not None:
            self._awaited.stop()
            self._awaited = None
        (operation, _), self._accepted = self._accepted, (None, False)
        self._session.complete(operation, ack, None)

    def _not_acknowledged(self) -> None:
        session = self._session
        self._awaited = None
        (operation, _), self._accepted = self._accepted, (None, False)
        if session.state is SignalingState.CONNECTED:
            session.hang_up(session.engine.now, (), SignalingTransitionReason.TIMEOUT)
        session.complete(
            operation,
            None,
            OperationTimeoutException(
                f"The change of the session {session.call_id} was accepted, but no ACK came within "
                f"{64 * session.engine.settings.t1:g} s; the session was ended."
            ),
        )

    def cancelled(self, now: float, transaction: ServerTransaction) -> None:
        if transaction is self._theirs:
            self._decided()
            self._session.tell(OfferCancelled(transaction))

    def transaction_failed(
        self, now: float, transaction: ServerTransaction, error: RealTimeException | None = None
    ) -> None:
        """Lost, or answered 500 because nobody did."""
        self.cancelled(now, transaction)

    # ------------------------------------------------------------------ the end

    def end(self, now: float) -> None:
        """The session is over."""
        session = self._session
        session.engine.timers.cancel(self._retry)
        self._retry = None
        if self._awaited is not None:
            self._awaited.stop()
            self._awaited = None
        (operation, _), self._accepted = self._accepted, (None, False)
        session.overtake(operation)
        theirs = self._theirs
        self._decided()
        if theirs is not None and not theirs.is_answered:
            session.respond(theirs, 487)
        request = self._client_request
        self._settle()
        if request is not None:
            session.engine.cancel_request(now, request)
        operation, self._operation = self._operation, None
        session.overtake(operation)

    def _complete(self, response: Response | None, error: Exception | None) -> None:
        operation, self._operation = self._operation, None
        self._session.complete(operation, response, error)
