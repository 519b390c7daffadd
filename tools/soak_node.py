"""One of the peers of a soak: it calls the others, writes to them and subscribes, keeps books, and counts what it has."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import gc
import logging
import queue
import random
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from processes import Heap, Usage, own_heap, own_usage
from soak_ledger import UNTOLD, Ledger

import p2psip
from p2psip.sync import dispatch

BODY = p2psip.ContentDescription("application/sdp", b"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n")
HEADER = "X-Soak"
"""Bears the name of a request in the books, where the body does not."""
RAISES, LATER = "raises", "later"
"""What a handler does with a message, says its body."""
STABLE = 20
"""Looks in a row that find nothing gone."""
STEP = 0.02
"""Seconds between two looks at something that ends by itself."""

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Pace:
    """How much a node does, and how long it waits.

    Attributes:
        messages: Seconds between two of them, on average; one thread sends them.
        calls: Threads that place calls, one after the other.
        pause: Seconds between two calls, or subscriptions, of one thread, on average.
        patience: Seconds that a call may last which somebody else has placed, because who placed it may have lost it;
            and those that subscriptions are asked for.
        reload: Seconds between two readings of the certificate.
        reconnect: Seconds between two connections that the node itself closes.
        rest: Seconds until everything that was under way has ended, at most.
        keep_alive: Seconds that a thread without work stays.
    """

    messages: float = 0.06
    calls: int = 2
    pause: float = 0.8
    patience: float = 8.0
    reload: float = 7.0
    reconnect: float = 5.0
    rest: float = 80.0
    keep_alive: float = dispatch.KEEP_ALIVE


@dataclasses.dataclass(frozen=True)
class Census:
    """What a node has when nothing is under way.

    Attributes:
        objects: How many of each type of the library.
        usage: What the system says.
        heap: What is in use of its memory.
        left: What should not be there, in sentences.
    """

    objects: collections.Counter[str]
    usage: Usage
    heap: Heap
    left: list[str]


class SoakError(Exception):
    """A handler raises it because it was asked to."""


class Node:
    """An endpoint that listens on mutual TLS and one that listens on TCP, with what drives them.

    Args:
        name: Of the user and, with ``.example``, of the host.
        folder: Where certificates are: ``NAME.pem``, which is written anew now and then, and ``root.pem``; books and
            logs go there.
        names: All nodes.
        t1: Of the settings, in seconds; None is the usual one.
    """

    def __init__(self, name: str, folder: Path, names: list[str], pace: Pace, t1: float | None, seed: int) -> None:
        logging.basicConfig(filename=folder / f"{name}.log", level=logging.WARNING)
        logging.getLogger().handlers[0].addFilter(_was_not_asked_for)
        dispatch.KEEP_ALIVE = pace.keep_alive
        self._name = name
        self._pace = pace
        self._certificate = folder / f"{name}.pem"
        self._ledger = Ledger(folder / f"{name}.ledger", name)
        self._random = random.Random(f"{seed} {name}")
        settings = p2psip.ManagerSettings() if t1 is None else p2psip.ManagerSettings(t1=t1)
        resolver = {f"{each}.example": ["127.0.0.1"] for each in names}
        host = f"{name}.example"
        tls = p2psip.RealTimeServerTlsConnectionManager.from_files(
            self._certificate,
            trusted_roots=folder / "root.pem",
            settings=settings,
            resolver=resolver,
        )
        tcp = p2psip.RealTimeServerTcpConnectionManager(host, settings=settings, resolver=resolver)
        self._managers: list[p2psip.RealTimeServerConnectionManager] = [tls, tcp]
        self._tls = tls
        self._endpoints: list[p2psip.SipPeerToPeerEndpoint] = []
        for manager in self._managers:
            manager.start_listening(("127.0.0.1", 0))
            endpoint = p2psip.SipPeerToPeerEndpoint(f"sip:{name}@{host}", manager)
            endpoint.message_received += self._message_received
            endpoint.session_received += self._session_received
            endpoint.subscription_received += self._subscription_received
            self._endpoints.append(endpoint)
        self._later: queue.SimpleQueue[p2psip.MessageReceivedEventArgs] = queue.SimpleQueue()
        self._incoming: queue.SimpleQueue[p2psip.IncomingSubscription | None] = queue.SimpleQueue()
        self._calls: collections.deque[tuple[float, str, p2psip.SignalingSession]] = collections.deque()
        self._ways: dict[str, list[list[int]]] = {}
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        threading.Thread(target=self._answer_later, name="answers", daemon=True).start()

    def ports(self) -> list[int]:
        """Where it listens: for TLS, for TCP."""
        return [manager.listening_port for manager in self._managers]

    def usage(self) -> Usage:
        """What the process has."""
        return own_usage()

    # ------------------------------------------------------------------ driving

    def drive(self, ways: dict[str, list[list[int]]]) -> None:
        """Begin. ``ways`` are the ports at which each of the others is reached: for TLS and for TCP, some of each."""
        self._ways = ways
        self._over.clear()
        pace = self._pace
        drivers: list[Callable[[], None]] = [self._write, *[self._call] * pace.calls, self._subscribe]
        drivers += [self._notify, self._notify, self._hang_up, self._reload, self._reconnect]
        self._threads = [threading.Thread(target=self._drive, args=(driver,), daemon=True) for driver in drivers]
        for thread in self._threads:
            thread.start()

    def _drive(self, driver: Callable[[], None]) -> None:
        while not self._over.is_set():
            try:
                driver()
            except Exception:
                _log.exception("A driver failed, which is an error of this tool or of this library")
                self._over.wait(1.0)

    def _pause(self, mean: float) -> bool:
        """Wait about so long. True: it is over."""
        return self._over.wait(self._random.uniform(0.5, 1.5) * mean)

    def _choose(self) -> tuple[p2psip.SipPeerToPeerEndpoint, str, str]:
        """From where, to whom, and that one's address."""
        to = self._random.choice(list(self._ways))
        kind = self._random.randrange(len(self._endpoints))
        port = self._random.choice(self._ways[to][kind])
        transport = ("tls", "tcp")[kind]
        return self._endpoints[kind], to, f"sip:{to}@{to}.example:{port};transport={transport}"

    def _write(self) -> None:
        endpoint, to, address = self._choose()
        name = self._ledger.sends("message", to)
        what = self._random.choices(["", RAISES, LATER], (16, 1, 3))[0]
        body = f"{name} {what} {'x' * self._random.choice((0, 300, 300, 300, 20_000))}"
        try:
            operation: Any = endpoint.begin_send_message(p2psip.MessageType.MESSAGE, address, body=body)
        except Exception as error:
            self._ledger.ended_with(name, error)
        else:
            self._ledger.watch(name, operation)
        self._pause(self._pace.messages)

    def _attempt(self, name: str, function: Callable[..., object], *args: Any, **keywords: Any) -> bool:
        """Do it and write down how it ended; whether it went well."""
        try:
            function(*args, **keywords)
        except Exception as error:
            self._ledger.ended_with(name, error)
            return False
        self._ledger.ended_with(name, None)
        return True

    def _call(self) -> None:
        endpoint, to, address = self._choose()
        session = p2psip.SignalingSession(endpoint, address)
        sends, attempt = self._ledger.sends, self._attempt
        session.terminated_by_remote += self._saw
        name = sends("invite", to)
        if attempt(name, session.establish, BODY, [(HEADER, name)]):
            for _ in range(self._random.randrange(4)):
                live = session.state is p2psip.SignalingState.CONNECTED
                if not live or self._over.is_set():
                    break
                with contextlib.suppress(p2psip.RealTimeInvalidOperationException):  # it may end at any time
                    self._in_call(session, to)
            self._end(session, to)
        self._pause(self._pace.pause)

    def _end(self, session: p2psip.SignalingSession, to: str) -> None:
        name = self._ledger.sends("bye", to)
        session.terminate([(HEADER, name)])
        self._ledger.ended(name, UNTOLD)

    def _hang_up(self) -> None:
        """End what others have begun and not ended."""
        while self._calls and self._calls[0][0] < time.monotonic():
            _, other, session = self._calls.popleft()
            if session.state is not p2psip.SignalingState.DISCONNECTED:
                self._end(session, other)
        self._over.wait(self._pace.patience / 8)

    def _in_call(self, session: p2psip.SignalingSession, to: str) -> None:
        if self._random.random() < 0.5:
            name = self._ledger.sends("info", to)
            self._attempt_in_call(name, session.send_message, p2psip.MessageType.INFO, body=f"{name}  ")
        else:
            name = self._ledger.sends("reinvite", to)
            self._attempt_in_call(name, session.renegotiate, BODY, [(HEADER, name)])

    def _attempt_in_call(self, name: str, function: Callable[..., object], *args: Any, **keywords: Any) -> None:
        try:
            function(*args, **keywords)
        except p2psip.RealTimeInvalidOperationException:
            self._ledger.ended(name, "RealTimeInvalidOperationException")
        except Exception as error:
            self._ledger.ended_with(name, error)
        else:
            self._ledger.ended_with(name, None)

    def _subscribe(self) -> None:
        endpoint, to, address = self._choose()
        name = self._ledger.sends("subscribe", to)
        subscription = p2psip.SipSubscription(
            endpoint, address, "presence", headers=[(HEADER, name)], expires=max(1, round(self._pace.patience))
        )
        subscription.notification_received += self._notified
        try:
            if self._attempt(name, subscription.subscribe) and not self._pause(self._pace.pause):
                with contextlib.suppress(p2psip.RealTimeException, p2psip.RealTimeInvalidOperationException):
                    subscription.refresh()
                self._pause(self._pace.pause)
        finally:
            subscription.terminate()
        self._pause(self._pace.pause)

    def _notify(self) -> None:
        incoming = self._incoming.get()
        if incoming is None:
            return
        for _ in range(self._random.randrange(6)):
            if not incoming.is_active or self._pause(self._pace.pause / 4):
                break
            name = self._ledger.sends("notify", _user(incoming.request_data))
            try:
                answer = incoming.notify("text/plain", f"{name}  ")
            except Exception as error:
                self._ledger.ended_with(name, error)
            else:
                self._ledger.ended(name, UNTOLD) if answer is None else self._ledger.ended_with(name, None)
        if self._over.is_set() or self._random.random() < 0.2:
            incoming.terminate("noresource")

    def _reload(self) -> None:
        if not self._pause(self._pace.reload):
            try:
                self._tls.reload_certificates()
            except p2psip.TlsFailureException as error:  # it is being written
                _log.warning("The certificate is not what it should be: %s", error)

    def _reconnect(self) -> None:
        if not self._pause(self._pace.reconnect):
            connections = [each for manager in self._managers for each in manager.connections()]
            if connections:
                self._random.choice(connections).disconnect()

    # ------------------------------------------------------------------ what comes in

    def _message_received(self, sender: object, args: p2psip.MessageReceivedEventArgs) -> None:
        name, what, _ = (args.text_body or "? ? ?").split(" ", 2)
        self._ledger.saw(name, _key(args.request_data))
        if what == RAISES:
            raise SoakError
        if what == LATER:
            args.disable_automatic_response = True
            self._later.put(args)

    def _answer_later(self) -> None:
        while True:
            args = self._later.get()
            with contextlib.suppress(p2psip.RealTimeInvalidOperationException):  # this process was stopped so long
                args.send_response(202)

    def _session_received(self, sender: object, args: p2psip.SessionReceivedEventArgs) -> None:
        self._ledger.saw(args.request_data.header(HEADER), _key(args.request_data))
        session = args.session
        session.message_received += self._message_received
        session.re_invite_received += self._saw
        session.terminated_by_remote += self._saw
        with contextlib.suppress(p2psip.RealTimeInvalidOperationException):  # it was taken back or lost meanwhile
            session.begin_accept(lambda offer: BODY)
        self._calls.append((time.monotonic() + self._pace.patience, _user(args.request_data), session))

    def _saw(self, sender: object, args: Any) -> None:
        if args.request_data.header(HEADER) is not None:  # else the library has ended what had failed
            self._ledger.saw(args.request_data.header(HEADER), _key(args.request_data))

    def _subscription_received(self, sender: object, args: p2psip.SubscriptionReceivedEventArgs) -> None:
        self._ledger.saw(args.request_data.header(HEADER), _key(args.request_data))
        with contextlib.suppress(p2psip.RealTimeInvalidOperationException):  # it was lost meanwhile
            args.subscription.accept()
        self._incoming.put(args.subscription)

    def _notified(self, sender: object, args: p2psip.NotificationReceivedEventArgs) -> None:
        data = args.request_data
        if data.text_body:  # the first and the last one have none
            self._ledger.saw(data.text_body.partition(" ")[0], _key(data))

    # ------------------------------------------------------------------ the end

    def stop(self) -> list[str]:
        """Begin nothing any more, and end what was begun here. Drivers that have not come to an end, in sentences."""
        end = time.monotonic() + self._pace.rest
        self._over.set()
        for _ in self._threads:
            self._incoming.put(None)
        left = []
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
            if thread.is_alive():
                left.append(f"{self._name}: a driver is still at work: {_where(thread)}")
        return left

    def rest(self) -> list[str]:
        """When all have stopped: end what others have begun here and cannot end any more, and wait until all that was
        under way has ended. What has not, in sentences."""
        end = time.monotonic() + self._pace.rest
        left = []
        for endpoint in self._endpoints:
            for hosted in list(endpoint._sessions):
                if isinstance(hosted, p2psip.IncomingSubscription):
                    hosted.terminate()
        with contextlib.suppress(queue.Empty):
            while True:
                self._incoming.get_nowait()
        while self._calls:
            _, other, session = self._calls.popleft()
            self._end(session, other)
        left += self._wait(end, "requests without an end", lambda: self._ledger.open)
        for manager, endpoint in zip(self._managers, self._endpoints, strict=True):
            engine = manager._stack.engine
            left += self._wait(
                end, "subscriptions or sessions", lambda engine=engine: len(list(engine.dialogs.usages()))
            )
            left += self._wait(end, "transactions", engine._count)
            left += self._wait(end, "sessions of an endpoint", lambda endpoint=endpoint: len(endpoint._sessions))
        if left:
            self._tell_what_is_there()
        return [f"{self._name}: {sentence}" for sentence in left]

    def _tell_what_is_there(self) -> None:
        """In the log, for whoever looks for the reason."""
        for manager in self._managers:
            _log.warning("Something is left: %s", manager.snapshot())
            for usage in manager._stack.engine.dialogs.usages():
                _log.warning("Left: %r, told: %r", usage, usage.user)

    def count(self) -> Census:
        """Close the connections, wait for threads that have nothing to do, and count what there is."""
        end = time.monotonic() + self._pace.rest
        left = []
        for manager in self._managers:
            for connection in manager.connections():
                connection.disconnect()
        for manager in self._managers:
            left += self._wait(end, "connections", lambda manager=manager: len(manager._stack.network._all))
        settled = time.monotonic() + self._pace.keep_alive * 2 + 1.0
        while any("worker" in each.name or "watcher" in each.name for each in threading.enumerate()):
            if time.monotonic() > settled:
                break
            time.sleep(STEP)
        self._ledger.flush()
        for manager in self._managers:
            manager._stack._recent.clear()  # the last messages, which are kept for the log, and with them connections
        for each in gc.get_objects():
            if isinstance(each, functools._lru_cache_wrapper) and (each.__module__ or "").startswith("p2psip"):
                each.cache_clear()  # as many as it may keep, and no more
        found, looks = _objects(), 0
        while looks < STABLE:  # a pause before another attempt, say, is over by itself
            time.sleep(STEP)
            again = _objects()
            looks = 0 if again.total() < found.total() else looks + 1
            found = again
        return Census(found, own_usage(), own_heap(), [f"{self._name}: {sentence}" for sentence in left])

    def _wait(self, end: float, what: str, count: Callable[[], int]) -> list[str]:
        while count():
            if time.monotonic() > end:
                return [f"{count()} {what}"]
            time.sleep(STEP)
        return []

    def dispose(self) -> list[str]:
        """The end of all; what is left then."""
        for manager in self._managers:
            manager.dispose()
        ours = [each for each in threading.enumerate() if each.name.startswith("p2psip")]
        for thread in ours:
            thread.join(1.0)
        return [each.name for each in ours if each.is_alive()]


def _was_not_asked_for(record: logging.LogRecord) -> bool:
    """A filter of logs: without what handlers raise because they were asked to, and how much of that was left out."""
    if record.exc_info is None:
        return "left out: The handler" not in record.getMessage()
    return not isinstance(record.exc_info[1], SoakError)


def _key(data: Any) -> str:
    return f"{data.call_id}/{data.cseq}".replace(" ", "_")


def _user(data: p2psip.SipRequestData) -> str:
    """Which node has sent it."""
    return data.from_.uri.host.partition(".")[0]


def _where(thread: threading.Thread) -> str:
    """What the thread waits in."""
    frame = sys._current_frames().get(thread.ident or 0)
    names = []
    while frame is not None and len(names) < 8:
        names.append(f"{frame.f_code.co_name}:{frame.f_lineno}")
        frame = frame.f_back
    return " < ".join(names)


def _objects() -> collections.Counter[str]:
    """How many of each type of the library are alive."""
    gc.collect()
    return collections.Counter(
        f"{type(each).__module__}.{type(each).__qualname__}"
        for each in gc.get_objects()
        if type(each).__module__.startswith("p2psip")
    )
