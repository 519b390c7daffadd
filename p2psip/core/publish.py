"""The publisher's side of event state: PUBLISH with entity tags (RFC 3903)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from p2psip.core.dialog import Content, Pairs
from p2psip.core.effects import Complete, Tell
from p2psip.core.event_headers import expires_of, number
from p2psip.core.events import PublicationChanged
from p2psip.core.usage import ClientUsage
from p2psip.errors import OperationFailureException, OperationFailureReason, RealTimeException, fresh
from p2psip.message import Request, Response
from p2psip.timers import Timer

if TYPE_CHECKING:
    from p2psip.core.directory import EndpointRecord
    from p2psip.core.engine import Engine
    from p2psip.core.request import ClientRequest

RETRY_DELAY = 30.0
"""Seconds after a refresh that failed, at most."""


class Publication(ClientUsage):
    """What we have published in one place. One PUBLISH at a time; it refreshes itself until it is removed.

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
    ) -> None:
        self.engine = engine
        self.record = record
        self.user = user
        self.entity_tag: str | None = None
        self.expires = expires
        self._event, self._uri, self._target = event, uri, target
        self._from = (local_from or f"<{record.owner}>;tag=") + engine.tokens.tag()
        self._call_id = engine.tokens.call_id()
        self._sequence = 0
        self._content: Content | None = None
        self._headers: Pairs = ()
        self._operation: Any = None
        self._request: ClientRequest | None = None
        self._is_removal = False
        self._tries = 0
        self._refresh: Timer | None = None

    def publish(self, now: float, content: Content, headers: Pairs, operation: Any) -> None:
        """Publish, or replace what is published; the operation ends with the final response."""
        if self._refused(operation):
            return
        self._content, self._headers, self._operation, self._tries = content, headers, operation, 0
        self._send(now, content, self.expires)

    def remove(self, now: float, operation: Any) -> None:
        """Take it back; the operation ends with the final response, at once when nothing is published."""
        if self._refused(operation):
            return
        self._stop()
        if self.entity_tag is None:
            self._complete_one(operation, None, None)
            return
        self._operation, self._is_removal = operation, True
        self._send(now, None, 0)

    def abandon(self, now: float, error: RealTimeException) -> None:
        """Send nothing more; a PUBLISH that is under way fails with the error."""
        self._stop()
        request, self._request = self._request, None
        if request is not None:
            self.engine.cancel_request(now, request)
        self._complete(None, fresh(error))

    def _refused(self, operation: Any) -> bool:
        if self._request is None:
            return False
        error = OperationFailureException(
            f"A PUBLISH to {self._uri} is under way: wait for its answer (RFC 3903 4.1).",
            OperationFailureReason.INVALID_SESSION_STATE,
        )
        self._complete_one(operation, None, error)
        return True

    def _send(self, now: float, content: Content | None, expires: int) -> None:
        """Without a body it is a refresh, or with 0 the removal, of what the entity tag names (RFC 3903 4.1)."""
        self._sequence += 1
        self._tries += 1
        pairs = [
            ("Max-Forwards", "70"),
            ("From", self._from),
            ("To", f"<{self._uri}>"),
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
        self._request = self.engine.send_request(now, request, self._target, None, usage=self)

    def _refresh_now(self) -> None:
        self._refresh = None
        if self._request is None:
            self._tries = 0
            self._send(self.engine.now, None, self.expires)

    def responded(self, now: float, client_request: ClientRequest, response: Response) -> None:
        code = response.status_code
        if code < 200 or client_request is not self._request:
            return
        self._request = None
        removal, self._is_removal = self._is_removal, False
        if code < 300:
            self._accepted(now, response, removal)
        elif code == 412 and not removal and self._content is not None and self._tries < 3:
            # RFC 3903 4.1: what we had published is gone; publish it anew.
            self.entity_tag = None
            self._send(now, self._content, self.expires)
            return
        elif code == 423 and self._tries < 3 and (least := number(response.headers.get("Min-Expires"))):
            self.expires = max(self.expires, least)
            self._send(now, self._content, self.expires)
            return
        else:
            was_ours = self._operation is not None
            self._lost(now, removal or code == 412, None if was_ours else response)
        self._complete(response, None)

    def _accepted(self, now: float, response: Response, removal: bool) -> None:
        tag = (response.headers.get("SIP-ETag") or "").strip() or None
        before = self.entity_tag
        self.entity_tag = None if removal else tag
        self._stop()
        granted = expires_of(response)
        seconds = self.expires if granted is None else granted
        if self.entity_tag is not None and seconds > 0:
            self._refresh = self.engine.timers.start(now, seconds - min(60.0, seconds / 2), self._refresh_now)
        if self.entity_tag != before:
            self._tell(PublicationChanged(self.entity_tag is not None, self.entity_tag, None))

    def _lost(self, now: float, gone: bool, response: Response | None) -> None:
        """Refused. What was published before stays until it runs out, and is tried again."""
        if gone and self.entity_tag is not None:
            self.entity_tag = None
            self._tell(PublicationChanged(False, None, None))
        elif self.entity_tag is not None:
            self._stop()
            self._refresh = self.engine.timers.start(now, min(RETRY_DELAY, self.expires / 4), self._refresh_now)

    def failed(self, now: float, client_request: ClientRequest, error: RealTimeException) -> None:
        if client_request is not self._request:
            return
        self._request = None
        removal, self._is_removal = self._is_removal, False
        self._lost(now, removal, None)
        self._complete(None, error)

    def _stop(self) -> None:
        self.engine.timers.cancel(self._refresh)
        self._refresh = None

    def _tell(self, event: Any) -> None:
        self.engine.effects.append(Tell(self, event))

    def _complete(self, response: Response | None, error: Exception | None) -> None:
        operation, self._operation = self._operation, None
        self._complete_one(operation, response, error)

    def _complete_one(self, operation: Any, response: Response | None, error: Exception | None) -> None:
        if operation is not None:
            self.engine.effects.append(Complete(operation, response, error))
