"""What the tests of the facade share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

from p2psip import (
    IPAddress,
    IPEndPoint,
    ManagerSettings,
    RealTimeServerTcpConnectionManager,
    SipPeerToPeerEndpoint,
)

BOUND = 20.0
"""Seconds: no wait of these tests is longer, and none that passes takes it."""


class TcpPair(NamedTuple):
    """Two endpoints, each on a manager of its own that listens on loopback."""

    alice: SipPeerToPeerEndpoint
    bob: SipPeerToPeerEndpoint


@contextlib.contextmanager
def tcp_pair(settings: ManagerSettings | None = None) -> Iterator[TcpPair]:
    with (
        RealTimeServerTcpConnectionManager(settings=settings) as one,
        RealTimeServerTcpConnectionManager(settings=settings) as two,
    ):
        one.start_listening(IPEndPoint(IPAddress.LOOPBACK, 0))
        two.start_listening(IPEndPoint(IPAddress.LOOPBACK, 0))
        yield TcpPair(
            SipPeerToPeerEndpoint("sip:alice@example.com", one), SipPeerToPeerEndpoint("sip:bob@example.com", two)
        )
