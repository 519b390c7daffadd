"""Who sent what comes in, and whom an endpoint takes it from: certificates, digests, asserted identities (RFC 3325)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from facade_support import BOUND

from p2psip import (
    ContentDescription,
    FailureResponseException,
    MessageType,
    RealTimeEndpoint,
    SenderPolicy,
    ServerPolicyException,
    SignalingSession,
    SipPeerToPeerEndpoint,
    SipSubscription,
    SipTransportType,
)
from p2psip.testing import CertificateAuthority, endpoint_pair

OFFER = ContentDescription("application/sdp", b"v=0\r\n")
TLS, TCP = SipTransportType.TLS, SipTransportType.TCP
CAROL = "sip:carol@c.example"
ASSERTED = [("P-Asserted-Identity", f"<{CAROL}>")]
PASSWORD = "wonder land"


class Seen(NamedTuple):
    """What a handler was told."""

    is_sender_authenticated: bool
    authenticated_user: str | None
    asserted_identity: str | None


class Peers(NamedTuple):
    """Alice and Mallory send from one manager, whose certificate carries alice.example; Bob tells what he sees."""

    alice: SipPeerToPeerEndpoint
    mallory: SipPeerToPeerEndpoint
    bob: SipPeerToPeerEndpoint
    seen: list[Seen]


@pytest.fixture(scope="module")
def authority() -> CertificateAuthority:
    return CertificateAuthority()


@pytest.fixture(params=[TLS, TCP], ids=lambda transport: transport.name)
def transport(request: pytest.FixtureRequest) -> SipTransportType:
    kind: SipTransportType = request.param
    return kind


@contextlib.contextmanager
def peers(authority: CertificateAuthority, transport: SipTransportType = TLS) -> Iterator[Peers]:
    seen: list[Seen] = []

    def look(args: Any) -> None:
        seen.append(Seen(args.is_sender_authenticated, args.authenticated_user, args.asserted_identity))

    def called(sender: Any, args: Any) -> None:
        look(args)
        args.session.message_received += lambda session, more: look(more)
        args.session.refer_received += referred
        args.session.begin_accept(OFFER)

    def subscribed(sender: Any, args: Any) -> None:
        look(args)
        args.subscription.accept(None, "text/plain", "open")

    def referred(sender: Any, args: Any) -> None:
        look(args)
        args.accept()

    with endpoint_pair(transport, authority=authority) as pair:
        pair.bob.message_received += lambda sender, args: look(args)
        pair.bob.session_received += called
        pair.bob.subscription_received += subscribed
        pair.bob.refer_received += referred
        mallory = SipPeerToPeerEndpoint("sip:mallory@m.example", pair.alice.connection_manager)
        yield Peers(pair.alice, mallory, pair.bob, seen)


Headers = list[tuple[str, str]]


def message(sender: RealTimeEndpoint, to: str, headers: Headers) -> None:
    sender.send_message(MessageType.MESSAGE, to, body="x", headers=headers, timeout=BOUND)


def options(sender: RealTimeEndpoint, to: str, headers: Headers) -> None:
    sender.send_message(MessageType.OPTIONS, to, headers=headers, timeout=BOUND)


def call(sender: RealTimeEndpoint, to: str, headers: Headers) -> None:
    session = SignalingSession(sender, to)
    session.establish(OFFER, headers, timeout=BOUND)
    session.terminate()


def subscribe(sender: RealTimeEndpoint, to: str, headers: Headers) -> None:
    subscription = SipSubscription(sender, to, "presence", headers=headers)
    subscription.subscribe()
    subscription.terminate()


def refer(sender: RealTimeEndpoint, to: str, headers: Headers) -> None:
    sender.refer(to, CAROL, headers, subscribe=False, timeout=BOUND)


KINDS = [message, options, call, subscribe, refer]
Act = Callable[[RealTimeEndpoint, str, Headers], None]


# ---------------------------------------------------------------------- what handlers are told


@pytest.mark.holds("A18")
@pytest.mark.parametrize("act", KINDS)
def test_everything_that_comes_in_says_who_sent_it(
    authority: CertificateAuthority, act: Act, transport: SipTransportType
) -> None:
    with peers(authority, transport) as at:
        act(at.alice, at.bob.uri, ASSERTED)
        act(at.mallory, at.bob.uri, ASSERTED)
        assert at.seen == [Seen(transport is TLS, None, None), Seen(False, None, None)]
        at.bob.trusted_peers = ["alice.example"]
        act(at.mallory, at.bob.uri, ASSERTED)
        act(at.mallory, at.bob.uri, [])
        asserted = CAROL if transport is TLS else None
        assert at.seen[2:] == [Seen(False, None, asserted), Seen(False, None, None)]


@pytest.mark.parametrize("act", KINDS)
def test_digests_are_told_alike(authority: CertificateAuthority, act: Act, transport: SipTransportType) -> None:
    with peers(authority, transport) as at:
        at.bob.require_digest("b.example", {"m": PASSWORD}, except_certificates=False)
        at.mallory.credentials.add("b.example", "m", PASSWORD)
        act(at.mallory, at.bob.uri, [])
        assert at.seen == [Seen(False, "m", None)]


def test_what_comes_in_a_session_as_well(authority: CertificateAuthority, transport: SipTransportType) -> None:
    with peers(authority, transport) as at:
        at.bob.trusted_peers.add(".example")
        session = SignalingSession(at.alice, at.bob.uri)
        session.establish(OFFER, timeout=BOUND)
        session.send_message(MessageType.INFO, headers=ASSERTED, timeout=BOUND)
        session.refer(CAROL, ASSERTED, timeout=BOUND)
        session.terminate()
        is_tls = transport is TLS
        expected = Seen(is_tls, None, CAROL if is_tls else None)
        assert at.seen == [Seen(is_tls, None, None), expected, expected]


def test_the_other_side_of_a_connection_is_known_as_well(authority: CertificateAuthority) -> None:
    """Bob's certificate was verified by Alice, who has connected."""
    with peers(authority) as at:
        session = SignalingSession(at.alice, at.bob.uri)
        told: list[bool] = []
        session.message_received += lambda sender, args: told.append(args.is_sender_authenticated)
        with at.bob.session_received.expect(BOUND) as got:
            operation = session.begin_establish(OFFER)
        operation.result(BOUND)
        session.send_message(MessageType.INFO, timeout=BOUND)  # after which the ACK has come
        got.args.session.send_message(MessageType.INFO, timeout=BOUND)
        session.terminate()
        assert told == [True]


def test_who_is_not_trusted_asserts_nothing_but_can_be_read(authority: CertificateAuthority) -> None:
    with peers(authority) as at:
        with at.bob.message_received.expect(BOUND) as got:
            at.alice.begin_send_message(MessageType.MESSAGE, at.bob.uri, body="x", headers=ASSERTED)
        assert got.args.asserted_identity is None
        assert got.args.request_data.header("P-Asserted-Identity") == f"<{CAROL}>"


def test_we_assert_nothing_by_ourselves(authority: CertificateAuthority) -> None:
    with peers(authority) as at:
        sent: list[bytes] = []
        at.alice.trusted_peers = at.bob.trusted_peers = ["bob.example", "alice.example"]
        for endpoint in (at.alice, at.bob):
            endpoint.connection_manager.trace += lambda sender, args: sent.append(args.data)
        for act in KINDS:
            act(at.alice, at.bob.uri, [])
        assert any(data.startswith(b"REFER") for data in sent)
        assert not any(b"asserted" in data.lower() for data in sent)


# ---------------------------------------------------------------------- the policy


@pytest.mark.holds("A18")
@pytest.mark.parametrize("act", KINDS)
def test_who_is_not_certified_is_refused_before_any_handler(
    authority: CertificateAuthority, act: Act, transport: SipTransportType
) -> None:
    with peers(authority, transport) as at:
        assert at.bob.sender_policy is SenderPolicy.ANY
        at.bob.sender_policy = SenderPolicy.CERTIFIED
        for sender, is_taken in ((at.alice, transport is TLS), (at.mallory, False)):
            if is_taken:
                act(sender, at.bob.uri, ASSERTED)
                continue
            with pytest.raises(FailureResponseException) as refused:
                act(sender, at.bob.uri, ASSERTED)
            assert isinstance(refused.value, ServerPolicyException)
            assert refused.value.response_data is not None
            assert refused.value.response_data.response_code == 403
            assert any("certificate" in warning for warning in refused.value.warnings)
        assert at.seen == ([Seen(True, None, None)] if transport is TLS else [])


@pytest.mark.parametrize("act", KINDS)
def test_trusted_peers_may_send_for_others(
    authority: CertificateAuthority, act: Act, transport: SipTransportType
) -> None:
    with peers(authority, transport) as at:
        at.bob.sender_policy = SenderPolicy.CERTIFIED
        at.bob.trusted_peers = ["alice.example"]
        if transport is TLS:
            act(at.mallory, at.bob.uri, ASSERTED)
            assert at.seen == [Seen(False, None, CAROL)]
        with pytest.raises(ServerPolicyException):
            act(at.mallory, at.bob.uri, [] if transport is TLS else ASSERTED)
        at.bob.trusted_peers.discard("alice.example")
        with pytest.raises(ServerPolicyException):
            act(at.mallory, at.bob.uri, ASSERTED)


@pytest.mark.parametrize("act", KINDS)
def test_a_password_is_as_good(authority: CertificateAuthority, act: Act, transport: SipTransportType) -> None:
    with peers(authority, transport) as at:
        at.bob.sender_policy = SenderPolicy.CERTIFIED
        at.bob.require_digest("b.example", {"m": PASSWORD}, except_certificates=False)
        at.mallory.credentials.add("b.example", "m", PASSWORD)
        act(at.mallory, at.bob.uri, [])
        assert at.seen == [Seen(False, "m", None)]


def test_a_session_that_is_up_goes_on(authority: CertificateAuthority) -> None:
    with peers(authority, TCP) as at:
        session = SignalingSession(at.alice, at.bob.uri)
        session.establish(OFFER, timeout=BOUND)
        at.bob.sender_policy = SenderPolicy.CERTIFIED
        with pytest.raises(ServerPolicyException):
            message(at.alice, at.bob.uri, [])
        session.send_message(MessageType.INFO, timeout=BOUND)
        session.terminate()
        assert len(at.seen) == 2


def test_wrong_values(authority: CertificateAuthority) -> None:
    with peers(authority, TCP) as at:
        with pytest.raises(TypeError, match="sender_policy"):
            at.bob.sender_policy = 1  # type: ignore[assignment]
        with pytest.raises(TypeError, match="trusted_peers"):
            at.bob.trusted_peers = "proxy.example"
        with pytest.raises(ValueError):
            at.bob.trusted_peers.add("*.example")
        assert at.bob.sender_policy is SenderPolicy.ANY
        assert set(at.bob.trusted_peers) == set()
