"""Signaling sessions: calls, placed and taken."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

from p2psip import arguments, referral, referral_incoming
from p2psip.arguments import Headers
from p2psip.core.dialog import Content
from p2psip.core.refer_outside import IncomingOutsideRefer
from p2psip.core.session import Session, SessionOptions
from p2psip.enums import MessageType, SignalingState
from p2psip.errors import ConnectionFailureException, MessageParsingException, RealTimeInvalidOperationException
from p2psip.hosting import ARRIVALS
from p2psip.offers import Answerer, no_description
from p2psip.pending import PendingCommand
from p2psip.referral import ReferDetails, ReferStatus, replaces_value
from p2psip.session_base import SessionBase
from p2psip.session_events import SessionReceivedEventArgs
from p2psip.session_incoming import IncomingSession
from p2psip.sync import Operation
from p2psip.values import (
    ConnectionContext,
    ContentDescription,
    RealTimeAddress,
    SendMessageOptions,
    SipRequestData,
    SipResponseData,
)

if TYPE_CHECKING:
    from p2psip.endpoint import RealTimeEndpoint

_LIVE = (SignalingState.CONNECTING, SignalingState.ALERTED, SignalingState.CONNECTED)


@dataclasses.dataclass(frozen=True)
class SignalingSessionSettings:
    """What a session may be told at construction besides its target.

    Attributes:
        local_identity: Who calls: a URI, or a URI and a display name; None means the endpoint's owner.
        maximum_redirects: How many targets of redirections are tried, all together.
        ring_limit: Seconds that the peer may ring; None means ``settings.ring_limit`` of the manager.
        tls_target_name: The name that the peer's certificate must bear; None means the one that is dialled.
    """

    local_identity: str | tuple[str, str] | None = None
    maximum_redirects: int = 5
    ring_limit: float | None = None
    tls_target_name: str | None = None


class SignalingSession(IncomingSession):
    """A call. One to be placed is made with its target, then established; one that came in is brought by
    ``endpoint.session_received``. A context manager: leaving it terminates it.

    Args:
        endpoint: Whose call it is.
        address: Who is to be called.
        call_id: A Call-ID of one's own; None makes one.
        settings: What else is special.

    Raises:
        OperationFailureException: The endpoint is terminated.
        ValueError, TypeError: An argument.
    """

    _headers: list[tuple[str, str]] | None = None
    _tls_target_name: str | None = None

    def __init__(
        self,
        endpoint: RealTimeEndpoint,
        address: RealTimeAddress | str,
        *,
        call_id: str | None = None,
        settings: SignalingSessionSettings | None = None,
    ) -> None:
        endpoint._check_alive("begin a session")
        target = arguments.address(address)
        settings = arguments.instance(settings or SignalingSessionSettings(), SignalingSessionSettings, "settings")
        if call_id is not None and (not arguments.text(call_id, "A Call-ID") or set(call_id) & set(' \t;,"<>')):
            raise ValueError(f"{call_id!r} cannot be a Call-ID (RFC 3261 25.1).")
        sender = endpoint._from if settings.local_identity is None else arguments.sender(settings.local_identity)
        options = SessionOptions(local_from=sender)
        options.maximum_redirects = settings.maximum_redirects
        options.ring_limit = arguments.timeout(settings.ring_limit)
        core = Session(endpoint._stack.engine, endpoint._record, None, options, call_id=call_id)
        self._tls_target_name = settings.tls_target_name
        super().__init__(endpoint, target, core, f"the call to {target}")
        core.user = self

    @classmethod
    def _incoming(cls, endpoint: RealTimeEndpoint, core: Session) -> SignalingSession:
        """Loop thread: a call that came in."""
        session = cls.__new__(cls)
        target, name = None, "somebody"
        try:
            assert core.request is not None
            name = str(core.request.from_.uri)
            target = RealTimeAddress(name)
        except (MessageParsingException, ValueError):
            pass
        SessionBase.__init__(session, endpoint, target, core, f"the call from {name}")
        core.user = session
        return session

    # ------------------------------------------------------------------ placing a call

    def establish(
        self,
        offer: ContentDescription | None = None,
        headers: Headers | None = None,
        *,
        answer: ContentDescription | Answerer | None = None,
        connection_context: ConnectionContext | tuple[str, int] | None = None,
        replaces: SignalingSession | str | None = None,
        timeout: float | None = None,
    ) -> SipResponseData:
        """Send the INVITE and wait for its final answer.

        Blocks the calling thread; allowed in event handlers.

        Args:
            offer: What we offer. None: ``offer_answer_negotiation`` is asked, and without one the INVITE has no offer.
            headers: Further headers.
            answer: What answers an offer of the peer's, in its 2xx or later: a function of the offer (called with
                None where the peer asks for ours), or a description for an offer in the 2xx.
            connection_context: The first hop, before proxy and address.
            replaces: A session that the peer has with us, or the value of Replaces (RFC 3891): the call takes its
                place there.
            timeout: Seconds; None waits as long as the ring limit of the settings. When it is over the call is
                cancelled (CANCEL, or ACK and BYE if a 2xx wins the race).

        Returns:
            The 2xx.

        Raises:
            FailureResponseException: The peer answered 300 or above.
            OperationTimeoutException: No final answer in time.
            ConnectionFailureException, TlsFailureException: No way to the peer.
            OperationFailureException: The session or the endpoint was terminated meanwhile.
            RealTimeInvalidOperationException: The session is not idle.
            ValueError, TypeError: An argument.

        RFC 3261 13.2.
        """
        return self.begin_establish(
            offer, headers, answer=answer, connection_context=connection_context, replaces=replaces, timeout=timeout
        ).result()

    def begin_establish(
        self,
        offer: ContentDescription | None = None,
        headers: Headers | None = None,
        *,
        answer: ContentDescription | Answerer | None = None,
        connection_context: ConnectionContext | tuple[str, int] | None = None,
        replaces: SignalingSession | str | None = None,
        timeout: float | None = None,
    ) -> Operation[SipResponseData]:
        """:meth:`establish` without blocking. To cancel the operation is to cancel the call."""
        endpoint, address = self._endpoint, self._target
        if self.is_incoming or address is None or self._state is not SignalingState.IDLE:
            raise RealTimeInvalidOperationException(f"{self._name} cannot be established: it is {self._state.name}.")
        endpoint._check_alive("establish a session")
        timeout = arguments.timeout(timeout)
        pairs = [*endpoint._headers, *arguments.headers(headers)]
        if replaces is not None:
            pairs += replaces_headers(replaces)
        what = f"INVITE to {address}"
        operation: Operation[SipResponseData] = Operation(
            what, callbacks=self._stack.dispatcher.submit, cancel=self._take_back
        )
        try:
            hop = SendMessageOptions(connection_context=connection_context, tls_target_name=self._tls_target_name)
            target: Any = endpoint._target(address, hop)
        except ConnectionFailureException as error:
            target = error
        content = self._negotiation.first_offer(offer)
        self._negotiation.set_answerer(answer)
        # setdefault is atomic: of two threads that come here together one goes on.
        if self.__dict__.setdefault("_headers", pairs) is not pairs:
            raise RealTimeInvalidOperationException(f"{self._name} is being established already.")
        to = f"<{address.uri}>;epid={address.endpoint_id}" if address.endpoint_id else f"<{address.uri}>"
        pending = PendingCommand(operation, what)

        def begin(now: float) -> None:
            endpoint._adopt(self)
            self._core.establish(now, address.uri, to, target, content, pairs, pending, timeout)

        self._stack.command(operation, begin)
        return operation

    def _take_back(self, operation: Operation[Any]) -> None:
        """Somebody cancels the operation of establish()."""

        def take_back(now: float) -> None:
            if operation.end_cancelled():
                self._core.terminate(now, (), None)

        self._engine_call(take_back)

    def _invite_headers(self) -> Any:
        return self._headers or ()

    # ------------------------------------------------------------------ while it is up

    def send_message(
        self,
        message_type: MessageType | str,
        content_type: str | None = None,
        body: bytes | str | None = None,
        headers: Headers | None = None,
        *,
        timeout: float | None = None,
    ) -> SipResponseData:
        """Send MESSAGE, INFO or the like within the session and wait for the answer.

        Blocks the calling thread; allowed in event handlers.

        Raises:
            FailureResponseException: The peer answered 300 or above; 481 and 408 end the session.
            OperationTimeoutException: No final answer in time.
            OperationFailureException: The session ended meanwhile.
            RealTimeInvalidOperationException: The session is not up.
            ValueError, TypeError: An argument.
        """
        return self.begin_send_message(message_type, content_type, body, headers, timeout=timeout).result()

    def begin_send_message(
        self,
        message_type: MessageType | str,
        content_type: str | None = None,
        body: bytes | str | None = None,
        headers: Headers | None = None,
        *,
        timeout: float | None = None,
    ) -> Operation[SipResponseData]:
        """:meth:`send_message` without blocking."""
        method = arguments.method(message_type)
        kind, encoded = arguments.content(content_type, body)
        timeout = arguments.timeout(timeout)
        pairs = [*self._endpoint._headers, *arguments.headers(headers)]
        self._check_live(f"used for {method}")
        content = Content(kind, encoded) if kind is not None and encoded else None
        what = f"{method} in {self._name}"
        operation: Operation[SipResponseData] = Operation(
            what, callbacks=self._stack.dispatcher.submit, cancel=lambda operation: operation.end_cancelled()
        )
        pending = PendingCommand(operation, what)
        self._stack.command(operation, self._core.send_request, method, pairs, content, pending, timeout)
        return operation

    def renegotiate(self, offer: ContentDescription | None = None, headers: Headers | None = None) -> SipResponseData:
        """Offer another description (re-INVITE; UPDATE before the call is answered) and wait for the answer, which is
        ``remote_description`` then. Where both sides do so at once it is done again by itself.

        Blocks the calling thread; allowed in event handlers.

        Args:
            offer: None: ``offer_answer_negotiation`` is asked.

        Raises:
            FailureResponseException: The peer refused; the session is as it was.
            OperationTimeoutException, OperationFailureException: As :meth:`send_message`.
            RealTimeInvalidOperationException: The session is not up.
        """
        return self.begin_renegotiate(offer, headers).result()

    def begin_renegotiate(
        self, offer: ContentDescription | None = None, headers: Headers | None = None
    ) -> Operation[SipResponseData]:
        """:meth:`renegotiate` without blocking."""
        pairs = [*self._endpoint._headers, *arguments.headers(headers)]
        self._check_live("renegotiated")
        content = self._negotiation.first_offer(offer)
        if content is None:
            raise no_description()
        what = f"another offer in {self._name}"
        return self._begin(what, self._core.renegotiate, content, pairs, convert=self._renegotiated)

    def _renegotiated(self, response: Any) -> SipResponseData:
        self._negotiation.answered(Content.of(response))
        return SipResponseData(response)

    # ------------------------------------------------------------------ transfers

    def refer(
        self,
        address: RealTimeAddress | str,
        headers: Headers | None = None,
        *,
        content_type: str | None = None,
        body: bytes | str | None = None,
        replaces: SignalingSession | None = None,
        subscribe: bool = True,
        timeout: float | None = None,
    ) -> ReferStatus:
        """Ask the peer to call that address, and wait until it accepts. Blocks; allowed in event handlers.

        Args:
            address: As the peer is to call it: with ``;transport=tcp`` or ``;transport=tls`` where its own choice could
                be another one.
            replaces: The session at that address whose place the peer's call is to take (RFC 3891).
            subscribe: Hear how the call goes; without it the peer is asked to tell nothing (RFC 4488).
            timeout: Seconds for the answer to the REFER, not for the peer's call; None means the protocol's own time.

        Returns:
            What the peer tells from now on.

        Raises:
            FailureResponseException: The peer refuses.
            OperationFailureException: The session is not up.
            OperationTimeoutException, ConnectionFailureException, TlsFailureException: No answer.
        """
        return self.begin_refer(
            address,
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
        headers: Headers | None = None,
        *,
        content_type: str | None = None,
        body: bytes | str | None = None,
        replaces: SignalingSession | None = None,
        subscribe: bool = True,
        timeout: float | None = None,
    ) -> Operation[ReferStatus]:
        """The same without blocking."""
        self._check_live("transferred")
        value = None if replaces is None else replaces_value(replaces)
        details = ReferDetails(headers, content_type, body, subscribe, timeout)
        return referral.begin_refer(self, address, details, value)[1]

    def transfer(self, target: RealTimeAddress | str | SignalingSession, *, timeout: float | None = None) -> None:
        """Send the peer to an address (blind), or to the peer of another session (attended). Blocks until its call is
        up; then what we have is ended.

        Args:
            timeout: Seconds for all of it; None means as long as the peer tells how its call goes.

        Raises:
            OperationFailureException: The call of the peer has failed; both sessions are still up.
            FailureResponseException: The peer refuses to be transferred.
            OperationTimeoutException: It was not over in time; what we have is still up.
        """
        self.begin_transfer(target, timeout=timeout).result()

    def begin_transfer(
        self, target: RealTimeAddress | str | SignalingSession, *, timeout: float | None = None
    ) -> Operation[None]:
        """The same without blocking."""
        self._check_live("transferred")
        return referral.begin_transfer(self, target, timeout)

    def try_cancel_renegotiation(self, headers: Headers | None = None) -> bool:
        """Take back a :meth:`renegotiate` that is under way, if it is not too late. Blocks for a moment only.

        Returns:
            False: There is none that could be taken back.
        """
        pairs = arguments.headers(headers)

        def cancel() -> bool:
            cancelled = self._core.cancel_renegotiation(self._stack.loop.now, pairs)
            self._stack._run()
            return cancelled

        return bool(self._stack.call("cancelling", cancel).result())

    def _check_live(self, what: str) -> None:
        if self._state not in _LIVE:
            raise RealTimeInvalidOperationException(
                f"{self._name[:1].upper()}{self._name[1:]} cannot be {what}: it is {self._state.name} "
                f"({self._reason.name})."
            )

    # ------------------------------------------------------------------ the end

    def terminate(self, headers: Headers | None = None) -> None:
        """End the session in whatever state it is: BYE; CANCEL, and BYE should the peer answer at the same moment; 603
        to a call that came in and is undecided.

        Blocks until the peer has been told, or cannot be; allowed in event handlers and as often as you like. Never
        raises for reasons of the network. ``begin_terminate`` does not block.
        """
        self.begin_terminate(headers).result()

    def __enter__(self) -> SignalingSession:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.terminate()

    def __repr__(self) -> str:
        return f"<SignalingSession {self._name}, {self._state.name}>"


def replaces_headers(replaces: SignalingSession | str) -> list[tuple[str, str]]:
    """Replaces (RFC 3891 6.1), as the peer of that session knows it, and that it must be understood."""
    value = replaces_value(replaces) if isinstance(replaces, SignalingSession) else arguments.text(replaces, "Replaces")
    return [("Require", "replaces"), ("Replaces", value)]


def _arrived(endpoint: RealTimeEndpoint, core: Session) -> None:
    """Loop thread: a call came in."""
    session = SignalingSession._incoming(endpoint, core)
    now = endpoint._stack.loop.now
    assert core.request is not None
    if not endpoint.session_received:
        core.reject(now, 480, None, ())
        return
    try:
        endpoint._adopt(session)
    except Exception:
        core.reject(now, 480, None, ())
        return
    args = SessionReceivedEventArgs(session, SipRequestData(core.request))
    failures: list[BaseException] = []

    def failed(sender: object, error: BaseException, handler: object) -> None:
        failures.append(error)
        session._report(sender, error, handler)

    def handlers_done() -> None:
        if failures and session.state is SignalingState.INCOMING:
            session.terminate_with_rejection(500)

    session._strand.post(endpoint.session_received.raise_event, endpoint, args, failed, handlers_done)


ARRIVALS[Session] = _arrived
ARRIVALS[IncomingOutsideRefer] = functools.partial(referral_incoming.arrived_outside, SignalingSession)
