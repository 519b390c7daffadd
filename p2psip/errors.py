"""Every exception that the library raises, and the reasons they carry.

The tree is UCMA's: catch the specific class first, :class:`RealTimeException` last. State errors
(:class:`RealTimeInvalidOperationException`) stand outside of it, argument errors are the built-in
``ValueError`` and ``TypeError``.

Every message is one sentence for the person who reads it: the peer, what was tried, what came back and,
where there is one, what to do. The underlying ``OSError`` or ``ssl.SSLError`` is chained as the cause.
"""

from __future__ import annotations

import copy
import enum
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from p2psip.message import Response


class TlsFailureReason(enum.IntEnum):
    """Why a TLS connection could not be made (UCMA's values)."""

    OTHER = 0
    LOCAL_CERTIFICATE_NOT_FOUND = 1
    UNTRUSTED_REMOTE_CERTIFICATE = 2
    INCORRECT_NAME_IN_REMOTE_CERTIFICATE = 3
    CERTIFICATE_EXPIRED = 4
    TLS_NEGOTIATION_FAILURE = 5
    REMOTE_DISCONNECTED = 6
    REMOTE_CERTIFICATE_REVOKED = 7
    REMOTE_CERTIFICATE_INVALID_USAGE = 8


class OperationFailureReason(enum.IntEnum):
    """Why an operation was overtaken by local state (UCMA's values, and the last two, which are ours)."""

    UNKNOWN = 0
    ENDPOINT_TERMINATED = 1
    SESSION_TERMINATED = 2
    ABORTED = 3
    CONNECTION_THROTTLING = 4
    INVALID_SESSION_STATE = 5
    SESSION_TERMINATED_AFTER_200_RESPONSE = 6
    SESSION_RETRYING = 7
    MEDIA_FAILURE = 8
    THROTTLED = 9
    CONNECTION_AUTHORIZATION_FAILED = 10


class ParsingFailureReason(enum.IntEnum):
    """Which part of a message could not be read (UCMA's values)."""

    BAD_HEADER = 0
    BAD_MESSAGE_BODY = 1
    OTHER = 2


class AuthenticationFailureReason(enum.IntEnum):
    """Why authentication failed (UCMA's values)."""

    NONE = 0
    NO_AUTHENTICATING_AUTHORITY = 1
    INVALID_CREDENTIALS = 2
    MISSING_CREDENTIALS = 3
    NO_COMMON_PROTOCOLS = 4
    UNCHALLENGING_SERVER = 5
    SKEWED_CLOCK = 6


class InvalidOperationReason(enum.IntEnum):
    """Why an operation is not possible now (UCMA's values)."""

    NONE = 0
    RETRYABLE_OPERATION = 1
    NOT_INITIALIZED = 2


class RealTimeException(Exception):
    """Root of all failures of the network, of peers and of certificates."""

    _limit: str | None = None
    """The field of ``ManagerSettings`` that it was for; by that it is counted."""


class ConnectionFailureException(RealTimeException, ConnectionError):
    """There is no way to the peer, or a port cannot be listened on.

    The cause is the ``OSError`` of the last attempt where there was one.
    """


class TlsFailureException(RealTimeException):
    """A TLS connection was refused by us or by the peer, or a local certificate cannot be used.

    Attributes:
        failure_reason: The kind of failure, for programs.
        error_code: OpenSSL's verification code, or the error number of the cause; 0 when there is none.
        local_endpoint: ``(host, port)`` of our side, or None.
        remote_endpoint: ``(host, port)`` of the peer, or None.
        remote_certificate: The peer's certificate (DER bytes), or None when it showed none.
    """

    def __init__(
        self,
        message: str,
        failure_reason: TlsFailureReason = TlsFailureReason.OTHER,
        *,
        error_code: int = 0,
        local_endpoint: tuple[str, int] | None = None,
        remote_endpoint: tuple[str, int] | None = None,
        remote_certificate: bytes | None = None,
    ) -> None:
        super().__init__(message)
        self.failure_reason = failure_reason
        self.error_code = error_code
        self.local_endpoint = local_endpoint
        self.remote_endpoint = remote_endpoint
        self.remote_certificate = remote_certificate


class OperationTimeoutException(RealTimeException, TimeoutError):
    """No answer came in time."""


class OperationFailureException(RealTimeException):
    """The operation was overtaken by local state: an ended endpoint, a limit, a denied connection.

    Attributes:
        failure_reason: The kind of failure, for programs.
    """

    def __init__(self, message: str, failure_reason: OperationFailureReason = OperationFailureReason.UNKNOWN) -> None:
        super().__init__(message)
        self.failure_reason = failure_reason


class FailureResponseException(RealTimeException):
    """The peer answered with a final response of 300 or above.

    Attributes:
        response_data: The response (``SipResponseData``), or None.
        warnings: The values of its Warning headers (RFC 3261 20.43).
        diagnostics: The values of its Reason and Error-Info headers.
        retry_after: Seconds after which it may go better (Retry-After, RFC 3261 20.33), or None.
    """

    def __init__(
        self,
        message: str,
        response_data: Any = None,
        *,
        warnings: Sequence[str] = (),
        diagnostics: Sequence[str] = (),
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.response_data = response_data
        self.warnings = tuple(warnings)
        self.diagnostics = tuple(diagnostics)
        self.retry_after = retry_after


class AuthenticationException(FailureResponseException):
    """The peer or a proxy asked for credentials (401, 407) and did not get the right ones.

    Attributes:
        failure_reason: The kind of failure, for programs.
        realm: The realm that asked, or None.
        supported_authentication_protocols: The schemes and algorithms that it offered.
    """

    failure_reason = AuthenticationFailureReason.NONE
    realm: str | None = None
    supported_authentication_protocols: tuple[str, ...] = ()


class PublishSubscribeException(FailureResponseException):
    """A SUBSCRIBE or PUBLISH was rejected."""


class ServerPolicyException(FailureResponseException):
    """A policy of the peer forbids the request (403 with a Warning)."""


class FailureRequestException(RealTimeException):
    """The peer reported a failure in a request of its own.

    Attributes:
        request_data: The request (``SipRequestData``), or None.
    """

    def __init__(self, message: str, request_data: Any = None) -> None:
        super().__init__(message)
        self.request_data = request_data


class MessageParsingException(RealTimeException):
    """Bytes that are not the SIP message or value they should be.

    Attributes:
        reason: Which part is wrong.
        line_number: The line of the message's head, counted from 1; -1 when unknown.
        status_code: The answer that RFC 3261 asks for (400, 413, 505, ...); None means drop it.
        answer: A complete response to write before the connection is closed, when enough of the
            request could be read to make one; else None.
    """

    def __init__(
        self,
        message: str,
        reason: ParsingFailureReason = ParsingFailureReason.BAD_HEADER,
        *,
        line_number: int = -1,
        status_code: int | None = 400,
        answer: Response | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.line_number = line_number
        self.status_code = status_code
        self.answer = answer


class RealTimeInvalidOperationException(RuntimeError):
    """The object is not in a state that allows the operation.

    Attributes:
        failure_reason: Whether the same call may succeed later.
    """

    def __init__(self, message: str, failure_reason: InvalidOperationReason = InvalidOperationReason.NONE) -> None:
        super().__init__(message)
        self.failure_reason = failure_reason


_E = TypeVar("_E", bound=BaseException)
_R = TypeVar("_R", bound=RealTimeException)


def limited(limit: str, error: _R) -> _R:
    """The error, which knows from now on which setting it was for."""
    error._limit = limit
    return error


def fresh(error: _E) -> _E:
    """A copy of ``error`` for one more waiter.

    An exception object that several threads raise grows one shared traceback; each waiter gets its own.
    """
    twin = copy.copy(error)
    twin.__cause__ = error.__cause__
    return without_frames(twin)


def without_frames(error: _E) -> _E:
    """The error itself; it and what it was caused by have no traceback any more.

    Frames of the loop's thread hold whatever was done in the same turn, messages and connections of others, for as long as
    somebody keeps the error.
    """
    link: BaseException | None = error
    seen = set()
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error
