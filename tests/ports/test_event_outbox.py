"""One suite for IEventOutbox on SQLite and Postgres: each subscriber is told everything, in order, whoever commits when."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from domain.errors import UnavailableError
from domain.events import Origin, RunStarted
from domain.identity.scope import PLATFORM
from domain.ports.records.unit_of_work import IUnitOfWork
from domain.runs.work import WorkKind
from infrastructure.clock import boot_time
from infrastructure.metadata import clocks
from infrastructure.metadata.records import SqlRecords, run_migrations, sqlite_url

LEASE = timedelta(seconds=30)
OVER = timedelta(seconds=-1)
BEFORE = "0004"  # The version before cursors.


@pytest.fixture(params=["sqlite", "postgres"])
async def records(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SqlRecords]:
    if request.param == "sqlite":
        url = sqlite_url(tmp_path / "records.db")
    else:
        url = request.getfixturevalue("postgres_database").replace("postgresql://", "postgresql+asyncpg://")
    async for built in built_at(url):
        yield built


async def built_at(url: str) -> AsyncIterator[SqlRecords]:
    built = SqlRecords(url)
    await built.open()
    async with built.unit(PLATFORM) as unit:
        await unit.identity.ensure_organization("one")
        await unit.commit()
    yield built
    await built.close()


def event(number: int) -> RunStarted:
    return RunStarted(Origin("one", WorkKind.PIPELINE.named("orders"), f"r{number}"), attempt=1, fence=number)


async def stored(records: SqlRecords, *numbers: int) -> None:
    async with records.unit(PLATFORM) as unit:
        await unit.events.add(*(event(number) for number in numbers))
        await unit.commit()


async def seen(unit: IUnitOfWork, subscriber: str, limit: int = 100) -> list[int]:
    return [each.payload["fence"] for each in (await unit.events.untold(subscriber, limit=limit)).events]


async def told(records: SqlRecords, subscriber: str = "telemetry", limit: int = 100) -> list[int]:
    """What a subscriber is told next."""
    async with records.unit(PLATFORM) as unit:
        untold = await unit.events.untold(subscriber, limit=limit)
        if untold.events:
            assert await unit.events.note_told(subscriber, untold.events[-1].id)
        await unit.commit()
    return [each.payload["fence"] for each in untold.events]


@pytest.mark.clause("IEventOutbox", 1)
async def test_each_event_is_told_once_while_many_are_stored_at_a_time(records: SqlRecords) -> None:
    found: list[int] = []

    async def store(first: int) -> None:
        for number in range(first, 12, 4):
            async with records.unit(PLATFORM) as unit:
                await unit.events.add(event(number))
                await asyncio.sleep(0.001 * (number % 3))
                if number % 5:  # The others are rolled back, and leave a gap.
                    await unit.commit()

    writers = asyncio.gather(*(store(first) for first in range(4)))
    while not writers.done():
        found += await told(records)
    await writers
    while more := await told(records):
        found += more

    assert sorted(found) == [number for number in range(12) if number % 5]
    assert await told(records, "followers") == found  # In the same order, whenever each of them was stored.


@pytest.mark.clause("IEventOutbox", 1, 2, 3, 5)
async def test_each_subscriber_is_told_in_order_from_where_it_stands(records: SqlRecords) -> None:
    await stored(records, 3, 1)
    await stored(records, 2)
    async with records.unit(PLATFORM) as unit:
        untold = await unit.events.untold("telemetry", limit=9)
        assert await unit.events.note_told("telemetry", untold.events[-1].id)  # And is not committed.
        assert await seen(unit, "telemetry") == []
    async with records.unit(PLATFORM) as unit:
        await unit.events.untold("followers", limit=9)
        await unit.events.hold("followers", "somebody who is gone", lease=LEASE)
        await unit.commit()

    assert [await told(records, limit=2), await told(records, limit=2)] == [[3, 1], [2]]
    assert await told(records) == []
    async with records.unit(PLATFORM) as unit:
        await unit.events.note_told("followers", untold.events[0].id, holder="somebody who is gone")
        await unit.commit()
    assert [await told(records, "new"), await told(records, "new")] == [[1, 2], []]
    assert await told(records, "followers") == [1, 2]


@pytest.mark.clause("IEventOutbox", 4)
async def test_subscriber_is_told_by_one_at_a_time(records: SqlRecords) -> None:
    await stored(records, 1)
    async with records.unit(PLATFORM) as unit:
        last = (await unit.events.untold("telemetry", limit=9)).events[-1].id
        await unit.events.hold("telemetry", "me", lease=LEASE)
        await unit.commit()
    async with records.unit(PLATFORM) as unit:
        assert (await unit.events.untold("telemetry", limit=9)).holder == "me"
        assert not await unit.events.note_told("telemetry", last, holder="other")
        assert not await unit.events.note_told("telemetry", last)
        await unit.events.hold("telemetry", "me", lease=OVER)
        await unit.commit()
    async with records.unit(PLATFORM) as unit:
        assert (await unit.events.untold("telemetry", limit=9)).holder is None  # It has been too long.
        assert await unit.events.note_told("telemetry", last, holder="me")
        await unit.commit()
    async with records.unit(PLATFORM) as unit:
        assert (await unit.events.untold("telemetry", limit=9)).holder is None
        assert not await unit.events.note_told("telemetry", last - 1)  # What was told stays told.
        asking = asyncio.create_task(told(records))
        await asyncio.sleep(0.05)
        assert not asking.done()  # Who asks what to tell waits while another may be telling.
    assert await asking == []


@pytest.mark.clause("IEventOutbox", 4)
async def test_hold_ends_when_the_host_starts_again_and_counts_its_time_from_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async for records in built_at(sqlite_url(tmp_path / "records.db")):
        await stored(records, 1)
        async with records.unit(PLATFORM) as unit:
            await unit.events.untold("telemetry", limit=9)
            await unit.events.hold("telemetry", "the host went down", lease=LEASE)
            await unit.commit()
        since_boot = boot_time()
        for seconds, holder in ((since_boot, "the host went down"), (since_boot - 1_000, None)):
            monkeypatch.setattr(clocks, "boot_time", partial(float, seconds))
            async with records.unit(PLATFORM) as unit:
                assert (await unit.events.untold("telemetry", limit=9)).holder == holder


@pytest.fixture
async def on_postgres(postgres_database: str) -> AsyncIterator[SqlRecords]:
    """Each of its units is a session of its own."""
    async for built in built_at(postgres_database.replace("postgresql://", "postgresql+asyncpg://")):
        yield built


async def test_event_whose_transaction_commits_later_is_told_in_its_turn(on_postgres: SqlRecords) -> None:
    """A cursor that went past what it saw would lose it."""
    await stored(on_postgres, 1)
    async with on_postgres.unit(PLATFORM) as slow, on_postgres.unit(PLATFORM) as other:
        await slow.events.add(event(2))
        await stored(on_postgres, 3)
        assert await told(on_postgres) == [1]
        for _ in range(3):  # Two look at once, so that neither knows what the other has seen.
            assert await asyncio.gather(told(on_postgres), told(on_postgres, "followers")) in ([[], [1]], [[], []])
        async with on_postgres.unit(PLATFORM) as unit:
            untold = await unit.events.untold("telemetry", limit=9)
        assert (untold.events, untold.is_waiting) == ([], True)
        await other.events.add(event(4))  # Who begins meanwhile is not waited for, or one might wait for ever.
        await slow.commit()
        assert await told(on_postgres) == [2, 3]
    async with on_postgres.unit(PLATFORM) as slow:
        await slow.events.add(event(5))
        await stored(on_postgres, 6)
        assert await told(on_postgres) == []  # 4 was rolled back, 5 may still come.
        await slow.commit()

    assert await told(on_postgres) == [5, 6]
    assert await told(on_postgres, "followers") == [2, 3, 5, 6]


async def test_event_that_was_never_committed_holds_nobody_up(on_postgres: SqlRecords) -> None:
    async with on_postgres.unit(PLATFORM) as gone:
        await gone.events.add(event(1))
    await stored(on_postgres, 2)
    assert await told(on_postgres) == [2]
    with pytest.raises(UnavailableError):
        async with on_postgres.unit(PLATFORM) as lost:
            await lost.events.add(event(3))
            await stored(on_postgres, 4)
            assert await told(on_postgres) == []
            driver = (await lost._connection.get_raw_connection()).driver_connection  # type: ignore[attr-defined]
            driver.terminate()
    async with asyncio.timeout(5):
        while not (found := await told(on_postgres)):
            await asyncio.sleep(0.01)

    assert found == [4]
    assert on_postgres._opened().pool.checkedout() == 0  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_records_of_the_version_before_tell_what_was_not_told_and_nothing_twice(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = sqlite_url(tmp_path / "records.db")
    if kind == "postgres":
        url = request.getfixturevalue("postgres_database").replace("postgresql://", "postgresql+asyncpg://")
    records = SqlRecords(url, upgrade_on_open=False)
    with pytest.raises(UnavailableError):
        await records.open()
    insert = (
        "INSERT INTO events (org_id, event_type, run_id, payload, created_at, sent_at) VALUES ('one', "
        '\'pipeline.started\', \'r\', \'{{"organization": "one", "pipeline": "orders", "run_id": "r", '
        '"attempt": 1, "fence": {0}}}\', \'2026-11-22 00:00:0{0}\', {1})'
    )
    async with records._opened().begin() as connection:
        if kind == "postgres":
            await connection.exec_driver_sql("CREATE SCHEMA headrace")
        await connection.run_sync(lambda sync: run_migrations(sync, BEFORE))
        await connection.exec_driver_sql("INSERT INTO organizations (id, created_at) VALUES ('one', '2026-11-22')")
        for number in range(1, 6):  # Two processes told: what one of them had when it died was left behind.
            await connection.exec_driver_sql(insert.format(number, "NULL" if number in (2, 4) else "'2026-11-22'"))
    if kind == "sqlite":
        await records.upgrade()
    else:
        async with records._opened().begin() as connection:  # A process of that version is storing an event.
            await connection.exec_driver_sql(insert.format(6, "NULL"))
            upgrading = asyncio.create_task(records.upgrade())
            await asyncio.sleep(0.3)
        await upgrading

    untold = [2, 4] if kind == "sqlite" else [2, 4, 6]
    for subscriber in ("followers", "telemetry"):
        assert [await told(records, subscriber), await told(records, subscriber)] == [untold, []]
    async with records.unit(PLATFORM) as unit:
        kept = await unit.events.of_run("one", "r", newest=99)
        fields = {"organization", "subject", "run_id", "attempt", "fence"}
        assert all(set(each.payload) == fields for each in kept)
        assert kept[0].payload["subject"] == {"kind": "pipeline", "name": "orders"} == event(1).payload()["subject"]
    assert sorted(each.created_at.second for each in kept) == list(range(1, 6 if kind == "sqlite" else 7))
    await records.close()
