"""The glue: effects one after the other, and a defect that stays where it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from facade_support import BOUND, TcpPair, tcp_pair

from p2psip import ConnectionFailureException, MessageType
from p2psip.core.effects import Complete
from p2psip.message import Request
from p2psip.stack import Stack


@pytest.fixture
def pair() -> object:
    with tcp_pair() as pair:
        yield pair


class User:
    """Is told of the end of a request, and does something then."""

    def __init__(self, told: Callable[[], object]) -> None:
        self.complete = lambda response, error: told()


def carry_out(stack: Stack, *users: User) -> None:
    def run() -> None:
        stack.engine.effects.extend(Complete(user, None, None) for user in users)
        stack._run()

    stack.call("effects", run).result(BOUND)


def test_what_an_effect_asks_for_comes_after_the_others(pair: TcpPair) -> None:
    stack = pair.alice.connection_manager._stack
    seen: list[str] = []

    def first() -> None:
        seen.append("first")
        stack.engine.effects.append(Complete(User(lambda: seen.append("asked for by the first")), None, None))
        stack._run()

    carry_out(stack, User(first), User(lambda: seen.append("second")))
    assert seen == ["first", "second", "asked for by the first"]


def test_an_effect_that_fails_leaves_the_others_alone(pair: TcpPair, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []

    def fail() -> None:
        raise ValueError("a defect")

    carry_out(pair.alice.connection_manager._stack, User(fail), User(lambda: seen.append("second")))
    assert seen == ["second"]
    assert "could not be carried out" in caplog.text and "a defect" in caplog.text


@pytest.mark.holds("R37", "F36")
@pytest.mark.parametrize("defect", [RecursionError, MemoryError, ValueError])
def test_a_defect_in_one_message_ends_its_connection_and_nothing_else(
    pair: TcpPair, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, defect: type[Exception]
) -> None:
    engine = pair.bob.connection_manager._stack.engine
    receive = engine.receive

    def receive_or_break(now: float, flow: Any, message: Any) -> None:
        if type(message) is Request and message.headers.get("X-Break"):
            raise defect
        receive(now, flow, message)

    monkeypatch.setattr(engine, "receive", receive_or_break)
    pair.bob.message_received += lambda sender, args: None
    with pytest.raises(ConnectionFailureException):
        pair.alice.send_message(MessageType.MESSAGE, pair.bob.uri, headers=[("X-Break", "1")], timeout=BOUND)
    assert "an error of this library" in caplog.text and "MESSAGE sip:bob@" in caplog.text
    assert pair.alice.send_message(MessageType.MESSAGE, pair.bob.uri, body="x", timeout=BOUND).response_code == 200


@pytest.mark.holds("F21", "R37")
def test_what_comes_behind_a_defect_is_not_handled(pair: TcpPair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connection is being closed, and the engine may have lost its way with what it had begun there."""
    pair.bob.message_received += lambda sender, args: None
    pair.alice.send_message(MessageType.MESSAGE, pair.bob.uri, body="x", timeout=BOUND)
    stack = pair.bob.connection_manager._stack
    (connection,) = stack.network.connections()
    requests = [Request("OPTIONS", f"sip:{name}@b.example") for name in ("first", "second")]
    handled: list[Any] = []

    def receive(now: float, flow: Any, message: Any) -> None:
        handled.append(message)
        raise ValueError("a defect")

    monkeypatch.setattr(stack.engine, "receive", receive)
    stack.call("two messages", stack.messages_received, connection, requests).result(BOUND)
    assert handled == requests[:1]
    assert not connection.is_connected
