"""Certificates for development, made with nothing but ``cryptography``."""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509

from p2psip.cli.authority import AUTHORITY_DAYS, Authority
from p2psip.net.certificates import CertificateStore, LocalCertificate, TrustAnchors
from p2psip.net.identity import Identities
from p2psip.net.tls import TlsContexts


def test_a_certificate_that_works(tmp_path: Path) -> None:
    authority = Authority.create()
    made = authority.issue(["alice.example", "127.0.0.1", "[::1]"])
    path = made.write(tmp_path)
    authority.trust_in(tmp_path)
    store = CertificateStore(tmp_path)
    found = store.find(made.issuer, made.serial)
    assert found.certificate == LocalCertificate.from_files(path).certificate
    assert found.identities.names == ("alice.example", "127.0.0.1", "::1")
    assert found.default_host == "alice.example"
    TlsContexts(found, TrustAnchors.load(store.trusted)).require_server()
    names = made.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["alice.example"]  # for those who know nothing of SIP
    made.certificate.verify_directly_issued_by(authority.certificate)


def test_names_that_would_not_work() -> None:
    authority = Authority.create()
    for names in ([], ["*.example"], [""], ["a b"], ["-a"], ["alice@example"]):
        with pytest.raises(ValueError):
            authority.issue(names)
    made = authority.issue(["sip:alice.example"])
    assert Identities.from_certificate(made.certificate).names == ("alice.example",)


def test_the_authority_of_a_store_stays(tmp_path: Path) -> None:
    first = Authority.in_store(tmp_path)
    again = Authority.in_store(tmp_path)
    assert first.certificate == again.certificate
    assert first.name.startswith("p2psip development CA ")
    assert Authority.in_store(tmp_path / "other").name != first.name
    assert TrustAnchors.load(CertificateStore(tmp_path).trusted).certificates == (first.certificate,)
    assert CertificateStore(tmp_path).holdings().certificates == ()  # it is nobody's to show
    made = again.issue(["alice.example"])
    made.write(tmp_path)
    assert CertificateStore(tmp_path).find(first.name, made.serial)


def test_a_damaged_authority_is_said_to_be_so(tmp_path: Path) -> None:
    Authority.in_store(tmp_path)
    Authority.in_store(tmp_path / "other")
    key = tmp_path / "authority" / "authority.key"
    key.write_bytes((tmp_path / "other" / "authority" / "authority.key").read_bytes())
    with pytest.raises(ValueError, match=str(tmp_path.name)):
        Authority.in_store(tmp_path)
    key.write_text("nothing")
    with pytest.raises(ValueError, match=str(tmp_path.name)):
        Authority.in_store(tmp_path)


def test_nothing_outlives_the_authority() -> None:
    authority = Authority.create(days=10)
    made = authority.issue(["alice.example"], days=100)
    assert made.certificate.not_valid_after_utc == authority.certificate.not_valid_after_utc
    short = authority.issue(["alice.example"], days=1)
    left = short.certificate.not_valid_after_utc - datetime.datetime.now(datetime.timezone.utc)
    assert datetime.timedelta(hours=23) < left <= datetime.timedelta(days=1)


def test_an_expired_authority_issues_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Authority.in_store(tmp_path)
    later = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=AUTHORITY_DAYS + 1)
    monkeypatch.setattr("p2psip.cli.authority._now", lambda: later)
    with pytest.raises(ValueError, match="expired"):
        Authority.in_store(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="modes of files are POSIX's")
def test_keys_are_for_their_owner_only(tmp_path: Path) -> None:
    authority = Authority.in_store(tmp_path)
    path = authority.issue(["alice.example"]).write(tmp_path)
    again = authority.issue(["alice.example"]).write(tmp_path)  # over the first one
    assert path == again
    for file in (path, tmp_path / "authority" / "authority.key"):
        assert file.stat().st_mode & 0o077 == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["alice.example.pem", "authority", "trusted"]


def test_a_password(tmp_path: Path) -> None:
    path = Authority.create().issue(["alice.example"]).write(tmp_path, password="secret")
    assert b"ENCRYPTED PRIVATE KEY" in path.read_bytes()
    assert LocalCertificate.from_files(path, password="secret")


def test_trustme_is_not_needed() -> None:
    code = (
        "import sys; sys.modules['trustme'] = sys.modules['pytest'] = None\n"
        "from p2psip.cli.authority import Authority\n"
        "print(Authority.create('CA').issue(['a.example']).issuer)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout.strip(), done.returncode) == ("CA", 0), done.stderr
