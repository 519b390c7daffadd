"""Managers and endpoints for tests, on the real loopback interface or on a network in memory."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import weakref
from collections.abc import Iterator
from typing import Any

from p2psip import (
    IPAddress,
    IPEndPoint,
    RealTimeServerConnectionManager,
    RealTimeServerTcpConnectionManager,
    RealTimeServerTlsConnectionManager,
    SipPeerToPeerEndpoint,
    SipTransportType,
)
from p2psip.stack import Environment, Stack
from p2psip.testing.authority import CertificateAuthority
from p2psip.testing.network import MemoryNetwork

ALICE = ("alice.example", "192.0.2.1")
BOB = ("bob.example", "192.0.2.2")


@contextlib.contextmanager
def living_in(environment: Environment) -> Iterator[None]:
    """Connection managers that are made within the block live in another world: a MemoryNetwork, or a machine of it.

    They stay there when the block is over. Holds for all threads, so one test at a time.
    """
    before, Stack.environment = Stack.environment, environment
    try:
        yield
    finally:
        Stack.environment = before


def tls_manager(authority: CertificateAuthority, *names: str, **options: Any) -> RealTimeServerTlsConnectionManager:
    """A manager whose certificate bears the names, and that trusts the authority.

    Args:
        names: As for ``authority.issue``.
        options: As for RealTimeServerTlsConnectionManager.
    """
    folder = tempfile.TemporaryDirectory(prefix="p2psip-")
    issued = authority.issue(*names)
    options.setdefault("certificate_store", authority.store(folder.name, issued))
    manager = RealTimeServerTlsConnectionManager(issued.issuer, issued.serial, **options)
    weakref.finalize(manager, folder.cleanup)  # until then it may read its certificates again
    return manager


@dataclasses.dataclass(frozen=True)
class EndpointPair:
    """Two endpoints, each on a manager of its own that listens.

    Attributes:
        alice, bob: The endpoints; ``alice.uri`` and ``bob.uri`` reach them.
        network: Where they live: cut, hold and delay their connections there.
    """

    alice: SipPeerToPeerEndpoint
    bob: SipPeerToPeerEndpoint
    network: MemoryNetwork


@contextlib.contextmanager
def endpoint_pair(
    transport: SipTransportType = SipTransportType.TLS,
    *,
    authority: CertificateAuthority | None = None,
    network: MemoryNetwork | None = None,
    **options: Any,
) -> Iterator[EndpointPair]:
    """Two endpoints that reach each other on a network in memory; everything is closed at the end of the block.

    Args:
        transport: Mutual TLS, or TCP.
        authority: Issues their certificates; a new one by default.
        network: A network to live in; a new one by default.
        options: For both managers, such as ``settings``.
    """
    with contextlib.ExitStack() as end:
        network = network or end.enter_context(MemoryNetwork())
        authority = authority or CertificateAuthority()
        endpoints: list[SipPeerToPeerEndpoint] = []
        for name, address in (ALICE, BOB):
            network.hosts[name] = [address]
            with living_in(network.machine(address)):
                manager: RealTimeServerConnectionManager
                if transport is SipTransportType.TLS:
                    manager = tls_manager(authority, name, **options)
                else:
                    manager = RealTimeServerTcpConnectionManager(name, **options)
            end.enter_context(manager)
            manager.start_listening(IPEndPoint(IPAddress.ANY, 0))
            endpoints.append(SipPeerToPeerEndpoint(f"sip:{name.partition('.')[0]}@{name}", manager))
        yield EndpointPair(endpoints[0], endpoints[1], network)
