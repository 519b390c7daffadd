"""Where the core gets identifiers and chance from."""

from __future__ import annotations

from typing import Protocol


class Tokens(Protocol):
    """Where identifiers come from that nobody may guess (RFC 3261 8.1.1.7, 19.3)."""

    def branch(self) -> str: ...
    def tag(self) -> str: ...
    def call_id(self) -> str: ...
    def fraction(self) -> float:
        """From 0 up to 1: for waits that two sides should not end at the same time."""
