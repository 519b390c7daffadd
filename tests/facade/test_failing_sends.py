"""Writing fails at the first byte: each operation ends once, with a typed error, and never from within the call."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from facade_support import BOUND, TcpPair, tcp_pair

from p2psip import (
    ConnectionFailureException,
    ContentDescription,
    MessageType,
    SignalingSession,
    SipPublication,
    SipSubscription,
)
from p2psip.net.sockets import PlainSocket

Begin = Callable[[TcpPair], Any]

OPERATIONS: dict[str, Begin] = {
    "message": lambda pair: pair.alice.begin_send_message(MessageType.MESSAGE, pair.bob.uri, body="x"),
    "call": lambda pair: SignalingSession(pair.alice, pair.bob.uri).begin_establish(
        ContentDescription("application/sdp", b"v=0\r\n")
    ),
    "subscription": lambda pair: SipSubscription(pair.alice, pair.bob.uri, "presence").begin_subscribe(),
    "publication": lambda pair: SipPublication(pair.alice, pair.bob.uri, "presence").begin_publish(
        "application/pidf+xml", "<presence/>"
    ),
    "transfer": lambda pair: pair.alice.begin_refer(pair.bob.uri, "sip:carol@c.example"),
}


@pytest.fixture
def pair() -> Iterator[TcpPair]:
    with tcp_pair() as found:
        found.bob.message_received += lambda sender, args: None
        yield found


@pytest.mark.holds("R36", "A22")
@pytest.mark.parametrize("connected", [False, True])
@pytest.mark.parametrize("what", OPERATIONS)
def test_a_send_that_fails_at_once_ends_its_operation_once(
    pair: TcpPair, monkeypatch: pytest.MonkeyPatch, what: str, connected: bool
) -> None:
    if connected:
        pair.alice.send_message(MessageType.MESSAGE, pair.bob.uri, body="x", timeout=BOUND)
    entered = threading.Event()
    real = PlainSocket.send

    def send(self: PlainSocket, view: memoryview) -> int:
        entered.set()
        raise self._lost(OSError(errno.EPIPE, os.strerror(errno.EPIPE)))

    monkeypatch.setattr(PlainSocket, "send", send)
    threads: list[str] = []
    ended = threading.Event()

    def done(operation: Any) -> None:
        threads.append(threading.current_thread().name)
        ended.set()

    operation = OPERATIONS[what](pair)
    operation.add_done_callback(done)
    assert entered.wait(BOUND)
    error = operation.exception(BOUND)
    assert isinstance(error, ConnectionFailureException), error
    assert ended.wait(BOUND)
    monkeypatch.setattr(PlainSocket, "send", real)
    assert pair.alice.send_message(MessageType.MESSAGE, pair.bob.uri, body="x", timeout=BOUND).response_code == 200
    assert len(threads) == 1
    assert threads[0] != threading.current_thread().name
