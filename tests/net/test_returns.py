"""Connections that were made for an answer and nothing else."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from p2psip.errors import ConnectionFailureException
from p2psip.net.returns import Returns


@pytest.mark.parametrize(
    ("received", "unanswered", "is_closed"),
    [(0, 0, True), (1, 0, False), (0, 1, False)],
    ids=["unused", "heard", "ours"],
)
def test_only_what_nothing_comes_over_is_closed(received: int, unanswered: int, is_closed: bool) -> None:
    closed: list[Any] = []
    connection: Any = SimpleNamespace(
        messages_received=received, unanswered=unanswered, peer="192.0.2.9:5060", close=closed.append
    )
    Returns(SimpleNamespace())._close_unused(connection)  # type: ignore[arg-type]
    assert [type(error) for error in closed] == [ConnectionFailureException] * is_closed
