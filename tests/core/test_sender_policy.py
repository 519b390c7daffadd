"""Who sent a request: what certificates, digests and trusted peers prove, and whom an endpoint takes requests from."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from core_support import FakeFlow, Side, incoming, make_record
from test_authentication import demand

from p2psip.core.authentication import Credential
from p2psip.core.digest_demand import DigestDemand
from p2psip.core.directory import EndpointRecord
from p2psip.core.sender import Sender
from p2psip.enums import SenderPolicy
from p2psip.message import Request, Response

PROXY = "proxy.example"
ASSERTED = ("P-Asserted-Identity", "<sip:carol@c.example>")


def trusting(*peers: str) -> EndpointRecord:
    record = make_record()
    record.trusted_peers = frozenset(peers)
    return record


@dataclasses.dataclass
class Server:
    """A side with one endpoint, and a peer whose certificate carries the names."""

    names: tuple[str, ...] = ()
    policy: SenderPolicy = SenderPolicy.CERTIFIED
    trusted: frozenset[str] = frozenset()
    transport: str = "TLS"
    demand: DigestDemand | None = None

    def __post_init__(self) -> None:
        self.side = Side("b")
        self.record = make_record()
        self.record.sender_policy = self.policy
        self.record.trusted_peers = self.trusted
        self.record.demand = self.demand
        self.side.directory.add(self.record)
        self.flow = FakeFlow(transport=self.transport, names=self.names)

    def take(self, request: Request) -> Response | None:
        """The answer of the server; None when the request was let in."""
        before = len(self.side.delivered)
        self.side.engine.receive(0.0, self.flow, request)
        self.side.take()
        if len(self.side.delivered) > before:
            return None
        answer = self.side.last()
        assert isinstance(answer, Response)
        return answer

    def code(self, *headers: tuple[str, str], sender: str | None = None, method: str = "MESSAGE") -> int | None:
        """The status code that it is refused with, or None."""
        request = incoming(method, headers=headers)
        if sender is not None:
            request.headers.set("From", f"{sender};tag=1")
        answer = self.take(request)
        return None if answer is None else answer.status_code


# ---------------------------------------------------------------------- the policy


def test_anybody_is_taken_unless_it_is_said_otherwise() -> None:
    server = Server(policy=make_record().sender_policy)
    assert server.code() is None


@pytest.mark.holds("A18")
@pytest.mark.parametrize(
    ("names", "sender", "code"),
    [
        (("a.example",), "<sip:alice@a.example>", None),
        (("x.example", "a.example"), "<sips:alice@A.Example:5061>", None),
        (("192.0.2.7",), "<sip:alice@192.0.2.7>", 403),  # a name that looks like an address is none
        ((), "<sip:alice@a.example>", 403),
        (("b.example",), "<sip:alice@a.example>", 403),
        (("example",), "<sip:alice@a.example>", 403),
        (("a.example",), "<sip:alice@x.a.example>", 403),
        (("a.example",), "<sip:alice@.example>", 400),
        (("a.example",), "<tel:+1555>", 403),
        (("a.example",), '"sip:alice@a.example" <sip:mallory@m.example>', 403),
        ((), "<sip:alice@192.0.2.2>", 403),  # the address that it connects from is no proof
    ],
)
def test_certified_is_whose_certificate_carries_the_host_in_from(
    names: tuple[str, ...], sender: str, code: int | None
) -> None:
    assert Server(names).code(sender=sender) == code


@pytest.mark.parametrize("method", ["MESSAGE", "OPTIONS", "INVITE", "SUBSCRIBE", "REFER", "NOTIFY", "FOO"])
def test_every_method_is_looked_at_before_anybody_sees_it(method: str) -> None:
    server = Server()
    server.side.engine.acceptors[method] = lambda *args: pytest.fail("it was let in")
    assert server.code(method=method) == 403


def test_a_refused_sender_is_told_why() -> None:
    answer = Server().take(incoming())
    assert answer is not None
    assert "certificate" in (answer.headers.get("Warning") or "")
    assert answer.headers.get_all("Warning")


@pytest.mark.holds("A18")
def test_over_tcp_nobody_is_certified() -> None:
    server = Server(transport="TCP")
    assert server.code() == 403
    assert server.code(sender="<sip:alice@192.0.2.2>") == 403


@pytest.mark.holds("A19")
def test_requests_in_a_dialog_are_not_asked_about() -> None:
    """Who began it was; and a request for a dialog that is not here is told so."""
    request = incoming(to="<sip:bob@b.example>;tag=x")
    answer = Server().take(request)
    assert answer is not None
    assert answer.status_code == 481


# ---------------------------------------------------------------------- digest


class Proving:
    """A demand that everybody meets who has the header."""

    def refusal(self, now: float, transaction: Any, tokens: Any) -> None:
        transaction.request.authenticated_user = transaction.request.headers.get("X-User")


@pytest.mark.parametrize(("headers", "code"), [([("X-User", "alice")], None), ([], 403)])
def test_a_digest_proves_it_as_well(headers: list[tuple[str, str]], code: int | None) -> None:
    server = Server(transport="TCP", demand=Proving())  # type: ignore[arg-type]
    assert server.code(*headers) == code


def test_a_digest_that_is_demanded_is_asked_for_first() -> None:
    server = Server(transport="TCP", demand=demand({"alice": Credential("alice", "x")}))
    assert server.code() == 401


def test_a_certificate_that_a_digest_is_not_asked_of_proves_no_other_sender() -> None:
    server = Server(("m.example",), demand=demand())
    assert server.code() == 403


# ---------------------------------------------------------------------- asserted identities


@pytest.mark.parametrize(
    ("names", "trusted", "headers", "code"),
    [
        ((PROXY,), {PROXY}, [ASSERTED], None),
        (("x.proxy.example",), {".proxy.example"}, [ASSERTED], None),
        ((PROXY,), {PROXY}, [], 403),  # it says nothing, so From would have to be its own
        ((PROXY,), {"other.example"}, [ASSERTED], 403),
        ((PROXY,), set(), [ASSERTED], 403),
        ((), {PROXY}, [ASSERTED], 403),
        ((PROXY,), {PROXY}, [("P-Preferred-Identity", "<sip:carol@c.example>")], 403),
        ((PROXY,), {PROXY}, [("P-Asserted-Identity", "nonsense")], 403),
    ],
)
def test_a_trusted_peer_may_say_who_it_is(
    names: tuple[str, ...], trusted: set[str], headers: list[tuple[str, str]], code: int | None
) -> None:
    assert Server(names, trusted=frozenset(trusted)).code(*headers) == code


@pytest.mark.parametrize(
    ("values", "identity"),
    [
        (["<sip:carol@c.example>"], "sip:carol@c.example"),
        (["sip:carol@c.example"], "sip:carol@c.example"),
        (['"Carol, of C" <sips:carol@c.example;x=y>'], "sips:carol@c.example;x=y"),
        (["<tel:+15551234>"], "tel:+15551234"),
        (["tel:+15551234", "<sip:carol@c.example>"], "sip:carol@c.example"),
        (["<sip:carol@c.example>, <tel:+15551234>"], "sip:carol@c.example"),
        (["<sip:carol@c.example>, <sip:dave@d.example>"], None),
        (["<tel:+1>", "<tel:+2>"], None),
        (["<sip:carol@c.example>", "<http://c.example>"], None),
        (["<http://c.example>"], None),
        (["<sip:carol@c.example"], None),
        (["<sip:carol@c.example>,"], None),
        ([""], None),
        ([], None),
    ],
    ids=str,
)
def test_what_may_be_asserted(values: list[str], identity: str | None) -> None:
    request = incoming(headers=[("P-Asserted-Identity", value) for value in values])
    flow, record = FakeFlow(names=[PROXY]), trusting(PROXY)
    assert Sender(request, flow, record).asserted_identity == identity
    record.trusted_peers = frozenset()
    assert Sender(request, flow, record).asserted_identity is None


def test_what_is_proved_of_a_sender() -> None:
    request = incoming(headers=[ASSERTED])
    own = Sender(request, FakeFlow(names=["a.example"]), trusting(PROXY))
    assert (own.is_certified, own.user, own.asserted_identity, own.is_proved) == (True, None, None, True)
    nobody = Sender(request, FakeFlow(), trusting(PROXY))
    assert (nobody.is_certified, nobody.user, nobody.asserted_identity, nobody.is_proved) == (False, None, None, False)
    request.authenticated_user = "alice"
    assert nobody.user == "alice"
    assert nobody.is_proved
