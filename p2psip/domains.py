"""Sets of domains, as they stand in certificates."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, MutableSet

from p2psip import arguments


class DomainSet(MutableSet[str]):
    """Domains that a peer's certificate may carry; ``.example.com`` means every name that ends so.

    Set-like, usable from any thread.

    Args:
        name: What it is called where it stands: ``allowed_domains`` of a manager, ``trusted_peers`` of an endpoint.
        changed: Called with the domains of each change before it counts; may refuse it by an exception.
    """

    def __init__(self, name: str, changed: Callable[[frozenset[str]], object]) -> None:
        self._name = name
        self._domains: frozenset[str] = frozenset()
        self._changed = changed
        self._lock = threading.RLock()

    def add(self, value: str) -> None:
        """Add one. Raises ValueError for what is no domain; for ``allowed_domains`` RealTimeInvalidOperationException
        without mutual TLS."""
        domain = _domain(value)
        with self._lock:
            self._set(self._domains | {domain})

    def discard(self, value: str) -> None:
        """Remove one, if it is there."""
        try:
            domain = _domain(value)
        except ValueError:
            return
        with self._lock:
            self._set(self._domains - {domain})

    def replace(self, values: Iterable[str]) -> None:
        """Put others in place of all."""
        if isinstance(values, str):
            raise TypeError(f"{self._name} is a list of domains, not the text {values!r}.")
        domains = frozenset(_domain(value) for value in values)
        with self._lock:
            self._set(domains)

    def _set(self, domains: frozenset[str]) -> None:
        self._changed(domains)
        self._domains = domains

    def __contains__(self, value: object) -> bool:
        try:
            return isinstance(value, str) and _domain(value) in self._domains
        except ValueError:
            return False

    def __iter__(self) -> Iterator[str]:
        return iter(self._domains)

    def __len__(self) -> int:
        return len(self._domains)

    def __repr__(self) -> str:
        return f"<{self._name}: {sorted(self._domains)}>"


def _domain(value: str) -> str:
    if isinstance(value, str) and value.startswith("."):
        return "." + arguments.host(value[1:])
    return arguments.host(value)
