"""The fence, the checkpoint and the publication in memory: the same promises as in SQL, without a database."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Protocol

import pyarrow as pa

from domain.errors import ConflictError, FencedError, NotFoundError
from domain.failpoints import fail_at
from domain.loads.checkpoint import CheckpointUpdate, LaneState, Merged, StreamState
from domain.loads.publication import Finished, refuse_rejected
from domain.loads.quarantine import RefusedState
from domain.loads.read_set import ReadSet
from domain.ports.data_store import Committed, IOwner, IWriter, Judge, JudgedBatch, Publication, Target
from domain.quality.measures import Counts, merge_stats
from domain.quality.rules import Reference, StagedChecks
from domain.runs.lane import Lane
from domain.stores.table import DELETED, LOADED_AT, RUN_ID, SEQ, Column, TableName
from infrastructure.stores.landing import (
    landed_columns,
    landing_of,
    leftovers,
    nothing_merged,
    opened_stats,
    places_of,
    refuse_second_writer,
    staged_columns,
)
from infrastructure.stores.landing_watch import LandingWatch
from infrastructure.stores.lane_tokens import check_above, new_token
from infrastructure.stores.memory.content import Content, append_rows, create_table, merge_rows, merge_stage
from infrastructure.stores.memory.quarantine import mark_repaired, move_refused, note_read_again, settle_refused
from infrastructure.stores.replayed import repaired_places
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
        self._fence = (fence, token)
        self._landing = landing_of(target)
        self._watch = LandingWatch(self._landing, may_be_emptied=target.deletes)

    async def commit(self, batch: JudgedBatch, checkpoint: CheckpointUpdate) -> Committed:
        fail_at("batch.before_begin")
        async with self._store.transaction() as content:
            self._advance(content, checkpoint)
            fail_at("batch.after_checkpoint")
            target = self._target
            rows = to_table(batch.accepted)
            merged = self._land(content, rows, checkpoint.seq) if rows.num_rows else nothing_merged(target)
            if merged is not None:
                self._put(content, checkpoint.with_merged(merged))
            fail_at("batch.mid_rows")
            note_read_again(content, self._lane, target, self._read_set_id, batch.source)
            if batch.origins is not None:
                mark_repaired(content, self._lane, target.run_id, repaired_places(batch))
            for record in to_table(batch.refused).to_pylist() if batch.origins is None else ():
                place = {
                    "org": self._lane.organization,
                    "pipeline": self._lane.pipeline,
                    "lane": self._lane.name,
                    "read_set": self._read_set_id,
                    "stream": self._stream,
                    "seq": checkpoint.seq,
                }
                fate = {"state": RefusedState.WAITING, "settled_by": None, "refused_at": datetime.now(UTC)}
                known = {"target": str(target.table), "run_id": target.run_id}
                content.quarantine.append({**record, **place, **known, **fate})
            fail_at("batch.before_commit")
            is_filled = _is_filled(content, self._landing)
        fail_at("batch.commit_sent")
        fail_at("batch.after_commit")
        self._watch.was_filled = is_filled
        return Committed(merged=merged)

    def _land(self, content: Content, rows: pa.Table, seq: int) -> Merged | None:
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
        if target.merges and target.shadow is None:
            return merge_rows(content, target, rows)
        append_rows(content, self._landing, rows)
        return None

    def _advance(self, content: Content, checkpoint: CheckpointUpdate) -> None:
        lane = content.lanes.get(self._lane)
        stream = next((s for s in lane.streams if s.stream == self._stream), None) if lane else None
        fence = (lane.fence, lane.token) if lane else None
        is_mine = lane is not None and fence == self._fence and lane.read_set_id == self._read_set_id
        if lane is None or stream is None or not is_mine or stream.state != "loading":
            raise FencedError(f"Stream {self._stream} of {self._lane} belongs to a newer owner; nothing was written.")
        if stream.seq != checkpoint.seq - 1:
            raise FencedError(f"Stream {self._stream} of {self._lane} is at batch {stream.seq}; nothing was written.")
        self._put(content, checkpoint)

    def _put(self, content: Content, checkpoint: CheckpointUpdate) -> None:
        lane = content.lanes[self._lane]
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

    def __init__(self, store: Transactional, lane: Lane, table: TableName, fence: int, token: str | None) -> None:
        self._store = store
        self._lane = lane
        self._table = table
        self._fence = fence
        self._token = token

    async def take_over(self) -> LaneState:
        async with self._store.transaction() as content:
            lane = content.lanes.get(self._lane, LaneState(state="idle", fence=0))
            check_above(lane, self._lane, self._fence, self._token)
            streams = tuple(replace(s, state="loading") if s.state == "sealed" else s for s in lane.streams)
            lane = replace(lane, fence=self._fence, token=new_token(), streams=streams)
            content.lanes[self._lane] = lane
        self._token = lane.token
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
            opened = content.lanes[self._lane] = replace(
                lane,
                state="loading",
                read_set_id=read_set.id,
                stats=opened_stats(read_set, target, lane, is_new=is_new),
                streams=tuple(StreamState(stream.name) for stream in read_set.plan.streams),
                generation=lane.generation + 1,
            )
            return opened

    async def fit(self, target: Target) -> None:
        async with self._store.transaction() as content:
            self._mine(content)
            _fit(content, target)

    async def publish(self, read_set: ReadSet, target: Target, checks: StagedChecks, judge: Judge) -> Publication:
        async with self._store.transaction() as content:
            lane = self._mine(content)
            finished = Finished.of(read_set, lane)
            if lane.counts.produced:
                watch = LandingWatch(landing_of(target), may_be_emptied=target.deletes, was_filled=True)
                watch.check(None, lambda _: False, lambda: _is_filled(content, landing_of(target)))
            judgement = judge(
                finished.measures(
                    {columns: _duplicates(content, target, columns) for columns in checks.duplicates},
                    {reference: _dangling(content, target, reference) for reference in checks.references},
                )
            )
            refuse_rejected(judgement)
            fail_at("publish.before_swap")
            counts, stats = _put_in_place(content, target, lane.counts, dict(finished.stats))
            fail_at("publish.after_swap")
            settle_refused(content, self._lane, target, read_set)
            kept, watermark = finished.kept(judgement, stats), finished.watermark
            content.lanes[self._lane] = replace(
                lane, state="idle", watermark=watermark, stats=kept, generation=lane.generation + 1
            )
            fail_at("publish.before_commit")
        fail_at("publish.after_commit")
        return Publication(judgement=judgement, counts=counts, stats=stats)

    async def seal(self) -> None:
        async with self._store.transaction() as content:
            lane = self._mine(content)
            streams = tuple(replace(s, state="sealed") if s.state == "loading" else s for s in lane.streams)
            content.lanes[self._lane] = replace(lane, streams=streams)
            self._drop_leftovers(content, lane)
        fail_at("seal.after_fence")

    def _drop_leftovers(self, content: Content, lane: LaneState) -> None:
        left, name = leftovers(lane), str(self._table)
        if left.stage is not None:
            content.tables.pop(str(self._table.beside(left.stage)), None)
        owners = content.owners.get(name, {})
        is_ours = all(owner == (self._lane.organization, self._lane.pipeline) for owner in owners)
        if left.has_made_table and is_ours and name in content.tables and not content.tables[name][1].num_rows:
            del content.tables[name]

    async def reset(self, watermark: str | None) -> None:
        async with self._store.transaction() as content:
            lane = self._mine(content)
            _drop_stage(content, self._table, lane)
            move_refused(content, self._lane, RefusedState.WAITING, RefusedState.ABANDONED)
            content.lanes[self._lane] = LaneState(
                state="idle",
                fence=lane.fence,
                token=lane.token,
                watermark=watermark,
                generation=lane.generation + 1,
            )

    async def release(self) -> None:
        await self.reset(None)
        async with self._store.transaction() as content:
            mine = (self._lane.organization, self._lane.pipeline)
            owners = content.owners.get(str(self._table), {})
            content.owners[str(self._table)] = {owner: mode for owner, mode in owners.items() if owner != mine}

    async def discard(self) -> None:
        async with self._store.transaction() as content:
            lane = self._mine(content)
            mine = (self._lane.organization, self._lane.pipeline)
            owners = content.owners.pop(str(self._table), {})
            if set(owners) - {mine}:
                raise ConflictError(f"The table {self._table} has another writer.", code="destination.owned")
            _drop_stage(content, self._table, lane)
            if owners:
                content.tables.pop(str(self._table), None)
            del content.lanes[self._lane]
            content.quarantine = [row for row in content.quarantine if (row["org"], row["pipeline"]) != mine]

    def _mine(self, content: Content) -> LaneState:
        lane = content.lanes.get(self._lane)
        if lane is None or (lane.fence, lane.token) != (self._fence, self._token):
            fence = lane.fence if lane else None
            raise FencedError(f"The lane {self._lane} has been taken over by a newer owner.", fence=fence)
        return lane

    def _claim_table(self, content: Content, target: Target) -> None:
        owners = content.owners.get(str(target.table), {})
        mine = (self._lane.organization, self._lane.pipeline)
        refuse_second_writer(target, self._lane, ((*writer, mode) for writer, mode in owners.items()))
        content.owners[str(target.table)] = {**owners, mine: target.mode.value}


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
    return pa.scalar(datetime.now(UTC), pa.timestamp("us", "UTC"))


def _drop_stage(content: Content, table: TableName, lane: LaneState) -> None:
    shadow = (lane.stats.get("read_set") or {}).get("shadow")
    if shadow:
        content.tables.pop(str(table.beside(shadow)), None)


def _put_in_place(
    content: Content, target: Target, counts: Counts, stats: dict[str, Any]
) -> tuple[Counts, dict[str, Any]]:
    """Move what is staged into the table; return the counts and measures with what that did."""
    if target.rebuilds:
        content.tables.pop(str(target.table), None)
    if not target.shadow:
        return counts, stats
    _fit(content, replace(target, shadow=None, rebuilds=False))
    if not target.merges:
        _publish_stage(content, target)
        return counts, stats
    if target.delete_missing is not None and counts.quarantined + counts.failed:
        target = replace(target, delete_missing=None)
        stats["delete_missing"] = "skipped: rows were refused, and their keys are not missing"
    merged = merge_stage(content, target)
    return counts + merged.counts, merge_stats(stats, merged.stats)


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
