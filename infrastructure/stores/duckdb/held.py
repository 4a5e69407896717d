"""What a DuckDB file works out itself is looked at before it is read, as a query is: views, generated columns, macros
in them.
"""

import duckdb

from domain.pipelines.spec import SourceSpec
from infrastructure.queries.duckdb_parsing import fold
from infrastructure.queries.duckdb_queries import DuckDBQueries
from infrastructure.queries.duckdb_relations import Held
from infrastructure.sql import quote_table
from infrastructure.stores.duckdb.errors import translate
from infrastructure.stores.duckdb.selection import looked_at

_MOST = 20_000
_VIEWS = f"""
SELECT schema_name, view_name, sql FROM duckdb_views() WHERE NOT internal AND database_name = current_database()
ORDER BY ALL LIMIT {_MOST}"""
_COLUMNS = f"""
SELECT schema_name, table_name, list(struct_pack(name := column_name, made := column_default) ORDER BY column_index)
FROM duckdb_tables() JOIN duckdb_columns() USING (database_name, schema_name, table_name)
WHERE database_name = current_database() AND column_default IS NOT NULL AND regexp_matches(sql, '\\bAS\\s*\\(', 'i')
GROUP BY ALL ORDER BY ALL LIMIT {_MOST}"""
_MACROS = f"""
SELECT function_name, parameters, macro_definition FROM duckdb_functions() WHERE NOT internal
AND database_name = current_database() AND macro_definition IS NOT NULL ORDER BY ALL LIMIT {_MOST}"""


def check_held(cursor: duckdb.DuckDBPyConnection, source: SourceSpec, queries: DuckDBQueries) -> None:
    """Look at what a source reads, if its file works any of it out.

    Raises:
        QueryRefusedError, InvalidInputError: it makes too much (`query.too_large`).
    """
    try:
        views = tuple((str(schema), str(name), str(sql)) for schema, name, sql in cursor.execute(_VIEWS).fetchall())
        columns = tuple(
            (str(schema), str(name), tuple((str(part["name"]), str(part["made"])) for part in parts))
            for schema, name, parts in cursor.execute(_COLUMNS).fetchall()
        )
        if not _named(source, queries) & {fold(held[1]) for held in (*views, *columns)}:
            return
        macros = tuple(
            (str(name), tuple(map(str, parameters)), str(definition))
            for name, parameters, definition in cursor.execute(_MACROS).fetchall()
        )
    except duckdb.Error as error:
        raise translate(error) from error
    text = looked_at(source, queries).text if source.table is None else f"SELECT * FROM {quote_table(source.table)}"
    queries.check_held(text, Held(views, columns, macros))


def _named(source: SourceSpec, queries: DuckDBQueries) -> set[str]:
    if source.table is not None:
        return {fold(source.table.table)}
    return {fold(path[-1]) for path in looked_at(source, queries).relations}
