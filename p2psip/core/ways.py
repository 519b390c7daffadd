"""The ways that a request outside of any dialog may go: through which hops, and where else when that fails."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from p2psip.message import NameAddr, Request, SipUri


class Way(NamedTuple):
    """One way.

    Attributes:
        target: The first hop: ``transport``, ``host`` and ``port``; or the exception that says why there is none.
        routes: The hops that the request is to pass, as the values of Route: the first of them is the target
            (RFC 3261 8.1.2). None where the first hop needs nothing said.
    """

    target: Any
    routes: tuple[str, ...] = ()

    def lead(self, request: Request, uri: str) -> None:
        """Write the way into the request, which is for that URI, in place of another way.

        A first hop without ``lr`` is one of RFC 2543: it wants itself in the Request-URI, and the URI at the end of the
        route (RFC 3261 12.2.1.1, 16.12.1.2).
        """
        routes: Sequence[str] = self.routes
        if routes:
            first = NameAddr.parse(routes[0], brackets=True).uri
            if isinstance(first, SipUri) and "lr" not in first.parameters:
                uri, routes = str(first), [*routes[1:], f"<{uri}>"]
        request.headers.remove("Route")
        for route in reversed(routes):
            request.headers.prepend("Route", route)
        request.uri = uri


class Ways:
    """Several ways, in the order in which they are tried. For sentences it looks like the first one's target."""

    __slots__ = ("ways",)

    def __init__(self, ways: Sequence[Way]) -> None:
        self.ways = tuple(ways)

    @property
    def transport(self) -> str:
        return str(self.ways[0].target.transport)

    @property
    def host(self) -> str:
        return str(self.ways[0].target.host)

    @property
    def port(self) -> Any:
        return self.ways[0].target.port
