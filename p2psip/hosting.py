"""The sessions, subscriptions and transfers of an endpoint: how they come in, and how they end with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from p2psip.errors import OperationFailureException, OperationFailureReason, RealTimeException
from p2psip.managers import RealTimeServerConnectionManager
from p2psip.stack import Stack
from p2psip.sync import Event, Strand

if TYPE_CHECKING:
    from p2psip.endpoint import RealTimeEndpoint
    from p2psip.referral_incoming import ReferReceivedEventArgs
    from p2psip.session_events import SessionReceivedEventArgs
    from p2psip.subscription import SubscriptionReceivedEventArgs
    from p2psip.timers import Timer


class Hosted(Protocol):
    """What lives in an endpoint and ends with it. Called on the loop thread."""

    @property
    def _strand(self) -> Strand: ...

    def _end_with_endpoint(self, now: float, done: Callable[[], object]) -> None:
        """Take leave of the peer; ``done()`` once, when that is over, perhaps at once."""

    def _abandon(self, now: float, error: RealTimeException) -> None:
        """End without sending anything; a no-op where it has ended."""


ARRIVALS: dict[type, Callable[[Any, Any], None]] = {}
"""What begins by a request of a peer: the engine's class, and what makes an object of the facade for the endpoint."""


class Hosting:
    """The part of an endpoint that knows what goes on in it."""

    session_received: Event[RealTimeEndpoint, SessionReceivedEventArgs] = Event()
    """A peer calls. ``args.session`` is to be accepted, rejected, redirected or terminated, now or later; where a
    handler raises and none of them decided, 500 is sent. Without a handler it is 480."""

    subscription_received: Event[RealTimeEndpoint, SubscriptionReceivedEventArgs] = Event()
    """A peer subscribes to an event package. Without a handler it is answered 489."""

    refer_received: Event[RealTimeEndpoint, ReferReceivedEventArgs] = Event()
    """Somebody with whom there is no session asks us to call somebody (RFC 3515). Without a handler it is declined; see
    ``SignalingSession.refer_received`` for the other kind."""

    _manager: RealTimeServerConnectionManager
    _owner_text: str
    _stack: Stack

    def __init__(self) -> None:
        self._sessions: dict[Hosted, None] = {}  # alive; loop thread only, but for looks whether there are any
        self._sessions_over: Callable[[], object] | None = None

    def _arrived(self, usage: Any) -> None:
        """The engine has taken in something new."""
        ARRIVALS[type(usage)](self, usage)

    def _adopt(self, hosted: Hosted) -> None:
        """Loop thread: it lives in this endpoint from now on.

        Raises:
            OperationFailureException: The endpoint is terminated.
        """
        if self._sessions_over is not None:
            raise self._terminated("anything could be begun")
        self._sessions[hosted] = None

    def _release(self, hosted: Hosted) -> None:
        """Loop thread: it has ended."""
        self._sessions.pop(hosted, None)
        self._manager._strand_ends(hosted._strand)

    def _terminated(self, what: str) -> OperationFailureException:
        return OperationFailureException(
            f"The endpoint {self._owner_text} was terminated before {what}.",
            OperationFailureReason.ENDPOINT_TERMINATED,
        )

    def _end_sessions(self, done: Callable[[], object]) -> None:
        """Loop thread: end everything within ``settings.dispose_grace``, then call ``done()`` once."""
        self._sessions_over = done
        stack = self._stack
        now = stack.loop.now
        waiting = dict(self._sessions)
        timer: Timer | None = None

        def over() -> None:
            stack.engine.timers.cancel(timer)
            for hosted in [*waiting, *self._sessions]:
                hosted._abandon(stack.loop.now, self._terminated("it was over"))
            waiting.clear()
            self._sessions.clear()
            done()

        def left(hosted: Hosted) -> None:
            if waiting.pop(hosted, self) is None and not waiting:
                over()

        if not waiting:
            done()
            return
        timer = stack.engine.timers.start(now, stack.settings.dispose_grace, over)
        for hosted in list(waiting):
            hosted._end_with_endpoint(now, lambda hosted=hosted: left(hosted))  # type: ignore[misc]
        stack._run()
