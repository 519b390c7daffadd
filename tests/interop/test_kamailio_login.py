"""Kamailio demands a password for each request, of our endpoints and of our command line (RFC 3261 22.3)."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from interop_calls import AUDIO
from interop_kamailio import DOMAIN, REALM, Behind, behind
from interop_support import LOOPBACK, PATIENCE

from p2psip import AuthenticationException, AuthenticationFailureReason, MessageType


@contextlib.contextmanager
def demanding(folder: Path, algorithm: str, kind: str = "TCP") -> Iterator[Behind]:
    """Both endpoints know their passwords; Bob takes whatever comes."""
    with behind(folder, kind, digest=algorithm) as path:
        for party in path.parties:
            party.endpoint.credentials.add(REALM, party.name, f"secret of {party.name}", allow_md5=algorithm == "MD5")
            party.endpoint.message_received += lambda sender, args: None
        path.bob.endpoint.subscription_received += lambda sender, args: args.subscription.accept(
            None, "text/plain", "open"
        )

        def take(session: object) -> None:
            session.message_received += lambda sender, args: None  # type: ignore[attr-defined]
            session.accept(lambda offer: AUDIO)  # type: ignore[attr-defined]

        path.bob.takes_calls(take)
        yield path


class User:
    """Somebody with our command line."""

    def __init__(self, path: Behind, folder: Path, password: str = "secret of alice") -> None:
        self._path = path
        self._folder = folder
        self._password = password

    def run(self, command: str, *more: str) -> subprocess.CompletedProcess[str]:
        proxy = f"{LOOPBACK}:{self._path.proxy.tcp_port}"
        words = [sys.executable, "-m", "p2psip", command, f"sip:bob@{DOMAIN}", *more]
        words += ["--tcp", "--proxy", proxy, "--from", f"sip:alice@{DOMAIN}", "--user", "alice", "--realm", REALM]
        environment = {**os.environ, "P2PSIP_PASSWORD": self._password, "HOME": str(self._folder)}
        return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=2 * PATIENCE, check=False)


@pytest.mark.parametrize("algorithm", ["SHA-256", "MD5"])
def test_each_request_is_admitted_at_the_second_try_or_at_once(tmp_path: Path, algorithm: str) -> None:
    """What was good for one request is said with the next ones."""
    with demanding(tmp_path, algorithm) as path:
        for _ in range(20):
            response = path.alice.endpoint.send_message(MessageType.MESSAGE, path.bob.address, timeout=PATIENCE)
            assert response.response_code == 200
        session = path.alice.call(path.bob)
        session.establish(AUDIO, timeout=PATIENCE)
        session.send_message(MessageType.INFO, timeout=PATIENCE)
        session.terminate()
        path.alice.traffic.wait_for(received={"200 BYE": 1})
        path.proxy.stop()  # all that it said can be read now
        assert len(path.proxy.said("admitted MESSAGE")) == 20
        assert len(path.proxy.said("challenged MESSAGE")) == 1
        for method in ("INVITE", "INFO", "BYE"):
            assert path.proxy.said(f"admitted {method} .*user=alice"), method
        assert len(path.proxy.said("challenged")) == 1


def test_a_wrong_password_is_tried_once(tmp_path: Path) -> None:
    with demanding(tmp_path, "SHA-256") as path:
        path.alice.endpoint.credentials.add(REALM, "alice", "wrong")
        with pytest.raises(AuthenticationException, match="a proxy did not accept the credentials of alice") as caught:
            path.alice.endpoint.send_message(MessageType.MESSAGE, path.bob.address, timeout=PATIENCE)
        assert caught.value.failure_reason is AuthenticationFailureReason.INVALID_CREDENTIALS
        path.proxy.stop()  # all that it said can be read now
        assert len(path.proxy.said("challenged MESSAGE")) == 2


def test_the_command_line(tmp_path: Path) -> None:
    with demanding(tmp_path, "SHA-256") as path:
        user = User(path, tmp_path)
        for command, *more in (
            ["send", "hello"],
            ["options", "--count=3", "--interval=0"],
            ["call", "--duration=0.1"],
            ["subscribe", "--count=1"],
        ):
            result = user.run(command, *more)
            assert result.returncode == 0, result
        for method in ("MESSAGE", "OPTIONS", "INVITE", "BYE", "SUBSCRIBE"):
            assert path.proxy.said(f"admitted {method} .*user=alice"), method
        wrong = User(path, tmp_path, "wrong").run("send", "hello")
        assert wrong.returncode == 1
        assert "user name or password is wrong" in wrong.stderr
