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

Way = tuple[str, int]
"""An identity, and the port that its owner listens on."""


class Aliases:
    """For the loop's thread.

    Only the certificate says whom such a connection leads to (RFC 5923 9.3): it bears the name that is asked for, the
    host that is asked for unless the peer is connected from there, and the host of the Via with ``alias``.
    """

    def __init__(self) -> None:
        self._ways: dict[Way, dict[Connection, None]] = {}
        self._known: dict[Connection, tuple[int, list[Way]]] = {}  # the port, and what leads there

    def note(self, connection: Connection, messages: Iterable[Request | Response | Malformed]) -> None:
        """These have come over it: a valid request may say that it can be used both ways."""
        if not connection.is_incoming or not connection.is_authenticated or connection.phase != OPEN:
            return
        for message in messages:
            if type(message) is Request:
                via = _with_alias(message)
                if via is not None and connection.certifies(via.host):
                    self._remember(connection, via.port or DEFAULT_PORT)

    def _remember(self, connection: Connection, port: int) -> None:
        """The last port counts: the peer may listen on another one by now."""
        known = self._known.get(connection)
        if known is not None and known[0] == port:
            return
        self.forget(connection)
        tls = connection.tls
        assert tls is not None and tls.identities is not None and tls.certificate is not None
        names = tls.identities.names if _may_serve(tls.certificate) else ()
        ways = [(name, port) for name in names]
        self._known[connection] = (port, ways)
        for way in ways:
            self._ways.setdefault(way, {})[connection] = None

    def forget(self, connection: Connection) -> None:
        """It is gone."""
        for way in self._known.pop(connection, (0, []))[1]:
            connections = self._ways[way]
            del connections[connection]
            if not connections:
                del self._ways[way]

    def address(self, connection: Connection) -> Remote:
        """Where a connection to the same peer would be made to."""
        known = self._known.get(connection)
        return connection.remote if known is None else (connection.remote[0], known[0])

    def find(self, target: Target, tls: TlsContexts | None) -> Connection | None:
        """The oldest one that leads to the target and takes a request now."""
        if not self._ways or tls is None or not tls.need_mutual_tls:
            return None
        if target.transport != "TLS" or target.identity is None:
            return None
        way = str(normal_identity(target.identity)), target.port or DEFAULT_PORT
        for connection in self._ways.get(way, ()):
            leads_there = connection.certifies(target.identity) and connection.covers(target.host)
            is_good = connection.phase == OPEN and not connection.is_expired and not connection.is_doubtful
            if leads_there and is_good and not connection.is_busy:
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
