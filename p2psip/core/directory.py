"""Which endpoint a request is for. The Request-URI alone decides, the epid in To between equals."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from p2psip.core.authentication import CredentialSource, KnownAnswers
from p2psip.core.flow import Flow
from p2psip.enums import SenderPolicy
from p2psip.errors import MessageParsingException
from p2psip.message import Request, SipUri, normalise_escapes

if TYPE_CHECKING:
    from p2psip.core.digest_demand import DigestDemand


REMEMBERED = 1024
"""Request-URIs whose endpoint is remembered: most requests go to the same few."""
REMEMBERED_LENGTH = 200


class Endpoint(Protocol):
    """What the core asks an endpoint of the facade."""

    @property
    def user_agent(self) -> str: ...
    def _contact(self, flow: Flow, request_uri: str) -> str:
        """The value of Contact where a request to that URI, or the answer to it, goes over that flow."""

    def _next_hop(self, uri: SipUri | str, secure: bool, learned: bool) -> Any:
        """The target of a request to that URI. ``secure``: only TLS will do. ``learned``: a peer or proxy has named
        the URI, which must not lower the transport from TLS. Raises ConnectionFailureException or ValueError when there is
        no way."""

    def _allowed_methods(self) -> Sequence[str]:
        """What it takes just now, for Allow."""

    def _arrived(self, usage: Any) -> None:
        """A peer offers a session, a subscription or a transfer; called by whoever carries out effects."""

    def _event_packages(self) -> Sequence[str]:
        """The packages that can be subscribed to here, for Allow-Events; empty: any."""


class EndpointRecord:
    """What the core knows of an endpoint.

    Attributes:
        endpoint: The facade's object.
        owner: The owner's URI.
        opaque: The value of the opaque parameter in the endpoint's own URI.
        gruu: Its globally routable URI, or None.
        epid: Tells apart the endpoints of one owner.
        allowed_methods: Methods that the library does not know and the application takes.
        extensions: Option tags (lower case) that may stand in Require.
        minimum_session_interval: Seconds of a session timer below which an INVITE is refused (RFC 4028).
        credentials: What challenges are answered with, or None.
        demand: What is wanted of those who send it requests, or None.
        known_answers: What challenges were answered with.
        sender_policy: Whose requests outside of dialogs are taken.
        trusted_peers: Domains whose peers are believed when they say who sent a request (RFC 3325).
        accepting: Requests outside of dialogs are taken; else they get 480.
        serving: Requests that were delivered to it and have no final answer yet.
    """

    __slots__ = (
        "accepting",
        "allowed_methods",
        "credentials",
        "demand",
        "endpoint",
        "epid",
        "extensions",
        "gruu",
        "known_answers",
        "minimum_session_interval",
        "opaque",
        "owner",
        "sender_policy",
        "serving",
        "trusted_peers",
    )

    def __init__(self, endpoint: Endpoint, owner: SipUri, opaque: str, gruu: SipUri | None, epid: str) -> None:
        self.endpoint = endpoint
        self.owner = owner
        self.opaque = opaque
        self.gruu = gruu
        self.epid = epid
        self.allowed_methods: set[str] = set()
        self.extensions: set[str] = set()
        self.minimum_session_interval = 90
        self.credentials: CredentialSource | None = None
        self.demand: DigestDemand | None = None
        self.known_answers = KnownAnswers()
        self.sender_policy = SenderPolicy.ANY
        self.trusted_peers: frozenset[str] = frozenset()
        self.accepting = True
        self.serving = 0

    def __repr__(self) -> str:
        return f"<EndpointRecord {self.owner};epid={self.epid}>"


class Directory:
    """The endpoints of one connection manager.

    Attributes:
        default: Takes what is addressed to nobody else; None unless set.
    """

    def __init__(self) -> None:
        self.default: EndpointRecord | None = None
        self._local_hosts: frozenset[str] = frozenset()
        self._found: dict[tuple[str, str], Sequence[EndpointRecord] | int] = {}
        self._records: dict[EndpointRecord, None] = {}
        self._by_opaque: dict[object, list[EndpointRecord]] = {}
        self._by_owner: dict[object, list[EndpointRecord]] = {}
        self._by_user: dict[object, list[EndpointRecord]] = {}
        self._by_gruu: dict[object, list[EndpointRecord]] = {}

    @property
    def local_hosts(self) -> frozenset[str]:
        """Names and addresses that are ours, as :func:`normal_host` writes them. The address that a request arrived at
        counts as well."""
        return self._local_hosts

    @local_hosts.setter
    def local_hosts(self, hosts: Iterable[str]) -> None:
        self._local_hosts = frozenset(hosts)
        self._found.clear()

    @property
    def records(self) -> list[EndpointRecord]:
        """In the order in which they were added."""
        return list(self._records)

    def add(self, record: EndpointRecord) -> None:
        """Let requests find it."""
        self._records[record] = None
        self._found.clear()
        for index, key in self._places(record):
            index.setdefault(key, []).append(record)

    def remove(self, record: EndpointRecord) -> None:
        """Forget it. It is no error if it is not there."""
        if record not in self._records:
            return
        del self._records[record]
        self._found.clear()
        for index, key in self._places(record):
            index[key].remove(record)
            if not index[key]:
                del index[key]
        if self.default is record:
            self.default = None

    def _places(self, record: EndpointRecord) -> list[tuple[dict[object, list[EndpointRecord]], object]]:
        user, host = _user_and_host(record.owner)
        places: list[tuple[dict[object, list[EndpointRecord]], object]] = [
            (self._by_opaque, record.opaque),
            (self._by_owner, (user, host)),
            (self._by_user, user),
        ]
        if record.gruu is not None:
            places.append((self._by_gruu, _user_and_host(record.gruu)))
        return places

    def find(self, request: Request, flow: Flow) -> EndpointRecord | int:
        """The endpoint, or the status code that refuses the request.

        RFC 3261 8.2.2.1; the order of the steps is the one that users are promised.
        """
        place = (request.uri, flow.local[0])
        found = self._found.get(place)
        if found is None:
            found = self._find(request, flow)
            if len(request.uri) <= REMEMBERED_LENGTH:
                if len(self._found) >= REMEMBERED:
                    self._found.clear()
                self._found[place] = found
        if isinstance(found, int):
            # Of what is no SIP URI only a telephone number can be anybody's; what other schemes mean is not known.
            can_be_anybodys = found == 404 or request.uri[:4].lower() == "tel:"
            return self.default if self.default is not None and can_be_anybodys else found
        return found[0] if len(found) == 1 else _by_epid(request, found)

    def _find(self, request: Request, flow: Flow) -> Sequence[EndpointRecord] | int:
        """Whom the Request-URI names; else the status code where there is no default."""
        uri = request.request_uri
        if not isinstance(uri, SipUri):
            return 416
        opaque = uri.parameters.get("opaque")
        found = self._by_opaque.get(opaque) if opaque is not None else None
        if not found:
            user, host = place = _user_and_host(uri)
            found = [record for record in self._by_gruu.get(place, ()) if _is_gruu(uri, record.gruu)]
            if not found:
                found = self._by_owner.get(place)
            if not found and (host in self._local_hosts or host == normal_host(flow.local[0])):
                found = self._by_user.get(user)
                if not found and user is None and len(self._records) == 1:
                    found = list(self._records)
        return found or 404


def _is_gruu(uri: SipUri, gruu: SipUri | None) -> bool:
    """RFC 5627: besides user and host the parameter that makes it a GRUU (Microsoft's is opaque) is the same."""
    assert gruu is not None
    mine, asked = gruu.parameters, uri.parameters
    if "gr" not in mine and "opaque" not in mine:
        return uri == gruu
    return all(_compared(mine, name) == _compared(asked, name) for name in ("gr", "opaque"))


def _compared(parameters: Mapping[str, str | None], name: str) -> str | bool:
    """RFC 3261 19.1.4: case does not count in values. True for one without value, False for none at all."""
    value = parameters.get(name)
    return name in parameters if value is None else normalise_escapes(value).lower()


def _user_and_host(uri: SipUri) -> tuple[str | None, str]:
    """What addresses are looked up by. Case counts in the user part (RFC 3261 19.1.4)."""
    return (None if uri.user is None else normalise_escapes(uri.user), normal_host(uri.host))


def _by_epid(request: Request, records: Iterable[EndpointRecord]) -> EndpointRecord | int:
    try:
        epid = request.to.params.get("epid")
    except MessageParsingException:
        epid = None
    named = [record for record in records if record.epid == epid]
    return named[0] if len(named) == 1 else 485


def normal_host(host: str) -> str:
    """Lower case; IPv6 addresses without brackets and in their shortest form."""
    if ":" in host:
        host = host.strip("[]")
        try:
            return ipaddress.IPv6Address(host.partition("%")[0]).compressed
        except ValueError:
            pass
    return host.lower()
