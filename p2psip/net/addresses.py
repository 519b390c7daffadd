"""The addresses of a host. Asking for them blocks, so it is done on a resolver thread (or in a command)."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Sequence

from p2psip.net.selection import Answer, Query
from p2psip.net.sockets import SocketAddress

Address = tuple[int, SocketAddress]
"""Family, and a socket address whose port is 0."""
Lookup = Callable[..., Sequence[tuple[int, int, int, str, SocketAddress]]]
Ask = Callable[[Query, Sequence[tuple[str, int]] | None, float], tuple[Answer, float]]


class NotTold(Exception):
    """The nameservers have not told the addresses."""


def addresses_of_system(lookup: Lookup, name: str) -> list[Address]:
    """In its order (RFC 6724). Raises OSError, and UnicodeError for what cannot be a name."""
    found = lookup(name, None, type=socket.SOCK_STREAM)
    # An answer may hold families that a socket address of ours does not fit.
    families = (socket.AF_INET, socket.AF_INET6)
    return list(dict.fromkeys((entry[0], entry[4]) for entry in found if entry[0] in families))


def addresses_in_dns(ask: Ask, name: str, servers: Sequence[tuple[str, int]], seconds: float) -> list[Address]:
    """Of nameservers that are given, which the system does not know. Raises NotTold."""
    answers = [ask(Query(name, kind), servers, seconds / 2)[0] for kind in ("AAAA", "A")]
    found = [address for answer in answers for text in answer.records for address in literal(text)]
    problem = answers[0].problem or answers[1].problem
    if problem and not found:
        raise NotTold(problem)
    return found


def literal(text: str) -> list[Address]:
    """The address that the text is. Raises ValueError when it is a name, OSError for an unknown zone."""
    address = ipaddress.ip_address(text)
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    found = socket.getaddrinfo(text, None, family, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST)
    return [(family, found[0][4])]
