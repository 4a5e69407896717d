"""What DuckDB's catalog says of a table. Each of its functions lists the whole catalog, so few are asked."""

import re

import duckdb

from domain.pipelines.table import Column, TableName, TableSchema
from infrastructure.duckdb_types import logical_of

_WHERE = "database_name = current_database() AND schema_name = $1 AND table_name = $2"
_CONSTRAINED = re.compile(r"\b(NOT NULL|PRIMARY KEY|UNIQUE|CHECK|FOREIGN KEY|REFERENCES)\b", re.IGNORECASE)
_MORE = "more"
"""`bound` of a table that has what a plain new one would not."""


def describe(cursor: duckdb.DuckDBPyConnection, table: TableName) -> TableSchema | None:
    """Describe a table or view of the current database, or None."""
    names = [table.schema or "main", table.table]
    rows = cursor.execute(
        "SELECT column_name, data_type, is_nullable, is_generated, comment IS NOT NULL OR column_default IS NOT NULL "
        f"FROM duckdb_columns() WHERE {_WHERE} ORDER BY column_index",
        names,
    ).fetchall()
    if not rows:
        return None
    primary_key, uniques, is_bound = _kept(cursor, names, [name for name, *_ in rows])
    return TableSchema(
        name=table,
        columns=tuple(
            Column(name, logical_of(kind), bool(is_null), bool(made)) for name, kind, is_null, made, _ in rows
        ),
        primary_key=primary_key,
        uniques=uniques,
        bound=_MORE if is_bound or any(made or has_more for *_, made, has_more in rows) else "",
    )


def _kept(
    cursor: duckdb.DuckDBPyConnection, names: list[str], columns: list[str]
) -> tuple[tuple[str, ...], tuple[tuple[str, tuple[str, ...]], ...], bool]:
    """Give the primary key, what is unique, and whether the table has more than its columns."""
    found = cursor.execute(
        "SELECT sql, index_count, comment IS NOT NULL OR cardinality(tags) > 0 OR contains(lower(sql), 'collate') "
        f"FROM duckdb_tables() WHERE {_WHERE}",
        names,
    ).fetchall()
    if not found:  # A view.
        return (), (), False
    definition, indexes, has_more = found[0]
    if not (indexes or _CONSTRAINED.search(definition)):
        return (), (), has_more
    constraints = cursor.execute(
        "SELECT constraint_name, constraint_column_names, constraint_type FROM duckdb_constraints() "
        f"WHERE {_WHERE} ORDER BY constraint_index",
        names,
    ).fetchall()
    primary = [tuple(of) for _, of, kind in constraints if kind == "PRIMARY KEY"]
    uniques = [(name, tuple(of)) for name, of, kind in constraints if kind in ("PRIMARY KEY", "UNIQUE")]
    for name, text in cursor.execute(
        f"SELECT index_name, expressions FROM duckdb_indexes() WHERE {_WHERE} AND is_unique ORDER BY 1", names
    ).fetchall():
        uniques.append((name, tuple(column for column in columns if column in text)))
    return primary[0] if primary else (), tuple(uniques), bool(has_more or indexes or constraints)
