"""The subscriber: SUBSCRIBE, its refreshes, and the NOTIFYs that come (RFC 6665 4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from p2psip.core.dialog import Content, Dialog, Pairs
from p2psip.core.effects import Complete, Tell
from p2psip.core.event_headers import (
    SubscriptionStateValue,
    event_name,
    expires_of,
    number,
    retry_after,
    subscription_state,
)
from p2psip.core.events import NotificationReceived, SubscriptionState, SubscriptionStateChanged
from p2psip.core.usage import ClientUsage
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

REFRESH_AHEAD = 900.0
"""Seconds before its end that a subscription is refreshed, if it is long enough (UCMA's number)."""
RETRY_DELAY = 30.0
"""Seconds after ``probation`` or ``giveup`` without Retry-After."""
AT_ONCE = frozenset(("deactivated", "timeout"))
LATER = frozenset(("probation", "giveup"))

S = SubscriptionState


class Subscriber(ClientUsage):
    """One subscription of ours. A fork may give it several notifiers; each has a dialog of its own.

    Attributes:
        state: Subscribed while one notifier is there.
        expires: Seconds that we ask for.
    """

    def __init__(
        self,
        engine: Engine,
        record: EndpointRecord,
        user: Any,
        *,
        event: str,
        uri: str,
        to: str,
        target: Any,
        expires: int = 3600,
        is_query: bool = False,
        accept: Sequence[str] = (),
        local_from: str | None = None,
    ) -> None:
        self.engine = engine
        self.record = record
        self.user = user
        self.event = event_name(event)
        self.state = S.IDLE
        self.expires = 0 if is_query else expires
        self.is_query = is_query
        self._event = event
        self._uri, self._to, self._target = uri, to, target
        self._accept = accept
        self._from = local_from or f"<{record.owner}>;tag="
        self._legs: dict[str | None, Leg] = {}
        self._operation: Any = None
        self._farewells: list[Any] = []
        self._request: ClientRequest | None = None
        self._subscribe: Request | None = None
        self._headers: Pairs = ()
        self._content: Content | None = None
        self._timer_n: Timer | None = None
        self._refresh: Timer | None = None
        self._end: Timer | None = None
        self._retry: Timer | None = None

    # ------------------------------------------------------------------ commands

    def subscribe(self, now: float, headers: Pairs, content: Content | None, operation: Any) -> None:
        """Begin; the operation ends with the 2xx."""
        if self.state not in (S.IDLE, S.TERMINATED):
            self._refuse(operation, "begun")
            return
        self._headers, self._content = headers, content
        self._operation = operation
        self._begin(now)

    def refresh(self, now: float, headers: Pairs, content: Content | None, operation: Any) -> None:
        """Ask for the same time once more, now; the operation ends with the 2xx."""
        if self.state is not S.SUBSCRIBED or self._request is not None:
            self._refuse(operation, "refreshed")
            return
        self._operation = operation
        self._send_refresh(now, headers, content)

    def terminate(self, now: float, headers: Pairs, operation: Any) -> None:
        """End it; the operation ends when the last NOTIFY has come, or cannot come any more."""
        if self.state in (S.IDLE, S.TERMINATED, S.WAITING_FOR_RETRY):
            self._over(now, None, None, None)
            self._complete_one(operation, None, None)
            return
        self._farewells.append(operation)
        if self.state is S.TERMINATING:
            return
        self._stop_timers()
        self._change(S.TERMINATING, None, None, None)
        self._fail_operation(self._overtaken())
        self._timer_n = self.engine.timers.start(now, 64 * self.engine.settings.t1, self._no_last_notify)
        for leg in list(self._legs.values()):
            leg.send(now, 0, headers, None)
        if not self._legs and self._request is None:
            self._over(now, None, None, None)

    def time_remaining(self, now: float) -> float | None:
        """Seconds to the next refresh; None without one."""
        return None if self._refresh is None else max(0.0, self._refresh.deadline - now)

    def abandon(self, now: float, error: RealTimeException) -> None:
        """The engine has ended."""
        self._fail_operation(fresh(error))
        self._over(now, None, None, fresh(error))

    # ------------------------------------------------------------------ SUBSCRIBE

    def _begin(self, now: float) -> None:
        engine = self.engine
        self._retry = None
        self._change(S.SUBSCRIBING, None, None, None)
        call_id, tag = engine.tokens.call_id(), engine.tokens.tag()
        pairs = [
            ("Max-Forwards", "70"),
            ("From", self._from + tag),
            ("To", self._to),
            ("Call-ID", call_id),
            ("CSeq", "1 SUBSCRIBE"),
            ("User-Agent", self.record.endpoint.user_agent),
            *self._fields(self.expires),
            *self._headers,
        ]
        content = self._content
        if content is not None:
            pairs.append(("Content-Type", content.content_type))
        self._subscribe = Request("SUBSCRIBE", self._uri, pairs, b"" if content is None else content.body)
        engine.dialogs.expect(call_id, tag, self)
        self._request = engine.send_request(
            now, self._subscribe, self._target, None, usage=self, contact_of=self.record
        )

    def _fields(self, expires: int) -> list[tuple[str, str]]:
        pairs = [("Event", self._event), ("Expires", str(expires)), ("Supported", "eventlist")][:2]
        if self._accept:
            pairs.append(("Accept", ", ".join(self._accept)))
        pairs.append(("Allow", ", ".join(dict.fromkeys(["NOTIFY", *self.record.endpoint._allowed_methods()]))))
        return pairs

    def responded(self, now: float, client_request: ClientRequest, response: Response) -> None:
        code = response.status_code
        if code < 200 or client_request is not self._request:
            return
        self._request = None
        if code < 300:
            tag = response.to_tag
            leg = self._legs.get(tag)
            if leg is None and self.state is not S.TERMINATED:
                leg = self._add_leg(
                    Dialog.of_response(self.engine, self.record, client_request.request, response, client_request.flow)
                )
            self._accepted(now, response)
            if self.state is S.TERMINATING and leg is not None:
                leg.send(now, 0, self._headers, None)
            elif leg is not None and not leg.is_notified:
                # RFC 6665 4.1.2.4, timer N: a notifier that never notifies is none.
                self._timer_n = self.engine.timers.start(now, 64 * self.engine.settings.t1, self._no_notify)
        elif code == 423 and (least := number(response.headers.get("Min-Expires"))) and least > self.expires:
            self.expires = least
            if self.state is S.SUBSCRIBING:
                self._forget_expected()
                self._begin(now)
        elif not self._legs:
            self._complete_operation(response, None)
            wait = retry_after(response)
            if wait is not None and not self.is_query and self.state is S.SUBSCRIBING and code in (480, 503, 500):
                self._wait(now, float(wait), None, response)
            else:
                self._over(now, None, response, None)

    def _accepted(self, now: float, response: Response) -> None:
        self._complete_operation(response, None)
        if self.state is S.SUBSCRIBING:
            self._change(S.SUBSCRIBED, None, response, None)
        granted = expires_of(response)
        self._plan(now, self.expires if granted is None else granted)

    def _plan(self, now: float, seconds: int) -> None:
        """Refresh in time, by itself."""
        timers = self.engine.timers
        timers.cancel(self._refresh)
        timers.cancel(self._end)
        self._refresh = self._end = None
        if self.is_query or self.state is not S.SUBSCRIBED or seconds <= 0:
            return
        ahead = min(REFRESH_AHEAD, seconds / 2)
        self._refresh = timers.start(now, seconds - ahead, self._refresh_now)
        self._end = timers.start(now, float(seconds), self._ran_out)

    def _refresh_now(self) -> None:
        self._refresh = None
        if self.state is S.SUBSCRIBED:
            self._send_refresh(self.engine.now, self._headers, None)

    def _send_refresh(self, now: float, headers: Pairs, content: Content | None) -> None:
        for leg in list(self._legs.values()):
            leg.send(now, self.expires, headers, content)

    def _ran_out(self) -> None:
        """No refresh got through in all the time."""
        self._again(self.engine.now, None, None)

    def failed(self, now: float, client_request: ClientRequest, error: RealTimeException) -> None:
        if client_request is not self._request:
            return
        self._request = None
        if not self._legs:
            self._fail_operation(error)
            self._over(now, None, None, fresh(error))

    # ------------------------------------------------------------------ NOTIFY

    def received(self, now: float, transaction: ServerTransaction) -> None:
        """A NOTIFY of a dialog that is not known: before the 2xx, or of another fork (RFC 6665 4.1.2.4)."""
        request = transaction.request
        transaction.usage = None
        if request.method != "NOTIFY" or event_name(request.headers.get("Event")) != self.event:
            transaction.respond(transaction.create_response(481))
            return
        assert self._subscribe is not None
        leg = self._add_leg(Dialog.of_notify(self.engine, self.record, self._subscribe, transaction))
        leg.received(now, transaction)

    def _add_leg(self, dialog: Dialog) -> Leg:
        leg = self._legs[dialog.remote_tag] = Leg(self, dialog)
        dialog.add(leg)
        return leg

    def notified(self, now: float, leg: Leg, request: Request, state: SubscriptionStateValue) -> None:
        """A NOTIFY was answered 200."""
        self.engine.timers.cancel(self._timer_n if self.state is not S.TERMINATING else None)
        if self.state is S.SUBSCRIBING:
            self._change(S.SUBSCRIBED, None, request, None)
        tag = leg.dialog.remote_tag
        self.engine.effects.append(
            Tell(self, NotificationReceived(request, state.state, state.reason, state.expires, tag))
        )
        if state.state == "terminated":
            self._leg_over(now, leg, state, request)
        elif state.expires is not None:
            self._plan(now, min(state.expires, self.expires or state.expires))

    def _leg_over(self, now: float, leg: Leg, state: SubscriptionStateValue, request: Request) -> None:
        self.remove_leg(leg)
        if self._legs:
            return
        reason = state.reason
        if self.state is S.TERMINATING or self.is_query:
            if self._request is None or self.state is S.TERMINATING:
                self._over(now, reason, request, None)
            else:
                self._change(S.SUBSCRIBED, reason, request, None)
        elif reason in AT_ONCE:
            self._again(now, reason, request)
        elif reason in LATER or (reason is None and state.retry_after is not None):
            self._wait(now, float(state.retry_after or RETRY_DELAY), reason, request)
        else:  # rejected, noresource, invariant, and reasons that nobody knows without Retry-After
            self._over(now, reason, request, None)

    def remove_leg(self, leg: Leg) -> None:
        """A notifier is gone."""
        self._legs.pop(leg.dialog.remote_tag, None)
        leg.dialog.remove(leg)

    def leg_failed(self, now: float, leg: Leg, response: Response | None, error: RealTimeException | None) -> None:
        """A refresh, or the end, was refused or got no answer."""
        if response is not None and response.status_code == 423:
            least = number(response.headers.get("Min-Expires"))
            if least is not None and self.state is S.SUBSCRIBED and least > self.expires:
                self.expires = least
                leg.send(now, least, self._headers, None)
                return
        if self.state is S.TERMINATING:
            self.remove_leg(leg)
            if not self._legs:
                self._over(now, None, response, error)
            return
        if response is not None:
            self._complete_operation(response, None)
        elif error is not None:
            self._fail_operation(error)
        if response is not None and response.status_code == 481:
            self.remove_leg(leg)
            if not self._legs:
                self._again(now, None, response)
        elif self._refresh is None and self._end is not None:
            delay = max(1.0, min(RETRY_DELAY, (self._end.deadline - now) / 4))
            self._refresh = self.engine.timers.start(now, delay, self._refresh_now)

    # ------------------------------------------------------------------ the end

    def _no_notify(self) -> None:
        self._timer_n = None
        now = self.engine.now
        error = OperationTimeoutException(
            f"The subscription to {self._event} at {self._uri} was accepted, but no NOTIFY came within "
            f"{64 * self.engine.settings.t1:g} s."
        )
        if any(leg.is_notified for leg in self._legs.values()):
            return
        self._over(now, None, None, error)

    def _no_last_notify(self) -> None:
        self._timer_n = None
        self._over(self.engine.now, None, None, None)

    def _again(self, now: float, reason: str | None, message: Request | Response | None) -> None:
        """A new subscription in place of the one that is gone."""
        self._clear(now)
        self._begin(now)

    def _wait(self, now: float, seconds: float, reason: str | None, message: Request | Response | None) -> None:
        self._clear(now)
        self._change(S.WAITING_FOR_RETRY, reason, message, None)
        self._retry = self.engine.timers.start(now, seconds, self._try_again)

    def _try_again(self) -> None:
        self._begin(self.engine.now)

    def _over(
        self, now: float, reason: str | None, message: Request | Response | None, error: Exception | None
    ) -> None:
        self._clear(now)
        if self.state is not S.TERMINATED:
            self._change(S.TERMINATED, reason, message, error)
        self._fail_operation(self._overtaken())
        farewells, self._farewells = self._farewells, []
        for operation in farewells:
            self._complete_one(operation, None, None)

    def _clear(self, now: float) -> None:
        self._stop_timers()
        self._forget_expected()
        request, self._request = self._request, None
        if request is not None:
            self.engine.cancel_request(now, request)
        for leg in list(self._legs.values()):
            self.remove_leg(leg)

    def _forget_expected(self) -> None:
        if self._subscribe is not None:
            self.engine.dialogs.expect_no_more(self._subscribe.call_id or "", self._subscribe.from_tag)

    def _stop_timers(self) -> None:
        timers = self.engine.timers
        for timer in (self._timer_n, self._refresh, self._end, self._retry):
            timers.cancel(timer)
        self._timer_n = self._refresh = self._end = self._retry = None

    # ------------------------------------------------------------------ telling

    def _change(
        self, state: SubscriptionState, reason: str | None, message: Request | Response | None, error: Exception | None
    ) -> None:
        previous, self.state = self.state, state
        if previous is not state:
            event = SubscriptionStateChanged(previous, state, reason, message, error)
            self.engine.effects.append(Tell(self, event))

    def complete_refresh(self, now: float, response: Response) -> None:
        """2xx to a SUBSCRIBE in a dialog."""
        if self.state is S.SUBSCRIBED:
            self._accepted(now, response)

    def _complete_operation(self, message: Response, error: Exception | None) -> None:
        operation, self._operation = self._operation, None
        self._complete_one(operation, message, error)

    def _fail_operation(self, error: Exception) -> None:
        operation, self._operation = self._operation, None
        self._complete_one(operation, None, error)

    def _complete_one(self, operation: Any, message: Response | None, error: Exception | None) -> None:
        if operation is not None:
            self.engine.effects.append(Complete(operation, message, error))

    def _overtaken(self) -> OperationFailureException:
        return OperationFailureException(
            f"The subscription to {self._event} at {self._uri} ended before this was done.",
            OperationFailureReason.ABORTED,
        )

    def _refuse(self, operation: Any, what: str) -> None:
        error = OperationFailureException(
            f"The subscription to {self._event} at {self._uri} cannot be {what} now: it is {self.state.name.lower()}.",
            OperationFailureReason.INVALID_SESSION_STATE,
        )
        self._complete_one(operation, None, error)


class Leg(ClientUsage):
    """One notifier of a subscription: the usage of its dialog."""

    def __init__(self, subscriber: Subscriber, dialog: Dialog) -> None:
        self.subscriber = subscriber
        self.dialog = dialog
        self.is_notified = False
        self.user: Any = None

    def send(self, now: float, expires: int, headers: Pairs, content: Content | None) -> None:
        """Refresh, or end with 0."""
        pairs = [*self.subscriber._fields(expires), *headers]
        self.dialog.send(now, self.dialog.create_request("SUBSCRIBE", pairs, content), self)

    def takes(self, request: Request) -> bool:
        return request.method == "NOTIFY" and event_name(request.headers.get("Event")) == self.subscriber.event

    def received(self, now: float, transaction: ServerTransaction) -> None:
        request = transaction.request
        state = subscription_state(request)
        transaction.usage = None
        if state is None:
            transaction.respond(transaction.create_response(400, "Missing Subscription-State"))
            return
        contact = self.dialog.record.endpoint._contact(transaction.flow, request.uri)
        transaction.respond(transaction.create_response(200, headers=[("Contact", contact)]))
        self.is_notified = True
        self.dialog.refresh_target(request)
        self.subscriber.notified(now, self, request, state)

    def responded(self, now: float, client_request: ClientRequest, response: Response) -> None:
        code = response.status_code
        if code < 200:
            return
        if code < 300:
            self.dialog.refresh_target(response)
            self.dialog.use_flow(client_request.flow)
            self.subscriber.complete_refresh(now, response)
        else:
            self.subscriber.leg_failed(now, self, response, None)

    def failed(self, now: float, client_request: ClientRequest, error: RealTimeException) -> None:
        self.subscriber.leg_failed(now, self, None, error)

    def flow_lost(self, now: float, flow: Flow) -> None:
        """The next refresh finds another one."""

    def abandon(self, now: float, error: RealTimeException) -> None:
        self.subscriber.abandon(now, error)
