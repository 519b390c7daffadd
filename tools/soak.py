"""Let peers call each other, write and subscribe for a long time while all sorts of things go wrong, and see that nothing
is lost and nothing piles up.

    python tools/soak.py --seconds N [--seed N] [--folder FOLDER] [--json]

Three nodes, each a process with an endpoint on mutual TLS and one on TCP, reach each other directly and through relays
that cut connections at random bytes or stand still. Calls (INVITE, INFO, re-INVITE, BYE), messages (some of whose
handlers raise or answer later), subscriptions with their NOTIFYs; connections that the nodes close themselves;
certificates that are renewed and read again, half written too; processes that are stopped for seconds; and strangers
who send garbage, begin handshakes, or never read.

It holds when each request has ended in an answer or in a typed error, each that was accepted was seen by a handler
exactly once and none that was refused by any, nothing was seen that nobody had sent; and when objects, threads,
descriptors and memory are at the end what they were after a first, shorter part. The exit code says so.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from processes import Child, Usage
from soak_faults import Faults, Trouble
from soak_ledger import Account, settle
from soak_node import Census, Node, Pace

from p2psip.testing import CertificateAuthority

MEMORY = 16 * 2**20
"""Bytes that a node may have more at the end, holes in its heap among them, which is not up to us."""
BLOCKS, OCTETS = 5_000, 2 * 2**20
"""What may be in use of a node's heap that was not."""
SLACK = 32
"""Objects of each type that there may be more at the end: the last of what there were thousands of."""
NAMES = ("alice", "bob", "carol")


@dataclasses.dataclass(frozen=True)
class Plan:
    """How long everything takes, in seconds.

    Attributes:
        seconds: The main part.
        warm: The part before it, after which nodes are counted for the first time: heaps take minutes to fill.
        stop: Between two processes that are stopped.
        stopped: How long one is, at most.
        renew: Between two certificates.
        sample: Between two lines of the log.
        t1: Of the settings; None is the usual one.
    """

    seconds: float = 60.0
    warm: float = 60.0
    stop: float = 25.0
    stopped: float = 4.0
    renew: float = 5.0
    sample: float = 30.0
    t1: float | None = None
    names: tuple[str, ...] = NAMES
    pace: Pace = dataclasses.field(default_factory=Pace)
    trouble: Trouble = dataclasses.field(default_factory=Trouble)


QUICK = Plan(
    seconds=1.0,
    warm=0.3,
    stop=0.5,
    stopped=0.3,
    renew=0.2,
    sample=1.0,
    t1=0.01,
    names=NAMES[:2],
    pace=Pace(0.01, 2, 0.05, 0.3, 0.1, 0.1, 20.0, 0.05),
    trouble=Trouble(20_000, 0.1, 0.02, 0.3),
)


@dataclasses.dataclass
class Result:
    """What came out.

    Attributes:
        seconds: Of the main part.
        account: What the books say.
        before, after: The nodes, at rest after the warm part and at the end.
        samples: The nodes meanwhile.
        trouble: How often what went wrong.
        faults: What should not be, in sentences.
    """

    seconds: float
    account: Account
    before: dict[str, Census]
    after: dict[str, Census]
    samples: list[dict[str, Usage]]
    trouble: dict[str, int]
    processor: float
    faults: list[str]


class Soak:
    """The controller. A context manager: processes end with it."""

    def __init__(self, plan: Plan, folder: Path, log: Any, seed: int = 0) -> None:
        self._plan = plan
        self._folder = folder
        self._log = log
        self._random = random.Random(seed)
        self._authority = CertificateAuthority()
        self._trouble: collections.Counter[str] = collections.Counter()
        (folder / "root.pem").write_bytes(self._authority.pem)
        for name in (*plan.names, "mallory"):
            self._renew(name, whole=True)
        self._children = contextlib.ExitStack()
        self.nodes = {
            name: self._children.enter_context(Child(Node, name, folder, list(plan.names), plan.pace, plan.t1, seed))
            for name in plan.names
        }
        self._faults = self._children.enter_context(Child(Faults, folder, plan.trouble, seed))
        self._ways = self._find_ways()

    def __enter__(self) -> Soak:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._children.close()

    def _renew(self, name: str, *, whole: bool) -> None:
        """Another certificate for that one; or half of one, for whoever reads it now."""
        issued = self._authority.issue(f"{name}.example")
        path = self._folder / f"{name}.pem"
        content = issued.pem + issued.key_pem()
        path.touch(0o600)
        path.write_bytes(content if whole else content[: self._random.randrange(len(content))])

    def _find_ways(self) -> dict[str, list[list[int]]]:
        """The ports of each node: directly and through a relay, for TLS and for TCP."""
        ways = {}
        for name, node in self.nodes.items():
            ways[name] = [
                [port, self._faults.call("relay", f"{name}.example", port, is_tls)]
                for port, is_tls in zip(node.call("ports"), (True, False), strict=True)
            ]
        return ways

    def say(self, text: str) -> None:
        print(time.strftime("%H:%M:%S"), text, file=self._log, flush=True)

    def run(self) -> Result:
        """All of it."""
        plan = self._plan
        self._drive(plan.warm, [])
        before = self._rest()
        processor = sum(child.usage().processor for child in self.nodes.values())
        samples: list[dict[str, Usage]] = []
        begun = time.monotonic()
        self._drive(plan.seconds, samples)
        seconds = time.monotonic() - begun
        processor = (sum(child.usage().processor for child in self.nodes.values()) - processor) / seconds
        trouble = {**self._faults.call("rest"), **self._trouble}
        after = self._rest()
        faults = [*_growth(before, after), *self._dispose()]
        account = settle(self._folder / f"{name}.ledger" for name in self.nodes)
        faults += [*account.faults, *self._complaints()]
        return Result(seconds, account, before, after, samples, trouble, processor, faults)

    def _drive(self, seconds: float, samples: list[dict[str, Usage]]) -> None:
        plan = self._plan
        for name, node in self.nodes.items():
            node.call("drive", {other: ports for other, ports in self._ways.items() if other != name})
        self._faults.call("begin")
        now = time.monotonic()
        end, sample, stop, renew = now + seconds, now, now + plan.stop, now + plan.renew
        while (now := time.monotonic()) < end:
            if now >= sample:
                samples.append({name: node.usage() for name, node in self.nodes.items()})
                self.say("; ".join(f"{name} {used}" for name, used in samples[-1].items()))
                sample += plan.sample
            if now >= stop:
                self._stop_one()
                stop += plan.stop
            if now >= renew:
                self._renew_one()
                renew += plan.renew
            time.sleep(max(0.0, min(end, sample, stop, renew) - time.monotonic()))

    def _stop_one(self) -> None:
        """A process stands still for a while."""
        if not hasattr(signal, "SIGSTOP"):
            return
        node = self.nodes[self._random.choice(self._plan.names)]
        self._trouble["processes stopped"] += 1
        os.kill(node.pid, signal.SIGSTOP)
        try:
            time.sleep(self._random.uniform(0.0, self._plan.stopped))
        finally:
            os.kill(node.pid, signal.SIGCONT)

    def _renew_one(self) -> None:
        """One certificate is renewed; it may be read while it is half written, and then there is the whole of it."""
        name = self._random.choice(self._plan.names)
        self._trouble["certificates renewed"] += 1
        if self._random.random() < 0.3:
            self._renew(name, whole=False)
            time.sleep(min(1.0, self._plan.renew / 4))
        self._renew(name, whole=True)

    def _rest(self) -> dict[str, Census]:
        """Everything comes to its end, and is counted."""
        self._faults.call("rest")
        left = [self._together(step) for step in ("stop", "rest")]  # who rests must not be called by who does not
        found: dict[str, Census] = self._together("count")
        for name, census in found.items():
            census.left.extend(sentence for step in left for sentence in step[name])
        for name, census in found.items():
            self.say(
                f"at rest: {name} {census.usage}, {census.heap}, {census.objects.total()} objects;"
                f" {census.left or 'all is over'}"
            )
        return found

    def _together(self, method: str) -> dict[str, Any]:
        """Call it on all nodes at once."""
        for node in self.nodes.values():
            node.begin(method)
        return {name: node.finish() for name, node in self.nodes.items()}

    def _dispose(self) -> list[str]:
        return [
            f"{name}: the thread {thread} has outlived its manager"
            for name, node in self.nodes.items()
            for thread in node.call("dispose")
        ]

    def _complaints(self) -> list[str]:
        """What nodes have logged that they never should: errors, but for those that were asked for."""
        return [
            f"{name} logged: {line[:300]}"
            for name in self.nodes
            for line in (self._folder / f"{name}.log").read_text("utf-8", "replace").splitlines()
            if line.startswith(("ERROR:", "CRITICAL:"))
        ]


def _growth(before: dict[str, Census], after: dict[str, Census]) -> list[str]:
    """What there is more of at the end than there was."""
    faults = []
    for name, now in after.items():
        then = before[name]
        faults += [*then.left, *now.left]
        more = sorted((now.objects - then.objects).items())
        faults += [f"{name}: {count} more objects of {kind}" for kind, count in more if count > SLACK]
        for what, allowed in (("descriptors", 0), ("threads", 0), ("memory", MEMORY)):
            grown = getattr(now.usage, what) - getattr(then.usage, what)
            if grown > allowed:
                faults.append(f"{name}: {what} grew by {grown}")
        if now.heap.blocks - then.heap.blocks > BLOCKS or now.heap.octets - then.heap.octets > OCTETS:
            faults.append(f"{name}: the heap grew from {then.heap} to {now.heap}")
    return faults


def report(result: Result) -> str:
    """For people."""
    lines = [f"{result.seconds:.0f} s, {result.processor:.2f} of one processor for all nodes", ""]
    lines.append("requests (both parts): " + f"{result.account.sent} sent, {result.account.accepted} accepted")
    for kind, outcomes in sorted(result.account.outcomes.items()):
        told = ", ".join(f"{outcome} {count}" for outcome, count in outcomes.most_common())
        lines.append(f"  {kind}: {outcomes.total()} sent, {result.account.seen[kind]} seen; {told}")
    lines.append("trouble:")
    lines += [f"  {what}: {count}" for what, count in sorted(result.trouble.items())]
    for name, then in result.before.items():
        now = result.after[name]
        highest = max((sample[name].memory for sample in result.samples), default=0)
        lines.append(f"{name}, at rest before: {then.usage}, {then.objects.total()} objects of the library")
        lines.append(f"{name}, at rest after:  {now.usage}, {now.objects.total()} objects; at most {highest >> 20} MiB")
        lines.append(f"{name}, heap: {then.heap} before, {now.heap} after")
    lines.append("")
    lines += (
        [*result.faults[:50], f"It does not hold: {len(result.faults)} faults."] if result.faults else ["It holds."]
    )
    return "\n".join(lines)


def as_json(result: Result) -> dict[str, Any]:
    """For programs."""

    def told(found: dict[str, Census]) -> dict[str, Any]:
        return {
            name: {
                **census.usage._asdict(),
                **census.heap._asdict(),
                "objects": census.objects.total(),
                "left": census.left,
            }
            for name, census in found.items()
        }

    return {
        "seconds": result.seconds,
        "processor": result.processor,
        "outcomes": {kind: dict(outcomes) for kind, outcomes in result.account.outcomes.items()},
        "seen": dict(result.account.seen),
        "trouble": result.trouble,
        "before": told(result.before),
        "after": told(result.after),
        "samples": [{name: used._asdict() for name, used in sample.items()} for sample in result.samples],
        "faults": result.faults,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long the main part takes (60)")
    parser.add_argument("--quick", action="store_true", help="a second or two, to see that this tool works")
    parser.add_argument("--folder", type=Path, help="where books, logs and certificates go and stay")
    parser.add_argument("--seed", type=int, default=0, help="of what happens by chance (0)")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    plan = QUICK if arguments.quick else Plan(arguments.seconds, min(300.0, max(30.0, arguments.seconds / 6)))
    with contextlib.ExitStack() as end:
        folder = arguments.folder
        if folder is None:
            folder = Path(end.enter_context(tempfile.TemporaryDirectory(prefix="p2psip-soak-")))
        folder.mkdir(parents=True, exist_ok=True)
        result = end.enter_context(Soak(plan, folder, sys.stderr, arguments.seed)).run()
    print(json.dumps(as_json(result)) if arguments.json else report(result))
    return 1 if result.faults else 0


if __name__ == "__main__":
    sys.exit(main())
