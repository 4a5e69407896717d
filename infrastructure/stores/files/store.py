"""ISource over local CSV and Parquet files: a source whose files are pinned by size and etag."""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pyarrow as pa

from domain.errors import InvalidInputError, NotFoundError, SourceChangedError, StoreRefusedError
from domain.failpoints import fail_at
from domain.loads.checkpoint import Position
from domain.loads.horizon import ReadEnd
from domain.loads.read_set import SourceFile, SourcePlan, Stream
from domain.loads.way import TEXT_WIRE, Wire
from domain.pipelines.spec import SourceSpec
from domain.ports.data_store import (
    BATCH_BYTES,
    Batch,
    IReader,
    ISource,
    ITextReader,
    SourceBatch,
    StoreHealth,
    TextRows,
    are_large,
)
from domain.runs.lane import LaneOwner
from domain.stores.capabilities import Capabilities
from domain.stores.table import Column, TableName, TableSchema
from infrastructure.bench.in_process import Calls, InProcessBench
from infrastructure.confinement import Confinement
from infrastructure.memory_room import ROOM, Room
from infrastructure.stores.files.csv_parts import Rows, TextPart, TextParts
from infrastructure.stores.files.csv_sample import CsvSample
from infrastructure.stores.files.csv_text import BLOCK_BYTES, CsvFile, Dialect
from infrastructure.stores.files.folders import FolderColumns
from infrastructure.stores.files.formats import differing, format_of, format_of_all, refuse_options_of_csv
from infrastructure.stores.files.matches import forbidden, is_inside, matches, tables_under
from infrastructure.stores.files.opening import FilePlace, readable
from infrastructure.stores.files.parquet_files import ParquetData, columns_of_all, conform_file, note_on_times
from infrastructure.stores.files.parquet_pages import FileLimits
from infrastructure.stores.files.pinned import PinnedFile, pin
from infrastructure.tabular.arrow import rechunk
from infrastructure.threads import OneThread

_PULLED_BYTES = 2 * 1024 * 1024
"""Of text that the destination pulls: its vectors of 2,048 rows are full then, and none of it is copied on the way."""

_FOLDER = "The folder that root of this files connection names {}."
"""Where it is on this machine is no matter of who asks over HTTP."""


class FilesSource(ISource):
    """CSV and Parquet files under one folder; links that lead out of it are refused, and what is hidden is not seen."""

    capabilities = Capabilities(wires=frozenset({TEXT_WIRE.format}), has_paths=True)

    def __init__(
        self,
        root: Path,
        confinement: Confinement | None = None,
        limits: FileLimits | None = None,
        calls: Calls | None = None,
    ) -> None:
        self._root = root
        self._calls = calls or InProcessBench()
        self._limits = limits
        self._confinement = confinement or Confinement(root, (root,))

    async def open(self) -> None:
        self._confinement.check(self._root)
        if not self._root.is_dir():
            raise StoreRefusedError(_FOLDER.format("does not exist"), code="source.folder_missing")

    async def close(self) -> None:
        """Nothing is kept open between reads."""

    async def health_check(self) -> StoreHealth:
        if not self._root.is_dir():
            return StoreHealth(is_healthy=False, step="name", detail=_FOLDER.format("does not exist"))
        if not os.access(self._root, os.R_OK | os.X_OK):
            return StoreHealth(is_healthy=False, step="sign_in", detail=_FOLDER.format("cannot be read"))
        return StoreHealth(is_healthy=True)

    async def tables(self) -> Sequence[TableName]:
        return [TableName(name) for name in await asyncio.to_thread(self._listed)]

    def _listed(self) -> list[str]:
        return tables_under(self._root, self._confinement)

    async def describe(self, table: TableName, *, with_bound: bool = False) -> TableSchema | None:
        options = {"hive_partitioning": True}  # All that there is, whatever a pipeline makes of it.
        source = SourceSpec(path=table.table, format=format_of(table.table), options=options)
        try:
            plan = await self.plan(source, lo=None, limit=None, waits=False)
        except NotFoundError:
            return None
        return TableSchema(table, tuple(Column(name, kind) for name, kind in plan.columns))

    async def read(self, source: SourceSpec, *, batch_rows: int) -> AsyncGenerator[Batch, None]:
        plan = await self.plan(source, lo=None, limit=None)
        async with self.reader(source, plan, plan.streams[0], batch_rows=batch_rows) as reader:
            async with aclosing(reader.batches(None)) as batches:
                async for batch in batches:
                    yield batch.data

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
        if source.path is None:
            raise InvalidInputError("A files source names a path.", code="source.kind")
        if source.cursor is not None:
            raise InvalidInputError("Files have no cursor; leave it out.", code="source.cursor_unsupported")
        thread = OneThread("files-plan")
        try:
            is_looked_at = limit is not None or not waits  # By somebody of whom there may be any number, and no run.
            return await thread.call(self._plan, source, limit, ROOM if is_looked_at else None)
        finally:
            thread.close()

    def _plan(self, source: SourceSpec, limit: int | None, room: Room | None) -> SourcePlan:
        paths = matches(self._root, source.path or "", self._confinement)
        names = [path.relative_to(self._root).as_posix() for path in paths]
        may_be_read = readable(self._root, self._confinement)
        places = [FilePlace(path, may_be_read) for path in paths]
        is_csv = (source.format or format_of_all(names)) == "csv"
        sample, note = None, None
        if is_csv:
            dialect = Dialect.of(source.options)
            files = [CsvFile(place, name, dialect) for place, name in zip(places, names, strict=True)]
            folders = FolderColumns.of(names, files[0].header(), source.options)
            sample = CsvSample.of(files, source.options.get("types") or {}, folders.columns)
            columns, note = sample.columns, sample.note
        else:
            more = (self._limits, self._calls, room)
            found = [ParquetData(place, name, *more) for place, name in zip(places, names, strict=True)]
            columns, note = columns_of_all(found), note_on_times(found[0])
            folders = FolderColumns.of(names, [name for name, _ in columns], source.options)
            refuse_options_of_csv(source.options, [n for n, _ in columns], [n for n, _ in folders.columns])
            columns += folders.columns
        for name in source.key:
            if name not in dict(columns):
                raise InvalidInputError(f"The files have no column {name}.", code="source.column_missing")
        return SourcePlan(
            columns=columns,
            streams=(Stream("0"),),
            ordered=True,
            files=self._pinned(paths),
            limit=limit,
            is_text=is_csv,
            note=note,
            guessed=sample.guessed if sample else (),
            unproved=sample.unproved if sample else (),
        )

    def _pinned(self, paths: Sequence[Path]) -> tuple[SourceFile, ...]:
        """Say which files were looked at, once more where they lie: a link may have come in the place of one."""
        permits = self._confinement.permits()
        if not all(map(permits, paths)):
            raise forbidden()
        return tuple(pin(path, path.relative_to(self._root).as_posix()) for path in paths)

    async def count(self, source: SourceSpec, plan: SourcePlan) -> int:
        total = 0
        async with self.reader(source, plan, plan.streams[0], batch_rows=100_000) as reader:
            async for batch in reader.batches(None):
                total += batch.data.num_rows
        return min(total, plan.limit) if plan.limit is not None else total

    async def wire(self, source: SourceSpec) -> Wire | None:
        return TEXT_WIRE if (source.format or format_of(source.path or "")) == "csv" else None

    @asynccontextmanager
    async def snapshot(
        self, source: SourceSpec, *, readers: int = 1, undecoded: bool = False, by: LaneOwner | None = None
    ) -> AsyncIterator[str | None]:
        yield None  # Files are pinned by size and etag instead.

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
        thread = OneThread("files-read")
        try:
            place = (self._root, self._confinement, self._limits, self._calls)
            yield FilesReader(place, thread, source, plan, (batch_rows, batch_bytes))
        finally:
            thread.close()


class FilesReader(ITextReader):
    """Reads pinned files one after the other; a position is (file, rows of it)."""

    def __init__(
        self,
        place: tuple[Path, Confinement, FileLimits | None, Calls],
        thread: OneThread,
        source: SourceSpec,
        plan: SourcePlan,
        size: tuple[int, int],
    ) -> None:
        self._root, self._confinement, self._limits, self._calls = place
        self._thread = thread
        self._source = source
        self._plan = plan
        self._size = size

    async def batches(self, after: Position | None, *, limit: int | None = None) -> AsyncGenerator[SourceBatch, None]:
        async with aclosing(
            self._thread.iterate(self._read(after, limit), is_large=lambda batch: are_large(batch.data))
        ) as batches:
            async for batch in batches:
                fail_at("extract.mid_page")
                yield batch

    def _read(self, after: Position | None, limit: int | None) -> Generator[SourceBatch]:
        first, skip = (int(after[0]), int(after[1])) if after else (0, 0)
        for index, file in enumerate(self._plan.files[first:], start=first):
            done = skip if index == first else 0
            # A run has a process's workers to bound it, and must not fail since somebody looks at a file.
            room = ROOM if limit is not None else None
            for rows in rechunk(self._record_batches(file, done, room=room), *self._size):
                self._check_columns(rows.column_names, file)
                if limit is not None:
                    rows = rows.slice(0, limit)
                    limit -= rows.num_rows
                if rows.num_rows:
                    done += rows.num_rows
                    yield SourceBatch(self._as_planned(rows, file.path), (str(index), str(done)))
                del rows
                if limit == 0:  # What comes behind may be large.
                    return

    async def texts(self, after: Position | None, *, max_rows: int, max_bytes: int) -> AsyncGenerator[TextRows, None]:
        parts = TextParts([name for name, _ in self._plan.columns], self._read_texts(after))
        try:
            while await self._thread.call(parts.has_more):
                yield TextPart(parts, max_rows, max_bytes)
        finally:
            await self._thread.call(parts.close)

    def _read_texts(self, after: Position | None) -> Generator[Rows]:
        first, skip = (int(after[0]), int(after[1])) if after else (0, 0)
        names = [name for name, _ in self._plan.columns]
        for index, file in enumerate(self._plan.files[first:], start=first):
            done = skip if index == first else 0
            for batch in self._record_batches(file, done, _PULLED_BYTES):
                self._check_columns(batch.schema.names, file)
                done += batch.num_rows
                fail_at("extract.mid_page")
                yield (str(index), str(done)), batch.select(names)

    def _check_columns(self, names: Sequence[str], file: SourceFile) -> None:
        planned = [name for name, _ in self._plan.columns]
        if set(names) != set(planned):
            raise SourceChangedError(differing("the read set", planned, file.path, names))

    def _as_planned(self, rows: pa.Table, name: str) -> pa.Table:
        """The columns in their order, and those of Parquet in the form in which their types travel."""
        if self._plan.is_text:
            return rows.select([name for name, _ in self._plan.columns])
        return conform_file(rows, self._plan.columns, name)

    def _pinned(self, file: SourceFile) -> PinnedFile:
        path = self._root / file.path

        def check_place() -> None:
            if not is_inside(path, self._root):
                raise forbidden()
            self._confinement.check(path)

        return PinnedFile(path, file, check_place)

    def _record_batches(
        self, file: SourceFile, skip: int, block_bytes: int = BLOCK_BYTES, room: Room | None = None
    ) -> Iterator[pa.RecordBatch]:
        """The rows behind the first `skip`, with the columns that the file's folders tell."""
        told, pinned = None, self._pinned(file)
        pinned.check()
        for batch in pinned.watched(self._all_batches(pinned, block_bytes, room)):
            if skip >= batch.num_rows:
                skip -= batch.num_rows
                continue
            if told is None:
                told = self._told(file.path, batch.schema.names)
            yield _with(batch.slice(skip), told)
            skip = 0

    def _told(self, path: str, names: list[str]) -> dict[str, pa.Scalar]:
        if not self._source.options.get("hive_partitioning"):
            return {}
        columns = tuple((name, kind) for name, kind in self._plan.columns if name not in names)
        return FolderColumns(columns).scalars(path, is_text=self._plan.is_text)

    def _all_batches(self, pinned: PinnedFile, block_bytes: int, room: Room | None) -> Iterator[pa.RecordBatch]:
        name = pinned.file.path
        if self._plan.is_text:
            # Of blocks, Arrow has 32 in hand.
            yield from self._csv(name).batches(min(block_bytes, self._size[1] // 16), room, pinned.check)
            return
        data = ParquetData(self._place(name), name, self._limits)
        data.check_footer(self._calls)
        yield from data.batches(*self._size, room)

    def _place(self, name: str) -> FilePlace:
        return FilePlace(self._root / name, readable(self._root, self._confinement))

    def _csv(self, name: str) -> CsvFile:
        return CsvFile(self._place(name), name, Dialect.of(self._source.options), longest_row_bytes=self._size[1])

    async def place(self, batch: SourceBatch, ordinal: int) -> str | None:
        index, done = (int(part) for part in batch.position or ())
        file, row = self._plan.files[index], done - batch.data.num_rows + ordinal
        if not self._plan.is_text:
            return f"{file.path}, row {row + 1}"
        line = await self._thread.call(self._csv(file.path).line_of, row)
        return f"{file.path}, line {line}"


def _with(batch: pa.RecordBatch, told: Mapping[str, pa.Scalar]) -> pa.RecordBatch:
    for name, value in told.items():
        batch = batch.append_column(name, pa.repeat(value, batch.num_rows))
    return batch
