"""Dialogs: what both sides remember, the way to the peer, the order of its requests (RFC 3261 12)."""

from __future__ import annotations

from typing import Any

import pytest
from core_support import FakeFlow, Side, Target, make_record, make_request, received

from p2psip.core.dialog import Content, Dialog, contact_uri
from p2psip.core.transaction import ServerTransaction
from p2psip.errors import ConnectionFailureException
from p2psip.message import Request, Response, SipUri, create_response, parse_message

PROXY = ("Record-Route", "<sip:p1.example;lr>, <sip:p2.example;lr>")


class Home:
    """An endpoint that finds every host, but for those on its list."""

    user_agent = "test"

    def __init__(self) -> None:
        self.unreachable: set[str] = set()
        self.asked: list[tuple[str, bool, bool]] = []

    def _contact(self, flow: Any, request_uri: str) -> str:
        return f"<sip:alice@{flow.sent_by};transport={flow.transport.lower()}>"

    def _next_hop(self, uri: SipUri | str, secure: bool, learned: bool) -> Target:
        self.asked.append((str(uri), secure, learned))
        host = uri.host if isinstance(uri, SipUri) else str(uri)
        if host in self.unreachable:
            raise ConnectionFailureException(f"No way to {host}.")
        return Target("TLS", host, 5061, host)


class Recorder:
    """A usage that takes the methods it is told to."""

    def __init__(self, *methods: str) -> None:
        self.methods = methods
        self.user = None
        self.got: list[str] = []
        self.failures: list[Any] = []
        self.lost: list[Any] = []

    def takes(self, request: Request) -> bool:
        return request.method in self.methods

    def received(self, now: float, transaction: ServerTransaction) -> None:
        self.got.append(transaction.request.method)
        transaction.respond(transaction.create_response(200))

    def acknowledged(self, now: float, flow: Any, ack: Request) -> None:
        self.got.append("ACK")

    def cancelled(self, now: float, transaction: ServerTransaction) -> None: ...
    def transaction_failed(self, now: float, transaction: ServerTransaction, error: Any) -> None: ...

    def responded(self, now: float, client_request: Any, response: Response) -> None:
        self.got.append(str(response.status_code))

    def failed(self, now: float, client_request: Any, error: Any) -> None:
        self.failures.append(error)

    def flow_lost(self, now: float, flow: Any) -> None:
        self.lost.append(flow)

    def abandon(self, now: float, error: Any) -> None: ...


class Caller:
    """Alice's engine with the dialog of an INVITE that Bob has answered."""

    def __init__(
        self,
        *headers: tuple[str, str],
        uri: str = "sip:bob@b.example",
        contact: str = "<sip:bob@192.0.2.2:5061>",
        transport: str = "TLS",
        code: int = 200,
    ) -> None:
        self.side = Side("a")
        self.home = Home()
        record = make_record("sip:alice@a.example")
        record.endpoint = self.home  # type: ignore[assignment]
        self.side.directory.add(record)
        self.flow = FakeFlow(transport=transport)
        invite = make_request("INVITE", uri, call_id="call", cseq=7)
        invite.headers.prepend("Via", "SIP/2.0/TLS a.example;branch=z9hG4bKx")
        response = create_response(invite, code, to_tag="bob", headers=[("Contact", contact), *headers])
        self.dialog = Dialog.of_response(self.side.engine, record, invite, response, self.flow)
        self.usage = Recorder("INFO", "BYE")
        self.dialog.add(self.usage)

    def send(self, method: str = "INFO", **more: Any) -> Request:
        """The request as it goes out, and where."""
        engine = self.side.engine
        request = self.dialog.create_request(method, **more)
        self.client_request = self.dialog.send(0.0, request, self.usage)
        effect = engine.take_effects()[-1]
        self.asked_for = effect
        return request

    def receive(
        self, method: str, cseq: int, *, flow: FakeFlow | None = None, tags: tuple[str, str] = ("bob", "from")
    ) -> int:
        """Bob's request; the status code of the answer."""
        request = make_request(
            method,
            "sip:alice@a.example",
            to=f"<sip:alice@a.example>;tag={tags[1]}",
            call_id="call",
            cseq=cseq,
            from_tag=tags[0],
        )
        self.side.engine.receive(0.0, flow or self.flow, received(request))
        answer = self.side.last()
        assert isinstance(answer, Response)
        return answer.status_code


def routes(request: Request) -> list[str]:
    return request.headers.get_all("Route")


def test_the_caller_takes_the_route_set_in_reverse_and_the_contact_as_target() -> None:
    caller = Caller(PROXY)
    request = caller.send()
    assert request.uri == "sip:bob@192.0.2.2:5061"
    assert routes(request) == ["<sip:p2.example;lr>", "<sip:p1.example;lr>"]
    assert (request.from_tag, request.to_tag, request.call_id) == ("from", "bob", "call")
    assert str(request.cseq) == "8 INFO"
    assert caller.home.asked == [("sip:p2.example;lr", False, True)]
    parse_message(request.to_bytes()).headers.get("Max-Forwards")


def test_the_called_side_takes_the_route_set_in_order_and_its_own_sequence() -> None:
    caller = Caller()
    invite = received(make_request("INVITE", cseq=30, headers=[PROXY, ("Contact", "<sip:a@192.0.2.9>")]))
    transaction = caller.side.engine._start_server(caller.flow, invite, "key", "mine")
    dialog = Dialog.of_request(caller.side.engine, caller.dialog.record, transaction)
    request = dialog.create_request("BYE")
    assert routes(request) == ["<sip:p1.example;lr>", "<sip:p2.example;lr>"]
    assert request.uri == "sip:a@192.0.2.9"
    assert (request.from_tag, request.to_tag) == ("mine", "from")
    assert request.cseq.number == 1
    assert dialog.remote_sequence == 30


def test_a_strict_router_stands_in_the_request_uri() -> None:
    caller = Caller(("Record-Route", "<sip:loose.example;lr>, <sip:strict.example>"))
    request = caller.send()
    assert request.uri == "sip:strict.example"
    assert routes(request) == ["<sip:loose.example;lr>", "<sip:bob@192.0.2.2:5061>"]


def test_unreadable_record_route_is_left_out() -> None:
    assert routes(Caller(("Record-Route", "sip:no.brackets;lr")).send()) == []


def test_a_contact_in_a_2xx_to_a_target_refresh_moves_the_peer() -> None:
    caller = Caller()
    caller.dialog.refresh_target(Response(200, "OK", [("Contact", "<sip:bob@192.0.2.77?Subject=no>")]))
    assert caller.send().uri == "sip:bob@192.0.2.77"
    caller.dialog.refresh_target(Response(200, "OK", [("Contact", "not an address")]))
    assert caller.send().uri == "sip:bob@192.0.2.77"


def test_contact_uri_of_nothing() -> None:
    assert contact_uri(Response(200, "OK", [])) is None
    assert contact_uri(Response(200, "OK", [("Contact", "*")])) is None


@pytest.mark.parametrize(
    ("contact", "headers", "incoming", "kept"),
    [
        ("<sip:bob@192.0.2.2:5061>", [], False, True),  # the peer itself
        ("<sip:bob@192.0.2.2>", [], False, True),  # the transport's port
        ("<sip:bob@192.0.2.2:5071>", [], False, False),  # another port: a proxy was in between
        ("<sip:bob@192.0.2.3:5061>", [], False, False),  # another host
        ("<sip:bob@192.0.2.3:5061>", [PROXY], False, True),  # the proxy wants to see the rest
        ("<sip:bob@192.0.2.3:4711>", [], True, True),  # the peer has opened it
    ],
)
def test_the_connection_is_kept_only_where_it_leads_to_the_next_hop(
    contact: str, headers: list[tuple[str, str]], incoming: bool, kept: bool
) -> None:
    caller = Caller(*headers, contact=contact)
    caller.flow.is_incoming = incoming
    caller.send()
    assert (caller.asked_for.flow is caller.flow) is kept  # type: ignore[union-attr]


def test_a_closed_connection_is_not_kept_and_the_usages_are_told() -> None:
    caller = Caller(PROXY)
    caller.flow.is_connected = False
    caller.side.engine.flow_closed(0.0, caller.flow, None)
    assert caller.usage.lost == [caller.flow]
    caller.send()
    assert caller.asked_for.flow is None  # type: ignore[union-attr]
    assert caller.asked_for.target.host == "p2.example"  # type: ignore[union-attr]


def test_the_peer_comes_back_over_another_connection() -> None:
    caller = Caller(contact="<sip:bob@192.0.2.66>")
    caller.flow.is_connected = False
    caller.side.engine.flow_closed(0.0, caller.flow, None)
    again = FakeFlow()
    again.is_incoming = True
    assert caller.receive("INFO", 1, flow=again) == 200
    assert caller.dialog.flow is again
    caller.send()
    assert caller.asked_for.flow is again  # type: ignore[union-attr]


def test_a_target_that_cannot_be_reached_is_told_to_the_usage_later() -> None:
    caller = Caller(contact="<sip:bob@nowhere.example>")
    caller.home.unreachable.add("nowhere.example")
    caller.flow.is_connected = False
    caller.send()
    assert caller.usage.failures == []
    caller.side.engine.flow_failed(0.0, caller.client_request, caller.asked_for.target)  # type: ignore[union-attr]
    assert [str(error) for error in caller.usage.failures] == ["No way to nowhere.example."]


@pytest.mark.parametrize(("transport", "moves"), [("TLS", True), ("TCP", False)])
def test_the_connection_that_the_peer_used_last_is_the_one_that_works(transport: str, moves: bool) -> None:
    """The other one may be dead without our knowing it; but nothing less safe takes its place."""
    caller = Caller(contact="<sip:bob@192.0.2.66>")
    again = FakeFlow(transport=transport)
    again.is_incoming = True
    assert caller.receive("INFO", 1, flow=again) == 200
    assert (caller.dialog.flow is again) is moves
    assert len(caller.side.engine.dialogs._flows) == 1


@pytest.mark.parametrize("method", ["INFO", "ACK"])
def test_a_contact_that_leads_nowhere_is_reached_over_the_living_connection(method: str) -> None:
    """A peer behind a NAT, or one that does not listen: what it has opened or we have verified leads there."""
    caller = Caller(contact="<sip:bob@10.0.0.7:5061>")
    if method == "ACK":
        caller.dialog.send_ack(0.0, caller.dialog.create_request("ACK", sequence=7))
        (caller.asked_for,) = caller.side.engine.take_effects()
    else:
        caller.send(method)
    assert caller.asked_for.flow is None  # type: ignore[union-attr]
    error = ConnectionFailureException("No way there.")
    caller.side.engine.flow_failed(0.0, caller.asked_for.client_request, error)  # type: ignore[union-attr]
    assert caller.side.wire() == [method]
    assert caller.usage.failures == []
    if method == "INFO":  # that was the last way
        caller.flow.is_connected = False
        caller.side.engine.flow_closed(0.0, caller.flow, error)
        (failure,) = caller.usage.failures
        assert "not known" in str(failure)
        assert str(failure).endswith(" No way there.")


def test_a_connection_that_has_ended_meanwhile_is_no_way_either() -> None:
    caller = Caller(contact="<sip:bob@10.0.0.7:5061>")
    caller.send()
    caller.flow.is_connected = False
    caller.side.engine.flow_failed(0.0, caller.client_request, ConnectionFailureException("No way there."))
    assert caller.side.wire() == []
    assert [str(failure) for failure in caller.usage.failures] == ["No way there."]


@pytest.mark.holds("R11")
def test_a_secure_dialog_does_not_fall_back_to_less() -> None:
    caller = Caller(uri="sips:bob@b.example", contact="<sips:bob@nowhere.example>")
    caller.dialog.flow = FakeFlow(transport="TCP")
    caller.send()
    caller.side.engine.flow_failed(
        0.0,
        caller.client_request,
        ConnectionFailureException("No way there."),
    )
    assert caller.side.wire() == []
    assert [str(failure) for failure in caller.usage.failures] == ["No way there."]


def test_a_dialog_of_sips_over_tls_is_secure() -> None:
    caller = Caller(uri="sips:bob@b.example", contact="<sips:bob@192.0.2.5>")
    caller.send()
    assert caller.home.asked[-1] == ("sips:bob@192.0.2.5", True, True)
    assert not Caller().dialog.secure


def test_a_dialog_over_tcp_may_stay_there() -> None:
    caller = Caller(transport="TCP", contact="<sip:bob@192.0.2.5;transport=tcp>")
    caller.send()
    assert caller.home.asked[-1][2] is False


def test_gaps_are_fine_what_is_not_higher_is_out_of_order() -> None:
    """RFC 3261 12.2.2. Never 482, which is for copies outside of dialogs (8.2.2.2) and would end the dialog (RFC 5057)."""
    caller = Caller()
    assert caller.receive("INFO", 5) == 200
    assert caller.receive("INFO", 9) == 200
    assert caller.receive("INFO", 8) == 500
    assert caller.receive("INFO", 9) == 500
    assert caller.usage.got == ["INFO", "INFO"]


def test_a_request_that_no_usage_takes_is_refused() -> None:
    assert Caller().receive("NOTIFY", 1) == 481
    assert Caller().receive("INFO", 1, tags=("other", "from")) == 481


def test_an_unknown_extension_is_refused_before_the_usage_sees_it() -> None:
    caller = Caller()
    request = make_request(
        "INFO", to="<sip:a@a>;tag=from", call_id="call", from_tag="bob", headers=[("Require", "magic")]
    )
    caller.side.engine.receive(0.0, caller.flow, received(request))
    answer = caller.side.last()
    assert isinstance(answer, Response)
    assert (answer.status_code, answer.headers.get("Unsupported")) == (420, "magic")
    assert caller.usage.got == []


def test_several_usages_share_a_dialog_that_ends_with_the_last() -> None:
    caller = Caller()
    other = Recorder("NOTIFY")
    caller.dialog.add(other)
    assert caller.receive("NOTIFY", 1) == 200
    assert other.got == ["NOTIFY"]
    caller.dialog.remove(caller.usage)
    assert caller.receive("INFO", 2) == 481
    assert caller.receive("NOTIFY", 3) == 200
    caller.dialog.remove(other)
    assert caller.receive("NOTIFY", 4) == 481
    assert len(caller.side.engine.dialogs) == 0


def test_an_ack_has_the_number_of_its_invite_and_is_repeated_as_it_was() -> None:
    caller = Caller()
    ack = caller.dialog.create_request("ACK", sequence=7, content=Content("application/sdp", b"v=0"))
    caller.dialog.send_ack(0.0, ack)
    caller.dialog.send_ack(0.0, ack)
    first, second = caller.side.take()
    assert first.data == second.data  # type: ignore[union-attr]
    sent = parse_message(first.data)  # type: ignore[union-attr]
    assert str(sent.cseq) == "7 ACK"
    assert sent.headers.get("Contact") is None
    assert caller.dialog.local_sequence == 7


def test_an_ack_without_a_connection_waits_for_one() -> None:
    caller = Caller()
    caller.flow.is_connected = False
    caller.dialog.send_ack(0.0, caller.dialog.create_request("ACK", sequence=7))
    (effect,) = caller.side.engine.take_effects()
    caller.side.engine.flow_opened(0.0, effect.client_request, FakeFlow())  # type: ignore[union-attr]
    assert caller.side.wire() == ["ACK"]


def test_the_contact_of_a_request_is_that_of_its_connection() -> None:
    caller = Caller()
    caller.usage.methods = ("INVITE",)
    request = caller.send("INVITE")
    caller.side.engine.flow_opened(0.0, caller.client_request, FakeFlow(sent_by="a.example:4711"))
    assert request.headers.get("Contact") == "<sip:alice@a.example:4711;transport=tls>"
