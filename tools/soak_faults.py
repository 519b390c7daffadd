"""The bad network and the bad peers of a soak, in a process of their own: connections that are cut at random bytes or
stand still, and strangers who send garbage, never finish what they began, or never read."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import random
import ssl
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

LOOPBACK = "127.0.0.1"
STRANGER = "127.0.0.2"
"""Where strangers come from, where the system lets them: the limits per address are then theirs alone."""
SIP = (
    "OPTIONS sip:nobody@{host}:{port} SIP/2.0\r\nVia: SIP/2.0/TLS mallory.example;branch=z9hG4bK{number};rport\r\n"
    "From: <sip:mallory@mallory.example>;tag=1\r\nTo: <sip:nobody@{host}>\r\nCall-ID: {number}\r\n"
    "CSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
)


@dataclasses.dataclass(frozen=True)
class Trouble:
    """How bad it is.

    Attributes:
        cut: Bytes after which a connection through a relay is cut, at most; it is chosen anew for each.
        still: Seconds that one stands still now and then, at most.
        strangers: Seconds between two of them, on average.
        patience: Seconds that a stranger stays who says no more.
    """

    cut: int = 150_000
    still: float = 3.0
    strangers: float = 0.5
    patience: float = 12.0


class Faults:
    """The process's object: relays before the nodes, and strangers.

    Args:
        folder: Has ``mallory.pem``, a good certificate, and ``root.pem``.
        names: Hosts of the nodes.
    """

    def __init__(self, folder: Path, trouble: Trouble, seed: int) -> None:
        self._trouble = trouble
        self._random = random.Random(f"{seed} faults")
        self._done: collections.Counter[str] = collections.Counter()
        self._carrying: set[asyncio.Task[None] | None] = set()
        self._running = False
        self._nodes: list[tuple[str, int, bool]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._good = ssl.create_default_context(cafile=str(folder / "root.pem"))
        self._good.check_hostname = False
        self._good.load_cert_chain(folder / "mallory.pem")
        self._nameless = ssl.create_default_context(cafile=str(folder / "root.pem"))
        self._nameless.check_hostname = False
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="faults", daemon=True).start()

    def relay(self, host: str, port: int, is_tls: bool) -> int:
        """A port that leads to that one, by a bad way."""

        async def open_relay() -> int:
            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                task = asyncio.current_task()
                self._carrying.add(task)  # nobody else keeps it
                try:
                    await self._carry(port, reader, writer)
                finally:
                    self._carrying.discard(task)

            server = await asyncio.start_server(serve, LOOPBACK, 0)
            self._nodes.append((host, port, is_tls))
            return int(server.sockets[0].getsockname()[1])

        return asyncio.run_coroutine_threadsafe(open_relay(), self._loop).result()

    def begin(self) -> None:
        """Strangers come, and connections are cut."""
        self._running = True
        asyncio.run_coroutine_threadsafe(self._send_strangers(), self._loop)

    def rest(self) -> dict[str, int]:
        """Strangers leave, and connections last. How often what was done."""
        self._running = False

        async def leave() -> None:
            for task in list(self._tasks):
                task.cancel()

        asyncio.run_coroutine_threadsafe(leave(), self._loop).result()
        return dict(self._done)

    # ------------------------------------------------------------------ relays

    async def _carry(self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there_reader, there_writer = await asyncio.open_connection(LOOPBACK, port)
        except OSError:
            writer.transport.abort()
            return
        left = [self._random.randrange(1, self._trouble.cut)]
        try:
            await asyncio.gather(self._pump(reader, there_writer, left), self._pump(there_reader, writer, left))
        except OSError:
            pass
        finally:
            for end in (writer, there_writer):
                end.transport.abort()
                with contextlib.suppress(OSError):
                    await end.wait_closed()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, left: list[int]) -> None:
        while data := await reader.read(16384):
            if self._running and len(data) >= left[0]:
                writer.write(data[: left[0]])
                if self._random.random() < 0.5:
                    self._done["connections cut"] += 1
                    with contextlib.suppress(OSError):
                        await writer.drain()
                        writer.write_eof()
                    await asyncio.sleep(0.05)
                else:
                    self._done["connections reset"] += 1
                raise ConnectionResetError
            left[0] -= len(data)
            if self._running and self._random.random() < 0.002:
                self._done["connections that stood still"] += 1
                await asyncio.sleep(self._random.uniform(0, self._trouble.still))
            elif self._running and self._random.random() < 0.02:
                self._done["messages byte by byte"] += 1
                for index in range(min(len(data), 200)):
                    writer.write(data[index : index + 1])
                    await asyncio.sleep(0)
                data = data[200:]
            writer.write(data)
            await writer.drain()
        with contextlib.suppress(OSError):
            writer.write_eof()

    # ------------------------------------------------------------------ strangers

    async def _send_strangers(self) -> None:
        kinds: list[Callable[[str, int, bool], Awaitable[None]]] = [
            self._garbage,
            self._half_open,
            self._no_certificate,
            self._never_reads,
            self._half_message,
            self._garbage_after_handshake,
            self._come_and_go,
        ]
        while self._running:
            await asyncio.sleep(self._random.uniform(0.5, 1.5) * self._trouble.strangers)
            if self._nodes and self._running:
                task = self._loop.create_task(self._meet(self._random.choice(kinds), self._random.choice(self._nodes)))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _meet(self, kind: Callable[[str, int, bool], Awaitable[None]], node: tuple[str, int, bool]) -> None:
        self._done["strangers: " + kind.__name__.strip("_").replace("_", " ")] += 1
        with contextlib.suppress(OSError, ssl.SSLError, asyncio.IncompleteReadError):
            await kind(*node)

    @contextlib.asynccontextmanager
    async def _connected(self, port: int, context: ssl.SSLContext | None):  # type: ignore[no-untyped-def]
        name = None if context is None else "anybody.example"
        try:
            streams = await asyncio.open_connection(
                LOOPBACK, port, ssl=context, server_hostname=name, local_addr=(STRANGER, 0)
            )
        except ssl.SSLError:
            raise
        except OSError:
            streams = await asyncio.open_connection(LOOPBACK, port, ssl=context, server_hostname=name)
        try:
            yield streams
        finally:
            streams[1].transport.abort()
            with contextlib.suppress(OSError):
                await streams[1].wait_closed()

    async def _stay(self, reader: asyncio.StreamReader) -> None:
        """Until the node ends it, or patience does."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(reader.read(), self._trouble.patience)

    async def _garbage(self, host: str, port: int, is_tls: bool) -> None:
        async with self._connected(port, None) as (reader, writer):
            writer.write(self._random.choice((b"GET / HTTP/1.1\r\n\r\n", self._random.randbytes(500), b"\x16\x03\x01")))
            await self._stay(reader)

    async def _half_open(self, host: str, port: int, is_tls: bool) -> None:
        async with self._connected(port, None) as (reader, writer):
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = self._good.wrap_bio(incoming, outgoing, server_hostname=host)
            with contextlib.suppress(ssl.SSLWantReadError):
                tls.do_handshake()
            hello = outgoing.read()
            writer.write(hello[: self._random.randrange(len(hello) + 1)])
            await self._stay(reader)

    async def _no_certificate(self, host: str, port: int, is_tls: bool) -> None:
        async with self._connected(port, self._nameless if is_tls else None) as (reader, writer):
            writer.write(SIP.format(host=host, port=port, number=self._random.random()).encode())
            await self._stay(reader)

    async def _never_reads(self, host: str, port: int, is_tls: bool) -> None:
        async with self._connected(port, self._good if is_tls else None) as (reader, writer):
            reader._transport.pause_reading()  # type: ignore[attr-defined]
            for _ in range(300):
                writer.write(SIP.format(host=host, port=port, number=self._random.random()).encode())
            await asyncio.sleep(self._trouble.patience / 4)

    async def _half_message(self, host: str, port: int, is_tls: bool) -> None:
        async with self._connected(port, self._good if is_tls else None) as (reader, writer):
            message = SIP.format(host=host, port=port, number=self._random.random()).encode()
            writer.write(message * 3 + message[: self._random.randrange(len(message))])
            if self._random.random() < 0.5:
                await self._stay(reader)

    async def _garbage_after_handshake(self, host: str, port: int, is_tls: bool) -> None:
        async with self._connected(port, self._good if is_tls else None) as (reader, writer):
            message = SIP.format(host=host, port=port, number=self._random.random())
            bad = ("Content-Length: -1", "Content-Length: 99999999999", "Content-Length: 0\r\nContent-Length: 1", "\0")
            writer.write(message.replace("Content-Length: 0", self._random.choice(bad)).encode())
            await self._stay(reader)

    async def _come_and_go(self, host: str, port: int, is_tls: bool) -> None:
        for _ in range(10):
            async with self._connected(port, self._good if is_tls else None) as (_, writer):
                writer.write(SIP.format(host=host, port=port, number=self._random.random()).encode())
                await asyncio.sleep(0)
