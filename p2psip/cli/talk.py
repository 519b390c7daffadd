"""What ``call`` and ``answer`` have in common: a session whose events are told."""

from __future__ import annotations

import argparse
from typing import Any

from p2psip import (
    MessageReceivedEventArgs,
    ProvisionalResponseReceivedEventArgs,
    SignalingSession,
    SignalingState,
    SignalingStateChangedEventArgs,
)
from p2psip.cli import common
from p2psip.cli.feed import Feed

_WORDS = {
    SignalingState.CONNECTING: "connecting",
    SignalingState.ALERTED: "it rings",
    SignalingState.CONNECTED: "the call is up",
    SignalingState.DISCONNECTED: "the call is over",
    SignalingState.REDIRECTING: "sent elsewhere",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What concerns any call."""
    parser.add_argument(
        "--sdp", metavar="FILE", help="describe our media with this (default: audio that is taken and thrown away)"
    )
    parser.add_argument(
        "--duration", metavar="SECONDS", type=common.pause, help="hang up so long after it was answered"
    )


class Talk:
    """One call: what happens in it is told in the main thread.

    Args:
        session: The call.
        name: What it is called where there are several; empty where there is but one.
        feed: Who tells.
        duration: Seconds after which we hang up; None never.
    """

    def __init__(self, session: SignalingSession, name: str, feed: Feed, duration: float | None) -> None:
        self.session = session
        self.is_over = False
        self.was_up = False
        self.name = name
        self._feed = feed
        self._duration = duration
        session.state_changed += self._state_changed
        session.provisional_response_received += self._provisional
        session.message_received += self._message

    def tell(self, event: str, sentence: str, /, **facts: Any) -> None:
        """Main thread: say something of this call."""
        self._feed.tell(
            event, f"{self.name}: {sentence}" if self.name else sentence, call_id=self.session.call_id, **facts
        )

    def look(self) -> None:
        """Main thread: what has happened before we listened."""
        if self.session.state is SignalingState.CONNECTED:
            self._changed(SignalingState.CONNECTED)
        elif self.session.is_terminated:
            self._changed(SignalingState.DISCONNECTED)

    def _state_changed(self, sender: SignalingSession, args: SignalingStateChangedEventArgs) -> None:
        def tell() -> None:
            word = _WORDS.get(args.state, args.state.name)
            why = f" ({args.reason.name})" if args.state is SignalingState.DISCONNECTED else ""
            self.tell(
                "state",
                f"{word}{why}",
                state=args.state.name,
                previous=args.previous_state.name,
                reason=args.reason.name,
            )
            self._changed(args.state)

        self._feed.post(tell)

    def _changed(self, state: SignalingState) -> None:
        if state is SignalingState.CONNECTED and not self.was_up:
            self.was_up = True
            if self._duration is not None:
                self._feed.later(self._duration, self.session.begin_terminate)
        elif state is SignalingState.DISCONNECTED:
            self.is_over = True

    def _provisional(self, sender: SignalingSession, args: ProvisionalResponseReceivedEventArgs) -> None:
        response = args.response_data
        code, text = response.response_code, response.response_text
        self._feed.post(
            lambda: self.tell(
                "provisional",
                f"{code} {text}".rstrip(),
                status=code,
                reason_phrase=text,
                reliable=args.is_reliable,
                early_media=args.has_offer_answer,
            )
        )

    def _message(self, sender: SignalingSession, args: MessageReceivedEventArgs) -> None:
        method, text = str(args.request_data.message_type), args.text_body
        self._feed.post(lambda: self.tell("message", f"{method}: {text or ''}", method=method, text=text))
