"""Conversations in which everybody behaves: what hostile ones are made of, by change."""

from __future__ import annotations

from collections.abc import Callable

from hostile_headers import EXTRAS
from hostile_steps import CHOICES, LONGEST, Ask, Change, Do, Reply, Step, Wait, steps_of


def ask(method: str, *extras: int, call: int = 1, body: int = 0, branch: str = "new", number: str = "next") -> Ask:
    """A request of the peer in the newest dialog, or outside of any where ``call`` is 0."""
    first, second, third = [*extras, 0, 0, 0][:3]
    return Ask(method, call, "sip:us@us.example", "right", "right", branch, number, first or 1, second, third, body)


def reply(code: int, *extras: int, which: int = 0, body: int = 0) -> Reply:
    """An answer of the peer to the newest of our requests."""
    first, second, third = [*extras, 0, 0, 0][:3]
    return Reply(which, code, "right", "new", "next", first or 1, second, third, body)


def do(command: str, variant: int = 0, which: int = 0) -> Do:
    return Do(command, which, variant)


def extra(name: str, value: str) -> int:
    """The first group that has that field with that value."""
    return next(index for index, fields in enumerate(EXTRAS) if (name, value) in fields)


ACK = ask("ACK", number="invite")
CANCEL = ask("CANCEL", branch="invite", number="invite")
PRACK = ask("PRACK", extra("RAck", "{rack}"))
RELIABLE = extra("RSeq", "1")
EVENT = extra("Subscription-State", "active;expires=3600")
LAST = extra("Subscription-State", "terminated;reason=noresource")
CHALLENGE = next(
    index for index, fields in enumerate(EXTRAS) if len(fields) == 1 and fields[0][0] == "WWW-Authenticate"
)
TIMER = extra("Session-Expires", "90;refresher=uac")
OUR_TIMER = extra("Session-Expires", "90;refresher=uac")
PROOF = extra("Authorization", "{proof}")
MINIMUM = extra("Min-Expires", "7200")
ABLE = next(index for index, fields in enumerate(EXTRAS) if "replaces, norefersub" in str(fields))
NEEDED = extra("Require", "100rel, timer")
REFER_TO = extra("Refer-To", "<sip:c@c.example>")
REPLACES = extra("Replaces", "{call};to-tag={ours};from-tag={theirs}")
FORWARD = next(index for index, fields in enumerate(EXTRAS) if "sips:b@b.example" in str(fields))
WANTED = extra("Supported", "100rel")
PRESENCE = extra("Event", "presence")
TAG = extra("SIP-ETag", "tag")

CALL: list[Step] = [do("call"), reply(183), reply(200, body=1), do("acknowledge")]
CALLED: list[Step] = [ask("INVITE", call=0, body=1), do("provisional"), do("accept", 1), ACK]
SUBSCRIBED: list[Step] = [do("subscribe"), reply(200, extra("Expires", "3600")), ask("NOTIFY", EVENT)]

CONVERSATIONS: dict[str, list[Step]] = {
    "a call of ours": [*CALL, do("info"), reply(200), do("hang up"), reply(200)],
    "a call of theirs": [*CALLED, ask("INFO"), do("respond"), ask("BYE")],
    "refused": [do("call"), reply(486)],
    "challenged": [do("call"), reply(401, CHALLENGE), reply(200, body=1), do("acknowledge"), ask("BYE")],
    "redirected": [do("call"), reply(302, FORWARD), do("follow"), reply(200, body=1), do("acknowledge"), ask("BYE")],
    "cancelled by us": [do("call"), reply(183), do("hang up"), reply(200), reply(487, which=1)],
    "cancelled by them": [ask("INVITE", call=0, body=1), CANCEL, ACK],
    "reliable from them": [
        do("call"),
        reply(183, RELIABLE, body=1),
        reply(200),
        reply(200, which=1),
        do("acknowledge"),
    ],
    "reliable from us": [
        ask("INVITE", WANTED, call=0, body=1),
        do("reliable", 1),
        PRACK,
        do("accept"),
        ACK,
        ask("BYE"),
    ],
    "without an offer": [do("call without offer"), reply(200, body=1), do("acknowledge"), ask("BYE")],
    "another offer": [*CALL, do("renegotiate"), reply(200, body=1), ask("INVITE", body=1), do("answer offer"), ACK],
    "offers cross": [*CALLED, do("renegotiate"), ask("INVITE", body=1), reply(491), Wait(4.0), reply(200, body=1)],
    "their update": [
        *CALLED,
        ask("UPDATE", body=1),
        do("answer offer"),
        ask("UPDATE"),
        do("decline offer"),
        ask("BYE"),
    ],
    "session timer": [ask("INVITE", TIMER, call=0, body=1), do("accept", 1), ACK, Wait(64.0), Wait(64.0)],
    "refer in a call": [*CALL, do("refer"), reply(202), ask("NOTIFY", extra("Event", "refer;id={number}"), body=2)],
    "their refer": [*CALLED, ask("REFER", REFER_TO), do("accept refer"), reply(200), do("tell refer", 2), reply(200)],
    "refer outside": [do("refer outside"), reply(202), ask("NOTIFY", LAST, body=2)],
    "their refer outside": [
        ask("REFER", REFER_TO, call=0),
        do("accept refer"),
        reply(200),
        do("tell refer", 2),
        reply(200),
    ],
    "replaced": [*CALLED, ask("INVITE", REPLACES, call=0, body=1), do("accept", 1), ACK, reply(200)],
    "a subscription": [*SUBSCRIBED, do("refresh"), reply(200), do("unsubscribe"), reply(200), ask("NOTIFY", LAST)],
    "their subscription": [
        ask("SUBSCRIBE", PRESENCE, extra("Expires", "3600"), call=0),
        *(do("accept subscription"), reply(200), do("notify"), reply(200), ask("SUBSCRIBE", PRESENCE), reply(200)),
        *(do("end subscription"), reply(200)),
    ],
    "a publication": [do("publish"), reply(200, TAG), Wait(4000.0), reply(200, TAG), do("remove"), reply(200)],
    "messages": [do("message"), reply(200), ask("MESSAGE", call=0, body=6), do("respond"), ask("OPTIONS", call=0)],
    "lost": [*CALL, Change("lose"), do("info"), reply(200), Change("unreachable"), Change("lose"), do("hang up")],
    "a proof": [do("demand digest"), ask("MESSAGE", call=0), ask("MESSAGE", PROOF, call=0), do("respond")],
    "certified": [
        Change("certified"),
        ask("INVITE", 1, extra("P-Asserted-Identity", "<sip:ceo@us.example>, <tel:+1>"), call=0),
    ],
    "few": [Change("few"), *CALLED, do("message"), do("message"), do("message"), ask("INVITE", call=0), do("call")],
    "by proxies": [
        do("message", which=2),
        reply(503),
        reply(503),
        do("call", which=1),
        reply(503),
        do("call", which=3),
    ],
    "refreshed by us": [
        do("call", 1),
        reply(200, OUR_TIMER, body=1),
        do("acknowledge"),
        Wait(64.0),
        reply(200, OUR_TIMER),
    ],
    "shut down": [*CALL, do("refer"), do("subscribe"), do("publish"), *CALLED, Change("shut down"), do("message")],
    "shut down early": [do("call"), ask("INVITE", call=0), do("reliable"), do("refer outside"), Change("shut down")],
    "begun again": [
        *(
            *SUBSCRIBED,
            ask("NOTIFY", extra("Subscription-State", "terminated;reason=deactivated")),
            reply(423, MINIMUM),
        ),
        *(reply(503, extra("Retry-After", "1")), Wait(64.0), reply(200)),
    ],
    "offered by them": [do("call without offer"), reply(183, RELIABLE, body=1), do("answer provisional"), reply(200)],
    "waits for PRACK": [ask("INVITE", WANTED, call=0, body=1), do("reliable"), do("accept", 1), PRACK, ACK, ask("BYE")],
    "no PRACK": [ask("INVITE", WANTED, call=0, body=1), do("reliable"), Wait(64.0)],
    "progress": [*CALLED, ask("INVITE", NEEDED, body=1), do("progress offer"), PRACK, do("answer offer"), ACK],
    "taken back by us": [*CALL, do("renegotiate"), reply(183), do("cancel"), reply(200), reply(487, which=1)],
    "taken back by them": [*CALLED, ask("INVITE", body=1), CANCEL, ACK, do("decline offer"), ask("BYE")],
    "not acknowledged": [*CALLED, ask("INVITE", body=1), do("answer offer"), Wait(64.0)],
    "early and changed": [
        ask("INVITE", WANTED, call=0, body=1),
        do("reliable", 1),
        PRACK,
        ask("UPDATE", body=1),
        do("answer offer"),
    ],
    "updated by us": [
        do("call", 1),
        reply(200, OUR_TIMER, ABLE, body=1),
        do("acknowledge"),
        Wait(64.0),
        reply(200, OUR_TIMER),
    ],
    "too short for them": [
        do("call", 1),
        reply(422, extra("Min-SE", "1800")),
        reply(200, OUR_TIMER, body=1),
        do("acknowledge"),
    ],
    "refer is heard longer": [
        *CALLED,
        ask("REFER", REFER_TO),
        do("accept refer"),
        ask("SUBSCRIBE", extra("Event", "refer;id=99")),
    ],
    "refer is forgotten": [*CALL, do("refer"), reply(202), do("hear no more"), reply(200), Wait(200.0)],
    "gone while subscribed": [*SUBSCRIBED, do("refresh"), reply(481), Wait(64.0)],
    "refused while subscribed": [*SUBSCRIBED, Wait(4000.0), reply(503), Wait(64.0), reply(423, MINIMUM), reply(200)],
    "their query": [ask("SUBSCRIBE", PRESENCE, extra("Expires", "0"), call=0), do("accept subscription"), reply(200)],
    "not now": [
        *(
            ask("SUBSCRIBE", PRESENCE, call=0),
            do("accept subscription", 2),
            reply(200),
            do("notify", 3),
            do("notify", 3),
        ),
        *(reply(200), Wait(4.0), Wait(4.0), reply(481)),
    ],
    "turned away": [ask("SUBSCRIBE", PRESENCE, call=0), do("decline subscription")],
    "published elsewhere": [
        do("publish"),
        reply(302, FORWARD),
        reply(412),
        reply(423, MINIMUM),
        reply(200, TAG),
        do("publish"),
    ],
    "datagrams": [
        Change("datagrams"),
        do("message"),
        Wait(4.0),
        reply(200),
        *CALLED,
        do("call"),
        Wait(1.0),
        reply(486),
    ],
    "slow": [Change("slow"), do("call"), do("message"), Change("open"), reply(200), Wait(64.0)],
}


def spoiled(octets: bytes) -> list[Step]:
    """Some of these conversations, one after the other, and a step here and there changed, left out, said twice or put
    in between: by octets, so that none of them means a sound conversation."""
    known = list(CONVERSATIONS.values())
    left = iter(octets)

    def number(below: int) -> int:
        return next(left, 0) % below

    steps: list[Step] = []
    for _ in range(1 + number(3)):
        for step in known[number(len(known))]:
            fate = number(16)
            if fate == 15:
                continue
            if fate in (12, 13):
                step = changed_part(step, number)
            elif fate == 14:
                steps += steps_of(bytes(number(256) for _ in range(12)))[:1]
            steps += [step, step] if fate == 11 else [step]
    return steps[:LONGEST]


def changed_part(step: Step, number: Callable[[int], int]) -> Step:
    """Another choice in one of its parts."""
    choices = CHOICES[type(step)]
    part = number(len(choices))
    other = choices[part][number(len(choices[part]))]
    return type(step)(*(other if index == part else value for index, value in enumerate(step)))  # type: ignore[arg-type]
