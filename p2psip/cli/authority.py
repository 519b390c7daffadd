"""A certificate authority for development and demonstrations: it makes certificates that work between SIP peers.

Not for anything that matters: who can read its key can be anybody.
"""

from __future__ import annotations

import dataclasses
import datetime
import ipaddress
import os
import re
import secrets
from collections.abc import Iterable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_DAYS = 3650
CERTIFICATE_DAYS = 397

_DAY = datetime.timedelta(days=1)
_HOST = re.compile(r"(?=.{1,253}\Z)(?!-)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*")


@dataclasses.dataclass(frozen=True, repr=False)
class Made:
    """A certificate with its private key.

    Attributes:
        certificate: It.
        key: Its private key.
    """

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def issuer(self) -> str:
        """The issuer's common name, as ``CertificateStore.find`` takes it."""
        return _common_name(self.certificate.issuer)

    @property
    def serial(self) -> int:
        """The serial number."""
        return self.certificate.serial_number

    def path_in(self, folder: Path) -> Path:
        """Where it is written to: the file is called by its common name."""
        return folder / f"{_file_name(_common_name(self.certificate.subject))}.pem"

    def write(self, folder: Path, *, password: str | None = None) -> Path:
        """Certificate and key in one PEM file that only this user can read, in a folder that is made if need be.

        Without a password the key lies there in clear, as is usual for development.
        """
        path = self.path_in(folder)
        _write_private(path, self.certificate.public_bytes(Encoding.PEM) + _key_pem(self.key, password))
        return path


class Authority:
    """Signs certificates with a key of its own.

    Attributes:
        certificate: Its own: what peers have to trust.
    """

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.certificate = certificate
        self._key = key

    @classmethod
    def create(cls, name: str | None = None, *, days: int = AUTHORITY_DAYS) -> Authority:
        """A new one. Without a name it gets one that no other bears."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(name or f"p2psip development CA {secrets.token_hex(4)}")
        public = key.public_key()
        certificate = (
            _builder(subject, subject, public, days)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(for_authority=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    @classmethod
    def in_store(cls, store: Path) -> Authority:
        """The authority that lives in a store, in its sub-folder ``authority``; a new one if there is none.

        Its certificate is in ``trusted`` of that store, so peers that use the store trust each other.

        Raises:
            ValueError: What is there is not an authority's.
            OSError: The folder cannot be read or written.
        """
        home = store / "authority"
        certificate_file, key_file = home / "authority.pem", home / "authority.key"
        if certificate_file.exists():
            authority = cls._load(certificate_file, key_file)
        else:
            authority = cls.create()
            _write_private(key_file, _key_pem(authority._key, None))
            certificate_file.write_bytes(authority.pem)
        authority.trust_in(store)
        return authority

    @classmethod
    def _load(cls, certificate_file: Path, key_file: Path) -> Authority:
        try:
            certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
            key = load_pem_private_key(key_file.read_bytes(), None)
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"The development authority in {certificate_file.parent} is damaged: remove that folder to get a new one."
            ) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise ValueError(
                f"The key in {key_file} is not that of {certificate_file}: remove that folder to get a new authority."
            )
        if _now() > certificate.not_valid_after_utc:
            raise ValueError(
                f"The development authority in {certificate_file.parent} has expired: remove that folder to get a new one."
            )
        return cls(certificate, key)

    @property
    def name(self) -> str:
        """What it is called."""
        return _common_name(self.certificate.subject)

    @property
    def pem(self) -> bytes:
        """Its certificate."""
        return self.certificate.public_bytes(Encoding.PEM)

    def trust_in(self, store: Path) -> Path:
        """Put its certificate into ``trusted`` of a store, where peers are verified with it."""
        path = store / "trusted" / f"{_file_name(self.name)}.pem"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.pem)
        return path

    def issue(self, names: Iterable[str], *, days: int = CERTIFICATE_DAYS) -> Made:
        """A certificate for both sides of TLS.

        Args:
            names: Host names and IP addresses that it stands for; the first one is its common name. A host name is
                there as a SIP URI as well, which is what SIP looks at first (RFC 5922 7.1).
            days: How long it is valid, but never longer than the authority.

        Raises:
            ValueError: A name is none; wildcards count for nothing in SIP.
        """
        names = [name.removeprefix("sip:") for name in names]
        if not names:
            raise ValueError("A certificate needs a name, such as alice.example.com.")
        alternatives = x509.SubjectAlternativeName([entry for name in names for entry in _general_names(name)])
        key = ec.generate_private_key(ec.SECP256R1())
        public = key.public_key()
        own = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        builder = (
            _builder(_name(names[0]), self.certificate.subject, public, days, self.certificate.not_valid_after_utc)
            .add_extension(alternatives, critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(for_authority=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own), critical=False)
        )
        return Made(builder.sign(self._key, hashes.SHA256()), key)


def _general_names(name: str) -> list[x509.GeneralName]:
    try:
        return [x509.IPAddress(ipaddress.ip_address(name.strip("[]")))]
    except ValueError:
        pass
    if _HOST.fullmatch(name) is None:
        raise ValueError(f"{name!r} is neither a host name nor an IP address: no certificate for it would work in SIP.")
    return [x509.UniformResourceIdentifier(f"sip:{name}"), x509.DNSName(name)]


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    days: int,
    limit: datetime.datetime | None = None,
) -> x509.CertificateBuilder:
    now = _now()
    end = now + days * _DAY
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))  # clocks differ
        .not_valid_after(end if limit is None else min(end, limit))
    )


def _key_usage(*, for_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not for_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=for_authority,
        crl_sign=for_authority,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])


def _common_name(name: x509.Name) -> str:
    return str(name.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def _file_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)


def _key_pem(key: ec.EllipticCurvePrivateKey, password: str | None) -> bytes:
    encryption = NoEncryption() if password is None else BestAvailableEncryption(password.encode())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def _write_private(path: Path, data: bytes) -> None:
    """Write what is for this user's eyes only, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        part.replace(path)
    except BaseException:
        part.unlink()
        raise


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
