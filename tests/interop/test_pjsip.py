"""PJSIP, a user agent of others, and our endpoint: all that two of them do, over TCP and mutual TLS."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from interop_agents import HELD, KINDS, Ours
from interop_calls import AUDIO, end_of
from interop_pjsip import Pjsip, require_pjsip
from interop_support import LOOPBACK, PATIENCE

from p2psip import (
    FailureResponseException,
    IncomingSubscription,
    MessageReceivedEventArgs,
    MessageType,
    OperationFailureException,
    ReferReceivedEventArgs,
    SipSubscription,
    SubscriptionReceivedEventArgs,
)
from p2psip.enums import ExtensionFeatureSupport, SignalingState, SignalingTransitionReason
from p2psip.session import SignalingSession

pytestmark = pytest.mark.interop

PRESENCE = "application/pidf+xml"
PIDF = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<presence xmlns="urn:ietf:params:xml:ns:pidf" entity="pres:bob@127.0.0.1">'
    '<tuple id="a"><status><basic>{}</basic></status></tuple></presence>\n'
)
DIGIT = "application/dtmf-relay"


class Parties(Ours):
    """PJSIP and we."""

    def __init__(self, folder: Path, kind: str) -> None:
        python = require_pjsip()
        super().__init__(folder, kind)
        try:
            self.pjsip = Pjsip(python, folder / "pjsip", self.theirs)
        except BaseException:
            super().close()
            raise

    def call(self) -> SignalingSession:
        """A call to it, yet to be placed."""
        return SignalingSession(self.endpoint, self.pjsip.address)

    def close(self) -> None:
        try:
            super().close()
        finally:
            self.pjsip.stop()


@pytest.fixture(params=KINDS)
def parties(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Parties]:
    made = Parties(tmp_path, request.param)
    yield made
    made.close()


def check_connection(parties: Parties, session: SignalingSession) -> None:
    """On TLS both sides have shown who they are; PJSIP demands it by itself."""
    connection = session.connection
    assert connection is not None
    expected = ("TLSv1.2", (LOOPBACK,)) if parties.kind == "TLS" else (None, ())
    assert (connection.tls_version, connection.remote_identities) == expected


def test_pjsip_calls_us_holds_and_hangs_up(parties: Parties) -> None:
    parties.pjsip.order("dial", address=parties.address)
    parties.pjsip.wait_for("call", state="EARLY", code=180)
    parties.pjsip.wait_for("call", state="CONFIRMED")
    (session,) = parties.wait_for_calls(1)
    check_connection(parties, session)
    ended = end_of(session)
    parties.pjsip.order("hold")
    assert b"a=sendonly" in parties.wait_for_offers(2)[1]
    parties.pjsip.wait_for("media", state="holding")
    parties.pjsip.order("resume")
    assert b"a=sendrecv" in parties.wait_for_offers(3)[2]
    parties.pjsip.wait_for("media", 2, state="active")
    assert session.state is SignalingState.CONNECTED
    parties.pjsip.order("hang_up")
    assert ended.wait(PATIENCE)
    assert session.transition_reason is SignalingTransitionReason.TERMINATED_REMOTELY


def test_we_call_pjsip_hold_and_hang_up(parties: Parties) -> None:
    session = parties.call()
    session.establish(AUDIO, timeout=PATIENCE)
    parties.pjsip.wait_for("call", state="CONFIRMED")
    check_connection(parties, session)
    session.renegotiate(HELD)
    parties.pjsip.wait_for("media", state="held")
    assert session.remote_description is not None
    assert b"a=recvonly" in session.remote_description.body
    session.renegotiate(AUDIO)
    parties.pjsip.wait_for("media", 2, state="active")
    session.terminate()
    parties.pjsip.wait_for("call", state="DISCONNECTED", code=200)


def test_pjsip_holds_a_call_of_ours_and_hangs_up(parties: Parties) -> None:
    session = parties.call()
    ended = end_of(session)
    session.establish(AUDIO, answer=parties.answer, timeout=PATIENCE)
    parties.pjsip.wait_for("call", state="CONFIRMED")
    parties.pjsip.order("hold")
    assert b"a=sendonly" in parties.wait_for_offers(1)[0]
    parties.pjsip.wait_for("media", state="holding")
    parties.pjsip.order("hang_up")
    assert ended.wait(PATIENCE)
    assert session.transition_reason is SignalingTransitionReason.TERMINATED_REMOTELY


def test_we_hold_a_call_of_pjsip_and_hang_up(parties: Parties) -> None:
    parties.pjsip.order("dial", address=parties.address)
    parties.pjsip.wait_for("call", state="CONFIRMED")
    (session,) = parties.wait_for_calls(1)
    session.renegotiate(HELD)
    parties.pjsip.wait_for("media", state="held")
    session.terminate()
    parties.pjsip.wait_for("call", state="DISCONNECTED", code=200)


def test_info_both_ways(parties: Parties) -> None:
    heard: concurrent.futures.Future[tuple[MessageType | None, str | None, bytes]] = concurrent.futures.Future()

    def take(sender: object, args: MessageReceivedEventArgs) -> None:
        heard.set_result((args.message_type, args.content_type, args.body))
        args.send_response(200)

    session = parties.call()
    session.message_received += take
    session.establish(AUDIO, timeout=PATIENCE)
    parties.pjsip.wait_for("call", state="CONFIRMED")
    body = "Signal=7\r\nDuration=160\r\n"
    parties.pjsip.order("info", type=DIGIT, body=body)
    assert heard.result(PATIENCE) == (MessageType.INFO, DIGIT, body.encode())
    parties.pjsip.wait_for("info answered", code=200)
    assert session.send_message(MessageType.INFO, DIGIT, body).response_code == 200
    parties.pjsip.wait_for("digit", digit="7")
    session.terminate()


def test_reliable_provisional_responses_of_pjsip(parties: Parties) -> None:
    parties.pjsip.order("reliable", use="maybe")
    parties.pjsip.order("ring_only")
    session = parties.call()
    session.reliable_provisional_response_policy = ExtensionFeatureSupport.REQUIRED
    with session.provisional_response_received.expect(timeout=PATIENCE) as ringing:
        operation = session.begin_establish(AUDIO)
    assert (ringing.args.response_data.response_code, ringing.args.is_reliable) == (180, True)
    parties.pjsip.order("answer", code=183)
    parties.pjsip.order("answer", code=200)
    assert operation.result(PATIENCE).response_code == 200
    session.terminate()
    parties.pjsip.wait_for("call", state="DISCONNECTED", code=200)


def test_reliable_provisional_responses_of_ours(parties: Parties) -> None:
    acknowledged: concurrent.futures.Future[tuple[str, str | None]] = concurrent.futures.Future()

    def take(session: SignalingSession) -> None:
        prack = session.send_reliable_provisional_response(183, answer=AUDIO)
        assert prack is not None
        acknowledged.set_result((prack.message_type, prack.header("RAck")))
        session.begin_accept()

    parties.take = take  # type: ignore[method-assign]
    parties.pjsip.order("reliable", use="always")
    parties.pjsip.order("dial", address=parties.address)
    method, which = acknowledged.result(PATIENCE)
    assert method == "PRACK"
    assert which is not None and which.endswith(" INVITE")
    parties.pjsip.wait_for("call", state="EARLY", code=183)
    parties.pjsip.wait_for("call", state="CONFIRMED")
    (session,) = parties.wait_for_calls(1)
    session.terminate()


def test_pjsip_transfers_us(parties: Parties) -> None:
    """We are sent to an address that happens to be ours."""
    followed: concurrent.futures.Future[SignalingSession] = concurrent.futures.Future()

    def follow(sender: object, args: ReferReceivedEventArgs) -> None:
        followed.set_result(args.follow(AUDIO))

    parties.pjsip.order("dial", address=parties.address)
    parties.pjsip.wait_for("call", state="CONFIRMED")
    (session,) = parties.wait_for_calls(1)
    session.refer_received += follow
    parties.pjsip.order("transfer", address=parties.address)
    call = followed.result(PATIENCE)
    assert call.state is SignalingState.CONNECTED
    parties.pjsip.wait_for("transfer status", code=200, final=True)
    call.terminate()
    session.terminate()


def test_we_transfer_pjsip(parties: Parties) -> None:
    """It is sent to an address that happens to be ours, calls it, and tells us how that goes."""
    session = parties.call()
    session.establish(AUDIO, timeout=PATIENCE)
    parties.pjsip.wait_for("call", state="CONFIRMED")
    session.transfer(parties.address, timeout=PATIENCE)
    parties.pjsip.wait_for("transfer", target=f"<{parties.address}>")
    parties.pjsip.wait_for("call", 2, state="CONFIRMED")
    assert session.is_terminated
    (call,) = parties.wait_for_calls(1)
    assert call.state is SignalingState.CONNECTED
    call.terminate()
    parties.pjsip.wait_for("call", 2, state="DISCONNECTED", code=200)


def test_pjsip_is_sent_where_nobody_answers(parties: Parties) -> None:
    parties.take = lambda session: session.terminate_with_rejection(480)  # type: ignore[method-assign]
    session = parties.call()
    session.establish(AUDIO, timeout=PATIENCE)
    parties.pjsip.wait_for("call", state="CONFIRMED")
    with pytest.raises(OperationFailureException, match="480"):
        session.transfer(parties.address, timeout=PATIENCE)
    assert session.state is SignalingState.CONNECTED
    session.terminate()


def test_pjsip_takes_a_call_back(parties: Parties) -> None:
    parties.take = lambda session: session.send_provisional_response(180)  # type: ignore[method-assign]
    parties.pjsip.order("dial", address=parties.address)
    parties.pjsip.wait_for("call", state="EARLY", code=180)
    (session,) = parties.wait_for_calls(1)
    ended = end_of(session)
    parties.pjsip.order("hang_up")
    assert ended.wait(PATIENCE)
    assert session.transition_reason is SignalingTransitionReason.CANCELED
    parties.pjsip.wait_for("call", state="DISCONNECTED", code=487)


def test_we_take_a_call_back(parties: Parties) -> None:
    parties.pjsip.order("ring_only")
    session = parties.call()
    with session.provisional_response_received.expect(timeout=PATIENCE):
        operation = session.begin_establish(AUDIO)
    session.terminate()
    assert isinstance(operation.exception(PATIENCE), OperationFailureException)
    parties.pjsip.wait_for("call", state="DISCONNECTED", code=487)


def test_calls_that_are_refused(parties: Parties) -> None:
    parties.take = lambda session: session.terminate_with_rejection(603)  # type: ignore[method-assign]
    parties.pjsip.order("dial", address=parties.address)
    parties.pjsip.wait_for("call", state="DISCONNECTED", code=603)
    parties.pjsip.order("ring_only")
    session = parties.call()
    operation = session.begin_establish(AUDIO)
    parties.pjsip.wait_for("incoming")
    parties.pjsip.order("answer", code=486)
    with pytest.raises(FailureResponseException, match="486"):
        operation.result(PATIENCE)
    assert session.transition_reason is SignalingTransitionReason.BUSY


def test_messages_both_ways(parties: Parties) -> None:
    heard: concurrent.futures.Future[str | None] = concurrent.futures.Future()
    parties.endpoint.message_received += lambda sender, args: heard.set_result(args.text_body)
    parties.pjsip.order("message", address=parties.address, body="grüß Gott")
    assert heard.result(PATIENCE) == "grüß Gott"
    parties.pjsip.wait_for("message answered", code=200)
    answer = parties.endpoint.send_message(MessageType.MESSAGE, parties.pjsip.address, body="servus")
    assert answer.response_code == 200
    assert parties.pjsip.wait_for("message")["body"] == "servus"


def test_we_watch_the_presence_of_pjsip(parties: Parties) -> None:
    parties.pjsip.order("show", online=True)
    subscription = SipSubscription(parties.endpoint, parties.pjsip.address, "presence")
    with subscription.notification_received.expect(timeout=PATIENCE) as first:
        subscription.subscribe()
    assert first.args.content_type == PRESENCE
    assert b"<basic>open</basic>" in first.args.body
    with subscription.notification_received.expect(timeout=PATIENCE) as second:
        parties.pjsip.order("show", online=False)
    assert b"<basic>closed</basic>" in second.args.body
    with subscription.notification_received.expect(timeout=PATIENCE) as last:
        subscription.terminate()
    assert last.args.subscription_state == "terminated"


def test_pjsip_watches_our_presence(parties: Parties) -> None:
    accepted: concurrent.futures.Future[IncomingSubscription] = concurrent.futures.Future()
    why: list[str] = []
    over = threading.Event()

    def take(sender: object, args: SubscriptionReceivedEventArgs) -> None:
        assert args.event_package == "presence"
        args.subscription.ended += end
        args.subscription.accept(content_type=PRESENCE, body=PIDF.format("open"))
        accepted.set_result(args.subscription)

    def end(sender: object, args: object) -> None:
        why.append(args.why)  # type: ignore[attr-defined]
        over.set()

    parties.endpoint.subscription_received += take
    parties.pjsip.order("watch", address=parties.address, on=True)
    subscription = accepted.result(PATIENCE)
    parties.pjsip.wait_for("presence", subscription="ACTIVE", online=True)
    subscription.notify(PRESENCE, PIDF.format("closed"))
    parties.pjsip.wait_for("presence", subscription="ACTIVE", online=False)
    parties.pjsip.order("watch", address=parties.address, on=False)
    assert over.wait(PATIENCE)
    assert why == ["unsubscribed"]
    parties.pjsip.wait_for("presence", subscription="TERMINATED")
