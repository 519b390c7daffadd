"""From octets to a message: the form of the start line and of the header fields, nothing more."""

from __future__ import annotations

import hashlib
import re

from p2psip.config import ManagerSettings
from p2psip.errors import MessageParsingException
from p2psip.message.builders import create_response
from p2psip.message.grammar import excerpt, is_token, quoted_end
from p2psip.message.headers import Field, Headers
from p2psip.message.message import Request, Response
from p2psip.message.names import KEYS, field_key

_VERSION = re.compile(r"SIP/[0-9]+\.[0-9]+", re.IGNORECASE)
_CONTROLS = re.compile(r"[\0-\x08\x0a-\x1f\x7f]")
_NOT_CONTROLS = bytes(octet for octet in range(256) if (octet >= 32 and octet != 127) or octet == 9)
_LINE_END = b"\r\n"


class Limits:
    """What a message may be at most: octets, and counts of headers and values."""

    __slots__ = ("body", "head", "header", "headers", "start_line", "values")

    def __init__(self, *, start_line: int, header: int, head: int, headers: int, values: int, body: int) -> None:
        self.start_line = start_line
        self.header = header
        self.head = head
        self.headers = headers
        self.values = values
        self.body = body

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
    while data.startswith(_LINE_END, start):
        start += 2
    end = data.find(b"\r\n\r\n", start)
    if end < 0:
        raise MessageParsingException("The message has no empty line after its header fields.")
    head = Head(data[start:end], limits)
    try:
        if head.error is not None:
            raise head.error
        length = head.content_length()
        body = end + 4
        if length is None:
            length = len(data) - body
        elif length > len(data) - body:
            raise MessageParsingException(
                f"Content-Length is {length}, but only {len(data) - body} octets follow the header fields."
            )
        if length > limits.body:
            raise too_large(length, limits)
    except MessageParsingException as error:
        error.answer = head.answer(error)
        raise
    return head.message(data[start : body + length])


def too_large(length: int, limits: Limits) -> MessageParsingException:
    return MessageParsingException(f"The body of {length} octets is above the limit of {limits.body}.", status_code=413)


class Head:
    """A start line and header fields, taken apart. ``error`` says what is wrong with them, None if nothing is."""

    __slots__ = ("_fields", "_first", "_keys", "error", "length", "text")

    def __init__(self, head: bytes, limits: Limits) -> None:
        self.error: MessageParsingException | None = None
        self.length = len(head) + 4
        text = self.text = head.decode("utf-8", "surrogateescape")
        lines = text.split("\r\n")
        self._first = lines[0]
        del lines[0]
        fields = self._fields = [line.partition(":") for line in lines]
        try:
            keys = self._keys = [KEYS[field[0]] for field in fields]
        except KeyError:
            self._read_unusual(lines)
            keys = self._keys
        if self.length > limits.header or len(keys) > limits.headers or self.length > limits.start_line:
            self._check_limits(lines, limits)
        if head.translate(None, _NOT_CONTROLS) != _LINE_END * len(lines):
            self._check_controls()

    def _read_unusual(self, lines: list[str]) -> None:
        """Folded lines, names that are not in the table, and lines that are no header fields."""
        keys: list[str] = []
        fields: list[Field] = []
        folds: dict[int, list[str]] = {}
        good = False
        for number, line in enumerate(lines, 2):
            if line[:1] in (" ", "\t"):
                if good:
                    folds.setdefault(len(fields) - 1, []).append(line.strip(" \t"))
                    continue
                self._fail("continues nothing", line, number)
                continue
            name, colon, value = line.partition(":")
            name = name.rstrip(" \t")
            key = field_key(name) if colon else ""
            good = key != ""
            if good:
                keys.append(key)
                fields.append((name, colon, value))
            else:
                self._fail("is not a header field: a name, a colon and a value", line, number)
        for position, parts in folds.items():
            name, colon, value = fields[position]
            fields[position] = (name, colon, " ".join([value.rstrip(" \t"), *parts]))
        self._keys = keys
        self._fields = fields

    def _check_limits(self, lines: list[str], limits: Limits) -> None:
        if len(self._first) > limits.start_line:
            self._set_error(
                MessageParsingException(f"The start line is longer than {limits.start_line}.", status_code=414)
            )
        if len(lines) > limits.headers:
            self._set_error(MessageParsingException(f"There are more than {limits.headers} header fields."))
        if any(len(line) > limits.header for line in lines) or any(len(f[2]) > limits.header for f in self._fields):
            self._set_error(MessageParsingException(f"A header field is longer than {limits.header}."))
        for key in ("via", "route", "record-route"):
            count = sum(f[2].count(",") + 1 for k, f in zip(self._keys, self._fields, strict=True) if k == key)
            if count > limits.values:
                Headers._of(self._keys, self._fields)
                self._set_error(MessageParsingException(f"There are more than {limits.values} values in {key}."))

    def _check_controls(self) -> None:
        """Controls are allowed as quoted-pairs only, CR and LF not even there."""
        for line in (self._first, *map("".join, self._fields)):
            if _CONTROLS.search(line) is None:
                continue
            rest, start = "", 0
            while (quote := line.find('"', start)) >= 0:
                end = quoted_end(line, quote)
                if end < 0:
                    break
                rest += line[start:quote] + re.sub(r"\\[^\r\n]", "", line[quote:end])
                start = end
            if _CONTROLS.search(rest + line[start:]) is not None:
                self._set_error(MessageParsingException(f"There is a control character in {excerpt(line)}."))

    def _fail(self, what: str, line: str, number: int) -> None:
        self._set_error(MessageParsingException(f"Line {number}, {excerpt(line)}, {what}.", line_number=number))

    def _set_error(self, error: MessageParsingException) -> None:
        if self.error is None:
            self.error = error

    @property
    def is_ambiguous(self) -> bool:
        """A CR or LF stands alone: others may see other lines here."""
        return "\r" in self.text.replace("\r\n", "") or "\n" in self.text.replace("\r\n", "")

    def content_length(self) -> int | None:
        """What Content-Length says.

        Raises:
            MessageParsingException: It comes twice, or is not 1 to 10 digits.
        """
        keys = self._keys
        if "content-length" not in keys:
            return None
        position = keys.index("content-length")
        text = self._fields[position][2].strip(" \t")
        if len(text) <= 10 and text.isdigit() and text.isascii() and keys.count("content-length") == 1:
            return int(text)
        if keys.count("content-length") > 1:
            raise MessageParsingException("Content-Length comes more than once.")
        raise MessageParsingException(f"{excerpt(text)} is not a Content-Length: one number of at most 10 digits.")

    def message(self, raw: bytes) -> Request | Response:
        """The message whose head this is; ``raw`` is all of it.

        Raises:
            MessageParsingException: The start line is no start line.
        """
        message: Request | Response
        first, _, rest = self._first.partition(" ")
        if first == "SIP/2.0" or first[:4].upper() == "SIP/":
            code, space, reason = rest.partition(" ")
            if not (len(code) == 3 and code.isdigit() and code.isascii() and space and _VERSION.fullmatch(first)):
                raise self._bad_start_line()
            response = message = Response.__new__(Response)
            response.sip_version = first
            response.status_code = int(code)
            response.reason = reason
        else:
            uri, _, version = rest.partition(" ")
            if not (
                (is_token(first))
                and (version == "SIP/2.0" or _VERSION.fullmatch(version))
                and uri
                and uri.isascii()
                and "<" not in uri
                and ">" not in uri
                and '"' not in uri
            ):
                raise self._bad_start_line()
            request = message = Request.__new__(Request)
            request.sip_version = version
            request.method = first
            request.uri = uri
        message.headers = Headers._of(self._keys, self._fields)
        message._raw = raw
        message._head_length = self.length
        return message

    def _bad_start_line(self) -> MessageParsingException:
        return MessageParsingException(
            f"{excerpt(self._first)} is neither a request line nor a status line.", line_number=1
        )

    def answer(self, error: MessageParsingException) -> Response | None:
        """A response to the request whose head this is, if its dialog headers are clean (RFC 3261 18.3)."""
        first, _, rest = self._first.partition(" ")
        if (
            error.status_code is None
            or not is_token(first)
            or first == "ACK"
            or not rest.upper().rstrip().endswith("SIP/2.0")
        ):
            return None
        request = Request.__new__(Request)
        request.sip_version = "SIP/2.0"
        request.method = first
        request.uri = rest.partition(" ")[0]
        request.headers = Headers._of(self._keys, self._fields)
        request._raw = None
        request._body = b""
        try:
            request._validate_headers()
        except MessageParsingException:
            return None
        # RFC 3261 8.2.7: a stateless element gives the same tag each time.
        tag = hashlib.blake2b(self.text.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
        return create_response(request, error.status_code, to_tag=tag)
