"""The lexical part of RFC 3261 25.1: tokens, quoted strings, lists, parameters, numbers, hosts.

Every function here is linear in its input. The regular expressions are single character classes or sequences
whose parts cannot match the same character, so they never try a second way.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import TypeVar

from p2psip.errors import MessageParsingException

DEFAULT_PORTS = {"TLS": 5061, "WSS": 443, "WS": 80}
"""RFC 3261 19.1.2 and RFC 7118; 5060 for every other transport."""

_TOKEN = re.compile(r"[A-Za-z0-9\-.!%*_+`'~]+")
_WORD = re.compile(r"[A-Za-z0-9\-.!%*_+`'~()<>:\\\"/\[\]?{}]+")
_QUOTED = re.compile(r'"[^"\\\0-\x08\x0a-\x1f\x7f]*(?:\\[^\r\n][^"\\\0-\x08\x0a-\x1f\x7f]*)*"')
_TO_BE_ESCAPED = re.compile(r"[\0-\x08\x0b\x0c\x0e-\x1f\x7f\\\"]")
_ESCAPED_CHARACTER = re.compile(r"\\(.)", re.DOTALL)
_LIST_MARKS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|<[^<>]*>|["<,]', re.DOTALL)
_PARAMETER_MARKS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[";]', re.DOTALL)
_IPV4 = re.compile(r"[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}")
_LABEL_CHARACTERS = re.compile(r"[A-Za-z0-9\-.]+")
_WHITE_SPACE = " \t"
_SECRET = re.compile(r"(?i)authori[sz]ation|authentication-info")
_FIRST_WORD = re.compile(r"([^ \t]*)[ \t]*(.*)", re.DOTALL)


_T = TypeVar("_T")


class Remembered(dict[str, _T]):
    """What a function makes of texts that come again and again: ``remembered[text]`` calls it where that is not known.

    A dictionary, because nothing is found faster. What is long is not kept, and when there is much all is forgotten.
    """

    __slots__ = ("_make",)

    def __init__(self, make: Callable[[str], _T]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, text: str) -> _T:
        made = self._make(text)
        if len(text) <= 256:
            if len(self) >= 1024:
                self.clear()
            self[text] = made
        return made


def excerpt(text: str) -> str:
    """The text as it may stand in an error or a log line: ASCII, quoted, not too long, and without credentials."""
    secret = _SECRET.search(text, 0, 80)
    return ascii(text if len(text) <= 80 and secret is None else text[: 80 if secret is None else secret.end()] + "...")


def split_words(text: str) -> list[str]:
    """What stands between spaces and tabs. (``str.split`` knows other white space as well, which SIP does not.)"""
    return [word for word in text.replace("\t", " ").split(" ") if word]


def first_word(text: str) -> tuple[str, str]:
    """What stands before the first space or tab, and what follows all of them."""
    match = _FIRST_WORD.match(text)
    assert match is not None
    return (match[1], match[2])


def is_token(text: str) -> bool:
    return (text.isalnum() and text.isascii()) or _TOKEN.fullmatch(text) is not None


def is_call_id(text: str) -> bool:
    """``word [ "@" word ]``"""
    if text.isalnum() and text.isascii():
        return True
    word, at, second = text.partition("@")
    return _WORD.fullmatch(word) is not None and (not at or _WORD.fullmatch(second) is not None)


def quote_display_name(name: str) -> str:
    """A display name as it stands in front of ``<uri>``: words as they are, anything else quoted.

    Raises:
        ValueError: It contains CR, LF or NUL.

    RFC 3261 25.1, display-name.
    """
    if "\0" in name:
        raise ValueError(f"{excerpt(name)} contains CR, LF or NUL and cannot be a display name.")
    return format_display_name(name)


def format_display_name(name: str) -> str:
    """The same for a name that may have been received, in which a NUL is allowed: it is written as a quoted-pair."""
    if name and all(map(is_token, name.split(" "))):
        return name
    if "\r" in name or "\n" in name:
        raise ValueError(f"{excerpt(name)} contains CR, LF or NUL and cannot be a display name.")
    return quoted(name)


def quoted(text: str) -> str:
    """A quoted-string that stands for the text, which has neither CR nor LF (RFC 3261 25.1)."""
    return '"' + _TO_BE_ESCAPED.sub(r"\\\g<0>", text) + '"'


def unquote(text: str) -> str:
    """What a quoted-string stands for; any other text unchanged."""
    if not text.startswith('"'):
        return text
    inner = text[1:-1]
    return _ESCAPED_CHARACTER.sub(r"\1", inner) if "\\" in inner else inner


def quoted_end(text: str, start: int = 0) -> int:
    """Where the quoted-string that begins at ``start`` ends; -1 when it does not."""
    match = _QUOTED.match(text, start)
    return -1 if match is None else match.end()


def split_list(text: str) -> list[str]:
    """The values of a comma-separated field, in order. Commas in quotes and in ``<>`` separate nothing.

    Raises:
        MessageParsingException: A value is empty, or a quote or bracket is not closed.
    """
    if "," not in text:
        values = [text]
    elif '"' not in text and "<" not in text:
        values = text.split(",")
    else:
        values = _split(text, _LIST_MARKS, ",")
    values = [value.strip(_WHITE_SPACE) for value in values]
    if "" in values:
        raise MessageParsingException(f"The list {excerpt(text)} has an empty value.")
    return values


def _split(text: str, marks: re.Pattern[str], separator: str) -> list[str]:
    values = []
    start = 0
    for match in marks.finditer(text):
        mark = match[0]
        if mark == separator:
            values.append(text[start : match.start()])
            start = match.end()
        elif len(mark) == 1:
            raise MessageParsingException(f"In {excerpt(text)} a {mark} is not closed.")
    values.append(text[start:])
    return values


def parse_parameters(text: str) -> dict[str, str | None]:
    """``name[=value]`` separated by semicolons, as they follow a value (without the first semicolon).

    Names come in lower case; values as written, quotes kept; None where there is no ``=``.

    Raises:
        MessageParsingException: Not so, or a name comes twice.
    """
    if ";" not in text:
        name, equals, value = text.partition("=")
        if not equals or not is_token(value) or not is_token(name):
            name, checked = _parameter(text)
            return {name: checked}
        return {name.lower(): value}
    parts = _split(text, _PARAMETER_MARKS, ";") if '"' in text else text.split(";")
    parameters: dict[str, str | None] = {}
    plain = text.isascii()
    for part in parts:
        name, _, value = part.partition("=")
        if plain and value.isalnum() and name.isalnum():
            parameters[name.lower()] = value
        else:
            name, checked = _parameter(part)
            parameters[name] = checked
    if len(parameters) != len(parts):
        raise MessageParsingException(f"In {excerpt(text)} a parameter comes twice.")
    return parameters


def _parameter(text: str) -> tuple[str, str | None]:
    name, equals, value = text.partition("=")
    if equals and is_token(value) and is_token(name):
        return (name.lower(), value)
    name = name.strip(_WHITE_SPACE)
    value = value.strip(_WHITE_SPACE)
    # RFC 3261 25.1: generic-param, and via-received, in which an IPv6 address has no brackets.
    if is_token(name) and (not equals or is_token(value) or _is_quoted(value) or is_host(value) or is_ipv6(value)):
        return (name.lower(), value if equals else None)
    raise MessageParsingException(f"{excerpt(text)} is not a parameter.")


def _is_quoted(text: str) -> bool:
    return _QUOTED.fullmatch(text) is not None


def parse_tail(text: str, what: str) -> dict[str, str | None]:
    """The parameters in what follows a value: nothing, or white space and ``;`` and parameters."""
    if text[:1] != ";":
        text = text.strip(_WHITE_SPACE)
        if not text:
            return {}
        if text[0] != ";":
            raise MessageParsingException(f"{excerpt(what)} goes on with {excerpt(text)}, where a semicolon should be.")
    return parse_parameters(text[1:])


def format_parameters(parameters: dict[str, str | None]) -> str:
    return "".join(f";{name}" if value is None else f";{name}={value}" for name, value in parameters.items())


def parse_number(text: str, maximum: int = 2**32 - 1) -> int:
    """``1*DIGIT``, ASCII only.

    Raises:
        MessageParsingException: Not a number, or above ``maximum``.
    """
    if not (text.isdigit() and text.isascii()):
        raise MessageParsingException(f"{excerpt(text)} is not a number.")
    if len(text) < 10 and (number := int(text)) <= maximum:
        return number
    digits = text.lstrip("0") or "0"
    # Length first: making an int of many digits takes more than linear time.
    if len(digits) > len(str(maximum)) or int(digits) > maximum:
        raise MessageParsingException(f"{excerpt(text)} is above {maximum}.")
    return int(digits)


def is_ipv6(text: str) -> bool:
    """An IPv6 address, without brackets and without zone."""
    if ":" not in text or "%" in text or not text.isascii() or len(text) > 45:
        return False
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def is_ip_address(text: str) -> bool:
    return is_ipv4(text) or is_ipv6(text)


def is_ipv4(text: str) -> bool:
    return _IPV4.fullmatch(text) is not None and all(int(part) <= 255 for part in text.split("."))


def is_host(text: str) -> bool:
    """A host name, an IPv4 address, or an IPv6 address in brackets (RFC 3261 25.1, RFC 5954)."""
    if text.startswith("["):
        return text.endswith("]") and is_ipv6(text[1:-1])
    if _LABEL_CHARACTERS.fullmatch(text) is None:
        return False
    labels = text.split(".")
    if not labels[-1]:
        labels.pop()
    if not labels or any(not label or label[0] == "-" or label[-1] == "-" for label in labels):
        return False
    return labels[-1][0].isalpha() or is_ipv4(text)


def parse_host_and_port(text: str) -> tuple[str, int | None]:
    """``host [ ":" port ]``; brackets of an IPv6 address are kept.

    Raises:
        MessageParsingException: Not so, or the port is not 1 to 65535.
    """
    return _PLACES[text]


def _host_and_port(text: str) -> tuple[str, int | None]:
    if text.startswith("["):
        host, bracket, rest = text.partition("]")
        host += bracket
    else:
        host, colon, rest = text.partition(":")
        rest = colon + rest
    host = host.rstrip(_WHITE_SPACE)
    rest = rest.lstrip(_WHITE_SPACE)
    if not is_host(host):
        raise MessageParsingException(f"{excerpt(host)} is not a host.")
    if not rest:
        return (host, None)
    if not rest.startswith(":"):
        raise MessageParsingException(f"{excerpt(text)} is not a host and a port.")
    port = parse_number(rest[1:].lstrip(_WHITE_SPACE), 65535)
    if not port:
        raise MessageParsingException(f"{excerpt(text)} names port 0.")
    return (host, port)


_PLACES = Remembered(_host_and_port)
