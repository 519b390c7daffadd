"""How fast and how big: p2psip against the plainest thing that could do the same, side by side in one run.

    python tools/bench.py [--only NAME] [--runs N] [--json] [--quick]

Each figure is the median of several runs in which ours and the reference (bench_reference.py) take turns, so that a
machine that is busy otherwise disturbs both; the ratio is what counts. Everything happens on loopback over mutual TLS,
or over TCP where a name ends so, with certificates made for the run, each side in a process of its own:

exchanges     MESSAGE (800 bytes) and its 200 (400), 100 in flight over one connection, begun on one thread, against
              blobs of the same sizes with one send for each and one recv each time that the selector says so. No
              targets, but worth knowing: "drained" reads until nothing is left before it selects again, "joined" does
              that and joins what it writes. Also exchanges-tcp.
round-trip    The same, one at a time. Also round-trip-tcp.
threads       The same from 8 threads that send and wait, against the reference with 8 in flight. Also threads-tcp.
cpu           Seconds of processor time for 100,000 messages, half of which are answers, 100 in flight: both sides
              together, then each. Also over TCP.
codec         Framing and parsing that MESSAGE, reading what routes it, and writing its 200, against a bare split of its
              head into a dictionary.
parse         The first half of that.
serialise     Writing that MESSAGE from its parts, against joining them.
calls         Whole calls (INVITE, 180, 200, ACK, BYE, 200) with 100 under way, against the reference's exchanges with
              100 in flight. Also over TCP.
handshakes    Mutual handshakes, each followed by one exchange that shows that both sides accepted, 8 at a time.
memory        What an idle incoming connection costs in resident memory, after one exchange. Linux only.
idle          The cost of an exchange with 10,000 idle connections open, against the same with none but its own: one at
              a time, and of many. Both ours, as in what follows. Their memory is said besides (Linux only).
transactions  The cost of an exchange with 100,000 transactions on either side that wait for their answers, against the
              same with none.
dialogs       The cost of a message within a call with 5,000 calls up, against the same with 200; and that of setting up
              a call. What a call costs in resident memory on either side is said besides (Linux only).
beside        Exchanges as above beside SIPp (C++; its TLS is stunnel's) and PJSIP's Python binding, as far as they are
              installed: how many a second, one at a time, and processor time as of cpu.

handshakes, memory and idle raise the limits per remote address by settings, transactions those of transactions and
their times; everything else is as it is by default.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import ssl
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench_beside import beside
from bench_calls import calls
from bench_codec import codec, parse, serialise
from bench_exchanges import exchanges, exchanges_tcp, processor, round_trip, threads
from bench_many import dialogs, handshakes, idle, memory, transactions
from bench_peers import make_certificates
from bench_table import QUICK, Plan, Row, say, table

MEASUREMENTS: dict[str, Callable[[Plan, Path], list[Row]]] = {
    "exchanges": exchanges,
    "exchanges-tcp": exchanges_tcp,
    "round-trip": round_trip,
    "round-trip-tcp": partial(round_trip, transport="TCP"),
    "threads": threads,
    "cpu": processor,
    "codec": codec,
    "parse": parse,
    "serialise": serialise,
    "calls": calls,
    "handshakes": handshakes,
    "memory": memory,
    "idle": idle,
    "transactions": transactions,
    "dialogs": dialogs,
    "beside": beside,
}


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
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        make_certificates(Path(folder))
        for name in arguments.only or MEASUREMENTS:
            say(f"{name} ...")
            rows += MEASUREMENTS[name](plan, Path(folder))
    system = {"python": platform.python_version(), "openssl": ssl.OPENSSL_VERSION, "processors": os.cpu_count()}
    if arguments.json:
        print(json.dumps({**system, "runs": plan.runs, "rows": [row.as_json() for row in rows]}, indent=2))
    else:
        print(", ".join(f"{k} {v}" for k, v in system.items()))
        print(table(rows))


if __name__ == "__main__":
    main()
