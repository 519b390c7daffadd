"""One question to the DNS. It blocks, so it runs on a resolver thread (or in a command)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dns.exception
import dns.message
import dns.nameserver
import dns.rcode
import dns.rdatatype
import dns.resolver

from p2psip.net.selection import Answer, Naptr, Query, Srv

MAXIMUM_TTL = 3600.0
"""Seconds that an answer is used again at most, whatever it says of itself."""
MAXIMUM_NEGATIVE_TTL = 300.0
"""Likewise, when there are no such records."""
PROBLEM_TTL = 15.0
"""Seconds that a question is not asked again after it could not be answered."""


def ask(query: Query, nameservers: Sequence[tuple[str, int]] | None, seconds: float) -> tuple[Answer, float]:
    """Ask, and say how many seconds the answer is good for. Blocks for at most about ``seconds``; never raises.

    Args:
        nameservers: None means the system's, read anew each time: they change with the network.
    """
    try:
        resolver = dns.resolver.Resolver(configure=nameservers is None)
        if nameservers is not None:
            resolver.nameservers = [dns.nameserver.Do53Nameserver(host, port) for host, port in nameservers]
        if not resolver.nameservers:
            raise dns.resolver.NoResolverConfiguration
        resolver.timeout = min(resolver.timeout, max(seconds / 3, 0.1))  # for each try
        found = resolver.resolve(query.name + ".", query.kind, lifetime=seconds, search=False, raise_on_no_answer=False)
    except dns.resolver.NXDOMAIN as error:
        nothing: Any = error
        return Answer(), _negative_ttl(nothing.response(nothing.qnames()[0]))
    except dns.resolver.NoResolverConfiguration:
        return Answer(problem="no nameserver is configured", is_silence=True), PROBLEM_TTL
    except dns.resolver.LifetimeTimeout:
        return Answer(problem=f"no nameserver answered within {seconds:.3g} s", is_silence=True), PROBLEM_TTL
    except dns.resolver.NoNameservers as error:
        return _refusal(error), PROBLEM_TTL
    except Exception as error:  # DNSException, OSError, ValueError: a name that is none, an answer that is none
        return Answer(problem=str(error) or type(error).__name__), PROBLEM_TTL
    if found.rrset is None:
        return Answer(), _negative_ttl(found.response)
    return Answer(tuple(_record(query.kind, each) for each in found.rrset)), min(
        float(found.chaining_result.minimum_ttl), MAXIMUM_TTL
    )


def _negative_ttl(response: Any) -> float:
    """How long there are none (RFC 2308 5): what the zone's SOA record says, within bounds."""
    try:
        return min(float(response.resolve_chaining().minimum_ttl), MAXIMUM_NEGATIVE_TTL)
    except dns.exception.DNSException:
        return PROBLEM_TTL


def _refusal(error: dns.resolver.NoNameservers) -> Answer:
    """What the last nameserver said."""
    errors = error.kwargs.get("errors") or ()
    response = errors[-1][-1] if errors else None
    if response is not None:
        return Answer(problem=f"the nameserver answered {dns.rcode.to_text(response.rcode())}")
    return Answer(problem="no nameserver can be reached" + (f" ({errors[-1][-2]})" if errors else ""), is_silence=True)


def _record(kind: str, rdata: Any) -> Any:
    if kind == "SRV":
        return Srv(rdata.priority, rdata.weight, rdata.port, rdata.target.to_text())
    if kind == "NAPTR":
        flags, service, regexp = (
            octets.decode("utf-8", "replace") for octets in (rdata.flags, rdata.service, rdata.regexp)
        )
        return Naptr(rdata.order, rdata.preference, flags, service, regexp, rdata.replacement.to_text())
    return str(rdata.address)
