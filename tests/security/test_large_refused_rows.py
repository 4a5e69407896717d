"""Large refused rows in a DuckDB file: as many as there may be, each of them can be looked at within the memory that DuckDB has."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from domain.loads.checkpoint import Position
from domain.ports.batches import LARGE_ROW
from domain.ports.data_store import JudgedBatch
from infrastructure.stores.duckdb.file import DuckDBOptions
from infrastructure.stores.duckdb.internal import compressed
from infrastructure.stores.duckdb.store import DuckDBDataStore
from tests.ports.loading import TABLE, opened, read_set
from tests.ports.loading import commit as commit_batch
from tests.ports.test_lanes import run_script
from tests.ports.test_quarantine import LANE, MINE, load, refusing

pytestmark = pytest.mark.line("29")
_MEGABYTE = 1_000_000
_HALF = _MEGABYTE // 2
_EARLIER = 'ALTER TABLE "_headrace_quarantine" DROP COLUMN "record_bytes"'


def _refusing(*numbers: int, letters: int) -> JudgedBatch:
    """A batch whose rows are refused, each so long."""
    batch = refusing(*numbers)
    records = [json.dumps({"id": number, "note": "é" * letters}, ensure_ascii=False) for number in numbers]
    refused = pa.table(batch.refused)
    place = refused.schema.get_field_index("record")
    return replace(batch, refused=refused.set_column(place, refused.schema.field(place), pa.array(records)))


@asynccontextmanager
async def _opened(path: Path, memory: str = "1GB") -> AsyncIterator[DuckDBDataStore]:
    store = DuckDBDataStore(DuckDBOptions(path=path, memory_limit=memory))
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def _pages(store: DuckDBDataStore, most_bytes: int) -> list[list[tuple[int, int]]]:
    """The numbers and lengths of refused rows, page by page."""
    found: list[list[tuple[int, int]]] = []
    after: Position | None = None
    while page := await store.refused_rows(MINE, after=after, limit=60, most_bytes=most_bytes):
        records = [json.loads(row.record) for row in page]
        found.append([(record["id"], len(record["note"])) for record in records])
        after = page[-1].place
    return found


async def test_each_of_many_large_ones_can_be_looked_at(tmp_path: Path) -> None:
    path, small = tmp_path / "f.duckdb", [*range(100, 200)]
    async with _opened(path) as store:
        large = [_refusing(number, letters=_HALF) for number in range(16)]
        await load(store, 1, "r1", _refusing(*small, letters=3), *large, _refusing(50, 51, letters=2))
    async with _opened(path, "12MB") as store:
        pages = await _pages(store, _MEGABYTE)
    expected = [[(number, 3) for number in small[:60]], [(number, 3) for number in small[60:]]]
    expected += [[(number, _HALF)] for number in range(16)]
    assert pages == [*expected, [(50, 2), (51, 2)]]


@pytest.mark.parametrize("letters", [2, LARGE_ROW])
async def test_a_quarantine_of_an_earlier_version_is_read_and_written_to(tmp_path: Path, letters: int) -> None:
    async with _opened(tmp_path / "f.duckdb") as store:
        await load(store, 1, "r1", _refusing(1, 2, letters=letters))
        await run_script(store, _EARLIER)
        assert await _pages(store, 10) == [[(1, letters)], [(2, letters)]]
        assert await _pages(store, 10 * _MEGABYTE) == [[(1, letters), (2, letters)]]
        await load(store, 2, "r2", _refusing(3, letters=letters))
        assert await _pages(store, 10) == [[(1, letters)], [(2, letters)], [(3, letters)]]
        assert await _pages(store, 10 * _MEGABYTE) == [[(1, letters), (2, letters), (3, letters)]]


@pytest.mark.parametrize("version", ["v0.10.2", "v1.2.0", "v1.3.0", "latest"])
async def test_files_of_every_storage_version_have_a_quarantine(tmp_path: Path, version: str) -> None:
    path = tmp_path / "f.duckdb"
    duckdb.connect(str(path), config={"storage_compatibility_version": version}).close()
    async with _opened(path) as store:
        planned = read_set(name="r1")
        await opened(store, 1, planned)
        await commit_batch(store, 1, planned, 1, _refusing(1, letters=50_000))
        assert (await store.lane_state(LANE, TABLE)).fence == 1
    with duckdb.connect(str(path)) as file:
        found = file.execute(
            "SELECT DISTINCT compression FROM pragma_storage_info('_headrace_quarantine') "
            "WHERE column_name = 'record' AND segment_type = 'VARCHAR'"
        ).fetchall()
    assert found == [("Uncompressed",)]


@pytest.mark.parametrize(
    ("version", "clause"),
    [("v1.0.0+", ""), ("v1.2.0+", "fsst"), ("v1.3.0+", "dict_fsst"), ("v2.0.0+", "dict_fsst"), ("None", ""), ("?", "")],
)
def test_no_way_of_keeping_records_is_named_that_a_file_does_not_know(version: str, clause: str) -> None:
    assert compressed(version) == (f" USING COMPRESSION {clause}" if clause else "")
