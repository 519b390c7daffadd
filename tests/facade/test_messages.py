"""Messages outside of sessions: what handlers see, what is answered, what senders are told."""

from __future__ import annotations

import asyncio
import concurrent.futures
import socket

import pytest
from facade_support import BOUND, TcpPair, tcp_pair

import p2psip
from p2psip import (
    FailureResponseException,
    ManagerSettings,
    MessageReceivedEventArgs,
    MessageType,
    RealTimeInvalidOperationException,
    SendMessageOptions,
    SignalingHeader,
)


@pytest.fixture
def pair() -> object:
    with tcp_pair() as pair:
        yield pair


def test_what_a_handler_sees(pair: TcpPair) -> None:
    pair.alice.display_name = 'Alice "the" Engineer'
    pair.alice.application_user_agent = "watch/1"
    with pair.bob.message_received.expect(BOUND) as got:
        operation = pair.alice.begin_send_message(
            MessageType.MESSAGE,
            pair.bob.uri,
            body="grüße",
            headers=[("Subject", "greetings"), SignalingHeader("X-One", "1")],
        )
    answer = operation.result(BOUND)
    args = got.args
    assert args.message_type is MessageType.MESSAGE
    assert (args.text_body, args.has_text_body, args.body) == ("grüße", True, "grüße".encode())
    assert args.content_type == "text/plain;charset=utf-8"
    assert (args.participant.uri, args.participant.name) == ("sip:alice@example.com", 'Alice "the" Engineer')
    assert args.participant.endpoint_id == pair.alice.id
    request = args.request_data
    assert (request.message_type, request.request_uri, request.cseq) == ("MESSAGE", pair.bob.uri, 1)
    assert (request.header("subject"), request.header("x-one")) == ("greetings", "1")
    assert request.user_agent.startswith("p2psip/") and request.user_agent.endswith("watch/1")
    assert request.header("Contact") is None
    assert args.connection.is_incoming and args.connection.is_connected
    assert not args.is_sender_authenticated
    assert (answer.response_code, answer.response_text, answer.call_id) == (200, "OK", request.call_id)
    assert answer.to.tag and answer.from_.tag == request.from_.tag


def test_charset_and_bytes(pair: TcpPair) -> None:
    for content_type, body, text in [
        ("text/plain;charset=iso-8859-1", "grüße", "grüße"),
        ("application/octet-stream", b"\x00\xff\r\n\r\n", None),
        ("text/plain", b"\xff\xfe", None),
    ]:
        with pair.bob.message_received.expect(BOUND) as got:
            operation = pair.alice.begin_send_message(MessageType.INFO, pair.bob.uri, content_type, body)
        assert operation.result(BOUND).response_code == 200
        assert (got.args.content_type, got.args.text_body, got.args.has_text_body) == (
            content_type,
            text,
            text is not None,
        )
        assert got.args.body == (body if isinstance(body, bytes) else body.encode("latin-1"))


def test_a_handler_answers_as_it_likes(pair: TcpPair) -> None:
    def handler(sender: object, args: MessageReceivedEventArgs) -> None:
        args.send_response(202, "Taken", "text/plain", "later", [("X-Answer", "yes")])
        with pytest.raises(RealTimeInvalidOperationException, match="202"):
            args.send_response(200)

    pair.bob.message_received += handler
    answer = pair.alice.send_message(MessageType.MESSAGE, pair.bob.uri, body="x", timeout=BOUND)
    assert (answer.response_code, answer.response_text, answer.text_body) == (202, "Taken", "later")
    assert answer.header("X-Answer") == "yes"


def test_an_answer_from_another_thread(pair: TcpPair) -> None:
    kept: concurrent.futures.Future[MessageReceivedEventArgs] = concurrent.futures.Future()

    def handler(sender: object, args: MessageReceivedEventArgs) -> None:
        args.disable_automatic_response = True
        kept.set_result(args)

    pair.bob.message_received += handler
    operation = pair.alice.begin_send_message(MessageType.MESSAGE, pair.bob.uri, body="x")
    args = kept.result(BOUND)
    assert not operation.done()
    args.send_response(486)
    error = operation.exception(BOUND)
    assert isinstance(error, FailureResponseException)
    assert error.response_data.response_code == 486


def test_an_open_expectation_holds_the_automatic_answer_back(pair: TcpPair) -> None:
    with pair.bob.message_received.expect(BOUND) as got:
        operation = pair.alice.begin_send_message(MessageType.MESSAGE, pair.bob.uri, body="x")
        got.args.send_response(603)
    error = operation.exception(BOUND)
    assert isinstance(error, FailureResponseException)
    assert error.response_data.response_code == 603


@pytest.mark.parametrize(
    ("method", "code"),
    [("MESSAGE", 405), ("INFO", 405), ("NOTIFY", 405), ("OPTIONS", 200), ("FOO", 501)],
)
def test_without_a_handler(pair: TcpPair, method: str, code: int) -> None:
    operation = pair.alice.begin_send_message(method, pair.bob.uri)
    if code == 200:
        answer = operation.result(BOUND)
    else:
        error = operation.exception(BOUND)
        assert isinstance(error, FailureResponseException)
        answer = error.response_data
    assert answer.response_code == code
    assert answer.headers("Allow") == ["OPTIONS"]


def test_options_tells_what_there_is(pair: TcpPair) -> None:
    pair.bob.message_received += lambda sender, args: None
    pair.bob.add_sip_extension("gruu")
    answer = pair.alice.send_message(MessageType.OPTIONS, pair.bob.uri, timeout=BOUND)
    assert "MESSAGE" in answer.headers("Allow") and "OPTIONS" in answer.headers("Allow")
    assert answer.headers("Accept") == ["*/*"]
    assert {"gruu", "100rel", "replaces", "timer"} <= set(answer.headers("Supported"))


def test_an_allowed_method_arrives(pair: TcpPair) -> None:
    pair.bob.message_received += lambda sender, args: seen.append((args.message_type, args.request_data.message_type))
    seen: list[tuple[MessageType | None, str]] = []
    with pytest.raises(FailureResponseException) as failure:
        pair.alice.send_message("PING", pair.bob.uri, timeout=BOUND)
    assert failure.value.response_data.response_code == 501
    pair.bob.allow_method("PING")
    assert pair.alice.send_message("PING", pair.bob.uri, timeout=BOUND).response_code == 200
    assert seen == [(None, "PING")]


def test_methods_that_are_taken_anyway_stand_in_allow_once(pair: TcpPair) -> None:
    pair.bob.message_received += lambda sender, args: None
    pair.bob.allow_method("MESSAGE")
    pair.bob.allow_method("PING")
    allow = pair.alice.send_message(MessageType.OPTIONS, pair.bob.uri, timeout=BOUND).header("Allow")
    assert (allow or "").split(", ") == ["MESSAGE", "INFO", "OPTIONS", "BENOTIFY", "SERVICE", "NOTIFY", "PING"]


def test_a_request_that_cannot_be_finished_fails_at_once(pair: TcpPair) -> None:
    class Careless(p2psip.SipPeerToPeerEndpoint):
        def _contact(self, connection: object, request_uri: str) -> str:
            raise ValueError("no contact")

    with Careless("sip:carol@example.com", pair.alice.connection_manager) as endpoint:
        for _ in range(2):  # while connecting, and over the connection that is there
            operation = endpoint.begin_send_message(MessageType.OPTIONS, pair.bob.uri)
            assert isinstance(operation.exception(BOUND), ValueError)
        assert not endpoint._pending


def test_contact_where_the_rfc_has_one(pair: TcpPair) -> None:
    pair.alice.add_feature_parameter("automata")
    for method, wanted in [("OPTIONS", True), ("NOTIFY", True), ("MESSAGE", False), ("INFO", False)]:
        with pair.bob.message_received.expect(BOUND) as got:
            operation = pair.alice.begin_send_message(method, pair.bob.uri)
        operation.result(BOUND)
        contact = got.args.request_data.header("Contact")
        assert (contact is not None) is wanted
        if contact is not None:
            port = pair.alice.connection_manager.listening_port
            assert contact.startswith(f"<sip:alice@127.0.0.1:{port};transport=tcp") and contact.endswith(";automata")


@pytest.mark.holds("F35")
@pytest.mark.parametrize(
    ("argument", "error"),
    [
        ({"headers": [("Via", "x")]}, ValueError),
        ({"headers": [("f", "x")]}, ValueError),
        ({"headers": [("X-A", "a\r\nX-B: b")]}, ValueError),
        ({"headers": [("X A", "a")]}, ValueError),
        ({"headers": ["X-A: a"]}, TypeError),
        ({"content_type": "text/plain\r\nX: y", "body": "x"}, ValueError),
        ({"content_type": "text", "body": "x"}, ValueError),
        ({"body": 7}, TypeError),
        ({"content_type": "text/plain;charset=none-such", "body": "x"}, ValueError),
        ({"timeout": -1}, ValueError),
        ({"timeout": "1"}, TypeError),
    ],
)
def test_wrong_arguments_raise_before_anything_is_sent(
    pair: TcpPair, argument: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        pair.alice.begin_send_message(MessageType.MESSAGE, pair.bob.uri, **argument)
    assert pair.alice.connection_manager.connections() == ()


@pytest.mark.parametrize("method", ["INVITE", "ACK", "BYE", "CANCEL", "SUBSCRIBE", "no method", ""])
def test_methods_that_cannot_be_sent_alone(pair: TcpPair, method: str) -> None:
    with pytest.raises(ValueError, match=r"method|session"):
        pair.alice.begin_send_message(method, pair.bob.uri)


@pytest.mark.parametrize(
    "address", ["bob", "sip:", "http://example.com", "sip:bob@example.com;transport=udp", "tel:+1"]
)
def test_addresses_that_lead_nowhere(pair: TcpPair, address: str) -> None:
    with pytest.raises(ValueError):
        pair.alice.begin_send_message(MessageType.MESSAGE, address)


def test_failure_responses_carry_what_the_peer_said(pair: TcpPair) -> None:
    def handler(sender: object, args: MessageReceivedEventArgs) -> None:
        args.send_response(403, "No", headers=[("Warning", '399 bob "go away"'), ("Reason", "SIP;cause=403")])

    pair.bob.message_received += handler
    with pytest.raises(p2psip.ServerPolicyException) as failure:
        pair.alice.send_message(MessageType.MESSAGE, pair.bob.uri, timeout=BOUND)
    error = failure.value
    assert error.warnings == ('399 bob "go away"',)
    assert error.diagnostics == ("SIP;cause=403",)
    assert "403 No" in str(error) and pair.bob.uri in str(error)


def raw_request(address: p2psip.SipPeerToPeerEndpoint, headers: bytes) -> bytes:
    return (
        b"MESSAGE %s SIP/2.0\r\nVia: SIP/2.0/TCP 10.0.0.1;branch=z9hG4bKraw\r\nTo: <sip:bob@example.com>\r\n"
        b"Call-ID: raw\r\nCSeq: 1 MESSAGE\r\nMax-Forwards: 70\r\n%sContent-Length: 0\r\n\r\n"
        % (address.uri.encode(), headers)
    )


def test_a_contact_that_cannot_be_read_is_left_out(pair: TcpPair) -> None:
    manager = pair.bob.connection_manager
    with (
        socket.create_connection(("127.0.0.1", manager.listening_port), BOUND) as peer,
        pair.bob.message_received.expect(BOUND) as got,
    ):
        peer.sendall(raw_request(pair.bob, b"From: <sip:x@example.com>;tag=1\r\nContact: bad<\r\n"))
        assert got.args.participant == p2psip.Participant("sip:x@example.com")


def test_octets_that_are_no_text_keep_no_sentence_from_being_printed(pair: TcpPair) -> None:
    manager = pair.bob.connection_manager
    with socket.create_connection(("127.0.0.1", manager.listening_port), BOUND) as peer:
        with pair.bob.message_received.expect(BOUND) as got:
            peer.sendall(raw_request(pair.bob, b'From: "\xff" <sip:x@example.com>;tag=1\r\n'))
            got.args.send_response(200)
        with pytest.raises(RealTimeInvalidOperationException) as twice:
            got.args.send_response(200)
    assert "\\xff" in str(twice.value)
    assert str(twice.value).encode()

    with pair.bob.message_received.expect(BOUND) as got:
        operation = pair.alice.begin_send_message(MessageType.MESSAGE, pair.bob.uri, body="x")
        got.args.send_response(486, "\udcff")  # an octet that is no UTF-8
    error = operation.exception(BOUND)
    assert isinstance(error, FailureResponseException)
    assert error.response_data.response_text == "\udcff"
    assert "\\xff" in str(error)
    assert str(error).encode()


@pytest.mark.parametrize("name", ["Warning", "Reason", "Error-Info", "WWW-Authenticate"])
@pytest.mark.parametrize("value", ["", ",", '"', "<", "a,,b"])
def test_a_failure_that_cannot_be_read_is_a_failure_all_the_same(pair: TcpPair, name: str, value: str) -> None:
    pair.bob.message_received += lambda sender, args: args.send_response(401, headers=[(name, value)])
    operation = pair.alice.begin_send_message(MessageType.MESSAGE, pair.bob.uri)
    error = operation.exception(BOUND)
    assert isinstance(error, p2psip.AuthenticationException)
    assert error.response_data.header(name) == value


def test_a_challenge_is_an_authentication_exception(pair: TcpPair) -> None:
    challenges = [
        ("WWW-Authenticate", 'Digest realm="contoso \\"east\\"", nonce="1", algorithm=SHA-256'),
        ("WWW-Authenticate", ""),
        ("WWW-Authenticate", 'Digest nonce="1", REALM = "other"'),
    ]
    pair.bob.message_received += lambda sender, args: args.send_response(401, headers=challenges)
    with pytest.raises(p2psip.AuthenticationException) as failure:
        pair.alice.send_message(MessageType.MESSAGE, pair.bob.uri, timeout=BOUND)
    assert failure.value.realm == 'contoso "east"'
    assert failure.value.supported_authentication_protocols == ("Digest SHA-256", "Digest")
    assert failure.value.failure_reason is p2psip.AuthenticationFailureReason.MISSING_CREDENTIALS


def test_no_answer_in_time() -> None:
    with tcp_pair(settings=ManagerSettings(t1=0.002, request_ceiling=5.0)) as pair, silent_port() as port:
        with pytest.raises(p2psip.OperationTimeoutException) as by_protocol:
            pair.alice.send_message(MessageType.MESSAGE, f"sip:bob@127.0.0.1:{port}", body="x")
        assert isinstance(by_protocol.value, TimeoutError)
        assert f"127.0.0.1:{port}" in str(by_protocol.value)
        with pytest.raises(p2psip.OperationTimeoutException):
            pair.alice.send_message(MessageType.MESSAGE, f"sip:bob@127.0.0.1:{port}", body="x", timeout=0.01)


def test_a_closed_port_is_a_connection_failure(pair: TcpPair) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(p2psip.ConnectionFailureException) as failure:
        pair.alice.send_message(MessageType.MESSAGE, f"sip:bob@127.0.0.1:{port}", body="x", timeout=BOUND)
    assert isinstance(failure.value, ConnectionError)
    assert isinstance(failure.value.__cause__, OSError)
    assert f"127.0.0.1:{port}" in str(failure.value)


def test_cancelled_operations_are_forgotten(pair: TcpPair) -> None:
    kept: concurrent.futures.Future[MessageReceivedEventArgs] = concurrent.futures.Future()

    def handler(sender: object, args: MessageReceivedEventArgs) -> None:
        args.disable_automatic_response = True
        kept.set_result(args)

    pair.bob.message_received += handler
    operation = pair.alice.begin_send_message(MessageType.MESSAGE, pair.bob.uri, body="x")
    args = kept.result(BOUND)
    assert operation.cancel()
    with pytest.raises(concurrent.futures.CancelledError):
        operation.result(BOUND)
    args.send_response(200)
    pair.bob.message_received -= handler
    pair.bob.message_received += lambda sender, args: None
    assert pair.alice.send_message(MessageType.MESSAGE, pair.bob.uri, body="y", timeout=BOUND).response_code == 200
    assert not operation.cancel() or operation.cancelled()


def test_options_of_one_message(pair: TcpPair) -> None:
    where = pair.bob.connection_manager.listening_addresses[0]
    options = SendMessageOptions(
        connection_context=where,
        headers=[("X-Option", "1")],
        local_identity=("sip:carol@example.com", "Carol"),
    )
    with pair.bob.message_received.expect(BOUND) as got:
        operation = pair.alice.begin_send_message(MessageType.MESSAGE, "sip:bob@example.com", body="x", options=options)
    assert operation.result(BOUND).response_code == 200
    assert (got.args.participant.uri, got.args.participant.name) == ("sip:carol@example.com", "Carol")
    assert got.args.request_data.header("X-Option") == "1"
    assert got.args.request_data.request_uri == "sip:bob@example.com"


def test_operations_are_futures(pair: TcpPair) -> None:
    pair.bob.message_received += lambda sender, args: None
    operations = [pair.alice.begin_send_message(MessageType.MESSAGE, pair.bob.uri, body=str(n)) for n in range(20)]
    done, waiting = concurrent.futures.wait(operations, BOUND)
    assert len(done) == 20 and not waiting

    async def one() -> int:
        return (
            await asyncio.wrap_future(pair.alice.begin_send_message(MessageType.MESSAGE, pair.bob.uri))
        ).response_code

    assert asyncio.run(one()) == 200


class silent_port:  # noqa: N801 - reads as a statement
    """A listener that takes connections and says nothing."""

    def __enter__(self) -> int:
        self._server = socket.create_server(("127.0.0.1", 0))
        return int(self._server.getsockname()[1])

    def __exit__(self, *exc_info: object) -> None:
        self._server.close()


def test_what_cannot_be_answered_leaves_the_request_to_be_answered(pair: TcpPair) -> None:
    """RFC 4320 4.2 forbids 408 here; a wrong argument is no answer either."""

    def handler(sender: object, args: MessageReceivedEventArgs) -> None:
        for wrong in (408, 100, 700):
            with pytest.raises(ValueError):
                args.send_response(wrong)
        with pytest.raises(ValueError):
            args.send_response(200, "two\r\nlines")
        args.send_response(480)

    pair.bob.message_received += handler
    with pytest.raises(FailureResponseException) as failure:
        pair.alice.send_message(MessageType.MESSAGE, pair.bob.uri, body="x", timeout=BOUND)
    assert failure.value.response_data.response_code == 480
