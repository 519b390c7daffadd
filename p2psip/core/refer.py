"""REFER: asking a peer to call somebody, and being asked (RFC 3515, RFC 3892, RFC 4488).

The REFER travels in a session's dialog; see :mod:`p2psip.core.refer_outside` for the other kind. What becomes of it is
told by NOTIFYs with a fragment of SIP (RFC 3420), in a subscription that the REFER itself has begun and that shares the
dialog (RFC 5057).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from p2psip.core.dialog import Content, Dialog, Pairs
from p2psip.core.effects import Complete, Tell
from p2psip.core.event_headers import event_name, expires_of, subscription_state
from p2psip.core.events import ReferProgress, ReferReceived
from p2psip.core.sender import Sender
from p2psip.core.usage import ClientUsage
from p2psip.enums import SignalingState
from p2psip.errors import MessageParsingException, RealTimeException, fresh
from p2psip.message import NameAddr, Request, Response, SipUri, reason_phrase, unescape
from p2psip.timers import Timer

if TYPE_CHECKING:
    from p2psip.core.flow import Flow
    from p2psip.core.refer_outside import Outside
    from p2psip.core.request import ClientRequest
    from p2psip.core.session import Session
    from p2psip.core.transaction import ServerTransaction

LIFETIME = 180
"""Seconds that the implicit subscription of a REFER has: as long as a call may ring."""
LONGEST = 3600
"""Seconds without a NOTIFY, at most, whatever the peer says how long its subscription is."""


class OutgoingRefer(ClientUsage):
    """A REFER of ours in a session, and what the peer tells of it.

    Attributes:
        user: Told ReferProgress.
        is_active: NOTIFYs may still come.
    """

    def __init__(self, session: Session | Outside, user: Any) -> None:
        self.user = user
        self.is_active = False
        self._session: Any = session
        self._dialog: Dialog | None = None
        self._operation: Any = None
        self._is_patient = False
        self._refer: ClientRequest | None = None
        self._request: ClientRequest | None = None  # the same, until it is answered
        self._end: Timer | None = None

    def refer(
        self,
        now: float,
        refer_to: str,
        headers: Pairs,
        content: Content | None,
        subscribe: bool,
        operation: Any,
        timeout: float | None = None,
    ) -> None:
        """Send it; the operation ends with the final response.

        Args:
            refer_to: The value of Refer-To.
            subscribe: Without it the peer is asked to tell nothing (RFC 4488).
            timeout: Seconds for the answer; None means the protocol's own.
        """
        session = self._session
        dialog = session.dialog
        if session.state is not SignalingState.CONNECTED or dialog is None or self._refer:  # each is sent once
            session.refuse(operation, "transferred")
            return
        pairs = self._fields(refer_to, subscribe)
        self._operation, self._dialog = operation, dialog
        self._is_patient = timeout is None or timeout >= 64 * session.engine.settings.t1
        request = dialog.create_request("REFER", [*pairs, *headers], content)
        self.is_active = subscribe
        if subscribe:
            dialog.add(self)
            self._expect_more(now, LIFETIME)
        self._refer = self._request = dialog.send(now, request, self, timeout=timeout)

    @property
    def _sequence(self) -> int:
        """The number that NOTIFYs know it by: of the last try, should it have been asked for a password."""
        return 0 if self._refer is None else self._refer.request.cseq.number

    def _fields(self, refer_to: str, subscribe: bool) -> list[tuple[str, str]]:
        pairs = [("Refer-To", refer_to), ("Referred-By", f"<{self._session.record.owner}>")]
        if not subscribe:
            pairs += [("Refer-Sub", "false"), ("Supported", "norefersub")]
        return pairs

    def responded(self, now: float, client_request: ClientRequest, response: Response) -> None:
        code = response.status_code
        if code < 200 or client_request is not self._request:
            return
        self._request = None
        self._session.way_found(client_request.flow)
        if code >= 300 or wants_no_progress(response):
            self.stop()
        self._complete(response, None)
        if code in (408, 481):  # others of RFC 5057 5.1 are said of the target by peers who mean no harm to the session
            self._session.failed_by(now, response)

    def failed(self, now: float, client_request: ClientRequest, error: RealTimeException) -> None:
        if client_request is self._request:
            self._request = None
            self.stop()
            if self._is_patient:
                self._session.unanswered(now, client_request, error)
            self._complete(None, error)

    # ------------------------------------------------------------------ NOTIFY

    def takes(self, request: Request) -> bool:
        if request.method != "NOTIFY":
            return False
        event = event_name(request.headers.get("Event"))
        return event.package == "refer" and event.id in (None, str(self._sequence))

    def received(self, now: float, transaction: ServerTransaction) -> None:
        request = transaction.request
        transaction.usage = None
        state = subscription_state(request)
        if state is None:
            transaction.respond(transaction.create_response(400, "Missing Subscription-State"))
            return
        transaction.respond(transaction.create_response(200))
        code, reason = status_of(request.body)
        is_wanted = self.is_active
        is_over = state.state == "terminated" and self._told_its_end(request)
        if is_wanted and not is_over and state.expires is not None:
            self._expect_more(now, min(state.expires, LONGEST))
        if is_wanted:
            self._tell(ReferProgress(request, code, reason, request.body, is_over))

    def _expect_more(self, now: float, seconds: int) -> None:
        """As long as the peer says that its subscription is, and a little longer."""
        engine = self._session.engine
        engine.timers.cancel(self._end)
        self._end = engine.timers.start(now, seconds + 64 * engine.settings.t1, self._silent)

    def _told_its_end(self, request: Request) -> bool:
        """The last NOTIFY has come."""
        self.stop()
        return True

    def terminate_subscription(self, now: float) -> None:
        """Hear no more of it. NOTIFYs that still come are answered, for an error would end the session with the
        subscription (RFC 5057 5.1)."""
        if self.is_active and self._dialog is not None:
            self._unsubscribe(now, self._dialog)

    def _unsubscribe(self, now: float, dialog: Dialog) -> None:
        timers = self._session.engine.timers
        pairs = [("Event", f"refer;id={self._sequence}"), ("Expires", "0")]
        dialog.send(now, dialog.create_request("SUBSCRIBE", pairs), _Unheard())
        self.is_active = False
        timers.cancel(self._end)
        self._end = timers.start(now, 64 * self._session.engine.settings.t1, self._silent)

    def _silent(self) -> None:
        """The peer has forgotten to say how it ended."""
        self._end = None
        is_wanted = self.is_active
        self.stop()
        if is_wanted:
            self._tell(ReferProgress(Request("NOTIFY", "sip:nobody@invalid"), 0, None, b"", True))

    def stop(self) -> None:
        """No NOTIFY is expected any more."""
        self.is_active = False
        self._session.engine.timers.cancel(self._end)
        self._end = None
        if self._dialog is not None:
            self._dialog.remove(self)

    def flow_lost(self, now: float, flow: Flow) -> None:
        """NOTIFYs may come over another one."""

    @property
    def is_answered(self) -> bool:
        """The REFER has its final response, or never will have one."""
        return self._operation is None

    def abandon(self, now: float, error: RealTimeException) -> None:
        if self.is_answered:
            self._silent()
        else:
            self.stop()
            self._complete(None, fresh(error))

    def _tell(self, event: Any) -> None:
        self._session.engine.effects.append(Tell(self, event))

    def _complete(self, response: Response | None, error: Exception | None) -> None:
        operation, self._operation = self._operation, None
        if operation is not None:
            self._session.engine.effects.append(Complete(operation, response, error))


class _Unheard(ClientUsage):
    """Whatever the answer is."""

    __slots__ = ()


class IncomingRefer(ClientUsage):
    """A REFER of a peer, in a session or outside of any.

    Attributes:
        target: The URI that is to be called, without its headers.
        method: The method to use there; INVITE unless it says otherwise.
        replaces: Replaces for that INVITE (RFC 3891), or None.
        referred_by: Who asks (RFC 3892), or None.
        sender: Who sent the REFER.
    """

    def __init__(self, session: Session | Outside, transaction: ServerTransaction, refer_to: NameAddr | None) -> None:
        request = transaction.request
        assert refer_to is not None
        self.session: Any = session
        self.request = request
        self.sender = Sender(request, transaction.flow, session.record)
        self.user: Any = None
        uri = refer_to.uri
        self.target = str(uri).partition("?")[0]
        self.method = "INVITE"
        self.replaces: str | None = None
        if isinstance(uri, SipUri):
            self.method = (uri.parameters.get("method") or "INVITE").upper()
            for name, value in _headers_of(uri):
                if name.lower() == "replaces":
                    self.replaces = value
        self.referred_by = request.headers.get("Referred-By")
        self.wants_progress = not wants_no_progress(request)
        self.is_active = False
        self._transaction: ServerTransaction | None = transaction
        self._dialog = session.dialog
        self._sequence = request.cseq.number
        self._end: Timer | None = None
        self._last: tuple[int, str | None, str | None] = (100, None, None)

    @property
    def is_answered(self) -> bool:
        """Accepted or declined."""
        return self._transaction is None

    def accept(self, now: float, headers: Pairs = ()) -> bool:
        """Answer 202 and tell that it is being tried; False when it was answered before, or cannot be any more."""
        transaction, self._transaction = self._transaction, None
        if transaction is None or self._dialog is None:
            return False
        session = self.session
        contact = session.record.endpoint._contact(transaction.flow, transaction.request.uri)
        pairs = [("Contact", contact), *headers]
        if not self.wants_progress:
            pairs += [("Refer-Sub", "false"), ("Supported", "norefersub")]
        if not transaction.respond(transaction.create_response(202, headers=pairs)):
            return False
        if self.wants_progress:
            self.is_active = True
            self._dialog.add(self)
            self._end = session.engine.timers.start(now, float(LIFETIME), self._ran_out)
            self.progress(now, 100, None, None, False)
        return True

    def decline(self, now: float, code: int, reason: str | None = None, headers: Pairs = ()) -> None:
        """Answer 300 or above; 504 in place of 408, which RFC 4320 4.2 forbids."""
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            code = 504 if code == 408 else code
            transaction.respond(transaction.create_response(code, reason, headers=headers))

    def progress(
        self, now: float, code: int, reason: str | None, fragment: str | None, is_over: bool, why: str = "noresource"
    ) -> None:
        """Tell how the call goes: a status code, or a fragment of a message. ``is_over`` ends the subscription."""
        if not self.is_active or self._dialog is None:
            return
        self._last = (code, reason, fragment)
        text = fragment or f"SIP/2.0 {code} {reason or reason_phrase(code)}\r\n"
        left = LIFETIME if self._end is None else max(0, round(self._end.deadline - now))
        state = f"terminated;reason={why}" if is_over else f"active;expires={left}"
        pairs = [("Event", f"refer;id={self._sequence}"), ("Subscription-State", state)]
        content = Content("message/sipfrag;version=2.0", text.encode())
        request = self._dialog.create_request("NOTIFY", pairs, content)
        dialog = self._dialog
        if is_over:
            self.stop()
        dialog.send(now, request, self)

    def _ran_out(self) -> None:
        self._end = None
        self.progress(self.session.engine.now, 408, None, None, True)

    def stop(self) -> None:
        """No more is told."""
        self.is_active = False
        self.session.engine.timers.cancel(self._end)
        self._end = None
        if self._dialog is not None:
            self._dialog.remove(self)

    # ------------------------------------------------------------------ what the dialog tells

    def takes(self, request: Request) -> bool:
        if request.method != "SUBSCRIBE":
            return False
        event = event_name(request.headers.get("Event"))
        return event.package == "refer" and event.id in (None, str(self._sequence))

    def received(self, now: float, transaction: ServerTransaction) -> None:
        """The referrer wants to hear longer, or no more, of it."""
        transaction.usage = None
        asked = expires_of(transaction.request)
        seconds = LIFETIME if asked is None else min(asked, LIFETIME)
        ends = seconds == 0
        contact = self.session.record.endpoint._contact(transaction.flow, transaction.request.uri)
        pairs = [("Contact", contact), ("Expires", str(seconds))]
        transaction.respond(transaction.create_response(200, headers=pairs))
        if not ends:
            timers = self.session.engine.timers
            timers.cancel(self._end)
            self._end = timers.start(now, float(seconds), self._ran_out)
        self.progress(now, *self._last, ends, "timeout")  # RFC 6665 4.2.1.2: each SUBSCRIBE has its NOTIFY

    def responded(self, now: float, client_request: ClientRequest, response: Response) -> None:
        if response.status_code >= 300 and response.status_code != 491:
            self.stop()

    def failed(self, now: float, client_request: ClientRequest, error: RealTimeException) -> None:
        self.stop()

    def transaction_failed(self, now: float, transaction: ServerTransaction, error: RealTimeException | None) -> None:
        """Nobody decided in time: 500 was sent."""
        self._transaction = None

    def flow_lost(self, now: float, flow: Flow) -> None:
        """The next NOTIFY finds another one."""

    def abandon(self, now: float, error: RealTimeException) -> None:
        self._transaction = None
        self.stop()


def receive_in_session(session: Session, now: float, transaction: ServerTransaction) -> None:
    """A REFER in a session: exactly one Refer-To that can be read (RFC 3515 2.4.2)."""
    refer_to = refer_to_of(transaction.request)
    if refer_to is None:
        session.respond(transaction, 400)
        return
    refer = IncomingRefer(session, transaction, refer_to)
    transaction.usage = refer
    session.tell(ReferReceived(refer))


def refer_to_of(request: Request) -> NameAddr | None:
    """Refer-To; None where there is not exactly one that can be read."""
    try:
        return NameAddr.parse(request.headers.get("Refer-To") or "") if request.headers.count("Refer-To") == 1 else None
    except MessageParsingException:
        return None


def wants_no_progress(message: Request | Response) -> bool:
    """Refer-Sub says that there is no subscription (RFC 4488 4)."""
    return (message.headers.get("Refer-Sub") or "").partition(";")[0].strip().lower() == "false"


def status_of(fragment: bytes) -> tuple[int, str | None]:
    """The status line at the beginning of a fragment; 0 and None where there is none (RFC 3420)."""
    line = fragment.lstrip(b"\r\n").partition(b"\n")[0].decode("utf-8", "replace").strip()
    version, _, rest = line.partition(" ")
    code, _, reason = rest.strip().partition(" ")
    if version.upper() == "SIP/2.0" and code.isascii() and code.isdigit() and len(code) == 3:
        return int(code), reason.strip() or None
    return 0, None


def _headers_of(uri: SipUri) -> list[tuple[str, str]]:
    """The headers in a URI, unescaped (RFC 3261 19.1.1)."""
    query = str(uri).partition("?")[2]
    pairs = []
    for part in query.split("&"):
        name, equals, value = part.partition("=")
        if equals:
            pairs.append((unescape(name), unescape(value)))
    return pairs
