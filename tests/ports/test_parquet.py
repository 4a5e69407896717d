"""Parquet files: what a file says of a column is what lands, or the column is refused; docs/reference/parquet.md says
so.
"""

import struct
from datetime import datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from domain.errors import PlatformError, SchemaMismatchError
from domain.pipelines.spec import SourceSpec
from infrastructure.stores.files.store import FilesSource
from infrastructure.stores.postgres.store import PostgresDataStore
from tests.ports.backends import address_of
from tests.ports.parquet_matrix import CASES, DOCUMENT, HEADER, landed, row_of, write
from tests.ports.test_values_between_stores import Shelf


async def read(folder: Path, path: str = "*.parquet") -> list[dict[str, object]]:
    store, source = FilesSource(folder), SourceSpec(path=path)
    plan = await store.plan(source, lo=None, limit=None)
    async with store.reader(source, plan, plan.streams[0], batch_rows=2) as reader:
        return [row async for batch in reader.batches(None) for row in pa.table(batch.data).to_pylist()]


@pytest.mark.clause("IDataStore", 14)
async def test_types_of_parquet_do_what_the_reference_says(postgres_database: str, tmp_path: Path) -> None:
    store = PostgresDataStore(address_of(postgres_database))
    await store.open()
    shelf = Shelf(tmp_path, postgres_database, store)
    lines = []
    for label, case in CASES.items():
        found = await landed(shelf, label)

        lines.append(row_of(label, found))
        for kind, expected in (("duckdb", case.duckdb), ("postgres", case.postgres)):
            there = found[kind]
            assert (there[1] if there else None) == expected, (label, kind)
    await store.close()

    assert DOCUMENT.read_text() == HEADER + "\n".join(lines) + "\n"


async def test_time_of_day_in_utc_is_told_and_what_arrow_marked_so_is_not(tmp_path: Path) -> None:
    write(tmp_path / "zoned.parquet", "`TIME` in UTC")
    times = pa.table({"t": pa.array([1], pa.time64("us"))})
    pq.write_table(times, tmp_path / "arrow.parquet", write_time_adjusted_to_utc=True)
    store = FilesSource(tmp_path)

    zoned = await store.plan(SourceSpec(path="zoned.parquet"), lo=None, limit=None)
    arrow = await store.plan(SourceSpec(path="arrow.parquet"), lo=None, limit=None)

    assert zoned.note == "odd: times of day in UTC, which land as times without a zone"
    assert arrow.note is None


async def test_int96_with_more_than_six_digits_is_refused_whatever_its_year(tmp_path: Path) -> None:
    for nanoseconds in (1, 999, 1_704_067_200_000_000_001):
        rows = pa.table({"at": pa.array([0, None, nanoseconds], pa.int64()).view(pa.timestamp("ns"))})
        pq.write_table(rows, tmp_path / "a.parquet", use_deprecated_int96_timestamps=True)

        with pytest.raises(
            SchemaMismatchError, match=r"Column at of a\.parquet holds a time with more than six"
        ) as caught:
            await read(tmp_path)
        assert caught.value.code == "value.precision"

    far = [datetime.fromisoformat("0001-01-01"), None, datetime.fromisoformat("9999-12-31T23:59:59.999999")]
    rows = pa.table({"id": [1, 2, 3], "at": pa.array(far, pa.timestamp("us"))})
    pq.write_table(rows, tmp_path / "a.parquet", use_deprecated_int96_timestamps=True)
    assert [row["at"] for row in await read(tmp_path)] == far


async def test_interval_with_more_months_than_there_is_room_for_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", "`INTERVAL`")
    [row, _] = await read(tmp_path)
    assert row["odd"] == pa.MonthDayNano([14, 3, 4_567_000_000])
    content = (tmp_path / "a.parquet").read_bytes()
    there = struct.pack("<III", 14, 3, 4567)
    assert there in content, "DuckDB compressed the value; write it plain"

    (tmp_path / "a.parquet").write_bytes(content.replace(there, struct.pack("<III", 2**31, 3, 4567)))

    with pytest.raises(SchemaMismatchError, match=r"Column odd of a\.parquet holds a value that is none of its type"):
        await read(tmp_path)


async def test_enum_that_is_no_text_is_refused_by_its_column(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", "`ENUM`")
    content = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(content.replace("é𝄞".encode(), b"\xff" * 6))

    with pytest.raises(SchemaMismatchError, match=r"Column odd of a\.parquet holds a value that is none of its type"):
        await read(tmp_path)


@pytest.mark.parametrize("damage", ["empty", "text", "no footer", "cut", "page"])
async def test_damaged_parquet_is_refused_by_its_name(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": [f"{n}" * 100 for n in range(1000)]}), path, compression="snappy")
    good = path.read_bytes()
    path.write_bytes(
        {"empty": b"", "text": b"a,b\n1,2\n" * 9, "no footer": good[:-8], "cut": good[len(good) // 2 :],
         "page": good[:4] + b"\xff" * 300 + good[304:]}[damage]
    )  # fmt: skip

    with pytest.raises(PlatformError, match=r"a\.parquet is not Parquet, damaged") as caught:
        await read(tmp_path)
    assert caught.value.code == "file.malformed"


async def test_columns_of_one_name_are_refused_by_it(tmp_path: Path) -> None:
    rows = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    pq.write_table(rows.select([0]), tmp_path / "a.parquet")
    pq.write_table(rows, tmp_path / "b.parquet")

    for path in ("b.parquet", "*.parquet"):
        with pytest.raises(PlatformError, match=r"b\.parquet: two columns are named a"):
            await read(tmp_path, path)


async def test_geometry_is_refused_in_a_file_whose_name_is_a_pattern(tmp_path: Path) -> None:
    folder = tmp_path / "[x]*?"
    folder.mkdir()
    write(tmp_path / "a.parquet", "`GEOMETRY`")
    (tmp_path / "a.parquet").rename(folder / "a[1].parquet")

    with pytest.raises(SchemaMismatchError, match="GEOMETRY"):
        await read(folder)


@pytest.mark.parametrize(
    ("first", "then", "said"),
    [
        (pa.array([1]), pa.array(["x"]), "is string and is to become int64"),
        (pa.array([1]), pa.array([1.5]), "is float64 and is to become int64"),
        ("INTERVAL '1 day'", pa.array([b"x"]), "is binary and is to become interval"),
        (pa.array(["x"]), pa.array([1]), "is int64 and is to become string"),
    ],
)
async def test_file_of_another_type_is_named_before_the_first_row(
    first: pa.Array | str, then: pa.Array, said: str, tmp_path: Path
) -> None:
    if isinstance(first, str):
        with duckdb.connect() as connection:
            connection.execute(f"COPY (SELECT {first} AS a) TO '{tmp_path / 'a.parquet'}' (FORMAT parquet)")
    else:
        pq.write_table(pa.table({"a": first}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"a": then}), tmp_path / "b.parquet")

    with pytest.raises(SchemaMismatchError, match=rf"b\.parquet: Column a {said}"):
        await FilesSource(tmp_path).plan(SourceSpec(path="*.parquet"), lo=None, limit=None)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (pa.array([1]), pa.array([2], pa.int32())),
        (pa.array([1]), pa.nulls(1)),
        (pa.nulls(1), pa.array([1])),
        (pa.nulls(1), pa.array([[1]])),
        (pa.nulls(1), pa.nulls(1)),
        (pa.array([1], pa.int32()), pa.array([2**31 - 1])),
        (pa.array(["x"]), pa.array(["y"]).dictionary_encode()),
        (pa.array([None], pa.timestamp("us")), pa.array([0], pa.timestamp("ms"))),
    ],
)
async def test_file_of_another_type_that_holds_the_same_values_is_read(
    first: pa.Array, then: pa.Array, tmp_path: Path
) -> None:
    pq.write_table(pa.table({"a": first, "b": ["x"]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"b": ["y"], "a": then}), tmp_path / "b.parquet")

    rows = await read(tmp_path)

    assert [row["a"] for row in rows] == [*first.to_pylist(), *then.to_pylist()]
