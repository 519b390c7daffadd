"""SIPp as the client, our endpoint as the server."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path

import pytest
import trustme
from interop_link import KINDS, METHODS, THEIRS, Counter, Heard, link, make_identity
from interop_support import PATIENCE
from scale import scaled

from p2psip import (
    ErrorEventArgs,
    ManagerSettings,
    MessageReceivedEventArgs,
    RealTimeEndpoint,
    TlsFailureException,
    TlsFailureReason,
    TraceEventArgs,
)

pytestmark = pytest.mark.interop


@pytest.mark.long
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", KINDS)
def test_requests_come_in_order_and_are_answered(tmp_path: Path, kind: str, method: str) -> None:
    count = scaled(10_000)
    with link(tmp_path, kind) as wire:
        heard = Heard()
        wire.endpoint.message_received += heard
        wire.client(method, calls=count).check()
        assert heard.numbers == list(range(1, count + 1))
        assert heard.methods == {method}
        assert heard.authenticated == {wire.is_secure}
        (connection,) = heard.connections.values()
        wire.check_connection(connection)


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_a_connection_for_each_request(tmp_path: Path, kind: str) -> None:
    count = scaled(2000)
    patience = PATIENCE + count / 20
    with link(tmp_path, kind) as wire:
        heard, opened, closed = Heard(), Counter(), Counter()
        wire.endpoint.message_received += heard
        wire.manager.incoming_connection_added += opened
        wire.manager.incoming_connection_removed += closed
        wire.client("MESSAGE", calls=count, in_flight=20, connection_per_call=True, patience=patience).check()
        assert sorted(heard.numbers) == list(range(1, count + 1))
        assert len(heard.connections) == count
        opened.wait(count)
        closed.wait(count)
        assert wire.manager.connections() == ()


@pytest.mark.parametrize("kind", ("TCP", "TLSv1.3"))
def test_unusual_ways_to_write_a_request(tmp_path: Path, kind: str) -> None:
    """Compact names, folded, padded and empty values, Vias in one line and in two."""
    with link(tmp_path, kind) as wire:
        heard: list[MessageReceivedEventArgs] = []
        wire.endpoint.message_received += lambda sender, args: heard.append(args)
        client = wire.client("MESSAGE", "client_odd", calls=20, in_flight=1)
        client.check()
        assert [args.text_body for args in heard] == [f"number {n}\r\n" for n in range(1, 21)]
        args = heard[0]
        data = args.request_data
        assert args.participant.uri == f"sip:sipp@{THEIRS};lr"
        assert args.participant.name == 'Quoted, "name" <not@address>'
        assert (data.cseq, data.header("Max-Forwards"), data.header("Supported")) == (7, "0070", "")
        assert data.headers("Supported")[-2:] == ["one", "two"]
        answer = client.messages.rpartition("SIP/2.0 200")[2]
        places = [answer.index(branch) for branch in ("z9hG4bK-", "z9hG4bKmiddle20", "z9hG4bKfirst20")]
        assert places == sorted(places)


@pytest.mark.parametrize("kind", ("TCP", "TLSv1.3"))
def test_stray_answers_and_acks_are_dropped(tmp_path: Path, kind: str) -> None:
    with link(tmp_path, kind) as wire:
        heard = Heard()
        wire.endpoint.message_received += heard
        wire.client("MESSAGE", "client_strays", calls=50, in_flight=10).check()
        assert heard.numbers == list(range(1, 51))
        assert len(heard.connections) == 1


@pytest.mark.parametrize("kind", ("TCP", "TLSv1.3"))
def test_a_body_of_many_segments(tmp_path: Path, kind: str) -> None:
    """As large as SIPp can."""
    with link(tmp_path, kind) as wire:
        sizes: list[int] = []
        wire.endpoint.message_received += lambda sender, args: sizes.append(len(args.body))
        padding = "\r\n" + "\r\n".join(["x" * 998] * 50)
        wire.client("MESSAGE", calls=20, BODY=padding.replace("\r", "")).check()
        assert len(sizes) == 20
        assert set(sizes) == {len(f"number 1{padding}\r\n"), len(f"number 10{padding}\r\n")}


@pytest.mark.parametrize("code", (202, 302, 403, 415, 486, 503, 603))
def test_answers_of_a_handler(tmp_path: Path, code: int) -> None:
    with link(tmp_path, "TCP") as wire:
        wire.endpoint.message_received += lambda sender, args: args.send_response(code, "Because", body="of this")
        client = wire.client("MESSAGE", code=code, calls=5)
        client.check()
        assert client.messages.count(f"SIP/2.0 {code} Because\n") == 5
        assert client.messages.count("of this") == 5


@pytest.mark.parametrize(
    ("method", "code", "header"),
    [
        ("OPTIONS", 200, "Allow: OPTIONS\n"),
        ("MESSAGE", 405, "Allow: OPTIONS\n"),
        ("PUBLISH", 405, "Allow: OPTIONS\n"),
        ("UNHEARDOF", 501, "Allow: OPTIONS\n"),
        ("CANCEL", 481, ""),
    ],
)
def test_answers_without_a_handler(tmp_path: Path, method: str, code: int, header: str) -> None:
    with link(tmp_path, "TCP") as wire:
        client = wire.client(method, code=code)
        client.check()
        assert header in client.messages


def test_a_call_is_rejected_while_nobody_takes_calls(tmp_path: Path) -> None:
    with link(tmp_path, "TCP") as wire:
        client = wire.client("INVITE", "client_invite", code=480, calls=20)
        client.check()
        assert client.messages.count("SIP/2.0 480 ") == 20


@pytest.mark.parametrize("kind", ("TCP", "TLSv1.3"))
def test_a_handler_that_takes_its_time(tmp_path: Path, kind: str) -> None:
    """RFC 4320: 100 after a while, which SIPp wants to see here before the answer."""
    with link(tmp_path, kind, dataclasses.replace(ManagerSettings(), provisional_delay=0.05)) as wire:
        trying = threading.Event()

        def traced(sender: object, args: TraceEventArgs) -> None:
            if args.data.startswith(b"SIP/2.0 100 "):
                trying.set()

        def answer_after_100(sender: RealTimeEndpoint, args: MessageReceivedEventArgs) -> None:
            assert trying.wait(PATIENCE)
            args.send_response(200)

        wire.manager.trace += traced
        wire.endpoint.message_received += answer_after_100
        wire.client("MESSAGE", NO_PROVISIONAL="false").check()


@pytest.mark.parametrize("kind", ("TLSv1.2", "TLSv1.3"))
@pytest.mark.parametrize("flaw", ("no certificate", "foreign certificate"))
def test_a_client_that_is_not_trusted_reaches_no_handler(tmp_path: Path, kind: str, flaw: str) -> None:
    with link(tmp_path, kind) as wire:
        heard = Heard()
        wire.endpoint.message_received += heard
        if flaw == "no certificate":
            identity = wire.theirs._replace(certificate=None, key=None)
            reason = TlsFailureReason.TLS_NEGOTIATION_FAILURE
        else:
            foreign = tmp_path / "foreign"
            foreign.mkdir()
            identity = make_identity(foreign, THEIRS, trustme.CA(), trustme.CA())._replace(trusted=wire.theirs.trusted)
            reason = TlsFailureReason.UNTRUSTED_REMOTE_CERTIFICATE
        with wire.manager.incoming_tls_negotiation_failed.expect(timeout=PATIENCE) as got:
            client = wire.client("MESSAGE", identity=identity)
        args: ErrorEventArgs = got.args
        assert isinstance(args.exception, TlsFailureException)
        assert args.exception.failure_reason is reason
        assert client.wait() != 0
        assert client.statistics.successful == 0
        assert heard.numbers == []
        assert wire.manager.connections() == ()
