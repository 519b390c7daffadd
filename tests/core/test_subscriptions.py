"""Subscriptions, both sides (RFC 6665), with the bodies of the packages that people use."""

from __future__ import annotations

import pytest
from call_support import World
from scale import scaled
from subscription_support import DIALOG, MAILBOX, PRESENCE, S, Watch

from p2psip.core.dialog import Content
from p2psip.enums import SubscriptionSignalingState
from p2psip.message import Request, Response, parse_message


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize(
    ("event", "content"), [("presence", PRESENCE), ("dialog", DIALOG), ("message-summary", MAILBOX)]
)
def test_any_package_with_its_body(world: World, event: str, content: Content) -> None:
    watch = Watch(world, event, accept=[content.content_type]).accept(content=content)
    assert watch.operation.message.status_code == 200
    assert Content.of(watch.notifications[0].request) == content
    assert world.log == ["SUBSCRIBE", "200", "NOTIFY", "200"]
    assert watch.notifier.request.headers.get("Accept") == content.content_type
    told = world.bob.do(watch.notifier.notify, content, ())
    assert told.message.status_code == 200
    assert [n.state for n in watch.notifications] == ["active", "active"]
    watch.unsubscribe()
    assert world.log[-4:] == ["SUBSCRIBE", "200", "NOTIFY", "200"]
    assert watch.states == [S.SUBSCRIBING, S.SUBSCRIBED, S.TERMINATING, S.TERMINATED]
    assert [event.why for event in world.bob.happened("SubscriptionEnded")] == ["unsubscribed"]


def test_a_pending_subscription_becomes_active(world: World) -> None:
    watch = Watch(world).accept(content=None, pending=True)
    assert watch.notifications[0].state == "pending"
    world.bob.do(watch.notifier.notify, PRESENCE, ())
    assert watch.notifications[1].state == "active"
    watch.unsubscribe()


def test_a_declined_subscription(world: World) -> None:
    watch = Watch(world)
    watch.notifier.decline(0.0, 403, None, ())
    world.run()
    assert watch.operation.message.status_code == 403
    assert watch.states == [S.SUBSCRIBING, S.TERMINATED]
    world.assert_over()


def test_an_unknown_package_is_refused_with_those_that_are_known(world: World) -> None:
    world.bob.record.endpoint.packages = ("presence", "dialog")  # type: ignore[attr-defined]
    watch = Watch(world, "winfo")
    assert watch.operation.message.status_code == 489
    assert watch.operation.message.headers.get("Allow-Events") == "presence, dialog"
    world.assert_over()


def test_too_short_is_asked_for_again(world: World) -> None:
    watch = Watch(world, expires=5).accept()
    assert world.log[:3] == ["SUBSCRIBE", "423", "SUBSCRIBE"]
    assert watch.subscriber.expires == 60
    watch.unsubscribe()


def test_a_query_is_one_notify(world: World) -> None:
    watch = Watch(world, is_query=True).accept()
    assert [(n.state, n.request.body) for n in watch.notifications] == [("terminated", PRESENCE.body)]
    assert watch.subscriber.state is S.TERMINATED
    world.pass_time(100.0)
    world.assert_over()


def test_notify_comes_before_the_200(world: World) -> None:
    watch = Watch(world)
    world.held = []
    watch.accept()
    world.release(reverse=True)
    assert watch.operation.message.status_code == 200
    assert len(watch.notifications) == 1
    assert watch.subscriber.state is S.SUBSCRIBED
    watch.unsubscribe()


def test_notify_after_the_end_is_refused(world: World) -> None:
    watch = Watch(world).accept()
    world.held = []
    world.alice.do(watch.subscriber.terminate, ())
    late = world.bob.do(watch.notifier.notify, PRESENCE, ())
    world.release()
    assert late.message.status_code == 200  # it crossed the end, and is still of the subscription
    world.pass_time(100.0)
    assert watch.subscriber.state is S.TERMINATED
    request = watch.notifier.dialog.create_request("NOTIFY", [("Event", "presence"), ("Subscription-State", "active")])
    assert world.bob.record.serving == 0
    watch.notifier.dialog.send(world.now, request, watch.notifier)
    world.run()
    assert world.log[-2:] == ["NOTIFY", "481"]
    world.assert_over()


def test_no_notify_at_all_ends_it(world: World) -> None:
    watch = Watch(world)
    world.lose = lambda message: isinstance(message, Request) and message.method == "NOTIFY"
    watch.accept()
    world.pass_time(33.0)
    (*_, last) = world.alice.happened("SubscriptionStateChanged")
    assert last.state is S.TERMINATED
    assert "no NOTIFY came" in str(last.error)
    world.pass_time(100.0)
    world.assert_over()


def test_each_notifier_of_a_fork_is_kept(world: World) -> None:
    watch = Watch(world).accept()
    notify = next(m for _, m in world.messages if isinstance(m, Request) and m.method == "NOTIFY")
    other = notify.to_bytes().replace(f"tag={notify.from_tag}".encode(), b"tag=other").replace(b"z9hG4bK", b"z9hG4bKo")
    world.alice.engine.receive(world.now, world.alice.flows[0], parse_message(other))
    world.run()
    assert [n.to_tag for n in watch.notifications] == [notify.from_tag, "other"]
    assert len(world.alice.engine.dialogs) == 2
    world.alice.do(watch.subscriber.terminate, ())
    world.pass_time(100.0)
    world.assert_over()


@pytest.mark.parametrize(
    ("reason", "retry_after", "after"),
    [
        ("deactivated", None, S.SUBSCRIBING),
        ("timeout", None, S.SUBSCRIBING),
        ("probation", 20, S.WAITING_FOR_RETRY),
        ("giveup", None, S.WAITING_FOR_RETRY),
        (None, 20, S.WAITING_FOR_RETRY),
        ("rejected", None, S.TERMINATED),
        ("noresource", None, S.TERMINATED),
        ("invariant", None, S.TERMINATED),
        ("made-up", None, S.TERMINATED),
    ],
)
def test_why_the_notifier_ends_it_says_what_comes_next(
    world: World, reason: str | None, retry_after: int | None, after: SubscriptionSignalingState
) -> None:
    watch = Watch(world).accept()
    end = world.bob.do(watch.notifier.terminate, reason, retry_after, None)
    assert end.message.status_code == 200
    assert watch.subscriber.state is after
    if after is S.WAITING_FOR_RETRY:
        world.pass_time(31.0)
        assert watch.subscriber.state is S.SUBSCRIBING
    if after is not S.TERMINATED:
        watch.accept()
        assert watch.subscriber.state is S.SUBSCRIBED
        watch.unsubscribe()
    world.pass_time(100.0)
    world.assert_over()


def test_the_peer_was_restarted(world: World) -> None:
    watch = Watch(world).accept()
    old = watch.notifier
    old.dialog.remove(old)
    old._stop()
    refresh = world.alice.do(watch.subscriber.refresh, (), None)
    assert refresh.message.status_code == 481
    assert watch.subscriber.state is S.SUBSCRIBING
    watch.accept()
    watch.unsubscribe()


def test_what_changes_fast_is_told_as_it_is_in_the_end(world: World) -> None:
    watch = Watch(world).accept()
    watch.notifier.minimum_interval = 5.0
    bodies = [Content("text/plain", str(n).encode()) for n in range(4)]
    told = [world.bob.do(watch.notifier.notify, body, ()) for body in bodies]
    assert len(watch.notifications) == 2
    world.pass_time(5.0)
    assert [n.request.body for n in watch.notifications[1:]] == [b"0", b"3"]
    assert [operation.message and operation.message.status_code for operation in told] == [200, None, None, 200]
    watch.unsubscribe()


def test_a_subscription_that_nobody_refreshes_ends(world: World) -> None:
    watch = Watch(world, expires=600).accept()
    world.lose = lambda message: True
    world.pass_time(601.0)
    world.lose = None
    assert [event.why for event in world.bob.happened("SubscriptionEnded")] == ["timeout"]
    world.alice.do(watch.subscriber.terminate, ())
    world.pass_time(100.0)
    world.assert_over()


def test_the_subscriber_is_gone(world: World) -> None:
    watch = Watch(world).accept()
    for leg in list(watch.subscriber._legs.values()):
        watch.subscriber.remove_leg(leg)
    assert watch.subscriber._opening is not None
    watch.subscriber._opening.expect_no_more()
    told = world.bob.do(watch.notifier.notify, PRESENCE, ())
    assert told.message.status_code == 481
    assert [event.why for event in world.bob.happened("SubscriptionEnded")] == ["gone"]
    world.alice.do(watch.subscriber.terminate, ())
    world.pass_time(100.0)
    world.assert_over()


def test_a_notify_without_state_is_refused(world: World) -> None:
    watch = Watch(world).accept()
    request = watch.notifier.dialog.create_request("NOTIFY", [("Event", "presence")])
    watch.notifier.dialog.send(world.now, request, watch.notifier)
    world.run()
    answer = world.messages[-1][1]
    assert isinstance(answer, Response)
    assert answer.status_code == 400
    watch.subscriber.terminate(world.now, (), None)
    world.pass_time(100.0)


def test_a_subscription_survives_its_connection(world: World) -> None:
    watch = Watch(world).accept()
    world.cut()
    told = world.bob.do(watch.notifier.notify, PRESENCE, ())
    assert told.message.status_code == 200
    assert len(watch.notifications) == 2
    watch.unsubscribe()


@pytest.mark.long
def test_many_subscriptions_are_refreshed_for_an_hour(world: World) -> None:
    count = scaled(10_000)
    watches = [Watch(world, expires=600).accept() for _ in range(count)]
    assert {watch.subscriber.state for watch in watches} == {S.SUBSCRIBED}
    before = world.log.count("SUBSCRIBE")
    world.pass_time(3600.0)
    assert {watch.subscriber.state for watch in watches} == {S.SUBSCRIBED}
    assert world.log.count("SUBSCRIBE") - before == count * 12  # at half of the 600 s, each time
    assert set(world.log) == {"SUBSCRIBE", "NOTIFY", "200"}
    for watch in watches:
        world.alice.do(watch.subscriber.terminate, ())
    world.pass_time(100.0)
    world.assert_over()
