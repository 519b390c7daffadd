"""TLS as applications meet it: each defect of a certificate, late refusals, who may connect, renewal."""

from __future__ import annotations

import concurrent.futures
import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from facade_support import BOUND

from p2psip import (
    ConnectionFailureException,
    IPAddress,
    IPEndPoint,
    ManagerSettings,
    MessageType,
    OperationTimeoutException,
    RealTimeException,
    RealTimeInvalidOperationException,
    RealTimeServerTlsConnectionManager,
    SendMessageOptions,
    SipPeerToPeerEndpoint,
    TlsFailureException,
    TlsFailureReason,
)
from p2psip.testing import CertificateAuthority, Defect, IssuedCertificate, tls_manager

UNTRUSTED = TlsFailureReason.UNTRUSTED_REMOTE_CERTIFICATE
USAGE = TlsFailureReason.REMOTE_CERTIFICATE_INVALID_USAGE
NEGOTIATION = TlsFailureReason.TLS_NEGOTIATION_FAILURE
NAME = TlsFailureReason.INCORRECT_NAME_IN_REMOTE_CERTIFICATE

REASONS: dict[Defect, TlsFailureReason] = {
    "expired": TlsFailureReason.CERTIFICATE_EXPIRED,
    "not_yet_valid": TlsFailureReason.CERTIFICATE_EXPIRED,
    "expired_intermediate": TlsFailureReason.CERTIFICATE_EXPIRED,
    "self_signed": UNTRUSTED,
    "unknown_authority": UNTRUSTED,
    "foreign_root": UNTRUSTED,
    "missing_intermediate": UNTRUSTED,
    "issuer_not_authority": UNTRUSTED,
    "path_length": UNTRUSTED,
    "name_constraints": UNTRUSTED,
    "critical_extension": UNTRUSTED,
    "bad_signature": UNTRUSTED,
    "weak_key": UNTRUSTED,
    "weak_signature": UNTRUSTED,
    "revoked": TlsFailureReason.REMOTE_CERTIFICATE_REVOKED,
    "wrong_usage": USAGE,
    "any_usage_only": USAGE,
    "sip_domain_only": USAGE,
    "wrong_name": NAME,
    "common_name_only": NAME,
}
_DER = Encoding.DER
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture(scope="module")
def authority() -> CertificateAuthority:
    return CertificateAuthority()


def bare_context(
    protocol: int, authority: CertificateAuthority, issued: IssuedCertificate | None, version: ssl.TLSVersion
) -> ssl.SSLContext:
    """A peer that is written with ``ssl`` alone and presents what it is told to."""
    context = ssl.SSLContext(protocol)
    context.check_hostname = False
    context.minimum_version = context.maximum_version = version
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.load_verify_locations(cadata=authority.root.certificate.public_bytes(_DER))
    context.verify_mode = ssl.CERT_REQUIRED
    if issued is not None:
        issued.load_into(context)
    return context


@contextlib.contextmanager
def bare_server(context: ssl.SSLContext) -> Iterator[tuple[int, concurrent.futures.Future[object]]]:
    """Accepts one connection and reads from it; its port, and the future of what it read or of the error."""
    outcome: concurrent.futures.Future[object] = concurrent.futures.Future()

    def serve() -> None:
        try:
            sock, _ = listener.accept()
            sock.settimeout(BOUND)
            with context.wrap_socket(sock, server_side=True) as tls:
                outcome.set_result(tls.recv(65536))
        except Exception as error:
            outcome.set_result(error)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(BOUND)
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1], outcome
        finally:
            thread.join(BOUND)


def wants(manager: RealTimeServerTlsConnectionManager) -> None:
    """Its endpoint takes messages."""
    endpoint = SipPeerToPeerEndpoint("sip:bob@bob.example", manager)
    endpoint.message_received += lambda sender, args: None
    manager.default_endpoint = endpoint
    manager.start_listening(IPEndPoint(IPAddress.LOOPBACK, 0))


@pytest.mark.holds("R3", "R5", "F15")
@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
@pytest.mark.parametrize("defect", REASONS)
def test_a_server_certificate_with_a_defect(
    authority: CertificateAuthority, defect: Defect, version: ssl.TLSVersion
) -> None:
    issued = authority.issue("localhost", defect=defect)
    context = bare_context(ssl.PROTOCOL_TLS_SERVER, authority, issued, version)
    with bare_server(context) as (port, outcome), tls_manager(authority, "alice.example") as manager:
        endpoint = SipPeerToPeerEndpoint("sip:alice@alice.example", manager)
        with pytest.raises(TlsFailureException) as failure:
            endpoint.send_message(MessageType.MESSAGE, f"sip:bob@localhost:{port}", body="secret", timeout=BOUND)
        assert failure.value.failure_reason is REASONS[defect], failure.value
        assert failure.value.remote_certificate == issued.certificate.public_bytes(_DER)
        assert failure.value.remote_endpoint == ("127.0.0.1", port)
        seen = outcome.result(BOUND)
        assert isinstance(seen, Exception) or seen == b""  # never a byte of ours


@pytest.mark.holds("R5")
@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
@pytest.mark.parametrize("defect", [defect for defect in REASONS if REASONS[defect] is not NAME])
def test_a_client_certificate_with_a_defect(
    authority: CertificateAuthority, defect: Defect, version: ssl.TLSVersion
) -> None:
    issued = authority.issue("localhost", defect=defect)
    context = bare_context(ssl.PROTOCOL_TLS_CLIENT, authority, issued, version)
    with tls_manager(authority, "bob.example") as manager:
        wants(manager)
        with manager.incoming_tls_negotiation_failed.expect(BOUND) as failed:
            refused = refusal(context, manager.listening_port)
        error = failed.args.exception
        assert isinstance(error, TlsFailureException)
        assert error.failure_reason is REASONS[defect], error
        if defect == "revoked":  # found by our own look at the list, for which OpenSSL sends no alert
            assert isinstance(refused, ssl.SSLError) or refused == b""
        else:
            assert isinstance(refused, ssl.SSLError), refused
        assert manager.connections() == ()


def refusal(context: ssl.SSLContext, port: int) -> object:
    """What a client learns: the exception of the handshake or of the first read, or what it read."""
    with socket.create_connection(("127.0.0.1", port), BOUND) as sock:
        try:
            with context.wrap_socket(sock, server_hostname="bob.example") as tls:
                return tls.recv(65536)
        except OSError as error:
            return error


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
def test_a_client_without_certificate_is_refused_in_the_handshake(
    authority: CertificateAuthority, version: ssl.TLSVersion
) -> None:
    context = bare_context(ssl.PROTOCOL_TLS_CLIENT, authority, None, version)
    with tls_manager(authority, "bob.example") as manager:
        wants(manager)
        added = []
        manager.incoming_connection_added += lambda sender, args: added.append(args)
        with manager.incoming_tls_negotiation_failed.expect(BOUND) as failed:
            assert isinstance(refusal(context, manager.listening_port), ssl.SSLError)
        assert isinstance(failed.args.exception, TlsFailureException)
        assert failed.args.exception.failure_reason is NEGOTIATION
        assert added == []
        manager.stop_listening()
        manager.need_mutual_tls = False
        manager.start_listening(IPEndPoint(IPAddress.LOOPBACK, 0))
        with manager.incoming_connection_added.expect(BOUND) as came:
            socket_to_nowhere(context, manager.listening_port)
        assert came.args.remote_certificate is None and came.args.item.remote_identities == ()


def socket_to_nowhere(context: ssl.SSLContext, port: int) -> None:
    with (
        socket.create_connection(("127.0.0.1", port), BOUND) as sock,
        context.wrap_socket(sock, server_hostname="bob.example") as tls,
    ):
        assert tls.version() is not None


@pytest.mark.holds("R6", "F16")
@pytest.mark.parametrize("waiting", [1, 3, 100])
@pytest.mark.parametrize("minimum", VERSIONS, ids=lambda version: version.name)
def test_a_late_refusal_fails_every_request_that_waits(
    authority: CertificateAuthority, waiting: int, minimum: ssl.TLSVersion
) -> None:
    """In TLS 1.3 the server's word on our certificate comes after our handshake is over."""
    strangers = CertificateAuthority("Strangers")
    with (
        tls_manager(
            strangers, "alice.example", trusted_roots=authority.certificate, minimum_tls_version=minimum
        ) as one,
        tls_manager(authority, "bob.example", "localhost") as two,
    ):
        wants(two)
        seen = []
        two.incoming_connection_added += lambda sender, args: seen.append(args)
        endpoint = SipPeerToPeerEndpoint("sip:alice@alice.example", one)
        address = f"sip:bob@localhost:{two.listening_port}"
        operations = [endpoint.begin_send_message(MessageType.MESSAGE, address, body="x") for _ in range(waiting)]
        errors = [operation.exception(BOUND) for operation in operations]
        for error in errors:
            assert isinstance(error, TlsFailureException), error
            assert error.failure_reason is NEGOTIATION
        assert len({id(error) for error in errors}) == waiting
        assert seen == []


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("closed", ConnectionFailureException),
        ("silent", RealTimeException),
        ("plain", TlsFailureException),
        ("hangs up", TlsFailureException),
    ],
)
def test_peers_that_speak_no_tls(authority: CertificateAuthority, what: str, error: type[RealTimeException]) -> None:
    stop = threading.Event()

    def serve() -> None:
        with contextlib.suppress(OSError):
            sock, _ = listener.accept()
            with sock:
                if what == "plain":
                    sock.recv(65536)
                    sock.sendall(b"SIP/2.0 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
                if what == "silent":
                    stop.wait(BOUND)

    settings = ManagerSettings(handshake_timeout=0.2)
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        tls_manager(authority, "alice.example", settings=settings) as manager,
    ):
        port = listener.getsockname()[1]
        if what == "closed":
            listener.close()
        thread = threading.Thread(target=serve)
        thread.start()
        endpoint = SipPeerToPeerEndpoint("sip:alice@alice.example", manager)
        with pytest.raises(error) as failure:
            endpoint.send_message(MessageType.MESSAGE, f"sip:bob@localhost:{port}", body="x", timeout=BOUND)
        if what == "silent":
            assert isinstance(failure.value, ConnectionFailureException | OperationTimeoutException)
        if what == "plain":
            assert isinstance(failure.value, TlsFailureException) and failure.value.failure_reason is NEGOTIATION
        if what == "hangs up":
            assert isinstance(failure.value, TlsFailureException)
            assert failure.value.failure_reason is TlsFailureReason.REMOTE_DISCONNECTED
        assert f"localhost:{port}" in str(failure.value)
        stop.set()
        listener.close()
        thread.join(BOUND)


@pytest.mark.holds("R10", "F15", "F32", "A6")
def test_a_peer_dialled_by_its_address(authority: CertificateAuthority) -> None:
    with tls_manager(authority, "alice.example") as one, tls_manager(authority, "sip:bob.example") as two:
        wants(two)
        endpoint = SipPeerToPeerEndpoint("sip:alice@alice.example", one)
        address = f"sip:bob@127.0.0.1:{two.listening_port}"
        with pytest.raises(TlsFailureException) as failure:
            endpoint.send_message(MessageType.MESSAGE, address, body="x", timeout=BOUND)
        assert failure.value.failure_reason is NAME and "tls_target_name" in str(failure.value)
        options = SendMessageOptions(tls_target_name="bob.example")
        assert endpoint.send_message(MessageType.MESSAGE, address, options=options, timeout=BOUND).response_code == 200
        (connection,) = one.connections()
        assert connection.remote_identities == ("bob.example",)
        assert connection.tls_version == "TLSv1.3" and connection.cipher
        with pytest.raises(TlsFailureException):  # a connection verified for one name serves no other
            endpoint.send_message(MessageType.MESSAGE, address, body="x", timeout=BOUND)
        assert endpoint.send_message(MessageType.MESSAGE, address, options=options, timeout=BOUND).response_code == 200
    with tls_manager(authority, "alice.example") as one, tls_manager(authority, "127.0.0.1") as two:
        wants(two)
        endpoint = SipPeerToPeerEndpoint("sip:alice@alice.example", one)
        address = f"sip:bob@127.0.0.1:{two.listening_port}"
        assert endpoint.send_message(MessageType.MESSAGE, address, body="x", timeout=BOUND).response_code == 200


@pytest.mark.holds("R45")
@pytest.mark.parametrize(
    ("domains", "allowed"),
    [
        ([], True),
        (["alice.example"], True),
        ([".example"], True),
        (["bob.example"], False),
        (["lice.example"], False),
        ([".alice.example"], False),
    ],
)
def test_allowed_domains(authority: CertificateAuthority, domains: list[str], allowed: bool) -> None:
    with tls_manager(authority, "alice.example") as one, tls_manager(authority, "bob.example", "localhost") as two:
        two.allowed_domains = domains
        wants(two)
        endpoint = SipPeerToPeerEndpoint("sip:alice@alice.example", one)
        address = f"sip:bob@localhost:{two.listening_port}"
        if allowed:
            with two.incoming_connection_added.expect(BOUND) as came:
                endpoint.begin_send_message(MessageType.MESSAGE, address, body="x").result(BOUND)
            assert came.args.matching_domain_name == (domains[0] if domains else None)
        else:
            with two.incoming_tls_negotiation_failed.expect(BOUND) as failed:
                operation = endpoint.begin_send_message(MessageType.MESSAGE, address, body="x")
            assert isinstance(failed.args.exception, TlsFailureException)
            assert failed.args.exception.failure_reason is NAME
            assert isinstance(operation.exception(BOUND), TlsFailureException)
        assert list(two.allowed_domains) == domains


def test_rules_about_mutual_tls(authority: CertificateAuthority) -> None:
    with tls_manager(authority, "bob.example", need_mutual_tls=False) as manager:
        assert manager.need_mutual_tls is False
        with pytest.raises(RealTimeInvalidOperationException, match="need_mutual_tls"):
            manager.allowed_domains.add("a.example")
        manager.need_mutual_tls = True
        manager.allowed_domains.add("a.example")
        with pytest.raises(RealTimeInvalidOperationException, match="allowed_domains"):
            manager.need_mutual_tls = False
        manager.start_listening(IPEndPoint(IPAddress.LOOPBACK, 0))
        manager.allowed_domains = []
        with pytest.raises(RealTimeInvalidOperationException, match="stop_listening"):
            manager.need_mutual_tls = False


def test_mutual_tls_does_not_change_under_a_listener_that_is_about_to_be(authority: CertificateAuthority) -> None:
    with tls_manager(authority, "bob.example") as manager:
        operation = manager.begin_start_listening(IPEndPoint(IPAddress.LOOPBACK, 0))
        with pytest.raises(RealTimeInvalidOperationException, match="stop_listening"):
            manager.need_mutual_tls = False
        assert manager.need_mutual_tls
        operation.result(BOUND)


def test_mutual_tls_that_cannot_be_switched_on_is_not_said_to_be_on(
    authority: CertificateAuthority, tmp_path: Path
) -> None:
    (tmp_path / "roots.pem").write_bytes(authority.pem)
    with tls_manager(authority, "bob.example", need_mutual_tls=False, trusted_roots=tmp_path) as manager:
        (tmp_path / "list.crl").write_bytes(b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n")
        with pytest.raises(TlsFailureException):
            manager.need_mutual_tls = True
        assert manager.need_mutual_tls is False


def test_without_trusted_roots_nothing_is_begun(authority: CertificateAuthority, tmp_path: Path) -> None:
    empty = tmp_path / "trusted"
    empty.mkdir()
    with tls_manager(authority, "alice.example", trusted_roots=empty) as manager:
        endpoint = SipPeerToPeerEndpoint("sip:alice@alice.example", manager)
        with pytest.raises(TlsFailureException) as listening:
            manager.start_listening(IPEndPoint(IPAddress.LOOPBACK, 0))
        with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(TlsFailureException) as connecting:
            endpoint.send_message(
                MessageType.MESSAGE, f"sip:bob@localhost:{server.getsockname()[1]}", body="x", timeout=BOUND
            )
        for failure in (listening, connecting):
            assert failure.value.failure_reason is UNTRUSTED
            assert str(empty) in str(failure.value)


@pytest.mark.holds("F24")
def test_renewed_certificates_are_used_for_new_connections(authority: CertificateAuthority, tmp_path: Path) -> None:
    path = authority.issue("bob.example", "localhost").write(tmp_path)
    with (
        tls_manager(authority, "alice.example") as one,
        RealTimeServerTlsConnectionManager.from_files(path, trusted_roots=authority.certificate) as two,
    ):
        wants(two)
        endpoint = SipPeerToPeerEndpoint("sip:alice@alice.example", one)
        address = f"sip:bob@localhost:{two.listening_port}"

        def send() -> int:
            return endpoint.send_message(MessageType.MESSAGE, address, body="x", timeout=BOUND).response_code

        assert send() == 200
        (old,) = one.connections()
        assert old.remote_certificate == two.local_certificate
        traffic = [endpoint.begin_send_message(MessageType.MESSAGE, address, body=str(n)) for n in range(100)]
        renewed = authority.issue("bob.example", "localhost")
        renewed.write(tmp_path).replace(path)
        two.reload_certificates()
        assert all(operation.exception(BOUND) is None for operation in traffic)
        assert two.local_certificate == renewed.certificate.public_bytes(_DER)
        assert old.is_connected and send() == 200 and one.connections() == (old,)
        for damage in (b"garbage", renewed.pem):  # unreadable; no key
            path.write_bytes(damage)
            with pytest.raises(TlsFailureException) as failure:
                two.reload_certificates()
            assert failure.value.failure_reason is TlsFailureReason.LOCAL_CERTIFICATE_NOT_FOUND
        with one.connection_pool_removed.expect(BOUND):
            old.disconnect()
        assert send() == 200
        (new,) = one.connections()
        assert new.remote_certificate == renewed.certificate.public_bytes(_DER)


def test_another_certificate_of_the_store(authority: CertificateAuthority, tmp_path: Path) -> None:
    first, second = authority.issue("bob.example", "localhost"), authority.issue("carol.example", "localhost")
    store = authority.store(tmp_path, first, second)
    with (
        tls_manager(authority, "alice.example") as one,
        RealTimeServerTlsConnectionManager(first.issuer, first.serial, certificate_store=store) as two,
    ):
        assert two.local_host == "bob.example"
        two.set_local_certificate(second.issuer, hex(second.serial))
        assert two.local_host == "carol.example"
        wants(two)
        endpoint = SipPeerToPeerEndpoint("sip:alice@alice.example", one)
        endpoint.send_message(MessageType.MESSAGE, f"sip:bob@localhost:{two.listening_port}", body="x", timeout=BOUND)
        assert two.endpoints[0].uri.startswith("sip:bob@carol.example:")
        assert "carol.example" in one.connections()[0].remote_identities
        with pytest.raises(TlsFailureException):
            two.set_local_certificate(second.issuer, 1)
        assert two.local_certificate == second.certificate.public_bytes(_DER)


def test_a_revoked_peer_is_refused_once_the_list_is_read(authority: CertificateAuthority, tmp_path: Path) -> None:
    own = CertificateAuthority("Revoking CA")
    alice, bob = own.issue("alice.example"), own.issue("bob.example", "localhost")
    store = own.store(tmp_path, bob)
    alice_path = alice.write(tmp_path / "trusted")
    with (
        RealTimeServerTlsConnectionManager.from_files(alice_path, trusted_roots=own.certificate) as one,
        RealTimeServerTlsConnectionManager(bob.issuer, bob.serial, certificate_store=store) as two,
    ):
        alice_path.unlink()
        wants(two)
        endpoint = SipPeerToPeerEndpoint("sip:alice@alice.example", one)
        address = f"sip:bob@localhost:{two.listening_port}"
        assert endpoint.send_message(MessageType.MESSAGE, address, body="x", timeout=BOUND).response_code == 200
        own.revoke(alice)
        own.store(tmp_path)
        with one.connection_pool_removed.expect(BOUND):
            two.reload_certificates()
        with two.incoming_tls_negotiation_failed.expect(BOUND) as failed:
            operation = endpoint.begin_send_message(MessageType.MESSAGE, address, body="x")
        assert isinstance(failed.args.exception, TlsFailureException)
        assert failed.args.exception.failure_reason is TlsFailureReason.REMOTE_CERTIFICATE_REVOKED
        assert isinstance(operation.exception(BOUND), TlsFailureException)


def test_every_name_of_our_certificate_is_ours(authority: CertificateAuthority) -> None:
    with tls_manager(authority, "alice.example") as one, tls_manager(authority, "bob.example", "localhost") as two:
        bob = SipPeerToPeerEndpoint("sip:bob@bob.example", two)
        bob.message_received += lambda sender, args: None
        two.start_listening(IPEndPoint(IPAddress.LOOPBACK, 0))
        alice = SipPeerToPeerEndpoint("sip:alice@alice.example", one)
        address = f"sip:bob@localhost:{two.listening_port}"
        assert alice.send_message(MessageType.MESSAGE, address, body="x", timeout=BOUND).response_code == 200
