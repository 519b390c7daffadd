"""``p2psip resolve`` and ``p2psip check``: where a name leads, by a nameserver on loopback."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import dns.rcode
import pytest
from cli_support import CommandLine, closed_port
from dns_support import DnsServer, dns_server

from p2psip.cli import names
from p2psip.net.selection import Wanted
from p2psip.testing import CertificateAuthority


@pytest.fixture
def server() -> Iterator[DnsServer]:
    with dns_server() as server:
        server.records = {
            "bob.example. NAPTR": ['10 10 "s" "SIPS+D2T" "" _sips._tcp.bob.example.'],
            "_sips._tcp.bob.example. SRV": ["20 0 5062 two.bob.example.", "10 0 5061 one.bob.example."],
            "one.bob.example. A": ["192.0.2.1"],
            "one.bob.example. AAAA": ["2001:db8::1"],
            "two.bob.example. A": ["192.0.2.2"],
        }
        yield server


@pytest.fixture
def command(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path)


def at(server: DnsServer) -> tuple[str, str]:
    return "--nameserver", f"127.0.0.1:{server.port}"


def test_records_addresses_and_order(command: CommandLine, server: DnsServer) -> None:
    result = command.run("resolve", "bob.example", *at(server))
    assert (result.code, result.err) == (0, "")
    assert [line.split(maxsplit=1) for line in result.out.splitlines()] == [
        ["name", "bob.example over TLS"],
        ["asked", 'NAPTR bob.example: 10 10 s SIPS+D2T "" _sips._tcp.bob.example.'],
        ["asked", "SRV _sips._tcp.bob.example: 10 0 5061 one.bob.example."],
        ["asked", "SRV _sips._tcp.bob.example: 20 0 5062 two.bob.example."],
        ["1.", "[2001:db8::1]:5061 (one.bob.example)"],
        ["2.", "192.0.2.1:5061 (one.bob.example)"],
        ["3.", "192.0.2.2:5062 (two.bob.example)"],
    ]


def test_json(command: CommandLine, server: DnsServer) -> None:
    server.records["_sips._tcp.bob.example. SRV"].append("30 0 5063 three.bob.example.")
    result = command.run("resolve", "sips:bob@bob.example", "--json", *at(server))
    assert result.code == 0, result
    (report,) = result.json
    assert (report["ok"], report["host"], report["port"], report["transport"]) == (True, "bob.example", None, "TLS")
    assert [(each["kind"], each["name"]) for each in report["questions"]] == [
        ("NAPTR", "bob.example"),
        ("SRV", "_sips._tcp.bob.example"),
    ]
    assert report["order"][0] == {
        "transport": "TLS",
        "host": "one.bob.example",
        "port": 5061,
        "named_by": "SRV _sips._tcp.bob.example",
        "addresses": ["2001:db8::1", "192.0.2.1"],
        "problem": None,
    }
    assert report["order"][2]["addresses"] == []
    assert report["order"][2]["problem"] == "none"


def test_an_address_and_a_port_ask_nobody(command: CommandLine, server: DnsServer) -> None:
    result = command.run("resolve", "sip:bob@[::1]:5070;transport=tcp", *at(server))
    assert result.code == 0, result
    assert "[::1]:5070" in result.out
    assert "nothing" in result.out
    assert server.asked == []


def test_the_way_of_tcp(command: CommandLine, server: DnsServer) -> None:
    server.records["bob.example. A"] = ["192.0.2.9"]
    result = command.run("resolve", "--tcp", "bob.example", *at(server))
    assert result.code == 0, result
    assert "SRV _sip._tcp.bob.example: none" in result.out
    assert "192.0.2.9:5060" in result.out


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({}, "nobody.example has no address"),
        ({"_sips._tcp.nobody.example. SRV": ["0 0 0 ."]}, "does not offer SIP over TLS"),
        ({"_sips._tcp.nobody.example. SRV": ["0 0 5061 gone.example."]}, "none of them has an address"),
    ],
)
def test_a_name_that_leads_nowhere(
    command: CommandLine, server: DnsServer, record: dict[str, list[str]], words: str
) -> None:
    server.records.update(record)
    result = command.run("resolve", "nobody.example", *at(server))
    assert result.code == 3
    assert words in result.sentence


def test_what_the_dns_cannot_tell_is_shown(command: CommandLine, server: DnsServer) -> None:
    server.refusal = dns.rcode.SERVFAIL
    result = command.run("resolve", "bob.example", "--timeout", "1", *at(server))
    assert result.code == 3
    assert "SRV _sips._tcp.bob.example: the nameserver answered SERVFAIL" in result.out


@pytest.mark.parametrize("text", ["", "a b", "bob.example:port", "sip:bob@b.example;transport=udp", "-x.example"])
def test_what_is_no_name_is_an_argument_error(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        names.target(text)


@pytest.mark.parametrize(
    ("text", "tcp", "wanted"),
    [
        ("b.example", False, Wanted("TLS", "b.example", None, True)),
        ("B.example.:5070", False, Wanted("TLS", "b.example", 5070, False)),
        ("::1", False, Wanted("TLS", "::1", None, True)),
        ("sip:bob@b.example", True, Wanted("TCP", "b.example", None, True)),
        ("sips:bob@b.example", True, Wanted("TLS", "b.example", None, True)),
        ("sip:b.example;transport=tls", True, Wanted("TLS", "b.example", None, False)),
        ("sip:b.example;transport=TCP", False, Wanted("TCP", "b.example", None, False)),
        ("sips:b.example;transport=tcp", False, Wanted("TLS", "b.example", None, False)),
        ("sip:b.example;maddr=192.0.2.9", False, Wanted("TLS", "192.0.2.9", None, True)),
    ],
)
def test_where_an_endpoint_would_go(text: str, tcp: bool, wanted: Wanted) -> None:
    assert names.wanted(names.target(text), tcp=tcp) == wanted


def test_check_follows_the_dns_and_looks_at_each_address(command: CommandLine, server: DnsServer) -> None:
    authority = CertificateAuthority()
    authority.store(command.home / "certificates", authority.issue("bob.example"))
    command.environment["P2PSIP_CERTIFICATE_STORE"] = str(command.home / "certificates")
    with command.start("listen", "--json", "--port", "0", "--host", "127.0.0.1") as running:
        port = running.json_line()["address"].rpartition(":")[2].partition(";")[0]
        dead = closed_port()
        server.records["_sips._tcp.bob.example. SRV"] = [f"1 0 {dead} one.bob.example.", f"2 0 {port} two.bob.example."]
        for name in ("one", "two"):
            server.records[f"{name}.bob.example. A"] = ["127.0.0.1"]
        del server.records["one.bob.example. AAAA"]
        result = command.run("check", "bob.example", "--json", *at(server))
        assert result.code == 0, result
        (report,) = result.json
        assert (report["ok"], report["port"], report["address"]) == (True, None, f"127.0.0.1:{port}")
        assert report["expected_name"] == "bob.example"
        first, second = report["addresses"]
        assert (first["address"], first["host"]) == (f"127.0.0.1:{dead}", "one.bob.example")
        assert "refused" in first["seen"].lower()
        assert second["seen"].startswith("TLSv1.3")
        told = command.run("check", "bob.example", *at(server))
        assert f"127.0.0.1:{dead} (one.bob.example): " in told.out
        assert f"127.0.0.1:{port} (two.bob.example): TLSv1.3" in told.out


def test_check_says_what_was_tried_when_nobody_is_there(command: CommandLine, server: DnsServer) -> None:
    authority = CertificateAuthority()
    authority.store(command.home / "certificates", authority.issue("bob.example"))
    ports = [closed_port(), closed_port()]
    server.records["_sips._tcp.bob.example. SRV"] = [f"{n} 0 {port} h.bob.example." for n, port in enumerate(ports)]
    server.records["h.bob.example. A"] = ["127.0.0.1"]
    result = command.run("check", "bob.example", "--store", command.home / "certificates", *at(server))
    assert result.code == 3
    for port in ports:
        assert f"h.bob.example at 127.0.0.1:{port}" in result.sentence
    assert "SRV _sips._tcp.bob.example" in result.sentence
