"""Sockets as connections use them, and where they come from."""

from __future__ import annotations

import errno
import selectors
import socket
import sys
from typing import TYPE_CHECKING, Any, Protocol

from p2psip.errors import ConnectionFailureException

if TYPE_CHECKING:
    from p2psip.net.tls_socket import TlsInfo, Verifier

SocketAddress = tuple[Any, ...]
"""As the ``socket`` module gives and takes them: host and port, and for IPv6 flow and scope."""

IN_PROGRESS = frozenset(
    getattr(errno, name) for name in ("EINPROGRESS", "EWOULDBLOCK", "EAGAIN", "WSAEWOULDBLOCK") if hasattr(errno, name)
)


class StreamSocket(Protocol):
    """A connected socket, plain or TLS. Nothing blocks."""

    wants: int
    """The event of ``selectors`` that the last ``receive`` (None) or ``send`` (0) waits for."""

    @property
    def info(self) -> TlsInfo | None:
        """Who the peer is, once the handshake is over; None on TCP."""

    def fileno(self) -> int: ...

    def handshake(self) -> int:
        """One step. 0 when it is over, else the event that it waits for.

        Raises:
            TlsFailureException: One of the two sides refuses.
        """

    def verify_again(self, verifier: Verifier) -> None:
        """The peer, by other rules than those of the handshake.

        Raises:
            TlsFailureException: It may not stay.
        """

    def receive(self, size: int) -> bytes | None:
        """What has come; ``b""`` at the peer's orderly end, None when nothing is there.

        Raises:
            ConnectionFailureException: The connection is lost.
            TlsFailureException: It never was one: the peer refused us.
        """

    def send(self, view: memoryview) -> int:
        """How many bytes from the start of ``view`` were taken; 0 means later, with the same bytes.

        Raises: As ``receive``.
        """

    def pending(self) -> int:
        """Bytes that ``receive`` has without asking the system."""

    def finish(self) -> bool:
        """Tell the peer that no more comes; True when it is told, False: again when ``wants`` is there."""

    def close(self) -> None:
        """Give the descriptor back, without any traffic."""


class ListeningSocket(Protocol):
    """What is listened on."""

    def fileno(self) -> int: ...
    def accept(self) -> tuple[socket.socket, SocketAddress]: ...
    def getsockname(self) -> Any: ...
    def close(self) -> None: ...


class SocketFactory(Protocol):
    """Where sockets come from. Nothing blocks; failures are ``OSError``."""

    def connect(self, family: int, address: SocketAddress) -> socket.socket:
        """A socket that is being connected: writable when the outcome is there, which SO_ERROR tells."""

    def listen(self, family: int, address: SocketAddress, backlog: int, reuse_port: bool) -> ListeningSocket:
        """A socket that is listened on; ``reuse_port`` shares the port with others that say so."""


CAN_SHARE_PORTS = hasattr(socket, "SO_REUSEPORT")
"""Several processes can listen on one port."""


class SystemSockets:
    """The operating system's."""

    def connect(self, family: int, address: SocketAddress) -> socket.socket:
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            # Before the handshake: Nagle's algorithm would hold each of its steps back.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            outcome = sock.connect_ex(address)
            if outcome and outcome not in IN_PROGRESS:
                raise OSError(outcome, errno.errorcode.get(outcome, "error"))
        except BaseException:
            sock.close()
            raise
        return sock

    def listen(self, family: int, address: SocketAddress, backlog: int, reuse_port: bool) -> ListeningSocket:
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            if sys.platform == "win32":
                # There SO_REUSEADDR would let another program take the port over.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
            else:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port and sys.platform != "win32":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(address)
            sock.listen(backlog)
        except BaseException:
            sock.close()
            raise
        return sock


KEEP_IDLE = 60
"""Seconds of silence after which the system asks a peer whether it is still there; NATs remember it by that, too."""
KEEP_COUNT = 4


def find_the_dead(sock: socket.socket, seconds: float) -> None:
    """Have the system end the connection when what was sent is not acknowledged for so many seconds, or nobody is there.

    A peer that has vanished without a word, or that a NAT has forgotten, is found by that; one whose process stands
    still is not, because its system goes on answering. Systems that cannot do it, or only a part, do what they can.
    """
    seconds = max(seconds, 1.0)
    options = [
        (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
        (socket.IPPROTO_TCP, "TCP_KEEPIDLE", KEEP_IDLE),
        (socket.IPPROTO_TCP, "TCP_KEEPALIVE", KEEP_IDLE),  # what macOS calls it
        (socket.IPPROTO_TCP, "TCP_KEEPINTVL", max(1, int(seconds / KEEP_COUNT))),
        (socket.IPPROTO_TCP, "TCP_KEEPCNT", KEEP_COUNT),
        (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", int(seconds * 1000)),
    ]
    for level, name, value in options:
        if hasattr(socket, name):
            try:
                sock.setsockopt(level, getattr(socket, name), value)
            except OSError:  # not TCP, as in tests; or it has gone already, which reading tells
                pass


class PlainSocket:
    """TCP without TLS. ``peer`` names the other side in errors."""

    __slots__ = ("_peer", "_socket", "wants")

    info = None

    def __init__(self, sock: socket.socket, peer: str) -> None:
        self._socket = sock
        self._peer = peer
        self.wants = selectors.EVENT_READ

    def fileno(self) -> int:
        return self._socket.fileno()

    def handshake(self) -> int:
        return 0

    def verify_again(self, verifier: Verifier) -> None:
        pass

    def receive(self, size: int) -> bytes | None:
        try:
            return self._socket.recv(size)
        except (BlockingIOError, InterruptedError):
            self.wants = selectors.EVENT_READ
            return None
        except OSError as error:
            raise self._lost(error) from error

    def send(self, view: memoryview) -> int:
        try:
            return self._socket.send(view)
        except (BlockingIOError, InterruptedError):
            self.wants = selectors.EVENT_WRITE
            return 0
        except OSError as error:
            raise self._lost(error) from error

    def pending(self) -> int:
        return 0

    def finish(self) -> bool:
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:  # it is lost already
            pass
        return True

    def close(self) -> None:
        self._socket.close()

    def _lost(self, error: OSError) -> ConnectionFailureException:
        return ConnectionFailureException(f"The connection to {self._peer} over TCP was lost: {what_came_back(error)}.")


def discard(descriptor: int, limit: int = 256 * 1024) -> bool:
    """Read and forget what has come on a closing socket. True when the peer has closed its side too.

    A socket that is closed with input unread is reset, and the reset may overtake what we said last.
    """
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError:  # macOS has nothing to say about a socket that was reset
        return True
    try:
        sock.setblocking(False)
        while limit > 0:
            data = sock.recv(65536)
            if not data:
                return True
            limit -= len(data)
    except (BlockingIOError, InterruptedError):
        pass
    except OSError:
        return True
    finally:
        sock.detach()
    return False


_WORDS = {
    errno.ECONNREFUSED: "the connection was refused, nothing listens there",
    errno.ECONNRESET: "the peer reset it",
    errno.EPIPE: "the peer had closed it",
    errno.ECONNABORTED: "it was aborted",
    errno.ETIMEDOUT: "the peer did not answer",
    errno.EHOSTUNREACH: "the host cannot be reached",
    errno.ENETUNREACH: "there is no route to that network",
    errno.EADDRNOTAVAIL: "the address is not available on this machine",
    errno.EADDRINUSE: "the port is in use",
    errno.EACCES: "the system does not permit it",
    errno.EMFILE: "this process has no descriptors left",
    errno.ENFILE: "the system has no descriptors left",
    errno.EAFNOSUPPORT: "this machine has no such address family",
}


def what_came_back(error: OSError) -> str:
    """The error of the system in words, without its own sentence where there is a better one."""
    words = _WORDS.get(error.errno or 0)
    return words if words is not None else f"the system said {error.strerror or error!r}"


def host_and_port(host: str, port: int) -> str:
    """``host:port`` as people write it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def peer_name(host: str | None, address: tuple[str, int]) -> str:
    """The peer for a sentence: the name that was asked for, and the address where that is another."""
    if host is None or host.strip("[]").lower() == address[0]:
        return host_and_port(*address)
    return f"{host}:{address[1]} ({address[0]})"
