"""Two engines back to back, and what holds for the engine as a whole."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
from core_support import TARGET, FakeFlow, Pair, Side, changed, incoming, make_record, make_request

from p2psip.core.effects import Complete, Send
from p2psip.core.engine import ClientRequest
from p2psip.core.transaction import ServerTransaction, Transaction
from p2psip.errors import (
    OperationFailureException,
    OperationFailureReason,
    OperationTimeoutException,
    RealTimeException,
)
from p2psip.message import Request, Response, create_response
from p2psip.timers import Timer

both = pytest.mark.parametrize("transport", ["TLS", "UDP"])


class Session:
    """The least that a session does: it acknowledges each 2xx, claims what has its Call-ID, keeps what it is told."""

    def __init__(self, pair: Pair, side: Side, flow: FakeFlow, call_id: str) -> None:
        self.pair = pair
        self.side = side
        self.flow = flow
        self.call_id = call_id
        self.log: list[str] = []
        self.transaction: ServerTransaction | None = None
        self.client_request: ClientRequest | None = None
        side.engine.usages.append(self)

    def find(self, request: Request, flow: Any) -> Session | None:
        return self if request.call_id == self.call_id else None

    def received(self, now: float, transaction: ServerTransaction) -> None:
        self.log.append(transaction.request.method)
        if transaction.request.method == "INVITE":
            self.transaction = transaction
        else:
            self.side.engine.respond(now, transaction, transaction.create_response(200))

    def acknowledged(self, now: float, flow: Any, ack: Request) -> None:
        self.log.append("ACK")

    def cancelled(self, now: float, transaction: ServerTransaction) -> None:
        self.log.append("cancelled")

    def transaction_failed(self, now: float, transaction: ServerTransaction, error: RealTimeException | None) -> None:
        self.log.append("failed")

    def responded(self, now: float, client_request: ClientRequest, response: Response) -> None:
        self.log.append(str(response.status_code))
        if client_request.request.method == "INVITE" and 200 <= response.status_code < 300:
            ack = make_request("ACK", to=response.headers.get("To"), call_id=self.call_id)
            self.side.engine.send_ack(now, client_request.flow, ack)

    def failed(self, now: float, client_request: ClientRequest, error: RealTimeException) -> None:
        self.log.append(type(error).__name__)

    def invite(self) -> None:
        request = make_request("INVITE", call_id=self.call_id)
        self.client_request = self.pair.send(request, usage=self)
        self.pair.settle()

    def answer(self, code: int) -> None:
        assert self.transaction is not None
        self.side.engine.respond(self.pair.now, self.transaction, self.transaction.create_response(code))
        self.pair.settle()


def sessions(pair: Pair) -> tuple[Session, Session]:
    return Session(pair, pair.alice, pair.flow, "call"), Session(pair, pair.bob, pair.back, "call")


@both
def test_one_exchange(transport: str) -> None:
    pair = Pair(transport)
    client_request = pair.send(make_request(body=b"hello"))
    pair.settle()
    assert pair.flow.unanswered == 1
    assert not client_request.is_done
    transaction = pair.answer(200, content_type="text/plain", body=b"welcome")
    assert pair.log == ["MESSAGE", "200"]
    (complete,) = pair.alice.completed
    assert complete.user is client_request.request
    assert complete.error is None
    assert complete.response is not None
    assert complete.response.body == b"welcome"
    assert complete.response.to_tag == transaction.to_tag
    assert client_request.is_done
    pair.pass_time(64.0)
    pair.assert_empty()


def test_exchanges_both_ways_over_one_flow() -> None:
    pair = Pair()
    pair.alice.directory.add(make_record("sip:alice@a.example"))
    pair.send(make_request())
    there = make_request(uri="sip:alice@a.example", to="<sip:alice@a.example>")
    pair.bob.engine.send_request(pair.now, there, TARGET, "bob")
    pair.settle()
    assert (pair.flow.unanswered, pair.back.unanswered) == (1, 1)
    pair.answer(200)
    (transaction,) = pair.alice.delivered
    pair.alice.engine.respond(pair.now, transaction, transaction.create_response(202))
    pair.settle()
    assert pair.alice.codes == [200]
    assert pair.bob.codes == [202]
    pair.assert_empty()


def test_requests_are_delivered_and_answered_in_order() -> None:
    pair = Pair()
    requests = [make_request() for _ in range(50)]
    for request in requests:
        pair.send(request)
    pair.settle()
    assert [t.request.call_id for t in pair.bob.delivered] == [request.call_id for request in requests]
    for transaction in reversed(pair.bob.delivered):
        pair.bob.engine.respond(pair.now, transaction, transaction.create_response(200))
    pair.settle()
    assert [c.user.call_id for c in pair.alice.completed] == [request.call_id for request in reversed(requests)]
    pair.assert_empty()


def test_effects_come_in_order_and_once() -> None:
    side = Side("a")
    first = side.engine.send_request(0.0, make_request(), TARGET, 1)
    second = side.engine.send_request(0.0, make_request(), TARGET, 2)
    effects = side.engine.take_effects()
    assert [effect.client_request for effect in effects] == [first, second]  # type: ignore[union-attr]
    assert [effect.target for effect in effects] == [TARGET, TARGET]  # type: ignore[union-attr]
    assert side.engine.take_effects() == []


def test_losses_are_made_good_on_an_unreliable_transport() -> None:
    pair = Pair("UDP")
    pair.drop.extend([True, False, True, False, False])  # the request, then the answer to its first copy
    pair.send(make_request())
    pair.settle()
    pair.pass_time(0.6)
    assert len(pair.bob.delivered) == 1
    pair.answer(200)
    pair.pass_time(1.0)
    assert pair.log == ["MESSAGE", "MESSAGE", "200", "MESSAGE", "200"]
    assert pair.alice.codes == [200]
    assert len(pair.bob.delivered) == 1
    pair.pass_time(64.0)
    pair.assert_empty()


def test_a_slow_answer_is_preceded_by_a_100_after_3_5_seconds() -> None:
    pair = Pair()
    pair.send(make_request())
    pair.settle()
    pair.pass_time(20.0)
    assert pair.log == ["MESSAGE", "100"]
    assert [effect.response.status_code for effect in pair.alice.provisionals] == [100]
    pair.answer(200)
    assert pair.alice.codes == [200]
    pair.assert_empty()


def test_nobody_answering_is_500_before_the_client_gives_up() -> None:
    """RFC 4320: the handler limit is below 64*T1, so that the client learns of it."""
    pair = Pair()
    pair.send(make_request())
    pair.settle()
    pair.pass_time(33.0)
    assert pair.alice.codes == [500]
    assert pair.alice.errors == []
    assert len(pair.bob.expired) == 1
    pair.assert_empty()


@both
def test_a_call(transport: str) -> None:
    pair = Pair(transport)
    alice, bob = sessions(pair)
    alice.invite()
    pair.pass_time(0.3)
    bob.answer(180)
    pair.pass_time(100.0)
    bob.answer(200)
    assert pair.log == ["INVITE", "100", "180", "200", "ACK"]
    bye = make_request("BYE", to="<sip:bob@b.example>;tag=x", call_id="call", cseq=2)
    pair.send(bye, usage=alice)
    pair.settle()
    assert pair.log[5:] == ["BYE", "200"]
    assert alice.log == ["100", "180", "200", "200"]
    assert bob.log == ["INVITE", "ACK", "BYE"]
    pair.pass_time(64.0)
    pair.assert_empty()


def test_a_2xx_that_is_sent_again_is_acknowledged_again() -> None:
    """RFC 3261 13.2.2.4: the ACK was lost."""
    pair = Pair("UDP")
    alice, bob = sessions(pair)
    alice.invite()
    pair.drop.extend([False, True])
    bob.answer(200)
    assert bob.log == ["INVITE"]
    bob.answer(200)
    assert bob.log == ["INVITE", "ACK"]
    assert pair.log == ["INVITE", "200", "ACK", "200", "ACK"]
    pair.pass_time(64.0)
    pair.assert_empty()


def test_an_ack_that_is_sent_again_is_the_same() -> None:
    """RFC 3261 13.2.2.4."""
    side, flow = Side("a"), FakeFlow()
    ack = make_request("ACK", call_id="call")
    for _n in range(2):
        side.engine.send_ack(0.0, flow, ack)
    first, second = (effect.data for effect in side.engine.take_effects() if isinstance(effect, Send))
    assert first == second
    assert first.count(b"Via:") == 1


@both
def test_a_rejected_call(transport: str) -> None:
    pair = Pair(transport)
    alice, bob = sessions(pair)
    alice.invite()
    bob.answer(486)
    assert pair.log == ["INVITE", "486", "ACK"]
    assert alice.log == ["486"]
    assert bob.log == ["INVITE"]  # the ACK was the transaction's
    pair.pass_time(64.0)
    pair.assert_empty()


@both
def test_a_cancelled_call(transport: str) -> None:
    pair = Pair(transport)
    alice, bob = sessions(pair)
    alice.invite()
    bob.answer(180)
    assert alice.client_request is not None
    pair.alice.engine.cancel_request(pair.now, alice.client_request)
    pair.settle()
    assert pair.log == ["INVITE", "180", "CANCEL", "200", "487", "ACK"]
    assert alice.log == ["180", "487"]
    assert bob.log == ["INVITE", "cancelled"]
    pair.pass_time(64.0)
    pair.assert_empty()


def test_a_cancel_that_crosses_a_2xx() -> None:
    pair = Pair()
    alice, bob = sessions(pair)
    alice.invite()
    bob.answer(180)
    assert alice.client_request is not None
    assert bob.transaction is not None
    pair.alice.engine.cancel_request(pair.now, alice.client_request)
    pair.bob.engine.respond(pair.now, bob.transaction, bob.transaction.create_response(200))
    pair.settle()
    assert sorted(pair.log) == sorted(["INVITE", "180", "CANCEL", "200", "200", "ACK"])
    assert alice.log == ["180", "200"]
    assert bob.log == ["INVITE", "ACK"]
    pair.pass_time(64.0)
    pair.assert_empty()


def test_usages_are_asked_in_order_and_before_the_directory() -> None:
    pair = Pair()
    first = Session(pair, pair.bob, pair.back, "claimed")
    second = Session(pair, pair.bob, pair.back, "claimed")
    pair.send(make_request("INFO", "sip:nobody@nowhere.example", call_id="claimed", to="<sip:x@y.example>;tag=t"))
    pair.send(make_request("INFO", call_id="unclaimed"))
    pair.settle()
    assert first.log == ["INFO"]
    assert second.log == []
    assert pair.alice.codes == [200]
    assert len(pair.bob.delivered) == 1


def test_a_usage_hears_of_the_end_of_its_requests_and_the_user_does_not() -> None:
    pair = Pair()
    alice = Session(pair, pair.alice, pair.flow, "call")
    pair.send(make_request(call_id="call"), usage=alice)
    pair.settle()
    pair.pass_time(4.0)
    pair.answer(404)
    pair.send(make_request(call_id="call"), usage=alice)
    pair.settle()
    pair.alice.engine.flow_closed(pair.now, pair.flow, None)
    assert alice.log == ["100", "404", "ConnectionFailureException"]
    assert pair.alice.completed == []
    assert pair.alice.provisionals == []


# ---------------------------------------------------------------------- the end


@pytest.mark.holds("R36")
def test_shutdown_completes_everything_once_each_with_its_own_error() -> None:
    pair = Pair()
    alice, _ = sessions(pair)
    alice.invite()
    for _n in range(3):
        pair.send(make_request())
    pair.settle()
    pair.alice.engine.send_request(pair.now, make_request(), TARGET, "opening")
    pair.alice.engine.receive(pair.now, pair.flow, incoming(uri="sip:nobody@x.example"))
    error = OperationFailureException("gone", OperationFailureReason.ABORTED)
    pair.alice.engine.shutdown(pair.now, error)
    errors = pair.alice.errors
    assert [str(e) for e in errors] == ["gone"] * 4
    assert all(isinstance(e, OperationFailureException) for e in errors)
    assert all(
        e.failure_reason is OperationFailureReason.ABORTED for e in errors if isinstance(e, OperationFailureException)
    )
    assert len({id(e) for e in errors} | {id(error)}) == 5
    assert alice.log == ["OperationFailureException"]
    pair.alice.assert_empty()
    assert pair.flow.unanswered == 0
    pair.alice.engine.shutdown(pair.now, error)
    assert len(pair.alice.errors) == 4


def test_shutdown_ends_requests_that_wait_for_our_answer() -> None:
    pair = Pair()
    pair.send(make_request())
    pair.settle()
    pair.bob.engine.shutdown(pair.now, OperationFailureException("gone"))
    transaction = pair.bob.delivered[0]
    assert pair.bob.engine.respond(pair.now, transaction, transaction.create_response(200)) is False
    assert pair.bob.wire() == []
    pair.bob.assert_empty()


def test_after_shutdown_requests_fail_and_messages_are_dropped() -> None:
    pair = Pair()
    pair.bob.engine.shutdown(0.0, OperationFailureException("gone"))
    pair.bob.engine.receive(0.0, pair.back, incoming())
    assert pair.bob.take() == []
    pair.bob.engine.send_request(0.0, make_request(), TARGET, "late")
    assert [str(e) for e in pair.bob.errors] == ["gone"]
    assert pair.bob.opening == []
    pair.bob.assert_empty()


# ---------------------------------------------------------------------- nothing is left, and defects stay confined


def alive() -> list[object]:
    return [thing for thing in gc.get_objects() if isinstance(thing, Transaction | ClientRequest | Timer)]


@both
@pytest.mark.parametrize("code", [200, 404])
def test_no_object_outlives_its_exchange(transport: str, code: int) -> None:
    """Not even until the collector of cycles comes round: there are none."""
    gc.collect()
    before = len(alive())
    gc.disable()
    try:
        pair = Pair(transport)
        pair.send(make_request())
        pair.settle()
        assert len(alive()) > before
        pair.answer(code)
        pair.pass_time(64.0)
        pair.bob.delivered.clear()
        assert len(alive()) == before
    finally:
        gc.enable()
    pair.assert_empty()


class Defect(Exception):
    """Stands for any error of our own."""


class BrokenDirectory:
    def __getattr__(self, name: str) -> Any:
        raise Defect(name)


def test_a_defect_while_a_request_is_judged_leaves_no_transaction() -> None:
    side, flow = Side("b"), FakeFlow()
    side.directory.add(make_record())
    good = side.engine.directory
    side.engine.directory = BrokenDirectory()  # type: ignore[assignment]
    request = incoming()
    with pytest.raises(Defect):
        side.engine.receive(0.0, flow, request)
    side.assert_empty()
    side.engine.directory = good
    side.engine.receive(0.0, flow, request)
    side.take()
    assert len(side.delivered) == 1


@pytest.mark.parametrize("method", ["INVITE", "INFO"])
def test_a_defect_in_a_usage_leaves_no_transaction(method: str) -> None:
    pair = Pair(settings=changed(maximum_unanswered_per_connection=1))
    bob = Session(pair, pair.bob, pair.back, "call")
    bob.received = None  # type: ignore[assignment, method-assign]
    pair.send(make_request("OPTIONS"))
    pair.settle()
    other = incoming(method, call_id="call")
    flow = FakeFlow()
    for _n in range(3):  # and it does not count as unanswered
        with pytest.raises(TypeError):
            pair.bob.engine.receive(0.0, flow, other)
    assert pair.bob.wire() == []
    pair.answer(200)
    assert pair.alice.codes == [200]
    pair.assert_empty()


@pytest.mark.holds("R36")
def test_a_defect_in_the_user_of_a_response_leaves_nothing() -> None:
    pair = Pair()
    alice = Session(pair, pair.alice, pair.flow, "call")
    alice.responded = None  # type: ignore[assignment, method-assign]
    request = make_request(call_id="call")
    pair.send(request, usage=alice)
    pair.settle()
    with pytest.raises(TypeError):
        pair.alice.engine.receive(0.0, pair.flow, create_response(request, 200, to_tag="x"))
    pair.alice.assert_empty()
    assert pair.flow.unanswered == 0


def test_a_defect_when_a_timer_fires_does_not_stop_the_others() -> None:
    pair = Pair()
    alice = Session(pair, pair.alice, pair.flow, "call")
    alice.failed = None  # type: ignore[assignment, method-assign]
    pair.send(make_request(call_id="call"), usage=alice, timeout=1.0)
    pair.alice.engine.send_request(0.0, make_request(), TARGET, "other", timeout=1.0)
    pair.bob.engine.send_request(0.0, make_request(), TARGET, "waits")
    with pytest.raises(TypeError):
        pair.alice.engine.advance(1.0)
    pair.alice.engine.advance(1.0)
    assert [type(e) for e in pair.alice.errors] == [OperationTimeoutException]
    pair.alice.assert_empty()


@pytest.mark.parametrize("end", ["flow_closed", "shutdown"])
def test_a_defect_at_the_end_does_not_keep_others_from_it(end: str) -> None:
    pair = Pair()
    alice = Session(pair, pair.alice, pair.flow, "call")
    alice.failed = None  # type: ignore[assignment, method-assign]
    pair.send(make_request(call_id="call"), usage=alice)
    pair.send(make_request())
    pair.settle()
    pair.alice.engine.receive(0.0, pair.flow, incoming("INVITE", "sip:nobody@a.example"))
    error = OperationFailureException("gone")
    with pytest.raises(TypeError):
        if end == "flow_closed":
            pair.alice.engine.flow_closed(0.0, pair.flow, error)
        else:
            pair.send(make_request(call_id="call"), usage=alice)
            pair.send(make_request())
            pair.alice.engine.shutdown(0.0, error)
    assert [str(e) for e in pair.alice.errors] == ["gone"] * (1 if end == "flow_closed" else 2)
    pair.alice.assert_empty()


def test_the_engine_knows_whether_an_endpoint_still_serves() -> None:
    pair = Pair()
    (bob,) = pair.bob.directory.records
    other = make_record("sip:carol@b.example", "carol")
    pair.bob.directory.add(other)
    assert not bob.serving
    pair.send(make_request("INVITE"), usage=Session(pair, pair.alice, pair.flow, "call"))
    pair.settle()
    assert bob.serving == 1
    assert not other.serving
    pair.answer(200)
    assert pair.bob.engine._servers  # it lingers
    assert not bob.serving
    pair.send(make_request("MESSAGE"))
    pair.settle()
    assert bob.serving == 1
    pair.bob.engine.shutdown(pair.now, OperationFailureException("gone", OperationFailureReason.ABORTED))
    assert bob.serving == 0


@pytest.mark.holds("R29")
def test_what_is_unanswered_on_a_flow_is_counted_right() -> None:
    pair = Pair(settings=changed(maximum_unanswered_per_connection=2))
    broken = Session(pair, pair.bob, pair.back, "broken")
    broken.received = None  # type: ignore[assignment, method-assign]
    engine, flow = pair.bob.engine, FakeFlow()
    for _n in range(3):
        engine.receive(0.0, flow, incoming())
        with pytest.raises(TypeError):
            engine.receive(0.0, flow, incoming("INFO", call_id="broken"))
        engine.receive(0.0, flow, incoming())
        assert pair.bob.wire() == []
        engine.receive(0.0, flow, incoming())
        assert pair.bob.wire() == ["503"]
        for transaction in pair.bob.delivered[-2:]:
            engine.respond(0.0, transaction, transaction.create_response(200))
            engine.receive(0.0, flow, incoming())
            pair.bob.take()
        for transaction in pair.bob.delivered[-2:]:
            engine.respond(0.0, transaction, transaction.create_response(200))
        pair.bob.wire()
    pair.bob.assert_empty()


def test_every_input_brings_its_time() -> None:
    side, flow = Side("a"), FakeFlow()
    side.directory.add(make_record())
    engine, error = side.engine, OperationFailureException("gone")
    client_request = engine.send_request(1.0, make_request(), TARGET, "user")
    assert engine.next_deadline() == 61.0
    engine.flow_opened(2.0, client_request, flow)
    assert engine.next_deadline() == 34.0
    engine.receive(3.0, flow, incoming())
    assert engine.next_deadline() == 6.5
    side.take()
    (transaction,) = side.delivered
    inputs: list[Callable[[float], object]] = [
        lambda now: engine.respond(now, transaction, transaction.create_response(200)),
        lambda now: engine.cancel_request(now, client_request),
        lambda now: engine.flow_failed(now, client_request, error),
        lambda now: engine.send_ack(now, flow, make_request("ACK")),
        lambda now: engine.flow_closed(now, flow, None),
        lambda now: engine.advance(now),
        lambda now: engine.shutdown(now, error),
    ]
    for now, call in enumerate(inputs, 10):
        call(float(now))
        assert engine.now == now


def test_time_moves_only_by_its_argument() -> None:
    pair = Pair()
    pair.send(make_request())
    pair.settle()
    assert pair.alice.engine.next_deadline() == 32.0
    assert pair.bob.engine.next_deadline() == 3.5
    pair.alice.engine.advance(31.0)
    assert pair.alice.take() == []


@pytest.mark.parametrize("is_there", [True, False], ids=["flow at hand", "flow opened"])
def test_what_cannot_be_written_ends_and_leaves_nothing(is_there: bool) -> None:
    pair = Pair()
    engine, flow = pair.alice.engine, pair.flow
    request = Request.of_lines("MESSAGE", "sip:b@b.example", [*make_request().headers._lines, "X: \ud800"])
    client_request = engine.send_request(0.0, request, TARGET, "user", flow=flow if is_there else None)
    if not is_there:
        engine.take_effects()
        engine.flow_opened(0.0, client_request, flow)
    (told,) = engine.take_effects()
    assert isinstance(told, Complete) and isinstance(told.error, UnicodeEncodeError)
    assert flow.unanswered == 0 and engine.next_deadline() is None
    assert not engine._clients and not engine._opening and not engine._flows
