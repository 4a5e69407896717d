"""A run notices that others have emptied or exchanged the table in which its rows land; what keeps the rows is no matter."""

from collections.abc import AsyncIterator, Awaitable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from adbc_driver_postgresql import dbapi

from domain.errors import ConflictError, PlatformError
from domain.pipelines.checkpoint import CheckpointUpdate, Counts
from domain.pipelines.quality import StagedChecks
from domain.pipelines.spec import Mode, SourceSpec
from domain.pipelines.table import TableName
from domain.ports.data_store import IDataStore, Target, passage_of
from infrastructure.stores.duckdb import DuckDBDataStore
from infrastructure.stores.duckdb_file import DuckDBOptions
from infrastructure.stores.memory import InMemoryDataStore
from infrastructure.stores.postgres import PostgresDataStore
from tests.ports.backends import address_of
from tests.ports.loading import ACCEPTED, LANE, TABLE, batch, ids, read_set, rows, target, token_of

AGAIN = "CREATE TABLE {t} (LIKE {t}_old INCLUDING ALL)"
LOST = {
    "truncated": "TRUNCATE {t}",
    "truncated and filled": "BEGIN; TRUNCATE {t}; INSERT INTO {t} (id, note) VALUES (7, 'x'); COMMIT",
    "truncated and granted": "TRUNCATE {t}; GRANT SELECT ON {t} TO public",
    "exchanged": f"ALTER TABLE {{t}} RENAME TO {{t}}_old; {AGAIN}; INSERT INTO {{t}} SELECT * FROM {{t}}_old",
    "deleted": "DELETE FROM {t}",
}
KEPT = (
    ("VACUUM FULL {t}", "ANALYZE {t}"),
    ("CREATE INDEX by_note ON {t} (note)", "CLUSTER {t} USING by_note", "DELETE FROM {t} WHERE id = 1"),
    ("UPDATE {t} SET note = note || '!'", "ALTER TABLE {t} ADD COLUMN extra uuid DEFAULT gen_random_uuid()"),
    (),
)


def executed(url: str, script: str) -> None:
    with dbapi.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
        for statement in script.split("; "):
            cursor.execute(statement)


class Load:
    """A load whose batches are committed one by one, on a way of its own."""

    def __init__(self, store: IDataStore, way: str) -> None:
        self.store = store
        self.is_undecoded = way == "undecoded"
        self.planned = read_set(shadow=way == "staged")
        mode, key = (Mode.MERGE, ("id",)) if way == "merged" else (Mode.APPEND, ())
        wanted = replace(target(self.planned), mode=mode, key=key, metadata_columns=way != "bare")
        self.target: Target = wanted
        self.landing = TABLE.beside(self.planned.shadow) if self.planned.shadow else TABLE

    async def opened(self) -> "Load":
        async with self.store.owner(LANE, TABLE, 1) as owner:
            await owner.take_over()
            await owner.open_read_set(self.planned, self.target)
        return self

    async def batches(self) -> AsyncIterator[None]:
        """Commit a batch each time that one is asked for."""
        token = await token_of(self.store)
        async with self.store.writer(LANE, self.target, self.planned.id, "0", 1, token) as writer:
            seq = 0
            while True:
                seq += 1
                checkpoint = CheckpointUpdate(seq, (str(seq),), Counts(seq, seq, 0, seq), {}, seq == 4)
                if self.is_undecoded:
                    await writer.commit_encoded(await self._encoded(seq), checkpoint)
                else:
                    await writer.commit(batch(rows(seq)), checkpoint)
                yield

    async def _encoded(self, seq: int):  # type: ignore[no-untyped-def]
        source = SourceSpec(table=TableName("s"), key=("id",))
        plan = await self.store.plan(source, lo=None, limit=None)
        after = (str(seq - 1),)
        async with self.store.reader(source, plan, plan.streams[0], batch_rows=1) as reader:
            async with aclosing(reader.encoded(after, passage_of(self.target))) as ranges:
                return await anext(ranges)

    async def published(self) -> None:
        async with self.store.owner(LANE, TABLE, 1, token=await token_of(self.store)) as owner:
            await owner.publish(self.planned, self.target, StagedChecks(), lambda _: ACCEPTED)


async def refused(work: Awaitable[None]) -> None:
    with pytest.raises(ConflictError, match="--full-refresh") as told:
        await work
    assert told.value.code == "destination.changed"
    assert isinstance(told.value, PlatformError)


async def emptied(store: IDataStore, table: TableName) -> None:
    """Delete every row, as somebody else with the same store does."""
    if isinstance(store, InMemoryDataStore):
        async with store.transaction() as content:
            columns, found = content.tables[str(table)]
            content.tables[str(table)] = (columns, found.slice(0, 0))
    elif isinstance(store, DuckDBDataStore):
        async with store._session() as (session, thread):
            await thread.call(session.execute, f'DELETE FROM "{table}"')
    else:
        assert isinstance(store, PostgresDataStore)
        async with store._session("somebody") as (session, thread):
            await thread.call(session.execute, f'DELETE FROM "{table}"')


@pytest.mark.clause("IDataStore", 33)
@pytest.mark.parametrize("way", ["appended", "merged", "staged", "bare"])
async def test_load_whose_rows_others_delete_is_told_and_goes_no_further(way: str, store: IDataStore) -> None:
    load = await Load(store, way).opened()
    async with aclosing(load.batches()) as batches:
        await anext(batches)
        await anext(batches)
        await emptied(store, load.landing)

        await refused(anext(batches))

    state = await store.lane_state(LANE, TABLE)
    assert state.streams[0].seq == 2
    assert await ids(store) == []


@pytest.mark.clause("IDataStore", 33)
async def test_load_goes_on_in_a_store_that_was_opened_again(store: IDataStore) -> None:
    load = await Load(store, "appended").opened()
    async with aclosing(load.batches()) as batches:
        await anext(batches)
    await store.close()
    await store.open()

    token = await token_of(store)
    async with store.writer(LANE, load.target, load.planned.id, "0", 1, token) as writer:
        await writer.commit(batch(rows(2)), CheckpointUpdate(2, ("2",), Counts(2, 2, 0, 2), {}, True))
    await load.published()

    assert await ids(store) == [1, 2]


async def test_table_of_a_duckdb_file_that_is_made_anew_ends_the_load(tmp_path: Path) -> None:
    store = DuckDBDataStore(DuckDBOptions(tmp_path / "data.duckdb"))
    await store.open()
    load = await Load(store, "appended").opened()
    async with aclosing(load.batches()) as batches:
        await anext(batches)
        async with store._session() as (session, thread):
            for statement in (
                "CREATE TABLE other AS FROM orders",
                "DROP TABLE orders",
                "ALTER TABLE other RENAME TO orders",
            ):
                await thread.call(session.execute, statement)
        await refused(anext(batches))
    await store.close()


@asynccontextmanager
async def postgres_load(url: str, way: str) -> AsyncIterator[Load]:
    store = PostgresDataStore(address_of(url))
    await store.open()
    await store.write(TableName("s"), [rows(*range(1, 9))])
    yield await Load(store, way).opened()
    await store.close()


@pytest.mark.invariant("D1")
@pytest.mark.parametrize(
    ("what", "way"),
    [
        ("truncated", "appended"),
        ("truncated", "undecoded"),
        ("truncated", "staged"),
        ("truncated and filled", "bare"),
        ("truncated and filled", "undecoded"),
        ("truncated and granted", "merged"),
        ("exchanged", "undecoded"),
        ("exchanged", "merged"),
        ("deleted", "undecoded"),
    ],
)
async def test_landing_table_that_is_emptied_or_exchanged_ends_the_load(
    what: str, way: str, postgres_database: str
) -> None:
    async with postgres_load(postgres_database, way) as load:
        async with aclosing(load.batches()) as batches:
            await anext(batches)
            executed(postgres_database, LOST[what].format(t=load.landing))
            await refused(anext(batches))
        if what != "deleted":  # It is known from the opening on, so a resume is told too.
            async with aclosing(load.batches()) as batches:
                with pytest.raises(PlatformError):  # The first batch is there already.
                    await anext(batches)
            token = await token_of(load.store)
            async with load.store.writer(LANE, load.target, load.planned.id, "0", 1, token) as writer:
                checkpoint = CheckpointUpdate(2, ("2",), Counts(2, 2, 0, 2), {}, True)
                await refused(writer.commit(batch(rows(2)), checkpoint))


@pytest.mark.parametrize("what", ["truncated", "exchanged"])
@pytest.mark.parametrize("way", ["undecoded", "staged"])
async def test_landing_table_that_is_emptied_after_the_last_batch_is_not_published(
    what: str, way: str, postgres_database: str
) -> None:
    async with postgres_load(postgres_database, way) as load:
        async with aclosing(load.batches()) as batches:
            for _ in range(4):
                await anext(batches)
        executed(postgres_database, LOST[what].format(t=load.landing))
        await refused(load.published())
        assert (await load.store.lane_state(LANE, TABLE)).is_loading


@pytest.mark.parametrize("way", ["appended", "undecoded", "staged"])
async def test_landing_table_that_keeps_its_rows_is_the_same_one(way: str, postgres_database: str) -> None:
    async with postgres_load(postgres_database, way) as load:
        async with aclosing(load.batches()) as batches:
            for changes in KEPT:
                await anext(batches)
                for change in changes:
                    executed(postgres_database, change.format(t=load.landing))
        await load.published()
        assert set(await ids(load.store)) == {2, 3, 4}


async def test_table_that_only_takes_rows_is_no_sign_of_anything(postgres_database: str) -> None:
    """The role may insert and not look, or a trigger sends the rows elsewhere."""
    role = f"writer{uuid4().hex}"
    async with postgres_load(postgres_database, "appended") as load:
        with dbapi.connect(postgres_database, autocommit=True) as connection, connection.cursor() as admin:
            admin.execute("CREATE TABLE kept (LIKE orders)")
            admin.execute(
                "CREATE FUNCTION away() RETURNS trigger LANGUAGE plpgsql AS "
                "'begin insert into kept values (new.*); return null; end'"
            )
            admin.execute("CREATE TRIGGER away BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION away()")
            async with aclosing(load.batches()) as batches:
                for _ in range(2):
                    await anext(batches)
            admin.execute("SELECT count(*) FROM kept")
            assert admin.fetchone() == (2,)
            admin.execute("DROP TRIGGER away ON orders")
            admin.execute(f"CREATE ROLE {role} LOGIN")
            try:
                for table in ("_headrace_checkpoint", "_headrace_owner", "_headrace_quarantine"):
                    admin.execute(f"GRANT ALL ON {table} TO {role}")
                admin.execute(f"GRANT INSERT ON orders TO {role}")
                plain = PostgresDataStore(address_of(postgres_database.replace("postgres@", f"{role}@")))
                token = await token_of(plain)
                async with plain.writer(LANE, load.target, load.planned.id, "0", 1, token) as writer:
                    for seq in (3, 4):
                        checkpoint = CheckpointUpdate(seq, (str(seq),), Counts(seq, seq, 0, seq), {}, seq == 4)
                        await writer.commit(batch(rows(seq)), checkpoint)
                await plain.close()
            finally:
                admin.execute(f"DROP OWNED BY {role}")
                admin.execute(f"DROP ROLE {role}")
        assert await ids(load.store) == [3, 4]
