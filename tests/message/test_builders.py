from __future__ import annotations

import pytest
from message_support import HEADERS, request_bytes

from p2psip.message import Request, Response, create_ack, create_cancel, create_response, parse_message, reason_phrase


def request(*extra: str, method: str = "INVITE", without: str = "") -> Request:
    message = parse_message(request_bytes(*extra, method=method, without=without))
    assert isinstance(message, Request)
    return message


def test_a_response_takes_over_what_it_must() -> None:
    """RFC 3261 8.2.6.2."""
    asked = request("v: SIP/2.0/TCP z;branch=2 , SIP/2.0/TCP y;branch=3", "Subject: x", "Timestamp: 54")
    response = create_response(asked, 404, to_tag="mine")
    assert response.start_line == "SIP/2.0 404 Not Found"
    assert list(response.headers) == [
        ("v", "SIP/2.0/TCP z;branch=2 , SIP/2.0/TCP y;branch=3"),
        ("Via", "SIP/2.0/TLS a.example:5061;branch=z9hG4bKabc"),
        ("From", '"Alice" <sip:alice@a.example>;tag=from1'),
        ("To", "<sip:bob@b.example>;tag=mine"),
        ("Call-ID", "call@a.example"),
        ("CSeq", "7 INVITE"),
    ]
    assert response.to_tag == "mine"
    response.validate()


def test_the_tag_of_to() -> None:
    assert create_response(request(), 180).to_tag is None
    assert create_response(request(), 100, to_tag="mine").to_tag is None
    tagged = request("To: <sip:b>;x=1;tag=theirs", without="To")
    assert create_response(tagged, 200, to_tag="mine").headers.get("To") == "<sip:b>;x=1;tag=theirs"
    for to in ("sip:b", "<sip:b>;x", "<sip:b> \t", '"a;tag=1" <sip:b;tag=2>'):
        response = create_response(request(f"To: {to}", without="To"), 200, to_tag="mine")
        assert response.to.tag == response.to_tag == "mine"
        assert response.to.uri == request(f"To: {to}", without="To").to.uri


def test_100_takes_over_the_timestamp() -> None:
    """RFC 3261 8.2.6.1."""
    asked = request("Timestamp: 54")
    assert create_response(asked, 100).headers.get("Timestamp") == "54"
    assert "Timestamp" not in create_response(asked, 180).headers
    assert "Timestamp" not in create_response(request(), 100).headers


def test_octets_are_taken_over_as_they_are() -> None:
    asked = request('From: "\udce9" <sip:a>;tag=1', "Via: SIP/2.0/TCP\tq", without="From")
    data = create_response(asked, 200, "\u00c9").to_bytes()
    assert data.startswith("SIP/2.0 200 \u00c9\r\n".encode())
    assert b'From: "\xe9" <sip:a>;tag=1\r\n' in data
    assert b"Via: SIP/2.0/TCP\tq\r\n" in data


def test_what_comes_with_a_response() -> None:
    response = create_response(
        request(), 405, "No", to_tag="t", headers=[("Allow", "A"), ("Allow", "B")], content_type="a/b", body=b"xyz"
    )
    assert response.headers.get_all("Allow") == ["A", "B"]
    assert response.content_type == "a/b"
    assert response.to_bytes().endswith(b"Content-Type: a/b\r\nContent-Length: 3\r\n\r\nxyz")
    assert response.to_bytes().startswith(b"SIP/2.0 405 No\r\n")


def test_a_response_to_a_request_that_lacks_something() -> None:
    response = create_response(request(without="To"), 400, to_tag="t")
    assert [name for name, _ in response.headers] == ["Via", "From", "Call-ID", "CSeq"]


@pytest.mark.holds("R22")
@pytest.mark.parametrize("text", ["a\r\nEvil: 1", "a\nb", "a\0"])
def test_nothing_can_be_smuggled_into_a_response(text: str) -> None:
    with pytest.raises(ValueError, match="CR, LF"):
        create_response(request(), 200, text)
    with pytest.raises(ValueError, match="CR, LF"):
        create_response(request(), 200, headers=[("X", text)])
    with pytest.raises(ValueError, match="CR, LF"):
        create_response(request(), 200, content_type=text)
    with pytest.raises(ValueError, match="CR, LF"):
        Response(200, text)


def test_a_reason_can_be_sent() -> None:
    with pytest.raises(ValueError, match="UTF-8"):
        create_response(request(), 200, "\ud800")
    with pytest.raises(ValueError, match="UTF-8"):
        Response(200, "\ud800")


NUL = '"\\\0"'
"""A NUL as RFC 4475 3.1.1.2 has it: in a quoted string it may stand, and comes from peers only."""


def test_what_was_received_can_be_given_back_with_a_quoted_nul() -> None:
    lines = (f"Via: SIP/2.0/TCP a;x={NUL}", f"To: {NUL} <sip:b>", f"Timestamp: {NUL}")
    asked = parse_message(request_bytes(*lines, method="INVITE", without="To").replace(b'"Alice"', NUL.encode()))
    assert isinstance(asked, Request)
    response = create_response(asked, 100)
    assert response.headers.get("Timestamp") == NUL
    assert response.headers.get("To") == f"{NUL} <sip:b>"
    busy = create_response(asked, 486, to_tag="x")
    assert busy.headers.get("To") == f"{NUL} <sip:b>;tag=x"
    for follower in (create_ack(asked, busy), create_cancel(asked)):
        assert follower.headers.get("Via") == f"SIP/2.0/TCP a;x={NUL}"
        assert follower.to_bytes().count(b"\0") == 3


@pytest.mark.parametrize("tag", ["", "a b", "a\r\nEvil: 1", "a;b", '"a"', "\u0661"])
def test_tags_are_tokens(tag: str) -> None:
    with pytest.raises(ValueError, match="not a tag"):
        create_response(request(), 200, to_tag=tag)


@pytest.mark.parametrize("code", [0, 99, 700, -1])
def test_status_codes(code: int) -> None:
    with pytest.raises(ValueError, match="status code"):
        create_response(request(), code)
    with pytest.raises(ValueError, match="status code"):
        Response(code, "x")


@pytest.mark.parametrize("method", ["", "A B", "A\r\n", "caf\xe9", "A/"])
def test_methods(method: str) -> None:
    with pytest.raises(ValueError, match="method"):
        Request(method, "sip:b")


@pytest.mark.parametrize("uri", ["", "sip:a b", "sip:a\r\nX: y", "<sip:a>", "sip:\xe9", "sip:a\0", 'sip:"a"'])
def test_request_uris(uri: str) -> None:
    with pytest.raises(ValueError, match="Request-URI"):
        Request("OPTIONS", uri)


def test_reason_phrases() -> None:
    assert reason_phrase(481) == "Call/Transaction Does Not Exist"
    assert reason_phrase(299) == "OK"
    assert reason_phrase(999) == "Unknown"


def test_ack() -> None:
    """RFC 3261 17.1.1.3."""
    invite = Request("INVITE", "sip:bob@b.example", HEADERS)
    invite.headers.set("CSeq", "7 INVITE")
    invite.headers.add("Route", "<sip:r1;lr>, <sip:r2;lr>")
    invite.headers.add("Contact", "<sip:alice@a.example>")
    response = create_response(invite, 486, to_tag="busy")
    response.headers.prepend("Via", "SIP/2.0/TCP other;branch=x")
    ack = create_ack(invite, response)
    assert ack.start_line == "ACK sip:bob@b.example SIP/2.0"
    assert list(ack.headers) == [
        ("Via", "SIP/2.0/TLS a.example:5061;branch=z9hG4bKabc"),
        ("Max-Forwards", "70"),
        ("Route", "<sip:r1;lr>"),
        ("Route", "<sip:r2;lr>"),
        ("From", '"Alice" <sip:alice@a.example>;tag=from1'),
        ("To", "<sip:bob@b.example>;tag=busy"),
        ("Call-ID", "call@a.example"),
        ("CSeq", "7 ACK"),
    ]
    assert ack.body == b""
    ack.validate()


def test_cancel() -> None:
    """RFC 3261 9.1."""
    invite = request("Via: SIP/2.0/TCP top;branch=top, SIP/2.0/TCP second")
    cancel = create_cancel(invite)
    assert cancel.start_line == "CANCEL sip:bob@b.example SIP/2.0"
    assert [str(via) for via in cancel.via] == ["SIP/2.0/TCP top;branch=top"]
    assert cancel.cseq == (7, "CANCEL")
    assert (cancel.headers.get("To"), cancel.from_tag) == ("<sip:bob@b.example>", "from1")
    cancel.validate()
