"""Sockets that show what they carry, for files that Wireshark reads: used for new connections while somebody looks on.

``ssl.SSLSocket`` keeps the records of TLS to itself. So the TLS of such a socket works in memory (``ssl.MemoryBIO``), and
the records are moved between there and the system here; all else is as with the usual sockets, and so are the errors.
"""

from __future__ import annotations

import itertools
import socket
import ssl
from typing import Any, Protocol

from p2psip.net.limits import plain_host
from p2psip.net.sockets import SocketAddress

CHUNK = 65536


class Tap(Protocol):
    """Who looks on. Called on the loop's thread, and must not keep it."""

    def opened(self, number: int, local: tuple[str, int], remote: tuple[str, int], is_incoming: bool) -> None:
        """A connection has come to be; from now on it is known by the number."""

    def securing(self, number: int) -> None:
        """A TLS handshake begins on it."""

    def secured(self, number: int) -> None:
        """The handshake is over, so its keys are known."""

    def carried(self, number: int, is_sent: bool, offset: int, data: bytes) -> None:
        """Octets of one direction, as they went over TCP; ``offset`` octets came before."""

    def closed(self, number: int, by_peer: bool) -> None:
        """It is no more."""


class Tapping:
    """Whether the connections of one network are tapped.

    Attributes:
        tap: Who looks on at new ones; None: nobody. Another thread may change it.
    """

    def __init__(self) -> None:
        self.tap: Tap | None = None
        self._numbers = itertools.count(1)

    def on(self, sock: socket.socket, local: SocketAddress, remote: SocketAddress, is_incoming: bool) -> socket.socket:
        """The socket for a new connection: the same, unless somebody looks on. The one given is used up then."""
        tap = self.tap
        if tap is None:
            return sock
        addresses = ((plain_host(local[0]), local[1]), (plain_host(remote[0]), remote[1]))
        return TappedSocket(sock, tap, next(self._numbers), *addresses, is_incoming)


class TappedSocket(socket.socket):
    """A connected socket that is tapped: for TCP by ``recv`` and ``send``, and after :meth:`begin_tls` with those methods
    of ``ssl.SSLSocket`` that :class:`p2psip.net.tls_socket.TlsSocket` uses. Non-blocking, for one thread.

    Args:
        sock: Is used up.
        number: What the tap knows it by.
    """

    def __init__(
        self,
        sock: socket.socket,
        tap: Tap,
        number: int,
        local: tuple[str, int],
        remote: tuple[str, int],
        is_incoming: bool,
    ) -> None:
        super().__init__(sock.family, sock.type, sock.proto, sock.detach())
        self.setblocking(False)
        self._tap: Tap | None = tap
        self._number = number
        self._local = local
        self._sent = self._received = 0
        self._peer_ended = False
        self._tls: ssl.SSLObject
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._unsent = memoryview(b"")  # records that the system did not take
        self._owed = 0  # what the last write has encrypted, and did not report because records are left
        tap.opened(number, local, remote, is_incoming)

    def getsockname(self) -> tuple[str, int]:
        """Our side."""
        return self._local

    # ------------------------------------------------------------------ TCP

    def recv(self, size: int, flags: int = 0) -> bytes:
        """As that of every socket."""
        data = super().recv(size, flags)
        if not data:
            self._peer_ended = True
        elif self._tap is not None:
            self._tap.carried(self._number, False, self._received, data)
            self._received += len(data)
        return data

    def send(self, data: Any, flags: int = 0) -> int:
        """As that of every socket."""
        sent = super().send(data, flags)
        if sent and self._tap is not None:
            self._tap.carried(self._number, True, self._sent, bytes(memoryview(data)[:sent]))
            self._sent += sent
        return sent

    def close(self) -> None:
        """As that of every socket."""
        tap, self._tap = self._tap, None
        super().close()
        if tap is not None:
            tap.closed(self._number, self._peer_ended)

    # ------------------------------------------------------------------ TLS

    def begin_tls(self, context: ssl.SSLContext, *, server_side: bool, server_hostname: str | None) -> None:
        """From now on it is TLS; the handshake is still to come."""
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=server_hostname
        )
        if self._tap is not None:
            self._tap.securing(self._number)

    def do_handshake(self) -> None:
        """One step. Raises as that of ``SSLSocket``."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                self._fetch()
            except ssl.SSLError:
                self._say_why()
                raise
            else:
                self._flush()
                if self._tap is not None:
                    self._tap.secured(self._number)
                return

    def read(self, size: int) -> bytes:
        """Decrypted octets. Raises as that of ``SSLSocket``."""
        while True:
            try:
                return self._tls.read(size)
            except ssl.SSLWantReadError:
                self._fetch()
            except ssl.SSLError:
                self._say_why()
                raise

    def write(self, data: memoryview) -> int:
        """How many octets were encrypted and handed over. Raises as that of ``SSLSocket``: after WANT_WRITE the next must
        offer the same octets."""
        self._flush()
        if not self._owed:
            self._owed = self._tls.write(data)
            self._flush()
        written, self._owed = self._owed, 0
        return written

    def pending(self) -> int:
        """Octets that no selector tells, because the system does not have them any more."""
        return self._tls.pending() + self._incoming.pending

    def unwrap(self) -> None:
        """Say goodbye. Raises as that of ``SSLSocket``."""
        try:
            self._tls.unwrap()
        finally:
            self._flush()

    def _fetch(self) -> None:
        """More records of the peer. Raises SSLWantReadError when there are none."""
        try:
            data = self.recv(CHUNK)
        except (BlockingIOError, InterruptedError):
            raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "The operation did not complete (read)") from None
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def _flush(self) -> None:
        """Hand our records over. Raises SSLWantWriteError while the system does not take them."""
        if self._outgoing.pending:
            self._unsent = memoryview(bytes(self._unsent) + self._outgoing.read())
        while self._unsent:
            try:
                self._unsent = self._unsent[self.send(self._unsent) :]
            except (BlockingIOError, InterruptedError):
                raise ssl.SSLWantWriteError(
                    ssl.SSL_ERROR_WANT_WRITE, "The operation did not complete (write)"
                ) from None

    def _say_why(self) -> None:
        """The alert that goes with an error."""
        try:
            self._flush()
        except OSError:
            pass

    # ------------------------------------------------------------------ who the peer is

    @property
    def _sslobj(self) -> Any:
        return self._tls._sslobj  # type: ignore[attr-defined]

    @property
    def session_reused(self) -> bool | None:
        """The session was begun by an earlier connection."""
        return self._tls.session_reused

    def cipher(self) -> tuple[str, str, int] | None:
        """Name, version and bits of the cipher suite."""
        return self._tls.cipher()

    def version(self) -> str | None:
        """``"TLSv1.2"`` or ``"TLSv1.3"``."""
        return self._tls.version()

    def getpeercert(self, binary_form: bool = False) -> Any:
        """The peer's certificate."""
        return self._tls.getpeercert(binary_form)
