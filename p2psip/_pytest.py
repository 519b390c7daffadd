"""The pytest plug-in: fixtures for tests that need SIP peers, offline.

Loaded by every pytest run in an environment where p2psip is installed, so it imports nothing but pytest until a
fixture is used; then it needs the extra ``testing``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from p2psip.testing import CertificateAuthority, EndpointPair, MemoryNetwork


def _testing() -> Any:
    try:
        from p2psip import testing
    except ModuleNotFoundError as error:
        pytest.fail(f"This fixture needs {error.name}: pip install 'p2psip-endpoint[testing]'.", pytrace=False)
    return testing


@pytest.fixture(scope="session")
def sip_certificate_authority() -> CertificateAuthority:
    """A certificate authority for the whole run: ``sip_certificate_authority.issue("alice.example.com")``."""
    authority: CertificateAuthority = _testing().CertificateAuthority()
    return authority


@pytest.fixture
def sip_network() -> Iterator[MemoryNetwork]:
    """A network in memory: what connection managers do while the test runs stays in the process."""
    testing = _testing()
    with testing.MemoryNetwork() as network, testing.living_in(network):
        yield network


@pytest.fixture
def sip_endpoint_pair(
    sip_certificate_authority: CertificateAuthority, sip_network: MemoryNetwork
) -> Iterator[EndpointPair]:
    """Two endpoints, ``alice`` and ``bob``, that reach each other over mutual TLS on the network in memory."""
    with _testing().endpoint_pair(authority=sip_certificate_authority, network=sip_network) as pair:
        yield pair
