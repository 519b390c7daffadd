"""Requests and responses. Every view parses when it is asked for, and not before."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from p2psip.errors import MessageParsingException
from p2psip.message.grammar import excerpt, is_call_id, is_token, parse_number, split_list
from p2psip.message.headers import Headers, check_encodable, line_key, line_value, missing
from p2psip.message.names import DIALOG_FIELDS, SINGLE_FIELDS, canonical_name
from p2psip.message.uri import MAXIMUM_URI, SipUri, parse_uri
from p2psip.message.values import KNOWN_CSEQS, KNOWN_MAX_FORWARDS, CSeq, NameAddr, Via, known_address, parse_contact

SIP_VERSION = "SIP/2.0"

_LENGTH_BEGINS = frozenset({"CO", "Co", "cO", "co", "L", "l", "L:", "l:", "L ", "l ", "L\t", "l\t"})
"""What a line of Content-Length may begin with. Few others do."""

REQUEST_URI = re.compile(r"[!#-;=?-~]+")
"""What may stand where the Request-URI stands: printable ASCII but for quotes and angle brackets."""


class Message:
    """What requests and responses share.

    Attributes:
        sip_version: As written.
        headers: The header fields, in order.
        body: The octets after the head.

    A message that was parsed is changed through ``headers`` only; to change anything else make another one.
    """

    __slots__ = ("_body", "_head_length", "_raw", "headers", "sip_version")

    headers: Headers
    sip_version: str
    _raw: bytes | None
    """What was received; None for a message that we made."""
    _head_length: int
    _body: bytes

    @property
    def body(self) -> bytes:
        return self._body if self._raw is None else self._raw[self._head_length :]

    @property
    def start_line(self) -> str:
        raise NotImplementedError

    def to_bytes(self) -> bytes:
        """The message as it goes on the wire.

        Content-Length comes last, whatever the headers say. A message that was parsed and not changed gives the
        octets that were received.
        """
        headers, raw = self.headers, self._raw
        if raw is None:
            body = self._body
        elif headers._changed:
            body = raw[self._head_length :]
        else:
            return raw
        lines = headers._lines
        for line in lines:
            if line[:2] in _LENGTH_BEGINS and line_key(line) == "content-length":
                lines = [line for line in lines if line_key(line) != "content-length"]
                break
        text = "\r\n".join([self.start_line, *lines, f"Content-Length: {len(body)}\r\n\r\n"])
        octets = text.encode("utf-8", "surrogateescape")
        return octets + body if body else octets

    # Views. Each raises MessageParsingException when the value is malformed, and only then.

    @property
    def top_via(self) -> Via:
        """The first Via value; the others are not looked at."""
        headers = self.headers
        via: Via | None = headers._views.get("via")
        if via is None:
            line = (headers._first or headers._index()).get("via")
            if line is None:
                raise missing("Via")
            one = Via.parse(split_list(line_value(line))[0]) if "," in line else Via.of(line)
            via = headers._views["via"] = one
        return via

    @property
    def top_branch(self) -> str | None:
        """The branch of the first Via value, without a look at the rest where that is possible."""
        headers = self.headers
        sender, found, rest = (headers._first or headers._index()).get("via", "").partition(";branch=")
        branch = rest.partition(";")[0]
        if found and branch.isalnum() and branch.isascii() and "," not in sender and '"' not in sender:
            return branch
        return self.top_via.branch

    @property
    def has_one_via(self) -> bool:
        """There is one Via value, and not more."""
        headers = self.headers
        first = headers._first or headers._index()
        if "via" not in first or (len(first) != len(headers._lines) and headers.count("Via") != 1):
            return False
        # A comma may stand in a quoted parameter.
        return "," not in first["via"] or len(headers.get_all("Via")) == 1

    @property
    def via(self) -> list[Via]:
        """All values of Via, top first."""
        return [Via.parse(value) for value in self.headers.get_all("Via")]

    @property
    def from_(self) -> NameAddr:
        return NameAddr._of(*self._address("from"))

    @property
    def to(self) -> NameAddr:
        return NameAddr._of(*self._address("to"))

    @property
    def from_tag(self) -> str | None:
        found = self.headers._views.get("from") or self._address("from")
        return found[1]

    @property
    def to_tag(self) -> str | None:
        found = self.headers._views.get("to") or self._address("to")
        return found[1]

    @property
    def contact(self) -> list[NameAddr] | str:
        """The values of Contact, or ``"*"``."""
        values = self.headers.get_all("Contact")
        return "*" if values == ["*"] else [parse_contact(value) for value in values]

    @property
    def route(self) -> list[NameAddr]:
        return [NameAddr.parse(value, brackets=True) for value in self.headers.get_all("Route")]

    @property
    def record_route(self) -> list[NameAddr]:
        return [NameAddr.parse(value, brackets=True) for value in self.headers.get_all("Record-Route")]

    @property
    def call_id(self) -> str | None:
        """As it stands there; None when there is none."""
        headers = self.headers
        line = (headers._first or headers._index()).get("call-id")
        return None if line is None else line.partition(":")[2].strip(" \t")

    @property
    def cseq(self) -> CSeq:
        headers = self.headers
        line = (headers._first or headers._index()).get("cseq")
        if line is None:
            raise missing("CSeq")
        return KNOWN_CSEQS[line]

    @property
    def max_forwards(self) -> int | None:
        """0 to 255 (RFC 3261 20.22); None when there is none."""
        headers = self.headers
        line = (headers._first or headers._index()).get("max-forwards")
        return None if line is None else KNOWN_MAX_FORWARDS[line]

    @property
    def expires(self) -> int | None:
        """Seconds, 0 to 2**32-1 (RFC 3261 20.19); None when there is none."""
        text = self.headers.get("Expires")
        return None if text is None else parse_number(text)

    @property
    def content_type(self) -> str | None:
        """As it stands there; None when there is none."""
        return self.headers.get("Content-Type")

    @property
    def content_length(self) -> int | None:
        """What the header says; None when there is none."""
        text = self.headers.get("Content-Length")
        return None if text is None else parse_number(text)

    def validate(self) -> None:
        """Check what RFC 3261 8.1.1 and 8.2 ask of a well-formed message before it is worked with.

        Raises:
            MessageParsingException: With ``status_code``: the answer to give, or None to drop the message, which is
                what becomes of a bad response (RFC 3261 18.1.2) and of a bad ACK.
        """
        raise NotImplementedError

    def _validate_dialog_headers(self) -> CSeq:
        """Via, From, To, Call-ID and CSeq are there, once each where they must be, and sound. Returns the last."""
        headers = self.headers
        first = headers._first or headers._index()
        via, call_id = first.get("via"), self.call_id
        if via is None:
            raise missing("Via")
        if call_id is None:
            raise missing("Call-ID")
        if not is_call_id(call_id):
            raise MessageParsingException(f"{excerpt(call_id)} is not a Call-ID.")
        if len(first) == len(headers._lines) and "," not in via:
            self.top_via  # noqa: B018 - parsed for its errors, as the others are
        else:
            self._refuse_repeated(DIALOG_FIELDS)
            self.via  # noqa: B018
        self._address("from")
        self._address("to")
        return self.cseq

    def _refuse_repeated(self, keys: Iterable[str]) -> None:
        headers = self.headers
        if len(headers._first or headers._index()) != len(headers._lines):
            for key in keys:
                if len(headers._lines_of(key)) > 1:
                    raise MessageParsingException(f"{canonical_name(key)} comes more than once.")

    def _address(self, key: str) -> tuple[NameAddr, str | None]:
        """The address of From or To, perhaps without its tag, and the tag."""
        headers = self.headers
        line = (headers._first or headers._index()).get(key)
        if line is None:
            raise missing(canonical_name(key))
        found = headers._views[key] = known_address(line)
        return found


class Request(Message):
    """A SIP request.

    Args:
        method: As it goes on the wire; methods are compared with regard to case.
        uri: The Request-URI.
        headers: ``(name, value)`` pairs or a ``Headers``, which is copied. Content-Length is written by the library.

    Raises:
        ValueError: Method, URI or a header cannot stand in a message.
    """

    __slots__ = ("_authenticated_user", "method", "uri")

    def __init__(
        self, method: str, uri: str | SipUri, headers: Iterable[tuple[str, str]] = (), body: bytes = b""
    ) -> None:
        if not is_token(method):
            raise ValueError(f"{excerpt(method)} is not a method.")
        uri = str(uri)
        if REQUEST_URI.fullmatch(uri) is None:
            raise ValueError(f"{excerpt(uri)} is not a Request-URI.")
        self.method = method
        self.uri = uri
        self.sip_version = SIP_VERSION
        self.headers = Headers(headers)
        self._body = body
        self._raw = None

    @classmethod
    def of_lines(cls, method: str, uri: str, lines: list[str], body: bytes = b"") -> Request:
        """The request with these header lines. Nothing is checked: whoever made them has done that."""
        request = cls.__new__(cls)
        request.method = method
        request.uri = uri
        request.sip_version = SIP_VERSION
        request.headers = Headers.of_lines(lines)
        request._body = body
        request._raw = None
        return request

    @property
    def start_line(self) -> str:
        return f"{self.method} {self.uri} {self.sip_version}"

    @property
    def authenticated_user(self) -> str | None:
        """Who has proved that it is theirs; set by whoever has asked for the proof, and not written."""
        return getattr(self, "_authenticated_user", None)

    @authenticated_user.setter
    def authenticated_user(self, name: str) -> None:
        self._authenticated_user = name

    @property
    def request_uri(self) -> SipUri | str:
        """The Request-URI: a ``SipUri``, or text for other schemes.

        Raises:
            MessageParsingException: It is no URI.
        """
        return parse_uri(self.uri)

    def validate(self) -> None:
        try:
            if self.sip_version != SIP_VERSION and self.sip_version.upper() != SIP_VERSION:
                raise MessageParsingException(
                    f"The request is of {excerpt(self.sip_version)}, and only SIP/2.0 is understood here.",
                    status_code=505,
                )
            cseq = self._validate_dialog_headers()
            self._refuse_repeated(SINGLE_FIELDS)
            if len(self.uri) > MAXIMUM_URI:
                sentence = f"The Request-URI is longer than {MAXIMUM_URI} characters."
                raise MessageParsingException(sentence, status_code=414)
            uri = self.request_uri
            if isinstance(uri, SipUri) and uri.headers:
                # RFC 3261 19.1.1, table 1
                raise MessageParsingException(f"The Request-URI {excerpt(self.uri)} contains header fields.")
            self.max_forwards  # noqa: B018
            if cseq.method != self.method:
                raise MessageParsingException(f"CSeq names {excerpt(cseq.method)} in a {excerpt(self.method)}.")
        except MessageParsingException as error:
            if self.method == "ACK":
                error.status_code = None
            raise

    def __repr__(self) -> str:
        return f"<Request {excerpt(self.start_line)}>"


class Response(Message):
    """A SIP response.

    Args:
        status_code: 100 to 699.
        reason: The reason phrase; may be empty.
        headers: ``(name, value)`` pairs or a ``Headers``, which is copied. Content-Length is written by the library.

    Raises:
        ValueError: Status code, reason or a header cannot stand in a message.
    """

    __slots__ = ("_unmet", "reason", "status_code")

    def __init__(
        self, status_code: int, reason: str, headers: Iterable[tuple[str, str]] = (), body: bytes = b""
    ) -> None:
        check_status_code(status_code)
        check_reason(reason)
        self.status_code = status_code
        self.reason = reason
        self.sip_version = SIP_VERSION
        self.headers = Headers(headers)
        self._body = body
        self._raw = None

    @classmethod
    def of_lines(cls, status_code: int, reason: str, lines: list[str], body: bytes = b"") -> Response:
        """The response with these header lines. Nothing is checked, as with a request."""
        response = cls.__new__(cls)
        response.sip_version = SIP_VERSION
        response.status_code = status_code
        response.reason = reason
        response.headers = Headers.of_lines(lines)
        response._body = body
        response._raw = None
        return response

    @property
    def start_line(self) -> str:
        return f"{self.sip_version} {self.status_code:03} {self.reason}"

    @property
    def unmet(self) -> Any:
        """Of a 401 or 407: why it was not answered, from whoever might have; None where nobody has said so."""
        return getattr(self, "_unmet", None)

    @unmet.setter
    def unmet(self, why: Any) -> None:
        self._unmet = why

    def validate(self) -> None:
        try:
            if self.sip_version.upper() != SIP_VERSION:
                raise MessageParsingException(f"The response is of {excerpt(self.sip_version)}.")
            if not 100 <= self.status_code <= 699:
                raise MessageParsingException(f"{self.status_code} is not a status code from 100 to 699.")
            self._validate_dialog_headers()
            self._refuse_repeated(SINGLE_FIELDS)
        except MessageParsingException as error:
            error.status_code = None
            raise

    def __repr__(self) -> str:
        return f"<Response {excerpt(self.start_line)}>"


def check_status_code(status_code: int) -> None:
    if not 100 <= status_code <= 699:
        raise ValueError(f"{status_code} is not a status code from 100 to 699.")


def check_reason(reason: str) -> None:
    if "\r" in reason or "\n" in reason or "\0" in reason:
        raise ValueError("A reason phrase cannot contain CR, LF or NUL.")
    check_encodable(reason)


class Malformed:
    """A message that is well framed but malformed: its octets, and what is wrong.

    ``error.answer`` is the response to give, where one can be made.
    """

    __slots__ = ("data", "error")

    def __init__(self, data: bytes, error: MessageParsingException) -> None:
        self.data = data
        self.error = error

    def __repr__(self) -> str:
        return f"<Malformed {excerpt(self.data[:80].decode('latin-1'))}: {self.error}>"
