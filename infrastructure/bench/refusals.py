"""What becomes of a call that a child could not bring to its end, in sentences that a person can act on."""

from domain.errors import InvalidInputError, WorkFailedError
from domain.ports.security import TOO_LARGE
from infrastructure.bench.process import ChildLimits

_HOW = {
    "memory": "needs more than the {memory_mb} MB that {it} may take",
    "answer": "gives more than {answer_mb} MB",
    "time": "takes longer than the {seconds:g} s that {it} may take",
    "end": "ended the process that did it",
}


def query_too_large(what: str, limits: ChildLimits) -> InvalidInputError:
    """Of what was parsed, planned, previewed or tested."""
    return InvalidInputError(
        f"The query or one of the steps or rules {_how(what, limits, 'looking at it')}: make it smaller, nest it "
        "less, or read fewer rows.",
        code=TOO_LARGE,
    )


def transform_too_large(what: str, limits: ChildLimits) -> WorkFailedError:
    """Of a step of a run."""
    return WorkFailedError(
        f"A step or rule {_how(what, limits, 'a batch of a run')}: let it make smaller values, set run.batch_rows or "
        "run.batch_bytes lower, or HEADRACE_TRANSFORMS__MEMORY_MB higher.",
        code="transform.too_large",
    )


def _how(what: str, limits: ChildLimits, it: str) -> str:
    return _HOW[what].format(it=it, memory_mb=limits.memory_mb, answer_mb=limits.answer_mb, seconds=limits.seconds or 0)
