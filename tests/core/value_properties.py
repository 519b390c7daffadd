"""What holds for whoever reads single header fields in the core: used by the tests and by the fuzz targets.

The readers of a usage are handed what a peer wrote, after the parser and ``validate()`` and nothing else. None of them
may raise, whatever stands there.
"""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

from core_support import CountingTokens, FakeFlow, make_record

from p2psip.core.authentication import Attempt, Credential, unmet
from p2psip.core.dialog import Content, _routes, contact_uri
from p2psip.core.digest import challenges_of, credentials_text, split_challenges
from p2psip.core.digest_demand import DigestDemand
from p2psip.core.event_headers import event_name, expires_of, retry_after, subscription_state
from p2psip.core.redirection import Redirections
from p2psip.core.refer import _headers_of, refer_to_of, status_of, wants_no_progress
from p2psip.core.reliable import option_tags, rseq
from p2psip.core.sender import Sender
from p2psip.core.session_arrival import named_dialog
from p2psip.core.session_timer import min_se, session_expires
from p2psip.core.uas import Refusal, inspect, server_key, stateless_answer
from p2psip.errors import MessageParsingException
from p2psip.message import Request, Response, SipUri, parse_field, parse_message

READ_BY_THE_CORE = (
    *("Allow", "Authorization", "Contact", "Content-Disposition", "Content-Type", "Event", "Expires", "Join"),
    *("Min-SE", "P-Asserted-Identity", "Proxy-Authenticate", "RAck", "RSeq", "Record-Route", "Refer-Sub", "Refer-To"),
    *("Referred-By", "Replaces", "Require", "Retry-After", "Route", "Session-Expires", "Subscription-State"),
    *("Supported", "WWW-Authenticate", "Authentication-Info", "Via", "From", "To", "Call-ID", "CSeq", "Timestamp"),
)


class AnyRealm:
    """The same credential for everybody."""

    def __init__(self) -> None:
        self.credential = Credential('al"ice\\', "secret", allow_md5=True)

    def find(self, realm: str) -> Credential:
        return self.credential


def with_field(start_line: str, method: str, name: str, value: str) -> bytes:
    lines = {
        "Via": "SIP/2.0/TLS 192.0.2.2;branch=z9hG4bK1",
        "From": "<sip:alice@a.example>;tag=f",
        "To": "<sip:bob@b.example>;tag=t",
        "Call-ID": "c",
        "CSeq": f"1 {method}",
        "Max-Forwards": "70",
        "Content-Length": "0",
    }
    text = "\r\n".join([start_line, *(f"{n}: {v}" for n, v in {**lines, name: value}.items()), "", ""])
    return text.encode("utf-8", "surrogateescape")


def check_reading(name: str, value: str) -> None:
    """Every reader of the core, of a request and of a response with that field."""
    with contextlib.suppress(MessageParsingException):
        request = parse_message(with_field("INVITE sip:bob@b.example SIP/2.0", "INVITE", name, value))
        assert isinstance(request, Request)
        request.validate()
        read(request)
        read_request(request)
    with contextlib.suppress(MessageParsingException):
        response = parse_message(with_field("SIP/2.0 401 Unauthorized", "INVITE", name, value))
        assert isinstance(response, Response)
        response.validate()
        read(response)
        read_response(response)


def read(message: Request | Response) -> None:
    """What may be asked of both."""
    event_name(message.headers.get("Event"))
    for seconds in (expires_of(message), retry_after(message), session_expires(message)[0], min_se(message)):
        assert seconds is None or 0 <= seconds < 10**10
    for name in ("Require", "Supported", "Allow"):
        option_tags(message, name)
    contact = contact_uri(message)
    assert contact is None or not set("\r\n\0 <>") & set(contact)
    for route in _routes(message):
        assert "\r" not in route and "\n" not in route
    Content.of(message)
    wants_no_progress(message)


def read_request(request: Request) -> None:
    subscription_state(request)
    server_key(request)
    for header in ("Replaces", "Join"):
        named_dialog(request, header)
    refer_to = refer_to_of(request)
    if refer_to is not None and isinstance(refer_to.uri, SipUri):
        _headers_of(refer_to.uri)
    record, flow = make_record(), FakeFlow(names=["a.example"])
    record.trusted_peers = frozenset(["a.example"])
    sender = Sender(request, flow, record)
    assert isinstance(sender.is_proved, bool)
    inspect(request, record)
    answer = stateless_answer(request, flow, 400)
    assert answer is not None
    parse_message(answer.to_bytes())
    transaction: Any = SimpleNamespace(request=request, flow=flow)
    demand = DigestDemand("realm", {'al"ice\\': AnyRealm().credential}, ["SHA-256"], "key", except_certificates=False)
    assert isinstance(demand.refusal(1.0, transaction, CountingTokens()), Refusal)
    status_of((request.headers.get("Subject") or "").encode("utf-8", "surrogateescape"))


def read_response(response: Response) -> None:
    rseq(response)
    redirections = Redirections(5)
    if redirections.learn(response):
        assert redirections.has_next
    request = Request("INVITE", "sip:bob@b.example", [("Call-ID", "c")])
    credentials = AnyRealm()
    unmet(response, request, credentials)
    attempt = Attempt()
    if attempt.take(response, credentials):
        attempt.write(request, "cnonce")
        parse_message(request.to_bytes())
        unmet(response, request, credentials)
        attempt.refused(response)
        attempt.accepted(response)


def check_challenge(text: str) -> None:
    """What answers a challenge says the same about it, and can be read."""
    try:
        split_challenges(text)
    except MessageParsingException:
        return
    for challenge in challenges_of([text]):
        written = credentials_text(
            challenge, "alice", "secret", method="INVITE", uri="sip:bob@b.example", body=b"", nc=1, cnonce="c"
        )
        scheme, params = parse_field("Authorization", written)
        assert scheme == "Digest"
        assert (params["realm"], params["nonce"]) == (challenge.realm, challenge.nonce)
        assert params.get("opaque") == challenge.opaque
        request = Request("INVITE", "sip:bob@b.example", [("Authorization", written)])
        read_again = parse_message(request.to_bytes())
        assert read_again.headers.get("Authorization") == written
