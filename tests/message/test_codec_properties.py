"""What holds for every input: only MessageParsingException gets out, and what is written can be read."""

from __future__ import annotations

import contextlib
import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from message_support import feed_all, octets, request_bytes, torture

from p2psip.errors import MessageParsingException
from p2psip.message import (
    Headers,
    Malformed,
    NameAddr,
    Ping,
    Pong,
    Request,
    Response,
    SipUri,
    StreamFramer,
    Via,
    canonical_name,
    create_cancel,
    create_response,
    parse_field,
    parse_message,
    parse_uri,
    unescape,
)
from p2psip.message.fields import _PARSERS

VIEWS = (
    *("top_via", "via", "from_", "to", "from_tag", "to_tag", "contact", "route", "record_route", "call_id", "cseq"),
    *("max_forwards", "expires", "content_type", "content_length", "request_uri", "start_line", "body"),
)
SPECIAL = st.sampled_from(
    [*'<>"\\;:,=@%?&[]()/ \t*+-.', "sip:", "SIP/2.0", "tag", "branch", "1", "a", "\r\n", "\0", "\xe9"]
)
TEXT = st.lists(st.one_of(SPECIAL, st.text(max_size=3)), max_size=12).map("".join)
TOKEN = st.text("abcXYZ019-.!%*_+`'~", min_size=1, max_size=8)
LINE = st.text(st.characters(blacklist_categories=["Cc", "Cs"]), max_size=40)


def look_at_everything(data: bytes) -> None:
    """Every way in, every view, and every field."""
    for item in feed_all(StreamFramer(), data, 64)[0]:
        repr(item)
    try:
        message = parse_message(data)
    except MessageParsingException as error:
        if error.answer is not None:
            parse_message(error.answer.to_bytes()).validate()
        return
    repr(message)
    for view in ("from_", "to", "top_via"):
        with contextlib.suppress(MessageParsingException):
            str(getattr(message, view))
    if isinstance(message, Request):
        for answer in (create_response(message, 100), create_response(message, 400)):
            assert list(parse_message(answer.to_bytes()).headers)[:-1] == list(answer.headers)
        with contextlib.suppress(MessageParsingException):
            create_cancel(message).to_bytes()
    with contextlib.suppress(MessageParsingException):
        message.validate()
    for view in VIEWS:
        with contextlib.suppress(MessageParsingException):
            getattr(message, view, None)
    for name, value in message.headers:
        with contextlib.suppress(MessageParsingException):
            parse_field(name, value)
        with contextlib.suppress(MessageParsingException):
            message.headers.get_all(name)


def same_both_ways(data: bytes) -> None:
    """One message, as a datagram and on a stream: the stream has a shorter way for most."""
    try:
        framed = StreamFramer().feed(data)
    except MessageParsingException:
        return
    (found,) = framed or (None,)
    if found is None or isinstance(found, Malformed):
        with pytest.raises(MessageParsingException):
            parse_message(data)
        return
    assert isinstance(found, Request | Response)
    message = parse_message(data)
    assert (found.start_line, found.body, found.to_bytes()) == (message.start_line, message.body, message.to_bytes())
    assert list(found.headers) == list(message.headers)
    for name in ("Via", "Route", "From", "Subject", "X"):
        assert (found.headers.get(name), found.headers.count(name)) == (
            message.headers.get(name),
            message.headers.count(name),
        )


FIELD = st.tuples(
    st.sampled_from(["Via", "v", "Route", "Subject", "X", "x-y", "From", "Content-Type", "l", "", "a b", "caf\xe9"]),
    st.sampled_from([":", ": ", " :", "", ":\r\n "]),
    st.one_of(TEXT, st.just("x" * 9000)),
).map("".join)


@given(st.lists(st.one_of(FIELD, TEXT), max_size=4), st.binary(max_size=20))
@example(["Subject"], b"")
def test_streams_and_datagrams_agree(lines: list[str], body: bytes) -> None:
    same_both_ways(request_bytes(*lines, body=body))


@pytest.mark.holds("R21")
@given(st.binary(max_size=300))
def test_octets(data: bytes) -> None:
    look_at_everything(data)


@pytest.mark.holds("R21")
@given(st.lists(TEXT, max_size=6), st.binary(max_size=20))
def test_lines(lines: list[str], body: bytes) -> None:
    look_at_everything("\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + body)
    look_at_everything(request_bytes(*lines, body=body))


@pytest.mark.holds("R21")
@given(st.sampled_from(sorted(_PARSERS)), TEXT)
def test_fields(name: str, value: str) -> None:
    with contextlib.suppress(MessageParsingException):
        parse_field(name, value)
    look_at_everything(request_bytes(f"{name}: {value}", without=canonical_name(name)))


@pytest.mark.holds("R21")
@given(TEXT)
@example("sip:a@[::1")
@example("sip:%")
@example("sip:a@b;ttl=\u0661")
def test_uris(text: str) -> None:
    unescape(text)
    for candidate in (text, "sip:" + text, "sip:a@b;" + text, "sip:a@b?" + text, "tel:" + text):
        with contextlib.suppress(MessageParsingException):
            uri = parse_uri(candidate)
            assert str(uri) == candidate
            if isinstance(uri, SipUri):
                assert uri == SipUri(
                    uri.scheme,
                    uri.user,
                    uri.host,
                    uri.port,
                    password=uri.password,
                    parameters=uri.parameters,
                    headers=uri.headers,
                )
                assert hash(uri) == hash(uri.replace())


@given(TEXT)
@example('"\\\0" <sip:a>')
@example('"\\\x07" <sip:a>')
def test_values_can_be_read_again(text: str) -> None:
    with contextlib.suppress(MessageParsingException):
        address = NameAddr.parse(text)
        assert NameAddr.parse(str(address)) == address
    with contextlib.suppress(MessageParsingException):
        via = Via.parse("SIP/2.0/TCP " + text)
        assert Via.parse(str(via)) == via


@pytest.mark.holds("R21", "A12")
@pytest.mark.parametrize("path", torture(), ids=lambda path: path.name)
def test_torture_messages_truncated_at_every_byte(path: object) -> None:
    """Row 12 of what went wrong elsewhere."""
    data = path.read_bytes()  # type: ignore[attr-defined]
    for end in range(len(data)):
        look_at_everything(data[:end] if end % 2 else data[:end] + b"\r\n\r\n")


@pytest.mark.holds("R21")
@pytest.mark.parametrize("path", torture(), ids=lambda path: path.name)
def test_torture_messages_mutated(path: object) -> None:
    """Octets changed, removed, doubled and moved; more by raising the number."""
    source = random.Random(4475)
    data = path.read_bytes()  # type: ignore[attr-defined]
    for _ in range(60):
        mutant = bytearray(data)
        for _ in range(source.randint(1, 5)):
            at, to = source.randrange(len(mutant)), source.randrange(len(mutant))
            match source.randrange(4):
                case 0:
                    mutant[at] = source.randrange(256)
                case 1:
                    del mutant[at : at + source.randint(1, 20)]
                case 2:
                    mutant[at:at] = mutant[to : to + 30]
                case _:
                    mutant[at] = source.choice(b'<>";,:=@%\r\n \0\\')
            if not mutant:
                break
        look_at_everything(bytes(mutant))


@given(TOKEN, st.lists(st.tuples(TOKEN, LINE), max_size=6), st.binary(max_size=40))
def test_requests_can_be_read_again(method: str, headers: list[tuple[str, str]], body: bytes) -> None:
    headers = [(f"X-{name}", value) for name, value in headers]
    request = Request(method, "sip:bob@b.example", headers, body)
    read = parse_message(request.to_bytes())
    assert isinstance(read, Request)
    assert (read.method, read.uri, read.body) == (method, "sip:bob@b.example", body)
    assert list(read.headers)[:-1] == [(name, value.strip(" \t")) for name, value in headers]
    assert read.content_length == len(body)
    assert Request(read.method, read.uri, read.headers, read.body).to_bytes() == read.to_bytes()


@given(st.integers(100, 699), LINE, st.binary(max_size=40))
def test_responses_can_be_read_again(code: int, reason: str, body: bytes) -> None:
    read = parse_message(Response(code, reason, [("To", "<sip:a>")], body).to_bytes())
    assert isinstance(read, Response)
    assert (read.status_code, read.reason, read.body) == (code, reason, body)


@settings(max_examples=50)
@given(st.lists(st.sampled_from([request_bytes(), request_bytes("bad"), b"\r\n", b"\r\n\r\n"]), max_size=8), st.data())
def test_pieces_make_no_difference(parts: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(parts)
    whole = [item for item in StreamFramer().feed(stream) if not isinstance(item, Ping | Pong)]
    framer = StreamFramer()
    found = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        found += [item for item in framer.feed(stream[:size]) if not isinstance(item, Ping | Pong)]
        stream = stream[size:]
    assert [octets(item) for item in found] == [octets(item) for item in whole]
    assert [type(item) for item in found] == [type(item) for item in whole]


@given(
    st.lists(
        st.tuples(st.sampled_from(["add", "set", "prepend", "remove"]), st.sampled_from("abvVia"), TOKEN), max_size=12
    )
)
def test_headers_are_what_a_list_of_pairs_would_be(steps: list[tuple[str, str, str]]) -> None:
    names = {"v": "via", "V": "via", "i": "call-id", "a": "accept-contact", "b": "referred-by"}
    headers = Headers()
    pairs: list[tuple[str, str]] = []
    for step, name, value in steps:
        same = [i for i, (other, _) in enumerate(pairs) if names[other] == names[name]]
        if step == "remove":
            headers.remove(name)
            pairs = [pair for i, pair in enumerate(pairs) if i not in same]
            continue
        getattr(headers, step)(name, value)
        if step == "set":
            position = same[0] if same else len(pairs)
            pairs = [pair for i, pair in enumerate(pairs) if i not in same]
            pairs.insert(position, (name, value))
        else:
            pairs.insert(0 if step == "prepend" else len(pairs), (name, value))
    assert list(headers) == pairs
    for name, key in names.items():
        values = [value for other, value in pairs if names[other] == key]
        assert headers.count(name) == len(values)
        assert headers.get(name) == (values[0] if values else None)
