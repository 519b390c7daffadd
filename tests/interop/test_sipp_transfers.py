"""Transfers with SIPp: it is referred by us, and refers us."""

from __future__ import annotations

from pathlib import Path

import pytest
from interop_calls import AUDIO, Calls, answering, begin, call, sdp
from interop_link import link
from interop_script import callee, caller

pytestmark = pytest.mark.interop
FRAGMENT = "Event: refer\n      Subscription-State: {}\n      Content-Type: message/sipfrag;version=2.0\n      Content-Length: [len]\n\n      SIP/2.0 {}"


def fragment(state: str, status: str) -> str:
    return FRAGMENT.format(state, status)


@pytest.mark.parametrize("kind", ("TCP", "TLSv1.3"))
def test_we_refer_sipp(tmp_path: Path, kind: str) -> None:
    script = callee("referee").answers_first(200, body=sdp()).receives("ACK")
    script.receives("REFER", contains=("Refer-To", "carol@example.com")).answers(202)
    script.request("NOTIFY", body=fragment("active;expires=60", "100 Trying")).wants(200)
    script.request("NOTIFY", body=fragment("terminated;reason=noresource", "200 OK")).wants(200)
    script.receives("BYE").answers(200)
    with link(tmp_path, kind) as wire:
        server = answering(wire, script, calls=3)
        for _ in range(3):
            session = call(wire)
            begin(wire, server, session)
            session.transfer("sip:carol@example.com")  # blocks until the NOTIFY says how it ended, then ends the call
            assert session.is_terminated
        server.sipp.check()


@pytest.mark.parametrize("kind", ("TCP", "TLSv1.3"))
def test_sipp_refers_us(tmp_path: Path, kind: str) -> None:
    with link(tmp_path, kind) as wire:
        last = answering(
            wire, callee("target").answers_first(200, body=sdp()).receives("ACK").receives("BYE").answers(200), calls=1
        )
        script = caller("referrer").wants(100, optional=True).wants(200).ack()
        script.request("REFER", "Refer-To: <sip:sipp@{}:{}>".format(*last.context)).wants(202)
        script.receives("NOTIFY", contains=("", "100")).answers(200)
        script.receives("NOTIFY", contains=("", "200")).answers(200)
        script.request("BYE").wants(200)

        def take(session):
            session.refer_received += lambda sender, args: args.follow(offer=AUDIO).terminate()
            session.begin_accept(AUDIO)

        calls = Calls(take)
        wire.endpoint.session_received += calls
        wire.client("", script).check()
        last.sipp.check()
