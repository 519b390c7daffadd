"""What a connection that has ended counts as."""

from __future__ import annotations

import pytest

from p2psip.errors import (
    ConnectionFailureException,
    OperationFailureException,
    OperationFailureReason,
    RealTimeException,
    TlsFailureException,
    TlsFailureReason,
    limited,
)
from p2psip.net.counts import Counts


def tls(reason: TlsFailureReason) -> TlsFailureException:
    return TlsFailureException("TLS failed.", reason)


LOST = ConnectionFailureException("It was lost.")
DISPOSED = OperationFailureException("It is over.", OperationFailureReason.ABORTED)
DENIED = OperationFailureException("No.", OperationFailureReason.CONNECTION_AUTHORIZATION_FAILED)


def late(limit: str) -> RealTimeException:
    return limited(limit, ConnectionFailureException("It took too long."))


@pytest.mark.parametrize(
    ("error", "ending"),
    [
        (None, "peer"),
        (LOST, "lost"),
        (late("idle_timeout"), "idle_timeout"),
        (DISPOSED, "disposed"),
        (DENIED, "denied"),
        (tls(TlsFailureReason.CERTIFICATE_EXPIRED), "certificate"),
        (tls(TlsFailureReason.REMOTE_CERTIFICATE_REVOKED), "certificate"),
        (tls(TlsFailureReason.INCORRECT_NAME_IN_REMOTE_CERTIFICATE), "certificate"),
        (tls(TlsFailureReason.OTHER), "tls"),
    ],
)
@pytest.mark.parametrize("is_ready", [False, True])
def test_what_ended_a_connection(error: RealTimeException | None, ending: str, is_ready: bool) -> None:
    counts = Counts()
    counts.connection_closed(False, is_ready, error)
    assert (counts.closed, counts.handshakes) == ({ending: 1}, {})


@pytest.mark.parametrize("reason", [TlsFailureReason.TLS_NEGOTIATION_FAILURE, TlsFailureReason.REMOTE_DISCONNECTED])
@pytest.mark.parametrize(("is_ready", "handshakes"), [(True, {"refused_afterwards": 1}), (False, {})])
def test_a_refusal_that_comes_when_messages_may_flow(
    reason: TlsFailureReason, is_ready: bool, handshakes: dict[str, int]
) -> None:
    counts = Counts()
    counts.connection_closed(False, is_ready, tls(reason))
    assert (counts.closed, counts.handshakes) == ({"tls": 1}, handshakes)


@pytest.mark.parametrize(
    ("error", "ending", "result"),
    [
        (tls(TlsFailureReason.CERTIFICATE_EXPIRED), "handshake", "certificate_expired"),
        (tls(TlsFailureReason.REMOTE_DISCONNECTED), "handshake", "remote_disconnected"),
        (late("handshake_timeout"), "handshake_timeout", "timeout"),
        (late("maximum_buffered"), "handshake", "aborted"),
        (LOST, "handshake", "aborted"),
        (DISPOSED, "disposed", "aborted"),
        (None, "handshake", "aborted"),
    ],
)
def test_what_ended_a_handshake(error: RealTimeException | None, ending: str, result: str) -> None:
    counts = Counts()
    counts.connection_closed(True, False, error)
    assert (counts.closed, counts.handshakes) == ({ending: 1}, {result: 1})
