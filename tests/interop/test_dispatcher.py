"""Several processes of a service behind one Kamailio, whose dispatcher is configured as the README says."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import re
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from interop_calls import AUDIO, end_of
from interop_kamailio import BOTH, DOMAIN, Kamailio, Party, Wire, require_kamailio
from interop_support import LOOPBACK, PATIENCE, Program, free_port
from interop_worker import HEADER

from p2psip import MessageType, RealTimeException, SignalingSession, SipPeerToPeerEndpoint, SipResponseData
from p2psip.testing import CertificateAuthority

pytestmark = pytest.mark.interop

HERE = Path(__file__).resolve().parent
README = HERE.parent.parent / "README.rst"
SERVICE = f"sip:service@{DOMAIN}"
NAMES = ("one", "two", "three")
IN_FLIGHT = 24
SHARE = 10
"""So many calls of a process show that it takes its share."""


def dispatcher_of_the_readme(list_file: Path) -> str:
    """What the README says that Kamailio needs."""
    blocks = re.findall(r"::\n\n((?:(?: {4}.*)?\n)+)", README.read_text(encoding="utf-8"))
    (block,) = (block for block in blocks if 'loadmodule "dispatcher.so"' in block)
    assert "/etc/kamailio/dispatcher.list" in block
    return textwrap.dedent(block).replace("/etc/kamailio/dispatcher.list", str(list_file))


class Processes:
    """Those of a service, each with its port.

    Args:
        folder: Where files go.
        kind: ``TCP`` or ``TLS``.
        ports: Of each, by its name.
        is_shared: They are one.
    """

    def __init__(
        self, folder: Path, kind: str, authority: CertificateAuthority, ports: dict[str, int], is_shared: bool = False
    ) -> None:
        self._folder, self._ports = folder, ports
        self._options: list[str | Path] = ["--reuse-port"] if is_shared else []
        if kind == "TLS":
            issued = authority.issue(LOOPBACK)
            identity, roots = folder / "worker.pem", folder / "roots.pem"
            identity.touch(0o600)
            identity.write_bytes(issued.pem + issued.key_pem())
            roots.write_bytes(authority.pem)
            self._options += ["--identity", identity, roots]
        self._running: dict[str, Program] = {}

    def start(self, *names: str) -> None:
        """Start them, at the port that each always has."""
        for name in names:
            command = [sys.executable, HERE / "interop_worker.py", name, "--port", str(self._ports[name])]
            self._running[name] = Program([*command, *self._options], self._folder)
        for name in names:
            self._running[name].expect_port(r"listens on port (\d+)")

    def stop(self, name: str) -> None:
        """End one without a word (SIGKILL)."""
        self._running.pop(name).stop()

    def __enter__(self) -> Processes:
        with contextlib.ExitStack() as end:
            end.push(self)
            self.start(*self._ports)
            end.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        for name in list(self._running):
            self.stop(name)


class Service:
    """Alice, and the processes behind Kamailio that she calls.

    Args:
        folder: Where files go.
        kind: ``TCP`` or ``TLS``, which is mutual.
        names: Of the processes that run.
        dead: How many there are besides that do not.
    """

    def __init__(self, folder: Path, kind: str, names: tuple[str, ...] = NAMES, dead: int = 0) -> None:
        require_kamailio()
        authority = CertificateAuthority()
        ports = {name: free_port() for name in names}
        everywhere = [*(free_port() for _ in range(dead)), *ports.values()]
        lines = [f"1 sip:{LOOPBACK}:{port};transport={kind.lower()}\n" for port in everywhere]
        (folder / "dispatcher.list").write_text("".join(lines))
        self.wire = Wire()
        with contextlib.ExitStack() as end:
            self.processes = end.enter_context(Processes(folder, kind, authority, ports))
            self.alice = Party("alice", kind, authority, self.wire)
            dispatcher = dispatcher_of_the_readme(folder / "dispatcher.list")
            routes = {f"alice@{DOMAIN}": self.alice.uri}
            self.proxy = Kamailio(folder, authority, routes=routes, dispatcher=dispatcher)
            end.callback(self.proxy.stop)
            end.callback(self.alice.manager.dispose)
            self.alice.join(self.proxy.port(kind))
            self.end = end.pop_all()

    def ask(self) -> str:
        """The name of who answers a message."""
        return worker_of(self.alice.endpoint.send_message(MessageType.MESSAGE, SERVICE, body="who", timeout=PATIENCE))

    def call(self) -> tuple[SignalingSession, str]:
        """A call that is up, and the name of who took it."""
        session = SignalingSession(self.alice.endpoint, SERVICE)
        return session, worker_of(session.establish(AUDIO, answer=lambda offer: AUDIO, timeout=PATIENCE))


def worker_of(response: SipResponseData) -> str:
    name = response.header(HEADER)
    assert name is not None
    return name


@contextlib.contextmanager
def service(folder: Path, kind: str, names: tuple[str, ...] = NAMES, dead: int = 0) -> Iterator[Service]:
    """The same, ended at the end. When something fails, what went over the wire and what Kamailio said is printed."""
    made = Service(folder, kind, names, dead)
    with made.end:
        try:
            yield made
        except BaseException:
            print(made.wire, *made.proxy.log[-200:], sep="\n")
            raise


@BOTH
def test_what_follows_in_a_call_finds_its_process(tmp_path: Path, kind: str) -> None:
    """Both ways; and the calls are spread evenly."""
    with service(tmp_path, kind) as behind:
        calls = [behind.call() for _ in range(9)]
        assert collections.Counter(name for _, name in calls) == dict.fromkeys(NAMES, 3)
        for session, name in calls:
            assert worker_of(session.send_message(MessageType.INFO, "text/plain", "who")) == name
        for number, (session, name) in enumerate(calls):
            ended = end_of(session)
            if number % 2:
                session.terminate()
            else:
                assert worker_of(session.send_message(MessageType.INFO, "text/plain", "hang up")) == name
            assert ended.wait(PATIENCE)


@BOTH
def test_two_targets_of_which_one_is_dead(tmp_path: Path, kind: str) -> None:
    """Nobody notices."""
    with service(tmp_path, kind, ("one",), dead=1) as behind:
        start = time.monotonic()
        assert [behind.ask() for _ in range(4)] == ["one"] * 4
        for _ in range(4):
            session, name = behind.call()
            assert name == "one"
            session.terminate()
        assert time.monotonic() - start < 5.0


def test_all_are_gone(tmp_path: Path) -> None:
    with service(tmp_path, "TLS", (), dead=2) as behind, pytest.raises(RealTimeException, match="503 No Process"):
        behind.ask()


# ---------------------------------------------------------------------- one is killed under load


class Outcome(NamedTuple):
    """What became of a call, or of a message."""

    worker: str | None
    error: RealTimeException | None
    began: float
    ended: float


class Load:
    """Calls and messages without a pause, until it is stopped."""

    def __init__(self, behind: Service) -> None:
        self._behind = behind
        self._news = threading.Condition()
        self._is_over = False
        self.calls: list[Outcome] = []
        self.messages: list[Outcome] = []

    def _one_call(self) -> Outcome:
        session = SignalingSession(self._behind.alice.endpoint, SERVICE)
        worker, began = None, time.monotonic()
        error: RealTimeException | None = None
        try:
            worker = worker_of(session.establish(AUDIO, timeout=PATIENCE))
            for _ in range(4):
                answer = session.send_message(MessageType.INFO, "text/plain", "who", timeout=PATIENCE)
                assert worker_of(answer) == worker
        except RealTimeException as raised:
            error = raised
        session.terminate()
        return Outcome(worker, error, began, time.monotonic())

    def _one_message(self) -> Outcome:
        worker, began = None, time.monotonic()
        try:
            worker = self._behind.ask()
        except RealTimeException as error:
            return Outcome(worker, error, began, time.monotonic())
        return Outcome(worker, None, began, time.monotonic())

    def run(self, what: str) -> None:
        """One after the other."""
        outcomes = self.calls if what == "call" else self.messages
        while not self._is_over:
            outcome = self._one_call() if what == "call" else self._one_message()
            with self._news:
                outcomes.append(outcome)
                self._news.notify_all()

    def wait_for(self, name: str, count: int) -> None:
        """Wait until so many more calls are over that this process took."""

        def of_it() -> int:
            return sum(outcome.worker == name and outcome.error is None for outcome in self.calls)

        with self._news:
            wanted = of_it() + count
            assert self._news.wait_for(lambda: of_it() >= wanted, PATIENCE), self.calls[-20:]

    def stop(self) -> None:
        """Begin nothing more."""
        self._is_over = True


@BOTH
def test_one_process_is_killed_under_load(tmp_path: Path, kind: str) -> None:
    """It takes the calls along that it had, and nothing else is lost; when it is back it has its share again."""
    with service(tmp_path, kind) as behind, concurrent.futures.ThreadPoolExecutor(IN_FLIGHT + 6) as threads:
        load = Load(behind)
        with contextlib.ExitStack() as end:
            end.callback(load.stop)
            runs = [threads.submit(load.run, what) for what in ["call"] * IN_FLIGHT + ["message"] * 6]
            load.wait_for("two", SHARE)
            behind.processes.stop("two")
            killed = time.monotonic()
            load.wait_for("one", SHARE)
            load.wait_for("three", SHARE)
            behind.processes.start("two")
            started = time.monotonic()
            load.wait_for("two", SHARE)
            back = time.monotonic()
        for run in runs:
            run.result(PATIENCE)
        lost = [outcome for outcome in load.calls if outcome.error is not None]
        for what, outcomes in (("calls", load.calls), ("messages", load.messages)):
            good = collections.Counter(outcome.worker for outcome in outcomes if outcome.error is None)
            bad = collections.Counter(outcome.worker for outcome in outcomes if outcome.error is not None)
            print(f"{kind}: {len(outcomes)} {what}, answered {dict(good)}, lost {dict(bad)}")
        slowest = max((outcome.ended - killed for outcome in lost), default=0.0)
        print(
            f"{kind}: the last lost call was over {slowest:.1f} s after the end, "
            f"{SHARE} more {back - started:.1f} s later"
        )
        print(*{str(outcome.error) for outcome in lost}, sep="\n")
        assert {outcome.worker for outcome in lost} <= {"two"}
        assert len(lost) <= IN_FLIGHT
        assert all(outcome.began < killed < outcome.ended for outcome in lost)
        assert slowest < 12.0
        assert [outcome for outcome in load.messages if outcome.error is not None] == []
        assert behind.alice.unhandled == []


# ---------------------------------------------------------------------- without a proxy, one port for all


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux spreads the connections to a shared port")
@BOTH
def test_processes_that_share_a_port(tmp_path: Path, kind: str) -> None:
    """Each new connection goes to one of them; the others take it all when one was killed, and it comes back."""
    authority, port = CertificateAuthority(), free_port()
    alice = Party("alice", kind, authority, Wire())
    address = f"sip:service@{LOOPBACK}:{port};transport={kind.lower()}"

    def ask(count: int) -> collections.Counter[str]:
        """Each request over a connection of its own."""
        answers: collections.Counter[str] = collections.Counter()
        for _ in range(count):
            response = endpoint.send_message(MessageType.MESSAGE, address, body="who", timeout=PATIENCE)
            answers[worker_of(response)] += 1
            for connection in alice.manager.connections():
                connection.disconnect()
        print(f"{kind}: {count} connections: {dict(answers)}")
        return answers

    with Processes(tmp_path, kind, authority, dict.fromkeys(NAMES, port), is_shared=True) as processes, alice.manager:
        endpoint = SipPeerToPeerEndpoint(alice.address, alice.manager)
        assert set(ask(40)) == set(NAMES)
        processes.stop("two")
        assert set(ask(20)) == {"one", "three"}
        processes.start("two")
        assert set(ask(40)) == set(NAMES)
