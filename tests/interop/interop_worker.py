"""A process of a service, of which several stand behind one proxy or share one port: run by the tests as a program.

Each answer bears its name, so that the other side can tell who took its request. It ends with who started it.
"""

from __future__ import annotations

import argparse
import os
import threading

import p2psip
from p2psip import (
    ContentDescription,
    MessageReceivedEventArgs,
    RealTimeEndpoint,
    SessionReceivedEventArgs,
    SignalingSession,
)

LOOPBACK = "127.0.0.1"
HEADER = "X-Worker"
SDP = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 6002 RTP/AVP 0\r\n"


class Worker:
    """Takes calls and messages.

    Args:
        name: What its answers bear.
    """

    def __init__(self, name: str) -> None:
        self._headers = [(HEADER, name)]

    def message_received(self, sender: object, args: MessageReceivedEventArgs) -> None:
        args.send_response(200, headers=self._headers)

    def message_in_call(self, session: SignalingSession, args: MessageReceivedEventArgs) -> None:
        self.message_received(session, args)
        if args.text_body == "hang up":
            session.begin_terminate()

    def session_received(self, sender: RealTimeEndpoint, args: SessionReceivedEventArgs) -> None:
        args.session.message_received += self.message_in_call
        args.session.begin_accept(ContentDescription("application/sdp", SDP), self._headers)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--identity", nargs=2, metavar=("CERTIFICATE", "TRUSTED"), help="TLS, else it is TCP")
    parser.add_argument("--reuse-port", action="store_true")
    options = parser.parse_args()
    manager: p2psip.RealTimeServerConnectionManager
    if options.identity is None:
        manager = p2psip.RealTimeServerTcpConnectionManager(LOOPBACK)
    else:
        certificate, trusted = options.identity
        manager = p2psip.RealTimeServerTlsConnectionManager.from_files(
            certificate, trusted_roots=trusted, local_host=LOOPBACK
        )
    with manager:
        endpoint = p2psip.SipPeerToPeerEndpoint("sip:service@example.com", manager)
        worker = Worker(options.name)
        endpoint.message_received += worker.message_received
        endpoint.session_received += worker.session_received
        manager.start_listening((LOOPBACK, options.port), reuse_port=options.reuse_port)
        print(f"listens on port {manager.listening_port}\n", flush=True)
        parent, never = os.getppid(), threading.Event()
        while os.getppid() == parent:
            never.wait(1.0)


if __name__ == "__main__":
    main()
