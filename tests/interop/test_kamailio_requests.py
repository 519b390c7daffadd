"""Requests outside of calls, and subscriptions, through Kamailio, which wants a client certificate over TLS."""

from __future__ import annotations

import concurrent.futures
from pathlib import Path

import pytest
from interop_calls import AUDIO
from interop_kamailio import BOTH, DOMAIN, REALM, Behind, Party, Wire, behind
from interop_support import LOOPBACK, PATIENCE, free_port

from p2psip import (
    FailureResponseException,
    MessageReceivedEventArgs,
    MessageType,
    ReferReceivedEventArgs,
    ReferState,
    SignalingSession,
    SipPeerToPeerEndpoint,
    SipSubscription,
    SubscriptionReceivedEventArgs,
    TlsFailureException,
    TlsFailureReason,
)
from p2psip import SubscriptionSignalingState as S
from p2psip.testing import CertificateAuthority

pytestmark = pytest.mark.interop

FROM_BOTH = pytest.mark.parametrize("sender", ("alice", "bob"))


def ends(path: Behind, sender: str) -> tuple[Party, Party]:
    """That one and the other."""
    return (path.alice, path.bob) if sender == "alice" else (path.bob, path.alice)


@BOTH
@FROM_BOTH
@pytest.mark.parametrize("message_type", (MessageType.MESSAGE, MessageType.OPTIONS))
def test_a_request_and_its_answer(tmp_path: Path, kind: str, sender: str, message_type: MessageType) -> None:
    with behind(tmp_path, kind) as path:
        near, far = ends(path, sender)
        heard: list[MessageReceivedEventArgs] = []

        def answer(sender: object, args: MessageReceivedEventArgs) -> None:
            heard.append(args)
            args.send_response(200, "Heard", body="answer")

        far.endpoint.message_received += answer
        response = near.endpoint.send_message(message_type, far.address, body="question", timeout=PATIENCE)
        assert (response.response_text, response.text_body) == ("Heard", "answer")
        (args,) = heard
        assert (args.message_type, args.text_body, args.participant.uri) == (message_type, "question", near.address)
        # It is the proxy's certificate that speaks for the domain.
        assert args.is_sender_authenticated is (kind == "TLS")


@BOTH
def test_what_the_proxy_itself_answers(tmp_path: Path, kind: str) -> None:
    with behind(tmp_path, kind) as path, pytest.raises(FailureResponseException, match="404 Nobody Of That Name"):
        path.alice.endpoint.send_message(MessageType.MESSAGE, f"sip:nobody@{DOMAIN}", timeout=PATIENCE)


@BOTH
@FROM_BOTH
def test_a_subscription_from_its_begin_to_its_end(tmp_path: Path, kind: str, sender: str) -> None:
    with behind(tmp_path, kind) as path:
        near, far = ends(path, sender)
        taken: concurrent.futures.Future[SubscriptionReceivedEventArgs] = concurrent.futures.Future()

        def accept(sender: object, args: SubscriptionReceivedEventArgs) -> None:
            args.subscription.accept(None, "text/plain", "open")
            taken.set_result(args)

        far.endpoint.subscription_received += accept
        subscription = SipSubscription(near.endpoint, far.address, "presence")
        with subscription.notification_received.expect(timeout=PATIENCE) as first:
            subscription.subscribe()
        assert (first.args.subscription_state, first.args.text_body) == ("active", "open")
        incoming = taken.result(PATIENCE).subscription
        with subscription.notification_received.expect(timeout=PATIENCE) as second:
            response = incoming.notify("text/plain", "closed")
            assert response is not None
            assert response.response_code == 200
        assert second.args.text_body == "closed"
        with subscription.notification_received.expect(timeout=PATIENCE):
            subscription.refresh()
        with incoming.ended.expect(timeout=PATIENCE) as ended:
            subscription.terminate()
        assert ended.args.why == "unsubscribed"
        near.traffic.wait_for({"SUBSCRIBE": 3, "200 NOTIFY": 4})


@BOTH
def test_the_notifier_ends_a_subscription(tmp_path: Path, kind: str) -> None:
    with behind(tmp_path, kind) as path:
        path.bob.endpoint.subscription_received += lambda sender, args: args.subscription.accept()
        with path.bob.endpoint.subscription_received.expect(timeout=PATIENCE) as got:
            subscription = SipSubscription(path.alice.endpoint, path.bob.address, "presence")
            with subscription.notification_received.expect(timeout=PATIENCE):
                subscription.subscribe()
        with (
            subscription.state_changed.expect(PATIENCE, lambda args: args.state is S.TERMINATED),
            subscription.notification_received.expect(PATIENCE) as last,
        ):
            got.args.subscription.terminate("noresource")
        assert (last.args.subscription_state, last.args.reason) == ("terminated", "noresource")
        assert not subscription.is_active


@BOTH
@FROM_BOTH
def test_a_transfer_outside_of_calls(tmp_path: Path, kind: str, sender: str) -> None:
    """The one who is asked calls the one who asks."""
    with behind(tmp_path, kind) as path:
        near, far = ends(path, sender)
        near.takes_calls(lambda session: session.accept(lambda offer: AUDIO))

        def follow(sender: object, args: ReferReceivedEventArgs) -> None:
            args.follow(AUDIO).terminate()

        far.endpoint.refer_received += follow
        status = near.endpoint.refer(far.address, near.address, timeout=PATIENCE)
        assert status.over.result(PATIENCE) is ReferState.SUCCEEDED
        far.traffic.wait_for({"202 REFER": 1, "INVITE": 1, "BYE": 1})


@BOTH
@pytest.mark.parametrize("is_dead", (False, True))
def test_a_proxy_that_is_dead_and_one_that_is_not(tmp_path: Path, kind: str, is_dead: bool) -> None:
    """The second one is given as a URI, and is the first Route then."""
    with behind(tmp_path, kind) as path:
        uri = f"sip:{LOOPBACK}:{path.proxy.port(kind)};transport={kind.lower()};lr"
        proxies = [(LOOPBACK, free_port()), uri] if is_dead else [uri]
        path.bob.endpoint.message_received += lambda sender, args: None
        path.bob.takes_calls(lambda session: session.accept(AUDIO))
        with SipPeerToPeerEndpoint("sip:carol@example.com", path.alice.manager, proxies=proxies) as carol:
            carol.send_message(MessageType.MESSAGE, path.bob.address, timeout=PATIENCE)
            with SignalingSession(carol, path.bob.address) as session:
                session.establish(AUDIO, timeout=PATIENCE)
        path.bob.traffic.wait_for(received={"MESSAGE": 1, "INVITE": 1, "ACK": 1, "BYE": 1})


# ---------------------------------------------------------------------- certificates


def test_the_proxy_refuses_a_certificate_that_it_does_not_trust(tmp_path: Path) -> None:
    with behind(tmp_path, "TLS") as path:
        path.expected = " ERROR: (tls|<core>) .*(TLS|tls|tcp)"
        trusted = path.proxy.folder / "trusted.pem"
        stranger = Party("mallory", "TLS", CertificateAuthority("Another CA"), Wire(), trusted_roots=trusted)
        with stranger.manager:
            stranger.join(path.proxy.tls_port)
            with pytest.raises(TlsFailureException) as caught:
                stranger.endpoint.send_message(MessageType.MESSAGE, path.bob.address, timeout=PATIENCE)
        assert caught.value.failure_reason is TlsFailureReason.TLS_NEGOTIATION_FAILURE
        assert "does not trust the authority" in str(caught.value)


@pytest.mark.parametrize("is_told", (False, True))
def test_a_proxy_whose_certificate_bears_another_name(tmp_path: Path, is_told: bool) -> None:
    """With ``proxy_certificate_subject`` that holds for whatever goes to the proxy, within calls as well."""
    with behind(tmp_path, "TLS", names=(REALM,)) as path:
        path.bob.endpoint.message_received += lambda sender, args: None
        if not is_told:
            with pytest.raises(TlsFailureException, match=REALM) as caught:
                path.alice.endpoint.send_message(MessageType.MESSAGE, path.bob.address, timeout=PATIENCE)
            assert caught.value.failure_reason is TlsFailureReason.INCORRECT_NAME_IN_REMOTE_CERTIFICATE
            assert LOOPBACK in str(caught.value)
            return
        for party in path.parties:
            party.endpoint.proxy_certificate_subject = REALM
        path.alice.endpoint.send_message(MessageType.MESSAGE, path.bob.address, timeout=PATIENCE)
        taken = path.bob.takes_calls(lambda session: session.accept(lambda offer: AUDIO))
        session = path.alice.call(path.bob)
        session.establish(AUDIO, answer=lambda offer: AUDIO, timeout=PATIENCE)
        taken.wait(1)
        session.renegotiate(AUDIO)
        path.bob.traffic.wait_for(received={"ACK": 2})
        taken.sessions[0].renegotiate(AUDIO)
        taken.sessions[0].terminate()
        assert session.is_terminated
