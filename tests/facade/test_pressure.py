"""Queues that are full, with a loop that is none: when reading rests and goes on, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from p2psip import ManagerSettings, pressure
from p2psip.pressure import REFUSED, REST, Pressure

SETTINGS = ManagerSettings(strand_high_mark=8, strand_low_mark=4)


class Loop:
    """Time and timers."""

    def __init__(self) -> None:
        self.now = 0.0
        self.looks: list[Callable[[], object]] = []
        self.rests: list[tuple[float, Callable[[], object]]] = []
        self.clock = SimpleNamespace(now=lambda: self.now)

    def call_later(self, delay: float, function: Callable[..., object], *args: object) -> None:
        if args:
            self.rests.append((delay, lambda: function(*args)))
        else:
            self.looks.append(function)

    def post(self, function: Callable[..., object], *args: object) -> None:
        function(*args)

    def look(self) -> None:
        """Once more at the queues."""
        self.looks.pop()()


class Flow:
    """A connection that writes down when it is read and when not."""

    def __init__(self, owed: int = 0, unanswered: int = 0) -> None:
        self.owed = owed
        self.unanswered = unanswered
        self.told: list[tuple[str, str]] = []

    def pause_reading(self, why: str) -> None:
        self.told.append(("rest", why))

    def resume_reading(self, why: str) -> None:
        self.told.append(("go on", why))

    @property
    def words(self) -> list[str]:
        return [word for word, _ in self.told]


class Strand:
    """A queue that is as full as the test says."""

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.posted: list[tuple[Any, ...]] = []

    def post(self, *call: Any) -> None:
        self.posted.append(call)


def transaction(flow: Flow) -> Any:
    return SimpleNamespace(flow=flow, request=SimpleNamespace(to_bytes=bytes), is_answered=False)


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(pressure, "YIELD", 10**9)  # nothing sleeps
    return Loop()


@pytest.fixture
def refused() -> list[Any]:
    return []


@pytest.fixture
def workers() -> SimpleNamespace:
    """Those who run handlers."""
    return SimpleNamespace(depth=0, is_exhausted=False)


@pytest.fixture
def full(loop: Any, workers: Any, refused: list[Any]) -> Any:
    """A Pressure, for any kind of strand."""
    return Pressure(loop, SETTINGS, workers, refused.append)


def test_who_refuses_lets_handlers_work(
    loop: Loop, workers: Any, refused: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is above REFUSALS a second stays unread for so long."""
    monkeypatch.setattr(pressure, "REFUSALS", 50.0)
    full: Any = Pressure(loop, SETTINGS, workers, refused.append)  # type: ignore[arg-type]
    strand, flow = Strand(16), Flow(owed=16)
    for _ in range(50):
        full.deliver(strand, transaction(flow), print)
    assert (len(refused), flow.told) == (50, [])
    for _ in range(10):
        full.deliver(strand, transaction(flow), print)
    assert (len(refused), flow.told) == (60, [("rest", REFUSED)])
    ((delay, over),) = loop.rests
    assert delay == pytest.approx(1 / 50)
    over()
    assert flow.told[1:] == [("go on", REFUSED)]


def test_what_others_owe_keeps_nobody_unread_for_long(loop: Loop, full: Any) -> None:
    """Each of many connections brings a few requests more than can be refused now."""
    strand = Strand(5000)
    for _ in range(4000):
        flow = Flow(owed=5000)
        for _ in range(3):
            full.deliver(strand, transaction(flow), print)
    assert full.counts["refused"] == 12_000
    assert max(delay for delay, _ in loop.rests) == REST


@pytest.mark.parametrize(("waited", "is_handled"), [(14.9, True), (15.1, False)])
def test_half_of_the_time_of_handlers_may_be_waited(
    loop: Loop, full: Any, refused: list[Any], waited: float, is_handled: bool
) -> None:
    """Else there would be no time to handle it."""
    strand, it, handled = Strand(0), transaction(Flow(owed=1)), []  # type: ignore[var-annotated]
    full.deliver(strand, it, handled.append, it)
    ((turn, *args),) = strand.posted
    loop.now = waited
    turn(*args)
    assert (handled, refused) == (([it], []) if is_handled else ([], [it]))


def test_reading_rests_until_the_queue_is_at_its_low_mark(loop: Loop, full: Any) -> None:
    strand, flow = Strand(8), Flow()
    full.slow_down(strand, flow)
    for strand.depth, expected in ((8, ["rest"]), (5, ["rest"]), (4, ["rest", "go on"])):
        loop.look()
        assert flow.words == expected


def test_a_connection_that_is_closed_is_forgotten(loop: Loop, full: Any) -> None:
    strand, flow = Strand(8), Flow()
    full.slow_down(strand, flow)
    full.forget(flow)
    strand.depth = 4
    loop.look()
    assert flow.words == ["rest"]


def test_a_queue_is_over_when_it_has_been_low_for_a_while(
    loop: Loop, full: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pressure, "PATIENCE", 1.0)
    strand = Strand(8)
    full.slow_down(strand, Flow())
    for loop.now, strand.depth, is_full in (
        *((1, 4, True), (1.9, 5, True)),  # up again before that
        *((2.1, 4, True), (3.0, 4, True), (3.2, 4, False)),
    ):
        loop.look()
        assert bool(full._held) is is_full, loop.now
    assert loop.looks == []


@pytest.mark.parametrize(("depth", "words"), [(15, ["rest", "go on"]), (16, ["rest"])])
def test_a_connection_that_owes_us_an_answer_is_read_up_to_twice_the_mark(
    loop: Loop, full: Any, depth: int, words: list[str]
) -> None:
    """A handler may wait for that answer; but what cannot be refused must end somewhere."""
    flow = Flow(unanswered=1)
    full.slow_down(Strand(depth), flow)
    loop.look()
    assert flow.words == words


@pytest.mark.parametrize(("depth", "words"), [(15, ["rest", "go on"]), (16, ["rest"])])
def test_who_brings_what_all_workers_wait_for_is_read_likewise(
    loop: Loop, workers: SimpleNamespace, full: Any, depth: int, words: list[str]
) -> None:
    """Each of them waits for the ACK to a call, say, which nobody reads."""
    flow = Flow()
    full.slow_down(Strand(depth), flow)
    loop.look()
    assert flow.words == ["rest"]
    workers.is_exhausted = True
    loop.look()
    assert flow.words == words


@pytest.mark.parametrize("end", ["is_answered", "is_terminated"])
def test_a_heavy_call_weighs_until_it_is_answered_or_over(loop: Loop, full: Any, end: str) -> None:
    acceptors: dict[str, Any] = {"INVITE": lambda now, transaction: None}
    full.guard(acceptors)
    request = SimpleNamespace(to_bytes=lambda: bytes(pressure.HEAVY))
    call = type("Call", (), {"flow": Flow(), "request": request, "is_answered": False, "is_terminated": False})()
    acceptors["INVITE"](0.0, call)
    loop.look()
    assert full.weight.depth == pressure.HEAVY
    setattr(call, end, True)
    loop.look()
    assert full.weight.depth == 0
    assert loop.looks == []
