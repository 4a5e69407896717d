"""Whether what a plan makes of a row is about as large as the row, so that a run may make it in its own process."""

from domain.pipelines.steps import SqlStep
from domain.ports.transformer import TransformPlan
from infrastructure.queries.duckdb_queries import IN_PROCESS
from infrastructure.queries.duckdb_sizes import MAX_GROWTH


def keeps_size(plan: TransformPlan) -> bool:
    """Whether no step makes values larger, nor all of them together, and no rule makes larger ones on the way."""
    predicates = [rule.expression for rule in plan.rules if rule.expression is not None]
    predicates += [plan.deleted_when] if plan.deleted_when is not None else []
    if not all(IN_PROCESS.predicate(predicate).is_size_preserving for predicate in predicates):
        return False
    growth = 1.0
    for step in plan.steps:
        if isinstance(step, SqlStep):
            read = IN_PROCESS.step(step.sql)
            if not read.is_size_preserving or read.growth is None:
                return False
            growth *= max(read.growth, 1.0)
    return growth <= MAX_GROWTH
