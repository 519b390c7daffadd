from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from p2psip.errors import MessageParsingException
from p2psip.message import Headers, Request, canonical_name, parse_message


def test_names_compare_in_all_forms() -> None:
    headers = Headers([("v", "SIP/2.0/TCP a"), ("X-One", "1"), ("VIA", "SIP/2.0/TCP b"), ("f", "<sip:a>")])
    assert headers.get("Via") == headers.get("vIa") == headers.get("V") == "SIP/2.0/TCP a"
    assert headers.get_all("Via") == ["SIP/2.0/TCP a", "SIP/2.0/TCP b"]
    assert headers.count("via") == 2
    assert "FROM" in headers
    assert "x-one" in headers
    assert "To" not in headers
    assert 7 not in headers
    assert headers.get("To") is None
    assert headers.get_all("To") == []


def test_iteration_keeps_order_and_spelling() -> None:
    pairs = [("v", "a"), ("X-One", " 1 "), ("VIA", "b")]
    assert list(Headers(pairs)) == [("v", "a"), ("X-One", "1"), ("VIA", "b")]
    assert len(Headers(pairs)) == 3


def test_lists_are_split_where_the_grammar_allows() -> None:
    headers = Headers([("Supported", "a, b"), ("k", "c"), ("Subject", "a, b"), ("Allow", "")])
    assert headers.get_all("Supported") == ["a", "b", "c"]
    assert headers.get("Supported") == "a, b"
    assert headers.get_all("Subject") == ["a, b"]
    assert headers.get_all("Allow") == []
    with pytest.raises(MessageParsingException):
        Headers([("Require", "a,,b")]).get_all("Require")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Request-Disposition", "proxy, recurse"),  # RFC 3841
        ("d", "proxy, recurse"),
        ("Feature-Caps", '*;+g.a="x,y", *;+g.b'),  # RFC 6809
        ("User-to-User", "56a390f3;encoding=hex, 61;encoding=hex"),  # RFC 7433
        ("Reason", 'SIP;cause=200;text="a, b", Q.850;cause=16'),  # RFC 3326
        ("Recv-Info", "a, b"),  # RFC 6086
    ],
)
def test_lists_of_extensions_are_split(name: str, value: str) -> None:
    assert len(Headers([(name, value)]).get_all(name)) == 2


def test_fields_as_they_stand_and_joined() -> None:
    headers = Headers([("Supported", "a, b"), ("k", ""), ("k", "c"), ("To", "x"), ("Require", "")])
    assert headers.get_fields("supported") == ["a, b", "", "c"]
    assert headers.get_fields("Route") == []
    assert headers.get_joined("k") == "a, b, c"
    assert headers.get_joined("t") == "x"
    assert headers.get_joined("Require") == ""
    assert headers.get_joined("Route") is None
    assert Headers([("To", " x ")]).get_joined("To") == "x"


CHANGES: list[Callable[[Headers], None]] = [
    lambda headers: headers.prepend("Via", "first"),
    lambda headers: headers.prepend("X-Own", "first"),
    lambda headers: headers.add("v", "last"),
    lambda headers: headers.add("x-own", "last"),
    lambda headers: headers.set("VIA", "only"),
    lambda headers: headers.set("X-Own", "only"),
    lambda headers: headers.remove("Via"),
    lambda headers: headers.remove("x-own"),
]


@pytest.mark.parametrize("asked", range(4))
def test_what_is_known_of_the_fields_follows_the_changes(asked: int) -> None:
    """From whichever change on it was asked for."""
    for changes in itertools.product(CHANGES, repeat=3):
        headers = Headers([("Via", "a"), ("To", "x"), ("X-Own", "1")])
        for number, change in enumerate(changes):
            if number >= asked:
                headers.get("To")
            change(headers)
        anew = Headers(list(headers))
        for name in ("Via", "X-Own", "To", "From"):
            assert headers.get(name) == anew.get(name)
            assert headers.get_fields(name) == anew.get_fields(name)
            assert (name in headers) is (name in anew)


def test_changes() -> None:
    headers = Headers([("Via", "a"), ("To", "x"), ("v", "b")])
    headers.prepend("Via", "z")
    headers.add("X", "1")
    assert list(headers) == [("Via", "z"), ("Via", "a"), ("To", "x"), ("v", "b"), ("X", "1")]
    assert headers.get("via") == "z"
    headers.set("v", "only")
    assert list(headers) == [("v", "only"), ("To", "x"), ("X", "1")]
    headers.set("New", "n")
    headers.remove("to")
    headers.remove("absent")
    assert list(headers) == [("v", "only"), ("X", "1"), ("New", "n")]
    assert headers.get("To") is None


def test_copies_are_independent() -> None:
    headers = Headers([("X", "1")])
    copied = Headers(headers)
    copied.add("Y", "2")
    assert list(headers) == [("X", "1")]
    request = Request("OPTIONS", "sip:b", headers)
    request.headers.add("Z", "3")
    assert "Z" not in headers


def test_equality_is_of_meaning() -> None:
    assert Headers([("v", "a")]) == Headers([("VIA", " a ")])
    assert Headers([("v", "a")]) != Headers([("v", "b")])
    assert Headers() != []


@pytest.mark.holds("R22")
@pytest.mark.parametrize("value", ["a\r\nEvil: 1", "a\rb", "a\nb", "\r\n\r\nbody", "a\0b", "\n"])
def test_values_cannot_smuggle(value: str) -> None:
    headers = Headers([("X", "1")])
    for change in (headers.add, headers.set, headers.prepend):
        with pytest.raises(ValueError, match="CR, LF or NUL"):
            change("X", value)
    with pytest.raises(ValueError, match="CR, LF or NUL"):
        Request("OPTIONS", "sip:b", [("X", value)])
    assert list(headers) == [("X", "1")], "a refused change changes nothing"


def test_values_can_be_sent() -> None:
    """Half of a surrogate pair is no character; the stand-ins for octets that were received are fine."""
    headers = Headers()
    for change in (headers.add, headers.set, headers.prepend):
        with pytest.raises(ValueError, match="UTF-8"):
            change("X", "a\ud800")
    headers.add("X", "\u20ac \U0001f600 \udcff")
    assert "\u20ac \U0001f600 ".encode() + b"\xff\r\n" in Request("OPTIONS", "sip:b", headers).to_bytes()


@pytest.mark.holds("R22")
@pytest.mark.parametrize(
    "name", ["", "a b", "a:b", "X\r\nEvil", "X\n", "caf\xe9", "X\0", "(x)", " X", "\u212a", "\u017fubject"]
)
def test_names_cannot_smuggle(name: str) -> None:
    headers = Headers()
    for change in (headers.add, headers.set, headers.prepend):
        with pytest.raises(ValueError, match="name of a header"):
            change(name, "1")
    assert len(headers) == 0


def test_letters_that_only_look_like_ascii_in_lower_case() -> None:
    """The Kelvin sign in lower case is k, which is Supported."""
    with pytest.raises(MessageParsingException):
        parse_message("SIP/2.0 200 OK\r\n\u212a: 100rel\r\n\r\n".encode())
    assert "\u212a" not in Headers([("k", "100rel")])


def test_canonical_names() -> None:
    assert [canonical_name(name) for name in ("v", "CALL-ID", "cseq", "www-authenticate", "x-Mine")] == [
        "Via",
        "Call-ID",
        "CSeq",
        "WWW-Authenticate",
        "x-Mine",
    ]


def test_views_follow_changes() -> None:
    message = parse_message(
        b"OPTIONS sip:b SIP/2.0\r\nVia: SIP/2.0/TCP a;branch=1\r\nCSeq: 1 OPTIONS\r\nTo: <sip:b>\r\n\r\n"
    )
    assert (message.top_via.branch, message.cseq.number, message.to.tag, message.to_tag) == ("1", 1, None, None)
    message.headers.prepend("Via", "SIP/2.0/TCP z;branch=2")
    message.headers.set("CSeq", "2 OPTIONS")
    message.headers.set("To", "<sip:b>;tag=t")
    assert (message.top_via.branch, message.cseq.number, message.to.tag, message.to_tag) == ("2", 2, "t", "t")
    assert [via.branch for via in message.via] == ["2", "1"]
