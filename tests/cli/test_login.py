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
        self.endpoint.require_digest("bob.example", {"alice": PASSWORD}, algorithms=algorithms)


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
    ("more", "password", "why"),
    [
        ((), PASSWORD, "give them with --user"),
        (("--user", "alice"), "wrong", "user name or password is wrong"),
        (("--user", "alice", "--realm", "other"), PASSWORD, "give them with --user"),
    ],
    ids=["nobody", "wrong password", "other realm"],
)
def test_who_is_not_let_in(
    server: Server, command: CommandLine, more: tuple[str, ...], password: str, why: str
) -> None:
    command.environment["P2PSIP_PASSWORD"] = password
    result = command.run("send", server.address, "hello", *more)
    assert result.code == 1, result
    assert "401 Unauthorized" in result.sentence
    assert why in result.sentence
    assert server.texts == []
    result = command.run("options", "--count=1", server.address, *more)
    assert result.code == 1
    assert 'for the realm "bob.example"' in result.sentence


def test_a_call_and_a_subscription_that_are_refused_say_what_is_missing(server: Server, command: CommandLine) -> None:
    for arguments in (("call", "--duration=1"), ("subscribe", "--count=1")):
        result = command.run(*arguments, server.address)
        assert result.code == 1, result
        assert 'it wants credentials for the realm "bob.example": give them with --user' in result.sentence


def test_md5_only_where_it_is_allowed(server: Server, command: CommandLine) -> None:
    server.demand("MD5")
    result = command.run("call", server.address, "--user", "alice")
    assert result.code == 1
    assert "--allow-md5 allows it" in result.sentence
    assert command.run("options", "--count=1", server.address, "--user", "alice", "--allow-md5").code == 0


def test_a_call_between_two_commands(tmp_path: Path, command: CommandLine) -> None:
    users = tmp_path / "users"
    users.write_text(f"# who may call\n\nbob:x\nalice:{PASSWORD}\n", encoding="utf-8")
    listening = ("--tcp", "--json", "--port=0", "--host=127.0.0.1", "--users", users, "--realm=here")
    with command.start("answer", *listening, "--count=1") as running:
        address = f"sip:bob@127.0.0.1:{running.json_line()['port']};transport=tcp"
        assert command.run("call", "--duration=0.1", address).code == 1
        assert command.run("call", "--duration=0.1", address, "--user", "alice", "--realm", "here").code == 0
        while running.json_line().get("event") != "ladder":
            pass
        assert running.end().code == 0


def test_listen_tells_who_it_was(tmp_path: Path, command: CommandLine) -> None:
    users = tmp_path / "users"
    users.write_text(f"alice:{PASSWORD}\n", encoding="utf-8")
    with command.start(
        "listen", "--tcp", "--json", "--port=0", "--host=127.0.0.1", "--users", users, "--once"
    ) as running:
        address = f"sip:bob@127.0.0.1:{running.json_line()['port']};transport=tcp"
        assert command.run("send", address, "hello", "--user", "alice").code == 0
        assert running.json_line()["user"] == "alice"
        assert running.end().code == 0


@pytest.mark.parametrize("text", ["alice", ":x", "alice:", "alice:x\nbob"])
def test_a_file_of_users_that_is_none(tmp_path: Path, command: CommandLine, text: str) -> None:
    users = tmp_path / "users"
    users.write_text(text, encoding="utf-8")
    result = command.run("listen", "--tcp", "--port=0", "--users", users)
    assert result.code == 2
    assert "is not NAME:PASSWORD" in result.sentence
    assert "x" not in result.sentence.replace(str(users), "")


def test_a_file_of_users_that_is_not_there(tmp_path: Path, command: CommandLine) -> None:
    assert command.run("listen", "--tcp", "--port=0", "--users", tmp_path / "nowhere").code == 2
    assert command.run("listen", "--tcp", "--port=0", "--realm", "x").code == 2


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
