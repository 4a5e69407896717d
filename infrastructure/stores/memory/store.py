"""IDataStore in memory: the first row of every suite, so that the double keeps the same promises."""

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import pyarrow as pa

from domain.errors import InvalidInputError, NotFoundError, StoreUnavailableError
from domain.failpoints import fail_at
from domain.loads.checkpoint import IDLE, LaneState, Position
from domain.loads.horizon import ReadEnd
from domain.loads.quarantine import Refusals, RefusedRow
from domain.loads.read_set import SourcePlan, Stream
from domain.pipelines.spec import SourceSpec
from domain.ports.data_store import (
    BATCH_BYTES,
    Batch,
    IDataStore,
    IOwner,
    IReader,
    IWriter,
    SourceBatch,
    StoreHealth,
    Target,
)
from domain.runs.lane import Lane, LaneOwner
from domain.stores.capabilities import Capabilities
from domain.stores.table import Column, TableName, TableSchema
from infrastructure.clock import utc_now
from infrastructure.stores.cursor_ends import Beginning, own_end
from infrastructure.stores.memory.asked import InMemoryAsked, between, greatest_of, within
from infrastructure.stores.memory.content import Content, append_rows, create_table
from infrastructure.stores.memory.lanes import InMemoryOwner, InMemoryWriter
from infrastructure.stores.memory.places import place_after, strictly_after, with_ties
from infrastructure.stores.memory.quarantine import refused_rows
from infrastructure.stores.planned import check_planned
from infrastructure.stores.planning import Wanted, planned
from infrastructure.stores.positions import whole_ties
from infrastructure.stores.replayed import RefusedReader, fitting, plan_refused
from infrastructure.tabular.arrow import arrow_type, columns_of, rechunk, to_table


class InMemoryDataStore(IDataStore):
    """Tables as Arrow data; one transaction at a time, published copy-on-write. Content lives until the
    process ends.
    """

    capabilities = Capabilities(shares_snapshots=True, merges=True, has_far_times=True)

    def __init__(self) -> None:
        self._content = Content()
        self._lock = asyncio.Lock()
        self._writing_since: datetime | None = None
        self._is_open = False
        self._snapshots: dict[str, Content] = {}
        self._names = itertools.count(1)

    async def open(self) -> None:
        self._is_open = True

    async def close(self) -> None:
        self._is_open = False

    async def health_check(self) -> StoreHealth:
        if not self._is_open:
            return StoreHealth(is_healthy=False, step="name", detail="The store is not open.")
        return StoreHealth(is_healthy=True)

    async def tables(self) -> Sequence[TableName]:
        names = sorted(name for name in self._content.tables if "_headrace" not in name)
        return [TableName.parse(name) for name in names]

    async def describe(self, table: TableName, *, with_bound: bool = False) -> TableSchema | None:
        found = self._content.tables.get(str(table))
        return TableSchema(table, found[0]) if found else None

    async def read(self, source: SourceSpec, *, batch_rows: int) -> AsyncGenerator[Batch, None]:
        rows = self._rows(source)
        for start in range(0, rows.num_rows, batch_rows):
            yield rows.slice(start, batch_rows)

    async def write(self, table: TableName, batches: Sequence[Batch]) -> int:
        tables = [to_table(batch) for batch in batches]
        async with self.transaction() as content:
            if str(table) not in content.tables:
                create_table(content, table, columns_of(tables[0].schema))
            for rows in tables:
                append_rows(content, table, rows)
        return sum(rows.num_rows for rows in tables)

    async def refused_rows(
        self, refusals: Refusals, *, after: Position | None, limit: int, most_bytes: int | None = None
    ) -> Sequence[RefusedRow]:
        rows = refused_rows(self._content, refusals, after)[:limit]
        if most_bytes is None:
            return rows
        # Without a copy of each, where that is enough.
        sizes = [len(row.record if row.record.isascii() else row.record.encode()) for row in rows]
        return rows[: fitting(sizes, most_bytes)]

    async def refused_places(self, refusals: Refusals, *, after: Position | None, limit: int) -> Sequence[Position]:
        return [row.place for row in refused_rows(self._content, refusals, after)[:limit]]

    async def latest_read_set(self, refusals: Refusals) -> str | None:
        mine = (refusals.organization, refusals.pipeline)
        found = (row["read_set"] for row in self._content.quarantine if (row["org"], row["pipeline"]) == mine)
        return max(found, default=None)

    async def refused_shapes(self, refusals: Refusals) -> Sequence[str]:
        return sorted({row.columns or "" for row in refused_rows(self._content, refusals, None)})

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
            found = self._rows(source)
            axis, greatest = greatest_of(source.cursor, self._content.tables[str(source.table)][0], found)
            end = await own_end(Beginning(axis, greatest, lo, before, waits), lambda: self._writing_since)
        rows = self._rows(source)
        asked = InMemoryAsked(source, rows, self._content.tables[str(source.table)][0])
        return planned(Wanted(source, lo, hi, limit, before), end, asked)

    async def count(self, source: SourceSpec, plan: SourcePlan) -> int:
        rows = int(between(self._rows(source), source, plan.lo, plan.hi).num_rows)
        return min(rows, plan.limit) if plan.limit is not None else rows

    def spell(self, logical: str) -> str | None:
        return None if logical.startswith("native:") else str(arrow_type(logical))

    async def lane_state(self, lane: Lane, table: TableName) -> LaneState:
        return self._content.lanes.get(lane, LaneState(state=IDLE, fence=0))

    @asynccontextmanager
    async def snapshot(
        self, source: SourceSpec, *, readers: int = 1, undecoded: bool = False, by: LaneOwner | None = None
    ) -> AsyncIterator[str | None]:
        name = str(next(self._names))
        self._snapshots[name] = self._content  # Publishing puts another content in place and leaves this one as it is.
        try:
            yield name
        finally:
            del self._snapshots[name]

    @asynccontextmanager
    async def owner(
        self, lane: Lane, table: TableName, fence: int, *, token: str | None = None
    ) -> AsyncIterator[IOwner]:
        yield InMemoryOwner(self, lane, table, fence, token)

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
        content = self._snapshots.get(snapshot, self._content) if snapshot is not None else self._content
        rows = self._rows(source, content)
        check_planned([Column(*column) for column in plan.columns], content.tables[str(source.table)][0])
        rows = rows.select([name for name, _ in plan.columns])
        chosen = within(between(rows, source, plan.lo, plan.hi), plan, stream)
        yield InMemoryReader(chosen, plan, (batch_rows, batch_bytes))

    @asynccontextmanager
    async def writer(
        self, lane: Lane, target: Target, read_set_id: str, stream: str, fence: int, token: str
    ) -> AsyncIterator[IWriter]:
        yield InMemoryWriter(self, lane, target, read_set_id, stream, fence, token)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Content]:
        """Hand out a copy of the content and put it in place if the block ends well."""
        if not self._is_open:
            raise StoreUnavailableError("The in-memory store is not open.")
        async with self._lock:
            content = Content(
                tables=dict(self._content.tables),
                lanes=dict(self._content.lanes),
                quarantine=list(self._content.quarantine),
                owners=dict(self._content.owners),
                deletions=dict(self._content.deletions),
            )
            self._writing_since = utc_now()
            try:
                yield content
                self._content = content
            finally:
                self._writing_since = None

    @property
    def quarantine(self) -> Sequence[dict[str, Any]]:
        """The refused rows, oldest first."""
        return tuple(self._content.quarantine)

    def _rows(self, source: SourceSpec, content: Content | None = None) -> pa.Table:
        if not self._is_open:
            raise StoreUnavailableError("The in-memory store is not open.")
        if source.table is None:
            raise InvalidInputError("An in-memory source names a table; it has no queries.", code="source.kind")
        found = (content or self._content).tables.get(str(source.table))
        if found is None:
            raise NotFoundError(f"There is no table {source.table}.", code="table.not_found")
        return found[1]


class InMemoryReader(IReader):
    """Reads the rows as they were when the reader was made."""

    def __init__(self, rows: pa.Table, plan: SourcePlan, size: tuple[int, int]) -> None:
        self._rows = rows
        self._plan = plan
        self._size = size

    async def batches(self, after: Position | None, *, limit: int | None = None) -> AsyncGenerator[SourceBatch, None]:
        rows, plan, names = self._rows, self._plan, self._rows.column_names
        if plan.order:
            rows = rows.sort_by([(name, "ascending") for name in plan.order])
        if after is not None:
            rows = rows.filter(strictly_after(rows, plan.order, after))
        rows = rows if limit is None else rows.slice(0, limit)
        tables = rechunk((with_ties(rows, plan.order) if plan.ordered else rows).to_batches(), *self._size)
        for batch in whole_ties(tables, plan.order, self._size[1]) if plan.ordered else tables:
            fail_at("extract.mid_page")
            yield SourceBatch(batch.select(names), place_after(batch, plan.order) if plan.ordered else None)
            await asyncio.sleep(0)
