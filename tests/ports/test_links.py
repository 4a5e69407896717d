"""Connections for rows that pass undecoded are used again, clean, and never after an error."""

from collections.abc import AsyncIterator

import pytest

from domain.errors import PlatformError
from infrastructure.stores.postgres.links import LinkPool
from infrastructure.stores.postgres.pool import SessionPool
from infrastructure.stores.postgres.session import PostgresSession
from tests.databases import postgres
from tests.ports.backends import address_of

_LINKS = (
    "SELECT pid, application_name FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
    "AND application_name LIKE 'headrace%' ORDER BY 1"
)


@pytest.fixture
async def links(postgres_database: str) -> AsyncIterator[LinkPool]:
    pool = LinkPool(address_of(postgres_database))
    yield pool
    await pool.close()


async def test_connection_is_lent_again_as_if_it_were_new(links: LinkPool, postgres_database: str) -> None:
    postgres(postgres_database, "CREATE TABLE shape (a int)")
    async with links.link("headrace:lane") as connection:
        pid = connection.get_server_pid()
        assert postgres(postgres_database, _LINKS) == [(pid, "headrace:lane")]
        await connection.execute("CREATE TEMP TABLE left_behind (a int)")
        await connection.execute("SET TimeZone = 'Asia/Tokyo'")
        await connection.execute("SET search_path = pg_temp")
        await connection.execute("SELECT pg_advisory_lock(7)")
        await connection.execute("BEGIN")
        assert len(await connection.fetch("SELECT * FROM public.shape")) == 0
    # Whoever looks for a predecessor by its name does not find what nobody uses.
    assert postgres(postgres_database, _LINKS) == [(pid, "headrace")]
    assert postgres(postgres_database, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 7") == [
        (0,)
    ]
    postgres(postgres_database, "ALTER TABLE shape ADD COLUMN b int")
    postgres(postgres_database, "INSERT INTO shape VALUES (1, 2)")

    async with links.link("headrace:other") as connection:
        assert connection.get_server_pid() == pid
        assert not connection.is_in_transaction()
        assert await connection.fetchval("SELECT to_regclass('left_behind')") is None
        assert await connection.fetchval("SELECT current_setting('TimeZone')") == "UTC"
        assert [tuple(row) for row in await connection.fetch("SELECT * FROM shape")] == [(1, 2)]
        async with links.link("headrace:third") as another:  # Each has one of its own.
            assert another.get_server_pid() != pid


async def test_connection_is_not_lent_after_an_error(links: LinkPool, postgres_database: str) -> None:
    with pytest.raises(PlatformError):
        async with links.link("headrace:lane") as connection:
            pid = connection.get_server_pid()
            await connection.execute("SELECT 1 / 0")

    async with links.link("headrace:lane") as connection:
        assert connection.get_server_pid() != pid


async def test_connection_that_broke_while_nobody_used_it_is_replaced(links: LinkPool, postgres_database: str) -> None:
    async with links.link("headrace:lane") as connection:
        pid = connection.get_server_pid()
    postgres(postgres_database, f"SELECT pg_terminate_backend({pid}, 5000)")

    async with links.link("headrace:lane") as connection:
        assert connection.get_server_pid() != pid


async def test_closed_pool_leaves_no_connection(links: LinkPool, postgres_database: str) -> None:
    async with links.link("headrace:lane"):
        await links.close()
    async with links.link("headrace:lane"):
        pass
    await links.close()

    gone = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'headrace%' AND datname = current_database()"
    )
    for _ in range(100):
        if postgres(postgres_database, gone) == [(0,)]:
            return
    raise AssertionError("a connection was left open")


async def test_pool_rolls_back_only_what_was_begun(links: LinkPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """For each ROLLBACK without a transaction the server writes a warning into its log."""
    warned: list[str] = []
    async with links.link("headrace") as connection:
        connection.add_log_listener(lambda _, message: warned.append(message.message))
    async with links.link("headrace") as connection:
        await connection.execute("BEGIN")
    async with links.link("headrace") as connection:
        assert not connection.is_in_transaction()
    assert warned == []


async def test_session_rolls_back_only_what_was_begun(postgres_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    execute = PostgresSession.execute
    monkeypatch.setattr(
        PostgresSession, "execute", lambda self, sql, *given: (said.append(sql), execute(self, sql, *given))[1]
    )
    pool = SessionPool(address_of(postgres_database))
    async with pool.session("headrace") as (session, thread):
        await thread.call(session.execute, "SELECT 1")
        await thread.call(session.rollback)
    assert "ROLLBACK" not in said
    async with pool.session("headrace") as (session, thread):
        await thread.call(session.begin)
    async with pool.session("headrace") as (session, thread):
        moments = [await thread.call(session.execute, "SELECT now()") for _ in range(2)]
        assert moments[0] != moments[1]  # Of one transaction they were the same.
    await pool.close()

    assert said.count("ROLLBACK") == 1
