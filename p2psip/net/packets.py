"""IP packets for files: what a TCP connection carried, as it could have been seen on the wire.

A program sees the octets of its connections and not their packets, so the packets are made up here around the octets:
with the right addresses, ports, numbers and checksums, so that whoever reads the file can follow the streams.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import NamedTuple

FIN, SYN, PSH, ACK = 0x01, 0x02, 0x08, 0x10
WINDOW = 65535
ACKNOWLEDGE_AT = 32768
"""Octets after which the other side acknowledges; below its window."""
SMALLEST_MTU = 1500
_TCP = 6
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Packet(NamedTuple):
    """One of them.

    Attributes:
        from_client: Who sent it.
        data: From the IP header on.
    """

    from_client: bool
    data: bytes


class Conversation:
    """One TCP connection. The octets are given in the order of the stream, each direction on its own.

    Args:
        client, server: ``(host, port)`` of who connected and of who was connected to.
    """

    def __init__(self, client: tuple[str, int], server: tuple[str, int]) -> None:
        hosts = [_address(client[0]), _address(server[0])]
        if {host.version for host in hosts} == {4, 6}:
            hosts = [ipaddress.IPv6Address(f"::ffff:{host}") if host.version == 4 else host for host in hosts]
        self._ipv6 = hosts[0].version == 6
        self._hosts = [host.packed for host in hosts]
        self._ports = [client[1], server[1]]
        self._next = [1, 1]  # the sequence number of what each side sends next; those of the SYNs are 0
        self._carried = [0, 0]
        self._identification = 0
        self._largest = SMALLEST_MTU - (60 if self._ipv6 else 40)

    def begin(self) -> list[Packet]:
        """The three packets in which it comes to be."""
        offer = struct.pack("!BBH", 2, 4, self._largest)  # maximum segment size
        return [
            self._packet(0, SYN, 0, 0, offer),
            self._packet(1, SYN | ACK, 0, 1, offer),
            self._packet(0, ACK, 1, 1),
        ]

    def carry(self, from_client: bool, data: bytes, offset: int | None = None) -> list[Packet]:
        """The segments with these octets, and the acknowledgements of the other side.

        Args:
            offset: How many octets of this direction came before them, those that are not shown as well.
        """
        side = 0 if from_client else 1
        if offset is not None:
            self._next[side] = (1 + offset) & 0xFFFFFFFF
        packets, since = [], 0
        for start in range(0, len(data), self._largest):
            piece = data[start : start + self._largest]
            packets.append(self._packet(side, PSH | ACK, self._next[side], self._next[1 - side], b"", piece))
            self._next[side] = (self._next[side] + len(piece)) & 0xFFFFFFFF
            since += len(piece)
            if since >= ACKNOWLEDGE_AT or start + len(piece) == len(data):
                packets.append(self._packet(1 - side, ACK, self._next[1 - side], self._next[side]))
                since = 0
        return packets

    def end(self, by_client: bool) -> list[Packet]:
        """The packets in which it ends, by whoever closed it first."""
        first = 0 if by_client else 1
        second = 1 - first
        packets = [self._packet(first, FIN | ACK, self._next[first], self._next[second])]
        self._next[first] = (self._next[first] + 1) & 0xFFFFFFFF
        packets.append(self._packet(second, FIN | ACK, self._next[second], self._next[first]))
        self._next[second] = (self._next[second] + 1) & 0xFFFFFFFF
        packets.append(self._packet(first, ACK, self._next[first], self._next[second]))
        return packets

    def _packet(
        self, side: int, flags: int, sequence: int, acknowledged: int, options: bytes = b"", data: bytes = b""
    ) -> Packet:
        source, destination = self._hosts[side], self._hosts[1 - side]
        ports = (self._ports[side], self._ports[1 - side])
        length = 20 + len(options) + len(data)
        words = (5 + len(options) // 4) << 4
        head = struct.pack("!HHIIBBHHH", *ports, sequence, acknowledged, words, flags, WINDOW, 0, 0)
        pseudo = (
            source
            + destination
            + struct.pack(
                "!II" if self._ipv6 else "!HH", length if self._ipv6 else _TCP, _TCP if self._ipv6 else length
            )
        )
        tcp = head + options + data
        checksum = struct.pack("!H", internet_checksum(pseudo + tcp))
        tcp = tcp[:16] + checksum + tcp[18:]
        if self._ipv6:
            return Packet(side == 0, struct.pack("!IHBB", 6 << 28, length, _TCP, 64) + source + destination + tcp)
        self._identification = (self._identification + 1) & 0xFFFF
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, self._identification, 0x4000, 64, _TCP, 0)
        ip += source + destination
        return Packet(side == 0, ip[:10] + struct.pack("!H", internet_checksum(ip)) + ip[12:] + tcp)


def internet_checksum(data: bytes) -> int:
    """RFC 1071. The sum in one's complement of words of 16 bits is what is left when they are divided, as one number, by
    0xffff."""
    if len(data) % 2:
        data += b"\0"
    return ~(int.from_bytes(data, "big") % 0xFFFF) & 0xFFFF


def _address(host: str) -> _Address:
    """Tests connect what has no IP address."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return ipaddress.IPv4Address(0)
