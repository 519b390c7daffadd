"""``p2psip listen``: print what arrives and answer it."""

from __future__ import annotations

import argparse
import base64
import contextlib
import datetime
import queue
from collections.abc import Callable, Iterator
from typing import Any

from p2psip import (
    ErrorEventArgs,
    IPAddress,
    IPEndPoint,
    MessageReceivedEventArgs,
    RealTimeEndpoint,
    RealTimeServerConnectionManager,
    SipPeerToPeerEndpoint,
)
from p2psip.cli import common, console, exits, identity, login, wire
from p2psip.cli.exits import ExitCode, usage_errors

_DESCRIPTION = """\
Listen for messages, print each of them, and answer 200 (or what --answer says), until Ctrl-C.
Over TLS only peers with a certificate that we trust get in.

  p2psip listen
  p2psip listen --tcp --port 5060 --answer 486
"""

_SLICE = 0.5  # a wait without end cannot be interrupted by Ctrl-C on Windows
_BUSY = 480


def add_parser(commands: Any) -> None:
    """Describe the command to argparse."""
    parser = common.add_command(
        commands, "listen", run, "print what arrives and answer it", _DESCRIPTION, json="print one JSON object a line"
    )
    add_arguments(parser)
    parser.add_argument(
        "--answer", metavar="CODE", type=common.status_code, default=200, help="answer with this status (default: 200)"
    )
    parser.add_argument("--count", metavar="N", type=common.count, default=0, help="end after so many messages")
    parser.add_argument("--once", dest="count", action="store_const", const=1, help="end after one message")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where to listen, and whom to let in."""
    parser.add_argument(
        "--port", type=common.port, help="listen here; 0 means any free port (default: 5061, with --tcp 5060)"
    )
    parser.add_argument(
        "--host",
        type=common.ip_address,
        default=IPAddress.ANY,
        metavar="ADDRESS",
        help="the local IP address to listen on (default: all)",
    )
    parser.add_argument(
        "--owner", metavar="URI", type=common.address, help="who we are (default: the user at our host)"
    )
    parser.add_argument(
        "--any-client", action="store_true", help="let peers without a certificate in as well (no mutual TLS)"
    )
    login.add_demand(parser)
    identity.add_arguments(parser, connects=False)


class _Listener:
    """What arrives is answered on the endpoint's strand and printed by the main thread, which waits for it here."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._taken = 0
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.printed = 0

    def received(self, sender: RealTimeEndpoint, message: MessageReceivedEventArgs) -> None:
        """Answer the request."""
        if self._args.count and self._taken >= self._args.count:
            message.send_response(_BUSY, "Listening Ended")
            return
        self._taken += 1
        if self._args.answer != 200:
            message.send_response(self._args.answer)
        self._work.put(lambda: self._print_message(message))

    def refused(self, sender: RealTimeServerConnectionManager, args: ErrorEventArgs) -> None:
        """A peer did not get in, or did not let us in."""
        self._work.put(lambda: self._print_refusal(args.exception))

    def aborted(self, sender: RealTimeServerConnectionManager, args: ErrorEventArgs) -> None:
        """The system took the port away."""
        error = args.exception

        def end() -> None:
            if error is not None:
                raise error

        self._work.put(end)

    def print_next(self) -> None:
        """Wait for what arrives next, and print it."""
        while True:
            try:
                work = self._work.get(timeout=_SLICE)
            except queue.Empty:
                continue
            work()
            return

    def _print_message(self, message: MessageReceivedEventArgs) -> None:
        self.printed += 1
        request, connection = message.request_data, message.connection
        if self._args.json:
            text = message.text_body
            console.say_json(
                {
                    "event": "message",
                    "method": request.message_type,
                    "from": message.participant.uri,
                    "name": message.participant.name,
                    "request_uri": request.request_uri,
                    "content_type": message.content_type,
                    "text": text,
                    "body_base64": base64.b64encode(message.body).decode("ascii") if text is None else None,
                    "sender_authenticated": message.is_sender_authenticated,
                    "user": message.authenticated_user,
                    "answer": self._args.answer,
                    "connection": wire.as_json(connection),
                }
            )
            return
        when = datetime.datetime.now().strftime("%H:%M:%S")
        sender = console.printable(message.participant.uri)
        console.say(f"{when} {console.printable(request.message_type)} from {sender} ({wire.describe(connection)})")
        if message.body:
            text = message.text_body
            shown = f"({len(message.body)} bytes that are no text)" if text is None else text.rstrip("\r\n")
            console.say("\n".join(f"    {line}" for line in console.printable(shown, lines=True).split("\n")))

    def _print_refusal(self, error: Exception | None) -> None:
        if error is None:
            return
        if self._args.json:
            console.say_json({"event": "refused", "reason": exits.reason(error), "error": exits.sentence(error)})
        else:
            console.complain(f"{self._args.prog}: {console.printable(exits.sentence(error))}")


def run(args: argparse.Namespace) -> ExitCode:
    """Listen until Ctrl-C, or until the count is reached."""
    with open_endpoint(args) as (endpoint, manager):
        listener = _Listener(args)
        endpoint.message_received += listener.received
        manager.incoming_tls_negotiation_failed += listener.refused
        manager.listening_aborted += listener.aborted
        start_listening(args, manager)
        announce(args, endpoint, manager)
        while not args.count or listener.printed < args.count:
            listener.print_next()
        endpoint.drain(manager.settings.dispose_grace)  # the last answer is on its way
    return ExitCode.OK


@contextlib.contextmanager
def open_endpoint(
    args: argparse.Namespace,
) -> Iterator[tuple[SipPeerToPeerEndpoint, RealTimeServerConnectionManager]]:
    """The endpoint that takes whatever arrives, and its manager; both are gone at the end."""
    with identity.open_manager(args, tcp=args.tcp, need_mutual_tls=not args.any_client) as manager:
        with usage_errors():
            endpoint = SipPeerToPeerEndpoint(args.owner or identity.default_owner(manager), manager)
        login.demand(args, endpoint)
        manager.default_endpoint = endpoint
        try:
            yield endpoint, manager
        finally:
            if args.verbose:
                console.complain(f"What was done:\n{manager.statistics()}")


def start_listening(args: argparse.Namespace, manager: RealTimeServerConnectionManager) -> None:
    """Listen where the arguments say."""
    port = args.port if args.port is not None else 5060 if args.tcp else 5061
    with usage_errors():
        start = manager.begin_start_listening(IPEndPoint(args.host, port))
    with identity.local_errors():
        start.result()


def announce(
    args: argparse.Namespace,
    endpoint: SipPeerToPeerEndpoint,
    manager: RealTimeServerConnectionManager,
    command: str = "send '{}' 'Hello'",
) -> None:
    """Say where we can be reached, and by which command, in a form that can be copied."""
    address = _reachable(endpoint, manager, plain=args.tcp)
    addresses = [console.endpoint(address) for address in manager.listening_addresses]
    if args.json:
        console.say_json(
            {
                "event": "listening",
                "address": address,
                "port": manager.listening_port,
                "addresses": addresses,
                "transport": manager.transport.name,
            }
        )
        return
    console.say(f"Listening on {', '.join(addresses)} ({manager.transport.name}) as {address}; Ctrl-C ends it.")
    console.say(f"From another terminal:  {common.program()} {common.for_shell(command.format(address))}")


def _reachable(endpoint: SipPeerToPeerEndpoint, manager: RealTimeServerConnectionManager, *, plain: bool) -> str:
    """The shortest address that gets to us: everything that arrives here is ours."""
    scheme, _, rest = endpoint.owner_uri.partition(":")
    user = rest.rpartition("@")[0]
    host = f"[{manager.local_host}]" if ":" in manager.local_host else manager.local_host
    where = f"{user}@{host}" if user else host
    return f"{scheme}:{where}:{manager.listening_port}" + (";transport=tcp" if plain else "")
