"""Peers that want us to go where we should not, or to go on for ever."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence

import pytest
from facade_support import BOUND
from scripted_peer import Script, ScriptedPeer, Trap, notify, respond

from p2psip import (
    AuthenticationException,
    ContentDescription,
    FailureResponseException,
    MessageType,
    RealTimeException,
    SignalingSession,
    SipPeerToPeerEndpoint,
    SipPublication,
    SipSubscription,
    SipTransportType,
)
from p2psip.message import Request, Response
from p2psip.testing import CertificateAuthority, tls_manager

TCP, TLS = SipTransportType.TCP, SipTransportType.TLS
OFFER = ContentDescription("application/sdp", b"v=0\r\n")
SDP = ("Content-Type", "application/sdp")


@pytest.fixture(scope="module")
def authority() -> CertificateAuthority:
    return CertificateAuthority()


@pytest.fixture
def alices(authority: CertificateAuthority) -> Iterator[list[SipPeerToPeerEndpoint]]:
    """One that uses TLS where nobody asks for anything, and one that uses TCP."""
    with tls_manager(authority, "alice.example") as manager:
        yield [SipPeerToPeerEndpoint("sip:alice@alice.example", manager, default) for default in (TLS, TCP)]


# ---------------------------------------------------------------------- from sips to something less


def call(endpoint: SipPeerToPeerEndpoint, address: str) -> None:
    """All of it: INVITE, ACK, a request within, BYE."""
    session = SignalingSession(endpoint, address)
    session.establish(OFFER, timeout=BOUND)
    with contextlib.suppress(RealTimeException):
        session.send_message(MessageType.INFO, timeout=BOUND)
    session.terminate()


def subscribe(endpoint: SipPeerToPeerEndpoint, address: str) -> None:
    subscription = SipSubscription(endpoint, address, "presence")
    subscription.subscribe(timeout=BOUND)
    with contextlib.suppress(RealTimeException):
        subscription.refresh(timeout=BOUND)
    subscription.terminate()


def publish(endpoint: SipPeerToPeerEndpoint, address: str) -> None:
    publication = SipPublication(endpoint, address, "presence")
    publication.publish("text/plain", b"here", timeout=BOUND)


def ask(endpoint: SipPeerToPeerEndpoint, address: str) -> None:
    endpoint.send_message(MessageType.MESSAGE, address, body="x", timeout=BOUND)


USES: list[Callable[[SipPeerToPeerEndpoint, str], None]] = [call, subscribe, publish]


@pytest.mark.holds("F33", "R11")
@pytest.mark.parametrize("way", ["sip", "sip;transport=tcp", "sips;transport=tcp", "twice"])
@pytest.mark.parametrize("use", USES)
def test_a_redirection_takes_a_sips_target_nowhere_but_to_tls(
    authority: CertificateAuthority, alices: list[SipPeerToPeerEndpoint], use: Callable[..., None], way: str
) -> None:
    with Trap() as trap:

        def redirect(peer: ScriptedPeer, request: Request) -> Sequence[Response]:
            """To the trap; where it is "twice", first to the peer itself by an address that asks for less."""
            scheme, _, more = way.partition(";")
            host = f"127.0.0.1:{trap.port}"
            if way == "twice":
                scheme, more = "sip", "transport=tcp"
                if "again" not in request.uri:
                    host, more = f"again@localhost:{peer.port}", "transport=tls"
            return [respond(request, 302, ("Contact", f"<{scheme}:{host};{more}>".replace(";>", ">")))]

        with ScriptedPeer(redirect, authority) as peer:
            for alice in alices:
                with pytest.raises(RealTimeException):
                    use(alice, f"sips:bob@localhost:{peer.port}")
            assert sum("again" in r.uri for _, r in peer.requests if r.method != "ACK") == (2 if way == "twice" else 0)
        assert trap.plain == []
        assert all(pool.transport is TLS for pool in alices[0].connection_manager.connection_pools())


def trapping(where: str, trap: Trap, cuts: bool) -> Script:
    """Takes everything, and says that what follows is to go to the trap; perhaps over a connection that is still to be
    made."""
    uri = f"<sip:127.0.0.1:{trap.port};transport=tcp;lr>"
    extra = {
        "Contact": [("Contact", uri)],
        "Record-Route": [("Contact", "<sips:bob@localhost>"), ("Record-Route", uri)],
        "both": [("Contact", uri), ("Record-Route", uri)],
    }[where]

    def take(peer: ScriptedPeer, request: Request) -> Sequence[Response | Request | None]:
        if request.method == "ACK":
            return [None] if cuts and "sips:bob@localhost:" not in request.uri else []
        if request.method == "INVITE":
            return [respond(request, 200, *extra, SDP, body=b"v=0\r\n")]
        if request.method == "SUBSCRIBE":
            said = [respond(request, 200, *extra, ("Expires", "60")), notify(request, uri)]
            return [*said, None] if cuts else said
        return [respond(request, 200, *extra)]

    return take


@pytest.mark.holds("F33", "R11")
@pytest.mark.parametrize("cuts", [False, True], ids=["", "over a new connection"])
@pytest.mark.parametrize("redirects", [False, True], ids=["", "redirected"])
@pytest.mark.parametrize("use", [call, subscribe])
def test_a_dialog_with_a_sips_target_stays_on_tls(
    authority: CertificateAuthority,
    alices: list[SipPeerToPeerEndpoint],
    use: Callable[..., None],
    redirects: bool,
    cuts: bool,
) -> None:
    """Also where the target that it was redirected to says no more than ``sip:``."""
    for where, alice in itertools.product(("Contact", "Record-Route", "both"), alices):
        with Trap() as trap:
            takes = trapping(where, trap, cuts)

            def script(
                peer: ScriptedPeer, request: Request, takes: Script = takes
            ) -> Sequence[Response | Request | None]:
                if not redirects or "again" in request.uri or request.to_tag is not None:
                    return takes(peer, request)
                return [respond(request, 302, ("Contact", f"<sip:again@localhost:{peer.port};transport=tls>"))]

            with ScriptedPeer(script, authority) as peer:
                use(alice, f"sips:bob@localhost:{peer.port}")
                assert any("again" in request.uri for _, request in peer.requests) is redirects
            assert trap.plain == []
            assert all(c.transport is TLS for c in alice.connection_manager.connections())


# ---------------------------------------------------------------------- challenges without end


@pytest.mark.holds("F34", "R34", "A17")
@pytest.mark.parametrize("code", [401, 407])
@pytest.mark.parametrize("stale", [False, True])
def test_a_request_is_challenged_for_ever(
    authority: CertificateAuthority, alices: list[SipPeerToPeerEndpoint], code: int, stale: bool
) -> None:
    """A new nonce each time. Who has no other credentials tries twice; a nonce that is said to be stale once more."""
    count = 0

    def challenge(peer: ScriptedPeer, request: Request) -> Sequence[Response]:
        nonlocal count
        if request.method == "ACK":
            return []
        count += 1
        name = "WWW-Authenticate" if code == 401 else "Proxy-Authenticate"
        value = f'Digest realm="b.example", nonce="n{count}", qop="auth", algorithm=SHA-256'
        return [respond(request, code, (name, value + (", stale=true" if stale and count > 1 else "")))]

    alices[0].credentials.add("b.example", "alice", "wonderland")
    for use in (*USES, ask):
        count = 0
        with ScriptedPeer(challenge, authority) as peer:
            with pytest.raises((AuthenticationException, FailureResponseException)):
                use(alices[0], f"sip:bob@localhost:{peer.port}")
            assert [count, len(peer.requests) - peer.methods.count("ACK")] == [2 + stale] * 2
