"""A table that the role's path finds is one and the same with its schema and without: it stays where it is, and whoever
replaces it is its only writer.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from domain.errors import ConflictError
from domain.pipelines.spec import Mode
from domain.runs.lane import Lane
from domain.stores.table import TableName
from infrastructure.stores.postgres.store import PostgresDataStore
from tests.databases import leave, postgres
from tests.e2e.inside import inside
from tests.e2e.projects import postgres_environment
from tests.ports.backends import address_of
from tests.ports.loading import read_set, replaced, rows, target
from tests.somebody import Somebody

NAMES = [TableName("kept"), TableName("kept", "second")]


def on_the_path(url: str, somebody: Somebody) -> PostgresDataStore:
    """A store whose role looks into one schema first and finds a table in the next."""
    somebody.does(
        "create schema first; create schema second; create table second.kept (id bigint, note text);"
        f"insert into second.kept values (0, 'before'); alter database {url.rsplit('/', 1)[1]} set search_path = first, second"
    )
    leave(url)
    return PostgresDataStore(address_of(url))


async def claimed(store: PostgresDataStore, table: TableName, pipeline: str, mode: Mode) -> None:
    """A pipeline begins to load a table."""
    planned, lane = read_set(shadow=True, name=pipeline), Lane("default", pipeline)
    wanted = replace(target(planned, mode=mode), table=table)
    fence = (await store.lane_state(lane, table)).fence + 1
    async with store.owner(lane, table, fence) as owner:
        await owner.take_over()
        await owner.open_read_set(planned, wanted)


@pytest.mark.parametrize("table", NAMES, ids=str)
async def test_replaced_table_stays_in_its_schema(table: TableName, postgres_database: str, somebody: Somebody) -> None:
    store = on_the_path(postgres_database, somebody)
    try:
        await replaced(store, table, rows(1, 2))
    finally:
        await store.close()
    where = "select table_schema::text from information_schema.tables where table_name = 'kept'"
    assert postgres(postgres_database, where) == [("second",)]
    assert postgres(postgres_database, "select id from second.kept order by 1") == [(1,), (2,)]


@pytest.mark.parametrize("modes", [(Mode.APPEND, Mode.REPLACE), (Mode.REPLACE, Mode.APPEND)], ids=["after", "before"])
@pytest.mark.parametrize("names", [NAMES, NAMES[::-1]], ids=["named", "found"])
async def test_table_that_is_replaced_has_one_writer_by_all_its_names(
    modes: tuple[Mode, Mode], names: list[TableName], postgres_database: str, somebody: Somebody
) -> None:
    store = on_the_path(postgres_database, somebody)
    try:
        await claimed(store, names[0], "one", modes[0])
        with pytest.raises(ConflictError, match=r"written by another pipeline \(one\)") as caught:
            await claimed(store, names[1], "two", modes[1])
        assert caught.value.code == "destination.owned"
        await claimed(store, names[1], "one", Mode.REPLACE)
        await claimed(store, TableName("other", "second"), "two", Mode.REPLACE)
    finally:
        await store.close()


async def test_another_table_of_the_same_name_as_the_notes_holds_up_nobody(
    postgres_database: str, somebody: Somebody
) -> None:
    store = on_the_path(postgres_database, somebody)
    somebody.does("create table second._headrace_owner (mode int); begin; lock table second._headrace_owner")
    try:
        await replaced(store, NAMES[0], rows(1))
    finally:
        somebody.does("rollback")
        await store.close()


async def test_rows_that_are_not_seen_through_a_view_are_told(project: Path, postgres_database: str) -> None:
    mark = "_headrace_loaded_at timestamptz, _headrace_run_id uuid"
    postgres(postgres_database, "create table source as select g::bigint as id from generate_series(1, 10) g")
    for name in ("behind", "filtered"):
        postgres(postgres_database, f"create table {name} (id bigint, {mark})")
        shown = "" if name == "behind" else " where id % 2 = 0"
        postgres(postgres_database, f"create view {name}_view as select * from {name}{shown}")
    postgres(
        postgres_database,
        "create function odd() returns trigger language plpgsql as "
        "$$begin if new.id % 2 = 1 then return null; end if; return new; end$$",
    )
    postgres(postgres_database, "create trigger t before insert on behind for each row execute function odd()")
    async with inside(project, **postgres_environment(postgres_database)) as installation:
        for name in ("behind", "filtered"):
            await installation.pipeline(name, "table: source, key: [id]", f"table: {name}_view")
            report = await installation.report(name)
            assert (report["counts"]["read"], report["landed"]) == (10, {"written": 10, "shown": 5})
            assert "a view" in report["warnings"][0]
