"""Two peers that connect to each other at the same moment, again and again."""

from __future__ import annotations

from collections import Counter

import pytest

from p2psip import MessageType, SipPeerToPeerEndpoint, SipTransportType
from p2psip.testing import CertificateAuthority, EndpointPair, endpoint_pair

BOUND = 10.0


def part(pair: EndpointPair) -> None:
    """End every connection, and wait until both sides know."""
    for endpoint in (pair.alice, pair.bob):
        manager = endpoint.connection_manager
        with manager.connection_pool_removed.expect(BOUND):
            for connection in manager.connections():
                if not connection.is_incoming:
                    connection.disconnect()


@pytest.mark.parametrize(("transport", "rounds"), [(SipTransportType.TCP, 200), (SipTransportType.TLS, 20)])
def test_every_request_is_answered_once(
    sip_certificate_authority: CertificateAuthority, transport: SipTransportType, rounds: int
) -> None:
    heard: Counter[str] = Counter()
    with endpoint_pair(transport, authority=sip_certificate_authority) as pair:
        both = [(pair.alice, pair.bob), (pair.bob, pair.alice)]

        def count(sender: SipPeerToPeerEndpoint, args: object) -> None:
            heard[f"{sender.owner_uri} heard {args.text_body}"] += 1  # type: ignore[attr-defined]

        for endpoint, _ in both:
            endpoint.message_received += count
        for number in range(rounds):
            operations = [
                one.begin_send_message(MessageType.MESSAGE, other.uri, body=f"{number}") for one, other in both
            ]
            for operation in operations:
                assert operation.result(BOUND).response_code == 200
            part(pair)
        assert len(pair.network.links) == 2 * rounds
    assert len(heard) == 2 * rounds
    assert set(heard.values()) == {1}
