"""Names of issuers and serial numbers as people write them, compared with what stands in certificates."""

from __future__ import annotations

import re
from collections.abc import Iterator

from cryptography import x509
from cryptography.x509.oid import NameOID

Attribute = tuple[str, str]
"""The dotted OID of a type, and a value made comparable."""
RelativeName = frozenset[Attribute]
"""What stands between two commas: nearly always one attribute (RFC 4514 2.2)."""

_TYPES = {
    "CN": "2.5.4.3",
    "SN": "2.5.4.4",
    "SURNAME": "2.5.4.4",
    "SERIALNUMBER": "2.5.4.5",
    "C": "2.5.4.6",
    "L": "2.5.4.7",
    "ST": "2.5.4.8",
    "S": "2.5.4.8",  # as Windows writes it
    "STREET": "2.5.4.9",
    "O": "2.5.4.10",
    "OU": "2.5.4.11",
    "T": "2.5.4.12",
    "TITLE": "2.5.4.12",
    "G": "2.5.4.42",
    "GN": "2.5.4.42",
    "GIVENNAME": "2.5.4.42",
    "INITIALS": "2.5.4.43",
    "ORGANIZATIONIDENTIFIER": "2.5.4.97",
    "DC": "0.9.2342.19200300.100.1.25",
    "UID": "0.9.2342.19200300.100.1.1",
    "E": "1.2.840.113549.1.9.1",
    "EMAIL": "1.2.840.113549.1.9.1",
    "EMAILADDRESS": "1.2.840.113549.1.9.1",
}
_OID = re.compile(r"(?:OID\.)?([0-2](?:\.[0-9]+)+)", re.IGNORECASE)
_HEX_BYTES = re.compile(r"(?:[0-9A-Fa-f]{2})+")
_STRING_TAGS = {12: "utf-8", 19: "ascii", 20: "latin-1", 22: "ascii", 28: "utf-32-be", 30: "utf-16-be"}


class IssuerName:
    """The name of an issuer as the caller gave it.

    A distinguished name in the forms of RFC 4514, OpenSSL and Windows, most specific part first or last; or, without
    any ``=``, just the issuer's common name (its organization or unit where it has no common name). Case and runs of
    spaces do not count (RFC 5280 7.1).

    Raises:
        ValueError: It is empty.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._short = _comparable(text)
        if not self._short:
            raise ValueError("The name of the issuer is empty: give its distinguished name or its common name.")
        try:
            self._parts: list[RelativeName] | None = parse_name(text)
        except ValueError:
            self._parts = None

    def __str__(self) -> str:
        return self.text

    def fits(self, name: x509.Name) -> bool:
        """Whether that is the name of this certificate's issuer."""
        if self._parts is not None:
            theirs = name_parts(name)
            if theirs in (self._parts, self._parts[::-1]):
                return True
        return self._short in _short_names(name)


def parse_name(text: str) -> list[RelativeName]:
    """A distinguished name in its written order.

    Raises:
        ValueError: It is none.
    """
    separators = ",;"
    if text.startswith("/") and "=" in text:  # as OpenSSL prints with one line
        text, separators = text[1:], "/"
    parts = []
    for part in _split(text, separators):
        attributes = []
        for attribute in _split(part, "+"):
            kind, equals, value = attribute.partition("=")
            if not equals:
                raise ValueError(f"{attribute!r} is not an attribute such as CN=name.")
            attributes.append((_type(kind.strip()), _value(_trimmed(value))))
        parts.append(frozenset(attributes))
    return parts


def name_parts(name: x509.Name) -> list[RelativeName]:
    """The name of a certificate in the order of :func:`parse_name`, made comparable."""
    return [frozenset((a.oid.dotted_string, _comparable(_text(a.value))) for a in rdn) for rdn in reversed(name.rdns)]


def serial_numbers(value: int | str | bytes) -> list[int]:
    """What a serial number as the caller gave it may mean, the likely meaning first.

    ``int``; hex ``str`` with colons, spaces or ``0x``; ``bytes`` in the order that viewers show, or reversed as .NET
    gives them.

    Raises:
        ValueError, TypeError: It is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | str | bytes | bytearray | memoryview):
        raise TypeError(f"A serial number is an int, hex text or bytes, not {type(value).__name__}.")
    if isinstance(value, int):
        return [value]
    if isinstance(value, str):
        digits = re.sub(r"[\s:]", "", value)
        digits = digits[2:] if digits[:2] in ("0x", "0X") else digits
        if re.fullmatch(r"[0-9A-Fa-f]+", digits) is None:
            raise ValueError(f"{value!r} is not a serial number: hex digits are expected, such as '5f:3a:00:c1'.")
        return [int(digits, 16)]
    octets = bytes(value)
    if not octets:
        raise ValueError("The serial number is empty.")
    return list(dict.fromkeys((int.from_bytes(octets, "big"), int.from_bytes(octets, "little"))))


def shown_serial(number: int) -> str:
    """``5f:3a:00:c1``, as viewers show it."""
    digits = f"{number:x}"
    digits = digits.zfill(len(digits) + len(digits) % 2)
    return ":".join(digits[i : i + 2] for i in range(0, len(digits), 2))


def shown_name(name: x509.Name) -> str:
    """RFC 4514, or a word for the empty name."""
    return name.rfc4514_string() or "(no name)"


def _short_names(name: x509.Name) -> set[str]:
    """The common names; without any, organization and unit."""
    for kinds in ((NameOID.COMMON_NAME,), (NameOID.ORGANIZATION_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME)):
        found = {_comparable(_text(a.value)) for kind in kinds for a in name.get_attributes_for_oid(kind)}
        if found:
            return found
    return set()


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.hex()


def _comparable(text: str) -> str:
    return " ".join(text.split()).casefold()


def _type(text: str) -> str:
    oid = _OID.fullmatch(text)
    if oid is not None:
        return oid[1]
    try:
        return _TYPES[text.upper()]
    except KeyError:
        raise ValueError(f"{text!r} is not a type of a distinguished name.") from None


def _value(text: str) -> str:
    """Unquoted, unescaped (RFC 4514 2.4) and made comparable."""
    if text.startswith("#") and _HEX_BYTES.fullmatch(text[1:]):
        return _comparable(_der_text(bytes.fromhex(text[1:])))
    if len(text) >= 2 and text[0] == text[-1] == '"':
        text = text[1:-1]
    octets = bytearray()
    position = 0
    while position < len(text):
        if text[position] != "\\" or position + 1 == len(text):
            octets += text[position].encode("utf-8", "surrogatepass")
            position += 1
        elif _HEX_BYTES.fullmatch(text[position + 1 : position + 3]):
            octets.append(int(text[position + 1 : position + 3], 16))
            position += 3
        else:
            octets += text[position + 1].encode("utf-8", "surrogatepass")
            position += 2
    return _comparable(octets.decode("utf-8", "replace"))


def _trimmed(text: str) -> str:
    """Without the spaces around it, but for one at the end that is escaped (RFC 4514 2.4)."""
    text = text.lstrip(" ")
    bare = text.rstrip()
    escapes = len(bare) - len(bare.rstrip("\\"))
    return text[: len(bare) + escapes % 2]


def _der_text(octets: bytes) -> str:
    """The value of ``#`` and hex digits: a string in DER."""
    encoding = _STRING_TAGS.get(octets[0])
    if encoding is not None and len(octets) >= 2 and octets[1] == len(octets) - 2 < 128:
        return octets[2:].decode(encoding, "replace")
    return octets.hex()


def _split(text: str, separators: str) -> Iterator[str]:
    """Cut at separators that are neither quoted nor escaped."""
    start, quoted, escaped = 0, False, False
    for position, character in enumerate(text):
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = True
        elif character == '"':
            quoted = not quoted
        elif character in separators and not quoted:
            if separators == "/" and not re.match(r"[A-Za-z0-9.]+\s*=", text[position + 1 :]):
                continue
            yield text[start:position]
            start = position + 1
    yield text[start:]
