"""Messages and streams of any kind: the sound ones are understood, and the others do no harm."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from message_grammar import Choices, Meant, Stream, well_formed
from message_properties import (
    BOUNDLESS,
    check_datagram,
    check_field,
    check_made,
    check_name_addr,
    check_stream,
    check_uri,
    check_via,
    look_at,
)
from message_strategies import ADDRESS, ANYTHING, SOUND_STREAM, STREAM, TEXT, URI, VIA, WELL_FORMED

from p2psip.errors import MessageParsingException
from p2psip.message import NameAddr, Request, Response, Via, parse_field, parse_message, parse_uri


def check_understood(message: Request | Response, meant: Meant) -> None:
    message.validate()
    assert message.start_line == meant.start_line
    assert [via.branch for via in message.via] == meant.branches
    assert message.top_branch == meant.branches[0]
    assert (message.from_tag, message.to_tag) == (meant.from_tag, meant.to_tag)
    assert message.call_id == meant.call_id
    assert message.cseq == (meant.number, meant.method)
    assert message.body == meant.body
    for name, value in message.headers:
        parse_field(name, value)


@given(WELL_FORMED)
def test_what_the_grammar_allows_is_understood(meant: Meant) -> None:
    """RFC 3261 25.1, with white space, folding and compact forms wherever they may stand."""
    message = parse_message(meant.octets)
    check_understood(message, meant)
    assert message.to_bytes() == meant.octets
    look_at(message)
    check_datagram(meant.octets)


def test_the_simplest_message_is_what_no_decisions_make() -> None:
    meant = well_formed(Choices(b""))
    assert meant.octets.startswith(b"INVITE sip:a SIP/2.0\r\n")


@given(SOUND_STREAM)
def test_sound_messages_come_out_of_a_stream_as_they_went_in(stream: Stream) -> None:
    items = [item for item in check_stream(stream.octets, stream.cuts) if isinstance(item, Request | Response)]
    assert len(items) == len(stream.messages)
    for item, meant in zip(items, stream.messages, strict=True):
        check_understood(item, meant)


@pytest.mark.holds("R21")
@given(ANYTHING)
def test_nothing_but_the_one_exception(octets: bytes) -> None:
    check_datagram(octets)


@given(STREAM)
def test_how_a_stream_is_cut_makes_no_difference(stream: Stream) -> None:
    check_stream(stream.octets, stream.cuts)


@given(STREAM)
def test_a_stream_that_is_cut_at_every_octet(stream: Stream) -> None:
    check_stream(stream.octets, list(range(len(stream.octets))))


@given(URI)
def test_uris_that_the_grammar_allows(text: str) -> None:
    assert str(parse_uri(text)) == text
    check_uri(text)


@given(ADDRESS)
def test_addresses_that_the_grammar_allows(text: str) -> None:
    text = text.replace("\r\n", "")
    NameAddr.parse(text, brackets=True)
    check_name_addr(text)


@given(VIA)
def test_vias_that_the_grammar_allows(case: tuple[str, str]) -> None:
    text, branch = case
    text = text.replace("\r\n", "")
    assert Via.parse(text).branch == branch
    check_via(text)


@given(st.sampled_from(["From", "Contact", "Via", "Authorization", "Replaces", "Retry-After", "Date", "Accept"]), TEXT)
def test_values_of_any_kind(name: str, text: str) -> None:
    for check in (check_uri, check_name_addr, check_via):
        check(text)
    check_field(name, text)


SAID = st.one_of(st.sampled_from(["INVITE", "sip:a@b", "X", "", " ", "\r\nX: 1", "\n", "\0", "\x01", "a\tb"]), TEXT)


@given(SAID, SAID, SAID, st.lists(st.tuples(SAID, SAID), max_size=4), st.binary(max_size=10))
@example("INVITE", "sip:a", "\ud800", [("X", "\ud800")], b"")
@example("INVITE", "sip:a", "\r\nX: 1", [("X", "1\r\nY: 1")], b"")
def test_what_an_application_says_is_what_is_read(
    method: str, uri: str, reason: str, headers: list[tuple[str, str]], body: bytes
) -> None:
    check_made(method, uri, reason, headers, body)


@given(ANYTHING)
def test_limits_refuse_and_change_nothing(octets: bytes) -> None:
    with contextlib.suppress(MessageParsingException):
        message = parse_message(octets)
        assert parse_message(octets, BOUNDLESS).to_bytes() == message.to_bytes()
