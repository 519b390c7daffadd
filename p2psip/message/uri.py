"""SIP and SIPS URIs (RFC 3261 19.1), and what is taken for a URI of another scheme."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import Any

from p2psip.errors import MessageParsingException
from p2psip.message.grammar import Remembered, excerpt, is_host, parse_host_and_port, parse_number

MAXIMUM_URI = 4096
"""Characters; that a message may be longer is for what it carries."""

_UNRESERVED = r"A-Za-z0-9\-_.!~*'()"
_ESCAPED = "%[0-9A-Fa-f]{2}"
_USER = re.compile(rf"(?:[{_UNRESERVED}&=+$,;?/]|{_ESCAPED})+")
_PASSWORD = re.compile(rf"(?:[{_UNRESERVED}&=+$,]|{_ESCAPED})*")
_PARAMETER = re.compile(rf"(?:[{_UNRESERVED}\[\]/:&+$]|{_ESCAPED})+")
_HEADER_NAME = re.compile(rf"(?:[{_UNRESERVED}\[\]/?:+$]|{_ESCAPED})+")
_HEADER_VALUE = re.compile(rf"(?:[{_UNRESERVED}\[\]/?:+$]|{_ESCAPED})*")
_ABSOLUTE = re.compile(rf"[A-Za-z][A-Za-z0-9+\-.]*:(?:[{_UNRESERVED};/?:@&=+$,]|{_ESCAPED})+")
_ESCAPE = re.compile(f"(?:{_ESCAPED})+")
_ONE_ESCAPE = re.compile(_ESCAPED)
_KEPT_ESCAPED = frozenset(";/?:@&=+$,%")
_COMPARED_PARAMETERS = ("user", "ttl", "method", "maddr", "transport")


class Parameters(Mapping[str, "str | None"]):
    """The parameters of a URI: names compare without regard to case, None where there is no ``=``. Immutable."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, str | None] | None = None) -> None:
        self._values = {name.lower(): value for name, value in values.items()} if values else {}

    def __getitem__(self, name: str) -> str | None:
        return self._values[name.lower()]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._values

    def get(self, name: str, default: Any = None) -> Any:
        return self._values.get(name.lower(), default)  # Mapping's own raises and catches a KeyError

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Parameters({self._values!r})"


class SipUri:
    """A SIP or SIPS URI. Immutable; compares and hashes by RFC 3261 19.1.4.

    Attributes:
        scheme: ``sip`` or ``sips``.
        user: As written, escapes kept; None when there is none. :attr:`decoded_user` is unescaped.
        password: As written, or None.
        host: As written; an IPv6 address in its brackets.
        port: None when none is given.
        parameters: By name, whose case does not matter.
        headers: ``(name, value)`` pairs as written.

    Raises:
        MessageParsingException: From the constructor too: the parts do not make a URI.
    """

    __slots__ = ("_identity", "_text", "headers", "host", "parameters", "password", "port", "scheme", "user")

    scheme: str
    user: str | None
    password: str | None
    host: str
    port: int | None
    parameters: Parameters
    headers: tuple[tuple[str, str], ...]
    _text: str
    _identity: tuple[object, ...] | None

    def __init__(
        self,
        scheme: str,
        user: str | None,
        host: str,
        port: int | None = None,
        *,
        password: str | None = None,
        parameters: Mapping[str, str | None] | None = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        text = scheme + ":"
        if user is not None:
            text += user + ("" if password is None else ":" + password) + "@"
        host = f"[{host}]" if ":" in host and not host.startswith("[") else host
        text += host if port is None else f"{host}:{port}"
        parameters = Parameters(parameters)
        for name, value in parameters.items():
            text += f";{name}" if value is None else f";{name}={value}"
        if headers:
            text += "?" + "&".join(f"{name}={value}" for name, value in headers)
        self._read(text)
        read = (self.user, self.password, self.host, self.port, self.parameters, self.headers)
        if read != (user, password, host, port, parameters, tuple(headers)):
            raise _malformed(text, "a part of it has a character that must be escaped")

    @staticmethod
    def parse(text: str) -> SipUri:
        """The URI that the text is, exactly: no brackets, no white space.

        Raises:
            MessageParsingException: It is no SIP or SIPS URI.
        """
        uri = parse_uri(text)
        if isinstance(uri, str):
            raise _malformed(text, "it does not begin with sip: or sips:")
        return uri

    def _read(self, text: str) -> None:
        scheme, _, rest = text.partition(":")
        scheme = scheme.lower()
        if scheme not in ("sip", "sips"):
            raise _malformed(text, "it does not begin with sip: or sips:")
        userinfo, at, rest = rest.rpartition("@")
        user = password = None
        if at:
            user, colon, secret = userinfo.partition(":")
            if _USER.fullmatch(user) is None:
                raise _malformed(text, "its user part is empty or has a character that must be escaped")
            if colon:
                password = secret
                if _PASSWORD.fullmatch(secret) is None:
                    raise _malformed(text, "its password has a character that must be escaped")
        rest, question, query = rest.partition("?")
        location, semicolon, tail = rest.partition(";")
        if " " in location or "\t" in location:
            raise _malformed(text, "it contains white space")
        try:
            host, port = parse_host_and_port(location)
        except MessageParsingException as error:
            raise _malformed(text, str(error).rstrip(".")) from None
        set_ = object.__setattr__
        set_(self, "_text", text)
        set_(self, "_identity", None)
        set_(self, "scheme", scheme)
        set_(self, "user", user)
        set_(self, "password", password)
        set_(self, "host", host)
        set_(self, "port", port)
        set_(self, "parameters", _read_parameters(text, tail) if semicolon else _NO_PARAMETERS)
        set_(self, "headers", _read_headers(text, query) if question else ())

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"A SipUri is immutable; make another with replace({name}=...).")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("A SipUri is immutable.")

    def __copy__(self) -> SipUri:
        return self

    def __deepcopy__(self, memo: object) -> SipUri:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return (SipUri.parse, (self._text,))

    @property
    def decoded_user(self) -> str | None:
        """The user part, unescaped once."""
        return None if self.user is None else unescape(self.user)

    @property
    def transport(self) -> str | None:
        """The transport parameter in lower case, or None."""
        value = self.parameters.get("transport")
        return None if value is None else value.lower()

    def replace(self, **parts: Any) -> SipUri:
        """A URI that differs in the given parts, which are named as in the constructor."""
        old = {
            "scheme": self.scheme,
            "user": self.user,
            "password": None if "user" in parts else self.password,
            "host": self.host,
            "port": self.port,
            "parameters": self.parameters,
            "headers": self.headers,
        }
        return SipUri(**{**old, **parts})

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"SipUri({self._text!r})"

    def __eq__(self, other: object) -> bool:
        """RFC 3261 19.1.4. Not transitive: a parameter that only one of the two bears does not count."""
        if not isinstance(other, SipUri):
            return NotImplemented
        if self is other:
            return True
        if self._key() != other._key():
            return False
        mine, theirs = self.parameters, other.parameters
        for name in mine:
            if name in theirs and not _same_parameter(mine[name], theirs[name]):
                return False
        return _compared_headers(self.headers) == _compared_headers(other.headers)

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[object, ...]:
        key = self._identity
        if key is None:
            key = (
                self.scheme,
                None if self.user is None else normalise_escapes(self.user),
                None if self.password is None else normalise_escapes(self.password),
                _normalised_host(self.host),
                self.port,
                *(_compared_parameter(self.parameters, name) for name in _COMPARED_PARAMETERS),
            )
            object.__setattr__(self, "_identity", key)
        return key


_NO_PARAMETERS = Parameters()


def _parse(text: str) -> SipUri:
    uri = SipUri.__new__(SipUri)
    uri._read(text)
    return uri


def _malformed(text: str, why: str) -> MessageParsingException:
    return MessageParsingException(f"{excerpt(text)} is not a SIP URI: {why}.")


def _read_parameters(text: str, tail: str) -> Parameters:
    values: dict[str, str | None] = {}
    for part in tail.split(";"):
        name, equals, value = part.partition("=")
        if _PARAMETER.fullmatch(name) is None or (equals and _PARAMETER.fullmatch(value) is None):
            raise _malformed(text, f"{excerpt(part)} is not a parameter")
        name = name.lower()
        given = value if equals else None
        # RFC 3261 19.1.1 forbids both, but some user agents repeat what they were given, which is not ambiguous.
        if values.setdefault(name, given) != given:
            raise _malformed(text, f"the parameter {name} comes twice, with different values")
    ttl = values.get("ttl")
    if ttl is not None:
        parse_number(ttl, 255)
    return Parameters(values)


def _read_headers(text: str, query: str) -> tuple[tuple[str, str], ...]:
    headers = []
    for part in query.split("&"):
        name, equals, value = part.partition("=")
        if not equals or _HEADER_NAME.fullmatch(name) is None or _HEADER_VALUE.fullmatch(value) is None:
            raise _malformed(text, f"{excerpt(part)} is not a header of a URI")
        headers.append((name, value))
    return tuple(headers)


def unescape(text: str) -> str:
    """The text with ``%xx`` replaced, once. Octets that are not UTF-8 become lone surrogates."""
    if "%" not in text:
        return text
    return _ESCAPE.sub(lambda run: bytes.fromhex(run[0].replace("%", "")).decode("utf-8", "surrogateescape"), text)


def normalise_escapes(text: str) -> str:
    """The text so that equal ones are the same: a character equals its escape unless it is of the reserved set.

    RFC 3261 19.1.4.
    """
    return _ONE_ESCAPE.sub(_normalised_escape, text) if "%" in text else text


def _normalised_escape(match: re.Match[str]) -> str:
    character = chr(int(match[0][1:], 16))
    return character if "!" <= character <= "~" and character not in _KEPT_ESCAPED else match[0].upper()


def _normalised_host(host: str) -> str:
    return str(ipaddress.IPv6Address(host[1:-1])) if host.startswith("[") else host.lower()


def _compared_parameter(parameters: Parameters, name: str) -> str | None:
    if name not in parameters:
        return None
    value = parameters[name]
    if value is None:
        return ""
    if name == "maddr" and is_host(value):
        return _normalised_host(value)
    return normalise_escapes(value).lower()


def _same_parameter(a: str | None, b: str | None) -> bool:
    if a is None or b is None:
        return a is b
    return normalise_escapes(a).lower() == normalise_escapes(b).lower()


def _compared_headers(headers: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
    return sorted((normalise_escapes(name).lower(), normalise_escapes(value)) for name, value in headers)


def parse_uri(text: str) -> SipUri | str:
    """A SIP or SIPS URI, or the text of an absolute URI of another scheme.

    Raises:
        MessageParsingException: It is neither.
    """
    return _URIS[text]


def _parse_uri(text: str) -> SipUri | str:
    if len(text) > MAXIMUM_URI:
        raise MessageParsingException(f"{excerpt(text)} has {len(text)} characters; a URI has at most {MAXIMUM_URI}.")
    if text[:4].lower() == "sip:" or text[:5].lower() == "sips:":
        return _parse(text)
    if _ABSOLUTE.fullmatch(text) is None:
        raise MessageParsingException(f"{excerpt(text)} is not a URI.")
    return text


_URIS = Remembered(_parse_uri)
