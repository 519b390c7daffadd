"""More than handlers can take: reading rests, then 503 with Retry-After, and nothing is lost."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from facade_support import BOUND

import p2psip
from p2psip import (
    IPEndPoint,
    ManagerSettings,
    MessageReceivedEventArgs,
    RealTimeServerTcpConnectionManager,
    SipPeerToPeerEndpoint,
    SipTransportType,
)
from p2psip import pressure as pressure_module
from p2psip.message import Request, Response, StreamFramer, create_response
from p2psip.pressure import Pressure
from p2psip.testing import MemoryNetwork, endpoint_pair, living_in

SETTINGS = ManagerSettings(strand_high_mark=8, strand_low_mark=4)
_numbers = itertools.count(1)


class Peer:
    """Sends what it wants over one connection, and sorts the answers by Call-ID."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sock.settimeout(BOUND)
        self._framer = StreamFramer()
        self.requests: list[Request] = []
        self.answers: dict[str, Response] = {}

    def send(self, to: str, *, method: str = "MESSAGE", body: bytes = b"") -> str:
        """One request; its Call-ID."""
        name = str(next(_numbers))
        self.say(
            Request(
                method,
                f"sip:{to}@bob.example",
                [
                    ("Via", f"SIP/2.0/TCP peer.example;branch=z9hG4bK{name}"),
                    ("Max-Forwards", "70"),
                    ("From", f"<sip:peer@peer.example>;tag={name}"),
                    ("To", f"<sip:{to}@bob.example>"),
                    ("Call-ID", name),
                    ("CSeq", f"1 {method}"),
                    ("Contact", "<sip:peer@peer.example;transport=tcp>"),
                    *([("Content-Type", "application/octet-stream")] if body else ()),
                ],
                body,
            )
        )
        return name

    def say(self, message: Request | Response) -> None:
        self._sock.sendall(message.to_bytes())

    def hear(self) -> None:
        """Wait for something."""
        data = self._sock.recv(65536)
        assert data, "the connection was closed"
        for message in self._framer.feed(data):
            if isinstance(message, Request):
                self.requests.append(message)
            elif isinstance(message, Response) and message.status_code >= 200:
                assert message.call_id not in self.answers
                self.answers[message.call_id] = message

    def code(self, name: str) -> int:
        """Wait for the answer to that one."""
        while name not in self.answers:
            self.hear()
        response = self.answers[name]
        if response.status_code == 503:
            assert response.headers.get("Retry-After") == "5"
        return response.status_code

    def codes(self, names: list[str]) -> list[int]:
        return [self.code(name) for name in names]


@dataclasses.dataclass
class Busy:
    """A manager with an endpoint whose handler waits to be released, and one beside it."""

    manager: RealTimeServerTcpConnectionManager
    slow: SipPeerToPeerEndpoint
    quick: SipPeerToPeerEndpoint
    release: threading.Event
    begun: threading.Event
    handled: list[str]
    stack: contextlib.ExitStack

    def peer(self) -> Peer:
        sock = socket.create_connection(("127.0.0.1", self.manager.listening_port))
        self.stack.callback(sock.close)
        return Peer(sock)

    @property
    def pressure(self) -> Pressure:
        return self.manager._stack.pressure

    def look(self, function: Callable[[], Any]) -> Any:
        """What it says on the loop's thread."""
        return self.manager._stack.call("a look", function).result(BOUND)

    def wait(self, function: Callable[[], Any]) -> None:
        """Until it is so, which takes some turns of the loop and nothing else."""
        for _ in range(100_000):
            if self.look(function):
                return
        pytest.fail("it never came to that")


@contextlib.contextmanager
def busy(settings: ManagerSettings = SETTINGS) -> Iterator[Busy]:
    release, begun, handled = threading.Event(), threading.Event(), []
    with (
        RealTimeServerTcpConnectionManager("bob.example", settings=settings) as manager,
        contextlib.ExitStack() as stack,
    ):
        manager.start_listening(("127.0.0.1", 0))
        slow, quick = (SipPeerToPeerEndpoint(f"sip:{name}@bob.example", manager) for name in ("slow", "quick"))

        def handler(sender: object, args: MessageReceivedEventArgs) -> None:
            begun.set()
            release.wait(BOUND)
            handled.append(args.request_data.call_id)

        slow.message_received += handler
        quick.message_received += lambda sender, args: None
        stack.callback(release.set)
        yield Busy(manager, slow, quick, release, begun, handled, stack)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading hardly rests."""
    monkeypatch.setattr(pressure_module, "PATIENCE", 0.0)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading rests for longer than any test takes."""
    monkeypatch.setattr(pressure_module, "PATIENCE", 10 * BOUND)


@pytest.mark.holds("R29")
def test_each_request_is_handled_in_order_or_refused_and_never_both(impatient: None) -> None:
    with busy() as bob:
        peer = bob.peer()
        names = [peer.send("slow") for _ in range(200)]
        bob.wait(lambda: bob.pressure.counts["refused"] >= 150)
        bob.release.set()
        codes = dict(zip(names, peer.codes(names), strict=True))
        assert set(codes.values()) == {200, 503}
        assert bob.handled == [name for name in names if codes[name] == 200]
        assert len(bob.handled) >= 8
        assert bob.pressure.counts["refused"] == list(codes.values()).count(503)
        bob.wait(lambda: not bob.pressure._held)
        assert peer.code(peer.send("slow")) == 200


def test_a_burst_that_handlers_catch_up_with_is_handled_to_the_last(patient: None) -> None:
    with busy(ManagerSettings(strand_high_mark=100, strand_low_mark=50)) as bob:
        peer = bob.peer()
        names = [peer.send("slow") for _ in range(110)]
        bob.wait(lambda: bob.pressure.counts["paused"] == 1)
        (connection,) = bob.manager._stack.network.connections()
        read = bob.look(lambda: connection.messages_received)
        names += [peer.send("slow") for _ in range(200)]
        for _ in range(50):
            assert bob.look(lambda: connection.messages_received) == read
        bob.release.set()
        assert peer.codes(names) == [200] * len(names)
        assert bob.handled == names
        assert bob.pressure.counts["refused"] == 0


def test_a_queue_that_comes_down_and_is_full_again_is_full_all_the_while(patient: None) -> None:
    """Else a load that never ends would only ever be read more slowly, and wait in the system's buffers."""
    with busy() as bob:
        peer = bob.peer()
        turns = threading.Semaphore(0)
        bob.quick.message_received += lambda sender, args: turns.acquire(timeout=BOUND)
        strand = bob.quick._strand
        names = [peer.send("quick") for _ in range(12)]
        bob.wait(lambda: bob.pressure.counts["paused"] == 1)
        refuses_at = bob.look(lambda: bob.pressure._held[strand].refuses_at)
        turns.release(8)
        bob.wait(lambda: not bob.pressure._held[strand].held)
        names += [peer.send("quick") for _ in range(8)]
        bob.wait(lambda: bob.pressure.counts["paused"] == 2)
        assert bob.look(lambda: bob.pressure._held[strand].refuses_at) == refuses_at
        turns.release(12)
        assert peer.codes(names) == [200] * 20


def test_others_have_room_while_one_connection_floods(impatient: None) -> None:
    with busy() as bob:
        flood, other = bob.peer(), bob.peer()
        flooded = [flood.send("slow") for _ in range(100)]
        bob.wait(lambda: bob.pressure.counts["refused"] >= 50)
        polite = [other.send("slow") for _ in range(3)]
        assert other.code(other.send("quick")) == 200
        bob.release.set()
        assert other.codes(polite) == [200] * 3
        assert 503 in flood.codes(flooded)


@pytest.mark.holds("F21")
def test_a_handler_that_hangs_keeps_nobody_else_from_the_connection() -> None:
    with busy() as bob:
        peer = bob.peer()
        names = [peer.send("slow") for _ in range(30)]
        assert peer.code(peer.send("quick")) == 200
        refused = [name for name in names if name in peer.answers]
        assert peer.codes(refused) == [503] * len(refused)
        assert len(refused) > 5
        assert bob.pressure.counts["paused"] == 1
        bob.release.set()
        peer.codes(names)


def test_what_was_answered_for_a_handler_that_hangs_is_not_handled_later(impatient: None) -> None:
    with busy(dataclasses.replace(SETTINGS, handler_limit=0.3)) as bob:
        peer = bob.peer()
        names = [peer.send("slow") for _ in range(4)]
        assert peer.codes(names) == [500] * 4
        bob.release.set()
        assert peer.code(peer.send("slow")) == 200
        assert len(bob.handled) == 2, "the one that hung, and the one that came after it"
        assert bob.pressure.counts["refused"] == 0


def test_what_has_waited_for_half_of_its_time_is_refused(patient: None) -> None:
    with busy() as bob:
        peer = bob.peer()
        first = peer.send("slow")
        assert bob.begun.wait(BOUND)
        second = peer.send("slow")
        bob.wait(lambda: bob.slow._strand.depth == 1)
        bob.pressure._longest = 0.0
        bob.release.set()
        assert peer.codes([first, second]) == [200, 503]
        assert bob.handled == [first]
        assert bob.pressure.counts["refused"] == 1


def test_a_handler_hears_the_answer_to_its_own_request_over_the_connection_that_floods(patient: None) -> None:
    with busy() as bob, socket.create_server(("127.0.0.1", 0)) as server:
        results: list[int] = []
        paused = threading.Event()
        address = f"sip:peer@127.0.0.1:{server.getsockname()[1]};transport=tcp"

        def ask(sender: SipPeerToPeerEndpoint, args: MessageReceivedEventArgs) -> None:
            if not results:
                assert paused.wait(BOUND)
                results.append(sender.send_message("INFO", address).response_code)

        bob.quick.message_received += ask
        opening = bob.slow.begin_send_message("OPTIONS", address)
        sock, _ = server.accept()
        bob.stack.callback(sock.close)
        peer = Peer(sock)
        while not peer.requests:
            peer.hear()
        peer.say(create_response(peer.requests.pop(), 200, to_tag="peer"))
        assert opening.result(BOUND).response_code == 200
        names = [peer.send("quick") for _ in range(14)]
        bob.wait(lambda: bob.pressure.counts["paused"] == 1)
        paused.set()
        while not peer.requests:
            peer.hear()
        peer.say(create_response(peer.requests.pop(), 202, to_tag="peer"))
        assert peer.codes(names) == [200] * 14
        assert results == [202]


def test_what_waits_is_limited_by_its_bytes_as_well(impatient: None) -> None:
    with busy(ManagerSettings(maximum_buffered=400_000)) as bob:
        peer = bob.peer()
        names = [peer.send("slow", body=b"x" * 20_000) for _ in range(20)]
        bob.wait(lambda: bob.pressure.counts["refused"] >= 10)
        assert 80_000 <= bob.look(lambda: bob.pressure.weight.depth) <= 200_000
        light = peer.send("slow")
        bob.release.set()
        codes = peer.codes(names)
        assert peer.code(light) == 200
        assert codes.count(200) == len(bob.handled) - 1
        assert codes[:4] == [200] * 4
        bob.wait(lambda: bob.pressure.weight.depth == 0)


def test_who_sends_much_leaves_room_for_others_who_do(impatient: None) -> None:
    with busy(ManagerSettings(maximum_buffered=400_000)) as bob:
        peer, other = bob.peer(), bob.peer()
        names = [peer.send("slow", body=b"x" * 20_000) for _ in range(20)]
        bob.wait(lambda: bob.pressure.counts["refused"] >= 10)
        assert other.code(other.send("quick", body=b"x" * 20_000)) == 200
        bob.release.set()
        assert 503 in peer.codes(names)
        bob.wait(lambda: not bob.pressure.weight.shares)


def test_calls_that_ring_are_limited_by_their_bytes(impatient: None) -> None:
    """A handler has seen each of them, and somebody is asked whether to take it, which may last for minutes."""
    with busy(ManagerSettings(maximum_buffered=400_000)) as bob:
        calls: queue.SimpleQueue[p2psip.SignalingSession] = queue.SimpleQueue()
        bob.slow.session_received += lambda sender, args: calls.put(args.session)
        peer, other = bob.peer(), bob.peer()
        names = [peer.send("slow", method="INVITE", body=b"x" * 20_000) for _ in range(20)]
        bob.wait(lambda: bob.pressure.counts["refused"] >= 10)
        assert bob.look(lambda: bob.pressure.weight.depth) <= 200_000
        other.send("slow", method="INVITE", body=b"x" * 20_000)
        peer.send("slow", method="INVITE")
        bob.wait(lambda: calls.qsize() == 22 - bob.pressure.counts["refused"])  # those two among them
        while not calls.empty():
            calls.get().terminate_with_rejection(486)
        assert set(peer.codes(names)) == {486, 503}
        bob.wait(lambda: not bob.pressure.weight.shares)


def test_calls_that_find_no_worker_are_refused(impatient: None) -> None:
    with busy(dataclasses.replace(SETTINGS, maximum_workers=1)) as bob:
        seen: list[str] = []

        def ring(sender: object, args: p2psip.SessionReceivedEventArgs) -> None:
            bob.begun.set()
            bob.release.wait(BOUND)
            seen.append(args.request_data.call_id)
            args.session.terminate_with_rejection(486)

        bob.slow.session_received += ring
        peer = bob.peer()
        names = [peer.send("slow", method="INVITE") for _ in range(40)]
        bob.wait(lambda: bob.pressure.counts["refused"] >= 20)
        bob.release.set()
        codes = dict(zip(names, peer.codes(names), strict=True))
        assert set(codes.values()) == {486, 503}
        assert sorted(seen) == sorted(name for name, code in codes.items() if code == 486)


@pytest.mark.parametrize("who", ["subscriber", "notifier"])
def test_a_subscription_whose_handler_hangs_refuses_and_keeps_its_connection(
    who: str, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pressure_module, "LOOK", 0.001)
    with endpoint_pair(SipTransportType.TCP, settings=SETTINGS) as pair:
        incoming: list[p2psip.IncomingSubscription] = []
        release = threading.Event()

        def arrived(sender: object, args: p2psip.SubscriptionReceivedEventArgs) -> None:
            incoming.append(args.subscription)
            args.subscription.refreshed += hang
            args.subscription.accept()

        def hang(sender: object, args: object) -> None:
            release.wait(BOUND)

        pair.bob.subscription_received += arrived
        pair.alice.message_received += lambda sender, args: None
        pair.bob.message_received += lambda sender, args: None
        subscription = p2psip.SipSubscription(pair.alice, pair.bob.uri, "presence")
        with subscription.notification_received.expect(BOUND):
            subscription.subscribe()
        here, there = (pair.alice, pair.bob) if who == "notifier" else (pair.bob, pair.alice)
        if who == "subscriber":
            subscription.notification_received += hang
        codes: list[int] = []
        while 503 not in codes:
            assert len(codes) < 50
            try:
                answer = incoming[0].notify("text/plain", "x") if who == "subscriber" else subscription.refresh()
                assert answer is not None
                codes.append(answer.response_code)
            except p2psip.FailureResponseException as error:
                assert error.retry_after == 5
                codes.append(int(error.response_data.response_code))
        assert codes[:8] == [200] * 8
        assert here.send_message("MESSAGE", there.uri, timeout=BOUND).response_code == 200
        release.set()
        assert incoming[0].is_active and subscription.is_active
        subscription.terminate()


def test_peers_are_turned_away_while_the_events_of_their_like_are_not_handled() -> None:
    """Whoever connects and goes costs two events; without an end they would fill the memory."""
    settings = ManagerSettings(strand_high_mark=2, strand_low_mark=1)
    begun, end = threading.Event(), threading.Event()

    def hangs(sender: object, args: object) -> None:
        begun.set()
        assert end.wait(BOUND)

    def connect() -> None:
        network.connect(socket.AF_INET, ("192.0.2.2", 5060)).close()

    with MemoryNetwork() as network, living_in(network), RealTimeServerTcpConnectionManager(settings=settings) as bob:
        bob.incoming_connection_removed += hangs
        bob.start_listening(IPEndPoint("192.0.2.2", 5060))
        connect()
        assert begun.wait(BOUND)
        for _ in range(200):
            connect()
            bob._stack.call("a look", bool).result(BOUND)
        assert bob.statistics().refusals["strand_high_mark"]
        assert 20 <= bob._stack.events.depth < 100
        end.set()
        with bob.incoming_connection_added.expect(BOUND):
            while bob._stack.events.depth:
                bob._stack.call("a look", bool).result(BOUND)
            connect()


def test_handlers_that_all_wait_for_an_ack_get_it_while_the_trace_is_behind() -> None:
    """The trace waits for a worker, the only worker for the ACK, and the ACK must not wait for the trace."""
    accepted: queue.SimpleQueue[int] = queue.SimpleQueue()
    with busy(dataclasses.replace(SETTINGS, maximum_workers=1)) as bob:
        bob.manager.trace += lambda sender, args: None

        def accept(sender: object, args: p2psip.SessionReceivedEventArgs) -> None:
            args.session.accept(p2psip.ContentDescription("application/sdp", b"v=0\r\n"))
            accepted.put(1)

        bob.quick.session_received += accept
        peer = bob.peer()
        call = peer.send("quick", method="INVITE")
        assert peer.code(call) == 200
        for _ in range(8):
            peer.send("quick", method="OPTIONS")
        bob.wait(lambda: bob.pressure.counts["paused"])
        answer = peer.answers[call]
        ack = [("Via", "SIP/2.0/TCP peer.example;branch=z9hG4bKack"), ("Max-Forwards", "70")]
        ack += [(name, answer.headers.get(name) or "") for name in ("From", "To", "Call-ID")]
        peer.say(Request("ACK", str(answer.contact[0].uri), [*ack, ("CSeq", "1 ACK")]))  # type: ignore[union-attr]
        assert accepted.get(timeout=BOUND) == 1
