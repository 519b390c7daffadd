"""Messages outside of sessions: the ones we sent and wait for, and the ones that came in."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from p2psip import arguments
from p2psip.arguments import Headers
from p2psip.connections import RealTimeConnection
from p2psip.core.engine import KNOWN_METHODS
from p2psip.enums import MessageType
from p2psip.errors import (
    AuthenticationException,
    AuthenticationFailureReason,
    FailureResponseException,
    MessageParsingException,
    RealTimeException,
    RealTimeInvalidOperationException,
    ServerPolicyException,
)
from p2psip.message import Request, Response
from p2psip.net.network import Target
from p2psip.sync import Operation
from p2psip.trace import excerpt
from p2psip.values import Participant, SipRequestData, SipResponseData, decode_body

if TYPE_CHECKING:
    from p2psip.core.directory import EndpointRecord
    from p2psip.core.engine import ClientRequest
    from p2psip.core.transaction import ServerTransaction
    from p2psip.endpoint import RealTimeEndpoint

_log = logging.getLogger(__name__)

MESSAGE_METHODS = tuple(kind.name for kind in MessageType)
_TYPES = {kind.name: kind for kind in MessageType}
_WITHOUT_CONTACT = ("MESSAGE", "INFO")  # RFC 3428 4, RFC 6086 4


class PendingMessage:
    """A request that we sent and whose operation waits. Everything but construction on the loop thread."""

    __slots__ = ("client_request", "endpoint", "operation", "request", "target", "timeout")

    def __init__(
        self,
        endpoint: RealTimeEndpoint,
        request: Request,
        target: Target,
        operation: Operation[SipResponseData],
        timeout: float | None,
    ) -> None:
        self.endpoint = endpoint
        self.request = request
        self.target = target
        self.operation = operation
        self.timeout = timeout
        self.client_request: ClientRequest | None = None
        operation.context = self

    @property
    def pending(self) -> set[PendingMessage]:
        """The requests of the same endpoint that wait."""
        return self.endpoint._pending

    @property
    def contact_of(self) -> EndpointRecord | None:
        """Whose Contact it bears, if any."""
        return None if self.request.method in _WITHOUT_CONTACT else self.endpoint._record

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
                failure: Exception = _failure(self, response)
            except Exception as unexpected:  # whatever a peer wrote, somebody waits for this operation
                failure = unexpected
            self.operation.fail(failure)


def _failure(message: PendingMessage, response: Response) -> FailureResponseException:
    code, target = response.status_code, message.target
    sentence = (
        f"{message.request.method} to {message.request.uri} was answered {code} {_shown(response.reason)} "
        f"by {target.host}:{target.port} over {target.transport}"
    )
    hint = _HINTS.get(code)
    warnings = _values(response, "Warning")
    kind: type[FailureResponseException] = FailureResponseException
    if code in (401, 407):
        kind = AuthenticationException
    elif code == 403 and warnings:
        kind = ServerPolicyException
    sentence += f": {hint}." if hint else "."
    error = kind(
        sentence,
        SipResponseData(response),
        warnings=warnings,
        diagnostics=[*_values(response, "Reason"), *_values(response, "Error-Info")],
    )
    if isinstance(error, AuthenticationException):
        _read_challenges(error, response)
    return error


_REALM = re.compile(r'\brealm\s*=\s*"((?:[^"\\]|\\.)*)"', re.IGNORECASE)
_ALGORITHM = re.compile(r'\balgorithm\s*=\s*"?([A-Za-z0-9-]+)', re.IGNORECASE)


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


def _values(response: Response, name: str) -> list[str]:
    """All values of a header; where the list cannot be read, its first line as it is."""
    try:
        return response.headers.get_all(name)
    except MessageParsingException:
        value = response.headers.get(name)
        return [value] if value else []


def _shown(text: str | None) -> str:
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
    485: "several endpoints bear this address; give the endpoint id",
    500: "something went wrong there; its log says what",
    501: "it does not know this method",
    503: "it is overloaded; try again later",
}


class MessageReceivedEventArgs:
    """A request outside of any session, and the way to answer it. Usable from any thread."""

    __slots__ = (
        "__weakref__",
        "_answered",
        "_endpoint",
        "_lock",
        "_request",
        "_transaction",
        "disable_automatic_response",
    )

    def __init__(self, endpoint: RealTimeEndpoint, transaction: ServerTransaction, request: Request) -> None:
        self._endpoint = endpoint
        self._transaction = transaction
        self._request = request
        self._lock = threading.RLock()  # a signal handler may come back here
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
    def is_sender_authenticated(self) -> bool:
        """The domain in From is one that the peer's verified certificate carries."""
        tls = self._transaction.flow.tls
        uri = self._request.from_.uri
        return bool(
            tls is not None
            and tls.identities is not None
            and not isinstance(uri, str)
            and tls.identities.covers(uri.host)
        )

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
                    f"The {self._request.method} from {_shown(self._request.headers.get('From'))} cannot be answered "
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
        handlers = ", ".join(getattr(h, "__qualname__", repr(h)) for h in self._endpoint.message_received.handlers)
        _log.warning(
            "%s %s from %s was answered 500: the handlers (%s) did not answer within %g s",
            self._endpoint.owner_uri,
            self._request.method,
            _shown(self._request.headers.get("From")),
            handlers,
            seconds,
        )


def answer_message(endpoint: RealTimeEndpoint, transaction: ServerTransaction, request: Request) -> None:
    """Raise ``message_received`` and answer in its place where nobody does. On the endpoint's strand."""
    args = MessageReceivedEventArgs(endpoint, transaction, request)
    method, event = request.method, endpoint.message_received
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

    event.raise_event(endpoint, args, failed, handlers_done)


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
    ]
