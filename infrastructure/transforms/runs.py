"""The steps of a plan as runs of SQL, cut at the Python functions between them."""

from domain.pipelines.steps import CastStep, DropStep, PythonStep, RenameStep, SqlStep
from domain.ports.transformer import TransformPlan

SqlSteps = SqlStep | RenameStep | CastStep | DropStep


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
