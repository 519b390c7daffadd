"""Dispatcher and strands: order, isolation, elasticity, the end."""

from __future__ import annotations

import gc
import itertools
import os
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sync_support import BOUND, Recorder, in_thread, until

from p2psip.errors import RealTimeInvalidOperationException
from p2psip.sync import Dispatcher, Operation, Strand, forbid_blocking, worker_blocks


@pytest.fixture
def dispatcher() -> Iterator[Dispatcher]:
    dispatcher = Dispatcher("test", 64)
    yield dispatcher
    assert dispatcher.stop(BOUND)


class Gate:
    """A function that says it runs, and waits until it may go on."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.open = threading.Event()

    def __call__(self, *_: object) -> None:
        self.entered.set()
        assert self.open.wait(BOUND)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open.set()


def settle(strand: Strand) -> None:
    """Wait until all that was posted before has run."""
    ran = threading.Event()
    assert strand.post(ran.set)
    assert ran.wait(BOUND)


def idle(dispatcher: Dispatcher) -> bool:
    return len(dispatcher._idle) == dispatcher.workers and dispatcher._active == 0


# ---------------------------------------------------------------------- strands


def test_no_thread_before_the_first_work(dispatcher: Dispatcher) -> None:
    dispatcher.strand("a")
    assert dispatcher.workers == 0


def test_posted_functions_run_in_order_on_a_daemon_worker(dispatcher: Dispatcher) -> None:
    strand, called = dispatcher.strand("a"), Recorder()
    for number in range(1000):
        assert strand.post(called, number)
    settle(strand)
    assert called.calls == [(number,) for number in range(1000)]
    assert all(thread.daemon and thread.name.startswith("test worker ") for thread in called.threads)


def test_what_is_posted_from_a_run_comes_after_it_and_what_waits(dispatcher: Dispatcher, gate: Gate) -> None:
    strand = dispatcher.strand("a")
    order: list[str] = []

    def outer() -> None:
        strand.post(order.append, "inner")
        order.append("outer")

    strand.post(gate)
    strand.post(outer)
    strand.post(order.append, "waited")
    gate.open.set()
    settle(strand)
    settle(strand)
    assert order == ["outer", "waited", "inner"]


def test_never_two_at_once_whoever_posts(dispatcher: Dispatcher) -> None:
    strand = dispatcher.strand("a")
    seen: list[tuple[int, int]] = []
    inside = threading.Lock()
    overlaps: list[int] = []

    def run(poster: int, number: int) -> None:
        if not inside.acquire(blocking=False):
            overlaps.append(number)
            return
        seen.append((poster, number))
        inside.release()

    barrier = threading.Barrier(8)

    def post(poster: int) -> None:
        barrier.wait(BOUND)
        for number in range(500):
            assert strand.post(run, poster, number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(post, range(8)))
    settle(strand)
    assert overlaps == []
    assert len(seen) == 4000
    for poster in range(8):
        assert [number for who, number in seen if who == poster] == list(range(500))


@pytest.mark.parametrize("turn", range(20))
def test_nothing_is_lost_when_a_strand_runs_empty(dispatcher: Dispatcher, turn: int) -> None:
    strand, ran = dispatcher.strand("a"), threading.Semaphore(0)
    for _ in range(200):
        strand.post(ran.release)
        assert ran.acquire(timeout=BOUND)


def test_depth_counts_what_waits(dispatcher: Dispatcher, gate: Gate) -> None:
    strand = dispatcher.strand("a")
    assert strand.depth == 0
    strand.post(gate)
    assert gate.entered.wait(BOUND)
    strand.post(int)
    strand.post(int)
    assert strand.depth == 2
    assert "2 waiting" in repr(strand)
    gate.open.set()
    settle(strand)
    assert strand.depth == 0


def test_a_long_queue_lets_other_strands_have_their_turn() -> None:
    dispatcher = Dispatcher("one", 1)
    long, other, gate = dispatcher.strand("long"), dispatcher.strand("other"), Gate()
    order: list[str] = []
    long.post(gate)
    for _ in range(1000):
        long.post(order.append, "long")
    other.post(order.append, "other")
    gate.open.set()
    settle(long)
    assert order.index("other") < 100
    assert order.count("long") == 1000
    assert dispatcher.stop(BOUND)


def test_what_waits_for_a_worker_is_counted() -> None:
    dispatcher, gate = Dispatcher("one worker", 1), Gate()
    dispatcher.submit(gate)
    assert gate.entered.wait(BOUND)
    strands = [dispatcher.strand("waiting") for _ in range(3)]
    for strand in strands:
        strand.post(int)
        strand.post(int)
    assert dispatcher.depth == 3
    gate.open.set()
    for strand in strands:
        settle(strand)
    assert dispatcher.depth == 0
    assert dispatcher.stop(BOUND)


# ---------------------------------------------------------------------- exceptions


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt])
def test_an_exception_is_reported_and_the_strand_goes_on(
    dispatcher: Dispatcher, kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    class Owner:
        pass

    owner, errors, problem = Owner(), Recorder(), kind("handler")
    dispatcher.on_error = errors

    def bad() -> None:
        raise problem

    strand = dispatcher.strand("a", owner=owner)
    strand.post(bad)
    settle(strand)
    assert dispatcher.submit(bad)
    assert errors.wait(2) == [(owner, problem, bad), (None, problem, bad)]
    settle(strand)
    assert "bad" in caplog.text


def test_a_report_that_raises_is_logged(dispatcher: Dispatcher, caplog: pytest.LogCaptureFixture) -> None:
    def bad(*_: object) -> None:
        raise ValueError("report")

    dispatcher.on_error = bad
    strand = dispatcher.strand("a")
    strand.post(bad)
    settle(strand)
    assert "Reporting" in caplog.text


# ---------------------------------------------------------------------- elasticity


def test_a_burst_is_run_by_one_worker(dispatcher: Dispatcher) -> None:
    strand = dispatcher.strand("a")
    for _ in range(5000):
        strand.post(int)
    settle(strand)
    assert dispatcher.workers == 1


def test_idle_workers_are_used_again(dispatcher: Dispatcher) -> None:
    called = Recorder()
    for number in range(50):
        dispatcher.submit(called, number)
        called.wait(number + 1)
        until(lambda: idle(dispatcher))
    assert dispatcher.workers == 1
    assert len(set(called.threads)) == 1


def test_a_worker_that_waits_for_an_operation_is_made_up_for_at_once(
    dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2psip.sync.dispatch.PATIENCE", BOUND * 10)  # not by the watcher
    operation: Operation[int] = Operation("x", callbacks=dispatcher.submit)
    results = Recorder()

    def handler() -> None:
        results(operation.result(BOUND))

    strands = [dispatcher.strand(str(number)) for number in range(20)]
    for strand in strands:
        strand.post(handler)
    until(lambda: len(operation._waiters) == 20)
    assert dispatcher.workers == 20
    dispatcher.strand("last").post(operation.complete, 9)
    assert results.wait(20) == [(9,)] * 20
    until(lambda: idle(dispatcher))


def test_a_handler_blocks_on_what_another_strand_does(dispatcher: Dispatcher) -> None:
    # A chain: each handler waits for the operation that the next one completes.
    operations: list[Operation[int]] = [Operation(str(i), callbacks=dispatcher.submit) for i in range(30)]

    def handler(number: int) -> None:
        value = operations[number + 1].result(BOUND) if number < 29 else 0
        operations[number].complete(value + 1)

    for number in range(30):
        dispatcher.strand(str(number)).post(handler, number)
    assert operations[0].result(BOUND) == 30


def test_handlers_that_are_just_slow_are_made_up_for(dispatcher: Dispatcher) -> None:
    gates = [Gate() for _ in range(12)]
    for gate in gates:
        dispatcher.strand("slow").post(gate)
    for gate in gates:
        assert gate.entered.wait(BOUND)
    called = Recorder()
    dispatcher.strand("other").post(called)
    called.wait(1)
    for gate in gates:
        gate.open.set()


def test_slow_handlers_are_made_up_for_on_a_busy_processor_too(
    dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2psip.sync.dispatch.BUSY", 0.0)  # as if the processor were always busy
    test_handlers_that_are_just_slow_are_made_up_for(dispatcher)


def test_a_busy_processor_gets_no_more_workers_than_help(
    dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2psip.sync.dispatch.BUSY", 0.0)
    monkeypatch.setattr("p2psip.sync.dispatch.PATIENCE", 0.001)
    monkeypatch.setattr("p2psip.sync.dispatch.STUCK", 10**9)
    left = itertools.count()
    done = threading.Event()

    def short() -> None:
        if next(left) == 2000:
            done.set()

    strands = [dispatcher.strand(str(number)) for number in range(50)]
    for _ in range(60):
        for strand in strands:
            strand.post(short)
    assert done.wait(BOUND)
    assert dispatcher.workers <= 2


def test_no_more_workers_than_the_maximum() -> None:
    dispatcher = Dispatcher("few", 3)
    operation: Operation[int] = Operation("x", callbacks=dispatcher.submit)
    results = Recorder()
    for number in range(10):
        dispatcher.strand(str(number)).post(lambda: results(operation.result(BOUND)))
    until(lambda: len(operation._waiters) == 3)
    assert dispatcher.workers == 3
    operation.complete(1)
    results.wait(10)
    assert dispatcher.workers == 3
    assert dispatcher.stop(BOUND)


def test_idle_workers_and_the_watcher_end(dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2psip.sync.dispatch.KEEP_ALIVE", 0.01)
    gates = [Gate() for _ in range(5)]
    for gate in gates:
        dispatcher.submit(gate)
    for gate in gates:
        assert gate.entered.wait(BOUND)
    assert dispatcher._watcher is not None
    for gate in gates:
        gate.open.set()
    until(lambda: dispatcher.workers == 0 and dispatcher._watcher is None)
    called = Recorder()
    dispatcher.submit(called)
    called.wait(1)


def test_a_thread_that_cannot_be_started_leaves_the_work_to_the_next(
    dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    called = Recorder()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        dispatcher.submit(called, 1)
    assert dispatcher.workers == 0
    assert "could not be started" in caplog.text
    dispatcher.submit(called, 2)
    assert called.wait(2) == [(1,), (2,)]


def test_worker_blocks_makes_up_for_any_wait(
    dispatcher: Dispatcher, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2psip.sync.dispatch.PATIENCE", BOUND * 10)

    def handler() -> None:
        with worker_blocks("a wait"):
            gate()

    dispatcher.strand("a").post(handler)
    assert gate.entered.wait(BOUND)
    called = Recorder()
    dispatcher.strand("b").post(called)
    called.wait(1)


# ---------------------------------------------------------------------- submit


def test_submitted_functions_are_called_once_each(dispatcher: Dispatcher) -> None:
    called = Recorder()
    barrier = threading.Barrier(8)

    def submit(who: int) -> None:
        barrier.wait(BOUND)
        for number in range(300):
            assert dispatcher.submit(called, who, number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(submit, range(8)))
    calls = called.wait(2400)
    assert sorted(calls) == [(who, number) for who in range(8) for number in range(300)]


def test_a_submitted_function_that_blocks_delays_no_other(dispatcher: Dispatcher, gate: Gate) -> None:
    called = Recorder()
    dispatcher.submit(gate)
    dispatcher.submit(called)
    called.wait(1)


# ---------------------------------------------------------------------- the end


def test_stop_drops_what_waits_and_lets_what_runs_finish() -> None:
    class Owner:
        pass

    owner, dropped, called, gate = Owner(), Recorder(), Recorder(), Gate()
    dispatcher = Dispatcher("stopping", 8, on_dropped=dropped)
    running, waiting = dispatcher.strand("running", owner), dispatcher.strand("waiting", owner)

    def finishes() -> None:
        gate()
        called("finished")

    running.post(finishes)
    assert gate.entered.wait(BOUND)
    for _ in range(3):
        running.post(called, "dropped")
    with dispatcher._lock:  # nobody may take it before the stop
        waiting._scheduled = True
        waiting._queue.append((called, ("dropped",)))
        dispatcher._ready.append(waiting)
        dispatcher._stopped = True
    assert not dispatcher.stop(0)
    assert not dispatcher.stop(0.01)
    assert not running.post(called, "late")
    assert not dispatcher.submit(called, "late")
    gate.open.set()
    assert dispatcher.stop(BOUND)
    assert called.calls == [("finished",)]
    assert sorted(dropped.calls, key=str) == [(owner, 1), (owner, 3)]
    assert running.depth == waiting.depth == 0
    assert dispatcher.workers == 0


def test_what_was_submitted_before_stop_still_runs() -> None:
    dispatcher, gate, called = Dispatcher("stopping", 1), Gate(), Recorder()
    dispatcher.submit(gate)
    assert gate.entered.wait(BOUND)
    for number in range(5):
        dispatcher.submit(called, number)
    dispatcher.stop()
    gate.open.set()
    assert dispatcher.stop(BOUND)
    assert called.calls == [(number,) for number in range(5)]


def test_stop_ends_idle_workers_at_once() -> None:
    dispatcher, called = Dispatcher("idle", 8), Recorder()
    dispatcher.submit(called)
    called.wait(1)
    assert dispatcher.stop(BOUND)
    assert dispatcher.workers == 0
    assert dispatcher.stop()


def test_stop_without_any_work() -> None:
    dispatcher = Dispatcher("nothing", 8)
    assert dispatcher.stop(BOUND)
    assert not dispatcher.strand("a").post(int)


def test_stop_from_handlers_does_not_wait_for_itself() -> None:
    dispatcher, results, barrier = Dispatcher("inside", 8), Recorder(), threading.Barrier(2)

    def handler() -> None:
        barrier.wait(BOUND)
        results(dispatcher.stop(BOUND))

    dispatcher.strand("a").post(handler)
    dispatcher.strand("b").post(handler)
    assert results.wait(2) == [(True,), (True,)]
    assert dispatcher.stop(BOUND)


def test_stop_on_the_loop_thread_may_not_wait(dispatcher: Dispatcher) -> None:
    def loop() -> None:
        forbid_blocking("p2psip loop")
        with pytest.raises(RealTimeInvalidOperationException, match=r"test\.stop"):
            dispatcher.stop(1)
        dispatcher.stop()

    in_thread(loop)


@pytest.mark.parametrize("turn", range(20))
def test_post_and_stop_race(turn: int) -> None:
    dropped, ran = Recorder(), itertools.count()
    dispatcher = Dispatcher("race", 8, on_dropped=lambda owner, count: dropped(count))
    strands = [dispatcher.strand(str(number)) for number in range(4)]
    barrier = threading.Barrier(5)

    def post(strand: Strand) -> int:
        barrier.wait(BOUND)
        return sum(strand.post(ran.__next__) for _ in range(200))

    with ThreadPoolExecutor(5) as pool:
        posted = [pool.submit(post, strand) for strand in strands]
        barrier.wait(BOUND)
        dispatcher.stop()
        accepted = sum(future.result(BOUND) for future in posted)
    assert dispatcher.stop(BOUND)
    until(lambda: next(ran) >= 0 and all(strand.depth == 0 for strand in strands))
    assert accepted <= 800


def test_a_dispatcher_is_freed_with_its_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    dispatcher = Dispatcher("freed", 8)
    called = Recorder()
    dispatcher.submit(called)
    called.wait(1)
    assert dispatcher.stop(BOUND)
    gone = weakref.ref(dispatcher)
    for thread in called.threads:
        thread.join(BOUND)
    del dispatcher
    gc.collect()
    assert gone() is None


def test_an_idle_worker_keeps_nothing_alive(dispatcher: Dispatcher) -> None:
    class Payload:
        pass

    payload: Any = Payload()
    gone = weakref.ref(payload)
    dispatcher.submit(id, payload)
    strand: Any = dispatcher.strand("a")
    strand_gone = weakref.ref(strand)
    strand.post(id, payload)
    settle(strand)
    gc.disable()
    try:
        del payload, strand
        until(lambda: gone() is None and strand_gone() is None)
    finally:
        gc.enable()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork")
def test_in_a_forked_child_it_is_stopped(dispatcher: Dispatcher, gate: Gate) -> None:
    strand = dispatcher.strand("a")
    strand.post(gate)
    assert gate.entered.wait(BOUND)
    strand.post(int)
    with dispatcher._lock:  # as another thread might hold it at that moment
        child = os.fork()
        if child == 0:
            ends = not strand.post(int) and not dispatcher.submit(int) and dispatcher.stop(5)
            os._exit(0 if ends else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    gate.open.set()
    settle(strand)


def test_all_workers_wait_inside_of_handlers() -> None:
    """Not so while one runs, has nothing to do, or could yet be made."""
    dispatcher, gate = Dispatcher("two", 2), Gate()
    operations: list[Operation[None]] = [Operation(name, callbacks=dispatcher.submit) for name in ("one", "two")]
    assert not dispatcher.is_exhausted
    dispatcher.submit(operations[0].result)
    until(lambda: len(operations[0]._waiters) == 1)
    assert not dispatcher.is_exhausted  # there may be two
    dispatcher.submit(gate)
    assert gate.entered.wait(BOUND)
    assert not dispatcher.is_exhausted  # the other one runs
    gate.open.set()
    until(lambda: len(dispatcher._idle) == 1)
    assert not dispatcher.is_exhausted  # and now has nothing to do
    dispatcher.submit(operations[1].result)
    until(lambda: dispatcher.is_exhausted)
    for operation in operations:
        operation.complete(None)
    until(lambda: not dispatcher.is_exhausted)
    assert dispatcher.stop(BOUND)
