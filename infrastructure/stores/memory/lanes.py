"""The fence, the checkpoint and the publication in memory: the same promises as in SQL, without a database."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Protocol

import pyarrow as pa

from domain.errors import NotFoundError
from domain.failpoints import fail_at
from domain.loads.checkpoint import IDLE, CheckpointUpdate, LaneState, Merged
from domain.loads.fencing import Ownership, Standing, StreamOwnership
from domain.loads.landing_watch import LandingWatch
from domain.loads.publication import (
    MISSING_UNKNOWN,
    Finished,
    TableWriter,
    forgotten,
    leftovers,
    opened,
    refuse_discard,
    refuse_rejected,
    refuse_second_writer,
    sealed,
    taken_over,
)
from domain.loads.quarantine import RefusedState
from domain.loads.read_set import ReadSet
from domain.pipelines.spec import Mode
from domain.ports.data_store import Committed, IOwner, IWriter, Judge, JudgedBatch, Publication, Target
from domain.quality.measures import Counts, Measures
from domain.quality.rules import Reference, StagedChecks
from domain.runs.lane import Lane
from domain.stores.table import DELETED, LOADED_AT, RUN_ID, SEQ, Column, TableName
from infrastructure.clock import utc_now
from infrastructure.stores.landing import (
    landed_columns,
    landing_of,
    nothing_merged,
    places_of,
    staged_columns,
)
from infrastructure.stores.lane_tokens import new_token
from infrastructure.stores.memory.content import Content, append_rows, create_table, merge_rows, merge_stage
from infrastructure.stores.memory.quarantine import (
    mark_repaired,
    merge_replayed,
    move_refused,
    note_read_again,
    open_places,
    settle_overtaken,
    settle_refused,
)
from infrastructure.stores.overtaken import Deletions
from infrastructure.stores.replayed import repaired_places, still_open
from infrastructure.tabular.arrow import arrow_type, to_table


class Transactional(Protocol):
    """What owner and writer need of the store."""

    def transaction(self) -> AbstractAsyncContextManager[Content]:
        """Hand out a copy of the content, put in place if the block ends well."""


class InMemoryWriter(IWriter):
    """Commits batches into a copy of the content."""

    def __init__(
        self, store: Transactional, lane: Lane, target: Target, read_set_id: str, stream: str, fence: int, token: str
    ) -> None:
        self._store = store
        self._lane = lane
        self._target = target
        self._read_set_id = read_set_id
        self._stream = stream
        self._ownership = StreamOwnership(lane, stream, read_set_id, fence, token)
        self._landing = landing_of(target)
        self._watch = LandingWatch(self._landing, may_be_emptied=target.deletes)

    async def commit(self, batch: JudgedBatch, checkpoint: CheckpointUpdate) -> Committed:
        fail_at("batch.before_begin")
        async with self._store.transaction() as content:
            self._advance(content, checkpoint)
            fail_at("batch.after_checkpoint")
            target, taken = self._target, None
            if batch.origins is not None:
                batch, taken = still_open(batch, open_places(content, self._lane), target)
            rows = to_table(batch.accepted)
            merged = self._land(content, rows, checkpoint.seq, batch) if rows.num_rows else nothing_merged(target)
            merged = merged + taken if merged is not None and taken is not None else merged or taken
            if merged is not None:
                self._put(content, checkpoint.with_merged(merged))
            fail_at("batch.mid_rows")
            if batch.origins is None:
                self._put_aside(content, batch, checkpoint.seq)
                note_read_again(content, self._lane, target, self._read_set_id, batch.source)
            elif not (target.merges and rows.num_rows):  # Else that was done with the merge.
                mark_repaired(content, self._lane, target.run_id, repaired_places(batch))
            fail_at("batch.before_commit")
            is_filled = _is_filled(content, self._landing)
        fail_at("batch.commit_sent")
        fail_at("batch.after_commit")
        self._watch.was_filled = is_filled
        return Committed(merged=merged)

    def _put_aside(self, content: Content, batch: JudgedBatch, seq: int) -> None:
        target, lane = self._target, self._lane
        place = {
            "org": lane.organization,
            "pipeline": lane.pipeline,
            "lane": lane.name,
            "read_set": self._read_set_id,
            "stream": self._stream,
            "seq": seq,
        }
        known = {"target": str(target.table), "run_id": target.run_id, "refused_at": utc_now()}
        fates = settle_overtaken(content, lane, target, self._read_set_id, batch)
        for record, fate in zip(to_table(batch.refused).to_pylist(), fates, strict=True):
            content.quarantine.append({**record, **place, **known, **fate})

    def _land(self, content: Content, rows: pa.Table, seq: int, batch: JudgedBatch) -> Merged | None:
        target = self._target
        if str(self._landing) in content.tables:  # A table that is gone has an error of its own.
            self._watch.check(None, lambda _: False, lambda: _is_filled(content, self._landing))
        deleted = rows.column(DELETED) if target.deletes else None
        rows = rows.select([column.name for column in target.columns])
        if target.metadata_columns:
            if target.shadow is None:
                rows = rows.append_column(LOADED_AT, pa.repeat(_now(), rows.num_rows))
            rows = rows.append_column(RUN_ID, pa.repeat(target.run_id, rows.num_rows))
        if target.merges and target.shadow:
            rows = rows.append_column(SEQ, places_of(seq, rows.num_rows))
        if deleted is not None:
            rows = rows.append_column(DELETED, deleted)
        if target.merges and target.shadow is None and batch.origins is not None:
            return merge_replayed(content, self._lane, target, rows, batch)
        if target.merges and target.shadow is None:
            return merge_rows(content, target, rows)
        append_rows(content, self._landing, rows)
        return None

    def _advance(self, content: Content, checkpoint: CheckpointUpdate) -> None:
        lane = content.lanes.get(self._lane)
        stream = next((s for s in lane.streams if s.stream == self._stream), None) if lane else None
        if lane is None or stream is None:
            raise self._ownership.fenced()
        found = Standing(lane.fence, lane.token, lane.read_set_id, stream.seq, stream.state)
        if found != self._ownership.before(checkpoint):
            raise self._ownership.fenced()
        self._put(content, checkpoint)

    def _put(self, content: Content, checkpoint: CheckpointUpdate) -> None:
        lane = content.lanes[self._lane]
        moved = checkpoint.moved(self._stream)
        streams = tuple(moved if s.stream == self._stream else s for s in lane.streams)
        content.lanes[self._lane] = replace(lane, streams=streams)


class InMemoryOwner(IOwner):
    """Owns a lane of the in-memory store."""

    def __init__(self, store: Transactional, lane: Lane, table: TableName, fence: int, token: str | None) -> None:
        self._store = store
        self._lane = lane
        self._table = table
        self._ownership = Ownership(lane, fence, token)

    async def take_over(self) -> LaneState:
        async with self._store.transaction() as content:
            lane = content.lanes.get(self._lane, LaneState(state=IDLE, fence=0))
            self._ownership.check_above(lane)
            lane = content.lanes[self._lane] = taken_over(lane, self._ownership.fence, new_token())
        self._ownership = replace(self._ownership, token=lane.token)
        fail_at("dest.after_fence")
        return lane

    async def open_read_set(self, read_set: ReadSet, target: Target) -> LaneState:
        async with self._store.transaction() as content:
            lane = self._mine(content)
            self._claim_table(content, target)
            _drop_stage(content, self._table, lane)
            if lane.read_set_id != read_set.id:
                move_refused(content, self._lane, RefusedState.WAITING, RefusedState.ABANDONED)
            content.quarantine = [
                row
                for row in content.quarantine
                if (row["org"], row["pipeline"], row["read_set"])
                != (self._lane.organization, self._lane.pipeline, read_set.id)
            ]
            is_new = str(target.table) not in content.tables
            _fit(content, target)
            if target.shadow:
                existing = content.tables.get(str(target.table)) if not target.rebuilds else None
                kinds = {column.name: column for column in existing[0]} if existing else {}
                staged = [kinds.get(column.name, column) for column in staged_columns(target)]
                create_table(content, target.table.beside(target.shadow), staged)
            lane = opened(lane, read_set, makes_table=is_new and target.shadow is None, noted=None)
            content.lanes[self._lane] = lane
            return lane

    async def fit(self, target: Target) -> None:
        async with self._store.transaction() as content:
            self._mine(content)
            _fit(content, target)
            self._note_deletions(content, target)

    async def publish(self, read_set: ReadSet, target: Target, checks: StagedChecks, judge: Judge) -> Publication:
        async with self._store.transaction() as content:
            lane = self._mine(content)
            finished = Finished.of(read_set, lane)
            if finished.has_landed:
                watch = LandingWatch(landing_of(target), may_be_emptied=target.deletes, was_filled=True)
                watch.check(None, lambda _: False, lambda: _is_filled(content, landing_of(target)))
            judgement = judge(
                finished.evidence(
                    {columns: _duplicates(content, target, columns) for columns in checks.duplicates},
                    {reference: _dangling(content, target, reference) for reference in checks.references},
                )
            )
            refuse_rejected(judgement)
            fail_at("publish.before_swap")
            counts, measures = _put_in_place(content, target, finished)
            fail_at("publish.after_swap")
            settle_refused(content, self._lane, target, read_set, knows_missing=finished.knows_what_is_missing)
            content.lanes[self._lane] = finished.published(judgement, measures)
            fail_at("publish.before_commit")
        fail_at("publish.after_commit")
        return Publication(judgement=judgement, counts=counts, measures=measures)

    async def seal(self) -> None:
        async with self._store.transaction() as content:
            lane = self._mine(content)
            content.lanes[self._lane] = sealed(lane)
            self._drop_leftovers(content, lane)
        fail_at("seal.after_fence")

    def _drop_leftovers(self, content: Content, lane: LaneState) -> None:
        left, name = leftovers(lane), str(self._table)
        if left.stage is not None:
            content.tables.pop(str(self._table.beside(left.stage)), None)
        is_ours = all(writer.is_of(self._lane) for writer in _writers(content, self._table))
        if left.has_made_table and is_ours and name in content.tables and not content.tables[name][1].num_rows:
            del content.tables[name]

    async def reset(self, watermark: str | None) -> None:
        async with self._store.transaction() as content:
            lane = self._mine(content)
            _drop_stage(content, self._table, lane)
            move_refused(content, self._lane, RefusedState.WAITING, RefusedState.ABANDONED)
            content.lanes[self._lane] = forgotten(lane, watermark)

    async def release(self) -> None:
        await self.reset(None)
        async with self._store.transaction() as content:
            mine = (self._lane.organization, self._lane.pipeline)
            owners = content.owners.get(str(self._table), {})
            content.owners[str(self._table)] = {owner: mode for owner, mode in owners.items() if owner != mine}
            noted = content.deletions.get(str(self._table), {})
            content.deletions[str(self._table)] = {owner: done for owner, done in noted.items() if owner != mine}

    async def discard(self) -> None:
        async with self._store.transaction() as content:
            lane = self._mine(content)
            mine = (self._lane.organization, self._lane.pipeline)
            refuse_discard(self._table, self._lane, _writers(content, self._table))
            owners = content.owners.pop(str(self._table), {})
            content.deletions.pop(str(self._table), None)
            _drop_stage(content, self._table, lane)
            if owners:
                content.tables.pop(str(self._table), None)
            del content.lanes[self._lane]
            content.quarantine = [row for row in content.quarantine if (row["org"], row["pipeline"]) != mine]

    def _mine(self, content: Content) -> LaneState:
        lane = content.lanes.get(self._lane)
        self._ownership.check_holds(*((lane.fence, lane.token) if lane else (None, None)))
        assert lane is not None
        return lane

    def _claim_table(self, content: Content, target: Target) -> None:
        owners = content.owners.get(str(target.table), {})
        mine = (self._lane.organization, self._lane.pipeline)
        wanted = TableWriter(*mine, target.replaces)
        refuse_second_writer(target.table, wanted, _writers(content, target.table))
        content.owners[str(target.table)] = {**owners, mine: target.mode.value}
        self._note_deletions(content, target)

    def _note_deletions(self, content: Content, target: Target) -> None:
        noted, mine = content.deletions.get(str(target.table), {}), (self._lane.organization, self._lane.pipeline)
        deletions = Deletions.noted(target, noted.get(mine, Deletions.NONE))
        content.deletions[str(target.table)] = {**noted, mine: deletions}


def _writers(content: Content, table: TableName) -> list[TableWriter]:
    return [TableWriter(*writer, mode == Mode.REPLACE) for writer, mode in content.owners.get(str(table), {}).items()]


def _fit(content: Content, target: Target) -> None:
    """Create the table, or add the columns that it and an open stage lack."""
    if target.shadow and str(target.table.beside(target.shadow)) in content.tables:
        _add_columns(content, target.table.beside(target.shadow), staged_columns(target))
    if target.rebuilds or (target.replaces and not target.merges):
        return
    if str(target.table) in content.tables:
        _add_columns(content, target.table, landed_columns(target))
    elif not target.shadow:
        create_table(content, target.table, landed_columns(target))


def _add_columns(content: Content, table: TableName, wanted: Sequence[Column]) -> None:
    columns, rows = content.tables[str(table)]
    known = {column.name for column in columns}
    for column in wanted:
        if column.name not in known:
            columns = (*columns, column)
            rows = rows.append_column(column.name, pa.nulls(rows.num_rows, arrow_type(column.type)))
            fail_at("ddl.between_columns")
    content.tables[str(table)] = (columns, rows)


def _is_filled(content: Content, table: TableName) -> bool:
    found = content.tables.get(str(table))
    return found is not None and found[1].num_rows > 0


def _now() -> pa.Scalar:
    return pa.scalar(utc_now(), pa.timestamp("us", "UTC"))


def _drop_stage(content: Content, table: TableName, lane: LaneState) -> None:
    shadow = lane.memory.stage
    if shadow:
        content.tables.pop(str(table.beside(shadow)), None)


def _put_in_place(content: Content, target: Target, finished: Finished) -> tuple[Counts, Measures]:
    """Move what is staged into the table; return the counts and measures with what that did."""
    counts, measures = finished.lane.counts, finished.measures
    if target.rebuilds:
        content.tables.pop(str(target.table), None)
    if not target.shadow:
        return counts, measures
    _fit(content, replace(target, shadow=None, rebuilds=False))
    if not target.merges:
        _publish_stage(content, target)
        return counts, measures
    if target.delete_missing is not None and not finished.knows_what_is_missing:
        target, measures = replace(target, delete_missing=None), replace(measures, delete_missing=MISSING_UNKNOWN)
    merged = merge_stage(content, target)
    return counts + merged.counts, measures + merged.measures


def _publish_stage(content: Content, target: Target) -> None:
    assert target.shadow is not None
    columns, rows = content.tables.pop(str(target.table.beside(target.shadow)))
    if target.metadata_columns:
        rows = rows.append_column(LOADED_AT, pa.repeat(_now(), rows.num_rows))
        columns = (*columns, Column(LOADED_AT, "timestamptz"))
    is_kept = str(target.table) in content.tables and not target.rebuilds
    if target.replaces and is_kept:
        _add_columns(content, target.table, columns)
        create_table(content, target.table, content.tables[str(target.table)][0])
    elif target.replaces:
        create_table(content, target.table, columns)
    append_rows(content, target.table, rows)


def _duplicates(content: Content, target: Target, columns: tuple[str, ...]) -> int:
    assert target.shadow is not None
    rows = content.tables[str(target.table.beside(target.shadow))][1]
    groups = rows.group_by(list(columns)).aggregate([])
    return int(rows.num_rows - groups.num_rows)


def _dangling(content: Content, target: Target, reference: Reference) -> int:
    assert target.shadow is not None
    if str(reference.table) not in content.tables:
        raise NotFoundError(f"There is no table {reference.table}.", code="table.not_found")
    known = set(content.tables[str(reference.table)][1].column(reference.other).to_pylist())
    staged = content.tables[str(target.table.beside(target.shadow))][1].column(reference.column).to_pylist()
    return sum(1 for value in staged if value is not None and value not in known)
