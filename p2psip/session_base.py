"""What a session is and what it tells: its properties, its events, and how the engine's news become events."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from p2psip import arguments
from p2psip.connections import RealTimeConnection
from p2psip.core import events
from p2psip.core.dialog import Content
from p2psip.core.session import Session
from p2psip.core.transaction import ServerTransaction
from p2psip.enums import (
    ExtensionFeatureSupport,
    RedirectAction,
    RouteSetStatus,
    SignalingState,
    SignalingTransitionReason,
)
from p2psip.errors import MessageParsingException, RealTimeException, RealTimeInvalidOperationException
from p2psip.message import NameAddr, Request, Response
from p2psip.messaging import MessageReceivedEventArgs, answer_message
from p2psip.net.loop import LoopEnded
from p2psip.offers import IOfferAnswer, Negotiation, description_of
from p2psip.pending import Leave, PendingCommand, data_of
from p2psip.session_events import (
    InvitationAcceptedEventArgs,
    InvitationCompletedEventArgs,
    ProvisionalResponseReceivedEventArgs,
    RedirectingEventArgs,
    ReInviteReceivedEventArgs,
    RenegotiationToRefreshNeededEventArgs,
    RequestOrResponseReceivedEventArgs,
    RouteSetStatusChangedEventArgs,
    SignalingParticipant,
    SignalingStateChangedEventArgs,
    TerminatedByRemoteEventArgs,
)
from p2psip.sync import Event, Operation
from p2psip.values import ContentDescription, RealTimeAddress, SipRequestData, SipResponseData

if TYPE_CHECKING:
    from p2psip.endpoint import RealTimeEndpoint
    from p2psip.referral_incoming import ReferReceivedEventArgs
    from p2psip.session import SignalingSession


class SessionBase:
    """The part of a session that looks and listens. Usable from any thread."""

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

    def __init__(self, endpoint: RealTimeEndpoint, target: RealTimeAddress | None, core: Session, name: str) -> None:
        self._endpoint = endpoint
        self._stack = endpoint._stack
        self._target = target
        self._core = core
        self._name = name
        self._lock = threading.RLock()  # a signal handler may come back here
        self._state = core.state
        self._reason = SignalingTransitionReason.NONE
        self._route_set_status = RouteSetStatus.HEALTHY
        self._follows_all = False
        self._termination: Operation[None] | None = None
        self._negotiation = Negotiation(self)
        self._strand = self._stack.dispatcher.strand(f"session {name}", owner=self)
        self.application_context: Any = None
        # True while somebody listens.
        core.wants_messages = self.request_or_response_received  # type: ignore[assignment]

    # ------------------------------------------------------------------ what it is

    @property
    def endpoint(self) -> RealTimeEndpoint:
        """Whose session it is."""
        return self._endpoint

    @property
    def session_target(self) -> RealTimeAddress | None:
        """Who is called, or who calls; None where the caller's URI is no address."""
        return self._target

    @property
    def is_incoming(self) -> bool:
        """The peer has begun it."""
        return self._core.is_incoming

    @property
    def call_id(self) -> str:
        """Its Call-ID."""
        return self._core.call_id

    @property
    def from_tag(self) -> str | None:
        """The tag in From of the INVITE; None before it is sent."""
        return self._core.from_tag

    @property
    def to_tag(self) -> str | None:
        """The tag in To of the answers; None before there is any."""
        return self._core.to_tag

    @property
    def state(self) -> SignalingState:
        """Where it is; may be newer than the event that is being handled."""
        return self._state

    @property
    def transition_reason(self) -> SignalingTransitionReason:
        """Why it is in this state."""
        return self._reason

    @property
    def is_terminated(self) -> bool:
        """It has ended."""
        return self._state is SignalingState.DISCONNECTED

    @property
    def route_set_status(self) -> RouteSetStatus:
        """Whether there is a connection to the peer. A request finds a new one by itself."""
        return self._route_set_status

    @property
    def connection(self) -> RealTimeConnection | None:
        """The connection that it uses; None before there is any, and while it is lost."""
        dialog = self._core.dialog
        flow: Any = None if dialog is None else dialog.flow
        return None if flow is None else RealTimeConnection(flow, self._stack)

    @property
    def local_participant(self) -> SignalingParticipant:
        """This side."""
        options = self._core.options
        return self._participant(
            "To" if self.is_incoming else "From",
            is_update_supported=True,
            reliable_response_feature=options.reliable,
            session_timer_feature=ExtensionFeatureSupport(int(options.is_timer_supported)),
        )

    @property
    def remote_participant(self) -> SignalingParticipant:
        """The peer, by what its messages have said so far."""
        core = self._core
        return self._participant(
            "From" if self.is_incoming else "To",
            is_update_supported="UPDATE" in core.peer_allow,
            reliable_response_feature=ExtensionFeatureSupport(int("100rel" in core.peer_supports)),
            session_timer_feature=ExtensionFeatureSupport(int("timer" in core.peer_supports)),
        )

    def _participant(self, header: str, **features: Any) -> SignalingParticipant:
        core = self._core
        dialog, incoming = core.dialog, self.is_incoming
        is_peer = (header == "From") is incoming
        contact = dialog.remote_target if is_peer and dialog is not None else ""
        address = None
        try:
            if core.request is not None:
                address = NameAddr.parse(core.request.headers.get(header) or "")
        except MessageParsingException:
            pass
        whose: Any = self
        if address is None:
            uri = str(self._target or "") if is_peer else self._endpoint.owner_uri
            return SignalingParticipant(uri, "", "", contact, session=whose, **features)
        epid = address.params.get("epid") or ""
        return SignalingParticipant(
            str(address.uri), address.display_name or "", epid, contact, session=whose, **features
        )

    @property
    def local_description(self) -> ContentDescription | None:
        """What we said last of our media; None for nothing."""
        return description_of(self._core.local_content)

    @property
    def remote_description(self) -> ContentDescription | None:
        """What the peer said last of its media; of an incoming call that is not accepted yet, its offer."""
        return description_of(self._offered())

    def _offered(self) -> Content | None:
        core = self._core
        undecided = self._state in (SignalingState.INCOMING, SignalingState.CONNECTING)
        if undecided and core.is_incoming and core.remote_content is None and core.request is not None:
            return Content.of(core.request)
        return core.remote_content

    @property
    def replaced_session(self) -> SignalingSession | None:
        """The session of ours that this incoming call is to replace (RFC 3891): terminate it once this one is up."""
        return None if self._core.replaces is None else self._core.replaces.user

    @property
    def joined_session(self) -> SignalingSession | None:
        """The session of ours that this incoming call wants to join (RFC 3911)."""
        return None if self._core.joins is None else self._core.joins.user

    # ------------------------------------------------------------------ what may be chosen

    @property
    def offer_answer_negotiation(self) -> IOfferAnswer | None:
        """The object that makes offers and answers; None (the default): what ``establish`` and ``accept`` are given."""
        return self._negotiation.negotiator

    @offer_answer_negotiation.setter
    def offer_answer_negotiation(self, value: IOfferAnswer | None) -> None:
        self._negotiation.negotiator = value

    @property
    def is_session_timer_supported(self) -> bool:
        """Session timers (RFC 4028) are offered and answered; on by default. To be set before the INVITE or the
        answer."""
        return self._core.options.is_timer_supported

    @is_session_timer_supported.setter
    def is_session_timer_supported(self, value: bool) -> None:
        self._check_not_begun("is_session_timer_supported")
        self._core.options.is_timer_supported = bool(value)

    @property
    def desired_session_timer_interval(self) -> int:
        """Seconds that are asked for; 0 asks for no timer. To be set before the INVITE or the answer."""
        return self._core.options.session_interval

    @desired_session_timer_interval.setter
    def desired_session_timer_interval(self, seconds: int) -> None:
        self._check_not_begun("desired_session_timer_interval")
        if isinstance(seconds, bool) or not isinstance(seconds, int):
            raise TypeError(f"An interval is an int of seconds, not {seconds!r}.")
        if seconds and not 90 <= seconds < 2**31:
            raise ValueError(f"A session timer runs for 90 s at least (RFC 4028 5), not {seconds}; 0 asks for none.")
        self._core.options.session_interval = seconds

    @property
    def minimum_session_expires_interval(self) -> int:
        """The shortest session interval that this side takes (Min-SE), in seconds."""
        return self._core.options.minimum_interval

    @property
    def session_timer_interval(self) -> int:
        """The session interval in force, in seconds; 0 for none."""
        return self._core.timer.interval

    @property
    def reliable_provisional_response_policy(self) -> ExtensionFeatureSupport:
        """What is made of 100rel (RFC 3262). To be set before the INVITE or the first answer."""
        return self._core.options.reliable

    @reliable_provisional_response_policy.setter
    def reliable_provisional_response_policy(self, value: ExtensionFeatureSupport) -> None:
        self._check_not_begun("reliable_provisional_response_policy")
        value = arguments.instance(value, ExtensionFeatureSupport, "reliable_provisional_response_policy")
        self._core.options.reliable = value

    def _check_not_begun(self, what: str) -> None:
        if self._state not in (SignalingState.IDLE, SignalingState.INCOMING):
            raise RealTimeInvalidOperationException(f"{what} is to be set before the session begins.")

    # ------------------------------------------------------------------ what the engine tells, on the loop thread

    def _happened(self, event: Any) -> None:
        _NEWS[type(event)](self, event)

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
        args = SignalingStateChangedEventArgs(event.previous, self._state, self._reason, data_of(event.message))
        self._raise(self.state_changed, args)

    def _provisional_received(self, event: events.ProvisionalReceived) -> None:
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

        listened = bool(self.invitation_accepted)
        args = InvitationAcceptedEventArgs(SipResponseData(event.response), event.needs_answer, acknowledge)
        if listened:
            self._raise(self.invitation_accepted, args, args._handlers_done)
        if event.needs_answer:
            self._negotiation.offer_in_response(event.content)
            return
        self._negotiation.answered(event.content)
        if not listened:
            core.acknowledge(self._stack.loop.now, None, ())

    def _completed(self, event: events.InvitationCompleted) -> None:
        self._negotiation.answered(event.content)
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
        self._stack.deliver(self._strand, event.transaction, self._post_message, event.transaction)

    def _post_message(self, transaction: ServerTransaction) -> None:
        self._strand.post(answer_message, self._endpoint, transaction, transaction.request, self)

    def _refer_received(self, event: events.ReferReceived) -> None:
        self._endpoint._arrived(event.refer)

    def _message_seen(self, event: events.MessageSeen) -> None:
        data = data_of(event.message)
        assert data is not None
        args = RequestOrResponseReceivedEventArgs(data, isinstance(event.message, Request), event.is_early)
        self._raise(self.request_or_response_received, args)

    def _terminated_by_peer(self, event: events.TerminatedByPeer) -> None:
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

        def run() -> None:
            function(self._stack.loop.now, *args)
            self._stack._run()

        try:
            self._stack.post(run)
        except LoopEnded:
            pass

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
        with self._lock:
            if self._termination is not None:
                return self._termination
            operation: Operation[None] = Operation(f"end of {self._name}", callbacks=self._stack.dispatcher.submit)
            self._termination = operation

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
