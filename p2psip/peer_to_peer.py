"""The endpoint of this library: it reaches its peers directly or through an outbound proxy."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from p2psip import arguments
from p2psip.arguments import Headers
from p2psip.core.ways import Way, Ways
from p2psip.endpoint import RealTimeEndpoint, SipPeerToPeerEndpointSettings
from p2psip.enums import SipTransportType
from p2psip.errors import ConnectionFailureException
from p2psip.managers import RealTimeServerConnectionManager, default_manager
from p2psip.message import SipUri
from p2psip.net.network import Target
from p2psip.net.selection import DEFAULT_PORTS, is_address
from p2psip.proxies import Proxy, hop
from p2psip.values import ConnectionContext, RealTimeAddress, SendMessageOptions

MAXIMUM_TARGETS = 1024
REMEMBERED_LENGTH = 256
"""Of URIs that peers name."""

_TargetKey = tuple[str, ConnectionContext | tuple[str, int] | None, str | None]
"""All that the first hop of a request depends on, but for the endpoint."""


class SipPeerToPeerEndpoint(RealTimeEndpoint):
    """An endpoint that reaches its peers directly or through an outbound proxy, without registration.

    It can send once it is made. To receive, its manager has to listen:
    ``endpoint.connection_manager.start_listening(...)``.

    Args:
        owner_uri: Who it is: a ``sip:`` or ``sips:`` URI without port.
        connection_manager: A TLS or TCP manager; None means the shared TCP manager.
        default_transport: What is used when an address does not say; TLS on a TLS manager, TCP on a TCP manager.
        proxy_host: Where all requests outside of dialogs go first; None sends them straight to their address.
        proxy_port: The proxy's port; without it the DNS says which servers the proxy's name has (SRV, RFC 3263), and
            where it knows of none it is 5061 for TLS, 5060 for TCP.
        proxies: In place of ``proxy_host``: several proxies in order of preference, each the next one's stand-in where it
            cannot be reached, answers 503 or does not answer at all. Each is host and port, or a URI
            (``"sip:proxy.example.com;lr"``) that is named in Route as well (RFC 3261 8.1.2), or a list of the URIs that
            requests are to pass one after the other. A URI without ``lr`` is a strict router of RFC 2543.
        gruu: A globally routable URI of this endpoint.
        headers: Headers that every message of this endpoint bears.
        settings: The same, and more, as an object.

    Raises:
        ValueError, TypeError: An argument.
        RealTimeInvalidOperationException: The manager is disposed.
    """

    def __init__(
        self,
        owner_uri: str,
        connection_manager: RealTimeServerConnectionManager | None = None,
        default_transport: SipTransportType | None = None,
        proxy_host: str | None = None,
        proxy_port: int | None = None,
        *,
        proxies: Sequence[Proxy] = (),
        gruu: str | None = None,
        headers: Headers = (),
        settings: SipPeerToPeerEndpointSettings | None = None,
    ) -> None:
        if settings is None:
            settings = SipPeerToPeerEndpointSettings()
        arguments.instance(settings, SipPeerToPeerEndpointSettings, "settings")
        if gruu is not None:
            settings = dataclasses.replace(settings, gruu=gruu)
        if headers:
            settings = dataclasses.replace(settings, headers=(*settings.headers, *headers))
        if proxy_host is None and proxy_port is not None:
            raise ValueError("A proxy_port needs a proxy_host.")
        if isinstance(proxies, str):
            raise TypeError(f"proxies is a list of proxies, not the text {proxies!r}.")
        if proxy_host is not None and proxies:
            raise ValueError("Give a proxy_host, or several proxies in place of it.")
        hops = [hop(proxy) for proxy in (proxies if proxy_host is None else [(proxy_host, proxy_port)])]
        if connection_manager is None:
            connection_manager = default_manager.get()
        elif not isinstance(connection_manager, RealTimeServerConnectionManager):
            raise TypeError(
                "A connection_manager is a RealTimeServerTlsConnectionManager or a RealTimeServerTcpConnectionManager, "
                f"not {type(connection_manager).__name__}."
            )
        if default_transport in (None, SipTransportType.NONE):
            default_transport = connection_manager.transport
        default_transport = arguments.instance(default_transport, SipTransportType, "default_transport")
        if default_transport is SipTransportType.TLS and connection_manager.transport is not SipTransportType.TLS:
            raise ValueError("A TCP manager cannot do TLS: use a RealTimeServerTlsConnectionManager.")
        super().__init__(owner_uri, connection_manager, settings)
        self._default_transport = default_transport
        if any(hop.transport is SipTransportType.TLS for hop in hops):
            self._check_tls("A proxy")
        self._proxies = tuple(hops)
        self._proxy_certificate_subject: str | None = None
        self._targets: dict[_TargetKey, Target | Ways] = {}  # found before
        self._hops: dict[tuple[str, bool, bool], Target] = {}  # the same
        connection_manager._endpoint_added(self)
        self._begin()

    @property
    def default_transport(self) -> SipTransportType:
        """What is used for an address that does not say."""
        return self._default_transport

    @property
    def proxy_certificate_subject(self) -> str | None:
        """The name that the proxy's certificate bears, where it is not the proxy's host; None otherwise."""
        return self._proxy_certificate_subject

    @proxy_certificate_subject.setter
    def proxy_certificate_subject(self, value: str | None) -> None:
        self._proxy_certificate_subject = None if value is None else arguments.host(value)
        self._targets = {}
        self._hops = {}

    def _target(self, address: RealTimeAddress, options: SendMessageOptions | None) -> Any:
        """Where a request to that address goes first, a Target or several Ways; most go to the same few addresses."""
        key: _TargetKey = (address.uri, None, None)
        if options is not None:
            context = options.connection_context
            if context is not None and not isinstance(context, tuple):
                context = arguments.host_and_port(context)
            key = (address.uri, context, options.tls_target_name)
        targets = self._targets  # the setter above puts another one in its place
        target = targets.get(key)
        if target is None:
            target = self._find_target(address, options)
            if len(targets) >= MAXIMUM_TARGETS:
                targets.clear()
            targets[key] = target
        return target

    def _next_hop(self, uri: SipUri | str, secure: bool, learned: bool) -> Target:
        """A hop of a dialog or a redirection: its URI says where and, within this endpoint's bounds, how.

        Raises:
            ConnectionFailureException: It cannot be reached, or only over less than this endpoint's transport.
        """
        hops, key = self._hops, (str(uri), secure, learned)
        target = hops.get(key)
        if target is None:
            target = self._find_hop(uri, secure, learned)
            if len(key[0]) <= REMEMBERED_LENGTH:
                if len(hops) >= MAXIMUM_TARGETS:
                    hops.clear()
                hops[key] = target
        return target

    def _find_hop(self, uri: SipUri | str, secure: bool, learned: bool) -> Target:
        if not isinstance(uri, SipUri):
            raise ConnectionFailureException(f"{uri} names no host that a request could be sent to.")
        asked = (uri.parameters.get("transport") or "").lower()
        if asked not in ("", "tcp", "tls"):
            raise ConnectionFailureException(f"{uri} asks for the transport {asked}; there are only tcp and tls.")
        if secure or uri.scheme == "sips" or asked == "tls":
            transport = SipTransportType.TLS
        elif asked == "tcp":
            transport = SipTransportType.TCP
        else:
            transport = self._default_transport
        if learned and transport is SipTransportType.TCP and self._default_transport is SipTransportType.TLS:
            raise ConnectionFailureException(
                f"{uri}, which a peer named, would take {self._owner_text} from TLS to TCP: not done, because it may "
                "not be lowered by others."
            )
        if transport is SipTransportType.TLS:
            self._check_tls(str(uri))
        try:
            host = arguments.host(uri.parameters.get("maddr") or uri.host)
        except ValueError as error:
            raise ConnectionFailureException(f"{uri} names no host that a request could be sent to.") from error
        name = self._proxy_certificate_subject if self._is_proxy(host, uri.port, transport) else None
        return self._target_at(transport, host, uri.port, asked or None, name)

    def _is_proxy(self, host: str, port: int | None, transport: SipTransportType) -> bool:
        """A hop is an outbound proxy, which is in the path of a dialog as a rule (Record-Route)."""
        default = DEFAULT_PORTS[transport.name]
        return any(host == proxy.host and (port or default) == (proxy.port or default) for proxy in self._proxies)

    def _check_tls(self, what: str) -> None:
        if self._manager.transport is not SipTransportType.TLS:
            raise ConnectionFailureException(
                f"{what} is to be reached over TLS, but the manager of {self._owner_text} does TCP only: "
                "make the endpoint on a RealTimeServerTlsConnectionManager."
            )

    def _find_target(self, address: RealTimeAddress, options: SendMessageOptions | None) -> Target | Ways:
        """The transport rule: what the address asks for, else the endpoint's default; the proxy's is only raised."""
        uri = address.sip_uri
        asked = None if uri is None else uri.parameters.get("transport")
        asked = asked.lower() if asked else None
        if asked not in (None, "tcp", "tls"):
            raise ValueError(f"{address} asks for the transport {asked}; there are only tcp and tls.")
        if uri is not None and (uri.headers or "method" in uri.parameters):
            raise ValueError(
                f"{address} says what a request is to contain, which the address of one cannot (RFC 3261 19.1.1): "
                "give the method as message_type, and headers as headers."
            )
        secure = uri is not None and (uri.scheme == "sips" or asked == "tls")
        transport = SipTransportType.TLS if secure else self._default_transport
        name = None if options is None or options.tls_target_name is None else arguments.host(options.tls_target_name)
        context = None if options is None else options.connection_context
        if context is None and self._proxies:
            return self._through_proxies(transport, secure, asked, name or self._proxy_certificate_subject)
        port: int | None
        if context is not None:
            host, port = arguments.host_and_port(context)
        elif uri is None:
            raise ValueError(f"{address} names no host: give a proxy or a connection_context that can route it.")
        else:
            host, port = arguments.host(uri.parameters.get("maddr") or uri.host), uri.port
        if asked == "tcp" and not secure:
            transport = SipTransportType.TCP
        if transport is SipTransportType.TLS:
            self._check_tls(str(address))
        return self._target_at(transport, host, port, asked, name)

    def _through_proxies(
        self, transport: SipTransportType, secure: bool, asked: str | None, name: str | None
    ) -> Target | Ways:
        """What is not to be sent over less than TLS raises the proxy's transport; nothing but its own URI lowers it."""
        ways = []
        for proxy in self._proxies:
            carried = transport if secure or proxy.transport is None else proxy.transport
            if carried is SipTransportType.TLS:
                self._check_tls(f"The proxy {proxy.host}")
            named = asked if proxy.transport is None else proxy.transport.name
            target = self._target_at(carried, proxy.host, proxy.port, named, name)
            ways.append(Way(target, proxy.routes))
        return ways[0].target if len(ways) == 1 and not ways[0].routes else Ways(ways)

    def _target_at(
        self, transport: SipTransportType, host: str, port: int | None, asked: str | None, name: str | None
    ) -> Target:
        """What is left open is for the DNS to say (RFC 3263 4.1, 4.2), of which nobody asks where an address is."""
        if port is None and is_address(host):
            port = DEFAULT_PORTS[transport.name]
        is_open = port is None and asked is None
        can_be_tls = transport is SipTransportType.TLS or (is_open and self._manager.transport is SipTransportType.TLS)
        return Target(transport.name, host, port, (name or host) if can_be_tls else None, is_open)
