"""SQL expressions that convert a value without loss or give NULL: nothing is rounded, wrapped or guessed."""

import re
from collections.abc import Callable

from infrastructure.sql import quote
from infrastructure.tabular.exact import CLOCK, EARLY_YEARS, INTEGERS, OFFSET_HOURS
from infrastructure.tabular.nested_types import KEPT_JSON, digits_of, entries_of, fields_of, is_text_on_the_way, item_of
from infrastructure.tabular.numbers_in_text import (
    digits_allowed,
    has_few_digits,
    is_number_in_text,
    is_zero,
    same_number,
)

_SIMPLE = {
    **INTEGERS,
    "bool": "BOOLEAN",
    "float32": "FLOAT",
    "float64": "DOUBLE",
    "string": "VARCHAR",
    "binary": "BLOB",
    "date": "DATE",
    "time": "TIME",
    "timestamp": "TIMESTAMP",
    "timestamptz": "TIMESTAMPTZ",
    "interval": "INTERVAL",
    "uuid": "VARCHAR",
    "json": "VARCHAR",
}
_TEXTS = ("string", "uuid", "json")
_JSON = ("json", KEPT_JSON)
_QUOTE = "'"
_MOST_LOOKED_AT = 512
_SIGNIFICANT = {"float32": (6, "1e-30"), "float64": (15, "1e-290")}
_DAY = rf"({EARLY_YEARS}|[1-9][0-9]{{3,5}})-[0-9]{{2}}-[0-9]{{2}}"
_MOMENT = rf"{_DAY}[ T]{CLOCK}0*"
# A longer one is none, and DuckDB looks for it among all names that it knows for seconds.
_ZONE = rf" ?([zZ]|{OFFSET_HOURS}(:?[0-5][0-9]){{0,2}}|[A-Za-z][A-Za-z0-9_+/-]{{0,47}})"
_PATTERNS = {
    "date": _DAY,
    # Not 24:00 and no more digits than six that count: DuckDB would go to the next day, and cut.
    "time": rf"{CLOCK}",
    # DuckDB would drop a zone silently; a naive column must not get a value that had one.
    "timestamp": rf"{_MOMENT}\s*",
    "timestamptz": rf"{_MOMENT}({_ZONE})?\s*",
    "bool": r"(?i)true|false|t|f|0|1|yes|no",
    "uuid": r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
}


def sql_type(logical: str) -> str:
    """Spell one of our types in DuckDB's SQL, as it travels through a transform."""
    if is_text_on_the_way(logical):
        return "VARCHAR"
    if logical.startswith("decimal("):
        return logical.upper()
    if (item := item_of(logical)) is not None:
        return f"{sql_type(item)}[]"
    if (fields := fields_of(logical)) is not None:
        return f"STRUCT({', '.join(f'{quote(name)} {sql_type(kind)}' for name, kind in fields)})"
    if (entries := entries_of(logical)) is not None:
        return f"MAP({sql_type(entries[0])}, {sql_type(entries[1])})"
    return _SIMPLE.get(logical, "VARCHAR")


def catalog_type(logical: str) -> str:
    """Spell the same type as DuckDB's catalog names it."""
    return "TIMESTAMP WITH TIME ZONE" if logical == "timestamptz" else sql_type(logical)


def is_nested(logical: str) -> bool:
    """Whether a type holds other types."""
    return logical.startswith(("list<", "struct<", "map<"))


def may_be_time(text: str, kind: str) -> bool:
    """Whether a text is spelled as a value of a type of times is, if it is one; a date stands for its midnight."""
    if kind not in ("date", "time", "timestamp", "timestamptz"):
        return True
    written = rf"{_PATTERNS[kind]}|(?i:-?infinity)" + (f"|{_PATTERNS['date']}" if kind != "time" else "")
    return re.fullmatch(written, text, re.ASCII) is not None


def conversion(expression: str, given: str, wanted: str) -> str:
    """Return SQL that converts `expression` from one type to another, NULL where that would lose something."""
    target = sql_type(wanted)
    if wanted == "string":
        return f"CAST({expression} AS VARCHAR)"
    if is_number_in_text(given):
        return _from_number(expression, wanted, target)
    if given in _TEXTS or given.startswith("native:"):
        return _from_text(expression, wanted, target)
    if is_number_in_text(wanted):
        return _to_number(f"CAST({expression} AS VARCHAR)", wanted)
    if is_nested(given) and wanted in _JSON:
        return f"CAST(to_json({expression}) AS VARCHAR)"
    tried = f"TRY_CAST({expression} AS {target})"
    return f"CASE WHEN TRY_CAST({tried} AS {sql_type(given)}) IS NOT DISTINCT FROM {expression} THEN {tried} END"


def _from_text(expression: str, wanted: str, target: str) -> str:
    tried = f"TRY_CAST({expression} AS {target})"
    if is_number_in_text(wanted):
        return _to_number(expression, wanted)
    if is_nested(wanted):
        return nested_from_text(expression, wanted, lambda item, kind: conversion(item, "string", kind))
    if wanted == "interval":
        return f"CASE WHEN NOT regexp_matches({expression}, '[.][0-9]{{6}}0*[1-9]') THEN {tried} END"
    if wanted in INTEGERS:
        return _when(expression, r"[+-]?[0-9]+", tried)
    if match := re.fullmatch(r"decimal\([0-9]+,([0-9]+)\)", wanted):
        return _when(expression, rf"[+-]?[0-9]*(\.[0-9]{{0,{match[1]}}}0*)?", tried)
    if wanted in _PATTERNS:
        return _when(expression, _PATTERNS[wanted], tried)
    if wanted == "binary":
        # Postgres' way to write bytes in hexadecimal; DuckDB's own cast would read escapes in the middle of a text.
        return _when(expression, r"\\x([0-9a-fA-F]{2})*", f"unhex(substr({expression}, 3))")
    if wanted in _JSON:
        return f"CASE WHEN json_valid({expression}) THEN {expression} END"
    if wanted in _SIGNIFICANT:
        # The nearest one, but no infinity that was not written.
        is_meant = f"isfinite({tried}) OR regexp_full_match({expression}, '(?i) *[+-]?(inf(inity)?|nan) *')"
        return f"CASE WHEN ({is_meant}) AND NOT contains({expression}, '_') THEN {tried} END"
    return tried


def nested_from_text(expression: str, wanted: str, read: Callable[[str, str], str]) -> str:
    """Convert a text such as `[1, 2]` if each of the values in it is one that `read` reads: a cast would round them.
    Where the type has very many parts, or is deep, it has to be spelled as DuckDB spells it.
    """
    if _weight(wanted) > _MOST_LOOKED_AT:
        tried = f"TRY_CAST({expression} AS {sql_type(wanted)})"
        given, spelled = (_bare(text) for text in (expression, f"CAST({tried} AS VARCHAR)"))
        return f"CASE WHEN {spelled} = {given} THEN {tried} END"
    parts = f"TRY_CAST({expression} AS {_of_texts(wanted)})"
    return f"CASE WHEN {_is_read(parts, wanted, read, 0)} THEN TRY_CAST({expression} AS {sql_type(wanted)}) END"


def _bare(text: str) -> str:
    return f"regexp_replace({text}, '[\\s''\"]', '', 'g')"


def _weight(wanted: str) -> int:
    """What looking at each value takes: DuckDB looks at a lambda twice, and so at one within another four times."""
    if (item := item_of(wanted)) is not None:
        return 2 * _weight(item)
    if (fields := fields_of(wanted)) is not None:
        return 2 * sum(_weight(kind) for _, kind in fields)
    return 4 * sum(map(_weight, entries)) if (entries := entries_of(wanted)) is not None else 1


def _of_texts(wanted: str) -> str:
    """The type with texts in the place of all values."""
    if (item := item_of(wanted)) is not None:
        return f"{_of_texts(item)}[]"
    if (fields := fields_of(wanted)) is not None:
        return f"STRUCT({', '.join(f'{quote(name)} {_of_texts(kind)}' for name, kind in fields)})"
    if (entries := entries_of(wanted)) is not None:
        return f"MAP({_of_texts(entries[0])}, {_of_texts(entries[1])})"
    return "VARCHAR"


def _is_read(parts: str, wanted: str, read: Callable[[str, str], str], depth: int) -> str:
    """Say that all values of something are read, or none is there. What is looked at more than once has a name, so that
    the statement grows no faster than the type.
    """
    name = f"_headrace_item_{depth}"
    if (item := item_of(wanted)) is not None:
        return _all_of(f"coalesce({parts}, [])", name, _is_read(name, item, read, depth + 1))
    if (fields := fields_of(wanted)) is not None:
        each = [(f"struct_extract({name}, '{field.replace(_QUOTE, 2 * _QUOTE)}')", kind) for field, kind in fields]
        return _all_of(f"[{parts}]", name, " AND ".join(_is_read(*field, read, depth + 1) for field in each))
    if (entries := entries_of(wanted)) is not None:
        of_each = zip(("map_keys", "map_values"), entries, strict=True)
        both = (_is_read(f"{function}({name})", f"list<{kind}>", read, depth + 1) for function, kind in of_each)
        return _all_of(f"[{parts}]", name, " AND ".join(both))
    return "true" if wanted == "string" else f"({parts} IS NULL OR {read(parts, wanted)} IS NOT NULL)"


def _all_of(values: str, name: str, is_true: str) -> str:
    return f"len(list_filter({values}, lambda {name}: NOT ({is_true}))) = 0"


def _from_number(expression: str, wanted: str, target: str) -> str:
    """Convert a number in text, such as 12.50, NaN or one of sixty digits: the value is what counts, not how it is
    written.
    """
    if is_number_in_text(wanted):
        return _to_number(expression, wanted)
    tried = f"TRY_CAST({expression} AS {target})"
    if wanted in INTEGERS:
        return _when(expression, r"-?[0-9]+(\.0*)?", f"TRY_CAST(split_part({expression}, '.', 1) AS {target})")
    if (scale := digits_of(wanted)[1]) or wanted.startswith("decimal("):
        return _when(expression, rf"-?[0-9]+(\.[0-9]{{0,{scale}}}0*)?", tried)
    if wanted in _SIGNIFICANT:
        # Few digits always come back; more only if they are the shortest that tell this number from its neighbours.
        count, tiny = _SIGNIFICANT[wanted]
        is_safe = f"{has_few_digits(expression, count)} AND (abs({tried}) >= {tiny} OR {is_zero(expression)})"
        is_same = same_number(expression, f"CAST({tried} AS VARCHAR)")
        is_other = f"{expression} IN ('NaN', 'Infinity', '-Infinity')"
        return f"CASE WHEN {is_other} OR ({is_safe}) OR {is_same} THEN {tried} END"
    return _from_text(expression, wanted, target)


def _to_number(text: str, wanted: str) -> str:
    """A number as the text in which a store takes it, if it has room for all of its digits."""
    pattern = digits_allowed(wanted)
    return _when(text, pattern, text) if pattern is not None else text


def _when(expression: str, pattern: str, result: str) -> str:
    return f"CASE WHEN regexp_full_match({expression}, '{pattern}') THEN {result} END"
