"""Who sent a request, as far as that is proved: by its certificate, by a digest, or by the word of a trusted peer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from p2psip.core.flow import Flow
from p2psip.errors import MessageParsingException
from p2psip.message import NameAddr, Request, SipUri

if TYPE_CHECKING:
    from p2psip.core.directory import EndpointRecord


class Sender:
    """The sender of one request that came over a flow, as the endpoint of the record sees it. What is asked is found
    out when it is asked."""

    __slots__ = ("_flow", "_record", "_request")

    def __init__(self, request: Request, flow: Flow, record: EndpointRecord) -> None:
        self._request = request
        self._flow = flow
        self._record = record

    @property
    def is_certified(self) -> bool:
        """The peer's verified certificate carries the host in From."""
        uri = self._request.from_.uri
        return isinstance(uri, SipUri) and self._flow.certifies(uri.host)

    @property
    def user(self) -> str | None:
        """The user name that was proved by a digest, or None."""
        return self._request.authenticated_user

    @property
    def asserted_identity(self) -> str | None:
        """The URI in P-Asserted-Identity, where the peer is trusted; of a SIP URI and a telephone number the SIP URI.

        None where there are more, which nobody may send (RFC 3325 9.1), and where they cannot be read.
        """
        if "P-Asserted-Identity" not in self._request.headers:
            return None
        if self._flow.certified_as(self._record.trusted_peers) is None:
            return None
        try:
            found = [NameAddr.parse(value).uri for value in self._request.headers.get_all("P-Asserted-Identity")]
        except MessageParsingException:
            return None
        named = [str(uri) for uri in found if isinstance(uri, SipUri)]
        numbers = [uri for uri in found if isinstance(uri, str) and uri[:4].lower() == "tel:"]
        if len(named) > 1 or len(numbers) > 1 or len(named) + len(numbers) < len(found):
            return None
        return (named + numbers)[0]

    @property
    def is_proved(self) -> bool:
        """One of the three."""
        return self.is_certified or self.user is not None or self.asserted_identity is not None
