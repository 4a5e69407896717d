"""A value of hundreds of megabytes in a DuckDB file: refused by statistics or inside the statement, and looked at in
turns.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from domain.errors import PlatformError, UnavailableError, WorkFailedError
from domain.pipelines.spec import SourceSpec
from domain.stores.table import TableName
from infrastructure.memory_room import Room
from infrastructure.stores.duckdb import reading as duckdb_reading
from infrastructure.stores.duckdb.file import DuckDBOptions
from infrastructure.stores.duckdb.store import DuckDBDataStore
from tests.security.test_huge_cells import grown

pytestmark = pytest.mark.line("29")
MIB = 1024 * 1024
# A value with about so many bytes, and what a small one of its kind is.
KINDS = {
    "text": ("repeat('x', {})", "'y'"),
    "bytes": ("encode(repeat('x', {}))", "encode('y')"),
    "json": ("('\"' || repeat('x', {}) || '\"')::JSON", "'1'::JSON"),
    "bits": ("repeat('1', 2 * {})::BIT", "'1'::BIT"),
    "numbers": ("range({} // 8)", "range(2)"),
    "texts": ("[repeat('x', {})]", "['y']"),
    "struct": ("{{'a': repeat('x', {}), 'b': 1}}", "{{'a': 'y', 'b': 1}}"),
    "map": ("map([1], [repeat('x', {})])", "map([1], ['y'])"),
    "tuple": ("row(repeat('x', {}), 1)", "row('y', 1)"),
    "variant": ("repeat('x', {})::VARIANT", "1::VARIANT"),
    "variants": ("{{'a': [repeat('x', {})::VARIANT]}}", "{{'a': [1::VARIANT]}}"),
    "geometry": (
        "('LINESTRING(' || repeat('1.23456789 1.23456789, ', {} // 80) || '1 2)')::GEOMETRY",
        "'POINT(1 2)'::GEOMETRY",
    ),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "huge.duckdb"


def made(path: Path, *statements: str) -> None:
    with duckdb.connect(str(path)) as connection:
        for statement in statements:
            connection.execute(statement)


@pytest.fixture
async def store(file: Path) -> AsyncIterator[DuckDBDataStore]:
    made(file)
    store = DuckDBDataStore(DuckDBOptions(file))
    yield store
    await store.close()


async def read(store: DuckDBDataStore, source: SourceSpec, *, size: int = MIB, limit: int | None = None) -> pa.Table:
    """Read a source as a run does, or as a preview with its limit."""
    await store.open()
    plan = await store.plan(source, lo=None, limit=limit)
    async with store.reader(source, plan, plan.streams[0], batch_rows=1000, batch_bytes=size) as reader:
        return pa.concat_tables([pa.table(batch.data) async for batch in reader.batches(None, limit=limit)])


async def refused(store: DuckDBDataStore, source: SourceSpec, **options: Any) -> None:
    with pytest.raises(WorkFailedError, match=r"most of it in the column v;") as caught:
        await read(store, source, **options)
    assert caught.value.code == "source.row_too_large"


@pytest.mark.parametrize("kind", KINDS)
async def test_values_are_refused_whatever_their_type(kind: str, file: Path, store: DuckDBDataStore) -> None:
    large, small = (text.format(5 * MIB) for text in KINDS[kind])
    made(file, f"CREATE TABLE t AS SELECT g AS id, CASE g WHEN 30 THEN {large} ELSE {small} END AS v FROM range(40) s(g)",
         "CREATE VIEW seen AS SELECT id, v FROM t WHERE id >= 0")  # fmt: skip
    table = SourceSpec(table=TableName("t"), key=("id",))
    view = SourceSpec(table=TableName("seen"), key=("id",))
    query = SourceSpec(query="SELECT v, id, v AS w FROM t WHERE id > $least", key=("id",), parameters={"least": 20})
    for source in (table, view, query):
        await refused(store, source, limit=50)
        rows = await read(store, source, limit=9)  # Those behind do not count.
        assert rows["id"].to_pylist() == list(range(21, 30) if source is query else range(9))
    await refused(store, table)
    assert (await read(store, table, size=64 * MIB)).num_rows == 40


async def test_neither_names_nor_parts_of_structs_hide_one(file: Path, store: DuckDBDataStore) -> None:
    huge = f"repeat('x', {2 * MIB})"
    made(
        file,
        'CREATE SCHEMA "o.""p"',
        f'CREATE TABLE "o.""p"."T é" AS SELECT {huge} AS v',
        f"CREATE TABLE numbered AS SELECT 'a' AS RowId, {huge} AS v",
        f"CREATE TABLE parts AS SELECT {{'a': {{'b': {huge}}}, 'c': 1}} AS s",
        "CREATE TABLE kinds AS SELECT 'sad'::ENUM('sad', 'ok') AS v, NULL AS n, TIMESTAMPTZ 'infinity' AS z, "
        "1::UHUGEINT AS u",
        'CREATE VIEW "a.view" AS SELECT v FROM "o.""p"."T é"',
    )
    tables = [TableName("numbered"), TableName("a.view")]
    queries = ['SELECT v FROM "o.""p"."T é"', "SELECT s.a.b AS v FROM parts", "SELECT v FROM numbered, parts"]
    for source in (*(SourceSpec(table=one) for one in tables), *(SourceSpec(query=one) for one in queries)):
        await refused(store, source)
        await refused(store, source, limit=5)
        assert (await read(store, source, size=8 * MIB)).num_rows == 1
    assert (await read(store, SourceSpec(query="SELECT s.c AS v FROM parts"))).to_pylist() == [{"v": 1}]
    kinds = await read(store, SourceSpec(query="SELECT v, n, u, 'x' AS rowid, CAST(z AS VARCHAR) AS z FROM kinds"))
    assert kinds.to_pylist() == [{"v": "sad", "n": None, "u": "1", "rowid": "x", "z": "infinity"}]


async def test_nothing_is_read_of_what_the_statistics_tell_for_certain(file: Path, store: DuckDBDataStore) -> None:
    made(
        file,
        f"CREATE TABLE t AS SELECT g AS id, CASE g WHEN 3 THEN repeat('x', {25 * MIB}) ELSE 'y' END AS v FROM "
        "range(5) s(g)",
    )
    await store.open()
    source = SourceSpec(table=TableName("t"))
    with grown("self", 15):
        await refused(store, source, limit=5)
    await store.close()
    for statement in (
        "UPDATE u SET v = 'cut' WHERE id = 3",
        "DELETE FROM u WHERE id = 3",
    ):
        made(
            file,
            f"CREATE OR REPLACE TABLE u AS SELECT g AS id, repeat('x', CASE g WHEN 3 THEN {2 * MIB} ELSE 1 END) AS v "
            "FROM range(5) s(g)",
        )
        connection = duckdb.connect(str(file))
        connection.execute("SET checkpoint_threshold = '1TB'")
        connection.execute(statement)
        connection.execute("PRAGMA disable_checkpoint_on_shutdown")
        connection.close()
        rows = await read(store, SourceSpec(table=TableName("u")), limit=5)
        assert max(len(value) for value in rows["v"].to_pylist()) <= 3
        await store.close()


async def test_a_run_copies_no_huge_value(file: Path, store: DuckDBDataStore) -> None:
    made(file, f"CREATE TABLE t AS SELECT 1 AS id, repeat('x', {40 * MIB}) AS v")
    await store.open()
    for source in (SourceSpec(table=TableName("t")), SourceSpec(query="SELECT id, v FROM t")):
        with grown("self", 70):  # Once, and not twice.
            await refused(store, source)


async def test_previews_of_large_values_take_turns(
    file: Path, store: DuckDBDataStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(
        file,
        f"CREATE TABLE t AS SELECT 1 AS id, repeat('x', {30 * MIB}) AS v",
        "CREATE TABLE s AS SELECT 1 AS id, 'y' AS v",
    )
    room = Room(most=100 * MIB, patience_seconds=0.01)
    monkeypatch.setattr(duckdb_reading, "ROOM", room)
    await store.open()
    large, small = (SourceSpec(query=f"SELECT * FROM {name}") for name in "ts")
    with room.taken(60 * MIB):
        with pytest.raises(UnavailableError) as caught:
            await read(store, large, size=64 * MIB, limit=5)
        assert caught.value.code == "worker.busy"
        assert (await read(store, small, limit=5)).num_rows == 1
        assert (await read(store, large, size=64 * MIB)).num_rows == 1  # A run does not wait.
    found = await asyncio.gather(
        *(read(store, large, size=64 * MIB, limit=5) for _ in range(3)), return_exceptions=True
    )
    assert all(isinstance(one, pa.Table | PlatformError) for one in found)
    assert (await read(store, large, size=64 * MIB, limit=5)).num_rows == 1


async def test_a_preview_gathers_no_rows_in_front_of_its_first(file: Path, store: DuckDBDataStore) -> None:
    made(file, f"CREATE TABLE t AS SELECT range AS id, repeat('x', {MIB // 10}) || range AS v FROM range(1200)")
    await store.open()
    source = SourceSpec(query="SELECT * FROM t")
    plan = await store.plan(source, lo=None, limit=1100)
    with grown("self", 320):  # What DuckDB unpacks at a time, of which it has some copies.
        sizes = []
        async with store.reader(source, plan, plan.streams[0], batch_rows=1100, batch_bytes=2 * MIB) as reader:
            async for batch in reader.batches(None, limit=1100):
                sizes.append(batch.data.num_rows)

    assert (sum(sizes), max(sizes)) == (1100, 19)
    for limit in (1, 19, 20, 21, 1000):
        assert (await read(store, source, size=2 * MIB, limit=limit))["id"].to_pylist() == list(range(limit))


async def test_rows_that_duckdb_cannot_unpack_together_are_told_with_the_memory_that_they_need(file: Path) -> None:
    text = "repeat('x', 1499000) || range"
    made(file, f"CREATE TABLE big AS SELECT range AS id, {text} AS v FROM range(40)")
    source, code, said = SourceSpec(table=TableName("big")), "", ""
    for limit in ("60MB", "150MB"):
        store = DuckDBDataStore(DuckDBOptions(file, memory_limit=limit))
        await store.open()
        try:
            plan = await store.plan(source, lo=None, limit=None)
            async with store.reader(source, plan, plan.streams[0], batch_rows=1000) as reader:
                found = sum([batch.data.num_rows async for batch in reader.batches(None)])
            assert (limit, found) == ("150MB", 40)
        except WorkFailedError as error:
            assert limit == "60MB"
            code, said = error.code, error.message
        finally:
            await store.close()
    assert code == "store.memory"
    assert "column v are so large, up to 1,499,00" in said
    assert "MEMORY_LIMIT to 131 MB or more" in said
