"""IDataStore on a DuckDB file: the embedded default. One process owns the file."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import replace

import duckdb

from domain.errors import PlatformError, SchemaMismatchError, StoreUnavailableError
from domain.loads.checkpoint import LaneState, Position
from domain.loads.horizon import ReadEnd
from domain.loads.quarantine import Refusals, RefusedRow
from domain.loads.read_set import SourcePlan, Stream
from domain.loads.way import TEXT_WIRE, Wire
from domain.pipelines.spec import SourceSpec
from domain.ports.data_store import (
    BATCH_BYTES,
    Batch,
    IDataStore,
    IOwner,
    IReader,
    IWriter,
    StoreHealth,
    Target,
)
from domain.runs.lane import Lane, LaneOwner
from domain.stores.table import INTERNAL_PREFIX, Column, TableName, TableSchema
from infrastructure.bench.in_process import Calls
from infrastructure.queries.duckdb_queries import DuckDBQueries
from infrastructure.stores.cursor_ends import Beginning, CursorEnd, own_end
from infrastructure.stores.duckdb.asked import DuckDBAsked
from infrastructure.stores.duckdb.capabilities import CAPABILITIES
from infrastructure.stores.duckdb.cursor import describe_selection, fetch, greatest_of
from infrastructure.stores.duckdb.file import DuckDBFile, DuckDBOptions
from infrastructure.stores.duckdb.keys import check_place
from infrastructure.stores.duckdb.reading import DuckDBReader, batches_of
from infrastructure.stores.duckdb.reserved import refuse_read
from infrastructure.stores.duckdb.selection import bounds_of, from_item, plain_relations
from infrastructure.stores.duckdb.session import DuckDBSession
from infrastructure.stores.duckdb.snapshot import SharedCursors
from infrastructure.stores.duckdb.writer import DuckDBWriter
from infrastructure.stores.planning import Wanted, planned
from infrastructure.stores.replayed import RefusedReader, plan_refused
from infrastructure.stores.sql.lanes import read_lane
from infrastructure.stores.sql.owner import SqlOwner
from infrastructure.stores.sql.quarantine import latest_read_set, refused_places, refused_rows, refused_shapes
from infrastructure.stores.sql.session import append_rows
from infrastructure.stores.write_lock import WriteLock
from infrastructure.tabular.arrow import to_table
from infrastructure.tabular.duckdb_types import native_of, sent
from infrastructure.threads import OneThread


class DuckDBDataStore(IDataStore):
    """Tables in one DuckDB file; writers take turns, readers see a snapshot."""

    capabilities = CAPABILITIES

    batch_rows = 122_880
    """A whole row group: fewer rows would be written to the log first, and to their place when it is full."""

    def __init__(self, options: DuckDBOptions, bench: Calls | None = None) -> None:
        self._queries = DuckDBQueries(bench)
        self._file = DuckDBFile(options, self._queries.plan_file)
        self._write_lock = WriteLock()
        self._snapshots = SharedCursors(self._cursor, self._session)

    async def open(self) -> None:
        await self._file.open()

    async def close(self) -> None:
        await self._file.close()

    async def health_check(self) -> StoreHealth:
        try:
            async with self._session() as (session, thread):
                await thread.call(session.execute, "SELECT 1")
        except PlatformError as error:
            return StoreHealth(is_healthy=False, step="query", detail=error.message, error=error)
        if self._file.lacks_room():
            full = StoreUnavailableError("The disk of the DuckDB file is full.", code="disk_full")
            return StoreHealth(is_healthy=False, step="write", detail=full.message, error=full)
        return StoreHealth(is_healthy=True)

    async def tables(self) -> Sequence[TableName]:
        async with self._session() as (session, thread):
            rows = await thread.call(
                session.execute,
                "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = current_database() "
                "UNION ALL SELECT schema_name, view_name FROM duckdb_views() "
                "WHERE database_name = current_database() AND NOT internal ORDER BY 1, 2",
            )
        return [
            TableName(table, None if schema == "main" else schema)
            for schema, table in rows
            if not table.startswith(INTERNAL_PREFIX)
        ]

    async def describe(self, table: TableName, *, with_bound: bool = False) -> TableSchema | None:
        async with self._session() as (session, thread):
            return await thread.call(session.describe_bound if with_bound else session.describe, table)

    async def read(self, source: SourceSpec, *, batch_rows: int) -> AsyncGenerator[Batch, None]:
        async with self._cursor() as (cursor, thread):
            await thread.call(refuse_read, cursor, source, self._queries)
            text, parameters = await thread.call(from_item, source, self._queries)
            columns = await thread.call(describe_selection, cursor, text, parameters)
            selected = f"(SELECT {', '.join(sent(c.name, c.type) for c in columns)} FROM {text})"
            async with aclosing(thread.iterate(batches_of(cursor, selected, parameters, batch_rows))) as batches:
                async for batch in batches:
                    yield batch

    async def write(self, table: TableName, batches: Sequence[Batch]) -> int:
        tables = [to_table(batch) for batch in batches]
        async with self._session() as (session, thread):
            return await thread.call(append_rows, session, table, tables)

    async def refused_rows(
        self, refusals: Refusals, *, after: Position | None, limit: int, most_bytes: int | None = None
    ) -> Sequence[RefusedRow]:
        async with self._session() as (session, thread):
            return await thread.call(refused_rows, session, refusals, after, limit, most_bytes)

    async def refused_places(self, refusals: Refusals, *, after: Position | None, limit: int) -> Sequence[Position]:
        async with self._session() as (session, thread):
            return await thread.call(refused_places, session, refusals, after, limit)

    async def latest_read_set(self, refusals: Refusals) -> str | None:
        async with self._session() as (session, thread):
            return await thread.call(latest_read_set, session, refusals)

    async def refused_shapes(self, refusals: Refusals) -> Sequence[str]:
        async with self._session() as (session, thread):
            return await thread.call(refused_shapes, session, refusals)

    async def plan(
        self,
        source: SourceSpec,
        *,
        lo: str | None,
        hi: str | None = None,
        limit: int | None,
        before: ReadEnd | None = None,
        waits: bool = True,
    ) -> SourcePlan:
        if source.refused is not None:
            return await plan_refused(self, source.refused)
        end = None
        if source.cursor is not None:
            async with self._cursor() as (cursor, thread):
                axis, greatest = await thread.call(greatest_of, cursor, source, self._queries)
            end = await own_end(Beginning(axis, greatest, lo, before, waits), self._write_lock.held_since)
        async with self._cursor() as (cursor, thread):
            return await thread.call(self._plan, cursor, Wanted(source, lo, hi, limit, before), end)

    def _plan(self, cursor: duckdb.DuckDBPyConnection, wanted: Wanted, end: CursorEnd | None) -> SourcePlan:
        return planned(wanted, end, DuckDBAsked(cursor, wanted.source, self._queries))

    async def count(self, source: SourceSpec, plan: SourcePlan) -> int:
        where, bound = bounds_of(source, plan)
        async with self._cursor() as (cursor, thread):
            await thread.call(refuse_read, cursor, source, self._queries)
            text, parameters = await thread.call(from_item, source, self._queries)
            rows = await thread.call(
                fetch, cursor, f"SELECT count(*) FROM {text} WHERE {where}", {**parameters, **bound}
            )
        return min(int(rows[0][0]), plan.limit) if plan.limit is not None else int(rows[0][0])

    async def check_place(self, source: SourceSpec, plan: SourcePlan, stream: Stream, place: Position) -> None:
        if source.refused is None:
            async with self._cursor() as (cursor, thread):
                await thread.call(refuse_read, cursor, source, self._queries)
                await thread.call(check_place, cursor, source, plan, stream, place)

    async def lane_state(self, lane: Lane, table: TableName) -> LaneState:
        async with self._session() as (session, thread):
            return await thread.call(read_lane, session, lane, table)

    def spell(self, logical: str) -> str | None:
        try:
            return native_of(logical)
        except SchemaMismatchError:
            return None

    async def landing_wire(self, table: TableName, columns: Sequence[Column]) -> Wire | None:
        async with self._session() as (session, thread):
            natives = await thread.call(session.natives, table)
        return replace(TEXT_WIRE, types={c.name: natives.get(c.name) or self.spell(c.type) for c in columns})

    async def may_run_inside(self, source: SourceSpec) -> bool:
        async with self._session() as (session, thread):
            names = await thread.call(plain_relations, source, self._queries)
            if names is None:
                return False
            return await thread.call(session.plain_tables, names)

    def snapshot(
        self, source: SourceSpec, *, readers: int = 1, undecoded: bool = False, by: LaneOwner | None = None
    ) -> AbstractAsyncContextManager[str | None]:
        return self._snapshots.hold(readers)

    @asynccontextmanager
    async def owner(
        self, lane: Lane, table: TableName, fence: int, *, token: str | None = None
    ) -> AsyncIterator[IOwner]:
        async with self._session() as (session, thread):
            yield SqlOwner(session, thread, lane, table, fence, token)

    @asynccontextmanager
    async def reader(
        self,
        source: SourceSpec,
        plan: SourcePlan,
        stream: Stream,
        *,
        batch_rows: int,
        batch_bytes: int = BATCH_BYTES,
        snapshot: str | None = None,
        by: LaneOwner | None = None,
    ) -> AsyncIterator[IReader]:
        if source.refused is not None:
            yield RefusedReader(self, source.refused, plan, (batch_rows, batch_bytes))
            return
        async with self._snapshots.reading(snapshot) as (cursor, thread):
            yield DuckDBReader(cursor, thread, source, plan, stream, (batch_rows, batch_bytes), self._queries)

    @asynccontextmanager
    async def writer(
        self, lane: Lane, target: Target, read_set_id: str, stream: str, fence: int, token: str
    ) -> AsyncIterator[IWriter]:
        async with self._session() as (session, thread):
            yield DuckDBWriter(session, thread, lane, target, read_set_id, stream, fence, token)

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[tuple[DuckDBSession, OneThread]]:
        async with self._file.lent() as connection:
            session = DuckDBSession(connection, self._write_lock, self._file.opening, self._queries, self._file.log)
            thread = OneThread("duckdb-write")
            thread.interrupt = session.interrupt
            try:
                yield session, thread
            finally:
                if not thread.is_abandoned:
                    await thread.call(session.close)
                thread.close()

    @asynccontextmanager
    async def _cursor(self) -> AsyncIterator[tuple[duckdb.DuckDBPyConnection, OneThread]]:
        """A cursor in a read-only transaction, so that no query of a user can write."""
        async with self._file.lent() as connection:
            cursor = connection.cursor()
            thread = OneThread("duckdb-read")
            thread.interrupt = cursor.interrupt
            try:
                await thread.call(fetch, cursor, "BEGIN TRANSACTION READ ONLY", {})
                yield cursor, thread
            finally:
                if not thread.is_abandoned:
                    await thread.call(cursor.close)
                thread.close()
