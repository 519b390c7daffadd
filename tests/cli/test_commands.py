"""The commands against each other and against peers with something wrong, each in a process of its own."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_support import (
    PATIENCE,
    CommandLine,
    Result,
    Running,
    closed_port,
    plain_server,
    serve,
    silent_port,
    tls_server,
)
from packet_reader import CaptureContents

from p2psip.testing import CertificateAuthority


class Home:
    """A user whose store has one certificate, for this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = CertificateAuthority()
        self.store = folder / "certificates"
        self.authority.store(self.store, self.authority.issue("localhost", "127.0.0.1"))
        self.command = CommandLine(folder)
        self.command.environment["P2PSIP_CERTIFICATE_STORE"] = str(self.store)

    @contextlib.contextmanager
    def listening(self, *arguments: str | Path) -> Iterator[tuple[Running, str]]:
        """``p2psip listen`` with these arguments, and the HOST:PORT where it listens."""
        running = self.command.start("listen", "--json", "--port", "0", "--host", "127.0.0.1", *arguments)
        try:
            announced = running.json_line()
            assert announced["event"] == "listening"
            yield running, f"127.0.0.1:{announced['port']}"
        finally:
            running.kill()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def peer(home: Home) -> Iterator[tuple[Running, str]]:
    with home.listening() as listening:
        yield listening


def heard(running: Running) -> dict[str, Any]:
    """The next message that ``listen`` tells of; ``check`` looks without a certificate, too, and is refused then."""
    while (line := running.json_line())["event"] == "refused":
        assert line["reason"] == "TLS_NEGOTIATION_FAILURE"
    assert line["event"] == "message"
    return line


# ---------------------------------------------------------------------- when all is well


def test_send_and_listen(home: Home, peer: tuple[Running, str]) -> None:
    running, where = peer
    result = home.command.run("send", f"sip:bob@{where}", "Gr\u00fc\u00dfe", "--header", "Subject: lunch", "--json")
    assert result.code == 0, result
    (answer,) = result.json
    assert (answer["status"], answer["reason_phrase"], answer["exit_code"]) == (200, "OK", 0)
    assert answer["connection"]["tls_version"] == "TLSv1.3"
    assert answer["connection"]["identities"] == ["localhost", "127.0.0.1"]
    told = heard(running)
    assert (told["event"], told["method"], told["text"], told["answer"]) == (
        "message",
        "MESSAGE",
        "Gr\u00fc\u00dfe",
        200,
    )
    assert told["request_uri"] == f"sip:bob@{where}"
    assert re.fullmatch(r"sip:[A-Za-z0-9._-]+@localhost", told["from"])
    assert told["sender_authenticated"] is True
    assert told["connection"]["identities"] == ["localhost", "127.0.0.1"]


def test_standard_input_is_sent_as_it_comes(home: Home, peer: tuple[Running, str]) -> None:
    running, where = peer
    result = home.command.run("send", f"bob@{where}", text=b"two\r\nlines\n")
    assert result.code == 0, result
    assert result.out.startswith("200 OK from 127.0.0.1:")
    assert heard(running)["text"] == "two\r\nlines\n"


def test_standard_input_that_is_no_text_is_not_called_text(home: Home, peer: tuple[Running, str]) -> None:
    running, where = peer
    assert home.command.run("send", f"bob@{where}", text=b"\xff\x00").code == 0
    message = heard(running)
    assert (message["content_type"], message["text"]) == ("application/octet-stream", None)
    assert base64.b64decode(message["body_base64"]) == b"\xff\x00"


def test_request_without_tls_to_a_tls_port(home: Home, peer: tuple[Running, str]) -> None:
    _, where = peer
    for command in (("send", "x"), ("options", "--count=1")):
        result = home.command.run(command[0], "--tcp", f"bob@{where}", command[1])
        assert result.code == 3, result
        assert "do without --tcp" in result.sentence


def test_binary_bodies_survive(home: Home, peer: tuple[Running, str]) -> None:
    running, where = peer
    result = home.command.run(
        "send", f"sip:bob@{where}", "--content-type", "application/octet-stream", "-", text=b"\x00\xff"
    )
    assert result.code == 0, result
    told = heard(running)
    assert (told["content_type"], told["text"], told["body_base64"]) == ("application/octet-stream", None, "AP8=")


def test_options_sums_up(home: Home, peer: tuple[Running, str]) -> None:
    running, where = peer
    result = home.command.run("options", where, "--count", "3", "--interval", "0", "--json")
    assert result.code == 0, result
    *answers, summary = result.json
    assert [answer["status"] for answer in answers] == [200, 200, 200]
    assert (summary["sent"], summary["answered"], summary["loss_percent"]) == (3, 3, 0.0)
    figures = summary["rtt_ms"]
    assert 0 < figures["min"] <= figures["avg"] <= figures["max"]
    assert [heard(running)["method"] for _ in range(3)] == ["OPTIONS"] * 3


def test_check_explains_what_works(home: Home, peer: tuple[Running, str]) -> None:
    running, where = peer
    result = home.command.run("check", where, "--json")
    assert result.code == 0, result
    (report,) = result.json
    assert (report["ok"], report["reason"], report["status"]) == (True, "OK", "200 OK")
    assert report["tls_version"] == "TLSv1.3"
    assert report["chain"][0]["names"] == ["localhost", "127.0.0.1"]
    assert report["expected_name"] == "127.0.0.1"
    assert heard(running)["method"] == "OPTIONS"
    told = home.command.run("check", where)
    assert told.code == 0, told
    for words in ("TLSv1.3", "localhost, 127.0.0.1", "proved to be 127.0.0.1", "200 OK to OPTIONS", "result"):
        assert words in told.out
    assert heard(running)["method"] == "OPTIONS"


@pytest.mark.parametrize("command", [("send", "hello"), ("options", "--count=1")])
def test_tcp_works_without_any_certificate(tmp_path: Path, command: tuple[str, str]) -> None:
    stranger = CommandLine(tmp_path)
    with stranger.start("listen", "--json", "--tcp", "--port", "0", "--host", "127.0.0.1", "--once") as running:
        announced = running.json_line()
        assert announced["transport"] == "TCP"
        name, argument = command
        result = stranger.run(name, announced["address"], argument)
        assert result.code == 0, result
        assert "not encrypted" in result.out
        assert heard(running)["method"] == {"send": "MESSAGE", "options": "OPTIONS"}[name]
        assert running.end().code == 0


def test_proxy_gets_what_is_for_elsewhere(home: Home, peer: tuple[Running, str]) -> None:
    running, where = peer
    result = home.command.run("send", "sip:carol@nowhere.invalid", "via", "--proxy", where)
    assert result.code == 0, result
    assert heard(running)["request_uri"] == "sip:carol@nowhere.invalid"


def test_verbose_shows_the_wire_on_standard_error(home: Home, peer: tuple[Running, str]) -> None:
    running, where = peer
    result = home.command.run("send", f"sip:bob@{where}", "\x1b[31mred", "--verbose")
    assert result.code == 0, result
    assert "MESSAGE sip:bob@" in result.err
    assert "SIP/2.0 200 OK" in result.err
    assert "TLSv1.3" in result.err
    assert "\x1b" not in result.err
    heard(running)


def test_the_answer_stands_below_the_wire_trace(home: Home, peer: tuple[Running, str]) -> None:
    running, where = peer
    both = home.command.start("send", "-v", f"sip:bob@{where}", "x", stderr=subprocess.STDOUT)
    out, _ = both.process.communicate(timeout=PATIENCE)
    assert out.splitlines()[-1].startswith(b"200 OK from "), out
    heard(running)


def test_the_wire_goes_to_files(home: Home, peer: tuple[Running, str], tmp_path: Path) -> None:
    running, where = peer
    trace, packets = tmp_path / "trace.txt", tmp_path / "packets.pcapng"
    result = home.command.run("send", f"sip:bob@{where}", "hello", "--trace", trace, "--pcapng", packets)
    assert result.code == 0 and result.err == "", result
    heard(running)
    assert "MESSAGE sip:bob@" in trace.read_text() and "200 OK" in trace.read_text()
    contents = CaptureContents(packets)
    assert len(contents.secrets) == 1 and contents.frames
    refused = home.command.run("send", f"sip:bob@{where}", "x", "--trace", tmp_path / "no" / "file")
    assert refused.code == 7 and "cannot be written" in refused.sentence


def test_listen_sums_up_where_that_is_wanted(home: Home) -> None:
    with home.command.start("listen", "-v", "--tcp", "--port", "0", "--host", "127.0.0.1", "--once") as running:
        running.line()
        (address,) = re.findall(r"p2psip send '(sip:[^']+)' 'Hello'", running.line())
        assert home.command.run("send", "--tcp", address, "hello").code == 0
        ended = running.end()
    assert "\nreceived requests MESSAGE: 1\n" in ended.err


def test_listen_prints_for_people_what_cannot_steer_the_terminal(home: Home) -> None:
    with home.command.start("listen", "--port", "0", "--host", "127.0.0.1", "--once") as running:
        first, hint = running.line(), running.line()
        assert first.startswith("Listening on 127.0.0.1:")
        (address,) = re.findall(r"p2psip send '(sip:[^']+)' 'Hello'", hint)
        result = home.command.run("send", address, "one\n\x1b[31mtwo")
        assert result.code == 0, result
        assert re.fullmatch(
            r"\d\d:\d\d:\d\d MESSAGE from sip:\S+@localhost \(127\.0\.0\.1:\d+ over TLSv1\.3, .*\)", running.line()
        )
        assert [running.line(), running.line()] == ["    one", "    \\x1b[31mtwo"]
        assert running.end().code == 0


def test_listen_ends_after_its_count(home: Home) -> None:
    with home.listening("--count", "2") as (running, where):
        result = home.command.run("options", where, "--count", "2", "--interval", "0")
        assert result.code == 0, result
        assert [heard(running)["method"] for _ in range(2)] == ["OPTIONS"] * 2
        assert running.end().code == 0


# ---------------------------------------------------------------------- when something is wrong

Fault = Callable[[Home], contextlib.AbstractContextManager[int]]

FAULTS: dict[str, tuple[Fault, int, str, str]] = {
    # What is wrong: the peer, exit code, reason, and words of what check advises.
    "wrong name": (
        lambda home: tls_server(home.authority.issue("wrong.example")),
        4,
        "INCORRECT_NAME_IN_REMOTE_CERTIFICATE",
        "--tls-name",
    ),
    "expired": (
        lambda home: tls_server(home.authority.issue("127.0.0.1", defect="expired")),
        4,
        "CERTIFICATE_EXPIRED",
        "renew",
    ),
    "untrusted": (
        lambda home: tls_server(home.authority.issue("127.0.0.1", defect="unknown_authority")),
        4,
        "UNTRUSTED_REMOTE_CERTIFICATE",
        "--trusted",
    ),
    "refuses ours": (
        lambda home: tls_server(home.authority.issue("127.0.0.1"), CertificateAuthority("Another CA").pem),
        4,
        "TLS_NEGOTIATION_FAILURE",
        "does not accept ours",
    ),
    "not TLS": (lambda home: plain_server(), 4, "TLS_NEGOTIATION_FAILURE", "does not speak TLS"),
    "closes at once": (lambda home: serve(lambda connection: None), 4, "REMOTE_DISCONNECTED", "does not speak TLS"),
    "closed port": (lambda home: contextlib.nullcontext(closed_port()), 3, "CONNECTION", "host and port"),
    "silent port": (lambda home: silent_port(), 5, "TIMEOUT", "--timeout"),
}

OFTEN = ("wrong name", "expired", "refuses ours", "closed port", "silent port")


def patience(fault: str) -> str:
    """Silence takes as long as one waits for it; all else is over at once, but not on every machine."""
    return "--timeout=1" if fault == "silent port" else "--timeout=20"


@pytest.mark.parametrize("fault", OFTEN)
def test_send_says_what_is_wrong(home: Home, fault: str) -> None:
    make, code, reason, _ = FAULTS[fault]
    with make(home) as port:
        result = home.command.run("send", f"sip:bob@127.0.0.1:{port}", "x", "--json", patience(fault))
    assert result.code == code, result
    assert result.json == [{"error": result.json[0]["error"], "reason": reason, "exit_code": code}]
    assert result.sentence == f"p2psip send: {result.json[0]['error']}"
    assert f"127.0.0.1:{port}" in result.sentence


@pytest.mark.parametrize("fault", OFTEN)
def test_options_says_what_is_wrong(home: Home, fault: str) -> None:
    make, code, reason, _ = FAULTS[fault]
    with make(home) as port:
        result = home.command.run("options", f"127.0.0.1:{port}", "--json", "-c2", "-i0", patience(fault))
    assert result.code == code, result
    *lost, summary = result.json
    assert [(each["event"], each["reason"]) for each in lost] == [("lost", reason)] * 2
    assert (summary["sent"], summary["answered"], summary["loss_percent"]) == (2, 0, 100.0)
    assert (summary["reason"], summary["exit_code"], summary["rtt_ms"]) == (reason, code, None)
    assert f"127.0.0.1:{port}" in result.sentence


@pytest.mark.parametrize("fault", FAULTS)
def test_check_says_what_is_wrong_and_what_helps(home: Home, fault: str) -> None:
    make, code, reason, advice = FAULTS[fault]
    with make(home) as port:
        result = home.command.run("check", f"127.0.0.1:{port}", "--json", patience(fault))
    assert result.code == code, result
    (report,) = result.json
    assert (report["ok"], report["reason"], report["exit_code"]) == (False, reason, code)
    assert advice in report["advice"]
    assert result.sentence == f"p2psip check: {report['error']}"
    if reason in ("INCORRECT_NAME_IN_REMOTE_CERTIFICATE", "CERTIFICATE_EXPIRED", "UNTRUSTED_REMOTE_CERTIFICATE"):
        names = "wrong.example" if fault == "wrong name" else "127.0.0.1"
        assert report["chain"][0]["names"] == [names]
        assert report["tls_version"] == "TLSv1.3"


def test_another_name_can_be_expected(home: Home) -> None:
    home.authority.store(home.folder / "other", home.authority.issue("wrong.example"))
    with home.listening("--store", home.folder / "other") as (_, where):
        refused = home.command.run("check", where)
        assert refused.code == 4, refused
        assert "wrong.example" in refused.out
        for command in (("check", where), ("send", f"sip:bob@{where}", "x"), ("options", where, "-c1")):
            result = home.command.run(*command, "--tls-name", "wrong.example")
            assert result.code == 0, result


def test_check_without_a_certificate_finds_out_that_one_is_demanded(home: Home, peer: tuple[Running, str]) -> None:
    _, where = peer
    nowhere = home.folder / "nowhere"
    result = home.command.run("check", where, "--json", "--store", nowhere, "--trusted", home.store / "trusted")
    assert result.code == 4, result
    (report,) = result.json
    assert report["reason"] == "TLS_NEGOTIATION_FAILURE"
    assert "demands a certificate from us" in report["advice"]
    assert report["chain"][0]["names"] == ["localhost", "127.0.0.1"]


def test_check_without_a_certificate_works_where_none_is_demanded(home: Home) -> None:
    with home.listening("--any-client") as (running, where):
        nowhere = home.folder / "nowhere"
        result = home.command.run("check", where, "--json", "--store", nowhere, "--trusted", home.store / "trusted")
        assert result.code == 0, result
        assert heard(running)["connection"]["identities"] == []


def test_options_does_not_call_a_refusal_a_loss(home: Home) -> None:
    with home.listening("--answer", "486") as (_, where):
        result = home.command.run("options", where, "-c2", "-i0", "--json")
        assert result.code == 1, result
        summary = result.json[-1]
        assert (summary["answered"], summary["refused"], summary["loss_percent"]) == (2, 2, 0.0)
        assert "486 Busy Here" in result.sentence


def test_send_tells_the_answer(home: Home) -> None:
    with home.listening("--answer", "603") as (running, where):
        result = home.command.run("send", f"sip:bob@{where}", "x")
        assert result.code == 1, result
        assert result.out == ""
        assert "603" in result.sentence
        assert heard(running)["answer"] == 603


def test_unknown_host_is_a_connection_failure(home: Home) -> None:
    result = home.command.run("send", "sip:bob@nowhere.invalid", "x")
    assert result.code == 3, result
    assert "nowhere.invalid" in result.sentence


# ---------------------------------------------------------------------- listen: what goes wrong there


def test_listen_tells_who_was_refused(home: Home) -> None:
    other = CertificateAuthority("Another CA")
    stranger = home.folder / "stranger"
    other.store(stranger, other.issue("stranger.example"))
    (stranger / "trusted" / "ours.pem").write_bytes(home.authority.pem)
    with home.listening() as (running, where):
        result = home.command.run("send", f"sip:bob@{where}", "x", "--store", stranger, "--json")
        assert result.code == 4, result
        assert result.json[0]["reason"] == "TLS_NEGOTIATION_FAILURE"
        refusal = running.json_line()
        assert (refusal["event"], refusal["reason"]) == ("refused", "UNTRUSTED_REMOTE_CERTIFICATE")


@pytest.mark.parametrize("defect", ["expired", "not_yet_valid"])
def test_own_certificate_that_is_not_valid(home: Home, defect: Any) -> None:
    path = home.authority.issue("localhost", defect=defect).write(home.folder)
    for command in (("listen", "--port=0"), ("send", "sip:bob@127.0.0.1", "x"), ("check", "127.0.0.1")):
        result = home.command.run(*command, "--certificate", path, "--json")
        assert result.code == 6, result
        assert result.json[0]["reason"] == "CERTIFICATE_EXPIRED"


def test_port_taken(home: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = home.command.run("listen", "--host", "127.0.0.1", "--port", str(port))
    assert result.code == 3, result
    assert str(port) in result.sentence


# ---------------------------------------------------------------------- which certificate


def test_several_certificates_need_a_choice(home: Home, peer: tuple[Running, str]) -> None:
    _, where = peer
    first, second = home.authority.issue("one.example"), home.authority.issue("two.example")
    many = home.folder / "many"
    home.authority.store(many, first, second)
    command = ("send", f"sip:bob@{where}", "x", "--store", many)
    result = home.command.run(*command)
    assert result.code == 6, result
    assert f"--serial {first.serial:x}" in result.sentence
    assert f"--serial {second.serial:x}" in result.sentence
    chosen = home.command.run(*command, "--issuer", second.issuer, "--serial", f"{second.serial:x}", "-v")
    assert chosen.code == 0, chosen
    assert "@two.example>" in chosen.err
    half = home.command.run(*command, "--issuer", second.issuer)
    assert half.code == 2, half


def test_encrypted_key_and_password_file(home: Home, peer: tuple[Running, str]) -> None:
    _, where = peer
    path = home.authority.issue("three.example").write(home.folder, password="s3cret", as_pkcs12=True)
    password = home.folder / "password"
    password.write_text("s3cret\n", encoding="utf-8")
    command = ("send", f"sip:bob@{where}", "x", "--certificate", path)
    assert home.command.run(*command, "--password-file", password).code == 0
    password.write_text("wrong\n", encoding="utf-8")
    result = home.command.run(*command, "--password-file", password)
    assert result.code == 6, result
    assert "wrong" not in result.sentence.replace("wrong password", "").replace("right password", "")
    missing = home.command.run(*command, "--password-file", home.folder / "missing")
    assert missing.code == 6, missing


# ---------------------------------------------------------------------- certs


def test_make_and_show(tmp_path: Path) -> None:
    command = CommandLine(tmp_path)
    store = tmp_path / "store"
    empty = command.run("certs", "show", "--store", store)
    assert empty.code == 6, empty
    assert "p2psip certs make" in empty.sentence
    made = command.run("certs", "make", "--store", store, "--json")
    assert made.code == 0, made
    assert made.json[0]["made"] is True
    assert set(made.json[0]["certificate"]["names"]) >= {"localhost", "127.0.0.1", "::1"}
    again = command.run("certs", "make", "--store", store, "--json")
    assert (again.code, again.json[0]["made"]) == (0, False)
    assert again.json[0]["certificate"] == made.json[0]["certificate"]
    renewed = command.run("certs", "make", "--store", store, "--json", "--renew")
    assert renewed.json[0]["certificate"]["serial"] != made.json[0]["certificate"]["serial"]

    shown = command.run("certs", "show", "--store", store, "--json")
    assert shown.code == 0, shown
    (report,) = shown.json
    (ours,) = report["certificates"]
    assert (ours["has_key"], ours["serial"]) == (True, renewed.json[0]["certificate"]["serial"])
    (root,) = report["trusted"]
    assert root["subject"] == ours["issuer"]
    soon = command.run("certs", "show", "--store", store, "--within", "500")
    assert soon.code == 6, soon
    assert "localhost.pem" in soon.sentence
    assert "expires in 39" in soon.out


def test_make_says_what_it_replaces_and_touches_nothing_of_others(tmp_path: Path) -> None:
    command, store = CommandLine(tmp_path), tmp_path / "store"
    for names in (["localhost", "::1"], ["localhost"]):
        result = command.run("certs", "make", "--store", store, *names)
        assert result.code == 0, result
    assert "takes the place of the one for sip:localhost, localhost, ::1" in result.out
    foreign = CertificateAuthority().issue("carol.example").write(store)
    kept = foreign.read_bytes()
    foreign = foreign.rename(store / "carol.example.pem")
    for extra in ([], ["--renew"]):
        refused = command.run("certs", "make", "--store", store, "carol.example", *extra)
        assert refused.code == 6, refused
        assert "carol.example.pem" in refused.sentence
    assert foreign.read_bytes() == kept


def test_show_names_the_store_in_its_hint(tmp_path: Path) -> None:
    result = CommandLine(tmp_path).run("certs", "show", "--store", tmp_path)
    assert f"certs make --store {tmp_path}" in result.sentence


def test_make_refuses_what_is_no_name(tmp_path: Path) -> None:
    result = CommandLine(tmp_path).run("certs", "make", "--store", tmp_path / "store", "*.example.com")
    assert result.code == 2, result
    assert "*.example.com" in result.sentence


def test_make_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    result = CommandLine(tmp_path).run("certs", "make", "--store", tmp_path / "file" / "store")
    assert result.code == 6, result
    assert "--store" in result.sentence


def test_show_tells_of_what_has_expired(home: Home) -> None:
    old = home.folder / "old"
    home.authority.store(old, home.authority.issue("old.example", defect="expired"))
    shown = home.command.run("certs", "show", "--store", old)
    assert shown.code == 6, shown
    assert "EXPIRED" in shown.out
    used = home.command.run("send", "sip:bob@127.0.0.1", "x", "--store", old)
    assert used.code == 6, used
    assert "expired on" in used.sentence


# ---------------------------------------------------------------------- demo


def test_demo_draws_what_happened(tmp_path: Path) -> None:
    result = CommandLine(tmp_path).run("demo")
    assert result.code == 0, result
    assert result.err == ""
    for words in (
        "Alice connects to Bob; both show a certificate:",
        "Bob proved to Alice to be bob.example.",
        "Alice proved to Bob to be alice.example.",
        "TLSv1.3, TLS_AES_256_GCM_SHA384",
        "MESSAGE sip:bob@bob.example",
        "MESSAGE sip:alice@alice.example",
        'Bob heard "Hello Bob, can you hear me?", Alice heard "Loud and clear, Alice."',
    ):
        assert words in result.out
    arrows = [line.strip() for line in result.out.splitlines() if "--->|" in line or "|<---" in line]
    assert [arrow.endswith(">|") for arrow in arrows] == [True, False, False, True]
    assert max(map(len, result.out.splitlines())) <= 80
    assert result.out.isascii()
    assert list(tmp_path.iterdir()) == []


def test_demo_on_a_port_as_json(tmp_path: Path) -> None:
    port = closed_port()
    result = CommandLine(tmp_path).run("demo", "--json", "--port", str(port))
    assert result.code == 0, result
    (told,) = result.json
    assert [message["start_line"].split()[0] for message in told["messages"]] == [
        "MESSAGE",
        "SIP/2.0",
        "MESSAGE",
        "SIP/2.0",
    ]
    assert [link["opened_by"] for link in told["connections"]] == ["Alice"]  # which serves Bob as well (RFC 5923)
    assert all(link["proved"] == {"Alice": ["alice.example"], "Bob": ["bob.example"]} for link in told["connections"])


def test_demo_on_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = CommandLine(tmp_path).run("demo", "--port", str(taken.getsockname()[1]))
    assert result.code == 3, result
    assert result.sentence


# ---------------------------------------------------------------------- the end of a process


def interruptible(command: CommandLine, *arguments: str) -> Running:
    """A command that Ctrl-C reaches even where whoever runs the tests has it ignored, as shells do in background."""
    program = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from p2psip.__main__ import main; sys.exit(main())"
    )
    return Running(
        subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            env=command.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    )


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C cannot be sent to one process of the console on Windows")
def test_ctrl_c_ends_listen_quietly(tmp_path: Path) -> None:
    running = interruptible(CommandLine(tmp_path), "listen", "--tcp", "--port=0", "--host=127.0.0.1", "--json")
    running.json_line()
    result = running.interrupt()
    assert (result.code, result.err) == (130, "")


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C cannot be sent to one process of the console on Windows")
def test_ctrl_c_sums_up_options(home: Home, peer: tuple[Running, str]) -> None:
    _, where = peer
    running = interruptible(home.command, "options", where, "--count=0", "--interval=0.01", "--json")
    assert running.json_line()["status"] == 200
    running.process.send_signal(signal.SIGINT)
    last: dict[str, Any] = {}
    while last.get("event") != "summary":
        last = running.json_line()
    assert last["answered"] >= 1
    result = running.end()
    assert (result.code, result.err) == (130, "")


@pytest.mark.skipif(os.name == "nt", reason="there are no broken pipes of this kind on Windows")
def test_a_reader_that_goes_away_is_no_reason_to_complain(home: Home, peer: tuple[Running, str]) -> None:
    _, where = peer
    running = home.command.start("options", where, "--count=0", "--interval=0")
    assert running.process.stdout is not None and running.process.stderr is not None
    assert running.process.stdout.readline()
    running.process.stdout.close()
    code = running.process.wait(40)
    with running.process.stderr as stream:
        assert (code, stream.read()) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("words", [["demo", "--json"], ["certs"]])
def test_output_that_cannot_be_written_is_a_sentence(tmp_path: Path, words: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        result = CommandLine(tmp_path).start(*words, stdout=full).wait()
    assert result.code == 7, result
    assert "Standard output cannot be written" in result.sentence


@pytest.mark.skipif(os.name != "posix", reason="standard output is closed by a shell")
def test_without_standard_output_the_exit_code_tells(tmp_path: Path) -> None:
    command = CommandLine(tmp_path)
    words = ["sh", "-c", 'exec "$0" -m p2psip "$@" >&-', sys.executable, "demo"]
    done = subprocess.run(
        words, env=command.environment, cwd=tmp_path, stderr=subprocess.PIPE, timeout=PATIENCE, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_listening_without_roots_is_our_own_mistake(home: Home, tmp_path: Path) -> None:
    result = home.command.run("listen", "--port", "0", "--trusted", tmp_path)
    assert result.code == 6, result
    assert "--trusted" in result.sentence


def test_result_knows_one_sentence_from_two() -> None:
    assert Result(1, "", "One.\n").sentence == "One."
    with pytest.raises(AssertionError):
        _ = Result(1, "", "One.\nTwo.\n").sentence
