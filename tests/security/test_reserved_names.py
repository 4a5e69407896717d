"""Lines 10a and 15, resolved: what belongs to Headrace or the database is neither read nor written, by
whatever name.
"""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from domain.errors import PlatformError
from domain.pipelines.spec import SourceSpec
from domain.ports.data_store import IDataStore
from domain.runs.lane import Lane
from domain.stores.table import TableName
from infrastructure.stores.duckdb.file import DuckDBOptions
from infrastructure.stores.duckdb.store import DuckDBDataStore
from infrastructure.stores.postgres.store import PostgresDataStore
from tests.databases import postgres
from tests.e2e.api import Server, headrace, serving
from tests.e2e.projects import new_project, postgres_environment, write
from tests.ports.backends import address_of
from tests.security.test_bad_input import accepted_at_both_doors, refused_at_both_doors, with_change
from tests.somebody import Somebody

RECORDS = """
create schema headrace; create table headrace.api_keys (id bigint primary key, hash text);
insert into headrace.api_keys values (1, 'canary'); create table _headrace_seen (id bigint);
create schema headrace_x; create table headrace_x.t (id bigint); create table headrace_stats (id bigint);
create table plain (id bigint); insert into plain values (7); create table "Headrace" (id bigint);
create view over_plain as select * from plain; create view over_catalog as select oid::bigint as id from pg_class;
create view over_keys as select * from headrace.api_keys; create view twice as select id from over_keys;
create materialized view kept as select * from headrace.api_keys; create view fence as select * from _headrace_seen;
create table whole (id bigint) partition by range (id);
create table headrace.part partition of whole for values from (0) to (10);
create table parent (id bigint); create table headrace.child () inherits (parent);
create table grown () inherits (headrace.api_keys);
create table ruled (id bigint); create rule r as on insert to ruled do also insert into headrace.api_keys values (new.id, 'planted');
create view by_policy as select 1::bigint as id
"""
SPELT = (
    *(
        "headrace.api_keys",
        "HEADRACE.api_keys",
        "Headrace.x",
        "pg_catalog.pg_class",
        "PG_toast.x",
        "information_schema.x",
    ),
    *("_headrace_seen", "_HEADRACE_x", "public._headrace_owner"),
)
LED = ("over_keys", "twice", "fence", "whole", "parent")


@pytest.fixture
def records(postgres_database: str, somebody: Somebody) -> str:
    somebody.does(RECORDS)
    return postgres_database


@pytest_asyncio.fixture
async def store(records: str) -> AsyncIterator[PostgresDataStore]:
    store = PostgresDataStore(address_of(records))
    await store.open()
    yield store
    await store.close()


@pytest_asyncio.fixture
async def shelf(tmp_path: Path) -> AsyncIterator[DuckDBDataStore]:
    import duckdb

    with duckdb.connect(tmp_path / "x.duckdb") as made:
        made.execute(
            "create table _headrace_seen (id int); create table plain (id int); create view fence as from "
            "_headrace_seen; create view twice as select id from fence; create view over_plain as from plain; create "
            "table duckdb_mine (id int); create table pg_class_of_mine (id int); create schema headrace_x; create "
            "table headrace_x.t (id int); "
            # Of the same name as one of the catalog, which a name without that schema goes on leading to.
            "create table headrace_x.duckdb_tables (id int); create view headrace_x.pg_class as select 1 as id"
        )
    store = DuckDBDataStore(DuckDBOptions(tmp_path / "x.duckdb"))
    await store.open()
    yield store
    await store.close()


async def code_of_reading(store: IDataStore, source: SourceSpec) -> str | None:
    """How a plan and a reading without one are refused."""
    codes = set()
    for is_planned in (True, False):
        try:
            if is_planned:
                await store.plan(source, lo=None, limit=None)
            else:
                async with aclosing(store.read(source, batch_rows=10)) as batches:
                    _ = [batch async for batch in batches]
        except PlatformError as error:
            codes.add(error.code)
        else:
            codes.add(None)
    assert len(codes) == 1, codes
    return codes.pop()


async def code_of_writing(store: IDataStore, table: TableName) -> str | None:
    try:
        async with store.owner(Lane("default", f"p_{table.table}", "main"), table, 1) as owner:
            await owner.take_over()
    except PlatformError as error:
        return error.code
    return None


FORBIDDEN = (
    *(f"select * from {name}" for name in (*LED, "kept", "headrace.api_keys", "_Headrace_Seen", "headrace.child")),
    *('select * from "headrace"."api_keys"', "select * from pg_class", "select * from PG_CATALOG.pg_class"),
    "select table_name from information_schema.tables",
    "select 1 as id where exists (select from twice)",
    "with a as (select * from plain), b as (select id from over_keys) select a.* from a, b",
    "select * from (with pg_class as (select 1 as id) select id from pg_class) x, (select count(*) as n from "
    "pg_class) y",
    "select plain.id from plain left join lateral (select * from kept where kept.id = plain.id) k on true",
)
PERMITTED = (
    *(f"select * from {name}" for name in ("plain", "over_plain", "over_catalog", "headrace_x.t", "headrace_stats")),
    *('select * from "Headrace"', "select * from public.plain", "select 1 as id"),
    "with pg_class as (select 1 as id) select * from pg_class",
    "select id, 'headrace.api_keys' as note, 'plain'::regclass is null as no from plain where id in (select id from "
    "over_plain)",
    "select a.id from plain a join plain b using (id)",
    "select * from generate_series(1, 3) as g(id)",
)


@pytest.mark.line("10a")
async def test_queries_of_postgres(store: PostgresDataStore) -> None:
    for query in FORBIDDEN:
        assert await code_of_reading(store, SourceSpec(query=query)) == "query.forbidden_relation", query
    for query in PERMITTED:
        assert await code_of_reading(store, SourceSpec(query=query)) is None, query


@pytest.mark.line("10a")
async def test_tables_of_postgres_as_sources(store: PostgresDataStore) -> None:
    for name in (*LED, "kept", "pg_class", "grown"):
        expected = None if name == "grown" else "query.forbidden_relation"
        assert await code_of_reading(store, SourceSpec(table=TableName(name))) == expected, name
    assert (
        await code_of_reading(store, SourceSpec(table=TableName("api_keys", "headrace"))) == "query.forbidden_relation"
    )
    for permitted in (
        TableName("plain"),
        TableName("over_plain"),
        TableName("t", "headrace_x"),
        TableName("headrace_stats"),
    ):
        assert await code_of_reading(store, SourceSpec(table=permitted)) is None


@pytest.mark.line("15")
async def test_destinations_of_postgres(store: PostgresDataStore, records: str) -> None:
    reserved = [TableName(name) for name in (*LED, "ruled", "grown", "kept", "pg_class")]
    reserved += [TableName("api_keys", "headrace"), TableName("new", "headrace"), TableName("new", "pg_catalog")]
    for table in reserved:
        assert await code_of_writing(store, table) == "identifier.reserved", table
        with pytest.raises(PlatformError) as caught:
            await store.describe(table)
        assert caught.value.code == "identifier.reserved"
    assert postgres(records, "select hash from headrace.api_keys") == [("canary",)]
    assert postgres(records, "select count(*) from pg_class c where relnamespace = 'headrace'::regnamespace") == [(4,)]
    for permitted in (
        TableName("plain"),
        TableName("new"),
        TableName("new", "headrace_x"),
        TableName("headrace_stats"),
    ):
        assert await code_of_writing(store, permitted) is None, permitted


@pytest.mark.line("15")
async def test_search_path_leads_to_the_records(records: str) -> None:
    """A name without a schema is what the role's search path makes of it, for a new table too."""
    database = records.rsplit("/", 1)[1]
    postgres(records, f"alter database {database} set search_path = headrace, public")
    store = PostgresDataStore(address_of(records))
    await store.open()
    try:
        for table in (TableName("api_keys"), TableName("new")):
            assert await code_of_writing(store, table) == "identifier.reserved"
        assert await code_of_reading(store, SourceSpec(table=TableName("api_keys"))) == "query.forbidden_relation"
        assert await code_of_reading(store, SourceSpec(query="select * from api_keys")) == "query.forbidden_relation"
        assert await code_of_reading(store, SourceSpec(query="select * from plain")) is None
    finally:
        await store.close()


@pytest.mark.line("10a")
async def test_queries_of_duckdb(shelf: DuckDBDataStore) -> None:
    for query in (
        *("from fence", "from twice", 'select * from "TWICE"', "select (select max(id) from fence) as id"),
        *("from pg_class", "from duckdb_tables", "from sqlite_master", "from information_schema.tables"),
        *("from pg_catalog.pg_tables", "from _Headrace_Seen", "from main.duckdb_tables", "from x.main.duckdb_tables"),
        "select * from plain where id in (select id from twice) and id = :n",
    ):
        code = await code_of_reading(shelf, SourceSpec(query=query, parameters={"n": 1}))
        assert code == "query.forbidden_relation", query


@pytest.mark.line("10a")
async def test_permitted_queries_of_duckdb(shelf: DuckDBDataStore) -> None:
    for query in (
        *(
            "from plain",
            "from over_plain",
            "from duckdb_mine",
            "from pg_class_of_mine",
            "from headrace_x.t",
            "from headrace_x.duckdb_tables",
            "from headrace_x.pg_class",
            "from range(3)",
        ),
        *("with pg_class as (select 1 as id) from pg_class", "select * from plain where id = :n"),
    ):
        code = await code_of_reading(shelf, SourceSpec(query=query, parameters={"n": 1}))
        assert code is None, query
    for name in ("fence", "twice", "pg_class", "duckdb_tables"):
        assert await code_of_reading(shelf, SourceSpec(table=TableName(name))) == "query.forbidden_relation"
    assert await code_of_writing(shelf, TableName("fence")) == "identifier.reserved"
    assert await code_of_writing(shelf, TableName("plain")) is None


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(new_project(tmp_path_factory.mktemp("names") / "p"), HEADRACE_STORE__KIND="memory") as running:
        yield running


@pytest.mark.line("15")
def test_spelt_names_are_refused_when_they_are_stored(server: Server) -> None:
    for name in SPELT:
        refused_at_both_doors(server, with_change("destination.table", name), "identifier.reserved")
    refused_at_both_doors(server, with_change("source.table", SPELT[0]), "identifier.reserved")
    rule = {"rule": "references", "column": "id", "to": "headrace.api_keys.id"}
    refused_at_both_doors(server, with_change("quality", [rule]), "identifier.reserved")
    for query in (
        "select * from headrace.api_keys",
        'select * from "HEADRACE".x',
        "select * from information_schema.tables",
    ):
        document: dict[str, Any] = with_change("source", {"connection": "default", "query": query})
        refused_at_both_doors(server, document, "query.forbidden_relation")
    for name in ("headrace_x.t", "headrace_stats", "headrace", "pgx.t", "my_headrace_.x"):
        accepted_at_both_doors(server, with_change("destination.table", name))
    accepted_at_both_doors(server, with_change("quality", [{**rule, "to": "headrace_x.t.id"}]))


@pytest.mark.line("15")
def test_key_is_not_planted_through_a_destination(tmp_path: Path, records: str) -> None:
    """Where the records are in the store's own database, with the store's own role: both doors, and what may be beside
    it.
    """
    project = new_project(tmp_path / "p")
    environment = {**postgres_environment(records), "HEADRACE_METADATA__KIND": "sqlite"}
    query = "select id, id::text as hash from plain"
    tables = ("over_keys", "ruled", "headrace_stats")
    with serving(project, **environment) as server:
        for table in tables:
            document = {
                "version": 1,
                "pipeline": table,
                "source": {"query": query},
                "destination": {"table": table, "metadata_columns": False, "schema": "discard_columns"},
            }
            assert server.call("PUT", f"/v1/pipelines/{table}", document).status == 201
            run = server.wait_for(server.call("POST", f"/v1/pipelines/{table}/trigger").body["id"])
            assert (run["error"] or {}).get("code") == (None if table == "headrace_stats" else "identifier.reserved"), (
                run
            )
        assert server.stop() == 0
    for table in tables:
        document = {
            **json.loads(json.dumps(document)),
            "pipeline": table,
            "destination": {**document["destination"], "table": table},
        }  # type: ignore[dict-item]
        write(project, f"pipelines/{table}.json", json.dumps(document))
        done = headrace(project, "run", f"pipelines/{table}.json", **environment)
        assert ("identifier.reserved" in done.stderr) == (table != "headrace_stats"), done.stderr
    assert postgres(records, "select hash from headrace.api_keys") == [("canary",)]
    assert postgres(records, "select id from headrace_stats") == [(7,), (7,)]
