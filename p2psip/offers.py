"""Offer and answer: who makes the descriptions of a session, and when (RFC 3264, RFC 6337).

Descriptions are opaque here. They come from what the application handed in (the simple way), from a function that
makes an answer of an offer, or from an object with UCMA's callbacks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from p2psip import arguments
from p2psip.arguments import Headers
from p2psip.core import events
from p2psip.core.dialog import Content
from p2psip.core.transaction import ServerTransaction
from p2psip.errors import OperationFailureException, OperationFailureReason, RealTimeInvalidOperationException
from p2psip.message import Request, Response
from p2psip.pending import data_of
from p2psip.sync import Event, Operation, Strand
from p2psip.values import ContentDescription, SipRequestData, SipResponseData

if TYPE_CHECKING:
    from p2psip.session import SignalingSession
    from p2psip.session_base import SessionBase

Answerer = Callable[[ContentDescription | None], ContentDescription | None]
"""Makes the answer to an offer; given None, an offer."""

Pairs = Sequence[tuple[str, str]]


class IOfferAnswer(Protocol):
    """The application's side of offer and answer. Called on worker threads, or by the thread that calls ``establish``,
    ``accept`` or ``renegotiate``; what it raises there comes out there."""

    def get_offer(self, session: SignalingSession) -> ContentDescription | None:
        """The offer for an INVITE or re-INVITE, or for a 2xx to one without; None leaves an INVITE without offer."""

    def get_answer(self, session: SignalingSession, offer: ContentDescription) -> ContentDescription | None:
        """The answer to the peer's offer."""

    def set_answer(self, session: SignalingSession, answer: ContentDescription) -> None:
        """The peer's answer to our offer."""

    def handle_offer_in_invite_response(self, session: SignalingSession, args: OfferInInviteResponseEventArgs) -> None:
        """Our INVITE had no offer and the 2xx brings the peer's: call ``args.ready_to_answer()``, now or later."""

    def handle_offer_in_reinvite(self, session: SignalingSession, args: OfferInReInviteEventArgs) -> None:
        """The peer wants to change the session: call ``args.accept()`` or ``args.decline(...)``, now or later."""


class OfferInInviteResponseEventArgs:
    """The peer's offer in the 2xx to an INVITE that had none."""

    def __init__(self, negotiation: Negotiation, offer: ContentDescription) -> None:
        self._negotiation = negotiation
        self._lock = threading.RLock()
        self._done = False
        self.offer = offer
        """The offer."""

    @property
    def session(self) -> SignalingSession:
        """Whose it is."""
        session: SignalingSession = self._negotiation.session
        return session

    def ready_to_answer(self, headers: Headers | None = None) -> None:
        """Have ``get_answer`` called and send the ACK with the answer. Does not wait for the network.

        Raises:
            RealTimeInvalidOperationException: The ACK was sent before.
        """
        pairs = arguments.headers(headers)
        with self._lock:
            if self._done:
                raise RealTimeInvalidOperationException("The ACK with the answer was sent before.")
            self._done = True
        negotiation = self._negotiation
        answer = negotiation.answer_of(self.offer)
        negotiation.base._engine_call(negotiation.base._core.acknowledge, answer, pairs)


class OfferInReInviteEventArgs:
    """A re-INVITE or UPDATE of the peer, to be accepted or declined within ``settings.handler_limit``, or be announced
    within that."""

    cancelled: Event[OfferInReInviteEventArgs, None] = Event()
    """The peer has taken it back before it was answered."""

    def __init__(
        self, negotiation: Negotiation, transaction: ServerTransaction, offer: ContentDescription | None
    ) -> None:
        self._negotiation = negotiation
        self._transaction = transaction
        self._lock = threading.RLock()
        self._answered: str | None = None
        self.offer = offer
        """The peer's offer; None where it asks for ours."""
        self.request_data = SipRequestData(transaction.request)
        """The request."""

    @property
    def session(self) -> SignalingSession:
        """Whose it is."""
        session: SignalingSession = self._negotiation.session
        return session

    @property
    def is_cancelled(self) -> bool:
        """The peer has taken it back."""
        return self._answered is not None and "taken back" in self._answered

    def accept(self, headers: Headers | None = None) -> SipRequestData | None:
        """Accept it with what ``get_answer`` (``get_offer`` where the peer asks for an offer) returns, and wait for the
        ACK; an UPDATE has none. Blocks; allowed in handlers.

        Raises:
            OperationTimeoutException: No ACK came.
            OperationFailureException: The session ended, or the peer took it back.
            RealTimeInvalidOperationException: It was answered before.
        """
        return self.begin_accept(headers).result()

    def begin_accept(self, headers: Headers | None = None) -> Operation[SipRequestData | None]:
        """The same without blocking."""
        pairs = arguments.headers(headers)
        negotiation = self._negotiation
        content = negotiation.answer_of(self.offer)
        self._answer("it was accepted")
        return negotiation.base._begin(
            f"{self._transaction.request.method} of {negotiation.base._peer_text()}",
            negotiation.base._core.accept_offer,
            self._transaction,
            content,
            pairs,
        )

    def send_provisional_response(
        self, code: int = 180, reason: str | None = None, headers: Headers | None = None
    ) -> None:
        """Say that it takes a while: from now on as long as a call may ring (``settings.ring_limit``), not
        ``settings.handler_limit``. Does not wait for the network.

        Args:
            code: 101 to 199.

        Raises:
            RealTimeInvalidOperationException: It was answered before, or is an UPDATE, which is answered at once
                (RFC 4320 4.1).
            ValueError, TypeError: An argument.
        """
        arguments.status_code(code, 101, 199)
        arguments.reason_phrase(reason)
        pairs = arguments.headers(headers)
        method = self._transaction.request.method
        if method != "INVITE":
            raise RealTimeInvalidOperationException(f"{method} has no provisional response: accept or decline it.")
        with self._lock:
            self._check_undecided()
        base = self._negotiation.base
        what = f"{int(code)} for the {method} of {base._peer_text()}"
        base._begin(what, base._core.send_progress, self._transaction, int(code), reason, pairs)

    def decline(
        self,
        code: int = 488,
        reason: str | None = None,
        headers: Headers | None = None,
        content_type: str | None = None,
        body: bytes | str | None = None,
    ) -> None:
        """Refuse it; the session stays as it was. Does not block.

        Raises:
            RealTimeInvalidOperationException: It was answered before.
            ValueError, TypeError: An argument; ``code`` is 300 to 699.
        """
        arguments.status_code(code, 300, 699)
        arguments.reason_phrase(reason)
        pairs = arguments.headers(headers)
        content = _content(content_type, body)
        self._answer("it was declined")
        negotiation = self._negotiation
        negotiation.base._engine_call(
            negotiation.base._core.decline_offer, self._transaction, int(code), reason, pairs, content
        )

    def _answer(self, how: str) -> None:
        with self._lock:
            self._check_undecided()
            self._answered = how

    def _check_undecided(self) -> None:
        if self._answered is not None:
            raise RealTimeInvalidOperationException(
                f"The {self._transaction.request.method} cannot be answered: {self._answered}."
            )

    def _taken_back(self) -> None:
        """On the negotiation's strand."""
        with self._lock:
            if self._answered is None:
                self._answered = "the peer has taken back its request"
        self.cancelled.raise_event(self, None, self._negotiation.base._report)

    def _handler_failed(self) -> None:
        try:
            self.decline()
        except RealTimeInvalidOperationException:
            pass


def _content(content_type: str | None, body: bytes | str | None) -> Content | None:
    kind, encoded = arguments.content(content_type, body)
    return Content(kind, encoded) if kind is not None and encoded else None


def content_of(description: ContentDescription | None) -> Content | None:
    """What the engine sends."""
    if description is None:
        return None
    arguments.instance(description, ContentDescription, "An offer or answer")
    return Content(description.content_type, description.body)


def description_of(content: Content | None) -> ContentDescription | None:
    """What applications see of what a peer sent, whatever its content type looks like."""
    if content is None:
        return None
    description = ContentDescription.__new__(ContentDescription)
    description._content_type, description._body = content
    return description


class Negotiation:
    """The offers and answers of one session. On the loop thread, but for what says otherwise."""

    __slots__ = ("_open", "_strand", "answerer", "base", "early_answer", "is_early_answer_final", "negotiator")

    def __init__(self, base: SessionBase) -> None:
        self.base = base
        self.negotiator: IOfferAnswer | None = None
        self.answerer: Answerer | None = None
        self.early_answer: Content | None = None  # that we sent in a provisional response
        self.is_early_answer_final = False  # it came in a reliable one
        self._strand: Strand | None = None
        self._open: dict[ServerTransaction, OfferInReInviteEventArgs] = {}

    @property
    def session(self) -> Any:
        """The same, as applications know it."""
        return self.base

    # ------------------------------------------------------------------ any thread: user code is called here

    def first_offer(self, offer: ContentDescription | None) -> Content | None:
        """The offer of an INVITE, re-INVITE or UPDATE of ours."""
        if offer is None and self.negotiator is not None:
            offer = self.negotiator.get_offer(self.session)
        return content_of(offer)

    def answer_of(self, offer: ContentDescription | None) -> Content | None:
        """The answer to an offer, or an offer where the peer wants one."""
        if self.negotiator is not None:
            if offer is None:
                return content_of(self.negotiator.get_offer(self.session))
            return content_of(self.negotiator.get_answer(self.session, offer))
        return None if self.answerer is None else content_of(self.answerer(offer))

    def first_answer(self, answer: ContentDescription | Answerer | None, *, early: bool = False) -> Content | None:
        """What a response to an INVITE carries: the answer, or an offer where the INVITE has none."""
        if isinstance(answer, ContentDescription):
            return content_of(answer)
        self.set_answerer(answer)
        if self.early_answer is not None and not early:
            # RFC 3261 13.2.1: the 2xx repeats what an unreliable response said.
            return None if self.is_early_answer_final else self.early_answer
        return self.answer_of(self.base.remote_description)

    def set_answerer(self, answer: ContentDescription | Answerer | None) -> None:
        """What answers the peer's offers."""
        if isinstance(answer, ContentDescription):
            self.answerer = lambda offer: answer
        elif answer is not None:
            if not callable(answer):
                raise TypeError(f"An answer is a ContentDescription or a function of the offer, not {answer!r}.")
            self.answerer = answer

    # ------------------------------------------------------------------ what the engine tells

    def answered(self, content: Content | None) -> None:
        """The peer has answered our offer."""
        if content is not None and self.negotiator is not None:
            self._post(self._set_answer, description_of(content))

    def _set_answer(self, answer: ContentDescription) -> None:
        try:
            if self.negotiator is not None:
                self.negotiator.set_answer(self.session, answer)
        except Exception as error:
            self.base._report(self.base, error, self.negotiator)

    def offer_in_response(self, content: Content | None) -> None:
        """The 2xx to our INVITE without offer brought one; the ACK is to answer it."""
        core = self.base._core
        if content is None or (self.negotiator is None and self.answerer is None):
            self.base._engine_call(core.acknowledge, None, ())
        else:
            self._post(self._answer_in_ack, description_of(content))

    def _answer_in_ack(self, offer: ContentDescription) -> None:
        args = OfferInInviteResponseEventArgs(self, offer)
        try:
            if self.negotiator is None:
                args.ready_to_answer()
            else:
                self.negotiator.handle_offer_in_invite_response(self.session, args)
        except Exception as error:
            self.base._report(self.base, error, self.negotiator or self.answerer)
            self.base._engine_call(self.base._core.acknowledge, None, ())
            self.base.begin_terminate()

    def offer_in_provisional(self, content: Content | None) -> None:
        """A reliable provisional response brought an offer; the PRACK is to answer it."""
        if self.negotiator is None and self.answerer is None:
            self.base._engine_call(self.base._core.answer_provisional, None, ())
        else:
            self._post(self._answer_in_prack, description_of(content))

    def _answer_in_prack(self, offer: ContentDescription) -> None:
        answer = None
        try:
            answer = self.answer_of(offer)
        except Exception as error:
            self.base._report(self.base, error, self.negotiator or self.answerer)
        self.base._engine_call(self.base._core.answer_provisional, answer, ())

    def offer_received(self, event: events.OfferReceived) -> None:
        """A re-INVITE or UPDATE."""
        core, transaction = self.base._core, event.transaction
        if self.negotiator is not None or self.answerer is not None:
            args = OfferInReInviteEventArgs(self, transaction, description_of(event.content))
            self._open = {known: open_ for known, open_ in self._open.items() if open_._answered is None}
            self._open[transaction] = args
            self._post(self._answer_offer, args)
            return
        # RFC 6337 5.2.5: asked for an offer, and again for the same answer, we say what we said before.
        if core.local_content is not None and event.content in (None, core.remote_content):
            self.base._engine_call(core.accept_offer, transaction, core.local_content, (), None)
        else:
            self.base._engine_call(core.decline_offer, transaction, 488, None, (), None)

    def _answer_offer(self, args: OfferInReInviteEventArgs) -> None:
        try:
            if self.negotiator is None:
                args.begin_accept()
            else:
                self.negotiator.handle_offer_in_reinvite(self.session, args)
        except Exception as error:
            if not args.is_cancelled:
                self.base._report(self.base, error, self.negotiator or self.answerer)
            args._handler_failed()

    def offer_cancelled(self, event: events.OfferCancelled) -> None:
        """The peer has taken back its re-INVITE."""
        args = self._open.pop(event.transaction, None)
        if args is not None:
            self._post(args._taken_back)

    def _post(self, function: Callable[..., object], *args: object) -> None:
        """A strand of its own: a handler of the session may be waiting for what comes of this."""
        if self._strand is None:
            self._strand = self.base._stack.dispatcher.strand(f"negotiation of {self.base._name}")
        self._strand.post(function, *args)


def early_answer_sent(negotiation: Negotiation, content: Content | None) -> Callable[[Request | Response | None], Any]:
    """What the operation of a provisional response with an answer ends with; a PRACK makes the answer final."""

    def convert(prack: Request | Response | None) -> SipRequestData | SipResponseData | None:
        if prack is not None and content is not None:
            negotiation.is_early_answer_final = True
        return data_of(prack)

    return convert


def no_description() -> OperationFailureException:
    """There is nothing to offer."""
    return OperationFailureException(
        "There is no offer to renegotiate with: give one, or set offer_answer_negotiation.",
        OperationFailureReason.MEDIA_FAILURE,
    )
