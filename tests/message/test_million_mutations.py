"""A million messages with something wrong: nothing but MessageParsingException, the same cost for each octet, and no
memory that stays."""

from __future__ import annotations

import contextlib
import gc
import random
import sys
import time

import pytest
from message_grammar import PIECES
from message_support import CORPUS
from scale import scaled

from p2psip.errors import MessageParsingException
from p2psip.message import Malformed, Request, Response, StreamFramer, parse_message

MESSAGES = 1_000_000
BATCH = 500
LONG = 60_000
"""Octets of those that are long: nearly as many as a head may have."""
LONG_IN = 250
"""One in so many is long."""
SLOWER = 4.0
"""How many times as much an octet may cost: in a long message, or late. It is a busy machine that counts, too; what is
not linear takes hundreds of times as long for a message that is a hundred times as long."""
BLOCKS = 20_000
"""Blocks of memory that caches may still fill after the first half."""


def seeds() -> list[bytes]:
    """The messages of the corpus that are not themselves there to be too long."""
    paths = sorted(path for path in (CORPUS / "messages").rglob("*") if path.is_file())
    return [path.read_bytes() for path in paths if path.stat().st_size < 4000]


def mutant(source: random.Random, known: list[bytes]) -> bytes:
    """One of them with one to four changes; or with a part of it so often that it is long."""
    octets = bytearray(source.choice(known))
    for _ in range(source.randint(1, 4)):
        at = source.randrange(len(octets) + 1)
        kind = source.random()
        if kind < 0.3:
            octets[at : at + 1] = bytes([source.randrange(256)])
        elif kind < 0.6:
            octets[at : at + source.choice((0, 0, 1, 5))] = source.choice(PIECES)
        elif kind < 0.8:
            del octets[at : at + source.randint(1, 20)]
        else:
            there = source.randrange(len(octets) + 1)
            octets[at:at] = octets[there : there + source.randint(1, 60)]
    if source.randrange(LONG_IN) == 0:
        at = source.randrange(len(octets) + 1)
        part = bytes(octets[at : at + source.choice((1, 2, 3, 10, 100))]) or b"x"
        octets[at:at] = part * (LONG // len(part))
    return bytes(octets)


class Cost:
    """Seconds of processor time that messages took, and their octets."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.octets = 0

    def add(self, seconds: float, octets: int) -> None:
        self.seconds += seconds
        self.octets += octets

    @property
    def each(self) -> float:
        return self.seconds / max(1, self.octets)


def take_in(octets: bytes, as_datagram: bool) -> str:
    """Through the framer, and so the parser; as a datagram as well, which is read by the parser alone. Says what became
    of it on the stream."""
    framer = StreamFramer()
    try:
        framed = framer.feed(octets)
    except MessageParsingException:
        framed = []
    if as_datagram:
        with contextlib.suppress(MessageParsingException):
            parse_message(octets)
    if any(isinstance(item, Request | Response) for item in framed):
        return "message"
    if any(isinstance(item, Malformed) for item in framed):
        return "malformed"
    return "lost" if framer.error is not None else "unfinished"


@pytest.mark.holds("R20", "R21")
@pytest.mark.long
def test_a_million_mutated_messages() -> None:
    source, known = random.Random(3261), seeds()
    fates = dict.fromkeys(("message", "malformed", "lost", "unfinished"), 0)
    short, long = Cost(), Cost()
    batches: list[float] = []
    blocks = 0
    count = max(4, scaled(MESSAGES) // BATCH)
    for number in range(count):
        mutants = [mutant(source, known) for _ in range(BATCH)]
        batch = Cost()
        for index, octets in enumerate(mutants):
            began = time.process_time()
            fates[take_in(octets, index % 4 == 0)] += 1
            seconds = time.process_time() - began
            (long if len(octets) > LONG else short).add(seconds, len(octets))
            if len(octets) <= LONG:
                batch.add(seconds, len(octets))
        batches.append(batch.each)
        if number == count // 2:
            gc.collect()
            blocks = sys.getallocatedblocks()
    gc.collect()
    grown = sys.getallocatedblocks() - blocks
    quarter = max(1, count // 4)
    first, last = min(batches[:quarter]), min(batches[-quarter:])
    print(
        f"{count * BATCH} messages, {short.octets + long.octets} octets: {fates}; "
        f"{1e9 * short.each:.0f} ns an octet, {1e9 * long.each:.0f} ns in long ones; "
        f"first quarter {1e9 * first:.0f} ns, last {1e9 * last:.0f} ns; {grown} blocks more than half-way"
    )
    assert all(fates.values()), fates
    assert long.each < SLOWER * short.each
    assert last < SLOWER * first
    assert grown < BLOCKS
