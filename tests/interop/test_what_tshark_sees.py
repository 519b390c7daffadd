"""The referee: what all tests of this folder have sent, as tshark's SIP dissector reads it. To be run last."""

from __future__ import annotations

from pathlib import Path

import pytest
from interop_referee import CAPTURES, Capture

pytestmark = pytest.mark.interop

GOOD = (
    b"OPTIONS sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1;branch=z9hG4bK1\r\n"
    b"From: <sip:alice@example.com>;tag=1\r\nTo: <sip:bob@example.com>\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\n"
    b"Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
)


def test_the_referee_knows_wrong_from_right(tmp_path: Path) -> None:
    capture = Capture(tmp_path / "messages.pcap")
    bad = [
        GOOD.replace(b"CSeq: 1 OPTIONS", b"CSeq: 1 MESSAGE"),
        GOOD.replace(b"Call-ID: 1\r\n", b""),
        GOOD.replace(b"Max-Forwards: 70\r\n", b""),
        GOOD.replace(b"OPTIONS", b"REFER"),
        b"nothing of the kind\r\n\r\n",
    ]
    for data in (GOOD, *bad, GOOD):
        capture.add(data)
    assert [line.split("\t")[0] for line in capture.complaints()] == ["2", "3", "4", "5", "6"]


def test_nothing_that_we_sent_is_malformed() -> None:
    capture = CAPTURES.sent
    capture.add(b"the end, which is nothing of the kind\r\n\r\n")  # tshark has read all if it complains of this
    assert [line.split("\t") for line in capture.complaints()] == [[str(capture.count), "", "", "", ""]]
