"""Tables that Headrace wrote are read like any other: chains of pipelines, views over what they wrote."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from domain.stores.table import TableName
from tests.e2e.inside import Inside, inside
from tests.e2e.projects import postgres_connection
from tests.somebody import Somebody

RAW = (
    "CREATE TABLE a (id int PRIMARY KEY, note text); INSERT INTO a SELECT g, 'note ' || g FROM generate_series(1, 20) g"
)
NOTE = "columns: _headrace_loaded_at, _headrace_run_id of the source: replaced by this pipeline's own"


async def with_two_databases(headrace: Inside, url: str) -> None:
    """One database under two names, which Headrace takes for two."""
    for name in ("shop", "warehouse"):
        await headrace.put(postgres_connection(url, name))


@pytest.mark.invariant("D1", "D6")
async def test_second_hop_writes_its_own_metadata_whichever_way_the_rows_take(
    project: Path, postgres_database: str, somebody: Somebody
) -> None:
    somebody.does(RAW)
    async with inside(project) as headrace:
        await with_two_databases(headrace, postgres_database)
        await headrace.pipeline("one", "connection: shop, table: a", "connection: shop, table: raw")
        await headrace.report("one")
        first = somebody.does("SELECT DISTINCT _headrace_run_id::text FROM raw")[0][0]
        somebody.does("ALTER TABLE raw ADD PRIMARY KEY (id); CREATE VIEW seen AS SELECT * FROM raw WHERE id > 0")
        hops = {
            "inside": ("connection: shop, table: raw", "connection: shop, table: inside", "", "in-database"),
            "passed": ("connection: shop, table: raw", "connection: warehouse, table: passed", "", "pass-through"),
            "viewed": ("connection: shop, table: seen, key: [id]", "connection: warehouse, table: viewed", "", None),
            "replaced": ("connection: shop, table: raw", "connection: warehouse, table: replaced, mode: replace", "", None),
            "merged": ("connection: shop, table: raw", "connection: warehouse, table: merged, mode: merge, key: [id]", "", None),
            "stepped": (
                "connection: shop, table: raw",
                "connection: warehouse, table: stepped",
                "transform: [{sql: 'select *, _headrace_loaded_at as first_loaded_at from batch'}]\n",
                "arrow",
            ),
        }  # fmt: skip
        for name, (source, destination, more, way) in hops.items():
            await headrace.pipeline(name, source, destination, more)
            report = await headrace.report(name)
            assert way is None or report["way"] == way, (name, report["way_because"])
            found = somebody.does(
                f"SELECT array_agg(DISTINCT _headrace_run_id::text), min(_headrace_loaded_at) FROM {name}"
            )
            assert first not in found[0][0], name
            before = somebody.does("SELECT max(_headrace_loaded_at) FROM raw")[0][0]
            assert found[0][1] > before, name
            assert sorted(somebody.does(f"SELECT id, note FROM {name}")) == sorted(somebody.does("SELECT * FROM a")), (
                name
            )
            if name in ("passed", "merged"):  # The table is there by now, its metadata columns too.
                await headrace.report(name)
        assert NOTE in await headrace.notes("passed")
        assert somebody.does(
            "SELECT count(*) FROM stepped s JOIN raw USING (id) WHERE first_loaded_at <> raw._headrace_loaded_at"
        ) == [(0,)]


@pytest.mark.invariant("D1")
async def test_without_metadata_columns_those_of_the_first_hop_are_columns_like_any_other(
    project: Path, postgres_database: str, somebody: Somebody
) -> None:
    somebody.does(RAW)
    async with inside(project) as headrace:
        await with_two_databases(headrace, postgres_database)
        await headrace.pipeline("one", "connection: shop, table: a", "connection: shop, table: raw")
        await headrace.report("one")
        somebody.does("ALTER TABLE raw ADD PRIMARY KEY (id), ADD COLUMN _headrace_deleted_at timestamptz DEFAULT now()")
        for name, more in {
            "appended": "",
            "staged": ", publish: run",
            "swapped": ", mode: replace",
            "merged": ", mode: merge, key: [id]",
        }.items():
            await headrace.pipeline(
                name,
                "connection: shop, table: raw",
                f"connection: warehouse, table: {name}, metadata_columns: false{more}",
            )
            await headrace.report(name)
            for left, right in ((name, "raw"), ("raw", name)):
                columns = "id, note, _headrace_loaded_at, _headrace_run_id, _headrace_deleted_at"
                assert somebody.does(f"SELECT {columns} FROM {left} EXCEPT ALL SELECT {columns} FROM {right}") == [], (
                    name
                )
        await headrace.pipeline(
            "soft",
            "connection: shop, table: raw",
            "connection: warehouse, table: soft, mode: merge, key: [id], delete_missing: soft",
        )
        await headrace.report("soft")
        assert somebody.does("SELECT count(_headrace_deleted_at), count(*) FROM soft") == [(0, 20)]


@pytest.mark.invariant("D1", "D6")
async def test_chain_on_duckdb_and_in_memory_follows_the_time_of_loading(project: Path) -> None:
    for kind in ("duckdb", "memory"):
        async with inside(project, HEADRACE_STORE__KIND=kind, HEADRACE_HOME=f".{kind}") as headrace:
            store = await headrace.store()
            await store.write(TableName("a"), [pa.table({"id": pa.array([1, 2], pa.int64())})])
            await headrace.pipeline("one", "table: a, key: [id], cursor: {column: id, hold_back: 0}", "table: raw")
            await headrace.pipeline(
                "two", "table: raw, key: [id], cursor: {column: _headrace_loaded_at, hold_back: 0s}", "table: staged"
            )
            await headrace.pipeline("whole", "table: raw, key: [id]", "table: copied, mode: replace")
            for ids in ([], [3, 4], [5]):
                await store.write(TableName("a"), [pa.table({"id": pa.array(ids, pa.int64())})])
                await headrace.report("one")
                report = await headrace.report("two")
                await headrace.report("whole")
            assert report["counts"]["read"] == 1, kind
            for name in ("staged", "copied"):
                found = await headrace.rows(name)
                assert sorted(row["id"] for row in found) == [1, 2, 3, 4, 5], (kind, name)
                assert len({str(row["_headrace_run_id"]) for row in found}) == (3 if name == "staged" else 1)
                assert set(found[0]) == {"id", "_headrace_run_id", "_headrace_loaded_at"}


@pytest.mark.invariant("D1")
async def test_file_that_was_exported_elsewhere_lands_with_metadata_of_its_own(project: Path) -> None:
    exported = {"id": [1, 2], "_headrace_run_id": ["not", "uuids"], "_HEADRACE_LOADED_AT": ["yesterday", None]}
    pq.write_table(pa.table(exported), project / "data/people.parquet")
    pq.write_table(pa.table({"id": [1], "_headrace_ordinal": [1]}), project / "data/reserved.parquet")
    async with inside(project) as headrace:
        await headrace.put("version: 1\nconnection: landing\nkind: files\noptions: {root: data}\n")
        for name in ("people", "reserved"):
            await headrace.pipeline(name, f"connection: landing, path: {name}.parquet", f"table: {name}")
        for _ in range(2):
            await headrace.report("people")
        found = await headrace.rows("people")
        refused = await headrace.ran("reserved")

    assert [set(row) for row in found] == [{"id", "_headrace_run_id", "_headrace_loaded_at"}] * 4
    assert len({row["_headrace_run_id"] for row in found}) == 2
    assert (refused.error and refused.error.code) == "columns.reserved"


@pytest.mark.invariant("D6")
async def test_columns_that_the_table_computes_are_left_to_it(
    project: Path, postgres_database: str, somebody: Somebody
) -> None:
    made = "total int GENERATED ALWAYS AS (n * 2) STORED"
    somebody.does(f"CREATE TABLE a (id int PRIMARY KEY, n int, {made}); INSERT INTO a VALUES (1, 10), (2, 20)")
    async with inside(project) as headrace:
        await with_two_databases(headrace, postgres_database)
        for name, more in {"added": "", "staged": ", publish: run", "swapped": ", mode: replace",
                           "merged": ", mode: merge, key: [id]"}.items():  # fmt: skip
            somebody.does(f'CREATE TABLE {name} (id int, n int, "total" int GENERATED ALWAYS AS (n * 3) STORED)')
            await headrace.pipeline(name, "connection: shop, table: a", f"connection: warehouse, table: {name}{more}")
            report = await headrace.report(name)
            assert report["columns_left_out"] == ["total: left out, as the table computes it"], name
            assert sorted(somebody.does(f"SELECT id, n, total FROM {name}")) == [(1, 10, 30), (2, 20, 60)], name
        assert report["merged"] == report["streams"][0]["merged"] == {"inserted": 2, "updated": 0, "deleted": 0}
        await headrace.pipeline(
            "keyed", "connection: shop, table: a", "connection: warehouse, table: merged, mode: merge, key: [total]"
        )
        refused = await headrace.ran("keyed")
    assert (refused.error and refused.error.code) == "merge.key_computed"
