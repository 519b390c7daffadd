"""What the tests of TLS share: certificates made once, and two sides that are driven together, each wait bounded."""

from __future__ import annotations

import functools
import select
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

from p2psip.errors import RealTimeException
from p2psip.net.certificates import LocalCertificate
from p2psip.net.tap import Tapping
from p2psip.net.tls import TlsContexts
from p2psip.net.tls_socket import TlsSocket
from p2psip.testing import CertificateAuthority, Defect, IssuedCertificate

BOUND = 10.0
"""Seconds: no wait is longer, and none that passes takes it."""

TAPPING = Tapping()
"""Of our sockets; nobody looks on unless a test says so."""

TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
VERSIONS = (TLS12, TLS13)
NAME = "alice.example"


@functools.cache
def authority() -> CertificateAuthority:
    return CertificateAuthority()


@functools.cache
def issued(defect: Defect | None = None) -> IssuedCertificate:
    """A certificate for ``NAME``, perhaps with one defect."""
    return authority().issue(f"sip:{NAME}", NAME, "127.0.0.1", common_name=NAME, defect=defect)


class Unchecked(LocalCertificate):
    """A certificate that the library itself would not show to anybody."""

    def _check(self) -> None:
        pass


def local(certificate: IssuedCertificate) -> LocalCertificate:
    return Unchecked(certificate.certificate, certificate.chain, certificate.key)


def contexts(certificate: IssuedCertificate | None = None, **options: Any) -> TlsContexts:
    """Ours, trusting the authority."""
    trust = options.pop("trust", None) or authority().trusted
    return TlsContexts(local(certificate or issued()), trust, **options)


def bare_context(
    *,
    server: bool,
    version: ssl.TLSVersion | None = None,
    certificate: IssuedCertificate | None = None,
    verify: bool = True,
) -> ssl.SSLContext:
    """Somebody else's: takes everything that OpenSSL can be made to take."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED if verify else ssl.CERT_NONE
    context.set_ciphers("DEFAULT:@SECLEVEL=0" if not verify else "DEFAULT")
    context.load_verify_locations(cadata=authority().pem.decode())
    if version is not None:
        context.minimum_version = context.maximum_version = version
    if certificate is not None:
        certificate.load_into(context)
    return context


def tcp_pair(opened: list[Any]) -> tuple[socket.socket, socket.socket]:
    """A client's and a server's socket, connected over loopback, not blocking; ``opened`` gets them, to close them."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(BOUND)
        client = socket.create_connection(listener.getsockname(), BOUND)
        server, _ = listener.accept()
    opened += [client, server]
    for sock in (client, server):
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client, server


class Side:
    """One end of a connection, driven in steps. ``outcome`` is None until it is over."""

    outcome: Any = None

    def step(self) -> bool:
        """True when something moved."""
        raise NotImplementedError

    def fileno(self) -> int:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class Ours(Side):
    """A TlsSocket that shakes hands, sends what it is told to, and then reads until the first bytes or the end.

    Its outcome is the error, or what it has read.
    """

    def __init__(self, sock: TlsSocket, *, sends: tuple[bytes, ...] = (), reads: bool = True) -> None:
        self.socket = sock
        self._sends = list(sends)
        self._reads = reads
        self._shaken = False

    def fileno(self) -> int:
        return self.socket.fileno()

    def step(self) -> bool:
        try:
            if not self._shaken:
                if self.socket.handshake():
                    return False
                self._shaken = True
            while self._sends:
                if not self.socket.send(memoryview(self._sends[0])):
                    return False
                del self._sends[0]
            if not self._reads:
                self.outcome = self.socket.info
                return True
            data = self.socket.receive(65536)
            if data is None:
                return False
            self.outcome = data
        except RealTimeException as error:
            self.outcome = error
            self.socket.finish()
        return True

    def close(self) -> None:
        self.socket.close()


class Bare(Side):
    """A bare ``ssl`` peer: shakes hands, says hello if it is told to, reads until the first bytes or the end.

    Its outcome is the error, or what it has read.
    """

    def __init__(self, sock: ssl.SSLSocket, *, says: bytes = b"") -> None:
        self.socket = sock
        self._says = says
        self._shaken = False

    def fileno(self) -> int:
        return self.socket.fileno()

    def step(self) -> bool:
        try:
            if not self._shaken:
                self.socket.do_handshake()
                self._shaken = True
                if self._says:
                    self.socket.write(self._says)
            self.outcome = self.socket.read(65536)
        except ssl.SSLWantReadError:
            return False
        except OSError as error:
            self.outcome = error
            self.linger()
        return True

    def linger(self) -> None:
        """Nothing more is sent; what was must arrive."""
        try:
            socket.socket.shutdown(self.socket, socket.SHUT_WR)
        except OSError:
            pass

    def close(self) -> None:
        self.socket.close()


def bare(context: ssl.SSLContext, sock: socket.socket, *, says: bytes = b"", name: str | None = NAME) -> Bare:
    server = context.protocol is ssl.PROTOCOL_TLS_SERVER
    wrapped = context.wrap_socket(
        sock,
        server_side=server,
        do_handshake_on_connect=False,
        suppress_ragged_eofs=False,
        server_hostname=None if server else name,
    )
    return Bare(wrapped, says=says)


def drive(*sides: Side, until: Callable[[], bool] | None = None) -> None:
    """Step all sides until each has an outcome (or ``until`` is true)."""
    over = until or (lambda: all(side.outcome is not None for side in sides))
    end = time.monotonic() + BOUND
    while not over():
        moved = [side.step() for side in sides if side.outcome is None]
        if not any(moved) and not over():
            left = end - time.monotonic()
            assert left > 0, [side.outcome for side in sides]
            waiting = [side for side in sides if side.outcome is None]
            select.select(waiting, [], [], min(left, 0.2))


def ours_as_client(own: TlsContexts, sock: socket.socket, identity: str | None = NAME, **how: Any) -> Ours:
    remote = sock.getpeername()
    sock = TAPPING.on(sock, sock.getsockname(), remote, False)
    return Ours(own.wrap_client(sock, identity, identity or "127.0.0.1", remote), **how)


def ours_as_server(own: TlsContexts, sock: socket.socket, **how: Any) -> Ours:
    remote = sock.getpeername()
    return Ours(own.wrap_server(TAPPING.on(sock, sock.getsockname(), remote, True), remote), **how)
