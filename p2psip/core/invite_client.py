"""The INVITE that we send: forks, cancelling, redirections, and the ACK to its 2xx (RFC 3261 13.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from p2psip.core.dialog import Content, Dialog, Pairs
from p2psip.core.events import InvitationAccepted, ProvisionalReceived, Redirected, end_reason
from p2psip.core.invite_forks import MAXIMUM_FORKS, Forks
from p2psip.core.redirection import Redirections, is_secure, redirected_target
from p2psip.core.reliable import ReliableReceiver, rseq
from p2psip.core.usage import ClientUsage
from p2psip.enums import ExtensionFeatureSupport, SignalingState, SignalingTransitionReason
from p2psip.errors import (
    ConnectionFailureException,
    OperationFailureException,
    OperationFailureReason,
    OperationTimeoutException,
    RealTimeException,
    TlsFailureException,
    fresh,
)
from p2psip.message import Request, Response
from p2psip.timers import Timer

if TYPE_CHECKING:
    from p2psip.core.request import ClientRequest
    from p2psip.core.session import Session

MAXIMUM_ADJUSTMENTS = 3
"""Of the session interval, one for each proxy on the path that wants a longer one."""


class OutgoingInvite(ClientUsage):
    """From the first INVITE to the ACK, over all redirections; while the session lasts it answers 2xx that come again or
    late, afterwards :class:`Forks` do."""

    def __init__(self, session: Session, operation: Any) -> None:
        self._session = session
        self._operation = operation
        self._client_request: ClientRequest | None = None
        self._early: dict[str | None, Dialog] = {}
        self._winner: str | None = None
        self._is_won = False
        self._is_over = False  # given up: a 2xx that comes nevertheless is acknowledged and ended
        self._success: Response | None = None
        self._forks = Forks(session.engine, session.record, False)
        self._offer: Content | None = None
        self._limit: Timer | None = None  # the caller's time-out
        self._ring: Timer | None = None
        self._guard: Timer | None = None
        self._from = ""
        self._to = ""
        self._uri = ""
        self._headers: Pairs = ()
        self._redirections = Redirections(session.options.maximum_redirects)
        self._redirection: Response | None = None  # waits for a decision
        self._last_redirection: Response | None = None
        self._adjustments = 0
        self._target: Any = None
        self._receivers: dict[str | None, ReliableReceiver] = {}
        self._offered: tuple[Dialog, Request, Response] | None = None

    def start(
        self, now: float, uri: str, to: str, target: Any, offer: Content | None, headers: Pairs, timeout: float | None
    ) -> None:
        session = self._session
        engine = session.engine
        self._offer, self._to, self._headers, self._forks.is_secure = offer, to, headers, is_secure(uri)
        self._from = f"{session.options.local_from or f'<{session.record.owner}>;tag='}{engine.tokens.tag()}"
        if timeout is not None:
            self._limit = engine.timers.start(now, timeout, self._out_of_time, timeout)
        self._send(now, uri, target, 1)

    def _send(self, now: float, uri: str, target: Any, sequence: int) -> None:
        session = self._session
        self._uri, self._target = uri, target
        self._redirections.trying(uri)
        pairs = [
            ("Max-Forwards", "70"),
            ("From", self._from),
            ("To", self._to),
            ("Call-ID", session.call_id),
            ("CSeq", f"{sequence} INVITE"),
            ("User-Agent", session.record.endpoint.user_agent),
            *session.supported(),
            *session.timer.request_headers(),
            *self._headers,
        ]
        if session.options.reliable is ExtensionFeatureSupport.REQUIRED:
            pairs.append(("Require", "100rel"))
        offer = self._offer
        if offer is not None:
            pairs.append(("Content-Type", offer.content_type))
        session.request = Request("INVITE", uri, pairs, b"" if offer is None else offer.body)
        if session.engine.dialogs.are_enough(session.engine.settings.maximum_dialogs):
            target = OperationFailureException(
                f"INVITE to {uri} was not sent, because {session.engine.settings.maximum_dialogs} dialogs are open; "
                "end some, or raise the limit in the settings.",
                OperationFailureReason.THROTTLED,
            )
        self._client_request = session.engine.send_request(
            now, session.request, target, None, usage=self, record=session.record, bears_contact=True
        )

    # ------------------------------------------------------------------ responses

    def responded(self, now: float, client_request: ClientRequest, response: Response) -> None:
        code = response.status_code
        self._session.see(response)
        if 200 <= code < 300:
            self._succeeded(now, client_request, response)
        elif client_request is not self._client_request:
            return
        elif code >= 300:
            self._declined(now, response)
        else:
            self._rings(now, client_request, response)

    def _rings(self, now: float, client_request: ClientRequest, response: Response) -> None:
        session = self._session
        if self._is_over or self._is_won:
            return
        if self._ring is None:
            limit = session.options.ring_limit
            limit = session.engine.settings.ring_limit if limit is None else limit
            self._ring = session.engine.timers.start(now, limit, self._rang_too_long, limit)
        if response.status_code == 100:
            return
        tag = response.to_tag
        if tag is not None and tag not in self._early and len(self._early) < MAXIMUM_FORKS:
            dialog = self._early[tag] = self._forks.dialog(client_request, response)
            dialog.add(session)
            session.dialog = dialog
        session.learn(response)
        content, is_reliable = Content.of(response), False
        needs_answer = False
        if tag in self._early and rseq(response) is not None:
            receiver = self._receivers.setdefault(tag, ReliableReceiver())
            if not receiver.accepts(now, response):
                return  # again, or out of order (RFC 3262 4)
            is_reliable = True
            dialog = self._early[tag]
            needs_answer = content is not None and self._offer is None and dialog.remote_content is None
            if needs_answer:
                self._offered = (dialog, client_request.request, response)
            else:
                receiver.acknowledge(now, dialog, client_request.request, response, None)
                if content is not None and self._offer is not None:
                    dialog.agree(self._offer, content)
        session.tell(ProvisionalReceived(response, tag, is_reliable, content, needs_answer))
        session.change(SignalingState.ALERTED, SignalingTransitionReason.PROVISION_RESPONSE_RECEIVED, response)

    def answer_provisional(self, now: float, answer: Content | None) -> None:
        """The application answers the offer of a reliable provisional response."""
        offered, self._offered = self._offered, None
        if offered is None or self._is_over:
            return
        dialog, invite, response = offered
        dialog.agree(answer, Content.of(response))
        self._receivers[response.to_tag].acknowledge(now, dialog, invite, response, answer)

    def _succeeded(self, now: float, client_request: ClientRequest, response: Response) -> None:
        """The first 2xx makes the session; one of another fork is acknowledged and ended (RFC 3261 13.2.2.4)."""
        tag = response.to_tag
        if self._forks.acknowledge_again(now, tag):
            return
        if (self._is_won and tag == self._winner) or self._forks.are_enough:
            return  # again, and the application has not answered the offer yet; or a flood
        session = self._session
        if self._is_over or self._is_won:
            self._leave_early()
            waits = session if self._is_over and not self._forks.acks else None
            self._forks.end(now, client_request, response, waits)
            return
        self._is_won, self._winner, self._success = True, tag, response
        early = self._early.pop(tag, None)
        if early is not None:
            early.confirm(response)
            dialog = early
        else:
            dialog = self._forks.dialog(client_request, response)
            dialog.add(session)
        self._leave_early()
        self._stop_timers()
        session.dialog = dialog
        session.learn(response)
        content = Content.of(response)
        needs_answer = self._offer is None and content is not None and dialog.remote_content is None
        if self._offer is not None:
            dialog.agree(dialog.local_content or self._offer, content)  # UPDATE may have changed it
        self._guard = session.engine.timers.start(now, session.engine.settings.handler_limit, self._acknowledge_unasked)
        session.timer.accept_response(now, response)
        session.tell(InvitationAccepted(response, content, needs_answer))

    def acknowledge(self, now: float, answer: Content | None, headers: Pairs) -> None:
        """The application, or nobody, had something to say: the session is up."""
        session, dialog, success = self._session, self._session.dialog, self._success
        if success is None or dialog is None or self._winner in self._forks.acks or self._is_over:
            return
        self._stop_timers()
        assert session.request is not None
        self._forks.acknowledge(now, self._winner, dialog, dialog.create_ack(session.request, headers, answer))
        if self._offer is None and dialog.remote_content is None:
            dialog.agree(answer, Content.of(success))
        session.change(SignalingState.CONNECTED, SignalingTransitionReason.NONE, success)
        self._complete(success, None)

    def _acknowledge_unasked(self) -> None:
        self.acknowledge(self._session.engine.now, None, ())

    def _declined(self, now: float, response: Response) -> None:
        self._client_request = None
        self._leave_early()
        if self._is_over:
            self._session.said_farewell()
            return
        request = self._session.request
        if (
            response.status_code == 422
            and request is not None
            and self._adjustments < MAXIMUM_ADJUSTMENTS
            and self._session.timer.too_small(response)
        ):
            # RFC 4028 7.4: the same once more, with the interval that the peer wants.
            self._adjustments += 1
            self._send(now, request.uri, self._target, request.cseq.number + 1)
            return
        if self._redirections.learn(response):
            self._offer_targets(now, response)
        else:
            self._finish(now, response)

    def _offer_targets(self, now: float, response: Response) -> None:
        """Ask the user which one is next."""
        session = self._session
        self._redirection = self._last_redirection = response
        session.engine.timers.cancel(self._ring)
        self._ring = None
        session.engine.dialogs.wait(session)
        session.change(SignalingState.REDIRECTING, SignalingTransitionReason.NONE, response)
        self._guard = session.engine.timers.start(now, session.engine.settings.handler_limit, self._give_up_unasked)
        session.tell(Redirected(response, tuple(self._redirections.remaining)))

    def _finish(self, now: float, response: Response) -> None:
        self._stop_timers()
        self._is_over = True
        self._session.engine.dialogs.wait_no_more(self._session)
        self._session.end(now, end_reason(response), response)
        self._complete(response, None)

    def failed(self, now: float, client_request: ClientRequest, error: RealTimeException) -> None:
        if client_request is not self._client_request:
            return
        self._client_request = None
        self._leave_early()
        if self._is_over:
            self._session.said_farewell()
            return
        unreachable = isinstance(error, ConnectionFailureException | TlsFailureException)
        redirection = self._last_redirection
        if redirection is not None and self._redirections.survive(error):
            self._offer_targets(now, redirection)
            return
        self._stop_timers()
        self._is_over = True
        reason = SignalingTransitionReason.UNREACHABLE if unreachable else SignalingTransitionReason.TIMEOUT
        self._session.end(now, reason, None)
        self._complete(None, error)

    # ------------------------------------------------------------------ redirections (RFC 3261 8.1.3.4)

    def follow(self, now: float, uri: str, headers: Pairs) -> None:
        session = self._session
        if self._redirection is None or self._is_over:
            return
        self._redirection = None
        session.engine.dialogs.wait_no_more(session)
        self._stop_guard()
        assert session.request is not None
        target = redirected_target(session.record, uri, self._forks.is_secure)
        self._headers = headers
        session.change(SignalingState.CONNECTING, SignalingTransitionReason.NONE, None)
        self._send(now, uri, target, session.request.cseq.number + 1)

    def give_up(self, now: float) -> None:
        response, self._redirection = self._redirection, None
        if response is not None and not self._is_over:
            self._finish(now, response)

    def _give_up_unasked(self) -> None:
        self.give_up(self._session.engine.now)

    # ------------------------------------------------------------------ the end

    def terminate(self, now: float, headers: Pairs) -> None:
        """The user wants it no more, before it is up."""
        self._abort(now, headers, SignalingTransitionReason.TERMINATED_LOCALLY, None)

    def _out_of_time(self, seconds: float) -> None:
        self._limit = None
        self._abort(
            self._session.engine.now,
            (),
            SignalingTransitionReason.TIMEOUT,
            OperationTimeoutException(
                f"The call to {self._uri} was not answered within {seconds:g} s, and was taken back."
            ),
        )

    def _rang_too_long(self, seconds: float) -> None:
        self._session.engine.counts.timeouts["ring_limit"] += 1
        self._ring = None
        self._abort(
            self._session.engine.now,
            (),
            SignalingTransitionReason.TIMEOUT,
            OperationTimeoutException(
                f"{self._uri} rang for {seconds:g} s and nobody answered; the call was taken back."
            ),
        )

    def _abort(self, now: float, headers: Pairs, reason: SignalingTransitionReason, error: Exception | None) -> None:
        session = self._session
        if self._is_over:
            return
        self._stop_timers()
        if self._is_won and session.dialog is not None:  # a 2xx that is not acknowledged yet
            self.acknowledge(now, None, ())
            if session.state is SignalingState.CONNECTED:
                session.hang_up(now, headers, reason)
            return
        self._is_over = True
        session.engine.dialogs.wait_no_more(session)
        request, self._redirection = self._client_request, None
        if request is not None and session.engine.cancel_request(now, request, headers):
            session.expect_farewell()
            session.end(now, reason, None)
        else:
            self._client_request = None
            self._leave_early()  # it rang, and now another way is looked for
            session.end(now, reason, None)
            session.said_farewell()
        if error is not None:
            self._complete(None, error)
        else:
            self.overtaken()

    def peer_hung_up(self, now: float) -> None:
        """BYE before the ACK, or in an early dialog, is the end of the call all the same."""
        if self._is_over or self._winner in self._forks.acks:
            return
        self._stop_timers()
        if self._is_won:
            self.acknowledge(now, None, ())
        else:
            self._is_over = True
            request = self._client_request
            if request is None or not self._session.engine.cancel_request(now, request):
                self._leave_early()

    def overtaken(self) -> None:
        """The session has ended before the 2xx came."""
        operation, self._operation = self._operation, None
        self._session.overtake(operation)

    def abandon(self, error: RealTimeException) -> None:
        self._stop_timers()
        self._session.engine.dialogs.wait_no_more(self._session)
        self._is_over = True
        self._client_request = None
        self._leave_early()
        self._complete(None, fresh(error))

    def let_go(self) -> bool:
        """The session is left. Once the INVITE is answered, what is still to be said to the peer needs nothing of it; False
        before."""
        request = self._client_request
        if request is None:
            return True
        if not (self._is_won or self._forks.acks):
            return False
        request.usage = self._forks
        return True

    def _leave_early(self) -> None:
        """Dialogs that did not win."""
        early, self._early = self._early, {}
        self._forks.left.update(early)
        for dialog in early.values():
            dialog.remove(self._session)

    def _complete(self, response: Response | None, error: Exception | None) -> None:
        operation, self._operation = self._operation, None
        self._session.complete(operation, response, error)

    def _stop_guard(self) -> None:
        self._session.engine.timers.cancel(self._guard)
        self._guard = None

    def _stop_timers(self) -> None:
        for timer in (self._limit, self._ring, self._guard):
            if timer is not None:
                self._session.engine.timers.cancel(timer)
        self._limit = self._ring = self._guard = None
