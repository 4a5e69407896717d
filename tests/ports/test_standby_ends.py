"""Where reads of a standby end: below what its primary may still commit, as far as a standby can know, and
it says so.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from domain.errors import InvalidInputError
from domain.pipelines.spec import CursorSpec
from infrastructure.stores import cursor_ends
from infrastructure.stores.postgres.store import PostgresDataStore
from tests.ports.backends import address_of
from tests.ports.cursor_reading import Reading, all_go_on
from tests.servers import PostgresServer, StandbyServer
from tests.somebody import somebody_in

CURSORS = {
    "moments": ("timestamptz", "clock_timestamp()"),
    "walls": ("timestamp", "clock_timestamp() AT TIME ZONE 'America/Lima'"),
    "numbers": ("bigint", "nextval('numbers_at_seq')"),
}


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[PostgresServer, StandbyServer]]:
    """A primary and a standby that is a moment behind."""
    primary = PostgresServer()
    standby = StandbyServer(primary, delay_seconds=0.3)
    try:
        primary.start()
        standby.start()
        yield primary, standby
    finally:
        standby.stop()
        primary.stop()


@pytest.fixture
async def standby(pair: tuple[PostgresServer, StandbyServer]) -> AsyncIterator[PostgresDataStore]:
    store = PostgresDataStore(address_of(f"{pair[1].url}/postgres"))
    await store.open()
    yield store
    await store.close()


async def sees(pair: tuple[PostgresServer, StandbyServer], query: str, wanted: list[tuple[Any, ...]]) -> None:
    """Come back once the standby shows something."""
    with somebody_in(f"{pair[1].url}/postgres") as looker:
        async with asyncio.timeout(30):
            while looker.does(query) != wanted:
                await asyncio.sleep(0.02)


def inserted(key: int) -> str:
    return ";".join(f"INSERT INTO {name} (id) VALUES ({key})" for name in CURSORS)


@pytest.mark.clause("IDataStore", 30)
async def test_rows_that_a_standby_applies_late_are_read_once(
    pair: tuple[PostgresServer, StandbyServer], standby: PostgresDataStore
) -> None:
    with somebody_in(f"{pair[0].url}/postgres") as somebody, somebody_in(f"{pair[0].url}/postgres") as late:
        somebody.does("CREATE SEQUENCE numbers_at_seq")
        for name, (kind, default) in CURSORS.items():
            somebody.does(f"CREATE TABLE {name} (id int PRIMARY KEY, at {kind} NOT NULL DEFAULT ({default}))")
        somebody.does(inserted(1))
        await sees(pair, "SELECT count(*) FROM pg_class WHERE relname = 'numbers'", [(1,)])
        await sees(pair, "SELECT count(*) FROM numbers", [(1,)])
        readings = [Reading(standby, name, CursorSpec("at")) for name in CURSORS]
        await all_go_on(readings)
        assert [reading.ids for reading in readings] == [[1]] * 3

        late.does(f"BEGIN; {inserted(2)}")
        somebody.does(inserted(3))
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(cursor_ends, "WAIT_SECONDS", 0.2)
            await all_go_on(readings)  # Neither is there yet.
            await sees(pair, "SELECT count(*) FROM numbers", [(2,)])
            await all_go_on(readings)
        assert [reading.ids for reading in readings] == [[1]] * 3
        assert all("on the primary" in reading.end.held_back[0] for reading in readings)
        late.does("COMMIT")
        somebody.does(inserted(4))
        await sees(pair, "SELECT count(*) FROM numbers", [(4,)])
    await all_go_on(readings)

    assert [sorted(reading.ids) for reading in readings] == [[1, 2, 3, 4]] * 3
    assert all("read the primary" in reading.end.unknown[0] for reading in readings)
    with pytest.raises(InvalidInputError) as refused:
        await Reading(standby, "moments", CursorSpec("at", is_strict=True)).goes_on()
    assert refused.value.code == "cursor.unknown"


@pytest.mark.clause("IDataStore", 30)
async def test_rows_that_wait_for_a_standbys_clock_are_told_and_read_once_it_has_moved_on(
    pair: tuple[PostgresServer, StandbyServer], standby: PostgresDataStore
) -> None:
    with somebody_in(f"{pair[0].url}/postgres") as somebody:
        somebody.does(
            "CREATE TABLE seconds (id int PRIMARY KEY, at timestamptz(0) NOT NULL "
            "DEFAULT date_trunc('second', clock_timestamp()))"
        )
        somebody.does(
            "INSERT INTO seconds (id) VALUES (1)"
        )  # Nothing is written after it, so the standby's clock stands.
        await sees(pair, "SELECT count(*) FROM pg_class WHERE relname = 'seconds'", [(1,)])
        await sees(pair, "SELECT count(*) FROM seconds", [(1,)])
        reading = Reading(standby, "seconds", CursorSpec("at"))
        await reading.goes_on()
        assert reading.ids == []
        assert "are not read yet: the standby has replayed nothing" in " ".join(reading.end.sentences)

        await asyncio.sleep(1.1)
        somebody.does("INSERT INTO seconds (id) VALUES (2)")
        await sees(pair, "SELECT count(*) FROM seconds", [(2,)])
        await reading.goes_on()

    assert reading.ids == [1]


@pytest.mark.clause("IDataStore", 30)
async def test_rows_above_a_sequence_wait_for_it_on_a_standby(
    pair: tuple[PostgresServer, StandbyServer], standby: PostgresDataStore
) -> None:
    """A standby knows of up to 32 numbers more than its primary has given."""
    with somebody_in(f"{pair[0].url}/postgres") as somebody:
        somebody.does("CREATE TABLE counted (id bigserial PRIMARY KEY, note text)")
        somebody.does("INSERT INTO counted (note) SELECT 'one' FROM generate_series(1, 3)")
        somebody.does("INSERT INTO counted VALUES (1000)")
        await sees(pair, "SELECT count(*) FROM pg_class WHERE relname = 'counted'", [(1,)])
        await sees(pair, "SELECT count(*) FROM counted", [(4,)])
        reading = Reading(standby, "counted", CursorSpec("id"))
        assert await reading.goes_on() == [1, 2, 3]
        assert reading.watermark == "4"
        assert "up to 1000, above" in reading.end.held_back[0]

        somebody.does("INSERT INTO counted (note) SELECT 'two' FROM generate_series(1, 3)")
        await sees(pair, "SELECT count(*) FROM counted", [(7,)])
        assert await reading.goes_on() == [4, 5, 6]
