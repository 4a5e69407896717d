"""Expressions over features and what a request gives: one meaning, for a lookup in Python and for history in SQL.

There are four kinds of values, and NULL is of each. Every operation has a value for all of its arguments: what
overflows, divides an integer by zero or cannot be cast is NULL. So nothing depends on the order in which an engine
looks at things, and a value that a model was trained with is the one that it is served.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from operator import itemgetter
from typing import Any

_LEAST, _MOST = -(2**63), 2**63 - 1


class Kind(StrEnum):
    """What a value is; integers have 64 bits, numbers are doubles."""

    INTEGER = "BIGINT"
    NUMBER = "DOUBLE"
    BOOLEAN = "BOOLEAN"
    TEXT = "VARCHAR"


@dataclass(frozen=True)
class Column:
    """A feature, or what a request gives."""

    name: str
    kind: Kind


@dataclass(frozen=True)
class Constant:
    """A value that stands in the expression; None is NULL."""

    value: bool | int | float | str | None
    kind: Kind


@dataclass(frozen=True)
class Call:
    """An operation; what it does is in `OPERATIONS`."""

    operation: str
    arguments: tuple["Expression", ...]
    kind: Kind


Expression = Column | Constant | Call


@dataclass(frozen=True)
class Operation:
    """What an operation does with values, and how SQL says it: `{}` stands for its arguments, `{0}` for one of them."""

    act: Callable[..., Any]
    sql: str


def _of_one(act: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """NULL in, NULL out."""
    return lambda value: None if value is None else act(value)


def _of_two(act: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """The same, where either may be NULL."""
    return lambda left, right: None if left is None or right is None else act(left, right)


def _within(value: int) -> int | None:
    return value if _LEAST <= value <= _MOST else None


def _divided(left: float, right: float) -> float:
    if right:
        return left / right
    if math.isnan(left) or math.isnan(right) or not left:
        return math.nan
    return math.copysign(math.inf, left) * math.copysign(1.0, right)


def _whole(left: int, right: int) -> int | None:
    """Toward zero, as SQL does."""
    if not right:
        return None
    found = abs(left) // abs(right)
    return _within(found if (left < 0) == (right < 0) else -found)


def _rest(left: int, right: int) -> int | None:
    if not right or (left == _LEAST and right == -1):
        return None
    return int(math.copysign(1, left)) * (abs(left) % abs(right))


def _remainder(left: float, right: float) -> float:
    try:
        return math.fmod(left, right)
    except ValueError:
        return math.nan


def _as_integer(value: float) -> int | None:
    return _within(round(value)) if math.isfinite(value) else None


def _rounded(value: float) -> float:
    """Halves away from zero."""
    if not math.isfinite(value):
        return value
    whole = math.floor(abs(value))
    return math.copysign(whole + (abs(value) - whole >= 0.5), value)


def _to_whole(rounded: Callable[[float], int]) -> Callable[[float], float]:
    return lambda value: math.copysign(float(rounded(value)), value) if math.isfinite(value) else value


def _root(value: float) -> float:
    return math.nan if value < 0 else math.sqrt(value)


def _place(value: Any) -> Any:
    """Where a value stands in the order: a double that is no number is equal to itself and greater than all others."""
    return (1, 0.0) if value != value else (0, value)


def _is(compare: Callable[[Any, Any], bool]) -> Callable[..., Any]:
    return _of_two(lambda left, right: compare(_place(left), _place(right)))


def _and(*arguments: bool | None) -> bool | None:
    return False if False in arguments else None if None in arguments else True


def _or(*arguments: bool | None) -> bool | None:
    return True if True in arguments else None if None in arguments else False


def _first(*arguments: Any) -> Any:
    return next((argument for argument in arguments if argument is not None), None)


def _case(*arguments: Any) -> Any:
    for condition, value in zip(arguments[:-1:2], arguments[1::2], strict=True):
        if condition:
            return value
    return arguments[-1]


def _greatest(*arguments: Any) -> Any:
    return max((argument for argument in arguments if argument is not None), key=_place, default=None)


def _least(*arguments: Any) -> Any:
    return min((argument for argument in arguments if argument is not None), key=_place, default=None)


def _is_among(value: Any, *others: Any) -> bool | None:
    if value is None:
        return None
    if any(other is not None and _place(other) == _place(value) for other in others):
        return True
    return None if None in others else False


def _null_if(value: Any, other: Any) -> Any:
    return None if value is None or (other is not None and _place(value) == _place(other)) else value


OPERATIONS: Mapping[str, Operation] = {
    "add_integers": Operation(_of_two(lambda left, right: _within(left + right)), "TRY({0} + {1})"),
    "subtract_integers": Operation(_of_two(lambda left, right: _within(left - right)), "TRY({0} - {1})"),
    "multiply_integers": Operation(_of_two(lambda left, right: _within(left * right)), "TRY({0} * {1})"),
    "divide_whole": Operation(_of_two(_whole), "TRY({0} // {1})"),
    "remainder_of_integers": Operation(_of_two(_rest), "TRY({0} % {1})"),
    "absolute_integer": Operation(_of_one(lambda value: _within(abs(value))), "TRY(abs({0}))"),
    "add": Operation(_of_two(lambda left, right: left + right), "({0} + {1})"),
    "subtract": Operation(_of_two(lambda left, right: left - right), "({0} - {1})"),
    "multiply": Operation(_of_two(lambda left, right: left * right), "({0} * {1})"),
    "divide": Operation(_of_two(_divided), "({0} / {1})"),
    "remainder": Operation(_of_two(_remainder), "({0} % {1})"),
    "absolute": Operation(_of_one(abs), "abs({0})"),
    "floor": Operation(_of_one(_to_whole(math.floor)), "floor({0})"),
    "ceiling": Operation(_of_one(_to_whole(math.ceil)), "ceil({0})"),
    "round": Operation(_of_one(_rounded), "round({0})"),
    "square_root": Operation(_of_one(_root), "sqrt({0})"),
    "equal": Operation(_is(lambda left, right: left == right), "({0} = {1})"),
    "unequal": Operation(_is(lambda left, right: left != right), "({0} <> {1})"),
    "less": Operation(_is(lambda left, right: left < right), "({0} < {1})"),
    "at_most": Operation(_is(lambda left, right: left <= right), "({0} <= {1})"),
    "greater": Operation(_is(lambda left, right: left > right), "({0} > {1})"),
    "at_least": Operation(_is(lambda left, right: left >= right), "({0} >= {1})"),
    "and": Operation(_and, "({} AND)"),
    "or": Operation(_or, "({} OR)"),
    "not": Operation(_of_one(lambda value: not value), "(NOT {0})"),
    "is_null": Operation(lambda value: value is None, "({0} IS NULL)"),
    "is_not_null": Operation(lambda value: value is not None, "({0} IS NOT NULL)"),
    "is_among": Operation(_is_among, "({0} IN ({1:}))"),
    "coalesce": Operation(_first, "coalesce({})"),
    "null_if": Operation(_null_if, "nullif({0}, {1})"),
    "greatest": Operation(_greatest, "greatest({})"),
    "least": Operation(_least, "least({})"),
    "case": Operation(_case, "CASE"),
    "join": Operation(_of_two(lambda left, right: left + right), "({0} || {1})"),
    "number_of_integer": Operation(_of_one(float), "CAST({0} AS DOUBLE)"),
    "integer_of_number": Operation(_of_one(_as_integer), "TRY_CAST({0} AS BIGINT)"),
    "integer_of_boolean": Operation(_of_one(int), "CAST({0} AS BIGINT)"),
    "boolean_of": Operation(_of_one(bool), "CAST({0} AS BOOLEAN)"),
}


def sql_of(expression: Expression, quote: Callable[[str], str]) -> str:
    """Say an expression in DuckDB's SQL; columns are cast to their kind."""
    if isinstance(expression, Column):
        return f"CAST({quote(expression.name)} AS {expression.kind})"
    if isinstance(expression, Constant):
        return f"CAST({_literal(expression.value)} AS {expression.kind})"
    arguments = [sql_of(argument, quote) for argument in expression.arguments]
    template = OPERATIONS[expression.operation].sql
    match template:
        case "CASE":
            pairs = zip(arguments[:-1:2], arguments[1::2], strict=True)
            branches = " ".join(f"WHEN {condition} THEN {value}" for condition, value in pairs)
            return f"CASE {branches} ELSE {arguments[-1]} END"
        case "({} AND)" | "({} OR)":
            return f"({f' {template[4:-1]} '.join(arguments)})"
        case "({0} IN ({1:}))":
            return f"({arguments[0]} IN ({', '.join(arguments[1:])}))"
    return template.replace("{}", ", ".join(arguments)).format(*arguments)


def compiled(expression: Expression, columns: Sequence[str]) -> Callable[[Sequence[Any]], Any]:
    """A function from the values of the columns, in their order and of their kinds, to that of the expression."""
    if isinstance(expression, Column):
        return itemgetter(columns.index(expression.name))
    if isinstance(expression, Constant):
        value = expression.value
        return lambda _: value
    act = OPERATIONS[expression.operation].act
    arguments = [compiled(argument, columns) for argument in expression.arguments]
    match arguments:
        case [one]:
            return lambda row: act(one(row))
        case [left, right]:
            return lambda row: act(left(row), right(row))
    return lambda row: act(*[argument(row) for argument in arguments])


def _literal(value: bool | int | float | str | None) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return str(value)
    return "'" + (value if isinstance(value, str) else repr(value)).replace("'", "''") + "'"
