"""The soak works, and its books find what is wrong. The real one takes an hour: tools/soak.py."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

settle = importlib.import_module("soak_ledger").settle


def test_a_quick_one_holds() -> None:
    command = [sys.executable, str(ROOT / "tools" / "soak.py"), "--quick", "--json"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120, cwd=ROOT, check=False)
    result = json.loads(done.stdout or "{}")
    assert result.get("faults") == [], done.stderr
    assert done.returncode == 0
    assert result["outcomes"]["message"]["accepted"] > 0
    assert result["seen"]["invite"] > 0
    assert sum(count for what, count in result["trouble"].items() if "strangers" in what) > 0


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ("> a>b.message.1\n< a>b.message.1 accepted\n", "accepted, but no handler saw it"),
        ("> a>b.message.1\n", "ended in nothing"),
        ("> a>b.message.1\n< a>b.message.1 UNTYPED-ValueError x\n", "ended in UNTYPED-ValueError"),
        ("> a>b.notify.1\n< a>b.notify.1 accepted\n< a>b.notify.1 accepted\n* a>b.notify.1 k\n", "ended twice"),
        ("* a>b.message.1 k\n", "never sent"),
        ("> a>b.message.1\n< a>b.message.1 answer-503\n* a>b.message.1 k\n", "refused, but a handler saw it"),
        ("> a>b.message.1\n< a>b.message.1 answer-500\n* a>b.message.1 k\n* a>b.message.1 l\n", "seen 2 times"),
        ("> a>b.notify.1\n< a>b.notify.1 accepted\n* a>b.notify.1 k\n* a>b.notify.1 k\n", "seen 2 times"),
        ("> a>c.message.1\n< a>c.message.1 answer-500\n* a>c.message.1 k\n", "was seen by"),
    ],
)
def test_books_that_do_not_agree(tmp_path: Path, lines: str, fault: str) -> None:
    book = tmp_path / "b.ledger"
    book.write_text(lines)
    assert any(fault in sentence for sentence in settle([book]).faults)


def test_books_that_agree(tmp_path: Path) -> None:
    sender, receiver = tmp_path / "a.ledger", tmp_path / "b.ledger"
    sender.write_text(
        "> a>b.message.1\n> a>b.message.2\n> a>b.notify.1\n"
        "< a>b.message.1 accepted\n< a>b.message.2 ConnectionFailureException\n< a>b.notify.1 accepted\n"
    )
    receiver.write_text("* a>b.message.1 k\n* a>b.notify.1 l\n* a>b.notify.1 m\n")
    account = settle([sender, receiver])
    assert account.faults == []
    assert (account.sent, account.accepted) == (3, 2)
    assert account.seen == {"message": 1, "notify": 1}
