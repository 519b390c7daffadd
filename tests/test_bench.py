"""The benchmark works and gives every figure that it promises. How fast anything is, is no matter for a test."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAMES = [
    *("exchanges", "exchanges-tcp", "round-trip", "round-trip-tcp", "threads", "threads-tcp"),
    *("cpu", "cpu-client", "cpu-server", "cpu-tcp", "cpu-client-tcp", "cpu-server-tcp"),
    *("codec", "parse", "serialise", "calls", "calls-tcp", "handshakes", "memory", "idle", "idle-100"),
    *("transactions", "transactions-100", "dialogs", "dialogs-set-up"),
    *("beside", "beside-round-trip", "beside-cpu", "beside-tcp", "beside-round-trip-tcp", "beside-cpu-tcp"),
]
TARGETS = {
    "exchanges": ">= 0.4",
    "exchanges-tcp": ">= 0.25",
    "round-trip": "<= 2",
    "codec": "<= 3.5",
    "calls": ">= 0.2",
    "handshakes": ">= 0.9",
    "memory": "<= 1.3",
    **dict.fromkeys(["idle", "idle-100", "transactions", "transactions-100", "dialogs", "dialogs-set-up"], "<= 1.2"),
}


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", str(ROOT / "tools" / "bench.py"), "--quick", *arguments]
    return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120, cwd=ROOT, check=False)


def test_each_measurement_gives_a_row() -> None:
    done = bench("--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["runs"] == 1
    names = NAMES if Path("/proc/self/statm").exists() else [name for name in NAMES if name != "memory"]
    assert [row["name"] for row in result["rows"]] == names
    for row in result["rows"]:
        assert row["ours"] > 0 and row["reference"] > 0, row
        assert row["ratio"] == row["ours"] / row["reference"]
        sign, _, target = row["target"].partition(" ")
        if row["name"].startswith("beside"):
            assert target == ("pjsip" if "pjsip" in row else "")
        else:
            assert row["target"] == TARGETS.get(row["name"], "")
        if not target:
            assert row["ok"] is None
        elif target == "pjsip":
            assert row["ok"] == (row["ours"] >= row["pjsip"] if sign == ">=" else row["ours"] <= row["pjsip"])
        else:
            assert row["ok"] == (row["ratio"] >= float(target) if sign == ">=" else row["ratio"] <= float(target))
        assert ("joined" in row) == ("drained" in row) == (row["name"] == "exchanges")
        is_there = shutil.which("sipp") is not None and (
            row["name"].endswith("tcp") or shutil.which("stunnel4") or shutil.which("stunnel")
        )
        assert ("sipp" in row) == bool(is_there and row["name"].startswith("beside") and "round" not in row["name"])


def test_a_table_for_people() -> None:
    done = bench("--only", "codec", "--runs", "2")
    assert done.returncode == 0, done.stderr
    head, row = (line.split() for line in done.stdout.splitlines()[-2:])
    assert head == ["ours", "reference", "ratio", "target", "ok"]
    assert row[0] == "codec"
    assert row[-1] in ("yes", "NO")


def test_what_is_not_there_is_refused() -> None:
    done = bench("--only", "nonsense")
    assert done.returncode == 2
    assert done.stdout == ""
