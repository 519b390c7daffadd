"""Text of an application, or of whoever it got it from, never becomes a line of a message: each way in is tried."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable
from typing import Any

import pytest
from facade_support import BOUND

from p2psip import (
    ContentDescription,
    MessageType,
    RealTimeAddress,
    RealTimeException,
    RealTimeServerTcpConnectionManager,
    SendMessageOptions,
    SignalingHeader,
    SignalingSession,
    SipPeerToPeerEndpoint,
    SipPublication,
    SipSubscription,
    SipTransportType,
)
from p2psip.testing import EndpointPair, endpoint_pair

POISON = {
    "CRLF": "x\r\nInjected: 1",
    "LF": "x\nInjected: 1",
    "CR": "x\rInjected: 1",
    "NUL": "x\0Injected: 1",
    "quoted": 'x"\r\nInjected: 1\r\nX: "',
    "end of the head": "x\r\n\r\nInjected: 1",
    "vertical tab": "x\x0bInjected: 1",
    "NUL without a space": "x\0Injected:1",
    "half of a surrogate pair": "x\ud800Injected:1",
}
OFFER = ContentDescription("application/sdp", b"v=0\r\n")

Use = Callable[[EndpointPair, str], Any]


def endpoint(pair: EndpointPair, *args: Any, **options: Any) -> Any:
    made = SipPeerToPeerEndpoint("sip:carol@alice.example", pair.alice.connection_manager, *args, **options)
    return made.begin_send_message(MessageType.MESSAGE, pair.bob.uri, body="x")


def message(pair: EndpointPair, address: str | None = None, *args: Any, **options: Any) -> Any:
    kind = options.pop("kind", MessageType.MESSAGE)
    return pair.alice.begin_send_message(kind, address or pair.bob.uri, *args, **options)


def session(pair: EndpointPair, **options: Any) -> SignalingSession:
    return SignalingSession(pair.alice, pair.bob.uri, **options)


def credentials(pair: EndpointPair, realm: str, user: str) -> Any:
    pair.alice.credentials.add(realm, user, "password")
    pair.bob.require_digest(realm, {user: "password"})
    return message(pair, body="x")


def handled(event: Any, act: Callable[[Any], Any], otherwise: Callable[[Any], Any], ask: Callable[[], Any]) -> None:
    """Ask, and let the handler of the event act; what it raised comes out here."""
    raised: list[BaseException] = []
    over = threading.Event()

    def handle(sender: object, args: Any) -> None:
        try:
            act(args)
        except (ValueError, TypeError) as error:
            raised.append(error)
            with contextlib.suppress(Exception):
                otherwise(args)
        finally:
            over.set()

    event += handle
    with contextlib.suppress(RealTimeException):
        ask()
    assert over.wait(BOUND)
    event -= handle
    if raised:
        raise raised[0]


def answered(pair: EndpointPair, **how: Any) -> None:
    """Bob answers a message so."""
    handled(
        pair.bob.message_received,
        lambda args: args.send_response(200, **how),
        lambda args: args.send_response(500),
        lambda: message(pair, body="x").exception(BOUND),
    )


def called(pair: EndpointPair, act: Callable[[Any], Any]) -> None:
    """Bob does that with a call."""
    handled(
        pair.bob.session_received,
        lambda args: act(args.session),
        lambda args: args.session.terminate_with_rejection(486),
        lambda: session(pair).establish(OFFER, timeout=BOUND),
    )


def watched(pair: EndpointPair, act: Callable[[Any], Any]) -> None:
    """Bob does that with a subscription."""
    handled(
        pair.bob.subscription_received,
        lambda args: act(args.subscription),
        lambda args: args.subscription.decline(603),
        lambda: SipSubscription(pair.alice, pair.bob.uri, "presence").subscribe(timeout=BOUND),
    )


def then(first: Callable[[Any], Any], second: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def both(subject: Any) -> None:
        first(subject)
        second(subject)

    return both


USES: dict[str, Use] = {
    "owner": lambda pair, text: SipPeerToPeerEndpoint(f"sip:{text}@a.example", pair.alice.connection_manager),
    "owner's host": lambda pair, text: SipPeerToPeerEndpoint(f"sip:a@{text}", pair.alice.connection_manager),
    "proxy": lambda pair, text: endpoint(pair, SipTransportType.TCP, text, 5060),
    "proxies": lambda pair, text: endpoint(pair, proxies=[f"sip:{text};lr"]),
    "gruu": lambda pair, text: endpoint(pair, gruu=f"sip:carol@a.example;gr={text}"),
    "headers of an endpoint": lambda pair, text: endpoint(pair, headers=[("X", text)]),
    "name of a header": lambda pair, text: endpoint(pair, headers=[(text, "1")]),
    "local host": lambda pair, text: RealTimeServerTcpConnectionManager(text),
    "display name": lambda pair, text: setattr(pair.alice, "display_name", text),
    "user agent": lambda pair, text: setattr(pair.alice, "application_user_agent", text),
    "feature": lambda pair, text: pair.alice.add_feature_parameter(text, "1"),
    "value of a feature": lambda pair, text: pair.alice.add_feature_parameter("x", text),
    "extension": lambda pair, text: pair.alice.add_sip_extension(text),
    "allowed method": lambda pair, text: pair.bob.allow_method(text),
    "realm": lambda pair, text: credentials(pair, text, "alice"),
    "user": lambda pair, text: credentials(pair, "realm", text),
    "header": lambda pair, text: SignalingHeader("X", text),
    "header's name": lambda pair, text: SignalingHeader(text, "1"),
    "address": lambda pair, text: RealTimeAddress(f"sip:{text}@b.example"),
    "endpoint id": lambda pair, text: RealTimeAddress("sip:b@b.example", text),
    "description": lambda pair, text: session(pair).begin_establish(ContentDescription(text, b"v=0\r\n")),
    "method": lambda pair, text: message(pair, kind=text),
    "target": lambda pair, text: message(pair, f"sip:{text}@bob.example"),
    "parameter of a target": lambda pair, text: message(pair, f"{pair.bob.uri};x={text}"),
    "target of another kind": lambda pair, text: message(pair, f"tel:{text}"),
    "content type": lambda pair, text: message(pair, None, f"text/{text}", "x"),
    "parameter of a content type": lambda pair, text: message(pair, None, f"text/plain;x={text}", "x"),
    "value of a header": lambda pair, text: message(pair, headers=[("X", text)]),
    "identity": lambda pair, text: message(pair, options=SendMessageOptions(local_identity=text)),
    "identity of a telephone": lambda pair, text: message(
        pair, options=SendMessageOptions(local_identity=f"tel:+1;x={text}")
    ),
    "name of an identity": lambda pair, text: message(
        pair, options=SendMessageOptions(local_identity=("sip:a@a.example", text))
    ),
    "header of the options": lambda pair, text: message(pair, options=SendMessageOptions(headers=[("X", text)])),
    "expected name": lambda pair, text: message(pair, options=SendMessageOptions(tls_target_name=text)),
    "connection context": lambda pair, text: message(pair, options=SendMessageOptions(connection_context=(text, 5060))),
    "reason": lambda pair, text: answered(pair, reason=text),
    "content type of an answer": lambda pair, text: answered(pair, content_type=f"text/{text}", body="x"),
    "header of an answer": lambda pair, text: answered(pair, headers=[("X", text)]),
    "call id": lambda pair, text: session(pair, call_id=text).begin_establish(OFFER),
    "header of a call": lambda pair, text: session(pair).begin_establish(OFFER, [("X", text)]),
    "replaces": lambda pair, text: session(pair).begin_establish(OFFER, replaces=text),
    "answer to a call": lambda pair, text: called(pair, lambda it: it.accept(ContentDescription(text, b"v=0\r\n"))),
    "header of an acceptance": lambda pair, text: called(pair, lambda it: it.accept(OFFER, [("X", text)])),
    "reason of a ring": lambda pair, text: called(pair, lambda it: it.send_provisional_response(180, text)),
    "header of a ring": lambda pair, text: called(
        pair, lambda it: it.send_provisional_response(180, headers=[("X", text)])
    ),
    "reason of a rejection": lambda pair, text: called(pair, lambda it: it.terminate_with_rejection(486, text)),
    "header of a rejection": lambda pair, text: called(
        pair, lambda it: it.terminate_with_rejection(486, headers=[("X", text)])
    ),
    "redirection": lambda pair, text: called(pair, lambda it: it.terminate_with_redirection(f"sip:{text}@c.example")),
    "header of a message in a call": lambda pair, text: called(
        pair,
        then(
            lambda it: it.accept(OFFER),
            lambda it: it.begin_send_message(MessageType.INFO, f"text/{text}", "x"),
        ),
    ),
    "header of a bye": lambda pair, text: called(
        pair, then(lambda it: it.accept(OFFER), lambda it: it.begin_terminate([("X", text)]))
    ),
    "transfer": lambda pair, text: called(
        pair, then(lambda it: it.accept(OFFER), lambda it: it.begin_refer(f"sip:{text}@c.example"))
    ),
    "package": lambda pair, text: SipSubscription(pair.alice, pair.bob.uri, text).begin_subscribe(),
    "accept": lambda pair, text: SipSubscription(
        pair.alice, pair.bob.uri, "presence", accept=[f"text/{text}"]
    ).begin_subscribe(),
    "header of a subscription": lambda pair, text: SipSubscription(
        pair.alice, pair.bob.uri, "presence", headers=[("X", text)]
    ).begin_subscribe(),
    "type of a notification": lambda pair, text: watched(pair, lambda it: it.accept(None, f"text/{text}", "x")),
    "header of a notification": lambda pair, text: watched(
        pair, then(lambda it: it.accept(None, "text/plain", "x"), lambda it: it.begin_notify(None, None, [("X", text)]))
    ),
    "reason of an end": lambda pair, text: watched(
        pair, then(lambda it: it.accept(None, "text/plain", "x"), lambda it: it.begin_terminate(text))
    ),
    "reason of a refusal": lambda pair, text: watched(pair, lambda it: it.decline(603, text)),
    "header of a refusal": lambda pair, text: watched(pair, lambda it: it.decline(603, headers=[("X", text)])),
    "publication": lambda pair, text: SipPublication(pair.alice, pair.bob.uri, text).begin_publish("text/plain", "x"),
    "type of a publication": lambda pair, text: SipPublication(pair.alice, pair.bob.uri, "presence").begin_publish(
        f"text/{text}", "x"
    ),
    "referred target": lambda pair, text: pair.alice.begin_refer(pair.bob.uri, f"sip:{text}@c.example"),
    "referred telephone": lambda pair, text: pair.alice.begin_refer(pair.bob.uri, f"tel:+1;x={text}"),
    "header of a transfer": lambda pair, text: pair.alice.begin_refer(pair.bob.uri, "sip:c@c.example", [("X", text)]),
}


@pytest.mark.holds("R22", "F35")
@pytest.mark.parametrize("use", USES)
def test_text_never_becomes_a_line_of_a_message(use: str) -> None:
    with endpoint_pair(SipTransportType.TCP) as pair:
        for kind, text in POISON.items():
            with pytest.raises((ValueError, TypeError)):
                operation = USES[use](pair, text)
                said = None if operation is None else operation.exception(BOUND)
                pytest.fail(f"{kind}: {said!r}")
        assert pair.alice.send_message(MessageType.OPTIONS, pair.bob.uri, timeout=BOUND).response_code == 200
        wire = b"".join(bytes(link.to_destination) + bytes(link.to_source) for link in pair.network.links)
    assert b"Injected" not in wire


@pytest.mark.holds("R22")
@pytest.mark.parametrize(
    "escaped", ["x%0d%0aInjected%3a%201", "x%0aInjected%3a%201", "x%00Injected", "x%3bInjected%3d1%0D%0A"]
)
@pytest.mark.parametrize("name", ["Replaces", "Subject", "Call-ID", "x%0d%0aInjected"])
def test_what_a_peer_has_escaped_never_becomes_a_line_either(escaped: str, name: str) -> None:
    """Of a REFER, whose target may bring header fields along, and of a redirection."""
    with endpoint_pair(SipTransportType.TCP) as pair:
        target = f"{pair.alice.uri}?{name}={escaped}"
        followed: list[object] = []
        over = threading.Event()

        def follow(sender: object, args: Any) -> None:
            try:
                followed.append(args.follow())
            except (ValueError, RealTimeException) as error:
                followed.append(error)
                with contextlib.suppress(RealTimeException):
                    args.decline(400)
            finally:
                over.set()

        pair.alice.session_received += lambda sender, args: args.session.accept(OFFER)
        pair.bob.refer_received += follow
        with contextlib.suppress(RealTimeException, ValueError):
            pair.alice.refer(pair.bob.uri, target, timeout=BOUND)
            assert over.wait(BOUND)
        pair.bob.session_received += lambda sender, args: args.session.terminate_with_redirection(
            f"sip:carol@bob.example;x={escaped}"
        )
        with contextlib.suppress(RealTimeException, ValueError):
            session(pair).establish(OFFER, timeout=BOUND)
        assert pair.alice.send_message(MessageType.OPTIONS, pair.bob.uri, timeout=BOUND).response_code == 200
        wire = b"".join(bytes(link.to_destination) + bytes(link.to_source) for link in pair.network.links)
    lines = [line for line in re.split(rb"[\r\n]+", wire) if line.lstrip().startswith(b"Injected")]
    assert lines == []
    assert b"\0" not in wire
    assert followed or name.startswith("x%")  # which may be refused before it is sent
