"""What names say about where to connect, asked as the library asks; for commands that show it."""

from __future__ import annotations

import argparse
import dataclasses
import random
import re
import socket
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from p2psip import arguments
from p2psip.cli import console
from p2psip.errors import MessageParsingException
from p2psip.message import SipUri
from p2psip.net.addresses import NotTold, addresses_in_dns, addresses_of_system, literal
from p2psip.net.given import GivenNames, is_local
from p2psip.net.records import ask
from p2psip.net.selection import Answer, Place, Plan, Query, Wanted, is_address, select

MAXIMUM_SHOWN = 16
"""Addresses that are looked at; whoever has more is not going to miss them."""

Nameservers = list[tuple[str, int]] | None


@dataclasses.dataclass
class Found:
    """A place and its addresses, or why it has none."""

    place: Place
    addresses: list[str]
    problem: str = ""


@dataclasses.dataclass
class Names:
    """What came of it.

    Attributes:
        wanted: What was looked for.
        plan: The questions, the answers, and the places in order.
        found: The places again, each with its addresses.
    """

    wanted: Wanted
    plan: Plan
    found: list[Found]

    @property
    def attempts(self) -> list[tuple[Place, tuple[str, int]]]:
        """What would be connected to, one after the other."""
        return [(each.place, (address, each.place.port)) for each in self.found for address in each.addresses]

    def rows(self) -> list[tuple[str, str]]:
        """For people."""
        rows = [("asked", line) for line in self._asked()] or [("asked", "nothing: it is an address, or has a port")]
        number = 0
        for each in self.found:
            source = f" ({each.place.host})" if each.addresses and not is_address(each.place.host) else ""
            for address in each.addresses:
                number += 1
                rows.append((f"{number}.", f"{console.endpoint((address, each.place.port))}{source}"))
            if each.problem:
                rows.append(("no address", f"{each.place.host}: {each.problem}"))
        return rows

    def _asked(self) -> list[str]:
        lines = []
        for query, answer in self.plan.steps:
            lines += [f"{query}: {' '.join(_shown(part) for part in record)}" for record in sorted(answer.records)]
            if not answer.records:
                lines.append(f"{query}: {answer.problem or 'none'}")
        return lines

    def as_json(self) -> dict[str, Any]:
        """For scripts."""
        return {
            "questions": [
                {
                    "name": query.name,
                    "kind": query.kind,
                    "records": [list(record) for record in sorted(answer.records)],
                    "problem": answer.problem or None,
                }
                for query, answer in self.plan.steps
            ],
            "order": [
                {
                    "transport": each.place.transport,
                    "host": each.place.host,
                    "port": each.place.port,
                    "named_by": None if each.place.source is None else str(each.place.source),
                    "addresses": each.addresses,
                    "problem": each.problem or None,
                }
                for each in self.found
            ],
        }


def _shown(part: object) -> str:
    return f'"{part}"' if part == "" else str(part)


def target(text: str) -> SipUri:
    """A name, with or without a port, or a SIP address: what an argument may say."""
    try:
        if re.match(r"(?i)sips?:", text):
            uri = SipUri.parse(text)
        else:
            uri = SipUri.parse(f"sip:{f'[{text}]' if ':' in text and is_address(text) else text}")
        _host(uri)
    except (MessageParsingException, ValueError):
        raise argparse.ArgumentTypeError(f"{text!r} is neither HOST, HOST:PORT nor a SIP address") from None
    if (uri.parameters.get("transport") or "tcp").lower() not in ("tcp", "tls"):
        raise argparse.ArgumentTypeError(f"{text!r} asks for a transport that is neither tcp nor tls")
    return uri


def wanted(uri: SipUri, *, tcp: bool) -> Wanted:
    """Where an endpoint goes for that URI; ``tcp`` is its default transport."""
    asked = (uri.parameters.get("transport") or "").lower()
    is_secure = uri.scheme == "sips" or asked == "tls"
    transport = "TCP" if (asked == "tcp" or tcp) and not is_secure else "TLS"
    return Wanted(transport, _host(uri), uri.port, asks_for_transport=not asked and uri.port is None)


def _host(uri: SipUri) -> str:
    return arguments.host(uri.parameters.get("maddr") or uri.host)


def follow(target: Wanted, nameservers: Nameservers, seconds: float) -> Names:
    """Ask. Blocks for at most about ``seconds`` a question; the addresses are asked for side by side."""
    plan = _plan(select(target, lambda most: random.randint(0, most)), nameservers, seconds)
    places = plan.places[:MAXIMUM_SHOWN]
    with ThreadPoolExecutor(max(len(places), 1)) as pool:
        return Names(target, plan, list(pool.map(lambda place: _addresses(place, nameservers, seconds), places)))


def _plan(search: Generator[Query, Answer, Plan], nameservers: Nameservers, seconds: float) -> Plan:
    local = GivenNames({})
    answer: Any = None
    while True:
        try:
            query = search.send(answer)
        except StopIteration as end:
            plan: Plan = end.value
            return plan
        given = local.records(query)
        answer = ask(query, nameservers, seconds)[0] if given is None else Answer(given)


def _addresses(place: Place, nameservers: Nameservers, seconds: float) -> Found:
    try:
        if is_address(place.host):
            found = literal(place.host)
        elif nameservers and not is_local(place.host):
            found = addresses_in_dns(ask, place.host, nameservers, seconds)
        else:
            found = addresses_of_system(socket.getaddrinfo, place.host)
    except (NotTold, OSError, UnicodeError) as error:
        return Found(place, [], getattr(error, "strerror", None) or str(error))
    return Found(place, [address[0] for _, address in found], "" if found else "none")
