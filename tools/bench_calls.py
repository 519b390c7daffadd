"""What bench.py measures about calls: an endpoint that answers, and one that calls, each in a process of its own."""

from __future__ import annotations

import time
from pathlib import Path

from bench_peers import manager

import p2psip

DESCRIPTION = p2psip.ContentDescription("application/sdp", b"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n")


class Callee:
    """Takes every call, and keeps it until the caller ends it."""

    def __init__(self, folder: Path, settings: p2psip.ManagerSettings | None = None) -> None:
        self._manager = manager(folder, settings)
        self._endpoint = p2psip.SipPeerToPeerEndpoint("sip:bob@example.com", self._manager)
        self._endpoint.session_received += self._session_received
        self._manager.start_listening(("127.0.0.1", 0))

    def _session_received(self, sender: object, args: p2psip.SessionReceivedEventArgs) -> None:
        args.session.begin_accept(DESCRIPTION)

    def port(self) -> int:
        return self._manager.listening_port


class Caller:
    """Places calls one after the other, on one thread."""

    def __init__(self, folder: Path, settings: p2psip.ManagerSettings | None = None) -> None:
        self._manager = manager(folder, settings)
        self._endpoint = p2psip.SipPeerToPeerEndpoint("sip:alice@example.com", self._manager)
        self._calls: list[p2psip.SignalingSession] = []

    def place(self, port: int, count: int) -> float:
        """More calls, each from INVITE to the ACK to its 200; they stay up. Seconds for each of them."""
        begun = time.perf_counter()
        for _ in range(count):
            session = p2psip.SignalingSession(self._endpoint, f"sip:bob@127.0.0.1:{port};transport=tls")
            session.establish(offer=DESCRIPTION)
            self._calls.append(session)
        return (time.perf_counter() - begun) / count

    def hang_up(self) -> int:
        """End all calls; how many were up."""
        calls, self._calls = self._calls, []
        up = sum(session.state is p2psip.SignalingState.CONNECTED for session in calls)
        for operation in [session.begin_terminate() for session in calls]:
            operation.result()
        return up
