"""From a name and a port to one connection: addresses in turn, then TLS."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from p2psip.errors import (
    ConnectionFailureException,
    OperationFailureException,
    OperationFailureReason,
    RealTimeException,
)
from p2psip.net.channel import WRITE
from p2psip.net.limits import plain_host
from p2psip.net.resolver import Address
from p2psip.net.sockets import SocketAddress, host_and_port, peer_name, what_came_back
from p2psip.timers import Timer

if TYPE_CHECKING:
    from p2psip.net.connection import Connection
    from p2psip.net.network import Network
    from p2psip.net.pool import Pool


class Dial:
    """One attempt to get one more connection for a pool. Ends in ``pool.connected`` or ``pool.dial_failed``.

    An address that cannot be connected to, or does not speak, is followed by the next one. A peer that refuses TLS,
    or that we refuse, is final: another address of the same name would be the same answer, or an attack.
    """

    def __init__(self, network: Network, pool: Pool) -> None:
        self._network = network
        self._pool = pool
        self._left: list[Address] = []
        self._tried: list[tuple[str, str]] = []
        self._last: BaseException | None = None
        self._socket: socket.socket | None = None
        self._address: SocketAddress = ()
        self._timer: Timer | None = None
        self._connection: Connection | None = None
        self._cancelled = False

    def start(self) -> None:
        """Never calls back from in here."""
        self._network.resolver.resolve(self._pool.target.host, self._resolved, self._failed)

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
            self._pool.dial_failed(error)
            self._network.look_at_pool(self._pool)

    # ------------------------------------------------------------------ addresses

    def _resolved(self, addresses: list[Address]) -> None:
        port = self._pool.target.port
        self._left = self._network.living_first(
            [(family, (address[0], port, *address[2:])) for family, address in addresses]
        )
        self._try_next()

    def _try_next(self) -> None:
        network = self._network
        while self._left and not self._cancelled:
            if network.is_full:
                self._failed(
                    OperationFailureException(
                        f"There are already {network.maximum_connections} connections, "
                        f"so none was opened to {self._pool.target.host}: see maximum_connections.",
                        OperationFailureReason.THROTTLED,
                    )
                )
                return
            family, self._address = self._left.pop(0)
            try:
                self._socket = network.factory.connect(family, self._address)
            except OSError as error:
                self._address_failed(what_came_back(error), error)
                continue
            timeout = network.settings.connect_timeout
            self._timer = network.loop.call_later(timeout, self._timed_out, timeout)
            network.loop.register(self._socket, WRITE, self._connected)
            return
        if not self._cancelled:
            self._failed(self._nothing_left())

    def _timed_out(self, timeout: float) -> None:
        self._drop_socket()
        self._address_failed(f"no answer within {timeout:g} s", None)
        self._try_next()

    def _address_failed(self, why: str, error: BaseException | None) -> None:
        self._network.remember_dead(self._address)
        self._tried.append((host_and_port(plain_host(self._address[0]), self._address[1]), why))
        self._last = error or self._last

    def _nothing_left(self) -> ConnectionFailureException:
        target = self._pool.target
        asked = host_and_port(target.host.strip("[]"), target.port)
        outcomes = "; ".join(why if where == asked else f"{where}: {why}" for where, why in self._tried)
        error = ConnectionFailureException(
            f"Could not connect to {asked} over {target.transport} ({outcomes}): "
            "check host and port, and that the peer is listening."
        )
        error.__cause__ = self._last
        return error

    def _drop_socket(self) -> None:
        self._network.loop.timers.cancel(self._timer)
        if self._socket is not None:
            self._network.loop.unregister(self._socket)
            self._socket.close()
            self._socket = None

    # ------------------------------------------------------------------ connected

    def _connected(self, events: int) -> None:
        sock = self._socket
        if sock is None:
            return
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
        self._socket = None
        try:
            self._connection = self._network.adopt_outgoing(sock, local, remote, self._pool)
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
