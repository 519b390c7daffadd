"""Session timers: a session whose peer has vanished ends by itself (RFC 4028)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from p2psip.core.events import RefreshNeeded
from p2psip.core.reliable import option_tags
from p2psip.core.usage import ClientUsage
from p2psip.enums import SignalingState, SignalingTransitionReason
from p2psip.errors import OperationTimeoutException, RealTimeException
from p2psip.message import Request, Response
from p2psip.message.grammar import Remembered
from p2psip.timers import Timer

if TYPE_CHECKING:
    from p2psip.core.request import ClientRequest
    from p2psip.core.session import Session

SMALLEST_INTERVAL = 90
"""Seconds; the least that anybody may ask for, and what holds where Min-SE says nothing (RFC 4028 4)."""


class SessionTimer(ClientUsage):
    """The interval in force, and who refreshes.

    Attributes:
        interval: Seconds; 0 while none is in force.
        is_refresher: It is for us to refresh.
    """

    __slots__ = ("_expiry", "_refresh", "_session", "interval", "is_refresher", "minimum")

    def __init__(self, session: Session) -> None:
        self._session = session
        self.interval = 0
        self.is_refresher = False
        self.minimum = 0
        self._refresh: Timer | None = None
        self._expiry: Timer | None = None  # of who refreshes: from the refresh on

    # ------------------------------------------------------------------ what messages say

    def request_headers(self) -> list[tuple[str, str]]:
        """For an INVITE, or an UPDATE, of ours."""
        options = self._session.options
        wanted = self.interval or options.session_interval
        if not options.is_timer_supported or not wanted:
            return []
        least = self._least()
        refresher = "" if not self.interval else ";refresher=uac" if self.is_refresher else ";refresher=uas"
        pairs = [("Session-Expires", f"{max(wanted, least)}{refresher}")]
        if least > SMALLEST_INTERVAL:
            pairs.append(("Min-SE", str(least)))
        return pairs

    def accept_response(self, now: float, response: Response) -> None:
        """A 2xx to such a request: what the peer has decided."""
        seconds, refresher = session_expires(response)
        self._begin(now, seconds, refresher != "uas")

    def refusal(self, request: Request) -> list[tuple[str, str]] | None:
        """The headers of a 422, when the peer's interval is too short; None when it is not."""
        seconds, _ = session_expires(request)
        least = self._least()
        if not seconds or seconds >= least or not self._session.options.is_timer_supported:
            return None
        return [("Min-SE", str(least))] if "timer" in option_tags(request, "Supported") else None

    def response_headers(self, now: float, request: Request) -> list[tuple[str, str]]:
        """For our 2xx to the peer's INVITE or UPDATE; from then on the timer runs."""
        options = self._session.options
        peer_can = "timer" in option_tags(request, "Supported") or "timer" in option_tags(request, "Require")
        asked, refresher = session_expires(request)
        least = min_se(request)
        seconds = asked or options.session_interval
        if not options.is_timer_supported or not seconds or not (peer_can or asked):
            self._begin(now, 0, False)
            return []
        if asked and options.session_interval:
            seconds = min(asked, max(options.session_interval, least))
        seconds = max(seconds, self._least(), least)
        if asked:
            seconds = min(seconds, max(asked, SMALLEST_INTERVAL))  # RFC 4028 9: it is never made longer
        if not peer_can:
            refresher = "uas"  # RFC 4028 9, table 2
        elif refresher is None:
            refresher = "uac"
        self._begin(now, seconds, refresher == "uas")
        pairs = [("Session-Expires", f"{seconds};refresher={refresher}")]
        if refresher == "uac":
            pairs.append(("Require", "timer"))
        return pairs

    def too_small(self, response: Response) -> bool:
        """422 to a request of ours: True when it can be sent again with what the peer's Min-SE demands."""
        least = min_se(response)
        if least <= self._least():
            return False
        self.minimum = least
        return True

    def _least(self) -> int:
        return max(SMALLEST_INTERVAL, self._session.options.minimum_interval, self.minimum)

    # ------------------------------------------------------------------ time

    def _begin(self, now: float, seconds: int, is_refresher: bool) -> None:
        self.stop()
        self.interval, self.is_refresher = seconds, is_refresher
        if not seconds:
            return
        timers = self._session.engine.timers
        # RFC 4028 10: so long before the end that the BYE still reaches proxies that have timers of their own.
        expires_in = seconds - min(32.0, seconds / 3)
        if is_refresher:
            self._refresh = timers.start(now, seconds / 2, self._half_over, expires_in - seconds / 2)
        else:
            self._expiry = timers.start(now, expires_in, self._expired)

    def _half_over(self, expires_in: float) -> None:
        timers, now = self._session.engine.timers, self._session.engine.now
        self._expiry = timers.start(now, expires_in, self._expired)
        self._refresh_now()

    def stop(self) -> None:
        """No timer runs any more."""
        if self._expiry is not None or self._refresh is not None:
            timers = self._session.engine.timers
            timers.cancel(self._refresh)
            timers.cancel(self._expiry)
            self._refresh = self._expiry = None

    def _expired(self) -> None:
        session = self._session
        self.stop()
        if session.state is SignalingState.CONNECTED:
            session.hang_up(session.engine.now, (), SignalingTransitionReason.SESSION_TIMER_EXPIRED)

    def _refresh_now(self) -> None:
        session = self._session
        now, dialog = session.engine.now, session.dialog
        self._refresh = None
        if session.state is not SignalingState.CONNECTED or dialog is None:
            return
        if "UPDATE" in session.peer_allow:
            request = dialog.create_request("UPDATE", [*session.supported(), *self.request_headers()])
            dialog.send(now, request, self)
            return
        session.tell(RefreshNeeded())
        self._wait(now, self._refresh_by_invite)

    def _refresh_by_invite(self) -> None:
        """The user has not changed the session by now, or not with success: a 2xx ends this."""
        session = self._session
        now = session.engine.now
        if session.local_content is not None and not session.renegotiation.is_busy:
            session.renegotiation.begin(now, session.local_content, (), None)
        self._wait(now, self._refresh_by_invite)

    def responded(self, now: float, client_request: ClientRequest, response: Response) -> None:
        session, code = self._session, response.status_code
        if code < 200 or session.state is not SignalingState.CONNECTED:
            return
        session.way_found(client_request.flow)
        if code < 300:
            if session.dialog is not None:
                session.dialog.refresh_target(response)
            self.accept_response(now, response)
        elif not session.failed_by(now, response):
            if code == 422:
                self.too_small(response)
            elif code in (405, 501):  # whatever its Allow has said
                session.peer_allow -= {"UPDATE"}
            self._wait(now, self._refresh_now)

    def failed(self, now: float, client_request: ClientRequest, error: RealTimeException) -> None:
        if self._session.state is not SignalingState.CONNECTED:
            return
        if isinstance(error, OperationTimeoutException) and client_request.flow is not None:
            self._expired()  # RFC 4028 10: it was sent, and the peer says nothing
        else:
            self._wait(now, self._refresh_now)

    def _wait(self, now: float, step: Callable[[], object]) -> None:
        """491, a lost connection and the like pass. The expiry goes on running."""
        timers = self._session.engine.timers
        timers.cancel(self._refresh)
        self._refresh = timers.start(now, min(10.0, self.interval / 20), step)


def session_expires(message: Request | Response) -> tuple[int, str | None]:
    """Seconds and refresher in Session-Expires; 0 without one that can be read."""
    value = message.headers.get("Session-Expires")
    return (0, None) if value is None else _EXPIRES[value]


def _parse_expires(value: str) -> tuple[int, str | None]:
    seconds, *parameters = value.split(";")
    refresher = None
    for parameter in parameters:
        name, _, who = parameter.strip().lower().partition("=")
        if name.strip() == "refresher" and who.strip() in ("uac", "uas"):
            refresher = who.strip()
    return _number(seconds), refresher


_EXPIRES = Remembered(_parse_expires)


def min_se(message: Request | Response) -> int:
    """Seconds in Min-SE; 0 without one that can be read."""
    value = message.headers.get("Min-SE")
    return 0 if value is None else _number(value.split(";")[0])


def _number(text: str) -> int:
    text = text.strip()
    return int(text) if text.isdigit() and len(text) <= 9 and text.isascii() else 0
