"""What a session tells: its events, and how the engine's news become events."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from p2psip import arguments
from p2psip.core import events
from p2psip.core.session import Session
from p2psip.enums import (
    RedirectAction,
    RouteSetStatus,
    SignalingState,
)
from p2psip.errors import RealTimeException
from p2psip.message import Request, Response
from p2psip.messaging import MessageReceivedEventArgs, answer_message
from p2psip.net.loop import LoopEnded
from p2psip.offers import Negotiation, description_of
from p2psip.pending import Leave, PendingCommand, data_of, tell
from p2psip.session_events import (
    InvitationAcceptedEventArgs,
    InvitationCompletedEventArgs,
    ProvisionalResponseReceivedEventArgs,
    RedirectingEventArgs,
    ReInviteReceivedEventArgs,
    RenegotiationToRefreshNeededEventArgs,
    RequestOrResponseReceivedEventArgs,
    RouteSetStatusChangedEventArgs,
    SignalingStateChangedEventArgs,
    TerminatedByRemoteEventArgs,
)
from p2psip.session_properties import SessionProperties
from p2psip.sync import Event, Operation, has_handlers
from p2psip.values import RealTimeAddress, SipRequestData, SipResponseData

if TYPE_CHECKING:
    from p2psip.endpoint import RealTimeEndpoint
    from p2psip.referral_incoming import ReferReceivedEventArgs
    from p2psip.session import SignalingSession


class SessionBase(SessionProperties):
    """The part of a session that listens. Usable from any thread."""

    state_changed: Event[SignalingSession, SignalingStateChangedEventArgs] = Event()
    """The session is in another state."""

    message_received: Event[SignalingSession, MessageReceivedEventArgs] = Event()
    """MESSAGE, INFO or the like within the session. Answered as the endpoint's event of this name is."""

    provisional_response_received: Event[SignalingSession, ProvisionalResponseReceivedEventArgs] = Event()
    """101 to 199 to our INVITE, of any fork of the call."""

    invitation_accepted: Event[SignalingSession, InvitationAcceptedEventArgs] = Event()
    """A 2xx to our INVITE; the ACK follows."""

    invitation_completed: Event[SignalingSession, InvitationCompletedEventArgs] = Event()
    """The ACK to our 2xx has come."""

    re_invite_received: Event[SignalingSession, ReInviteReceivedEventArgs] = Event()
    """The peer wants to change the session; for information, see :attr:`offer_answer_negotiation`."""

    renegotiation_to_refresh_needed: Event[SignalingSession, RenegotiationToRefreshNeededEventArgs] = Event()
    """The session timer wants a re-INVITE."""

    redirecting: Event[SignalingSession, RedirectingEventArgs] = Event()
    """The peer sent us elsewhere. Without a handler all its targets are tried, one after the other."""

    refer_received: Event[SignalingSession, ReferReceivedEventArgs] = Event()
    """The peer asks us to call somebody (RFC 3515). Without a handler it is declined."""

    request_or_response_received: Event[SignalingSession, RequestOrResponseReceivedEventArgs] = Event()
    """Any message of the session, as it came in."""

    route_set_status_changed: Event[SignalingSession, RouteSetStatusChangedEventArgs] = Event()
    """The connection to the peer was lost, or there is one again."""

    terminated_by_remote: Event[SignalingSession, TerminatedByRemoteEventArgs] = Event()
    """BYE or CANCEL has come; ``state_changed`` follows."""

    _termination: Operation[None] | None = None

    def __init__(self, endpoint: RealTimeEndpoint, target: RealTimeAddress | None, core: Session, name: str) -> None:
        super().__init__(endpoint, target, core, name)
        self._follows_all = False
        self._negotiation = Negotiation(self)
        self._strand = self._stack.dispatcher.strand(f"session {name}", owner=self)
        # True while somebody listens.
        core.wants_messages = self.request_or_response_received  # type: ignore[assignment]

    # ------------------------------------------------------------------ what the engine tells, on the loop thread

    def _happened(self, event: Any) -> None:
        _NEWS[type(event)](self, event)

    def _is_heard(self, event: str) -> bool:
        """Somebody will hear the event of that name. Where nobody listens now, a handler that is still to run may add one
        that does."""
        return has_handlers(self, event) or not self._strand.is_idle

    def _raise(self, event: Event[Any, Any], args: Any, done: Callable[[], object] | None = None) -> None:
        """Queue an event."""
        self._strand.post(event.raise_event, self, args, self._report, done)

    def _report(self, sender: object, error: BaseException, handler: object) -> None:
        self._endpoint._manager._report_unhandled(sender, error, handler)

    def _state_changed(self, event: events.SessionStateChanged) -> None:
        self._state = event.state
        self._reason = event.reason
        if self._state is SignalingState.DISCONNECTED:
            self._endpoint._release(self)
        if self._is_heard("state_changed"):
            args = SignalingStateChangedEventArgs(event.previous, event.state, event.reason, data_of(event.message))
            self._raise(self.state_changed, args)

    def _provisional_received(self, event: events.ProvisionalReceived) -> None:
        if self._is_heard("provisional_response_received"):
            args = ProvisionalResponseReceivedEventArgs(
                SipResponseData(event.response), event.to_tag, event.is_reliable, description_of(event.content)
            )
            self._raise(self.provisional_response_received, args)
        if event.needs_answer:
            self._negotiation.offer_in_provisional(event.content)
        else:
            self._negotiation.answered(event.content)

    def _accepted(self, event: events.InvitationAccepted) -> None:
        core = self._core

        def acknowledge(pairs: Any) -> None:
            self._engine_call(core.acknowledge, None, pairs)

        listened = has_handlers(self, "invitation_accepted")
        if listened:
            args = InvitationAcceptedEventArgs(SipResponseData(event.response), event.needs_answer, acknowledge)
            self._raise(self.invitation_accepted, args, args._handlers_done)
        if event.needs_answer:
            self._negotiation.offer_in_response(event.content)
            return
        self._negotiation.answered(event.content)
        if not listened:
            core.acknowledge(self._stack.loop.now, None, ())

    def _completed(self, event: events.InvitationCompleted) -> None:
        self._negotiation.answered(event.content)
        if self._is_heard("invitation_completed"):
            self._raise(self.invitation_completed, InvitationCompletedEventArgs(SipRequestData(event.ack)))

    def _answer_received(self, event: events.AnswerReceived) -> None:
        self._negotiation.answered(event.content)

    def _offer_received(self, event: events.OfferReceived) -> None:
        request = event.transaction.request
        if request.method == "INVITE":
            args = ReInviteReceivedEventArgs(SipRequestData(request), description_of(event.content))
            self._raise(self.re_invite_received, args)
        self._negotiation.offer_received(event)

    def _offer_cancelled(self, event: events.OfferCancelled) -> None:
        self._negotiation.offer_cancelled(event)

    def _request_received(self, event: events.RequestReceived) -> None:
        transaction = event.transaction
        self._stack.pressure.deliver(
            self._strand, transaction, answer_message, self._endpoint, transaction, transaction.request, self
        )

    def _refer_received(self, event: events.ReferReceived) -> None:
        self._endpoint._arrived(event.refer)

    def _message_seen(self, event: events.MessageSeen) -> None:
        data = data_of(event.message)
        assert data is not None
        args = RequestOrResponseReceivedEventArgs(data, isinstance(event.message, Request), event.is_early)
        self._raise(self.request_or_response_received, args)

    def _terminated_by_peer(self, event: events.TerminatedByPeer) -> None:
        if self._is_heard("terminated_by_remote"):
            self._raise(self.terminated_by_remote, TerminatedByRemoteEventArgs(SipRequestData(event.request)))

    def _refresh_needed(self, event: events.RefreshNeeded) -> None:
        self._raise(self.renegotiation_to_refresh_needed, RenegotiationToRefreshNeededEventArgs())

    def _route_set_changed(self, event: events.RouteSetChanged) -> None:
        self._route_set_status = RouteSetStatus.HEALTHY if event.error is None else RouteSetStatus.RECOVERING
        self._raise(self.route_set_status_changed, RouteSetStatusChangedEventArgs(self._route_set_status, event.error))

    # ------------------------------------------------------------------ redirections

    def _redirected(self, event: events.Redirected) -> None:
        if self._follows_all or not self.redirecting:
            self._follow(event.targets, ())
        else:
            self._ask(event.response, event.targets)

    def _ask(self, response: Response, targets: Any) -> None:
        def decide(args: RedirectingEventArgs) -> None:
            try:
                pairs = arguments.headers(args.headers)
            except (ValueError, TypeError) as error:
                self._report(self, error, self.redirecting)
                self._engine_call(self._core.give_up)
            else:
                self._engine_call(self._decided, response, targets, args.action, pairs)

        args = RedirectingEventArgs(SipResponseData(response), targets, decide)
        self._raise(self.redirecting, args, args._handlers_done)

    def _decided(self, now: float, response: Response, targets: Any, action: RedirectAction, pairs: Any) -> None:
        if action is RedirectAction.TRY_NONE:
            self._core.give_up(now)
        elif action is not RedirectAction.SKIP_THIS:
            self._follows_all = action is RedirectAction.TRY_ALL
            self._follow(targets, pairs)
        elif len(targets) > 1:
            self._ask(response, targets[1:])
        else:
            self._core.give_up(now)

    def _follow(self, targets: Any, pairs: Any) -> None:
        now = self._stack.loop.now
        if targets:
            self._core.follow(now, targets[0], pairs or self._invite_headers())
        else:
            self._core.give_up(now)

    def _invite_headers(self) -> Any:
        """The headers of the INVITE besides its own."""
        raise NotImplementedError

    # ------------------------------------------------------------------ commands to the engine

    def _peer_text(self) -> str:
        return str(self._target) if self._target is not None else "the peer"

    def _engine_call(self, function: Callable[..., object], *args: Any) -> None:
        """Any thread: ``function(now, *args)`` on the loop soon. Too late is no error."""
        tell(self._stack, function, *args)

    def _begin(self, what: str, function: Callable[..., object], *args: Any, **options: Any) -> Operation[Any]:
        """Any thread: ``function(now, *args, operation)`` on the loop."""
        operation: Operation[Any] = Operation(
            what, callbacks=self._stack.dispatcher.submit, cancel=lambda operation: operation.end_cancelled()
        )
        self._stack.command(operation, function, *args, PendingCommand(operation, what, **options))
        return operation

    # ------------------------------------------------------------------ the end

    def begin_terminate(self, headers: arguments.Headers | None = None) -> Operation[None]:
        """:meth:`SignalingSession.terminate` without blocking."""
        pairs = arguments.headers(headers)
        if self._termination is not None:
            return self._termination
        operation: Operation[None] = Operation(f"end of {self._name}", callbacks=self._stack.dispatcher.submit)
        # setdefault is atomic: of two threads that come here together both get the same.
        first: Operation[None] = self.__dict__.setdefault("_termination", operation)
        if first is not operation:
            return first

        def run() -> None:
            self._core.terminate(self._stack.loop.now, pairs, Leave(lambda: operation.complete(None)))
            self._stack._run()

        try:
            self._stack.post(run)
        except LoopEnded:  # and with it the session
            operation.complete(None)
        return operation

    def _end_with_endpoint(self, now: float, done: Callable[[], object]) -> None:
        self._core.terminate(now, (), Leave(done))

    def _abandon(self, now: float, error: RealTimeException) -> None:
        self._core.abandon(now, error)


_NEWS: dict[type, Callable[[Any, Any], None]] = {
    events.SessionStateChanged: SessionBase._state_changed,
    events.ProvisionalReceived: SessionBase._provisional_received,
    events.InvitationAccepted: SessionBase._accepted,
    events.InvitationCompleted: SessionBase._completed,
    events.AnswerReceived: SessionBase._answer_received,
    events.OfferReceived: SessionBase._offer_received,
    events.OfferCancelled: SessionBase._offer_cancelled,
    events.RequestReceived: SessionBase._request_received,
    events.ReferReceived: SessionBase._refer_received,
    events.MessageSeen: SessionBase._message_seen,
    events.TerminatedByPeer: SessionBase._terminated_by_peer,
    events.RefreshNeeded: SessionBase._refresh_needed,
    events.RouteSetChanged: SessionBase._route_set_changed,
    events.Redirected: SessionBase._redirected,
}
