"""Connections that peers opened and that serve requests of ours as well (RFC 5923)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from p2psip.errors import MessageParsingException
from p2psip.message import Malformed, Request, Response, Via
from p2psip.net.channel import OPEN
from p2psip.net.identity import normal_identity
from p2psip.net.reach import Remote

if TYPE_CHECKING:
    from p2psip.net.connection import Connection
    from p2psip.net.pool import Target
    from p2psip.net.tls import TlsContexts

DEFAULT_PORT = 5061


class Aliases:
    """For the loop's thread.

    Only the certificate says whom such a connection leads to (RFC 5923 9.3): it bears the name that is asked for, and the
    host of the Via with ``alias``. The host that is asked for is that one, or the address that the peer is connected
    from: a certificate may stand for many nodes, and this is one of them.
    """

    def __init__(self) -> None:
        self._places: dict[Remote, dict[Connection, None]] = {}
        self._offers: dict[Connection, Remote] = {}  # where the peer says that it listens

    def note(self, connection: Connection, messages: Iterable[Request | Response | Malformed]) -> None:
        """These have come over it: a valid request may say that it can be used both ways."""
        if not connection.is_incoming or not connection.is_authenticated or connection.phase != OPEN:
            return
        for message in messages:
            if type(message) is Request:
                via = _with_alias(message)
                if via is not None and connection.certifies(via.host):
                    self._remember(connection, (str(normal_identity(via.host)), via.port or DEFAULT_PORT))

    def _remember(self, connection: Connection, offer: Remote) -> None:
        """The last one counts: the peer may listen on another port by now."""
        if self._offers.get(connection) == offer:
            return
        self.forget(connection)
        self._offers[connection] = offer
        assert connection.tls is not None and connection.tls.certificate is not None
        if _may_serve(connection.tls.certificate):
            for place in self._places_of(connection):
                self._places.setdefault(place, {})[connection] = None

    def _places_of(self, connection: Connection) -> set[Remote]:
        host, port = self._offers[connection]
        return {(host, port), (connection.remote[0], port)}

    def forget(self, connection: Connection) -> None:
        """It is gone."""
        if connection not in self._offers:
            return
        for place in self._places_of(connection):
            connections = self._places.get(place, {})
            connections.pop(connection, None)
            if not connections:
                self._places.pop(place, None)
        del self._offers[connection]

    def address(self, connection: Connection) -> Remote:
        """Where a connection to the same peer would be made to."""
        offer = self._offers.get(connection)
        return connection.remote if offer is None else (connection.remote[0], offer[1])

    def find(self, target: Target, tls: TlsContexts | None) -> Connection | None:
        """The oldest one that leads to the target and takes a request now."""
        if not self._places or tls is None or not tls.need_mutual_tls:
            return None
        if target.transport != "TLS" or target.identity is None:
            return None
        place = str(normal_identity(target.host)), target.port or DEFAULT_PORT
        for connection in self._places.get(place, ()):
            if connection.takes_requests and connection.certifies(target.identity):
                return connection
        return None


def _with_alias(request: Request) -> Via | None:
    """The Via of who sent it, if the request is valid and may be answered by requests (RFC 5923 6)."""
    try:
        via = request.top_via
        if "alias" not in via.params or via.transport.upper() != "TLS":
            return None
        request.validate()
    except MessageParsingException:
        return None
    return via


def _may_serve(certificate: bytes) -> bool:
    """It would do for a server as well: who may only connect must not become one that way (RFC 5280 4.2.1.12)."""
    try:
        usage = x509.load_der_x509_certificate(certificate).extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    except x509.ExtensionNotFound:
        return True
    except ValueError:
        return False
    return ExtendedKeyUsageOID.SERVER_AUTH in usage.value
