"""Alice subscribes to Bob: the bodies that people use, and both sides of the subscription."""

from __future__ import annotations

from typing import Any

from call_support import World
from core_support import Target

from p2psip.core.dialog import Content
from p2psip.core.notify import Notifier
from p2psip.core.subscribe import Subscriber
from p2psip.enums import SubscriptionSignalingState
from p2psip.message import Request, parse_message

PRESENCE = Content(
    "application/pidf+xml",
    b"<?xml version='1.0'?><presence xmlns='urn:ietf:params:xml:ns:pidf' entity='pres:bob@bob.example'>"
    b"<tuple id='t1'><status><basic>open</basic></status></tuple></presence>",
)
DIALOG = Content(
    "application/dialog-info+xml",
    b"<?xml version='1.0'?><dialog-info xmlns='urn:ietf:params:xml:ns:dialog-info' version='1' state='full' "
    b"entity='sip:bob@bob.example'><dialog id='1'><state>confirmed</state></dialog></dialog-info>",
)
MAILBOX = Content(
    "application/simple-message-summary",
    b"Messages-Waiting: yes\r\nMessage-Account: sip:bob@bob.example\r\nVoice-Message: 4/8 (1/2)\r\n",
)
S = SubscriptionSignalingState


class Watch:
    """Alice subscribes to Bob."""

    def __init__(self, world: World, event: str = "presence", *, timeout: float | None = None, **options: Any) -> None:
        self.world = world
        alice = world.alice
        self.subscriber = Subscriber(
            alice.engine,
            alice.record,
            alice,
            event=event,
            uri="sip:bob@bob.example",
            to="<sip:bob@bob.example>",
            target=Target("TLS", "bob.example", 5061, "bob.example"),
            **options,
        )
        self.operation = world.operation("subscribe")
        self.subscriber.subscribe(world.now, (), None, self.operation, timeout)
        world.run()

    @property
    def notifier(self) -> Notifier:
        notifier = self.world.bob.sessions[-1]
        assert isinstance(notifier, Notifier)
        return notifier

    def accept(self, expires: int | None = None, content: Content | None = PRESENCE, **more: Any) -> Watch:
        self.notifier.accept(self.world.now, expires, (), content, **more)
        self.world.run()
        return self

    @property
    def notifications(self) -> list[Any]:
        return self.world.alice.happened("NotificationReceived")

    @property
    def states(self) -> list[SubscriptionSignalingState]:
        return [event.state for event in self.world.alice.happened("SubscriptionStateChanged")]

    def unsubscribe(self) -> None:
        end = self.world.alice.do(self.subscriber.terminate, ())
        self.world.pass_time(100.0)
        assert end.ends == [(None, None)]
        self.world.assert_over()

    def send_as_notifier(self, text: bytes) -> None:
        """A message of a notifier that is none of ours reaches Alice."""
        world = self.world
        world.alice.engine.receive(world.now, world.alice.flows[-1], parse_message(text))
        world.run()

    def first_notify(self) -> Request:
        """As Bob sent it."""
        return next(m for _, m in self.world.messages if isinstance(m, Request) and m.method == "NOTIFY")

    def notify_of_fork(self, tag: str, *changes: tuple[str, str]) -> None:
        """The first NOTIFY once more, from another notifier."""
        first = self.first_notify()
        text = first.to_bytes().decode().replace(f"tag={first.from_tag}", f"tag={tag}")
        text = text.replace("branch=z9hG4bK", f"branch=z9hG4bK{tag}")
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        self.send_as_notifier(text.encode())


def deliver_next(world: World, *changes: tuple[str, str]) -> None:
    """The first message that is held arrives, altered; the others are held on."""
    assert world.held is not None
    party, flow, message = world.held.pop(0)
    text = message.to_bytes().decode()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    party.engine.receive(world.now, flow, parse_message(text.encode()))
    world.run()
