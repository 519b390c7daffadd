"""What the words on the command line mean, and what the terminal gets to see."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from p2psip.cli import common, console
from p2psip.cli.exits import CommandError, ExitCode


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (common.host_and_port, "example.com", ("example.com", None)),
        (common.host_and_port, "example.com:5061", ("example.com", 5061)),
        (common.host_and_port, "192.0.2.1:1", ("192.0.2.1", 1)),
        (common.host_and_port, "2001:db8::1", ("2001:db8::1", None)),
        (common.host_and_port, "[2001:db8::1]", ("2001:db8::1", None)),
        (common.host_and_port, "[2001:db8::1]:5061", ("2001:db8::1", 5061)),
        (common.port, "0", 0),
        (common.port, "65535", 65535),
        (common.status_code, "486", 486),
        (common.count, "0", 0),
        (common.seconds, "0.5", 0.5),
        (common.pause, "0", 0.0),
        (common.header, "Subject: lunch: noon", ("Subject", "lunch: noon")),
        (common.header, "X-Empty:", ("X-Empty", "")),
        (common.address, "bob@example.com", "sip:bob@example.com"),
        (common.address, "SIPS:bob@example.com", "SIPS:bob@example.com"),
        (common.address, "tel:+1234", "tel:+1234"),
        (common.address, "localhost:5061", "sip:localhost:5061"),
        (common.address, "im:5061", "sip:im:5061"),
        (common.peer_host, "example.com:5063", ("example.com", 5063)),
        (common.peer_host, "sip:bob@example.com:5063;transport=tls?Subject=x", ("example.com", 5063)),
        (common.peer_host, "bob@[2001:db8::1]", ("2001:db8::1", None)),
        (common.peer_host, "2001:db8::1", ("2001:db8::1", None)),
        (common.ip_address, "::", "::"),
    ],
)
def test_good_values(read: Callable[[str], Any], text: str, value: Any) -> None:
    assert read(text) == value


@pytest.mark.parametrize(
    ("read", "text"),
    [
        *(
            (common.host_and_port, text)
            for text in ("", "a b", "host:", "host:0", "host:65536", "host:x", "[::1]x", "a:b:c")
        ),
        *((common.peer_host, text) for text in ("", "sip:bob@", "bob@host:x", "https://example.com")),
        *((common.address, text) for text in ("", "http://example.com", "mailto:bob@example.com")),
        *((common.ip_address, text) for text in ("", "localhost", "1.2.3")),
        *((common.port, text) for text in ("-1", "65536", "x", "", "5_0", "\u0665")),
        *((common.status_code, text) for text in ("100", "199", "700", "OK")),
        *((common.count, text) for text in ("-1", "1.5", "9999999999")),
        *((common.seconds, text) for text in ("0", "-1", "inf", "nan", "soon")),
        *((common.pause, text) for text in ("-1", "inf", "nan", "")),
        *((common.header, text) for text in ("Subject", ": value", "")),
    ],
)
def test_bad_values_are_complained_about(read: Callable[[str], Any], text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        read(text)
    assert repr(text) in str(caught.value)


def test_password_is_the_first_line(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("s3cret word\nmore\n", encoding="utf-8")
    assert common.read_password(str(path)) == "s3cret word"
    assert common.read_password(None) is None


def test_text_that_the_locale_cannot_read_is_sent_as_it_was_typed() -> None:
    assert common.read_text("Gr\u00fc\u00dfe") == "Gr\u00fc\u00dfe"
    assert common.read_text("Gr\udcc3\udcbc") == b"Gr\xc3\xbc"


@pytest.mark.parametrize(
    ("system", "shown"), [("linux", "send 'a b'"), ("darwin", "send 'a b'"), ("win32", 'send "a b"')]
)
def test_commands_to_be_copied_are_quoted_as_the_shell_wants_it(
    monkeypatch: pytest.MonkeyPatch, system: str, shown: str
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    assert common.for_shell("send 'a b'") == shown


def test_missing_password_file_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="password file") as caught:
        common.read_password(str(tmp_path / "nowhere"))
    assert caught.value.exit_code is ExitCode.CERTIFICATE


@pytest.mark.parametrize(
    ("name", "user"), [("alice", "alice"), ("a.b-c_1", "a.b-c_1"), ("DOM\\alice", "p2psip"), ("", "p2psip")]
)
def test_user_name_fits_an_address(monkeypatch: pytest.MonkeyPatch, name: str, user: str) -> None:
    monkeypatch.setattr(common.getpass, "getuser", lambda: name)
    assert common.user_name() == user


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain \u00e4\u4f60", "plain \u00e4\u4f60"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("a\r\nb", "a\\r\\nb"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        (b"\xff\xfeA", "\\xff\\xfeA"),
        ("\udcff", "\\udcff"),
    ],
)
def test_peers_cannot_steer_the_terminal(raw: str | bytes, shown: str) -> None:
    assert console.printable(raw) == shown


def test_lines_are_kept_where_they_are_wanted() -> None:
    assert console.printable(b"MESSAGE\r\n\tx\r\n\x9b\x00", lines=True) == "MESSAGE\n\tx\n\\x9b\\x00"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.00048, "0.48 ms"), (0.0123, "12.3 ms"), (1.2044, "1204 ms"), (0.0, "0.00 ms")]
)
def test_times_have_three_figures(seconds: float, text: str) -> None:
    assert console.milliseconds(seconds) == text


def test_table_has_two_columns() -> None:
    assert console.table([("a", "1"), ("long", "2"), ("x", "")]) == ["  a     1", "  long  2", "  x"]


def test_ipv6_gets_brackets() -> None:
    assert console.endpoint(("::1", 5061)) == "[::1]:5061"
    assert console.endpoint(("127.0.0.1", 5061)) == "127.0.0.1:5061"
