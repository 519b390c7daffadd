"""What the events of sessions bring."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from p2psip import arguments
from p2psip.arguments import Headers
from p2psip.enums import (
    ExtensionFeatureSupport,
    RedirectAction,
    RouteSetStatus,
    SignalingState,
    SignalingTransitionReason,
)
from p2psip.errors import RealTimeInvalidOperationException
from p2psip.senders import SenderEventArgs
from p2psip.values import (
    ContentDescription,
    Participant,
    SignalingHeader,
    SipMessageData,
    SipRequestData,
    SipResponseData,
)

if TYPE_CHECKING:
    from p2psip.core.sender import Sender
    from p2psip.session import SignalingSession


@dataclasses.dataclass(frozen=True)
class SignalingParticipant(Participant):
    """One side of a session, and what it can do.

    Attributes:
        session: The session.
        is_update_supported: It takes UPDATE (RFC 3311).
        reliable_response_feature: Its part in reliable provisional responses (RFC 3262).
        session_timer_feature: Its part in session timers (RFC 4028).
    """

    session: SignalingSession | None = dataclasses.field(default=None, compare=False, repr=False)
    is_update_supported: bool = False
    reliable_response_feature: ExtensionFeatureSupport = ExtensionFeatureSupport.UNSUPPORTED
    session_timer_feature: ExtensionFeatureSupport = ExtensionFeatureSupport.UNSUPPORTED


@dataclasses.dataclass(frozen=True)
class SignalingStateChangedEventArgs:
    """From which state to which, and why; ``message_data`` is the message that caused it, or None."""

    previous_state: SignalingState
    state: SignalingState
    reason: SignalingTransitionReason
    message_data: SipMessageData | None


@dataclasses.dataclass(frozen=True)
class SessionReceivedEventArgs(SenderEventArgs):
    """A call came in.

    Attributes:
        session: To be accepted, rejected, redirected or terminated.
        request_data: The INVITE.
    """

    session: SignalingSession
    request_data: SipRequestData

    @property
    def request_uri(self) -> str:
        """Whom the INVITE is for."""
        return self.request_data.request_uri

    @property
    def _sender(self) -> Sender:
        sender = self.session._core.sender
        assert sender is not None  # who called
        return sender

    @property
    def is_forked(self) -> bool:
        """A proxy was in between, which may have the call ring elsewhere too: better not to be accepted unasked. The
        caller can rule it out (``Request-Disposition: no-fork``, RFC 3841)."""
        wishes = (self.request_data.header("Request-Disposition") or "").lower().split(",")
        return not self.request_data._message.has_one_via and "no-fork" not in map(str.strip, wishes)

    @property
    def media_description(self) -> ContentDescription | None:
        """The offer; None where the caller wants one of ours."""
        return self.session.remote_description

    @property
    def remote_participant(self) -> SignalingParticipant:
        """Who calls."""
        return self.session.remote_participant


@dataclasses.dataclass(frozen=True)
class ProvisionalResponseReceivedEventArgs:
    """101 to 199 to our INVITE.

    Attributes:
        response_data: The response.
        to_tag: Of the early dialog, which tells the forks of a call apart; or None.
        is_reliable: It was acknowledged (PRACK, RFC 3262).
        description: What it carries: an answer, early media, or the peer's offer; or None.
    """

    response_data: SipResponseData
    to_tag: str | None
    is_reliable: bool
    description: ContentDescription | None

    @property
    def has_offer_answer(self) -> bool:
        """It carries a description."""
        return self.description is not None


class InvitationAcceptedEventArgs:
    """A 2xx to our INVITE. The ACK is sent when the handlers are done, unless one of them sends or delays it."""

    __slots__ = ("_acknowledge", "_lock", "_sent", "delay_ack", "is_null_original_offer", "response_data")

    def __init__(
        self, response_data: SipResponseData, is_null_original_offer: bool, acknowledge: Callable[[Headers], object]
    ) -> None:
        self.response_data = response_data
        """The response."""
        self.is_null_original_offer = is_null_original_offer
        """The INVITE had no offer, so that the ACK carries our answer and comes from the negotiation."""
        self.delay_ack = False
        """Set it to send the ACK later by :meth:`send_acknowledgement`, at most ``settings.handler_limit`` later."""
        self._acknowledge = acknowledge
        self._lock = threading.RLock()
        self._sent = is_null_original_offer

    def send_acknowledgement(self, headers: Headers | None = None) -> None:
        """Send the ACK, with these headers besides its own. Does not block.

        Raises:
            RealTimeInvalidOperationException: It is sent, or it belongs to the negotiation.
            ValueError, TypeError: An argument.
        """
        pairs = arguments.headers(headers)
        if not self._send(pairs):
            raise RealTimeInvalidOperationException(
                "The ACK carries the answer to the peer's offer and is sent by the negotiation."
                if self.is_null_original_offer
                else "The ACK was sent already."
            )

    def _send(self, pairs: Sequence[tuple[str, str]]) -> bool:
        with self._lock:
            if self._sent:
                return False
            self._sent = True
        self._acknowledge(pairs)
        return True

    def _handlers_done(self) -> None:
        if not self.delay_ack:
            self._send(())


@dataclasses.dataclass(frozen=True)
class InvitationCompletedEventArgs:
    """The ACK to our 2xx has come."""

    request_data: SipRequestData


@dataclasses.dataclass(frozen=True)
class ReInviteReceivedEventArgs:
    """The peer wants to change the session. The negotiation answers; this is for information.

    Attributes:
        request_data: The re-INVITE.
        description: The peer's offer; None where it asks for ours.
    """

    request_data: SipRequestData
    description: ContentDescription | None


@dataclasses.dataclass(frozen=True)
class RenegotiationToRefreshNeededEventArgs:
    """The session timer wants a refresh, and the peer does not know UPDATE. Unless a handler renegotiates, a re-INVITE
    with our last description is sent."""


@dataclasses.dataclass(frozen=True)
class RequestOrResponseReceivedEventArgs:
    """Any message of the session, for those who look at headers."""

    message_data: SipMessageData
    is_request: bool
    is_early_dialog: bool


@dataclasses.dataclass(frozen=True)
class RouteSetStatusChangedEventArgs:
    """The connection to the peer was lost, with the exception that says why, or there is one again."""

    route_set_status: RouteSetStatus
    exception: Exception | None


@dataclasses.dataclass(frozen=True)
class TerminatedByRemoteEventArgs:
    """The peer has ended the session: its BYE or CANCEL."""

    request_data: SipRequestData


class RedirectingEventArgs:
    """The peer has sent us elsewhere (3xx). What is to be done is what the handlers leave in ``action``."""

    __slots__ = (
        "_action",
        "_decide",
        "_lock",
        "_resumed",
        "current_target",
        "disable_automatic_redirection",
        "headers",
        "response_data",
        "targets",
    )

    def __init__(
        self, response_data: SipResponseData, targets: Sequence[str], decide: Callable[[RedirectingEventArgs], object]
    ) -> None:
        self.response_data = response_data
        """The response that redirects us, or with which the target before has failed."""
        self.targets = tuple(targets)
        """Where the call may go, best first, as URIs."""
        self.current_target = targets[0] if targets else None
        """What would be tried now; None where nothing is left."""
        self.headers: list[SignalingHeader | tuple[str, str]] = []
        """What the next INVITE carries in place of the headers that :meth:`SignalingSession.establish` was given;
        empty leaves those."""
        self.disable_automatic_redirection = False
        """Set it to decide later by :meth:`resume_redirection`, at most ``settings.handler_limit`` later."""
        self._action = RedirectAction.TRY_ALL
        self._decide = decide
        self._lock = threading.RLock()
        self._resumed = False

    @property
    def action(self) -> RedirectAction:
        """What is to be done; TRY_ALL unless it is set."""
        return self._action

    @action.setter
    def action(self, value: RedirectAction) -> None:
        self._action = arguments.instance(value, RedirectAction, "action")

    def resume_redirection(self) -> None:
        """Go on with what ``action`` and ``headers`` say by now. Does not block.

        Raises:
            RealTimeInvalidOperationException: It went on already, or automatic redirection was not disabled.
        """
        if not self.disable_automatic_redirection:
            raise RealTimeInvalidOperationException(
                "The redirection goes on by itself when the handlers are done; to decide later, set "
                "disable_automatic_redirection in the handler."
            )
        if not self._resume():
            raise RealTimeInvalidOperationException("The redirection has gone on already.")

    def _resume(self) -> bool:
        with self._lock:
            if self._resumed:
                return False
            self._resumed = True
        self._decide(self)
        return True

    def _handlers_done(self) -> None:
        if not self.disable_automatic_redirection:
            self._resume()
