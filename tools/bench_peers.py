"""What bench.py measures: two endpoints, and the processes in which both sides of a measurement live."""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import datetime
import ipaddress
import queue
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench_reference import ANSWER, BACKLOG, REQUEST
from bench_table import say
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from processes import Child

import p2psip

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

NAME = "peer.example.com"
"""What the certificates bear."""
PATIENCE = 300.0
"""Seconds that a process may take to answer."""
SPARE = 200
"""Descriptors that a process needs besides those of the connections that are counted."""


class Peer(Child):
    """One side of a measurement."""

    # This process has no threads, so that forks are safe; they have all imported already.
    start_method = "fork" if sys.platform == "linux" else "spawn"
    patience = PATIENCE

    def __init__(self, make: Callable[..., Any], *args: Any, **keywords: Any) -> None:
        descriptors()  # it has the limits of this process
        super().__init__(make, *args, **keywords)

    def call(self, method: str, *args: Any) -> Any:
        try:
            return super().call(method, *args)
        except RuntimeError as error:
            raise SystemExit(f"bench: {error}") from None


def descriptors() -> int:
    """How many this process may open, once the limit is as high as it may be."""
    if resource is None:
        return 1 << 20
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return 1 << 20 if most == resource.RLIM_INFINITY else most


def within_limits(connections: int) -> int:
    """So many, or as many as this system lets a process have."""
    allowed = descriptors() - SPARE
    if allowed < connections:
        say(
            f"  {allowed} connections in place of {connections}: "
            "a process may not have more descriptors here (ulimit -n)"
        )
    return min(connections, allowed)


def manager(
    folder: Path, settings: p2psip.ManagerSettings | None = None, transport: str = "TLS"
) -> p2psip.RealTimeServerConnectionManager:
    if transport == "TCP":
        return p2psip.RealTimeServerTcpConnectionManager(settings=settings)
    return p2psip.RealTimeServerTlsConnectionManager.from_files(
        folder / "leaf.pem", trusted_roots=folder / "root.pem", settings=settings
    )


def wide() -> p2psip.ManagerSettings:
    """Settings for more connections from one address than anybody should have."""
    return p2psip.ManagerSettings(
        trusted_addresses=frozenset({"127.0.0.1"}), maximum_connections=20_000, maximum_handshakes=BACKLOG
    )


def patient(transactions: int) -> p2psip.ManagerSettings:
    """Settings for so many transactions that wait for their answers until the measurement is over."""
    many, long = 2 * transactions + 1000, 2 * PATIENCE
    return dataclasses.replace(
        wide(),
        t1=long / 64,
        request_ceiling=long,
        provisional_delay=long,
        handler_limit=long,
        maximum_transactions=many,
        maximum_unanswered_per_connection=many,
    )


class OurServer:
    """Two endpoints: Bob has a handler that leaves the answer to the library; of Carol's answers none ever comes."""

    def __init__(
        self,
        folder: Path,
        host: str = "127.0.0.1",
        settings: p2psip.ManagerSettings | None = None,
        transport: str = "TLS",
    ) -> None:
        self._manager = manager(folder, settings, transport)
        self._endpoint = p2psip.SipPeerToPeerEndpoint("sip:bob@example.com", self._manager)
        self._endpoint.message_received += self._received
        self._silent = p2psip.SipPeerToPeerEndpoint("sip:carol@example.com", self._manager)
        self._silent.message_received += self._kept
        self._waiting = 0
        self._manager.start_listening((host, 0))

    def _received(self, sender: object, args: object) -> None:
        pass

    def _kept(self, sender: object, args: p2psip.MessageReceivedEventArgs) -> None:
        args.disable_automatic_response = True
        self._waiting += 1

    def waiting(self) -> int:
        """Requests that have no answer."""
        return self._waiting

    def port(self) -> int:
        return self._manager.listening_port


class OurClient:
    """An endpoint that sends, on one thread where nothing else is said."""

    def __init__(self, folder: Path, settings: p2psip.ManagerSettings | None = None, transport: str = "TLS") -> None:
        self._manager = manager(folder, settings, transport)
        self._transport = transport.lower()
        self._endpoint = p2psip.SipPeerToPeerEndpoint("sip:alice@example.com", self._manager)
        self._options = p2psip.SendMessageOptions(tls_target_name=NAME)
        self._body = b"x" * 300
        self._unanswered: list[p2psip.Operation[p2psip.SipResponseData]] = []
        self._hosts = (f"127.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}" for n in range(256, 1 << 24))

    def fit(self, port: int) -> tuple[int, int]:
        """Choose display name and body so that a MESSAGE to that port and its answer are as long as the blobs.

        Returns:
            The sizes of the MESSAGE and of its answer.
        """
        _, received = self._sizes(port)
        self._endpoint.display_name = "A" * (len(ANSWER) - received - 1)  # and a space; the answer repeats it
        sent, _ = self._sizes(port)
        self._body = b"x" * (len(self._body) + len(REQUEST) - sent)
        return self._sizes(port)

    def _sizes(self, port: int) -> tuple[int, int]:
        seen: queue.SimpleQueue[p2psip.TraceEventArgs] = queue.SimpleQueue()

        def trace(sender: object, args: p2psip.TraceEventArgs) -> None:
            seen.put(args)

        self._manager.trace += trace
        self._begin(port).result()
        sent, received = seen.get(timeout=PATIENCE), seen.get(timeout=PATIENCE)
        self._manager.trace -= trace
        return len(sent.data), len(received.data)

    def _uri(self, port: int, user: str = "bob", host: str = "127.0.0.1") -> str:
        return f"sip:{user}@{host}:{port};transport={self._transport}"

    def _begin(self, port: int) -> p2psip.Operation[p2psip.SipResponseData]:
        return self._endpoint.begin_send_message(p2psip.MessageType.MESSAGE, self._uri(port), "text/plain", self._body)

    def exchange(self, port: int, depth: int, seconds: float) -> tuple[int, float]:
        """Keep ``depth`` exchanges in flight for some time. How many there were, and seconds."""
        begin = self._begin
        begin(port).result()
        window = collections.deque(begin(port) for _ in range(depth))
        done = 0
        begun = time.perf_counter()
        end = begun + seconds
        while time.perf_counter() < end:
            window.popleft().result()
            window.append(begin(port))
            done += 1
        taken = time.perf_counter() - begun
        for operation in window:
            operation.result()
        return done, taken

    def exchange_blocking(self, port: int, threads: int, seconds: float) -> tuple[int, float]:
        """So many threads, each of which sends and waits, for some time. How many exchanges there were, and seconds."""
        uri, send, body = self._uri(port), self._endpoint.send_message, self._body
        send(p2psip.MessageType.MESSAGE, uri, "text/plain", body)
        begun = time.perf_counter()
        end = begun + seconds

        def run() -> int:
            done = 0
            while time.perf_counter() < end:
                send(p2psip.MessageType.MESSAGE, uri, "text/plain", body)
                done += 1
            return done

        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            counts = [pool.submit(run) for _ in range(threads)]
            done = sum(count.result() for count in counts)
        return done, time.perf_counter() - begun

    def begin_many(self, port: int, count: int) -> None:
        """So many more requests, which nobody answers."""
        uri, begin = self._uri(port, "carol"), self._endpoint.begin_send_message
        self._unanswered += [begin(p2psip.MessageType.MESSAGE, uri) for _ in range(count)]

    def unanswered(self) -> int:
        """How many of them are still waiting."""
        return sum(not operation.done() for operation in self._unanswered)

    def open(self, port: int, count: int, parallel: int) -> float:
        """Open connections, with one exchange on each; they stay open. Seconds it took."""
        begun = time.perf_counter()
        window: collections.deque[p2psip.Operation[p2psip.SipResponseData]] = collections.deque()
        for _ in range(count):
            if len(window) == parallel:
                window.popleft().result()
            address = self._uri(port, host=next(self._hosts))
            window.append(self._endpoint.begin_send_message(p2psip.MessageType.OPTIONS, address, options=self._options))
        for operation in window:
            operation.result()
        return time.perf_counter() - begun

    def tls(self) -> tuple[str, str]:
        """Version and cipher of the connections; empty without TLS."""
        connection = self._manager.connections()[0]
        return connection.tls_version or "", connection.cipher or ""


def make_certificates(folder: Path) -> None:
    """``root.pem``, and ``leaf.pem`` with its key, which both sides show."""
    now = datetime.datetime.now(datetime.timezone.utc)
    root_key, leaf_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "p2psip bench")])

    def unsigned(subject: x509.Name, key: ec.EllipticCurvePrivateKey, authority: bool) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=2))
            .add_extension(x509.BasicConstraints(authority, None), critical=True)
        )

    names = [x509.DNSName(NAME), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    root = unsigned(issuer, root_key, True).sign(root_key, hashes.SHA256())
    leaf = (
        unsigned(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)]), leaf_key, False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(root_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    key = leaf_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "root.pem").write_bytes(root.public_bytes(pem))
    (folder / "leaf.pem").write_bytes(leaf.public_bytes(pem) + key)
    (folder / "leaf.pem").chmod(0o600)
