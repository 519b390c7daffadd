"""Endpoints: who sends and receives."""

from __future__ import annotations

import abc
import concurrent.futures
import dataclasses
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from p2psip import arguments
from p2psip._version import __version__
from p2psip.admission import Admission
from p2psip.arguments import Headers
from p2psip.capabilities import Capabilities
from p2psip.core.directory import EndpointRecord
from p2psip.enums import EndpointState, EndpointTransitionReason, MessageType
from p2psip.errors import (
    ConnectionFailureException,
    OperationFailureException,
    OperationFailureReason,
)
from p2psip.hosting import Hosting
from p2psip.managers import RealTimeServerConnectionManager, default_manager
from p2psip.message import Request, SipUri, quote_display_name
from p2psip.message.headers import checked_lines
from p2psip.messaging import MessageReceivedEventArgs, PendingMessage, answer_message
from p2psip.net.loop import LoopEnded
from p2psip.net.network import Target
from p2psip.referral import ReferDetails, ReferStatus, begin_refer_outside
from p2psip.stack import Stack
from p2psip.sync import Event, Operation, fork_safe_lock
from p2psip.values import RealTimeAddress, SendMessageOptions, SipResponseData

if TYPE_CHECKING:
    from p2psip.core.transaction import ServerTransaction
    from p2psip.session import SignalingSession

_Self = TypeVar("_Self", bound="RealTimeEndpoint")

USER_AGENT = f"p2psip/{__version__}"


@dataclasses.dataclass(frozen=True)
class EndpointStateChangedEventArgs:
    """From which state to which, and why."""

    previous_state: EndpointState
    state: EndpointState
    reason: EndpointTransitionReason


@dataclasses.dataclass(frozen=True)
class SipPeerToPeerEndpointSettings:
    """What an endpoint may be told at construction besides its addresses.

    Attributes:
        endpoint_id: The epid; None generates one. At most 32 letters, digits, ``-`` or ``_``; one endpoint of an
            owner has it on one manager.
        gruu: A globally routable URI of this endpoint.
        headers: Headers that every message of this endpoint bears.
        display_name: The name in From.
    """

    endpoint_id: str | None = None
    gruu: str | None = None
    headers: Sequence[Any] = ()
    display_name: str = ""


class RealTimeEndpoint(Capabilities, Admission, Hosting, abc.ABC):
    """What all endpoints have in common. Usable from any thread; use :class:`SipPeerToPeerEndpoint`."""

    state_changed: Event[RealTimeEndpoint, EndpointStateChangedEventArgs] = Event()
    """The endpoint became able or unable to receive, or has ended."""

    message_received: Event[RealTimeEndpoint, MessageReceivedEventArgs] = Event()
    """A request outside of any session: MESSAGE, INFO, OPTIONS, BENOTIFY, SERVICE, NOTIFY, or a method that
    :meth:`allow_method` added. Unless a handler answers or disables it, 200 is sent when the handlers are done."""

    default_peer_to_peer_endpoint_connection_manager = default_manager
    """The shared TCP manager of endpoints that were given none; None until first needed. Dispose it at the end."""

    def __init__(
        self,
        owner_uri: str,
        connection_manager: RealTimeServerConnectionManager,
        settings: SipPeerToPeerEndpointSettings,
    ) -> None:
        self._owner = arguments.owner_uri(owner_uri)
        self._owner_text = str(self._owner)
        self._manager = connection_manager
        self._stack: Stack = connection_manager._stack
        self._id = secrets.token_hex(5) if settings.endpoint_id is None else arguments.endpoint_id(settings.endpoint_id)
        self._gruu = None if settings.gruu is None else arguments.gruu(settings.gruu)
        self._headers = arguments.headers(settings.headers)
        self._opaque = secrets.token_hex(8)
        self._lock = fork_safe_lock()
        self._state = EndpointState.DISCONNECTED
        self._termination: Operation[None] | None = None
        self._draining = False
        self._pending: set[PendingMessage] = set()  # loop thread only
        self._application_user_agent = ""
        self.application_context: Any = None
        self._strand = self._stack.dispatcher.strand(f"endpoint {self._owner_text}", owner=self)
        self._record = EndpointRecord(
            endpoint=self, owner=self._owner, opaque=self._opaque, gruu=self._gruu, epid=self._id
        )
        self._record.accepting = False  # until the manager listens
        Capabilities.__init__(self)
        Admission.__init__(self)
        Hosting.__init__(self)
        self.display_name = settings.display_name

    # ------------------------------------------------------------------ who it is

    @property
    def owner_uri(self) -> str:
        """The identity of the owner: From of what is sent."""
        return self._owner_text

    @property
    def endpoint_uri(self) -> str:
        """Addresses this endpoint and not another one of the same owner."""
        return str(self._gruu) if self._gruu is not None else f"{self._owner_text};opaque={self._opaque}"

    @property
    def uri(self) -> str:
        """An address by which a peer reaches this very endpoint: host and port while the manager listens."""
        listening = self._manager.listening_port
        if not listening:
            return self.endpoint_uri
        host = self._manager.local_host
        where = f"[{host}]" if ":" in host else host
        user = f"{self._owner.user}@" if self._owner.user else ""
        scheme = self._owner.scheme
        transport = "" if scheme == "sips" else f";transport={self._manager.transport.name.lower()}"
        return f"{scheme}:{user}{where}:{listening}{transport};opaque={self._opaque}"

    @property
    def id(self) -> str:
        """The epid, which tells the endpoints of one owner apart."""
        return self._id

    @property
    def gruu(self) -> str | None:
        """The globally routable URI given at construction, or None."""
        return None if self._gruu is None else str(self._gruu)

    @property
    def default_domain(self) -> str:
        """The host of the owner's URI."""
        return self._owner.host

    @property
    def display_name(self) -> str:
        """The name in From of what is sent; ``""`` for none."""
        return self._display_name

    @display_name.setter
    def display_name(self, value: str) -> None:
        self._display_name = arguments.text(value, "A display name")
        name = f"{quote_display_name(value)} " if value else ""
        self._from = f"{name}<{self._owner_text}>;epid={self._id};tag="

    @property
    def application_user_agent(self) -> str:
        """What the application adds to User-Agent."""
        return self._application_user_agent

    @application_user_agent.setter
    def application_user_agent(self, value: str) -> None:
        self._application_user_agent = arguments.text(value, "A User-Agent").strip()

    @property
    def user_agent(self) -> str:
        """The User-Agent of what is sent: the library's, then the application's."""
        return f"{USER_AGENT} {self._application_user_agent}".rstrip()

    @property
    def connection_manager(self) -> RealTimeServerConnectionManager:
        """The manager whose connections it uses."""
        return self._manager

    @property
    def state(self) -> EndpointState:
        """Whether it takes requests in; it can send in each state until it is terminated."""
        return self._state

    @property
    def is_terminated(self) -> bool:
        """``terminate()`` was called, here or by the end of its manager; nothing can be begun any more."""
        return self._termination is not None

    # ------------------------------------------------------------------ sending

    @abc.abstractmethod
    def _target(self, address: RealTimeAddress, options: SendMessageOptions | None) -> Target:
        """Where a request to that address goes first."""

    def send_message(
        self,
        message_type: MessageType | str,
        address: RealTimeAddress | str,
        content_type: str | None = None,
        body: bytes | str | None = None,
        headers: Headers | None = None,
        *,
        options: SendMessageOptions | None = None,
        timeout: float | None = None,
    ) -> SipResponseData:
        """Send one request outside of any session and wait for its final answer.

        Blocks the calling thread; allowed in event handlers.

        Args:
            message_type: A MessageType, or the name of any method that belongs to no dialog.
            address: Where to: the request URI.
            content_type: What the body is; ``text/plain;charset=utf-8`` when it is not said.
            body: Bytes, or text that is encoded by the content type's charset.
            headers: Further headers; the ones that the library writes are refused.
            options: What else is special about this message.
            timeout: Seconds for everything; None means the protocol's own time: 64*T1 (32 s) from the first byte
                written, and ``settings.request_ceiling`` (60 s) in all.

        Returns:
            The 2xx answer.

        Raises:
            FailureResponseException: The peer answered 300 or above.
            OperationTimeoutException: No final answer in time.
            ConnectionFailureException, TlsFailureException: No way to the peer; the sentence says where and why.
            OperationFailureException: The endpoint is terminated, or a limit is reached.
            ValueError, TypeError: An argument; nothing was sent.

        RFC 3261 8.1, RFC 3428.
        """
        return self.begin_send_message(
            message_type, address, content_type, body, headers, options=options, timeout=timeout
        ).result()

    def begin_send_message(
        self,
        message_type: MessageType | str,
        address: RealTimeAddress | str,
        content_type: str | None = None,
        body: bytes | str | None = None,
        headers: Headers | None = None,
        *,
        options: SendMessageOptions | None = None,
        timeout: float | None = None,
    ) -> Operation[SipResponseData]:
        """The same without blocking: returns at once an operation that ends as :meth:`send_message` does.

        Raises:
            ValueError, TypeError: An argument.
            OperationFailureException: The endpoint is terminated.
        """
        if self._termination is not None:
            self._check_alive(f"send {message_type!s}")
        if options is not None:
            arguments.instance(options, SendMessageOptions, "options")
        method = arguments.method(message_type)
        address = arguments.address(address)
        content_type, encoded = arguments.content(content_type, body)
        timeout = arguments.timeout(timeout)
        uri = arguments.request_uri(address.uri)
        lines = self._request_lines(method, address, options)
        if headers or self._headers or (options is not None and options.headers):
            more = () if options is None else options.headers
            lines += checked_lines([*self._headers, *arguments.headers(headers), *arguments.headers(more)])
        if content_type is not None:
            lines.append(f"Content-Type: {content_type}")
        request = Request.of_lines(method, uri, lines, encoded)
        operation: Operation[SipResponseData] = Operation(
            f"{method} to {address}", callbacks=self._stack.dispatcher.submit, cancel=self._stack.cancel
        )
        try:
            target = self._target(address, options)
        except ConnectionFailureException as error:
            operation.fail(error)
            return operation
        credentials = None if options is None else options.credentials
        self._stack.send(PendingMessage(self, request, target, operation, timeout, credentials))
        return operation

    def refer(
        self,
        address: RealTimeAddress | str,
        target: RealTimeAddress | str,
        headers: Headers | None = None,
        *,
        content_type: str | None = None,
        body: bytes | str | None = None,
        replaces: SignalingSession | None = None,
        subscribe: bool = True,
        timeout: float | None = None,
    ) -> ReferStatus:
        """Ask whoever is at the address to call the target, and wait until that is accepted; within a session use
        :meth:`SignalingSession.refer`. Blocks; allowed in event handlers.

        Args:
            address: Who is asked.
            target: Who is to be called.
            headers: For the REFER.
            replaces: The session of ours with the target whose place the call is to take (RFC 3891).
            subscribe: Hear how the call goes; without it the peer is asked to tell nothing (RFC 4488).
            timeout: Seconds for the answer to the REFER, not for the call; None means the protocol's own time.

        Returns:
            What the peer tells from now on.

        Raises:
            FailureResponseException, OperationTimeoutException, ConnectionFailureException, TlsFailureException,
            OperationFailureException, ValueError, TypeError: As :meth:`send_message`.

        RFC 3515.
        """
        return self.begin_refer(
            address,
            target,
            headers,
            content_type=content_type,
            body=body,
            replaces=replaces,
            subscribe=subscribe,
            timeout=timeout,
        ).result()

    def begin_refer(
        self,
        address: RealTimeAddress | str,
        target: RealTimeAddress | str,
        headers: Headers | None = None,
        *,
        content_type: str | None = None,
        body: bytes | str | None = None,
        replaces: SignalingSession | None = None,
        subscribe: bool = True,
        timeout: float | None = None,
    ) -> Operation[ReferStatus]:
        """The same without blocking."""
        self._check_alive("send REFER")
        details = ReferDetails(headers, content_type, body, subscribe, timeout)
        return begin_refer_outside(self, address, target, details, replaces)

    def _request_lines(self, method: str, address: RealTimeAddress, options: SendMessageOptions | None) -> list[str]:
        """The header lines that each request has. What they are made of was checked when it was given."""
        sender = self._from
        if options is not None and options.local_identity is not None:
            sender = arguments.sender(options.local_identity)
        tokens = self._stack.tokens
        receiver = f"<{address.uri}>;epid={address.endpoint_id}" if address.endpoint_id else f"<{address.uri}>"
        return [
            "Max-Forwards: 70",
            f"From: {sender}{tokens.tag()}",
            f"To: {receiver}",
            f"Call-ID: {tokens.call_id()}",
            f"CSeq: 1 {method}",
            f"User-Agent: {self.user_agent}",
        ]

    @abc.abstractmethod
    def _next_hop(self, uri: SipUri | str, secure: bool, learned: bool) -> Target:
        """Where a request goes whose first hop that URI names; ``learned``: a peer has named it."""

    # ------------------------------------------------------------------ receiving (called on the loop thread)

    def _deliver(self, transaction: ServerTransaction, request: Request) -> None:
        answer_message(self, transaction, request, self)

    # ------------------------------------------------------------------ states and the end

    def _check_alive(self, what: str) -> None:
        if self._termination is not None:
            raise OperationFailureException(
                f"The endpoint {self._owner_text} is terminated and cannot {what}; make a new one.",
                OperationFailureReason.ENDPOINT_TERMINATED,
            )

    def _set_state(self, state: EndpointState, reason: EndpointTransitionReason) -> None:
        """Change the state and queue the event."""
        with self._lock:
            self._change_state(state, reason)

    def _change_state(self, state: EndpointState, reason: EndpointTransitionReason) -> None:
        """The same under the lock."""
        previous, self._state = self._state, state
        if previous is not state:
            args = EndpointStateChangedEventArgs(previous, state, reason)
            self._strand.post(self.state_changed.raise_event, self, args, self._manager._report_unhandled)

    def _listening_changed(self, state: EndpointState, reason: EndpointTransitionReason) -> None:
        """The manager began to listen, or no longer does."""
        with self._lock:
            if self._termination is None:
                self._record.accepting = state is EndpointState.CONNECTED and not self._draining
                self._change_state(state, reason)

    def _begin(self) -> None:
        """The manager has taken it in: one that listens makes it able to receive from the start."""
        with self._lock:
            if self._manager.is_listening and self._termination is None:
                self._state = EndpointState.CONNECTED
                self._record.accepting = True

    def drain(self, timeout: float | None = None) -> bool:
        """Take in no more requests (they are answered 480) and wait until those under way are answered, both ways.

        Blocks the calling thread. The endpoint can still send; :meth:`terminate` ends it.

        Args:
            timeout: Seconds; None means ``settings.request_ceiling``.

        Returns:
            True when nothing is left, False when time ran out.
        """
        self._check_alive("drain")
        timeout = arguments.timeout(timeout)
        with self._lock:
            self._draining = True
            self._record.accepting = False
        operation: Operation[None] = Operation(f"drain of {self._owner_text}", callbacks=self._stack.dispatcher.submit)
        self._stack.post_operation(operation, lambda: self._stack.drain(self, operation))
        try:
            operation.result(self._manager.settings.request_ceiling if timeout is None else timeout)
        except concurrent.futures.TimeoutError:
            return False
        finally:
            operation.end_cancelled()  # nobody waits for it any more
        return True

    def terminate(self) -> None:
        """End the endpoint: what is under way fails with OperationFailureException (ENDPOINT_TERMINATED).

        Blocks until the endpoint is gone; allowed in event handlers and as often as you like. Never raises for
        reasons of the network. The connection manager lives on.
        """
        self.begin_terminate().result()

    def begin_terminate(self) -> Operation[None]:
        """The same without blocking."""
        operation: Operation[None] = Operation(f"terminate {self._owner_text}", callbacks=self._stack.dispatcher.submit)
        with self._lock:
            if self._termination is not None:
                return self._termination
            self._termination = operation
            self._record.accepting = False
        self._set_state(EndpointState.DISCONNECTING, EndpointTransitionReason.TERMINATED_LOCALLY)
        self._manager._endpoint_removed(self)
        try:
            self._stack.post(self._end, operation)
        except LoopEnded:  # and with it everything of this endpoint
            self._ended(operation)
        return operation

    def _end(self, operation: Operation[None]) -> None:
        def ended() -> None:
            try:
                self._stack.remove_endpoint(self._record, self._pending)
            finally:
                self._ended(operation)

        self._end_sessions(ended)

    def _ended(self, operation: Operation[None]) -> None:
        self._set_state(EndpointState.DISCONNECTED, EndpointTransitionReason.TERMINATED_LOCALLY)
        operation.complete(None)

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.terminate()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._owner_text} {self._state.name}>"
