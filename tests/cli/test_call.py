"""``p2psip call`` against ``p2psip answer``, each in a process of its own, over TLS."""

from __future__ import annotations

import sys

import pytest
from calling import Phone, ladder, states, until
from cli_support import closed_port


@pytest.fixture(scope="module")
def phone(tmp_path_factory: pytest.TempPathFactory) -> Phone:
    return Phone(tmp_path_factory.mktemp("phone"))


def test_a_call_and_its_ladder(phone: Phone) -> None:
    with phone.answering("--once", "--ring-time", "0.1") as (bob, uri):
        result = phone.command.run("call", uri, "--json", "--duration", "0.1")
        assert result.code == 0, result
        lines = result.json
        assert states(lines) == ["CONNECTING", "ALERTED", "CONNECTED", "DISCONNECTED"]
        (provisional,) = (line for line in lines if line.get("event") == "provisional")
        assert provisional["status"] == 180
        (answered,) = (line for line in lines if line.get("event") == "answered")
        assert "m=audio" in answered["description"]
        assert ladder(lines) == [
            ("sent", "INVITE"),
            ("received", "180 (INVITE)"),
            ("received", "200 (INVITE)"),
            ("sent", "ACK"),
            ("sent", "BYE"),
            ("received", "200 (BYE)"),
        ]
        assert lines[-1]["exit_code"] == 0
        call = until(bob, "call")
        assert "m=audio" in call["offer"]
        assert until(bob, "state", state="DISCONNECTED")["reason"] == "TERMINATED_REMOTELY"
        until(bob, "ladder")
        assert bob.end().code == 0


def test_people_see_words_and_a_picture(phone: Phone) -> None:
    with phone.answering("--once") as (_, uri):
        result = phone.command.run("call", uri, "--duration", "0")
    assert result.code == 0, result
    assert "the call is up" in result.out
    assert "|  INVITE sip:bob@127.0.0.1:" in result.out
    assert "200 OK (BYE)  |" in result.out


def test_a_refusal_has_its_exit_code(phone: Phone) -> None:
    with phone.answering("--code", "486") as (_, uri):
        result = phone.command.run("call", uri, "--json")
    assert result.code == 1, result
    assert "486" in result.sentence
    assert result.json[-1]["reason"] == "486"
    assert states(result.json)[-1] == "DISCONNECTED"


def test_a_certificate_of_another_name(phone: Phone) -> None:
    with phone.answering() as (_, uri):
        refused = phone.command.run("call", uri, "--duration", "0", "--tls-name", "somebody.example")
        assert refused.code == 4, refused
        assert phone.command.run("call", uri, "--duration", "0", "--tls-name", "localhost").code == 0


def test_nobody_there(phone: Phone) -> None:
    result = phone.command.run("call", f"sip:bob@127.0.0.1:{closed_port()}")
    assert result.code == 3, result
    assert len(result.err.splitlines()) == 1


def test_a_call_that_nobody_answers_is_taken_back(phone: Phone) -> None:
    with phone.answering("--ring-time", "30", "--once") as (bob, uri):
        result = phone.command.run("call", uri, "--json", "--cancel-after", "0.3")
        assert result.code == 0, result
        assert ("sent", "CANCEL") in ladder(result.json)
        assert ("received", "487 (INVITE)") in ladder(result.json)
        until(bob, "state", state="DISCONNECTED")
        until(bob, "ladder")
        assert bob.end().code == 0


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT to send")
def test_ctrl_c_hangs_up(phone: Phone) -> None:
    with phone.answering("--once") as (bob, uri):
        alice = phone.command.start("call", "--json", uri)
        try:
            until(alice, "state", state="CONNECTED")
            until(alice, "answered")
            assert alice.interrupt().code == 130
        finally:
            alice.kill()
        assert until(bob, "state", state="DISCONNECTED")["reason"] == "TERMINATED_REMOTELY"
        until(bob, "ladder")
        assert bob.end().code == 0


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT to send")
def test_ctrl_c_ends_answering_and_its_calls(phone: Phone) -> None:
    with phone.answering() as (bob, uri):
        alice = phone.command.start("call", "--json", uri)
        try:
            until(alice, "answered")
            until(bob, "state", state="CONNECTED")
            assert bob.interrupt().code == 130
            assert until(alice, "state", state="DISCONNECTED")["reason"] == "TERMINATED_REMOTELY"
            until(alice, "end")
            assert alice.end().code == 0
        finally:
            alice.kill()


def test_descriptions_out_of_files(phone: Phone) -> None:
    ours, theirs = phone.folder / "ours.sdp", phone.folder / "theirs.sdp"
    ours.write_bytes(b"v=0\r\no=a 1 1 IN IP4 192.0.2.1\r\ns=ours\r\nt=0 0\r\n")
    theirs.write_bytes(b"v=0\r\no=b 1 1 IN IP4 192.0.2.2\r\ns=theirs\r\nt=0 0\r\n")
    with phone.answering("--sdp", theirs) as (bob, uri):
        result = phone.command.run("call", uri, "--json", "--duration", "0", "--sdp", ours)
        assert result.code == 0, result
        assert until(bob, "call")["offer"] == ours.read_bytes().decode()
    (answered,) = (line for line in result.json if line.get("event") == "answered")
    assert answered["description"] == theirs.read_bytes().decode()
    missing = phone.command.run("call", uri, "--sdp", phone.folder / "missing")
    assert missing.code == 2, missing


def test_a_transfer_between_three_processes(phone: Phone) -> None:
    with phone.answering("--once") as (carol, target), phone.answering("--follow-transfers") as (bob, uri):
        result = phone.command.run("call", uri, "--json", "--transfer-to", target)
        assert result.code == 0, result
        assert any(line.get("event") == "transferred" for line in result.json)
        steps = ladder(result.json)
        assert ("sent", "REFER") in steps and ("received", "202 (REFER)") in steps
        assert ("received", "NOTIFY") in steps
        assert until(bob, "transfer")["target"] == target
        until(bob, "transferred")
        until(carol, "state", state="CONNECTED")


def test_a_transfer_to_nobody_fails(phone: Phone) -> None:
    target = f"sip:carol@127.0.0.1:{closed_port()}"
    with phone.answering("--follow-transfers") as (bob, uri):
        result = phone.command.run("call", uri, "--json", "--transfer-to", target)
        assert result.code not in (0, 70), result
        assert any(line.get("event") == "transfer failed" for line in result.json)
        until(bob, "transfer failed")


def test_who_does_not_follow_refuses_the_transfer(phone: Phone) -> None:
    with phone.answering() as (_, uri):
        result = phone.command.run("call", uri, "--json", "--transfer-to", "sip:carol@127.0.0.1:5061")
    assert result.code == 1, result
