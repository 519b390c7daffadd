"""``p2psip resolve``: what the DNS says of a name, and in which order its servers would be tried."""

from __future__ import annotations

import argparse
from typing import Any

from p2psip.cli import common, console, names
from p2psip.cli.exits import ExitCode
from p2psip.cli.names import Names

_DESCRIPTION = """\
Follow a name as the library would (RFC 3263), and show what it finds: NAPTR and SRV records, addresses, and the
order in which they would be tried. Nothing is connected to; `p2psip check` does that.

  p2psip resolve example.com
  p2psip resolve --tcp 'sip:bob@example.com'
  p2psip resolve --nameserver 127.0.0.1:5353 example.com

Servers of one priority are drawn by their weights, so that their order may change from one time to the next.
"""


def add_parser(commands: Any) -> None:
    """Describe the command to argparse."""
    parser = common.add_command(
        commands, "resolve", run, "show where a name leads, and in which order", _DESCRIPTION, json="print JSON"
    )
    parser.add_argument("target", metavar="NAME|ADDRESS", type=names.target, help="a name, or a SIP address")
    parser.add_argument("--tcp", action="store_true", help="for an endpoint whose transport is TCP (default: TLS)")
    common.add_nameserver(parser)
    common.add_timeout(parser, 5.0, "for each question")


def run(args: argparse.Namespace) -> ExitCode:
    """Follow, and show."""
    wanted = names.wanted(args.target, tcp=args.tcp)
    found = names.follow(wanted, args.nameserver, args.timeout)
    if args.json:
        report = {"ok": bool(found.attempts), "host": wanted.host, "port": wanted.port, "transport": wanted.transport}
        console.say_json({**report, **found.as_json(), "advice": _advice(found) or None})
    else:
        rows = [("name", f"{wanted.host} over {wanted.transport}"), *found.rows()]
        console.say("\n".join(console.printable(line) for line in console.table(rows, indent="")))
    if found.attempts:
        return ExitCode.OK
    console.complain(f"{args.prog}: {console.printable(_advice(found))}")
    return ExitCode.CONNECTION


def _advice(found: Names) -> str:
    """One sentence where it leads nowhere, or not where it should."""
    host, transport = found.wanted.host, found.wanted.transport
    if not found.plan.places:
        return f"{host} says that it does not offer SIP over {transport}: try the other transport, or give a port."
    if found.attempts:
        return ""
    if found.plan.places[0].source is not None:
        return f"The DNS names servers for {host}, but none of them has an address: its SRV records have to be mended."
    return f"{host} has no address: see whether it is spelled right, and whether the DNS knows it."
