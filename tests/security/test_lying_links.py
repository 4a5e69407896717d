"""Servers that lie to the connections on which rows pass undecoded, and to those of the records: the loop gathers
little and waits for nobody.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import asyncpg
import pytest

from domain.errors import PlatformError
from infrastructure.postgres.sign_in import SignIn, signed_in
from infrastructure.stores.postgres import connection
from infrastructure.stores.postgres.connection import PostgresAddress
from infrastructure.stores.postgres.links import LinkPool
from tests.security.lying_postgres import LyingPostgres
from tests.security.test_lying_postgres import address_of, small

pytestmark = pytest.mark.line("11")
BROKEN = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


@contextmanager
def lying(mode: str, at: bytes, database: str | None = None) -> Iterator[PostgresAddress]:
    server = LyingPostgres(mode, at, urlsplit(database).port if database else None)
    yield address_of(server.port, urlsplit(database).path[1:] if database else "d")
    server.close()


async def ticks(worst: list[float]) -> None:
    while True:
        before = time.monotonic()
        await asyncio.sleep(0.01)
        worst.append(time.monotonic() - before)


@pytest.mark.parametrize("mode", ["error", "setting", "settings", "notices"])
async def test_what_comes_before_a_session_begins_is_little(mode: str) -> None:
    with lying(mode, b"sign-in") as address, small(100):
        target = SignIn(address.host, address.port, "d", "u", sslmode="disable")
        begun = time.monotonic()
        with pytest.raises(BROKEN):
            await signed_in(target, timeout=5, application_name="x")
        assert time.monotonic() - begun < 3


@pytest.mark.parametrize("mode", ["error", "settings", "notifications"])
async def test_what_a_link_is_answered_is_bounded(postgres_database: str, mode: str) -> None:
    worst = list[float]()
    ticking = asyncio.create_task(ticks(worst))
    with lying(mode, b"SELECT 7", postgres_database) as address, small(150):
        pool = LinkPool(address)
        with pytest.raises(PlatformError) as caught:
            async with pool.link("x") as link:
                assert await link.fetch("SELECT repeat('x', 10000000)")
                await link.fetch("SELECT 7")
        await pool.close()
    ticking.cancel()

    assert caught.value.code == "store.answer_too_large"
    assert max(worst) < 1


async def test_what_comes_unasked_breaks_an_idle_link_off(postgres_database: str) -> None:
    server = LyingPostgres("notice", b"\0never\0", urlsplit(postgres_database).port)
    pool = LinkPool(address_of(server.port, urlsplit(postgres_database).path[1:]))
    with small(100):
        async with pool.link("x") as link:
            assert await link.fetch("SELECT 1")
        server.begin()
        async with asyncio.timeout(5):
            while not link.is_closed():
                await asyncio.sleep(0.02)
        async with pool.link("y") as another:
            assert await another.fetch("SELECT 1")
        await pool.close()
    server.close()


async def test_a_silent_server_keeps_nobody_who_takes_a_link(
    postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_PROMPT_SECONDS", 0)
    with lying("silent", b"set_config('application_name'", postgres_database) as address:
        pool = LinkPool(address)
        begun = time.monotonic()
        with pytest.raises(PlatformError) as caught:
            async with pool.link("x"):
                pass
        await pool.close()

    assert caught.value.code == "store.unavailable"
    assert "no answer within 1 s" in caught.value.message
    assert time.monotonic() - begun < 3
