"""``p2psip demo``: two peers meet over mutual TLS, talk, and show what went over the wire."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from p2psip import (
    ConnectionContext,
    IPAddress,
    IPEndPoint,
    MessageReceivedEventArgs,
    MessageType,
    RealTimeConnection,
    RealTimeConnectionManager,
    RealTimeEndpoint,
    RealTimeServerTlsConnectionManager,
    SendMessageOptions,
    SipPeerToPeerEndpoint,
    TraceEventArgs,
)
from p2psip.cli import authority, common, console, ladder, wire
from p2psip.cli.exits import CommandError, ExitCode
from p2psip.message import Request, parse_message

_DESCRIPTION = """\
Two peers, Alice and Bob, each with a certificate made for this demonstration: both listen on this machine. Alice
connects to Bob over mutual TLS and sends him a message, Bob sends one back, and what went over the wire is drawn.
"""

_INTRODUCTION = """\
Two peers on this machine, Alice and Bob, each with a certificate from an authority made for this demonstration. Each
has a SIP address and listens on a port. Time runs downwards, in milliseconds since the start; an arrow is a message,
a double line a connection.
"""

_HELLO = "Hello Bob, can you hear me?"
_REPLY = "Loud and clear, Alice."
_TIMEOUT = 15.0


def add_parser(commands: Any) -> None:
    """Describe the command to argparse."""
    parser = common.add_command(
        commands, "demo", run, "watch two peers talk over mutual TLS", _DESCRIPTION, json="print what happened as JSON"
    )
    parser.add_argument("--port", type=common.port, default=0, help="Bob's port (default: any free one)")


class _Sent(NamedTuple):
    """One message of the trace, and who sent it."""

    sender: _Peer
    args: TraceEventArgs


class _Peer:
    """Alice or Bob."""

    def __init__(self, name: str, manager: RealTimeServerTlsConnectionManager, sent: list[_Sent]) -> None:
        self.name = name
        self.domain = f"{name.lower()}.example"
        self.uri = f"sip:{name.lower()}@{self.domain}"
        self.manager = manager
        self.heard: list[str | None] = []
        self._sent = sent
        self._endpoint = SipPeerToPeerEndpoint(self.uri, manager)
        self._endpoint.message_received += self._hear
        manager.trace += self._trace

    def _hear(self, sender: RealTimeEndpoint, args: MessageReceivedEventArgs) -> None:
        self.heard.append(args.text_body)

    def _trace(self, sender: RealTimeConnectionManager, args: TraceEventArgs) -> None:
        if args.direction == "sent":
            self._sent.append(_Sent(self, args))

    @property
    def address(self) -> str:
        """Where it listens."""
        return console.endpoint((IPAddress.LOOPBACK, self.manager.listening_port))

    def tell(self, other: _Peer, text: str) -> None:
        """Send a message and wait for the answer.

        The names are not in any DNS, so the first hop is given; the certificate must bear the name all the same.
        """
        hop = ConnectionContext(IPAddress.LOOPBACK, other.manager.listening_port)
        options = SendMessageOptions(connection_context=hop, tls_target_name=other.domain)
        self._endpoint.send_message(MessageType.MESSAGE, other.uri, body=text, options=options, timeout=_TIMEOUT)


def run(args: argparse.Namespace) -> ExitCode:
    """Let them meet, then draw."""
    sent: list[_Sent] = []
    with _two_peers(args, sent) as (alice, bob):
        heads = (_party(alice), _party(bob))
        if not args.json:
            console.say("\n".join(textwrap.wrap(_INTRODUCTION, _width())) + "\n")
        begin = time.time()
        alice.tell(bob, _HELLO)
        bob.tell(alice, _REPLY)
    # The managers are gone, and with that the trace is complete.
    sent.sort(key=lambda item: item.args.time)
    if (alice.heard, bob.heard) != ([_REPLY], [_HELLO]):
        raise CommandError("The messages were answered, but did not arrive as they were sent.", ExitCode.FAILED)
    if args.json:
        console.say_json(_as_json(alice, bob, sent, begin))
    else:
        console.say("\n".join(ladder.draw(*heads, _steps(alice, bob, sent, begin), width=_width())))
        console.say("\n".join(_conclusion(alice, bob, sent)))
    return ExitCode.OK


@contextlib.contextmanager
def _two_peers(args: argparse.Namespace, sent: list[_Sent]) -> Iterator[tuple[_Peer, _Peer]]:
    with tempfile.TemporaryDirectory(prefix="p2psip-demo-") as folder, contextlib.ExitStack() as managers:
        peers = []
        issuer = authority.Authority.create("Demonstration CA")
        for name, port in (("Alice", 0), ("Bob", args.port)):
            certificate = issuer.issue([f"{name.lower()}.example"]).write(Path(folder))
            manager = managers.enter_context(
                RealTimeServerTlsConnectionManager.from_files(certificate, trusted_roots=issuer.pem)
            )
            if args.verbose:
                wire.show_trace(manager)
            peers.append(_Peer(name, manager, sent))
            manager.start_listening(IPEndPoint(IPAddress.LOOPBACK, port))
        yield peers[0], peers[1]


# ---------------------------------------------------------------------- what is shown


def _party(peer: _Peer) -> ladder.Party:
    return ladder.Party(peer.name, (peer.uri, peer.address))


def _width() -> int:
    """Columns that there are, within reason."""
    return max(min(shutil.get_terminal_size((78, 24)).columns, 100), ladder.SMALLEST)


def _steps(alice: _Peer, bob: _Peer, sent: list[_Sent], begin: float) -> list[ladder.Arrow | ladder.Link]:
    steps: list[ladder.Arrow | ladder.Link] = []
    drawn: set[frozenset[IPEndPoint]] = set()
    for item in sent:
        other = bob if item.sender is alice else alice
        ends = _ends(item.args.connection)
        if ends not in drawn:
            drawn.add(ends)
            steps.append(_link(item, other, sent, to_right=item.sender is alice))
        steps.append(_arrow(item, other, begin, to_right=item.sender is alice))
    return steps


def _ends(connection: RealTimeConnection) -> frozenset[IPEndPoint]:
    """The same for both sides of a connection."""
    return frozenset({connection.local_endpoint, connection.remote_endpoint})


def _link(first: _Sent, other: _Peer, sent: list[_Sent], *, to_right: bool) -> ladder.Link:
    connection = first.args.connection
    client, server = first.sender.name, other.name
    last = (
        "From here on nobody else can read or change what they say."
        if to_right
        else "A connection carries the requests of the one who opened it."
    )
    return ladder.Link(
        to_right,
        f"{connection.tls_version}, {connection.cipher}",
        (
            f"{client} connects to {server}; both show a certificate:",
            f"{server} proved to {client} to be {_names(connection)}.",
            f"{client} proved to {server} to be {_names(_seen_by(other, connection, sent))}.",
            last,
        ),
    )


def _seen_by(peer: _Peer, connection: RealTimeConnection, sent: list[_Sent]) -> RealTimeConnection | None:
    """The same connection from the other side."""
    for item in sent:
        if item.sender is peer and _ends(item.args.connection) == _ends(connection):
            return item.args.connection
    return None


def _names(connection: RealTimeConnection | None) -> str:
    return ", ".join(connection.remote_identities) if connection is not None else "nobody"


def _arrow(item: _Sent, other: _Peer, begin: float, *, to_right: bool) -> ladder.Arrow:
    message = parse_message(item.args.data)
    when = console.milliseconds(max(item.args.time - begin, 0.0))
    if isinstance(message, Request):
        label = f"{message.method} {message.uri}"
        details = [f'"{console.printable(message.body)}"']
        meaning = f"A request: {item.sender.name} has a text for {other.name}."
    else:
        label, details = f"{message.status_code} {message.reason}", []
        meaning = f"The answer: {item.sender.name} has taken it."
    return ladder.Arrow(to_right, label, tuple(details), meaning, when)


def _conclusion(alice: _Peer, bob: _Peer, sent: list[_Sent]) -> list[str]:
    what = f"{len(sent)} messages, {sum(len(item.args.data) for item in sent)} bytes inside TLS"
    program = common.program()
    hints = [
        ("demo --verbose", "the messages in full"),
        ("certs make", "a certificate for you"),
        ("listen", "then, in another terminal:"),
        (f"send sip:{common.user_name()}@localhost 'Hello'", ""),
    ]
    return [
        "",
        *textwrap.wrap(f'Bob heard "{bob.heard[0]}", Alice heard "{alice.heard[0]}" ({what}).', _width()),
        "",
        "Try it yourself:",
        *console.table([(f"{program} {common.for_shell(words)}", meaning) for words, meaning in hints]),
    ]


def _as_json(alice: _Peer, bob: _Peer, sent: list[_Sent], begin: float) -> dict[str, Any]:
    connections = {}
    for item in sent:
        connection = item.args.connection
        if not connection.is_incoming:
            other = bob if item.sender is alice else alice
            seen = _seen_by(other, connection, sent)
            connections[_ends(connection)] = {
                "opened_by": item.sender.name,
                "tls_version": connection.tls_version,
                "cipher": connection.cipher,
                "proved": {
                    other.name: list(connection.remote_identities),
                    item.sender.name: list(seen.remote_identities) if seen is not None else [],
                },
            }
    return {
        "peers": [{"name": peer.name, "uri": peer.uri, "heard": peer.heard} for peer in (alice, bob)],
        "connections": list(connections.values()),
        "messages": [
            {
                "from": item.sender.name,
                "milliseconds": round(1000 * (item.args.time - begin), 3),
                "start_line": item.args.start_line,
                "bytes": len(item.args.data),
            }
            for item in sent
        ],
    }
