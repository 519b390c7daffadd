"""Send an endpoint ten times what its handler can take, and see that it says so, loses nothing and recovers.

    python tools/overload.py [--transport TCP|TLS] [--connections 1 10] [--slowness 0.002] [--times 10] [--seconds 10]

Our endpoint, with a handler that takes so many seconds for each request, is in a process of its own; SIPp sends MESSAGEs
to it, over one connection and distributed over many, on TCP and (through stunnel) on mutual TLS. Somebody else asks the
same endpoint, and one beside it whose handler is quick, now and then over a connection of his own.

It holds when each request was answered: 200 by the handler, in the order in which they came, or 503 with Retry-After and
seen by no handler; when the handler was kept at work; when answers did not take longer than
patience; when whoever asked the quick handler hardly noticed; when memory, descriptors and threads stayed, and when a
second after the last request was through everything was as before. The exit code says so.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from overload_peers import LOOPBACK, OURS, POLITE, THEIRS, Answers, Look, Polite, Server, Sipp, Stunnel
from processes import HAS_PROC, Child, Usage

from p2psip.testing import CertificateAuthority

MEMORY = 64 * 2**20
"""Bytes that the process may have more meanwhile; half of it for good, because heaps keep what they had."""
SHARE = 0.7
"""Of what the handler can take that it takes at least: refusing takes time as well, and so does the load."""
LATENCY = 15.0
"""Seconds that an answer may take, measured at SIPp, which counts what it keeps to itself as well."""
POLITE_LATENCY = 2.0
"""Seconds that whoever asks the quick handler may have to wait."""
RECOVERY = 1.0
"""Seconds from the end of the load until a request is answered as before it."""
SAMPLE = 0.05
"""Seconds between two looks."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """How hard it is tried.

    Attributes:
        slowness: Seconds that the handler takes.
        times: The load, in what the handler can take.
        seconds: How long it lasts.
        connections: That the load is distributed over.
        size: Bytes of a body.
        mark: The high mark of the handler's queue.
    """

    secure: bool = False
    slowness: float = 0.002
    times: float = 10.0
    seconds: float = 10.0
    connections: int = 1
    size: int = 100
    mark: int = 1000

    @property
    def settings(self) -> dict[str, Any]:
        """Of our manager."""
        settings: dict[str, Any] = {"strand_high_mark": self.mark, "strand_low_mark": self.mark // 2}
        if self.connections > 1:  # one address may not have so many in a handshake at a time, unless it is trusted
            settings["trusted_addresses"] = frozenset({LOOPBACK})
        return settings

    def __str__(self) -> str:
        many = "one connection" if self.connections == 1 else f"{self.connections} connections"
        return f"{'TLS' if self.secure else 'TCP'}, {many}, {self.slowness * 1000:g} ms a request"


@dataclasses.dataclass
class Outcome:
    """What came out.

    Attributes:
        answers: What SIPp counted.
        capacity: Requests a second that the handler takes when there are just enough of them.
        rate: Requests a second that were sent.
        look: What the handler counted.
        before, worst, after: The process.
        polite: Seconds that others waited, for the slow handler and for the quick one.
        polite_refused: How many of them were refused.
        seconds: From the first request to the last answer.
        recovery: Seconds from when the last request was answered until one was answered as before.
        drain: Seconds from when the last request came in until none waited any more.
        faults: What should not be, in sentences.
    """

    plan: Plan
    answers: Answers
    capacity: float
    rate: int
    look: Look
    before: Usage
    worst: Usage
    after: Usage
    polite: dict[str, list[float]]
    polite_refused: dict[str, int]
    recovery: float
    drain: float
    seconds: float
    faults: list[str] = dataclasses.field(default_factory=list)

    @property
    def busy(self) -> float:
        """The part of the time that the handler was at work."""
        return self.look.handled / self.capacity / self.seconds


def certificates(folder: Path) -> None:
    """For all sides, from one authority."""
    authority = CertificateAuthority()
    (folder / "root.pem").write_bytes(authority.pem)
    for name in (OURS, THEIRS, POLITE):
        issued = authority.issue(name)
        path = folder / f"{name}.pem"
        path.touch(0o600)
        path.write_bytes(issued.pem + issued.key_pem())


def run(plan: Plan, folder: Path) -> Outcome:
    """One load, from the beginning to the end."""
    with contextlib.ExitStack() as end:
        credentials = folder if plan.secure else None
        server = end.enter_context(Child(Server, credentials, plan.slowness, plan.settings))
        port = server.call("port")
        polite = end.enter_context(Child(Polite, credentials, port))
        if plan.secure:
            port = end.enter_context(Stunnel(folder, port)).port
        count = max(20, round(min(1.0, plan.seconds) / plan.slowness))
        with Sipp(folder, port, secure=plan.secure, rate=100_000, count=count, size=plan.size, in_flight=20) as few:
            few.result()
        capacity: float = server.call("rate")
        usual = max(polite.call("ask", to) for to in ("fast", "slow") for _ in range(3))
        before, first = server.usage(), server.call("look")
        polite.call("begin", 0.1)
        rate = round(capacity * plan.times / plan.connections)
        count = round(rate * plan.seconds)
        loads = [
            end.enter_context(Sipp(folder, port, secure=plan.secure, rate=rate, count=count, size=plan.size))
            for _ in range(plan.connections)
        ]
        samples = [before]
        begun = arrived = drained = time.monotonic()
        look: Look = first
        while any(load.is_running for load in loads):
            samples.append(server.usage())
            previous, look = look, server.call("look")
            if look.received > previous.received:
                arrived = time.monotonic()
            if look.waiting or look.received > previous.received:
                drained = time.monotonic()
            time.sleep(SAMPLE)
        over = time.monotonic()
        recovery = over
        while polite.call("ask", "slow") > max(2 * usual, 0.05) and time.monotonic() < over + 10 * RECOVERY:
            pass
        recovery = time.monotonic() - over
        waited, refused, failures = polite.call("finish")
        answers = Answers()
        for load in loads:
            answers += load.result()
        look = server.call("look") - first
        time.sleep(0.0 if plan.seconds < 5 else 1.0)
        after = server.usage()
        worst = Usage(*(max(values) for values in zip(*samples, strict=True)))
        outcome = Outcome(
            plan,
            answers,
            capacity,
            rate * plan.connections,
            look,
            before,
            worst,
            after,
            waited,
            refused,
            recovery,
            drained - arrived,
            over - begun,
        )
        outcome.faults = [*faults(outcome), *(f"Who asked meanwhile: {failure}" for failure in failures)]
        if answers.failed:
            outcome.faults.append(f"SIPp says: {answers.errors[:500]}")
        return outcome


def faults(outcome: Outcome) -> list[str]:
    """What should not be."""
    answers, before, worst, after = outcome.answers, outcome.before, outcome.worst, outcome.after
    quick = max(outcome.polite["fast"], default=0.0)
    latest = max(answers.answered_after, default=0.0)
    held = [
        (answers.failed == 0, f"{answers.failed} requests were lost"),
        (
            outcome.look.handled == answers.answered,
            f"{outcome.look.handled} requests were handled, but {answers.answered} answered 200",
        ),
        (outcome.look.disordered == 0, f"{outcome.look.disordered} requests were handled out of order"),
        (outcome.busy >= SHARE, f"of what the handler can take it has taken {outcome.busy:.0%} only"),
        (latest <= LATENCY, f"an answer took {latest:.1f} s"),
        (quick <= POLITE_LATENCY, f"who asked the quick handler waited {quick:.2f} s"),
        (outcome.polite_refused["fast"] == 0, "who asked the quick handler was refused"),
        (outcome.recovery <= RECOVERY, f"it took {outcome.recovery:.1f} s until everything was as before"),
        (
            outcome.drain <= 2 * outcome.plan.mark / outcome.capacity + RECOVERY,
            f"requests still waited {outcome.drain:.1f} s after the last one had come in",
        ),
        (worst.memory - before.memory <= MEMORY, f"memory grew by {(worst.memory - before.memory) >> 20} MiB"),
        (
            after.memory - before.memory <= MEMORY // 2,
            f"{(after.memory - before.memory) >> 20} MiB were not given back",
        ),
        (
            after.descriptors <= before.descriptors + 3,
            f"{after.descriptors - before.descriptors} descriptors were left",
        ),
    ]
    return [sentence for holds, sentence in held if not holds]


def report(outcome: Outcome) -> str:
    """For people."""
    answers = outcome.answers
    lines = [
        f"{outcome.plan}",
        f"  offered {answers.created} ({outcome.rate}/s; the handler takes {outcome.capacity:.0f}/s), answered {answers.answered}, refused (503) "
        f"{answers.refused}, lost {answers.failed}; all of it took {outcome.seconds:.1f} s; of what the handler can "
        f"take it took {outcome.busy:.0%}",
        f"  seconds until 200: {_spread(answers.answered_after)}; until 503: {_spread(answers.refused_after)}",
    ]
    for to, taken in outcome.polite.items():
        lines.append(
            f"  meanwhile somebody else at the {to} handler: {_spread(taken)}; {outcome.polite_refused[to]} refused"
        )
    if HAS_PROC:
        lines.append(f"  process before: {outcome.before}")
        lines.append(f"  at most: {outcome.worst}")
        lines.append(f"  after: {outcome.after}")
    lines.append(
        f"  nothing waited {outcome.drain:.2f} s after the last request had come in; as before "
        f"{outcome.recovery:.2f} s after the last answer"
    )
    lines += [f"  FAULT: {fault}" for fault in outcome.faults] or ["  It holds."]
    return "\n".join(lines)


def _spread(seconds: Sequence[float]) -> str:
    if len(seconds) < 2:
        return f"{len(seconds)} of them"
    cuts = statistics.quantiles(seconds, n=100)
    return f"half within {cuts[49]:.3f}, 95 % {cuts[94]:.3f}, 99 % {cuts[98]:.3f}, all {max(seconds):.3f}"


def as_json(outcome: Outcome) -> dict[str, Any]:
    """For programs."""
    answers = outcome.answers
    return {
        "load": str(outcome.plan),
        "offered": answers.created,
        "rate": outcome.rate,
        "capacity": outcome.capacity,
        "answered": answers.answered,
        "refused": answers.refused,
        "lost": answers.failed,
        "handled": outcome.look.handled,
        "latest": max(answers.answered_after, default=0.0),
        "recovery": outcome.recovery,
        "drain": outcome.drain,
        "before": outcome.before._asdict(),
        "worst": outcome.worst._asdict(),
        "after": outcome.after._asdict(),
        "faults": outcome.faults,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--transport", choices=("TCP", "TLS"), nargs="+", default=["TCP", "TLS"])
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 10], metavar="N")
    parser.add_argument("--slowness", type=float, default=0.002, metavar="SECONDS", help="of the handler (0.002)")
    parser.add_argument("--times", type=float, default=10.0, help="the load, in what the handler can take (10)")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long the load lasts (10)")
    parser.add_argument("--size", type=int, default=100, metavar="BYTES", help="of each body (100)")
    parser.add_argument("--mark", type=int, default=1000, metavar="N", help="the high mark of its queue (1000)")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="p2psip-overload-") as name:
        folder = Path(name)
        certificates(folder)
        for transport in arguments.transport:
            for connections in arguments.connections:
                plan = Plan(
                    transport == "TLS",
                    arguments.slowness,
                    arguments.times,
                    arguments.seconds,
                    connections,
                    arguments.size,
                    arguments.mark,
                )
                outcomes.append(run(plan, folder))
                if not arguments.json:
                    print(report(outcomes[-1]), flush=True)
    if arguments.json:
        print(json.dumps([as_json(outcome) for outcome in outcomes]))
    return 1 if any(outcome.faults for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
