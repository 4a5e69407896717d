"""The one write lock of an embedded store, which also tells since when it is held."""

import threading
from datetime import datetime

from infrastructure.clock import utc_now


class WriteLock:
    """A lock that a transaction takes before it begins and holds until it is committed, so it has put no
    time before.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since: datetime | None = None

    def acquire(self, timeout: float = -1) -> bool:
        """Take the lock, as `threading.Lock.acquire` does."""
        if not self._lock.acquire(timeout=timeout):
            return False
        self._since = utc_now()
        return True

    def release(self) -> None:
        """Give it back."""
        self._since = None
        self._lock.release()

    def held_since(self) -> datetime | None:
        """Since when it is held; None when it is free."""
        now = utc_now()
        # Whoever has just taken it has not looked at the clock yet.
        return (self._since or now) if self._lock.locked() else None
