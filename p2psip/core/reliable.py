"""Provisional responses that are acknowledged: 100rel and PRACK (RFC 3262)."""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from p2psip.core.dialog import Content, Dialog, Pairs
from p2psip.core.events import AnswerReceived
from p2psip.core.usage import ClientUsage
from p2psip.errors import MessageParsingException, OperationTimeoutException, RealTimeException
from p2psip.message import RAck, Request, Response, parse_field, split_list
from p2psip.message.grammar import Remembered
from p2psip.timers import Timer

if TYPE_CHECKING:
    from p2psip.core.request import ClientRequest
    from p2psip.core.session import Session
    from p2psip.core.transaction import ServerTransaction


def option_tags(message: Request | Response, name: str) -> frozenset[str]:
    """The option tags in Require or Supported, lower case; none where they cannot be read."""
    tags = message.headers.get_joined(name)
    return NO_TAGS if tags is None else TAGS[tags]


def _tags(text: str) -> frozenset[str]:
    try:
        return frozenset(map(str.lower, split_list(text)))
    except MessageParsingException:
        return NO_TAGS


NO_TAGS: frozenset[str] = frozenset()
TAGS = Remembered(_tags)
"""The option tags of a list."""


class ReliableSender:
    """Our side of the peer's INVITE: one at a time, sent again until its PRACK comes (RFC 3262 3)."""

    def __init__(
        self,
        session: Session,
        transaction: ServerTransaction,
        give_up: Callable[[float, OperationTimeoutException], object],
    ) -> None:
        self._session = session
        self._give_up = give_up
        self._transaction = transaction
        self._sequence = int(session.engine.tokens.fraction() * 2**20)
        self._waiting: collections.deque[tuple[int, str | None, Pairs, Content | None, Any]] = collections.deque()
        self._response: Response | None = None
        self._is_late = False  # the final response has gone out before the PRACK came
        self._operation: Any = None
        self._interval = 0.0
        self._again: Timer | None = None
        self._limit: Timer | None = None

    @property
    def holds_back(self) -> bool:
        """A 2xx has to wait: the one that is not acknowledged carries a description (RFC 3262 3)."""
        return self._response is not None and bool(self._response.body)

    def send(
        self, now: float, code: int, reason: str | None, headers: Pairs, content: Content | None, operation: Any
    ) -> None:
        """Send it, or after those before it; the operation ends with the PRACK."""
        if self._response is not None:
            self._waiting.append((code, reason, headers, content, operation))
            return
        session, engine = self._session, self._session.engine
        self._sequence += 1
        self._operation = operation
        pairs = [*headers, ("Require", "100rel"), ("RSeq", str(self._sequence))]
        self._response = session.respond(self._transaction, code, reason, pairs, content)
        self._interval = engine.settings.t1
        self._again = engine.timers.start(now, self._interval, self._repeat)
        self._limit = engine.timers.start(now, 64 * engine.settings.t1, self._missing)

    def _repeat(self) -> None:
        engine = self._session.engine
        if self._response is not None:
            engine.counts.retransmitted += 1
            self._transaction.respond(self._response)
            self._interval *= 2
            self._again = engine.timers.start(engine.now, self._interval, self._repeat)

    def _missing(self) -> None:
        """RFC 3262 3: the INVITE is to be refused with a 5xx."""
        session, operation = self._session, self._operation
        session.engine.counts.timeouts["acknowledgement"] += 1
        self._operation = None
        self._stop_timers()
        error = OperationTimeoutException(
            f"A reliable provisional response in the session {session.call_id} was not acknowledged (PRACK) within "
            f"{64 * session.engine.settings.t1:g} s; the call was refused."
        )
        self._give_up(session.engine.now, error)
        session.complete(operation, None, error)

    def received_prack(self, now: float, transaction: ServerTransaction) -> None:
        """Answer it; the next one may go."""
        session, request = self._session, transaction.request
        response = self._response
        if not self.acknowledges(request) or (response is None and not self._is_late):
            session.respond(transaction, 481)
            return
        if response is None:
            self._is_late = False
            session.respond(transaction, 200)  # RFC 3262 3: it has crossed the final response
            return
        self._stop_timers()
        self._response = None
        operation, self._operation = self._operation, None
        content, offer = Content.of(request), Content.of(self._transaction.request)
        is_agreed = session.local_content is not None and session.remote_content is not None
        is_answer = False
        if response.body and session.local_content is None and session.dialog is not None:
            is_agreed, is_answer = offer is not None, offer is None and content is not None
            session.dialog.agree(Content.of(response), offer or content)
        if content is not None and is_agreed:
            session.renegotiation.offered(transaction, content)  # another offer (RFC 3262 5)
        else:
            session.respond(transaction, 200)
            if content is not None and is_answer:
                session.tell(AnswerReceived(request, content))
        session.complete(operation, request, None)
        if self._waiting:
            self.send(now, *self._waiting.popleft())

    def acknowledges(self, request: Request) -> bool:
        """It is the PRACK of the last one."""
        try:
            value = parse_field("RAck", request.headers.get("RAck") or "")
        except MessageParsingException:
            return False
        invite = self._transaction.request.cseq.number
        return isinstance(value, RAck) and (value.rseq, value.cseq, value.method) == (self._sequence, invite, "INVITE")

    def stop(self) -> None:
        """A final response is there, or the end: nobody waits for a PRACK any more."""
        self._stop_timers()
        self._is_late = self._response is not None
        self._response = None
        waiting = [self._operation, *(entry[-1] for entry in self._waiting)]
        self._operation = None
        self._waiting.clear()
        for operation in waiting:
            self._session.complete(operation, None, None)

    def _stop_timers(self) -> None:
        timers = self._session.engine.timers
        timers.cancel(self._again)
        timers.cancel(self._limit)
        self._again = self._limit = None


class ReliableReceiver(ClientUsage):
    """The peer's side of our INVITE, in one early dialog: in order, each once, each with its PRACK (RFC 3262 4)."""

    __slots__ = ("_last", "_prack", "_said")

    def __init__(self) -> None:
        self._last: int | None = None
        self._said: tuple[Dialog, Pairs, Content | None] | None = None
        self._prack: ClientRequest | None = None

    def accepts(self, now: float, response: Response) -> bool:
        """The response is the next one; else it came again or out of order, and is to be dropped. A PRACK whose
        connection was lost is sent once more where the peer shows that it still waits for it."""
        number = rseq(response)
        if number is not None and number == self._last and self._said is not None and self._prack is None:
            self._send(now, *self._said)
        if number is None or (self._last is not None and number != self._last + 1):
            return False
        self._last, self._said = number, None
        return True

    def acknowledge(
        self, now: float, dialog: Dialog, invite: Request, response: Response, content: Content | None
    ) -> None:
        """Send the PRACK. If it is refused, the INVITE will tell."""
        self._said = (dialog, [("RAck", f"{rseq(response)} {invite.cseq.number} INVITE")], content)
        self._send(now, *self._said)

    def _send(self, now: float, dialog: Dialog, headers: Pairs, content: Content | None) -> None:
        self._prack = dialog.send(now, dialog.create_request("PRACK", headers, content), self)

    def failed(self, now: float, client_request: ClientRequest, error: RealTimeException) -> None:
        if client_request is self._prack:
            self._prack = None


def rseq(response: Response) -> int | None:
    """RSeq of a response that wants to be acknowledged; None for one that does not."""
    value = response.headers.get("RSeq")
    if value is None:
        return None
    text = value.strip()
    if "100rel" not in option_tags(response, "Require") or not (text.isascii() and text.isdigit()) or len(text) > 10:
        return None
    return int(text)
