"""Kamailio demands a password for each request that is no ACK and no CANCEL, within dialogs as well as outside."""

from __future__ import annotations

import concurrent.futures
import contextlib
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from interop_calls import AUDIO, HELD, end_of
from interop_kamailio import KINDS, REALM, Behind, behind
from interop_support import PATIENCE
from scale import scaled

from p2psip import (
    AuthenticationException,
    ContentDescription,
    Credentials,
    FailureResponseException,
    MessageType,
    OperationFailureException,
    ReferReceivedEventArgs,
    ReferState,
    SendMessageOptions,
    SipSubscription,
)
from p2psip.enums import SignalingState
from p2psip.session import SignalingSession

pytestmark = pytest.mark.interop

ALGORITHMS = ("SHA-256", "MD5")
EACH = pytest.mark.parametrize("kind,algorithm", [(kind, algorithm) for kind in KINDS for algorithm in ALGORITHMS])


def password_of(name: str) -> str:
    """As the proxy's configuration has it."""
    return f"secret of {name}"


@contextlib.contextmanager
def challenged(folder: Path, kind: str, algorithm: str, **options: Any) -> Iterator[Behind]:
    """Alice and Bob, who both know a password, and Kamailio that wants one."""
    with behind(folder, kind, digest=algorithm, **options) as path:
        for party in path.parties:
            party.endpoint.credentials.add(REALM, party.name, password_of(party.name), allow_md5=algorithm == "MD5")
        yield path


def check_admitted(path: Behind, *methods: str) -> None:
    """The proxy let such requests in, by the password of who sent them, and a first one not before it had asked."""
    for method in methods:
        path.proxy.wait_for(f"admitted {method} ")
    assert path.proxy.said("challenged ")


def answer(offer: ContentDescription | None) -> ContentDescription:
    return AUDIO


def call_between(path: Behind) -> tuple[SignalingSession, SignalingSession]:
    """A call from Alice to Bob that is up: her end and his."""
    taken = path.bob.takes_calls(lambda session: session.accept(answer))
    session = path.alice.call(path.bob)
    session.establish(AUDIO, answer=answer, timeout=PATIENCE)
    taken.wait(1)
    return session, taken.sessions[0]


@EACH
@pytest.mark.parametrize("message_type", (MessageType.MESSAGE, MessageType.OPTIONS))
def test_requests_outside_of_dialogs(tmp_path: Path, kind: str, algorithm: str, message_type: MessageType) -> None:
    with challenged(tmp_path, kind, algorithm) as path:
        heard: list[tuple[str | None, str | None]] = []
        path.bob.endpoint.message_received += lambda sender, args: heard.append(
            (args.text_body, args.request_data.header("Proxy-Authorization"))
        )
        for number in range(3):
            response = path.alice.endpoint.send_message(message_type, path.bob.address, body=str(number))
            assert response.response_code == 200
        assert heard == [("0", None), ("1", None), ("2", None)]
        check_admitted(path, message_type.name)


@EACH
def test_a_subscription(tmp_path: Path, kind: str, algorithm: str) -> None:
    """Also the notifier is asked."""
    with challenged(tmp_path, kind, algorithm) as path:
        path.bob.endpoint.subscription_received += lambda sender, args: args.subscription.accept()
        subscription = SipSubscription(path.alice.endpoint, path.bob.address, "presence")
        taken = path.bob.endpoint.subscription_received.expect(timeout=PATIENCE)
        with taken as got, subscription.notification_received.expect(timeout=PATIENCE):
            subscription.subscribe()
        incoming = got.args.subscription
        with subscription.notification_received.expect(timeout=PATIENCE) as told:
            incoming.notify("text/plain", "closed")
        assert told.args.text_body == "closed"
        with subscription.notification_received.expect(timeout=PATIENCE):
            subscription.refresh()
        with incoming.ended.expect(timeout=PATIENCE):
            subscription.terminate()
        check_admitted(path, "SUBSCRIBE", "NOTIFY")


@EACH
@pytest.mark.parametrize("first", ("caller", "callee"))
def test_a_call_and_all_within_it(tmp_path: Path, kind: str, algorithm: str, first: str) -> None:
    with challenged(tmp_path, kind, algorithm) as path:
        call = call_between(path)
        near, far = call if first == "caller" else call[::-1]
        heard: list[str | None] = []
        for session in call:
            session.message_received += lambda sender, args: heard.append(args.text_body)
        near.send_message(MessageType.INFO, "text/plain", "one", timeout=PATIENCE)
        near.renegotiate(HELD)
        far.send_message(MessageType.INFO, "text/plain", "two", timeout=PATIENCE)
        near.renegotiate(AUDIO)
        assert heard == ["one", "two"]
        ended = end_of(far)
        near.terminate()
        assert ended.wait(PATIENCE)
        check_admitted(path, "INVITE", "INFO", "BYE")
        receiver = path.bob if first == "caller" else path.alice
        receiver.traffic.wait_for(received={"BYE": 1, "ACK": 3 if first == "caller" else 2})


@EACH
def test_reliable_provisional_responses_and_an_update(tmp_path: Path, kind: str, algorithm: str) -> None:
    updated = threading.Event()
    with challenged(tmp_path, kind, algorithm) as path:

        def take(session: SignalingSession) -> None:
            assert session.send_reliable_provisional_response(183, answer=answer) is not None
            assert updated.wait(PATIENCE)
            session.accept()

        taken = path.bob.takes_calls(take)
        session = path.alice.call(path.bob)
        operation = session.begin_establish(AUDIO)
        path.alice.traffic.wait_for(received={"200 PRACK": 1})
        session.renegotiate(HELD)
        updated.set()
        assert operation.result(PATIENCE).response_code == 200
        taken.wait(1)
        taken.sessions[0].terminate()
        assert session.is_terminated
        check_admitted(path, "INVITE", "PRACK", "UPDATE", "BYE")


@EACH
def test_a_call_that_is_taken_back(tmp_path: Path, kind: str, algorithm: str) -> None:
    """CANCEL bears what the INVITE did, and is never asked."""
    with challenged(tmp_path, kind, algorithm) as path:
        taken = path.bob.takes_calls(lambda session: session.send_provisional_response(180))
        session = path.alice.call(path.bob)
        with session.provisional_response_received.expect(timeout=PATIENCE):
            operation = session.begin_establish(AUDIO)
        taken.wait(1)
        session.terminate()
        assert isinstance(operation.exception(PATIENCE), OperationFailureException)
        path.bob.traffic.wait_for(received={"CANCEL": 1, "ACK": 1})


@EACH
@pytest.mark.parametrize("place", ("within a call", "outside of calls"))
def test_a_transfer(tmp_path: Path, kind: str, algorithm: str, place: str) -> None:
    with challenged(tmp_path, kind, algorithm) as path:
        followed: concurrent.futures.Future[SignalingSession] = concurrent.futures.Future()

        def follow(sender: object, args: ReferReceivedEventArgs) -> None:
            followed.set_result(args.follow(AUDIO))

        path.alice.takes_calls(lambda session: session.accept(answer))
        if place == "within a call":
            session, other = call_between(path)
            other.refer_received += follow
            session.transfer(path.alice.address, timeout=PATIENCE)
        else:
            path.bob.endpoint.refer_received += follow
            status = path.alice.endpoint.refer(path.bob.address, path.alice.address, timeout=PATIENCE)
            assert status.over.result(PATIENCE) is ReferState.SUCCEEDED
        call = followed.result(PATIENCE)
        assert call.state is SignalingState.CONNECTED
        call.terminate()
        check_admitted(path, "REFER", "NOTIFY", "INVITE", "BYE")


@EACH
def test_a_restart_makes_what_was_good_stale(tmp_path: Path, kind: str, algorithm: str) -> None:
    """Kamailio knows nothing any more of what it gave out before."""
    with challenged(tmp_path, kind, algorithm) as path:
        path.bob.endpoint.message_received += lambda sender, args: None
        session, other = call_between(path)
        path.alice.endpoint.send_message(MessageType.MESSAGE, path.bob.address, timeout=PATIENCE)
        path.proxy.stop()
        path.proxy.start()
        path.alice.endpoint.send_message(MessageType.MESSAGE, path.bob.address, timeout=PATIENCE)
        session.renegotiate(AUDIO)
        other.terminate()
        assert session.is_terminated


# ---------------------------------------------------------------------- the wrong ones, and many


@pytest.mark.parametrize("kind", KINDS)
def test_credentials_of_one_message(tmp_path: Path, kind: str) -> None:
    with behind(tmp_path, kind, digest="SHA-256") as path:
        path.bob.endpoint.message_received += lambda sender, args: None
        own = Credentials()
        own.add(REALM, "alice", password_of("alice"))
        options = SendMessageOptions(credentials=own)
        path.alice.endpoint.send_message(MessageType.MESSAGE, path.bob.address, options=options, timeout=PATIENCE)


@pytest.mark.parametrize("flaw", ("none", "wrong password", "MD5 not allowed", "another realm"))
def test_what_is_not_let_in(tmp_path: Path, flaw: str) -> None:
    """The sentence names the realm; the password is in no message."""
    with behind(tmp_path, "TLS", digest="MD5" if flaw.startswith("MD5") else "SHA-256") as path:
        if flaw == "wrong password":
            path.alice.endpoint.credentials.add(REALM, "alice", "guessed it")
        elif flaw == "MD5 not allowed":
            path.alice.endpoint.credentials.add(REALM, "alice", password_of("alice"))
        elif flaw == "another realm":
            path.alice.endpoint.credentials.add("elsewhere.example.com", "alice", password_of("alice"))
        with pytest.raises(AuthenticationException, match=re.escape(REALM)):
            path.alice.endpoint.send_message(MessageType.MESSAGE, path.bob.address, body="x", timeout=PATIENCE)
        with pytest.raises((AuthenticationException, FailureResponseException), match=re.escape(REALM)):
            path.alice.call(path.bob).establish(AUDIO, timeout=PATIENCE)
        tries = 2 if flaw == "wrong password" else 1
        path.alice.traffic.wait_for({"MESSAGE": tries, "INVITE": tries, "ACK": tries})
        assert path.bob.traffic.received == {}


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_many_at_a_time(tmp_path: Path, kind: str) -> None:
    """Each nonce has a count, which must grow on the wire."""
    messages, calls = scaled(5000), scaled(500)
    with challenged(tmp_path, kind, "SHA-256", wait=500) as path:
        heard: list[str | None] = []
        path.bob.endpoint.message_received += lambda sender, args: heard.append(args.text_body)
        for first in range(0, messages, 200):
            operations = [
                path.alice.endpoint.begin_send_message(MessageType.MESSAGE, path.bob.address, body=str(number))
                for number in range(first, min(first + 200, messages))
            ]
            for operation in operations:
                assert operation.result(PATIENCE).response_code == 200
        assert sorted(map(int, heard)) == list(range(messages))
        print(f"{path.alice.traffic.sent['MESSAGE']} requests for {messages} messages over {kind}")
        path.bob.takes_calls(lambda session: session.accept(answer))
        sessions = [path.alice.call(path.bob) for _ in range(calls)]
        for begun in [session.begin_establish(AUDIO) for session in sessions]:
            assert begun.result(PATIENCE).response_code == 200
        for ended in [session.begin_terminate() for session in sessions]:
            ended.result(PATIENCE)
        path.bob.traffic.wait_for(received={"BYE": calls})
