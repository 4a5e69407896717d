"""A run notices that others have emptied or exchanged the table in which its rows land; what keeps the rows is no
matter.
"""

from collections.abc import AsyncIterator, Awaitable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from adbc_driver_postgresql import dbapi

from domain.errors import ConflictError, PlatformError
from domain.loads.checkpoint import CheckpointUpdate
from domain.pipelines.spec import Mode, SourceSpec
from domain.ports.data_store import IDataStore, Target, passage_of
from domain.quality.measures import Counts, Measures
from domain.quality.rules import StagedChecks
from domain.stores.table import TableName
from infrastructure.stores.duckdb.file import DuckDBOptions
from infrastructure.stores.duckdb.store import DuckDBDataStore
from infrastructure.stores.postgres.session import PostgresSession
from infrastructure.stores.postgres.store import PostgresDataStore
from tests.ports.backends import Backend, address_of
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
                checkpoint = CheckpointUpdate(seq, (str(seq),), Counts(seq, seq, 0, seq), Measures(), seq == 4)
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


WAYS = ["appended", pytest.param("merged", marks=pytest.mark.needs("merges")), "staged", "bare"]


@pytest.mark.clause("IDataStore", 33)
@pytest.mark.parametrize("way", WAYS)
async def test_load_whose_rows_others_delete_is_told_and_goes_no_further(
    way: str, store: IDataStore, backend: Backend
) -> None:
    load = await Load(store, way).opened()
    async with aclosing(load.batches()) as batches:
        await anext(batches)
        await anext(batches)
        await backend.empties(store, load.landing)

        await refused(anext(batches))

    state = await store.lane_state(LANE, TABLE)
    assert state.streams[0].seq == 2
    assert await ids(store) == []


@pytest.mark.clause("IDataStore", 33)
@pytest.mark.parametrize("way", WAYS)
async def test_load_whose_rows_others_delete_after_the_last_batch_is_not_published(
    way: str, store: IDataStore, backend: Backend
) -> None:
    load = await Load(store, way).opened()
    async with aclosing(load.batches()) as batches:
        for _ in range(4):
            await anext(batches)
    await backend.empties(store, load.landing)

    await refused(load.published())

    assert (await store.lane_state(LANE, TABLE)).is_loading


@pytest.mark.clause("IDataStore", 33)
async def test_load_without_a_row_is_published_into_an_empty_table(store: IDataStore) -> None:
    """Every row was filtered: there was nothing to lose."""
    load = await Load(store, "appended").opened()
    token = await token_of(store)
    async with store.writer(LANE, load.target, load.planned.id, "0", 1, token) as writer:
        await writer.commit(batch(rows()), CheckpointUpdate(1, ("4",), Counts(4, filtered=4), Measures(), True))

    await load.published()

    assert not (await store.lane_state(LANE, TABLE)).is_loading
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
        await writer.commit(batch(rows(2)), CheckpointUpdate(2, ("2",), Counts(2, 2, 0, 2), Measures(), True))
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
async def postgres_load(url: str, way: str, before: str = "") -> AsyncIterator[Load]:
    store = PostgresDataStore(address_of(url))
    await store.open()
    await store.write(TableName("s"), [rows(*range(1, 9))])
    if before:
        executed(url, before)
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
                checkpoint = CheckpointUpdate(2, ("2",), Counts(2, 2, 0, 2), Measures(), True)
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
                        checkpoint = CheckpointUpdate(seq, (str(seq),), Counts(seq, seq, 0, seq), Measures(), seq == 4)
                        await writer.commit(batch(rows(seq)), checkpoint)
                await plain.close()
            finally:
                admin.execute(f"DROP OWNED BY {role}")
                admin.execute(f"DROP ROLE {role}")
        assert await ids(load.store) == [3, 4]


OTHER = "01890000-0000-7000-8000-00000000000f"
# What another pipeline does that appends to the same table.
BY_ANOTHER = f"INSERT INTO orders (id, note, _headrace_run_id) SELECT g, 'x', '{OTHER}' FROM generate_series(90, 99) g"
COLUMNS = "id bigint, note text, _headrace_loaded_at timestamptz, _headrace_run_id uuid"
PARTS = "; ".join(
    f"CREATE TABLE orders_{number} PARTITION OF orders FOR VALUES FROM ({low}) TO ({high})"
    for number, low, high in ((0, "MINVALUE", 2), (1, 2, 50), (2, 50, "MAXVALUE"))
)
PARTITIONED = f"CREATE TABLE orders ({COLUMNS}) PARTITION BY RANGE (id); {PARTS}"
REWRITTEN = "ALTER TABLE orders ADD COLUMN extra uuid DEFAULT gen_random_uuid()"


@pytest.mark.invariant("D1")
@pytest.mark.parametrize("before", ["", PARTITIONED])
@pytest.mark.parametrize("way", ["appended", "undecoded", "bare"])
async def test_rows_of_another_pipeline_do_not_vouch_for_a_truncated_table(
    way: str, before: str, postgres_database: str
) -> None:
    async with postgres_load(postgres_database, way, before) as load:
        if before and way == "bare":
            return  # Then no row of a partition says whose it is.
        async with aclosing(load.batches()) as batches:
            await anext(batches)
            filling = BY_ANOTHER if way != "bare" else "INSERT INTO orders SELECT g, 'x' FROM generate_series(90, 99) g"
            executed(postgres_database, f"BEGIN; TRUNCATE orders; {filling}; COMMIT")
            await refused(anext(batches))


@pytest.mark.invariant("D1")
@pytest.mark.parametrize("filling", [BY_ANOTHER, "SELECT 1"])
@pytest.mark.parametrize("before", ["", PARTITIONED])
@pytest.mark.parametrize("way", ["appended", "undecoded"])
async def test_rows_of_another_pipeline_do_not_publish_a_truncated_table(
    way: str, before: str, filling: str, postgres_database: str
) -> None:
    async with postgres_load(postgres_database, way, before) as load:
        async with aclosing(load.batches()) as batches:
            for _ in range(4):
                await anext(batches)
        executed(postgres_database, f"TRUNCATE orders; {filling}")
        await refused(load.published())


LEGITIMATE = {
    "another appends": ("", BY_ANOTHER),
    "another appends, written anew": ("", f"{BY_ANOTHER}; {REWRITTEN}"),
    "old rows are deleted": ("", f"{BY_ANOTHER}; DELETE FROM orders WHERE id = 1"),
    "written anew before the first batch": (f"CREATE TABLE orders ({COLUMNS}); {BY_ANOTHER}", None),
    "a partition is truncated": (PARTITIONED, "TRUNCATE orders_0"),
    "partitions are exchanged": (
        PARTITIONED,
        "DROP TABLE orders_0; ALTER TABLE orders DETACH PARTITION orders_2; DROP TABLE orders_2; "
        "CREATE TABLE orders_4 PARTITION OF orders FOR VALUES FROM (50) TO (60)",
    ),
    "partitions are written anew": (PARTITIONED, "VACUUM FULL orders"),
    "partitions are altered": (PARTITIONED, REWRITTEN),
}


@pytest.mark.parametrize("what", LEGITIMATE)
@pytest.mark.parametrize("way", ["appended", "undecoded", "bare"])
async def test_what_leaves_rows_of_the_load_is_no_loss(what: str, way: str, postgres_database: str) -> None:
    before, change = LEGITIMATE[what]
    if way == "bare" and "written anew" in what and not before.startswith(PARTITIONED):
        return  # ALTER TABLE leaves no sign by which its rows are told from those of others.
    if way == "bare":
        before = before.replace(", _headrace_loaded_at timestamptz, _headrace_run_id uuid", "")
    bare = BY_ANOTHER.replace(", _headrace_run_id", "").replace(f", '{OTHER}'", "")
    before, change = (text and (text.replace(BY_ANOTHER, bare) if way == "bare" else text) for text in (before, change))
    async with postgres_load(postgres_database, way, before) as load:
        async with aclosing(load.batches()) as batches:
            if change is None:
                executed(postgres_database, REWRITTEN)
            await anext(batches)
            await anext(batches)
            if change is not None:
                executed(postgres_database, change)
            await anext(batches)
            await anext(batches)
        await load.published()
        assert {2, 3, 4} <= set(await ids(load.store))


async def test_rows_of_each_run_that_loads_a_read_set_vouch_for_the_table(postgres_database: str) -> None:
    """A run is retried as another one, which completes what the first has begun; the table is written anew
    around it.
    """
    async with postgres_load(postgres_database, "appended") as load:
        async with aclosing(load.batches()) as batches:
            await anext(batches)
        executed(postgres_database, f"{BY_ANOTHER}; {REWRITTEN}")
        second = replace(load.target, run_id="01890000-0000-7000-8000-000000000001")
        async with load.store.owner(LANE, TABLE, 2, token=await token_of(load.store)) as owner:
            await owner.take_over()
            await owner.fit(second)
            await owner.fit(second)
        async with load.store.writer(LANE, second, load.planned.id, "0", 2, await token_of(load.store)) as writer:
            await writer.commit(batch(rows(2)), CheckpointUpdate(2, ("2",), Counts(2, 2, 0, 2), Measures(), False))
            # What the first has loaded is deleted as old; what the second has loaded is there.
            executed(postgres_database, "DELETE FROM orders WHERE id = 1; ALTER TABLE orders ALTER extra TYPE text")
            await writer.commit(batch(rows(3)), CheckpointUpdate(3, ("3",), Counts(3, 3, 0, 3), Measures(), True))
        async with load.store.owner(LANE, TABLE, 2, token=await token_of(load.store)) as owner:
            await owner.publish(load.planned, second, StagedChecks(), lambda _: ACCEPTED)
        assert set(await ids(load.store)) == {2, 3, *range(90, 100)}


@pytest.mark.parametrize(
    "hiding",
    [
        "ALTER TABLE orders ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON orders FOR INSERT WITH CHECK (true); "
        "CREATE POLICY q ON orders FOR UPDATE USING (true); CREATE POLICY shown ON orders FOR SELECT USING (true)",
        "CREATE TABLE kept (LIKE orders); CREATE FUNCTION away() RETURNS trigger LANGUAGE plpgsql AS "
        "'begin insert into kept values (new.*)/**/return null/**/end'; "
        "CREATE TRIGGER away BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION away()",
        "SELECT 1",
    ],
)
async def test_rows_that_the_database_hides_are_not_lost(hiding: str, postgres_database: str) -> None:
    """A policy shows none of them, a trigger puts them elsewhere, or the role may insert and not look."""
    role = f"writer{uuid4().hex}"
    grant = "INSERT" if hiding == "SELECT 1" else "INSERT, SELECT, UPDATE"
    tables = ("_headrace_checkpoint", "_headrace_owner", "_headrace_quarantine")
    way = "merged" if "POLICY" in hiding else "appended"  # COPY does not work under policies.
    async with postgres_load(postgres_database, way) as load:
        with dbapi.connect(postgres_database, autocommit=True) as connection, connection.cursor() as admin:
            for statement in hiding.split("; "):
                admin.execute(statement.replace("/**/", ";"))
            admin.execute(f"CREATE ROLE {role} LOGIN")
            try:
                for statement in (
                    *(f"GRANT ALL ON {table} TO {role}" for table in tables),
                    f"GRANT {grant} ON orders TO {role}",
                ):
                    admin.execute(statement)
                if "kept" in hiding:
                    admin.execute(f"GRANT ALL ON kept TO {role}")
                plain = PostgresDataStore(address_of(postgres_database.replace("postgres@", f"{role}@")))
                async with plain.writer(LANE, load.target, load.planned.id, "0", 1, await token_of(plain)) as writer:
                    await writer.commit(
                        batch(rows(1)), CheckpointUpdate(1, ("1",), Counts(1, 1, 0, 1), Measures(), False)
                    )
                    if "kept" not in hiding:
                        admin.execute("VACUUM FULL orders")
                    await writer.commit(
                        batch(rows(2)), CheckpointUpdate(2, ("2",), Counts(2, 2, 0, 2), Measures(), True)
                    )
                if "POLICY" in hiding:
                    admin.execute("ALTER POLICY shown ON orders USING (false)")
                    admin.execute("VACUUM FULL orders")
                hidden = Load(plain, "appended")
                hidden.planned, hidden.target = load.planned, load.target
                await hidden.published()
                await plain.close()
            finally:
                admin.execute(f"DROP OWNED BY {role}")
                admin.execute(f"DROP ROLE {role}")
    assert not (await load.store.lane_state(LANE, TABLE)).is_loading


async def test_batch_on_a_postgres_asks_for_all_that_it_has_to_know_at_once(
    postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches are small: each question more of one is a part of what a load costs."""
    asked: list[str] = []
    execute = PostgresSession.execute
    monkeypatch.setattr(
        PostgresSession, "execute", lambda self, sql, *rest: [asked.append(sql), execute(self, sql, *rest)][1]
    )
    store = PostgresDataStore(address_of(postgres_database))
    await store.open()
    load = await Load(store, "appended").opened()
    async with aclosing(load.batches()) as batches:
        for _ in range(2):
            await anext(batches)
        asked.clear()

        await anext(batches)

    beginnings = [sql.split()[0] for sql in asked]
    assert beginnings == ["BEGIN", "UPDATE", "LOCK", "SELECT", "SELECT", "COMMIT"], asked
    asked.clear()
    await store.plan(SourceSpec(table=TABLE), lo=None, limit=None)
    assert sum("format_type" in sql for sql in asked) <= 2, asked
    await store.close()
