"""What callers hand in, checked before anything is sent: every mistake is a sentence, and a ValueError or TypeError."""

from __future__ import annotations

import functools
import ipaddress
import math
import re
import sys
from collections.abc import Iterable, Sequence
from typing import TypeVar

from p2psip.enums import MessageType
from p2psip.errors import MessageParsingException
from p2psip.message import SipUri, quote_display_name
from p2psip.message.message import REQUEST_URI
from p2psip.values import RealTimeAddress, SignalingHeader, checked_content_type, encode_body, has_controls

Headers = Sequence[SignalingHeader | tuple[str, str]]

RESTRICTED_HEADERS = frozenset(
    {
        *("via", "v", "route", "record-route", "from", "f", "to", "t", "call-id", "i", "cseq", "contact", "m"),
        *("max-forwards", "content-length", "l", "content-type", "c", "session-expires", "x", "min-se", "rseq", "rack"),
    }
)
"""Headers that the library writes by itself."""

_DIALOG_METHODS = frozenset({"INVITE", "ACK", "BYE", "CANCEL", "PRACK", "UPDATE", "REFER", "SUBSCRIBE", "REGISTER"})
_KNOWN_METHODS = _DIALOG_METHODS | {"PUBLISH", *MessageType.__members__}
_TOKEN = re.compile(r"[A-Za-z0-9\-.!%*_+`'~]+")
_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")

_KindT = TypeVar("_KindT")


def instance(value: object, kind: type[_KindT], what: str) -> _KindT:
    """An object of that class; ``what`` says what it is to be."""
    if not isinstance(value, kind):
        raise TypeError(f"{what} is a {kind.__name__}, not {type(value).__name__}.")
    return value


def text(value: str, what: str) -> str:
    """Text for a header: no control characters (RFC 3261 25.1, TEXT-UTF8), and nothing that UTF-8 cannot write."""
    if not isinstance(value, str):
        raise TypeError(f"{what} is str, not {type(value).__name__}.")
    if has_controls(value):
        raise ValueError(f"{what} cannot contain control characters.")
    try:
        value.encode("utf-8", "surrogateescape")  # octets that were received may be sent on
    except UnicodeEncodeError:
        raise ValueError(f"{what} cannot be written as UTF-8: {value!r}.") from None
    return value


def address(value: RealTimeAddress | str) -> RealTimeAddress:
    """An address from an address or its text."""
    if isinstance(value, RealTimeAddress):
        return value
    return _address(value) if isinstance(value, str) else RealTimeAddress(value)


@functools.lru_cache(maxsize=1024)
def _address(text: str) -> RealTimeAddress:
    """Programs send to the same few addresses again and again."""
    return RealTimeAddress(text)


@functools.lru_cache(maxsize=1024)
def request_uri(text: str) -> str:
    """What stands in the first line of a request: of an address all but what stands in no URI as it is."""
    if REQUEST_URI.fullmatch(text) is None:
        raise ValueError(f"{text!r} cannot be a Request-URI: write what is not allowed there as %hh (RFC 3261 19.1.2).")
    return text


def token(value: str, what: str) -> str:
    """A token (RFC 3261 25.1); ``what`` says what it is to be."""
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise ValueError(f"{value!r} cannot be {what}: it is not a token (RFC 3261 25.1).")
    return value


def method(message_type: MessageType | str) -> str:
    """The SIP method of a message type, or of a method name that is not a dialog's."""
    if isinstance(message_type, MessageType):
        return message_type.name
    if not isinstance(message_type, str) or not _TOKEN.fullmatch(message_type):
        raise ValueError(f"{message_type!r} is neither a MessageType nor the name of a SIP method.")
    upper = message_type.upper()
    if message_type in _DIALOG_METHODS:
        raise ValueError(
            f"{message_type} belongs to a session, subscription or registration, not to messages outside of them."
        )
    if message_type != upper and upper in _KNOWN_METHODS:
        raise ValueError(f"Case counts in methods (RFC 3261 7.1): write {upper}, not {message_type}.")
    return message_type


def headers(values: Iterable[SignalingHeader | tuple[str, str]] | None) -> list[tuple[str, str]]:
    """Name and value pairs without restricted names and without a way to smuggle in a line."""
    result = []
    for item in values or ():
        try:
            name, value = item
        except (TypeError, ValueError):
            raise TypeError(f"{item!r} is neither a SignalingHeader nor a (name, value) pair.") from None
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"Name and value of a header are str, not {item!r}.")
        SignalingHeader(name, value)
        if name.lower() in RESTRICTED_HEADERS:
            raise ValueError(f"The header {name} is written by the library and cannot be set.")
        result.append((name, value))
    return result


def content(content_type: str | None, body: bytes | str | None) -> tuple[str | None, bytes]:
    """The content type to send (None without a body) and the body as bytes."""
    if content_type is not None:
        checked_content_type(content_type)
    if body is None:
        return (content_type, b"")
    encoded = encode_body(content_type, body)
    if content_type is None and encoded:
        content_type = "text/plain;charset=utf-8"
    return (content_type, encoded)


def status_code(code: int, low: int, high: int) -> int:
    if isinstance(code, bool) or not isinstance(code, int):
        raise TypeError(f"A status code is an int, not {code!r}.")
    if not low <= code <= high:
        raise ValueError(f"{int(code)} is not a status code from {low} to {high}.")
    return int(code)


def refusal(code: int) -> int:
    """The code that a request other than INVITE is declined with."""
    if code == 408:
        raise ValueError("408 would come too late in any case, so RFC 4320 4.2 forbids it here: 480 or 504 will do.")
    return status_code(code, 300, 699)


def reason_phrase(reason: str | None) -> str | None:
    return None if reason is None else text(reason, "A reason phrase")


def timeout(seconds: float | None) -> float | None:
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"A time-out is a number of seconds or None, not {seconds!r}.")
    if not 0 <= seconds <= sys.float_info.max and seconds != math.inf:
        raise ValueError(f"A time-out cannot be {seconds!r} seconds.")
    return float(seconds)


def port(value: int, *, zero: bool = False) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"A port is an int, not {value!r}.")
    if not (0 if zero else 1) <= value <= 65535:
        raise ValueError(f"{value} is not a port ({0 if zero else 1} to 65535).")
    return value


def host(value: str) -> str:
    """A host name or IP address, IPv6 without brackets, lower case."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"{value!r} is not a host name or an IP address.")
    return _host(value)


@functools.lru_cache(maxsize=1024)
def _host(value: str) -> str:
    try:
        return str(ipaddress.ip_address(_without_brackets(value)))
    except ValueError:
        pass
    try:
        ascii_name = value.encode("idna").decode("ascii") if not value.isascii() else value
    except UnicodeError:
        ascii_name = ""
    labels = ascii_name.rstrip(".").split(".")
    if len(ascii_name) > 253 or not all(_LABEL.fullmatch(label) for label in labels) or labels[-1].isdigit():
        raise ValueError(f"{value!r} is not a host name or an IP address.")
    return ascii_name.rstrip(".").lower()


def local_host(value: str) -> str:
    """A host that peers can be told: no unspecified address, no zone, which means something on this machine only."""
    checked = host(value)
    if checked in ("0.0.0.0", "::") or "%" in checked:
        raise ValueError(
            f"{value!r} cannot be local_host: no peer could reach it; give a name or address of this host."
        )
    return checked


def _without_brackets(value: str) -> str:
    """An IPv6 address may be written as in a URI."""
    return value[1:-1] if value.startswith("[") and value.endswith("]") and ":" in value else value


def host_and_port(value: tuple[str, int], *, zero: bool = False) -> tuple[str, int]:
    """An IPEndPoint, a ConnectionContext or a plain pair."""
    try:
        name, number = value
    except (TypeError, ValueError):
        raise TypeError(f"{value!r} is not a (host, port) pair.") from None
    return host(name), port(number, zero=zero)


def ip_endpoint(value: tuple[str, int]) -> tuple[str, int]:
    """What to listen on: an IP address and a port, 0 for any."""
    try:
        address, number = value
    except (TypeError, ValueError):
        raise TypeError(f"{value!r} is not an IPEndPoint or an (address, port) pair.") from None
    if not isinstance(address, str):
        raise TypeError(f"The address of an IPEndPoint is str, not {address!r}.")
    try:
        bare = str(ipaddress.ip_address(_without_brackets(address)))
    except ValueError:
        raise ValueError(
            f"{address!r} is not an IP address to listen on: use IPAddress.ANY for all addresses of this machine."
        ) from None
    return bare, port(number, zero=True)


def owner_uri(value: str) -> SipUri:
    """Who an endpoint is: a URI without what the library adds to it."""
    uri = RealTimeAddress(value).sip_uri
    if uri is None:
        raise ValueError(f"The owner of an endpoint is a sip: or sips: URI, not {value!r}.")
    if uri.port is not None:
        raise ValueError(f"The owner's URI {value!r} must not have a port; the manager that listens adds it.")
    if uri.headers or uri.password is not None or "opaque" in uri.parameters or "method" in uri.parameters:
        raise ValueError(
            f"The owner's URI {value!r} must not have headers, a password, an opaque or a method parameter; "
            "a GRUU is given as gruu."
        )
    return uri


def gruu(value: str) -> SipUri:
    """A globally routable URI (RFC 5627)."""
    try:
        return SipUri.parse(text(value, "A GRUU"))
    except MessageParsingException as error:
        raise ValueError(f"{value!r} is not a GRUU: {error}") from error


def endpoint_id(value: str) -> str:
    """An epid."""
    if not isinstance(value, str):
        raise TypeError(f"An endpoint id is str, not {type(value).__name__}.")
    if not 1 <= len(value) <= 32 or not value.isascii() or not value.replace("-", "").replace("_", "").isalnum():
        raise ValueError(f"{value!r} is not an endpoint id: 1 to 32 letters, digits, '-' or '_'.")
    return value


def sender(identity: str | tuple[str, str]) -> str:
    """From, up to its tag, for a URI, or for a URI and a display name."""
    try:
        uri, name = (identity, "") if isinstance(identity, str) else identity
    except (TypeError, ValueError):
        raise TypeError(f"{identity!r} is no local_identity: it is a URI, or a URI and a display name.") from None
    checked = RealTimeAddress(uri).uri
    text(name, "A display name")
    return f"{quote_display_name(name)} <{checked}>;tag=" if name else f"<{checked}>;tag="
