"""The arguments that several commands share, and what is made of them."""

from __future__ import annotations

import argparse
import getpass
import ipaddress
import math
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from p2psip.cli.console import complain, say
from p2psip.cli.exits import CommandError, ExitCode

Runner = Callable[[argparse.Namespace], ExitCode]

_OTHER_SCHEME = re.compile(r"(?i)[a-z][a-z0-9+.-]*://|(?:mailto|xmpp|im|pres|urn|callto|h323):(?!\d)")
_HOST_AND_PORT = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<host>[^\[\]:\s]+))(?::(?P<port>\d{1,5}))?")


def add_command(
    commands: Any, name: str, run: Runner, summary: str, description: str, *, json: str
) -> argparse.ArgumentParser:
    """A sub-command with what all of them have.

    Args:
        commands: What ``add_subparsers`` returned.
        json: What ``--json`` prints.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.set_defaults(run=run, prog=parser.prog)
    add_general(parser, json=json, of_command=True)
    return parser


def add_general(parser: argparse.ArgumentParser, *, json: str, of_command: bool = False) -> None:
    """What may stand before the command and after it.

    Args:
        json: What ``--json`` prints.
        of_command: What stood before the command counts where nothing stands after it.
    """
    unsaid = argparse.SUPPRESS if of_command else None
    parser.add_argument("--json", action="store_true", default=unsaid or False, help=json)
    parser.add_argument(
        "-v",
        "--verbose",
        action="count",
        default=unsaid or 0,
        help="show the wire trace on standard error; twice: the log as well",
    )


def needs_one_of(parser: argparse.ArgumentParser, kind: str) -> None:
    """Without a sub-command, show which there are."""

    def show_help(args: argparse.Namespace) -> ExitCode:
        if not args.json:
            say(parser.format_help())
        raise CommandError(f"The {kind} is missing; {parser.prog} --help lists what there is.", ExitCode.USAGE)

    parser.set_defaults(run=show_help, prog=parser.prog)


def add_timeout(parser: argparse.ArgumentParser, default: float, what: str) -> None:
    parser.add_argument(
        "--timeout", type=seconds, default=default, metavar="SECONDS", help=f"{what} (default: {default:g})"
    )


def add_nameserver(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--nameserver",
        metavar="ADDRESS[:PORT]",
        type=nameserver,
        action="append",
        help="ask this one instead of the system's; repeatable",
    )


# ---------------------------------------------------------------------- values of arguments


def seconds(text: str) -> float:
    """A finite number of seconds above 0."""
    value = _number(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


def pause(text: str) -> float:
    """A finite number of seconds, 0 included."""
    value = _number(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def count(text: str) -> int:
    """A whole number, 0 included."""
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def days(text: str) -> int:
    """A whole number of days, at least 1."""
    value = count(text)
    if not 1 <= value <= 36500:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days (1 to 36500)")
    return value


def port(text: str) -> int:
    """A port, 0 (any) included."""
    value = count(text)
    if value > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port (0 to 65535)")
    return value


def status_code(text: str) -> int:
    """A final status code."""
    value = count(text)
    if not 200 <= value <= 699:
        raise argparse.ArgumentTypeError(f"{text!r} is not a final status code (200 to 699)")
    return value


def host_and_port(text: str) -> tuple[str, int | None]:
    """``HOST``, ``HOST:PORT``, an IPv6 address, or ``[IPV6]:PORT``."""
    if is_ip_address(text):
        return text, None
    match = _HOST_AND_PORT.fullmatch(text)
    number = None if match is None or match["port"] is None else int(match["port"])
    if match is None or (number is not None and not 1 <= number <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST or HOST:PORT")
    return match["ipv6"] or match["host"], number


def peer_host(text: str) -> tuple[str, int | None]:
    """The same, also out of a SIP address: ``sip:bob@HOST:PORT``."""
    try:
        return host_and_port(re.sub(r"(?i)^(sips?:)?(?:[^@]*@)?([^;?]*).*", r"\2", text))
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST or HOST:PORT") from None


def nameserver(text: str) -> tuple[str, int]:
    """The address of a nameserver, and its port, which is 53 as a rule."""
    host, number = host_and_port(text)
    return ip_address(host), number or 53


def ip_address(text: str) -> str:
    """An IP address."""
    if not is_ip_address(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not an IP address")
    return text


def header(text: str) -> tuple[str, str]:
    """``Name: value``."""
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is not a header such as 'Subject: lunch'")
    return name.strip(), value.strip()


def address(text: str) -> str:
    """A SIP address; ``sip:`` may be left out."""
    if not text or _OTHER_SCHEME.match(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a SIP address such as sip:bob@example.com")
    return text if re.match(r"(?i)(sip|sips|tel):", text) else f"sip:{text}"


# ---------------------------------------------------------------------- what is read


def read_password(path: str | None) -> str | None:
    """The first line of the file; None without a file."""
    if path is None:
        return None
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise CommandError(f"The password file {path} cannot be read: {error}.", ExitCode.CERTIFICATE) from error
    return lines[0] if lines else ""


def read_text(text: str | None) -> str | bytes:
    """The text given, or all of standard input as it comes when it is None or ``-``.

    Where the locale cannot read what was typed, the octets are taken as they came.
    """
    if text is not None and text != "-":
        return _octets_where_unreadable(text)
    if sys.stdin is None:
        raise CommandError("There is no text to send: give it as an argument.", ExitCode.USAGE)
    if sys.stdin.isatty():
        end = "Ctrl-Z and Enter" if sys.platform == "win32" else "Ctrl-D"
        complain(f"Type the message; {end} on a line of its own sends it, Ctrl-C does not.")
    return sys.stdin.buffer.read()


def _octets_where_unreadable(text: str) -> str | bytes:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return os.fsencode(text)
    return text


def program() -> str:
    """How this command was called, for hints that can be copied: ``p2psip`` where that is found."""
    called = Path(sys.argv[0])
    if called.stem != "p2psip":
        return f"{Path(sys.executable).name} -m p2psip"
    found = shutil.which("p2psip")
    if found is not None and Path(found).resolve() == called.resolve():
        return "p2psip"
    return os.path.relpath(called) if called.is_relative_to(Path.cwd()) else str(called)


def how_to_make(args: argparse.Namespace) -> str:
    """The command that makes a certificate in the store that the arguments name."""
    return f"{program()} certs make" + (f" --store {args.store}" if args.store else "")


def for_shell(command: str) -> str:
    """A command with words in single quotes, as the usual shell of this system wants it: that of Windows keeps them."""
    return command.replace("'", '"') if sys.platform == "win32" else command


def user_name() -> str:
    """The name of whoever runs the command, as the user part of an address."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError, ImportError):
        name = ""
    return name if re.fullmatch(r"[A-Za-z0-9._-]+", name) else "p2psip"


def is_ip_address(host: str) -> bool:
    """An address rather than a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
