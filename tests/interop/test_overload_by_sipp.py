"""SIPp sends ten times what a handler can take, for a moment; at length it is tools/overload.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from interop_support import require_sipp, require_stunnel

pytestmark = pytest.mark.interop

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize("transport", ["TCP", "TLS"])
def test_nothing_is_lost_and_what_is_too_much_is_refused(transport: str) -> None:
    require_sipp()
    require_stunnel()
    command = [sys.executable, str(ROOT / "tools" / "overload.py"), "--json", "--transport", transport]
    command += ["--connections", "1", "--seconds", "0.5", "--slowness", "0.003", "--mark", "50"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120, cwd=ROOT, check=False)
    (result,) = json.loads(done.stdout or "[{}]")
    assert result.get("lost") == 0, done.stderr
    assert result["answered"] == result["handled"]
    assert result["refused"] > 0
    assert result["answered"] + result["refused"] == result["offered"]
    assert not any("out of order" in fault for fault in result["faults"])
    assert done.returncode == bool(result["faults"])
