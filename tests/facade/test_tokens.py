"""Identifiers that nobody may guess."""

from __future__ import annotations

import concurrent.futures
import re
from pathlib import Path

import pytest

import p2psip
from p2psip.tokens import SecretTokens

PACKAGE = Path(p2psip.__file__).parent
NO_SECRETS = {"net/connection.py", "net/reach.py", "net/resolver.py", "cli/names.py"}
"""When pings and further tries are due, and which of several equal servers is asked."""


@pytest.mark.holds("A24")
def test_no_two_are_alike_whatever_threads_ask() -> None:
    tokens = SecretTokens()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        taken = [token for batch in pool.map(lambda _: [tokens.tag() for _ in range(500)], range(8)) for token in batch]
    assert len(set(taken)) == 4000
    assert all(len(token) == 20 and int(token, 16) >= 0 for token in taken)  # 80 bits


def test_a_branch_says_that_it_is_one_of_rfc_3261() -> None:
    tokens = SecretTokens()
    assert tokens.branch().startswith("z9hG4bK")
    assert tokens.branch() != tokens.branch()


@pytest.mark.holds("A24")
def test_nothing_is_drawn_that_could_be_guessed() -> None:
    """The core has no source of its own, and what draws servers or delays is no secret."""
    users = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if re.search(r"^(import|from) random\b", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert users <= NO_SECRETS
    tokens = SecretTokens()
    for draw in (tokens.tag, tokens.call_id, tokens.branch):
        assert len(bytes.fromhex(draw().removeprefix("z9hG4bK"))) * 8 >= 64
