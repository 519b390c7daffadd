"""Events: handlers, their isolation, and expect()."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sync_support import BOUND, Recorder, in_thread, until

from p2psip.errors import OperationTimeoutException, RealTimeInvalidOperationException
from p2psip.sync import Dispatcher, Event, forbid_blocking, has_handlers


class Phone:
    """An object with two events."""

    rang: Event[Phone, str] = Event()
    hung_up: Event[Phone, int] = Event()


class Mobile(Phone):
    moved: Event[Mobile, str] = Event()


@pytest.fixture
def phone() -> Phone:
    return Phone()


@pytest.fixture
def dispatcher() -> Iterator[Dispatcher]:
    dispatcher = Dispatcher("test", 16)
    yield dispatcher
    assert dispatcher.stop(BOUND)


# ---------------------------------------------------------------------- handlers


def test_handlers_get_sender_and_args_in_order(phone: Phone) -> None:
    calls: list[tuple[Any, ...]] = []
    phone.rang += lambda *args: calls.append((1, *args))
    phone.rang += lambda *args: calls.append((2, *args))
    assert phone.rang.raise_event(phone, "bob")
    assert calls == [(1, phone, "bob"), (2, phone, "bob")]


def test_each_object_and_each_event_is_its_own(phone: Phone) -> None:
    other, called = Phone(), Recorder()
    phone.rang += called
    assert phone.rang and not other.rang and not phone.hung_up
    other.rang.raise_event(other, "x")
    phone.hung_up.raise_event(phone, 1)
    assert called.calls == []
    mobile = Mobile()
    mobile.rang += called
    mobile.rang.raise_event(mobile, "y")
    assert called.calls == [(mobile, "y")]
    assert not mobile.moved


def test_truth_follows_the_handlers(phone: Phone) -> None:
    called = Recorder()
    assert not phone.rang
    phone.rang += called
    assert phone.rang
    assert list(phone.rang.handlers) == [called]
    phone.rang -= called
    assert not phone.rang


def test_asking_for_handlers_makes_no_event(phone: Phone) -> None:
    assert not has_handlers(phone, "rang")
    assert vars(phone) == {}
    called = Recorder()
    phone.rang += called
    assert has_handlers(phone, "rang")
    assert not has_handlers(phone, "hung_up")
    phone.rang -= called
    assert not has_handlers(phone, "rang")


def test_removing_takes_the_last_equal_one_and_forgives_absence(phone: Phone) -> None:
    first, second = Recorder(), Recorder()
    phone.rang += first
    phone.rang += second
    phone.rang += first
    phone.rang -= first
    assert list(phone.rang.handlers) == [first, second]
    phone.rang -= first
    phone.rang -= first
    assert list(phone.rang.handlers) == [second]


def test_bound_methods_are_equal_and_held_strongly(phone: Phone) -> None:
    class Listener:
        def __init__(self) -> None:
            self.heard: list[str] = []

        def on_ring(self, sender: Phone, args: str) -> None:
            self.heard.append(args)

    listener = Listener()
    phone.rang += listener.on_ring
    phone.rang.raise_event(phone, "a")
    phone.rang -= listener.on_ring
    phone.rang.raise_event(phone, "b")
    assert listener.heard == ["a"]
    phone.rang += Listener().on_ring
    gc.collect()
    assert len(phone.rang.handlers) == 1


def test_snapshot_while_raising(phone: Phone) -> None:
    calls: list[str] = []

    def late(sender: Phone, args: str) -> None:
        calls.append("late")

    def changes(sender: Phone, args: str) -> None:
        calls.append("changes")
        phone.rang += late
        phone.rang -= removed

    def removed(sender: Phone, args: str) -> None:
        calls.append("removed")

    phone.rang += changes
    phone.rang += removed
    phone.rang.raise_event(phone, "")
    assert calls == ["changes", "removed"]
    calls.clear()
    phone.rang -= changes
    phone.rang.raise_event(phone, "")
    assert calls == ["late"]


def test_no_lock_is_held_while_handlers_run(phone: Phone) -> None:
    def handler(sender: Phone, args: str) -> None:
        def add() -> None:
            phone.rang += Recorder()

        in_thread(add)

    phone.rang += handler
    phone.rang.raise_event(phone, "")
    assert len(phone.rang.handlers) == 2


def test_handlers_from_eight_threads_all_count(phone: Phone) -> None:
    barrier = threading.Barrier(8)

    def add_and_remove(_: int) -> None:
        stays, goes = Recorder(), Recorder()
        barrier.wait(BOUND)
        for _i in range(100):
            phone.rang += goes
            phone.rang += stays
            phone.rang -= goes

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add_and_remove, range(8)))
    assert len(phone.rang.handlers) == 800


def test_an_exception_is_reported_and_the_next_handler_runs(phone: Phone, caplog: pytest.LogCaptureFixture) -> None:
    errors, called, done = Recorder(), Recorder(), Recorder()
    problems: list[BaseException] = [ValueError("one"), SystemExit("two")]

    def bad(sender: Phone, args: str) -> None:
        raise problems[0]

    def worse(sender: Phone, args: str) -> None:
        raise problems[1]

    phone.rang += bad
    phone.rang += worse
    phone.rang += called
    phone.rang.raise_event(phone, "x", errors, done)
    assert errors.calls == [(phone, problems[0], bad), (phone, problems[1], worse)]
    assert called.calls == [(phone, "x")]
    assert done.calls == [()]
    assert "Phone.rang" in caplog.text
    assert "bad" in caplog.text


def test_a_report_that_raises_stops_nothing(phone: Phone, caplog: pytest.LogCaptureFixture) -> None:
    called = Recorder()

    def bad(*_: object) -> None:
        raise ValueError("bad")

    phone.rang += bad
    phone.rang += called
    phone.rang.raise_event(phone, "x", bad)
    assert called.calls == [(phone, "x")]


def test_plain_assignment_is_refused(phone: Phone) -> None:
    phone.rang += Recorder()
    values: list[Any] = [Recorder(), None, Event("other")]
    for value in values:
        with pytest.raises(AttributeError, match=r"Phone\.rang is an event.*\+="):
            phone.rang = value
    fresh = Phone()
    with pytest.raises(AttributeError):
        fresh.rang = phone.rang
    with pytest.raises(AttributeError):
        del phone.rang
    assert len(phone.rang.handlers) == 1


def test_what_is_no_handler_is_refused(phone: Phone) -> None:
    async def coroutine(sender: Phone, args: str) -> None: ...

    with pytest.raises(TypeError, match="rang"):
        phone.rang += 5  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="coroutine"):
        phone.rang += coroutine
    with pytest.raises(TypeError, match="not to the class"):
        Phone.rang += Recorder()
    assert not phone.rang


def test_as_an_attribute_of_an_instance() -> None:
    class Slotted:
        __slots__ = ("__weakref__", "changed")

        def __init__(self) -> None:
            self.changed: Event[Slotted, int] = Event("changed", self)

    slotted, called = Slotted(), Recorder()
    slotted.changed += called
    slotted.changed.raise_event(slotted, 3)
    assert called.calls == [(slotted, 3)]
    assert "Slotted.changed" in repr(slotted.changed)


def test_an_object_with_events_is_freed_at_once(dispatcher: Dispatcher) -> None:
    phone = Phone()
    phone.rang += lambda *_: None
    strand = dispatcher.strand("phone", owner=phone)
    ran = threading.Event()
    strand.post(phone.rang.raise_event, phone, "x", None, ran.set)
    assert ran.wait(BOUND)
    gone = weakref.ref(phone)
    gc.disable()
    try:
        del phone
        until(lambda: gone() is None)
        assert strand.owner is None
    finally:
        gc.enable()


# ---------------------------------------------------------------------- expect


def raise_later(dispatcher: Dispatcher, phone: Phone, *names: str) -> None:
    strand = dispatcher.strand("phone", owner=phone)
    for name in names:
        strand.post(phone.rang.raise_event, phone, name)


def test_expect_waits_at_the_end_of_its_block(phone: Phone, dispatcher: Dispatcher) -> None:
    reached = threading.Event()

    def ring() -> None:
        assert reached.wait(BOUND)
        until(lambda: bool(got._operation._waiters))
        phone.rang.raise_event(phone, "bob")

    with phone.rang.expect(timeout=BOUND) as got:
        dispatcher.submit(ring)
        reached.set()
    assert got.args == "bob"
    assert got.sender is phone
    assert not phone.rang


def test_expect_misses_nothing_from_the_beginning_of_its_block(phone: Phone) -> None:
    with phone.rang.expect(timeout=BOUND) as got:
        phone.rang.raise_event(phone, "first")
        phone.rang.raise_event(phone, "second")
    assert got.args == "first"


def test_args_within_the_block_wait(phone: Phone, dispatcher: Dispatcher) -> None:
    with phone.rang.expect(timeout=BOUND) as got:
        raise_later(dispatcher, phone, "bob")
        assert got.args == "bob"


def test_expect_that_nothing_meets(phone: Phone) -> None:
    with (
        pytest.raises(OperationTimeoutException, match=r"Phone\.rang.*0\.01 s") as caught,
        phone.rang.expect(0.01) as got,
    ):
        assert phone.rang
    assert isinstance(caught.value, TimeoutError)
    assert not phone.rang
    assert got._operation._waiters == []
    phone.rang.raise_event(phone, "too late")
    with pytest.raises(RealTimeInvalidOperationException, match=r"Phone\.rang"):
        got.args  # noqa: B018


def test_args_without_a_block_are_refused(phone: Phone) -> None:
    with pytest.raises(RealTimeInvalidOperationException, match="with statement"):
        phone.rang.expect().args  # noqa: B018


def test_an_exception_of_the_block_comes_out_at_once(phone: Phone) -> None:
    with pytest.raises(KeyError), phone.rang.expect(timeout=BOUND):
        raise KeyError("block")
    assert not phone.rang


def test_predicate_chooses(phone: Phone, dispatcher: Dispatcher) -> None:
    threads: list[threading.Thread] = []

    def wanted(name: str) -> bool:
        threads.append(threading.current_thread())
        return name == "carol"

    with phone.rang.expect(BOUND, wanted) as got:
        raise_later(dispatcher, phone, "alice", "bob", "carol", "dave")
    assert got.args == "carol"
    assert threading.current_thread() not in threads
    assert len(threads) == 3


def test_an_exception_of_the_predicate_reaches_the_block(phone: Phone) -> None:
    errors = Recorder()

    def broken(name: str) -> bool:
        raise TimeoutError("predicate")

    with pytest.raises(TimeoutError, match="predicate"), phone.rang.expect(BOUND, broken):
        phone.rang.raise_event(phone, "bob", errors)
    assert isinstance(errors.calls[0][1], TimeoutError)


def test_expectations_and_handlers_see_the_same_event(phone: Phone) -> None:
    called = Recorder()
    phone.rang += called
    with phone.rang.expect(BOUND) as one, phone.rang.expect(BOUND) as two:
        assert list(phone.rang.handlers) == [called]
        phone.rang.raise_event(phone, "bob")
    assert one.args == two.args == "bob"
    assert called.calls == [(phone, "bob")]


def test_what_follows_waits_for_the_end_of_the_block(phone: Phone) -> None:
    done = Recorder()
    with phone.rang.expect(BOUND) as got:
        assert phone.rang.raise_event(phone, "bob", done=done) is False
        assert got.args == "bob"
        assert done.calls == []
    assert done.calls == [()]


def test_what_follows_waits_for_every_block_that_caught_it(phone: Phone) -> None:
    done = Recorder()
    with phone.rang.expect(BOUND):
        with phone.rang.expect(BOUND):
            phone.rang.raise_event(phone, "bob", done=done)
        assert done.calls == []
    assert done.calls == [()]


def test_what_follows_is_held_for_the_event_that_was_caught_only(phone: Phone) -> None:
    done: list[str] = []
    with phone.rang.expect(BOUND, lambda name: name == "bob") as got:
        assert phone.rang.raise_event(phone, "alice", done=lambda: done.append("alice"))
        assert not phone.rang.raise_event(phone, "bob", done=lambda: done.append("bob"))
        assert phone.rang.raise_event(phone, "bob", done=lambda: done.append("bob again"))
        assert done == ["alice", "bob again"]
    assert got.args == "bob"
    assert done == ["alice", "bob again", "bob"]


def test_what_follows_is_released_by_a_block_that_raises(phone: Phone) -> None:
    done = Recorder()
    with pytest.raises(KeyError), phone.rang.expect(BOUND):
        phone.rang.raise_event(phone, "bob", done=done)
        raise KeyError
    assert done.calls == [()]


def test_what_follows_waits_for_the_handlers_too(phone: Phone, dispatcher: Dispatcher) -> None:
    done, go = Recorder(), threading.Event()
    with phone.rang.expect(BOUND):
        # After the expectation, so that its block can end while this one still runs.
        phone.rang += lambda *_: go.wait(BOUND)
        dispatcher.submit(phone.rang.raise_event, phone, "bob", None, done)
    assert done.calls == []
    go.set()
    done.wait(1)


def test_an_exception_of_what_follows_does_not_reach_the_block(phone: Phone, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> None:
        raise ValueError("broken")

    with phone.rang.expect(BOUND):
        phone.rang.raise_event(phone, "bob", done=broken)
    assert "broken" in caplog.text


@pytest.mark.parametrize("turn", range(50))
def test_the_end_of_a_block_and_an_event_race(phone: Phone, dispatcher: Dispatcher, turn: int) -> None:
    done = Recorder()
    barrier = threading.Barrier(2)

    def ring() -> None:
        barrier.wait(BOUND)
        phone.rang.raise_event(phone, "bob", None, done)

    dispatcher.submit(ring)
    with pytest.raises(KeyError), phone.rang.expect(BOUND):
        barrier.wait(BOUND)
        raise KeyError  # ends without waiting, before, while or after the event is offered
    done.wait(1)
    assert done.calls == [()]


def in_handler(dispatcher: Dispatcher, owner: object, function: Callable[[], object]) -> object:
    """What comes of it in a handler of the owner: the exception, or None."""
    outcome = Recorder()

    def handler() -> None:
        try:
            function()
        except Exception as error:
            outcome(error)
        else:
            outcome(None)

    dispatcher.strand("owner", owner=owner).post(handler)
    return outcome.wait(1)[0][0]


def test_expect_in_a_handler_of_the_same_object_is_refused(phone: Phone, dispatcher: Dispatcher) -> None:
    error = in_handler(dispatcher, phone, lambda: phone.hung_up.expect(BOUND))
    assert isinstance(error, RealTimeInvalidOperationException)
    assert "Phone.hung_up" in str(error)
    made_elsewhere = phone.rang.expect(BOUND)
    error = in_handler(dispatcher, phone, made_elsewhere.__enter__)
    assert isinstance(error, RealTimeInvalidOperationException)
    assert not phone.rang
    phone.rang.expect(BOUND)  # the mark is gone with the handler


def test_expect_in_a_handler_of_another_object_waits(phone: Phone, dispatcher: Dispatcher) -> None:
    def handler() -> None:
        with phone.rang.expect(BOUND) as got:
            raise_later(dispatcher, phone, "bob")
        assert got.args == "bob"

    assert in_handler(dispatcher, Phone(), handler) is None


def test_expect_on_the_loop_thread_is_refused(phone: Phone) -> None:
    def loop() -> None:
        forbid_blocking("p2psip loop")
        with pytest.raises(RealTimeInvalidOperationException, match="p2psip loop"), phone.rang.expect(BOUND):
            pass

    in_thread(loop)
    assert not phone.rang


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((None,), TypeError),
        (("5",), TypeError),
        ((True,), TypeError),
        ((-1,), ValueError),
        ((float("nan"),), ValueError),
        ((1, "predicate"), TypeError),
    ],
)
def test_what_is_expected_has_an_end(phone: Phone, arguments: tuple[Any, ...], error: type[Exception]) -> None:
    with pytest.raises(error, match=r"expect\(\)"):
        phone.rang.expect(*arguments)
    assert not phone.rang
