"""``p2psip answer``: take calls, or refuse them."""

from __future__ import annotations

import argparse
from typing import Any

from p2psip import (
    ErrorEventArgs,
    IPAddress,
    RealTimeEndpoint,
    RealTimeInvalidOperationException,
    RealTimeServerConnectionManager,
    ReferReceivedEventArgs,
    SessionReceivedEventArgs,
    SignalingSession,
)
from p2psip.cli import common, exits, listen
from p2psip.cli.exits import ExitCode
from p2psip.cli.feed import Feed
from p2psip.cli.media import Media
from p2psip.cli.record import Record
from p2psip.cli.talk import Talk, add_arguments

_DESCRIPTION = """\
Take calls, until Ctrl-C: ring for --ring-time, then answer, or refuse with --code.
There is no sound: the audio that comes is thrown away. At the end a ladder shows the messages.

  p2psip answer
  p2psip answer --ring-time 3 --code 486
  p2psip answer --follow-transfers

Followed transfers call whatever address the caller names: ask for it only where callers may do that.
"""

_BUSY = 480


def add_parser(commands: Any) -> None:
    """Describe the command to argparse."""
    parser = common.add_command(
        commands, "answer", run, "take calls", _DESCRIPTION, json="print one JSON object a line"
    )
    listen.add_arguments(parser)
    add_arguments(parser)
    parser.add_argument(
        "--ring-time", metavar="SECONDS", type=common.pause, default=0.0, help="ring (180) so long before (default: 0)"
    )
    parser.add_argument(
        "--code", metavar="CODE", type=_code, default=200, help="answer with this final status (default: 200)"
    )
    parser.add_argument("--count", metavar="N", type=common.count, default=0, help="end after so many calls")
    parser.add_argument("--once", dest="count", action="store_const", const=1, help="end after one call")
    parser.add_argument(
        "--follow-transfers", action="store_true", help="call the address that a caller sends us to (REFER)"
    )


def _code(text: str) -> int:
    """200, or what a call is refused with."""
    value = common.status_code(text)
    if value != 200 and value < 400:
        raise argparse.ArgumentTypeError(f"{text!r} is neither 200 nor a refusal (400 to 699)")
    return value


class _Answering:
    """All the calls; what is decided and told is so by the main thread."""

    def __init__(self, args: argparse.Namespace, media: Media, feed: Feed) -> None:
        self._args = args
        self._media = media
        self._feed = feed
        self._talks: list[Talk] = []
        self._following = 0
        self._taken = 0

    def is_over(self) -> bool:
        """As many calls as were asked for have come and gone."""
        enough = bool(self._args.count) and self._taken >= self._args.count
        return enough and not self._following and all(talk.is_over for talk in self._talks)

    def received(self, sender: RealTimeEndpoint, args: SessionReceivedEventArgs) -> None:
        """A call came in; on a strand of the call's own, so that nothing of it is missed."""
        session, caller = args.session, args.remote_participant.uri
        if self._args.follow_transfers:
            session.refer_received += self._referred
        talk = Talk(session, "", self._feed, self._args.duration)
        description = args.media_description
        offer = description.text_body if description is not None else None
        self._feed.post(lambda: self._begin(talk, caller, offer))

    def _begin(self, talk: Talk, caller: str, offer: str | None) -> None:
        session = talk.session
        if self._args.count and self._taken >= self._args.count:
            self._reject(talk, _BUSY)
            return
        self._taken += 1
        talk.name = f"call {self._taken}"
        self._talks.append(talk)
        replaced = session.replaced_session
        talk.tell("call", f"from {caller}", number=self._taken, caller=caller, offer=offer)
        talk.look()
        if talk.is_over:
            return
        if self._args.ring_time:
            try:
                session.send_provisional_response(180)
            except RealTimeInvalidOperationException:
                return  # the caller is faster
            self._feed.later(self._args.ring_time, lambda: self._decide(talk, replaced))
        else:
            self._decide(talk, replaced)

    def _decide(self, talk: Talk, replaced: SignalingSession | None) -> None:
        if self._args.code != 200:
            self._reject(talk, self._args.code)
            return
        try:
            operation = talk.session.begin_accept(self._media.answer)
        except RealTimeInvalidOperationException:
            return  # the caller is faster
        self._feed.when_done(operation, lambda error: self._accepted(talk, replaced, error))

    def _reject(self, talk: Talk, code: int) -> None:
        try:
            talk.session.terminate_with_rejection(code)
        except RealTimeInvalidOperationException:
            pass  # the caller is faster

    def _accepted(self, talk: Talk, replaced: SignalingSession | None, error: BaseException | None) -> None:
        if error is not None:
            talk.tell("failed", exits.sentence(error), reason=exits.reason(error), error=exits.sentence(error))
        elif replaced is not None:
            replaced.begin_terminate()

    def _referred(self, sender: SignalingSession, args: ReferReceivedEventArgs) -> None:
        """The caller wants us to call somebody else; following blocks, on the strand of that call only."""
        target = args.refer_target
        self._following += 1
        self._feed.post(lambda: self._feed.tell("transfer", f"transferred to {target}", target=target))
        try:
            session = args.follow(offer=self._media.offer())
        except Exception as error:
            failure = error
            self._feed.post(lambda: self._not_followed(target, failure))
        else:
            self._feed.post(lambda: self._followed(session, target))

    def _followed(self, session: SignalingSession, target: str) -> None:
        self._following -= 1
        talk = Talk(session, f"call to {target}", self._feed, self._args.duration)
        self._talks.append(talk)
        talk.tell("transferred", "the call is up", target=target)
        talk.look()

    def _not_followed(self, target: str, error: BaseException) -> None:
        self._following -= 1
        self._feed.tell(
            "transfer failed",
            f"transfer to {target} failed: {exits.sentence(error)}",
            target=target,
            reason=exits.reason(error),
            error=exits.sentence(error),
        )

    def refused(self, sender: RealTimeServerConnectionManager, args: ErrorEventArgs) -> None:
        """A peer did not get in, or did not let us in."""
        error = args.exception
        if error is not None:
            sentence, reason = exits.sentence(error), exits.reason(error)
            self._feed.post(lambda: self._feed.tell("refused", sentence, reason=reason, error=sentence))

    def aborted(self, sender: RealTimeServerConnectionManager, args: ErrorEventArgs) -> None:
        """The system took the port away."""
        error = args.exception

        def end() -> None:
            if error is not None:
                raise error

        self._feed.post(end)

    def hang_up(self) -> None:
        """All calls end."""
        operations = [talk.session.begin_terminate() for talk in self._talks if not talk.is_over]
        for operation in operations:
            operation.result()


def run(args: argparse.Namespace) -> ExitCode:
    """Answer until Ctrl-C, or until the count is reached; then draw."""
    feed = Feed(json=args.json)
    media = Media(args.sdp, peer="" if args.host == IPAddress.ANY else args.host)
    record = None
    try:
        with listen.open_endpoint(args) as (endpoint, manager):
            record = Record(manager)
            answering = _Answering(args, media, feed)
            endpoint.session_received += answering.received
            manager.incoming_tls_negotiation_failed += answering.refused
            manager.listening_aborted += answering.aborted
            listen.start_listening(args, manager)
            listen.announce(args, endpoint, manager, "call '{}'")
            try:
                feed.run(answering.is_over)
            finally:
                answering.hang_up()
    finally:
        media.close()
        if record is not None:
            feed.drain()
            record.show(json=args.json)
    return ExitCode.OK
