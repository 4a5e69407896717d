"""The child processes that look at what users write, from the settings."""

from infrastructure.bench.bench import Bench
from infrastructure.bench.process import ChildLimits
from infrastructure.bench.refusals import query_too_large
from infrastructure.settings import Settings

_MODULES = ("infrastructure.security.query_guard",)


def checking_bench(settings: Settings) -> Bench:
    """Where queries and documents are parsed, planned, previewed and tested."""
    chosen = settings.checks
    limits = ChildLimits(chosen.memory_mb, chosen.seconds)
    return Bench(limits, query_too_large, children=chosen.children, queue=chosen.queue, modules=_MODULES)
