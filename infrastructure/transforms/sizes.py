"""Whether what a plan makes of a row is about as large as the row, and takes no longer than its size, so that a run may
make it in its own process.
"""

from domain.pipelines.steps import CastStep, SqlStep
from domain.ports.transformer import TransformPlan
from infrastructure.queries.duckdb_costs import is_slow_pattern, may_be_slow_patterns
from infrastructure.queries.duckdb_patterns import Patterns
from infrastructure.queries.duckdb_queries import IN_PROCESS
from infrastructure.queries.duckdb_sizes import MAX_GROWTH

_FEW_PARTS = 2_000
"""Parts of a plan for each of which DuckDB keeps up to 32 KiB, in each thread."""
_PARTS = {"between": 20}
"""Of a rule, at most: numbers in text are compared by their digits."""
_OF_CAST = 10
_OF_LANDING = 5
"""Of a conversion to the type that a table has: hundreds of columns are an honest table, and each costs a megabyte at
most.
"""
_COMPARED_PARTS = 500
_CHARACTERS = 50
"""Of SQL, for a part."""
_CARRIED = 10
"""Columns that a step leaves as they are, which take as much as one part."""


def keeps_size(plan: TransformPlan) -> bool:
    """Whether no step makes values larger, nor all of them together, and no rule makes larger ones on the way; and none
    takes far longer than the size of its values.
    """
    patterns = Patterns()
    if _is_large(plan) or any(is_slow_pattern(pattern, patterns) for pattern in _patterns_of(plan)):
        return False
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


def has_many_parts(plan: TransformPlan) -> bool:
    """Whether DuckDB would take long to look for parts that are the same: the square of their number."""
    written = sum(len(step.sql) // _CHARACTERS for step in plan.steps if isinstance(step, SqlStep))
    # What columns of which types the last of several steps gives is not known here: each may have to be converted.
    return _parts(plan) + written + (len(plan.target) if plan.steps else 0) > _COMPARED_PARTS


def is_written(plan: TransformPlan) -> bool:
    """Whether there is SQL of users' in a plan, or a pattern that may take long."""
    steps = any(isinstance(step, SqlStep) for step in plan.steps)
    if steps or plan.deleted_when is not None or any(rule.expression is not None for rule in plan.rules):
        return True
    return _is_large(plan) or may_be_slow_patterns(_patterns_of(plan))


def _is_large(plan: TransformPlan) -> bool:
    """Whether what DuckDB has to work out is so much that its plan, and the room for each part of it, count."""
    return _parts(plan) > _FEW_PARTS


def _parts(plan: TransformPlan) -> int:
    parts = sum(_PARTS.get(rule.kind, 1) + len(rule.values) for rule in plan.rules if rule.is_row_rule)
    parts += sum(_OF_CAST * len(step.types) for step in plan.steps if isinstance(step, CastStep))
    kinds = {column.name: column.type for column in plan.target}
    names = plan.landing_names([column.name for column in plan.source])
    landing = zip(names, plan.source, strict=True)
    parts += _OF_LANDING * sum(kinds.get(name, column.type) != column.type for name, column in landing)
    return parts + len(plan.steps) * len(plan.source) // _CARRIED


def _patterns_of(plan: TransformPlan) -> list[str]:
    return [rule.pattern for rule in plan.rules if rule.pattern is not None]
