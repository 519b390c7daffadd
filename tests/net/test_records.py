"""Questions to a nameserver on loopback."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import dns.rcode
import dns.resolver
import pytest
from dns_support import DnsServer, dns_server

from p2psip.net.records import MAXIMUM_NEGATIVE_TTL, MAXIMUM_TTL, PROBLEM_TTL, ask
from p2psip.net.selection import Answer, Naptr, Query, Srv

SRV = Query("_sips._tcp.b.example", "SRV")


@pytest.fixture
def server() -> Iterator[DnsServer]:
    with dns_server() as server:
        yield server


def test_records_of_every_kind(server: DnsServer) -> None:
    server.records = {
        "_sips._tcp.b.example. SRV": ["10 60 5061 One.b.example.", "20 0 5062 two.b.example."],
        "b.example. NAPTR": ['50 51 "s" "SIPS+D2T" "" _sips._tcp.b.example.'],
        "b.example. A": ["192.0.2.1"],
        "b.example. AAAA": ["2001:db8::1"],
    }

    def records(query: Query) -> set[object]:
        answer, ttl = ask(query, [server.address], 5)
        assert (answer.problem, ttl) == ("", 120)
        return set(answer.records)

    assert records(SRV) == {Srv(10, 60, 5061, "One.b.example."), Srv(20, 0, 5062, "two.b.example.")}
    assert records(Query("b.example", "NAPTR")) == {Naptr(50, 51, "s", "SIPS+D2T", "", "_sips._tcp.b.example.")}
    assert records(Query("b.example", "A")) == {"192.0.2.1"}
    assert records(Query("b.example", "AAAA")) == {"2001:db8::1"}


def test_a_name_that_does_not_exist_and_one_without_such_records(server: DnsServer) -> None:
    assert ask(SRV, [server.address], 5) == (Answer(), 77)
    server.records["_sips._tcp.b.example. TXT"] = ['"nothing"']
    assert ask(SRV, [server.address], 5) == (Answer(), 77)


def test_the_zone_may_say_nothing_of_how_long_there_are_none(server: DnsServer) -> None:
    server.has_soa = False
    answer, ttl = ask(SRV, [server.address], 5)
    assert answer == Answer()
    assert 0 < ttl <= MAXIMUM_NEGATIVE_TTL


def test_nothing_is_remembered_for_ever(server: DnsServer) -> None:
    server.ttl = 2**30
    server.records["b.example. A"] = ["192.0.2.1"]
    assert ask(Query("b.example", "A"), [server.address], 5) == (Answer(("192.0.2.1",)), MAXIMUM_TTL)


def test_what_is_too_long_for_a_datagram_comes_over_tcp(server: DnsServer) -> None:
    server.too_long = True
    server.records["_sips._tcp.b.example. SRV"] = [f"10 60 5061 h{n}.b.example." for n in range(60)]
    assert len(ask(SRV, [server.address], 5)[0].records) == 60
    assert server.over_tcp == 1


def test_a_silent_nameserver(server: DnsServer) -> None:
    server.silent = True
    answer, ttl = ask(SRV, [server.address], 0.3)
    assert (answer.records, answer.is_silence, ttl) == ((), True, PROBLEM_TTL)
    assert "no nameserver answered within 0.3 s" in answer.problem
    assert len(server.asked) >= 2  # datagrams are lost


def test_a_nameserver_that_fails(server: DnsServer) -> None:
    server.refusal = dns.rcode.SERVFAIL
    answer, ttl = ask(SRV, [server.address], 0.5)
    assert (answer.records, answer.is_silence, ttl) == ((), False, PROBLEM_TTL)
    assert "SERVFAIL" in answer.problem


def test_a_nameserver_that_refuses_and_another_one_that_does_not(server: DnsServer) -> None:
    server.records["b.example. A"] = ["192.0.2.1"]
    with dns_server() as other:
        other.refusal = dns.rcode.REFUSED
        assert ask(Query("b.example", "A"), [other.address, server.address], 5)[0].records == ("192.0.2.1",)


def test_nobody_is_there() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as held:
        held.bind(("127.0.0.1", 0))
        answer, _ = ask(SRV, [held.getsockname()], 0.3)
    assert answer.is_silence


def test_no_nameserver_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ask(SRV, [], 5)[0].problem == "no nameserver is configured"

    def fail(*args: object, **options: object) -> None:
        raise dns.resolver.NoResolverConfiguration

    monkeypatch.setattr(dns.resolver.Resolver, "read_resolv_conf", fail)
    monkeypatch.setattr(dns.resolver.Resolver, "read_registry", fail)
    answer, _ = ask(SRV, None, 5)
    assert (answer.problem, answer.is_silence) == ("no nameserver is configured", True)


@pytest.mark.parametrize("name", ["a" * 64 + ".example", ".".join(["abcdefgh"] * 40), "a..example"])
def test_what_cannot_be_a_name_is_a_problem_and_no_exception(server: DnsServer, name: str) -> None:
    answer, _ = ask(Query(name, "SRV"), [server.address], 5)
    assert answer.problem
    assert server.asked == []
