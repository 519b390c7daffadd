"""The messages of RFC 4475 and RFC 5118 through a real endpoint on a socket: is it answered as it should be?"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

from p2psip import (
    IPAddress,
    MessageReceivedEventArgs,
    RealTimeServerTcpConnectionManager,
    SipPeerToPeerEndpoint,
)
from p2psip.message import Response, StreamFramer

FAMILIES = ("rfc4475", "rfc5118")
TIMEOUT = 10.0
"""Seconds for each step; nothing that works takes them."""

PROBE = (
    b"OPTIONS sip:probe@example.com SIP/2.0\r\nVia: SIP/2.0/TCP probe.example;branch=z9hG4bKprobe%d\r\n"
    b"From: <sip:probe@example.com>;tag=1\r\nTo: <sip:probe@example.com>\r\nCall-ID: probe%d\r\nCSeq: 1 OPTIONS\r\n"
    b"Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
)
"""What a live connection answers 200."""

NEVER_FOR_PROCESSED = (400, 404)

OTHERWISE: dict[str, tuple[int | None, str]] = {
    "wsinv.dat": (481, "its To bears the tag of a dialog that is not here (RFC 3261 12.2.2)"),
    "invut.dat": (480, "no handler takes INVITEs yet, so nobody looks at what its body is"),
    "sdp01.dat": (480, "no handler takes INVITEs yet, so nobody looks at what it accepts"),
    "baddate.dat": (480, "RFC 4475 3.1.2.12: a Date that nobody needs does not matter"),
    "regbadct.dat": (405, "the method is judged before the Contact is looked at (RFC 3261 8.2.1)"),
    "test.dat": (None, "it has no Via, so there is no response to it (RFC 3261 8.2.6.2)"),
}
"""Message -> the answer in place of the corpus', None for no answer, and why that is right."""


class Bench:
    """An endpoint that takes everything, and answers 200."""

    def __init__(self, manager: RealTimeServerTcpConnectionManager) -> None:
        self.reached: list[str] = []
        self.port = manager.listening_port
        endpoint = SipPeerToPeerEndpoint("sip:everybody@example.com", manager)
        endpoint.message_received += self._received
        manager.default_endpoint = endpoint
        self._probes = 0

    def _received(self, sender: object, args: MessageReceivedEventArgs) -> None:
        self.reached.append(args.request_data.call_id)
        args.send_response(200)

    def send(self, data: bytes) -> tuple[list[Response], bool]:
        """What comes back, and whether the connection is alive after it (a probe on it was answered)."""
        self._probes += 1
        probe = b"probe%d" % self._probes
        answers: list[Response] = []
        framer = StreamFramer()
        with socket.create_connection(("127.0.0.1", self.port), TIMEOUT) as sock:
            sock.sendall(data + PROBE % (self._probes, self._probes))
            while True:
                with contextlib.suppress(ConnectionResetError):
                    chunk = sock.recv(65536)
                    if chunk:
                        for item in framer.feed(chunk):
                            assert isinstance(item, Response), item
                            if item.headers.get("Call-ID") == probe.decode():
                                return answers, True
                            answers.append(item)
                        continue
                return answers, False


@contextlib.contextmanager
def bench() -> Iterator[Bench]:
    with RealTimeServerTcpConnectionManager() as manager:
        manager.start_listening((IPAddress.LOOPBACK, 0))
        yield Bench(manager)


def check_endpoint(entries: list[dict[str, Any]], octets: Any) -> Iterator[tuple[str, str, list[str]]]:
    """Family, file and problems of each message of the two families."""
    with bench() as there:
        for entry in entries:
            if entry["family"] in FAMILIES:
                problems = list(_check(there, entry, octets(entry["file"])))
                yield f"{entry['family']} on a socket", entry["file"], problems


def _check(there: Bench, entry: dict[str, Any], data: bytes) -> Iterator[str]:
    if entry.get("stream") == "incomplete" or (not entry.get("stream") and not _messages(entry)):
        yield from _check_incomplete(there, data)
        return
    answers, alive = there.send(data)
    if entry.get("stream") == "close":
        if alive:
            yield "the connection lives on, though framing is lost"
        if any(answer.status_code != 400 for answer in answers):
            yield f"answered {[answer.status_code for answer in answers]} before the end"
        return
    if not alive and not entry.get("stream_octets_left"):
        yield "the connection was closed"
    # Of several requests the first counts; an endpoint that asks its handlers may answer it after the next one.
    method = str(entry["facts"].get("method"))
    answers.sort(key=lambda answer: not (answer.headers.get("CSeq") or "").endswith(method))
    codes = [answer.status_code for answer in answers]
    expected = entry["expected"]
    if expected["uas"] in ("n/a (response)", "discard"):
        if codes:
            yield f"answered {codes}, though nothing is to be answered"
        return
    if not codes and entry.get("alternatively") == "discard":
        return
    declared = OTHERWISE.get(_name(entry))
    if declared is not None:
        if codes != [code for code in declared[:1] if code is not None]:
            yield f"answered {codes} in place of {declared[0]}"
        return
    wanted = expected["status"]
    if len(codes) != _messages(entry):
        yield f"{len(codes)} answers ({codes}) in place of {_messages(entry)}"
        return
    if expected["uas"] == "process" or entry.get("alternatively") == "process":
        if wanted and codes[0] in wanted:
            return
        call_id = answers[0].call_id
        if codes[0] in NEVER_FOR_PROCESSED or codes[0] >= 500:
            yield f"answered {codes[0]}"
        elif entry["facts"]["method"] == "INVITE":
            if codes[0] != 480:
                yield f"answered {codes[0]} in place of 480"
        elif call_id not in there.reached:
            yield f"answered {codes[0]}, and no handler was reached"
    elif any(code not in wanted for code in codes[:1]):
        yield f"answered {codes[0]} in place of {wanted}"


def _check_incomplete(there: Bench, data: bytes) -> Iterator[str]:
    """More is waited for; when it does not come, nothing was received and nothing is said."""
    with socket.create_connection(("127.0.0.1", there.port), TIMEOUT) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        if sock.recv(1):
            yield "answered, though the message is not complete"


def _messages(entry: dict[str, Any]) -> int:
    """How many messages there are in the octets when they come in a stream."""
    return int(entry["messages_in_buffer"]["stream"])


def _name(entry: dict[str, Any]) -> str:
    return str(entry["file"]).rpartition("/")[2]
