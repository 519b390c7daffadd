"""Sockets that are tapped behave as all others do: the same tests of TLS, and what the tap is told."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import tls_support
from test_tls_socket import *  # noqa: F403 - the tests are run once more, with a tap
from test_tls_socket import both_roles, both_versions, connected, read_to_end
from tls_support import TLS12, bare, bare_context, contexts, ours_as_server, tcp_pair

from p2psip.errors import RealTimeException, TlsFailureException


class Recorder:
    """A tap that writes everything down."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.streams: dict[tuple[int, bool], bytes] = {}

    def opened(self, number: int, local: Any, remote: Any, is_incoming: bool) -> None:
        self.told.append(("opened", number, local, remote, is_incoming))

    def securing(self, number: int) -> None:
        self.told.append(("securing", number))

    def secured(self, number: int) -> None:
        self.told.append(("secured", number))

    def carried(self, number: int, is_sent: bool, offset: int, data: bytes) -> None:
        before = self.streams.get((number, is_sent), b"")
        assert offset == len(before)  # nothing is missing, and nothing comes twice
        self.streams[number, is_sent] = before + data

    @property
    def octets(self) -> dict[bool, bytes]:
        """Of the only connection."""
        return {is_sent: octets for (_, is_sent), octets in self.streams.items()}

    def closed(self, number: int, by_peer: bool) -> None:
        self.told.append(("closed", number, by_peer))


@pytest.fixture(autouse=True)
def tap(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    recorder = Recorder()
    monkeypatch.setattr(tls_support.TAPPING, "tap", recorder)
    yield recorder


def records(octets: bytes) -> list[tuple[int, bytes]]:
    """Kind and content of each record of TLS."""
    found = []
    while octets:
        length = int.from_bytes(octets[3:5], "big")
        assert octets[1:2] == b"\x03" and len(octets) >= 5 + length
        found.append((octets[0], octets[5 : 5 + length]))
        octets = octets[5 + length :]
    return found


@both_versions
@both_roles
def test_the_tap_sees_the_records_as_they_went_over_the_wire(
    as_server: bool, version: Any, sides: list[Any], tap: Recorder
) -> None:
    ours, _other = connected(sides, as_server, version)
    assert ours.socket.send(memoryview(b"INVITE sip:bob@example.com SIP/2.0\r\n")) > 0
    ours.socket.finish()
    ours.close()
    assert [entry[0] for entry in tap.told] == ["opened", "securing", "secured", "closed"]
    assert tap.told[0][4] is as_server
    for octets in tap.octets.values():
        assert b"INVITE" not in octets and b"hello" not in octets
        assert {kind for kind, _ in records(octets)} <= {20, 21, 22, 23}  # change cipher spec, alert, handshake, data
    hello = tap.octets[not as_server]
    assert hello[0] == 22 and hello[5] == 1  # ClientHello


def test_the_alert_leaves_with_the_error(sides: list[Any], tap: Recorder) -> None:
    """As with ``SSLSocket``: nobody has to ask for it."""
    client, server = tcp_pair(sides)
    other = bare(bare_context(server=False, version=TLS12), client)  # shows no certificate
    ours = ours_as_server(contexts(), server)
    sides += [ours, other]
    with pytest.raises(TlsFailureException):
        while True:
            other.step()
            ours.socket.handshake()
    assert records(tap.octets[True])[-1][0] == 21


def test_whose_end_it_was_is_told(sides: list[Any], tap: Recorder) -> None:
    ours, other = connected(sides, True)
    other.close()
    with contextlib.suppress(RealTimeException):  # without a close_notify it is an error
        read_to_end(ours)
    ours.close()
    ours.close()
    assert [entry[2] for entry in tap.told if entry[0] == "closed"] == [True]


def test_without_a_tap_the_socket_is_the_same(sides: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_support.TAPPING, "tap", None)
    client, _server = tcp_pair(sides)
    assert tls_support.TAPPING.on(client, ("", 0), ("", 0), False) is client


def test_tcp_is_tapped_as_well(sides: list[Any], tap: Recorder) -> None:
    client, server = tcp_pair(sides)
    tapped = tls_support.TAPPING.on(client, client.getsockname(), client.getpeername(), False)
    sides.append(tapped)
    assert tapped.send(memoryview(b"hello")) == 5
    assert tapped.getsockname() == server.getpeername()
    server.setblocking(True)
    server.sendall(server.recv(5).upper())
    tapped.setblocking(True)
    assert tapped.recv(100) == b"HELLO"
    tapped.close()
    assert tap.octets == {True: b"hello", False: b"HELLO"}
    assert tap.told[-1][2] is False
