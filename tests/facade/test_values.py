"""The values that applications hand in and get back."""

from __future__ import annotations

from typing import Any

import pytest

from p2psip import ContentDescription, IPEndPoint, RealTimeAddress, ResponseCode, SignalingHeader
from p2psip.domains import DomainSet
from p2psip.trace import excerpt, mask
from p2psip.values import decode_body, encode_body


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("sip:bob@example.com", "sip:BOB@EXAMPLE.com", True),  # unlike RFC 3261, as UCMA does
        ("sip:bob@example.com;a=1;b=2", "sip:bob@example.com;b=2;a=1", True),
        ("sip:bob@example.com", "sips:bob@example.com", False),
        ("sip:bob@example.com", "sip:bob@example.com:5060", False),
        ("sip:bob@example.com;transport=TCP", "sip:bob@example.com;transport=tcp", True),
        ("sip:bob@[::1]", "sip:bob@[0:0::1]", True),
        ("sip:bob:one@example.com", "sip:bob:two@example.com", False),
        ("sip:bob@example.com?a=b", "sip:bob@example.com", False),
        ("sip:bob@example.com;a=1", "sip:bob@example.com", False),
        ("tel:+1-234", "tel:+1234", True),
        ("tel:+1234", "tel:+1235", False),
    ],
)
def test_addresses_compare_as_in_ucma(one: str, other: str, equal: bool) -> None:
    assert (RealTimeAddress(one) == RealTimeAddress(other)) is equal
    if equal:
        assert hash(RealTimeAddress(one)) == hash(RealTimeAddress(other))


def test_parts_of_addresses() -> None:
    bob = RealTimeAddress("sip:bob@example.com:5070;gr=1", "e1")
    assert (bob.uri, bob.endpoint_id, bob.user_at_host) == ("sip:bob@example.com:5070;gr=1", "e1", "bob@example.com")
    assert bob.is_gruu and bob.is_endpoint_target and not bob.is_phone and bob.phone_uri is None
    assert bob != RealTimeAddress("sip:bob@example.com:5070;gr=1")
    phone = RealTimeAddress("tel:+1234")
    assert phone.is_phone and phone.phone_uri == "tel:+1234" and phone.sip_uri is None and phone.user_at_host == ""
    assert RealTimeAddress("sip:+1234@example.com;user=phone").is_phone


@pytest.mark.parametrize(
    "text", ["", "bob", "bob@example.com", "sip:", "sip:bob@", "mailto:bob@example.com", "tel:bob", "sip:a@b\r\n"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError):
        RealTimeAddress(text)


@pytest.mark.holds("R22", "F35")
@pytest.mark.parametrize(
    ("name", "value"), [("X", "a\rb"), ("X", "a\nb"), ("X", "a\0b"), ("X Y", "a"), ("", "a"), ("X:", "a")]
)
def test_headers_cannot_smuggle(name: str, value: str) -> None:
    with pytest.raises(ValueError):
        SignalingHeader(name, value)


def test_headers_compare_without_regard_to_the_case_of_the_name() -> None:
    assert SignalingHeader("Subject", "a") == SignalingHeader("SUBJECT", "a") != SignalingHeader("Subject", "A")
    assert tuple(SignalingHeader("Subject", "a")) == ("Subject", "a")


def test_bodies_and_their_charset() -> None:
    assert encode_body("text/plain;charset=utf-16-le", "a") == b"a\0"
    assert decode_body('text/plain; charset="utf-16-le"', b"a\0") == "a"
    assert decode_body("application/sdp", b"v=0") == "v=0"
    assert decode_body("application/octet-stream", b"v=0") is None
    assert ContentDescription("text/plain", "ä") == ContentDescription("text/plain", "ä".encode())
    with pytest.raises(ValueError):
        encode_body("text/plain;charset=ascii", "ä")


def test_response_codes() -> None:
    assert ResponseCode.SUCCESS == 200 and ResponseCode.is_successful_response(202)
    assert ResponseCode.is_failure_response(404) and not ResponseCode.is_failure_response(302)
    assert ResponseCode.is_redirect_response(302) and ResponseCode.is_provisional_response(180)


def test_an_ip_endpoint_is_a_pair() -> None:
    assert IPEndPoint("127.0.0.1", 5060) == ("127.0.0.1", 5060)


@pytest.mark.holds("R16")
def test_secrets_are_masked_and_nothing_else() -> None:
    message = (
        b"MESSAGE sip:b@c SIP/2.0\r\nAuthorization: Digest username=a,\r\n response=b\r\n"
        b"proxy-authorization : x\r\nTo: <sip:b@c>\r\n\r\nAuthorization: body"
    )
    assert mask(message) == (
        b"MESSAGE sip:b@c SIP/2.0\r\nAuthorization: ***\r\nproxy-authorization : ***\r\nTo: <sip:b@c>\r\n\r\n"
        b"Authorization: body"
    )


def test_excerpts_are_short_and_printable() -> None:
    assert excerpt(b"a\r\n\x1b[31m\xff") == r"a\r\n\x1b[31m\xff"
    assert len(excerpt(b"x" * 1000)) == 203
    assert "secret" not in excerpt(b"Authorization: secret\r\n\r\n")


def test_allowed_domains_are_a_set_of_domains() -> None:
    told: list[frozenset[str]] = []
    domains = DomainSet("allowed_domains", told.append)
    domains.add("Contoso.com")
    domains.add(".contoso.com")
    domains.discard("unknown.example")
    assert set(domains) == {"contoso.com", ".contoso.com"} and "CONTOSO.com" in domains
    domains.discard("no domain")
    assert "no domain" not in domains and 7 not in domains
    domains.replace(["a.example"])
    assert told[-1] == frozenset({"a.example"})
    with pytest.raises(ValueError):
        domains.add("*.contoso.com")
    with pytest.raises(TypeError, match="allowed_domains is a list"):
        domains.replace("a.example")


@pytest.mark.parametrize(
    ("content_type", "body", "error"),
    [
        (None, b"x", TypeError),
        ("text", b"x", ValueError),
        ("text/plain\r\nX-A: b", b"x", ValueError),
        ("text/plain", None, TypeError),
        ("text/plain;charset=none-such", "x", ValueError),
    ],
)
def test_a_content_is_what_it_says(content_type: Any, body: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        ContentDescription(content_type, body)


@pytest.mark.parametrize("charset", ["idna", "IDNA", "punycode", "unicode_escape", "raw_unicode_escape", "undefined"])
def test_a_codec_that_is_no_charset_is_not_used(charset: str) -> None:
    content_type = f"text/plain;charset={charset}"
    assert decode_body(content_type, b"abc") is None
    with pytest.raises(ValueError, match="charset"):
        encode_body(content_type, "abc")


@pytest.mark.holds("R16")
def test_headers_do_not_show_what_proves_who_somebody_is() -> None:
    assert "hunter2" not in repr(SignalingHeader("Authorization", "Digest hunter2"))
    assert SignalingHeader("Authorization", "Digest hunter2").value == "Digest hunter2"
    assert repr(SignalingHeader("X", "1")) == "SignalingHeader('X', '1')"
