"""What one network counts. Each of these only grows; the loop's thread writes them, any thread may read them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from p2psip.errors import (
    ConnectionFailureException,
    OperationFailureException,
    OperationFailureReason,
    RealTimeException,
    TlsFailureException,
    TlsFailureReason,
)
from p2psip.message import Malformed, Request, Response
from p2psip.message.names import KNOWN_METHODS

OTHER = "other"
"""Methods that the library does not know: a stranger could think of any number of them."""


MOST_KINDS = 1000
"""Of messages that we send: an application may think of any number of methods."""
_BEGINNINGS = {method.encode()[:7]: method for method in KNOWN_METHODS}
_BEGINNINGS |= {f"{method} ".encode(): method for method in KNOWN_METHODS if len(method) < 7}


class Sent(dict[bytes, int]):
    """Messages that we sent, by the first 7 octets of a request, or the status code of a response."""

    __slots__ = ()

    def __missing__(self, kind: bytes) -> int:
        if len(self) >= MOST_KINDS:
            others = [each for each in self if self.kind(each) == OTHER]
            self[OTHER.encode()] = sum(map(self.pop, others))
        return 0

    @staticmethod
    def kind(beginning: bytes) -> str | int:
        """Which method or status code that is."""
        if beginning.isdigit():
            return int(beginning)
        return _BEGINNINGS.get(beginning) or _BEGINNINGS.get(beginning.partition(b" ")[0] + b" ", OTHER)


class Counts:
    """Counters of connections and of what they carry.

    Attributes:
        opened: Connections, by ``"incoming"`` and ``"outgoing"``; in handshake or later.
        closed: Connections, by what ended them; see :func:`what_ended`.
        handshakes: TLS handshakes by their result.
        refused: What a limit kept out, by the field of ``ManagerSettings``.
        timeouts: By the field of ``ManagerSettings``; those of connections are among ``closed``.
        bytes_sent, bytes_received: Without TLS and what is below it.
        sent: Messages by what is cheap to look at; see :class:`Sent`.
        received: Messages by method or status code.
        malformed: Messages that were none.
    """

    __slots__ = (
        "bytes_received",
        "bytes_sent",
        "closed",
        "handshakes",
        "malformed",
        "opened",
        "received",
        "refused",
        "sent",
        "timeouts",
    )

    def __init__(self) -> None:
        self.opened: Counter[str] = Counter()
        self.closed: Counter[str] = Counter()
        self.handshakes: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.timeouts: Counter[str] = Counter()
        self.bytes_sent = 0
        self.bytes_received = 0
        self.sent = Sent()
        self.received: defaultdict[str | int, int] = defaultdict(int)
        self.malformed = 0

    def messages_received(self, messages: Iterable[Request | Response | Malformed]) -> None:
        """Some more."""
        received = self.received
        for message in messages:
            if type(message) is Response:
                received[message.status_code] += 1  # three digits
            elif type(message) is Request:
                received[message.method if message.method in KNOWN_METHODS else OTHER] += 1
            else:
                self.malformed += 1
                self.limit_reached(message.error)  # type: ignore[union-attr]

    def limit_reached(self, error: RealTimeException) -> None:
        """Something was refused; it counts where that was for a limit."""
        if error._limit is not None:
            self.refused[error._limit] += 1

    def connection_closed(self, is_handshake: bool, is_ready: bool, error: RealTimeException | None) -> None:
        """A connection has ended.

        Args:
            is_handshake: It was in a TLS handshake.
            is_ready: Messages had been able to flow.
        """
        ended_by = what_ended(error)
        if is_handshake:
            self.handshakes[_result(error)] += 1
            ended_by = ended_by if ended_by in ("disposed", "handshake_timeout") else "handshake"
        elif is_ready and isinstance(error, TlsFailureException) and _is_late_refusal(error):
            self.handshakes["refused_afterwards"] += 1
        self.closed[ended_by] += 1


def what_ended(error: RealTimeException | None) -> str:
    """What ended a connection: a field of ``ManagerSettings``, or one word."""
    if error is None:
        return "peer"
    if error._limit is not None:
        return error._limit
    if isinstance(error, TlsFailureException):
        return "certificate" if error.failure_reason in _CERTIFICATES else "tls"
    if isinstance(error, OperationFailureException):
        return "disposed" if error.failure_reason is OperationFailureReason.ABORTED else "denied"
    return "lost" if isinstance(error, ConnectionFailureException) else "other"


_CERTIFICATES = frozenset(
    (
        TlsFailureReason.CERTIFICATE_EXPIRED,
        TlsFailureReason.REMOTE_CERTIFICATE_REVOKED,
        TlsFailureReason.INCORRECT_NAME_IN_REMOTE_CERTIFICATE,
    )
)
_LATE = frozenset((TlsFailureReason.TLS_NEGOTIATION_FAILURE, TlsFailureReason.REMOTE_DISCONNECTED))


def _is_late_refusal(error: TlsFailureException) -> bool:
    """What a server of TLS 1.3 thinks of our certificate comes when the handshake is over for us."""
    return error.failure_reason in _LATE


def _result(error: RealTimeException | None) -> str:
    if isinstance(error, TlsFailureException):
        return error.failure_reason.name.lower()
    if error is not None and error._limit == "handshake_timeout":
        return "timeout"
    return "aborted"
