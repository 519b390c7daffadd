"""Messages made by the grammar of RFC 3261 25.1, with white space, folding and compact forms wherever they may stand.

Each rule is a function of :class:`Choices`, which takes its decisions from octets: Hypothesis makes those quickly, and
shrinks them to simple messages, because no octets mean the first choice everywhere.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

T = TypeVar("T")


class Choices:
    """Decisions, one octet for each."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self._position = 0

    def number(self, below: int) -> int:
        """0 to ``below``, at most 256, without it; 0 when there are no octets left."""
        position = self._position
        self._position += 1
        return self._octets[position] % below if position < len(self._octets) else 0

    def pick(self, choices: Sequence[T]) -> T:
        return choices[self.number(len(choices))]

    def maybe(self, make: Callable[[Choices], str]) -> str:
        return make(self) if self.number(2) else ""

    def some(self, make: Callable[[Choices], str], least: int = 0, most: int = 3) -> list[str]:
        return [make(self) for _ in range(least + self.number(most - least + 1))]

    def large(self, maximum: int) -> int:
        """0 to ``maximum``: small ones, large ones, and those at both ends."""
        kind = self.number(4)
        if kind < 2:
            return (0, maximum)[kind] if self.number(2) else self.number(256) % (maximum + 1)
        return int.from_bytes(bytes(self.number(256) for _ in range(4)), "big") % (maximum + 1)

    def text(self, alphabet: str, least: int = 1, most: int = 6) -> str:
        return "".join(self.pick(alphabet) for _ in range(least + self.number(most - least + 1)))


# ---------------------------------------------------------------------- words

ALPHANUMERIC = string.ascii_letters + string.digits
TOKEN_CHARACTERS = ALPHANUMERIC + "-.!%*_+`'~"
WORD_CHARACTERS = TOKEN_CHARACTERS + '()<>:\\"/[]?{}'
UNRESERVED = ALPHANUMERIC + "-_.!~*'()"
TEXT_CHARACTERS = ALPHANUMERIC + " !#$%&'()*+,-./:;<=>?@[]^_`{|}~\t\x80\xe9\u0661\u4e2d\U0001f600\u2028\x85"
"""UTF-8 that may stand in a quoted-string and in free text; some of it is white space or digits to Python."""


def space(choose: Choices) -> str:
    """SWS: nothing, white space, or a folded line."""
    return choose.pick(["", "", "", "", " ", "\t", " \t ", "\r\n ", " \r\n\t"])


def gap(choose: Choices) -> str:
    """LWS"""
    return choose.pick([" ", " ", " ", "\t", "  ", "\r\n ", " \r\n\t "])


def token(choose: Choices) -> str:
    return choose.text(TOKEN_CHARACTERS)


def word(choose: Choices) -> str:
    return choose.text(WORD_CHARACTERS)


def quoted(choose: Choices) -> str:
    def part(choose: Choices) -> str:
        if choose.number(4):
            return choose.text(TEXT_CHARACTERS, most=3)
        character = chr(choose.number(128))
        return "\\" + ("x" if character in "\r\n" else character)

    return '"' + "".join(choose.some(part)) + '"'


def label(choose: Choices) -> str:
    return choose.text(ALPHANUMERIC, most=4)


def host(choose: Choices) -> str:
    kind = choose.number(8)
    if kind == 1:
        return ".".join(str(choose.number(256)) for _ in range(4))
    if kind == 2:
        return choose.pick(["[::1]", "[2001:db8::9:255]", "[::ffff:192.0.2.1]", "[fe80:0:0:0:1:2:3:4]"])
    labels = [
        f"{label(choose)}-{label(choose)}" if choose.number(4) == 3 else label(choose) for _ in range(choose.number(3))
    ]
    return ".".join([*labels, choose.pick(string.ascii_letters) + choose.maybe(label)]) + choose.pick(["", "", "", "."])


def port(choose: Choices) -> str:
    return str(1 + choose.large(65534))


def escaped(alphabet: str, least: int = 1) -> Callable[[Choices], str]:
    """Characters of the alphabet and escapes."""

    def make(choose: Choices) -> str:
        def part(choose: Choices) -> str:
            return choose.pick(alphabet) if choose.number(5) else f"%{choose.number(256):02X}"

        return "".join(choose.some(part, least, 5))

    return make


user = escaped(UNRESERVED + "&=+$,;?/")
password = escaped(UNRESERVED + "&=+$,", 0)
uri_part = escaped(UNRESERVED + "[]/:&+$")
header_part = escaped(UNRESERVED + "[]/?:+$")


def parameters(
    choose: Choices,
    separator: Callable[[Choices], str],
    name: Callable[[Choices], str],
    value: Callable[[Choices], str],
) -> str:
    """Any of them, each name once, and none that means anything."""
    text = ""
    for number in range(choose.number(4)):
        text += f"{separator(choose)}x{number}{name(choose)}"
        if choose.number(3):
            text += equals(choose) + value(choose) if separator is semicolon else "=" + value(choose)
    return text


def semicolon(choose: Choices) -> str:
    return f"{space(choose)};{space(choose)}"


def equals(choose: Choices) -> str:
    return f"{space(choose)}={space(choose)}"


def generic(choose: Choices) -> str:
    """Parameters of a header field."""
    return parameters(choose, semicolon, token, lambda choose: choose.pick([token, quoted, host])(choose))


# ---------------------------------------------------------------------- URIs and addresses


def plain_uri(choose: Choices) -> str:
    text = choose.pick(["sip:", "sips:", "SIP:"])
    if choose.number(4):
        text += user(choose) + choose.maybe(lambda choose: ":" + password(choose)) + "@"
    return text + host(choose) + choose.maybe(lambda choose: ":" + port(choose))


def request_uri(choose: Choices) -> str:
    if choose.number(8) == 7:
        return choose.pick(["tel:+49-30-1;phone-context=x", "urn:service:sos", "mailto:a@b.example"])
    return plain_uri(choose) + parameters(choose, lambda choose: ";", uri_part, uri_part)


def uri(choose: Choices) -> str:
    """With headers, which only some places take."""
    text = request_uri(choose)
    if text[:3].lower() == "sip" and choose.number(3) == 2:
        pairs = choose.some(lambda choose: f"{header_part(choose)}={header_part(choose)}", 1)
        text += "?" + "&".join(pairs)
    return text


def bracketed(choose: Choices, make: Callable[[Choices], str] = uri) -> str:
    kind = choose.number(3)
    if kind == 1:
        name = "".join(token(choose) + gap(choose) for _ in range(choose.number(3)))
    else:
        name = quoted(choose) + space(choose) if kind else ""
    return f"{name}<{make(choose)}>"


def address(choose: Choices) -> tuple[str, str | None]:
    """A value of From or To, and its tag."""
    bare = plain_uri(choose)
    # RFC 3261 20: what has a comma, a question mark or a semicolon needs brackets.
    text = bare if choose.number(4) == 3 and not set(bare) & set(",?;") else bracketed(choose, request_uri)
    text += generic(choose)
    if not choose.number(3):
        return text, None
    tag = token(choose)
    return f"{text}{semicolon(choose)}tag{equals(choose)}{tag}", tag


def via(choose: Choices) -> tuple[str, str]:
    """One value, and its branch."""
    slash = f"{space(choose)}/{space(choose)}"
    transport = choose.pick(["TLS", "TCP", "UDP", "X-1"])
    text = f"SIP{slash}2.0{slash}{transport}{gap(choose)}{host(choose)}"
    text += choose.maybe(lambda choose: f"{space(choose)}:{space(choose)}{port(choose)}")
    branch = "z9hG4bK" + token(choose)
    known = choose.pick(["", ";rport", ";rport=5061", ";ttl=255", ";received=2001:db8::1", ";maddr=192.0.2.1"])
    return f"{text}{semicolon(choose)}branch{equals(choose)}{branch}{known}{generic(choose)}", branch


# ---------------------------------------------------------------------- messages


class Meant(NamedTuple):
    """A message, and what it is to be understood as."""

    octets: bytes
    start_line: str
    branches: list[str]
    from_tag: str | None
    to_tag: str | None
    call_id: str
    number: int
    method: str
    body: bytes


NAMES = {
    "via": ("Via", "v", "VIA"),
    "from": ("From", "f", "fROM"),
    "to": ("To", "t"),
    "call-id": ("Call-ID", "i", "call-id"),
    "cseq": ("CSeq", "cSEQ"),
    "content-length": ("Content-Length", "l", "CONTENT-LENGTH"),
    "contact": ("Contact", "m"),
}

OTHERS: tuple[tuple[str, Callable[[Choices], str]], ...] = (
    ("Max-Forwards", lambda choose: str(choose.large(255))),
    ("Contact", lambda choose: bracketed(choose) + generic(choose)),
    ("Expires", lambda choose: str(choose.large(2**32 - 1))),
    ("Supported", lambda choose: f"{space(choose)},{space(choose)}".join(choose.some(token, 1))),
    ("Route", lambda choose: f"<{plain_uri(choose)};lr>{generic(choose)}"),
    ("Warning", lambda choose: f"399 {token(choose)} {quoted(choose)}"),
    ("Authorization", lambda choose: f"Digest{gap(choose)}realm{equals(choose)}{quoted(choose)}, x={token(choose)}"),
    ("Retry-After", lambda choose: f"{choose.large(99)}{space(choose)}(a (b\\)) c){generic(choose)}"),
    ("Subject", lambda choose: choose.text(TEXT_CHARACTERS, 0, 12)),
)
METHODS = ("INVITE", "ACK", "CANCEL", "MESSAGE", "SUBSCRIBE")


def well_formed(choose: Choices) -> Meant:
    """A request or a response with all that it must have."""
    method = token(choose) if choose.number(4) == 3 else choose.pick(METHODS)
    if choose.number(2):
        start_line = f"SIP/2.0 {100 + choose.large(599)} {choose.text(TEXT_CHARACTERS, 0, 8)}"
    else:
        start_line = f"{method} {request_uri(choose)} {choose.pick(['SIP/2.0', 'sip/2.0'])}"
    values = [via(choose) for _ in range(1 + choose.number(3))]
    from_, from_tag = address(choose)
    to, to_tag = address(choose)
    call_id = word(choose) + choose.maybe(lambda choose: "@" + word(choose))
    number = choose.large(2**31 - 1)
    body = bytes(choose.number(256) for _ in range(choose.number(20)))
    vias = [value for value, _ in values]
    if choose.number(2):  # in one line
        vias = [f"{space(choose)},{space(choose)}".join(vias)]
    fields = [
        *(("from", from_), ("to", to), ("call-id", call_id), ("cseq", f"{number}{gap(choose)}{method}")),
        ("content-length", str(len(body))),
        *((name.lower(), make(choose)) for name, make in OTHERS if choose.number(8) == 7),
    ]
    ordered: list[tuple[str, str]] = []
    for field in fields:
        ordered.insert(choose.number(len(ordered) + 1), field)
    places = sorted(choose.number(len(ordered) + 1) for _ in vias)
    for value, place in zip(reversed(vias), reversed(places), strict=True):
        ordered.insert(place, ("via", value))
    lines = [line(choose, name, value) for name, value in ordered]
    octets = "\r\n".join([start_line, *lines, "", ""]).encode() + body
    return Meant(octets, start_line, [b for _, b in values], from_tag, to_tag, call_id, number, method, body)


def line(choose: Choices, name: str, value: str) -> str:
    name = choose.pick(NAMES.get(name, (name,)))
    return f"{name}{choose.pick(['', '', '', ' ', chr(9)])}:{space(choose)}{value}{choose.pick(['', '', ' '])}"


# ---------------------------------------------------------------------- nearly well-formed, and hostile

PIECES: tuple[bytes, ...] = (
    *(b"\r\n", b"\r\n\r\n", b"\r", b"\n", b"\0", b" ", b"\t", b'"', b"\\", b"<", b">", b";", b",", b":", b"=", b"@"),
    *(b"%", b"%4", b"/", b"?", b"&", b"(", b")", b"[", b"]", b"*", b"\xff", b"\xc3\xa9", b"\xc3", b"0", b"-1", b"a"),
    *(
        b"99999999999",
        b"4294967296",
        b"INVITE",
        b"ACK",
        b"SIP/2.0",
        b"SIP/3.0",
        b"sip:",
        b"sip:a@b",
        b"<sip:a>",
        b";tag=",
    ),
    *(b"Via: SIP/2.0/TLS a;branch=z9hG4bK1", b"From: ", b"To: ", b"Call-ID: c", b"CSeq: 1 INVITE", b"l: 0", b"l: 5"),
    *(b"Content-Length: 3", b"\r\nContent-Length: 3\r\n", b"\r\n folded", b"\r\nTo:", b"x" * 300, b"\xd9\xa1", b"\x7f"),
)


def mutated(choose: Choices, octets: bytes, most: int = 3) -> bytes:
    """Octets of which a little was replaced, removed, put in or doubled."""
    for _ in range(1 + choose.number(most)):
        at = choose.large(len(octets))
        length = choose.pick([0, 0, 1, 1, 2, 5, 40])
        piece = choose.pick(PIECES) if choose.number(3) else bytes([choose.number(256)])
        if choose.number(6) == 5:
            there = choose.large(len(octets))
            piece = octets[there : there + choose.number(60)]
        octets = octets[:at] + piece + octets[at + length :]
    return octets


def near_valid(choose: Choices) -> bytes:
    return mutated(choose, well_formed(choose).octets)


def hostile(choose: Choices) -> bytes:
    """Pieces of messages in any order."""
    return b"".join(
        choose.pick(PIECES) if choose.number(4) else bytes([choose.number(256)]) for _ in range(choose.number(24))
    )


def anything(choose: Choices) -> bytes:
    kind = choose.number(3)
    return hostile(choose) if kind == 2 else near_valid(choose) if kind else well_formed(choose).octets


BETWEEN = (b"", b"", b"\r\n", b"\r\n\r\n", b"\r\n\r\n\r\n", b"\r", b"\n", b"garbage\r\n\r\n")
"""What may stand between messages: the first five of them do no harm."""


class Stream(NamedTuple):
    """Octets that come over one connection, where they are cut, and the messages in them, if they are sound."""

    octets: bytes
    cuts: list[int]
    messages: list[Meant]


def stream(choose: Choices, *, is_sound: bool) -> Stream:
    """Messages with line ends, pings and garbage between them."""
    octets, messages = b"", []
    for _ in range(choose.number(5)):
        octets += choose.pick(BETWEEN[:5] if is_sound else BETWEEN)
        if is_sound:
            messages.append(well_formed(choose))
            octets += messages[-1].octets
        else:
            octets += anything(choose)
    octets += choose.pick(BETWEEN[:5] if is_sound else BETWEEN)
    return Stream(octets, [choose.large(len(octets)) for _ in range(choose.number(8))], messages)
