"""What every part of the benchmarks measures with: rounds, medians, times, peak memory."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

ROUNDS = 3

Line = tuple[str, float, float, str]
"""The measure, ours, the peer's or the limit, and the goal of their ratio."""


def peak_mb(pid: int) -> float:
    """VmHWM of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def timed(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def median(values: list[float]) -> float:
    """The median without the first round, which warms up."""
    return statistics.median(values[1:] or values)
