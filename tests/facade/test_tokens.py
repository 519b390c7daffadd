"""Identifiers that nobody may guess."""

from __future__ import annotations

import concurrent.futures

from p2psip.tokens import SecretTokens


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
