"""Certificates that are read again while everything goes on."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from facade_support import BOUND

from p2psip import (
    IPAddress,
    IPEndPoint,
    ManagerSettings,
    MessageType,
    RealTimeServerTlsConnectionManager,
    SipPeerToPeerEndpoint,
    TlsFailureException,
    TlsFailureReason,
)
from p2psip.testing import CertificateAuthority, IssuedCertificate, tls_manager

STRICT = ManagerSettings(strict_key_files=True)
NOT_FOUND = TlsFailureReason.LOCAL_CERTIFICATE_NOT_FOUND
DAMAGED = b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"
OTHER_REASONS = {
    "expired": TlsFailureReason.CERTIFICATE_EXPIRED,
    "damaged list": TlsFailureReason.UNTRUSTED_REMOTE_CERTIFICATE,
}


class Served(NamedTuple):
    """A manager whose certificate lies in two files, and somebody who asks it."""

    manager: RealTimeServerTlsConnectionManager
    alice: SipPeerToPeerEndpoint
    certificate: Path
    key: Path
    roots: Path

    def ask(self) -> int:
        address = f"sip:bob@localhost:{self.manager.listening_port}"
        return self.alice.send_message(MessageType.MESSAGE, address, body="x", timeout=BOUND).response_code

    def write(self, issued: IssuedCertificate, key: IssuedCertificate | None = None) -> None:
        self.certificate.write_bytes(issued.pem)
        self.key.write_bytes((key or issued).key_pem())


def issue(authority: CertificateAuthority) -> IssuedCertificate:
    return authority.issue("bob.example", "localhost")


@pytest.fixture(scope="module")
def authority() -> CertificateAuthority:
    return CertificateAuthority()


@pytest.fixture
def served(authority: CertificateAuthority, tmp_path: Path) -> Iterator[Served]:
    certificate, key, roots = tmp_path / "bob.pem", tmp_path / "bob.key", tmp_path / "trusted"
    roots.mkdir()
    (roots / "root.pem").write_bytes(authority.pem)
    key.touch(0o600)
    first = issue(authority)
    certificate.write_bytes(first.pem)
    key.write_bytes(first.key_pem())
    with (
        tls_manager(authority, "alice.example") as one,
        RealTimeServerTlsConnectionManager.from_files(certificate, key, trusted_roots=roots, settings=STRICT) as two,
    ):
        endpoint = SipPeerToPeerEndpoint("sip:bob@bob.example", two)
        endpoint.message_received += lambda sender, args: None
        two.default_endpoint = endpoint
        two.start_listening(IPEndPoint(IPAddress.LOOPBACK, 0))
        yield Served(two, SipPeerToPeerEndpoint("sip:alice@alice.example", one), certificate, key, roots)


DAMAGES: dict[str, Callable[[Served, CertificateAuthority], object]] = {
    "garbage": lambda it, ca: it.certificate.write_bytes(b"garbage"),
    "empty": lambda it, ca: it.key.write_bytes(b""),
    "half written": lambda it, ca: it.certificate.write_bytes(issue(ca).pem[:300]),
    "half a key": lambda it, ca: it.key.write_bytes(issue(ca).key_pem()[:100]),
    "key of another": lambda it, ca: it.write(issue(ca), issue(ca)),
    "certificate before its key": lambda it, ca: it.certificate.write_bytes(issue(ca).pem),
    "no certificate": lambda it, ca: it.certificate.unlink(),
    "no key": lambda it, ca: it.key.unlink(),
    "expired": lambda it, ca: it.write(ca.issue("bob.example", "localhost", defect="expired")),
    "too weak": lambda it, ca: it.write(ca.issue("bob.example", "localhost", defect="weak_key")),
    "open to others": lambda it, ca: it.key.chmod(0o604),
    "damaged list": lambda it, ca: (it.write(issue(ca)), (it.roots / "list.crl").write_bytes(DAMAGED)),
}


@pytest.mark.holds("R16", "R17", "F24")
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_reload_that_fails_changes_nothing(served: Served, authority: CertificateAuthority, damage: str) -> None:
    if damage == "open to others" and os.name != "posix":
        pytest.skip("modes of files are POSIX's")
    assert served.ask() == 200
    (old,) = served.alice.connection_manager.connections()
    shown = served.manager.local_certificate
    DAMAGES[damage](served, authority)
    begun = time.monotonic()
    with pytest.raises(TlsFailureException) as caught:
        served.manager.reload_certificates()
    assert time.monotonic() - begun < 1
    assert caught.value.failure_reason is OTHER_REASONS.get(damage, NOT_FOUND)
    assert served.manager.local_certificate == shown
    assert served.ask() == 200
    assert served.alice.connection_manager.connections() == (old,)
    old.disconnect()
    assert served.ask() == 200
    (new,) = served.alice.connection_manager.connections()
    assert new is not old and new.remote_certificate == shown


@pytest.mark.holds("R17")
def test_a_reload_takes_less_than_a_second_and_drops_nobody(served: Served, authority: CertificateAuthority) -> None:
    assert served.ask() == 200
    (old,) = served.alice.connection_manager.connections()
    for _ in range(5):
        served.write(issue(authority))
        begun = time.monotonic()
        served.manager.reload_certificates()
        assert time.monotonic() - begun < 1
        assert served.ask() == 200
        assert served.alice.connection_manager.connections() == (old,)
    old.disconnect()
    assert served.ask() == 200
    (new,) = served.alice.connection_manager.connections()
    assert new.remote_certificate == served.manager.local_certificate


@pytest.mark.holds("R16")
@pytest.mark.skipif(os.name != "posix", reason="modes of files are POSIX's")
@pytest.mark.parametrize("in_store", [False, True])
def test_a_strict_manager_takes_no_key_that_others_can_read(
    authority: CertificateAuthority, tmp_path: Path, in_store: bool
) -> None:
    one, other = issue(authority), issue(authority)
    store = authority.store(tmp_path, one, other)
    files = [path for path in tmp_path.iterdir() if path.is_file()]

    def manager(settings: ManagerSettings | None) -> RealTimeServerTlsConnectionManager:
        if in_store:
            return RealTimeServerTlsConnectionManager(
                one.issuer, one.serial, certificate_store=store, settings=settings
            )
        return RealTimeServerTlsConnectionManager.from_files(
            files[0], trusted_roots=authority.certificate, settings=settings
        )

    with manager(STRICT) as strict:
        for path in files:
            path.chmod(0o644)
        for change in (
            strict.reload_certificates,
            lambda: strict.set_local_certificate(other.issuer, other.serial) if in_store else manager(STRICT),
            lambda: manager(STRICT),
        ):
            with pytest.raises(TlsFailureException, match="chmod 600") as caught:
                change()
            assert caught.value.failure_reason is NOT_FOUND
    manager(None).dispose()  # which warns
    with pytest.raises(TypeError):
        manager({"strict_key_files": True})  # type: ignore[arg-type]
