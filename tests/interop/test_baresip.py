"""baresip, a user agent of others, and our endpoint: calls both ways, with hold."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterator
from pathlib import Path

import pytest
from interop_agents import HELD, KINDS, Ours
from interop_baresip import Baresip
from interop_calls import AUDIO, end_of
from interop_support import PATIENCE

from p2psip import ReferReceivedEventArgs
from p2psip.enums import SignalingState, SignalingTransitionReason
from p2psip.session import SignalingSession

pytestmark = pytest.mark.interop


class Parties(Ours):
    """baresip and we. On TLS it shows its certificate but looks at none."""

    def __init__(self, folder: Path, kind: str) -> None:
        super().__init__(folder, kind)
        both: Path | None = None
        try:
            if self.theirs is not None:
                assert self.theirs.certificate is not None and self.theirs.key is not None
                both = folder / "baresip.pem"
                both.write_bytes(self.theirs.key.read_bytes() + self.theirs.certificate.read_bytes())
            self.baresip = Baresip(folder / "baresip", both)
        except BaseException:
            super().close()
            raise

    def close(self) -> None:
        try:
            super().close()
        finally:
            self.baresip.stop()


@pytest.fixture(params=KINDS)
def parties(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Parties]:
    made = Parties(tmp_path, request.param)
    yield made
    made.close()


def test_baresip_calls_us_holds_and_hangs_up(parties: Parties) -> None:
    parties.baresip.order("dial", parties.address)
    parties.baresip.wait_for("CALL_RINGING")
    parties.baresip.wait_for("CALL_ESTABLISHED")
    (session,) = parties.wait_for_calls(1)
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
    session = SignalingSession(parties.endpoint, parties.baresip.address)
    session.establish(AUDIO, timeout=PATIENCE)
    session.renegotiate(HELD)
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
    (session,) = parties.wait_for_calls(1)
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
    (call,) = parties.wait_for_calls(1)
    assert call.state is SignalingState.CONNECTED
    call.terminate()
    parties.baresip.wait_for("CALL_CLOSED", 2)
