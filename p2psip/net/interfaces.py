"""The addresses of this machine."""

from __future__ import annotations

import socket


def primary_address() -> str:
    """The address that this machine's packets bear on their way to others; loopback where there is no way.

    A datagram socket that is connected sends nothing, but learns which address it would send from. The target is one
    that nobody has (RFC 5737).
    """
    for family, target in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                sock.connect((target, 9))
                return str(sock.getsockname()[0]).partition("%")[0]
        except OSError:
            continue
    return "127.0.0.1"
