"""Files that are written while the loop's thread goes on: what does not fit into a bounded queue is left out and counted."""

from __future__ import annotations

import os
import queue
import threading
import weakref
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from p2psip.logs import Log
from p2psip.sync import worker_blocks

_log = Log(__name__)

QUEUE = 16 * 1024 * 1024
"""Octets that wait to be written at most."""
PATIENCE = 5.0
"""Seconds that closing waits for the disk."""
OVERHEAD = 256
"""Octets that each entry counts for besides its own."""

_Self = TypeVar("_Self", bound="Recording")


class Recording:
    """One file, written by a thread of its own. A context manager; leaving it closes it. Usable from any thread.

    It never blocks who records: when the disk does not keep up, entries are left out, which the file says where it
    happened. When the disk is full, or the file has its greatest size and nothing takes its place, it ends by itself.
    """

    def __init__(self, path: str | os.PathLike[str], maximum_bytes: int, *, append: bool) -> None:
        self._path = Path(path).absolute()
        self._maximum_bytes = maximum_bytes
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._put_bytes = self._taken_bytes = 0  # the first is the recorder's, the second the writer's
        self._left_out = 0
        self._is_over = False
        self._closed = threading.Event()
        self._written = 0
        self._file = self._open(append)
        self._thread = threading.Thread(target=self._run, name=f"p2psip writes {self._path.name}", daemon=True)
        _recordings.add(self)

    def _open(self, append: bool) -> BinaryIO:
        """For its owner's eyes only, also where the file was there."""
        flags = os.O_WRONLY | os.O_CREAT | (os.O_APPEND if append else os.O_TRUNC) | getattr(os, "O_BINARY", 0)
        flags |= getattr(os, "O_NONBLOCK", 0)  # else a pipe that nobody reads would be waited for
        descriptor = os.open(self._path, flags, 0o600)
        if hasattr(os, "fchmod"):
            try:
                os.fchmod(descriptor, 0o600)
            except OSError:
                os.close(descriptor)
                raise
        return os.fdopen(descriptor, "ab" if append else "wb")

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    @property
    def left_out(self) -> int:
        """How much was left out so far because the disk did not keep up."""
        return self._left_out

    @property
    def is_over(self) -> bool:
        """Nothing is recorded any more: it was closed, or has ended by itself."""
        return self._is_over

    def close(self) -> None:
        """Record no more, and write what is recorded. Blocks for 5 s at most; allowed in handlers, and twice."""
        if self._closed.is_set():  # by itself, or it is that of the process that this one was forked from
            return
        with worker_blocks("close()"):
            self._detach()
            self._is_over = True
            self._queue.put(None)
            self._closed.wait(PATIENCE)

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _detach(self) -> None:
        """Whoever records into it forgets it."""

    # ------------------------------------------------------------------ who records

    def _put(self, entry: Any, size: int, must: bool = False) -> bool:
        """Loop thread: have it written, or count it. ``must``: it is written in any case, because it ends something."""
        if self._is_over:
            return False
        size += OVERHEAD
        if self._put_bytes + size - self._taken_bytes > QUEUE and not must:
            self._left_out += 1
            return False
        self._put_bytes += size
        self._queue.put((entry, size))
        return True

    # ------------------------------------------------------------------ the writer

    def _run(self) -> None:
        try:
            self._begin()
            while True:
                item = self._queue.get()
                if item is None:
                    break
                entry, size = item
                self._taken_bytes += size
                if self._closed.is_set() or not self._write(entry):
                    break
                if self._queue.empty():
                    self._file.flush()
            self._end()
        except Exception as error:
            _log.error("The file %s could not be written, so no more is recorded there.", self._path, exc_info=error)
        finally:
            self._is_over = True
            for step in (self._file.close, self._detach, self._clean_up):
                try:
                    step()
                except Exception as error:
                    _log.error("The file %s has not ended as it should.", self._path, exc_info=error)
            self._closed.set()

    def _begin(self) -> None:
        """The beginning of the file."""

    def _write(self, entry: Any) -> bool:
        """One entry. False: no more."""
        raise NotImplementedError

    def _end(self) -> None:
        """The end of the file."""

    def _clean_up(self) -> None:
        """What else is to be removed."""


_recordings: weakref.WeakSet[Recording] = weakref.WeakSet()


def _forked() -> None:
    """The file is the parent's, and so is the thread."""
    for recording in list(_recordings):
        recording._is_over = True
        recording._closed.set()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
