"""One TLS connection on a non-blocking socket: all that ``ssl`` asks to be careful with is in here."""

from __future__ import annotations

import datetime
import functools
import math
import selectors
import socket
import ssl
from collections.abc import Iterable
from typing import Any, NamedTuple

from cryptography import x509

from p2psip.errors import RealTimeException, TlsFailureException, fresh
from p2psip.net import failures
from p2psip.net.failures import Peer
from p2psip.net.identity import Identities
from p2psip.net.trust import Revocation, RevocationError

SLICE = 16384
"""Bytes handed to OpenSSL at once: one TLS record."""

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class TlsInfo:
    """What a finished handshake has shown. Immutable.

    Attributes:
        version: ``"TLSv1.2"`` or ``"TLSv1.3"``.
        cipher: OpenSSL's name of the cipher suite.
        certificate: The peer's, verified (DER); None when it was not asked for one.
        identities: Whom it stands for; None without a certificate.
        not_after: When it expires, in seconds since the epoch; infinity without a certificate.
    """

    __slots__ = ("certificate", "cipher", "identities", "not_after", "version")

    def __init__(
        self, version: str, cipher: str, certificate: bytes | None, identities: Identities | None, not_after: float
    ) -> None:
        self.version = version
        self.cipher = cipher
        self.certificate = certificate
        self.identities = identities
        self.not_after = not_after

    def matching(self, allowed_domains: Iterable[str]) -> str | None:
        """The allowed domain that the peer's certificate carries; None when it carries none of them."""
        return None if self.identities is None else self.identities.matching(allowed_domains)


class Verifier(NamedTuple):
    """What is looked at in a peer's certificate after OpenSSL has verified its chain.

    Attributes:
        revocation: The CRLs; empty when they do not matter.
        strict: Each issuer must have a CRL.
        allow_common_name: Take the common name of a certificate that has no alternative names.
    """

    revocation: Revocation
    strict: bool
    allow_common_name: bool

    def verify(self, sock: ssl.SSLSocket, peer: Peer) -> TlsInfo:
        """Who the peer is.

        Raises:
            TlsFailureException: It is not whom we want, or its certificate is revoked.
        """
        cipher = sock.cipher()
        version, suite = sock.version() or "", cipher[0] if cipher else ""
        der = sock.getpeercert(True)
        if der is None:
            return TlsInfo(version, suite, None, None, math.inf)
        try:
            shown = _read(der, self.allow_common_name)
        except ValueError as error:
            raise failures.refused(peer, failures.UNREADABLE, der, str(error)) from error
        if sock.session_reused:
            self._verify_again(sock, peer, shown.certificate, der)
        elif self.revocation and not self.strict:  # strict: OpenSSL has looked
            self._look_for(peer, [shown.certificate, *_verified_chain(sock)], der)
        if peer.identity is not None and not shown.identities.covers(peer.identity):
            raise failures.misnamed(peer, shown.identities.names, der)
        return TlsInfo(version, suite, shown.der, shown.identities, shown.not_after)

    def _verify_again(self, sock: ssl.SSLSocket, peer: Peer, certificate: x509.Certificate, der: bytes) -> None:
        """A client has resumed a session of TLS 1.2, which OpenSSL takes on the strength of the first handshake.

        There is no switch for that. The trust anchors are still the same, since a session belongs to its context; but
        time has passed.
        """
        chain = [certificate, *_shown_chain(sock)]
        now = datetime.datetime.now(datetime.timezone.utc)
        if any(now > shown.not_valid_after_utc for shown in chain):
            raise failures.refused(peer, failures.HAS_EXPIRED, der)
        if self.revocation or self.strict:
            self._look_for(peer, chain, der)

    def verify_live(self, sock: ssl.SSLSocket, peer: Peer) -> None:
        """Whether a peer that was verified by other rules may stay.

        Raises:
            TlsFailureException: Its certificate, or one above it, has been revoked.
        """
        der = sock.getpeercert(True)
        if der is None or not self.revocation:
            return
        certificate = _read(der, self.allow_common_name).certificate
        if self.revocation.is_revoked([certificate, *(_verified_chain(sock) or _shown_chain(sock))]):
            raise failures.refused(peer, failures.CERTIFICATE_REVOKED, der, how="disconnected")

    def _look_for(self, peer: Peer, chain: list[x509.Certificate], der: bytes) -> None:
        try:
            self.revocation.check(chain, strict=self.strict)
        except RevocationError as error:
            raise failures.refused(peer, error.code, der) from error


class _Read(NamedTuple):
    """What stands in a certificate."""

    der: bytes
    certificate: x509.Certificate
    identities: Identities
    not_after: float


@functools.lru_cache(maxsize=1024)
def _read(der: bytes, allow_common_name: bool) -> _Read:
    """Peers come again, and have several connections: what they show is read once, and kept once."""
    certificate = x509.load_der_x509_certificate(der)
    identities = Identities.from_certificate(certificate, allow_common_name)
    return _Read(der, certificate, identities, certificate.not_valid_after_utc.timestamp())


class TlsSocket:
    """A socket as connections use them (``StreamSocket``), with TLS. For one thread; nothing blocks.

    The descriptor is wrapped when it is connected, and nothing but TLS records ever leaves it: ``read`` and ``write``
    of ``ssl.SSLSocket`` are used, which fail where its ``recv`` and ``send`` would fall back to plain text.
    """

    __slots__ = ("_failure", "_peer", "_retry", "_socket", "_unconfirmed", "_verifier", "info", "wants")

    info: TlsInfo | None

    def __init__(self, sock: ssl.SSLSocket, peer: Peer, verifier: Verifier) -> None:
        self._socket = sock
        self._peer = peer
        self._verifier = verifier
        self._failure: RealTimeException | None = None  # the first one; what ssl says after it means nothing
        self._retry = 0  # bytes that a write was refused for now; the next must offer as many, and the same
        # A server of TLS 1.3 judges our certificate when the handshake is over for us, and any server may look at its
        # names then: until it has said something, whatever ends the connection is a failure of TLS.
        self._unconfirmed = peer.identity is not None
        self.info = None
        self.wants = READ

    def fileno(self) -> int:
        """For selectors."""
        return self._socket.fileno()

    def pending(self) -> int:
        """Bytes that are decrypted already, which no selector tells."""
        return self._socket.pending()

    def handshake(self) -> int:
        """One step. 0 when it is over and the peer is verified, else the event that it waits for.

        Raises:
            TlsFailureException: One of the two sides refuses, or the peer has gone.
        """
        if self._failure is not None:
            raise fresh(self._failure)
        try:
            self._socket.do_handshake()
        except ssl.SSLWantReadError:
            self.wants = READ
            return READ
        except ssl.SSLWantWriteError:
            self.wants = WRITE
            return WRITE
        except (OSError, ValueError) as error:
            shown = _shown_chain_der(self._socket)
            self._failure = failures.handshake_failed(self._peer, error, shown[0] if shown else None)
            self._failure.__cause__ = error
            raise fresh(self._failure) from error
        try:
            self.info = self._verifier.verify(self._socket, self._peer)
        except TlsFailureException as error:
            self._failure = error
            raise
        return 0

    def verify_again(self, verifier: Verifier) -> None:
        """By other rules than those of the handshake, if they are others.

        Raises:
            TlsFailureException: The peer has been revoked meanwhile.
        """
        if verifier is not self._verifier:
            self._verifier = verifier
            verifier.verify_live(self._socket, self._peer)

    def receive(self, size: int) -> bytes | None:
        """What has come, one record at most; ``b""`` after the peer's close_notify, None when nothing is there.

        Works after a ``send`` that failed as well, and should be used then: what the peer said last tells more than
        our broken pipe.

        Raises:
            TlsFailureException: The peer has not said a word since the handshake and has ended the connection.
            ConnectionFailureException: The connection was cut, or what came is not what the peer had sent.
        """
        if self._failure is not None:
            raise fresh(self._failure)
        try:
            data: bytes = self._socket.read(size)
        except ssl.SSLWantReadError:
            self.wants = READ
            return None
        except ssl.SSLWantWriteError:
            self.wants = WRITE
            return None
        except ssl.SSLZeroReturnError:  # instead of b"" when we have said goodbye as well
            data = b""
        except (OSError, ValueError) as error:
            self._failure = self._failed(error)
            self._failure.__cause__ = error
            raise fresh(self._failure) from error
        if self._unconfirmed:
            if not data:
                self._failure = failures.disconnected(self._peer)
                raise fresh(self._failure)
            self._unconfirmed = False
        return data

    def send(self, view: memoryview) -> int:
        """How many bytes from the start of ``view`` were taken; 0 means later, with a view that begins the same.

        Raises: As :meth:`receive`.
        """
        length = self._retry or min(len(view), SLICE)
        if not length:
            return 0
        try:
            sent = self._socket.write(view[:length])
        except ssl.SSLWantWriteError:
            self._retry, self.wants = length, WRITE
            return 0
        except ssl.SSLWantReadError:
            self._retry, self.wants = length, READ
            return 0
        except (OSError, ValueError) as error:
            raise self._failed(error) from error
        self._retry = 0
        return sent

    def _failed(self, error: OSError | ValueError) -> RealTimeException:
        if self._unconfirmed:
            return failures.handshake_failed(self._peer, error, self.info.certificate if self.info else None)
        return failures.lost(self._peer, error)

    def finish(self) -> bool:
        """Send close_notify (after a failed handshake its alert is on the way already), then close our half of TCP.

        True when that is done; False: again when ``wants`` is there. Nothing can be sent after it.
        """
        try:
            self._socket.unwrap()
        except ssl.SSLWantWriteError:
            self.wants = WRITE
            return False
        except (OSError, ValueError):  # sent, and the peer's is not there yet; or nobody is there to hear it
            pass
        try:
            # Not SSLSocket.shutdown, which would turn the socket back into a plain one.
            socket.socket.shutdown(self._socket, socket.SHUT_WR)
        except OSError:
            pass
        return True

    def close(self) -> None:
        """Give the descriptor back, without any traffic."""
        self._socket.close()


def _verified_chain(sock: ssl.SSLSocket) -> list[x509.Certificate]:
    """The chain as OpenSSL has verified it."""
    return _load(_chain(sock, "get_verified_chain"))


def _shown_chain(sock: ssl.SSLSocket) -> list[x509.Certificate]:
    """The certificates that the peer has sent, when it did."""
    return _load(_chain(sock, "get_unverified_chain"))


def _shown_chain_der(sock: ssl.SSLSocket) -> list[bytes]:
    return _chain(sock, "get_unverified_chain")


def _chain(sock: Any, method: str) -> list[bytes]:
    """Public from Python 3.13 on; before that the object below has it."""
    try:
        source = sock if hasattr(sock, method) else sock._sslobj
        chain = getattr(source, method)()
    except (AttributeError, ValueError, ssl.SSLError):
        return []
    return [c if isinstance(c, bytes) else ssl.PEM_cert_to_DER_cert(c.public_bytes()) for c in chain or ()]


def _load(chain: list[bytes]) -> list[x509.Certificate]:
    certificates = []
    for der in chain:
        try:
            certificates.append(x509.load_der_x509_certificate(der))
        except ValueError:  # it was good enough for OpenSSL, but no issuer of a CRL can be told from it
            continue
    return certificates
