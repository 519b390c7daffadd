from __future__ import annotations

import copy
import pickle

import pytest

from p2psip.errors import MessageParsingException
from p2psip.message import SipUri, parse_uri, unescape


def test_all_parts() -> None:
    uri = SipUri.parse("sips:al%69ce:secret@[2001:db8::1]:5071;Transport=tls;lr?Subject=hi&Priority=urgent")
    assert uri.scheme == "sips"
    assert (uri.user, uri.decoded_user, uri.password) == ("al%69ce", "alice", "secret")
    assert (uri.host, uri.port) == ("[2001:db8::1]", 5071)
    assert uri.parameters["TRANSPORT"] == "tls"
    assert uri.transport == "tls"
    assert uri.parameters.get("lr", "absent") is None
    assert "maddr" not in uri.parameters
    assert uri.headers == (("Subject", "hi"), ("Priority", "urgent"))
    assert str(uri) == "sips:al%69ce:secret@[2001:db8::1]:5071;Transport=tls;lr?Subject=hi&Priority=urgent"


def test_what_is_absent_is_none() -> None:
    uri = SipUri.parse("SIP:example.com")
    assert (uri.scheme, uri.user, uri.password, uri.port, uri.transport) == ("sip", None, None, None, None)
    assert dict(uri.parameters) == {}
    assert uri.headers == ()


def test_built_from_parts() -> None:
    uri = SipUri("sip", "bob", "2001:db8::1", 5060, parameters={"lr": None, "x": "1"}, headers=(("a", "b"),))
    assert str(uri) == "sip:bob@[2001:db8::1]:5060;lr;x=1?a=b"
    assert uri == SipUri.parse(str(uri))


@pytest.mark.parametrize(
    "parts",
    [
        {"scheme": "tel"},
        {"user": "a b"},
        {"user": ""},
        {"host": "a b"},
        {"host": "a.example\r\nVia: x"},
        {"port": 65536},
        {"port": 0},
        {"password": "p@ss"},
        {"parameters": {"x": "1;y"}},
        {"parameters": {"x": ""}},
        {"headers": (("a", "b&c"),)},
    ],
)
def test_parts_that_make_no_uri(parts: dict[str, object]) -> None:
    with pytest.raises(MessageParsingException):
        SipUri.parse("sip:bob@b.example").replace(**parts)


def test_replace() -> None:
    uri = SipUri.parse("sip:bob:pw@b.example:5060;lr?a=b")
    assert str(uri.replace(port=None)) == "sip:bob:pw@b.example;lr?a=b"
    assert str(uri.replace(user="eve")) == "sip:eve@b.example:5060;lr?a=b", "a password is its user's"
    assert str(uri.replace(user=None, headers=())) == "sip:b.example:5060;lr"
    assert str(uri.replace(parameters={**uri.parameters, "transport": "tls"})) == (
        "sip:bob:pw@b.example:5060;lr;transport=tls?a=b"
    )
    with pytest.raises(TypeError):
        uri.replace(colour="red")


def test_immutable() -> None:
    uri = SipUri.parse("sip:bob@b.example;lr")
    with pytest.raises(AttributeError):
        uri.host = "c.example"
    with pytest.raises(AttributeError):
        del uri.host
    with pytest.raises(TypeError):
        uri.parameters["lr"] = "1"  # type: ignore[index]
    assert copy.copy(uri) is uri
    assert copy.deepcopy(uri) is uri
    assert pickle.loads(pickle.dumps(uri)) == uri


def test_not_equal_to_its_text() -> None:
    assert SipUri.parse("sip:a.example") != "sip:a.example"
    assert len({SipUri.parse("sip:a.example"), SipUri.parse("SIP:A.example")}) == 1


def test_ipv6_hosts_compare_as_addresses() -> None:
    """RFC 5954 4.2."""
    assert SipUri.parse("sip:[2001:db8::0:1]") == SipUri.parse("sip:[2001:DB8::1]")


def test_long_texts_are_not_kept() -> None:
    text = "sip:" + "a" * 4000 + "@b.example"
    assert SipUri.parse(text) is not SipUri.parse(text)
    assert SipUri.parse("sip:a@b.example") is SipUri.parse("sip:a@b.example")


@pytest.mark.holds("A13")
@pytest.mark.parametrize(
    "text", ["sip:a%@b", "sip:a%4@b", "sip:a%zz@b", "sip:a@b;x=%", "sip:a@b?x=%1", "tel:%", "x:%1"]
)
def test_escapes_that_are_cut_off(text: str) -> None:
    with pytest.raises(MessageParsingException):
        parse_uri(text)


def test_other_schemes_are_text() -> None:
    assert parse_uri("tel:+1-212-555-0101") == "tel:+1-212-555-0101"
    with pytest.raises(MessageParsingException):
        SipUri.parse("tel:+1-212-555-0101")
    with pytest.raises(MessageParsingException):
        parse_uri("no colon")


@pytest.mark.parametrize(
    "text", ["", "sip:", "sips:", "sip:@b", "<sip:a@b>", " sip:a@b", "sip:a@b ", "sip:a@b\0", "sip:a\n@b"]
)
def test_not_a_uri(text: str) -> None:
    with pytest.raises(MessageParsingException) as caught:
        SipUri.parse(text)
    assert caught.value.status_code == 400


def test_unescape_is_done_once_and_never_fails() -> None:
    assert unescape("%2541") == "%41"
    assert unescape("%C3%A9") == "\xe9"
    assert unescape("%ff%") == "\udcff%"
    assert unescape("a%0d%0Ab") == "a\r\nb"


def test_a_parameter_that_comes_twice_alike_is_one() -> None:
    """baresip writes so; with two values, or with and without one, it would be ambiguous."""
    uri = SipUri.parse("sip:a@example.net;transport=tcp;lr;transport=tcp;lr")
    assert dict(uri.parameters) == {"transport": "tcp", "lr": None}
    for text in ("sip:a@example.net;transport=tcp;transport=tls", "sip:a@example.net;lr;lr=on"):
        with pytest.raises(MessageParsingException, match="comes twice"):
            SipUri.parse(text)
