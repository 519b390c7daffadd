"""Client transactions through the engine: the RFC's timers, retransmissions, and who is told what."""

from __future__ import annotations

from typing import Any

import pytest
from core_support import TARGET, FakeFlow, Side, changed, make_request

from p2psip.core.engine import ClientRequest
from p2psip.errors import (
    ConnectionFailureException,
    OperationFailureException,
    OperationFailureReason,
    OperationTimeoutException,
    RealTimeException,
)
from p2psip.message import Request, Response, create_cancel, create_response, parse_message

UNRELIABLE, RELIABLE = "UDP", "TCP"


class Caller:
    """The usage of an INVITE: it keeps what it is told."""

    def __init__(self) -> None:
        self.responses: list[Response] = []
        self.errors: list[RealTimeException] = []

    def responded(self, now: float, client_request: ClientRequest, response: Response) -> None:
        self.responses.append(response)

    def failed(self, now: float, client_request: ClientRequest, error: RealTimeException) -> None:
        self.errors.append(error)

    def received(self, *args: Any) -> None:
        raise AssertionError

    acknowledged = cancelled = transaction_failed = received

    @property
    def codes(self) -> list[int]:
        return [response.status_code for response in self.responses]


class Client:
    """One side with one flow, driven by hand."""

    def __init__(self, transport: str, method: str = "MESSAGE", **settings: Any) -> None:
        self.side = Side("a", changed(**settings))
        self.engine = self.side.engine
        self.flow = FakeFlow(transport=transport)
        self.now = 100.0
        self.caller = Caller()
        self.request = make_request(method)
        usage = self.caller if method == "INVITE" else None
        self.client_request = self.engine.send_request(self.now, self.request, TARGET, "user", usage=usage)
        self.engine.flow_opened(self.now, self.client_request, self.flow)
        self.wire()

    def wire(self) -> list[str]:
        return self.side.wire()

    def at(self, seconds: float) -> list[str]:
        """What is sent until that many seconds after the beginning."""
        while (deadline := self.engine.next_deadline()) is not None and deadline <= 100.0 + seconds:
            self.engine.advance(deadline)
        self.now = 100.0 + seconds
        self.engine.advance(self.now)
        return self.wire()

    def sent_times(self, until: float) -> list[float]:
        """When something is sent, in seconds after the beginning."""
        times = []
        while (deadline := self.engine.next_deadline()) is not None and deadline <= 100.0 + until:
            self.engine.advance(deadline)
            times += [deadline - 100.0] * len(self.wire())
        return times

    def answer(self, code: int, to_tag: str = "remote") -> Response:
        response = create_response(self.request, code, to_tag=to_tag)
        message = parse_message(response.to_bytes())
        assert isinstance(message, Response)
        self.engine.receive(self.now, self.flow, message)
        return message


def test_timer_e_doubles_up_to_t2_and_timer_f_ends_it() -> None:
    client = Client(UNRELIABLE)
    assert client.sent_times(60.0) == [0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5]
    assert [type(error) for error in client.side.errors] == [OperationTimeoutException]
    assert client.now == 100.0
    client.side.assert_empty()


def test_timer_f_is_64_t1_and_not_a_moment_less() -> None:
    client = Client(UNRELIABLE, t1=0.1)
    client.at(6.39)
    assert client.side.errors == []
    client.at(6.41)
    assert len(client.side.errors) == 1
    client.side.assert_empty()


def test_timer_e_is_t2_after_a_provisional_response() -> None:
    client = Client(UNRELIABLE)
    client.at(0.6)
    client.answer(100)
    assert client.sent_times(20.0) == [1.5, 5.5, 9.5, 13.5, 17.5]
    assert [effect.response.status_code for effect in client.side.provisionals] == [100]


def test_every_provisional_response_is_passed_up() -> None:
    client = Client(RELIABLE)
    for code in (100, 182, 183):
        client.answer(code)
    client.side.take()
    assert [effect.response.status_code for effect in client.side.provisionals] == [100, 182, 183]
    caller = Client(RELIABLE, "INVITE")
    for code in (100, 180, 183):
        caller.answer(code)
    assert caller.caller.codes == [100, 180, 183]


def test_a_request_that_is_in_work_over_there_is_forgotten_like_another() -> None:
    client = Client(UNRELIABLE)
    client.answer(100)
    client.engine.cancel_request(client.now, client.client_request)
    client.side.assert_empty()


def test_timer_k_absorbs_copies_of_the_final_response() -> None:
    client = Client(UNRELIABLE)
    client.answer(200)
    client.answer(200)
    assert client.side.codes == [200]
    assert client.at(4.9) == []
    assert len(client.engine._clients) == 1
    client.at(5.1)
    client.side.assert_empty()


def test_on_a_reliable_transport_nothing_is_retransmitted_and_timer_k_is_zero() -> None:
    client = Client(RELIABLE)
    assert client.at(31.0) == []
    client.answer(200)
    assert client.side.codes == [200]
    client.side.assert_empty()


def test_on_a_reliable_transport_timer_f_counts_too() -> None:
    client = Client(RELIABLE)
    client.answer(100)
    client.at(31.9)
    assert client.side.errors == []
    client.at(32.1)
    (error,) = client.side.errors
    assert isinstance(error, OperationTimeoutException)
    assert str(error) == (
        "MESSAGE to sip:bob@b.example was sent to b.example:5061 over TLS and not answered within 32 s; check that a "
        "SIP endpoint is running there, and send it again if it may come twice."
    )
    client.side.assert_empty()


@pytest.mark.holds("R35")
def test_a_response_after_the_time_out_is_a_stray() -> None:
    client = Client(RELIABLE)
    client.at(32.1)
    client.answer(200)
    assert client.side.codes == []
    assert len(client.side.errors) == 1
    assert client.engine.counts.strays == 1


@pytest.mark.parametrize("transport", [RELIABLE, UNRELIABLE])
@pytest.mark.parametrize("code", [200, 302, 404, 500, 603])
def test_each_kind_of_final_response_completes(transport: str, code: int) -> None:
    client = Client(transport)
    client.answer(code)
    assert client.side.codes == [code]
    assert client.flow.unanswered == 0
    client.at(5.1)
    client.side.assert_empty()


# ---------------------------------------------------------------------- INVITE


def test_timer_a_doubles_without_bound_and_timer_b_ends_it() -> None:
    client = Client(UNRELIABLE, "INVITE")
    assert client.sent_times(60.0) == [0.5, 1.5, 3.5, 7.5, 15.5, 31.5]
    assert [type(error) for error in client.caller.errors] == [OperationTimeoutException]
    client.side.assert_empty()


@pytest.mark.parametrize("transport", [RELIABLE, UNRELIABLE])
def test_timer_b_is_64_t1(transport: str) -> None:
    client = Client(transport, "INVITE")
    client.at(31.9)
    assert client.caller.errors == []
    client.at(32.1)
    assert len(client.caller.errors) == 1
    client.side.assert_empty()


@pytest.mark.parametrize("transport", [RELIABLE, UNRELIABLE])
def test_no_timer_and_no_ceiling_runs_while_it_rings(transport: str) -> None:
    """RFC 3261 17.1.1.2: ringing has no limit but the session's."""
    client = Client(transport, "INVITE")
    client.answer(180)
    assert client.engine.next_deadline() is None
    assert client.at(1000.0) == []
    client.answer(200)
    assert client.caller.codes == [180, 200]
    assert client.caller.errors == []


@pytest.mark.parametrize("code", [300, 404, 500, 603])
def test_the_transaction_acknowledges_a_failure_and_each_copy_of_it(code: int) -> None:
    client = Client(UNRELIABLE, "INVITE")
    client.answer(code)
    assert client.wire() == ["ACK"]
    client.answer(code)
    assert client.wire() == ["ACK"]
    assert client.caller.codes == [code]
    client.at(31.9)
    assert len(client.engine._clients) == 1
    client.at(32.1)
    client.side.assert_empty()


def test_the_ack_to_a_failure_has_the_branch_of_the_invite_and_the_tag_of_the_response() -> None:
    """RFC 3261 17.1.1.3."""
    client = Client(RELIABLE, "INVITE")
    client.answer(486, to_tag="theirs")
    ack = client.side.last()
    assert isinstance(ack, Request)
    assert ack.top_via.branch == client.request.top_via.branch
    assert ack.to_tag == "theirs"
    assert ack.cseq == (1, "ACK")
    assert ack.uri == client.request.uri


def test_on_a_reliable_transport_timer_d_is_zero() -> None:
    client = Client(RELIABLE, "INVITE")
    client.answer(486)
    assert client.wire() == ["ACK"]
    client.side.assert_empty()


@pytest.mark.parametrize("transport", [RELIABLE, UNRELIABLE])
def test_every_2xx_is_passed_up_until_timer_m(transport: str) -> None:
    """RFC 6026: copies and the answers of other forks, on every transport."""
    client = Client(transport, "INVITE")
    client.answer(200, "one")
    client.answer(200, "one")
    client.answer(200, "two")
    assert [response.to_tag for response in client.caller.responses] == ["one", "one", "two"]
    assert client.wire() == []  # their ACKs are the session's
    assert client.flow.unanswered == 0
    client.at(31.9)
    client.answer(200, "late")
    assert len(client.caller.responses) == 4
    client.at(32.1)
    client.answer(200, "toolate")
    assert len(client.caller.responses) == 4
    client.side.assert_empty()


def test_an_accepted_invite_ignores_everything_but_2xx() -> None:
    client = Client(RELIABLE, "INVITE")
    client.answer(200)
    client.answer(180)
    client.answer(486)
    assert client.caller.codes == [200]
    assert client.wire() == []


def test_the_ack_to_a_2xx_has_a_branch_of_its_own() -> None:
    """RFC 3261 13.2.2.4."""
    client = Client(RELIABLE, "INVITE")
    client.answer(200)
    ack = make_request("ACK")
    client.engine.send_ack(client.now, client.flow, ack)
    sent = client.side.last()
    assert isinstance(sent, Request)
    assert sent.method == "ACK"
    assert sent.top_via.branch not in (None, client.request.top_via.branch)
    assert len(client.engine._clients) == 1  # no transaction


def test_an_invite_without_usage_is_refused() -> None:
    side = Side("a")
    with pytest.raises(ValueError, match="INVITE"):
        side.engine.send_request(0.0, make_request("INVITE"), TARGET, "user")
    side.assert_empty()


# ---------------------------------------------------------------------- CANCEL


def test_cancel_waits_for_a_provisional_response() -> None:
    """RFC 3261 9.1."""
    client = Client(RELIABLE, "INVITE")
    assert client.engine.cancel_request(client.now, client.client_request) is True
    assert client.wire() == []
    client.answer(100)
    assert client.wire() == ["CANCEL"]
    client.answer(180)
    assert client.wire() == []


def test_cancel_is_sent_once_in_a_transaction_of_its_own() -> None:
    client = Client(UNRELIABLE, "INVITE")
    client.answer(180)
    client.engine.cancel_request(client.now, client.client_request)
    cancel = client.side.last()
    assert client.wire() == ["CANCEL"]
    assert isinstance(cancel, Request)
    assert cancel.top_via.branch == client.request.top_via.branch
    assert cancel.cseq == (1, "CANCEL")
    assert cancel.to_tag is None
    client.engine.cancel_request(client.now, client.client_request)
    assert client.wire() == []
    assert client.at(0.6) == ["CANCEL"]  # timer E of its own transaction
    client.engine.receive(client.now, client.flow, create_response(cancel, 200, to_tag="x"))
    client.answer(487)
    assert client.wire() == ["ACK"]
    assert client.caller.codes == [180, 487]
    client.at(60.0)
    client.side.assert_empty()


def test_a_final_response_that_overtakes_the_cancel_means_no_cancel() -> None:
    client = Client(RELIABLE, "INVITE")
    client.engine.cancel_request(client.now, client.client_request)
    client.answer(200)
    assert client.wire() == []
    assert client.caller.codes == [200]
    assert client.engine.cancel_request(client.now, client.client_request) is False
    assert client.wire() == []


def test_without_any_final_response_64_t1_after_cancel_the_invite_is_over() -> None:
    client = Client(RELIABLE, "INVITE")
    client.answer(180)
    client.at(100.0)
    client.engine.cancel_request(client.now, client.client_request)
    client.at(131.9)
    assert client.caller.errors == []
    client.at(132.1)
    assert [type(error) for error in client.caller.errors] == [OperationTimeoutException]
    client.side.assert_empty()


def test_a_request_that_is_no_invite_is_forgotten_and_its_answer_is_a_stray() -> None:
    client = Client(UNRELIABLE)
    assert client.engine.cancel_request(client.now, client.client_request) is False
    assert client.flow.unanswered == 0
    client.side.assert_empty()
    client.answer(200)
    assert client.side.completed == []
    client.engine.cancel_request(client.now, client.client_request)
    assert client.flow.unanswered == 0


def test_an_invite_without_a_flow_is_forgotten() -> None:
    side = Side("a")
    caller = Caller()
    client_request = side.engine.send_request(0.0, make_request("INVITE"), TARGET, "user", usage=caller)
    assert side.engine.cancel_request(0.0, client_request) is False
    side.engine.flow_opened(0.0, client_request, FakeFlow())
    assert side.wire() == []
    side.assert_empty()


# ---------------------------------------------------------------------- what matches


def test_a_response_matches_by_branch_and_method() -> None:
    client = Client(RELIABLE)
    other = make_request("OPTIONS")
    other.headers.prepend("Via", client.request.headers.get("Via") or "")
    client.engine.receive(client.now, client.flow, create_response(other, 200, to_tag="x"))
    stranger = make_request()
    stranger.headers.prepend("Via", "SIP/2.0/TLS 192.0.2.1:5061;branch=z9hG4bK-other")
    client.engine.receive(client.now, client.flow, create_response(stranger, 200, to_tag="x"))
    assert client.side.codes == []
    client.answer(200)
    assert client.side.codes == [200]


@pytest.mark.holds("R35")
@pytest.mark.parametrize(
    "change",
    [
        lambda r: r.headers.prepend("Via", "SIP/2.0/TLS 192.0.2.9;branch=z9hG4bK-9"),
        lambda r: r.headers.add("Via", "SIP/2.0/TLS 192.0.2.9;branch=z9hG4bK-9"),
        lambda r: r.headers.set("Via", f"{r.headers.get('Via')}, SIP/2.0/TLS 192.0.2.9;branch=z9hG4bK-9"),
        lambda r: r.headers.set("CSeq", "99999999999 MESSAGE"),
        lambda r: r.headers.remove("Via"),
        lambda r: r.headers.set("Via", "garbage"),
    ],
)
def test_a_response_that_went_astray_or_is_bad_is_dropped(change: Any) -> None:
    """RFC 3261 8.1.3.3, 18.1.2."""
    client = Client(RELIABLE)
    response = create_response(client.request, 200, to_tag="x")
    change(response)
    message = parse_message(response.to_bytes())
    assert isinstance(message, Response)
    client.engine.receive(client.now, client.flow, message)
    assert client.side.take() == []
    assert client.side.completed == []


@pytest.mark.parametrize("start_line", [b"SIP/2.0 099 Low", b"SIP/2.0 700 High", b"SIP/7.0 200 OK"])
def test_a_response_with_an_impossible_status_line_is_dropped(start_line: bytes) -> None:
    client = Client(RELIABLE)
    octets = create_response(client.request, 200, to_tag="x").to_bytes().replace(b"SIP/2.0 200 OK", start_line, 1)
    message = parse_message(octets)
    assert isinstance(message, Response)
    client.engine.receive(client.now, client.flow, message)
    assert client.side.take() == []


def test_a_bad_response_to_an_invite_is_dropped() -> None:
    client = Client(RELIABLE, "INVITE")
    response = create_response(client.request, 200, to_tag="x")
    response.headers.set("From", "<sip:alice@a.example")
    message = parse_message(response.to_bytes())
    assert isinstance(message, Response)
    client.engine.receive(client.now, client.flow, message)
    assert client.caller.responses == []


# ---------------------------------------------------------------------- flows, ceilings, limits


def test_our_via_names_transport_sent_by_and_an_unguessable_branch() -> None:
    client = Client(RELIABLE)
    via = client.request.top_via
    assert (via.transport, via.sent_by) == ("TCP", ("192.0.2.1", 5061))
    assert via.branch == "z9hG4bK-a1"
    assert "rport" not in via.params
    assert Client(UNRELIABLE).request.top_via.params["rport"] is None  # RFC 3581


def test_our_via_says_what_the_flow_adds_and_a_cancel_says_the_same() -> None:
    side, flow = Side("a"), FakeFlow()
    flow.via_parameters = ";alias"
    request = make_request()
    side.engine.send_ack(0.0, flow, request)
    assert request.top_via.params == {"branch": request.top_via.branch, "alias": None}  # RFC 5923 5
    assert str(create_cancel(request).top_via) == str(request.top_via)


def test_a_second_flow_for_the_same_request_is_not_used() -> None:
    client = Client(RELIABLE)
    other = FakeFlow()
    client.engine.flow_opened(client.now, client.client_request, other)
    assert client.wire() == []
    assert (client.flow.unanswered, other.unanswered) == (1, 0)
    client.engine.flow_failed(client.now, client.client_request, ConnectionFailureException("late"))
    assert client.side.errors == []


def test_a_lost_flow_fails_all_its_requests_at_once_each_with_its_own_error() -> None:
    client = Client(RELIABLE)
    second = client.engine.send_request(client.now, make_request("OPTIONS"), TARGET, "second")
    client.engine.flow_opened(client.now, second, client.flow)
    third = client.engine.send_request(client.now, make_request(), TARGET, "third")
    elsewhere = FakeFlow()
    client.engine.flow_opened(client.now, third, elsewhere)
    cause = OSError("reset")
    error = ConnectionFailureException("The connection was reset.")
    error.__cause__ = cause
    client.engine.flow_closed(client.now, client.flow, error)
    errors = client.side.errors
    assert [effect.user for effect in client.side.completed] == ["user", "second"]
    assert len({id(e) for e in errors} | {id(error)}) == 3
    assert all(type(e) is ConnectionFailureException and e.__cause__ is cause for e in errors)
    assert client.flow.unanswered == 0
    assert elsewhere.unanswered == 1
    client.engine.flow_closed(client.now, client.flow, error)
    assert len(client.side.errors) == 2
    client.engine.flow_closed(client.now, elsewhere, None)
    client.side.assert_empty()


def test_a_flow_that_the_peer_closes_in_order_is_a_failure_that_says_so() -> None:
    client = Client(RELIABLE)
    client.engine.flow_closed(client.now, client.flow, None)
    (error,) = client.side.errors
    assert isinstance(error, ConnectionFailureException)
    assert str(error).startswith(
        "MESSAGE to sip:bob@b.example was sent to b.example:5061 over TLS, but the connection was closed by the peer "
        "before it answered"
    )


def test_a_lost_flow_after_the_final_response_changes_nothing() -> None:
    client = Client(UNRELIABLE)
    client.answer(200)
    client.engine.flow_closed(client.now, client.flow, None)
    assert client.side.codes == [200]
    assert client.side.errors == []
    client.side.assert_empty()


@pytest.mark.parametrize("code", [180, 200, 486])
def test_an_invite_whose_flow_is_lost_leaves_nothing(code: int) -> None:
    client = Client(UNRELIABLE, "INVITE")
    client.answer(code)
    client.engine.flow_closed(client.now, client.flow, None)
    assert len(client.caller.errors) == (1 if code == 180 else 0)
    client.side.assert_empty()


def test_no_flow_is_a_failure_with_a_copy_of_the_reason() -> None:
    side = Side("a")
    requests = [side.engine.send_request(0.0, make_request(), TARGET, n) for n in range(3)]
    error = ConnectionFailureException("refused")
    for client_request in requests:
        side.engine.flow_failed(1.0, client_request, error)
        side.engine.flow_failed(1.0, client_request, error)
    assert [str(e) for e in side.errors] == ["refused"] * 3
    assert len({id(e) for e in side.errors} | {id(error)}) == 4
    side.assert_empty()


def test_the_ceiling_ends_a_request_that_finds_no_flow() -> None:
    side = Side("a")
    client_request = side.engine.send_request(0.0, make_request(), TARGET, "user")
    assert side.engine.next_deadline() == 60.0
    side.engine.advance(60.0)
    (error,) = side.errors
    assert isinstance(error, OperationTimeoutException)
    assert str(error) == (
        "MESSAGE to sip:bob@b.example could not be sent: there was no connection to b.example:5061 over TLS after 60 s; "
        "check the address, and that the peer is running and can be reached."
    )
    side.engine.flow_opened(61.0, client_request, FakeFlow())
    side.engine.flow_failed(61.0, client_request, ConnectionFailureException("late"))
    assert side.wire() == []
    assert len(side.errors) == 1
    side.assert_empty()


def test_the_ceiling_counts_from_the_call_and_timer_f_from_the_first_byte() -> None:
    side = Side("a")
    for n, opened in enumerate((10.0, 50.0)):
        client_request = side.engine.send_request(0.0, make_request(), TARGET, n)
        side.engine.flow_opened(opened, client_request, FakeFlow())
    side.engine.advance(41.9)
    assert side.errors == []
    side.engine.advance(42.1)  # 10 s until it was written and 64*T1
    side.take()
    assert [effect.user for effect in side.completed] == [0]
    side.engine.advance(59.9)
    assert len(side.errors) == 1
    side.engine.advance(60.1)
    assert len(side.errors) == 2
    assert "within 60 s" in str(side.errors[1])
    side.assert_empty()


@pytest.mark.parametrize("opened", [True, False])
def test_a_time_out_of_the_caller_is_counted_from_the_call(opened: bool) -> None:
    side, flow = Side("a"), FakeFlow()
    client_request = side.engine.send_request(0.0, make_request(), TARGET, "user", timeout=2.5)
    if opened:
        side.engine.flow_opened(1.0, client_request, flow)
    side.engine.advance(2.4)
    assert side.errors == []
    side.engine.advance(2.5)
    (error,) = side.errors
    assert isinstance(error, OperationTimeoutException)
    assert "2.5 s" in str(error)
    assert flow.unanswered == 0
    side.assert_empty()


def test_a_time_out_beyond_the_ceiling_is_the_ceiling() -> None:
    side = Side("a", changed(request_ceiling=3.0))
    side.engine.send_request(0.0, make_request(), TARGET, "user", timeout=10.0)
    assert side.engine.next_deadline() == 3.0


def test_a_time_out_of_an_invite_ends_with_its_first_provisional_response() -> None:
    side = Side("a")
    caller = Caller()
    request = make_request("INVITE")
    flow = FakeFlow()
    client_request = side.engine.send_request(0.0, request, TARGET, "user", timeout=5.0, usage=caller)
    side.engine.flow_opened(0.0, client_request, flow)
    late = side.engine.send_request(0.0, make_request("INVITE"), TARGET, "user", timeout=5.0, usage=caller)
    side.engine.flow_opened(0.0, late, flow)
    side.engine.receive(1.0, flow, create_response(request, 180, to_tag="x"))
    side.engine.advance(100.0)
    assert caller.codes == [180]
    assert len(caller.errors) == 1
    assert flow.unanswered == 1


@pytest.mark.holds("R29")
def test_too_many_unanswered_requests_on_a_flow() -> None:
    side, flow = Side("a", changed(maximum_unanswered_per_connection=2)), FakeFlow()
    requests = [make_request() for _ in range(3)]
    pending = [side.engine.send_request(0.0, request, TARGET, n) for n, request in enumerate(requests)]
    for client_request in pending:
        side.engine.flow_opened(0.0, client_request, flow)
    (error,) = side.errors
    assert isinstance(error, OperationFailureException)
    assert error.failure_reason is OperationFailureReason.THROTTLED
    assert "MESSAGE to sip:bob@b.example" in str(error)
    assert flow.unanswered == 2
    side.engine.receive(0.0, flow, create_response(requests[0], 200, to_tag="x"))
    again = side.engine.send_request(0.0, make_request(), TARGET, "again")
    side.engine.flow_opened(0.0, again, flow)
    assert len(side.errors) == 1


@pytest.mark.holds("R29")
def test_too_many_transactions() -> None:
    side = Side("a", changed(maximum_transactions=2))
    pending = [side.engine.send_request(0.0, make_request(), TARGET, n) for n in range(3)]
    (error,) = side.errors
    assert isinstance(error, OperationFailureException)
    assert error.failure_reason is OperationFailureReason.THROTTLED
    assert len(side.opening) == 2
    side.engine.cancel_request(0.0, pending[0])
    side.engine.send_request(0.0, make_request(), TARGET, "again")
    assert len(side.errors) == 1
