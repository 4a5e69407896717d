"""Rows that pass from Postgres to Postgres undecoded: binary COPY by ranges of (cursor, key), asyncpg on the loop."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, closing
from typing import Any

import pyarrow as pa

from domain.errors import NotFoundError, StoreUnavailableError, WorkFailedError
from domain.failpoints import fail_at
from domain.loads.checkpoint import CheckpointUpdate, Position
from domain.loads.fencing import may_have_committed
from domain.loads.read_set import SourcePlan, Stream
from domain.loads.way import Passage
from domain.pipelines.spec import SourceSpec
from domain.ports.data_store import (
    Committed,
    EncodedRows,
    IPassingWriter,
    ISelectingWriter,
    JudgedBatch,
    StreamSelection,
    Target,
)
from domain.stores.table import Column
from infrastructure.sql import quote, quote_table
from infrastructure.stores.landing import landing_gone, landing_of
from infrastructure.stores.positions import key_null, ties_too_large
from infrastructure.stores.postgres.catalog import check_landing_types
from infrastructure.stores.postgres.circles import Watched
from infrastructure.stores.postgres.key_steps import KeySteps
from infrastructure.stores.postgres.keys import why_untrusted
from infrastructure.stores.postgres.landing import LooksAtLandings
from infrastructure.stores.postgres.links import LinkPool, translated
from infrastructure.stores.postgres.reading import Reading, bind
from infrastructure.stores.postgres.selection import Selection
from infrastructure.stores.postgres.types import native_of
from infrastructure.stores.sql.writer import Checkpoints, SqlWriter, metadata_of
from infrastructure.tabular.arrow import conform, row_too_large

_EVERY_ROW = 2**31
_WRITE_BYTES = 2**18
_LONGER_DECODED = 4  # Than on the wire; numbers as text are.


def _is_whole(selection: Selection, order: Sequence[str]) -> bool:
    """Whether the order is that of one whole number."""
    return len(order) == 1 and selection.natives[order[0]] in ("smallint", "integer", "bigint")


class PassingReader:
    """Reads a stream in ranges of its order, each as the bytes of one binary COPY, all in one snapshot.

    The borders of a range are found by an index, or guessed and checked. A session beside it has described the source
    and keeps the snapshot and with it every lock, so the types that were verified hold while the rows pass.
    """

    def __init__(
        self,
        reading: Reading,
        source: SourceSpec,
        plan: SourcePlan,
        stream: Stream,
        *,
        batch_rows: int,
        batch_bytes: int,
    ) -> None:
        self._reading = reading
        self._session = reading.session
        self._thread = reading.thread
        self._source = source
        self._plan = plan
        self._stream = stream
        self._rows = batch_rows
        self._bytes = batch_bytes

    async def encoded(self, after: Position | None, passage: Passage) -> AsyncGenerator[EncodedRows, None]:
        """Yield the rows after a position, range by range."""
        async with self._reading.passing(self._source) as (selection, connection):
            with translated():  # Also of a connection that was opened before.
                where = await self._thread.call(self._where, selection)
                count, position = self._rows, after
                steps = KeySteps(may_guess=_is_whole(selection, self._plan.order))
                last = await self._seek(connection, selection, where, position, None)
                while last is not None and position != last:
                    border = steps.guess(position, last)
                    if border is None:
                        border = await self._seek(connection, selection, where, position, count) or last
                        steps.found(position, border)
                    # Of a guess, one row more than a batch may have shows that it went too far.
                    limit = count + 1 if steps.is_guess else None
                    rows = await self._range(connection, selection, where, (position, border), passage, limit)
                    if rows is None:
                        if count == 1:
                            between = self._between(selection, where, position, border)
                            raise await self._too_large(connection, selection, between)
                        count = max(1, count // 8)
                        steps.forget()
                        continue
                    if not steps.holds(rows.num_rows, count):
                        continue
                    if rows.num_rows:
                        fail_at("extract.mid_page")
                        yield rows
                    position = border
                await self._thread.call(self._reading.selected, self._source)  # Nothing was attached meanwhile.

    def _where(self, selection: Selection) -> str:
        plan, source = self._plan, self._source
        selection.check([Column(name, kind) for name, kind in plan.columns])
        where = selection.belonging(source, plan, self._stream)
        self._session.bind(selection.settings)
        if not plan.is_proved and why_untrusted(self._session, source, selection, where, looks_for_ties=False):
            raise key_null(", ".join(source.key))
        return where

    async def _seek(
        self, connection: Any, selection: Selection, where: str, after: Position | None, rows: int | None
    ) -> Position | None:
        """The place of the row that is so many rows after a position, or of the last one; None when there is no such
        row.
        """
        order = self._plan.order
        if after is not None:
            where = f"{where} AND {selection.after(order, after)}"
        await bind(connection, selection.settings)
        keys = [f"selected.{quote(name)}" for name in order]
        by = f"{', '.join(keys)} OFFSET {rows - 1:d}" if rows is not None else ", ".join(f"{key} DESC" for key in keys)
        found = await connection.fetchrow(
            f"SELECT {', '.join(selection.text_of(name) for name in order)} FROM (SELECT * FROM {selection.text}) AS "
            f"selected WHERE {where} ORDER BY {by} LIMIT 1"
        )
        return tuple(found) if found is not None else None

    async def _range(
        self,
        connection: Any,
        selection: Selection,
        where: str,
        between: tuple[Position | None, Position],
        passage: Passage,
        limit: int | None,
    ) -> EncodedRows | None:
        """Read a range; None when it has more bytes than a batch may have."""
        after, border = between
        where = self._between(selection, where, after, border)
        names, values = list(passage.columns), [f"selected.{quote(name)}" for name in passage.columns]
        types = [selection.natives[name] for name in names]
        for name, (value, kind) in metadata_of(passage).items():
            # In a subquery, so that it is worked out once and not for each row.
            selection.settings[f"headrace.{name}"] = value
            names.append(name)
            types.append(native_of(kind))
            values.append(f"(SELECT current_setting('headrace.{name}')::{types[-1]})")
        await bind(connection, selection.settings)
        bounded = f" LIMIT {limit:d}" if limit is not None else ""
        copying = self._reading.copied(
            connection,
            f"SELECT {', '.join(values)} FROM (SELECT * FROM {selection.text}) AS selected WHERE {where}{bounded}",
            self._bytes,
        )
        if passage.seen:
            looking = self._thread.call(self._rows_of, selection, where, passage.seen, limit, is_seen=True)
            copied, seen = await asyncio.gather(copying, looking)
        else:
            copied, seen = await copying, None
        if copied is None or (passage.seen and seen is None):
            await self._thread.call(self._again, selection)
            return None
        count, chunks = copied
        if seen is not None and seen.num_rows != count:
            raise StoreUnavailableError("Two reads of one snapshot gave different numbers of rows.")
        return EncodedRows(after, border, tuple(names), tuple(types), count, chunks, seen)

    def _again(self, selection: Selection) -> None:
        """Let the session read again: what it has given up in the middle may have ended its transaction."""
        self._reading.selected(self._source)
        self._session.bind(selection.settings)

    async def _too_large(self, connection: Any, selection: Selection, where: str) -> WorkFailedError:
        """Say whether it is one row that is larger than a batch may be, or several that share their place."""
        await bind(connection, selection.settings)
        several = f"SELECT 1 FROM (SELECT * FROM {selection.text}) AS selected WHERE {where} LIMIT 2"
        rows = len(await connection.fetch(several))
        return row_too_large(self._bytes) if rows == 1 else ties_too_large(self._bytes, self._plan.order)

    async def decoded(self, rows: EncodedRows) -> pa.Table:
        """Read the rows of a range once more, decoded, in the snapshot that the session has kept."""
        selection = await self._thread.call(self._reading.selected, self._source)
        where = await self._thread.call(self._where, selection)
        where = self._between(selection, where, rows.after, rows.position)
        table = await self._thread.call(self._rows_of, selection, where, [name for name, _ in self._plan.columns])
        assert table is not None
        return table

    def _between(self, selection: Selection, where: str, after: Position | None, border: Position) -> str:
        order = self._plan.order
        upto = selection.after(order, border, name="upto", comparison="<=")
        return f"{where} AND {upto}" + (f" AND {selection.after(order, after)}" if after is not None else "")

    def _rows_of(
        self, selection: Selection, where: str, names: Sequence[str], limit: int | None = None, *, is_seen: bool = False
    ) -> pa.Table | None:
        """Read columns of a range; None when they are `is_seen` beside the bytes and too many for that."""
        columns = tuple(Column(name, kind) for name, kind in self._plan.columns if name in names)
        most = self._bytes * _LONGER_DECODED
        sizes = (most if is_seen else None, most)
        with closing(selection.rows(self._session, _EVERY_ROW, sizes, where=where, only=names, limit=limit)) as parts:
            first = next(parts, None)
            if next(parts, None) is not None:
                return None
        return conform(first if first is not None else pa.table({}), columns)


class _LooksByLink(LooksAtLandings):
    """Asks a connection on the loop, for what runs in a thread."""

    def __init__(self, connection: Any) -> None:
        super().__init__()
        self._connection = connection
        self._loop = asyncio.get_running_loop()

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        asked = asyncio.run_coroutine_threadsafe(self._connection.fetch(sql, *parameters), self._loop)
        return [tuple(row) for row in asked.result()]


class PostgresWriter(IPassingWriter, ISelectingWriter):
    """Commits decoded batches through ADBC, and encoded ones on a connection of their own once the first one comes."""

    def __init__(self, decoded: SqlWriter, checkpoints: Checkpoints, target: Target, watched: Watched) -> None:
        """Each commit is `watched`, as it may wait for the run itself."""
        self._decoded = decoded
        self._checkpoints = checkpoints
        self._landing = landing_of(target)
        self._watched = watched
        self._connect: Callable[[], AbstractAsyncContextManager[Any]] | None = None
        self._open = AsyncExitStack()
        self._connection: Any = None

    @asynccontextmanager
    async def passing(self, links: LinkPool, name: str) -> AsyncIterator["PostgresWriter"]:
        """Let encoded batches take a connection of these while the block lasts."""
        self._connect = lambda: links.link(name)
        try:
            yield self
        finally:
            await self._open.aclose()

    async def commit(self, batch: JudgedBatch, checkpoint: CheckpointUpdate) -> Committed:
        return await self._watched(self._decoded.commit(batch, checkpoint))

    async def commit_encoded(self, rows: EncodedRows, checkpoint: CheckpointUpdate) -> int:
        return await self._watched(self._committed_encoded(rows, checkpoint))

    async def _committed_encoded(self, rows: EncodedRows, checkpoint: CheckpointUpdate) -> int:
        retries = 0
        try:
            await self._commit_encoded(rows, checkpoint)
        except StoreUnavailableError as error:
            if not may_have_committed(error, is_interrupted=False):
                raise
            # The answer to COMMIT may have been lost: the row's lock waits for the old backend, then `seq` is final.
            if not await self._decoded.beside(self._decoded.is_committed, checkpoint):
                await self._commit_encoded(rows, checkpoint)
            retries = 1
        fail_at("batch.after_commit")
        await self._decoded.beside(self._decoded.look_again, checkpoint)
        return retries

    async def commit_selection(
        self, selection: StreamSelection, checkpoint_of: Callable[[int], CheckpointUpdate]
    ) -> int:
        return await self._decoded.commit_selection(selection, checkpoint_of)

    async def _commit_encoded(self, rows: EncodedRows, checkpoint: CheckpointUpdate) -> None:
        assert self._connect is not None
        if self._connection is None:
            self._connection = await self._open.enter_async_context(self._connect())
        fail_at("batch.before_begin")
        try:
            with translated(writes=True):
                await self._lock_landing()
                await self._fill(rows, checkpoint)
                await self._connection.execute("COMMIT")
        except BaseException:
            self._connection.terminate()  # The server rolls back; a ROLLBACK might wait for a peer that is silent.
            self._connection = None
            raise
        fail_at("batch.commit_sent")

    async def _lock_landing(self) -> None:
        """Begin: from here on the table keeps its columns, and its rows stay writable by others. One round trip.

        Before the checkpoint's row: who waits here for somebody's lock, and is given up, keeps nobody from the row.
        """
        try:
            with translated(writes=True):
                await self._connection.execute(f"BEGIN; LOCK TABLE {quote_table(self._landing)} IN ROW EXCLUSIVE MODE")
        except NotFoundError as error:
            raise landing_gone(self._landing) from error

    async def _fill(self, rows: EncodedRows, checkpoint: CheckpointUpdate) -> None:
        connection, landing = self._connection, self._landing
        sql, values = self._checkpoints.advance(checkpoint)
        self._checkpoints.check(await connection.fetch(sql, *values), checkpoint)
        fail_at("batch.after_checkpoint")
        # Where the table is held and nowhere else: another session would wait behind whoever waits for this one's lock.
        await self._decoded.beside(self._check, rows, checkpoint, _LooksByLink(connection))
        await connection.copy_to_table(
            landing.table,
            schema_name=landing.schema,
            columns=list(rows.columns),
            source=_chunks(rows.chunks),
            format="binary",
        )
        fail_at("batch.mid_rows")
        fail_at("batch.before_commit")

    def _check(self, rows: EncodedRows, checkpoint: CheckpointUpdate, looking: LooksAtLandings) -> None:
        """Refuse what would land otherwise than it was read, or behind rows that are gone."""
        natives = {name: kind for name, kind, _ in looking.look_at(self._landing).columns}
        check_landing_types(self._landing, dict(zip(rows.columns, rows.types, strict=True)), natives)
        self._decoded.check_landing(checkpoint.counts.produced - rows.num_rows, looking)


async def _chunks(chunks: Sequence[bytes]) -> AsyncIterator[bytes]:
    """Join what was read in small pieces: fewer, larger writes cost less than the copy."""
    waiting, size = list[bytes](), 0
    for chunk in chunks:
        waiting.append(chunk)
        size += len(chunk)
        if size >= _WRITE_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)
