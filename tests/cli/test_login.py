"""``--user`` with a peer that demands digest authentication, and where the password comes from."""

from __future__ import annotations

import argparse
import getpass
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_support import CommandLine, Result

from p2psip import MessageReceivedEventArgs, RealTimeServerTcpConnectionManager, SipPeerToPeerEndpoint
from p2psip.cli import login
from p2psip.cli.exits import CommandError, ExitCode
from p2psip.core.authentication import Credential
from p2psip.core.digest_demand import DigestDemand

PASSWORD = "wonder land"


class Server:
    """A peer that lets alice in; its address, and what it was sent."""

    def __init__(self, endpoint: SipPeerToPeerEndpoint, port: int) -> None:
        self.endpoint = endpoint
        self.address = f"sip:bob@127.0.0.1:{port};transport=tcp"
        self.texts: list[str | None] = []
        endpoint.message_received += self._received

    def _received(self, sender: Any, args: MessageReceivedEventArgs) -> None:
        self.texts.append(args.text_body)

    def demand(self, *algorithms: str) -> None:
        users = {"alice": Credential("alice", PASSWORD, allow_md5=True)}
        self.endpoint._record.demand = DigestDemand("bob.example", users, algorithms, "key")


@pytest.fixture
def server() -> Iterator[Server]:
    with RealTimeServerTcpConnectionManager() as manager:
        manager.start_listening(("127.0.0.1", 0))
        with SipPeerToPeerEndpoint("sip:bob@127.0.0.1", manager) as endpoint:
            there = Server(endpoint, manager.listening_port)
            there.demand("SHA-256")
            yield there


@pytest.fixture
def command(tmp_path: Path) -> CommandLine:
    line = CommandLine(tmp_path)
    line.environment["P2PSIP_PASSWORD"] = PASSWORD
    return line


@pytest.mark.parametrize("more", [(), ("--realm", "bob.example")])
def test_send_with_a_password_of_the_environment(server: Server, command: CommandLine, more: tuple[str, ...]) -> None:
    result = command.run("send", "-v", server.address, "hello", "--user", "alice", *more)
    assert result.code == 0, result
    assert result.out.startswith("200 OK")
    assert server.texts == ["hello"]
    assert "Authorization: ***" in result.err  # the wire trace
    assert PASSWORD not in result.err + result.out


@pytest.mark.parametrize(
    ("more", "password"),
    [((), PASSWORD), (("--user", "alice"), "wrong"), (("--user", "alice", "--realm", "other"), PASSWORD)],
    ids=["nobody", "wrong password", "other realm"],
)
def test_who_is_not_let_in(server: Server, command: CommandLine, more: tuple[str, ...], password: str) -> None:
    command.environment["P2PSIP_PASSWORD"] = password
    result = command.run("send", server.address, "hello", *more)
    assert result.code == 1, result
    assert "401 Unauthorized" in result.sentence
    assert server.texts == []


def test_md5_only_where_it_is_allowed(server: Server, command: CommandLine) -> None:
    server.demand("MD5")
    assert command.run("options", "--count=1", server.address, "--user", "alice").code == 1
    assert command.run("options", "--count=1", server.address, "--user", "alice", "--allow-md5").code == 0


def test_each_ping_is_answered(server: Server, command: CommandLine) -> None:
    result = command.run("options", "--count=3", "--interval=0", "--json", server.address, "--user", "alice")
    assert [line["status"] for line in result.json if line["event"] == "answer"] == [200, 200, 200]


def test_what_belongs_to_user_is_not_given_alone(server: Server, command: CommandLine) -> None:
    for option in (("--realm", "bob.example"), ("--allow-md5",)):
        result = command.run("send", server.address, "hello", *option)
        assert result.code == 2, result
        assert "--user" in result.sentence


def run_without_terminal(command: CommandLine, *arguments: str, text: bytes) -> Result:
    running = command.start(*arguments, stdin=subprocess.PIPE, start_new_session=True)
    return running.wait(text)


@pytest.mark.skipif(sys.platform == "win32", reason="a console cannot be taken away there")
def test_without_a_terminal_nothing_is_taken_for_a_password(server: Server, command: CommandLine) -> None:
    del command.environment["P2PSIP_PASSWORD"]
    result = run_without_terminal(command, "send", server.address, "--user", "alice", text=b"what is to be sent")
    assert result.code == 2, result
    assert "P2PSIP_PASSWORD" in result.sentence
    assert server.texts == []


def test_the_terminal_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("P2PSIP_PASSWORD", raising=False)
    asked: list[str] = []
    monkeypatch.setattr(getpass, "getpass", lambda prompt: asked.append(prompt) or "typed")
    assert login.read_password("alice") == "typed"
    assert asked == ["Password of alice: "]


def test_a_terminal_that_would_show_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def show(prompt: str) -> str:
        warnings.warn("Can not control echo on the terminal.", getpass.GetPassWarning, stacklevel=2)
        return "shown"

    monkeypatch.delenv("P2PSIP_PASSWORD", raising=False)
    monkeypatch.setattr(getpass, "getpass", show)
    with pytest.raises(CommandError) as raised:
        login.read_password("alice")
    assert raised.value.exit_code is ExitCode.USAGE


def test_wrong_user_names_are_usage_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("P2PSIP_PASSWORD", "x")
    with (
        RealTimeServerTcpConnectionManager() as manager,
        SipPeerToPeerEndpoint("sip:bob@127.0.0.1", manager) as endpoint,
    ):
        for user in ("", "a\r\nb"):
            args = argparse.Namespace(user=user, realm=None, allow_md5=False)
            with pytest.raises(CommandError):
                login.log_in(args, endpoint)
