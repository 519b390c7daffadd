"""What p2psip.testing gives to other people's tests."""

from __future__ import annotations

import pytest

from p2psip import (
    ConnectionFailureException,
    ManagerSettings,
    MessageType,
    RealTimeServerTcpConnectionManager,
    SipPeerToPeerEndpoint,
    SipTransportType,
)
from p2psip.testing import EndpointPair, FakeClock, MemoryNetwork, endpoint_pair, living_in


@pytest.mark.parametrize("transport", [SipTransportType.TLS, SipTransportType.TCP])
def test_a_pair_exchanges_messages_without_any_port(transport: SipTransportType) -> None:
    with endpoint_pair(transport) as pair:
        with pair.bob.message_received.expect(timeout=10) as got:
            operation = pair.alice.begin_send_message(MessageType.MESSAGE, pair.bob.uri, body="hello")
        assert operation.result(10).response_code == 200
        assert got.args.text_body == "hello"
        assert got.args.connection.remote_endpoint.address == "192.0.2.1"
        assert got.args.is_sender_authenticated is (transport is SipTransportType.TLS)
        assert pair.network.links[0].destination[0] == "192.0.2.2"
        sent = bytes(pair.network.links[0].to_destination)
        assert (b"hello" in sent) is (transport is SipTransportType.TCP)


def test_connections_break_when_the_test_says_so() -> None:
    with endpoint_pair() as pair:
        pair.bob.message_received += lambda sender, args: None
        pair.alice.send_message(MessageType.MESSAGE, pair.bob.uri, body="x", timeout=10)
        pair.network.links[0].hold()
        with pair.alice.connection_manager.trace.expect(timeout=10):  # from then on it belongs to that connection
            operation = pair.alice.begin_send_message(MessageType.MESSAGE, pair.bob.uri, body="x")
        pair.alice.connection_manager.snapshot()  # the loop has gone on: it is written, else it would go another way
        pair.network.links[0].cut()
        assert isinstance(operation.exception(10), ConnectionFailureException)
        pair.network.refuse("192.0.2.2")
        with pytest.raises(ConnectionFailureException, match="refused"):
            pair.alice.send_message(MessageType.MESSAGE, pair.bob.uri, body="x", timeout=10)


def test_time_passes_when_the_test_says_so() -> None:
    clock = FakeClock()
    with MemoryNetwork(clock) as network, living_in(network):
        network.hosts["bob.example"] = ["192.0.2.2"]
        network.ignore("192.0.2.2")
        with RealTimeServerTcpConnectionManager(settings=ManagerSettings(connect_timeout=1000)) as manager:
            endpoint = SipPeerToPeerEndpoint("sip:alice@alice.example", manager)
            operation = endpoint.begin_send_message(MessageType.MESSAGE, "sip:bob@bob.example", body="x")
            network.wait_for_links(1)
            clock.advance(53)
            assert not operation.done()
            clock.advance(2)  # what is left of the ceiling is for the list of what was tried
            assert isinstance(operation.exception(10), ConnectionFailureException)


def test_the_fixtures(sip_endpoint_pair: EndpointPair, sip_network: MemoryNetwork) -> None:
    assert sip_endpoint_pair.network is sip_network
    sip_endpoint_pair.bob.message_received += lambda sender, args: args.send_response(202)
    answer = sip_endpoint_pair.alice.send_message(MessageType.MESSAGE, sip_endpoint_pair.bob.uri, body="x", timeout=10)
    assert answer.response_code == 202
