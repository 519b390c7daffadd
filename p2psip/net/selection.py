"""Which servers serve a name, and in which order they are tried: RFC 3263 4.1 and 4.2, RFC 2782.

Asks nobody itself: :func:`select` yields its questions, is sent the answers, and returns a plan.
"""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, NamedTuple

DEFAULT_PORTS = {"TCP": 5060, "TLS": 5061}
MAXIMUM_RECORDS = 64
"""Of one kind and name; whoever publishes more has only so many looked at."""
MAXIMUM_PLACES = 64

SERVICES = {"SIP+D2T": "TCP", "SIPS+D2T": "TLS"}
"""What NAPTR records call the transports that there are here."""
LABELS = {"TCP": "_sip._tcp", "TLS": "_sips._tcp"}
"""What stands in front of the name in SRV records."""

Draw = Callable[[int], int]
"""A random whole number from 0 to that one, both included."""


class Naptr(NamedTuple):
    """A NAPTR record (RFC 3403 4.1)."""

    order: int
    preference: int
    flags: str
    service: str
    regexp: str
    replacement: str


class Srv(NamedTuple):
    """An SRV record (RFC 2782)."""

    priority: int
    weight: int
    port: int
    host: str


class Query(NamedTuple):
    """A question for the DNS.

    Attributes:
        name: Lower case, without a dot at the end.
        kind: ``"NAPTR"``, ``"SRV"``, ``"A"`` or ``"AAAA"``.
    """

    name: str
    kind: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


class Answer(NamedTuple):
    """What is known of it.

    Attributes:
        records: None when there are none.
        problem: Why it is not known whether there are any; empty when it is known.
        is_silence: Nobody answered, whatever the question was.
    """

    records: tuple[Any, ...] = ()
    problem: str = ""
    is_silence: bool = False


class Wanted(NamedTuple):
    """Where a request is to go.

    Attributes:
        transport: ``"TCP"`` or ``"TLS"``.
        host: A name, or an address.
        port: None where none was given.
        asks_for_transport: The address named none, so the DNS may say which there are.
        may_be_tls: It may raise TCP to TLS; it never lowers TLS to TCP.
    """

    transport: str
    host: str
    port: int | None
    asks_for_transport: bool = False
    may_be_tls: bool = False


class Place(NamedTuple):
    """A host and port to be tried.

    Attributes:
        transport: ``"TCP"`` or ``"TLS"``.
        host: Its addresses are still to be found.
        port: 1 to 65535.
        source: The question whose answer named it; None when it is the name itself.
    """

    transport: str
    host: str
    port: int
    source: Query | None = None


class Plan(NamedTuple):
    """What came of it.

    Attributes:
        places: In the order in which they are to be tried, all over the same transport. Empty when the name says that
            it does not offer that service.
        steps: What was asked, and the answers.
    """

    places: tuple[Place, ...]
    steps: tuple[tuple[Query, Answer], ...] = ()

    @property
    def problems(self) -> list[str]:
        """What the DNS could not tell, a phrase each."""
        return [f"{query}: {answer.problem}" for query, answer in self.steps if answer.problem]


def plain_name(host: str) -> str:
    """A name or address as it is compared: without brackets, lower case, no dot at the end."""
    return host.strip("[]").rstrip(".").lower()


def is_address(host: str) -> bool:
    """It is an IP address; nobody is asked for one."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def select(wanted: Wanted, draw: Draw) -> Generator[Query, Answer, Plan]:
    """Find the places to try. Yields each question, and is sent its answer.

    With a port, or for an address, nothing is asked (RFC 3263 4.2). Else NAPTR records say which services there are
    and where, if the address did not name the transport (4.1); else SRV records are asked for; and where there are
    none it is the name itself, at the transport's own port.

    Args:
        draw: Decides between servers of the same priority.
    """
    host = plain_name(wanted.host)
    itself = Place(wanted.transport, host, wanted.port or DEFAULT_PORTS[wanted.transport])
    if wanted.port is not None or is_address(host):
        return Plan((itself,))
    transports = ["TLS", "TCP"] if wanted.transport == "TCP" and wanted.may_be_tls else [wanted.transport]
    steps: list[tuple[Query, Answer]] = []
    places: list[Place] = []
    not_offered: set[str] = set()

    def servers(transport: str, name: str) -> Generator[Query, Answer, list[Place]]:
        query = Query(plain_name(name), "SRV")
        answer = yield query
        steps.append((query, answer))
        records = [Srv(*record) for record in answer.records[:MAXIMUM_RECORDS]]
        found = [record for record in records if record.port and plain_name(record.host)]
        if records and not found:  # RFC 2782: a target of "." says that the service is decidedly not there
            not_offered.add(transport)
        return [Place(transport, plain_name(each.host), each.port, query) for each in in_order(found, draw)]

    if wanted.asks_for_transport:
        query = Query(host, "NAPTR")
        answer = yield query
        steps.append((query, answer))
        for pointer in _applicable(answer.records, transports):
            transport = SERVICES[pointer.service.upper()]
            if places and transport != places[0].transport:
                continue  # what has begun over TLS does not end over TCP
            if pointer.flags.lower() == "s":
                places += yield from servers(transport, pointer.replacement)
            else:
                places.append(Place(transport, plain_name(pointer.replacement), DEFAULT_PORTS[transport], query))
    for transport in transports:
        if not places:
            places += yield from servers(transport, f"{LABELS[transport]}.{host}")
    if not places and wanted.transport not in not_offered:
        places.append(itself)
    return Plan(tuple(dict.fromkeys(places))[:MAXIMUM_PLACES], tuple(steps))


def in_order(records: Iterable[Srv], draw: Draw) -> list[Srv]:
    """The order in which servers are to be tried (RFC 2782): by priority, and within one at random by weight."""
    result: list[Srv] = []
    groups: dict[int, list[Srv]] = {}
    for record in records:
        groups.setdefault(record.priority, []).append(record)
    for priority in sorted(groups):
        # Weight 0 comes first, where its chance is very small as long as there are others, and equal among its like.
        left = sorted(groups[priority], key=lambda record: (record.weight > 0, draw(0xFFFF)))
        while left:
            running = list(itertools.accumulate(1000 * record.weight for record in left))
            mark = draw(running[-1])
            result.append(left.pop(next(index for index, reached in enumerate(running) if reached >= mark)))
    return result


def _applicable(records: Sequence[Sequence[Any]], transports: Sequence[str]) -> list[Naptr]:
    """Those that lead to a transport of ours, best first (RFC 3403 4.1: order before preference)."""
    pointers = [Naptr(*record) for record in records[:MAXIMUM_RECORDS]]
    return sorted(
        (
            pointer
            for pointer in pointers
            if SERVICES.get(pointer.service.upper()) in transports
            and pointer.flags.lower() in ("s", "a")
            and not pointer.regexp  # RFC 3263 4.1 has no use for one
            and plain_name(pointer.replacement)
        ),
        key=lambda pointer: pointer[:2],
    )
