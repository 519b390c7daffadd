"""Our own certificates: found in stores, read from files, and refused when peers would refuse them."""

from __future__ import annotations

import datetime
import logging
import os
import ssl
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tls_support import NAME, authority, issued

from p2psip.errors import TlsFailureException, TlsFailureReason
from p2psip.net import files
from p2psip.net.certificates import CertificateStore, LocalCertificate
from p2psip.testing import CertificateAuthority, Defect, IssuedCertificate

R = TlsFailureReason
SERIAL = 0x5F3A00C1
ISSUER = "Example Issuing CA"


def contoso(**how: object) -> IssuedCertificate:
    return authority().issue("sip:contoso.com", "contoso.com", serial=SERIAL, **how)  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path) -> CertificateStore:
    return authority().store(tmp_path, contoso(), issued())


def failing(store: CertificateStore, issuer: str = ISSUER, serial: int | str | bytes = SERIAL) -> TlsFailureException:
    with pytest.raises(TlsFailureException) as caught:
        store.find(issuer, serial)
    return caught.value


# ---------------------------------------------------------------------- finding


@pytest.mark.holds("R14")
@pytest.mark.parametrize(
    "issuer", [ISSUER, ISSUER.upper(), "O=p2psip tests, OU=Example  Issuing CA", "OU=Example Issuing CA,O=p2psip tests"]
)
@pytest.mark.parametrize(
    "serial", [SERIAL, "5f:3a:00:c1", "5F3A00C1", bytes.fromhex("5f3a00c1"), bytes.fromhex("c1003a5f")]
)
def test_every_form_of_issuer_and_serial_number(
    store: CertificateStore, issuer: str, serial: int | str | bytes
) -> None:
    found = store.find(issuer, serial)
    assert found.certificate.serial_number == SERIAL
    assert found.identities.names == ("contoso.com",)
    assert found.default_host == "contoso.com"
    assert found.der == found.certificate.public_bytes(Encoding.DER)


def test_the_sentence_tells_what_the_store_holds(store: CertificateStore) -> None:
    error = failing(store, serial=0x77)
    assert error.failure_reason is R.LOCAL_CERTIFICATE_NOT_FOUND
    for part in (str(store.path), "77", "contoso.com", "5f:3a:00:c1", NAME, ISSUER):
        assert part in str(error)


def test_the_right_serial_number_of_another_issuer_is_not_found(store: CertificateStore) -> None:
    assert failing(store, "Another CA").failure_reason is R.LOCAL_CERTIFICATE_NOT_FOUND


def test_an_empty_store_and_none_at_all(tmp_path: Path) -> None:
    assert "no certificate" in str(failing(CertificateStore(tmp_path)))
    missing = failing(CertificateStore(tmp_path / "missing"))
    assert missing.failure_reason is R.LOCAL_CERTIFICATE_NOT_FOUND
    assert str(tmp_path / "missing") in str(missing)
    assert isinstance(missing.__cause__, FileNotFoundError)


def test_wrong_arguments(store: CertificateStore) -> None:
    with pytest.raises(TypeError):
        store.find(None, SERIAL)  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        store.find("", SERIAL)
    with pytest.raises(ValueError):
        store.find(ISSUER, "no hex")


@pytest.mark.parametrize("password", [None, "secret"])
@pytest.mark.parametrize("as_pkcs12", [False, True])
def test_forms_of_files(tmp_path: Path, password: str | None, as_pkcs12: bool) -> None:
    store = authority().store(tmp_path, contoso(), password=password, as_pkcs12=as_pkcs12)
    assert store.find(ISSUER, SERIAL).certificate.serial_number == SERIAL


def test_der_files_and_a_key_of_another_name(tmp_path: Path) -> None:
    one = contoso()
    (tmp_path / "a.cer").write_bytes(one.certificate.public_bytes(Encoding.DER))
    write_private(tmp_path / "b.key", one.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))
    assert CertificateStore(tmp_path).find(ISSUER, SERIAL).certificate == one.certificate


def test_old_pem_keys(tmp_path: Path) -> None:
    one = contoso()
    pem = one.key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    write_private(tmp_path / "a.pem", b"whatever\n" + pem + b"more of it\n" + one.pem)
    assert CertificateStore(tmp_path).find(ISSUER, SERIAL).certificate == one.certificate


@pytest.mark.holds("R15", "F25")
@pytest.mark.parametrize("as_pkcs12", [False, True])
@pytest.mark.parametrize("password", [None, "hunter2"])
def test_a_wrong_or_missing_password(tmp_path: Path, password: str | None, as_pkcs12: bool) -> None:
    authority().store(tmp_path, contoso(), password="secret", as_pkcs12=as_pkcs12)
    error = failing(CertificateStore(tmp_path, password=password))
    assert error.failure_reason is R.LOCAL_CERTIFICATE_NOT_FOUND
    assert "password" in str(error)
    assert "hunter2" not in str(error)


def test_a_password_for_each_file(tmp_path: Path) -> None:
    asked = []

    def password(path: Path) -> str | None:
        asked.append(path.name)
        return "secret" if path.suffix == ".pem" else None

    authority().store(tmp_path, contoso(), password="secret")
    authority().store(tmp_path, issued(), password="other", as_pkcs12=True)
    assert CertificateStore(tmp_path, password=password).find(ISSUER, SERIAL)
    assert len(asked) == 2


def test_no_private_key(tmp_path: Path) -> None:
    (tmp_path / "a.pem").write_bytes(contoso().pem)
    error = failing(CertificateStore(tmp_path))
    assert error.failure_reason is R.LOCAL_CERTIFICATE_NOT_FOUND
    assert "key" in str(error)


def test_a_key_of_another_certificate(tmp_path: Path) -> None:
    one, other = contoso(), issued()
    write_private(tmp_path / "a.pem", one.pem + other.key_pem())
    assert failing(CertificateStore(tmp_path)).failure_reason is R.LOCAL_CERTIFICATE_NOT_FOUND


@pytest.mark.holds("F25")
def test_a_bad_file_hides_no_other(store: CertificateStore, caplog: pytest.LogCaptureFixture) -> None:
    (store.path / "0-garbage.pem").write_bytes(b"-----BEGIN CERTIFICATE-----\nnothing\n-----END CERTIFICATE-----\n")
    (store.path / "0-garbage.p12").write_bytes(b"\x30\x82" + os.urandom(100))
    (store.path / "0-garbage.key").write_bytes(
        b"-----BEGIN PRIVATE KEY-----\nnothing\n-----END PRIVATE KEY-----\n" + contoso().pem
    )
    (store.path / "0-notes.txt").write_text("remember the milk")
    (store.path / "0-large.pem").write_bytes(bytes(files.MAXIMUM_SIZE + 1))
    with caplog.at_level(logging.WARNING):
        assert store.find(ISSUER, SERIAL)
    for name in ("0-garbage.pem", "0-garbage.p12", "0-garbage.key", "0-notes.txt", "0-large.pem"):
        assert name in caplog.text
        assert any(name in problem for problem in store.holdings().problems)


@pytest.mark.holds("F25")
def test_a_thousand_files(tmp_path: Path) -> None:
    pem = issued().pem
    for number in range(1000):
        (tmp_path / f"{number}.pem").write_bytes(pem if number % 2 else b"garbage")
    authority().store(tmp_path, contoso())
    assert CertificateStore(tmp_path).find(ISSUER, SERIAL)


def test_holdings(store: CertificateStore) -> None:
    (store.path / "without.pem").write_bytes(authority().issue("c.example").pem)
    (store.path / ".hidden.pem").write_bytes(authority().issue("d.example").pem)
    held = {stored.certificate.serial_number: stored for stored in store.holdings().certificates}
    assert len(held) == 3
    assert held[SERIAL].has_key
    assert [stored.path.name for stored in held.values() if not stored.has_key] == ["without.pem"]


# ---------------------------------------------------------------------- several that fit


def test_the_same_certificate_twice_is_one(store: CertificateStore) -> None:
    (store.path / "again.pem").write_bytes(store.find(ISSUER, SERIAL).certificate.public_bytes(Encoding.PEM))
    assert store.find(ISSUER, SERIAL)


@pytest.mark.holds("R14", "F25")
def test_two_authorities_of_one_name_are_ambiguous(tmp_path: Path) -> None:
    other = authority().intermediate(ISSUER)  # the same short name, another distinguished name
    store = authority().store(tmp_path, contoso(), other.issue("fabrikam.com", serial=SERIAL))
    error = failing(store)
    assert error.failure_reason is R.LOCAL_CERTIFICATE_NOT_FOUND
    assert "contoso.com" in str(error) and "fabrikam.com" in str(error)
    whole = other.certificate.subject.rfc4514_string()
    assert store.find(whole, SERIAL).identities.names == ("fabrikam.com",)


@pytest.mark.holds("R14")
def test_a_serial_number_that_reads_both_ways_is_ambiguous(tmp_path: Path) -> None:
    reverse = int.from_bytes(SERIAL.to_bytes(4, "big"), "little")
    store = authority().store(tmp_path, contoso(), authority().issue("fabrikam.com", serial=reverse))
    error = failing(store, serial=SERIAL.to_bytes(4, "big"))
    assert "contoso.com" in str(error) and "fabrikam.com" in str(error)
    assert store.find(ISSUER, SERIAL).identities.names == ("contoso.com",)


@pytest.mark.holds("F25")
def test_of_two_with_one_number_the_usable_one_is_taken(tmp_path: Path) -> None:
    valid = contoso()
    later = contoso(not_before=valid.certificate.not_valid_before_utc + datetime.timedelta(hours=1))
    store = authority().store(tmp_path, valid)
    (tmp_path / "later-without-key.pem").write_bytes(later.pem)
    (tmp_path / "expired.pem").write_bytes(contoso(defect="expired").pem)
    assert store.find(ISSUER, SERIAL).certificate == valid.certificate


# ---------------------------------------------------------------------- what peers would refuse


@pytest.mark.holds("R5")
@pytest.mark.parametrize(
    ("defect", "reason"),
    [
        ("expired", R.CERTIFICATE_EXPIRED),
        ("not_yet_valid", R.CERTIFICATE_EXPIRED),
        ("weak_key", R.LOCAL_CERTIFICATE_NOT_FOUND),
        ("weak_signature", R.LOCAL_CERTIFICATE_NOT_FOUND),
        ("wrong_usage", R.OTHER),
        ("any_usage_only", R.OTHER),
        ("sip_domain_only", R.OTHER),
        ("bad_key_usage", R.OTHER),
    ],
)
def test_defects_of_our_own(tmp_path: Path, defect: Defect, reason: TlsFailureReason) -> None:
    bad = contoso(defect=defect)
    store = authority().store(tmp_path, bad)
    error = failing(store, bad.issuer)
    assert error.failure_reason is reason
    assert "contoso.com" in str(error)
    with pytest.raises(TlsFailureException) as caught:
        LocalCertificate.from_files(bad.write(tmp_path))
    assert caught.value.failure_reason is reason


def test_what_only_peers_can_judge_is_no_defect_here(tmp_path: Path) -> None:
    for defect in ("self_signed", "unknown_authority", "revoked"):
        bad = issued(defect)  # type: ignore[arg-type]
        assert LocalCertificate.from_files(bad.write(tmp_path)).certificate == bad.certificate


# ---------------------------------------------------------------------- chains


def test_the_chain_is_gathered_from_the_store(tmp_path: Path) -> None:
    upper = authority().intermediate("Upper CA")
    lower = upper.intermediate("Lower CA")
    one = lower.issue("contoso.com", serial=SERIAL)
    write_private(tmp_path / "a.pem", one.certificate.public_bytes(Encoding.PEM) + one.key_pem())
    (tmp_path / "others.pem").write_bytes(authority().pem + upper.pem + lower.pem)
    found = CertificateStore(tmp_path).find("Lower CA", SERIAL)
    assert found.chain == (lower.certificate, upper.certificate)  # the root is the peers' business


# ---------------------------------------------------------------------- files


def test_from_one_file_and_from_two(tmp_path: Path) -> None:
    one = issued()
    (tmp_path / "a.pem").write_bytes(one.pem)
    write_private(tmp_path / "a.key", one.key_pem("secret"))
    found = LocalCertificate.from_files(tmp_path / "a.pem", str(tmp_path / "a.key"), password=b"secret")
    assert found.certificate == one.certificate
    for as_pkcs12 in (False, True):
        path = one.write(tmp_path, password="secret", as_pkcs12=as_pkcs12)
        assert LocalCertificate.from_files(path, password="secret").certificate == one.certificate


def test_the_key_tells_which_certificate_of_a_file_is_ours(tmp_path: Path) -> None:
    intermediate = authority().intermediate()
    one = intermediate.issue("contoso.com")
    write_private(tmp_path / "a.pem", intermediate.pem + one.certificate.public_bytes(Encoding.PEM) + one.key_pem())
    found = LocalCertificate.from_files(tmp_path / "a.pem")
    assert (found.certificate, found.chain) == (one.certificate, (intermediate.certificate,))


@pytest.mark.holds("R5", "R15")
def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    one, other = issued(), contoso()
    good = one.write(tmp_path)
    locked = other.write(tmp_path, password="secret")
    (tmp_path / "bare.pem").write_bytes(one.pem)
    write_private(tmp_path / "other.key", other.key_pem())
    (tmp_path / "notes.txt").write_text("milk")
    cases: list[tuple[Path, Path | None]] = [
        (tmp_path / "missing.pem", None),
        (good, tmp_path / "missing.key"),
        (tmp_path, None),
        (tmp_path / "notes.txt", None),
        (tmp_path / "bare.pem", None),
        (tmp_path / "bare.pem", tmp_path / "other.key"),
        (tmp_path / "bare.pem", tmp_path / "notes.txt"),
        (tmp_path / "other.key", None),
        (locked, None),
    ]
    for certificate, key in cases:
        with pytest.raises(TlsFailureException) as caught:
            LocalCertificate.from_files(certificate, key)
        assert caught.value.failure_reason is R.LOCAL_CERTIFICATE_NOT_FOUND
        assert str(key or certificate) in str(caught.value)


@pytest.mark.holds("R16")
def test_secrets_are_in_no_text(tmp_path: Path) -> None:
    found = LocalCertificate.from_files(issued().write(tmp_path, password="hunter2"), password="hunter2")
    key = issued().key_pem().decode().splitlines()[1]
    for text in (repr(found), str(found), repr(CertificateStore(tmp_path, password="hunter2"))):
        assert "hunter2" not in text and key not in text


@pytest.mark.holds("R16")
@pytest.mark.skipif(os.name != "posix", reason="modes of files are POSIX's")
@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True)])
def test_keys_for_everybody_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, warned: bool
) -> None:
    path = issued().write(tmp_path)
    path.chmod(mode)
    with caplog.at_level(logging.WARNING):
        LocalCertificate.from_files(path)
    assert (str(path) in caplog.text) is warned


@pytest.mark.holds("R16")
@pytest.mark.skipif(os.name != "posix", reason="modes of files are POSIX's")
@pytest.mark.parametrize(("mode", "refused"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True)])
@pytest.mark.parametrize("password", [None, "secret"])
def test_keys_for_everybody_are_refused_when_strict(
    tmp_path: Path, mode: int, refused: bool, password: str | None
) -> None:
    one = contoso()
    store = authority().store(tmp_path / "whole", one, password=password)
    (whole,) = (path for path in store.path.iterdir() if path.is_file())
    whole.chmod(mode)
    apart = tmp_path / "apart"
    apart.mkdir()
    (apart / "a.pem").write_bytes(one.pem)  # which anybody may read
    write_private(apart / "a.key", one.key_pem(password))
    (apart / "a.key").chmod(mode)
    ways: list[Callable[[], LocalCertificate]] = [
        lambda: CertificateStore(store.path, password=password).find(ISSUER, SERIAL, strict=True),
        lambda: CertificateStore(apart, password=password).find(ISSUER, SERIAL, strict=True),
        lambda: LocalCertificate.from_files(whole, password=password, strict=True),
        lambda: LocalCertificate.from_files(apart / "a.pem", apart / "a.key", password=password, strict=True),
    ]
    for way, name in zip(ways, [whole.name, "a.key", str(whole), str(apart / "a.key")], strict=True):
        if refused:
            with pytest.raises(TlsFailureException) as caught:
                way()
            assert caught.value.failure_reason is R.LOCAL_CERTIFICATE_NOT_FOUND
            assert f"{name} holds a private key that other users can read" in str(caught.value)
            assert "chmod 600" in str(caught.value)
        else:
            assert way().certificate == one.certificate


@pytest.mark.holds("R15")
def test_no_key_lies_on_the_disk_in_clear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in memory files, nor in the temporary ones of systems without those."""
    seen: list[bytes] = []
    load = ssl.SSLContext.load_cert_chain

    def spy(self: ssl.SSLContext, certfile: str, keyfile: str | None = None, password: object = None) -> None:
        seen.append(Path(certfile).read_bytes())
        if os.name == "posix":
            assert Path(certfile).stat().st_mode & 0o077 == 0 or certfile.startswith("/proc/")
        assert password is not None
        load(self, certfile, keyfile, password)  # type: ignore[arg-type]

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", spy)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    issued().local.load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    if hasattr(os, "memfd_create"):
        monkeypatch.delattr(os, "memfd_create")
    issued().local.load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    assert len(seen) == 2
    assert all(b"ENCRYPTED PRIVATE KEY" in pem for pem in seen)
    assert seen[0] != seen[1]  # another password each time
    assert list(tmp_path.iterdir()) == []


def test_a_key_that_tls_cannot_use() -> None:
    one = issued()
    with pytest.raises(TlsFailureException) as caught:
        LocalCertificate(one.certificate, (), contoso().key)
    assert caught.value.failure_reason is R.LOCAL_CERTIFICATE_NOT_FOUND


# ---------------------------------------------------------------------- where the store is


def test_the_default_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("P2PSIP_CERTIFICATE_STORE", str(tmp_path))
    assert CertificateStore.default().path == tmp_path
    assert CertificateStore.default().trusted == tmp_path / "trusted"
    monkeypatch.delenv("P2PSIP_CERTIFICATE_STORE")
    if sys.platform == "linux":
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
        users = tmp_path / "p2psip" / "certificates"
        system = tmp_path / "etc"
        monkeypatch.setattr("p2psip.net.certificates.SYSTEM_STORE", system)
        assert CertificateStore.default().path == users
        system.mkdir()
        assert CertificateStore.default().path == system
        users.mkdir(parents=True)
        assert CertificateStore.default().path == users


def write_private(path: Path, data: bytes) -> None:
    path.touch(0o600)
    path.write_bytes(data)


def test_two_stores_do_not_share(tmp_path: Path) -> None:
    other = CertificateAuthority("Fabrikam CA")
    store = other.store(tmp_path, other.issue("fabrikam.com"))
    assert [c.path.parent for c in store.holdings().certificates] == [tmp_path]
    assert isinstance(store.holdings().certificates[0].certificate, x509.Certificate)
