"""Transactions: one request, its responses, and the timers between them (RFC 3261 17, RFC 6026).

The machines themselves are data (:mod:`p2psip.core.tables`); here is what their rows do. A transaction knows the
flow that it runs on and the user that it works for, nothing of dialogs. The engine holds it from ``start`` until
it is terminated, and not longer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

from p2psip.config import ManagerSettings
from p2psip.core.counts import Counts
from p2psip.core.directory import EndpointRecord
from p2psip.core.effects import Effect, Expired, Send
from p2psip.core.late_response import LateResponse
from p2psip.core.tables import (
    INVITE_CLIENT,
    INVITE_SERVER,
    NON_INVITE_CLIENT,
    NON_INVITE_SERVER,
    Input,
    Machine,
    State,
    Table,
)
from p2psip.core.uas import Refusal, top_via
from p2psip.core.usage import Usage
from p2psip.errors import OperationTimeoutException, RealTimeException
from p2psip.message import Request, Response, create_ack, create_response
from p2psip.message.grammar import excerpt
from p2psip.timers import Timer, Timers

INVITE_TRYING_DELAY = 0.2
"""An INVITE still unanswered after this gets a 100 (RFC 3261 17.2.1)."""

Message = Any
"""What comes with an input: a request, a response, an error or nothing; the row's actions know which."""

# For what each message needs: access to a member of an enum costs more than to a global before Python 3.12.
_PROVISIONAL, _FINAL, _SUCCESS, _FAILURE = Input.PROVISIONAL, Input.FINAL, Input.SUCCESS, Input.FAILURE
_SEND_PROVISIONAL, _SEND_FINAL = Input.SEND_PROVISIONAL, Input.SEND_FINAL
_TERMINATED = State.TERMINATED


class Context(Protocol):
    """What a transaction needs of the engine. ``now`` is the time of the input that is being handled."""

    now: float
    settings: ManagerSettings
    timers: Timers
    effects: list[Effect]
    counts: Counts

    def client_ended(self, transaction: ClientTransaction) -> None: ...
    def server_answered(self, transaction: ServerTransaction) -> None: ...
    def server_ended(self, transaction: ServerTransaction) -> None: ...
    def send_cancel(self, transaction: InviteClientTransaction, headers: Sequence[tuple[str, str]]) -> None: ...


class ClientUser(Protocol):
    """Who a client transaction works for."""

    def received(self, response: Response) -> None: ...
    def timed_out(self) -> None: ...
    def flow_lost(self, error: RealTimeException | None) -> None: ...


class Transaction:
    """What the four kinds have in common: a state, a table, at most one timer and one retransmission timer."""

    __slots__ = (
        "_interval",
        "_machine",
        "_retransmission",
        "_rows",
        "_timer",
        "began_at",
        "context",
        "flow",
        "key",
        "request",
        "state",
    )

    table: ClassVar[Table]
    _machines: ClassVar[tuple[Machine, Machine]]

    def __init_subclass__(cls) -> None:
        """Replace the names in the table's rows by the methods, once for all."""
        table = getattr(cls, "table", None)
        if table is not None:
            cls._machines = (Machine(cls, table), Machine(cls, table.reliable))

    def __init__(self, context: Context, flow: Any, key: object, request: Request) -> None:
        self.context = context
        self.began_at = context.now
        self.flow = flow
        self.key = key
        self.request = request
        machine = self._machine = self._machines[flow.reliable]
        self._rows = machine.rows
        self.state = machine.state
        self._timer: Timer | None = None
        self._retransmission: Timer | None = None
        self._interval = 0.0

    def start(self) -> None:
        """Enter the first state."""
        for action in self._machine.start:
            action(self, None)

    def take(self, event: Input, message: Message = None) -> None:
        """Let the input happen. A transaction that terminates is gone from the engine before anybody is told."""
        row = self._rows.get((self.state, event))
        if row is None:
            return
        state, actions = row
        if state is not self.state:
            self.state = state
            if state is _TERMINATED:
                if self._timer is not None:
                    self.stop_timers()
                self._ended()
        for action in actions:
            action(self, message)

    def flow_closed(self, error: RealTimeException | None) -> None:
        """The flow that it runs on is gone."""
        self.take(Input.TRANSPORT_ERROR, error)

    def end(self) -> None:
        """Terminate in silence, from any state."""
        if self.state is not _TERMINATED:
            self.state = _TERMINATED
            self.stop_timers()
            self._ended()

    @property
    def is_terminated(self) -> bool:
        """Nothing can be done with it any more."""
        return self.state is _TERMINATED

    def _ended(self) -> None:
        raise NotImplementedError

    # ------------------------------------------------------------------ timers

    def stop_timers(self, message: Message = None) -> None:
        timers = self.context.timers
        if self._timer is not None:
            timers.cancel(self._timer)
            self._timer = None
        if self._retransmission is not None:
            timers.cancel(self._retransmission)
            self._retransmission = None

    def _run(self, seconds: float, event: Input) -> None:
        """Give the present state its timer."""
        if self._timer is not None:  # without it no retransmission timer runs
            self.stop_timers()
        context = self.context
        self._timer = context.timers.start(context.now, seconds, self.take, event)

    def _retransmit_after(self, seconds: float, event: Input) -> None:
        self._interval = seconds
        self._retransmission = self.context.timers.start(self.context.now, seconds, self.take, event)


class ClientTransaction(Transaction):
    """A request of ours on its way. Known by branch and CSeq method (RFC 3261 17.1.3)."""

    __slots__ = ("user",)

    def __init__(self, context: Context, flow: Any, key: object, request: Request, user: ClientUser) -> None:
        super().__init__(context, flow, key, request)
        self.user = user

    def receive(self, response: Response) -> None:
        """Take a response that matches."""
        raise NotImplementedError

    def _ended(self) -> None:
        self.context.client_ended(self)

    def send(self, message: Message) -> None:
        self.context.effects.append(Send(self.flow, self.request.to_bytes()))

    retransmit = send

    def pass_up(self, response: Response) -> None:
        self.user.received(response)

    def fail_timeout(self, message: Message) -> None:
        self.user.timed_out()

    def fail_transport(self, error: RealTimeException | None) -> None:
        self.user.flow_lost(error)


class NonInviteClientTransaction(ClientTransaction):
    """RFC 3261 17.1.2."""

    __slots__ = ()

    table = NON_INVITE_CLIENT

    def receive(self, response: Response) -> None:
        self.take(_FINAL if response.status_code >= 200 else _PROVISIONAL, response)

    def start_e(self, message: Message) -> None:
        self._retransmit_after(self.context.settings.t1, Input.TIMER_E)

    def restart_e(self, message: Message) -> None:
        self._retransmit_after(min(2 * self._interval, self.context.settings.t2), Input.TIMER_E)

    def restart_e_slow(self, message: Message) -> None:
        self._retransmit_after(self.context.settings.t2, Input.TIMER_E)

    def start_f(self, message: Message) -> None:
        self._run(64 * self.context.settings.t1, Input.TIMER_F)

    def start_k(self, message: Message) -> None:
        self._run(self.context.settings.t4, Input.TIMER_K)


class InviteClientTransaction(ClientTransaction):
    """RFC 3261 17.1.1 and RFC 6026 8.4. Its user sees every 2xx and sends the ACK to each."""

    __slots__ = ("_cancel", "_cancel_headers")

    table = INVITE_CLIENT

    def __init__(self, context: Context, flow: Any, key: object, request: Request, user: ClientUser) -> None:
        super().__init__(context, flow, key, request, user)
        self._cancel = ""  # "held" until a provisional response comes, then "sent"
        self._cancel_headers: Sequence[tuple[str, str]] = ()

    def receive(self, response: Response) -> None:
        code = response.status_code
        self.take(_PROVISIONAL if code < 200 else _SUCCESS if code < 300 else _FAILURE, response)

    def start_a(self, message: Message) -> None:
        self._retransmit_after(self.context.settings.t1, Input.TIMER_A)

    def restart_a(self, message: Message) -> None:
        self._retransmit_after(2 * self._interval, Input.TIMER_A)

    def start_b(self, message: Message) -> None:
        self._run(64 * self.context.settings.t1, Input.TIMER_B)

    def start_d(self, message: Message) -> None:
        # RFC 3261 17.1.1.2: at least 32 s, which 64*T1 is.
        self._run(64 * self.context.settings.t1, Input.TIMER_D)

    def start_m(self, message: Message) -> None:
        self._run(64 * self.context.settings.t1, Input.TIMER_M)

    def acknowledge(self, response: Response) -> None:
        self.context.effects.append(Send(self.flow, create_ack(self.request, response).to_bytes()))

    def hold_cancel(self, headers: Sequence[tuple[str, str]]) -> None:
        self._cancel = "held"
        self._cancel_headers = headers

    def send_held_cancel(self, message: Message) -> None:
        if self._cancel == "held":
            self.send_cancel(self._cancel_headers)

    def send_cancel(self, headers: Sequence[tuple[str, str]]) -> None:
        if self._cancel != "sent":
            self._cancel = "sent"
            self._run(64 * self.context.settings.t1, Input.CANCEL_LIMIT)
            self.context.send_cancel(self, headers)


class ServerTransaction(Transaction):
    """A request of somebody else that is to be answered, on the flow that it came over, or on another one when that is
    gone (RFC 3261 18.2.2).

    Known by branch, sent-by and method (RFC 3261 17.2.3).

    Attributes:
        to_tag: The tag that its responses bear in To when the request had none there.
        usage: The part of a dialog that it belongs to, or None.
        record: The endpoint that it was delivered to, or None.
        user: For whoever answers it; the engine does not look at it.
        is_answered: A final response was sent.
        way: The flow that responses take; None when there is none at the moment.
    """

    __slots__ = ("_last", "is_answered", "merge_key", "record", "to_tag", "usage", "user", "way")

    def __init__(self, context: Context, flow: Any, key: object, request: Request, to_tag: str) -> None:
        super().__init__(context, flow, key, request)
        self.to_tag = to_tag
        self.merge_key: object = None
        self.usage: Usage | None = None
        self.record: EndpointRecord | None = None
        self.user: Any = None
        self.is_answered = False
        self.way: Any = flow
        self._last: bytes | None = None

    def create_response(
        self,
        code: int,
        reason: str | None = None,
        *,
        headers: Sequence[tuple[str, str]] = (),
        content_type: str | None = None,
        body: bytes = b"",
    ) -> Response:
        """A response to the request, with the transaction's To tag. Usable from any thread: it only reads.

        Raises:
            ValueError: A code that RFC 4320 4 forbids for a request other than INVITE: 408, which would come too late
                in any case, and 101 to 199.

        RFC 3261 8.2.6.
        """
        if (code == 408 or 100 < code < 200) and self.request.method != "INVITE":
            raise ValueError(
                f"A {self.request.method} cannot be answered {code} (RFC 4320 4): answer with another final response."
            )
        return create_response(
            self.request,
            code,
            reason,
            to_tag=self.to_tag,
            top_via=top_via(self.request, self.flow),
            headers=headers,
            content_type=content_type,
            body=body,
        )

    def respond(self, response: Response) -> bool:
        """Send the response; False when it is too late because a final one was sent, or the flow is lost."""
        code = response.status_code
        if self.state is _TERMINATED or (self.is_answered and not self._may_follow(code)):
            return False
        if code >= 200 and not self.is_answered:
            self.is_answered = True
            self.context.server_answered(self)
        self._take_response(code, response)
        return True

    def refuse(self, refusal: Refusal) -> None:
        """Answer as the UAS core says."""
        self.respond(self.create_response(refusal.status_code, headers=refusal.headers))

    def _may_follow(self, code: int) -> bool:
        """The response may be sent after a final one."""
        return False

    def _take_response(self, code: int, response: Response) -> None:
        raise NotImplementedError

    def _ended(self) -> None:
        self.context.server_ended(self)

    def _trying_delay(self) -> float:
        raise NotImplementedError

    def start_trying_delay(self, message: Message) -> None:
        delay, limit = self._trying_delay(), self.context.settings.handler_limit
        if delay < limit:
            self._run(delay, Input.TRYING_DELAY)
        else:
            self._run(limit, Input.HANDLER_LIMIT)

    def start_handler_limit(self, message: Message) -> None:
        self._run(self.context.settings.handler_limit - self._trying_delay(), Input.HANDLER_LIMIT)

    def expire(self, message: Message) -> None:
        self.context.counts.timeouts["handler_limit"] += 1
        self.respond(self.create_response(500))
        if self.usage is None:
            self.context.effects.append(Expired(self))
        else:
            what = f"{self.request.method} from {self._sender} was answered 500 because nobody had answered it within"
            error = OperationTimeoutException(f"{what} {self.context.settings.handler_limit:g} s.")
            self.usage.transaction_failed(self.context.now, self, error)

    def flow_closed(self, error: RealTimeException | None) -> None:
        """The flow of the request is gone. Who sent it may still wait for the answer, which finds another way."""
        if self._outlives_flow():
            self.way = None
        else:
            super().flow_closed(error)

    def _outlives_flow(self) -> bool:
        raise NotImplementedError

    def send(self, response: Response) -> None:
        self._last = response.to_bytes()
        self.repeat(None)

    def send_trying(self, message: Message) -> None:
        if self.way is not None:  # else it is not worth a connection
            self.send(self.create_response(100))

    def repeat(self, message: Message) -> None:
        if self._last is None:
            return
        if self.way is not None and (self.way is self.flow or self.way.is_connected):
            self.context.effects.append(Send(self.way, self._last))
        else:
            LateResponse(self, self._last)

    @property
    def _sender(self) -> str:
        """From as it may stand in a sentence."""
        return excerpt(self.request.headers.get("From") or "")

    def fail_transport(self, error: RealTimeException | None) -> None:
        if self.usage is not None:
            self.usage.transaction_failed(self.context.now, self, error)


class NonInviteServerTransaction(ServerTransaction):
    """RFC 3261 17.2.2 and RFC 4320."""

    __slots__ = ()

    table = NON_INVITE_SERVER

    def _take_response(self, code: int, response: Response) -> None:
        self.take(_SEND_PROVISIONAL if code < 200 else _SEND_FINAL, response)

    def _outlives_flow(self) -> bool:
        return not self.is_answered

    def _trying_delay(self) -> float:
        return self.context.settings.provisional_delay

    def start_j(self, message: Message) -> None:
        self._run(64 * self.context.settings.t1, Input.TIMER_J)


class InviteServerTransaction(ServerTransaction):
    """RFC 3261 17.2.1 and RFC 6026 8.5. Retransmitting a 2xx until its ACK comes is the session's business."""

    __slots__ = ()

    table = INVITE_SERVER

    def _may_follow(self, code: int) -> bool:
        return self.state is State.ACCEPTED and 200 <= code < 300

    def _take_response(self, code: int, response: Response) -> None:
        self.take(
            _SEND_PROVISIONAL if code < 200 else Input.SEND_SUCCESS if code < 300 else Input.SEND_FAILURE, response
        )

    def _outlives_flow(self) -> bool:
        """A 2xx is sent until its ACK comes. A call that rings goes on where a proxy's connection was lost, whose
        transaction lives on; where it was the caller's own the caller has gone (RFC 3261 17.1.4), and nobody else
        could stop the ringing."""
        if self.is_answered:
            return self.state is State.ACCEPTED
        return not self.request.has_one_via

    def _trying_delay(self) -> float:
        return INVITE_TRYING_DELAY

    def start_g(self, message: Message) -> None:
        self._retransmit_after(self.context.settings.t1, Input.TIMER_G)

    def restart_g(self, message: Message) -> None:
        self._retransmit_after(min(2 * self._interval, self.context.settings.t2), Input.TIMER_G)

    def start_h(self, message: Message) -> None:
        self._run(64 * self.context.settings.t1, Input.TIMER_H)

    def start_i(self, message: Message) -> None:
        self._run(self.context.settings.t4, Input.TIMER_I)

    def start_l(self, message: Message) -> None:
        self._run(64 * self.context.settings.t1, Input.TIMER_L)

    def pass_ack(self, ack: Request) -> None:
        if self.usage is not None:
            self.usage.acknowledged(self.context.now, self.flow, ack)

    def fail_unacknowledged(self, message: Message) -> None:
        self.context.counts.timeouts["acknowledgement"] += 1
        if self.usage is not None:
            self.usage.transaction_failed(
                self.context.now,
                self,
                OperationTimeoutException(
                    f"The final answer to the INVITE from {self._sender} was not acknowledged within "
                    f"{64 * self.context.settings.t1:g} s."
                ),
            )
