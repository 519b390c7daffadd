"""tshark's SIP dissector as the referee: it reads every message that went over the wire in these tests.

The messages are kept in one capture of "exported PDUs", which name the dissector themselves (wiretap's type 252).
"""

from __future__ import annotations

import atexit
import itertools
import struct
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any, NamedTuple

from interop_support import require

from p2psip import RealTimeServerConnectionManager

_HEADER = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 1 << 18, 252)
_DISSECTOR = struct.pack(">HH", 12, 4) + b"sip\0" + struct.pack(">HH", 0, 0)
_WRONG = "_ws.malformed || _ws.expert.severity >= 6291456"  # a warning or an error
_LACKING = " || ".join(f"!sip.{name}" for name in ("Via", "From", "To", "Call-ID", "CSeq", "Content-Length"))
_REQUESTS = "(sip.Method && !sip.Max-Forwards) || (sip.Method in {INVITE, SUBSCRIBE, NOTIFY, REFER} && !sip.Contact)"
_DISAGREEING = "(sip.Method && !(sip.Method == sip.CSeq.method))"


class Capture:
    """Messages for tshark, each a packet.

    Args:
        path: Of the file; begun anew.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self._lock = threading.Lock()
        path.write_bytes(_HEADER)

    def add(self, data: bytes) -> None:
        """Keep a message."""
        packet = _DISSECTOR + data
        with self._lock, self.path.open("ab") as file:
            self.count += 1
            file.write(struct.pack("<IIII", 0, 0, len(packet), len(packet)) + packet)

    def complaints(self) -> list[str]:
        """What tshark has to say, a line for each packet: empty if nothing."""
        wrong = " || ".join((_WRONG, _LACKING, _REQUESTS, _DISAGREEING, "!sip"))
        command = [require("tshark", "tshark"), "-n", "-r", str(self.path), "-Y", wrong, "-T", "fields"]
        for field in ("frame.number", "sip.Request-Line", "sip.Status-Line", "_ws.expert.message", "_ws.malformed"):
            command += ["-e", field]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()


class Captures(NamedTuple):
    """What went each way."""

    sent: Capture
    received: Capture


def _begin() -> Captures:
    folder = tempfile.TemporaryDirectory(prefix="p2psip-interop-")
    atexit.register(folder.cleanup)
    return Captures(Capture(Path(folder.name) / "sent.pcap"), Capture(Path(folder.name) / "received.pcap"))


CAPTURES = _begin()
"""Of this run of the tests."""

_LARGEST = (1 << 18) - 4096


def watch(manager: RealTimeServerConnectionManager, at_most: int = 2000) -> None:
    """Keep what a manager sends and receives, the first of many messages.

    Its ``trace`` masks what it is to show of credentials, and the referee is to see them as they were sent.
    """
    tell, numbers = manager._traced, itertools.count()

    def traced(direction: str, connection: Any, when: float, data: bytes) -> None:
        if next(numbers) < at_most and len(data) < _LARGEST:
            (CAPTURES.sent if direction == "sent" else CAPTURES.received).add(data)
        tell(direction, connection, when, data)

    manager._traced = traced  # type: ignore[method-assign]
    manager.trace += lambda sender, args: None  # without a handler nothing is traced
