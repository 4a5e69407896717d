"""Plans a query on empty tables, where it may fail: what it costs there, it costs the process that owns the file."""

import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import duckdb

from domain.errors import QueryRefusedError
from infrastructure.queries.duckdb_doubled import doubled_within
from infrastructure.queries.duckdb_parsing import Node, rendered

T = TypeVar("T")
_OWN = "memory"
_NAME = "planned"
_OPTIONS: dict[str, Any] = {
    "memory_limit": "256MB",
    "threads": 1,
    "python_enable_replacements": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}
_SETTINGS = (
    "SET GLOBAL TimeZone = 'UTC'",
    # It would see that the tables are empty, and leave out most of the plan.
    "SET GLOBAL disabled_optimizers = 'statistics_propagation'",
    "SET enable_external_access = false",
    "SET lock_configuration = true",
)


@dataclass(frozen=True)
class Relation:
    """A relation that a query names: its schema and name, and its columns with DuckDB's own types."""

    schema: str
    name: str
    columns: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class NamedType:
    """A type of the file's own that a query names, and what it is in DuckDB's types."""

    schema: str
    name: str
    kind: str


@dataclass(frozen=True)
class Planned:
    """A query that has been looked at, and all that its plan depends on."""

    catalog: str
    relations: tuple[Relation, ...]
    text: str
    parameters: Mapping[str, Any]
    conditions: tuple[str, ...]
    """The columns that the store has conditions on: what they are made of is put in the place of each of
    their names.
    """
    types: tuple[NamedType, ...] = ()


class _Instance:
    """One in memory for a process, where nothing stays; a forked process makes its own."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._process = 0

    def connected(self) -> duckdb.DuckDBPyConnection:
        if self._connection is None or self._process != os.getpid():
            connection = duckdb.connect(":memory:", config=_OPTIONS)
            for statement in _SETTINGS:
                connection.execute(statement)
            self._connection, self._process = connection, os.getpid()
        return self._connection

    def forget(self) -> None:
        self._connection = None


_INSTANCE = _Instance()


def plan_query(planned: Planned) -> bool:
    """Plan a query, and say whether that is possible; what DuckDB says against it, it says to the store too.

    Raises:
        duckdb.OutOfMemoryException: it takes more memory than this process may.
    """

    def plan(connection: duckdb.DuckDBPyConnection) -> bool:
        try:
            _plan(connection, planned, planned.conditions)
        except duckdb.BinderException:  # Perhaps there is no such column.
            _plan(connection, planned, ())
        return True

    return bool(_on_empty_tables(planned, plan))


def plan_names(planned: Planned) -> tuple[str, str] | None:
    """Find two columns of one name in a query within a query, which are used.

    Raises:
        duckdb.OutOfMemoryException: as `plan_query`.
    """

    def describe(node: Node, parameters: Mapping[str, Any]) -> list[str] | None:
        def names(connection: duckdb.DuckDBPyConnection) -> list[str]:
            found = connection.execute(f"DESCRIBE (\n{rendered(node)}\n)", dict(parameters) or None)
            return [str(row[0]) for row in found.fetchall()]

        try:
            return _on_empty_tables(planned, names)  # On new ones each time: what DESCRIBE fails in is of no use after.
        except QueryRefusedError:
            return None

    return doubled_within(planned.text, planned.parameters, describe)


def _on_empty_tables(planned: Planned, plan: Callable[[duckdb.DuckDBPyConnection], T]) -> T | None:
    """Plan where the tables of a query are; None where DuckDB cannot."""
    with _INSTANCE.lock:
        connection = _INSTANCE.connected()
        try:
            _begin(connection, planned.catalog)
            for named in planned.types:
                connection.execute(f"CREATE SCHEMA IF NOT EXISTS {_quoted(named.schema)}")
                connection.execute(f"CREATE TYPE {_quoted(named.schema)}.{_quoted(named.name)} AS {named.kind}")
            for relation in planned.relations:
                _create(connection, relation)
            return plan(connection)
        except duckdb.OutOfMemoryException:
            _INSTANCE.forget()
            raise
        except duckdb.Error:
            return None
        finally:
            _end(connection, planned.catalog)


def _plan(connection: duckdb.DuckDBPyConnection, planned: Planned, conditions: tuple[str, ...]) -> None:
    where = " AND ".join(_condition(_quoted(name)) for name in conditions) or "true"
    # Telling a plan may take longer than making it, but only where there are no parameters it is made without their
    # values.
    way = "EXPLAIN (FORMAT json)" if planned.parameters else f"PREPARE {_NAME} AS"
    connection.execute(
        f"{way} SELECT * FROM (\n{planned.text}\n) AS source WHERE {where}", dict(planned.parameters) or None
    )


def _condition(column: str) -> str:
    """One that names a column as often as a store does."""
    return f"coalesce({', '.join([f'source.{column}'] * 4)}) IS NULL"


def _begin(connection: duckdb.DuckDBPyConnection, catalog: str) -> None:
    if catalog != _OWN:
        connection.execute(f"ATTACH ':memory:' AS {_quoted(catalog)}")
        connection.execute(f"USE {_quoted(catalog)}")
    connection.execute("BEGIN TRANSACTION")


def _create(connection: duckdb.DuckDBPyConnection, relation: Relation) -> None:
    schema = _quoted(relation.schema)
    table = f"{schema}.{_quoted(relation.name)}"
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
    try:
        connection.execute(f"CREATE TABLE IF NOT EXISTS {table} ({_columns(relation.columns)})")
    except duckdb.Error:
        known = tuple((name, kind if _is_type(connection, kind) else "VARCHAR") for name, kind in relation.columns)
        connection.execute(f"CREATE TABLE IF NOT EXISTS {table} ({_columns(known)})")


def _columns(columns: tuple[tuple[str, str], ...]) -> str:
    return ", ".join(f"{_quoted(name)} {kind}" for name, kind in columns)


def _is_type(connection: duckdb.DuckDBPyConnection, kind: str) -> bool:
    """Whether it is known here: an extension may have brought it."""
    try:
        connection.execute(f"SELECT CAST(NULL AS {kind})")
    except duckdb.Error:
        return False
    return True


def _end(connection: duckdb.DuckDBPyConnection, catalog: str) -> None:
    try:
        with suppress(duckdb.TransactionException):
            connection.execute("ROLLBACK")
        connection.execute(f"DEALLOCATE {_NAME}")
        if catalog != _OWN:
            connection.execute(f"USE {_OWN}")
            connection.execute(f"DETACH DATABASE IF EXISTS {_quoted(catalog)}")
    except duckdb.Error:
        _INSTANCE.forget()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
