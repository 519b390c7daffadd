"""What both sides of a session say of themselves: Contact, Allow, Supported, and the timer's headers."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from p2psip.core.dialog import Pairs
from p2psip.core.reliable import TAGS
from p2psip.enums import ExtensionFeatureSupport
from p2psip.errors import MessageParsingException
from p2psip.message import Request, Response, split_list
from p2psip.message.grammar import Remembered

if TYPE_CHECKING:
    from p2psip.core.session_state import SessionState
    from p2psip.core.transaction import ServerTransaction

SESSION_METHODS = ("INVITE", "ACK", "CANCEL", "BYE", "PRACK", "UPDATE", "INFO", "MESSAGE", "OPTIONS", "REFER", "NOTIFY")
"""What can be sent within a session, for Allow."""


def supported(session: SessionState) -> Pairs:
    """Allow and Supported (RFC 3261 13.2.1)."""
    options, record = session.options, session.record
    is_reliable = options.reliable is not ExtensionFeatureSupport.UNSUPPORTED
    methods = tuple(record.endpoint._allowed_methods())
    return _supported(methods, frozenset(record.extensions), is_reliable, options.is_timer_supported)


@functools.lru_cache(maxsize=64)  # they hardly ever change, and each call says them several times
def _supported(methods: Sequence[str], extensions: frozenset[str], is_reliable: bool, has_timer: bool) -> Pairs:
    allowed = dict.fromkeys((*SESSION_METHODS, *methods))
    tags = {"replaces", "join", "norefersub", *extensions}
    if is_reliable:
        tags.add("100rel")
    if has_timer:
        tags.add("timer")
    return (("Allow", ", ".join(allowed)), ("Supported", ", ".join(sorted(tags))))


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
    return [("Record-Route", value) for value in request.headers.get_fields("Record-Route")]


def learn(session: SessionState, message: Request | Response) -> None:
    """Take over what the peer says of itself."""
    allowed = message.headers.get_joined("Allow")
    if allowed:
        session.peer_allow = _METHODS[allowed] or session.peer_allow
    supports = message.headers.get_joined("Supported")
    if supports is not None:
        session.peer_supports = TAGS[supports]


def _methods(text: str) -> frozenset[str]:
    try:
        return frozenset(split_list(text))
    except MessageParsingException:
        return frozenset()


_METHODS = Remembered(_methods)
