"""What a stopped reader has locked keeps others waiting, until the next owner of its lane ends it; and it is named."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from adbc_driver_postgresql import dbapi

from domain.errors import StoreUnavailableError
from domain.pipelines.spec import CursorSpec, Mode, SourceSpec
from domain.runs.lane import Lane, LaneOwner
from domain.stores.table import TableName
from infrastructure.stores.postgres.connection import READER, Readers
from infrastructure.stores.postgres.store import PostgresDataStore
from tests.ports.backends import address_of
from tests.ports.loading import LANE, TABLE, batch, commit, opened, published, read_set, rows
from tests.ports.test_predecessors import lives, stopped
from tests.somebody import Somebody

SOURCE = SourceSpec(table=TableName("s"), key=("id",))
OTHERS = {
    "another lane": Readers("here", LaneOwner(Lane("default", "others"), 1)).name,
    "a later owner": Readers("here", LaneOwner(LANE, 9)).name,
    "another installation": Readers("there", LaneOwner(LANE, 1)).name,
    "no owner": READER,
    "no fence": Readers("here", LaneOwner(LANE, 1)).prefix + "x",
}


@pytest.fixture
async def store(postgres_database: str) -> AsyncIterator[PostgresDataStore]:
    """A store that names its installation."""
    built = PostgresDataStore(address_of(postgres_database), "here")
    await built.open()
    await built.write(SOURCE.table or TABLE, [pa.table({"id": [1, 2]})])
    yield built
    await built.close()


@contextmanager
def reading(url: str, name: str) -> Iterator[dbapi.Cursor]:
    with stopped(url, name, "SELECT * FROM s LIMIT 0") as cursor:
        yield cursor


async def read(store: PostgresDataStore, fence: int, stack: AsyncExitStack, *, snapshot: bool = False) -> None:
    """Begin to read for an owner, and stay in the middle of it."""
    plan, by = await store.plan(SOURCE, lo=None, limit=None), LaneOwner(LANE, fence)
    if snapshot:
        await stack.enter_async_context(store.snapshot(SOURCE, readers=2, undecoded=True, by=by))
        return
    reader = await stack.enter_async_context(store.reader(SOURCE, plan, plan.streams[0], batch_rows=1, by=by))
    await anext(aiter(reader.batches(None)))


@pytest.mark.invariant("L4")
@pytest.mark.parametrize("is_shared", [False, True], ids=["reader", "snapshot"])
async def test_what_a_stopped_reader_has_locked_is_free_once_its_lane_is_taken_over(
    store: PostgresDataStore, postgres_database: str, somebody: Somebody, is_shared: bool
) -> None:
    before = PostgresDataStore(address_of(postgres_database), "here")
    await before.open()
    async with asyncio.timeout(20):
        await read(before, 3, held := AsyncExitStack(), snapshot=is_shared)
        with pytest.raises(dbapi.Error, match="lock timeout"):
            somebody.does("SET lock_timeout = '200ms'; TRUNCATE s")

        async with AsyncExitStack() as stack:
            await read(store, 4, stack)
        somebody.does("SET lock_timeout = '5s'; TRUNCATE s")

        with suppress(StoreUnavailableError):  # As a stopped one finds out when it wakes.
            await held.aclose()
        await before.close()


@pytest.mark.invariant("L1")
@pytest.mark.parametrize("whose", list(OTHERS))
async def test_readers_of_others_are_left_alone(whose: str, store: PostgresDataStore, postgres_database: str) -> None:
    mine = Readers("here", LaneOwner(LANE, 3)).name
    with reading(postgres_database, OTHERS[whose]) as other, reading(postgres_database, mine) as before:
        async with AsyncExitStack() as stack:
            await read(store, 4, stack)
        assert (lives(other), lives(before)) == (True, False)


@pytest.mark.clause("IDataStore", 30)
async def test_readers_of_an_owner_hold_no_read_back(store: PostgresDataStore, somebody: Somebody) -> None:
    somebody.does("CREATE TABLE c (id int, at timestamptz NOT NULL); INSERT INTO c VALUES (1, '2020-01-01')")
    source = SourceSpec(table=TableName("c"), cursor=CursorSpec("at"), key=("id",))
    async with AsyncExitStack() as stack:
        await read(store, 3, stack)
        plan = await store.plan(source, lo=None, limit=None)
    assert plan.end is not None
    assert plan.end.sentences == ()
    assert datetime.fromisoformat(plan.end.complete_as_of or "") > datetime.now(UTC) - timedelta(minutes=1)


async def test_whoever_keeps_a_table_from_being_replaced_is_named(
    store: PostgresDataStore, postgres_database: str, somebody: Somebody
) -> None:
    name = postgres_database.rsplit("/", 1)[1]
    await store.write(TABLE, [rows(1)])
    somebody.does(f"ALTER DATABASE {name} SET lock_timeout = '300ms'")
    replacing = PostgresDataStore(address_of(postgres_database))
    await replacing.open()
    planned = read_set(shadow=True)
    await opened(replacing, 1, planned, mode=Mode.REPLACE)
    await commit(replacing, 1, planned, 1, batch(rows(2)), is_last=True, mode=Mode.REPLACE)
    holder = Readers("here", LaneOwner(Lane("default", "others"), 7)).name

    with stopped(postgres_database, holder, "SELECT * FROM orders LIMIT 0") as other:
        other.execute("SELECT pg_backend_pid()")
        pid = other.fetchone()[0]
        with pytest.raises(StoreUnavailableError) as refused:
            await published(replacing, 1, planned, mode=Mode.REPLACE)

    await replacing.close()
    assert refused.value.code == "store.locked"
    assert f"session {pid} of postgres ({holder})" in refused.value.message
