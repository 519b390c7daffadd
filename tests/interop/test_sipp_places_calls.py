"""SIPp as the caller, our endpoint as the callee."""

from __future__ import annotations

from pathlib import Path

import pytest
from interop_calls import AUDIO, HELD, PATIENCE, Calls, Sent, at_once, end_of, sdp
from interop_link import link
from interop_script import Script, caller
from scale import scaled

from p2psip import MessageReceivedEventArgs
from p2psip.enums import SignalingTransitionReason
from p2psip.session import SignalingSession

pytestmark = pytest.mark.interop

KINDS = ("TCP", "TLSv1.3")
BOTH = pytest.mark.parametrize("kind", KINDS)


def up(name: str, *headers: str) -> Script:
    """A call that is up."""
    return caller(name, *headers).wants(100, optional=True).wants(180, optional=True).wants(200).ack()


def ring_and_accept(session: SignalingSession) -> None:
    session.send_provisional_response(180)
    session.begin_accept(lambda offer: AUDIO)


def expect(wire_kind: str, folder: Path, script: Script, calls: Calls, count: int = 10, **options: object) -> Sent:
    """Play the script so often; what we sent."""
    with link(folder, wire_kind) as wire:
        sent = Sent()
        wire.manager.trace += sent
        wire.endpoint.session_received += calls
        client = wire.client("", script, calls=count, **options)  # type: ignore[arg-type]
        client.check()
        calls.wait(count)
        for session in calls.sessions:
            assert end_of(session).wait(PATIENCE), session
        assert not wire.endpoint._sessions
    return sent


@pytest.mark.long
def test_fifty_calls_a_second(tmp_path: Path) -> None:
    """Over TCP and over TLS, at the same time. None is lost, and each message is sent once."""
    count = scaled(10_000)
    patience = PATIENCE + count / 40

    def take(kind: str) -> None:
        script = up("call").pauses(100).request("BYE").wants(200)
        folder = tmp_path / kind
        folder.mkdir()
        sent = expect(kind, folder, script, Calls(ring_and_accept), count, rate=50, in_flight=500, patience=patience)
        sent.tally.pop("100 INVITE", None)
        assert sent.tally == {"180 INVITE": count, "200 INVITE": count, "200 BYE": count}

    at_once(take, KINDS)


@BOTH
def test_calls_that_we_end(tmp_path: Path, kind: str) -> None:
    script = up("call_ended").receives("BYE").answers(200)

    def take(session: SignalingSession) -> None:
        session.accept(AUDIO)
        session.begin_terminate()

    sent = expect(kind, tmp_path, script, Calls(take), 50)
    assert (sent.tally["200 INVITE"], sent.tally["BYE"]) == (50, 50)


@BOTH
def test_calls_that_are_taken_back(tmp_path: Path, kind: str) -> None:
    script = Script("call_cancelled").request("INVITE", body=sdp()).wants(100, optional=True).wants(180)
    script.cancel().wants(200, contains=("CSeq", "CANCEL")).wants(487, contains=("CSeq", "INVITE")).ack_failure()
    calls = Calls(lambda session: session.send_provisional_response(180))
    sent = expect(kind, tmp_path, script, calls, 50)
    assert sent.tally["487 INVITE"] == 50
    assert {session.transition_reason for session in calls.sessions} == {SignalingTransitionReason.CANCELED}


@BOTH
def test_calls_on_hold_and_back(tmp_path: Path, kind: str) -> None:
    script = up("call_held")
    for version, direction in ((2, "sendonly"), (3, "sendrecv")):
        script.request("INVITE", body=sdp(direction, version)).wants(100, optional=True)
        script.wants(200, contains=("Content-Type", "application/sdp")).ack()
    script.request("BYE").wants(200)
    seen: list[bytes] = []

    def take(session: SignalingSession) -> None:
        def answer(offer: object) -> object:
            seen.append(offer.body)  # type: ignore[attr-defined]
            return AUDIO

        session.begin_accept(answer)  # type: ignore[arg-type]

    expect(kind, tmp_path, script, Calls(take), 20)
    assert len(seen) == 60
    assert sum(b"sendonly" in body for body in seen) == 20


@BOTH
def test_calls_that_we_hold(tmp_path: Path, kind: str) -> None:
    script = up("call_held_by_us").receives("INVITE", contains=("", "sendonly"))
    script.answers(200, body=sdp("recvonly", 2)).receives("ACK").receives("BYE").answers(200)

    def take(session: SignalingSession) -> None:
        session.accept(AUDIO)
        session.renegotiate(HELD)
        assert session.remote_description is not None
        assert b"recvonly" in session.remote_description.body
        session.begin_terminate()

    expect(kind, tmp_path, script, Calls(take), 20)


@BOTH
def test_reliable_provisional_responses(tmp_path: Path, kind: str) -> None:
    script = caller("call_100rel", "Supported: 100rel").wants(100, optional=True)
    script.wants(183, contains=("RSeq", "([0-9]+)")).request("PRACK", "RAck: [$rseq] 1 INVITE")
    script.wants(200, contains=("CSeq", "PRACK")).wants(200, contains=("CSeq", "INVITE")).ack()
    script.request("BYE").wants(200)

    def take(session: SignalingSession) -> None:
        prack = session.send_reliable_provisional_response(183, answer=AUDIO)
        assert prack is not None
        session.begin_accept()

    sent = expect(kind, tmp_path, script, Calls(take), 20)
    assert sent.tally["183 INVITE"] == 20


@BOTH
def test_update_before_and_after_the_answer(tmp_path: Path, kind: str) -> None:
    script = caller("call_update", "Supported: 100rel").wants(100, optional=True)
    script.wants(183, contains=("RSeq", "([0-9]+)")).request("PRACK", "RAck: [$rseq] 1 INVITE")
    script.wants(200, contains=("CSeq", "PRACK")).request("UPDATE", body=sdp("sendonly", 2))
    script.wants(200, contains=("CSeq", "UPDATE")).request("INFO").wants(200, contains=("CSeq", "INFO"))
    script.wants(200, contains=("CSeq", "INVITE")).ack()
    script.request("UPDATE", body=sdp("sendrecv", 3)).wants(200, contains=("Content-Type", "application/sdp"))
    script.request("BYE").wants(200)

    def take(session: SignalingSession) -> None:
        def informed(sender: SignalingSession, args: MessageReceivedEventArgs) -> None:
            args.send_response(200)
            session.begin_accept()

        session.message_received += informed
        session.send_reliable_provisional_response(183, answer=lambda offer: AUDIO)

    expect(kind, tmp_path, script, Calls(take), 20)


@BOTH
@pytest.mark.parametrize("code", (400, 404, 480, 486, 488, 500, 503, 600, 603))
def test_calls_that_are_refused(tmp_path: Path, code: int, kind: str) -> None:
    script = Script("call_refused").request("INVITE", body=sdp()).wants(100, optional=True)
    script.wants(code).ack_failure()
    sent = expect(kind, tmp_path, script, Calls(lambda session: session.terminate_with_rejection(code)))
    assert sent.tally[f"{code} INVITE"] == 10


@BOTH
def test_calls_that_are_sent_elsewhere(tmp_path: Path, kind: str) -> None:
    script = Script("call_redirected").request("INVITE", body=sdp()).wants(100, optional=True)
    script.wants(302, contains=("Contact", "carol@example.com")).ack_failure()
    expect(kind, tmp_path, script, Calls(lambda session: session.terminate_with_redirection("sip:carol@example.com")))
