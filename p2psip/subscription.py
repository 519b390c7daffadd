"""Subscriptions: to what others have to tell, and of others to what we have (RFC 6665)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from p2psip import arguments
from p2psip.arguments import Headers
from p2psip.core import events
from p2psip.core.notify import Notifier
from p2psip.core.redirection import MAXIMUM_REDIRECTS
from p2psip.core.subscribe import Subscriber
from p2psip.enums import SubscriptionSignalingState
from p2psip.errors import RealTimeInvalidOperationException
from p2psip.hosting import ARRIVALS
from p2psip.pending import Leave, data_of
from p2psip.senders import SenderEventArgs
from p2psip.subscription_base import Hosted, content_of, redirects, seconds
from p2psip.subscription_events import (
    NotificationReceivedEventArgs,
    SubscriptionEndedEventArgs,
    SubscriptionRefreshedEventArgs,
    SubscriptionStateChangedEventArgs,
)
from p2psip.sync import Event, Operation
from p2psip.values import ConnectionContext, RealTimeAddress, SipRequestData, SipResponseData

if TYPE_CHECKING:
    from p2psip.core.sender import Sender
    from p2psip.endpoint import RealTimeEndpoint


class SipSubscription(Hosted):
    """A subscription of ours, which refreshes itself until it is terminated. Usable from any thread; a context manager
    that terminates it.

    Args:
        endpoint: Who subscribes.
        address: To whom.
        event_package: To what: ``presence``, ``dialog``, ``message-summary`` or any other; may bear an ``id``.
        expires: Seconds between refreshes that are asked for.
        is_query_only: Ask once: the answer is one notification, and the end.
        accept: The content types that are understood.
        headers: For every SUBSCRIBE.
        tls_target_name: The name that the peer's certificate must bear; None means the one that is dialled.
        connection_context: The first hop of each SUBSCRIBE that begins the subscription, before proxy and address.
        maximum_redirects: How many targets of redirections are tried, all together, each time it begins.
        content_type, body: For each SUBSCRIBE that begins it: a filter (RFC 4660), say.
        local_identity: Who subscribes: a URI, or a URI and a display name; None means the endpoint's owner.

    Raises:
        ValueError, TypeError: An argument.
        OperationFailureException: The endpoint is terminated.

    RFC 6665 4.1.
    """

    notification_received: Event[SipSubscription, NotificationReceivedEventArgs] = Event()
    """A NOTIFY has come. It was answered 200 before."""

    state_changed: Event[SipSubscription, SubscriptionStateChangedEventArgs] = Event()
    """The subscription began, waits for another try, or has ended."""

    def __init__(
        self,
        endpoint: RealTimeEndpoint,
        address: RealTimeAddress | str,
        event_package: str,
        *,
        expires: int = 3600,
        is_query_only: bool = False,
        accept: Sequence[str] = (),
        headers: Headers | None = None,
        tls_target_name: str | None = None,
        connection_context: ConnectionContext | tuple[str, int] | None = None,
        maximum_redirects: int = MAXIMUM_REDIRECTS,
        content_type: str | None = None,
        body: bytes | str | None = None,
        local_identity: str | tuple[str, str] | None = None,
    ) -> None:
        endpoint._check_alive("subscribe")
        self._target = arguments.address(address)
        package = arguments.token(
            arguments.text(event_package, "An event package").partition(";")[0], "an event package"
        )
        if seconds(expires, "expires") == 0:
            raise ValueError("expires is at least one second, not 0: use is_query_only to ask once.")
        super().__init__(endpoint, f"the subscription to {package} at {self._target}")
        self._package = package
        self._content = content_of(content_type, body)
        self._headers = [*endpoint._headers, *arguments.headers(headers)]
        self._state = SubscriptionSignalingState.IDLE
        to = f"<{self._target.uri}>"
        self._core = Subscriber(
            endpoint._stack.engine,
            endpoint._record,
            self,
            event=event_package,
            uri=self._target.uri,
            to=f"{to};epid={self._target.endpoint_id}" if self._target.endpoint_id else to,
            target=self._place(self._target, connection_context, tls_target_name),
            expires=expires,
            is_query=is_query_only,
            accept=[arguments.text(kind, "A content type") for kind in accept],
            local_from=endpoint._from if local_identity is None else arguments.sender(local_identity),
            maximum_redirects=redirects(maximum_redirects),
        )
        self._core.is_busy = self._is_busy

    # ------------------------------------------------------------------ what it is

    @property
    def target(self) -> RealTimeAddress:
        """Whom it asks."""
        return self._target

    @property
    def event_package(self) -> str:
        """What it asks about."""
        return self._package

    @property
    def is_query_only(self) -> bool:
        """It asks once."""
        return bool(self._core.is_query)

    @property
    def state(self) -> SubscriptionSignalingState:
        """Where it is."""
        return self._state

    @property
    def is_active(self) -> bool:
        """A notifier is there."""
        return self._state is SubscriptionSignalingState.SUBSCRIBED

    @property
    def time_remaining_to_refresh(self) -> float | None:
        """Seconds until it is refreshed by itself; None when it will not be."""
        deadline = self._core._refresh
        return None if deadline is None else max(0.0, float(deadline.deadline - self._stack.loop.now))

    # ------------------------------------------------------------------ what it does

    def subscribe(self, *, timeout: float | None = None) -> SipResponseData:
        """Send the SUBSCRIBE and wait for its answer. Blocks; allowed in event handlers.

        Args:
            timeout: Seconds for everything, redirections too; then there is no subscription. None means the protocol's
                own time: 64*T1 (32 s) from the first byte written.

        Returns:
            The 2xx answer. The first notification comes before or after it.

        Raises:
            FailureResponseException: The peer answered 300 or above. After 480, 500 or 503 with Retry-After it is tried
                again by itself then, unless it is terminated.
            OperationTimeoutException: No answer in time.
            ConnectionFailureException, TlsFailureException: No way to the peer.
            OperationFailureException: It is begun already, or the endpoint is terminated.
        """
        return self.begin_subscribe(timeout=timeout).result()

    def begin_subscribe(self, *, timeout: float | None = None) -> Operation[SipResponseData]:
        """The same without blocking."""
        self._endpoint._check_alive("subscribe")
        return self._begin(f"SUBSCRIBE to {self._target}", self._subscribe, timeout=arguments.timeout(timeout))

    def _subscribe(self, now: float, operation: Any, timeout: float | None) -> None:
        self._endpoint._adopt(self)
        self._core.subscribe(now, self._headers, self._content, operation, timeout)

    def refresh(
        self, content_type: str | None = None, body: bytes | str | None = None, *, timeout: float | None = None
    ) -> SipResponseData:
        """Ask for the same time once more, now, perhaps with another body. Blocks; raises as :meth:`subscribe` does, but
        a failure leaves the subscription as long as it was granted before."""
        return self.begin_refresh(content_type, body, timeout=timeout).result()

    def begin_refresh(
        self, content_type: str | None = None, body: bytes | str | None = None, *, timeout: float | None = None
    ) -> Operation[SipResponseData]:
        """The same without blocking."""
        content = content_of(content_type, body)
        timeout = arguments.timeout(timeout)
        return self._begin(f"SUBSCRIBE to {self._target}", self._core.refresh, self._headers, content, timeout=timeout)

    def terminate(self) -> None:
        """End it. Blocks until the notifier has said its last word, at most 64*T1; allowed in event handlers and as
        often as you like; never raises for reasons of the network."""
        self.begin_terminate().result()

    def begin_terminate(self) -> Operation[None]:
        """The same without blocking."""
        return self._begin_end(self._core.terminate, self._headers)

    # ------------------------------------------------------------------ what the engine tells (loop thread)

    def _happened(self, event: Any) -> None:
        if isinstance(event, events.NotificationReceived):
            self._raise(
                self.notification_received,
                NotificationReceivedEventArgs(
                    SipRequestData(event.request), event.state, event.reason, event.remaining, event.to_tag
                ),
            )
        elif isinstance(event, events.SubscriptionStateChanged):
            previous, self._state = self._state, event.state
            if self._state is SubscriptionSignalingState.TERMINATED:
                self._endpoint._release(self)
            self._raise(
                self.state_changed,
                SubscriptionStateChangedEventArgs(
                    previous, self._state, event.reason, data_of(event.message), event.error
                ),
            )

    def _end_with_endpoint(self, now: float, done: Callable[[], object]) -> None:
        self._core.terminate(now, self._headers, Leave(done))

    def __enter__(self) -> SipSubscription:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.terminate()

    def __repr__(self) -> str:
        return f"<SipSubscription to {self._package} at {self._target} {self._state.name}>"


class IncomingSubscription(Hosted):
    """A subscription of a peer to something of ours: the notifier's side. Usable from any thread; a context manager
    that terminates it.

    It is to be accepted or declined within ``settings.handler_limit``, else it is answered 500. RFC 6665 4.2.
    """

    refreshed: Event[IncomingSubscription, SubscriptionRefreshedEventArgs] = Event()
    """The subscriber wants it longer. It was granted, and the last state sent again."""

    ended: Event[IncomingSubscription, SubscriptionEndedEventArgs] = Event()
    """It is over."""

    def __init__(self, endpoint: RealTimeEndpoint, core: Notifier) -> None:
        """Made by the library; see ``subscription_received``."""
        super().__init__(endpoint, f"the subscription of {core.dialog.remote} to {core.event.package}")
        self._core: Notifier = core
        core.user, core.is_busy = self, self._is_busy

    @property
    def event_package(self) -> str:
        """What is asked about."""
        return self._core.event.package

    @property
    def subscriber(self) -> str:
        """The URI of who asks."""
        return str(self._core.request.from_.uri)

    @property
    def request_data(self) -> SipRequestData:
        """The SUBSCRIBE that began it."""
        return SipRequestData(self._core.request)

    @property
    def expires(self) -> int:
        """Seconds that were asked for, or granted; 0 for a query."""
        return self._core.expires

    @property
    def is_active(self) -> bool:
        """Accepted, perhaps pending, and not over."""
        return self._core.state in ("active", "pending")

    @property
    def minimum_interval(self) -> float:
        """Seconds between two notifications; what changes faster is told once, as it is in the end. 0: no limit."""
        return self._core.minimum_interval

    @minimum_interval.setter
    def minimum_interval(self, seconds: float) -> None:
        value = arguments.timeout(seconds)
        self._core.minimum_interval = 0.0 if value is None else value

    def accept(
        self,
        expires: int | None = None,
        content_type: str | None = None,
        body: bytes | str | None = None,
        *,
        pending: bool = False,
    ) -> None:
        """Answer 200 and send the first notification, with the state as it is. Does not block.

        Args:
            expires: Seconds granted, never more than asked for; None grants what was asked for.
            pending: The subscription waits for somebody's permission; the next :meth:`notify` makes it active.
        """
        if self._core.state != "incoming":
            raise RealTimeInvalidOperationException(f"{self!r} was answered before.")
        if expires is not None:
            seconds(expires, "expires")
        self._tell(self._core.accept, expires, (), content_of(content_type, body), pending)

    def decline(self, code: int = 603, reason: str | None = None, headers: Headers | None = None) -> None:
        """Answer 300 or above, but for 408 (RFC 4320 4.2). Does not block."""
        arguments.refusal(code)
        arguments.reason_phrase(reason)
        self._tell(self._core.decline, int(code), reason, arguments.headers(headers))

    def notify(
        self,
        content_type: str | None,
        body: bytes | str | None,
        headers: Headers | None = None,
        *,
        timeout: float | None = None,
    ) -> SipResponseData | None:
        """Tell the state and wait for the answer. Blocks; allowed in event handlers. Notifications of one subscription
        are sent one after the other, each when the one before was answered.

        Args:
            timeout: Seconds until nobody waits for the answer any more, and until what was not sent by then never is;
                None means ``settings.request_ceiling``.

        Returns:
            The answer; None when a later state has overtaken this one (``minimum_interval``).

        Raises:
            FailureResponseException: The subscriber does not want it any more.
            OperationTimeoutException, ConnectionFailureException, TlsFailureException: No way to the subscriber.
            OperationFailureException: It is over, or not accepted; or too many notifications wait (THROTTLED).
        """
        return self.begin_notify(content_type, body, headers, timeout=timeout).result()

    def begin_notify(
        self,
        content_type: str | None,
        body: bytes | str | None,
        headers: Headers | None = None,
        *,
        timeout: float | None = None,
    ) -> Operation[SipResponseData | None]:
        """The same without blocking."""
        content, pairs = content_of(content_type, body), [*self._endpoint._headers, *arguments.headers(headers)]
        timeout = arguments.timeout(timeout)
        return self._begin(f"NOTIFY to {self.subscriber}", self._core.notify, content, pairs, timeout=timeout)

    def terminate(
        self,
        reason: str | None = None,
        *,
        retry_after: int | None = None,
        content_type: str | None = None,
        body: bytes | str | None = None,
    ) -> None:
        """Send the last notification and wait until it is answered, or cannot be. Blocks; never raises for reasons of
        the network.

        Args:
            reason: ``deactivated``, ``probation``, ``rejected``, ``timeout``, ``giveup``, ``noresource``,
                ``invariant``, or None.
            retry_after: Seconds after which the subscriber may try again.
        """
        self.begin_terminate(reason, retry_after=retry_after, content_type=content_type, body=body).result()

    def begin_terminate(
        self,
        reason: str | None = None,
        *,
        retry_after: int | None = None,
        content_type: str | None = None,
        body: bytes | str | None = None,
    ) -> Operation[None]:
        """The same without blocking."""
        if reason is not None:
            arguments.token(reason, "a reason")
        if retry_after is not None:
            seconds(retry_after, "retry_after")
        return self._begin_end(self._core.terminate, reason, retry_after, content_of(content_type, body))

    def _happened(self, event: Any) -> None:
        if isinstance(event, events.SubscriptionRefreshed):
            self._raise(self.refreshed, SubscriptionRefreshedEventArgs(SipRequestData(event.request), event.expires))
        elif isinstance(event, events.SubscriptionEnded):
            self._endpoint._release(self)
            self._raise(self.ended, SubscriptionEndedEventArgs(event.why, event.error))

    def _end_with_endpoint(self, now: float, done: Callable[[], object]) -> None:
        self._core.terminate(now, "deactivated", None, None, Leave(done))

    def __enter__(self) -> IncomingSubscription:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.terminate()

    def __repr__(self) -> str:
        return f"<IncomingSubscription of {self._core.dialog.remote} to {self.event_package} {self._core.state}>"


class SubscriptionReceivedEventArgs(SenderEventArgs):
    """A peer subscribes; ``subscription`` is to be accepted or declined."""

    def __init__(self, subscription: IncomingSubscription) -> None:
        self.subscription = subscription

    @property
    def event_package(self) -> str:
        """What it asks about."""
        return self.subscription.event_package

    @property
    def request_data(self) -> SipRequestData:
        """The SUBSCRIBE."""
        return self.subscription.request_data

    @property
    def _sender(self) -> Sender:
        return self.subscription._core.sender


def _arrived(endpoint: RealTimeEndpoint, core: Notifier) -> None:
    """Loop thread: somebody subscribes."""
    subscription = IncomingSubscription(endpoint, core)
    now = endpoint._stack.loop.now
    if not endpoint.subscription_received:
        core.decline(now, 489, None, ())
        return
    try:
        endpoint._adopt(subscription)
    except Exception:
        core.decline(now, 480, None, ())
        return
    failures: list[BaseException] = []

    def failed(sender: object, error: BaseException, handler: object) -> None:
        failures.append(error)
        endpoint._manager._report_unhandled(sender, error, handler)

    def handlers_done() -> None:
        if failures and core.state == "incoming":
            subscription.decline(500)

    args = SubscriptionReceivedEventArgs(subscription)
    subscription._strand.post(endpoint.subscription_received.raise_event, endpoint, args, failed, handlers_done)


ARRIVALS[Notifier] = _arrived
