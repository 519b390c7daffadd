"""The types that users see."""

from __future__ import annotations

import pathlib

import pytest


def test_use_is_typed_as_promised() -> None:
    api = pytest.importorskip("mypy.api", reason="mypy is not installed")
    here = pathlib.Path(__file__).parent
    out, _, _ = api.run(
        [
            "--strict",
            "--follow-imports=silent",
            f"--cache-dir={here.parent.parent / '.mypy_cache'}",
            str(here / "typed_use.py"),
        ]
    )
    assert "no issues found" in out, out
