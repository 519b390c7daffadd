"""Our endpoint as the caller, SIPp as the callee."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from interop_calls import AUDIO, HELD, PATIENCE, Sent, answering, at_once, begin, call, end_of, sdp
from interop_link import link
from interop_script import Script, callee
from scale import scaled

from p2psip import ContentDescription, FailureResponseException, OperationFailureException, TraceEventArgs
from p2psip.enums import SignalingState, SignalingTransitionReason
from p2psip.session import SignalingSession

pytestmark = pytest.mark.interop

KINDS = ("TCP", "TLSv1.3")
BOTH = pytest.mark.parametrize("kind", KINDS)


def up(name: str) -> Script:
    """A call that is up."""
    return callee(name).answers_first(180).answers_first(200, body=sdp()).receives("ACK")


@pytest.mark.long
def test_fifty_calls_a_second(tmp_path: Path) -> None:
    """Over TCP and over TLS, at the same time. None is lost, and each message is sent once."""
    count = scaled(10_000)

    def place(kind: str) -> None:
        script = up("answer").receives("BYE").answers(200)
        folder = tmp_path / kind
        folder.mkdir()
        with link(folder, kind) as wire:
            sent = Sent()
            wire.manager.trace += sent
            server = answering(wire, script, calls=count, patience=PATIENCE + count / 40)
            sessions = [call(wire) for _ in range(count)]
            operations = []
            tick, start = threading.Event(), time.monotonic()
            for number, session in enumerate(sessions):
                tick.wait(max(0.0, start + number / 50 - time.monotonic()))
                operation = session.begin_establish(AUDIO, connection_context=server.context, timeout=PATIENCE)
                operation.add_done_callback(lambda operation, session=session: session.begin_terminate())
                operations.append(operation)
            for operation, session in zip(operations, sessions, strict=True):
                assert operation.result(PATIENCE).response_code == 200
                session.terminate()
                assert session.transition_reason is SignalingTransitionReason.TERMINATED_LOCALLY
            server.sipp.check()
            assert sent.tally == {"INVITE": count, "ACK": count, "BYE": count}
            assert not wire.endpoint._sessions

    at_once(place, KINDS)


@BOTH
def test_calls_that_the_peer_ends(tmp_path: Path, kind: str) -> None:
    script = up("answer_and_end").request("BYE").wants(200)
    with link(tmp_path, kind) as wire:
        server = answering(wire, script, calls=20)
        for _ in range(20):
            session = call(wire)
            ended = end_of(session)
            begin(wire, server, session)
            assert ended.wait(PATIENCE)
            assert session.transition_reason is SignalingTransitionReason.TERMINATED_REMOTELY
        server.sipp.check()


@BOTH
def test_calls_that_we_take_back(tmp_path: Path, kind: str) -> None:
    script = callee("answer_cancelled").answers_first(180).receives("CANCEL").answers(200).answers_first(487)
    script.receives("ACK")
    with link(tmp_path, kind) as wire:
        server = answering(wire, script, calls=20)
        for _ in range(20):
            session = call(wire)
            with session.provisional_response_received.expect(timeout=PATIENCE):
                operation = session.begin_establish(AUDIO, connection_context=server.context)
            session.terminate()
            assert isinstance(operation.exception(PATIENCE), OperationFailureException)
        server.sipp.check()


@BOTH
def test_calls_that_we_hold(tmp_path: Path, kind: str) -> None:
    script = up("answer_held").receives("INVITE", contains=("", "sendonly")).answers(200, body=sdp("recvonly", 2))
    script.receives("ACK").receives("INVITE").answers(488).receives("ACK").receives("BYE").answers(200)
    with link(tmp_path, kind) as wire:
        server = answering(wire, script, calls=5)
        for _ in range(5):
            session = call(wire)
            begin(wire, server, session)
            session.renegotiate(HELD)
            assert session.remote_description is not None
            assert b"recvonly" in session.remote_description.body
            with pytest.raises(FailureResponseException, match="488"):
                session.renegotiate(AUDIO)
            assert session.state is SignalingState.CONNECTED
            session.terminate()
        server.sipp.check()


@BOTH
def test_calls_that_the_peer_holds(tmp_path: Path, kind: str) -> None:
    script = up("answer_and_hold").request("INVITE", body=sdp("sendonly", 2)).wants(100, optional=True)
    script.wants(200, contains=("Content-Type", "application/sdp")).ack()
    script.request("UPDATE", body=sdp("sendrecv", 3)).wants(200, contains=("Content-Type", "application/sdp"))
    script.request("BYE").wants(200)
    with link(tmp_path, kind) as wire:
        server = answering(wire, script, calls=5)
        for _ in range(5):
            session = call(wire)
            ended = end_of(session)
            offers: list[ContentDescription | None] = []

            def answer(offer: ContentDescription | None, offers: list[ContentDescription | None] = offers) -> object:
                offers.append(offer)
                return AUDIO

            session.establish(
                AUDIO,
                answer=answer,  # type: ignore[arg-type]
                connection_context=server.context,
            )
            assert ended.wait(PATIENCE)
            assert [b"sendonly" in offer.body for offer in offers if offer is not None] == [True, False]
        server.sipp.check()


@BOTH
def test_reliable_provisional_responses(tmp_path: Path, kind: str) -> None:
    """And an UPDATE before the call is answered."""
    script = callee("answer_100rel").answers_first(183, "Require: 100rel", "RSeq: 17", body=sdp())
    script.receives("PRACK", contains=("RAck", "17 +[0-9]+ +INVITE")).answers(200)
    script.answers_first(180, "Require: 100rel", "RSeq: 18", "Allow: INVITE, ACK, BYE, CANCEL, UPDATE, PRACK")
    script.receives("PRACK", contains=("RAck", "18 +[0-9]+ +INVITE")).answers(200)
    script.receives("UPDATE", contains=("", "sendonly")).answers(200, body=sdp("recvonly", 2)).answers_first(200)
    script.receives("ACK").receives("BYE").answers(200)
    acknowledged = threading.Event()  # twice; before that SIPp takes no UPDATE

    def traced(sender: object, args: TraceEventArgs) -> None:
        if args.direction == "received" and b"CSeq: 3 PRACK" in args.data:
            acknowledged.set()

    with link(tmp_path, kind) as wire:
        wire.manager.trace += traced
        server = answering(wire, script, calls=5)
        for _ in range(5):
            session = call(wire)
            codes: list[tuple[int, bool]] = []
            session.provisional_response_received += lambda sender, args, codes=codes: codes.append(
                (args.response_data.response_code, args.is_reliable)
            )
            acknowledged.clear()
            operation = session.begin_establish(AUDIO, connection_context=server.context)
            assert acknowledged.wait(PATIENCE)
            session.renegotiate(HELD)
            operation.result(PATIENCE)
            assert codes == [(183, True), (180, True)]
            session.terminate()
        server.sipp.check()


@BOTH
@pytest.mark.parametrize("code", (400, 403, 404, 480, 486, 488, 500, 503, 600, 603, 606))
def test_calls_that_are_refused(tmp_path: Path, code: int, kind: str) -> None:
    script = callee("answer_refused").answers_first(code, reason="Because I Say So").receives("ACK")
    with link(tmp_path, kind) as wire:
        server = answering(wire, script, calls=3)
        for _ in range(3):
            session = call(wire)
            with pytest.raises(FailureResponseException, match=f"{code} Because I Say So"):
                begin(wire, server, session)
            assert session.is_terminated
        server.sipp.check()


@BOTH
def test_calls_that_are_sent_elsewhere(tmp_path: Path, kind: str) -> None:
    with link(tmp_path, kind) as wire:
        last = answering(wire, up("answer_elsewhere").receives("BYE").answers(200), calls=3)
        transport = "tls" if wire.is_secure else "tcp"
        contact = f"Contact: <sip:other@{last.context[0]}:{last.port};transport={transport}>;q=0.7"
        first = answering(wire, callee("answer_302").answers_first(302, contact).receives("ACK"), calls=3)
        for _ in range(3):
            session = SignalingSession(wire.endpoint, f"sip:sipp@{first.context[0]}:{first.port}")
            session.establish(AUDIO, timeout=PATIENCE)
            assert session.state is SignalingState.CONNECTED
            session.terminate()
        first.sipp.check()
        last.sipp.check()
