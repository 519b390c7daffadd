"""OpenSSL's own client and server at the other end of TLS, who check what they are told to and know nothing of SIP."""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import trustme
from interop_link import make_identity
from interop_support import LOOPBACK, PATIENCE, Identity, free_port, require

from p2psip import (
    MessageType,
    RealTimeServerTlsConnectionManager,
    SendMessageOptions,
    SipPeerToPeerEndpoint,
    TlsFailureException,
    TlsFailureReason,
)

pytestmark = pytest.mark.interop

VERSIONS = pytest.mark.parametrize("version", ["tls1_2", "tls1_3"])
OPTIONS = (
    b"OPTIONS sip:bob@localhost SIP/2.0\r\nVia: SIP/2.0/TLS localhost;branch=z9hG4bKopenssl\r\nMax-Forwards: 70\r\n"
    b"From: <sip:openssl@localhost>;tag=1\r\nTo: <sip:bob@localhost>\r\nCall-ID: openssl\r\nCSeq: 1 OPTIONS\r\n"
    b"Content-Length: 0\r\n\r\n"
)


@contextlib.contextmanager
def openssl(*words: str | Path, errors: int = subprocess.DEVNULL) -> Iterator[subprocess.Popen[bytes]]:
    """The program, until the block is over; ``errors`` is where its standard error goes."""
    command: Sequence[str | Path] = [require("openssl", "openssl"), *words]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
    limit = threading.Timer(PATIENCE, process.kill)  # whoever reads from it sees its end then
    limit.start()
    try:
        yield process
    finally:
        limit.cancel()
        process.kill()
        process.communicate()


def read_until(process: subprocess.Popen[bytes], ending: bytes) -> bytes:
    assert process.stdout is not None
    data = b""
    while ending not in data:
        byte = process.stdout.read(1)
        assert byte, data
        data += byte
    return data


def shown(identity: Identity) -> list[str | Path]:
    assert identity.certificate is not None
    assert identity.key is not None
    return ["-cert", identity.certificate, "-cert_chain", identity.certificate, "-key", identity.key]


class Ends:
    """Our manager, and identities for the other side that it trusts."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.folder = folder
        ours = make_identity(folder, "p2psip.example.com", self.authority, self.authority)
        self.theirs = make_identity(folder, "localhost", self.authority, self.authority)
        self.manager = RealTimeServerTlsConnectionManager.from_files(
            str(ours.certificate), ours.key, trusted_roots=ours.trusted
        )
        self.endpoint = SipPeerToPeerEndpoint("sip:bob@localhost", self.manager)


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[Ends]:
    require("openssl", "openssl")
    made = Ends(tmp_path)
    with made.manager:
        yield made


@VERSIONS
def test_s_client_asks_us(ends: Ends, version: str) -> None:
    ends.manager.start_listening((LOOPBACK, 0))
    port = ends.manager.listening_port
    check = ["-CAfile", ends.theirs.trusted, "-verify_return_error", "-verify_hostname", "p2psip.example.com"]
    with openssl(
        *("s_client", "-quiet", f"-{version}", "-connect", f"{LOOPBACK}:{port}"), *check, *shown(ends.theirs)
    ) as client:
        assert client.stdin is not None
        client.stdin.write(OPTIONS)
        client.stdin.flush()
        # ``bob@localhost`` is the owner of the endpoint.
        assert read_until(client, b"\r\n\r\n").startswith(b"SIP/2.0 200 OK\r\n")
        (connection,) = ends.manager.connections()
        assert connection.tls_version == {"tls1_2": "TLSv1.2", "tls1_3": "TLSv1.3"}[version]
        assert connection.remote_identities == ("localhost",)


@pytest.mark.holds("F41")
def test_s_client_changes_its_keys_again_and_again(ends: Ends) -> None:
    """And wants us to change ours, each time; what it asks then is answered at once."""
    ends.manager.start_listening((LOOPBACK, 0))
    command = ["s_client", "-tls1_3", "-connect", f"{LOOPBACK}:{ends.manager.listening_port}", *shown(ends.theirs)]
    with openssl(*command, errors=subprocess.STDOUT) as client:
        assert client.stdin is not None
        for number in range(1, 26):
            client.stdin.write(b"K\n")
            client.stdin.flush()
            read_until(client, b"KEYUPDATE")
            client.stdin.write(
                OPTIONS.replace(b"CSeq: 1 ", b"CSeq: %d " % number).replace(b"bKopenssl", b"bK%d" % number)
            )
            client.stdin.flush()
            read_until(client, b"SIP/2.0 200 OK\r\n")
            assert b"CSeq: %d OPTIONS" % number in read_until(client, b"\r\n\r\n")
        assert len(ends.manager.connections()) == 1


@VERSIONS
def test_s_client_without_a_certificate_is_not_let_in(ends: Ends, version: str) -> None:
    ends.manager.start_listening((LOOPBACK, 0))
    address = f"{LOOPBACK}:{ends.manager.listening_port}"
    with (
        ends.manager.incoming_tls_negotiation_failed.expect(PATIENCE) as got,
        openssl("s_client", "-quiet", f"-{version}", "-connect", address, "-CAfile", ends.theirs.trusted) as client,
    ):
        assert client.stdout is not None
        assert client.stdout.read() == b""  # to its end
    assert isinstance(got.args.exception, TlsFailureException)
    assert ends.manager.connections() == ()


@pytest.mark.holds("R1")
def test_nobody_renegotiates(ends: Ends) -> None:
    """Who asks for it in TLS 1.2 gets no second handshake, and costs nobody else anything."""
    ends.manager.start_listening((LOOPBACK, 0))
    command = ["s_client", "-tls1_2", "-connect", f"{LOOPBACK}:{ends.manager.listening_port}", *shown(ends.theirs)]
    with openssl(*command, "-quiet") as friend, openssl(*command) as client:
        assert client.stdin is not None and friend.stdin is not None
        client.stdin.write(OPTIONS)
        client.stdin.flush()
        read_until(client, b"SIP/2.0 200 OK\r\n")
        read_until(client, b"\r\n\r\n")
        client.stdin.write(b"R\n")
        client.stdin.flush()
        assert client.stdout is not None
        client.stdout.read()
        assert client.wait(PATIENCE) == 1  # it gives up by itself
        friend.stdin.write(OPTIONS.replace(b"z9hG4bKopenssl", b"z9hG4bKfriend"))
        friend.stdin.flush()
        assert read_until(friend, b"\r\n\r\n").startswith(b"SIP/2.0 200 OK\r\n")


@VERSIONS
def test_we_ask_s_server(ends: Ends, version: str) -> None:
    port = free_port()
    with serving(ends.theirs, version, port) as server:
        operation = ends.endpoint.begin_send_message(
            MessageType.MESSAGE, f"sip:openssl@localhost:{port}", body="hello", timeout=PATIENCE
        )
        request = read_until(server, b"hello")
        head = [
            line
            for line in request.split(b"\r\n")
            if line.split(b":")[0] in (b"Via", b"From", b"To", b"Call-ID", b"CSeq")
        ]
        assert server.stdin is not None
        server.stdin.write(b"SIP/2.0 202 Heard\r\n" + b"\r\n".join(head) + b"\r\nContent-Length: 0\r\n\r\n")
        server.stdin.flush()
        assert operation.result(PATIENCE).response_code == 202


@VERSIONS
def test_s_server_with_another_name_is_refused(ends: Ends, version: str) -> None:
    port = free_port()
    with serving(ends.theirs, version, port):
        with pytest.raises(TlsFailureException) as failure:
            ends.endpoint.send_message(
                MessageType.MESSAGE,
                f"sip:openssl@localhost:{port}",
                body="hello",
                options=SendMessageOptions(tls_target_name="another.example.com"),
                timeout=PATIENCE,
            )
        assert failure.value.failure_reason is TlsFailureReason.INCORRECT_NAME_IN_REMOTE_CERTIFICATE


@contextlib.contextmanager
def serving(identity: Identity, version: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """s_server, which demands a certificate of us, once it listens: it says so first of all."""
    check = ["-CAfile", identity.trusted, "-Verify", "2", "-verify_return_error"]
    with openssl("s_server", f"-{version}", "-accept", f"{LOOPBACK}:{port}", *check, *shown(identity)) as server:
        read_until(server, b"ACCEPT\n")
        yield server
