"""A server whose process has no descriptors left, in a process of its own."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time

import attackers
import pytest
from facade_support import BOUND

SERVER = """
import os, resource, sys, time
import p2psip

resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
manager = p2psip.RealTimeServerTcpConnectionManager("victim.example")
endpoint = p2psip.SipPeerToPeerEndpoint("sip:bob@victim.example", manager)
endpoint.message_received += lambda sender, args: None
manager.start_listening(("127.0.0.1", 0))
print(manager.listening_port, flush=True)
held = []
for line in sys.stdin:
    if line.strip() == "take":
        manager._stack.network._listener._reserve.close()  # somebody else was quicker, so that none can be turned away
        try:
            while True:
                held.append(os.dup(0))
        except OSError:
            pass
    elif line.strip() == "free":
        for descriptor in held:
            os.close(descriptor)
    print(time.process_time(), flush=True)
"""


def ask(sock: socket.socket) -> None:
    sock.sendall(attackers.request(b"hello").replace(b"OPTIONS", b"MESSAGE"))
    said = b""
    while not said.endswith(b"\r\n\r\n"):
        piece = sock.recv(65536)
        assert piece, said
        said += piece
    assert said.startswith(b"SIP/2.0 200 ")


@pytest.mark.holds("R33")
@pytest.mark.skipif(sys.platform == "win32", reason="the limit is POSIX's")
def test_without_descriptors_the_connected_are_served_and_nothing_spins() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        assert server.stdin is not None and server.stdout is not None
        killer = threading.Timer(BOUND, server.kill)
        killer.start()
        say, hear = server.stdin, server.stdout

        def command(word: str) -> float:
            say.write(word + "\n")
            say.flush()
            return float(hear.readline())

        address = ("127.0.0.1", int(hear.readline()))
        with socket.create_connection(address, BOUND) as known:
            ask(known)
            before = command("take")
            begun = time.monotonic()
            waiting = [socket.create_connection(address, BOUND) for _ in range(20)]
            while time.monotonic() < begun + 1.0:
                ask(known)
                threading.Event().wait(0.05)
            spent, passed = command("look") - before, time.monotonic() - begun
            assert spent < 0.3 * passed
            command("free")
            freed = time.monotonic()
            with socket.create_connection(address, BOUND) as later:
                ask(later)
            assert time.monotonic() - freed < 1.0
            ask(known)
            for sock in waiting:
                sock.close()
        say.close()
        assert server.wait(BOUND) == 0
        killer.cancel()
