"""What a user meets first: help, usage errors, and a machine on which nothing is configured."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_support import CommandLine, closed_port

from p2psip._version import __version__
from p2psip.cli import identity
from p2psip.cli.exits import MEANINGS
from p2psip.cli.main import COMMANDS, main, parser


def names() -> list[str]:
    return [command.__name__.rpartition(".")[2] for command in COMMANDS]


def test_help_names_every_command_and_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    for name in ("demo", "listen", "send", "options", "certs", "check"):
        assert name in names()
        assert f"\n    {name} " in out
    for code, meaning in MEANINGS.items():
        assert f"{code.value:>3}  {meaning}" in out
    assert "P2PSIP_CERTIFICATE_STORE" in out


@pytest.mark.parametrize(
    "words", [[name] for name in names() if name != "certs"] + [["certs", "make"], ["certs", "show"]], ids=" ".join
)
def test_every_command_has_help(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*words, "--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert "--verbose" in out
    assert "--json" in out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"p2psip {__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["dance"],
        ["send"],
        ["send", "--timeout", "0", "sip:bob@example.com", "x"],
        ["send", "--tcp", "sip:bob@", "x"],
        ["send", "--tcp", "sip:bob@example.com;transport=udp", "x"],
        ["send", "--tcp", "--header", "Via: x", "sip:bob@example.com", "x"],
        ["send", "--tcp", "--content-type", "nonsense", "sip:bob@example.com", "x"],
        ["send", "--tcp", "--from", "sip:alice@example.com:5061", "sip:bob@example.com", "x"],
        ["options", "--count", "-1", "sip:bob@example.com"],
        ["listen", "--port", "70000"],
        ["listen", "--answer", "100"],
        ["listen", "--tcp", "--host", "not an address", "--port", "0"],
        ["check", "host:port"],
        ["check"],
        ["certs"],
        ["demo", "--port", "x"],
    ],
    ids=" ".join,
)
def test_a_wrong_argument_is_one_sentence(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    try:
        code = main(arguments)
    except SystemExit as ended:
        code = int(ended.code or 0)
    captured = capsys.readouterr()
    assert code == 2, captured
    assert captured.out == ""
    assert captured.err.startswith("p2psip")
    assert captured.err.count("\n") == 1
    assert captured.err.endswith(".\n")


@pytest.mark.parametrize(
    "arguments", [["send", "sip:bob@127.0.0.1", "x"], ["options", "sip:bob@127.0.0.1"], ["listen", "--port", "0"]]
)
def test_without_certificates_the_first_error_says_what_to_do(tmp_path: Path, arguments: list[str]) -> None:
    result = CommandLine(tmp_path).run(*arguments)
    assert result.code == 6, result
    assert result.out == ""
    assert "p2psip certs make" in result.sentence
    assert "--tcp" in result.sentence


def test_a_failure_is_json_where_json_is_wanted(tmp_path: Path) -> None:
    result = CommandLine(tmp_path).run("send", "--json", "--tcp", f"sip:bob@127.0.0.1:{closed_port()}", "x")
    assert result.code == 3, result
    (told,) = result.json
    assert told["exit_code"] == 3
    assert told["reason"] == "CONNECTION"
    assert told["error"] in result.sentence


@pytest.mark.parametrize("seconds", [1.0, 15.0, 60.0])
def test_silence_in_the_handshake_is_a_time_out_however_long_one_waits(seconds: float) -> None:
    args = parser().parse_args(["send", "--tcp", "--timeout", str(seconds), "sip:bob@example.com", "x"])
    with identity.open_manager(args, tcp=True) as manager:
        assert manager.settings.handshake_timeout > seconds
