"""Names that are given on this side: what they hold, and what is not asked for because of them."""

from __future__ import annotations

from typing import Any

import pytest

from p2psip.net.given import GivenNames, checked, given_names
from p2psip.net.selection import Naptr, Query, Srv
from p2psip.testing.network import Hosts

SRV = (10, 60, 5061, "one.b.example")
NAPTR = (50, 50, "s", "SIPS+D2T", "", "_sips._tcp.b.example")


def test_entries_are_told_by_their_form() -> None:
    given = GivenNames(checked({"B.Example.": ["192.0.2.1", "[2001:DB8::1]", SRV, NAPTR], "c.example": "192.0.2.3"}))
    assert given.addresses("b.example") == ["192.0.2.1", "2001:db8::1"]
    assert given.records(Query("b.example", "SRV")) == (Srv(*SRV),)
    assert given.records(Query("b.example", "NAPTR")) == (Naptr(*NAPTR),)
    assert given.addresses("c.example") == ["192.0.2.3"]
    assert given.nameservers is None


@pytest.mark.parametrize("name", ["b.example", "_sips._tcp.b.example", "_sip._tcp.b.example"])
def test_nobody_is_asked_for_services_of_a_name_that_is_given(name: str) -> None:
    given = GivenNames(checked({name: []}))
    for query in (
        Query("b.example", "NAPTR"),
        Query("_sips._tcp.b.example", "SRV"),
        Query("_sip._tcp.b.example", "SRV"),
    ):
        assert given.records(query) == ()
    assert given.records(Query("c.example", "NAPTR")) is None
    assert given.addresses("c.example") is None


@pytest.mark.parametrize("name", ["localhost", "bob.localhost", "x.invalid", "fileserver"])
def test_names_of_this_machine_and_network_have_no_services_in_the_dns(name: str) -> None:
    given = GivenNames({})
    assert given.records(Query(name, "NAPTR")) == ()
    assert given.records(Query(f"_sips._tcp.{name}", "SRV")) == ()
    assert given.addresses(name) is None  # the system knows


def test_in_a_world_of_its_own_every_name_is_given() -> None:
    hosts = Hosts()
    given = given_names({"b.example": "192.0.2.9"}, hosts)
    assert given.addresses("b.example") == ["192.0.2.9"]
    assert given.addresses("c.example") == []
    hosts["_sip._tcp.c.example"] = [SRV]
    assert given.records(Query("_sip._tcp.c.example", "SRV")) == (SRV,)
    assert given.nameservers is None


def test_nameservers() -> None:
    assert GivenNames(checked({".": ["127.0.0.1", ("::1", 5300)]})).nameservers == [("127.0.0.1", 53), ("::1", 5300)]
    assert GivenNames(checked({".": []})).nameservers == []
    assert GivenNames(checked({".": "127.0.0.1"})).nameservers == [("127.0.0.1", 53)]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], "mapping"),
        ({1: []}, "1"),
        ({"": []}, "''"),
        ({"b.example": 5}, "b.example"),
        ({"b.example": ["c.example"]}, "'c.example'"),
        ({"b.example": [(1, 2, 3)]}, "priority, weight, port, host"),
        ({"b.example": [(1, 2, 70000, "c.example")]}, "70000"),
        ({"b.example": [(1, True, 3, "c.example")]}, "True"),
        ({"b.example": [(1, 2, 3, 4)]}, "4"),
        ({"b.example": [(1, 2, "s", "SIP+D2T", "", None)]}, "None"),
        ({"b.example": [None]}, "None"),
        ({".": ["nameserver.example"]}, "nameserver"),
        ({".": [("127.0.0.1", 0)]}, "nameserver"),
        ({".": [("127.0.0.1", 53, 1)]}, "nameserver"),
        ({".": [5]}, "nameserver"),
    ],
)
def test_mistakes_are_sentences(names: Any, words: str) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        checked(names)
    assert words in str(caught.value)
    assert str(caught.value).endswith(".")


def test_what_the_application_does_to_its_mapping_later_changes_nothing() -> None:
    names: dict[str, Any] = {"b.example": ["192.0.2.1"]}
    given = GivenNames(checked(names))
    names.clear()
    assert given.addresses("b.example") == ["192.0.2.1"]
