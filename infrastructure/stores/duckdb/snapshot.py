"""Snapshots of a DuckDB file that streams share: cursors whose transactions began while nobody could commit."""

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

import duckdb

from domain.errors import StoreUnavailableError
from infrastructure.stores.duckdb.session import DuckDBSession
from infrastructure.threads import OneThread

Lent = tuple[duckdb.DuckDBPyConnection, OneThread]


class SharedCursors:
    """Holds as many reading cursors for each snapshot as streams are read at a time, since none can join later."""

    def __init__(
        self,
        cursor: Callable[[], AbstractAsyncContextManager[Lent]],
        session: Callable[[], AbstractAsyncContextManager[tuple[DuckDBSession, OneThread]]],
    ) -> None:
        self._cursor = cursor
        self._session = session
        self._idle: dict[str, list[Lent]] = {}
        self._names = itertools.count(1)

    @asynccontextmanager
    async def hold(self, readers: int) -> AsyncIterator[str]:
        """Begin so many transactions at one moment and keep them while the block lasts."""
        async with AsyncExitStack() as stack:
            async with self._session() as (session, writing):
                await writing.call(session.begin)  # It has the file's write lock.
                idle = [await stack.enter_async_context(self._cursor()) for _ in range(readers)]
                for cursor, thread in idle:
                    # A transaction begins at its first look at the file.
                    await thread.call(_execute, cursor, "SELECT count(*) FROM duckdb_tables()")
            name = f"cursors-{next(self._names)}"
            self._idle[name] = idle
            try:
                yield name
            finally:
                del self._idle[name]

    @asynccontextmanager
    async def reading(self, name: str | None) -> AsyncIterator[Lent]:
        """Lend a cursor of a snapshot, or one with a transaction of its own.

        Raises:
            StoreUnavailableError: the snapshot has no cursor left (`snapshot.gone`).
        """
        if name is None:
            async with self._cursor() as own:
                yield own
            return
        idle = self._idle.get(name)
        if not idle:
            raise StoreUnavailableError("The snapshot that the streams shared is gone.", code="snapshot.gone")
        cursor, thread = idle.pop()
        yield cursor, thread  # After an error it is not used again.
        if not thread.is_abandoned:
            idle.append((cursor, thread))


def _execute(cursor: duckdb.DuckDBPyConnection, sql: str) -> Any:
    return cursor.execute(sql).fetchall()
