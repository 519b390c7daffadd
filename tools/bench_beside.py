"""What bench.py measures of others that do the same work on the same machine: SIPp, and PJSIP's Python binding."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from bench_exchanges import DEPTH, Run, both, pairs
from bench_reference import REQUEST
from bench_table import Plan, Row, alternate, microseconds, say

LOOPBACK = "127.0.0.1"
HAS_PROC = Path("/proc/self/stat").exists()
AHEAD_OF = ("pjsip",)
"""Those that ours should beat."""
PATIENCE = 60.0
"""Seconds after which a program hangs."""

CLIENT = """<?xml version="1.0" encoding="us-ascii"?>
<scenario name="client"><send><![CDATA[

MESSAGE sip:bob@[remote_ip]:[remote_port];transport=tcp SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
Max-Forwards: 70
From: <sip:alice@example.com>;tag=[pid]a[call_number]
To: <sip:bob@example.com>
Call-ID: [call_id]
CSeq: 1 MESSAGE
User-Agent: SIPp
Content-Type: text/plain
Content-Length: [len]

PADDING
]]></send><recv response="200"/></scenario>
""".replace("PADDING", "x" * 476)
"""Makes about 800 bytes."""
SERVER = """<?xml version="1.0" encoding="us-ascii"?>
<scenario name="server"><recv request="MESSAGE"/><send><![CDATA[

SIP/2.0 200 OK
[last_Via:]
[last_From:]
[last_To:];tag=[pid]b[call_number]
[last_Call-ID:]
[last_CSeq:]
User-Agent: PADDING
Content-Length: 0

]]></send></scenario>
""".replace("PADDING", "x" * 130)
"""Makes about 400 bytes."""


def processor(pid: int) -> float:
    """Seconds of processor time of a process so far; 0 where there is no /proc."""
    path = Path(f"/proc/{pid}/stat")
    if not HAS_PROC:
        return 0.0
    user, system = path.read_text(encoding="ascii").rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.create_server((LOOPBACK, 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


@contextlib.contextmanager
def program(
    *words: str | Path, folder: Path, port: int | None = None, **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """A program that runs until the block is over; it has begun when something listens on that port."""
    process = subprocess.Popen(words, cwd=folder, stderr=subprocess.DEVNULL, **options)
    try:
        if port is not None:
            wait_for(process, port)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            process.wait(PATIENCE)


def wait_for(process: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), 1.0):
            return
        if process.poll() is not None or time.monotonic() > end:
            raise SystemExit(f"bench: {process.args[0]} does not listen.")  # type: ignore[index]
        time.sleep(0.02)


class Sipp:
    """SIPp at both ends; over TLS it has a stunnel on either side, which count as theirs."""

    def __init__(self, folder: Path, transport: str, end: contextlib.ExitStack) -> None:
        self._folder = folder
        for name, text in (("client", CLIENT), ("server", SERVER)):
            (folder / f"{name}.xml").write_text(text, encoding="ascii")
        port = free_port()
        words = ("sipp", "-sf", "server.xml", "-i", LOOPBACK, "-p", str(port), "-t", "t1", "-nostdin")
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "folder": folder}
        self._servers = [end.enter_context(program(*words, port=port, **quiet))]
        self._tunnels = []
        if transport == "TLS":
            for name, sides in (("server", self._servers), ("client", self._tunnels)):
                accept, connect = free_port(), port
                configuration = folder / f"stunnel-{name}.conf"
                configuration.write_text(
                    f"foreground = yes\ndebug = err\npid =\nsyslog = no\n[sip]\n"
                    f"client = {'yes' if name == 'client' else 'no'}\n"
                    f"accept = {LOOPBACK}:{accept}\nconnect = {LOOPBACK}:{connect}\nverifyChain = yes\n"
                    f"CAfile = {folder / 'root.pem'}\ncert = {folder / 'leaf.pem'}\nkey = {folder / 'leaf.pem'}\n",
                    encoding="utf-8",
                )
                sides.append(end.enter_context(program(stunnel() or "", configuration, port=accept, **quiet)))
                port = accept
        self._port = port

    def run(self, messages: int) -> Run:
        before = [sum(processor(one.pid) for one in side) for side in (self._tunnels, self._servers)]
        statistics = self._folder / "sipp.csv"
        statistics.unlink(missing_ok=True)
        words = ["sipp", "-sf", "client.xml", "-i", LOOPBACK, "-t", "t1", "-m", str(messages), "-l", str(DEPTH)]
        words += ["-r", "100000", "-nostdin", "-trace_stat", "-fd", "3600", "-stf", statistics.name]
        words += ["-timeout", f"{PATIENCE:g}s", f"{LOOPBACK}:{self._port}"]
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "folder": self._folder}
        with program(*words, **quiet) as client:
            _, status, usage = os.wait4(client.pid, 0)
            client.returncode = os.waitstatus_to_exitcode(status)
        *_, last = csv.DictReader(statistics.read_text(encoding="ascii").splitlines(), delimiter=";")
        done = int(last["SuccessfulCall(C)"])
        if client.returncode or done != messages:
            raise SystemExit(f"bench: of {messages} messages SIPp got {done} answered (exit code {client.returncode}).")
        after = [sum(processor(one.pid) for one in side) for side in (self._tunnels, self._servers)]
        spent = [late - early for early, late in zip(before, after, strict=True)]
        spent[0] += usage.ru_utime + usage.ru_stime
        return Run(float(last["CallRate(C)"]), *(seconds / messages for seconds in spent))


class PjsipSide:
    """An agent of bench_pjsip.py."""

    def __init__(self, python: str, folder: Path, transport: str, end: contextlib.ExitStack) -> None:
        tls = {"roots": str(folder / "root.pem"), "certificate": str(folder / "leaf.pem")}
        words = [
            python,
            Path(__file__).with_name("bench_pjsip.py"),
            json.dumps({"tls": tls if transport == "TLS" else None}),
        ]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = end.enter_context(program(*words, folder=folder, **pipes))
        end.callback(self._close)
        self.address = self._answer()

    def _close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        ready = select.select([self._process.stdout], [], [], PATIENCE)[0]
        line = self._process.stdout.readline() if ready else b""
        if not line:
            raise SystemExit("bench: PJSIP gives no answer.")
        return json.loads(line)

    def call(self, *words: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(words).encode() + b"\n")
        self._process.stdin.flush()
        return self._answer()


class Pjsip:
    """PJSIP at both ends."""

    def __init__(self, folder: Path, transport: str, end: contextlib.ExitStack) -> None:
        python = find_pjsip()
        assert python is not None
        self._server, self._client = (PjsipSide(python, folder, transport, end) for _ in range(2))
        self._size = 300
        self._server.call("measure", True)
        self.run(1, 0.05)
        self._size += len(REQUEST) - self._server.call("measure", False)

    def run(self, depth: int, seconds: float) -> Run:
        before = [side.call("processor") for side in (self._client, self._server)]
        done, failed, taken = self._client.call("exchange", self._server.address, self._size, depth, seconds)
        if failed:
            raise SystemExit(f"bench: {failed} messages of PJSIP failed.")
        after = [side.call("processor") for side in (self._client, self._server)]
        spent = ((late - early) / (done + depth) for early, late in zip(before, after, strict=True))
        return Run(done / taken, *spent)


def stunnel() -> str | None:
    return shutil.which("stunnel4") or shutil.which("stunnel")


def find_pjsip() -> str | None:
    """A Python that has its binding: this one, or that of ``tools/environment.py --peers``."""
    peers = Path(__file__).resolve().parent.parent / ".venv-peers" / "bin" / "python"
    for python in (sys.executable, str(peers)):
        if (
            Path(python).exists()
            and not subprocess.run([python, "-c", "import pjsua2"], capture_output=True).returncode
        ):
            return python
    return None


def others(folder: Path, transport: str, end: contextlib.ExitStack) -> dict[str, Any]:
    """Those that are installed."""
    found: dict[str, Any] = {}
    if shutil.which("sipp") is None or (transport == "TLS" and stunnel() is None):
        say("  SIPp is left out: it is not installed, or for TLS stunnel is not")
    else:
        found["sipp"] = Sipp(folder, transport, end)
    if find_pjsip() is None:
        say("  PJSIP is left out: `python3 tools/environment.py --peers` installs it")
    else:
        found["pjsip"] = Pjsip(folder, transport, end)
    return found


def beside(plan: Plan, folder: Path) -> list[Row]:
    rows: list[Row] = []
    for ending, transport in (("", "TLS"), ("-tcp", "TCP")):
        with contextlib.ExitStack() as end:
            ours, reference = end.enter_context(pairs(folder, transport, {}))
            there = others(folder, transport, end)
            many: dict[str, Callable[[], Run]] = {
                "ours": partial(ours.run, plan.seconds, "exchange", DEPTH),
                "reference": partial(reference.run, plan.seconds, "exchange", DEPTH),
            }
            single = {
                "ours": partial(ours.run, plan.seconds, "exchange", 1),
                "reference": partial(reference.run, plan.seconds, "exchange", 1),
            }
            if "sipp" in there:
                many["sipp"] = partial(there["sipp"].run, plan.messages)
            if "pjsip" in there:
                many["pjsip"] = partial(there["pjsip"].run, DEPTH, plan.seconds)
                single["pjsip"] = partial(there["pjsip"].run, 1, plan.seconds)
            runs = dict(zip(many, alternate(plan.runs, *many.values()), strict=True))
            alone = dict(zip(single, alternate(plan.runs, *single.values()), strict=True))

        def row(name: str, unit: str, values: dict[str, list[float]], more: bool, ending: str = ending) -> None:
            first = [values.pop(column) for column in ("ours", "reference")]
            rows.append(
                Row(name + ending, unit, *first, None, more, values, [name for name in values if name in AHEAD_OF])
            )

        row("beside", "/s", {name: [run.rate for run in all_runs] for name, all_runs in runs.items()}, True)
        one = {name: microseconds([run.rate for run in all_runs]) for name, all_runs in alone.items()}
        row("beside-round-trip", "µs", one, False)
        if not HAS_PROC:  # what its processes have spent is nowhere to be read
            runs.pop("sipp", None)
        row("beside-cpu", "s", {name: [both(run) for run in all_runs] for name, all_runs in runs.items()}, False)
    return rows
