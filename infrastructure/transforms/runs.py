"""The steps of a plan as runs of SQL, cut at the Python functions between them."""

from dataclasses import dataclass

from domain.pipelines.steps import CastStep, DropStep, PythonStep, RenameStep, SqlStep
from domain.ports.transformer import TransformPlan
from infrastructure.transforms.python import Hook

SqlSteps = SqlStep | RenameStep | CastStep | DropStep


@dataclass(frozen=True)
class Before:
    """What runs before a Python function: the rows for it, and those that did not convert on the way."""

    query: str
    failures: str | None
    hook: Hook


def runs_of(plan: TransformPlan) -> list[tuple[list[SqlSteps], PythonStep | None]]:
    """Cut the steps at each Python function: the steps before it and the function, None behind the last one."""
    runs: list[tuple[list[SqlSteps], PythonStep | None]] = []
    run: list[SqlSteps] = []
    for step in plan.steps:
        if isinstance(step, PythonStep):
            runs.append((run, step))
            run = []
        else:
            run.append(step)
    return [*runs, (run, None)]


def python_steps(plan: TransformPlan) -> list[str]:
    """The names of a plan's Python functions."""
    return [step.name for step in plan.steps if isinstance(step, PythonStep)]
