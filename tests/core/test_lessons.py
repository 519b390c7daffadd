"""What went wrong in other SIP stacks, done to ours: each request is answered as it deserves, and nothing stays."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from core_support import FakeFlow, Side, incoming, make_record
from test_authentication import REALM, demand, proof

from p2psip.core import digest_demand
from p2psip.core.digest import response_digest, secret_of
from p2psip.core.digest_demand import DigestDemand
from p2psip.core.directory import EndpointRecord
from p2psip.core.tokens import Tokens
from p2psip.core.transaction import ServerTransaction
from p2psip.core.uas import ASKED, Refusal
from p2psip.enums import SenderPolicy
from p2psip.errors import MessageParsingException
from p2psip.message import Malformed, Request, Response, StreamFramer, parse_field, parse_message


def stream(*lines: str, method: str = "MESSAGE", uri: str = "sip:bob@b.example", body: bytes = b"") -> bytes:
    """A request as it is on the wire; the lines replace those of the same name."""
    usual = {
        "Via": "SIP/2.0/TLS a.example;branch=z9hG4bK-1",
        "Max-Forwards": "70",
        "From": "<sip:alice@a.example>;tag=1",
        "To": "<sip:bob@b.example>",
        "Call-ID": "call@a.example",
        "CSeq": f"1 {method}",
        "Content-Length": str(len(body)),
    }
    for line in lines:
        usual.pop(line.partition(":")[0], None)
    text = [f"{method} {uri} SIP/2.0", *(f"{name}: {value}" for name, value in usual.items()), *lines]
    return "\r\n".join([*text, "", ""]).encode("utf-8", "surrogateescape") + body


def answer_to(data: bytes, record: EndpointRecord | None = None) -> int | None:
    """The status of the answer to one request; 200 for what its endpoint gets to see, None when there is no answer."""
    side, flow = Side("b"), FakeFlow(transport="TCP")
    side.directory.add(record or make_record())
    try:
        (message,) = StreamFramer().feed(data)
    except MessageParsingException as error:  # the last word on that connection
        return None if error.answer is None else error.answer.status_code
    assert isinstance(message, Request | Malformed)
    side.engine.receive(0.0, flow, message)
    side.take()
    for transaction in side.delivered:
        side.engine.respond(0.0, transaction, transaction.create_response(200))
    side.take()
    sent = [message for _, message in side.sent if isinstance(message, Response)]
    side.engine.advance(100.0)
    side.assert_empty()
    return sent[-1].status_code if sent else None


# ---------------------------------------------------------------------- bodies of many parts


def nested(depth: int) -> bytes:
    body = b"innermost"
    for level in range(depth):
        mark = b"%d" % level
        body = b"--%s\r\nContent-Type: multipart/mixed;boundary=%d\r\n\r\n%s\r\n--%s--\r\n" % (mark, level, body, mark)
    return body


@pytest.mark.holds("A10", "R21")
@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/mixed", b"--x\r\n\r\none\r\n--x--"),
        ("multipart/mixed;boundary=", b"--\r\n\r\none\r\n----"),
        ('multipart/mixed;boundary=""', b"--\r\n\r\none\r\n----"),
        ("multipart/mixed;boundary=x", b"--x\r\n\r\nwithout an end"),
        ("multipart/mixed;boundary=x", b"--y\r\n\r\nof another\r\n--y--"),
        ("multipart/mixed;boundary=x", b""),
        ("multipart/mixed;boundary=" + "x" * 1000, b"--x"),
        ("multipart/mixed;boundary=1499", nested(1500)),
        ("multipart/mixed;boundary=x", b"--x\r\n" * 10_000),
    ],
)
def test_parts_are_the_business_of_the_application(content_type: str, body: bytes) -> None:
    begun = time.process_time()
    data = stream(f"Content-Type: {content_type}", body=body)
    message = parse_message(data)
    assert message.body == body
    assert answer_to(data) in (200, 400, 415)
    assert time.process_time() - begun < 0.5


# ---------------------------------------------------------------------- Authorization


def credentials() -> Iterator[str]:
    good = f'Digest username="alice", realm="{REALM}", nonce="1-2-3", uri="sip:b", qop=auth, nc=00000001, cnonce="c"'
    yield from ("", "Digest", "Digest ", "Digest,", "Digest =", 'Digest ="x"', "Digest \udcff=1", "Basic x", "Digest a")
    yield from (f'{good}, response="', f'{good}, response="\\', f'{good}, response="\\"', f"{good}, response=")
    yield from (f'{good}, response="{"0" * 6000}"', f'{good}, ="x"', f"{good},,,", f"{good} response=x", f"{good};x")
    yield good.replace("nc=00000001", "nc=0000000g") + ', response="0"'
    yield good.replace("nc=00000001", f"nc={'9' * 5000}") + ', response="0"'
    yield good.replace("1-2-3", "-" * 500) + ', response="\u00e9"'
    yield good.replace("alice", "\\" + "\x01") + ', response="0"'
    yield "Digest " + ",".join(f"p{number}" for number in range(1000))
    yield "Digest " + ",".join(f"p{number}=1" for number in range(900))
    for end in range(7, len(good), 5):
        yield good[:end]


@pytest.mark.holds("A11")
@pytest.mark.parametrize("name", ["Authorization", "Proxy-Authorization"])
def test_credentials_that_cannot_be_read_are_none(name: str) -> None:
    for value in credentials():
        record = make_record()
        record.demand = demand()
        assert answer_to(stream(f"{name}: {value}"), record) in (400, 401), value
        try:
            parse_field(name, value)
        except MessageParsingException:
            pass


@pytest.mark.holds("A11")
@pytest.mark.parametrize(
    ("count", "code"), [("00000001", None), ("0000000g", 401), ("1", 401), ("+0000001", 401), ("9" * 5000, 401)]
)
def test_a_count_that_is_none_is_not_good_with_the_right_password_either(count: str, code: int | None) -> None:
    record = make_record()
    record.demand = demand()
    challenge = told(record, USERS[0], "MESSAGE")
    assert challenge is not None
    nonce = parse_field("WWW-Authenticate", challenge.headers.get("WWW-Authenticate") or "").params["nonce"]
    response = response_digest(
        "SHA-256",
        secret_of("SHA-256", "alice", REALM, "wonderland"),
        nonce=nonce,
        method="MESSAGE",
        uri="sip:b",
        qop="auth",
        nc=count,
        cnonce="c",
        body=b"",
    )
    value = (
        f'Digest username="alice", realm="{REALM}", nonce="{nonce}", uri="sip:b", algorithm=SHA-256, qop=auth, '
        f'nc={count}, cnonce="c", response="{response}"'
    )
    answer = told(record, USERS[0], "MESSAGE", (("Authorization", value),))
    assert (None if answer is None else answer.status_code) == code


@pytest.mark.holds("A11", "R18")
def test_ten_thousand_parameters_are_too_many() -> None:
    value = "Digest " + ",".join(f"p{number}=1" for number in range(10_000))
    assert answer_to(stream(f"Authorization: {value}")) == 400


# ---------------------------------------------------------------------- methods, URIs, numbers


@pytest.mark.holds("A13", "R35")
@pytest.mark.parametrize("method", ["X", "message", "!", "M" * 4096, "SIP", "INVITE2", "%"])
def test_a_method_that_nobody_knows_reaches_the_endpoint_which_says_so(method: str) -> None:
    """501 is the endpoint's answer; up to there it is a request like another."""
    assert answer_to(stream(method=method)) == 200


@pytest.mark.holds("A13")
@pytest.mark.parametrize("method", ["M" * 9000, "ME(SSAGE", "M\u00e9thode", "MESS\0AGE", ""])
def test_what_is_no_method_is_refused(method: str) -> None:
    assert answer_to(stream(method=method)) in (400, 414, None)


@pytest.mark.holds("A13")
@pytest.mark.parametrize("end", ["%", "%4", "%zz", "%4g", "%%", "%\u00e9"])
@pytest.mark.parametrize("where", ["sip:bob{}@b.example", "sip:bob@b.example;x={}", "sip:bob@b.example?x={}", "sip:{}"])
def test_escapes_at_the_end_of_a_uri(where: str, end: str) -> None:
    uri = where.format(end)
    assert answer_to(stream(uri=uri)) in (400, None)
    for name in ("From", "To"):
        assert answer_to(stream(f"{name}: <{uri}>;tag=1")) in (400, 481)


@pytest.mark.holds("A14")
@pytest.mark.parametrize("uri", ["http://x/", "mailto:a@b", "urn:service:sos", "tel:+1", "cid:", "data:,", "x:"])
@pytest.mark.parametrize("name", ["From", "Contact"])
def test_addresses_of_other_kinds_are_text(name: str, uri: str) -> None:
    assert answer_to(stream(f"{name}: <{uri}>;tag=1")) in (200, 400)


@pytest.mark.holds("A14")
@pytest.mark.parametrize("value", ["<>", "</>", "< >", "<x>", "<://>", "<:>", ";tag=1", "<sip:>", "sip:", "*", ""])
@pytest.mark.parametrize("name", ["From", "To"])
@pytest.mark.parametrize("method", ["MESSAGE", "INVITE", "SUBSCRIBE", "REFER"])
def test_what_is_no_address_is_refused(method: str, name: str, value: str) -> None:
    assert answer_to(stream(f"{name}: {value}", method=method)) == 400


@pytest.mark.holds("A15", "R35")
@pytest.mark.parametrize(
    "line",
    [
        *("CSeq: 2147483648 MESSAGE", "CSeq: 4294967296 MESSAGE", f"CSeq: {'9' * 5000} MESSAGE", "CSeq: -1 MESSAGE"),
        *("Via: SIP/2.0/TLS a.example:65536;branch=z9hG4bK-1", "Via: SIP/2.0/TLS a.example;ttl=256;branch=z9hG4bK-1"),
        *("From: <sip:a@b:65536>;tag=1", "To: <sip:a@b:99999999999>", f"To: <sip:a@b:{'9' * 5000}>"),
        *("Max-Forwards: 256", "Max-Forwards: 4294967366", "Max-Forwards: -1", f"Max-Forwards: {'7' * 5000}"),
    ],
)
def test_numbers_that_are_too_large_are_refused(line: str) -> None:
    assert answer_to(stream(line)) == 400


@pytest.mark.holds("A15")
@pytest.mark.parametrize(
    "line",
    [f"Expires: {2**32}", f"Expires: {'9' * 5000}", "Contact: <sip:a@b>;q=9e9", "Contact: <sip:a@b>;expires=9e9"],
)
def test_numbers_that_nobody_asked_for_harm_nothing(line: str) -> None:
    assert answer_to(stream(line)) in (200, 400)
    name, _, value = line.partition(": ")
    try:
        parse_field(name, value)
    except MessageParsingException:
        pass


@pytest.mark.holds("A16", "R22")
@pytest.mark.parametrize("name", ["To\x01", "To\0", "To\x7f", "To\u00a0", "\u0422o", "T o", "To\x0b"])
def test_a_name_with_something_in_it_is_not_that_name(name: str) -> None:
    data = stream(f"{name}: <sip:mallory@m.example>")
    message = StreamFramer().feed(data)[0]
    assert isinstance(message, Malformed)
    assert answer_to(data) == 400


# ---------------------------------------------------------------------- what strangers learn

USERS = ["sip:bob@b.example", "sip:nobody@b.example", "sip:bob@nowhere.example", "sip:b.example"]


def told(record: EndpointRecord, uri: str, method: str, headers: tuple[tuple[str, str], ...] = ()) -> Response | None:
    """What a peer without a certificate hears; None when the request is let in."""
    side, flow = Side("b"), FakeFlow(transport="TCP")
    side.directory.add(record)
    request = incoming(method, uri=uri, headers=headers)
    side.engine.receive(0.0, flow, request)
    side.take()
    return None if side.delivered else side.last()  # type: ignore[return-value]


@pytest.mark.holds("A19")
@pytest.mark.parametrize("method", ["MESSAGE", "OPTIONS", "INVITE", "SUBSCRIBE", "FOO"])
@pytest.mark.parametrize("accepting", [True, False])
def test_a_stranger_is_challenged_whoever_is_asked_for(method: str, accepting: bool) -> None:
    for uri in USERS:
        record = make_record()
        record.demand = demand()
        record.accepting = accepting
        answer = told(record, uri, method)
        assert answer is not None
        assert answer.status_code == 401, uri
        assert [name for name, _ in answer.headers if name in ("Warning", "Retry-After", "Allow")] == []


@pytest.mark.holds("A19")
@pytest.mark.parametrize("method", ["MESSAGE", "OPTIONS", "INVITE"])
def test_a_stranger_without_the_right_certificate_is_refused_whoever_is_asked_for(method: str) -> None:
    texts = set()
    for uri in USERS:
        record = make_record()
        record.sender_policy = SenderPolicy.CERTIFIED
        answer = told(record, uri, method)
        assert answer is not None
        texts.add((answer.status_code, answer.headers.get("Warning")))
    assert len(texts) == 1
    assert texts.pop()[0] == 403


@pytest.mark.holds("A19")
def test_who_has_proved_it_is_told_the_truth() -> None:
    for uri, code in zip(USERS, [None, 404, 404, 404], strict=True):
        record = make_record()
        record.demand = demand()
        challenge = told(record, uri, "MESSAGE")
        assert challenge is not None
        answer = told(record, uri, "MESSAGE", (proof(challenge),))
        assert (None if answer is None else answer.status_code) == code


@pytest.mark.holds("A19")
def test_who_has_proved_it_to_one_is_no_stranger_to_the_others() -> None:
    side, flow = Side("b"), FakeFlow(transport="TCP")
    first, second = make_record(), make_record("sip:carol@b.example", "op2", "e2")
    first.demand = DigestDemand("b.example", {}, ["SHA-256"], "other key")
    second.demand = demand()
    side.directory.add(first)
    side.directory.add(second)

    def ask(uri: str, *headers: tuple[str, str]) -> Response:
        side.engine.receive(0.0, flow, incoming(uri=uri, headers=headers))
        side.take()
        answer = side.last()
        assert isinstance(answer, Response)
        return answer

    challenge = ask("sip:carol@b.example")
    assert ask("sip:nobody@b.example").status_code == 401
    assert ask("sip:nobody@b.example", proof(challenge)).status_code == 404


@pytest.mark.holds("A19")
def test_who_is_not_known_is_looked_at_as_long_as_who_is(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[str] = []

    def counted(algorithm: str, *args: str, **more: Any) -> str:
        looked_at.append(algorithm)
        return response_digest(algorithm, *args, **more)

    record = make_record()
    record.demand = demand()
    challenge = told(record, USERS[0], "MESSAGE")
    assert challenge is not None
    monkeypatch.setattr(digest_demand, "response_digest", counted)
    for user in ("alice", "mallory"):
        answer = told(record, USERS[0], "MESSAGE", (proof(challenge, user=user, password="wrong"),))
        assert answer is not None and answer.status_code == 401
    assert looked_at == ["SHA-256"] * 2


@pytest.mark.holds("A19")
def test_what_a_stranger_costs_does_not_grow_with_the_endpoints() -> None:
    side, asked = Side("b"), []

    class Counting(DigestDemand):
        def refusal(self, now: float, transaction: ServerTransaction, tokens: Tokens) -> Refusal | None:
            asked.append(self)
            return super().refusal(now, transaction, tokens)

    for number in range(10 * ASKED):
        record = make_record(f"sip:{number}@b.example", f"opaque{number}")
        record.demand = Counting("b.example", {}, ["SHA-256"], "secret")
        side.directory.add(record)
    side.engine.receive(0.0, FakeFlow(transport="TCP"), incoming("MESSAGE", uri=USERS[1]))
    side.take()
    assert side.last().status_code == 401  # type: ignore[union-attr]
    assert len(asked) == ASKED


@pytest.mark.holds("A19")
def test_an_endpoint_that_wants_to_know_hides_beside_one_that_does_not() -> None:
    def ask(uri: str) -> int:
        side, flow = Side("b"), FakeFlow(transport="TCP")
        guarded = make_record("sip:carol@b.example", "op2", "e2")
        guarded.demand = wanted
        side.directory.add(make_record())
        side.directory.add(guarded)
        side.engine.receive(0.0, flow, incoming(uri=uri))
        side.take()
        return 200 if side.delivered else side.last().status_code  # type: ignore[union-attr]

    wanted = demand()
    assert ask("sip:bob@b.example") == 200
    assert ask("sip:carol@b.example") == ask("sip:nobody@b.example") == 401


@pytest.mark.holds("A19")
def test_where_nobody_wants_to_know_the_truth_is_told_at_once() -> None:
    answer = told(make_record(), USERS[1], "MESSAGE")
    assert answer is not None and answer.status_code == 404


# ---------------------------------------------------------------------- many values


@pytest.mark.holds("A9")
@pytest.mark.parametrize("method", ["MESSAGE", "INVITE", "SUBSCRIBE", "OPTIONS"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("Accept", "a/b"), ("Contact", "<a:>"), ("Allow", "A"), ("Supported", "a")),
        *(("Record-Route", "<sip:a>"), ("Warning", '1 a ""'), ("Require", "a"), ("Unknown", "a")),
    ],
)
@pytest.mark.parametrize("in_one_line", [True, False])
def test_a_thousand_values(name: str, value: str, in_one_line: bool, method: str) -> None:
    line = f"{name}: " + ",".join([value] * 1000)[:8000].rpartition(",")[0]
    lines = [line] if in_one_line else [f"{name}: {value}"] * 1000
    assert answer_to(stream(*lines, method=method)) in (200, 400, 420)
