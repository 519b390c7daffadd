"""The notifier: subscriptions of others to what an endpoint has to tell (RFC 6665 4.2)."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, Any

from p2psip.core.dialog import Content, Dialog, Pairs, contact_uri
from p2psip.core.effects import Arrived, Complete, Tell
from p2psip.core.event_headers import allow_events, event_name, expires_of
from p2psip.core.event_headers import retry_after as seconds_to_retry
from p2psip.core.events import SubscriptionEnded, SubscriptionRefreshed
from p2psip.core.sender import Sender
from p2psip.core.session_headers import record_route
from p2psip.core.uas import BUSY, Refusal
from p2psip.core.usage import ClientUsage, never_busy
from p2psip.errors import (
    OperationFailureException,
    OperationFailureReason,
    OperationTimeoutException,
    RealTimeException,
    fresh,
)
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


MAXIMUM_WAITING = 100
"""NOTIFYs of one subscription that wait for the answer to the one before."""


class Notice:
    """One NOTIFY: what it tells, and the operation that waits for its answer.

    Attributes:
        state: ``active`` or ``pending``; or the whole value of Subscription-State of the last one.
        is_last: It ends the subscription.
    """

    __slots__ = ("content", "headers", "is_last", "limit", "operation", "state")

    def __init__(self, state: str, content: Content | None, headers: Pairs, operation: Any, is_last: bool) -> None:
        self.state = state
        self.content = content
        self.headers = headers
        self.operation = operation
        self.is_last = is_last
        self.limit: Timer | None = None


class Notifier(ClientUsage):
    """One subscription of a peer, from its SUBSCRIBE to the last NOTIFY. NOTIFYs are sent one by one, each when the one
    before was answered, so that none overtakes another.

    Attributes:
        state: ``incoming``, ``pending``, ``active`` or ``terminated``.
        sender: Who subscribes.
        expires: Seconds that were asked for; 0 is a query.
        minimum_interval: Seconds between two NOTIFYs; what changes faster is told once, as it is in the end.
    """

    def __init__(self, engine: Engine, record: EndpointRecord, transaction: ServerTransaction) -> None:
        request = transaction.request
        self.engine = engine
        self.record = record
        self.user: Any = None
        self.is_busy = never_busy
        self.request = request
        self.event = event_name(request.headers.get("Event"))
        self.expires = _asked(request)
        self.state = "incoming"
        self.minimum_interval = 0.0
        self.sender = Sender(request, transaction.flow, record)
        self.dialog = Dialog.of_request(engine, record, transaction)
        self.dialog.add(self)
        self._transaction: ServerTransaction | None = transaction
        self._event = request.headers.get("Event") or ""
        self._content: Content | None = None
        self._end: Timer | None = None
        self._expires_at = 0.0
        self._pause: Timer | None = None  # until the next one may be sent
        self._farewell: Timer | None = None
        self._waiting: collections.deque[Notice] = collections.deque()
        self._sent: tuple[ClientRequest, Notice] | None = None

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
        self._tell_state(now)

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
        self, now: float, content: Content | None, headers: Pairs, operation: Any, timeout: float | None = None
    ) -> None:
        """Tell the state; a pending subscription becomes active. The operation ends with the answer; with none when a
        later state has overtaken this one, which only occurs with a minimum interval; or when the time is over."""
        if self.state not in ("active", "pending"):
            self._complete(operation, None, self._refused("notified"))
            return
        self.state = "active"
        self._content = content
        if self.minimum_interval > 0:
            self._overtake()
        elif len(self._waiting) >= MAXIMUM_WAITING:
            self._complete(operation, None, self._throttled())
            return
        notice = Notice("active", content, headers, operation, False)
        seconds = self.engine.settings.request_ceiling if timeout is None else timeout
        if operation is not None:
            notice.limit = self.engine.timers.start(now, seconds, self._out_of_time, notice, seconds)
        self._waiting.append(notice)
        self._go_on(now)

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
        sent, self._sent = self._sent, None
        if sent is not None:
            self._end_notice(sent[1], None, fresh(error))
        self._stop()
        self._drop(error)
        self._leave()

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
        if seconds > 0 and self.is_busy(transaction.flow):
            transaction.refuse(BUSY)
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
        self.engine.timers.cancel(self._pause)
        self._pause = None
        if self._waiting:  # which tells it (RFC 6665 4.2.1.2)
            self._go_on(now)
        else:
            self._tell_state(now)

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

    def _tell_state(self, now: float) -> None:
        """The state as it is, of which the application knows already."""
        self._waiting.append(Notice(self.state, self._content, (), None, False))
        self._go_on(now)

    def _overtake(self) -> None:
        """A later state is told in place of those that wait."""
        waiting, self._waiting = self._waiting, collections.deque()
        for notice in waiting:
            self._end_notice(notice, None, None)

    def _finish(self, now: float, reason: str | None, retry_after: int | None, operation: Any) -> None:
        """The last NOTIFY, after those that wait, but not much later."""
        if self.minimum_interval > 0:
            self._overtake()
        self._stop()
        self.state = "terminated"
        value = "terminated" + (f";reason={reason}" if reason else "")
        if retry_after is not None:
            value += f";retry-after={retry_after}"
        self._farewell = self.engine.timers.start(now, 64 * self.engine.settings.t1, self._give_up)
        self._waiting.append(Notice(value, self._content, (), operation, True))
        self._go_on(now)

    def _go_on(self, now: float) -> None:
        """Send the next one, if it is time."""
        if self._sent is not None or self._pause is not None or not self._waiting:
            return
        notice = self._waiting.popleft()
        left = max(0, round(self._expires_at - now))
        value = notice.state if notice.is_last else f"{notice.state};expires={left}"
        pairs = [("Event", self._event), ("Subscription-State", value), *notice.headers]
        request = self.dialog.create_request("NOTIFY", pairs, notice.content)
        self._sent = (self.dialog.send(now, request, self), notice)
        if self.minimum_interval > 0 and not notice.is_last:
            self._pause_for(now, self.minimum_interval)

    def _pause_for(self, now: float, seconds: float) -> None:
        self.engine.timers.cancel(self._pause)
        self._pause = self.engine.timers.start(now, seconds, self._may_notify)

    def _may_notify(self) -> None:
        self._pause = None
        self._go_on(self.engine.now)

    def responded(self, now: float, client_request: ClientRequest, response: Response) -> None:
        code = response.status_code
        notice = self._answered(client_request) if code >= 200 else None
        if notice is None:
            return
        self.dialog.use_flow(client_request.flow)
        self._end_notice(notice, response, None)
        # RFC 6665 4.2.2: with Retry-After it has not failed for good, unless the subscriber knows nothing of it.
        seconds = seconds_to_retry(response) if code >= 300 else None
        if code == 481 or (code >= 300 and code != 491 and response.headers.get("Retry-After") is None):
            self._gone(SubscriptionEnded("gone", response, None), self._refused("notified"))
        else:
            if seconds is not None and self.state != "terminated":
                self._pause_for(now, seconds)
            self._go_on(now)
            self._leave()

    def failed(self, now: float, client_request: ClientRequest, error: RealTimeException) -> None:
        notice = self._answered(client_request)
        if notice is not None:
            self._end_notice(notice, None, error)
            self._gone(SubscriptionEnded("lost", None, fresh(error)), error)

    def _answered(self, client_request: ClientRequest) -> Notice | None:
        if self._sent is None or self._sent[0] is not client_request:
            return None
        (_, notice), self._sent = self._sent, None
        return notice

    def _gone(self, event: SubscriptionEnded, error: RealTimeException) -> None:
        """There is nobody any more who could be told."""
        if self.state != "terminated":
            self.state = "terminated"
            self._tell(event)
        self._stop()
        self._drop(error)
        self._leave()

    def _give_up(self) -> None:
        """The last word could not be said in time."""
        self._farewell = None
        sent, self._sent = self._sent, None
        if sent is not None:
            self.engine.cancel_request(self.engine.now, sent[0])
            self._waiting.appendleft(sent[1])
        seconds = 64 * self.engine.settings.t1
        self._drop(OperationTimeoutException(f"{self._who()} was not told of its end within {seconds:g} s."))
        self._leave()

    def _out_of_time(self, notice: Notice, seconds: float) -> None:
        notice.limit = None
        if notice in self._waiting:
            self._waiting.remove(notice)
        error = OperationTimeoutException(f"The NOTIFY for {self._who()} was not answered within {seconds:g} s.")
        self._end_notice(notice, None, error)

    def _drop(self, error: RealTimeException) -> None:
        """Send none of those that wait."""
        waiting, self._waiting = self._waiting, collections.deque()
        for notice in waiting:
            self._end_notice(notice, None, fresh(error))

    def _end_notice(self, notice: Notice, response: Response | None, error: Exception | None) -> None:
        self.engine.timers.cancel(notice.limit)
        operation, notice.operation = notice.operation, None
        self._complete(operation, response, error)

    def _leave(self) -> None:
        if self.state == "terminated" and self._sent is None and not self._waiting:
            self.engine.timers.cancel(self._farewell)
            self.dialog.remove(self)

    # ------------------------------------------------------------------ time

    def _run(self, now: float, seconds: int) -> None:
        self.engine.timers.cancel(self._end)
        self._expires_at = now + seconds
        self._end = self.engine.timers.start(now, float(seconds), self._ran_out)

    def _ran_out(self) -> None:
        self._end = None
        self._finish(self.engine.now, "timeout", None, None)
        self._tell(SubscriptionEnded("timeout", None, None))

    def _stop(self) -> None:
        timers = self.engine.timers
        timers.cancel(self._end)
        timers.cancel(self._pause)
        self._end = self._pause = None

    # ------------------------------------------------------------------ telling

    def _answer(self, transaction: ServerTransaction, seconds: int, headers: Pairs) -> None:
        contact = self.record.endpoint._contact(transaction.flow, transaction.request.uri)
        pairs = [*record_route(transaction.request), ("Contact", contact), ("Expires", str(seconds))]
        pairs += [*allow_events(self.record), *headers]
        transaction.respond(transaction.create_response(200, headers=pairs))

    def _tell(self, event: Any) -> None:
        self.engine.effects.append(Tell(self, event))

    def _complete(self, operation: Any, message: Response | None, error: Exception | None) -> None:
        if operation is not None:
            self.engine.effects.append(Complete(operation, message, error))

    def _who(self) -> str:
        return f"the subscription of {self.dialog.remote} to {self._event}"

    def _refused(self, what: str) -> OperationFailureException:
        return OperationFailureException(
            f"T{self._who()[1:]} cannot be {what}: it is {self.state}.", OperationFailureReason.INVALID_SESSION_STATE
        )

    def _throttled(self) -> OperationFailureException:
        return OperationFailureException(
            f"{MAXIMUM_WAITING} NOTIFYs for {self._who()} wait for their turn; wait for answers before telling more, or "
            "set a minimum interval, with which only the latest state is told.",
            OperationFailureReason.THROTTLED,
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
    if not event.package or (packages and event.package not in packages):
        refusal = Refusal(489, allow_events(record))
    elif 0 < _asked(request) < SHORTEST:
        refusal = Refusal(423, [("Min-Expires", str(SHORTEST))])
    elif contact_uri(request) is None:
        refusal = Refusal(400)
    elif engine.dialogs.are_enough(engine.settings.maximum_dialogs):
        refusal = BUSY
    if refusal is not None:
        transaction.refuse(refusal)
        return
    notifier = Notifier(engine, record, transaction)
    transaction.usage = notifier
    engine.effects.append(Arrived(record, notifier))
