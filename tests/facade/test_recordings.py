"""The wire in files: as text, and as packets with the keys of TLS."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import signal
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from facade_support import BOUND
from packet_reader import CaptureContents

from p2psip import (
    CaptureFile,
    ManagerSettings,
    MessageReceivedEventArgs,
    MessageType,
    RealTimeException,
    RealTimeInvalidOperationException,
    RealTimeServerTcpConnectionManager,
    RealTimeServerTlsConnectionManager,
    SipPeerToPeerEndpoint,
    SipTransportType,
    TlsFailureException,
    TlsFailureReason,
    TraceFile,
    capture_file,
    recording,
)
from p2psip.sync import waiting
from p2psip.testing import CertificateAuthority, EndpointPair, endpoint_pair, living_in, tls_manager

TCP, TLS = SipTransportType.TCP, SipTransportType.TLS
SECRET = [("Authorization", 'Digest username="u", response="hunter2"')]


@pytest.fixture(params=[TCP, TLS], ids=["TCP", "TLS"])
def pair(request: pytest.FixtureRequest) -> Iterator[EndpointPair]:
    with endpoint_pair(request.param) as made:
        made.bob.message_received += lambda sender, args: None
        yield made


def talk(pair: EndpointPair, count: int = 1, body: str = "hello") -> None:
    for _ in range(count):
        pair.alice.send_message(MessageType.MESSAGE, pair.bob.uri, body=body, headers=SECRET, timeout=BOUND)


def talk_until(pair: EndpointPair, condition: Callable[[], bool]) -> None:
    """Until it is so, which takes a few messages."""
    for _ in range(2000):
        if condition():
            return
        talk(pair)
    raise AssertionError("it never came to that")


class Gate:
    """Holds the thread that writes a file."""

    def __init__(self, kind: type[recording.Recording], monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.open = threading.Event(), threading.Event()
        write = kind._write

        def held(this: Any, entry: Any) -> bool:
            self.reached.set()
            assert self.open.wait(BOUND)
            return write(this, entry)

        monkeypatch.setattr(kind, "_write", held)


# ---------------------------------------------------------------------- as text


def test_every_message_is_in_the_trace(pair: EndpointPair, tmp_path: Path) -> None:
    path = tmp_path / "trace.txt"
    with pair.bob.connection_manager.trace_to(path) as trace:
        talk(pair, 2)
    assert trace.is_over and trace.left_out == 0
    text = path.read_text(encoding="utf-8")
    assert [line.split()[3] for line in re.findall(r"^(?:-->|<--) .*", text, re.MULTILINE)] == ["received", "sent"] * 2
    assert text.count(f"\n    MESSAGE {pair.bob.uri} SIP/2.0\n") == text.count("\n    SIP/2.0 200 OK\n") == 2
    assert text.count("\n    hello\n") == 2
    assert "over " + pair.bob.connection_manager.transport.name in text
    assert text.startswith("# p2psip") and "# ended" in text
    talk(pair)
    assert path.read_text(encoding="utf-8") == text  # nothing more once it is closed


@pytest.mark.holds("R16")
def test_secrets_are_masked_unless_they_are_asked_for(pair: EndpointPair, tmp_path: Path) -> None:
    manager = pair.bob.connection_manager
    with manager.trace_to(tmp_path / "masked"), manager.trace_to(tmp_path / "all", mask_secrets=False):
        talk(pair)
    assert "Authorization: ***" in (tmp_path / "masked").read_text()
    assert "hunter2" not in (tmp_path / "masked").read_text()
    assert 'response="hunter2"' in (tmp_path / "all").read_text()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_files_are_for_their_owner_only(pair: EndpointPair, tmp_path: Path) -> None:
    manager = pair.bob.connection_manager
    (tmp_path / "was there").touch(0o644)
    for name, record in (("new", manager.trace_to), ("was there", manager.trace_to), ("packets", manager.capture_to)):
        with record(tmp_path / name):
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


def test_a_trace_is_added_to(pair: EndpointPair, tmp_path: Path) -> None:
    for _ in range(2):
        with pair.bob.connection_manager.trace_to(tmp_path / "trace"):
            talk(pair)
    assert (tmp_path / "trace").read_text().count("# ended") == 2


def test_a_trace_has_its_greatest_size(pair: EndpointPair, tmp_path: Path) -> None:
    path = tmp_path / "trace"
    with pair.bob.connection_manager.trace_to(path, maximum_bytes=4096):
        talk(pair, 20)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["trace", "trace.1"]
    assert all(each.stat().st_size <= 4096 for each in tmp_path.iterdir())
    assert path.read_text().endswith("\n\n") and "# ended" in path.read_text()


def test_a_peer_can_neither_forge_an_entry_nor_steer_a_terminal(pair: EndpointPair, tmp_path: Path) -> None:
    path = tmp_path / "trace"
    with pair.bob.connection_manager.trace_to(path):
        talk(pair, body="\x1b[2J\r\n--> 2026-01-01 sent to\n# ended\x00\u202e")
    text = path.read_text(encoding="utf-8")
    assert len(re.findall(r"^-->", text, re.MULTILINE)) == 1  # the answer
    assert len(re.findall(r"^# ended", text, re.MULTILINE)) == 1
    assert all(line.isprintable() for line in text.split("\n"))


def test_what_the_disk_cannot_take_is_left_out_and_said(
    pair: EndpointPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "QUEUE", 5000)
    gate = Gate(TraceFile, monkeypatch)
    path = tmp_path / "trace"
    with pair.bob.connection_manager.trace_to(path) as trace:
        talk(pair, 10)  # all are answered while nothing is written
        assert gate.reached.is_set() and trace.left_out > 0
        gate.open.set()
        talk_until(pair, lambda: trace._put_bytes == trace._taken_bytes)
        talk(pair)
    told = [int(count) for count in re.findall(r"^# (\d+) messages were left out here", path.read_text(), re.MULTILINE)]
    assert told and sum(told) == trace.left_out


def test_a_full_disk_ends_the_trace_and_nothing_else(
    pair: EndpointPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(this: TraceFile, text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    trace = pair.bob.connection_manager.trace_to(tmp_path / "trace")
    monkeypatch.setattr(TraceFile, "_append", full)
    talk(pair)
    assert trace._closed.wait(BOUND) and trace.is_over
    talk(pair)
    trace.close()
    assert "could not be written" in caplog.text


def test_handlers_may_begin_and_end_one(pair: EndpointPair, tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def received(sender: SipPeerToPeerEndpoint, args: MessageReceivedEventArgs) -> None:
        try:
            sender.connection_manager.trace_to(tmp_path / "trace").close()
            sender.connection_manager.capture_to(tmp_path / "packets").close()
        except BaseException as error:
            failures.append(error)

    pair.bob.message_received += received
    talk(pair)
    assert failures == []


def test_the_end_of_the_manager_ends_them(tmp_path: Path) -> None:
    with endpoint_pair() as pair:
        pair.bob.message_received += lambda sender, args: None
        manager = pair.bob.connection_manager
        trace, capture = manager.trace_to(tmp_path / "trace"), manager.capture_to(tmp_path / "packets")
        talk(pair)
    assert trace.is_over and capture.is_over
    trace.close()
    capture.close()
    assert CaptureContents(tmp_path / "packets").kinds[-1] == 5
    for record in (manager.trace_to, manager.capture_to):
        with pytest.raises(RealTimeInvalidOperationException):
            record(tmp_path / "late")
    assert not (tmp_path / "late").exists()


@pytest.mark.parametrize("name", ["trace_to", "capture_to"])
def test_wrong_arguments(name: str, tmp_path: Path) -> None:
    with RealTimeServerTcpConnectionManager() as manager:
        record: Callable[..., object] = getattr(manager, name)
        with pytest.raises(OSError):
            record(tmp_path / "no folder" / "file")
        with pytest.raises(ValueError):
            record(tmp_path / "file", maximum_bytes=100)
        with pytest.raises(TypeError):
            record(tmp_path / "file", maximum_bytes=1e9)
        record(tmp_path / "file")  # and nothing of the failures is left


# ---------------------------------------------------------------------- as packets


def test_packets_bear_what_went_over_the_wire(pair: EndpointPair, tmp_path: Path) -> None:
    path = tmp_path / "packets"
    with pair.bob.connection_manager.capture_to(path) as capture:
        talk(pair, 3, "x" * 5000)
        (link,) = pair.network.links
        pair.alice.connection_manager.dispose()
    contents = CaptureContents(path)
    assert (capture.left_out, contents.dropped, contents.ending) == (0, 0, "nothing was left out")
    assert contents.stream(link.source) == bytes(link.to_destination)[: len(contents.stream(link.source))]
    assert len(contents.stream(link.source)) > 15000
    assert contents.stream(link.destination) == bytes(link.to_source)[: len(contents.stream(link.destination))]
    for frame in contents.frames:
        assert frame.is_sent == (frame.segment.source == link.destination)
    is_tls = pair.bob.connection_manager.transport is TLS
    assert (b"MESSAGE sip:" in contents.stream(link.source)) is not is_tls
    assert [kind for kind in contents.kinds if kind == 10] == [10] * is_tls
    assert contents.kinds[:2] == [0x0A0D0D0A, 1]


def test_the_keys_are_those_of_the_captured_connections_and_come_first(tmp_path: Path) -> None:
    authority, keys = CertificateAuthority(), tmp_path / "keys"
    foreign = b"CLIENT_RANDOM " + b"00" * 32 + b" 11\n"  # of somebody who shares the file
    with endpoint_pair(authority=authority, key_log_file=keys) as pair:
        pair.bob.message_received += lambda sender, args: None
        talk(pair)  # its keys stand in the same file, but it is not captured
        before = keys.read_bytes()
        with pair.bob.connection_manager.capture_to(tmp_path / "packets"):
            for connection in pair.alice.connection_manager.connections():
                connection.disconnect()
            with keys.open("ab") as shared:
                shared.write(foreign)
            talk(pair)
            pair.alice.connection_manager.dispose()
        after = keys.read_bytes()
    contents = CaptureContents(tmp_path / "packets")
    (secrets,) = contents.secrets
    labels = {line.split()[0] for line in secrets.splitlines()}
    assert {b"CLIENT_TRAFFIC_SECRET_0", b"SERVER_TRAFFIC_SECRET_0", b"CLIENT_HANDSHAKE_TRAFFIC_SECRET"} <= labels
    assert not set(secrets.splitlines()) & set((before + foreign).splitlines())
    assert set(secrets.splitlines()) <= set(after.splitlines())  # the application's own file has them as ever
    assert contents.kinds.index(10) < contents.kinds.index(6) or contents.frames[0].segment.data == b""
    hello = next(frame.segment.data for frame in contents.frames if frame.segment.data)
    assert secrets.split()[1] == hello[11:43].hex().encode()


def test_only_new_connections_are_in_it_and_afterwards_all_is_as_before(tmp_path: Path) -> None:
    with endpoint_pair() as pair:
        pair.bob.message_received += lambda sender, args: None
        manager = pair.bob.connection_manager
        talk(pair)
        with manager.capture_to(tmp_path / "packets"):
            talk(pair)  # goes over the connection that was there
        assert CaptureContents(tmp_path / "packets").frames == []
        for connection in pair.alice.connection_manager.connections():
            connection.disconnect()
        talk(pair)
        assert manager._stack.network.tapping.tap is None
        contexts = manager._stack.network._tls
        assert contexts is not None
        assert [each.keylog_filename for each in (contexts._server, contexts._client)] == [None, None]
        assert sorted(each.name for each in tmp_path.iterdir()) == ["packets"]  # no keys are left


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="this system does not show what is open")
@pytest.mark.parametrize("is_reloaded", [False, True])
def test_the_file_of_its_keys_is_closed_before_it_is_removed(tmp_path: Path, is_reloaded: bool) -> None:
    """Windows removes no file that is open, and elsewhere it would stay on the disk."""
    with endpoint_pair() as pair:
        pair.bob.message_received += lambda sender, args: None
        manager: Any = pair.bob.connection_manager
        with manager.capture_to(tmp_path / "packets"):
            talk(pair)
            if is_reloaded:
                manager._swap(manager._contexts())  # as with new certificates
        talk(pair)  # over the connection that was captured
        assert not [name for name in map(os.path.realpath, Path("/proc/self/fd").iterdir()) if ".keys" in name]


def test_a_handshake_that_fails_is_in_it(tmp_path: Path) -> None:
    refused = threading.Event()
    with endpoint_pair() as pair:
        pair.bob.connection_manager.incoming_tls_negotiation_failed += lambda sender, args: refused.set()
        with living_in(pair.network):
            stranger = tls_manager(CertificateAuthority(), "stranger.example")
        with stranger, pair.bob.connection_manager.capture_to(tmp_path / "packets"):
            endpoint = SipPeerToPeerEndpoint("sip:x@stranger.example", stranger)
            with pytest.raises(RealTimeException):
                endpoint.send_message(MessageType.OPTIONS, pair.bob.uri, timeout=BOUND)
            assert refused.wait(BOUND)  # the alert has come
    contents = CaptureContents(tmp_path / "packets")
    octets = b"".join(frame.segment.data for frame in contents.frames)
    assert octets[:1] == b"\x16" and b"\x15\x03" in octets  # a handshake, and an alert


def test_recording_ends_at_the_greatest_size(pair: EndpointPair, tmp_path: Path) -> None:
    path = tmp_path / "packets"
    with pair.bob.connection_manager.capture_to(path, maximum_bytes=4096) as capture:
        talk_until(pair, lambda: capture.is_over)
        talk(pair)
        assert capture._closed.wait(BOUND)
        assert capture.is_full
    assert path.stat().st_size < 4096 + 8000
    assert "maximum_bytes" in CaptureContents(path).ending


def test_what_the_disk_cannot_take_leaves_a_gap_that_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "QUEUE", 5000)
    gate = Gate(CaptureFile, monkeypatch)
    with endpoint_pair(TCP) as pair:
        pair.bob.message_received += lambda sender, args: None
        with pair.bob.connection_manager.capture_to(tmp_path / "packets") as capture:
            talk(pair, 10)
            assert gate.reached.is_set() and capture.left_out > 0
            gate.open.set()
            talk_until(pair, lambda: capture._put_bytes == capture._taken_bytes)
            talk(pair)
    contents = CaptureContents(tmp_path / "packets")
    assert contents.dropped == capture.left_out
    assert any(re.match(r"\d+ bytes before these were left out", frame.comment) for frame in contents.frames)
    with pytest.raises(AssertionError):  # the sequence numbers show it
        contents.stream(pair.network.links[0].source)


def test_one_at_a_time_and_the_log_says_so_once(
    pair: EndpointPair, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manager = pair.bob.connection_manager
    caplog.set_level(logging.WARNING)
    with manager.capture_to(tmp_path / "one"), pytest.raises(RealTimeInvalidOperationException):
        manager.capture_to(tmp_path / "two")
    assert not (tmp_path / "two").exists()
    assert caplog.text.count(f"secrets included, goes to {tmp_path / 'one'}") == 1
    with manager.capture_to(tmp_path / "two"):
        pass


def test_certificates_are_reloaded_while_it_goes_on(tmp_path: Path) -> None:
    authority = CertificateAuthority()
    issued = authority.issue("sip:carol.example", "carol.example")
    for name, octets in (("c.pem", issued.pem), ("c.key", issued.key_pem()), ("roots.pem", authority.pem)):
        (tmp_path / name).touch(0o600)
        (tmp_path / name).write_bytes(octets)
    with endpoint_pair(authority=authority) as pair:
        pair.bob.message_received += lambda sender, args: None
        with living_in(pair.network), contextlib.ExitStack() as end:
            manager = end.enter_context(
                RealTimeServerTlsConnectionManager.from_files(
                    tmp_path / "c.pem", tmp_path / "c.key", trusted_roots=tmp_path / "roots.pem"
                )
            )
            carol = SipPeerToPeerEndpoint("sip:carol@carol.example", manager)
            with manager.capture_to(tmp_path / "packets"):
                manager.reload_certificates()
                carol.send_message(MessageType.MESSAGE, pair.bob.uri, body="x", timeout=BOUND)
    assert len(CaptureContents(tmp_path / "packets").secrets) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_the_child_of_a_fork_writes_nothing(pair: EndpointPair, tmp_path: Path) -> None:
    path = tmp_path / "trace"
    with pair.bob.connection_manager.trace_to(path) as trace:
        child = os.fork()
        if not child:
            trace.close()
            os._exit(0 if trace.is_over else 1)
        assert os.waitpid(child, 0)[1] == 0
        talk(pair)
    assert path.read_text().count("# ended") == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_the_child_of_a_fork_waits_for_no_lock_of_the_parent(pair: EndpointPair, tmp_path: Path) -> None:
    manager = pair.bob.connection_manager
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with manager._lock:
            held.set()
            done.wait(BOUND)

    with manager.trace_to(tmp_path / "trace") as trace:
        holder = threading.Thread(target=hold)
        holder.start()
        assert held.wait(BOUND)
        child = os.fork()
        if not child:
            signal.alarm(5)
            trace.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        done.set()
        holder.join(BOUND)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_that_nobody_reads_is_not_waited_for(pair: EndpointPair, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError):
        pair.bob.connection_manager.trace_to(tmp_path / "pipe")


def test_what_has_ended_by_itself_is_forgotten_and_its_keys_are_gone(tmp_path: Path) -> None:
    """A certificate that is read anew would make the file of the keys once more."""
    authority = CertificateAuthority()
    issued = authority.issue("sip:carol.example", "carol.example")
    for name, octets in (("c.pem", issued.pem), ("c.key", issued.key_pem()), ("roots.pem", authority.pem)):
        (tmp_path / name).touch(0o600)
        (tmp_path / name).write_bytes(octets)
    with endpoint_pair(authority=authority) as pair:
        pair.bob.message_received += lambda sender, args: None
        with living_in(pair.network), contextlib.ExitStack() as end:
            manager = end.enter_context(
                RealTimeServerTlsConnectionManager.from_files(
                    tmp_path / "c.pem", tmp_path / "c.key", trusted_roots=tmp_path / "roots.pem"
                )
            )
            carol = SipPeerToPeerEndpoint("sip:carol@carol.example", manager)
            capture = manager.capture_to(tmp_path / "packets", maximum_bytes=4096)
            carol.send_message(MessageType.MESSAGE, pair.bob.uri, body="x" * 5000, timeout=BOUND)
            assert capture._closed.wait(BOUND) and capture.is_full
            manager.reload_certificates()
            assert not list(tmp_path.glob(".p2psip-*")) and manager._stack.network.tapping.tap is None
            with manager.capture_to(tmp_path / "more"):
                pass
            capture.close()


def test_the_end_of_a_connection_is_never_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else whoever writes would remember it for ever."""
    monkeypatch.setattr(recording, "QUEUE", 2 * recording.OVERHEAD)
    capture = CaptureFile(tmp_path / "packets", 100_000, "a test", None, False)
    for number in (1, 2, 3):
        capture._tap.opened(number, ("192.0.2.1", 5060), ("192.0.2.2", 5060), True)
    assert capture.left_out == 1
    for number in (1, 2, 3):
        capture._tap.closed(number, True)
    capture._start(lambda: None)
    capture.close()
    assert capture._streams == {}


@pytest.mark.parametrize("is_incoming", [False, True])
@pytest.mark.parametrize("by_peer", [False, True])
def test_who_has_closed_says_so_first(is_incoming: bool, by_peer: bool, tmp_path: Path) -> None:
    ours, theirs = ("192.0.2.1", 5060), ("192.0.2.2", 40000)
    capture = CaptureFile(tmp_path / "packets", 100_000, "a test", None, False)
    capture._tap.opened(1, ours, theirs, is_incoming)
    capture._tap.closed(1, by_peer)
    capture._start(lambda: None)
    capture.close()
    frames = CaptureContents(tmp_path / "packets").frames
    assert frames[0].segment.source == (theirs if is_incoming else ours)
    assert frames[-3].segment.source == (theirs if by_peer else ours)
    assert [frame.segment.flags & 1 for frame in frames[-3:]] == [1, 1, 0]


def test_of_keys_only_whole_lines_count(tmp_path: Path) -> None:
    """They are read while OpenSSL writes."""
    keys = tmp_path / "keys"
    capture = CaptureFile(tmp_path / "packets", 100_000, "a test", str(keys), True)
    for octets in (b"CLIENT_RANDOM aa 1", b"1\nCLIENT_RANDOM b"):
        with keys.open("ab") as file:
            file.write(octets)
        capture._read_keys()
    capture._start(lambda: None)
    capture.close()
    assert capture._keys == {"aa": [b"CLIENT_RANDOM aa 11\n"]}


def test_a_handshake_without_end_is_not_held_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2psip.capture_file.MOST_HELD", 5000)
    capture = CaptureFile(tmp_path / "packets", 100_000, "a test", None, False)
    capture._tap.opened(1, ("192.0.2.1", 5060), ("192.0.2.2", 40000), True)
    capture._tap.securing(1)
    capture._tap.carried(1, False, 0, bytes(10_000))
    while not capture._queue.empty():
        capture._write(capture._queue.get()[0])
    assert capture._streams[1].held is None
    capture._start(lambda: None)
    capture.close()


def test_slow_readers_and_full_pipes_do_not_hurt(tmp_path: Path) -> None:
    """Much in both directions at once, over sockets in memory, which take little at a time."""
    with endpoint_pair(settings=ManagerSettings(maximum_body=2**20)) as pair:
        bodies: list[int] = []
        pair.bob.message_received += lambda sender, args: bodies.append(len(args.body))
        with (
            pair.bob.connection_manager.capture_to(tmp_path / "b"),
            pair.alice.connection_manager.capture_to(tmp_path / "a"),
        ):
            operations = [
                pair.alice.begin_send_message(MessageType.MESSAGE, pair.bob.uri, body="x" * 300_000, timeout=BOUND)
                for _ in range(5)
            ]
            for operation in operations:
                assert operation.result(BOUND).response_code == 200
            assert pair.bob.connection_manager.connections()[0].tls_version == "TLSv1.3"
    assert bodies == [300_000] * 5
    for name in "ab":
        contents = CaptureContents(tmp_path / name)
        assert sum(len(contents.stream(link.source)) for link in pair.network.links) > 1_500_000


def test_a_real_port_is_captured_as_well(tmp_path: Path) -> None:
    with RealTimeServerTcpConnectionManager() as manager:
        manager.start_listening(("127.0.0.1", 0))
        with manager.capture_to(tmp_path / "packets"):
            with socket.create_connection(("127.0.0.1", manager.listening_port), BOUND) as sock:
                here = sock.getsockname()
                sock.sendall(b"\r\n\r\n")
                assert sock.recv(2) == b"\r\n"
            for _ in range(100_000):
                if not manager.statistics().connections.open:
                    break
                manager._stack.call("a look", lambda: None).result(BOUND)
    contents = CaptureContents(tmp_path / "packets")
    assert contents.stream(here) == b"\r\n\r\n"
    assert [frame.segment.flags & 1 for frame in contents.frames][-3:] == [1, 1, 0]


def test_nothing_is_read_anew_when_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was there when it began may be gone: the file has to end all the same."""

    def cannot_be_read() -> None:
        raise TlsFailureException("gone", TlsFailureReason.OTHER)

    with endpoint_pair() as pair:
        pair.bob.message_received += lambda sender, args: None
        manager: Any = pair.bob.connection_manager
        capture = manager.capture_to(tmp_path / "packets")
        talk(pair)
        monkeypatch.setattr(manager, "_contexts", cannot_be_read)
        capture.close()
        assert capture._closed.is_set()
        talk(pair)
    assert len(CaptureContents(tmp_path / "packets").secrets) == 1


def test_keys_of_others_in_the_same_file_are_not_kept_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture_file, "MOST_KEYS", 3)
    keys = tmp_path / "keys"
    keys.touch()
    capture = CaptureFile(tmp_path / "packets", 100_000, "a test", str(keys), True)
    keys.write_bytes(b"".join(b"CLIENT_RANDOM %064d 11\n" % number for number in range(10)))
    capture._read_keys()
    assert [int(each) for each in capture._keys] == [7, 8, 9]
    capture._start(lambda: None)
    capture.close()


def test_another_worker_stands_in_while_the_end_is_waited_for(tmp_path: Path) -> None:
    capture = CaptureFile(tmp_path / "packets", 100_000, "a test", None, False)
    waits: list[str] = []
    worker = SimpleNamespace(blocked=lambda: waits.append("begun"), unblocked=lambda: waits.append("over"))
    capture._start(lambda: waits.append("detached"))
    waiting.here.worker = worker
    try:
        capture.close()
    finally:
        waiting.here.worker = None
    assert waits == ["begun", "detached", "over"]
