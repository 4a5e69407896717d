"""Commits rows, quarantine and checkpoint of a stream in one transaction, in SQL (contract, M2)."""

import json
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from domain.errors import SchemaMismatchError, StoreUnavailableError
from domain.failpoints import fail_at
from domain.loads.checkpoint import HEAD, CheckpointUpdate, Merged
from domain.loads.fencing import StreamOwnership, may_have_committed
from domain.loads.landing_watch import LandingWatch
from domain.loads.memory import LaneMemory
from domain.loads.quarantine import RefusedState
from domain.loads.way import Passage
from domain.ports.data_store import Committed, ISelectingWriter, JudgedBatch, StreamSelection, Target
from domain.runs.lane import Lane
from domain.stores.table import DELETED, LOADED_AT, RUN_ID, SEQ, Column, TableName, TableSchema
from infrastructure.clock import utc_now
from infrastructure.sql import quote, quote_table
from infrastructure.stores.landing import landing_gone, landing_of, nothing_merged, places_of
from infrastructure.stores.replayed import repaired_places
from infrastructure.stores.sql.overtaken import Overtaking, Replaying
from infrastructure.stores.sql.quarantine import Rereads, check_put_aside, mark_repaired
from infrastructure.stores.sql.refused_parts import columns_once, in_parts
from infrastructure.stores.sql.session import CHECKPOINT, COUNTS, QUARANTINE, RECORD_BYTES, Session
from infrastructure.tabular.arrow import conform, to_table
from infrastructure.threads import OneThread, P, T


class Checkpoints:
    """The statements on a stream's row of the checkpoint table (contract, M2)."""

    def __init__(self, lane: Lane, table: TableName, read_set_id: str, stream: str, fence: int, token: str) -> None:
        self._table = quote_table(table.beside(CHECKPOINT))
        self._key = (lane.organization, lane.pipeline, lane.name, stream)
        self._ownership = StreamOwnership(lane, stream, read_set_id, fence, token)

    def advance(self, checkpoint: CheckpointUpdate) -> tuple[str, Sequence[Any]]:
        """Move the row on by one batch, if it is still ours."""
        found, moved = self._ownership.before(checkpoint), checkpoint.moved(self._ownership.stream)
        counts = ", ".join(f"{quote(name)} = ${number}" for number, name in enumerate(COUNTS, start=9))
        sql = (
            f'UPDATE {self._table} SET "fence" = $5, "seq" = $6, "position" = $7, "state" = $8, {counts}, '
            '"stats" = $16, "format" = $20 WHERE "org" = $1 AND "pipeline" = $2 AND "lane" = $3 AND "stream" = $4 '
            'AND "fence" = $5 AND "writer" = $19 AND "read_set" = $17 AND "seq" = $18 AND "state" = $21 '
            'RETURNING "seq"'
        )
        return sql, (
            *self._key,
            found.fence,
            moved.seq,
            json.dumps(moved.position) if moved.position is not None else None,
            moved.state,
            *(getattr(moved.counts, name) for name in COUNTS),
            json.dumps(moved.measures.to_json()),
            found.read_set_id,
            found.seq,
            found.token,
            moved.format,
            found.state,
        )

    def amend(self, checkpoint: CheckpointUpdate) -> tuple[str, Sequence[Any]]:
        """Note what landing the rows did, in the transaction that has moved the row on."""
        counts = ", ".join(f"{quote(name)} = ${number}" for number, name in enumerate(COUNTS, start=6))
        sql = (
            f'UPDATE {self._table} SET "stats" = $5, {counts} '
            'WHERE "org" = $1 AND "pipeline" = $2 AND "lane" = $3 AND "stream" = $4'
        )
        noted = (json.dumps(checkpoint.measures.to_json()), *(getattr(checkpoint.counts, name) for name in COUNTS))
        return sql, (*self._key, *noted)

    def check(self, returned: Sequence[Any], checkpoint: CheckpointUpdate) -> None:
        """Refuse to go on unless exactly the expected row was moved.

        Raises:
            FencedError: it was not.
        """
        if [tuple(row) for row in returned] != [(checkpoint.seq,)]:
            raise self._ownership.fenced()

    def opened_on(self) -> tuple[str, Sequence[Any]]:
        """Read what the head keeps of the read set's opening."""
        sql = (
            f'SELECT "stats" FROM {self._table} WHERE "org" = $1 AND "pipeline" = $2 AND "lane" = $3 '
            f"AND \"stream\" = '{HEAD}'"
        )
        return sql, self._key[:3]

    def others_landed(self) -> tuple[str, Sequence[Any]]:
        """Read whether another stream of the lane's read set has landed a row."""
        sql = (
            f'SELECT count(*) > 0 FROM {self._table} WHERE "org" = $1 AND "pipeline" = $2 AND "lane" = $3 '
            f'AND "stream" NOT IN (\'{HEAD}\', $4) AND "produced" > 0'
        )
        return sql, self._key

    def standing(self, for_update: str) -> tuple[str, Sequence[Any]]:
        """Read where the row stands, once whoever holds it is gone."""
        sql = (
            f'SELECT "seq", "fence", "writer" FROM {self._table} WHERE "org" = $1 AND "pipeline" = $2 AND "lane" = $3 '
            f'AND "stream" = $4 {for_update}'
        )
        return sql, self._key

    def check_standing(self, rows: Sequence[Any]) -> None:
        """Refuse to begin under a stale fence or token.

        Raises:
            FencedError: it is stale.
        """
        _, fence, token = rows[0] if rows else (0, None, None)
        self._ownership.check_holds(fence, token)

    def is_at(self, rows: Sequence[Any], checkpoint: CheckpointUpdate) -> bool:
        """Say whether a batch was committed."""
        return bool(rows) and self._ownership.has_committed(checkpoint, *rows[0])


def metadata_of(passage: Passage) -> dict[str, tuple[str, str]]:
    """The metadata columns of rows that pass, each with its value as text and its type."""
    constants: dict[str, tuple[str, str]] = {}
    if passage.run_id is not None:
        constants[RUN_ID] = (passage.run_id, "uuid")
    if passage.has_loaded_at:
        constants[LOADED_AT] = (utc_now().isoformat(), "timestamptz")
    return constants


class Looking(Protocol):
    """What asks of a landing table inside the transaction that holds it. Another would wait behind whoever waits for
    that one.
    """

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run one statement and return its rows."""

    def identity(self, table: TableName) -> str | None:
        """As `Session.identity`."""

    def keeps_rows(self, table: TableName, before: str, runs: Sequence[str] | None) -> bool:
        """As `Session.keeps_rows`."""

    def is_filled(self, table: TableName) -> bool | None:
        """As `Session.is_filled`."""


class SqlWriter(ISelectingWriter):
    """Commits batches of one stream in a SQL store."""

    def __init__(
        self,
        session: Session,
        thread: OneThread,
        lane: Lane,
        target: Target,
        read_set_id: str,
        stream: str,
        fence: int,
        token: str,
    ) -> None:
        self._session = session
        self._thread = thread
        self._lane = lane
        self._target = target
        self._read_set_id = read_set_id
        self._stream = stream
        self._checkpoints = Checkpoints(lane, target.table, read_set_id, stream, fence, token)
        self._landing = landing_of(target)
        self._watch = LandingWatch(self._landing, may_be_emptied=target.deletes)
        self._rereads = Rereads(session, lane, target, read_set_id)
        self._overtaking = Overtaking(session, lane, target, read_set_id)
        self._replaying = Replaying(session, lane, target)
        self._merged: Merged | None = None

    async def commit(self, batch: JudgedBatch, checkpoint: CheckpointUpdate) -> Committed:
        return await self._thread.call(self._commit, batch, checkpoint)

    def _commit(self, batch: JudgedBatch, checkpoint: CheckpointUpdate) -> Committed:
        retries = 0
        try:
            self._commit_once(batch, checkpoint)
        except StoreUnavailableError as error:
            if not may_have_committed(error, is_interrupted=self._session.is_interrupted):
                raise
            # The answer to COMMIT may have been lost: the row's lock waits for the old backend, then `seq` is final.
            if not self.is_committed(checkpoint):
                if self._session.is_interrupted:  # Connecting again may have taken a while.
                    raise
                self._commit_once(batch, checkpoint)
            retries = 1
        fail_at("batch.after_commit")
        self.look_again(checkpoint)
        return Committed(retries, self._merged)

    async def commit_selection(
        self, selection: StreamSelection, checkpoint_of: Callable[[int], CheckpointUpdate]
    ) -> int:
        return await self._thread.call(self._commit_selection, selection, checkpoint_of)

    def _commit_selection(self, selection: StreamSelection, checkpoint_of: Callable[[int], CheckpointUpdate]) -> int:
        checkpoint: CheckpointUpdate | None = None
        retries = 0
        fail_at("batch.before_begin")
        try:
            with self._session.transaction():
                checkpoint = self._insert_selected(selection, checkpoint_of)
            fail_at("batch.commit_sent")
        except StoreUnavailableError as error:
            # Before the checkpoint was written the whole is left to the next claim: it may have been hours of work.
            if checkpoint is None or not may_have_committed(error, is_interrupted=self._session.is_interrupted):
                raise
            if not self.is_committed(checkpoint):
                raise
            retries = 1
        fail_at("batch.after_commit")
        return retries

    def _insert_selected(
        self, selection: StreamSelection, checkpoint_of: Callable[[int], CheckpointUpdate]
    ) -> CheckpointUpdate:
        session, checkpoints = self._session, self._checkpoints
        checkpoints.check_standing(session.execute(*checkpoints.standing(session.for_update)))
        constants = metadata_of(selection.passage)
        if session.hold(self._landing) is None:
            raise landing_gone(self._landing)
        count = session.insert_selected(self._landing, selection, constants)
        fail_at("batch.mid_rows")
        checkpoint = checkpoint_of(count)
        self._advance(checkpoint)
        return checkpoint

    def _advance(self, checkpoint: CheckpointUpdate) -> None:
        """Move the stream's row on behind rows that were written before it."""
        checkpoints = self._checkpoints
        checkpoints.check(self._session.execute(*checkpoints.advance(checkpoint)), checkpoint)
        fail_at("batch.after_checkpoint")
        fail_at("batch.before_commit")

    def _commit_once(self, batch: JudgedBatch, checkpoint: CheckpointUpdate) -> None:
        session, taken = self._session, None
        fail_at("batch.before_begin")
        with session.transaction():
            self._checkpoints.check(session.execute(*self._checkpoints.advance(checkpoint)), checkpoint)
            fail_at("batch.after_checkpoint")
            if batch.origins is not None:
                batch, taken = self._replaying.still_open(batch, self._landing)
            self._merged = self._landed(batch, checkpoint, taken)
            if self._merged is not None:
                session.execute(*self._checkpoints.amend(checkpoint.with_merged(self._merged)))
            fail_at("batch.mid_rows")
            if batch.origins is not None and self._target.merges:
                self._replaying.mark(batch)
            elif batch.origins is not None:
                mark_repaired(session, self._target.table, self._lane, self._target.run_id, repaired_places(batch))
            else:
                self._put_aside(batch, checkpoint.seq)
                self._rereads.note(batch.source)
            fail_at("batch.before_commit")
        fail_at("batch.commit_sent")  # As if the answer to COMMIT were lost.

    def _landed(self, batch: JudgedBatch, checkpoint: CheckpointUpdate, taken: Merged | None) -> Merged | None:
        """Land what a batch accepts; say what that and what was `taken` from it change the counts by."""
        rows = to_table(batch.accepted)
        if taken is not None:
            checkpoint = checkpoint.with_merged(taken)
        merged = self._land(rows, checkpoint, batch) if rows.num_rows else nothing_merged(self._target)
        return merged + taken if merged is not None and taken is not None else merged or taken

    def _put_aside(self, batch: JudgedBatch, seq: int) -> None:
        """Keep the refused rows of a batch, and settle those that its others have overtaken."""
        session, refused = self._session, to_table(batch.refused)
        overtaken = self._overtaking.settle(batch)
        if not refused.num_rows:
            return
        state, by = self._overtaking.fate
        fates = [(state.value, by) if is_so else (RefusedState.WAITING.value, None) for is_so in overtaken]
        refused = columns_once(refused)
        for place, name in enumerate(("state", "settled_by")):
            refused = refused.append_column(name, pa.array([fate[place] for fate in fates], pa.string()))
        columns, quarantine = session.quarantine_columns, self._target.table.beside(QUARANTINE)
        for part in in_parts(refused):
            session.ingest(quarantine, conform(self._quarantined(part, seq), columns), columns)
        lane, waiting = self._lane, sum(found == RefusedState.WAITING for found, _ in fates)
        place_of = (lane.organization, lane.pipeline, lane.name, self._read_set_id, self._stream)
        check_put_aside(session, self._target.table, place_of, seq, waiting)

    async def beside(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do something on the session's thread."""
        return await self._thread.call(function, *args, **kwargs)

    def is_committed(self, checkpoint: CheckpointUpdate) -> bool:
        """Connect again and say whether a batch whose answer was lost is durable; blocking."""
        session, checkpoints = self._session, self._checkpoints
        session.reopen()
        with session.transaction():
            rows = session.execute(*checkpoints.standing(session.for_update))
        return checkpoints.is_at(rows, checkpoint)

    def check_landing(self, landed: int, looking: Looking) -> None:
        """Refuse to land rows where those before them are gone, `landed` of this stream; blocking, while the table is
        held.

        Raises:
            ConflictError: others have emptied or exchanged the table (`destination.changed`).
        """
        landing, watch = self._landing, self._watch
        if not watch.is_begun:
            head = looking.execute(*self._checkpoints.opened_on())
            watch.begin(LaneMemory.from_json(json.loads(head[0][0])).landing if head else None)
        runs = watch.landed_by if self._target.metadata_columns else None

        def keeps_rows(before: str) -> bool:
            # Until rows of the read set have landed there are none to lose.
            has_landed = landed > 0 or bool(looking.execute(*self._checkpoints.others_landed())[0][0])
            return not has_landed or looking.keeps_rows(landing, before, runs)

        watch.check(looking.identity(landing), keeps_rows, lambda: looking.is_filled(landing))

    def look_again(self, checkpoint: CheckpointUpdate) -> None:
        """See after a commit, unless it was the last, that there are rows now; blocking."""
        if self._watch.was_filled or checkpoint.is_last or not checkpoint.counts.produced:
            return
        try:
            self._watch.was_filled = self._session.is_filled(self._landing) is True
        except StoreUnavailableError:
            return  # The batch is durable, and the next one connects again.

    def _landing_columns(self, held: TableSchema, names: Sequence[str]) -> list[Column]:
        by_name = {column.name: column for column in held.columns}
        missing = [name for name in names if name not in by_name]
        if missing:
            raise SchemaMismatchError(f"The table {self._landing} has no column named {', '.join(missing)}.")
        return [by_name[name] for name in names]

    def _land(self, rows: pa.Table, checkpoint: CheckpointUpdate, batch: JudgedBatch) -> Merged | None:
        """Append or merge the accepted rows of a batch, with the metadata columns as constants; a stage has no time of
        loading until it is published.
        """
        target, session = self._target, self._session
        held = session.hold(self._landing, target.key if target.merges and target.shadow is None else ())
        if held is None:
            raise landing_gone(self._landing)
        deleted = rows.column(DELETED) if target.deletes else None
        rows = rows.select([column.name for column in target.columns])
        columns = self._landing_columns(held, rows.column_names)
        rows = conform(rows, columns)
        # After the types, whose change would be told with the column.
        self.check_landing(checkpoint.counts.produced - rows.num_rows, session)
        constants: list[tuple[str, pa.Scalar]] = []
        if target.metadata_columns:
            constants.append((RUN_ID, session.uuid(target.run_id)))
            if target.shadow is None:
                constants.append((LOADED_AT, pa.scalar(utc_now(), pa.timestamp("us", "UTC"))))
        columns = columns + self._landing_columns(held, [name for name, _ in constants])
        for name, value in constants:
            rows = rows.append_column(name, pa.repeat(value, rows.num_rows))
        if deleted is not None:
            columns.append(Column(DELETED, "bool"))
            rows = rows.append_column(DELETED, deleted)
        if target.merges:
            columns.append(Column(SEQ, "int64"))
            rows = rows.append_column(SEQ, places_of(checkpoint.seq, rows.num_rows))
        if target.merges and target.shadow is None:
            if batch.origins is not None:
                return self._replaying.merge(self._landing, rows, columns, batch)
            return session.merge(self._landing, rows, columns, target)
        session.ingest(self._landing, rows, columns)
        return None

    def _quarantined(self, refused: pa.Table, seq: int) -> pa.Table:
        count = refused.num_rows
        constants = {
            "org": self._lane.organization,
            "pipeline": self._lane.pipeline,
            "lane": self._lane.name,
            "read_set": self._read_set_id,
            "stream": self._stream,
            "target": str(self._target.table),
            "run_id": self._target.run_id,
            "refused_at": utc_now(),
        }
        for name, value in constants.items():
            refused = refused.append_column(name, pa.repeat(pa.scalar(value), count))
        if RECORD_BYTES in self._session.quarantine_columns:
            refused = refused.append_column(RECORD_BYTES.name, pc.binary_length(refused.column("record")))
        return refused.append_column("seq", pa.repeat(pa.scalar(seq, pa.int64()), count))
