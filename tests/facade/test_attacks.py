"""Strangers attack one address of a server while a correct peer talks to it from another."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import gc
import itertools
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import attackers
import pytest
from facade_support import BOUND
from scale import scaled

from p2psip import (
    IPAddress,
    IPEndPoint,
    RealTimeServerConnectionManager,
    RealTimeServerTcpConnectionManager,
    SipPeerToPeerEndpoint,
)
from p2psip.testing import CertificateAuthority, tls_manager

CANARY = "127.0.0.2"
"""Where the correct peer is."""
SOON = 2.0
"""Seconds within which it is answered."""
MEBIBYTE = 1 << 20


def _has_addresses() -> bool:
    """Linux has all of 127/8; other systems have to be told."""
    try:
        for address in (CANARY, attackers.SOURCE):
            with socket.create_server((address, 0)):
                pass
    except OSError:
        return False
    return True


pytestmark = pytest.mark.skipif(not _has_addresses(), reason="this machine has one loopback address only")


@dataclasses.dataclass(frozen=True)
class Victim:
    """A server that attackers and canary know how to reach."""

    manager: RealTimeServerConnectionManager
    context: ssl.SSLContext
    transport: str

    @property
    def port(self) -> int:
        return self.manager.listening_port

    def look(self) -> dict[str, int]:
        """What it keeps for its peers."""
        stack = self.manager._stack
        network = stack.network

        def count() -> dict[str, int]:
            return {
                "connections": len(network._all),
                "handshakes": len(network._shaking),
                "addresses": len(network.admission._by_address),
                "bytes": network._buffered,
                "transactions": stack.engine._count(),
            }

        return stack.call("a look", count).result(BOUND)


class Canary:
    """The correct peer, written with sockets alone."""

    _numbers = itertools.count(1)

    def __init__(self, victim: Victim) -> None:
        started = time.monotonic()
        self._sock = socket.create_connection(("127.0.0.1", victim.port), SOON, (CANARY, 0))
        try:
            if victim.transport == "TLS":
                self._sock = victim.context.wrap_socket(self._sock, server_hostname="victim.example")
            self.ask()
            assert time.monotonic() - started < SOON
        except BaseException:
            self.close()
            raise

    def ask(self) -> None:
        """Send a request and have its answer in time."""
        started = time.monotonic()
        data = attackers.request(b"hello").replace(b"OPTIONS", b"MESSAGE")
        self._sock.sendall(data)
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            piece = self._sock.recv(65536)
            assert piece, answer
            answer += piece
        assert answer.startswith(b"SIP/2.0 200 "), answer
        assert time.monotonic() - started < SOON

    def close(self) -> None:
        self._sock.close()

    def __enter__(self) -> Canary:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Attackers:
    """The process that they are in."""

    def __init__(self, certificate: Path, authority: Path) -> None:
        command = [sys.executable, attackers.__file__, str(certificate), str(authority)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def begin(self, name: str, victim: Victim) -> None:
        self._say(f"{name} {victim.transport} {victim.port}")
        assert self._hear() == ["begun"]

    def end(self) -> int:
        """Returns: How often they attacked."""
        self._say("")
        word, rounds = self._hear()
        assert word == "over"
        return int(rounds)

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _hear(self) -> list[str]:
        assert self._process.stdout is not None
        timer = threading.Timer(BOUND, self._process.kill)
        timer.start()
        try:
            return self._process.stdout.readline().split()
        finally:
            timer.cancel()

    def close(self) -> None:
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()
            assert self._process.wait(BOUND) == 0


@pytest.fixture(scope="module")
def authority() -> CertificateAuthority:
    return CertificateAuthority()


@pytest.fixture(scope="module")
def crowd(authority: CertificateAuthority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attackers]:
    folder = tmp_path_factory.mktemp("attackers")
    issued = authority.issue("x.example")
    (folder / "certificate").write_bytes(issued.pem + issued.key_pem())
    (folder / "authority").write_bytes(authority.pem)
    with contextlib.closing(Attackers(folder / "certificate", folder / "authority")) as made:
        yield made


@pytest.fixture(scope="module", params=["TCP", "TLS"])
def victim(request: pytest.FixtureRequest, authority: CertificateAuthority) -> Iterator[Victim]:
    context = ssl.create_default_context(cadata=authority.pem.decode())
    authority.issue("canary.example").load_into(context)
    manager: RealTimeServerConnectionManager = RealTimeServerTcpConnectionManager("victim.example")
    if request.param == "TLS":
        manager = tls_manager(authority, "victim.example")
    with manager:
        endpoint = SipPeerToPeerEndpoint("sip:bob@victim.example", manager)
        endpoint.message_received += lambda sender, args: None
        manager.start_listening(IPEndPoint(IPAddress.LOOPBACK, 0))
        made = Victim(manager, context, request.param)
        with Canary(made) as warm:
            for _ in range(100):
                warm.ask()
        yield made


def memory() -> int:
    """Bytes that this process has in memory, as far as the system says."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
    except OSError:
        return 0


def tidied() -> int:
    """The same when nothing is kept that nobody needs."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):  # only some systems have it
        ctypes.CDLL(None).malloc_trim(0)
    return memory()


def descriptors() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return 0


def settled(victim: Victim, wanted: dict[str, int]) -> dict[str, int]:
    """Wait until that is all it keeps."""
    end = time.monotonic() + BOUND
    while (kept := victim.look()) != wanted:
        assert time.monotonic() < end, f"It keeps {kept}, not {wanted}."
    return kept


@pytest.mark.long
@pytest.mark.holds("R31", "R32")
@pytest.mark.parametrize("name", attackers.ROUNDS)
def test_a_correct_peer_is_answered_and_nothing_is_left(victim: Victim, crowd: Attackers, name: str) -> None:
    with Canary(victim) as canary:
        before = settled(victim, {"connections": 1, "handshakes": 0, "addresses": 1, "bytes": 0, "transactions": 0})
        files, kept, peak = descriptors(), tidied(), 0
        crowd.begin(name, victim)
        try:
            for _ in range(scaled(100)):
                for _ in range(5):
                    canary.ask()
                peak = max(peak, memory())
                Canary(victim).close()
        finally:
            rounds = crowd.end()
        assert rounds > 0
        settled(victim, before)
        assert peak - kept < victim.manager.settings.maximum_buffered + 32 * MEBIBYTE
        assert tidied() - kept < 16 * MEBIBYTE
        assert descriptors() <= files + 3
        canary.ask()
