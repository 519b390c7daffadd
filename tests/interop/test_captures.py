"""What tshark sees in the files of ``manager.capture_to``: plain SIP, also where it went over TLS."""

from __future__ import annotations

import contextlib
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from interop_support import require

from p2psip import (
    IPAddress,
    IPEndPoint,
    MessageType,
    RealTimeServerConnectionManager,
    RealTimeServerTcpConnectionManager,
    SignalingSession,
    SipPeerToPeerEndpoint,
    SipTransportType,
)
from p2psip.testing import CertificateAuthority, MemoryNetwork, living_in, tls_manager

pytestmark = pytest.mark.interop

BOUND = 20.0
TCP, TLS = SipTransportType.TCP, SipTransportType.TLS
CASES = [
    (TLS, "TLSv1.3", "192.0.2.2"),
    (TLS, "TLSv1.3", "2001:db8::2"),
    (TLS, "TLSv1.2", "192.0.2.2"),
    (TLS, "TLSv1.2", "2001:db8::2"),
    (TCP, None, "192.0.2.2"),
    (TCP, None, "2001:db8::2"),
]


class Two(NamedTuple):
    """Alice and Bob, who listens at SIP's own port."""

    alice: SipPeerToPeerEndpoint
    bob: SipPeerToPeerEndpoint


@contextlib.contextmanager
def two(transport: SipTransportType, version: str | None, host: str, authority: CertificateAuthority) -> Iterator[Two]:
    with MemoryNetwork() as network, contextlib.ExitStack() as end:
        managers: list[RealTimeServerConnectionManager] = []
        for name, address in (("alice.example", host[:-1] + "1"), ("bob.example", host)):
            network.hosts[name] = [address]
            with living_in(network.machine(address)):
                made = tls_manager(authority, name) if transport is TLS else RealTimeServerTcpConnectionManager(name)
            managers.append(end.enter_context(made))
        anywhere = IPAddress.IPV6_ANY if ":" in host else IPAddress.ANY
        managers[1].start_listening(IPEndPoint(anywhere, 5061 if transport is TLS else 5060))
        alice, bob = (
            SipPeerToPeerEndpoint(f"sip:{name}@{name}.example", manager)
            for name, manager in zip(("alice", "bob"), managers, strict=True)
        )
        bob.message_received += lambda sender, args: None
        bob.session_received += lambda sender, args: args.session.accept()
        if version == "TLSv1.2":
            contexts = managers[0]._stack.network._tls
            assert contexts is not None
            contexts._client.maximum_version = ssl.TLSVersion.TLSv1_2
        yield Two(alice, bob)


def tshark(path: Path, *arguments: str) -> list[str]:
    command = [require("tshark", "tshark"), "-n", "-r", str(path), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def fields(path: Path, wanted: str, *names: str, options: tuple[str, ...] = ()) -> list[list[str]]:
    arguments = [word for name in names for word in ("-e", name)]
    return [line.split("\t") for line in tshark(path, *options, "-Y", wanted, "-T", "fields", *arguments)]


def talk(alice: SipPeerToPeerEndpoint, bob: SipPeerToPeerEndpoint) -> list[str]:
    """Messages short and long, and a call. What should be seen, in order."""
    for body in ("hello", "x" * 40_000):
        alice.send_message(MessageType.MESSAGE, bob.uri, body=body, timeout=BOUND)
    call = SignalingSession(alice, bob.uri)
    call.establish(timeout=BOUND)
    call.terminate()
    return ["MESSAGE", "200", "MESSAGE", "200", "INVITE", "200", "ACK", "BYE", "200"]


@pytest.mark.parametrize(("transport", "version", "host"), CASES, ids=lambda value: str(getattr(value, "name", value)))
def test_tshark_shows_the_sip_of_our_captures(
    transport: SipTransportType, version: str | None, host: str, tmp_path: Path
) -> None:
    require("tshark", "tshark")
    authority = CertificateAuthority()
    with two(transport, version, host, authority) as (alice, bob):
        capture = bob.connection_manager.capture_to(tmp_path / "bob.pcapng")
        expected = talk(alice, bob)
        assert bob.connection_manager.connections()[0].tls_version == version
        alice.connection_manager.dispose()
        capture.close()
    path = tmp_path / "bob.pcapng"
    below = "tls" if transport is TLS else "tcp"
    checks = ("-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE")
    wrong = "_ws.malformed || tcp.analysis.flags || tcp.checksum.status == 0 || ip.checksum.status == 0"
    wrong += " || _ws.expert.severity >= 6291456"
    seen = fields(
        path, f"(sip && {below}) || {wrong}", "sip.Method", "sip.Status-Code", "sip.Content-Length", options=checks
    )
    # Messages that were written together are in one packet; one that is wrong in any way would be a line of its own.
    words = [word for frame in seen for word in (",".join(frame[:2]).strip(",") or "wrong").split(",")]
    assert [word for word in words if word not in ("", "100")] == expected
    assert seen[2][2] == "40000"  # of many segments and records, put together again


def test_without_the_keys_nothing_would_be_seen(tmp_path: Path) -> None:
    """That it is the keys in the file which open it: the same packets without them are closed."""
    require("tshark", "tshark")
    with two(TLS, None, "192.0.2.2", CertificateAuthority()) as (alice, bob):
        capture = bob.connection_manager.capture_to(tmp_path / "bob.pcapng")
        talk(alice, bob)
        capture.close()
    octets, kept = (tmp_path / "bob.pcapng").read_bytes(), b""
    while octets:
        length = int.from_bytes(octets[4:8], "little")
        if octets[:4] != b"\x0a\0\0\0":
            kept += octets[:length]
        octets = octets[length:]
    (tmp_path / "closed.pcapng").write_bytes(kept)
    assert tshark(tmp_path / "closed.pcapng", "-Y", "sip") == []
    assert len(tshark(tmp_path / "closed.pcapng", "-Y", "tls.record.content_type == 23 || tls.app_data")) > 5
    assert len(tshark(tmp_path / "bob.pcapng", "-Y", "sip")) >= 6


def test_both_sides_and_several_connections_in_one_file(tmp_path: Path) -> None:
    require("tshark", "tshark")
    with two(TLS, None, "192.0.2.2", CertificateAuthority()) as (alice, bob):
        capture = alice.connection_manager.capture_to(tmp_path / "alice.pcapng")
        for _ in range(3):
            alice.send_message(MessageType.MESSAGE, bob.uri, body="hello", timeout=BOUND)
            for connection in alice.connection_manager.connections():
                connection.disconnect()
        capture.close()
    seen = fields(tmp_path / "alice.pcapng", "sip", "tcp.stream", "sip.Method", "sip.Status-Code")
    assert [method or code for _, method, code in seen] == ["MESSAGE", "200"] * 3
    assert len({stream for stream, _, _ in seen}) == 3


def test_a_port_that_is_not_sips_own_has_to_be_named(tmp_path: Path) -> None:
    """As the documentation says: over real sockets, and with the port told to tshark."""
    require("tshark", "tshark")
    authority = CertificateAuthority()
    with tls_manager(authority, "localhost") as one, tls_manager(authority, "127.0.0.1") as other:
        other.start_listening(IPEndPoint(IPAddress.LOOPBACK, 0))
        port = other.listening_port
        bob = SipPeerToPeerEndpoint("sip:bob@127.0.0.1", other)
        bob.message_received += lambda sender, args: None
        with other.capture_to(tmp_path / "a.pcapng"):
            alice = SipPeerToPeerEndpoint("sip:alice@localhost", one)
            alice.send_message(MessageType.MESSAGE, bob.uri, body="hello", timeout=BOUND)
    lines = tshark(tmp_path / "a.pcapng", "-d", f"tls.port=={port},sip", "-Y", "sip")
    assert ["MESSAGE" in lines[0], "200 OK" in lines[1]] == [True, True]
