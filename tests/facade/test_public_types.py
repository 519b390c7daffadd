"""A program of a user's that uses the whole public API is well typed."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest


def test_a_program_that_uses_everything_passes_mypy_strict() -> None:
    pytest.importorskip("mypy", reason="mypy is not installed")
    here = pathlib.Path(__file__).parent
    result = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", str(here / "typed_program.py")],
        cwd=here.parent.parent,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
