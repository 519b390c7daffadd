"""What the events of subscriptions carry."""

from __future__ import annotations

import dataclasses

from p2psip.enums import SubscriptionSignalingState
from p2psip.values import SipRequestData, SipResponseData, decode_body


@dataclasses.dataclass(frozen=True)
class NotificationReceivedEventArgs:
    """A notification, which has been answered already.

    Attributes:
        request_data: The NOTIFY.
        subscription_state: ``active``, ``pending`` or ``terminated``.
        reason: Why it is terminated, as the notifier says; or None.
        remaining: Seconds that the subscription still has; None when it does not say.
        notifier: Tells apart the notifiers of a subscription that was forked.
    """

    request_data: SipRequestData
    subscription_state: str
    reason: str | None
    remaining: int | None
    notifier: str | None

    @property
    def content_type(self) -> str | None:
        """Content-Type, or None."""
        return self.request_data.content_type

    @property
    def body(self) -> bytes:
        """The body's octets."""
        return self.request_data.body

    @property
    def text_body(self) -> str | None:
        """The body as text; None when it is not text."""
        return decode_body(self.content_type, self.body)


@dataclasses.dataclass(frozen=True)
class SubscriptionStateChangedEventArgs:
    """From which state to which, and why.

    Attributes:
        reason: The notifier's (``deactivated``, ``rejected`` ...), or None.
        message_data: The response or NOTIFY that was the cause, or None.
        exception: What went wrong, or None.
    """

    previous_state: SubscriptionSignalingState
    state: SubscriptionSignalingState
    reason: str | None
    message_data: SipRequestData | SipResponseData | None
    exception: Exception | None


@dataclasses.dataclass(frozen=True)
class SubscriptionRefreshedEventArgs:
    """The subscriber has asked for more time: ``expires`` seconds."""

    request_data: SipRequestData
    expires: int


@dataclasses.dataclass(frozen=True)
class SubscriptionEndedEventArgs:
    """Why a subscription of a peer is over: ``timeout`` (not refreshed), ``unsubscribed``, ``gone`` (the subscriber knows
    it no more), ``lost`` (no way to the subscriber) or ``terminated`` (by us)."""

    why: str
    exception: Exception | None
