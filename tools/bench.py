"""How fast and how big: p2psip against the plainest thing that could do the same, side by side in one run.

    python tools/bench.py [--only NAME] [--runs N] [--json] [--quick]

Each figure is the median of several runs in which ours and the reference (bench_reference.py) take turns, so that a
machine that is busy otherwise disturbs both; the ratio is what counts. Everything happens on loopback over mutual TLS
with certificates made for the run, each side in a process of its own:

exchanges   MESSAGE (800 bytes) and its 200 (400), 100 in flight over one connection, against blobs of the same sizes with
            one send for each and one recv each time that the selector says so. No targets, but worth knowing: "drained"
            reads until nothing is left before it selects again, "joined" does that and joins what it writes.
round-trip  The same, one at a time.
codec       Framing and parsing that MESSAGE, reading what routes it, and writing its 200, against a bare split of its
            head into a dictionary.
handshakes  Mutual handshakes, each followed by one exchange that shows that both sides accepted, 8 at a time.
memory      What an idle incoming connection costs in resident memory, after one exchange. Linux only.
idle        The cost of one exchange with 1,000 idle connections open, against the same with none but its own.
calls       Setting up a call, INVITE to ACK, with 5,000 calls up, against the same with none; both ours. What a call
            costs in resident memory on either side is said besides (Linux only).

handshakes, memory and idle raise the limits per remote address by settings; everything else is as it is by default.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import ipaddress
import json
import os
import platform
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench_calls import Callee, Caller
from bench_peers import NAME, OurClient, OurServer, Peer, wide
from bench_reference import ANSWER, REQUEST, ReferenceClient, ReferenceServer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from p2psip.message import Request, SipUri, StreamFramer, create_response

HAS_STATM = Path("/proc/self/statm").exists()
DEPTH = 100
PARALLEL = 8


@dataclasses.dataclass(frozen=True)
class Plan:
    """How much is measured."""

    runs: int = 5
    seconds: float = 1.0
    """Of one run of what is measured by time."""
    handshakes: int = 150
    held: int = 300
    """Connections that memory is measured with, in each run."""
    idle: int = 1000
    calls: int = 5000
    """That are up at once."""
    set_up: int = 200
    """Of them, the first and the last that are timed."""


COLUMNS = ("ours", "reference", "drained", "joined")
QUICK = Plan(runs=1, seconds=0.05, handshakes=4, held=60, idle=10, calls=40, set_up=10)


@dataclasses.dataclass
class Row:
    """One line of the table; the lists have one value for each run."""

    name: str
    unit: str
    ours: list[float]
    reference: list[float]
    target: float
    at_least: bool
    drained: list[float] = dataclasses.field(default_factory=list)
    joined: list[float] = dataclasses.field(default_factory=list)

    @property
    def ratio(self) -> float:
        return statistics.median(self.ours) / statistics.median(self.reference)

    @property
    def ok(self) -> bool:
        return self.ratio >= self.target if self.at_least else self.ratio <= self.target

    def as_json(self) -> dict[str, Any]:
        runs = {column: values for column in COLUMNS if (values := getattr(self, column))}
        return {
            "name": self.name,
            "unit": self.unit,
            **{column: statistics.median(values) for column, values in runs.items()},
            "ratio": self.ratio,
            "target": f"{'>=' if self.at_least else '<='} {self.target:g}",
            "ok": self.ok,
            "runs": runs,
        }


# ---------------------------------------------------------------------- measurements


def alternate(runs: int, *measures: Callable[[], float]) -> list[list[float]]:
    """The measures in turn, so many times; a list of values for each."""
    values: list[list[float]] = [[] for _ in measures]
    for _ in range(runs):
        for taken, measure in zip(values, measures, strict=True):
            taken.append(measure())
    return values


@contextlib.contextmanager
def pairs(folder: Path, *references: dict[str, bool]) -> Iterator[list[Callable[[int, float], float]]]:
    """Exchanges per second as functions of depth and seconds: ours first, then each kind of reference."""
    with contextlib.ExitStack() as stack:
        peers = [(stack.enter_context(Peer(OurServer, folder)), stack.enter_context(Peer(OurClient, folder)))]
        peers += [
            (
                stack.enter_context(Peer(ReferenceServer, folder, **kind)),
                stack.enter_context(Peer(ReferenceClient, folder, **kind)),
            )
            for kind in references
        ]
        server, client = peers[0]
        sent, received = client.call("fit", server.call("port"))
        say(f"  MESSAGE {sent} bytes, answer {received}; the reference's blobs {len(REQUEST)} and {len(ANSWER)}")
        rates = [rate(client, server.call("port")) for server, client in peers]
        for measure in rates:
            measure(1, 0.1)
        tls = [client.call("tls") for _, client in peers]
        if len(set(tls)) > 1:
            raise SystemExit(f"bench: the connections to compare differ: {tls}.")
        say(f"  {' '.join(tls[0])}")
        yield rates


def rate(client: Peer, port: int) -> Callable[[int, float], float]:
    def measure(depth: int, seconds: float) -> float:
        done, taken = client.call("exchange", port, depth, seconds)
        return float(done / taken)

    return measure


def exchanges(plan: Plan, folder: Path) -> Row:
    with pairs(folder, {}, {"drain": True}, {"drain": True, "joined": True}) as rates:
        ours, *references = alternate(plan.runs, *(partial(r, DEPTH, plan.seconds) for r in rates))
    return Row("exchanges", "/s", ours, references[0], 0.15, True, *references[1:])


def round_trip(plan: Plan, folder: Path) -> Row:
    with pairs(folder, {}) as rates:
        ours, reference = alternate(plan.runs, *(partial(r, 1, plan.seconds) for r in rates))
    return Row("round-trip", "µs", microseconds(ours), microseconds(reference), 4.0, False)


def microseconds(per_second: list[float]) -> list[float]:
    return [1e6 / value for value in per_second]


def codec(plan: Plan, folder: Path) -> Row:
    messages = [message(number) for number in range(100)]
    framer = StreamFramer()

    def ours() -> None:
        for data in messages:
            (request,) = framer.feed(data)
            assert isinstance(request, Request)
            via = request.top_via
            _ = (via.branch, via.sent_by, request.call_id, request.cseq, request.from_tag, request.to_tag)
            uri = request.request_uri
            _ = uri.user if isinstance(uri, SipUri) else None
            create_response(request, 200, to_tag="8f14e45fceea167a").to_bytes()

    def bare() -> None:
        for data in messages:
            head = data.partition(b"\r\n\r\n")[0]
            dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])

    def each(function: Callable[[], None]) -> float:
        done, begun = 0, time.perf_counter()
        end = begun + plan.seconds / 2
        while time.perf_counter() < end:
            function()
            done += len(messages)
        return (time.perf_counter() - begun) / done * 1e6

    ours_values, bare_values = alternate(plan.runs, partial(each, ours), partial(each, bare))
    return Row("codec", "µs", ours_values, bare_values, 5.0, False)


def message(number: int) -> bytes:
    """A MESSAGE as our endpoints send it, 800 bytes in all."""
    head = (
        f"MESSAGE sip:user{number:02}@127.0.0.1:45061;transport=tls SIP/2.0\r\n"
        f"Via: SIP/2.0/TLS {NAME}:40000;branch=z9hG4bK8f14e45fceea167a5a{number:02}\r\n"
        "Max-Forwards: 70\r\n"
        f"From: <sip:alice@example.com>;epid=1f0e3dad99;tag=c9f0f895fb98ab{number:02}\r\n"
        f"To: <sip:user{number:02}@127.0.0.1:45061;transport=tls>\r\n"
        f"Call-ID: 45c48cce2e2d7fbdea1afc51c7c6ad{number:02}\r\n"
        "CSeq: 1 MESSAGE\r\n"
        "User-Agent: p2psip/0.1.0\r\n"
        "Content-Type: text/plain\r\n"
        "Content-Length: 000\r\n\r\n"
    )
    body = "x" * (len(REQUEST) - len(head))
    return (head.replace("Content-Length: 000", f"Content-Length: {len(body):03}") + body).encode()


OPTIONS = b"""OPTIONS sip:bob@127.0.0.1 SIP/2.0
Via: SIP/2.0/TLS 127.0.0.1:9;branch=z9hG4bKbenchNUMBER
Max-Forwards: 70
From: <sip:carol@example.com>;tag=benchNUMBER
To: <sip:bob@127.0.0.1>
Call-ID: benchNUMBER
CSeq: 1 OPTIONS
Content-Length: 0

""".replace(b"\n", b"\r\n")


def handshakes(plan: Plan, folder: Path) -> Row:
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
    return Row("handshakes", "/s", ours, reference, 0.8, True)


def memory(plan: Plan, folder: Path) -> Row | None:
    if not HAS_STATM:
        say("memory is left out: this system has no /proc/self/statm.")
        return None
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
                one.call("open", port, plan.held, PARALLEL, request)
                growth: int = other.call("resident") - before
                return growth / plan.held / 1024

            one.call("open", port, PARALLEL, PARALLEL, request)
            return measure

        ours, reference = alternate(
            plan.runs, kibibytes(our_holder, our_server, OPTIONS), kibibytes(holder, server, REQUEST)
        )
    return Row("memory", "KiB", ours, reference, 1.5, False)


def idle(plan: Plan, folder: Path) -> Row:
    with (
        Peer(OurServer, folder, settings=wide()) as crowded,
        Peer(OurServer, folder, settings=wide()) as quiet,
        Peer(OurClient, folder) as client,
        Peer(ReferenceClient, folder) as holder,
    ):
        holder.call("open", crowded.call("port"), plan.idle, PARALLEL, OPTIONS)
        measures = [rate(client, server.call("port")) for server in (crowded, quiet)]
        for measure in measures:
            measure(1, 0.1)
        ours, reference = alternate(plan.runs, *(partial(m, 1, plan.seconds) for m in measures))
    return Row("idle", "µs", microseconds(ours), microseconds(reference), 1.2, False)


def calls(plan: Plan, folder: Path) -> Row:
    ours, reference = [], []
    for _ in range(min(plan.runs, 3)):
        with Peer(Callee, folder) as callee, Peer(Caller, folder) as caller:
            port = callee.call("port")
            caller.call("place", port, plan.set_up)
            caller.call("hang_up")
            sides = (caller, callee)
            before = [side.call("resident") for side in sides] if HAS_STATM else []
            reference.append(caller.call("place", port, plan.set_up) * 1e6)
            caller.call("place", port, plan.calls - 2 * plan.set_up)
            ours.append(caller.call("place", port, plan.set_up) * 1e6)
            growth = [side.call("resident") - size for side, size in zip(sides, before, strict=False)]
            up = caller.call("hang_up")
            if up != plan.calls:
                raise SystemExit(f"bench: {up} of {plan.calls} calls were up.")
            if growth:
                say(
                    "  a call: {:.1f} KiB at the caller, {:.1f} KiB at the callee".format(
                        *(g / up / 1024 for g in growth)
                    )
                )
    return Row("calls", "µs", ours, reference, 1.3, False)


MEASUREMENTS: dict[str, Callable[[Plan, Path], Row | None]] = {
    "exchanges": exchanges,
    "round-trip": round_trip,
    "codec": codec,
    "handshakes": handshakes,
    "memory": memory,
    "idle": idle,
    "calls": calls,
}


# ---------------------------------------------------------------------- certificates, table, command line


def make_certificates(folder: Path) -> None:
    """``root.pem``, and ``leaf.pem`` with its key, which both sides show."""
    now = datetime.datetime.now(datetime.timezone.utc)
    root_key, leaf_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "p2psip bench")])

    def unsigned(subject: x509.Name, key: ec.EllipticCurvePrivateKey, authority: bool) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=2))
            .add_extension(x509.BasicConstraints(authority, None), critical=True)
        )

    names = [x509.DNSName(NAME), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    root = unsigned(issuer, root_key, True).sign(root_key, hashes.SHA256())
    leaf = (
        unsigned(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)]), leaf_key, False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(root_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    key = leaf_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "root.pem").write_bytes(root.public_bytes(pem))
    (folder / "leaf.pem").write_bytes(leaf.public_bytes(pem) + key)
    (folder / "leaf.pem").chmod(0o600)


def table(rows: list[Row]) -> str:
    lines = [("", *COLUMNS, "ratio", "target", "ok")]
    for row in rows:
        entry = row.as_json()
        figures = [figure(entry[column], row.unit) if column in entry else "" for column in COLUMNS]
        lines.append((row.name, *figures, f"{row.ratio:.3f}", entry["target"], "yes" if row.ok else "NO"))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        f"{name.ljust(widths[0])}  " + "  ".join(map(str.rjust, cells, widths[1:])) for name, *cells in lines
    )


def figure(value: float, unit: str) -> str:
    return f"{value:,.{0 if value >= 100 else 1}f} {unit}"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compares p2psip with bare ssl; see the top of this file.")
    parser.add_argument("--only", action="append", choices=MEASUREMENTS, metavar="NAME", help=", ".join(MEASUREMENTS))
    parser.add_argument("--runs", type=int, help=f"of each measurement; {Plan.runs} by default")
    parser.add_argument("--json", action="store_true", help="for a script, with the values of each run")
    parser.add_argument("--quick", action="store_true", help="a look whether the tool works; its figures mean nothing")
    arguments = parser.parse_args()
    plan = QUICK if arguments.quick else Plan()
    if arguments.runs:
        plan = dataclasses.replace(plan, runs=arguments.runs)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        make_certificates(Path(folder))
        for name in arguments.only or MEASUREMENTS:
            say(f"{name} ...")
            row = MEASUREMENTS[name](plan, Path(folder))
            if row is not None:
                rows.append(row)
    system = {"python": platform.python_version(), "openssl": ssl.OPENSSL_VERSION, "processors": os.cpu_count()}
    if arguments.json:
        print(json.dumps({**system, "runs": plan.runs, "rows": [row.as_json() for row in rows]}, indent=2))
    else:
        print(", ".join(f"{k} {v}" for k, v in system.items()))
        print(table(rows))


if __name__ == "__main__":
    main()
