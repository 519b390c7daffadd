from __future__ import annotations

import pytest
from message_support import request_bytes

from p2psip.config import ManagerSettings
from p2psip.errors import MessageParsingException
from p2psip.message import Limits, Request, Response, StreamFramer, parse_message
from p2psip.message.parser import DEFAULT_LIMITS


def parsed(data: bytes) -> Request:
    message = parse_message(data)
    assert isinstance(message, Request)
    return message


def refused(data: bytes, limits: Limits = DEFAULT_LIMITS) -> MessageParsingException:
    with pytest.raises(MessageParsingException) as caught:
        parse_message(data, limits)
    return caught.value


def test_a_request() -> None:
    data = request_bytes("Contact: <sip:a>, <sip:b>;q=0.5", "Route: <sip:r;lr>", "Expires: 60", body=b"hello")
    message = parsed(data)
    assert (message.method, message.uri, message.sip_version) == ("MESSAGE", "sip:bob@b.example", "SIP/2.0")
    assert message.start_line == "MESSAGE sip:bob@b.example SIP/2.0"
    assert str(message.request_uri) == "sip:bob@b.example"
    assert message.body == b"hello"
    assert message.to_bytes() is data
    assert message.call_id == "call@a.example"
    assert message.cseq == (7, "MESSAGE")
    assert message.from_.display_name == "Alice"
    assert (message.from_tag, message.to_tag) == ("from1", None)
    assert message.max_forwards == 70
    assert message.expires == 60
    assert message.content_length == 5
    assert message.content_type is None
    assert [str(contact.uri) for contact in message.contact if not isinstance(contact, str)] == ["sip:a", "sip:b"]
    assert [str(route.uri) for route in message.route] == ["sip:r;lr"]
    assert message.record_route == []
    assert message.top_via.sent_by == ("a.example", 5061)
    message.validate()


def test_a_response() -> None:
    message = parse_message(b"SIP/2.0 183 In \xe2\x82\xac progress\r\nTo: <sip:b>;tag=1\r\n\r\n")
    assert isinstance(message, Response)
    assert (message.status_code, message.reason, message.to_tag) == (183, "In \u20ac progress", "1")
    assert message.body == b""


@pytest.mark.parametrize("line", ["SIP/2.0 200", "SIP/2.0 200 "])
def test_a_status_line_may_lack_reason_and_space(line: str) -> None:
    """The RFC wants the space; some leave it out with the reason, and nothing else can be meant."""
    message = parse_message(f"{line}\r\nTo: <sip:b>\r\n\r\n".encode())
    assert isinstance(message, Response)
    assert (message.status_code, message.reason) == (200, "")
    assert message.to_bytes().startswith(line.encode() + b"\r\n")
    message.headers.add("X", "1")
    assert message.to_bytes().startswith(b"SIP/2.0 200 \r\n")


def test_octets_that_are_not_utf8_survive() -> None:
    data = request_bytes("Subject: caf\udce9", "X: \udcff\udcfe", body=bytes(range(256)))
    message = parsed(data)
    assert message.headers.get("Subject") == "caf\udce9"
    assert message.to_bytes() == data
    message.headers.add("Y", "\u20ac")
    assert b"Subject: caf\xe9\r\n" in message.to_bytes()
    assert "Y: \u20ac\r\n".encode() in message.to_bytes()
    assert message.to_bytes().endswith(bytes(range(256)))
    assert repr(message).isascii()


def test_a_body_without_length_is_all_that_is_left() -> None:
    assert parsed(request_bytes(without="Content-Length") + b"rest").body == b"rest"


def test_what_follows_the_body_is_cut() -> None:
    data = request_bytes(body=b"hello")
    message = parsed(b"\r\n\r\n" + data + b"more")
    assert message.body == b"hello"
    assert message.to_bytes() == data


def test_content_length_is_written_last_whatever_the_headers_say() -> None:
    request = Request("OPTIONS", "sip:b", [("l", "7"), ("Content-Length", "9"), ("X", "1")], b"four")
    assert request.to_bytes() == b"OPTIONS sip:b SIP/2.0\r\nX: 1\r\nContent-Length: 4\r\n\r\nfour"
    message = parsed(request_bytes(body=b"hello"))
    message.headers.add("X", "1")
    assert message.to_bytes().endswith(b"X: 1\r\nContent-Length: 5\r\n\r\nhello")
    assert message.to_bytes().count(b"Content-Length") == 1


def test_folded_fields_are_unfolded() -> None:
    message = parsed(request_bytes("Subject: one\r\n two\r\n\t  three  ", "l:\r\n 0", without="Content-Length"))
    assert message.content_length == 0
    assert message.headers.get("Subject") == "one two three"


def test_a_fold_may_not_begin_the_header_fields() -> None:
    assert "continues nothing" in str(refused(b"OPTIONS sip:b SIP/2.0\r\n folded\r\n\r\n"))


@pytest.mark.holds("R22", "A16")
@pytest.mark.parametrize(
    "line", ["NoColon", ": no name", "To\x01: x", "Na me: x", "caf\xe9: x", "(c): x", "\x0b: x", "To[1]: x"]
)
def test_lines_that_are_no_header_fields(line: str) -> None:
    error = refused(request_bytes(line))
    assert error.status_code == 400
    assert error.line_number in (2, -1)


def test_white_space_before_the_colon() -> None:
    assert parsed(request_bytes("Subject \t : hi")).headers.get("s") == "hi"


@pytest.mark.holds("R22")
@pytest.mark.parametrize(
    "line", ["X: a\rb", "X: a\nb", "X: \0", "X: \x07", "X: a\x7f", 'X: "\\\n"', 'X: "a\x08"', "X: \\\x07"]
)
def test_control_characters(line: str) -> None:
    refused(request_bytes(line))


def test_control_characters_may_be_quoted_pairs() -> None:
    """As in RFC 4475 3.1.1.2."""
    message = parsed(request_bytes('X: "BEL:\\\x07 NUL:\\\0 DEL:\\\x7f" and "\\\x01"'))
    assert message.headers.get("X") == '"BEL:\\\x07 NUL:\\\0 DEL:\\\x7f" and "\\\x01"'


@pytest.mark.parametrize(
    "line",
    [
        *(
            "",
            " ",
            "OPTIONS",
            "OPTIONS sip:b",
            "OPTIONS sip:b SIP/2.0 ",
            " OPTIONS sip:b SIP/2.0",
            "OPTIONS  sip:b SIP/2.0",
        ),
        *("OPTIONS <sip:b> SIP/2.0", 'OPTIONS "sip:b" SIP/2.0', "OPTIONS sip:b SIP/2", "OPTIONS sip:b HTTP/1.1"),
        *(
            "OPT(IONS sip:b SIP/2.0",
            "OPTIONS sip:\xe9 SIP/2.0",
            "OPTIONS sip:b\tSIP/2.0",
            "GET / HTTP/1.1",
            "OPTIONS sip:b \u017fIP/2.0",
        ),
        *(
            "SIP/2.0 20",
            "SIP/2.0 20 OK",
            "SIP/2.0",
            "SIP/2.0 ",
            "SIP/2.0 200\tOK",
            "SIP/2.0 200OK",
            "SIP/2.0 2000 OK",
            "SIP/2.0 2x0 OK",
            "SIP/2.0  200 OK",
            "SIP/2. 200 OK",
        ),
    ],
)
def test_not_a_start_line(line: str) -> None:
    error = refused(f"{line}\r\nTo: <sip:b>\r\n\r\n".encode())
    assert error.status_code == (None if line.startswith("SIP/") else 400)
    assert error.answer is None


@pytest.mark.holds("R19", "A1", "A2")
@pytest.mark.parametrize(
    "value",
    [
        "",
        "-1",
        "+0",
        "0x0",
        "1_0",
        "\u0660",
        "1 2",
        "1,1",
        "ten",
        "5.0",
        "4294967328",
        "99999999999",
        "9" * 20,
        "9" * 5000,
        "7",
    ],
)
def test_content_length_that_cannot_be(value: str) -> None:
    """The rows 1 and 2 of what went wrong elsewhere; 7 is more than there is."""
    error = refused(request_bytes(f"Content-Length: {value}", without="Content-Length"))
    assert error.status_code in (400, 413)


@pytest.mark.holds("R19", "A2")
@pytest.mark.parametrize("second", ["0", "5"])
def test_two_content_lengths(second: str) -> None:
    assert "more than once" in str(refused(request_bytes(f"l: {second}")))


def test_refusals_come_with_an_answer_where_one_can_be_made() -> None:
    error = refused(request_bytes("NoColon"))
    assert error.answer is not None
    assert error.answer.status_code == 400
    assert error.answer.cseq == (7, "MESSAGE")
    assert error.answer.to_tag
    assert error.answer.top_via.branch == "z9hG4bKabc"
    again = refused(request_bytes("NoColon"))
    assert again.answer is not None
    assert again.answer.to_tag == error.answer.to_tag, "RFC 3261 8.2.7"


@pytest.mark.holds("R23")
@pytest.mark.parametrize("without", ["Via", "From", "To", "Call-ID", "CSeq"])
def test_no_answer_without_the_dialog_headers(without: str) -> None:
    assert refused(request_bytes("NoColon", without=without)).answer is None


@pytest.mark.holds("R23")
@pytest.mark.parametrize("line", ["To: <sip:other>", "From: x", "Via: x", "Call-ID: x", "CSeq: x"])
def test_no_answer_when_the_dialog_headers_are_unclear(line: str) -> None:
    assert refused(request_bytes("NoColon", line)).answer is None


@pytest.mark.holds("R23")
def test_acks_and_responses_are_not_answered() -> None:
    for data in (request_bytes("NoColon", method="ACK"), b"SIP/2.0 200 OK\r\nNoColon\r\n\r\n"):
        error = refused(data)
        assert (error.status_code, error.answer) == (None, None)


@pytest.mark.parametrize(
    ("value", "tag"),
    [
        ("<sip:a>;tag=1", "1"),
        ("<sip:a>;epid=2;tag=1", "1"),
        ("<sip:a>;tag=1;epid=2", "1"),
        ("<sip:a;tag=2>;tag=1 ", "1"),
        ("<sip:a;tag=2>", None),
        ("sip:a;tag=1", "1"),
        ("sip:a;x;tag=1", "1"),
        ("sip:a", None),
        ('"x;tag=2" <sip:a>', None),
        ('"x>;tag=2" <sip:a>;TAG = 1', "1"),
        ('<sip:a>;x=">;tag=2"', None),
        ('<sip:a>;x="y>;tag=2";tag=1', "1"),
        ('<sip:a>;x=">";tag=1', "1"),
        ("<sip:a>;tag=a.b", "a.b"),
    ],
)
def test_tags_are_found_without_the_rest(value: str, tag: str | None) -> None:
    message = parsed(
        request_bytes(f"From: {value}", f"To: {value}", without="From").replace(b"To: <sip:bob", b"X: <sip:bob")
    )
    assert (message.from_tag, message.to_tag) == (tag, tag)
    assert (message.from_.tag, message.to.tag) == (tag, tag)
    assert (message.from_tag, message.to_tag) == (tag, tag)


@pytest.mark.parametrize(
    ("vias", "branch", "alone"),
    [
        (["SIP/2.0/TLS a;branch=z9"], "z9", True),
        (["SIP/2.0/TLS a;rport;BRANCH = z9;x"], "z9", True),
        (["SIP/2.0/TLS a;branch=z9-b.c;rport"], "z9-b.c", True),
        (["SIP/2.0/TLS a;branch=z9;rport", "SIP/2.0/TLS b;branch=other"], "z9", False),
        (["SIP/2.0/TLS a;branch=z9, SIP/2.0/TLS b;branch=other"], "z9", False),
        (["SIP/2.0/TLS a, SIP/2.0/TLS b;branch=other"], None, False),
        (['SIP/2.0/TLS a;x=";branch=no;"'], None, True),
        (['SIP/2.0/TLS a;x="\\";branch=no;";branch=z9'], "z9", True),
        (["SIP/2.0/TLS a"], None, True),
        (['SIP/2.0/TLS a;branch=z9;x="b, c"'], "z9", True),
    ],
)
def test_the_top_branch_is_found_without_the_rest(vias: list[str], branch: str | None, alone: bool) -> None:
    message = Response(200, "OK", [("Via", via) for via in vias])
    assert (message.top_branch, message.has_one_via) == (branch, alone)
    assert message.top_via.branch == branch


def test_no_top_branch_without_via() -> None:
    message = Response(200, "OK")
    assert not message.has_one_via
    with pytest.raises(MessageParsingException):
        message.top_branch  # noqa: B018


LIMITS = Limits.of(
    ManagerSettings(
        maximum_start_line=100,
        maximum_header=200,
        maximum_head=2000,
        maximum_headers=20,
        maximum_values=3,
        maximum_body=10,
    )
)


@pytest.mark.holds("R18")
@pytest.mark.parametrize(
    ("data", "status_code"),
    [
        (request_bytes(uri="sip:" + "b" * 100), 414),
        (request_bytes("X: " + "x" * 200), 400),
        (request_bytes("X: " + "x" * 150 + "\r\n " + "x" * 150), 400),
        (request_bytes(*["X: 1"] * 14), 400),
        (request_bytes(*["X: " + "x" * 190] * 12), 400),
        (request_bytes("Via: SIP/2.0/TCP a, SIP/2.0/TCP b, SIP/2.0/TCP c"), 400),
        (request_bytes(*["Route: <sip:a>"] * 4), 400),
        (request_bytes("Record-Route: <sip:a>,<sip:a>,<sip:a>,<sip:a>"), 400),
        (request_bytes(body=b"12345678901"), 413),
    ],
)
def test_limits(data: bytes, status_code: int) -> None:
    parse_message(data)
    with pytest.raises(MessageParsingException) as caught:
        parse_message(data, LIMITS)
    assert caught.value.status_code == status_code
    assert caught.value.answer is not None
    assert caught.value.answer.status_code == status_code


def exactly(what: str, count: int) -> bytes:
    """A request that has so much of it."""
    match what:
        case "start line":
            return request_bytes(uri="sip:" + "b" * (count - len("MESSAGE sip: SIP/2.0")))
        case "header":
            return request_bytes("X: " + "x" * (count - 3))
        case "headers":
            return request_bytes(*["X: 1"] * (count - 7))
        case "values":
            return request_bytes("Route: <sip:a>,<sip:a>", *["Route: <sip:a>"] * (count - 2))
        case _:
            return request_bytes(body=b"x" * count)


@pytest.mark.holds("R18")
@pytest.mark.parametrize(
    ("what", "limit"), [("start line", 100), ("header", 200), ("headers", 20), ("values", 3), ("body", 10)]
)
def test_a_limit_is_what_may_be(what: str, limit: int) -> None:
    most = exactly(what, limit)
    assert parse_message(most, LIMITS).to_bytes() == most
    (framed,) = StreamFramer(LIMITS).feed(most)
    assert isinstance(framed, Request)
    refusal = refused(exactly(what, limit + 1), LIMITS)
    assert refusal._limit == "maximum_" + what.replace(" ", "_")


@pytest.mark.holds("R18", "A9")
def test_many_values_are_refused_by_default() -> None:
    """Row 9 of what went wrong elsewhere."""
    for name, value in (("Via", "SIP/2.0/TCP a"), ("Route", "<sip:a>"), ("Record-Route", "<sip:a>")):
        refused(request_bytes(f"{name}: " + ",".join([value] * 1000)))
    for name in ("Accept: text/plain", "X: 1", "Via: SIP/2.0/TCP a"):
        refused(request_bytes(*[name] * 1000))
    refused(request_bytes("Via: " + ",".join(["SIP/2.0/TCP a"] * 64)))
    parsed(request_bytes("Via: " + ",".join(["SIP/2.0/TCP a"] * 63))).validate()


def test_a_code_with_a_leading_zero_keeps_it() -> None:
    """It is no code that means anything, but what is written can be read again."""
    response = parse_message(b"SIP/2.0 010 \r\nVia: SIP/2.0/TCP a\r\nContent-Length: 0\r\n\r\n")
    response.headers.add("X", "1")
    assert response.to_bytes().startswith(b"SIP/2.0 010 \r\n")
    assert parse_message(response.to_bytes()).start_line == response.start_line
