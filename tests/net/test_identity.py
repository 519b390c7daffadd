"""Whom a certificate stands for (RFC 5922)."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from tls_support import authority

from p2psip.net.identity import MAXIMUM_NAMES, Identities, is_domain, server_name

TABLE = Path(__file__).resolve().parent.parent / "data" / "corpus" / "tables" / "certificate_identity.json"


def rows() -> list[dict[str, Any]]:
    return json.loads(TABLE.read_text(encoding="utf-8"))["rows"]  # type: ignore[no-any-return]


@pytest.mark.holds("R4")
@pytest.mark.parametrize("row", rows(), ids=lambda row: row["name"])
def test_the_corpus_agrees(row: dict[str, Any]) -> None:
    san = row["san"] or {}
    identities = Identities.of(
        san.get("uri", ()),
        san.get("dns", ()),
        san.get("ip", ()),
        row["cn"],
        allow_common_name=True,
        has_names=row["san"] is not None,
    )
    assert list(identities.names) == row["expected_identities"]
    if row["expected_match"] is not None:
        assert identities.covers(row["aus_domain"]) is row["expected_match"]


@pytest.mark.holds("R4")
@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["sip:a.example", "b.example"], ("a.example",)),
        (["sips:a.example", "b.example"], ("b.example",)),
        (["sip:alice@a.example", "b.example"], ("b.example",)),
        (["SIP:A.Example:5061;transport=tls"], ("a.example",)),
        (["sip:[2001:db8::1]"], ("2001:db8::1",)),
        (["b.example", "192.0.2.1"], ("b.example", "192.0.2.1")),
        (["2001:db8:0:0::1"], ("2001:db8::1",)),
        (["sip:a.example", "sip:A.EXAMPLE"], ("a.example",)),
    ],
)
def test_names_of_a_certificate(names: list[str], expected: tuple[str, ...]) -> None:
    issued = authority().issue(*names, common_name="common.example")
    assert Identities.from_certificate(issued.certificate).names == expected


@pytest.mark.holds("R4")
def test_the_common_name_counts_only_alone_and_on_request() -> None:
    bare = authority().issue(common_name="common.example").certificate
    assert Identities.from_certificate(bare).names == ()
    assert Identities.from_certificate(bare, allow_common_name=True).names == ("common.example",)
    named = authority().issue("mailto:a@b.example", common_name="common.example").certificate
    assert Identities.from_certificate(named, allow_common_name=True).names == ()


@pytest.mark.holds("R4")
def test_only_so_many_names_are_looked_at() -> None:
    names = [f"h{number}.example" for number in range(MAXIMUM_NAMES + 1)]
    identities = Identities.from_certificate(authority().issue(*names).certificate)
    assert len(identities.names) == MAXIMUM_NAMES
    assert identities.covers(names[-2])
    assert not identities.covers(names[-1])


@pytest.mark.holds("R4")
@pytest.mark.parametrize(
    ("host", "covered"),
    [
        ("a.example", True),
        ("A.EXAMPLE", True),
        ("a.example.", True),
        ("a.example..", False),
        ("x.a.example", False),
        ("example", False),
        (".a.example", False),
        ("", False),
        (".", False),
        ("bücher.example", True),
        ("xn--bcher-kva.example", True),
        ("*.wild.example", False),
        ("b.wild.example", False),
        ("\u212a.example", False),
        ("a.example\0", False),
        ("a" * 300, False),
        ("\xfc" * 70, False),
        ("192.0.2.1", True),
        ("::ffff:192.0.2.1", True),
        ("192.0.2.2", False),
        ("2001:db8::1", True),
        ("[2001:db8:0::1]", True),
        ("2001:db8::1%eth0", True),
        ("192.0.2.9", False),  # a DNS name that looks like an address is none
    ],
)
def test_covers_whole_names_and_addresses(host: str, covered: bool) -> None:
    identities = Identities.of(
        dns=["a.example", "xn--bcher-kva.example", "*.wild.example", "k.other.example", "192.0.2.9"],
        ips=["192.0.2.1", ipaddress.ip_address("2001:db8::1")],
    )
    assert identities.covers(host) is covered


@pytest.mark.holds("R45")
@pytest.mark.parametrize(
    ("allowed", "entry"),
    [
        ({"a.example"}, "a.example"),
        ({"A.Example"}, "A.Example"),
        ({"example"}, None),
        ({".example"}, ".example"),
        ({".a.example"}, None),
        ({".deep.example", ".example"}, ".deep.example"),
        ({".example", "b.deep.example"}, "b.deep.example"),
        ({".wild.test"}, None),
        ({"192.0.2.1"}, "192.0.2.1"),
        ({".2.1"}, None),
        (set(), None),
    ],
)
def test_allowed_domains(allowed: set[str], entry: str | None) -> None:
    identities = Identities.of(dns=["a.example", "b.deep.example", "*.wild.test"], ips=["192.0.2.1"])
    assert identities.matching(allowed) == entry


@pytest.mark.parametrize(
    ("names", "host"),
    [
        (["sip:a.example", "b.example"], "a.example"),
        (["*.example", "b.example"], "b.example"),
        (["2001:db8::1"], "2001:db8::1"),
        (["192.0.2.1", "b.example"], "b.example"),
        (["*.example"], None),
        (["sip:192.0.2.1"], "192.0.2.1"),
    ],
)
def test_the_first_usable_identity(names: list[str], host: str | None) -> None:
    assert Identities.from_certificate(authority().issue(*names, common_name="x").certificate).first_host() == host


def test_a_network_is_no_address() -> None:
    assert Identities.of(ips=[ipaddress.ip_network("192.0.2.0/24")]).names == ()


def test_alternative_names_that_cannot_be_read_are_none() -> None:
    class Damaged:
        @property
        def extensions(self) -> x509.Extensions:
            raise ValueError("not DER")

    assert Identities.from_certificate(Damaged()).names == ()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ("Alice.Example.", "alice.example"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("192.0.2.1", None),
        ("[2001:db8::1]", None),
        (".", None),
        ("", None),
        ("a" * 64 + ".example", None),
        (".example", None),
        ("a\0b", None),
    ],
)
def test_what_the_handshake_asks_for(asked: str, sent: str | None) -> None:
    assert server_name(asked) == sent


def test_domains() -> None:
    assert is_domain("a_b.example-1")
    assert not any(map(is_domain, ("*.example", ".example", "192.0.2.1", "", "A.example", "a..b")))
