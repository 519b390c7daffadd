"""The fuzz targets do what they say: plain calls, without a fuzzer, over what each begins with."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools" / "fuzz"))

import fuzz_findings
import fuzz_lines
import fuzz_targets

MOST = 25
"""Seeds of one target that are run: every so-and-so-many-th."""


@pytest.mark.parametrize("name", fuzz_targets.TARGETS)
def test_each_target_runs_over_its_seeds(name: str) -> None:
    target = fuzz_targets.TARGETS[name]
    seeds = list(target.seeds())
    assert all(len(seed) <= target.longest for seed in seeds)
    for seed in seeds[:: len(seeds) // MOST + 1]:
        target.run(seed)
        target.run(seed[: len(seed) // 2])
    target.run(b"")


def test_conversations_are_octets_and_back() -> None:
    for steps in fuzz_targets.CONVERSATIONS.values():
        assert fuzz_targets.steps_of(fuzz_targets.octets_of(steps)) == steps


def test_a_finding_is_kept_once(tmp_path: Path) -> None:
    findings = fuzz_findings.Findings("x", tmp_path)
    for octets in (b"one", b"two"):
        assert isinstance(findings.run(bytes.hex, octets), type(None))
        assert isinstance(findings.run(wrong, octets), ZeroDivisionError)
    (kept,) = tmp_path.glob("*.bin")
    assert kept.read_bytes() == b"one"
    assert "ZeroDivisionError test_fuzz_targets.py" in kept.with_suffix(".txt").read_text(encoding="utf-8")


def wrong(octets: bytes) -> float:
    return len(octets) / 0


def test_lines_that_were_reached_are_counted() -> None:
    module = "p2psip/message/uri.py"
    lines = fuzz_lines.Lines([module])
    assert lines.report()[-1].startswith("all: 0 of ")
    assert lines.run(fuzz_targets.TARGETS["uri"].run, [b"sip:a@b", b"tel:1", b"%"], 10.0) == 3
    assert not lines.report()[-1].startswith("all: 0 of ")
    assert lines.report()[0].startswith(f"{module}: ")


def test_a_finding_can_be_replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Without atheris, which is not there where the tests run."""
    run = load_runner()
    file = tmp_path / "octets"
    file.write_bytes(b"sip:a@b")
    monkeypatch.setattr(sys, "argv", ["run.py", "uri", "--replay", str(file)])
    assert run.main() == 0
    monkeypatch.setitem(fuzz_targets.TARGETS, "uri", fuzz_targets.TARGETS["uri"]._replace(run=wrong))
    assert run.main() == 1
    assert "nothing wrong" in capsys.readouterr().out


def test_words_of_the_dictionary_are_written_as_libfuzzer_reads_them() -> None:
    assert load_runner().escaped(b'a"\\\r\xff') == "a\\x22\\x5c\\x0d\\xff"


def load_runner() -> Any:
    spec = importlib.util.spec_from_file_location("fuzz_runner", Path(fuzz_targets.__file__).parent / "run.py")
    assert spec is not None and spec.loader is not None
    runner = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(runner)
    return runner
