"""What every user agent server looks at before it looks at the request itself (RFC 3261 8.2).

The order is the RFC's: who it is for, whether it came twice, what it requires, what it carries. The method is judged
by the endpoint (405, 501), because only there is it known who listens at that moment.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from p2psip.core.directory import Directory, EndpointRecord
from p2psip.core.flow import Flow
from p2psip.core.sender import Sender
from p2psip.enums import SenderPolicy
from p2psip.errors import MessageParsingException
from p2psip.message import Request, Response, Via, create_response, is_token, split_list, stateless_tag
from p2psip.message.names import KNOWN_METHODS

if TYPE_CHECKING:
    from p2psip.core.tokens import Tokens
    from p2psip.core.transaction import ServerTransaction

CANCELLED_METHODS = ("INVITE", *sorted(KNOWN_METHODS - {"ACK", "CANCEL", "INVITE"}))
"""What a CANCEL may be meant for, which it does not say."""

MAGIC_COOKIE = "z9hG4bK"

DIALOG_METHODS = frozenset(("BYE", "PRACK", "UPDATE"))
"""Methods that mean nothing outside of a dialog, even without a tag in To."""


EXTENSIONS = frozenset(("100rel", "join", "norefersub", "replaces", "timer"))
"""Option tags that the library understands by itself."""


UNPROVED = ("Warning", '399 p2psip "The domain in From is not one that the certificate of the peer carries"')
"""What a sender is told whom nobody vouches for (RFC 3261 20.43)."""


ASKED = 16
"""Endpoints that are asked whether they know a sender: what a stranger's request costs must not grow with their number."""


class Refusal:
    """The answer to a request that does not get past the UAS core."""

    __slots__ = ("headers", "status_code")

    def __init__(self, status_code: int, headers: Sequence[tuple[str, str]] = ()) -> None:
        self.status_code = status_code
        self.headers = headers


BUSY = Refusal(503, [("Retry-After", "5")])
"""There is no room for what it asks for; seconds after which there may be."""


def find_endpoint(request: Request, flow: Flow, directory: Directory) -> EndpointRecord | Refusal:
    """The endpoint that a request outside of any dialog is for, or why there is none (RFC 3261 8.2.2.1)."""
    if request.to_tag is not None or request.method in DIALOG_METHODS:
        return Refusal(481)  # RFC 3261 12.2.2: it believes in a dialog that is not here
    record = directory.find(request, flow)
    if not isinstance(record, EndpointRecord):
        return Refusal(record)
    return record if record.accepting else Refusal(480)


def admit(now: float, transaction: ServerTransaction, record: EndpointRecord, tokens: Tokens) -> Refusal | None:
    """Why the endpoint does not take a request outside of any dialog: its sender has proved less than is demanded, or it
    demands what the endpoint does not understand. None: it does."""
    return _prove(now, transaction, record, tokens) or inspect(transaction.request, record)


def _prove(now: float, transaction: ServerTransaction, record: EndpointRecord, tokens: Tokens) -> Refusal | None:
    """What is wrong with what its sender has proved; None when it is enough."""
    refusal = None if record.demand is None else record.demand.refusal(now, transaction, tokens)
    if refusal is None and record.sender_policy is SenderPolicy.CERTIFIED:
        sender = Sender(transaction.request, transaction.flow, record)
        refusal = None if sender.is_proved else Refusal(403, [UNPROVED])
    return refusal


def veil(now: float, transaction: ServerTransaction, refusal: Refusal, directory: Directory, tokens: Tokens) -> Refusal:
    """How a request is refused for which there is no endpoint, or none now. Where endpoints want to know who asks, strangers
    are told nothing else of who is not here than of who is (RFC 3261 8.2: authentication comes first).

    That is so for endpoints of one realm: of several the first one's is named. And no more of them are asked than ``ASKED``:
    who is known to the others only hears that he is to prove it.
    """
    if refusal.status_code == 481:
        return refusal
    wanted = None
    asking = (r for r in directory.records if r.demand is not None or r.sender_policy is SenderPolicy.CERTIFIED)
    for record in itertools.islice(asking, ASKED):
        missing = _prove(now, transaction, record, tokens)
        if missing is None:
            return refusal  # no stranger
        wanted = wanted or missing
    return wanted or refusal


def inspect(request: Request, record: EndpointRecord) -> Refusal | None:
    """How a request is refused that demands what the endpoint does not understand (RFC 3261 8.2.2.3, 8.2.3)."""
    headers = request.headers
    if headers.get("Require") is not None:
        try:
            required = headers.get_all("Require")
        except MessageParsingException:
            return Refusal(400)
        if not all(map(is_token, required)):
            return Refusal(400)
        unknown = [tag for tag in required if tag.lower() not in record.extensions and tag.lower() not in EXTENSIONS]
        if unknown:
            return Refusal(420, [("Unsupported", ", ".join(unknown))])
    content_type = headers.get("Content-Type")
    if content_type is not None and not _is_media_type(content_type):
        return Refusal(415, [("Accept", "*/*")])
    return None


@functools.lru_cache(maxsize=256)
def _is_media_type(text: str) -> bool:
    """RFC 3261 25.1: ``type/subtype``, then parameters, which are the application's."""
    kind, _, subtype = text.partition(";")[0].partition("/")
    return is_token(kind.strip(" \t")) and is_token(subtype.strip(" \t"))


def stateless_answer(
    request: Request, flow: Flow, status_code: int, headers: Iterable[tuple[str, str]] = ()
) -> Response | None:
    """An answer without a transaction: there is too much wrong with the request, or no room for one. None where there
    is nothing that the sender could know the answer by."""
    if not all(map(request.headers.count, ("Via", "From", "To", "Call-ID", "CSeq"))):
        return None
    tag, via = stateless_tag(request.start_line, request.headers), top_via(request, flow)
    try:
        return create_response(request, status_code, to_tag=tag, top_via=via, headers=headers)
    except MessageParsingException:  # To cannot be read, and so not be given a tag
        return create_response(request, status_code, top_via=via, headers=headers)


def top_via(request: Request, flow: Flow) -> str | None:
    """The first line of Via for the response to a request that came over the flow; None where it goes back as it came.

    It says where the request really came from if the sender was wrong or asked for it. RFC 3261 18.2.1 lets the
    server write that into the request; here it is written into the responses only, so that applications see the
    request as it was sent. For the sender that is the same.
    """
    try:
        via = request.top_via
    except MessageParsingException:
        return None  # with the answer that says what is wrong
    host, port = flow.remote
    params = via.params
    wants_port = "rport" in params and params["rport"] is None
    if not wants_port and via.host.lower().strip("[]") == host:
        return None
    line = request.headers.get("Via") or ""
    comma = "," in line
    if not wants_port and "received" not in params and not comma:
        return f"{line};received={host}"
    params = {**params, "received": host}
    if wants_port:
        params["rport"] = str(port)  # RFC 3581 4
    text = str(Via(via.transport, via.host, via.port, params, protocol=via.protocol, version=via.version))
    return ", ".join([text, *split_list(line)[1:]]) if comma else text


def server_key(request: Request) -> tuple[object, ...]:
    """What a request shares with its copies, and an ACK with its INVITE; a CANCEL differs from what it cancels in the
    last part, the method (RFC 3261 17.2.3)."""
    method = "INVITE" if request.method == "ACK" else request.method
    via = request.top_via
    branch = via.branch
    if branch is not None and branch.startswith(MAGIC_COOKIE) and branch != MAGIC_COOKIE:
        return (branch, via.sent_by, method)
    # An element of RFC 2543, whose branch says little. The top Via differs between hops.
    return (request.uri, request.from_tag, request.call_id, request.cseq.number, str(via), method)


def merge_key(request: Request) -> tuple[object, ...]:
    """What two copies of one request share that came by different ways (RFC 3261 8.2.2.2)."""
    return (request.call_id, request.from_tag, request.cseq)
