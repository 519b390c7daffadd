"""Sessions: what an INVITE begins and a BYE ends (RFC 3261 13 to 15).

A session is a usage of its dialog. How it is begun lies in :mod:`p2psip.core.invite_client` and
:mod:`p2psip.core.invite_server`, how it is changed in :mod:`p2psip.core.renegotiate`; here is its state, what is sent
and received while it is up, and its end. Bodies are opaque: who offers and who answers is known here, what is not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from p2psip.core.dialog import Content, Dialog, Pairs
from p2psip.core.events import RequestReceived, RouteSetChanged, TerminatedByPeer
from p2psip.core.invite_client import OutgoingInvite
from p2psip.core.invite_forks import Farewell
from p2psip.core.invite_server import IncomingInvite
from p2psip.core.refer import receive_in_session
from p2psip.core.renegotiate import Renegotiation
from p2psip.core.sender import Sender
from p2psip.core.session_errors import DIALOG_IS_GONE, connection_lost
from p2psip.core.session_options import SessionOptions
from p2psip.core.session_request import SessionRequest
from p2psip.core.session_state import SessionState
from p2psip.core.session_timer import SessionTimer
from p2psip.enums import SignalingState, SignalingTransitionReason
from p2psip.errors import OperationTimeoutException, RealTimeException
from p2psip.message import Request, Response

if TYPE_CHECKING:
    from p2psip.core.directory import EndpointRecord
    from p2psip.core.engine import Engine
    from p2psip.core.flow import Flow
    from p2psip.core.request import ClientRequest
    from p2psip.core.transaction import ServerTransaction

__all__ = ["Session", "SessionOptions"]

NOT_OURS = frozenset(("NOTIFY", "SUBSCRIBE"))
"""Requests in a dialog that are not a session's."""


class Session(SessionState):
    """The INVITE usage of a dialog, on either side. Commands end their operation exactly once and never raise.

    Attributes:
        sender: Who sent the INVITE, where that is the peer; or None.
        replaces, joins: The session that Replaces, or Join, in the peer's INVITE names.
    """

    __slots__ = (
        "__weakref__",
        "_farewells",
        "_incoming",
        "_is_way_lost",
        "_outgoing",
        "_pending",
        "_renegotiation",
        "joins",
        "replaces",
        "sender",
    )

    def __init__(
        self,
        engine: Engine,
        record: EndpointRecord,
        user: Any,
        options: SessionOptions | None = None,
        *,
        call_id: str | None = None,
    ) -> None:
        super().__init__(engine, record, user, options or SessionOptions(), call_id or engine.tokens.call_id())
        self.replaces: Session | None = None
        self.joins: Session | None = None
        self.sender: Sender | None = None
        self.timer = SessionTimer(self)
        self._renegotiation: Renegotiation | None = None
        self._outgoing: OutgoingInvite | None = None
        self._incoming: IncomingInvite | None = None
        self._pending: dict[SessionRequest, None] = {}
        self._farewells: list[Any] = []
        self._is_way_lost = False

    @property
    def renegotiation(self) -> Renegotiation:
        """What changes it while it is up; made when there is something to change."""
        if self._renegotiation is None:
            self._renegotiation = Renegotiation(self)
        return self._renegotiation

    # ------------------------------------------------------------------ the beginning, our side

    def establish(
        self,
        now: float,
        uri: str,
        to: str,
        target: Any,
        offer: Content | None,
        headers: Pairs,
        operation: Any,
        timeout: float | None = None,
    ) -> None:
        """Send the INVITE; the operation ends with the 2xx once its ACK is sent."""
        if self.state is not SignalingState.IDLE:
            self.refuse(operation, "established")
            return
        self._outgoing = OutgoingInvite(self, operation)
        self.change(SignalingState.CONNECTING, SignalingTransitionReason.NONE, None)
        self._outgoing.start(now, uri, to, target, offer, headers, timeout)

    def acknowledge(self, now: float, answer: Content | None, headers: Pairs) -> None:
        """Send the ACK after InvitationAccepted. Nothing happens when it is sent already."""
        if self._outgoing is not None:
            self._outgoing.acknowledge(now, answer, headers)

    def answer_provisional(self, now: float, answer: Content | None, headers: Pairs) -> None:
        """After ProvisionalReceived that ``needs_answer``: the PRACK with the answer."""
        if self._outgoing is not None:
            self._outgoing.answer_provisional(now, answer)

    def follow(self, now: float, uri: str, headers: Pairs) -> None:
        """After Redirected: the next INVITE."""
        if self._outgoing is not None:
            self._outgoing.follow(now, uri, headers)

    def give_up(self, now: float) -> None:
        """After Redirected: the 3xx is the end."""
        if self._outgoing is not None:
            self._outgoing.give_up(now)

    # ------------------------------------------------------------------ the beginning, the peer's side

    def arrive(self, now: float, transaction: ServerTransaction) -> None:
        """An INVITE has begun it."""
        self.is_incoming = True
        self.call_id = transaction.request.call_id or ""
        self.state = SignalingState.INCOMING
        self.request = transaction.request
        self.sender = Sender(transaction.request, transaction.flow, self.record)
        self.learn(transaction.request)
        self.dialog = Dialog.of_request(self.engine, self.record, transaction)
        self.dialog.add(self)
        self._incoming = IncomingInvite(self, transaction)
        self._incoming.start(now)

    def accept(self, now: float, content: Content | None, headers: Pairs, operation: Any) -> None:
        """Answer 200; the operation ends with the ACK."""
        if self._incoming is None or self.state is not SignalingState.INCOMING:
            self.refuse(operation, "accepted")
        else:
            self._incoming.accept(now, content, headers, operation)

    def send_provisional(
        self,
        now: float,
        code: int,
        reason: str | None,
        headers: Pairs,
        content: Content | None,
        reliable: bool,
        operation: Any,
    ) -> None:
        """Answer 101 to 199; where it is sent reliably the operation ends with the PRACK, else at once."""
        if self._incoming is None or self.state is not SignalingState.INCOMING:
            self.refuse(operation, f"answered {code}")
        else:
            self._incoming.send_provisional(now, code, reason, headers, content, reliable, operation)

    def reject(
        self,
        now: float,
        code: int,
        reason: str | None,
        headers: Pairs,
        operation: Any = None,
        content: Content | None = None,
    ) -> None:
        """Answer 300 to 699."""
        if self._incoming is None or self.state is not SignalingState.INCOMING:
            self.refuse(operation, f"answered {code}")
        else:
            self._incoming.reject(now, code, reason, headers, content)
            self.complete(operation, None, None)

    # ------------------------------------------------------------------ while it is up

    def send_request(
        self,
        now: float,
        method: str,
        headers: Pairs,
        content: Content | None,
        operation: Any,
        timeout: float | None = None,
    ) -> None:
        """MESSAGE, INFO and the like; the operation ends with the final response."""
        if self.state is not SignalingState.CONNECTED or self.dialog is None:
            self.refuse(operation, f"used for {method}")
            return
        is_patient = timeout is None or timeout >= 64 * self.engine.settings.t1
        usage = SessionRequest(self, operation, is_patient)
        self._pending[usage] = None
        request = self.dialog.create_request(method, headers, content)
        self.dialog.send(now, request, usage, timeout=timeout)

    def renegotiate(self, now: float, offer: Content, headers: Pairs, operation: Any) -> None:
        """Offer another description, by re-INVITE, or by UPDATE before the session is up; the operation ends with the
        final response."""
        if self.dialog is None or not (self.state is SignalingState.CONNECTED or self.renegotiation.is_possible_early):
            self.refuse(operation, "renegotiated")
        else:
            self.renegotiation.begin(now, offer, headers, operation)

    def cancel_renegotiation(self, now: float, headers: Pairs = ()) -> bool:
        """Take our re-INVITE back; False when none is under way."""
        return self.renegotiation.cancel(now, headers)

    def send_progress(
        self,
        now: float,
        transaction: ServerTransaction,
        code: int,
        reason: str | None,
        headers: Pairs,
        operation: Any,
    ) -> None:
        """Answer the peer's re-INVITE 101 to 199 for the time being; where it requires that this is done reliably the
        operation ends with the PRACK, else at once."""
        self.renegotiation.send_progress(now, transaction, code, reason, headers, operation)

    def accept_offer(
        self,
        now: float,
        transaction: ServerTransaction,
        content: Content | None,
        headers: Pairs = (),
        operation: Any = None,
    ) -> None:
        """Answer the peer's re-INVITE or UPDATE 200; the operation ends with the ACK, or at once."""
        self.renegotiation.accept(now, transaction, content, headers, operation)

    def decline_offer(
        self,
        now: float,
        transaction: ServerTransaction,
        code: int,
        reason: str | None = None,
        headers: Pairs = (),
        content: Content | None = None,
    ) -> None:
        """Answer it 300 or above; the session goes on as it was."""
        self.renegotiation.decline(now, transaction, code, reason, headers, content)

    # ------------------------------------------------------------------ the end

    def terminate(self, now: float, headers: Pairs, operation: Any) -> None:
        """End it in whatever state it is; the operation ends when the peer has been told, or cannot be."""
        state = self.state
        if state is SignalingState.IDLE:
            self.end(now, SignalingTransitionReason.TERMINATED_LOCALLY, None)
            self.complete(operation, None, None)
        elif state is SignalingState.DISCONNECTED:
            if self._farewells:
                self._farewells.append(operation)
            else:
                self.complete(operation, None, None)
        elif state is SignalingState.INCOMING and self._incoming is not None:
            self._incoming.reject(now, 603, None, headers, None, SignalingTransitionReason.TERMINATED_LOCALLY)
            self.complete(operation, None, None)
        else:
            self._farewells.append(operation)
            if state is SignalingState.CONNECTED:
                self.hang_up(now, headers, SignalingTransitionReason.TERMINATED_LOCALLY)
            elif self._outgoing is not None:
                self._outgoing.terminate(now, headers)
            elif self._incoming is not None:
                self._incoming.terminate(now, headers)

    def hang_up(
        self, now: float, headers: Pairs, reason: SignalingTransitionReason, message: Request | Response | None = None
    ) -> None:
        """Send BYE: for us the session is over, the dialog lives until BYE is answered."""
        dialog = self.dialog
        assert dialog is not None
        self.expect_farewell()
        self.end(now, reason, message)
        Farewell(self, dialog).send(now, headers)

    def expect_farewell(self) -> None:
        """The end takes a while: the dialog is left when :meth:`said_farewell` is called."""
        if not self._farewells:
            self._farewells.append(None)

    def said_farewell(self) -> None:
        """The peer knows, or cannot be told."""
        farewells, self._farewells = self._farewells, []
        for operation in farewells:
            self.complete(operation, None, None)
        self.leave()

    def end(self, now: float, reason: SignalingTransitionReason, message: Request | Response | None) -> None:
        """It is over: stop all timers, fail all operations. Unless somebody says farewell the dialog is left."""
        if self.state is SignalingState.DISCONNECTED:
            return
        self.change(SignalingState.DISCONNECTED, reason, message)
        self.timer.stop()
        if self._renegotiation is not None:
            self._renegotiation.end(now)
        pending, self._pending = self._pending, {}
        for usage in pending:
            usage.overtaken()
        if not self._farewells:
            self.leave()

    def leave(self) -> None:
        """Nothing more is to be sent or received. Transactions that wait for copies hold the session no longer, and it
        does not hold what has begun it."""
        if self.dialog is not None:
            self.dialog.remove(self)
        if self._outgoing is not None and self._outgoing.let_go():
            self._outgoing = None
        if self._incoming is not None:
            self._incoming.let_go()
            self._incoming = None

    def abandon(self, now: float, error: RealTimeException) -> None:
        """The engine has ended."""
        for part in (self._outgoing, self._incoming):
            if part is not None:
                part.abandon(error)
        self.end(now, SignalingTransitionReason.TERMINATED_LOCALLY, None)
        self.said_farewell()

    # ------------------------------------------------------------------ what the dialog and the engine tell

    def takes(self, request: Request) -> bool:
        return request.method not in NOT_OURS

    def received(self, now: float, transaction: ServerTransaction) -> None:
        method = transaction.request.method
        self.see(transaction.request)
        if method == "BYE":
            self.respond(transaction, 200)
            self._bye_received(now, transaction.request)
            return
        self.way_found(transaction.flow)
        if self.state is SignalingState.DISCONNECTED:
            self.respond(transaction, 481)
        elif method == "PRACK":
            if not self.renegotiation.received_prack(now, transaction):
                if self._incoming is None:
                    self.respond(transaction, 481)
                else:
                    self._incoming.received_prack(now, transaction)
        elif method == "REFER":
            receive_in_session(self, now, transaction)
        elif method in ("INVITE", "UPDATE"):
            self.renegotiation.received(now, transaction)
        else:
            self.tell(RequestReceived(transaction))

    def _bye_received(self, now: float, bye: Request) -> None:
        if self.state is SignalingState.DISCONNECTED:  # ours has crossed it, or waits for an ACK
            if self._incoming is not None and self._incoming.waits_to_hang_up:
                self._incoming.peer_hung_up(now)
                self.said_farewell()
            return
        self.tell(TerminatedByPeer(bye))
        parts = [part for part in (self._incoming, self._outgoing) if part is not None]
        for part in parts:
            part.peer_hung_up(now)
        self.end(now, SignalingTransitionReason.TERMINATED_REMOTELY, bye)
        for part in parts:
            part.overtaken()

    def acknowledged(self, now: float, flow: Any, ack: Request) -> None:
        self.see(ack)
        if self._incoming is not None and self._incoming.acknowledged(now, ack):
            return
        self.renegotiation.acknowledged(now, flow, ack)

    def cancelled(self, now: float, transaction: ServerTransaction) -> None:
        if self._incoming is not None and self._incoming.transaction is transaction:
            self._incoming.cancelled(now)
        else:
            self.renegotiation.cancelled(now, transaction)

    def transaction_failed(self, now: float, transaction: ServerTransaction, error: RealTimeException | None) -> None:
        if self._incoming is not None and self._incoming.transaction is transaction:
            self._incoming.failed(now, error)
        else:
            self.renegotiation.transaction_failed(now, transaction)

    def flow_lost(self, now: float, flow: Flow) -> None:
        if self.state is SignalingState.CONNECTED:
            self._is_way_lost = True
            self.tell(RouteSetChanged(connection_lost(flow)))

    def way_found(self, flow: Flow) -> None:
        """A request of ours was answered over it, or one of the peer's came over it."""
        if self.dialog is not None and self.dialog.flow is None and flow.is_connected:
            self.dialog.use_flow(flow)
        if self._is_way_lost and flow.is_connected:
            self._is_way_lost = False
            self.tell(RouteSetChanged(None))

    # ------------------------------------------------------------------ for its parts

    def failed_by(self, now: float, response: Response) -> bool:
        """A final response to a request in the session says that the session is gone (RFC 5057 5.1)."""
        if self.state is not SignalingState.CONNECTED:
            return False  # an early dialog may go, what becomes of the call is told by the answer to its INVITE
        code = response.status_code
        if code == 408:
            self.hang_up(now, (), SignalingTransitionReason.TIMEOUT, response)
        elif code == 481:
            self.end(now, SignalingTransitionReason.SESSION_DOES_NOT_EXIST, response)
        elif code in DIALOG_IS_GONE:  # says somebody on the way, perhaps: the peer may believe in it still
            self.hang_up(now, (), SignalingTransitionReason.SESSION_DOES_NOT_EXIST, response)
        return self.state is not SignalingState.CONNECTED

    def unanswered(self, now: float, client_request: ClientRequest, error: RealTimeException) -> None:
        """A request in the session has failed: where the peer was silent for the protocol's time, the session is over
        (RFC 3261 12.2.1.2, 14.1). One that could not be sent says nothing of the peer."""
        is_silent = isinstance(error, OperationTimeoutException) and client_request.flow is not None
        if is_silent and self.state is SignalingState.CONNECTED:
            self.hang_up(now, (), SignalingTransitionReason.TIMEOUT)

    def forget_request(self, usage: SessionRequest) -> None:
        self._pending.pop(usage, None)
