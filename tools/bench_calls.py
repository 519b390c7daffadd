"""What bench.py measures about calls: an endpoint that answers, and one that calls, each in a process of its own."""

from __future__ import annotations

import collections
import time
from functools import partial
from pathlib import Path
from typing import Any

from bench_exchanges import DEPTH, Pair
from bench_peers import OurClient, OurServer, Peer
from bench_reference import ReferenceClient, ReferenceServer
from bench_table import Plan, Row, alternate

import p2psip

DESCRIPTION = p2psip.ContentDescription("application/sdp", b"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n")


class Callee(OurServer):
    """Rings, takes every call, and keeps it until the caller ends it."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self._endpoint.session_received += self._session_received

    def _session_received(self, sender: object, args: p2psip.SessionReceivedEventArgs) -> None:
        args.session.message_received += self._received
        args.session.send_provisional_response(180)
        args.session.begin_accept(DESCRIPTION)


class Caller(OurClient):
    """Places calls, on one thread."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self._calls: list[p2psip.SignalingSession] = []

    def place(self, port: int, count: int) -> float:
        """More calls, each from INVITE to the ACK to its 200; they stay up. Seconds for each of them."""
        begun = time.perf_counter()
        for _ in range(count):
            session = p2psip.SignalingSession(self._endpoint, self._uri(port))
            session.establish(offer=DESCRIPTION)
            self._calls.append(session)
        return (time.perf_counter() - begun) / count

    def talk(self, seconds: float) -> float:
        """Messages within the calls, one after the other. Seconds for each of them and its answer."""
        done, calls = 0, len(self._calls)
        begun = time.perf_counter()
        end = begun + seconds
        while time.perf_counter() < end:
            self._calls[done * 7919 % calls].send_message(p2psip.MessageType.INFO, "text/plain", self._body)
            done += 1
        return (time.perf_counter() - begun) / done

    def hang_up(self) -> int:
        """End all calls; how many were up."""
        calls, self._calls = self._calls, []
        up = sum(session.state is p2psip.SignalingState.CONNECTED for session in calls)
        for operation in [session.begin_terminate() for session in calls]:
            operation.result()
        return up

    def call(self, port: int, depth: int, seconds: float) -> float:
        """Whole calls, from INVITE to the 200 to BYE, with so many under way, for some time. Calls a second."""
        under_way: collections.deque[tuple[p2psip.SignalingSession, Any, bool]] = collections.deque()

        def begin() -> None:
            session = p2psip.SignalingSession(self._endpoint, self._uri(port))
            under_way.append((session, session.begin_establish(offer=DESCRIPTION), False))

        def step() -> int:
            session, operation, is_ending = under_way.popleft()
            operation.result()
            if not is_ending:
                under_way.append((session, session.begin_terminate(), True))
            return int(is_ending)

        for _ in range(depth):
            begin()
        done, begun = 0, time.perf_counter()
        end = begun + seconds
        while time.perf_counter() < end or not done:
            if step():
                done += 1
                begin()
        taken = time.perf_counter() - begun
        while under_way:
            step()
        return done / taken


def calls(plan: Plan, folder: Path) -> list[Row]:
    rows = []
    for name, transport, target in (("calls", "TLS", 0.2), ("calls-tcp", "TCP", None)):
        with (
            Peer(Callee, folder, transport=transport) as callee,
            Peer(Caller, folder, transport=transport) as caller,
            Peer(ReferenceServer, folder, transport=transport) as server,
            Peer(ReferenceClient, folder, transport=transport) as client,
        ):
            port = callee.call("port")
            bare = Pair(server, client)
            bare.rate(DEPTH, 0.1)
            caller.call("call", port, DEPTH, 0.1)
            ours, reference = alternate(
                plan.runs,
                partial(caller.call, "call", port, DEPTH, plan.seconds),
                partial(bare.rate, DEPTH, plan.seconds),
            )
        rows.append(Row(name, "/s", ours, reference, target))
    return rows
