"""Work grows with the input and no faster. Counted where the work can be seen; bounded far off where it is in C."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import pytest
from message_support import request_bytes
from scale import scaled

from p2psip.config import ManagerSettings
from p2psip.errors import MessageParsingException
from p2psip.message import (
    Limits,
    NameAddr,
    Request,
    StreamFramer,
    Via,
    parse_field,
    parse_message,
    parse_uri,
    split_list,
)

SIZE = 64 * 1024
SECONDS = 2.0
"""Of processor time for 64 KiB: linear code takes some milliseconds, quadratic code a minute."""

BOUNDLESS = Limits.of(
    ManagerSettings(
        maximum_start_line=2**22, maximum_header=2**22, maximum_head=2**22, maximum_headers=2**22, maximum_values=2**22
    )
)


class CountingBuffer(bytearray):
    """Counts the octets that are looked through or copied."""

    work = 0

    def find(self, part: bytes, start: int = 0, *rest: int) -> int:  # type: ignore[override]
        self.work += len(self) - start
        return super().find(part, start, *rest)

    def __bytes__(self) -> bytes:
        self.work += len(self)
        return bytes(memoryview(self))


def work_of_single_octets(data: bytes) -> int:
    framer = StreamFramer()
    buffer = framer._buffer = CountingBuffer()
    for position in range(len(data)):
        framer.feed(data[position : position + 1])
    return buffer.work


@pytest.mark.holds("R20")
@pytest.mark.parametrize(
    "data",
    [
        request_bytes(body=b"x" * 50_000),
        request_bytes(*["X: " + "x" * 200] * 250),
        request_bytes() * 50,
        request_bytes("bad") * 50,
        b"\rOPTIONS sip:b SIP/2.0\r\n" + b"X: 1\r\n" * 9000,
        b"x" * 60_000,
        b"\r\n" * 5000,
    ],
    ids=["body", "head", "many", "malformed", "stray CR", "no end", "keep-alives"],
)
def test_single_octets(data: bytes) -> None:
    assert work_of_single_octets(data) <= 6 * len(data)


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    begin = time.process_time()
    with contextlib.suppress(MessageParsingException):
        yield
    assert time.process_time() - begin < SECONDS


UNITS = ['"', '\\"', '"\\', '""', '"a"', "<", "<>", ">", "<a>", ",", ";", ";;", "=", "a=", ";a", ";a=b", ';a="', "(", "()", "\\",
         "%", "%4", "%41", "@", "a@", ":", "a:", "::", "[", "[]", "[:", "?", "&", "a=b&", "/", ".", "a.", "-", "1", "0", " ", "a ", " a", "\t", "\xe9", "\udcff"]  # fmt: skip

PREFIXES = [
    "",
    '"',
    "<sip:a>;",
    "sip:",
    "sip:a@",
    "sip:a@b;",
    "sip:a@b?",
    "<sip:",
    "SIP/2.0/TCP a;",
    "1 (",
    "Digest a=",
]

PARSERS: dict[str, Callable[[str], object]] = {
    "uri": parse_uri,
    "name-addr": NameAddr.parse,
    "via": Via.parse,
    "list": split_list,
    **{
        name: (lambda text, name=name: parse_field(name, text))  # type: ignore[misc]
        for name in ("Contact", "Accept", "Retry-After", "Warning", "Date", "Timestamp", "WWW-Authenticate", "Replaces")
    },
}


@pytest.mark.holds("R20")
@pytest.mark.parametrize("name", PARSERS)
def test_values(name: str) -> None:
    for prefix in PREFIXES:
        with bounded():
            for unit in UNITS:
                with contextlib.suppress(MessageParsingException):
                    PARSERS[name](prefix + unit * (SIZE // len(unit)))


@pytest.mark.holds("R20")
@pytest.mark.parametrize(
    "line",
    [
        *("X: 1", " fold", "X:", "bad", ":", "\t", 'X: "\\\x01"', "Via: SIP/2.0/TCP a", "l: 1", "Content-Length: 1"),
        *("To: <sip:a>", "Route: <sip:a>,<sip:b>"),
    ],
)
def test_many_lines(line: str) -> None:
    data = request_bytes("Y: 1", *[line] * (SIZE // (len(line) + 2)))
    with bounded():
        parse_message(data, BOUNDLESS)
    with bounded():
        parse_message(data, BOUNDLESS).validate()
    with bounded():
        StreamFramer(BOUNDLESS).feed(data)


@pytest.mark.holds("R20")
@pytest.mark.parametrize("unit", UNITS)
def test_long_lines(unit: str) -> None:
    for line in (
        f"X: {unit * (SIZE // len(unit))}",
        f'X: \x01"{unit * (SIZE // len(unit))}',
        unit * (SIZE // len(unit)),
    ):
        with bounded():
            parse_message(request_bytes(line), BOUNDLESS)
    with bounded():
        parse_message(request_bytes(uri=unit * (SIZE // len(unit))), BOUNDLESS).validate()


@pytest.mark.holds("R20")
def test_numbers_of_many_digits_are_never_made() -> None:
    """int() of many digits takes more than linear time, and above 4300 raises ValueError."""
    for digits in ("9" * SIZE, "0" * SIZE + "1"):
        for name in ("Content-Length", "Expires", "Max-Forwards", "CSeq", "RSeq", "Retry-After", "Timestamp"):
            with bounded():
                parse_field(name, digits + (" A" if name == "CSeq" else ""))
        with bounded():
            parse_uri(f"sip:a@b:{digits}")
        with bounded():
            Via.parse(f"SIP/2.0/TCP a:{digits};ttl={digits}")


# ---------------------------------------------------------------------- in seconds

PACE = 0.012
"""Processor time of :func:`loop` on the machine for which the bounds below are meant; slower ones get more."""


def loop() -> float:
    begin = time.process_time()
    total = 0
    for number in range(200_000):
        total += number % 7
    return time.process_time() - begin


def slowness() -> float:
    return max(1.0, min(loop() for _ in range(3)) / PACE)


@pytest.mark.holds("R20")
@pytest.mark.parametrize(
    ("name", "unit", "size"),
    [
        *(("X", "a", 8000), ("X", '"\\\x01"', 250), ("Via", ";a=b", 250), ("Contact", "<sip:a>,", 8000)),
        *(("From", '"', 8000), ("Via", "(", 8000), ("Route", ",", 250), ("X", "\udcff", 250), ("X", "\x01", 8000)),
    ],
)
def test_a_head_as_large_as_may_be_takes_less_than_fifty_milliseconds(name: str, unit: str, size: int) -> None:
    value = (unit * size)[: size - len(name) - 4]
    data = request_bytes(*[f"{name}: {value}"] * min(248, 62_000 // size))

    def seconds() -> float:
        begin = time.process_time()
        with contextlib.suppress(MessageParsingException):
            for item in StreamFramer().feed(data):
                if isinstance(item, Request):
                    item.validate()
        return time.process_time() - begin

    taken = seconds()
    for _ in range(4):  # others may have had the processor's caches
        if taken < 0.05:
            break
        taken = min(taken, seconds())
    assert taken < 0.05 * slowness()


@pytest.mark.long
@pytest.mark.holds("R20")
@pytest.mark.parametrize("data", [request_bytes(body=b"x" * 1000), request_bytes(body=b"x" * 1_000_000)])
def test_a_mebibyte_in_single_octets_takes_less_than_two_seconds(data: bytes) -> None:
    octets = scaled(2**20)
    stream = (data * (octets // len(data) + 1))[:octets]
    framer = StreamFramer()
    begin = time.process_time()
    for position in range(octets):
        framer.feed(stream[position : position + 1])
    assert time.process_time() - begin < max(0.1, 2.0 * octets / 2**20) * slowness()
