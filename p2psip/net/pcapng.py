"""Files of packets that Wireshark opens: the blocks of pcapng (draft-ietf-opsawg-pcapng) that are needed here."""

from __future__ import annotations

import struct

RAW_IP = 101
"""LINKTYPE_RAW: a packet begins with its IP header."""
TLS_KEY_LOG = 0x544C534B
"""The secrets of a Decryption Secrets Block are lines of a key log file, as NSS began to write them."""

_COMMENT, _END = 1, 0
_ALIGNMENT = 4


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _ALIGNMENT)


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + _padded(value)


def _options(*options: bytes) -> bytes:
    return b"".join(options) + struct.pack("<HH", _END, 0) if options else b""


def _block(kind: int, body: bytes) -> bytes:
    length = struct.pack("<I", 12 + len(body))
    return struct.pack("<I", kind) + length + body + length


def section_header(application: str) -> bytes:
    """The first block of a file; says which program wrote it."""
    body = struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)
    return _block(0x0A0D0D0A, body + _options(_option(4, application.encode())))


def interface(name: str) -> bytes:
    """What the packets were seen on; the only one, so it has the number 0. Its times are microseconds."""
    return _block(1, struct.pack("<HHI", RAW_IP, 0, 0) + _options(_option(2, name.encode())))


def secrets(key_log: bytes) -> bytes:
    """Lines of a TLS key log. Readers want them before the packets that they open."""
    return _block(0x0A, struct.pack("<II", TLS_KEY_LOG, len(key_log)) + _padded(key_log))


def packet(when: float, data: bytes, *, is_sent: bool, comment: str = "") -> bytes:
    """One packet; ``when`` is seconds since the epoch."""
    options = [_option(2, struct.pack("<I", 2 if is_sent else 1))]
    if comment:
        options.append(_option(_COMMENT, comment.encode()))
    high, low = divmod(int(when * 1_000_000), 1 << 32)
    head = struct.pack("<IIIII", 0, high, low, len(data), len(data))
    return _block(6, head + _padded(data) + _options(*options))


def interface_statistics(when: float, received: int, dropped: int, comment: str) -> bytes:
    """The last block: how much was seen, and how much of it is missing."""
    high, low = divmod(int(when * 1_000_000), 1 << 32)
    options = [_option(_COMMENT, comment.encode())]
    options += [_option(4, struct.pack("<Q", received)), _option(5, struct.pack("<Q", dropped))]
    return _block(5, struct.pack("<III", 0, high, low) + _options(*options))
