"""What subscriptions and publications have in common: an endpoint, a strand, commands to the engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from p2psip import arguments
from p2psip.core.dialog import Content
from p2psip.errors import ConnectionFailureException, RealTimeException
from p2psip.net.loop import LoopEnded
from p2psip.pending import Leave, PendingCommand, tell
from p2psip.sync import Event, Operation
from p2psip.values import ConnectionContext, RealTimeAddress, SendMessageOptions

if TYPE_CHECKING:
    from p2psip.endpoint import RealTimeEndpoint
    from p2psip.stack import Stack

LONGEST = 2**31 - 1
"""Seconds."""


class Hosted:
    """What both kinds have in common: an endpoint, a strand, commands to the engine."""

    _core: Any

    def __init__(self, endpoint: RealTimeEndpoint, name: str) -> None:
        self._endpoint = endpoint
        self._stack: Stack = endpoint._stack
        self._name = name
        self._strand = self._stack.dispatcher.strand(name, owner=self)

    @property
    def endpoint(self) -> RealTimeEndpoint:
        """The endpoint that it belongs to."""
        return self._endpoint

    def _place(
        self, address: RealTimeAddress, connection_context: ConnectionContext | tuple[str, int] | None, name: str | None
    ) -> Any:
        """Where requests to the address go first; or the error that says why they cannot."""
        try:
            options = SendMessageOptions(connection_context=connection_context, tls_target_name=name)
            return self._endpoint._target(address, options)
        except ConnectionFailureException as error:
            return error

    def _raise(self, event: Event[Any, Any], args: Any) -> None:
        self._strand.post(event.raise_event, self, args, self._endpoint._manager._report_unhandled)

    def _is_busy(self, flow: Any) -> bool:
        """Loop thread: handlers do not keep up, and what that connection has brought is to be refused."""
        return self._stack.pressure.refuses(self._strand, flow)

    def _begin(self, what: str, function: Callable[..., object], *args: Any, timeout: float | None) -> Operation[Any]:
        """Any thread: ``function(now, *args, operation, timeout)`` on the loop."""
        operation: Operation[Any] = Operation(
            what, callbacks=self._stack.dispatcher.submit, cancel=lambda operation: operation.end_cancelled()
        )
        self._stack.command(operation, function, *args, PendingCommand(operation, what), timeout)
        return operation

    def _tell(self, function: Callable[..., object], *args: Any) -> None:
        """Any thread: ``function(now, *args)`` on the loop soon; too late is no error."""
        tell(self._stack, function, *args)

    def _begin_end(self, function: Callable[..., object], *args: Any) -> Operation[None]:
        """Any thread: an end that cannot fail."""
        operation: Operation[None] = Operation(f"end of {self._name}", callbacks=self._stack.dispatcher.submit)

        def run() -> None:
            function(self._stack.loop.now, *args, Leave(lambda: operation.complete(None)))
            self._stack._run()

        try:
            self._stack.post(run)
        except LoopEnded:  # and with it the subscription
            operation.complete(None)
        return operation

    def _abandon(self, now: float, error: RealTimeException) -> None:
        self._core.abandon(now, error)


def seconds(value: int, what: str) -> int:
    """The same, where a header can say it (RFC 3261 20.19)."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} is a number of seconds, not {value!r}.")
    if not 0 <= value <= LONGEST:
        raise ValueError(f"{what} is a number of seconds, at least one second where time is to pass, not {value!r}.")
    return value


def redirects(value: int) -> int:
    """A number of redirections."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"maximum_redirects is a number of targets, not {value!r}.")
    if value < 0:
        raise ValueError(f"maximum_redirects is a number of targets, 0 to follow none, not {value!r}.")
    return value


def content_of(content_type: str | None, body: bytes | str | None) -> Content | None:
    """What a message is to carry; None for nothing."""
    kind, encoded = arguments.content(content_type, body)
    return Content(kind, encoded) if kind is not None and encoded else None
