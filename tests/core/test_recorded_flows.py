"""The flows that RFCs print, message by message, from the files: the engine is each user agent in turn.

Flows that do not concern user agents such as these: ``rfc3327-5.5.1``, ``rfc3665-2.1``, ``-2.3`` and ``-2.5``,
``rfc5626-3.2``, ``-9.2`` and ``-9.4`` are of REGISTER, by which a user agent of a domain tells its registrar where it
is. Peers have no registrar, and neither send REGISTER nor take it. Of all other flows each user agent is played; what
proxies say to each other is nobody's here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from core_support import Target, make_request
from flow_support import Known, Player

from p2psip.core.refer_outside import IncomingOutsideRefer, OutsideRefer
from p2psip.core.subscribe import Subscriber
from p2psip.enums import SignalingState, SignalingTransitionReason, SubscriptionSignalingState

FLOWS = Path(__file__).resolve().parents[1] / "data" / "corpus" / "messages" / "flows"


@pytest.fixture
def play() -> Iterator[Any]:
    players: list[Player] = []

    def begin(flow: str) -> Player:
        files = {path.stem.partition("-")[2]: path.read_bytes() for path in (FLOWS / flow).iterdir()}
        # RFC 3428 10 has a semicolon too many in two places.
        players.append(Player({label: data.replace(b";;", b";") for label, data in files.items()}))
        return players[-1]

    yield begin
    for player in players:
        player.finish()


# ---------------------------------------------------------------------- calls, the calling side


@pytest.mark.parametrize(
    ("flow", "responses", "ack", "bye"),
    [
        ("rfc3261-24.2", ("F2", "F8", "F11"), "F12", ("<", "F13", "F14")),
        ("rfc3665-3.1", ("F2", "F3"), "F4", ("<", "F5", "F6")),
        ("rfc3665-3.5", ("F3", "F8", "F11"), "F12", (">", "F14", "F17")),
        ("rfc4916-5.1", ("F4",), "F5", None),
    ],
)
def test_calling(play: Any, flow: str, responses: tuple[str, ...], ack: str, bye: tuple[str, ...] | None) -> None:
    player = play(flow)
    session, establish = player.call("F1")
    player.gets(*responses)
    player.acknowledge(session)
    player.sends(ack)
    assert establish.message.status_code == 200
    assert session.state is SignalingState.CONNECTED
    assert session.remote_content == player.content(responses[-1])
    if bye is None:  # RFC 4916 5.1: the peer says who it is
        player.gets("F8")
        player.sends("F9")
        player.do(session.terminate, ())
        assert player.sent.pop().method == "BYE"
    elif bye[0] == "<":
        player.gets(bye[1])
        player.sends(bye[2])
        assert session.reason is SignalingTransitionReason.TERMINATED_REMOTELY
    else:
        end = player.do(session.terminate, ())
        player.sends(bye[1])
        player.gets(bye[2])
        assert end.ends == [(None, None)]


def test_calling_where_a_proxy_wants_credentials_that_we_do_not_have(play: Any) -> None:
    """RFC 3665 3.3, to its first refusal."""
    player = play("rfc3665-3.3")
    _, establish = player.call("F1")
    player.gets("F2")
    player.sends("F3")
    assert establish.message.status_code == 407


def test_calling_where_two_proxies_want_credentials(play: Any) -> None:
    """RFC 3665 3.3: each INVITE is a new one of the same call, and the ACK has the route set and the credentials."""
    player = play("rfc3665-3.3")
    player.be(str(player.printed("F1").from_.uri))
    player.record.credentials = Known()
    session, establish = player.call("F1")
    player.gets("F2")
    player.sends("F3")
    (first,) = player.sent[0].headers.get_all("Proxy-Authorization")
    assert 'realm="atlanta.example.com"' in first
    player.sends("F4")
    player.gets("F5", "F9")
    player.sends("F10")
    both = player.sent[0].headers.get_all("Proxy-Authorization")
    assert [realm in value for realm, value in zip(("atlanta", "biloxi"), both, strict=True)] == [True, True]
    player.sends("F11")
    player.gets("F12", "F18")
    player.acknowledge(session)
    (ack,) = player.sent
    assert ack.headers.get_all("Route") == player.printed("F19").headers.get_all("Route")
    assert ack.headers.get_all("Proxy-Authorization") == both  # RFC 3261 22.1
    player.sends("F19")
    assert establish.message.status_code == 200
    player.do(session.terminate, ())
    bye = player.sent.pop()
    assert bye.headers.get_all("Route") == player.printed("F19").headers.get_all("Route")


def test_calling_and_a_change_of_address_there(play: Any) -> None:
    """RFC 3665 3.7: the re-INVITE brings another Contact, and BYE goes there."""
    player = play("rfc3665-3.7")
    session, _ = player.call("F1")
    player.gets("F3", "F5", "F7")
    player.acknowledge(session)
    player.sends("F8")
    player.gets("F9")
    (offer,) = [event for event in player.events if type(event).__name__ == "OfferReceived"]
    assert offer.content == player.content("F9")
    session.accept_offer(player.now, offer.transaction, player.content("F10"))
    player.run()
    player.sends("F10")
    player.gets("F11")
    player.do(session.terminate, ())
    player.sends("F12")
    player.gets("F13")


def test_calling_somebody_who_is_busy(play: Any) -> None:
    player = play("rfc3665-3.9")
    session, establish = player.call("F1")
    player.gets("F3", "F10")
    player.sends("F11")
    assert establish.message.status_code == 486
    assert session.reason is SignalingTransitionReason.BUSY


def test_taking_a_call_back(play: Any) -> None:
    player = play("cancel-1")
    session, establish = player.call("F1")
    player.gets("F2", "F3")
    end = player.do(session.terminate, ())
    player.sends("F4")
    player.gets("F5", "F6")
    player.sends("F7")
    assert establish.error is not None
    assert end.ends == [(None, None)]


def test_acknowledging_provisional_responses(play: Any) -> None:
    player = play("prack-1")
    session, establish = player.call("F1")
    player.gets("F2")
    player.sends("F3")
    player.gets("F4", "F5")
    player.sends("F6")
    player.gets("F7", "F8")
    player.acknowledge(session)
    player.sends("F9")
    assert establish.message.status_code == 200
    assert session.remote_content == player.content("F2")
    player.do(session.terminate, ())
    assert player.sent.pop().method == "BYE"


def test_two_forks_answer(play: Any) -> None:
    player = play("fork-1")
    session, _ = player.call("F1")
    player.gets("F2", "F3", "F4")
    player.acknowledge(session)
    player.sends("F6")
    player.gets("F5")
    player.sends("F7", "F8")
    assert session.state is SignalingState.CONNECTED
    assert session.to_tag == "c1B"
    player.do(session.terminate, ())
    bye = player.sent.pop()
    assert bye.headers.get_all("Route") == player.printed("F6").headers.get_all("Route")


# ---------------------------------------------------------------------- calls, the called side


@pytest.mark.parametrize(
    ("flow", "invite", "ring", "success", "ack", "bye"),
    [
        ("rfc3261-24.2", "F5", "F6", "F9", "F12", (">", "F13", "F14")),
        ("rfc3665-3.1", "F1", "F2", "F3", "F4", (">", "F5", "F6")),
        ("rfc3665-3.3", "F15", None, "F16", "F21", None),
        ("rfc3665-3.5", "F4", "F6", "F9", "F13", ("<", "F15", "F16")),
        ("rfc3665-3.7", "F2", "F4", "F6", "F8", None),
        ("rfc4916-5.1", "F2", None, "F3", "F6", None),
    ],
)
def test_being_called(
    play: Any, flow: str, invite: str, ring: str | None, success: str, ack: str, bye: tuple[str, ...] | None
) -> None:
    player = play(flow)
    session = player.arrive(invite)
    if ring is not None:
        player.rings(session, ring)
    accept = player.accepts(session, success)
    player.gets(ack)
    assert accept.message.method == "ACK"
    assert session.state is SignalingState.CONNECTED
    if bye is not None and bye[0] == "<":
        player.gets(bye[1])
        player.sends(bye[2])
        return
    player.do(session.terminate, ())
    if bye is not None:
        player.sends(bye[1])
        player.gets(bye[2])
    else:
        sent, printed = player.sent.pop(), player.printed(invite)
        assert sent.headers.get_all("Route") == printed.headers.get_all("Record-Route")


def test_being_called_and_changing_the_address(play: Any) -> None:
    player = play("rfc3665-3.7")
    session = player.arrive("F2")
    player.rings(session, "F4")
    player.accepts(session, "F6")
    player.gets("F8")
    change = player.do(session.renegotiate, player.content("F9"), ())
    player.sends("F9")
    player.gets("F10")
    player.sends("F11")
    assert change.message.status_code == 200
    player.gets("F12")
    player.sends("F13")


def test_being_busy(play: Any) -> None:
    player = play("rfc3665-3.9")
    session = player.arrive("F4")
    player.do(session.reject, 486, None, ())
    player.sends("F6")
    player.gets("F7")
    assert session.reason is SignalingTransitionReason.BUSY


def test_a_call_is_taken_back(play: Any) -> None:
    player = play("cancel-1")
    session = player.arrive("F1")
    player.rings(session, "F3")
    player.gets("F4")
    player.sends("F5", "F6")
    player.gets("F7")
    assert session.reason is SignalingTransitionReason.CANCELED


def test_provisional_responses_are_acknowledged(play: Any) -> None:
    player = play("prack-1")
    session = player.arrive("F1")
    first = player.do(session.send_provisional, 183, None, (), player.content("F2"), True)
    player.sends("F2")
    player.gets("F3")
    player.sends("F4")
    assert first.message.method == "PRACK"
    player.do(session.send_provisional, 180, None, (), None, True)
    player.sends("F5")
    player.gets("F6")
    player.sends("F7")
    player.do(session.accept, None, ())
    player.sends("F8")
    player.gets("F9")
    assert session.state is SignalingState.CONNECTED
    player.do(session.terminate, ())
    assert player.sent.pop().method == "BYE"


# ---------------------------------------------------------------------- subscriptions


def test_subscribing(play: Any) -> None:
    player = play("subscribe-1")
    printed = player.printed("F1")
    player.be(str(printed.from_.uri))
    subscriber = Subscriber(
        player.engine,
        player.record,
        player,
        event="presence",
        uri=printed.uri,
        to=printed.headers.get("To"),
        target=Target("TLS", "peer.example", 5061, "peer.example"),
        expires=600,
        accept=["application/pidf+xml"],
        local_from='"Anna" <sips:anna@corp.example>;tag=',
    )
    player.do(subscriber.subscribe, (), None)
    assert player.sent[0].headers.get("Expires") == "600"
    player.sends("F1")
    player.gets("F2", "F3")
    player.sends("F4")
    assert subscriber.state is SubscriptionSignalingState.SUBSCRIBED
    assert subscriber.time_remaining(player.now) == 299 / 2  # when it is refreshed
    player.do(subscriber.terminate, ())
    assert player.sent[0].headers.get("Expires") == "0"
    player.sends("F5")
    player.gets("F6", "F7")
    assert player.sent.pop().status_code == 200
    assert player.happened("SubscriptionStateChanged")[-1].state is SubscriptionSignalingState.TERMINATED


def test_being_subscribed_to(play: Any) -> None:
    player = play("subscribe-1")
    player.be("sips:bert@corp.example")
    player.gets("F1")
    notifier = player.usage
    notifier.accept(player.now, 300, (), player.content("F3"))
    player.run()
    assert player.sent[0].headers.get("Expires") == "300"
    player.sends("F2")
    assert player.sent[0].headers.get("Subscription-State") == "active;expires=300"
    player.sends("F3")
    player.gets("F4", "F5")
    player.sends("F6")
    assert player.sent[0].headers.get("Subscription-State") == "terminated;reason=timeout"
    assert player.sent.pop().method == "NOTIFY"


# ---------------------------------------------------------------------- requests without a session

NOWHERE = Target("TLS", "peer.example", 5061, "peer.example")


def test_sending_a_message(play: Any) -> None:
    """RFC 3428 10, user 1. The tag in From of the answer is another one in the print: the branch alone decides."""
    player = play("rfc3428-10")
    printed = player.printed("F1")
    player.be(str(printed.from_.uri))
    request = make_request("MESSAGE", printed.uri, to=printed.headers.get("To"), body=printed.body)
    request.headers.set("From", f"<{printed.from_.uri}>;tag=ours")
    request.headers.add("Content-Type", "text/plain")
    sending = player.do(
        lambda now, operation: player.engine.send_request(now, request, NOWHERE, operation, record=player.record)
    )
    player.sends("F1")
    player.gets("F4")
    assert sending.message.status_code == 200


def test_being_sent_a_message(play: Any) -> None:
    """RFC 3428 10, user 2, behind the proxy."""
    player = play("rfc3428-10")
    player.be("sip:user2@domain.com")
    player.gets("F2")
    transaction = player.usage
    assert transaction.request.body == b"Watson, come here."
    transaction.respond(transaction.create_response(200))
    player.run()
    player.sends("F3")


WHATEVER = ("Refer-To", "<sip:whoever@atlanta.example.com>")
"""The print has words in its place, and for how long a subscription is."""


def test_asking_somebody_to_call(play: Any) -> None:
    """RFC 3515 4.1, agent A."""
    player = play("rfc3515-4.1")
    printed = player.printed("F1")
    player.be(str(printed.from_.uri))
    local_from = f"<{printed.from_.uri}>;tag="
    to = printed.headers.get("To")
    refer = OutsideRefer(
        player.engine, player.record, player, uri=printed.uri, to=to, target=NOWHERE, local_from=local_from
    )
    asking = player.do(refer.refer, WHATEVER[1], (), None, True)
    player.sends("F1")
    player.gets("F2")
    assert asking.message.status_code == 202
    player.gets("F3", change=[("Subscription-State", "active;expires=60")])
    player.sends("F4")
    player.gets("F5")
    player.sends("F6")
    progress = player.happened("ReferProgress")
    assert [(event.status_code, event.is_over) for event in progress] == [(100, False), (200, True)]
    assert not refer.is_active


def test_being_asked_to_call_somebody(play: Any) -> None:
    """RFC 3515 4.1, agent B."""
    player = play("rfc3515-4.1")
    player.be(player.printed("F1").uri)
    player.gets("F1", change=[WHATEVER])
    refer = player.usage
    assert isinstance(refer, IncomingOutsideRefer)
    assert refer.target == "sip:whoever@atlanta.example.com"
    refer.accept(player.now)
    player.run()
    player.sends("F2")
    assert (player.sent[0].headers.get("Subscription-State") or "").startswith("active;expires=")
    player.sends("F3")
    player.gets("F4")
    refer.progress(player.now, 200, None, None, True)
    player.run()
    assert player.sent[0].headers.get("Subscription-State") == "terminated;reason=noresource"
    player.sends("F5")
    player.gets("F6")
    assert len(player.happened("ReferEnded")) == 1


# ---------------------------------------------------------------------- forks, the called side


@pytest.mark.parametrize(("rings", "accepts"), [("F2", "F4"), ("F3", "F5")])
def test_being_one_of_two_forks(play: Any, rings: str, accepts: str) -> None:
    """Each fork is a dialog of its own; the one that the caller does not want is acknowledged and hung up."""
    player = play("fork-1")
    path = player.printed(rings).headers.get_all("Record-Route")
    session = player.arrive("F1", [("Record-Route", ", ".join(path))] if path else ())
    player.rings(session, rings)
    player.accepts(session, accepts)
    if accepts == "F4":
        player.gets("F6")
        assert session.state is SignalingState.CONNECTED
        player.do(session.terminate, ())
        assert player.sent.pop().method == "BYE"
    else:
        player.gets("F7", "F8")
        assert session.reason is SignalingTransitionReason.TERMINATED_REMOTELY
        assert player.sent.pop().status_code == 200
