"""From a stream of octets to messages: Content-Length, and nothing but Content-Length, says where one ends."""

from __future__ import annotations

from p2psip.errors import MessageParsingException
from p2psip.message.message import Malformed, Request, Response
from p2psip.message.parser import DEFAULT_LIMITS, Head, Limits, check_body


class Ping:
    """A double CRLF between messages: a keep-alive that wants a Pong (RFC 5626 4.4.1)."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "PING"


class Pong:
    """A single CRLF between messages: the answer to a Ping, or nothing at all (RFC 5626 4.4.1)."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "PONG"


PING = Ping()
PONG = Pong()

Framed = Request | Response | Malformed | Ping | Pong


class StreamFramer:
    """Cuts one stream into messages.

    Framing that is lost stays lost: nothing is looked for behind an error (RFC 3261 18.3).

    Attributes:
        error: Why framing was lost; None while it is not. ``error.answer`` is the response to write before the
            connection is closed, where one can be made.
    """

    __slots__ = ("_buffer", "_half_ping", "_head", "_limits", "_needed", "_searched", "error")

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._buffer = bytearray()
        self._searched = 0  # the end of the head is not before this
        self._needed = 0  # octets of the message whose head is known
        self._head: Head | None = None
        self._half_ping = False  # a single CRLF came, and nothing since
        self.error: MessageParsingException | None = None

    @property
    def in_message(self) -> bool:
        """A message has begun and is not complete."""
        return bool(self._buffer) and self._buffer != b"\r"

    def close(self) -> bool:
        """The stream has ended. Says whether a message was cut off."""
        cut_off = self.in_message
        self._buffer.clear()
        return cut_off

    def feed(self, data: bytes) -> list[Framed]:
        """What is complete now, in order. How the stream is cut into pieces makes no difference to messages.

        Two CRLFs that come in different pieces are a Pong, and then a Ping: the first cannot wait for the second.

        Raises:
            MessageParsingException: Framing was lost at once or by an earlier call. When messages came before the
                error in this piece they are returned, and ``error`` is set.
        """
        if self.error is not None:
            raise self.error
        buffer = self._buffer
        if buffer:
            buffer += data
            if len(buffer) < self._needed:
                return []
            if self._head is None and not buffer.startswith(b"\r\n"):
                found = buffer.find(b"\r\n\r\n", self._searched)
                if found < 0 and len(buffer) <= self._limits.head + 3:
                    self._searched = max(0, len(buffer) - 3)
                    return []
            data = bytes(buffer)
            buffer.clear()
        framed: list[Framed] = []
        try:
            self._cut(data, framed)
        except MessageParsingException as error:
            self.error = error
            self._head = None
            if not framed:
                raise
        return framed

    def _cut(self, data: bytes, framed: list[Framed]) -> None:
        start, size = 0, len(data)
        head, needed = self._head, self._needed
        while start < size:
            if head is None:
                if data[start] == 13 and data.startswith(b"\r\n", start):
                    if self._half_ping:
                        framed.append(PING)
                        start += 2
                    elif data.startswith(b"\r\n\r\n", start):
                        framed.append(PING)
                        start += 4
                        continue
                    else:
                        framed.append(PONG)
                        start += 2
                    self._half_ping = not self._half_ping
                    continue
                end = data.find(b"\r\n\r\n", start + self._searched)
                self._searched = 0
                if end < 0:
                    self._wait_for_head(data[start:])
                    return
                self._half_ping = False
                head = Head(data[start:end], self._limits)
                needed = head.length + (head.body_length or 0)
                if head.body_length is None or head.error or head.framing_error or needed > self._limits.body:
                    self._check(head)
            if start + needed > size:
                self._head, self._needed = head, needed
                self._buffer += data[start:]
                return
            raw = data[start : start + needed]
            start += needed
            try:
                if head.error is not None:
                    raise head.error
                framed.append(head.message(raw))
            except MessageParsingException as error:
                head.prepare_answer(error)
                framed.append(Malformed(raw, error))
            head = None
        self._head, self._needed = None, 0

    def _wait_for_head(self, data: bytes) -> None:
        limits = self._limits
        if len(data) > limits.head + 3:
            raise MessageParsingException(f"The header fields do not end within {limits.head} octets.")
        self._head, self._needed = None, 0
        self._buffer += data
        self._searched = max(0, len(data) - 3)

    def _check(self, head: Head) -> None:
        """Raises when the length of the message cannot be told or trusted, or is too much."""
        limits = self._limits
        try:
            if head.framing_error is not None:
                raise head.framing_error
            if head.error is not None and head.is_ambiguous:
                raise head.error
            if head.body_length is None:
                raise MessageParsingException("On a stream a message must have a Content-Length (RFC 3261 18.3).")
            check_body(head.body_length, limits)
        except MessageParsingException as error:
            head.prepare_answer(error)
            raise
