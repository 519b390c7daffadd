"""baresip, a user agent of others, and our endpoint: calls both ways, with hold."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from interop_baresip import Baresip
from interop_calls import AUDIO, PATIENCE, end_of
from interop_link import make_identity
from interop_referee import keep_for_referee
from interop_support import LOOPBACK

from p2psip import (
    ContentDescription,
    RealTimeServerConnectionManager,
    RealTimeServerTcpConnectionManager,
    RealTimeServerTlsConnectionManager,
    ReferReceivedEventArgs,
    SipPeerToPeerEndpoint,
)
from p2psip.enums import SignalingState, SignalingTransitionReason
from p2psip.session import SignalingSession

pytestmark = pytest.mark.interop


class Parties:
    """baresip and we.

    Args:
        folder: Where files go.
        kind: ``TCP`` or ``TLS``, which is mutual: baresip shows its certificate but looks at none.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        self.manager: RealTimeServerConnectionManager
        if kind == "TLS":
            authority = trustme.CA()
            ours = make_identity(folder, LOOPBACK, authority, authority)
            theirs = folder / "baresip.pem"
            authority.issue_cert(LOOPBACK).private_key_and_cert_chain_pem.write_to_path(theirs)
            self.baresip = Baresip(folder / "baresip", theirs)
            self.manager = RealTimeServerTlsConnectionManager.from_files(
                str(ours.certificate), ours.key, trusted_roots=ours.trusted
            )
        else:
            self.baresip = Baresip(folder / "baresip")
            self.manager = RealTimeServerTcpConnectionManager(LOOPBACK)
        self.manager.trace += keep_for_referee
        self.manager.start_listening((LOOPBACK, 0))
        self.endpoint = SipPeerToPeerEndpoint(f"sip:bob@{LOOPBACK}", self.manager)
        # Without its transport baresip would take it to UDP.
        self.address = f"sip:bob@{LOOPBACK}:{self.manager.listening_port};transport={kind.lower()}"
        self.offers: list[ContentDescription | None] = []
        self._news = threading.Condition()
        self.sessions: list[SignalingSession] = []
        self.endpoint.session_received += self._take

    def answer(self, offer: ContentDescription | None) -> ContentDescription:
        with self._news:
            self.offers.append(offer)
            self._news.notify_all()
        return AUDIO

    def wait_for_offers(self, count: int) -> list[bytes]:
        with self._news:
            assert self._news.wait_for(lambda: len(self.offers) >= count, PATIENCE), self.offers
        return [b"" if offer is None else offer.body for offer in self.offers]

    def _take(self, sender: object, args: object) -> None:
        session: SignalingSession = args.session  # type: ignore[attr-defined]
        self.sessions.append(session)
        session.send_provisional_response(180)
        session.begin_accept(self.answer)

    def close(self) -> None:
        self.manager.dispose()
        self.baresip.stop()


@pytest.fixture(params=("TCP", "TLS"))
def parties(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Parties]:
    made = Parties(tmp_path, request.param)
    yield made
    made.close()


def test_baresip_calls_us_holds_and_hangs_up(parties: Parties) -> None:
    parties.baresip.order("dial", parties.address)
    parties.baresip.wait_for("CALL_RINGING")
    parties.baresip.wait_for("CALL_ESTABLISHED")
    parties.wait_for_offers(1)
    (session,) = parties.sessions
    ended = end_of(session)
    parties.baresip.order("hold")
    assert b"a=sendonly" in parties.wait_for_offers(2)[1]
    parties.baresip.wait_for("CALL_REMOTE_SDP", 2)
    parties.baresip.order("resume")
    assert b"a=sendrecv" in parties.wait_for_offers(3)[2]
    parties.baresip.wait_for("CALL_REMOTE_SDP", 3)
    assert session.state is SignalingState.CONNECTED
    parties.baresip.order("hangup")
    assert ended.wait(PATIENCE)
    assert session.transition_reason is SignalingTransitionReason.TERMINATED_REMOTELY


def test_we_call_baresip_which_holds_and_we_hang_up(parties: Parties) -> None:
    session = SignalingSession(parties.endpoint, parties.baresip.address)
    session.establish(AUDIO, answer=parties.answer, timeout=PATIENCE)
    parties.baresip.wait_for("CALL_ESTABLISHED")
    parties.baresip.order("hold")
    assert b"a=sendonly" in parties.wait_for_offers(1)[0]
    parties.baresip.wait_for("CALL_REMOTE_SDP", 2)
    session.terminate()
    parties.baresip.wait_for("CALL_CLOSED")


def test_we_hold_baresip(parties: Parties) -> None:
    held = ContentDescription("application/sdp", AUDIO.body + b"a=sendonly\r\n")
    session = SignalingSession(parties.endpoint, parties.baresip.address)
    session.establish(AUDIO, timeout=PATIENCE)
    session.renegotiate(held)
    assert session.remote_description is not None
    assert b"a=recvonly" in session.remote_description.body
    session.renegotiate(AUDIO)
    assert b"a=sendrecv" in session.remote_description.body
    session.terminate()
    parties.baresip.wait_for("CALL_CLOSED")


def test_baresip_transfers_us(parties: Parties) -> None:
    """We are sent to an address that happens to be ours."""
    followed: concurrent.futures.Future[SignalingSession] = concurrent.futures.Future()

    def follow(sender: object, args: ReferReceivedEventArgs) -> None:
        followed.set_result(args.follow(AUDIO))

    parties.baresip.order("dial", parties.address)
    parties.baresip.wait_for("CALL_ESTABLISHED")
    parties.wait_for_offers(1)
    (session,) = parties.sessions
    session.refer_received += follow
    parties.baresip.order("transfer", parties.address)
    call = followed.result(PATIENCE)
    assert call.state is SignalingState.CONNECTED
    call.terminate()
    session.terminate()


def test_we_transfer_baresip(parties: Parties) -> None:
    """It is sent to an address that happens to be ours, calls it, and tells us how that goes."""
    session = SignalingSession(parties.endpoint, parties.baresip.address)
    session.establish(AUDIO, timeout=PATIENCE)
    parties.baresip.wait_for("CALL_ESTABLISHED")
    session.transfer(parties.address, timeout=PATIENCE)
    parties.baresip.wait_for("CALL_ESTABLISHED", 2)
    assert session.is_terminated
    (call,) = parties.sessions
    assert call.state is SignalingState.CONNECTED
    call.terminate()
    parties.baresip.wait_for("CALL_CLOSED", 2)
