"""Being asked to call somebody, in a session or outside of any, and telling how that goes (RFC 3515, 3892)."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from p2psip import arguments
from p2psip.arguments import Headers
from p2psip.core.refer import IncomingRefer
from p2psip.core.refer_outside import IncomingOutsideRefer
from p2psip.enums import ReferState, SignalingState
from p2psip.errors import FailureResponseException, OperationFailureException, RealTimeInvalidOperationException
from p2psip.hosting import ARRIVALS
from p2psip.referral import Outside, state_of
from p2psip.senders import SenderEventArgs
from p2psip.sync import Operation
from p2psip.values import ContentDescription, SipRequestData

if TYPE_CHECKING:
    from p2psip.core.sender import Sender
    from p2psip.endpoint import RealTimeEndpoint
    from p2psip.session import SignalingSession

_CODES = {
    ReferState.TRYING: 100,
    ReferState.ALERTED: 180,
    ReferState.SUCCEEDED: 200,
    ReferState.REDIRECTED: 302,
    ReferState.FAILED: 503,
}


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
        self._state = state_of(code)
        self._host._engine_call(self._core.progress, code, text, fragment, code >= 200)


class ReferReceivedEventArgs(SenderEventArgs):
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

    @property
    def _sender(self) -> Sender:
        return self._core.sender

    def accept(self, headers: Headers | None = None) -> ReferNotifier:
        """Answer 202; the call is the application's to make, and its progress to be told.

        Raises:
            RealTimeInvalidOperationException: It was answered before.
        """
        self._answer()
        self._host._engine_call(self._core.accept, arguments.headers(headers))
        return ReferNotifier(self._core, self._host)

    def decline(self, code: int = 603, reason: str | None = None, headers: Headers | None = None) -> None:
        """Answer 300 or above, but for 408 (RFC 4320 4.2). Does not block."""
        arguments.refusal(code)
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
