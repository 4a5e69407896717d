"""A Parquet footer takes many times its bytes in memory: how large it is is asked first, and of a large one a child."""

import asyncio
import gc
import struct
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from domain.errors import InvalidInputError, UnavailableError
from domain.pipelines.spec import SourceSpec
from domain.stores.table import TableName
from infrastructure import memory_room
from infrastructure.bench.in_process import InProcessBench
from infrastructure.memory_room import Room
from infrastructure.queries import parquet_footers
from infrastructure.stores.files import parquet_files
from infrastructure.stores.files.parquet_files import ParquetData
from infrastructure.stores.files.parquet_pages import FileLimits
from infrastructure.stores.files.store import FilesSource

pytestmark = pytest.mark.line("29")
P, T = ParamSpec("P"), TypeVar("T")
KIB = 1024


class Counting(InProcessBench):
    """Counts what is asked of a child."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        self.asked += 1
        return super().call(function, *args, **kwargs)


def _file(folder: Path, metadata_bytes: int) -> Path:
    path = folder / "f.parquet"
    pq.write_table(pa.table({"n": [1, 2]}).replace_schema_metadata({"k": "v" * metadata_bytes}), path)
    return path


@pytest.mark.parametrize("look", ["columns", "schema", "no_rows", "times_in_utc", "batches", "plan", "describe"])
def test_a_footer_that_is_larger_than_it_may_be_is_not_read(tmp_path: Path, look: str) -> None:
    path = _file(tmp_path, 70 * KIB)

    def looked(limits: FileLimits) -> Any:
        store = FilesSource(tmp_path, limits=limits)
        if look == "plan":
            return asyncio.run(store.plan(SourceSpec(path=path.name), lo=None, limit=None)).columns
        if look == "describe":
            return asyncio.run(_described(store, path.name))
        data = ParquetData(path, path.name, limits)
        return list(data.batches(10)) if look == "batches" else getattr(data, look)()

    assert looked(FileLimits()) is not None
    with pytest.raises(InvalidInputError, match=r"f\.parquet has 1\d\d,\d+ bytes; it may have 65,536") as refused:
        looked(FileLimits(footer_bytes=64 * KIB))
    assert refused.value.code == "file.footer_too_large"


async def _described(store: FilesSource, name: str) -> Any:
    return (await store.describe(next(table for table in await store.tables() if table.table == name))).columns  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "end", [b"PAR1", b"", struct.pack("<I4s", 2**32 - 1, b"PAR1"), struct.pack("<I4s", 99, b"nope")]
)
def test_what_has_no_footer_is_told_as_damaged(tmp_path: Path, end: bytes) -> None:
    path = tmp_path / "f.parquet"
    path.write_bytes(b"PAR1" + b"x" * (200 if end[4:] else 0) + end)
    with pytest.raises(InvalidInputError, match="is not Parquet, damaged, or encrypted"):
        ParquetData(path, "f.parquet", FileLimits(footer_bytes=64)).schema()


async def test_a_large_footer_is_looked_at_by_a_child_once_before_it_is_read_in_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_files, "COPIES", 2_000)
    monkeypatch.setattr(parquet_files, "LOOKED_AT_BYTES", 64 * KIB)
    room = Room(patience_seconds=0)
    monkeypatch.setattr("infrastructure.stores.files.store.ROOM", room)
    for size, asked in ((100, 0), (70 * KIB, 1)):
        calls = Counting()
        source, store = SourceSpec(path=_file(tmp_path, size).name), FilesSource(tmp_path, calls=calls)
        plan = await store.plan(source, lo=None, limit=10)
        assert calls.asked == asked
        with room.taken(512 * KIB * KIB):  # Somebody else looks at something large.
            await store.plan(source, lo=None, limit=None)  # A run does not wait.
            for look in (
                store.plan(source, lo=None, limit=10),
                store.plan(source, lo=None, limit=None, waits=False),
                store.describe(TableName(str(source.path))),
            ):
                with pytest.raises(UnavailableError) if asked else nullcontext():
                    await look
        async with store.reader(source, plan, plan.streams[0], batch_rows=5) as reader:
            assert sum([batch.data.num_rows async for batch in reader.batches(None, limit=10)]) == 2


@pytest.mark.parametrize("most", ["_MOST_COLUMNS", "_MOST_KEYS"])
def test_a_footer_of_more_columns_or_keys_than_anybody_reads_is_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: str
) -> None:
    path = tmp_path / "f.parquet"
    rows = pa.table({f"c{number}": [1] for number in range(20)})
    pq.write_table(rows.replace_schema_metadata({f"k{number}": "" for number in range(19)}), path)
    monkeypatch.setattr(parquet_footers, most, 20)
    ParquetData(path, "f.parquet").check_footer(InProcessBench())
    monkeypatch.setattr(parquet_footers, most, 19)
    with pytest.raises(InvalidInputError, match="too many columns, row groups or keys of metadata"):
        ParquetData(path, "f.parquet").check_footer(InProcessBench())


class Circle:
    """Refers to itself, as the metadata of a file does once its schema was asked for."""

    def __init__(self) -> None:
        self.own = self


def test_what_refers_to_itself_is_gone_where_the_room_for_it_is_free_again(monkeypatch: pytest.MonkeyPatch) -> None:
    trimmed: list[bool] = []
    given_back = memory_room.give_back
    monkeypatch.setattr(memory_room, "give_back", lambda: (given_back(), trimmed.append(circle() is None)))
    gc.disable()
    try:
        for size, are_given_back in ((memory_room.LARGE, []), (memory_room.LARGE + 1, [True])):
            circle = weakref.ref(Circle())
            with Room().taken(size):
                assert circle() is not None
            assert trimmed == are_given_back
    finally:
        gc.enable()
