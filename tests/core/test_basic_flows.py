"""RFC 3665, 3.2, 3.4, 3.6, 3.8, 3.10 and 3.11 as they are printed, value by value; each user agent is played in turn.

The others of 3.1 to 3.11 are in ``test_recorded_flows``. ``test_call_flows`` has the same scenarios with both user agents
ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from core_support import Target
from flow_support import Known, Player
from rfc3665_flows import NETWORK, NO_ANSWER, NO_RESPONSE, PROXY_FAILURE, REDIRECTION, TWO_PROXIES, UNAVAILABLE

from p2psip.core.ways import Way, Ways
from p2psip.enums import SignalingState, SignalingTransitionReason


@pytest.fixture
def play() -> Iterator[Any]:
    players: list[Player] = []

    def begin(flow: Mapping[str, bytes], who: str) -> Player:
        player = Player(flow, is_exact=True)
        players.append(player)
        domain = "atlanta" if who == "alice" else "biloxi"
        host = NETWORK.hosts["C" if flow is REDIRECTION and who == "bob" else NETWORK.users[who]]
        player.be(f"sip:{who}@{domain}.example.com", contact=f"<sip:{who}@{host}>", hosts=[host])
        player.record.credentials = Known()
        return player

    yield begin
    for player in players:
        player.finish()


def test_3_2_calling(play: Any) -> None:
    alice = play(TWO_PROXIES, "alice")
    session, establish = alice.call("F1")
    alice.gets("F2")
    alice.sends("F3", "F4")
    alice.gets("F6", "F11", "F14")
    alice.acknowledge(session)
    alice.sends("F15")
    assert establish.message.status_code == 200
    alice.is_hung_up(session, "F20", "F21")


def test_3_2_being_called(play: Any) -> None:
    bob = play(TWO_PROXIES, "bob")
    session = bob.is_called("F7", "F9", "F12", "F17")
    bob.hangs_up(session, "F18", "F23")


def test_3_4_calling(play: Any) -> None:
    """Over TLS nothing is sent again (F2 to F7), and the second proxy is tried when the time is over."""
    alice = play(PROXY_FAILURE, "alice")
    one, two = (Target("TLS", NETWORK.hosts[hop], 5061, NETWORK.hosts[hop]) for hop in "12")
    ways = Ways([Way(one, ("<sip:ss1.atlanta.example.com;lr>",)), Way(two)])
    session, establish = alice.call("F1", ways=ways)
    alice.wait(32.0)
    alice.sends("F8")
    alice.gets("F9")
    alice.sends("F10", "F11")
    alice.gets("F13", "F15", "F17")
    alice.acknowledge(session)
    alice.sends("F18")
    assert establish.message.status_code == 200
    alice.is_hung_up(session, "F21", "F22")


def test_3_4_being_called(play: Any) -> None:
    bob = play(PROXY_FAILURE, "bob")
    session = bob.is_called("F12", "F14", "F16", "F19")
    bob.hangs_up(session, "F20", "F23")


def test_3_6_calling(play: Any) -> None:
    alice = play(REDIRECTION, "alice")
    session, establish = alice.call("F1")
    alice.gets("F2")
    alice.sends("F3")
    (redirected,) = alice.happened("Redirected")
    assert session.state is SignalingState.REDIRECTING
    session.follow(alice.now, redirected.targets[0], ())
    alice.run()
    alice.sends("F4")
    alice.gets("F6", "F8", "F10")
    (accepted,) = alice.happened("InvitationAccepted")
    assert accepted.needs_answer
    alice.acknowledge(session, alice.content("F11"))
    alice.sends("F11")
    assert establish.message.status_code == 200
    assert (session.local_content, session.remote_content) == (alice.content("F11"), alice.content("F10"))
    alice.is_hung_up(session, "F14", "F15")


def test_3_6_being_called(play: Any) -> None:
    bob = play(REDIRECTION, "bob")
    bob.engine.directory.default = bob.record  # the proxy knows him by another name
    session = bob.is_called("F5", "F7", "F9", "F12")
    assert (session.local_content, session.remote_content) == (bob.content("F9"), bob.content("F12"))
    bob.hangs_up(session, "F13", "F16")


def test_3_8_calling(play: Any) -> None:
    alice = play(NO_ANSWER, "alice")
    session, establish = alice.call("F1")
    alice.gets("F3", "F8")
    end = alice.do(session.terminate, ())
    alice.sends("F9")
    alice.gets("F10", "F19")
    alice.sends("F20")
    assert establish.error is not None
    assert end.ends == [(None, None)]


def test_3_8_being_called(play: Any) -> None:
    bob = play(NO_ANSWER, "bob")
    session = bob.arrive("F4")
    bob.rings(session, "F6")
    bob.gets("F13")
    bob.sends("F14", "F15")
    bob.gets("F16")
    assert session.reason is SignalingTransitionReason.CANCELED


@pytest.mark.parametrize(
    ("flow", "ring", "refusal", "ack"),
    [(NO_RESPONSE, ("F3",), "F14", "F15"), (UNAVAILABLE, ("F3", "F8"), "F13", "F14")],
    ids=["3.10", "3.11"],
)
def test_nobody_is_there(play: Any, flow: Mapping[str, bytes], ring: tuple[str, ...], refusal: str, ack: str) -> None:
    alice = play(flow, "alice")
    session, establish = alice.call("F1")
    alice.gets(*ring, refusal)
    alice.sends(ack)
    assert establish.message.status_code == 480
    assert session.reason is SignalingTransitionReason.TEMPORARILY_UNAVAILABLE


def test_3_11_being_called(play: Any) -> None:
    bob = play(UNAVAILABLE, "bob")
    session = bob.arrive("F4")
    bob.rings(session, "F6")
    bob.do(session.reject, 480, None, ())
    bob.sends("F9")
    bob.gets("F10")
    assert session.state is SignalingState.DISCONNECTED
