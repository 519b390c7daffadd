"""Names whose records are given on this side, for tests and labs; the world is not asked for them."""

from __future__ import annotations

import ipaddress
import re
from collections import ChainMap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from p2psip.net.selection import LABELS, Naptr, Query, Srv, plain_name

Entry = str | tuple[Any, ...]
"""An address, the four values of an SRV record, or the six of a NAPTR record."""
ResolverNames = Mapping[str, str | Sequence[Entry]]
"""What applications give; see :class:`GivenNames`."""

NAMESERVERS = "."
"""The key of the nameservers that are asked for everything else."""

_LENGTHS = {"SRV": 4, "NAPTR": 6}
_LOCAL = ("localhost", "invalid")
"""Top-level names that are never looked up in the DNS (RFC 6761 6.3, 6.4)."""
_SERVICE = re.compile(r"_[^.]+\._[^.]+\.")


class GivenNames:
    """What a mapping says: names, and a sequence of entries for each. The mapping may change meanwhile.

    An entry is told by its form: text is an address (A, AAAA), four values are an SRV record (priority, weight, port,
    host), six a NAPTR record (order, preference, flags, service, regexp, replacement). A name that is given, by itself
    or with a service in front (``_sips._tcp.example.com``), has these records and no others. The key ``"."`` holds the
    nameservers (address, or address and port) that are asked for all other names; an empty list means that the DNS is
    never asked.

    Args:
        names: Not checked; :func:`checked` does that for what applications give.
    """

    def __init__(self, names: Mapping[str, Sequence[Entry]]) -> None:
        self._names = names

    @property
    def nameservers(self) -> list[tuple[str, int]] | None:
        """Whom to ask in place of the system's nameservers; None: the system's."""
        servers = self._names.get(NAMESERVERS)
        if servers is None:
            return None
        return [(each, 53) if isinstance(each, str) else (each[0], each[1]) for each in servers]

    def addresses(self, name: str) -> list[str] | None:
        """None when the name is not given."""
        entries = self._entries(name)
        return None if entries is None else [entry for entry in entries if isinstance(entry, str)]

    def records(self, query: Query) -> tuple[Any, ...] | None:
        """The records; None when the DNS may be asked."""
        entries = self._entries(query.name)
        if entries is not None:
            return tuple(
                entry for entry in entries if len(entry) == _LENGTHS[query.kind] and not isinstance(entry, str)
            )
        base = _SERVICE.sub("", query.name, count=1)
        if any(self._entries(name) is not None for name in (base, *(f"{label}.{base}" for label in LABELS.values()))):
            return ()
        return () if is_local(base) else None

    def _entries(self, name: str) -> Sequence[Entry] | None:
        try:
            return self._names[name]
        except KeyError:
            return None


def is_local(name: str) -> bool:
    """A name of this machine or of this network, of which the DNS knows nothing."""
    return "." not in name or name.rpartition(".")[2] in _LOCAL


def given_names(names: ResolverNames | None, world: Mapping[str, Sequence[Entry]] | None) -> GivenNames:
    """What an application gives, and behind it what the world of a test has instead of a DNS.

    Raises: As :func:`checked`.
    """
    maps = [] if names is None else [checked(names)]
    return GivenNames(ChainMap(*maps, *([] if world is None else [world])))  # type: ignore[arg-type]


def checked(names: ResolverNames) -> dict[str, Sequence[Entry]]:
    """A copy of what an application gives, in the form that :class:`GivenNames` reads.

    Raises:
        ValueError, TypeError: A name or an entry that is none; the sentence says which.
    """
    if not isinstance(names, Mapping):
        raise TypeError(f"resolver is a mapping of names to their records, not {type(names).__name__}.")
    result: dict[str, Sequence[Entry]] = {}
    for name, entries in names.items():
        if not isinstance(name, str) or not name:
            raise TypeError(f"resolver has the name {name!r}, which is no text.")
        entries = [entries] if isinstance(entries, str) else entries
        if not isinstance(entries, Iterable):
            raise TypeError(f"resolver has {entries!r} for {name!r}, which is no sequence of records.")
        if name == NAMESERVERS:
            result[name] = [_nameserver(entry) for entry in entries]
        else:
            result[plain_name(name)] = [_entry(name, entry) for entry in entries]
    return result


def _entry(name: str, entry: Any) -> Entry:
    try:
        if isinstance(entry, str):
            return str(ipaddress.ip_address(entry.strip("[]")))
        values = tuple(entry)
        if len(values) == _LENGTHS["SRV"]:
            priority, weight, port, host = values
            return Srv(_number(priority), _number(weight), _number(port), _text(host))
        if len(values) == _LENGTHS["NAPTR"]:
            return Naptr(_number(values[0]), _number(values[1]), *map(_text, values[2:]))
    except (TypeError, ValueError):
        pass
    raise ValueError(
        f"resolver has {entry!r} for {name!r}: an entry is an IP address, (priority, weight, port, host) of an SRV "
        "record, or (order, preference, flags, service, regexp, replacement) of a NAPTR record."
    )


def _nameserver(entry: Any) -> Entry:
    try:
        host, port = (entry, 53) if isinstance(entry, str) else entry
        if _number(port) == 0:
            raise ValueError
        return str(ipaddress.ip_address(host.strip("[]"))), port
    except (AttributeError, TypeError, ValueError):
        raise ValueError(
            f"resolver has {entry!r} for '.': a nameserver is an IP address, or (address, port)."
        ) from None


def _number(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 65535:
        raise ValueError(value)
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value
