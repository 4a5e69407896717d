"""When a call has to be done: a process that wants a processor and does not get one does not take long."""

from contextlib import suppress
from pathlib import Path

from infrastructure.clock import monotonic

_MOST_TIMES = 6
"""How many times its seconds a call may be under way, while it gets no processor or disk."""
_LOOK_TIMES = 0.1
_WANTS = ("R", "D")
"""As Linux calls it: running or waiting for a processor, or for a disk."""


class StarvedError(Exception):
    """A call that is not done, which says nothing of what it does: its process had too little of the machine."""


class Deadline:
    """So many seconds from now on, and more for a process that wants to go on then, where the system tells that: its
    own timer ends one that has worked for too long.
    """

    def __init__(self, seconds: float, pid: int | None = None) -> None:
        self._pid = pid
        self._seconds = seconds
        self._until = monotonic() + seconds
        self._most = self._until + seconds * (_MOST_TIMES - 1)

    def left(self) -> float:
        """How many seconds there are; they may become more.

        Raises:
            TimeoutError: none, and the process waits for something else, or nothing is known of it.
            StarvedError: none.
        """
        left = self._until - monotonic()
        if left > 0:
            return left
        if self._pid is None or not _wants_to_go_on(self._pid):
            raise TimeoutError
        if monotonic() > self._most:
            raise StarvedError
        self._until = monotonic() + self._seconds * _LOOK_TIMES
        return self._seconds * _LOOK_TIMES


def _wants_to_go_on(pid: int) -> bool:
    with suppress(OSError):
        return any(_state(thread) in _WANTS for thread in Path(f"/proc/{pid}/task").iterdir())
    return False


def _state(thread: Path) -> str:
    with suppress(OSError, IndexError):
        return (thread / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
    return ""
