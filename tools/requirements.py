"""Print which tests hold which requirement, fault and advisory.

    python tools/requirements.py              all of them
    python tools/requirements.py R5 A12       these

The tests are read, not run. The sentences are in tests/requirements.py.
"""

from __future__ import annotations

import argparse
import runpy
from collections.abc import Sequence
from pathlib import Path

TABLE = runpy.run_path(str(Path(__file__).resolve().parent.parent / "tests" / "requirements.py"))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Print which tests hold which requirement, fault and advisory.")
    parser.add_argument("identifier", nargs="*", metavar="ID", help="such as R5, F15 or A12; all when none is given")
    chosen = parser.parse_args(arguments).identifier
    sentences: dict[str, str] = TABLE["SENTENCES"]
    unknown = [name for name in chosen if name not in sentences]
    if unknown:
        parser.error(f"There is no {', '.join(unknown)}: known are R1 to R45, F15 to F41 and A1 to A26.")
    holders: dict[str, list[str]] = TABLE["holders"]()
    for name in chosen or sentences:
        print(f"{name}  {sentences[name]}")
        for test in holders.get(name, ["(no test)"]):
            print(f"    {test}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
