"""Rows of a megabyte in a DuckDB file: a checkpoint that takes more memory than there is costs nobody the file."""

import hashlib
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from domain.errors import PlatformError
from domain.stores.table import TableName
from infrastructure.stores.duckdb import file as duckdb_file
from infrastructure.stores.duckdb.file import DuckDBOptions
from infrastructure.stores.duckdb.store import DuckDBDataStore

pytestmark = pytest.mark.line("29")
WIDE, NARROW, OTHER = TableName("wide"), TableName("narrow"), TableName("other")
# By a program of somebody else's, which has more memory and lets its log grow, or puts each few rows in their place.
_MAKING = """
import os, sys, duckdb
path, rows, is_put_away = sys.argv[1], *map(int, sys.argv[2:])
config = {"checkpoint_threshold": "1TB", "threads": 1, "max_vacuum_tasks": 0}
connection = duckdb.connect(path, config=config)
connection.execute("CREATE TABLE wide (id BIGINT, text VARCHAR)")
for first in range(0, rows, 8):
    row = "SELECT i, repeat(md5(i::VARCHAR), 31250) FROM range(?, ?) AS r(i)"
    connection.execute(f"INSERT INTO wide {row}", [first, first + 8])
    if is_put_away:
        connection.execute("CHECKPOINT")
os._exit(0)
"""


def _made(path: Path, rows: int, *, is_put_away: bool) -> None:
    subprocess.run([sys.executable, "-c", _MAKING, path, str(rows), str(int(is_put_away))], check=True)


def _rows(ids: Sequence[int], length: int) -> pa.RecordBatch:
    texts = [hashlib.md5(str(number).encode()).hexdigest() * (length // 32) for number in ids]
    return pa.record_batch({"id": pa.array(ids, pa.int64()), "text": pa.array(texts, pa.string())})


@asynccontextmanager
async def _opened(path: Path, memory: str) -> AsyncIterator[DuckDBDataStore]:
    store = DuckDBDataStore(DuckDBOptions(path=path, memory_limit=memory, scratch=path.parent / "scratch"))
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def _asked(path: Path, sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(path)) as connection:
        return connection.execute(sql).fetchall()


def _group_rows(path: Path, table: str) -> list[int]:
    """How many rows each row group of a table has."""
    groups = "SELECT sum(count) FROM pragma_storage_info(?) WHERE column_name = 'id' AND segment_type = 'BIGINT'"
    with duckdb.connect(str(path)) as connection:
        found = connection.execute(f"{groups} GROUP BY row_group_id ORDER BY row_group_id", [table]).fetchall()
    return [int(rows) for (rows,) in found]


_WHOLE = "SELECT count(*), count(DISTINCT id), bool_and(text = repeat(md5(id::VARCHAR), {})) FROM {}"


async def test_more_wide_rows_than_there_is_memory_are_written_in_many_batches(tmp_path: Path) -> None:
    """They stay in row groups that are small enough, opened anew in between too, while a reader looks at the file."""
    path = tmp_path / "f.duckdb"
    for begun in (0, 480):
        async with _opened(path, "64MB") as store, store._cursor():
            for first in range(begun, begun + 480, 8):
                await store.write(WIDE, [_rows(range(first, first + 8), 256_000)])
                await store.write(OTHER, [_rows([first], 32)])
    assert _asked(path, _WHOLE.format(8000, "wide")) == [(960, 960, True)]
    assert _asked(path, _WHOLE.format(1, "other")) == [(120, 120, True)]
    assert max(_group_rows(path, "wide")) * 256_000 < 64_000_000


async def test_row_groups_of_ordinary_rows_are_still_joined(tmp_path: Path) -> None:
    path = tmp_path / "f.duckdb"
    async with _opened(path, "64MB") as store:
        for first in range(0, 40_000, 2_000):
            await store.write(NARROW, [_rows(range(first, first + 2_000), 960)])
    groups = _group_rows(path, "narrow")
    assert (sum(groups), max(groups) > 10_000) == (40_000, True)


async def test_log_that_another_program_left_is_put_away_with_more_memory(tmp_path: Path) -> None:
    path = tmp_path / "f.duckdb"
    _made(path, 120, is_put_away=False)
    async with _opened(path, "40MB") as store:
        await store.write(WIDE, [_rows([1000], 32)])
        assert (await store.health_check()).is_healthy
    assert _asked(path, "SELECT count(*), sum(length(text)) FROM wide") == [(121, 120_000_032)]


async def test_commit_that_is_durable_though_its_checkpoint_failed_is_one_and_the_file_is_opened_anew(
    tmp_path: Path,
) -> None:
    path = tmp_path / "f.duckdb"
    _made(path, 320, is_put_away=True)
    async with _opened(path, "144MB") as store:
        async with store._session() as (session, thread):
            for number in range(17):
                await thread.call(session.begin)
                text = "repeat('x', 1000000)"
                await thread.call(session.execute, f"INSERT INTO wide SELECT {number + 1000}, {text}")
                await thread.call(session.commit)
            # As where the statistics do not tell how large the rows are.
            await thread.call(session.execute, "SET GLOBAL max_vacuum_tasks = 100")
            await thread.call(session.begin)
            await thread.call(session.execute, "CREATE TABLE other AS SELECT 1 AS id")
            await thread.call(session.commit)
            with pytest.raises(PlatformError) as caught:
                await thread.call(session.execute, "SELECT 1")
        assert (caught.value.code, caught.value.retryable) == ("store.given_up", True)
        await store.write(NARROW, [_rows([7], 32)])
        assert (await store.health_check()).is_healthy
    assert _asked(path, "SELECT count(*) FROM other UNION ALL SELECT count(*) FROM narrow") == [(1,), (1,)]
    assert _asked(path, "SELECT count(*), count(DISTINCT id), sum(length(text)) FROM wide") == [(337, 337, 337_000_000)]


async def test_log_that_no_memory_suffices_for_is_told_with_its_file_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f.duckdb"
    _made(path, 120, is_put_away=False)
    monkeypatch.setattr(duckdb_file, "memory_bytes", lambda: 60_000_000)  # The machine of whoever it happens to.
    store = DuckDBDataStore(DuckDBOptions(path, "40MB"))
    for _ in range(2):
        with pytest.raises(PlatformError) as caught:
            await store.open()
        assert (caught.value.code, caught.value.retryable) == ("store.log_too_large", False)
        assert str(path) in caught.value.message
        assert "HEADRACE_STORE__DUCKDB__MEMORY_LIMIT to 240MB" in caught.value.message
    health = await store.health_check()
    assert (health.is_healthy, health.error and health.error.code) == (False, "store.log_too_large")
    await store.close()
    async with _opened(path, "240MB") as store:
        await store.write(WIDE, [_rows([1000], 32)])
    assert _asked(path, "SELECT count(*) FROM wide") == [(121,)]
