"""A TLS connection on a non-blocking socket: its traps, over loopback, against bare ``ssl``."""

from __future__ import annotations

import datetime
import gc
import random
import socket
import ssl
import struct
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tls_support import (
    BOUND,
    NAME,
    TLS12,
    TLS13,
    VERSIONS,
    Bare,
    Ours,
    authority,
    bare,
    bare_context,
    contexts,
    drive,
    issued,
    ours_as_client,
    ours_as_server,
    tcp_pair,
)

from p2psip.errors import ConnectionFailureException, TlsFailureException, TlsFailureReason
from p2psip.net.failures import Peer
from p2psip.net.tls_socket import READ, SLICE, WRITE, TlsSocket, Verifier
from p2psip.net.trust import Revocation, TrustAnchors
from p2psip.testing import IssuedCertificate

R = TlsFailureReason
both_versions = pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])
both_roles = pytest.mark.parametrize("as_server", [True, False], ids=["server", "client"])


@pytest.fixture
def sides() -> Iterator[list[Any]]:
    opened: list[Any] = []
    yield opened
    for side in opened:
        side.close()


def connected(
    sides: list[Any], as_server: bool, version: ssl.TLSVersion = TLS13, *, says: bytes = b"hello"
) -> tuple[Ours, Bare]:
    """Ours, in that role, and somebody else's; hands are shaken, and the other side has said hello."""
    client, server = tcp_pair(sides)
    context = bare_context(server=not as_server, version=version, certificate=issued())
    other = bare(context, client if as_server else server, says=says)
    own = contexts()
    ours = ours_as_server(own, server) if as_server else ours_as_client(own, client)
    sides += [ours, other]
    if says:
        drive(ours, other, until=lambda: ours.outcome is not None)
        assert ours.outcome == says
    else:
        ours._reads = False
        drive(ours, other, until=lambda: ours.outcome is not None and other._shaken)
    return ours, other


def read_to_end(ours: Ours) -> bytes | None:
    """The next read, when there is something to read."""
    ours.outcome, ours._reads = None, True
    drive(ours)
    if isinstance(ours.outcome, Exception):
        raise ours.outcome
    return ours.outcome  # type: ignore[no-any-return]


def reset(sock: socket.socket) -> None:
    """Close it with an RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


# ---------------------------------------------------------------------- data


@both_versions
@both_roles
def test_what_a_handshake_shows(as_server: bool, version: ssl.TLSVersion, sides: list[Any]) -> None:
    ours, _ = connected(sides, as_server, version)
    info = ours.socket.info
    assert info is not None and info.identities is not None
    assert info.version == {TLS12: "TLSv1.2", TLS13: "TLSv1.3"}[version]
    assert "GCM" in info.cipher or "CHACHA20" in info.cipher
    assert info.certificate == issued().local.der
    assert info.identities.names == (NAME, "127.0.0.1")
    assert info.not_after == issued().certificate.not_valid_after_utc.timestamp()
    assert info.matching([NAME]) == NAME


@both_versions
@both_roles
def test_megabytes_through_a_full_pipe(as_server: bool, version: ssl.TLSVersion, sides: list[Any]) -> None:
    """Short writes are repeated with the same bytes, and nothing is lost or doubled."""
    ours, other = connected(sides, as_server, version)
    data = random.Random(1).randbytes(10_000_000)  # nothing that comes twice looks like what comes next
    view, got, stalled = memoryview(data), bytearray(), 0
    while len(got) < len(data):
        while view:
            sent = ours.socket.send(view)
            if not sent:
                assert ours.socket.wants == WRITE
                stalled += 1
                break
            assert sent <= SLICE
            view = view[sent:]
        other.outcome = None
        drive(other)
        assert isinstance(other.outcome, bytes), other.outcome
        got += other.outcome
    assert stalled
    assert bytes(got) == data


@both_versions
def test_records_are_read_in_pieces(version: ssl.TLSVersion, sides: list[Any]) -> None:
    ours, other = connected(sides, True, version)
    other.socket.write(b"0123456789" * 50)
    assert read_to_end(ours) == b"0123456789" * 50
    other.socket.write(b"0123456789" * 50)
    assert wait_for(lambda: ours.socket.receive(1), ours) == b"0"
    assert ours.socket.pending() == 499  # which no selector tells
    assert ours.socket.receive(65536) == b"0123456789"[1:] + b"0123456789" * 49
    assert ours.socket.pending() == 0
    assert ours.socket.receive(65536) is None
    assert ours.socket.wants == READ


def wait_for(read: Callable[[], bytes | None], ours: Ours) -> bytes | None:
    """Read as soon as the descriptor is readable."""
    data = read()
    while data is None:
        watched = socket.socket(fileno=socket.dup(ours.fileno()))  # readable: something is there
        try:
            watched.settimeout(BOUND)
            watched.recv(1, socket.MSG_PEEK)
        finally:
            watched.close()
        data = read()
    return data


@both_versions
def test_an_empty_send_is_nothing(version: ssl.TLSVersion, sides: list[Any]) -> None:
    ours, other = connected(sides, False, version)
    assert ours.socket.send(memoryview(b"")) == 0
    other.socket.write(b"still here")
    assert read_to_end(ours) == b"still here"


class Scripted:
    """Stands in for an SSLSocket whose next call does as it is told."""

    def __init__(self, next_step: Any) -> None:
        self.next_step = next_step
        self.written: list[bytes] = []

    def _do(self) -> Any:
        if isinstance(self.next_step, BaseException):
            raise self.next_step
        return self.next_step

    def do_handshake(self) -> None:
        self._do()

    def read(self, size: int) -> Any:
        return self._do()

    def write(self, data: memoryview) -> Any:
        self.written.append(bytes(data))
        return self._do()

    def unwrap(self) -> None:
        self._do()


def scripted(step: Any) -> tuple[TlsSocket, Scripted]:
    peer = Peer(NAME, NAME, None, ("127.0.0.1", 5061), "the test")
    fake = Scripted(step)
    return TlsSocket(fake, peer, Verifier(Revocation(TrustAnchors()), False, False)), fake  # type: ignore[arg-type]


@pytest.mark.parametrize(("step", "wants"), [(ssl.SSLWantReadError(), READ), (ssl.SSLWantWriteError(), WRITE)])
def test_every_call_may_want_either_direction(step: Exception, wants: int) -> None:
    tls, _ = scripted(step)
    assert tls.handshake() == wants
    assert (tls.receive(100), tls.wants) == (None, wants)
    tls.wants = 0
    assert (tls.send(memoryview(b"x")), tls.wants) == (0, wants)


@pytest.mark.holds("F19")
def test_a_write_that_waits_is_repeated_with_the_same_bytes() -> None:
    tls, fake = scripted(ssl.SSLWantWriteError())
    assert tls.send(memoryview(b"one")) == 0
    fake.next_step = 3
    assert tls.send(memoryview(b"one and what has come since")) == 3
    assert fake.written == [b"one", b"one"]
    fake.next_step = 20
    assert tls.send(memoryview(b"and what follows all")) == 20
    assert fake.written[2] == b"and what follows all"


def test_a_goodbye_may_have_to_wait() -> None:
    tls, _ = scripted(ssl.SSLWantWriteError())
    assert (tls.finish(), tls.wants) == (False, WRITE)


@pytest.mark.holds("R5", "F18")
def test_errors_of_the_system_are_told_with_their_number() -> None:
    tls, _ = scripted(OSError(113, "No route to host"))
    with pytest.raises(TlsFailureException) as caught:
        tls.handshake()
    assert (caught.value.failure_reason, caught.value.error_code) == (R.OTHER, 113)
    tls, fake = scripted(b"data")
    tls.receive(10)
    fake.next_step = OSError(113, "No route to host")
    with pytest.raises(ConnectionFailureException) as lost:
        tls.send(memoryview(b"x"))
    assert "No route to host" in str(lost.value)


# ---------------------------------------------------------------------- the end


@both_versions
@both_roles
def test_an_orderly_end_lets_us_answer(as_server: bool, version: ssl.TLSVersion, sides: list[Any]) -> None:
    ours, other = connected(sides, as_server, version)
    with pytest.raises(ssl.SSLWantReadError):
        other.socket.unwrap()  # sends close_notify
    assert read_to_end(ours) == b""
    assert ours.socket.send(memoryview(b"answer")) == 6
    if version is TLS13:  # 1.2 tells whoever has said goodbye that there was more
        other.outcome = None
        drive(other)
        assert other.outcome == b"answer"
    assert ours.socket.finish()


@pytest.mark.holds("R24")
@both_versions
@both_roles
@pytest.mark.parametrize("how", ["FIN", "RST"])
def test_a_cut_is_no_orderly_end(as_server: bool, version: ssl.TLSVersion, how: str, sides: list[Any]) -> None:
    ours, other = connected(sides, as_server, version)
    if how == "FIN":
        other.linger()
    else:
        reset(other.socket)
    for _ in range(2):  # and stays none
        with pytest.raises(ConnectionFailureException) as caught:
            read_to_end(ours)
        assert caught.value.__cause__ is not None
        assert "127.0.0.1" in str(caught.value)


@both_versions
@pytest.mark.parametrize("how", ["close_notify", "FIN", "RST"])
def test_a_server_that_hangs_up_without_a_word_has_refused_us(
    how: str, version: ssl.TLSVersion, sides: list[Any]
) -> None:
    ours, other = connected(sides, False, version, says=b"")
    if how == "close_notify":
        with pytest.raises(ssl.SSLWantReadError):
            other.socket.unwrap()
    elif how == "FIN":
        other.linger()
    else:
        reset(other.socket)
    with pytest.raises(TlsFailureException) as caught:
        read_to_end(ours)
    assert caught.value.failure_reason is R.REMOTE_DISCONNECTED
    assert caught.value.remote_endpoint is not None


@both_versions
def test_a_client_that_hangs_up_without_a_word_has_just_left(version: ssl.TLSVersion, sides: list[Any]) -> None:
    ours, other = connected(sides, True, version, says=b"")
    with pytest.raises(ssl.SSLWantReadError):
        other.socket.unwrap()
    assert read_to_end(ours) == b""


@both_versions
def test_what_the_peer_said_last_can_be_read_after_a_failed_send(version: ssl.TLSVersion, sides: list[Any]) -> None:
    ours, other = connected(sides, False, version)
    other.socket.write(b"goodbye")
    reset(other.socket)
    with pytest.raises(ConnectionFailureException):
        for _ in range(1000):
            ours.socket.send(memoryview(bytes(SLICE)))
    try:
        assert ours.socket.receive(100) in (b"goodbye", None)
    except ConnectionFailureException:  # a system may drop what a reset overtakes
        pass


@pytest.mark.holds("R24")
@both_versions
def test_forged_records_end_the_connection_for_good(version: ssl.TLSVersion, sides: list[Any]) -> None:
    ours, other = connected(sides, True, version)
    raw = socket.socket(fileno=socket.dup(other.fileno()))
    sides.append(raw)
    raw.send(b"\x17\x03\x03\x00\x20" + bytes(32))
    for _ in range(2):
        with pytest.raises(ConnectionFailureException) as caught:
            read_to_end(ours)
        assert isinstance(caught.value.__cause__, ssl.SSLError)


@both_versions
@both_roles
def test_finish_says_goodbye_and_closes_our_half(as_server: bool, version: ssl.TLSVersion, sides: list[Any]) -> None:
    ours, other = connected(sides, as_server, version)
    assert ours.socket.finish()
    other.outcome = None
    drive(other)
    assert other.outcome == b""  # close_notify, not a cut
    with pytest.raises(ConnectionFailureException):
        ours.socket.send(memoryview(b"MESSAGE"))
    assert ours.socket.finish()  # once more does no harm
    ours.socket.close()
    ours.socket.close()


# ---------------------------------------------------------------------- nothing in clear


@pytest.mark.holds("R13")
@both_versions
@both_roles
def test_every_byte_that_leaves_is_in_a_record(as_server: bool, version: ssl.TLSVersion, sides: list[Any]) -> None:
    """Also when the application sends where it must not: before the handshake is over, after the end."""
    client, server = tcp_pair(sides)
    mine, wire = (server, client) if as_server else (client, server)
    own = contexts()
    tls = own.wrap_server(mine, ("127.0.0.1", 1)) if as_server else own.wrap_client(mine, NAME, NAME, ("127.0.0.1", 1))
    sides.append(tls)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = bare_context(server=not as_server, version=version, certificate=issued())
    peer = context.wrap_bio(incoming, outgoing, server_side=not as_server)
    captured = bytearray()

    def relay() -> None:
        if outgoing.pending:
            wire.send(outgoing.read())
        try:
            data = wire.recv(65536)
        except BlockingIOError:
            return
        captured.extend(data)
        incoming.write(data)

    secret = b"MESSAGE sip:bob@b.example SIP/2.0\r\n"
    shaken = {"ours": False, "theirs": False}
    for _ in range(10_000):
        if not shaken["ours"]:
            shaken["ours"] = tls.handshake() == 0
        if not shaken["theirs"]:
            try:
                peer.do_handshake()
                shaken["theirs"] = True
            except ssl.SSLWantReadError:
                pass
        relay()
        if all(shaken.values()):
            break
    assert tls.send(memoryview(secret)) == len(secret)
    assert tls.finish()
    for _ in range(3):
        try:
            tls.send(memoryview(secret))
        except (ConnectionFailureException, TlsFailureException):
            pass
    wire.setblocking(True)
    wire.settimeout(BOUND)
    while chunk := wire.recv(65536):
        captured += chunk
    assert secret not in captured
    while captured:
        kind, major, length = captured[0], captured[1], int.from_bytes(captured[3:5], "big")
        assert kind in (20, 21, 22, 23) and major == 3
        assert len(captured) >= 5 + length
        del captured[: 5 + length]


# ---------------------------------------------------------------------- handshakes that fail


@pytest.mark.holds("R5", "F15")
@both_roles
@pytest.mark.parametrize("how", ["FIN", "RST"])
@pytest.mark.parametrize("after", [0, 1])
def test_a_peer_that_goes_in_the_handshake(as_server: bool, how: str, after: int, sides: list[Any]) -> None:
    client, server = tcp_pair(sides)
    context = bare_context(server=not as_server, version=TLS12, certificate=issued())
    other = bare(context, client if as_server else server)
    ours = ours_as_server(contexts(), server) if as_server else ours_as_client(contexts(), client)
    sides += [ours, other]
    for _ in range(after):
        ours.step()
        other.step()
    if how == "FIN":
        other.linger()
    else:
        reset(other.socket)
    drive(ours)
    assert isinstance(ours.outcome, TlsFailureException)
    assert ours.outcome.failure_reason is R.REMOTE_DISCONNECTED
    with pytest.raises(TlsFailureException) as caught:
        ours.socket.handshake()  # a second try says the same
    assert caught.value.failure_reason is R.REMOTE_DISCONNECTED


@pytest.mark.holds("R5", "A25")
def test_a_peer_that_has_gone_before_the_handshake(sides: list[Any]) -> None:
    """Bytes and a reset before TLS begins: ``ssl`` says so from wrap_socket, or in the first step."""
    client, server = tcp_pair(sides)
    client.send(b"x" * 100)
    reset(client)
    with pytest.raises(TlsFailureException) as caught:
        ours = Ours(contexts().wrap_server(server, ("127.0.0.1", 1)))  # the system does not know the address any more
        sides.append(ours)
        drive(ours)
        raise ours.outcome
    assert caught.value.failure_reason is R.REMOTE_DISCONNECTED


@pytest.mark.holds("R5", "F15")
@both_roles
@pytest.mark.parametrize(
    "data",
    [
        b"OPTIONS sip:a.example SIP/2.0\r\nVia: SIP/2.0/TCP b.example\r\n\r\n",
        b"SIP/2.0 400 Bad Request\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0" * 200,
        b"\xff" * 200,
        b"\x16\x03\x01\xff\xff" + bytes(200),
        b"\x15\x03\x03\x00\x02\x02\x28",
        b"\x17\x03\x03\x00\x10" + bytes(16),
    ],
)
def test_what_is_not_tls(as_server: bool, data: bytes, sides: list[Any]) -> None:
    client, server = tcp_pair(sides)
    ours = ours_as_server(contexts(), server) if as_server else ours_as_client(contexts(), client)
    sides.append(ours)
    (client if as_server else server).send(data)
    drive(ours)
    assert isinstance(ours.outcome, TlsFailureException)
    assert ours.outcome.failure_reason is R.TLS_NEGOTIATION_FAILURE
    assert isinstance(ours.outcome.__cause__, ssl.SSLError)


@pytest.mark.holds("R5")
@both_versions
def test_a_client_without_a_certificate(version: ssl.TLSVersion, sides: list[Any]) -> None:
    client, server = tcp_pair(sides)
    other = bare(bare_context(server=False, version=version), client)
    ours = ours_as_server(contexts(), server)
    sides += [ours, other]
    drive(ours, other)
    assert isinstance(ours.outcome, TlsFailureException)
    assert ours.outcome.failure_reason is R.TLS_NEGOTIATION_FAILURE
    assert ours.outcome.remote_certificate is None
    assert "need_mutual_tls" in str(ours.outcome)
    assert isinstance(other.outcome, ssl.SSLError)


@pytest.mark.holds("F15")
@both_versions
def test_a_server_that_demands_what_we_do_not_have(version: ssl.TLSVersion, sides: list[Any]) -> None:
    """The alert that a client without a certificate gets, as our client reads it."""
    client, server = tcp_pair(sides)
    own = contexts()
    own._client = bare_context(server=False, version=version)
    other = bare(bare_context(server=True, version=version, certificate=issued()), server)
    ours = ours_as_client(own, client)
    sides += [ours, other]
    drive(ours, other)
    assert isinstance(ours.outcome, TlsFailureException)
    assert ours.outcome.failure_reason is R.TLS_NEGOTIATION_FAILURE


@pytest.mark.holds("R1", "F15")
@both_roles
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_an_old_version(as_server: bool, sides: list[Any]) -> None:
    client, server = tcp_pair(sides)
    context = bare_context(server=not as_server, certificate=issued(), verify=False)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    refuses_us(context, as_server, client, server, sides)


@pytest.mark.holds("R1", "F15")
@both_roles
@pytest.mark.parametrize("ciphers", ["ECDHE-ECDSA-AES128-SHA256", "AES128-GCM-SHA256", "NULL-SHA256", "DHE+AESGCM"])
def test_ciphers_without_forward_secrecy_or_authentication(as_server: bool, ciphers: str, sides: list[Any]) -> None:
    client, server = tcp_pair(sides)
    context = bare_context(server=not as_server, version=TLS12, certificate=issued(), verify=False)
    context.set_ciphers(f"{ciphers}:@SECLEVEL=0")
    refuses_us(context, as_server, client, server, sides)


def refuses_us(
    context: ssl.SSLContext, as_server: bool, client: socket.socket, server: socket.socket, sides: list[Any]
) -> None:
    other = bare(context, client if as_server else server)
    ours = ours_as_server(contexts(), server) if as_server else ours_as_client(contexts(), client)
    sides += [ours, other]
    drive(ours, other)
    assert isinstance(ours.outcome, TlsFailureException)
    assert ours.outcome.failure_reason is R.TLS_NEGOTIATION_FAILURE
    assert isinstance(other.outcome, ssl.SSLError)


@pytest.mark.holds("F15")
@both_roles
def test_a_chain_that_is_too_large(as_server: bool, sides: list[Any]) -> None:
    good = issued()
    filler = tuple(authority().intermediate(f"Filler CA {'x' * 30} {n}").certificate for n in range(4)) * 75
    large = IssuedCertificate(good.certificate, good.key, filler)
    client, server = tcp_pair(sides)
    context = bare_context(server=not as_server, version=TLS13, certificate=large, verify=False)
    other = bare(context, client if as_server else server)
    ours = ours_as_server(contexts(), server) if as_server else ours_as_client(contexts(), client)
    sides += [ours, other]
    drive(ours, other, until=lambda: ours.outcome is not None)
    assert isinstance(ours.outcome, TlsFailureException)
    assert ours.outcome.failure_reason is R.TLS_NEGOTIATION_FAILURE


@both_versions
@both_roles
def test_a_peer_that_sends_byte_by_byte(as_server: bool, version: ssl.TLSVersion, sides: list[Any]) -> None:
    client, server = tcp_pair(sides)
    ours = (
        ours_as_server(contexts(), server, reads=False)
        if as_server
        else ours_as_client(contexts(), client, reads=False)
    )
    wire = client if as_server else server
    sides += [ours]
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = bare_context(server=not as_server, version=version, certificate=issued())
    peer = context.wrap_bio(incoming, outgoing, server_side=not as_server)
    shaken = False
    for _ in range(100_000):
        if ours.outcome is not None and shaken:
            break
        ours.step() if ours.outcome is None else None
        try:
            incoming.write(wire.recv(65536))
        except BlockingIOError:
            pass
        if not shaken:
            try:
                peer.do_handshake()
                shaken = True
            except ssl.SSLWantReadError:
                pass
        if outgoing.pending:
            wire.send(outgoing.read(1))
    assert ours.outcome is ours.socket.info is not None


# ---------------------------------------------------------------------- sessions


def resume(sides: list[Any], own: Any, context: ssl.SSLContext, session: ssl.SSLSession | None) -> tuple[Ours, Bare]:
    client, server = tcp_pair(sides)
    wrapped = context.wrap_socket(
        client, do_handshake_on_connect=False, suppress_ragged_eofs=False, server_hostname=NAME, session=session
    )
    other = Bare(wrapped, says=b"hello")
    ours = ours_as_server(own, server)
    sides += [ours, other]
    drive(ours, other, until=lambda: ours.outcome is not None)
    return ours, other


@pytest.mark.holds("R8")
def test_tls_1_3_sessions_are_not_resumed(sides: list[Any]) -> None:
    own, context = contexts(), bare_context(server=False, version=TLS13, certificate=issued())
    ours, other = resume(sides, own, context, None)
    assert ours.outcome == b"hello"
    ours, other = resume(sides, own, context, other.socket.session)
    assert ours.outcome == b"hello"
    assert not other.socket.session_reused


@pytest.mark.holds("R8")
def test_a_resumed_session_of_tls_1_2_is_verified_again(sides: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    own, context = contexts(), bare_context(server=False, version=TLS12, certificate=issued())
    ours, other = resume(sides, own, context, None)
    session = other.socket.session
    ours, other = resume(sides, own, context, session)
    assert ours.outcome == b"hello"
    assert other.socket.session_reused  # there is no switch against it
    assert ours.socket.info is not None and ours.socket.info.identities is not None
    assert ours.socket.info.identities.covers(NAME)

    verifier = own.verifier
    own.verifier = verifier._replace(revocation=revocation_of(issued()))
    ours, _ = resume(sides, own, context, session)
    assert isinstance(ours.outcome, TlsFailureException)
    assert ours.outcome.failure_reason is R.REMOTE_CERTIFICATE_REVOKED

    own.verifier = verifier._replace(strict=True, revocation=Revocation(TrustAnchors()))
    ours, _ = resume(sides, own, context, session)
    assert isinstance(ours.outcome, TlsFailureException)
    assert ours.outcome.failure_reason is R.UNTRUSTED_REMOTE_CERTIFICATE

    own.verifier = verifier
    later = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=400)
    clock = types.SimpleNamespace(now=lambda zone: later)
    monkeypatch.setattr(
        "p2psip.net.tls_socket.datetime", types.SimpleNamespace(datetime=clock, timezone=datetime.timezone)
    )
    ours, _ = resume(sides, own, context, session)
    assert isinstance(ours.outcome, TlsFailureException)
    assert ours.outcome.failure_reason is R.CERTIFICATE_EXPIRED


def revocation_of(revoked: IssuedCertificate) -> Revocation:
    """The authority's list with one certificate on it, which it then forgets."""
    root = authority()
    root.revoke(revoked)
    try:
        return Revocation(root.trusted)
    finally:
        root._revoked.remove(revoked.serial)


def test_idle_sockets_leave_nothing_behind(sides: list[Any]) -> None:
    ours, other = connected(sides, True)
    ours.socket.close()
    other.close()
    gc.collect()  # an unclosed socket would warn, and warnings are errors
    assert ours.fileno() == -1
