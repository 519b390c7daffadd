"""The page that this library starts from, statement by statement: an endpoint, its events, and the four kinds of
application: inbound and outbound, inbound only, outbound only, ad hoc."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from facade_support import BOUND

import p2psip
from p2psip import (
    EndpointState,
    EndpointTransitionReason,
    IPAddress,
    IPEndPoint,
    MessageType,
    SipPeerToPeerEndpoint,
    SipTransportType,
    TlsFailureException,
    TlsFailureReason,
)
from p2psip.testing import CertificateAuthority, tls_manager

SERIAL = 0x5F3A00C1


@pytest.fixture(scope="module")
def authority() -> CertificateAuthority:
    return CertificateAuthority("Contoso Issuing CA")


@pytest.fixture
def store(authority: CertificateAuthority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default store holds the certificate that the page asks for."""
    authority.store(tmp_path, authority.issue("sip:contoso.com", "contoso.com", "localhost", serial=SERIAL))
    monkeypatch.setenv("P2PSIP_CERTIFICATE_STORE", str(tmp_path))


@contextlib.contextmanager
def standing_in(authority: CertificateAuthority, *names: str) -> Iterator[SipPeerToPeerEndpoint]:
    """A second endpoint, as the proxy or the peer."""
    with tls_manager(authority, *names) as manager:
        endpoint = SipPeerToPeerEndpoint(f"sip:everybody@{names[0]}", manager)
        endpoint.message_received += lambda sender, args: None
        manager.default_endpoint = endpoint
        manager.start_listening(IPEndPoint(IPAddress.LOOPBACK, 0))
        yield endpoint


@pytest.mark.usefixtures("store")
def test_inbound_and_outbound(authority: CertificateAuthority) -> None:
    with standing_in(authority, "localhost") as proxy, contextlib.ExitStack() as end:
        # The connection manager, with the certificate of that issuer and serial number.
        manager = p2psip.RealTimeServerTlsConnectionManager("Contoso Issuing CA", "5f:3a:00:c1")
        end.enter_context(manager)
        manager.need_mutual_tls = True
        # The endpoint, with an outbound proxy.
        port = proxy.connection_manager.listening_port
        endpoint = SipPeerToPeerEndpoint("sip:Jayanama@contoso.com", manager, SipTransportType.TLS, "localhost", port)
        assert endpoint.state is EndpointState.DISCONNECTED
        # Its events.
        states: list[tuple[EndpointState, EndpointTransitionReason]] = []
        messages: list[str | None] = []

        def endpoint_state_changed(sender: object, args: p2psip.EndpointStateChangedEventArgs) -> None:
            states.append((args.state, args.reason))

        def endpoint_message_received(sender: object, args: p2psip.MessageReceivedEventArgs) -> None:
            messages.append(args.text_body)

        endpoint.state_changed += endpoint_state_changed
        endpoint.message_received += endpoint_message_received
        # Listening, on any port of any address.
        with endpoint.state_changed.expect(BOUND):
            endpoint.connection_manager.start_listening(IPEndPoint(IPAddress.ANY, 0))
        assert manager.listening_port > 0
        assert states == [(EndpointState.CONNECTED, EndpointTransitionReason.LISTENING)]
        # Outbound through the proxy.
        with proxy.message_received.expect(BOUND) as got:
            answer = endpoint.begin_send_message(MessageType.MESSAGE, "sip:bob@contoso.com", body="hello")
        assert answer.result(BOUND).response_code == 200
        assert got.args.request_data.request_uri == "sip:bob@contoso.com"
        assert got.args.participant.uri == "sip:Jayanama@contoso.com"
        assert got.args.is_sender_authenticated
        # Inbound: the proxy's own request comes on a connection of its own.
        options = p2psip.SendMessageOptions(
            connection_context=("localhost", manager.listening_port), tls_target_name="contoso.com"
        )
        answered = proxy.send_message(
            MessageType.MESSAGE, "sip:Jayanama@contoso.com", body="welcome", options=options, timeout=BOUND
        )
        assert answered.response_code == 200 and messages == ["welcome"]
        assert sorted(connection.is_incoming for connection in manager.connections()) == [False, True]


@pytest.mark.usefixtures("store")
def test_the_constructor_without_a_proxy_and_without_the_certificate() -> None:
    with p2psip.RealTimeServerTlsConnectionManager("Contoso Issuing CA", SERIAL) as manager:
        endpoint = SipPeerToPeerEndpoint("sip:Jayanama@contoso.com", manager)
        assert endpoint.default_transport is SipTransportType.TLS
        assert manager.local_host == "contoso.com"
    with pytest.raises(TlsFailureException) as failure:
        p2psip.RealTimeServerTlsConnectionManager("Contoso Issuing CA", "12:34")
    assert failure.value.failure_reason is TlsFailureReason.LOCAL_CERTIFICATE_NOT_FOUND
    assert "5f:3a:00:c1" in str(failure.value).lower()  # what the store does hold


def test_with_a_proxy_everything_goes_there(authority: CertificateAuthority) -> None:
    with (
        standing_in(authority, "localhost") as proxy,
        tls_manager(authority, "contoso.com") as manager,
    ):
        port = proxy.connection_manager.listening_port
        endpoint = SipPeerToPeerEndpoint("sip:alice@contoso.com", manager, SipTransportType.TLS, "localhost", port)
        operations = [
            endpoint.begin_send_message(MessageType.MESSAGE, f"sip:bob@host{number % 5}.example", body=str(number))
            for number in range(20)
        ]
        assert [operation.result(BOUND).response_code for operation in operations] == [200] * 20
        connections = manager.connections()
        assert {connection.remote_endpoint.port for connection in connections} == {port}
        assert all(not connection.is_incoming for connection in connections)
        assert [(pool.host_name, pool.port) for pool in manager.connection_pools()] == [("localhost", port)]


def test_a_proxy_with_another_name(authority: CertificateAuthority) -> None:
    with standing_in(authority, "pool.contoso.com") as proxy, tls_manager(authority, "contoso.com") as manager:
        port = proxy.connection_manager.listening_port
        endpoint = SipPeerToPeerEndpoint("sip:alice@contoso.com", manager, None, "localhost", port)
        with pytest.raises(TlsFailureException) as failure:
            endpoint.send_message(MessageType.MESSAGE, "sip:bob@contoso.com", body="x", timeout=BOUND)
        assert failure.value.failure_reason is TlsFailureReason.INCORRECT_NAME_IN_REMOTE_CERTIFICATE
        endpoint.proxy_certificate_subject = "pool.contoso.com"
        answer = endpoint.send_message(MessageType.MESSAGE, "sip:bob@contoso.com", body="x", timeout=BOUND)
        assert answer.response_code == 200


@pytest.mark.usefixtures("store")
def test_inbound_only(authority: CertificateAuthority) -> None:
    with p2psip.RealTimeServerTlsConnectionManager("Contoso Issuing CA", SERIAL) as manager:
        manager.need_mutual_tls = True
        endpoint = SipPeerToPeerEndpoint("sip:Jayanama@contoso.com", manager)
        reached: list[object] = []
        endpoint.message_received += lambda sender, args: reached.append(args.participant.uri)
        manager.start_listening(IPEndPoint(IPAddress.LOOPBACK, 0))
        # A peer without a certificate is refused in the handshake and never seen.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=authority.pem.decode())
        request = b"OPTIONS sip:Jayanama@contoso.com SIP/2.0\r\n"
        with pytest.raises(ssl.SSLError), socket.create_connection(("127.0.0.1", manager.listening_port)) as sock:
            sock.settimeout(BOUND)
            with context.wrap_socket(sock, server_hostname="contoso.com") as tls:
                tls.sendall(request)
                tls.recv(1)
        assert reached == [] and manager.connections() == ()
        # A peer with one is.
        with tls_manager(authority, "fabrikam.com") as peers:
            peer = SipPeerToPeerEndpoint("sip:bob@fabrikam.com", peers)
            options = p2psip.SendMessageOptions(tls_target_name="contoso.com")
            address = f"sip:Jayanama@127.0.0.1:{manager.listening_port}"
            assert peer.send_message(MessageType.MESSAGE, address, body="x", options=options, timeout=BOUND)
        assert reached == ["sip:bob@fabrikam.com"]


def test_inbound_only_over_tcp() -> None:
    with (
        p2psip.RealTimeServerTcpConnectionManager() as manager,
        p2psip.RealTimeServerTcpConnectionManager() as peers,
    ):
        endpoint = SipPeerToPeerEndpoint("sip:Jayanama@contoso.com", manager)
        endpoint.message_received += lambda sender, args: None
        manager.start_listening(IPEndPoint(IPAddress.ANY, 0))
        peer = SipPeerToPeerEndpoint("sip:bob@fabrikam.com", peers)
        address = f"sip:Jayanama@127.0.0.1:{manager.listening_port}"
        assert peer.send_message(MessageType.MESSAGE, address, body="x", timeout=BOUND).response_code == 200


def test_outbound_only(authority: CertificateAuthority) -> None:
    """Nothing listens; the proxy's request over our own connection is for dialogs only."""
    with standing_in(authority, "localhost") as proxy, tls_manager(authority, "contoso.com") as manager:
        port = proxy.connection_manager.listening_port
        endpoint = SipPeerToPeerEndpoint("sip:alice@contoso.com", manager, SipTransportType.TLS, "localhost", port)
        endpoint.message_received += lambda sender, args: None
        assert endpoint.send_message(MessageType.MESSAGE, "sip:bob@contoso.com", body="x", timeout=BOUND)
        assert endpoint.state is EndpointState.DISCONNECTED and not manager.is_listening


@pytest.mark.parametrize(
    ("host", "address"),
    [("localhost", "localhost"), ("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")],
)
@pytest.mark.parametrize("scheme", ["sip", "sips"])
def test_ad_hoc(authority: CertificateAuthority, host: str, address: str, scheme: str) -> None:
    """Host, port and transport from the request URI."""
    with contextlib.ExitStack() as end:
        manager = end.enter_context(tls_manager(authority, host))
        listen = "127.0.0.1" if host == "localhost" else host
        try:
            manager.start_listening(IPEndPoint(listen, 0))
        except p2psip.ConnectionFailureException:
            assert host == "::1"
            pytest.skip("this machine has no IPv6")
        bob = SipPeerToPeerEndpoint(f"sip:bob@{address}", manager)
        bob.message_received += lambda sender, args: None
        alice = SipPeerToPeerEndpoint("sip:alice@contoso.com", end.enter_context(tls_manager(authority, "contoso.com")))
        answer = alice.send_message(
            MessageType.MESSAGE, f"{scheme}:bob@{address}:{manager.listening_port}", body="x", timeout=BOUND
        )
        assert answer.response_code == 200
        (connection,) = alice.connection_manager.connections()
        assert connection.transport is SipTransportType.TLS and connection.remote_identities == (host,)
