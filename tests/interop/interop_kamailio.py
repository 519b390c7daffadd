"""Runs Kamailio (Debian: kamailio and kamailio-tls-modules), a stateful proxy that stays on the path of dialogs, and
has our endpoints on both sides of it.

Its configuration is in the folder ``kamailio``, in which words such as ``@REALM@`` are filled in here.
"""

from __future__ import annotations

import collections
import contextlib
import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from interop_calls import Calls
from interop_referee import watch
from interop_support import LOOPBACK, PATIENCE, Program, free_port, require

from p2psip import (
    ManagerSettings,
    RealTimeServerConnectionManager,
    RealTimeServerTcpConnectionManager,
    SipPeerToPeerEndpoint,
    SipTransportType,
    TraceEventArgs,
)
from p2psip.session import SignalingSession
from p2psip.testing import CertificateAuthority, tls_manager

CONFIGURATIONS = Path(__file__).resolve().parent / "kamailio"
DOMAIN = "example.com"
REALM = "proxy.example.com"
KINDS = ("TCP", "TLS")
BOTH = pytest.mark.parametrize("kind", KINDS)

_MODULES = ("/usr/lib/*/kamailio/modules", "/usr/lib/kamailio/modules", "/usr/lib64/kamailio/modules")


def require_kamailio() -> Path:
    """The folder of its modules; without it or those for TLS the test is skipped, or fails where that is asked for."""
    require("kamailio", "kamailio")
    for pattern in _MODULES:
        for found in sorted(Path("/").glob(pattern[1:])):
            if (found / "tls.so").exists():
                return found
    sentence = "Kamailio has no TLS here; on Debian and Ubuntu that is in the package kamailio-tls-modules."
    if os.environ.get("P2PSIP_REQUIRE_INTEROP") == "1":
        pytest.fail(sentence)
    pytest.skip(sentence)


class Kamailio:
    """The proxy, which can be ended and started again with the same ports.

    Args:
        folder: Where its files go.
        authority: Who issues its certificate, and whom it trusts.
        names: What its certificate bears.
        routes: Who is behind it: ``user@host`` or a host, and the URI to send to.
        digest: The algorithm that it demands a password with for each request, or None.
        dispatcher: What it is configured with besides, to have several behind it.
        log: It writes a line for each message.
        wait: Milliseconds that a transaction that is over is kept, 10 kB each.
    """

    def __init__(
        self,
        folder: Path,
        authority: CertificateAuthority,
        *,
        names: Iterable[str] = (REALM, DOMAIN, LOOPBACK),
        routes: dict[str, str] | None = None,
        digest: str | None = None,
        dispatcher: str = "",
        log: bool = True,
        wait: int = 5000,
    ) -> None:
        modules = require_kamailio()
        self.folder = folder / "kamailio"
        self.folder.mkdir()
        self.tcp_port, self.tls_port = free_port(), free_port()
        issued = authority.issue(*names)
        files = {name: self.folder / name for name in ("certificate.pem", "key.pem", "trusted.pem", "dispatcher.cfg")}
        files["certificate.pem"].write_bytes(issued.pem)
        files["key.pem"].touch(0o600)
        files["key.pem"].write_bytes(issued.key_pem())
        files["trusted.pem"].write_bytes(authority.pem)
        files["dispatcher.cfg"].write_text(dispatcher)
        wanted = {"WITH_LOG": log, "WITH_DIGEST": digest, "WITH_DISPATCHER": dispatcher}
        words = {
            "DEFINES": "\n".join(f"#!define {name}" for name, is_wanted in wanted.items() if is_wanted),
            "TCP_PORT": self.tcp_port,
            "TLS_PORT": self.tls_port,
            "MODULES": f"{modules}/",
            "WAIT": wait,
            "ALGORITHM": digest or "MD5",
            "REALM": REALM,
            "DISPATCHER": files["dispatcher.cfg"],
            "TLS_CONFIGURATION": self.folder / "tls.cfg",
            "CERTIFICATE": files["certificate.pem"],
            "KEY": files["key.pem"],
            "TRUSTED": files["trusted.pem"],
            "ROUTES": "\n".join(f'\t$sht(routes=>{name}) = "{uri}";' for name, uri in (routes or {}).items()),
        }
        for name in ("proxy.cfg", "tls.cfg"):
            text = (CONFIGURATIONS / name).read_text()
            for word, value in words.items():
                text = text.replace(f"@{word}@", str(value))
            missing = re.findall(r"@[A-Z_]+@", text)
            assert not missing, f"{name} wants {missing}"
            (self.folder / name).write_text(text)
        self._program: _Kamailio | None = None
        self._said: list[str] = []
        self.start()

    def port(self, kind: str) -> int:
        """Where it listens for TCP or TLS."""
        return self.tcp_port if kind == "TCP" else self.tls_port

    def start(self) -> None:
        """Start it, and wait until it listens."""
        command: list[str | Path] = [require("util-linux", "setsid"), require("kamailio", "kamailio")]
        command += ["-f", self.folder / "proxy.cfg", "-DD", "-E", "-m", "256", "-M", "16", "-x", "tlsf", "-X", "tlsf"]
        command += ["-w", self.folder, "-Y", self.folder, "-P", self.folder / "kamailio.pid"]
        self._program = _Kamailio(command, self.folder)
        self._program.expect_port(r"takes requests on port (\d+)")

    def stop(self) -> None:
        """End it, with its connections."""
        if self._program is not None:
            self._program.stop()
            self._said.append(self._program.output)
            self._program = None

    @property
    def log(self) -> list[str]:
        """What it said."""
        now = [] if self._program is None else [self._program.output]
        return [line for text in (*self._said, *now) for line in text.splitlines()]

    def wait_for(self, pattern: str) -> None:
        """Wait until it says that."""
        assert self._program is not None
        self._program.expect(pattern)

    def said(self, pattern: str) -> list[str]:
        """The lines that have it."""
        return [line for line in self.log if re.search(pattern, line)]


class _Kamailio(Program):
    """Several processes, which end with the first of them."""

    def expect(self, pattern: str) -> None:
        """Wait until a line has it."""
        with self._news:
            assert self._news.wait_for(lambda: re.search(pattern, self._text), PATIENCE), (pattern, self.output)

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(5.0)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
        super().stop()


class Wire:
    """The last messages that we sent and received, for somebody who has to find out what went wrong."""

    def __init__(self) -> None:
        self._messages: collections.deque[str] = collections.deque(maxlen=200)

    def of(self, name: str) -> Callable[[object, TraceEventArgs], None]:
        """A handler of ``trace``."""

        def keep(sender: object, args: TraceEventArgs) -> None:
            self._messages.append(f"{name} {args.direction}:\n{args.data.decode('utf-8', 'replace')}")

        return keep

    def __str__(self) -> str:
        return "\n".join(self._messages)


class Traffic:
    """A handler of ``trace`` that counts what goes each way, by method or by code and method, and looks at the path."""

    def __init__(self) -> None:
        self._news = threading.Condition()
        self.sent: collections.Counter[str] = collections.Counter()
        self.received: collections.Counter[str] = collections.Counter()
        self.vias: collections.Counter[bytes] = collections.Counter()
        """The first Via of each request that came."""

    def __call__(self, sender: object, args: TraceEventArgs) -> None:
        label, rest, *_ = args.start_line.split(" ")
        if label == "SIP/2.0":
            match = re.search(rb"\r\nCSeq: *\d+ +(\w+)", args.data)
            assert match is not None
            label = f"{rest} {match[1].decode()}"
        with self._news:
            if args.direction == "sent":
                self.sent[label] += 1
            else:
                self.received[label] += 1
                if " " not in label:
                    match = re.search(rb"\r\nVia: *SIP/2.0/\w+ ([^;]+)", args.data)
                    self.vias[match[1] if match is not None else args.data] += 1
            self._news.notify_all()

    def wait_for(self, sent: dict[str, int] | None = None, received: dict[str, int] | None = None) -> None:
        """Wait until so many of each have gone, and not more."""
        wanted = [(self.sent, sent or {}), (self.received, received or {})]

        def are_there() -> bool:
            return all(tally[label] >= count for tally, counts in wanted for label, count in counts.items())

        with self._news:
            assert self._news.wait_for(are_there, PATIENCE), (self.sent, self.received)
            for tally, counts in wanted:
                assert {label: tally[label] for label in counts} == counts


class Party:
    """An endpoint of ours with a manager of its own; it listens.

    Args:
        name: Its user part.
        kind: ``TCP`` or ``TLS``.
        authority: Who issues its certificate, and whom it trusts.
        wire: Keeps what it sends and receives.
        settings: Of the manager.
        tls: What else its manager is told.
    """

    def __init__(
        self,
        name: str,
        kind: str,
        authority: CertificateAuthority,
        wire: Wire,
        settings: ManagerSettings | None = None,
        **tls: Any,
    ) -> None:
        self.name = name
        self.kind = kind
        self.manager: RealTimeServerConnectionManager
        if kind == "TLS":
            names = (f"{name}.{DOMAIN}", LOOPBACK)
            self.manager = tls_manager(authority, *names, local_host=LOOPBACK, settings=settings, **tls)
        else:
            self.manager = RealTimeServerTcpConnectionManager(LOOPBACK, settings=settings)
        self.traffic = Traffic()
        self.unhandled: list[BaseException] = []
        self.manager.trace += self.traffic
        self.manager.trace += wire.of(name)
        watch(self.manager, at_most=500)
        self.manager.unhandled_exception += self._keep
        self.manager.start_listening((LOOPBACK, 0))
        self.address = f"sip:{name}@{DOMAIN}"
        self.uri = f"sip:{LOOPBACK}:{self.manager.listening_port};transport={kind.lower()}"
        self.endpoint: SipPeerToPeerEndpoint

    def _keep(self, sender: object, args: object) -> None:
        self.unhandled.append(args.exception)  # type: ignore[attr-defined]

    def join(self, port: int, host: str = LOOPBACK, **options: Any) -> None:
        """Become an endpoint behind the proxy."""
        transport = SipTransportType[self.kind]
        self.endpoint = SipPeerToPeerEndpoint(self.address, self.manager, transport, host, port, **options)

    def takes_calls(self, take: Callable[[SignalingSession], object]) -> Calls:
        """What it does with each call that comes in."""
        calls = Calls(take)
        self.endpoint.session_received += calls
        return calls

    def call(self, other: Party) -> SignalingSession:
        """A call yet to be placed."""
        return SignalingSession(self.endpoint, other.address)


class Behind:
    """Alice and Bob, with Kamailio between them.

    Args:
        folder: Where files go.
        kind: ``TCP`` or ``TLS``, which is mutual; or Alice's and Bob's: ``TLS to TCP``.
        settings: Of both managers.
        options: Of Kamailio.
    """

    def __init__(
        self, folder: Path, kind: str, *, settings: ManagerSettings | None = None, wire: Wire, **options: Any
    ) -> None:
        require_kamailio()
        kinds = kind.split(" to ")
        self.expected: str | None = None
        """What Kamailio may complain of."""
        self.authority = CertificateAuthority()
        self.alice, self.bob = self.parties = (
            Party("alice", kinds[0], self.authority, wire, settings),
            Party("bob", kinds[-1], self.authority, wire, settings),
        )
        routes = {f"{party.name}@{DOMAIN}": party.uri for party in self.parties}
        with contextlib.ExitStack() as end:
            for party in self.parties:
                end.callback(party.manager.dispose)
            self.proxy = Kamailio(folder, self.authority, routes=routes, **options)
            end.pop_all()
        self._end = contextlib.ExitStack()
        self._end.callback(self.proxy.stop)
        for party in self.parties:
            self._end.callback(party.manager.dispose)
            party.join(self.proxy.port(party.kind))

    def close(self) -> None:
        """End all three, the endpoints first."""
        self._end.close()

    def check(self) -> None:
        """All requests came through the proxy, which had nothing to complain of, and no handler has failed."""
        for party in self.parties:
            assert party.unhandled == []
            assert set(party.traffic.vias) <= {b"127.0.0.1:%d" % self.proxy.port(party.kind)}
        complaints = self.proxy.said("no Route|not sane|ERROR|CRITICAL(?!.* receive_fd)")  # which is its end
        assert [line for line in complaints if self.expected is None or not re.search(self.expected, line)] == []


@contextlib.contextmanager
def behind(folder: Path, kind: str, **options: Any) -> Iterator[Behind]:
    """The same, closed at the end. When something fails, what went over the wire and what Kamailio said is printed."""
    wire = Wire()
    made = Behind(folder, kind, wire=wire, **options)
    with contextlib.closing(made):
        try:
            yield made
            made.check()
        except BaseException:
            print(wire, *made.proxy.log[-200:], sep="\n")
            raise
