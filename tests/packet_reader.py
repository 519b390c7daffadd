"""Reads files of packets, as plainly as can be, to see whether ours say what they should."""

from __future__ import annotations

import ipaddress
import struct
from pathlib import Path
from typing import NamedTuple


class Segment(NamedTuple):
    """One TCP segment."""

    source: tuple[str, int]
    destination: tuple[str, int]
    sequence: int
    acknowledged: int
    flags: int
    data: bytes


class Frame(NamedTuple):
    """One packet of a file."""

    when: float
    is_sent: bool
    comment: str
    segment: Segment


class CaptureContents:
    """All of a file.

    Attributes:
        kinds: The types of its blocks, in order.
        application, interface: Names.
        secrets: What each Decryption Secrets Block holds.
        frames: The packets.
        dropped, ending: Of the statistics at the end.
    """

    def __init__(self, path: Path) -> None:
        self.kinds: list[int] = []
        self.application = self.interface = self.ending = ""
        self.secrets: list[bytes] = []
        self.frames: list[Frame] = []
        self.dropped = -1
        octets = path.read_bytes()
        while octets:
            kind, length = struct.unpack_from("<II", octets)
            assert length % 4 == 0 and length >= 12
            assert struct.unpack_from("<I", octets, length - 4) == (length,)
            self.kinds.append(kind)
            self._block(kind, octets[8 : length - 4])
            octets = octets[length:]

    def _block(self, kind: int, body: bytes) -> None:
        if kind == 0x0A0D0D0A:
            assert struct.unpack_from("<IHHq", body) == (0x1A2B3C4D, 1, 0, -1)
            self.application = _options(body[16:])[4].decode()
        elif kind == 1:
            assert struct.unpack_from("<HHI", body) == (101, 0, 0)
            self.interface = _options(body[8:])[2].decode()
        elif kind == 10:
            magic, length = struct.unpack_from("<II", body)
            assert magic == 0x544C534B
            self.secrets.append(body[8 : 8 + length])
        elif kind == 6:
            number, high, low, captured, original = struct.unpack_from("<IIIII", body)
            assert number == 0 and captured == original
            options = _options(body[20 + captured + (-captured % 4) :])
            (flags,) = struct.unpack("<I", options[2])
            self.frames.append(
                Frame(
                    (high << 32 | low) / 1e6,
                    {1: False, 2: True}[flags & 3],
                    options.get(1, b"").decode(),
                    segment(body[20 : 20 + captured]),
                )
            )
        elif kind == 5:
            options = _options(body[12:])
            (self.dropped,) = struct.unpack("<Q", options[5])
            assert struct.unpack("<Q", options[4]) == (len(self.frames),)
            self.ending = options[1].decode()
        else:
            raise AssertionError(f"a block of the unknown type {kind}")

    def stream(self, source: tuple[str, int]) -> bytes:
        """What that side said, put together by the sequence numbers; nothing may be missing."""
        pieces = sorted(
            (f.segment.sequence, f.segment.data) for f in self.frames if f.segment.source == source and f.segment.data
        )
        octets = b""
        for sequence, data in pieces:
            assert sequence == 1 + len(octets)
            octets += data
        return octets


def _options(octets: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while octets:
        code, length = struct.unpack_from("<HH", octets)
        if code == 0:
            assert len(octets) == 4
            break
        found[code] = octets[4 : 4 + length]
        octets = octets[4 + length + (-length % 4) :]
    return found


def segment(packet: bytes) -> Segment:
    """From the IP header on; lengths and checksums have to be right."""
    hosts: list[ipaddress.IPv4Address | ipaddress.IPv6Address]
    if packet[0] >> 4 == 4:
        assert packet[0] == 0x45 and packet[9] == 6
        assert struct.unpack_from("!H", packet, 2) == (len(packet),)
        assert _sum(packet[:20]) == 0xFFFF
        tcp, addresses = packet[20:], packet[12:20]
        hosts = [ipaddress.IPv4Address(addresses[:4]), ipaddress.IPv4Address(addresses[4:])]
        pseudo = addresses + struct.pack("!HH", 6, len(tcp))
    else:
        assert packet[0] >> 4 == 6 and packet[6] == 6
        assert struct.unpack_from("!H", packet, 4) == (len(packet) - 40,)
        tcp, addresses = packet[40:], packet[8:40]
        hosts = [ipaddress.IPv6Address(addresses[:16]), ipaddress.IPv6Address(addresses[16:])]
        pseudo = addresses + struct.pack("!II", len(tcp), 6)
    assert _sum(pseudo + tcp) == 0xFFFF
    source, destination, sequence, acknowledged, words, flags = struct.unpack_from("!HHIIBB", tcp)
    data = tcp[(words >> 4) * 4 :]
    return Segment((str(hosts[0]), source), (str(hosts[1]), destination), sequence, acknowledged, flags, data)


def _sum(octets: bytes) -> int:
    """RFC 1071, word for word."""
    octets += bytes(len(octets) % 2)
    total = sum(struct.unpack(f"!{len(octets) // 2}H", octets))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total
