"""``p2psip certs``: make certificates for development, and show what a store holds and when it expires."""

from __future__ import annotations

import argparse
import datetime
from pathlib import Path
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from p2psip import CertificateStore, TlsFailureException
from p2psip.cli import authority, certificate, common, console, exits
from p2psip.cli.certificate import CertificateFacts
from p2psip.cli.exits import CommandError, ExitCode
from p2psip.net.trust import TrustAnchors

_DESCRIPTION = """\
Certificates for development, and what a certificate store holds.

  p2psip certs make                                  for this machine: localhost and its addresses
  p2psip certs make alice.example.com 192.0.2.7      for peers that dial these names
  p2psip certs show --within 30                      exit code 6 when one of ours expires within 30 days
"""

_MAKE = """\
Make a certificate with its key, and the development authority that issues it where the store has none yet. Peers that
use the same store trust each other; to other machines copy the authority's certificate into their folder trusted/.

Not for anything that matters: whoever can read the authority's key in the store can be anybody.
"""

_SHOW = """\
Show what the store holds: our certificates with their keys, the roots that peers are verified with, and when they
expire. Exit code 6 when there is none of ours, or one of ours has expired or does within --within days.
"""

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
_DAY = datetime.timedelta(days=1)


def add_parser(commands: Any) -> None:
    """Describe the command and its two actions to argparse."""
    parser = commands.add_parser(
        "certs",
        help="make development certificates, show what a store holds",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    common.needs_one_of(parser, "action")
    actions = parser.add_subparsers(title="actions", metavar="ACTION")
    make_parser = common.add_command(
        actions, "make", make, "make a certificate for development", _MAKE, json="print what was made as JSON"
    )
    make_parser.add_argument(
        "names",
        metavar="NAME",
        nargs="*",
        help=f"host names and IP addresses that it is for (default: {', '.join(LOCAL_NAMES)})",
    )
    make_parser.add_argument(
        "--days",
        type=common.days,
        default=authority.CERTIFICATE_DAYS,
        help="how long it is valid (default: %(default)s)",
    )
    make_parser.add_argument("--renew", action="store_true", help="make a new one even if the present one is valid")
    show_parser = common.add_command(
        actions, "show", show, "show what a store holds", _SHOW, json="print it as one JSON object"
    )
    show_parser.add_argument("--within", metavar="DAYS", type=common.count, default=0, help="see above (default: 0)")
    for each in (make_parser, show_parser):
        each.add_argument(
            "--store", metavar="FOLDER", help="the store (default: $P2PSIP_CERTIFICATE_STORE, else the user's)"
        )
        each.add_argument("--password-file", metavar="FILE", help="the password of its keys is the first line")


# ---------------------------------------------------------------------- make


def make(args: argparse.Namespace) -> ExitCode:
    """Make a certificate, unless a valid one is there."""
    store = Path(args.store) if args.store else CertificateStore.default().path
    names = args.names or LOCAL_NAMES
    try:
        issuer = authority.Authority.in_store(store)
        made = issuer.issue(names, days=args.days)
        present = None if args.renew else _present(store, args.password_file, made)
        replaced = None if present else _replaced(made.path_in(store), issuer.certificate)
        path = present.path if present else made.write(store, password=common.read_password(args.password_file))
    except ValueError as error:
        raise CommandError(str(error), ExitCode.USAGE) from error
    except OSError as error:
        raise CommandError(
            f"The store {store} cannot be written ({error.strerror or error}): choose another with --store.",
            ExitCode.CERTIFICATE,
        ) from error
    facts = present.facts if present else CertificateFacts.of(made.certificate)
    root = issuer.trust_in(store)
    if args.json:
        console.say_json(
            {
                "store": str(store),
                "made": present is None,
                "replaced": None if replaced is None else replaced.as_json(),
                "file": str(path),
                "authority": str(root),
                "certificate": facts.as_json(),
            }
        )
        return ExitCode.OK
    console.say(f"{'Already there' if present else 'Made'}: {path}")
    console.say("\n".join(console.table(facts.rows(certificate.now()))))
    if replaced is not None:
        console.say(f"It takes the place of the one for {', '.join(replaced.names)}.")
    console.say(f"Trusted by peers that have {root} in the folder trusted/ of their store.")
    if not args.store:
        console.say(f"Next:  {common.program()} listen")
    return ExitCode.OK


class _Present(NamedTuple):
    """A certificate of ours that is there already."""

    path: Path
    facts: CertificateFacts


def _present(store: Path, password_file: str | None, wanted: authority.Made) -> _Present | None:
    """A valid certificate with its key for exactly the names wanted, from the same authority."""
    names = CertificateFacts.of(wanted.certificate).names
    holdings = CertificateStore(store, password=common.read_password(password_file)).holdings()
    for stored in holdings.certificates:
        facts = CertificateFacts.of(stored.certificate)
        is_same = stored.certificate.issuer == wanted.certificate.issuer and facts.names == names
        if is_same and stored.has_key and facts.not_before <= certificate.now() < facts.not_after:
            return _Present(stored.path, facts)
    return None


def _replaced(path: Path, issuer: x509.Certificate) -> CertificateFacts | None:
    """What has to go from the file for the new certificate; None where the file does not exist.

    Raises:
        CommandError: It is not this authority's, and so not ours to throw away.
    """
    if not path.exists():
        return None
    try:
        present = x509.load_pem_x509_certificate(path.read_bytes())
        present.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise CommandError(
            f"{path} is there already and was not made by this development authority: move it away, "
            "or name another store with --store.",
            ExitCode.CERTIFICATE,
        ) from error
    return CertificateFacts.of(present)


# ---------------------------------------------------------------------- show


class _Held(NamedTuple):
    """One certificate of the store."""

    file: str
    facts: CertificateFacts
    has_key: bool


def show(args: argparse.Namespace) -> ExitCode:
    """List the store, and judge by what expires."""
    path = Path(args.store) if args.store else CertificateStore.default().path
    store = CertificateStore(path, password=common.read_password(args.password_file))
    if not path.is_dir():
        raise CommandError(
            f"There is no certificate store {path}: make one with `{common.how_to_make(args)}`, or name another with --store.",
            ExitCode.CERTIFICATE,
        )
    try:
        holdings = store.holdings()
        anchors = TrustAnchors.load(store.trusted)
    except TlsFailureException as error:
        raise CommandError(exits.sentence(error), ExitCode.CERTIFICATE, error.failure_reason.name) from error
    held = [
        _Held(stored.path.name, CertificateFacts.of(stored.certificate), stored.has_key)
        for stored in holdings.certificates
    ]
    trusted = [CertificateFacts.of(root) for root in anchors.certificates]
    complaint = _complaint(path, held, args.within, common.how_to_make(args))
    exit_code = ExitCode.CERTIFICATE if complaint else ExitCode.OK
    if args.json:
        console.say_json(
            {
                "store": str(path),
                "certificates": [{"file": each.file, "has_key": each.has_key, **each.facts.as_json()} for each in held],
                "trusted": [facts.as_json() for facts in trusted],
                "revocation_lists": len(anchors.crls),
                "problems": list(holdings.problems),
                "error": complaint or None,
                "exit_code": int(exit_code),
            }
        )
    else:
        _print_store(path, held, trusted, len(anchors.crls), holdings.problems)
    if complaint:
        console.complain(f"{args.prog}: {complaint}")
    return exit_code


def _complaint(path: Path, held: list[_Held], within: int, make: str) -> str:
    """What a monitoring script wants to know; empty when all is well."""
    ours = [each for each in held if each.has_key]
    if not ours:
        return f"The store {path} holds no certificate with its key: make one with `{make}`."
    moment = certificate.now()
    first = min(ours, key=lambda each: each.facts.not_after)
    if first.facts.not_after <= moment:
        return f"{first.file} ({first.facts.title}) expired on {first.facts.not_after:%Y-%m-%d}: renew it."
    if first.facts.not_after <= moment + within * _DAY:
        return f"{first.file} ({first.facts.title}) expires on {first.facts.not_after:%Y-%m-%d}: renew it."
    return ""


def _print_store(
    path: Path, held: list[_Held], trusted: list[CertificateFacts], lists: int, problems: tuple[str, ...]
) -> None:
    moment = certificate.now()
    console.say(f"{path}")
    for each in held:
        what = "ours" if each.has_key else "no key"
        console.say(f"\n{each.file}: {console.printable(each.facts.title)} ({what})")
        rows = [(name, console.printable(value)) for name, value in each.facts.rows(moment)]
        console.say("\n".join(console.table(rows)))
    console.say(
        "\nPeers are verified with:" if trusted else "\nPeers cannot be verified: the folder trusted/ is empty."
    )
    for facts in trusted:
        console.say(f"  {console.printable(facts.title)}, {facts.validity(moment)}")
    if lists:
        console.say(f"  and {lists} revocation list{'s' if lists > 1 else ''}")
    for problem in problems:
        console.say(f"\nCannot be used: {console.printable(problem)}")
