"""What bench.py compares with: blobs over bare ssl or sockets, and selectors, without any SIP. As plain as it can be.

A blob has a fixed size, so that counting bytes is all the framing there is.
"""

from __future__ import annotations

import selectors
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path

REQUEST = b"q" * 800
ANSWER = b"a" * 400
BACKLOG = 512
CANNOT_READ = (ssl.SSLWantReadError, BlockingIOError)
CANNOT_WRITE = (ssl.SSLWantWriteError, BlockingIOError)


def tls_context(folder: Path, server: bool) -> ssl.SSLContext:
    """Mutual TLS with the certificates of the folder, and nothing else that is not the default."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.load_cert_chain(folder / "leaf.pem")
    context.load_verify_locations(folder / "root.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    return context


class Link:
    """One connection: handshakes over TLS, then counts the blobs that come and sends those that are asked for."""

    __slots__ = ("blob_size", "drain", "on_blobs", "on_end", "on_open", "partial", "selector", "sock", "step", "unsent")

    def __init__(
        self,
        selector: selectors.BaseSelector,
        sock: socket.socket,
        blob_size: int,
        on_open: Callable[[Link], object],
        on_blobs: Callable[[Link, int], object],
        on_end: Callable[[Link], object],
    ) -> None:
        self.selector = selector
        self.sock = sock
        self.blob_size = blob_size
        self.on_open = on_open
        self.on_blobs = on_blobs
        self.on_end = on_end
        self.drain = False  # read until nothing is left; else one recv each time the selector tells of something
        self.partial = 0
        self.unsent = b""
        self.step = self.handshake

    def handshake(self) -> None:
        try:
            if isinstance(self.sock, ssl.SSLSocket):
                self.sock.do_handshake()
        except CANNOT_READ:
            self.selector.modify(self.sock, selectors.EVENT_READ, self)
        except CANNOT_WRITE:
            self.selector.modify(self.sock, selectors.EVENT_WRITE, self)
        except OSError:
            self.end()
        else:
            self.selector.modify(self.sock, selectors.EVENT_READ, self)
            self.step = self.ready
            self.on_open(self)

    def ready(self) -> None:
        if self.unsent:
            self.flush()
        received = self.partial
        while True:
            try:
                data = self.sock.recv(65536)  # at most one TLS record
            except CANNOT_READ:
                break
            except OSError:
                data = b""
            if not data:
                self.end()
                return
            received += len(data)
            if not self.drain:
                break
        blobs, self.partial = divmod(received, self.blob_size)
        if blobs:
            self.on_blobs(self, blobs)

    def send(self, blob: bytes) -> None:
        if self.unsent:
            self.unsent += blob
            return
        try:
            sent = self.sock.send(blob)
        except CANNOT_WRITE:
            sent = 0
        if sent < len(blob):
            self.unsent = blob[sent:]
            self.selector.modify(self.sock, selectors.EVENT_READ | selectors.EVENT_WRITE, self)

    def flush(self) -> None:
        try:
            self.unsent = self.unsent[self.sock.send(self.unsent) :]
        except CANNOT_WRITE:
            return
        if not self.unsent:
            self.selector.modify(self.sock, selectors.EVENT_READ, self)

    def end(self) -> None:
        self.selector.unregister(self.sock)
        self.sock.close()
        self.on_end(self)


class ReferenceServer:
    """Answers each blob with another one, on a thread of its own."""

    def __init__(
        self,
        folder: Path,
        host: str = "127.0.0.1",
        *,
        transport: str = "TLS",
        joined: bool = False,
        drain: bool = False,
    ) -> None:
        self._context = tls_context(folder, server=True) if transport == "TLS" else None
        self._joined = joined
        self._drain = drain
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server((host, 0), backlog=BACKLOG)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        threading.Thread(target=self._run, daemon=True).start()

    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    def _run(self) -> None:
        select = self._selector.select
        while True:
            for key, _ in select():
                if key.data is None:
                    self._accept()
                else:
                    key.data.step()

    def _accept(self) -> None:
        sock, _ = self._listener.accept()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._context is not None:
            sock = self._context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        answer = self._answer_joined if self._joined else self._answer
        link = Link(self._selector, sock, len(REQUEST), _nothing, answer, _nothing)
        link.drain = self._drain
        self._selector.register(sock, selectors.EVENT_READ, link)

    @staticmethod
    def _answer(link: Link, blobs: int) -> None:
        for _ in range(blobs):
            link.send(ANSWER)

    @staticmethod
    def _answer_joined(link: Link, blobs: int) -> None:
        link.send(ANSWER * blobs)


class ReferenceClient:
    """Sends blobs and waits for their answers. One thread, the caller's."""

    def __init__(self, folder: Path, *, transport: str = "TLS", joined: bool = False, drain: bool = False) -> None:
        self._context = tls_context(folder, server=False) if transport == "TLS" else None
        self._joined = joined
        self._drain = drain
        self._selector = selectors.DefaultSelector()
        self._link: Link | None = None
        self._answered = 0
        self._connections = 0

    def open(self, port: int, count: int, parallel: int, request: bytes = REQUEST) -> float:
        """Open connections, and on each send a request and see an answer begin; they stay open. Seconds it took.

        Args:
            request: ``NUMBER`` in it becomes another one on each connection.
        """
        begun = time.perf_counter()
        self._answered = opened = 0
        while self._answered < count:
            while opened < count and opened - self._answered < parallel:
                self._connections += 1
                self._connect(port, request.replace(b"NUMBER", b"%06d" % self._connections), 1, self._first)
                opened += 1
            self._turn()
        return time.perf_counter() - begun

    def exchange(self, port: int, depth: int, seconds: float) -> tuple[int, float]:
        """Keep ``depth`` exchanges in flight for some time, over one connection. How many there were, and seconds."""
        if self._link is None:
            self._answered = 0
            self._link = self._connect(port, REQUEST, len(ANSWER), self._count)
            while self._answered < 1:
                self._turn()
        link = self._link
        link.on_blobs = self._next_joined if self._joined else self._next
        self._answered = 0
        self._next(link, depth)
        begun = time.perf_counter()
        end = begun + seconds
        self._answered = 0
        while time.perf_counter() < end:
            self._turn()
        taken, done = time.perf_counter() - begun, self._answered
        link.on_blobs = self._count
        self._answered = 0
        while self._answered < depth:
            self._turn()
        return done, taken

    def tls(self) -> tuple[str, str]:
        """Version and cipher of the connection that :meth:`exchange` uses; empty without TLS."""
        assert self._link is not None
        cipher = self._link.sock.cipher() if isinstance(self._link.sock, ssl.SSLSocket) else None
        return ("", "") if cipher is None else (cipher[1], cipher[0])

    def _turn(self) -> None:
        for key, _ in self._selector.select():
            key.data.step()

    def _connect(self, port: int, request: bytes, answer_size: int, on_blobs: Callable[[Link, int], object]) -> Link:
        sock = socket.create_connection(("127.0.0.1", port))  # at once, on loopback
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._context is not None:
            sock = self._context.wrap_socket(sock, server_hostname="127.0.0.1", do_handshake_on_connect=False)
        link = Link(self._selector, sock, answer_size, lambda link: link.send(request), on_blobs, _refused)
        link.drain = self._drain
        self._selector.register(sock, selectors.EVENT_WRITE, link)
        return link

    def _first(self, link: Link, blobs: int) -> None:
        self._answered += 1
        link.on_blobs = _ignore

    def _count(self, link: Link, blobs: int) -> None:
        self._answered += blobs

    def _next(self, link: Link, blobs: int) -> None:
        self._answered += blobs
        for _ in range(blobs):
            link.send(REQUEST)

    def _next_joined(self, link: Link, blobs: int) -> None:
        self._answered += blobs
        link.send(REQUEST * blobs)


def _nothing(link: Link) -> None:
    pass


def _ignore(link: Link, blobs: int) -> None:
    pass


def _refused(link: Link) -> None:
    raise ConnectionError("The server closed a connection in the middle of the measurement.")
