"""The header fields of one message: text until somebody asks for more."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from p2psip.errors import MessageParsingException
from p2psip.message.grammar import excerpt, split_list
from p2psip.message.names import KEYS, LIST_FIELDS, field_key

Field = tuple[str, str, str]
"""One line in three pieces that join to it: name, colon with white space, value."""


class Headers:
    """An ordered multi-map of header fields. Names compare without regard to case, compact forms are the long ones.

    Iteration gives ``(name as written, unfolded value)`` pairs. Not for use by several threads while it is changed.

    Raises:
        ValueError: A name that is no token, or a value with CR, LF or NUL.
    """

    __slots__ = ("_fields", "_keys", "_views")

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        # Two lists of one length: finding a key is one scan in C, and nothing is made for fields nobody asks for.
        self._keys: list[str] = []
        self._fields: list[Field] = []
        self._views: dict[str, Any] | None = {}  # parsed values by key; None once changed (see Message.to_bytes)
        if isinstance(pairs, Headers):
            self._keys.extend(pairs._keys)
            self._fields.extend(pairs._fields)
        else:
            for name, value in pairs:
                self._keys.append(_checked_key(name))
                self._fields.append((name, ": ", _checked_value(name, value)))

    @classmethod
    def _of(cls, keys: list[str], fields: list[Field]) -> Headers:
        headers = cls.__new__(cls)
        headers._keys = keys
        headers._fields = fields
        headers._views = {}
        return headers

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        for name, _, value in self._fields:
            yield (name, value.strip(" \t"))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (KEYS.get(name) or field_key(name)) in self._keys

    def __repr__(self) -> str:
        return f"Headers({list(self)!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Headers):
            return NotImplemented
        return self._keys == other._keys and [v for _, v in self] == [v for _, v in other]

    __hash__ = None  # type: ignore[assignment]

    def get(self, name: str) -> str | None:
        """The value of the first field of the name, as it stands there; None when there is none."""
        key = KEYS.get(name) or field_key(name)
        if key in self._keys:
            return self._fields[self._keys.index(key)][2].strip(" \t")
        return None

    def get_all(self, name: str) -> list[str]:
        """The values of all fields of the name; comma-separated lists are split where the grammar allows them.

        Raises:
            MessageParsingException: Such a list has an unclosed quote or bracket, or an empty value.
        """
        key = KEYS.get(name) or field_key(name)
        values = [field[2].strip(" \t") for known, field in zip(self._keys, self._fields, strict=True) if known == key]
        if key not in LIST_FIELDS:
            return values
        return [value for line in values for value in split_list(line) if line]

    def count(self, name: str) -> int:
        """How many fields (lines, not values) of the name there are."""
        return self._keys.count(KEYS.get(name) or field_key(name))

    def add(self, name: str, value: str) -> None:
        """Append a field."""
        self.insert(len(self._keys), name, value)

    def prepend(self, name: str, value: str) -> None:
        """Put a field before all others, as a Via is."""
        self.insert(0, name, value)

    def insert(self, position: int, name: str, value: str) -> None:
        key, value = _checked_key(name), _checked_value(name, value)
        self._keys.insert(position, key)
        self._fields.insert(position, (name, ": ", value))
        self._views = None

    def set(self, name: str, value: str) -> None:
        """Replace all fields of the name by one, in the place of the first; append it when there is none."""
        key = _checked_key(name)
        value = _checked_value(name, value)
        position = self._keys.index(key) if key in self._keys else len(self._keys)
        self.remove(name)
        self.insert(position, name, value)

    def remove(self, name: str) -> None:
        """Remove all fields of the name; none is fine."""
        key = field_key(name)
        if key in self._keys:
            kept = [i for i, known in enumerate(self._keys) if known != key]
            self._fields = [self._fields[i] for i in kept]
            self._keys = [self._keys[i] for i in kept]
            self._views = None


def _checked_key(name: str) -> str:
    key = KEYS.get(name) or field_key(name)
    if not key:
        raise ValueError(f"{excerpt(name)} is not the name of a header field.")
    return key


def _checked_value(name: str, value: str) -> str:
    if "\r" in value or "\n" in value or "\0" in value:
        raise ValueError(f"The value of {name} contains CR, LF or NUL: {excerpt(value)}.")
    return value


def missing(name: str) -> MessageParsingException:
    return MessageParsingException(f"The message has no {name}.")
