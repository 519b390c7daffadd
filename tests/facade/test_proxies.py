"""Outbound proxies: named in several ways, several of them, and what they see of requests."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from facade_support import BOUND

import p2psip
from p2psip import (
    ConnectionFailureException,
    ContentDescription,
    FailureResponseException,
    MessageType,
    RealTimeServerTcpConnectionManager,
    SignalingSession,
    SipPeerToPeerEndpoint,
    SipSubscription,
    SipTransportType,
)
from p2psip.proxies import Hop, hop
from p2psip.testing import CertificateAuthority, tls_manager

LOOPBACK = "127.0.0.1"
SDP = ContentDescription("application/sdp", "v=0\r\n")
AWAY = "sip:bob@b.example"


@pytest.mark.parametrize(
    ("proxy", "expected"),
    [
        (("p.example", 5070), Hop("p.example", 5070)),
        (("p.example", None), Hop("p.example", None)),
        (p2psip.ConnectionContext("[2001:db8::1]", 5070), Hop("2001:db8::1", 5070)),
        ("sip:p.example;lr", Hop("p.example", None, None, ("<sip:p.example;lr>",))),
        ("sips:P.example:5071;lr", Hop("p.example", 5071, SipTransportType.TLS, ("<sips:P.example:5071;lr>",))),
        (
            "sip:p.example;transport=tcp",
            Hop("p.example", None, SipTransportType.TCP, ("<sip:p.example;transport=tcp>",)),
        ),
        (
            ["sip:p.example;lr;maddr=192.0.2.7", p2psip.SipUri.parse("sip:q.example;lr")],
            Hop("192.0.2.7", None, None, ("<sip:p.example;lr;maddr=192.0.2.7>", "<sip:q.example;lr>")),
        ),
    ],
)
def test_what_names_a_proxy(proxy: Any, expected: Hop) -> None:
    assert hop(proxy) == expected


@pytest.mark.parametrize(
    "proxy",
    [
        *(
            "p.example",
            "",
            [],
            "mailto:a@b",
            "sip:p.example;transport=udp",
            "sip:p.example?Subject=x",
            ["sip:p;lr", "q"],
        ),
        *(("p.example", 0), ("p.example", 70000), ("a b", 5060), "sip:p.example\r\nX: y"),
    ],
)
def test_what_names_none(proxy: Any) -> None:
    with (
        pytest.raises(ValueError, match=r"proxy|port|host|hop|control"),
        RealTimeServerTcpConnectionManager() as manager,
    ):
        SipPeerToPeerEndpoint("sip:alice@a.example", manager, proxies=[proxy])


def test_a_proxy_is_given_in_one_way() -> None:
    with RealTimeServerTcpConnectionManager() as manager:
        with pytest.raises(ValueError, match="several"):
            SipPeerToPeerEndpoint("sip:alice@a.example", manager, None, "p.example", proxies=["sip:q.example;lr"])
        with pytest.raises(TypeError, match="list"):
            SipPeerToPeerEndpoint("sip:alice@a.example", manager, proxies="sip:q.example;lr")  # type: ignore[arg-type]
        with pytest.raises(ConnectionFailureException, match="RealTimeServerTlsConnectionManager"):
            SipPeerToPeerEndpoint("sip:alice@a.example", manager, proxies=["sips:q.example;lr"])


class Proxies:
    """Alice sends by way of those who stand in for proxies: endpoints that take whatever comes."""

    def __init__(self, keep: contextlib.ExitStack) -> None:
        self._keep = keep
        self.requests: list[tuple[str, p2psip.SipRequestData]] = []

    def add(self, name: str, code: int = 200) -> int:
        """One more, which answers that; its port."""
        manager = self._keep.enter_context(RealTimeServerTcpConnectionManager(LOOPBACK))
        endpoint = SipPeerToPeerEndpoint(f"sip:{name}@{LOOPBACK}", manager)
        manager.default_endpoint = endpoint
        manager.start_listening((LOOPBACK, 0))

        def received(sender: object, args: p2psip.MessageReceivedEventArgs) -> None:
            self.requests.append((name, args.request_data))
            args.send_response(code)

        def called(sender: object, args: p2psip.SessionReceivedEventArgs) -> None:
            self.requests.append((name, args.request_data))
            args.session.terminate_with_rejection(code) if code >= 300 else args.session.accept(SDP)

        def watched(sender: object, args: p2psip.SubscriptionReceivedEventArgs) -> None:
            self.requests.append((name, args.subscription.request_data))
            args.subscription.decline(code) if code >= 300 else args.subscription.accept()

        endpoint.message_received += received
        endpoint.session_received += called
        endpoint.subscription_received += watched
        return manager.listening_port

    def alice(self, *proxies: Any) -> SipPeerToPeerEndpoint:
        manager = self._keep.enter_context(RealTimeServerTcpConnectionManager(LOOPBACK))
        return SipPeerToPeerEndpoint("sip:alice@a.example", manager, proxies=proxies)

    @property
    def ways(self) -> list[str]:
        return [name for name, _ in self.requests]


@pytest.fixture
def proxies() -> Iterator[Proxies]:
    with contextlib.ExitStack() as keep:
        yield Proxies(keep)


def closed_port() -> int:
    with socket.create_server((LOOPBACK, 0)) as server:
        return int(server.getsockname()[1])


def test_a_proxy_that_is_named_by_its_uri_is_told_so(proxies: Proxies) -> None:
    port = proxies.add("p1")
    alice = proxies.alice([f"sip:{LOOPBACK}:{port};lr", "sip:p2.example;lr"])
    alice.send_message(MessageType.MESSAGE, AWAY, body="hello")
    ((_, request),) = proxies.requests
    assert request.request_uri == AWAY
    assert request.headers("Route") == [
        f"<sip:{LOOPBACK}:{port};lr>",
        "<sip:p2.example;lr>",
    ]


def test_a_strict_router_stands_in_the_request_uri(proxies: Proxies) -> None:
    port = proxies.add("p1")
    proxies.alice(f"sip:{LOOPBACK}:{port}").send_message(MessageType.MESSAGE, AWAY, body="hello")
    ((_, request),) = proxies.requests
    assert request.request_uri == f"sip:{LOOPBACK}:{port}"
    assert request.header("Route") == f"<{AWAY}>"


def do_message(alice: SipPeerToPeerEndpoint) -> None:
    alice.send_message(MessageType.MESSAGE, AWAY, body="hello", timeout=BOUND)


def do_call(alice: SipPeerToPeerEndpoint) -> None:
    with SignalingSession(alice, AWAY) as session:
        session.establish(SDP, timeout=BOUND)


def do_subscribe(alice: SipPeerToPeerEndpoint) -> None:
    with SipSubscription(alice, AWAY, "presence") as subscription:
        subscription.subscribe()


KINDS = pytest.mark.parametrize("do", [do_message, do_call, do_subscribe])


@KINDS
def test_one_that_cannot_be_reached_has_a_stand_in(proxies: Proxies, do: Any) -> None:
    alice = proxies.alice((LOOPBACK, closed_port()), (LOOPBACK, proxies.add("p2")))
    do(alice)
    assert proxies.ways == ["p2"]


@KINDS
def test_one_that_is_overloaded_has_a_stand_in(proxies: Proxies, do: Any) -> None:
    alice = proxies.alice((LOOPBACK, proxies.add("p1", 503)), (LOOPBACK, proxies.add("p2")))
    do(alice)
    assert proxies.ways == ["p1", "p2"]


def test_the_last_one_has_the_last_word(proxies: Proxies) -> None:
    alice = proxies.alice((LOOPBACK, proxies.add("p1", 503)), (LOOPBACK, proxies.add("p2", 404)))
    with pytest.raises(FailureResponseException, match="404"):
        do_message(alice)
    assert proxies.ways == ["p1", "p2"]


def test_all_that_was_tried_is_said(proxies: Proxies) -> None:
    first, second = closed_port(), closed_port()
    with pytest.raises(ConnectionFailureException, match=rf"{second}.* Before that: .*{first}"):
        do_message(proxies.alice((LOOPBACK, first), (LOOPBACK, second)))


def test_a_message_with_a_way_of_its_own_goes_past_them(proxies: Proxies) -> None:
    alice = proxies.alice(f"sip:{LOOPBACK}:{proxies.add('p1')};lr")
    options = p2psip.SendMessageOptions(connection_context=(LOOPBACK, proxies.add("direct")))
    alice.send_message(MessageType.MESSAGE, AWAY, body="hello", options=options)
    ((name, request),) = proxies.requests
    assert (name, request.header("Route")) == ("direct", None)


@pytest.mark.parametrize(
    ("default", "proxy", "address", "transport"),
    [
        ("TLS", "sip:p.example;lr", AWAY, "TLS"),
        ("TLS", "sip:p.example;lr", f"{AWAY};transport=tcp", "TLS"),
        ("TLS", "sip:p.example;lr;transport=tcp", AWAY, "TCP"),
        ("TLS", "sip:p.example;lr;transport=tcp", "sips:bob@b.example", "TLS"),
        ("TCP", "sip:p.example;lr", AWAY, "TCP"),
        ("TCP", "sips:p.example;lr", AWAY, "TLS"),
        ("TCP", "sip:p.example;lr", f"{AWAY};transport=tls", "TLS"),
    ],
)
def test_the_transport_to_a_proxy(default: str, proxy: str, address: str, transport: str) -> None:
    """What has to be safe raises it; nothing lowers it but the proxy's own URI."""
    with tls_manager(CertificateAuthority(), "a.example") as manager:
        alice = SipPeerToPeerEndpoint("sip:alice@a.example", manager, SipTransportType[default], proxies=[proxy])
        target = alice._target(p2psip.RealTimeAddress(address), None).ways[0].target
    assert (target.transport, target.host) == (transport, "p.example")


@KINDS
@pytest.mark.parametrize("others", [1, 0])
def test_another_server_of_a_name_takes_what_the_first_would_not(proxies: Proxies, do: Any, others: int) -> None:
    """RFC 3263 4.3. Where there is none, the 503 is the answer."""
    servers = [(1, 0, proxies.add("p1", 503), "one.example")]
    if others:
        servers.append((2, 0, proxies.add("p2"), "two.example"))
    names = {"_sip._tcp.b.example": servers, "one.example": [LOOPBACK], "two.example": [LOOPBACK]}
    with RealTimeServerTcpConnectionManager(LOOPBACK, resolver=names) as manager:
        alice = SipPeerToPeerEndpoint("sip:alice@a.example", manager)
        if others:
            do(alice)
        else:
            with pytest.raises(FailureResponseException, match="503"):
                do(alice)
    assert proxies.ways == ["p1", "p2"][: 1 + others]
