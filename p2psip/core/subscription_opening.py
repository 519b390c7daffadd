"""The SUBSCRIBE that begins a subscription, until it is answered, and those who may still answer to it by a NOTIFY."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from p2psip.core.dialog import Dialog
from p2psip.core.event_headers import subscription_state
from p2psip.core.redirection import Redirections, is_secure, redirected_target
from p2psip.core.uas import inspect
from p2psip.core.usage import ClientUsage
from p2psip.errors import RealTimeException
from p2psip.message import Request, Response
from p2psip.timers import Timer

if TYPE_CHECKING:
    from p2psip.core.request import ClientRequest
    from p2psip.core.subscribe import Subscriber
    from p2psip.core.transaction import ServerTransaction


class Opening(ClientUsage):
    """One attempt to subscribe: over answers that want it longer or elsewhere, to the final one. Notifiers that nobody
    knows are taken in from the start until timer N (RFC 6665 4.1.2.4)."""

    def __init__(self, subscriber: Subscriber, uri: str, target: Any) -> None:
        engine = subscriber.engine
        self._subscriber = subscriber
        self._redirections = Redirections(subscriber.maximum_redirects)
        self._is_secure = is_secure(uri)
        self._uri, self._target = uri, target
        self._call_id, self._tag = engine.tokens.call_id(), engine.tokens.tag()
        self._sent: Request | None = None
        self._request: ClientRequest | None = None
        self._forks: Timer | None = None
        engine.dialogs.expect(self._call_id, self._tag, self)

    @property
    def is_under_way(self) -> bool:
        """The final answer is still to come."""
        return self._request is not None

    def send(self, now: float) -> None:
        """Send it; again with the next number, and else the same (RFC 3261 8.1.3.4, 8.1.3.5)."""
        subscriber = self._subscriber
        self._redirections.trying(self._uri)
        sequence = 1 if self._sent is None else self._sent.cseq.number + 1
        self._sent = subscriber.create_subscribe(self._uri, self._call_id, self._tag, sequence)
        self._request = subscriber.engine.send_request(
            now,
            self._sent,
            self._target,
            None,
            timeout=subscriber.time_left(now),
            usage=self,
            record=subscriber.record,
            bears_contact=True,
        )

    def stop(self, now: float) -> None:
        """Expect no answer and no notifier any more."""
        self.expect_no_more()
        request, self._request = self._request, None
        if request is not None:
            self._subscriber.engine.cancel_request(now, request)

    def expect_no_more(self) -> None:
        """Whoever has not sent a NOTIFY by now is none of the notifiers."""
        engine = self._subscriber.engine
        engine.timers.cancel(self._forks)
        self._forks = None
        engine.dialogs.expect_no_more(self._call_id, self._tag)

    # ------------------------------------------------------------------ answers

    def responded(self, now: float, client_request: ClientRequest, response: Response) -> None:
        code = response.status_code
        if code < 200 or client_request is not self._request:
            return
        subscriber = self._subscriber
        self._request, self._sent = None, client_request.request
        if code < 300:
            engine = subscriber.engine
            self._forks = engine.timers.start(now, 64 * engine.settings.t1, self.expect_no_more)
            dialog = Dialog.of_response(
                engine, subscriber.record, self._sent, response, client_request.flow, self._is_secure
            )
            subscriber.opened(now, dialog, response)
        elif subscriber.is_waiting and subscriber.lengthen(response):
            self.send(now)
        elif subscriber.is_waiting and self._redirections.learn(response):
            self._follow(now)
        else:
            subscriber.refused(now, response)

    def failed(self, now: float, client_request: ClientRequest, error: RealTimeException) -> None:
        if client_request is not self._request:
            return
        self._request, self._sent = None, client_request.request
        subscriber = self._subscriber
        if subscriber.is_waiting and self._redirections.survive(error):
            self._follow(now)
        else:
            subscriber.not_answered(now, error)

    def _follow(self, now: float) -> None:
        self._uri = self._redirections.remaining[0]
        self._target = redirected_target(self._subscriber.record, self._uri, self._is_secure)
        self.send(now)

    # ------------------------------------------------------------------ notifiers

    def received(self, now: float, transaction: ServerTransaction) -> None:
        """A NOTIFY of a dialog that is not known: before the 2xx, or of another fork (RFC 6665 4.1.2.4)."""
        request, subscriber = transaction.request, self._subscriber
        transaction.usage = None
        if not subscriber.takes_in(request):
            transaction.respond(transaction.create_response(481))
            return
        demand = subscriber.record.demand
        refusal = None if demand is None else demand.refusal(now, transaction, subscriber.engine.tokens)
        refusal = refusal or inspect(request, subscriber.record)
        if refusal is not None:
            transaction.refuse(refusal)
        elif subscription_state(request) is None:
            transaction.respond(transaction.create_response(400, "Missing Subscription-State"))
        else:
            assert self._sent is not None
            sent = self._sent if self._request is None else self._request.request
            dialog = Dialog.of_notify(subscriber.engine, subscriber.record, sent, transaction, self._is_secure)
            subscriber.found(now, dialog, transaction)
