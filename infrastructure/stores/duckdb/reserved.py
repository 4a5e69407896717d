"""Which relations of a DuckDB file no pipeline may name: the fence's own and the catalog's, behind views too, as the
engine says.
"""

import re
from collections.abc import Iterator
from contextlib import suppress

import duckdb

from domain.errors import InvalidInputError, QueryRefusedError
from domain.pipelines.spec import SourceSpec
from domain.stores.table import RESERVED, TableName
from infrastructure.queries.duckdb_costs import too_long
from infrastructure.queries.duckdb_found import MakesTooMuchError
from infrastructure.queries.duckdb_queries import IN_PROCESS, DuckDBQueries
from infrastructure.sql import quote_table
from infrastructure.stores.duckdb.errors import translate
from infrastructure.stores.duckdb.held import check_held
from infrastructure.stores.duckdb.rehearsal import check_relations, rehearse
from infrastructure.stores.duckdb.row_size import sizes_of
from infrastructure.stores.duckdb.selection import from_item, looked_at

_OURS = re.compile(r'(^|[."])_headrace', re.IGNORECASE)
_CATALOG = re.compile(r"(duckdb|sqlite|pg|pragma)_.*", re.IGNORECASE)
_INTERNAL = (
    "SELECT 1 FROM duckdb_views() WHERE lower(view_name) = lower($1) "
    "HAVING bool_or(internal) "
    "AND NOT bool_or(NOT internal AND lower(schema_name) = lower(coalesce($2, current_schema()))) "
    "AND NOT EXISTS (SELECT 1 FROM duckdb_tables() WHERE lower(table_name) = lower($1) AND NOT internal "
    "AND lower(schema_name) = lower(coalesce($2, current_schema())))"
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


def refuse_read(cursor: duckdb.DuckDBPyConnection, source: SourceSpec, queries: DuckDBQueries = IN_PROCESS) -> None:
    """Refuse a source to read; what this lets through may be planned on the file's own connection.

    Raises:
        QueryRefusedError: it is not one SELECT that only reads, or reads a relation that is reserved
            (`query.forbidden_relation`).
        InvalidInputError: planning it takes too much (`query.too_large`).
    """
    if source.query is not None:
        check_relations(looked_at(source, queries).relations)
    if _is_reserved(cursor, source, queries):
        raise QueryRefusedError(
            "The source reads, perhaps behind a view, a relation that belongs to Headrace or the database: "
            f"{RESERVED}.",
            code="query.forbidden_relation",
        )
    check_held(cursor, source, queries)
    rehearse(cursor, source, queries)
    if source.query is not None and looked_at(source, queries).slowness:
        _refuse_slow(cursor, source, queries)


def _refuse_slow(cursor: duckdb.DuckDBPyConnection, source: SourceSpec, queries: DuckDBQueries) -> None:
    """Refuse a query that may work for hours on one vector, by the longest text that it may meet."""
    query = looked_at(source, queries)
    text, parameters = from_item(source, queries)
    try:
        sizes = sizes_of(cursor, text, parameters, has_filters=True)
    except duckdb.Error as error:
        raise translate(error) from error
    longest = max([sizes.longest, *(len(str(value).encode()) for value in parameters.values())])
    if not sizes.is_known or longest * query.slowness > 1:
        raise MakesTooMuchError(too_long(min(query.slow, default="~~")))


def _is_reserved(cursor: duckdb.DuckDBPyConnection, source: SourceSpec, queries: DuckDBQueries = IN_PROCESS) -> bool:
    names = dict(_named(source, queries))
    read = set[str]()
    for spelt in names:
        with suppress(duckdb.Error):  # Then it cannot be read either.
            read |= cursor.get_table_names(f"SELECT 1 FROM {spelt}", qualified=True)
    return any(_OURS.search(name) for name in read) or any(
        _CATALOG.fullmatch(name) and cursor.execute(_INTERNAL, [name, schema]).fetchall()
        for schema, name in names.values()
    )


def _named(source: SourceSpec, queries: DuckDBQueries) -> Iterator[tuple[str, tuple[str | None, str]]]:
    """The relations that a source names, as they are written, and their schema and name."""
    if source.table is not None:
        yield quote_table(source.table), (source.table.schema, source.table.table)
        return
    for path in looked_at(source, queries).relations:
        yield (
            ".".join('"' + part.replace('"', '""') + '"' for part in path),
            (path[-2] if len(path) > 1 else None, path[-1]),
        )
