"""Row rules in SQL: when a row violates one, and which columns that depends on."""

from collections.abc import Mapping, Sequence
from typing import Any

from domain.errors import InvalidInputError
from domain.pipelines.quality import Rule
from domain.pipelines.table import INTERNAL_PREFIX, Column
from domain.ports.transformer import TransformPlan
from infrastructure.sql import check_row_predicate, columns_of_predicate, quote
from infrastructure.transforms.conversions import sql_type
from infrastructure.transforms.profiles import check_profiled

_TIMES = ("date", "timestamp", "timestamptz")


def verdict_name(index: int) -> str:
    """Name the column that says whether a row violates a rule; no column of the user's has such a name."""
    return f"{INTERNAL_PREFIX}_violates_{index}"


def violation(index: int, rule: Rule, columns: Mapping[str, Column], parameters: dict[str, Any]) -> str:
    """Return SQL that is true where a row violates a row rule; its values are put into `parameters`."""

    def bind(name: str, value: Any, column: Column | None) -> str:
        parameters[name] = value
        is_cast = column is not None and isinstance(value, str)
        return f"CAST(${name} AS {sql_type(column.type)})" if is_cast and column else f"${name}"

    column = quote(rule.column) if rule.column else ""
    match rule.kind:
        case "not_null":
            return f"{column} IS NULL"
        case "between":
            parts = []
            for side, value, comparison in (("min", rule.minimum, "<"), ("max", rule.maximum, ">")):
                if value is not None:
                    bound = bind(f"r{index}_{side}", value, columns[rule.column or ""])
                    parts.append(f"{column} {comparison} {bound}")
            return f"({' OR '.join(parts)})"
        case "accepted_values":
            items = [
                bind(f"r{index}_{number}", value, columns[rule.column or ""])
                for number, value in enumerate(rule.values)
            ]
            return f"{column} NOT IN ({', '.join(items)})"
        case "matches":
            pattern = bind(f"r{index}", rule.pattern, None)
            return f"NOT regexp_full_match(CAST({column} AS VARCHAR), {pattern})"
        case "sql":
            check_row_predicate(rule.expression or "")
            return f"NOT (\n{rule.expression}\n)"
        case _:
            raise InvalidInputError(f"{rule.kind} is not a row rule.", code="quality.unknown")


def check_rules(plan: TransformPlan, columns: Sequence[Column]) -> None:
    """Refuse rules over columns that are not there, or that hold no times where a rule is about time.

    Raises:
        InvalidInputError: `quality.column_missing`, `quality.type`.
    """
    names = {column.name: column.type for column in columns}
    for rule in plan.rules:
        named = [*rule.columns, *([rule.column] if rule.column else [])]
        for column in () if plan.is_partial else named:
            if column not in names:
                raise InvalidInputError(
                    f"The rule {rule.label} names {column}, which is not there after the transforms.",
                    code="quality.column_missing",
                )
        if rule.kind == "distribution" and rule.column in names:
            check_profiled(rule, names[rule.column])
        if rule.kind == "freshness" and names.get(rule.column or "", "date") not in _TIMES:
            raise InvalidInputError(f"The rule {rule.label} needs a date or a timestamp.", code="quality.type")


def looked_at(plan: TransformPlan) -> tuple[str, ...]:
    """The source columns that row rules and measures look at; `unique` and its like are measured at the destination."""
    names: set[str] = set()
    for rule in plan.rules:
        if rule.column is not None:
            names.add(rule.column)
        if rule.expression is not None:
            names |= columns_of_predicate(rule.expression)
    lower = {name.lower() for name in names}
    return tuple(column.name for column in plan.source if column.name.lower() in lower)
