"""What an operator sees of a connection manager: numbers, what is alive, and what goes over the wire."""

from __future__ import annotations

import concurrent.futures
import functools
import math
import os
import threading
from typing import TYPE_CHECKING

from p2psip import arguments, snapshots
from p2psip.capture_file import CaptureFile
from p2psip.errors import OperationFailureException, OperationTimeoutException, RealTimeInvalidOperationException
from p2psip.recording import PATIENCE, Recording
from p2psip.snapshots import ManagerSnapshot
from p2psip.statistics import ManagerStatistics, statistics_of
from p2psip.trace_file import TraceFile

if TYPE_CHECKING:
    from p2psip.stack import Stack

MOST = 1000
"""Entries of a kind in a snapshot, unless more are asked for: the loop's thread makes them."""
LEAST = 4096
"""Octets that a file may have at least."""


class Observing:
    """The part of a connection manager that can be looked at. Usable from any thread."""

    _stack: Stack
    _began_at: float
    _ended_at: float | None
    _lock: threading.RLock
    _recordings: list[Recording]
    _disposed: bool

    def _check_alive(self, what: str) -> None:
        raise NotImplementedError

    def statistics(self) -> ManagerStatistics:
        """What it has done so far, as numbers.

        Does not block, and works in handlers and after ``dispose()`` as well. Each number is right as of some moment
        during the call, not all of the same; counters never go back.
        """
        ended_at = self._ended_at
        now = self._stack.loop.clock.now() if ended_at is None else ended_at
        return statistics_of(self._stack, now - self._began_at)

    def snapshot(self, timeout: float = 5.0, *, maximum: int = MOST) -> ManagerSnapshot:
        """What is alive at this moment: listeners, connections, transactions, dialogs, and strands with events.

        Taken on the loop's thread between two messages, so all of it is of one moment. Blocks until that thread gets to
        it, which takes milliseconds as a rule; allowed in handlers, where another worker stands in meanwhile. After
        ``dispose()`` it is empty.

        Args:
            timeout: Seconds.
            maximum: Entries of each kind, oldest first. Each takes that thread some microseconds.

        Raises:
            OperationTimeoutException: The loop's thread did not get to it in time: it is overloaded, or stands still.
            ValueError, TypeError: An argument.
        """
        seconds = arguments.timeout(timeout)
        if seconds is None or seconds == math.inf:
            raise ValueError("The timeout of snapshot() is a number of seconds: it never waits without end.")
        if isinstance(maximum, bool) or not isinstance(maximum, int):
            raise TypeError(f"The maximum of snapshot() is a whole number, not {maximum!r}.")
        if maximum < 0:
            raise ValueError(f"The maximum of snapshot() cannot be {maximum}.")
        stack = self._stack
        if stack._started and not stack.loop.has_ended:
            operation = stack.call("snapshot", snapshots.take, stack, maximum)
            try:
                snapshot: ManagerSnapshot = operation.result(seconds)
                return snapshot
            except concurrent.futures.TimeoutError:
                raise OperationTimeoutException(
                    f"No snapshot of {stack.loop.name} could be taken within {seconds:g} s, because its thread was busy "
                    "with something else all the time."
                ) from None
            except OperationFailureException:  # it has ended meanwhile
                pass
        return snapshots.take(stack, maximum)

    # ------------------------------------------------------------------ files

    def trace_to(
        self, path: str | os.PathLike[str], *, maximum_bytes: int = 64 * 1024 * 1024, mask_secrets: bool = True
    ) -> TraceFile:
        """Write every message from now on to a file, as text; several at once are fine. Usable in handlers.

        The file is made for its owner's eyes only (mode 0600), or added to. It is written by a thread of its own, and
        messages never wait for the disk: what it cannot take is left out, and the file says where and how much. Does not
        block but for opening the file.

        Args:
            path: The file. When it would become larger than ``maximum_bytes`` it is renamed to the same with ``.1`` behind
                it, in place of an older one, and begun anew: both together are at most twice as large, unless one message
                alone is larger than that.
            maximum_bytes: At least 4096.
            mask_secrets: ``***`` in place of what Authorization and its like say in the head of a message. Without it
                whoever has the file can try passwords on them. Bodies, and a password in a URI, are written as they are.

        Returns:
            A context manager; its ``close()`` ends it, and so does ``dispose()``. ``left_out`` counts what is missing.

        Raises:
            OSError: The file cannot be opened.
            RealTimeInvalidOperationException: The manager is disposed.
            ValueError, TypeError: An argument.
        """
        size = _size(maximum_bytes)
        with self._lock:  # which dispose() takes
            self._check_alive("write a trace")
            made = TraceFile(path, size, self._stack.loop.name, bool(mask_secrets), self._forget_trace)
            self._recordings.append(made)
            self._stack.traces = (*self._stack.traces, made._record)
        return made

    def _forget_trace(self, trace: TraceFile) -> None:
        with self._lock:
            self._stack.traces = tuple(each for each in self._stack.traces if each != trace._record)
            self._forget(trace)

    def capture_to(self, path: str | os.PathLike[str], *, maximum_bytes: int = 256 * 1024 * 1024) -> CaptureFile:
        """Write what connections that are made from now on carry to a file for Wireshark (pcapng); one at a time.

        TLS is in it as it went over the wire, together with its keys, so that Wireshark shows the SIP inside. **So nothing
        is masked:** the file (mode 0600, begun anew) is for its owner's eyes only, and the log says once that it is
        written. Needs no rights: IP and TCP around the octets are made up. Connections that are there already stay as
        they are, and are not in it. Where SIP is not at port 5061, tell Wireshark: ``-d tls.port==PORT,sip``.

        It is written by a thread of its own, and connections never wait for the disk: what it cannot take is left out, and
        the file says where and how much. While it is on, TLS of new connections is a little slower. Blocks shortly.

        Args:
            path: The file.
            maximum_bytes: At least 4096; recording ends there (``is_full``).

        Returns:
            A context manager; its ``close()`` ends it, and so does ``dispose()``. ``left_out`` counts what is missing.

        Raises:
            OSError: The file cannot be opened.
            RealTimeInvalidOperationException: The manager is disposed, or captures already.
            TlsFailureException: Certificates and trusted roots cannot be read any more; nothing has changed.
            ValueError, TypeError: An argument.
        """
        size = _size(maximum_bytes)
        with self._lock:
            self._check_alive("capture")
            if any(isinstance(each, CaptureFile) for each in self._recordings):
                raise RealTimeInvalidOperationException(
                    "The connection manager captures already: close() that file first."
                )
            made = CaptureFile(path, size, self._stack.loop.name, self._given_key_log, self._stack.network.has_tls)
            self._recordings.append(made)
        forget = functools.partial(self._forget_capture, made)
        try:
            self._keys_go_to(made._key_log)
            self._stack.network.tapping.tap = made._tap
        except BaseException:
            made._start(forget)
            made.close()
            raise
        made._start(forget)  # from now on it may end by itself
        return made

    def _forget_capture(self, capture: CaptureFile) -> None:
        stack = self._stack
        stack.network.tapping.tap = None
        with self._lock:
            self._forget(capture)
        self._keys_go_to(None)
        if stack._started and not stack.loop.has_ended:  # what is being sent or received now is to be in it
            concurrent.futures.wait([stack.call("the end of a capture", self._close_key_logs)], PATIENCE)
        else:
            self._close_key_logs()

    def _forget(self, recording: Recording) -> None:
        if recording in self._recordings:
            self._recordings.remove(recording)

    def _close_recordings(self) -> None:
        """The manager has ended."""
        for recording in list(self._recordings):
            recording.close()

    @property
    def _given_key_log(self) -> str | None:
        """Where the application wants the keys of TLS to be written."""
        return None

    def _keys_go_to(self, path: str | None) -> None:
        """Contexts that are made from now on write their keys there, and those for new connections are made; None: where
        the application wants them, and those in use go on."""

    def _close_key_logs(self) -> None:
        """What wrote its keys where a capture wanted them lets go of that file. Loop's thread, while there is one."""


def _size(maximum_bytes: int) -> int:
    if isinstance(maximum_bytes, bool) or not isinstance(maximum_bytes, int):
        raise TypeError(f"maximum_bytes is a whole number, not {maximum_bytes!r}.")
    if maximum_bytes < LEAST:
        raise ValueError(f"maximum_bytes is at least {LEAST}, not {maximum_bytes}.")
    return maximum_bytes
