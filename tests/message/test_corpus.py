"""The conformance corpus that lies in tests/data, by the tool that runs any corpus of that format."""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from message_support import CORPUS

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture(scope="module")
def tool() -> Any:
    sys.path.insert(0, str(TOOLS))
    try:
        return importlib.import_module("corpus")
    finally:
        sys.path.remove(str(TOOLS))


@pytest.fixture(scope="module")
def corpus(tool: Any) -> Any:
    return tool.Corpus(CORPUS)


@pytest.mark.parametrize("section", ["check_messages", "check_streams", "check_tables", "check_sockets"])
def test_everything_agrees(tool: Any, corpus: Any, section: str) -> None:
    check: Callable[[Any], Any] = getattr(tool, section)
    findings = list(check(corpus))
    assert len(findings) > 10
    assert tool.undeclared(findings) == []


def test_all_families_and_tables_are_there(tool: Any, corpus: Any) -> None:
    families = {entry["family"] for entry in corpus.messages()}
    assert families == {"rfc4475", "rfc5118", "flows", "interop", "malformed", "malformed-base"}
    assert all(corpus.rows(table) for table in tool.TABLES)


def test_the_files_are_what_the_manifest_says(corpus: Any) -> None:
    for entry in corpus.entries:
        data = corpus.octets(entry["file"])
        assert (len(data), hashlib.sha256(data).hexdigest()) == (entry["size"], entry["sha256"]), entry["file"]
    listed = {entry["file"] for entry in corpus.entries} | {"manifest.json"}
    assert {path.relative_to(CORPUS).as_posix() for path in CORPUS.rglob("*") if path.is_file()} == listed


def test_the_tool_sees_what_differs(tool: Any, corpus: Any) -> None:
    """A corpus that asks for something else is not agreed with."""
    entry = next(entry for entry in corpus.messages() if entry["file"].endswith("/wsinv.dat"))
    data = corpus.octets(entry["file"])
    assert not list(tool.check_message(corpus, entry, data))
    asks_for_more = {**entry, "facts": {**entry["facts"], "max_forwards": 69}}
    assert list(tool.check_message(corpus, asks_for_more, data))
    assert list(tool.check_message(corpus, {**entry, "parser": "should_reject"}, data))
    assert list(tool.check_message(corpus, {**entry, "stream_message_lengths": [1]}, data))
    assert list(tool.check_uri({"input": "sip:a@b", "valid": False, "reason": "none"}))
