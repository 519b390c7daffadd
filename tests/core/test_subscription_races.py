"""Subscriptions when things cross, are lost, or are wrong (RFC 6665 4.1, 4.2, 4.4)."""

from __future__ import annotations

from typing import Any

import pytest
from call_support import World
from subscription_support import PRESENCE, S, Watch, deliver_next

from p2psip.config import ManagerSettings
from p2psip.core.dialog import Content
from p2psip.core.subscribe import MAXIMUM_NOTIFIERS
from p2psip.core.subscription_retry import IS_GONE
from p2psip.enums import SubscriptionSignalingState
from p2psip.errors import ConnectionFailureException, OperationFailureException, OperationTimeoutException
from p2psip.message import Request, Response


@pytest.fixture
def world() -> World:
    return World()


def over(world: World) -> None:
    world.pass_time(100.0)
    world.assert_over()


def method(message: Any) -> str:
    return message.method if isinstance(message, Request) else f"{message.status_code} {message.cseq.method}"


def accepted_but_held(world: World, **options: Any) -> Watch:
    """Bob has accepted; his 200 and his NOTIFY are under way."""
    watch = Watch(world, **options)
    world.held = []
    watch.accept()
    assert [method(message) for _, _, message in world.held] == ["200 SUBSCRIBE", "NOTIFY"]
    return watch


def refused_by(world: World, watch: Watch, code: int, *headers: str) -> Any:
    """A refresh is answered like this, whatever Bob says."""
    world.held = []
    refresh = world.alice.do(watch.subscriber.refresh, (), None)
    deliver_next(world)
    lines = "".join(f"\r\n{header}" for header in headers)
    deliver_next(world, ("SIP/2.0 200 OK", f"SIP/2.0 {code} No{lines}"))
    world.release()
    return refresh


# ---------------------------------------------------------------------- NOTIFY before the answer


def test_a_query_whose_notify_comes_first(world: World) -> None:
    watch = accepted_but_held(world, is_query=True)
    world.release(reverse=True)
    assert watch.operation.message.status_code == 200
    assert watch.states == [S.SUBSCRIBING, S.SUBSCRIBED, S.TERMINATED]
    assert [event.error for event in world.alice.happened("SubscriptionStateChanged")] == [None, None, None]
    over(world)


@pytest.mark.parametrize(
    ("reason", "last"),
    [
        ("rejected", S.TERMINATED),
        ("noresource", S.TERMINATED),
        ("deactivated", S.SUBSCRIBING),
        ("giveup", S.WAITING_FOR_RETRY),
    ],
)
def test_what_ends_before_it_is_accepted_is_accepted_first(
    world: World, reason: str, last: SubscriptionSignalingState
) -> None:
    watch = accepted_but_held(world)
    world.bob.do(watch.notifier.terminate, reason, None, None)
    assert world.held is not None
    for _ in range(3):  # both NOTIFYs and the answer to the first arrive, the answer to the SUBSCRIBE does not
        world.held.append(world.held.pop(0))
        deliver_next(world)
    assert watch.subscriber._legs == {}
    assert watch.operation.ends == []
    world.release()
    assert watch.operation.message.status_code == 200
    assert watch.states[-1] is last
    world.alice.do(watch.subscriber.terminate, ())
    watch.notifier.decline(world.now, 480, None, ())
    over(world)


def test_a_refusal_after_a_notify_ends_it(world: World) -> None:
    """RFC 6665 4.1.2.1: it says that there is no subscription."""
    watch = accepted_but_held(world)
    assert world.held is not None
    world.held.reverse()
    deliver_next(world)
    assert watch.subscriber.state is S.SUBSCRIBED
    deliver_next(world, ("SIP/2.0 200 OK", "SIP/2.0 480 No"))
    world.release()
    assert watch.operation.message.status_code == 480
    assert watch.states == [S.SUBSCRIBING, S.SUBSCRIBED, S.TERMINATED]
    told = world.bob.do(watch.notifier.notify, PRESENCE, ())
    assert told.message.status_code == 481
    over(world)


def test_the_answer_is_lost_with_the_connection_but_the_notify_has_come(world: World) -> None:
    watch = accepted_but_held(world)
    assert world.held is not None
    world.held.reverse()
    deliver_next(world)
    world.held.reverse()
    deliver_next(world)  # Bob knows that his NOTIFY has come
    world.held = None
    world.cut()
    assert watch.operation.message.status_code == 200  # of the refresh that makes up for it
    assert watch.subscriber.state is S.SUBSCRIBED
    assert world.log.count("SUBSCRIBE") == 2
    watch.unsubscribe()


@pytest.mark.parametrize("how", ["cut", "silence", "time of the caller"])
def test_the_answer_is_lost_and_the_notify_was_refused(world: World, how: str) -> None:
    """RFC 6665 4.2.2: it is told later; but nobody knows of a subscription that would be waited for."""
    watch = accepted_but_held(world, timeout=3.0 if how == "time of the caller" else None)
    watch.subscriber.is_busy = lambda flow: True
    assert world.held is not None
    world.held.reverse()
    deliver_next(world)
    assert world.log[-1] == "503"
    assert watch.states == [S.SUBSCRIBING]
    world.held = None
    if how == "cut":
        world.cut()
    else:
        world.pass_time(40.0)
    kind = ConnectionFailureException if how == "cut" else OperationTimeoutException
    assert isinstance(watch.operation.error, kind)
    assert (watch.states[0], watch.states[-1]) == (S.SUBSCRIBING, S.TERMINATED)
    watch.notifier.terminate(world.now, None, None, None, None)
    over(world)


def test_a_query_whose_answer_is_lost_has_failed(world: World) -> None:
    watch = Watch(world, is_query=True)
    world.cut()
    assert isinstance(watch.operation.error, ConnectionFailureException)
    assert watch.states == [S.SUBSCRIBING, S.TERMINATED]
    over(world)


# ---------------------------------------------------------------------- the end crosses something


@pytest.mark.parametrize("delivered", [0, 1, 2])
def test_ended_while_it_is_being_accepted(world: World, delivered: int) -> None:
    watch = Watch(world)
    world.held = []
    watch.accept()
    for _ in range(delivered):
        deliver_next(world)
    end = world.alice.do(watch.subscriber.terminate, ())
    world.release()
    world.pass_time(40.0)
    assert end.ends == [(None, None)]
    assert watch.states[-2:] == [S.TERMINATING, S.TERMINATED]
    ends = [m for _, m in world.messages if method(m) == "SUBSCRIBE" and m.headers.get("Expires") == "0"]
    assert len(ends) == 1  # said once, to whoever was there by then
    assert [event.why for event in world.bob.happened("SubscriptionEnded")] == ["unsubscribed"]
    over(world)


def test_ended_between_a_notify_and_the_answer(world: World) -> None:
    watch = accepted_but_held(world)
    assert world.held is not None
    world.held.reverse()
    deliver_next(world)
    end = world.alice.do(watch.subscriber.terminate, ())
    world.release()
    assert end.ends == [(None, None)]
    assert isinstance(watch.operation.error, OperationFailureException)
    assert world.now == 0.0
    over(world)


def test_ended_before_a_423(world: World) -> None:
    world.held = []
    watch = Watch(world, expires=5)
    end = world.alice.do(watch.subscriber.terminate, ())
    world.release()
    assert end.ends == [(None, None)]
    assert world.log == ["SUBSCRIBE", "423"]
    over(world)


def test_ended_twice(world: World) -> None:
    watch = Watch(world).accept()
    world.held = []
    ends = [world.alice.do(watch.subscriber.terminate, ()) for _ in range(2)]
    world.release()
    ends.append(world.alice.do(watch.subscriber.terminate, ()))
    assert [end.ends for end in ends] == [[(None, None)]] * 3
    assert world.log.count("SUBSCRIBE") == 2
    over(world)


def test_a_fork_that_comes_after_the_end_is_ended_too(world: World) -> None:
    watch = Watch(world).accept()
    world.held = []
    world.alice.do(watch.subscriber.terminate, ())
    watch.notify_of_fork("late")
    sent = [m for _, _, m in world.held if method(m) == "SUBSCRIBE"]
    assert [(m.to_tag == "late", m.headers.get("Expires")) for m in sent] == [(False, "0"), (True, "0")]
    world.release()
    over(world)


def test_both_sides_end_it_at_once(world: World) -> None:
    watch = Watch(world).accept()
    world.held = []
    ours = world.alice.do(watch.subscriber.terminate, ())
    theirs = world.bob.do(watch.notifier.terminate, "noresource", None, None)
    world.release()
    world.pass_time(40.0)
    assert ours.ends == [(None, None)]
    assert theirs.message.status_code == 200
    over(world)


def test_the_last_notify_is_lost(world: World) -> None:
    watch = Watch(world).accept()
    world.lose = lambda message: method(message) == "NOTIFY"
    end = world.alice.do(watch.subscriber.terminate, ())
    assert end.ends == []
    world.pass_time(33.0)
    assert end.ends == [(None, None)]
    over(world)


def test_the_last_notify_is_lost_after_another_one_has_crossed_the_end(world: World) -> None:
    watch = Watch(world).accept()
    world.held = []
    world.bob.do(watch.notifier.notify, PRESENCE, ())
    end = world.alice.do(watch.subscriber.terminate, ())
    deliver_next(world)
    assert len(watch.notifications) == 2
    world.lose = lambda message: method(message) == "NOTIFY"
    world.release()
    assert end.ends == []
    world.pass_time(33.0)
    assert end.ends == [(None, None)]
    over(world)


def test_nobody_can_be_told_of_the_end(world: World) -> None:
    watch = Watch(world).accept()
    world.cut()
    world.unreachable = True
    end = world.alice.do(watch.subscriber.terminate, ())
    assert end.ends == [(None, None)]
    world.pass_time(3700.0)
    over(world)


@pytest.mark.parametrize("state", [S.IDLE, S.WAITING_FOR_RETRY])
def test_ended_while_nothing_is_there(world: World, state: SubscriptionSignalingState) -> None:
    watch = Watch(world)
    if state is S.IDLE:
        watch.notifier.decline(world.now, 404, None, ())
    else:
        watch.notifier.decline(world.now, 480, None, [("Retry-After", "20")])
    world.run()
    assert watch.subscriber.state is (S.TERMINATED if state is S.IDLE else state)
    assert world.alice.do(watch.subscriber.terminate, ()).ends == [(None, None)]
    assert watch.subscriber.state is S.TERMINATED
    over(world)


# ---------------------------------------------------------------------- refreshes


def test_one_refresh_at_a_time(world: World) -> None:
    watch = Watch(world).accept()
    world.held = []
    first, second = (world.alice.do(watch.subscriber.refresh, (), None) for _ in range(2))
    world.release()
    assert first.message.status_code == 200
    assert "is being refreshed" in str(second.error)
    watch.unsubscribe()
    late = world.alice.do(watch.subscriber.refresh, (), None)
    assert "is terminated" in str(late.error)


def test_a_refresh_of_its_own_waits_for_what_is_under_way(world: World) -> None:
    """However soon a notifier says that it is over."""
    watch = Watch(world, expires=600).accept()
    world.held = []
    world.alice.do(watch.subscriber.refresh, (), None)
    watch.subscriber._plan(world.now, 1)
    world.pass_time(0.9)
    assert world.log.count("SUBSCRIBE") == 2
    world.release()
    watch.unsubscribe()


def test_begun_once(world: World) -> None:
    watch = Watch(world).accept()
    again = world.alice.do(watch.subscriber.subscribe, (), None)
    assert isinstance(again.error, OperationFailureException)
    watch.unsubscribe()


def test_begun_again_after_its_end(world: World) -> None:
    watch = Watch(world).accept()
    watch.unsubscribe()
    again = world.alice.do(watch.subscriber.subscribe, (), None)
    watch.accept()
    assert again.message.status_code == 200
    watch.unsubscribe()


@pytest.mark.parametrize("code", sorted(IS_GONE))
def test_answers_to_a_refresh_after_which_there_is_none(world: World, code: int) -> None:
    watch = Watch(world).accept()
    refresh = refused_by(world, watch, code)
    assert refresh.message.status_code == code
    assert watch.subscriber.state is (S.SUBSCRIBING if code == 481 else S.TERMINATED)
    world.alice.do(watch.subscriber.terminate, ())
    world.bob.do(world.bob.sessions[0].terminate, None, None, None)
    world.bob.do(world.bob.sessions[-1].terminate, None, None, None)
    over(world)


def test_one_that_may_be_back_is_waited_for(world: World) -> None:
    watch = Watch(world).accept()
    refused_by(world, watch, 480, "Retry-After: 20")
    assert watch.subscriber.state is S.WAITING_FOR_RETRY
    world.bob.do(watch.notifier.terminate, None, None, None)
    world.pass_time(21.0)
    watch.accept()
    assert watch.states[-1] is S.SUBSCRIBED
    watch.unsubscribe()


@pytest.mark.parametrize("code", [400, 403, 500, 503, 600])
def test_other_answers_leave_it_as_long_as_it_was_granted(world: World, code: int) -> None:
    watch = Watch(world, expires=600).accept()
    refresh = refused_by(world, watch, code)
    assert refresh.message.status_code == code
    assert watch.subscriber.state is S.SUBSCRIBED
    world.pass_time(700.0)
    assert watch.subscriber.state is S.SUBSCRIBED  # a later refresh got through
    watch.unsubscribe()


def test_a_refresh_has_to_be_longer(world: World) -> None:
    watch = Watch(world, expires=600).accept()
    world.held = []
    refresh = world.alice.do(watch.subscriber.refresh, (), None)
    deliver_next(world)
    deliver_next(world, ("SIP/2.0 200 OK", "SIP/2.0 423 No\r\nMin-Expires: 900"))
    world.release()
    assert refresh.message.status_code == 200
    assert watch.subscriber.expires == 900
    watch.unsubscribe()


def test_a_notifier_that_wants_it_longer_and_longer(world: World) -> None:
    asked: list[str | None] = []

    def longer(now: float, transaction: Any, record: Any) -> None:
        asked.append(transaction.request.headers.get("Expires"))
        least = str(int(asked[-1] or 0) + 1)
        transaction.respond(transaction.create_response(423, headers=[("Min-Expires", least)]))

    world.bob.engine.acceptors["SUBSCRIBE"] = longer
    watch = Watch(world, expires=600)
    assert watch.operation.message.status_code == 423
    assert asked == ["600", "601", "602", "603"]
    over(world)


@pytest.mark.parametrize("value", ["", "soon", "5", "99999999999"])
def test_a_423_that_helps_nobody(world: World, value: str) -> None:
    world.bob.engine.acceptors["SUBSCRIBE"] = lambda now, transaction, record: transaction.respond(
        transaction.create_response(423, headers=[("Min-Expires", value)])
    )
    watch = Watch(world, expires=600)
    assert watch.operation.message.status_code == 423
    assert world.log == ["SUBSCRIBE", "423"]
    over(world)


def test_a_refresh_without_notify_is_as_good_as_none(world: World) -> None:
    """RFC 6665 4.1.2.2: timer N runs for refreshes too."""
    watch = Watch(world).accept()
    world.pass_time(1000.0)
    world.lose = lambda message: method(message) == "NOTIFY"
    assert world.alice.do(watch.subscriber.refresh, (), None).message.status_code == 200
    world.pass_time(33.0)
    world.lose = None
    assert watch.states[-2:] == [S.SUBSCRIBED, S.SUBSCRIBING]
    watch.accept()
    watch.unsubscribe()


def test_204_has_no_notify(world: World) -> None:
    watch = Watch(world).accept()
    world.held = []
    world.alice.do(watch.subscriber.refresh, (), None)
    deliver_next(world)
    deliver_next(world, ("SIP/2.0 200 OK", "SIP/2.0 204 No Notification"))
    world.held = None
    world.pass_time(100.0)
    assert watch.subscriber.state is S.SUBSCRIBED
    watch.unsubscribe()


def test_a_query_that_204_answers_is_over(world: World) -> None:
    """RFC 5839: no NOTIFY follows, so there is nothing to wait for."""
    watch = Watch(world, is_query=True)
    world.held = []
    watch.accept()
    deliver_next(world, ("SIP/2.0 200 OK", "SIP/2.0 204 No Notification"))
    world.held = None
    assert watch.operation.message.status_code == 204
    assert watch.states == [S.SUBSCRIBING, S.SUBSCRIBED, S.TERMINATED]
    over(world)


@pytest.mark.parametrize(("granted", "refreshed_after"), [("Expires: 9999999999", 2700.0), ("Expires: 100", 50.0)])
def test_how_long_the_answer_says_it_is(world: World, granted: str, refreshed_after: float) -> None:
    watch = accepted_but_held(world)
    deliver_next(world, ("Expires: 3600", granted))
    assert watch.subscriber.time_remaining(world.now) == refreshed_after
    world.release()
    watch.unsubscribe()


@pytest.mark.parametrize(
    ("expires", "refreshed_after"), [("120", 60.0), ("9999999999", 2700.0), ("0", 0.5), ("soon", 2700.0)]
)
def test_how_long_a_notify_says_it_is(world: World, expires: str, refreshed_after: float) -> None:
    watch = accepted_but_held(world)
    deliver_next(world)
    deliver_next(world, ("active;expires=3600", f"active;expires={expires}"))
    assert watch.subscriber.time_remaining(world.now) == refreshed_after
    world.release()
    watch.unsubscribe()


# ---------------------------------------------------------------------- forks, and NOTIFYs that nobody wants


def test_notifiers_of_a_fork_are_known_until_timer_n(world: World) -> None:
    watch = Watch(world).accept()
    watch.notify_of_fork("early")
    world.pass_time(33.0)
    watch.notify_of_fork("late")
    assert world.log[-1] == "481"
    assert [n.to_tag for n in watch.notifications[1:]] == ["early"]
    world.alice.do(watch.subscriber.terminate, ())
    over(world)


def test_only_so_many_notifiers(world: World) -> None:
    watch = Watch(world).accept()
    for number in range(MAXIMUM_NOTIFIERS + 5):
        watch.notify_of_fork(f"other{number}")
    assert len(world.alice.engine.dialogs) == MAXIMUM_NOTIFIERS
    assert world.log[-5:] == ["481"] * 5
    world.alice.do(watch.subscriber.terminate, ())
    over(world)


def test_a_notifier_that_has_left_does_not_come_back(world: World) -> None:
    watch = Watch(world).accept()
    watch.notify_of_fork("other")
    terminated = ("active;expires=3600", "terminated;reason=noresource")
    watch.notify_of_fork("other", terminated, ("z9hG4bK", "z9hG4bKx"), ("CSeq: 1 ", "CSeq: 2 "))
    assert len(world.alice.engine.dialogs) == 1
    watch.notify_of_fork("other", ("z9hG4bK", "z9hG4bKy"), ("CSeq: 1 ", "CSeq: 3 "))
    assert world.log[-1] == "481"
    assert watch.subscriber.state is S.SUBSCRIBED
    watch.unsubscribe()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (("Subscription-State", "X-State"), "400"),
        (("Event: presence", "Event: presence;id=7"), "481"),
        (("Event: presence", "Event: dialog"), "481"),
        (("Event: presence", "X-Event: presence"), "481"),
        (("Event: presence", "Event: presence\r\nRequire: telepathy"), "420"),
    ],
)
def test_a_notify_that_begins_nothing(world: World, change: tuple[str, str], code: str) -> None:
    watch = Watch(world).accept()
    watch.notify_of_fork("other", change)
    assert world.log[-1] == code
    assert len(world.alice.engine.dialogs) == 1
    watch.unsubscribe()


def test_a_notifier_that_never_lasts_is_not_asked_all_the_time(world: World) -> None:
    world.delay = 0.01

    def deactivate(party: Any, usage: Any, event: Any) -> None:
        if event is None:
            usage.accept(world.now, None, (), PRESENCE)
            usage.terminate(world.now, "deactivated", None, None, None)

    world.reactions.append(deactivate)
    watch = Watch(world)
    world.pass_time(20.0)
    assert world.log.count("SUBSCRIBE") == 3
    assert watch.subscriber.state is S.WAITING_FOR_RETRY
    world.pass_time(600.0)
    assert world.log.count("SUBSCRIBE") <= 3 + 3 * 20
    world.alice.do(watch.subscriber.terminate, ())
    over(world)


# ---------------------------------------------------------------------- lost connections


@pytest.mark.parametrize("when", ["asked", "accepted", "active", "ending"])
def test_a_cut_at_any_time(world: World, when: str) -> None:
    watch = Watch(world)
    if when == "accepted":
        world.held = []
    if when != "asked":
        watch.accept()
    if when == "ending":
        world.held = []
        world.alice.do(watch.subscriber.terminate, ())
    world.held = None
    world.cut()
    if when in ("asked", "accepted"):
        assert isinstance(watch.operation.error, ConnectionFailureException)
    assert (watch.subscriber.state is S.SUBSCRIBED) is (when == "active")
    world.alice.do(watch.subscriber.terminate, ())
    world.pass_time(3700.0)
    over(world)


def test_no_way_there_for_a_while(world: World) -> None:
    watch = Watch(world, expires=600).accept()
    world.cut()
    world.unreachable = True
    world.pass_time(400.0)
    assert watch.subscriber.state is S.SUBSCRIBED
    world.unreachable = False
    world.pass_time(100.0)
    assert watch.subscriber.state is S.SUBSCRIBED
    world.pass_time(3600.0)
    assert world.bob.happened("SubscriptionEnded") == []
    watch.unsubscribe()


def test_no_way_there_for_too_long(world: World) -> None:
    watch = Watch(world, expires=600).accept()
    world.cut()
    world.unreachable = True
    world.pass_time(700.0)
    assert S.TERMINATED not in watch.states  # there may be a way again
    assert isinstance(world.alice.happened("SubscriptionStateChanged")[-1].error, ConnectionFailureException)
    world.alice.do(watch.subscriber.terminate, ())
    over(world)


def test_no_answer_at_all(world: World) -> None:
    world.lose = lambda message: True
    watch = Watch(world)
    world.pass_time(40.0)
    assert isinstance(watch.operation.error, OperationTimeoutException)
    over(world)


@pytest.mark.parametrize("when", ["asked", "active", "waiting"])
def test_the_engine_ends(world: World, when: str) -> None:
    watch = Watch(world)
    if when == "active":
        watch.accept()
    elif when == "waiting":
        watch.notifier.decline(world.now, 480, None, [("Retry-After", "20")])
        world.run()
    refresh = world.alice.do(watch.subscriber.refresh, (), None) if when == "active" else None
    error = OperationFailureException("The end of everything.")
    world.alice.engine.shutdown(world.now, error)
    world.bob.engine.shutdown(world.now, error)
    if when == "waiting":
        watch.subscriber.abandon(world.now, error)
    world.run()
    assert watch.subscriber.state is S.TERMINATED
    assert watch.operation.ends
    assert refresh is None or refresh.ends
    over(world)


def test_too_many_dialogs() -> None:
    world = World(settings=ManagerSettings(maximum_dialogs=1))
    first = Watch(world).accept()
    second = Watch(world)
    assert "1 dialogs are open" in str(second.operation.error)
    assert second.subscriber.state is S.TERMINATED
    first.unsubscribe()


# ---------------------------------------------------------------------- the notifier


def test_a_refresh_tells_what_waits_to_be_told(world: World) -> None:
    watch = Watch(world).accept()
    watch.notifier.minimum_interval = 5.0
    told = [world.bob.do(watch.notifier.notify, Content("text/plain", body), ()) for body in (b"1", b"2")]
    world.pass_time(3.0)
    world.alice.do(watch.subscriber.refresh, (), None)
    assert [operation.message.status_code for operation in told] == [200, 200]
    world.bob.do(watch.notifier.notify, Content("text/plain", b"3"), ())
    world.pass_time(4.9)
    assert [n.request.body for n in watch.notifications[1:]] == [b"1", b"2"]
    world.pass_time(0.2)
    assert [n.request.body for n in watch.notifications[1:]] == [b"1", b"2", b"3"]
    watch.unsubscribe()


def test_what_waits_to_be_told_is_told_with_the_end(world: World) -> None:
    watch = Watch(world).accept()
    watch.notifier.minimum_interval = 5.0
    told = [world.bob.do(watch.notifier.notify, Content("text/plain", body), ()) for body in (b"1", b"2")]
    end = world.bob.do(watch.notifier.terminate, "noresource", None, None)
    assert told[1].ends == [(None, None)]
    assert end.message.status_code == 200
    assert [n.request.body for n in watch.notifications[1:]] == [b"1", b"2"]
    over(world)


@pytest.mark.parametrize(
    ("code", "header", "is_gone"),
    [
        (481, "Retry-After: 4", True),
        (481, "X: y", True),
        (500, "X: y", True),
        (503, "Retry-After: 4", False),
        (491, "X: y", False),
    ],
)
def test_a_notify_is_refused(world: World, code: int, header: str, is_gone: bool) -> None:
    watch = Watch(world).accept()
    world.held = []
    told = world.bob.do(watch.notifier.notify, PRESENCE, ())
    deliver_next(world)
    deliver_next(world, ("SIP/2.0 200 OK", f"SIP/2.0 {code} No\r\n{header}"))
    world.held = None
    assert told.message.status_code == code
    assert [event.why for event in world.bob.happened("SubscriptionEnded")] == (["gone"] if is_gone else [])
    world.alice.do(watch.subscriber.terminate, ())
    over(world)


def test_a_notify_finds_no_way(world: World) -> None:
    watch = Watch(world).accept()
    world.cut()
    world.unreachable = True
    told = world.bob.do(watch.notifier.notify, PRESENCE, ())
    assert isinstance(told.error, ConnectionFailureException)
    assert [event.why for event in world.bob.happened("SubscriptionEnded")] == ["lost"]
    late = world.bob.do(watch.notifier.notify, PRESENCE, ())
    assert "it is terminated" in str(late.error)
    world.alice.do(watch.subscriber.terminate, ())
    over(world)


@pytest.mark.parametrize("how", ["declined", "query", "terminated"])
def test_the_notifier_is_told_of_each_end(world: World, how: str) -> None:
    watch = Watch(world, is_query=how == "query")
    if how == "declined":
        watch.notifier.decline(world.now, 403, None, ())
        world.run()
    elif how == "query":
        watch.accept()
    else:
        assert world.bob.do(watch.notifier.terminate, None, None, None).ends == [(None, None)]
    ends = [event.why for event in world.bob.happened("SubscriptionEnded")]
    assert ends == ["timeout" if how == "query" else "terminated"]
    over(world)


def test_408_is_never_said(world: World) -> None:
    watch = Watch(world)
    watch.notifier.decline(world.now, 408, None, ())
    world.run()
    assert watch.operation.message.status_code == 504
    over(world)


def test_nobody_decides(world: World) -> None:
    watch = Watch(world)
    world.pass_time(40.0)
    assert watch.operation.message.status_code == 500
    assert [event.why for event in world.bob.happened("SubscriptionEnded")] == ["lost"]
    watch.notifier.accept(world.now, None, (), PRESENCE)
    watch.notifier.decline(world.now, 403, None, ())
    over(world)


def test_decided_twice(world: World) -> None:
    watch = Watch(world).accept()
    watch.notifier.accept(world.now, None, (), PRESENCE)
    watch.notifier.decline(world.now, 403, None, ())
    world.run()
    assert world.log == ["SUBSCRIBE", "200", "NOTIFY", "200"]
    watch.unsubscribe()


def test_less_is_granted_never_more(world: World) -> None:
    watch = Watch(world, expires=1000).accept(expires=400)
    assert watch.operation.message.headers.get("Expires") == "400"
    assert watch.subscriber.time_remaining(world.now) == 200.0
    other = Watch(world, expires=1000).accept(expires=5000)
    assert other.operation.message.headers.get("Expires") == "1000"
    for each in (watch, other):
        world.alice.do(each.subscriber.terminate, ())
    over(world)


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("Event: presence", "X-Event: presence", "489"),
        ("Event: presence", "Event: ;id=4", "489"),
        ("Expires: 3600", "Expires: 59", "423"),
        ("Contact: ", "X-Contact: ", "400"),
        ("Event: presence", "Event: presence\r\nRequire: telepathy", "420"),
    ],
)
def test_a_subscribe_that_begins_nothing(world: World, old: str, new: str, code: str) -> None:
    world.held = []
    watch = Watch(world)
    deliver_next(world, (old, new))
    assert method(world.held[0][2]).split()[0] == code
    deliver_next(world, ("Min-Expires", "X-Min")) if code == "423" else deliver_next(world)
    world.held = None
    assert watch.operation.message.status_code == int(code)
    assert isinstance(watch.operation.message, Response)
    over(world)


def test_two_subscriptions_to_one_package_are_told_apart_by_their_ids(world: World) -> None:
    watches = [Watch(world, event=f"presence;id={number}").accept() for number in range(2)]
    assert [s.request.headers.get("Event") for s in world.bob.sessions] == ["presence;id=0", "presence;id=1"]
    assert [n.request.headers.get("Event") for n in watches[0].notifications] == ["presence;id=0", "presence;id=1"]
    for watch in watches:
        world.alice.do(watch.subscriber.terminate, ())
    over(world)
