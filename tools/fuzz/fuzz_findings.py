"""What a fuzzer has found: each kind of failure once, as the octets that cause it and the traceback."""

from __future__ import annotations

import hashlib
import time
import traceback
from collections.abc import Callable
from pathlib import Path

MAXIMUM = 50
"""Kinds that are kept; what comes after that is of no use before those are mended."""

SLOW = 1.0
SLOW_PER_OCTET = 0.005
"""Seconds of processor time that an input may take, and more for each octet: anything above is a finding."""

OURS = ("p2psip", "tests")
"""Folders whose lines tell one kind of failure from another."""


class Findings:
    """The findings of one target, in a folder."""

    def __init__(self, name: str, folder: Path) -> None:
        self._name = name
        self._folder = folder
        self._known: set[str] = set()
        folder.mkdir(parents=True, exist_ok=True)

    def run(self, target: Callable[[bytes], object], octets: bytes) -> Exception | None:
        """Run the target; what it raises, and that it takes too long, is kept and does not get further."""
        began = time.process_time()
        try:
            target(octets)
        except Exception as error:
            self._keep(octets, place_of(error), traceback.format_exc())
            return error
        seconds = time.process_time() - began
        if seconds > SLOW + SLOW_PER_OCTET * len(octets):
            error = TimeoutError(f"{len(octets)} octets took {seconds:.1f} s.")
            self._keep(octets, "slow", str(error))
            return error
        return None

    def _keep(self, octets: bytes, place: str, text: str) -> None:
        if place in self._known or len(self._known) >= MAXIMUM:
            return
        self._known.add(place)
        stem = self._folder / f"{self._name}-{hashlib.sha256(octets).hexdigest()[:12]}"
        stem.with_suffix(".bin").write_bytes(octets)
        stem.with_suffix(".txt").write_text(f"{place}\n{octets!r}\n\n{text}\n", encoding="utf-8", errors="replace")


def place_of(error: Exception) -> str:
    """What tells one kind from another: the type, and the last two lines of ours that it came through."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not set(OURS).isdisjoint(Path(f.filename).parts)]
    lines = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames[-2:]]
    return " ".join([type(error).__name__, *lines])
