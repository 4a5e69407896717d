"""The fence, the checkpoint and the publication in SQL, written once for every SQL store (contract, M2)."""

import json
from contextlib import suppress
from dataclasses import replace

from domain.errors import PlatformError
from domain.failpoints import fail_at
from domain.loads.checkpoint import HEAD, IDLE, LOADING, SEALED, LaneState
from domain.loads.fencing import Ownership
from domain.loads.landing_watch import LandingWatch
from domain.loads.memory import LandingNote
from domain.loads.publication import (
    Finished,
    TableWriter,
    forgotten,
    opened,
    refuse_discard,
    refuse_rejected,
    refuse_second_writer,
)
from domain.loads.read_set import ReadSet
from domain.pipelines.spec import Mode
from domain.ports.data_store import IOwner, Judge, Publication, Target
from domain.quality.rules import StagedChecks
from domain.runs.lane import Lane
from domain.stores.table import TableName
from infrastructure.sql import quote, quote_table
from infrastructure.stores.landing import landing_of
from infrastructure.stores.lane_tokens import new_token
from infrastructure.stores.overtaken import Deletions
from infrastructure.stores.sql.landed import with_landed
from infrastructure.stores.sql.lanes import KEY, read_lane_rows
from infrastructure.stores.sql.leftovers import drop_leftovers
from infrastructure.stores.sql.names import writers_of
from infrastructure.stores.sql.own_rows import not_kept
from infrastructure.stores.sql.quarantine import abandon_refused, settle_refused
from infrastructure.stores.sql.session import (
    CHECKPOINT,
    COUNTS,
    OWNER,
    QUARANTINE,
    Session,
    fit_target,
    prepare_target,
)
from infrastructure.stores.sql.staged import count_dangling, count_duplicates, put_in_place
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
        self._ownership = Ownership(lane, fence, token)
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
        session.run_patiently(self._lane, self._ownership.fence, self._prepare)
        self._has_tables = True
        state = session.run_locked(self._checkpoint, self._lane, self._ownership.fence, self._put_fence)
        self._ownership = replace(self._ownership, token=state.token)
        session.end_predecessors(self._lane, self._ownership.fence, self._checkpoint)
        fail_at("dest.after_fence")
        return state

    def _prepare(self) -> None:
        self._session.refuse_reserved(self._table)
        if not self._has_tables:
            self._session.create_internal_tables(self._table.schema)
        self._insert_head()
        # Whoever is refused need not wait until a stopped predecessor lets go of its rows.
        self._ownership.check_above(self._read_lane())

    def _put_fence(self) -> LaneState:
        self._ownership.check_above(self._read_lane())
        token = new_token()
        self._session.execute(
            f'UPDATE {self._checkpoint} SET "fence" = $4, "writer" = $5, '
            f'"state" = CASE WHEN "state" = \'{SEALED}\' THEN \'{LOADING}\' ELSE "state" END '
            f'WHERE {KEY} AND "fence" <= $4',
            (*self._key, self._ownership.fence, token),
        )
        state = self._read_lane()
        self._refuse_unless((state.fence, state.token) == (self._ownership.fence, token))
        return state

    def _read_lane(self) -> LaneState:
        return read_lane_rows(self._session, self._table.beside(CHECKPOINT), self._key)

    def _refuse_unless(self, is_kept: bool) -> None:
        """End the run at once where the checkpoint table does not hold what is written to it; by and by nothing of it
        could be told from another owner's.
        """
        if not is_kept:
            raise not_kept(self._table.beside(CHECKPOINT))

    def _insert_head(self) -> None:
        zeros = ", ".join("0" for _ in COUNTS)
        self._session.execute(
            f'INSERT INTO {self._checkpoint} ("org", "pipeline", "lane", "stream", "fence", "seq", "state", '
            f'{", ".join(quote(name) for name in COUNTS)}, "stats") '
            f"SELECT $1, $2, $3, '{HEAD}', 0, 0, '{IDLE}', {zeros}, '{{}}' "
            f"WHERE NOT EXISTS (SELECT 1 FROM {self._checkpoint} WHERE {KEY} AND \"stream\" = '{HEAD}')"
            + (" ON CONFLICT DO NOTHING" if self._session.capabilities.enforces_keys else ""),
            self._key,
        )

    def _open_read_set(self, read_set: ReadSet, target: Target) -> LaneState:
        session = self._session
        with session.transaction():
            previous = self._lock_head()
            if not self._has_tables:
                session.create_internal_tables(self._table.schema)
            self._claim_table(target)
            self._drop_stage_of(previous)
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
            noted = LandingNote(session.identity(landing_of(target)), (target.run_id,))
            makes_table = existing is None and target.shadow is None
            lane = opened(previous, read_set, makes_table=makes_table, noted=noted)
            self._insert_streams(lane)
            self._put_head(lane)
            state = self._read_lane()
            streams = [{stream.stream for stream in found.streams} for found in (state, lane)]
            self._refuse_unless(streams[0] == streams[1])
            return state

    def _insert_streams(self, lane: LaneState) -> None:
        owner, zeros = self._ownership, ", ".join("0" for _ in COUNTS)
        for stream in lane.streams:
            self._session.execute(
                f'INSERT INTO {self._checkpoint} ("org", "pipeline", "lane", "stream", "read_set", "fence", "seq", '
                f'"state", {", ".join(quote(name) for name in COUNTS)}, "stats", "writer") '
                f"VALUES ($1, $2, $3, $4, $5, $6, 0, $8, {zeros}, '{{}}', $7)",
                (*self._key, stream.stream, lane.read_set_id, owner.fence, owner.token, stream.state),
            )

    def _fit(self, target: Target) -> None:
        with self._session.transaction():
            state = self._lock_head()
            fit_target(self._session, target)
            self._note_deletions(target)
            self._note_run(state, target.run_id)

    def _note_run(self, state: LaneState, run_id: str) -> None:
        """Note that from here on another run lands rows of the open read set."""
        noted = state.memory.landing.with_run(run_id) if state.memory.landing is not None else None
        if noted == state.memory.landing:
            return
        self._session.execute(
            f'UPDATE {self._checkpoint} SET "stats" = $4 WHERE {KEY} AND "stream" = \'{HEAD}\'',
            (*self._key, json.dumps(replace(state.memory, landing=noted).to_json(), default=str)),
        )

    def _note_deletions(self, target: Target) -> None:
        """Note what a new revision may delete in the open read set."""
        owners, mine = quote_table(self._table.beside(OWNER)), (target.table.table, *self._key[:2])
        where = f'{self._session.owned} AND "org" = $2 AND "pipeline" = $3'
        for (before,) in self._session.execute(f'SELECT "deletes" FROM {owners} WHERE {where}', mine):
            if (noted := Deletions.noted(target, before)) != before:
                self._session.execute(f'UPDATE {owners} SET "deletes" = $4 WHERE {where}', (*mine, noted))

    def _claim_table(self, target: Target) -> None:
        owners = quote_table(self._table.beside(OWNER))
        # By another name others lock the same tables, in the same order.
        for name in sorted(self._session.names(target.table), key=str):
            self._session.lock_table(quote_table(name.beside(OWNER)))
        rows = self._session.execute(
            f'SELECT "org", "pipeline", "mode", "deletes" FROM {owners} WHERE {self._session.owned}',
            (target.table.table,),
        )
        mine = (self._lane.organization, self._lane.pipeline)
        known = writers_of(self._session, target.table)
        writers = [TableWriter(org, pipeline, mode == Mode.REPLACE) for org, pipeline, mode in known]
        refuse_second_writer(target.table, TableWriter(*mine, target.replaces), writers)
        before = next((row[3] for row in rows if row[:2] == mine), Deletions.NONE.value)
        noted = Deletions.noted(target, before)
        if (*mine, target.mode.value, noted) in rows:
            return
        self._session.execute(
            f'DELETE FROM {owners} WHERE {self._session.owned} AND "org" = $2 AND "pipeline" = $3',
            (target.table.table, *mine),
        )
        self._session.execute(
            f'INSERT INTO {owners} ("table", "org", "pipeline", "mode", "deletes") VALUES ($1, $2, $3, $4, $5)',
            (target.table.table, *mine, target.mode.value, noted),
        )

    def _drop_stage_of(self, lane: LaneState) -> None:
        shadow = lane.memory.stage
        if shadow:
            self._session.execute(f"DROP TABLE IF EXISTS {quote_table(self._table.beside(shadow))}")

    def _publish(self, read_set: ReadSet, target: Target, checks: StagedChecks, judge: Judge) -> Publication:
        session = self._session
        with session.naming_holders(quote_table(self._table)), session.transaction():
            finished = Finished.of(read_set, self._lock_head())
            self._check_landing(target, finished)
            judgement = judge(
                finished.evidence(
                    {columns: count_duplicates(session, target, columns) for columns in checks.duplicates},
                    {reference: count_dangling(session, target, reference) for reference in checks.references},
                )
            )
            refuse_rejected(judgement)
            fail_at("publish.before_swap")
            counts, measures = put_in_place(session, target, finished)
            measures = with_landed(session, target, read_set, counts, measures)
            fail_at("publish.after_swap")
            settle_refused(session, target, self._lane, read_set, counts)
            self._put_head(finished.published(judgement, measures))
            fail_at("publish.before_commit")
        fail_at("publish.after_commit")
        return Publication(judgement=judgement, counts=counts, measures=measures)

    def _check_landing(self, target: Target, finished: Finished) -> None:
        """Refuse to publish what others have emptied or exchanged since the last batch."""
        session, landing = self._session, landing_of(target)
        if not finished.has_landed:
            return
        watch = LandingWatch(landing, may_be_emptied=target.deletes, was_filled=not session.may_suppress(landing))
        watch.begin(finished.lane.memory.landing)
        runs = watch.landed_by if target.metadata_columns else None
        watch.check(
            session.identity(landing),
            lambda before: session.keeps_rows(landing, before, runs),
            lambda: session.is_filled(landing),
        )

    def _seal(self) -> None:
        with self._session.transaction():
            self._lock_head()
            self._session.execute(
                f"UPDATE {self._checkpoint} SET \"state\" = '{SEALED}' "
                f"WHERE {KEY} AND \"stream\" <> '{HEAD}' AND \"state\" = '{LOADING}'",
                self._key,
            )
        with suppress(PlatformError):  # What cannot be tidied now, as somebody reads it, may stay.
            self._session.run_patiently(
                self._lane,
                self._ownership.fence,
                lambda: drop_leftovers(self._session, self._lock_head(), self._lane, self._table),
            )
        fail_at("seal.after_fence")

    def _reset(self, watermark: str | None) -> None:
        with self._session.transaction():
            previous = self._lock_head()
            self._drop_stage_of(previous)
            self._session.execute(f"DELETE FROM {self._checkpoint} WHERE {KEY} AND \"stream\" <> '{HEAD}'", self._key)
            abandon_refused(self._session, self._table, self._lane)
            self._put_head(forgotten(previous, watermark))

    def _release(self) -> None:
        with self._session.transaction():
            previous = self._lock_head()
            self._drop_stage_of(previous)
            self._session.execute(f"DELETE FROM {self._checkpoint} WHERE {KEY} AND \"stream\" <> '{HEAD}'", self._key)
            # The head stays with its fence, so that a late worker of the deleted pipeline is still refused.
            self._put_head(forgotten(previous, None))
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
            rows = writers_of(session, self._table)
            writers = [TableWriter(org, pipeline, mode == Mode.REPLACE) for org, pipeline, mode in rows]
            refuse_discard(self._table, self._lane, writers)
            self._drop_stage_of(previous)
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
        self._ownership.check_holds(*(rows[0] if rows else (None, None)))
        return self._read_lane()

    def _put_head(self, lane: LaneState) -> None:
        owner, stats = self._ownership, json.dumps(lane.memory.to_json(), default=str)
        rows = self._session.execute(
            f'UPDATE {self._checkpoint} SET "state" = $5, "position" = $6, "read_set" = $7, "stats" = $8, '
            f'"seq" = $10 WHERE {KEY} AND "stream" = \'{HEAD}\' AND "fence" = $4 AND "writer" = $9 '
            'RETURNING "seq"',
            (
                *self._key,
                owner.fence,
                lane.state,
                lane.watermark,
                lane.read_set_id,
                stats,
                owner.token,
                lane.generation,
            ),
        )
        self._refuse_unless([tuple(row) for row in rows] == [(lane.generation,)])
