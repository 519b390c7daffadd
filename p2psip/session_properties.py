"""What a session is, as its properties tell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from p2psip import arguments
from p2psip.connections import RealTimeConnection
from p2psip.core.dialog import Content
from p2psip.core.session import Session
from p2psip.enums import ExtensionFeatureSupport, RouteSetStatus, SignalingState, SignalingTransitionReason
from p2psip.errors import MessageParsingException, RealTimeInvalidOperationException
from p2psip.message import NameAddr
from p2psip.offers import IOfferAnswer, Negotiation, description_of
from p2psip.session_events import SignalingParticipant
from p2psip.stack import Stack
from p2psip.values import ContentDescription, RealTimeAddress

if TYPE_CHECKING:
    from p2psip.endpoint import RealTimeEndpoint
    from p2psip.session import SignalingSession


class SessionProperties:
    """The part of a session that looks. Usable from any thread."""

    _negotiation: Negotiation
    _stack: Stack

    def __init__(self, endpoint: RealTimeEndpoint, target: RealTimeAddress | None, core: Session, name: str) -> None:
        self._endpoint = endpoint
        self._stack = endpoint._stack
        self._target = target
        self._core = core
        self._name = name
        self._state = core.state
        self._reason = SignalingTransitionReason.NONE
        self._route_set_status = RouteSetStatus.HEALTHY
        self.application_context: Any = None
        """Whatever the application likes to find here."""

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
