"""An application that does anything at any time with what it has; see ``hostile_conversation``."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from call_support import Operation
from core_support import Target
from hostile_steps import Do

from p2psip.core.authentication import Credential
from p2psip.core.dialog import Content
from p2psip.core.digest_demand import DigestDemand
from p2psip.core.events import (
    InvitationAccepted,
    OfferReceived,
    ProvisionalReceived,
    Redirected,
    RequestReceived,
)
from p2psip.core.notify import Notifier
from p2psip.core.publish import Publication
from p2psip.core.refer import IncomingRefer, OutgoingRefer
from p2psip.core.refer_outside import IncomingOutsideRefer, OutsideRefer
from p2psip.core.session import Session, SessionOptions
from p2psip.core.subscribe import Subscriber
from p2psip.core.ways import Way, Ways
from p2psip.enums import ExtensionFeatureSupport
from p2psip.errors import ConnectionFailureException
from p2psip.message import Request

if TYPE_CHECKING:
    from p2psip.core.directory import EndpointRecord
    from p2psip.core.engine import Engine

OFFER = Content("application/sdp", b"v=0\r\ns=us\r\n")
TARGET = Target("TLS", "them.example", 5061, "them.example")
NAMED = Target("TLS", "them.example", None, "them.example")  # type: ignore[arg-type]
"""A name that the DNS may know several servers of."""


def targets() -> tuple[Any, ...]:
    """Where requests go: a place, a name, by two proxies in turn, and nowhere."""
    ways = Ways([Way(TARGET, ("<sip:p.example;lr>",)), Way(NAMED, ("<sip:strict.example>",))])
    return (TARGET, NAMED, ways, ConnectionFailureException("There is no such place."))


THEM = "sip:them@them.example"


class Application:
    """Has sessions, subscriptions and the like, and is told of them. Whoever drives it carries out effects."""

    now: float
    engine: Engine
    record: EndpointRecord

    def __init__(self) -> None:
        self.usages: list[Any] = []
        self.told: list[tuple[Any, Any]] = []
        self.transactions: list[Any] = []
        self.operations: list[Operation] = []
        self._messages = 0

    def carry_out(self) -> None:
        raise NotImplementedError

    def do(self, step: Do) -> None:
        command = getattr(self, "do_" + step.command.replace(" ", "_"))
        command(step)

    def operation(self, step: Do) -> Operation:
        operation = Operation(step.command)
        self.operations.append(operation)
        return operation

    def usage(self, kind: type, step: Do) -> Any:
        """The one of that kind that is meant; None where there is none."""
        known = [usage for usage in self.usages if isinstance(usage, kind)]
        return known[-1 - step.which % len(known)] if known else None

    def event(self, kind: type, step: Do) -> tuple[Any, Any]:
        """What was told and to which usage: the oldest first, each at least once."""
        known = [told for told in self.told if isinstance(told[1], kind)]
        return known[-1 - step.which % len(known)] if known else (None, None)

    def do_call(self, step: Do) -> None:
        options = SessionOptions(
            reliable=list(ExtensionFeatureSupport)[step.variant % len(ExtensionFeatureSupport)],
            is_timer_supported=step.which % 2 == 0,
            session_interval=(0, 90, 1800, 90)[step.variant],
        )
        session = Session(self.engine, self.record, self, options)
        session.wants_messages = step.variant == 3
        self.usages.append(session)
        offer = None if step.command == "call without offer" else OFFER
        timeout = 5.0 if step.which == 3 else None
        target = targets()[step.which]
        session.establish(self.now, THEM, f"<{THEM}>", target, offer, (), self.operation(step), timeout)

    do_call_without_offer = do_call

    def do_accept(self, step: Do) -> None:
        if session := self.usage(Session, step):
            session.accept(self.now, (None, OFFER)[step.variant % 2], (), self.operation(step))

    def do_provisional(self, step: Do) -> None:
        if session := self.usage(Session, step):
            body, is_reliable = (None, OFFER)[step.variant % 2], step.command == "reliable"
            session.send_provisional(self.now, 183, None, (), body, is_reliable, self.operation(step))

    do_reliable = do_provisional

    def do_reject(self, step: Do) -> None:
        if session := self.usage(Session, step):
            session.reject(self.now, (404, 408, 486, 603)[step.variant], None, (), self.operation(step))

    def do_redirect(self, step: Do) -> None:
        if session := self.usage(Session, step):
            session.reject(self.now, 302, None, [("Contact", "<sip:else@us.example>")], self.operation(step))

    def do_renegotiate(self, step: Do) -> None:
        if session := self.usage(Session, step):
            session.renegotiate(self.now, OFFER, (), self.operation(step))

    def do_cancel(self, step: Do) -> None:
        if session := self.usage(Session, step):
            session.cancel_renegotiation(self.now)

    def do_info(self, step: Do) -> None:
        if session := self.usage(Session, step):
            timeout = (None, None, 2.0, 100.0)[step.variant]
            session.send_request(self.now, "INFO", (), None, self.operation(step), timeout)

    def do_refer(self, step: Do) -> None:
        if session := self.usage(Session, step):
            refer = OutgoingRefer(session, self)
            self.usages.append(refer)
            refer.refer(self.now, "<sip:c@c.example>", (), None, step.variant != 3, self.operation(step))

    def do_refer_outside(self, step: Do) -> None:
        refer = OutsideRefer(
            self.engine,
            self.record,
            self,
            uri=THEM,
            to=f"<{THEM}>",
            target=TARGET,
            local_from="<sip:us@us.example>;tag=",
        )
        self.usages.append(refer)
        refer.refer(self.now, "<sip:c@c.example>", (), None, step.variant != 3, self.operation(step))

    def do_hang_up(self, step: Do) -> None:
        if session := self.usage(Session, step):
            session.terminate(self.now, (), self.operation(step))

    def do_subscribe(self, step: Do) -> None:
        subscriber = Subscriber(
            self.engine,
            self.record,
            self,
            event="presence",
            uri=THEM,
            to=f"<{THEM}>",
            target=targets()[step.which],
            expires=(3600, 60, 5, 1)[step.variant],
            is_query=step.command == "query",
        )
        self.usages.append(subscriber)
        subscriber.subscribe(self.now, (), None, self.operation(step), 5.0 if step.which == 3 else None)

    do_query = do_subscribe

    def do_refresh(self, step: Do) -> None:
        if subscriber := self.usage(Subscriber, step):
            command = subscriber.subscribe if step.variant == 3 else subscriber.refresh
            command(self.now, (), None, self.operation(step))

    def do_unsubscribe(self, step: Do) -> None:
        if subscriber := self.usage(Subscriber, step):
            subscriber.terminate(self.now, (), self.operation(step))

    def do_accept_subscription(self, step: Do) -> None:
        if notifier := self.usage(Notifier, step):
            notifier.accept(self.now, (None, 90, None, 5)[step.variant], (), OFFER, step.variant == 2)

    def do_decline_subscription(self, step: Do) -> None:
        if notifier := self.usage(Notifier, step):
            notifier.decline(self.now, (403, 408, 489, 603)[step.variant], None, ())

    def do_notify(self, step: Do) -> None:
        if notifier := self.usage(Notifier, step):
            notifier.minimum_interval = 5.0 if step.variant == 3 else 0.0
            notifier.notify(self.now, OFFER, (), self.operation(step), (None, 2.0)[step.variant % 2])

    def do_end_subscription(self, step: Do) -> None:
        if notifier := self.usage(Notifier, step):
            reason = (None, "deactivated", "probation", "noresource")[step.variant]
            notifier.terminate(self.now, reason, 1, None, self.operation(step))

    def do_publish(self, step: Do) -> None:
        publication = None if step.variant == 3 else self.usage(Publication, step)
        if publication is None:
            publication = Publication(
                self.engine, self.record, self, event="presence", uri=THEM, target=targets()[step.which]
            )
            self.usages.append(publication)
        timeout = (None, 2.0)[step.variant % 2]
        publication.publish(self.now, OFFER, (), self.operation(step), timeout)

    def do_remove(self, step: Do) -> None:
        if publication := self.usage(Publication, step):
            publication.remove(self.now, self.operation(step))

    def do_message(self, step: Do) -> None:
        self._messages += 1
        pairs = [
            ("Max-Forwards", "70"),
            ("From", f"<sip:us@us.example>;tag={self._messages}"),
            ("To", f"<{THEM}>"),
            ("Call-ID", f"message{self._messages}"),
            ("CSeq", "1 MESSAGE"),
        ]
        request = Request("MESSAGE", THEM, pairs, b"hello")
        timeout = (None, 2.0)[step.variant % 2]
        self.engine.send_request(
            self.now,
            request,
            targets()[step.which],
            self.operation(step),
            timeout=timeout,
            record=self.record,
            bears_contact=True,
        )

    def do_respond(self, step: Do) -> None:
        code = (200, 404, 180, 600)[step.variant]
        _, event = self.event(RequestReceived, step)
        known = [*self.transactions, *([event.transaction] if event else [])]
        if known:
            transaction = known[-1 - step.which % len(known)]
            with contextlib.suppress(ValueError):  # a 180 to what nobody may answer so
                self.engine.respond(self.now, transaction, transaction.create_response(code))

    def do_answer_offer(self, step: Do) -> None:
        session, event = self.event(OfferReceived, step)
        if event is not None:
            session.accept_offer(self.now, event.transaction, OFFER, (), self.operation(step))

    def do_decline_offer(self, step: Do) -> None:
        session, event = self.event(OfferReceived, step)
        if event is not None:
            session.decline_offer(self.now, event.transaction, (488, 408, 500, 603)[step.variant])

    def do_progress_offer(self, step: Do) -> None:
        session, event = self.event(OfferReceived, step)
        if event is not None:
            session.send_progress(self.now, event.transaction, 180, None, (), self.operation(step))

    def do_acknowledge(self, step: Do) -> None:
        session, event = self.event(InvitationAccepted, step)
        if event is not None:
            session.acknowledge(self.now, OFFER if event.needs_answer else None, ())

    def do_answer_provisional(self, step: Do) -> None:
        session, event = self.event(ProvisionalReceived, step)
        if event is not None and event.needs_answer:
            session.answer_provisional(self.now, OFFER, ())

    def do_follow(self, step: Do) -> None:
        session, event = self.event(Redirected, step)
        if event is not None and event.targets:
            session.follow(self.now, event.targets[step.variant % len(event.targets)], ())

    def do_give_up(self, step: Do) -> None:
        session, event = self.event(Redirected, step)
        if event is not None:
            session.give_up(self.now)

    def do_accept_refer(self, step: Do) -> None:
        if refer := self.usage(IncomingRefer, step):
            refer.accept(self.now)

    def do_decline_refer(self, step: Do) -> None:
        if refer := self.usage(IncomingRefer, step):
            refer.decline(self.now, 603)

    def do_tell_refer(self, step: Do) -> None:
        if refer := self.usage(IncomingRefer, step):
            refer.progress(self.now, (100, 180, 200, 603)[step.variant], None, None, step.variant > 1)

    def do_hear_no_more(self, step: Do) -> None:
        if refer := self.usage(OutgoingRefer, step):
            refer.terminate_subscription(self.now)

    def do_demand_digest(self, step: Do) -> None:
        users = {"them": Credential("them", "secret")}
        demand = DigestDemand("us", users, ["SHA-256"], "us", except_certificates=False)
        self.record.demand = None if step.variant == 3 else demand

    def do_end_all(self, step: Do) -> None:
        if step.variant == 3:
            self.terminate_all()

    def terminate_all(self) -> None:
        """The application wants nothing any more."""
        step = Do("end all", 0, 0)
        for usage in list(self.usages):
            if isinstance(usage, Session | Subscriber):
                usage.terminate(self.now, (), self.operation(step))
            elif isinstance(usage, Notifier):
                usage.terminate(self.now, None, None, None, self.operation(step))
            elif isinstance(usage, Publication):
                usage.remove(self.now, self.operation(step))
            elif isinstance(usage, IncomingOutsideRefer):
                usage.terminate(self.now, self.operation(step))
            elif isinstance(usage, IncomingRefer):
                usage.decline(self.now, 603)
            elif isinstance(usage, OutgoingRefer):
                usage.terminate_subscription(self.now)
            self.carry_out()
