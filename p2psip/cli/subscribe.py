"""``p2psip subscribe``: watch somebody's presence, or any other event package."""

from __future__ import annotations

import argparse
import base64
from typing import Any

from p2psip import NotificationReceivedEventArgs, SipSubscription, SubscriptionStateChangedEventArgs
from p2psip.cli import common, console, peer
from p2psip.cli.exits import CommandError, ExitCode, usage_errors
from p2psip.cli.feed import Feed
from p2psip.cli.record import Record

_DESCRIPTION = """\
Subscribe to what a peer tells about (RFC 6665), and print its notifications until Ctrl-C.
The subscription is refreshed by itself. At the end a ladder shows the messages.

  p2psip subscribe --event presence sip:bob@example.com:5061
  p2psip subscribe --event message-summary --query --json sip:bob@example.com:5061

Exit code 0: the peer ended it, or as many notifications came as were asked for. 1: it was refused.
"""


def add_parser(commands: Any) -> None:
    """Describe the command to argparse."""
    parser = common.add_command(
        commands, "subscribe", run, "print notifications", _DESCRIPTION, json="print one JSON object a line"
    )
    peer.add_arguments(parser, what="for connecting and the answer", tls_name=False)
    parser.add_argument("--event", metavar="PACKAGE", default="presence", help="what about (default: presence)")
    parser.add_argument(
        "--accept", metavar="TYPE", action="append", default=[], help="a content type that we take; repeatable"
    )
    parser.add_argument(
        "--expires", metavar="SECONDS", type=common.count, default=3600, help="for how long at a time (default: 3600)"
    )
    parser.add_argument("--query", action="store_true", help="only ask for the present state")
    parser.add_argument("-c", "--count", metavar="N", type=common.count, default=0, help="end after so many")


class _Watch:
    """The subscription; everything that is told is told by the main thread."""

    def __init__(self, args: argparse.Namespace, subscription: SipSubscription, feed: Feed) -> None:
        self._args = args
        self._subscription = subscription
        self._feed = feed
        self._number = 0
        self._is_answered = False
        self._is_over = False
        self.failure: BaseException | None = None
        subscription.notification_received += self._notified
        subscription.state_changed += self._state_changed

    def watch(self) -> None:
        """Until it is over."""
        with usage_errors():
            operation = self._subscription.begin_subscribe()
        self._feed.when_done(operation, self._subscribed)
        self._feed.later(self._args.timeout, self._late)
        wanted = self._args.count
        self._feed.run(lambda: self._is_over or 0 < wanted <= self._number)

    def _late(self) -> None:
        if not self._is_answered:
            self._is_over = True
            where, seconds = self._args.address, self._args.timeout
            self.failure = CommandError(f"{where} did not answer within {seconds:g} s.", ExitCode.TIMEOUT)

    def _subscribed(self, error: BaseException | None) -> None:
        self._is_answered = True
        self.failure = error
        self._is_over = self._is_over or error is not None

    def _notified(self, sender: SipSubscription, args: NotificationReceivedEventArgs) -> None:
        self._feed.post(lambda: self._tell(args))

    def _tell(self, args: NotificationReceivedEventArgs) -> None:
        if 0 < self._args.count <= self._number:
            return
        self._number += 1
        text, state = args.text_body, args.subscription_state
        shown = "" if not args.body else text if text is not None else f"({len(args.body)} bytes that are no text)"
        self._feed.tell(
            "notification",
            f"{self._args.event} of {self._args.address} ({state})",
            number=self._number,
            package=self._args.event,
            subscription_state=state,
            reason=args.reason,
            remaining=args.remaining,
            content_type=args.content_type,
            text=text,
            body_base64=base64.b64encode(args.body).decode("ascii") if text is None else None,
        )
        if shown and not self._args.json:
            console.say("\n".join(f"    {line}" for line in console.printable(shown.strip(), lines=True).split("\n")))

    def _state_changed(self, sender: SipSubscription, args: SubscriptionStateChangedEventArgs) -> None:
        def tell() -> None:
            self._feed.tell(
                "state",
                args.state.name.lower().replace("_", " "),
                state=args.state.name,
                previous=args.previous_state.name,
            )
            self._is_over = self._is_over or args.state.name == "TERMINATED"

        self._feed.post(tell)


def run(args: argparse.Namespace) -> ExitCode:
    """Watch; unsubscribe whatever happens; then draw."""
    feed = Feed(json=args.json)
    record = None
    try:
        with peer.open_endpoint(args) as endpoint:
            record = Record(endpoint.connection_manager)
            with usage_errors():
                subscription = SipSubscription(
                    endpoint,
                    args.address,
                    args.event,
                    expires=args.expires,
                    is_query_only=args.query,
                    accept=args.accept,
                    headers=args.header,
                )
            watch = _Watch(args, subscription, feed)
            try:
                watch.watch()
            finally:
                subscription.terminate()
    finally:
        if record is not None:
            feed.drain()
            record.show(json=args.json)
    if watch.failure is not None:
        raise watch.failure
    return ExitCode.OK
