"""Where the tests keep what lives no longer than they do: in memory, where there is plenty of it.

A database is some three hundred files, and records wait for the disk at each commit. `HEADRACE_TEST_DISK=1` uses the
disk.
"""

import os
from pathlib import Path

_MEMORY = Path("/dev/shm")
_ROOM = 6 << 30


def in_memory() -> Path | None:
    """A folder in memory, if it has room."""
    if os.environ.get("HEADRACE_TEST_DISK") or not os.access(_MEMORY, os.W_OK):
        return None
    place = os.statvfs(_MEMORY)
    available = int(Path("/proc/meminfo").read_text().partition("MemAvailable:")[2].split()[0]) * 1024
    return _MEMORY if min(place.f_bavail * place.f_frsize, available) >= _ROOM else None
