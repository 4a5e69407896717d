"""IDataStore on Postgres: Arrow through ADBC, binary COPY both ways, the fence in the same database."""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager

from domain.errors import InvalidInputError, PlatformError, SchemaMismatchError
from domain.loads.checkpoint import LaneState, Position
from domain.loads.horizon import ReadEnd
from domain.loads.quarantine import Refusals, RefusedRow
from domain.loads.read_set import SourcePlan, Stream
from domain.loads.way import Wire
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
from domain.stores.connection import failing_step
from domain.stores.table import INTERNAL_PREFIX, Column, TableName, TableSchema
from infrastructure.bench.in_process import Calls
from infrastructure.queries.postgres_query import PostgresQueries
from infrastructure.stores.cursor_ends import CursorEnd
from infrastructure.stores.planning import Wanted, planned
from infrastructure.stores.postgres.asked import PostgresAsked
from infrastructure.stores.postgres.capabilities import CAPABILITIES, FORMAT
from infrastructure.stores.postgres.catalog import catalog_columns
from infrastructure.stores.postgres.circles import Circles, Watched
from infrastructure.stores.postgres.connection import READER, PostgresAddress, Readers, lane_session
from infrastructure.stores.postgres.horizon import PostgresHorizon
from infrastructure.stores.postgres.keys import check_place
from infrastructure.stores.postgres.links import LinkPool
from infrastructure.stores.postgres.passage import PostgresWriter
from infrastructure.stores.postgres.pool import SessionPool, refuse_pooler
from infrastructure.stores.postgres.reader import PostgresReader
from infrastructure.stores.postgres.reading import BEGIN_READING, Reading, SharedSnapshots
from infrastructure.stores.postgres.resolving import runs_inside
from infrastructure.stores.postgres.session import PostgresSession
from infrastructure.stores.postgres.told import wire_of
from infrastructure.stores.postgres.types import native_of
from infrastructure.stores.replayed import RefusedReader, plan_refused
from infrastructure.stores.sql.lanes import read_lane
from infrastructure.stores.sql.owner import SqlOwner
from infrastructure.stores.sql.quarantine import latest_read_set, refused_places, refused_rows, refused_shapes
from infrastructure.stores.sql.session import append_rows
from infrastructure.stores.sql.writer import Checkpoints, SqlWriter
from infrastructure.tabular.arrow import to_table
from infrastructure.threads import OneThread

_SIZES = (BATCH_BYTES, BATCH_BYTES)
_SNAPSHOT = re.compile(r"[0-9A-F]+(-[0-9A-F]+)*")


class PostgresDataStore(IDataStore):
    """Tables of one Postgres database; owners, readers and writers each have a connection of their own from one pool.

    `installation` tells one that counts fences from others that may read the same database; queries are parsed on
    `bench`.
    """

    capabilities = CAPABILITIES

    def __init__(self, address: PostgresAddress, installation: str = "", bench: Calls | None = None) -> None:
        self._address = address
        self._installation = installation
        self._pool = SessionPool(address, PostgresQueries(bench))
        self._links = LinkPool(address)
        self._snapshots = SharedSnapshots(self._session, self._links.link)
        self._circles = Circles(self._session)

    async def open(self) -> None:
        async with self._session("headrace") as first, self._session("headrace") as second:
            await refuse_pooler(self._address, first, second)

    async def close(self) -> None:
        await self._links.close()
        await self._pool.close()

    async def health_check(self) -> StoreHealth:
        try:
            async with self._session("headrace") as (session, thread):
                await thread.call(session.ask, "SELECT 1")
        except PlatformError as error:
            return StoreHealth(is_healthy=False, step=failing_step(error), detail=error.message, error=error)
        return StoreHealth(is_healthy=True)

    async def tables(self) -> Sequence[TableName]:
        async with self._session("headrace") as (session, thread):
            rows = await thread.call(
                session.execute,
                "SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
                "WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname NOT LIKE 'pg\\_%' "
                "AND n.nspname NOT IN ('information_schema', 'headrace') ORDER BY 1, 2",
            )
        return [
            TableName(table, None if schema == "public" else schema)
            for schema, table in rows
            if not table.startswith(INTERNAL_PREFIX)
        ]

    async def describe(self, table: TableName, *, with_bound: bool = False) -> TableSchema | None:
        async with self._session("headrace") as (session, thread):
            return await thread.call(session.describe_bound if with_bound else session.describe, table)

    async def read(self, source: SourceSpec, *, batch_rows: int) -> AsyncGenerator[Batch, None]:
        async with self._snapshots.reading(None) as reading:
            selection = await reading.thread.call(reading.selected, source)
            async with aclosing(reading.thread.iterate(selection.rows(reading.session, batch_rows, _SIZES))) as batches:
                async for batch in batches:
                    yield batch

    async def write(self, table: TableName, batches: Sequence[Batch]) -> int:
        tables = [to_table(batch) for batch in batches]
        async with self._session("headrace") as (session, thread):
            return await thread.call(append_rows, session, table, tables)

    async def refused_rows(
        self, refusals: Refusals, *, after: Position | None, limit: int, most_bytes: int | None = None
    ) -> Sequence[RefusedRow]:
        async with self._session("headrace") as (session, thread):
            return await thread.call(refused_rows, session, refusals, after, limit, most_bytes)

    async def refused_places(self, refusals: Refusals, *, after: Position | None, limit: int) -> Sequence[Position]:
        async with self._session("headrace") as (session, thread):
            return await thread.call(refused_places, session, refusals, after, limit)

    async def latest_read_set(self, refusals: Refusals) -> str | None:
        async with self._session("headrace") as (session, thread):
            return await thread.call(latest_read_set, session, refusals)

    async def refused_shapes(self, refusals: Refusals) -> Sequence[str]:
        async with self._session("headrace") as (session, thread):
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
            async with self._session(READER) as (session, thread):
                end = await PostgresHorizon(session, thread, source, before).end(source.cursor, lo, waits=waits)
        async with self._reading() as (session, thread):
            return await thread.call(self._plan, session, Wanted(source, lo, hi, limit, before), end)

    @staticmethod
    def _plan(session: PostgresSession, wanted: Wanted, end: CursorEnd | None) -> SourcePlan:
        return planned(wanted, end, PostgresAsked(session, wanted.source))

    async def count(self, source: SourceSpec, plan: SourcePlan) -> int:
        def counted(reading: Reading) -> int:
            session, selection = reading.session, reading.selected(source)
            where = selection.bounds(source.cursor.column, plan.lo, plan.hi) if source.cursor else "true"
            session.bind(selection.settings)
            return int(session.execute(f"SELECT count(*) FROM {selection.text} WHERE {where}")[0][0])

        async with self._snapshots.reading(None) as reading:
            rows = await reading.thread.call(counted, reading)
        return min(rows, plan.limit) if plan.limit is not None else rows

    async def check_place(self, source: SourceSpec, plan: SourcePlan, stream: Stream, place: Position) -> None:
        if source.refused is None:
            async with self._reading() as (session, thread):
                await thread.call(check_place, session, source, plan, stream, place)

    async def lane_state(self, lane: Lane, table: TableName) -> LaneState:
        async with self._session("headrace") as (session, thread):
            return await thread.call(read_lane, session, lane, table)

    def snapshot(
        self, source: SourceSpec, *, readers: int = 1, undecoded: bool = False, by: LaneOwner | None = None
    ) -> AbstractAsyncContextManager[str | None]:
        return self._snapshots.hold(source, readers, Readers(self._installation, by), undecoded=undecoded)

    @asynccontextmanager
    async def owner(
        self, lane: Lane, table: TableName, fence: int, *, token: str | None = None
    ) -> AsyncIterator[IOwner]:
        async with self._session(lane_session(lane, fence)) as (session, thread):
            yield SqlOwner(session, thread, lane, table, fence, token)

    async def wire(self, source: SourceSpec) -> Wire | None:
        async with self._reading() as (session, thread):
            return await thread.call(wire_of, session, source)

    async def landing_wire(self, table: TableName, columns: Sequence[Column]) -> Wire | None:
        def described(session: PostgresSession) -> Wire:
            natives: dict[str, str | None] = {name: native for name, native, _ in catalog_columns(session, table)}
            natives = natives or {column.name: self.spell(column.type) for column in columns}
            return Wire(FORMAT, natives)

        async with self._session("headrace") as (session, thread):
            return await thread.call(described, session)

    def spell(self, logical: str) -> str | None:
        try:
            return native_of(logical)
        except SchemaMismatchError:
            return None

    async def may_run_inside(self, source: SourceSpec) -> bool:
        async with self._session("headrace") as (session, thread):
            return await thread.call(runs_inside, session, source)

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
        if snapshot is not None and not _SNAPSHOT.fullmatch(snapshot):
            raise InvalidInputError("This is not the name of a snapshot.", code="snapshot.invalid")
        async with self._snapshots.reading(snapshot, Readers(self._installation, by)) as reading:
            yield PostgresReader(reading, source, plan, stream, batch_rows, batch_bytes)

    @asynccontextmanager
    async def writer(
        self, lane: Lane, target: Target, read_set_id: str, stream: str, fence: int, token: str
    ) -> AsyncIterator[IWriter]:
        name = lane_session(lane, fence)
        watched = Watched(self._circles, name, Readers(self._installation, LaneOwner(lane, fence)), target.table)
        async with self._session(name) as (session, thread):
            decoded = SqlWriter(session, thread, lane, target, read_set_id, stream, fence, token)
            checkpoints = Checkpoints(lane, target.table, read_set_id, stream, fence, token)
            writer = PostgresWriter(decoded, checkpoints, target, watched)
            async with writer.passing(self._links, name):
                yield writer

    @asynccontextmanager
    async def _session(self, name: str) -> AsyncIterator[tuple[PostgresSession, OneThread]]:
        async with self._pool.session(name) as pooled:
            yield pooled

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[tuple[PostgresSession, OneThread]]:
        """A session in one read-only snapshot, so that no query of a user can write."""
        async with self._session(READER) as (session, thread):
            await thread.call(session.execute, BEGIN_READING)
            yield session, thread
