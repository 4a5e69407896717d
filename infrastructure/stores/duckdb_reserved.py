"""Which relations of a DuckDB file no pipeline may name: the fence's own and the catalog's, behind views too, as the engine says."""

import re
from collections.abc import Iterator
from contextlib import suppress

import duckdb
from sqlglot import exp

from domain.errors import InvalidInputError, QueryRefusedError
from domain.pipelines.spec import SourceSpec
from domain.pipelines.table import RESERVED, TableName
from infrastructure.sql import bind_names, parse_query, quote_table

_OURS = re.compile(r'(^|[."])_headrace', re.IGNORECASE)
_CATALOG = re.compile(r"(duckdb|sqlite|pg|pragma)_.*", re.IGNORECASE)
_INTERNAL = (
    "SELECT 1 FROM duckdb_views() WHERE lower(view_name) = lower($1) HAVING bool_and(internal) "
    "AND NOT EXISTS (SELECT 1 FROM duckdb_tables() WHERE lower(table_name) = lower($1) AND NOT internal)"
)


def refuse_reserved(cursor: duckdb.DuckDBPyConnection, table: TableName) -> None:
    """Refuse a table to write, or to compare with.

    Raises:
        InvalidInputError: it leads to one that is reserved (`identifier.reserved`).
    """
    if _is_reserved(cursor, SourceSpec(table=table)):
        raise InvalidInputError(
            f"The table {table} leads to one that belongs to Headrace or the database: {RESERVED}.",
            code="identifier.reserved",
        )


def refuse_read(cursor: duckdb.DuckDBPyConnection, source: SourceSpec) -> None:
    """Refuse a source to read.

    Raises:
        QueryRefusedError: it reads a relation that is reserved (`query.forbidden_relation`).
    """
    if _is_reserved(cursor, source):
        raise QueryRefusedError(
            f"The source reads, perhaps behind a view, a relation that belongs to Headrace or the database: {RESERVED}.",
            code="query.forbidden_relation",
        )


def _is_reserved(cursor: duckdb.DuckDBPyConnection, source: SourceSpec) -> bool:
    names = dict(_named(source))
    texts = [f"SELECT 1 FROM {spelt}" for spelt in names]
    if source.query is not None:  # Without values, which the engine does not bind here; not every query can be told so.
        texts.append(bind_names(source.query, "duckdb", source.parameters, dict.fromkeys(source.parameters, "NULL")))
    read = set[str]()
    for text in texts:
        with suppress(duckdb.Error):
            read |= cursor.get_table_names(text, qualified=True)
    return any(_OURS.search(name) for name in read) or any(
        _CATALOG.fullmatch(name) and cursor.execute(_INTERNAL, [name]).fetchall() for name in names.values()
    )


def _named(source: SourceSpec) -> Iterator[tuple[str, str]]:
    """The relations that a source names, as they are written and by their last part."""
    if source.table is not None:
        yield quote_table(source.table), source.table.table
        return
    tree = parse_query(source.query or "", "duckdb")
    own = {cte.alias.lower() for cte in tree.find_all(exp.CTE)}
    for table in tree.find_all(exp.Table):
        if isinstance(table.this, exp.Identifier) and (table.db or table.name.lower() not in own):
            parts = (part for part in (table.args.get("catalog"), table.args.get("db"), table.this) if part is not None)
            yield ".".join('"' + part.name.replace('"', '""') + '"' for part in parts), table.name
