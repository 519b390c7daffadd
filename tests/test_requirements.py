"""Each requirement, fault and advisory of ``requirements.py`` has a test that holds it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from requirements import SENTENCES, claims, holders

ROOT = Path(__file__).resolve().parent.parent

PENDING: set[str] = set()
"""Those that nobody has found or written the tests for yet."""


def test_every_identifier_has_a_sentence() -> None:
    expected = [("R", range(1, 46)), ("F", range(15, 42)), ("A", range(1, 27))]
    assert list(SENTENCES) == [f"{letter}{number}" for letter, numbers in expected for number in numbers]
    assert [name for name, sentence in SENTENCES.items() if not sentence.endswith(".")] == []
    assert len(set(SENTENCES.values())) == len(SENTENCES)


def test_every_identifier_has_a_test() -> None:
    assert sorted(set(SENTENCES) - set(holders()) - PENDING) == []
    assert set(SENTENCES) >= PENDING


def test_no_test_names_an_unknown_identifier() -> None:
    assert {name: tests for name, tests in holders().items() if name not in SENTENCES} == {}


def test_claims_are_found_wherever_a_mark_may_stand() -> None:
    source = """

pytestmark = pytest.mark.holds("R1")

@pytest.mark.long
@pytest.mark.holds("R2", "F15")
def test_one(): ...

@pytest.mark.parametrize("a", [pytest.param(1, marks=pytest.mark.holds("A3"))])
def test_two(a): ...

class TestThree:
    @pytest.mark.holds("A4")
    def test_four(self): ...
"""
    assert [(claim.identifier, claim.test) for claim in claims(source)] == [
        *(("R1", ""), ("R2", "test_one"), ("F15", "test_one"), ("A3", "test_two"), ("A4", "TestThree")),
    ]


def test_the_table_is_printed() -> None:
    command = [sys.executable, str(ROOT / "tools" / "requirements.py"), "R1", "A26"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == [
        f"R1  {SENTENCES['R1']}",
        f"A26  {SENTENCES['A26']}",
    ]
    wrong = subprocess.run([*command, "R99"], capture_output=True, text=True, timeout=60, check=False)
    assert wrong.returncode == 2
    assert "R99" in wrong.stderr
