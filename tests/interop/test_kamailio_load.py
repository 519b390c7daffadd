"""Many messages and many calls through Kamailio, none of them lost."""

from __future__ import annotations

import collections
import threading
import time
from pathlib import Path

import pytest
from interop_calls import AUDIO
from interop_kamailio import BOTH, behind
from interop_support import PATIENCE
from scale import scaled

from p2psip import MessageReceivedEventArgs, MessageType, Operation
from p2psip.enums import SignalingState, SignalingTransitionReason
from p2psip.session import SignalingSession
from p2psip.session_events import SignalingStateChangedEventArgs

pytestmark = [pytest.mark.interop, pytest.mark.long]

MESSAGES = scaled(20_000)
CALLS = 2 * scaled(1000)


class Window:
    """So many are under way at a time, and not more."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._free = threading.Semaphore(size)

    def enter(self) -> None:
        assert self._free.acquire(timeout=PATIENCE)

    def leave(self, *_: object) -> None:
        self._free.release()

    def wait(self) -> None:
        """Until none is under way."""
        for _ in range(self._size):
            self.enter()


@BOTH
def test_messages(tmp_path: Path, kind: str) -> None:
    """A hundred in flight; each arrives once, in order, and is answered."""
    with behind(tmp_path, kind, log=False, wait=500) as path:
        heard: list[int] = []

        def received(sender: object, args: MessageReceivedEventArgs) -> None:
            heard.append(int(args.text_body or ""))

        count = MESSAGES
        path.bob.endpoint.message_received += received
        window, operations = Window(100), []
        start = time.monotonic()
        for number in range(count):
            window.enter()
            operation = path.alice.endpoint.begin_send_message(MessageType.MESSAGE, path.bob.address, body=str(number))
            operation.add_done_callback(window.leave)
            operations.append(operation)
        answers = collections.Counter(operation.result(PATIENCE).response_code for operation in operations)
        print(f"{count} messages over {kind} in {time.monotonic() - start:.1f} s")
        assert answers == {200: count}
        assert heard == list(range(count))
        path.alice.traffic.wait_for({"MESSAGE": count}, {"200 MESSAGE": count})


@BOTH
def test_calls(tmp_path: Path, kind: str) -> None:
    """Thirty at a time, ended by the caller and by the callee in turn; each message is sent once."""
    with behind(tmp_path, kind, log=False, wait=500) as path:
        window, count = Window(30), CALLS
        reasons: collections.Counter[SignalingTransitionReason] = collections.Counter()

        def state_changed(session: SignalingSession, args: SignalingStateChangedEventArgs) -> None:
            if args.state is SignalingState.DISCONNECTED:
                reasons[args.reason] += 1
                window.leave()

        def take(session: SignalingSession) -> None:
            session.accept(AUDIO)
            if session.call_id.startswith("yours"):
                session.begin_terminate()

        taken = path.bob.takes_calls(take)
        operations: list[Operation[object]] = []
        start = time.monotonic()
        for number in range(count):
            window.enter()
            call_id = f"{('ours', 'yours')[number % 2]}-{number}"
            session = SignalingSession(path.alice.endpoint, path.bob.address, call_id=call_id)
            session.state_changed += state_changed
            operation = session.begin_establish(AUDIO)
            if call_id.startswith("ours"):
                operation.add_done_callback(lambda _, session=session: session.begin_terminate())
            operations.append(operation)
        for operation in operations:
            operation.result(PATIENCE)
        window.wait()
        print(f"{count} calls over {kind} in {time.monotonic() - start:.1f} s")
        taken.wait(count)
        assert reasons == {
            SignalingTransitionReason.TERMINATED_LOCALLY: count // 2,
            SignalingTransitionReason.TERMINATED_REMOTELY: count // 2,
        }
        path.alice.traffic.wait_for({"INVITE": count, "ACK": count, "BYE": count // 2, "200 BYE": count // 2})
        path.bob.traffic.wait_for({"200 INVITE": count, "BYE": count // 2, "200 BYE": count // 2})
        for party in path.parties:
            assert not party.endpoint._sessions
