"""Threads: what handlers may do, who may interrupt whom, and how everything ends."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from facade_support import BOUND, TcpPair, tcp_pair

import p2psip
from p2psip import (
    IPAddress,
    IPEndPoint,
    ManagerSettings,
    MessageReceivedEventArgs,
    MessageType,
    OperationFailureException,
    OperationFailureReason,
    RealTimeInvalidOperationException,
)


def send(pair: TcpPair, body: str = "hello") -> p2psip.SipResponseData:
    return pair.alice.send_message(MessageType.MESSAGE, pair.bob.uri, body=body, timeout=BOUND)


def test_a_handler_may_block_on_another_request() -> None:
    with tcp_pair() as pair:
        pair.alice.message_received += lambda sender, args: None
        codes = []

        def ask_back(sender: object, args: MessageReceivedEventArgs) -> None:
            answer = pair.bob.send_message(MessageType.MESSAGE, pair.alice.uri, body="who?", timeout=BOUND)
            codes.append(answer.response_code)

        pair.bob.message_received += ask_back
        assert send(pair).response_code == 200
        assert codes == [200]


@pytest.mark.holds("F37")
def test_a_handler_may_send_to_its_own_endpoint_without_waiting() -> None:
    with tcp_pair() as pair:
        seen = []

        def handler(sender: object, args: MessageReceivedEventArgs) -> None:
            seen.append(args.text_body)
            if args.text_body == "hello":
                operations.append(pair.bob.begin_send_message(MessageType.MESSAGE, pair.bob.uri, body="again"))

        operations: list[p2psip.Operation[p2psip.SipResponseData]] = []
        pair.bob.message_received += handler
        assert send(pair).response_code == 200
        assert operations[0].result(BOUND).response_code == 200
        assert seen == ["hello", "again"]


@pytest.mark.holds("R37", "F21")
def test_a_handler_that_raises_is_answered_500_and_the_next_one_runs() -> None:
    with tcp_pair() as pair:
        seen = []
        pair.bob.message_received += lambda sender, args: 1 / 0
        pair.bob.message_received += lambda sender, args: seen.append(args.text_body)
        with (
            pair.bob.connection_manager.unhandled_exception.expect(BOUND) as reported,
            pytest.raises(p2psip.FailureResponseException) as failure,
        ):
            send(pair)
        assert failure.value.response_data.response_code == 500
        assert isinstance(reported.args.exception, ZeroDivisionError)
        assert reported.args.sender is pair.bob
        assert seen == ["hello"]


@pytest.mark.holds("F21")
def test_a_handler_may_terminate_its_own_endpoint() -> None:
    with tcp_pair() as pair:
        done = threading.Event()

        def handler(sender: p2psip.RealTimeEndpoint, args: MessageReceivedEventArgs) -> None:
            args.send_response(202)
            sender.terminate()
            done.set()

        pair.bob.message_received += handler
        assert send(pair).response_code == 202
        assert done.wait(BOUND)
        assert pair.bob.is_terminated
        with pytest.raises(OperationFailureException) as failure:
            pair.bob.send_message(MessageType.MESSAGE, pair.alice.uri, body="late")
        assert failure.value.failure_reason is OperationFailureReason.ENDPOINT_TERMINATED


@pytest.mark.holds("F21")
def test_a_handler_may_dispose_its_manager() -> None:
    with tcp_pair() as pair:
        done = threading.Event()

        def handler(sender: p2psip.RealTimeEndpoint, args: MessageReceivedEventArgs) -> None:
            args.send_response(200)
            pair.bob.connection_manager.dispose()
            done.set()

        pair.bob.message_received += handler
        assert send(pair).response_code == 200
        assert done.wait(BOUND)
        assert pair.bob.is_terminated
        with pytest.raises(p2psip.ConnectionFailureException):
            send(pair)


def test_a_handler_that_takes_too_long_is_answered_for() -> None:
    with tcp_pair(settings=ManagerSettings(handler_limit=0.1)) as pair:
        release = threading.Event()
        late: concurrent.futures.Future[BaseException | None] = concurrent.futures.Future()

        def handler(sender: object, args: MessageReceivedEventArgs) -> None:
            release.wait(BOUND)
            try:
                args.send_response(200)
            except RealTimeInvalidOperationException as error:
                late.set_result(error)
            else:
                late.set_result(None)

        pair.bob.message_received += handler
        with pytest.raises(p2psip.FailureResponseException) as failure:
            send(pair)
        assert failure.value.response_data.response_code == 500
        release.set()
        assert "500" in str(late.result(BOUND))


@pytest.mark.holds("F21")
def test_a_slow_handler_delays_neither_other_endpoints_nor_answers() -> None:
    with tcp_pair() as pair:
        release = threading.Event()
        pair.bob.message_received += lambda sender, args: release.wait(BOUND)
        pair.alice.message_received += lambda sender, args: None
        slow = pair.alice.begin_send_message(MessageType.MESSAGE, pair.bob.uri, body="slow")
        quick = pair.bob.send_message(MessageType.MESSAGE, pair.alice.uri, body="quick", timeout=BOUND)
        assert quick.response_code == 200
        assert not slow.done()
        release.set()
        assert slow.result(BOUND).response_code == 200


def test_eight_threads_send_through_one_endpoint() -> None:
    with tcp_pair() as pair:
        seen: list[str | None] = []
        pair.bob.message_received += lambda sender, args: seen.append(args.text_body)

        def work(thread: int) -> list[int]:
            return [int(send(pair, f"{thread} {number}").response_code) for number in range(25)]

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            codes = [code for result in pool.map(work, range(8)) for code in result]
        assert codes == [200] * 200
        assert len(seen) == len(set(seen)) == 200
        for thread in range(8):
            mine = [text for text in seen if text is not None and text.startswith(f"{thread} ")]
            assert mine == [f"{thread} {number}" for number in range(25)]
        assert len(pair.alice.connection_manager.connections()) == 1


@pytest.mark.holds("R41", "F28")
@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals are sent by thread only on POSIX")
def test_ctrl_c_ends_a_blocking_call_and_leaves_the_rest_alone() -> None:
    with tcp_pair() as pair:
        reached, release = threading.Event(), threading.Event()

        def handler(sender: object, args: MessageReceivedEventArgs) -> None:
            reached.set()
            release.wait(BOUND)

        pair.bob.message_received += handler

        def interrupt() -> None:
            reached.wait(BOUND)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        try:
            with pytest.raises(KeyboardInterrupt):
                send(pair)
        finally:
            release.set()
            thread.join(BOUND)
        pair.bob.message_received -= handler
        pair.bob.message_received += lambda sender, args: None
        assert send(pair).response_code == 200


def test_a_blocking_call_on_the_loop_thread_raises() -> None:
    with tcp_pair() as pair:
        result: concurrent.futures.Future[BaseException | None] = concurrent.futures.Future()

        def call() -> None:
            try:
                pair.alice.send_message(MessageType.MESSAGE, pair.bob.uri, body="x")
            except BaseException as error:
                result.set_result(error)
            else:
                result.set_result(None)

        pair.alice.connection_manager._stack.post(call)
        error = result.result(BOUND)
        assert isinstance(error, RealTimeInvalidOperationException)
        assert "block" in str(error)


@pytest.mark.holds("R36")
def test_the_death_of_the_loop_ends_every_wait_and_says_why() -> None:
    with tcp_pair() as pair:
        release = threading.Event()
        pair.bob.message_received += lambda sender, args: release.wait(BOUND)
        operations = [pair.alice.begin_send_message(MessageType.MESSAGE, pair.bob.uri, body="x") for _ in range(5)]

        def die() -> None:
            raise SystemExit("out of luck")

        pair.alice.connection_manager._stack.post(die)
        errors = [operation.exception(BOUND) for operation in operations]
        assert all(isinstance(error, OperationFailureException) for error in errors)
        assert len({id(error) for error in errors}) == 5
        assert "out of luck" in str(errors[0])
        with pytest.raises(OperationFailureException, match="out of luck"):
            send(pair)
        release.set()


@pytest.mark.holds("R39")
def test_dispose_fails_what_is_pending_and_frees_the_port() -> None:
    with tcp_pair() as pair:
        release = threading.Event()
        pair.bob.message_received += lambda sender, args: release.wait(BOUND)
        operation = pair.alice.begin_send_message(MessageType.MESSAGE, pair.bob.uri, body="x")
        started = time.monotonic()
        pair.alice.connection_manager.dispose()
        error = operation.exception(BOUND)
        assert isinstance(error, OperationFailureException)
        assert time.monotonic() - started < 2 + 1
        release.set()
        port = pair.bob.connection_manager.listening_port
        pair.bob.connection_manager.dispose()
        with p2psip.RealTimeServerTcpConnectionManager() as manager:
            manager.start_listening(IPEndPoint(IPAddress.LOOPBACK, port))
            assert manager.listening_port == port


def test_dispose_as_often_as_one_likes_and_from_many_threads() -> None:
    manager = p2psip.RealTimeServerTcpConnectionManager()
    manager.start_listening((IPAddress.LOOPBACK, 0))
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: manager.dispose(), range(4)))
    manager.dispose()
    with pytest.raises(RealTimeInvalidOperationException, match="disposed"):
        manager.start_listening((IPAddress.LOOPBACK, 0))
    with pytest.raises(RealTimeInvalidOperationException, match="disposed"):
        p2psip.SipPeerToPeerEndpoint("sip:late@example.com", manager)


def test_a_manager_whose_loop_has_ended_takes_no_endpoint() -> None:
    def die() -> None:
        raise KeyboardInterrupt

    with p2psip.RealTimeServerTcpConnectionManager() as manager:
        manager._stack.post(die)
        assert manager._stack.loop.join(BOUND)
        with pytest.raises(RealTimeInvalidOperationException, match="KeyboardInterrupt"):
            p2psip.SipPeerToPeerEndpoint("sip:a@example.com", manager)
        assert manager.endpoints == ()


@pytest.mark.holds("R41")
def test_a_dispose_that_is_interrupted_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    manager = p2psip.RealTimeServerTcpConnectionManager()
    manager.start_listening(IPEndPoint(IPAddress.LOOPBACK, 0))
    join = manager._stack.loop.join

    def interrupted(timeout: float | None = None) -> bool:
        join(timeout)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(manager._stack.loop, "join", interrupted)
        manager.dispose()
    assert manager._gone.done()
    manager.dispose()
    assert not manager._stack.dispatcher.submit(print)


@pytest.mark.holds("R40", "F27")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_after_a_fork_only_the_parent_goes_on() -> None:
    with tcp_pair() as pair:
        release = threading.Event()
        pair.bob.message_received += lambda sender, args: release.wait(BOUND)
        pending = pair.alice.begin_send_message(MessageType.MESSAGE, pair.bob.uri, body="x")
        child = os.fork()
        if child == 0:
            code = 1
            try:
                pending.result(BOUND)
            except RealTimeInvalidOperationException:
                code = 2
            try:
                pair.alice.send_message(
                    MessageType.MESSAGE, "sip:bob@127.0.0.1:9;transport=tcp", body="x", timeout=BOUND
                )
            except RealTimeInvalidOperationException:
                code += 10
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 12
        release.set()
        assert pending.result(BOUND).response_code == 200


@pytest.mark.holds("R40", "F27")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_what_another_thread_held_at_the_fork_keeps_no_child_waiting() -> None:
    with tcp_pair() as pair:
        held, over = threading.Event(), threading.Event()
        manager = pair.alice.connection_manager

        def hold() -> None:
            with manager._lock, pair.alice._lock, manager._stack._start_lock:
                held.set()
                over.wait(BOUND)

        holder = threading.Thread(target=hold)
        holder.start()
        assert held.wait(BOUND)
        child = os.fork()
        if child == 0:
            signal.alarm(int(BOUND))  # which ends a child that waits
            try:
                pair.alice.terminate()
                manager.dispose()
            finally:
                os._exit(0)
        over.set()
        holder.join(BOUND)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        pair.bob.message_received += lambda sender, args: None
        assert pair.alice.send_message(MessageType.MESSAGE, pair.bob.uri, body="x").response_code == 200


@pytest.mark.holds("R40", "F27")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_after_a_fork_the_child_has_a_shared_manager_of_its_own() -> None:
    endpoint = p2psip.SipPeerToPeerEndpoint("sip:a@example.com")
    with endpoint.connection_manager as shared:
        shared.start_listening(IPEndPoint(IPAddress.LOOPBACK, 0))
        address = endpoint.uri
        child = os.fork()
        if child == 0:
            code = 1
            try:
                assert p2psip.RealTimeEndpoint.default_peer_to_peer_endpoint_connection_manager is None
                with pytest.raises(RealTimeInvalidOperationException):
                    p2psip.SipPeerToPeerEndpoint("sip:b@example.com", shared)
                own = p2psip.SipPeerToPeerEndpoint("sip:b@example.com")
                code = int(own.send_message(MessageType.OPTIONS, address, timeout=BOUND).response_code) - 100
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 100


@pytest.mark.holds("R39", "F29")
def test_the_interpreter_ends_quickly_and_quietly_with_calls_pending() -> None:
    script = """
import p2psip, sys
manager = p2psip.RealTimeServerTcpConnectionManager()
endpoint = p2psip.SipPeerToPeerEndpoint("sip:alice@example.com", manager)
manager.start_listening(("127.0.0.1", 0))
for _ in range(20):
    endpoint.begin_send_message("MESSAGE", f"sip:bob@127.0.0.1:{sys.argv[1]}", body="x")
"""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        result = subprocess.run(
            [sys.executable, "-c", script, str(silent.getsockname()[1])],
            capture_output=True,
            text=True,
            timeout=BOUND,
            check=False,
        )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
