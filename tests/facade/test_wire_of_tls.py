"""What goes over the wire of TLS, whatever befalls those who talk: records, and nothing in clear."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
from facade_support import BOUND

from p2psip import (
    ContentDescription,
    ManagerSettings,
    MessageType,
    RealTimeException,
    SignalingSession,
    SipSubscription,
)
from p2psip.testing import CertificateAuthority, EndpointPair, endpoint_pair
from p2psip.testing.network import Link

OFFER = ContentDescription("application/sdp", b"v=0\r\ns=secret\r\n")
AUTHORITY = CertificateAuthority()


def records(data: bytes) -> int:
    """How many TLS records the bytes are; fails when they are anything else. The last one may be cut off."""
    count = 0
    while len(data) >= 5:
        assert data[0] in (20, 21, 22, 23) and data[1] == 3, data[:60]
        data = data[5 + int.from_bytes(data[3:5], "big") :]
        count += 1
    return count


def nothing_in_clear(link: Link) -> None:
    for data in (bytes(link.to_destination), bytes(link.to_source)):
        assert b"secret" not in data and b"SIP/2.0" not in data
        assert records(data) > 0


def cut(pair: EndpointPair) -> None:
    pair.network.links[-1].cut()


def disconnect(pair: EndpointPair) -> None:
    for manager in (pair.alice.connection_manager, pair.bob.connection_manager):
        for connection in manager.connections():
            connection.disconnect()


def hold_and_leave(pair: EndpointPair) -> None:
    pair.network.links[-1].hold()
    pair.alice.connection_manager.dispose()
    pair.network.links[-1].release()


FAULTS: dict[str, Callable[[EndpointPair], object]] = {
    "none": lambda pair: None,
    "cut": cut,
    "disconnected": disconnect,
    "terminated": lambda pair: pair.alice.terminate(),
    "disposed": lambda pair: pair.bob.connection_manager.dispose(),
    "no longer listening": lambda pair: pair.bob.connection_manager.stop_listening(),
    "renewed": lambda pair: pair.bob.connection_manager.reload_certificates(),  # type: ignore[attr-defined]
    "held and left": hold_and_leave,
}


@pytest.mark.holds("R13")
@pytest.mark.parametrize(
    ("fault", "captured"), [*((fault, False) for fault in FAULTS), *((fault, True) for fault in ("cut", "disposed"))]
)
def test_nothing_leaves_in_clear_whatever_happens(fault: str, captured: bool, tmp_path: Path) -> None:
    with endpoint_pair(authority=AUTHORITY, settings=ManagerSettings(dispose_grace=0.2)) as pair:
        if captured:  # which has TLS done by other means
            for name, endpoint in (("a", pair.alice), ("b", pair.bob)):
                endpoint.connection_manager.capture_to(tmp_path / name)
        pair.bob.message_received += lambda sender, args: args.send_response(200, body="secret")
        pair.bob.session_received += lambda sender, args: args.session.accept(OFFER)
        pair.bob.subscription_received += lambda sender, args: args.subscription.accept(None, "text/plain", "secret")
        pair.alice.send_message(MessageType.MESSAGE, pair.bob.uri, body="secret", timeout=BOUND)
        session = SignalingSession(pair.alice, pair.bob.uri)
        session.establish(OFFER, timeout=BOUND)
        SipSubscription(pair.alice, pair.bob.uri, "presence").subscribe(timeout=BOUND)
        waiting = [
            pair.alice.begin_send_message(MessageType.MESSAGE, pair.bob.uri, body="secret" * 1000) for _ in range(20)
        ]
        with contextlib.suppress(RealTimeException):
            FAULTS[fault](pair)
        for operation in waiting:
            operation.exception(BOUND)
        if fault not in ("terminated", "held and left"):
            with contextlib.suppress(RealTimeException):
                pair.alice.send_message(MessageType.MESSAGE, pair.bob.uri, body="secret", timeout=5)
        links = pair.network.links
    assert links
    for link in links:
        nothing_in_clear(link)
