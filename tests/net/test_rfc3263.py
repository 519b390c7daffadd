"""Which servers serve a name: every row of the table, and what the table has no row for."""

from __future__ import annotations

import collections
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from p2psip import (
    FailureResponseException,
    ManagerSettings,
    MessageType,
    RealTimeAddress,
    RealTimeServerConnectionManager,
    RealTimeServerTcpConnectionManager,
    SipPeerToPeerEndpoint,
    SipTransportType,
)
from p2psip.net.network import Target
from p2psip.net.selection import Answer, Naptr, Plan, Query, Srv, Wanted, in_order, plain_name, select
from p2psip.testing import CertificateAuthority, MemoryNetwork, living_in, tls_manager

TABLE = Path(__file__).resolve().parent.parent / "data" / "corpus" / "tables" / "dns_selection.json"
ROWS = {row["id"].rpartition("-")[2]: row for row in json.loads(TABLE.read_text(encoding="utf-8"))["rows"]}

WITHOUT_UDP: dict[str, dict[str, Any]] = {
    # There is no UDP here. Where the row's client takes it, the RFC lets ours take what is left.
    "0004": {"transport": "TCP", "srv": "_sip._tcp.example.com"},  # the UDP record is discarded, whatever its order
    "0006": {"transport": "TCP", "srv": "_sip._tcp.example.com"},  # no record is left, so SRV is asked for directly
    "0007": {
        "srv_queries": ["_sips._tcp.example.com", "_sip._tcp.example.com"],
        "transport_any_of": ["TCP"],
        "hosts": ["192.0.2.41"],
        "port": 5070,
    },
    "0008": {"transport": "TCP", "hosts": ["192.0.2.1"], "port": 5060},  # as the row's note says
    "0012": {"transport": "TCP", "hosts": ["192.0.2.1"], "port": 5060, "queries": ["A"]},
    "0016": {"transport": "TCP", "hosts": ["192.0.2.99"], "port": 5060, "queries": []},
}
ATTEMPTS = ("0019", "0020", "0021")
"""Rows about connections: see below."""
RESPONSES = ("0022", "0023")
"""Rows about the way of responses: tests/facade/test_responses.py."""


@pytest.fixture(scope="module")
def managers() -> Iterator[dict[bool, RealTimeServerConnectionManager]]:
    """One that can do TLS, and one that cannot."""
    with (
        RealTimeServerTcpConnectionManager() as tcp,
        tls_manager(CertificateAuthority(), "alice.example.com") as tls,
    ):
        yield {False: tcp, True: tls}


def wanted(target: Target) -> Wanted:
    may_be_tls = target.identity is not None
    return Wanted(target.transport, target.host, target.port, target.is_open, may_be_tls)


class World:
    """Answers from a table, and a list of what was asked."""

    def __init__(self, records: dict[str, Any], seed: int = 1) -> None:
        self.records = records
        self.asked: list[str] = []
        self.random = random.Random(seed)

    def plan(self, target: Wanted) -> Plan:
        search = select(target, lambda most: self.random.randint(0, most))
        answer: Any = None
        while True:
            try:
                query = search.send(answer)
            except StopIteration as end:
                plan: Plan = end.value
                return plan
            self.asked.append(str(query))
            found = self.records.get(f"{query.name} {query.kind}", ())
            answer = found if isinstance(found, Answer) else Answer(tuple(tuple(record) for record in found))

    def addresses(self, host: str) -> list[str]:
        found: list[str] = self.records.get(f"{host} A", [])
        return found


@pytest.mark.parametrize("number", [number for number in ROWS if number not in ATTEMPTS + RESPONSES])
def test_every_row_of_the_table(managers: dict[bool, RealTimeServerConnectionManager], number: str) -> None:
    row = ROWS[number]
    expected = WITHOUT_UDP.get(number, row["expected"])
    manager = managers["TLS" in row["client_transports"]]
    with SipPeerToPeerEndpoint("sip:alice@a.example", manager, SipTransportType.TCP) as endpoint:
        target = endpoint._target(RealTimeAddress(row["uri"]), None)
    world = World(row["records"])
    plan = world.plan(wanted(target))
    places = plan.places
    names = {plain_name(place.host) for place in places}
    hosts = [address for place in places for address in world.addresses(place.host) or [place.host]]

    judged = set()
    for key, value in expected.items():
        judged.add(key)
        if key == "transport":
            assert {place.transport for place in places} == {value}
        elif key == "transport_any_of":
            assert {place.transport for place in places} <= set(value)
        elif key == "transport_not":
            assert not {place.transport for place in places} & set(value)
        elif key == "srv":
            assert f"SRV {value}" in world.asked
        elif key == "srv_queries":
            assert [asked for asked in world.asked if asked.startswith("SRV")] == [f"SRV {name}" for name in value]
        elif key == "naptr_query":
            assert any(asked.startswith("NAPTR") for asked in world.asked) is value
        elif key == "queries":
            assert world.asked == []  # of those about services; addresses come later
        elif key == "port":
            assert {place.port for place in places} == {value}
        elif key == "ports":
            assert [place.port for place in places] == value
        elif key == "hosts":
            assert hosts == value
        elif key == "hosts_any_order":
            assert sorted(hosts) == sorted(value)
        elif key == "weights":
            assert {f"{name}." for name in names} == set(value)
        elif key == "weight_share":
            first = collections.Counter(
                World(row["records"], seed).plan(wanted(target)).places[0].host for seed in range(4000)
            )
            for name, share in value.items():
                assert abs(first[plain_name(name)] / 4000 - int(share.rstrip("%")) / 100) < 0.03
        elif key == "fail_or":
            assert world.asked[-1] == "SRV _sips._tcp.example.com"
        else:
            raise AssertionError(f"nobody knows what {key} means")
    assert judged


@pytest.mark.parametrize("number", ATTEMPTS)
def test_the_rows_about_attempts(number: str) -> None:
    row = ROWS[number]
    expected = row["expected"]["attempts"]
    with MemoryNetwork() as network:
        answers: dict[str, int] = {}
        for name, records in row["records"].items():
            kind, _, rest = name.partition(" ")
            if kind == "connect":
                network.refuse(rest.partition(":")[0])
            elif kind == "answer":
                answers[rest.partition(":")[0]] = int(records[0])
            else:
                network.hosts[kind] = [entry if isinstance(entry, str) else tuple(entry) for entry in records]
        peers = []
        for address in ("192.0.2.61", "192.0.2.62"):
            with living_in(network.machine(address)):
                peers.append(RealTimeServerTcpConnectionManager())
            peers[-1].start_listening((address, 5060))
            peer = peers[-1].default_endpoint = SipPeerToPeerEndpoint("sip:user@example.com", peers[-1])
            code = answers.get(address, 200)
            peer.message_received += lambda sender, args, code=code: args.send_response(code)
        with living_in(network):
            manager = RealTimeServerTcpConnectionManager(settings=ManagerSettings(connect_timeout=1))
        tried: list[str] = []
        connect = network.connect

        def watch(family: int, address: Any) -> Any:
            tried.append(f"{address[0]}:{address[1]}")
            return connect(family, address)

        network.connect = watch  # type: ignore[method-assign]
        with manager, SipPeerToPeerEndpoint("sip:alice@a.example", manager) as alice:
            try:
                code = alice.send_message(MessageType.MESSAGE, row["uri"], body="x", timeout=10).response_code
            except FailureResponseException as error:
                code = error.response_data.response_code
        for each in peers:
            each.dispose()
    assert tried == expected
    assert code == answers.get(expected[-1].partition(":")[0], 200)


def test_no_row_is_left_out() -> None:
    assert len(ROWS) == 23


# ---------------------------------------------------------------------- what the table does not say

OPEN = Wanted("TCP", "example.com", None, True, True)
POINTERS = [
    (50, 50, "s", "SIPS+D2T", "", "_sips._tcp.example.com."),
    (90, 50, "s", "SIP+D2T", "", "_sip._tcp.example.com."),
]


def server(host: str, port: int = 5060, priority: int = 1, weight: int = 0) -> tuple[int, int, int, str]:
    return priority, weight, port, host


def shown(plan: Plan) -> list[str]:
    return [f"{place.transport} {place.host}:{place.port}" for place in plan.places]


def test_order_beats_preference() -> None:
    records = {
        "example.com NAPTR": [(20, 1, *POINTERS[0][2:]), (10, 99, *POINTERS[1][2:])],
        "_sip._tcp.example.com SRV": [server("tcp.example.com.")],
        "_sips._tcp.example.com SRV": [server("tls.example.com.", 5061)],
    }
    assert shown(World(records).plan(OPEN)) == ["TCP tcp.example.com:5060"]


@pytest.mark.holds("R11")
def test_tls_is_never_lowered() -> None:
    records = {
        "example.com NAPTR": POINTERS[1:],
        "_sip._tcp.example.com SRV": [server("tcp.example.com.")],
    }
    assert shown(World(records).plan(Wanted("TLS", "example.com", None, True))) == ["TLS example.com:5061"]


@pytest.mark.holds("R11")
def test_what_begins_over_tls_does_not_end_over_tcp() -> None:
    records = {
        "example.com NAPTR": [*POINTERS, (95, 1, "s", "SIPS+D2T", "", "_sips._tcp.other.example.")],
        "_sips._tcp.example.com SRV": [server("one.example.com.", 5061)],
        "_sip._tcp.example.com SRV": [server("tcp.example.com.")],
        "_sips._tcp.other.example SRV": [server("two.example.com.", 5062)],
    }
    assert shown(World(records).plan(OPEN)) == ["TLS one.example.com:5061", "TLS two.example.com:5062"]


def test_a_tcp_manager_is_not_raised() -> None:
    records = {"example.com NAPTR": POINTERS, "_sip._tcp.example.com SRV": [server("tcp.example.com.")]}
    assert shown(World(records).plan(OPEN._replace(may_be_tls=False))) == ["TCP tcp.example.com:5060"]


def test_a_transport_that_was_named_is_kept_and_no_naptr_asked() -> None:
    world = World({"example.com NAPTR": POINTERS})
    world.plan(Wanted("TCP", "example.com", None, False, False))
    assert world.asked == ["SRV _sip._tcp.example.com"]


def test_a_pointer_to_servers_that_are_not_there_is_followed_by_the_next_way() -> None:
    records = {
        "example.com NAPTR": [(1, 1, "s", "SIP+D2T", "", "_sip._tcp.nothing.example.")],
        "_sip._tcp.example.com SRV": [server("tcp.example.com.")],
    }
    world = World(records)
    assert shown(world.plan(OPEN._replace(may_be_tls=False))) == ["TCP tcp.example.com:5060"]
    assert world.asked == ["NAPTR example.com", "SRV _sip._tcp.nothing.example", "SRV _sip._tcp.example.com"]


def test_a_pointer_to_a_host() -> None:
    records = {"example.com NAPTR": [(1, 1, "A", "SIPS+D2T", "", "Host.Example.com.")]}
    assert shown(World(records).plan(OPEN)) == ["TLS host.example.com:5061"]


@pytest.mark.parametrize(
    "pointer",
    [
        (1, 1, "u", "SIP+D2T", "!^.*$!sip:x@evil.example!", "."),
        (1, 1, "s", "SIP+D2T", "!^.*$!_sip._tcp.evil.example!", "_sip._tcp.evil.example."),
        (1, 1, "", "SIP+D2T", "", "evil.example."),
        (1, 1, "s", "SIP+D2T", "", "."),
        (1, 1, "s", "SIP+D2W", "", "_sip._ws.evil.example."),
    ],
)
def test_pointers_of_other_kinds_are_discarded(pointer: tuple[Any, ...]) -> None:
    world = World({"example.com NAPTR": [pointer]})
    assert shown(world.plan(OPEN)) == ["TCP example.com:5060"]
    assert not any("evil" in asked for asked in world.asked)


def test_a_service_that_is_decidedly_not_there() -> None:
    records = {"_sips._tcp.example.com SRV": [(0, 0, 0, ".")]}
    assert World(records).plan(Wanted("TLS", "example.com", None, True)).places == ()
    assert shown(World(records).plan(OPEN)) == ["TCP example.com:5060"]  # no TLS there, but TCP was meant


@pytest.mark.parametrize("kind", ["NAPTR example.com", "SRV _sips._tcp.example.com"])
def test_what_cannot_be_asked_counts_as_not_there_and_is_told(kind: str) -> None:
    name = " ".join(reversed(kind.split()))
    world = World({name: Answer(problem="no answer within 4 s")})
    plan = world.plan(Wanted("TLS", "example.com", None, True))
    assert shown(plan) == ["TLS example.com:5061"]
    assert plan.problems == [f"{kind}: no answer within 4 s"]


def test_a_place_is_tried_once_and_there_are_not_too_many() -> None:
    records = {"_sip._tcp.example.com SRV": [server("a.example.com."), server("A.example.com", priority=2)]}
    plan = World(records).plan(Wanted("TCP", "example.com", None))
    assert shown(plan) == ["TCP a.example.com:5060"]
    many = {"_sip._tcp.example.com SRV": [server(f"h{n}.example.com.") for n in range(500)]}
    assert len(World(many).plan(Wanted("TCP", "example.com", None)).places) == 64


def test_names_are_compared_without_case_and_dot() -> None:
    world = World({"_sip._tcp.example.com SRV": [server("A.Example.com.")]})
    assert shown(world.plan(Wanted("TCP", "EXAMPLE.com.", None))) == ["TCP a.example.com:5060"]


def test_zero_weights_are_equal_among_themselves_and_last_among_others() -> None:
    generator = random.Random(7)

    def first(*records: Srv) -> str:
        return in_order(records, lambda most: generator.randint(0, most))[0].host

    zeros = [Srv(1, 0, 1, name) for name in "abc"]
    assert set(collections.Counter(first(*zeros) for _ in range(300))) == {"a", "b", "c"}
    heavy = collections.Counter(first(*zeros, Srv(1, 10, 1, "heavy")) for _ in range(300))
    assert heavy["heavy"] > 290
    assert sorted(in_order(zeros, lambda most: 0)) == sorted(zeros)


def test_every_server_comes_once_whatever_is_drawn() -> None:
    records = [Srv(p, w, 1, f"{p}.{w}") for p in (3, 1, 2) for w in (0, 0xFFFF, 1, 10)]
    for draw in (lambda most: 0, lambda most: most):
        assert sorted(in_order(records, draw)) == sorted(records)
        assert [record.priority for record in in_order(records, draw)] == [1] * 4 + [2] * 4 + [3] * 4


def test_a_query_and_a_record_read_well() -> None:
    assert str(Query("_sips._tcp.example.com", "SRV")) == "SRV _sips._tcp.example.com"
    assert Naptr(*POINTERS[0]).service == "SIPS+D2T"
