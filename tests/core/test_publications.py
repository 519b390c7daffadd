"""PUBLISH as its client (RFC 3903)."""

from __future__ import annotations

import pytest
from call_support import Operation, World
from core_support import make_request
from publication_support import CLOSED, OPEN, Compositor, publication

from p2psip.core.publish import Publication
from p2psip.errors import ConnectionFailureException, OperationFailureException, OperationTimeoutException


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


# ---------------------------------------------------------------------- elsewhere, and later


ELSEWHERE = "sip:bob@bob.example;place=1"


def test_a_redirection_is_followed_and_remembered(world: World) -> None:
    there, ours = Compositor(world), publication(world)
    there.answers = [(302, [("Contact", f"<{ELSEWHERE}2>;q=0.1, <{ELSEWHERE}>")]), (404, [])]
    assert world.alice.do(ours.publish, OPEN, ()).message.status_code == 200
    world.pass_time(3545.0)
    uris = [request.uri for request in there.requests]
    assert uris == ["sip:bob@bob.example", ELSEWHERE, f"{ELSEWHERE}2", f"{ELSEWHERE}2"]
    assert [request.cseq.number for request in there.requests] == [1, 2, 3, 4]
    assert {request.call_id for request in there.requests} == {there.requests[0].call_id}
    assert there.seen() == ("tag3", "3600", b"")
    there.answers = [(412, []), (403, [])]
    world.pass_time(3545.0)
    world.alice.do(ours.publish, OPEN, ())
    assert there.requests[-1].uri == "sip:bob@bob.example"  # what is gone is published at home again
    world.alice.do(ours.remove)
    world.assert_over()


def test_a_removal_is_redirected(world: World) -> None:
    there, ours = Compositor(world), publication(world)
    world.alice.do(ours.publish, OPEN, ())
    there.answers = [(302, [("Contact", f"<{ELSEWHERE}>")])]
    assert world.alice.do(ours.remove).message.status_code == 200
    assert there.requests[-1].uri == ELSEWHERE
    assert there.seen() == ("tag1", "0", b"")
    world.assert_over()


@pytest.mark.parametrize("maximum", [0, 2])
def test_only_so_many_redirections(world: World, maximum: int) -> None:
    there, ours = Compositor(world), publication(world, maximum_redirects=maximum)
    there.answers = [(302, [("Contact", f"<sip:bob@bob.example;n={number}>")]) for number in range(9)]
    assert world.alice.do(ours.publish, OPEN, ()).message.status_code == 302
    assert len(there.requests) == 1 + maximum
    world.assert_over()


def test_a_target_that_cannot_be_reached_leads_to_the_next(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    there, ours = Compositor(world), publication(world)
    find = world.alice.record.endpoint._next_hop

    def next_hop(uri: object, secure: bool, learned: bool) -> object:
        if str(uri) == ELSEWHERE:
            raise ConnectionFailureException("No way there.")
        return find(uri, secure, learned)  # type: ignore[arg-type]

    monkeypatch.setattr(world.alice.record.endpoint, "_next_hop", next_hop)
    there.answers = [(302, [("Contact", f"<{ELSEWHERE}>, <{ELSEWHERE}2>")])]
    assert world.alice.do(ours.publish, OPEN, ()).message.status_code == 200
    assert [request.uri for request in there.requests] == ["sip:bob@bob.example", f"{ELSEWHERE}2"]
    world.alice.do(ours.remove)
    world.assert_over()


def test_a_refresh_is_tried_when_the_answer_says(world: World) -> None:
    there, ours = Compositor(world), publication(world, expires=600)
    world.alice.do(ours.publish, OPEN, ())
    there.answers = [(503, [("Retry-After", "47")])]
    world.pass_time(540.0)
    assert len(there.requests) == 2
    world.pass_time(46.9)
    assert len(there.requests) == 2
    world.pass_time(0.2)
    assert there.seen() == ("tag1", "600", b"")
    world.alice.do(ours.remove)
    world.assert_over()


def test_retry_after_may_be_longer_than_what_was_published(world: World) -> None:
    there, ours = Compositor(world), publication(world, expires=100)
    world.alice.do(ours.publish, OPEN, ())
    there.answers = [(503, [("Retry-After", "600")])]
    world.pass_time(649.9)
    assert not world.alice.happened("PublicationChanged")[-1].is_active
    assert len(there.requests) == 2
    world.pass_time(0.2)
    assert there.seen() == (None, "100", OPEN.body)
    world.alice.do(ours.remove)
    world.assert_over()


@pytest.mark.parametrize("code", [403, 503])
def test_what_is_gone_and_then_refused_is_told_at_once(world: World, code: int) -> None:
    there, ours = Compositor(world), publication(world)
    world.alice.do(ours.publish, OPEN, ())
    there.answers = [(412, []), (code, [])]
    assert world.alice.do(ours.publish, CLOSED, ()).message.status_code == code
    last = world.alice.happened("PublicationChanged")[-1]
    assert not last.is_active
    assert str(code) in str(last.error)
    world.pass_time(7200.0)
    assert len(there.requests) == 3
    world.assert_over()


# ---------------------------------------------------------------------- in time


def publish_within(world: World, ours: Publication, seconds: float) -> Operation:
    operation = world.operation("publish")
    ours.publish(world.now, CLOSED, (), operation, seconds)
    world.run()
    return operation


def test_an_answer_that_comes_too_late_for_its_caller(world: World) -> None:
    there, ours = Compositor(world), publication(world)
    world.delay = 2.0
    publish = publish_within(world, ours, 3.0)
    world.pass_time(2.9)
    assert publish.ends == []
    world.pass_time(0.2)
    assert isinstance(publish.error, OperationTimeoutException)
    world.pass_time(2.0)
    assert ours.entity_tag == "tag1"  # it took effect
    world.alice.do(ours.remove)
    world.pass_time(5.0)
    assert there.seen() == ("tag1", "0", b"")
    world.assert_over()


def test_what_waits_for_a_refresh_waits_as_long_as_its_caller(world: World) -> None:
    there, ours = Compositor(world), publication(world)
    world.alice.do(ours.publish, OPEN, ())
    world.held = []
    world.pass_time(3545.0)
    publish = publish_within(world, ours, 3.0)
    world.pass_time(3.1)
    assert isinstance(publish.error, OperationTimeoutException)
    world.release()
    assert len(there.requests) == 2  # it was never sent
    world.alice.do(ours.remove)
    world.assert_over()


def test_a_time_out_is_over_with_the_answer(world: World) -> None:
    Compositor(world)
    ours = publication(world)
    assert publish_within(world, ours, 3.0).message.status_code == 200
    world.alice.do(ours.remove)
    world.assert_over()


# ---------------------------------------------------------------------- when it may be forgotten


def test_it_says_when_it_may_be_forgotten(world: World) -> None:
    there, ours = Compositor(world), publication(world, expires=100)

    def times() -> int:
        return len(world.alice.happened("PublicationOver"))

    world.alice.do(ours.remove)
    assert times() == 0  # it was never alive
    there.answers = [(403, [])]
    world.alice.do(ours.publish, OPEN, ())
    assert times() == 1
    world.alice.do(ours.publish, OPEN, ())
    world.alice.do(ours.remove)
    assert times() == 2
    world.alice.do(ours.publish, OPEN, ())
    there.answers = [(403, [])] * 9
    world.pass_time(200.0)
    assert times() == 3
    there.answers = []
    world.alice.do(ours.publish, OPEN, ())
    ours.abandon(world.now, OperationFailureException("The end."))
    world.run()
    assert times() == 4
    world.assert_over()


def test_the_numbers_go_on_after_one_that_was_sent_again(world: World) -> None:
    """With credentials, of which the publication sees nothing but the last number."""
    there, ours = Compositor(world), publication(world)
    world.held = []
    publish = world.alice.do(ours.publish, OPEN, ())
    assert ours._request is not None
    again = make_request("PUBLISH", cseq=2)
    ours._request.request = again
    world.release()
    assert publish.message.status_code == 200
    world.alice.do(ours.remove)
    assert there.requests[-1].cseq.number == 3
    world.assert_over()
