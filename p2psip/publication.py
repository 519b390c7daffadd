"""Publishing state of one's own, for others to subscribe to (RFC 3903)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from p2psip import arguments
from p2psip.arguments import Headers
from p2psip.core import events
from p2psip.core.dialog import Content
from p2psip.core.publish import Publication
from p2psip.core.redirection import MAXIMUM_REDIRECTS
from p2psip.pending import Leave
from p2psip.subscription_base import Hosted, redirects
from p2psip.sync import Event, Operation
from p2psip.values import ConnectionContext, RealTimeAddress, SipResponseData

if TYPE_CHECKING:
    from p2psip.endpoint import RealTimeEndpoint


@dataclasses.dataclass(frozen=True)
class PublicationChangedEventArgs:
    """Whether something is published now.

    Attributes:
        entity_tag: The tag that names it; None when nothing is published.
        exception: Why nothing is published any more, where that was not wanted; or None. It is tried again, unless it
            was refused.
    """

    is_active: bool
    entity_tag: str | None
    exception: Exception | None = None


class SipPublication(Hosted):
    """State that we publish at an address; it is refreshed until it is removed. Usable from any thread; a context
    manager that removes it.

    Args:
        endpoint: Who publishes.
        address: Where.
        event_package: What it is about: ``presence``, say.
        expires: Seconds between refreshes that are asked for.
        tls_target_name: The name that the peer's certificate must bear; None means the one that is dialled.
        connection_context: The first hop, before proxy and address.
        maximum_redirects: How many targets of redirections are tried, all together, for each command or refresh.
        local_identity: Who publishes: a URI, or a URI and a display name; None means the endpoint's owner.

    Raises:
        ValueError, TypeError: An argument.
        OperationFailureException: The endpoint is terminated.

    RFC 3903.
    """

    changed: Event[SipPublication, PublicationChangedEventArgs] = Event()
    """It is published, under another tag, or not any more."""

    def __init__(
        self,
        endpoint: RealTimeEndpoint,
        address: RealTimeAddress | str,
        event_package: str,
        *,
        expires: int = 3600,
        tls_target_name: str | None = None,
        connection_context: ConnectionContext | tuple[str, int] | None = None,
        maximum_redirects: int = MAXIMUM_REDIRECTS,
        local_identity: str | tuple[str, str] | None = None,
    ) -> None:
        endpoint._check_alive("publish")
        self._target = arguments.address(address)
        self._package = arguments.token(event_package, "an event package")
        if isinstance(expires, bool) or not isinstance(expires, int) or expires <= 0:
            raise ValueError(f"expires is a number of seconds above 0, not {expires!r}.")
        super().__init__(endpoint, f"the publication of {self._package} at {self._target}")
        self._core = Publication(
            endpoint._stack.engine,
            endpoint._record,
            self,
            event=self._package,
            uri=self._target.uri,
            target=self._place(self._target, connection_context, tls_target_name),
            expires=expires,
            local_from=endpoint._from if local_identity is None else arguments.sender(local_identity),
            maximum_redirects=redirects(maximum_redirects),
        )

    @property
    def entity_tag(self) -> str | None:
        """Names what is published; None while nothing is."""
        tag: str | None = self._core.entity_tag
        return tag

    def publish(
        self, content_type: str, body: bytes | str, headers: Headers | None = None, *, timeout: float | None = None
    ) -> SipResponseData:
        """Publish the state, or another one in its place, and wait for the answer. Blocks; allowed in event handlers.

        Args:
            timeout: Seconds until nobody waits for the answer any more; what was sent by then may take effect, as
                ``changed`` tells. None means the protocol's own time.

        Raises:
            FailureResponseException: It is refused.
            OperationTimeoutException, ConnectionFailureException, TlsFailureException: No way there.
            OperationFailureException: Another PUBLISH of this object is under way, or the endpoint is terminated.
        """
        return self.begin_publish(content_type, body, headers, timeout=timeout).result()

    def begin_publish(
        self, content_type: str, body: bytes | str, headers: Headers | None = None, *, timeout: float | None = None
    ) -> Operation[SipResponseData]:
        """The same without blocking."""
        self._endpoint._check_alive("publish")
        kind, encoded = arguments.content(content_type, body)
        content = Content(kind or content_type, encoded)
        pairs = [*self._endpoint._headers, *arguments.headers(headers)]
        timeout = arguments.timeout(timeout)
        return self._begin(f"PUBLISH to {self._target}", self._publish, content, pairs, timeout=timeout)

    def _publish(self, now: float, content: Content, headers: Any, operation: Any, timeout: float | None) -> None:
        self._endpoint._adopt(self)
        self._core.publish(now, content, headers, operation, timeout)

    def terminate(self) -> None:
        """Take it back. Blocks until that is answered, or cannot be; never raises for reasons of the network."""
        self.begin_terminate().result()

    def begin_terminate(self) -> Operation[None]:
        """The same without blocking."""
        return self._begin_end(self._core.remove)

    def _happened(self, event: Any) -> None:
        if isinstance(event, events.PublicationChanged):
            args = PublicationChangedEventArgs(event.is_active, event.entity_tag, event.error)
            self._raise(self.changed, args)
        elif isinstance(event, events.PublicationOver):
            self._endpoint._release(self)

    def _end_with_endpoint(self, now: float, done: Callable[[], object]) -> None:
        self._core.remove(now, Leave(done))

    def __enter__(self) -> SipPublication:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.terminate()

    def __repr__(self) -> str:
        return f"<SipPublication of {self._package} at {self._target}>"
