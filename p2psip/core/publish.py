"""The publisher's side of event state: PUBLISH with entity tags (RFC 3903)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from p2psip.core.dialog import Content, Pairs
from p2psip.core.effects import Complete, Tell
from p2psip.core.event_headers import expires_of, number, retry_after
from p2psip.core.events import PublicationChanged, PublicationOver
from p2psip.core.redirection import MAXIMUM_REDIRECTS, Redirections, is_secure, redirected_target
from p2psip.core.usage import ClientUsage
from p2psip.errors import (
    OperationFailureException,
    OperationFailureReason,
    OperationTimeoutException,
    RealTimeException,
    fresh,
)
from p2psip.message import Request, Response
from p2psip.timers import Timer

if TYPE_CHECKING:
    from p2psip.core.directory import EndpointRecord
    from p2psip.core.engine import Engine
    from p2psip.core.request import ClientRequest

RETRY_DELAY = 30.0
"""Seconds after a refresh that failed, at most."""
MAXIMUM_TRIES = 3
"""Requests for one command or refresh: what is gone is published anew, what is too short longer."""
LONGEST_EXPIRES = 2**32 - 1
"""RFC 3261 20.19."""


class Command:
    """What the application wants to be published, and the operation that waits for the answer."""

    def __init__(self, content: Content, headers: Pairs, operation: Any) -> None:
        self.content = content
        self.headers = headers
        self.operation = operation
        self.limit: Timer | None = None


class Publication(ClientUsage):
    """What we have published in one place. One PUBLISH at a time (RFC 3903 4.1), refreshed until it is removed.

    Attributes:
        user: Told PublicationChanged.
        entity_tag: Names what is published; None while nothing is.
        expires: Seconds that we ask for.
    """

    def __init__(
        self,
        engine: Engine,
        record: EndpointRecord,
        user: Any,
        *,
        event: str,
        uri: str,
        target: Any,
        expires: int = 3600,
        local_from: str | None = None,
        maximum_redirects: int = MAXIMUM_REDIRECTS,
    ) -> None:
        self.engine = engine
        self.record = record
        self.user = user
        self.entity_tag: str | None = None
        self.expires = expires
        self._event = event
        self._home = (uri, target)
        self._place = self._home  # where the entity tag is known
        self._uri, self._target = self._home  # where the request goes
        self._maximum_redirects = maximum_redirects
        self._redirections = Redirections(maximum_redirects)
        self._from = (local_from or f"<{record.owner}>;tag=") + engine.tokens.tag()
        self._call_id = engine.tokens.call_id()
        self._sequence = 0
        self._content: Content | None = None  # what was accepted last
        self._headers: Pairs = ()
        self._command: Command | None = None
        self._waiting: Command | None = None
        self._removals: list[Any] = []
        self._request: ClientRequest | None = None
        self._asked: tuple[Content | None, int] = (None, 0)
        self._is_removal = False
        self._tries = 0
        self._trouble: Exception | None = None
        self._is_refused = False
        self._not_before = 0.0  # Retry-After
        self._told: str | None = None  # the tag that the user knows
        self._is_over = True
        self._refresh: Timer | None = None
        self._end: Timer | None = None

    # ------------------------------------------------------------------ commands

    def publish(
        self, now: float, content: Content, headers: Pairs, operation: Any, timeout: float | None = None
    ) -> None:
        """Publish, or replace what is published; the operation ends with the final response, or when the time is
        over, which does not take back what was sent."""
        if self._command is not None or self._waiting is not None or self._removals:
            self._complete_one(operation, None, self._refused("is under way: wait for its answer (RFC 3903 4.1)"))
            return
        command = Command(content, headers, operation)
        if timeout is not None:
            command.limit = self.engine.timers.start(now, timeout, self._out_of_time, command, timeout)
        self._is_over = False
        if self._request is not None:  # a refresh of its own, of which the application knows nothing
            self._waiting = command
        else:
            self._publish(now, command)

    def remove(self, now: float, operation: Any) -> None:
        """Take it back, after what is under way; the operation ends with the final response, at once when nothing is
        published."""
        self._removals.append(operation)
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            self._complete(waiting, None, self._refused("was overtaken by the end of the publication"))
        if self._request is None:
            self._remove(now)

    def abandon(self, now: float, error: RealTimeException) -> None:
        """Send nothing more; what is under way fails with the error."""
        self._stop()
        request, self._request = self._request, None
        if request is not None:
            self.engine.cancel_request(now, request)
        commands = [self._command, self._waiting]
        self._command = self._waiting = self.entity_tag = None
        self._is_removal = False
        for command in commands:
            self._complete(command, None, fresh(error))
        self._complete_removals(None, fresh(error))
        self._tell_whether_over()

    def _out_of_time(self, command: Command, seconds: float) -> None:
        command.limit = None
        if command is self._waiting:
            self._waiting = None
        self._complete(
            command,
            None,
            OperationTimeoutException(
                f"PUBLISH to {self._uri} was not answered within {seconds:g} s; whether it took effect is not known."
            ),
        )

    def _refused(self, why: str) -> OperationFailureException:
        return OperationFailureException(
            f"A PUBLISH to {self._home[0]} {why}.", OperationFailureReason.INVALID_SESSION_STATE
        )

    # ------------------------------------------------------------------ PUBLISH

    def _publish(self, now: float, command: Command) -> None:
        self._command, self._headers = command, command.headers
        self._begin(now, command.content, self.expires)

    def _remove(self, now: float) -> None:
        self._stop()
        if self.entity_tag is None:
            self._complete_removals(None, None)
            self._tell_whether_over()
            return
        self._is_removal = True
        self._begin(now, None, 0)

    def _begin(self, now: float, content: Content | None, expires: int) -> None:
        """The first request for a command, refresh or removal."""
        self._tries = 1
        self._redirections = Redirections(self._maximum_redirects)
        self._uri, self._target = self._place
        self._send(now, content, expires)

    def _send(self, now: float, content: Content | None, expires: int) -> None:
        """Without a body it is a refresh, or with 0 the removal, of what the entity tag names (RFC 3903 4.1)."""
        self._asked = (content, expires)
        self._redirections.trying(self._uri)
        self._sequence += 1
        pairs = [
            ("Max-Forwards", "70"),
            ("From", self._from),
            ("To", f"<{self._home[0]}>"),
            ("Call-ID", self._call_id),
            ("CSeq", f"{self._sequence} PUBLISH"),
            ("User-Agent", self.record.endpoint.user_agent),
            ("Event", self._event),
            ("Expires", str(expires)),
            *self._headers,
        ]
        if self.entity_tag is not None:
            pairs.append(("SIP-If-Match", self.entity_tag))
        if content is not None:
            pairs.append(("Content-Type", content.content_type))
        request = Request("PUBLISH", self._uri, pairs, b"" if content is None else content.body)
        self._request = self.engine.send_request(now, request, self._target, None, usage=self, record=self.record)

    def _refresh_now(self) -> None:
        self._refresh = None
        if self._request is None:
            content = None if self.entity_tag is not None else self._content
            self._begin(self.engine.now, content, self.expires)

    def responded(self, now: float, client_request: ClientRequest, response: Response) -> None:
        code = response.status_code
        if code < 200 or client_request is not self._request:
            return
        self._request = None
        self._sequence = client_request.request.cseq.number
        if code >= 300 and self._try_again(now, response):
            return
        if code < 300:
            self._is_refused = False
            self._accepted(now, response)
        else:
            seconds = retry_after(response)
            self._is_refused = seconds is None
            self._not_before = now + (seconds or 0)
            trouble = OperationFailureException(f"The PUBLISH to {self._uri} was answered {code}.")
            self._lost(now, self._is_removal or code == 412, trouble)
        self._finish(now, response, None)

    def _try_again(self, now: float, response: Response) -> bool:
        """It is gone, so publish it anew; it is too short, so for longer (RFC 3903 4.1); or it is to go elsewhere."""
        content = self._content if self._command is None else self._command.content
        if not self._is_removal and content is not None and self._tries < MAXIMUM_TRIES:
            least = number(response.headers.get("Min-Expires"))
            is_gone = response.status_code == 412 and self.entity_tag is not None
            is_short = response.status_code == 423 and least is not None and self.expires < least <= LONGEST_EXPIRES
            if is_gone:
                self.entity_tag = None
            elif is_short and least is not None:
                self.expires = least
            if is_gone or is_short:
                self._tries += 1
                self._send(now, content, self.expires)
                return True
        if self._redirections.learn(response):
            self._follow(now)
            return True
        return False

    def _follow(self, now: float) -> None:
        """RFC 3261 8.1.3.4."""
        self._uri = self._redirections.remaining[0]
        self._target = redirected_target(self.record, self._uri, is_secure(self._home[0]))
        self._send(now, *self._asked)

    def failed(self, now: float, client_request: ClientRequest, error: RealTimeException) -> None:
        if client_request is not self._request:
            return
        self._request = None
        self._sequence = client_request.request.cseq.number
        if self._redirections.survive(error):
            self._follow(now)
            return
        self._is_refused = False
        self._lost(now, self._is_removal, error)
        self._finish(now, None, error)

    def _accepted(self, now: float, response: Response) -> None:
        tag = (response.headers.get("SIP-ETag") or "").strip() or None
        self.entity_tag = None if self._is_removal else tag
        if self._command is not None:
            self._content = self._command.content
        self._place = self._home if self.entity_tag is None else (self._uri, self._target)
        self._trouble = None
        self._stop()
        granted = expires_of(response)
        seconds = max(1, self.expires if granted is None else min(granted, self.expires))
        if self.entity_tag is not None:
            timers = self.engine.timers
            self._refresh = timers.start(now, seconds - min(60.0, seconds / 2), self._refresh_now)
            self._end = timers.start(now, float(seconds), self._ran_out)
        if self.entity_tag != self._told:
            self._told = self.entity_tag
            self._tell(PublicationChanged(self.entity_tag is not None, self.entity_tag, None))

    def _lost(self, now: float, gone: bool, trouble: Exception) -> None:
        """Refused, or no way there. What was published before stays until it runs out, and is tried again."""
        self._trouble = trouble
        if self.entity_tag is None and self._told is None:
            self._place = self._home
            if self._command is None:
                self._keep_trying(now)
        elif gone or self._end is None or self.entity_tag is None:
            self._gone(now)
        else:
            self._refresh_after(now, min(RETRY_DELAY, self.expires / 4))

    def _ran_out(self) -> None:
        """No refresh got through in all the time."""
        self._end = None
        if self._request is None:
            self._gone(self.engine.now)
            self._tell_whether_over()

    def _gone(self, now: float) -> None:
        self._stop()
        self.entity_tag = self._told = None
        self._place = self._home
        self._tell(PublicationChanged(False, None, None if self._is_removal else self._trouble))
        self._keep_trying(now)

    def _keep_trying(self, now: float) -> None:
        """Publish it anew once there is a way again; what was refused is not tried any more."""
        if not self._is_removal and not self._is_refused:
            self._refresh_after(now, RETRY_DELAY)

    def _refresh_after(self, now: float, seconds: float) -> None:
        timers = self.engine.timers
        timers.cancel(self._refresh)
        self._refresh = timers.start(now, max(seconds, self._not_before - now), self._refresh_now)

    # ------------------------------------------------------------------ the end of a request

    def _finish(self, now: float, response: Response | None, error: Exception | None) -> None:
        """Tell whoever waits for it, and go on with what waits."""
        was_removal, self._is_removal = self._is_removal, False
        command, self._command = self._command, None
        self._complete(command, response, error)
        if was_removal:
            self._complete_removals(response, error)
        elif self._removals:
            self._remove(now)
        elif self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            self._publish(now, waiting)
        self._tell_whether_over()

    def _tell_whether_over(self) -> None:
        is_idle = self.entity_tag is None and self._request is None and self._refresh is None
        if is_idle and not self._is_over:
            self._is_over = True
            self._tell(PublicationOver())

    def _stop(self) -> None:
        for timer in (self._refresh, self._end):
            self.engine.timers.cancel(timer)
        self._refresh = self._end = None

    def _tell(self, event: Any) -> None:
        self.engine.effects.append(Tell(self, event))

    def _complete(self, command: Command | None, response: Response | None, error: Exception | None) -> None:
        if command is not None:
            self.engine.timers.cancel(command.limit)
            operation, command.operation = command.operation, None
            self._complete_one(operation, response, error)

    def _complete_removals(self, response: Response | None, error: Exception | None) -> None:
        removals, self._removals = self._removals, []
        for operation in removals:
            self._complete_one(operation, response, error)

    def _complete_one(self, operation: Any, response: Response | None, error: Exception | None) -> None:
        if operation is not None:
            self.engine.effects.append(Complete(operation, response, error))
