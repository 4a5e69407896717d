"""A function of a source that catches every wish to stop: its session is ended, so that neither it nor whoever asked
stays.
"""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from domain.errors import PlatformError
from infrastructure.stores.postgres.session import PostgresSession
from tests.databases import postgres
from tests.ports.test_ends_of_waiting import address_of

pytestmark = pytest.mark.line("11")
STUBBORN = (
    "CREATE FUNCTION stubborn() RETURNS text LANGUAGE plpgsql AS $$ BEGIN LOOP "
    "BEGIN PERFORM pg_sleep(600); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; END $$"
)
WORKING = "FROM pg_stat_activity WHERE query LIKE '%stubborn()%' AND state = 'active' AND pid <> pg_backend_pid()"


def begun(pool: ThreadPoolExecutor, session: PostgresSession, url: str) -> Future[Any]:
    asked = pool.submit(session.execute, "SELECT stubborn()")
    until = time.monotonic() + 10
    while postgres(url, f"SELECT count(*) {WORKING}") == [(0,)] and time.monotonic() < until:
        time.sleep(0.01)
    return asked


@pytest.mark.parametrize("is_writing", [False, True])
def test_a_read_that_does_not_stop_is_ended_and_a_session_that_writes_is_left_to_its_commit(
    postgres_database: str, is_writing: bool
) -> None:
    postgres(postgres_database, STUBBORN)
    session = PostgresSession(address_of(postgres_database), "headrace")
    session.begin() if is_writing else session.execute("BEGIN READ ONLY")

    with ThreadPoolExecutor(1) as pool:
        asked = begun(pool, session, postgres_database)
        for _ in range(2):
            session.interrupt()
        assert not asked.done()
        for _ in range(2):
            session.interrupt()
        if is_writing:
            assert not asked.done()
            assert postgres(postgres_database, f"SELECT pg_terminate_backend(pid) {WORKING}") == [(True,)]
        with pytest.raises(PlatformError):
            asked.result(timeout=10)

    session.close()
    assert postgres(postgres_database, f"SELECT count(*) {WORKING}") == [(0,)]


def test_a_read_that_stops_when_it_is_asked_keeps_its_session(postgres_database: str) -> None:
    session = PostgresSession(address_of(postgres_database), "headrace")
    session.execute("BEGIN READ ONLY")
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(session.execute, "SELECT pg_sleep(600)")
        time.sleep(0.2)
        session.interrupt()
        with pytest.raises(PlatformError):
            asked.result(timeout=10)

    session.end()
    assert session.execute("SELECT 1") == [(1,)]
    session.close()
