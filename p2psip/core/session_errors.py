"""What is said when something is asked of a session that it cannot do, or cannot do any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from p2psip.core.events import SessionReason, SessionState
from p2psip.errors import ConnectionFailureException, OperationFailureException, OperationFailureReason

if TYPE_CHECKING:
    from p2psip.core.flow import Flow
    from p2psip.core.session import Session

_STATES = {
    SessionState.IDLE: "it has not been begun",
    SessionState.CONNECTING: "it is being established",
    SessionState.ALERTED: "it is being established",
    SessionState.CONNECTED: "it is established already",
    SessionState.INCOMING: "it has not been accepted",
    SessionState.REDIRECTING: "it is being redirected",
}
_ENDS = {
    SessionReason.CANCELED: "the caller has taken the call back",
    SessionReason.TERMINATED_REMOTELY: "the peer has ended it",
    SessionReason.UNREACHABLE: "the connection to the peer was lost",
    SessionReason.TIMEOUT: "it took too long",
}


def wrong_time(session: Session, what: str) -> OperationFailureException:
    """The command does not fit the state; ``what`` completes "cannot be"."""
    why = _STATES.get(session.state) or _ENDS.get(session.reason, "it has ended")
    return OperationFailureException(
        f"The session {session.call_id} cannot be {what}: {why}.", OperationFailureReason.INVALID_SESSION_STATE
    )


def overtaken(session: Session) -> OperationFailureException:
    """For an operation that the end of the session has overtaken."""
    who = "the peer" if session.reason is SessionReason.TERMINATED_REMOTELY else "this side"
    return OperationFailureException(
        f"The session {session.call_id} was ended by {who} before this was done.",
        OperationFailureReason.SESSION_TERMINATED,
    )


def connection_lost(flow: Flow) -> ConnectionFailureException:
    """The dialog's connection is gone, which a session survives."""
    return ConnectionFailureException(
        f"The connection with {flow.remote[0]}:{flow.remote[1]} was lost; the session goes on, and its next request "
        "opens another one."
    )
