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
    for name in ("demo", "listen", "send", "options", "call", "answer", "subscribe", "certs", "check"):
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
        ["dance"],
        ["listen", "--prot", "5061"],
        ["send", "--tcp", "sips:bob@example.com", "x"],
        ["send", "--tcp", "sip:bob@example.com;transport=TLS", "x"],
        ["send", "--tcp", "mailto:bob@example.com", "x"],
        ["listen", "--key", "some.key"],
        ["listen", "--issuer", "x", "--serial", "1", "--certificate", "some.pem"],
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
        ["check", "a:b:c"],
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


@pytest.mark.parametrize(("arguments", "shown"), [([], "options"), (["certs"], "make")])
def test_without_a_command_one_is_shown_which_there_are(
    capsys: pytest.CaptureFixture[str], arguments: list[str], shown: str
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert f"\n    {shown} " in captured.out
    assert captured.err.startswith(" ".join(["p2psip", *arguments]) + ": The ")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["sned", "x"], "p2psip: There is no command 'sned', perhaps 'send' was meant;"),
        (["dance"], "only demo, listen, send, options, call, answer, subscribe, certs, resolve and check;"),
        (["certs", "mke"], "p2psip certs: There is no action 'mke', perhaps 'make' was meant;"),
        (["listen", "--prot", "1"], "p2psip listen: Unrecognized arguments: --prot 1; see p2psip listen --help."),
        (["send", "bob@example.com", "see", "you"], "p2psip send: The text is one argument: put it in quotes;"),
    ],
)
def test_mistakes_of_typing_are_understood(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "verbose", "json"),
    [
        (["listen"], 0, False),
        (["-v", "listen"], 1, False),
        (["--json", "listen", "-vv"], 2, True),
        (["-v", "certs", "show", "--json"], 1, True),
    ],
)
def test_general_options_stand_before_the_command_or_after(arguments: list[str], verbose: int, json: bool) -> None:
    args = parser().parse_args(arguments)
    assert (args.verbose, args.json) == (verbose, json)


def test_roots_that_are_not_there_are_our_own_mistake(tmp_path: Path) -> None:
    result = CommandLine(tmp_path).run("check", "--trusted", tmp_path / "nothing", "127.0.0.1:1")
    assert (result.code, result.out) == (6, ""), result
    assert "nothing" in result.sentence


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
