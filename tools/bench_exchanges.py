"""What bench.py measures about exchanges: how many, how long one takes, and what both sides' processors have to do."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from bench_peers import OurClient, OurServer, Peer
from bench_reference import ANSWER, REQUEST, ReferenceClient, ReferenceServer
from bench_table import Plan, Row, alternate, microseconds, say

DEPTH = 100
THREADS = 8

Kind = dict[str, Any]


class Run(NamedTuple):
    """One run: exchanges a second, and seconds of processor time for each exchange."""

    rate: float
    client: float
    server: float


class Pair:
    """Who sends and who answers, each in a process of its own."""

    def __init__(self, server: Peer, client: Peer) -> None:
        self.server, self.client = server, client
        self.port = server.call("port")

    def run(self, seconds: float, method: str, count: int) -> Run:
        """``exchange`` with so many in flight, or ``exchange_blocking`` with so many threads."""
        before = [side.call("processor") for side in (self.client, self.server)]
        done, taken = self.client.call(method, self.port, count, seconds)
        after = [side.call("processor") for side in (self.client, self.server)]
        client, server = ((late - early) / (done + count) for early, late in zip(before, after, strict=True))
        return Run(done / taken, client, server)

    def rate(self, depth: int, seconds: float) -> float:
        return self.run(seconds, "exchange", depth).rate


@contextlib.contextmanager
def pairs(folder: Path, transport: str, *references: Kind) -> Iterator[list[Pair]]:
    """Ours first, whose messages are as long as the blobs, then each kind of reference."""
    with contextlib.ExitStack() as stack:

        def pair(server: Callable[..., Any], client: Callable[..., Any], **kind: Any) -> Pair:
            sides = [stack.enter_context(Peer(side, folder, transport=transport, **kind)) for side in (server, client)]
            return Pair(*sides)

        made = [pair(OurServer, OurClient), *(pair(ReferenceServer, ReferenceClient, **kind) for kind in references)]
        sent, received = made[0].client.call("fit", made[0].port)
        say(f"  MESSAGE {sent} bytes, answer {received}; the reference's blobs {len(REQUEST)} and {len(ANSWER)}")
        for one in made:
            one.rate(1, 0.1)
        kinds = [one.client.call("tls") for one in made]
        if len(set(kinds)) > 1:
            raise SystemExit(f"bench: the connections to compare differ: {kinds}.")
        say(f"  {' '.join(kinds[0]).strip() or transport}")
        yield made


def exchanges(plan: Plan, folder: Path) -> list[Row]:
    with pairs(folder, "TLS", {}, {"drain": True}, {"drain": True, "joined": True}) as made:
        ours, reference, drained, joined = alternate(plan.runs, *(partial(p.rate, DEPTH, plan.seconds) for p in made))
    return [Row("exchanges", "/s", ours, reference, 0.4, others={"drained": drained, "joined": joined})]


def exchanges_tcp(plan: Plan, folder: Path) -> list[Row]:
    with pairs(folder, "TCP", {}) as made:
        ours, reference = alternate(plan.runs, *(partial(p.rate, DEPTH, plan.seconds) for p in made))
    return [Row("exchanges-tcp", "/s", ours, reference, 0.25)]


def round_trip(plan: Plan, folder: Path, transport: str = "TLS") -> list[Row]:
    with pairs(folder, transport, {}) as made:
        ours, reference = alternate(plan.runs, *(partial(p.rate, 1, plan.seconds) for p in made))
    name, target = ("round-trip", 2.0) if transport == "TLS" else ("round-trip-tcp", None)
    return [Row(name, "µs", microseconds(ours), microseconds(reference), target, False)]


def threads(plan: Plan, folder: Path) -> list[Row]:
    rows = []
    for name, transport in (("threads", "TLS"), ("threads-tcp", "TCP")):
        with pairs(folder, transport, {}) as (our_pair, other):
            ours, reference = alternate(
                plan.runs,
                lambda pair=our_pair: pair.run(plan.seconds, "exchange_blocking", THREADS).rate,
                partial(other.rate, THREADS, plan.seconds),
            )
        rows.append(Row(name, "/s", ours, reference))
    return rows


def processor(plan: Plan, folder: Path) -> list[Row]:
    rows = []
    for ending, transport in (("", "TLS"), ("-tcp", "TCP")):
        with pairs(folder, transport, {}) as made:
            ours, reference = alternate(plan.runs, *(partial(p.run, plan.seconds, "exchange", DEPTH) for p in made))
        for name, figure in (("cpu", both), ("cpu-client", client), ("cpu-server", server)):
            figures = [[figure(run) for run in runs] for runs in (ours, reference)]
            rows.append(Row(name + ending, "s", *figures, more_is_better=False))
    return rows


def both(run: Run) -> float:
    """Seconds for 100,000 messages, half of which are answers, on both sides together."""
    return (run.client + run.server) * 50_000


def client(run: Run) -> float:
    """The same on the side that sends the requests."""
    return run.client * 50_000


def server(run: Run) -> float:
    """The same on the side that answers."""
    return run.server * 50_000
