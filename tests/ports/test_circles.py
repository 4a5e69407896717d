"""A run that waits for itself, as somebody stands between what it reads and what it writes, lets go; what waits for
others only, waits.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import ExitStack
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from domain.errors import StoreUnavailableError
from domain.loads.checkpoint import CheckpointUpdate
from domain.loads.way import Passage
from domain.pipelines.spec import SourceSpec
from domain.quality.measures import Measures
from domain.runs.lane import LaneOwner
from domain.stores.table import TableName
from infrastructure.stores.postgres import circles
from infrastructure.stores.postgres.store import PostgresDataStore
from tests.ports.backends import address_of
from tests.ports.loading import LANE, batch, commit, ids, opened, read_set, rows, target, token_of
from tests.ports.test_predecessors import stopped
from tests.ports.test_stopped_readers import OTHERS
from tests.somebody import Somebody, somebody_in

SOURCE = SourceSpec(table=TableName("s"), key=("id",))
SEEN = SourceSpec(table=TableName("seen"), key=("id",))
MIGRATION = ("BEGIN; LOCK TABLE orders", "LOCK TABLE s; COMMIT")
ALTER = ("SELECT 1", "ALTER TABLE orders ADD COLUMN more int")
# What is read, what somebody has by then, and what they want then.
CIRCLES = {"both tables in one transaction": (SOURCE, MIGRATION), "a view of the destination": (SEEN, ALTER)}


@pytest.fixture
async def store(
    postgres_database: str, somebody: Somebody, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[PostgresDataStore]:
    monkeypatch.setattr(circles, "_LOOK_EVERY_SECONDS", 0.05)
    built = PostgresDataStore(address_of(postgres_database), "here")
    await built.open()
    await built.write(TableName("s"), [rows(1, 2, 3)])
    await opened(built, 1, read_set())
    somebody.does("ALTER TABLE s ADD PRIMARY KEY (id); CREATE VIEW seen AS SELECT id + 10 AS id, note FROM orders")
    yield built
    await built.close()


Writes = Callable[[], Coroutine[Any, Any, None]]


async def writing(store: PostgresDataStore, way: str) -> Writes:
    """What commits the first batch of the load."""
    if way == "arrow":
        return lambda: commit(store, 1, read_set(), 1, batch(rows(1, 2, 3)))
    plan = await store.plan(SOURCE, lo=None, limit=None)
    async with store.reader(SOURCE, plan, plan.streams[0], batch_rows=9) as reader:
        [part] = [part async for part in reader.encoded(None, Passage(("id", "note")))]

    async def passes() -> None:
        async with store.writer(LANE, target(read_set()), "r1", "0", 1, await token_of(store)) as writer:
            await writer.commit_encoded(
                part, CheckpointUpdate(1, part.position, batch(rows(1, 2, 3)).counts, Measures(), False)
            )

    return passes


@pytest.mark.invariant("D1")
@pytest.mark.parametrize("circle", CIRCLES)
@pytest.mark.parametrize("way", ["arrow", "pass-through"])
async def test_run_that_waits_for_itself_lets_go_and_goes_on_behind_them(
    circle: str, way: str, store: PostgresDataStore, postgres_database: str, somebody: Somebody
) -> None:
    source, (has, wants) = CIRCLES[circle]
    writes = await writing(store, way)
    with somebody_in(postgres_database) as other:
        async with asyncio.timeout(20):
            async with store.snapshot(source, by=LaneOwner(LANE, 1)):
                other.does(has)
                wanting = asyncio.create_task(asyncio.to_thread(other.does, wants))
                await somebody.sees_it_wait()
                with pytest.raises(StoreUnavailableError, match="wants a lock on what this run reads") as told:
                    await writes()
            await wanting

            await writes()

    assert (told.value.code, await ids(store)) == ("store.locked", [1, 2, 3])


async def test_trigger_that_needs_what_is_read_whole_is_told_as_that(
    store: PostgresDataStore, somebody: Somebody
) -> None:
    somebody._cursor.execute(
        "CREATE FUNCTION empties() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN TRUNCATE s; RETURN NULL; END $$"
    )
    somebody.does("CREATE TRIGGER t AFTER INSERT ON orders EXECUTE FUNCTION empties()")
    writes = await writing(store, "arrow")
    async with asyncio.timeout(20), store.snapshot(SOURCE, by=LaneOwner(LANE, 1)):
        with pytest.raises(StoreUnavailableError, match="What a trigger or a constraint of orders does needs a lock"):
            await writes()


@pytest.mark.parametrize("whose", ["nobody reads", "another lane", "another installation"])
async def test_whoever_waits_for_others_alone_waits(
    whose: str, store: PostgresDataStore, postgres_database: str, somebody: Somebody
) -> None:
    """Others read, and somebody who waits for them holds what is written."""
    writes = await writing(store, "arrow")
    with somebody_in(postgres_database) as other, ExitStack() as stack:
        other.does("BEGIN; LOCK TABLE orders")
        if whose in OTHERS:
            reader = stack.enter_context(stopped(postgres_database, OTHERS[whose], "SELECT * FROM s LIMIT 0"))
            wanting = asyncio.create_task(asyncio.to_thread(other.does, "LOCK TABLE s"))
            await somebody.sees_it_wait()
        task = asyncio.create_task(writes())
        await asyncio.sleep(0.3)
        assert not task.done()
        if whose in OTHERS:
            reader.execute("ROLLBACK")
            await wanting
        other.does("COMMIT")
        async with asyncio.timeout(20):
            await task

    assert await ids(store) == [1, 2, 3]


async def test_readers_of_another_role_are_known(
    store: PostgresDataStore, postgres_database: str, somebody: Somebody
) -> None:
    role = f"writer_{uuid4().hex[:12]}"
    somebody.does(
        f"CREATE ROLE {role} LOGIN; GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}; GRANT ALL ON SCHEMA public TO "
        f"{role}"
    )
    plain = PostgresDataStore(replace(address_of(postgres_database), user=role), "here")
    await plain.open()
    try:
        with somebody_in(postgres_database) as other:
            async with asyncio.timeout(20):
                async with store.snapshot(SOURCE, by=LaneOwner(LANE, 1)):
                    other.does("BEGIN; LOCK TABLE orders")
                    wanting = asyncio.create_task(asyncio.to_thread(other.does, "LOCK TABLE s; COMMIT"))
                    await somebody.sees_it_wait()
                    with pytest.raises(StoreUnavailableError, match="wants a lock on what this run reads"):
                        await (await writing(plain, "arrow"))()
                await wanting
    finally:
        await plain.close()
        somebody.does(f"DROP OWNED BY {role}; DROP ROLE {role}")
