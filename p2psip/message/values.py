"""The structured values of the header fields that SIP itself works with: Via, name-addr and CSeq.

Parameters are dictionaries with names in lower case and values as written (quotes kept), None where there is no
``=``. All values are to be left as they are; make another one to change something.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from p2psip.errors import MessageParsingException
from p2psip.message.grammar import (
    DEFAULT_PORTS,
    Remembered,
    excerpt,
    format_display_name,
    format_parameters,
    is_ip_address,
    is_token,
    parse_host_and_port,
    parse_number,
    parse_parameters,
    parse_tail,
    quoted_end,
    split_words,
    unquote,
)
from p2psip.message.headers import line_value
from p2psip.message.uri import SipUri, parse_uri

_QVALUE = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")


class CSeq(NamedTuple):
    """RFC 3261 20.16."""

    number: int
    method: str

    @staticmethod
    def parse(text: str) -> CSeq:
        """Raises MessageParsingException when the text is not a number below 2**31 and a method."""
        return KNOWN_CSEQS[":" + text]

    def __str__(self) -> str:
        return f"{self.number} {self.method}"


def _parse_cseq(line: str) -> CSeq:
    text = line_value(line)
    parts = split_words(text)
    if len(parts) != 2 or not is_token(parts[1]):
        raise MessageParsingException(f"{excerpt(text)} is not a CSeq: a number and a method.")
    return CSeq(parse_number(parts[0], 2**31 - 1), parts[1])


KNOWN_CSEQS = Remembered(_parse_cseq)
"""By the line; so are the others."""


class NameAddr:
    """An address with its display name and parameters, as in From, To, Contact and Route (RFC 3261 20.10).

    Attributes:
        display_name: Unquoted and unescaped; None when there is none.
        uri: A ``SipUri``, or the text of a URI of another scheme.
        params: The parameters of the field, not of the URI.
    """

    __slots__ = ("display_name", "params", "uri")

    display_name: str | None
    uri: SipUri | str
    params: dict[str, str | None]

    def __init__(
        self, uri: SipUri | str, display_name: str | None = None, params: dict[str, str | None] | None = None
    ) -> None:
        self.display_name = display_name
        self.uri = uri
        self.params = {} if params is None else params

    @classmethod
    def parse(cls, text: str, *, brackets: bool = False) -> NameAddr:
        """The value that the text is.

        Args:
            brackets: Refuse a bare URI; Route and its like demand ``<>``.

        Raises:
            MessageParsingException: It is no name-addr or addr-spec with parameters.
        """
        return cls._parse(text, True) if brackets else cls._of(*known_address(":" + text))

    @classmethod
    def _of(cls, known: NameAddr, tag: str | None) -> NameAddr:
        params = known.params.copy()
        if tag is not None:
            params["tag"] = tag
        return cls(known.uri, known.display_name, params)

    @classmethod
    def _parse(cls, text: str, brackets: bool) -> NameAddr:
        name: str | None = None
        if not text.startswith("<"):
            name, text, bare = _split_display_name(text)
            if bare:
                if brackets:
                    raise MessageParsingException(f"{excerpt(text)} is not in angle brackets.")
                return cls._parse_bare(text)
        inner, bracket, tail = text[1:].partition(">")
        if not bracket:
            raise MessageParsingException(f"In {excerpt(text)} the angle bracket is not closed.")
        address = cls.__new__(cls)
        address.display_name = name
        address.uri = parse_uri(inner)
        if tail:
            params = address.params = parse_tail(tail, text)
            if "tag" in params:
                _check_tag(params)
        else:
            address.params = {}
        return address

    @classmethod
    def _parse_bare(cls, text: str) -> NameAddr:
        # RFC 3261 20: without brackets, semicolons belong to the field, and neither , nor ? may occur.
        address, semicolon, tail = text.partition(";")
        address = address.rstrip(" \t")
        if "," in address or "?" in address:
            raise MessageParsingException(f"{excerpt(text)} must be in angle brackets.")
        params = parse_parameters(tail) if semicolon else {}
        if "tag" in params:
            _check_tag(params)
        return cls(parse_uri(address), None, params)

    @property
    def tag(self) -> str | None:
        return self.params.get("tag")

    def __str__(self) -> str:
        name = "" if self.display_name is None else format_display_name(self.display_name) + " "
        return f"{name}<{self.uri}>{format_parameters(self.params)}"

    def __repr__(self) -> str:
        return f"NameAddr.parse({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, NameAddr):
            return NotImplemented
        return (self.display_name, self.uri, self.params) == (other.display_name, other.uri, other.params)

    def __hash__(self) -> int:
        return hash(self.uri)


def known_address(line: str) -> tuple[NameAddr, str | None]:
    """The address that is the value of a line, and its tag.

    Most come again and again, each time with another tag: what stands before the tag is remembered. So the address
    may lack it, and belongs to everybody: nobody is to change it.
    """
    before, found, tag = line.rpartition(";tag=")
    if found and tag.isalnum() and tag.isascii():
        known = _KNOWN_ADDRESSES[before]
        if "tag" not in known.params:
            return (known, tag)
    known = _parse_address(line) if found else _KNOWN_ADDRESSES[line]
    return (known, known.params.get("tag"))


def _parse_address(line: str) -> NameAddr:
    return NameAddr._parse(line_value(line), False)


_KNOWN_ADDRESSES = Remembered(_parse_address)


def _check_tag(params: dict[str, str | None]) -> None:
    tag = params["tag"]
    if tag is None or not is_token(tag):
        raise MessageParsingException(f"{excerpt(str(tag))} is not a tag.")


def _split_display_name(text: str) -> tuple[str | None, str, bool]:
    """Display name, the rest, and whether the rest is a bare URI."""
    if text.startswith('"'):
        end = quoted_end(text)
        rest = text[end:].lstrip(" \t") if end > 0 else ""
        if not rest.startswith("<"):
            raise MessageParsingException(f"{excerpt(text)} is not a quoted name and an address in angle brackets.")
        return (unquote(text[:end]), rest, False)
    name, bracket, rest = text.partition("<")
    if not bracket or ";" in name or ":" in name:
        return (None, text, True)
    name = name.rstrip(" \t")
    if not all(map(is_token, split_words(name))):
        raise MessageParsingException(f"The display name {excerpt(name)} must be quoted.")
    return (name, "<" + rest, False)


def parse_contact(text: str) -> NameAddr:
    """One value of Contact, with the rules on its parameters (RFC 3261 20.10)."""
    contact = NameAddr.parse(text)
    params = contact.params
    if params:
        q = params.get("q", "1")
        if q is None or _QVALUE.fullmatch(q) is None:
            raise MessageParsingException(f"{excerpt(str(q))} is not a q value: 0 to 1 with at most three decimals.")
        if "expires" in params:
            parse_number(params["expires"] or "")
    return contact


class _Sender(NamedTuple):
    """What is the same in every Via of one sender."""

    protocol: str
    version: str
    transport: str
    host: str
    port: int | None
    sent_by: tuple[str, int]

    @classmethod
    def of(cls, protocol: str, version: str, transport: str, host: str, port: int | None) -> _Sender:
        sent_by = (host.lower(), port or DEFAULT_PORTS.get(transport.upper(), 5060))
        return cls(protocol, version, transport, host, port, sent_by)


class Via:
    """One value of Via (RFC 3261 20.42).

    Attributes:
        protocol, version, transport: As written, usually ``SIP``, ``2.0`` and ``TLS``.
        host: As written; an IPv6 address in its brackets.
        port: None when none is given.
        sent_by: Host in lower case, and the port or its default.
        params: See the module.
        branch: None when there is none, as in RFC 2543.
    """

    __slots__ = ("_sender", "params")

    _sender: _Sender
    params: dict[str, str | None]

    def __init__(
        self,
        transport: str,
        host: str,
        port: int | None = None,
        params: dict[str, str | None] | None = None,
        *,
        protocol: str = "SIP",
        version: str = "2.0",
    ) -> None:
        self._sender = _Sender.of(protocol, version, transport, host, port)
        self.params = {} if params is None else params

    @classmethod
    def parse(cls, text: str) -> Via:
        """The value that the text is.

        Raises:
            MessageParsingException: It is no Via value of SIP 2.0.
        """
        return cls.of(":" + text)

    @classmethod
    def of(cls, line: str) -> Via:
        """The same of a line that holds one value."""
        sender, semicolon, tail = line.partition(";")
        via = cls.__new__(cls)
        via._sender = _KNOWN_SENDERS[sender]
        name, _, branch = tail.partition("=")
        if name == "branch" and branch.isalnum() and branch.isascii():
            via.params = {"branch": branch}  # most have a branch and nothing else
        elif semicolon:
            via.params = parse_parameters(tail)
            _check_via_parameters(via.params)
        else:
            via.params = {}
        return via

    @property
    def protocol(self) -> str:
        return self._sender.protocol

    @property
    def version(self) -> str:
        return self._sender.version

    @property
    def transport(self) -> str:
        return self._sender.transport

    @property
    def host(self) -> str:
        return self._sender.host

    @property
    def port(self) -> int | None:
        return self._sender.port

    @property
    def sent_by(self) -> tuple[str, int]:
        return self._sender.sent_by

    @property
    def branch(self) -> str | None:
        return self.params.get("branch")

    def __str__(self) -> str:
        port = "" if self.port is None else f":{self.port}"
        parameters = format_parameters(self.params)
        return f"{self.protocol}/{self.version}/{self.transport} {self.host}{port}{parameters}"

    def __repr__(self) -> str:
        return f"Via.parse({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Via):
            return NotImplemented
        return (self.transport, self.sent_by, self.params) == (other.transport, other.sent_by, other.params)

    def __hash__(self) -> int:
        return hash((self.transport, self.sent_by))


def _parse_sender(line: str) -> _Sender:
    """``SIP/2.0/TLS host:port``, with white space wherever RFC 3261 lets it stand."""
    text = line_value(line)
    parts = text.split("/", 2)
    protocol, version = (part.strip(" \t") for part in parts[:2]) if len(parts) == 3 else ("", "")
    transport, _, location = parts[-1].lstrip(" \t").replace("\t", " ").partition(" ")
    if not text.isascii() or protocol.upper() != "SIP" or version != "2.0" or not is_token(transport):
        raise MessageParsingException(f"{excerpt(text)} is not a Via of SIP 2.0.")
    host, port = parse_host_and_port(location.strip(" "))
    return _Sender.of(protocol, version, transport, host, port)


_KNOWN_SENDERS = Remembered(_parse_sender)


def _check_via_parameters(params: dict[str, str | None]) -> None:
    if "branch" in params and not is_token(params["branch"] or ""):
        raise MessageParsingException(f"{excerpt(str(params['branch']))} is not a branch.")
    if "ttl" in params:
        parse_number(params["ttl"] or "", 255)
    received = params.get("received", "0.0.0.0") or ""
    # RFC 5118 4.5: some put an IPv6 address in brackets here too.
    if not is_ip_address(received[1:-1] if received.startswith("[") and received.endswith("]") else received):
        raise MessageParsingException(f"{excerpt(received)} is not the address that received should be.")
    rport = params.get("rport")
    if rport is not None and not parse_number(rport, 65535):
        raise MessageParsingException("rport cannot be 0.")


def _parse_max_forwards(line: str) -> int:
    """0 to 255 (RFC 3261 20.22)."""
    return parse_number(line_value(line), 255)


KNOWN_MAX_FORWARDS = Remembered(_parse_max_forwards)
