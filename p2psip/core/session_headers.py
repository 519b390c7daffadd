"""What both sides of a session say of themselves: Contact, Allow, Supported, and the timer's headers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from p2psip.core.reliable import option_tags
from p2psip.enums import ExtensionFeatureSupport
from p2psip.errors import MessageParsingException
from p2psip.message import Request, Response

if TYPE_CHECKING:
    from p2psip.core.session_state import SessionState
    from p2psip.core.transaction import ServerTransaction

SESSION_METHODS = ("INVITE", "ACK", "CANCEL", "BYE", "PRACK", "UPDATE", "INFO", "MESSAGE", "OPTIONS", "REFER", "NOTIFY")
"""What can be sent within a session, for Allow."""


def supported(session: SessionState) -> list[tuple[str, str]]:
    """Allow and Supported (RFC 3261 13.2.1)."""
    options, record = session.options, session.record
    methods = dict.fromkeys([*SESSION_METHODS, *record.endpoint._allowed_methods()])
    tags = {"replaces", "join", "norefersub", *record.extensions}
    if options.reliable is not ExtensionFeatureSupport.UNSUPPORTED:
        tags.add("100rel")
    if options.is_timer_supported:
        tags.add("timer")
    return [("Allow", ", ".join(methods)), ("Supported", ", ".join(sorted(tags)))]


def of_answer(session: SessionState, transaction: ServerTransaction, code: int) -> list[tuple[str, str]]:
    """For an answer of 1xx or 2xx to an INVITE or UPDATE."""
    request = transaction.request
    contact = session.record.endpoint._contact(transaction.flow, request.uri)
    pairs = [*record_route(request), ("Contact", contact), *supported(session)]
    if code >= 200:
        pairs += session.timer.response_headers(session.engine.now, request)
    return pairs


def record_route(request: Request) -> list[tuple[str, str]]:
    """The path that the request came by, which the answer that makes a dialog repeats (RFC 3261 12.1.1)."""
    return [("Record-Route", value) for name, value in request.headers if name.lower() == "record-route"]


def learn(session: SessionState, message: Request | Response) -> None:
    """Take over what the peer says of itself."""
    try:
        allowed = message.headers.get_all("Allow")
    except MessageParsingException:
        allowed = []
    if allowed:
        session.peer_allow = frozenset(allowed)
    if message.headers.get("Supported") is not None:
        session.peer_supports = option_tags(message, "Supported")
