"""Whatever comes off the wire, nothing but effects comes out of the engine, and nothing stays in it."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import pytest
from core_support import TARGET, FakeFlow, Side, make_record, make_request
from hypothesis import given
from hypothesis import strategies as st

from p2psip.core.effects import Deliver, OpenFlow, Send
from p2psip.errors import MessageParsingException
from p2psip.message import Malformed, Request, Response, create_response, parse_message

CORPUS = Path(__file__).resolve().parent.parent / "data" / "corpus" / "messages"
TORTURE = sorted((CORPUS / "rfc4475").glob("*.dat"))

PART = st.sampled_from(
    [
        '"\\\0"',
        '"',
        "<",
        ">",
        ";",
        ",",
        "=",
        " ",
        "\t",
        "sip:",
        "a",
        "1",
        "tag",
        "branch=",
        "SIP/2.0/TLS ",
        "\udcff",
        "é",
    ]
)
VALUE = st.lists(PART, max_size=8).map("".join)
NAMES = [
    "Via",
    "From",
    "To",
    "Call-ID",
    "CSeq",
    "Max-Forwards",
    "Require",
    "Content-Type",
    "Timestamp",
    "Contact",
    "Route",
]


def survives(data: bytes) -> None:
    """Take it, answer what is delivered, let all time pass."""
    side, flow = Side("b"), FakeFlow()
    side.directory.default = make_record()
    side.directory.add(side.directory.default)
    message: Request | Response | Malformed
    try:
        message = parse_message(data)
    except MessageParsingException as error:
        message = Malformed(data, error)
    now = 0.0
    side.engine.receive(now, flow, message)
    while (now := side.engine.next_deadline() or 0.0) and now < 3.6:
        side.engine.advance(now)
    for effect in side.engine.take_effects():
        if isinstance(effect, Deliver):
            transaction = effect.transaction
            side.engine.respond(3.6, transaction, transaction.create_response(200))
        else:
            assert isinstance(effect, Send)
            assert isinstance(parse_message(effect.data), Response)
    side.engine.advance(100.0)
    side.assert_empty()


@pytest.mark.parametrize("path", TORTURE, ids=lambda path: path.name)
def test_torture_messages_and_what_becomes_of_them(path: Path) -> None:
    """RFC 4475, whole and with one thing changed."""
    data = path.read_bytes()
    survives(data)
    source = random.Random(4475)
    for _ in range(30):
        mutant = bytearray(data)
        at = source.randrange(len(mutant))
        mutant[at : at + source.randrange(4)] = source.choice(
            [b"", b'"', b'"\\\0"', b";", b",", b"\xff", b"<", b"INVITE"]
        )
        survives(bytes(mutant))


def request_with(method: str, name: str, value: str) -> bytes:
    request = make_request(method, call_id="c")
    lines = ["Via: SIP/2.0/TLS a.example;branch=z9hG4bK-1", *(f"{n}: {v}" for n, v in request.headers)]
    lines = [line for line in lines if not line.startswith(f"{name}:")]
    text = "\r\n".join([request.start_line, f"{name}: {value}", *lines, "Content-Length: 0\r\n\r\n"])
    return text.encode("utf-8", "surrogateescape")


@given(st.sampled_from(["MESSAGE", "INVITE", "CANCEL", "ACK", "BYE"]), st.sampled_from(NAMES), VALUE)
def test_requests_with_one_strange_field(method: str, name: str, value: str) -> None:
    survives(request_with(method, name, value))


@given(st.sampled_from(["MESSAGE", "OPTIONS"]), st.integers(99, 700), st.sampled_from(NAMES), VALUE)
def test_responses_with_one_strange_field(method: str, code: int, name: str, value: str) -> None:
    side, flow = Side("a"), FakeFlow()
    request = make_request(method, call_id="c")
    client_request = side.engine.send_request(0.0, request, TARGET, "user")
    side.engine.flow_opened(0.0, client_request, flow)
    good = create_response(request, 200, to_tag="x").to_bytes().decode().split("\r\n")
    lines = [line for line in good[1:] if not line.startswith(f"{name}:")]
    text = "\r\n".join([f"SIP/2.0 {code} X", f"{name}: {value}", *lines])
    with contextlib.suppress(MessageParsingException):
        side.engine.receive(1.0, flow, parse_message(text.encode("utf-8", "surrogateescape")))
    side.engine.advance(100.0)
    kinds = [type(effect) for effect in side.engine.take_effects()]
    assert kinds[:2] == [OpenFlow, Send]
    side.assert_empty()
    assert flow.unanswered == 0
