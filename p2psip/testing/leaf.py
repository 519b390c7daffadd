"""Certificates for tests, each with its key, and the parts that they are made of."""

from __future__ import annotations

import dataclasses
import datetime
import ipaddress
import re
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from p2psip.net import files
from p2psip.net.certificates import LocalCertificate

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

DAY = datetime.timedelta(days=1)

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_BOTH_USAGES = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


@dataclasses.dataclass(frozen=True, repr=False)
class IssuedCertificate:
    """A certificate with its key.

    Attributes:
        certificate: It.
        key: Its private key.
        chain: What its owner sends along: the certificates between it and the root.
    """

    certificate: x509.Certificate
    key: PrivateKey
    chain: tuple[x509.Certificate, ...] = ()

    @property
    def issuer(self) -> str:
        """The issuer as ``CertificateStore.find`` takes it."""
        return self.certificate.issuer.rfc4514_string()

    @property
    def serial(self) -> int:
        """The serial number, likewise."""
        return self.certificate.serial_number

    @property
    def name(self) -> str:
        """The common name of its subject."""
        return str(self.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)

    @property
    def pem(self) -> bytes:
        """The certificate and what is sent along."""
        return b"".join(c.public_bytes(Encoding.PEM) for c in (self.certificate, *self.chain))

    @property
    def local(self) -> LocalCertificate:
        """As the library uses it; raises TlsFailureException where it would not use it."""
        return LocalCertificate(self.certificate, self.chain, self.key, "a test")

    def key_pem(self, password: str | None = None) -> bytes:
        """The key, encrypted if there is a password."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, _encryption(password))

    def pkcs12(self, password: str | None = None) -> bytes:
        """Everything in PKCS#12 form."""
        return pkcs12.serialize_key_and_certificates(
            self.name.encode(), self.key, self.certificate, self.chain, _encryption(password)
        )

    def write(self, folder: str | Path, *, password: str | None = None, as_pkcs12: bool = False) -> Path:
        """One file with everything, only for its owner's eyes. Returns its path."""
        stem = re.sub(r"[^A-Za-z0-9.-]", "_", self.name)
        path = Path(folder) / f"{stem}-{self.serial:x}{'.p12' if as_pkcs12 else '.pem'}"
        path.touch(0o600)
        path.write_bytes(self.pkcs12(password) if as_pkcs12 else self.pem + self.key_pem(password))
        return path

    def load_into(self, context: ssl.SSLContext) -> None:
        """For peers that are written with bare ``ssl``: use it whatever is wrong with it."""
        with files.shown_as_file(self.pem + self.key_pem()) as path:
            context.load_cert_chain(path, password=_no_password)


class Leaf:
    """What a certificate is to say; changed by defects before it is signed."""

    def __init__(
        self,
        names: Sequence[str],
        common_name: str | None,
        serial: int | None,
        key: Literal["ec", "rsa"],
        not_before: datetime.datetime | None,
        not_after: datetime.datetime | None,
    ) -> None:
        if not names and common_name is None:
            raise ValueError("A certificate needs a name: issue('sip:example.com', 'example.com').")
        self.names = list(names)
        self.common_name = common_name or names[0].removeprefix("sip:")
        self.serial = serial
        self.key = new_key(key)
        self.not_before = not_before or utc_now() - DAY
        self.not_after = not_after or utc_now() + DAY
        self.usages: Sequence[x509.ObjectIdentifier] = _BOTH_USAGES
        self.key_usage = key_usage(digital_signature=True)
        self.extra: list[x509.ExtensionType] = []

    def builder(self, issuer: x509.Name) -> x509.CertificateBuilder:
        """All of it, ready to be signed."""
        builder = (
            certificate_builder(subject_name(self.common_name), issuer, self.key.public_key(), self.serial)
            .not_valid_before(self.not_before)
            .not_valid_after(self.not_after)
            .add_extension(x509.BasicConstraints(False, None), critical=True)
            .add_extension(self.key_usage, critical=True)
            .add_extension(x509.ExtendedKeyUsage(self.usages), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False)
        )
        if self.names:
            names = x509.SubjectAlternativeName([general_name(name) for name in self.names])
            builder = builder.add_extension(names, critical=False)
        for extension in self.extra:
            builder = builder.add_extension(extension, critical=True)
        return builder


def general_name(name: str) -> x509.GeneralName:
    """An alternative name by its looks: an IP address, a URI, or else a DNS name."""
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.UniformResourceIdentifier(name) if _URI.match(name) else x509.DNSName(name)


def certificate_builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey, serial: int | None
) -> x509.CertificateBuilder:
    """What every certificate has but for its dates."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number() if serial is None else serial)
    )


def subject_name(common_name: str) -> x509.Name:
    """A name that shows where it comes from."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "p2psip tests"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64]),
        ]
    )


def key_usage(*, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    """The key usage with these bits."""
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def new_key(kind: Literal["ec", "rsa"]) -> PrivateKey:
    """P-256, or RSA with 2048 bits, which takes a hundred times as long."""
    return ec.generate_private_key(ec.SECP256R1()) if kind == "ec" else rsa.generate_private_key(65537, 2048)


def _encryption(password: str | None) -> KeySerializationEncryption:
    return NoEncryption() if password is None else BestAvailableEncryption(password.encode())


def _no_password() -> bytes:
    raise AssertionError("The key is not encrypted.")


def utc_now() -> datetime.datetime:
    """Whole seconds, as certificates know them."""
    return datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
