"""Identifiers that nobody may guess."""

from __future__ import annotations

import collections
import secrets

TOKEN_BYTES = 10
TOKENS_PER_BLOCK = 256


class SecretTokens:
    """Branches, tags and Call-IDs that nobody can guess: 80 bits each. Usable from any thread.

    They come from blocks of ``secrets``: asking the system for each of them costs more than all else about it.
    """

    __slots__ = ("_stock",)

    def __init__(self) -> None:
        self._stock: collections.deque[str] = collections.deque()

    def tag(self) -> str:
        while True:
            try:
                return self._stock.popleft()
            except IndexError:
                block = secrets.token_hex(TOKEN_BYTES * TOKENS_PER_BLOCK)
                size = 2 * TOKEN_BYTES
                self._stock.extend(block[start : start + size] for start in range(0, len(block), size))

    call_id = tag

    def branch(self) -> str:
        return "z9hG4bK" + self.tag()

    def fraction(self) -> float:
        """From 0 up to 1."""
        return int(self.tag()[:8], 16) / (1 << 32)
