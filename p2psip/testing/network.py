"""A network in memory: no ports, no names of the real world, and connections that break when a test says so."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import select
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from p2psip.net.given import Entry
from p2psip.net.loop import Clock, Loop, MonotonicClock
from p2psip.net.sockets import ListeningSocket, SocketAddress

PATIENCE = 10.0
"""Real seconds that a wait of a test takes at most."""
CHUNK = 65536
QUEUE = 4 * CHUNK
"""Bytes on their way in one direction, above which the sender has to wait."""

Endpoint = tuple[str, int]

_Self = TypeVar("_Self", bound="MemoryNetwork")


class Hosts(dict[str, list[Entry]]):
    """The names that exist, and their addresses; services too, as a manager's ``resolver`` has them. Every other name
    does not exist: nobody else is asked."""

    def __missing__(self, name: str) -> list[Entry]:
        return []


class Machine:
    """What one machine sees of the network; stands in for the system in a loop, a resolver and a ``Network``.

    Attributes:
        hosts: Of the network: names and their addresses.
        clock: Of the network.
        address: Its own; None for the machine to which every address belongs that nobody else has.
    """

    def __init__(self, network: MemoryNetwork, address: str | None, hosts: Hosts, clock: Clock) -> None:
        self.address = address
        self.hosts = hosts
        self.clock = clock
        self._network = network

    def connect(self, family: int, address: SocketAddress) -> socket.socket:
        """A socket that is being connected to that virtual address."""
        default = "127.0.0.1" if family == socket.AF_INET else "::1"
        return self._network._connect(self.address or default, (address[0], address[1]))

    def listen(self, family: int, address: SocketAddress, backlog: int, reuse_port: bool = False) -> ListeningSocket:
        """A socket that takes in what is connected to that virtual address."""
        host = address[0]
        if host in ("0.0.0.0", "::") and self.address is not None:
            if (":" in self.address) != (family == socket.AF_INET6):
                raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
            host = self.address
        return self._network._listen((host, address[1]))


class MemoryNetwork(Machine):
    """Connects the managers that are made in it, without any port of the machine.

    It is itself the machine that most tests need; ``machine`` makes others. Connections are made of socket pairs with
    the network between their ends, so TLS runs as it does in reality. Close it after the managers: it is a context
    manager.

        with MemoryNetwork() as network:
            network.hosts["b.example"] = ["192.0.2.2"]
            ...
            network.links[0].cut()
    """

    def __init__(self, clock: Clock | None = None) -> None:
        """``clock`` is what the managers live by, a FakeClock for instance; None means real time."""
        super().__init__(self, None, Hosts(), MonotonicClock() if clock is None else clock)
        self._lock = threading.Condition()
        self._ports = itertools.count(40001)
        self._listeners: dict[Endpoint, _Listener] = {}
        self._rules: dict[tuple[str, int | None], str] = {}
        self._links: list[Link] = []
        self._closed = False
        self._loop = Loop("memory network", lambda cause: None)
        self._loop.start()

    def machine(self, address: str) -> Machine:
        """A machine with an address of its own: that is where its connections come from."""
        return Machine(self, address, self.hosts, self.clock)

    def close(self) -> None:
        """Cut everything and end."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        for link in self.links:
            link.cut()
        self._loop.stop()
        self._loop.join(PATIENCE)
        for listener in list(self._listeners.values()):
            listener.close()

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # ------------------------------------------------------------------ what may go wrong

    def refuse(self, host: str, port: int | None = None) -> None:
        """From now on connections to there are refused at once, as they are where nobody listens."""
        self._rules[host, port] = "refuse"

    def ignore(self, host: str, port: int | None = None) -> None:
        """From now on nobody answers there: connecting takes until somebody gives up."""
        self._rules[host, port] = "ignore"

    def delay(self, host: str, port: int | None = None) -> None:
        """From now on connecting to there takes until ``link.release()``."""
        self._rules[host, port] = "delay"

    def allow(self, host: str, port: int | None = None) -> None:
        """Take back what was said about there."""
        self._rules.pop((host, port), None)

    @property
    def links(self) -> tuple[Link, ...]:
        """All connections that were ever asked for, in order, but for the refused ones."""
        return tuple(self._links)

    def wait_for_links(self, count: int) -> tuple[Link, ...]:
        """The links, once there are so many. Raises TimeoutError."""
        with self._lock:
            if not self._lock.wait_for(lambda: len(self._links) >= count, PATIENCE):
                raise TimeoutError(f"There are {len(self._links)} links, not {count}, after {PATIENCE:.0f} s.")
        return self.links

    # ------------------------------------------------------------------ inside

    def _connect(self, host: str, to: Endpoint) -> socket.socket:
        rule = self._rules.get(to) or self._rules.get((to[0], None))
        with self._lock:
            listener = self._listeners.get(to) or self._listeners.get(("::" if ":" in to[0] else "0.0.0.0", to[1]))
            if self._closed or rule == "refuse" or (listener is None and rule != "ignore"):
                raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
            link = Link(self._loop, (host, next(self._ports)), to, listener)
            self._links.append(link)
            self._lock.notify_all()
            if rule is not None:
                link.close_gate()
        if rule is None:
            link.release()
        return link.client

    def _listen(self, address: Endpoint) -> _Listener:
        with self._lock:
            if self._closed:
                raise OSError(errno.ENETDOWN, os.strerror(errno.ENETDOWN))
            host, port = address[0], address[1] or next(self._ports)
            if (host, port) in self._listeners:
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
            listener = self._listeners[host, port] = _Listener((host, port), self._forget)
            return listener

    def _forget(self, address: Endpoint) -> None:
        with self._lock:
            self._listeners.pop(address, None)


class VirtualSocket(socket.socket):
    """One end of a socket pair that says it has the virtual addresses."""

    def __init__(self, real: socket.socket, local: Endpoint, remote: Endpoint) -> None:
        super().__init__(real.family, real.type, real.proto, real.detach())
        self.setblocking(False)
        self._local = local
        self._remote = remote

    def getsockname(self) -> Endpoint:
        return self._local

    def getpeername(self) -> Endpoint:
        return self._remote


class _Listener:
    """A listening socket: a queue of sockets, and a pair whose one end is readable while something is in it."""

    def __init__(self, address: Endpoint, forget: Callable[[Endpoint], object]) -> None:
        self._address = address
        self._forget = forget
        self._bell, self._ringer = socket.socketpair()
        self._bell.setblocking(False)
        self._waiting: deque[VirtualSocket] = deque()

    def fileno(self) -> int:
        return self._bell.fileno()

    def getsockname(self) -> Endpoint:
        return self._address

    def accept(self) -> tuple[socket.socket, SocketAddress]:
        self._bell.recv(1)  # raises BlockingIOError when nothing waits
        try:
            sock = self._waiting.popleft()
        except IndexError:  # the network is being closed, by another thread than the one that accepts
            raise BlockingIOError from None
        return sock, sock.getpeername()

    def connected(self, sock: VirtualSocket) -> None:
        self._waiting.append(sock)
        try:
            self._ringer.send(b"\0")
        except OSError:
            sock.close()

    def close(self) -> None:
        self._forget(self._address)
        self._bell.close()
        self._ringer.close()
        with contextlib.suppress(IndexError):  # somebody may accept meanwhile
            while True:
                self._waiting.popleft().close()


class Link:
    """One connection in the network. Usable from any thread.

    Attributes:
        source, destination: Virtual addresses of who connected and of where to.
        to_destination, to_source: Every byte that went that way, as it went over the wire.
    """

    def __init__(self, loop: Loop, source: Endpoint, destination: Endpoint, listener: _Listener | None) -> None:
        self.source = source
        self.destination = destination
        self.to_destination = bytearray()
        self.to_source = bytearray()
        self._loop = loop
        self._listener = listener
        near, self._source_end = socket.socketpair()
        far, self._destination_end = socket.socketpair()
        self.client = VirtualSocket(near, source, destination)
        self._server = VirtualSocket(far, destination, source)
        self._gate = 0  # bytes that keep the client's socket from being writable
        self._state = "new"
        self._pipes: tuple[_Pipe, _Pipe] | None = None

    def hold(self) -> None:
        """Nothing passes any more, in either direction, and nobody is told: the peer seems to have died."""
        self._call(self._hold)

    def release(self) -> None:
        """What was held or delayed passes."""
        self._call(self._release)

    def cut(self) -> None:
        """Both sides see the other one close, at once; what was on its way is lost."""
        self._call(self._cut)

    def close_gate(self) -> None:
        """Make the connection look as if it were still being made: its socket is not writable."""
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        is_closed = False
        while not is_closed:
            try:
                self._gate += self.client.send(bytes(4096))
            except BlockingIOError:  # where pairs are TCP, as on Windows, what was sent makes room when it has arrived
                is_closed = self.client.family != socket.AF_INET or not select.select([], [self.client], [], 0.05)[1]

    def _call(self, function: Callable[[], object]) -> None:
        """Run it on the network's thread and wait until it is done."""
        if self._loop.in_loop():
            function()
            return
        done = threading.Event()

        def run() -> None:
            try:
                function()
            finally:
                done.set()

        self._loop.post(run)
        if not done.wait(PATIENCE):
            raise TimeoutError(f"The memory network did not act within {PATIENCE:.0f} s.")

    def _hold(self) -> None:
        if self._state == "open":
            self._state = "held"
            self._watch()

    def _release(self) -> None:
        if self._state == "held":
            self._state = "open"
            self._watch()
        elif self._state == "new" and self._listener is not None:
            while self._gate:
                self._gate -= len(self._source_end.recv(min(self._gate, CHUNK)))
            for sock in (self._source_end, self._destination_end):
                sock.setblocking(False)
            self._pipes = (
                _Pipe(self._source_end, self._destination_end, self.to_destination),
                _Pipe(self._destination_end, self._source_end, self.to_source),
            )
            self._state = "open"
            self._watch()
            self._listener.connected(self._server)

    def _cut(self) -> None:
        if self._state != "cut":
            if self._state == "new":
                self._server.close()  # nobody else has got it
            self._state = "cut"
            self._watch()
            self._source_end.close()
            self._destination_end.close()

    def _watch(self) -> None:
        """Have the selector look for what can be moved."""
        if self._pipes is None:
            return
        there, back = self._pipes
        for sock, reads, writes in ((self._source_end, there, back), (self._destination_end, back, there)):
            events = 0
            if self._state == "open":
                events = selectors.EVENT_READ if reads.wants_more else 0
                events |= selectors.EVENT_WRITE if writes.has_some else 0
            self._loop.unregister(sock)
            if events:
                self._loop.register(sock, events, self._move)

    def _move(self, events: int) -> None:
        if self._state != "open" or self._pipes is None:
            return
        try:
            for pipe in self._pipes:
                pipe.move()
        except OSError:
            self._cut()
            return
        if all(pipe.is_over for pipe in self._pipes):
            self._cut()
        else:
            self._watch()


class _Pipe:
    """One direction."""

    def __init__(self, source: socket.socket, sink: socket.socket, seen: bytearray) -> None:
        self._source = source
        self._sink = sink
        self._seen = seen
        self._queue = bytearray()
        self._ended = False
        self.is_over = False

    @property
    def wants_more(self) -> bool:
        return not self._ended and len(self._queue) < QUEUE

    @property
    def has_some(self) -> bool:
        return bool(self._queue)

    def move(self) -> None:
        if self.wants_more:
            try:
                data = self._source.recv(CHUNK)
                self._ended = not data
                self._queue += data
                self._seen += data
            except BlockingIOError:
                pass
        if self._queue:
            try:
                del self._queue[: self._sink.send(self._queue)]
            except BlockingIOError:
                pass
        if self._ended and not self._queue and not self.is_over:
            self.is_over = True
            self._sink.shutdown(socket.SHUT_WR)
