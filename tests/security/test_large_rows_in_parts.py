"""What is shown or kept of large rows is made in parts: as objects and as text they take several times their size."""

import ctypes
import subprocess
import sys
import tracemalloc
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from domain.errors import PlatformError, WorkFailedError
from domain.loads.quarantine import RefusedRow
from domain.ports import batches
from domain.ports.transformer import TransformPlan
from domain.quality.rules import OnViolation, Rule
from domain.stores.table import Column
from entrypoints.answers.sizes import cells, fitted, size_of
from infrastructure.stores.duckdb.file import DuckDBOptions
from infrastructure.stores.duckdb.store import DuckDBDataStore
from infrastructure.stores.files import csv_parts, csv_text
from infrastructure.stores.sql import quarantine as sql_quarantine
from infrastructure.tabular import arrow
from infrastructure.threads import OneThread
from infrastructure.transforms import duckdb as duckdb_transform
from infrastructure.transforms import refused
from infrastructure.transforms.engine import locked_down
from infrastructure.transforms.refused import refused_table
from infrastructure.transforms.verdicts import verdicts
from tests.e2e.inside import ME, inside
from tests.ports.test_quarantine import MINE, load, refusing

pytestmark = pytest.mark.line("29")
_LARGE = "x" * 8_000_000
_MOST = 1_000

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("value", "beginning"),
    [
        (_LARGE, "xxx"),
        ([_LARGE, 1], None),
        ([[[_LARGE]]], None),
        ({"a": {"b": _LARGE}}, None),
        ([1] * 1_000_000, None),
        ("é\n" * 4_000_000, "é\n"),
    ],
    ids=["text", "list", "lists", "members", "numbers", "escaped"],
)
def test_what_is_cut_is_not_written_out_first(value: Any, beginning: str | None) -> None:
    tracemalloc.start()
    try:
        shown = cells({"a": value, "b": "small"}, _MOST)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000
    assert shown["b"] == "small"
    assert size_of(shown["a"]) < _MOST + 200
    assert "(cut: " in str(shown["a"])
    if beginning is not None:
        assert shown["a"].startswith(beginning)
        assert f"of {len(value.encode()):,} bytes" in shown["a"]


@pytest.mark.parametrize("value", ["x" * 900, [1] * 400, {"a": ["b"] * 100, "c": None}, 7, "\n" * 400])
def test_what_fits_is_shown_as_it_is(value: Any) -> None:
    assert fitted(value, _MOST) == value


def test_refused_rows_are_written_some_megabytes_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    encoded = refused.encoded

    def heard(rows: pa.Table) -> list[str]:
        written.append(rows.nbytes)
        return encoded(rows)

    monkeypatch.setattr(refused, "encoded", heard)
    batch = pa.table({"id": range(20), "v": ["x" * 1_000_000] * 19 + [None]})
    found = [(ordinal, "rule", "r", "no") for ordinal in (*range(19, 0, -2), *range(0, 20, 2))]
    table = refused_table(batch, found, "types", {})
    assert max(written) < 5_000_000
    assert table.column("ordinal").to_pylist() == list(range(20))
    assert table.column("record").combine_chunks().to_pylist() == encoded(batch)
    written.clear()
    refused_table(batch.select(["id"]), found, "types", {})
    assert len(written) == 1


async def test_who_looks_for_a_next_page_or_a_replay_reads_no_other_record(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    rows_of = DuckDBDataStore.refused_rows

    async def heard(*given: Any, **options: Any) -> Any:
        found = await rows_of(*given, **options)
        read.append(len(found))
        return found

    monkeypatch.setattr(DuckDBDataStore, "refused_rows", heard)
    (project / "data").mkdir(exist_ok=True)
    (project / "data/t.csv").write_text("id,v\n" + "".join(f"{n},{'x' * 30_000}\n" for n in range(5)))
    rule = "quality: [{rule: accepted_values, column: id, values: [9], on_violation: quarantine}]\n"
    async with inside(project, HEADRACE_LIMITS__ANSWER_BYTES="70000") as here:
        await here.put("{version: 1, connection: landing, kind: files, options: {root: data}}")
        await here.pipeline("p", "connection: landing, path: t.csv", "table: p", rule)
        await here.report("p")
        reviewer, after, pages = here.use_cases.quarantine, None, []
        while not pages or after is not None:
            page = await reviewer.page(ME, "p", after=after, limit=2 if pages else 50)
            pages.append(len(page.rows))
            after = page.next_place
        assert pages == read == [2, 2, 1]
        await reviewer.command_to_replay(ME, "p")
        assert read == pages


_SMALL_ONES, _LARGE_ONES = [10] * 9, [3_000] * 9


@pytest.mark.parametrize(
    ("sizes", "most", "expected"),
    [
        (_SMALL_ONES, 40_000, [9]),
        (_LARGE_ONES, 40_000, [3, 3, 3]),
        (_LARGE_ONES, 7_000, [2, 2, 2, 2, 1]),
        ([30_000] * 3, 40_000, [1, 1, 1]),
        ([10] * 200 + [30_000], 40_000, [201]),
        (_LARGE_ONES, None, [9]),
        ([30_000, 41_000], 40_000, None),
    ],
    ids=["small", "large", "batches are smaller", "one at a time", "one among many", "not bounded", "too large"],
)
@pytest.mark.parametrize("together", [1, 2, 500])
def test_large_rows_travel_few_at_a_time(
    sizes: list[int], most: int | None, expected: list[int] | None, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "LARGE_ROW", 2_000)
    monkeypatch.setattr(arrow, "_OF_LARGE_ROWS", 10_000)
    rows = pa.table({"n": range(len(sizes)), "v": ["x" * size for size in sizes]})
    if together < len(sizes) and min(sizes) < 2_000 < max(sizes):
        expected = [200, 1]  # Whoever gives them one by one shows which it is.
    given = rows.to_batches(max_chunksize=together)
    if expected is None:
        with pytest.raises(WorkFailedError) as refused:
            list(arrow.rechunk(given, 1_000, most))
        assert refused.value.code == "source.row_too_large"
        return
    found = list(arrow.rechunk(given, 1_000, most))
    assert pa.concat_tables(found).equals(rows)
    assert [table.num_rows for table in found] == expected


async def test_refusals_that_may_be_read_again_are_looked_at_page_by_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages: list[int] = []
    rows_of = sql_quarantine.refused_rows

    def heard(*given: Any) -> list[RefusedRow]:
        found = rows_of(*given)
        pages.append(len(found))
        return found

    store = DuckDBDataStore(DuckDBOptions(path=tmp_path / "f.duckdb"))
    await store.open()
    await load(store, 1, "r1", refusing(*range(7), accepted=(9,)))
    monkeypatch.setattr(sql_quarantine, "refused_rows", heard)
    async with store._session() as (session, thread):
        for size, most, expected in ((1, 100, [1] * 7 + [0]), (10**6, 100, [7, 0]), (10**6, 3, [3]), (1, 2, [1, 1])):
            monkeypatch.setattr(sql_quarantine, "PAGE_BYTES", size)
            found = await thread.call(lambda count: list(sql_quarantine.open_refusals(session, MINE, count)), most)
            assert len(found) == min(most, 7)
            assert pages == expected
            pages.clear()
    await store.close()


def test_of_rows_that_rules_look_at_only_what_they_say_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[pa.Table] = []

    def heard(batch: pa.Table, judged: pa.Table, *more: Any) -> Any:
        looked_at.append(judged)
        return verdicts(batch, judged, *more)

    monkeypatch.setattr(duckdb_transform, "verdicts", heard)
    rule = Rule("matches", column="v", pattern="x+", on_violation=OnViolation.QUARANTINE)
    plan = TransformPlan((Column("id", "int64"), Column("v", "string")), rules=(rule,))
    rows = pa.table({"id": [1, 2, 3], "v": ["xx", "y", None]})
    engine = partial(locked_down, "100MB", 1)
    transform = duckdb_transform.DuckDBTransform(plan, OneThread("judge"), [((), None)], engine=engine)
    transform.open()
    judged = transform.judge(rows)
    transform.close()
    transform._thread.close()

    assert pa.table(judged.accepted).to_pylist() == [{"id": 1, "v": "xx"}, {"id": 3, "v": None}]
    assert pa.table(judged.refused).column("record").to_pylist() == ['{"id": 2, "v": "y"}']
    for name in ("id", "v"):
        given, passed = rows.column(name).chunk(0), looked_at[0].column(name).chunk(0)
        assert [b and b.address for b in passed.buffers()] == [b and b.address for b in given.buffers()]


def test_a_row_that_is_larger_than_a_block_is_read_in_blocks_that_are_not_much_larger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("id,v\n1,a\n2," + "x" * 600_000 + "\n3,b\n")
    sizes = list[int]()
    reader = csv_text.CsvFile._reader

    def noted(self: csv_text.CsvFile, raw: pa.NativeFile, names: tuple[str, ...], size: int) -> object:
        sizes.append(size)
        return reader(self, raw, names, size)

    monkeypatch.setattr(csv_text.CsvFile, "_reader", noted)
    monkeypatch.setattr(csv_text, "_LARGE_BLOCK_BYTES", 1_000_000)
    file = csv_text.CsvFile(path, "rows.csv", csv_text.Dialect(), longest_row_bytes=4_000_000)

    rows = pa.Table.from_batches(file.batches(64_000))
    assert rows.column("id").to_pylist() == ["1", "2", "3"]
    assert sizes == [64_000, 1_000_000]

    path.write_text("id,v\n1," + "x" * 3_000_000 + "\n")
    for reading in (lambda: pa.Table.from_batches(file.batches(64_000)), lambda: file.beginning(64_000)[0]):
        sizes.clear()
        assert reading().num_rows == 1
        assert sizes == [64_000, 1_000_000, 4_000_000]
    path.write_text("id,v\n1," + "x" * 9_000_000 + "\n")
    for reading in (lambda: list(file.batches(64_000)), lambda: file.beginning(64_000)):
        with pytest.raises(PlatformError, match="more than 4,000,000 bytes"):
            reading()


def test_text_of_large_rows_lands_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_parts, "LARGE_BYTES", 1_000_000)
    large = pa.RecordBatch.from_pydict({"v": ["x" * 600_000]})
    small = pa.RecordBatch.from_pydict({"v": ["y"] * 1_000})

    def lengths(batches: list[pa.RecordBatch]) -> list[int]:
        parts = csv_parts.TextParts(["v"], (rows for rows in [(("0", "1"), batch) for batch in batches]))
        found = []
        while parts.has_more():
            found.append(pa.RecordBatchReader.from_stream(csv_parts.TextPart(parts, 10**9, 10**9)).read_all().num_rows)
        return found

    assert lengths([large] * 5) == [2, 2, 1]
    assert lengths([small] * 5) == [5_000]


_MAPPED = """
import ctypes
from entrypoints.process.heap import give_back_large
library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
library.malloc.argtypes, library.free.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]
give_back_large()
library.free(library.malloc(24_000_000))  # From then on glibc would take as much from its heap.
found = library.malloc(12_000_000)
print(ctypes.c_size_t.from_address(found - ctypes.sizeof(ctypes.c_size_t)).value & 2)
"""


def test_what_is_large_is_mapped_by_itself_and_so_given_back() -> None:
    if not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"):
        pytest.skip("Only glibc has a threshold.")
    # In a process of its own: where much was freed before, there is room for it in the heap.
    found = subprocess.run([sys.executable, "-c", _MAPPED], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout.strip() == "2"
