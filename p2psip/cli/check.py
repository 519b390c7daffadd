"""``p2psip check``: connect to a peer, explain what TLS says, and what would make it work."""

from __future__ import annotations

import argparse
import dataclasses
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from p2psip import (
    FailureResponseException,
    MessageType,
    RealTimeConnection,
    RealTimeException,
    RealTimeServerConnectionManager,
    SendMessageOptions,
    SipPeerToPeerEndpoint,
    SipResponseData,
    TlsFailureException,
    TlsFailureReason,
)
from p2psip.cli import certificate, common, console, exits, identity, names
from p2psip.cli.advice import advise
from p2psip.cli.certificate import CertificateFacts
from p2psip.cli.exits import ExitCode, usage_errors
from p2psip.cli.look import View, look
from p2psip.cli.names import Names
from p2psip.net.selection import Place, Wanted

_DESCRIPTION = """\
Connect to a peer over TLS as the library would, ask it something (OPTIONS), and explain the result: which
certificates it shows, for which names and until when, version and cipher, and what would make it work.

  p2psip check example.com
  p2psip check --tls-name example.com 192.0.2.7:5061
  p2psip check --trusted system sip.example.com

Without a port the DNS says which servers the name has, and each of their addresses is looked at; the verdict is that of
the one which the library takes. `p2psip resolve` shows what the DNS says. Works without a certificate of our own; then it tells whether the peer demands one.
"""

_ABOUT_ITS_CERTIFICATE = frozenset(
    {
        TlsFailureReason.UNTRUSTED_REMOTE_CERTIFICATE,
        TlsFailureReason.INCORRECT_NAME_IN_REMOTE_CERTIFICATE,
        TlsFailureReason.CERTIFICATE_EXPIRED,
        TlsFailureReason.REMOTE_CERTIFICATE_REVOKED,
        TlsFailureReason.REMOTE_CERTIFICATE_INVALID_USAGE,
    }
)


@dataclasses.dataclass
class Report:
    """What came out of it.

    Attributes:
        host: Whom to reach.
        port: Where; None where the DNS says it.
        expected: The name that the peer's certificate has to bear.
        status: The answer to OPTIONS, or None.
        error: Why there is none.
        version: The version of TLS, where the library took the peer.
        cipher: OpenSSL's name of the cipher suite, likewise.
        shown: The peer's certificate (DER), where the library saw one.
        address: Where the peer was reached.
        names: What the DNS says, and the addresses.
        views: What each of these addresses shows to anybody; empty where nothing was looked at.
        chain: What is known of its certificates.
        advice: What would make it work.
    """

    host: str
    port: int | None
    expected: str
    names: Names
    status: str | None = None
    error: RealTimeException | None = None
    version: str | None = None
    cipher: str | None = None
    shown: tuple[bytes, ...] = ()
    address: tuple[str, int] | None = None
    views: list[View] = dataclasses.field(default_factory=list)
    chain: list[CertificateFacts] = dataclasses.field(default_factory=list)
    advice: str = ""

    @property
    def view(self) -> View:
        """Of the address that the library took, else of the first one that is there."""
        there = [view for view in self.views if view.address is not None]
        taken = [view for view in there if view.address == self.address]
        return (taken or there or [View()])[0]

    @property
    def server_name(self) -> str | None:
        """What is asked for in the handshake; addresses are not."""
        return None if common.is_ip_address(self.expected) else self.expected

    @property
    def reason(self) -> str:
        """One word for scripts."""
        return "OK" if self.error is None else exits.reason(self.error)

    @property
    def exit_code(self) -> ExitCode:
        """What the command returns."""
        return ExitCode.OK if self.error is None else exits.exit_code(self.error)

    def answered(self, response: SipResponseData) -> None:
        """The peer speaks SIP."""
        self.status = f"{response.response_code} {response.response_text}".rstrip()

    def connected(self, connection: RealTimeConnection) -> None:
        """The library has a connection to the peer."""
        self.version, self.cipher = connection.tls_version, connection.cipher
        self.address = connection.remote_endpoint
        if connection.remote_certificate is not None:
            self.shown = (connection.remote_certificate,)

    def lines(self) -> list[str]:
        """For people."""
        now = certificate.now()
        address = self.address or self.view.address
        at = f" at {console.endpoint(address)}" if address else ""
        where = self.host if self.port is None else console.endpoint((self.host, self.port))
        rows = [("peer", where + at)]
        if len(self.names.attempts) > 1:
            rows += [("  address", line) for line in self._addresses()]
        version, cipher = self.version or self.view.version, self.cipher or self.view.cipher
        if version is not None:
            rows.append(("TLS", f"{version}, {cipher}"))
        for number, facts in enumerate(self.chain, 1):
            rows.append((f"certificate {number}", facts.title))
            details = facts.rows(now) if number == 1 else facts.rows(now)[1:3]
            rows += [(f"  {name}", value) for name, value in details]
        if self.error is None:
            rows.append(("identity", f"proved to be {self.expected}"))
            rows.append(("SIP", f"{self.status} to OPTIONS"))
            rows.append(("result", "OK"))
        else:
            rows.append(("result", f"failed: {self.reason}"))
            rows.append(("what helps", self.advice))
        return [console.printable(line) for line in console.table(rows, indent="")]

    def _addresses(self) -> list[str]:
        lines = []
        for number, (place, address) in enumerate(self.names.attempts):
            seen = f": {self.views[number].summary}" if number < len(self.views) else ""
            lines.append(f"{console.endpoint(address)} ({place.host}){seen}")
        return lines

    def as_json(self) -> dict[str, Any]:
        """For scripts."""
        address = self.address or self.view.address
        return {
            "ok": self.error is None,
            "host": self.host,
            "port": self.port,
            "address": None if address is None else console.endpoint(address),
            "addresses": [
                {
                    "address": console.endpoint(address),
                    "host": place.host,
                    "seen": self.views[number].summary if number < len(self.views) else None,
                }
                for number, (place, address) in enumerate(self.names.attempts)
            ],
            "expected_name": self.expected,
            "tls_version": self.version or self.view.version,
            "cipher": self.cipher or self.view.cipher,
            "chain": [facts.as_json() for facts in self.chain],
            "status": self.status,
            "reason": self.reason,
            "error": None if self.error is None else exits.sentence(self.error),
            "advice": self.advice or None,
            "exit_code": int(self.exit_code),
        }


def add_parser(commands: Any) -> None:
    """Describe the command to argparse."""
    parser = common.add_command(
        commands, "check", run, "explain what TLS says about a peer", _DESCRIPTION, json="print the result as JSON"
    )
    parser.add_argument(
        "target", metavar="HOST[:PORT]", type=common.peer_host, help="without a port the DNS is asked (5061 by default)"
    )
    common.add_nameserver(parser)
    common.add_timeout(parser, 10.0, "for connecting and the answer")
    identity.add_arguments(parser, connects=True, tcp=False)


def run(args: argparse.Namespace) -> ExitCode:
    """Judge, look, and explain."""
    host, port = args.target
    found = names.follow(Wanted("TLS", host, port, asks_for_transport=True), args.nameserver, args.timeout)
    report = Report(host, port, args.tls_name or host, found)
    with identity.open_manager_or_stranger(args) as (manager, is_stranger):
        _judge(report, manager, args)
    error = report.error
    if error is None or isinstance(error, TlsFailureException):
        refused = error is not None and error.failure_reason not in _ABOUT_ITS_CERTIFICATE
        report.views = _look_at_all(report, args.timeout, for_refusal=refused)
    report.chain = [CertificateFacts.of(data) for data in report.view.chain or report.shown]
    if error is not None:
        report.advice = advise(error, report.view, report.chain, report.expected, is_stranger)
    if args.json:
        console.say_json(report.as_json())
    else:
        console.say("\n".join(report.lines()))
    if error is not None:
        console.complain(f"{args.prog}: {console.printable(exits.sentence(error))}")
    return report.exit_code


def _look_at_all(report: Report, timeout: float, *, for_refusal: bool) -> list[View]:
    """Side by side: a dead one takes its time."""

    def look_at(attempt: tuple[Place, tuple[str, int]]) -> View:
        return look(*attempt[1], report.server_name, timeout, for_refusal=for_refusal)

    attempts = report.names.attempts[: names.MAXIMUM_SHOWN]
    with ThreadPoolExecutor(max(len(attempts), 1)) as pool:
        return list(pool.map(look_at, attempts))


def _judge(report: Report, manager: RealTimeServerConnectionManager, args: argparse.Namespace) -> None:
    """Ask the peer something, as any user of the library would."""
    where = f"[{report.host}]" if ":" in report.host else report.host
    port = "" if report.port is None else f":{report.port}"
    with usage_errors():
        endpoint = SipPeerToPeerEndpoint(identity.default_owner(manager), manager)
        operation = endpoint.begin_send_message(
            MessageType.OPTIONS,
            f"sip:{where}{port}",  # on a TLS manager
            options=SendMessageOptions(tls_target_name=args.tls_name),
            timeout=args.timeout,
        )
    try:
        report.answered(operation.result())
    except FailureResponseException as error:  # any answer shows that TLS and SIP work
        report.answered(error.response_data)
    except RealTimeException as error:
        report.error = error
        if isinstance(error, TlsFailureException):
            report.shown = () if error.remote_certificate is None else (error.remote_certificate,)
            report.address = error.remote_endpoint
    for connection in manager.connections():
        report.connected(connection)
