"""Taking connections in: the sockets that are listened on, and what their accept may come back with."""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Callable
from typing import Protocol

from p2psip.config import ManagerSettings
from p2psip.errors import ConnectionFailureException
from p2psip.logs import Log
from p2psip.net.channel import READ
from p2psip.net.loop import Loop
from p2psip.net.sockets import ListeningSocket, SocketAddress, SocketFactory, host_and_port, what_came_back
from p2psip.timers import Timer

_log = Log(__name__)

BACKLOG = 256
BURST = 32
"""Connections that are taken in before everything else has its turn."""
ATTEMPTS = 16
"""Ports that are tried until one is free for both families."""
ANY = {"0.0.0.0": socket.AF_INET, "::": socket.AF_INET6}


def _numbers(*names: str) -> frozenset[int]:
    return frozenset(getattr(errno, name) for name in names if hasattr(errno, name))


# What Linux's accept(2) passes on from a connection that was lost before it was taken in, and Windows' reset.
LOST = _numbers(
    "ECONNABORTED",
    "ECONNRESET",
    "EPROTO",
    "ENETDOWN",
    "ENOPROTOOPT",
    "EHOSTDOWN",
    "ENONET",
    "EHOSTUNREACH",
    "ENETUNREACH",
    "EOPNOTSUPP",
    "EPERM",
    "EINTR",
    "ETIMEDOUT",
)
NOTHING = _numbers("EAGAIN", "EWOULDBLOCK", "WSAEWOULDBLOCK")
EXHAUSTED = _numbers("EMFILE", "ENFILE", "ENOBUFS", "ENOMEM")


class ListenerOwner(Protocol):
    """Who gets what was accepted."""

    loop: Loop
    settings: ManagerSettings
    factory: SocketFactory

    def accepted(self, sock: socket.socket, address: SocketAddress) -> None:
        """A connection, non-blocking from now on."""

    def listener_failed(self, error: ConnectionFailureException) -> None:
        """Nothing is listened on any more."""


class Listener:
    """One port, on one or two sockets.

    Raises:
        ConnectionFailureException: The port is taken or not permitted, or the address is not this machine's.
    """

    def __init__(self, owner: ListenerOwner, host: str, port: int, reuse_port: bool = False) -> None:
        self._owner = owner
        self._reuse_port = reuse_port
        self._sockets: list[ListeningSocket] = []
        self._timer: Timer | None = None
        self._reserve: socket.socket | None = None
        try:
            self._sockets = self._both(port) if host == "0.0.0.0" else [self._listen(host, port)]
        except OSError as error:
            raise ConnectionFailureException(
                f"Could not listen on {host_and_port(host, port)}: {what_came_back(error)}; "
                "choose another address or port (0 means any)."
            ) from error
        self.addresses: tuple[tuple[str, int], ...] = tuple(s.getsockname()[:2] for s in self._sockets)
        self.port = self.addresses[0][1]
        self._keep_reserve()
        self._watch()

    def _listen(self, host: str, port: int) -> ListeningSocket:
        bare, _, zone = host.partition("%")
        if ipaddress.ip_address(bare).version == 4:
            return self._owner.factory.listen(socket.AF_INET, (host, port), BACKLOG, self._reuse_port)
        scope = 0
        if zone:
            scope = int(zone) if zone.isdecimal() else socket.if_nametoindex(zone)
        return self._owner.factory.listen(socket.AF_INET6, (bare, port, 0, scope), BACKLOG, self._reuse_port)

    def _both(self, port: int) -> list[ListeningSocket]:
        """All addresses of both families on one port; one family where the machine has no IPv6."""
        for attempt in range(ATTEMPTS):
            first = self._listen("0.0.0.0", port)
            try:
                return [first, self._listen("::", first.getsockname()[1])]
            except OSError as error:
                if error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                    return [first]
                first.close()
                if port or error.errno != errno.EADDRINUSE or attempt == ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Refuse new connections. The port is free at once."""
        self._owner.loop.timers.cancel(self._timer)
        for sock in self._sockets:
            self._owner.loop.unregister(sock)
        self.close_descriptors()

    def close_descriptors(self) -> None:
        """The same where there is no loop any more."""
        for sock in self._sockets:
            sock.close()
        self._sockets = []
        if self._reserve is not None:
            self._reserve.close()
            self._reserve = None

    def _watch(self) -> None:
        self._timer = None
        for sock in self._sockets:
            self._owner.loop.register(sock, READ, self._reader(sock))

    def _reader(self, sock: ListeningSocket) -> Callable[[int], object]:
        return lambda events: self._accept(sock)

    def _accept(self, sock: ListeningSocket) -> None:
        for _ in range(BURST):
            if sock not in self._sockets:
                return
            try:
                # The address comes from here: a peer that has gone already has none later.
                accepted, address = sock.accept()
            except OSError as error:
                if error.errno in NOTHING or isinstance(error, BlockingIOError):
                    return
                if error.errno in LOST:
                    continue
                if error.errno in EXHAUSTED:
                    self._rest(sock, error)
                else:
                    self._fail(error)
                return
            try:
                accepted.setblocking(False)
                self._owner.accepted(accepted, address)
            except OSError:
                accepted.close()
            except Exception:  # memory that has run out, say: that costs this one, and not the listener
                accepted.close()
                _log.exception("A connection to port %d was let go because of an error of this library.", self.port)

    # ------------------------------------------------------------------ no descriptors left

    def _keep_reserve(self) -> None:
        """One descriptor to give away: without it a peer that waits could not even be turned away."""
        try:
            self._reserve = socket.socket()
        except OSError:
            self._reserve = None

    def _rest(self, sock: ListeningSocket, error: OSError) -> None:
        """Turn one peer away, and accept none for a while: it would wake the loop again and again."""
        loop, pause = self._owner.loop, self._owner.settings.accept_pause
        _log.warning("Accepting rests for %g s because %s.", pause, what_came_back(error))
        if self._reserve is not None:
            self._reserve.close()
            try:
                sock.accept()[0].close()
            except OSError:
                pass
        self._keep_reserve()
        for each in self._sockets:
            loop.unregister(each)
        self._timer = loop.call_later(pause, self._watch)

    def _fail(self, error: OSError) -> None:
        failure = ConnectionFailureException(
            f"Listening on port {self.port} has ended: {what_came_back(error)}; start_listening again."
        )
        failure.__cause__ = error
        self._owner.listener_failed(failure)
