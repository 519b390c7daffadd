"""Every snippet of the README is executed here, in the world that it speaks of."""

from __future__ import annotations

import contextlib
import inspect
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from p2psip import ContentDescription, IPAddress, RealTimeEndpoint, SessionReceivedEventArgs, SipPeerToPeerEndpoint
from p2psip.testing import CertificateAuthority, MemoryNetwork, living_in, tls_manager

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.rst").read_text(encoding="utf-8")
BOUND = 60.0
SDP = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"


class Snippet(NamedTuple):
    """One ``.. code-block::``."""

    language: str
    line: int
    text: str


def snippets(text: str) -> Iterator[Snippet]:
    lines = text.split("\n")
    for index, line in enumerate(lines):
        match = re.fullmatch(r"\.\. code-block:: (\w+)", line)
        if match is None:
            continue
        body = []
        for follower in lines[index + 1 :]:
            if follower.strip() and not follower.startswith(" "):
                break
            body.append(follower)
        yield Snippet(match[1], index + 1, inspect.cleandoc("\n".join(body)) + "\n")


def of(language: str) -> list[Snippet]:
    return [snippet for snippet in snippets(README) if snippet.language == language]


def _called(sender: RealTimeEndpoint, args: SessionReceivedEventArgs) -> None:
    """Bob takes every call, and what comes in it."""
    args.session.message_received += lambda sender, args: None
    args.session.refer_received += lambda sender, args: args.follow(ContentDescription("application/sdp", SDP))
    args.session.accept(lambda offer: ContentDescription("application/sdp", SDP))


@pytest.fixture
def contoso(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Contoso's network in memory: its proxy and bob listen, and its certificate store is the default one."""
    authority = CertificateAuthority("Contoso Issuing CA")
    alice = authority.issue("sip:contoso.com", "contoso.com", serial=0x5F3A00C1)
    authority.store(tmp_path / "certificates", alice)
    monkeypatch.setenv("P2PSIP_CERTIFICATE_STORE", str(tmp_path / "certificates"))
    monkeypatch.chdir(tmp_path)
    sdp = SDP.encode()
    for name, octets in (
        ("alice.pem", alice.pem),
        ("alice.key", alice.key_pem()),
        ("roots.pem", authority.pem),
        ("offer.sdp", sdp),
        ("answer.sdp", sdp),
    ):
        path = tmp_path / name
        path.touch(0o600)
        path.write_bytes(octets)
    with MemoryNetwork() as network, contextlib.ExitStack() as end:
        for name, address in (("sales.contoso.com", "192.0.2.10"), ("bob.contoso.com", "192.0.2.11")):
            network.hosts[name] = [address]
            with living_in(network.machine(address)):
                manager = end.enter_context(tls_manager(authority, name))
            manager.start_listening((IPAddress.ANY, 5061))
            endpoint = SipPeerToPeerEndpoint("sip:bob@contoso.com", manager)
            endpoint.message_received += lambda sender, args: None
            endpoint.session_received += _called
            endpoint.subscription_received += lambda sender, args: args.subscription.accept(None, "text/plain", "open")
            manager.default_endpoint = endpoint
        with living_in(network):
            yield


@pytest.mark.parametrize("snippet", of("python"), ids=lambda snippet: f"line {snippet.line}")
@pytest.mark.usefixtures("contoso")
def test_python(snippet: Snippet, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(snippet.text, f"README.rst:{snippet.line}", "exec"), {"__name__": "__main__"})
    said = capsys.readouterr()
    assert said.err == ""
    for wrong in ("failed:", "certificates:", "does not want", "raised"):
        assert wrong not in said.out


@pytest.mark.usefixtures("contoso")
def test_the_starting_page_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    page = of("python")[0]
    exec(compile(page.text, "README.rst", "exec"), {"__name__": "__main__"})
    lines = capsys.readouterr().out.splitlines()
    assert "DISCONNECTED -> CONNECTED because of LISTENING" in lines
    assert "200" in lines
    assert any(line.isdigit() and int(line) > 1024 for line in lines)


@pytest.mark.parametrize("snippet", of("console"), ids=lambda snippet: f"line {snippet.line}")
def test_console(snippet: Snippet, tmp_path: Path) -> None:
    """``$`` lines in order, in one folder; one that ends with ``&`` runs until ``kill %1``. 5061 is any port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "P2PSIP_CERTIFICATE_STORE": str(tmp_path / "certificates"),
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
    }
    commands = [line[2:] for line in snippet.text.replace("5061", port).splitlines() if line.startswith("$ ")]
    assert commands
    background: list[subprocess.Popen[str]] = []
    with contextlib.ExitStack() as end:
        for command in commands:
            if command == "kill %1":
                background.pop().terminate()
                continue
            said, _, rest = command.rpartition("|")
            words = shlex.split(rest.removesuffix("&"))
            assert words[0] == "p2psip", (
                f"README.rst:{snippet.line} shows a command that this test cannot run: {command}"
            )
            words[0:1] = [sys.executable, "-m", "p2psip"]
            if command.endswith("&"):
                process = end.enter_context(
                    subprocess.Popen(words, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
                )
                end.callback(process.terminate)
                background.append(process)
                assert process.stdout is not None
                assert process.stdout.readline(), f"{command} ended without a word"
                continue
            text = shlex.split(said)[1] if said else ""
            done = subprocess.run(
                words,
                cwd=tmp_path,
                env=environment,
                input=text,
                capture_output=True,
                text=True,
                timeout=BOUND,
                check=False,
            )
            assert done.returncode == 0, f"README.rst:{snippet.line}: {command}\n{done.stdout}{done.stderr}"


def test_nothing_in_it_escapes_these_tests() -> None:
    """Code stands in blocks that are executed; a literal block (``::``) shows the set-up commands and the layers."""
    literal = re.findall(r"^(?!\.\.).*::\n\n((?:    .*\n|\n)+)", README, re.MULTILINE)
    for block in literal:
        for line in block.splitlines():
            assert not re.match(r"\s*(p2psip |import |from )", line), line
    assert len(of("python")) >= 8
    assert len(of("console")) >= 3
