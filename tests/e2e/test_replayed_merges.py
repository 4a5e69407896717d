"""A replay leaves a merged table as it would be had the rule never refused a row, or leaves the row where it is and
says why (D9).
"""

import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest
import uuid_utils

from domain.loads.quarantine import LEFT, Refusals, RefusedState
from domain.stores.table import TableName
from infrastructure.runtime import RandomIdentifiers
from infrastructure.stores.duckdb.store import DuckDBDataStore
from tests.e2e.api import headrace
from tests.e2e.inside import Inside, inside
from tests.e2e.projects import new_project, postgres_environment, write
from tests.e2e.tables import duckdb_rows, postgres
from tests.ports.backends import cursor_of

STORES = ("duckdb", "postgres", "memory")
RULE = "quality: [{{rule: between, column: amount, max: {most}, on_violation: quarantine}}]\n"
EVENTS = "connection: default, table: s, key: [id], cursor: {column: tick}"
Event = tuple[int, str, str, int, int]
"""Id, account, what was done (U or D), amount, and when."""


@pytest.fixture(params=STORES)
async def own(request: pytest.FixtureRequest, project: Path) -> AsyncIterator[Inside]:
    settings = {"HEADRACE_STORE__KIND": request.param}
    if request.param == "postgres":
        settings = postgres_environment(request.getfixturevalue("postgres_database"))
    async with inside(project, **settings) as opened:
        yield opened


ODD = {"acct": "Acct No", "op": "OP", "id": "Id", "tick": "Tick"}


async def happened(own: Inside, *events: Event) -> None:
    ids, accounts, done, amounts, times = zip(*events, strict=True)
    columns = {"id": ids, "amount": amounts, "tick": times}
    rows = pa.table(
        {"acct": list(accounts), "op": list(done), **{n: pa.array(v, pa.int64()) for n, v in columns.items()}}
    )
    store = await own.store()
    await store.write(TableName("s"), [rows])
    await store.write(TableName("odd"), [rows.rename_columns([ODD.get(name, name) for name in rows.column_names])])


class Pipeline:
    """A pipeline whose rule is relaxed, and one that was never stricter and has read the same."""

    def __init__(self, own: Inside, source: str = EVENTS, to: str = "key: [acct]", more: str = "") -> None:
        self.own, self.source, self.to, self.more = own, source, to, more

    async def put(self, most: int, name: str = "p", table: str = "t") -> None:
        more = f"{RULE.format(most=most)}{self.more}"
        await self.own.pipeline(name, self.source, f"table: {table}, mode: merge, {self.to}", more)

    async def runs(self) -> None:
        await self.put(100)
        await self.put(1000, "q", "u")
        for name in ("p", "q"):
            await self.own.report(name)

    async def replays(self, which: str = "all") -> dict[str, Any]:
        await self.put(1000)
        return await self.own.report("p", replay=which)

    async def is_as_if_never_refused(self) -> bool:
        tables = [await self.own.rows(table) for table in ("t", "u")]
        plain = [[{n: v for n, v in row.items() if not n.startswith("_headrace")} for row in rows] for rows in tables]
        found, expected = (sorted(rows, key=str) for rows in plain)
        assert found == expected
        return True

    async def states(self) -> list[str]:
        return [str(row.state) for row in await self.refused()]

    async def refused(self) -> Any:
        refusals = Refusals("default", "p", TableName("t"))
        return await (await self.own.store()).refused_rows(refusals, after=None, limit=99)


SHAPES: dict[str, dict[str, str]] = {
    "an account that was deleted": {"to": "key: [acct], deleted_when: op = 'D'"},
    "deleted, as a whole": {"to": "key: [acct], publish: run, deleted_when: op = 'D'"},
    "the cursor does not land": {"more": "transform: [{drop: [tick]}]\n"},
    "the cursor lands in another shape": {
        "more": 'transform: [{sql: "select acct, op, amount, cast(floor(tick / 100) as bigint) as tick from batch"}]\n'
    },
    "nor does it, as a whole": {"to": "key: [acct], publish: run", "more": "transform: [{drop: [tick]}]\n"},
    "no cursor": {"source": "connection: default, table: s, key: [id]"},
    "one row in a batch": {"to": "key: [acct], deleted_when: op = 'D'", "more": "run: {batch_rows: 1}\n"},
    "two columns of the key": {"to": "key: [acct, op]", "more": "transform: [{drop: [tick]}]\n"},
    "names in other letter cases, with blanks": {
        "source": "connection: default, table: odd, key: [Id], cursor: {column: Tick}",
        "to": "key: [acct no], deleted_when: op = 'D'",
        "more": "transform: [{drop: [Tick]}]\n",
    },
    "steps that give names in other letter cases": {
        "to": "key: [acct no]",
        "more": "transform: [{drop: [tick]}, {rename: {acct: Acct No}}]\n",
    },
    "a computed key": {
        "to": "key: [k]",
        "more": 'transform: [{sql: "select md5(acct) as k, op, amount from batch"}]\n',
    },
}


@pytest.mark.invariant("D9")
@pytest.mark.parametrize("shape", SHAPES)
async def test_a_replayed_row_does_not_come_back_before_a_later_one_of_its_key(own: Inside, shape: str) -> None:
    """A later row of the same run, or of the next one, with a row that is the newest, and a key that nobody else has."""
    pipeline = Pipeline(own, **SHAPES[shape])
    await happened(
        own, (1, "A", "U", 500, 1), (2, "A", "D", 1, 2), (3, "B", "U", 5, 3), (4, "B", "U", 600, 4),
        (5, "C", "U", 700, 5), (6, "D", "U", 800, 6), (7, "E", "D", 900, 7),
    )  # fmt: skip
    await pipeline.runs()
    await happened(own, (8, "C", "U", 7, 8), (9, "C", "D", 8, 9), (10, "B", "D", 9, 10), (11, "B", "U", 650, 11))
    await pipeline.runs()

    report = await pipeline.replays()

    assert await pipeline.is_as_if_never_refused()
    assert "open" not in await pipeline.states()
    assert report["counts"]["quarantined"] == 0


@pytest.mark.invariant("D9")
@pytest.mark.parametrize(
    ("header", "key"),
    [("acct", ""), ("acct", ", key: [acct]"), ("ACCT", "")],
    ids=["without a key", "with a key", "in capitals"],
)
async def test_a_replayed_line_of_a_file_does_not_come_back_before_a_later_one(
    own: Inside, header: str, key: str, project: Path
) -> None:
    write(project, "data/f.csv", f"{header},op,amount\nA,old,500\nA,new,7\nB,x,1\nC,y,1\nC,z,600\n")
    await own.put("version: 1\nconnection: landing\nkind: files\noptions: {root: data}\n")
    pipeline = Pipeline(own, f"connection: landing, path: f.csv{key}")
    await pipeline.runs()

    await pipeline.replays()

    assert await pipeline.is_as_if_never_refused()
    assert await pipeline.states() == ["superseded", "repaired"]


@pytest.mark.invariant("D9")
async def test_of_several_refused_rows_of_a_key_the_newest_stays_whichever_is_replayed_first(own: Inside) -> None:
    """Also where the cursor does not tell which is the newest, and where one is refused again."""
    pipeline = Pipeline(own, more="run: {batch_rows: 1}\n")
    await happened(own, (1, "A", "U", 500, 1), (2, "A", "U", 600, 1), (3, "B", "U", 500, 2), (4, "B", "U", 5000, 3))
    await pipeline.runs()
    first = (await pipeline.refused())[0].run_id
    await happened(own, (5, "A", "U", 700, 4), (6, "C", "U", 500, 5), (7, "C", "U", 600, 5))
    await pipeline.runs()
    second = (await pipeline.refused())[-1].run_id

    await pipeline.replays(second)
    assert await pipeline.states() == ["superseded", "superseded", "open", "open", "repaired", "repaired", "repaired"]
    await pipeline.replays(first)

    assert await pipeline.is_as_if_never_refused()
    assert (await pipeline.states())[2:4] == ["repaired", "open"]


LINES = "acct,amount\nA,x\nA,7\nB,x\nC,600\n"


@pytest.mark.invariant("D9", "D6")
@pytest.mark.parametrize("deletes", [False, True], ids=["", "with deletions"])
async def test_a_row_that_is_not_proven_the_newest_stays_and_says_why(
    own: Inside, deletes: bool, project: Path
) -> None:
    """Of one that did not convert nobody knew the key: it lands where its key is not there and was never deleted."""
    write(project, "data/f.csv", LINES)
    await own.put("version: 1\nconnection: landing\nkind: files\noptions: {root: data}\n")
    to = "key: [acct], deleted_when: amount = 3" if deletes else "key: [acct]"
    source = "connection: landing, path: f.csv"
    strict = Pipeline(own, source, to, "transform: [{cast: {amount: int64}}]\non_error: {max_rows: 9}\n")
    await strict.put(100)
    await own.report("p")
    assert await strict.states() == ["open"] * 3

    mended = 'transform: [{sql: "select acct, coalesce(try_cast(amount as bigint), 1) as amount from batch"}]\n'
    for _ in range(2):
        relaxed = Pipeline(own, source, to, mended)
        await relaxed.put(1000)
        report = await own.report("p", replay="all")
        counts = report["counts"]
        left = 2 if deletes else 1
        assert (counts["used"] + counts["quarantined"], counts["quarantined"]) == (counts["read"], left)
        assert [warning for warning in report["warnings"] if LEFT in warning] == [
            f"{left} refused rows stay in quarantine, {LEFT}"
        ]

    rows = {row["acct"]: row["amount"] for row in await own.rows("t")}
    assert rows == {"A": 7, "C": 600} | ({} if deletes else {"B": 1})
    assert await relaxed.states() == ["open", "open" if deletes else "repaired", "repaired"]
    told = [row.reason for row in await relaxed.refused() if row.state is RefusedState.OPEN]
    assert told == [f"amount does not convert; {LEFT}"] * left


@pytest.mark.invariant("D9")
async def test_a_row_without_a_key_lands_once_a_step_gives_it_one(own: Inside) -> None:
    write_key = "transform: [{sql: \"select * replace (coalesce(acct, 'none') as acct) from batch\"}]\n"
    await own.pipeline(
        "p", EVENTS, "table: t, mode: merge, key: [acct]",
        "quality: [{rule: not_null, column: acct, on_violation: quarantine}]\n",
    )  # fmt: skip
    rows = {"acct": [None, "A"], "op": ["U", "U"], "id": [1, 2], "amount": [1, 2], "tick": [1, 2]}
    await (await own.store()).write(TableName("s"), [pa.table(rows)])
    await own.report("p")

    await own.pipeline("p", EVENTS, "table: t, mode: merge, key: [acct]", write_key)
    await own.report("p", replay="all")

    assert {row["acct"]: row["amount"] for row in await own.rows("t")} == {"none": 1, "A": 2}


@pytest.mark.invariant("D9")
async def test_where_another_writes_the_table_only_the_cursor_proves_a_row(own: Inside) -> None:
    await happened(own, (1, "A", "U", 500, 1), (2, "B", "U", 500, 2), (3, "C", "U", 1, 3))
    pipeline = Pipeline(own, more="transform: [{drop: [tick]}]\n")
    await pipeline.put(100)
    await own.report("p")
    await own.pipeline("other", EVENTS.replace("table: s", "table: o"), "table: t, mode: merge, key: [acct]")
    other = {"acct": ["A"], "op": ["U"], "id": [9], "amount": [9], "tick": [9]}
    await (await own.store()).write(TableName("o"), [pa.table(other)])
    await own.report("other")

    await pipeline.replays()

    assert {row["acct"]: row["amount"] for row in await own.rows("t")} == {"A": 9, "B": 500, "C": 1}
    assert await pipeline.states() == ["open", "repaired"]


async def test_in_append_every_refused_row_is_replayed(own: Inside) -> None:
    """There each version is a row of its own, and none takes the place of another."""
    await happened(own, (1, "A", "U", 500, 1), (2, "A", "U", 7, 2))
    for most in (100, 1000):
        await own.pipeline("p", EVENTS, "table: t", RULE.format(most=most))
        await own.report("p", **({"replay": "all"} if most == 1000 else {}))

    assert sorted(row["amount"] for row in await own.rows("t")) == [7, 500]


@pytest.mark.invariant("D9", "R3")
@pytest.mark.parametrize("mode", ["merge, key: [acct]", "append"])
async def test_a_replay_goes_on_without_rows_that_another_run_settles_meanwhile(
    own: Inside, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row of one is overtaken, or all by a table that takes the other's place: that takes the run from nobody."""
    await happened(own, (1, "A", "U", 500, 1), (2, "B", "U", 500, 2))
    for most in (100, 1000):
        await own.pipeline("p", EVENTS, f"table: t, mode: {mode}", RULE.format(most=most))
        if most == 100:
            await own.report("p")
    await happened(own, (3, "A", "U", 7, 3))
    store = type(await own.store())
    read, others = store.refused_rows, iter([{"full_refresh": mode == "append"}])

    async def read_before(self: Any, refusals: Refusals, **asked: Any) -> Any:
        page = await read(self, refusals, **asked)
        if (change := next(others, None)) is not None:
            await own.report("p", **change)
        return page

    monkeypatch.setattr(store, "refused_rows", read_before)
    report = await own.report("p", replay="all")

    counts = {name: count for name, count in report["counts"].items() if count}
    assert counts == ({"read": 1, "used": 1, "produced": 1} if mode != "append" else {})
    assert not report.get("warnings")
    refused = (await Pipeline(own).refused())[:2]
    assert [str(row.state) for row in refused] == ["superseded", "superseded" if mode == "append" else "repaired"]
    rows = sorted((row["acct"], row["amount"]) for row in await own.rows("t"))
    assert rows == [("A", 7), *([("A", 500)] if mode == "append" else []), ("B", 500)]


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with refused rows of a merged table, replayed in the home `whole` and still open in `killed`."""
    folder = new_project(tmp_path_factory.mktemp("refused"))
    write(folder, "data/f.csv", "acct,amount\nA,500\nA,7\nB,500\nC,500\nC,x\nC,600\nD,x\nD,5\n")
    write(folder, "connections/landing.yaml", "version: 1\nconnection: landing\nkind: files\noptions: {root: data}\n")
    for most, cast in (
        (100, "cast: {amount: int64}"),
        (1000, 'sql: "select acct, try_cast(amount as bigint) as amount from batch"'),
    ):
        write(
            folder,
            "pipelines/p.yaml",
            f"version: 1\npipeline: p\nsource: {{connection: landing, path: f.csv}}\ntransform: [{{{cast}}}]\n"
            f"{RULE.format(most=most)}on_error: {{max_rows: 9}}\nrun: {{batch_rows: 2}}\n"
            "destination: {table: t, mode: merge, key: [acct]}\n",
        )
        if most == 100:
            assert headrace(folder, "run", "pipelines/p.yaml", HEADRACE_HOME="killed").returncode == 0
    assert headrace(folder, "apply", "--yes", HEADRACE_HOME="killed").returncode == 0
    shutil.copytree(folder / "killed", folder / "whole")
    assert headrace(folder, "quarantine", "replay", "p", HEADRACE_HOME="whole").returncode == 0
    return folder


@pytest.mark.invariant("D9", "D1")
@pytest.mark.parametrize(
    "point", ["batch.mid_rows:1", "batch.before_commit:2", "batch.commit_sent:2", "publish.before_commit:1"]
)
def test_a_killed_replay_into_a_merged_table_ends_as_another(point: str, project: Path, refused: Path) -> None:
    shutil.copytree(refused, project, dirs_exist_ok=True)
    replay = ("quarantine", "replay", "p")
    assert headrace(project, *replay, HEADRACE_HOME="killed", HEADRACE_FAILPOINT=f"{point}:kill").returncode == -9
    assert headrace(project, *replay, HEADRACE_HOME="killed").returncode == 0

    whole, killed = project / "whole/data.duckdb", project / "killed/data.duckdb"
    for table in (
        "select acct, amount from t order by 1",
        "select seq, ordinal, state, reason from _headrace_quarantine order by 1, 2",
    ):
        assert duckdb_rows(killed, table) == duckdb_rows(whole, table)
    assert duckdb_rows(killed, "select acct, amount from t order by 1") == [("A", 7), ("B", 500), ("C", 600), ("D", 5)]


def test_what_is_told_is_no_pattern() -> None:
    """It is looked for with LIKE."""
    assert not set("%_\\") & set(LEFT)


ZEROS = "select case acct when 'a' then cast('0' as double) when 'A' then cast('-0' as double) else 1 end as acct"


async def does(own: Inside, request: pytest.FixtureRequest, script: str) -> None:
    store = await own.store()
    if isinstance(store, DuckDBDataStore):
        cursor_of(store).execute(script)
    else:
        for statement in script.split("; "):
            postgres(request.getfixturevalue("postgres_database"), statement)


@pytest.mark.invariant("D9")
@pytest.mark.parametrize(
    ("own", "is_text"), [("duckdb", True), *((store, False) for store in STORES)], indirect=["own"]
)
async def test_keys_that_the_table_holds_equal_though_they_are_written_in_two_ways_prove_nothing(
    own: Inside, is_text: bool, request: pytest.FixtureRequest
) -> None:
    if is_text:
        await does(own, request, "CREATE TABLE t (acct VARCHAR COLLATE NOCASE, op VARCHAR, amount BIGINT)")
    await happened(own, (1, "a", "U", 500, 1), (2, "A", "U", 7, 2), (3, "b", "U", 500, 3))
    step = "drop: [id, tick]" if is_text else f'sql: "{ZEROS}, op, amount from batch"'
    pipeline = Pipeline(own, to="key: [acct], metadata_columns: false", more=f"transform: [{{{step}}}]\n")
    await pipeline.put(100)
    await own.report("p")

    await pipeline.replays()

    first, second = ("A", "b") if is_text else (0.0, 1.0)
    assert {row["acct"]: row["amount"] for row in await own.rows("t")} == {first: 7, second: 500}
    assert await pipeline.states() == ["open", "repaired"]


@pytest.mark.invariant("D9")
@pytest.mark.parametrize("own", ["duckdb", "postgres"], indirect=True)
async def test_a_uuid_is_one_key_in_either_letter_case(own: Inside, request: pytest.FixtureRequest) -> None:
    name = "01890000-0000-7000-8000-0000000000{}"
    await does(own, request, "CREATE TABLE t (acct UUID, op TEXT, amount BIGINT)")
    await happened(
        own, (1, name.format("AA"), "U", 500, 1), (2, name.format("aa"), "U", 7, 2), (3, name.format("bb"), "U", 500, 3)
    )
    pipeline = Pipeline(own, to="key: [acct], metadata_columns: false", more="transform: [{drop: [id, tick]}]\n")
    await pipeline.put(100)
    await own.report("p")

    await pipeline.replays()

    assert {str(row["acct"])[-2:]: row["amount"] for row in await own.rows("t")} == {"aa": 7, "bb": 500}
    assert await pipeline.states() == ["superseded", "repaired"]


@pytest.mark.invariant("D9")
@pytest.mark.parametrize("own", ["duckdb", "postgres"], indirect=True)
async def test_refused_rows_of_an_earlier_version_are_replayed_by_their_cursor(
    own: Inside, request: pytest.FixtureRequest
) -> None:
    await happened(own, (1, "A", "U", 500, 1), (2, "A", "U", 7, 2), (3, "B", "U", 5, 3), (4, "B", "U", 600, 4))
    pipeline = Pipeline(own)
    await pipeline.runs()
    await does(own, request, "ALTER TABLE _headrace_quarantine DROP COLUMN merge_key")

    await pipeline.replays()

    assert await pipeline.is_as_if_never_refused()


@pytest.mark.invariant("D9")
@pytest.mark.parametrize(
    ("own", "other"), [("duckdb", "main.t"), ("duckdb", "MAIN.T"), ("postgres", "public.t")], indirect=["own"]
)
@pytest.mark.parametrize("publish", ["batch", "run"])
async def test_what_lands_under_another_name_of_the_table_overtakes(
    own: Inside, other: str, publish: str, project: Path
) -> None:
    """A row that nothing overtakes is listed and replayed under each name, as proven as under its own; a whole read
    leaves none.
    """
    await own.put("version: 1\nconnection: landing\nkind: files\noptions: {root: data}\n")
    to = f"key: [acct], publish: {publish}, deleted_when: amount = 3"
    pipeline = Pipeline(own, "connection: landing, path: f.csv", to)

    async def reads(lines: str, table: str, **changes: Any) -> None:
        write(project, "data/f.csv", f"acct,amount\n{lines}")
        await pipeline.put(100, table=table)
        await own.report("p", **changes)

    await reads("A,500\nB,3\nB,600\n", "t")
    await reads("A,7\n", other, limit=9)

    assert await pipeline.states() == ["superseded", "open"]
    elsewhere = Refusals("default", "p", TableName.parse(other))
    assert await (await own.store()).refused_rows(elsewhere, after=None, limit=9) == await pipeline.refused()
    await pipeline.put(1000, table=other)
    await own.report("p", replay="all")
    assert {row["acct"]: row["amount"] for row in await own.rows("t")} == {"A": 7, "B": 600}
    assert await pipeline.states() == ["superseded", "repaired"]

    await reads("C,500\n", other, limit=9)
    await reads("D,1\n", "t")
    assert await pipeline.states() == ["superseded", "repaired", "superseded"]


@pytest.mark.invariant("D9")
@pytest.mark.parametrize("is_other", [True, False], ids=["another pipeline", "the same one"])
async def test_a_table_that_the_path_finds_is_the_same_by_its_schema(
    is_other: bool, postgres_database: str, project: Path
) -> None:
    """Headrace's notes lie beside each of its names, in two schemas."""
    postgres(postgres_database, "create schema app")
    postgres(postgres_database, f"alter database {postgres_database.rsplit('/', 1)[1]} set search_path = app, public")
    marks = "_headrace_run_id uuid, _headrace_loaded_at timestamptz"
    postgres(postgres_database, f"create table public.t (acct text primary key, amount bigint, {marks})")
    source, to = "connection: landing, path: {}.csv", "table: {}, mode: merge, key: [acct], deleted_when: amount = 3"
    async with inside(project, **postgres_environment(postgres_database)) as own:
        await own.put("version: 1\nconnection: landing\nkind: files\noptions: {root: data}\n")
        write(project, "data/f.csv", "acct,amount\nA,500\nB,600\n")
        write(project, "data/g.csv", "acct,amount\nA,7\n")
        await own.pipeline("p", source.format("f"), to.format("t"), RULE.format(most=100))
        await own.report("p")
        name = "q" if is_other else "p"
        await own.pipeline(name, source.format("g"), to.format("public.t"), RULE.format(most=100))
        await own.report(name, limit=9)
        await own.pipeline("p", source.format("f"), to.format("t"), RULE.format(most=1000))
        await own.report("p", replay="all")

        rows = {row["acct"]: row["amount"] for row in await own.rows("t")}
        states = await Pipeline(own).states()
    # Nobody knows what another has deleted.
    assert rows == ({"A": 7} if is_other else {"A": 7, "B": 600})
    assert states == (["open", "open"] if is_other else ["superseded", "repaired"])


@pytest.mark.invariant("D9", "L2")
@pytest.mark.parametrize("more", ["", "run: {batch_rows: 1}\n"], ids=["one batch", "each alone"])
@pytest.mark.parametrize("goes", ["back", "on"])
async def test_refused_rows_are_replayed_in_the_order_of_their_runs_whatever_the_clock_says(
    own: Inside, more: str, goes: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock is put back, or the second run is another machine's; also where the pipeline was reset in between."""
    await own.put("version: 1\nconnection: landing\nkind: files\noptions: {root: data}\n")
    pipeline = Pipeline(own, "connection: landing, path: f.csv", more=more)
    await pipeline.put(100)
    for amount in (500, 600, 700):
        write(project, "data/f.csv", f"acct,amount\nA,{amount}\nB,1\n")
        with monkeypatch.context() as patch:
            if amount == 500 and goes == "back":
                patch.setattr(RandomIdentifiers, "new_id", an_hour_later)
            await own.report("p", limit=9, full_refresh=False, abandon=amount == 700)

    assert [json.loads(row.record)["amount"] for row in await pipeline.refused()] == ["500", "600", "700"]
    await pipeline.replays()

    assert {row["acct"]: row["amount"] for row in await own.rows("t")} == {"A": 700, "B": 1}
    assert (await pipeline.states())[2] == "repaired"
    assert "open" not in await pipeline.states()


def an_hour_later(_: RandomIdentifiers) -> str:
    return str(UUID(int=uuid_utils.uuid7().int + (3_600_000 << 80)))
