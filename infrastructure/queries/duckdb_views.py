"""Plans what a DuckDB file holds itself, views and generated columns, where that may fail: nothing bounds it in the
process that has the file.
"""

from typing import Any

import duckdb

_OPTIONS: dict[str, Any] = {
    "memory_limit": "256MB",
    "threads": 1,
    "python_enable_replacements": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "enable_external_access": False,
}
_PLANNED = """
SELECT schema_name, view_name FROM duckdb_views() WHERE NOT internal AND database_name = current_database() UNION
SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = current_database()
AND regexp_matches(sql, '\\bAS\\s*\\(', 'i') ORDER BY ALL LIMIT 20000"""


def planned_relations(path: str) -> list[tuple[str, str]]:
    """The views of a file, and its tables that may have generated columns, by schema and name; none where it does not
    open.
    """
    try:
        with duckdb.connect(path, read_only=True, config=_OPTIONS) as connection:
            return [(str(schema), str(name)) for schema, name in connection.execute(_PLANNED).fetchall()]
    except duckdb.OutOfMemoryException:
        raise
    except (duckdb.Error, OSError):
        return []  # Whoever opens it for good says why.


def plan_relations(path: str, names: list[tuple[str, str]]) -> bool:
    """Plan reading each of these.

    Raises:
        duckdb.OutOfMemoryException: one takes more memory than this process may.
    """
    try:
        with duckdb.connect(path, read_only=True, config=_OPTIONS) as connection:
            for schema, name in names:
                _plan(connection, ".".join('"' + part.replace('"', '""') + '"' for part in (schema, name)))
    except duckdb.OutOfMemoryException:
        raise
    except (duckdb.Error, OSError):
        return False
    return True


def _plan(connection: duckdb.DuckDBPyConnection, name: str) -> None:
    try:
        connection.execute(f"PREPARE planned AS SELECT * FROM {name}")
        connection.execute("DEALLOCATE planned")
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.Error:
        return  # It cannot be read in the process that has the file, either.
