"""What a run reads is one moment of its source, whatever others do to it meanwhile, and nobody waits for himself."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from dataclasses import replace
from threading import Thread
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pytest
from adbc_driver_postgresql import dbapi

from domain.errors import SourceChangedError, StoreUnavailableError
from domain.loads.read_set import SourcePlan, Stream
from domain.loads.way import Passage
from domain.pipelines.spec import Partitions, SourceSpec
from domain.ports.data_store import IDataStore
from domain.stores.table import TableName
from infrastructure.stores.postgres.passage import PassingReader
from infrastructure.stores.postgres.pool import SessionPool
from infrastructure.stores.postgres.reading import SharedSnapshots
from infrastructure.stores.postgres.store import PostgresDataStore
from tests.links import connected
from tests.ports.backends import address_of
from tests.ports.loading import replaced, rows

WAITS = (
    "SELECT 1 FROM pg_locks WHERE NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = "
    "current_database())"
)
BEFORE, AFTER = list(range(1, 41)), list(range(1001, 1021))
PASSAGE = Passage(("id", "note"), None, False, ())
NEW = "SELECT g::bigint AS id, 'new ' || g AS note FROM generate_series(1001, 1020) g"
CHANGES = {
    "truncate": f"TRUNCATE s; INSERT INTO s {NEW}",
    "drop": f"DROP TABLE s CASCADE; CREATE TABLE s AS {NEW}; CREATE VIEW seen AS SELECT * FROM s",
    "rename": f"CREATE TABLE s2 AS {NEW}; DROP TABLE s CASCADE; ALTER TABLE s2 RENAME TO s; CREATE VIEW seen AS SELECT * " "FROM s",
    "rewrite": f"DELETE FROM s; INSERT INTO s {NEW}; ALTER TABLE s ADD extra uuid DEFAULT gen_random_uuid()",
}  # fmt: skip
PLAIN = "CREATE TABLE s (id bigint PRIMARY KEY, note text); CREATE VIEW seen AS SELECT * FROM s"
SPLIT = (
    "CREATE TABLE s (id bigint PRIMARY KEY, note text) PARTITION BY RANGE (id); CREATE VIEW seen AS SELECT * FROM s; "
    "CREATE TABLE low PARTITION OF s FOR VALUES FROM (0) TO (20); CREATE TABLE high PARTITION OF s DEFAULT"
)
SOURCES = {
    "table": SourceSpec(table=TableName("s"), key=("id",)),
    "query": SourceSpec(query="select id, note from seen where id > :low", key=("id",), parameters={"low": 0}),
}


def executed(url: str, script: str) -> None:
    with dbapi.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
        for statement in script.split("; "):
            cursor.execute(statement)


def filled(url: str, ddl: str = PLAIN) -> None:
    executed(url, f"{ddl}; INSERT INTO s SELECT g, 'old ' || g FROM generate_series(1, 40) g")


def until_waiting(url: str) -> None:
    with dbapi.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
        while not cursor.execute(WAITS).fetchall():  # The test's own limit ends it.
            pass


@contextmanager
def queued(url: str, script: str) -> Iterator[Thread]:
    """Somebody who replaces the source once started, which is over when the readers have gone."""
    thread = Thread(target=executed, args=(url, f"BEGIN; {script}; COMMIT"), daemon=True)
    yield thread
    thread.join(timeout=20)
    assert not thread.is_alive()


async def read(
    store: IDataStore,
    source: SourceSpec,
    plan: SourcePlan,
    stream: Stream,
    *,
    snapshot: str | None = None,
    undecoded: bool = False,
    batch_bytes: int = 2**20,
) -> list[int]:
    size = {"batch_rows": 8, "batch_bytes": batch_bytes}
    async with store.reader(source, plan, stream, snapshot=snapshot, **size) as reader:
        if undecoded:
            parts = [pa.table(await reader.decoded(part)) async for part in reader.encoded(None, PASSAGE)]
        else:
            parts = [pa.table(part.data) async for part in reader.batches(None)]
    return [i for part in parts for i in part.column("id").to_pylist()]


@asynccontextmanager
async def postgres_store(url: str, *trusted: str) -> AsyncIterator[PostgresDataStore]:
    store = PostgresDataStore(replace(address_of(url), trusted_schemas=trusted))
    await store.open()
    try:
        async with asyncio.timeout(20):
            yield store
    finally:
        await store.close()


@pytest.mark.needs("shares_snapshots")
@pytest.mark.clause("IDataStore", 18)
@pytest.mark.parametrize("readers", [1, 2])
async def test_table_replaced_between_streams_is_read_as_it_was(store: IDataStore, readers: int) -> None:
    await store.write(TableName("s"), [rows(*BEFORE)])
    source = replace(SOURCES["table"], partitions=Partitions("id", 4))
    plan = await store.plan(source, lo=None, limit=None)
    found: list[int] = []

    async with store.snapshot(source, readers=readers) as name:
        assert name is not None
        replacing: asyncio.Task[None] | None = None
        for stream in plan.streams:
            found += await read(store, source, plan, stream, snapshot=name)
            replacing = replacing or asyncio.create_task(replaced(store, TableName("s"), rows(1001, 1002)))
    assert replacing is not None
    async with asyncio.timeout(20):
        await replacing

    assert sorted(found) == BEFORE
    after = await store.plan(SOURCES["table"], lo=None, limit=None)
    assert sorted(await read(store, SOURCES["table"], after, after.streams[0])) == [1001, 1002]


@pytest.mark.needs("shares_snapshots")
@pytest.mark.clause("IDataStore", 18)
async def test_readers_of_one_snapshot_see_the_same_rows(store: IDataStore) -> None:
    await store.write(TableName("s"), [rows(*BEFORE)])
    source = replace(SOURCES["table"], partitions=Partitions("id", 3))
    plan = await store.plan(source, lo=None, limit=None)

    async with store.snapshot(source, readers=2) as name:
        first = asyncio.gather(*(read(store, source, plan, stream, snapshot=name) for stream in plan.streams[:2]))
        await store.write(TableName("s"), [rows(-1, 15, 1001)])
        found = [*await first, await read(store, source, plan, plan.streams[2], snapshot=name)]

    assert sorted(i for ids in found for i in ids) == BEFORE
    assert len(await read(store, SOURCES["table"], replace(plan, partition=None), plan.streams[0])) == 43


@pytest.mark.parametrize(
    ("change", "kind", "undecoded"),
    [("truncate", "table", False), ("rewrite", "table", True), ("drop", "query", False), ("truncate", "query", True)],
)
async def test_streams_are_read_to_their_end_while_somebody_waits_to_replace_the_source(
    change: str, kind: str, undecoded: bool, postgres_database: str
) -> None:
    filled(postgres_database)
    source = replace(SOURCES[kind], partitions=Partitions("id", 4))
    async with postgres_store(postgres_database) as store:
        plan = await store.plan(source, lo=None, limit=None)
        with queued(postgres_database, CHANGES[change]) as other:
            async with store.snapshot(source, readers=1, undecoded=undecoded) as name:
                found = await read(store, source, plan, plan.streams[0], snapshot=name, undecoded=undecoded)
                other.start()
                until_waiting(postgres_database)
                for stream in plan.streams[1:]:
                    # A batch that is too large by its bytes is read again, and needs no lock for it.
                    small = {"snapshot": name, "undecoded": undecoded, "batch_bytes": 200}
                    found += await read(store, source, plan, stream, **small)
        assert sorted(found) == BEFORE
        assert sorted(await read(store, source, plan, Stream("0"), undecoded=undecoded)) == AFTER


@pytest.mark.parametrize(
    ("change", "way", "ddl"),
    [
        ("truncate", "decoded", PLAIN),
        ("truncate", "undecoded", SPLIT),
        ("rewrite", "decoded", SPLIT),
        ("rename", "streams", PLAIN),
        ("drop", "undecoded streams", PLAIN),
        ("truncate", "counted", PLAIN),
    ],
)
async def test_reader_that_waited_for_a_lock_sees_what_its_holder_left(
    change: str, way: str, ddl: str, postgres_database: str
) -> None:
    filled(postgres_database, ddl)
    source, undecoded = replace(SOURCES["query"], partitions=Partitions("id", 2)), "undecoded" in way
    async with postgres_store(postgres_database) as store:
        plan = await store.plan(source, lo=None, limit=None)
        with dbapi.connect(postgres_database, autocommit=True) as connection, connection.cursor() as other:
            for statement in f"BEGIN; {CHANGES[change]}".split("; "):
                other.execute(statement)
            if way == "counted":
                reading = asyncio.create_task(counted(store, source, plan))
            elif "streams" in way:
                reading = asyncio.create_task(read_streams(store, source, plan, undecoded=undecoded))
            else:
                reading = asyncio.create_task(read(store, source, plan, Stream("0"), undecoded=undecoded))
            await asyncio.to_thread(until_waiting, postgres_database)
            other.execute("COMMIT")
        assert sorted(await reading) == AFTER


async def counted(store: IDataStore, source: SourceSpec, plan: SourcePlan) -> list[int]:
    found = [i async for part in store.read(source, batch_rows=100) for i in pa.table(part).column("id").to_pylist()]
    assert await store.count(source, plan) == len(found)
    return found


async def read_streams(store: IDataStore, source: SourceSpec, plan: SourcePlan, *, undecoded: bool) -> list[int]:
    async with store.snapshot(source, readers=2, undecoded=undecoded) as name:
        return [
            i
            for stream in plan.streams
            for i in await read(store, source, plan, stream, snapshot=name, undecoded=undecoded)
        ]


class Between:
    """Connections of which the first comes when somebody waits already for the lock that it needs."""

    def __init__(self, url: str, other: Thread) -> None:
        self._url = url
        self._other = other

    @asynccontextmanager
    async def connect(self, name: str) -> AsyncIterator[Any]:
        if not self._other.ident:
            self._other.start()
            await asyncio.to_thread(until_waiting, self._url)
        async with connected(address_of(self._url), name) as connection:
            yield connection


@pytest.mark.parametrize("change", ["truncate", "rename"])
async def test_reader_lets_those_go_first_who_come_between_its_two_sessions(
    change: str, postgres_database: str
) -> None:
    """It took the time limit of a query, in which nobody else could read the table."""
    filled(postgres_database)
    source = SOURCES["table"]
    pool = SessionPool(address_of(postgres_database))
    with queued(postgres_database, CHANGES[change]) as other:
        snapshots = SharedSnapshots(pool.session, Between(postgres_database, other).connect)
        async with asyncio.timeout(20), postgres_store(postgres_database) as store:
            plan = await store.plan(source, lo=None, limit=None)
            async with snapshots.reading(None) as reading:
                passing = PassingReader(reading, source, plan, Stream("0"), batch_rows=8, batch_bytes=2**20)
                found = [rows.num_rows async for rows in passing.encoded(None, PASSAGE)]
    await pool.close()

    assert sum(found) == len(AFTER)


async def test_streams_let_those_go_first_who_come_between_their_sessions(postgres_database: str) -> None:
    filled(postgres_database)
    pool = SessionPool(address_of(postgres_database))
    with queued(postgres_database, CHANGES["truncate"]) as other:
        snapshots = SharedSnapshots(pool.session, Between(postgres_database, other).connect)
        async with asyncio.timeout(20), snapshots.hold(SOURCES["query"], 2, undecoded=True) as name:
            async with snapshots.reading(name) as reading:
                count = await reading.thread.call(reading.session.execute, "SELECT count(*) FROM public.s")
    await pool.close()

    assert count == [(len(AFTER),)]


async def test_reader_of_another_process_joins_a_snapshot_or_gives_up_in_a_moment(postgres_database: str) -> None:
    filled(postgres_database)
    source = SOURCES["table"]
    async with postgres_store(postgres_database) as store, postgres_store(postgres_database) as elsewhere:
        plan = await store.plan(source, lo=None, limit=None)
        with queued(postgres_database, CHANGES["truncate"]) as other:
            async with store.snapshot(source) as name:
                assert await read(elsewhere, source, plan, Stream("0"), snapshot=name) == BEFORE
                assert await read(elsewhere, source, plan, Stream("0"), snapshot=name, undecoded=True) == BEFORE
                other.start()
                await asyncio.to_thread(until_waiting, postgres_database)
                with pytest.raises(StoreUnavailableError) as refused:
                    await read(elsewhere, source, plan, Stream("0"), snapshot=name)
    assert (refused.value.code, refused.value.retryable) == ("store.locked", True)


async def test_streams_outlive_the_session_that_exported_their_snapshot(postgres_database: str) -> None:
    filled(postgres_database)
    source = replace(SOURCES["table"], partitions=Partitions("id", 3))
    ended = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_export_snapshot%' AND pid <> "
        "pg_backend_pid()"
    )
    async with postgres_store(postgres_database) as store, postgres_store(postgres_database) as elsewhere:
        plan = await store.plan(source, lo=None, limit=None)
        for undecoded in (False, True):
            found: list[int] = []
            async with store.snapshot(source, undecoded=undecoded) as name:
                for stream in plan.streams:
                    found += await read(store, source, plan, stream, snapshot=name, undecoded=undecoded)
                    executed(postgres_database, ended)
                with pytest.raises(StoreUnavailableError) as gone:
                    await read(elsewhere, source, plan, plan.streams[0], snapshot=name)
            assert (sorted(found), gone.value.code) == (BEFORE, "snapshot.gone")


ATTACHED = {
    "partition": (SPLIT, "ALTER TABLE s ATTACH PARTITION more FOR VALUES FROM (5000) TO (6000)"),
    "child": (PLAIN, "ALTER TABLE more INHERIT s"),
}


@pytest.mark.parametrize(("kind", "is_shared"), [("partition", True), ("child", False)])
async def test_table_that_is_attached_to_the_source_in_the_middle_is_told(
    kind: str, is_shared: bool, postgres_database: str
) -> None:
    """It needs no lock that a reader's would keep away, and its rows would be read in part."""
    ddl, attach = ATTACHED[kind]
    filled(postgres_database, ddl.replace("PARTITION OF s DEFAULT", "PARTITION OF s FOR VALUES FROM (20) TO (5000)"))
    executed(
        postgres_database, "CREATE TABLE more (id bigint NOT NULL, note text); INSERT INTO more VALUES (5001, 'x')"
    )
    source = replace(SOURCES["table"], partitions=Partitions("id", 2))
    async with postgres_store(postgres_database) as store:
        plan = await store.plan(source, lo=None, limit=None)
        async with AsyncExitStack() as stack:
            shared = store.snapshot(source, undecoded=True)
            name = await stack.enter_async_context(shared) if is_shared else None
            async with store.reader(source, plan, Stream("0"), batch_rows=8, snapshot=name) as reader:
                with pytest.raises(SourceChangedError):
                    async with aclosing(reader.encoded(None, PASSAGE)) as ranges:
                        await anext(ranges)
                        executed(postgres_database, attach)
                        async for _ in ranges:
                            pass
            if is_shared:
                with pytest.raises(SourceChangedError):
                    await read(store, source, plan, plan.streams[1], snapshot=name)


async def test_what_functions_of_a_query_read_and_new_indexes_change_nothing(postgres_database: str) -> None:
    filled(postgres_database)
    executed(
        postgres_database,
        "CREATE TABLE other AS SELECT 1 AS one; CREATE FUNCTION one() RETURNS int LANGUAGE plpgsql AS "
        "'declare n int;begin select one into n from other;return n;end'",
    )
    source = SourceSpec(query="select id, note from seen where one() = 1", key=("id",), partitions=Partitions("id", 3))
    async with postgres_store(postgres_database, "public") as store:
        plan = await store.plan(source, lo=None, limit=None)
        for undecoded in (False, True):
            found: list[int] = []
            async with store.snapshot(source, undecoded=undecoded) as name:
                for stream in plan.streams:
                    found += await read(store, source, plan, stream, snapshot=name, undecoded=undecoded)
                    executed(postgres_database, "CREATE INDEX ON s (note)")
            assert sorted(found) == BEFORE


async def test_role_that_may_only_select_reads_in_one_snapshot(postgres_database: str) -> None:
    filled(postgres_database)
    role = f"reader{uuid4().hex}"
    executed(postgres_database, f"CREATE ROLE {role} LOGIN; GRANT SELECT (id, note) ON s TO {role}")
    source = replace(SOURCES["table"], partitions=Partitions("id", 2))
    try:
        async with postgres_store(postgres_database.replace("postgres@", f"{role}@")) as store:
            plan = await store.plan(source, lo=None, limit=None)
            for undecoded in (False, True):
                assert sorted(await read_streams(store, source, plan, undecoded=undecoded)) == BEFORE
    finally:
        executed(postgres_database, f"DROP OWNED BY {role}; DROP ROLE {role}")
