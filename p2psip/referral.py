"""Transfers: asking a peer to call somebody, in a session or outside, and being asked (RFC 3515, 3891, 3892)."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from p2psip import arguments
from p2psip.arguments import Headers
from p2psip.core import events
from p2psip.core.refer import IncomingRefer, OutgoingRefer
from p2psip.core.refer_outside import IncomingOutsideRefer, OutsideRefer
from p2psip.enums import ReferState, SignalingState
from p2psip.errors import (
    ConnectionFailureException,
    FailureResponseException,
    OperationFailureException,
    OperationFailureReason,
    RealTimeException,
    RealTimeInvalidOperationException,
)
from p2psip.hosting import ARRIVALS
from p2psip.pending import Leave, PendingCommand
from p2psip.session_base import SessionBase
from p2psip.subscription import Hosted
from p2psip.sync import Event, Operation, Strand
from p2psip.values import ContentDescription, RealTimeAddress, SipRequestData

if TYPE_CHECKING:
    from p2psip.endpoint import RealTimeEndpoint
    from p2psip.session import SignalingSession


@dataclasses.dataclass(frozen=True)
class ReferStateChangedEventArgs:
    """How a transfer goes.

    Attributes:
        previous_state, state: From where to where.
        notify_status_code: What the peer has told of its call; 0 when it told nothing.
        notify_status_text: The phrase with it, or None.
        notify_sip_fragment: The fragment of a message that told it.
    """

    previous_state: ReferState
    state: ReferState
    notify_status_code: int
    notify_status_text: str | None
    notify_sip_fragment: bytes


class Outside(Hosted):
    """Stands where the session would, for a REFER outside of any. One that came in lives in its endpoint until nothing
    more is told of it."""

    def _engine_call(self, function: Callable[..., object], *args: Any) -> None:
        self._tell(function, *args)

    def _happened(self, event: Any) -> None:
        assert isinstance(event, events.ReferEnded)
        self._endpoint._release(self)

    def _end_with_endpoint(self, now: float, done: Callable[[], object]) -> None:
        self._core.terminate(now, Leave(done))

    def _abandon(self, now: float, error: RealTimeException) -> None:
        self._core.abandon(now, error)


class ReferStatus:
    """A transfer that we asked for, as the peer tells of it. Usable from any thread."""

    state_changed: Event[ReferStatus, ReferStateChangedEventArgs] = Event()
    """The peer has told something, or the last thing."""

    def __init__(self, host: SignalingSession | Outside, core: Callable[[ReferStatus], OutgoingRefer]) -> None:
        """Made by :meth:`SignalingSession.refer` and :meth:`RealTimeEndpoint.refer`."""
        self._host = host
        self._state = ReferState.IDLE
        self._core = core(self)
        self._stack = host._endpoint._stack
        name = f"the transfer of {host._name}" if isinstance(host, SessionBase) else host._name
        self.over: Operation[ReferState] = Operation(name, callbacks=self._stack.dispatcher.submit)
        """Ends with the last state: SUCCEEDED, FAILED, REDIRECTED, or what was known when the peer fell silent."""

    @property
    def state(self) -> ReferState:
        """Where it is."""
        return self._state

    @property
    def session(self) -> SignalingSession | None:
        """The session whose peer was asked; None outside of any."""
        return None if isinstance(self._host, Outside) else self._host

    @property
    def is_subscription_active(self) -> bool:
        """The peer may still tell more."""
        return self._core.is_active

    def terminate_subscription(self) -> None:
        """Hear no more of it. Does not block."""
        self._host._engine_call(self._core.terminate_subscription)
        self._host._engine_call(lambda now: self._forgotten())

    def _forgotten(self) -> None:
        """Loop thread: nothing more will be told."""
        self.over.complete(self._state)
        self._host._endpoint._release(self)

    @property
    def _strand(self) -> Strand:
        return self._host._strand

    def _end_with_endpoint(self, now: float, done: Callable[[], object]) -> None:
        self._abandon(now, self._host._endpoint._terminated("it was known what became of the transfer"))
        done()

    def _abandon(self, now: float, error: RealTimeException) -> None:
        was_answered = self._core.is_answered
        self._core.abandon(now, error)
        if was_answered:  # else its operation says how it ended
            self._forgotten()

    def _set(self, state: ReferState, code: int = 0, reason: str | None = None, fragment: bytes = b"") -> None:
        """Loop thread."""
        previous, self._state = self._state, state
        if previous is not state:
            self._host._strand.post(
                self.state_changed.raise_event,
                self,
                ReferStateChangedEventArgs(previous, state, code, reason, fragment),
                self._host._endpoint._manager._report_unhandled,
            )

    def _happened(self, event: Any) -> None:
        """Loop thread: the peer has told something."""
        assert isinstance(event, events.ReferProgress)
        code = event.status_code
        if code >= 100:
            self._set(_state_of(code), code, event.reason, event.fragment)
        if event.is_over:
            self._forgotten()

    def _answered(self, operation: Operation[Any]) -> None:
        """A worker: the REFER has its final response."""
        error = operation.exception()
        if error is not None:
            refused = isinstance(error, FailureResponseException)

            def failed(now: float) -> None:
                self._set(ReferState.REFER_REJECTED if refused else ReferState.REFER_FAILED)
                self._forgotten()

            self.over.fail(error)
            self._host._engine_call(failed)
        elif not self._core.is_active:
            self.over.complete(self._state)
            self._host._engine_call(lambda now: self._forgotten())

    def __repr__(self) -> str:
        return f"<ReferStatus {self._state.name}>"


def begin_refer(
    session: SignalingSession,
    address: RealTimeAddress | str,
    headers: Headers | None,
    replaces: str | None,
    subscribe: bool,
) -> tuple[ReferStatus, Operation[Any]]:
    """Ask the peer to call that address. The operation ends with the answer to the REFER."""
    status = ReferStatus(session, lambda status: OutgoingRefer(session._core, status))
    return status, _begin(status, f"REFER to {session._peer_text()}", address, headers, replaces, subscribe)


def begin_refer_outside(
    endpoint: RealTimeEndpoint,
    address: RealTimeAddress | str,
    target: RealTimeAddress | str,
    headers: Headers | None,
    replaces: SignalingSession | None,
    subscribe: bool,
) -> Operation[ReferStatus]:
    """Ask whoever is at the address to call the target, without a session. Ends with the answer to the REFER."""
    asked = arguments.address(address)
    value = None if replaces is None else replaces_value(replaces)
    host = Outside(endpoint, f"the REFER to {asked}")
    hop: Any
    try:
        hop = endpoint._target(asked, None)
    except ConnectionFailureException as error:
        hop = error
    to = f"<{asked.uri}>;epid={asked.endpoint_id}" if asked.endpoint_id else f"<{asked.uri}>"

    def core(status: ReferStatus) -> OutsideRefer:
        return OutsideRefer(
            endpoint._stack.engine,
            endpoint._record,
            status,
            uri=asked.uri,
            to=to,
            target=hop,
            local_from=endpoint._from,
        )

    return _begin(ReferStatus(host, core), f"REFER to {asked}", target, headers, value, subscribe)


def _begin(
    status: ReferStatus,
    what: str,
    address: RealTimeAddress | str,
    headers: Headers | None,
    replaces: str | None,
    subscribe: bool,
) -> Operation[Any]:
    host = status._host
    uri = arguments.address(address).uri
    pairs = [*host._endpoint._headers, *arguments.headers(headers)]
    if replaces is not None:
        uri += f"?Replaces={quote(replaces, safe='')}"
    operation: Operation[Any] = Operation(
        what, callbacks=status._stack.dispatcher.submit, cancel=lambda op: op.end_cancelled()
    )

    def accepted(message: Any) -> ReferStatus:
        if status._state is ReferState.REFER_REQUESTED:
            status._set(ReferState.REFER_ACCEPTED)
        return status

    def begin(now: float) -> None:
        host._endpoint._adopt(status)
        status._set(ReferState.REFER_REQUESTED)
        status._core.refer(now, f"<{uri}>", pairs, None, subscribe, PendingCommand(operation, what, convert=accepted))

    operation.add_done_callback(status._answered)
    status._stack.command(operation, begin)
    return operation


def begin_transfer(session: SignalingSession, target: RealTimeAddress | str | SignalingSession) -> Operation[None]:
    """Transfer the peer to an address, or into the place that we have in another session; then end what is left."""
    other: SignalingSession | None = None
    if isinstance(target, SessionBase):
        other = target
        if other.session_target is None:
            raise RealTimeInvalidOperationException(f"{other!r} has no address that could be called.")
        status, _ = begin_refer(session, other.session_target, None, replaces_value(other), True)
    else:
        status, _ = begin_refer(session, target, None, None, True)
    done: Operation[None] = Operation(status.over.name, callbacks=session._endpoint._stack.dispatcher.submit)

    def over(operation: Operation[ReferState]) -> None:
        error = operation.exception()
        if error is None and operation.result() is not ReferState.SUCCEEDED:
            error = OperationFailureException(
                f"The transfer of {session._name} has failed: the peer told {operation.result().name} of its call.",
                OperationFailureReason.UNKNOWN,
            )
        if error is not None:
            done.fail(error)
            return
        left = [session] if other is None else [session, other]
        ends = [each.begin_terminate() for each in left]

        def ended(_: object) -> None:
            if all(end.done() for end in ends):
                done.complete(None)

        for end in ends:
            end.add_done_callback(ended)

    status.over.add_done_callback(over)
    return done


def replaces_value(session: SignalingSession) -> str:
    """What a third party writes in Replaces to take our place, or that our peer is to see.

    Raises:
        RealTimeInvalidOperationException: The session has no dialog yet.
    """
    dialog = session._core.dialog
    if dialog is None or session.is_terminated:
        raise RealTimeInvalidOperationException(f"{session!r} cannot be replaced: it is not up.")
    return f"{dialog.call_id};to-tag={dialog.remote_tag or '0'};from-tag={dialog.local_tag or '0'}"


class ReferNotifier:
    """Tells the peer how the call goes that it asked for. Usable from any thread; nothing here blocks."""

    def __init__(self, core: IncomingRefer, host: SignalingSession | Outside) -> None:
        """Made by :meth:`ReferReceivedEventArgs.accept`."""
        self._core = core
        self._host = host
        self._state = ReferState.TRYING

    @property
    def state(self) -> ReferState:
        """What was told last."""
        return self._state

    @property
    def refer_target(self) -> str:
        """The address that is to be called."""
        return self._core.target

    def set_state(self, state: ReferState | int, text: str | None = None, fragment: str | None = None) -> None:
        """Tell it.

        Args:
            state: TRYING, ALERTED, SUCCEEDED, FAILED or REDIRECTED; or the status code of the call, 100 to 699. A final
                one is the last that is told.
            text: The phrase with a status code.
            fragment: A fragment of a SIP message in its place (RFC 3420).
        """
        if isinstance(state, ReferState):
            if state not in _CODES:
                raise ValueError(f"{state.name} cannot be told: it is about the request, not about the call.")
            code = _CODES[state]
        else:
            code = arguments.status_code(state, 100, 699)
        arguments.reason_phrase(text)
        self._state = _state_of(code)
        self._host._engine_call(self._core.progress, code, text, fragment, code >= 200)


class ReferReceivedEventArgs:
    """A peer asks us to call somebody. To be accepted, followed or declined; left alone it is declined (603)."""

    def __init__(
        self, core: IncomingRefer, host: SignalingSession | Outside, session_class: type[SignalingSession]
    ) -> None:
        self._core = core
        self._host = host
        self._session_class = session_class
        self._lock = threading.RLock()
        self._answered = False

    @property
    def endpoint(self) -> RealTimeEndpoint:
        """The endpoint that is asked."""
        return self._host.endpoint

    @property
    def session(self) -> SignalingSession | None:
        """The session that it came in; None outside of any."""
        return None if isinstance(self._host, Outside) else self._host

    @property
    def refer_target(self) -> str:
        """The address that is to be called."""
        return self._core.target

    @property
    def method(self) -> str:
        """The method that is to be sent there; INVITE as a rule."""
        return self._core.method

    @property
    def replaces(self) -> str | None:
        """The session at the target whose place the call is to take (RFC 3891), or None."""
        return self._core.replaces

    @property
    def referred_by(self) -> str | None:
        """Who asks (RFC 3892), or None."""
        return self._core.referred_by

    @property
    def request_data(self) -> SipRequestData:
        """The REFER."""
        return SipRequestData(self._core.request)

    def accept(self, headers: Headers | None = None) -> ReferNotifier:
        """Answer 202; the call is the application's to make, and its progress to be told.

        Raises:
            RealTimeInvalidOperationException: It was answered before.
        """
        self._answer()
        self._host._engine_call(self._core.accept, arguments.headers(headers))
        return ReferNotifier(self._core, self._host)

    def decline(self, code: int = 603, reason: str | None = None, headers: Headers | None = None) -> None:
        """Answer 300 or above."""
        arguments.status_code(code, 300, 699)
        arguments.reason_phrase(reason)
        self._answer()
        self._host._engine_call(self._core.decline, int(code), reason, arguments.headers(headers))

    def follow(self, offer: ContentDescription | None = None) -> SignalingSession:
        """Accept, call the address, tell the peer how that goes, and wait until the call is up. Blocks; made for the
        handler of ``refer_received``, which holds up what comes in this one session only.

        Raises:
            RealTimeInvalidOperationException: It was answered before.
            ValueError: The address cannot be called, or another method is asked for; the REFER is declined (488).
            RealTimeException: The call has failed, as :meth:`SignalingSession.establish` says.
        """
        self._answer()
        notifier = ReferNotifier(self._core, self._host)
        headers = [] if self.referred_by is None else [("Referred-By", self.referred_by)]

        def ended(operation: Operation[Any]) -> None:
            error = operation.exception()
            if error is None:
                notifier.set_state(200)
            elif isinstance(error, FailureResponseException) and error.response_data is not None:
                notifier.set_state(error.response_data.response_code)
            else:
                notifier.set_state(503)

        def rings(sender: object, args: Any) -> None:
            if args.state is SignalingState.ALERTED:
                notifier.set_state(ReferState.ALERTED)

        try:
            if self.method != "INVITE":
                raise ValueError(f"The REFER asks for {self.method} to {self.refer_target}, which is no call.")
            session = self._session_class(self.endpoint, self.refer_target)
            session.state_changed += rings
            operation = session.begin_establish(offer, headers, replaces=self.replaces)
        except Exception as error:
            self._host._engine_call(self._core.decline, 488 if isinstance(error, ValueError) else 480)
            raise
        self._host._engine_call(self._core.accept)
        operation.add_done_callback(ended)
        operation.result()
        return session

    def _answer(self) -> None:
        with self._lock:
            if self._answered:
                raise RealTimeInvalidOperationException(f"The REFER to {self.refer_target} was answered before.")
            self._answered = True

    def _left_alone(self) -> None:
        """After the handlers."""
        try:
            self.decline()
        except RealTimeInvalidOperationException:
            pass


_CODES = {
    ReferState.TRYING: 100,
    ReferState.ALERTED: 180,
    ReferState.SUCCEEDED: 200,
    ReferState.REDIRECTED: 302,
    ReferState.FAILED: 503,
}


def _state_of(code: int) -> ReferState:
    if code < 200:
        return ReferState.TRYING if code == 100 else ReferState.ALERTED
    if code < 300:
        return ReferState.SUCCEEDED
    return ReferState.REDIRECTED if code < 400 else ReferState.FAILED


def _arrived(endpoint: RealTimeEndpoint, core: IncomingRefer) -> None:
    """Loop thread: the peer of a session asks for a transfer."""
    session: SignalingSession = core.session.user
    if not session.refer_received:
        core.decline(endpoint._stack.loop.now, 603)
        return
    args = ReferReceivedEventArgs(core, session, type(session))
    session._raise(session.refer_received, args, args._left_alone)


def arrived_outside(
    session_class: type[SignalingSession], endpoint: RealTimeEndpoint, core: IncomingOutsideRefer
) -> None:
    """Loop thread: somebody asks for a call, without a session."""
    host = Outside(endpoint, f"the REFER of {core.request.from_.uri}")
    host._core = core
    core.user = host
    now = endpoint._stack.loop.now
    if not endpoint.refer_received:
        core.decline(now, 603)
        return
    try:
        endpoint._adopt(host)
    except OperationFailureException:
        core.decline(now, 480)
        return
    args = ReferReceivedEventArgs(core, host, session_class)
    report = endpoint._manager._report_unhandled
    host._strand.post(endpoint.refer_received.raise_event, endpoint, args, report, args._left_alone)


ARRIVALS[IncomingRefer] = _arrived
