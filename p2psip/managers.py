"""Connection managers: who listens, who connects, with which certificate."""

from __future__ import annotations

import abc
import atexit
import concurrent.futures
import itertools
import weakref
from typing import TYPE_CHECKING, Any, TypeVar, cast

from p2psip import arguments
from p2psip.config import ManagerSettings
from p2psip.connections import (
    CollectionChangedEventArgs,
    ConnectionAuthorizationRequestedEventArgs,
    ConnectionPool,
    ErrorEventArgs,
    IncomingConnectionAddedEventArgs,
    RealTimeConnection,
    TraceEventArgs,
    UnhandledExceptionEventArgs,
)
from p2psip.core.directory import normal_host
from p2psip.enums import EndpointState, EndpointTransitionReason, SipTransportType
from p2psip.errors import RealTimeException, RealTimeInvalidOperationException, TlsFailureException
from p2psip.listening import Listening
from p2psip.net.connection import Connection
from p2psip.net.given import ResolverNames
from p2psip.net.interfaces import primary_address
from p2psip.net.loop import LoopEnded
from p2psip.net.pool import Pool
from p2psip.observing import Observing
from p2psip.recording import Recording
from p2psip.stack import Stack, StackOwner
from p2psip.sync import Deadline, Event, Operation, Strand, fork_safe_lock, worker_blocks
from p2psip.trace import mask

if TYPE_CHECKING:
    from p2psip.endpoint import RealTimeEndpoint
    from p2psip.net.tls import TlsContexts

EXIT_GRACE = 1.0
"""Seconds that all managers together may take at the end of the interpreter."""

FAREWELL = 1.5
"""Seconds, at most, that the end of a manager waits until the peers of its sessions and subscriptions have been told; what
is under way has to fail within 2."""

_Self = TypeVar("_Self", bound="RealTimeConnectionManager")


class RealTimeConnectionManager(Observing, abc.ABC):
    """Owns the connections of its endpoints. Usable from any thread.

    A manager is a context manager: leaving it disposes it. One that has listened or connected lives on until it is
    disposed, or the interpreter ends, even if nobody refers to it. What has the name of an event tells of one thing
    at a time, on a worker thread.
    """

    connection_pool_added: Event[RealTimeConnectionManager, CollectionChangedEventArgs[ConnectionPool]] = Event()
    """The first connection to a destination is about to be made."""
    connection_pool_removed: Event[RealTimeConnectionManager, CollectionChangedEventArgs[ConnectionPool]] = Event()
    """The last connection to a destination is gone."""
    unhandled_exception: Event[RealTimeConnectionManager, UnhandledExceptionEventArgs] = Event()
    """A handler of this manager or of one of its endpoints raised; it was logged, and the next one has run."""
    trace: Event[RealTimeConnectionManager, TraceEventArgs] = Event()
    """A message was sent or received. For people and tests: what secrets it bears is masked."""

    _stack: Stack

    @property
    @abc.abstractmethod
    def transport(self) -> SipTransportType:
        """What it listens with, and the default of its endpoints."""

    def __init__(
        self,
        local_host: str | None,
        settings: ManagerSettings | None,
        contexts: TlsContexts | None,
        resolver: ResolverNames | None,
    ) -> None:
        self._local_host = None if local_host is None else arguments.local_host(local_host)
        self._settings = (
            ManagerSettings() if settings is None else arguments.instance(settings, ManagerSettings, "settings")
        )
        self._lock = fork_safe_lock()
        self._endpoints: list[RealTimeEndpoint] = []
        self._disposed = False
        self._gone: Operation[None] = Operation("dispose", callbacks=_no_workers)
        self._last_strands: list[Strand] = []  # of what has ended with the manager
        self._stack = Stack(
            f"p2psip {self.transport.name} manager {next(_numbers)}",
            self._settings,
            cast(StackOwner, self),  # which the managers that can be made are
            tls=contexts,
            names=resolver,
            on_unhandled=self._report_unhandled,
        )
        self._began_at = self._stack.loop.clock.now()
        self._ended_at: float | None = None
        self._recordings: list[Recording] = []
        _managers.add(self)

    # ------------------------------------------------------------------ what it is

    @property
    def settings(self) -> ManagerSettings:
        """Its timers and limits."""
        return self._settings

    @property
    def local_host(self) -> str:
        """The name or address that Via and Contact bear: the one given; on TLS else the certificate's first identity,
        on TCP else the address listened on, or one of this machine's."""
        if self._local_host is not None:
            return self._local_host
        for host, _ in self._stack.network.listening_addresses:
            if host not in ("0.0.0.0", "::"):
                return host
        return primary_address()

    @property
    def endpoints(self) -> tuple[RealTimeEndpoint, ...]:
        """The endpoints of just now."""
        return tuple(self._endpoints)

    def connections(self) -> tuple[RealTimeConnection, ...]:
        """The open connections of just now, incoming and outgoing."""
        return tuple(RealTimeConnection(c, self._stack) for c in self._stack.network.connections())

    def connection_pools(self) -> tuple[ConnectionPool, ...]:
        """The outgoing pools of just now."""
        return tuple(ConnectionPool(pool, self._stack) for pool in self._stack.network.pools())

    @property
    def is_disposed(self) -> bool:
        """``dispose()`` was called; nothing can be begun any more."""
        return self._disposed

    @property
    def _is_over(self) -> bool:
        """It is disposed, its thread has ended, or it belongs to the process that this one was forked from."""
        return self._disposed or self._stack.loop.has_ended

    # ------------------------------------------------------------------ the end

    def dispose(self) -> None:
        """End its endpoints, close its connections and its threads.

        Peers of sessions and subscriptions are told (BYE, NOTIFY), and are given a moment to answer. Blocks for at most
        ``settings.dispose_grace`` (5 s) plus what handlers that still run take of it; allowed in handlers, and as often
        as you like. Requests that wait fail with OperationFailureException within 2 s.
        """
        self._dispose(self._settings.dispose_grace)

    def _dispose(self, grace: float) -> None:
        deadline = Deadline(grace)
        with self._lock:
            first, self._disposed = not self._disposed, True
        try:
            with worker_blocks("dispose()"):
                if first:
                    ends = [endpoint.begin_terminate() for endpoint in self.endpoints]
                    concurrent.futures.wait(ends, min(FAREWELL, grace / 2))
                    try:
                        self._stack.post(self._stack.dispose, grace, self._stack.loop.stop)
                    except LoopEnded:
                        pass
                self._stack.loop.join(deadline.remaining())
            if first:
                self._let_events_out(deadline)
                self._stack.dispatcher.stop(deadline.remaining())
            elif not self._stack.dispatcher.in_worker:  # the first one may be waiting for this very handler
                concurrent.futures.wait([self._gone], deadline.remaining())
        finally:
            if first:  # nobody else is going to do it, also when this was interrupted
                self._ended_at = self._stack.loop.clock.now()
                self._close_recordings()
                self._stack.dispatcher.stop()
                self._gone.complete(None)

    def _let_events_out(self, deadline: Deadline) -> None:
        """What the end of the endpoints raised reaches its handlers, but for those that this call comes from."""
        for strand in (self._stack.events, *self._last_strands):
            if strand.is_current:
                continue
            reached: Operation[None] = Operation("the last event", callbacks=_no_workers)
            if strand.post(reached.complete, None):
                dispatcher = self._stack.dispatcher
                if dispatcher.exits and not dispatcher.workers and not reached.done():
                    return  # and none can be started
                try:
                    reached.result(deadline.remaining())
                except concurrent.futures.TimeoutError:
                    return

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.dispose()

    def _check_alive(self, what: str) -> None:
        if self._disposed:
            raise RealTimeInvalidOperationException(f"The connection manager is disposed and cannot {what}.")

    # ------------------------------------------------------------------ what its endpoints ask of it

    def _endpoint_added(self, endpoint: RealTimeEndpoint) -> None:
        with self._lock:  # which dispose() takes before it looks for endpoints
            self._check_alive("take another endpoint")
            if any(known.id == endpoint.id and known._owner == endpoint._owner for known in self._endpoints):
                raise ValueError(
                    f"{endpoint.owner_uri} has an endpoint with the id {endpoint.id} here: "
                    "the id tells the endpoints of one owner apart, so give another one."
                )
            self._endpoints.append(endpoint)
        try:
            self._stack.post(self._stack.directory.add, endpoint._record)
        except LoopEnded as error:
            self._endpoint_removed(endpoint)
            raise RealTimeInvalidOperationException(
                f"The connection manager cannot take another endpoint: {error}"
            ) from error

    def _endpoint_removed(self, endpoint: RealTimeEndpoint) -> None:
        with self._lock:
            if endpoint in self._endpoints:
                self._endpoints.remove(endpoint)
        self._strand_ends(endpoint._strand)

    def _strand_ends(self, strand: Strand) -> None:
        """Something of the endpoints has ended; when that is because the manager has, its last event is let out."""
        if self._disposed:
            self._last_strands.append(strand)

    def _report_unhandled(self, sender: object, error: BaseException, handler: object) -> None:
        """Any thread: tell the application of an exception of its own."""
        if self.unhandled_exception:
            args = UnhandledExceptionEventArgs(error, sender, handler)
            self._stack.events.post(self.unhandled_exception.raise_event, self, args)

    def _raise(self, event: Event[Any, Any], args: object) -> None:
        """Queue an event of this manager."""
        self._stack.events.post(event.raise_event, self, args, self._report_unhandled)

    # ------------------------------------------------------------------ what the stack tells, on the loop thread

    def _traced(self, direction: str, connection: Connection, when: float, data: bytes) -> None:
        args = TraceEventArgs(direction, RealTimeConnection(connection, self._stack), when, mask(data))
        self._raise(self.trace, args)

    def _sent_by(self, connection: Connection) -> str:
        host = self._local_host or connection.local[0]
        port = connection.local[1]
        if connection.transport == self.transport.name:  # else it is TCP, which a TLS manager does not listen on
            port = self._stack.network.listening_port or port
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def _pool_added(self, pool: Pool) -> None:
        self._raise(self.connection_pool_added, CollectionChangedEventArgs(ConnectionPool(pool, self._stack)))

    def _pool_removed(self, pool: Pool) -> None:
        self._raise(self.connection_pool_removed, CollectionChangedEventArgs(ConnectionPool(pool, self._stack)))


class RealTimeServerConnectionManager(RealTimeConnectionManager, Listening):
    """A manager that can listen. Use one of its two subclasses."""

    incoming_connection_added: Event[RealTimeServerConnectionManager, IncomingConnectionAddedEventArgs] = Event()
    """A peer connected and was let in."""
    incoming_connection_removed: Event[
        RealTimeServerConnectionManager, CollectionChangedEventArgs[RealTimeConnection]
    ] = Event()
    """A connection that a peer had opened is closed."""
    incoming_tls_negotiation_failed: Event[RealTimeServerConnectionManager, ErrorEventArgs] = Event()
    """A peer that connected was refused, or refused us, in the handshake: a TlsFailureException says why."""
    listening_aborted: Event[RealTimeServerConnectionManager, ErrorEventArgs] = Event()
    """Listening has ended: because it was asked for (no exception), or because it failed."""
    connection_authorization_requested: Event[
        RealTimeServerConnectionManager, ConnectionAuthorizationRequestedEventArgs
    ] = Event()
    """A connection, incoming or outgoing, is open and may carry messages if a handler allows it. Without a handler
    every connection may. Each connection is asked about on its own, so a slow decision delays no other."""

    # ------------------------------------------------------------------ who takes what comes in

    def _listening_changed(self, state: EndpointState, reason: EndpointTransitionReason) -> None:
        """Loop thread: endpoints follow."""
        self._hosts_changed()
        for endpoint in self.endpoints:
            endpoint._listening_changed(state, reason)

    @property
    def _own_names(self) -> tuple[str, ...]:
        """What this manager proves to be, besides its local host."""
        return ()

    def _hosts_changed(self) -> None:
        """Loop thread: Via and the hosts that are ours follow."""
        hosts = [*(host for host, _ in self._stack.network.listening_addresses), *self._own_names]
        if self._local_host is not None:
            hosts.append(self._local_host)
        self._stack.directory.local_hosts = {normal_host(host) for host in hosts}
        self._stack.refresh_sent_by()

    @property
    def default_endpoint(self) -> RealTimeEndpoint | None:
        """Gets the requests that no endpoint's address fits; None (answer 404) unless set."""
        record = self._stack.directory.default
        return None if record is None else cast("RealTimeEndpoint", record.endpoint)

    @default_endpoint.setter
    def default_endpoint(self, endpoint: RealTimeEndpoint | None) -> None:
        with self._lock:
            if endpoint is not None and endpoint not in self._endpoints:
                raise ValueError(
                    "The default endpoint of a connection manager is one of its own endpoints that is not terminated."
                )
            self._stack.directory.default = None if endpoint is None else endpoint._record

    # ------------------------------------------------------------------ what the stack tells, on the loop thread

    @property
    def _authorization_wanted(self) -> bool:
        return bool(self.connection_authorization_requested)

    def _authorize(self, connection: Connection) -> None:
        def decide(allowed: bool) -> None:
            try:
                self._stack.post(connection.authorize, allowed)
            except LoopEnded:
                pass

        args = ConnectionAuthorizationRequestedEventArgs(RealTimeConnection(connection, self._stack), decide)
        strand = self._stack.dispatcher.strand(f"authorization of connection {connection.id}")
        strand.post(
            self.connection_authorization_requested.raise_event,
            self,
            args,
            self._report_unhandled,
            args._handlers_done,
        )

    def _connection_ready(self, connection: Connection) -> None:
        if connection.is_incoming:
            tls = connection.tls
            args = IncomingConnectionAddedEventArgs(
                RealTimeConnection(connection, self._stack),
                connection.matching_domain_name,
                None if tls is None else tls.certificate,
            )
            self._raise(self.incoming_connection_added, args)

    def _connection_closed(self, connection: Connection, error: RealTimeException | None) -> None:
        if connection.is_incoming:
            args = CollectionChangedEventArgs(RealTimeConnection(connection, self._stack))
            self._raise(self.incoming_connection_removed, args)

    def _handshake_failed(self, connection: Connection, error: TlsFailureException) -> None:
        self._raise(self.incoming_tls_negotiation_failed, ErrorEventArgs(error))

    def _listening_aborted(self, error: RealTimeException) -> None:
        self._listening_changed(EndpointState.DISCONNECTED, EndpointTransitionReason.NO_LISTENING_ADDRESSES)
        self._raise(self.listening_aborted, ErrorEventArgs(error))

    def _loop_ended(self, cause: BaseException | None) -> None:
        for endpoint in self.endpoints:
            endpoint._listening_changed(EndpointState.DISCONNECTED, EndpointTransitionReason.CONNECTION_FAILURE)


class RealTimeServerTcpConnectionManager(RealTimeServerConnectionManager):
    """Listens on TCP and connects over TCP. Whoever reaches the port can send: prefer TLS.

    Args:
        local_host: The name or address that Via and Contact bear; None means each connection's own address.
        settings: Timers and limits.
        resolver: Names that are known here, for tests and labs, each with a sequence of addresses, of ``(priority,
            weight, port, host)`` (SRV) or of the six values of a NAPTR record; nobody else is asked for them. ``"."``
            has the nameservers to ask for all others: ``(address, port)``; where it has none the DNS is never asked.

    Raises:
        ValueError, TypeError: An argument.
    """

    transport = SipTransportType.TCP

    def __init__(
        self,
        local_host: str | None = None,
        *,
        settings: ManagerSettings | None = None,
        resolver: ResolverNames | None = None,
    ) -> None:
        super().__init__(local_host, settings, None, resolver)


class _DefaultManager:
    """The shared TCP manager, as an attribute of the endpoint class: None until an endpoint needs it."""

    def __init__(self) -> None:
        self._lock = fork_safe_lock()
        self._manager: RealTimeServerTcpConnectionManager | None = None

    def __get__(self, instance: object, owner: type | None = None) -> RealTimeServerTcpConnectionManager | None:
        manager = self._manager
        return None if manager is None or manager._is_over else manager

    def get(self) -> RealTimeServerTcpConnectionManager:
        """The manager, made if there is none or if its time is over."""
        with self._lock:
            if self._manager is None or self._manager._is_over:
                self._manager = RealTimeServerTcpConnectionManager()
            return self._manager


default_manager = _DefaultManager()

_numbers = itertools.count(1)
_managers: weakref.WeakSet[RealTimeConnectionManager] = weakref.WeakSet()


def _no_workers(*_: object) -> bool:
    """Nobody adds a callback to an operation of our own."""
    return False


@atexit.register
def _dispose_all() -> None:
    """The interpreter ends: close what is open, quickly."""
    deadline = Deadline(EXIT_GRACE)
    managers = list(_managers)
    for manager in managers:
        manager._stack.dispatcher.exits = True
    for manager in managers:
        manager._dispose(deadline.remaining() or 0.0)
