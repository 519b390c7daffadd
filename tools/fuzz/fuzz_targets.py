"""What is fuzzed: for each target a function of octets that raises where the library is wrong, and what to begin with.

The functions are plain: ``TARGETS["uri"].run(b"sip:a@b")``. What must hold stands beside the tests, which use it too.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

# What must hold is written beside the tests.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "net"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "core"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "message"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from conversations import CONVERSATIONS
from hostile_conversation import Conversation
from hostile_steps import octets_of, steps_of
from message_properties import (
    FIELDS,
    check_datagram,
    check_field,
    check_made,
    check_stream,
    check_uri,
)
from name_properties import check_issuer, check_serial, check_written_name
from value_properties import READ_BY_THE_CORE, check_challenge, check_reading

CORPUS = Path(__file__).resolve().parents[2] / "tests" / "data" / "corpus"


class Target(NamedTuple):
    """One of them.

    Attributes:
        run: Takes any octets; an exception is a finding.
        seeds: What the fuzzer begins with.
        longest: Octets of an input at most.
        modules: What it is there to reach: the parts of p2psip whose lines are counted in the end.
    """

    run: Callable[[bytes], object]
    seeds: Callable[[], Iterator[bytes]]
    longest: int
    modules: tuple[str, ...]


def text_of(octets: bytes) -> str:
    """As the parser decodes what it receives."""
    return octets.decode("utf-8", "surrogateescape")


# ---------------------------------------------------------------------- what is run


def run_stream(octets: bytes) -> None:
    """The first two octets say how the rest is cut into pieces."""
    first, second = octets[:2].ljust(2, b"\0")
    data = octets[2:]
    cuts = [first, first + second, len(data) // 2 + second % 16]
    if first == second:
        cuts = list(range(len(data)))
    check_stream(data, cuts)
    check_datagram(data)


def run_field(octets: bytes) -> None:
    """The first octet says which field it is."""
    check_field(FIELDS[octets[0] % len(FIELDS)] if octets else "via", text_of(octets[1:]))


def run_reading(octets: bytes) -> None:
    """The first octet says which field it is."""
    check_reading(READ_BY_THE_CORE[octets[0] % len(READ_BY_THE_CORE)] if octets else "Via", text_of(octets[1:]))


def run_digest(octets: bytes) -> None:
    """Challenges, and credentials in an Authorization."""
    text = text_of(octets)
    check_challenge(text)
    for name in ("WWW-Authenticate", "Proxy-Authenticate", "Authorization", "Authentication-Info"):
        check_reading(name, text)


def run_made(octets: bytes) -> None:
    """What an application gives: method, URI, reason, header fields and body, between octets of 255."""
    parts = [part.decode("utf-8", "surrogateescape") for part in octets.split(b"\xff")]
    method, uri, reason, *rest = parts + [""] * (3 - len(parts))
    *fields, body = rest or [""]
    headers = [(name, value) for name, _, value in (field.partition(":") for field in fields)]
    check_made(method, uri, reason, headers, body.encode("utf-8", "surrogateescape"))


def run_names(octets: bytes) -> None:
    """An issuer, and a serial number as octets and as text."""
    text = octets.decode("utf-8", "surrogatepass" if b"\xed" in octets else "replace") if is_utf8(octets) else ""
    check_issuer(text)
    check_written_name(text)
    check_serial(text)
    check_serial(octets)


def is_utf8(octets: bytes) -> bool:
    try:
        octets.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True


def run_engine(octets: bytes) -> None:
    """A conversation with a hostile peer."""
    Conversation(steps_of(octets)).run()


# ---------------------------------------------------------------------- what it begins with


def messages() -> Iterator[bytes]:
    for path in [*sorted(CORPUS.glob("streams/*.bin")), *sorted(CORPUS.glob("messages/**/*"))]:
        if path.is_file() and path.stat().st_size < 4000:
            octets = path.read_bytes()
            yield bytes([len(octets) % 256, len(octets) // 3 % 256]) + octets


def rows(*tables: str) -> Iterator[dict[str, Any]]:
    for table in tables:
        yield from json.loads((CORPUS / "tables" / f"{table}.json").read_text(encoding="utf-8"))["rows"]


def values(*tables: str) -> Iterator[tuple[str, bytes]]:
    """Names and values of the header fields in these tables."""
    for row in rows(*tables):
        _, colon, value = str(row.get("input", "")).partition(":")
        if colon and "header" in row:
            yield (row["header"].lower(), value.replace("\r\n", "").strip().encode("utf-8", "surrogateescape"))


def uris() -> Iterator[bytes]:
    for row in rows("uri"):
        yield str(row["input"]).encode("utf-8", "surrogateescape")


def fields() -> Iterator[bytes]:
    for name, value in values("header_values", "name_addr", "via", "auth_header", "date"):
        if name in FIELDS:
            yield bytes([FIELDS.index(name)]) + value


def fields_of_the_core() -> Iterator[bytes]:
    known = [name.lower() for name in READ_BY_THE_CORE]
    for name, value in values("header_values", "name_addr", "via", "auth_header"):
        if name in known:
            yield bytes([known.index(name)]) + value
    for name, text in (
        ("refer-to", "<sip:c@c.example;method=BYE?Replaces=a%40b%3Bto-tag%3D1%3Bfrom-tag%3D2&X=%0d%0a>"),
        ("replaces", "a@b;to-tag=1;from-tag=2;early-only"),
        ("session-expires", "1800;refresher=uac"),
        ("subscription-state", "terminated;reason=probation;retry-after=5"),
        ("event", "dialog;id=5"),
        ("rack", "1 2 INVITE"),
        ("p-asserted-identity", "<sip:a@b.example>, <tel:+1>"),
        ("record-route", "<sip:p.example;lr>, <sips:q.example>"),
    ):
        yield bytes([known.index(name)]) + text.encode()


def challenges() -> Iterator[bytes]:
    yield from (value for _, value in values("auth_header"))
    yield b'Digest realm="a\\"b", nonce="n\\\\", qop="auth,auth-int", opaque="o", algorithm=SHA-256-sess, stale=true'
    yield b'Digest username="x", realm="realm", nonce="0-a-b", uri="sip:a", response="0", qop=auth, nc=00000001'


def made() -> Iterator[bytes]:
    yield b"\xff".join([b"MESSAGE", b"sip:a@b", b"OK", b"Via: SIP/2.0/TLS a", b"Subject: \xc3\xa9", b"body"])
    yield b"\xff".join([b"INFO", b"tel:+1", b"", b"X:", b"l: 5", b""])


def names() -> Iterator[bytes]:
    yield from (b"CN=Example Root, O=Example\\, Inc., C=DE", b"/C=DE/O=a/b/CN=x", b"CN=#0c0161", b"OID.2.5.4.3=a+O=b")
    yield from (b'CN="a,b";O=\\c3\\a9', b"Example Root", b"5f:3a:00:c1", b"0x5F 3A", b"\x01\x00", b"1.2.3=x")


def conversations() -> Iterator[bytes]:
    for steps in CONVERSATIONS.values():
        yield octets_of(steps)


_MESSAGE = tuple(f"p2psip/message/{name}.py" for name in ("fields", "grammar", "uri", "values"))

TARGETS = {
    "stream": Target(run_stream, messages, 4096, ("p2psip/message/",)),
    "uri": Target(lambda octets: check_uri(text_of(octets)), uris, 512, ("p2psip/message/uri.py",)),
    "field": Target(run_field, fields, 512, _MESSAGE),
    "reading": Target(run_reading, fields_of_the_core, 512, ("p2psip/core/event_headers.py", "p2psip/core/uas.py")),
    "digest": Target(run_digest, challenges, 768, tuple(f"p2psip/core/{n}.py" for n in ("digest", "digest_demand"))),
    "made": Target(run_made, made, 1024, ("p2psip/message/headers.py", "p2psip/message/message.py")),
    "names": Target(run_names, names, 256, ("p2psip/net/names.py",)),
    "engine": Target(run_engine, conversations, 768, ("p2psip/core/",)),
}
"""By the name that ``run.py`` takes."""

DICTIONARY: tuple[bytes, ...] = (
    *(b"INVITE", b"ACK", b"CANCEL", b"BYE", b"MESSAGE", b"SIP/2.0", b"SIP/2.0/TLS ", b"SIP/2.0 200 OK\r\n"),
    *(b"\r\n", b"\r\n\r\n", b"\r\n ", b"\r", b"\n", b"\0", b"\t", b'"', b'\\"', b"\\\0", b"\xff", b"\xc3\xa9"),
    *(
        b"sip:",
        b"sips:",
        b"tel:",
        b"<sip:a@b>",
        b";tag=",
        b";branch=z9hG4bK",
        b";lr",
        b";maddr=",
        b";ttl=255",
        b";rport",
    ),
    *(
        b";received=::1",
        b";transport=tls",
        b"[::1]",
        b"192.0.2.1",
        b":5061",
        b"?a=b&c=d",
        b"%0d%0a",
        b"%",
        b"%41",
        b"@",
    ),
    *(b"\r\nVia: ", b"\r\nv:", b"\r\nFrom: ", b"\r\nTo: ", b"\r\nCall-ID: ", b"\r\nCSeq: 1 INVITE", b"\r\nContact: *"),
    *(b"\r\nContent-Length: 0", b"\r\nl: 4294967328", b"\r\nMax-Forwards: 256", b"\r\nRoute: ", b"\r\nRecord-Route: "),
    *(b"Digest ", b"realm=", b"nonce=", b"qop=", b"algorithm=", b"SHA-256", b"MD5-sess", b"opaque=", b"stale=true"),
    *(b"username=", b"uri=", b"response=", b"nc=00000001", b"cnonce=", b"userhash=true", b"auth-int", b"nextnonce="),
    *(b"active;expires=", b"terminated;reason=", b"retry-after=", b";id=", b"refresher=uac", b"to-tag=", b"from-tag="),
    *(
        b"early-only",
        b"100rel",
        b"timer",
        b"q=0.5",
        b"expires=",
        b"4294967296",
        b"2147483648",
        b"(a \\) b)",
        b"*",
        b",",
    ),
    *(b"Mon, 29 Feb 2016 23:59:60 GMT", b"text/plain;charset=utf-8", b"CN=", b"OID.", b"#0c0161", b"\\2c", b"+", b"/"),
)
"""Words of SIP, which a fuzzer that knows them need not find."""
