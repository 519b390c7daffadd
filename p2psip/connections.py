"""Connections and pools as applications see them, and the args of the events that tell of them."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from p2psip.enums import SipTransportType
from p2psip.net.connection import Connection
from p2psip.net.pool import Pool
from p2psip.values import IPEndPoint

if TYPE_CHECKING:
    from p2psip.stack import Stack

ItemT = TypeVar("ItemT")


class RealTimeConnection:
    """One TCP or TLS connection. Usable from any thread; two of these are equal when they are the same connection."""

    __slots__ = ("_connection", "_stack")

    def __init__(self, connection: Connection, stack: Stack) -> None:
        self._connection = connection
        self._stack = stack

    @property
    def id(self) -> int:
        """A number that no other connection of the manager bears."""
        return self._connection.id

    @property
    def transport(self) -> SipTransportType:
        """TCP or TLS."""
        return SipTransportType[self._connection.transport]

    @property
    def local_endpoint(self) -> IPEndPoint:
        """Address and port of our side."""
        return IPEndPoint(*self._connection.local)

    @property
    def remote_endpoint(self) -> IPEndPoint:
        """Address and port of the peer's side."""
        return IPEndPoint(*self._connection.remote)

    @property
    def is_incoming(self) -> bool:
        """The peer opened it."""
        return self._connection.is_incoming

    @property
    def is_connected(self) -> bool:
        """It is open, as far as is known."""
        return self._connection.is_connected

    @property
    def connection_pool(self) -> ConnectionPool | None:
        """The pool that it belongs to; None for an incoming one."""
        pool = self._connection.pool
        return None if pool is None else ConnectionPool(pool, self._stack)

    @property
    def remote_certificate(self) -> bytes | None:
        """The peer's verified certificate (DER); None on TCP and where the peer showed none."""
        tls = self._connection.tls
        return None if tls is None else tls.certificate

    @property
    def remote_identities(self) -> tuple[str, ...]:
        """The names that the peer's certificate carries (RFC 5922 7.1), in lower case; empty on TCP."""
        tls = self._connection.tls
        return () if tls is None or tls.identities is None else tuple(tls.identities.names)

    @property
    def tls_version(self) -> str | None:
        """``"TLSv1.2"`` or ``"TLSv1.3"``; None on TCP."""
        tls = self._connection.tls
        return None if tls is None else tls.version

    @property
    def cipher(self) -> str | None:
        """The cipher suite by OpenSSL's name; None on TCP."""
        tls = self._connection.tls
        return None if tls is None else tls.cipher

    @property
    def matching_domain_name(self) -> str | None:
        """The entry of ``allowed_domains`` that let the peer in; None on outgoing connections and without the list."""
        return self._connection.matching_domain_name

    @property
    def application_context(self) -> Any:
        """Whatever the application wants to find here again."""
        return self._connection.application_context

    @application_context.setter
    def application_context(self, value: Any) -> None:
        self._connection.application_context = value

    @property
    def bytes_sent(self) -> int:
        """So far, without TLS and the headers below it."""
        return self._connection.bytes_sent

    @property
    def bytes_received(self) -> int:
        """So far, without TLS and the headers below it."""
        return self._connection.bytes_received

    @property
    def messages_sent(self) -> int:
        """Requests and responses so far; keep-alives do not count."""
        return self._connection.messages_sent

    @property
    def messages_received(self) -> int:
        """Requests and responses so far; keep-alives do not count."""
        return self._connection.messages_received

    def disconnect(self) -> None:
        """Close it: what is queued is still sent, and requests that wait for an answer over it fail.

        Does not block; a closed connection stays closed.
        """
        self._stack.disconnect(self._connection)

    def __eq__(self, other: object) -> bool:
        return self._connection is other._connection if isinstance(other, RealTimeConnection) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._connection)

    def __repr__(self) -> str:
        arrow = "<-" if self.is_incoming else "->"
        local, remote = self._connection.local, self._connection.remote
        return (
            f"<RealTimeConnection {self._connection.transport} {local[0]}:{local[1]} {arrow} {remote[0]}:{remote[1]}>"
        )


class ConnectionPool:
    """The outgoing connections to one destination: transport, host as it was asked for, port, expected identity."""

    __slots__ = ("_pool", "_stack")

    def __init__(self, pool: Pool, stack: Stack) -> None:
        self._pool = pool
        self._stack = stack

    @property
    def host_name(self) -> str:
        """The host as it was asked for."""
        return self._pool.target.host

    @property
    def port(self) -> int | None:
        """The port that was asked for; None where the DNS says which (RFC 3263 4.2), or it is the transport's own."""
        return self._pool.target.port

    @property
    def transport(self) -> SipTransportType:
        """TCP or TLS."""
        return SipTransportType[self._pool.target.transport]

    @property
    def identity(self) -> str | None:
        """The name that the peer's certificate has to bear; None where it is not TLS and cannot become it."""
        return self._pool.target.identity

    @property
    def connections(self) -> tuple[RealTimeConnection, ...]:
        """The connections of just now."""
        return tuple(RealTimeConnection(c, self._stack) for c in tuple(self._pool.connections))

    def __len__(self) -> int:
        return len(self._pool.connections)

    def __eq__(self, other: object) -> bool:
        return self._pool is other._pool if isinstance(other, ConnectionPool) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._pool)

    def __repr__(self) -> str:
        return f"<ConnectionPool {self.transport.name} {self._pool.target}, {len(self)} connections>"


@dataclasses.dataclass(frozen=True)
class CollectionChangedEventArgs(Generic[ItemT]):
    """A connection or pool came or went.

    Attributes:
        item: Which one.
    """

    item: ItemT


@dataclasses.dataclass(frozen=True)
class IncomingConnectionAddedEventArgs(CollectionChangedEventArgs[RealTimeConnection]):
    """A peer has connected, and was let in.

    Attributes:
        matching_domain_name: The entry of ``allowed_domains`` that let it in, or None.
        remote_certificate: Its certificate (DER), or None.
    """

    matching_domain_name: str | None = None
    remote_certificate: bytes | None = None


@dataclasses.dataclass(frozen=True)
class ErrorEventArgs:
    """Something failed that nobody waits for.

    Attributes:
        exception: What; None where it was asked for (``stop_listening``).
    """

    exception: Exception | None


@dataclasses.dataclass(frozen=True)
class UnhandledExceptionEventArgs:
    """A handler of the application raised.

    Attributes:
        exception: What it raised.
        sender: The object whose event it handled, or None.
        handler: The handler.
    """

    exception: BaseException
    sender: object
    handler: object


@dataclasses.dataclass(frozen=True)
class TraceEventArgs:
    """One message that was sent or received.

    Attributes:
        direction: ``"sent"`` or ``"received"``.
        connection: Over which connection.
        time: When, in seconds since the epoch.
        data: The message as it is on the wire; what Authorization and its like say is replaced by ``***``.
    """

    direction: str
    connection: RealTimeConnection
    time: float
    data: bytes

    @property
    def start_line(self) -> str:
        """The first line of the message."""
        return self.data.partition(b"\r\n")[0].decode("utf-8", "backslashreplace")


class ConnectionAuthorizationRequestedEventArgs:
    """A connection is open and its peer verified: may messages flow?

    A handler calls :meth:`allow` or :meth:`deny`, or :meth:`delay_authorization` and one of the two later, from any
    thread. A connection that nobody decided on when the handlers have returned is denied, and so is one whose delay
    lasts longer than ``settings.authorization_timeout`` (30 s).
    """

    __slots__ = ("_connection", "_decide", "_decided", "_delayed", "_lock")

    def __init__(self, connection: RealTimeConnection, decide: Callable[[bool], object]) -> None:
        self._connection = connection
        self._decide = decide
        self._decided = False
        self._delayed = False
        self._lock = threading.RLock()  # a signal handler may come back here

    @property
    def connection(self) -> RealTimeConnection:
        """Which one; its ``remote_certificate`` and ``remote_identities`` say who the peer is."""
        return self._connection

    def allow(self) -> None:
        """Let messages flow. The first decision counts."""
        self._settle(True)

    def deny(self) -> None:
        """Close it; requests that wait for it fail with OperationFailureException."""
        self._settle(False)

    def delay_authorization(self) -> None:
        """The decision comes after the handlers have returned."""
        self._delayed = True

    def _handlers_done(self) -> None:
        if not self._delayed:
            self._settle(False)

    def _settle(self, allowed: bool) -> None:
        with self._lock:
            if self._decided:
                return
            self._decided = True
        self._decide(allowed)
