"""What stands in a certificate, for people and scripts."""

from __future__ import annotations

import dataclasses
import datetime
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

_DAY = datetime.timedelta(days=1)


@dataclasses.dataclass(frozen=True)
class CertificateFacts:
    """The parts of a certificate that decide whether it works.

    Attributes:
        subject: Whose it is (RFC 4514).
        issuer: Who issued it (RFC 4514).
        serial: The serial number in hex.
        names: The alternative names: SIP URIs, DNS names, IP addresses.
        not_before: The beginning of its validity (UTC).
        not_after: The end of its validity (UTC).
        key: Kind and size of its public key.
        sha256: Its fingerprint in hex.
        is_authority: It may issue others.
    """

    subject: str
    issuer: str
    serial: str
    names: tuple[str, ...]
    not_before: datetime.datetime
    not_after: datetime.datetime
    key: str
    sha256: str
    is_authority: bool

    @classmethod
    def of(cls, certificate: x509.Certificate | bytes) -> CertificateFacts:
        """Read a certificate (DER).

        Raises:
            ValueError: These bytes are no certificate.
        """
        if isinstance(certificate, bytes):
            certificate = x509.load_der_x509_certificate(certificate)
        return cls(
            subject=certificate.subject.rfc4514_string(),
            issuer=certificate.issuer.rfc4514_string(),
            serial=f"{certificate.serial_number:x}",
            names=_names(certificate),
            not_before=certificate.not_valid_before_utc,
            not_after=certificate.not_valid_after_utc,
            key=_key(certificate),
            sha256=certificate.fingerprint(hashes.SHA256()).hex(),
            is_authority=_is_authority(certificate),
        )

    @property
    def title(self) -> str:
        """Its subject, or its first name where the subject is empty."""
        return self.subject or (self.names[0] if self.names else "(no name)")

    def days_left(self, now: datetime.datetime) -> int:
        """Whole days until it expires; negative once it has."""
        return (self.not_after - now) // _DAY

    def validity(self, now: datetime.datetime) -> str:
        """``2026-01-01 to 2027-01-01 (expires in 12 days)``."""
        span = f"{self.not_before:%Y-%m-%d} to {self.not_after:%Y-%m-%d}"
        days = self.days_left(now)
        if now < self.not_before:
            return f"{span} (NOT YET VALID)"
        if now > self.not_after:
            return f"{span} (EXPIRED {_days(-days - 1)} ago)"
        return f"{span} (expires in {_days(days)})"

    def as_json(self) -> dict[str, Any]:
        """For scripts."""
        return {
            "subject": self.subject,
            "issuer": self.issuer,
            "serial": self.serial,
            "names": list(self.names),
            "not_before": self.not_before.isoformat(),
            "not_after": self.not_after.isoformat(),
            "key": self.key,
            "sha256": self.sha256,
            "is_authority": self.is_authority,
        }

    def rows(self, now: datetime.datetime) -> list[tuple[str, str]]:
        """For people: what, and its value."""
        return [
            ("names", ", ".join(self.names) or "none"),
            ("valid", self.validity(now)),
            ("issuer", self.issuer),
            ("serial", self.serial),
            ("key", self.key),
        ]


def now() -> datetime.datetime:
    """The time that validity is judged by."""
    return datetime.datetime.now(datetime.timezone.utc)


def _days(number: int) -> str:
    return "1 day" if number == 1 else f"{number} days"


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return ()
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    addresses = names.get_values_for_type(x509.IPAddress)
    return (*uris, *names.get_values_for_type(x509.DNSName), *(str(address) for address in addresses))


def _key(certificate: x509.Certificate) -> str:
    try:
        key = certificate.public_key()
    except (UnsupportedAlgorithm, ValueError):
        return "unknown"
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA {key.key_size}"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"EC {key.curve.name}"
    return type(key).__name__.strip("_").removesuffix("PublicKey")


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return False
