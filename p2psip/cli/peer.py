"""What ``send`` and ``options`` have in common: an endpoint, and one request at a time to one address."""

from __future__ import annotations

import argparse
import contextlib
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

from p2psip import (
    AuthenticationException,
    ConnectionFailureException,
    FailureResponseException,
    MessageType,
    RealTimeAddress,
    RealTimeConnection,
    RealTimeConnectionManager,
    SendMessageOptions,
    SipPeerToPeerEndpoint,
    SipResponseData,
    SipTransportType,
    TraceEventArgs,
)
from p2psip.cli import common, exits, identity, login
from p2psip.cli.exits import CommandError, ExitCode, usage_errors

_MOMENT = 1.0
"""Seconds in which the trace tells of a message that is answered."""


def add_arguments(
    parser: argparse.ArgumentParser,
    *,
    timeout: float = 15.0,
    what: str = "for connecting and the answer, each time",
    tls_name: bool = True,
) -> None:
    """Whom to reach, and how.

    Args:
        timeout: Seconds, where the user does not say.
        what: What has to be over by then.
        tls_name: The peer can be expected to prove another name than the one that is dialled.
    """
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
    common.add_timeout(parser, timeout, what)
    login.add_arguments(parser)
    identity.add_arguments(parser, connects=tls_name)


class Answer(NamedTuple):
    """A final answer, good or bad.

    Attributes:
        response: What came.
        seconds: How long it took, connecting included.
        connection: Over which connection; None where that is not known.
        refusal: The library's sentence where credentials are missing or wrong, which says more than the response.
    """

    response: SipResponseData
    seconds: float
    connection: RealTimeConnection | None
    refusal: str

    @property
    def status(self) -> str:
        """``200 OK``."""
        return f"{self.response.response_code} {self.response.response_text}".rstrip()


class Peer:
    """Who answers at one address: one request after the other.

    Args:
        endpoint: Ours.
        args: Whom to reach, and how long to wait.
    """

    def __init__(self, endpoint: SipPeerToPeerEndpoint, args: argparse.Namespace) -> None:
        self._endpoint = endpoint
        self._manager = endpoint.connection_manager
        self._args = args
        self._last: RealTimeConnection | None = None
        self._used = threading.Event()
        self._manager.trace += self._sent

    def _sent(self, sender: RealTimeConnectionManager, args: TraceEventArgs) -> None:
        self._last = args.connection
        self._used.set()

    def request(
        self, message_type: MessageType, content_type: str | None = None, body: str | bytes | None = None
    ) -> Answer:
        """Send it and wait. A failure response is an answer, too; no answer is an exception."""
        options = SendMessageOptions(tls_target_name=self._args.tls_name)
        self._used.clear()
        begin = time.perf_counter()
        with usage_errors():
            operation = self._endpoint.begin_send_message(
                message_type,
                self._args.address,
                content_type,
                body,
                self._args.header,
                options=options,
                timeout=self._args.timeout,
            )
        refusal = ""
        try:
            response = operation.result()
        except FailureResponseException as error:
            response = error.response_data
            if isinstance(error, AuthenticationException):
                refusal = exits.sentence(error)
        except ConnectionFailureException as error:
            raise self._explained(error) from error.__cause__
        elapsed = time.perf_counter() - begin
        self._used.wait(_MOMENT)
        return Answer(response, elapsed, self._last, refusal)

    def _explained(self, error: ConnectionFailureException) -> ConnectionFailureException:
        """A peer that expects TLS hangs up on a request without."""
        hung_up = error.__cause__ is None or isinstance(error.__cause__, ConnectionResetError)
        if self._manager.transport is SipTransportType.TLS or not hung_up:
            return error
        sentence = str(error).rstrip(".")
        return ConnectionFailureException(f"{sentence}; if that is a TLS port, do without --tcp and transport=tcp.")


@contextlib.contextmanager
def open_endpoint(args: argparse.Namespace) -> Iterator[SipPeerToPeerEndpoint]:
    """Our endpoint, of a manager that suits ``args.address``; both are gone, with all connections, at the end."""
    with usage_errors():
        uri = RealTimeAddress(args.address).sip_uri
    scheme = "" if uri is None else uri.scheme
    transport = "" if uri is None else (uri.parameters.get("transport") or "").lower()
    if args.tcp and (scheme == "sips" or transport == "tls"):
        raise CommandError(f"{args.address} is to be reached over TLS: leave --tcp out.", ExitCode.USAGE)
    plain = args.tcp or (scheme == "sip" and transport == "tcp")
    with identity.open_manager(args, tcp=plain) as manager:
        host, port = args.proxy or (None, None)
        with usage_errors():
            owner = args.owner or identity.default_owner(manager)
            endpoint = SipPeerToPeerEndpoint(owner, manager, None, host, port)
        login.log_in(args, endpoint)
        yield endpoint


@contextlib.contextmanager
def open_peer(args: argparse.Namespace) -> Iterator[Peer]:
    """The peer at ``args.address``; our endpoint is gone, with its connections, at the end."""
    with open_endpoint(args) as endpoint:
        yield Peer(endpoint, args)
