"""User name and password for proxies and peers that ask for them (RFC 3261 22)."""

from __future__ import annotations

import argparse
import getpass
import os
import warnings
from pathlib import Path

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


def add_demand(parser: argparse.ArgumentParser) -> None:
    """Whom to let in by a password."""
    group = parser.add_argument_group(
        "passwords", "Demand digest authentication of peers that have shown no certificate (see --any-client, --tcp)."
    )
    group.add_argument("--users", metavar="FILE", help="who is let in: a line NAME:PASSWORD for each; # for comments")
    group.add_argument("--realm", metavar="REALM", help="with --users: what is demanded for (default: our host)")


def demand(args: argparse.Namespace, endpoint: RealTimeEndpoint) -> None:
    """Let the endpoint ask for passwords, if the options say so.

    Raises:
        CommandError: The file cannot be read, or an option is wrong.
    """
    if args.users is None:
        if args.realm is not None:
            raise CommandError("--realm belongs to --users: give that as well.", ExitCode.USAGE)
        return
    try:
        text = Path(args.users).read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise CommandError(f"The file of users {args.users} cannot be read: {error}.", ExitCode.USAGE) from error
    users = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, password = line.partition(":")
        if not colon or not name or not password:
            raise CommandError(f"Line {number} of {args.users} is not NAME:PASSWORD.", ExitCode.USAGE)
        users[name] = password
    with usage_errors():
        endpoint.require_digest(args.realm or endpoint.default_domain, users)


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
