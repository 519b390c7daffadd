"""Objects in processes of their own, and what the system says about a process."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

_Self = TypeVar("_Self", bound="Child")

PATIENCE = 150.0
"""Seconds that a process may take to answer: what waits in it for the network is over after a minute."""


class Child:
    """An object that is made in a process of its own; ``call`` runs one of its methods there, or ``resident`` or
    ``processor`` of this module. A context manager.

    Attributes:
        start_method: Where there is a choice, modules are imported once and not by each process.
        patience: Seconds that a process may take to answer.
    """

    start_method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    patience = PATIENCE

    def __init__(self, make: Callable[..., Any], *args: Any, **keywords: Any) -> None:
        self.name = make.__name__
        context = multiprocessing.get_context(self.start_method)
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, args, keywords), daemon=True)
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        pid = self._process.pid
        assert pid is not None
        return pid

    def call(self, method: str, *args: Any) -> Any:
        """Run the method and wait for what it returns."""
        self.begin(method, *args)
        return self.finish()

    def begin(self, method: str, *args: Any) -> None:
        """Have the method run; ``finish`` comes next."""
        self._pipe.send((method, args))

    def finish(self) -> Any:
        """What the method that was begun returns."""
        if not self._pipe.poll(self.patience):
            raise RuntimeError(f"{self.name} gave no answer within {self.patience:g} s.")
        try:
            worked, answer = self._pipe.recv()
        except EOFError:
            raise RuntimeError(f"The process of {self.name} has died.") from None
        if not worked:
            raise RuntimeError(f"{self.name} failed: {answer}")
        return answer

    def usage(self) -> Usage:
        """What the process has just now."""
        return usage(self.pid)

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._pipe.close()
        self._process.terminate()
        self._process.join(self.patience)


def _serve(pipe: Any, make: Callable[..., Any], args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
    """What the process of a Child does."""
    try:
        served = make(*args, **keywords)
        while True:
            method, args = pipe.recv()
            try:
                answer = (True, COMMON[method]() if method in COMMON else getattr(served, method)(*args))
            except Exception:
                answer = (False, traceback.format_exc())
            pipe.send(answer)
    except (EOFError, KeyboardInterrupt):
        pass
    except BaseException:
        pipe.send((False, traceback.format_exc()))


def resident() -> int:
    """Bytes of memory that this process has, once the garbage is collected."""
    gc.collect()
    return own_usage().memory


class _Mallinfo(ctypes.Structure):
    """What glibc says about its heaps."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


class Heap(NamedTuple):
    """What this process has asked for and not given back, which says more about a leak than resident memory, of which
    holes between what is in use are a part.

    Attributes:
        blocks: How many blocks of up to 512 bytes, as most objects of Python are.
        octets: Of larger blocks, and of those of OpenSSL; 0 where the system does not tell.
    """

    blocks: int
    octets: int

    def __str__(self) -> str:
        return f"{self.blocks} small blocks and {self.octets / 2**20:.1f} MiB of others in use"


def own_heap() -> Heap:
    """Of this process, once the garbage is collected."""
    gc.collect()
    try:
        mallinfo = ctypes.CDLL(None).mallinfo2
    except (OSError, TypeError, AttributeError):
        return Heap(sys.getallocatedblocks(), 0)
    mallinfo.restype = _Mallinfo
    found = mallinfo()
    return Heap(sys.getallocatedblocks(), found.uordblks + found.hblkhd)


COMMON: dict[str, Callable[[], Any]] = {"resident": resident, "processor": time.process_time}


class Usage(NamedTuple):
    """What a process has: bytes of resident memory, descriptors, threads, and the seconds of processor it has used.
    Where the system does not tell, as anywhere but on Linux, it is 0."""

    memory: int
    descriptors: int
    threads: int
    processor: float

    def __str__(self) -> str:
        return f"{self.memory / 2**20:.1f} MiB, {self.descriptors} descriptors, {self.threads} threads"


HAS_PROC = Path("/proc/self/statm").exists()


def usage(pid: int) -> Usage:
    """What the process of that number has just now."""
    if not HAS_PROC:
        return Usage(0, 0, 0, 0.0)
    folder = Path(f"/proc/{pid}")
    memory = int((folder / "statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    fields = (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    processor = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return Usage(memory, len(list((folder / "fd").iterdir())), int(fields[17]), processor)


def own_usage() -> Usage:
    """What this process has."""
    if HAS_PROC:
        return usage(os.getpid())
    return Usage(0, 0, threading.active_count(), time.process_time())
