"""How many items or rows `range` and `generate_series` make, but for one, by arguments that are written out."""

import math
from datetime import UTC, date, datetime
from typing import Any

from infrastructure.clock import utc_now
from infrastructure.queries.duckdb_parsing import fold

Node = dict[str, Any]
_UNITS = {
    "microseconds": 1e-6, "milliseconds": 1e-3, "seconds": 1, "minutes": 60, "hours": 3600, "days": 86400,
    "weeks": 7 * 86400, "months": 28 * 86400, "quarters": 84 * 86400, "years": 365 * 86400, "decades": 3650 * 86400,
    "centuries": 36500 * 86400, "millennia": 365000 * 86400,
}  # fmt: skip
_NUMBERS = frozenset({"integer", "int", "bigint", "double"})
_TIMES = frozenset({"date", "timestamp", "timestamptz", "timestamp with time zone"})
_NOW = frozenset({"current_date", "current_timestamp", "today", "now", "get_current_timestamp", "localtimestamp"})


def length(arguments: list[Node]) -> float | None:
    """How many there are at most; None where that is not written."""
    values = [constant(argument) for argument in arguments]
    if not values or any(value is None for value in values):
        return None
    numbers = [value for value in values if value is not None]
    start, end, step = {1: (0.0, numbers[0], 1.0), 2: (*numbers[:2], 1.0)}.get(
        len(numbers), (*numbers, 0.0, 0.0, 0.0)[:3]
    )
    if step == 0 or not all(math.isfinite(number) for number in (start, end, step)):
        return None if step else 0
    return max(0.0, (end - start) / step)


def constant(node: Node) -> float | None:
    """The number that an expression without columns stands for, seconds for times and intervals; None where it is
    another.
    """
    kind = node.get("class")
    if kind == "CONSTANT":
        literal = node.get("literal", {})
        return _number(str(literal.get("text", ""))) if literal.get("kind") in ("INTEGER", "NUMERIC") else None
    if kind == "COLUMN_REF":
        names = [fold(name) for name in node["column_names"]]
        return _now() if len(names) == 1 and names[0] in _NOW else None
    if kind == "CAST":
        return _cast(node)
    if kind != "FUNCTION":
        return None
    name, arguments = fold(node.get("function_name", "")), node.get("arguments", [])
    if not arguments:
        return _now() if name in _NOW else None
    values = [constant(argument["expression"]) for argument in arguments]
    if any(value is None for value in values):
        return None
    numbers = [value for value in values if value is not None]
    if name in ("+", "-", "*", "/") and len(numbers) == 2 and (name != "/" or numbers[1]):
        one, other = numbers
        return {"+": one + other, "-": one - other, "*": one * other}.get(name, one / other if other else 0.0)
    if len(numbers) == 1:
        if name == "-":
            return -numbers[0]
        if name == "trunc":
            return float(math.trunc(numbers[0]))
        if name.startswith("to_") and name[3:] in _UNITS:
            return numbers[0] * _UNITS[name[3:]]
    return None


def _cast(node: Node) -> float | None:
    child, kind = node["child"], str(node.get("type_expr", {}).get("type_name", "")).lower()
    literal = child.get("literal", {}) if child.get("class") == "CONSTANT" else {}
    if literal.get("kind") != "STRING":
        is_now = child.get("class") != "CAST" and constant(child) == _now()
        return constant(child) if kind in _NUMBERS or (is_now and kind in _TIMES) else None
    text = str(literal.get("text", "")).strip()
    if kind in _TIMES:
        return _moment(text[:10] if kind == "date" else text)
    return _interval(text) if kind == "interval" else None


def _number(text: str) -> float | None:
    try:
        value = float(text.replace("_", ""))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _moment(text: str) -> float | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    whole = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return (whole - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()


def _interval(text: str) -> float | None:
    words = text.lower().split()
    if len(words) != 2:
        return None
    number, unit = _number(words[0]), words[1].rstrip("s") + "s"
    return number * _UNITS[unit] if number is not None and unit in _UNITS else None


def _now() -> float:
    return (utc_now().date() - date(1970, 1, 1)).total_seconds() + 2 * 86400
