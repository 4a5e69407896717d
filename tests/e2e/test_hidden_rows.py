"""Rows that the database hides or suppresses without an error are told: what was read, what was written, what shows."""

from pathlib import Path

import pytest

from tests.e2e.inside import inside
from tests.e2e.projects import postgres_connection, postgres_environment
from tests.e2e.tables import postgres

WAYS = {"pass-through": "", "decoded": "transform: [{sql: select * from batch}]\n", "staged": "publish: run"}
SUPPRESSING = (
    "create function odd() returns trigger language plpgsql as "
    "$$begin if new.id % 2 = 1 then return null; end if; return new; end$$"
)


@pytest.mark.parametrize("way", [*WAYS, "within the database", "merge", "without metadata"])
async def test_rows_that_a_trigger_suppresses_are_told_on_every_way(
    way: str, project: Path, postgres_database: str
) -> None:
    postgres(postgres_database, "create table source as select g::bigint as id from generate_series(1, 10) g")
    postgres(postgres_database, "alter table source add primary key (id)")
    mark = "_headrace_loaded_at timestamptz, _headrace_run_id uuid"
    postgres(postgres_database, f"create table landed (id bigint primary key{'' if 'without' in way else ', ' + mark})")
    postgres(postgres_database, SUPPRESSING)
    postgres(postgres_database, "create trigger t before insert on landed for each row execute function odd()")
    destination = "table: landed"
    if way == "merge":
        destination += ", mode: merge, key: [id]"
    elif way == "staged":
        destination += ", publish: run"
    elif way == "without metadata":
        destination += ", metadata_columns: false"
    async with inside(project, **postgres_environment(postgres_database)) as installation:
        await installation.put(postgres_connection(postgres_database, "there"))
        source = ("" if way == "within the database" else "connection: there, ") + "table: source, key: [id]"
        more = WAYS["decoded"] if way in ("decoded", "merge") else ""
        await installation.pipeline("copied", source, destination, more)

        report = await installation.report("copied")

    assert postgres(postgres_database, "select count(*) from landed") == [(5,)]
    landed = report["landed"]["shown"]
    assert (report["counts"]["read"], landed) == (10, None if way == "without metadata" else 5)
    assert report["landed"]["written"] == 10
    assert "trigger" in report["warnings"][0]


async def test_trigger_that_suppresses_nothing_gives_no_warning(project: Path, postgres_database: str) -> None:
    postgres(postgres_database, "create table source as select 2::bigint * g as id from generate_series(1, 10) g")
    async with inside(project, **postgres_environment(postgres_database)) as installation:
        await installation.put(postgres_connection(postgres_database, "there"))
        await installation.pipeline("copied", "connection: there, table: source, key: [id]", "table: landed")
        await installation.report("copied")
        postgres(postgres_database, SUPPRESSING)
        postgres(postgres_database, "create trigger t before insert on landed for each row execute function odd()")

        report = await installation.report("copied")
        await installation.pipeline(
            "merged", "connection: there, table: source, key: [id]", "table: m, mode: merge, key: [id]", WAYS["decoded"]
        )
        await installation.report("merged")
        postgres(postgres_database, "create trigger t before insert on m for each row execute function odd()")
        merged = await installation.report("merged")

    for found in (report, merged):
        assert found["landed"] == {"written": 10, "shown": 10}
        assert "warnings" not in found


async def test_policies_that_hide_rows_of_the_source_are_told_by_plan_and_report(
    project: Path, postgres_database: str
) -> None:
    postgres(postgres_database, "create table source (id bigint primary key, team text)")
    postgres(
        postgres_database,
        "insert into source select g, case when g % 2 = 0 then 'a' else 'b' end from generate_series(1, 10) g",
    )
    postgres(postgres_database, "alter table source enable row level security")
    postgres(postgres_database, "create policy own on source using (team = 'a')")
    role = f"reader_{postgres_database.rsplit('/', 1)[1]}"
    postgres(postgres_database, f"create role {role} login")
    postgres(postgres_database, f"grant select on source to {role}")
    try:
        async with inside(project, **postgres_environment(postgres_database)) as installation:
            seen_by = postgres_connection(postgres_database, "there").replace("user: postgres", f"user: {role}")
            await installation.put(seen_by)
            for number, source in enumerate(("table: source, key: [id]", "query: 'select * from source s', key: [id]")):
                await installation.pipeline(f"copied{number}", f"connection: there, {source}", f"table: landed{number}")
                report = await installation.report(f"copied{number}")
                assert report["counts"]["read"] == 5
                assert "row-level security" in report["warnings"][0]
                assert any("row-level security" in note for note in await installation.notes(f"copied{number}"))
            await installation.pipeline("owned", "table: source, key: [id]", "table: owned")
            assert "warnings" not in await installation.report("owned")
    finally:
        postgres(postgres_database, f"drop owned by {role}")
        postgres(postgres_database, f"drop role {role}")


async def test_rows_that_policies_hide_from_a_merge_are_told(project: Path, postgres_database: str) -> None:
    postgres(postgres_database, "create table source as select g::bigint as id, g as n from generate_series(1, 3) g")
    mark = "_headrace_loaded_at timestamptz, _headrace_run_id uuid"
    role = f"writer_{postgres_database.rsplit('/', 1)[1]}"
    postgres(postgres_database, f"create role {role} login")
    try:
        postgres(postgres_database, f"grant create on schema public to {role}")
        postgres(postgres_database, f"grant create on database {postgres_database.rsplit('/', 1)[1]} to {role}")
        for name in ("hidden", "shown"):
            postgres(postgres_database, f"create table {name} (id bigint, n int, {mark})")
            postgres(postgres_database, f"insert into {name} values (1, 0), (2, 7)")
            postgres(postgres_database, f"grant all on {name}, source to {role}")
        postgres(postgres_database, "alter table hidden enable row level security")
        postgres(postgres_database, "create policy own on hidden using (n > 0)")
        async with inside(project, **postgres_environment(postgres_database)) as installation:
            seen_by = postgres_connection(postgres_database, "there").replace("user: postgres", f"user: {role}")
            await installation.put(seen_by)
            told = {}
            for name in ("hidden", "shown"):
                destination = f"connection: there, table: {name}, mode: merge, key: [id]"
                await installation.pipeline(name, "connection: there, table: source, key: [id]", destination)
                told[name] = (await installation.report(name)).get("warnings", [])
    finally:
        postgres(postgres_database, f"drop owned by {role}")
        postgres(postgres_database, f"drop role {role}")

    assert postgres(postgres_database, "select count(*) from hidden where id = 1") == [(2,)]
    assert (len(told["hidden"]), told["shown"]) == (1, [])
    assert "a key of theirs may be there twice" in told["hidden"][0]
