"""Who we are and whom we trust: the certificate options, and the connection manager that they make."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from p2psip import (
    CertificateStore,
    ManagerSettings,
    RealTimeServerConnectionManager,
    RealTimeServerTcpConnectionManager,
    RealTimeServerTlsConnectionManager,
    TlsFailureException,
)
from p2psip.cli import authority, certificate, common, exits, wire
from p2psip.cli.certificate import CertificateFacts
from p2psip.cli.exits import CommandError, ExitCode, usage_errors


def add_arguments(parser: argparse.ArgumentParser, *, connects: bool, tcp: bool = True) -> None:
    """The certificate options.

    Args:
        connects: The command opens connections, so a peer can be expected by another name.
        tcp: The command works without TLS as well.
    """
    wire.add_files(parser)
    group = parser.add_argument_group("certificates", "By default the only certificate of the store is ours.")
    group.add_argument(
        "--store", metavar="FOLDER", help="certificates and keys (default: $P2PSIP_CERTIFICATE_STORE, else the user's)"
    )
    group.add_argument("--issuer", metavar="NAME", help="with --serial: take this certificate of the store")
    group.add_argument("--serial", metavar="HEX", help="with --issuer: take this certificate of the store")
    group.add_argument("--certificate", metavar="FILE", help="PEM or PKCS#12 file, instead of a store")
    group.add_argument("--key", metavar="FILE", help="private key, when it is not in the file of --certificate")
    group.add_argument("--password-file", metavar="FILE", help="the password of the key is its first line")
    group.add_argument(
        "--trusted",
        metavar="PATH",
        action="append",
        help="file or folder of roots to trust, or 'system' (default: the folder trusted/ of the store); repeatable",
    )
    if connects:
        group.add_argument("--tls-name", metavar="NAME", help="the name that the peer's certificate has to bear")
    if tcp:
        group.add_argument("--tcp", action="store_true", help="no TLS: not encrypted, nobody proves who they are")


def open_store(args: argparse.Namespace) -> CertificateStore:
    """The store that the options name, else the default one."""
    path = args.store or CertificateStore.default().path
    return CertificateStore(path, password=common.read_password(args.password_file))


def open_manager(
    args: argparse.Namespace, *, tcp: bool, need_mutual_tls: bool = True
) -> RealTimeServerConnectionManager:
    """A connection manager as the options ask for; dispose it.

    Raises:
        CommandError: A certificate, key or store cannot be used, or there is none.
    """
    if tcp:
        return _traced(args, RealTimeServerTcpConnectionManager(settings=_settings(args), resolver=_names(args)))
    _check_choice(args)
    store = open_store(args)
    with local_errors():
        if args.certificate is not None:
            return _from_file(args, store, Path(args.certificate), need_mutual_tls=need_mutual_tls)
        issuer, serial = (args.issuer, args.serial) if args.issuer is not None else _only(args, store)
        with usage_errors():
            manager = RealTimeServerTlsConnectionManager(
                issuer,
                serial,
                certificate_store=store,
                trusted_roots=trusted_roots(args, store),
                need_mutual_tls=need_mutual_tls,
                settings=_settings(args),
                resolver=_names(args),
            )
    return _traced(args, manager)


@contextlib.contextmanager
def open_manager_or_stranger(args: argparse.Namespace) -> Iterator[tuple[RealTimeServerConnectionManager, bool]]:
    """A TLS manager, and whether it is a stranger's: one whose certificate was made up, because we have none.

    A peer that asks for no certificate never sees it, and one that does refuses it as it would refuse to see none.
    """
    with contextlib.ExitStack() as ends:
        try:
            manager, is_stranger = open_manager(args, tcp=False), False
        except _NoCertificate:
            folder = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="p2psip-check-")))
            with local_errors():
                made_up = authority.Authority.create().issue(["stranger.invalid"]).write(folder)
                manager = _from_file(args, open_store(args), made_up, need_mutual_tls=False)
            is_stranger = True
        yield ends.enter_context(manager), is_stranger


def _check_choice(args: argparse.Namespace) -> None:
    """What is named has to be used, and to be there."""
    if (args.issuer is None) != (args.serial is None):
        raise CommandError("--issuer and --serial belong together: give both or neither.", ExitCode.USAGE)
    if args.key is not None and args.certificate is None:
        raise CommandError("--key goes with --certificate: name the certificate's file as well.", ExitCode.USAGE)
    if args.issuer is not None and args.certificate is not None:
        raise CommandError(
            "--issuer chooses from a store, --certificate goes without: give one of them.", ExitCode.USAGE
        )
    for path in args.trusted or ():
        if path != "system" and not (path and Path(path).exists()):
            raise CommandError(
                f"There is no file or folder {path!r} with roots to trust (--trusted).", ExitCode.CERTIFICATE
            )


def trusted_roots(args: argparse.Namespace, store: CertificateStore) -> Any:
    """What peers are verified with: --trusted, else the store's folder."""
    return list(args.trusted) if args.trusted else store.trusted


def default_owner(manager: RealTimeServerConnectionManager) -> str:
    """The user at the host that the manager is known by."""
    host = manager.local_host
    return f"sip:{common.user_name()}@" + (f"[{host}]" if ":" in host else host)


class _NoCertificate(CommandError):
    """Nothing is configured, and the store has nothing to choose from."""


def _only(args: argparse.Namespace, store: CertificateStore) -> tuple[str, int]:
    """Issuer and serial number of the only certificate that we could show."""
    stored = store.holdings().certificates if store.path.is_dir() else ()
    moment = certificate.now()
    ours = [
        each.certificate for each in stored if each.has_key and not CertificateFacts.of(each.certificate).is_authority
    ]
    usable = [one for one in ours if one.not_valid_after_utc > moment]
    if len(usable) == 1:
        return usable[0].issuer.rfc4514_string(), usable[0].serial_number
    if usable:
        shown = "; ".join(f"--issuer '{c.issuer.rfc4514_string()}' --serial {c.serial_number:x}" for c in usable[:5])
        raise CommandError(
            f"The store {store.path} holds {len(usable)} certificates that could be ours: choose one with {shown}.",
            ExitCode.CERTIFICATE,
        )
    make = common.how_to_make(args)
    if ours:
        last = max(ours, key=lambda one: one.not_valid_after_utc)
        raise CommandError(
            f"The certificate {last.subject.rfc4514_string()} in {store.path} expired on "
            f"{last.not_valid_after_utc:%Y-%m-%d}: renew it, or make another with `{make}`.",
            ExitCode.CERTIFICATE,
            "CERTIFICATE_EXPIRED",
        )
    raise _NoCertificate(
        f"There is no certificate to show to peers in {store.path}: make one with `{make}`, name one with "
        "--certificate, or do without encryption with --tcp.",
        ExitCode.CERTIFICATE,
        "LOCAL_CERTIFICATE_NOT_FOUND",
    )


def _from_file(
    args: argparse.Namespace, store: CertificateStore, path: Path, *, need_mutual_tls: bool
) -> RealTimeServerConnectionManager:
    manager = RealTimeServerTlsConnectionManager.from_files(
        path,
        args.key,
        password=common.read_password(args.password_file),
        trusted_roots=trusted_roots(args, store),
        need_mutual_tls=need_mutual_tls,
        settings=_settings(args),
        resolver=_names(args),
    )
    return _traced(args, manager)


def _settings(args: argparse.Namespace) -> ManagerSettings:
    """A peer that takes the connection and then says nothing is a time-out of the command, however long that is."""
    defaults = ManagerSettings()
    timeout: float = getattr(args, "timeout", 0.0)
    return dataclasses.replace(defaults, handshake_timeout=max(defaults.handshake_timeout, timeout + 1.0))


def _names(args: argparse.Namespace) -> dict[str, Any] | None:
    """Whom to ask for names, where the command may say so."""
    servers = getattr(args, "nameserver", None)
    return {".": servers} if servers else None


def _traced(args: argparse.Namespace, manager: RealTimeServerConnectionManager) -> RealTimeServerConnectionManager:
    if args.verbose:
        wire.show_trace(manager)
    try:
        wire.write_files(args, manager)
    except BaseException:
        manager.dispose()
        raise
    return manager


@contextlib.contextmanager
def local_errors() -> Iterator[None]:
    """Whatever fails before anything is connected is about our own certificate, whatever its reason."""
    try:
        yield
    except TlsFailureException as error:
        raise CommandError(exits.sentence(error), ExitCode.CERTIFICATE, error.failure_reason.name) from error
