"""Subscriptions and threads: handlers that end things or block, many at once in order, the end of what they live in."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from facade_support import BOUND

import p2psip
from p2psip import (
    IncomingSubscription,
    MessageType,
    OperationFailureException,
    SipSubscription,
    SubscriptionSignalingState,
)
from p2psip.testing import CertificateAuthority, EndpointPair, endpoint_pair

AUTHORITY = CertificateAuthority()
TERMINATED = SubscriptionSignalingState.TERMINATED


@pytest.fixture
def pair() -> Iterator[EndpointPair]:
    with endpoint_pair(authority=AUTHORITY) as found:
        found.alice.message_received += lambda sender, args: None
        found.bob.message_received += lambda sender, args: None
        yield found


class Watch:
    """Alice's subscription to Bob's presence, and Bob's side of it."""

    def __init__(self, pair: EndpointPair) -> None:
        self.pair = pair
        self.accepted: concurrent.futures.Future[IncomingSubscription] = concurrent.futures.Future()
        pair.bob.subscription_received += self._accept
        self.subscription = SipSubscription(pair.alice, pair.bob.uri, "presence")

    def _accept(self, sender: object, args: p2psip.SubscriptionReceivedEventArgs) -> None:
        args.subscription.accept(None, "text/plain", "there")
        self.accepted.set_result(args.subscription)

    @property
    def incoming(self) -> IncomingSubscription:
        return self.accepted.result(BOUND)


class Once:
    """A handler that does something the first time, and keeps what came of it."""

    def __init__(self, action: Callable[[Any], object]) -> None:
        self._action = action
        self._claimed = threading.Lock()
        self.outcome: concurrent.futures.Future[object] = concurrent.futures.Future()

    def __call__(self, sender: object, args: object) -> None:
        if self._claimed.acquire(blocking=False):
            try:
                self.outcome.set_result(self._action(sender))
            except BaseException as error:
                self.outcome.set_exception(error)


def nothing_left(pair: EndpointPair) -> None:
    """Neither endpoint keeps anything of it once their loops have come round."""

    def look(endpoint: p2psip.RealTimeEndpoint) -> tuple[int, int]:
        return len(endpoint._sessions), len(endpoint._stack.engine.dialogs)

    deadline = time.monotonic() + BOUND
    for endpoint in (pair.alice, pair.bob):
        left = (1, 1)
        while left != (0, 0) and time.monotonic() < deadline:  # the last NOTIFYs are being answered
            left = endpoint._stack.call("looking", look, endpoint).result(BOUND)
        assert left == (0, 0), endpoint.owner_uri


# ---------------------------------------------------------------------- ending from within

ENDS: dict[str, Callable[[EndpointPair, Any], object]] = {
    "itself": lambda pair, sender: sender.terminate(),
    "its endpoint": lambda pair, sender: sender.endpoint.terminate(),
    "its manager": lambda pair, sender: sender.endpoint.connection_manager.dispose(),
}


@pytest.mark.holds("A23")
@pytest.mark.parametrize("what", ENDS)
@pytest.mark.parametrize("event", ["state_changed", "notification_received"])
def test_a_handler_of_the_subscriber_ends(pair: EndpointPair, event: str, what: str) -> None:
    watch = Watch(pair)
    handler = Once(lambda sender: ENDS[what](pair, sender))
    happens = getattr(watch.subscription, event)
    happens += handler
    operation = watch.subscription.begin_subscribe()
    handler.outcome.result(BOUND)
    assert operation.exception(BOUND) is None or isinstance(operation.exception(), OperationFailureException)
    assert watch.subscription.state is TERMINATED
    watch.subscription.terminate()  # as often as one likes


@pytest.mark.holds("A23")
@pytest.mark.parametrize("what", ENDS)
@pytest.mark.parametrize("event", ["refreshed", "ended"])
def test_a_handler_of_the_notifier_ends(pair: EndpointPair, event: str, what: str) -> None:
    watch = Watch(pair)
    watch.subscription.subscribe()
    handler = Once(lambda sender: ENDS[what](pair, sender))
    happens = getattr(watch.incoming, event)
    happens += handler
    if event == "refreshed":
        watch.subscription.begin_refresh()
    else:
        watch.subscription.begin_terminate()
    handler.outcome.result(BOUND)
    with pytest.raises(p2psip.OperationFailureException):
        watch.incoming.notify("text/plain", "late")


@pytest.mark.holds("A23")
@pytest.mark.parametrize("what", ["the subscription", "the endpoint", "the manager"])
def test_a_handler_that_is_offered_a_subscription_ends(pair: EndpointPair, what: str) -> None:
    ends: dict[str, Callable[[p2psip.SubscriptionReceivedEventArgs], object]] = {
        "the subscription": lambda args: args.subscription.terminate(),
        "the endpoint": lambda args: pair.bob.terminate(),
        "the manager": lambda args: pair.bob.connection_manager.dispose(),
    }
    over = threading.Event()

    def received(sender: object, args: p2psip.SubscriptionReceivedEventArgs) -> None:
        ends[what](args)
        over.set()

    pair.bob.subscription_received += received
    error = SipSubscription(pair.alice, pair.bob.uri, "presence").begin_subscribe().exception(BOUND)
    assert isinstance(error, p2psip.RealTimeException)
    assert over.wait(BOUND)


# ---------------------------------------------------------------------- blocking from within


@pytest.mark.parametrize("event", ["state_changed", "notification_received"])
def test_a_handler_of_the_subscriber_blocks(pair: EndpointPair, event: str) -> None:
    watch = Watch(pair)

    def block(sender: SipSubscription) -> tuple[int, int]:
        message = sender.endpoint.send_message(MessageType.MESSAGE, pair.bob.uri, body="from a handler")
        watch.accepted.result(BOUND)
        return message.response_code, sender.refresh().response_code

    started = threading.Event()
    handler = Once(lambda sender: (started.wait(BOUND), block(sender))[1])
    happens = getattr(watch.subscription, event)
    happens += handler
    watch.subscription.subscribe()
    started.set()
    assert handler.outcome.result(BOUND) == (200, 200)
    watch.subscription.terminate()


@pytest.mark.parametrize("event", ["refreshed", "ended"])
def test_a_handler_of_the_notifier_blocks(pair: EndpointPair, event: str) -> None:
    watch = Watch(pair)
    watch.subscription.subscribe()

    def block(sender: IncomingSubscription) -> int:
        message = pair.bob.send_message(MessageType.MESSAGE, pair.alice.uri, body="from a handler")
        if event == "refreshed":
            sender.notify("text/plain", "news")
        return message.response_code

    handler = Once(block)
    happens = getattr(watch.incoming, event)
    happens += handler
    if event == "refreshed":
        watch.subscription.refresh()
    else:
        watch.subscription.terminate()
    assert handler.outcome.result(BOUND) == 200
    watch.subscription.terminate()


def test_a_handler_that_is_offered_a_subscription_blocks(pair: EndpointPair) -> None:
    """It subscribes back, waits for that, and only then accepts."""
    back: list[int] = []

    def offered(sender: p2psip.RealTimeEndpoint, args: p2psip.SubscriptionReceivedEventArgs) -> None:
        with SipSubscription(sender, pair.alice.uri, "presence") as subscription:
            back.append(subscription.subscribe().response_code)
            args.subscription.accept(None, "text/plain", "there")
            answer = args.subscription.notify("text/plain", "more")
            back.append(0 if answer is None else answer.response_code)

    pair.bob.subscription_received += offered
    pair.alice.subscription_received += lambda sender, args: args.subscription.accept()
    subscription = SipSubscription(pair.alice, pair.bob.uri, "presence")
    with subscription, subscription.notification_received.expect(BOUND, lambda args: args.text_body == "more"):
        subscription.subscribe()
    assert back == [200, 200]


# ---------------------------------------------------------------------- many, and the end of all


def test_fifty_subscriptions_at_once_each_in_order(pair: EndpointPair) -> None:
    incoming: list[IncomingSubscription] = []

    def accept(sender: object, args: p2psip.SubscriptionReceivedEventArgs) -> None:
        args.subscription.accept(None, "text/plain", "0")
        incoming.append(args.subscription)

    pair.bob.subscription_received += accept
    seen: dict[SipSubscription, list[str]] = {}
    subscriptions = [SipSubscription(pair.alice, pair.bob.uri, "presence") for _ in range(50)]
    for subscription in subscriptions:
        seen[subscription] = []
        subscription.notification_received += lambda sender, args: seen[sender].append(args.text_body or "")
    for operation in [subscription.begin_subscribe() for subscription in subscriptions]:
        assert operation.result(BOUND).response_code == 200
    notified = [each.begin_notify("text/plain", str(number)) for number in range(1, 11) for each in incoming]
    for operation in notified:
        assert operation.result(BOUND) is not None
    for ended in [subscription.begin_terminate() for subscription in subscriptions]:
        ended.result(BOUND)
    pair.alice.terminate()
    expected = [str(number) for number in range(11)]
    assert [texts[:11] for texts in seen.values()] == [expected] * 50
    pair.bob.terminate()
    nothing_left(pair)


@pytest.mark.parametrize("who", ["alice", "bob"])
@pytest.mark.parametrize("what", ["endpoint", "manager"])
def test_all_end_while_ten_threads_are_at_work(pair: EndpointPair, who: str, what: str) -> None:
    """Each call that is under way returns or raises a typed error; nobody is left waiting."""
    pair.bob.subscription_received += lambda sender, args: args.subscription.accept(None, "text/plain", "there")
    busy = threading.Barrier(11)

    def work() -> int:
        rounds = 0
        first = True
        while True:
            try:
                with SipSubscription(pair.alice, pair.bob.uri, "presence") as subscription:
                    subscription.subscribe()
                    subscription.refresh()
                    if first:
                        first = False
                        busy.wait(BOUND)
                rounds += 1
            except (p2psip.RealTimeException, p2psip.RealTimeInvalidOperationException):
                return rounds

    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        workers = [pool.submit(work) for _ in range(10)]
        busy.wait(BOUND)
        endpoint = getattr(pair, who)
        endpoint.terminate() if what == "endpoint" else endpoint.connection_manager.dispose()
        concurrent.futures.wait(workers, BOUND)
        assert all(worker.done() for worker in workers)
        for worker in workers:
            assert worker.result() >= 0
