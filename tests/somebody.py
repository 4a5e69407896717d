"""A session of somebody else in the test's own Postgres database."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from adbc_driver_postgresql import dbapi


class Somebody:
    """Runs statements one by one, outside of any transaction unless they begin one."""

    def __init__(self, cursor: dbapi.Cursor) -> None:
        self._cursor = cursor

    def does(self, script: str) -> list[tuple[Any, ...]]:
        """Run statements that semicolons part, and return the rows of the last."""
        for statement in script.split(";"):
            if statement.strip():
                self._cursor.execute(statement)
        return list(self._cursor.fetchall()) if self._cursor.description else []

    async def sees_it_wait(self) -> None:
        """Come back once a session of this database waits for a lock."""
        waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        async with asyncio.timeout(20):
            while not self.does(waiting):
                await asyncio.sleep(0.01)


@contextmanager
def somebody_in(url: str) -> Iterator[Somebody]:
    """Connect."""
    with dbapi.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
        yield Somebody(cursor)
