"""From the words on the command line to a sub-command and its exit code."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import io
import logging
import re
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import NoReturn

from p2psip._version import __version__
from p2psip.cli import (
    answer,
    call,
    certs,
    check,
    common,
    console,
    demo,
    exits,
    listen,
    options,
    resolve,
    send,
    subscribe,
)
from p2psip.cli.exits import ExitCode

COMMANDS = (demo, listen, send, options, call, answer, subscribe, certs, resolve, check)

_EPILOG = """\
p2psip COMMAND --help tells more about a command.

exit codes:
{codes}

environment:
  P2PSIP_CERTIFICATE_STORE  the folder with certificates and keys; --store comes first
  P2PSIP_PASSWORD           the password of --user; without it the terminal is asked
"""


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaint is one sentence."""

    def error(self, message: str) -> NoReturn:
        self.exit(ExitCode.USAGE, _complaint(self.prog, _unknown_word(message) or message))


def _complaint(prog: str, message: str) -> str:
    sentence = message[:1].upper() + message[1:].rstrip(".")
    return f"{prog}: {sentence}; see {prog} --help.\n"


def _unknown_word(message: str) -> str | None:
    """What argparse says of a command that does not exist, in plain words and with the one that may be meant."""
    match = re.fullmatch(r"argument (COMMAND|ACTION): invalid choice: '(.*)' \(choose from (.*)\)", message, re.DOTALL)
    if match is None:
        return None
    kind, word, choices = match[1].lower(), console.printable(match[2]), re.findall(r"\w+", match[3])
    near = difflib.get_close_matches(word.lower(), choices, n=1)
    hint = f"perhaps {near[0]!r} was meant" if near else f"only {', '.join(choices[:-1])} and {choices[-1]}"
    return f"there is no {kind} {word!r}, {hint}"


def parser() -> argparse.ArgumentParser:
    """What the command line may say."""
    codes = "\n".join(f"  {code.value:>3}  {meaning}" for code, meaning in exits.MEANINGS.items())
    result = Parser(
        prog="p2psip",
        description="SIP from peer to peer, over mutual TLS: watch it, try it, and find out why it does not work.",
        epilog=_EPILOG.format(codes=codes),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("--version", action="version", version=f"p2psip {__version__}")
    common.add_general(result, json="print what a script can read")
    common.needs_one_of(result, "command")
    commands = result.add_subparsers(title="commands", metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(commands)
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; every expected failure is one sentence on standard error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # they are for those who write programs
    try:
        args = _parse(argv)
        logging.basicConfig(
            stream=sys.stderr,
            format="p2psip: %(levelname)s: %(message)s",
            level=logging.DEBUG if args.verbose > 1 else logging.WARNING if args.verbose else logging.CRITICAL + 1,
        )
        return int(_run(args))
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        console.forget_output()
        return ExitCode.BROKEN_PIPE


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """argparse leaves an optional last word over when options stand before it: `send ADDRESS --tcp TEXT`."""
    words = parser()
    args, left = words.parse_known_args(argv)
    late = getattr(args, "last_word", None)
    if late is not None and len(left) == 1 and getattr(args, late) is None and not left[0].startswith("--"):
        setattr(args, late, left.pop())
    if late is not None and left and not any(word.startswith("-") for word in left):
        words.exit(ExitCode.USAGE, _complaint(args.prog, "the text is one argument: put it in quotes"))
    if left:
        unknown = console.printable(" ".join(left))
        words.exit(ExitCode.USAGE, _complaint(args.prog, f"unrecognized arguments: {unknown}"))
    return args


def _run(args: argparse.Namespace) -> ExitCode:
    try:
        code: ExitCode = args.run(args)
        return code
    except BrokenPipeError:
        raise
    except Exception as error:
        code = exits.exit_code(error)
        if code is ExitCode.INTERNAL:
            traceback.print_exc()
        sentence = exits.sentence(error)
        if args.json:
            with contextlib.suppress(exits.CommandError):  # the failure may be that nothing can be written
                console.say_json({"error": sentence, "reason": exits.reason(error), "exit_code": int(code)})
        console.complain(f"{args.prog}: {console.printable(sentence)}")
        return code
