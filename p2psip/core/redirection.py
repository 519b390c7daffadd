"""Where a request goes on that was redirected (RFC 3261 8.1.3.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from p2psip.errors import (
    ConnectionFailureException,
    MessageParsingException,
    OperationTimeoutException,
    RealTimeException,
    TlsFailureException,
)
from p2psip.message import NameAddr, Response, SipUri, parse_uri

if TYPE_CHECKING:
    from p2psip.core.directory import EndpointRecord

NO_ANSWER = (ConnectionFailureException, TlsFailureException, OperationTimeoutException)
"""Errors after which another target may do, or the same one at another time."""
MAXIMUM_REDIRECTS = 5
"""Targets of redirections that are tried, where nobody says anything else."""


class Redirections:
    """The targets that the 3xx answers to one request have named. None is tried twice, and only so many in all.

    Attributes:
        remaining: Those that were not tried, the most wanted first.
    """

    def __init__(self, maximum: int) -> None:
        self.remaining: list[str] = []
        self._maximum = maximum
        self._tried: set[str] = set()

    @property
    def has_next(self) -> bool:
        """One is left, and not too many were tried. The first place of all does not count."""
        return bool(self.remaining) and len(self._tried) <= self._maximum

    def trying(self, uri: str) -> None:
        """The request is sent there; what was more wanted is not tried any more."""
        self._tried.add(uri.lower())
        if uri in self.remaining:
            del self.remaining[: self.remaining.index(uri) + 1]

    def learn(self, response: Response) -> bool:
        """A final response of 300 or above: is there another target? A target that fails leads to the next one; 6xx
        speaks for all of them (RFC 3261 8.1.3.4, 21.6)."""
        if response.status_code >= 600:
            return False
        new = self._targets(response) if response.status_code < 400 else []
        self.remaining = [*new, *(uri for uri in self.remaining if uri not in new)]
        return self.has_next

    def survive(self, error: Exception) -> bool:
        """There is no way to a target, or no answer, which is like 503 and 408 (RFC 3261 8.1.3.1): is there another?"""
        return self.has_next and isinstance(error, NO_ANSWER)

    def _targets(self, response: Response) -> list[str]:
        """The SIP addresses of Contact, the most wanted first, without those that were tried."""
        try:
            contacts = response.contact
        except MessageParsingException:
            return []
        if not isinstance(contacts, list):
            return []
        found = [c for c in contacts if isinstance(c.uri, SipUri)]
        found.sort(key=_preference, reverse=True)
        uris = dict.fromkeys(str(contact.uri).partition("?")[0] for contact in found)
        return [uri for uri in uris if uri.lower() not in self._tried]


def redirected_target(record: EndpointRecord, uri: str, secure: bool) -> Any:
    """Where a request to the target of a redirection goes, or the error that says why it cannot.

    Args:
        secure: The request was to be sent to ``sips:``, so no less will do.
    """
    try:
        return record.endpoint._next_hop(parse_uri(uri), secure, True)
    except RealTimeException as error:
        return error


def is_secure(uri: str) -> bool:
    """RFC 3261 19.1."""
    return uri[:5].lower() == "sips:"


def _preference(contact: NameAddr) -> float:
    """q (RFC 3261 20.10), which the codec has judged."""
    return float(contact.params.get("q") or 1)
