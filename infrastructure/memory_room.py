"""Room in memory for what is unusually large, shared by all who only want to look: one may take much, all at once may
not.
"""

import ctypes
import gc
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa

from domain.errors import UnavailableError
from infrastructure.clock import monotonic
from infrastructure.threads import stop_if_unwanted

LARGE = 16 * 1024 * 1024
"""What takes less than this is not counted."""
_LOOK_SECONDS = 0.5
_OF_GROUP = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def give_back() -> None:
    """Give back to the system what is not needed any more. What consists of small pieces, as a footer does once it is
    read, is kept by the C library for the thread that had it, and each has a thread of its own; and the metadata of a
    Parquet file refers to itself.
    """
    gc.collect()
    pa.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # Of glibc alone.
    if trim is not None:
        trim(0)


def memory_bytes() -> int:
    """What the machine has of memory, or the group of processes that this one is in may use of it."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for limit in _OF_GROUP:
        with suppress(OSError, ValueError):  # There is none, or it says "max".
            found.append(int(limit.read_text()))
    return min(found)


class Room:
    """So many bytes at a time; who needs more than there are waits, and is turned away after a while. Blocking, for
    threads.
    """

    def __init__(self, most: int = 256 * 1024 * 1024, patience_seconds: float = 20.0) -> None:
        self._most = most
        self._free = most
        self._patience_seconds = patience_seconds
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, size: int) -> Iterator[None]:
        """Take room for so many bytes; what is larger than all of it takes all.

        Raises:
            UnavailableError: others have kept it for too long (`worker.busy`).
        """
        size = min(size, self._most) if size > LARGE else 0
        with self._changed:
            if not self._comes_free(size):
                raise UnavailableError(
                    "Others are looking at very large values already: try again in a moment.", code="worker.busy"
                )
            self._free -= size
        try:
            yield
        finally:
            if size:
                give_back()
                with self._changed:
                    self._free += size
                    self._changed.notify_all()

    def _comes_free(self, size: int) -> bool:
        until = monotonic() + self._patience_seconds
        while self._free < size and (left := until - monotonic()) > 0:
            stop_if_unwanted()
            self._changed.wait(min(left, _LOOK_SECONDS))
        return self._free >= size


ROOM = Room()
