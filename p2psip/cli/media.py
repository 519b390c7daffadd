"""Descriptions of sessions (SDP, RFC 8866): out of a file, or one of an audio stream that is taken and thrown away."""

from __future__ import annotations

import ipaddress
import socket
import time
from pathlib import Path

from p2psip import ContentDescription
from p2psip.cli.exits import CommandError, ExitCode

_TYPE = "application/sdp"
_FORMATS = {"0": "PCMU/8000", "8": "PCMA/8000"}
_OPPOSITE = {"sendonly": "recvonly", "recvonly": "sendonly", "inactive": "inactive", "sendrecv": "sendrecv"}


class Media:
    """What we say of our media.

    Args:
        path: A file with the SDP; None makes one, with the address that peers see and a port that is ours.
        peer: An address that we talk to, which decides which of ours is told.

    Raises:
        CommandError: The file cannot be read.
    """

    def __init__(self, path: str | None, peer: str = "") -> None:
        self._text: bytes | None = None
        self._socket: socket.socket | None = None
        if path is not None:
            try:
                self._text = Path(path).read_bytes()
            except OSError as error:
                raise CommandError(f"{path} cannot be read: {error.strerror}.", ExitCode.USAGE) from error
            return
        self._address = _own_address(peer)
        self._socket = _even_port(self._address)
        self._id = int(time.time())
        self._version = 0

    def close(self) -> None:
        """Give the port back."""
        if self._socket is not None:
            self._socket.close()

    def offer(self) -> ContentDescription:
        """What we offer."""
        if self._text is not None:
            return ContentDescription(_TYPE, self._text)
        return self._describe([self._audio(list(_FORMATS), "sendrecv")])

    def answer(self, offer: ContentDescription | None) -> ContentDescription:
        """What answers it: our audio for the first audio of the offer that we understand, nothing for the rest."""
        if self._text is not None or offer is None:
            return self.offer()
        streams: list[list[str]] = []
        taken = False
        direction = "sendrecv"
        sections = offer.text_body.splitlines() if offer.text_body else []
        for index, line in enumerate(sections):
            if line.startswith("a=") and not streams and line[2:] in _OPPOSITE:
                direction = line[2:]
            if not line.startswith("m="):
                continue
            words = line[2:].split()
            formats = [word for word in words[3:] if word in _FORMATS]
            if len(words) > 3 and words[0] == "audio" and words[1] != "0" and formats and not taken:
                own = direction
                for later in sections[index + 1 :]:
                    if later.startswith("m="):
                        break
                    own = later[2:] if later.startswith("a=") and later[2:] in _OPPOSITE else own
                taken = True
                streams.append(self._audio(formats, _OPPOSITE[own], words[2]))
            elif len(words) > 3:
                streams.append([f"m={words[0]} 0 {' '.join(words[2:])}"])
        return self._describe(streams) if streams else self.offer()

    def _audio(self, formats: list[str], direction: str, profile: str = "RTP/AVP") -> list[str]:
        assert self._socket is not None
        port = self._socket.getsockname()[1]
        maps = [f"a=rtpmap:{number} {_FORMATS[number]}" for number in formats]
        return [f"m=audio {port} {profile} {' '.join(formats)}", *maps, f"a={direction}"]

    def _describe(self, streams: list[list[str]]) -> ContentDescription:
        self._version += 1
        where = f"IN IP{ipaddress.ip_address(self._address).version} {self._address}"
        head = ["v=0", f"o=- {self._id} {self._version} {where}", "s=p2psip", f"c={where}", "t=0 0"]
        lines = head + [line for stream in streams for line in stream]
        return ContentDescription(_TYPE, "\r\n".join(lines) + "\r\n")


def _own_address(peer: str) -> str:
    """The address from which the peer would be reached; nothing is sent for that."""
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(peer or "192.0.2.1", 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(where)
            return str(probe.getsockname()[0]).partition("%")[0]
    except OSError:
        return "127.0.0.1"


def _even_port(address: str) -> socket.socket:
    """A UDP port that is ours while the call is up: RTP likes even ones (RFC 3550 11)."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    odd: list[socket.socket] = []
    try:
        while True:
            found = socket.socket(family, socket.SOCK_DGRAM)
            found.bind((address, 0))
            if found.getsockname()[1] % 2 == 0 or len(odd) > 50:
                return found
            odd.append(found)
    finally:
        for each in odd:
            each.close()
