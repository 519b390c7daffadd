"""Kamailio ends and comes back while we use it: nothing hangs, and what its return makes possible goes on."""

from __future__ import annotations

import collections
import time
from pathlib import Path

import pytest
from interop_calls import AUDIO, end_of
from interop_kamailio import BOTH, REALM, Behind, behind
from interop_support import LOOPBACK, PATIENCE

from p2psip import (
    ConnectionFailureException,
    MessageReceivedEventArgs,
    MessageType,
    Operation,
    OperationTimeoutException,
    RealTimeEndpoint,
    SipResponseData,
    SipSubscription,
)
from p2psip.session import SignalingSession

pytestmark = pytest.mark.interop

BY_BOTH = pytest.mark.parametrize("first", ("caller", "callee"))


def begin_calls(path: Behind, count: int) -> list[tuple[SignalingSession, SignalingSession]]:
    """Calls from Alice to Bob that are up: her end and his."""
    taken = path.bob.takes_calls(lambda session: session.accept(lambda offer: AUDIO))
    callers = [path.alice.call(path.bob) for _ in range(count)]
    for number, session in enumerate(callers):
        session.establish(AUDIO, answer=lambda offer: AUDIO, timeout=PATIENCE)
        taken.wait(number + 1)
    return list(zip(callers, taken.sessions, strict=True))


def check_goes_on(call: tuple[SignalingSession, SignalingSession], first: str) -> None:
    """Both sides can use it yet, that one first."""
    near, far = call if first == "caller" else call[::-1]
    heard: list[str | None] = []
    for session in call:
        session.message_received += lambda sender, args: heard.append(args.text_body)
    near.send_message(MessageType.INFO, "text/plain", "one", timeout=PATIENCE)
    near.renegotiate(AUDIO)
    far.send_message(MessageType.INFO, "text/plain", "two", timeout=PATIENCE)
    assert heard == ["one", "two"]
    ended = end_of(near)
    far.terminate()
    assert ended.wait(PATIENCE)


@BOTH
@BY_BOTH
def test_calls_go_on(tmp_path: Path, kind: str, first: str) -> None:
    """Whichever side speaks first needs a new connection to the route, and the proxy one to the other side."""
    with behind(tmp_path, kind) as path:
        calls = begin_calls(path, 3)
        path.proxy.stop()
        path.proxy.start()
        for call in calls:
            check_goes_on(call, first)


@BY_BOTH
def test_calls_go_on_where_the_proxy_has_another_name(tmp_path: Path, first: str) -> None:
    """``proxy_certificate_subject`` is what its certificate bears whenever one connects to it."""
    with behind(tmp_path, "TLS", names=(REALM,)) as path:
        for party in path.parties:
            party.endpoint.proxy_certificate_subject = REALM
        calls = begin_calls(path, 1)
        path.proxy.stop()
        path.proxy.start()
        check_goes_on(calls[0], first)


@BOTH
def test_subscriptions_go_on(tmp_path: Path, kind: str) -> None:
    with behind(tmp_path, kind) as path:
        path.bob.endpoint.subscription_received += lambda sender, args: args.subscription.accept()
        subscriptions = [SipSubscription(path.alice.endpoint, path.bob.address, "presence") for _ in range(2)]
        incoming = []
        for subscription in subscriptions:
            taken = path.bob.endpoint.subscription_received.expect(timeout=PATIENCE)
            told = subscription.notification_received.expect(timeout=PATIENCE)
            with taken as got, told:
                subscription.subscribe()
            incoming.append(got.args.subscription)
        path.bob.traffic.wait_for(received={"200 NOTIFY": 2})  # else those that it did not get through end with it
        path.proxy.stop()
        path.proxy.start()
        # The notifier is the first to speak, and then the subscriber.
        with subscriptions[0].notification_received.expect(timeout=PATIENCE) as told:
            incoming[0].notify("text/plain", "closed")
        assert told.args.text_body == "closed"
        with subscriptions[1].notification_received.expect(timeout=PATIENCE):
            subscriptions[1].refresh()
        for subscription, other in zip(subscriptions, incoming, strict=True):
            with other.ended.expect(timeout=PATIENCE):
                subscription.terminate()


@BOTH
def test_while_it_is_away(tmp_path: Path, kind: str) -> None:
    """Each request fails at once with a sentence that says where to it could not go; a call ends all the same."""
    with behind(tmp_path, kind) as path:
        path.bob.endpoint.message_received += lambda sender, args: None
        ((caller, callee),) = begin_calls(path, 1)
        path.proxy.stop()
        start = time.monotonic()
        for _ in range(3):
            with pytest.raises(ConnectionFailureException, match=f"{LOOPBACK}:{path.proxy.port(kind)}"):
                path.alice.endpoint.send_message(MessageType.MESSAGE, path.bob.address, timeout=PATIENCE)
        with pytest.raises(ConnectionFailureException, match=f"{LOOPBACK}:{path.proxy.port(kind)}"):
            path.alice.call(path.bob).establish(AUDIO, timeout=PATIENCE)
        caller.terminate()
        callee.terminate()
        assert caller.is_terminated
        assert callee.is_terminated
        assert time.monotonic() - start < 5.0
        path.proxy.start()
        path.alice.endpoint.send_message(MessageType.MESSAGE, path.bob.address, timeout=PATIENCE)


@BOTH
def test_under_load(tmp_path: Path, kind: str) -> None:
    """Messages without a pause while it ends and comes back: each has its answer or its error, the ones that were
    answered were heard once, and those after its return are answered."""
    with behind(tmp_path, kind, log=False) as path:
        heard: collections.Counter[str | None] = collections.Counter()

        def received(sender: RealTimeEndpoint, args: MessageReceivedEventArgs) -> None:
            heard[args.text_body] += 1

        path.bob.endpoint.message_received += received
        operations: list[Operation[SipResponseData]] = []

        def send(count: int) -> None:
            for _ in range(count):
                body = str(len(operations))
                operation = path.alice.endpoint.begin_send_message(
                    MessageType.MESSAGE, path.bob.address, body=body, timeout=10.0
                )
                operations.append(operation)

        for _ in range(3):
            send(300)
            operations[-250].result(PATIENCE)
            path.proxy.stop()
            send(50)
            path.proxy.start()
            send(100)
        start = time.monotonic()
        errors = [operation.exception(PATIENCE) for operation in operations]
        print(f"{len(operations)} messages over {kind}, {sum(error is not None for error in errors)} failed")
        assert time.monotonic() - start < 12.0
        for number, error in enumerate(errors):
            if error is None:
                assert heard[str(number)] == 1
            else:
                assert not isinstance(error, OperationTimeoutException), error
                assert heard[str(number)] <= 1
        assert [number for number, error in enumerate(errors) if error is not None and number % 450 >= 350] == []
        assert any(errors)
