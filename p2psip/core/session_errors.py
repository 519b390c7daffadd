"""What is said when something is asked of a session that it cannot do, or cannot do any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from p2psip.enums import SignalingState, SignalingTransitionReason
from p2psip.errors import ConnectionFailureException, OperationFailureException, OperationFailureReason

if TYPE_CHECKING:
    from p2psip.core.flow import Flow
    from p2psip.core.session_state import SessionState

DIALOG_IS_GONE = frozenset((404, 410, 416, 481, 482, 483, 484, 485, 502, 604))
"""Answers that say that the peer cannot be reached any more in this dialog (RFC 5057 5.1)."""

_STATES = {
    SignalingState.IDLE: "it has not been begun",
    SignalingState.CONNECTING: "it is being established",
    SignalingState.ALERTED: "it is being established",
    SignalingState.CONNECTED: "it is established already",
    SignalingState.INCOMING: "it has not been accepted",
    SignalingState.REDIRECTING: "it is being redirected",
}
_ENDS = {
    SignalingTransitionReason.CANCELED: "the caller has taken the call back",
    SignalingTransitionReason.TERMINATED_REMOTELY: "the peer has ended it",
    SignalingTransitionReason.UNREACHABLE: "the connection to the peer was lost",
    SignalingTransitionReason.TIMEOUT: "it took too long",
}
_WHO = {
    SignalingTransitionReason.CANCELED: "was ended by the peer",
    SignalingTransitionReason.TERMINATED_REMOTELY: "was ended by the peer",
    SignalingTransitionReason.UNREACHABLE: "ended because the connection to the peer was lost",
    SignalingTransitionReason.TIMEOUT: "ended because the peer was silent for too long",
    SignalingTransitionReason.SESSION_TIMER_EXPIRED: "ended because the peer was silent for too long",
    SignalingTransitionReason.SESSION_DOES_NOT_EXIST: "ended because the peer does not know it any more",
}


def wrong_time(session: SessionState, what: str) -> OperationFailureException:
    """The command does not fit the state; ``what`` completes "cannot be"."""
    why = _STATES.get(session.state) or _ENDS.get(session.reason, "it has ended")
    return OperationFailureException(
        f"The session {session.call_id} cannot be {what}: {why}.", OperationFailureReason.INVALID_SESSION_STATE
    )


def overtaken(session: SessionState) -> OperationFailureException:
    """For an operation that the end of the session has overtaken."""
    who = _WHO.get(session.reason, "was ended by this side")
    return OperationFailureException(
        f"The session {session.call_id} {who} before this was done.",
        OperationFailureReason.SESSION_TERMINATED,
    )


def taken_back(session: SessionState) -> OperationFailureException:
    """For a change that was never sent, or not again."""
    return OperationFailureException(
        f"The change of the session {session.call_id} was taken back.", OperationFailureReason.ABORTED
    )


def connection_lost(flow: Flow) -> ConnectionFailureException:
    """The dialog's connection is gone, which a session survives."""
    return ConnectionFailureException(
        f"The connection with {flow.remote[0]}:{flow.remote[1]} was lost; the session goes on, and its next request "
        "opens another one."
    )
