"""What callers may get wrong: each mistake is a ValueError or TypeError with a sentence, where it is made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from facade_support import BOUND, TcpPair, tcp_pair

from p2psip import (
    IPAddress,
    ManagerSettings,
    RealTimeAddress,
    RealTimeServerTcpConnectionManager,
    SendMessageOptions,
    SignalingHeader,
    SipPeerToPeerEndpoint,
    SipPeerToPeerEndpointSettings,
)


@pytest.fixture
def pair() -> Iterator[TcpPair]:
    with tcp_pair() as both:
        yield both


@pytest.fixture
def manager() -> Iterator[RealTimeServerTcpConnectionManager]:
    with RealTimeServerTcpConnectionManager() as one:
        yield one


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "[::]", "fe80::1%eth0", "[example.com]", "a b", "1.2.3", ""])
def test_a_local_host_is_one_that_peers_can_reach(host: str) -> None:
    with pytest.raises(ValueError, match="host"):
        RealTimeServerTcpConnectionManager(host)


def test_local_hosts_are_normal() -> None:
    for host, normal in (("[::1]", "::1"), ("B\u00fccher.Example.", "xn--bcher-kva.example"), ("10.0.0.1", "10.0.0.1")):
        with RealTimeServerTcpConnectionManager(host) as manager:
            assert manager.local_host == normal


@pytest.mark.parametrize("address", [(1, 0), (b"\x7f\0\0\1", 0), (None, 0)])
def test_what_is_listened_on_is_text(manager: RealTimeServerTcpConnectionManager, address: Any) -> None:
    with pytest.raises(TypeError, match="IPEndPoint"):
        manager.begin_start_listening(address)


def test_an_address_to_listen_on_may_stand_in_brackets(manager: RealTimeServerTcpConnectionManager) -> None:
    try:
        manager.start_listening(("[::1]", 0))
    except OSError:
        pytest.skip("there is no IPv6 here")
    assert manager.listening_addresses[0].address == IPAddress.IPV6_LOOPBACK


def test_settings_are_settings(manager: RealTimeServerTcpConnectionManager) -> None:
    with pytest.raises(TypeError, match="ManagerSettings"):
        RealTimeServerTcpConnectionManager(settings={})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="SipPeerToPeerEndpointSettings"):
        SipPeerToPeerEndpoint("sip:a@example.com", manager, settings=ManagerSettings())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="SipTransportType"):
        SipPeerToPeerEndpoint("sip:a@example.com", manager, "tcp")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "owner",
    ["sip:a@b.example?Subject=x", "sip:a@b.example;opaque=x", "sip:a:secret@b.example", "sip:a@b.example;method=INFO"],
)
def test_an_owner_is_a_plain_uri(manager: RealTimeServerTcpConnectionManager, owner: str) -> None:
    with pytest.raises(ValueError, match="owner"):
        SipPeerToPeerEndpoint(owner, manager)
    assert manager.endpoints == ()


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"display_name": None}, TypeError),
        ({"display_name": "a\x01"}, ValueError),
        ({"display_name": "\ud800"}, ValueError),
        ({"endpoint_id": 5}, TypeError),
        ({"gruu": 5}, TypeError),
    ],
)
def test_settings_of_an_endpoint(
    manager: RealTimeServerTcpConnectionManager, values: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error, match=r"display name|endpoint id|GRUU"):
        SipPeerToPeerEndpoint("sip:a@b.example", manager, settings=SipPeerToPeerEndpointSettings(**values))


@pytest.mark.holds("R22", "F35")
def test_what_cannot_be_in_a_header_is_refused_where_it_is_set(pair: TcpPair) -> None:
    for name in ("display_name", "application_user_agent"):
        for value, error in ((None, TypeError), (b"x", TypeError), ("a\x7f", ValueError), ("\ud800", ValueError)):
            with pytest.raises(error):
                setattr(pair.alice, name, value)
    with pytest.raises(ValueError, match="feature"):
        pair.alice.add_feature_parameter("x", "\ud800")
    for value in ("a\x01", "a\x0bb", "\x7f"):
        with pytest.raises(ValueError, match="control"):
            SignalingHeader("X-A", value)
    assert SignalingHeader("X-A", "a\tb\u00e9").value == "a\tb\u00e9"
    with pytest.raises(TypeError):
        SignalingHeader("X-A", 7)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="endpoint id"):
        RealTimeAddress("sip:a@b.example", "a b")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ("x", TypeError),
        ({}, TypeError),
        (SendMessageOptions(connection_context="abc"), TypeError),  # type: ignore[arg-type]
        (SendMessageOptions(connection_context=("host", None)), TypeError),  # type: ignore[arg-type]
        (SendMessageOptions(tls_target_name="a b"), ValueError),
        (SendMessageOptions(local_identity=5), TypeError),  # type: ignore[arg-type]
        (SendMessageOptions(local_identity=("sip:a@b",)), TypeError),  # type: ignore[arg-type]
        (SendMessageOptions(local_identity=("", "name")), ValueError),
        (SendMessageOptions(local_identity=("sip:a@b", "a\nb")), ValueError),
    ],
)
def test_options_are_checked(pair: TcpPair, options: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        pair.alice.begin_send_message("MESSAGE", pair.bob.uri, options=options)


def test_a_connection_context_may_be_any_pair(pair: TcpPair) -> None:
    pair.bob.message_received += lambda sender, args: None
    options = SendMessageOptions(
        connection_context=["127.0.0.1", pair.bob.connection_manager.listening_port]  # type: ignore[arg-type]
    )
    answer = pair.alice.send_message("MESSAGE", "sip:bob@example.com", options=options, timeout=BOUND)
    assert answer.response_code == 200


@pytest.mark.parametrize("timeout", [float("nan"), -0.1, 10**400])
def test_time_outs_that_are_none(pair: TcpPair, timeout: float) -> None:
    with pytest.raises(ValueError, match="time-out"):
        pair.alice.begin_send_message("MESSAGE", pair.bob.uri, timeout=timeout)


@pytest.mark.parametrize("method", ["message", "Invite", "options", "Publish"])
def test_case_counts_in_methods(pair: TcpPair, method: str) -> None:
    with pytest.raises(ValueError, match=method.upper()):
        pair.alice.begin_send_message(method, pair.bob.uri)
    with pytest.raises(ValueError, match=method.upper()):
        pair.bob.allow_method(method)


@pytest.mark.parametrize("address", ["sip:bob@b.example?Subject=hi", "sip:bob@b.example;method=INFO"])
def test_an_address_does_not_say_what_a_request_contains(pair: TcpPair, address: str) -> None:
    with pytest.raises(ValueError, match=r"19\.1\.1"):
        pair.alice.begin_send_message("MESSAGE", address)


@pytest.mark.parametrize("code", [99, 180, 700])
def test_only_final_answers_are_answers(pair: TcpPair, code: int) -> None:
    with pair.bob.message_received.expect(BOUND) as got:
        pair.alice.begin_send_message("MESSAGE", pair.bob.uri, body="x")
    with pytest.raises(ValueError, match="200 to 699"):
        got.args.send_response(code)
    with pytest.raises(TypeError, match="reason"):
        got.args.send_response(200, 5)  # type: ignore[arg-type]
