"""The engine: requests out, requests in, and the time, without sockets, threads or a clock.

Its inputs are commands, messages of flows, flows that open, fail and close, and time; what it wants done it appends
to ``effects``. A transaction that is over has left no trace when the call that ended it returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from p2psip.config import ManagerSettings
from p2psip.core.authentication import CredentialSource
from p2psip.core.counts import Counts
from p2psip.core.dialogs import Dialogs
from p2psip.core.directory import Directory, EndpointRecord
from p2psip.core.effects import Deliver, Effect, OpenFlow, Send
from p2psip.core.flow import Flow
from p2psip.core.request import NOBODY, Acknowledgement, ClientRequest, throttled
from p2psip.core.tables import Input
from p2psip.core.tokens import Tokens
from p2psip.core.traffic import TrafficByFlow, for_each
from p2psip.core.transaction import (
    ClientTransaction,
    InviteClientTransaction,
    InviteServerTransaction,
    NonInviteClientTransaction,
    NonInviteServerTransaction,
    ServerTransaction,
)
from p2psip.core.uas import (
    BUSY,
    CANCELLED_METHODS,
    Refusal,
    admit,
    find_endpoint,
    merge_key,
    server_key,
    stateless_answer,
    veil,
)
from p2psip.core.usage import Acceptor, Usage, UsageFinder
from p2psip.errors import MessageParsingException, RealTimeException, fresh
from p2psip.message import Malformed, Request, Response, create_cancel
from p2psip.message.names import KNOWN_METHODS
from p2psip.timers import Timers

__all__ = ["KNOWN_METHODS", "ClientRequest", "Engine", "Tokens"]


class Engine:
    """The state of one SIP entity. Not for several threads; ``now`` is seconds on any monotonic clock.

    Attributes:
        effects: What is to be done, in order; see :meth:`take_effects`.
        dialogs: All dialogs, of all endpoints.
        usages: Asked in order for the usage that a request belongs to, before it counts as outside of any dialog.
        acceptors: Who takes a request outside of any dialog, by method: what begins sessions and subscriptions.
            All others are delivered to their endpoint.
        now: The time of the input that is being handled.
        counts: What has happened so far.
    """

    def __init__(self, settings: ManagerSettings, tokens: Tokens, directory: Directory) -> None:
        self.settings = settings
        self.tokens = tokens
        self.directory = directory
        self.dialogs = Dialogs()
        self.usages: list[UsageFinder] = [self.dialogs]
        self.acceptors: dict[str, Acceptor] = {}
        self.effects: list[Effect] = []
        self.timers = Timers()
        self.now = 0.0
        self.counts = Counts()
        self._opening: dict[ClientRequest, None] = {}
        self._clients: dict[object, ClientTransaction] = {}
        self._servers: dict[object, ServerTransaction] = {}
        self._merges: dict[object, ServerTransaction] = {}
        self._flows = TrafficByFlow()
        self._ended: RealTimeException | None = None

    def take_effects(self) -> list[Effect]:
        """The effects since the last call."""
        effects, self.effects = self.effects, []
        return effects

    # ------------------------------------------------------------------ requests of ours

    def send_request(
        self,
        now: float,
        request: Request,
        target: Any,
        user: Any,
        *,
        timeout: float | None = None,
        usage: Usage | None = None,
        flow: Flow | None = None,
        record: EndpointRecord | None = None,
        bears_contact: bool = False,
        credentials: CredentialSource | None = None,
        fallback: Flow | None = None,
    ) -> ClientRequest:
        """Send a request to the target; its end comes as the effect Complete, or to the usage, and never before this
        method has returned.

        Args:
            request: Complete but for Via, and for Contact where it ``bears_contact``. It is the engine's from now
                on.
            target: Passed on in the effect OpenFlow; ``transport``, ``host`` and ``port`` appear in sentences. An
                exception says why there is none. :class:`p2psip.core.ways.Ways` are tried one after the other.
            user: Passed on in the effects Provisional and Complete.
            timeout: Seconds for everything, below ``settings.request_ceiling``; None means that ceiling. Timer F
                (B for INVITE) runs from the first byte written. For an INVITE all of them end with the first
                provisional response; how long it may ring is the usage's to say.
            usage: The part of a dialog that is told instead of the user. An INVITE needs one, because each 2xx to it
                is to be acknowledged.
            flow: Used in place of one to the target, as long as it is connected.
            record: Whose request it is. With its credentials challenges are answered: then the request is sent again,
                and only the last answer is reported.
            bears_contact: It is to bear the Contact of the endpoint, which depends on the flow.
            credentials: Used in place of the endpoint's.
            fallback: Used where there is none to the target, as long as it is connected.

        RFC 3261 8.1, 17.1.
        """
        if request.method == "INVITE" and usage is None:
            raise ValueError("An INVITE needs a usage, which acknowledges the 2xx to it.")
        self.now = now
        ceiling = self.settings.request_ceiling
        seconds = ceiling if timeout is None or timeout > ceiling else timeout
        client_request = ClientRequest(self, request, target, user, usage, seconds, record)
        client_request.bears_contact = bears_contact
        client_request.fallback = fallback
        if credentials is not None:
            client_request.credentials = credentials
        self._opening[client_request] = None
        if self._ended is not None:
            self._fail_soon(client_request, fresh(self._ended))
        elif self._count() > self.settings.maximum_transactions:
            self._fail_soon(
                client_request,
                throttled(client_request, "maximum_transactions", f"{self._count()} transactions are under way"),
            )
        elif flow is not None and usage is None and flow.is_connected:
            self.flow_opened(now, client_request, flow)
        else:
            client_request.limit()
            self.effects.append(OpenFlow(client_request, client_request.target, flow))
        return client_request

    def _fail_soon(self, client_request: ClientRequest, error: RealTimeException) -> None:
        """An effect can be queued at once. A usage is called, and must know its request by then."""
        if client_request.usage is None:
            client_request.fail(error)
        else:
            self.timers.start(self.now, 0.0, client_request.fail, error)

    def flow_opened(self, now: float, client_request: ClientRequest | Acknowledgement, flow: Flow) -> None:
        """The flow for that request is there: write it."""
        if client_request.is_done or client_request.flow is not None:
            return
        self.now = now
        if isinstance(client_request, Acknowledgement):
            client_request.flow = flow
            self.send_ack(now, flow, client_request.request)
            return
        if flow.unanswered >= self.settings.maximum_unanswered_per_connection:
            why = f"{flow.unanswered} requests on its connection wait for an answer"
            client_request.fail(throttled(client_request, "maximum_unanswered_per_connection", why))
            return
        request = client_request.request
        try:
            client_request.complete_for(flow)
            branch = self._put_via(request, flow)
            kind = InviteClientTransaction if request.method == "INVITE" else NonInviteClientTransaction
            transaction = kind(self, flow, (branch, request.method), request, client_request)
            self._start_client(transaction)
        except Exception as error:  # somebody waits for this request, whatever has gone wrong
            client_request.fail(error)
            return
        del self._opening[client_request]
        client_request.flow = flow
        client_request.transaction = transaction
        flow.unanswered += 1
        client_request.leave_to_transaction()

    def open_again(self, client_request: ClientRequest, flow: Flow | None) -> None:
        """The request has been answered or lost, but is to be sent once more."""
        self._opening[client_request] = None
        self.effects.append(OpenFlow(client_request, client_request.target, flow))

    def flow_failed(
        self, now: float, client_request: ClientRequest | Acknowledgement, error: RealTimeException
    ) -> None:
        """There is no flow for that request, but perhaps another one that leads to the peer. Without any, an ACK waits
        until the 2xx comes again."""
        self.now = now
        fallback, client_request.fallback = client_request.fallback, None
        if fallback is not None and fallback.is_connected:
            self.flow_opened(now, client_request, fallback)
        elif isinstance(client_request, ClientRequest) and client_request.flow is None:
            client_request.not_opened(error)

    def cancel_request(
        self, now: float, client_request: ClientRequest, headers: Sequence[tuple[str, str]] = ()
    ) -> bool:
        """The user wants the request no more.

        An INVITE that was sent is cancelled: by CANCEL as soon as there is a provisional response, after which it
        ends with a final response as ever, a 2xx perhaps. Everything else is forgotten.

        Args:
            headers: For the CANCEL: Reason, say (RFC 3326).

        Returns:
            True when the end will be reported, False when the request is forgotten and nobody will be told.

        RFC 3261 9.1.
        """
        self.now = now
        if client_request.request.method == "INVITE" and client_request.transaction is not None:
            client_request.is_cancelled = True
            client_request.transaction.take(Input.CANCEL, headers)
            return True
        client_request.forget()
        return False

    def send_ack(
        self, now: float, flow: Flow | None, ack: Request, target: Any = None, fallback: Flow | None = None
    ) -> None:
        """Send the ACK to a 2xx, complete but for Via. It has a branch of its own and no answer.

        When the 2xx comes again the same ACK is to be sent again, and stays as it is.

        Args:
            flow: Used while it is connected, else one to the target, else the fallback.

        RFC 3261 13.2.2.4.
        """
        self.now = now
        if flow is None or not flow.is_connected:
            self.effects.append(OpenFlow(Acknowledgement(ack, target, fallback), target, None))
            return
        if "Via" not in ack.headers:
            self._put_via(ack, flow)
        self.effects.append(Send(flow, ack.to_bytes()))

    def _put_via(self, request: Request, flow: Flow) -> str:
        branch = self.tokens.branch()
        more = flow.via_parameters if flow.reliable else ";rport"  # RFC 3581; a connection is its own way back
        request.headers.prepend_line(f"Via: SIP/2.0/{flow.transport} {flow.sent_by};branch={branch}{more}")
        return branch

    # ------------------------------------------------------------------ what flows bring

    def receive(self, now: float, flow: Flow, message: Request | Response | Malformed) -> None:
        """A message has come over the flow.

        An exception other than this class documents is a defect of ours; what the message had begun is undone.
        """
        if self._ended is not None:
            return
        self.now = now
        if type(message) is Request:
            self._receive_request(flow, message)
        elif type(message) is Response:
            self._receive_response(message)
        elif type(message) is Malformed and message.error.answer is not None:
            self.effects.append(Send(flow, message.error.answer.to_bytes()))

    def flow_closed(self, now: float, flow: Flow, error: RealTimeException | None) -> None:
        """The flow is gone. Its client transactions fail at once, each with an error of its own; None: the peer
        has closed it in order."""
        self.now = now
        traffic = self._flows.get(flow)
        if traffic is not None:
            for_each((*traffic.clients, *traffic.servers), lambda each: each.flow_closed(error))
        self.dialogs.flow_closed(now, flow)

    def _receive_response(self, response: Response) -> None:
        """RFC 3261 18.1.2: what is bad or matches nothing is dropped.

        The transaction is looked for first, so that strays cost little. Only a response that can make a dialog is
        looked at as a whole; of others, what an application asks for says for itself if it is malformed.
        """
        try:
            method = response.cseq.method
            transaction = self._clients.get((response.top_branch, method))
            if transaction is None:
                self.counts.strays += 1
                return
            # RFC 3261 8.1.3.3: with several Vias it went astray.
            if not response.has_one_via:
                return
            if method in ("INVITE", "REFER", "SUBSCRIBE"):
                response.validate()
            elif not 100 <= response.status_code <= 699 or response.sip_version.upper() != "SIP/2.0":
                return
        except MessageParsingException:
            return
        transaction.receive(response)

    def _receive_request(self, flow: Flow, request: Request) -> None:
        try:
            request.validate()
            key = server_key(request)
        except MessageParsingException as error:
            if error.status_code is not None:  # a bad ACK has none
                self._refuse(flow, request, error.status_code)
            return
        method = request.method
        transaction = self._servers.get(key)
        if transaction is not None:
            self.counts.absorbed += method != "ACK"
            transaction.take(Input.ACK if method == "ACK" else Input.REQUEST, request)
        elif method == "ACK":
            usage = self._find_usage(request, flow)
            if usage is not None:
                usage.acknowledged(self.now, flow, request)
        elif method == "CANCEL":
            self._receive_cancel(flow, request, key)
        elif self._is_overloaded(flow):
            self._refuse(flow, request, BUSY.status_code, BUSY.headers)
        else:
            self._begin_server(flow, request, key)

    def _begin_server(self, flow: Flow, request: Request, key: object) -> None:
        """A request that was not here before."""
        usage = self._find_usage(request, flow) if self.usages else None
        record = None if usage is not None else find_endpoint(request, flow, self.directory)
        transaction = self._start_server(flow, request, key, self.tokens.tag())
        try:
            if usage is not None:
                transaction.usage = usage
                usage.received(self.now, transaction)
            elif isinstance(record, EndpointRecord):
                self._deliver(transaction, record)
            elif record is not None:
                transaction.refuse(veil(self.now, transaction, record, self.directory, self.tokens))
        except BaseException:
            transaction.end()
            raise

    def _deliver(self, transaction: ServerTransaction, record: EndpointRecord) -> None:
        """Hand the request to its endpoint, unless it came there by another way as well or is not let in."""
        request = transaction.request
        key = (record, *merge_key(request))
        is_merged = key in self._merges
        refusal = Refusal(482) if is_merged else admit(self.now, transaction, record, self.tokens)
        if refusal is not None:
            transaction.refuse(refusal)
            return
        transaction.merge_key = key
        transaction.record = record
        record.serving += 1
        self._merges[key] = transaction
        acceptor = self.acceptors.get(request.method)
        if acceptor is not None:
            acceptor(self.now, transaction, record)
        else:
            self.effects.append(Deliver(record, transaction, request))

    def _receive_cancel(self, flow: Flow, request: Request, key: tuple[object, ...]) -> None:
        """RFC 3261 9.2. It is answered for whatever it matches; only an INVITE is ended by it."""
        keys = ((*key[:-1], method) for method in CANCELLED_METHODS)
        cancelled = next(filter(None, map(self._servers.get, keys)), None)
        to_tag = self.tokens.tag() if cancelled is None else cancelled.to_tag
        transaction = self._start_server(flow, request, key, to_tag)
        try:
            transaction.respond(transaction.create_response(481 if cancelled is None else 200))
        except BaseException:
            transaction.end()
            raise
        if cancelled is not None and cancelled.request.method == "INVITE" and not cancelled.is_answered:
            cancelled.respond(cancelled.create_response(487))
            if cancelled.usage is not None:
                cancelled.usage.cancelled(self.now, cancelled)

    def _find_usage(self, request: Request, flow: Flow) -> Usage | None:
        for finder in self.usages:
            usage = finder.find(request, flow)
            if usage is not None:
                return usage
        return None

    def _refuse(self, flow: Flow, request: Request, status_code: int, headers: Sequence[tuple[str, str]] = ()) -> None:
        """Answer without a transaction."""
        response = stateless_answer(request, flow, status_code, headers)
        if response is not None:
            self.effects.append(Send(flow, response.to_bytes()))

    def _is_overloaded(self, flow: Flow) -> bool:
        traffic = self._flows.get(flow)
        unanswered = 0 if traffic is None else traffic.unanswered
        return self.counts.are_too_many(unanswered, self._count(), self.settings)

    def _count(self) -> int:
        return len(self._opening) + len(self._clients) + len(self._servers)

    # ------------------------------------------------------------------ requests of others

    def respond(self, now: float, transaction: ServerTransaction, response: Response) -> bool:
        """Send a response to a delivered request, on the flow that it came over or, when that is gone, another one.

        Returns:
            False when it came too late: a final response was sent before, or the transaction ended with its flow.
        """
        self.now = now
        return transaction.respond(response)

    # ------------------------------------------------------------------ time and the end

    def next_deadline(self) -> float | None:
        """When :meth:`advance` is to be called at the latest; None: not before something else happens."""
        return self.timers.next_deadline()

    def advance(self, now: float) -> None:
        """It is ``now``: do what is due."""
        self.now = now
        self.timers.advance(now)

    def shutdown(self, now: float, error: RealTimeException) -> None:
        """End everything. Each pending request completes with an error of its own, and so does each later one."""
        self.now = now
        self._ended = error
        for server in list(self._servers.values()):
            server.end()

        pending: list[ClientRequest | ClientTransaction] = [*self._opening, *self._clients.values()]

        def end(each: ClientRequest | ClientTransaction) -> None:
            if isinstance(each, ClientRequest):
                each.fail(fresh(error))
            else:
                each.take(Input.TRANSPORT_ERROR, error)

        for_each(pending, end)
        for_each(self.dialogs.usages(), lambda usage: usage.abandon(now, error))

    # ------------------------------------------------------------------ what transactions and requests tell

    def no_longer_opening(self, client_request: ClientRequest) -> None:
        """The request has ended before there was a flow."""
        self._opening.pop(client_request, None)

    def send_cancel(self, invite: InviteClientTransaction, headers: Sequence[tuple[str, str]]) -> None:
        """Cancel the INVITE, in a transaction of its own (RFC 3261 9.1)."""
        cancel = create_cancel(invite.request)
        for name, value in headers:
            cancel.headers.add(name, value)
        branch = cancel.top_via.branch
        self._start_client(NonInviteClientTransaction(self, invite.flow, (branch, "CANCEL"), cancel, NOBODY))

    def client_ended(self, transaction: ClientTransaction) -> None:
        """The transaction has terminated."""
        del self._clients[transaction.key]
        traffic = self._flows[transaction.flow]
        del traffic.clients[transaction]
        if not traffic.clients and not traffic.servers:
            del self._flows[transaction.flow]

    def server_answered(self, transaction: ServerTransaction) -> None:
        """Its final response is about to be sent."""
        self._flows[transaction.flow].unanswered -= 1
        if transaction.record is not None:
            transaction.record.serving -= 1

    def server_ended(self, transaction: ServerTransaction) -> None:
        """The transaction has terminated."""
        del self._servers[transaction.key]
        if transaction.merge_key is not None and self._merges.get(transaction.merge_key) is transaction:
            del self._merges[transaction.merge_key]
        traffic = self._flows[transaction.flow]
        del traffic.servers[transaction]
        if not transaction.is_answered:
            traffic.unanswered -= 1
            if transaction.record is not None:
                transaction.record.serving -= 1
        if not traffic.clients and not traffic.servers:
            del self._flows[transaction.flow]

    def _start_client(self, transaction: ClientTransaction) -> None:
        transaction.start()  # what cannot be written is not begun
        self._clients[transaction.key] = transaction
        self._flows[transaction.flow].clients[transaction] = None
        self.counts.clients += 1

    def _start_server(self, flow: Flow, request: Request, key: object, to_tag: str) -> ServerTransaction:
        self.counts.servers += 1
        kind = InviteServerTransaction if request.method == "INVITE" else NonInviteServerTransaction
        transaction = kind(self, flow, key, request, to_tag)
        self._servers[key] = transaction
        traffic = self._flows[flow]
        traffic.servers[transaction] = None
        traffic.unanswered += 1
        transaction.start()
        return transaction
