"""Messages that follow from other messages: responses, ACK to a final non-2xx, CANCEL."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Iterable

from p2psip.message.grammar import excerpt, is_token, split_list
from p2psip.message.headers import Headers, checked_lines
from p2psip.message.message import Request, Response, check_reason, check_status_code

_REASONS = {
    100: "Trying",
    180: "Ringing",
    181: "Call Is Being Forwarded",
    182: "Queued",
    183: "Session Progress",
    199: "Early Dialog Terminated",
    200: "OK",
    202: "Accepted",
    204: "No Notification",
    300: "Multiple Choices",
    301: "Moved Permanently",
    302: "Moved Temporarily",
    305: "Use Proxy",
    380: "Alternative Service",
    400: "Bad Request",
    401: "Unauthorized",
    402: "Payment Required",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    407: "Proxy Authentication Required",
    408: "Request Timeout",
    410: "Gone",
    412: "Conditional Request Failed",
    413: "Request Entity Too Large",
    414: "Request-URI Too Long",
    415: "Unsupported Media Type",
    416: "Unsupported URI Scheme",
    417: "Unknown Resource-Priority",
    420: "Bad Extension",
    421: "Extension Required",
    422: "Session Interval Too Small",
    423: "Interval Too Brief",
    424: "Bad Location Information",
    428: "Use Identity Header",
    429: "Provide Referrer Identity",
    430: "Flow Failed",
    433: "Anonymity Disallowed",
    436: "Bad Identity-Info",
    437: "Unsupported Certificate",
    438: "Invalid Identity Header",
    439: "First Hop Lacks Outbound Support",
    440: "Max-Breadth Exceeded",
    469: "Bad Info Package",
    470: "Consent Needed",
    480: "Temporarily Unavailable",
    481: "Call/Transaction Does Not Exist",
    482: "Loop Detected",
    483: "Too Many Hops",
    484: "Address Incomplete",
    485: "Ambiguous",
    486: "Busy Here",
    487: "Request Terminated",
    488: "Not Acceptable Here",
    489: "Bad Event",
    491: "Request Pending",
    493: "Undecipherable",
    494: "Security Agreement Required",
    500: "Server Internal Error",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Server Time-out",
    505: "Version Not Supported",
    513: "Message Too Large",
    580: "Precondition Failure",
    600: "Busy Everywhere",
    603: "Decline",
    604: "Does Not Exist Anywhere",
    606: "Not Acceptable",
    607: "Unwanted",
    608: "Rejected",
}

_CLASSES = {1: "Trying", 2: "OK", 3: "Multiple Choices", 4: "Bad Request", 5: "Server Internal Error", 6: "Decline"}

_COPIED = ("via", "from", "to", "call-id", "cseq")
_copied = operator.itemgetter(*_COPIED)
_WHITE_SPACE = " \t"


def reason_phrase(status_code: int) -> str:
    """The phrase of the code; for a code that nobody registered, the one of its class (RFC 3261 8.1.3.2)."""
    return _REASONS.get(status_code) or _CLASSES.get(status_code // 100, "Unknown")


def create_response(
    request: Request,
    status_code: int,
    reason: str | None = None,
    *,
    to_tag: str | None = None,
    top_via: str | None = None,
    headers: Iterable[tuple[str, str]] = (),
    content_type: str | None = None,
    body: bytes = b"",
) -> Response:
    """A response to the request.

    Via, From, To, Call-ID and CSeq are the request's, octet for octet; 100 takes over its Timestamp as well.

    Args:
        reason: None takes the phrase of the code.
        to_tag: Added to To when it has none, but not in a 100.
        top_via: Stands in place of the first line of Via (RFC 3261 18.2.1). Made of the request's; not checked.

    Raises:
        ValueError: An argument cannot stand in a message.

    RFC 3261 8.2.6.
    """
    known = _REASONS.get(status_code)
    if known is None:
        check_status_code(status_code)
    if reason is None:
        reason = known or ""
    else:
        check_reason(reason)
    asked = request.headers
    first = asked._first or asked._index()
    try:
        lines = [*_copied(first)]
    except KeyError:  # the request lacks one; so does the response then
        lines = [line for key in _COPIED for line in asked._lines_of(key)]
    else:
        if to_tag is not None and status_code > 100:
            to = lines[2]
            if to[-1] == ">" or request.to_tag is None:
                if not is_token(to_tag):
                    raise ValueError(f"{excerpt(to_tag)} is not a tag.")
                lines[2] = f"{to.rstrip(_WHITE_SPACE)};tag={to_tag}"
        if len(first) != len(asked._lines):
            lines[:1] = asked._lines_of("via")
    if top_via is not None and "via" in first:
        lines[0] = "Via: " + top_via
    if status_code == 100 and "timestamp" in first:
        lines.append(first["timestamp"])
    more = [*headers] if content_type is None else [*headers, ("Content-Type", content_type)]
    if more:
        lines += checked_lines(more)
    return Response.of_lines(status_code, reason, lines, body)


def stateless_tag(start_line: str, headers: Headers) -> str:
    """A tag for To that is the same whenever the same request is refused, as it must be where nothing is remembered.

    RFC 3261 8.2.7.
    """
    text = "\r\n".join((start_line, *headers._lines))
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


def create_ack(invite: Request, response: Response) -> Request:
    """The ACK to a final response of 300 or above, of the INVITE's own transaction.

    RFC 3261 17.1.1.3.
    """
    return _companion(invite, "ACK", response.headers.get("To") or "")


def create_cancel(request: Request) -> Request:
    """The CANCEL of a request that was sent.

    RFC 3261 9.1.
    """
    return _companion(request, "CANCEL", request.headers.get("To") or "")


def _companion(request: Request, method: str, to: str) -> Request:
    """A request of the same branch: what both ACK and CANCEL take over."""
    old = request.headers
    companion = Request(method, request.uri)
    companion.headers = Headers.of_lines(
        [
            f"Via: {split_list(old.get('Via') or '')[0]}",
            "Max-Forwards: 70",
            *(f"Route: {route}" for route in old.get_all("Route")),
            f"From: {old.get('From') or ''}",
            f"To: {to}",
            f"Call-ID: {old.get('Call-ID') or ''}",
            f"CSeq: {request.cseq.number} {method}",
        ]
    )
    return companion
