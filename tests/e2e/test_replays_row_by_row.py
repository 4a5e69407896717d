"""Each row that is replayed is looked at by itself, wherever batches end, and one that is not proven lands only where
nobody can have deleted its key (D9).
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pyarrow as pa
import pytest

from domain.loads.quarantine import LEFT
from domain.stores.table import TableName
from tests.e2e.inside import Inside, inside
from tests.e2e.projects import postgres_environment, write
from tests.e2e.tables import postgres
from tests.e2e.test_replayed_merges import STORES, Pipeline, does, happened

STRICT = "transform: [{cast: {amount: int64}}]\non_error: {max_rows: 9}\n"
MENDED = 'transform: [{sql: "select * replace (coalesce(try_cast(amount as bigint), 1) as amount) from batch"}]\n'
NO_TICK = "transform: [{drop: [tick]}]\n"
LANDING = "version: 1\nconnection: landing\nkind: files\noptions: {root: data}\n"
FILE = "connection: landing, path: f.csv"
DELETES = "key: [acct], deleted_when: op = 'D'"
SIZES = pytest.mark.parametrize("size", ["", "run: {batch_rows: 1}\n"], ids=["in one batch", "row by row"])
IN_SQL = pytest.mark.parametrize("own", ["duckdb", "postgres"], indirect=True)


@pytest.fixture(params=STORES)
async def own(request: pytest.FixtureRequest, project: Path) -> AsyncIterator[Inside]:
    settings = {"HEADRACE_STORE__KIND": request.param}
    if request.param == "postgres":
        settings = postgres_environment(request.getfixturevalue("postgres_database"))
    async with inside(project, **settings) as opened:
        await opened.put(LANDING)
        yield opened


async def amounts(own: Inside) -> dict[str, int]:
    return {row["acct"]: row["amount"] for row in await own.rows("t")}


async def given(own: Inside, *rows: tuple[str, str, str, int]) -> None:
    """Account, what was done, the amount as text, and when."""
    accounts, done, told, times = zip(*rows, strict=True)
    ticks = pa.array(times, pa.int64())
    columns = {"acct": list(accounts), "op": list(done), "amount": list(told), "id": ticks, "tick": ticks}
    await (await own.store()).write(TableName("s"), [pa.table(columns)])


@pytest.mark.invariant("D9", "D6")
@SIZES
async def test_a_row_that_is_left_hides_none_that_may_land(own: Inside, size: str, project: Path) -> None:
    lines = ["A,1", "A,500", "A,x", "D,x", "D,500", "E,500", "E,600", "F,9", "F,x", "F,500"]
    write(project, "data/f.csv", "\n".join(["acct,amount", *lines, ""]))
    await Pipeline(own, FILE, more=STRICT).put(100)
    await own.report("p")
    assert await amounts(own) == {"A": 1, "F": 9}
    mended = Pipeline(own, FILE, more=f"{MENDED}{size}")
    await mended.put(1000)

    counts = (await own.report("p", replay="all"))["counts"]

    assert await amounts(own) == {"A": 500, "D": 500, "E": 600, "F": 500}
    states = ["repaired", "open", "repaired", "repaired", "repaired", "repaired", "open", "repaired"]
    assert await mended.states() == states
    assert (counts["read"], counts["used"], counts["quarantined"]) == (8, 6, 2)
    assert counts["produced"] - counts["deduplicated"] == (6 if size else 4)


@pytest.mark.invariant("D9")
@SIZES
async def test_where_keys_are_deleted_a_proven_row_lands_before_one_that_is_left(
    own: Inside, size: str, project: Path
) -> None:
    write(project, "data/f.csv", "acct,amount\nB,1\nC,500\nC,x\nD,x\nD,500\n")
    to = "key: [acct], deleted_when: amount = 0"
    await Pipeline(own, FILE, to, STRICT).put(100)
    await own.report("p")
    mended = Pipeline(own, FILE, to, f"{MENDED}{size}")
    await mended.put(1000)

    await own.report("p", replay="all")

    assert await amounts(own) == {"B": 1, "C": 500, "D": 500}
    assert await mended.states() == ["repaired", "open", "open", "repaired"]


@pytest.mark.invariant("D9")
@SIZES
async def test_of_rows_that_land_by_their_cursor_the_greatest_stays(own: Inside, size: str) -> None:
    await given(
        own, ("A", "U", "5", 1), ("A", "later", "x", 3), ("A", "latest", "y", 4),
        ("B", "U", "x", 5), ("B", "there", "7", 6), ("C", "U", "x", 7), ("C", "latest", "y", 8),
    )  # fmt: skip
    await Pipeline(own, more=STRICT).put(100)
    await own.report("p")
    mended = Pipeline(own, more=f"{MENDED}{size}")
    await mended.put(1000)

    await own.report("p", replay="all")

    assert {row["acct"]: row["op"] for row in await own.rows("t")} == {"A": "latest", "B": "there", "C": "latest"}
    assert await mended.states() == ["repaired"] * 5


@pytest.mark.invariant("D9")
@pytest.mark.parametrize(
    ("to", "lands"),
    [(", deleted_when: 'true'", False), (", deleted_when: 'false'", False), ("", True)],
    ids=["deletes it", "may delete", "never deletes"],
)
async def test_a_key_that_another_pipeline_may_have_deleted_does_not_come_back(
    own: Inside, to: str, lands: bool, project: Path
) -> None:
    await happened(own, (1, "A", "U", 5, 1), (2, "A", "U", 500, 2), (3, "D", "U", 500, 3))
    write(project, "data/f.csv", "acct,amount\nA,0\n")
    pipeline = Pipeline(own, more=NO_TICK)
    await pipeline.put(100)
    await own.report("p")
    await own.pipeline("feed", FILE, f"table: t, mode: merge, key: [acct]{to}")
    await own.report("feed")

    report = await pipeline.replays()

    assert await amounts(own) == ({} if "true" in to else {"A": 0}) | ({"D": 500} if lands else {})
    assert await pipeline.states() == ["open", "repaired" if lands else "open"]
    assert any(LEFT in warning for warning in report["warnings"])


@pytest.mark.invariant("D9")
@pytest.mark.parametrize("to", [DELETES, "key: [acct]"], ids=["once", "never"])
async def test_a_key_that_the_pipeline_has_deleted_stays_away_whatever_its_document_says_now(
    own: Inside, to: str
) -> None:
    """A row that is proven to be the newest lands all the same."""
    await given(own, ("A", "U", "5", 1), ("A", "U", "x", 2), ("B", "U", "500", 3), ("C", "U", "x", 4))
    await Pipeline(own, to=to, more=f"{STRICT.replace('}]', '}, {drop: [tick]}]')}").put(100)
    await own.report("p")
    await given(own, ("A", "D", "6", 5))
    await own.report("p")
    relaxed = Pipeline(own, more=MENDED.replace("* replace", "* exclude (tick) replace"))

    await relaxed.replays()

    assert await amounts(own) == {"B": 500} | ({} if to == DELETES else {"A": 6, "C": 1})
    assert await relaxed.states() == ["open", "repaired", "open" if to == DELETES else "repaired"]


@pytest.mark.invariant("D9")
@IN_SQL
@pytest.mark.parametrize("has_other", [True, False], ids=["with another writer", "alone"])
async def test_what_an_earlier_version_has_deleted_is_not_known_of_another_writer_and_told_by_the_own_document(
    own: Inside, has_other: bool, request: pytest.FixtureRequest, project: Path
) -> None:
    await given(own, ("A", "U", "5", 1), ("C", "U", "x", 2))
    write(project, "data/f.csv", "acct,amount\nB,0\n")
    await Pipeline(own, more=f"{STRICT.replace('}]', '}, {drop: [tick]}]')}").put(100)
    await own.report("p")
    if has_other:
        await own.pipeline("feed", FILE, "table: t, mode: merge, key: [acct]")
        await own.report("feed")
    await does(own, request, "ALTER TABLE _headrace_owner DROP COLUMN deletes")
    relaxed = Pipeline(own, more=MENDED.replace("* replace", "* exclude (tick) replace"))

    await relaxed.replays()

    assert ("C" in await amounts(own)) is not has_other
    assert await relaxed.states() == ["open" if has_other else "repaired"]


@pytest.mark.invariant("D9")
@IN_SQL
async def test_a_key_as_an_earlier_version_has_written_it_proves_nothing(
    own: Inside, request: pytest.FixtureRequest
) -> None:
    """Its digest had the names of the steps or of the destination: no later row may have been known by it."""
    await happened(own, (1, "A", "U", 500, 1), (2, "A", "U", 7, 2), (3, "B", "U", 500, 3), (4, "C", "U", 500, 4))
    pipeline = Pipeline(own, more=NO_TICK)
    await pipeline.put(100)
    await own.report("p")
    assert await pipeline.states() == ["superseded", "open", "open"]
    old = "UPDATE _headrace_quarantine SET merge_key = substr(merge_key, 3), state = 'open'"
    await does(own, request, f"{old} WHERE ordinal <> 3")

    await pipeline.replays()

    assert await amounts(own) == {"A": 7, "B": 500, "C": 500}
    assert await pipeline.states() == ["open", "repaired", "repaired"]
    assert [LEFT in row.reason for row in await pipeline.refused()] == [True, False, False]


@pytest.mark.invariant("D9")
@pytest.mark.parametrize("version", ["", "ALTER TABLE public._headrace_owner DROP COLUMN deletes"], ids=["", "earlier"])
async def test_what_is_deleted_under_another_name_of_the_table_does_not_come_back(
    version: str, postgres_database: str, project: Path
) -> None:
    name = postgres_database.rsplit("/", 1)[1]
    for statement in ("CREATE SCHEMA app", f"ALTER DATABASE {name} SET search_path = app, public"):
        postgres(postgres_database, statement)
    postgres(postgres_database, "CREATE TABLE public.t (acct TEXT PRIMARY KEY, amount BIGINT)")
    write(project, "data/f.csv", "acct,amount\nA,5\nA,x\nC,x\n")
    write(project, "data/g.csv", "acct,amount\nA,0\n")
    to = "key: [acct], metadata_columns: false"
    async with inside(project, **postgres_environment(postgres_database)) as own:
        await own.put(LANDING)
        await Pipeline(own, FILE, to, STRICT).put(100)
        await own.report("p")
        feed = f"table: public.t, mode: merge, {to}, deleted_when: amount = 0"
        await own.pipeline("feed", "connection: landing, path: g.csv", feed)
        await own.report("feed")
        for statement in filter(None, [version]):
            postgres(postgres_database, statement)
        relaxed = Pipeline(own, FILE, to, MENDED)
        await relaxed.put(1000)

        await own.report("p", replay="all")

        assert await amounts(own) == {}
        assert await relaxed.states() == ["open", "open"]
    kept = "SELECT schemaname FROM pg_tables WHERE tablename = '_headrace_owner' ORDER BY 1"
    assert [schema for (schema,) in postgres(postgres_database, kept)] == ["app", "public"]
