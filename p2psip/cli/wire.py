"""The wire trace of ``--verbose``, every message as it travels and each connection the first time it is seen; and files."""

from __future__ import annotations

import argparse
import datetime

from p2psip import RealTimeConnection, RealTimeConnectionManager, TraceEventArgs
from p2psip.cli import console
from p2psip.cli.exits import CommandError, ExitCode


def add_files(parser: argparse.ArgumentParser) -> None:
    """Where else what goes over the wire may be written."""
    group = parser.add_argument_group("files")
    group.add_argument("--trace", metavar="FILE", help="add the wire trace to this file; secrets are masked")
    group.add_argument(
        "--pcapng",
        metavar="FILE",
        help="write packets with the keys of TLS, for Wireshark: whoever has the file reads everything",
    )


def write_files(args: argparse.Namespace, manager: RealTimeConnectionManager) -> None:
    """From now on, write what the manager sends and receives where the options say; until the manager's end."""
    for path, record in ((args.trace, manager.trace_to), (args.pcapng, manager.capture_to)):
        if path is not None:
            try:
                record(path)
            except OSError as error:
                raise CommandError(f"The file {path} cannot be written: {error.strerror}.", ExitCode.FAILED) from error


def show_trace(manager: RealTimeConnectionManager) -> None:
    """From now on, write what the manager sends and receives to standard error."""
    seen: set[int] = set()

    def traced(sender: RealTimeConnectionManager, args: TraceEventArgs) -> None:
        connection = args.connection
        lines = []
        if connection.id not in seen:
            seen.add(connection.id)
            lines.append(f"*** {'from' if connection.is_incoming else 'to'} {describe(connection)}")
        when = datetime.datetime.fromtimestamp(args.time).strftime("%H:%M:%S.%f")[:-3]
        arrow = "-->" if args.direction == "sent" else "<--"
        lines.append(f"{arrow} {when} {args.direction}, {len(args.data)} bytes, connection {connection.id}")
        lines += [f"    {line}".rstrip() for line in console.printable(args.data, lines=True).split("\n")]
        console.complain("\n".join(lines))

    manager.trace += traced


def describe(connection: RealTimeConnection) -> str:
    """Who is at the other end, and how far that is proved."""
    where = console.endpoint(connection.remote_endpoint)
    if connection.tls_version is None:
        return f"{where} over {connection.transport.name}, not encrypted"
    names = ", ".join(connection.remote_identities)
    proof = f"certificate of {names}" if names else "without a certificate"
    return f"{where} over {connection.tls_version}, {connection.cipher}, {proof}"


def as_json(connection: RealTimeConnection) -> dict[str, object]:
    """The same for scripts."""
    return {
        "remote": console.endpoint(connection.remote_endpoint),
        "local": console.endpoint(connection.local_endpoint),
        "transport": connection.transport.name,
        "incoming": connection.is_incoming,
        "tls_version": connection.tls_version,
        "cipher": connection.cipher,
        "identities": list(connection.remote_identities),
    }
