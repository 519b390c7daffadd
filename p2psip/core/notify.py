"""The notifier: subscriptions of others to what an endpoint has to tell (RFC 6665 4.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from p2psip.core.dialog import Content, Dialog, Pairs, contact_uri
from p2psip.core.effects import Arrived, Complete, Tell
from p2psip.core.event_headers import event_name, expires_of
from p2psip.core.events import SubscriptionEnded, SubscriptionRefreshed
from p2psip.core.session_headers import record_route
from p2psip.core.uas import Refusal
from p2psip.core.usage import ClientUsage
from p2psip.errors import OperationFailureException, OperationFailureReason, RealTimeException, fresh
from p2psip.message import Request, Response
from p2psip.timers import Timer

if TYPE_CHECKING:
    from p2psip.core.directory import EndpointRecord
    from p2psip.core.engine import Engine
    from p2psip.core.flow import Flow
    from p2psip.core.request import ClientRequest
    from p2psip.core.transaction import ServerTransaction

DEFAULT_EXPIRES = 3600
SHORTEST = 60
"""Seconds; who asks for less, but more than none, is answered 423 (RFC 6665 4.2.1.1)."""


class Notifier(ClientUsage):
    """One subscription of a peer, from its SUBSCRIBE to the last NOTIFY.

    Attributes:
        state: ``incoming``, ``pending``, ``active`` or ``terminated``.
        expires: Seconds that were asked for; 0 is a query.
        minimum_interval: Seconds between two NOTIFYs; what changes faster is told once, as it is in the end.
    """

    def __init__(self, engine: Engine, record: EndpointRecord, transaction: ServerTransaction) -> None:
        request = transaction.request
        self.engine = engine
        self.record = record
        self.user: Any = None
        self.request = request
        self.event = event_name(request.headers.get("Event"))
        self.expires = _asked(request)
        self.state = "incoming"
        self.minimum_interval = 0.0
        self.dialog = Dialog.of_request(engine, record, transaction)
        self.dialog.add(self)
        self._transaction: ServerTransaction | None = transaction
        self._event = request.headers.get("Event") or ""
        self._content: Content | None = None
        self._end: Timer | None = None
        self._throttle: Timer | None = None
        self._waiting: tuple[Pairs, Any] | None = None
        self._operations: dict[ClientRequest, Any] = {}

    # ------------------------------------------------------------------ commands

    def accept(
        self, now: float, expires: int | None, headers: Pairs, content: Content | None, pending: bool = False
    ) -> None:
        """Answer 200, and send the NOTIFY that has to follow at once (RFC 6665 4.2.1.2)."""
        transaction, self._transaction = self._transaction, None
        if transaction is None or self.state != "incoming":
            return
        seconds = self.expires if expires is None else min(expires, self.expires)
        self.expires = seconds
        self.dialog.is_early = False
        self._answer(transaction, seconds, headers)
        self._content = content
        if seconds == 0:  # a query, which one NOTIFY answers
            self._finish(now, "timeout", None, None)
            self._tell(SubscriptionEnded("timeout", None, None))
            return
        self.state = "pending" if pending else "active"
        self._run(now, seconds)
        self._send(now, (), None)

    def decline(self, now: float, code: int, reason: str | None, headers: Pairs) -> None:
        """Answer 300 or above; 504 in place of 408, which RFC 4320 4.2 forbids."""
        transaction, self._transaction = self._transaction, None
        if transaction is not None and self.state == "incoming":
            self.state = "terminated"
            self.dialog.remove(self)
            answer = 504 if code == 408 else code
            transaction.respond(transaction.create_response(answer, reason, headers=headers))
            self._tell(SubscriptionEnded("terminated", None, None))

    def notify(
        self, now: float, content: Content | None, headers: Pairs, operation: Any, activate: bool = True
    ) -> None:
        """Tell the state; a pending subscription becomes active. The operation ends with the answer, or with none when
        a later state has overtaken this one."""
        if self.state not in ("active", "pending"):
            self._complete(operation, None, self._refused("notified"))
            return
        if activate:
            self.state = "active"
        self._content = content
        if self._throttle is not None:
            if self._waiting is not None:
                self._complete(self._waiting[1], None, None)
            self._waiting = (headers, operation)
            return
        self._send(now, headers, operation)

    def terminate(
        self, now: float, reason: str | None, retry_after: int | None, content: Content | None, operation: Any
    ) -> None:
        """Send the last NOTIFY; the operation ends with its answer, whatever that is."""
        if self.state == "incoming":
            self.decline(now, 603, None, ())
            self._complete(operation, None, None)
        elif self.state == "terminated":
            self._complete(operation, None, None)
        else:
            if content is not None:
                self._content = content
            self._finish(now, reason, retry_after, operation)
            self._tell(SubscriptionEnded("terminated", None, None))

    def abandon(self, now: float, error: RealTimeException) -> None:
        """The engine has ended."""
        self.state = "terminated"
        self._stop()
        operations, self._operations = self._operations, {}
        for operation in operations.values():
            self._complete(operation, None, fresh(error))
        self.dialog.remove(self)

    # ------------------------------------------------------------------ what the dialog tells

    def takes(self, request: Request) -> bool:
        return request.method == "SUBSCRIBE" and event_name(request.headers.get("Event")) == self.event

    def received(self, now: float, transaction: ServerTransaction) -> None:
        """A refresh, or the end of it."""
        request = transaction.request
        transaction.usage = None
        if self.state not in ("active", "pending"):
            transaction.respond(transaction.create_response(481))
            return
        seconds = _asked(request)
        if 0 < seconds < SHORTEST:
            transaction.respond(transaction.create_response(423, headers=[("Min-Expires", str(SHORTEST))]))
            return
        self.dialog.refresh_target(request)
        self._answer(transaction, seconds, ())
        if seconds == 0:
            self._finish(now, "timeout", None, None)
            self._tell(SubscriptionEnded("unsubscribed", request, None))
            return
        self.expires = seconds
        self._run(now, seconds)
        self._tell(SubscriptionRefreshed(request, seconds))
        headers, operation = self._waiting or ((), None)  # the NOTIFY tells what waits to be told
        self._waiting = None
        self._send(now, headers, operation)

    def transaction_failed(self, now: float, transaction: ServerTransaction, error: RealTimeException | None) -> None:
        """Nobody decided in time (500 was sent), or the connection was lost before."""
        if transaction is self._transaction:
            self._transaction = None
            self.state = "terminated"
            self.dialog.remove(self)
            self._tell(SubscriptionEnded("lost", None, error))

    def flow_lost(self, now: float, flow: Flow) -> None:
        """The next NOTIFY finds another one."""

    # ------------------------------------------------------------------ NOTIFY

    def _send(self, now: float, headers: Pairs, operation: Any) -> None:
        left = 0 if self._end is None else max(0, round(self._end.deadline - now))
        self._notify(now, f"{self.state};expires={left}", headers, operation)
        if self.minimum_interval > 0:
            self.engine.timers.cancel(self._throttle)
            self._throttle = self.engine.timers.start(now, self.minimum_interval, self._may_notify)

    def _may_notify(self) -> None:
        self._throttle = None
        if self._waiting is not None:
            (headers, operation), self._waiting = self._waiting, None
            self._send(self.engine.now, headers, operation)

    def _finish(self, now: float, reason: str | None, retry_after: int | None, operation: Any) -> None:
        self._stop()
        self.state = "terminated"
        value = "terminated" + (f";reason={reason}" if reason else "")
        if retry_after is not None:
            value += f";retry-after={retry_after}"
        self._notify(now, value, (), operation)

    def _notify(self, now: float, state: str, headers: Pairs, operation: Any) -> None:
        pairs = [("Event", self._event), ("Subscription-State", state), *headers]
        request = self.dialog.create_request("NOTIFY", pairs, self._content)
        self._operations[self.dialog.send(now, request, self)] = operation

    def responded(self, now: float, client_request: ClientRequest, response: Response) -> None:
        code = response.status_code
        if code < 200:
            return
        self.dialog.use_flow(client_request.flow)
        self._complete(self._operations.pop(client_request, None), response, None)
        # RFC 6665 4.2.2: with Retry-After it has not failed for good, unless the subscriber knows nothing of it.
        if code == 481 or (code >= 300 and code != 491 and response.headers.get("Retry-After") is None):
            self._gone(SubscriptionEnded("gone", response, None))
        else:
            self._leave()

    def failed(self, now: float, client_request: ClientRequest, error: RealTimeException) -> None:
        self._complete(self._operations.pop(client_request, None), None, error)
        self._gone(SubscriptionEnded("lost", None, fresh(error)))

    def _gone(self, event: SubscriptionEnded) -> None:
        if self.state != "terminated":
            self.state = "terminated"
            self._stop()
            self._tell(event)
        self._leave()

    def _leave(self) -> None:
        if self.state == "terminated" and not self._operations:
            self.dialog.remove(self)

    # ------------------------------------------------------------------ time

    def _run(self, now: float, seconds: int) -> None:
        self.engine.timers.cancel(self._end)
        self._end = self.engine.timers.start(now, float(seconds), self._ran_out)

    def _ran_out(self) -> None:
        self._end = None
        self._finish(self.engine.now, "timeout", None, None)
        self._tell(SubscriptionEnded("timeout", None, None))

    def _stop(self) -> None:
        timers = self.engine.timers
        timers.cancel(self._end)
        timers.cancel(self._throttle)
        self._end = self._throttle = None
        if self._waiting is not None:
            (_, operation), self._waiting = self._waiting, None
            self._complete(operation, None, None)

    # ------------------------------------------------------------------ telling

    def _answer(self, transaction: ServerTransaction, seconds: int, headers: Pairs) -> None:
        contact = self.record.endpoint._contact(transaction.flow, transaction.request.uri)
        pairs = [*record_route(transaction.request), ("Contact", contact), ("Expires", str(seconds)), *headers]
        transaction.respond(transaction.create_response(200, headers=pairs))

    def _tell(self, event: Any) -> None:
        self.engine.effects.append(Tell(self, event))

    def _complete(self, operation: Any, message: Response | None, error: Exception | None) -> None:
        if operation is not None:
            self.engine.effects.append(Complete(operation, message, error))

    def _refused(self, what: str) -> OperationFailureException:
        return OperationFailureException(
            f"The subscription of {self.dialog.remote} to {self._event} cannot be {what}: it is {self.state}.",
            OperationFailureReason.INVALID_SESSION_STATE,
        )


def _asked(request: Request) -> int:
    seconds = expires_of(request)
    return DEFAULT_EXPIRES if seconds is None else min(seconds, 24 * 3600)


def receive_subscribe(engine: Engine, now: float, transaction: ServerTransaction, record: EndpointRecord) -> None:
    """A SUBSCRIBE outside of any dialog: begin a subscription and offer it to the endpoint."""
    request = transaction.request
    event = event_name(request.headers.get("Event"))
    packages = record.endpoint._event_packages()
    refusal: Refusal | None = None
    if not event.package:
        refusal = Refusal(489, [("Allow-Events", ", ".join(packages))] if packages else [])
    elif packages and event.package not in packages:
        refusal = Refusal(489, [("Allow-Events", ", ".join(packages))])
    elif 0 < _asked(request) < SHORTEST:
        refusal = Refusal(423, [("Min-Expires", str(SHORTEST))])
    elif contact_uri(request) is None:
        refusal = Refusal(400)
    elif len(engine.dialogs) >= engine.settings.maximum_dialogs:
        refusal = Refusal(503, [("Retry-After", "5")])
    if refusal is not None:
        transaction.refuse(refusal)
        return
    notifier = Notifier(engine, record, transaction)
    transaction.usage = notifier
    engine.effects.append(Arrived(record, notifier))
