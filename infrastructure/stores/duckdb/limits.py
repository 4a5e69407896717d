"""Times of other precision than microseconds, which DuckDB cuts without a word when rows are inserted."""

import re
from collections.abc import Mapping
from typing import Any

from domain.errors import SchemaMismatchError
from infrastructure.sql import quote
from infrastructure.stores.duckdb.catalog import Run

_ANOTHER_PRECISION = re.compile(r"TIMESTAMP_(S|MS|NS)|TIME_NS")
_MICROSECONDS = {
    "TIMESTAMP_S": "TIMESTAMP",
    "TIMESTAMP_MS": "TIMESTAMP",
    "TIMESTAMP_NS": "TIMESTAMP",
    "TIME_NS": "TIME",
}


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
