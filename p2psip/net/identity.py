"""Whom a certificate stands for in SIP (RFC 5922), and whether that is who was asked for."""

from __future__ import annotations

import functools
import ipaddress
import itertools
import re
from collections.abc import Iterable, Sequence
from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID

from p2psip.errors import MessageParsingException
from p2psip.message import SipUri

MAXIMUM_NAMES = 1000
"""Alternative names of one certificate that are looked at."""

_HOST = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class Identities:
    """The SIP identities of one certificate (RFC 5922 7.1). Immutable.

    Every URI of the scheme ``sip`` without a user part gives its host. DNS names count where there is no such URI, the
    common name where there is no alternative name at all and the caller allows it. IP addresses stand beside them.

    Attributes:
        names: The identities as text, lower case, in the certificate's order; addresses last.
    """

    __slots__ = ("_domains", "addresses", "names")

    def __init__(self, domains: Iterable[str], addresses: Iterable[IPAddress]) -> None:
        domains = tuple(dict.fromkeys(domains))
        self.addresses = frozenset(addresses)
        texts = sorted(str(address) for address in self.addresses)
        self.names = (*domains, *(text for text in texts if text not in domains))
        self._domains = frozenset(domains)

    @classmethod
    def of(
        cls,
        uris: Sequence[str] = (),
        dns: Sequence[str] = (),
        ips: Sequence[Any] = (),
        common_name: str | None = None,
        allow_common_name: bool = False,
        *,
        has_names: bool | None = None,
    ) -> Identities:
        """From what stands in a certificate.

        Args:
            uris, dns, ips: The alternative names by kind.
            common_name: The subject's.
            allow_common_name: Take the common name of a certificate that has no alternative name at all.
            has_names: It has alternative names, perhaps of other kinds; None means: if any of these three has one.
        """
        addresses: list[IPAddress] = []
        for entry in ips:
            try:
                addresses.append(_plain(ipaddress.ip_address(entry)))
            except ValueError:  # a network, or nonsense
                continue
        domains: list[str] = []
        for uri in uris:
            host = _sip_domain(uri)
            if host is not None:
                address = _address(host)
                if address is not None:
                    addresses.append(address)
                domains.append(host if address is None else str(address))
        if not domains:
            domains = [name.lower() for name in dns]
        if has_names is None:
            has_names = bool(uris or dns or ips)
        if not has_names and allow_common_name and common_name:
            domains = [common_name.lower()]
        return cls(domains, addresses)

    @classmethod
    def from_certificate(cls, certificate: x509.Certificate, allow_common_name: bool = False) -> Identities:
        """From a certificate. One whose alternative names cannot be read has none."""
        try:
            extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        except x509.ExtensionNotFound:
            if not allow_common_name:
                return _NOBODY
            names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
            name = names[-1].value if names else None
            return cls.of(common_name=name if isinstance(name, str) else None, allow_common_name=True, has_names=False)
        except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
            return _NOBODY
        uris: list[str] = []
        dns: list[str] = []
        ips: list[Any] = []
        for name in itertools.islice(extension.value, MAXIMUM_NAMES):
            if isinstance(name, x509.UniformResourceIdentifier):
                uris.append(name.value)
            elif isinstance(name, x509.DNSName):
                dns.append(name.value)
            elif isinstance(name, x509.IPAddress):
                ips.append(name.value)
        return cls.of(uris, dns, ips, has_names=True)

    def __repr__(self) -> str:
        return f"Identities({list(self.names)})"

    def covers(self, host: str) -> bool:
        """Whether the certificate stands for this host, as a whole: no wildcards, no suffixes (RFC 5922 7.2).

        Names compare without regard to case; addresses are compared with the addresses of the certificate.
        """
        wanted = normal_identity(host)
        return wanted in self._domains if isinstance(wanted, str) else wanted in self.addresses

    def matching(self, domains: Iterable[str]) -> str | None:
        """The entry that fits: a name or address that the certificate covers, or ``.suffix`` of one of its names.

        A whole name goes before a suffix, a longer suffix before a shorter one. None when none fits.
        """
        suffixes = []
        for domain in domains:
            if domain.startswith("."):
                suffixes.append(domain)
            elif self.covers(domain):
                return domain
        for suffix in sorted(suffixes, key=len, reverse=True):
            ending = suffix.lower()
            if any(name.endswith(ending) and is_domain(name) for name in self._domains):
                return suffix
        return None

    def first_host(self) -> str | None:
        """What a peer can call us by: the first identity that is a whole name or an address; None without any."""
        for name in self.names:
            if _address(name) is not None or is_domain(name):
                return name
        return None


_NOBODY = Identities((), ())


def server_name(identity: str) -> str | None:
    """What the handshake asks for (SNI, RFC 6066 3): the name in ASCII; None for addresses and impossible names."""
    wanted = normal_identity(identity)
    return wanted if isinstance(wanted, str) else None


def is_domain(name: str) -> bool:
    """A whole host name in ASCII and lower case: no wildcard, no leading dot, no address."""
    return _HOST.fullmatch(name) is not None and _address(name) is None


def _sip_domain(text: str) -> str | None:
    """The host of a ``sip`` URI without a user part, in lower case."""
    try:
        uri = SipUri.parse(text)
    except MessageParsingException:
        return None
    return uri.host.lower() if uri.scheme == "sip" and uri.user is None else None


@functools.lru_cache(maxsize=1024)
def normal_identity(host: str) -> str | IPAddress | None:
    """The host to look for: an address, or a name in ASCII and lower case; None for what no certificate can bear."""
    address = _address(host)
    if address is not None:
        return address
    name = host[:-1] if host.endswith(".") else host
    if not name.isascii():
        try:
            name = name.encode("idna").decode("ascii")
        except UnicodeError:
            return None
    name = name.lower()
    return name if _HOST.fullmatch(name) else None


def _address(host: str) -> IPAddress | None:
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    try:
        return _plain(ipaddress.ip_address(host.partition("%")[0]))
    except ValueError:
        return None


def _plain(address: IPAddress) -> IPAddress:
    """IPv4 is IPv4, however it is written."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return address if mapped is None else mapped
