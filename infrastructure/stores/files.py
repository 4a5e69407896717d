"""IDataStore over local CSV and Parquet files: a source whose files are pinned by size and etag."""

import os
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from domain.errors import InvalidInputError, NotFoundError, SourceChangedError, StoreRefusedError
from domain.failpoints import fail_at
from domain.pipelines.checkpoint import LaneState, Position
from domain.pipelines.horizon import ReadEnd
from domain.pipelines.quarantine import Refusals, RefusedRow
from domain.pipelines.read_set import Lane, SourceFile, SourcePlan, Stream
from domain.pipelines.spec import SourceSpec
from domain.pipelines.table import Column, TableName, TableSchema
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
from infrastructure.arrow import columns_of, conform, rechunk
from infrastructure.stores.csv_sample import CsvSample
from infrastructure.stores.csv_text import CsvFile, Dialect
from infrastructure.threads import OneThread


class FilesDataStore(IDataStore):
    """CSV and Parquet files under one folder; links that lead out of it are refused."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def open(self) -> None:
        if not self._root.is_dir():
            raise StoreRefusedError(
                f"The folder {self._root} of a files connection does not exist.", code="source.folder_missing"
            )

    async def close(self) -> None:
        """Nothing is kept open between reads."""

    async def health_check(self) -> StoreHealth:
        if not self._root.is_dir():
            return StoreHealth(is_healthy=False, step="name", detail=f"The folder {self._root} does not exist.")
        if not os.access(self._root, os.R_OK | os.X_OK):
            return StoreHealth(is_healthy=False, step="sign_in", detail=f"The folder {self._root} cannot be read.")
        return StoreHealth(is_healthy=True)

    async def tables(self) -> Sequence[TableName]:
        found = sorted(
            path.relative_to(self._root).as_posix()
            for path in self._root.rglob("*")
            if path.is_file() and _format_of(path.name) is not None
        )
        return [TableName(name) for name in found]

    async def describe(self, table: TableName) -> TableSchema | None:
        source = SourceSpec(path=table.table, format=_format_of(table.table))
        try:
            plan = await self.plan(source, lo=None, limit=None)
        except NotFoundError:
            return None
        return TableSchema(table, tuple(Column(name, kind) for name, kind in plan.columns))

    async def read(self, source: SourceSpec, *, batch_rows: int) -> AsyncGenerator[Batch, None]:
        plan = await self.plan(source, lo=None, limit=None)
        async with self.reader(source, plan, plan.streams[0], batch_rows=batch_rows) as reader:
            async with aclosing(reader.batches(None)) as batches:
                async for batch in batches:
                    yield batch.data

    async def write(self, table: TableName, batches: Sequence[Batch]) -> int:
        raise _read_only()

    async def refused_rows(self, refusals: Refusals, *, after: Position | None, limit: int) -> Sequence[RefusedRow]:
        raise _read_only()

    async def refused_shapes(self, refusals: Refusals) -> Sequence[str]:
        raise _read_only()

    async def plan(
        self,
        source: SourceSpec,
        *,
        lo: str | None,
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
            return await thread.call(self._plan, source, limit)
        finally:
            thread.close()

    def _plan(self, source: SourceSpec, limit: int | None) -> SourcePlan:
        paths = self._matches(source.path or "")
        is_csv = (source.format or _format_of(paths[0].name)) == "csv"
        sample = None
        if is_csv:
            dialect = Dialect.of(source.options)
            files = [CsvFile(path, path.relative_to(self._root).as_posix(), dialect) for path in paths]
            sample = CsvSample.of(files, dict(source.options.get("types") or {}))
        columns = sample.columns if sample else _parquet_columns(paths[0])
        for name in source.key:
            if name not in dict(columns):
                raise InvalidInputError(f"The files have no column {name}.", code="source.column_missing")
        return SourcePlan(
            columns=columns,
            streams=(Stream("0"),),
            ordered=True,
            files=tuple(self._pin(path) for path in paths),
            limit=limit,
            is_text=is_csv,
            note=sample.note if sample else None,
            guessed=sample.guessed if sample else (),
            unproved=sample.unproved if sample else (),
        )

    def _matches(self, pattern: str) -> list[Path]:
        if pattern.startswith(("/", "~")) or ".." in Path(pattern).parts:
            raise _forbidden()
        root = self._root.resolve()
        found = sorted(self._root.glob(pattern))
        paths = [path for path in found if path.is_file()]
        if not paths:
            what = f"{pattern} is a folder" if found else f"No file matches {pattern}"
            raise NotFoundError(f"{what} under {self._root}; write a pattern such as *.csv.", code="file.not_found")
        for path in paths:
            if not path.resolve().is_relative_to(root):
                raise _forbidden()
        return paths

    def _pin(self, path: Path) -> SourceFile:
        status = path.stat()
        return SourceFile(path.relative_to(self._root).as_posix(), status.st_size, str(status.st_mtime_ns))

    async def count(self, source: SourceSpec, plan: SourcePlan) -> int:
        total = 0
        async with self.reader(source, plan, plan.streams[0], batch_rows=100_000) as reader:
            async for batch in reader.batches(None):
                total += batch.data.num_rows
        return min(total, plan.limit) if plan.limit is not None else total

    async def lane_state(self, lane: Lane, table: TableName) -> LaneState:
        raise _read_only()

    def owner(
        self, lane: Lane, table: TableName, fence: int, *, token: str | None = None
    ) -> AbstractAsyncContextManager[IOwner]:
        raise _read_only()

    @asynccontextmanager
    async def snapshot(
        self, source: SourceSpec, *, readers: int = 1, undecoded: bool = False
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
    ) -> AsyncIterator[IReader]:
        thread = OneThread("files-read")
        try:
            yield FilesReader(self._root, thread, source, plan, (batch_rows, batch_bytes))
        finally:
            thread.close()

    def writer(
        self, lane: Lane, target: Target, read_set_id: str, stream: str, fence: int, token: str
    ) -> AbstractAsyncContextManager[IWriter]:
        raise _read_only()


class FilesReader(IReader):
    """Reads pinned files one after the other; a position is (file, rows of it)."""

    def __init__(
        self, root: Path, thread: OneThread, source: SourceSpec, plan: SourcePlan, size: tuple[int, int]
    ) -> None:
        self._root = root
        self._thread = thread
        self._source = source
        self._plan = plan
        self._size = size

    async def batches(self, after: Position | None, *, limit: int | None = None) -> AsyncGenerator[SourceBatch, None]:
        async with aclosing(self._thread.iterate(self._read(after, limit))) as batches:
            async for batch in batches:
                fail_at("extract.mid_page")
                yield batch

    def _read(self, after: Position | None, limit: int | None) -> Generator[SourceBatch]:
        first, skip = (int(after[0]), int(after[1])) if after else (0, 0)
        names = [name for name, _ in self._plan.columns]
        for index, file in enumerate(self._plan.files[first:], start=first):
            path = self._root / file.path
            self._check(path, file)
            done = skip if index == first else 0
            for rows in rechunk(self._record_batches(path, file.path, done), *self._size):
                if set(rows.column_names) != set(names):
                    raise SourceChangedError(f"The columns of {file.path} differ from the first file's.")
                if limit is not None:
                    rows = rows.slice(0, limit)
                    limit -= rows.num_rows
                if not rows.num_rows:
                    return
                done += rows.num_rows
                yield SourceBatch(self._as_planned(rows), (str(index), str(done)))

    def _as_planned(self, rows: pa.Table) -> pa.Table:
        """The columns in their order, and those of Parquet in the form in which their types travel."""
        if self._plan.is_text:
            return rows.select([name for name, _ in self._plan.columns])
        return conform(rows, [Column(name, kind) for name, kind in self._plan.columns])

    def _check(self, path: Path, file: SourceFile) -> None:
        try:
            status = path.stat()
        except OSError as error:
            raise SourceChangedError(f"The file {file.path} of the read set is gone.") from error
        if (status.st_size, str(status.st_mtime_ns)) != (file.size_bytes, file.etag):
            raise SourceChangedError(
                f"The file {file.path} changed after the read set was planned; start again with --full-refresh or reset."
            )

    def _record_batches(self, path: Path, name: str, skip: int) -> Iterator[pa.RecordBatch]:
        for batch in self._all_batches(path, name):
            if skip >= batch.num_rows:
                skip -= batch.num_rows
                continue
            yield batch.slice(skip)
            skip = 0

    def _all_batches(self, path: Path, name: str) -> Iterator[pa.RecordBatch]:
        if self._plan.is_text:
            yield from self._csv(path, name).batches()
            return
        try:
            with pq.ParquetFile(path) as parquet:
                yield from parquet.iter_batches(batch_size=self._size[0])
        except pa.ArrowInvalid as error:
            raise SourceChangedError(f"The file {path.name} cannot be read: it is not well formed.") from error

    def _csv(self, path: Path, name: str) -> CsvFile:
        return CsvFile(path, name, Dialect.of(self._source.options), longest_row_bytes=self._size[1])

    async def place(self, batch: SourceBatch, ordinal: int) -> str | None:
        index, done = (int(part) for part in batch.position or ())
        file, row = self._plan.files[index], done - batch.data.num_rows + ordinal
        if not self._plan.is_text:
            return f"{file.path}, row {row + 1}"
        line = await self._thread.call(self._csv(self._root / file.path, file.path).line_of, row)
        return f"{file.path}, line {line}"


def _parquet_columns(path: Path) -> tuple[tuple[str, str], ...]:
    try:
        schema = pq.read_schema(path)
    except pa.ArrowInvalid as error:
        raise InvalidInputError(f"The file {path.name} is not Parquet.", code="file.malformed") from error
    return tuple((column.name, column.type) for column in columns_of(schema))


def _format_of(name: str) -> str | None:
    lowered = name.lower()
    for ending in (".gz", ".bz2", ".zst"):
        lowered = lowered.removesuffix(ending)
    return {".csv": "csv", ".parquet": "parquet"}.get(Path(lowered).suffix)


def _forbidden() -> InvalidInputError:
    return InvalidInputError("A path stays inside the folder of its connection.", code="path.forbidden")


def _read_only() -> InvalidInputError:
    return InvalidInputError("A files connection can only be read from.", code="connection.read_only")
