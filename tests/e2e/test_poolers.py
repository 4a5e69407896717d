"""A pooler between Headrace and Postgres: sessions of one's own work as without it, shared ones are refused by name."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest

from domain.errors import StoreRefusedError
from infrastructure.metadata.records import SqlRecords
from infrastructure.stores.postgres.store import PostgresDataStore
from tests.databases import new_database
from tests.e2e.inside import inside
from tests.e2e.projects import postgres_connection, postgres_environment
from tests.ports.backends import address_of
from tests.servers import PgBouncer
from tests.somebody import Somebody


def through(url: str, mode: str) -> Iterator[str]:
    if PgBouncer.binary() is None:
        pytest.skip("pgbouncer is not installed: make system brings it")
    parts = urlsplit(url)
    pooler = PgBouncer(parts.port or 5432, mode=mode)
    pooler.start()
    yield urlunsplit(parts._replace(netloc=f"postgres@127.0.0.1:{pooler.port}"))
    pooler.stop()


@pytest.fixture(params=["transaction", "statement"])
def shared(request: pytest.FixtureRequest, postgres_database: str) -> Iterator[str]:
    """The test's database, behind a pooler that shares sessions."""
    yield from through(postgres_database, request.param)


@pytest.fixture
def own(postgres_database: str) -> Iterator[str]:
    """The test's database, behind a pooler that gives each client a session."""
    yield from through(postgres_database, "session")


async def test_shared_sessions_are_refused_by_name_on_every_driver(shared: str) -> None:
    store = PostgresDataStore(address_of(shared))
    with pytest.raises(StoreRefusedError) as of_store:
        await store.open()
    await store.close()
    assert of_store.value.code == "store.pooled"
    assert "pool_mode = session" in of_store.value.message

    records = SqlRecords(shared.replace("postgresql://", "postgresql+asyncpg://"))
    with pytest.raises(StoreRefusedError) as of_records:
        await records.open()
    await records.close()
    assert of_records.value.code == "records.pooled"


@pytest.mark.invariant("D1")
async def test_sessions_of_ones_own_carry_records_and_rows_on_every_way(
    project: Path, own: str, postgres_server_url: str, somebody: Somebody
) -> None:
    somebody.does(
        "CREATE TABLE a (id int PRIMARY KEY, note text); INSERT INTO a SELECT g, 'n' FROM generate_series(1, 50) g"
    )
    with new_database(postgres_server_url) as records:
        beside = urlunsplit(urlsplit(own)._replace(path=urlsplit(records).path))
        await all_ways(project, own, {**postgres_environment(beside), "HEADRACE_METADATA__KIND": "postgres"})
    assert somebody.does("SELECT (SELECT count(*) FROM t0), (SELECT count(*) FROM t1)") == [(100, 50)]


async def all_ways(project: Path, own: str, settings: dict[str, str]) -> None:
    async with inside(project, **settings) as headrace:
        for name in ("shop", "warehouse"):
            await headrace.put(postgres_connection(own, name))
        ways = {"pass-through": "", "arrow": ", mode: merge, key: [id]"}
        for number, (way, more) in enumerate(ways.items()):
            await headrace.pipeline(
                f"p{number}", "connection: shop, table: a", f"connection: warehouse, table: t{number}{more}",
                "run: {batch_rows: 20}\n",
            )  # fmt: skip
            for _ in range(2):
                report = await headrace.report(f"p{number}")
            assert report["way"] == way, report["way_because"]
