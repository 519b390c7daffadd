"""What may be said and done in a hostile conversation, as small tuples of choices: Hypothesis makes and shrinks them, and
a fuzzer makes them of octets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from hostile_headers import BODIES, EXTRAS, PIECES


def mostly(first: Any, *others: Any) -> tuple[Any, ...]:
    """The first most of the time; no more than an octet can tell apart."""
    return (first,) * min(7 * len(others), 256 - len(others)) + others


METHODS = (
    *("INVITE", "INVITE", "ACK", "CANCEL", "BYE", "PRACK", "UPDATE", "INFO", "MESSAGE", "OPTIONS", "SUBSCRIBE"),
    *("INVITE", "ACK", "NOTIFY", "NOTIFY"),
    *("REFER", "PUBLISH", "REGISTER", "FOO"),
)
CODES = (
    200,
    200,
    200,
    200,
    183,
    183,
    202,
    202,
    100,
    180,
    183,
    199,
    200,
    202,
    204,
    299,
    300,
    302,
    305,
    400,
    401,
    404,
    407,
    408,
    412,
    415,
    420,
    422,
    423,
)
CODES += (480, 481, 482, 486, 487, 488, 489, 491, 500, 501, 503, 504, 600, 603, 606, 699)
URIS = mostly("sip:us@us.example", "ours", "sips:us@us.example", "sip:nobody@us.example", "tel:+1", "sip:x@192.0.2.1:1")
TAGS = mostly("right", "none", "other", "swapped", "strange")
BRANCHES = mostly("new", "last", "invite", "invite", "invite", "invite", "ours", "none", "old")
NUMBERS = mostly("next", "same", "invite", "invite", "invite", "lower", "higher", "highest")
CALLS = (0, 1, 1, 1, 2, 2, 3, 4)
PLACES = (0, 0, 0, 0, 1, 1, 2, 3)
WAITS = (0.0, 0.4, 0.5, 1.0, 4.0, 32.0, 64.0, 200.0, 1900.0, 4000.0)
CHANGES = (
    "close",
    "lose",
    "connect",
    "unreachable",
    "reachable",
    "slow",
    "open",
    "certified",
    "few",
    "shut down",
    "datagrams",
)
COMMANDS = (
    *("call", "call without offer", "accept", "provisional", "reliable", "reject", "redirect", "renegotiate"),
    *("cancel", "info", "refer", "refer outside", "hang up", "subscribe", "query", "refresh", "unsubscribe"),
    *("accept subscription", "decline subscription", "notify", "end subscription", "publish", "remove", "message"),
    *("respond", "answer offer", "decline offer", "progress offer", "acknowledge", "answer provisional", "follow"),
    *("give up", "accept refer", "decline refer", "tell refer", "hear no more", "demand digest", "end all"),
)


class Ask(NamedTuple):
    """The peer sends a request: in the ``call``-th newest dialog that it knows of, or outside of any where that is 0."""

    method: str
    call: int
    uri: str
    from_tag: str
    to_tag: str
    branch: str
    number: str
    first: int
    second: int
    third: int
    body: int


class Reply(NamedTuple):
    """The peer answers the ``which``-th newest of our requests."""

    which: int
    code: int
    to_tag: str
    branch: str
    number: str
    first: int
    second: int
    third: int
    body: int


class Repeat(NamedTuple):
    """The ``which``-th newest message of the peer again, or one of ours back to us."""

    which: int
    is_ours: bool


class Mangle(NamedTuple):
    """The next message of the peer has so many octets at that place (in 256ths) replaced by a piece."""

    place: int
    length: int
    piece: int


class Pieces(NamedTuple):
    """Octets that are no message."""

    first: int
    second: int


class Change(NamedTuple):
    """Something happens to connections, or to what the engine is told to be."""

    what: str


class Wait(NamedTuple):
    """Time passes."""

    seconds: float


class Do(NamedTuple):
    """Our application does something with the ``which``-th newest of what it can be done with."""

    command: str
    which: int
    variant: int


Step = Ask | Reply | Repeat | Mangle | Pieces | Change | Wait | Do

EXTRA = tuple(range(len(EXTRAS)))
FIRST, LATER = mostly(1, *EXTRA), mostly(0, *EXTRA)
BODY = mostly(0, *range(len(BODIES)))
CHOICES: dict[Callable[..., Step], tuple[Sequence[Any], ...]] = {
    Ask: (METHODS, CALLS, URIS, TAGS, TAGS, BRANCHES, NUMBERS, FIRST, LATER, LATER, BODY),
    Reply: (PLACES, CODES, TAGS, BRANCHES, NUMBERS, FIRST, LATER, LATER, BODY),
    Repeat: (PLACES, (False, True)),
    Mangle: (range(256), (0, 1, 2, 5, 20, 200), range(len(PIECES))),
    Pieces: (range(len(PIECES)), range(len(PIECES))),
    Change: (CHANGES,),
    Wait: (WAITS,),
    Do: (COMMANDS, PLACES, range(4)),
}
"""What each part of each step may be; most likely what a well-behaved peer would say."""

KINDS = (Ask, Reply, Do, Ask, Reply, Do, Repeat, Mangle, Wait, Ask, Reply, Do, Change, Pieces, Wait, Do)
LONGEST = 60
"""Steps of a conversation that is made of octets."""


def steps_of(octets: bytes) -> list[Step]:
    """The conversation that the octets stand for: one for the kind of a step, one for each of its parts."""
    steps: list[Step] = []
    position = 0
    while position < len(octets) and len(steps) < LONGEST:
        kind = KINDS[octets[position] % len(KINDS)]
        choices = CHOICES[kind]
        parts = octets[position + 1 : position + 1 + len(choices)].ljust(len(choices), b"\0")
        steps.append(kind(*(choice[part % len(choice)] for choice, part in zip(choices, parts, strict=True))))
        position += 1 + len(choices)
    return steps


def octets_of(steps: Sequence[Step]) -> bytes:
    """The other way: what a fuzzer begins with."""
    octets = bytearray()
    for step in steps:
        octets.append(KINDS.index(type(step)))
        octets += bytes(choice.index(part) for choice, part in zip(CHOICES[type(step)], step, strict=True))
    return bytes(octets)
