"""Between two managers that listen on mutual TLS one connection does for both (RFC 5923)."""

from __future__ import annotations

import ssl

import pytest
from facade_support import BOUND

from p2psip import (
    ConnectionFailureException,
    ContentDescription,
    MessageType,
    RealTimeServerTlsConnectionManager,
    SignalingSession,
    SipPeerToPeerEndpoint,
    TlsFailureException,
)
from p2psip.testing import CertificateAuthority, endpoint_pair
from p2psip.testing.network import MemoryNetwork

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
AUTHORITY = CertificateAuthority()
OFFER = ContentDescription("application/sdp", "v=0\r\no=alice\r\n")
ANSWER = ContentDescription("application/sdp", "v=0\r\no=bob\r\n")


def say(sender: SipPeerToPeerEndpoint, to: str) -> None:
    assert sender.send_message(MessageType.MESSAGE, to, body="x", timeout=BOUND).response_code == 200


def wants(endpoint: SipPeerToPeerEndpoint) -> None:
    endpoint.message_received += lambda sender, args: None


@pytest.mark.parametrize("version", VERSIONS)
def test_a_request_back_goes_over_the_connection_of_who_called(version: ssl.TLSVersion) -> None:
    network = MemoryNetwork()
    with network, endpoint_pair(network=network, authority=AUTHORITY) as pair:
        alice, bob = pair.alice, pair.bob
        bob.connection_manager._stack.network._tls._server.maximum_version = version  # type: ignore[union-attr]
        wants(alice)
        bob.session_received += lambda sender, args: args.session.accept(ANSWER)
        session = SignalingSession(alice, bob.uri)
        session.establish(OFFER)
        say(bob, alice.uri)
        (connection,) = bob.connection_manager.connections()
        assert connection.tls_version == version.name.replace("_", ".")
        assert connection.is_incoming and connection.messages_sent == 2  # 200 and MESSAGE
        assert len(alice.connection_manager.connections()) == 1
        assert bob.connection_manager.connection_pools() == ()
        network.hosts["other.example"] = network.hosts["alice.example"]
        with pytest.raises(TlsFailureException):  # another identity is another connection, which is refused
            bob.send_message(MessageType.MESSAGE, alice.uri.replace("alice.example", "other.example"), body="x")
        session.terminate()


def test_who_does_not_listen_is_connected_to() -> None:
    with endpoint_pair(authority=AUTHORITY) as pair:
        alice, bob = pair.alice, pair.bob
        wants(alice)
        wants(bob)
        uri = alice.uri
        assert isinstance(alice.connection_manager, RealTimeServerTlsConnectionManager)
        alice.connection_manager.stop_listening()
        say(alice, bob.uri)
        with pytest.raises(ConnectionFailureException):
            bob.send_message(MessageType.MESSAGE, uri, body="x", timeout=BOUND)
