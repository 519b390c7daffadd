"""The certificate authority that users' tests get (what its defects do is in the TLS matrix)."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import pytest
import trustme
from cryptography import x509

from p2psip.errors import TlsFailureException, TlsFailureReason
from p2psip.net.certificates import LocalCertificate, TrustAnchors
from p2psip.net.tls import TlsContexts
from p2psip.testing import DEFECTS, CertificateAuthority, Defect


@pytest.fixture(scope="module")
def authority() -> CertificateAuthority:
    return CertificateAuthority("Contoso Issuing CA")


def test_names_of_every_kind(authority: CertificateAuthority) -> None:
    issued = authority.issue("sip:contoso.com", "contoso.com", "127.0.0.1", "::1")
    names = issued.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [type(name) for name in names] == [
        x509.UniformResourceIdentifier,
        x509.DNSName,
        x509.IPAddress,
        x509.IPAddress,
    ]
    assert issued.name == "contoso.com"
    assert issued.local.default_host == "contoso.com"
    assert authority.issue("fe80::1").name == "fe80::1"


def test_a_certificate_needs_a_name(authority: CertificateAuthority) -> None:
    with pytest.raises(ValueError):
        authority.issue()
    assert authority.issue(common_name="alone").name == "alone"


def test_what_it_issues_is_found_in_the_store_it_makes(authority: CertificateAuthority, tmp_path: Path) -> None:
    alice, bob = authority.issue("alice.example", serial=0x5F3A00C1), authority.issue("bob.example")
    store = authority.store(tmp_path, alice, bob)
    found = store.find("Contoso Issuing CA", "5f:3a:00:c1")
    assert found.certificate == alice.certificate
    assert store.find(bob.issuer, bob.serial).certificate == bob.certificate
    assert store.trusted.is_dir()
    TlsContexts(found, authority.trusted).require_server()


@pytest.mark.parametrize("password", [None, "secret"])
@pytest.mark.parametrize("as_pkcs12", [False, True])
def test_keys_are_for_their_owner_only_so_that_nobody_is_warned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, as_pkcs12: bool, password: str | None
) -> None:
    authority = CertificateAuthority()
    issued = authority.issue("b.example")
    before = os.umask(0)
    try:
        store = authority.store(tmp_path, issued, password=password, as_pkcs12=as_pkcs12)
    finally:
        os.umask(before)
    assert store.find(issued.issuer, issued.serial).certificate == issued.certificate
    assert caplog.records == []


@pytest.mark.parametrize("password", [None, "secret"])
@pytest.mark.parametrize("as_pkcs12", [False, True])
def test_files(authority: CertificateAuthority, tmp_path: Path, password: str | None, as_pkcs12: bool) -> None:
    issued = authority.issue("alice.example")
    path = issued.write(tmp_path, password=password, as_pkcs12=as_pkcs12)
    if os.name == "posix":
        assert path.stat().st_mode & 0o077 == 0
    assert LocalCertificate.from_files(path, password=password).der == issued.local.der


def test_intermediates(authority: CertificateAuthority, tmp_path: Path) -> None:
    lower = authority.intermediate("Upper CA").intermediate("Lower CA")
    issued = lower.issue("alice.example")
    assert len(issued.chain) == 2
    assert lower.root is authority
    assert lower.trusted.certificates == (authority.certificate,)
    assert lower.store(tmp_path, issued).find("Lower CA", issued.serial).chain == issued.chain


def test_revocation(authority: CertificateAuthority, tmp_path: Path) -> None:
    lower = authority.intermediate("Revoking CA")
    issued, other = lower.issue("alice.example"), lower.issue("bob.example")
    assert not lower.trusted.crls
    lower.revoke(issued)
    (crl,) = lower.trusted.crls
    assert crl.get_revoked_certificate_by_serial_number(issued.serial) is not None
    assert crl.get_revoked_certificate_by_serial_number(other.serial) is None
    store = lower.store(tmp_path, issued)
    assert b"X509 CRL" in (store.trusted / "roots.pem").read_bytes()


@pytest.mark.parametrize("defect", DEFECTS)
def test_each_defect_can_be_issued(authority: CertificateAuthority, defect: Defect) -> None:
    first, second = authority.issue("alice.example", defect=defect), authority.issue("alice.example", defect=defect)
    assert first.certificate != second.certificate
    assert first.certificate.public_key() == first.key.public_key()


def test_an_unknown_defect_is_refused(authority: CertificateAuthority) -> None:
    with pytest.raises(ValueError, match="expired"):
        authority.issue("alice.example", defect="ugly")  # type: ignore[arg-type]


def test_the_library_refuses_to_show_an_expired_certificate(authority: CertificateAuthority) -> None:
    with pytest.raises(TlsFailureException) as caught:
        _ = authority.issue("alice.example", defect="expired").local
    assert caught.value.failure_reason is TlsFailureReason.CERTIFICATE_EXPIRED


def test_bare_ssl_peers_can_show_it(authority: CertificateAuthority) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue("alice.example", defect="expired").load_into(context)


def test_roots_of_trustme_are_roots_too(authority: CertificateAuthority) -> None:
    trust = TrustAnchors.load([authority.certificate, trustme.CA().cert_pem.bytes()])
    assert len(trust.certificates) == 2
    TlsContexts(authority.issue("alice.example").local, trust).require_server()
