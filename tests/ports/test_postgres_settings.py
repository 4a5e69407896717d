"""Whatever role, database and environment are set to, values and statements mean the same in every session of ours."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text

from domain.loads.checkpoint import CheckpointUpdate
from domain.loads.read_set import ReadSet
from domain.pipelines.spec import CursorSpec, Mode, SourceSpec
from domain.ports.data_store import IDataStore, StreamSelection, Target, passage_of
from domain.quality.measures import Counts, Measures
from domain.runs.lane import Lane
from domain.stores.table import Column, TableName
from infrastructure.metadata.records import SqlRecords
from infrastructure.postgres.settings import PINNED
from infrastructure.stores.postgres.store import PostgresDataStore
from tests.links import connected
from tests.ports.backends import address_of
from tests.ports.loading import token_of
from tests.ports.type_matrix import load

ODD = {
    "client_encoding": "LATIN1",
    "DateStyle": "SQL, DMY",
    "IntervalStyle": "sql_standard",
    "TimeZone": "America/St_Johns",
    "timezone_abbreviations": "India",
    "extra_float_digits": "-3",
    "bytea_output": "escape",
    "array_nulls": "off",
    "xmlbinary": "hex",
    "xmloption": "document",
    "standard_conforming_strings": "off",
    "transform_null_equals": "on",
    "quote_all_identifiers": "on",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
}
OTHER = ODD | {"DateStyle": "German", "IntervalStyle": "iso_8601", "TimeZone": "Asia/Kathmandu"}
PLAIN = {"DateStyle": "ISO", "IntervalStyle": "postgres", "TimeZone": "UTC", "extra_float_digits": "3",
         "bytea_output": "hex", "search_path": "landed, public", "standard_conforming_strings": "on",
         "array_nulls": "on", "xmloption": "content", "default_transaction_isolation": "read committed"}  # fmt: skip
COLUMNS = {
    "dates": ("date[]", "'{2023-02-01,0044-03-15 BC}'"),
    "days": ("daterange", "'[2023-02-01,2023-03-04)'"),
    "spans": ("datemultirange", "'{[2023-02-01,2023-03-04),[2024-01-02,)}'"),
    "stamps": ("timestamp[]", "'{2023-02-01 04:05:06.000007,infinity}'"),
    "moments": ("timestamptz[]", "'{2023-02-01 04:05:06.7+02,0044-03-15 00:00:00+00 BC}'"),
    "since": ("tstzrange", "'[2023-02-01 00:00:00+00,2023-03-04 00:00:00+00)'"),
    "waits": ("interval[]", "'{-1 day -02:03:00,1 mon -1 day}'"),
    "shares": ("float8[]", "'{0.30000000000000004,5e-324,-0}'"),
    "small": ("real[]", "'{1.17549435e-38,0.1}'"),
    "price": ("money", "'1234.56'::numeric::money"),
    "prices": ("money[]", "array['-0.01'::numeric::money]"),
    "raw": ("bytea", "'\\x00275cff'"),
    "raws": ("bytea[]", "array['\\x00275cff'::bytea]"),
    "words": ("text[]", "array['NULL', NULL, '\\', 'ü€']"),
    "shift": (
        "shift",
        "row('2023-02-01'::date, '-1 day -02:03:00'::interval, 0.1::float8 + 0.2::float8, 12.50::money)::shift",
    ),
    "tags": ('apart."Mood Of"', "'ok'"),
    "several": ('apart."Mood Of"[]', "'{ok,NULL}'"),
    "pairs": ("hstore", "'a=>NULL, b=>\"x\"'"),
    "note": ("text", "'ü€ ''\\'"),
    "at": ("timestamptz", "'2024-02-01 00:00:00+00'"),
}


class Database:
    """A database as an administrator sees it, in sessions that are neither ours nor set oddly."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def sql(self, *statements: str) -> list[tuple[Any, ...]]:
        connection = await asyncpg.connect(self.url, server_settings=PLAIN)
        try:
            for statement in statements:
                rows = await connection.fetch(statement)
            return [tuple(row) for row in rows]
        finally:
            await connection.close()

    async def prepare(self, settings: dict[str, str]) -> "Database":
        """Create types, hide functions behind others of their names, then set everything oddly, for all and
        the role.
        """
        name = self.url.rsplit("/", 1)[1]
        calls = ("current_setting(text)", "format_type(oid, integer)", "set_config(text, text, boolean)")
        await self.sql(
            "CREATE SCHEMA landed",
            "CREATE EXTENSION hstore SCHEMA public",
            "CREATE SCHEMA apart",
            "CREATE TYPE apart.\"Mood Of\" AS ENUM ('ok', 'sad')",
            "CREATE TYPE public.\"Mood Of\" AS ENUM ('another')",
            "CREATE TYPE public.shift AS (began date, lasted interval, share float8, cost money)",
            *(f"CREATE FUNCTION landed.{call} RETURNS text LANGUAGE sql AS $$ SELECT 'hidden' $$" for call in calls),
            *(
                f"ALTER {place} SET {setting} = {value}"
                for place in (f"DATABASE {name}", f"ROLE postgres IN DATABASE {name}")
                for setting, value in [
                    *((setting, f"'{value}'") for setting, value in settings.items()),
                    ("search_path", "landed, public, pg_catalog"),
                ]
            ),
        )
        return self

    async def rows(self, table: str, columns: str) -> list[tuple[Any, ...]]:
        return await self.sql(f"SELECT {columns} FROM landed.{table} ORDER BY id")


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGOPTIONS", "-c search_path=nowhere -c extra_float_digits=-15")
    monkeypatch.setenv("PGDATESTYLE", "Postgres, DMY")
    monkeypatch.setenv("PGTZ", "Asia/Tokyo")
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    monkeypatch.setenv("PGHOSTADDR", "192.0.2.1")


@pytest.fixture
async def database(postgres_database: str) -> Database:
    return await Database(postgres_database).prepare(ODD)


@pytest.fixture
async def other(postgres_server_url: str, database: Database) -> AsyncIterator[Database]:
    name = f"{database.url.rsplit('/', 1)[1]}o"
    administration = Database(f"{postgres_server_url}/postgres")
    await administration.sql(f"CREATE DATABASE {name}")
    yield await Database(f"{postgres_server_url}/{name}").prepare(OTHER)
    await administration.sql(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def store(database: Database, environment: None) -> AsyncIterator[PostgresDataStore]:
    built = PostgresDataStore(address_of(database.url))
    await built.open()
    yield built
    await built.close()


@pytest.fixture
async def destination(other: Database, environment: None) -> AsyncIterator[PostgresDataStore]:
    built = PostgresDataStore(address_of(other.url))
    await built.open()
    yield built
    await built.close()


SETTINGS = f"SELECT {', '.join(f'pg_catalog.current_setting($${name}$$)' for name in [*PINNED, 'search_path'])}"
EXPECTED = (*PINNED.values(), "landed, public")


async def test_sessions_of_each_driver_are_set_alike(store: PostgresDataStore, database: Database) -> None:
    address = address_of(database.url)
    seen = []
    for _ in range(2):  # A new one and one that was used before.
        async with store._session("headrace") as (session, thread):
            seen.append((await thread.call(session.execute, SETTINGS))[0])
    async with connected(address, "headrace") as connection:
        seen.append(tuple(await connection.fetchrow(SETTINGS)))
    records = SqlRecords(address.url(driver="postgresql+asyncpg"))
    await records.open()
    async with records._opened().connect() as opened:
        *found, path = (await opened.execute(text(SETTINGS))).one()
    await records.close()

    assert seen == [EXPECTED] * 3
    assert (tuple(found), path) == (EXPECTED[:-1], "headrace")


@pytest.mark.clause("IDataStore", 14)
async def test_values_keep_their_meaning_between_databases_set_differently(
    store: PostgresDataStore, destination: PostgresDataStore, database: Database, other: Database
) -> None:
    definitions = ", ".join(f"{name} {kind}" for name, (kind, _) in COLUMNS.items())
    await database.sql(f"CREATE TABLE landed.given (id bigint PRIMARY KEY, {definitions})")
    values = ", ".join(value for _, value in COLUMNS.values())
    await database.sql(f"INSERT INTO landed.given SELECT 1, {values}")

    await load(store, destination, TableName("decoded"), undecoded=False)
    await load(store, destination, TableName("undecoded"), undecoded=True)
    await _inside(store, TableName("inside"))

    texts = ", ".join(f"{name}::text" for name in COLUMNS)
    given = await database.rows("given", texts)
    assert await other.rows("decoded", texts) == given
    assert await other.rows("undecoded", texts) == given
    assert await database.rows("inside", texts) == given


async def _inside(store: IDataStore, table: TableName) -> None:
    spec = SourceSpec(table=TableName("given"), key=("id",))
    plan = await store.plan(spec, lo=None, limit=None)
    planned = ReadSet("r1", "f", plan, 100)
    columns = tuple(Column(name, kind) for name, kind in plan.columns)
    target = Target(table, Mode.APPEND, None, columns, "01890000-0000-7000-8000-000000000000", True)
    lane = Lane("default", table.table)
    async with store.owner(lane, target.table, 1) as owner:
        await owner.take_over()
        await owner.open_read_set(planned, target)
    async with store.writer(lane, target, planned.id, "0", 1, await token_of(store, lane, target.table)) as writer:
        selection = StreamSelection(spec, plan, plan.streams[0], None, passage_of(target))
        await writer.commit_selection(selection, lambda count: CheckpointUpdate(1, None, Counts(), Measures(), True))


async def test_limited_read_ends_at_a_time_that_reads_back(store: PostgresDataStore, database: Database) -> None:
    await database.sql(
        "CREATE TABLE landed.given AS SELECT at AS moment, at::timestamp AS stamp, at::date AS day "
        "FROM generate_series('2024-02-01 00:00:00+00', '2024-02-06 00:00:00+00', interval '1 day') AS at"
    )
    for name in ("moment", "stamp", "day"):
        source = SourceSpec(table=TableName("given"), cursor=CursorSpec(name))

        plan = await store.plan(source, lo=None, limit=2)
        later = await store.plan(source, lo=plan.hi, limit=2)

        assert (plan.hi or "").startswith("2024-02-03")
        assert await store.count(source, plan) == 2
        assert await store.count(source, later) == 2
