"""A run that waits for itself by way of somebody else: what it writes is kept from it by a session that waits for what
it reads.

The server sees no deadlock in that, as the reading session waits for the writing one within this process: both, and
whoever comes for the table, would wait until the run's time is over.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from domain.errors import PlatformError, StoreUnavailableError
from domain.stores.table import TableName
from infrastructure.stores.postgres.connection import Readers
from infrastructure.stores.postgres.session import PostgresSession
from infrastructure.threads import OneThread

T = TypeVar("T")
Sessions = Callable[[str], AbstractAsyncContextManager[tuple[PostgresSession, OneThread]]]

_Found = tuple[Any, ...]
_LOOK_EVERY_SECONDS = 1.5
# Whom a session waits for is dear to ask, so of those alone that wait for a lock.
_CIRCLE = """
WITH RECURSIVE waiting(pid, behind) AS (
  SELECT a.pid, NULL::int FROM pg_stat_activity a
  WHERE a.application_name = $1 AND a.datname = current_database() AND a.wait_event_type = 'Lock'
  UNION SELECT b.pid, w.pid FROM waiting w CROSS JOIN LATERAL unnest(pg_blocking_pids(w.pid)) AS b(pid))
SELECT o.pid, o.usename::text, o.application_name FROM waiting w JOIN pg_stat_activity r ON r.pid = w.pid
JOIN pg_stat_activity o ON o.pid = w.behind WHERE r.application_name = $2 LIMIT 1"""


class Circles:
    """Looks, while a run's writer takes its time, whether it waits for the run itself. One look at a time, as each
    takes a session.
    """

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._one_at_a_time = asyncio.Lock()

    async def broken(self, writing: Coroutine[Any, Any, T], writer: str, readers: Readers, table: TableName) -> T:
        """Let a writer, known by its session's name, do something; it is given up when two looks show that it waits for
        the run's readers.

        Raises:
            StoreUnavailableError: it did (`store.locked`).
        """
        task, before = asyncio.ensure_future(writing), None
        try:
            while not (await asyncio.wait({task}, timeout=_LOOK_EVERY_SECONDS))[0]:
                found = await self._seen_meanwhile(task, writer, readers)
                if before is not None and found is not None:
                    await _given_up(task)
                    if not task.cancelled() and task.exception() is None:
                        break  # It had come to its end all the same.
                    raise _waits_for_itself(found, writer, table)
                before = found
        except BaseException:
            await _given_up(task)
            raise
        return task.result()

    async def _seen_meanwhile(self, task: "asyncio.Future[Any]", writer: str, readers: Readers) -> _Found | None:
        """Look, but for no longer than the writer is at work: a look may take long where connecting does."""
        looking = asyncio.create_task(self._look(writer, readers))
        try:
            await asyncio.wait({task, looking}, return_when=asyncio.FIRST_COMPLETED)
            return looking.result() if looking.done() else None
        finally:
            await _given_up(looking)

    async def _look(self, writer: str, readers: Readers) -> _Found | None:
        """Who keeps the writer waiting and waits for the readers, if anybody does."""
        try:
            async with self._one_at_a_time, self._sessions("headrace") as (session, thread):
                rows = await thread.call(session.execute, _CIRCLE, (writer, readers.name))
        except PlatformError:
            return None  # It may be that there are no more sessions; the next look may have one.
        return rows[0] if rows else None


@dataclass(frozen=True)
class Watched:
    """Commits of a writer, which is known by its session's name."""

    circles: Circles
    writer: str
    readers: Readers
    table: TableName

    async def __call__(self, writing: Coroutine[Any, Any, T], /) -> T:
        """Let it do something.

        Raises:
            StoreUnavailableError: it waited for the run itself (`store.locked`).
        """
        return await self.circles.broken(writing, self.writer, self.readers, self.table)


async def _given_up(task: "asyncio.Future[Any]") -> None:
    task.cancel()
    while not task.done():
        with suppress(asyncio.CancelledError):  # To be told twice changes nothing for what is waited for.
            await asyncio.wait({task})
    if not task.cancelled():
        task.exception()  # It was told.


def _waits_for_itself(found: _Found, writer: str, table: TableName) -> StoreUnavailableError:
    pid, user, name = found
    if name == writer:
        who = f"What a trigger or a constraint of {table} does needs a lock on what this run reads"
    else:
        who = (
            f"Session {pid} of {user} ({name or 'without a name'}) wants a lock on what this run reads, and holds up "
            f"{table}, which it writes"
        )
    return StoreUnavailableError(f"{who}: the run has let go of both.", code="store.locked")
