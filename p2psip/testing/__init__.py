"""Help for the tests of applications: certificates good and bad, a network in memory, a clock that one turns.

Needs the extra ``testing``. In pytest the fixtures ``sip_certificate_authority``, ``sip_network`` and
``sip_endpoint_pair`` bring the same.
"""

from __future__ import annotations

from p2psip.testing.authority import DEFECTS, CertificateAuthority, Defect
from p2psip.testing.clock import FakeClock
from p2psip.testing.endpoints import EndpointPair, endpoint_pair, living_in, tls_manager
from p2psip.testing.leaf import IssuedCertificate
from p2psip.testing.network import Link, Machine, MemoryNetwork

__all__ = [
    "DEFECTS",
    "CertificateAuthority",
    "Defect",
    "EndpointPair",
    "FakeClock",
    "IssuedCertificate",
    "Link",
    "Machine",
    "MemoryNetwork",
    "endpoint_pair",
    "living_in",
    "tls_manager",
]
