"""Several processes that listen on one port (SO_REUSEPORT)."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from facade_support import BOUND

from p2psip import (
    ConnectionFailureException,
    MessageType,
    RealTimeServerTcpConnectionManager,
    SipPeerToPeerEndpoint,
    listening,
)

LOOPBACK = "127.0.0.1"
PROCESS = """
import sys
import p2psip

manager = p2psip.RealTimeServerTcpConnectionManager("127.0.0.1")
endpoint = p2psip.SipPeerToPeerEndpoint("sip:bob@127.0.0.1", manager)
endpoint.message_received += lambda sender, args: args.send_response(200, headers=[("X-Process", sys.argv[2])])
manager.start_listening(("127.0.0.1", int(sys.argv[1])), reuse_port=True)
print(manager.listening_port, flush=True)
sys.stdin.read()
"""

shared = pytest.mark.skipif(not listening.CAN_SHARE_PORTS, reason="this system cannot share ports")


@shared
def test_two_processes_share_a_port() -> None:
    """Each takes some of the connections, and all are taken."""

    def process(port: int, name: str) -> Any:
        return subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(port), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    with process(0, "one") as first:
        port = int(first.stdout.readline())
        with process(port, "two") as second:
            assert int(second.stdout.readline()) == port
            answered = []
            for _ in range(40):
                with RealTimeServerTcpConnectionManager(LOOPBACK) as manager:
                    alice = SipPeerToPeerEndpoint("sip:alice@a.example", manager)
                    answer = alice.send_message(MessageType.MESSAGE, f"sip:bob@{LOOPBACK}:{port}", timeout=BOUND)
                    answered.append(answer.header("X-Process"))
                if set(answered) == {"one", "two"}:
                    break
            second.stdin.close()
        first.stdin.close()
    assert set(answered) == {"one", "two"}


@shared
def test_a_port_is_shared_only_by_those_who_say_so() -> None:
    with RealTimeServerTcpConnectionManager(LOOPBACK) as one, RealTimeServerTcpConnectionManager(LOOPBACK) as two:
        one.start_listening((LOOPBACK, 0), reuse_port=True)
        with pytest.raises(ConnectionFailureException, match="in use"):
            two.start_listening((LOOPBACK, one.listening_port))
        two.start_listening((LOOPBACK, one.listening_port), reuse_port=True)
        assert two.listening_port == one.listening_port


def test_a_system_that_cannot_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "CAN_SHARE_PORTS", False)
    with RealTimeServerTcpConnectionManager(LOOPBACK) as manager:
        with pytest.raises(ValueError, match="SO_REUSEPORT"):
            manager.start_listening((LOOPBACK, 0), reuse_port=True)
        assert not manager.is_listening
