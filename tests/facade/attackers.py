"""Who attacks, in a process of its own: ``NAME TRANSPORT PORT`` on standard input begins, an empty line ends it.

Says ``begun`` when the attack is under way, and ``over N`` when all its sockets are closed; N is how often it was begun
anew, so that an attack that does nothing shows.
"""

from __future__ import annotations

import contextlib
import os
import queue
import random
import socket
import ssl
import struct
import sys
import threading
from collections.abc import Callable

SOURCE = "127.0.0.66"
"""Where all of them come from."""
VIAS = "Via: " + ", ".join(["SIP/2.0/TCP x.example;branch=z9hG4bKx"] * 60) + "\r\n"
PATIENCE = 2.0
"""Seconds that an attacker waits for the victim to take something."""

ROUNDS: dict[str, Callable[[Attacker], None]] = {}
"""Each is called again and again."""


class Attacker:
    """Sockets of one attack, and how they are made."""

    def __init__(self, transport: str, port: int, context: ssl.SSLContext, stop: threading.Event) -> None:
        self.is_tls = transport == "TLS"
        self.port = port
        self.context = context
        self.stop = stop
        self.held: list[socket.socket] = []
        self.random = random.Random(5061)

    def dial(self) -> socket.socket:
        """Connected, and nothing said."""
        sock = socket.socket()
        sock.settimeout(PATIENCE)
        try:
            sock.bind((SOURCE, 0))
            sock.connect(("127.0.0.1", self.port))
        except OSError:
            sock.close()
            raise
        return sock

    def connect(self) -> socket.socket:
        """Connected as a peer with a good certificate is."""
        sock = self.dial()
        if not self.is_tls:
            return sock
        try:
            return self.context.wrap_socket(sock, server_hostname="victim.example")
        except OSError:
            sock.close()
            raise

    def hold(self, count: int, make: Callable[[], socket.socket]) -> list[socket.socket]:
        """So many that stay open, as far as the victim lets them."""
        while len(self.held) < count:
            self.held.append(make())
        return self.held

    def close(self) -> None:
        for sock in self.held:
            sock.close()
        self.held.clear()

    def hello(self) -> bytes:
        """The beginning of a handshake, or of a message."""
        if not self.is_tls:
            return request()[:200]
        outgoing = ssl.MemoryBIO()
        with contextlib.suppress(ssl.SSLWantReadError):
            self.context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="victim.example").do_handshake()
        return outgoing.read()


def request(body: bytes = b"", more: str = "", length: int | None = None, user: str = "bob") -> bytes:
    number = random.randrange(1 << 40)
    return (
        f"OPTIONS sip:{user}@victim.example SIP/2.0\r\nVia: SIP/2.0/TCP x.example;branch=z9hG4bK{number}\r\n"
        f"Max-Forwards: 70\r\nFrom: <sip:x@x.example>;tag=1\r\nTo: <sip:bob@victim.example>\r\nCall-ID: {number}\r\n"
        f"CSeq: 1 OPTIONS\r\n{more}Content-Length: {len(body) if length is None else length}\r\n\r\n"
    ).encode() + body


def attack(function: Callable[[Attacker], None]) -> Callable[[Attacker], None]:
    ROUNDS[function.__name__] = function
    return function


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@attack
def connection_flood(self: Attacker) -> None:
    self.hold(200, self.dial)
    self.held.pop(0).close()


@attack
def silent_connections(self: Attacker) -> None:
    self.hold(100, self.connect)
    self.held.pop(self.random.randrange(len(self.held))).close()


@attack
def half_handshakes(self: Attacker) -> None:
    def half() -> socket.socket:
        hello = self.hello()
        sock = self.dial()
        self.held.append(sock)
        sock.sendall(hello[: len(hello) // 2])
        return self.held.pop()

    self.hold(100, half)
    self.held.pop(0).close()


@attack
def handshakes_byte_by_byte(self: Attacker) -> None:
    socks = self.hold(30, self.dial)
    for octets in zip(*(self.hello() for _ in socks), strict=False):
        for sock, octet in zip(socks, octets, strict=True):
            sock.sendall(bytes([octet]))
    self.close()


@attack
def handshakes_over_and_over(self: Attacker) -> None:
    self.connect().close()


@attack
def slow_bodies(self: Attacker) -> None:
    def begin() -> socket.socket:
        sock = self.connect()
        sock.sendall(request(length=1 << 19))
        return sock

    for sock in self.hold(50, begin):
        sock.sendall(b"x")


@attack
def large_bodies_without_end(self: Attacker) -> None:
    def begin() -> socket.socket:
        sock = self.connect()
        sock.sendall(request(b"x" * 900_000, length=1_000_000))
        return sock

    self.hold(80, begin)
    self.stop.wait(0.2)
    self.close()


@attack
def giant_headers(self: Attacker) -> None:
    sock = self.connect()
    self.held = [sock]
    sock.sendall(b"OPTIONS sip:bob@victim.example SIP/2.0\r\nX: ")
    while True:  # until it is closed
        sock.sendall(b"x" * 16384)


@attack
def costly_heads(self: Attacker) -> None:
    """As many fields as are allowed, and a little more than that."""
    many = "".join(f"X-{number}: {'y' * 200}\r\n" for number in range(240))
    self.hold(10, self.connect)
    for sock in self.held:
        sock.sendall(request(more=many, user="nobody"))
        sock.sendall(request(more=VIAS))
    self.held.pop(0).close()
    self.stop.wait(0.02)


@attack
def endless_crlf(self: Attacker) -> None:
    sock = self.connect()
    self.held = [sock]
    while True:
        sock.sendall(b"\r\n" * 4096)


@attack
def never_reading(self: Attacker) -> None:
    """Small windows, and one request after the other."""

    def deaf() -> socket.socket:
        sock = self.connect()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        return sock

    for sock in self.hold(20, deaf):
        sock.sendall(request(more=VIAS))  # whose answer is as long


@attack
def pipelines_that_are_not_read(self: Attacker) -> None:
    """Many at once, again and again; not so many that the victim is at it for long when the attackers have gone."""
    for sock in self.hold(50, self.connect):
        sock.sendall(b"".join(request() for _ in range(5)))
    self.stop.wait(0.1)


@attack
def wrong_tls(self: Attacker) -> None:
    sock = self.dial()
    self.held = [sock]
    sock.sendall(
        self.random.choice(
            [
                b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10\x01\x00\x80",  # SSL 2
                b"\x16\x03\x01\xff\xff\x01\x00\xff\xfb\x03\x03",  # larger than a record may be
                b"\x15\x03\x03\x00\x02\x02\x28",  # an alert for a beginning
                b"\x17\x03\x03\x00\x10" + bytes(16),  # data before any handshake
                b"GET / HTTP/1.1\r\nHost: victim.example\r\n\r\n",
                request() if self.is_tls else b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            ]
        )
    )
    sock.recv(4096)


@attack
def garbage(self: Attacker) -> None:
    sock = self.connect() if self.random.random() < 0.7 else self.dial()
    self.held = [sock]
    sock.sendall(os.urandom(self.random.choice([1, 10, 1000, 100_000])))
    sock.sendall(b"\r\n\r\n")
    sock.recv(4096)


@attack
def resets(self: Attacker) -> None:
    hello = self.hello()
    for part in (0, 1, len(hello) // 2, len(hello)):
        sock = self.dial()
        try:
            sock.sendall(hello[:part])
        finally:
            reset(sock)
    sock = self.connect()
    try:
        sock.sendall(request() + request(length=100))
    finally:
        reset(sock)


@attack
def what_nobody_asked_for(self: Attacker) -> None:
    """Answers and ACKs without a request, CANCELs without an INVITE, and requests to nobody."""
    self.hold(5, self.connect)
    plain = request()
    stray = (
        plain.replace(b"OPTIONS sip:bob@victim.example SIP/2.0", b"SIP/2.0 200 OK", 1)
        + plain.replace(b"OPTIONS", b"ACK")
        + plain.replace(b"OPTIONS", b"CANCEL")
        + request(user="nobody")
    )
    for sock in self.held:
        sock.sendall(stray * 20)
        sock.settimeout(0)
        with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError):
            while sock.recv(65536):
                pass
        sock.settimeout(PATIENCE)
    self.stop.wait(0.05)


def run(name: str, attacker: Attacker, begun: Callable[[], None]) -> int:
    rounds = 0
    begins = threading.Timer(0.1, begun)
    begins.start()
    while not attacker.stop.is_set():
        try:
            ROUNDS[name](attacker)
        except OSError:  # it was turned away, or let go: again
            attacker.close()
        rounds += 1
    begins.join()
    attacker.close()
    return rounds


def main(certificate: str, authority: str) -> None:
    context = ssl.create_default_context(cafile=authority)
    context.load_cert_chain(certificate)
    lines: queue.Queue[str] = queue.Queue()

    def listen() -> None:
        for line in sys.stdin:
            lines.put(line)
            if not line.strip():
                stop.set()
        lines.put("")
        stop.set()

    stop = threading.Event()
    threading.Thread(target=listen, daemon=True).start()
    while line := lines.get():
        if not line.strip():
            continue
        name, transport, port = line.split()
        rounds = run(name, Attacker(transport, int(port), context, stop), lambda: print("begun", flush=True))
        stop.clear()
        print("over", rounds, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
