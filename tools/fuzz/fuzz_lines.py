"""Which lines of the library a set of inputs reaches. Slow, and in need of nothing but Python."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent


class Lines:
    """The lines of these modules that can run, and those that have run.

    Args:
        modules: Files of the library, or folders, relative to the checkout.
    """

    def __init__(self, modules: Iterable[str]) -> None:
        self._all: dict[str, set[int]] = {}
        for module in modules:
            path = ROOT / module
            for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
                code = compile(file.read_text(encoding="utf-8"), str(file), "exec")
                self._all[str(file)] = set(function_lines(code))
        self._reached: dict[str, set[int]] = {file: set() for file in self._all}
        self._open: dict[CodeType, set[int]] = {}

    def run(self, target: Callable[[bytes], object], inputs: Iterable[bytes], seconds: float) -> int:
        """Run the target over as many of the inputs as there is time for, and say how many that were."""
        end, count = time.monotonic() + seconds, 0
        before = sys.gettrace()
        sys.settrace(self._call)
        try:
            for octets in inputs:
                try:
                    target(octets)
                except Exception:  # a finding, which is kept elsewhere
                    pass
                count += 1
                if time.monotonic() > end:
                    break
        finally:
            sys.settrace(before)
        return count

    def _call(self, frame: FrameType, event: str, argument: Any) -> Any:
        code = frame.f_code
        if code.co_filename not in self._all:
            return None
        left = self._open.get(code)
        if left is None:
            left = self._open[code] = {line for _, _, line in code.co_lines() if line is not None}
        # A function of which every line was seen need not be looked at any more.
        return self._line if left else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            code = frame.f_code
            self._open[code].discard(frame.f_lineno)
            self._reached[code.co_filename].add(frame.f_lineno)
        return self._line

    def report(self) -> list[str]:
        """A line for each module, and one for all."""
        texts = []
        total = reached = 0
        for file, lines in self._all.items():
            seen = lines & self._reached[file]
            total, reached = total + len(lines), reached + len(seen)
            name = Path(file).relative_to(ROOT).as_posix()
            if lines:
                missed = ranges(sorted(lines - seen))
                texts.append(f"{name}: {len(seen)} of {len(lines)} lines" + (f"; not {missed}" if missed else ""))
        texts.append(f"all: {reached} of {total} lines in functions, {100 * reached / max(1, total):.1f} %")
        return texts


def function_lines(code: CodeType) -> Iterable[int]:
    """The lines of the functions in a module: what stands outside of them runs when it is imported."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            if constant.co_flags & 0x1:  # a function, and no body of a class
                yield from (line for _, _, line in constant.co_lines() if line and line != constant.co_firstlineno)
            yield from function_lines(constant)


def ranges(numbers: list[int]) -> str:
    """``3, 5-7``"""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in found)
