"""The header fields of one message: lines of text until somebody asks for more."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from p2psip.errors import MessageParsingException
from p2psip.message.grammar import excerpt, split_list
from p2psip.message.names import EMPTY_FIELDS, KEYS, LIST_FIELDS, field_key, shown_value

_GROUPED = ""


class Headers:
    """An ordered multi-map of header fields. Names compare without regard to case, compact forms are the long ones.

    Iteration gives ``(name as written, unfolded value)`` pairs. Any number of threads may read; none may change it
    while others do.

    Raises:
        ValueError: A name that is no token, or a value with CR, LF or NUL, or one that cannot be written as UTF-8.
    """

    __slots__ = ("_changed", "_first", "_lines", "_views")

    _lines: list[str]
    _first: dict[str, str] | None
    """The key of each field and the first line of that key: nearly all questions are for that one. None until
    the first question comes, unless the parser has made it."""
    _views: dict[str, Any]
    """What was made of the lines when it was asked for: the values that the views of the message have parsed, by key,
    and all lines by key where there are several of one."""
    _changed: bool

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        if isinstance(pairs, Headers):
            self._lines = pairs._lines.copy()
        else:
            self._lines = checked_lines(pairs)
        self._first = None
        self._views = {}
        self._changed = False

    @classmethod
    def of_lines(cls, lines: list[str], first: dict[str, str] | None = None) -> Headers:
        """The fields that these lines are.

        Nothing is checked: they were, or they come from a message that was received, in which more is allowed than an
        application may say (a NUL as a quoted-pair).
        """
        headers = cls.__new__(cls)
        headers._lines = lines
        headers._first = first
        headers._views = {}
        headers._changed = False
        return headers

    def _index(self) -> dict[str, str]:
        """The first lines, for the first time."""
        first = self._first = first_lines(self._lines)
        return first

    def __len__(self) -> int:
        return len(self._lines)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        for line in self._lines:
            name, _, value = line.partition(":")
            yield (name.rstrip(" \t"), value.strip(" \t"))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (KEYS.get(name) or field_key(name)) in (self._first or self._index())

    def __repr__(self) -> str:
        return f"Headers({[(name, shown_value(name, value)) for name, value in self]!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Headers):
            return NotImplemented
        return [(field_key(n), v) for n, v in self] == [(field_key(n), v) for n, v in other]

    __hash__ = None  # type: ignore[assignment]

    def get(self, name: str) -> str | None:
        """The value of the first field of the name, as it stands there; None when there is none."""
        line = (self._first or self._index()).get(KEYS.get(name) or field_key(name))
        return None if line is None else line.partition(":")[2].strip(" \t")

    def get_all(self, name: str) -> list[str]:
        """The values of all fields of the name; comma-separated lists are split where the grammar allows them.

        Raises:
            MessageParsingException: Such a list has an unclosed quote or bracket, or an empty value.
        """
        key = KEYS.get(name) or field_key(name)
        lines = self._lines_of(key)
        if not lines:
            return []
        values = [line_value(line) for line in lines]
        if key not in LIST_FIELDS:
            return values
        return [value for text in values if text or key not in EMPTY_FIELDS for value in split_list(text)]

    def get_fields(self, name: str) -> list[str]:
        """The values of all fields of the name, one for each field, as they stand there."""
        return [line_value(line) for line in self._lines_of(KEYS.get(name) or field_key(name))]

    def get_joined(self, name: str) -> str | None:
        """The values of all fields of the name as one list (RFC 3261 7.3.1); None when there is no field."""
        first, key = self._first or self._index(), KEYS.get(name) or field_key(name)
        line = first.get(key)
        if line is None:
            return None
        if len(first) == len(self._lines):
            return line.partition(":")[2].strip(" \t")
        return ", ".join(filter(None, map(line_value, self._lines_of(key))))

    def count(self, name: str) -> int:
        """How many fields (lines, not values) of the name there are."""
        return len(self._lines_of(KEYS.get(name) or field_key(name)))

    def _lines_of(self, key: str) -> list[str]:
        first = self._first or self._index()
        if key not in first:
            return []
        if len(first) == len(self._lines):
            return [first[key]]
        grouped: dict[str, list[str]] | None = self._views.get(_GROUPED)
        if grouped is None:
            grouped = self._views[_GROUPED] = {}
            for line in self._lines:
                grouped.setdefault(line_key(line), []).append(line)
        return grouped[key]

    def add(self, name: str, value: str) -> None:
        """Append a field."""
        line = _checked_line(name, value)
        self._lines.append(line)
        if self._first is not None:
            self._first.setdefault(line_key(line), line)
        self._changes()

    def prepend(self, name: str, value: str) -> None:
        """Put a field before all others, as a Via is."""
        self.prepend_line(_checked_line(name, value))

    def prepend_line(self, line: str) -> None:
        """The same with a line that needs no check."""
        self._lines.insert(0, line)
        if self._first is not None:
            self._first[line_key(line)] = line
        self._changes()

    def set(self, name: str, value: str) -> None:
        """Replace all fields of the name by one, in the place of the first; append it when there is none."""
        line = _checked_line(name, value)
        first, key = self._first or self._index(), KEYS.get(name) or field_key(name)
        if key in first:
            position = self._lines.index(first[key])
            self._lines = [line for line in self._lines if line_key(line) != key]
            self._lines.insert(position, line)
        else:
            self._lines.append(line)
        first[key] = line
        self._changes()

    def remove(self, name: str) -> None:
        """Remove all fields of the name; none is fine."""
        key = field_key(name)
        if key in (self._first or self._index()):
            self._lines = [line for line in self._lines if line_key(line) != key]
            self._first = None
            self._changes()

    def _changes(self) -> None:
        self._changed = True
        if self._views:
            self._views = {}


def line_key(line: str) -> str:
    """The key of the field that the line is."""
    name = line.partition(":")[0]
    return KEYS.get(name) or field_key(name.rstrip(" \t"))


def line_value(line: str) -> str:
    """The value of the field that the line is."""
    return line.partition(":")[2].strip(" \t")


def first_lines(lines: list[str]) -> dict[str, str]:
    try:
        # Of several of one key the first one is put in last.
        return {KEYS[line.partition(":")[0]]: line for line in reversed(lines)}
    except KeyError:  # a name that is not known, or not written as usual
        return {line_key(line): line for line in reversed(lines)}


def checked_lines(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """One look at all of them is enough where all is as usual; where it is not, each is looked at."""
    pairs = list(pairs)
    lines = [f"{name}: {value}" for name, value in pairs]
    text = "\n".join(lines)
    usual = text.isascii() and "\r" not in text and "\0" not in text and text.count("\n") < len(lines)
    if usual and KEYS.keys() >= {name for name, _ in pairs}:
        return lines
    return [_checked_line(name, value) for name, value in pairs]


def _checked_line(name: str, value: str) -> str:
    if not field_key(name):
        raise ValueError(f"{excerpt(name)} is not the name of a header field.")
    line = f"{name}: {value}"
    if "\r" in line or "\n" in line or "\0" in line:
        raise ValueError(f"{excerpt(line)} contains CR, LF or NUL.")
    check_encodable(line)
    return line


def check_encodable(text: str) -> None:
    """Raise ValueError for what cannot be written as UTF-8: half of a surrogate pair, unless it is the stand-in for an
    octet that was received."""
    if not text.isascii():
        try:
            text.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raise ValueError(f"{excerpt(text)} cannot be written as UTF-8.") from None


def missing(name: str) -> MessageParsingException:
    return MessageParsingException(f"The message has no {name}.")
