"""What failed in TLS, as one typed exception and one sentence: the peer, what was tried, what came back, what helps."""

from __future__ import annotations

import errno
import ssl
from typing import NamedTuple

from p2psip.errors import ConnectionFailureException, TlsFailureException, TlsFailureReason
from p2psip.net.sockets import host_and_port, peer_name

CERTIFICATE_REVOKED = 23
CRL_EXPIRED = 12
CRL_MISSING = 3
CRL_NOT_YET_VALID = 11
CRL_SIGNATURE_FAILURE = 8
HAS_EXPIRED = 10
HOST_MISMATCH = 62
UNREADABLE = 1
"""OpenSSL's verification codes for what we find out without it; the last one is its code for anything else."""

_Reason = TlsFailureReason
_ROOT = "put the root certificate of its authority there if you trust it, and let the peer send what is between"
_CRL = "put a current CRL of that issuer there"
_NEW_CLOCK = "the peer has to renew it, unless the clock of this machine is wrong"

_VERIFICATION = {
    # Code: reason, what is wrong with the peer, what helps.
    2: (_Reason.UNTRUSTED_REMOTE_CERTIFICATE, "its certificate leads to no authority in {trust}", _ROOT),
    3: (
        _Reason.UNTRUSTED_REMOTE_CERTIFICATE,
        "it is unknown whether its certificate is revoked: {trust} has no CRL of an issuer in its chain",
        _CRL,
    ),
    7: (_Reason.UNTRUSTED_REMOTE_CERTIFICATE, "a signature in its chain of certificates is wrong", "it may be forged"),
    8: (
        _Reason.UNTRUSTED_REMOTE_CERTIFICATE,
        "it is unknown whether its certificate is revoked: the CRL in {trust} is not signed by the issuer",
        _CRL,
    ),
    9: (
        _Reason.CERTIFICATE_EXPIRED,
        "its certificate, or one above it, is not valid yet",
        "see whether the clocks here and there are right",
    ),
    10: (_Reason.CERTIFICATE_EXPIRED, "its certificate, or one above it, has expired", _NEW_CLOCK),
    11: (
        _Reason.UNTRUSTED_REMOTE_CERTIFICATE,
        "it is unknown whether its certificate is revoked: the CRL in {trust} is not valid yet",
        "see whether the clock of this machine is right",
    ),
    12: (
        _Reason.UNTRUSTED_REMOTE_CERTIFICATE,
        "it is unknown whether its certificate is revoked: the CRL in {trust} has expired",
        _CRL,
    ),
    18: (
        _Reason.UNTRUSTED_REMOTE_CERTIFICATE,
        "its certificate is signed by nobody but itself and is not in {trust}",
        "put it there if you know it to be the peer's",
    ),
    19: (
        _Reason.UNTRUSTED_REMOTE_CERTIFICATE,
        "its chain ends in a root certificate that is not in {trust}",
        "put that root there if you trust it",
    ),
    20: (_Reason.UNTRUSTED_REMOTE_CERTIFICATE, "its certificate leads to no authority in {trust}", _ROOT),
    21: (_Reason.UNTRUSTED_REMOTE_CERTIFICATE, "its certificate leads to no authority in {trust}", _ROOT),
    23: (_Reason.REMOTE_CERTIFICATE_REVOKED, "its certificate is revoked", "the peer needs a new one"),
    25: (
        _Reason.UNTRUSTED_REMOTE_CERTIFICATE,
        "its chain has more authorities than one of them allows (path length)",
        "its authority has to issue another certificate",
    ),
    26: (
        _Reason.REMOTE_CERTIFICATE_INVALID_USAGE,
        "its certificate may not be used by a TLS {role}",
        "it needs the extended key usage {usage} (or none at all) and the key usage digitalSignature",
    ),
    34: (
        _Reason.UNTRUSTED_REMOTE_CERTIFICATE,
        "its certificate bears a critical extension that OpenSSL does not know",
        "its authority has to issue another certificate",
    ),
    47: (
        _Reason.UNTRUSTED_REMOTE_CERTIFICATE,
        "an authority in its chain may not issue certificates for its names (name constraints)",
        "it needs a certificate from another authority",
    ),
    66: (
        _Reason.UNTRUSTED_REMOTE_CERTIFICATE,
        "the key of its certificate is too weak",
        "it needs RSA with 2048 bits or more, or an elliptic curve such as P-256",
    ),
    67: (
        _Reason.UNTRUSTED_REMOTE_CERTIFICATE,
        "the key of an authority in its chain is too weak",
        "it needs a certificate from another authority",
    ),
    68: (
        _Reason.UNTRUSTED_REMOTE_CERTIFICATE,
        "a signature in its chain is made with a weak digest such as SHA-1",
        "its authority has to sign with SHA-256 or better",
    ),
    79: (
        _Reason.UNTRUSTED_REMOTE_CERTIFICATE,
        "its certificate was issued with one that is no authority's",
        "it needs a certificate from a real authority",
    ),
}

_ALERTS = {
    # What the peer said, and what it means.
    "UNKNOWN_CA": "it does not trust the authority that issued our certificate, whose root has to be added there",
    "CERTIFICATE_EXPIRED": "our certificate or one above it has expired in its view: renew it, or set its clock",
    "CERTIFICATE_REVOKED": "our certificate is revoked in its view: get a new one",
    "CERTIFICATE_REQUIRED": "it demands a certificate and got none",
    "BAD_CERTIFICATE": "it does not take our certificate, which may be not valid yet, for another name, or too weak",
    "UNSUPPORTED_CERTIFICATE": "the usage of our certificate does not allow what we do with it: "
    "it needs serverAuth, clientAuth and digitalSignature",
    "CERTIFICATE_UNKNOWN": "it does not take our certificate, for a reason that stands in its log",
    "DECRYPT_ERROR": "a signature of ours or in our chain is wrong in its view",
    "ACCESS_DENIED": "it knows who we are and does not let us in",
    "HANDSHAKE_FAILURE": "the two sides have no cipher or signature in common, or it demands a certificate and got none",
    "PROTOCOL_VERSION": "it speaks none of the TLS versions that are allowed here (1.2 and 1.3)",
    "INSUFFICIENT_SECURITY": "it demands stronger ciphers than we share with it",
    "INTERNAL_ERROR": "it has a problem of its own, which its log will tell",
    "UNRECOGNIZED_NAME": "it does not know the name that was asked for",
}

_NOT_TLS = "what it sent is not TLS, so one side uses the wrong port or transport"
_NOTHING_IN_COMMON = "the two sides have no TLS version, cipher or kind of key in common"
_ERRORS = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it showed no certificate, but this side demands one (need_mutual_tls)",
    "NO_SHARED_CIPHER": _NOTHING_IN_COMMON,
    "UNSUPPORTED_PROTOCOL": _NOTHING_IN_COMMON,
    "NO_SUITABLE_SIGNATURE_ALGORITHM": _NOTHING_IN_COMMON,
    "NO_SUITABLE_KEY_SHARE": _NOTHING_IN_COMMON,
    "WRONG_VERSION_NUMBER": _NOT_TLS,
    "HTTP_REQUEST": _NOT_TLS,
    "HTTPS_PROXY_REQUEST": _NOT_TLS,
    "PACKET_LENGTH_TOO_LONG": _NOT_TLS,
    "RECORD_LAYER_FAILURE": _NOT_TLS,
    "EXCESSIVE_MESSAGE_SIZE": "its chain of certificates is larger than a handshake may be",
}

_SHOWN_NAMES = 5
_LONGEST_NAME = 64
"""Of what a certificate holds, in sentences."""

_DISCONNECTED = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ConnectionError)


class Peer(NamedTuple):
    """Who is at the other end, for sentences and for what exceptions carry.

    Attributes:
        host: As it was asked for; None when the peer connected to us.
        identity: The name that its certificate has to bear; None when the peer connected to us.
        local, remote: ``(host, port)`` of the two sides.
        trust: Where the trust anchors come from, for sentences.
    """

    host: str | None
    identity: str | None
    local: tuple[str, int] | None
    remote: tuple[str, int]
    trust: str

    @property
    def name(self) -> str:
        """For sentences."""
        return peer_name(self.host, self.remote)

    def failure(
        self, sentence: str, reason: TlsFailureReason, code: int = 0, certificate: bytes | None = None
    ) -> TlsFailureException:
        """The exception, complete."""
        return TlsFailureException(
            sentence,
            reason,
            error_code=code,
            local_endpoint=self.local,
            remote_endpoint=self.remote,
            remote_certificate=certificate,
        )


def refused(
    peer: Peer, code: int, certificate: bytes | None, message: str = "", *, how: str = "refused in the TLS handshake"
) -> TlsFailureException:
    """We refuse the peer's certificate; ``code`` is OpenSSL's verification code, ``message`` its text for it."""
    if code in _VERIFICATION:
        reason, why, advice = _VERIFICATION[code]
        is_client = peer.identity is None
        because = f"{why}: {advice}".format(
            trust=peer.trust,
            role="client" if is_client else "server",
            usage="clientAuth" if is_client else "serverAuth",
        )
    else:
        reason = _Reason.UNTRUSTED_REMOTE_CERTIFICATE
        because = f"OpenSSL finds fault with its certificate: {message or f'code {code}'}"
    sentence = f"{_subject(peer)} was {how} because {because}."
    return peer.failure(sentence, reason, code, certificate)


def misnamed(peer: Peer, names: tuple[str, ...], certificate: bytes) -> TlsFailureException:
    """The peer's certificate is good, but it is somebody else's (RFC 5922 7.3)."""
    return peer.failure(
        f"{_subject(peer)} was refused because its certificate is for {shown_names(names) or 'no SIP domain'} and not "
        f"for {peer.identity}: connect by a name that it bears, or expect one of them (tls_target_name; "
        "proxy_certificate_subject for an outbound proxy).",
        _Reason.INCORRECT_NAME_IN_REMOTE_CERTIFICATE,
        HOST_MISMATCH,
        certificate,
    )


def handshake_failed(peer: Peer, error: OSError | ValueError, certificate: bytes | None = None) -> TlsFailureException:
    """What ``ssl`` raised in a handshake, or before the peer has said a word after it. Chain it with ``from``."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return refused(peer, error.verify_code, certificate, error.verify_message)
    code = (error.errno or 0) if isinstance(error, OSError) else 0
    if is_disconnect(error):
        return disconnected(peer, code)
    if not isinstance(error, ssl.SSLError):
        what = (error.strerror if isinstance(error, OSError) else None) or error
        return peer.failure(f"The TLS handshake with {peer.name} failed: {what}.", _Reason.OTHER, code)
    word = error.reason or ""
    _, alert, meaning = word.partition("ALERT_")
    if alert:
        said = meaning.lower().replace("_", " ")
        because = _ALERTS.get(meaning, "what that means may stand in its log")
        sentence = f"{_subject(peer)} refused us in the TLS handshake with the alert {said!r}: {because}."
        return peer.failure(sentence, _Reason.TLS_NEGOTIATION_FAILURE, code, certificate)
    because = _ERRORS.get(word, f"OpenSSL says {word.lower().replace('_', ' ') or error}")
    reason = _Reason.TLS_NEGOTIATION_FAILURE if error.library == "SSL" else _Reason.OTHER
    return peer.failure(f"The TLS handshake with {peer.name} failed because {because}.", reason, code, certificate)


def is_disconnect(error: OSError | ValueError) -> bool:
    """The peer, or the network, has closed the connection."""
    if isinstance(error, _DISCONNECTED) or (isinstance(error, OSError) and error.errno == errno.ENOTCONN):
        return True
    word = (error.reason or "") if isinstance(error, ssl.SSLError) else ""
    # The last is Python's own, when bytes and a reset came before TLS could begin.
    return word == "UNEXPECTED_EOF_WHILE_READING" or "before TLS handshake" in str(error)


def disconnected(peer: Peer, code: int = 0) -> TlsFailureException:
    """The peer closed the connection in the handshake, or right after it without a word."""
    return peer.failure(
        f"{_subject(peer)} closed the connection in the TLS handshake without saying why: it may not accept our "
        "certificate, or not speak TLS on that port.",
        _Reason.REMOTE_DISCONNECTED,
        code,
    )


def outlived(
    peer: str, local: tuple[str, int], remote: tuple[str, int], certificate: bytes | None
) -> TlsFailureException:
    """A connection is still there when the certificate of its peer is over."""
    return TlsFailureException(
        f"The certificate of {peer} has expired while it was connected, so the connection was closed.",
        _Reason.CERTIFICATE_EXPIRED,
        local_endpoint=local,
        remote_endpoint=remote,
        remote_certificate=certificate,
    )


def lost(peer: Peer, error: OSError | ValueError) -> ConnectionFailureException:
    """A connection that had worked is no more. Chain it with ``from``."""
    if isinstance(error, ssl.SSLError) and not is_disconnect(error):
        word = (error.reason or "an unknown error").lower().replace("_", " ")
        came = f"TLS failed with {word!r}, so what came is not what the peer had sent or it ended the connection"
    elif is_disconnect(error):
        came = "the peer closed it without the end that TLS prescribes, so something may be missing"
    else:
        came = f"the system said {(error.strerror if isinstance(error, OSError) else None) or error}"
    return ConnectionFailureException(f"The TLS connection to {peer.name} was lost: {came}.")


def no_trust(trust: str, what: str, *, system: bool = False) -> TlsFailureException:
    """There is nothing to verify peers with; ``system`` means that there is, but not for peers that connect."""
    because = (
        "because the system's roots count for outgoing connections only: name the roots of your peers' authorities"
        if system
        else f"because {trust} holds no root certificate to verify peers with: put the roots of their authorities there, "
        "or name them"
    )
    return TlsFailureException(
        f"{what} over TLS is not possible {because} with trusted_roots.", _Reason.UNTRUSTED_REMOTE_CERTIFICATE
    )


def shown_names(names: tuple[str, ...]) -> str:
    """The names in a peer's certificate for a sentence. The peer has chosen them: no control characters, no floods."""
    shown = ", ".join(ascii(name)[1:-1][:_LONGEST_NAME] for name in names[:_SHOWN_NAMES])
    return f"{shown} and others" if len(names) > _SHOWN_NAMES else shown


def _subject(peer: Peer) -> str:
    """The peer at the beginning of a sentence, with the side that it is on."""
    return peer.name if peer.host is not None else f"The peer at {host_and_port(*peer.remote)}"
