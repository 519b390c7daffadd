"""What a caller is told when a peer answers 300 or above."""

from __future__ import annotations

import re

from p2psip.core.digest import ALGORITHMS
from p2psip.errors import (
    AuthenticationException,
    AuthenticationFailureReason,
    FailureResponseException,
    MessageParsingException,
    PublishSubscribeException,
    ServerPolicyException,
)
from p2psip.message import Response
from p2psip.trace import excerpt
from p2psip.values import SipResponseData


def response_failure(response: Response, what: str, where: str = "") -> FailureResponseException:
    """The exception for a failure response: its class by the status code, a sentence, and what the headers say.

    Args:
        what: The request and its address: ``MESSAGE to sip:bob@example.com``.
        where: Who answered; ``""`` where that is not known.
    """
    code = response.status_code
    sentence = f"{what} was answered {code} {shown(response.reason)}" + (f" by {where}" if where else "")
    hint = _HINTS.get(code) if response.unmet is None else _challenge_hint(response)
    warnings = _values(response, "Warning")
    kind: type[FailureResponseException] = FailureResponseException
    if code in (401, 407):
        kind = AuthenticationException
    elif code == 403 and warnings:
        kind = ServerPolicyException
    elif what.startswith(("SUBSCRIBE ", "PUBLISH ")):
        kind = PublishSubscribeException
    sentence += f": {hint}." if hint else "."
    error = kind(
        sentence,
        SipResponseData(response),
        warnings=warnings,
        diagnostics=[*_values(response, "Reason"), *_values(response, "Error-Info")],
        retry_after=_retry_after(response),
    )
    if isinstance(error, AuthenticationException):
        _read_challenges(error, response)
    return error


_REALM = re.compile(r'\brealm\s*=\s*"((?:[^"\\]|\\.)*)"', re.IGNORECASE)
_ALGORITHM = re.compile(r'\balgorithm\s*=\s*"?([A-Za-z0-9-]+)', re.IGNORECASE)
_SECONDS = re.compile(r"\s*([0-9]{1,10})(?![0-9])")


def _retry_after(response: Response) -> int | None:
    """Retry-After (RFC 3261 20.33): seconds, then perhaps a comment and parameters."""
    found = _SECONDS.match(response.headers.get("Retry-After") or "")
    return None if found is None else int(found[1])


def _read_challenges(error: AuthenticationException, response: Response) -> None:
    """What credentials are wanted, in the order of the headers (RFC 3261 20.27, 20.44)."""
    header = "WWW-Authenticate" if response.status_code == 401 else "Proxy-Authenticate"
    protocols = []
    for challenge in _values(response, header):
        scheme = challenge.partition(" ")[0]
        if not scheme:
            continue
        realm, algorithm = _REALM.search(challenge), _ALGORITHM.search(challenge)
        if error.realm is None and realm is not None:
            error.realm = re.sub(r"\\(.)", r"\1", realm[1])
        protocols.append(scheme if algorithm is None else f"{scheme} {algorithm[1]}")
    error.supported_authentication_protocols = tuple(protocols)
    error.failure_reason = AuthenticationFailureReason.MISSING_CREDENTIALS
    if response.unmet is not None:
        error.failure_reason = response.unmet.reason
        error.realm = response.unmet.realm or error.realm


def _challenge_hint(response: Response) -> str:
    """What to do about it."""
    who = "it" if response.status_code == 401 else "a proxy"
    reason, realm, user_name = response.unmet
    if not realm:
        return f"{who} wants credentials in no way that is known here: Digest with {', '.join(ALGORITHMS)}"
    realm = shown(realm)
    if reason is AuthenticationFailureReason.INVALID_CREDENTIALS:
        return (
            f'{who} did not accept the credentials of {shown(user_name)} for the realm "{realm}"; user name or password '
            "is wrong"
        )
    if reason is AuthenticationFailureReason.NO_COMMON_PROTOCOLS:
        return (
            f'{who} offers the realm "{realm}" nothing that the credentials may be used with; where that is MD5, '
            f'endpoint.credentials.add("{realm}", ..., allow_md5=True) allows it'
        )
    return (
        f'{who} wants credentials for the realm "{realm}": give them with '
        f'endpoint.credentials.add("{realm}", user_name, password)'
    )


def _values(response: Response, name: str) -> list[str]:
    """All values of a header; where the list cannot be read, its first line as it is."""
    try:
        return response.headers.get_all(name)
    except MessageParsingException:
        value = response.headers.get(name)
        return [value] if value else []


def shown(text: str | None) -> str:
    """What a peer wrote, for sentences and logs: octets that are no UTF-8 must not keep them from being printed."""
    return excerpt((text or "").encode("utf-8", "surrogateescape"))


_HINTS = {
    401: "it wants credentials",
    403: "it refuses this sender or this request",
    404: "it knows no such user; check the address",
    405: "it has no use for this method",
    407: "the proxy wants credentials",
    408: "a proxy on the way got no answer",
    415: "it cannot read this content type",
    416: "it cannot route this kind of URI",
    420: "it does not know an extension that the message requires",
    480: "the user is there, but not available now",
    481: "it does not know this session or subscription (any more)",
    485: "several endpoints bear this address; give the endpoint id",
    486: "the user is busy",
    487: "the request was taken back",
    488: "it does not accept what was offered",
    489: "it has no such event package",
    500: "something went wrong there; its log says what",
    501: "it does not know this method",
    503: "it is overloaded; try again later",
    600: "the user is busy everywhere",
    603: "the user declines",
}
