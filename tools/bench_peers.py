"""What bench.py measures: two endpoints, and the processes in which both sides of a measurement live."""

from __future__ import annotations

import collections
import gc
import multiprocessing
import os
import queue
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench_reference import ANSWER, BACKLOG, REQUEST

import p2psip

NAME = "peer.example.com"
"""What the certificates bear."""
PATIENCE = 120.0
"""Seconds that a process may take to answer."""


class Peer:
    """An object in a process of its own, made there meanwhile: ``call`` runs one of its methods. A context manager."""

    def __init__(self, make: Callable[..., Any], *args: Any, **keywords: Any) -> None:
        self._name = make.__name__
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, args, keywords), daemon=True)
        self._process.start()
        theirs.close()

    def call(self, method: str, *args: Any) -> Any:
        self._pipe.send((method, args))
        if not self._pipe.poll(PATIENCE):
            raise SystemExit(f"bench: {self._name} gave no answer within {PATIENCE:g} s.")
        try:
            worked, answer = self._pipe.recv()
        except EOFError:
            raise SystemExit(f"bench: the process of {self._name} has died.") from None
        if not worked:
            raise SystemExit(f"bench: {self._name} failed: {answer}")
        return answer

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._pipe.close()
        self._process.terminate()
        self._process.join(PATIENCE)


def _serve(pipe: Any, make: Callable[..., Any], args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
    """What the process of a Peer does."""
    try:
        served = make(*args, **keywords)
        while True:
            method, args = pipe.recv()
            pipe.send((True, resident() if method == "resident" else getattr(served, method)(*args)))
    except (EOFError, KeyboardInterrupt):
        pass
    except BaseException as error:
        pipe.send((False, f"{type(error).__name__}: {error}"))


def resident() -> int:
    """Bytes of memory that this process has."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def manager(folder: Path, settings: p2psip.ManagerSettings | None) -> p2psip.RealTimeServerTlsConnectionManager:
    return p2psip.RealTimeServerTlsConnectionManager.from_files(
        folder / "leaf.pem", trusted_roots=folder / "root.pem", settings=settings
    )


def wide() -> p2psip.ManagerSettings:
    """Settings for more connections from one address than anybody should have."""
    return p2psip.ManagerSettings(
        trusted_addresses=frozenset({"127.0.0.1"}), maximum_connections=20_000, maximum_handshakes=BACKLOG
    )


class OurServer:
    """An endpoint with a handler, which leaves the answer to the library."""

    def __init__(self, folder: Path, host: str = "127.0.0.1", settings: p2psip.ManagerSettings | None = None) -> None:
        self._manager = manager(folder, settings)
        self._endpoint = p2psip.SipPeerToPeerEndpoint("sip:bob@example.com", self._manager)
        self._endpoint.message_received += self._received
        self._manager.start_listening((host, 0))

    def _received(self, sender: object, args: object) -> None:
        pass

    def port(self) -> int:
        return self._manager.listening_port


class OurClient:
    """An endpoint that sends, on one thread."""

    def __init__(self, folder: Path, settings: p2psip.ManagerSettings | None = None) -> None:
        self._manager = manager(folder, settings)
        self._endpoint = p2psip.SipPeerToPeerEndpoint("sip:alice@example.com", self._manager)
        self._options = p2psip.SendMessageOptions(tls_target_name=NAME)
        self._body = b"x" * 300
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

    def _begin(self, port: int) -> p2psip.Operation[p2psip.SipResponseData]:
        return self._endpoint.begin_send_message(
            p2psip.MessageType.MESSAGE, f"sip:bob@127.0.0.1:{port};transport=tls", "text/plain", self._body
        )

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

    def open(self, port: int, count: int, parallel: int) -> float:
        """Open connections, with one exchange on each; they stay open. Seconds it took."""
        begun = time.perf_counter()
        window: collections.deque[p2psip.Operation[p2psip.SipResponseData]] = collections.deque()
        for _ in range(count):
            if len(window) == parallel:
                window.popleft().result()
            address = f"sip:bob@{next(self._hosts)}:{port};transport=tls"
            window.append(self._endpoint.begin_send_message(p2psip.MessageType.OPTIONS, address, options=self._options))
        for operation in window:
            operation.result()
        return time.perf_counter() - begun

    def tls(self) -> tuple[str, str]:
        """Version and cipher of the connections."""
        connection = self._manager.connections()[0]
        return str(connection.tls_version), str(connection.cipher)
