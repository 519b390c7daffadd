"""The header fields of one message: lines of text until somebody asks for more."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from p2psip.errors import MessageParsingException
from p2psip.message.grammar import excerpt, split_list
from p2psip.message.names import KEYS, LIST_FIELDS, field_key


class Headers:
    """An ordered multi-map of header fields. Names compare without regard to case, compact forms are the long ones.

    Iteration gives ``(name as written, unfolded value)`` pairs. Any number of threads may read; none may change it
    while others do.

    Raises:
        ValueError: A name that is no token, or a value with CR, LF or NUL.
    """

    __slots__ = ("_keys", "_lines", "_views")

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        # Two lists of one length: finding a key is one scan in C, and nothing is made for fields nobody asks for.
        self._keys: list[str]
        self._lines: list[str]
        self._views: dict[str, Any] | None = {}
        """Values that the message's views have parsed; None once the headers were changed."""
        if isinstance(pairs, Headers):
            self._keys = pairs._keys.copy()
            self._lines = pairs._lines.copy()
        else:
            fields = [(_checked_key(name), _checked_line(name, value)) for name, value in pairs]
            self._keys = [key for key, _ in fields]
            self._lines = [line for _, line in fields]

    @classmethod
    def _of(cls, keys: list[str], lines: list[str]) -> Headers:
        """Headers of lines that were checked before; the lists are taken over."""
        headers = cls.__new__(cls)
        headers._keys = keys
        headers._lines = lines
        headers._views = {}
        return headers

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        for line in self._lines:
            name, _, value = line.partition(":")
            yield (name.rstrip(" \t"), value.strip(" \t"))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and field_key(name) in self._keys

    def __repr__(self) -> str:
        return f"Headers({list(self)!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Headers):
            return NotImplemented
        return self._keys == other._keys and [v for _, v in self] == [v for _, v in other]

    __hash__ = None  # type: ignore[assignment]

    def get(self, name: str) -> str | None:
        """The value of the first field of the name, as it stands there; None when there is none."""
        return self._value(KEYS.get(name) or field_key(name))

    def _value(self, key: str) -> str | None:
        keys = self._keys
        if key in keys:
            return self._lines[keys.index(key)].partition(":")[2].strip(" \t")
        return None

    def get_all(self, name: str) -> list[str]:
        """The values of all fields of the name; comma-separated lists are split where the grammar allows them.

        Raises:
            MessageParsingException: Such a list has an unclosed quote or bracket, or an empty value.
        """
        key = field_key(name)
        keys = self._keys
        values = [
            line.partition(":")[2].strip(" \t") for known, line in zip(keys, self._lines, strict=True) if known == key
        ]
        if key not in LIST_FIELDS:
            return values
        return [value for text in values for value in split_list(text) if text]

    def count(self, name: str) -> int:
        """How many fields (lines, not values) of the name there are."""
        return self._keys.count(field_key(name))

    def add(self, name: str, value: str) -> None:
        """Append a field."""
        self._insert(len(self._keys), name, value)

    def prepend(self, name: str, value: str) -> None:
        """Put a field before all others, as a Via is."""
        self._insert(0, name, value)

    def set(self, name: str, value: str) -> None:
        """Replace all fields of the name by one, in the place of the first; append it when there is none."""
        key = _checked_key(name)
        position = self._keys.index(key) if key in self._keys else len(self._keys)
        line = _checked_line(name, value)
        self.remove(name)
        self._keys.insert(position, key)
        self._lines.insert(position, line)
        self._views = None

    def remove(self, name: str) -> None:
        """Remove all fields of the name; none is fine."""
        key = field_key(name)
        if key in self._keys:
            self._lines = [line for known, line in zip(self._keys, self._lines, strict=True) if known != key]
            self._keys = [known for known in self._keys if known != key]
            self._views = None

    def _insert(self, position: int, name: str, value: str) -> None:
        key, line = _checked_key(name), _checked_line(name, value)
        self._keys.insert(position, key)
        self._lines.insert(position, line)
        self._views = None


def _checked_key(name: str) -> str:
    key = field_key(name)
    if not key:
        raise ValueError(f"{excerpt(name)} is not the name of a header field.")
    return key


def _checked_line(name: str, value: str) -> str:
    if "\r" in value or "\n" in value or "\0" in value:
        raise ValueError(f"The value of {name} contains CR, LF or NUL: {excerpt(value)}.")
    return f"{name}: {value}"


def missing(name: str) -> MessageParsingException:
    return MessageParsingException(f"The message has no {name}.")
