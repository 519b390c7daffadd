from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from message_support import CORPUS, feed_all, octets, request_bytes

from p2psip.config import ManagerSettings
from p2psip.errors import MessageParsingException
from p2psip.message import Limits, Malformed, Ping, Pong, Request, Response, StreamFramer, parse_message
from p2psip.message.parser import DEFAULT_LIMITS, read_ordinary

ONE = request_bytes(body=b"one")
TWO = request_bytes("X: 2", body=b"\r\n\r\nOPTIONS sip:hidden SIP/2.0\r\n\r\n")
THREE = b"SIP/2.0 200 OK\r\nl: 0\r\n\r\n"


def messages(framed: Sequence[object]) -> list[bytes]:
    return [octets(item) for item in framed if not isinstance(item, Ping | Pong)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100, 1000, 100_000])
def test_messages_come_out_the_same_however_the_stream_is_cut(size: int) -> None:
    framer = StreamFramer()
    framed, error = feed_all(framer, ONE + TWO + b"\r\n\r\n" + THREE + b"\r\n" + ONE, size)
    assert error is None
    assert messages(framed) == [ONE, TWO, THREE, ONE]
    assert sum(isinstance(item, Ping) for item in framed) == 1
    assert not framer.in_message
    assert not framer.close()


def test_split_at_every_byte() -> None:
    data = ONE + TWO
    for cut in range(1, len(data)):
        framer = StreamFramer()
        assert messages([*framer.feed(data[:cut]), *framer.feed(data[cut:])]) == [ONE, TWO], cut


def test_what_comes_out() -> None:
    framed = StreamFramer().feed(ONE + THREE)
    assert [type(item) for item in framed] == [Request, Response]
    assert isinstance(framed[0], Request)
    assert framed[0].body == b"one"


@pytest.mark.parametrize(
    ("data", "kinds"),
    [
        (b"\r\n", [Pong]),
        (b"\r\n\r\n", [Ping]),
        (b"\r\n\r\n\r\n", [Ping, Pong]),
        (b"\r\n\r\n\r\n\r\n", [Ping, Ping]),
        (b"\r\n" + THREE, [Pong, Response]),
        (THREE + b"\r\n\r\n" + THREE, [Response, Ping, Response]),
    ],
)
def test_keep_alives(data: bytes, kinds: list[type]) -> None:
    assert [type(item) for item in StreamFramer().feed(data)] == kinds


def test_a_ping_in_pieces_is_still_a_ping() -> None:
    framer = StreamFramer()
    kinds = [type(item) for piece in (b"\r", b"\n", b"\r", b"\n") for item in framer.feed(piece)]
    assert kinds == [Pong, Pong] or kinds == [Pong, Ping]
    assert Ping in kinds, "the peer waits for an answer"


def test_where_a_message_begins_and_ends() -> None:
    framer = StreamFramer()
    assert not framer.in_message
    framer.feed(b"\r")
    assert not framer.in_message, "that may become a keep-alive"
    framer.feed(b"\n" + ONE[:10])
    assert framer.in_message
    framer.feed(ONE[10:-1])
    assert framer.in_message
    framer.feed(ONE[-1:] + b"\r\n")
    assert not framer.in_message
    framer.feed(ONE[:-1])
    assert framer.close()
    assert not framer.close()


@pytest.mark.holds("R24")
def test_nothing_is_delivered_of_a_message_that_is_cut_off() -> None:
    for end in range(1, len(ONE)):
        framer = StreamFramer()
        assert framer.feed(ONE[:end]) == []
        assert framer.close()


@pytest.mark.holds("R22")
@pytest.mark.parametrize("bad", ["NoColon", "To\x01: x", "X: \x07", "(c): 1", " folded"])
def test_malformed_messages_do_not_disturb_the_next(bad: str) -> None:
    data = request_bytes(bad, body=b"body")
    framed, error = feed_all(StreamFramer(), ONE + data + TWO, 50)
    assert error is None
    assert messages(framed) == [ONE, data, TWO]
    malformed = framed[1]
    assert isinstance(malformed, Malformed)
    assert malformed.error.status_code == 400
    assert malformed.error.answer is not None
    assert malformed.error.answer.status_code == 400
    assert repr(malformed).isascii()


def test_a_bad_start_line_does_not_disturb_the_next() -> None:
    bad = ONE.replace(b"SIP/2.0\r\n", b"SIP\r\n", 1)
    framed, error = feed_all(StreamFramer(), bad + ONE, 10_000)
    assert error is None
    assert [type(item) for item in framed] == [Malformed, Request]


LOST = {
    "none": request_bytes(without="Content-Length"),
    "twice": request_bytes("l: 0"),
    "negative": request_bytes("Content-Length: -1", without="Content-Length"),
    "plus": request_bytes("Content-Length: +0", without="Content-Length"),
    "hex": request_bytes("Content-Length: 0x0", without="Content-Length"),
    "underscore": request_bytes("Content-Length: 1_0", without="Content-Length"),
    "other digits": request_bytes("Content-Length: \u0660", without="Content-Length"),
    "list": request_bytes("Content-Length: 0, 0", without="Content-Length"),
    "empty": request_bytes("Content-Length:", without="Content-Length"),
    "11 digits": request_bytes("Content-Length: 00000000000", without="Content-Length"),
    "20 digits": request_bytes("Content-Length: " + "9" * 20, without="Content-Length"),
    "5000 digits": request_bytes("Content-Length: " + "9" * 5000, without="Content-Length"),
    "2**32 + 32": request_bytes("Content-Length: 4294967328", without="Content-Length"),
    "bare LF": request_bytes("X: a\nContent-Length: 9"),
    "bare CR": request_bytes("X: a\rContent-Length: 9"),
    "LF only": request_bytes().replace(b"\r\n", b"\n") + b"\r\n\r\n",
}


@pytest.mark.holds("R19", "R23", "A1", "A2")
@pytest.mark.parametrize("size", [1, 17, 100_000])
@pytest.mark.parametrize("kind", LOST)
def test_framing_that_is_lost_stays_lost(kind: str, size: int) -> None:
    """Nothing behind the error is ever taken for a message (rows 1 and 2 of what went wrong elsewhere)."""
    framer = StreamFramer()
    framed, error = feed_all(framer, ONE + LOST[kind] + TWO + ONE, size)
    assert messages(framed) == [ONE]
    assert error is not None
    assert error.status_code == (413 if kind == "2**32 + 32" else 400)
    with pytest.raises(MessageParsingException):
        framer.feed(ONE)


@pytest.mark.holds("R23")
@pytest.mark.parametrize("kind", ["none", "twice", "negative", "5000 digits", "2**32 + 32", "bare LF"])
def test_the_last_word_before_the_connection_is_closed(kind: str) -> None:
    with pytest.raises(MessageParsingException) as caught:
        StreamFramer().feed(LOST[kind])
    error = caught.value
    assert error.answer is not None
    assert error.answer.status_code == error.status_code
    assert error.answer.call_id == "call@a.example"
    assert error.answer.to_tag
    answer = StreamFramer().feed(error.answer.to_bytes())[0]
    assert isinstance(answer, Response)
    answer.validate()


@pytest.mark.holds("R23")
def test_what_is_no_sip_at_all_is_said_to_be_that() -> None:
    """A web server, say: that its answer has no Content-Length is the least of it."""
    with pytest.raises(MessageParsingException, match=r"HTTP/1\.1 400.*neither a request line nor a status line"):
        StreamFramer().feed(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def test_no_last_word_for_nobody() -> None:
    for data in (b"\x16\x03\x01" + b"\0" * 9000, LOST["none"].replace(b"Via:", b"Nia:"), b"SIP/2.0 200 OK\r\n\r\n"):
        with pytest.raises(MessageParsingException) as caught:
            StreamFramer().feed(data + b"\r\n\r\n")
        assert caught.value.answer is None


def test_messages_before_the_error_are_not_lost() -> None:
    framer = StreamFramer()
    assert messages(framer.feed(ONE + LOST["twice"])) == [ONE]
    assert framer.error is not None
    with pytest.raises(MessageParsingException) as caught:
        framer.feed(b"")
    assert caught.value is framer.error


LIMITS = Limits.of(
    ManagerSettings(maximum_start_line=100, maximum_header=300, maximum_head=1000, maximum_headers=20, maximum_body=10)
)


@pytest.mark.holds("R18")
@pytest.mark.parametrize("size", [1, 64, 100_000])
@pytest.mark.parametrize(
    "data",
    [
        b"OPTIONS sip:" + b"b" * 2000,
        request_bytes(uri="sip:" + "b" * 100),
        b"OPTIONS sip:b SIP/2.0\r\n" + b"X: 1\r\n" * 1000,
        request_bytes(*["X: " + "x" * 90] * 11),
        request_bytes(body=b"12345678901"),
    ],
)
def test_limits_hold_however_the_stream_is_cut(data: bytes, size: int) -> None:
    framer = StreamFramer(LIMITS)
    framed, error = feed_all(framer, data + ONE, size)
    assert framed == []
    assert error is not None


@pytest.mark.holds("R18")
def test_the_head_may_be_as_long_as_the_limit_and_no_longer() -> None:
    for size in (1, 100_000):
        for extra, lost in ((0, False), (1, True)):
            head = request_bytes().rpartition(b"\r\nContent")[0]
            filler = 1000 + extra - len(head) - len("\r\nContent-Length: 0") - len("\r\nX: \r\nX: \r\nX: \r\nX: ")
            quarter = filler // 4
            fields = b"".join(b"\r\nX: " + b"x" * n for n in (quarter, quarter, quarter, filler - 3 * quarter))
            data = head + fields + b"\r\nContent-Length: 0\r\n\r\n"
            assert len(data) == 1004 + extra
            framed, error = feed_all(StreamFramer(LIMITS), data, size)
            assert (len(framed), error is not None) == ((0, True) if lost else (1, False)), (size, extra)


@pytest.mark.holds("R18")
@pytest.mark.parametrize("size", [1, 100_000])
def test_no_octet_more_than_that_is_waited_for(size: int) -> None:
    """The last ones may be a part of the empty line."""
    framer = StreamFramer(LIMITS)
    assert feed_all(framer, b"x" * 1003, size) == ([], None)
    assert feed_all(framer, b"x", size)[1] is not None


@pytest.mark.holds("R19")
def test_too_large_bodies_are_refused_before_they_are_buffered() -> None:
    data = request_bytes(body=b"x" * 11)
    head = data[: data.index(b"\r\n\r\n") + 4]
    with pytest.raises(MessageParsingException) as caught:
        StreamFramer(LIMITS).feed(head)
    assert caught.value.status_code == 413
    assert caught.value.answer is not None


def test_what_is_too_long_but_well_framed_does_not_disturb_the_next() -> None:
    for bad in (request_bytes("X: " + "x" * 300), request_bytes(*["X: 1"] * 14)):
        framed, error = feed_all(StreamFramer(LIMITS), bad + ONE, 100_000)
        assert error is None
        assert [type(item) for item in framed] == [Malformed, Request]


@pytest.mark.parametrize(
    "path", [path for path in sorted((CORPUS / "messages").rglob("*")) if path.is_file()], ids=lambda path: path.name
)
def test_the_short_way_comes_to_the_same_result(path: Path) -> None:
    """Ordinary heads are read by a shorter way than others; datagrams never are."""
    data = path.read_bytes().lstrip(b"\r\n")
    head, empty_line, rest = data.partition(b"\r\n\r\n")
    ordinary = read_ordinary(head, DEFAULT_LIMITS)
    if ordinary is None or not empty_line:
        return
    message, length = ordinary
    careful = parse_message(head + empty_line + rest.ljust(length, b" "))
    assert message.start_line == careful.start_line
    assert message.headers == careful.headers
    assert length == careful.content_length
    assert message._head_length == len(head) + 4


@pytest.mark.parametrize(
    "extra",
    [
        "",
        "X-Unknown: 1",
        "v: SIP/2.0/TCP b\r\nRecord-Route: <sip:a;lr>\r\nRecord-Route: <sip:b;lr>",
        "Subject: " + "x" * 1000,
        "Subject: caf\udce9",
        *("Route: " + ",".join(["<sip:a>"] * 64), "\r\n".join(["Allow: INVITE"] * 200)),
    ],
)
def test_ordinary_messages_take_the_short_way(extra: str) -> None:
    head = request_bytes(*([extra] if extra else [])).partition(b"\r\n\r\n")[0]
    ordinary = read_ordinary(head, DEFAULT_LIMITS)
    assert ordinary is not None
    careful = parse_message(head + b"\r\n\r\n")
    assert ordinary[0].headers == careful.headers
    for name in ("Via", "Record-Route", "Allow"):
        assert ordinary[0].headers.get_all(name) == careful.headers.get_all(name)


@pytest.mark.parametrize(
    "extra",
    [
        *("Subject", "X", "X x: 1", "To\x01: x", "caf\xe9: x", ": x", " fold", "\tfold", "Subject : x"),
        *("Subject: \x07", "Subject: \n", "Subject: \r", "l: 0", "Subject: " + "x" * 9000, 'X: "\\\0"'),
        *("Route: " + ",".join(["<sip:a>"] * 65), "\r\n".join(["Route: <sip:a>,<sip:b>"] * 33)),
        *("\r\n".join(["Via: SIP/2.0/TCP a"] * 64), "\r\n".join(["X: 1"] * 250)),
    ],
)
def test_others_are_looked_at_closely(extra: str) -> None:
    """Each is refused by the long way, or has something that the short way does not see."""
    head = request_bytes(extra).partition(b"\r\n\r\n")[0]
    assert read_ordinary(head, DEFAULT_LIMITS) is None


def test_a_name_without_colon_is_no_header_field() -> None:
    data = request_bytes("Subject")
    (malformed,) = StreamFramer().feed(data)
    assert isinstance(malformed, Malformed)
    with pytest.raises(MessageParsingException):
        parse_message(data)
