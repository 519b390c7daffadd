"""Endpoints: constructors, names, states, dispatch to several on one manager."""

from __future__ import annotations

import dataclasses

import pytest
from facade_support import BOUND, TcpPair, tcp_pair

import p2psip
from p2psip import (
    EndpointState,
    EndpointTransitionReason,
    FailureResponseException,
    IPAddress,
    IPEndPoint,
    MessageReceivedEventArgs,
    MessageType,
    RealTimeAddress,
    RealTimeEndpoint,
    RealTimeServerTcpConnectionManager,
    SendMessageOptions,
    SipPeerToPeerEndpoint,
    SipPeerToPeerEndpointSettings,
    SipTransportType,
)


@pytest.fixture
def manager() -> object:
    with RealTimeServerTcpConnectionManager() as manager:
        yield manager


def test_the_base_class_cannot_be_made(manager: RealTimeServerTcpConnectionManager) -> None:
    with pytest.raises(TypeError):
        RealTimeEndpoint("sip:a@example.com", manager, SipPeerToPeerEndpointSettings())  # type: ignore[abstract]


def test_every_constructor_form_of_the_specification(manager: RealTimeServerTcpConnectionManager) -> None:
    extra = [("X-Extra", "1")]
    gruu = "sip:a@example.com;gr=1"
    forms = [
        SipPeerToPeerEndpoint("sip:a@example.com", manager),
        SipPeerToPeerEndpoint("sip:a@example.com", manager, settings=SipPeerToPeerEndpointSettings(endpoint_id="e1")),
        SipPeerToPeerEndpoint("sip:a@example.com", manager, SipTransportType.TCP),
        SipPeerToPeerEndpoint("sip:a@example.com", manager, SipTransportType.TCP, headers=extra),
        SipPeerToPeerEndpoint("sip:a@example.com", manager, SipTransportType.TCP, gruu=gruu),
        SipPeerToPeerEndpoint("sip:a@example.com", manager, SipTransportType.TCP, "proxy.example.com", 5060),
        SipPeerToPeerEndpoint(
            "sip:a@example.com", manager, SipTransportType.TCP, "proxy.example.com", 5060, headers=extra
        ),
        SipPeerToPeerEndpoint("sip:a@example.com", manager, SipTransportType.TCP, "proxy.example.com", 5060, gruu=gruu),
    ]
    assert manager.endpoints == tuple(forms)
    assert len({form.id for form in forms}) == len(forms)
    assert forms[1].id == "e1"
    assert forms[4].gruu == forms[4].endpoint_uri == gruu
    assert all(form.default_transport is SipTransportType.TCP for form in forms)


def test_without_a_manager_the_shared_tcp_manager_is_used() -> None:
    endpoint = SipPeerToPeerEndpoint("sip:a@example.com")
    other = SipPeerToPeerEndpoint("sip:b@example.com")
    shared = RealTimeEndpoint.default_peer_to_peer_endpoint_connection_manager
    assert shared is endpoint.connection_manager is other.connection_manager
    assert isinstance(shared, RealTimeServerTcpConnectionManager)
    shared.dispose()
    assert RealTimeEndpoint.default_peer_to_peer_endpoint_connection_manager is None
    third = SipPeerToPeerEndpoint("sip:c@example.com")
    assert third.connection_manager is not shared
    third.connection_manager.dispose()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("sip:a@example.com:5060",), ValueError),
        (("a@example.com",), ValueError),
        (("tel:+123",), ValueError),
        ((7,), TypeError),
        (("sip:a@example.com", "manager"), TypeError),
        (("sip:a@example.com", None, SipTransportType.TLS), ValueError),
        (("sip:a@example.com", None, None, "proxy host"), ValueError),
        (("sip:a@example.com", None, None, "proxy.example.com", 70000), ValueError),
        (("sip:a@example.com", None, None, None, 5060), ValueError),
    ],
)
def test_arguments_are_checked(arguments: tuple[object, ...], error: type[Exception]) -> None:
    with pytest.raises(error):
        SipPeerToPeerEndpoint(*arguments)  # type: ignore[arg-type]


def test_names(manager: RealTimeServerTcpConnectionManager) -> None:
    endpoint = SipPeerToPeerEndpoint("sip:a@example.com", manager)
    assert endpoint.owner_uri == "sip:a@example.com"
    assert endpoint.default_domain == "example.com"
    assert endpoint.endpoint_uri.startswith("sip:a@example.com;opaque=")
    assert endpoint.uri == endpoint.endpoint_uri
    manager.start_listening(IPEndPoint(IPAddress.LOOPBACK, 0))
    uri = RealTimeAddress(endpoint.uri).sip_uri
    assert uri is not None
    assert (uri.user, uri.host, uri.port) == ("a", "127.0.0.1", manager.listening_port)
    assert uri.parameters["transport"] == "tcp"
    for name in ("display_name", "application_user_agent"):
        with pytest.raises(ValueError):
            setattr(endpoint, name, "a\r\nX-Evil: 1")
    endpoint.application_context = manager
    assert endpoint.application_context is manager


@pytest.mark.holds("R43", "F38")
def test_listening_on_any_gives_an_address_that_others_can_use(manager: RealTimeServerTcpConnectionManager) -> None:
    endpoint = SipPeerToPeerEndpoint("sip:a@example.com", manager)
    manager.start_listening(IPEndPoint(IPAddress.ANY, 0))
    uri = RealTimeAddress(endpoint.uri).sip_uri
    assert uri is not None
    assert uri.host not in ("0.0.0.0", "[::]") and "%" not in uri.host


def test_states_follow_the_manager(manager: RealTimeServerTcpConnectionManager) -> None:
    endpoint = SipPeerToPeerEndpoint("sip:a@example.com", manager)
    assert endpoint.state is EndpointState.DISCONNECTED and not endpoint.is_terminated
    seen = []
    endpoint.state_changed += lambda sender, args: seen.append(dataclasses.astuple(args))
    manager.start_listening(IPEndPoint(IPAddress.LOOPBACK, 0))
    assert endpoint.state is EndpointState.CONNECTED
    later = SipPeerToPeerEndpoint("sip:b@example.com", manager)
    assert later.state is EndpointState.CONNECTED
    manager.stop_listening()
    assert endpoint.state is later.state is EndpointState.DISCONNECTED
    with endpoint.state_changed.expect(BOUND, lambda args: args.state is EndpointState.DISCONNECTED):
        endpoint.terminate()
    endpoint.terminate()
    assert endpoint.is_terminated and manager.endpoints == (later,)
    up, down, going = EndpointState.CONNECTED, EndpointState.DISCONNECTED, EndpointState.DISCONNECTING
    assert seen == [
        (down, up, EndpointTransitionReason.LISTENING),
        (up, down, EndpointTransitionReason.STOPPED_LISTENING),
        (down, going, EndpointTransitionReason.TERMINATED_LOCALLY),
        (going, down, EndpointTransitionReason.TERMINATED_LOCALLY),
    ]


def test_dispose_delivers_the_last_state_events(manager: RealTimeServerTcpConnectionManager) -> None:
    manager.start_listening(IPEndPoint(IPAddress.LOOPBACK, 0))
    endpoint = SipPeerToPeerEndpoint("sip:a@example.com", manager)
    seen = []
    endpoint.state_changed += lambda sender, args: seen.append(args.state)
    manager.dispose()
    assert seen == [EndpointState.DISCONNECTING, EndpointState.DISCONNECTED]


def test_while_disconnected_an_endpoint_sends_but_takes_nothing_in() -> None:
    with tcp_pair() as pair:
        pair.bob.message_received += lambda sender, args: None
        pair.alice.message_received += lambda sender, args: None
        pair.alice.connection_manager.stop_listening()
        with pair.bob.message_received.expect(BOUND) as got:
            operation = pair.alice.begin_send_message(MessageType.MESSAGE, pair.bob.uri, body="x")
        assert operation.result(BOUND).response_code == 200
        via = got.args.request_data.header("Via") or ""
        assert str(got.args.connection.remote_endpoint.port) in via


def test_an_endpoint_takes_requests_only_while_its_manager_listens() -> None:
    with tcp_pair() as pair, RealTimeServerTcpConnectionManager() as quiet:
        pair.bob.message_received += lambda sender, args: None
        endpoint = SipPeerToPeerEndpoint("sip:carol@example.com", quiet)
        endpoint.message_received += lambda sender, args: None
        endpoint.send_message(MessageType.MESSAGE, pair.bob.uri, body="x", timeout=BOUND)
        assert not endpoint._record.accepting
        quiet.start_listening(IPEndPoint(IPAddress.LOOPBACK, 0))
        assert endpoint._record.accepting
        quiet.stop_listening()
        assert not endpoint._record.accepting


def test_a_terminated_endpoint_takes_no_part_in_what_its_manager_does(
    manager: RealTimeServerTcpConnectionManager,
) -> None:
    endpoint = SipPeerToPeerEndpoint("sip:a@example.com", manager)
    manager.default_endpoint = endpoint
    endpoint.terminate()
    assert manager.default_endpoint is None
    with pytest.raises(ValueError, match="terminated"):
        manager.default_endpoint = endpoint
    endpoint._listening_changed(EndpointState.CONNECTED, EndpointTransitionReason.LISTENING)
    endpoint._begin()
    assert endpoint.state is EndpointState.DISCONNECTED
    assert not endpoint._record.accepting


def test_an_id_tells_the_endpoints_of_one_owner_apart(manager: RealTimeServerTcpConnectionManager) -> None:
    settings = p2psip.SipPeerToPeerEndpointSettings(endpoint_id="desk")
    first = SipPeerToPeerEndpoint("sip:a@example.com", manager, settings=settings)
    SipPeerToPeerEndpoint("sip:b@example.com", manager, settings=settings)
    with pytest.raises(ValueError, match="desk"):
        SipPeerToPeerEndpoint("sip:a@EXAMPLE.com", manager, settings=settings)
    assert len(manager.endpoints) == 2
    first.terminate()
    SipPeerToPeerEndpoint("sip:a@example.com", manager, settings=settings)


def test_several_endpoints_on_one_manager() -> None:
    with tcp_pair() as pair:
        manager = pair.bob.connection_manager
        port = manager.listening_port
        second = SipPeerToPeerEndpoint("sip:bob@example.com", manager)
        carol = SipPeerToPeerEndpoint("sip:carol@example.com", manager)
        seen: list[str] = []

        def handler(name: str) -> object:
            def note(sender: object, args: MessageReceivedEventArgs) -> None:
                seen.append(name)

            return note

        for name, endpoint in [("bob", pair.bob), ("second", second), ("carol", carol)]:
            endpoint.message_received += handler(name)  # type: ignore[arg-type]

        def send(address: str | RealTimeAddress) -> int:
            options = SendMessageOptions(connection_context=("127.0.0.1", port))
            try:
                return pair.alice.send_message(
                    MessageType.MESSAGE, address, body="x", options=options, timeout=BOUND
                ).response_code
            except FailureResponseException as error:
                return int(error.response_data.response_code)

        assert send(pair.bob.uri) == 200  # by the opaque parameter
        assert send(second.endpoint_uri) == 200
        assert send("sip:carol@example.com") == 200  # by the owner's address
        assert send(f"sip:carol@127.0.0.1:{port}") == 200  # by user and a host of ours
        assert send("sip:bob@example.com") == 485  # two of them
        assert send(RealTimeAddress("sip:bob@example.com", second.id)) == 200  # the epid decides
        assert send("sip:nobody@example.com") == 404
        assert send(f"sip:127.0.0.1:{port}") == 404  # several endpoints
        assert seen == ["bob", "second", "carol", "carol", "second"]
        manager.default_endpoint = carol
        assert send("sip:nobody@example.com") == 200
        assert seen[-1] == "carol"
        carol.terminate()
        assert send("sip:nobody@example.com") == 404
        with pytest.raises(ValueError):
            manager.default_endpoint = pair.alice


def test_drain_finishes_what_is_under_way(pair_with_kept_request: object) -> None:
    pair, args, operation = pair_with_kept_request  # type: ignore[misc]
    assert pair.bob.drain(timeout=0.01) is False
    with pytest.raises(FailureResponseException) as failure:
        pair.alice.send_message(MessageType.MESSAGE, pair.bob.uri, body="late", timeout=BOUND)
    assert failure.value.response_data.response_code == 480
    args.send_response(200)
    assert operation.result(BOUND).response_code == 200
    assert pair.bob.drain(timeout=BOUND) is True


@pytest.fixture
def pair_with_kept_request() -> object:
    with tcp_pair() as pair:

        def keep(sender: object, args: MessageReceivedEventArgs) -> None:
            args.disable_automatic_response = True

        pair.bob.message_received += keep
        with pair.bob.message_received.expect(BOUND) as got:
            operation = pair.alice.begin_send_message(MessageType.MESSAGE, pair.bob.uri, body="x")
        yield pair, got.args, operation


def test_terminate_fails_what_is_pending(pair_with_kept_request: object) -> None:
    pair, args, operation = pair_with_kept_request  # type: ignore[misc]
    pair.alice.terminate()
    error = operation.exception(BOUND)
    assert isinstance(error, p2psip.OperationFailureException)
    assert error.failure_reason is p2psip.OperationFailureReason.ENDPOINT_TERMINATED
    args.send_response(200)


def test_extensions_and_features(manager: RealTimeServerTcpConnectionManager) -> None:
    endpoint = SipPeerToPeerEndpoint("sip:a@example.com", manager)
    endpoint.add_sip_extension("100rel")
    assert "100rel" in endpoint.supported_sip_extensions
    for wrong in ("100rel", "", "a b"):
        with pytest.raises(ValueError):
            endpoint.add_sip_extension(wrong)
    endpoint.add_feature_parameter("audio")
    endpoint.add_feature_parameter("description", "a door")
    assert endpoint.get_feature_parameter_value("description") == "a door"
    with pytest.raises(ValueError):
        endpoint.add_feature_parameter("audio")
    endpoint.remove_feature_parameter("audio")
    assert endpoint.get_feature_parameter_value("audio") is None


def test_headers_of_an_endpoint_are_on_every_message() -> None:
    with tcp_pair() as pair:
        sender = SipPeerToPeerEndpoint("sip:dora@example.com", pair.alice.connection_manager, headers=[("X-Site", "3")])
        for _ in range(2):
            with pair.bob.message_received.expect(BOUND) as got:
                operation = sender.begin_send_message(MessageType.MESSAGE, pair.bob.uri, body="x")
            operation.result(BOUND)
            assert got.args.request_data.headers("X-Site") == ["3"]


def test_events_cannot_be_assigned() -> None:
    with tcp_pair() as pair, pytest.raises(AttributeError, match=r"\+="):
        pair.bob.message_received = lambda sender, args: None  # type: ignore[assignment]


def test_leaving_an_endpoint_terminates_it(manager: RealTimeServerTcpConnectionManager) -> None:
    with SipPeerToPeerEndpoint("sip:a@example.com", manager) as endpoint:
        assert not endpoint.is_terminated
    assert endpoint.is_terminated


def test_an_unanswered_request_does_not_keep_a_manager_from_ending(
    pair_with_kept_request: tuple[TcpPair, MessageReceivedEventArgs, object],
) -> None:
    pair, args, _ = pair_with_kept_request
    manager = pair.bob.connection_manager
    manager.dispose()
    assert manager._stack.loop.has_ended
    args.send_response(200)  # too late, and harmless
