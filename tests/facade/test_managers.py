"""Connection managers: listening, connections and pools, authorization, trace."""

from __future__ import annotations

import socket
import threading

import pytest
from facade_support import BOUND, TcpPair, tcp_pair

import p2psip
from p2psip import (
    ConnectionAuthorizationRequestedEventArgs,
    ConnectionFailureException,
    IPAddress,
    IPEndPoint,
    ManagerSettings,
    MessageType,
    OperationFailureException,
    OperationFailureReason,
    RealTimeConnectionManager,
    RealTimeInvalidOperationException,
    RealTimeServerConnectionManager,
    RealTimeServerTcpConnectionManager,
    SipPeerToPeerEndpoint,
    SipTransportType,
    TraceEventArgs,
)


def _ipv6_works() -> bool:
    if not socket.has_ipv6:
        return False
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def connects(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), BOUND):
            return True
    except OSError:
        return False


@pytest.fixture
def pair() -> object:
    with tcp_pair() as pair:
        yield pair


def test_before_listening_nothing_is_bound() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with RealTimeServerTcpConnectionManager() as manager:
        SipPeerToPeerEndpoint("sip:a@example.com", manager)
        assert (manager.is_listening, manager.listening_port, manager.listening_addresses) == (False, 0, ())
        assert not connects("127.0.0.1", port)
        manager.start_listening(IPEndPoint(IPAddress.LOOPBACK, port))
        assert connects("127.0.0.1", port)
        manager.stop_listening()
        assert not connects("127.0.0.1", port)
        assert (manager.is_listening, manager.listening_port) == (False, 0)


@pytest.mark.holds("F38")
def test_any_answers_on_both_families_with_one_port() -> None:
    with RealTimeServerTcpConnectionManager() as manager:
        manager.start_listening(IPEndPoint(IPAddress.ANY, 0))
        port = manager.listening_port
        assert port
        assert {address.port for address in manager.listening_addresses} == {port}
        assert connects("127.0.0.1", port)
        assert connects("::1", port) is _ipv6_works()


def test_listening_twice_or_not_at_all() -> None:
    with RealTimeServerTcpConnectionManager() as manager:
        with pytest.raises(RealTimeInvalidOperationException, match="does not listen"):
            manager.stop_listening()
        manager.start_listening(("127.0.0.1", 0))
        with pytest.raises(RealTimeInvalidOperationException, match="listens already"):
            manager.start_listening(("127.0.0.1", 0))
        with manager.listening_aborted.expect(BOUND) as ended:
            manager.stop_listening()
        assert ended.args.exception is None
        manager.start_listening(("127.0.0.1", 0))


def test_a_port_that_is_taken_and_an_address_that_is_not_ours() -> None:
    with RealTimeServerTcpConnectionManager() as manager, socket.create_server(("127.0.0.1", 0)) as server:
        for address in [("127.0.0.1", server.getsockname()[1]), ("192.0.2.1", 0)]:
            with pytest.raises(ConnectionFailureException) as failure:
                manager.start_listening(address)
            assert isinstance(failure.value.__cause__, OSError)
            assert address[0] in str(failure.value)
            assert not manager.is_listening


@pytest.mark.parametrize(
    "address", ["localhost", ("localhost", 0), ("127.0.0.1", -1), ("127.0.0.1", "5060"), ("127.0.0.1", 70000)]
)
def test_what_cannot_be_listened_on(address: object) -> None:
    with RealTimeServerTcpConnectionManager() as manager, pytest.raises((ValueError, TypeError)):
        manager.start_listening(address)  # type: ignore[arg-type]


def test_connections_and_pools_can_be_watched(pair: TcpPair) -> None:
    pair.bob.message_received += lambda sender, args: None
    alice, bob = pair.alice.connection_manager, pair.bob.connection_manager
    with alice.connection_pool_added.expect(BOUND) as pool, bob.incoming_connection_added.expect(BOUND) as incoming:
        pair.alice.send_message(MessageType.MESSAGE, pair.bob.uri, body="x", timeout=BOUND)
    assert (pool.args.item.host_name, pool.args.item.port) == ("127.0.0.1", bob.listening_port)
    assert pool.args.item.transport is SipTransportType.TCP and pool.args.item.identity is None
    (outgoing,) = alice.connections()
    (arrived,) = bob.connections()
    assert arrived == incoming.args.item and arrived.is_incoming and not outgoing.is_incoming
    assert outgoing.connection_pool == pool.args.item and arrived.connection_pool is None
    assert outgoing.local_endpoint == arrived.remote_endpoint and outgoing.remote_endpoint == arrived.local_endpoint
    assert outgoing.transport is SipTransportType.TCP
    assert (outgoing.tls_version, outgoing.cipher, outgoing.remote_certificate, outgoing.remote_identities) == (
        None,
        None,
        None,
        (),
    )
    assert outgoing.messages_sent == outgoing.messages_received == 1
    assert arrived.bytes_received == outgoing.bytes_sent > 0
    arrived.application_context = "kept"
    assert bob.connections()[0].application_context == "kept"
    assert len(alice.connection_pools()) == 1 and alice.connection_pools()[0].connections == (outgoing,)
    with (
        bob.incoming_connection_removed.expect(BOUND) as removed,
        alice.connection_pool_removed.expect(BOUND) as gone,
    ):
        outgoing.disconnect()
    assert removed.args.item == arrived and gone.args.item == pool.args.item
    assert not outgoing.is_connected and alice.connections() == ()
    outgoing.disconnect()


def test_one_connection_carries_all_and_a_lost_one_is_replaced_by_the_next_request(pair: TcpPair) -> None:
    pair.bob.message_received += lambda sender, args: None
    manager = pair.alice.connection_manager
    for _ in range(5):
        pair.alice.send_message(MessageType.MESSAGE, pair.bob.uri, body="x", timeout=BOUND)
    (first,) = manager.connections()
    with manager.connection_pool_removed.expect(BOUND):
        pair.bob.connection_manager.connections()[0].disconnect()
    assert manager.connections() == ()
    pair.alice.send_message(MessageType.MESSAGE, pair.bob.uri, body="x", timeout=BOUND)
    (second,) = manager.connections()
    assert second != first


def test_disconnect_says_who_closed_the_connection(pair: TcpPair) -> None:
    with pair.bob.message_received.expect(BOUND) as got:
        operation = pair.alice.begin_send_message(MessageType.MESSAGE, pair.bob.uri, body="x")
        assert got.args.text_body == "x"
        pair.alice.connection_manager.connections()[0].disconnect()
        error = operation.exception(BOUND)
    assert isinstance(error, ConnectionFailureException)
    assert "disconnect()" in str(error)


def test_stop_listening_leaves_connections_alone(pair: TcpPair) -> None:
    pair.alice.message_received += lambda sender, args: None
    pair.bob.message_received += lambda sender, args: None
    pair.alice.send_message(MessageType.MESSAGE, pair.bob.uri, body="x", timeout=BOUND)
    pair.bob.connection_manager.stop_listening()
    assert len(pair.bob.connection_manager.connections()) == 1
    assert pair.bob.send_message(MessageType.MESSAGE, pair.alice.uri, body="x", timeout=BOUND).response_code == 200


@pytest.mark.parametrize("side", ["incoming", "outgoing"])
@pytest.mark.parametrize("way", ["allow", "deny", "nothing", "raise", "later"])
def test_connections_are_authorized(pair: TcpPair, side: str, way: str) -> None:
    manager = (pair.bob if side == "incoming" else pair.alice).connection_manager
    pair.bob.message_received += lambda sender, args: None
    seen: list[bool] = []
    helpers: list[threading.Thread] = []

    def decide(sender: RealTimeServerConnectionManager, args: ConnectionAuthorizationRequestedEventArgs) -> None:
        seen.append(args.connection.is_incoming)
        if way == "allow":
            args.allow()
        elif way == "deny":
            args.deny()
            args.allow()  # the first decision counts
        elif way == "raise":
            raise ValueError("cannot decide")
        elif way == "later":
            args.delay_authorization()
            helpers.append(threading.Thread(target=args.allow))
            helpers[0].start()

    manager.connection_authorization_requested += decide
    operation = pair.alice.begin_send_message(MessageType.MESSAGE, pair.bob.uri, body="x")
    error = operation.exception(BOUND)
    assert seen == [side == "incoming"]
    if way in ("allow", "later"):
        assert error is None
    elif side == "outgoing":
        assert isinstance(error, OperationFailureException)
        assert error.failure_reason is OperationFailureReason.CONNECTION_AUTHORIZATION_FAILED
    else:
        assert isinstance(error, ConnectionFailureException)
    for helper in helpers:
        helper.join(BOUND)


def test_an_authorization_that_never_comes_is_a_denial() -> None:
    with tcp_pair(settings=ManagerSettings(authorization_timeout=0.05)) as pair:
        pair.alice.connection_manager.connection_authorization_requested += lambda sender, args: (
            args.delay_authorization()
        )
        with pytest.raises(OperationFailureException) as failure:
            pair.alice.send_message(MessageType.MESSAGE, pair.bob.uri, body="x", timeout=BOUND)
        assert failure.value.failure_reason is OperationFailureReason.CONNECTION_AUTHORIZATION_FAILED


def test_the_trace_has_every_message_in_order(pair: TcpPair) -> None:
    pair.bob.message_received += lambda sender, args: None
    manager = pair.alice.connection_manager
    seen: list[TraceEventArgs] = []
    complete = threading.Event()

    def trace(sender: object, args: TraceEventArgs) -> None:
        seen.append(args)
        if len(seen) == 4:
            complete.set()

    manager.trace += trace
    for _ in range(2):
        pair.alice.send_message(
            MessageType.MESSAGE, pair.bob.uri, body="x", headers=[("Authorization", "Digest secret")], timeout=BOUND
        )
    assert complete.wait(BOUND)
    assert [args.direction for args in seen] == ["sent", "received"] * 2
    assert seen[0].start_line == f"MESSAGE {pair.bob.uri} SIP/2.0" and seen[1].start_line == "SIP/2.0 200 OK"
    assert seen[0].data.endswith(b"\r\n\r\nx") and b"secret" not in seen[0].data
    assert seen[0].connection == seen[1].connection and seen[0].time <= seen[1].time


def test_a_full_queue_stops_reading_then_answers_503() -> None:
    settings = ManagerSettings(strand_high_mark=4, strand_low_mark=2)
    with tcp_pair(settings=settings) as pair:
        release, begun = threading.Event(), threading.Event()
        seen: list[str | None] = []

        def handler(sender: object, args: object) -> None:
            begun.set()
            release.wait(BOUND)
            seen.append(args.text_body)  # type: ignore[attr-defined]

        pair.bob.message_received += handler
        operations = [pair.alice.begin_send_message(MessageType.MESSAGE, pair.bob.uri, body=str(n)) for n in range(50)]
        assert begun.wait(BOUND)
        (arrived,) = pair.bob.connection_manager.connections()
        release.set()
        codes = []
        for operation in operations:
            error = operation.exception(BOUND)
            codes.append(200 if error is None else error.response_data.response_code)  # type: ignore[attr-defined]
        assert set(codes) <= {200, 503}
        assert codes.count(200) == len(seen)
        assert arrived.is_connected
        assert seen == sorted(seen, key=lambda text: int(text or -1))


def test_a_trace_that_does_not_keep_up_slows_the_peer_down() -> None:
    with tcp_pair(ManagerSettings(strand_high_mark=8, strand_low_mark=4)) as pair:
        manager = pair.bob.connection_manager
        release = threading.Event()
        manager.trace += lambda sender, args: release.wait(BOUND)
        operations: list[p2psip.Operation[p2psip.SipResponseData]] = []

        def is_held() -> bool:
            return manager._stack.call("a look", lambda: bool(manager._stack.pressure._held)).result(BOUND)

        while not is_held():
            assert len(operations) < 20
            if not operations or operations[-1].done():
                operations.append(pair.alice.begin_send_message(MessageType.OPTIONS, pair.bob.uri, timeout=BOUND))
        release.set()
        assert [operation.result(BOUND).response_code for operation in operations] == [200] * len(operations)


@pytest.mark.holds("F23")
def test_a_pending_limit_is_a_typed_error() -> None:
    with tcp_pair(settings=ManagerSettings(maximum_unanswered_per_connection=3)) as pair:
        release = threading.Event()
        pair.bob.message_received += lambda sender, args: release.wait(BOUND)
        operations = [pair.alice.begin_send_message(MessageType.MESSAGE, pair.bob.uri, body="x") for _ in range(40)]
        release.set()
        errors = [error for operation in operations if (error := operation.exception(BOUND)) is not None]
        assert errors
        for error in errors:
            throttled = isinstance(error, OperationFailureException)
            assert throttled or error.response_data.response_code == 503  # type: ignore[attr-defined]


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="negative"):
        ManagerSettings(idle_timeout=-1)
    with pytest.raises(ValueError, match="would let nothing through"):
        ManagerSettings(maximum_requests_per_second=0)
    with pytest.raises(ValueError, match="strand_low_mark"):
        ManagerSettings(strand_low_mark=2000)
    assert ManagerSettings(trusted_addresses=["10.0.0.1"]).trusted_addresses == {"10.0.0.1"}  # type: ignore[arg-type]
    assert ManagerSettings(keep_alive_interval=None, t1=1).t1 == 1


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("t1", "0.5", TypeError),
        ("t1", None, TypeError),
        ("t1", True, TypeError),
        ("t1", float("nan"), ValueError),
        ("maximum_workers", 1.5, TypeError),
        ("maximum_workers", 0, ValueError),
        ("maximum_connections_per_pool", 0, ValueError),
        ("trusted_addresses", "10.0.0.1", TypeError),
        ("trusted_addresses", 7, TypeError),
        ("strict_key_files", 1, TypeError),
    ],
)
def test_each_setting_has_its_type(name: str, value: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        ManagerSettings(**{name: value})  # type: ignore[arg-type]


def test_the_base_classes_cannot_be_made() -> None:
    for kind in (RealTimeConnectionManager, RealTimeServerConnectionManager):
        with pytest.raises(TypeError):
            kind(None, None, None)  # type: ignore[abstract]


def test_the_trace_has_the_answer_to_what_could_not_be_read(pair: TcpPair) -> None:
    """RFC 3261 18.3: on a stream a message needs a Content-Length; without one it is answered 400, and that was all."""
    manager = pair.bob.connection_manager
    broken = (
        b"OPTIONS sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/TCP a.example;branch=z9hG4bK1\r\n"
        b"From: <sip:a@a.example>;tag=1\r\nTo: <sip:bob@example.com>\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\n\r\n"
    )
    with (
        manager.trace.expect(BOUND) as traced,
        socket.create_connection(("127.0.0.1", manager.listening_port), BOUND) as sock,
    ):
        sock.sendall(broken)
        assert sock.recv(65536).startswith(b"SIP/2.0 400 ")
    assert (traced.args.direction, traced.args.start_line[:12]) == ("sent", "SIP/2.0 400 ")
