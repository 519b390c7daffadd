"""The event packages that people use, as an application does: their real bodies need no code of the library's."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from facade_support import BOUND

import p2psip
from p2psip import (
    IncomingSubscription,
    OperationFailureException,
    SipPeerToPeerEndpointSettings,
    SipPublication,
    SipSubscription,
    SipTransportType,
    SubscriptionSignalingState,
)
from p2psip.testing import CertificateAuthority, EndpointPair, FakeClock, MemoryNetwork, endpoint_pair

AUTHORITY = CertificateAuthority()
PIDF = """<?xml version="1.0" encoding="UTF-8"?>
<presence xmlns="urn:ietf:params:xml:ns:pidf" entity="pres:bob@bob.example">
  <tuple id="desk"><status><basic>open</basic></status><contact priority="0.8">sip:bob@bob.example</contact></tuple>
  <note xml:lang="de">Zurück um zwölf</note>
</presence>
"""
DIALOG_INFO = """<?xml version="1.0"?>
<dialog-info xmlns="urn:ietf:params:xml:ns:dialog-info" version="0" state="full" entity="sip:bob@bob.example">
  <dialog id="a7" call-id="7@bob" local-tag="1" remote-tag="2" direction="recipient"><state>early</state></dialog>
</dialog-info>
"""
MAILBOX = (
    "Messages-Waiting: yes\r\nMessage-Account: sip:bob@bob.example\r\nVoice-Message: 2/8 (0/2)\r\nFax-Message: 0/1\r\n"
)
S = SubscriptionSignalingState


@pytest.fixture
def pair() -> Iterator[EndpointPair]:
    with endpoint_pair(authority=AUTHORITY) as found:
        yield found


class Told:
    """What Bob is to answer, and all that Alice is told."""

    def __init__(self, pair: EndpointPair, *accept: Any, package: str = "presence", **options: Any) -> None:
        def received(sender: object, args: p2psip.SubscriptionReceivedEventArgs) -> None:
            self.incoming.append(args.subscription)
            args.subscription.accept(*accept, pending=self.pending)

        self.pending = False
        self.incoming: list[IncomingSubscription] = []
        self.states: list[SubscriptionSignalingState] = []
        self.subscription = SipSubscription(pair.alice, pair.bob.uri, package, **options)
        self.subscription.state_changed += lambda sender, args: self.states.append(args.state)
        pair.bob.subscription_received += received


@pytest.mark.parametrize(
    ("package", "content_type", "body"),
    [
        ("presence", "application/pidf+xml", PIDF),
        ("dialog", "application/dialog-info+xml", DIALOG_INFO),
        ("message-summary", "application/simple-message-summary", MAILBOX),
    ],
)
def test_a_package_with_its_body(pair: EndpointPair, package: str, content_type: str, body: str) -> None:
    told = Told(pair, None, content_type, body, package=package, accept=[content_type])
    pair.bob.event_packages = [package]
    with told.subscription:
        with told.subscription.notification_received.expect(BOUND) as first:
            told.subscription.subscribe()
        assert (first.args.content_type, first.args.body) == (content_type, body.encode())
        (incoming,) = told.incoming
        assert incoming.request_data.header("Accept") == content_type
        with told.subscription.notification_received.expect(BOUND) as second:
            incoming.notify(content_type, body.replace("2/8", "3/8").replace("early", "confirmed"))
        assert second.args.subscription_state == "active"
    assert not incoming.is_active
    told.subscription.terminate()  # as often as you like


def test_a_pending_one_is_told_when_it_may_know(pair: EndpointPair) -> None:
    told = Told(pair)
    told.pending = True
    with told.subscription.notification_received.expect(BOUND) as first:
        told.subscription.subscribe()
    assert (first.args.subscription_state, first.args.body) == ("pending", b"")
    (incoming,) = told.incoming
    assert incoming.is_active
    with told.subscription.notification_received.expect(BOUND) as second:
        incoming.notify("application/pidf+xml", PIDF)
    assert (second.args.subscription_state, second.args.text_body) == ("active", PIDF)
    with told.subscription.state_changed.expect(BOUND, lambda args: args.state is S.TERMINATED) as end:
        incoming.terminate("rejected")
    assert (end.args.reason, told.subscription.is_active) == ("rejected", False)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def timed(clock: FakeClock) -> Iterator[EndpointPair]:
    settings = p2psip.ManagerSettings(idle_timeout=100_000.0)  # else a connection may be closed under a refresh
    with (
        MemoryNetwork(clock) as network,
        endpoint_pair(SipTransportType.TCP, network=network, settings=settings) as found,
    ):
        yield found


def test_it_is_refreshed_by_itself_for_a_day(timed: EndpointPair, clock: FakeClock) -> None:
    told = Told(timed, None, "application/pidf+xml", PIDF, headers=[("X-Every", "one")])
    with told.subscription.notification_received.expect(BOUND):
        told.subscription.subscribe()
    (incoming,) = told.incoming
    for _ in range(32):
        incoming.notify("application/pidf+xml", PIDF)  # when it is answered nothing is under way
        with incoming.refreshed.expect(BOUND) as refreshed, told.subscription.notification_received.expect(BOUND):
            clock.advance(2701)
        assert refreshed.args.request_data.header("X-Every") == "one"
    assert incoming.is_active
    with told.subscription.state_changed.expect(BOUND, lambda args: args.state is S.TERMINATED):
        told.subscription.terminate()
    assert told.states == [S.SUBSCRIBING, S.SUBSCRIBED, S.TERMINATING, S.TERMINATED]


def test_the_notifier_ends_what_is_not_refreshed(timed: EndpointPair, clock: FakeClock) -> None:
    told = Told(timed, None, "application/pidf+xml", PIDF)
    with told.subscription.notification_received.expect(BOUND):
        told.subscription.subscribe()
    (incoming,) = told.incoming
    incoming.notify("application/pidf+xml", PIDF)
    with incoming.ended.expect(BOUND) as end:
        told.subscription._stack.call("forget", told.subscription._core._stop_timers).result(BOUND)
        clock.advance(3601)
    assert end.args.why == "timeout"
    with pytest.raises(OperationFailureException):
        incoming.notify("application/pidf+xml", PIDF)


def test_every_message_bears_the_headers_of_its_endpoint(pair: EndpointPair) -> None:
    settings = SipPeerToPeerEndpointSettings(headers=[("X-House", "7")])
    alice = p2psip.SipPeerToPeerEndpoint("sip:anna@alice.example", pair.alice.connection_manager, settings=settings)
    told = Told(pair)
    subscription = SipSubscription(alice, pair.bob.uri, "presence", headers=[("X-Own", "1")])
    subscription.subscribe()
    data = told.incoming[0].request_data
    assert (data.header("X-House"), data.header("X-Own")) == ("7", "1")
    with told.incoming[0].ended.expect(BOUND):
        alice.terminate()


class Compositor:
    """Bob takes PUBLISH: a presence server in a few lines."""

    def __init__(self, pair: EndpointPair) -> None:
        self.tags = itertools.count(1)
        self.requests: list[p2psip.SipRequestData] = []
        self.current: str | None = None
        self.codes: list[int] = []
        pair.bob.allow_method("PUBLISH")
        pair.bob.message_received += self.received

    def received(self, sender: object, args: p2psip.MessageReceivedEventArgs) -> None:
        data = args.request_data
        self.requests.append(data)
        if self.codes:
            args.send_response(self.codes.pop(0), headers=[("Min-Expires", "7200")])
        elif data.header("SIP-If-Match") not in (None, self.current):
            args.send_response(412)
        else:
            self.current = f"tag{next(self.tags)}"
            args.send_response(200, headers=[("SIP-ETag", self.current), ("Expires", data.header("Expires") or "0")])

    @property
    def seen(self) -> list[tuple[str | None, str | None, bool]]:
        return [(r.header("SIP-If-Match"), r.header("Expires"), bool(r.body)) for r in self.requests]


def test_publishing(pair: EndpointPair) -> None:
    bob = Compositor(pair)
    with SipPublication(pair.alice, pair.bob.uri, "presence") as publication:
        with publication.changed.expect(BOUND) as got:
            assert publication.publish("application/pidf+xml", PIDF).response_code == 200
        assert (got.args.is_active, got.args.entity_tag, publication.entity_tag) == (True, "tag1", "tag1")
        assert (bob.requests[0].header("Event"), bob.requests[0].text_body) == ("presence", PIDF)
        publication.publish("application/pidf+xml", PIDF.replace("open", "closed"))
        bob.current = "restarted"
        publication.publish("application/pidf+xml", PIDF)
        with publication.changed.expect(BOUND, lambda args: not args.is_active):
            publication.terminate()
    assert bob.seen == [
        (None, "3600", True),
        ("tag1", "3600", True),
        ("tag2", "3600", True),
        (None, "3600", True),  # 412: published anew
        ("tag3", "0", False),
    ]


def test_a_publication_is_refreshed_and_ends_with_its_endpoint(timed: EndpointPair, clock: FakeClock) -> None:
    bob = Compositor(timed)
    bob.codes = [423]
    publication = SipPublication(timed.alice, timed.bob.uri, "presence")
    publication.publish("application/pidf+xml", PIDF)
    with publication.changed.expect(BOUND, lambda args: args.entity_tag == "tag2"):
        clock.advance(7150)
    timed.alice.terminate()
    assert bob.seen == [
        (None, "3600", True),
        (None, "7200", True),
        ("tag1", "7200", False),
        ("tag2", "0", False),
    ]
    with pytest.raises(OperationFailureException):
        publication.publish("application/pidf+xml", PIDF)


def test_a_publication_that_is_refused_says_why(timed: EndpointPair, clock: FakeClock) -> None:
    bob = Compositor(timed)
    publication = SipPublication(timed.alice, timed.bob.uri, "presence")
    publication.publish("application/pidf+xml", PIDF)
    assert publication in timed.alice._sessions
    bob.current, bob.codes = "another", [412, 403]
    with publication.changed.expect(BOUND, lambda args: not args.is_active) as got:
        clock.advance(3545)
    assert (got.args.is_active, got.args.entity_tag) == (False, None)
    assert "403" in str(got.args.exception)
    timed.alice._stack.call("looking", lambda: None).result(BOUND)
    assert publication not in timed.alice._sessions  # nothing keeps it


def redirect(pair: EndpointPair, method: str) -> None:
    """Bob sends what comes for him to his other desk, as an application cannot."""

    def send_on(now: float, transaction: Any, record: Any) -> None:
        if "desk" in transaction.request.uri:
            transaction.respond(transaction.create_response(200, headers=[("SIP-ETag", "there")]))
        else:
            contact = f"<{pair.bob.uri};desk=2>"
            transaction.respond(transaction.create_response(302, headers=[("Contact", contact)]))

    pair.bob._stack.engine.acceptors[method] = send_on


def test_a_publication_is_redirected(pair: EndpointPair) -> None:
    redirect(pair, "PUBLISH")
    with SipPublication(pair.alice, pair.bob.uri, "presence") as publication:
        assert publication.publish("application/pidf+xml", PIDF).header("SIP-ETag") == "there"
    with pytest.raises(p2psip.PublishSubscribeException) as failure:
        SipPublication(pair.alice, pair.bob.uri, "presence", maximum_redirects=0).publish("text/plain", "x")
    assert failure.value.response_data.header("Contact") == f"<{pair.bob.uri};desk=2>"


def test_redirections_that_are_not_followed(pair: EndpointPair) -> None:
    redirect(pair, "SUBSCRIBE")
    with pytest.raises(p2psip.PublishSubscribeException) as failure:
        SipSubscription(pair.alice, pair.bob.uri, "presence", maximum_redirects=0).subscribe()
    assert failure.value.response_data.response_code == 302
    for kind in (SipSubscription, SipPublication):
        with pytest.raises(ValueError, match="maximum_redirects"):
            kind(pair.alice, pair.bob.uri, "presence", maximum_redirects=-1)
        with pytest.raises(TypeError, match="maximum_redirects"):
            kind(pair.alice, pair.bob.uri, "presence", maximum_redirects=1.5)


def test_a_name_and_a_way_of_its_own(pair: EndpointPair) -> None:
    bob = Compositor(pair)
    told = Told(pair)
    way = ("bob.example", pair.bob.connection_manager.listening_port or 0)
    address = "sip:bob@elsewhere.example"
    pair.bob.connection_manager.default_endpoint = pair.bob
    with pytest.raises(p2psip.TlsFailureException) as failure:
        SipSubscription(
            pair.alice, address, "presence", connection_context=way, tls_target_name="wrong.example"
        ).subscribe()
    assert failure.value.failure_reason is p2psip.TlsFailureReason.INCORRECT_NAME_IN_REMOTE_CERTIFICATE
    with SipSubscription(pair.alice, address, "presence", connection_context=way) as subscription:
        assert subscription.subscribe(timeout=BOUND).response_code == 200
        assert subscription.refresh(timeout=BOUND).response_code == 200
    assert told.incoming[0].request_data.request_uri == address
    named = SipPublication(pair.alice, address, "presence", connection_context=way, tls_target_name="wrong.example")
    with pytest.raises(p2psip.TlsFailureException):
        named.publish("text/plain", "x")
    with SipPublication(pair.alice, address, "presence", connection_context=way) as publication:
        publication.publish("text/plain", "x", timeout=BOUND)
    assert bob.requests[0].request_uri == address


def test_time_outs(pair: EndpointPair) -> None:
    pair.bob.subscription_received += lambda sender, args: None  # who never decides
    pair.bob.allow_method("PUBLISH")

    def delay(sender: object, args: p2psip.MessageReceivedEventArgs) -> None:
        args.disable_automatic_response = True

    pair.bob.message_received += delay
    subscription = SipSubscription(pair.alice, pair.bob.uri, "presence")
    with pytest.raises(p2psip.OperationTimeoutException):
        subscription.subscribe(timeout=0.05)
    assert subscription.state is S.TERMINATED
    with pytest.raises(p2psip.OperationTimeoutException):
        SipPublication(pair.alice, pair.bob.uri, "presence").publish("text/plain", "x", timeout=0.05)
    with pytest.raises(ValueError, match="time-out"):
        subscription.begin_subscribe(timeout=-1)


def test_a_body_and_an_identity_of_its_own(pair: EndpointPair) -> None:
    told = Told(pair, content_type="text/plain", body="only this", local_identity=("sip:desk@alice.example", "Desk"))
    with told.subscription as subscription:
        subscription.subscribe()
        (incoming,) = told.incoming
        data = incoming.request_data
        assert (data.content_type, data.text_body) == ("text/plain", "only this")
        assert incoming.subscriber == "sip:desk@alice.example"
        with incoming.refreshed.expect(BOUND) as refreshed:
            subscription.refresh("text/plain", "all of it")
        assert refreshed.args.request_data.text_body == "all of it"
    bob = Compositor(pair)
    with SipPublication(pair.alice, pair.bob.uri, "presence", local_identity="sip:desk@alice.example") as publication:
        publication.publish("application/pidf+xml", PIDF)
    assert "sip:desk@alice.example" in (bob.requests[0].header("From") or "")


def test_everybody_is_told_the_packages(pair: EndpointPair) -> None:
    Told(pair)
    pair.bob.event_packages = ["presence", "dialog"]
    subscription = SipSubscription(pair.alice, pair.bob.uri, "presence")
    with subscription:
        assert subscription.subscribe().header("Allow-Events") == "presence, dialog"
    options = pair.alice.send_message("OPTIONS", pair.bob.uri)
    assert options.header("Allow-Events") == "presence, dialog"


def test_the_notifier_is_a_context_manager(pair: EndpointPair) -> None:
    told = Told(pair)
    told.subscription.subscribe()
    with told.subscription.state_changed.expect(BOUND, lambda args: args.state is S.TERMINATED), told.incoming[0]:
        assert told.incoming[0].is_active
    assert not told.incoming[0].is_active


@pytest.mark.parametrize("who", ["subscriber", "notifier"])
def test_handlers_that_do_not_keep_up_slow_the_peer_down(who: str) -> None:
    settings = p2psip.ManagerSettings(strand_high_mark=8, strand_low_mark=4)
    with endpoint_pair(SipTransportType.TCP, settings=settings) as pair:
        told = Told(pair)
        told.subscription.subscribe()
        (incoming,) = told.incoming
        release = threading.Event()

        def work() -> Any:
            return (
                incoming.begin_notify("text/plain", "x") if who == "subscriber" else told.subscription.begin_refresh()
            )

        if who == "subscriber":
            slow = pair.alice
            told.subscription.notification_received += lambda sender, args: release.wait(BOUND)
        else:
            slow = pair.bob
            incoming.refreshed += lambda sender, args: release.wait(BOUND)
        stack = slow.connection_manager._stack
        operations: list[Any] = []

        while not stack.call("a look", lambda: bool(stack.pressure._held)).result(BOUND):
            assert len(operations) < 40
            if not operations or operations[-1].done():
                operations.append(work())
        release.set()
        for operation in operations:
            assert operation.result(BOUND).response_code == 200
        told.subscription.terminate()


def test_arguments_of_the_notifier(pair: EndpointPair) -> None:
    with pair.bob.subscription_received.expect(BOUND) as got:
        subscription = SipSubscription(pair.alice, pair.bob.uri, "presence")
        operation = subscription.begin_subscribe()
    incoming = got.args.subscription
    with pytest.raises(ValueError, match="expires"):
        incoming.accept(-1)
    with pytest.raises(TypeError, match="expires"):
        incoming.accept(1.5)
    incoming.accept(120)
    assert operation.result(BOUND).header("Expires") == "120"
    with pytest.raises(ValueError, match="retry_after"):
        incoming.terminate("giveup", retry_after=-1)
    with subscription.state_changed.expect(BOUND, lambda args: args.state is S.WAITING_FOR_RETRY) as waits:
        incoming.terminate("giveup", retry_after=50)
    assert waits.args.reason == "giveup"
    subscription.terminate()
