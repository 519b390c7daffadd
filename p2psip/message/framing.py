"""From a stream of octets to messages: Content-Length, and nothing but Content-Length, says where one ends."""

from __future__ import annotations

from p2psip.errors import MessageParsingException, limited
from p2psip.message.message import Malformed, Request, Response
from p2psip.message.parser import DEFAULT_LIMITS, Head, Limits, check_body, read_ordinary


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

    __slots__ = ("_begun", "_buffer", "_half_ping", "_limits", "_needed", "_searched", "error")

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._buffer = bytearray()
        self._searched = 0  # the end of the head is not before this
        self._needed = 0  # octets of the message whose head is known
        self._begun: Request | Response | Head | None = None
        self._half_ping = False  # a single CRLF came, and nothing since
        self.error: MessageParsingException | None = None

    @property
    def in_message(self) -> bool:
        """A message has begun and is not complete."""
        return bool(self._buffer) and self._buffer != b"\r"

    @property
    def buffered(self) -> int:
        """Octets of the message that has begun."""
        return len(self._buffer)

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
        buffer, searched = self._buffer, 0
        if buffer:
            buffer += data
            if len(buffer) < self._needed:
                return []
            if self._begun is None and not buffer.startswith(b"\r\n"):
                searched = self._searched
                found = buffer.find(b"\r\n\r\n", searched)
                if found < 0 and len(buffer) <= self._limits.head + 3:
                    self._searched = max(0, len(buffer) - 3)
                    return []
            data = bytes(buffer)
            buffer.clear()
        framed: list[Framed] = []
        try:
            self._cut(data, searched, framed)
        except MessageParsingException as error:
            self.error = error
            self._begun = None
            if not framed:
                raise
        return framed

    def _cut(self, data: bytes, searched: int, framed: list[Framed]) -> None:
        """Take what is complete; the end of the first head is not before ``searched``."""
        limits = self._limits
        begun, needed = self._begun, self._needed
        start, size = 0, len(data)
        while start < size:
            if begun is None:
                if data[start] == 13 and data.startswith(b"\r\n", start):
                    start = self._keep_alive(data, start, framed)
                    continue
                end = data.find(b"\r\n\r\n", start + searched)
                searched = 0
                if end < 0:
                    self._wait_for_head(data[start:])
                    return
                self._half_ping = False
                octets = data[start:end]
                ordinary = read_ordinary(octets, limits)
                if ordinary is not None:
                    begun, needed = ordinary
                    needed += end + 4 - start
                else:
                    begun = Head(octets, limits)
                    needed = begun.length + self._body_length(begun)
            if start + needed > size:
                self._begun, self._needed = begun, needed
                self._buffer += data[start:]
                return
            raw = data[start : start + needed]
            start += needed
            if isinstance(begun, Head):
                framed.append(_message(begun, raw))
            else:
                begun._raw = raw
                framed.append(begun)
            begun = None
        if self._begun is not None:
            self._begun, self._needed = None, 0

    def _keep_alive(self, data: bytes, start: int, framed: list[Framed]) -> int:
        """Report the CRLF or double CRLF that is at ``start``, and say where it ends."""
        if self._half_ping:
            framed.append(PING)
        elif data.startswith(b"\r\n\r\n", start):
            framed.append(PING)
            return start + 4
        else:
            framed.append(PONG)
        self._half_ping = not self._half_ping
        return start + 2

    def _wait_for_head(self, data: bytes) -> None:
        limits = self._limits
        if len(data) > limits.head + 3:
            sentence = f"The header fields do not end within {limits.head} octets."
            raise limited("maximum_head", MessageParsingException(sentence))
        self._begun, self._needed = None, 0
        self._buffer += data
        self._searched = max(0, len(data) - 3)

    def _body_length(self, head: Head) -> int:
        """Raises when it cannot be told or trusted, and with it where the next message begins, or is too much."""
        try:
            if head.framing_error is not None:
                raise head.framing_error
            if head.error is not None and head.is_ambiguous:
                raise head.error
            if head.body_length is None:
                head.message(b"")  # what is no SIP at all lacks more than that
                raise MessageParsingException("On a stream a message must have a Content-Length (RFC 3261 18.3).")
            check_body(head.body_length, self._limits)
            return head.body_length
        except MessageParsingException as error:
            head.prepare_answer(error)
            raise


def _message(head: Head, raw: bytes) -> Request | Response | Malformed:
    try:
        if head.error is not None:
            raise head.error
        return head.message(raw)
    except MessageParsingException as error:
        head.prepare_answer(error)
        return Malformed(raw, error)
