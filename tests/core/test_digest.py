"""The arithmetic of digest authentication, and how challenges are read and answered (RFC 7616, RFC 8760)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from p2psip.core.digest import (
    Challenge,
    challenge_text,
    challenges_of,
    choose,
    credentials_text,
    hashed,
    response_digest,
    secret_of,
)
from p2psip.message import parse_field, quoted

TABLES = Path(__file__).resolve().parent.parent / "data" / "corpus" / "tables"
ROWS: list[dict[str, Any]] = json.loads((TABLES / "digest.json").read_text("utf-8"))["rows"]
NEGOTIATION: dict[str, dict[str, Any]] = {
    row["case"]: row for row in json.loads((TABLES / "digest_negotiation.json").read_text("utf-8"))["rows"]
}


@pytest.mark.parametrize("row", ROWS, ids=[row["name"] for row in ROWS])
def test_every_row_of_the_table(row: dict[str, Any]) -> None:
    algorithm = row["algorithm"] or "MD5"
    secret = secret_of(algorithm, row["username"], row["realm"], row["password"])
    common = {"nonce": row["nonce"], "uri": row["uri"], "qop": row["qop"], "nc": row["nc"], "cnonce": row["cnonce"]}
    body = row["body"].encode()
    if not algorithm.endswith("-sess"):
        assert secret == row["ha1"]
    assert response_digest(algorithm, secret, method=row["method"], body=body, **common) == row["response"]
    if row["rspauth"] is not None:
        assert response_digest(algorithm, secret, method="", body=body, **common) == row["rspauth"]
    if row.get("userhash"):
        assert hashed(algorithm, f"{row['username']}:{row['realm']}") == row["userhash"]
    if row.get("printed_matches"):
        assert row["printed_response"] == row["response"]


def challenge(algorithm: str | None, more: str = 'qop="auth"', realm: str = "example.net") -> str:
    named = "" if algorithm is None else f", algorithm={algorithm}"
    return f'Digest realm="{realm}", nonce="n"{named}, {more}'.rstrip(", ")


def chosen(algorithms: list[str | None], allow_md5: bool = True) -> str | None:
    found = choose(challenges_of(challenge(algorithm) for algorithm in algorithms), allow_md5)
    return None if found is None else found.algorithm


def test_several_challenges_for_one_realm() -> None:
    """We understand what the row's client does not: the topmost that is known is taken."""
    row = NEGOTIATION["several WWW-Authenticate, topmost supported is used"]
    assert chosen(row["challenges"]) == "SHA-512-256"
    assert chosen([name for name in row["challenges"] if name in row["client_supports"]]) == row["expected_algorithm"]


def test_no_algorithm_is_md5() -> None:
    row = NEGOTIATION["no algorithm parameter means MD5"]
    assert chosen(row["challenges"]) == row["expected_algorithm"]
    assert chosen(row["challenges"], allow_md5=False) is None


def test_nothing_that_is_known() -> None:
    assert chosen(NEGOTIATION["nothing supported"]["challenges"]) is None


def test_md5_is_never_preferred() -> None:
    assert chosen(["MD5", "SHA-256"]) == "SHA-256"
    assert chosen(["MD5-sess", "sha-256-SESS"]) == "SHA-256-sess"
    assert chosen(["MD5", "MD5-sess"], allow_md5=False) is None


def answer(text: str, **more: Any) -> dict[str, str]:
    (found,) = challenges_of([text])
    options: dict[str, Any] = {
        "method": "INVITE",
        "uri": "sip:bob@example.net",
        "body": b"v=0",
        "nc": 1,
        "cnonce": "c",
    } | more
    written = credentials_text(found, "bob", secret_of(found.algorithm, "bob", found.realm, "zanzibar"), **options)
    scheme, params = parse_field("Authorization", written)
    assert scheme == "Digest"
    return dict(params)


def test_without_qop_the_answer_is_that_of_rfc_2069() -> None:
    row = NEGOTIATION["qop absent from the challenge: no qop, nc or cnonce in Authorization"]
    params = answer(challenge(None, ""))
    assert not set(row["expected_absent"]) & set(params)
    assert set(params) == {"username", "realm", "nonce", "uri", "response"}


def test_the_answer_says_what_the_challenge_said() -> None:
    params = answer(challenge("SHA-256", 'qop="auth-int,auth", opaque="o\\"p", userhash=false, domain="sip:x"'), nc=16)
    assert (params["qop"], params["nc"], params["cnonce"]) == ("auth", "00000010", "c")
    assert (params["algorithm"], params["opaque"], params["username"]) == ("SHA-256", 'o"p', "bob")
    assert "userhash" not in params


def test_the_body_is_vouched_for_where_nothing_else_will_do() -> None:
    first = answer(challenge("SHA-256", 'qop="auth-int"'))
    assert first["qop"] == "auth-int"
    assert answer(challenge("SHA-256", 'qop="auth-int"'), body=b"v=1")["response"] != first["response"]


def test_the_name_is_hashed_where_the_server_knows_that() -> None:
    params = answer(challenge("SHA-256", 'qop="auth", userhash=true'))
    assert (params["username"], params["userhash"]) == (hashed("SHA-256", "bob:example.net"), "true")


def test_a_newer_nonce() -> None:
    assert answer(challenge("SHA-256"), nonce="newer")["nonce"] == "newer"


def test_several_challenges_in_one_field() -> None:
    text = f'{challenge("MD5", "")}, Basic realm="example.net", {challenge("SHA-256", realm="other")}'
    found = challenges_of([text, challenge("SHA-512-256")])
    assert [(each.realm, each.algorithm) for each in found] == [
        ("example.net", "MD5"),
        ("other", "SHA-256"),
        ("example.net", "SHA-512-256"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Digest",
        'Basic realm="x"',
        'Digest realm="x"',
        'Digest nonce="x"',
        'Digest realm="x", nonce="y", qop="other"',
        'Digest realm="x", nonce="y", realm="z"',
        'Digest realm="x, nonce="y"',
        'realm="x", nonce="y"',
        'Digest realm="x", nonce="y", algorithm=SHA-1',
    ],
)
def test_what_cannot_be_answered_is_no_challenge(text: str) -> None:
    assert challenges_of([text]) == []


def test_what_is_written_is_read_again() -> None:
    text = challenge_text('r"e\\a,lm', "n=", "SHA-256", "auth,auth-int", stale=True)
    assert challenges_of([text]) == [
        Challenge('r"e\\a,lm', "n=", "SHA-256", True, ("auth", "auth-int"), None, True, False)
    ]
    name = 'a"b\\c'
    assert parse_field("Authorization", f"Digest username={quoted(name)}").params == {"username": name}


@pytest.mark.parametrize("gap", ["\t", "  ", " \t "])
def test_any_white_space_follows_the_scheme(gap: str) -> None:
    """RFC 3261 25.1: LWS, which a tab is too."""
    text = f'Digest{gap}realm="a", nonce="n", algorithm=SHA-256, Digest{gap}realm="b", nonce="n", algorithm=SHA-256'
    assert [challenge.realm for challenge in challenges_of([text])] == ["a", "b"]
    assert parse_field("Authorization", f'Digest{gap}username="x"') == ("Digest", {"username": "x"})
