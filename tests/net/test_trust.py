"""Trusted roots and lists of revoked certificates."""

from __future__ import annotations

import datetime
import logging
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from tls_support import NAME, VERSIONS, contexts, drive, ours_as_client, ours_as_server, tcp_pair

from p2psip.errors import TlsFailureException, TlsFailureReason
from p2psip.net.trust import Revocation, RevocationError, TrustAnchors
from p2psip.testing import CertificateAuthority, IssuedCertificate

R = TlsFailureReason


@pytest.fixture(scope="module")
def root() -> CertificateAuthority:
    return CertificateAuthority("Root CA")


@pytest.fixture(scope="module")
def lower(root: CertificateAuthority) -> CertificateAuthority:
    return root.intermediate("Lower CA")


@pytest.fixture
def sides() -> Iterator[list[Any]]:
    opened: list[Any] = []
    yield opened
    for side in opened:
        side.close()


def listing(
    signer: CertificateAuthority,
    *revoked: IssuedCertificate | CertificateAuthority,
    start: int = -1,
    end: int | None = 1,
    name: x509.Name | None = None,
    extension: x509.ExtensionType | None = None,
) -> x509.CertificateRevocationList:
    """A CRL; ``start`` and ``end`` are days from now."""
    now = datetime.datetime.now(datetime.timezone.utc)
    day = datetime.timedelta(days=1)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(name or signer.certificate.subject)
        .last_update(now + start * day)
        .next_update(now + (end if end is not None else 1) * day)
    )
    for each in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(each.certificate.serial_number)
        builder = builder.add_revoked_certificate(entry.revocation_date(now - day).build())
    if extension is not None:
        builder = builder.add_extension(extension, critical=True)
    return builder.sign(signer._key, hashes.SHA256())


# ---------------------------------------------------------------------- loading


def test_everything_that_roots_can_be_given_as(root: CertificateAuthority, tmp_path: Path) -> None:
    pem, der = root.pem, root.certificate.public_bytes(Encoding.DER)
    (tmp_path / "root.pem").write_bytes(pem)
    folder = tmp_path / "trusted"
    folder.mkdir()
    (folder / "root.cer").write_bytes(der)
    (folder / "list.crl").write_bytes(listing(root).public_bytes(Encoding.DER))
    (folder / ".hidden").write_bytes(b"whatever")
    for source in (tmp_path / "root.pem", str(tmp_path / "root.pem"), folder, pem, der, root.certificate, root.trusted):
        assert TrustAnchors.load(source).certificates == (root.certificate,)
        assert TrustAnchors.load(source).serves(outgoing=False)
    assert len(TrustAnchors.load(folder).crls) == 1
    joined = TrustAnchors.load([folder, pem, root.certificate, listing(root)])
    assert (len(joined.certificates), len(joined.crls)) == (1, 2)


def test_what_is_not_there_gives_none(tmp_path: Path) -> None:
    for source in (None, [], tmp_path, tmp_path / "missing", b""):
        trust = TrustAnchors.load(source)
        assert not trust.serves(outgoing=True) and not trust.serves(outgoing=False)
    assert str(tmp_path / "missing") in TrustAnchors.load(tmp_path / "missing").source


def test_what_roots_cannot_be(root: CertificateAuthority) -> None:
    for source in (7, [7], 1.5):
        with pytest.raises(TypeError):
            TrustAnchors.load(source)


def test_a_bad_file_hides_no_other(
    root: CertificateAuthority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "0.pem").write_bytes(b"-----BEGIN CERTIFICATE-----\nnothing\n-----END CERTIFICATE-----\n")
    (tmp_path / "root.pem").write_bytes(root.pem)
    with caplog.at_level(logging.WARNING):
        assert TrustAnchors.load(tmp_path).certificates == (root.certificate,)
    assert "0.pem" in caplog.text


@pytest.mark.parametrize(
    "extension",
    [
        x509.DeltaCRLIndicator(1),
        x509.IssuingDistributionPoint(None, None, False, False, None, True, False),
        x509.IssuingDistributionPoint(
            None, None, False, False, frozenset([x509.ReasonFlags.key_compromise]), False, False
        ),
        x509.IssuingDistributionPoint(None, None, False, False, None, False, True),
    ],
)
def test_a_crl_that_tells_a_part_is_refused(root: CertificateAuthority, extension: x509.ExtensionType) -> None:
    with pytest.raises(TlsFailureException) as caught:
        TrustAnchors.load(listing(root, extension=extension))
    assert caught.value.failure_reason is R.UNTRUSTED_REMOTE_CERTIFICATE


def test_a_crl_for_users_only_is_taken(root: CertificateAuthority) -> None:
    extension = x509.IssuingDistributionPoint(None, None, True, False, None, False, False)
    assert len(TrustAnchors.load(listing(root, extension=extension)).crls) == 1


def test_a_damaged_crl_is_refused(root: CertificateAuthority, tmp_path: Path) -> None:
    (tmp_path / "root.pem").write_bytes(root.pem)
    (tmp_path / "list.pem").write_bytes(b"-----BEGIN X509 CRL-----\nnothing\n-----END X509 CRL-----\n")
    with pytest.raises(TlsFailureException) as caught:
        TrustAnchors.load(tmp_path)
    assert "list.pem" in str(caught.value)


# ---------------------------------------------------------------------- revocation


def verdict(chain: list[x509.Certificate], trust: TrustAnchors, strict: bool = False) -> int:
    """0, or the code that the chain is refused with."""
    try:
        Revocation(trust).check(chain, strict=strict)
    except RevocationError as error:
        return error.code
    return 0


def test_a_list_decides(root: CertificateAuthority, lower: CertificateAuthority) -> None:
    good, bad, below = root.issue("a.example"), root.issue("b.example"), lower.issue("c.example")

    def trust(*crls: x509.CertificateRevocationList) -> TrustAnchors:
        return TrustAnchors([root.certificate], crls)

    chain = [good.certificate]
    assert verdict(chain, trust()) == 0
    assert verdict(chain, trust(), strict=True) == 3
    assert verdict(chain, trust(listing(root, bad))) == 0
    assert verdict(chain, trust(listing(root, bad)), strict=True) == 0
    assert verdict([bad.certificate], trust(listing(root, bad))) == 23
    assert verdict(chain, trust(listing(root, start=-3, end=-1))) == 12
    assert verdict(chain, trust(listing(root, start=1, end=2))) == 11
    assert verdict(chain, trust(listing(root, start=-3, end=-1), listing(root))) == 0
    # An old list still tells what is revoked.
    assert verdict([bad.certificate], trust(listing(root, bad, start=-3, end=-1), listing(root))) == 23
    # Somebody else's list under the issuer's name: unknown, which is no.
    assert verdict(chain, trust(listing(lower, name=root.certificate.subject))) == 8
    assert verdict([bad.certificate], trust(listing(lower, bad, name=root.certificate.subject))) == 8
    # An authority between.
    through = [below.certificate, lower.certificate]
    assert verdict(through, trust(listing(root, bad))) == 0
    assert verdict(through, trust(listing(root, bad)), strict=True) == 3
    assert verdict(through, trust(listing(root, lower))) == 23
    assert verdict(through, trust(listing(root), listing(lower, below))) == 23
    assert verdict(through, trust(listing(root), listing(lower)), strict=True) == 0
    # The issuer's certificate, which its list is verified with, is among the anchors alone, or nowhere.
    pinned = TrustAnchors([lower.certificate], [listing(lower, below)])
    assert verdict([below.certificate], pinned) == 23
    assert verdict([below.certificate], TrustAnchors([below.certificate], [listing(lower)])) == 8


@pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])
@pytest.mark.parametrize("as_server", [True, False], ids=["server", "client"])
@pytest.mark.parametrize(
    ("revocation", "code"),
    [("off", 0), ("available", 23), ("strict", 23)],
)
def test_a_revoked_intermediate(
    as_server: bool, revocation: str, code: int, version: ssl.TLSVersion, root: CertificateAuthority, sides: list[Any]
) -> None:
    between = root.intermediate("Revoked CA")
    trust = TrustAnchors([root.certificate], [listing(root, between), listing(between)])
    error = refusal(sides, root, between.issue(NAME), trust, revocation, as_server, version)
    assert (0 if error is None else error.error_code) == code
    if error is not None:
        assert error.failure_reason is R.REMOTE_CERTIFICATE_REVOKED


@pytest.mark.holds("R5")
@pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])
@pytest.mark.parametrize("as_server", [True, False], ids=["server", "client"])
@pytest.mark.parametrize(
    ("revocation", "crls", "code"),
    [
        ("available", "none", 0),
        ("strict", "none", 3),
        ("available", "expired", 12),
        ("strict", "expired", 12),
        ("off", "expired", 0),
        ("available", "fresh", 0),
        ("strict", "fresh", 0),
    ],
)
def test_what_is_unknown_is_refused(
    as_server: bool,
    revocation: str,
    crls: str,
    code: int,
    version: ssl.TLSVersion,
    root: CertificateAuthority,
    sides: list[Any],
) -> None:
    lists = {"none": [], "expired": [root.crl(expired=True)], "fresh": [root.crl()]}[crls]
    trust = TrustAnchors([root.certificate], lists)
    error = refusal(sides, root, root.issue(NAME), trust, revocation, as_server, version)
    assert (0 if error is None else error.error_code) == code
    if error is not None:
        assert error.failure_reason is R.UNTRUSTED_REMOTE_CERTIFICATE
        assert "revoked" in str(error) and "CRL" in str(error)


def refusal(
    sides: list[Any],
    root: CertificateAuthority,
    shown: IssuedCertificate,
    trust: TrustAnchors,
    revocation: str,
    as_server: bool,
    version: ssl.TLSVersion,
) -> TlsFailureException | None:
    """What our side says to a peer that shows this certificate."""
    client, server = tcp_pair(sides)
    own = contexts(root.issue(NAME), trust=trust, revocation=revocation)
    peer = contexts(shown, trust=TrustAnchors([root.certificate]), revocation="off")
    for context in (peer._server, peer._client):
        context.maximum_version = version
    if as_server:
        theirs, ours = ours_as_server(peer, server, reads=False), ours_as_client(own, client, reads=False)
    else:
        theirs, ours = ours_as_client(peer, client, reads=False), ours_as_server(own, server, reads=False)
    sides += [theirs, ours]
    drive(theirs, ours)
    return ours.outcome if isinstance(ours.outcome, TlsFailureException) else None


def test_one_authoritys_list_does_not_vouch_for_another_of_its_name() -> None:
    first, second = CertificateAuthority("Same CA"), CertificateAuthority("Same CA")
    assert first.certificate.subject == second.certificate.subject
    one, two = first.issue("a.example"), second.issue("a.example")
    revocation = Revocation(TrustAnchors([first.certificate, second.certificate], [listing(first, one)]))
    for leaf, code in ((one, 23), (two, 8), (one, 23)):
        with pytest.raises(RevocationError) as caught:
            revocation.check([leaf.certificate])
        assert caught.value.code == code
