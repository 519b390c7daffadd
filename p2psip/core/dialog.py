"""Dialogs: what two peers know of each other while a session or a subscription lasts (RFC 3261 12, RFC 5057).

A dialog lives as long as one of its usages does. It checks the order of the peer's requests and finds the usage that
each belongs to; it knows the way to the peer and writes our requests. What the requests mean is the usages' affair.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from p2psip.core.authentication import CREDENTIAL_FIELDS
from p2psip.core.uas import Refusal, inspect
from p2psip.core.usage import Usage
from p2psip.errors import MessageParsingException, RealTimeException
from p2psip.message import NameAddr, Request, Response, SipUri, parse_uri, split_list
from p2psip.message.grammar import Remembered
from p2psip.message.headers import checked_lines
from p2psip.message.values import parse_contact

if TYPE_CHECKING:
    from p2psip.core.directory import EndpointRecord
    from p2psip.core.engine import Engine
    from p2psip.core.flow import Flow
    from p2psip.core.request import ClientRequest
    from p2psip.core.transaction import ServerTransaction

MAXIMUM_SEQUENCE = 2**31 - 1
DEFAULT_PORTS = {"TCP": 5060, "TLS": 5061, "UDP": 5060}

TARGET_REFRESHES = frozenset(("INVITE", "NOTIFY", "SUBSCRIBE", "UPDATE"))
"""Requests whose Contact, and that of a 2xx to them, is the peer's new address (RFC 3261 12.2, 3311, 6665)."""
WITH_CONTACT = TARGET_REFRESHES | {"REFER"}

Pairs = Sequence[tuple[str, str]]
"""Headers that the application gave: names and values, checked before they come here."""


class Content(NamedTuple):
    """A body and what it is. The core never looks into it."""

    content_type: str
    body: bytes

    @classmethod
    def of(cls, message: Request | Response) -> Content | None:
        """What the message carries; None for no body."""
        body = message.body
        return cls(message.headers.get("Content-Type") or "application/octet-stream", body) if body else None


class DialogUsage(Usage, Protocol):
    """A usage that shares a dialog, and what happens to all usages alike."""

    user: Any
    """Who is told, by the effect Tell."""

    def takes(self, request: Request) -> bool:
        """A request in the dialog, CANCEL and ACK apart, is for this usage."""

    def flow_lost(self, now: float, flow: Flow) -> None:
        """The connection of the dialog is gone. The next request finds another one."""

    def abandon(self, now: float, error: RealTimeException) -> None:
        """The engine ends: end without sending anything, and fail every operation with a fresh copy of the error."""


class Dialog:
    """One dialog. It is the ``usage`` that the engine finds for a request; from then on the right usage is.

    Attributes:
        local, remote: From and To of our requests, with their tags, octet for octet as they were agreed.
        local_sequence: The number in CSeq of our last request.
        remote_sequence: The same of the peer's, or None before its first.
        route_set: The values of Route in our requests, nearest hop first.
        remote_target: The peer's URI: the Request-URI of our requests.
        secure: Begun by a ``sips:`` request over TLS: goes over TLS only, to ``sips:`` only.
        transport: What it began over; no Contact lowers it from TLS to TCP.
        flow: The connection that it used last; None when that is gone.
        is_early: No 2xx yet.
        local_content, remote_content: The descriptions that a session in it has agreed last.
    """

    __slots__ = (
        "_engine",
        "_usages",
        "began_at",
        "call_id",
        "flow",
        "is_early",
        "local",
        "local_content",
        "local_sequence",
        "local_tag",
        "record",
        "remote",
        "remote_content",
        "remote_sequence",
        "remote_tag",
        "remote_target",
        "route_set",
        "secure",
        "transport",
    )

    def __init__(
        self,
        engine: Engine,
        record: EndpointRecord,
        *,
        call_id: str,
        local: str,
        remote: str,
        local_tag: str | None,
        remote_tag: str | None,
        local_sequence: int,
        remote_sequence: int | None,
        route_set: list[str],
        remote_target: str,
        secure: bool,
        flow: Flow,
        is_early: bool,
    ) -> None:
        self._engine = engine
        self.began_at = engine.now
        self._usages: list[DialogUsage] = []
        self.record = record
        self.call_id = call_id
        self.local = local
        self.remote = remote
        self.local_tag = local_tag
        self.remote_tag = remote_tag
        self.local_sequence = local_sequence
        self.remote_sequence = remote_sequence
        self.route_set = route_set
        self.remote_target = remote_target
        self.secure = secure
        self.transport = flow.transport
        self.flow: Flow | None = flow
        self.is_early = is_early
        self.local_content: Content | None = None
        self.remote_content: Content | None = None

    def agree(self, local: Content | None, remote: Content | None) -> None:
        """Offer and answer are there; None leaves what was said before."""
        self.local_content, self.remote_content = local or self.local_content, remote or self.remote_content

    @classmethod
    def of_response(
        cls,
        engine: Engine,
        record: EndpointRecord,
        request: Request,
        response: Response,
        flow: Flow,
        secure: bool = False,
    ) -> Dialog:
        """The caller's side, from a response of 101 to 299 to its request.

        Args:
            secure: The request was for a ``sips:`` target before it was redirected.

        RFC 3261 12.1.2.
        """
        return cls(
            engine,
            record,
            call_id=request.call_id or "",
            local=request.headers.get("From") or "",
            remote=response.headers.get("To") or "",
            local_tag=request.from_tag,
            remote_tag=response.to_tag,
            local_sequence=request.cseq.number,
            remote_sequence=None,
            route_set=_routes(response)[::-1],
            remote_target=contact_uri(response) or request.uri,
            secure=secure or _is_secure(request, flow),
            flow=flow,
            is_early=response.status_code < 200,
        )

    @classmethod
    def of_request(cls, engine: Engine, record: EndpointRecord, transaction: ServerTransaction) -> Dialog:
        """The called side, from the request that begins the dialog; it has the transaction's To tag.

        RFC 3261 12.1.1.
        """
        request = transaction.request
        to = request.headers.get("To") or ""
        return cls(
            engine,
            record,
            call_id=request.call_id or "",
            local=to if request.to_tag is not None else f"{to};tag={transaction.to_tag}",
            remote=request.headers.get("From") or "",
            local_tag=request.to_tag or transaction.to_tag,
            remote_tag=request.from_tag,
            local_sequence=0,
            remote_sequence=request.cseq.number,
            route_set=_routes(request),
            remote_target=contact_uri(request) or str(request.from_.uri),
            secure=_is_secure(request, transaction.flow),
            flow=transaction.flow,
            is_early=True,
        )

    @classmethod
    def of_notify(
        cls,
        engine: Engine,
        record: EndpointRecord,
        subscribe: Request,
        transaction: ServerTransaction,
        secure: bool = False,
    ) -> Dialog:
        """The subscriber's side, from a NOTIFY that comes before, or instead of, the 2xx to the SUBSCRIBE; ``secure`` as
        in ``of_response``.

        RFC 6665 4.4.1.
        """
        dialog = cls.of_request(engine, record, transaction)
        dialog.local = subscribe.headers.get("From") or ""
        dialog.local_sequence = subscribe.cseq.number
        dialog.secure = secure or _is_secure(subscribe, transaction.flow)
        dialog.is_early = False
        return dialog

    def confirm(self, success: Response) -> None:
        """A 2xx makes an early dialog a confirmed one, whose requests were numbered already (RFC 3261 13.2.2.4)."""
        self.route_set, self.is_early = _routes(success)[::-1], False
        self.refresh_target(success)

    @property
    def key(self) -> tuple[str, str | None, str | None]:
        """What it is known by (RFC 3261 12)."""
        return (self.call_id, self.local_tag, self.remote_tag)

    def __repr__(self) -> str:
        return f"<Dialog {self.call_id} with {self.remote_target}{', early' if self.is_early else ''}>"

    # ------------------------------------------------------------------ its usages

    @property
    def usages(self) -> tuple[DialogUsage, ...]:
        """Who shares it."""
        return tuple(self._usages)

    def add(self, usage: DialogUsage) -> None:
        """One more usage; with the first one the dialog becomes known to the engine."""
        self._usages.append(usage)
        self._engine.dialogs.keep(self)

    def remove(self, usage: DialogUsage) -> None:
        """The usage has ended, and with the last one the dialog. It is no error if it is not there."""
        if usage in self._usages:
            self._usages.remove(usage)
            if not self._usages:
                self._engine.dialogs.drop(self)

    # ------------------------------------------------------------------ requests of the peer

    def received(self, now: float, transaction: ServerTransaction) -> None:
        """A request in the dialog: in its order, understood, and for one of the usages (RFC 3261 12.2.2)."""
        request, demand = transaction.request, self.record.demand
        refusal = None if demand is None else demand.refusal(now, transaction, self._engine.tokens)
        refusal = refusal or self._refusal(request) or inspect(request, self.record)
        if refusal is not None:
            transaction.usage = None
            transaction.refuse(refusal)
            return
        flow = transaction.flow
        if flow is not self.flow and (flow.transport == "TLS" or self.transport != "TLS"):
            # The peer came back by another connection: whatever we think of the one before, this one works.
            self._engine.dialogs.move(self, flow)
        transaction.record = self.record
        self.record.serving += 1
        for usage in self._usages:
            if usage.takes(request):
                transaction.usage = usage
                usage.received(now, transaction)
                return
        transaction.usage = None
        transaction.refuse(Refusal(481))

    def _refusal(self, request: Request) -> Refusal | None:
        """Gaps are fine. A number that is not higher is out of order, or of a request that has come before and whose
        transaction is over (RFC 3261 12.2.2). 482, as outside of dialogs, would end the dialog at the peer (RFC 5057 5.1).
        """
        number = request.cseq.number
        if self.remote_sequence is not None and number <= self.remote_sequence:
            return Refusal(500)
        self.remote_sequence = number
        return None

    def acknowledged(self, now: float, flow: Flow, ack: Request) -> None:
        """An ACK to a 2xx that did not find its transaction any more."""
        for usage in self.usages:
            usage.acknowledged(now, flow, ack)

    def refresh_target(self, message: Request | Response) -> None:
        """A target refresh request was accepted, or ours was: the peer is where its Contact says from now on."""
        uri = contact_uri(message)
        if uri is not None:
            self.remote_target = uri

    # What follows in a transaction or a request is told to the usage that has it.

    def cancelled(self, now: float, transaction: ServerTransaction) -> None: ...

    def transaction_failed(
        self, now: float, transaction: ServerTransaction, error: RealTimeException | None
    ) -> None: ...

    def responded(self, now: float, client_request: ClientRequest, response: Response) -> None: ...

    def failed(self, now: float, client_request: ClientRequest, error: RealTimeException) -> None: ...

    # ------------------------------------------------------------------ requests of ours

    def create_request(
        self, method: str, headers: Pairs = (), content: Content | None = None, *, sequence: int | None = None
    ) -> Request:
        """A request in the dialog, complete but for Via and Contact.

        Args:
            sequence: The number in CSeq; None takes the next one.

        RFC 3261 12.2.1.1.
        """
        if sequence is None:
            # 2**31 requests in one dialog are not to be expected.
            sequence = self.local_sequence = self.local_sequence + 1
        uri, routes = self._path()
        lines = [
            "Max-Forwards: 70",
            *[f"Route: {route}" for route in routes],
            f"From: {self.local}",
            f"To: {self.remote}",
            f"Call-ID: {self.call_id}",
            f"CSeq: {sequence} {method}",
        ]
        if method != "ACK":
            lines.append(f"User-Agent: {self.record.endpoint.user_agent}")
        if content is not None:
            headers = [*headers, ("Content-Type", content.content_type)]
        if headers:
            lines += checked_lines(headers)
        return Request.of_lines(method, uri, lines, b"" if content is None else content.body)

    def create_ack(self, invite: Request, headers: Pairs = (), content: Content | None = None) -> Request:
        """The ACK to a 2xx to that INVITE, with the same credentials (RFC 3261 13.2.2.4, 22.1)."""
        said = [(field, value) for field in CREDENTIAL_FIELDS for value in invite.headers.get_fields(field)]
        return self.create_request("ACK", [*said, *headers], content, sequence=invite.cseq.number)

    def send(self, now: float, request: Request, usage: Usage, *, timeout: float | None = None) -> ClientRequest:
        """Send a request that :meth:`create_request` made; the usage is told what becomes of it."""
        return self._engine.send_request(
            now,
            request,
            self._target(),
            None,
            timeout=timeout,
            usage=usage,
            flow=self._serving_flow(),
            record=self.record,
            bears_contact=request.method in WITH_CONTACT,
            fallback=self._living_flow(),
        )

    def send_ack(self, now: float, ack: Request) -> None:
        """Send an ACK to a 2xx; the same one again whenever the 2xx comes again."""
        self._engine.send_ack(now, self._serving_flow(), ack, self._target(), self._living_flow())

    def use_flow(self, flow: Flow) -> None:
        """A request of ours was answered over that flow: it leads to the peer."""
        if self.flow is not flow:
            self._engine.dialogs.move(self, flow)

    def _path(self) -> tuple[str, list[str]]:
        """Request-URI and Route. A first router without ``lr`` is one of RFC 2543 and wants itself in the Request-URI
        (RFC 3261 12.2.1.1)."""
        if self.route_set:
            first = NameAddr.parse(self.route_set[0], brackets=True).uri
            if isinstance(first, SipUri) and "lr" not in first.parameters:
                return str(first), [*self.route_set[1:], f"<{self.remote_target}>"]
        return self.remote_target, self.route_set

    def _next_hop(self) -> SipUri | str:
        if self.route_set:
            return NameAddr.parse(self.route_set[0], brackets=True).uri
        return parse_uri(self.remote_target)

    def _target(self) -> Any:
        """Where requests go when a new connection is needed; or the error that says why they cannot."""
        try:
            return self.record.endpoint._next_hop(self._next_hop(), self.secure, self.transport == "TLS")
        except RealTimeException as error:
            return error

    def _serving_flow(self) -> Flow | None:
        """The dialog's connection, if it leads where its requests have to go.

        With a route set it leads to the first router, who asked to stay on the path. Without one the next hop is the
        peer, and the connection is the peer's own when the peer has opened it, or when the peer has proved that it
        is the host of its Contact. Otherwise a proxy is in between that wants to see no more of the dialog.
        """
        flow = self._living_flow()
        if flow is None:
            return None
        if self.route_set or flow.is_incoming:
            return flow
        hop = self._next_hop()
        if not isinstance(hop, SipUri):
            return None
        port = hop.port or DEFAULT_PORTS[flow.transport]
        return flow if port == flow.remote[1] and flow.covers(hop.host) else None

    def _living_flow(self) -> Flow | None:
        """The dialog's connection, if it is safe enough. Where the Contact of a peer leads nowhere, as behind a NAT, this
        is where it can be reached all the same, by itself or through the proxy that the dialog began with."""
        flow = self.flow
        is_safe = flow is not None and (flow.transport == "TLS" or not (self.secure or self.transport == "TLS"))
        return flow if flow is not None and flow.is_connected and is_safe else None


def contact_uri(message: Request | Response) -> str | None:
    """The URI of the first Contact as text; None where there is none, or none that can be read."""
    contacts = message.headers.get_joined("Contact")
    return None if contacts is None else _FIRST_URIS[contacts]


def _first_uri(contacts: str) -> str | None:
    try:
        parsed = [parse_contact(value) for value in split_list(contacts)]
    except MessageParsingException:
        return None
    # RFC 3261 19.1.1: a Request-URI has no headers.
    return str(parsed[0].uri).partition("?")[0]


_FIRST_URIS = Remembered(_first_uri)


def _routes(message: Request | Response) -> list[str]:
    """Record-Route, a value each, as written. Unreadable: none, and requests go straight to the peer."""
    try:
        routes: Iterable[str] = message.headers.get_all("Record-Route")
        return [route for route in routes if NameAddr.parse(route, brackets=True)]
    except MessageParsingException:
        return []


def _is_secure(request: Request, flow: Flow) -> bool:
    """RFC 3261 12.1.1 and 12.1.2."""
    return request.uri[:5].lower() == "sips:" and flow.transport == "TLS"
