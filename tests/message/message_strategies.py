"""Messages and streams for Hypothesis; ``message_grammar`` makes them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

from hypothesis import strategies as st
from message_grammar import PIECES, Choices, anything, bracketed, near_valid, stream, uri, via, well_formed

T = TypeVar("T")


def made_by(rule: Callable[[Choices], T], octets: int) -> st.SearchStrategy[T]:
    """What the rule makes of about that many decisions."""
    return st.binary(min_size=octets // 4, max_size=octets * 2).map(lambda drawn: rule(Choices(drawn)))


WELL_FORMED = made_by(well_formed, 200)
NEAR_VALID = made_by(near_valid, 220)
ANYTHING = made_by(anything, 220)
STREAM = made_by(functools.partial(stream, is_sound=False), 600)
SOUND_STREAM = made_by(functools.partial(stream, is_sound=True), 600)
URI = made_by(uri, 40)
ADDRESS = made_by(bracketed, 60)
VIA = made_by(via, 60)

TEXT = st.lists(
    st.one_of(st.sampled_from([piece.decode("utf-8", "surrogateescape") for piece in PIECES]), st.text(max_size=3)),
    max_size=10,
).map("".join)
"""Pieces of values, and any other text."""
