"""Small files that stand for a lot: read in parts that fit, or refused by name, and never in memory as a whole."""

import gzip
import random
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from domain.errors import InvalidInputError
from domain.pipelines.spec import SourceSpec
from infrastructure.stores.files.csv_text import CsvFile, Dialect
from infrastructure.stores.files.parquet_files import ParquetData
from infrastructure.stores.files.parquet_pages import FileLimits
from infrastructure.stores.files.store import FilesSource

pytestmark = pytest.mark.line("29")
MIB = 1024 * 1024


def written(folder: Path, column: pa.Array, **options: Any) -> Path:
    path = folder / "bomb.parquet"
    pq.write_table(pa.table({"n": column}), path, compression="zstd", **options)
    return path


def zeros(count: int, kind: pa.DataType = pa.int64()) -> pa.Array:  # noqa: B008
    return pa.repeat(pa.scalar(0, kind), count)


def repeated(text: str, rows: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(zeros(rows, pa.int32()), pa.array([text]))


def test_one_long_text_for_each_of_many_rows_is_read_a_few_rows_at_a_time(tmp_path: Path) -> None:
    path = written(tmp_path, repeated("x" * MIB, 3000))
    assert path.stat().st_size < 10_000
    rows = 0
    for batch in ParquetData(path, "bomb").batches(50_000, 16 * MIB):
        assert batch.nbytes <= 20 * MIB
        rows += batch.num_rows
    assert rows == 3000
    assert [batch.num_rows for batch in ParquetData(written(tmp_path, repeated("x", 3000)), "x").batches(50_000)] == [
        3000
    ]


async def test_a_store_reads_it_in_batches_of_bytes(tmp_path: Path) -> None:
    written(tmp_path, repeated("x" * MIB, 200))
    store, source = FilesSource(tmp_path), SourceSpec(path="bomb.parquet")
    plan = await store.plan(source, lo=None, limit=None)
    rows = 0
    async with store.reader(source, plan, plan.streams[0], batch_rows=50_000, batch_bytes=8 * MIB) as reader:
        async for batch in reader.batches(None):
            assert batch.data.nbytes <= 9 * MIB
            rows += batch.data.num_rows
    assert rows == 200


def test_many_rows_of_nothing_are_many_batches(tmp_path: Path) -> None:
    path = written(tmp_path, zeros(3_000_000), row_group_size=3_000_000)
    assert path.stat().st_size < 50_000
    sizes = [batch.num_rows for batch in ParquetData(path, "bomb").batches(100_000, MIB)]
    assert max(sizes) <= 131_072
    assert sum(sizes) == 3_000_000


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_a_page_that_is_unpacked_to_more_than_it_may_is_refused(tmp_path: Path, version: str) -> None:
    path = written(tmp_path, pa.array(["x" * 16 * MIB]), use_dictionary=False, data_page_version=version)
    assert path.stat().st_size < 50_000
    assert sum(batch.num_rows for batch in ParquetData(path, "bomb").batches(100_000)) == 1
    with pytest.raises(InvalidInputError, match="HEADRACE_LIMITS__PAGE_BYTES") as caught:
        next(ParquetData(path, "bomb", FileLimits(page_bytes=8 * MIB)).batches(100_000))
    assert caught.value.code == "file.page_too_large"


def test_a_dictionary_that_is_unpacked_to_more_than_it_may_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, repeated("x" * 4 * MIB, 10))
    assert sum(batch.num_rows for batch in ParquetData(path, "bomb").batches(100)) == 10
    with pytest.raises(InvalidInputError) as caught:
        next(ParquetData(path, "bomb", FileLimits(page_bytes=MIB)).batches(100))
    assert caught.value.code == "file.page_too_large"


def test_lists_that_may_all_be_one_rows_are_bounded_by_their_ratio(tmp_path: Path) -> None:
    limits = FileLimits(page_bytes=4 * MIB)
    numbers = pa.Array.from_buffers(pa.int64(), 1_200_000, [None, pa.py_buffer(random.Random(1).randbytes(9_600_000))])
    for values, is_refused in ((zeros(1_200_000), True), (numbers, False)):
        lists = pa.ListArray.from_arrays(pa.array([0, 400_000, 800_000, 1_200_000], pa.int32()), values)
        path = written(tmp_path, lists, data_page_size=MIB)
        reading = ParquetData(path, "bomb", limits).batches(100)
        if is_refused:
            with pytest.raises(InvalidInputError, match="HEADRACE_LIMITS__FILE_RATIO") as caught:
                next(reading)
            assert caught.value.code == "file.ratio"
        else:
            assert sum(batch.num_rows for batch in reading) == 3


@pytest.mark.parametrize("place", range(4, 60, 5))
def test_damaged_headers_of_pages_are_told_as_damage(tmp_path: Path, place: int) -> None:
    path = written(tmp_path, pa.array(range(1000)))
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(content)
    with suppress(InvalidInputError):  # And nothing else: what is damaged may still be told as another number of rows.
        list(ParquetData(path, "bomb").batches(100))


def packed(path: Path, beginning: bytes, chunk: bytes, times: int, end: bytes = b"") -> Path:
    with gzip.open(path, "wb", 1) as file:
        file.write(beginning)
        for _ in range(times):
            file.write(chunk)
        file.write(end)
    return path


@pytest.fixture
def peak() -> Iterator[list[int]]:
    """What Python had at most, in bytes, once it is asked for."""
    tracemalloc.start()
    found: list[int] = []
    yield found
    time.sleep(
        0.2
    )  # Arrow's threads read ahead a moment longer, and Python 3.11 crashes if tracing stops while they allocate.
    tracemalloc.stop()


TEXTS = {
    "one line": (b"id,n\n1,", b"x" * MIB, b""),
    "a quote that is never closed": (b'id,n\n1,"', b"xxxxxxx\n" * (MIB // 8), b""),
    "lines within quotes": (b"id,n\n1", b',"aaaaaaaaaaaaaaaaaaaaa\n"' * (MIB // 26), b""),
    "a line behind rows": (b"id,n\n1,2\n3,4\n5,", b"x" * MIB, b""),
    "a header": (b"", b"x," * (MIB // 2), b""),
    "lines that are skipped": (b"", b"x" * MIB, b"\nid,n\n1,2,3\n"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_row_without_end_is_refused_and_never_in_memory(tmp_path: Path, peak: list[int], name: str) -> None:
    beginning, chunk, end = TEXTS[name]
    path = packed(tmp_path / "bomb.csv.gz", beginning, chunk, 8 if "skipped" in name else 64, end)
    assert path.stat().st_size < 2 * MIB
    file = CsvFile(path, "bomb", Dialect(skip_rows=1 if "skipped" in name else 0), longest_row_bytes=MIB)

    with pytest.raises(InvalidInputError) as caught:
        list(file.batches())

    peak.append(tracemalloc.get_traced_memory()[1])
    expected = "file.malformed" if "header" in name or "skipped" in name else "source.row_too_large"
    assert caught.value.code == expected
    if "behind" in name:
        assert "line 4" in caught.value.message
    assert peak[0] < 40 * MIB  # Of 64; some blocks are read ahead.


def test_well_compressed_rows_are_read_to_their_end(tmp_path: Path, peak: list[int]) -> None:
    path = packed(tmp_path / "rows.csv.gz", b"id,n\n", (b"1," + b"x" * 97 + b"\n") * 10_000, 40)
    file = CsvFile(path, "rows", Dialect(), longest_row_bytes=MIB)

    assert sum(batch.num_rows for batch in file.batches()) == 400_000
    peak.append(tracemalloc.get_traced_memory()[1])
    assert peak[0] < 20 * MIB


def test_a_header_of_many_columns_is_checked_in_linear_time(tmp_path: Path) -> None:
    names = ",".join(f"c{number}" for number in range(120_000))
    (tmp_path / "wide.csv").write_text(f"{names}\n")
    assert len(CsvFile(tmp_path / "wide.csv", "wide", Dialect()).header()) == 120_000
    (tmp_path / "wide.csv").write_text(f"{names},c5\n")
    with pytest.raises(InvalidInputError, match="two columns are named c5"):
        CsvFile(tmp_path / "wide.csv", "wide", Dialect()).header()


@pytest.mark.parametrize("kind", ["plain", "struct", "struct in a struct", "list", "large list", "fixed list", "map"])
async def test_a_long_text_that_rows_share_counts_for_each_wherever_it_is(tmp_path: Path, kind: str) -> None:
    shared, places = repeated("x" * 20_000, 3000), pa.array(range(3001), pa.int32())
    columns = {
        "plain": lambda: shared,
        "struct": lambda: pa.StructArray.from_arrays([shared], ["a"]),
        "struct in a struct": lambda: pa.StructArray.from_arrays([pa.StructArray.from_arrays([shared], ["a"])], ["b"]),
        "list": lambda: pa.ListArray.from_arrays(places, shared),
        "large list": lambda: pa.LargeListArray.from_arrays(places.cast(pa.int64()), shared),
        "fixed list": lambda: pa.FixedSizeListArray.from_arrays(shared, 1),
        "map": lambda: pa.MapArray.from_arrays(places, pa.array([str(n) for n in range(3000)]), shared),
    }
    written(tmp_path, columns[kind]())
    assert (tmp_path / "bomb.parquet").stat().st_size < 100_000
    store, source = FilesSource(tmp_path, limits=FileLimits(ratio=10**9)), SourceSpec(path="bomb.parquet")
    plan = await store.plan(source, lo=None, limit=None)
    rows = 0
    async with store.reader(source, plan, plan.streams[0], batch_rows=50_000, batch_bytes=MIB) as reader:
        async for batch in reader.batches(None):
            assert batch.data.nbytes <= 3 * MIB
            rows += batch.data.num_rows
    assert rows == 3000
