"""Rules of TLS that hold whatever the settings: who is verified, who hears SIP, what an alert means, and for how long."""

from __future__ import annotations

import ast
import datetime
import itertools
import os
import re
import select
import socket
import ssl
import struct
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from net_support import PATIENCE, Side, answer, dial, message
from net_support import sides as networks
from tls_support import (
    NAME,
    TLS12,
    TLS13,
    VERSIONS,
    Bare,
    Ours,
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

import p2psip
from p2psip.config import ManagerSettings
from p2psip.errors import ConnectionFailureException, TlsFailureException, TlsFailureReason
from p2psip.net import failures, tls_socket
from p2psip.net.failures import Peer
from p2psip.net.network import Target
from p2psip.net.tls import TlsContexts
from p2psip.net.trust import Revocation, TrustAnchors
from p2psip.testing import CertificateAuthority, Defect
from p2psip.testing.clock import FakeClock

__all__ = ["networks"]

R = TlsFailureReason
Make = Callable[..., Side]
PACKAGE = Path(p2psip.__file__).parent
both_versions = pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])


@pytest.fixture
def sides() -> Iterator[list[Any]]:
    opened: list[Any] = []
    yield opened
    for side in opened:
        side.close()


# ---------------------------------------------------------------------- every context


@pytest.mark.holds("R1", "R3")
def test_contexts_are_made_in_one_place() -> None:
    """And in one more, which only looks at what a server shows, for ``p2psip check``, and never says a word of SIP."""
    makers, wrong = [], []
    for path in sorted(PACKAGE.rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(source)) if re.search(r"SSLContext\(|_context\(", source) else ():
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                name = path.relative_to(PACKAGE).as_posix()
                if node.func.attr == "SSLContext":
                    makers.append(name)
                elif node.func.attr in ("create_default_context", "_create_unverified_context"):
                    wrong.append((name, node.func.attr))
    assert sorted(set(makers)) == ["cli/look.py", "net/tls.py"]
    assert len(makers) == 2
    assert wrong == []


@pytest.mark.holds("R1")
@pytest.mark.parametrize("minimum", VERSIONS)
def test_security_does_not_hang_on_the_defaults_of_openssl(minimum: ssl.TLSVersion) -> None:
    own = contexts(minimum_version=minimum)
    for context in (own._server, own._client):
        assert context.minimum_version is minimum
        assert context.security_level >= 2
        assert {cipher["protocol"] for cipher in context.get_ciphers()} == {"TLSv1.2", "TLSv1.3"}


LAX: dict[str, Any] = {"need_mutual_tls": False, "revocation": "off", "allow_common_name": True}


@pytest.mark.holds("R3")
@both_versions
@pytest.mark.parametrize("defect", ["self_signed", "unknown_authority", "expired", "wrong_name", "wrong_usage"])
def test_no_option_switches_the_verification_of_servers_off(
    defect: Defect, version: ssl.TLSVersion, sides: list[Any]
) -> None:
    client, server = tcp_pair(sides)
    other = Bare(
        bare_context(server=True, version=version, certificate=issued(defect), verify=False).wrap_socket(
            server, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=False
        )
    )
    ours = ours_as_client(contexts(**LAX), client, sends=(b"OPTIONS",))
    sides += [ours, other]
    drive(ours, other)
    assert isinstance(ours.outcome, TlsFailureException)
    assert other.outcome == b"" or isinstance(other.outcome, OSError)


# ---------------------------------------------------------------------- who hears SIP


def refused_by(what: str) -> tuple[TlsContexts, Any, frozenset[str]]:
    """Our contexts, the certificate of a client that they refuse for that reason, and the allowed domains."""
    own = CertificateAuthority()
    stranger = own.issue("c.example")
    roots = [authority().certificate, own.certificate]
    if what == "revoked":
        own.revoke(stranger)
        return contexts(trust=TrustAnchors(roots, [own.crl()])), stranger, frozenset()
    if what == "another domain":
        return contexts(trust=TrustAnchors(roots)), stranger, frozenset({NAME})
    return contexts(), stranger if what == "unknown authority" else None, frozenset()


@pytest.mark.holds("R2", "R45")
@both_versions
@pytest.mark.parametrize("what", ["no certificate", "unknown authority", "revoked", "another domain"])
def test_who_is_refused_hears_no_sip(networks: Make, what: str, version: ssl.TLSVersion) -> None:
    """Though it sends its request together with the last bytes of the handshake."""
    own, shown, allowed = refused_by(what)
    side = networks(tls=own)
    side.network.allowed_domains = allowed
    port = side.listen()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    peer = bare_context(server=False, version=version, certificate=shown).wrap_bio(
        incoming, outgoing, server_hostname=NAME
    )
    heard = b""
    with dial(port) as sock:
        for step in itertools.count():
            try:
                peer.do_handshake()
            except ssl.SSLWantReadError:
                sock.sendall(outgoing.read())
                incoming.write(sock.recv(65536))
            except ssl.SSLError:
                break
            else:
                peer.write(message())
                sock.sendall(outgoing.read())
                heard = decrypted_to_end(peer, incoming, sock)
                break
            assert step < 100
    assert heard == b""
    side.recorder.wait("handshake failed")
    assert side.recorder.count("message") == side.recorder.count("ready") == 0


def decrypted_to_end(peer: ssl.SSLObject, incoming: ssl.MemoryBIO, sock: socket.socket) -> bytes:
    """What the other side has said until it closed, in clear."""
    heard = b""
    try:
        while data := sock.recv(65536):
            incoming.write(data)
        incoming.write_eof()
        while piece := peer.read(65536):
            heard += piece
    except OSError:  # an alert, a reset, or no more records
        pass
    return heard


@pytest.mark.holds("R2", "R13")
def test_a_request_in_clear_hears_no_sip(networks: Make) -> None:
    side = networks(tls=contexts())
    with dial(side.listen()) as sock:
        sock.sendall(message())
        try:
            heard = sock.recv(65536)
        except ConnectionResetError:
            heard = b""
    assert heard[:1] in (b"", b"\x15")  # nothing, or an alert
    assert b"SIP" not in heard
    side.recorder.wait("handshake failed")
    assert side.recorder.count("message") == 0


# ---------------------------------------------------------------------- alerts

ALERTS = {
    "unexpected_message": 10,
    "bad_record_mac": 20,
    "record_overflow": 22,
    "handshake_failure": 40,
    "bad_certificate": 42,
    "unsupported_certificate": 43,
    "certificate_revoked": 44,
    "certificate_expired": 45,
    "certificate_unknown": 46,
    "illegal_parameter": 47,
    "unknown_ca": 48,
    "access_denied": 49,
    "decode_error": 50,
    "decrypt_error": 51,
    "protocol_version": 70,
    "insufficient_security": 71,
    "internal_error": 80,
    "unrecognized_name": 112,
    "bad_certificate_status_response": 113,
    "unknown_psk_identity": 115,
    "certificate_required": 116,
}


@pytest.mark.holds("R5")
@pytest.mark.parametrize("as_server", [True, False], ids=["server", "client"])
@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_is_a_negotiation_that_failed(alert: str, as_server: bool, sides: list[Any]) -> None:
    client, server = tcp_pair(sides)
    wire = client if as_server else server
    ours: Ours = ours_as_server(contexts(), server) if as_server else ours_as_client(contexts(), client)
    sides.append(ours)
    if as_server:  # who only listens hears nothing before a hello
        hello = ssl.MemoryBIO()
        with pytest.raises(ssl.SSLWantReadError):
            bare_context(server=False).wrap_bio(ssl.MemoryBIO(), hello, server_hostname=NAME).do_handshake()
        wire.send(hello.read())
        drive(ours, until=lambda: bool(select.select([wire], [], [], 0)[0]))
    wire.send(b"\x15\x03\x03\x00\x02\x02" + bytes([ALERTS[alert]]))
    drive(ours)
    error = ours.outcome
    assert isinstance(error, TlsFailureException)
    assert error.failure_reason is R.TLS_NEGOTIATION_FAILURE
    assert isinstance(error.__cause__, ssl.SSLError)
    assert error.error_code == error.__cause__.errno
    assert error.remote_endpoint is not None and str(error).endswith(".")


# ---------------------------------------------------------------------- deadlines


@pytest.mark.holds("R7", "A4")
def test_an_outgoing_handshake_has_ten_seconds_however_it_trickles(networks: Make) -> None:
    clock = FakeClock()
    alice = networks(ManagerSettings(), clock=clock, tls=contexts(), hosts={NAME: ["127.0.0.1"]})
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = bare_context(server=True, version=TLS13, certificate=issued()).wrap_bio(incoming, outgoing, True)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        outcome = alice.acquire(Target("TLS", NAME, listener.getsockname()[1], NAME))
        peer, _ = listener.accept()
        peer.settimeout(PATIENCE)
        with peer:
            incoming.write(peer.recv(65536))
            with pytest.raises(ssl.SSLWantReadError):
                server.do_handshake()
            for _ in range(9):
                peer.sendall(outgoing.read(1))
                alice.settle()
                clock.advance(1)
            alice.settle()
            assert outcome.calls == 0
            clock.advance(1.1)
            error = outcome.error()
            assert isinstance(error, ConnectionFailureException)
            assert "did not finish the TLS handshake within 10 s" in str(error)


# ---------------------------------------------------------------------- sessions that are resumed


def resumed(
    sides: list[Any], own: TlsContexts, context: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> tuple[Any, ssl.SSLSession | None, bool]:
    """What our server says to a client that offers this session, the session it has then, and if it was resumed."""
    client, server = tcp_pair(sides)
    wrapped = context.wrap_socket(client, do_handshake_on_connect=False, server_hostname=NAME, session=session)
    other, ours = Bare(wrapped, says=b"hello"), ours_as_server(own, server)
    sides += [ours, other]
    drive(ours, other, until=lambda: ours.outcome is not None)
    return ours.outcome, other.socket.session, bool(other.socket.session_reused)


@pytest.mark.holds("R8")
@pytest.mark.parametrize("revocation", ["available", "strict"])
@pytest.mark.parametrize("defect", ["revoked", "expired"])
def test_who_comes_back_by_a_session_is_judged_with_the_whole_chain(
    defect: str, revocation: str, sides: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """TLS 1.2 resumes sessions by their id on the strength of the first handshake. Meanwhile the intermediate has gone."""
    root = CertificateAuthority()
    soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=30)
    between = root.intermediate()
    leaf = between.issue(NAME, not_after=soon)
    own = contexts(
        root.issue(NAME), trust=TrustAnchors([root.certificate], [root.crl(), between.crl()]), revocation=revocation
    )
    context = bare_context(server=False, version=TLS12, certificate=leaf)
    context.load_verify_locations(cadata=root.pem.decode())
    outcome, session, _ = resumed(sides, own, context)
    assert outcome == b"hello"
    outcome, _, was = resumed(sides, own, context, session)
    assert (outcome, was) == (b"hello", True)
    if defect == "revoked":
        root._revoked.append(between.certificate.serial_number)
        lists = TrustAnchors([root.certificate], [root.crl(), between.crl()])
        own.verifier = own.verifier._replace(revocation=Revocation(lists))
    else:
        later = between.certificate.not_valid_after_utc + datetime.timedelta(seconds=1)
        assert later < soon
        clock = types.SimpleNamespace(now=lambda zone: later)
        module = types.SimpleNamespace(datetime=clock, timezone=datetime.timezone)
        monkeypatch.setattr("p2psip.net.tls_socket.datetime", module)
    outcome, _, _ = resumed(sides, own, context, session)
    assert isinstance(outcome, TlsFailureException)
    assert outcome.failure_reason is (R.REMOTE_CERTIFICATE_REVOKED if defect == "revoked" else R.CERTIFICATE_EXPIRED)


# ---------------------------------------------------------------------- strangers


@pytest.mark.holds("A20", "A21")
@pytest.mark.parametrize("ciphers", ["NULL-SHA256", "aNULL", "RC4-SHA:DES-CBC3-SHA:AES128-SHA"])
def test_a_hello_with_nothing_acceptable_harms_nobody(networks: Make, ciphers: str) -> None:
    side = networks(tls=contexts())
    port = side.listen()
    good = bare_context(server=False, certificate=issued())
    with dial(port) as raw, good.wrap_socket(raw, server_hostname=NAME) as friend:
        friend.sendall(message())
        ((connection, _),) = side.recorder.wait("message")
        bad = bare_context(server=False, version=TLS12, verify=False)
        try:
            bad.set_ciphers(f"{ciphers}:@SECLEVEL=0")
        except ssl.SSLError:
            pytest.skip("this OpenSSL does not know such ciphers at all")
        with dial(port) as stranger, pytest.raises(ssl.SSLError) as caught:
            bad.wrap_socket(stranger)
        assert "HANDSHAKE_FAILURE" in (caught.value.reason or "")
        ((_, refusal),) = side.recorder.wait("handshake failed")
        assert refusal.failure_reason is R.TLS_NEGOTIATION_FAILURE
        side.send(connection, answer())
        assert friend.recv(65536) == answer()
        with dial(port) as another, good.wrap_socket(another, server_hostname=NAME) as next_one:
            next_one.sendall(message())
            side.recorder.wait("message", 2)


@pytest.mark.holds("A7", "R31")
def test_hundreds_of_connections_that_are_reset_at_once(networks: Make) -> None:
    """In whatever state they are, they leave nothing behind, and the next peer is served."""
    settings = ManagerSettings(
        maximum_connections_per_address=1000, maximum_handshakes=1000, maximum_handshakes_per_address=1000
    )
    side = networks(settings, tls=contexts())
    port = side.listen()
    client = bare_context(server=False, certificate=issued())
    hello = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        client.wrap_bio(ssl.MemoryBIO(), hello, server_hostname=NAME).do_handshake()
    flight = hello.read()
    with dial(port) as raw, client.wrap_socket(raw, server_hostname=NAME) as canary:
        canary.sendall(message())
        side.recorder.wait("message")
        with open(os.devnull) as lowest:
            before = lowest.fileno()
        peers: list[socket.socket] = []
        for number in range(420):  # as many as there were
            peers.append(dial(port))
            if number % 60 == 0:
                peers[-1] = client.wrap_socket(peers[-1], server_hostname=NAME)
                peers[-1].sendall(message()[: 40 * (number % 3)] or b"\r\n\r\n")
            else:
                peers[-1].sendall((b"", flight, flight[:100], b"\0\0", b"INVITE")[number % 5])
        for peer in peers:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()
        canary.sendall(message())
        side.recorder.wait("message", 2)
        for _ in range(20_000):
            if side.call(lambda: len(side.network._all)) == 1:
                break
        assert side.call(lambda: (len(side.network._all), len(side.network._shaking))) == (1, 0)
        with open(os.devnull) as lowest:
            assert lowest.fileno() <= before + 1


# ---------------------------------------------------------------------- messages that are cut off


@pytest.mark.holds("R24", "A3")
@both_versions
@pytest.mark.parametrize("how", ["FIN", "close_notify", "RST", "forged"])
@pytest.mark.parametrize("missing", ["half of the body", "half of the head"])
def test_a_message_that_is_cut_off_is_never_delivered(
    networks: Make, missing: str, how: str, version: ssl.TLSVersion
) -> None:
    side = networks(tls=contexts())
    client = bare_context(server=False, version=version, certificate=issued())
    data = message(b"x" * 500, number=1)
    with dial(side.listen()) as raw, client.wrap_socket(raw, server_hostname=NAME) as peer:
        peer.sendall(data)
        ((connection, _),) = side.recorder.wait("message")
        side.send(connection, answer(1))
        assert peer.recv(65536) == answer(1)
        peer.sendall(data[:-450] if missing == "half of the body" else data[:100])
        if how == "close_notify":
            peer.setblocking(False)
            with pytest.raises(ssl.SSLWantReadError):  # sent, and ours is not there yet
                peer.unwrap()
        elif how == "forged":
            os.write(peer.fileno(), b"\x17\x03\x03\x00\x20" + bytes(32))
        elif how == "RST":
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()
        else:
            socket.socket.shutdown(peer, socket.SHUT_WR)
        ((_, error),) = side.recorder.wait("closed")
        assert isinstance(error, ConnectionFailureException)
        assert side.recorder.count("message") == 1
        side.settle()
        assert side.call(lambda: side.network._all) == {}


@pytest.mark.holds("R5")
@pytest.mark.parametrize("identity", [NAME, None])
def test_each_code_of_verification_has_one_reason(identity: str | None) -> None:
    """Those that OpenSSL may invent as well."""
    reasons = {9: R.CERTIFICATE_EXPIRED, 10: R.CERTIFICATE_EXPIRED, 23: R.REMOTE_CERTIFICATE_REVOKED}
    reasons[26] = R.REMOTE_CERTIFICATE_INVALID_USAGE
    peer = Peer(identity, identity, ("127.0.0.1", 5061), ("127.0.0.2", 5061), "the test")
    names = {62, 63, 64}  # it is not asked to look at them: we do
    for code in set(range(2, 120)) - names:
        cause = ssl.SSLCertVerificationError(1, "certificate verify failed")
        cause.verify_code, cause.verify_message = code, "in OpenSSL's words, { odd ones } with {0}"
        error = failures.handshake_failed(peer, cause, b"certificate")
        assert error.failure_reason is reasons.get(code, R.UNTRUSTED_REMOTE_CERTIFICATE), code
        assert (error.error_code, error.remote_certificate) == (code, b"certificate")
        assert (identity or "127.0.0.2") in str(error)


@pytest.mark.holds("R5", "R37")
@both_versions
@pytest.mark.parametrize("as_server", [True, False], ids=["server", "client"])
def test_a_certificate_that_only_openssl_can_read(
    as_server: bool, version: ssl.TLSVersion, sides: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(der: bytes) -> None:
        raise ValueError("error parsing asn1 value: ParseError { kind: InvalidValue }")

    tls_socket._read.cache_clear()
    monkeypatch.setattr(tls_socket.x509, "load_der_x509_certificate", unreadable)
    client, server = tcp_pair(sides)
    context = bare_context(server=not as_server, version=version, certificate=issued())
    other = bare(context, client if as_server else server)
    ours = ours_as_server(contexts(), server) if as_server else ours_as_client(contexts(), client)
    sides += [ours, other]
    drive(ours, other)
    assert isinstance(ours.outcome, TlsFailureException)
    assert ours.outcome.failure_reason is R.UNTRUSTED_REMOTE_CERTIFICATE
    assert "kind: InvalidValue" in str(ours.outcome)
    assert isinstance(ours.outcome.__cause__, ValueError)
