"""What the tests of the codec share."""

from __future__ import annotations

from pathlib import Path

from p2psip.errors import MessageParsingException
from p2psip.message import Malformed, Request, Response, StreamFramer

CORPUS = Path(__file__).resolve().parent.parent / "data" / "corpus"

HEADERS = [
    ("Via", "SIP/2.0/TLS a.example:5061;branch=z9hG4bKabc"),
    ("Max-Forwards", "70"),
    ("From", '"Alice" <sip:alice@a.example>;tag=from1'),
    ("To", "<sip:bob@b.example>"),
    ("Call-ID", "call@a.example"),
    ("CSeq", "7 MESSAGE"),
]


def request_bytes(
    *extra: str, method: str = "MESSAGE", uri: str = "sip:bob@b.example", body: bytes = b"", without: str = ""
) -> bytes:
    """A sound request, with these lines put in front of its header fields, and without one of them."""
    lines = [f"{method} {uri} SIP/2.0", *extra]
    for name, value in HEADERS:
        if name != without:
            lines.append(f"{name}: {value}".replace("7 MESSAGE", f"7 {method}"))
    if without != "Content-Length":
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + body


def torture() -> list[Path]:
    """The messages of RFC 4475."""
    return sorted((CORPUS / "messages" / "rfc4475").glob("*.dat"))


def feed_all(framer: StreamFramer, data: bytes, size: int) -> tuple[list[object], MessageParsingException | None]:
    """Everything that comes out when the octets are fed in pieces of this size, and the error that ended it."""
    framed: list[object] = []
    for start in range(0, len(data), size):
        try:
            framed += framer.feed(data[start : start + size])
        except MessageParsingException as error:
            return framed, error
        if framer.error is not None:
            return framed, framer.error
    return framed, None


def octets(message: object) -> bytes:
    assert isinstance(message, Request | Response | Malformed)
    return message.data if isinstance(message, Malformed) else message.to_bytes()
