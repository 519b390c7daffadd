"""Where a request goes first: the transport rule, the proxy, the address, the options of one message."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from p2psip import (
    ConnectionFailureException,
    RealTimeAddress,
    RealTimeServerConnectionManager,
    RealTimeServerTcpConnectionManager,
    SendMessageOptions,
    SipPeerToPeerEndpoint,
    SipTransportType,
)
from p2psip.message import SipUri
from p2psip.testing import CertificateAuthority, tls_manager

TCP, TLS = SipTransportType.TCP, SipTransportType.TLS
PROXY = ("proxy.example.com", 5999)


@pytest.fixture(scope="module")
def managers() -> Iterator[dict[SipTransportType, RealTimeServerConnectionManager]]:
    with (
        RealTimeServerTcpConnectionManager() as tcp,
        tls_manager(CertificateAuthority(), "alice.example.com") as tls,
    ):
        yield {TCP: tcp, TLS: tls}


@pytest.mark.holds("R11")
@pytest.mark.parametrize(
    ("manager", "default", "proxy", "address", "target"),
    [
        # Without a proxy the address decides, and the default where it does not say.
        # What is last is whether NAPTR records are asked for: where neither transport nor port is named.
        (TCP, TCP, None, "sip:bob@b.example", ("TCP", "b.example", None, None, True)),
        (TCP, TCP, None, "sip:bob@b.example:5070", ("TCP", "b.example", 5070, None, False)),
        (TCP, TCP, None, "sip:bob@b.example;transport=TCP", ("TCP", "b.example", None, None, False)),
        (TCP, TCP, None, "sip:bob@[2001:db8::1]:5070", ("TCP", "2001:db8::1", 5070, None, False)),
        (TCP, TCP, None, "sip:bob@b.example;maddr=10.0.0.1", ("TCP", "10.0.0.1", 5060, None, False)),
        (TLS, TLS, None, "sip:bob@b.example", ("TLS", "b.example", None, "b.example", True)),
        (TLS, TLS, None, "sip:bob@B.Example.", ("TLS", "b.example", None, "b.example", True)),
        (TLS, TLS, None, "sips:bob@b.example:5099", ("TLS", "b.example", 5099, "b.example", False)),
        (TLS, TLS, None, "sip:bob@10.0.0.1", ("TLS", "10.0.0.1", 5061, "10.0.0.1", False)),
        (TLS, TLS, None, "sip:bob@b.example;transport=tcp", ("TCP", "b.example", None, None, False)),
        (TLS, TLS, None, "sips:bob@b.example;transport=tcp", ("TLS", "b.example", None, "b.example", False)),
        # The DNS may raise TCP to TLS where nobody has said TCP; then this is the name that it has to be.
        (TLS, TCP, None, "sip:bob@b.example", ("TCP", "b.example", None, "b.example", True)),
        (TLS, TCP, None, "sip:bob@b.example:5060", ("TCP", "b.example", 5060, None, False)),
        (TLS, TCP, None, "sip:bob@b.example;transport=tcp", ("TCP", "b.example", None, None, False)),
        (TLS, TCP, None, "sip:bob@b.example;transport=tls", ("TLS", "b.example", None, "b.example", False)),
        (TLS, TCP, None, "sips:bob@b.example", ("TLS", "b.example", None, "b.example", True)),
        # With a proxy everything goes there; the address can raise the transport, and never lowers it.
        (TCP, TCP, PROXY, "sip:bob@b.example", ("TCP", *PROXY, None, False)),
        (TLS, TLS, PROXY, "sip:bob@b.example;transport=tcp", ("TLS", *PROXY, PROXY[0], False)),
        (TLS, TCP, PROXY, "sip:bob@b.example", ("TCP", *PROXY, None, False)),
        (TLS, TCP, PROXY, "sip:bob@b.example;transport=tls", ("TLS", *PROXY, PROXY[0], False)),
        (TLS, TCP, PROXY, "sips:bob@b.example", ("TLS", *PROXY, PROXY[0], False)),
        (
            TLS,
            TLS,
            ("proxy.example.com", None),
            "tel:+1234",
            ("TLS", "proxy.example.com", None, "proxy.example.com", True),
        ),
        (
            TLS,
            TCP,
            ("proxy.example.com", None),
            "tel:+1234",
            ("TCP", "proxy.example.com", None, "proxy.example.com", True),
        ),
        (
            *(TLS, TCP, ("proxy.example.com", None), "sip:bob@b.example;transport=tcp"),
            ("TCP", "proxy.example.com", None, None, False),
        ),
    ],
)
def test_the_first_hop(
    managers: dict[SipTransportType, RealTimeServerConnectionManager],
    manager: SipTransportType,
    default: SipTransportType,
    proxy: tuple[str, int | None] | None,
    address: str,
    target: tuple[object, ...],
) -> None:
    with SipPeerToPeerEndpoint("sip:alice@a.example", managers[manager], default, *(proxy or ())) as endpoint:
        assert tuple(endpoint._target(RealTimeAddress(address), None)) == target


class Flow(NamedTuple):
    """What a Contact is made from."""

    transport: str
    sent_by: str = "host.example:5555"
    local: tuple[str, int] = ("10.0.0.1", 5555)


@pytest.mark.parametrize(
    ("owner", "request_uri", "transport", "contact"),
    [
        ("sip:alice@a.example", "sip:bob@b.example", "TLS", "sip:alice@host.example:5555;transport=tls"),
        ("sip:alice@a.example", "sip:bob@b.example", "TCP", "sip:alice@host.example:5555;transport=tcp"),
        ("sip:alice@a.example", "sips:bob@b.example", "TLS", "sips:alice@host.example:5555"),
        ("sips:alice@a.example", "sip:bob@b.example", "TLS", "sips:alice@host.example:5555"),
        ("sip:a.example", "SIPS:bob@b.example", "TLS", "sips:host.example:5555"),
    ],
)
def test_contact_is_secure_where_the_request_is(
    managers: dict[SipTransportType, RealTimeServerConnectionManager],
    owner: str,
    request_uri: str,
    transport: str,
    contact: str,
) -> None:
    with SipPeerToPeerEndpoint(owner, managers[TLS]) as endpoint:
        assert endpoint._contact(Flow(transport), request_uri).startswith(f"<{contact};opaque=")  # type: ignore[arg-type]


def test_the_listening_port_is_named_on_connections_of_the_same_transport_only(
    managers: dict[SipTransportType, RealTimeServerConnectionManager],
) -> None:
    managers[TLS].start_listening(("127.0.0.1", 0))
    port = managers[TLS].listening_port
    assert managers[TLS]._sent_by(Flow("TLS")) == f"{managers[TLS].local_host}:{port}"  # type: ignore[arg-type]
    assert managers[TLS]._sent_by(Flow("TCP")) == f"{managers[TLS].local_host}:5555"  # type: ignore[arg-type]
    managers[TLS].stop_listening()
    assert managers[TLS]._sent_by(Flow("TLS")) == f"{managers[TLS].local_host}:5555"  # type: ignore[arg-type]


def test_the_name_of_the_proxy_s_certificate(
    managers: dict[SipTransportType, RealTimeServerConnectionManager],
) -> None:
    with SipPeerToPeerEndpoint("sip:alice@a.example", managers[TLS], TLS, *PROXY) as endpoint:
        endpoint.proxy_certificate_subject = "Pool.Example.com"
        assert endpoint._target(RealTimeAddress("sip:b@b.example"), None).identity == "pool.example.com"
        endpoint.proxy_certificate_subject = None
        assert endpoint._target(RealTimeAddress("sip:b@b.example"), None).identity == "proxy.example.com"


@pytest.mark.parametrize(
    ("hop", "identity"),
    [
        ("sip:proxy.example.com:{port};transport=tls;lr", "pool.example.com"),
        ("sip:PROXY.example.com:{port};transport=tls;lr", "pool.example.com"),
        ("sip:proxy.example.com:{other};transport=tls;lr", "proxy.example.com"),
        ("sip:b.example:{port};transport=tls;lr", "b.example"),
    ],
)
def test_the_name_of_the_proxy_s_certificate_holds_for_dialogs_that_go_by_it(
    managers: dict[SipTransportType, RealTimeServerConnectionManager], hop: str, identity: str
) -> None:
    """What a peer says in Record-Route names the proxy, but not what its certificate bears."""
    with SipPeerToPeerEndpoint("sip:alice@a.example", managers[TLS], TLS, *PROXY) as endpoint:
        endpoint.proxy_certificate_subject = "pool.example.com"
        uri = SipUri.parse(hop.format(port=PROXY[1], other=PROXY[1] + 1))
        assert endpoint._next_hop(uri, False, True).identity == identity


def test_the_proxy_s_port_may_be_the_default_one(
    managers: dict[SipTransportType, RealTimeServerConnectionManager],
) -> None:
    with SipPeerToPeerEndpoint("sip:alice@a.example", managers[TLS], TLS, "proxy.example.com") as endpoint:
        endpoint.proxy_certificate_subject = "pool.example.com"
        for hop in ("sip:proxy.example.com:5061;lr", "sip:proxy.example.com;lr"):
            assert endpoint._next_hop(SipUri.parse(hop), False, True).identity == "pool.example.com"


def test_options_of_one_message_come_before_proxy_and_address(
    managers: dict[SipTransportType, RealTimeServerConnectionManager],
) -> None:
    with SipPeerToPeerEndpoint("sip:alice@a.example", managers[TLS], TLS, *PROXY) as endpoint:
        options = SendMessageOptions(connection_context=("10.0.0.9", 6000), tls_target_name="b.example")
        assert tuple(endpoint._target(RealTimeAddress("sip:b@c.example"), options)) == (
            "TLS",
            "10.0.0.9",
            6000,
            "b.example",
            False,
        )


def test_the_transport_that_the_caller_names_holds_for_the_hop_that_the_caller_names(
    managers: dict[SipTransportType, RealTimeServerConnectionManager],
) -> None:
    options = SendMessageOptions(connection_context=("10.0.0.9", 6000))
    with SipPeerToPeerEndpoint("sip:alice@a.example", managers[TLS], TLS, *PROXY) as endpoint:
        target = endpoint._target(RealTimeAddress("sip:b@c.example;transport=tcp"), options)
        assert tuple(target) == ("TCP", "10.0.0.9", 6000, None, False)
        target = endpoint._target(RealTimeAddress("sips:b@c.example;transport=tcp"), options)
        assert target.transport == "TLS"


@pytest.mark.holds("R11")
@pytest.mark.parametrize("address", ["sips:bob@b.example", "sip:bob@b.example;transport=tls"])
def test_a_tcp_manager_says_that_it_cannot_do_tls(
    managers: dict[SipTransportType, RealTimeServerConnectionManager], address: str
) -> None:
    with SipPeerToPeerEndpoint("sip:alice@a.example", managers[TCP]) as endpoint:
        operation = endpoint.begin_send_message("MESSAGE", address, body="x")
        error = operation.exception(5)
        assert isinstance(error, ConnectionFailureException)
        assert "RealTimeServerTlsConnectionManager" in str(error)
        assert managers[TCP].connections() == ()


@pytest.mark.parametrize("address", ["sip:bob@b.example;transport=udp", "sip:bob@b.example;transport=sctp"])
def test_other_transports_are_argument_errors(
    managers: dict[SipTransportType, RealTimeServerConnectionManager], address: str
) -> None:
    with SipPeerToPeerEndpoint("sip:alice@a.example", managers[TCP]) as endpoint, pytest.raises(ValueError):
        endpoint.begin_send_message("MESSAGE", address)
