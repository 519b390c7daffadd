"""PUBLISH as its client (RFC 3903)."""

from __future__ import annotations

import pytest
from call_support import World
from publication_support import CLOSED, OPEN, Compositor, publication

from p2psip.errors import ConnectionFailureException, OperationFailureException


@pytest.fixture
def world() -> World:
    return World()


def test_published_replaced_refreshed_and_removed(world: World) -> None:
    there, ours = Compositor(world), publication(world)
    assert world.alice.do(ours.publish, OPEN, ()).message.status_code == 200
    assert there.seen() == (None, "3600", OPEN.body)
    assert there.requests[0].headers.get("Event") == "presence"
    world.alice.do(ours.publish, CLOSED, ())
    assert there.seen() == ("tag1", "3600", CLOSED.body)
    world.pass_time(3545.0)
    assert there.seen() == ("tag2", "3600", b"")
    assert world.alice.do(ours.remove).message.status_code == 200
    assert there.seen() == ("tag3", "0", b"")
    assert [event.is_active for event in world.alice.happened("PublicationChanged")] == [True, True, True, False]
    world.assert_over()


def test_what_is_gone_is_published_anew(world: World) -> None:
    there, ours = Compositor(world), publication(world)
    world.alice.do(ours.publish, OPEN, ())
    there.answers.append((412, []))
    world.pass_time(3545.0)
    assert [there.seen(index) for index in (1, 2)] == [("tag1", "3600", b""), (None, "3600", OPEN.body)]
    assert ours.entity_tag == "tag3"
    world.alice.do(ours.remove)
    world.assert_over()


def test_too_short_is_asked_for_again(world: World) -> None:
    there, ours = Compositor(world), publication(world, expires=60)
    there.answers.append((423, [("Min-Expires", "300")]))
    assert world.alice.do(ours.publish, OPEN, ()).message.status_code == 200
    assert there.seen() == (None, "300", OPEN.body)
    world.alice.do(ours.remove)
    world.assert_over()


def test_a_refusal_is_told_and_leaves_nothing(world: World) -> None:
    there, ours = Compositor(world), publication(world)
    there.answers.append((403, []))
    assert world.alice.do(ours.publish, OPEN, ()).message.status_code == 403
    assert ours.entity_tag is None
    assert world.alice.do(ours.remove).ends == [(None, None)]
    world.assert_over()


def test_one_at_a_time(world: World) -> None:
    there, ours = Compositor(world), publication(world)
    world.held = []
    first = world.alice.do(ours.publish, OPEN, ())
    second = world.alice.do(ours.publish, CLOSED, ())
    assert "under way" in str(second.error)
    world.release()
    assert first.message.status_code == 200
    assert len(there.requests) == 1
    world.alice.do(ours.remove)
    world.assert_over()


def test_a_refresh_that_finds_no_way_is_tried_again(world: World) -> None:
    there, ours = Compositor(world), publication(world)
    world.alice.do(ours.publish, OPEN, ())
    world.cut()
    world.unreachable = True
    world.pass_time(3545.0)
    world.unreachable = False
    world.pass_time(40.0)
    assert len(there.requests) == 2
    world.alice.do(ours.remove)
    world.assert_over()


def test_a_command_waits_for_a_refresh_of_which_it_knows_nothing(world: World) -> None:
    there, ours = Compositor(world), publication(world)
    world.alice.do(ours.publish, OPEN, ())
    world.held = []
    world.pass_time(3545.0)
    changed = world.alice.do(ours.publish, CLOSED, ())
    assert changed.ends == []
    second = world.alice.do(ours.publish, OPEN, ())
    assert "under way" in str(second.error)
    world.release()
    assert changed.message.status_code == 200
    assert [there.seen(index) for index in (1, 2)] == [("tag1", "3600", b""), ("tag2", "3600", CLOSED.body)]
    world.alice.do(ours.remove)
    world.assert_over()


@pytest.mark.parametrize("what", ["refresh", "publish", "both"])
def test_it_is_removed_after_what_is_under_way(world: World, what: str) -> None:
    there, ours = Compositor(world), publication(world)
    world.alice.do(ours.publish, OPEN, ())
    world.held = []
    if what != "publish":
        world.pass_time(3545.0)
    changed = world.alice.do(ours.publish, CLOSED, ()) if what != "refresh" else None
    removals = [world.alice.do(ours.remove), world.alice.do(ours.remove)]
    world.release()
    assert [removal.message.status_code for removal in removals] == [200, 200]
    assert there.seen() == ("tag2", "0", b"")
    if changed is not None and what == "publish":
        assert changed.message.status_code == 200
    elif changed is not None:
        assert "was overtaken" in str(changed.error)
    assert ours.entity_tag is None
    world.assert_over()


def test_a_removal_that_fails_is_over_too(world: World) -> None:
    there, ours = Compositor(world), publication(world)
    world.alice.do(ours.publish, OPEN, ())
    there.answers.append((423, [("Min-Expires", "7200")]))
    removal = world.alice.do(ours.remove)
    assert removal.message.status_code == 423
    assert len(there.requests) == 2
    assert ours.entity_tag is None
    assert not world.alice.happened("PublicationChanged")[-1].is_active
    world.assert_over()


def test_what_was_not_accepted_is_not_published_later(world: World) -> None:
    there, ours = Compositor(world), publication(world)
    world.alice.do(ours.publish, OPEN, ())
    there.answers.append((403, []))
    assert world.alice.do(ours.publish, CLOSED, ()).message.status_code == 403
    there.answers.append((412, []))
    world.pass_time(40.0)
    assert there.seen() == (None, "3600", OPEN.body)
    world.alice.do(ours.remove)
    world.assert_over()


@pytest.mark.parametrize("code", [403, 503])
def test_a_refresh_that_is_refused_until_it_runs_out(world: World, code: int) -> None:
    there, ours = Compositor(world), publication(world, expires=100)
    world.alice.do(ours.publish, OPEN, ())
    there.answers = [(code, [])] * 50
    world.pass_time(120.0)
    last = world.alice.happened("PublicationChanged")[-1]
    assert (last.is_active, last.entity_tag) == (False, None)
    assert isinstance(last.error, OperationFailureException)
    assert str(code) in str(last.error)
    asked = len(there.requests)
    world.pass_time(3600.0)
    assert len(there.requests) == asked
    world.assert_over()


def test_no_way_there_until_it_runs_out_and_then_one(world: World) -> None:
    there, ours = Compositor(world), publication(world, expires=100)
    world.alice.do(ours.publish, OPEN, ())
    world.cut()
    world.unreachable = True
    world.pass_time(200.0)
    last = world.alice.happened("PublicationChanged")[-1]
    assert isinstance(last.error, ConnectionFailureException)
    assert ours.entity_tag is None
    world.unreachable = False
    world.pass_time(40.0)
    assert there.seen(1) == (None, "100", OPEN.body)
    assert ours.entity_tag is not None
    world.alice.do(ours.remove)
    world.assert_over()


def test_no_way_there_at_first(world: World) -> None:
    there, ours = Compositor(world), publication(world)
    world.unreachable = True
    assert isinstance(world.alice.do(ours.publish, OPEN, ()).error, ConnectionFailureException)
    world.unreachable = False
    world.pass_time(3600.0)
    assert there.requests == []
    world.assert_over()


@pytest.mark.parametrize(
    ("granted", "refreshed_after"), [("9999999999", 3540.0), ("0", 0.5), ("soon", 3540.0), ("100", 50.0)]
)
def test_how_long_the_answer_says_it_is(world: World, granted: str, refreshed_after: float) -> None:
    there, ours = Compositor(world), publication(world)
    there.answers.append((200, [("SIP-ETag", "mine"), ("Expires", granted)]))
    world.alice.do(ours.publish, OPEN, ())
    world.pass_time(refreshed_after - 0.1)
    assert len(there.requests) == 1
    world.pass_time(0.2)
    assert there.seen() == ("mine", "3600", b"")
    world.alice.do(ours.remove)
    world.assert_over()


def test_an_answer_without_a_tag_publishes_nothing(world: World) -> None:
    there, ours = Compositor(world), publication(world)
    there.answers.append((200, []))
    world.alice.do(ours.publish, OPEN, ())
    assert ours.entity_tag is None
    assert world.alice.happened("PublicationChanged") == []
    world.assert_over()


@pytest.mark.parametrize("value", ["", "soon", "60", "99999999999"])
def test_a_423_that_helps_nobody(world: World, value: str) -> None:
    there, ours = Compositor(world), publication(world, expires=60)
    there.answers = [(423, [("Min-Expires", value)])] * 5
    assert world.alice.do(ours.publish, OPEN, ()).message.status_code == 423
    assert len(there.requests) == 1
    world.assert_over()


def test_only_so_many_tries(world: World) -> None:
    there, ours = Compositor(world), publication(world, expires=60)
    there.answers = [(423, [("Min-Expires", str(61 + number))]) for number in range(10)]
    assert world.alice.do(ours.publish, OPEN, ()).message.status_code == 423
    assert [there.seen(index)[1] for index in range(len(there.requests))] == ["60", "61", "62"]
    world.assert_over()


@pytest.mark.parametrize("what", ["publish", "remove", "waiting"])
def test_it_is_abandoned(world: World, what: str) -> None:
    there, ours = Compositor(world), publication(world)
    world.alice.do(ours.publish, OPEN, ())
    world.held = []
    if what == "waiting":
        world.pass_time(3545.0)
    command = world.alice.do(ours.remove) if what == "remove" else world.alice.do(ours.publish, CLOSED, ())
    ours.abandon(world.now, OperationFailureException("The end."))
    world.run()
    assert str(command.error) == "The end."
    world.release()
    world.pass_time(40.0)
    assert len(there.requests) == 2
    world.assert_over()
