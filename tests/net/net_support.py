"""One side of a network for tests: a loop, a network, and an observer that writes down what it is told."""

from __future__ import annotations

import dataclasses
import itertools
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from p2psip.config import ManagerSettings
from p2psip.errors import RealTimeException
from p2psip.net.connection import Connection
from p2psip.net.given import GivenNames
from p2psip.net.loop import Loop
from p2psip.net.network import Network, Target
from p2psip.net.resolver import Resolver
from p2psip.net.selection import Answer
from p2psip.testing.clock import FakeClock

PATIENCE = 10.0
"""Seconds that a test waits for something that takes milliseconds, before it fails."""

_numbers = itertools.count(1)


def message(body: bytes = b"hello", *, method: str = "MESSAGE", number: int | None = None) -> bytes:
    """One request as it is on the wire."""
    number = next(_numbers) if number is None else number
    head = (
        f"{method} sip:bob@b.example SIP/2.0\r\n"
        f"Via: SIP/2.0/TCP a.example;branch=z9hG4bK{number}\r\n"
        "Max-Forwards: 70\r\n"
        "From: <sip:alice@a.example>;tag=1\r\n"
        "To: <sip:bob@b.example>\r\n"
        f"Call-ID: {number}@a.example\r\n"
        f"CSeq: {number} {method}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def answer(number: int = 1, code: int = 200) -> bytes:
    """One response as it is on the wire."""
    return (
        f"SIP/2.0 {code} Whatever\r\n"
        f"Via: SIP/2.0/TCP a.example;branch=z9hG4bK{number}\r\n"
        "From: <sip:alice@a.example>;tag=1\r\n"
        "To: <sip:bob@b.example>;tag=2\r\n"
        f"Call-ID: {number}@a.example\r\n"
        f"CSeq: {number} MESSAGE\r\n"
        "Content-Length: 0\r\n\r\n"
    ).encode()


class Recorder:
    """A NetworkObserver. ``heard[kind]`` are the arguments of each call of that kind."""

    def __init__(self) -> None:
        self.authorization_wanted = False
        self.heard: dict[str, list[tuple[Any, ...]]] = {}
        self.on_messages: Callable[[Connection, list[Any]], object] | None = None
        self._condition = threading.Condition()

    def note(self, kind: str, *args: Any) -> None:
        with self._condition:
            self.heard.setdefault(kind, []).append(args)
            self._condition.notify_all()

    def wait(self, kind: str, count: int = 1) -> list[tuple[Any, ...]]:
        """The calls of that kind, once there are so many."""
        with self._condition:
            done = self._condition.wait_for(lambda: len(self.heard.get(kind, ())) >= count, PATIENCE)
            assert done, f"{len(self.heard.get(kind, ()))} of {count} {kind}; heard: {self.heard}"
            return list(self.heard[kind])

    def count(self, kind: str) -> int:
        return len(self.heard.get(kind, ()))

    def authorize_connection(self, connection: Connection) -> None:
        self.note("authorize", connection)

    def connection_ready(self, connection: Connection) -> None:
        self.note("ready", connection)

    def answered(self, connection: Connection, data: bytes) -> None:
        pass

    def messages_received(self, connection: Connection, messages: list[Any]) -> None:
        for each in messages:
            self.note("message", connection, each)
        if self.on_messages is not None:
            self.on_messages(connection, messages)

    def connection_closed(self, connection: Connection, error: RealTimeException | None) -> None:
        self.note("closed", connection, error)

    def connection_pool_added(self, pool: Any) -> None:
        self.note("pool added", pool)

    def connection_pool_removed(self, pool: Any) -> None:
        self.note("pool removed", pool)

    def handshake_failed(self, connection: Connection, error: RealTimeException) -> None:
        self.note("handshake failed", connection, error)

    def listening_aborted(self, error: RealTimeException) -> None:
        self.note("aborted", error)


@dataclasses.dataclass
class Outcome:
    """What became of an ``acquire``."""

    _queue: queue.Queue[Any] = dataclasses.field(default_factory=queue.Queue)
    calls: int = 0

    def __call__(self, result: Any) -> None:
        self.calls += 1
        self._queue.put(result)

    def wait(self) -> Any:
        return self._queue.get(timeout=PATIENCE)

    def connection(self) -> Connection:
        result = self.wait()
        assert isinstance(result, Connection), result
        return result

    def error(self) -> RealTimeException:
        result = self.wait()
        assert isinstance(result, RealTimeException), result
        return result


def no_dns(query: object, nameservers: object, seconds: float) -> tuple[Answer, float]:
    """Nothing is known of any service."""
    return Answer(), 60.0


class Side:
    """A loop with a network, and what it tells."""

    def __init__(
        self,
        settings: ManagerSettings | None = None,
        *,
        clock: FakeClock | None = None,
        hosts: Any = None,
        lookup: Any = socket.getaddrinfo,
        ask: Any = no_dns,
        factory: Any = None,
        tls: Any = None,
    ) -> None:
        self.settings = settings or ManagerSettings()
        self.ended: queue.Queue[BaseException | None] = queue.Queue()
        self.loop = Loop("test loop", self.ended.put, clock)
        self.recorder = Recorder()
        self.network = Network(
            self.loop,
            self.settings,
            self.recorder,
            tls=tls,
            resolver=Resolver(self.loop, self.settings, GivenNames({} if hosts is None else hosts), lookup, ask),
            factory=factory,
        )
        self.loop.start()

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run it on the loop's thread and return what it returns."""
        results: queue.Queue[tuple[bool, Any]] = queue.Queue()

        def run() -> None:
            try:
                results.put((True, function(*args)))
            except BaseException as error:
                results.put((False, error))

        self.loop.post(run)
        good, result = results.get(timeout=PATIENCE)
        if not good:
            raise result
        return result

    def settle(self, turns: int = 3) -> None:
        """Let the loop do what it has left for later."""
        for _ in range(turns):
            self.call(lambda: None)

    def listen(self, host: str = "127.0.0.1", port: int = 0) -> int:
        return self.call(self.network.listen, host, port)  # type: ignore[no-any-return]

    def acquire(self, target: Target) -> Outcome:
        outcome = Outcome()
        self.call(self.network.acquire, target, outcome, outcome)
        return outcome

    def send(self, connection: Connection, data: bytes) -> None:
        self.call(connection.send, data)

    def close(self) -> None:
        self.loop.stop()
        assert self.loop.join(PATIENCE)


@pytest.fixture
def sides(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[..., Side]]:
    """Makes sides, ends them, and fails the test if an error of ours was logged unless ``caplog`` was cleared."""
    made: list[Side] = []

    def make(*args: Any, **options: Any) -> Side:
        made.append(Side(*args, **options))
        return made[-1]

    yield make
    for side in made:
        side.close()
    assert [record.getMessage() for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")] == []


def tcp(port: int, host: str = "127.0.0.1") -> Target:
    return Target("TCP", host, port, None)


def dial(port: int, host: str = "127.0.0.1") -> socket.socket:
    """A peer of the plainest kind."""
    return socket.create_connection((host, port), timeout=PATIENCE)


def read(sock: socket.socket, size: int) -> bytes:
    """Exactly so many bytes."""
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        assert piece, f"the stream ended after {data!r}"
        data += piece
    return data


def read_to_end(sock: socket.socket) -> bytes:
    """All that comes until the peer closes."""
    data = b""
    while piece := sock.recv(65536):
        data += piece
    return data
