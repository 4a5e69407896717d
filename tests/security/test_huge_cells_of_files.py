"""A value of hundreds of megabytes in a Parquet or CSV file: refused by its file's own words, and never looked at by
many at once.
"""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from domain.errors import PlatformError, UnavailableError, WorkFailedError
from domain.pipelines.spec import SourceSpec
from infrastructure.memory_room import Room
from infrastructure.stores.files import csv_text
from infrastructure.stores.files.csv_text import CsvFile, Dialect
from infrastructure.stores.files.parquet_files import ParquetData
from infrastructure.stores.files.store import FilesSource
from tests.security.test_huge_cells import grown

pytestmark = pytest.mark.line("29")
MIB = 1024 * 1024
# What a column is with a value of so many bytes in its middle, or at its beginning where there is no room before it.
KINDS: dict[str, Any] = {
    "text": lambda size: pa.array(["x" * size]),
    "large text": lambda size: pa.array(["x" * size], pa.large_string()),
    "bytes": lambda size: pa.array([b"\0" * size]),
    "text in a struct": lambda size: pa.array([{"a": "x" * size, "b": 1}]),
    "text in a list": lambda size: pa.array([["x" * size]]),
    "text in a map": lambda size: pa.array([[("k", "x" * size)]], pa.map_(pa.string(), pa.string())),
    "numbers": lambda size: pa.ListArray.from_arrays(pa.array([0, size // 8], pa.int32()), pa.array(range(size // 8))),
    "texts": lambda size: pa.array([["x" * 1000 + str(number) for number in range(size // 1000)]]),
}
SHAPES: tuple[dict[str, Any], ...] = (
    {"compression": "snappy", "use_dictionary": False},
    {"compression": "none", "use_dictionary": False, "data_page_version": "2.0"},
    {"compression": "zstd", "use_dictionary": False, "data_page_version": "2.0"},
    {"compression": "gzip", "use_dictionary": True},
)


def written(folder: Path, column: pa.Array, **options: Any) -> ParquetData:
    path = folder / "huge.parquet"
    pq.write_table(pa.table({"id": range(len(column)), "v": column}), path, **options)
    return ParquetData(path, "huge.parquet")


def refused(file: ParquetData, rows: int, size: int) -> int:
    """How many rows are read before one is refused by name."""
    read = 0
    with pytest.raises(WorkFailedError, match=r"most of it in the column v;") as caught:
        for batch in file.batches(rows, size):
            read += batch.num_rows
    assert caught.value.code == "source.row_too_large"
    return read


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_by_itself_is_refused_before_it_is_unpacked(kind: str, tmp_path: Path) -> None:
    make = KINDS[kind]
    for options in SHAPES if kind in ("text", "text in a list") else SHAPES[:1]:
        file = written(tmp_path, make(20 * MIB), **options)
        with grown("self", 8 if options["compression"] != "gzip" else 45):
            assert refused(file, 100, MIB) == 0
        assert sum(batch.num_rows for batch in file.batches(100, 64 * MIB)) == 1


@pytest.mark.parametrize("options", SHAPES, ids=str)
def test_among_others_it_is_found_by_the_lengths_of_its_page(options: dict[str, Any], tmp_path: Path) -> None:
    shapes = (lambda value: value, lambda value: {"a": value}, lambda value: [value])
    for around in shapes[: 2 if options["use_dictionary"] else 3]:  # Lists with it are bounded by their ratio.
        values = [None if number % 7 == 0 else around("y" * 90 + str(number)) for number in range(3000)]
        values[2000] = around("x" * (2 * MIB))
        file = written(tmp_path, pa.array(values), data_page_size=16 * 1024, **options)
        read = refused(file, 100, MIB)
        # Pages begin with so many rows; of a list, or of what a dictionary holds, it is not told which row it is.
        is_told = around("") != [""] and not options["use_dictionary"]
        assert read > 900 if is_told else read == 0
        found = pa.concat_arrays([batch.column(1) for batch in file.batches(100, 4 * MIB)])
        assert found.to_pylist() == values


async def test_what_is_behind_the_rows_that_are_asked_for_is_not_looked_at(tmp_path: Path) -> None:
    values = ["y"] * 2000
    values[1000] = "x" * (2 * MIB)
    written(tmp_path, pa.array(values), row_group_size=1000)
    store, source = FilesSource(tmp_path), SourceSpec(path="huge.parquet")
    plan = await store.plan(source, lo=None, limit=1000)
    for limit, is_refused in ((20, False), (1000, False), (1001, True)):
        read = 0
        async with store.reader(source, plan, plan.streams[0], batch_rows=min(limit, 500), batch_bytes=MIB) as reader:
            with pytest.raises(PlatformError, match="column v") if is_refused else nullcontext():
                async for batch in reader.batches(None, limit=limit):
                    read += batch.data.num_rows
        assert read == min(limit, 1000)


def test_what_takes_much_waits_for_room_and_is_turned_away_after_a_while(tmp_path: Path) -> None:
    room = Room(most=100 * MIB, patience_seconds=0.01)
    large = written(tmp_path, pa.array(["x" * (18 * MIB), "y"]), use_dictionary=False)
    first = large.batches(1, 32 * MIB, room)
    next(first)
    with pytest.raises(UnavailableError, match="try again") as caught:
        next(large.batches(1, 32 * MIB, room))
    assert caught.value.code == "worker.busy"
    assert len(list(large.batches(1, 32 * MIB))) == 2  # A run does not wait.
    (tmp_path / "small").mkdir()
    assert len(list(written(tmp_path / "small", pa.array(["x", "y"])).batches(1, MIB, room))) == 2
    first.close()
    assert len(list(large.batches(1, 32 * MIB, room))) == 2


def test_so_does_a_row_of_csv_that_is_larger_than_a_block(tmp_path: Path) -> None:
    (tmp_path / "huge.csv").write_text(f"id,v\n1,y\n2,{'x' * MIB}\n")
    (tmp_path / "plain.csv").write_text("id,v\n1,y\n")
    huge, plain = (CsvFile(tmp_path / name, name, Dialect(), 16 * MIB) for name in ("huge.csv", "plain.csv"))
    room = Room(most=100 * MIB, patience_seconds=0.01)
    with room.taken(60 * MIB):
        with pytest.raises(UnavailableError) as caught:
            list(huge.batches(room=room))
        assert caught.value.code == "worker.busy"
        assert sum(batch.num_rows for batch in plain.batches(room=room)) == 1
    for given in (room, None):
        assert sum(batch.num_rows for batch in huge.batches(room=given)) == 2


def test_of_large_blocks_few_are_read_in_front_of_the_rows_that_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.csv").write_text("id,v\n" + "".join(f"{number},{'x' * (MIB // 2)}\n" for number in range(60)))
    blocks, decoded = [0], csv_text._Decoded.read

    def read(text: Any, size: int) -> bytes:
        found: bytes = decoded(text, size)
        blocks[0] += bool(found)
        return found

    monkeypatch.setattr(csv_text._Decoded, "read", read)
    rows, ahead = 0, 0
    for number, batch in enumerate(CsvFile(tmp_path / "a.csv", "a.csv", Dialect()).batches(MIB)):
        rows += sum(len(text) > MIB // 4 for text in batch.column(1).to_pylist())
        ahead = max(ahead, blocks[0] - number)

    assert rows == 60
    assert ahead <= 5  # Of 32, and the last of those that are asked for is kept back.


def compressed(path: Path, text: bytes, longest_mb: int = 16) -> CsvFile:
    with pa.CompressedOutputStream(str(path), {".zst": "zstd", ".gz": "gzip", ".lz4": "lz4"}[path.suffix]) as file:
        file.write(text)
    return CsvFile(path, path.name, Dialect(), longest_mb * MIB)


def test_what_may_ask_for_a_large_window_waits_for_room_where_it_is_only_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = Room(most=200 * MIB, patience_seconds=0.01)
    monkeypatch.setattr(csv_text, "ROOM", room)
    windows = compressed(tmp_path / "a.csv.zst", b"id,v\n1,y\n")
    ways = (lambda: list(windows.batches(room=room)), lambda: windows.beginning(1000), lambda: windows.line_of(1))
    with room.taken(80 * MIB):
        for way in ways:
            with pytest.raises(UnavailableError) as caught:
                way()
            assert caught.value.code == "worker.busy"
        assert sum(batch.num_rows for batch in windows.batches()) == 1  # A run does not wait.
        for name in ("a.csv.gz", "a.csv.lz4"):
            assert compressed(tmp_path / name, b"id,v\n1,y\n").beginning(1000)[0].num_rows == 1
    for way in ways:
        way()


def test_a_row_that_is_too_long_is_told_although_looking_for_its_line_takes_room_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = Room(most=230 * MIB, patience_seconds=0.01)
    monkeypatch.setattr(csv_text, "ROOM", room)
    monkeypatch.setattr(csv_text, "_MOST_TO_UNPACK", {"zstd": 100 * MIB})
    long = compressed(tmp_path / "a.csv.zst", b"id,v\n1," + b"x" * (52 * MIB) + b"\n", 25)
    with pytest.raises(PlatformError, match="line 2: the row that begins here has more than") as caught:
        list(long.batches(room=room))
    assert caught.value.code == "source.row_too_large"
