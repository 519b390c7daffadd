"""REFER outside of any session: it begins a dialog of its own, in which only its NOTIFYs travel (RFC 3515 2.4.4).

Its forks may all follow it: each has a dialog then, and it is over when the last one has told its end (RFC 3515 4.1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from p2psip.core.dialog import Dialog, Pairs, contact_uri
from p2psip.core.effects import Arrived, Complete, Tell
from p2psip.core.event_headers import subscription_state
from p2psip.core.events import ReferEnded
from p2psip.core.refer import LIFETIME, IncomingRefer, OutgoingRefer, refer_to_of, wants_no_progress
from p2psip.core.session_headers import record_route
from p2psip.core.subscribe import MAXIMUM_NOTIFIERS
from p2psip.core.uas import BUSY, Refusal
from p2psip.enums import SignalingState
from p2psip.errors import OperationFailureException, OperationFailureReason, RealTimeException
from p2psip.message import Request, Response

if TYPE_CHECKING:
    from p2psip.core.dialog import Content
    from p2psip.core.directory import EndpointRecord
    from p2psip.core.engine import Engine
    from p2psip.core.request import ClientRequest
    from p2psip.core.transaction import ServerTransaction


class Outside:
    """Stands where a REFER has its session otherwise."""

    state = SignalingState.CONNECTED
    user: Any = None

    def __init__(self, engine: Engine, record: EndpointRecord, dialog: Dialog | None = None) -> None:
        self.engine = engine
        self.record = record
        self.dialog = dialog

    def refuse(self, operation: Any, what: str) -> None:
        """The command comes at the wrong time."""
        error = OperationFailureException(
            f"This REFER cannot be {what}: each is sent once.", OperationFailureReason.INVALID_SESSION_STATE
        )
        if operation is not None:
            self.engine.effects.append(Complete(operation, None, error))


class OutsideRefer(OutgoingRefer):
    """A REFER of ours to somebody with whom we have no session, and what is told of it."""

    def __init__(
        self, engine: Engine, record: EndpointRecord, user: Any, *, uri: str, to: str, target: Any, local_from: str
    ) -> None:
        self._outside = Outside(engine, record)
        super().__init__(self._outside, user)
        self._uri, self._to, self._target, self._from = uri, to, target, local_from
        self._dialogs: dict[str | None, Dialog] = {}

    def refer(
        self,
        now: float,
        refer_to: str,
        headers: Pairs,
        content: Content | None,
        subscribe: bool,
        operation: Any,
        timeout: float | None = None,
    ) -> None:
        """Send it; the operation ends with the final response."""
        outside, engine = self._outside, self._outside.engine
        if self._refer is not None:
            outside.refuse(operation, "sent again")
            return
        call_id, tag = engine.tokens.call_id(), engine.tokens.tag()
        pairs = [
            ("Max-Forwards", "70"),
            ("From", self._from + tag),
            ("To", self._to),
            ("Call-ID", call_id),
            ("CSeq", "1 REFER"),
            ("User-Agent", outside.record.endpoint.user_agent),
            *self._fields(refer_to, subscribe),
            *headers,
        ]
        if content is not None:
            pairs.append(("Content-Type", content.content_type))
        request = Request("REFER", self._uri, pairs, b"" if content is None else content.body)
        self._operation = operation
        self.is_active = subscribe
        if subscribe:
            engine.dialogs.expect(call_id, tag, self)
            self._end = engine.timers.start(now, LIFETIME + 64 * engine.settings.t1, self._silent)
        self._refer = self._request = engine.send_request(
            now,
            request,
            self._target,
            None,
            timeout=timeout,
            usage=self,
            record=outside.record,
            bears_contact=True,
        )

    def responded(self, now: float, client_request: ClientRequest, response: Response) -> None:
        code = response.status_code
        if code < 200 or client_request is not self._request:
            return
        self._request = None
        if code >= 300 or wants_no_progress(response) or not self.is_active:
            self.stop()
        elif response.to_tag not in self._dialogs:
            outside = self._outside
            self._keep(
                Dialog.of_response(
                    outside.engine, outside.record, client_request.request, response, client_request.flow
                )
            )
        self._complete(response, None)

    def received(self, now: float, transaction: ServerTransaction) -> None:
        request = transaction.request
        dialog = self._dialogs.get(request.from_tag)
        if dialog is None:  # it comes before the 2xx, or from another fork (RFC 6665 4.4.1)
            is_room = len(self._dialogs) < MAXIMUM_NOTIFIERS
            if self._refer is None or not is_room or not self.takes(request) or subscription_state(request) is None:
                transaction.usage = None
                transaction.respond(transaction.create_response(481))
                return
            outside = self._outside
            demand = outside.record.demand
            refusal = None if demand is None else demand.refusal(now, transaction, outside.engine.tokens)
            if refusal is not None:
                transaction.usage = None
                transaction.refuse(refusal)
                return
            dialog = self._keep(Dialog.of_notify(outside.engine, outside.record, self._refer.request, transaction))
        dialog.refresh_target(request)
        super().received(now, transaction)

    def _keep(self, dialog: Dialog) -> Dialog:
        self._dialogs[dialog.remote_tag] = dialog
        dialog.add(self)
        return dialog

    def _told_its_end(self, request: Request) -> bool:
        dialog = self._dialogs.pop(request.from_tag, None)
        if dialog is not None:
            dialog.remove(self)
        if self._dialogs:
            return False
        self.stop()
        return True

    def terminate_subscription(self, now: float) -> None:
        """Hear no more of it. Who has not answered yet is told when its NOTIFY comes."""
        if self.is_active:
            if not self._dialogs:
                self.stop()
            for dialog in self._dialogs.values():
                self._unsubscribe(now, dialog)

    def stop(self) -> None:
        super().stop()
        if self._refer is not None:
            request = self._refer.request
            self._outside.engine.dialogs.expect_no_more(request.call_id or "", request.from_tag)
        dialogs, self._dialogs = self._dialogs, {}
        for dialog in dialogs.values():
            dialog.remove(self)

    def abandon(self, now: float, error: RealTimeException) -> None:
        request, self._request = self._request, None
        if request is not None:
            self._outside.engine.cancel_request(now, request)
        super().abandon(now, error)


class IncomingOutsideRefer(IncomingRefer):
    """A REFER of somebody with whom we have no session. Its user is told ReferEnded when nothing more is told of it."""

    def __init__(self, outside: Outside, transaction: ServerTransaction) -> None:
        super().__init__(outside, transaction, refer_to_of(transaction.request))
        self._farewell: Any = None
        self._is_over = False

    def accept(self, now: float, headers: Pairs = ()) -> bool:
        """Answer 202, which makes the dialog, and tell that it is being tried."""
        transaction = self._transaction
        if transaction is None or self._dialog is None:
            return False
        self._dialog.is_early = False
        accepted = super().accept(now, [*record_route(transaction.request), *headers])
        if not accepted or not self.wants_progress:
            self._over()
        return accepted

    def decline(self, now: float, code: int, reason: str | None = None, headers: Pairs = ()) -> None:
        """Answer 300 or above."""
        super().decline(now, code, reason, headers)
        if not self.is_active:
            self._over()

    def terminate(self, now: float, operation: Any) -> None:
        """Tell that nothing comes of it; the operation ends when that was answered, or cannot be."""
        self.decline(now, 480)
        if self.is_active:
            self._farewell = operation
            self.progress(now, 503, None, None, True)
        elif operation is not None:
            self._engine.effects.append(Complete(operation, None, None))

    def responded(self, now: float, client_request: ClientRequest, response: Response) -> None:
        super().responded(now, client_request, response)
        if response.status_code >= 200:
            self._say_farewell()

    def failed(self, now: float, client_request: ClientRequest, error: RealTimeException) -> None:
        super().failed(now, client_request, error)
        self._say_farewell()

    def transaction_failed(self, now: float, transaction: ServerTransaction, error: RealTimeException | None) -> None:
        super().transaction_failed(now, transaction, error)
        self._over()

    def abandon(self, now: float, error: RealTimeException) -> None:
        super().abandon(now, error)
        self._say_farewell()

    def stop(self) -> None:
        super().stop()
        self._over()

    @property
    def _engine(self) -> Engine:
        engine: Engine = self.session.engine
        return engine

    def _say_farewell(self) -> None:
        operation, self._farewell = self._farewell, None
        if operation is not None:
            self._engine.effects.append(Complete(operation, None, None))

    def _over(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._engine.effects.append(Tell(self, ReferEnded()))


def receive_refer(engine: Engine, now: float, transaction: ServerTransaction, record: EndpointRecord) -> None:
    """A REFER outside of any dialog: offer it to the endpoint."""
    request = transaction.request
    refusal: Refusal | None = None
    if refer_to_of(request) is None or contact_uri(request) is None:
        refusal = Refusal(400)  # RFC 3515 2.4.2; and there would be no way back
    elif engine.dialogs.are_enough(engine.settings.maximum_dialogs):
        refusal = BUSY
    if refusal is not None:
        transaction.refuse(refusal)
        return
    refer = IncomingOutsideRefer(Outside(engine, record, Dialog.of_request(engine, record, transaction)), transaction)
    transaction.usage = refer
    engine.effects.append(Arrived(record, refer))
