"""A certificate authority for tests: certificates as they should be, and with every defect that a peer may meet."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

from p2psip.net.certificates import CertificateStore, TrustAnchors
from p2psip.testing.leaf import (
    DAY,
    IssuedCertificate,
    Leaf,
    PrivateKey,
    certificate_builder,
    key_usage,
    new_key,
    subject_name,
    utc_now,
)

Defect = Literal[
    "expired",
    "not_yet_valid",
    "expired_intermediate",
    "self_signed",
    "unknown_authority",
    "foreign_root",
    "missing_intermediate",
    "issuer_not_authority",
    "path_length",
    "name_constraints",
    "critical_extension",
    "bad_signature",
    "weak_key",
    "weak_signature",
    "revoked",
    "wrong_usage",
    "any_usage_only",
    "sip_domain_only",
    "bad_key_usage",
    "wrong_name",
    "common_name_only",
]
"""What may be wrong with a certificate, one thing at a time."""

DEFECTS: tuple[Defect, ...] = get_args(Defect)

_SIP_DOMAIN = x509.ObjectIdentifier("1.3.6.1.5.5.7.3.20")  # RFC 5924
_UNKNOWN_EXTENSION = x509.ObjectIdentifier("1.3.6.1.4.1.55555.1.1")
_SHA256_WITH_RSA = bytes.fromhex("2a864886f70d01010b")  # RFC 8017 A.2.4
_SHA1_WITH_RSA = bytes.fromhex("2a864886f70d010105")


class CertificateAuthority:
    """An authority and what it issues. Keys are elliptic curves, so making one takes a millisecond.

    Args:
        name: What it is called, and what a certificate is looked up by in a store.

    Attributes:
        certificate: The authority's own.
        chain: What is sent along with what it issues; empty for a root.
    """

    def __init__(self, name: str = "Example Issuing CA") -> None:
        root = trustme.CA(organization_name="p2psip tests", organization_unit_name=name)
        key = load_pem_private_key(root.private_key_pem.bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey)
        self._become(name, x509.load_pem_x509_certificate(root.cert_pem.bytes()), key, None)

    def _become(
        self,
        name: str,
        certificate: x509.Certificate,
        key: PrivateKey,
        parent: CertificateAuthority | None,
    ) -> None:
        self.name = name
        self.certificate = certificate
        self.chain: tuple[x509.Certificate, ...] = () if parent is None else (certificate, *parent.chain)
        self._key = key
        self._parent = parent
        self._revoked: list[int] = []
        self._others: dict[str, CertificateAuthority] = {}

    @property
    def root(self) -> CertificateAuthority:
        """The authority at the top."""
        return self if self._parent is None else self._parent.root

    @property
    def pem(self) -> bytes:
        """The authority's certificate."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def trusted(self) -> TrustAnchors:
        """What those who trust this authority's root verify with, CRLs of authorities that revoked something included."""
        return TrustAnchors([self.root.certificate], [a.crl() for a in self._line() if a._revoked], source="the test")

    def _line(self) -> list[CertificateAuthority]:
        return [self] if self._parent is None else [self, *self._parent._line()]

    # ------------------------------------------------------------------ what it makes

    def issue(
        self,
        *names: str,
        common_name: str | None = None,
        defect: Defect | None = None,
        serial: int | None = None,
        key: Literal["ec", "rsa"] = "ec",
        not_before: datetime.datetime | None = None,
        not_after: datetime.datetime | None = None,
    ) -> IssuedCertificate:
        """A certificate for both sides of TLS.

        Args:
            names: Its alternative names: ``sip:`` URIs, DNS names, IP addresses.
            common_name: Of its subject; the first name by default.
            defect: What is wrong with it, and nothing else.
            serial: Its serial number; a random one by default.
            not_before, not_after: Yesterday and tomorrow by default.
        """
        leaf = Leaf(names, common_name, serial, key, not_before, not_after)
        if defect is None:
            return self._sign(leaf)
        if defect not in DEFECTS:
            raise ValueError(f"{defect!r} is not one of the defects {', '.join(DEFECTS)}.")
        return _MAKERS[defect](self, leaf)

    def intermediate(
        self,
        name: str = "Example Intermediate CA",
        *,
        path_length: int | None = None,
        permitted: str | None = None,
        is_authority: bool = True,
        key: Literal["ec", "rsa"] = "ec",
        not_after: datetime.datetime | None = None,
    ) -> CertificateAuthority:
        """An authority below this one.

        Args:
            path_length: How many authorities there may be below it.
            permitted: The only DNS domain that it may issue for.
            is_authority: Its certificate says that it is one.
            not_after: When it expires; tomorrow by default.
        """
        own = new_key(key)
        now = utc_now()
        builder = (
            certificate_builder(subject_name(name), self.certificate.subject, own.public_key(), None)
            .not_valid_before(now - 30 * DAY)
            .not_valid_after(not_after or now + DAY)
            .add_extension(x509.BasicConstraints(is_authority, path_length if is_authority else None), critical=True)
            .add_extension(key_usage(key_cert_sign=True, crl_sign=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(own.public_key()), critical=False)
            .add_extension(self._key_identifier(), critical=False)
        )
        if permitted is not None:
            constraints = x509.NameConstraints([x509.DNSName(permitted)], None)
            builder = builder.add_extension(constraints, critical=True)
        child = CertificateAuthority.__new__(CertificateAuthority)
        child._become(name, builder.sign(self._key, hashes.SHA256()), own, self)
        return child

    def revoke(self, issued: IssuedCertificate) -> None:
        """From now on its CRL lists it."""
        self._revoked.append(issued.serial)

    def crl(self, *, expired: bool = False) -> x509.CertificateRevocationList:
        """The list of what it has revoked, good until tomorrow, or until yesterday."""
        now = utc_now()
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(now - 2 * DAY)
            .next_update(now + (-DAY if expired else DAY))
            .add_extension(x509.CRLNumber(len(self._revoked) + 1), critical=False)
            .add_extension(self._key_identifier(), critical=False)
        )
        for serial in self._revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now - DAY).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(self._key, hashes.SHA256())

    def store(
        self, folder: str | Path, *issued: IssuedCertificate, password: str | None = None, as_pkcs12: bool = False
    ) -> CertificateStore:
        """A certificate store in that folder with these certificates, that trusts this authority's root."""
        trusted = Path(folder) / "trusted"
        trusted.mkdir(parents=True, exist_ok=True)
        for each in issued:
            each.write(folder, password=password, as_pkcs12=as_pkcs12)
        anchors = self.trusted
        roots = [root.public_bytes(Encoding.PEM) for root in anchors.certificates]
        (trusted / "roots.pem").write_bytes(b"".join(roots + [crl.public_bytes(Encoding.PEM) for crl in anchors.crls]))
        return CertificateStore(folder, password=password)

    # ------------------------------------------------------------------ how it makes them

    def _other(self, name: str, make: Callable[[], CertificateAuthority]) -> CertificateAuthority:
        """An authority that a defect needs, made once."""
        if name not in self._others:
            self._others[name] = make()
        return self._others[name]

    def _key_identifier(self) -> x509.AuthorityKeyIdentifier:
        own = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own.value)

    def _sign(self, leaf: Leaf) -> IssuedCertificate:
        builder = leaf.builder(self.certificate.subject).add_extension(self._key_identifier(), critical=False)
        return IssuedCertificate(builder.sign(self._key, hashes.SHA256()), leaf.key, self.chain)


# ---------------------------------------------------------------------- defects

_Maker = Callable[[CertificateAuthority, Leaf], IssuedCertificate]


def _changed(**attributes: Any) -> _Maker:
    """A certificate that says something else."""

    def make(authority: CertificateAuthority, leaf: Leaf) -> IssuedCertificate:
        for name, value in attributes.items():
            setattr(leaf, name, value() if callable(value) else value)
        return authority._sign(leaf)

    return make


def _below(name: str, **how: Any) -> _Maker:
    """A certificate from an intermediate authority of a kind."""

    def make(authority: CertificateAuthority, leaf: Leaf) -> IssuedCertificate:
        return authority._other(name, lambda: authority.intermediate(name, **how))._sign(leaf)

    return make


def _self_signed(authority: CertificateAuthority, leaf: Leaf) -> IssuedCertificate:
    builder = leaf.builder(subject_name(leaf.common_name))
    return IssuedCertificate(builder.sign(leaf.key, hashes.SHA256()), leaf.key)


def _unknown_authority(authority: CertificateAuthority, leaf: Leaf) -> IssuedCertificate:
    return authority._other("Unknown CA", lambda: CertificateAuthority("Unknown CA"))._sign(leaf)


def _foreign_root(authority: CertificateAuthority, leaf: Leaf) -> IssuedCertificate:
    foreign = authority._other("Unknown CA", lambda: CertificateAuthority("Unknown CA"))
    return dataclasses.replace(foreign._sign(leaf), chain=(foreign.certificate,))


def _missing_intermediate(authority: CertificateAuthority, leaf: Leaf) -> IssuedCertificate:
    return dataclasses.replace(_below("Unsent CA")(authority, leaf), chain=())


def _expired_intermediate(authority: CertificateAuthority, leaf: Leaf) -> IssuedCertificate:
    yesterday = utc_now() - DAY
    return authority._other("Expired CA", lambda: authority.intermediate("Expired CA", not_after=yesterday))._sign(leaf)


def _path_length(authority: CertificateAuthority, leaf: Leaf) -> IssuedCertificate:
    last = authority._other("Last CA", lambda: authority.intermediate("Last CA", path_length=0))
    return last._other("CA too many", lambda: last.intermediate("CA too many"))._sign(leaf)


def _bad_signature(authority: CertificateAuthority, leaf: Leaf) -> IssuedCertificate:
    good = authority._sign(leaf)
    octets = bytearray(good.certificate.public_bytes(Encoding.DER))
    octets[-1] ^= 1
    return dataclasses.replace(good, certificate=x509.load_der_x509_certificate(bytes(octets)))


def _weak_signature(authority: CertificateAuthority, leaf: Leaf) -> IssuedCertificate:
    """Signed with SHA-1, which ``cryptography`` does not do any more: the names of the two algorithms are as long."""
    old = authority._other("Old CA", lambda: authority.intermediate("Old CA", key="rsa"))
    good = old._sign(leaf)
    octets = good.certificate.public_bytes(Encoding.DER).replace(_SHA256_WITH_RSA, _SHA1_WITH_RSA)
    assert isinstance(old._key, rsa.RSAPrivateKey)
    signed = x509.load_der_x509_certificate(octets).tbs_certificate_bytes
    signature = old._key.sign(signed, padding.PKCS1v15(), hashes.SHA1())
    weak = x509.load_der_x509_certificate(octets[: -len(signature)] + signature)
    return dataclasses.replace(good, certificate=weak)


def _revoked(authority: CertificateAuthority, leaf: Leaf) -> IssuedCertificate:
    issued = authority._sign(leaf)
    authority.revoke(issued)
    return issued


_MAKERS: dict[Defect, _Maker] = {
    "expired": _changed(not_before=lambda: utc_now() - 3 * DAY, not_after=lambda: utc_now() - DAY),
    "not_yet_valid": _changed(not_before=lambda: utc_now() + DAY, not_after=lambda: utc_now() + 3 * DAY),
    "expired_intermediate": _expired_intermediate,
    "self_signed": _self_signed,
    "unknown_authority": _unknown_authority,
    "foreign_root": _foreign_root,
    "missing_intermediate": _missing_intermediate,
    "issuer_not_authority": _below("No CA", is_authority=False),
    "path_length": _path_length,
    "name_constraints": _below("Constrained CA", permitted="permitted.example"),
    "critical_extension": _changed(
        extra=lambda: [x509.UnrecognizedExtension(_UNKNOWN_EXTENSION, b"\x05\x00")],
    ),
    "bad_signature": _bad_signature,
    "weak_key": _changed(key=lambda: rsa.generate_private_key(65537, 1024)),
    "weak_signature": _weak_signature,
    "revoked": _revoked,
    "wrong_usage": _changed(usages=(ExtendedKeyUsageOID.CODE_SIGNING,)),
    "any_usage_only": _changed(usages=(ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,)),
    "sip_domain_only": _changed(usages=(_SIP_DOMAIN,)),
    "bad_key_usage": _changed(key_usage=lambda: key_usage(key_cert_sign=True)),
    "wrong_name": _changed(names=lambda: ["wrong.example"]),
    "common_name_only": _changed(names=list),
}
