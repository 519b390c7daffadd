"""Whatever a peer says in whatever order, and whatever our application does: see ``hostile_conversation`` for what must hold."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from conversations import CONVERSATIONS, spoiled
from hostile_conversation import Conversation
from hostile_steps import Do, Step, octets_of, steps_of
from hypothesis import given, note, settings
from hypothesis import strategies as st
from scale import scaled

from p2psip.errors import MessageParsingException

SPOILED = st.binary(min_size=20, max_size=160).map(spoiled)
"""Sound conversations of which some steps were changed."""
RANDOM = st.binary(min_size=40, max_size=600).map(steps_of)
"""Steps in any order."""


def converse(steps: Sequence[Step]) -> Conversation:
    conversation = Conversation(steps)
    try:
        conversation.run()
    except Exception:
        note("\n".join(conversation.log))
        raise
    return conversation


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_when_everybody_behaves(name: str) -> None:
    """They are what the others are made of; each gets as far as it is meant to."""
    conversation = converse(CONVERSATIONS[name])
    assert conversation.peer.all_of_ours
    assert steps_of(octets_of(CONVERSATIONS[name])) == CONVERSATIONS[name]


@settings(max_examples=60)
@given(SPOILED)
def test_conversations_that_are_spoiled(steps: list[Step]) -> None:
    converse(steps)


@settings(max_examples=40)
@given(RANDOM)
def test_conversations_at_random(steps: list[Step]) -> None:
    converse(steps)


@pytest.mark.long
def test_many_conversations() -> None:
    """The number in a failure does it again: ``converse(steps_for(number))``."""
    for number in range(scaled(10_000)):
        try:
            Conversation(steps_for(number)).run()
        except Exception as error:
            raise AssertionError(f"number {number}: {error!r}") from error


def steps_for(number: int) -> list[Step]:
    source = random.Random(number)
    return spoiled(source.randbytes(160)) if number % 4 else steps_of(source.randbytes(400))


def test_what_is_left_behind_is_seen() -> None:
    """The checks can fail: a timer that nobody stops, and an operation that nobody ends."""
    conversation = Conversation([])
    conversation.engine.timers.start(0.0, 1e6, print)
    with pytest.raises(AssertionError):
        conversation.run()
    conversation = Conversation([])
    conversation.operation(Do("call", 0, 0))
    with pytest.raises(AssertionError, match="never ended"):
        conversation.run()


@pytest.mark.parametrize(
    "octets",
    [
        b"MESSAGE sip:a SIP/2.0\r\nX-Smuggled: 1\r\nl: 0\r\n\r\n",
        b"SIP/2.0 200 OK\r\nVia: a\nX: 1\r\nContent-Length: 0\r\n\r\n",
        b"SIP/2.0 200 OK\r\nContent-Length: 0\r\n\r\nmore",
        b"SIP/2.0 200 OK\r\nFrom: nobody\r\nContent-Length: 0\r\n\r\n",
    ],
    ids=["a field that is not ours", "a bare line feed", "more than one message", "an answer to nobody"],
)
def test_what_may_not_be_sent_is_seen(octets: bytes) -> None:
    with pytest.raises((AssertionError, MessageParsingException, ValueError)):
        Conversation([]).check(octets)
