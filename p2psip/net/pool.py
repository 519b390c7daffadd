"""The outgoing connections to one destination, and the requests that wait for one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from p2psip.errors import (
    OperationFailureException,
    OperationFailureReason,
    RealTimeException,
    TlsFailureException,
    fresh,
)
from p2psip.logs import Log
from p2psip.net.dial import Dial
from p2psip.net.reach import Remote
from p2psip.net.sockets import host_and_port

if TYPE_CHECKING:
    from p2psip.net.connection import Connection
    from p2psip.net.network import Network

_log = Log(__name__)

Ready = Callable[["Connection"], object]
Failed = Callable[[RealTimeException], object]


class Target(NamedTuple):
    """Where a request goes. A connection to one target is never used for another one.

    Attributes:
        transport: ``"TCP"`` or ``"TLS"``.
        host: As it was asked for: a name, or an address.
        port: 1 to 65535; None: the one that the name's SRV records say, else the transport's own (RFC 3263 4.2).
        identity: The name that the peer's certificate has to bear; None on TCP, unless the DNS may make TLS of it.
        is_open: The address named neither transport nor port: NAPTR records are asked for (RFC 3263 4.1). They may
            raise TCP to TLS where there is an identity, and never lower TLS to TCP.
    """

    transport: str
    host: str
    port: int | None
    identity: str | None
    is_open: bool = False

    def __str__(self) -> str:
        return self.host if self.port is None else host_and_port(self.host, self.port)


class Pool:
    """One connection, as a rule: requests to one peer keep their order.

    Another one, up to ``maximum_connections_per_pool``, is opened only while every present one is busy: above its
    send mark or its limit of unanswered requests.

    Attributes:
        target: Where they lead.
        connections: The open ones, oldest first.
        waiting: Requests that no connection could take yet, in order.
    """

    __slots__ = ("_detours", "_dial", "_network", "connections", "target", "waiting")

    def __init__(self, network: Network, target: Target) -> None:
        self._network = network
        self.target = target
        self.connections: list[Connection] = []
        self.waiting: deque[tuple[Ready, Failed]] = deque()
        self._dial: Dial | None = None
        self._detours: dict[Dial, tuple[Ready, Failed]] = {}

    def acquire(self, ready: Ready, failed: Failed, avoid: frozenset[Remote] = frozenset()) -> None:
        """Call one of the two, once: ``ready`` at once if a connection is free, ``failed`` never from in here.

        Args:
            avoid: Addresses that have failed this request already.
        """
        if avoid:
            self._acquire_another(ready, failed, avoid)
            return
        if self.waiting:
            self.serve()
        connection = self.free()
        if connection is not None:
            ready(connection)
            return
        settings = self._network.settings
        if (self._dial is None and len(self._present()) >= settings.maximum_connections_per_pool) or len(
            self.waiting
        ) >= settings.maximum_unanswered_per_connection:
            self._network.loop.at_turn_end(failed, self._throttled())
        else:
            self.waiting.append((ready, failed))
            self._connect()

    def _acquire_another(self, ready: Ready, failed: Failed, avoid: frozenset[Remote]) -> None:
        """A request on its second way waits for nobody else's connection, because that may lead where it was."""
        connection = self._free(avoid)
        if connection is not None:
            ready(connection)
        elif len(self._present()) + len(self._detours) >= self._network.settings.maximum_connections_per_pool:
            self._network.loop.at_turn_end(failed, self._throttled())
        else:
            dial = Dial(self._network, self, avoid)
            self._detours[dial] = (ready, failed)
            dial.start()

    def free(self) -> Connection | None:
        """One that takes a request now, unless others wait already."""
        return None if self.waiting else self._free()

    def serve(self) -> None:
        """Give the waiting requests what is free, in order."""
        while self.waiting:
            connection = self._free()
            if connection is None:
                return
            ready, _ = self.waiting.popleft()
            try:
                ready(connection)
            except Exception:
                _log.exception("%r failed.", ready)

    def _free(self, avoid: frozenset[Remote] = frozenset()) -> Connection | None:
        """The oldest; one to a place that did not serve lately only where there is no other."""
        second = None
        for connection in self.connections:
            if connection.takes_requests and connection.remote not in avoid:
                if len(self.connections) == 1 or not self._network.reach.is_dead(connection.remote):
                    return connection
                second = second or connection
        return second

    def _present(self) -> list[Connection]:
        return [connection for connection in self.connections if connection.is_present]

    def _connect(self) -> None:
        if self._dial is None and len(self._present()) < self._network.settings.maximum_connections_per_pool:
            self._dial = Dial(self._network, self)
            self._dial.start()

    def _throttled(self) -> OperationFailureException:
        self._network.counts.refused["maximum_connections_per_pool"] += 1
        return OperationFailureException(
            f"{self.target} takes requests more slowly than they are made: "
            f"{len(self.connections)} connections are busy and {len(self.waiting)} requests wait; send less at a time.",
            OperationFailureReason.THROTTLED,
        )

    # ------------------------------------------------------------------ what the network tells

    def connected(self, connection: Connection) -> None:
        """One more is open."""
        self.connections.append(connection)
        for dial, (ready, _) in self._detours.items():
            if dial.made(connection):
                del self._detours[dial]
                ready(connection)
                break
        else:
            self._dial = None
        self.serve()
        if self.waiting:
            self._connect()

    def connection_over(self, connection: Connection, error: RealTimeException | None) -> None:
        """One is no more, or never was."""
        if connection in self.connections:
            self.connections.remove(connection)
            if connection.messages_received:
                self._network.reach.reached(self.target)
            elif isinstance(error, TlsFailureException):  # what a server of TLS 1.3 refuses looks like
                self._network.reach.failed(self.target, error, 0.0)
            if self.waiting:
                self._connect()
        else:
            for dial in (self._dial, *self._detours):
                if dial is not None and dial.made(connection):
                    dial.connection_over(connection, error)
                    break

    def dial_failed(self, dial: Dial, error: RealTimeException) -> None:
        """No further connection can be had; what waits fails unless there are others to wait for."""
        detour = self._detours.pop(dial, None)
        if detour is not None:
            detour[1](error)
            return
        self._dial = None
        if not self._present():
            self.fail_waiting(error)

    def fail_waiting(self, error: RealTimeException) -> None:
        """Tell every waiting request, each with an error of its own."""
        waiting, self.waiting = self.waiting, deque()
        for _, failed in waiting:
            try:
                failed(fresh(error))
            except Exception:
                _log.exception("%r failed.", failed)

    def cancel(self, error: RealTimeException) -> None:
        """Connect no further."""
        if self._dial is not None:
            self._dial.cancel()
            self._dial = None
        detours, self._detours = self._detours, {}
        for dial, (_, failed) in detours.items():
            dial.cancel()
            failed(fresh(error))
        self.fail_waiting(error)

    def close_descriptors(self) -> None:
        """Nothing else, because there is no loop any more."""
        for dial in (self._dial, *self._detours):
            if dial is not None:
                dial.close_descriptor()

    @property
    def is_empty(self) -> bool:
        """Nothing is here and nothing is coming."""
        return not self.connections and self._dial is None and not self.waiting and not self._detours
