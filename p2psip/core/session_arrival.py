"""An INVITE outside of any dialog, from its arrival to the session that is offered to its endpoint."""

from __future__ import annotations

from typing import Literal

from p2psip.core.dialog import contact_uri
from p2psip.core.directory import EndpointRecord
from p2psip.core.effects import Arrived
from p2psip.core.engine import Engine
from p2psip.core.events import SessionState
from p2psip.core.session import Session, SessionOptions
from p2psip.core.transaction import ServerTransaction
from p2psip.core.uas import Refusal
from p2psip.message import Request


def receive_invite(engine: Engine, now: float, transaction: ServerTransaction, record: EndpointRecord) -> None:
    """An INVITE outside of any dialog: begin a session and offer it to the endpoint."""
    request = transaction.request
    refusal = examine(engine, request)
    replaces = _named_session(engine, request, "Replaces")
    joins = _named_session(engine, request, "Join")
    if refusal is None and (replaces is False or joins is False):
        refusal = Refusal(481)  # RFC 3891 3, RFC 3911 4
    session = Session(engine, record, None, SessionOptions(minimum_interval=record.minimum_session_interval))
    too_short = session.timer.refusal(request)
    if refusal is None and too_short is not None:
        refusal = Refusal(422, too_short)
    if refusal is not None:
        transaction.refuse(refusal)
        return
    session.replaces, session.joins = replaces or None, joins or None
    transaction.usage = session
    session.arrive(now, transaction)
    engine.effects.append(Arrived(record, session))


def _named_session(engine: Engine, request: Request, header: str) -> Session | Literal[False] | None:
    """The session that the header names; None without the header, False where there is no such session."""
    name = named_dialog(request, header)
    if name is None:
        return None
    dialog = engine.dialogs.get(*name)
    sessions = () if dialog is None else tuple(usage for usage in dialog.usages if isinstance(usage, Session))
    return sessions[0] if sessions and sessions[0].state is not SessionState.DISCONNECTED else False


def examine(engine: Engine, request: Request) -> Refusal | None:
    """Why an INVITE outside of any dialog cannot begin a session."""
    if len(engine.dialogs) >= engine.settings.maximum_dialogs:
        return Refusal(503, [("Retry-After", "5")])
    if contact_uri(request) is None:
        return Refusal(400)  # RFC 3261 8.1.1.8: there would be no way back
    if request.headers.get("Replaces") is not None and request.headers.get("Join") is not None:
        return Refusal(400)  # RFC 3911 4
    return None


def named_dialog(request: Request, header: str) -> tuple[str, str | None, str | None] | None:
    """Call-ID, our tag and the peer's in Replaces or Join (RFC 3891 6.1, RFC 3911 7.1); None when it says neither."""
    value = request.headers.get(header)
    if value is None:
        return None
    call_id, *parameters = value.split(";")
    tags: dict[str, str] = {}
    for parameter in parameters:
        name, _, tag = parameter.partition("=")
        tags[name.strip().lower()] = tag.strip()
    return call_id.strip(), tags.get("to-tag"), tags.get("from-tag")
