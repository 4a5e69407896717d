"""The child processes that look at what users write, and the Python functions beside them, from the settings."""

from pathlib import Path

from infrastructure.bench.bench import Bench
from infrastructure.bench.process import ChildLimits
from infrastructure.bench.refusals import query_too_large, transform_too_large
from infrastructure.settings.tree import Settings
from infrastructure.transforms.python import PythonHooks
from infrastructure.transforms.returned import Returnable

_MODULES = ("infrastructure.security.query_guard", "infrastructure.transforms.in_child")


def checking_bench(settings: Settings) -> Bench:
    """Where queries and documents are parsed, planned, previewed and tested."""
    chosen = settings.checks
    limits = ChildLimits(chosen.memory_mb, chosen.seconds, chosen.answer_mb)
    return Bench(limits, query_too_large, children=chosen.children, queue=chosen.queue, modules=_MODULES)


def running_bench(settings: Settings) -> Bench:
    """Where batches of runs go through steps that may make more of a row than it was; a run has a time-out
    of its own.
    """
    limits = ChildLimits(settings.transforms.memory_mb, None, settings.transforms.memory_mb // 4)
    return Bench(
        limits, transform_too_large, children=settings.run.concurrency * 64, queue=settings.run.concurrency * 64
    )


def checking_hooks(settings: Settings, folder: Path) -> PythonHooks:
    """Python functions as previews and tests call them."""
    return _hooks(settings, folder, settings.checks.memory_mb, "HEADRACE_CHECKS__MEMORY_MB")


def running_hooks(settings: Settings, folder: Path) -> PythonHooks:
    """Python functions as runs call them."""
    return _hooks(settings, folder, settings.transforms.memory_mb, "HEADRACE_TRANSFORMS__MEMORY_MB")


def _hooks(settings: Settings, folder: Path, memory_mb: int, name: str) -> PythonHooks:
    most = Returnable(settings.run.max_batch_size, memory_mb * 1024**2 // 4, settings.limits.columns, name)
    return PythonHooks(allowed=settings.transforms.python_allowed, folder=folder, returnable=most)
