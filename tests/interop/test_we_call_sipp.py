"""Our endpoint as the client, SIPp as the server."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme
from interop_link import KINDS, METHODS, THEIRS, Counter, link, make_identity
from interop_support import PATIENCE
from scale import scaled

from p2psip import (
    AuthenticationException,
    ConnectionFailureException,
    FailureResponseException,
    OperationTimeoutException,
    TlsFailureException,
    TlsFailureReason,
)

pytestmark = pytest.mark.interop


@pytest.mark.long
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", KINDS)
def test_requests_arrive_in_order_and_are_answered(tmp_path: Path, kind: str, method: str) -> None:
    last = scaled(10_000) + 1
    numbers = range(1, last)
    with link(tmp_path, kind) as wire:
        pools = Counter()
        wire.manager.connection_pool_added += pools
        server = wire.server(method, calls=last)
        operations = [server.begin_send(number) for number in numbers]
        answers = [operation.result(PATIENCE) for operation in operations]
        assert {answer.response_code for answer in answers} == {200}
        assert [answer.header("Subject") for answer in answers] == [f"number {number}" for number in numbers]
        (connection,) = wire.manager.connections()
        wire.check_connection(connection)
        server.send(last)  # and with this one SIPp ends
        server.sipp.check()
        assert server.sipp.log == [f"number {number}" for number in (*numbers, last)]
        pools.wait(1)


@pytest.mark.parametrize("kind", ("TCP", "TLSv1.3"))
def test_unusual_ways_to_write_an_answer(tmp_path: Path, kind: str) -> None:
    """Compact names, folded, padded and empty values."""
    with link(tmp_path, kind) as wire:
        server = wire.server("MESSAGE", "server_odd", calls=20, REASON="Ganz in Ordnung, größtenteils")
        for number in range(1, 21):
            answer = server.send(number)
            assert answer.response_text == "Ganz in Ordnung, größtenteils"
            assert answer.text_body == f"heard of number {number}\r\n"
            assert answer.header("Subject") == f"number {number}"
            assert answer.to.tag is not None
            assert answer.header("Supported") == ""
        server.sipp.check()


@pytest.mark.parametrize("kind", ("TCP", "TLSv1.3"))
def test_a_server_that_takes_its_time(tmp_path: Path, kind: str) -> None:
    """RFC 3261 17.1.2.2: provisional answers change nothing but the state."""
    with link(tmp_path, kind) as wire:
        server = wire.server("MESSAGE", "server_slow", calls=50, PAUSE=100)
        operations = [server.begin_send(number) for number in range(1, 51)]
        answers = [operation.result(PATIENCE) for operation in operations]
        assert [answer.header("Subject") for answer in answers] == [f"number {number}" for number in range(1, 51)]
        server.sipp.check()


@pytest.mark.parametrize("kind", ("TCP", "TLSv1.3"))
def test_stray_and_repeated_answers_are_dropped(tmp_path: Path, kind: str) -> None:
    """Of each request the one right answer comes through, all over one connection."""
    with link(tmp_path, kind) as wire:
        server = wire.server("MESSAGE", "server_strays", calls=51, code=202)
        operations = [server.begin_send(number) for number in range(1, 51)]
        answers = [operation.result(PATIENCE) for operation in operations]
        assert {answer.response_code for answer in answers} == {202}
        assert [answer.header("Subject") for answer in answers] == [f"number {number}" for number in range(1, 51)]
        assert len(wire.manager.connections()) == 1
        server.send(51)
        server.sipp.check()


@pytest.mark.parametrize("kind", ("TCP", "TLSv1.3"))
def test_a_body_of_many_segments(tmp_path: Path, kind: str) -> None:
    """Nearly as large as SIPp can."""
    with link(tmp_path, kind) as wire:
        server = wire.server("MESSAGE", calls=20)
        padding = "\r\n" + "\r\n".join(["x" * 998] * 50)
        operations = [server.begin_send(number, padding=padding) for number in range(1, 21)]
        answers = [operation.result(PATIENCE) for operation in operations]
        assert [answer.header("Subject") for answer in answers] == [f"number {number}" for number in range(1, 21)]
        server.sipp.check()
        assert server.sipp.messages.count("x" * 998) == 20 * 50


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (302, FailureResponseException),
        (401, AuthenticationException),
        (404, FailureResponseException),
        (407, AuthenticationException),
        (488, FailureResponseException),
        (500, FailureResponseException),
        (503, FailureResponseException),
        (606, FailureResponseException),
    ],
)
def test_answers_that_are_failures(tmp_path: Path, code: int, kind: type[FailureResponseException]) -> None:
    with link(tmp_path, "TCP") as wire:
        server = wire.server("MESSAGE", code=code, REASON="Because I Say So")
        error = server.begin_send(1).exception(PATIENCE)
        assert type(error) is kind
        assert isinstance(error, FailureResponseException)
        assert error.response_data is not None
        assert (error.response_data.response_code, error.response_data.response_text) == (code, "Because I Say So")
        assert f"{code} Because I Say So" in str(error)
        server.sipp.check()


def test_an_answer_that_comes_too_late(tmp_path: Path) -> None:
    """It is absorbed, and the connection goes on."""
    with link(tmp_path, "TCP") as wire:
        server = wire.server("MESSAGE", calls=11)
        came = Counter(b"SIP/2.0 200 ")
        wire.manager.trace += came
        with server.sipp.suspended():
            late = [server.begin_send(number, timeout=0.1) for number in range(1, 11)]
            errors = [operation.exception(PATIENCE) for operation in late]
        assert {type(error) for error in errors} == {OperationTimeoutException}
        assert server.send(11).header("Subject") == "number 11"
        server.sipp.check()
        came.wait(11)
        assert server.sipp.log == [f"number {number}" for number in range(1, 12)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_dies(tmp_path: Path, kind: str) -> None:
    """What waits for it fails at once, each with an error of its own."""
    with link(tmp_path, kind) as wire:
        server = wire.server("MESSAGE", "server_slow", calls=20, PAUSE=60000)
        trying = Counter(b"SIP/2.0 100 ")
        wire.manager.trace += trying
        waiting = [server.begin_send(number) for number in range(1, 21)]
        trying.wait(20)
        server.sipp.stop()
        errors = [operation.exception(PATIENCE) for operation in waiting]
        assert {type(error) for error in errors} == {ConnectionFailureException}
        assert len({id(error) for error in errors}) == 20


@pytest.mark.parametrize("kind", ("TLSv1.2", "TLSv1.3"))
@pytest.mark.parametrize("flaw", ("untrusted", "another name"))
def test_a_server_that_is_not_who_it_should_be(tmp_path: Path, kind: str, flaw: str) -> None:
    with link(tmp_path, kind) as wire:
        if flaw == "untrusted":
            foreign = tmp_path / "foreign"
            foreign.mkdir()
            identity = make_identity(foreign, THEIRS, trustme.CA(), trustme.CA())._replace(trusted=wire.theirs.trusted)
            server, name = wire.server("MESSAGE", identity=identity), THEIRS
            reason = TlsFailureReason.UNTRUSTED_REMOTE_CERTIFICATE
        else:
            server, name = wire.server("MESSAGE"), "else.example.com"
            reason = TlsFailureReason.INCORRECT_NAME_IN_REMOTE_CERTIFICATE
        error = server.begin_send(1, name=name).exception(PATIENCE)
        assert isinstance(error, TlsFailureException)
        assert error.failure_reason is reason
        assert server.sipp.messages == ""


@pytest.mark.parametrize("kind", ("TLSv1.2", "TLSv1.3"))
@pytest.mark.parametrize("count", (1, 100))
def test_a_server_that_does_not_trust_us(tmp_path: Path, kind: str, count: int) -> None:
    """In TLS 1.3 its refusal comes after our side of the handshake is over."""
    with link(tmp_path, kind) as wire:
        foreign = tmp_path / "foreign"
        foreign.mkdir()
        identity = wire.theirs._replace(trusted=make_identity(foreign, THEIRS, trustme.CA(), trustme.CA()).trusted)
        server = wire.server("MESSAGE", identity=identity)
        errors = [operation.exception(PATIENCE) for operation in [server.begin_send(n) for n in range(count)]]
        assert {type(error) for error in errors} == {TlsFailureException}
        assert server.sipp.messages == ""
