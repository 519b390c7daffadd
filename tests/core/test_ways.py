"""What is written into a request for the way that it is to go (RFC 3261 8.1.2, 12.2.1.1, 16.12.1)."""

from __future__ import annotations

from typing import Any

import pytest
from core_support import FakeFlow, Side, Target, make_record, make_request

from p2psip.core.effects import OpenFlow
from p2psip.core.request import Acknowledgement
from p2psip.core.usage import ClientUsage
from p2psip.core.ways import Way, Ways
from p2psip.errors import (
    ConnectionFailureException,
    OperationTimeoutException,
    TlsFailureException,
    TlsFailureReason,
)
from p2psip.message import Request, Response, create_response

TARGET = Target("TLS", "p1.example", 5061, "p1.example")
URI = "sip:bob@b.example"


@pytest.mark.parametrize(
    ("routes", "uri", "written"),
    [
        ((), URI, []),
        (("<sip:p1.example;lr>",), URI, ["<sip:p1.example;lr>"]),
        (("<sip:p1.example;lr>", "<sip:p2.example;lr>"), URI, ["<sip:p1.example;lr>", "<sip:p2.example;lr>"]),
        (("<sip:p1.example>",), "sip:p1.example", [f"<{URI}>"]),
        (("<sip:p1.example>", "<sip:p2.example;lr>"), "sip:p1.example", ["<sip:p2.example;lr>", f"<{URI}>"]),
    ],
)
def test_the_hops_that_it_is_to_pass(routes: tuple[str, ...], uri: str, written: list[str]) -> None:
    request = make_request()
    Way(TARGET, ("<sip:another.example>",)).lead(request, URI)
    Way(TARGET, routes).lead(request, URI)  # in place of that
    assert request.uri == uri
    assert request.headers.get_all("Route") == written


P1 = Way(Target("TLS", "p1.example", 5061, "p1.example"), ("<sip:p1.example;lr>",))
P2 = Way(Target("TCP", "p2.example", 5060, None), ("<sip:p2.example>",))
P3 = Way(Target("TLS", "p3.example", 5061, "p3.example"))


class Sender:
    """A request that may go several ways, and what becomes of it."""

    def __init__(self, *ways: Way, method: str = "MESSAGE", **more: Any) -> None:
        self.side = Side("a")
        self.user = Listener()
        self.request = self.side.engine.send_request(
            0.0,
            make_request(method),
            Ways(ways),
            "user",
            usage=self.user if method == "INVITE" else None,
            record=make_record("sip:alice@a.example"),
            **more,
        )
        self.flows: list[FakeFlow] = []

    @property
    def host(self) -> str:
        """Where it is to go now."""
        (effect,) = [effect for effect in self.side.take() if isinstance(effect, OpenFlow)]
        assert self.side.opening == [self.request]
        assert effect.target is self.request.target
        return str(effect.target.host)

    def refused(self, why: str = "No way there.", now: float = 0.0) -> None:
        self.side.take()
        self.side.opening.clear()
        self.side.engine.flow_failed(now, self.request, ConnectionFailureException(why))

    def sent(self, now: float = 0.0) -> Request:
        self.side.take()
        self.side.opening.clear()
        self.flows.append(FakeFlow())
        self.side.engine.flow_opened(now, self.request, self.flows[-1])
        message = self.side.last()
        assert isinstance(message, Request)
        return message

    def lose(self, request: Request, error: Any, unsent: bool = True) -> None:
        """The flow of that request is lost."""
        flow = self.flows[-1]
        flow.is_connected = False
        if unsent:
            assert request.top_branch is not None
            flow.unsent.add(request.top_branch)
        self.side.engine.flow_closed(0.0, flow, error)

    def answer(self, request: Request, code: int) -> None:
        self.side.engine.receive(0.0, self.flows[-1], create_response(request, code, to_tag="them"))


class Listener(ClientUsage):
    def __init__(self) -> None:
        self.codes: list[int] = []
        self.errors: list[Exception] = []

    def responded(self, now: float, client_request: Any, response: Response) -> None:
        self.codes.append(response.status_code)

    def failed(self, now: float, client_request: Any, error: Any) -> None:
        self.errors.append(error)


def test_the_first_way_is_taken_while_it_works() -> None:
    sender = Sender(P1, P2)
    assert sender.host == "p1.example"
    request = sender.sent()
    assert (request.uri, request.headers.get("Route")) == (URI, "<sip:p1.example;lr>")
    sender.answer(request, 200)
    assert sender.side.codes == [200]
    sender.side.assert_empty()


def test_a_way_that_cannot_be_begun_is_followed_by_the_next() -> None:
    sender = Sender(P1, P2, P3)
    sender.refused()
    assert sender.host == "p2.example"
    request = sender.sent()
    assert (request.uri, request.headers.get_all("Route")) == ("sip:p2.example", [f"<{URI}>"])
    assert request.headers.count("Via") == 1
    sender.answer(request, 200)
    assert sender.side.codes == [200]
    sender.side.assert_empty()


def test_when_none_is_left_all_that_was_tried_is_said() -> None:
    sender = Sender(P1, P2)
    sender.refused("Could not connect to p1.example: refused.")
    sender.refused("Could not connect to p2.example: refused.")
    (error,) = sender.side.errors
    assert type(error) is ConnectionFailureException
    assert str(error) == (
        "Could not connect to p2.example: refused. Before that: Could not connect to p1.example: refused."
    )
    sender.side.assert_empty()


@pytest.mark.parametrize("method", ["MESSAGE", "INVITE"])
def test_who_is_overloaded_is_followed_by_the_next(method: str) -> None:
    """RFC 3263 4.3: another transaction, so another branch; nobody is told but of the end."""
    sender = Sender(P1, P3, method=method)
    first = sender.sent()
    sender.answer(first, 503)
    assert sender.host == "p3.example"
    second = sender.sent()
    assert second.top_branch != first.top_branch
    assert second.headers.count("Route") == 0
    for name in ("Call-ID", "CSeq", "From", "To"):
        assert second.headers.get(name) == first.headers.get(name)
    sender.answer(second, 503)
    assert (sender.user.codes if method == "INVITE" else sender.side.codes) == [503]
    assert [flow.unanswered for flow in sender.flows] == [0, 0]
    assert sender.side.wire() == (["INVITE", "ACK"] * 2 if method == "INVITE" else ["MESSAGE"] * 2)
    sender.side.assert_empty()


@pytest.mark.parametrize("method", ["MESSAGE", "INVITE"])
def test_who_does_not_answer_is_followed_by_the_next(method: str) -> None:
    """RFC 3665 3.4: the first proxy is dead."""
    sender = Sender(P1, P3, method=method)
    sender.sent()
    sender.side.engine.advance(32.0)
    assert sender.host == "p3.example"
    second = sender.sent(32.0)
    sender.answer(second, 200)
    assert (sender.user.codes if method == "INVITE" else sender.side.codes) == [200]


def test_time_counts_over_all_ways() -> None:
    sender = Sender(P1, P2, P3, timeout=40.0)
    sender.sent()
    sender.side.engine.advance(32.0)
    sender.sent(32.0)
    sender.side.engine.advance(40.0)
    assert [type(error) for error in sender.side.errors] == [OperationTimeoutException]
    sender.side.assert_empty()


def test_what_was_taken_back_takes_no_other_way() -> None:
    sender = Sender(P1, P2)
    sender.side.engine.cancel_request(0.0, sender.request)
    sender.refused()
    assert sender.side.take() == []
    sender.side.assert_empty()


def test_a_call_that_was_taken_back_takes_no_other_way() -> None:
    sender = Sender(P1, P2, method="INVITE")
    invite = sender.sent()
    assert sender.side.engine.cancel_request(0.0, sender.request)
    sender.answer(invite, 503)
    assert sender.user.codes == [503]
    assert sender.side.wire() == ["INVITE", "ACK"]
    sender.side.assert_empty()


def test_a_connection_that_is_closed_before_it_has_served_is_an_answer() -> None:
    """Who lets nobody in is not to be called twice."""
    sender = Sender(P1)
    request = sender.sent()
    sender.flows[-1].messages_received = 0
    sender.lose(request, None)
    assert [type(error) for error in sender.side.errors] == [ConnectionFailureException]
    sender.side.assert_empty()


NAMED = Way(Target("TLS", "b.example", None, "b.example"))


@pytest.mark.parametrize("method", ["MESSAGE", "INVITE"])
def test_another_server_of_the_name_is_tried(method: str) -> None:
    """RFC 3263 4.3. Those who would not take it are named, so that the next one is somebody else."""
    sender = Sender(NAMED, method=method)
    first = sender.sent()
    sender.answer(first, 503)
    assert sender.host == "b.example"
    assert sender.request.avoid == (sender.flows[0],)
    second = sender.sent()
    assert second.top_branch != first.top_branch
    sender.answer(second, 503)
    assert sender.host == "b.example"
    assert sender.request.avoid == tuple(sender.flows)
    sender.answer(sender.sent(), 200)
    assert (sender.user.codes if method == "INVITE" else sender.side.codes) == [200]
    assert [flow.unanswered for flow in sender.flows] == [0, 0, 0]


@pytest.mark.parametrize("ways", [(NAMED,), (NAMED, P3)])
@pytest.mark.parametrize("method", ["MESSAGE", "INVITE"])
def test_where_there_is_no_other_server_its_word_counts(method: str, ways: tuple[Way, ...]) -> None:
    """Or there is another way."""
    sender = Sender(*ways, method=method)
    sender.answer(sender.sent(), 503)
    sender.refused("There is no other server.")
    if len(ways) > 1:
        assert sender.host == "p3.example"
        assert sender.request.avoid == ()
        sender.answer(sender.sent(), 503)
    assert (sender.user.codes if method == "INVITE" else sender.side.codes) == [503]
    assert all(flow.unanswered == 0 for flow in sender.flows)
    sender.side.assert_empty()


@pytest.mark.parametrize("code", [486, 404, 500])
def test_other_answers_are_answers(code: int) -> None:
    sender = Sender(P1, P2)
    sender.answer(sender.sent(), code)
    assert sender.side.codes == [code]


# ---------------------------------------------------------------------- a flow that is lost


@pytest.mark.parametrize("method", ["MESSAGE", "INVITE"])
@pytest.mark.parametrize("error", [None, ConnectionFailureException("The peer reset it.")])
def test_what_had_not_left_goes_over_a_flow_of_its_own_once(
    method: str, error: ConnectionFailureException | None
) -> None:
    sender = Sender(P1, method=method)
    first = sender.sent()
    sender.lose(first, error)
    assert sender.host == "p1.example"
    second = sender.sent()
    assert second.top_branch != first.top_branch
    assert second.headers.count("Via") == 1
    sender.lose(second, error)
    (failure,) = sender.user.errors if method == "INVITE" else sender.side.errors
    assert isinstance(failure, ConnectionFailureException)
    assert [flow.unanswered for flow in sender.flows] == [0, 0]
    sender.side.assert_empty()


def test_what_may_have_come_is_not_sent_again() -> None:
    sender = Sender(P1)
    sender.lose(sender.sent(), None, unsent=False)
    (failure,) = sender.side.errors
    assert "whether the request took effect is not known" in str(failure)
    sender.side.assert_empty()


def test_who_is_refused_by_tls_is_told_at_once() -> None:
    refusal = TlsFailureException("Refused.", TlsFailureReason.TLS_NEGOTIATION_FAILURE)
    sender = Sender(P1)
    sender.lose(sender.sent(), refusal)
    (failure,) = sender.side.errors
    assert isinstance(failure, TlsFailureException)
    sender.side.assert_empty()


def test_a_flow_that_was_silent_for_the_time_of_a_request_is_doubted() -> None:
    sender = Sender(P1)
    sender.sent()
    sender.side.engine.advance(31.9)
    assert sender.flows[0].doubts == []
    sender.side.engine.advance(32.0)
    assert sender.flows[0].doubts == [0.0]
    assert isinstance(sender.side.errors[0], OperationTimeoutException)
    sender.side.assert_empty()


def test_who_has_another_way_need_not_wait_for_the_first() -> None:
    """Another proxy, or the living connection of a dialog."""
    assert Sender(P1, P2).request.has_other_ways
    sender = Sender(P1, P2)
    sender.refused()
    assert not sender.request.has_other_ways
    living, dead = FakeFlow(), FakeFlow()
    dead.is_connected = False
    for flow, has in ((living, True), (dead, False), (None, False)):
        assert Sender(P1, fallback=flow).request.has_other_ways is has
        assert Acknowledgement(make_request("ACK"), TARGET, flow).has_other_ways is has
