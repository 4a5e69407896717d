"""Row rules in SQL: when a row violates one, and which columns that depends on."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import duckdb

from domain.errors import InvalidInputError
from domain.ports.transformer import TransformPlan
from domain.quality.rules import Rule
from domain.stores.table import INTERNAL_PREFIX, Column
from infrastructure.queries.duckdb_queries import IN_PROCESS
from infrastructure.sql import quote
from infrastructure.tabular.nested_types import KEPT_JSON, is_text_on_the_way
from infrastructure.tabular.numbers_in_text import is_above, is_below, is_number_in_text, is_one_of, spelled
from infrastructure.transforms.comparing import equals, is_counted, nearest_real, outside
from infrastructure.transforms.conversions import is_nested, may_be_time, sql_type
from infrastructure.transforms.profiles import check_profiled

# Types of Postgres' own with one word for a name, in which one value has several texts.
_SPELLED_IN_WAYS = frozenset(
    [
        "inet",
        "cidr",
        "macaddr",
        "macaddr8",
        "json",
        "xml",
        "money",
        "interval",
        "point",
        "line",
        "lseg",
        "box",
        "path",
        "polygon",
        "circle",
        "tsvector",
        "tsquery",
        "jsonpath",
        "int4range",
        "int8range",
        "numrange",
        "tsrange",
        "tstzrange",
        "daterange",
        "int4multirange",
        "int8multirange",
        "nummultirange",
        "tsmultirange",
        "tstzmultirange",
        "datemultirange",
        "record",
        "hstore",
        "citext",
        "BIT",
        "BIGNUM",
        "UHUGEINT",
    ]
)
_OWN_NAME = re.compile(
    r'native:([a-z_][a-z0-9_$]*(\([0-9]+\))?|("[^"]+"|[a-z_][a-z0-9_$]*)(\.("[^"]+"|[a-z_][a-z0-9_$]*))?)'
)
_FEW_VALUES = 50
_MOST_SHOWN = 60
_WRITTEN = {
    "date": "2024-01-31",
    "time": "10:20:30.5",
    "timestamp": "2024-01-31T10:20:30.5",
    "timestamptz": "2024-01-31T10:20:30.5+02:00",
}
_TIMES = ("date", "timestamp", "timestamptz")


def verdict_name(index: int) -> str:
    """Name the column that says whether a row violates a rule; no column of the user's has such a name."""
    return f"{INTERNAL_PREFIX}_violates_{index}"


def violation(
    index: int,
    rule: Rule,
    columns: Mapping[str, Column],
    parameters: dict[str, Any],
) -> str:
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
            return f"({' OR '.join(_outside(index, rule, columns[rule.column or ''], bind))})"
        case "accepted_values":
            kind = columns[rule.column or ""]
            # NULL violates no rule; in a list it would make every value acceptable.
            written = [_as_written(rule, value, kind.type) for value in rule.values if value is not None]
            if is_counted(kind.type):
                written = equals(written, kind.type)
            if not written:
                return f"{column} IS NOT NULL"
            items = _in_brackets(index, written, kind, bind)
            is_number = is_number_in_text(kind.type)
            return f"NOT {is_one_of(column, items)}" if is_number else f"{column} NOT IN ({', '.join(items)})"
        case "matches":
            pattern = bind(f"r{index}", rule.pattern, None)
            return f"NOT regexp_full_match(CAST({column} AS VARCHAR), {pattern})"
        case "sql":
            return f"NOT (\n{IN_PROCESS.predicate(rule.expression or '').text}\n)"
        case _:
            raise InvalidInputError(f"{rule.kind} is not a row rule.", code="quality.unknown")


def _in_brackets(
    index: int, values: Sequence[Any], column: Column, bind: Callable[[str, Any, Column | None], str]
) -> list[str]:
    """What stands behind IN: each value or, of many, a query that gives all of them, as each would take memory and time
    by itself.
    """
    if len(values) <= _FEW_VALUES or not all(isinstance(value, str) for value in values):
        return [bind(f"r{index}_{number}", value, column) for number, value in enumerate(values)]
    return [f"SELECT unnest(CAST({bind(f'r{index}', values, None)} AS {sql_type(column.type)}[]))"]


def _outside(index: int, rule: Rule, column: Column, bind: Callable[[str, Any, Column | None], str]) -> list[str]:
    """Conditions of being below the least or above the greatest value."""
    parts = []
    for side, value, comparison in (("min", rule.minimum, "<"), ("max", rule.maximum, ">")):
        if value is None:
            continue
        written = _as_written(rule, value, column.type)
        if is_counted(column.type):

            def named(step: str, name: str = f"r{index}_{side}") -> str:
                return bind(name, step, column)

            parts.append(outside(quote(column.name), side, written, column.type, named))
            continue
        bound = bind(f"r{index}_{side}", written, column)
        if is_number_in_text(column.type):
            parts.append((is_below if side == "min" else is_above)(quote(column.name), bound, written))
        else:
            parts.append(f"{quote(column.name)} {comparison} {bound}")
    return parts


def _as_written(rule: Rule, value: Any, kind: str) -> Any:
    """A value of a rule as the column would have it in text, where it is compared by its digits."""
    if is_number_in_text(kind) or is_counted(kind):
        try:
            return spelled(int(value) if isinstance(value, bool) else value)
        except ValueError as error:
            raise InvalidInputError(
                f"The rule {rule.label} compares {kind} with {_shown(value)}, which is no number, or has an exponent "
                "that stands for more than a thousand digits: write them out.",
                code="quality.type",
            ) from error
    if kind == "float32" and isinstance(value, float):
        return nearest_real(value)
    if isinstance(value, str) and not may_be_time(value, kind):
        raise _no_value(rule, value, kind)
    return str(value).lower() if kind == "uuid" else value


def _no_value(rule: Rule, value: str, kind: str) -> InvalidInputError:
    advice = f": write it as {_WRITTEN[kind]}" if kind in _WRITTEN else ""
    return InvalidInputError(
        f"The rule {rule.label} compares {kind} with {_shown(value)}, which is none, or has more than that{advice}.",
        code="quality.type",
    )


def _shown(value: Any) -> str:
    text = str(value)
    return repr(text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…")


def check_bounds(rules: Iterable[Rule], columns: Mapping[str, Column], connection: duckdb.DuckDBPyConnection) -> None:
    """Refuse a text of a rule that is no value of its column's type: a day that no month has, or an unknown zone.

    Raises:
        InvalidInputError: `quality.type`.
    """
    for rule in rules:
        column = columns.get(rule.column or "")
        kind = column.type if column is not None else "string"
        texts = [value for value in (rule.minimum, rule.maximum, *rule.values) if isinstance(value, str)]
        if not texts or is_number_in_text(kind) or is_counted(kind):
            continue
        wrong = f"SELECT text FROM unnest($1) AS given(text) WHERE TRY_CAST(text AS {sql_type(kind)}) IS NULL LIMIT 1"
        if found := connection.execute(wrong, [texts]).fetchone():
            raise _no_value(rule, found[0], kind)


def _check_comparable(rule: Rule, kind: str) -> None:
    """Refuse to compare what DuckDB has only the text of, unless equal values have equal texts.

    Raises:
        InvalidInputError: `quality.type`.
    """
    if rule.kind not in ("between", "accepted_values") or is_number_in_text(kind) or kind == "uuid":
        return
    is_own = _OWN_NAME.fullmatch(kind) and kind.removeprefix("native:") not in _SPELLED_IN_WAYS
    if rule.kind == "accepted_values" and is_own:
        return  # An enum, say.
    if kind.startswith("native:") or kind in ("json", KEPT_JSON) or is_nested(kind):
        raise InvalidInputError(
            f"The rule {rule.label} cannot compare values of {kind}, which travel as text; cast the column in the "
            "source query or in a step.",
            code="quality.type",
        )


def unbound(plan: TransformPlan, columns: Sequence[Column]) -> InvalidInputError | None:
    """Why DuckDB did not understand a predicate, if it is about columns that travel as text."""
    kinds = {column.name.lower(): column.type for column in columns if is_text_on_the_way(column.type)}
    predicates = [(f"The rule {rule.label}", rule.expression) for rule in plan.rules if rule.kind == "sql"]
    for what, expression in [*predicates, ("deleted_when", plan.deleted_when)]:
        named = sorted(name for name in IN_PROCESS.predicate(expression or "true").columns if name.lower() in kinds)
        if named:
            return InvalidInputError(
                f"{what} compares {named[0]}, a {kinds[named[0].lower()]}, which travels as text: cast it there, as in "
                f"CAST({named[0]} AS DECIMAL(38, 6)), or in a step.",
                code="quality.type",
            )
    return None


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
        if rule.column in names:
            _check_comparable(rule, names[rule.column])
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
            names |= IN_PROCESS.predicate(rule.expression).columns
    lower = {name.lower() for name in names}
    return tuple(column.name for column in plan.source if column.name.lower() in lower)
