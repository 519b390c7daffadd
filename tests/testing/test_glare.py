"""Two peers that connect to each other at the same moment, again and again."""

from __future__ import annotations

import threading
from collections import Counter

import pytest

from p2psip import MessageType, SipPeerToPeerEndpoint, SipTransportType
from p2psip.testing import CertificateAuthority, EndpointPair, endpoint_pair

BOUND = 10.0


class Connections:
    """Those of both sides, and how to end all of them."""

    def __init__(self, pair: EndpointPair) -> None:
        self._managers = [endpoint.connection_manager for endpoint in (pair.alice, pair.bob)]
        self._news = threading.Condition()
        for manager in self._managers:
            manager.connection_pool_removed += self._changed
            manager.incoming_connection_removed += self._changed

    def _changed(self, sender: object, args: object) -> None:
        with self._news:
            self._news.notify_all()

    def end(self) -> None:
        """End every one, and wait until both sides know."""
        for manager in self._managers:
            for connection in manager.connections():
                if not connection.is_incoming:
                    connection.disconnect()
        with self._news:
            assert self._news.wait_for(lambda: not any(manager.connections() for manager in self._managers), BOUND)


@pytest.mark.parametrize(("transport", "rounds"), [(SipTransportType.TCP, 200), (SipTransportType.TLS, 20)])
def test_every_request_is_answered_once(
    sip_certificate_authority: CertificateAuthority, transport: SipTransportType, rounds: int
) -> None:
    heard: Counter[str] = Counter()
    with endpoint_pair(transport, authority=sip_certificate_authority) as pair:
        connections = Connections(pair)
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
            connections.end()
        # Over TLS one of them may serve both (RFC 5923).
        at_least = rounds if transport is SipTransportType.TLS else 2 * rounds
        assert at_least <= len(pair.network.links) <= 2 * rounds
    assert len(heard) == 2 * rounds
    assert set(heard.values()) == {1}
