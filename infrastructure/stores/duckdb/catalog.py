"""What DuckDB's catalog says of a table. Functions that list the whole catalog cost milliseconds, so few are asked."""

import re
from collections.abc import Callable
from typing import Any

import duckdb

from domain.stores.table import Column, TableName, TableSchema
from infrastructure.sql import quote_table
from infrastructure.tabular.duckdb_types import logical_of

Run = Callable[[str, Any], duckdb.DuckDBPyConnection]

# DuckDB tells no letter case of A to Z from the other.
_OF_DATABASE = "database_name = current_database() AND lower(schema_name) = lower($1)"
_WHERE = f"{_OF_DATABASE} AND lower(table_name) = lower($2)"
_CONSTRAINED = re.compile(r"\b(NOT NULL|PRIMARY KEY|UNIQUE|CHECK|FOREIGN KEY|REFERENCES)\b", re.IGNORECASE)
_KEYED = re.compile(r"\b(PRIMARY KEY|UNIQUE)\b", re.IGNORECASE)
_MORE = "more"
"""`bound` of a table that has what a plain new one would not."""
Uniques = tuple[tuple[str, tuple[str, ...]], ...]


def describe(run: Run, table: TableName) -> TableSchema | None:
    """Describe a table or view of the current database, but for what would be lost with it; None where
    there is none.
    """
    names = _names(table)
    found = run(f"SELECT sql, index_count FROM duckdb_tables() WHERE {_WHERE}", names).fetchall()
    if not found:
        is_view = run(
            f"SELECT 1 FROM duckdb_views() WHERE {_OF_DATABASE} AND lower(view_name) = lower($2)", names
        ).fetchall()
        return TableSchema(table, _all_columns(run, names)) if is_view else None
    definition, indexes = found[0]
    columns = _plain_columns(run, table)
    if columns is None:
        columns = _all_columns(run, names)
    if not (indexes or _KEYED.search(definition)):
        return TableSchema(table, columns)
    return TableSchema(table, columns, *_keys(run, names, [column.name for column in columns]))


def bound_of(run: Run, table: TableName) -> str:
    """What would be lost with a table, were another put in its place, as `TableSchema.bound` says it."""
    names = _names(table)
    found = run(
        "SELECT sql, index_count > 0 OR comment IS NOT NULL OR cardinality(tags) > 0 OR contains(lower(sql), "
        f"'collate') FROM duckdb_tables() WHERE {_WHERE}",
        names,
    ).fetchall()
    if not found:  # A view.
        return ""
    definition, has_more = found[0]
    if not has_more and _CONSTRAINED.search(definition):
        has_more = run(f"SELECT 1 FROM duckdb_constraints() WHERE {_WHERE} LIMIT 1", names).fetchall()
    if not has_more:
        is_bound = "(is_generated OR comment IS NOT NULL OR column_default IS NOT NULL)"
        has_more = run(f"SELECT 1 FROM duckdb_columns() WHERE {_WHERE} AND {is_bound} LIMIT 1", names).fetchall()
    return _MORE if has_more else ""


def natives_of_table(run: Run, table: TableName) -> dict[str, str]:
    """DuckDB's own types of the columns of a table that is there: where it is not, the transaction ends."""
    return {name: kind for name, kind, *_ in _told(run, table)}


def _names(table: TableName) -> list[str]:
    return [table.schema or "main", table.table]


def _told(run: Run, table: TableName) -> list[tuple[str, str, bool, str | None]]:
    """Name, type, whether NULL is refused, and what is there without a value; of this one table, so it costs little."""
    told: list[tuple[str, str, bool, str | None]] = run(
        'SELECT name, type, "notnull", dflt_value FROM pragma_table_info($1) ORDER BY cid', [quote_table(table)]
    ).fetchall()
    return told


def _plain_columns(run: Run, table: TableName) -> tuple[Column, ...] | None:
    """The columns of a table; None where one has a default, since that may be how it is generated."""
    told = _told(run, table)
    if any(default is not None for *_, default in told):
        return None
    return tuple(Column(name, logical_of(kind), not is_filled) for name, kind, is_filled, _ in told)


def _all_columns(run: Run, names: list[str]) -> tuple[Column, ...]:
    told = run(
        f"SELECT column_name, data_type, is_nullable, is_generated FROM duckdb_columns() WHERE {_WHERE} ORDER BY "
        "column_index",
        names,
    ).fetchall()
    return tuple(Column(name, logical_of(kind), bool(is_null), bool(is_made)) for name, kind, is_null, is_made in told)


def _keys(run: Run, names: list[str], columns: list[str]) -> tuple[tuple[str, ...], Uniques]:
    """The primary key, and all that is unique."""
    constraints = run(
        "SELECT constraint_name, constraint_column_names, constraint_type FROM duckdb_constraints() "
        f"WHERE {_WHERE} ORDER BY constraint_index",
        names,
    ).fetchall()
    primary = [tuple(of) for _, of, kind in constraints if kind == "PRIMARY KEY"]
    uniques = [(name, tuple(of)) for name, of, kind in constraints if kind in ("PRIMARY KEY", "UNIQUE")]
    for name, text in run(
        f"SELECT index_name, expressions FROM duckdb_indexes() WHERE {_WHERE} AND is_unique ORDER BY 1", names
    ).fetchall():
        uniques.append((name, tuple(column for column in columns if column in text)))
    return primary[0] if primary else (), tuple(uniques)
