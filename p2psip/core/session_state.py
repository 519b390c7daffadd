"""What the parts of a session share: its state, what it knows of the peer, and how it tells, answers and completes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from p2psip.core import session_headers
from p2psip.core.dialog import Content, Dialog, Pairs
from p2psip.core.effects import Complete, Tell
from p2psip.core.events import MessageSeen, SessionStateChanged
from p2psip.core.session_errors import overtaken, wrong_time
from p2psip.core.session_options import SessionOptions
from p2psip.core.session_timer import SessionTimer
from p2psip.core.usage import ClientUsage
from p2psip.enums import SignalingState, SignalingTransitionReason
from p2psip.message import Request, Response

if TYPE_CHECKING:
    from p2psip.core.directory import EndpointRecord
    from p2psip.core.engine import Engine
    from p2psip.core.transaction import ServerTransaction


class SessionState(ClientUsage):
    """The part of a session that all others look at.

    Attributes:
        user: Told of what happens, by the effect Tell.
        dialog: The confirmed dialog, else the newest early one; None before there is any.
        peer_allow: The methods in the peer's last Allow.
        peer_supports: The option tags in its last Supported, lower case.
        wants_messages: The user is told of each message (MessageSeen).
    """

    __slots__ = (
        "call_id",
        "dialog",
        "engine",
        "is_incoming",
        "options",
        "peer_allow",
        "peer_supports",
        "reason",
        "record",
        "request",
        "state",
        "timer",
        "user",
        "wants_messages",
    )

    timer: SessionTimer

    def __init__(
        self, engine: Engine, record: EndpointRecord, user: Any, options: SessionOptions, call_id: str
    ) -> None:
        self.engine = engine
        self.record = record
        self.user = user
        self.options = options
        self.call_id = call_id
        self.state = SignalingState.IDLE
        self.reason = SignalingTransitionReason.NONE
        self.is_incoming = False
        self.dialog: Dialog | None = None
        self.request: Request | None = None
        self.wants_messages = False
        self.peer_allow: frozenset[str] = frozenset()
        self.peer_supports: frozenset[str] = frozenset()

    @property
    def from_tag(self) -> str | None:
        """The caller's tag."""
        return None if self.request is None else self.request.from_tag

    @property
    def to_tag(self) -> str | None:
        """The called side's tag; None before it is known."""
        dialog = self.dialog
        return None if dialog is None else dialog.local_tag if self.is_incoming else dialog.remote_tag

    @property
    def local_content(self) -> Content | None:
        """What we said last in the dialog of what was agreed."""
        return None if self.dialog is None else self.dialog.local_content

    @property
    def remote_content(self) -> Content | None:
        """What the peer said last in it."""
        return None if self.dialog is None else self.dialog.remote_content

    def dialog_of(self, request: Request) -> Dialog | None:
        """The one that the peer's request came in, while there may be several."""
        found = self.engine.dialogs.get(request.call_id or "", request.to_tag, request.from_tag)
        return self.dialog if found is None else found

    def change(
        self, state: SignalingState, reason: SignalingTransitionReason, message: Request | Response | None
    ) -> None:
        """Another state; the user is told."""
        previous, self.state = self.state, state
        self.reason = reason
        if previous is not state:
            self.engine.effects.append(Tell(self, SessionStateChanged(previous, state, reason, message)))

    def tell(self, event: Any) -> None:
        self.engine.effects.append(Tell(self, event))

    def see(self, message: Request | Response) -> None:
        """A message of the session has come."""
        if self.wants_messages:
            self.tell(MessageSeen(message, self.dialog is None or self.dialog.is_early))

    def complete(self, operation: Any, message: Request | Response | None, error: Exception | None) -> None:
        if operation is not None:
            self.engine.effects.append(Complete(operation, message, error))

    def refuse(self, operation: Any, what: str) -> None:
        """The command comes at the wrong time."""
        self.complete(operation, None, wrong_time(self, what))

    def overtake(self, operation: Any) -> None:
        """The end of the session has overtaken the operation."""
        if operation is not None:
            self.complete(operation, None, overtaken(self))

    def respond(
        self,
        transaction: ServerTransaction,
        code: int,
        reason: str | None = None,
        headers: Pairs = (),
        content: Content | None = None,
    ) -> Response:
        """Answer a request of the session; the response as it was sent."""
        kept = [*headers]
        if transaction.request.method in ("INVITE", "UPDATE") and code < 300:
            kept += session_headers.of_answer(self, transaction, code)
        response = transaction.create_response(
            code,
            reason,
            headers=kept,
            content_type=None if content is None else content.content_type,
            body=b"" if content is None else content.body,
        )
        transaction.respond(response)
        return response

    def supported(self) -> Pairs:
        return session_headers.supported(self)

    def learn(self, message: Request | Response) -> None:
        session_headers.learn(self, message)
