"""Commits rows, quarantine and checkpoint of a stream in one transaction, in SQL (contract, M2)."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime

import pyarrow as pa

from domain.errors import FencedError, SchemaMismatchError, StoreUnavailableError
from domain.failpoints import fail_at
from domain.pipelines.checkpoint import CheckpointUpdate
from domain.pipelines.read_set import Lane
from domain.pipelines.table import LOADED_AT, RUN_ID, Column
from domain.ports.data_store import IWriter, JudgedBatch, Target
from infrastructure.arrow import conform, to_table
from infrastructure.sql import quote, quote_table
from infrastructure.stores.sql_session import CHECKPOINT, COUNTS, QUARANTINE, QUARANTINE_COLUMNS, Session
from infrastructure.threads import OneThread


class SqlWriter(IWriter):
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
    ) -> None:
        self._session = session
        self._thread = thread
        self._lane = lane
        self._target = target
        self._key = (lane.organization, lane.pipeline, lane.name, stream)
        self._read_set_id = read_set_id
        self._stream = stream
        self._fence = fence
        self._checkpoint = quote_table(target.table.beside(CHECKPOINT))
        self._landing = target.table.beside(target.shadow) if target.shadow else target.table
        self._columns: tuple[Column, ...] | None = None

    async def commit(self, batch: JudgedBatch, checkpoint: CheckpointUpdate) -> int:
        return await self._thread.call(self._commit, batch, checkpoint)

    def _commit(self, batch: JudgedBatch, checkpoint: CheckpointUpdate) -> int:
        retries = 0
        try:
            self._commit_once(batch, checkpoint)
        except StoreUnavailableError as error:
            if self._session.is_interrupted or error.code == "disk_full":
                raise
            # The answer to COMMIT may have been lost: the row's lock waits for the old backend, then `seq` is final.
            if not self._is_committed(checkpoint):
                self._commit_once(batch, checkpoint)
            retries = 1
        fail_at("batch.after_commit")
        return retries

    def _commit_once(self, batch: JudgedBatch, checkpoint: CheckpointUpdate) -> None:
        session = self._session
        rows = to_table(batch.accepted)
        fail_at("batch.before_begin")
        with session.transaction():
            self._advance(checkpoint)
            fail_at("batch.after_checkpoint")
            if rows.num_rows:
                columns = self._landing_columns(rows.column_names)
                self._ingest(conform(rows, columns), columns)
            fail_at("batch.mid_rows")
            refused = to_table(batch.refused)
            if refused.num_rows:
                quarantined = conform(self._quarantined(refused, checkpoint.seq), QUARANTINE_COLUMNS)
                session.ingest(self._target.table.beside(QUARANTINE), quarantined, QUARANTINE_COLUMNS)
            fail_at("batch.before_commit")
        fail_at("batch.commit_sent")  # As if the answer to COMMIT were lost.

    def _advance(self, checkpoint: CheckpointUpdate) -> None:
        counts = ", ".join(f"{quote(name)} = ${number}" for number, name in enumerate(COUNTS, start=9))
        returned = self._session.execute(
            f'UPDATE {self._checkpoint} SET "fence" = $5, "seq" = $6, "position" = $7, "state" = $8, {counts}, '
            '"stats" = $16 WHERE "org" = $1 AND "pipeline" = $2 AND "lane" = $3 AND "stream" = $4 '
            'AND "fence" = $5 AND "read_set" = $17 AND "seq" = $18 AND "state" = \'loading\' RETURNING "seq"',
            (
                *self._key,
                self._fence,
                checkpoint.seq,
                json.dumps(checkpoint.position) if checkpoint.position is not None else None,
                "done" if checkpoint.is_last else "loading",
                *(getattr(checkpoint.counts, name) for name in COUNTS),
                json.dumps(checkpoint.stats),
                self._read_set_id,
                checkpoint.seq - 1,
            ),
        )
        if returned != [(checkpoint.seq,)]:
            raise FencedError(f"Stream {self._stream} of {self._lane} belongs to a newer owner; nothing was written.")

    def _is_committed(self, checkpoint: CheckpointUpdate) -> bool:
        session = self._session
        session.reopen()
        with session.transaction():
            rows = session.execute(
                f'SELECT "seq", "fence" FROM {self._checkpoint} WHERE "org" = $1 AND "pipeline" = $2 AND "lane" = $3 '
                f'AND "stream" = $4 {session.for_update}',
                self._key,
            )
        return bool(rows) and rows[0] == (checkpoint.seq, self._fence)

    def _landing_columns(self, names: Sequence[str]) -> list[Column]:
        if self._columns is None:
            described = self._session.describe(self._landing)
            if described is None:
                raise SchemaMismatchError(f"The table {self._landing} is gone.", code="destination.missing")
            self._columns = described.columns
        by_name = {column.name: column for column in self._columns}
        missing = [name for name in names if name not in by_name]
        if missing:
            raise SchemaMismatchError(f"The table {self._landing} has no column named {', '.join(missing)}.")
        return [by_name[name] for name in names]

    def _ingest(self, rows: pa.Table, columns: list[Column]) -> None:
        """Append the rows with the metadata columns as constants; a stage has no time of loading until it is published."""
        if self._target.metadata_columns:
            constants: list[tuple[str, pa.Scalar]] = [(RUN_ID, self._session.uuid(self._target.run_id))]
            if self._target.shadow is None:
                constants.append((LOADED_AT, pa.scalar(datetime.now(UTC), pa.timestamp("us", "UTC"))))
            columns = columns + self._landing_columns([name for name, _ in constants])
            for name, value in constants:
                rows = rows.append_column(name, pa.repeat(value, rows.num_rows))
        self._session.ingest(self._landing, rows, columns)

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
            "refused_at": datetime.now(UTC),
        }
        for name, value in constants.items():
            refused = refused.append_column(name, pa.repeat(pa.scalar(value), count))
        return refused.append_column("seq", pa.repeat(pa.scalar(seq, pa.int64()), count))
