"""Runs baresip (Debian: baresip-core), a user agent for people, steered over its ctrl_tcp."""

from __future__ import annotations

import json
import random
import re
import socket
import threading
import wave
from collections.abc import Callable
from pathlib import Path

from interop_support import LOOPBACK, PATIENCE, Program, free_port, require

MODULES = Path("/usr/lib/baresip/modules")
_CONFIGURATION = """\
sip_listen {address}
audio_player aufile,{folder}/heard.wav
audio_source aufile,{folder}/silence.wav
audio_alert aufile,{folder}/alert.wav
module_path {modules}
module g711.so
module aufile.so
module_app account.so
module_app ctrl_tcp.so
module_app menu.so
ctrl_tcp_listen {control}
rtp_ports {media}-{media_end}
"""


class Baresip(Program):
    """It takes calls at :attr:`address` by itself and does what :meth:`order` says.

    Args:
        folder: Where its files go; a new one.
        certificate: Its own, with the key: TLS in place of TCP, of which it checks nothing.
    """

    def __init__(self, folder: Path, certificate: Path | None = None) -> None:
        program = require("baresip-core", "baresip")
        folder.mkdir()
        # It listens for TLS on the port after that for TCP.
        port, control, media = free_port(), free_port(), random.randrange(12000, 19000, 2)
        transport = "tcp" if certificate is None else "tls"
        configuration = _CONFIGURATION.format(
            address=f"{LOOPBACK}:{port}",
            folder=folder,
            modules=MODULES,
            control=f"{LOOPBACK}:{control}",
            media=media,
            media_end=media + 40,
        )
        if certificate is not None:
            configuration += f"sip_certificate {certificate}\n"
        self.port = port if certificate is None else port + 1
        self.address = f"sip:baresip@{LOOPBACK}:{self.port};transport={transport}"
        (folder / "config").write_text(configuration)
        account = f"<sip:baresip@{LOOPBACK}:{self.port};transport={transport}>;regint=0;answermode=auto\n"
        (folder / "accounts").write_text(account)
        (folder / "contacts").touch()
        with wave.open(str(folder / "silence.wav"), "wb") as sound:
            sound.setnchannels(1)
            sound.setsampwidth(2)
            sound.setframerate(8000)
            sound.writeframes(bytes(16 * 8000 * 30))
        super().__init__([program, "-f", folder], folder)
        self.expect("baresip is ready")
        self._news_of_calls = threading.Condition()
        self.events: list[dict[str, str]] = []
        self._answers: list[dict[str, object]] = []
        self._control = socket.create_connection((LOOPBACK, control), PATIENCE)
        self._control.settimeout(None)
        threading.Thread(target=self._listen, name="events of baresip", daemon=True).start()

    def expect(self, text: str) -> None:
        """Wait until it prints that."""
        with self._news:
            assert self._news.wait_for(lambda: self._ended or text in self.output, PATIENCE), self.output
            assert not self._ended, self.output

    def _listen(self) -> None:
        data = b""
        while True:
            try:
                chunk = self._control.recv(65536)
            except OSError:
                return
            if not chunk:
                return
            data += chunk
            while (match := re.match(rb"(\d+):", data)) and len(data) > match.end() + int(match[1]):
                text, data = data[match.end() : match.end() + int(match[1])], data[match.end() + int(match[1]) + 1 :]
                said = json.loads(text)
                with self._news_of_calls:
                    (self.events if said.get("event") else self._answers).append(said)
                    self._news_of_calls.notify_all()

    def order(self, command: str, parameters: str = "") -> None:
        """Have it do something, and wait until it says that it does."""
        text = json.dumps({"command": command, "params": parameters})
        with self._news_of_calls:
            count = len(self._answers)
        self._control.sendall(f"{len(text)}:{text},".encode())
        with self._news_of_calls:
            assert self._news_of_calls.wait_for(lambda: len(self._answers) > count, PATIENCE), self.output
            assert self._answers[count]["ok"], (self._answers[count], self.output)

    def wait_for(self, kind: str, count: int = 1, matching: Callable[[dict[str, str]], bool] | None = None) -> None:
        """Wait until so many events of a kind have come."""

        def enough() -> bool:
            found = [event for event in self.events if event["type"] == kind and (matching is None or matching(event))]
            return len(found) >= count

        with self._news_of_calls:
            assert self._news_of_calls.wait_for(enough, PATIENCE), (kind, self.events, self.output)

    def stop(self) -> None:
        """End it."""
        if hasattr(self, "_control"):
            self._control.close()
        super().stop()
