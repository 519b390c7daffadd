"""The books of a soak: what each node has sent and how it ended, and what each has seen; and whether they agree."""

from __future__ import annotations

import collections
import dataclasses
import threading
from collections.abc import Iterable
from pathlib import Path

from p2psip import FailureResponseException, Operation, OperationFailureException, RealTimeException

ACCEPTED = "accepted"
"""The peer answered 2xx."""
UNTOLD = "untold"
"""It ended without saying how: the end of a call or subscription never fails, and a state that was overtaken is not
sent."""
REPEATED = ("subscribe", "notify")
"""Kinds that the library may send again by itself, in another request: a subscription that was lost, and a state of which
its subscriber has asked to be told once more."""
MARGIN = 200
"""Characters of an error that are kept."""


class Ledger:
    """A file with one line for each thing that happens. Usable from any thread.

    ``> ID`` was sent; ``< ID OUTCOME`` is how that ended; ``* ID KEY`` was seen by a handler, in a request that
    Call-ID and CSeq tell from all others.
    """

    def __init__(self, path: Path, node: str) -> None:
        self._node = node
        self._file = path.open("w", encoding="utf-8", buffering=1 << 16)
        self._lock = threading.Lock()
        self._numbers: collections.Counter[str] = collections.Counter()
        self.open = 0

    def sends(self, kind: str, to: str) -> str:
        """Something is about to be sent. Its ID."""
        with self._lock:
            self._numbers[kind] += 1
            name = f"{self._node}>{to}.{kind}.{self._numbers[kind]}"
            self.open += 1
            self._file.write(f"> {name}\n")
        return name

    def ended(self, name: str, outcome: str) -> None:
        """That is over."""
        with self._lock:
            self.open -= 1
            self._file.write(f"< {name} {outcome}\n")

    def ended_with(self, name: str, error: BaseException | None) -> None:
        """That is over, without an answer or with one."""
        self.ended(name, ACCEPTED if error is None else outcome_of(error))

    def watch(self, name: str, operation: Operation[object]) -> None:
        """That is over when the operation is."""
        operation.add_done_callback(lambda done: self.ended_with(name, done.exception()))

    def saw(self, name: str | None, key: str) -> None:
        """A handler has a request of somebody."""
        with self._lock:
            self._file.write(f"* {name} {key}\n")

    def flush(self) -> None:
        with self._lock:
            self._file.flush()


def outcome_of(error: BaseException) -> str:
    """An error in one word, and its sentence where the library owes a better one."""
    if isinstance(error, FailureResponseException):
        return f"answer-{int(error.response_data.response_code)}"
    name = type(error).__name__
    if isinstance(error, OperationFailureException):
        return f"{name}-{error.failure_reason.name}"
    if isinstance(error, RealTimeException):
        return name
    return f"UNTYPED-{name} {' '.join(str(error).split())[:MARGIN]}"


@dataclasses.dataclass
class Account:
    """What the books of all nodes say together.

    Attributes:
        outcomes: By kind of request, how often it ended how.
        seen: By kind, how many handlers saw.
        faults: What does not agree, in sentences.
    """

    outcomes: dict[str, collections.Counter[str]]
    seen: collections.Counter[str]
    faults: list[str]

    @property
    def sent(self) -> int:
        return sum(counter.total() for counter in self.outcomes.values())

    @property
    def accepted(self) -> int:
        return sum(counter[ACCEPTED] for counter in self.outcomes.values())


def settle(books: Iterable[Path]) -> Account:
    """Compare them. Each request that was sent has ended, in an answer or a typed error; each that was accepted was seen
    by its receiver, once; each that was seen had been sent; a 503 was seen by nobody."""
    outcomes: dict[str, str | None] = {}
    seen: dict[str, list[tuple[str, str]]] = {}
    faults: list[str] = []
    for book in books:
        node = book.stem
        for line in book.read_text(encoding="utf-8").splitlines():
            what, name, *rest = line.split(" ", 2)
            if what == ">":
                outcomes[name] = None
            elif what == "<":
                if outcomes.get(name) is not None:
                    faults.append(f"{name} ended twice: {outcomes[name]}, {rest[0]}")
                outcomes[name] = rest[0]
            else:
                seen.setdefault(name, []).append((node, rest[0]))
    account = Account({}, collections.Counter(), faults)
    for name, outcome in outcomes.items():
        kind = name.split(".")[1]
        account.outcomes.setdefault(kind, collections.Counter())[outcome or "nothing"] += 1
        if outcome is None or outcome.startswith("UNTYPED"):
            faults.append(f"{name} ended in {outcome or 'nothing'}")
        if outcome == ACCEPTED and name not in seen:
            faults.append(f"{name} was accepted, but no handler saw it")
        if outcome == "answer-503" and name in seen:
            faults.append(f"{name} was refused, but a handler saw it")
    for name, places in seen.items():
        if name not in outcomes:
            faults.append(f"{name} was seen, but never sent")
            continue
        sender_to, kind, _ = name.split(".")
        account.seen[kind] += 1
        if len(set(places)) < len(places) or (len(places) > 1 and kind not in REPEATED):
            faults.append(f"{name} was seen {len(places)} times: {places}")
        receiver = sender_to.partition(">")[2]
        if {node for node, _ in places} != {receiver}:
            faults.append(f"{name} was seen by {places}")
    return account
