"""Endpoints that take in nothing more, until what is under way has ended."""

from __future__ import annotations

from collections.abc import Sized
from typing import Protocol

from p2psip.core.directory import EndpointRecord
from p2psip.sync import Operation


class Drained(Protocol):
    """An endpoint, as far as it matters here."""

    @property
    def _record(self) -> EndpointRecord: ...
    @property
    def _pending(self) -> Sized: ...


class Drains:
    """Those of one stack. Loop thread.

    Attributes:
        waiting: The endpoints, each with the operation that ends when it has nothing under way.
    """

    def __init__(self) -> None:
        self.waiting: list[tuple[Drained, Operation[None]]] = []

    def add(self, endpoint: Drained, operation: Operation[None]) -> None:
        """End the operation as soon as the endpoint has nothing under way; see :meth:`look`."""
        endpoint._record.accepting = False
        self.waiting.append((endpoint, operation))

    def look(self) -> None:
        """Something has ended, perhaps."""
        for entry in list(self.waiting):
            endpoint, operation = entry
            if operation.done():
                self.waiting.remove(entry)
            elif not endpoint._pending and not endpoint._record.serving:
                self.waiting.remove(entry)
                operation.complete(None)

    def end(self) -> None:
        """There is no loop any more."""
        for _, operation in self.waiting:
            operation.complete(None)
