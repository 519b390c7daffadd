"""What overload.py sets against each other: an endpoint with a slow handler, somebody who asks politely meanwhile, and
SIPp, which does not."""

from __future__ import annotations

import csv
import dataclasses
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import p2psip

LOOPBACK = "127.0.0.1"
OURS, THEIRS, POLITE = "server.example", "sipp.example", "polite.example"
PATIENCE = 120.0
"""Seconds after which something hangs."""
SCENARIO = """<?xml version="1.0" encoding="UTF-8"?>
<scenario name="overload">
  <nop start_rtd="2"/>
  <send start_rtd="1">
    <![CDATA[
      MESSAGE sip:slow@{host} SIP/2.0
      Via: SIP/2.0/{transport} [local_ip]:[local_port];branch=[branch];rport
      From: <sip:sipp@{peer}>;tag=[pid]-[call_number]
      To: <sip:slow@{host}>
      Call-ID: [call_id]
      CSeq: 1 MESSAGE
      Max-Forwards: 70
      Content-Type: text/plain
      Content-Length: [len]

      number [call_number] {body}
    ]]>
  </send>
  <recv response="100" optional="true"/>
  <recv response="503" optional="true" rtd="2" next="1" counter="refused">
    <action>
      <ereg regexp="^ *[0-9]+ *$" search_in="hdr" header="Retry-After:" check_it="true" assign_to="later"/>
    </action>
  </recv>
  <recv response="200" rtd="1" counter="answered"/>
  <label id="1"/>
  <Reference variables="later"/>
</scenario>
"""


class Server:
    """An endpoint whose handler takes its time, and one beside it whose handler does not.

    Args:
        folder: Has ``server.example.pem`` and ``root.pem``; None is TCP.
        slowness: Seconds that the handler takes.
    """

    def __init__(self, folder: Path | None, slowness: float, settings: dict[str, Any]) -> None:
        self._manager = manager(folder, OURS, p2psip.ManagerSettings(**settings))
        self._manager.start_listening((LOOPBACK, 0))
        self._slow = p2psip.SipPeerToPeerEndpoint(f"sip:slow@{OURS}", self._manager)
        self._fast = p2psip.SipPeerToPeerEndpoint(f"sip:fast@{OURS}", self._manager)
        self._slowness = slowness
        self._handled = 0
        self._disordered = 0
        self._last: dict[int, int] = {}
        self._times: list[float] = []
        self._others: set[int] = set()
        self._slow.message_received += self._take_time
        self._fast.message_received += self._note

    def _note(self, sender: object, args: p2psip.MessageReceivedEventArgs) -> None:
        self._others.add(args.connection.id)

    def _take_time(self, sender: object, args: p2psip.MessageReceivedEventArgs) -> None:
        time.sleep(self._slowness)
        word, _, rest = (args.text_body or "").partition(" ")
        if word == "number":
            self._handled += 1
            self._times.append(time.monotonic())
            number, connection = int(rest.partition(" ")[0]), args.connection.id
            self._disordered += number < self._last.get(connection, 0)
            self._last[connection] = number

    def port(self) -> int:
        return self._manager.listening_port

    def rate(self) -> float:
        """Requests a second that the handler has taken so far."""
        return (len(self._times) - 1) / (self._times[-1] - self._times[0])

    def look(self) -> Look:
        """How things are."""
        counts = self._manager._stack.pressure.counts
        connections = [each for each in self._manager.connections() if each.id not in self._others]
        received = sum(connection.messages_received for connection in connections)
        return Look(self._handled, self._disordered, counts["refused"], received, self._slow._strand.depth)


@dataclasses.dataclass(frozen=True)
class Look:
    """What a server sees of its load.

    Attributes:
        handled: Requests of SIPp that the handler is through with.
        disordered: Of them, those that came before one that was sent earlier over the same connection.
        refused: That were answered 503.
        received: Messages of SIPp over the connections of just now.
        waiting: For the handler.
    """

    handled: int
    disordered: int
    refused: int
    received: int
    waiting: int

    def __sub__(self, other: Look) -> Look:
        """What has happened since."""
        return Look(
            self.handled - other.handled,
            self.disordered - other.disordered,
            self.refused - other.refused,
            self.received,
            self.waiting,
        )


class Polite:
    """Sends one request, waits for the answer, and pauses; to the slow handler and to the fast one in turn."""

    def __init__(self, folder: Path | None, port: int) -> None:
        self._manager = manager(folder, POLITE, p2psip.ManagerSettings())
        self._endpoint = p2psip.SipPeerToPeerEndpoint(f"sip:polite@{POLITE}", self._manager)
        self._port = port
        self._transport = "tcp" if folder is None else "tls"
        self._options = p2psip.SendMessageOptions(tls_target_name=OURS)
        self._over = threading.Event()
        self._taken: dict[str, list[float]] = {"slow": [], "fast": []}
        self._refused = {"slow": 0, "fast": 0}
        self._failures: list[str] = []
        self._threads: list[threading.Thread] = []

    def ask(self, to: str) -> float:
        """One request. Seconds until its answer."""
        begun = time.monotonic()
        address = f"sip:{to}@{OURS}:{self._port};transport={self._transport}"
        self._endpoint.send_message(
            p2psip.MessageType.MESSAGE,
            address,
            body="please",
            options=dataclasses.replace(
                self._options, connection_context=p2psip.ConnectionContext(LOOPBACK, self._port)
            ),
        )
        return time.monotonic() - begun

    def begin(self, pause: float) -> None:
        """Ask both, again and again."""
        self._over.clear()
        self._threads = [threading.Thread(target=self._repeat, args=(to, pause), daemon=True) for to in self._taken]
        for thread in self._threads:
            thread.start()

    def _repeat(self, to: str, pause: float) -> None:
        while not self._over.wait(pause):
            try:
                self._taken[to].append(self.ask(to))
            except p2psip.FailureResponseException as error:
                self._refused[to] += int(error.response_data.response_code) == 503
            except p2psip.RealTimeException as error:
                self._failures.append(str(error))

    def finish(self) -> tuple[dict[str, list[float]], dict[str, int], list[str]]:
        """Seconds that the answers took, how many were refused, and what failed."""
        self._over.set()
        for thread in self._threads:
            thread.join(PATIENCE)
        return self._taken, self._refused, self._failures


def manager(
    folder: Path | None, host: str, settings: p2psip.ManagerSettings
) -> p2psip.RealTimeServerTcpConnectionManager | p2psip.RealTimeServerTlsConnectionManager:
    if folder is None:
        return p2psip.RealTimeServerTcpConnectionManager(host, settings=settings)
    return p2psip.RealTimeServerTlsConnectionManager.from_files(
        folder / f"{host}.pem", trusted_roots=folder / "root.pem", settings=settings
    )


def program(package: str, *names: str) -> str:
    """The path of a program."""
    for name in names:
        path = shutil.which(name, path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin")
        if path is not None:
            return path
    raise SystemExit(f"{names[0]} is not installed here; on Debian and Ubuntu it is in the package {package}.")


class Stunnel:
    """Carries what SIPp says over mutual TLS. A context manager."""

    def __init__(self, folder: Path, port: int) -> None:
        own = Path(tempfile.mkdtemp(prefix="stunnel-", dir=folder))
        configuration, self._log = own / "stunnel.conf", own / "stunnel.log"
        lines = ["foreground = yes", "debug = info", "pid =", "syslog = no", f"output = {self._log}", "[sip]"]
        lines += ["client = yes", f"accept = {LOOPBACK}:0", f"connect = {LOOPBACK}:{port}"]
        lines += [f"CAfile = {folder / 'root.pem'}", "verifyChain = yes", f"cert = {folder / (THEIRS + '.pem')}"]
        configuration.write_text("\n".join(lines) + "\n", encoding="utf-8")
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(
            [program("stunnel4", "stunnel4", "stunnel"), str(configuration)], stdin=quiet, stdout=quiet, stderr=quiet
        )
        self.port = self._find_port()

    def _find_port(self) -> int:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and self._process.poll() is None:
            text = self._log.read_text("utf-8", "replace") if self._log.exists() else ""
            if (match := re.search(rf"bound to {re.escape(LOOPBACK)}:(\d+)\s", text)) is not None:
                return int(match[1])
            time.sleep(0.02)
        raise SystemExit(f"stunnel does not listen; see {self._log}.")

    def __enter__(self) -> Stunnel:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.kill()
        self._process.wait(PATIENCE)


@dataclasses.dataclass
class Answers:
    """What SIPp counted.

    Attributes:
        created: Requests.
        answered, refused: 200, and 503 with Retry-After.
        failed: Any other answer, or none.
        answered_after, refused_after: Seconds, for each of them.
        errors: What it complained of.
    """

    created: int = 0
    answered: int = 0
    refused: int = 0
    failed: int = 0
    answered_after: list[float] = dataclasses.field(default_factory=list)
    refused_after: list[float] = dataclasses.field(default_factory=list)
    errors: str = ""

    def __iadd__(self, other: Answers) -> Answers:
        for field in dataclasses.fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))
        return self


class Sipp:
    """SIPp as the load: so many MESSAGEs a second over one connection, whatever becomes of them. A context manager.

    Args:
        folder: Where its files go.
        port: Where to.
        rate: Requests a second.
        count: Of all requests.
        size: Bytes of each body.
        in_flight: So many wait for an answer at a time; None is all that rate and count demand.
    """

    def __init__(
        self,
        folder: Path,
        port: int,
        *,
        secure: bool,
        rate: int,
        count: int,
        size: int,
        in_flight: int | None = None,
    ) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="sipp-", dir=folder))
        scenario = self._folder / "overload.xml"
        text = SCENARIO.format(host=OURS, peer=THEIRS, transport="TLS" if secure else "TCP", body="x" * size)
        scenario.write_text(text, encoding="utf-8")
        command = [program("sip-tester", "sipp"), "-sf", str(scenario), "-i", LOOPBACK, "-bind_local", "-nostdin"]
        command += [
            "-t",
            "t1",
            "-m",
            str(count),
            "-l",
            str(in_flight or count),
            "-r",
            str(rate),
            "-default_behaviors",
            "all,-bye",
        ]
        command += ["-recv_timeout", "60s", "-timeout", f"{PATIENCE:g}s", "-timeout_error", "-f", "3600"]
        command += ["-trace_stat", "-fd", "3600", "-stf", "statistics.csv", "-trace_rtt", "-rtt_freq", "1"]
        command += ["-trace_err", "-error_file", "errors", f"{LOOPBACK}:{port}"]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(command, cwd=self._folder, stdin=quiet, stdout=quiet, stderr=quiet)

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def result(self) -> Answers:
        """What it counted; once it has ended."""
        self._process.wait(PATIENCE)
        *_, last = csv.DictReader((self._folder / "statistics.csv").read_text("utf-8").splitlines(), delimiter=";")
        after: dict[str, list[float]] = {"1": [], "2": []}
        for path in self._folder.glob("*_rtt.csv"):
            for _, milliseconds, timer in list(csv.reader(path.read_text("utf-8").splitlines(), delimiter=";"))[1:]:
                after[timer].append(float(milliseconds) / 1000)
        created, answered, refused = (
            int(last["TotalCallCreated"]),
            _counted(last, "answered"),
            _counted(last, "refused"),
        )
        errors = self._folder / "errors"
        complaints = errors.read_text("utf-8", "replace") if errors.exists() else ""
        return Answers(created, answered, refused, created - answered - refused, after["1"], after["2"], complaints)

    def __enter__(self) -> Sipp:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(PATIENCE)


def _counted(row: dict[str, str], name: str) -> int:
    return next((int(value) for column, value in row.items() if column and name in column and "(C)" in column), 0)
