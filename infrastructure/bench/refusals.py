"""What becomes of a call that a child could not bring to its end, in sentences that a person can act on."""

from domain.errors import InvalidInputError, WorkFailedError
from domain.ports.security import TOO_LARGE
from infrastructure.bench.process import ChildLimits

_HOW = {
    "memory": "needs more than the {memory_mb} MB",
    "time": "takes longer than the {seconds:g} s",
    "end": "ended the process",
}


def query_too_large(what: str, limits: ChildLimits) -> InvalidInputError:
    """Of what was parsed, planned, previewed or tested: `what` is memory, time or end."""
    how = _HOW[what].format(memory_mb=limits.memory_mb, seconds=limits.seconds or 0)
    rest = " in which it was looked at" if what == "end" else " that looking at it may take"
    return InvalidInputError(
        f"The query or one of the steps or rules {how}{rest}: make it smaller, nest it less, or read fewer rows.",
        code=TOO_LARGE,
    )


def transform_too_large(what: str, limits: ChildLimits) -> WorkFailedError:
    """Of a step of a run."""
    how = _HOW[what].format(memory_mb=limits.memory_mb, seconds=limits.seconds or 0)
    rest = " in which it ran" if what == "end" else " that a batch of a run may take"
    return WorkFailedError(
        f"A step or rule {how}{rest}: let it make smaller values, set run.batch_rows or run.batch_bytes lower, or "
        "HEADRACE_TRANSFORMS__MEMORY_MB higher.",
        code="transform.too_large",
    )
