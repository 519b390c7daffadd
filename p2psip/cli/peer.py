"""What ``send`` and ``options`` have in common: an endpoint, and one request at a time to one address."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from p2psip import (
    FailureResponseException,
    MessageType,
    RealTimeAddress,
    RealTimeConnection,
    SendMessageOptions,
    SipPeerToPeerEndpoint,
    SipResponseData,
)
from p2psip.cli import common, identity
from p2psip.cli.exits import usage_errors


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Whom to reach, and how."""
    parser.add_argument(
        "address", metavar="ADDRESS", type=common.address, help="such as sip:bob@example.com:5061; sip: may be left out"
    )
    parser.add_argument(
        "--from", dest="owner", metavar="URI", type=common.address, help="who we are (default: the user at our host)"
    )
    parser.add_argument(
        "--proxy", metavar="HOST[:PORT]", type=common.host_and_port, help="send it through this outbound proxy"
    )
    parser.add_argument(
        "--header", action="append", default=[], metavar="'NAME: VALUE'", type=common.header, help="a further header"
    )
    common.add_timeout(parser, 15.0, "for connecting and the answer, each time")
    identity.add_arguments(parser, connects=True)


class Answer(NamedTuple):
    """A final answer, good or bad.

    Attributes:
        response: What came.
        seconds: How long it took, connecting included.
        connection: Over which connection, where it is still there.
    """

    response: SipResponseData
    seconds: float
    connection: RealTimeConnection | None

    @property
    def status(self) -> str:
        """``200 OK``."""
        return f"{self.response.response_code} {self.response.response_text}".rstrip()


@contextlib.contextmanager
def open_endpoint(args: argparse.Namespace) -> Iterator[SipPeerToPeerEndpoint]:
    """An endpoint that can reach ``args.address``; gone, with its connections, at the end."""
    with usage_errors():
        uri = RealTimeAddress(args.address).sip_uri
    plain = args.tcp or (
        uri is not None and uri.scheme == "sip" and (uri.parameters.get("transport") or "").lower() == "tcp"
    )
    with identity.open_manager(args, tcp=plain) as manager:
        host, port = args.proxy or (None, None)
        with usage_errors():
            owner = args.owner or identity.default_owner(manager)
            endpoint = SipPeerToPeerEndpoint(owner, manager, None, host, port)
        yield endpoint


def request(
    endpoint: SipPeerToPeerEndpoint,
    args: argparse.Namespace,
    message_type: MessageType,
    content_type: str | None = None,
    body: str | bytes | None = None,
    headers: Sequence[tuple[str, str]] = (),
) -> Answer:
    """Send it and wait. A failure response is an answer, too; no answer is an exception."""
    options = SendMessageOptions(tls_target_name=args.tls_name)
    begin = time.perf_counter()
    with usage_errors():
        operation = endpoint.begin_send_message(
            message_type, args.address, content_type, body, headers, options=options, timeout=args.timeout
        )
    try:
        response = operation.result()
    except FailureResponseException as error:
        if error.response_data is None:
            raise
        response = error.response_data
    elapsed = time.perf_counter() - begin
    used = [connection for connection in endpoint.connection_manager.connections() if not connection.is_incoming]
    return Answer(response, elapsed, used[0] if used else None)
