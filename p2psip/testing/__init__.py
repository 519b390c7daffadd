"""Help for the tests of applications: certificates, good and bad. Needs the extra ``testing``."""

from __future__ import annotations

from p2psip.testing.authority import DEFECTS, CertificateAuthority, Defect, IssuedCertificate

__all__ = [
    "DEFECTS",
    "CertificateAuthority",
    "Defect",
    "IssuedCertificate",
]
