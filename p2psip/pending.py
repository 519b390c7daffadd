"""Commands to the engine, and the operations that wait for their end."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from p2psip.errors import RealTimeException
from p2psip.failures import response_failure
from p2psip.message import Request, Response
from p2psip.net.loop import LoopEnded
from p2psip.sync import Operation
from p2psip.values import SipRequestData, SipResponseData

if TYPE_CHECKING:
    from p2psip.stack import Stack


class PendingCommand:
    """What the engine knows an operation by. The end comes on the loop thread.

    Args:
        operation: Ends with what the engine says: the data of a response or request, or None; with an exception for
            a response of 300 or above.
        what: The request and its address, for sentences.
        convert: Makes the operation's result of the message, in place of that.
        ended: Called before the operation ends.
    """

    __slots__ = ("convert", "ended", "operation", "what")

    def __init__(
        self,
        operation: Operation[Any],
        what: str,
        convert: Callable[[Request | Response | None], Any] | None = None,
        ended: Callable[[], object] | None = None,
    ) -> None:
        self.operation = operation
        self.what = what
        self.convert = convert
        self.ended = ended

    def complete(self, message: Request | Response | None, error: Exception | None) -> None:
        """The engine's last word."""
        if self.ended is not None:
            self.ended()
        if error is not None:
            self.operation.fail(error)
            return
        try:
            if isinstance(message, Response) and message.status_code >= 300:
                self.operation.fail(response_failure(message, self.what))
            else:
                self.operation.complete((self.convert or data_of)(message))
        except Exception as unexpected:  # whatever a peer wrote, somebody waits for this operation
            self.operation.fail(unexpected)


class Leave:
    """The same for an operation that cannot fail: the end of a session or subscription."""

    __slots__ = ("done",)

    def __init__(self, done: Callable[[], object]) -> None:
        self.done = done

    def complete(self, message: Request | Response | None, error: RealTimeException | None) -> None:
        """It is over, one way or the other."""
        self.done()


def tell(stack: Stack, function: Callable[..., object], *args: Any) -> None:
    """Any thread: a command to the engine that nobody waits for, ``function(now, *args)`` on the loop soon. Too late is
    no error."""

    def run() -> None:
        function(stack.loop.now, *args)
        stack._run()

    try:
        stack.post(run)
    except LoopEnded:
        pass


def data_of(message: Request | Response | None) -> SipRequestData | SipResponseData | None:
    """What applications see of a message."""
    if message is None:
        return None
    return SipRequestData(message) if isinstance(message, Request) else SipResponseData(message)
