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
from p2psip.errors import ConnectionFailureException
from p2psip.pending import Leave
from p2psip.subscription import Hosted
from p2psip.sync import Event, Operation
from p2psip.values import RealTimeAddress, SipResponseData

if TYPE_CHECKING:
    from p2psip.endpoint import RealTimeEndpoint


@dataclasses.dataclass(frozen=True)
class PublicationChangedEventArgs:
    """Whether something is published now, and the tag that names it."""

    is_active: bool
    entity_tag: str | None


class SipPublication(Hosted):
    """State that we publish at an address; it is refreshed until it is removed. Usable from any thread; a context
    manager that removes it.

    Args:
        endpoint: Who publishes.
        address: Where.
        event_package: What it is about: ``presence``, say.
        expires: Seconds between refreshes that are asked for.

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
    ) -> None:
        endpoint._check_alive("publish")
        self._target = arguments.address(address)
        self._package = arguments.token(event_package, "an event package")
        if isinstance(expires, bool) or not isinstance(expires, int) or expires <= 0:
            raise ValueError(f"expires is a number of seconds above 0, not {expires!r}.")
        super().__init__(endpoint, f"the publication of {self._package} at {self._target}")
        target: Any
        try:
            target = endpoint._target(self._target, None)
        except ConnectionFailureException as error:
            target = error
        self._core = Publication(
            endpoint._stack.engine,
            endpoint._record,
            self,
            event=self._package,
            uri=self._target.uri,
            target=target,
            expires=expires,
            local_from=endpoint._from,
        )

    @property
    def entity_tag(self) -> str | None:
        """Names what is published; None while nothing is."""
        tag: str | None = self._core.entity_tag
        return tag

    def publish(self, content_type: str, body: bytes | str, headers: Headers | None = None) -> SipResponseData:
        """Publish the state, or another one in its place, and wait for the answer. Blocks; allowed in event handlers.

        Raises:
            FailureResponseException: It is refused.
            OperationTimeoutException, ConnectionFailureException, TlsFailureException: No way there.
            OperationFailureException: Another PUBLISH of this object is under way, or the endpoint is terminated.
        """
        return self.begin_publish(content_type, body, headers).result()

    def begin_publish(
        self, content_type: str, body: bytes | str, headers: Headers | None = None
    ) -> Operation[SipResponseData]:
        """The same without blocking."""
        self._endpoint._check_alive("publish")
        kind, encoded = arguments.content(content_type, body)
        content = Content(kind or content_type, encoded)
        pairs = [*self._endpoint._headers, *arguments.headers(headers)]
        return self._begin(f"PUBLISH to {self._target}", self._publish, content, pairs)

    def _publish(self, now: float, content: Content, headers: Any, operation: Any) -> None:
        self._endpoint._adopt(self)
        self._core.publish(now, content, headers, operation)

    def terminate(self) -> None:
        """Take it back. Blocks until that is answered, or cannot be; never raises for reasons of the network."""
        self.begin_terminate().result()

    def begin_terminate(self) -> Operation[None]:
        """The same without blocking."""
        return self._begin_end(self._remove)

    def _remove(self, now: float, leave: Leave) -> None:
        self._endpoint._release(self)
        self._core.remove(now, leave)

    def _happened(self, event: Any) -> None:
        if isinstance(event, events.PublicationChanged):
            self._raise(self.changed, PublicationChangedEventArgs(event.is_active, event.entity_tag))

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
