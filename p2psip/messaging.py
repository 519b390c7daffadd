"""Messages outside of sessions: the ones we sent and wait for, and the ones that came in."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from p2psip import arguments
from p2psip.arguments import Headers
from p2psip.connections import RealTimeConnection
from p2psip.core.engine import KNOWN_METHODS
from p2psip.core.event_headers import allow_events
from p2psip.core.sender import Sender
from p2psip.enums import MessageType
from p2psip.errors import (
    MessageParsingException,
    RealTimeException,
    RealTimeInvalidOperationException,
)
from p2psip.failures import response_failure, shown
from p2psip.logs import Log
from p2psip.message import Request, Response
from p2psip.net.network import Target
from p2psip.senders import SenderEventArgs
from p2psip.sync import Event, Operation
from p2psip.values import Participant, SipRequestData, SipResponseData, decode_body

if TYPE_CHECKING:
    from p2psip.core.directory import EndpointRecord
    from p2psip.core.engine import ClientRequest
    from p2psip.core.transaction import ServerTransaction
    from p2psip.credentials import Credentials
    from p2psip.endpoint import RealTimeEndpoint

_log = Log(__name__)

_Lock = type(threading.RLock())
"""As in :mod:`p2psip.sync.operation`."""

MESSAGE_METHODS = tuple(kind.name for kind in MessageType)
_TYPES = {kind.name: kind for kind in MessageType}
_WITHOUT_CONTACT = ("MESSAGE", "INFO")  # RFC 3428 4, RFC 6086 4


class PendingMessage:
    """A request that we sent and whose operation waits. Everything but construction on the loop thread."""

    __slots__ = ("client_request", "credentials", "endpoint", "operation", "request", "target", "timeout")

    def __init__(
        self,
        endpoint: RealTimeEndpoint,
        request: Request,
        target: Target,
        operation: Operation[SipResponseData],
        timeout: float | None,
        credentials: Credentials | None,
    ) -> None:
        self.endpoint = endpoint
        self.request = request
        self.target = target
        self.operation = operation
        self.timeout = timeout
        self.credentials = credentials
        self.client_request: ClientRequest | None = None
        operation.context = self

    @property
    def pending(self) -> set[PendingMessage]:
        """The requests of the same endpoint that wait."""
        return self.endpoint._pending

    @property
    def record(self) -> EndpointRecord:
        """Whose request it is."""
        return self.endpoint._record

    @property
    def bears_contact(self) -> bool:
        """It says where the endpoint can be reached."""
        return self.request.method not in _WITHOUT_CONTACT

    def complete(self, response: Response | None, error: RealTimeException | None) -> None:
        """The engine's last word."""
        self.pending.discard(self)
        if response is None:
            assert error is not None
            self.operation.fail(error)
        elif response.status_code < 300:
            self.operation.complete(SipResponseData(response))
        else:
            try:
                failure: Exception = response_failure(
                    response,
                    f"{self.request.method} to {self.request.uri}",
                    f"{self.target.host}:{self.target.port} over {self.target.transport}",
                )
            except Exception as unexpected:  # whatever a peer wrote, somebody waits for this operation
                failure = unexpected
            self.operation.fail(failure)


class MessageSource(Protocol):
    """Where messages come in."""

    @property
    def message_received(self) -> Event[Any, Any]: ...


class MessageReceivedEventArgs(SenderEventArgs):
    """A request outside of any session, or in one, and the way to answer it. Usable from any thread."""

    __slots__ = (
        "__weakref__",
        "_answered",
        "_endpoint",
        "_lock",
        "_request",
        "_source",
        "_transaction",
        "disable_automatic_response",
    )

    def __init__(
        self, endpoint: RealTimeEndpoint, transaction: ServerTransaction, request: Request, source: MessageSource
    ) -> None:
        self._endpoint = endpoint
        self._source = source
        self._transaction = transaction
        self._request = request
        self._lock = _Lock()  # a signal handler may come back here
        self._answered: str | None = None
        self.disable_automatic_response = False
        """Set it to answer later with :meth:`send_response`, at most ``settings.handler_limit`` (30 s) after delivery."""

    @property
    def request_data(self) -> SipRequestData:
        """The whole request."""
        return SipRequestData(self._request)

    @property
    def message_type(self) -> MessageType | None:
        """None for a method that the application allowed by its name; ``request_data.message_type`` has it."""
        return _TYPES.get(self._request.method)

    @property
    def participant(self) -> Participant:
        """Who sent it, as From says. A Contact that cannot be read is left out."""
        sender = self._request.from_
        contacts: object = None
        try:
            contacts = self._request.contact
        except MessageParsingException:
            pass
        contact = str(contacts[0].uri) if isinstance(contacts, list) and contacts else ""
        return Participant(str(sender.uri), sender.display_name or "", sender.params.get("epid") or "", contact)

    @property
    def content_type(self) -> str | None:
        """Content-Type as it was received, or None."""
        return self._request.headers.get("Content-Type")

    @property
    def body(self) -> bytes:
        """The body's octets."""
        return self._request.body

    @property
    def text_body(self) -> str | None:
        """The body as text; None when it is not text."""
        return decode_body(self.content_type, self._request.body)

    @property
    def has_text_body(self) -> bool:
        """There is a body, and it can be read as text."""
        return bool(self._request.body) and self.text_body is not None

    @property
    def connection(self) -> RealTimeConnection:
        """The connection that it came over."""
        return RealTimeConnection(self._transaction.flow, self._endpoint._stack)

    @property
    def _sender(self) -> Sender:
        return Sender(self._request, self._transaction.flow, self._endpoint._record)

    @property
    def is_answered(self) -> bool:
        """A final response was sent, by the application or in its place."""
        return self._answered is not None

    def send_response(
        self,
        code: int,
        reason: str | None = None,
        content_type: str | None = None,
        body: bytes | str | None = None,
        headers: Headers | None = None,
    ) -> None:
        """Answer the request. Does not block; allowed in handlers and later, from any thread.

        Args:
            code: 200 to 699; the headers that the code asks for (Allow with 405, say) are the caller's.

        Raises:
            RealTimeInvalidOperationException: It is answered already, by the application or because time ran out.
            ValueError, TypeError: An argument; nothing was sent.

        RFC 3261 8.2.6.
        """
        arguments.status_code(code, 200, 699)
        arguments.reason_phrase(reason)
        content_type, encoded = arguments.content(content_type, body)
        response = self._transaction.create_response(
            int(code), reason, headers=arguments.headers(headers), content_type=content_type, body=encoded
        )
        with self._lock:
            if self._answered is not None:
                raise RealTimeInvalidOperationException(
                    f"The {self._request.method} from {shown(self._request.headers.get('From'))} cannot be answered "
                    f"{int(code)}: {self._answered}."
                )
            self._answered = f"it was answered {int(code)} before"
        self._endpoint._stack.respond(self._transaction, response)

    def _answer_by_default(self, code: int, headers: Sequence[tuple[str, str]] = ()) -> None:
        """Answer if nobody has, and if nobody asked to do it later."""
        with self._lock:
            if self._answered is not None or (self.disable_automatic_response and code < 300):
                return
            self._answered = f"it was answered {code} automatically"
        self._endpoint._stack.respond(self._transaction, self._transaction.create_response(code, headers=headers))

    def _expired(self, seconds: float) -> None:
        """Loop thread: the engine answered 500 because nobody did."""
        with self._lock:
            if self._answered is not None:
                return
            self._answered = f"it was answered 500 because nobody had answered it within {seconds:g} s"
        handlers = ", ".join(getattr(h, "__qualname__", repr(h)) for h in self._source.message_received.handlers)
        _log.warning(
            "%s %s from %s was answered 500: the handlers (%s) did not answer within %g s",
            self._endpoint.owner_uri,
            self._request.method,
            shown(self._request.headers.get("From")),
            handlers,
            seconds,
        )


def answer_message(
    endpoint: RealTimeEndpoint, transaction: ServerTransaction, request: Request, source: MessageSource
) -> None:
    """Raise ``message_received`` of the source, an endpoint or a session of it, and answer in its place where nobody
    does. On the source's strand."""
    args = MessageReceivedEventArgs(endpoint, transaction, request, source)
    method, event = request.method, source.message_received
    if not event or (method not in _TYPES and method not in endpoint._record.allowed_methods):
        _answer_unhandled(endpoint, args, method)
        return
    transaction.user = args
    failures: list[BaseException] = []

    def failed(sender: object, error: BaseException, handler: object) -> None:
        failures.append(error)
        endpoint._manager._report_unhandled(sender, error, handler)

    def handlers_done() -> None:
        if failures:
            args._answer_by_default(500)
        else:
            args._answer_by_default(200, _capabilities(endpoint) if method == "OPTIONS" else ())

    event.raise_event(source, args, failed, handlers_done)


def _answer_unhandled(endpoint: RealTimeEndpoint, args: MessageReceivedEventArgs, method: str) -> None:
    if method == "OPTIONS":
        args._answer_by_default(200, _capabilities(endpoint))
    elif method == "INVITE":
        args._answer_by_default(480)
    else:
        allow = ("Allow", ", ".join(endpoint._allowed_methods()))
        args._answer_by_default(405 if method in KNOWN_METHODS else 501, [allow])


def _capabilities(endpoint: RealTimeEndpoint) -> list[tuple[str, str]]:
    """What an OPTIONS is told (RFC 3261 11.2). Bodies are the application's affair, so all of them are acceptable."""
    return [
        ("Allow", ", ".join(endpoint._allowed_methods())),
        ("Accept", "*/*"),
        ("Accept-Encoding", "identity"),
        ("Accept-Language", "*"),
        ("Supported", ", ".join(endpoint.supported_sip_extensions)),
        *allow_events(endpoint._record),
    ]
