"""What an endpoint understands, and tells its peers of it."""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from p2psip import arguments
from p2psip.core.directory import EndpointRecord
from p2psip.core.flow import Flow
from p2psip.core.uas import EXTENSIONS
from p2psip.message import SipUri
from p2psip.messaging import MESSAGE_METHODS
from p2psip.sync import Event, has_handlers

if TYPE_CHECKING:
    from p2psip.session_events import SessionReceivedEventArgs

SESSION_METHODS = ("INVITE", "ACK", "CANCEL", "BYE", "OPTIONS", "PRACK", "UPDATE", "REFER", "NOTIFY")
"""What may come in a session."""

MAXIMUM_CONTACTS = 256
"""That are remembered: one for each address of ours."""


class Capabilities:
    """The part of an endpoint that knows methods, extensions, feature parameters and event packages."""

    _gruu: SipUri | None
    _lock: threading.RLock
    _opaque: str
    _owner: SipUri
    _record: EndpointRecord
    _sessions: dict[Any, None]
    message_received: Event[Any, Any]
    session_received: Event[Any, SessionReceivedEventArgs]
    subscription_received: Event[Any, Any]
    refer_received: Event[Any, Any]

    def __init__(self) -> None:
        self._features: dict[str, str | None] = {}
        self._contacts: dict[tuple[bool, str, str], str] = {}  # made before; another one when the features change
        self._packages: tuple[str, ...] = ()

    def allow_method(self, name: str) -> None:
        """Deliver requests of a method that the library does not take by itself to ``message_received``, instead of
        answering 501: one that it does not know, or PUBLISH, of which it is a client only (405). Does not block.

        Raises:
            ValueError: Not a method name, or one that belongs to sessions or subscriptions.
        """
        method = arguments.method(name)
        if method not in MESSAGE_METHODS:
            self._record.allowed_methods.add(method)

    def add_sip_extension(self, name: str) -> None:
        """Accept the option tag ``name`` in Require; unknown ones are answered 420. It cannot be removed.

        Raises:
            ValueError: Empty, not a token, or added before.
        """
        arguments.token(name, "an option tag")
        if name.lower() in self._record.extensions:
            raise ValueError(f"The extension {name} is supported already.")
        self._record.extensions.add(name.lower())

    @property
    def supported_sip_extensions(self) -> tuple[str, ...]:
        """The option tags accepted in Require: the library's and the added ones."""
        return tuple(sorted(EXTENSIONS | self._record.extensions))

    def add_feature_parameter(self, name: str, value: str | None = None) -> None:
        """Add a feature parameter (RFC 3840) to the Contact of this endpoint.

        Raises:
            ValueError: Not a token, a malformed value, or added before.
        """
        arguments.token(name, "a feature parameter")
        if name in self._features:
            raise ValueError(f"The feature parameter {name} is set already.")
        if value is not None and any(c in '"\\<>' for c in arguments.text(value, "A feature parameter's value")):
            raise ValueError(f"{value!r} cannot be the value of a feature parameter.")
        with self._lock:
            self._features = {**self._features, name: value}  # the loop may be reading the one before
            self._contacts = {}

    def remove_feature_parameter(self, name: str) -> None:
        """Take it out of the Contact again; an unknown one is fine."""
        with self._lock:
            self._features = {known: value for known, value in self._features.items() if known != name}
            self._contacts = {}

    def get_feature_parameter_value(self, name: str) -> str | None:
        """Its value; None when it has none, or is not set."""
        return self._features.get(name)

    def _allowed_methods(self) -> Sequence[str]:
        """What this endpoint takes just now (Allow, RFC 3261 20.5)."""
        return _allowed(
            frozenset(self._record.allowed_methods) if has_handlers(self, "message_received") else None,
            bool(self._sessions) or has_handlers(self, "session_received"),
            has_handlers(self, "subscription_received"),
            has_handlers(self, "refer_received"),
        )

    def _contact(self, flow: Flow, request_uri: str) -> str:
        """Where this endpoint is reached when the request travels over that connection: by ``sips:`` where the
        request asks for it (RFC 3261 8.1.1.8)."""
        contacts, key = self._contacts, (request_uri[:5].lower() == "sips:", flow.transport, flow.sent_by)
        contact = contacts.get(key)
        if contact is None:
            if len(contacts) >= MAXIMUM_CONTACTS:
                contacts.clear()
            contact = contacts[key] = self._contact_at(*key)
        return contact

    def _contact_at(self, is_secure: bool, transport: str, sent_by: str) -> str:
        if self._gruu is not None:
            uri = str(self._gruu)
        else:
            user = f"{self._owner.user}@" if self._owner.user else ""
            scheme = "sips" if is_secure else self._owner.scheme
            parameter = "" if scheme == "sips" else f";transport={transport.lower()}"
            uri = f"{scheme}:{user}{sent_by}{parameter};opaque={self._opaque}"
        features = "".join(f";{n}" if v is None else f';{n}="{v}"' for n, v in self._features.items())
        return f"<{uri}>{features}"

    def _event_packages(self) -> tuple[str, ...]:
        return self._packages

    @property
    def event_packages(self) -> tuple[str, ...]:
        """The event packages that others can subscribe to here; empty (the default): ``subscription_received``
        decides. A subscription to another one is answered 489 with these in Allow-Events (RFC 6665 8.2.2)."""
        return self._packages

    @event_packages.setter
    def event_packages(self, names: Sequence[str]) -> None:
        self._packages = tuple(arguments.token(name, "an event package") for name in names)


@functools.lru_cache(maxsize=64)  # each call asks several times
def _allowed(more: frozenset[str] | None, sessions: bool, subscriptions: bool, transfers: bool) -> tuple[str, ...]:
    """The methods; ``more`` are the application's own, None where it takes no messages."""
    methods = ["OPTIONS"] if more is None else [*MESSAGE_METHODS, *sorted(more)]
    if sessions:
        methods[:0] = SESSION_METHODS
    if subscriptions:
        methods.append("SUBSCRIBE")
    if transfers:
        methods.append("REFER")
    return tuple(dict.fromkeys(methods))
