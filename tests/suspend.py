"""Let a process of a test stand still for a while."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def suspended(process: subprocess.Popen[Any]) -> Iterator[None]:
    """Each thread of the process stands still, while what is sent to it waits in its sockets.

    ``kill`` returns before the threads that run at that moment have stopped: one of them may yet answer.
    """
    process.send_signal(signal.SIGSTOP)
    try:
        os.waitpid(process.pid, os.WUNTRACED)
        yield
    finally:
        process.send_signal(signal.SIGCONT)
