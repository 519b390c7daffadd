"""Names to addresses: literals, merged questions, the cache, deadlines."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
from net_support import PATIENCE, Outcome, Side, sides

from p2psip.config import ManagerSettings
from p2psip.errors import ConnectionFailureException
from p2psip.net.questions import MAXIMUM_THREADS
from p2psip.net.selection import Answer, Query, Srv, Wanted
from p2psip.testing.clock import FakeClock
from p2psip.testing.network import Hosts

__all__ = ["sides"]

Make = Callable[..., Side]


class Names:
    """Stands in for ``getaddrinfo``; answers when it is let."""

    def __init__(self, answer: Any = None, *, held: bool = False) -> None:
        self.asked: list[str] = []
        self.let = threading.Semaphore(0)
        self.entered = threading.Semaphore(0)
        self.held = held
        self.answer = [("127.0.0.9", 0)] if answer is None else answer

    def __call__(self, host: str, port: None, **options: Any) -> Any:
        self.asked.append(host)
        self.entered.release()
        if self.held:
            assert self.let.acquire(timeout=PATIENCE)
        if isinstance(self.answer, Exception):
            raise self.answer
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in self.answer]


def resolve(side: Side, host: str) -> Outcome:
    outcome = Outcome()
    side.call(side.network.resolver.resolve, host, outcome, outcome)
    return outcome


@pytest.mark.parametrize(
    ("literal", "family", "host"),
    [
        ("127.0.0.1", socket.AF_INET, "127.0.0.1"),
        ("::1", socket.AF_INET6, "::1"),
        ("[::1]", socket.AF_INET6, "::1"),
        ("2001:DB8::1", socket.AF_INET6, "2001:db8::1"),
    ],
)
def test_literals_ask_nobody(sides: Make, literal: str, family: int, host: str) -> None:
    names = Names()
    side = sides(lookup=names)
    ((found, address),) = resolve(side, literal).wait()
    assert (found, address[0], address[1]) == (family, host, 0)
    assert names.asked == []


def test_an_unknown_zone_is_a_connection_failure(sides: Make) -> None:
    error = resolve(sides(lookup=Names()), "fe80::1%no-such-zone").error()
    assert isinstance(error, ConnectionFailureException)
    assert "fe80::1%no-such-zone" in str(error)


def test_the_answer_never_comes_from_within(sides: Make) -> None:
    side = sides(lookup=Names())

    def ask() -> int:
        outcome = Outcome()
        side.network.resolver.resolve("127.0.0.1", outcome, outcome)
        side.network.resolver.resolve("fe80::1%no-such-zone", outcome, outcome)
        return outcome.calls

    assert side.call(ask) == 0


def test_a_name_is_asked_for_once_by_all(sides: Make) -> None:
    names = Names(held=True)
    side = sides(lookup=names)
    outcomes = [resolve(side, name) for name in ("b.example", "B.Example", "b.example.")]
    names.let.release()
    assert {tuple(outcome.wait()) for outcome in outcomes} == {((socket.AF_INET, ("127.0.0.9", 0)),)}
    assert names.asked == ["b.example"]


def test_answers_are_remembered_for_half_a_minute(sides: Make) -> None:
    clock = FakeClock()
    names = Names()
    side = sides(lookup=names, clock=clock)
    resolve(side, "b.example").wait()
    clock.advance(29)
    resolve(side, "b.example").wait()
    assert len(names.asked) == 1
    clock.advance(2)
    resolve(side, "b.example").wait()
    assert len(names.asked) == 2


@pytest.mark.holds("F17")
def test_a_hanging_lookup_is_given_up_in_time(sides: Make) -> None:
    clock = FakeClock()
    names = Names(held=True)
    side = sides(ManagerSettings(resolve_timeout=10), lookup=names, clock=clock)
    first, second = resolve(side, "b.example"), resolve(side, "b.example")
    clock.advance(9.9)
    assert (first.calls, second.calls) == (0, 0)
    clock.advance(0.2)
    errors = [first.error(), second.error()]
    assert errors[0] is not errors[1]
    assert all(isinstance(e, ConnectionFailureException) and "no answer within 10 s" in str(e) for e in errors)
    names.let.release()
    names.held = False
    assert resolve(side, "b.example").wait()  # a new question, and the old answer hurts nobody
    assert (first.calls, second.calls) == (1, 1)


def test_questions_beyond_the_threads_wait_and_are_given_up_too(sides: Make) -> None:
    clock = FakeClock()
    names = Names(held=True)
    side = sides(lookup=names, clock=clock)
    outcomes = [resolve(side, f"host{n}.example") for n in range(MAXIMUM_THREADS + 1)]
    for _ in range(MAXIMUM_THREADS):
        assert names.entered.acquire(timeout=PATIENCE)
    side.settle()
    assert len(names.asked) == MAXIMUM_THREADS
    clock.advance(11)
    for outcome in outcomes:
        outcome.error()
    for _ in range(MAXIMUM_THREADS):
        names.let.release()
    names.held = False
    resolve(side, "last.example").wait()
    assert f"host{MAXIMUM_THREADS}.example" not in names.asked


def test_a_thread_that_cannot_be_started_is_a_failure_and_no_end(sides: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    side = sides(lookup=Names())

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        outcomes = [resolve(side, f"host{n}.example") for n in range(MAXIMUM_THREADS + 1)]
    for outcome in outcomes:
        error = outcome.error()
        assert isinstance(error, ConnectionFailureException)
        assert isinstance(error.__cause__, RuntimeError)
    assert resolve(side, "host0.example").wait()
    side.settle()
    assert [outcome.calls for outcome in outcomes] == [1] * len(outcomes)


@pytest.mark.parametrize(
    "error", [socket.gaierror(-2, "no such name"), UnicodeError("label too long"), OSError(5, "io")]
)
def test_failures_are_typed_and_name_the_host(sides: Make, error: Exception) -> None:
    failure = resolve(sides(lookup=Names(error)), "b.example").error()
    assert isinstance(failure, ConnectionFailureException)
    assert failure.__cause__ is error
    assert "'b.example'" in str(failure)


def test_a_name_without_address_is_a_failure(sides: Make) -> None:
    assert "no address" in str(resolve(sides(lookup=Names([])), "b.example").error())


def test_given_hosts_go_first_and_the_rest_is_asked_for(sides: Make) -> None:
    names = Names()
    side = sides(lookup=names, hosts={"b.example": ["192.0.2.2", "2001:db8::2"]})
    found = resolve(side, "B.example").wait()
    assert [address[0] for _, address in found] == ["192.0.2.2", "2001:db8::2"]
    assert names.asked == []
    resolve(side, "c.example").wait()
    assert names.asked == ["c.example"]


def test_in_a_world_of_its_own_nobody_else_is_asked(sides: Make) -> None:
    names = Names()
    side = sides(lookup=names, hosts=Hosts())
    assert "no such host" in str(resolve(side, "c.example").error())
    assert names.asked == []


def test_an_asker_that_fails_does_not_keep_the_answer_from_the_others(
    sides: Make, caplog: pytest.LogCaptureFixture
) -> None:
    names = Names(held=True)
    side = sides(lookup=names)

    def fail(addresses: object) -> None:
        raise KeyError("a bug")

    side.call(side.network.resolver.resolve, "b.example", fail, fail)
    outcome = resolve(side, "b.example")
    names.let.release()
    outcome.wait()
    assert len(caplog.records) == 1
    caplog.clear()


# ---------------------------------------------------------------------- services

SECURE = "SRV _sips._tcp.b.example"
TLS = Wanted("TLS", "b.example", None)


class Dns:
    """Stands in for the nameservers; answers when it is let. What it does not know is not there for ``ttl`` seconds."""

    def __init__(self, *, held: bool = False, ttl: float = 100.0, **options: Any) -> None:
        self.records: dict[str, Answer] = {}
        self.asked: list[str] = []
        self.servers: list[Any] = []
        self.seconds: list[float] = []
        self.let = threading.Semaphore(0)
        self.entered = threading.Semaphore(0)
        self.held = held
        self.ttl = ttl

    def __call__(self, query: Query, nameservers: Any, seconds: float) -> tuple[Answer, float]:
        self.asked.append(str(query))
        self.servers.append(nameservers)
        self.seconds.append(seconds)
        self.entered.release()
        if self.held:
            assert self.let.acquire(timeout=PATIENCE)
        return self.records.get(str(query), Answer()), self.ttl


def servers(*hosts: str) -> Answer:
    return Answer(tuple(Srv(number, 0, 5061, host) for number, host in enumerate(hosts)))


def plan(side: Side, wanted: Wanted = TLS) -> Outcome:
    outcome = Outcome()
    side.call(side.network.resolver.plan, wanted, outcome)
    return outcome


def hosts_of(outcome: Outcome) -> list[str]:
    return [place.host for place in outcome.wait().places]


def test_services_are_asked_for_once_by_all_and_remembered_as_long_as_they_say(sides: Make) -> None:
    clock = FakeClock()
    dns = Dns(held=True, ttl=100)
    dns.records[SECURE] = servers("one.b.example", "two.b.example")
    side = sides(ask=dns, clock=clock)
    outcomes = [plan(side, TLS._replace(host=name)) for name in ("b.example", "B.Example.")]
    dns.let.release()
    assert [hosts_of(outcome) for outcome in outcomes] == [["one.b.example", "two.b.example"]] * 2
    clock.advance(99)
    assert hosts_of(plan(side)) == ["one.b.example", "two.b.example"]
    assert dns.asked == [SECURE]
    clock.advance(2)
    dns.let.release()
    plan(side).wait()
    assert dns.asked == [SECURE] * 2


def test_that_there_are_none_is_remembered_too(sides: Make) -> None:
    clock = FakeClock()
    dns = Dns(ttl=30)
    side = sides(ask=dns, clock=clock)
    assert hosts_of(plan(side)) == ["b.example"]
    clock.advance(29)
    assert hosts_of(plan(side)) == ["b.example"]
    assert len(dns.asked) == 1
    clock.advance(2)
    plan(side).wait()
    assert len(dns.asked) == 2


def test_the_draw_between_equals_is_made_again_each_time(sides: Make) -> None:
    dns = Dns()
    dns.records[SECURE] = Answer(tuple(Srv(1, 1, 5061, f"h{n}.b.example") for n in range(8)))
    side = sides(ask=dns)
    assert len({tuple(hosts_of(plan(side))) for _ in range(20)}) > 1
    assert len(dns.asked) == 1


def test_a_hanging_nameserver_leaves_time_for_the_addresses(sides: Make) -> None:
    clock = FakeClock()
    dns = Dns(held=True)
    side = sides(ManagerSettings(resolve_timeout=10), ask=dns, clock=clock)
    outcome = plan(side)
    assert dns.entered.acquire(timeout=PATIENCE)
    clock.advance(3.9)
    assert outcome.calls == 0
    clock.advance(0.2)
    found = outcome.wait()
    assert [place.host for place in found.places] == ["b.example"]
    assert found.problems == [f"{SECURE}: no answer within 4 s"]
    assert dns.seconds == [4.0]
    dns.let.release()


def test_all_questions_of_a_search_share_its_time(sides: Make) -> None:
    clock = FakeClock()
    dns = Dns(held=True)
    side = sides(ManagerSettings(resolve_timeout=10), ask=dns, clock=clock)
    outcome = plan(side, TLS._replace(asks_for_transport=True))
    assert dns.entered.acquire(timeout=PATIENCE)
    clock.advance(3.9)
    dns.let.release()
    assert dns.entered.acquire(timeout=PATIENCE)
    side.settle()
    clock.advance(0.2)
    assert len(outcome.wait().problems) == 1
    dns.let.release()


def test_a_late_answer_is_good_for_the_next_time(sides: Make) -> None:
    clock = FakeClock()
    dns = Dns(held=True)
    dns.records[SECURE] = servers("one.b.example")
    side = sides(ask=dns, clock=clock)
    outcome = plan(side)
    assert dns.entered.acquire(timeout=PATIENCE)
    clock.advance(5)
    assert hosts_of(outcome) == ["b.example"]
    dns.let.release()
    for thread in threading.enumerate():
        if thread.name == "test loop resolver":
            thread.join(PATIENCE)
    assert hosts_of(plan(side)) == ["one.b.example"]
    assert dns.asked == [SECURE]


def test_a_machine_without_dns_is_left_alone_for_a_while(sides: Make) -> None:
    clock = FakeClock()
    dns = Dns()
    silence = Answer(problem="no nameserver answered", is_silence=True)
    dns.records = {f"SRV _sips._tcp.{name}.example": silence for name in "abc"}
    side = sides(ask=dns, clock=clock)
    assert hosts_of(plan(side, TLS._replace(host="a.example"))) == ["a.example"]
    assert hosts_of(plan(side, TLS._replace(host="b.example"))) == ["b.example"]
    assert len(dns.asked) == 1
    clock.advance(31)
    plan(side, TLS._replace(host="b.example")).wait()
    assert len(dns.asked) == 2


def test_one_name_that_nobody_answers_for_says_nothing_of_others(sides: Make) -> None:
    dns = Dns()
    dns.records["SRV _sips._tcp.a.example"] = Answer(problem="no nameserver answered", is_silence=True)
    dns.records[SECURE] = servers("one.b.example")
    side = sides(ask=dns)
    plan(side, TLS._replace(host="known.example")).wait()
    assert hosts_of(plan(side, TLS._replace(host="a.example"))) == ["a.example"]
    assert hosts_of(plan(side)) == ["one.b.example"]


@pytest.mark.parametrize("host", ["localhost", "bob.localhost", "127.0.0.1", "::1", "[::1]", "fileserver", "x.invalid"])
def test_what_is_on_this_machine_is_not_asked_for(sides: Make, host: str) -> None:
    dns = Dns()
    wanted = Wanted("TCP", host, None, True, True)
    assert hosts_of(plan(sides(ask=dns), wanted)) == [host.strip("[]")]
    assert dns.asked == []


def test_a_plan_never_comes_from_within(sides: Make) -> None:
    side = sides(ask=Dns())

    def ask() -> int:
        outcome = Outcome()
        for host in ("127.0.0.1", "localhost", "b.example"):
            side.network.resolver.plan(TLS._replace(host=host), outcome)
        return outcome.calls

    assert side.call(ask) == 0


def test_an_exception_of_the_question_is_a_problem(sides: Make) -> None:
    def fail(query: Query, nameservers: Any, seconds: float) -> Any:
        raise MemoryError("no room")

    assert plan(sides(ask=fail)).wait().problems == [f"{SECURE}: no room"]


def test_other_nameservers_are_asked_for_everything(sides: Make) -> None:
    names, dns = Names(), Dns()
    dns.records = {
        SECURE: servers("one.b.example"),
        "A one.b.example": Answer(("192.0.2.1",)),
        "AAAA one.b.example": Answer(("2001:db8::1",)),
    }
    side = sides(ask=dns, lookup=names, hosts={".": [("127.0.0.1", 5300)]})
    assert hosts_of(plan(side)) == ["one.b.example"]
    found = resolve(side, "one.b.example").wait()
    assert {address[0] for _, address in found} == {"192.0.2.1", "2001:db8::1"}
    assert dns.servers == [[("127.0.0.1", 5300)]] * 3
    assert names.asked == []
    assert "no address" in str(resolve(side, "two.b.example").error())
    dns.records["A three.b.example"] = Answer(problem="the nameserver answered SERVFAIL")
    assert "SERVFAIL" in str(resolve(side, "three.b.example").error())
    resolve(side, "bob.localhost").wait()
    assert names.asked == ["bob.localhost"]


def test_the_dns_can_be_switched_off(sides: Make) -> None:
    names, dns = Names(), Dns()
    side = sides(ask=dns, lookup=names, hosts={".": []})
    assert hosts_of(plan(side)) == ["b.example"]
    resolve(side, "b.example").wait()
    assert (dns.asked, names.asked) == ([], ["b.example"])
