"""The NOTIFYs of one subscription are sent one by one, in order (RFC 6665 4.2.2)."""

from __future__ import annotations

from typing import Any

import pytest
from call_support import Operation, World
from subscription_support import Watch, deliver_next

from p2psip.core.dialog import Content
from p2psip.core.notify import MAXIMUM_WAITING
from p2psip.errors import (
    ConnectionFailureException,
    OperationFailureException,
    OperationFailureReason,
    OperationTimeoutException,
)
from p2psip.message import Request


@pytest.fixture
def world() -> World:
    return World()


def over(world: World) -> None:
    world.pass_time(100.0)
    world.assert_over()


def text(number: int) -> Content:
    return Content("text/plain", str(number).encode())


def tell(watch: Watch, *numbers: int) -> list[Operation]:
    """Bob tells these states, one right after the other."""
    return [watch.world.bob.do(watch.notifier.notify, text(number), ()) for number in numbers]


def told(watch: Watch) -> list[bytes]:
    """What Alice has been told after the first."""
    return [notification.request.body for notification in watch.notifications[1:]]


def notifies(world: World) -> list[str | None]:
    """What Bob sent after the first, as it says of itself."""
    sent = [m for _, m in world.messages if isinstance(m, Request) and m.method == "NOTIFY"]
    return [message.headers.get("Subscription-State") for message in sent[1:]]


def is_answer_to_notify(message: Any) -> bool:
    return message.cseq.method == "NOTIFY" and not isinstance(message, Request)


def test_one_is_sent_when_the_one_before_was_answered(world: World) -> None:
    watch = Watch(world).accept()
    world.held = []
    operations = tell(watch, 1, 2, 3)
    assert len(world.held) == 1
    deliver_next(world)
    assert len(notifies(world)) == 1
    deliver_next(world)
    assert [len(operation.ends) for operation in operations] == [1, 0, 0]
    assert len(notifies(world)) == 2
    world.release()
    assert [operation.message.status_code for operation in operations] == [200, 200, 200]
    assert told(watch) == [b"1", b"2", b"3"]
    watch.unsubscribe()


def test_none_overtakes_another_on_a_new_connection(world: World) -> None:
    """Each goes by a connection of its own, and the earlier ones are slower."""
    world.spread, world.jitter = 1.0, 5.0
    watch = Watch(world)
    world.pass_time(5.0)
    watch.accept()
    world.pass_time(10.0)
    tell(watch, *range(8))
    world.pass_time(100.0)
    assert told(watch) == [str(number).encode() for number in range(8)]
    world.alice.do(watch.subscriber.terminate, ())
    over(world)


def test_too_many_wait(world: World) -> None:
    watch = Watch(world).accept()
    world.held = []
    operations = tell(watch, *range(MAXIMUM_WAITING + 2))
    refused = operations.pop()
    assert isinstance(refused.error, OperationFailureException)
    assert refused.error.failure_reason is OperationFailureReason.THROTTLED
    world.release()
    assert {operation.message.status_code for operation in operations} == {200}
    assert tell(watch, 7)[0].message.status_code == 200
    watch.unsubscribe()


def test_with_a_minimum_interval_the_latest_is_told(world: World) -> None:
    watch = Watch(world).accept()
    watch.notifier.minimum_interval = 5.0
    world.held = []
    operations = tell(watch, *range(MAXIMUM_WAITING + 2))
    world.pass_time(6.0)  # the interval is over, but the first one is not answered
    assert len(notifies(world)) == 1
    world.release()
    assert told(watch) == [b"0", str(MAXIMUM_WAITING + 1).encode()]
    assert [operation.ends for operation in operations[1:-1]] == [[(None, None)]] * MAXIMUM_WAITING
    watch.unsubscribe()


def test_the_end_comes_after_what_waits(world: World) -> None:
    watch = Watch(world).accept()
    world.held = []
    operations = tell(watch, 1, 2)
    end = world.bob.do(watch.notifier.terminate, "noresource", None, text(3))
    late = tell(watch, 4)[0]
    world.pass_time(10.0)
    world.release()
    assert "it is terminated" in str(late.error)
    assert [operation.message.status_code for operation in [*operations, end]] == [200, 200, 200]
    assert told(watch) == [b"1", b"2", b"3"]
    assert notifies(world) == ["active;expires=3600", "active;expires=3590", "terminated;reason=noresource"]
    over(world)


def test_the_end_waits_no_longer_than_it_must(world: World) -> None:
    """Each answer takes long; the end is over after 64*T1 all the same."""
    watch = Watch(world).accept()
    world.held = []
    operations = tell(watch, 1, 2, 3)
    end = world.bob.do(watch.notifier.terminate, None, None, None)
    for _ in range(2):
        world.pass_time(15.0)
        deliver_next(world)
        deliver_next(world)
    assert end.ends == []
    world.pass_time(3.0)
    assert isinstance(end.error, OperationTimeoutException)
    assert [operation.error is None for operation in operations] == [True, True, False]
    world.held = None
    assert len(notifies(world)) == 3
    assert not world.bob.engine._clients
    world.alice.do(watch.subscriber.terminate, ())
    over(world)


@pytest.mark.parametrize("failure", ["refused", "cut"])
def test_when_one_fails_the_others_are_not_sent(world: World, failure: str) -> None:
    watch = Watch(world).accept()
    world.held = []
    operations = tell(watch, 1, 2, 3)
    if failure == "refused":
        deliver_next(world)
        deliver_next(world, ("SIP/2.0 200 OK", "SIP/2.0 481 No"))
        assert operations[0].message.status_code == 481
        assert isinstance(operations[1].error, OperationFailureException)
    else:
        world.unreachable = True
        world.cut()
        assert all(isinstance(operation.error, ConnectionFailureException) for operation in operations)
        assert len({id(operation.error) for operation in operations}) == 3
    assert len(notifies(world)) == 1
    ends = [event.why for event in world.bob.happened("SubscriptionEnded")]
    assert ends == ["gone" if failure == "refused" else "lost"]
    world.held, world.unreachable = None, False
    world.alice.do(watch.subscriber.terminate, ())
    over(world)


def test_retry_after_holds_the_next_one_back(world: World) -> None:
    watch = Watch(world).accept()
    world.held = []
    tell(watch, 1, 2)
    deliver_next(world)
    deliver_next(world, ("SIP/2.0 200 OK", "SIP/2.0 503 No\r\nRetry-After: 7"))
    world.held = None
    world.pass_time(6.9)
    assert len(notifies(world)) == 1
    world.pass_time(0.2)
    assert len(notifies(world)) == 2
    watch.unsubscribe()


def test_retry_after_does_not_hold_the_end_back(world: World) -> None:
    watch = Watch(world).accept()
    world.held = []
    tell(watch, 1)
    end = world.bob.do(watch.notifier.terminate, "noresource", None, None)
    deliver_next(world)
    deliver_next(world, ("SIP/2.0 200 OK", "SIP/2.0 503 No\r\nRetry-After: 7"))
    world.release()
    assert end.message.status_code == 200
    over(world)


def test_what_was_answered_leaves_no_timer(world: World) -> None:
    watch = Watch(world).accept()
    world.pass_time(100.0)
    before = len(world.bob.engine.timers)
    tell(watch, 1, 2)
    assert len(world.bob.engine.timers) == before
    world.bob.do(watch.notifier.terminate, "noresource", None, None)
    assert len(world.bob.engine.timers) == before - 1  # that of the subscription itself
    over(world)


@pytest.mark.parametrize("is_sent", [True, False])
def test_a_caller_waits_no_longer_than_it_wants(world: World, is_sent: bool) -> None:
    watch = Watch(world).accept()
    world.lose = is_answer_to_notify
    if not is_sent:
        tell(watch, 1)
    operation = world.operation("notify")
    watch.notifier.notify(world.now, text(2), (), operation, 3.0)
    world.run()
    world.pass_time(2.9)
    assert operation.ends == []
    world.pass_time(0.2)
    assert isinstance(operation.error, OperationTimeoutException)
    assert watch.notifier.state == "active"  # which of the peer says nothing
    assert told(watch) == [b"2" if is_sent else b"1"]
    world.pass_time(33.0)
    assert [event.why for event in world.bob.happened("SubscriptionEnded")] == ["lost"]
    world.lose = None
    world.alice.do(watch.subscriber.terminate, ())
    over(world)


def test_nobody_waits_longer_than_the_ceiling(world: World) -> None:
    watch = Watch(world).accept()
    world.held = []
    tell(watch, 1)
    deliver_next(world)
    deliver_next(world, ("SIP/2.0 200 OK", "SIP/2.0 503 No\r\nRetry-After: 900"))
    world.held = None
    held_back = tell(watch, 2)[0]
    world.pass_time(59.9)
    assert held_back.ends == []
    world.pass_time(0.2)
    assert isinstance(held_back.error, OperationTimeoutException)
    world.pass_time(900.0)
    assert len(notifies(world)) == 1  # nor is it sent later
    watch.unsubscribe()


def test_a_refresh_is_answered_after_what_is_under_way(world: World) -> None:
    watch = Watch(world).accept()
    tell(watch, 1)
    world.held = []
    tell(watch, 2)
    world.alice.do(watch.subscriber.refresh, (), None)
    world.release()
    assert told(watch) == [b"1", b"2", b"2"]
    world.held = []
    tell(watch, 3, 4)
    world.alice.do(watch.subscriber.refresh, (), None)
    world.release()
    assert told(watch) == [b"1", b"2", b"2", b"3", b"4"]  # the last of them tells it
    watch.unsubscribe()


def test_who_unsubscribes_hears_the_end_at_last(world: World) -> None:
    watch = Watch(world).accept()
    world.held = []
    operations = tell(watch, 1, 2)
    world.alice.do(watch.subscriber.terminate, ())
    world.release()
    assert [operation.message.status_code for operation in operations] == [200, 200]
    assert notifies(world)[-1] == "terminated;reason=timeout"
    over(world)


def test_the_engine_ends_with_some_waiting(world: World) -> None:
    watch = Watch(world).accept()
    world.held = []
    operations = tell(watch, 1, 2, 3)
    error = OperationFailureException("The end of everything.")
    for party in (world.bob, world.alice):
        party.engine.shutdown(world.now, error)
    world.run()
    assert [str(operation.error) for operation in operations] == ["The end of everything."] * 3
    over(world)
