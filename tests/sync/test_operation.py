"""Operations: one end, who is woken, who is called."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import os
import signal
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from sync_support import BOUND, Recorder, blocked_threads, in_thread, until, wait_quietly

from p2psip.errors import (
    ConnectionFailureException,
    OperationFailureException,
    OperationFailureReason,
    RealTimeInvalidOperationException,
)
from p2psip.sync import Dispatcher, Operation, forbid_blocking


@pytest.fixture
def dispatcher() -> Iterator[Dispatcher]:
    dispatcher = Dispatcher("test", 16)
    yield dispatcher
    assert dispatcher.stop(BOUND)


@pytest.fixture
def operation(dispatcher: Dispatcher) -> Operation[int]:
    return Operation("MESSAGE to sip:bob@b.example", callbacks=dispatcher.submit)


# ---------------------------------------------------------------------- states


def test_runs_from_the_start(operation: Operation[int]) -> None:
    assert operation.running()
    assert not operation.done()
    assert not operation.cancelled()
    assert "running" in repr(operation)


def test_result_ends_it(operation: Operation[int]) -> None:
    assert operation.complete(7)
    assert operation.done() and not operation.running()
    assert operation.result() == 7
    assert operation.exception() is None
    assert "done" in repr(operation)


def test_error_ends_it(operation: Operation[int]) -> None:
    assert operation.fail(ConnectionFailureException("no way"))
    assert operation.done() and not operation.cancelled()
    with pytest.raises(ConnectionFailureException, match="no way"):
        operation.result()
    assert isinstance(operation.exception(), ConnectionFailureException)
    assert "no way" in repr(operation)


@pytest.mark.holds("R36")
def test_first_end_wins(operation: Operation[int]) -> None:
    assert operation.complete(1)
    assert not operation.complete(2)
    assert not operation.fail(ValueError())
    assert not operation.end_cancelled()
    assert operation.result() == 1
    with pytest.raises(concurrent.futures.InvalidStateError):
        operation.set_result(3)
    with pytest.raises(concurrent.futures.InvalidStateError):
        operation.set_exception(ValueError())


def test_set_result_and_set_exception_end_it(dispatcher: Dispatcher) -> None:
    first: Operation[int] = Operation("a", callbacks=dispatcher.submit)
    first.set_result(1)
    assert first.result() == 1
    second: Operation[int] = Operation("b", callbacks=dispatcher.submit)
    second.set_exception(KeyError("b"))
    with pytest.raises(KeyError):
        second.result()


def test_none_is_a_result(dispatcher: Dispatcher) -> None:
    operation: Operation[None] = Operation("x", callbacks=dispatcher.submit)
    operation.complete(None)
    assert operation.result() is None


@pytest.mark.holds("R36")
@pytest.mark.parametrize("turn", range(30))
def test_exactly_one_of_eight_threads_ends_it(dispatcher: Dispatcher, turn: int) -> None:
    called = Recorder()
    operation: Operation[int] = Operation("x", callbacks=dispatcher.submit)
    operation.add_done_callback(called)
    barrier = threading.Barrier(8)

    def end(number: int) -> bool:
        barrier.wait(BOUND)
        if number % 3 == 0:
            return operation.complete(number)
        if number % 3 == 1:
            return operation.fail(ValueError(number))
        return operation.end_cancelled()

    waiters = blocked_threads(operation, lambda: wait_quietly(operation), 2)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        won = list(pool.map(end, range(8)))
    assert won.count(True) == 1
    winner = won.index(True)
    if winner % 3 == 0:
        assert operation.result() == winner
    elif winner % 3 == 1:
        assert operation.exception().args == (winner,)  # type: ignore[union-attr]
    else:
        assert operation.cancelled()
    assert called.wait(1) == [(operation,)]
    concurrent.futures.wait(waiters, BOUND)
    assert all(waiter.done() for waiter in waiters)


# ---------------------------------------------------------------------- errors


def test_each_waiter_gets_an_error_of_its_own(operation: Operation[int]) -> None:
    cause = OSError("refused")
    failure = OperationFailureException("ended", OperationFailureReason.ABORTED)
    failure.__cause__ = cause
    waiters = blocked_threads(operation, operation.result, 3)
    operation.fail(failure)
    errors = [waiter.exception(BOUND) for waiter in waiters]
    assert len({id(error) for error in [*errors, failure]}) == 4
    for error in errors:
        assert type(error) is OperationFailureException
        assert error.failure_reason is OperationFailureReason.ABORTED
        assert error.__cause__ is cause
    assert failure.__traceback__ is None
    assert operation.exception() is not operation.exception()


def test_error_that_cannot_be_copied_is_raised_itself(operation: Operation[int]) -> None:
    class Awkward(Exception):
        def __init__(self, one: int, two: int) -> None:
            super().__init__(one)

    operation.fail(Awkward(1, 2))
    with pytest.raises(Awkward):
        operation.result()


# ---------------------------------------------------------------------- waiting


def test_result_waits_and_is_woken(operation: Operation[int]) -> None:
    (waiter,) = blocked_threads(operation, operation.result)
    assert not waiter.done()
    operation.complete(3)
    assert waiter.result(BOUND) == 3
    until(lambda: not operation._waiters)


@pytest.mark.parametrize("place", ["main", "other"])
def test_timeout_of_result_leaves_it_running(operation: Operation[int], place: str) -> None:
    def check() -> None:
        for timeout in (0, -1, 0.01):
            with pytest.raises(concurrent.futures.TimeoutError, match="MESSAGE to sip:bob"):
                operation.result(timeout)
            with pytest.raises(concurrent.futures.TimeoutError):
                operation.exception(timeout)

    check() if place == "main" else in_thread(check)
    assert operation.running()
    assert operation._waiters == []
    operation.complete(1)
    assert operation.result(0) == 1


def test_main_thread_waits_in_slices(operation: Operation[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2psip.sync.waiting.SLICE", 0.001)
    timer = threading.Timer(0.03, operation.complete, (5,))
    timer.start()
    assert operation.result(BOUND) == 5
    assert operation.result() == 5
    timer.join()


def test_huge_timeout_is_no_error(operation: Operation[int]) -> None:
    (waiter,) = blocked_threads(operation, lambda: operation.result(1e12))
    operation.complete(3)
    assert waiter.result(BOUND) == 3


def test_ended_before_the_waiter_was_entered(operation: Operation[int]) -> None:
    # What happens when it ends between result()'s look and its wait.
    operation.complete(1)
    operation._wait(BOUND, "result")
    assert operation._waiters == []


@pytest.mark.holds("F28")
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a signal from outside of the main thread")
def test_ctrl_c_ends_a_wait_and_leaves_it_usable(operation: Operation[int]) -> None:
    def interrupt() -> None:
        until(lambda: bool(operation._waiters))
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        operation.result(BOUND)
    thread.join(BOUND)
    assert operation.running()
    assert operation._waiters == []
    operation.complete(2)
    assert operation.result() == 2


def test_signal_handler_may_complete_what_it_interrupts(operation: Operation[int]) -> None:
    with operation._condition:  # the main thread is inside of the operation when the handler runs
        assert operation.complete(1)
    assert operation.result(0) == 1


def test_loop_thread_is_refused(operation: Operation[int]) -> None:
    def loop() -> None:
        forbid_blocking("p2psip loop")
        for call in (operation.result, operation.exception):
            with pytest.raises(RealTimeInvalidOperationException) as caught:
                call(0.1)
            for part in (call.__name__, operation.name, "p2psip loop"):
                assert part in str(caught.value)
        assert operation._waiters == []
        operation.complete(1)
        assert operation.result() == 1

    in_thread(loop)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork")
def test_waiting_in_a_forked_child_raises(operation: Operation[int]) -> None:
    child = os.fork()
    if child == 0:
        try:
            operation.result(5)
        except RealTimeInvalidOperationException as error:
            os._exit(0 if "forked" in str(error) else 2)
        except BaseException:
            os._exit(3)
        os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# ---------------------------------------------------------------------- concurrent.futures and asyncio


def test_wait_and_as_completed(dispatcher: Dispatcher) -> None:
    operations: list[Operation[int]] = [Operation(str(i), callbacks=dispatcher.submit) for i in range(4)]
    operations[0].complete(0)
    done, pending = concurrent.futures.wait(operations, 0)
    assert done == {operations[0]}
    assert pending == set(operations[1:])
    entered = threading.Event()

    def end() -> None:
        assert entered.wait(BOUND)
        until(lambda: all(o._waiters for o in operations[1:]))
        operations[1].complete(1)
        operations[2].fail(ValueError())
        operations[3].end_cancelled()

    thread = threading.Thread(target=end)
    thread.start()
    entered.set()
    ended = list(concurrent.futures.as_completed(operations, BOUND))
    assert len(ended) == 4
    assert ended[0] is operations[0]
    thread.join(BOUND)
    done, pending = concurrent.futures.wait(operations, BOUND)
    assert not pending
    assert all(o._waiters == [] for o in operations)


@pytest.mark.parametrize("when", [concurrent.futures.FIRST_COMPLETED, concurrent.futures.FIRST_EXCEPTION])
def test_wait_for_the_first(dispatcher: Dispatcher, when: str) -> None:
    operations: list[Operation[int]] = [Operation(str(i), callbacks=dispatcher.submit) for i in range(3)]

    def end() -> None:
        until(lambda: all(o._waiters for o in operations))
        operations[1].fail(ValueError())

    thread = threading.Thread(target=end)
    thread.start()
    done, pending = concurrent.futures.wait(operations, BOUND, when)
    thread.join(BOUND)
    assert done == {operations[1]}
    assert pending == {operations[0], operations[2]}
    # Again: this time the end is seen while all locks are held.
    assert concurrent.futures.wait(operations, BOUND, when).done == {operations[1]}


def test_wait_together_with_plain_futures(operation: Operation[int]) -> None:
    plain: concurrent.futures.Future[int] = concurrent.futures.Future()
    plain.set_result(1)
    operation.complete(2)
    both: list[concurrent.futures.Future[int]] = [plain, operation]
    assert {f.result() for f in concurrent.futures.wait(both, BOUND).done} == {1, 2}


@pytest.mark.parametrize("before", [True, False])
def test_wrap_future_gives_the_result_without_a_worker(dispatcher: Dispatcher, before: bool) -> None:
    operation: Operation[int] = Operation("x", callbacks=dispatcher.submit)

    async def main() -> int:
        if before:
            operation.complete(4)
        future = asyncio.wrap_future(operation)
        if not before:
            asyncio.get_running_loop().run_in_executor(None, operation.complete, 4)
        return await asyncio.wait_for(future, BOUND)

    assert asyncio.run(main()) == 4
    assert dispatcher.workers == 0


def test_wrap_future_gives_the_error(operation: Operation[int]) -> None:
    async def main() -> None:
        future = asyncio.wrap_future(operation)
        operation.fail(ConnectionFailureException("no way"))
        await asyncio.wait_for(future, BOUND)

    with pytest.raises(ConnectionFailureException, match="no way"):
        asyncio.run(main())


def test_cancelling_the_wrapper_asks_the_canceller(dispatcher: Dispatcher) -> None:
    asked: list[Operation[Any]] = []

    def cancel(operation: Operation[Any]) -> None:
        asked.append(operation)
        operation.end_cancelled()

    operation: Operation[int] = Operation("x", callbacks=dispatcher.submit, cancel=cancel)

    async def main() -> None:
        await asyncio.wait_for(asyncio.wrap_future(operation), 0.01)

    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(main())
    assert asked == [operation]
    assert operation.cancelled()


def test_wrapper_whose_event_loop_is_closed_harms_nobody(operation: Operation[int]) -> None:
    async def main() -> None:
        asyncio.wrap_future(operation)

    asyncio.run(main())
    assert operation.complete(1)
    assert operation.result() == 1


# ---------------------------------------------------------------------- callbacks


def test_callback_runs_on_a_worker_only(dispatcher: Dispatcher, operation: Operation[int]) -> None:
    callback = Recorder()
    operation.add_done_callback(callback)
    in_thread(lambda: operation.complete(1))
    callback.wait(1)
    operation.add_done_callback(callback)
    assert callback.wait(2) == [(operation,), (operation,)]
    assert all(thread.name.startswith("test worker") for thread in callback.threads)


@pytest.mark.holds("R36")
def test_callbacks_are_queued_not_called(dispatcher: Dispatcher) -> None:
    queued: list[tuple[Any, ...]] = []
    operation: Operation[int] = Operation("x", callbacks=lambda *item: queued.append(item))
    called: list[int] = []
    operation.add_done_callback(lambda _: called.append(1))
    operation.add_done_callback(lambda _: called.append(2))
    operation.complete(1)
    operation.add_done_callback(lambda _: called.append(3))
    assert called == []
    assert len(queued) == 2
    for function, *args in queued:
        function(*args)
    assert called == [1, 2, 3]


def test_callbacks_run_in_order_and_one_that_raises_stops_none(
    operation: Operation[int], caplog: pytest.LogCaptureFixture
) -> None:
    called = Recorder()

    def bad(_: object) -> None:
        called("bad")
        raise ValueError("callback")

    def leaves(_: object) -> None:
        raise SystemExit

    operation.add_done_callback(bad)
    operation.add_done_callback(leaves)
    operation.add_done_callback(lambda _: called("good"))
    operation.end_cancelled()
    assert called.wait(2) == [("bad",), ("good",)]
    assert "MESSAGE to sip:bob@b.example" in caplog.text


def test_callbacks_run_although_the_workers_are_gone() -> None:
    dispatcher = Dispatcher("gone", 4)
    operation: Operation[int] = Operation("dispose", callbacks=dispatcher.submit)
    callback = Recorder()
    operation.add_done_callback(callback)
    dispatcher.stop(BOUND)
    operation.complete(1)
    assert callback.wait(1) == [(operation,)]
    assert callback.threads[0] is not threading.current_thread()
    callback.threads[0].join(BOUND)


# ---------------------------------------------------------------------- cancelling


def test_cancel_asks_once_and_says_false_after_the_end(dispatcher: Dispatcher) -> None:
    asked: list[Operation[Any]] = []
    operation: Operation[int] = Operation("INVITE", callbacks=dispatcher.submit, cancel=asked.append)
    assert operation.cancel()
    assert operation.cancel()
    assert asked == [operation]
    assert operation.running()
    operation.complete(200)
    assert not operation.cancel()
    assert asked == [operation]
    assert operation.result() == 200


def test_cancelled_operation_raises_cancelled_error(dispatcher: Dispatcher) -> None:
    operation: Operation[int] = Operation(
        "INVITE", callbacks=dispatcher.submit, cancel=lambda operation: operation.end_cancelled()
    )
    (waiter,) = blocked_threads(operation, operation.result)
    assert operation.cancel()
    assert operation.cancelled() and operation.done() and not operation.running()
    with pytest.raises(concurrent.futures.CancelledError, match="INVITE"):
        operation.result()
    with pytest.raises(concurrent.futures.CancelledError):
        operation.exception()
    assert isinstance(waiter.exception(BOUND), concurrent.futures.CancelledError)
    assert operation.cancel()
    assert not operation.complete(1)
    assert "cancelled" in repr(operation)


def test_canceller_may_end_it_by_an_error(dispatcher: Dispatcher) -> None:
    operation: Operation[int] = Operation(
        "INVITE",
        callbacks=dispatcher.submit,
        cancel=lambda operation: operation.fail(ConnectionFailureException("gone")),
    )
    assert operation.cancel()
    assert not operation.cancel()
    with pytest.raises(ConnectionFailureException):
        operation.result()


def test_without_a_canceller_it_cannot_be_cancelled(operation: Operation[int]) -> None:
    assert not operation.cancel()
    assert operation.running()


@pytest.mark.holds("R36")
@pytest.mark.parametrize("turn", range(30))
def test_cancel_and_complete_race(dispatcher: Dispatcher, turn: int) -> None:
    asked: list[Operation[Any]] = []

    def cancel(operation: Operation[Any]) -> None:
        asked.append(operation)
        operation.end_cancelled()

    operation: Operation[int] = Operation("x", callbacks=dispatcher.submit, cancel=cancel)
    barrier = threading.Barrier(8)

    def race(number: int) -> tuple[str, bool]:
        barrier.wait(BOUND)
        return ("cancel", operation.cancel()) if number % 2 else ("complete", operation.complete(number))

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(race, range(8)))
    assert len(asked) <= 1
    completed = ("complete", True) in outcomes
    assert completed != operation.cancelled()
    if operation.cancelled():
        assert asked == [operation]
        assert ("cancel", True) in outcomes


# ---------------------------------------------------------------------- memory


@pytest.mark.parametrize("end", ["complete", "fail", "end_cancelled"])
def test_nothing_is_left_behind(dispatcher: Dispatcher, end: str) -> None:
    class Holder:
        operation: Operation[int]

    holder = Holder()
    operation: Operation[int] = Operation("x", callbacks=dispatcher.submit, cancel=lambda _, h=holder: None)  # type: ignore[misc]
    operation.context = holder
    holder.operation = operation
    ran = threading.Event()
    operation.add_done_callback(lambda done, h=holder: ran.set())  # type: ignore[misc]
    (waiter,) = blocked_threads(operation, lambda o=operation: wait_quietly(o))  # type: ignore[misc]
    gc.collect()
    gc.disable()
    try:
        getattr(operation, end)(*{"complete": (1,), "fail": (ValueError(),), "end_cancelled": ()}[end])
        assert ran.wait(BOUND)
        concurrent.futures.wait([waiter], BOUND)
        wait_quietly(operation)
        assert dispatcher.stop(BOUND)
        gone = weakref.ref(operation), weakref.ref(holder)
        del operation, holder, waiter
        until(lambda: gone[0]() is None and gone[1]() is None)
    finally:
        gc.enable()


def test_the_error_of_a_waiter_holds_no_frames_of_who_made_it() -> None:
    operation: Operation[None] = Operation("it", callbacks=lambda *_: True)
    try:
        try:
            raise OSError("gone")
        except OSError as cause:
            raise ValueError("lost") from cause
    except ValueError as error:
        operation.fail(error)
    told = operation.exception(0)
    assert isinstance(told, ValueError)
    assert told.__traceback__ is None
    assert isinstance(told.__cause__, OSError)
    assert told.__cause__.__traceback__ is None
