"""The subscriber: SUBSCRIBE, its refreshes, and the NOTIFYs that come (RFC 6665 4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from p2psip.core.dialog import Content, Dialog, Pairs
from p2psip.core.effects import Complete, Tell
from p2psip.core.event_headers import (
    SubscriptionStateValue,
    allow_events,
    event_name,
    expires_of,
    number,
)
from p2psip.core.events import NotificationReceived, SubscriptionStateChanged
from p2psip.core.redirection import MAXIMUM_REDIRECTS
from p2psip.core.subscription_leg import NO_NOTIFY_FOLLOWS, Leg
from p2psip.core.subscription_opening import Opening
from p2psip.core.subscription_retry import IS_GONE, RETRY_DELAY, Retries, delay_after_answer, delay_after_end
from p2psip.core.usage import never_busy
from p2psip.enums import SubscriptionSignalingState
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
    from p2psip.core.transaction import ServerTransaction

REFRESH_AHEAD = 900.0
"""Seconds before its end that a subscription is refreshed, if it is long enough (UCMA's number)."""
MAXIMUM_NOTIFIERS = 32
"""Of one SUBSCRIBE that was forked; the others are told that nobody knows them."""
LONGEST_EXPIRES = 2**32 - 1
"""RFC 3261 20.19."""

S = SubscriptionSignalingState


class Subscriber:
    """One subscription of ours. A fork may give it several notifiers; each has a dialog of its own.

    Attributes:
        state: Subscribed while one notifier is there.
        expires: Seconds that we ask for.
        maximum_redirects: Targets of 3xx answers that are tried for each SUBSCRIBE that begins it.
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
        maximum_redirects: int = MAXIMUM_REDIRECTS,
    ) -> None:
        self.engine = engine
        self.record = record
        self.user = user
        self.is_busy = never_busy
        self.event = event_name(event)
        self.state = S.IDLE
        self.expires = 0 if is_query else expires
        self.is_query = is_query
        self.maximum_redirects = maximum_redirects
        self._event = event
        self._uri, self._to, self._target = uri, to, target
        self._accept = accept
        self._from = local_from or f"<{record.owner}>;tag="
        self._legs: dict[str | None, Leg] = {}
        self._left: set[str | None] = set()  # tags of notifiers that are gone
        self._verdict: tuple[SubscriptionStateValue, Request] | None = None  # of the last one, before the 2xx
        self._operation: Any = None
        self._farewells: list[Any] = []
        self._deadline: float | None = None  # of the operation, where its caller gave one
        self._opening: Opening | None = None
        self._headers: Pairs = ()
        self._content: Content | None = None
        self._retries = Retries()
        self._lengthened = 0
        self._refresh: Timer | None = None
        self._end: Timer | None = None  # of what was granted, or of waiting for the last NOTIFY
        self._retry: Timer | None = None

    # ------------------------------------------------------------------ commands

    def subscribe(
        self, now: float, headers: Pairs, content: Content | None, operation: Any, timeout: float | None = None
    ) -> None:
        """Begin; the operation ends with the 2xx."""
        if self.state not in (S.IDLE, S.TERMINATED):
            self._refuse(operation, "begun")
            return
        self._headers, self._content = headers, content
        self._operation, self._deadline = operation, None if timeout is None else now + timeout
        self._retries, self._lengthened = Retries(), 0
        self._begin(now)

    def refresh(
        self, now: float, headers: Pairs, content: Content | None, operation: Any, timeout: float | None = None
    ) -> None:
        """Ask for the same time once more, now; the operation ends with the 2xx."""
        if self.state is not S.SUBSCRIBED or self._is_opening or self._operation is not None:
            self._refuse(operation, "refreshed")
            return
        self._operation, self._deadline = operation, None if timeout is None else now + timeout
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
        self._end_operation(None, self._overtaken())
        self._end = self.engine.timers.start(now, 64 * self.engine.settings.t1, self._no_last_notify)
        for leg in list(self._legs.values()):
            leg.send(now, 0, headers, None)
        if not self._legs and not self._is_opening:
            self._over(now, None, None, None)

    def time_remaining(self, now: float) -> float | None:
        """Seconds to the next refresh; None without one."""
        return None if self._refresh is None else max(0.0, self._refresh.deadline - now)

    def abandon(self, now: float, error: RealTimeException) -> None:
        """The engine has ended."""
        self._end_operation(None, fresh(error))
        self._over(now, None, None, fresh(error))

    # ------------------------------------------------------------------ SUBSCRIBE

    def _begin(self, now: float) -> None:
        engine = self.engine
        self._retry = self._verdict = None
        self._left.clear()
        self._retries.begun(now)
        self._change(S.SUBSCRIBING, None, None, None)
        if engine.dialogs.are_enough(engine.settings.maximum_dialogs):
            error = OperationFailureException(
                f"SUBSCRIBE to {self._uri} was not sent, because {engine.settings.maximum_dialogs} dialogs are "
                "open; end some, or raise the limit in the settings.",
                OperationFailureReason.THROTTLED,
            )
            self._not_begun(now, None, error)
            return
        self._opening = Opening(self, self._uri, self._target)
        self._opening.send(now)

    def create_subscribe(self, uri: str, call_id: str, tag: str, sequence: int) -> Request:
        """The request outside of any dialog."""
        pairs = [
            ("Max-Forwards", "70"),
            ("From", self._from + tag),
            ("To", self._to),
            ("Call-ID", call_id),
            ("CSeq", f"{sequence} SUBSCRIBE"),
            ("User-Agent", self.record.endpoint.user_agent),
            *self.fields(self.expires),
            *self._headers,
        ]
        content = self._content
        if content is not None:
            pairs.append(("Content-Type", content.content_type))
        return Request("SUBSCRIBE", uri, pairs, b"" if content is None else content.body)

    def fields(self, expires: int) -> list[tuple[str, str]]:
        """What each SUBSCRIBE bears."""
        pairs = [("Event", self._event), ("Expires", str(expires))]
        if self._accept:
            pairs.append(("Accept", ", ".join(self._accept)))
        pairs.append(("Allow", ", ".join(dict.fromkeys(["NOTIFY", *self.record.endpoint._allowed_methods()]))))
        pairs += allow_events(self.record)
        return pairs

    def time_left(self, now: float) -> float | None:
        """Seconds that the caller gave, or what is left of them; None: the protocol's own time."""
        return None if self._deadline is None else max(0.0, self._deadline - now)

    @property
    def is_waiting(self) -> bool:
        """Nothing has come of the SUBSCRIBE that begins it."""
        return not self._legs and self.state is S.SUBSCRIBING

    @property
    def _is_opening(self) -> bool:
        return self._opening is not None and self._opening.is_under_way

    def opened(self, now: float, dialog: Dialog, response: Response) -> None:
        """The first 2xx. RFC 6665 4.1.2.4: other notifiers have until timer N to make themselves known."""
        tag = dialog.remote_tag
        leg = self._legs.get(tag)
        if leg is None and tag not in self._left:
            leg = self._add_leg(dialog)
        if self.state is S.TERMINATING:
            if leg is not None:
                leg.send(now, 0, self._headers, None)
            if not self._legs:
                self._over(now, None, response, None)
            return
        self._accepted(now, response)
        if self._verdict is not None and not self._legs:
            self._conclude(now, *self._verdict)
        elif self.is_query and response.status_code == NO_NOTIFY_FOLLOWS:
            self._over(now, None, response, None)
        elif leg is not None:
            leg.accepted(now, response)

    def refused(self, now: float, response: Response) -> None:
        """RFC 6665 4.1.2.1: there is no subscription, whatever NOTIFY may have come."""
        delay = delay_after_answer(response)
        if self.state is S.SUBSCRIBING and delay is not None and not self.is_query:
            self._end_operation(response, None)
            self._again(now, delay, None, response)
        else:
            self._not_begun(now, response, None)

    def not_answered(self, now: float, error: RealTimeException) -> None:
        """There was no way to a notifier, or no answer."""
        if self._deadline is not None and self._legs and isinstance(error, OperationTimeoutException):
            # A notifier is there, but the caller has given up.
            self._end_operation(None, error)
            self.terminate(now, self._headers, None)
        elif not self._legs or self.is_query or self.state is S.SUBSCRIBING:  # then its NOTIFYs were refused
            self._not_begun(now, None, error)
        elif self.state is S.SUBSCRIBED:
            # A NOTIFY has said that it was accepted (RFC 6665 4.1.2.4); a refresh makes up for the answer.
            assert self._opening is not None
            self._opening.expect_no_more()
            if self._end is None:
                self._plan(now, self.expires)
            self._send_refresh(now, self._headers, None)

    def _not_begun(self, now: float, response: Response | None, error: RealTimeException | None) -> None:
        """An attempt of its own that found the peer out of order is made again later; else it is over."""
        is_its_own = self._operation is None and self.state is S.SUBSCRIBING
        delay = self._retries.delay_after_failure(response, error) if is_its_own else None
        if delay is not None:
            self._again(now, delay, None, response, error)
            return
        self._end_operation(response, error)
        self._over(now, None, response, None if error is None else fresh(error))

    def lengthen(self, response: Response) -> bool:
        """423: it has to be longer, which is tried a few times (RFC 6665 4.1.2.1)."""
        least = number(response.headers.get("Min-Expires"))
        if response.status_code != 423 or self.is_query or least is None or self._lengthened >= 3:
            return False
        if not self.expires < least <= LONGEST_EXPIRES:
            return False
        self._lengthened += 1
        self.expires = least
        return True

    def _accepted(self, now: float, response: Response) -> None:
        self._lengthened = 0
        self._retries.succeeded()
        self._end_operation(response, None)
        if self.state is S.SUBSCRIBING:
            self._change(S.SUBSCRIBED, None, response, None)
        granted = expires_of(response)
        self._plan(now, self.expires if granted is None else granted)

    def _plan(self, now: float, granted: int) -> None:
        """Refresh in time, by itself. Nobody can grant more than was asked for (RFC 6665 4.2.1.1)."""
        if self.is_query or self.state is not S.SUBSCRIBED:
            return  # what ends goes on ending, whatever a NOTIFY that crosses it says
        timers = self.engine.timers
        timers.cancel(self._refresh)
        timers.cancel(self._end)
        seconds = max(1, min(granted, self.expires))
        ahead = min(REFRESH_AHEAD, seconds / 2)
        self._refresh = timers.start(now, seconds - ahead, self._refresh_now)
        self._end = timers.start(now, float(seconds), self._ran_out)

    def _refresh_now(self) -> None:
        self._refresh = None
        is_under_way = any(leg.is_under_way for leg in self._legs.values())
        if self.state is S.SUBSCRIBED and not is_under_way:  # whose answer says when the next one is due
            self._send_refresh(self.engine.now, self._headers, None)

    def _send_refresh(self, now: float, headers: Pairs, content: Content | None) -> None:
        for leg in list(self._legs.values()):
            leg.send(now, self.expires, headers, content, self.time_left(now))

    def _ran_out(self) -> None:
        """No refresh got through in all the time."""
        self._again(self.engine.now, 0.0, None, None)

    # ------------------------------------------------------------------ NOTIFY

    def takes_in(self, request: Request) -> bool:
        """It is the NOTIFY of one more notifier."""
        is_ours = request.method == "NOTIFY" and event_name(request.headers.get("Event")) == self.event
        is_new = request.from_tag not in self._left
        return is_ours and is_new and len(self._legs) + len(self._left) < MAXIMUM_NOTIFIERS

    def found(self, now: float, dialog: Dialog, transaction: ServerTransaction) -> None:
        """One more notifier has sent its first NOTIFY."""
        leg = self._add_leg(dialog)
        leg.received(now, transaction)
        if self.state is S.TERMINATING and leg in self._legs.values():
            leg.send(now, 0, self._headers, None)

    def _add_leg(self, dialog: Dialog) -> Leg:
        leg = self._legs[dialog.remote_tag] = Leg(self, dialog)
        dialog.add(leg)
        return leg

    def notified(self, now: float, leg: Leg, transaction: ServerTransaction, state: SubscriptionStateValue) -> None:
        """A NOTIFY was answered 200."""
        request = transaction.request
        if self.state is S.SUBSCRIBING:
            self._change(S.SUBSCRIBED, None, request, None)
        tag = leg.dialog.remote_tag
        self.engine.effects.append(
            Tell(self, NotificationReceived(request, state.state, state.reason, state.expires, tag))
        )
        if state.state == "terminated" or self.is_query:  # a query has one NOTIFY, whatever that says
            self._leg_over(now, leg, state, request)
        elif state.expires is not None:
            self._plan(now, state.expires)

    def _leg_over(self, now: float, leg: Leg, state: SubscriptionStateValue, request: Request) -> None:
        self.remove_leg(leg)
        if self._legs:
            return
        if self._is_opening:
            self._verdict = (state, request)  # the answer to the SUBSCRIBE is still to come
        else:
            self._conclude(now, state, request)

    def _conclude(self, now: float, state: SubscriptionStateValue, request: Request) -> None:
        """The last notifier has ended it: RFC 6665 4.1.3 says what is next."""
        delay = delay_after_end(state)
        if self.state is S.TERMINATING or self.is_query or delay is None:
            self._over(now, state.reason, request, None)
        else:
            self._again(now, delay, state.reason, request)

    def remove_leg(self, leg: Leg) -> None:
        """A notifier is gone."""
        tag = leg.dialog.remote_tag
        if self._legs.pop(tag, None) is not None:
            self._left.add(tag)
        leg.leave()

    def refreshed(self, now: float, response: Response) -> None:
        """2xx to a SUBSCRIBE in a dialog."""
        if self.state is S.SUBSCRIBED:
            self._accepted(now, response)

    def leg_failed(self, now: float, leg: Leg, response: Response | None, error: RealTimeException | None) -> None:
        """A refresh, or the end, was refused or got no answer."""
        if self.state is S.TERMINATING:
            self.remove_leg(leg)
            if not self._legs:
                self._over(now, None, response, error)
            return
        if response is not None and self.lengthen(response):
            leg.send(now, self.expires, self._headers, None, self.time_left(now))
            return
        self._end_operation(response, error)
        if response is not None and response.status_code in IS_GONE:
            self.remove_leg(leg)
            delay = 0.0 if response.status_code == 481 else delay_after_answer(response)
            if self._legs:
                return
            if delay is None:
                self._over(now, None, response, None)
            else:
                self._again(now, delay, None, response)
        elif self._refresh is None and self._end is not None:
            delay = max(1.0, min(RETRY_DELAY, (self._end.deadline - now) / 4))
            self._refresh = self.engine.timers.start(now, delay, self._refresh_now)

    def leg_silent(self, now: float, leg: Leg) -> None:
        """Timer N: a SUBSCRIBE was accepted, but no NOTIFY came; that notifier is none (RFC 6665 4.1.2.2, 4.1.2.4)."""
        self.remove_leg(leg)
        if self._legs or self.state is S.TERMINATING:
            return
        if leg.is_notified:
            self._again(now, 0.0, None, None)
            return
        seconds = 64 * self.engine.settings.t1
        error = OperationTimeoutException(
            f"The subscription to {self._event} at {self._uri} was accepted, but no NOTIFY came within {seconds:g} s."
        )
        self._over(now, None, None, error)

    # ------------------------------------------------------------------ the end

    def _no_last_notify(self) -> None:
        self._over(self.engine.now, None, None, None)

    def _again(
        self,
        now: float,
        seconds: float,
        reason: str | None,
        message: Request | Response | None,
        error: RealTimeException | None = None,
    ) -> None:
        """A new subscription in place of the one that is gone, after so many seconds."""
        seconds = self._retries.delay(now, seconds)
        self._clear(now)
        if seconds <= 0:
            self._begin(now)
            return
        self._change(S.WAITING_FOR_RETRY, reason, message, error)
        self._retry = self.engine.timers.start(now, seconds, self._try_again)

    def _try_again(self) -> None:
        self._begin(self.engine.now)

    def _over(
        self, now: float, reason: str | None, message: Request | Response | None, error: Exception | None
    ) -> None:
        self._clear(now)
        if self.state is not S.TERMINATED:
            self._change(S.TERMINATED, reason, message, error)
        self._end_operation(None, self._overtaken())
        farewells, self._farewells = self._farewells, []
        for operation in farewells:
            self._complete_one(operation, None, None)

    def _clear(self, now: float) -> None:
        self._stop_timers()
        opening, self._opening = self._opening, None
        if opening is not None:
            opening.stop(now)
        for leg in list(self._legs.values()):
            self.remove_leg(leg)

    def _stop_timers(self) -> None:
        timers = self.engine.timers
        for timer in (self._refresh, self._end, self._retry):
            timers.cancel(timer)
        self._refresh = self._end = self._retry = None

    # ------------------------------------------------------------------ telling

    def _change(
        self, state: S, reason: str | None, message: Request | Response | None, error: Exception | None
    ) -> None:
        previous, self.state = self.state, state
        if previous is not state:
            event = SubscriptionStateChanged(previous, state, reason, message, error)
            self.engine.effects.append(Tell(self, event))

    def _end_operation(self, message: Response | None, error: Exception | None) -> None:
        operation, self._operation = self._operation, None
        self._deadline = None
        self._complete_one(operation, message, error)

    def _complete_one(self, operation: Any, message: Response | None, error: Exception | None) -> None:
        if operation is not None:
            self.engine.effects.append(Complete(operation, message, error))

    def _overtaken(self) -> OperationFailureException:
        return OperationFailureException(
            f"The subscription to {self._event} at {self._uri} ended before this was done.",
            OperationFailureReason.ABORTED,
        )

    def _refuse(self, operation: Any, what: str) -> None:
        why = "it is being refreshed" if self.state is S.SUBSCRIBED else f"it is {self.state.name.lower()}"
        error = OperationFailureException(
            f"The subscription to {self._event} at {self._uri} cannot be {what} now: {why}.",
            OperationFailureReason.INVALID_SESSION_STATE,
        )
        self._complete_one(operation, None, error)
