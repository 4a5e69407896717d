"""Times of other precision than microseconds, and numbers in text, which DuckDB cuts and rounds without a word when
rows are inserted.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from domain.errors import SchemaMismatchError
from infrastructure.sql import quote
from infrastructure.stores.duckdb.catalog import Run
from infrastructure.tabular.duckdb_types import logical_of

_ANOTHER_PRECISION = re.compile(r"TIMESTAMP_(S|MS|NS)|TIME_NS")
_MICROSECONDS = {
    "TIMESTAMP_S": "TIMESTAMP",
    "TIMESTAMP_MS": "TIMESTAMP",
    "TIMESTAMP_NS": "TIMESTAMP",
    "TIME_NS": "TIME",
}


# Whole numbers that Arrow cannot count come as text, and so does what holds any of them.
_WHOLE = ("UHUGEINT", "BIGNUM")
_HOLDS_NUMBERS = re.compile(r"HUGEINT|BIGNUM|INT\b|INTEGER|DECIMAL|FLOAT|DOUBLE|TIME|DATE|INTERVAL")


def as_arrow_has_them(landing: Mapping[str, str]) -> dict[str, str]:
    """The types in which batches bring the columns of a table."""
    return {name: _ANOTHER_PRECISION.sub(lambda match: _MICROSECONDS[match[0]], kind) for name, kind in landing.items()}


def refuse_cut_times(
    run: Run,
    given: Mapping[str, str],
    landing: Mapping[str, str],
    rows: str,
    parameters: Mapping[str, Any] | None = None,
) -> None:
    """Refuse rows, a FROM item with its conditions, of which a column's type would keep less than was given.

    Raises:
        SchemaMismatchError: a value would be cut (`value.precision`).
    """
    for name, kind in given.items():
        there = landing.get(name, kind)
        if kind == there or not (_ANOTHER_PRECISION.search(kind) or _ANOTHER_PRECISION.search(there)):
            continue
        column = quote(name)
        is_cut = f"CAST(TRY_CAST({column} AS {there}) AS {kind}) IS DISTINCT FROM {column}"
        found = run(f"SELECT 1 FROM (SELECT {column} FROM {rows}) WHERE {is_cut} LIMIT 1", parameters or None)
        if found.fetchall():
            raise SchemaMismatchError(
                f"The column {name} would get a time with more digits than {there} keeps; round it in a step or in "
                "the source query.",
                code="value.precision",
            )


def refuse_rounded_texts(run: Run, landing: Mapping[str, str], names: Sequence[str], rows: str) -> None:
    """Refuse rows, a FROM item, of which a text would become another number or time than the one that is written there.

    Raises:
        SchemaMismatchError: one would (`value.precision`).
    """
    texts = [name for name in names if name in landing and logical_of(landing[name]).startswith("native:")]
    for name in texts:
        is_rounded = _is_rounded(quote(name), landing[name])
        if is_rounded and run(f"SELECT 1 FROM {rows} WHERE {is_rounded} LIMIT 1", None).fetchall():
            raise SchemaMismatchError(
                f"The column {name} would get a value with more digits than {landing[name][:63]} keeps; round it in a "
                "step or in the source query.",
                code="value.precision",
            )


def _is_rounded(column: str, kind: str) -> str | None:
    if kind in _WHOLE:
        is_number = f"regexp_full_match({column}, '\\s*[+-]?[0-9]*([.][0-9]*)?([eE][+-]?[0-9]+)?\\s*')"
        return f"{is_number} AND NOT regexp_full_match({column}, '\\s*[+-]?[0-9]+([.]0*)?\\s*')"
    if kind == "TIME WITH TIME ZONE":
        return f"regexp_matches({column}, '[.][0-9]{{6}}0*[1-9]|[0-9]-[0-9]{{1,2}}-[0-9]')"  # Or a day, which it drops.
    if not _HOLDS_NUMBERS.search(kind):
        return None
    given, kept = (
        f"regexp_replace({text}, '[\\s''\"]', '', 'g')"
        for text in (column, f"CAST(TRY_CAST({column} AS {kind}) AS VARCHAR)")
    )
    return f"{given} <> {kept}"  # What is no such value is told by the insert.
