from __future__ import annotations

import pytest
from message_support import request_bytes

from p2psip.errors import MessageParsingException
from p2psip.message import (
    CSeq,
    Date,
    Headers,
    MediaType,
    NameAddr,
    Parameterised,
    SipUri,
    Via,
    parse_field,
    parse_message,
    quote_display_name,
    split_list,
    unquote,
)


def test_name_addr() -> None:
    address = NameAddr.parse('"A \\"B\\" <C>" <sip:a@a.example;x=1>;tag=t1;+sip.instance="<urn:x>"')
    assert address.display_name == 'A "B" <C>'
    assert address.uri == SipUri.parse("sip:a@a.example;x=1")
    assert address.params == {"tag": "t1", "+sip.instance": '"<urn:x>"'}
    assert address.tag == "t1"
    assert NameAddr.parse(str(address)) == address


@pytest.mark.parametrize(
    ("text", "name", "uri", "params"),
    [
        ("sip:a@a.example;tag=1", None, "sip:a@a.example", {"tag": "1"}),
        ("<sip:a@a.example;tag=1>", None, "sip:a@a.example;tag=1", {}),
        ("A B<sip:a@a.example> ; TAG = 1", "A B", "sip:a@a.example", {"tag": "1"}),
        ("<tel:+1>;tag=1", None, "tel:+1", {"tag": "1"}),
        ('"" <sip:a.example>', "", "sip:a.example", {}),
        ("<sip:a.example>;x", None, "sip:a.example", {"x": None}),
    ],
)
def test_shapes_of_name_addr(text: str, name: str | None, uri: str, params: dict[str, str | None]) -> None:
    address = NameAddr.parse(text)
    assert (address.display_name, str(address.uri), address.params) == (name, uri, params)


@pytest.mark.holds("A14")
@pytest.mark.parametrize("text", ["<http://x/>;tag=1", "<mailto:a@b>", "<http://x/>"])
def test_other_schemes_in_from_stay_text(text: str) -> None:
    assert isinstance(NameAddr.parse(text).uri, str)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<>",
        "</>",
        "<sip:a",
        "sip:a>",
        '"A <sip:a>',
        "<sip:a>;",
        "<sip:a>;;x",
        "<sip:a> x",
        "A, B <sip:a>",
        "<sip:a>;tag=",
        "<sip:a>;tag",
        "sip:a;tag;x",
        "A\xa0B <sip:a>",
        '"a\0" <sip:a>',
        "<sip:a>\xa0;x",
        "<sip:a>;tag=1;Tag=2",
        '<sip:a>;tag="x"',
        "sip:a?b=c",
        "sip:a,sip:b",
        "< sip:a>",
        "*",
    ],
)
def test_not_a_name_addr(text: str) -> None:
    with pytest.raises(MessageParsingException):
        NameAddr.parse(text)


def test_route_needs_brackets() -> None:
    with pytest.raises(MessageParsingException):
        NameAddr.parse("sip:a.example;lr", brackets=True)


def test_via() -> None:
    via = Via.parse("SIP/2.0/TLS A.Example:5071;branch=z9hG4bK1;received=192.0.2.1;rport=7")
    assert (via.protocol, via.version, via.transport) == ("SIP", "2.0", "TLS")
    assert (via.host, via.port, via.sent_by) == ("A.Example", 5071, ("a.example", 5071))
    assert via.branch == "z9hG4bK1"
    assert via.params == {"branch": "z9hG4bK1", "received": "192.0.2.1", "rport": "7"}
    assert Via.parse(str(via)) == via


@pytest.mark.parametrize(
    ("text", "sent_by"),
    [
        ("SIP/2.0/TCP h", ("h", 5060)),
        ("SIP/2.0/UDP h", ("h", 5060)),
        ("SIP/2.0/TLS h", ("h", 5061)),
        ("SIP/2.0/tls [2001:DB8::1]", ("[2001:db8::1]", 5061)),
        ("SIP/2.0/WSS h", ("h", 443)),
        ("SIP / 2.0 /\tTCP  h : 7 ;branch=x", ("h", 7)),
    ],
)
def test_sent_by(text: str, sent_by: tuple[str, int]) -> None:
    via = Via.parse(text)
    assert via.sent_by == sent_by
    assert Via(via.transport, via.host, via.port).sent_by == sent_by


@pytest.mark.parametrize(
    "text",
    [
        "",
        "SIP/2.0/TCP",
        "SIP/2.0/TCP h;branch",
        "SIP/2.0/TCP h;branch=",
        "SIP/2.0/TCP h;branch=a b",
        'SIP/2.0/TCP h;branch="a"',
        "SIP/2.0/TCP h:65536",
        "SIP/2.0/TCP h;",
        "SIP/2.0/TCP h;branch=a;branch=b",
        "SIP/2.0/TCP h;ttl=256",
        "SIP/2.0/TCP h;received=h2",
        "SIP/2.0/TCP h;rport=0",
        "SIP/2.0/TCP h;rport=65536",
        "\u017fIP/2.0/TCP h",
        "SIP/2.0/TCP\xa0h",
        "HTTP/2.0/TCP h",
    ],
)
def test_not_a_via(text: str) -> None:
    with pytest.raises(MessageParsingException):
        Via.parse(text)


def test_cseq() -> None:
    assert CSeq.parse("0009 \t INVITE") == CSeq(9, "INVITE")
    assert CSeq.parse("2147483647 !x") == (2**31 - 1, "!x")
    assert str(CSeq(7, "BYE")) == "7 BYE"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "INVITE",
        "-1 A",
        "+1 A",
        "0x1 A",
        "1_0 A",
        "\u0661 A",
        "2147483648 A",
        "9" * 5000 + " A",
        "1 A B",
        "1 A/",
        "1\xa0A",
        "1\x0cA",
    ],
)
def test_not_a_cseq(text: str) -> None:
    with pytest.raises(MessageParsingException):
        CSeq.parse(text)


@pytest.mark.parametrize(
    "name", ["plain", "two words", "", "a,b", 'say "hi"', "back\\slash", "caf\xe9", "<>", " lead", "\x07\x7f \t"]
)
def test_display_names_survive(name: str) -> None:
    assert NameAddr.parse(str(NameAddr("sip:a.example", name))).display_name == name
    assert quote_display_name("two words") == "two words"
    assert quote_display_name("a.b, c") == '"a.b, c"'


@pytest.mark.holds("R22")
@pytest.mark.parametrize("name", ["a\r\nVia: x", "a\nb", "a\0b"])
def test_display_names_cannot_smuggle(name: str) -> None:
    with pytest.raises(ValueError, match="CR, LF or NUL"):
        quote_display_name(name)


def test_a_display_name_with_a_nul_survives() -> None:
    """RFC 4475 3.1.1.2. It is written as it was received; an application's own is refused, as in every value."""
    address = NameAddr.parse('"a\\\0" <sip:a.example>')
    assert address.display_name == "a\0"
    assert str(address) == '"a\\\0" <sip:a.example>'
    assert NameAddr.parse(str(address)) == address


def test_lists() -> None:
    assert split_list('a, "b,c" , <d,e>,f') == ["a", '"b,c"', "<d,e>", "f"]
    for text in ("a,,b", ",a", "a,", ",", '"a, b', "<a, b"):
        with pytest.raises(MessageParsingException):
            split_list(text)


def test_unquote() -> None:
    assert unquote('"a\\"b\\\\"') == 'a"b\\'
    assert unquote("plain") == "plain"


def test_fields_by_name_in_any_form() -> None:
    assert parse_field("k", "a, b") == parse_field("SUPPORTED", " a,b ") == ["a", "b"]
    assert parse_field("c", "Text/Plain;charset=utf-8") == MediaType("text", "plain", {"charset": "utf-8"})
    assert parse_field("Event", "presence;id=1") == Parameterised("presence", {"id": "1"})
    assert parse_field("X-Whatever", " anything , at all ") == "anything , at all"
    assert parse_field("Contact", "*") == "*"
    with pytest.raises(MessageParsingException):
        parse_field("Contact", "<sip:a>;q=9e9")
    with pytest.raises(MessageParsingException):
        parse_field("Contact", "<sip:a>;expires=soon")
    with pytest.raises(MessageParsingException):
        parse_field("Expires", "4294967296")


def test_date() -> None:
    date = parse_field("Date", "Sat, 13 Nov 2010 23:29:00 GMT")
    assert date == Date(2010, 11, 13, 23, 29, 0)
    assert date.unix == 1289690940
    for text in ("Sat, 31 Feb 2010 23:29:00 GMT", "Sat, 13 Nov 2010 24:00:00 GMT", "Sat, 13 Nov 0000 00:00:00 GMT"):
        with pytest.raises(MessageParsingException):
            parse_field("Date", text)


@pytest.mark.holds("R20")
def test_comments_nest_without_recursion() -> None:
    depth = 50_000
    assert parse_field("Retry-After", "5 " + "(" * depth + ")" * depth).comment == "(" * (depth - 1) + ")" * (depth - 1)
    with pytest.raises(MessageParsingException):
        parse_field("Retry-After", "5 " + "(" * depth)


@pytest.mark.parametrize(
    "tail", ["", ";tag=a1", ";tag=a.1", ";tag=", ";tag=a;x=1", ";TAG=a;tag=b", " ;tag=a", ';x="q;tag=a"', ";x;tag=a"]
)
@pytest.mark.parametrize(
    "front",
    [
        "<sip:a@b.example>",
        '"A;tag=b" <sip:a@b.example;tag=c>',
        "A B <sip:a@b.example>",
        "sip:a@b.example",
        "<sip:a@b",
        '"A',
        "",
    ],
)
def test_what_is_remembered_of_addresses_changes_nothing(front: str, tail: str) -> None:
    """The short way, twice (from the cache the second time), against the long one."""

    def outcome(parse: object) -> object:
        try:
            address = parse()  # type: ignore[operator]
        except MessageParsingException:
            return "refused"
        return (address.display_name, str(address.uri), address.params)

    text = front + tail
    expected = outcome(lambda: NameAddr._parse(text, False))
    assert outcome(lambda: NameAddr.parse(text)) == expected
    assert outcome(lambda: NameAddr.parse(text)) == expected


def test_addresses_do_not_share_their_parameters() -> None:
    one, other = (NameAddr.parse("<sip:a@b.example>;x=1") for _ in range(2))
    one.params["x"] = "2"
    assert other.params == {"x": "1"} == NameAddr.parse("<sip:a@b.example>;x=1").params


@pytest.mark.holds("R16")
@pytest.mark.parametrize(
    "line",
    [
        'Authorization: Digest username="a", response="hunter2',
        'Authorization: Digest username="a", response="hunter2"\x01',
        "Proxy-Authorization: Digest hunter2",
        "authorization : Basic hunter2, hunter2",
        "Authorization\x01: hunter2",
        "X Authorization: hunter2",
        "Authentication-Info: hunter2",
        f"{'x' * 60} Authorization: hunter2",
    ],
)
def test_errors_tell_no_secrets(line: str) -> None:
    """Not in themselves, nor in what they come from."""
    name, _, value = line.partition(":")
    refusals = 0
    for attempt in (
        lambda: parse_message(request_bytes(line)).validate(),
        lambda: parse_field(name.strip(), value),
        lambda: Headers([(name, value + "\0")]),
        lambda: Headers([(name, value + "\ud800")]),
    ):
        try:
            attempt()
        except (MessageParsingException, ValueError) as error:
            refusals += 1
            told: BaseException | None = error
            while told is not None:
                assert "hunter2" not in str(told)
                told = told.__cause__ or told.__context__
    assert refusals >= 3


@pytest.mark.holds("R16")
@pytest.mark.parametrize(
    "name", ["Authorization", "proxy-authorization", "Authentication-Info", "Proxy-Authentication-Info"]
)
def test_secrets_are_not_in_what_is_shown_of_values(name: str) -> None:
    value = 'Digest username="a", response="hunter2"'
    shown = [Headers([("X", "1"), (name, value)]), parse_field("Authorization", value)]
    message = parse_message(request_bytes(f"{name}: {value}"))
    shown += [message, message.headers]
    for item in shown:
        assert "hunter2" not in repr(item) + str(item)
    assert "('X', '1')" in repr(shown[0]) and name in repr(shown[0])
    assert "username" in repr(shown[1])
    assert Headers([(name, value)]).get(name) == value
