"""How a subscription begins: elsewhere, in time, and again when it has to (RFC 3261 8.1.3.4, RFC 6665 4.1)."""

from __future__ import annotations

from typing import Any

import pytest
from call_support import World
from core_support import Target, make_request, received
from subscription_support import PRESENCE, S, Watch, deliver_next

from p2psip.config import ManagerSettings
from p2psip.core.publish import Publication
from p2psip.core.subscribe import Subscriber
from p2psip.errors import ConnectionFailureException, OperationFailureException, OperationTimeoutException
from p2psip.message import Request, SipUri, create_response

FIRST, SECOND = "sip:bob@bob.example;place=1", "sip:bob@bob.example;place=2"


@pytest.fixture
def world() -> World:
    return World()


def over(world: World) -> None:
    world.pass_time(100.0)
    world.assert_over()


class Answers:
    """What Bob's side answers first; then he decides himself."""

    def __init__(self, world: World, *answers: tuple[int, str]) -> None:
        self.requests: list[Request] = []
        self._answers = list(answers)
        self._take = world.bob.engine.acceptors["SUBSCRIBE"]
        world.bob.engine.acceptors["SUBSCRIBE"] = self._received

    def _received(self, now: float, transaction: Any, record: Any) -> None:
        self.requests.append(transaction.request)
        if not self._answers:
            self._take(now, transaction, record)
            return
        code, line = self._answers.pop(0)
        name, _, value = line.partition(": ")
        transaction.respond(transaction.create_response(code, headers=[(name, value)] if line else []))

    @property
    def uris(self) -> list[str]:
        return [request.uri for request in self.requests]


# ---------------------------------------------------------------------- redirections


def test_a_redirection_is_followed(world: World) -> None:
    answers = Answers(world, (302, f"Contact: <{SECOND}>;q=0.5, <{FIRST}>"), (404, ""))
    watch = Watch(world).accept()
    assert watch.operation.message.status_code == 200
    assert answers.uris == ["sip:bob@bob.example", FIRST, SECOND]
    assert [request.cseq.number for request in answers.requests] == [1, 2, 3]
    assert len({(r.call_id, r.from_tag, r.headers.get("To")) for r in answers.requests}) == 1
    assert watch.states == [S.SUBSCRIBING, S.SUBSCRIBED]
    refresh = world.alice.do(watch.subscriber.refresh, (), None)
    assert refresh.message.cseq.number == 4
    watch.unsubscribe()


@pytest.mark.holds("R11")
@pytest.mark.parametrize("scheme", ["sip", "sips"])
def test_a_secure_request_is_redirected_securely(world: World, monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    asked: list[tuple[bool, bool]] = []

    def next_hop(uri: SipUri, secure: bool, learned: bool) -> Any:
        asked.append((secure, learned))
        raise ConnectionFailureException("No way there.")

    monkeypatch.setattr(world.alice.record.endpoint, "_next_hop", next_hop)
    redirection = create_response(received(make_request("SUBSCRIBE")), 302, headers=[("Contact", f"<{FIRST}>")])
    alice, uri = world.alice, f"{scheme}:bob@bob.example"
    target = Target("TLS", "bob.example", 5061, "bob.example")
    world.held = []
    subscriber = Subscriber(alice.engine, alice.record, alice, event="presence", uri=uri, to=f"<{uri}>", target=target)
    alice.do(subscriber.subscribe, (), None)
    assert subscriber._opening is not None
    assert subscriber._opening._request is not None
    subscriber._opening.responded(world.now, subscriber._opening._request, redirection)
    publication = Publication(alice.engine, alice.record, alice, event="presence", uri=uri, target=target)
    alice.do(publication.publish, PRESENCE, ())
    assert publication._request is not None
    publication.responded(world.now, publication._request, redirection)
    world.run()
    assert asked == [(scheme == "sips", True)] * 2


def test_too_many_redirections(world: World) -> None:
    answers = Answers(world, *((302, f"Contact: <sip:bob@bob.example;n={number}>") for number in range(9)))
    watch = Watch(world, maximum_redirects=2)
    assert watch.operation.message.status_code == 302
    assert len(answers.requests) == 3
    assert watch.states == [S.SUBSCRIBING, S.TERMINATED]
    over(world)


def test_a_redirection_that_is_not_followed(world: World) -> None:
    answers = Answers(world, (302, f"Contact: <{FIRST}>"))
    watch = Watch(world, maximum_redirects=0)
    assert watch.operation.message.status_code == 302
    assert len(answers.requests) == 1
    over(world)


def test_a_target_that_cannot_be_reached_leads_to_the_next(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    find = world.alice.record.endpoint._next_hop

    def next_hop(uri: SipUri, secure: bool, learned: bool) -> Any:
        if "place" in uri.parameters and uri.parameters["place"] == "1":
            assert learned
            raise ConnectionFailureException("No way there.")
        return find(uri, secure, learned)

    monkeypatch.setattr(world.alice.record.endpoint, "_next_hop", next_hop)
    answers = Answers(world, (302, f"Contact: <{FIRST}>, <{SECOND}>"))
    watch = Watch(world).accept()
    assert answers.uris == ["sip:bob@bob.example", SECOND]
    watch.unsubscribe()


def test_who_has_ended_it_follows_nobody(world: World) -> None:
    answers = Answers(world, (302, f"Contact: <{FIRST}>"))
    world.held = []
    watch = Watch(world)
    end = world.alice.do(watch.subscriber.terminate, ())
    world.release()
    assert len(answers.requests) == 1
    assert end.ends == [(None, None)]
    assert isinstance(watch.operation.error, OperationFailureException)
    over(world)


def test_each_new_subscription_asks_at_home(world: World) -> None:
    answers = Answers(world, (302, f"Contact: <{FIRST}>"))
    watch = Watch(world).accept()
    world.bob.do(watch.notifier.terminate, "deactivated", None, None)
    assert answers.uris == ["sip:bob@bob.example", FIRST, "sip:bob@bob.example"]
    watch.accept()
    watch.unsubscribe()


def test_a_longer_one_is_asked_for_by_the_next_number(world: World) -> None:
    answers = Answers(world, (423, "Min-Expires: 7200"))
    watch = Watch(world).accept()
    one, two = answers.requests
    assert (one.call_id, one.from_tag, one.cseq.number + 1) == (two.call_id, two.from_tag, two.cseq.number)
    watch.unsubscribe()


# ---------------------------------------------------------------------- in time


def test_no_answer_in_time(world: World) -> None:
    world.lose = lambda message: True
    watch = Watch(world, timeout=5.0)
    world.pass_time(4.9)
    assert watch.operation.ends == []
    world.pass_time(0.2)
    assert isinstance(watch.operation.error, OperationTimeoutException)
    assert watch.states == [S.SUBSCRIBING, S.TERMINATED]
    over(world)


@pytest.mark.parametrize("to", ["", "<sip:bob", '<sip:bob@bob.example>;tag="a"'])
def test_an_answer_that_cannot_make_a_dialog_is_dropped(world: World, to: str) -> None:
    """RFC 3261 18.1.2: a malformed response is no answer."""
    world.held = []
    watch = Watch(world)
    world.release()
    world.held = []
    watch.accept()
    deliver_next(world, ("To: <sip:bob@bob.example>;tag=", f"To: {to}\r\nX: "))
    world.held.clear()
    world.pass_time(70.0)
    assert isinstance(watch.operation.error, OperationTimeoutException)
    world.assert_over()


def test_redirections_take_of_the_same_time(world: World) -> None:
    world.delay = 1.0
    Answers(world, *((302, f"Contact: <sip:bob@bob.example;n={number}>") for number in range(9)))
    watch = Watch(world, timeout=5.0)
    world.pass_time(5.1)
    assert isinstance(watch.operation.error, OperationTimeoutException)
    assert world.log.count("SUBSCRIBE") == 3
    over(world)


def test_the_next_target_is_not_tried_when_time_is_over(world: World) -> None:
    answers = Answers(world, (302, f"Contact: <{FIRST}>, <{SECOND}>"))
    watch = Watch(world, timeout=5.0)  # Bob never decides
    world.pass_time(5.1)
    assert isinstance(watch.operation.error, OperationTimeoutException)
    assert answers.uris == ["sip:bob@bob.example", FIRST]
    over(world)


def test_a_notifier_is_there_but_the_caller_has_given_up(world: World) -> None:
    watch = Watch(world, timeout=5.0)
    world.lose = lambda message: message.cseq.method == "SUBSCRIBE" and not isinstance(message, Request)
    watch.accept()
    assert watch.subscriber.state is S.SUBSCRIBED
    world.pass_time(4.9)
    world.lose = None
    world.pass_time(0.2)
    assert isinstance(watch.operation.error, OperationTimeoutException)
    assert watch.states == [S.SUBSCRIBING, S.SUBSCRIBED, S.TERMINATING, S.TERMINATED]
    assert [event.why for event in world.bob.happened("SubscriptionEnded")] == ["unsubscribed"]
    over(world)


def test_a_refresh_that_is_not_answered_in_time(world: World) -> None:
    watch = Watch(world, timeout=5.0).accept()
    world.lose = lambda message: True
    refresh = world.alice.do(lambda now, operation: watch.subscriber.refresh(now, (), None, operation, 5.0))
    world.pass_time(4.9)
    assert refresh.ends == []
    world.pass_time(0.2)
    assert isinstance(refresh.error, OperationTimeoutException)
    assert watch.subscriber.state is S.SUBSCRIBED
    world.lose = None
    assert world.alice.do(watch.subscriber.refresh, (), None).message.status_code == 200
    watch.unsubscribe()


def test_the_time_of_the_caller_is_over_with_the_answer(world: World) -> None:
    watch = Watch(world, timeout=5.0).accept()
    world.bob.do(watch.notifier.terminate, "deactivated", None, None)
    world.pass_time(10.0)
    watch.accept()
    assert watch.subscriber.state is S.SUBSCRIBED
    watch.unsubscribe()


# ---------------------------------------------------------------------- again


def test_attempts_of_its_own_go_on_until_there_is_a_way(world: World) -> None:
    watch = Watch(world, expires=600).accept()
    world.cut()
    world.unreachable = True
    world.pass_time(601.0)
    assert watch.states[-2:] == [S.SUBSCRIBING, S.WAITING_FOR_RETRY]
    event = world.alice.happened("SubscriptionStateChanged")[-1]
    assert isinstance(event.error, ConnectionFailureException)
    attempts = len(watch.states)
    world.pass_time(30.0 + 60.0 + 120.0 + 1.0)
    assert len(watch.states) == attempts + 6
    world.unreachable = False
    world.pass_time(240.0)
    watch.accept()
    assert watch.subscriber.state is S.SUBSCRIBED
    world.bob.do(watch.notifier.terminate, "giveup", None, None)
    world.cut()
    world.unreachable = True
    world.pass_time(31.0)
    world.unreachable = False
    world.pass_time(30.0)  # it has had a notifier meanwhile, so the delays begin anew
    watch.accept()
    assert watch.subscriber.state is S.SUBSCRIBED
    watch.unsubscribe()


def test_one_that_lasts_is_begun_again_at_once_as_often_as_it_ends(world: World) -> None:
    watch = Watch(world).accept()
    for _ in range(6):
        world.pass_time(40.0)
        world.bob.do(watch.notifier.terminate, "deactivated", None, None)
        assert watch.subscriber.state is S.SUBSCRIBING
        watch.accept()
    watch.unsubscribe()


def test_the_delays_have_a_limit(world: World) -> None:
    watch = Watch(world, expires=600).accept()
    world.cut()
    world.unreachable = True
    world.pass_time(3600.0)
    attempts = len(watch.states)
    world.pass_time(9000.0)
    assert attempts + 2 * 10 == len(watch.states)
    world.alice.do(watch.subscriber.terminate, ())
    over(world)


@pytest.mark.parametrize(
    ("code", "state"), [(503, S.WAITING_FOR_RETRY), (504, S.WAITING_FOR_RETRY), (403, S.TERMINATED)]
)
def test_an_attempt_of_its_own_is_refused(world: World, code: int, state: S) -> None:
    watch = Watch(world).accept()
    first = watch.notifier
    Answers(world, (code, ""))
    world.bob.do(first.terminate, "deactivated", None, None)
    assert watch.subscriber.state is state
    world.alice.do(watch.subscriber.terminate, ())
    over(world)


def test_a_query_is_not_asked_again(world: World) -> None:
    Answers(world, (503, "Retry-After: 1"))
    watch = Watch(world, is_query=True)
    assert watch.operation.message.status_code == 503
    assert watch.states == [S.SUBSCRIBING, S.TERMINATED]
    over(world)


def test_a_notifier_that_gives_up_at_once_is_not_asked_all_the_time(world: World) -> None:
    world.delay = 0.01

    def give_up(party: Any, usage: Any, event: Any) -> None:
        if event is None:
            usage.accept(world.now, None, (), PRESENCE)
            usage.terminate(world.now, "giveup", 0, None, None)

    world.reactions.append(give_up)
    watch = Watch(world)
    world.pass_time(20.0)
    assert world.log.count("SUBSCRIBE") == 3
    assert watch.subscriber.state is S.WAITING_FOR_RETRY
    world.alice.do(watch.subscriber.terminate, ())
    over(world)


def test_there_is_no_room_for_a_second_try_either() -> None:
    world = World(settings=ManagerSettings(maximum_dialogs=1))
    first = Watch(world).accept()
    second = Watch(world)
    again = world.alice.do(second.subscriber.subscribe, (), None)
    assert "1 dialogs are open" in str(again.error)
    assert second.states[-2:] == [S.SUBSCRIBING, S.TERMINATED]  # so its owner knows that it is over
    first.unsubscribe()
