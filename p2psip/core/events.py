"""What usages tell their users, by the effect Tell. Plain values, one class for each kind.

``transaction`` in them is the peer's request: it is answered by the method of the usage that the event names, or has
been answered already.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from p2psip.core.dialog import Content
from p2psip.enums import SignalingState, SignalingTransitionReason, SubscriptionSignalingState
from p2psip.errors import RealTimeException
from p2psip.message import Request, Response

if TYPE_CHECKING:
    from p2psip.core.transaction import ServerTransaction


@dataclasses.dataclass(slots=True)
class SessionStateChanged:
    """``message`` is what caused it: a response, BYE, CANCEL, ACK; or None."""

    previous: SignalingState
    state: SignalingState
    reason: SignalingTransitionReason
    message: Request | Response | None


@dataclasses.dataclass(slots=True)
class ProvisionalReceived:
    """101 to 199 to our INVITE, of the early dialog with that tag. A reliable one is acknowledged already, unless
    ``needs_answer``: it brought an offer, and ``session.answer_provisional`` is to be called."""

    response: Response
    to_tag: str | None
    is_reliable: bool
    content: Content | None
    needs_answer: bool


@dataclasses.dataclass(slots=True)
class InvitationAccepted:
    """A 2xx to our INVITE, the first. ``session.acknowledge`` is to be called: with the answer when ``needs_answer``
    (``content`` is the peer's offer then, else its answer, or None when a provisional response had brought it)."""

    response: Response
    content: Content | None
    needs_answer: bool


@dataclasses.dataclass(slots=True)
class InvitationCompleted:
    """The ACK to our 2xx; ``content`` is the answer to an offer that our 2xx made."""

    ack: Request
    content: Content | None


@dataclasses.dataclass(slots=True)
class Redirected:
    """3xx to our INVITE. ``session.follow`` with one of the targets, or ``session.give_up``, is to be called."""

    response: Response
    targets: Sequence[str]


@dataclasses.dataclass(slots=True)
class OfferReceived:
    """A re-INVITE, UPDATE or PRACK of the peer that only the application can answer: ``session.accept_offer`` or
    ``session.decline_offer``. ``content`` is None when the re-INVITE asks for an offer of ours."""

    transaction: ServerTransaction
    content: Content | None


@dataclasses.dataclass(slots=True)
class OfferCancelled:
    """The peer has taken back the re-INVITE."""

    transaction: ServerTransaction


@dataclasses.dataclass(slots=True)
class AnswerReceived:
    """The answer to an offer of ours that came in an ACK or a PRACK."""

    message: Request | Response
    content: Content


@dataclasses.dataclass(slots=True)
class RequestReceived:
    """MESSAGE, INFO, OPTIONS or a method that the application knows, in the session; answered by
    ``engine.respond``."""

    transaction: ServerTransaction


@dataclasses.dataclass(slots=True)
class ReferReceived:
    """REFER, in a session or outside; ``refer`` is the :class:`p2psip.core.refer.IncomingRefer`."""

    refer: Any


@dataclasses.dataclass(slots=True)
class MessageSeen:
    """Any message of the session, as it came in; only while ``session.wants_messages``."""

    message: Request | Response
    is_early: bool


@dataclasses.dataclass(slots=True)
class TerminatedByPeer:
    """BYE or CANCEL. The change of state follows."""

    request: Request


@dataclasses.dataclass(slots=True)
class RefreshNeeded:
    """The session timer wants a refresh, and the peer does not know UPDATE. A re-INVITE with the last description of
    ours is sent unless the user renegotiates: ``session.renegotiate``."""


@dataclasses.dataclass(slots=True)
class RouteSetChanged:
    """The dialog's connection was lost (``error``), or a request has found a way again (None)."""

    error: RealTimeException | None


@dataclasses.dataclass(slots=True)
class SubscriptionStateChanged:
    """``reason`` is the notifier's (deactivated, rejected ...), ``message`` what caused it, ``error`` why it failed."""

    previous: SubscriptionSignalingState
    state: SubscriptionSignalingState
    reason: str | None
    message: Request | Response | None
    error: Exception | None


@dataclasses.dataclass(slots=True)
class NotificationReceived:
    """A NOTIFY, which has been answered 200. ``state`` is ``active``, ``pending`` or ``terminated``; ``to_tag`` tells
    apart the notifiers of a forked SUBSCRIBE."""

    request: Request
    state: str
    reason: str | None
    remaining: int | None
    to_tag: str | None


@dataclasses.dataclass(slots=True)
class SubscriptionRefreshed:
    """The subscriber has asked for more time; 200 was sent, and the last state again."""

    request: Request
    expires: int


@dataclasses.dataclass(slots=True)
class SubscriptionEnded:
    """A notifier's subscription is over: ``timeout`` (not refreshed), ``unsubscribed``, ``gone`` (the subscriber does
    not know it any more), ``terminated`` (by us), ``lost`` (no way to the subscriber)."""

    why: str
    message: Request | Response | None
    error: Exception | None


@dataclasses.dataclass(slots=True)
class ReferProgress:
    """A NOTIFY about a transfer that we asked for: the status line of its sipfrag (0 and None when there is none)."""

    request: Request
    status_code: int
    reason: str | None
    fragment: bytes
    is_over: bool


@dataclasses.dataclass(slots=True)
class ReferEnded:
    """A REFER of a peer outside of any session: nothing more is told of it."""


@dataclasses.dataclass(slots=True)
class PublicationChanged:
    """``is_active`` with the entity tag, or not any more because of the error."""

    is_active: bool
    entity_tag: str | None
    error: Exception | None


@dataclasses.dataclass(slots=True)
class PublicationOver:
    """Nothing is published, and nothing will be before somebody publishes again."""


_REASONS = {
    480: SignalingTransitionReason.TEMPORARILY_UNAVAILABLE,
    481: SignalingTransitionReason.SESSION_DOES_NOT_EXIST,
    486: SignalingTransitionReason.BUSY,
    487: SignalingTransitionReason.CANCELED,
    488: SignalingTransitionReason.NOT_ACCEPTABLE_MEDIA,
    600: SignalingTransitionReason.BUSY,
    606: SignalingTransitionReason.NOT_ACCEPTABLE_MEDIA,
    406: SignalingTransitionReason.NOT_ACCEPTABLE,
    408: SignalingTransitionReason.TIMEOUT,
    504: SignalingTransitionReason.TIMEOUT,
}


def end_reason(response: Response) -> SignalingTransitionReason:
    """Why a session ended that was answered like this."""
    return _REASONS.get(response.status_code, SignalingTransitionReason.DECLINED)
