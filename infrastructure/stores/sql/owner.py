"""The fence, the checkpoint and the publication in SQL, written once for every SQL store (contract, M2)."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from domain.errors import ConflictError, FencedError, PlatformError
from domain.failpoints import fail_at
from domain.loads.checkpoint import HEAD, LaneState, Merged
from domain.loads.publication import Finished, refuse_rejected
from domain.loads.read_set import ReadSet
from domain.ports.data_store import IOwner, Judge, Publication, Target
from domain.quality.measures import Counts, merge_stats
from domain.quality.rules import Reference, StagedChecks
from domain.runs.lane import Lane
from domain.stores.table import LOADED_AT, TableName
from infrastructure.sql import quote, quote_table
from infrastructure.stores.landing import landed_columns, landing_of, opened_stats, refuse_second_writer
from infrastructure.stores.landing_watch import LANDED_BY, LANDING, LandingWatch
from infrastructure.stores.lane_tokens import check_above, new_token
from infrastructure.stores.sql.landed import with_landed
from infrastructure.stores.sql.lanes import KEY, read_lane_rows
from infrastructure.stores.sql.leftovers import drop_leftovers, drop_rebuilt
from infrastructure.stores.sql.merge import merge_stage, merged_names
from infrastructure.stores.sql.quarantine import abandon_refused, settle_refused
from infrastructure.stores.sql.session import (
    CHECKPOINT,
    COUNTS,
    OWNER,
    QUARANTINE,
    Session,
    create_target,
    fit_target,
    prepare_target,
)
from infrastructure.threads import OneThread


class SqlOwner(IOwner):
    """Owns a lane in a SQL store."""

    def __init__(
        self, session: Session, thread: OneThread, lane: Lane, table: TableName, fence: int, token: str | None
    ) -> None:
        self._session = session
        self._thread = thread
        self._lane = lane
        self._key = (lane.organization, lane.pipeline, lane.name)
        self._fence = fence
        self._token = token
        self._table = table
        self._checkpoint = quote_table(table.beside(CHECKPOINT))
        self._has_tables = False

    async def take_over(self) -> LaneState:
        return await self._thread.call(self._take_over)

    async def open_read_set(self, read_set: ReadSet, target: Target) -> LaneState:
        return await self._thread.call(self._open_read_set, read_set, target)

    async def fit(self, target: Target) -> None:
        await self._thread.call(self._fit, target)

    async def publish(self, read_set: ReadSet, target: Target, checks: StagedChecks, judge: Judge) -> Publication:
        return await self._thread.call(self._publish, read_set, target, checks, judge)

    async def seal(self) -> None:
        await self._thread.call(self._seal)

    async def reset(self, watermark: str | None) -> None:
        await self._thread.call(self._reset, watermark)

    async def release(self) -> None:
        await self._thread.call(self._release)

    async def discard(self) -> None:
        await self._thread.call(self._discard)

    def _take_over(self) -> LaneState:
        session = self._session
        session.run_patiently(self._lane, self._fence, self._prepare)
        self._has_tables = True
        state = session.run_locked(self._checkpoint, self._lane, self._fence, self._put_fence)
        self._token = state.token
        session.end_predecessors(self._lane, self._fence, self._checkpoint)
        fail_at("dest.after_fence")
        return state

    def _prepare(self) -> None:
        self._session.refuse_reserved(self._table)
        if not self._has_tables:
            self._session.create_internal_tables(self._table.schema)
        self._insert_head()
        # Whoever is refused need not wait until a stopped predecessor lets go of its rows.
        check_above(self._read_lane(), self._lane, self._fence, self._token)

    def _put_fence(self) -> LaneState:
        check_above(self._read_lane(), self._lane, self._fence, self._token)
        token = new_token()
        self._session.execute(
            f'UPDATE {self._checkpoint} SET "fence" = $4, "writer" = $5, '
            '"state" = CASE WHEN "state" = \'sealed\' THEN \'loading\' ELSE "state" END '
            f'WHERE {KEY} AND "fence" <= $4',
            (*self._key, self._fence, token),
        )
        return self._read_lane()

    def _read_lane(self) -> LaneState:
        return read_lane_rows(self._session, self._checkpoint, self._key)

    def _insert_head(self) -> None:
        zeros = ", ".join("0" for _ in COUNTS)
        self._session.execute(
            f'INSERT INTO {self._checkpoint} ("org", "pipeline", "lane", "stream", "fence", "seq", "state", '
            f'{", ".join(quote(name) for name in COUNTS)}, "stats") '
            f"SELECT $1, $2, $3, '{HEAD}', 0, 0, 'idle', {zeros}, '{{}}' "
            f"WHERE NOT EXISTS (SELECT 1 FROM {self._checkpoint} WHERE {KEY} AND \"stream\" = '{HEAD}')"
            + (" ON CONFLICT DO NOTHING" if self._session.enforces_keys else ""),
            self._key,
        )

    def _open_read_set(self, read_set: ReadSet, target: Target) -> LaneState:
        session = self._session
        with session.transaction():
            previous = self._lock_head()
            if not self._has_tables:
                session.create_internal_tables(self._table.schema)
            self._claim_table(target)
            self._drop_stage_of(previous.stats)
            if previous.read_set_id != read_set.id:
                abandon_refused(session, self._table, self._lane)
            existing = session.describe(target.table)
            prepare_target(session, target, existing)
            session.execute(f"DELETE FROM {self._checkpoint} WHERE {KEY} AND \"stream\" <> '{HEAD}'", self._key)
            # A restarted staging starts its quarantine again too (D9).
            session.execute(
                f'DELETE FROM {quote_table(self._table.beside(QUARANTINE))} WHERE {KEY} AND "read_set" = $4',
                (*self._key, read_set.id),
            )
            zeros = ", ".join("0" for _ in COUNTS)
            for stream in read_set.plan.streams:
                session.execute(
                    f'INSERT INTO {self._checkpoint} ("org", "pipeline", "lane", "stream", "read_set", "fence", "seq", '
                    f'"state", {", ".join(quote(name) for name in COUNTS)}, "stats", "writer") '
                    f"VALUES ($1, $2, $3, $4, $5, $6, 0, 'loading', {zeros}, '{{}}', $7)",
                    (*self._key, stream.name, read_set.id, self._fence, self._token),
                )
            stats = opened_stats(read_set, target, previous, is_new=existing is None)
            stats |= {LANDING: session.identity(landing_of(target)), LANDED_BY: [target.run_id]}
            self._update_head("loading", previous.watermark, stats, read_set_id=read_set.id)
            return self._read_lane()

    def _fit(self, target: Target) -> None:
        with self._session.transaction():
            state = self._lock_head()
            fit_target(self._session, target)
            self._note_run(state, target.run_id)

    def _note_run(self, state: LaneState, run_id: str) -> None:
        """Note that from here on another run lands rows of the open read set."""
        known = state.stats.get(LANDED_BY)
        if known is None or run_id in known:  # Of a read set that an earlier version opened not every run is known.
            return
        self._session.execute(
            f'UPDATE {self._checkpoint} SET "stats" = $4 WHERE {KEY} AND "stream" = \'{HEAD}\'',
            (*self._key, json.dumps({**state.stats, LANDED_BY: [*known, run_id]}, default=str)),
        )

    def _claim_table(self, target: Target) -> None:
        owners = quote_table(self._table.beside(OWNER))
        self._session.lock_table(owners)
        rows = self._session.execute(
            f'SELECT "org", "pipeline", "mode" FROM {owners} WHERE {self._session.owned}', (target.table.table,)
        )
        mine = (self._lane.organization, self._lane.pipeline)
        refuse_second_writer(target, self._lane, ((org, pipeline, mode) for org, pipeline, mode in rows))
        if any((organization, pipeline, mode) == (*mine, target.mode) for organization, pipeline, mode in rows):
            return
        self._session.execute(
            f'DELETE FROM {owners} WHERE {self._session.owned} AND "org" = $2 AND "pipeline" = $3',
            (target.table.table, *mine),
        )
        self._session.execute(
            f'INSERT INTO {owners} ("table", "org", "pipeline", "mode") VALUES ($1, $2, $3, $4)',
            (target.table.table, *mine, target.mode.value),
        )

    def _drop_stage_of(self, stats: Mapping[str, Any]) -> None:
        shadow = (stats.get("read_set") or {}).get("shadow")
        if shadow:
            self._session.execute(f"DROP TABLE IF EXISTS {quote_table(self._table.beside(shadow))}")

    def _publish(self, read_set: ReadSet, target: Target, checks: StagedChecks, judge: Judge) -> Publication:
        session = self._session
        with session.naming_holders(quote_table(self._table)), session.transaction():
            state = self._lock_head()
            finished = Finished.of(read_set, state)
            self._check_landing(target, state)
            judgement = judge(
                finished.measures(
                    {columns: self._duplicates(target, columns) for columns in checks.duplicates},
                    {reference: self._dangling(target, reference) for reference in checks.references},
                )
            )
            refuse_rejected(judgement)
            fail_at("publish.before_swap")
            counts, stats = self._put_in_place(target, state.counts, dict(finished.stats))
            stats = with_landed(session, target, read_set, counts, stats)
            fail_at("publish.after_swap")
            settle_refused(session, target, self._lane, read_set, counts)
            kept = finished.kept(judgement, stats)
            self._update_head("idle", finished.watermark, kept, read_set_id=read_set.id)
            fail_at("publish.before_commit")
        fail_at("publish.after_commit")
        return Publication(judgement=judgement, counts=counts, stats=stats)

    def _put_in_place(self, target: Target, counts: Counts, stats: dict[str, Any]) -> tuple[Counts, dict[str, Any]]:
        """Move what is staged into the table; return the counts and measures with what that did."""
        if target.rebuilds:
            drop_rebuilt(self._session, target)
        if not target.shadow:
            return counts, stats
        is_new = self._is_new(target)
        if not target.merges:
            self._publish_stage(replace(target, replaces=target.replaces or is_new))
            return counts, stats
        if is_new:
            create_target(self._session, target)
        merged = self._merge_stage(target, counts, stats)
        return counts + merged.counts, merge_stats(stats, merged.stats)

    def _is_new(self, target: Target) -> bool:
        """Say whether there is no table yet; then nobody else makes one before this transaction ends."""
        if self._session.describe(target.table) is not None:
            return False
        self._session.lock_table(quote_table(self._table.beside(OWNER)))
        return self._session.describe(target.table) is None

    def _check_landing(self, target: Target, state: LaneState) -> None:
        """Refuse to publish what others have emptied or exchanged since the last batch."""
        session, landing = self._session, landing_of(target)
        if not state.counts.produced:
            return
        watch = LandingWatch(landing, may_be_emptied=target.deletes, was_filled=not session.may_suppress(landing))
        watch.begin(state.stats)
        runs = watch.landed_by if target.metadata_columns else None
        watch.check(
            session.identity(landing),
            lambda before: session.keeps_rows(landing, before, runs),
            lambda: session.is_filled(landing),
        )

    def _duplicates(self, target: Target, columns: tuple[str, ...]) -> int:
        if target.shadow is None:
            raise ConflictError("A unique rule needs a staging table.", code="run.no_staging")
        stage = quote_table(target.table.beside(target.shadow))
        names = ", ".join(quote(name) for name in columns)
        rows = self._session.execute(
            f"SELECT coalesce(sum(_headrace_count - 1), 0) "
            f"FROM (SELECT count(*) AS _headrace_count FROM {stage} GROUP BY {names}) AS groups"
        )
        return int(rows[0][0])

    def _dangling(self, target: Target, reference: Reference) -> int:
        if target.shadow is None:
            raise ConflictError("A references rule needs a staging table.", code="run.no_staging")
        self._session.refuse_reserved(reference.table)
        stage, column = quote_table(target.table.beside(target.shadow)), f"staged.{quote(reference.column)}"
        found = f"SELECT 1 FROM {quote_table(reference.table)} AS other WHERE other.{quote(reference.other)} = {column}"
        rows = self._session.execute(
            f"SELECT count(*) FROM {stage} AS staged WHERE {column} IS NOT NULL AND NOT EXISTS ({found})"
        )
        return int(rows[0][0])

    def _merge_stage(self, target: Target, counts: Counts, stats: dict[str, Any]) -> Merged:
        """Merge what was staged. Rows that were refused are in the source all the same, so nothing counts
        as missing.
        """
        if target.delete_missing is not None and counts.quarantined + counts.failed:
            target = replace(target, delete_missing=None)
            stats["delete_missing"] = "skipped: rows were refused, and their keys are not missing"
        return merge_stage(self._session, target, merged_names(target), datetime.now(UTC))

    def _publish_stage(self, target: Target) -> None:
        """Move the staged rows; the time of loading is the time of publishing, as readers saw nothing before."""
        session = self._session
        assert target.shadow is not None
        stage = target.table.beside(target.shadow)
        names = ", ".join(quote(name) for name in merged_names(target))
        loaded_at = datetime.now(UTC)
        if target.replaces:
            if target.metadata_columns:
                kind = session.type_name("timestamptz")
                column = f"{quote_table(stage)} ADD COLUMN {quote(LOADED_AT)} {kind}"
                session.execute(f"ALTER TABLE {column} DEFAULT '{loaded_at.isoformat()}'")
                session.execute(f"ALTER TABLE {quote_table(stage)} ALTER COLUMN {quote(LOADED_AT)} DROP DEFAULT")
            session.swap(stage, target.table, [column.name for column in landed_columns(target)])
            return
        table = quote_table(target.table)
        if target.metadata_columns:
            session.execute(
                f"INSERT INTO {table} ({names}, {quote(LOADED_AT)}){session.overriding} "
                f"SELECT {names}, CAST($1 AS {session.type_name('timestamptz')}) FROM {quote_table(stage)}",
                (loaded_at.isoformat(),),
            )
        else:
            session.execute(
                f"INSERT INTO {table} ({names}){session.overriding} SELECT {names} FROM {quote_table(stage)}"
            )
        session.execute(f"DROP TABLE {quote_table(stage)}")

    def _seal(self) -> None:
        with self._session.transaction():
            self._lock_head()
            self._session.execute(
                f"UPDATE {self._checkpoint} SET \"state\" = 'sealed' "
                f"WHERE {KEY} AND \"stream\" <> '{HEAD}' AND \"state\" = 'loading'",
                self._key,
            )
        with suppress(PlatformError):  # What cannot be tidied now, as somebody reads it, may stay.
            self._session.run_patiently(
                self._lane,
                self._fence,
                lambda: drop_leftovers(self._session, self._lock_head(), self._lane, self._table),
            )
        fail_at("seal.after_fence")

    def _reset(self, watermark: str | None) -> None:
        with self._session.transaction():
            previous = self._lock_head()
            self._drop_stage_of(previous.stats)
            self._session.execute(f"DELETE FROM {self._checkpoint} WHERE {KEY} AND \"stream\" <> '{HEAD}'", self._key)
            abandon_refused(self._session, self._table, self._lane)
            self._update_head("idle", watermark, {}, read_set_id=None)

    def _release(self) -> None:
        with self._session.transaction():
            previous = self._lock_head()
            self._drop_stage_of(previous.stats)
            self._session.execute(f"DELETE FROM {self._checkpoint} WHERE {KEY} AND \"stream\" <> '{HEAD}'", self._key)
            # The head stays with its fence, so that a late worker of the deleted pipeline is still refused.
            self._update_head("idle", None, {}, read_set_id=None)
            self._session.execute(
                f"DELETE FROM {quote_table(self._table.beside(OWNER))} "
                f'WHERE {self._session.owned} AND "org" = $2 AND "pipeline" = $3',
                (self._table.table, *self._key[:2]),
            )

    def _discard(self) -> None:
        session, mine = self._session, self._key[:2]
        with session.transaction():
            previous = self._lock_head()
            owners = quote_table(self._table.beside(OWNER))
            session.lock_table(owners)
            rows = session.execute(
                f'SELECT "org", "pipeline" FROM {owners} WHERE {session.owned}', (self._table.table,)
            )
            if any((organization, pipeline) != mine for organization, pipeline in rows):
                raise ConflictError(f"The table {self._table} has another writer.", code="destination.owned")
            self._drop_stage_of(previous.stats)
            if rows:  # A table that was there before and never written is not ours to drop.
                session.execute(f"DROP TABLE IF EXISTS {quote_table(self._table)}")
            session.execute(
                f'DELETE FROM {owners} WHERE {session.owned} AND "org" = $2 AND "pipeline" = $3',
                (self._table.table, *mine),
            )
            for table in (CHECKPOINT, QUARANTINE):
                session.execute(f"DELETE FROM {quote_table(self._table.beside(table))} WHERE {KEY}", self._key)

    def _lock_head(self) -> LaneState:
        """Lock the head row and refuse to act under a stale fence or token."""
        rows = self._session.execute(
            f'SELECT "fence", "writer" FROM {self._checkpoint} WHERE {KEY} AND "stream" = \'{HEAD}\' '
            f"{self._session.for_update}",
            self._key,
        )
        if not rows or tuple(rows[0]) != (self._fence, self._token):
            raise FencedError(
                f"The lane {self._lane} has been taken over by a newer owner.", fence=rows[0][0] if rows else None
            )
        return self._read_lane()

    def _update_head(
        self, state: str, watermark: str | None, stats: Mapping[str, Any], *, read_set_id: str | None
    ) -> None:
        self._session.execute(
            f'UPDATE {self._checkpoint} SET "state" = $5, "position" = $6, "read_set" = $7, "stats" = $8, '
            f'"seq" = "seq" + 1 WHERE {KEY} AND "stream" = \'{HEAD}\' AND "fence" = $4 AND "writer" = $9',
            (*self._key, self._fence, state, watermark, read_set_id, json.dumps(stats, default=str), self._token),
        )
