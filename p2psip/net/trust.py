"""What peers are verified with: trusted roots, and lists of revoked certificates."""

from __future__ import annotations

import datetime
import os
import ssl
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from p2psip.errors import TlsFailureException, TlsFailureReason
from p2psip.logs import Log
from p2psip.net import failures, files
from p2psip.net.names import RelativeName, name_parts, shown_name

_log = Log(__name__)

SYSTEM = "system"
"""The public roots of the operating system, for outgoing connections only."""

_MAXIMUM_CHAIN = 20


class TrustAnchors:
    """Trusted certificates and CRLs. Immutable.

    Attributes:
        certificates: Roots as a rule; any certificate here is trusted, whoever has issued it.
        crls: Lists of revoked certificates.
        system: The system's public roots count as well, for outgoing connections.
        source: Where they come from, for sentences.
    """

    def __init__(
        self,
        certificates: Iterable[x509.Certificate] = (),
        crls: Iterable[x509.CertificateRevocationList] = (),
        *,
        system: bool = False,
        source: str = "the trusted roots given",
    ) -> None:
        self.certificates = tuple(dict.fromkeys(certificates))
        self.crls = tuple(crls)
        self.system = system
        self.source = source

    @classmethod
    def load(cls, source: Any) -> TrustAnchors:
        """Read them, now.

        Args:
            source: A file or folder (PEM or DER, certificates and CRLs), ``"system"``, PEM or DER as bytes, a
                certificate or CRL of ``cryptography``, or a list of any of these. None, and what is not there, give none.

        Raises:
            TlsFailureException: A CRL is damaged or cannot be applied (UNTRUSTED_REMOTE_CERTIFICATE): without it
                revoked certificates would be taken.
            TypeError: ``source`` is something else.
        """
        if isinstance(source, TrustAnchors):
            return source
        if source is None:
            return cls(source="trusted_roots (none were given)")
        if isinstance(source, bytes):
            contents = files.parse(source, Path("the given bytes"))
            return cls(contents.certificates, _checked([contents], "the trusted roots given"))
        if isinstance(source, x509.Certificate):
            return cls([source])
        if isinstance(source, x509.CertificateRevocationList):
            return cls(crls=_applicable(source, "the CRL given"))
        if source == SYSTEM:
            return cls(system=True, source="the system's roots")
        if isinstance(source, str | os.PathLike):
            return cls._from_path(Path(source))
        if isinstance(source, Iterable):
            return cls._joined([cls.load(item) for item in source])
        raise TypeError(
            f"Trusted roots are a file, a folder, a list, or 'system', not {type(source).__name__} {source!r}."
        )

    @classmethod
    def _from_path(cls, path: Path) -> TrustAnchors:
        if path.is_dir():
            where = f"the folder {path}"
            paths = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
        else:
            where = f"the file {path}" if path.exists() else f"{path} (which does not exist)"
            paths = [path] if path.exists() else []
        found = []
        for one in paths:
            try:
                found.append(files.read(one))
            except files.UnreadableError as error:
                _log.warning("The file of trusted roots %s %s; it is left out.", one, error)
        crls = _checked(found, where)
        return cls((c for contents in found for c in contents.certificates), crls, source=where)

    @classmethod
    def _joined(cls, parts: Sequence[TrustAnchors]) -> TrustAnchors:
        return cls(
            (certificate for part in parts for certificate in part.certificates),
            (crl for part in parts for crl in part.crls),
            system=any(part.system for part in parts),
            source=" and ".join(dict.fromkeys(part.source for part in parts)) or "trusted_roots (an empty list)",
        )

    def serves(self, *, outgoing: bool) -> bool:
        """There is something to verify peers with."""
        return bool(self.certificates) or (self.system and outgoing)

    def load_into(self, context: ssl.SSLContext, *, outgoing: bool, with_crls: bool) -> None:
        """Make OpenSSL verify peers with them."""
        if self.certificates:
            context.load_verify_locations(cadata=b"".join(c.public_bytes(Encoding.DER) for c in self.certificates))
        if self.system and outgoing:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        if with_crls and self.crls:
            pem = b"".join(crl.public_bytes(Encoding.PEM) for crl in self.crls)
            with files.shown_as_file(pem) as path:
                context.load_verify_locations(cafile=path)

    def __repr__(self) -> str:
        return f"<TrustAnchors: {len(self.certificates)} certificates, {len(self.crls)} CRLs from {self.source}>"


class RevocationError(Exception):
    """A certificate is revoked, or that is unknown; ``code`` is OpenSSL's verification code for it."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Revocation:
    """Looks for certificates in the CRLs of the trust anchors.

    OpenSSL can only demand a CRL of every issuer (which ``"strict"`` leaves to it), not look where there is one.
    """

    def __init__(self, trust: TrustAnchors) -> None:
        self._anchors = trust.certificates
        self._lists: dict[tuple[RelativeName, ...], list[x509.CertificateRevocationList]] = {}
        for crl in trust.crls:
            self._lists.setdefault(tuple(name_parts(crl.issuer)), []).append(crl)
        self._signatures: dict[tuple[int, bytes], bool] = {}

    def __bool__(self) -> bool:
        return bool(self._lists)

    def check(self, chain: Sequence[x509.Certificate], *, strict: bool = False) -> None:
        """Whether one of these is revoked.

        Args:
            chain: The peer's certificate first.
            strict: Each issuer must have a CRL.

        Raises:
            RevocationError: One is, or whether it is cannot be found out: no usable CRL of an issuer that has one.
        """
        now = datetime.datetime.now(datetime.timezone.utc)
        for certificate, issuer in self._links(chain):
            if not self._lists_of(certificate):
                if strict:
                    raise RevocationError(failures.CRL_MISSING)
                continue
            code = failures.CRL_SIGNATURE_FAILURE
            for crl in self._signed_lists_of(certificate, issuer):
                if _lists(crl, certificate):
                    raise RevocationError(failures.CERTIFICATE_REVOKED)
                if now < crl.last_update_utc:
                    code = failures.CRL_NOT_YET_VALID
                elif crl.next_update_utc is not None and now > crl.next_update_utc:
                    code = failures.CRL_EXPIRED
                else:
                    break
            else:
                raise RevocationError(code)

    def is_revoked(self, chain: Sequence[x509.Certificate]) -> bool:
        """Whether one of these, the peer's first, is known to be revoked; a list that is out of date still tells."""
        return any(
            _lists(crl, certificate)
            for certificate, issuer in self._links(chain)
            for crl in self._signed_lists_of(certificate, issuer)
        )

    def _lists_of(self, certificate: x509.Certificate) -> list[x509.CertificateRevocationList]:
        """Those that bear its issuer's name."""
        return self._lists.get(tuple(name_parts(certificate.issuer)), [])

    def _signed_lists_of(
        self, certificate: x509.Certificate, issuer: x509.Certificate | None
    ) -> Iterator[x509.CertificateRevocationList]:
        """Those that are its issuer's."""
        if issuer is not None:
            yield from (crl for crl in self._lists_of(certificate) if self._is_signed_by(crl, issuer))

    def _links(self, chain: Sequence[x509.Certificate]) -> Iterator[tuple[x509.Certificate, x509.Certificate | None]]:
        """Each certificate of the chain up to the root, with its issuer's."""
        certificate = chain[0]
        for _ in range(_MAXIMUM_CHAIN):
            if certificate.issuer == certificate.subject:
                return
            issuer = next((c for c in (*chain, *self._anchors) if _has_issued(c, certificate)), None)
            yield certificate, issuer
            if issuer is None:
                return
            certificate = issuer

    def _is_signed_by(self, crl: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
        key = (id(crl), issuer.fingerprint(hashes.SHA256()))
        known = self._signatures.get(key)
        if known is None:
            try:
                known = crl.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]
            except (TypeError, ValueError, UnsupportedAlgorithm):
                known = False
            self._signatures[key] = known
        return known


def _lists(crl: x509.CertificateRevocationList, certificate: x509.Certificate) -> bool:
    return crl.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None


def _has_issued(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    if name_parts(issuer.subject) != name_parts(certificate.issuer):
        return False
    try:
        certificate.verify_directly_issued_by(issuer)
    except InvalidSignature:
        return False
    except (TypeError, ValueError, UnsupportedAlgorithm):
        # Names that differ in kind or case only: OpenSSL takes them for the same, and it has verified the signature.
        return issuer.subject != certificate.issuer
    return True


def _checked(found: Sequence[files.Contents], where: str) -> list[x509.CertificateRevocationList]:
    crls = []
    for contents in found:
        for problem in contents.problems:
            _log.warning("The file of trusted roots %s %s; that part is left out.", contents.path, problem)
        if contents.damaged_crl:
            raise _inapplicable(f"{contents.path} in {where}", "it is damaged")
        for crl in contents.crls:
            crls += _applicable(crl, f"{contents.path}")
    return crls


def _applicable(crl: x509.CertificateRevocationList, where: str) -> list[x509.CertificateRevocationList]:
    """The CRL in a list.

    Raises:
        TlsFailureException: It tells a part of the truth only.
    """
    try:
        for extension in crl.extensions:
            value = extension.value
            if isinstance(value, x509.IssuingDistributionPoint):
                partial = value.indirect_crl or value.only_some_reasons or value.only_contains_attribute_certs
            else:
                partial = extension.critical
            if partial:
                raise _inapplicable(
                    f"{where} (issued by {shown_name(crl.issuer)})",
                    "it is not a complete list of its issuer (a delta or an indirect one, for instance)",
                )
    except (ValueError, x509.DuplicateExtension) as error:
        raise _inapplicable(where, "its extensions are damaged") from error
    return [crl]


def _inapplicable(where: str, why: str) -> TlsFailureException:
    return TlsFailureException(
        f"The CRL in {where} cannot be applied because {why}: replace it, or take it away to check no revocation there.",
        TlsFailureReason.UNTRUSTED_REMOTE_CERTIFICATE,
    )
