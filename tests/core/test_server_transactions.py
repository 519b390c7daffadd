"""Server transactions through the engine: the RFC's timers, copies of requests, and the limits on handlers."""

from __future__ import annotations

from typing import Any

import pytest
from core_support import FakeFlow, Side, changed, incoming, make_record

from p2psip.core.effects import SendBack
from p2psip.core.late_response import LateResponse
from p2psip.core.transaction import ServerTransaction
from p2psip.errors import ConnectionFailureException, OperationTimeoutException, RealTimeException
from p2psip.message import Request, Response, create_ack, create_cancel, parse_message

UNRELIABLE, RELIABLE = "UDP", "TCP"
both = pytest.mark.parametrize("transport", [RELIABLE, UNRELIABLE])


class Callee:
    """A usage that claims what it is told to, and keeps what it is told."""

    def __init__(self, *methods: str) -> None:
        self.methods = methods
        self.transactions: list[ServerTransaction] = []
        self.acks: list[Request] = []
        self.cancelled_ones: list[ServerTransaction] = []
        self.failures: list[RealTimeException | None] = []

    def find(self, request: Request, flow: Any) -> Callee | None:
        return self if request.method in self.methods else None

    def received(self, now: float, transaction: ServerTransaction) -> None:
        self.transactions.append(transaction)

    def acknowledged(self, now: float, flow: Any, ack: Request) -> None:
        self.acks.append(ack)

    def cancelled(self, now: float, transaction: ServerTransaction) -> None:
        self.cancelled_ones.append(transaction)

    def transaction_failed(self, now: float, transaction: ServerTransaction, error: RealTimeException | None) -> None:
        self.failures.append(error)

    def responded(self, *args: Any) -> None:
        raise AssertionError

    failed = responded


class Server:
    """One side with one endpoint and one flow, driven by hand. Sends are at ``now``, which starts at 0."""

    def __init__(self, transport: str, method: str = "MESSAGE", usage: Callee | None = None, **settings: Any) -> None:
        self.side = Side("b", changed(**settings))
        self.engine = self.side.engine
        self.side.directory.add(make_record())
        if usage is not None:
            self.engine.usages.append(usage)
        self.flow = FakeFlow(("192.0.2.1", 5061), ("192.0.2.2", 5061), transport)
        self.now = 0.0
        self.request = incoming(method)
        self.again()
        self.side.take()
        (self.transaction,) = usage.transactions if usage is not None else self.side.delivered

    def again(self) -> None:
        """The request comes (once more)."""
        message = parse_message(self.request.to_bytes())
        self.engine.receive(self.now, self.flow, message)

    def respond(self, code: int) -> bool:
        return self.engine.respond(self.now, self.transaction, self.transaction.create_response(code))

    def wire(self) -> list[str]:
        return self.side.wire()

    def at(self, seconds: float) -> list[str]:
        while (deadline := self.engine.next_deadline()) is not None and deadline <= seconds:
            self.engine.advance(deadline)
        self.now = seconds
        self.engine.advance(seconds)
        return self.wire()

    def sent_times(self, until: float) -> list[float]:
        times = []
        while (deadline := self.engine.next_deadline()) is not None and deadline <= until:
            self.engine.advance(deadline)
            times += [round(deadline, 6)] * len(self.wire())
        self.now = until
        return times

    def ack(self, branch: str | None = None) -> None:
        ack = create_ack(self.request, self.transaction.create_response(200))
        if branch is not None:
            ack.headers.set("Via", f"SIP/2.0/{self.flow.transport} 192.0.2.2:5061;branch={branch}")
        self.engine.receive(self.now, self.flow, parse_message(ack.to_bytes()))


# ---------------------------------------------------------------------- non-INVITE


@both
def test_a_copy_before_any_response_is_absorbed(transport: str) -> None:
    server = Server(transport)
    server.again()
    assert server.wire() == []
    assert len(server.side.delivered) == 1


@both
def test_a_100_is_sent_after_3_5_seconds_and_then_repeated(transport: str) -> None:
    """RFC 4320 4.1."""
    server = Server(transport)
    assert server.at(3.4) == []
    assert server.at(3.6) == ["100"]
    server.again()
    assert server.wire() == ["100"]
    assert len(server.side.delivered) == 1
    assert server.at(29.9) == []


def test_a_100_has_no_tag_in_to() -> None:
    server = Server(RELIABLE)
    server.at(3.6)
    server.engine.receive(server.now, server.flow, parse_message(server.request.to_bytes()))
    assert server.side.last().to_tag is None


def test_an_answer_in_time_means_no_100_ever() -> None:
    server = Server(UNRELIABLE)
    server.respond(200)
    assert server.wire() == ["200"]
    assert server.at(40.0) == []
    server.side.assert_empty()


def test_timer_j_repeats_the_final_response_to_copies() -> None:
    server = Server(UNRELIABLE)
    server.respond(200)
    server.again()
    assert server.wire() == ["200", "200"]
    server.at(31.9)
    server.again()
    assert server.wire() == ["200"]
    assert len(server.side.delivered) == 1
    server.at(32.1)
    server.side.assert_empty()


def test_on_a_reliable_transport_timer_j_is_zero() -> None:
    server = Server(RELIABLE)
    server.respond(200)
    server.side.assert_empty()


@both
def test_only_one_final_response_is_sent(transport: str) -> None:
    server = Server(transport)
    assert server.respond(200) is True
    assert server.respond(500) is False
    assert server.respond(200) is False
    assert server.wire() == ["200"]


@both
def test_after_30_seconds_without_answer_it_is_500(transport: str) -> None:
    server = Server(transport)
    assert server.at(29.9) == ["100"]
    assert server.side.expired == []
    assert server.at(30.1) == ["500"]
    assert server.side.expired == [server.transaction]
    assert server.respond(200) is False
    assert server.wire() == []
    server.at(70.0)
    server.side.assert_empty()


def test_a_provisional_answer_of_the_application_does_not_extend_the_limit() -> None:
    server = Server(RELIABLE)
    server.at(1.0)
    server.respond(100)
    assert server.wire() == ["100"]
    assert server.at(29.9) == []
    assert server.at(30.1) == ["500"]


def test_every_provisional_answer_is_sent_and_the_last_one_repeated() -> None:
    server = Server(RELIABLE, "INVITE")
    server.respond(182)
    server.respond(183)
    server.again()
    assert server.wire() == ["182", "183", "183"]
    server = Server(RELIABLE, "INFO")
    server.respond(100)
    server.again()
    assert server.wire() == ["100", "100"]


def test_no_provisional_answer_but_100_to_other_requests() -> None:
    """RFC 4320 4.1."""
    transaction = Server(RELIABLE).transaction
    for code in (101, 180, 199):
        with pytest.raises(ValueError, match="RFC 4320"):
            transaction.create_response(code)
    assert transaction.create_response(100).status_code == 100


@pytest.mark.parametrize("limit", [1.0, 3.5])
def test_a_handler_limit_below_the_provisional_delay(limit: float) -> None:
    server = Server(RELIABLE, handler_limit=limit)
    assert server.at(limit - 0.1) == []
    assert server.at(limit + 0.1) == ["500"]
    server.side.assert_empty()


def test_never_408() -> None:
    """RFC 4320 4.2."""
    server = Server(RELIABLE)
    with pytest.raises(ValueError, match="408"):
        server.transaction.create_response(408)
    assert Server(RELIABLE, "INVITE").transaction.create_response(408).status_code == 408


def test_all_responses_bear_one_to_tag() -> None:
    server = Server(RELIABLE, "INVITE")
    tags = {server.transaction.create_response(code).to_tag for code in (180, 183, 200, 486)}
    assert tags == {server.transaction.to_tag}


def test_server_match_includes_sent_by_and_method() -> None:
    """RFC 3261 17.2.3."""
    server = Server(RELIABLE)
    branch = server.request.top_via.branch
    for via, method in (
        (f"SIP/2.0/TCP 192.0.2.2:5062;branch={branch}", "MESSAGE"),
        (f"SIP/2.0/TCP 192.0.2.3:5061;branch={branch}", "MESSAGE"),
        (f"SIP/2.0/TCP 192.0.2.2:5061;branch={branch}", "OPTIONS"),
    ):
        server.engine.receive(0.0, server.flow, incoming(method, via=via))
    server.side.take()
    assert len(server.side.delivered) == 4
    server.engine.receive(
        0.0, server.flow, incoming("MESSAGE", via=f"SIP/2.0/TCP 192.0.2.2:5061;rport;branch={branch}")
    )
    server.side.take()
    assert len(server.side.delivered) == 4


def test_a_host_in_sent_by_is_compared_without_regard_to_case() -> None:
    side, flow = Side("b"), FakeFlow()
    side.directory.add(make_record())
    for host in ("A.example", "a.EXAMPLE"):
        side.engine.receive(0.0, flow, incoming(via=f"SIP/2.0/TLS {host}:5061;branch=z9hG4bK-1"))
    side.take()
    assert len(side.delivered) == 1


@pytest.mark.parametrize("branch", ["", ";branch=1", ";branch=z9hG4bK"])
def test_branches_of_rfc_2543_match_by_everything_else(branch: str) -> None:
    side, flow = Side("b"), FakeFlow()
    side.directory.add(make_record())
    via = f"SIP/2.0/TLS 192.0.2.2:5061{branch}"
    first = incoming("INVITE", call_id="one", via=via)
    for request in (first, first, incoming("INVITE", call_id="two", via=via)):
        side.engine.receive(0.0, flow, parse_message(request.to_bytes()))
    side.take()
    assert len(side.delivered) == 2
    transaction = side.delivered[0]
    side.engine.respond(0.0, transaction, transaction.create_response(486))
    ack = create_ack(first, transaction.create_response(486))
    side.engine.receive(0.0, flow, parse_message(ack.to_bytes()))
    assert transaction.is_terminated


# ---------------------------------------------------------------------- INVITE


@both
def test_an_invite_gets_a_100_after_200_ms(transport: str) -> None:
    """RFC 3261 17.2.1."""
    server = Server(transport, "INVITE")
    assert server.at(0.19) == []
    assert server.at(0.21) == ["100"]
    server.again()
    assert server.wire() == ["100"]


def test_an_invite_that_rings_gets_no_100_and_has_no_handler_limit() -> None:
    server = Server(RELIABLE, "INVITE")
    server.respond(180)
    assert server.at(1000.0) == ["180"]
    server.again()
    assert server.wire() == ["180"]
    assert server.respond(200) is True


def test_an_invite_that_nobody_looks_at_is_answered_500() -> None:
    server = Server(RELIABLE, "INVITE")
    assert server.at(29.9) == ["100"]
    assert server.at(30.1) == ["500"]
    assert server.side.expired == [server.transaction]


def test_two_copies_of_an_invite_make_one_transaction() -> None:
    server = Server(RELIABLE, "INVITE")
    other = FakeFlow(transport=RELIABLE)
    server.engine.receive(0.0, other, parse_message(server.request.to_bytes()))
    server.side.take()
    assert len(server.side.delivered) == 1


def test_timer_g_retransmits_a_failure_until_timer_h() -> None:
    callee = Callee("INVITE")
    server = Server(UNRELIABLE, "INVITE", callee)
    server.respond(486)
    assert server.wire() == ["486"]
    assert server.sent_times(31.9) == [0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5]
    assert callee.failures == []
    server.at(32.1)
    (error,) = callee.failures
    assert isinstance(error, OperationTimeoutException)
    assert "not acknowledged within 32 s" in str(error)
    server.side.assert_empty()


def test_on_a_reliable_transport_timer_h_counts_and_timer_g_does_not() -> None:
    server = Server(RELIABLE, "INVITE")
    server.respond(486)
    assert server.wire() == ["486"]
    assert server.at(31.9) == []
    server.again()
    assert server.wire() == ["486"]
    server.at(32.1)
    server.side.assert_empty()


@pytest.mark.parametrize("code", [300, 699])
def test_everything_from_300_on_waits_for_its_ack(code: int) -> None:
    server = Server(RELIABLE, "INVITE")
    server.respond(code)
    server.again()
    assert server.wire() == [str(code), str(code)]
    server.ack()
    server.side.assert_empty()


def test_an_ack_ends_retransmissions_and_timer_i_absorbs_its_copies() -> None:
    callee = Callee("INVITE", "ACK")
    server = Server(UNRELIABLE, "INVITE", callee)
    server.respond(486)
    server.at(0.6)
    server.ack()
    server.ack()
    server.again()
    assert server.at(5.5) == []
    assert len(server.engine._servers) == 1
    server.at(5.7)
    assert callee.acks == []
    assert server.engine.counts.absorbed == 1  # an ACK is no copy
    server.side.assert_empty()


def test_on_a_reliable_transport_timer_i_is_zero() -> None:
    server = Server(RELIABLE, "INVITE")
    server.respond(486)
    server.ack()
    server.side.assert_empty()


@both
def test_an_accepted_invite_lives_until_timer_l_and_absorbs_copies(transport: str) -> None:
    """RFC 6026 8.5."""
    server = Server(transport, "INVITE")
    server.respond(200)
    server.again()
    assert server.wire() == ["200"]
    assert server.respond(200) is True  # the session repeats it
    assert server.wire() == ["200"]
    assert server.respond(486) is False
    assert server.respond(180) is False
    assert server.wire() == []
    server.at(31.9)
    server.again()
    server.side.take()
    assert len(server.side.delivered) == 1
    server.at(32.1)
    assert server.respond(200) is False
    server.side.assert_empty()


def test_acks_to_a_2xx_go_to_the_usage_whatever_their_branch() -> None:
    callee = Callee("INVITE", "ACK")
    server = Server(RELIABLE, "INVITE", callee)
    server.respond(200)
    server.ack("z9hG4bK-own")
    server.ack("z9hG4bK-own")
    server.ack()  # the INVITE's branch, which is wrong and happens
    assert len(callee.acks) == 3


@pytest.mark.holds("R35")
def test_an_ack_that_belongs_to_nothing_is_dropped() -> None:
    server = Server(RELIABLE, "INVITE")
    server.ack("z9hG4bK-stray")
    server.ack()  # before any final response
    assert server.side.take() == []
    assert not server.transaction.is_terminated


# ---------------------------------------------------------------------- CANCEL


def cancel(server: Server, method: str = "CANCEL") -> None:
    message = create_cancel(server.request)
    server.engine.receive(server.now, server.flow, parse_message(message.to_bytes()))


@both
def test_cancel_is_answered_before_the_invite(transport: str) -> None:
    callee = Callee("INVITE")
    server = Server(transport, "INVITE", callee)
    server.respond(180)
    cancel(server)
    server.side.take()
    tags = {message.to_tag for _, message in server.side.sent}
    assert tags == {server.transaction.to_tag}
    assert [message.cseq.method for _, message in server.side.sent] == ["INVITE", "CANCEL", "INVITE"]
    assert server.wire() == ["180", "200", "487"]
    assert callee.cancelled_ones == [server.transaction]
    assert server.respond(200) is False
    server.ack()
    server.at(100.0)
    server.side.assert_empty()


def test_a_cancel_that_crosses_a_final_response_changes_nothing() -> None:
    """RFC 3261 9.2."""
    callee = Callee("INVITE")
    server = Server(RELIABLE, "INVITE", callee)
    server.respond(200)
    server.wire()
    cancel(server)
    assert server.wire() == ["200"]
    assert callee.cancelled_ones == []
    assert not server.transaction.is_terminated


def test_a_cancel_again_is_a_copy() -> None:
    callee = Callee("INVITE")
    server = Server(UNRELIABLE, "INVITE", callee)
    cancel(server)
    cancel(server)
    assert server.wire() == ["200", "487", "200"]
    assert len(callee.cancelled_ones) == 1


@pytest.mark.holds("R35")
def test_a_cancel_without_transaction_is_answered_481() -> None:
    server = Server(RELIABLE, "INVITE")
    stray = create_cancel(incoming("INVITE"))
    server.engine.receive(0.0, server.flow, parse_message(stray.to_bytes()))
    assert server.wire() == ["481"]


@pytest.mark.parametrize("method", ["MESSAGE", "SUBSCRIBE"])
def test_a_cancel_of_another_request_is_answered_and_changes_nothing(method: str) -> None:
    """RFC 3261 9.2: it matches a transaction, whatever its method is; only an INVITE is ended by it."""
    server = Server(RELIABLE, method)
    cancel(server)
    assert [message.to_tag for _, message in server.side.sent] == []
    server.side.take()
    assert [message.to_tag for _, message in server.side.sent] == [server.transaction.to_tag]
    assert server.wire() == ["200"]
    assert server.respond(202) is True
    server.wire()
    cancel(server)
    assert server.wire() == ["481"]
    server.side.assert_empty()


# ---------------------------------------------------------------------- the end of flows


@both
@pytest.mark.parametrize(
    ("method", "code"), [("MESSAGE", 200), ("MESSAGE", 486), ("INVITE", None), ("INVITE", 100), ("INVITE", 486)]
)
def test_a_lost_flow_ends_what_is_answered_and_the_call_of_a_caller_that_has_gone(
    transport: str, method: str, code: int | None
) -> None:
    server = Server(transport, method)
    if code is not None:
        server.respond(code)
    server.engine.flow_closed(0.0, server.flow, ConnectionFailureException("reset"))
    assert server.respond(200) is False
    server.wire()
    server.side.assert_empty()


@pytest.mark.parametrize("code", [None, 180, 486])
def test_the_usage_of_an_invite_is_told_of_a_lost_flow(code: int | None) -> None:
    callee = Callee("INVITE")
    server = Server(RELIABLE, "INVITE", callee)
    if code is not None:
        server.respond(code)
    error = ConnectionFailureException("reset")
    server.engine.flow_closed(0.0, server.flow, error)
    assert callee.failures == [error]


@pytest.mark.parametrize("code", [None, 200])
def test_the_usage_of_another_request_hears_nothing_of_a_lost_flow_because_the_answer_finds_another(
    code: int | None,
) -> None:
    callee = Callee("INFO")
    server = Server(UNRELIABLE, "INFO", callee)
    if code is not None:
        server.respond(code)
    server.engine.flow_closed(0.0, server.flow, ConnectionFailureException("reset"))
    assert callee.failures == []


def test_an_acknowledged_failure_is_over_whatever_becomes_of_the_flow() -> None:
    callee = Callee("INVITE")
    server = Server(UNRELIABLE, "INVITE", callee)
    server.respond(486)
    server.ack()
    assert len(server.engine._servers) == 1
    server.engine.flow_closed(0.0, server.flow, None)
    assert callee.failures == []
    server.wire()
    server.side.assert_empty()


def test_a_usage_is_told_that_time_ran_out() -> None:
    callee = Callee("INFO")
    server = Server(RELIABLE, "INFO", callee)
    assert server.at(30.1) == ["100", "500"]
    assert [type(error) for error in callee.failures] == [OperationTimeoutException]
    assert "'<sip:alice@a.example>;tag=from'" in str(callee.failures[0])
    assert server.side.expired == []


def test_responses_go_back_over_the_flow_of_the_request() -> None:
    server = Server(RELIABLE)
    server.respond(200)
    server.side.take()
    assert [flow for flow, _ in server.side.sent] == [server.flow]


# ---------------------------------------------------------------------- the way back when the flow is gone

GONE = ConnectionFailureException("reset")


class Lost(Server):
    """The flow is lost before the answer; ``vias`` are what the request bears in place of its own."""

    def __init__(self, method: str, *vias: str, usage: Callee | None = None, transport: str = RELIABLE) -> None:
        self.vias = vias
        super().__init__(transport, method, usage)
        self.flow.is_connected = False
        self.engine.flow_closed(0.0, self.flow, GONE)

    def again(self) -> None:
        self.request.headers.remove("Via")
        for via in self.vias:
            self.request.headers.add("Via", via)
        super().again()

    def searched(self) -> tuple[LateResponse, tuple[Any, ...]]:
        """The response that looks for a way, and where."""
        (effect,) = [each for each in self.engine.take_effects() if type(each) is SendBack]
        return effect.late, tuple(effect.way)

    def sent(self) -> list[tuple[Any, str]]:
        self.side.take()
        sent, self.side.sent = [(flow, start) for flow, start in self.side.sent], []
        return [(flow, str(message.status_code)) for flow, message in sent if isinstance(message, Response)]


DIRECT = "SIP/2.0/TCP 192.0.2.2:5061;branch=z9hG4bK1"
NAMED = "SIP/2.0/TCP pc.example.com:5070;branch=z9hG4bK1"
PROXY = "SIP/2.0/TCP proxy.example.com;branch=z9hG4bK2"


@pytest.mark.parametrize(
    ("via", "transport", "ways"),
    [
        # The address that it came from, at the port that Via says: the port of the lost connection is nobody's.
        (DIRECT, "TCP", [("TCP", "192.0.2.2", 5061, None)]),
        ("SIP/2.0/TCP 192.0.2.2;branch=z9hG4bK1;rport", "TCP", [("TCP", "192.0.2.2", 5060, None)]),
        # Then who Via says that it is (RFC 3263 5): the DNS is asked for services only where Via has no port.
        (NAMED, "TCP", [("TCP", "192.0.2.2", 5070, None), ("TCP", "pc.example.com", 5070, None)]),
        (PROXY, "TCP", [("TCP", "192.0.2.2", 5060, None), ("TCP", "proxy.example.com", None, None)]),
        # Never TLS to TCP, whatever Via says; and it has to be whom Via names.
        (
            NAMED,
            "TLS",
            [("TLS", "192.0.2.2", 5070, "pc.example.com"), ("TLS", "pc.example.com", 5070, "pc.example.com")],
        ),
        (DIRECT, "TLS", [("TLS", "192.0.2.2", 5061, "192.0.2.2")]),
    ],
)
def test_where_a_late_answer_looks_for_its_sender(via: str, transport: str, ways: list[tuple[Any, ...]]) -> None:
    server = Lost("MESSAGE", via, transport=transport)
    assert server.respond(200) is True
    for way in ways:
        late, searched = server.searched()
        assert searched == way
        late.failed(1.0, ConnectionFailureException("refused"))
    assert server.engine.take_effects() == []


def test_a_late_answer_takes_the_first_way_that_there_is() -> None:
    server = Lost("MESSAGE", NAMED)
    server.respond(200)
    late, _ = server.searched()
    late.failed(1.0, ConnectionFailureException("refused"))
    late, _ = server.searched()
    other = FakeFlow(("192.0.2.1", 1), ("192.0.2.2", 5070), RELIABLE)
    late.opened(2.0, other)
    assert server.sent() == [(other, "200")]
    assert server.transaction.is_terminated


def test_a_100_is_not_worth_a_connection_and_a_late_500_is() -> None:
    server = Lost("MESSAGE", DIRECT)
    assert server.at(3.6) == []
    assert server.side.late == []
    for deadline in (30.0, 30.1):
        server.engine.advance(deadline)
    assert server.searched()[1][1] == "192.0.2.2"


def test_a_call_through_a_proxy_rings_on_and_is_answered_by_another_way() -> None:
    callee = Callee("INVITE")
    server = Lost("INVITE", PROXY, DIRECT, usage=callee)
    assert callee.failures == []
    other = FakeFlow(("192.0.2.1", 1), ("192.0.2.2", 5060), RELIABLE)
    server.respond(180)
    late, _ = server.searched()
    late.opened(1.0, other)
    server.respond(200)
    server.respond(200)  # again, because no ACK came
    assert server.sent() == [(other, "180"), (other, "200"), (other, "200")]
    other.is_connected = False
    server.respond(200)
    late, way = server.searched()
    assert way == ("TCP", "192.0.2.2", 5060, None)
    late.failed(2.0, GONE)
    late, _ = server.searched()
    late.failed(3.0, GONE)
    assert callee.failures == [GONE]
    assert server.respond(200) is False


def test_a_2xx_whose_connection_is_lost_before_the_ack_is_sent_again_by_another_way() -> None:
    callee = Callee("INVITE")
    server = Server(RELIABLE, "INVITE", callee)
    server.respond(200)
    server.side.take()
    server.engine.flow_closed(0.0, server.flow, GONE)
    assert callee.failures == []
    assert server.respond(200) is True
    assert [type(effect) for effect in server.engine.take_effects()] == [SendBack]


def test_a_refusal_that_finds_no_way_is_told_to_the_usage() -> None:
    callee = Callee("INVITE")
    server = Lost("INVITE", PROXY, DIRECT, usage=callee)
    server.respond(486)
    for _ in range(2):
        late, _ = server.searched()
        late.failed(1.0, GONE)
    assert callee.failures == [GONE]
    assert server.transaction.is_terminated
