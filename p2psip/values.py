"""The values that applications hand in and get back: addresses, headers, contents, messages."""

from __future__ import annotations

import codecs
import dataclasses
import ipaddress
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from p2psip.errors import MessageParsingException
from p2psip.message import NameAddr, Request, Response, SipUri
from p2psip.message.headers import check_encodable
from p2psip.message.names import shown_value

if TYPE_CHECKING:
    from p2psip.credentials import Credentials

_TOKEN = re.compile(r"[A-Za-z0-9\-.!%*_+`'~]+")
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9\-.!%*_+`'~]+/[A-Za-z0-9\-.!%*_+`'~]+(\s*;.*)?")
_CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class IPEndPoint(NamedTuple):
    """An IP address and a port. Wherever one is expected, a plain ``(host, port)`` will do."""

    address: str
    port: int


class IPAddress:
    """Addresses with a meaning of their own."""

    ANY = "0.0.0.0"
    """To listen on: every address of this host, IPv4 and IPv6, on one port."""
    LOOPBACK = "127.0.0.1"
    IPV6_ANY = "::"
    """To listen on: every IPv6 address of this host."""
    IPV6_LOOPBACK = "::1"


class ConnectionContext(NamedTuple):
    """The first hop of one message: it goes there whatever the proxy or the address says."""

    host: str
    port: int


class SignalingHeader:
    """A header of a message: name and unfolded value. Immutable.

    Raises:
        ValueError: The name is not a token, or the value contains a control character other than the tabulator, or half of
            a surrogate pair, which cannot be written as UTF-8.
    """

    __slots__ = ("_name", "_value")

    def __init__(self, name: str, value: str) -> None:
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"Name and value of a header are str, not {name!r} and {value!r}.")
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"{name!r} cannot be the name of a SIP header: it is not a token (RFC 3261 25.1).")
        if has_controls(value):
            raise ValueError(
                f"The value of the header {name} contains CR, LF, NUL or another control character, "
                "which would end the header or make peers refuse the message."
            )
        check_encodable(value)
        self._name = name
        self._value = value

    @property
    def name(self) -> str:
        """As given, or as it was received."""
        return self._name

    @property
    def value(self) -> str:
        """The value, unfolded."""
        return self._value

    def __iter__(self) -> Iterator[str]:
        return iter((self._name, self._value))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SignalingHeader):
            return NotImplemented
        return self._name.lower() == other._name.lower() and self._value == other._value

    def __hash__(self) -> int:
        return hash((self._name.lower(), self._value))

    def __repr__(self) -> str:
        return f"SignalingHeader({self._name!r}, {shown_value(self._name, self._value)!r})"


class RealTimeAddress:
    """The address of a person or of one endpoint of theirs. Immutable, hashable.

    Two addresses are equal as UCMA says: the user part without regard to case, the order of the parameters
    does not count, and the endpoint id is compared as well.

    Args:
        uri: A ``sip:``, ``sips:`` or ``tel:`` URI.
        endpoint_id: The epid of one endpoint of the owner; None means any of them.

    Raises:
        ValueError: Not such a URI, or an endpoint id that is no token.
    """

    __slots__ = ("_compared", "_endpoint_id", "_sip_uri", "_uri")

    def __init__(self, uri: str, endpoint_id: str | None = None) -> None:
        if not isinstance(uri, str):
            raise TypeError(f"An address is text such as 'sip:bob@example.com', not {type(uri).__name__}.")
        if endpoint_id and not _TOKEN.fullmatch(endpoint_id):
            raise ValueError(f"{endpoint_id!r} cannot be an endpoint id: it is not a token (RFC 3261 25.1).")
        self._uri = uri
        self._endpoint_id = endpoint_id or ""
        scheme = uri.partition(":")[0].lower()
        self._sip_uri: SipUri | None = None
        self._compared: object = None
        if scheme in ("sip", "sips"):
            try:
                self._sip_uri = SipUri.parse(uri)
            except MessageParsingException as error:
                raise ValueError(f"This is not an address: {error}") from error
        elif scheme != "tel" or re.fullmatch(r"[+0-9A-Fa-f*#().\-]+(;[!#-;=?-~]*)?", uri[4:]) is None:
            raise ValueError(f"{uri!r} is not an address: it must begin with sip:, sips: or tel: and be well formed.")

    @property
    def _key(self) -> object:
        """What is compared; hardly any address ever is."""
        if self._compared is None:
            self._compared = (self._uri_key(), self._endpoint_id)
        return self._compared

    def _uri_key(self) -> object:
        uri = self._sip_uri
        if uri is None:
            number, _, parameters = self._uri[4:].partition(";")
            return (re.sub(r"[().\-]", "", number).lower(), frozenset(parameters.lower().split(";")))
        return (
            uri.scheme,
            (uri.user or "").lower(),
            uri.password,
            _host_key(uri.host),
            uri.port,
            frozenset((name.lower(), value and value.lower()) for name, value in uri.parameters.items()),
            frozenset(uri.headers),
        )

    @property
    def uri(self) -> str:
        """The URI as given."""
        return self._uri

    @property
    def sip_uri(self) -> SipUri | None:
        """The URI taken apart; None for a ``tel:`` URI."""
        return self._sip_uri

    @property
    def endpoint_id(self) -> str:
        """The epid, or ``""``."""
        return self._endpoint_id

    @property
    def is_phone(self) -> bool:
        """A ``tel:`` URI, or one with ``user=phone``."""
        return self._sip_uri is None or self._sip_uri.parameters.get("user") == "phone"

    @property
    def phone_uri(self) -> str | None:
        """The ``tel:`` URI, or None."""
        return self._uri if self._sip_uri is None else None

    @property
    def is_gruu(self) -> bool:
        """It bears the parameter ``gr`` (RFC 5627)."""
        return self._sip_uri is not None and "gr" in self._sip_uri.parameters

    @property
    def is_endpoint_target(self) -> bool:
        """It names one endpoint, by GRUU or epid."""
        return self.is_gruu or bool(self._endpoint_id)

    @property
    def user_at_host(self) -> str:
        """``user@host``, or ``""`` for a ``tel:`` URI."""
        if self._sip_uri is None:
            return ""
        return f"{self._sip_uri.user}@{self._sip_uri.host}" if self._sip_uri.user else self._sip_uri.host

    def __eq__(self, other: object) -> bool:
        return self._key == other._key if isinstance(other, RealTimeAddress) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key)

    def __str__(self) -> str:
        return self._uri

    def __repr__(self) -> str:
        return f"RealTimeAddress({self._uri!r}, {self._endpoint_id!r})"


class ContentDescription:
    """A body and what it is. Immutable.

    Args:
        content_type: Such as ``"application/sdp"`` or ``"text/plain;charset=utf-8"``.
        body: ``bytes``, or text that is encoded by the content type's charset (UTF-8 when it names none).

    Raises:
        ValueError, TypeError: Not a content type, or a body that its charset cannot express.
    """

    __slots__ = ("_body", "_content_type")

    def __init__(self, content_type: str, body: bytes | str) -> None:
        self._content_type = checked_content_type(content_type)
        self._body = encode_body(content_type, body)

    @property
    def content_type(self) -> str:
        """As given."""
        return self._content_type

    @property
    def body(self) -> bytes:
        """The body as it is sent."""
        return self._body

    @property
    def text_body(self) -> str | None:
        """The body as text; None when it is not text."""
        return decode_body(self._content_type, self._body)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ContentDescription):
            return NotImplemented
        return (self._content_type, self._body) == (other._content_type, other._body)

    def __hash__(self) -> int:
        return hash((self._content_type, self._body))

    def __repr__(self) -> str:
        return f"ContentDescription({self._content_type!r}, {len(self._body)} bytes)"


@dataclasses.dataclass(frozen=True)
class SendMessageOptions:
    """How one message differs from what its endpoint would do.

    Attributes:
        connection_context: The first hop, before proxy and address.
        headers: Further headers of this message.
        local_identity: Who it is from: a URI, or a URI and a display name; None means the endpoint's owner.
        tls_target_name: The name that the peer's certificate must bear, for a peer that is dialled by another
            name or by its IP address.
        credentials: What challenges to this message are answered with, in place of the endpoint's.
    """

    connection_context: ConnectionContext | tuple[str, int] | None = None
    headers: Sequence[SignalingHeader | tuple[str, str]] = ()
    local_identity: str | tuple[str, str] | None = None
    tls_target_name: str | None = None
    credentials: Credentials | None = None


@dataclasses.dataclass(frozen=True)
class Participant:
    """The other side of an exchange, as its messages describe it.

    Attributes:
        uri: The URI of From.
        name: The display name, or ``""``.
        endpoint_id: The epid, or ``""``.
        contact_uri: The first Contact, or ``""``.
    """

    uri: str
    name: str = ""
    endpoint_id: str = ""
    contact_uri: str = ""

    @property
    def user_at_host(self) -> str:
        """``user@host`` of the URI."""
        return self.uri.partition(":")[2].partition(";")[0]


class SipMessageData:
    """A message as it was received, read-only. Malformed values raise ``MessageParsingException`` when asked for."""

    __slots__ = ("_message",)

    _message: Request | Response

    def __init__(self, message: Request | Response) -> None:
        self._message = message

    @property
    def signaling_headers(self) -> tuple[SignalingHeader, ...]:
        """All headers in order."""
        return tuple(_received_header(name, value) for name, value in self._message.headers)

    @property
    def call_id(self) -> str:
        """The Call-ID; empty when it is missing."""
        return self._message.call_id or ""

    @property
    def cseq(self) -> int:
        """The number in CSeq."""
        return self._message.cseq.number

    @property
    def from_(self) -> NameAddr:
        """From, taken apart: display name, URI, tag (RFC 3261 20.20)."""
        return self._message.from_

    @property
    def to(self) -> NameAddr:
        """To, taken apart: display name, URI, tag (RFC 3261 20.39)."""
        return self._message.to

    @property
    def content_type(self) -> str | None:
        """Content-Type as it was received, or None."""
        return self._message.headers.get("Content-Type")

    @property
    def user_agent(self) -> str:
        """The User-Agent of a request, the Server of a response (User-Agent failing that), or ``""``."""
        headers = self._message.headers
        return headers.get("User-Agent") or headers.get("Server") or ""

    @property
    def body(self) -> bytes:
        """The body's octets."""
        return self._message.body

    @property
    def text_body(self) -> str | None:
        """The body as text; None when it is not text."""
        return decode_body(self.content_type, self._message.body)

    def header(self, name: str) -> str | None:
        """The value of the first header of that name (long or compact, in any case), or None."""
        return self._message.headers.get(name)

    def headers(self, name: str) -> list[str]:
        """All values of that header; lists at commas are split where the grammar has lists."""
        return list(self._message.headers.get_all(name))

    def to_bytes(self) -> bytes:
        """The message as it came over the wire."""
        return self._message.to_bytes()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._message.start_line}>"


class SipRequestData(SipMessageData):
    """A request as it was received."""

    __slots__ = ()

    _message: Request

    @property
    def message_type(self) -> str:
        """The SIP method."""
        return self._message.method

    @property
    def request_uri(self) -> str:
        """The Request-URI as it was received."""
        return self._message.uri

    @property
    def authenticated_user(self) -> str | None:
        """The user name that the sender has proved by a digest, where the endpoint demands that; else None."""
        return self._message.authenticated_user


class SipResponseData(SipMessageData):
    """A response as it was received."""

    __slots__ = ()

    _message: Response

    @property
    def response_code(self) -> int:
        """The status code, 100 to 699."""
        return self._message.status_code

    @property
    def response_text(self) -> str:
        """The reason phrase."""
        return self._message.reason


def _host_key(host: str) -> str:
    """Equal for the spellings of one address."""
    try:
        return str(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        return host.lower().rstrip(".")


def has_controls(text: str) -> bool:
    """Whether there is a character that no header may contain (RFC 3261 25.1); a tabulator is white space."""
    return _CONTROLS.search(text) is not None


def _received_header(name: str, value: str) -> SignalingHeader:
    header = SignalingHeader.__new__(SignalingHeader)
    header._name = name
    header._value = value
    return header


def checked_content_type(content_type: str) -> str:
    """The same, if it can be one (RFC 3261 25.1, media-type)."""
    if not isinstance(content_type, str):
        raise TypeError(f"A content type is str, not {type(content_type).__name__}.")
    if not _MEDIA_TYPE.fullmatch(content_type) or has_controls(content_type):
        raise ValueError(f"{content_type!r} is not a content type such as 'text/plain;charset=utf-8'.")
    check_encodable(content_type)
    return content_type


def _charset(content_type: str | None) -> str:
    """What the content type says, UTF-8 when it says nothing. Raises LookupError for what is no charset."""
    for parameter in (content_type or "").split(";")[1:]:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            charset = value.strip().strip('"')
            if charset.isascii() and len(charset) <= 40 and codecs.lookup(charset).name not in _NO_CHARSETS:
                return charset
            raise LookupError(f"unknown charset: {charset[:40]!r}")
    return "utf-8"


_NO_CHARSETS = frozenset({"idna", "mbcs", "oem", "punycode", "raw-unicode-escape", "undefined", "unicode-escape"})
"""Codecs of Python that are no charsets of MIME; with some of them a peer could have us decode for minutes."""


def encode_body(content_type: str | None, body: bytes | str) -> bytes:
    """Text as bytes in the charset of the content type.

    Raises:
        ValueError: An unknown charset, or one that cannot express the text.
        TypeError: Neither bytes nor text.
    """
    if isinstance(body, bytes):
        return body
    if not isinstance(body, str):
        raise TypeError(f"A body is bytes or str, not {type(body).__name__}.")
    try:
        return body.encode(_charset(content_type))
    except (LookupError, UnicodeError) as error:
        raise ValueError(f"The body cannot be encoded as {content_type or 'text'}: {error}") from error


def decode_body(content_type: str | None, body: bytes) -> str | None:
    """Bytes as text by the charset of the content type; None when it is no text or cannot be decoded."""
    kind = (content_type or "").partition(";")[0].strip().lower()
    known = kind.startswith(("text/", "message/")) or kind.endswith(("+xml", "/xml", "+json", "/json", "/sdp"))
    if not known and "charset=" not in (content_type or "").lower():
        return None
    try:
        return body.decode(_charset(content_type))
    except (LookupError, UnicodeError):
        return None
