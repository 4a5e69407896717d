"""Parquet files that say other things of themselves than they are, or hide how large they are where nobody looks."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from domain.errors import InvalidInputError, WorkFailedError
from infrastructure.stores.files.parquet_deltas import GREATEST, greatest
from infrastructure.stores.files.parquet_files import ParquetData
from infrastructure.stores.files.parquet_headers import pages
from infrastructure.stores.files.parquet_pages import most_at_a_time
from tests.security.test_file_bombs import repeated, zeros

pytestmark = pytest.mark.line("29")
MIB = 1024 * 1024


def written(folder: Path, columns: dict[str, Any], **options: Any) -> ParquetData:
    path = folder / "hostile.parquet"
    pq.write_table(pa.table(columns), path, **{"compression": "zstd", **options})
    return ParquetData(path, "hostile")


def fits(file: ParquetData, rows: int, size: int, expected: int) -> None:
    read = 0
    for batch in file.batches(rows, size):
        assert batch.nbytes <= 1.1 * size
        read += batch.num_rows
    assert read == expected


SHAPES: dict[str, dict[str, Any]] = {
    "the beginning of a text is that of the one before": {"column_encoding": {"n": "DELTA_BYTE_ARRAY"}, "data_page_size": 1 << 30},
    "lengths stand in front": {"column_encoding": {"n": "DELTA_LENGTH_BYTE_ARRAY"}, "data_page_size": MIB, "write_batch_size": 1},
    "each text has a page of its own": {"data_page_size": 1000, "write_batch_size": 1},
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_long_texts_are_read_a_few_rows_at_a_time_however_they_are_kept(
    tmp_path: Path, shape: str, version: str
) -> None:
    options = {"use_dictionary": False, "data_page_version": version, **SHAPES[shape]}
    file = written(tmp_path, {"n": pa.array(["x" * (MIB // 4)] * 100)}, **options)
    assert (tmp_path / "hostile.parquet").stat().st_size < 50_000
    fits(file, 50_000, 2 * MIB, 100)
    small = [f"{number:05}" for number in range(5000)]
    plain = written(tmp_path, {"n": [None, *small]}, **options)
    assert pa.concat_arrays([batch.column(0) for batch in plain.batches(50_000)]).to_pylist() == [None, *small]
    assert len(list(plain.batches(50_000))) == 1


def test_columns_whose_dictionaries_are_small_each_are_large_together(tmp_path: Path) -> None:
    columns: dict[str, Any] = {f"c{number}": repeated("x" * 2000, 500) for number in range(30)}
    fits(written(tmp_path, columns), 500, MIB, 500)
    assert len(list(written(tmp_path, columns).batches(500, 64 * MIB))) == 1


def test_a_list_of_texts_may_not_be_far_more_than_its_bytes(tmp_path: Path) -> None:
    from infrastructure.stores.files.parquet_pages import FileLimits

    texts = pa.array([["x" * MIB] for _ in range(12)])
    file = written(tmp_path, {"n": texts}, use_dictionary=False, data_page_size=1000, write_batch_size=1)
    assert sum(batch.num_rows for batch in file.batches(100)) == 12
    hostile = ParquetData(tmp_path / "hostile.parquet", "hostile", FileLimits(page_bytes=4 * MIB))
    with pytest.raises(InvalidInputError) as caught:
        list(hostile.batches(100, 4 * MIB))
    assert caught.value.code == "file.ratio"


def test_bytes_of_one_length_that_are_none_take_room_too(tmp_path: Path) -> None:
    file = written(tmp_path, {"n": pa.nulls(3, pa.binary(2 * MIB))})
    with pytest.raises(WorkFailedError) as caught:
        list(file.batches(100, MIB))
    assert caught.value.code == "source.row_too_large"
    assert sum(batch.num_rows for batch in file.batches(100, 4 * MIB)) == 3


@pytest.mark.parametrize("said", [b"\xfe\x7f", b"\xf1\x2e", b"\x02\x00"], ids=["more rows", "fewer than none", "one"])
def test_a_row_group_has_as_many_rows_as_its_columns(tmp_path: Path, said: bytes) -> None:
    file = written(tmp_path, {"n": zeros(3000)})
    assert sum(batch.num_rows for batch in file.batches(100)) == 3000
    path = tmp_path / "hostile.parquet"
    content = path.read_bytes()
    place = content.rindex(b"\x16\xf0\x2e")  # 3000, in the row group behind its columns.
    path.write_bytes(content[: place + 1] + said.ljust(2, b"\x00") + content[place + 3 :])
    with pytest.raises(InvalidInputError) as caught:
        list(file.batches(100))
    assert caught.value.code == "file.malformed"


def varint(number: int) -> bytes:
    found = b""
    while number > 127:
        found += bytes([number & 127 | 128])
        number >>= 7
    return found + bytes([number])


def signed(number: int) -> bytes:
    return varint(number * 2 if number >= 0 else -number * 2 - 1)


def struct(*fields: tuple[int, int, Any]) -> bytes:
    """A struct of Thrift: its fields by number, kind and value."""
    found = b""
    for number, kind, value in fields:
        found += bytes([kind]) + signed(number) + (value if isinstance(value, bytes) else signed(value))
    return found + b"\0"


def header(
    kind: int = 0, unpacked: int = 8, packed: int = 8, values: int = 2, more: tuple[tuple[int, int, Any], ...] = ()
) -> bytes:
    told = struct((1, 5, values), (2, 5, 0), (3, 5, 3), (4, 5, 3))
    second = struct((1, 5, values), (2, 5, 0), (3, 5, values), (4, 5, 0), (5, 5, 0), (6, 5, 0))
    rest = {0: (5, 12, told), 2: (7, 12, told), 3: (8, 12, second)}.get(kind)
    return struct((1, 5, kind), (2, 5, unpacked), (3, 5, packed), *([rest] if rest else []), *more)


FIRST = struct((1, 5, 2), (2, 5, 0), (3, 5, 3), (4, 5, 3))
LEVELS = struct((1, 5, 2), (2, 5, 0), (3, 5, 2), (4, 5, 0), (5, 5, 9), (6, 5, 0))
LIES = {
    "a size that others cut to 32 bits": header(packed=2**33 + 8),
    "a size below nothing": header(packed=-8),
    "values below nothing": header(values=-2),
    "a size twice": header(more=((2, 5, 2**30),)),
    "a field whose number others cut to 16 bits": header(more=((2**16 + 2, 5, 2**30),)),
    "the rest of another kind of page": struct((1, 5, 3), (2, 5, 8), (3, 5, 8), (5, 12, FIRST)),
    "no rest": struct((1, 5, 0), (2, 5, 8), (3, 5, 8)),
    "levels that are larger than the page": struct((1, 5, 3), (2, 5, 8), (3, 5, 8), (8, 12, LEVELS)),
    "no end": b"\x15" * 100,
    "structs in structs": b"\x1c" * 10_000,
    "more values than there are": header(values=3),
    "fewer values than there are": header(values=1) + b"12345678",
}


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Any]:
    found = []

    def read(content: bytes, values: int = 2) -> list[Any]:
        (tmp_path / "page").write_bytes(content + b"12345678")
        found.append(os.open(tmp_path / "page", os.O_RDONLY))
        return list(pages(found[-1], 0, len(content) + 8, values, "hostile"))

    yield read
    for file in found:
        os.close(file)


@pytest.mark.parametrize("lie", LIES)
def test_headers_that_readers_take_differently_are_damage(page: Any, lie: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        page(LIES[lie])
    assert caught.value.code == "file.malformed"


def test_headers_as_they_are_written(page: Any) -> None:
    for kind in (0, 3):
        [found] = page(header(kind))
        assert (found.values, found.packed_bytes, found.unpacked_bytes) == (2, 8, 8)
    assert [found.kind for found in page(header(2) + b"12345678" + header(0))] == [2, 0]
    # What is no page of values is read over, as others do.
    assert [found.kind for found in page(struct((1, 5, 1), (2, 5, 0), (3, 5, 0)) + header(0))] == [1, 0]


def test_differences_tell_the_greatest_or_that_it_may_be_any() -> None:
    def stream(block: int, parts: int, count: int, first: int, *rest: bytes) -> memoryview:
        return memoryview(varint(block) + varint(parts) + varint(count) + signed(first) + b"".join(rest))

    assert greatest(stream(128, 4, 1, 7), 0) == 7
    assert greatest(stream(128, 4, 1, -7), 0) == 0
    # All the same difference, which takes no bytes; up, and down.
    assert greatest(stream(128, 4, 101, 5, signed(2), b"\0\0\0\0"), 0) == 205
    assert greatest(stream(128, 4, 101, 205, signed(-2), b"\0\0\0\0"), 0) == 205
    eights = bytes(range(32))
    assert greatest(stream(128, 4, 33, 0, signed(0), b"\x08\0\0\0", eights), 0) == sum(range(32))
    for damaged in (
        stream(128, 4, 33, 0, signed(0), b"\x08\0\0\0", eights[:20]),
        stream(128, 0, 33, 0, signed(0)),
        stream(100, 4, 33, 0, signed(0), b"\0\0\0\0"),
        stream(128, 4, 33, 0, signed(2**32), b"\0\0\0\0"),
        stream(128, 4, 2**60, 0, signed(1)),
        memoryview(b"\xff" * 20),
        memoryview(b""),
    ):
        assert greatest(damaged, 0) == GREATEST


def test_the_texts_of_rows_that_are_read_together() -> None:
    assert most_at_a_time([(10, 1.0)], 4) == 4
    assert most_at_a_time([(3, 1.0), (1, 100.0), (6, 1.0)], 4) == 103
    assert most_at_a_time([(4, 1.0), (1, 100.0)], 4) == 100
    assert most_at_a_time([(1, 5.0)] * 7, 3) == 15
    assert most_at_a_time([], 3) == 0
