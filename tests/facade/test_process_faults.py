"""What happens to the process and its files: signals, forks, exits, floods, clocks, and certificates that change."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from facade_support import BOUND, tcp_pair
from scale import scaled
from suspend import suspended

from p2psip import (
    ConnectionContext,
    ConnectionFailureException,
    ManagerSettings,
    MessageReceivedEventArgs,
    MessageType,
    OperationFailureException,
    OperationFailureReason,
    RealTimeServerTcpConnectionManager,
    RealTimeServerTlsConnectionManager,
    SendMessageOptions,
    SipPeerToPeerEndpoint,
    TlsFailureException,
    TlsFailureReason,
)
from p2psip.net.certificates import CertificateStore
from p2psip.testing import CertificateAuthority, tls_manager

LOOPBACK = ("127.0.0.1", 0)


@pytest.fixture(scope="module")
def authority() -> CertificateAuthority:
    return CertificateAuthority()


def waiting(begun: threading.Event, release: threading.Event) -> Any:
    """A handler that says so and waits when it gets "wait"."""

    def handler(sender: object, args: MessageReceivedEventArgs) -> None:
        if args.text_body == "wait":
            begun.set()
            release.wait(BOUND)

    return handler


# ---------------------------------------------------------------------- callbacks


@pytest.mark.holds("F21", "R37")
def test_a_handler_closes_the_connection_that_it_serves() -> None:
    with tcp_pair() as pair:

        def handler(sender: object, args: MessageReceivedEventArgs) -> None:
            if args.text_body == "close":
                for connection in pair.bob.connection_manager.connections():
                    connection.disconnect()

        pair.bob.message_received += handler
        closed = pair.alice.begin_send_message(MessageType.MESSAGE, pair.bob.uri, body="close")
        error = closed.exception(BOUND)
        assert error is None or isinstance(error, ConnectionFailureException)
        answer = pair.alice.send_message(MessageType.MESSAGE, pair.bob.uri, body="again", timeout=BOUND)
        assert answer.response_code == 200


@pytest.mark.holds("F21", "R36")
def test_callbacks_of_operations_raise_block_and_stop(caplog: pytest.LogCaptureFixture) -> None:
    """None of them runs within ``begin_``, and none keeps the others from being told."""
    release, told, stopped = threading.Event(), threading.Semaphore(0), threading.Event()
    within: list[bool] = []
    with tcp_pair() as pair:
        pair.bob.message_received += lambda sender, args: None

        def begin(callback: Any) -> None:
            operation = pair.alice.begin_send_message(MessageType.MESSAGE, pair.bob.uri, body="x")
            operation.add_done_callback(callback)

        def note(operation: object) -> None:
            within.append(threading.current_thread() is threading.main_thread())
            told.release()

        def fail(operation: object) -> None:
            note(operation)
            raise ValueError("a callback")

        def block(operation: object) -> None:
            note(operation)
            release.wait(BOUND)

        def stop(operation: object) -> None:
            note(operation)
            pair.alice.connection_manager.dispose()
            stopped.set()

        for callback in (fail, block, note):
            begin(callback)
            assert told.acquire(timeout=BOUND)
        release.set()
        begin(stop)
        assert stopped.wait(BOUND)
    assert within == [False] * 4
    assert "A callback of the operation" in caplog.text and "ValueError: a callback" in caplog.text


# ---------------------------------------------------------------------- peers that stand still


PROCESS = """
import sys
import p2psip

manager = p2psip.RealTimeServerTlsConnectionManager.from_files(sys.argv[1], trusted_roots=sys.argv[2])
endpoint = p2psip.SipPeerToPeerEndpoint("sip:bob@localhost", manager)
endpoint.message_received += lambda sender, args: None
manager.start_listening(("127.0.0.1", 0))
print(manager.listening_port, flush=True)
sys.stdin.read()
"""


@pytest.mark.long
@pytest.mark.holds("F22", "F23")
@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="processes cannot be stopped here")
def test_a_peer_is_stopped_while_we_flood_it(authority: CertificateAuthority, tmp_path: Path) -> None:
    """It sends no FIN. Pings find out; what waits fails then, what is too much at once."""
    count = max(2_000, scaled(10_000))
    certificate = authority.issue("localhost").write(tmp_path)
    roots = tmp_path / "roots.pem"
    roots.write_bytes(authority.pem)
    command = [sys.executable, "-c", PROCESS, str(certificate), str(roots)]
    settings = ManagerSettings(
        keep_alive_interval=0.3,
        pong_timeout=1.0,
        maximum_unanswered_per_connection=100,
        connect_timeout=0.5,
        handshake_timeout=0.5,
        connect_back_off=0,
    )
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        address = f"sip:bob@localhost:{int(process.stdout.readline())}"
        with tls_manager(authority, "alice.example", settings=settings) as manager:
            alice = SipPeerToPeerEndpoint("sip:alice@alice.example", manager)
            alice.send_message(MessageType.MESSAGE, address, body="x", timeout=BOUND)
            with suspended(process):
                begun = time.monotonic()
                operations = [
                    alice.begin_send_message(MessageType.MESSAGE, address, body="x" * 500) for _ in range(count)
                ]
                errors = [operation.exception(BOUND) for operation in operations]
                spent = time.monotonic() - begun
                kept = manager._stack.call("a look", lambda: manager._stack.network._buffered).result(BOUND)
            throttled = [error for error in errors if isinstance(error, OperationFailureException)]
            lost = [error for error in errors if isinstance(error, ConnectionFailureException)]
            assert len(throttled) + len(lost) == len(errors)
            assert {error.failure_reason for error in throttled} == {OperationFailureReason.THROTTLED}
            assert len(throttled) >= count - 100 * settings.maximum_connections_per_pool - 100
            assert any("ping" in str(error) for error in lost)
            assert spent < 15
            assert kept < 4 * settings.maximum_send_queue
            assert alice.send_message(MessageType.MESSAGE, address, body="x", timeout=BOUND).response_code == 200
        process.stdin.close()


# ---------------------------------------------------------------------- forks and exits


@pytest.mark.holds("F27", "R40")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("lives", [False, True], ids=["child exits", "child lives"])
def test_a_fork_with_requests_pending_leaves_the_parent_unharmed(authority: CertificateAuthority, lives: bool) -> None:
    begun, release = threading.Event(), threading.Event()
    with (
        tls_manager(authority, "bob.example", "localhost") as theirs,
        tls_manager(authority, "alice.example") as ours,
    ):
        bob = SipPeerToPeerEndpoint("sip:bob@bob.example", theirs)
        bob.message_received += waiting(begun, release)
        theirs.start_listening(LOOPBACK)
        port = theirs.listening_port
        address = f"sip:bob@localhost:{port}"
        alice = SipPeerToPeerEndpoint("sip:alice@alice.example", ours)
        pending = [alice.begin_send_message(MessageType.MESSAGE, address, body="wait") for _ in range(10)]
        assert begun.wait(BOUND)
        go, stay = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.close(stay)
                if lives:
                    os.read(go, 1)
                ours.dispose()  # which does nothing to anybody
            finally:
                os._exit(0)
        os.close(go)
        try:
            if not lives:
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            release.set()
            assert [operation.result(BOUND).response_code for operation in pending] == [200] * 10
            assert alice.send_message(MessageType.MESSAGE, address, body="x", timeout=BOUND).response_code == 200
            assert len(ours.connections()) == 1
            theirs.dispose()
            with RealTimeServerTcpConnectionManager() as other:
                other.start_listening(("127.0.0.1", port))
        finally:
            os.close(stay)
            if lives:
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


EXITS = """
import socket, ssl, sys, threading
import p2psip

certificate, roots = sys.argv[1:]
settings = p2psip.ManagerSettings(trusted_addresses=frozenset({"127.0.0.1"}))

def manager():
    return p2psip.RealTimeServerTlsConnectionManager.from_files(certificate, trusted_roots=roots, settings=settings)

bob = p2psip.SipPeerToPeerEndpoint("sip:bob@localhost", manager())
begun, silent = threading.Event(), threading.Event()
bob.message_received += lambda sender, args: (begun.set(), silent.wait())
bob.connection_manager.start_listening(("127.0.0.1", 0))
port = bob.connection_manager.listening_port
context = ssl.create_default_context(cafile=roots)
context.load_cert_chain(certificate)
peers = [
    context.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="localhost") for _ in range(99)
]
alice = p2psip.SipPeerToPeerEndpoint("sip:alice@localhost", manager())
for _ in range(100):
    alice.begin_send_message("MESSAGE", f"sip:bob@localhost:{port}", body="x")
assert begun.wait(20)
assert len(bob.connection_manager.connections()) == 100
print("now", flush=True)
sys.exit(0)
"""


WITHOUT_THREADS = """
import atexit, threading
import p2psip
from p2psip import managers
from p2psip.sync import dispatch

managers.EXIT_GRACE = 100.0
dispatch.KEEP_ALIVE = 0.01
manager = p2psip.RealTimeServerTcpConnectionManager()
endpoint = p2psip.SipPeerToPeerEndpoint("sip:alice@localhost", manager)
manager.start_listening(("127.0.0.1", 0))
while manager._stack.dispatcher.workers:
    threading.Event().wait(0.01)
endpoint.state_changed += print

def refuse(thread):
    raise RuntimeError("can't create new thread at interpreter shutdown")

atexit.register(setattr, threading.Thread, "start", refuse)  # as Python 3.12 has it, before the library's end
"""


def test_exit_where_no_thread_can_be_started_any_more() -> None:
    command = [sys.executable, "-c", WITHOUT_THREADS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.holds("F29", "R39")
def test_exit_with_a_hundred_connections(authority: CertificateAuthority, tmp_path: Path) -> None:
    certificate = authority.issue("localhost").write(tmp_path)
    roots = tmp_path / "roots.pem"
    roots.write_bytes(authority.pem)
    command = [sys.executable, "-c", EXITS, str(certificate), str(roots)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        begun = time.monotonic()
        out, err = process.communicate(timeout=60)
        spent = time.monotonic() - begun
    assert (process.returncode, first, out, err) == (0, "now\n", "", "")
    assert spent < 3


# ---------------------------------------------------------------------- certificates that change


@pytest.mark.holds("F24", "R17")
def test_certificate_files_in_every_state_while_they_are_read_again(
    authority: CertificateAuthority, tmp_path: Path
) -> None:
    """Renewed, of another key, half written, empty, garbage, gone: the last good one serves all the while."""
    folder = tmp_path / "files"
    folder.mkdir()
    path = authority.issue("bob.example", "localhost").write(folder)
    stranger = authority.issue("bob.example", "localhost")
    with (
        RealTimeServerTlsConnectionManager.from_files(path, trusted_roots=authority.certificate) as theirs,
        tls_manager(authority, "alice.example") as ours,
    ):
        bob = SipPeerToPeerEndpoint("sip:bob@bob.example", theirs)
        bob.message_received += lambda sender, args: None
        theirs.start_listening(LOOPBACK)
        address = f"sip:bob@localhost:{theirs.listening_port}"
        alice = SipPeerToPeerEndpoint("sip:alice@alice.example", ours)
        alice.send_message(MessageType.MESSAGE, address, body="x", timeout=BOUND)
        (old,) = ours.connections()
        serving = theirs.local_certificate
        for turn in range(3):
            good = authority.issue("bob.example", "localhost")
            whole = good.pem + good.key_pem()
            states: list[bytes | None] = [
                good.pem + stranger.key_pem(), whole[: len(whole) // 2], whole[:-40], b"", b"\0garbage\xff" * 99, None,
            ]  # fmt: skip
            for state in states:
                path.unlink(missing_ok=True)
                if state is not None:
                    path.touch(0o600)
                    path.write_bytes(state)
                begun = time.monotonic()
                with pytest.raises(TlsFailureException) as failure:
                    theirs.reload_certificates()
                assert time.monotonic() - begun < 1
                assert failure.value.failure_reason is TlsFailureReason.LOCAL_CERTIFICATE_NOT_FOUND
                assert str(path) in str(failure.value)
                assert theirs.local_certificate == serving
                with tls_manager(authority, "carol.example") as third:  # a new connection, under the old one
                    carol = SipPeerToPeerEndpoint("sip:carol@carol.example", third)
                    carol.send_message(MessageType.MESSAGE, address, body="x", timeout=BOUND)
                    assert third.connections()[0].remote_certificate == serving
            path.touch(0o600)
            path.write_bytes(whole)
            theirs.reload_certificates()
            assert theirs.local_certificate != serving, turn
            serving = theirs.local_certificate
            alice.send_message(MessageType.MESSAGE, address, body="x", timeout=BOUND)
        assert ours.connections() == (old,)


@pytest.mark.holds("F25")
def test_a_store_of_everything(authority: CertificateAuthority, tmp_path: Path) -> None:
    """A thousand files, garbage among them, others' passwords, what cannot be opened, and one number twice."""
    wanted = authority.issue("bob.example", serial=77)
    store = authority.store(tmp_path, wanted)
    authority.issue("carol.example").write(tmp_path, password="another", as_pkcs12=True)
    authority.issue("dave.example").write(tmp_path, password="another")
    for number in range(990):
        (tmp_path / f"{number}.pem").write_bytes(os.urandom(200) if number % 2 else wanted.pem[: number + 1])
    (tmp_path / "folder.pem").mkdir()
    (tmp_path / "nowhere.pem").symlink_to(tmp_path / "not-there")
    (tmp_path / "round.pem").symlink_to(tmp_path / "round.pem")
    begun = time.process_time()
    assert CertificateStore(tmp_path).find(wanted.issuer, 77).certificate == wanted.certificate
    assert time.process_time() - begun < 2
    other = authority.intermediate(authority.name)
    other.issue("erin.example", serial=77).write(tmp_path)
    begun = time.process_time()
    with pytest.raises(TlsFailureException) as failure:
        store.find(authority.name, 77)
    assert time.process_time() - begun < 2
    assert "bob.example" in str(failure.value)
    assert "erin.example" in str(failure.value)


# ---------------------------------------------------------------------- clocks


@pytest.mark.holds("F26", "R42")
def test_the_clock_on_the_wall_jumps_while_requests_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour forward and two back: answers come, and time-outs neither early nor late."""
    real, offset = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: real() + offset[0])
    arrived, release = threading.Event(), threading.Event()
    with tcp_pair() as pair:
        pair.bob.message_received += waiting(arrived, release)
        begun = time.monotonic()
        late = pair.alice.begin_send_message(MessageType.MESSAGE, pair.bob.uri, body="wait", timeout=0.6)
        assert arrived.wait(BOUND)
        for seconds in (3600.0, -3600.0, 0.0):
            offset[0] = seconds
            assert pair.bob.send_message(MessageType.OPTIONS, pair.alice.uri, timeout=BOUND).response_code == 200
            assert not late.done() or time.monotonic() - begun > 0.5
        assert type(late.exception(BOUND)).__name__ == "OperationTimeoutException"
        assert 0.5 < time.monotonic() - begun < 5
        release.set()


# ---------------------------------------------------------------------- ourselves, and IPv6


@pytest.mark.holds("F37")
def test_an_endpoint_asks_itself_over_tls(authority: CertificateAuthority) -> None:
    """From within a handler as well: nobody waits for himself."""
    with tls_manager(authority, "bob.example", "localhost") as manager:
        bob = SipPeerToPeerEndpoint("sip:bob@bob.example", manager)
        other = SipPeerToPeerEndpoint("sip:carol@bob.example", manager)
        other.message_received += lambda sender, args: None
        manager.start_listening(LOOPBACK)
        codes: list[int] = []

        def again(sender: object, args: MessageReceivedEventArgs) -> None:
            address = f"sip:carol@localhost:{manager.listening_port}"
            answer = bob.send_message(MessageType.MESSAGE, address, body="again", timeout=BOUND)
            codes.append(int(answer.response_code))

        bob.message_received += again
        address = f"sip:bob@localhost:{manager.listening_port}"
        assert bob.send_message(MessageType.MESSAGE, address, body="x", timeout=BOUND).response_code == 200
        assert codes == [200]


def link_local() -> str | None:
    """An address of that kind with its zone."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/net/if_inet6").read_text(encoding="ascii").splitlines():
            digits, _, _, scope, _, name = line.split()
            if scope == "20":
                return f"{socket.inet_ntop(socket.AF_INET6, bytes.fromhex(digits))}%{name}"
    return None


@pytest.mark.holds("F17")
def test_a_link_local_address_without_its_zone_is_a_connection_failure() -> None:
    with RealTimeServerTcpConnectionManager(settings=ManagerSettings(connect_timeout=0.5)) as manager:
        alice = SipPeerToPeerEndpoint("sip:alice@alice.example", manager)
        begun = time.monotonic()
        with pytest.raises(ConnectionFailureException):
            alice.send_message(MessageType.MESSAGE, "sip:bob@[fe80::1]:5060", body="x", timeout=BOUND)
        assert time.monotonic() - begun < 5


@pytest.mark.holds("F38", "R43")
@pytest.mark.skipif(link_local() is None, reason="there is no link-local address here")
def test_a_zone_never_leaves_the_machine() -> None:
    host = link_local() or ""
    with RealTimeServerTcpConnectionManager() as theirs, RealTimeServerTcpConnectionManager() as ours:
        bob = SipPeerToPeerEndpoint("sip:bob@bob.example", theirs)
        bob.message_received += lambda sender, args: None
        sent: list[bytes] = []
        for manager in (theirs, ours):
            manager.trace += lambda sender, args: sent.append(args.data)
        try:
            theirs.start_listening((host, 0))
        except ConnectionFailureException:
            pytest.skip("it cannot be listened on")
        alice = SipPeerToPeerEndpoint("sip:alice@alice.example", ours)
        bare, _, zone = host.partition("%")
        options = SendMessageOptions(connection_context=ConnectionContext(host, theirs.listening_port))
        address = f"sip:bob@[{bare}]:{theirs.listening_port}"
        assert alice.send_message(MessageType.MESSAGE, address, body="x", options=options, timeout=BOUND).response_code
        assert sent
        assert not any(zone.encode() in data for data in sent)


@pytest.mark.holds("F38", "R43")
def test_a_mapped_address_is_the_one_of_ipv4() -> None:
    with RealTimeServerTcpConnectionManager() as theirs, RealTimeServerTcpConnectionManager() as ours:
        bob = SipPeerToPeerEndpoint("sip:bob@bob.example", theirs)
        bob.message_received += lambda sender, args: None
        theirs.default_endpoint = bob
        theirs.start_listening(LOOPBACK)
        alice = SipPeerToPeerEndpoint("sip:alice@alice.example", ours)
        address = f"sip:bob@[::ffff:127.0.0.1]:{theirs.listening_port}"
        try:
            alice.send_message(MessageType.MESSAGE, address, body="x", timeout=BOUND)
        except ConnectionFailureException:
            pytest.skip("this machine has no IPv6")
        assert ours.connections()[0].remote_endpoint == ("127.0.0.1", theirs.listening_port)
        assert theirs.connections()[0].remote_endpoint[0] == "127.0.0.1"
