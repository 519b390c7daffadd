"""What bench.py measures about many at once: connections, calls and transactions, and what they do to one message."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench_calls import Callee, Caller
from bench_exchanges import DEPTH, Pair
from bench_peers import OurClient, OurServer, Peer, patient, wide, within_limits
from bench_reference import REQUEST, ReferenceClient, ReferenceServer
from bench_table import Plan, Row, alternate, microseconds, say
from processes import HAS_PROC

PARALLEL = 8
"""Handshakes at a time."""
AT_ONCE = 1000
"""So many are ordered at a time, for a process to answer before it is thought to hang."""

OPTIONS = b"""OPTIONS sip:bob@127.0.0.1 SIP/2.0
Via: SIP/2.0/TLS 127.0.0.1:9;branch=z9hG4bKbenchNUMBER
Max-Forwards: 70
From: <sip:carol@example.com>;tag=benchNUMBER
To: <sip:bob@127.0.0.1>
Call-ID: benchNUMBER
CSeq: 1 OPTIONS
Content-Length: 0

""".replace(b"\n", b"\r\n")


def handshakes(plan: Plan, folder: Path) -> list[Row]:
    with (
        Peer(OurServer, folder, "0.0.0.0", wide()) as our_server,
        Peer(OurClient, folder, wide()) as our_client,
        Peer(ReferenceServer, folder) as server,
        Peer(ReferenceClient, folder) as client,
    ):

        def per_second(one: Peer, other: Peer) -> Callable[[], float]:
            port = other.call("port")
            one.call("open", port, 1, 1)
            return lambda: plan.handshakes / one.call("open", port, plan.handshakes, PARALLEL)

        ours, reference = alternate(plan.runs, per_second(our_client, our_server), per_second(client, server))
    return [Row("handshakes", "/s", ours, reference, 0.9)]


def memory(plan: Plan, folder: Path) -> list[Row]:
    if not HAS_PROC:
        say("memory is left out: this system has no /proc/self/statm.")
        return []
    each = within_limits(plan.held)
    with (
        Peer(OurServer, folder, settings=wide()) as our_server,
        Peer(ReferenceClient, folder) as our_holder,
        Peer(ReferenceServer, folder) as server,
        Peer(ReferenceClient, folder) as holder,
    ):

        def kibibytes(one: Peer, other: Peer, request: bytes) -> Callable[[], float]:
            port = other.call("port")

            def measure() -> float:
                before = other.call("resident")
                one.call("open", port, each, PARALLEL, request)
                growth: int = other.call("resident") - before
                return growth / each / 1024

            one.call("open", port, PARALLEL, PARALLEL, request)
            return measure

        ours, reference = alternate(
            plan.runs, kibibytes(our_holder, our_server, OPTIONS), kibibytes(holder, server, REQUEST)
        )
    return [Row("memory", "KiB", ours, reference, 1.3, False)]


def idle(plan: Plan, folder: Path) -> list[Row]:
    count = within_limits(plan.idle)
    with (
        Peer(OurServer, folder, settings=wide()) as crowded,
        Peer(OurServer, folder, settings=wide()) as quiet,
        Peer(OurClient, folder) as client,
        Peer(ReferenceClient, folder) as holder,
    ):
        port = crowded.call("port")
        holder.call("open", port, PARALLEL, PARALLEL, OPTIONS)
        before = crowded.call("resident") if HAS_PROC else 0
        for opened in range(PARALLEL, count, AT_ONCE):
            holder.call("open", port, min(AT_ONCE, count - opened), PARALLEL, OPTIONS)
        growth = crowded.call("resident") - before if HAS_PROC else 0
        say(f"  {count} connections are idle" + f", {growth / (count - PARALLEL) / 1024:.1f} KiB each" * HAS_PROC)
        return beside("idle", plan, Pair(crowded, client), Pair(quiet, client))


def beside(name: str, plan: Plan, crowded: Pair, quiet: Pair) -> list[Row]:
    """One exchange at a time, and many, with all that against none of it; both ours."""
    rows = []
    for pair in (crowded, quiet):
        pair.rate(1, 0.1)
    for ending, depth in (("", 1), (f"-{DEPTH}", DEPTH)):
        ours, reference = alternate(plan.runs, *(partial(pair.rate, depth, plan.seconds) for pair in (crowded, quiet)))
        rows.append(Row(name + ending, "µs", microseconds(ours), microseconds(reference), 1.2, False))
    return rows


def transactions(plan: Plan, folder: Path) -> list[Row]:
    settings = patient(plan.transactions)
    with (
        Peer(OurServer, folder, settings=settings) as server,
        Peer(OurClient, folder, settings) as client,
        Peer(OurServer, folder, settings=settings) as quiet_server,
        Peer(OurClient, folder, settings) as quiet_client,
    ):
        crowded, quiet = Pair(server, client), Pair(quiet_server, quiet_client)
        crowded.rate(1, 0.1)
        for begun in range(0, plan.transactions, AT_ONCE):
            client.call("begin_many", crowded.port, min(AT_ONCE, plan.transactions - begun))
            crowded.rate(1, 0.01)  # behind which they have arrived
        rows = beside("transactions", plan, crowded, quiet)
        waiting = [client.call("unanswered"), server.call("waiting")]
        if waiting != [plan.transactions] * 2:
            raise SystemExit(f"bench: {waiting} of {plan.transactions} transactions were waiting.")
        say(f"  {plan.transactions} transactions wait on either side")
    return rows


def dialogs(plan: Plan, folder: Path) -> list[Row]:
    set_up, alone, messages, messages_alone = [], [], [], []
    for _ in range(min(plan.runs, 3)):
        with Peer(Callee, folder) as callee, Peer(Caller, folder) as caller:
            port = callee.call("port")
            caller.call("place", port, plan.set_up)
            caller.call("hang_up")
            sides = (caller, callee)
            before = [side.call("resident") for side in sides] if HAS_PROC else []
            alone.append(caller.call("place", port, plan.set_up) * 1e6)
            messages_alone.append(caller.call("talk", plan.seconds) * 1e6)
            for placed in range(2 * plan.set_up, plan.calls, AT_ONCE):
                caller.call("place", port, min(AT_ONCE, plan.calls - placed))
            set_up.append(caller.call("place", port, plan.set_up) * 1e6)
            messages.append(caller.call("talk", plan.seconds) * 1e6)
            growth = [side.call("resident") - size for side, size in zip(sides, before, strict=False)]
            up = caller.call("hang_up")
            if up != plan.calls:
                raise SystemExit(f"bench: {up} of {plan.calls} calls were up.")
            if growth:
                kibibytes = [size / up / 1024 for size in growth]
                say("  a call: {:.1f} KiB at the caller, {:.1f} KiB at the callee".format(*kibibytes))
    return [
        Row("dialogs", "µs", messages, messages_alone, 1.2, False),
        Row("dialogs-set-up", "µs", set_up, alone, 1.2, False),
    ]
