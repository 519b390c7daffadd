"""Every header field of RFC 3261, and those of its extensions that people meet, as typed values.

``parse_field`` is for those who want one; messages do not call it, but for the fields that SIP itself works with
they have views that are cheaper.
"""

from __future__ import annotations

import calendar
import functools
import re
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from p2psip.errors import MessageParsingException
from p2psip.message.grammar import (
    excerpt,
    first_word,
    is_call_id,
    is_host,
    is_token,
    parse_host_and_port,
    parse_number,
    parse_parameters,
    parse_tail,
    quoted_end,
    split_list,
    split_words,
    unquote,
)
from p2psip.message.names import field_key
from p2psip.message.values import CSeq, NameAddr, Via, parse_contact

_T = TypeVar("_T")

_LANGUAGE = re.compile(r"[A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8})*")
_EVENT = re.compile(r"[A-Za-z0-9\-!%*_+`'~]+(?:\.[A-Za-z0-9\-!%*_+`'~]+)*")
_VERSION = re.compile(r"[0-9]+\.[0-9]+")
_TIME = re.compile(r"([0-9]+(?:\.[0-9]*)?)(?:[ \t]+([0-9]*(?:\.[0-9]*)?))?")
_DATE = re.compile(r"([a-z]{3}), ([0-9]{2}) ([a-z]{3}) ([0-9]{4}) ([0-9]{2}):([0-9]{2}):([0-9]{2}) gmt")
_WARNING = re.compile(r"([0-9]{3}) ([^ ]+) (\".*)", re.DOTALL)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = frozenset({"mon", "tue", "wed", "thu", "fri", "sat", "sun"})
_LONGEST = 10**40
"""Seconds without a bound in the RFC end here."""

Parameters = dict[str, "str | None"]


class MediaType(NamedTuple):
    """RFC 3261 20.15. Type and subtype in lower case."""

    type: str
    subtype: str
    params: Parameters


class Parameterised(NamedTuple):
    """A word, a number or a Call-ID with parameters: Event, Subscription-State, Session-Expires, Replaces ..."""

    value: str | int
    params: Parameters


class RetryAfter(NamedTuple):
    """RFC 3261 20.33."""

    seconds: int
    comment: str | None
    params: Parameters


class Timestamp(NamedTuple):
    """RFC 3261 20.38; both as written."""

    timestamp: str
    delay: str | None


class RAck(NamedTuple):
    """RFC 3262 7.2."""

    rseq: int
    cseq: int
    method: str


class WarningValue(NamedTuple):
    """RFC 3261 20.43. The text is unquoted."""

    code: int
    agent: str
    text: str


class Date(NamedTuple):
    """RFC 3261 20.17, always GMT. The second may be 60."""

    year: int
    month: int
    day: int
    hour: int
    minute: int
    second: int

    @property
    def unix(self) -> int:
        """Seconds since 1970; a leap second is the second after it."""
        return calendar.timegm(self)


class Credentials(NamedTuple):
    """A challenge or credentials (RFC 3261 20.7, 20.44). Names in lower case, values unquoted."""

    scheme: str
    params: dict[str, str]

    def __repr__(self) -> str:
        return f"<Credentials {self.scheme}: {', '.join(self.params)}>"


def parse_field(name: str, value: str) -> Any:
    """The value of one header field (one line, unfolded), by the grammar of its name.

    A field that is a list gives a list; free text and unknown fields give the text.

    Raises:
        MessageParsingException: The value is malformed.
    """
    parse = _PARSERS.get(field_key(name))
    value = value.strip(" \t")
    return value if parse is None else parse(value)


def _malformed(text: str, what: str) -> MessageParsingException:
    return MessageParsingException(f"{excerpt(text)} is not {what}.")


def _listed(parse: Callable[[str], _T], text: str, *, empty: bool = False) -> list[_T]:
    return [] if empty and not text else [parse(value) for value in split_list(text)]


def list_of(parse: Callable[[str], _T], *, empty: bool = False) -> Callable[[str], list[_T]]:
    return functools.partial(_listed, parse, empty=empty)


def _token(text: str) -> str:
    if not is_token(text):
        raise _malformed(text, "a token")
    return text


def _event_type(text: str) -> str:
    if _EVENT.fullmatch(text) is None:
        raise _malformed(text, "an event type")
    return text


def _language(text: str) -> str:
    if _LANGUAGE.fullmatch(text) is None:
        raise _malformed(text, "a language tag")
    return text


def _language_range(text: str) -> str:
    return text if text == "*" else _language(text)


def _call_id(text: str) -> str:
    if not is_call_id(text):
        raise _malformed(text, "a Call-ID")
    return text


def _call_ids(text: str) -> list[str]:
    # A Call-ID may hold quotes and brackets without a partner, so split_list cannot be used.
    return [_call_id(value.strip(" \t")) for value in text.split(",")]


def _with_parameters(parse: Callable[[str], str | int]) -> Callable[[str], Parameterised]:
    def parser(text: str) -> Parameterised:
        value, semicolon, tail = text.partition(";")
        return Parameterised(parse(value.rstrip(" \t")), parse_parameters(tail) if semicolon else {})

    return parser


def _media(text: str) -> MediaType:
    value, _, tail = text.partition(";")
    kind, slash, subtype = value.partition("/")
    kind, subtype = kind.strip(" \t"), subtype.strip(" \t")
    if not slash or not is_token(kind) or not is_token(subtype):
        raise _malformed(text, "a media type")
    params = parse_parameters(tail) if len(value) < len(text) else {}
    return MediaType(kind.lower(), subtype.lower(), params)


def _content_type(text: str) -> MediaType:
    media = _media(text)
    if None in media.params.values():
        raise _malformed(text, "a content type: each parameter has a value")
    return media


def _address(text: str) -> NameAddr:
    return NameAddr.parse(text)


def _bracketed_address(text: str) -> NameAddr:
    return NameAddr.parse(text, brackets=True)


def _bracketed_uri(text: str) -> NameAddr:
    if not text.startswith("<"):
        raise _malformed(text, "a URI in angle brackets")
    return NameAddr.parse(text, brackets=True)


def _contacts(text: str) -> list[NameAddr] | str:
    return "*" if text == "*" else _listed(parse_contact, text)


def _mime_version(text: str) -> str:
    if _VERSION.fullmatch(text) is None:
        raise _malformed(text, "a MIME version")
    return text


def _max_forwards(text: str) -> int:
    return parse_number(text, 255)


def _privacy(text: str) -> list[str]:
    return [_token(value.strip(" \t")) for value in text.split(";")]


def _rack(text: str) -> RAck:
    parts = split_words(text)
    if len(parts) != 3 or not is_token(parts[2]):
        raise _malformed(text, "an RAck: two numbers and a method")
    return RAck(parse_number(parts[0]), parse_number(parts[1], 2**31 - 1), parts[2])


def _replaces(text: str) -> Parameterised:
    replaces = _with_parameters(_call_id)(text)
    if replaces.params.get("to-tag") is None or replaces.params.get("from-tag") is None:
        raise _malformed(text, "a Replaces: it needs to-tag and from-tag")
    return replaces


def _retry_after(text: str) -> RetryAfter:
    digits = len(text) - len(text.lstrip("0123456789"))
    seconds = parse_number(text[:digits], _LONGEST)
    rest = text[digits:].lstrip(" \t")
    comment = None
    if rest.startswith("("):
        end = _comment_end(rest)
        comment, rest = rest[1 : end - 1], rest[end:]
    return RetryAfter(seconds, comment, parse_tail(rest, text))


def _comment_end(text: str) -> int:
    """Where the comment that begins the text ends. Comments nest."""
    depth, escaped = 0, False
    for position, character in enumerate(text):
        if escaped or character == "\\":
            escaped = not escaped
        elif character == "(":
            depth += 1
        elif character == ")":
            depth -= 1
            if not depth:
                return position + 1
    raise _malformed(text, "a comment: it is not closed")


def _timestamp(text: str) -> Timestamp:
    match = _TIME.fullmatch(text)
    if match is None:
        raise _malformed(text, "a timestamp")
    return Timestamp(match[1], match[2] or None)


def _warning(text: str) -> WarningValue:
    match = _WARNING.fullmatch(text)
    if match is None or quoted_end(match[3]) != len(match[3]):
        raise _malformed(text, "a warning: three digits, an agent and a quoted text")
    if not is_token(match[2]):
        parse_host_and_port(match[2])
    return WarningValue(int(match[1]), match[2], unquote(match[3]))


def _date(text: str) -> Date:
    match = _DATE.fullmatch(text.lower())
    if match is None or match[1] not in _WEEKDAYS or match[3] not in _MONTHS:
        raise _malformed(text, "a date as in 'Sat, 13 Nov 2010 23:29:00 GMT'")
    date = Date(int(match[4]), _MONTHS.index(match[3]) + 1, *map(int, match.group(2, 5, 6, 7)))
    leap = date[3:] == (23, 59, 60)
    if not date.year or not 1 <= date.day <= calendar.monthrange(date.year, date.month)[1]:
        raise _malformed(text, "a date: the month has no such day")
    if date.hour > 23 or date.minute > 59 or (date.second > 59 and not leap):
        raise _malformed(text, "a date: the day has no such time")
    return date


def _credentials(text: str) -> Credentials:
    scheme, tail = first_word(text)
    return Credentials(_token(scheme), _authentication_parameters(tail))


def _authentication_parameters(text: str) -> dict[str, str]:
    params: dict[str, str] = {}
    for part in split_list(text):
        name, equals, value = part.partition("=")
        name, value = name.rstrip(" \t").lower(), value.lstrip(" \t")
        good = is_token(value) or (value.startswith('"') and quoted_end(value) == len(value)) or is_host(value)
        if not equals or not is_token(name) or not good:
            raise _malformed(part, "a parameter of authentication")
        if name in params:
            raise _malformed(text, f"a challenge or credentials: {name} comes twice")
        params[name] = unquote(value)
    return params


def _secret(parse: Callable[[str], _T]) -> Callable[[str], _T]:
    """The same, but its errors do not say what it read."""

    def read(text: str) -> _T:
        try:
            return parse(text)
        except MessageParsingException:
            pass
        raise MessageParsingException("What proves who somebody is is malformed, and is not shown.")

    return read


_tokens = list_of(_token)
_tokens_or_none = list_of(_token, empty=True)
_bracketed_addresses = list_of(_bracketed_address)
_addresses = list_of(_address)
_bracketed_uris = list_of(_bracketed_uri)
_codings_or_none = list_of(_with_parameters(_token), empty=True)

_PARSERS: dict[str, Callable[[str], Any]] = {
    "accept": list_of(_media, empty=True),
    "accept-encoding": _codings_or_none,
    "accept-language": list_of(_with_parameters(_language_range), empty=True),
    "alert-info": _bracketed_uris,
    "allow": _tokens_or_none,
    "allow-events": list_of(_event_type),
    "authentication-info": _secret(_authentication_parameters),
    "authorization": _secret(_credentials),
    "call-id": _call_id,
    "call-info": _bracketed_uris,
    "contact": _contacts,
    "content-disposition": _with_parameters(_token),
    "content-encoding": _tokens,
    "content-language": list_of(_language),
    "content-length": parse_number,
    "content-type": _content_type,
    "cseq": CSeq.parse,
    "date": _date,
    "error-info": _bracketed_uris,
    "event": _with_parameters(_event_type),
    "expires": parse_number,
    "from": _address,
    "in-reply-to": _call_ids,
    "join": _replaces,
    "max-forwards": _max_forwards,
    "mime-version": _mime_version,
    "min-expires": parse_number,
    "min-se": _with_parameters(parse_number),
    "p-asserted-identity": _addresses,
    "p-preferred-identity": _addresses,
    "path": _bracketed_addresses,
    "priority": _token,
    "privacy": _privacy,
    "proxy-authenticate": _credentials,
    "proxy-authorization": _secret(_credentials),
    "proxy-require": _tokens,
    "rack": _rack,
    "reason": list_of(_with_parameters(_token)),
    "record-route": _bracketed_addresses,
    "refer-to": _address,
    "referred-by": _address,
    "replaces": _replaces,
    "reply-to": _address,
    "require": _tokens,
    "retry-after": _retry_after,
    "route": _bracketed_addresses,
    "rseq": parse_number,
    "service-route": _bracketed_addresses,
    "session-expires": _with_parameters(parse_number),
    "sip-etag": _token,
    "sip-if-match": _token,
    "subscription-state": _with_parameters(_token),
    "supported": _tokens_or_none,
    "target-dialog": _with_parameters(_call_id),
    "timestamp": _timestamp,
    "to": _address,
    "unsupported": _tokens,
    "via": list_of(Via.parse),
    "warning": list_of(_warning),
    "www-authenticate": _credentials,
}
