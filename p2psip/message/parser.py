"""From octets to a message: the form of the start line and of the header fields, nothing more."""

from __future__ import annotations

import re

from p2psip.config import ManagerSettings
from p2psip.errors import MessageParsingException, limited
from p2psip.message.builders import create_response, stateless_tag
from p2psip.message.grammar import Remembered, excerpt, is_token, quoted_end
from p2psip.message.headers import Headers, line_value
from p2psip.message.message import REQUEST_URI, Request, Response
from p2psip.message.names import KEYS, canonical_name, field_key

_VERSION = re.compile(r"[Ss][Ii][Pp]/[0-9]+\.[0-9]+")
_CONTROLS = re.compile(r"[\0-\x08\x0a-\x1f\x7f]")
_QUOTED_PAIR = re.compile(r"\\[^\r\n]")
_HARMLESS = bytes(octet for octet in range(256) if (octet >= 32 and octet != 127) or octet == 9)


class Limits:
    """What a message may be at most: octets of its parts, header fields, and values in Via, Route and Record-Route."""

    __slots__ = ("body", "head", "header", "headers", "start_line", "usual", "values")

    def __init__(self, *, start_line: int, header: int, head: int, headers: int, values: int, body: int) -> None:
        self.start_line = start_line
        self.header = header
        self.head = head
        self.headers = headers
        self.values = values
        self.body = body
        self.usual = min(start_line, header, head)
        """A shorter head with few lines and commas can break no limit, and is not compared with them."""

    @classmethod
    def of(cls, settings: ManagerSettings) -> Limits:
        return cls(
            start_line=settings.maximum_start_line,
            header=settings.maximum_header,
            head=settings.maximum_head,
            headers=settings.maximum_headers,
            values=settings.maximum_values,
            body=settings.maximum_body,
        )


DEFAULT_LIMITS = Limits.of(ManagerSettings())


def parse_message(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Request | Response:
    """Exactly one message, as a datagram carries it.

    CRLFs before it are skipped. The body is cut at Content-Length, or is all that is left when there is none
    (RFC 3261 18.3). Only form is looked at; see ``validate()`` of the result for the rest.

    Raises:
        MessageParsingException: It is no SIP message. ``answer`` is set when it is a request that can be answered.
    """
    start = 0
    while data.startswith(b"\r\n", start):
        start += 2
    end = data.find(b"\r\n\r\n", start)
    if end < 0:
        raise MessageParsingException("The message has no empty line after its header fields.")
    head = Head(data[start:end], limits)
    body = end + 4
    available = len(data) - body
    try:
        error = head.error or head.framing_error
        if error is not None:
            raise error
        length = head.body_length
        if length is None:
            length = available
        elif length > available:
            raise MessageParsingException(
                f"Content-Length is {length}, but only {available} octets follow the header fields."
            )
        check_body(length, limits)
        return head.message(data[start : body + length])
    except MessageParsingException as failure:
        head.prepare_answer(failure)
        raise


def check_body(length: int, limits: Limits) -> None:
    if length > limits.body:
        sentence = f"The body of {length} octets is above the limit of {limits.body}."
        raise limited("maximum_body", MessageParsingException(sentence, status_code=413))


def read_ordinary(octets: bytes, limits: Limits) -> tuple[Request | Response, int] | None:
    """What nearly every head is: a message that lacks only its octets, and the length of its body.

    None for a head with anything that has to be looked at more closely; ``Head`` does that, and comes to the same
    result for any that passes here (a test).
    """
    lines = octets.decode("utf-8", "surrogateescape").split("\r\n")
    start_line = lines.pop(0)
    first: dict[str, str] = {}
    try:
        for line in lines:
            name, _ = line.split(":", 1)
            first[KEYS[name]] = line
    except (KeyError, ValueError):
        pass  # a name that is not known, or none; and so one is missing
    try:
        if len(first) != len(lines):
            first = _first_lines(lines, limits)
        length = _LENGTHS[first["content-length"]]
        message = _message_of(start_line)
    except (KeyError, MessageParsingException):
        return None
    # Without what is harmless, the line ends are left, and whatever else should not be there.
    if length is None or length > limits.body or len(octets.translate(None, _HARMLESS)) != 2 * len(lines):
        return None
    headers = message.headers = Headers.__new__(Headers)  # of_lines, but this is done for each message
    headers._lines = lines
    headers._first = first
    headers._views = {}
    headers._changed = False
    size = len(octets)
    message._head_length = size + 4
    is_usual = size < limits.usual and len(lines) <= limits.headers and octets.count(b",") + len(lines) <= limits.values
    if not is_usual and any(_broken(start_line, headers, octets, limits)):
        return None
    return (message, length)


def _length_of(line: str) -> int | None:
    """What a line of Content-Length says; None for anything but one number of at most 10 digits."""
    value = line_value(line)
    return int(value) if len(value) <= 10 and value.isdigit() and value.isascii() else None


_LENGTHS = Remembered(_length_of)


def _first_lines(lines: list[str], limits: Limits) -> dict[str, str]:
    """The key of each field and its first line, where some are unknown or come again.

    Nothing when there are too many, a line is no header field of its own, or Content-Length comes twice.
    """
    first: dict[str, str] = {}
    if len(lines) > limits.headers:
        return first
    for line in lines:
        name, colon, _ = line.partition(":")
        key = KEYS.get(name) or field_key(name)
        if not colon or not key or (key == "content-length" and key in first):
            return {}
        first.setdefault(key, line)
    return first


def _broken(
    start_line: str, headers: Headers, octets: bytes, limits: Limits
) -> tuple[MessageParsingException | None, MessageParsingException | None]:
    """Which limits the head breaks: one after which the end of the message is not waited for, and one of the others."""
    fatal = error = None
    if len(start_line) > limits.start_line:
        sentence = f"The start line is longer than {limits.start_line} octets."
        fatal = limited("maximum_start_line", MessageParsingException(sentence, line_number=1, status_code=414))
    elif len(octets) > limits.head:
        sentence = f"The header fields are longer than {limits.head} octets."
        fatal = limited("maximum_head", MessageParsingException(sentence))
    longest = max(map(len, headers._lines), default=0)
    if len(headers) > limits.headers:
        sentence = f"There are {len(headers)} header fields, more than {limits.headers}."
        error = limited("maximum_headers", MessageParsingException(sentence))
    elif longest > limits.header:
        sentence = f"A header field of {longest} is longer than {limits.header}."
        error = limited("maximum_header", MessageParsingException(sentence))
    else:
        for key in ("via", "route", "record-route"):
            count = sum(line.count(",") + 1 for line in headers._lines_of(key))
            if count > limits.values:
                sentence = f"There are {count} values in {canonical_name(key)}, more than {limits.values}."
                error = limited("maximum_values", MessageParsingException(sentence))
    return (fatal, error)


class Head:
    """A start line and header fields, taken apart with all care.

    Attributes:
        error: What is wrong with them; None if nothing is.
        framing_error: Why the end of the message cannot be told or waited for; None if it can.
        length: Octets, with the empty line.
        body_length: What Content-Length says; None when there is none.
    """

    __slots__ = ("_headers", "_start_line", "body_length", "error", "framing_error", "length")

    def __init__(self, octets: bytes, limits: Limits) -> None:
        self.error: MessageParsingException | None = None
        self.framing_error: MessageParsingException | None = None
        self.body_length: int | None = None
        self.length = len(octets) + 4
        lines = octets.decode("utf-8", "surrogateescape").split("\r\n")
        self._start_line = lines.pop(0)
        self._headers = Headers.of_lines(self._fields(lines))
        self._read_content_length()
        if len(octets.translate(None, _HARMLESS)) != 2 * len(lines):
            self._check_controls()
        broken, error = _broken(self._start_line, self._headers, octets, limits)
        self.framing_error = broken or self.framing_error
        self.error = self.error or error

    def _fields(self, lines: list[str]) -> list[str]:
        """One line for each header field: unfolded, and without the lines that are no header fields."""
        fields: list[list[str]] = []  # each a line and those that continue it
        continuable = False
        for number, line in enumerate(lines, 2):
            if line[:1] in (" ", "\t"):
                if continuable:
                    fields[-1].append(line.strip(" \t"))
                else:
                    self._fail(f"Line {number}, {excerpt(line)}, continues nothing.", number)
                continue
            name, colon, _ = line.partition(":")
            continuable = colon != "" and field_key(name.rstrip(" \t")) != ""
            if continuable:
                fields.append([line])
            else:
                self._fail(f"Line {number}, {excerpt(line)}, is not a header field: name, colon, value.", number)
        return [line if not more else " ".join([line.rstrip(" \t"), *more]) for line, *more in fields]

    def _check_controls(self) -> None:
        """Control characters may stand in quoted-pairs only, CR and LF not even there (RFC 3261 25.1)."""
        for line in (self._start_line, *self._headers._lines):
            if _CONTROLS.search(line) is not None and _CONTROLS.search(_without_quoted_pairs(line)) is not None:
                self._fail(f"There is a control character in {excerpt(line)}.")
                return

    def _fail(self, what: str, line_number: int = -1) -> None:
        """Keep the first error and go on: the length of the message is still to be found."""
        if self.error is None:
            self.error = MessageParsingException(what, line_number=line_number)

    @property
    def is_ambiguous(self) -> bool:
        """A CR or LF stands alone, so that others may see other header fields here."""
        return any("\r" in line or "\n" in line for line in (self._start_line, *self._headers._lines))

    def _read_content_length(self) -> None:
        lines = self._headers._lines_of("content-length")
        if len(lines) > 1:
            self.framing_error = MessageParsingException("Content-Length comes more than once.")
        for line in lines:
            length = _LENGTHS[line]
            if length is not None:
                self.body_length = length
            else:
                self.framing_error = MessageParsingException(
                    f"{excerpt(line_value(line))} is not a Content-Length: one number of at most 10 digits."
                )

    def message(self, raw: bytes) -> Request | Response:
        """The message whose head this is; ``raw`` is all of it.

        Raises:
            MessageParsingException: The start line is no start line.
        """
        message = _message_of(self._start_line)
        message.headers = self._headers
        message._raw = raw
        message._head_length = self.length
        return message

    def prepare_answer(self, error: MessageParsingException) -> None:
        """Put into the error what is to be answered: a response to a request whose dialog headers are clean.

        Responses and ACKs are never answered (RFC 3261 8.1.3, 17).
        """
        method, _, rest = self._start_line.partition(" ")
        if method[:4].upper() == "SIP/" or method == "ACK":
            error.status_code = None
        if error.status_code is None or not is_token(method) or not rest.upper().rstrip().endswith("SIP/2.0"):
            return
        request = Request(method, "sip:unknown")
        request.headers = self._headers
        try:
            request._validate_dialog_headers()
        except MessageParsingException:
            return
        tag = stateless_tag(self._start_line, self._headers)
        error.answer = create_response(request, error.status_code, to_tag=tag)


def _message_of(start_line: str) -> Request | Response:
    """A message with nothing but its start line."""
    first, second, third = _START_LINES[start_line]
    if isinstance(second, int):
        response = Response.__new__(Response)
        response.sip_version = first
        response.status_code = second
        response.reason = third
        return response
    request = Request.__new__(Request)
    request.method = first
    request.uri = second
    request.sip_version = third
    return request


def _parse_start_line(line: str) -> tuple[str, str | int, str]:
    """Method, URI and version, or version, status code and reason."""
    first, _, rest = line.partition(" ")
    if "/" in first:
        # RFC 3261 25.1 demands the space after the code; some leave it out where no reason follows.
        code, _, reason = rest.partition(" ")
        if len(code) == 3 and code.isdigit() and code.isascii() and _VERSION.fullmatch(first):
            return (first, int(code), reason)
    else:
        uri, _, version = rest.partition(" ")
        if is_token(first) and REQUEST_URI.fullmatch(uri) and _VERSION.fullmatch(version):
            return (first, uri, version)
    raise MessageParsingException(f"{excerpt(line)} is neither a request line nor a status line.", line_number=1)


_START_LINES = Remembered(_parse_start_line)


def _without_quoted_pairs(line: str) -> str:
    """The line without the quoted-pairs that stand in its quoted-strings."""
    kept = []
    start = 0
    while (quote := line.find('"', start)) >= 0:
        end = quoted_end(line, quote)
        if end < 0:
            break
        kept += [line[start:quote], _QUOTED_PAIR.sub("", line[quote:end])]
        start = end
    return "".join([*kept, line[start:]])
