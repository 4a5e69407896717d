"""A table that others empty or exchange between two runs is theirs to empty: the next run brings what is new, and says
no more.
"""

from pathlib import Path

import pyarrow as pa
import pytest

from domain.stores.table import TableName
from tests.e2e.inside import inside
from tests.e2e.projects import postgres_environment
from tests.e2e.tables import postgres
from tests.ports.backends import cursor_of

EMPTIED = {
    "deleted": "DELETE FROM t",
    "truncated": "TRUNCATE t",
    "exchanged": "CREATE TABLE other AS SELECT * FROM t LIMIT 0; DROP TABLE t; ALTER TABLE other RENAME TO t",
    "filled by others": "TRUNCATE t; INSERT INTO t (k, n) VALUES (99, 99)",
}
# Without rules rows pass undecoded from one database to another, or within one; rules and merges decode them.
SHAPES = {
    "append": ("table: t", ""),
    "append with a rule": ("table: t", "quality: [{rule: sql, sql: n + k >= 0}]\n"),
    "merge": ("table: t, mode: merge, key: [k]", ""),
    "staged": ("table: t, publish: run", ""),
}


@pytest.mark.parametrize("is_postgres", [False, True], ids=["duckdb", "postgres"])
@pytest.mark.parametrize("what", list(EMPTIED))
@pytest.mark.parametrize("shape", list(SHAPES))
async def test_next_run_brings_what_is_new(
    what: str, shape: str, is_postgres: bool, project: Path, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("postgres_database") if is_postgres else ""
    wanted, rules = SHAPES[shape]
    async with inside(project, **(postgres_environment(url) if is_postgres else {})) as own:
        store = await own.store()

        def does(script: str) -> None:
            for statement in script.split("; "):
                postgres(url, statement) if is_postgres else cursor_of(store).execute(statement)

        rows = pa.table({"k": pa.array(range(20), pa.int64()), "n": pa.array(range(20), pa.int64())})
        await store.write(TableName("s"), [rows])
        await own.pipeline(
            "p",
            "connection: default, table: s, key: [k], cursor: {column: n}",
            wanted,
            f"{rules}run: {{batch_rows: 7}}\n",
        )
        assert (await own.report("p"))["counts"]["used"] == 20

        does(EMPTIED[what])
        does("INSERT INTO s SELECT k + 20, n + 20 FROM s")
        report = await own.report("p")

        assert report["counts"]["used"] == 20
        found = sorted(row["k"] for row in await own.rows("t"))
        assert found == [*range(20, 40), *([99] if what == "filled by others" else [])]
