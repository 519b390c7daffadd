"""What bench.py measures about text: reading and writing messages, in this process."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench_peers import NAME
from bench_reference import REQUEST
from bench_table import Plan, Row, alternate

from p2psip.message import Request, SipUri, StreamFramer, create_response, parse_message

Step = Callable[[], object]


def message(number: int) -> bytes:
    """A MESSAGE as our endpoints send it, 800 bytes in all."""
    head = (
        f"MESSAGE sip:user{number:02}@127.0.0.1:45061;transport=tls SIP/2.0\r\n"
        f"Via: SIP/2.0/TLS {NAME}:40000;branch=z9hG4bK8f14e45fceea167a5a{number:02}\r\n"
        "Max-Forwards: 70\r\n"
        f"From: <sip:alice@example.com>;epid=1f0e3dad99;tag=c9f0f895fb98ab{number:02}\r\n"
        f"To: <sip:user{number:02}@127.0.0.1:45061;transport=tls>\r\n"
        f"Call-ID: 45c48cce2e2d7fbdea1afc51c7c6ad{number:02}\r\n"
        "CSeq: 1 MESSAGE\r\n"
        "User-Agent: p2psip/0.1.0\r\n"
        "Content-Type: text/plain\r\n"
        "Content-Length: 000\r\n\r\n"
    )
    body = "x" * (len(REQUEST) - len(head))
    return (head.replace("Content-Length: 000", f"Content-Length: {len(body):03}") + body).encode()


MESSAGES = [message(number) for number in range(100)]


def split() -> None:
    """What all is compared with: the head, bare, into a dictionary."""
    for data in MESSAGES:
        head = data.partition(b"\r\n\r\n")[0]
        dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])


def measured(plan: Plan, name: str, ours: Step, reference: Step, target: float | None = None) -> list[Row]:
    def each(step: Step) -> float:
        done, begun = 0, time.perf_counter()
        end = begun + plan.seconds / 2
        while time.perf_counter() < end:
            step()
            done += len(MESSAGES)
        return (time.perf_counter() - begun) / done * 1e6

    return [Row(name, "µs", *alternate(plan.runs, partial(each, ours), partial(each, reference)), target, False)]


def codec(plan: Plan, folder: Path) -> list[Row]:
    framer = StreamFramer()

    def ours() -> None:
        for data in MESSAGES:
            (request,) = framer.feed(data)
            assert isinstance(request, Request)
            via = request.top_via
            _ = (via.branch, via.sent_by, request.call_id, request.cseq, request.from_tag, request.to_tag)
            uri = request.request_uri
            _ = uri.user if isinstance(uri, SipUri) else None
            create_response(request, 200, to_tag="8f14e45fceea167a").to_bytes()

    return measured(plan, "codec", ours, split, 3.5)


def parse(plan: Plan, folder: Path) -> list[Row]:
    framer = StreamFramer()

    def ours() -> None:
        for data in MESSAGES:
            framer.feed(data)

    return measured(plan, "parse", ours, split)


def serialise(plan: Plan, folder: Path) -> list[Row]:
    """The same texts from headers and body, each time anew; bare: joining what the split made."""
    read = [parse_message(data) for data in MESSAGES]
    requests = [(request.method, request.uri, list(request.headers), request.body) for request in read]
    parts = []
    for data in MESSAGES:
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")
        parts.append((first, [line.split(b": ", 1) for line in lines], body))

    def ours() -> None:
        for method, uri, headers, body in requests:
            Request(method, uri, headers, body).to_bytes()

    def bare() -> None:
        for first, headers, body in parts:
            b"\r\n".join([first, *(b": ".join(header) for header in headers), b"", body])

    return measured(plan, "serialise", ours, bare)
