"""The cursor of a DuckDB source: its axis, its greatest value, and where a limited read ends."""

from collections.abc import Mapping
from typing import Any

import duckdb

from domain.errors import InvalidInputError
from domain.pipelines.spec import SourceSpec
from domain.stores.table import Column
from infrastructure.queries.duckdb_queries import IN_PROCESS, DuckDBQueries
from infrastructure.sql import quote
from infrastructure.stores.cursor_axis import ENDLESS, Axis
from infrastructure.stores.duckdb.reserved import refuse_read
from infrastructure.stores.duckdb.selection import bounds, from_item
from infrastructure.stores.duckdb.session import named, translate
from infrastructure.tabular.duckdb_types import logical_of


def greatest_of(
    cursor: duckdb.DuckDBPyConnection, source: SourceSpec, queries: DuckDBQueries = IN_PROCESS
) -> tuple[Axis, int | None]:
    """The axis of a source's cursor and the greatest value on it.

    Raises:
        InvalidInputError: no such column, one that cannot be a cursor, or NULL in it (`cursor.null`).
    """
    assert source.cursor is not None
    refuse_read(cursor, source, queries)
    text, parameters = from_item(source, queries)
    column = source.cursor.column
    kinds = {found.name: found.type for found in describe_selection(cursor, text, parameters)}
    if column not in kinds:
        raise InvalidInputError(f"The source has no column {column}.", code="source.column_missing")
    axis, name = Axis.of(source.cursor, kinds[column]), quote(column)
    if fetch(cursor, f"SELECT 1 FROM {text} WHERE {name} IS NULL LIMIT 1", parameters):
        raise InvalidInputError(f"The cursor column {column} holds NULL.", code="cursor.null")
    value = name if axis.is_integer else f"CASE WHEN isfinite({name}) THEN {_micros(name, axis.kind)} END"
    found = fetch(
        cursor,
        f"SELECT CAST(max({value}) AS VARCHAR), CAST(min({value}) AS VARCHAR), {_endless(name, axis)} FROM {text}",
        parameters,
    )
    greatest, least, is_above, is_below = found[0]
    return axis, axis.reachable(
        -ENDLESS if is_below else axis.read(least), ENDLESS if is_above else axis.read(greatest)
    )


def _micros(name: str, kind: str) -> str:
    """Microseconds since 1970. Not every date is one that a timestamp can be."""
    if kind == "date":
        return f"CAST({name} - DATE '1970-01-01' AS HUGEINT) * 86400000000"
    # The driver gives times with a zone through an extra library; in the session's zone, UTC, they need none.
    return f"epoch_us(CAST({name} AS TIMESTAMP))"


def _endless(name: str, axis: Axis) -> str:
    """Whether there are values above and below all times."""
    if axis.is_integer:
        return "false, false"
    return ", ".join(f"coalesce(bool_or({name} = '{end}'), false)" for end in ("infinity", "-infinity"))


def limited(
    cursor: duckdb.DuckDBPyConnection, source: SourceSpec, kind: str, between: tuple[str | None, str], limit: int
) -> str:
    """Where a read ends that takes so many rows; the rows of one cursor value stay together."""
    assert source.cursor is not None
    text, parameters = from_item(source)
    name = quote(source.cursor.column)
    where, bound = bounds(source.cursor.column, kind, *between)
    rows = fetch(
        cursor,
        f"SELECT CAST(selected.{name} AS VARCHAR) FROM (SELECT * FROM {text}) AS selected "
        f"WHERE {where} ORDER BY selected.{name} LIMIT 1 OFFSET {limit:d}",
        {**parameters, **bound},
    )
    return rows[0][0] if rows else between[1]


def describe_selection(
    cursor: duckdb.DuckDBPyConnection, text: str, parameters: Mapping[str, Any]
) -> tuple[Column, ...]:
    """The columns of a FROM item."""
    return tuple(Column(name, logical_of(native)) for name, native in natives_of(cursor, text, parameters).items())


def natives_of(cursor: duckdb.DuckDBPyConnection, text: str, parameters: Mapping[str, Any]) -> dict[str, str]:
    """Names and DuckDB's own types of the columns of a FROM item."""
    return {row[0]: row[1] for row in fetch(cursor, f"DESCRIBE SELECT * FROM {text}", parameters)}


def fetch(cursor: duckdb.DuckDBPyConnection, sql: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """All rows of a query."""
    try:
        rows: list[tuple[Any, ...]] = cursor.execute(sql, named(parameters)).fetchall()
    except duckdb.Error as error:
        raise translate(error) from error
    return rows
