"""Who holds a lease, and whether that process still lives on this host."""

import os
from pathlib import Path


def boot_id() -> str:
    """Identify this boot of this host."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"


def this_process() -> str:
    """Name this process so that another can tell whether it is gone: boot, pid, start time."""
    return f"{boot_id()}:{os.getpid()}:{_started(os.getpid())}"


def is_gone(owner: str) -> bool:
    """Say whether the process of a lease on this host has ended (or the host was started again)."""
    boot, pid, started = owner.split(":")[:3]
    if boot != boot_id():
        return True
    return _started(int(pid)) != started


def _started(pid: int) -> str:
    """The start time of a process in clock ticks, as a pid alone may be used again; empty when it is gone."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return _without_proc(pid)
    fields = status[status.rindex(")") + 2 :].split()
    # A zombie has ended: it only waits for its parent.
    return "" if fields[0] == "Z" else fields[19]


def _without_proc(pid: int) -> str:
    if Path("/proc/self/stat").exists():
        return ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        return "alive"
    return "alive"
