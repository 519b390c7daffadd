"""Calls through Kamailio, which stays on the path: each request of a dialog goes by its Record-Route, both ways."""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from interop_calls import AUDIO, HELD, end_of
from interop_kamailio import BOTH, Behind, behind
from interop_support import PATIENCE

from p2psip import (
    ContentDescription,
    FailureResponseException,
    MessageType,
    OperationFailureException,
    ReferReceivedEventArgs,
)
from p2psip.enums import SignalingState, SignalingTransitionReason
from p2psip.session import SignalingSession

pytestmark = pytest.mark.interop

SIDES = ("caller", "callee")
FROM_BOTH = pytest.mark.parametrize("side", SIDES)


def answer(offer: ContentDescription | None) -> ContentDescription:
    """What both sides say to an offer."""
    held = offer is not None and b"a=sendonly" in offer.body
    return ContentDescription("application/sdp", AUDIO.body + (b"a=recvonly\r\n" if held else b"a=sendrecv\r\n"))


class Call:
    """A call from Alice to Bob that is up.

    Attributes:
        caller, callee: Its two ends.
        parties: Who is at which.
        taken: What calls they take.
    """

    def __init__(self, path: Behind) -> None:
        self.parties = {"caller": path.alice, "callee": path.bob}
        self.taken = {
            side: party.takes_calls(lambda session: session.accept(answer)) for side, party in self.parties.items()
        }
        self.caller = path.alice.call(path.bob)
        self.caller.establish(AUDIO, answer=answer, timeout=PATIENCE)
        self.taken["callee"].wait(1)
        (self.callee,) = self.taken["callee"].sessions

    def ends(self, side: str) -> tuple[SignalingSession, SignalingSession]:
        """That side of it and the other."""
        return (self.caller, self.callee) if side == "caller" else (self.callee, self.caller)


@contextlib.contextmanager
def call_between(folder: Path, kind: str, **options: object) -> Iterator[tuple[Behind, Call]]:
    """Alice and Bob, with a call between them."""
    with behind(folder, kind, **options) as path:
        yield path, Call(path)


@BOTH
@FROM_BOTH
def test_either_side_ends_the_call(tmp_path: Path, kind: str, side: str) -> None:
    with call_between(tmp_path, kind) as (_, call):
        near, far = call.ends(side)
        ended = end_of(far)
        near.terminate()
        assert ended.wait(PATIENCE)
        assert near.transition_reason is SignalingTransitionReason.TERMINATED_LOCALLY
        assert far.transition_reason is SignalingTransitionReason.TERMINATED_REMOTELY
        call.parties[side].traffic.wait_for({"BYE": 1}, {"BYE": 0, "200 BYE": 1})


@BOTH
@FROM_BOTH
def test_either_side_holds_and_resumes(tmp_path: Path, kind: str, side: str) -> None:
    with call_between(tmp_path, kind) as (_, call):
        near, far = call.ends(side)
        for offer, mark in ((HELD, b"a=recvonly"), (AUDIO, b"a=sendrecv")):
            near.renegotiate(offer)
            assert near.remote_description is not None
            assert mark in near.remote_description.body
            assert far.remote_description is not None
            assert (b"a=sendonly" in far.remote_description.body) is (offer is HELD)
        count = 3 if side == "caller" else 2
        call.parties[side].traffic.wait_for({"INVITE": count, "ACK": count})
        far.terminate()
        assert near.is_terminated


@BOTH
@FROM_BOTH
def test_either_side_sends_messages_within_the_call(tmp_path: Path, kind: str, side: str) -> None:
    with call_between(tmp_path, kind) as (_, call):
        near, far = call.ends(side)
        heard: list[tuple[object, str | None]] = []
        far.message_received += lambda sender, args: heard.append((args.message_type, args.text_body))
        types = (MessageType.INFO, MessageType.MESSAGE)
        for message_type in types:
            assert near.send_message(message_type, "text/plain", "within", timeout=PATIENCE).response_code == 200
        assert heard == [(message_type, "within") for message_type in types]
        near.terminate()


@BOTH
@pytest.mark.parametrize("caller", ("alice", "bob"))
def test_the_caller_takes_the_call_back(tmp_path: Path, kind: str, caller: str) -> None:
    with behind(tmp_path, kind) as path:
        near, far = (path.alice, path.bob) if caller == "alice" else (path.bob, path.alice)
        taken = far.takes_calls(lambda session: session.send_provisional_response(180))
        session = near.call(far)
        with session.provisional_response_received.expect(timeout=PATIENCE):
            operation = session.begin_establish(AUDIO)
        taken.wait(1)
        ended = end_of(taken.sessions[0])
        session.terminate()
        assert isinstance(operation.exception(PATIENCE), OperationFailureException)
        assert ended.wait(PATIENCE)
        near.traffic.wait_for({"CANCEL": 1}, {"200 CANCEL": 1, "487 INVITE": 1})
        far.traffic.wait_for({"487 INVITE": 1}, {"CANCEL": 1, "ACK": 1})


@BOTH
@pytest.mark.parametrize("code", (404, 486, 603))
def test_calls_that_are_refused(tmp_path: Path, kind: str, code: int) -> None:
    with behind(tmp_path, kind) as path:
        path.bob.takes_calls(lambda session: session.terminate_with_rejection(code, "Because I Say So"))
        with pytest.raises(FailureResponseException, match=f"{code} Because I Say So"):
            path.alice.call(path.bob).establish(AUDIO, timeout=PATIENCE)
        path.bob.traffic.wait_for(received={"ACK": 1})


@BOTH
def test_reliable_provisional_responses_and_an_update(tmp_path: Path, kind: str) -> None:
    """PRACK and UPDATE are of a dialog that is early yet."""
    updated = threading.Event()
    with behind(tmp_path, kind) as path:

        def take(session: SignalingSession) -> None:
            assert session.send_reliable_provisional_response(183, answer=answer) is not None
            assert updated.wait(PATIENCE)
            session.accept()

        taken = path.bob.takes_calls(take)
        session = path.alice.call(path.bob)
        operation = session.begin_establish(AUDIO)
        path.alice.traffic.wait_for(received={"200 PRACK": 1})
        session.renegotiate(HELD)
        assert session.remote_description is not None
        assert b"a=recvonly" in session.remote_description.body
        updated.set()
        assert operation.result(PATIENCE).response_code == 200
        taken.wait(1)
        path.bob.traffic.wait_for(received={"INVITE": 1, "PRACK": 1, "UPDATE": 1, "ACK": 1})
        taken.sessions[0].terminate()
        assert session.is_terminated


@BOTH
@FROM_BOTH
def test_either_side_transfers_the_other(tmp_path: Path, kind: str, side: str) -> None:
    """The one who is transferred calls the address, which is of the other's endpoint here, by the proxy as well."""
    with call_between(tmp_path, kind) as (path, call):
        near, far = call.ends(side)
        party = call.parties[side]
        followed: concurrent.futures.Future[SignalingSession] = concurrent.futures.Future()

        def follow(sender: object, args: ReferReceivedEventArgs) -> None:
            followed.set_result(args.follow(AUDIO))

        far.refer_received += follow
        near.transfer(party.address, timeout=PATIENCE)
        assert near.is_terminated
        session = followed.result(PATIENCE)
        assert session.state is SignalingState.CONNECTED
        session.terminate()
        assert call.taken[side].sessions[-1].is_terminated
        traffic = path.bob.traffic if side == "caller" else path.alice.traffic
        traffic.wait_for({"202 REFER": 1})
        assert traffic.sent["NOTIFY"] >= 2


@FROM_BOTH
@pytest.mark.parametrize("kind", ("TLS to TCP", "TCP to TLS"))
def test_where_tcp_meets_tls(tmp_path: Path, kind: str, side: str) -> None:
    """The proxy is twice in the route, once for each side of it (``r2=on``)."""
    with call_between(tmp_path, kind) as (path, call):
        near, far = call.ends(side)
        heard: list[str | None] = []
        far.message_received += lambda sender, args: heard.append(args.text_body)
        near.send_message(MessageType.INFO, "text/plain", "within", timeout=PATIENCE)
        assert heard == ["within"]
        near.renegotiate(HELD)
        path.proxy.stop()
        path.proxy.start()
        near.renegotiate(AUDIO)
        ended = end_of(far)
        near.terminate()
        assert ended.wait(PATIENCE)
