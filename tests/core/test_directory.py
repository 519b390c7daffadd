"""Dispatch: the Request-URI decides, the epid in To between equals (API.md's six steps)."""

from __future__ import annotations

import pytest
from core_support import FakeFlow, incoming, make_record

from p2psip.core.directory import REMEMBERED, REMEMBERED_LENGTH, Directory, EndpointRecord, normal_host

FLOW = FakeFlow(("192.0.2.1", 5061))


def find(directory: Directory, uri: str, to: str = "<sip:somebody@else.example>") -> EndpointRecord | int:
    return directory.find(incoming("MESSAGE", uri, to=to), FLOW)


def directory_of(*records: EndpointRecord) -> Directory:
    directory = Directory()
    for record in records:
        directory.add(record)
    return directory


BOB = make_record("sip:bob@b.example", "bobs", "e1")
CAROL = make_record("sip:carol@b.example", "carols", "e2")


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("sip:whoever@whatever.example:9;opaque=carols", CAROL),  # 1
        ("sip:bob@b.example;opaque=carols", CAROL),  # 1 before 2
        ("sip:bob@b.example;opaque=unknown", BOB),  # 2
        ("sip:bob@b.example", BOB),
        ("sips:bob@B.EXAMPLE:5061;transport=tls", BOB),
        ("sip:%62ob@b.example", BOB),
        ("sip:bob:secret@b.example", BOB),
        ("sip:carol@192.0.2.1", CAROL),  # 3: where it arrived
        ("sip:carol@host.b.example:1234", CAROL),  # 3: ours by name
        ("sip:carol@[2001:DB8:0:0::1]", CAROL),
        ("sip:carol@elsewhere.example", 404),
        ("sip:Bob@b.example", 404),  # RFC 3261 19.1.4: case counts in the user part
        ("sip:dave@b.example", 404),
        ("sip:b.example", 404),
        ("sip:192.0.2.1", 404),  # 4 needs exactly one endpoint
    ],
)
def test_the_steps_with_two_endpoints(uri: str, expected: EndpointRecord | int) -> None:
    directory = directory_of(BOB, CAROL)
    directory.local_hosts |= {"host.b.example", "2001:db8::1"}
    assert find(directory, uri) == expected


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("sip:192.0.2.1", BOB),
        ("sip:192.0.2.1:5070;transport=tcp", BOB),
        ("sip:other.example", 404),
        ("sip:x@192.0.2.1", 404),
    ],
)
def test_a_uri_without_user_is_for_the_only_endpoint(uri: str, expected: EndpointRecord | int) -> None:
    assert find(directory_of(BOB), uri) == expected


def test_an_owner_without_user() -> None:
    """Two URIs without user part have equal ones: step 3, before step 4 counts the endpoints."""
    house = make_record("sip:b.example", "house")
    directory = directory_of(BOB, house)
    assert find(directory, "sip:b.example") is house
    assert find(directory, "sip:192.0.2.1") is house
    assert find(directory, "sip:c.example") == 404
    directory.add(make_record("sip:c.example", "shed", "e3"))
    assert find(directory, "sip:192.0.2.1") == 485
    assert find(directory, "sip:192.0.2.1", "<sip:192.0.2.1>;epid=e1") is house


def test_each_step_comes_before_the_next() -> None:
    """One URI that every step would take somewhere else, and then less and less of it."""
    here = "192.0.2.1"
    by_opaque = make_record("sip:x@x.example", "o1", "e1")
    by_owner = make_record(f"sip:bob@{here}", "o2", "e2")
    by_user = make_record("sip:bob@b.example", "o3", "e3")
    directory = directory_of(by_opaque, by_owner, by_user)
    directory.default = by_default = make_record("sip:y@y.example", "o4", "e4")
    assert find(directory, f"sip:bob@{here};opaque=o1") is by_opaque
    assert find(directory, f"sip:bob@{here}") is by_owner
    directory.remove(by_owner)
    assert find(directory, f"sip:bob@{here}") is by_user
    directory.remove(by_user)
    assert find(directory, f"sip:bob@{here}") is by_default
    assert find(directory, f"sip:{here}") is by_opaque, "the only one"
    directory.add(by_user)
    assert find(directory, f"sip:{here}") is by_default
    directory.default = None
    assert find(directory, f"sip:{here}") == find(directory, "sip:z@z.example") == 404


def test_to_decides_nothing_but_between_equals() -> None:
    directory = directory_of(BOB, CAROL)
    assert find(directory, "sip:bob@b.example", "<sip:carol@b.example>;epid=e2") is BOB
    assert find(directory, "sip:dave@b.example", "<sip:bob@b.example>;epid=e1") == 404


def test_the_default_endpoint_takes_what_nobody_else_does() -> None:
    directory = directory_of(BOB, CAROL)
    directory.default = BOB
    for uri in ("sip:dave@b.example", "sip:b.example", "sip:x@y.example", "tel:+123"):
        assert find(directory, uri) is BOB
    assert find(directory, "sip:carol@b.example") is CAROL


def test_without_endpoints_nothing_is_found() -> None:
    assert find(Directory(), "sip:bob@b.example") == 404
    assert find(Directory(), "sip:192.0.2.1") == 404


@pytest.mark.parametrize("uri", ["soap.beep://192.0.2.103:3002", "nobodyKnows:this", "tel:+123"])
def test_a_scheme_that_is_not_ours(uri: str) -> None:
    directory = directory_of(BOB)
    assert find(directory, uri) == 416
    directory.default = BOB
    assert find(directory, uri) == (BOB if uri.startswith("tel:") else 416)


def test_several_equal_endpoints_are_told_apart_by_the_epid_in_to() -> None:
    first = make_record("sip:bob@b.example", "o1", "e1")
    second = make_record("sip:bob@b.example", "o2", "e2")
    directory = directory_of(first, second)
    directory.default = first
    for uri in ("sip:bob@b.example", "sip:bob@192.0.2.1"):
        assert find(directory, uri, "<sip:bob@b.example>;epid=e2") is second
        assert find(directory, uri, "<sip:bob@b.example>;epid=e3") == 485
        assert find(directory, uri) == 485
    assert find(directory, "sip:bob@b.example;opaque=o1", "<sip:bob@b.example>;epid=e2") is first
    directory.remove(first)
    assert find(directory, "sip:bob@b.example") is second


@pytest.mark.parametrize(
    ("gruu", "uri", "found"),
    [
        ("sip:bob@gw.example;gr=abc", "sip:bob@gw.example;gr=abc", True),
        ("sip:bob@gw.example;gr=abc", "sip:bob@GW.example;gr=abc;transport=tls", True),
        ("sip:bob@gw.example;gr=abc", "sip:bob@gw.example;gr=ABC", True),  # RFC 3261 19.1.4
        ("sip:bob@gw.example;gr=abc", "sip:bob@gw.example;gr=abd", False),
        ("sip:bob@gw.example;gr=abc", "sip:bob@gw.example;gr", False),
        ("sip:x7@gw.example;gr", "sip:x7@gw.example;gr=abc", False),
        ("sip:bob@gw.example;gr=abc", "sip:bob@gw.example", False),
        ("sip:bob@gw.example;gr=abc", "sip:bob@other.example;gr=abc", False),
        ("sip:x7@gw.example;gr", "sip:x7@gw.example;gr", True),
        ("sip:x7@gw.example;gr", "sip:x7@gw.example", False),
        ("sip:bob@gw.example;opaque=user:epid:1;gruu", "sip:bob@gw.example;opaque=user:epid:1;gruu", True),
        ("sip:bob@gw.example;opaque=user:epid:1;gruu", "sip:bob@gw.example;opaque=user:epid:2;gruu", False),
        ("sip:bob-7@gw.example", "sip:bob-7@gw.example", True),
        ("sip:bob-7@gw.example", "sip:bob-8@gw.example", False),
        ("sips:bob-7@gw.example", "sip:bob-7@gw.example", False),
    ],
)
def test_gruus(gruu: str, uri: str, found: bool) -> None:
    record = make_record("sip:bob@b.example", "opaque", "e1", gruu)
    directory = directory_of(record, CAROL)
    assert find(directory, uri) == (record if found else 404)


def test_what_is_removed_is_not_found_and_leaves_nothing() -> None:
    record = make_record("sip:bob@b.example", "opaque", "e1", "sip:bob@gw.example;gr=abc")
    directory = directory_of(record, BOB)
    directory.default = record
    assert directory.records == [record, BOB]
    directory.remove(record)
    directory.remove(record)
    directory.remove(BOB)
    assert directory.records == []
    for uri in ("sip:bob@b.example", "sip:a@b.example;opaque=opaque", "sip:bob@gw.example;gr=abc", "sip:x@y.example"):
        assert find(directory, uri) == 404
    assert not (directory._by_opaque or directory._by_owner or directory._by_user or directory._by_gruu)


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        ("bob", "bob", True),
        ("bob", "Bob", False),
        ("%62%6f%62", "bob", True),
        ("a%3Bb", "a;b", False),
        ("a%3bb", "a%3Bb", True),
        ("a%25b", "a%25b", True),
        ("%e4", "%E4", True),
        ("%7e", "~", True),
        (None, "x", False),
    ],
)
def test_users_compare_as_the_rfc_says(a: str | None, b: str | None, equal: bool) -> None:
    """RFC 3261 19.1.4."""
    directory = directory_of(make_record(f"sip:{a}@b.example" if a else "sip:b.example"))
    assert (find(directory, f"sip:{b}@b.example") != 404) is equal


@pytest.mark.parametrize(
    ("host", "normal"),
    [
        ("B.Example", "b.example"),
        ("192.0.2.1", "192.0.2.1"),
        ("[2001:DB8:0:0:0:0:0:1]", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("[not:an:address]", "not:an:address"),
    ],
)
def test_hosts_have_one_form(host: str, normal: str) -> None:
    assert normal_host(host) == normal


def test_what_was_found_is_looked_for_again_when_endpoints_or_hosts_change() -> None:
    directory = directory_of(BOB)
    assert find(directory, "sip:carol@b.example") == 404
    assert find(directory, "sip:bob@host.b.example") == 404
    directory.add(CAROL)
    directory.local_hosts = {"host.b.example"}
    assert find(directory, "sip:bob@host.b.example") == BOB
    assert find(directory, "sip:carol@host.b.example") == CAROL
    directory.default = BOB
    assert find(directory, "sip:nobody@c.example") == BOB
    directory.remove(CAROL)
    assert find(directory, "sip:carol@host.b.example") == BOB
    directory.remove(BOB)
    assert find(directory, "sip:bob@host.b.example") == 404


def test_no_more_is_remembered_than_is_good() -> None:
    directory = directory_of(BOB)
    for number in range(2 * REMEMBERED):
        assert find(directory, f"sip:{number}@b.example") == 404
    assert find(directory, f"sip:{'x' * 4000}@b.example") == 404
    assert len(directory._found) <= REMEMBERED
    assert all(len(uri) <= REMEMBERED_LENGTH for uri, _ in directory._found)
