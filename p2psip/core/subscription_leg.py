"""One notifier of a subscription of ours: the usage of the dialog with it (RFC 6665 4.1, RFC 5057)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from p2psip.core.dialog import Content, Dialog, Pairs
from p2psip.core.event_headers import event_name, subscription_state
from p2psip.core.uas import BUSY
from p2psip.core.usage import ClientUsage
from p2psip.errors import RealTimeException
from p2psip.message import Request, Response
from p2psip.timers import Timer

if TYPE_CHECKING:
    from p2psip.core.flow import Flow
    from p2psip.core.request import ClientRequest
    from p2psip.core.subscribe import Subscriber
    from p2psip.core.transaction import ServerTransaction

NO_NOTIFY_FOLLOWS = 204
"""The answer to a SUBSCRIBE that no NOTIFY follows (RFC 5839)."""


class Leg(ClientUsage):
    """One notifier of a subscription.

    Attributes:
        is_notified: It has ever sent a NOTIFY.
        is_under_way: A SUBSCRIBE to it has no final answer yet.
    """

    def __init__(self, subscriber: Subscriber, dialog: Dialog) -> None:
        self.subscriber = subscriber
        self.dialog = dialog
        self.is_notified = False
        self.is_under_way = False
        self.user: Any = None
        self._awaits_notify = True
        self._is_leaving = False
        self._timer_n: Timer | None = None

    def send(
        self, now: float, expires: int, headers: Pairs, content: Content | None, timeout: float | None = None
    ) -> None:
        """Refresh, or end with 0, which is said once."""
        if self._is_leaving:
            return
        self._is_leaving = expires == 0
        self._awaits_notify = True
        if self._is_leaving:
            self._stop()
        pairs = [*self.subscriber.fields(expires), *headers]
        self.is_under_way = True
        self.dialog.send(now, self.dialog.create_request("SUBSCRIBE", pairs, content), self, timeout=timeout)

    def accepted(self, now: float, response: Response) -> None:
        """A 2xx to a SUBSCRIBE: its NOTIFY has come, or has to come within timer N (RFC 6665 4.1.2.2, 4.1.2.4)."""
        engine = self.subscriber.engine
        if self._awaits_notify and not self._is_leaving and response.status_code != NO_NOTIFY_FOLLOWS:
            self._stop()
            self._timer_n = engine.timers.start(now, 64 * engine.settings.t1, self._no_notify)

    def _no_notify(self) -> None:
        self._timer_n = None
        self.subscriber.leg_silent(self.subscriber.engine.now, self)

    def leave(self) -> None:
        """Nothing is expected of that notifier any more."""
        self._stop()
        self.dialog.remove(self)

    def _stop(self) -> None:
        self.subscriber.engine.timers.cancel(self._timer_n)
        self._timer_n = None

    # ------------------------------------------------------------------ what the dialog tells

    def takes(self, request: Request) -> bool:
        return request.method == "NOTIFY" and event_name(request.headers.get("Event")) == self.subscriber.event

    def received(self, now: float, transaction: ServerTransaction) -> None:
        request = transaction.request
        state = subscription_state(request)
        transaction.usage = None
        if state is None:
            transaction.respond(transaction.create_response(400, "Missing Subscription-State"))
            return
        if self.subscriber.is_busy(transaction.flow):  # RFC 6665 4.2.2: the notifier tells it later
            transaction.refuse(BUSY)
            return
        contact = self.dialog.record.endpoint._contact(transaction.flow, request.uri)
        transaction.respond(transaction.create_response(200, headers=[("Contact", contact)]))
        self._stop()
        self.is_notified, self._awaits_notify = True, False
        self.dialog.refresh_target(request)
        self.subscriber.notified(now, self, transaction, state)

    def responded(self, now: float, client_request: ClientRequest, response: Response) -> None:
        code = response.status_code
        if code < 200 or self not in self.dialog.usages:
            return
        self.is_under_way = False
        if code < 300:
            self.dialog.refresh_target(response)
            self.dialog.use_flow(client_request.flow)
            self.accepted(now, response)
            self.subscriber.refreshed(now, response)
        else:
            self.subscriber.leg_failed(now, self, response, None)

    def failed(self, now: float, client_request: ClientRequest, error: RealTimeException) -> None:
        if self in self.dialog.usages:
            self.is_under_way = False
            self.subscriber.leg_failed(now, self, None, error)

    def flow_lost(self, now: float, flow: Flow) -> None:
        """The next refresh finds another one."""

    def abandon(self, now: float, error: RealTimeException) -> None:
        self.subscriber.abandon(now, error)
