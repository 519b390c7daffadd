"""Who touches the objects of ``ssl``, and when: two threads in one of them may end the process."""

from __future__ import annotations

import concurrent.futures
import ssl
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from facade_support import BOUND

from p2psip import IPAddress, IPEndPoint, MessageType, RealTimeServerTlsConnectionManager, SipPeerToPeerEndpoint
from p2psip.testing import CertificateAuthority

TOUCHES = ("do_handshake", "read", "write", "pending", "unwrap", "close", "getpeercert", "cipher", "version")
CHANGES = ("load_cert_chain", "load_verify_locations", "load_default_certs", "set_ciphers")


class Watch:
    """What contexts and sockets of TLS were used for, and by which threads."""

    def __init__(self) -> None:
        self.threads: dict[ssl.SSLSocket, set[str]] = {}
        self.changed: list[str] = []
        self.contexts = 0
        watch = self

        def watched(kind: type[ssl.SSLSocket]) -> type[ssl.SSLSocket]:
            class WatchedSocket(kind):  # type: ignore[misc, valid-type]
                def __getattribute__(self, name: str) -> Any:
                    if name in TOUCHES:
                        watch.threads.setdefault(self, set()).add(threading.current_thread().name)
                    return super().__getattribute__(name)

            return WatchedSocket

        class WatchedContext(ssl.SSLContext):
            is_used = False

            def __getattribute__(self, name: str) -> Any:
                if name == "wrap_socket" and not self.is_used:
                    self.sslsocket_class = watched(self.sslsocket_class)
                    self.is_used = True
                    watch.contexts += 1
                elif name in CHANGES and self.is_used:
                    watch.changed.append(name)
                return super().__getattribute__(name)

            def __setattr__(self, name: str, value: object) -> None:
                if self.is_used:
                    watch.changed.append(name)
                super().__setattr__(name, value)

        self.module = SimpleNamespace(**{**vars(ssl), "SSLContext": WatchedContext})


@pytest.mark.holds("R12", "A26")
def test_one_thread_for_each_socket_and_no_change_of_a_context_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, authority = Watch(), CertificateAuthority()
    monkeypatch.setattr("p2psip.net.tls.ssl", watch.module)

    def manager(name: str) -> RealTimeServerTlsConnectionManager:
        path = authority.issue(name, "localhost").write(tmp_path)
        return RealTimeServerTlsConnectionManager.from_files(path, trusted_roots=authority.certificate)

    def converse(one: SipPeerToPeerEndpoint, address: str) -> None:
        for _ in range(10):
            one.send_message(MessageType.MESSAGE, address, body="x" * 2000, timeout=BOUND)

    with manager("alice.example") as one, manager("bob.example") as two:
        endpoints = [SipPeerToPeerEndpoint(f"sip:{name}@{name}.example", m) for name, m in (("a", one), ("b", two))]
        for endpoint in endpoints:
            endpoint.message_received += lambda sender, args: None
            endpoint.connection_manager.default_endpoint = endpoint
        for turn in range(2):
            for each in (one, two):
                each.start_listening(IPEndPoint(IPAddress.LOOPBACK, 0))
            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                for which in range(8):
                    other = (two, one)[which % 2]
                    address = f"sip:x@localhost:{other.listening_port}"
                    pool.submit(converse, endpoints[which % 2], address).add_done_callback(lambda f: f.result())
                one.reload_certificates()
            for each in (one, two):
                for connection in each.connections():
                    assert connection.tls_version
                    connection.disconnect()
                each.stop_listening()
                each.need_mutual_tls = bool(turn)
    assert watch.contexts >= 4 and len(watch.threads) >= 4
    assert watch.changed == []
    assert {len(threads) for threads in watch.threads.values()} == {1}
    assert "MainThread" not in set().union(*watch.threads.values())
