"""Credentials of an endpoint or a message, and endpoints that demand them (RFC 3261 22, RFC 7616, RFC 8760)."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from facade_support import BOUND, TcpPair, tcp_pair

from p2psip import (
    AuthenticationException,
    AuthenticationFailureReason,
    ContentDescription,
    Credentials,
    MessageType,
    SendMessageOptions,
    SignalingSession,
    SipSubscription,
)
from p2psip.core.digest import secret_of

REALM = "b.example"
PASSWORD = "wonder land"
OFFER = ContentDescription("application/sdp", b"v=0\r\n")
MD5 = ("MD5",)


@contextlib.contextmanager
def friends() -> Iterator[TcpPair]:
    """Bob takes messages."""
    with tcp_pair() as two:
        two.bob.message_received += lambda sender, args: None
        yield two


@pytest.fixture
def pair() -> Iterator[TcpPair]:
    """Bob demands it; Alice does not know that yet."""
    with friends() as two:
        two.bob.require_digest(REALM, {"alice": PASSWORD})
        yield two


def send(pair: TcpPair, **more: Any) -> int:
    return pair.alice.send_message(MessageType.MESSAGE, pair.bob.uri, body="hi", timeout=BOUND, **more).response_code


def refusal(pair: TcpPair, **more: Any) -> AuthenticationException:
    with pytest.raises(AuthenticationException) as raised:
        send(pair, **more)
    return raised.value


# ---------------------------------------------------------------------- messages


def test_a_message_with_credentials_is_let_in_and_its_sender_known(pair: TcpPair) -> None:
    users: list[str | None] = []
    pair.bob.message_received += lambda sender, args: users.append(args.authenticated_user)
    pair.alice.credentials.add(REALM, "alice", PASSWORD)
    assert [send(pair), send(pair)] == [200, 200]
    assert users == ["alice", "alice"]


def test_credentials_of_one_message(pair: TcpPair) -> None:
    own = Credentials()
    own.add(None, "alice", PASSWORD)
    assert send(pair, options=SendMessageOptions(credentials=own)) == 200
    assert refusal(pair).realm == REALM


def test_a_secret_in_place_of_the_password() -> None:
    with friends() as pair:
        secret = secret_of("SHA-256", "alice", REALM, PASSWORD)
        pair.bob.require_digest(REALM, {"alice": {"SHA-256": secret}})
        pair.alice.credentials.add(REALM, "alice", secrets={"SHA-256": secret})
        assert send(pair) == 200


def test_without_credentials_the_sentence_says_where_and_how(pair: TcpPair) -> None:
    error = refusal(pair)
    assert error.failure_reason is AuthenticationFailureReason.MISSING_CREDENTIALS
    assert error.realm == REALM
    assert "401 Unauthorized by 127.0.0.1" in str(error)
    assert f'endpoint.credentials.add("{REALM}"' in str(error)


@pytest.mark.holds("R34")
def test_wrong_credentials_are_tried_once_and_called_wrong(pair: TcpPair) -> None:
    tried: list[bytes] = []
    pair.alice.connection_manager.trace += lambda sender, args: tried.append(args.data)
    pair.alice.credentials.add(REALM, "alice", "wrong")
    for _ in range(2):
        error = refusal(pair)
        assert error.failure_reason is AuthenticationFailureReason.INVALID_CREDENTIALS
        assert "alice" in str(error)
        assert REALM in str(error)
        assert "wrong" not in str(error).replace("is wrong", "")
    sent = [data for data in tried if data.startswith(b"MESSAGE")]
    assert [b"Authorization" in data for data in sent] == [False, True, False, True]


@pytest.mark.holds("R34")
def test_md5_is_answered_where_it_is_allowed() -> None:
    with friends() as pair:
        pair.bob.require_digest(REALM, {"alice": PASSWORD}, algorithms=MD5)
        pair.alice.credentials.add(REALM, "alice", PASSWORD)
        error = refusal(pair)
        assert error.failure_reason is AuthenticationFailureReason.NO_COMMON_PROTOCOLS
        assert "allow_md5=True" in str(error)
        pair.alice.credentials.add(REALM, "alice", PASSWORD, allow_md5=True)
        assert send(pair) == 200


def test_a_scheme_that_is_not_known() -> None:
    with friends() as pair:
        basic = [("Proxy-Authenticate", 'Basic realm="x"')]
        pair.bob.message_received += lambda sender, args: args.send_response(407, headers=basic)
        pair.alice.credentials.add("x", "alice", PASSWORD)
        error = refusal(pair)
        assert error.failure_reason is AuthenticationFailureReason.NO_COMMON_PROTOCOLS
        assert "SHA-256" in str(error)
        assert error.realm == "x"


def test_removed_credentials_are_used_no_more(pair: TcpPair) -> None:
    pair.alice.credentials.add(REALM, "alice", PASSWORD)
    assert send(pair) == 200
    pair.alice.credentials.remove(REALM)
    assert refusal(pair).failure_reason is AuthenticationFailureReason.MISSING_CREDENTIALS


@pytest.mark.holds("R16")
def test_secrets_are_never_shown(pair: TcpPair, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    traces: list[bytes] = []
    for manager in (pair.alice.connection_manager, pair.bob.connection_manager):
        manager.trace += lambda sender, args: traces.append(args.data)
    pair.alice.credentials.add(REALM, "alice", PASSWORD)
    assert send(pair) == 200
    assert PASSWORD not in repr(pair.alice.credentials) + repr(pair.alice.credentials.find(REALM)) + caplog.text
    assert not any(PASSWORD.encode() in data or b"response=" in data for data in traces)
    assert any(b"\r\nAuthorization: ***\r\n" in data for data in traces)


# ---------------------------------------------------------------------- sessions and subscriptions


def test_a_call_and_all_that_is_in_it(pair: TcpPair) -> None:
    users: list[str | None] = []
    ended = threading.Event()

    def received(sender: Any, args: Any) -> None:
        users.append(args.authenticated_user)
        args.session.message_received += lambda session, message: users.append(message.authenticated_user)
        args.session.begin_accept(OFFER)

    pair.bob.session_received += received
    pair.alice.credentials.add(REALM, "alice", PASSWORD)
    session = SignalingSession(pair.alice, pair.bob.uri)
    session.establish(OFFER, timeout=BOUND)
    session.send_message(MessageType.INFO, timeout=BOUND)
    session.state_changed += lambda sender, args: ended.set() if args.state.name == "DISCONNECTED" else None
    session.terminate()
    assert ended.wait(BOUND)
    assert users == ["alice", "alice"]


def test_a_call_without_credentials_is_refused(pair: TcpPair) -> None:
    pair.bob.session_received += lambda sender, args: args.session.begin_accept(OFFER)
    session = SignalingSession(pair.alice, pair.bob.uri)
    with pytest.raises(AuthenticationException, match=r"endpoint\.credentials\.add"):
        session.establish(OFFER, timeout=BOUND)


def test_a_subscription(pair: TcpPair) -> None:
    users: list[str | None] = []

    def received(sender: Any, args: Any) -> None:
        users.append(args.authenticated_user)
        args.subscription.accept()

    pair.bob.subscription_received += received
    subscription = SipSubscription(pair.alice, pair.bob.uri, "presence")
    with pytest.raises(AuthenticationException):
        subscription.subscribe()
    pair.alice.credentials.add(REALM, "alice", PASSWORD)
    subscription = SipSubscription(pair.alice, pair.bob.uri, "presence")
    subscription.subscribe()
    subscription.terminate()
    assert users == ["alice"]


# ---------------------------------------------------------------------- demanding it


def test_another_demand_takes_the_place_of_the_first(pair: TcpPair) -> None:
    pair.alice.credentials.add(REALM, "alice", PASSWORD)
    assert send(pair) == 200
    pair.bob.require_digest(REALM, {"carol": "x"})
    assert refusal(pair).failure_reason is AuthenticationFailureReason.INVALID_CREDENTIALS
    pair.bob.require_no_digest()
    pair.alice.credentials.remove(REALM)
    assert send(pair) == 200


def test_the_users_are_copied(pair: TcpPair) -> None:
    """No code of the application runs on the loop."""
    users = {"alice": PASSWORD}
    pair.bob.require_digest(REALM, users)
    users.clear()
    pair.alice.credentials.add(REALM, "alice", PASSWORD)
    assert send(pair) == 200


@pytest.mark.parametrize("algorithms", [("SHA-512-256", "SHA-256"), ("SHA-256",), "SHA-512-256"])
@pytest.mark.parametrize("qop", ["auth", "auth-int"])
def test_algorithms_and_integrity(algorithms: Any, qop: str) -> None:
    with friends() as pair:
        pair.bob.require_digest(REALM, {"alice": PASSWORD}, algorithms=algorithms, qop=qop)
        pair.alice.credentials.add(REALM, "alice", PASSWORD)
        assert send(pair) == 200


@pytest.mark.parametrize(
    ("realm", "users", "more"),
    [
        ("", {"a": "b"}, {}),
        ("a\r\nb", {"a": "b"}, {}),
        (REALM, {"": "b"}, {}),
        (REALM, {"a": 1}, {}),
        (REALM, [("a", "b")], {}),
        (REALM, {"a": {"SHA-256": "short"}}, {}),
        (REALM, {"a": {"SHA-1": "0" * 64}}, {}),
        (REALM, {"a": "b"}, {"algorithms": ()}),
        (REALM, {"a": "b"}, {"algorithms": ("SHA-1",)}),
        (REALM, {"a": "b"}, {"qop": "auth,auth-int"}),
        (REALM, {"a": "\ud800"}, {}),
    ],
)
def test_wrong_demands(realm: Any, users: Any, more: Any) -> None:
    with tcp_pair() as pair, pytest.raises((ValueError, TypeError)):
        pair.bob.require_digest(realm, users, **more)


@pytest.mark.parametrize(
    "arguments",
    [
        {"realm": "x", "user_name": "", "password": "p"},
        {"realm": "x", "user_name": "a\r\nb", "password": "p"},
        {"realm": "x", "user_name": "a"},
        {"realm": "x", "user_name": "a", "password": "p", "secrets": {}},
        {"realm": "x", "user_name": "a", "password": "\ud800"},
        {"realm": None, "user_name": "a", "secrets": {"MD5": "0" * 32}},
        {"realm": "x", "user_name": "a", "secrets": {}},
        {"realm": "x", "user_name": "a", "secrets": {"MD5": "x" * 32}},
        {"realm": "x", "user_name": "a", "password": b"p"},
    ],
    ids=str,
)
def test_wrong_credentials_are_no_credentials(arguments: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        Credentials().add(**arguments)
