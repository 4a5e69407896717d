"""What cannot be written is told by /ready's parts, although it can be read."""

from pathlib import Path

import pytest

from domain.errors import UnavailableError
from domain.identity.scope import PLATFORM
from domain.ports.records.unit_of_work import IRecords
from infrastructure.metadata.records import SqlRecords, sqlite_url
from infrastructure.stores.duckdb.file import DuckDBOptions
from infrastructure.stores.duckdb.store import DuckDBDataStore
from tests.faults import oracle

_FULL = "The disk of the platform's records is full."


async def write_to(records: IRecords) -> None:
    async with records.unit(PLATFORM) as unit:
        await unit.identity.ensure_organization("one")
        await unit.commit()


@pytest.mark.invariant("X4")
async def test_disk_without_room_is_told_and_so_is_its_end(small_disk: Path) -> None:
    records, store = (
        SqlRecords(sqlite_url(small_disk / "records.db")),
        DuckDBDataStore(DuckDBOptions(small_disk / "data.duckdb")),
    )
    await records.open()
    await store.open()
    try:
        assert (await records.health_check(), (await store.health_check()).is_healthy) == (None, True)

        with (small_disk / "ballast").open("wb", buffering=0) as ballast, pytest.raises(OSError, match="No space"):
            while True:
                ballast.write(b"x" * 65_536)

        found = await store.health_check()
        assert (await records.health_check(), found.step, found.is_healthy) == (_FULL, "write", False)
        (small_disk / "ballast").unlink()
        assert (await records.health_check(), (await store.health_check()).is_healthy) == (None, True)
        await write_to(records)
    finally:
        await store.close()
        await records.close()


@pytest.mark.invariant("X4")
@pytest.mark.parametrize(
    ("sqlstate", "told"),
    [
        ("53100", _FULL),
        ("25006", "The database of the platform's records takes no writes: it is a standby, or read-only."),
    ],
)
async def test_records_that_refuse_a_write_are_not_ready_until_one_lands(
    sqlstate: str, told: str, postgres_database: str
) -> None:
    """Only a write tells: the server's disk is not ours to look at."""
    records = SqlRecords(postgres_database.replace("postgresql://", "postgresql+asyncpg://"))
    await records.open()
    psql = oracle.postgres_query(postgres_database)
    psql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION 'as asked for' USING ERRCODE = '{sqlstate}'; END $$"
    )
    try:
        await write_to(records)
        for table in ("organizations", "workers"):
            psql(f"CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON headrace.{table} EXECUTE FUNCTION public.refuse()")
        assert await records.health_check() is None

        with pytest.raises(UnavailableError):
            async with records.unit(PLATFORM) as unit:
                await unit.identity.ensure_organization("two")
                await unit.commit()
        assert [await records.health_check(), await records.health_check()] == [told, told]

        psql("DROP FUNCTION refuse() CASCADE")
        assert await records.health_check() is None
        await write_to(records)
    finally:
        await records.close()
