"""A look at a TLS server that believes nothing and sends no message: what does it show to anybody who connects?

``check`` judges by the library's own verdict; this only finds out what there is to tell about it.
"""

from __future__ import annotations

import dataclasses
import math
import socket
import ssl
import time
import warnings

_LATE = 2.0
"""Seconds in which a refusal comes that TLS 1.3 sends after the handshake."""

_DEMANDS_CERTIFICATE = ("CERTIFICATE_REQUIRED", "HANDSHAKE_FAILURE", "BAD_CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED")


@dataclasses.dataclass
class View:
    """What could be seen.

    Attributes:
        address: The IP address and port that answered, or None.
        version: Of TLS, or None where the handshake failed.
        cipher: OpenSSL's name of the cipher suite, or None.
        chain: The certificates as the peer sent them (DER), its own first.
        demands_certificate: It ended the connection because we had no certificate.
        is_tls: What came back was TLS; None when nothing came back.
        problem: What the system said where there was no connection; empty where there was one.
    """

    address: tuple[str, int] | None = None
    version: str | None = None
    cipher: str | None = None
    chain: tuple[bytes, ...] = ()
    demands_certificate: bool = False
    is_tls: bool | None = None
    problem: str = ""

    @property
    def summary(self) -> str:
        """A few words."""
        if self.address is None:
            return self.problem or "no connection"
        if self.version is not None:
            return f"{self.version}, {self.cipher}"
        return "no TLS handshake" if self.is_tls else "connected, but what is there does not speak TLS"


def look(host: str, port: int, server_name: str | None, timeout: float, *, for_refusal: bool) -> View:
    """Connect without a certificate and without verification; never raises for what the peer does.

    Args:
        server_name: The name to ask for (SNI); None asks for none.
        timeout: Seconds for everything.
        for_refusal: Wait a moment for the peer to refuse us.
    """
    view = View()
    deadline = time.monotonic() + timeout
    try:
        with socket.create_connection((host, port), timeout) as plain:
            view.address = plain.getpeername()[:2]
            with _context().wrap_socket(plain, server_hostname=server_name, do_handshake_on_connect=False) as secure:
                _shake_hands(secure, deadline, view)
                if for_refusal:
                    secure.settimeout(_left(deadline, _LATE))
                    secure.recv(1)
    except ssl.SSLError as error:
        _understand(error, view)
    except (OSError, ValueError) as error:  # the verdict has a sentence for each of these
        view.problem = getattr(error, "strerror", None) or str(error)
    return view


def _shake_hands(secure: ssl.SSLSocket, deadline: float, view: View) -> None:
    secure.settimeout(_left(deadline))
    secure.do_handshake()
    view.is_tls = True
    cipher = secure.cipher()
    view.version, view.cipher = secure.version(), cipher and cipher[0]
    view.chain = _chain(secure)


def _left(deadline: float, most: float = math.inf) -> float:
    return max(min(deadline - time.monotonic(), most), 0.01)


def _understand(error: ssl.SSLError, view: View) -> None:
    reason = error.reason or ""
    if "ALERT" in reason:
        view.is_tls = True
        view.demands_certificate = any(name in reason for name in _DEMANDS_CERTIFICATE)
    elif view.is_tls is None:
        view.is_tls = False


def _context() -> ssl.SSLContext:
    """Takes anything, old versions included: whoever only looks has nothing to lose."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.set_ciphers("ALL:@SECLEVEL=0")
    return context


def _chain(secure: ssl.SSLSocket) -> tuple[bytes, ...]:
    """All certificates where this Python can give them, else the first."""
    source = secure if hasattr(secure, "get_unverified_chain") else getattr(secure, "_sslobj", None)
    try:
        chain = source.get_unverified_chain()  # type: ignore[union-attr]
    except AttributeError:
        leaf = secure.getpeercert(True)
        return () if leaf is None else (leaf,)
    return tuple(item if isinstance(item, bytes) else ssl.PEM_cert_to_DER_cert(item.public_bytes()) for item in chain)
