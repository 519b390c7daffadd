"""An INVITE outside of any dialog, from its arrival to the session that is offered to its endpoint."""

from __future__ import annotations

from typing import Literal

from p2psip.core.dialog import contact_uri
from p2psip.core.directory import EndpointRecord
from p2psip.core.effects import Arrived
from p2psip.core.engine import Engine
from p2psip.core.session import Session, SessionOptions
from p2psip.core.transaction import ServerTransaction
from p2psip.core.uas import BUSY, Refusal
from p2psip.enums import SignalingState
from p2psip.message import Request


def receive_invite(engine: Engine, now: float, transaction: ServerTransaction, record: EndpointRecord) -> None:
    """An INVITE outside of any dialog: begin a session and offer it to the endpoint."""
    request = transaction.request
    refusal = examine(engine, request)
    replaces = _named_session(engine, record, request, "Replaces")
    joins = _named_session(engine, record, request, "Join")
    named = (replaces, joins)
    if refusal is None and False in named:
        refusal = Refusal(481)  # RFC 3891 3, RFC 3911 4
    if refusal is None and any(session and session.state is SignalingState.DISCONNECTED for session in named):
        refusal = Refusal(603)
    if refusal is None and replaces and replaces.state is SignalingState.CONNECTED and _is_early_only(request):
        refusal = Refusal(486)
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


def _named_session(
    engine: Engine, record: EndpointRecord, request: Request, header: str
) -> Session | Literal[False] | None:
    """The endpoint's session that the header names; None without the header, False where there is no such session."""
    name = named_dialog(request, header)
    if name is None:
        return None
    dialog = engine.dialogs.get(*name)
    if dialog is None or dialog.record is not record:
        return False
    session = next((usage for usage in dialog.usages if isinstance(usage, Session)), None)
    if session is None:
        return False
    # RFC 3891 3: a call that rings here is picked up by whoever began it, and by nobody else.
    return False if dialog.is_early and session.is_incoming else session


def _is_early_only(request: Request) -> bool:
    parameters = (request.headers.get("Replaces") or "").split(";")[1:]
    return any(parameter.strip().lower() == "early-only" for parameter in parameters)


def examine(engine: Engine, request: Request) -> Refusal | None:
    """Why an INVITE outside of any dialog cannot begin a session."""
    if engine.dialogs.are_enough(engine.settings.maximum_dialogs):
        return BUSY
    if contact_uri(request) is None:
        return Refusal(400)  # RFC 3261 8.1.1.8: there would be no way back
    if request.headers.count("Replaces") + request.headers.count("Join") > 1:
        return Refusal(400)  # RFC 3891 3, RFC 3911 4
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
