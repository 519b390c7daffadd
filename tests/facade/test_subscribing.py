"""Subscriptions and publications as applications see them."""

from __future__ import annotations

import concurrent.futures
import gc
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from facade_support import BOUND

import p2psip
from p2psip import (
    FailureResponseException,
    IncomingSubscription,
    OperationFailureException,
    SipPublication,
    SipSubscription,
    SubscriptionSignalingState,
)
from p2psip.testing import CertificateAuthority, EndpointPair, endpoint_pair

AUTHORITY = CertificateAuthority()
PIDF = "<presence xmlns='urn:ietf:params:xml:ns:pidf' entity='pres:bob@bob.example'/>"


@pytest.fixture
def pair() -> Iterator[EndpointPair]:
    with endpoint_pair(authority=AUTHORITY) as found:
        yield found


def accepting(pair: EndpointPair, **options: Any) -> concurrent.futures.Future[IncomingSubscription]:
    taken: concurrent.futures.Future[IncomingSubscription] = concurrent.futures.Future()

    def received(sender: object, args: p2psip.SubscriptionReceivedEventArgs) -> None:
        args.subscription.accept(None, "application/pidf+xml", PIDF, **options)
        taken.set_result(args.subscription)

    pair.bob.subscription_received += received
    return taken


def test_presence_is_watched(pair: EndpointPair) -> None:
    taken = accepting(pair)
    with SipSubscription(pair.alice, pair.bob.uri, "presence", accept=["application/pidf+xml"]) as subscription:
        with subscription.notification_received.expect(BOUND) as got:
            assert subscription.subscribe().response_code == 200
        assert (got.args.text_body, got.args.content_type) == (PIDF, "application/pidf+xml")
        assert subscription.is_active
        assert 0 < round(subscription.time_remaining_to_refresh or 0, 6) <= 2700
        incoming = taken.result(BOUND)
        assert (incoming.event_package, incoming.expires) == ("presence", 3600)
        assert incoming.subscriber.startswith("sip:alice@")
        with subscription.notification_received.expect(BOUND) as got:
            answer = incoming.notify("application/pidf+xml", "<gone/>")
        assert answer is not None
        assert answer.response_code == 200
        assert got.args.text_body == "<gone/>"
        with incoming.refreshed.expect(BOUND):
            subscription.refresh()
        assert subscription in pair.alice._sessions
        assert incoming in pair.bob._sessions
        with incoming.ended.expect(BOUND) as end:
            subscription.terminate()
        assert end.args.why == "unsubscribed"
        assert subscription not in pair.alice._sessions
        assert incoming not in pair.bob._sessions
    assert subscription.state is SubscriptionSignalingState.TERMINATED


def test_the_notifier_ends_it(pair: EndpointPair) -> None:
    taken = accepting(pair)
    subscription = SipSubscription(pair.alice, pair.bob.uri, "presence")
    subscription.subscribe()
    with subscription.state_changed.expect(
        BOUND, lambda args: args.state is SubscriptionSignalingState.TERMINATED
    ) as end:
        taken.result(BOUND).terminate("noresource")
    assert end.args.reason == "noresource"
    with pytest.raises(OperationFailureException):
        taken.result(BOUND).notify("text/plain", "late")


def test_a_query(pair: EndpointPair) -> None:
    accepting(pair)
    query = SipSubscription(pair.alice, pair.bob.uri, "presence", is_query_only=True)
    with query.notification_received.expect(BOUND) as got:
        query.subscribe()
    assert (got.args.subscription_state, got.args.text_body) == ("terminated", PIDF)


def test_a_declined_one(pair: EndpointPair) -> None:
    pair.bob.subscription_received += lambda sender, args: args.subscription.decline(403)
    subscription = SipSubscription(pair.alice, pair.bob.uri, "presence")
    with pytest.raises(FailureResponseException) as failure:
        subscription.subscribe()
    assert failure.value.response_data.response_code == 403
    assert subscription.state is SubscriptionSignalingState.TERMINATED


def test_an_unknown_package_and_nobody_there(pair: EndpointPair) -> None:
    with pytest.raises(FailureResponseException) as failure:
        SipSubscription(pair.alice, pair.bob.uri, "winfo").subscribe()
    assert failure.value.response_data.response_code == 489
    accepting(pair)
    pair.bob.event_packages = ("presence",)
    with pytest.raises(FailureResponseException) as failure:
        SipSubscription(pair.alice, pair.bob.uri, "winfo").subscribe()
    assert failure.value.response_data.header("Allow-Events") == "presence"


def test_a_handler_that_raises_is_answered_500(pair: EndpointPair) -> None:
    def received(sender: object, args: object) -> None:
        raise RuntimeError("broken")

    pair.bob.subscription_received += received
    with pytest.raises(FailureResponseException) as failure:
        SipSubscription(pair.alice, pair.bob.uri, "presence").subscribe()
    assert failure.value.response_data.response_code == 500


@pytest.mark.parametrize("who", ["alice", "bob"])
def test_all_ends_with_the_endpoint(pair: EndpointPair, who: str) -> None:
    taken = accepting(pair)
    subscription = SipSubscription(pair.alice, pair.bob.uri, "presence")
    subscription.subscribe()
    incoming = taken.result(BOUND)
    getattr(pair, who).terminate()
    if who == "alice":
        assert subscription.state is SubscriptionSignalingState.TERMINATED
        with pytest.raises(OperationFailureException):
            subscription.subscribe()
    else:
        assert not incoming.is_active


@pytest.mark.parametrize("how", ["endpoint", "manager"])
def test_nothing_is_left_of_what_was_up(how: str) -> None:
    """Neither threads nor objects, once what they lived in has ended."""
    before = set(threading.enumerate())
    seen: list[weakref.ref[Any]] = []
    with endpoint_pair(authority=AUTHORITY) as pair:
        pair.bob.allow_method("PUBLISH")
        pair.bob.message_received += lambda sender, args: args.send_response(200, headers=[("SIP-ETag", "x")])
        taken = accepting(pair)
        subscription = SipSubscription(pair.alice, pair.bob.uri, "presence")
        subscription.subscribe()
        publication = SipPublication(pair.alice, pair.bob.uri, "presence")
        publication.publish("application/pidf+xml", PIDF)
        incoming = taken.result(BOUND)
        seen += [weakref.ref(each) for each in (subscription, publication, incoming)]
        started = time.monotonic()
        for endpoint in (pair.alice, pair.bob):
            endpoint.terminate() if how == "endpoint" else endpoint.connection_manager.dispose()
        assert time.monotonic() - started < 2 * (pair.alice.connection_manager.settings.dispose_grace + 2)
        assert not incoming.is_active
        with pytest.raises(OperationFailureException):
            incoming.notify("text/plain", "late")
        del subscription, publication, incoming, taken, endpoint, pair
    gc.collect()
    for thread in set(threading.enumerate()) - before:
        thread.join(BOUND)
        assert not thread.is_alive(), thread
    gc.collect()
    assert [each() for each in seen] == [None, None, None]


def test_arguments(pair: EndpointPair) -> None:
    with pytest.raises(ValueError, match="at least one second"):
        SipSubscription(pair.alice, pair.bob.uri, "presence", expires=0)
    with pytest.raises(ValueError, match="event package"):
        SipSubscription(pair.alice, pair.bob.uri, "no package")
    with pytest.raises(ValueError, match="expires"):
        SipPublication(pair.alice, pair.bob.uri, "presence", expires=0)


def test_a_publication_that_nobody_takes(pair: EndpointPair) -> None:
    publication = SipPublication(pair.alice, pair.bob.uri, "presence")
    with pytest.raises(FailureResponseException) as failure:
        publication.publish("application/pidf+xml", PIDF)
    assert failure.value.response_data.response_code == 405
    publication.terminate()
    assert publication.entity_tag is None
