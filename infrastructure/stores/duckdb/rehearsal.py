"""A DuckDB source's query is planned in a process apart before the file's own connection sees it: nothing bounds a plan
there.
"""

from collections.abc import Iterator

import duckdb

from domain.errors import QueryRefusedError
from domain.pipelines.spec import SourceSpec
from infrastructure.queries.duckdb_doubled import doubled_column, refuse_doubled
from infrastructure.queries.duckdb_parsing import fold
from infrastructure.queries.duckdb_planning import NamedType, Planned, Relation
from infrastructure.queries.duckdb_queries import IN_PROCESS, DuckDBQueries
from infrastructure.stores.duckdb.errors import translate
from infrastructure.stores.duckdb.selection import from_item, looked_at

MAX_RELATIONS = 200
_MAX_COLUMNS = 20_000
_MAX_TYPE = 64 * 1024
"""Characters; an enum of more is told as text."""


def rehearse(cursor: duckdb.DuckDBPyConnection, source: SourceSpec, queries: DuckDBQueries = IN_PROCESS) -> None:
    """Plan the query of a source on empty tables like its own, once.

    Raises:
        QueryRefusedError, InvalidInputError: that takes too much (`query.too_large`), or two columns have one name
            (`query.duplicate_column`).
    """
    if source.query is None:
        return
    query = looked_at(source, queries)
    try:
        found = cursor.execute("SELECT current_database()").fetchone()
        assert found is not None
        relations = tuple(_relations(cursor, str(found[0]), query.relations))
        _, parameters = from_item(source, queries)
        planned = Planned(
            str(found[0]), relations, query.text, parameters, _conditions(source), _types(cursor, query.types)
        )
        if (both := queries.plan(planned, may_double=query.may_double)) is not None:
            raise doubled_column(both, code="query.duplicate_column")
        # By itself: within another, DuckDB has given the second of two columns of one name another.
        described = cursor.execute(f"DESCRIBE (\n{query.text}\n)", dict(parameters) or None).fetchall()
    except duckdb.Error as error:
        raise translate(error) from error
    refuse_doubled([str(row[0]) for row in described], code="query.duplicate_column")


def check_relations(paths: tuple[tuple[str, ...], ...]) -> None:
    """Refuse a query of very many relations, each of which is looked up.

    Raises:
        QueryRefusedError: `query.too_large`.
    """
    if len(paths) > MAX_RELATIONS:
        raise _too_many(f"{MAX_RELATIONS} relations")


def _too_many(what: str) -> QueryRefusedError:
    return QueryRefusedError(f"The query reads more than {what}; make a view or table of some.", code="query.too_large")


def _types(cursor: duckdb.DuckDBPyConnection, names: frozenset[str]) -> tuple[NamedType, ...]:
    """What the file's own types of these names are."""
    if not names:
        return ()
    found = cursor.execute(
        "SELECT DISTINCT schema_name, type_name FROM duckdb_types() WHERE NOT internal "
        "AND database_name = current_database() AND list_contains($1, lower(type_name)) ORDER BY ALL LIMIT $2",
        [sorted(names), MAX_RELATIONS],
    ).fetchall()
    types = []
    for schema, name in found:
        spelt = ".".join('"' + part.replace('"', '""') + '"' for part in (schema, name))
        [row] = cursor.execute(f"DESCRIBE SELECT CAST(NULL AS {spelt}) AS value").fetchall()
        types.append(NamedType(schema, name, str(row[1])))
    return tuple(types)


def _conditions(source: SourceSpec) -> tuple[str, ...]:
    named = [*source.order, *(part.column for part in (source.cursor, source.partitions) if part is not None)]
    return tuple(dict.fromkeys(named))


def _relations(
    cursor: duckdb.DuckDBPyConnection, catalog: str, paths: tuple[tuple[str, ...], ...]
) -> Iterator[Relation]:
    """Those that are there, each by the schema and name that it is called by."""
    room = _MAX_COLUMNS
    for path in paths:
        *around, name = path
        if around and fold(around[0]) == fold(catalog):
            around = around[1:]
        if len(around) > 1:
            continue  # Of another catalog, of which there is none.
        spelt = ".".join('"' + part.replace('"', '""') + '"' for part in path)
        try:
            rows = cursor.execute(f"DESCRIBE SELECT * FROM {spelt}").fetchall()
        except (duckdb.CatalogException, duckdb.BinderException):
            continue  # The store says so.
        room -= len(rows)
        if room < 0:
            raise _too_many(f"{_MAX_COLUMNS:,} columns")
        columns = tuple((str(row[0]), str(row[1]) if len(row[1]) <= _MAX_TYPE else "VARCHAR") for row in rows)
        yield Relation(around[0] if around else "main", name, columns)
