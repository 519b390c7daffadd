"""What bench.py's measurements have in common: how much is measured, the rows that they give, and the table of them."""

from __future__ import annotations

import dataclasses
import statistics
import sys
from collections.abc import Callable, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Plan:
    """How much is measured."""

    runs: int = 5
    seconds: float = 1.0
    """Of one run of what is measured by time."""
    handshakes: int = 150
    held: int = 300
    """Connections that memory is measured with, in each run."""
    idle: int = 10_000
    """Connections that are open and idle."""
    calls: int = 5000
    """That are up at once."""
    set_up: int = 200
    """Of them, the first and the last that are timed."""
    transactions: int = 100_000
    """That wait for their answers at once."""
    messages: int = 20_000
    """That SIPp sends in one run."""


QUICK = Plan(
    runs=1, seconds=0.05, handshakes=4, held=60, idle=60, calls=40, set_up=10, transactions=50, messages=50
)  # fmt: skip


@dataclasses.dataclass
class Row:
    """One line of the table; the lists have one value for each run.

    Attributes:
        target: What the ratio of ours to the reference should be; None: there is none.
        more_is_better: As of a rate; of a time or a size less is better.
        others: What else did the same, by name.
        ahead_of: Those of them that ours should beat.
    """

    name: str
    unit: str
    ours: list[float]
    reference: list[float]
    target: float | None = None
    more_is_better: bool = True
    others: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    ahead_of: Sequence[str] = ()

    @property
    def columns(self) -> dict[str, list[float]]:
        return {"ours": self.ours, "reference": self.reference, **self.others}

    @property
    def ratio(self) -> float:
        return self._ratio("reference")

    def _ratio(self, other: str) -> float:
        return statistics.median(self.ours) / statistics.median(self.columns[other])

    def _reaches(self, other: str, target: float) -> bool:
        return self._ratio(other) >= target if self.more_is_better else self._ratio(other) <= target

    @property
    def aim(self) -> str:
        """The target in words."""
        sign = ">=" if self.more_is_better else "<="
        words = [] if self.target is None else [f"{sign} {self.target:g}"]
        return ", ".join([*words, *(f"{sign} {name}" for name in self.ahead_of)])

    @property
    def ok(self) -> bool | None:
        """None: there is no target."""
        if not self.aim:
            return None
        reached = self.target is None or self._reaches("reference", self.target)
        return reached and all(self._reaches(name, 1.0) for name in self.ahead_of)

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "unit": self.unit,
            **{column: statistics.median(values) for column, values in self.columns.items()},
            "ratio": self.ratio,
            "target": self.aim,
            "ok": self.ok,
            "runs": self.columns,
        }

    def cell(self, column: str) -> str:
        """The median, and of others than us its ratio to the reference."""
        if column not in self.columns:
            return ""
        value, reference = statistics.median(self.columns[column]), statistics.median(self.reference)
        shown = f"{value:,.{0 if value >= 100 else 1}f} {self.unit}"
        return shown if column in ("ours", "reference") else f"{shown} ({value / reference:.2f})"


def table(rows: list[Row]) -> str:
    columns = list(dict.fromkeys(column for row in rows for column in row.columns))
    lines = [["", *columns, "ratio", "target", "ok"]]
    for row in rows:
        ok = {None: "", True: "yes", False: "NO"}[row.ok]
        lines.append([row.name, *(row.cell(column) for column in columns), f"{row.ratio:.3f}", row.aim, ok])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        f"{name.ljust(widths[0])}  " + "  ".join(map(str.rjust, cells, widths[1:])) for name, *cells in lines
    )


def alternate(runs: int, *measures: Callable[[], Any]) -> list[list[Any]]:
    """The measures in turn, so many times; a list of values for each."""
    values: list[list[Any]] = [[] for _ in measures]
    for _ in range(runs):
        for taken, measure in zip(values, measures, strict=True):
            taken.append(measure())
    return values


def microseconds(per_second: list[float]) -> list[float]:
    return [1e6 / value for value in per_second]


def say(text: str) -> None:
    """For who waits; standard output has the table."""
    print(text, file=sys.stderr, flush=True)
