"""User name and password for proxies and peers that ask for them (RFC 3261 22)."""

from __future__ import annotations

import argparse
import getpass
import os
import warnings

from p2psip import RealTimeEndpoint
from p2psip.cli.exits import CommandError, ExitCode, usage_errors

VARIABLE = "P2PSIP_PASSWORD"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Who we are to those who ask."""
    group = parser.add_argument_group(
        "login",
        f"For a proxy or peer that demands digest authentication. The password comes from ${VARIABLE}, else it is asked "
        "for; it is sent to nobody, but in any realm, unless --realm names one, a digest of it.",
    )
    group.add_argument("--user", metavar="NAME", help="the user name there")
    group.add_argument("--realm", metavar="REALM", help="with --user: log in to this realm only")
    group.add_argument(
        "--allow-md5", action="store_true", help="with --user: also where nothing better than MD5 is offered"
    )


def read_password(user: str) -> str:
    """From the environment, else from the terminal.

    Raises:
        CommandError: There is none.
    """
    password = os.environ.get(VARIABLE)
    if password:
        return password
    try:
        with warnings.catch_warnings():
            # Without a terminal getpass would read, and show, what is to be sent.
            warnings.simplefilter("error", getpass.GetPassWarning)
            return getpass.getpass(f"Password of {user}: ")
    except (getpass.GetPassWarning, EOFError, OSError) as error:
        raise CommandError(
            f"The password of {user} is missing, and there is no terminal to ask for it: set {VARIABLE}.",
            ExitCode.USAGE,
        ) from error


def log_in(args: argparse.Namespace, endpoint: RealTimeEndpoint) -> None:
    """Let the endpoint answer challenges, if the options say with what.

    Raises:
        CommandError: An option is wrong or alone, or there is no password.
    """
    if args.user is None:
        if args.realm is not None or args.allow_md5:
            raise CommandError("--realm and --allow-md5 belong to --user: give that as well.", ExitCode.USAGE)
        return
    with usage_errors():
        endpoint.credentials.add(args.realm, args.user, read_password(args.user), allow_md5=args.allow_md5)
