"""From a name and a port to one connection: addresses in turn, then TLS."""

from __future__ import annotations

import os
import socket
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from p2psip.errors import (
    ConnectionFailureException,
    OperationFailureException,
    OperationFailureReason,
    RealTimeException,
)
from p2psip.net.channel import WRITE
from p2psip.net.limits import plain_host
from p2psip.net.reach import Remote
from p2psip.net.resolver import SHARE_OF_SERVICES
from p2psip.net.selection import Place, Plan, Wanted, is_address, plain_name
from p2psip.net.sockets import SocketAddress, host_and_port, peer_name, what_came_back
from p2psip.timers import Timer

if TYPE_CHECKING:
    from p2psip.net.connection import Connection
    from p2psip.net.network import Network
    from p2psip.net.pool import Pool

SHARE_OF_CEILING = 0.9
"""How much of the time of a request the attempts may take."""
LEAST_PATIENCE = 0.5
"""Seconds that each address gets, however many there are."""


class Attempt(NamedTuple):
    """One address of one place."""

    place: Place
    family: int
    address: SocketAddress

    @property
    def remote(self) -> Remote:
        return plain_host(self.address[0]), self.address[1]


class Dial:
    """One attempt to get one more connection for a pool. Ends in ``pool.connected`` or ``pool.dial_failed``.

    The places that serve the target's name are tried in their order, and the addresses of each in turn; those that
    could not be reached lately come last (RFC 3263 4.3). An address that cannot be connected to, or does not speak, is
    followed by the next one. A peer that refuses TLS, or that we refuse, is final: another address of the same name
    would be the same answer, or an attack. Each address has ``settings.connect_timeout``, or its share of
    ``settings.request_ceiling`` where there are too many for that.

    Args:
        avoid: Addresses that are not tried at all.
    """

    def __init__(self, network: Network, pool: Pool, avoid: frozenset[Remote] = frozenset()) -> None:
        self._network = network
        self._pool = pool
        self._avoid = avoid
        self._begun_at = self._deadline = 0.0
        self._plan = Plan(())
        self._places: deque[Place] = deque()
        self._left: deque[Attempt] = deque()
        self._dead: deque[Attempt] = deque()
        self._attempt: Attempt | None = None
        self._tried: list[tuple[Place, str, str]] = []  # the address may be empty: there was none
        self._avoided = 0
        self._last: BaseException | None = None
        self._socket: socket.socket | None = None
        self._timer: Timer | None = None
        self._connection: Connection | None = None
        self._cancelled = False

    def start(self) -> None:
        """Never calls back from in here."""
        target, network = self._pool.target, self._network
        # A little earlier than the requests that wait, so that they can be told why.
        self._deadline = network.loop.now + SHARE_OF_CEILING * network.settings.request_ceiling
        pause = 0.0 if self._avoid else network.reach.pause(target)
        if pause:
            self._timer = network.loop.call_later(pause, self._begin)
        else:
            self._begin()

    def _begin(self) -> None:
        target, network = self._pool.target, self._network
        self._begun_at = network.loop.now
        may_be_tls = target.identity is not None and network.has_tls
        wanted = Wanted(target.transport, target.host, target.port, target.is_open, may_be_tls)
        network.resolver.plan(wanted, self._planned)

    def cancel(self) -> None:
        """Stop, and call nobody."""
        self._cancelled = True
        self._drop_socket()
        if self._connection is not None:
            self._connection.abort()

    def close_descriptor(self) -> None:
        """Nothing else, because there is no loop any more."""
        self._cancelled = True
        if self._socket is not None:
            self._socket.close()

    def _failed(self, error: RealTimeException) -> None:
        if not self._cancelled:
            self._cancelled = True
            if not self._avoid:
                self._network.reach.failed(self._pool.target, error, self._network.loop.now - self._begun_at)
            self._pool.dial_failed(self, error)
            self._network.look_at_pool(self._pool)

    # ------------------------------------------------------------------ places and their addresses

    def _planned(self, plan: Plan) -> None:
        self._plan = plan
        self._places.extend(plan.places)
        self._try_next()

    def _find_addresses(self, place: Place) -> None:
        def resolved(addresses: list[tuple[int, SocketAddress]]) -> None:
            for family, address in addresses:
                attempt = Attempt(place, family, (address[0], place.port, *address[2:]))
                if attempt.remote in self._avoid:
                    self._avoided += 1
                elif self._network.reach.is_dead(attempt.remote):
                    self._dead.append(attempt)
                else:
                    self._left.append(attempt)
            self._try_next()

        def failed(error: RealTimeException) -> None:
            if error._limit is not None:
                self._network.counts.timeouts[error._limit] += 1
            self._tried.append((place, "", str(error).partition(":")[2].partition(";")[0].strip()))
            self._last = error
            self._try_next()

        # Where the DNS was asked for services, that has taken its share.
        share = 1 - SHARE_OF_SERVICES if self._plan.steps else 1.0
        self._network.resolver.resolve(place.host, resolved, failed, share=share)

    def _try_next(self) -> None:
        network = self._network
        while not self._cancelled:
            if not self._left and self._places:
                self._find_addresses(self._places.popleft())
                return
            if not self._left:
                self._left, self._dead = self._dead, deque()
            if not self._left:
                self._failed(self._nothing_left())
                return
            if network.is_full:
                network.counts.refused["maximum_connections"] += 1
                self._failed(
                    OperationFailureException(
                        f"There are already {network.maximum_connections} connections, "
                        f"so none was opened to {self._pool.target.host}: see maximum_connections.",
                        OperationFailureReason.THROTTLED,
                    )
                )
                return
            attempt = self._attempt = self._left.popleft()
            try:
                self._socket = network.factory.connect(attempt.family, attempt.address)
            except OSError as error:
                self._address_failed(what_came_back(error), error)
                continue
            network.reach.attempts += 1
            left = 1 + len(self._left) + len(self._dead) + len(self._places)
            share = (self._deadline - network.loop.now) / left
            timeout = min(network.settings.connect_timeout, max(share, LEAST_PATIENCE))
            self._timer = network.loop.call_later(timeout, self._timed_out, timeout)
            network.loop.register(self._socket, WRITE, self._connected)
            return

    def _timed_out(self, timeout: float) -> None:
        self._network.counts.timeouts["connect_timeout"] += 1
        self._drop_socket()
        self._address_failed(f"no answer within {timeout:.3g} s", None)
        self._try_next()

    def _address_failed(self, why: str, error: BaseException | None) -> None:
        attempt = self._attempt
        assert attempt is not None
        self._network.reach.remember_dead(attempt.remote)
        self._tried.append((attempt.place, host_and_port(*attempt.remote), why))
        self._last = error or self._last

    def _nothing_left(self) -> RealTimeException:
        """What was tried and what came back, and where it was from that it was tried."""
        target, plan = self._pool.target, self._plan
        if (
            isinstance(self._last, ConnectionFailureException)
            and [where for _, where, _ in self._tried] == [""]
            and plan.places[0].source is None
            and not plan.problems
        ):
            return self._last  # the name is not known, which its own sentence says
        if not plan.places:
            sources = " and ".join(f"the record {query}" for query, answer in plan.steps if answer.records)
            return ConnectionFailureException(
                f"{target.host} does not offer SIP over {target.transport}: {sources} says so; "
                "check the transport, or give the port."
            )
        transport = plan.places[0].transport
        asked = str(target) if target.port is None else host_and_port(plain_name(target.host), target.port)
        outcomes = [self._outcome(asked, *tried) for tried in self._tried]
        if self._avoided:
            outcomes.append(f"{self._avoided} more had failed this request before")
        named_by = ", ".join(dict.fromkeys(str(place.source) for place in plan.places if place.source is not None))
        origin = f" ({named_by})" if named_by else ""
        is_known = self._avoided or any(where for _, where, _ in self._tried)
        advice = "check host and port, and that the peer is listening" if is_known else "check the name and the DNS"
        trouble = f" The DNS could not tell everything: {'; '.join(plan.problems)}." if plan.problems else ""
        error = ConnectionFailureException(
            f"Could not connect to {asked}{origin} over {transport} ({'; '.join(outcomes)}): {advice}.{trouble}"
        )
        error.__cause__ = self._last
        return error

    def _outcome(self, asked: str, place: Place, where: str, why: str) -> str:
        if where == asked:
            return why
        if not where:
            where = place.host
        elif place.source is not None and not is_address(place.host):
            where = f"{place.host} at {where}"
        return f"{where}: {why}"

    def _drop_socket(self) -> None:
        self._network.loop.timers.cancel(self._timer)
        if self._socket is not None:
            self._network.loop.unregister(self._socket)
            self._socket.close()
            self._let_go()

    def _let_go(self) -> None:
        self._socket = None
        self._network.reach.attempts -= 1

    # ------------------------------------------------------------------ connected

    def _connected(self, events: int) -> None:
        sock = self._socket
        if sock is None or self._attempt is None:
            return
        transport = self._attempt.place.transport
        try:
            outcome = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if outcome:
                raise OSError(outcome, os.strerror(outcome))
            local, remote = sock.getsockname(), sock.getpeername()
        except OSError as error:
            self._drop_socket()
            self._address_failed(what_came_back(error), error)
            self._try_next()
            return
        if local == remote:
            # TCP lets a socket that connects to a free port of the range that it is from meet itself.
            self._drop_socket()
            self._address_failed("nothing listens there, the connection met itself", None)
            self._try_next()
            return
        self._network.loop.timers.cancel(self._timer)
        self._network.loop.unregister(sock)
        self._let_go()
        try:
            self._connection = self._network.adopt_outgoing(sock, local, remote, self._pool, transport)
        except RealTimeException as refusal:
            sock.close()
            self._failed(refusal)
        except Exception as error:  # a name that ssl does not take; whatever it is, somebody waits
            sock.close()
            failure = ConnectionFailureException(
                f"The connection with {peer_name(self._pool.target.host, remote[:2])} cannot begin: {error}."
            )
            failure.__cause__ = error
            self._failed(failure)
        else:
            self._connection.start()

    def made(self, connection: Connection) -> bool:
        """It is the outcome of this one."""
        return connection is self._connection

    def connection_over(self, connection: Connection, error: RealTimeException | None) -> None:
        """It ended before it was open."""
        if connection is not self._connection or self._cancelled:
            return
        self._connection = None
        if isinstance(error, ConnectionFailureException) or error is None:
            self._address_failed("closed before it was ready" if error is None else str(error).rstrip("."), error)
            self._try_next()
        else:
            self._failed(error)
