"""IDataStore in memory: the first row of every suite, so that the double keeps the same promises."""

import asyncio
import copy
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from domain.errors import (
    ConflictError,
    FencedError,
    InvalidInputError,
    NotFoundError,
    QualityRejectedError,
    SchemaMismatchError,
    StoreUnavailableError,
)
from domain.failpoints import fail_at
from domain.pipelines.checkpoint import CheckpointUpdate, LaneState, Position, StreamState, merge_stats
from domain.pipelines.quality import Measures
from domain.pipelines.read_set import Lane, ReadSet, SourcePlan, Stream
from domain.pipelines.spec import Mode, SourceSpec
from domain.pipelines.table import LOADED_AT, RUN_ID, Column, TableName, TableSchema
from domain.ports.data_store import (
    Batch,
    IDataStore,
    IOwner,
    IReader,
    IWriter,
    Judge,
    JudgedBatch,
    Publication,
    SourceBatch,
    StoreHealth,
    Target,
)
from infrastructure.arrow import arrow_type, columns_of, conform, to_table
from infrastructure.stores.cursors import integer_end, is_integer_cursor, position_after, time_end


@dataclass
class _Content:
    """Everything the store holds; a transaction works on a copy and puts it in place when it ends well."""

    tables: dict[str, tuple[tuple[Column, ...], pa.Table]] = field(default_factory=dict)
    lanes: dict[Lane, LaneState] = field(default_factory=dict)
    quarantine: list[dict[str, Any]] = field(default_factory=list)
    owners: dict[str, dict[tuple[str, str], str]] = field(default_factory=dict)


class InMemoryDataStore(IDataStore):
    """Tables as Arrow data; one transaction at a time, published copy-on-write. Content lives until the process ends."""

    def __init__(self) -> None:
        self._content = _Content()
        self._lock = asyncio.Lock()
        self._is_open = False

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

    async def describe(self, table: TableName) -> TableSchema | None:
        found = self._content.tables.get(str(table))
        return TableSchema(table, found[0]) if found else None

    async def read(self, source: SourceSpec, *, batch_rows: int) -> AsyncIterator[Batch]:
        rows = self._rows(source)
        for start in range(0, rows.num_rows, batch_rows):
            yield rows.slice(start, batch_rows)

    async def write(self, table: TableName, batches: Sequence[Batch]) -> int:
        tables = [to_table(batch) for batch in batches]
        async with self.transaction() as content:
            if str(table) not in content.tables:
                _create(content, table, columns_of(tables[0].schema))
            for rows in tables:
                _append(content, table, rows)
        return sum(rows.num_rows for rows in tables)

    async def plan(self, source: SourceSpec, *, lo: str | None, limit: int | None) -> SourcePlan:
        rows = self._rows(source)
        columns = columns_of(rows.schema) if source.table is None else self._content.tables[str(source.table)][0]
        kinds = {column.name: column.type for column in columns}
        for name in source.order:
            if name not in kinds:
                raise InvalidInputError(f"The source has no column {name}.", code="source.column_missing")
        hi = self._end_of(source, rows, kinds, lo, limit) if source.cursor else None
        return SourcePlan(
            columns=tuple((column.name, column.type) for column in columns),
            streams=(Stream("0"),),
            ordered=bool(source.order),
            order=source.order,
            lo=lo,
            hi=hi,
            limit=None if source.cursor else limit,
        )

    def _end_of(
        self, source: SourceSpec, rows: pa.Table, kinds: dict[str, str], lo: str | None, limit: int | None
    ) -> str:
        assert source.cursor is not None
        name = source.cursor.column
        values = rows.column(name)
        is_integer = is_integer_cursor(source.cursor, kinds[name])
        if values.null_count:
            raise InvalidInputError(f"The cursor column {name} holds NULL.", code="cursor.null")
        if is_integer:
            hi = integer_end(pc.max(values).as_py(), source.cursor, lo)
        else:
            hi = time_end(datetime.now(UTC), source.cursor, kinds[name])
            hi = hi if lo is None else max(hi, lo)
        if limit is not None:
            plan = SourcePlan(columns=(), streams=(), ordered=True, order=(name,), lo=lo, hi=hi)
            ordered = _between(rows, source, plan).sort_by(name).column(name)
            if limit < len(ordered):
                hi = str(pc.cast(ordered.slice(limit, 1), pa.string())[0])
        return hi

    async def count(self, source: SourceSpec, plan: SourcePlan) -> int:
        rows = int(_between(self._rows(source), source, plan).num_rows)
        return min(rows, plan.limit) if plan.limit is not None else rows

    async def lane_state(self, lane: Lane, table: TableName) -> LaneState:
        return self._content.lanes.get(lane, LaneState(state="idle", fence=0))

    @asynccontextmanager
    async def owner(self, lane: Lane, table: TableName, fence: int) -> AsyncIterator[IOwner]:
        yield InMemoryOwner(self, lane, table, fence)

    @asynccontextmanager
    async def reader(
        self, source: SourceSpec, plan: SourcePlan, stream: Stream, *, batch_rows: int
    ) -> AsyncIterator[IReader]:
        yield InMemoryReader(_between(self._rows(source), source, plan), plan, batch_rows)

    @asynccontextmanager
    async def writer(
        self, lane: Lane, target: Target, read_set_id: str, stream: str, fence: int
    ) -> AsyncIterator[IWriter]:
        yield InMemoryWriter(self, lane, target, read_set_id, stream, fence)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[_Content]:
        """Hand out a copy of the content and put it in place if the block ends well."""
        if not self._is_open:
            raise StoreUnavailableError("The in-memory store is not open.")
        async with self._lock:
            content = _Content(
                tables=dict(self._content.tables),
                lanes=dict(self._content.lanes),
                quarantine=list(self._content.quarantine),
                owners=copy.deepcopy(self._content.owners),
            )
            yield content
            self._content = content

    @property
    def quarantine(self) -> Sequence[dict[str, Any]]:
        """The refused rows, oldest first."""
        return tuple(self._content.quarantine)

    def _rows(self, source: SourceSpec) -> pa.Table:
        if not self._is_open:
            raise StoreUnavailableError("The in-memory store is not open.")
        if source.table is None:
            raise InvalidInputError("An in-memory source names a table; it has no queries.", code="source.kind")
        found = self._content.tables.get(str(source.table))
        if found is None:
            raise NotFoundError(f"There is no table {source.table}.", code="table.not_found")
        return found[1]


class InMemoryReader(IReader):
    """Reads the rows as they were when the reader was made."""

    def __init__(self, rows: pa.Table, plan: SourcePlan, batch_rows: int) -> None:
        self._rows = rows
        self._plan = plan
        self._batch_rows = batch_rows

    async def batches(self, after: Position | None, *, limit: int | None = None) -> AsyncIterator[SourceBatch]:
        rows, order = self._rows, self._plan.order
        if order:
            rows = rows.sort_by([(name, "ascending") for name in order])
        if after is not None:
            rows = rows.filter(_strictly_after(rows, order, after))
        rows = rows if limit is None else rows.slice(0, limit)
        for start in range(0, rows.num_rows, self._batch_rows):
            fail_at("extract.mid_page")
            batch = rows.slice(start, self._batch_rows)
            yield SourceBatch(batch, position_after(batch, order) if order else None)
            await asyncio.sleep(0)


class InMemoryWriter(IWriter):
    """Commits batches into a copy of the content."""

    def __init__(
        self, store: InMemoryDataStore, lane: Lane, target: Target, read_set_id: str, stream: str, fence: int
    ) -> None:
        self._store = store
        self._lane = lane
        self._target = target
        self._read_set_id = read_set_id
        self._stream = stream
        self._fence = fence

    async def commit(self, batch: JudgedBatch, checkpoint: CheckpointUpdate) -> None:
        fail_at("batch.before_begin")
        async with self._store.transaction() as content:
            self._advance(content, checkpoint)
            fail_at("batch.after_checkpoint")
            target = self._target
            landing = target.table.beside(target.shadow) if target.shadow else target.table
            rows = to_table(batch.accepted)
            if target.metadata_columns:
                if target.shadow is None:
                    now = pa.scalar(datetime.now(UTC), pa.timestamp("us", "UTC"))
                    rows = rows.append_column(LOADED_AT, pa.repeat(now, rows.num_rows))
                rows = rows.append_column(RUN_ID, pa.repeat(target.run_id, rows.num_rows))
            if rows.num_rows:
                _append(content, landing, rows)
            fail_at("batch.mid_rows")
            for record in to_table(batch.refused).to_pylist():
                place = {
                    "org": self._lane.organization,
                    "pipeline": self._lane.pipeline,
                    "lane": self._lane.name,
                    "read_set": self._read_set_id,
                    "stream": self._stream,
                    "seq": checkpoint.seq,
                }
                content.quarantine.append({**record, **place, "target": str(target.table), "run_id": target.run_id})
            fail_at("batch.before_commit")
        fail_at("batch.commit_sent")
        fail_at("batch.after_commit")

    def _advance(self, content: _Content, checkpoint: CheckpointUpdate) -> None:
        lane = content.lanes.get(self._lane)
        stream = next((s for s in lane.streams if s.stream == self._stream), None) if lane else None
        is_mine = lane is not None and lane.fence == self._fence and lane.read_set_id == self._read_set_id
        if lane is None or stream is None or not is_mine or stream.state != "loading":
            raise FencedError(f"Stream {self._stream} of {self._lane} belongs to a newer owner; nothing was written.")
        if stream.seq != checkpoint.seq - 1:
            raise FencedError(f"Stream {self._stream} of {self._lane} is at batch {stream.seq}; nothing was written.")
        moved = StreamState(
            stream=self._stream,
            seq=checkpoint.seq,
            position=checkpoint.position,
            state="done" if checkpoint.is_last else "loading",
            counts=checkpoint.counts,
            stats=dict(checkpoint.stats),
        )
        streams = tuple(moved if s.stream == self._stream else s for s in lane.streams)
        content.lanes[self._lane] = replace(lane, streams=streams)


class InMemoryOwner(IOwner):
    """Owns a lane of the in-memory store."""

    def __init__(self, store: InMemoryDataStore, lane: Lane, table: TableName, fence: int) -> None:
        self._store = store
        self._lane = lane
        self._table = table
        self._fence = fence

    async def take_over(self) -> LaneState:
        async with self._store.transaction() as content:
            lane = content.lanes.get(self._lane, LaneState(state="idle", fence=0))
            if lane.fence > self._fence:
                raise FencedError(f"The lane {self._lane} has been taken over.", fence=lane.fence)
            streams = tuple(replace(s, state="loading") if s.state == "sealed" else s for s in lane.streams)
            lane = replace(lane, fence=self._fence, streams=streams)
            content.lanes[self._lane] = lane
        fail_at("dest.after_fence")
        return lane

    async def open_read_set(self, read_set: ReadSet, target: Target) -> None:
        async with self._store.transaction() as content:
            lane = self._mine(content)
            self._claim_table(content, target)
            _drop_stage(content, self._table, lane)
            content.quarantine = [
                row
                for row in content.quarantine
                if (row["org"], row["pipeline"], row["read_set"])
                != (self._lane.organization, self._lane.pipeline, read_set.id)
            ]
            columns = list(target.columns)
            if target.metadata_columns:
                columns += [Column(LOADED_AT, "timestamptz"), Column(RUN_ID, "uuid")]
            existing = content.tables.get(str(target.table))
            if existing is not None and not target.replaces:
                known = {column.name for column in existing[0]}
                missing = [column.name for column in columns if column.name not in known]
                if missing:
                    raise SchemaMismatchError(f"The table {target.table} has no column named {', '.join(missing)}.")
            if existing is None and not target.replaces:
                _create(content, target.table, columns)
            if target.shadow:
                kinds = {column.name: column for column in existing[0]} if existing else {}
                staged = [kinds.get(column.name, column) for column in columns if column.name != LOADED_AT]
                _create(content, target.table.beside(target.shadow), staged)
            content.lanes[self._lane] = replace(
                lane,
                state="loading",
                read_set_id=read_set.id,
                stats={"read_set": read_set.to_json(), "fingerprint": read_set.fingerprint},
                streams=tuple(StreamState(stream.name) for stream in read_set.plan.streams),
            )

    async def publish(
        self, read_set: ReadSet, target: Target, uniques: Sequence[tuple[str, ...]], judge: Judge
    ) -> Publication:
        async with self._store.transaction() as content:
            lane = self._mine(content)
            if lane.read_set_id != read_set.id or not lane.is_loading:
                raise FencedError(f"The read set {read_set.id} is not open any more.")
            if not all(stream.is_done for stream in lane.streams):
                raise ConflictError("The read set is not finished.", code="run.unfinished")
            stats: dict[str, Any] = {}
            for stream in lane.streams:
                stats = merge_stats(stats, stream.stats)
            judgement = judge(
                Measures(
                    counts=lane.counts,
                    violations=stats.get("violations", {}),
                    nulls=stats.get("nulls", {}),
                    duplicates={columns: _duplicates(content, target, columns) for columns in uniques},
                    expected={int(index): count for index, count in (read_set.expected or {}).items()},
                )
            )
            if judgement.rejected:
                first = judgement.rejected[0]
                raise QualityRejectedError(
                    f"The rule {first.rule} failed ({first.violations} violations, value {first.value}); "
                    "nothing of the run was published."
                )
            fail_at("publish.before_swap")
            if target.shadow:
                _publish_stage(content, target)
            fail_at("publish.after_swap")
            kept = {
                "fingerprint": read_set.fingerprint,
                "verdicts": [vars(result) for result in judgement.results],
                "stats": stats,
            }
            watermark = read_set.plan.hi if read_set.plan.hi is not None else lane.watermark
            content.lanes[self._lane] = replace(lane, state="idle", watermark=watermark, stats=kept)
            fail_at("publish.before_commit")
        fail_at("publish.after_commit")
        return Publication(judgement=judgement, counts=lane.counts, stats=stats)

    async def seal(self) -> None:
        async with self._store.transaction() as content:
            lane = self._mine(content)
            streams = tuple(replace(s, state="sealed") if s.state == "loading" else s for s in lane.streams)
            content.lanes[self._lane] = replace(lane, streams=streams)
        fail_at("seal.after_fence")

    async def reset(self, watermark: str | None) -> None:
        async with self._store.transaction() as content:
            lane = self._mine(content)
            _drop_stage(content, self._table, lane)
            content.lanes[self._lane] = LaneState(state="idle", fence=lane.fence, watermark=watermark)

    async def release(self) -> None:
        await self.reset(None)
        async with self._store.transaction() as content:
            owners = content.owners.get(str(self._table), {})
            owners.pop((self._lane.organization, self._lane.pipeline), None)

    def _mine(self, content: _Content) -> LaneState:
        lane = content.lanes.get(self._lane)
        if lane is None or lane.fence != self._fence:
            raise FencedError(f"The lane {self._lane} has been taken over by a newer owner.")
        return lane

    def _claim_table(self, content: _Content, target: Target) -> None:
        owners = content.owners.setdefault(str(target.table), {})
        mine = (self._lane.organization, self._lane.pipeline)
        for (organization, pipeline), mode in owners.items():
            is_other = (organization, pipeline) != mine
            if is_other and (mode == Mode.REPLACE or target.replaces):
                raise ConflictError(
                    f"The table {target.table} is written by another pipeline ({pipeline}), and a table that is "
                    "replaced has one writer only.",
                    code="destination.owned",
                )
        owners[mine] = target.mode.value


def _create(content: _Content, table: TableName, columns: Sequence[Column]) -> None:
    schema = pa.schema([(column.name, arrow_type(column.type)) for column in columns])
    content.tables[str(table)] = (tuple(columns), schema.empty_table())


def _append(content: _Content, table: TableName, rows: pa.Table) -> None:
    if str(table) not in content.tables:
        raise SchemaMismatchError(f"The table {table} is gone.", code="destination.missing")
    columns, existing = content.tables[str(table)]
    content.tables[str(table)] = (columns, pa.concat_tables([existing, conform(rows, columns)]))


def _drop_stage(content: _Content, table: TableName, lane: LaneState) -> None:
    shadow = (lane.stats.get("read_set") or {}).get("shadow")
    if shadow:
        content.tables.pop(str(table.beside(shadow)), None)


def _publish_stage(content: _Content, target: Target) -> None:
    assert target.shadow is not None
    columns, rows = content.tables.pop(str(target.table.beside(target.shadow)))
    if target.metadata_columns:
        now = pa.scalar(datetime.now(UTC), pa.timestamp("us", "UTC"))
        rows = rows.append_column(LOADED_AT, pa.repeat(now, rows.num_rows))
        columns = (*columns, Column(LOADED_AT, "timestamptz"))
    if target.replaces:
        content.tables[str(target.table)] = (columns, rows)
    else:
        _append(content, target.table, rows)


def _duplicates(content: _Content, target: Target, columns: tuple[str, ...]) -> int:
    assert target.shadow is not None
    rows = content.tables[str(target.table.beside(target.shadow))][1]
    groups = rows.group_by(list(columns)).aggregate([])
    return int(rows.num_rows - groups.num_rows)


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


def _strictly_after(rows: pa.Table, order: Sequence[str], after: Position) -> pa.ChunkedArray:
    """(a, b) > (x, y), as SQL compares rows."""
    result = None
    for name, text in reversed(list(zip(order, after, strict=True))):
        values = rows.column(name)
        bound = _scalar(text, values.type)
        greater = pc.greater(values, bound)
        result = greater if result is None else pc.or_(greater, pc.and_(pc.equal(values, bound), result))
    return result


def _scalar(text: str, kind: pa.DataType) -> pa.Scalar:
    if pa.types.is_timestamp(kind):
        moment = datetime.fromisoformat(text)
        if kind.tz and moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return pa.scalar(moment, kind)
    return pc.cast(pa.scalar(text), kind)
