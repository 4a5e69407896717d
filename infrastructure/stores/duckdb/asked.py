"""What a DuckDB source answers to whoever plans a read of it."""

from typing import Any

import duckdb

from domain.pipelines.spec import SourceSpec
from domain.stores.table import Column
from infrastructure.queries.duckdb_queries import DuckDBQueries
from infrastructure.sql import quote
from infrastructure.stores.duckdb.cursor import describe_selection, fetch, limited
from infrastructure.stores.duckdb.keys import is_proved, why_untrusted
from infrastructure.stores.duckdb.reserved import refuse_read
from infrastructure.stores.duckdb.selection import bounds, from_item


class DuckDBAsked:
    """A source of a DuckDB, in one transaction; blocking."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, source: SourceSpec, queries: DuckDBQueries) -> None:
        refuse_read(cursor, source, queries)
        self._cursor = cursor
        self._source = source
        self._text, self._parameters = from_item(source, queries)
        self.columns = describe_selection(cursor, self._text, self._parameters)

    def check_cursor(self, name: str) -> None:
        """Its greatest value has been asked for, and NULL refused with that."""

    def limited(self, cursor: Column, lo: str | None, hi: str, limit: int) -> str:
        return limited(self._cursor, self._source, cursor.type, (lo, hi), limit)

    def is_proved(self) -> bool:
        return is_proved(self._cursor, self._source)

    def why_untrusted(self, lo: str | None, hi: str | None, *, looks_for_ties: bool) -> str | None:
        return why_untrusted(self._cursor, self._source, lo, hi, looks_for_ties=looks_for_ties)

    def extremes(self, column: Column, lo: str | None, hi: str | None) -> tuple[str | None, str | None]:
        where, bound = "true", dict[str, Any]()
        if self._source.cursor is not None:
            kinds = {found.name: found.type for found in self.columns}
            where, bound = bounds(self._source.cursor.column, kinds[self._source.cursor.column], lo, hi)
        # The driver gives times with a zone through an extra library; in the session's zone, UTC, they need none.
        name = f"CAST({quote(column.name)} AS TIMESTAMP)" if column.type == "timestamptz" else quote(column.name)
        # As text: what of a time has no place in the driver's own type comes in another one.
        ends = f"CAST(min({name}) AS VARCHAR), CAST(max({name}) AS VARCHAR)"
        sql = f"SELECT {ends} FROM {self._text} WHERE {where}"
        low, high = fetch(self._cursor, sql, {**self._parameters, **bound})[0]
        return low, high

    def warnings(self) -> tuple[str, ...]:
        return ()
