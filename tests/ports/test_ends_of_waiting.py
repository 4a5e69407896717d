"""Whatever is tried again or waited for has an end, and what is given up leaves nothing behind."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit, urlunsplit

import pytest

from application.runs.work import MAX_RAISED, Claim, IWork
from domain.errors import FencedError, NotFoundError, SchemaMismatchError, StoreUnavailableError, UnavailableError
from domain.failpoints import arm
from domain.identity.scope import PLATFORM
from domain.loads.checkpoint import CheckpointUpdate
from domain.pipelines.spec import CursorSpec, SourceSpec
from domain.quality.measures import Measures
from domain.stores.table import TableName
from infrastructure.clock import SystemClock
from infrastructure.metadata.lease_keeper import HeldLease
from infrastructure.metadata.records import SqlRecords, sqlite_url
from infrastructure.stores.duckdb.file import DuckDBOptions
from infrastructure.stores.duckdb.store import DuckDBDataStore
from infrastructure.stores.postgres.reading import Connect
from infrastructure.stores.postgres.replace import clear
from infrastructure.stores.postgres.session import PostgresSession
from infrastructure.stores.postgres.store import PostgresDataStore
from infrastructure.stores.sql.writer import SqlWriter
from tests.faults.proxy import Proxy
from tests.ports.backends import address_of
from tests.ports.loading import COLUMNS, LANE, TABLE, batch, ids, opened, read_set, rows, target, token_of
from tests.ports.test_unit_of_work import LEASE, claimed, queued
from tests.somebody import Somebody, somebody_in


@pytest.mark.invariant("R3")
async def test_claim_goes_above_others_so_often_and_then_says_what_to_do(tmp_path: Path) -> None:
    records = SqlRecords(sqlite_url(tmp_path / "records.db"))
    await records.open()
    async with records.unit(PLATFORM) as unit:
        await unit.identity.ensure_organization("one")
        await unit.pipelines.put("one", "orders", {"pipeline": "orders"}, "me")
        await unit.commit()
    run = await claimed(records, await queued(records))
    assert run is not None
    lease = HeldLease(run.id, run.fence, LEASE)
    claim = Claim(run, cast(IWork, None), lease, run.fence, timedelta(minutes=1), lambda: False, SystemClock())

    for _ in range(MAX_RAISED):
        before = claim.fence
        await claim.go_above(records, FencedError("taken over", fence=before + 5))
        assert claim.fence > before + 5
    with pytest.raises(StoreUnavailableError, match="one installation") as given_up:
        await claim.go_above(records, FencedError("taken over", fence=claim.fence + 5))

    assert (given_up.value.code, given_up.value.retryable) == ("run.contested", True)
    await records.close()


@pytest.fixture
def silent(postgres_database: str) -> Iterator[str]:
    """The test's database by way of a proxy that falls silent when it is asked which process answers."""
    parts = urlsplit(postgres_database)
    proxy = Proxy(parts.port or 5432)
    proxy.silent_after = b"pg_backend_pid"
    yield urlunsplit(parts._replace(netloc=f"postgres@127.0.0.1:{proxy.port}"))
    proxy.close()


async def test_store_that_falls_silent_once_it_is_connected_is_waited_for_so_long(silent: str) -> None:
    store = PostgresDataStore(replace(address_of(silent), connect_timeout_seconds=1))
    with pytest.raises(StoreUnavailableError, match="no answer"):
        async with asyncio.timeout(25):
            await store.open()
    await store.close()


async def test_records_that_fall_silent_once_they_are_connected_are_waited_for_so_long(silent: str) -> None:
    records = SqlRecords(silent.replace("postgresql://", "postgresql+asyncpg://"), timeout_seconds=1)
    with pytest.raises(UnavailableError):
        async with asyncio.timeout(25):
            await records.open()
    await records.close()


@pytest.mark.clause("IDataStore", 30)
async def test_names_that_others_gave_are_cut_and_shown_without_control_characters(
    postgres: PostgresDataStore, somebody: Somebody, postgres_database: str
) -> None:
    somebody.does("CREATE TABLE numbers (id bigint PRIMARY KEY); INSERT INTO numbers VALUES (1)")
    gid = "\x1b[2J\nheadrace: all is well\u202e" + "x" * 150
    with somebody_in(postgres_database) as another:
        another.does(f"BEGIN; INSERT INTO numbers VALUES (2); PREPARE TRANSACTION '{gid}'")
    try:
        source = SourceSpec(
            table=TableName("numbers"), key=("id",), cursor=CursorSpec("id", patience=timedelta(milliseconds=1))
        )
        plan = await postgres.plan(source, lo=None, limit=None, waits=False)
    finally:
        somebody.does(f"ROLLBACK PREPARED '{gid}'")

    assert plan.end is not None
    [told] = [each for each in plan.end.held_back if "prepared transaction" in each]
    assert told.isprintable()
    assert "headrace: all is well" in told
    assert "x" * 64 not in told


async def test_writer_that_is_stopped_while_it_connects_again_writes_nothing(
    postgres: PostgresDataStore, postgres_database: str
) -> None:
    planned = read_set()
    await opened(postgres, 1, planned)
    struck: list[str] = []

    def strike(name: str) -> None:
        if name == "batch.before_commit" and not struck:
            struck.append(name)
            raise StoreUnavailableError("The connection broke.")

    async with postgres._session("writer") as (session, thread):
        token = await token_of(postgres)
        writer = SqlWriter(session, thread, LANE, target(planned), planned.id, "0", 1, token)
        connect_again = session.reopen

        def reopen() -> None:
            connect_again()
            session.is_interrupted = True  # As somebody who cancels the run does, while this takes its time.

        session.reopen = reopen  # type: ignore[method-assign]
        arm(strike)
        try:
            with pytest.raises(StoreUnavailableError):
                await writer.commit(
                    batch(rows(1)), CheckpointUpdate(1, ("1",), batch(rows(1)).counts, Measures(), True)
                )
        finally:
            arm(None)

    assert await ids(postgres) == []


@asynccontextmanager
async def _slowly(connect: Connect, name: str) -> AsyncIterator[Any]:
    await asyncio.sleep(1.5)
    async with connect(name) as connection:
        yield connection


def _refused(name: str) -> AbstractAsyncContextManager[Any]:
    raise StoreUnavailableError(f"There is no more room for {name}.")


async def test_copy_that_fails_while_it_is_being_stopped_leaves_nothing_running(postgres: PostgresDataStore) -> None:
    failing = (
        "SELECT CASE WHEN g < 300 THEN repeat('x', 100000) ELSE (1 / (g - 300))::text END FROM generate_series(1, "
        "300) g"
    )
    source = SourceSpec(query="SELECT 1 AS id", key=("id",))
    async with postgres._snapshots.reading(None) as reading:
        await reading.thread.call(reading.selected, source)
        async with reading.passing(source) as (_, connection):
            before = asyncio.all_tasks()
            reading._connect = partial(_slowly, reading._connect)  # The request to stop takes long.
            with pytest.raises(Exception, match="division by zero"):
                await reading.copied(connection, failing, 1000)
            left = asyncio.all_tasks() - before
            assert not left
            with suppress(Exception):
                await connection.execute("ROLLBACK TO SAVEPOINT reading")


async def test_copy_that_cannot_be_stopped_is_not_read_to_its_end(postgres: PostgresDataStore) -> None:
    endless = "SELECT repeat('x', 100000), generate_series(1, 10000000000)"
    async with postgres._snapshots.reading(None) as reading:
        source = SourceSpec(query="SELECT 1 AS id", key=("id",))
        await reading.thread.call(reading.selected, source)
        with pytest.raises(StoreUnavailableError):
            async with reading.passing(source) as (_, connection):
                reading._connect = _refused
                await reading.copied(connection, endless, 1000)


@pytest.mark.parametrize("in_transaction", [True, False])
async def test_rows_of_a_batch_that_failed_are_not_kept(in_transaction: bool, tmp_path: Path) -> None:
    store = DuckDBDataStore(DuckDBOptions(tmp_path / "data.duckdb"))
    await store.open()
    async with store._session() as (session, thread):
        await thread.call(session.execute, "CREATE TABLE orders (id bigint PRIMARY KEY, note varchar)")

        def ingest() -> None:
            with session.transaction() if in_transaction else nullcontext():
                session.ingest(TABLE, rows(1, 1), COLUMNS)

        with pytest.raises(SchemaMismatchError):
            await thread.call(ingest)
        with pytest.raises(NotFoundError):
            await thread.call(session.execute, "SELECT count(*) FROM _headrace_rows")
    await store.close()


@pytest.mark.parametrize("is_on", ["on", "off"])
def test_deletion_for_a_replacement_leaves_row_security_as_it_was(is_on: str, postgres_database: str) -> None:
    session = PostgresSession(address_of(postgres_database), "headrace")
    session.execute("CREATE TABLE orders (id bigint)")
    with session.transaction():
        session.execute("SELECT set_config('row_security', $1, true)", (is_on,))
        clear(session, TABLE, TABLE)
        assert session.execute("SELECT current_setting('row_security')") == [(is_on,)]
    session.close()
