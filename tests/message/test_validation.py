from __future__ import annotations

import pytest
from message_support import request_bytes

from p2psip.errors import MessageParsingException
from p2psip.message import SipUri, parse_message, parse_uri


def answer_to(data: bytes) -> int | None:
    with pytest.raises(MessageParsingException) as caught:
        parse_message(data).validate()
    return caught.value.status_code


def test_what_is_complete_is_valid() -> None:
    parse_message(request_bytes()).validate()
    parse_message(request_bytes(without="Max-Forwards")).validate()
    parse_message(request_bytes(uri="tel:+1", method="OPTIONS")).validate()
    parse_message(request_bytes(method="FOO")).validate()


@pytest.mark.parametrize("name", ["Via", "From", "To", "Call-ID", "CSeq"])
def test_mandatory_fields(name: str) -> None:
    assert answer_to(request_bytes(without=name)) == 400
    assert name in str(_error(request_bytes(without=name)))


@pytest.mark.parametrize(
    "line", ["From: <sip:x>", "t: <sip:x>", "i: x", "CSeq: 7 MESSAGE", "Max-Forwards: 70", "c: a/b\r\nc: a/b"]
)
def test_fields_that_must_be_alone(line: str) -> None:
    assert answer_to(request_bytes(line)) == 400


@pytest.mark.holds("A15")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("Via", "SIP/2.0/TCP"), ("Via", "SIP/2.0/TCP a;;"), ("Via", "SIP/2.0/TCP a, SIP/2.0/TCP"), ("Via", "")),
        *(("From", "<>"), ("From", '"a <sip:a>'), ("To", "sip:a?b"), ("To", "<sip:a@b:99999>")),
        *(("Call-ID", ""), ("Call-ID", "a b"), ("Call-ID", "a@b@c"), ("CSeq", "7"), ("CSeq", "2147483648 MESSAGE")),
        *(("CSeq", "7 message"), ("CSeq", "7 OPTIONS"), ("Max-Forwards", "256"), ("Max-Forwards", "-1")),
    ],
)
def test_fields_that_are_malformed(name: str, value: str) -> None:
    assert answer_to(request_bytes(f"{name}: {value}", without=name)) == 400


@pytest.mark.parametrize("uri", ["sip:", "sip:a@", "sip:a@b?c=d", "sip:a@b;x;x=1", "b", "sip:a@[::1", "sip:a%zz@b"])
def test_request_uris(uri: str) -> None:
    assert answer_to(request_bytes(uri=uri)) == 400


@pytest.mark.holds("R18")
def test_uris_have_a_limit() -> None:
    longest = "sip:" + "a" * 4090 + "@b"
    parse_message(request_bytes(f"To: <{longest}>", uri=longest, without="To")).validate()
    assert answer_to(request_bytes(uri=longest + "c")) == 414
    for name in ("From", "To"):
        assert answer_to(request_bytes(f"{name}: <{longest}c>", without=name)) == 400
    with pytest.raises(MessageParsingException, match="4097 characters"):
        SipUri.parse(longest + "c")
    with pytest.raises(MessageParsingException, match="4097 characters"):
        parse_uri("tel:" + "1" * 4093)


def test_another_version() -> None:
    assert answer_to(request_bytes().replace(b"SIP/2.0\r\n", b"SIP/3.0\r\n", 1)) == 505
    parse_message(request_bytes().replace(b"SIP/2.0\r\n", b"sip/2.0\r\n", 1)).validate()


@pytest.mark.parametrize(
    "data",
    [
        b"SIP/3.0 200 OK",
        b"SIP/2.0 099 Low",
        b"SIP/2.0 700 High",
        b"SIP/2.0 200 OK\r\nVia: x",
        b"SIP/2.0 200 OK",
    ],
)
def test_bad_responses_are_dropped(data: bytes) -> None:
    lines = request_bytes().split(b"\r\n", 1)[1]
    if data.endswith(b"OK"):
        lines = lines.replace(b"To: ", b"Too: ") if data == b"SIP/2.0 200 OK" else lines
    assert answer_to(data + b"\r\n" + lines) is None


def test_a_sound_response() -> None:
    parse_message(b"SIP/2.0 200 OK\r\n" + request_bytes().split(b"\r\n", 1)[1]).validate()


def test_bad_acks_are_dropped() -> None:
    assert answer_to(request_bytes(method="ACK", without="To")) is None
    parse_message(request_bytes(method="ACK")).validate()


def test_fields_that_nobody_needs_may_be_malformed() -> None:
    """RFC 3261 8.2.2; and a view raises when it is looked at, not before."""
    message = parse_message(request_bytes("Contact: <", "Expires: soon", "Date: never", "Route: x"))
    message.validate()
    for view in ("contact", "expires", "route"):
        with pytest.raises(MessageParsingException):
            getattr(message, view)


def _error(data: bytes) -> MessageParsingException:
    with pytest.raises(MessageParsingException) as caught:
        parse_message(data).validate()
    return caught.value
