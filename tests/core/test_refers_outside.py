"""REFER outside of any session: its own dialog, its forks, both ends of it (RFC 3515, RFC 4488)."""

from __future__ import annotations

from typing import Any

import pytest
from call_support import World
from core_support import Target
from subscription_support import deliver_next

from p2psip.config import ManagerSettings
from p2psip.core.refer_outside import IncomingOutsideRefer, OutsideRefer
from p2psip.core.subscribe import MAXIMUM_NOTIFIERS
from p2psip.errors import OperationFailureException, OperationTimeoutException
from p2psip.message import Request, Response, parse_message

BOB = "sip:bob@bob.example"


class Asking:
    """Alice asks Bob to call Carol."""

    def __init__(self, world: World, *, subscribe: bool = True, refer_to: str = "<sip:carol@carol.example>") -> None:
        self.world = world
        alice = world.alice
        target = Target("TLS", "bob.example", 5061, "bob.example")
        self.refer = OutsideRefer(
            alice.engine, alice.record, alice, uri=BOB, to=f"<{BOB}>", target=target, local_from="<sip:alice@a>;tag="
        )
        self.operation = alice.do(self.refer.refer, refer_to, (), None, subscribe)

    @property
    def taken(self) -> IncomingOutsideRefer:
        refer = self.world.bob.sessions[-1]
        assert isinstance(refer, IncomingOutsideRefer)
        return refer

    def tell(self, code: int) -> None:
        self.taken.progress(self.world.now, code, None, None, code >= 200)
        self.world.run()

    def accept(self) -> Asking:
        self.taken.accept(self.world.now)
        self.world.run()
        return self

    @property
    def told(self) -> list[tuple[int, bool]]:
        return [(event.status_code, event.is_over) for event in self.world.alice.happened("ReferProgress")]

    def assert_over(self) -> None:
        self.world.pass_time(70.0)
        self.world.assert_over()


@pytest.fixture
def world() -> World:
    return World()


def test_followed_and_told(world: World) -> None:
    asking = Asking(world, refer_to="<sip:carol@carol.example?Replaces=a%40b%3Bto-tag%3D1%3Bfrom-tag%3D2>")
    taken = asking.taken
    assert (taken.target, taken.method) == ("sip:carol@carol.example", "INVITE")
    assert taken.replaces == "a@b;to-tag=1;from-tag=2"
    assert taken.referred_by == "<sip:alice@alice.example>"
    asking.accept()
    assert asking.operation.message.status_code == 202
    asking.tell(180)
    asking.tell(200)
    assert world.log == ["REFER", "202"] + ["NOTIFY", "200"] * 3
    assert asking.told == [(100, False), (180, False), (200, True)]
    assert not asking.refer.is_active
    assert len(world.bob.happened("ReferEnded")) == 1
    asking.assert_over()


def test_notify_comes_before_the_202(world: World) -> None:
    asking = Asking(world)
    world.held = []
    asking.accept()
    world.release(reverse=True)
    assert asking.operation.message.status_code == 202
    assert asking.told == [(100, False)]
    asking.tell(486)
    assert asking.told[-1] == (486, True)
    asking.assert_over()


@pytest.mark.parametrize("to", ["", "<sip:bob", '<sip:bob@bob.example>;tag="a"'])
def test_an_answer_that_cannot_make_a_dialog_is_dropped(world: World, to: str) -> None:
    """RFC 3261 18.1.2: a malformed response is no answer."""
    asking = Asking(world)
    world.held = []
    asking.taken.accept(world.now)
    world.run()
    deliver_next(world, ("To: <sip:bob@bob.example>;tag=", f"To: {to}\r\nX: "))
    world.held.clear()
    asking.assert_over()
    assert isinstance(asking.operation.error, OperationTimeoutException)


def test_nobody_wants_to_know(world: World) -> None:
    asking = Asking(world, subscribe=False).accept()
    assert asking.operation.message.headers.get("Refer-Sub") == "false"
    asking.tell(200)
    assert world.log == ["REFER", "202"]
    asking.assert_over()


def test_declined(world: World) -> None:
    asking = Asking(world)
    asking.taken.decline(world.now, 603)
    world.run()
    assert asking.operation.message.status_code == 603
    asking.taken.decline(world.now, 603)
    assert not asking.taken.accept(world.now)
    assert len(world.bob.happened("ReferEnded")) == 1
    asking.assert_over()


def test_nobody_decides(world: World) -> None:
    asking = Asking(world)
    world.pass_time(40.0)
    assert asking.operation.message.status_code == 500
    asking.assert_over()


def test_hearing_no_more_of_it(world: World) -> None:
    asking = Asking(world).accept()
    asking.refer.terminate_subscription(world.now)
    world.run()
    assert world.log[-4:] == ["SUBSCRIBE", "200", "NOTIFY", "200"]
    assert asking.told == [(100, False)]
    assert not asking.taken.is_active
    asking.assert_over()


def test_hearing_nothing_of_it_from_the_start(world: World) -> None:
    asking = Asking(world)
    asking.refer.terminate_subscription(world.now)
    asking.accept()
    assert world.log == ["REFER", "202", "NOTIFY", "481"]
    assert not asking.taken.is_active
    asking.assert_over()


def from_fork(world: World, tag: str, number: int, state: str) -> int:
    """The first NOTIFY once more, from another fork of the REFER; the code of the answer."""
    first = next(message for _, message in world.messages if getattr(message, "method", "") == "NOTIFY")
    text = first.to_bytes().decode().replace(f";tag={first.from_tag}", f";tag={tag}")
    text = text.replace(f"CSeq: {first.cseq.number} ", f"CSeq: {number} ")
    text = text.replace(f"branch={first.top_branch}", f"branch=z9hG4bK{tag}{number}")
    lines = [
        f"Subscription-State: {state}" if line.startswith("Subscription-State") else line for line in text.split("\r\n")
    ]
    fork = parse_message("\r\n".join(lines).encode())
    assert isinstance(fork, Request)
    (flow,) = world.alice.flows
    world.alice.engine.receive(world.now, flow, fork)
    world.run()
    answer = world.messages[-1][1]
    assert isinstance(answer, Response)
    return answer.status_code


def test_each_fork_tells_its_end(world: World) -> None:
    asking = Asking(world).accept()
    assert from_fork(world, "fork", 1, "active;expires=60") == 200
    asking.tell(200)
    assert asking.told == [(100, False), (100, False), (200, False)]
    assert asking.refer.is_active
    assert from_fork(world, "fork", 2, "terminated;reason=noresource") == 200
    assert asking.told[-1] == (100, True)
    assert not asking.refer.is_active
    asking.assert_over()


def test_there_is_an_end_of_forks(world: World) -> None:
    asking = Asking(world).accept()
    codes = [from_fork(world, f"fork{number}", 1, "active;expires=60") for number in range(MAXIMUM_NOTIFIERS + 10)]
    assert codes == [200] * (MAXIMUM_NOTIFIERS - 1) + [481] * 11
    asking.tell(200)
    for number in range(MAXIMUM_NOTIFIERS - 1):
        from_fork(world, f"fork{number}", 2, "terminated;reason=noresource")
    assert not asking.refer.is_active
    asking.assert_over()


def test_the_peer_falls_silent(world: World) -> None:
    asking = Asking(world).accept()
    world.bob.engine.timers.cancel(asking.taken._end)
    world.pass_time(300.0)
    assert asking.told[-1] == (0, True)
    asking.taken.stop()
    asking.assert_over()


def test_too_long_is_told_as_a_timeout(world: World) -> None:
    asking = Asking(world).accept()
    world.pass_time(200.0)
    assert asking.told[-1] == (408, True)
    asking.assert_over()


@pytest.mark.parametrize("accepted", [True, False])
def test_the_end_of_who_was_asked(world: World, accepted: bool) -> None:
    asking = Asking(world)
    if accepted:
        asking.accept()
    end = world.bob.do(asking.taken.terminate)
    assert end.ends == [(None, None)]
    if accepted:
        assert asking.told[-1] == (503, True)
    else:
        assert asking.operation.message.status_code == 480
    asking.assert_over()


def test_the_end_of_who_asks(world: World) -> None:
    error = OperationFailureException("The endpoint is terminated.")
    asking = Asking(world)
    asking.refer.abandon(world.now, error)
    world.run()
    assert str(asking.operation.error) == str(error)
    asking.accept()
    assert world.log[-1] == "481"
    asking.assert_over()


def test_once_only(world: World) -> None:
    asking = Asking(world)
    again = world.alice.do(asking.refer.refer, "<sip:carol@carol.example>", (), None, True)
    assert isinstance(again.error, OperationFailureException)
    asking.accept().tell(200)
    asking.assert_over()


def test_a_connection_that_is_lost(world: World) -> None:
    asking = Asking(world).accept()
    world.cut()
    asking.tell(200)
    assert asking.told[-1] == (200, True)
    asking.assert_over()


def test_nobody_can_be_reached(world: World) -> None:
    world.unreachable = True
    asking = Asking(world)
    assert asking.operation.error is not None
    asking.assert_over()


def test_too_many_dialogs() -> None:
    world = World(settings=ManagerSettings(maximum_dialogs=1))
    first = Asking(world).accept()
    second = Asking(world)
    assert second.operation.message.status_code == 503
    first.tell(200)
    first.assert_over()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Refer-To: <sip:carol@carol.example>\r\n", ""),
        ("Refer-To: <sip:carol@carol.example>\r\n", "Refer-To: <sip:c@c>\r\nRefer-To: <sip:d@d>\r\n"),
        ("Refer-To: <sip:carol@carol.example>", "Refer-To: <<<"),
        ("Contact: ", "X-Contact: "),
    ],
)
def test_what_cannot_be_followed(world: World, old: str, new: str) -> None:
    world.held = []
    Asking(world)
    ((party, flow, message),) = world.held
    text = message.to_bytes().decode()
    assert old in text
    altered: Any = parse_message(text.replace(old, new).encode())
    world.held = None
    party.engine.receive(world.now, flow, altered)
    world.run()
    assert world.log == ["REFER", "400"]
    world.pass_time(300.0)
    world.assert_over()


@pytest.mark.parametrize("is_first", (False, True), ids=("after the 202", "before it"))
def test_the_id_is_the_number_of_the_request_that_was_let_in(world: World, is_first: bool) -> None:
    """RFC 3515 2.4.6. The one before was asked for a password; the dialog goes on from the last one as well."""
    world.demand_digest()
    if is_first:
        world.lose = lambda message: isinstance(message, Response) and message.status_code == 202
    asking = Asking(world).accept()
    asking.tell(180)
    assert asking.told == [(100, False), (180, False)]
    asking.refer.terminate_subscription(world.now)
    world.run()
    ends = [m for _, m in world.messages if isinstance(m, Request) and m.method == "SUBSCRIBE"]
    assert [(m.cseq.number, m.headers.get("Event")) for m in ends[:1]] == [(3, "refer;id=2")]
