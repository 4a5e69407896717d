"""What is shown or kept of large rows is made in parts: as objects and as text they take several times their size."""

import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from domain.loads.quarantine import RefusedRow
from entrypoints.answers.sizes import cells, fitted, size_of
from infrastructure.stores.duckdb.file import DuckDBOptions
from infrastructure.stores.duckdb.store import DuckDBDataStore
from infrastructure.stores.sql import quarantine as sql_quarantine
from infrastructure.transforms import refused
from infrastructure.transforms.refused import refused_table
from tests.ports.test_quarantine import MINE, load, refusing

pytestmark = pytest.mark.line("29")
_LARGE = "x" * 8_000_000
_MOST = 1_000


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
    table = refused_table(batch, found, "types")
    assert max(written) < 5_000_000
    assert table.column("ordinal").to_pylist() == list(range(20))
    assert table.column("record").combine_chunks().to_pylist() == encoded(batch)
    written.clear()
    refused_table(batch.select(["id"]), found, "types")
    assert len(written) == 1


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
