"""RFC 5359, 2.1 to 2.6: calls that are held and transferred, as they are printed. Each user agent is played in turn.

Every header that is printed is compared with ours, with its value: see ``flow_support`` for the few that may differ, and
``rfc5359_flows`` for what is left out. The other services of that RFC are those of proxies, or the parts that are here.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from core_support import Target
from flow_support import Player
from rfc5359_flows import (
    ALICE_GRUU,
    ATTENDED,
    CAROL_GRUU,
    CONSULTATION,
    HOLD,
    HOSTS,
    INSTANT_MESSAGE,
    MUSIC_ON_HOLD,
    UNATTENDED,
)

from p2psip.core.dialog import Dialog
from p2psip.core.refer import IncomingRefer, OutgoingRefer
from p2psip.core.refer_outside import IncomingOutsideRefer, OutsideRefer

PEOPLE = {
    "alice": ("atlanta.example.com", HOSTS["A"]),
    "bob": ("biloxi.example.com", HOSTS["B"]),
    "carol": ("chicago.example.com", HOSTS["C"]),
}
SERVER = Target("TLS", "server.example.com", 5061, "server.example.com")


@pytest.fixture
def play() -> Iterator[Any]:
    players: list[Player] = []

    def begin(flow: Mapping[str, bytes], who: str, contact: str | None = None) -> Player:
        player = Player(flow, is_exact=True)
        players.append(player)
        if who == "music":
            player.be("sips:music@server.example.com", contact="<sips:music@server.example.com>")
        else:
            domain, host = PEOPLE[who]
            player.be(f"sips:{who}@{domain}", contact=contact or f"<sips:{who}@{host}>", hosts=[host])
        return player

    yield begin
    for player in players:
        player.finish()


def headers_of(refer: IncomingRefer) -> list[tuple[str, str]]:
    """What an INVITE bears that somebody has asked for (RFC 3891, RFC 3892)."""
    assert refer.referred_by is not None
    pairs = [("Referred-By", refer.referred_by)]
    return pairs if refer.replaces is None else [*pairs, ("Require", "replaces"), ("Replaces", refer.replaces)]


def refer_to(uri: str, dialog: Dialog | None) -> str:
    """Refer-To for a call that takes our place in that dialog."""
    assert dialog is not None
    value = urllib.parse.quote(f"{dialog.call_id};to-tag={dialog.remote_tag};from-tag={dialog.local_tag}", safe="")
    return f"<{uri}?Replaces={value}&Require=replaces>"


def tells_the_end(player: Player, refer: IncomingRefer, notify: str, answer: str) -> None:
    fragment = player.printed(notify).body.decode()
    refer.progress(player.now, 200, None, fragment, True)
    player.run()
    player.sends(notify)
    player.gets(answer)
    assert not refer.is_active


def progress(player: Player) -> list[tuple[int, bool]]:
    return [(event.status_code, event.is_over) for event in player.happened("ReferProgress")]


# ---------------------------------------------------------------------- 2.1 call hold


def test_hold_of_the_caller(play: Any) -> None:
    alice = play(HOLD, "alice")
    session = alice.calls("F1", ("F3", "F5"), "F7", "F8")
    alice.is_changed(session, "F11", "F12", "F15")
    alice.is_changed(session, "F17", "F18", "F21")
    alice.hangs_up(session, "F22", "F25")


def test_hold_by_the_called_side(play: Any) -> None:
    bob = play(HOLD, "bob")
    session = bob.is_called("F2", "F4", "F6", "F9")
    bob.changes(session, "F10", "F13", "F14")
    bob.changes(session, "F16", "F19", "F20")
    bob.is_hung_up(session, "F23", "F24")


# ---------------------------------------------------------------------- 2.2 consultation hold


def test_consultation_who_waits(play: Any) -> None:
    alice = play(CONSULTATION, "alice")
    session = alice.calls("F1", ("F3", "F5"), "F7", "F8")
    alice.is_changed(session, "F11", "F12", "F15")
    alice.is_changed(session, "F30", "F31", "F34")
    alice.hangs_up(session, "F35", "F38")


def test_consultation_who_asks(play: Any) -> None:
    bob = play(CONSULTATION, "bob")
    session = bob.is_called("F2", "F4", "F6", "F9")
    bob.changes(session, "F10", "F13", "F14")
    consultation = bob.calls("F16", ("F18", "F20"), "F22", "F23")
    bob.hangs_up(consultation, "F25", "F28")
    bob.changes(session, "F29", "F32", "F33")
    bob.is_hung_up(session, "F36", "F37")


def test_consultation_who_is_asked(play: Any) -> None:
    carol = play(CONSULTATION, "carol")
    session = carol.is_called("F17", "F19", "F21", "F24")
    carol.is_hung_up(session, "F26", "F27")


# ---------------------------------------------------------------------- 2.3 music on hold


def test_music_who_hears_it(play: Any) -> None:
    alice = play(MUSIC_ON_HOLD, "alice", ALICE_GRUU)
    session = alice.calls("F1", ("F2",), "F3", "F4")
    alice.is_changed(session, "F5", "F6", "F7")
    music = alice.is_called("F12", None, "F13", "F14")
    assert music.replaces is session
    alice.hangs_up(session, "F15", "F16")
    again = alice.is_called("F19", None, "F20", "F21")
    assert again.replaces is music
    alice.hangs_up(music, "F22", "F23")
    alice.ends(again)


def test_music_who_asks_for_it(play: Any) -> None:
    bob = play(MUSIC_ON_HOLD, "bob")
    session = bob.is_called("F1", "F2", "F3", "F4")
    bob.changes(session, "F5", "F6", "F7")
    printed = bob.printed("F8")
    refer = OutsideRefer(
        bob.engine,
        bob.record,
        bob,
        uri=printed.uri,
        to=printed.headers.get("To"),
        target=SERVER,
        local_from="Bob <sips:bob@biloxi.example.com>;tag=",
    )
    assert session.dialog is not None
    asking = bob.do(refer.refer, refer_to(session.dialog.remote_target, session.dialog), (), None, True)
    bob.sends("F8")
    bob.gets("F9")
    assert asking.message.status_code == 202
    bob.answers("F10", "F11")
    bob.is_hung_up(session, "F15", "F16")
    bob.answers("F17", "F18")
    assert progress(bob) == [(100, False), (200, True)]
    # RFC 5359 2.3: the fragment says which session to take the place of.
    fragment = bob.happened("ReferProgress")[-1].request.body.decode()
    call_id, from_tag, to_tag = (
        re.search(pattern, fragment)[1]  # type: ignore[index]
        for pattern in (r"Call-ID: (\S+)", r"From: .*tag=(\S+)", r"To: .*tag=(\S+)")
    )
    replaces = [("Replaces", f"{call_id};to-tag={to_tag};from-tag={from_tag}")]
    bob.ends(bob.calls("F19", (), "F20", "F21", replaces))


def test_music_who_plays_it(play: Any) -> None:
    music = play(MUSIC_ON_HOLD, "music")
    music.gets("F8")
    refer = music.usage
    assert isinstance(refer, IncomingOutsideRefer)
    assert refer.target == ALICE_GRUU.strip("<>")
    assert refer.accept(music.now)
    music.run()
    music.sends("F9", "F10")
    music.gets("F11")
    session = music.calls("F12", (), "F13", "F14", headers_of(refer))
    tells_the_end(music, refer, "F17", "F18")
    music.is_hung_up(session, "F22", "F23")


# ---------------------------------------------------------------------- 2.4 unattended transfer


def test_unattended_transfer_who_transfers(play: Any) -> None:
    alice = play(UNATTENDED, "alice")
    session = alice.is_called("F1", "F2", "F3", "F4")
    refer = OutgoingRefer(session, alice)
    asking = alice.do(refer.refer, "<sips:carol@chicago.example.com>", (), None, True)
    alice.sends("F5")
    alice.gets("F6")
    assert asking.message.status_code == 202
    alice.answers("F7", "F8")
    alice.hangs_up(session, "F9", "F10")
    assert refer.is_active  # the dialog goes on with the subscription
    alice.answers("F15", "F16")
    assert progress(alice) == [(100, False), (200, True)]
    assert not refer.is_active


def test_unattended_transfer_who_is_transferred(play: Any) -> None:
    bob = play(UNATTENDED, "bob")
    session = bob.calls("F1", ("F2",), "F3", "F4")
    bob.gets("F5")
    (event,) = bob.happened("ReferReceived")
    assert event.refer.target == "sips:carol@chicago.example.com"
    assert event.refer.accept(bob.now)
    bob.run()
    bob.sends("F6", "F7")
    bob.gets("F8")
    bob.is_hung_up(session, "F9", "F10")
    new = bob.calls("F11", ("F12",), "F13", "F14", headers_of(event.refer))
    tells_the_end(bob, event.refer, "F15", "F16")
    bob.ends(new)


def test_unattended_transfer_who_is_called(play: Any) -> None:
    carol = play(UNATTENDED, "carol")
    session = carol.is_called("F11", "F12", "F13", "F14")
    assert session.request is not None
    assert session.request.headers.get("Referred-By") == "<sips:alice@atlanta.example.com>"
    carol.ends(session)


# ---------------------------------------------------------------------- 2.5 attended transfer


def test_attended_transfer_who_transfers(play: Any) -> None:
    bob = play(ATTENDED, "bob")
    session = bob.is_called("F1", "F2", "F3", "F4")
    bob.changes(session, "F5", "F6", "F7")
    second = bob.calls("F8", ("F9",), "F10", "F11")
    bob.changes(second, "F12", "F13", "F14")
    refer = OutgoingRefer(session, bob)
    assert second.dialog is not None
    asking = bob.do(refer.refer, refer_to(second.dialog.remote_target, second.dialog), (), None, True)
    bob.sends("F15")
    bob.gets("F16")
    assert asking.message.status_code == 202
    bob.answers("F17", "F18")
    bob.is_hung_up(second, "F22", "F23")
    bob.answers("F24", "F25")
    assert progress(bob) == [(100, False), (200, True)]
    bob.hangs_up(session, "F26", "F27")


def test_attended_transfer_who_is_transferred(play: Any) -> None:
    alice = play(ATTENDED, "alice")
    session = alice.calls("F1", ("F2",), "F3", "F4")
    alice.is_changed(session, "F5", "F6", "F7")
    alice.gets("F15")
    (event,) = alice.happened("ReferReceived")
    assert event.refer.target == CAROL_GRUU.strip("<>")
    assert event.refer.accept(alice.now)
    alice.run()
    alice.sends("F16", "F17")
    alice.gets("F18")
    new = alice.calls("F19", (), "F20", "F21", headers_of(event.refer))
    tells_the_end(alice, event.refer, "F24", "F25")
    alice.is_hung_up(session, "F26", "F27")
    alice.ends(new)


def test_attended_transfer_who_is_called(play: Any) -> None:
    carol = play(ATTENDED, "carol", CAROL_GRUU)
    session = carol.is_called("F8", "F9", "F10", "F11")
    carol.is_changed(session, "F12", "F13", "F14")
    new = carol.is_called("F19", None, "F20", "F21")
    assert new.replaces is session
    carol.hangs_up(session, "F22", "F23")
    carol.ends(new)


# ---------------------------------------------------------------------- 2.6 transfer by a message


def test_taking_over_a_call_whose_it_is(play: Any) -> None:
    alice = play(INSTANT_MESSAGE, "alice", ALICE_GRUU)
    session = alice.calls("F1", ("F2",), "F3", "F4")
    new = alice.is_called("F7", None, "F8", "F9")
    assert new.replaces is session
    alice.hangs_up(session, "F10", "F11")
    alice.ends(new)


def test_taking_over_a_call_who_gives_it_up(play: Any) -> None:
    bob = play(INSTANT_MESSAGE, "bob")
    session = bob.is_called("F1", "F2", "F3", "F4")
    bob.is_hung_up(session, "F10", "F11")


def test_taking_over_a_call_who_takes_it(play: Any) -> None:
    carol = play(INSTANT_MESSAGE, "carol")
    replaces = carol.printed("F7").headers.get("Replaces")  # as it was written to her
    session = carol.calls("F7", (), "F8", "F9", [("Require", "replaces"), ("Replaces", replaces)])
    carol.ends(session)
