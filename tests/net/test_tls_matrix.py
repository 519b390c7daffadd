"""Every defect of a certificate, as a server's and as a client's, in TLS 1.2 and 1.3: what either side is told."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
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
    ours_as_client,
    ours_as_server,
    tcp_pair,
)

from p2psip.errors import TlsFailureException, TlsFailureReason
from p2psip.testing import DEFECTS, Defect

R = TlsFailureReason

EXPECTED: dict[Defect, tuple[TlsFailureReason, int]] = {
    "expired": (R.CERTIFICATE_EXPIRED, 10),
    "not_yet_valid": (R.CERTIFICATE_EXPIRED, 9),
    "expired_intermediate": (R.CERTIFICATE_EXPIRED, 10),
    "self_signed": (R.UNTRUSTED_REMOTE_CERTIFICATE, 18),
    "unknown_authority": (R.UNTRUSTED_REMOTE_CERTIFICATE, 20),
    "foreign_root": (R.UNTRUSTED_REMOTE_CERTIFICATE, 19),
    "missing_intermediate": (R.UNTRUSTED_REMOTE_CERTIFICATE, 20),
    "issuer_not_authority": (R.UNTRUSTED_REMOTE_CERTIFICATE, 79),
    "path_length": (R.UNTRUSTED_REMOTE_CERTIFICATE, 25),
    "name_constraints": (R.UNTRUSTED_REMOTE_CERTIFICATE, 47),
    "critical_extension": (R.UNTRUSTED_REMOTE_CERTIFICATE, 34),
    "bad_signature": (R.UNTRUSTED_REMOTE_CERTIFICATE, 7),
    "weak_key": (R.UNTRUSTED_REMOTE_CERTIFICATE, 66),
    "weak_signature": (R.UNTRUSTED_REMOTE_CERTIFICATE, 68),
    "revoked": (R.REMOTE_CERTIFICATE_REVOKED, 23),
    "wrong_usage": (R.REMOTE_CERTIFICATE_INVALID_USAGE, 26),
    "any_usage_only": (R.REMOTE_CERTIFICATE_INVALID_USAGE, 26),
    "sip_domain_only": (R.REMOTE_CERTIFICATE_INVALID_USAGE, 26),
    "bad_key_usage": (R.REMOTE_CERTIFICATE_INVALID_USAGE, 26),
    "wrong_name": (R.INCORRECT_NAME_IN_REMOTE_CERTIFICATE, 62),
    "common_name_only": (R.INCORRECT_NAME_IN_REMOTE_CERTIFICATE, 62),
}

OURS_TO_FIND: frozenset[Defect] = frozenset({"wrong_name", "common_name_only", "revoked"})
"""OpenSSL takes these: we look after it, when its handshake is over, so no alert tells the other side."""

NAMES: frozenset[Defect] = frozenset({"wrong_name", "common_name_only"})
"""Not wrong in a client: whom a server lets in is a matter of its allowed domains."""

REFUSES_TO_SHOW: frozenset[Defect] = frozenset({"weak_key", "weak_signature"})
"""Our own OpenSSL does not even load these."""


SHOWN = [defect for defect in DEFECTS if defect not in (*REFUSES_TO_SHOW, *NAMES)]


@pytest.fixture
def sides() -> Iterator[list[Any]]:
    opened: list[Any] = []
    yield opened
    for side in opened:
        side.close()


@pytest.mark.holds("F15")
def test_the_table_is_complete() -> None:
    assert set(EXPECTED) == set(DEFECTS)


@pytest.mark.holds("R3", "R5", "F15")
@pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])
@pytest.mark.parametrize("defect", DEFECTS)
def test_servers_with_a_defect_are_refused_by_our_client(
    defect: Defect, version: ssl.TLSVersion, sides: list[Any]
) -> None:
    bad = issued(defect)
    client, server = tcp_pair(sides)
    where = client.getpeername()
    other = bare(bare_context(server=True, version=version, certificate=bad, verify=False), server)
    ours = ours_as_client(contexts(), client)
    sides += [ours, other]
    drive(ours, other)
    error = ours.outcome
    assert isinstance(error, TlsFailureException)
    if (defect, version) == ("bad_key_usage", TLS12):  # there the server itself finds no cipher for such a key
        assert error.failure_reason is R.TLS_NEGOTIATION_FAILURE
        return
    assert (error.failure_reason, error.error_code) == EXPECTED[defect]
    assert error.remote_endpoint == where
    assert error.remote_certificate == bad.certificate.public_bytes(Encoding.DER)
    assert error.__cause__ is not None or defect in NAMES
    assert NAME in str(error)
    is_told = isinstance(other.outcome, ssl.SSLError) and "ALERT" in (other.outcome.reason or "")
    assert is_told is (defect not in OURS_TO_FIND)


@pytest.mark.holds("R5")
@pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])
@pytest.mark.parametrize("defect", DEFECTS)
def test_clients_with_a_defect_are_refused_by_our_server(
    defect: Defect, version: ssl.TLSVersion, sides: list[Any]
) -> None:
    client, server = tcp_pair(sides)
    other = bare(bare_context(server=False, version=version, certificate=issued(defect), verify=False), client)
    ours = ours_as_server(contexts(), server, reads=defect not in NAMES)
    sides += [ours, other]
    if defect in NAMES:
        drive(ours, other, until=lambda: ours.outcome is not None)
        assert ours.outcome.matching([NAME]) is None
        return
    drive(ours, other)
    error = ours.outcome
    assert isinstance(error, TlsFailureException)
    assert (error.failure_reason, error.error_code) == EXPECTED[defect]
    assert error.local_endpoint is not None
    assert error.remote_endpoint is not None
    assert error.__cause__ is not None
    assert "127.0.0.1" in str(error)
    is_told = isinstance(other.outcome, ssl.SSLError) and "ALERT" in (other.outcome.reason or "")
    assert is_told is (defect not in OURS_TO_FIND)


@pytest.mark.holds("R5")
@pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])
@pytest.mark.parametrize("defect", SHOWN)
def test_our_client_is_told_that_it_was_refused(defect: Defect, version: ssl.TLSVersion, sides: list[Any]) -> None:
    """By a server that does what ours does; in 1.3 that comes when our handshake is long over."""
    client, server = tcp_pair(sides)
    context = bare_context(server=True, version=version, certificate=issued())
    if defect == "revoked":
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        authority().trusted.load_into(context, outgoing=False, with_crls=True)
    other = bare(context, server)
    ours = ours_as_client(contexts(issued(defect)), client, sends=(b"OPTIONS",))
    sides += [ours, other]
    drive(ours, other)
    assert isinstance(other.outcome, ssl.SSLCertVerificationError)
    error = ours.outcome
    assert isinstance(error, TlsFailureException)
    assert error.failure_reason is R.TLS_NEGOTIATION_FAILURE
    assert isinstance(error.__cause__, ssl.SSLError)
    assert NAME in str(error)


@pytest.mark.holds("R5")
@pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])
@pytest.mark.parametrize("defect", SHOWN)
def test_our_server_is_told_that_it_was_refused(defect: Defect, version: ssl.TLSVersion, sides: list[Any]) -> None:
    client, server = tcp_pair(sides)
    context = bare_context(server=False, version=version, certificate=issued())
    if defect == "revoked":
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        authority().trusted.load_into(context, outgoing=True, with_crls=True)
    other = bare(context, client)
    ours = ours_as_server(contexts(issued(defect)), server)
    sides += [ours, other]
    drive(ours, other)
    assert isinstance(ours.outcome, TlsFailureException)
    assert ours.outcome.failure_reason is R.TLS_NEGOTIATION_FAILURE
    assert isinstance(ours.outcome.__cause__, ssl.SSLError)


@pytest.mark.holds("R5")
@pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])
@pytest.mark.parametrize("defect", SHOWN)
@pytest.mark.parametrize("as_server", [True, False], ids=["server", "client"])
def test_between_two_of_ours_both_sides_get_an_exception(
    defect: Defect, version: ssl.TLSVersion, as_server: bool, sides: list[Any]
) -> None:
    client, server = tcp_pair(sides)
    bad, good = contexts(issued(defect)), contexts(issued())
    for context in (bad._server, bad._client):
        context.maximum_version = version
    verifier: Side
    if as_server:
        refused = ours_as_server(bad, server)
        verifier = ours_as_client(good, client)
    else:
        refused = ours_as_client(bad, client, sends=(b"OPTIONS",))
        verifier = ours_as_server(good, server)
    sides += [refused, verifier]
    drive(refused, verifier)
    assert isinstance(verifier.outcome, TlsFailureException)
    if as_server and defect in OURS_TO_FIND:
        assert refused.outcome == b""  # the handshake was good, nothing was asked: an orderly end
    else:
        assert isinstance(refused.outcome, TlsFailureException)


@pytest.mark.holds("F15")
@pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])
@pytest.mark.parametrize("as_server", [True, False], ids=["server", "client"])
def test_strict_revocation_refuses_in_the_handshake(as_server: bool, version: ssl.TLSVersion, sides: list[Any]) -> None:
    client, server = tcp_pair(sides)
    bad = issued("revoked")
    own = contexts(revocation="strict")
    other = bare(
        bare_context(server=as_server, version=version, certificate=bad, verify=False), server if as_server else client
    )
    ours = ours_as_client(own, client) if as_server else ours_as_server(own, server)
    sides += [ours, other]
    drive(ours, other)
    assert isinstance(ours.outcome, TlsFailureException)
    assert (ours.outcome.failure_reason, ours.outcome.error_code) == EXPECTED["revoked"]
    assert isinstance(other.outcome, ssl.SSLError)
    assert "REVOKED" in (other.outcome.reason or "")


@pytest.mark.holds("R6")
@pytest.mark.parametrize("waiting", [0, 1, 3, 100])
def test_the_late_refusal_of_tls_1_3(waiting: int, sides: list[Any]) -> None:
    """However much has been sent into it, our client learns that it was refused, and why."""
    client, server = tcp_pair(sides)
    other = bare(bare_context(server=True, version=TLS13, certificate=issued()), server)
    ours = ours_as_client(contexts(issued("unknown_authority")), client, reads=False)
    sides += [ours, other]
    drive(ours, other)
    assert ours.outcome is ours.socket.info is not None  # for us the handshake is over
    errors = []
    for _ in range(waiting):
        try:
            ours.socket.send(memoryview(b"MESSAGE sip:bob@example SIP/2.0\r\n" * 20))
        except TlsFailureException as error:
            errors.append(error)
    ours.outcome, ours._reads = None, True
    drive(ours)
    assert isinstance(ours.outcome, TlsFailureException)
    assert ours.outcome.failure_reason is R.TLS_NEGOTIATION_FAILURE
    assert all(error.failure_reason in (R.TLS_NEGOTIATION_FAILURE, R.REMOTE_DISCONNECTED) for error in errors)
    again = [None, None]
    for index in range(2):
        with pytest.raises(TlsFailureException) as caught:
            ours.socket.receive(10)
        again[index] = caught.value  # type: ignore[call-overload]
        assert caught.value.failure_reason is R.TLS_NEGOTIATION_FAILURE
    assert again[0] is not again[1]
