"""Outbound proxies, as applications name them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from p2psip import arguments
from p2psip.enums import SipTransportType
from p2psip.errors import MessageParsingException
from p2psip.message import SipUri

Proxy = str | SipUri | tuple[str, int | None] | Sequence["str | SipUri"]
"""A URI, host and port, or the URIs of several hops that requests are to pass one after the other."""


class Hop(NamedTuple):
    """Where requests go first.

    Attributes:
        host, port: None leaves the port to the DNS or to the transport.
        transport: The one that its URI names, or None.
        routes: What Route is to say; nothing where only host and port are known.
    """

    host: str
    port: int | None
    transport: SipTransportType | None = None
    routes: tuple[str, ...] = ()


def hop(proxy: Proxy) -> Hop:
    """The first hop of a proxy, and what Route says of the ways through it.

    Raises:
        ValueError, TypeError: It is none.
    """
    if isinstance(proxy, str | SipUri):
        return _route([proxy])
    if len(proxy) == 2 and isinstance(proxy[0], str) and (proxy[1] is None or isinstance(proxy[1], int)):
        port = proxy[1]
        return Hop(arguments.host(proxy[0]), None if port is None else arguments.port(port))
    if not proxy:
        raise ValueError("A proxy without any hop is none.")
    return _route(proxy)  # type: ignore[arg-type]


def _route(uris: Sequence[str | SipUri]) -> Hop:
    hops = [_uri(uri) for uri in uris]
    for uri in hops:
        if uri.headers:
            raise ValueError(f"The proxy {uri} says what a request is to contain, which a route cannot.")
    first = hops[0]
    asked = (first.parameters.get("transport") or "").lower()
    if asked not in ("", "tcp", "tls"):
        raise ValueError(f"The proxy {first} asks for the transport {asked}; there are only tcp and tls.")
    transport = None
    if first.scheme == "sips" or asked == "tls":
        transport = SipTransportType.TLS
    elif asked == "tcp":
        transport = SipTransportType.TCP
    host = arguments.host(first.parameters.get("maddr") or first.host)
    return Hop(host, first.port, transport, tuple(f"<{uri}>" for uri in hops))


def _uri(value: str | SipUri) -> SipUri:
    if isinstance(value, SipUri):
        return value
    arguments.text(value, "A proxy")
    try:
        return SipUri.parse(value)
    except MessageParsingException as error:
        raise ValueError(f"A proxy is a sip: or sips: URI, or host and port, and not {value!r}.") from error
