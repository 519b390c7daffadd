"""One sentence about what would make a peer's TLS work, from what failed and from what the peer shows."""

from __future__ import annotations

import datetime
import socket

from p2psip.cli import certificate, exits
from p2psip.cli.certificate import CertificateFacts
from p2psip.cli.exits import ExitCode
from p2psip.cli.look import View
from p2psip.errors import ConnectionFailureException, RealTimeException, TlsFailureException, TlsFailureReason

_Reason = TlsFailureReason


def advise(
    error: RealTimeException, view: View, chain: list[CertificateFacts], expected: str, is_stranger: bool
) -> str:
    """One sentence about what would make it work.

    Args:
        error: Why it does not.
        view: What the peer shows to anybody.
        chain: The certificates it shows.
        expected: The name that its certificate has to bear.
        is_stranger: We had no certificate of our own.
    """
    if isinstance(error, TlsFailureException):
        return _advise_tls(error, view, chain, expected, is_stranger)
    if exits.exit_code(error) is ExitCode.TIMEOUT:
        return (
            "Nothing came back in time: see whether something else than SIP over TLS listens on this port, "
            "or a firewall drops what we send; --timeout gives it longer."
        )
    if isinstance(error.__cause__, socket.gaierror):
        return "The name leads nowhere: see whether it is spelled right and the DNS knows it, or connect by an address."
    if isinstance(error, ConnectionFailureException):
        return "Nobody answers there: see whether host and port are right, the peer runs, and no firewall is between."
    return "The connection is there, but the request failed; the sentence above says why."


def _advise_tls(
    error: TlsFailureException, view: View, chain: list[CertificateFacts], expected: str, is_stranger: bool
) -> str:
    reason, leaf = error.failure_reason, chain[0] if chain else None
    now = certificate.now()
    if reason is _Reason.INCORRECT_NAME_IN_REMOTE_CERTIFICATE and leaf is not None:
        names = ", ".join(dict.fromkeys(name.removeprefix("sip:") for name in leaf.names))
        if not names:
            return f"The peer needs a certificate with {expected} among its alternative names; this one has none."
        return (
            f"The certificate is for {names}: connect by one of these names, expect one with --tls-name, "
            f"or give the peer a certificate for {expected}."
        )
    if reason is _Reason.CERTIFICATE_EXPIRED:
        return _advise_dates(chain, now)
    if reason is _Reason.UNTRUSTED_REMOTE_CERTIFICATE:
        return _advise_trust(chain)
    if reason is _Reason.REMOTE_CERTIFICATE_REVOKED:
        return "The peer needs a new certificate: the issuer has revoked this one."
    if reason is _Reason.REMOTE_CERTIFICATE_INVALID_USAGE:
        return "The peer needs a certificate whose extended key usage includes server and client authentication."
    if view.is_tls is False or (reason is _Reason.REMOTE_DISCONNECTED and not view.is_tls):
        return (
            "What listens there does not speak TLS: take the peer's TLS port (usually 5061), "
            "or use --tcp with send and options where encryption does not matter."
        )
    if view.demands_certificate and is_stranger:
        return (
            "The peer demands a certificate from us: get one from an authority that it trusts, "
            "and give it with --certificate and --key, or put it into the store."
        )
    if view.demands_certificate:
        return (
            "The peer demands a certificate and does not accept ours: it has to trust the authority that issued ours."
        )
    if view.version is not None and view.version not in ("TLSv1.2", "TLSv1.3"):
        return f"The peer offers {view.version} only: it has to be brought up to TLS 1.2 or 1.3."
    if view.version is not None:
        return (
            f"The peer offers {view.version} with {view.cipher} only: it has to allow forward secrecy with "
            "authenticated encryption (ECDHE with AES-GCM or ChaCha20)."
        )
    return "The peer ended the handshake without saying why: its log will tell."


def _advise_dates(chain: list[CertificateFacts], now: datetime.datetime) -> str:
    for facts in chain:
        if now > facts.not_after:
            return f"The peer has to renew the certificate of {facts.title}: it expired on {facts.not_after:%Y-%m-%d}."
        if now < facts.not_before:
            return (
                f"The certificate of {facts.title} is valid from {facts.not_before:%Y-%m-%d} only: "
                "see whether the clocks here and there are right."
            )
    return "The peer has to renew its certificate or an authority above it; see whether our clock is right, too."


def _advise_trust(chain: list[CertificateFacts]) -> str:
    if not chain:
        return "Put the root certificate of the peer's authority into the store's folder trusted/, or name it with --trusted."
    last = chain[-1]
    if last.subject == last.issuer and len(chain) == 1:
        return (
            "The certificate is signed by nobody but itself: if you know it to be the peer's "
            f"(SHA-256 {last.sha256[:16]}...), put it into the store's folder trusted/, or name it with --trusted."
        )
    return (
        f"Put the root certificate of {last.issuer} into the store's folder trusted/ or name it with --trusted, "
        "if you trust it; if it is there, the peer has to send the certificates between its own and that root."
    )
