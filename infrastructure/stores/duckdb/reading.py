"""Reading a stream of a DuckDB source, in the order of (cursor, key)."""

from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import aclosing, closing
from typing import Any

import duckdb
import pyarrow as pa

from domain.errors import PlatformError
from domain.failpoints import fail_at
from domain.loads.checkpoint import Position
from domain.loads.read_set import SourcePlan, Stream
from domain.pipelines.spec import SourceSpec
from domain.ports.batches import LARGE_ROW
from domain.ports.data_store import IReader, SourceBatch, are_large
from domain.stores.table import Column
from infrastructure.memory_room import ROOM
from infrastructure.queries.duckdb_queries import IN_PROCESS, DuckDBQueries
from infrastructure.sql import quote
from infrastructure.stores.duckdb.cursor import natives_of
from infrastructure.stores.duckdb.reserved import refuse_read
from infrastructure.stores.duckdb.row_size import (
    VECTOR_ROWS,
    Sizes,
    is_met,
    measured,
    sizes_of,
    told,
    too_many_together,
    watched_above,
)
from infrastructure.stores.duckdb.selection import belonging, from_item
from infrastructure.stores.duckdb.session import named, translate
from infrastructure.stores.planned import check_planned
from infrastructure.stores.positions import TIES, place_after, told_as_text, whole_ties
from infrastructure.tabular.arrow import conform, rechunk, row_too_large
from infrastructure.tabular.duckdb_types import logical_of, sent
from infrastructure.threads import OneThread

PLAIN = frozenset(
    {
        *("BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"),
        *("VARCHAR", "UUID", "JSON", "DATE", "TIME", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE"),
    }
)
"""Types whose text follows from what Arrow carries."""

_EVERYTHING = "true AND true"
"""How the conditions of a read set and a stream say that they have none."""


class DuckDBReader(IReader):
    """Reads a stream in the order of (cursor, key)."""

    def __init__(
        self,
        cursor: duckdb.DuckDBPyConnection,
        thread: OneThread,
        source: SourceSpec,
        plan: SourcePlan,
        stream: Stream,
        size: tuple[int, int],
        queries: DuckDBQueries = IN_PROCESS,
    ) -> None:
        self._queries = queries
        self._stream = stream
        self._cursor = cursor
        self._thread = thread
        self._source = source
        self._plan = plan
        self._size = size

    async def batches(self, after: Position | None, *, limit: int | None = None) -> AsyncGenerator[SourceBatch, None]:
        plan = self._plan
        columns = tuple(Column(name, kind) for name, kind in plan.columns)
        names = [column.name for column in columns]
        await self._thread.call(refuse_read, self._cursor, self._source, self._queries)
        text, parameters = await self._thread.call(from_item, self._source, self._queries)
        natives = await self._thread.call(natives_of, self._cursor, text, parameters)
        check_planned(columns, [Column(name, logical_of(native)) for name, native in natives.items()])
        where, bound = belonging(self._source, plan, self._stream, after, natives)
        ties = plan.order if plan.ordered and not plan.is_proved else ()
        sizes = await self._thread.call(self._sizes, text, parameters, limit if where == _EVERYTHING else None)
        # To keep rows as they lie, DuckDB gathers all that a LIMIT lets through before it gives the first.
        is_bounded = limit is not None and (bool(plan.order) or limit * sizes.row_bytes <= self._size[1])
        query = f"({self._selected(text, where, natives, limit if is_bounded else None)})"
        shown = measured(columns, watched_above(self._size[1]), sizes)
        rows = self._batches(query, {**parameters, **bound}, columns, shown, ties, sizes)
        if limit is not None:  # A run must not fail since somebody looks at the file.
            rows = _first(_in_turn(rows, sizes.most_bytes), limit)
        async with aclosing(self._thread.iterate(rows, is_large=are_large)) as batches:
            async for batch in batches:
                fail_at("extract.mid_page")
                place = place_after(batch, plan, before_christ="(BC)") if plan.ordered else None
                yield SourceBatch(conform(batch.select(names), columns), place)
                del batch

    def _sizes(self, text: str, parameters: Mapping[str, Any], limit: int | None) -> Sizes:
        """What reading may meet.

        Raises:
            WorkFailedError: a row of those that are wanted is larger than a batch for certain (`source.row_too_large`).
        """
        try:
            sizes = sizes_of(self._cursor, text, parameters)
            table = self._source.table
            is_large = sizes.longest > watched_above(self._size[1])
            if is_large and table is not None and limit is not None and is_met(self._cursor, table, limit):
                raise row_too_large(self._size[1], sizes.column)
        except duckdb.Error as error:
            raise translate(error) from error
        return sizes

    def _batches(
        self,
        query: str,
        parameters: Mapping[str, Any],
        columns: Sequence[Column],
        shown: str,
        ties: Sequence[str],
        sizes: Sizes,
    ) -> Generator[pa.Table]:
        most = min(LARGE_ROW * 16, self._size[1])
        at_a_time = max(1, most // sizes.longest) if sizes.longest > most // VECTOR_ROWS else None
        try:
            yield from batches_of(
                self._cursor, query, parameters, *self._size, ties=ties, shown=shown, at_a_time=at_a_time
            )
        except PlatformError as error:
            if isinstance(error.__cause__, duckdb.Error) and (said := told(error.__cause__, columns, self._size[1])):
                raise said from error.__cause__
            if error.code == "store.memory" and sizes.longest > LARGE_ROW:
                raise too_many_together(sizes) from error.__cause__
            raise

    def _selected(self, text: str, where: str, natives: Mapping[str, str], limit: int | None) -> str:
        plan = self._plan
        names = ", ".join(sent(name, kind) for name, kind in plan.columns)
        # By the columns themselves: what is sent as text under the same name has another order.
        keys = ", ".join(f"selected.{quote(name)}" for name in plan.order)
        if plan.ordered:
            told = told_as_text(plan.order, lambda name: natives[name] in PLAIN)
            names += "".join(f", CAST(selected.{quote(name)} AS VARCHAR) AS {place}" for place, name in told.items())
        if plan.ordered and not plan.is_proved:
            names += f", rank() OVER (ORDER BY {keys}) AS {TIES}"
            keys = TIES  # Already sorted by the whole of it.
        order = f" ORDER BY {keys}" if plan.order else ""
        bounded = f" LIMIT {limit:d}" if limit is not None else ""
        return f"SELECT {names} FROM (SELECT * FROM {text}) AS selected WHERE {where}{order}{bounded}"


def _in_turn(rows: Generator[pa.Table], most_bytes: int) -> Generator[pa.Table]:
    """Rows that take much are read when others who look at such have done."""
    with ROOM.taken(most_bytes), closing(rows):
        yield from rows


def _first(tables: Generator[pa.Table], limit: int) -> Generator[pa.Table]:
    """So many of the rows; what comes behind is not read."""
    with closing(tables):
        for table in tables:
            yield table.slice(0, limit)
            limit -= table.num_rows
            del table
            if limit <= 0:
                return


def batches_of(
    cursor: duckdb.DuckDBPyConnection,
    text: str,
    parameters: Mapping[str, Any],
    rows: int,
    size_bytes: int | None = None,
    *,
    ties: Sequence[str] = (),
    shown: str = "*",
    at_a_time: int | None = None,
) -> Generator[pa.Table]:
    """Stream what is selected in tables of so many rows, or bytes; rows that share their place, of `ties`, in one
    table.

    `at_a_time` of them are taken from DuckDB.
    """
    try:
        # `execute().to_arrow_reader()` would hold the whole result; a relation streams it.
        relation = cursor.sql(f"SELECT {shown} FROM {text}", params=named(parameters))
        tables = rechunk(relation.to_arrow_reader(at_a_time or rows), rows, size_bytes)
        yield from whole_ties(tables, ties, size_bytes) if ties else tables
    except duckdb.Error as error:
        raise translate(error) from error
