"""Thread tools: operations, events, strands. Knows neither SIP nor sockets."""

from __future__ import annotations

from p2psip.sync.dispatch import Dispatcher
from p2psip.sync.event import Event, Expectation, OnError, has_handlers
from p2psip.sync.operation import Operation
from p2psip.sync.strand import Strand
from p2psip.sync.waiting import Deadline, forbid_blocking, fork_safe_lock, worker_blocks

__all__ = [
    "Deadline",
    "Dispatcher",
    "Event",
    "Expectation",
    "OnError",
    "Operation",
    "Strand",
    "forbid_blocking",
    "fork_safe_lock",
    "has_handlers",
    "worker_blocks",
]
