"""What a server looks at before it hands a request over (RFC 3261 8.2), and how it answers."""

from __future__ import annotations

from typing import Any

import pytest
from core_support import FakeFlow, Side, changed, incoming, make_record, make_request, received

from p2psip.core.engine import KNOWN_METHODS
from p2psip.errors import MessageParsingException
from p2psip.message import Malformed, Request, Response, create_ack, create_response, parse_message


class Server:
    """An engine with the endpoint sip:bob@b.example."""

    def __init__(self, **settings: Any) -> None:
        self.side = Side("b", changed(**settings))
        self.engine = self.side.engine
        self.record = make_record()
        self.side.directory.add(self.record)
        self.flow = FakeFlow(("192.0.2.1", 5061), ("192.0.2.2", 5061))

    def receive(self, message: Request | Response | Malformed, flow: FakeFlow | None = None) -> list[str]:
        self.engine.receive(0.0, flow or self.flow, message)
        self.side.take()
        return [m.method if isinstance(m, Request) else str(m.status_code) for _, m in self.side.sent]

    @property
    def response(self) -> Response:
        message = self.side.last()
        assert isinstance(message, Response)
        return message


def raw(text: str) -> Request:
    message = parse_message(text.replace("\n", "\r\n").encode())
    assert isinstance(message, Request)
    return message


GOOD = """MESSAGE sip:bob@b.example SIP/2.0
Via: SIP/2.0/TLS 192.0.2.2:5061;branch=z9hG4bK-1
Max-Forwards: 70
From: <sip:alice@a.example>;tag=1
To: <sip:bob@b.example>
Call-ID: c1
CSeq: 1 MESSAGE
Content-Length: 0

"""


def test_a_good_request_is_delivered_to_its_endpoint() -> None:
    server = Server()
    assert server.receive(raw(GOOD)) == []
    (transaction,) = server.side.delivered
    assert transaction.request.call_id == "c1"
    assert transaction.flow is server.flow


def test_the_effect_names_record_transaction_and_request() -> None:
    server = Server()
    request = raw(GOOD)
    server.engine.receive(0.0, server.flow, request)
    (effect,) = server.engine.take_effects()
    assert (effect.record, effect.request, effect.transaction.request) == (server.record, request, request)  # type: ignore[union-attr]


@pytest.mark.holds("R35")
@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("SIP/2.0\nVia", "SIP/7.0\nVia", "505"),
        ("Call-ID: c1", "Call-ID: a b", "400"),
        ("192.0.2.2:5061", "192.0.2.2:x", "400"),
        ("Via: SIP/2.0/", "Via: SIP/7.0/", "400"),
        ("To: <sip:bob@b.example>", "To: <sip:bob@b.example", "400"),
        ("CSeq: 1 MESSAGE", "CSeq: 1 OPTIONS", "400"),
        ("CSeq: 1 MESSAGE", "CSeq: x MESSAGE", "400"),
        ("Max-Forwards: 70", "Max-Forwards: 256", "400"),
        ("Max-Forwards: 70", "Max-Forwards: -1", "400"),
        ("Max-Forwards: 70", "Max-Forwards: 7O", "400"),
        ("Max-Forwards: 70", "Max-Forwards:", "400"),
        ("From: <sip:alice@a.example>;tag=1", "From: <sip:alice@a.example;tag=1", "400"),
    ],
)
def test_what_the_message_fails_is_answered_so(old: str, new: str, code: str) -> None:
    server = Server()
    assert old in GOOD
    assert server.receive(raw(GOOD.replace(old, new))) == [code]
    assert server.side.delivered == []
    server.side.assert_empty()


@pytest.mark.parametrize("name", ["Via", "From", "To", "Call-ID", "CSeq"])
def test_a_request_that_cannot_be_answered_is_dropped(name: str) -> None:
    """RFC 3261 8.2.6.2: without one of these the answer would belong to nothing."""
    server = Server()
    assert server.receive(raw("".join(line for line in GOOD.splitlines(True) if not line.startswith(name)))) == []
    server.side.assert_empty()


@pytest.mark.holds("R35")
def test_a_bad_ack_is_dropped() -> None:
    server = Server()
    assert server.receive(raw(GOOD.replace("MESSAGE", "ACK").replace("CSeq: 1", "CSeq: x"))) == []
    server.side.assert_empty()


def test_a_malformed_message_is_answered_if_it_can_be() -> None:
    server = Server()
    error = MessageParsingException("bad", answer=create_response(raw(GOOD), 400, to_tag="x"))
    assert server.receive(Malformed(b"...", error)) == ["400"]
    assert server.receive(Malformed(b"...", MessageParsingException("bad"))) == ["400"]
    server.side.assert_empty()


@pytest.mark.holds("R35")
def test_stray_responses_are_dropped() -> None:
    server = Server()
    assert server.receive(create_response(raw(GOOD), 200, to_tag="x")) == []
    server.side.assert_empty()


@pytest.mark.holds("R35")
@pytest.mark.parametrize(
    ("uri", "code"),
    [("sip:nobody@b.example", "404"), ("soap.beep://192.0.2.103:3002", "416"), ("tel:+123", "416")],
)
def test_a_request_for_somebody_else(uri: str, code: str) -> None:
    server = Server()
    assert server.receive(incoming(uri=uri)) == [code]
    server.side.assert_empty()


def test_an_ambiguous_request() -> None:
    server = Server()
    server.side.directory.add(make_record(opaque="other", epid="e2"))
    assert server.receive(incoming()) == ["485"]


@pytest.mark.holds("R35")
def test_an_endpoint_that_takes_nothing_in() -> None:
    server = Server()
    server.record.accepting = False
    assert server.receive(incoming()) == ["480"]


@pytest.mark.holds("R35")
@pytest.mark.parametrize("method", ["MESSAGE", "BYE", "INVITE", "NOTIFY", "FOO"])
def test_a_tag_in_to_without_dialog_is_481(method: str) -> None:
    """RFC 3261 12.2.2."""
    server = Server()
    assert server.receive(incoming(method, to="<sip:bob@b.example>;tag=gone")) == ["481"]
    assert server.response.to_tag == "gone"


@pytest.mark.holds("R35")
@pytest.mark.parametrize("method", ["BYE", "PRACK", "UPDATE"])
def test_methods_that_live_in_dialogs_only(method: str) -> None:
    assert Server().receive(incoming(method)) == ["481"]


@pytest.mark.holds("R35")
def test_unknown_extensions_are_listed_and_known_ones_are_not() -> None:
    """RFC 3261 8.2.2.3."""
    server = Server()
    server.record.extensions.add("known")
    assert server.receive(incoming(headers=[("Require", "Known")])) == []
    assert server.receive(incoming(headers=[("Require", "known, foo"), ("Require", "bar")])) == ["420"]
    assert server.response.headers.get("Unsupported") == "foo, bar"
    assert server.receive(incoming(headers=[("Supported", "whatever"), ("Proxy-Require", "foo")])) == ["420"]
    assert len(server.side.delivered) == 2


@pytest.mark.holds("R35")
@pytest.mark.parametrize("tags", ['"foo, bar', "foo,,bar", "foo bar", '"foo"', "caf\xe9"])
def test_a_require_that_cannot_be_read(tags: str) -> None:
    assert Server().receive(incoming(headers=[("Require", tags)])) == ["400"]


@pytest.mark.parametrize("method", ["ACK", "CANCEL"])
def test_require_means_nothing_in_ack_and_cancel(method: str) -> None:
    server = Server()
    assert server.receive(incoming(method, headers=[("Require", "foo")])) == ([] if method == "ACK" else ["481"])


@pytest.mark.holds("R35")
def test_max_forwards_0_is_no_matter_to_whom_it_reaches() -> None:
    server = Server()
    request = make_request()
    request.headers.set("Max-Forwards", "0")
    assert server.receive(received(request)) == []
    assert len(server.side.delivered) == 1


@pytest.mark.holds("R35")
@pytest.mark.parametrize(
    ("content_type", "code"),
    [
        ("text/plain;charset=utf-8", None),
        ("application/x-whatever", None),
        ("text/plain ; charset=utf-8", None),
        ("text\xa0/plain", "415"),
        ("text", "415"),
        ("a b/c", "415"),
        ("/", "415"),
    ],
)
def test_a_content_type_that_is_none(content_type: str, code: str | None) -> None:
    server = Server()
    request = incoming(headers=[("Content-Type", content_type)], body=b"x")
    assert server.receive(request) == ([code] if code else [])
    if code:
        assert server.response.headers.get("Accept") == "*/*"


@pytest.mark.parametrize("method", ["MESSAGE", "INVITE", "REGISTER", "FOO", "SUBSCRIBE"])
def test_methods_are_the_endpoints_business(method: str) -> None:
    server = Server()
    assert server.receive(incoming(method)) == []
    assert len(server.side.delivered) == 1
    assert (method in KNOWN_METHODS) is (method != "FOO")


# ---------------------------------------------------------------------- the order of the checks


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"to": "<sip:bob@b.example>;tag=gone", "uri": "sip:nobody@b.example"}, "481"),
        ({"uri": "urn:x:y", "headers": [("Require", "foo")]}, "416"),
        ({"uri": "sip:nobody@b.example", "headers": [("Require", "foo")]}, "404"),
        ({"headers": [("Require", "foo"), ("Content-Type", "bad")], "body": b"x"}, "420"),
    ],
)
def test_the_first_thing_wrong_is_the_answer(more: dict[str, Any], code: str) -> None:
    assert Server().receive(incoming(**more)) == [code]


def test_merged_comes_after_who_it_is_for_and_before_what_it_requires() -> None:
    server = Server()
    server.receive(incoming(call_id="c"))
    assert server.receive(incoming(call_id="c", headers=[("Require", "foo")])) == ["482"]
    server.record.accepting = False
    assert server.receive(incoming(call_id="c"))[-1] == "480"


# ---------------------------------------------------------------------- merged requests


@pytest.mark.holds("R35")
def test_a_copy_that_came_another_way_is_482() -> None:
    """RFC 3261 8.2.2.2."""
    server = Server()
    server.receive(incoming("INVITE", call_id="c"))
    assert server.receive(incoming("INVITE", call_id="c")) == ["482"]
    for other in (
        incoming("INVITE", call_id="d"),
        incoming("INVITE", call_id="c", cseq=2),
        incoming("INVITE", call_id="c", from_tag="other"),
        incoming("OPTIONS", call_id="c"),
    ):
        server.receive(other)
    assert server.receive(incoming("INVITE", call_id="c", to="<sip:bob@b.example>;tag=t"))[1:] == ["481"]
    assert len(server.side.delivered) == 5


def test_a_request_that_was_forked_to_two_endpoints_is_not_merged() -> None:
    """Each of them is a user agent server, and each is to answer."""
    server = Server()
    server.side.directory.add(make_record(opaque="second", epid="e2"))
    for opaque in ("op", "second"):
        assert server.receive(incoming("INVITE", f"sip:bob@b.example;opaque={opaque}", call_id="c")) == []
    assert server.receive(incoming("INVITE", "sip:bob@b.example;opaque=op", call_id="c")) == ["482"]


def test_after_the_answer_it_is_a_request_like_another() -> None:
    server = Server()
    server.receive(incoming(call_id="c"))
    (transaction,) = server.side.delivered
    server.engine.respond(0.0, transaction, transaction.create_response(200))
    assert server.receive(incoming(call_id="c")) == ["200"]
    assert len(server.side.delivered) == 2


@pytest.mark.holds("R35")
def test_a_copy_of_the_482_does_not_disturb_the_original() -> None:
    server = Server()
    server.receive(incoming("INVITE", call_id="c"))
    copy = incoming("INVITE", call_id="c")
    server.receive(copy)
    server.receive(create_ack(copy, server.response))
    assert server.receive(incoming("INVITE", call_id="c")) == ["482", "482"]


# ---------------------------------------------------------------------- how responses go back


def respond(server: Server, flow: FakeFlow, via: str, code: int = 200) -> Response:
    server.receive(incoming(via=via), flow)
    transaction = server.side.delivered[-1]
    server.engine.respond(0.0, transaction, transaction.create_response(code))
    return server.response


@pytest.mark.parametrize(
    ("remote", "via", "expected"),
    [
        ("192.0.2.2", "SIP/2.0/TLS 192.0.2.2:5061;branch=z9hG4bK-1", None),
        ("2001:db8::2", "SIP/2.0/TLS [2001:db8::2]:5061;branch=z9hG4bK-1", None),
        (
            "192.0.2.9",
            "SIP/2.0/TLS 192.0.2.2:5061;branch=z9hG4bK-1",
            "SIP/2.0/TLS 192.0.2.2:5061;branch=z9hG4bK-1;received=192.0.2.9",
        ),
        (
            "192.0.2.9",
            "SIP/2.0/TLS a.example;branch=z9hG4bK-1",
            "SIP/2.0/TLS a.example;branch=z9hG4bK-1;received=192.0.2.9",
        ),
        (
            "2001:db8::9",
            "SIP/2.0/TLS a.example;branch=z9hG4bK-1",
            "SIP/2.0/TLS a.example;branch=z9hG4bK-1;received=2001:db8::9",
        ),
        (
            "192.0.2.2",
            "SIP/2.0/TLS 192.0.2.2:5061;rport;branch=z9hG4bK-1",
            "SIP/2.0/TLS 192.0.2.2:5061;rport=4711;branch=z9hG4bK-1;received=192.0.2.2",
        ),
        (
            "192.0.2.9",
            "SIP/2.0/TLS a.example;branch=z9hG4bK-1;received=10.0.0.1",
            "SIP/2.0/TLS a.example;branch=z9hG4bK-1;received=192.0.2.9",
        ),
    ],
)
def test_the_top_via_says_where_the_request_came_from(remote: str, via: str, expected: str | None) -> None:
    """RFC 3261 18.2.1, RFC 3581 4."""
    flow = FakeFlow(("192.0.2.1", 5061), (remote, 4711))
    assert respond(Server(), flow, via).headers.get("Via") == (expected or via)


@pytest.mark.parametrize("joined", [True, False])
def test_the_other_vias_stay_as_they_are_and_in_order(joined: bool) -> None:
    request = make_request()
    vias = [f"SIP/2.0/TLS host{n}.example;branch=z9hG4bK-{n}" for n in range(3)]
    for via in [", ".join(vias)] if joined else reversed(vias):
        request.headers.add("X-First", "1")
        request.headers.prepend("Via", via)
    server = Server()
    server.receive(parse_message(request.to_bytes()))
    (transaction,) = server.side.delivered
    server.engine.respond(0.0, transaction, transaction.create_response(200))
    assert server.response.headers.get_all("Via") == [f"{vias[0]};received=192.0.2.2", *vias[1:]]


def test_the_request_stays_as_it_was_received() -> None:
    server = Server()
    request = incoming(via="SIP/2.0/TLS a.example;rport;branch=z9hG4bK-1")
    octets = request.to_bytes()
    server.receive(request)
    assert server.side.delivered[0].request.to_bytes() == octets


def test_refusals_without_transaction_say_it_too() -> None:
    server = Server()
    server.receive(raw(GOOD.replace("192.0.2.2:5061", "a.example").replace("CSeq: 1 M", "CSeq: 1 X")))
    assert server.response.top_via.params["received"] == "192.0.2.2"
    assert server.response.to_tag is not None


def test_refusals_without_transaction_bear_the_same_tag_each_time() -> None:
    """RFC 3261 8.2.7."""
    server = Server()
    for cseq in (1, 1, 2):
        server.receive(raw(GOOD.replace("CSeq: 1 M", f"CSeq: {cseq} X")))
    first, second, third = (message.to_tag for _, message in server.side.sent)
    assert first == second != third


NUL = '"\\\0"'


@pytest.mark.parametrize(
    "line",
    [
        *(f"Via: SIP/2.0/TLS a.example;x={NUL}", f"Via: SIP/2.0/TLS a.example;rport;x={NUL}, SIP/2.0/TLS b;x={NUL}"),
        *(f"Timestamp: {NUL}", f"Require: {NUL}", f"Content-Type: {NUL}", f"Contact: {NUL} <sip:a>", f"X: {NUL}"),
        *(f"From: {NUL} <sip:a>;tag=1", f"To: {NUL} <sip:bob@b.example>", f"To: {NUL} <sip:bob@b.example>;tag=1"),
        *(f"Call-ID: {NUL}", f"CSeq: 1 {NUL}", f"Max-Forwards: {NUL}", f"To: <sip:bob@b.example>;epid={NUL}"),
    ],
)
@pytest.mark.parametrize("method", ["MESSAGE", "INVITE", "CANCEL", "BYE"])
def test_a_quoted_nul_stands_in_no_way(method: str, line: str) -> None:
    """RFC 4475 3.1.1.2 allows it, and the answer has to give it back."""
    name = line.partition(":")[0]
    lines = [other for other in GOOD.replace("MESSAGE", method).splitlines() if not other.startswith(f"{name}:")]
    server = Server()
    server.receive(raw("\n".join([lines[0], line, *lines[1:], "", ""])))
    server.engine.advance(4.0)
    for transaction in server.side.delivered:
        server.engine.respond(4.0, transaction, transaction.create_response(200))
    if name == "Via":
        assert NUL in (server.response.headers.get("Via") or "")
    else:
        assert server.side.delivered or server.side.last()


# ---------------------------------------------------------------------- limits


@pytest.mark.holds("R29")
def test_too_many_unanswered_requests_on_a_flow_are_503() -> None:
    server = Server(maximum_unanswered_per_connection=2)
    for _ in range(2):
        server.receive(incoming())
    assert server.receive(incoming()) == ["503"]
    assert server.response.headers.get("Retry-After") == "5"
    assert server.receive(incoming(), FakeFlow()) == ["503"]  # another flow has room
    transaction = server.side.delivered[0]
    server.engine.respond(0.0, transaction, transaction.create_response(200))
    server.receive(incoming())
    assert len(server.side.delivered) == 4


@pytest.mark.holds("R29")
def test_an_answered_invite_that_lingers_does_not_count_as_unanswered() -> None:
    server = Server(maximum_unanswered_per_connection=1)
    for _ in range(3):
        server.receive(incoming("INVITE"))
        transaction = server.side.delivered[-1]
        server.engine.respond(0.0, transaction, transaction.create_response(200))
    assert len(server.side.delivered) == 3


def test_a_repeated_2xx_makes_no_more_room() -> None:
    server = Server(maximum_unanswered_per_connection=1)
    server.receive(incoming("INVITE"))
    (invite,) = server.side.delivered
    for _ in range(3):
        server.engine.respond(0.0, invite, invite.create_response(200))
    server.receive(incoming())
    assert server.receive(incoming())[-1] == "503"


@pytest.mark.holds("R29")
def test_too_many_transactions_are_503() -> None:
    server = Server(maximum_transactions=2)
    for _ in range(2):
        server.receive(incoming("INVITE"))
    assert server.receive(incoming("INVITE"), FakeFlow()) == ["503"]
    assert len(server.engine._servers) == 2


@pytest.mark.holds("R29")
def test_copies_acks_and_cancels_get_through_when_there_is_no_room() -> None:
    server = Server(maximum_unanswered_per_connection=1)
    invite = incoming("INVITE", via="SIP/2.0/TLS 192.0.2.2:5061;branch=z9hG4bK-1")
    server.receive(invite)
    server.receive(parse_message(invite.to_bytes()))
    assert server.receive(incoming("CANCEL", via="SIP/2.0/TLS 192.0.2.2:5061;branch=z9hG4bK-1")) == ["200", "487"]
