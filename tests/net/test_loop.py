"""The loop: order, wake-ups, timers, crashes, its end and its fork."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import socket
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest
from net_support import PATIENCE

from p2psip.net.loop import Clock, Loop, LoopEnded
from p2psip.testing.clock import FakeClock


@contextlib.contextmanager
def running(clock: Clock | None = None) -> Iterator[tuple[Loop, queue.Queue[Any]]]:
    ended: queue.Queue[Any] = queue.Queue()
    loop = Loop("loop of a test", ended.put, clock)
    loop.start()
    yield loop, ended
    loop.stop()
    assert loop.join(PATIENCE)


def on(loop: Loop, function: Any, *args: Any) -> Any:
    """Run it on the loop's thread."""
    results: queue.Queue[Any] = queue.Queue()
    loop.post(lambda: results.put(function(*args)))
    return results.get(timeout=PATIENCE)


def test_constructing_a_loop_opens_nothing() -> None:
    before = threading.active_count()
    loop = Loop("never started", lambda cause: None)
    assert threading.active_count() == before
    assert not hasattr(loop, "_selector")
    assert loop.join(0)


def test_no_wake_up_waits_for_an_acknowledgement_where_they_go_over_tcp(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows, which has no other pairs."""

    def tcp_pair() -> tuple[socket.socket, socket.socket]:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            one = socket.create_connection(listening.getsockname())
            return one, listening.accept()[0]

    monkeypatch.setattr(socket, "socketpair", tcp_pair)
    with running() as (loop, _):
        assert loop._wake_out.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert on(loop, loop.in_loop) is True


def test_posted_functions_run_in_order_on_one_daemon_thread() -> None:
    with running() as (loop, _):
        seen: list[int] = []
        threads = set()
        for number in range(1000):
            loop.post(seen.append, number)
        loop.post(lambda: threads.add(threading.current_thread()))
        assert on(loop, loop.in_loop) is True
        assert seen == list(range(1000))
        (thread,) = threads
        assert thread.daemon
        assert thread.name == "loop of a test"
        assert not loop.in_loop()


def test_what_is_posted_before_the_start_runs_after_it() -> None:
    ended: queue.Queue[Any] = queue.Queue()
    loop = Loop("late", ended.put)
    ran = threading.Event()
    loop.post(ran.set)
    loop.start()
    assert ran.wait(PATIENCE)
    loop.stop()
    assert loop.join(PATIENCE)
    assert ended.get(timeout=PATIENCE) is None


def test_many_posts_share_one_wake_byte() -> None:
    with running() as (loop, _):
        inside, outside = threading.Event(), threading.Event()

        def block() -> None:
            inside.set()
            outside.wait(PATIENCE)

        loop.post(block)
        assert inside.wait(PATIENCE)
        sent = []
        real = loop._wake_out

        class Counting:
            def send(self, data: bytes) -> int:
                sent.append(data)
                return real.send(data)

            def close(self) -> None:
                real.close()

        loop._wake_out = Counting()  # type: ignore[assignment]
        done = threading.Semaphore(0)
        for _ in range(500):
            loop.post(done.release)
        outside.set()
        for _ in range(500):
            assert done.acquire(timeout=PATIENCE)
        assert len(sent) <= 1


def test_a_function_that_posts_itself_starves_nobody() -> None:
    ours, theirs = socket.socketpair()
    with running() as (loop, _), ours, theirs:
        got = threading.Event()
        going = True

        def again() -> None:
            if going:
                loop.post(again)

        loop.post(again)
        on(loop, loop.register, ours, 1, lambda events: got.set())
        theirs.send(b"x")
        assert got.wait(PATIENCE)
        going = False
        on(loop, loop.unregister, ours)


def test_a_signal_handler_or_finalizer_may_post_in_the_middle_of_a_post() -> None:
    with running() as (loop, _):
        done = threading.Semaphore(0)

        class Interrupted(deque[Any]):
            """Where Python may run a signal handler: between two lines of ``post``."""

            def append(self, item: Any) -> None:
                loop._inbox = inbox
                loop.post(done.release)
                inbox.append(item)

        def post() -> None:
            loop._inbox = Interrupted()
            loop.post(done.release)

        inbox = loop._inbox
        thread = threading.Thread(target=post, daemon=True)
        thread.start()
        thread.join(PATIENCE)
        assert not thread.is_alive()
        for _ in range(2):
            assert done.acquire(timeout=PATIENCE)


def test_a_post_from_several_threads_is_never_lost() -> None:
    with running() as (loop, _):
        done = threading.Semaphore(0)

        def post() -> None:
            for _ in range(500):
                loop.post(done.release)

        threads = [threading.Thread(target=post) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(2000):
            assert done.acquire(timeout=PATIENCE)
        for thread in threads:
            thread.join(PATIENCE)


def test_turn_ends_come_after_the_rest_of_the_turn() -> None:
    with running() as (loop, _):
        seen: list[str] = []
        done = threading.Event()

        def first() -> None:
            loop.at_turn_end(seen.append, "end")
            loop.at_turn_end(lambda: loop.at_turn_end(done.set))
            loop.post(seen.append, "next turn")
            seen.append("first")

        loop.post(lambda: (loop.post(first), loop.post(seen.append, "second")))
        assert done.wait(PATIENCE)
        assert seen == ["first", "second", "end", "next turn"]


def test_timers_fire_by_the_clock_and_in_order() -> None:
    clock = FakeClock()
    with running(clock) as (loop, _):
        seen: list[tuple[str, float]] = []

        def start() -> None:
            loop.call_later(5, lambda: seen.append(("five", loop.now)))
            loop.call_later(2, lambda: seen.append(("two", loop.now)))
            loop.timers.cancel(loop.call_later(3, seen.append, ("cancelled", 0.0)))

        on(loop, start)
        clock.advance(1.999)
        assert seen == []
        clock.advance(0.001)
        assert seen == [("two", 1002.0)]
        clock.advance(100)
        assert seen[1:] == [("five", 1102.0)]


def test_other_clocks_are_driven() -> None:
    class Due:
        deadline: float | None = 1010.0

        def next_deadline(self) -> float | None:
            return self.deadline

        def advance(self, now: float) -> None:
            if self.deadline is not None and now >= self.deadline:
                times.append(now)
                self.deadline = None

    times: list[float] = []
    clock = FakeClock()
    ended: queue.Queue[Any] = queue.Queue()
    loop = Loop("with a clock", ended.put, clock)
    loop.add_clock(Due())
    loop.start()
    clock.advance(9)
    assert times == []
    clock.advance(1)
    assert times == [1010.0]
    loop.stop()
    assert loop.join(PATIENCE)


def test_the_real_clock_wakes_the_loop() -> None:
    with running() as (loop, _):
        fired = threading.Event()
        loop.post(loop.call_later, 0.01, fired.set)
        assert fired.wait(PATIENCE)


@pytest.mark.parametrize("error", [ValueError("a bug"), MemoryError(), RecursionError()])
def test_a_crash_is_logged_and_confined(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    def crash(*_: object) -> None:
        raise error

    clock = FakeClock()
    ours, theirs = socket.socketpair()
    with running(clock) as (loop, ended), ours, theirs, caplog.at_level(logging.ERROR):
        after = threading.Event()
        loop.post(crash)
        loop.post(loop.at_turn_end, crash)
        loop.post(loop.call_later, 1, crash)
        loop.post(loop.call_later, 1, after.set)
        on(loop, loop.register, ours, 1, crash)
        theirs.send(b"x")
        clock.advance(1)
        clock.settle()
        assert after.wait(PATIENCE)
        assert ended.empty()
        assert on(loop, lambda: len(loop._selector.get_map())) == 1  # the wake socket alone: no busy loop
    assert len([r for r in caplog.records if r.levelno == logging.ERROR]) == 4


def test_stop_ends_the_thread_and_says_so_once() -> None:
    with running() as (loop, ended):
        loop.stop()
        assert loop.join(PATIENCE)
        assert ended.get(timeout=PATIENCE) is None
        loop.stop()
        with pytest.raises(LoopEnded, match="has ended") as caught:
            loop.post(print)
        assert not caught.value.forked
        with pytest.raises(LoopEnded):
            loop.start()
    assert ended.empty()


def test_join_from_its_own_thread_does_not_hang() -> None:
    with running() as (loop, _):
        assert on(loop, loop.join, 1) is False


@pytest.mark.parametrize("cause", [SystemExit(3), KeyboardInterrupt()])
def test_death_names_its_cause_and_runs_what_was_posted_before(
    cause: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    closed = []
    with running() as (loop, ended):
        on(loop, loop.add_closer, lambda: closed.append(True))
        ran = threading.Event()

        def die() -> None:
            loop.post(ran.set)
            raise cause

        loop.post(die)
        assert ended.get(timeout=PATIENCE) is cause
        assert ran.is_set()
        assert closed == [True]
        with pytest.raises(LoopEnded, match=type(cause).__name__) as caught:
            loop.post(print)
        assert caught.value.__cause__ is cause


def test_a_broken_selector_ends_the_loop_with_its_error(caplog: pytest.LogCaptureFixture) -> None:
    with running() as (loop, ended):
        failure = OSError("no more")

        def broken(timeout: float | None) -> Any:
            raise failure

        def break_it() -> None:
            loop._selector.select = broken  # type: ignore[method-assign]

        loop.post(break_it)
        assert ended.get(timeout=PATIENCE) is failure


def test_unregistering_the_unknown_is_fine() -> None:
    with running() as (loop, _):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            assert on(loop, loop.unregister, ours) is None


@pytest.mark.holds("F27")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # 3.12 warns of threads and fork, which is the point
def test_a_forked_child_has_no_loop_and_the_parent_keeps_it() -> None:
    ours, theirs = socket.socketpair()
    with running() as (loop, _), ours, theirs:
        got = queue.Queue[bytes]()
        on(loop, loop.register, ours, 1, lambda events: got.put(ours.recv(10)))
        on(loop, loop.add_closer, ours.close)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                loop.post(print)
            except LoopEnded as error:
                if error.forked and ours.fileno() == -1 and loop.join(0):
                    status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        theirs.send(b"alive")
        assert got.get(timeout=PATIENCE) == b"alive"
        on(loop, loop.unregister, ours)


def test_no_descriptors_is_an_error_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object) -> None:
        raise OSError(24, "too many")

    monkeypatch.setattr(socket, "socketpair", none_left)
    loop = Loop("poor", lambda cause: None)
    with pytest.raises(ConnectionError, match="'poor' cannot start"):
        loop.start()


def test_time_of_the_fake_clock_does_not_go_back() -> None:
    with pytest.raises(ValueError, match="back"):
        FakeClock().advance(-1)
