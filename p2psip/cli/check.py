"""``p2psip check``: connect to a peer, explain what TLS says, and what would make it work."""

from __future__ import annotations

import argparse
import dataclasses
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
from p2psip.cli import certificate, common, console, exits, identity
from p2psip.cli.advice import advise
from p2psip.cli.certificate import CertificateFacts
from p2psip.cli.exits import ExitCode, usage_errors
from p2psip.cli.look import View, look

_DESCRIPTION = """\
Connect to a peer over TLS as the library would, ask it something (OPTIONS), and explain the result: which
certificates it shows, for which names and until when, version and cipher, and what would make it work.

  p2psip check example.com
  p2psip check --tls-name example.com 192.0.2.7:5061
  p2psip check --trusted system sip.example.com

Works without a certificate of our own; then it tells whether the peer demands one.
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
        port: Where.
        expected: The name that the peer's certificate has to bear.
        status: The answer to OPTIONS, or None.
        error: Why there is none.
        version: The version of TLS, where the library took the peer.
        cipher: OpenSSL's name of the cipher suite, likewise.
        shown: The peer's certificate (DER), where the library saw one.
        address: Where the peer was reached.
        view: What the peer shows to anybody.
        chain: What is known of its certificates.
        advice: What would make it work.
    """

    host: str
    port: int
    expected: str
    status: str | None = None
    error: RealTimeException | None = None
    version: str | None = None
    cipher: str | None = None
    shown: tuple[bytes, ...] = ()
    address: tuple[str, int] | None = None
    view: View = dataclasses.field(default_factory=View)
    chain: list[CertificateFacts] = dataclasses.field(default_factory=list)
    advice: str = ""

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
        rows = [("peer", console.endpoint((self.host, self.port)) + at)]
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

    def as_json(self) -> dict[str, Any]:
        """For scripts."""
        address = self.address or self.view.address
        return {
            "ok": self.error is None,
            "host": self.host,
            "port": self.port,
            "address": None if address is None else console.endpoint(address),
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
    parser.add_argument("target", metavar="HOST[:PORT]", type=common.peer_host, help="the port is 5061 by default")
    common.add_timeout(parser, 10.0, "for connecting and the answer")
    identity.add_arguments(parser, connects=True, tcp=False)


def run(args: argparse.Namespace) -> ExitCode:
    """Judge, look, and explain."""
    host, port = args.target[0], args.target[1] or 5061
    report = Report(host, port, args.tls_name or host)
    with identity.open_manager_or_stranger(args) as (manager, is_stranger):
        _judge(report, manager, args)
    error = report.error
    if error is None or isinstance(error, TlsFailureException):
        refused = error is not None and error.failure_reason not in _ABOUT_ITS_CERTIFICATE
        report.view = look(host, port, report.server_name, args.timeout, for_refusal=refused)
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


def _judge(report: Report, manager: RealTimeServerConnectionManager, args: argparse.Namespace) -> None:
    """Ask the peer something, as any user of the library would."""
    where = f"[{report.host}]" if ":" in report.host else report.host
    with usage_errors():
        endpoint = SipPeerToPeerEndpoint(identity.default_owner(manager), manager)
        operation = endpoint.begin_send_message(
            MessageType.OPTIONS,
            f"sip:{where}:{report.port};transport=tls",
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
