"""Issuer names and serial numbers in all the forms that people and programs write."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from p2psip.net.names import IssuerName, name_parts, parse_name, serial_numbers, shown_serial

CONTOSO = x509.Name(
    [
        x509.NameAttribute(NameOID.COUNTRY_NAME, "US"),
        x509.NameAttribute(NameOID.STATE_OR_PROVINCE_NAME, "Washington"),
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Contoso, Ltd."),
        x509.NameAttribute(NameOID.COMMON_NAME, "Contoso  Issuing CA"),
        x509.NameAttribute(NameOID.EMAIL_ADDRESS, "ca@contoso.com"),
    ]
)


@pytest.mark.holds("R14")
@pytest.mark.parametrize(
    "text",
    [
        "Contoso Issuing CA",
        "contoso   issuing ca",
        " Contoso Issuing CA ",
        r"E=ca@contoso.com,CN=Contoso Issuing CA,O=Contoso\, Ltd.,ST=Washington,C=US",
        r"1.2.840.113549.1.9.1=ca@contoso.com,CN=Contoso Issuing CA,O=Contoso\, Ltd.,ST=Washington,C=US",
        'E=ca@contoso.com, CN=Contoso Issuing CA, O="Contoso, Ltd.", S=Washington, C=US',
        'C = US, ST = Washington, O = "Contoso, Ltd.", CN = Contoso Issuing CA, emailAddress = ca@contoso.com',
        "/C=US/ST=Washington/O=Contoso, Ltd./CN=Contoso Issuing CA/emailAddress=ca@contoso.com",
        'E=ca@contoso.com; CN=Contoso Issuing CA; O="Contoso, Ltd."; ST=Washington; C=US',
        r"e=CA@CONTOSO.COM,cn=contoso issuing ca,o=contoso\2c ltd.,st=washington,c=us",
        r"OID.1.2.840.113549.1.9.1=ca@contoso.com,OID.2.5.4.3=Contoso Issuing CA,2.5.4.10=Contoso\, Ltd.,ST=Washington,C=US",
        r"E=ca@contoso.com,CN=#0C13436F6E746F736F202049737375696E67204341,O=Contoso\, Ltd.,ST=Washington,C=US",
        CONTOSO.rfc4514_string(),
    ],
)
def test_forms_that_fit(text: str) -> None:
    assert IssuerName(text).fits(CONTOSO)


@pytest.mark.parametrize(
    "value", ["ends with a space ", "with two  ", " ", "\\", "a\\ ", '"', '" ', " #x", "\n#0c0161", "a+b,c;d=e/f<g>"]
)
def test_what_is_printed_of_a_name_fits_it(value: str) -> None:
    """RFC 4514 2.4 escapes a space at the end."""
    name = x509.Name([x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"), x509.NameAttribute(NameOID.COMMON_NAME, value)])
    assert IssuerName(name.rfc4514_string()).fits(name)
    assert parse_name(name.rfc4514_string()) == name_parts(name)


@pytest.mark.holds("R14")
@pytest.mark.parametrize(
    "text",
    [
        "Contoso",
        "Contoso Issuing",
        "CN=Contoso Issuing CA,O=Fabrikam",
        r"CN=Contoso Issuing CA,E=ca@contoso.com,O=Contoso\, Ltd.,ST=Washington,C=US",
        "Contoso, Ltd.",  # the organization counts only where there is no common name
        "XX=Contoso Issuing CA",
        "=",
        "CN",
    ],
)
def test_forms_that_do_not_fit(text: str) -> None:
    assert not IssuerName(text).fits(CONTOSO)


def test_without_a_common_name_organization_and_unit_count() -> None:
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Contoso"),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "Issuing CA"),
        ]
    )
    assert IssuerName("issuing ca").fits(name)
    assert IssuerName("contoso").fits(name)
    assert not IssuerName("fabrikam").fits(name)


def test_a_common_name_with_an_equals_sign() -> None:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a=b")])
    assert IssuerName("a=b").fits(name)
    assert IssuerName("CN=a=b").fits(name)


def test_several_attributes_at_one_place() -> None:
    name = x509.Name(
        [
            x509.RelativeDistinguishedName(
                [
                    x509.NameAttribute(NameOID.COMMON_NAME, "a+b"),
                    x509.NameAttribute(NameOID.USER_ID, "7"),
                ]
            )
        ]
    )
    assert IssuerName(r"UID=7+CN=a\+b").fits(name)
    assert IssuerName(r"CN=a\+b + UID=7").fits(name)
    assert not IssuerName(r"CN=a\+b,UID=7").fits(name)


def test_slashes_in_values() -> None:
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "A/B")])
    assert IssuerName("/O=A/B").fits(name)


def test_an_empty_name_is_refused() -> None:
    with pytest.raises(ValueError):
        IssuerName("  ")


@pytest.mark.parametrize("text", ["CN", "CN=a,b", "??=x", ""])
def test_what_is_no_distinguished_name(text: str) -> None:
    with pytest.raises(ValueError):
        parse_name(text)


@pytest.mark.holds("R14")
@pytest.mark.parametrize(
    ("value", "numbers"),
    [
        (0x5F3A00C1, [0x5F3A00C1]),
        ("5f:3a:00:c1", [0x5F3A00C1]),
        ("5F 3A 00 C1", [0x5F3A00C1]),
        ("0x5f3a00c1", [0x5F3A00C1]),
        ("00:5f3A00c1", [0x5F3A00C1]),
        (bytes.fromhex("5f3a00c1"), [0x5F3A00C1, 0xC1003A5F]),
        (bytearray.fromhex("005f3a00c1"), [0x5F3A00C1, 0xC1003A5F00]),
        (b"\x11\x11", [0x1111]),
    ],
)
def test_serial_numbers(value: int | str | bytes, numbers: list[int]) -> None:
    assert serial_numbers(value) == numbers


@pytest.mark.parametrize("value", ["", "xyz", "5f-3a", "-1", b"", "0x"])
def test_values_that_are_no_serial_number(value: str | bytes) -> None:
    with pytest.raises(ValueError):
        serial_numbers(value)


@pytest.mark.parametrize("value", [None, 1.5, True, ["5f"]])
def test_types_that_are_no_serial_number(value: object) -> None:
    with pytest.raises(TypeError):
        serial_numbers(value)  # type: ignore[arg-type]


def test_serial_numbers_are_shown_as_viewers_do() -> None:
    assert shown_serial(0x5F3A00C1) == "5f:3a:00:c1"
    assert shown_serial(0xF) == "0f"
    assert shown_serial(0) == "00"
