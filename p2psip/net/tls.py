"""TLS contexts: what is offered and demanded, with which certificate (RFC 9325)."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Iterable
from typing import Any, cast

from p2psip.errors import TlsFailureException, TlsFailureReason
from p2psip.net import failures
from p2psip.net.certificates import LocalCertificate
from p2psip.net.failures import Peer
from p2psip.net.identity import server_name
from p2psip.net.limits import plain_host
from p2psip.net.tap import TappedSocket
from p2psip.net.tls_socket import TlsInfo, TlsSocket, Verifier
from p2psip.net.trust import Revocation, TrustAnchors

__all__ = ["TlsContexts", "TlsInfo", "TlsSocket"]

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:@SECLEVEL=2"
"""For TLS 1.2: forward secrecy and authenticated encryption, keys of 112 bits of security; TLS 1.3 has nothing else."""

REVOCATION = ("available", "strict", "off")
_VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


class _Socket(ssl.SSLSocket):
    """Closes itself where ``wrap_socket`` would leave it to the garbage collector, open: the peer has gone already, and
    what it sent before the handshake, if anything, is none of TLS (CVE-2023-40217)."""

    is_made = False

    def getpeername(self) -> Any:
        try:
            return super().getpeername()
        except OSError as error:
            if self.is_made:
                raise
            self.close()
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)) from error


class TlsContexts:
    """Our certificate, whom we trust, and the rules: makes TLS sockets for both directions. Immutable.

    They are tried out in memory before the constructor returns, so that others can be replaced by them.

    Args:
        certificate: Ours, for both directions.
        trust: What peers are verified with.
        need_mutual_tls: Peers that connect must show a certificate; otherwise they are not asked for one.
        minimum_version: TLS 1.2 or 1.3.
        revocation: ``"available"`` checks issuers that have a CRL among the trust anchors, ``"strict"`` demands one of
            each issuer, ``"off"`` checks none.
        allow_common_name: Take the common name of a certificate that has no alternative names.
        key_log_file: Where session keys are appended, for a debugger; None writes them nowhere.

    Attributes:
        verifier: What is looked at when OpenSSL has verified a peer.

    Raises:
        TlsFailureException: OpenSSL cannot use the certificate (LOCAL_CERTIFICATE_NOT_FOUND), or the key log file
            cannot be written (OTHER).
        ValueError: An argument.
    """

    def __init__(
        self,
        certificate: LocalCertificate,
        trust: TrustAnchors,
        *,
        need_mutual_tls: bool = True,
        minimum_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2,
        revocation: str = "available",
        allow_common_name: bool = False,
        key_log_file: str | os.PathLike[str] | None = None,
    ) -> None:
        if revocation not in REVOCATION:
            raise ValueError(f"revocation is one of {', '.join(map(repr, REVOCATION))}, not {revocation!r}.")
        if minimum_version not in _VERSIONS:
            raise ValueError(f"The minimum TLS version is TLSv1_2 or TLSv1_3, not {minimum_version!r}.")
        self._trust = trust
        self._need_mutual_tls = need_mutual_tls
        self._strict = revocation == "strict"
        self._server = self._make(ssl.PROTOCOL_TLS_SERVER, certificate, minimum_version)
        self._client = self._make(ssl.PROTOCOL_TLS_CLIENT, certificate, minimum_version)
        _rehearse(self._server, self._client, certificate)
        if key_log_file is not None:
            _log_keys((self._server, self._client), os.fspath(key_log_file))
        if need_mutual_tls:
            self._demand_certificates(self._server, outgoing=False)
        self._demand_certificates(self._client, outgoing=True)
        self.verifier = Verifier(
            Revocation(trust) if revocation != "off" else Revocation(TrustAnchors()), self._strict, allow_common_name
        )

    def _make(
        self,
        protocol: ssl._SSLMethod,
        certificate: LocalCertificate,
        minimum_version: ssl.TLSVersion,
    ) -> ssl.SSLContext:
        """A context that verifies nobody yet."""
        context = ssl.SSLContext(protocol)
        context.sslsocket_class = _Socket
        context.check_hostname = False  # it would take wildcards and common names; the Verifier does RFC 5922
        context.verify_mode = ssl.CERT_NONE
        context.minimum_version = minimum_version
        context.set_ciphers(CIPHERS)
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
        # Some builds of Python set it, and would report a connection that was cut as one that ended in order.
        # OpenSSL 1.1.1 does not have it.
        context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
        if protocol is ssl.PROTOCOL_TLS_SERVER:
            context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
            context.num_tickets = 0
        certificate.load_into(context)
        return context

    def _demand_certificates(self, context: ssl.SSLContext, *, outgoing: bool) -> None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_TRUSTED_FIRST | ssl.VERIFY_X509_PARTIAL_CHAIN
        if self._strict:
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
        self._trust.load_into(context, outgoing=outgoing, with_crls=self._strict)

    def close_key_log(self) -> None:
        """Write no more session keys, and close their file. Only where no handshake goes on: on the loop's thread."""
        for context in (self._server, self._client):
            context.keylog_filename = None  # type: ignore[assignment]

    # ------------------------------------------------------------------ sockets

    @property
    def need_mutual_tls(self) -> bool:
        """Peers that connect must show a certificate."""
        return self._need_mutual_tls

    def require_server(self) -> None:
        """Make sure that peers which connect can be verified, if they have to be.

        Raises:
            TlsFailureException: There is no trusted root (UNTRUSTED_REMOTE_CERTIFICATE).
        """
        if self._need_mutual_tls and not self._trust.serves(outgoing=False):
            raise failures.no_trust(self._trust.source, "Listening", system=self._trust.system)

    def require_client(self, what: str = "Connecting") -> None:
        """Make sure that peers we connect to can be verified. Raises as :meth:`require_server`."""
        if not self._trust.serves(outgoing=True):
            raise failures.no_trust(self._trust.source, what)

    def wrap_server(self, sock: socket.socket, remote: tuple[str, int]) -> TlsSocket:
        """TLS for a socket that was accepted from ``remote``. The socket given is used up, whatever happens.

        Raises:
            TlsFailureException: The peer has gone already (REMOTE_DISCONNECTED), or as :meth:`require_server`.
        """
        self.require_server()
        peer = Peer(None, None, _local(sock), remote, self._trust.source)
        return TlsSocket(self._wrap(self._server, sock, peer, None), peer, self.verifier)

    def wrap_client(
        self, sock: socket.socket, target_identity: str | None, host: str, remote: tuple[str, int]
    ) -> TlsSocket:
        """TLS for a socket that is connected (not: being connected) to ``remote``. The socket given is used up.

        Args:
            target_identity: The name that the peer's certificate has to bear; None means ``host``.
            host: The host as it was asked for, for sentences.

        Raises:
            TlsFailureException: The peer has gone already (REMOTE_DISCONNECTED), or as :meth:`require_client`.
        """
        identity = host if target_identity is None else target_identity
        peer = Peer(host, identity, _local(sock), remote, self._trust.source)
        self.require_client(f"Connecting to {peer.name}")
        return TlsSocket(self._wrap(self._client, sock, peer, server_name(identity)), peer, self.verifier)

    def _wrap(self, context: ssl.SSLContext, sock: socket.socket, peer: Peer, asked: str | None) -> ssl.SSLSocket:
        try:
            if isinstance(sock, TappedSocket):
                sock.begin_tls(context, server_side=context is self._server, server_hostname=asked)
                return cast(ssl.SSLSocket, sock)  # it has those methods that matter
            wrapped = context.wrap_socket(
                sock,
                server_side=context is self._server,
                do_handshake_on_connect=False,
                suppress_ragged_eofs=False,
                server_hostname=asked,
            )
        except (OSError, ValueError) as error:
            sock.close()
            raise failures.handshake_failed(peer, error) from error
        wrapped.is_made = True  # type: ignore[attr-defined]
        return wrapped


def _local(sock: socket.socket) -> tuple[str, int] | None:
    """Our side of a socket; None where sockets have no such addresses, as in tests."""
    try:
        address = sock.getsockname()
    except OSError:
        return None
    return (plain_host(address[0]), address[1]) if isinstance(address, tuple) else None


def _log_keys(contexts: Iterable[ssl.SSLContext], path: str) -> None:
    """Append the session keys to that file, which is made for its owner's eyes only."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
        for context in contexts:
            context.keylog_filename = path
    except OSError as error:
        raise TlsFailureException(
            f"The key log file {path} cannot be written: {error.strerror or error}.",
            TlsFailureReason.OTHER,
            error_code=error.errno or 0,
        ) from error


def _rehearse(server: ssl.SSLContext, client: ssl.SSLContext, certificate: LocalCertificate) -> None:
    """Shake hands in memory, so that nothing is replaced by contexts that cannot."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = server.wrap_bio(to_server, to_client, server_side=True)
    two = client.wrap_bio(to_client, to_server)
    shaking = [two, one]
    try:
        for _ in range(20):
            for side in list(shaking):
                try:
                    side.do_handshake()
                except ssl.SSLWantReadError:
                    continue
                shaking.remove(side)
            if not shaking:
                return
    except ssl.SSLError as error:
        raise certificate.unusable(error) from error
    raise certificate.unusable(None)
