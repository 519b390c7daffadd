"""The limits and timers that hold when nothing is said."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from p2psip import ManagerSettings

KIB, MIB = 1024, 1024 * 1024

PROMISED: dict[str, dict[str, Any]] = {
    "R7": {"handshake_timeout": 10, "connect_timeout": 10},
    "R18": {
        "maximum_start_line": 8 * KIB,
        "maximum_header": 8 * KIB,
        "maximum_head": 64 * KIB,
        "maximum_headers": 256,
        "maximum_values": 64,
        "maximum_body": MIB,
    },
    "R25": {"first_message_timeout": 32, "message_timeout": 15},
    "R26": {"idle_timeout": 900, "pong_timeout": 10, "maximum_pings_per_second": 10},
    "R27": {
        "maximum_connections": 4096,
        "maximum_connections_per_address": 128,
        "maximum_handshakes": 256,
        "maximum_handshakes_per_address": 32,
    },
    "R28": {
        "send_high_mark": 256 * KIB,
        "maximum_send_queue": MIB,
        "send_timeout": 20,
        "maximum_buffered": 64 * MIB,
    },
    "R29": {
        "maximum_transactions": 100_000,
        "maximum_unanswered_per_connection": 10_000,
        "maximum_dialogs": 100_000,
        "strand_high_mark": 1000,
        "strand_low_mark": 500,
    },
    "R30": {
        "maximum_handshakes_per_second": None,
        "maximum_handshakes_per_second_per_address": None,
        "maximum_requests_per_second": None,
    },
    "R33": {"accept_pause": 0.2},
    "R39": {"dispose_grace": 5},
}


@pytest.mark.holds("R7", "R18", "R25", "R26", "R27", "R28", "R29", "R30")
@pytest.mark.parametrize("requirement", PROMISED)
def test_what_is_promised_holds_by_default(requirement: str) -> None:
    values = dataclasses.asdict(ManagerSettings())
    assert {name: values[name] for name in PROMISED[requirement]} == PROMISED[requirement]
