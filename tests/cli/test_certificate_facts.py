"""What is told of a certificate."""

from __future__ import annotations

import datetime
import ipaddress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from p2psip.cli.certificate import CertificateFacts

NOON = datetime.datetime(2030, 6, 1, 12, tzinfo=datetime.timezone.utc)
DAY = datetime.timedelta(days=1)


def make(
    names: list[x509.GeneralName],
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None,
    subject: str = "CN=bob",
    ca: bool = False,
) -> bytes:
    key = key or ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name.from_rfc4514_string(subject))
        .issuer_name(x509.Name.from_rfc4514_string("CN=Example CA,O=Example"))
        .public_key(key.public_key())
        .serial_number(0x5F3A00C1)
        .not_valid_before(NOON - 10 * DAY)
        .not_valid_after(NOON + 20 * DAY)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if ca:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def test_everything_that_decides_is_told() -> None:
    facts = CertificateFacts.of(
        make(
            [
                x509.DNSName("bob.example"),
                x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
                x509.UniformResourceIdentifier("sip:bob.example"),
            ]
        )
    )
    assert facts.names == ("sip:bob.example", "bob.example", "127.0.0.1")
    assert (facts.subject, facts.issuer, facts.serial) == ("CN=bob", "CN=Example CA,O=Example", "5f3a00c1")
    assert facts.key == "EC secp256r1"
    assert not facts.is_authority
    told = facts.as_json()
    assert told["not_after"] == "2030-06-21T12:00:00+00:00"
    assert told["names"] == ["sip:bob.example", "bob.example", "127.0.0.1"]


def test_an_authority_with_an_rsa_key_and_no_names() -> None:
    facts = CertificateFacts.of(make([], rsa.generate_private_key(65537, 2048), ca=True))
    assert facts.key == "RSA 2048"
    assert facts.is_authority
    assert facts.names == ()
    assert ("names", "none") in facts.rows(NOON)


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (NOON, "expires in 20 days"),
        (NOON + 19 * DAY, "expires in 1 day)"),
        (NOON + 20 * DAY, "expires in 0 days"),
        (NOON + 20 * DAY + datetime.timedelta(seconds=1), "EXPIRED 0 days ago"),
        (NOON + 21 * DAY + datetime.timedelta(hours=1), "EXPIRED 1 day ago"),
        (NOON - 11 * DAY, "NOT YET VALID"),
    ],
)
def test_validity(now: datetime.datetime, words: str) -> None:
    facts = CertificateFacts.of(make([]))
    assert words in facts.validity(now)
    assert facts.validity(now).startswith("2030-05-22 to 2030-06-21")


def test_no_certificate_is_a_value_error() -> None:
    with pytest.raises(ValueError):
        CertificateFacts.of(b"garbage")
