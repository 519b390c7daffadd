"""tshark's SIP dissector as the referee: it reads every message that went over the wire in these tests.

The messages are kept in one capture of "exported PDUs", which name the dissector themselves (wiretap's type 252).
"""

from __future__ import annotations

import atexit
import struct
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import NamedTuple

from interop_support import require

from p2psip import TraceEventArgs

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

    def packets(self) -> int:
        """How many packets tshark knows to be SIP."""
        command = [require("tshark", "tshark"), "-n", "-r", str(self.path), "-Y", "sip", "-T", "fields"]
        done = subprocess.run([*command, "-e", "frame.number"], capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
        return len(done.stdout.splitlines())


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


def keep_for_referee(sender: object, args: TraceEventArgs) -> None:
    """A handler of a manager's ``trace``."""
    capture = CAPTURES.sent if args.direction == "sent" else CAPTURES.received
    if len(args.data) < _LARGEST:
        capture.add(args.data)
