"""What is done again and again, and must come out each time: at the full scale hundreds and thousands of times."""

from __future__ import annotations

import functools
import gc
import os
import random
import signal
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from facade_support import BOUND
from scale import scaled

from p2psip import (
    ContentDescription,
    ManagerSettings,
    MessageReceivedEventArgs,
    MessageType,
    Operation,
    SessionReceivedEventArgs,
    SignalingSession,
    SignalingState,
    SipPeerToPeerEndpoint,
    SipResponseData,
    TlsFailureException,
    TlsFailureReason,
)
from p2psip.message.grammar import Remembered
from p2psip.testing import CertificateAuthority, FakeClock, MemoryNetwork, endpoint_pair, tls_manager

LOOPBACK = ("127.0.0.1", 0)
OFFER = ContentDescription("application/sdp", b"v=0\r\n")
SHORT = ManagerSettings(t1=0.1, t4=0.1)
"""What was over is forgotten soon."""
LEEWAY = 100
"""Objects that may be there or not at any moment; a leak shows as at least one for each of hundreds."""
NO_PAUSES = ManagerSettings(connect_back_off=0)


@pytest.fixture(scope="module")
def authority() -> CertificateAuthority:
    return CertificateAuthority()


def take(
    endpoint: SipPeerToPeerEndpoint, heard: Counter[str | None] | None = None, calls: Counter[str] | None = None
) -> SipPeerToPeerEndpoint:
    """It takes messages and calls, and counts them by their text and their Call-ID."""

    def hear(sender: object, args: MessageReceivedEventArgs) -> None:
        if heard is not None:
            heard[args.text_body] += 1

    def accept(sender: object, args: SessionReceivedEventArgs) -> None:
        if calls is not None:
            calls[args.session.call_id] += 1
        args.session.accept(OFFER)

    endpoint.message_received += hear
    endpoint.session_received += accept
    return endpoint


def address(endpoint: SipPeerToPeerEndpoint) -> str:
    return f"{endpoint.owner_uri.partition('@')[0]}@localhost:{endpoint.connection_manager.listening_port}"


class Held:
    """What this process holds."""

    def __init__(self) -> None:
        gc.collect()
        for each in gc.get_objects():  # what is remembered has a limit
            if isinstance(each, functools._lru_cache_wrapper) and each.__module__.startswith("p2psip"):
                each.cache_clear()
            elif isinstance(each, Remembered):
                each.clear()
        gc.collect()
        self.threads = threading.active_count()
        self.objects = Counter(type(each).__module__ for each in gc.get_objects())
        descriptors = Path("/proc/self/fd")
        self.descriptors = len(list(descriptors.iterdir())) if descriptors.exists() else 0

    @property
    def ours(self) -> int:
        return sum(count for module, count in self.objects.items() if module.startswith("p2psip"))

    def __str__(self) -> str:
        return f"{self.ours} objects of ours, {self.descriptors} descriptors, {self.threads} threads"


def flat(before: Held, what: str) -> None:
    """Nothing is left over, once those that are on their way out have gone."""
    end = time.monotonic() + BOUND
    while True:
        now = Held()
        if now.ours <= before.ours + LEEWAY and now.descriptors <= before.descriptors + 3:
            break
        assert time.monotonic() < end, f"{before} before, {now} after {what}"
        threading.Event().wait(0.05)
    assert now.threads <= before.threads + 3
    print(f"{what}: {before} before, {now} after")


# ---------------------------------------------------------------------- refusals that come late


@pytest.mark.long
@pytest.mark.holds("F16", "R6")
@pytest.mark.parametrize("waiting", [1, 3, 100])
def test_a_late_refusal_again_and_again(authority: CertificateAuthority, waiting: int) -> None:
    """Each request fails, once, with what the server's alert means."""
    strangers = CertificateAuthority("Strangers")
    runs, worst = scaled(1000), 0.0
    with (
        tls_manager(authority, "bob.example", "localhost") as theirs,
        tls_manager(strangers, "alice.example", trusted_roots=authority.certificate, settings=NO_PAUSES) as ours,
    ):
        bob = SipPeerToPeerEndpoint("sip:bob@bob.example", theirs)
        arrived: list[object] = []
        bob.message_received += lambda sender, args: arrived.append(args)
        theirs.start_listening(LOOPBACK)
        alice = SipPeerToPeerEndpoint("sip:alice@alice.example", ours)
        for run in range(runs):
            ends: Counter[Operation[SipResponseData]] = Counter()
            told = threading.Semaphore(0)

            def ended(operation: Any, ends: Counter[Operation[SipResponseData]] = ends, told: Any = told) -> None:
                ends[operation] += 1
                told.release()

            begun = time.monotonic()
            operations = [alice.begin_send_message(MessageType.MESSAGE, address(bob), body="x") for _ in range(waiting)]
            for operation in operations:
                operation.add_done_callback(ended)
            errors = [operation.exception(BOUND) for operation in operations]
            worst = max(worst, time.monotonic() - begun)
            assert {type(error) for error in errors} == {TlsFailureException}, (run, errors)
            reasons = {error.failure_reason for error in errors}  # type: ignore[union-attr]
            assert reasons == {TlsFailureReason.TLS_NEGOTIATION_FAILURE}, (run, errors)
            assert len({id(error) for error in errors}) == waiting
            assert all(told.acquire(timeout=BOUND) for _ in operations)
            assert ends == dict.fromkeys(operations, 1)
        assert arrived == []
    print(f"{runs} refusals of {waiting} requests each; the slowest took {worst:.2f} s")


# ---------------------------------------------------------------------- Ctrl-C


@pytest.mark.long
@pytest.mark.holds("F28", "R41")
@pytest.mark.skipif(os.name != "posix", reason="signals to oneself are POSIX's")
def test_ctrl_c_at_any_moment(authority: CertificateAuthority) -> None:
    """In the middle of messages, calls, and listening."""
    moments, lots, worst = scaled(200), random.Random(41), 0.0
    with (
        tls_manager(authority, "bob.example", "localhost") as theirs,
        tls_manager(authority, "alice.example") as ours,
    ):
        bob = take(SipPeerToPeerEndpoint("sip:bob@bob.example", theirs))
        theirs.start_listening(LOOPBACK)
        alice = SipPeerToPeerEndpoint("sip:alice@alice.example", ours)
        sessions: list[SignalingSession] = []

        def ask() -> None:
            assert alice.send_message(MessageType.MESSAGE, address(bob), body="x", timeout=BOUND).response_code == 200

        def call() -> None:
            sessions.append(SignalingSession(alice, address(bob)))
            sessions[-1].establish(OFFER, timeout=BOUND)
            sessions[-1].terminate()

        def listen() -> None:
            ours.start_listening(LOOPBACK)
            ours.stop_listening()

        ask()
        for number in range(moments):
            action = (ask, call, listen)[number % 3]
            sent: list[float] = []

            def interrupt(pause: float, sent: list[float] = sent) -> None:
                threading.Event().wait(pause)
                sent.append(time.monotonic())
                os.kill(os.getpid(), signal.SIGINT)

            thread = threading.Thread(target=interrupt, args=(lots.uniform(0, 0.02),))
            with pytest.raises(KeyboardInterrupt):
                thread.start()
                while thread.is_alive() or time.monotonic() < sent[0] + 0.5:
                    action()
            worst = max(worst, time.monotonic() - sent[0])
            thread.join(BOUND)
            if ours.listening_port:
                ours.stop_listening()
            while sessions:
                sessions.pop().begin_terminate().result(BOUND)
            ask()
        assert len(ours.connections()) == 1  # nothing was lost or replaced on the way
        assert worst < 0.5
    print(f"{moments} times Ctrl-C; the slowest came out after {worst:.3f} s")


# ---------------------------------------------------------------------- listening


@pytest.mark.long
@pytest.mark.holds("F30")
def test_listening_stops_and_starts_under_connects(authority: CertificateAuthority) -> None:
    """Handshakes are under way, connections are up, and others are refused each time."""
    times, over = scaled(200), threading.Event()
    context = ssl.create_default_context(cadata=authority.pem.decode())
    authority.issue("alice.example").load_into(context)
    made: Counter[str] = Counter()

    def connect(port: int) -> None:
        while not over.is_set():
            try:
                with (
                    socket.create_connection(("127.0.0.1", port), BOUND) as plain,
                    context.wrap_socket(plain, server_hostname="localhost", do_handshake_on_connect=False) as tls,
                ):
                    tls.do_handshake()
                    made["connected"] += 1
            except OSError:
                made["refused"] += 1

    with tls_manager(authority, "bob.example", "localhost") as manager:
        take(SipPeerToPeerEndpoint("sip:bob@bob.example", manager))
        manager.start_listening(LOOPBACK)
        port = manager.listening_port
        before = Held()
        threads = [threading.Thread(target=connect, args=(port,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(times):
                known = made["connected"]
                manager.stop_listening()
                assert manager.listening_port == 0
                manager.start_listening(("127.0.0.1", port))
                assert manager.listening_port == port
                wait_until(lambda known=known: made["connected"] > known)  # type: ignore[misc]
        finally:
            over.set()
            for thread in threads:
                thread.join(BOUND)
        flat(before, f"{times} stops and starts")
    print(dict(made))


def wait_until(condition: Callable[[], bool]) -> None:
    """Of what nobody tells."""
    end = time.monotonic() + BOUND
    while not condition():
        assert time.monotonic() < end
        threading.Event().wait(0.002)


# ---------------------------------------------------------------------- both at once


@pytest.mark.long
@pytest.mark.holds("F31")
def test_both_connect_and_ask_at_once(authority: CertificateAuthority) -> None:
    """Messages and calls cross, and so do the connections that they go over; each is answered once."""
    for number in range(scaled(200)):
        with (
            tls_manager(authority, "alice.example", "localhost") as one,
            tls_manager(authority, "bob.example", "localhost") as two,
        ):
            heard: Counter[str | None] = Counter()
            calls: Counter[str] = Counter()
            ends = [SipPeerToPeerEndpoint(f"sip:{n}@localhost", m) for n, m in (("alice", one), ("bob", two))]
            for end in ends:
                take(end, heard, calls)
                end.connection_manager.start_listening(LOOPBACK)
            barrier = threading.Barrier(2)
            codes: list[int] = []
            sessions: list[SignalingSession] = []

            def act(
                own: SipPeerToPeerEndpoint,
                other: SipPeerToPeerEndpoint,
                barrier: threading.Barrier = barrier,
                codes: list[int] = codes,
                sessions: list[SignalingSession] = sessions,
            ) -> None:
                session = SignalingSession(own, address(other))
                barrier.wait(BOUND)
                operations = [
                    own.begin_send_message(MessageType.MESSAGE, address(other), body=f"{own.owner_uri} {n}")
                    for n in range(3)
                ]
                operations.append(session.begin_establish(OFFER))
                codes.extend(int(operation.result(BOUND).response_code) for operation in operations)
                sessions.append(session)

            threads = [threading.Thread(target=act, args=pair) for pair in (ends, ends[::-1])]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(BOUND)
            assert codes == [200] * 8, number
            assert sorted(heard.values()) == [1] * 6, (number, heard)
            assert calls == {session.call_id: 1 for session in sessions}, number
            for session in sessions:
                session.terminate()


@pytest.mark.long
@pytest.mark.holds("F31")
def test_both_change_their_call_at_once(authority: CertificateAuthority) -> None:
    """Two re-INVITEs that cross are both answered 491, tried again, and both done in the end (RFC 3261 14.1)."""
    count, clock = scaled(200), FakeClock()
    with (
        MemoryNetwork(clock) as network,
        endpoint_pair(authority=authority, network=network) as pair,
    ):
        called: dict[str, SignalingSession] = {}

        def accept(sender: object, args: SessionReceivedEventArgs) -> None:
            args.session.offer_answer_negotiation = Fixed()
            args.session.accept(OFFER)
            called[args.session.call_id] = args.session

        pair.bob.session_received += accept
        ours = [SignalingSession(pair.alice, pair.bob.uri) for _ in range(count)]
        for session in ours:
            session.offer_answer_negotiation = Fixed()
            session.establish(OFFER, timeout=BOUND)
        wait_until(lambda: all(s.state is SignalingState.CONNECTED for s in called.values()) and len(called) == count)
        (link,) = network.links
        link.hold()
        changes = [side.begin_renegotiate(OFFER) for session in ours for side in (session, called[session.call_id])]
        clock.settle()
        link.release()
        end = time.monotonic() + BOUND
        while not all(change.done() for change in changes):
            assert time.monotonic() < end
            clock.advance(0.05)
            threading.Event().wait(0.002)
        assert [int(change.result(0).response_code) for change in changes] == [200] * 2 * count


class Fixed:
    """Agrees to whatever is offered."""

    def get_offer(self, session: SignalingSession) -> ContentDescription:
        return OFFER

    def get_answer(self, session: SignalingSession, offer: ContentDescription) -> ContentDescription:
        return OFFER

    def set_answer(self, session: SignalingSession, answer: ContentDescription) -> None:
        pass

    def handle_offer_in_invite_response(self, session: SignalingSession, args: Any) -> None:
        args.ready_to_answer()

    def handle_offer_in_reinvite(self, session: SignalingSession, args: Any) -> None:
        args.accept()


# ---------------------------------------------------------------------- coming and going


@pytest.mark.long
@pytest.mark.holds("F39")
def test_connections_come_and_go(authority: CertificateAuthority) -> None:
    """Each is made for one request, and closed by the one side or the other."""
    count = scaled(20_000)
    with (
        tls_manager(authority, "bob.example", "localhost") as theirs,
        tls_manager(authority, "alice.example") as ours,
    ):
        bob = take(SipPeerToPeerEndpoint("sip:bob@bob.example", theirs))
        theirs.start_listening(LOOPBACK)
        alice = SipPeerToPeerEndpoint("sip:alice@alice.example", ours)

        def go(number: int) -> None:
            answer = alice.send_message(MessageType.MESSAGE, address(bob), body="x", timeout=BOUND)
            assert answer.response_code == 200
            manager = theirs if number % 2 else ours
            (connection,) = manager.connections()
            connection.disconnect()
            wait_until(lambda: not ours.connections() and not theirs.connections())

        for number in range(20):
            go(number)
        before = Held()
        for number in range(count):
            go(number)
        flat(before, f"{count} connections")


@pytest.mark.long
@pytest.mark.holds("F39")
def test_calls_come_and_go(authority: CertificateAuthority) -> None:
    count = scaled(20_000)
    with (
        tls_manager(authority, "bob.example", "localhost", settings=SHORT) as theirs,
        tls_manager(authority, "alice.example", settings=SHORT) as ours,
    ):
        bob = take(SipPeerToPeerEndpoint("sip:bob@bob.example", theirs))
        theirs.start_listening(LOOPBACK)
        alice = SipPeerToPeerEndpoint("sip:alice@alice.example", ours)

        def call(number: int) -> None:
            session = SignalingSession(alice, address(bob))
            session.establish(OFFER, timeout=BOUND)
            session.terminate()

        for number in range(20):
            call(number)
        before = Held()
        for number in range(count):
            call(number)
        flat(before, f"{count} calls")
        assert len(ours.connections()) == 1
