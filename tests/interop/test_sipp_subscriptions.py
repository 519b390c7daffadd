"""SUBSCRIBE and NOTIFY with SIPp at the other end, as the notifier and as the subscriber."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from interop_calls import PATIENCE, answering
from interop_link import Link, link
from interop_script import Script, callee

from p2psip import IncomingSubscription, SipSubscription, SubscriptionReceivedEventArgs, TraceEventArgs
from p2psip import SubscriptionSignalingState as S

pytestmark = pytest.mark.interop

BOTH = pytest.mark.parametrize("kind", ("TCP", "TLSv1.3"))
EVENT = "Event: presence"
TEXT = "Content-Type: text/plain\n      Content-Length: [len]\n\n      {}"


class OnceAnswered:
    """Accepts subscriptions, and goes on with each when its first NOTIFY is answered: SIPp takes one at a time."""

    def __init__(self, wire: Link, then: Callable[[IncomingSubscription], object]) -> None:
        self._then = then
        self._subscriptions: dict[str, IncomingSubscription] = {}
        wire.manager.trace += self._traced
        wire.endpoint.subscription_received += self._subscribed

    def _subscribed(self, sender: object, args: SubscriptionReceivedEventArgs) -> None:
        call_id = args.request_data.header("Call-ID")
        assert call_id is not None
        self._subscriptions[call_id] = args.subscription
        args.subscription.accept(content_type="text/plain", body="open")

    def _traced(self, sender: object, args: TraceEventArgs) -> None:
        if args.direction == "received" and args.data.startswith(b"SIP/2.0 200 ") and b"CSeq: 1 NOTIFY" in args.data:
            match = re.search(rb"Call-ID: (\S+)", args.data)
            assert match is not None
            self._then(self._subscriptions[match[1].decode()])


@BOTH
def test_sipp_is_the_notifier(tmp_path: Path, kind: str) -> None:
    active = (EVENT, "Subscription-State: active;expires=3600")
    script = callee("notifier", "SUBSCRIBE").answers_first(200, "Expires: 3600")
    script.request("NOTIFY", *active, body=TEXT.format("open")).wants(200)
    script.receives("SUBSCRIBE", contains=("Expires", "3600")).answers(200, "Expires: 3600")
    script.request("NOTIFY", *active, body=TEXT.format("closed")).wants(200)
    script.receives("SUBSCRIBE", contains=("Expires", "0")).answers(200, "Expires: 0")
    script.request("NOTIFY", EVENT, "Subscription-State: terminated;reason=timeout").wants(200)
    with link(tmp_path, kind) as wire:
        server = answering(wire, script, calls=5)
        for _ in range(5):
            subscription = SipSubscription(wire.endpoint, "sip:sipp@{}:{}".format(*server.context), "presence")
            with subscription.notification_received.expect(timeout=PATIENCE) as first:
                subscription.subscribe()
            assert (first.args.text_body or "").strip() == "open"
            with subscription.notification_received.expect(timeout=PATIENCE) as second:
                subscription.refresh()
            assert (second.args.text_body or "").strip() == "closed"
            subscription.terminate()
        server.sipp.check()


@BOTH
def test_sipp_ends_the_subscription(tmp_path: Path, kind: str) -> None:
    script = callee("notifier_ends", "SUBSCRIBE").answers_first(200, "Expires: 3600")
    script.request("NOTIFY", EVENT, "Subscription-State: terminated;reason=noresource").wants(200)
    with link(tmp_path, kind) as wire:
        server = answering(wire, script, calls=5)
        for _ in range(5):
            subscription = SipSubscription(wire.endpoint, "sip:sipp@{}:{}".format(*server.context), "presence")
            with (
                subscription.state_changed.expect(PATIENCE, lambda args: args.state is S.TERMINATED),
                subscription.notification_received.expect(PATIENCE) as got,
            ):
                subscription.subscribe()
            assert (got.args.subscription_state, got.args.reason) == ("terminated", "noresource")
            assert not subscription.is_active
        server.sipp.check()


@BOTH
def test_sipp_is_the_subscriber(tmp_path: Path, kind: str) -> None:
    script = Script("subscriber").request("SUBSCRIBE", EVENT, "Expires: 600").wants(200, contains=("Expires", "600"))
    script.receives("NOTIFY", contains=("Subscription-State", "active")).answers(200)
    script.receives("NOTIFY", contains=("", "closed")).answers(200)
    script.request("SUBSCRIBE", EVENT, "Expires: 0").wants(200, contains=("Expires", "0"))
    script.receives("NOTIFY", contains=("Subscription-State", "terminated")).answers(200)
    count = 20
    with link(tmp_path, kind) as wire:
        ended: list[str] = []
        news = threading.Condition()

        def over(sender: object, args: object) -> None:
            with news:
                ended.append(args.why)  # type: ignore[attr-defined]
                news.notify_all()

        def tell(subscription: IncomingSubscription) -> None:
            subscription.ended += over
            subscription.begin_notify("text/plain", "closed")

        OnceAnswered(wire, tell)
        wire.client("", script, calls=count).check()
        with news:
            assert news.wait_for(lambda: len(ended) == count, PATIENCE), ended
        assert set(ended) == {"unsubscribed"}
        assert not wire.endpoint._sessions


@BOTH
def test_we_end_the_subscription(tmp_path: Path, kind: str) -> None:
    script = Script("subscriber_ended").request("SUBSCRIBE", EVENT, "Expires: 600").wants(200)
    script.receives("NOTIFY", contains=("Subscription-State", "active")).answers(200)
    script.receives("NOTIFY", contains=("Subscription-State", "terminated;reason=noresource")).answers(200)
    with link(tmp_path, kind) as wire:
        OnceAnswered(wire, lambda subscription: subscription.begin_terminate("noresource"))
        wire.client("", script, calls=20).check()


@pytest.mark.parametrize("code", (403, 489, 603))
def test_subscriptions_that_are_refused(tmp_path: Path, code: int) -> None:
    script = Script("subscriber_refused").request("SUBSCRIBE", EVENT, "Expires: 600").wants(code)
    with link(tmp_path, "TCP") as wire:
        if code != 489:  # which is the answer where nobody takes subscriptions
            wire.endpoint.subscription_received += lambda sender, args: args.subscription.decline(code)
        wire.client("", script, calls=5).check()
