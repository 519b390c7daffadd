"""Transfers: asking a peer to call somebody, in a session or outside of any (RFC 3515, 3891, 3892)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from p2psip import arguments
from p2psip.arguments import Headers
from p2psip.core import events
from p2psip.core.dialog import Content
from p2psip.core.refer import OutgoingRefer
from p2psip.core.refer_outside import OutsideRefer
from p2psip.enums import ReferState
from p2psip.errors import (
    ConnectionFailureException,
    FailureResponseException,
    OperationFailureException,
    OperationFailureReason,
    OperationTimeoutException,
    RealTimeException,
    RealTimeInvalidOperationException,
)
from p2psip.pending import Leave, PendingCommand
from p2psip.session_base import SessionBase
from p2psip.subscription_base import Hosted
from p2psip.sync import Event, Operation, Strand
from p2psip.values import RealTimeAddress

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
        self._told = "nothing"
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
            self._told = f"{code} {event.reason or ''}".rstrip()
            self._set(state_of(code), code, event.reason, event.fragment)
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
        elif not self._core.is_active:  # the loop's thread may be about to tell the last state
            self._host._engine_call(lambda now: self._forgotten())

    def __repr__(self) -> str:
        return f"<ReferStatus {self._state.name}>"


class ReferDetails(NamedTuple):
    """What a REFER may say besides the address."""

    headers: Headers | None = None
    content_type: str | None = None
    body: bytes | str | None = None
    subscribe: bool = True
    timeout: float | None = None


def begin_refer(
    session: SignalingSession,
    address: RealTimeAddress | str,
    details: ReferDetails,
    replaces: str | None,
) -> tuple[ReferStatus, Operation[Any]]:
    """Ask the peer to call that address. The operation ends with the answer to the REFER."""
    status = ReferStatus(session, lambda status: OutgoingRefer(session._core, status))
    return status, _begin(status, f"REFER to {session._peer_text()}", address, details, replaces)


def begin_refer_outside(
    endpoint: RealTimeEndpoint,
    address: RealTimeAddress | str,
    target: RealTimeAddress | str,
    details: ReferDetails,
    replaces: SignalingSession | None,
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

    return _begin(ReferStatus(host, core), f"REFER to {asked}", target, details, value)


def _begin(
    status: ReferStatus,
    what: str,
    address: RealTimeAddress | str,
    details: ReferDetails,
    replaces: str | None,
) -> Operation[Any]:
    host = status._host
    uri = arguments.address(address).uri
    pairs = [*host._endpoint._headers, *arguments.headers(details.headers)]
    kind, body = arguments.content(details.content_type, details.body)
    content = Content(kind, body) if kind is not None and body else None
    timeout = arguments.timeout(details.timeout)
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
        pending = PendingCommand(operation, what, convert=accepted)
        status._core.refer(now, f"<{uri}>", pairs, content, details.subscribe, pending, timeout)

    operation.add_done_callback(status._answered)
    status._stack.command(operation, begin)
    return operation


def begin_transfer(
    session: SignalingSession, target: RealTimeAddress | str | SignalingSession, timeout: float | None
) -> Operation[None]:
    """Transfer the peer to an address, or into the place that we have in another session; then end what is left."""
    timeout = arguments.timeout(timeout)
    details = ReferDetails(timeout=timeout)
    other: SignalingSession | None = None
    if isinstance(target, SessionBase):
        other = target
        if other.session_target is None:
            raise RealTimeInvalidOperationException(f"{other!r} has no address that could be called.")
        status, _ = begin_refer(session, other.session_target, details, replaces_value(other))
    else:
        status, _ = begin_refer(session, target, details, None)
    stack = session._endpoint._stack
    done: Operation[None] = Operation(status.over.name, callbacks=stack.dispatcher.submit)

    def over(operation: Operation[ReferState]) -> None:
        error = operation.exception()
        if error is None and operation.result() is not ReferState.SUCCEEDED:
            error = OperationFailureException(
                f"The transfer of {session._name} has failed: the peer told {status._told} of its call.",
                OperationFailureReason.UNKNOWN,
            )
        if error is not None:
            done.fail(error)
            return
        if done.done():  # too late: what to do with the sessions is the application's to say
            return
        left = [session] if other is None else [session, other]
        ends = [each.begin_terminate() for each in left]

        def ended(_: object) -> None:
            if all(end.done() for end in ends):
                done.complete(None)

        for end in ends:
            end.add_done_callback(ended)

    status.over.add_done_callback(over)
    if timeout is not None:

        def late() -> None:
            if done.fail(
                OperationTimeoutException(
                    f"The transfer of {session._name} was not over after {timeout:g} s; it is not known whether the "
                    "peer's call will come about, and the session goes on: end it, or try again."
                )
            ):
                status.terminate_subscription()

        stack.post_operation(done, lambda: stack.loop.call_later(timeout, late))
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


def state_of(code: int) -> ReferState:
    """What a status code of the call means."""
    if code < 200:
        return ReferState.TRYING if code == 100 else ReferState.ALERTED
    if code < 300:
        return ReferState.SUCCEEDED
    return ReferState.REDIRECTED if code < 400 else ReferState.FAILED
