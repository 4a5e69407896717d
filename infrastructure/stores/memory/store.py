"""IDataStore in memory: the first row of every suite, so that the double keeps the same promises."""

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from domain.errors import InvalidInputError, NotFoundError, StoreUnavailableError
from domain.failpoints import fail_at
from domain.loads.checkpoint import LaneState, Position
from domain.loads.horizon import ReadEnd
from domain.loads.quarantine import Refusals, RefusedRow
from domain.loads.read_set import SourcePlan, Stream, streams_between
from domain.pipelines.spec import CursorSpec, SourceSpec
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
from domain.stores.table import Column, TableName, TableSchema
from infrastructure.stores.cursor_axis import ENDLESS, Axis
from infrastructure.stores.cursor_ends import Beginning, own_end
from infrastructure.stores.cursors import looked_back
from infrastructure.stores.memory.content import Content, append_rows, create_table
from infrastructure.stores.memory.lanes import InMemoryOwner, InMemoryWriter
from infrastructure.stores.memory.places import check_ordered, place_after, strictly_after, with_ties
from infrastructure.stores.memory.quarantine import refused_rows
from infrastructure.stores.partitions import check_column, is_partitioned, ranges
from infrastructure.stores.planned import check_planned
from infrastructure.stores.positions import MAX_TIES, untrusted_null, untrusted_ties, whole_ties
from infrastructure.stores.replayed import RefusedReader, fitting, plan_refused
from infrastructure.tabular.arrow import arrow_type, columns_of, rechunk, to_table


class InMemoryDataStore(IDataStore):
    """Tables as Arrow data; one transaction at a time, published copy-on-write. Content lives until the
    process ends.
    """

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

    async def refused_shapes(self, refusals: Refusals) -> Sequence[str]:
        return sorted({row.columns for row in refused_rows(self._content, refusals, None)})

    async def plan(
        self,
        source: SourceSpec,
        *,
        lo: str | None,
        limit: int | None,
        before: ReadEnd | None = None,
        waits: bool = True,
    ) -> SourcePlan:
        if source.refused is not None:
            return await plan_refused(self, source.refused)
        rows = self._rows(source)
        columns = columns_of(rows.schema) if source.table is None else self._content.tables[str(source.table)][0]
        kinds = {column.name: column.type for column in columns}
        for name in source.order:
            if name not in kinds:
                raise InvalidInputError(f"The source has no column {name}.", code="source.column_missing")
        hi, why = None, None
        if source.cursor is not None:
            axis, greatest = _greatest(source.cursor, rows, kinds)
            end = await own_end(Beginning(axis, greatest, lo, before, waits), lambda: self._writing_since)
            rows = self._rows(source)
            hi, why = end.cut(_limited(rows, source, lo, end.hi, limit), before)
        begin = looked_back(lo, source.cursor, kinds[source.cursor.column]) if source.cursor else None
        read = _between(rows, source, SourcePlan((), (), True, lo=begin, hi=hi))
        untrusted = _why_untrusted(source, read, looks_for_ties=limit is None or limit > MAX_TIES)
        is_split = is_partitioned(source, limit) and untrusted is None
        return SourcePlan(
            columns=tuple((column.name, column.type) for column in columns),
            streams=_streams(rows, source, kinds, lo, hi) if is_split else streams_between(()),
            partition=source.partitions.column if source.partitions and is_split else None,
            ordered=bool(source.order) and untrusted is None,
            is_proved=False,
            untrusted=untrusted,
            order=source.order,
            lo=begin,
            hi=hi,
            limit=None if source.cursor else limit,
            end=why,
        )

    async def count(self, source: SourceSpec, plan: SourcePlan) -> int:
        rows = int(_between(self._rows(source), source, plan).num_rows)
        return min(rows, plan.limit) if plan.limit is not None else rows

    def spell(self, logical: str) -> str | None:
        return None if logical.startswith("native:") else str(arrow_type(logical))

    async def lane_state(self, lane: Lane, table: TableName) -> LaneState:
        return self._content.lanes.get(lane, LaneState(state="idle", fence=0))

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
        yield InMemoryReader(_within(_between(rows, source, plan), plan, stream), plan, (batch_rows, batch_bytes))

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
            )
            self._writing_since = datetime.now(UTC)
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


def _greatest(cursor: CursorSpec, rows: pa.Table, kinds: dict[str, str]) -> tuple[Axis, int | None]:
    axis = Axis.of(cursor, kinds[cursor.column])
    values = rows.column(cursor.column)
    if values.null_count:
        raise InvalidInputError(f"The cursor column {cursor.column} holds NULL.", code="cursor.null")
    if axis.is_integer:
        return axis, pc.max(values).as_py()
    found = pc.min_max(values)
    return axis, axis.reachable(_moment(found["min"]), _moment(found["max"]))


def _moment(value: pa.Scalar) -> int | None:
    """A time in microseconds since 1970, also where Python has none."""
    if not value.is_valid:
        return None
    is_day = pa.types.is_date32(value.type)
    number = value.value if is_day else value.cast(pa.timestamp("us", getattr(value.type, "tz", None))).value
    if abs(number) == (2**31 if is_day else 2**63) - 1:
        return ENDLESS if number > 0 else -ENDLESS
    return int(number * 86_400_000_000 if is_day else number)


def _limited(rows: pa.Table, source: SourceSpec, lo: str | None, hi: str, limit: int | None) -> str:
    assert source.cursor is not None
    name = source.cursor.column
    plan = SourcePlan(columns=(), streams=(), ordered=True, order=(name,), lo=lo, hi=hi)
    ordered = _between(rows, source, plan).sort_by(name).column(name)
    return str(pc.cast(ordered.slice(limit, 1), pa.string())[0]) if limit is not None and limit < len(ordered) else hi


def _why_untrusted(source: SourceSpec, rows: pa.Table, *, looks_for_ties: bool) -> str | None:
    check_ordered(source.order, {field.name: field.type for field in rows.schema})
    has_null = any(rows.column(name).null_count for name in source.order)
    if has_null or not source.order or not looks_for_ties or rows.num_rows <= MAX_TIES:
        return untrusted_null(source.key) if has_null else None
    shared = rows.group_by(list(source.order)).aggregate([([], "count_all")]).column("count_all")
    return untrusted_ties(source.key) if pc.max(shared).as_py() > MAX_TIES else None


def _between(rows: pa.Table, source: SourceSpec, plan: SourcePlan) -> pa.Table:
    if source.cursor is None:
        return rows
    values = rows.column(source.cursor.column)
    if plan.lo is not None:
        rows = rows.filter(pc.greater_equal(values, _scalar(plan.lo, values.type)))
        values = rows.column(source.cursor.column)
    if plan.hi is not None:
        rows = rows.filter(pc.less(values, _scalar(plan.hi, values.type)))
    return rows


def _streams(
    rows: pa.Table, source: SourceSpec, kinds: dict[str, str], lo: str | None, hi: str | None
) -> tuple[Stream, ...]:
    assert source.partitions is not None
    column, kind = source.partitions.column, check_column(source.partitions, kinds)
    bounded = _between(rows, source, SourcePlan(columns=(), streams=(), ordered=True, lo=lo, hi=hi))
    found = pc.min_max(bounded.column(column))
    low, high = (pc.cast(found[end], pa.string()).as_py() for end in ("min", "max"))
    return ranges(source.partitions, kind, low, high)


def _within(rows: pa.Table, plan: SourcePlan, stream: Stream) -> pa.Table:
    if plan.partition is None:
        return rows
    values = rows.column(plan.partition)
    if stream.upper is not None:
        below = pc.less(values, _scalar(stream.upper, values.type))
        rows = rows.filter(pc.fill_null(below, stream.lower is None))
        values = rows.column(plan.partition)
    if stream.lower is not None:
        rows = rows.filter(pc.greater_equal(values, _scalar(stream.lower, values.type)))
    return rows


def _scalar(text: str, kind: pa.DataType) -> pa.Scalar:
    if pa.types.is_timestamp(kind):
        moment = datetime.fromisoformat(text)
        if kind.tz and moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return pa.scalar(moment, kind)
    return pc.cast(pa.scalar(text), kind)
