"""A ladder diagram: two lines for two peers, an arrow for each message, time runs down."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Sequence

MARGIN = 11
"""Columns left of the first line, where the time stands."""
SMALLEST = 60
"""A narrower diagram has no room for words."""


@dataclasses.dataclass(frozen=True)
class Party:
    """One of the two.

    Attributes:
        name: What it is called.
        lines: What else stands at the head of its line, such as its address.
    """

    name: str
    lines: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Arrow:
    """One message.

    Attributes:
        to_right: From the first party to the second, or back.
        label: Method and address, or status.
        details: More of the message, a line each.
        explanation: What it means, for people who have never seen one.
        time: What stands in the margin.
    """

    to_right: bool
    label: str
    details: tuple[str, ...] = ()
    explanation: str = ""
    time: str = ""


@dataclasses.dataclass(frozen=True)
class Link:
    """A connection that comes to be between the two.

    Attributes:
        to_right: The first party opened it, or the second.
        label: Such as version and cipher; stands in the line.
        lines: Who is who.
        time: What stands in the margin.
    """

    to_right: bool
    label: str
    lines: tuple[str, ...] = ()
    time: str = ""


def draw(left: Party, right: Party, steps: Sequence[Arrow | Link], *, width: int = 78) -> list[str]:
    """The lines of the diagram; none is longer than ``width`` columns, and all of it is ASCII but for the texts."""
    inner = max(width, SMALLEST) - MARGIN - 2
    lines = [*_heads(left, right, inner), _between("", inner)]
    for step in steps:
        draw_step = _arrow if isinstance(step, Arrow) else _link
        lines += draw_step(step, inner)  # type: ignore[arg-type]
        lines.append(_between("", inner))
    return lines


def _heads(left: Party, right: Party, inner: int) -> list[str]:
    lefts, rights = (left.name, *left.lines), (right.name, *right.lines)
    rows = max(len(lefts), len(rights))
    lines = []
    for row in range(rows):
        first = lefts[row] if row < len(lefts) else ""
        second = rights[row] if row < len(rights) else ""
        lines.append((" " * MARGIN + first + second.rjust(inner + 2 - len(first))).rstrip())
    return lines


def _between(text: str, inner: int, *, time: str = "", to_right: bool = True) -> str:
    body = f"  {text}" if to_right else f"{text}  "
    body = body.ljust(inner) if to_right else body.rjust(inner)
    return f"{time.rjust(MARGIN - 1)} |{body}|"


def _arrow(arrow: Arrow, inner: int) -> list[str]:
    texts = []
    for text in (arrow.label, *arrow.details):
        texts += _wrap(text, inner)
    lines = [
        _between(text, inner, time=arrow.time if number == 0 else "", to_right=arrow.to_right)
        for number, text in enumerate(texts)
    ]
    shaft = "-" * (inner - 1)
    lines.append(" " * MARGIN + (f"|{shaft}>|" if arrow.to_right else f"|<{shaft}|"))
    lines += [_between(text, inner, to_right=arrow.to_right) for text in _wrap(arrow.explanation, inner)]
    return lines


def _link(link: Link, inner: int) -> list[str]:
    label = f" {link.label} "
    shaft = label.center(inner - 1, "=") if len(label) < inner - 4 else "=" * (inner - 1)
    lines = [f"{link.time.rjust(MARGIN - 1)} " + (f"|{shaft}>|" if link.to_right else f"|<{shaft}|")]
    texts = link.lines if label.strip() in shaft else (link.label, *link.lines)
    for text in texts:
        lines += [_between(part, inner, to_right=link.to_right) for part in _wrap(text, inner)]
    return lines


def _wrap(text: str, inner: int) -> list[str]:
    return textwrap.wrap(text, inner - 4, break_long_words=True) if text else []
