"""What holds for every input: only MessageParsingException gets out, and what is written can be read."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from message_properties import (
    FIELDS,
    check_datagram,
    check_error,
    check_field,
    check_name_addr,
    check_stream,
    check_uri,
    check_via,
    look_at,
)
from message_support import request_bytes, torture

from p2psip.errors import MessageParsingException
from p2psip.message import (
    Headers,
    Request,
    Response,
    canonical_name,
    parse_message,
)

SPECIAL = st.sampled_from(
    [*'<>"\\;:,=@%?&[]()/ \t*+-.', "sip:", "SIP/2.0", "tag", "branch", "1", "a", "\r\n", "\0", "\xe9"]
)
TEXT = st.lists(st.one_of(SPECIAL, st.text(max_size=3)), max_size=12).map("".join)
TOKEN = st.text("abcXYZ019-.!%*_+`'~", min_size=1, max_size=8)
LINE = st.text(st.characters(blacklist_categories=["Cc", "Cs"]), max_size=40)


def look_at_everything(data: bytes) -> None:
    """Every way in, every view, and every field; a stream is cut every 64 octets."""
    check_datagram(data)
    check_stream(data, list(range(0, len(data), 64)))


FIELD = st.tuples(
    st.sampled_from(["Via", "v", "Route", "Subject", "X", "x-y", "From", "Content-Type", "l", "", "a b", "caf\xe9"]),
    st.sampled_from([":", ": ", " :", "", ":\r\n "]),
    st.one_of(TEXT, st.just("x" * 9000)),
).map("".join)


@given(st.lists(st.one_of(FIELD, TEXT), max_size=4), st.binary(max_size=20))
@example(["Subject"], b"")
def test_streams_and_datagrams_agree(lines: list[str], body: bytes) -> None:
    check_stream(request_bytes(*lines, body=body), [])


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
@given(st.sampled_from(FIELDS), TEXT)
def test_fields(name: str, value: str) -> None:
    check_field(name, value)
    look_at_everything(request_bytes(f"{name}: {value}", without=canonical_name(name)))


@pytest.mark.holds("R21")
@given(TEXT)
@example("sip:a@[::1")
@example("sip:%")
@example("sip:a@b;ttl=\u0661")
def test_uris(text: str) -> None:
    for candidate in (text, "sip:" + text, "sip:a@b;" + text, "sip:a@b?" + text, "tel:" + text):
        check_uri(candidate)


@given(TEXT)
@example('"\\\0" <sip:a>')
@example('"\\\x07" <sip:a>')
def test_values_can_be_read_again(text: str) -> None:
    check_name_addr(text)
    check_via("SIP/2.0/TCP " + text)


@pytest.mark.holds("R21", "A12")
@pytest.mark.parametrize("path", torture(), ids=lambda path: path.name)
def test_torture_messages_truncated_at_every_byte(path: Path) -> None:
    """Row 12 of what went wrong elsewhere."""
    data = path.read_bytes()
    for end in range(len(data)):
        try:
            look_at(parse_message(data[:end] if end % 2 else data[:end] + b"\r\n\r\n"))
        except MessageParsingException as error:
            check_error(error)


@pytest.mark.holds("R21")
@pytest.mark.parametrize("path", torture(), ids=lambda path: path.name)
def test_torture_messages_mutated(path: Path) -> None:
    """Octets changed, removed, doubled and moved; more by raising the number."""
    source = random.Random(4475)
    data = path.read_bytes()
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
