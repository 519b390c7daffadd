"""What holds for the names of issuers and the serial numbers that people give: used by the tests and a fuzz target."""

from __future__ import annotations

import functools

from cryptography import x509

from p2psip.net.names import IssuerName, name_parts, parse_name, serial_numbers, shown_name, shown_serial


@functools.cache
def known_names() -> list[x509.Name]:
    """Of authorities: ordinary, empty, with odd characters, with an attribute that comes twice."""
    texts = ["", "CN=Example Root", r"CN=A\,B\+C,O=x\=y,C=DE", "OU=one+OU=two,O=Org", r"CN=\ space\ ,DC=a,DC=b"]
    return [x509.Name.from_rfc4514_string(text) for text in texts]


def check_issuer(text: str) -> None:
    """Whatever is given as an issuer: it is one, or ValueError says why not."""
    try:
        parts = parse_name(text)
    except ValueError as error:
        assert str(error)
    else:
        assert all(parts)
    try:
        issuer = IssuerName(text)
    except ValueError as error:
        assert str(error)
        return
    assert str(issuer) == text
    for name in known_names():
        assert isinstance(issuer.fits(name), bool)


def check_written_name(text: str) -> None:
    """A name that somebody else reads in that text is found by what is printed of it, and by its parts."""
    try:
        name = x509.Name.from_rfc4514_string(text)
        name.public_bytes()  # what cannot stand in a certificate is no name
    except (ValueError, KeyError, TypeError):
        return
    printed = shown_name(name)
    if name.rdns and all(attribute.value for attribute in name):
        assert IssuerName(printed).fits(name), printed
        assert parse_name(printed) == name_parts(name), printed


def check_serial(value: str | bytes | int) -> None:
    try:
        numbers = serial_numbers(value)
    except ValueError as error:
        assert str(error)
        return
    assert numbers
    for number in numbers:
        if number >= 0:
            assert number in serial_numbers(shown_serial(number))
