"""``p2psip send``: one MESSAGE, its text from the command line or from standard input."""

from __future__ import annotations

import argparse
from typing import Any

from p2psip import MessageType
from p2psip.cli import common, console, peer, wire
from p2psip.cli.exits import ExitCode

_DESCRIPTION = """\
Send a message (RFC 3428) and wait for the answer.

  p2psip send sip:bob@example.com 'Lunch at noon?'
  uptime | p2psip send sip:operator@example.com
"""


def add_parser(commands: Any) -> None:
    """Describe the command to argparse."""
    parser = common.add_command(commands, "send", run, "send a message", _DESCRIPTION, json="print the answer as JSON")
    peer.add_arguments(parser)
    parser.set_defaults(last_word="text")
    parser.add_argument("text", metavar="TEXT", nargs="?", help="what to send; - or nothing reads standard input")
    parser.add_argument(
        "--content-type",
        metavar="TYPE",
        help="what it is (default: text/plain;charset=utf-8; application/octet-stream where it is no such text)",
    )


def run(args: argparse.Namespace) -> ExitCode:
    """Send, and say what came back."""
    with peer.open_peer(args) as there:
        text = common.read_text(args.text)
        answer = there.request(MessageType.MESSAGE, args.content_type or _content_type(text), text)
    # The manager is gone, and with that the wire trace is complete.
    connection = answer.connection
    code = answer.response.response_code
    exit_code = ExitCode.OK if code < 300 else ExitCode.REFUSED
    if args.json:
        console.say_json(
            {
                "address": args.address,
                "status": code,
                "reason_phrase": answer.response.response_text,
                "seconds": round(answer.seconds, 6),
                "body": answer.response.text_body or None,
                "connection": None if connection is None else wire.as_json(connection),
                "exit_code": int(exit_code),
            }
        )
    elif exit_code is ExitCode.OK:
        via = "" if connection is None else f" from {wire.describe(connection)}"
        console.say(f"{console.printable(answer.status)}{via}, in {console.milliseconds(answer.seconds)}")
    if exit_code is not ExitCode.OK:
        complaint = answer.refusal or f"{args.address} answered {answer.status}."
        console.complain(f"{args.prog}: {console.printable(complaint)}")
    return exit_code


def _content_type(text: str | bytes) -> str | None:
    """None is the library's own: text in UTF-8."""
    try:
        if isinstance(text, bytes):
            text.decode("utf-8")
    except UnicodeDecodeError:
        return "application/octet-stream"
    return None
