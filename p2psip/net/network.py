"""All sockets of one connection manager: pools of outgoing connections, and those that peers open."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from p2psip.config import ManagerSettings
from p2psip.errors import (
    ConnectionFailureException,
    OperationFailureException,
    OperationFailureReason,
    RealTimeException,
    TlsFailureException,
    TlsFailureReason,
    limited,
)
from p2psip.logs import Log
from p2psip.message import Limits, Malformed, Request, Response
from p2psip.net import failures
from p2psip.net.aliases import Aliases
from p2psip.net.connection import Connection
from p2psip.net.counts import Counts
from p2psip.net.deadlines import Deadlines
from p2psip.net.limits import Admission, greatest, plain_host
from p2psip.net.listener import Listener
from p2psip.net.loop import Loop
from p2psip.net.observer import NetworkObserver
from p2psip.net.pool import Failed, Pool, Ready, Target
from p2psip.net.reach import Reach
from p2psip.net.resolver import Resolver
from p2psip.net.sockets import (
    PlainSocket,
    SocketAddress,
    SocketFactory,
    StreamSocket,
    SystemSockets,
    find_the_dead,
    peer_name,
)
from p2psip.net.tap import Tapping

if TYPE_CHECKING:
    from p2psip.net.tls import TlsContexts

__all__ = ["Network", "SocketFactory", "Target"]

_log = Log(__name__)

CERTIFICATE_CHECK = 30.0
"""Seconds between two looks at the dates of the peers' certificates."""
VERIFIED_PER_TURN = 16
"""Live peers that are looked at again before everything else has its turn."""


class Network:
    """For the loop's thread, but where it says otherwise.

    Args:
        loop: May still have to be started.
        observer: Is told.
        tls: Listens on TLS with it; without it on TCP, and cannot connect over TLS.
        resolver: Finds addresses.
        factory: Makes sockets; None means the system's.

    Attributes:
        allowed_domains: The domains one of which an incoming peer's certificate has to carry; empty means any.
            Another thread may assign a new set.
        reach: What could not be reached lately.
        counts: What has happened so far.
        tapping: Who sees what new connections carry.
        admission: Which peers may connect.
        maximum_connections: The setting, or what the system can do where that is less.
    """

    def __init__(
        self,
        loop: Loop,
        settings: ManagerSettings,
        observer: NetworkObserver,
        *,
        tls: TlsContexts | None,
        resolver: Resolver,
        factory: SocketFactory | None = None,
    ) -> None:
        self.loop = loop
        self.settings = settings
        self.resolver = resolver
        self.factory: SocketFactory = SystemSockets() if factory is None else factory
        self.limits = Limits.of(settings)
        self.counts = Counts()
        self.tapping = Tapping()
        self.deadlines = Deadlines()
        self.allowed_domains: frozenset[str] = frozenset()
        self._observer = observer
        self._tls = tls
        self._listener: Listener | None = None
        self._pools: dict[Target, Pool] = {}
        self._all: dict[Connection, None] = {}  # every one that has a descriptor
        self._ready: dict[Connection, None] = {}  # those that the observer knows
        self.maximum_connections = min(settings.maximum_connections, loop.capacity)
        self.admission = Admission(settings, self.maximum_connections)
        self._admitted: dict[Connection, str] = {}  # incoming ones, and the address they are counted under
        self._aliases = Aliases()
        self._shaking: set[Connection] = set()  # incoming ones whose handshake goes on
        self.reach = Reach(loop, settings)
        self._buffered = 0  # bytes kept on all connections together
        self._relieving = False  # it will be seen to at the end of the turn
        self._numbers = itertools.count(1)
        self._checks_certificates = False
        self._closed: Callable[[], object] | None = None
        self._closing = False
        loop.add_clock(self.deadlines)
        loop.add_closer(self._close_descriptors)

    # ------------------------------------------------------------------ any thread

    def connections(self) -> tuple[Connection, ...]:
        """Those that are ready, oldest first."""
        return tuple(self._ready)

    def every_connection(self) -> tuple[Connection, ...]:
        """Those that are not ready yet, or not any more, as well."""
        return tuple(self._all)

    def pools(self) -> tuple[Pool, ...]:
        """Those that have connections, or are getting one."""
        return tuple(self._pools.values())

    @property
    def listening_addresses(self) -> tuple[tuple[str, int], ...]:
        """What is listened on; empty when nothing is."""
        listener = self._listener
        return () if listener is None else listener.addresses

    @property
    def listening_port(self) -> int:
        """0 when nothing is listened on."""
        listener = self._listener
        return 0 if listener is None else listener.port

    # ------------------------------------------------------------------ outgoing

    def free(self, target: Target) -> Connection | None:
        """A connection that takes a request now, where ``acquire`` would find one."""
        pool = self._pools.get(target)
        if self._closing:
            return None
        return self._aliases.find(target, self._tls) if pool is None else pool.free()

    def acquire(
        self,
        target: Target,
        ready: Ready,
        failed: Failed,
        avoid: Iterable[Connection] = (),
        has_other_ways: bool = False,
    ) -> None:
        """Call one of the two, once: ``ready(connection)``, at once if one is free, or ``failed(error)`` later.

        The error is a ConnectionFailureException, a TlsFailureException, or an OperationFailureException (THROTTLED,
        CONNECTION_AUTHORIZATION_FAILED, ABORTED).

        Args:
            avoid: Connections that have failed this request. It gets one to another address of the target, or a
                ConnectionFailureException when there is none; and their addresses are tried last by others, too
                (RFC 3263 4.3).
            has_other_ways: It can go elsewhere, so that it need not wait for what could not be reached lately.
        """
        if self._closing:
            self.loop.at_turn_end(failed, _closing_error())
            return
        if target.transport == "TLS" and self._tls is None:
            # Never TCP instead (RFC 5630 3.1.3).
            self.loop.at_turn_end(
                failed,
                ConnectionFailureException(
                    f"{target} is to be reached over TLS, but this connection manager does TCP "
                    "only: use a RealTimeServerTlsConnectionManager."
                ),
            )
            return
        pool = self._pools.get(target)
        if pool is None and not avoid:
            alias = self._aliases.find(target, self._tls)
            if alias is not None:
                ready(alias)
                return
        if has_other_ways and not avoid and (pool is None or not pool.connections):
            refusal = self.reach.refusal(target)
            if refusal is not None:
                self.loop.at_turn_end(failed, refusal)
                return
        if pool is None:
            pool = self._pools[target] = Pool(self, target)
            self._observer.connection_pool_added(pool)
        failing = frozenset(map(self._aliases.address, avoid))
        for remote in failing:
            self.reach.remember_dead(remote)
        pool.acquire(ready, failed, failing)

    def adopt_outgoing(
        self, sock: socket.socket, local: SocketAddress, remote: SocketAddress, pool: Pool, transport: str
    ) -> Connection:
        """Make a connection of a connected socket. Raises TlsFailureException, and ValueError for a bad name."""
        target = pool.target
        address = (plain_host(remote[0]), remote[1])
        sock = self.tapping.on(sock, local, remote, False)
        find_the_dead(sock, self.settings.send_timeout)
        if transport == "TLS":
            assert self._tls is not None
            wrapped: StreamSocket = self._tls.wrap_client(sock, target.identity, target.host, address)
        else:
            wrapped = PlainSocket(sock, peer_name(target.host, address))
        connection = Connection(
            self,
            next(self._numbers),
            wrapped,
            transport=transport,
            local=(plain_host(local[0]), local[1]),
            remote=address,
            host=target.host,
            pool=pool,
        )
        self.counts.opened["outgoing"] += 1
        self._all[connection] = None
        return connection

    @property
    def is_full(self) -> bool:
        """There are as many connections as there may be, those that are being made included."""
        return len(self._all) + self.reach.attempts >= self.maximum_connections

    @property
    def has_tls(self) -> bool:
        """It can connect over TLS."""
        return self._tls is not None

    def look_at_pool(self, pool: Pool) -> None:
        """Forget the pool when nothing is left of it."""
        if pool.is_empty and self._pools.get(pool.target) is pool:
            del self._pools[pool.target]
            self._observer.connection_pool_removed(pool)

    # ------------------------------------------------------------------ incoming

    def use_tls(self, tls: TlsContexts) -> None:
        """Use these certificates for new connections; existing ones live on, but for those whose peer is revoked."""
        self._tls = tls
        self.reach.forget()
        self._verify_again(tls, list(self._all))

    def _verify_again(self, tls: TlsContexts, left: list[Connection]) -> None:
        """A few peers a turn: signatures take their time. A handshake that goes on is looked at when it is over."""
        for connection in left[:VERIFIED_PER_TURN]:
            connection.verify_again(tls)
        if tls is self._tls and len(left) > VERIFIED_PER_TURN:
            self.loop.at_turn_end(self._verify_again, tls, left[VERIFIED_PER_TURN:])

    def listen(self, host: str, port: int, reuse_port: bool = False) -> int:
        """Take connections in, over TLS if there are contexts for it.

        Args:
            host: An IP address of this machine; ``0.0.0.0`` means all, both families, on one port.
            port: 0 means any that is free.
            reuse_port: Other processes may listen on it as well.

        Returns: The port.

        Raises:
            ConnectionFailureException: The port is taken or not permitted, or the address is not this machine's.
            TlsFailureException: There is nothing to verify peers with (UNTRUSTED_REMOTE_CERTIFICATE).
        """
        if self._tls is not None:
            self._tls.require_server()
        if self._listener is not None:
            self._listener.close()
        self._listener = Listener(self, host, port, reuse_port)
        return self._listener.port

    def stop_listening(self) -> None:
        """Refuse new connections; existing ones live on."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def listener_failed(self, error: ConnectionFailureException) -> None:
        self.stop_listening()
        self._observer.listening_aborted(error)

    def accepted(self, sock: socket.socket, address: SocketAddress) -> None:
        """A peer has connected."""
        remote = (plain_host(address[0]), address[1])
        refusal = self.admission.refusal(remote[0], self.loop.now, len(self._all) + self.reach.attempts)
        if refusal is not None:
            sock.close()
            self.counts.refused[refusal.partition(" ")[0]] += 1
            _log.warning("A connection from %s was turned away: %s is reached.", remote[0], refusal)
            return
        local = sock.getsockname()
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:  # not TCP: a test's network, or a peer that has gone already
            pass
        find_the_dead(sock, self.settings.send_timeout)
        sock = self.tapping.on(sock, local, address, True)
        refused: TlsFailureException | None = None
        wrapped: StreamSocket = PlainSocket(sock, peer_name(None, remote))
        if self._tls is not None:
            try:
                wrapped = self._tls.wrap_server(sock, remote)
            except TlsFailureException as error:  # it has gone already
                refused = error
        connection = Connection(
            self,
            next(self._numbers),
            wrapped,
            transport="TCP" if self._tls is None else "TLS",
            local=(plain_host(local[0]), local[1]),
            remote=remote,
        )
        self.counts.opened["incoming"] += 1
        self._all[connection] = None
        connection.share = self.admission.begin(remote[0])
        self._admitted[connection] = remote[0]
        self._shaking.add(connection)
        if refused is None:
            connection.start()
        else:
            connection.abort(refused)

    # ------------------------------------------------------------------ what connections tell

    def handshake_over(self, connection: Connection) -> None:
        self._not_shaking(connection)
        if connection.tls is not None:
            self.counts.handshakes["ok"] += 1
        if self._tls is not None:
            connection.verify_again(self._tls)  # it may have begun under others
        if not connection.is_connected or (self.allowed_domains and not self._is_allowed(connection)):
            return
        if self._observer.authorization_wanted:
            connection.await_authorization()
            self._observer.authorize_connection(connection)
        else:
            connection.open()

    def _is_allowed(self, connection: Connection) -> bool:
        if not connection.is_incoming:
            return True
        tls = connection.tls
        connection.matching_domain_name = None if tls is None else tls.matching(self.allowed_domains)
        if connection.matching_domain_name is not None:
            return True
        names = failures.shown_names(tls.identities.names) if tls is not None and tls.identities is not None else ""
        connection.close(
            TlsFailureException(
                f"{connection.peer} was refused because its certificate carries none of the allowed domains but "
                f"{names or 'no name at all'}: add one of its names to allowed_domains to let it in.",
                TlsFailureReason.INCORRECT_NAME_IN_REMOTE_CERTIFICATE,
                local_endpoint=connection.local,
                remote_endpoint=connection.remote,
                remote_certificate=None if tls is None else tls.certificate,
            )
        )
        return False

    def connection_open(self, connection: Connection) -> None:
        self._ready[connection] = None
        if connection.tls is not None:
            self._end_expired(connection)
            if not self._checks_certificates:
                self._checks_certificates = True
                self.loop.call_later(CERTIFICATE_CHECK, self._check_certificates)
        self._observer.connection_ready(connection)
        if connection.pool is not None:
            connection.pool.connected(connection)

    def answered(self, connection: Connection, data: bytes) -> None:
        self._observer.answered(connection, data)

    def messages_received(self, connection: Connection, messages: list[Request | Response | Malformed]) -> None:
        self._observer.messages_received(connection, messages)
        self._aliases.note(connection, messages)
        if connection.pool is not None and connection.pool.waiting:
            connection.pool.serve()  # an answer makes room for a request

    def count_buffered(self, change: int) -> None:
        self._buffered += change
        if self._buffered > self.settings.maximum_buffered and not self._relieving:
            self._relieving = True
            self.loop.at_turn_end(self._relieve)

    def _relieve(self) -> None:
        """Many connections that each keep within their limits are too much together: end those that keep most."""
        self._relieving = False
        limit = self.settings.maximum_buffered
        while self._buffered > limit:
            worst = greatest(self._all)
            error = ConnectionFailureException(
                f"All connections together kept more than {limit} bytes to be sent or of messages still coming in, "
                f"{worst.buffered} of them for {worst.peer}, so that connection was closed: see maximum_buffered."
            )
            worst.abort(limited("maximum_buffered", error))

    def channel_over(self, connection: Connection, error: RealTimeException | None) -> None:
        self._not_shaking(connection)
        is_handshake = connection.tls is None and connection.transport == "TLS"
        self.counts.connection_closed(is_handshake, connection in self._ready, error)
        self._aliases.forget(connection)
        pool = connection.pool
        try:
            if connection in self._ready:
                del self._ready[connection]
                self._observer.connection_closed(connection, error)
            elif connection.is_incoming:
                if isinstance(error, TlsFailureException):
                    self._observer.handshake_failed(connection, error)
                elif error is not None:
                    _log.warning("A connection from a peer failed: %s", error)
        finally:
            if pool is not None:
                pool.connection_over(connection, error)
                self.look_at_pool(pool)

    def channel_gone(self, connection: Connection) -> None:
        self._all.pop(connection, None)
        host = self._admitted.pop(connection, None)
        if host is not None:
            self.admission.end(host)
        self._look_at_closing()

    def _not_shaking(self, connection: Connection) -> None:
        if connection in self._shaking:
            self._shaking.remove(connection)
            self.admission.handshake_over(connection.remote[0])

    def _check_certificates(self) -> None:
        """Connections outlive the certificates that they were made with: end those (a peer may come back)."""
        tls = [connection for connection in self._ready if connection.tls is not None]
        self._checks_certificates = bool(tls)
        if tls:
            self.loop.call_later(CERTIFICATE_CHECK, self._check_certificates)
        for connection in tls:
            self._end_expired(connection)

    def _end_expired(self, connection: Connection) -> None:
        """At the moment when the certificate runs out, where that is before the next look at all of them."""
        if connection.tls is None or connection not in self._ready:
            return
        left = connection.tls.not_after - self.loop.clock.time()
        if 0 <= left < CERTIFICATE_CHECK:
            self.loop.call_later(left + 0.01, self._end_expired, connection)
        elif left < 0:
            error = failures.outlived(connection.peer, connection.local, connection.remote, connection.tls.certificate)
            connection.close(error)

    # ------------------------------------------------------------------ the end

    def close_all(self, grace: float, done: Callable[[], object]) -> None:
        """Stop listening, end every connection in order, and call ``done``; at the latest after ``grace`` seconds."""
        self.stop_listening()
        self._closing = True
        self._closed = done
        for pool in self.pools():
            pool.cancel(_closing_error())
            self.look_at_pool(pool)
        for connection in list(self._all):
            connection.close(_closing_error(), grace)
        self.loop.call_later(grace, self._abort_all)
        self.loop.at_turn_end(self._look_at_closing)

    def _abort_all(self) -> None:
        for connection in list(self._all):
            connection.abort()

    def _look_at_closing(self) -> None:
        if self._closed is not None and not self._all:
            done, self._closed = self._closed, None
            done()

    def _close_descriptors(self) -> None:
        """The loop has ended, or this is a forked child: no traffic, just descriptors."""
        self._closing = True
        if self._listener is not None:
            self._listener.close_descriptors()
            self._listener = None
        for pool in self.pools():
            pool.close_descriptors()
        for connection in list(self._all):
            connection.close_descriptor()


def _closing_error() -> OperationFailureException:
    return OperationFailureException(
        "The connection manager is being disposed, so the connection was closed.", OperationFailureReason.ABORTED
    )
