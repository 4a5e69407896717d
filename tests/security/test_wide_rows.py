"""What rows of many columns take in memory while they are read, judged and written."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from domain.errors import InvalidInputError
from infrastructure.stores.duckdb.file import DuckDBOptions
from infrastructure.stores.duckdb.store import DuckDBDataStore
from infrastructure.stores.sql.refused_parts import in_parts
from infrastructure.tabular.arrow import rechunk
from infrastructure.transforms.refused import REFUSED, refused_table
from tests.ports.backends import cursor_of
from tests.ports.loading import refusal
from tests.ports.test_quarantine import MINE, load, refusing

pytestmark = pytest.mark.line("29")


def _rows(count: int, columns: int, value: str = "v") -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({f"c{number}": [value] * count for number in range(columns)})


def test_rows_of_many_columns_are_in_one_piece_although_they_are_read_in_many() -> None:
    tables = list(rechunk([_rows(10, 300)] * 25, 100))

    assert [table.num_rows for table in tables] == [100, 100, 50]
    assert {column.num_chunks for table in tables for column in table.columns} == {1}


def test_rows_of_few_columns_are_not_copied() -> None:
    batches = [_rows(1_000, 3, "some text that is kept") for _ in range(4)]

    [table] = rechunk(batches, 4_000)

    assert [column.num_chunks for column in table.columns] == [4] * 3
    assert table.column(0).chunk(2).buffers()[2].address == batches[2].column(0).buffers()[2].address


def test_rows_of_long_names_are_few_at_a_time_as_each_is_refused_with_all_of_them() -> None:
    size = 1024 * 1024
    names = [f"{number:04}{'n' * 56}" for number in range(300)]
    long = pa.record_batch([pa.array(["v"] * 1_000)] * 300, names=names)

    together = [table.num_rows for table in rechunk([long] * 2, 1_000, size)]

    assert (sum(together), max(together)) == (2_000, 2 * size // (300 * 66 + 1))
    assert [table.num_rows for table in rechunk([_rows(1_000, 300)], 600, 8 * size)] == [600, 400]


async def test_columns_of_a_batch_are_kept_once_and_not_with_each_refused_row(tmp_path: Path) -> None:
    store = DuckDBDataStore(DuckDBOptions(path=tmp_path / "store.duckdb"))
    await store.open()
    try:
        others = refusing(7, 8, 9)
        told = pa.table(others.refused).to_pylist()
        told[1]["columns"] = '{"columns": [["id", "int64"]], "is_text": false}'
        mixed = replace(others, refused=pa.Table.from_pylist(told, REFUSED))
        await load(store, 1, "r1", refusing(*range(5)), mixed)
        shapes = [refusal(0)["columns"], told[1]["columns"]]

        query = 'SELECT "columns" FROM _headrace_quarantine ORDER BY seq, ordinal'
        kept = [columns for (columns,) in cursor_of(store).execute(query).fetchall()]
        assert kept == [shapes[0], *[None] * 4, *shapes, None]
        assert sorted(await store.refused_shapes(MINE)) == sorted(shapes)

        cursor_of(store).execute("DELETE FROM _headrace_quarantine WHERE seq = 1 AND ordinal = 0")
        with pytest.raises(InvalidInputError, match="the refused rows cannot be replayed"):
            await store.refused_shapes(MINE)
    finally:
        await store.close()


def test_columns_of_refused_rows_take_no_room_for_each_row() -> None:
    rows = _rows(2_000, 2)
    refused = [(number, "rule", "r", "why") for number in range(2_000)]

    assert refused_table(pa.Table.from_batches([rows]), refused, "c" * 100_000, {}).nbytes < 1_000_000


@pytest.mark.parametrize("count", [1, 40])
def test_refused_rows_are_written_some_megabytes_at_a_time(count: int) -> None:
    records = pa.array(["x" * 1_000_000] * count)
    refused = pa.table({"ordinal": range(count), "record": records, "more": pa.chunked_array([["y"] * count])})

    parts = list(in_parts(refused))

    assert pa.concat_tables(parts).equals(refused)
    assert max(part.nbytes for part in parts) < 9_000_000
    assert len(parts) == (1 if count == 1 else 8)


def test_one_refused_row_is_written_however_large_it_is() -> None:
    refused = pa.table({"record": ["x" * 20_000_000, "y", "z" * 20_000_000]})

    assert [part.num_rows for part in in_parts(refused)] == [1, 1, 1]
