"""The clocks of the host: the one place where they are read."""

import time
from datetime import UTC, datetime

from domain.ports.runtime import IClock


def utc_now() -> datetime:
    """The time, with its zone, for what an adapter writes down."""
    return datetime.now(UTC)


def monotonic() -> float:
    """Seconds that never go back, for how long an adapter waits."""
    return time.monotonic()


def worked_seconds() -> float:
    """How long this process has had a processor."""
    return time.process_time()


def wall_seconds() -> float:
    """Seconds since 1970, for records whose database is a file of this host."""
    return time.time()


def boot_time() -> float:
    """Seconds since boot, sleep included: a clock that nobody sets."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class SystemClock(IClock):
    """The same for what is told the time."""

    def now(self) -> datetime:
        return utc_now()

    def monotonic(self) -> float:
        return monotonic()
