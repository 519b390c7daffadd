"""What our TLS offers, demands and trusts, and what it checks before it is used."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from tls_support import (
    NAME,
    TLS12,
    TLS13,
    VERSIONS,
    Side,
    authority,
    bare,
    bare_context,
    contexts,
    drive,
    issued,
    local,
    ours_as_client,
    ours_as_server,
    tcp_pair,
)

from p2psip.errors import TlsFailureException, TlsFailureReason
from p2psip.net import failures
from p2psip.net.certificates import LocalCertificate, TrustAnchors
from p2psip.net.tls import TlsContexts
from p2psip.testing import IssuedCertificate

R = TlsFailureReason


@pytest.fixture
def sides() -> Iterator[list[Any]]:
    opened: list[Any] = []
    yield opened
    for side in opened:
        side.close()


def meet(sides: list[Any], server: TlsContexts, client: TlsContexts, identity: str | None = NAME) -> tuple[Any, Any]:
    """Two of ours shake hands: the outcomes of server and client, a TlsInfo or an error each."""
    c, s = tcp_pair(sides)
    one, two = ours_as_server(server, s, reads=False), ours_as_client(client, c, identity, reads=False)
    sides += [one, two]
    drive(one, two)
    return one.outcome, two.outcome


# ---------------------------------------------------------------------- what is offered


@pytest.mark.holds("R1")
def test_only_strong_ciphers_and_no_dangerous_options() -> None:
    own = contexts()
    for context in (own._server, own._client):
        assert context.minimum_version is TLS12
        for cipher in context.get_ciphers():
            assert cipher["aead"]
            assert cipher["protocol"] == "TLSv1.3" or cipher["name"].startswith("ECDHE-")
        for option in (ssl.OP_NO_COMPRESSION, ssl.OP_NO_RENEGOTIATION, ssl.OP_NO_TICKET):
            assert context.options & option
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert not context.check_hostname  # RFC 5922 is stricter
    assert own._server.num_tickets == 0


def test_an_openssl_without_the_option_that_hides_a_cut_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", raising=False)  # OpenSSL 1.1.1, which Python 3.10 can have
    contexts()


def test_two_of_ours_speak_tls_1_3(sides: list[Any]) -> None:
    server, client = meet(sides, contexts(), contexts())
    assert (server.version, client.version) == ("TLSv1.3", "TLSv1.3")
    assert server.identities.covers(NAME) and client.identities.covers(NAME)


@pytest.mark.holds("R1")
def test_the_minimum_version(sides: list[Any]) -> None:
    client, server = tcp_pair(sides)
    other = bare(bare_context(server=False, version=TLS12, certificate=issued()), client)
    ours = ours_as_server(contexts(minimum_version=TLS13), server)
    sides += [ours, other]
    drive(ours, other)
    assert isinstance(ours.outcome, TlsFailureException)
    assert ours.outcome.failure_reason is R.TLS_NEGOTIATION_FAILURE


@pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])
def test_rsa_certificates(version: ssl.TLSVersion, sides: list[Any]) -> None:
    own = contexts(authority().issue(NAME, key="rsa"))
    own._client.maximum_version = version
    server, client = meet(sides, own, own)
    assert client.identities.covers(NAME) and server.identities.covers(NAME)


@pytest.mark.parametrize("arguments", [{"revocation": "sometimes"}, {"minimum_version": ssl.TLSVersion.SSLv3}])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.SSLv3 is deprecated")
def test_wrong_arguments(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        contexts(**arguments)


# ---------------------------------------------------------------------- names


@pytest.mark.holds("R4")
@pytest.mark.parametrize(
    ("identity", "is_good"),
    [
        (NAME, True),
        (NAME.upper() + ".", True),
        ("127.0.0.1", True),
        (None, True),  # the address that was dialled
        ("127.0.0.2", False),
        ("example", False),
        (f"x.{NAME}", False),
        ("bücher.example", False),
        ("a" * 64, False),
        (".", False),
        ("", False),
    ],
)
def test_the_name_that_was_asked_for(identity: str | None, is_good: bool, sides: list[Any]) -> None:
    _, client = meet(sides, contexts(), contexts(), identity)
    if is_good:
        assert client.version == "TLSv1.3"
    else:
        assert isinstance(client, TlsFailureException)
        assert client.failure_reason is R.INCORRECT_NAME_IN_REMOTE_CERTIFICATE
        assert NAME in str(client)
        assert client.remote_certificate == issued().local.der


@pytest.mark.holds("R4")
def test_no_wildcards(sides: list[Any]) -> None:
    wild = contexts(authority().issue("*.wild.example"))
    _, client = meet(sides, wild, contexts(), "a.wild.example")
    assert client.failure_reason is R.INCORRECT_NAME_IN_REMOTE_CERTIFICATE


@pytest.mark.holds("R4")
def test_the_common_name_only_where_it_is_allowed(sides: list[Any]) -> None:
    bare_name = contexts(issued("common_name_only"))
    _, client = meet(sides, bare_name, contexts())
    assert client.failure_reason is R.INCORRECT_NAME_IN_REMOTE_CERTIFICATE
    server, client = meet(sides, contexts(), contexts(allow_common_name=True))
    assert client.identities.covers(NAME)
    server, client = meet(sides, bare_name, contexts(allow_common_name=True))
    assert client.identities.names == (NAME,)
    server, client = meet(sides, contexts(allow_common_name=True), bare_name)
    assert server.matching([NAME]) == NAME


@pytest.mark.parametrize(
    ("identity", "asked"), [(NAME, NAME), ("bücher.example", "xn--bcher-kva.example"), ("127.0.0.1", None)]
)
def test_names_are_told_to_the_server_and_addresses_are_not(identity: str, asked: str | None, sides: list[Any]) -> None:
    heard: list[str | None] = []
    context = bare_context(server=True, certificate=issued())
    context.sni_callback = lambda sock, name, context: heard.append(name)
    client, server = tcp_pair(sides)
    other, ours = bare(context, server), ours_as_client(contexts(), client, identity)
    sides += [ours, other]
    drive(ours, other, until=lambda: bool(heard))
    assert heard == [asked]


def test_names_in_errors_are_printable(sides: list[Any]) -> None:
    odd = contexts(authority().issue("evil\x1b[2J.example", common_name="evil"))
    _, client = meet(sides, odd, contexts())
    assert client.failure_reason is R.INCORRECT_NAME_IN_REMOTE_CERTIFICATE
    assert str(client).isprintable()


def test_names_in_errors_are_few_and_short() -> None:
    names = tuple(f"{number}.{'x' * 60}.{'y' * 60}.example" for number in range(1000))
    shown = failures.shown_names(names)
    assert shown.startswith("0.xxx") and shown.endswith("and others")
    assert len(shown) < 400


# ---------------------------------------------------------------------- whom we trust


def test_without_mutual_tls_clients_are_not_asked(sides: list[Any]) -> None:
    server, client = meet(sides, contexts(need_mutual_tls=False), contexts(issued("unknown_authority")))
    assert (server.certificate, server.identities, server.matching([NAME])) == (None, None, None)
    assert server.not_after == float("inf")
    assert client.identities.covers(NAME)


def test_without_any_root(tmp_path: Path, sides: list[Any]) -> None:
    missing = TrustAnchors.load(tmp_path / "trusted")
    own = contexts(trust=missing)
    client, server = tcp_pair(sides)
    for attempt in (
        own.require_server,
        own.require_client,
        lambda: own.wrap_server(server, ("127.0.0.1", 1)),
        lambda: own.wrap_client(client, NAME, NAME, ("127.0.0.1", 1)),
    ):
        with pytest.raises(TlsFailureException) as caught:
            attempt()
        assert caught.value.failure_reason is R.UNTRUSTED_REMOTE_CERTIFICATE
        assert str(tmp_path / "trusted") in str(caught.value)
    assert f"Connecting to {NAME}:1 (127.0.0.1) over TLS" in str(caught.value)
    contexts(trust=missing, need_mutual_tls=False).require_server()  # it verifies nobody


def test_the_systems_roots_count_for_outgoing_connections_only() -> None:
    own = contexts(trust=TrustAnchors.load("system"))
    own.require_client()
    with pytest.raises(TlsFailureException) as caught:
        own.require_server()
    assert caught.value.failure_reason is R.UNTRUSTED_REMOTE_CERTIFICATE
    assert "for outgoing connections only: name the roots" in str(caught.value)
    both = contexts(trust=TrustAnchors.load(["system", authority().certificate]))
    both.require_server()
    assert len(both._server.get_ca_certs()) == 1


def test_a_certificate_can_be_trusted_by_itself(sides: list[Any]) -> None:
    alone = issued("self_signed")
    server, client = meet(sides, contexts(), contexts(alone))
    assert isinstance(server, TlsFailureException)
    trust = TrustAnchors.load([authority().certificate, alone.certificate])
    server, client = meet(sides, contexts(alone, trust=trust), contexts(alone, trust=trust))
    assert server.identities.covers(NAME) and client.identities.covers(NAME)


def test_a_trusted_intermediate_needs_no_root(sides: list[Any]) -> None:
    intermediate = authority().intermediate("Pinned CA")
    own = contexts(intermediate.issue(NAME), trust=TrustAnchors.load(intermediate.certificate))
    server, client = meet(sides, own, own)
    assert server.identities.covers(NAME) and client.identities.covers(NAME)


# ---------------------------------------------------------------------- before they are used


@pytest.mark.holds("R17")
def test_a_key_that_shakes_no_hands_is_found_at_once() -> None:
    """A curve that is strong enough, and that TLS does not know."""
    leaf = authority().issue(NAME)
    key = ec.generate_private_key(ec.SECP224R1())
    own = LocalCertificate(*remade(leaf, key))
    with pytest.raises(TlsFailureException) as caught:
        TlsContexts(own, authority().trusted)
    assert caught.value.failure_reason is R.LOCAL_CERTIFICATE_NOT_FOUND
    assert NAME in str(caught.value)


def remade(leaf: IssuedCertificate, key: ec.EllipticCurvePrivateKey) -> tuple[Any, Any, Any]:
    """The same certificate for another key."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(leaf.certificate.subject)
        .issuer_name(leaf.certificate.issuer)
        .public_key(key.public_key())
        .serial_number(leaf.serial)
        .not_valid_before(leaf.certificate.not_valid_before_utc)
        .not_valid_after(leaf.certificate.not_valid_after_utc)
    )
    return builder.sign(authority()._key, hashes.SHA256()), (), key


def test_a_certificate_that_openssl_does_not_load() -> None:
    with pytest.raises(TlsFailureException) as caught:
        TlsContexts(local(issued("weak_key")), authority().trusted)
    assert caught.value.failure_reason is R.LOCAL_CERTIFICATE_NOT_FOUND
    assert isinstance(caught.value.__cause__, ssl.SSLError)


# ---------------------------------------------------------------------- session keys


def test_the_key_log_file(tmp_path: Path, sides: list[Side]) -> None:
    path = tmp_path / "keys.log"
    meet(sides, contexts(key_log_file=path), contexts())
    assert "CLIENT_TRAFFIC_SECRET_0" in path.read_text(encoding="ascii")


@pytest.mark.holds("R16")
@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
def test_session_keys_are_for_their_owner_s_eyes(tmp_path: Path) -> None:
    path = tmp_path / "keys.log"
    before = os.umask(0)
    try:
        contexts(key_log_file=path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o077 == 0


def test_a_key_log_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(TlsFailureException) as caught:
        contexts(key_log_file=tmp_path / "missing" / "keys.log")
    assert caught.value.failure_reason is R.OTHER
    assert os.fspath(tmp_path) in str(caught.value)


@pytest.mark.holds("R16")
def test_no_session_key_is_logged_by_default() -> None:
    assert contexts()._server.keylog_filename is None
