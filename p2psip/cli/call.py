"""``p2psip call``: place a call, watch it, and hang up."""

from __future__ import annotations

import argparse
from typing import Any

from p2psip import RealTimeAddress, SignalingSession, SignalingSessionSettings, SignalingState
from p2psip.cli import common, console, exits, peer, talk
from p2psip.cli.exits import ExitCode, usage_errors
from p2psip.cli.feed import Feed
from p2psip.cli.media import Media
from p2psip.cli.record import Record

_DESCRIPTION = """\
Place a call (INVITE), show each of its states, and hang up on Ctrl-C or after --duration.
There is no sound: the audio that is offered is taken and thrown away. At the end a ladder shows the messages.

  p2psip call sip:bob@example.com:5061
  p2psip call --duration 5 --transfer-to sip:carol@example.com:5062 sip:bob@example.com:5061

Exit code 0: it was answered, and transferred where asked for. 1: it was refused.
"""


def add_parser(commands: Any) -> None:
    """Describe the command to argparse."""
    parser = common.add_command(
        commands, "call", run, "place a call", _DESCRIPTION, json="print one JSON object a line"
    )
    peer.add_arguments(parser, timeout=60.0, what="for connecting and until the call is answered")
    talk.add_arguments(parser)
    parser.add_argument(
        "--cancel-after", metavar="SECONDS", type=common.pause, help="take it back when it is not answered by then"
    )
    parser.add_argument(
        "--transfer-to", metavar="URI", type=common.address, help="have the peer call this address instead (REFER)"
    )


class _Call:
    """The call, from its beginning to its end; everything here runs in the main thread."""

    def __init__(self, args: argparse.Namespace, session: SignalingSession, media: Media, feed: Feed) -> None:
        self._args = args
        self._session = session
        self._media = media
        self._feed = feed
        # The duration is of a call that stays; one that is transferred ends by that.
        self._talk = talk.Talk(session, "", feed, None if args.transfer_to else args.duration)
        self._is_established = False
        self._is_taken_back = False
        self._is_transferring = False
        self.failure: BaseException | None = None

    def place(self) -> None:
        """Until it is over."""
        args = self._args
        with usage_errors():
            operation = self._session.begin_establish(
                self._media.offer(), args.header, answer=self._media.answer, timeout=args.timeout
            )
        self._feed.when_done(operation, self._established)
        if args.cancel_after is not None:
            self._feed.later(args.cancel_after, self._take_back)
        self._feed.run(lambda: self._is_established and self._talk.is_over and not self._is_transferring)

    def hang_up(self) -> None:
        """End it in whatever state it is, and tell what that brings."""
        if self._session.state is not SignalingState.IDLE:
            self._session.terminate()

    def _take_back(self) -> None:
        if not self._is_established:
            self._is_taken_back = True
            self._talk.tell("cancel", "nobody answers: the call is taken back")
            self._session.begin_terminate()

    def _established(self, error: BaseException | None) -> None:
        self._is_established = True
        if error is not None:
            self._talk.is_over = True
            self.failure = None if self._is_taken_back else error
            return
        description = self._session.remote_description
        text = description.text_body if description is not None else None
        self._talk.tell("answered", "answered", description=text)
        if self._args.transfer_to is not None:
            self._feed.later(self._args.duration or 0.0, self._transfer)

    def _transfer(self) -> None:
        if self._session.is_terminated:
            return
        self._is_transferring = True
        self._talk.tell("transfer", f"transfer to {self._args.transfer_to}", target=self._args.transfer_to)
        with usage_errors():
            operation = self._session.begin_transfer(self._args.transfer_to)
        self._feed.when_done(operation, self._transferred)

    def _transferred(self, error: BaseException | None) -> None:
        self._is_transferring = False
        self.failure = error
        if error is None:
            self._talk.tell("transferred", "the transfer has succeeded", target=self._args.transfer_to)
        else:
            self._talk.tell(
                "transfer failed",
                f"the transfer has failed: {exits.sentence(error)}",
                reason=exits.reason(error),
                error=exits.sentence(error),
            )
        self._session.begin_terminate()


def run(args: argparse.Namespace) -> ExitCode:
    """Call; hang up whatever happens; then draw."""
    feed = Feed(json=args.json)
    if args.transfer_to is not None:
        with usage_errors():
            RealTimeAddress(args.transfer_to)
    uri = RealTimeAddress(args.address).sip_uri if args.address.startswith("sip") else None
    media = Media(args.sdp, peer=uri.host.strip("[]") if uri is not None else "")
    record = None
    try:
        with peer.open_endpoint(args) as endpoint:
            record = Record(endpoint.connection_manager)
            with usage_errors():
                settings = SignalingSessionSettings(tls_target_name=args.tls_name)
                session = SignalingSession(endpoint, args.address, settings=settings)
            call = _Call(args, session, media, feed)
            try:
                call.place()
            finally:
                call.hang_up()
    finally:
        media.close()
        if record is not None:
            feed.drain()
            record.show(json=args.json)
    if call.failure is not None:
        raise call.failure
    if args.json:
        console.say_json({"event": "end", "address": args.address, "exit_code": int(ExitCode.OK)})
    return ExitCode.OK
