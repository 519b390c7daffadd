"""What run.py starts: one target under atheris, or over the inputs that a campaign has left.

    fuzz_driver.py fuzz TARGET FINDINGS [OPTIONS OF LIBFUZZER] CORPUS SEEDS
    fuzz_driver.py lines TARGET SECONDS CORPUS [CORPUS ...]

Atheris ends the process when it is done, so findings are written when they are found.
"""

from __future__ import annotations

import random
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from fuzz_findings import Findings
from fuzz_lines import Lines


def fuzz(name: str, findings: str, *options: str) -> None:
    """Fuzz until libFuzzer says that it is over."""
    import atheris

    with warnings.catch_warnings(), atheris.instrument_imports(include=["p2psip"]):
        warnings.simplefilter("ignore")
        from fuzz_targets import TARGETS
    target, kept = TARGETS[name].run, Findings(name, Path(findings))

    def run(octets: bytes) -> None:
        kept.run(target, octets)

    atheris.Setup(["fuzz_driver.py", *options], run)
    atheris.Fuzz()


def lines(name: str, seconds: str, *folders: str) -> None:
    """Say which lines these inputs reach."""
    from fuzz_targets import TARGETS

    target = TARGETS[name]
    counted = Lines(target.modules)
    count = counted.run(target.run, inputs(folders), float(seconds))
    print(f"lines reached by {count} inputs of the corpus:")
    print("\n".join(f"  {text}" for text in counted.report()))


def inputs(folders: tuple[str, ...]) -> Iterator[bytes]:
    paths = [path for folder in folders for path in sorted(Path(folder).iterdir())]
    random.Random(0).shuffle(paths)
    for path in paths:
        yield path.read_bytes()


if __name__ == "__main__":
    {"fuzz": fuzz, "lines": lines}[sys.argv[1]](*sys.argv[2:])
