"""A take-over takes from an earlier owner that was stopped whatever it holds, and from nobody else."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from uuid import uuid4

import pytest
from adbc_driver_postgresql import dbapi

from domain.errors import StoreUnavailableError
from domain.ports.data_store import IDataStore
from domain.runs.lane import Lane
from infrastructure.stores.postgres.connection import lane_session
from infrastructure.stores.postgres.store import PostgresDataStore
from tests.ports.backends import address_of
from tests.ports.loading import LANE, TABLE, batch, commit, ids, opened, published, read_set, rows

STAGE = read_set(shadow=True).shadow
ADVANCE = "UPDATE _headrace_checkpoint SET seq = seq WHERE pipeline = 'orders'"
HOLDS = {
    "stage": f'LOCK TABLE "{STAGE}" IN ROW EXCLUSIVE MODE',
    "table": "LOCK TABLE orders IN ROW EXCLUSIVE MODE",
    "table it was about to change": "LOCK TABLE orders IN ACCESS EXCLUSIVE MODE",
    "checkpoint": ADVANCE,
    "owners": "LOCK TABLE _headrace_owner IN SHARE ROW EXCLUSIVE MODE",
    "quarantine": "LOCK TABLE _headrace_quarantine IN ACCESS EXCLUSIVE MODE",
    "half-dropped stage": f'DROP TABLE "{STAGE}"',
}

FIRST = {
    "making the tables": "SELECT pg_advisory_xact_lock(727201402)",
    "inserting the head": "INSERT INTO _headrace_checkpoint SELECT org, pipeline, 'main', stream, read_set, fence, seq, position, "
    "state, read, used, filtered, produced, deduplicated, quarantined, failed, stats FROM _headrace_checkpoint "
    "WHERE stream = 'head'",
}


@contextmanager
def stopped(url: str, name: str, *statements: str) -> Iterator[dbapi.Cursor]:
    """A session of a stopped worker: in the middle of a transaction, and nobody ends it."""
    with dbapi.connect(f"{url}?application_name={name}", autocommit=True) as connection:
        with connection.cursor() as cursor:
            for statement in ("BEGIN", *statements):
                cursor.execute(statement)
            yield cursor


def lives(cursor: dbapi.Cursor) -> bool:
    try:
        cursor.execute("SELECT 1")
    except dbapi.Error:
        return False
    return True


@asynccontextmanager
async def postgres_store(url: str) -> AsyncIterator[PostgresDataStore]:
    store = PostgresDataStore(address_of(url))
    await store.open()
    try:
        async with asyncio.timeout(20):
            yield store
    finally:
        await store.close()


async def brought_to_its_end(store: IDataStore, fence: int) -> None:
    planned = read_set(shadow=True, name="r2")
    await opened(store, fence, planned)
    await commit(store, fence, planned, 1, batch(rows(1, 2)), is_last=True)
    await published(store, fence, planned)


@pytest.mark.invariant("L4")
@pytest.mark.parametrize("held", list(HOLDS))
async def test_stopped_owner_keeps_nothing_whatever_it_holds(held: str, postgres_database: str) -> None:
    async with postgres_store(postgres_database) as store:
        await store.write(TABLE, [rows()])
        await opened(store, 3, read_set(shadow=True))

        with stopped(postgres_database, lane_session(LANE, 3), HOLDS[held]) as before:
            await brought_to_its_end(store, 4)
            assert not lives(before)

        assert await ids(store) == [1, 2]


@pytest.mark.invariant("L4")
@pytest.mark.parametrize("held", ["making the tables", "inserting the head"])
async def test_owner_that_was_stopped_before_it_had_a_row_keeps_nobody_away(held: str, postgres_database: str) -> None:
    async with postgres_store(postgres_database) as store:
        if held == "inserting the head":
            await opened(store, 1, read_set(), lane=Lane(LANE.organization, LANE.pipeline, "another"))
        with stopped(postgres_database, lane_session(LANE, 3), FIRST[held]) as before:
            await brought_to_its_end(store, 4)
            assert not lives(before)
        assert await ids(store) == [1, 2]


@pytest.mark.invariant("L1")
async def test_sessions_of_others_are_left_alone(postgres_database: str) -> None:
    async with postgres_store(postgres_database) as store:
        await store.write(TABLE, [rows()])
        await opened(store, 3, read_set(shadow=True))
        of_another_lane = lane_session(Lane("default", "others"), 1)
        elsewhere = "CREATE SCHEMA elsewhere; CREATE TABLE elsewhere.orders (id int)"
        with (
            stopped(postgres_database, of_another_lane, "LOCK TABLE orders IN ROW EXCLUSIVE MODE") as neighbor,
            stopped(postgres_database, lane_session(LANE, 9), "LOCK TABLE orders IN ROW EXCLUSIVE MODE") as newer,
            stopped(postgres_database, lane_session(LANE, 2), *elsewhere.split("; ")) as of_another_schema,
            stopped(postgres_database, "headrace:not-a-lane:x", "SELECT 1") as unknown,
        ):
            await brought_to_its_end(store, 4)

            assert [lives(cursor) for cursor in (neighbor, newer, of_another_schema, unknown)] == [True] * 4


async def test_owner_whom_this_role_may_not_end_is_named(
    postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    role = f"loader{uuid4().hex}"
    monkeypatch.setattr("infrastructure.stores.postgres.predecessors._ATTEMPTS", 1)
    with stopped(postgres_database, "test") as admin:
        admin.execute("COMMIT")
        admin.execute(f"CREATE ROLE {role} LOGIN")
        admin.execute(f"GRANT CREATE ON SCHEMA public TO {role}")
        try:
            async with postgres_store(postgres_database.replace("postgres@", f"{role}@")) as store:
                await store.write(TABLE, [rows()])
                await opened(store, 3, read_set(shadow=True))
                with stopped(postgres_database, lane_session(LANE, 3), HOLDS["checkpoint"]) as before:
                    before.execute("SELECT pg_backend_pid()")
                    pid = before.fetchone()[0]
                    with pytest.raises(StoreUnavailableError, match=rf"{pid}\b") as refused:
                        await brought_to_its_end(store, 4)
            assert refused.value.code == "store.locked"
        finally:
            admin.execute(f"DROP OWNED BY {role}")
            admin.execute(f"DROP ROLE {role}")
