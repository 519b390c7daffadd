"""``p2psip options``: is the peer there, and how long does it take to answer?"""

from __future__ import annotations

import argparse
import threading
from typing import Any

from p2psip import MessageType, RealTimeException
from p2psip.cli import common, console, exits, peer, wire
from p2psip.cli.exits import ExitCode

_DESCRIPTION = """\
Send OPTIONS requests (RFC 3261 11) one after the other, and measure the round trips.
The first one includes connecting; the others use the same connection.

  p2psip options example.com
  p2psip options --count 1 --timeout 3 --json sip:bob@example.com    in a monitoring script

Exit code 0: all were answered 2xx. 1: some were not. Where none was answered, the code of the last failure.
"""


def add_parser(commands: Any) -> None:
    """Describe the command to argparse."""
    parser = common.add_command(
        commands, "options", run, "ping a peer with OPTIONS", _DESCRIPTION, json="print one JSON object a line"
    )
    peer.add_arguments(parser)
    parser.add_argument(
        "-c", "--count", metavar="N", type=common.count, default=4, help="how many; 0 until Ctrl-C (default: 4)"
    )
    parser.add_argument(
        "-i", "--interval", metavar="SECONDS", type=common.pause, default=1.0, help="between two (default: 1)"
    )


class Pings:
    """What came back so far."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.sent = 0
        self.refused = 0
        self.times: list[float] = []
        self.last_failure: RealTimeException | None = None
        self.last_refusal = ""
        self.why = ""

    @property
    def loss(self) -> float:
        """Per cent of the requests that got no final answer at all."""
        return 100.0 * (self.sent - len(self.times)) / self.sent if self.sent else 0.0

    @property
    def exit_code(self) -> ExitCode:
        """What the command returns."""
        if not self.times and self.last_failure is not None:
            return exits.exit_code(self.last_failure)
        return ExitCode.REFUSED if self.refused or len(self.times) < self.sent else ExitCode.OK

    @property
    def complaint(self) -> str:
        """One sentence about what went wrong; empty when nothing did."""
        if not self.times and self.last_failure is not None:
            return exits.sentence(self.last_failure)
        if self.last_failure is not None:
            lost = f"{self.sent - len(self.times)} of {self.sent} requests to {self.address} were lost"
            return f"{lost}; the last: {exits.sentence(self.last_failure)}"
        if self.refused:
            return f"{self.address} answered {self.last_refusal} to {self.refused} of {self.sent} requests{self.why}."
        return ""

    def summary(self) -> dict[str, Any]:
        """For scripts; times in milliseconds."""
        times = [1000 * value for value in self.times]
        figures = None
        if times:
            figures = {"min": min(times), "avg": sum(times) / len(times), "max": max(times)}
            figures = {name: round(value, 3) for name, value in figures.items()}
        return {
            "event": "summary",
            "address": self.address,
            "sent": self.sent,
            "answered": len(self.times),
            "refused": self.refused,
            "loss_percent": round(self.loss, 1),
            "rtt_ms": figures,
            "exit_code": int(self.exit_code),
            "reason": None if self.last_failure is None else exits.reason(self.last_failure),
            "error": self.complaint or None,
        }

    def lines(self) -> list[str]:
        """For people."""
        lines = [f"{self.sent} sent, {len(self.times)} answered, {self.loss:g}% lost"]
        if self.times:
            low, high = min(self.times), max(self.times)
            average = sum(self.times) / len(self.times)
            figures = " / ".join(console.milliseconds(value) for value in (low, average, high))
            lines.append(f"round trip min/avg/max: {figures}")
        return lines


def run(args: argparse.Namespace) -> ExitCode:
    """Ping until the count is reached, then sum up; Ctrl-C sums up as well."""
    pings = Pings(args.address)
    with peer.open_peer(args) as there:
        try:
            _ping_all(there, args, pings)
        finally:
            if pings.sent and args.json:
                console.say_json(pings.summary())
            elif pings.sent:
                console.say("\n".join(pings.lines()))
    if pings.complaint:
        console.complain(f"{args.prog}: {console.printable(pings.complaint)}")
    return pings.exit_code


def _ping_all(there: peer.Peer, args: argparse.Namespace, pings: Pings) -> None:
    pause = threading.Event()
    while not args.count or pings.sent < args.count:
        if pings.sent:
            pause.wait(args.interval)
        _ping(there, args, pings)


def _ping(there: peer.Peer, args: argparse.Namespace, pings: Pings) -> None:
    number = pings.sent + 1
    try:
        answer = there.request(MessageType.OPTIONS)
    except RealTimeException as error:
        pings.sent = number
        pings.last_failure = error
        if args.json:
            console.say_json(
                {"event": "lost", "number": number, "reason": exits.reason(error), "error": exits.sentence(error)}
            )
        else:
            console.say(f"{number}: no answer: {console.printable(exits.sentence(error))}")
        return
    pings.sent = number
    pings.times.append(answer.seconds)
    code = answer.response.response_code
    if code >= 300:
        pings.refused += 1
        pings.last_refusal = answer.status
        pings.why = f"; {answer.refusal.rstrip('.')}" if answer.refusal else ""
    connection = answer.connection
    if args.json:
        console.say_json(
            {
                "event": "answer",
                "number": number,
                "status": code,
                "rtt_ms": round(1000 * answer.seconds, 3),
                "connection": None if connection is None else wire.as_json(connection),
            }
        )
    else:
        via = f" from {wire.describe(connection)}" if number == 1 and connection is not None else ""
        console.say(f"{number}: {console.printable(answer.status)}{via}, {console.milliseconds(answer.seconds)}")
