"""The connections of one Postgres store, kept for a while after use: opening one costs more than a small run."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from domain.errors import PlatformError, StoreRefusedError, StoreUnavailableError
from infrastructure.clock import monotonic
from infrastructure.postgres.poolers import ADVICE, ASK, Backend, share_sessions
from infrastructure.queries.postgres_query import PostgresQueries
from infrastructure.stores.postgres.connection import PostgresAddress
from infrastructure.stores.postgres.session import PostgresSession
from infrastructure.threads import OneThread

MAX_IDLE = 8
# The driver learns the server's types when it connects, so a connection does not grow old.
_KEPT_SECONDS = 30.0


Lent = tuple[PostgresSession, OneThread]


@dataclass
class _Pooled:
    session: PostgresSession
    thread: OneThread
    connected_at: float

    async def close(self) -> None:
        if self.thread.is_abandoned:
            self.thread.leave(self.session.close)  # Whenever it finds that the server was hung up on.
        else:
            await self.thread.call(self.session.close)
        self.thread.close()


async def refuse_pooler(address: PostgresAddress, first: Lent, second: Lent) -> None:
    """Refuse a pooler that has no session for each of us.

    Raises:
        StoreRefusedError: there is one (`store.pooled`).
        StoreUnavailableError: it gives no answer in the time that connecting may take.
    """

    def asks(lent: Lent) -> Backend:
        async def asked() -> int:
            session, thread = lent
            return int((await thread.call(session.ask, ASK))[0][0])

        return asked

    try:
        async with asyncio.timeout(address.connect_timeout_seconds):
            is_pooled = await share_sessions(asks(first), asks(second))
    except TimeoutError as error:
        raise StoreUnavailableError(
            f"Postgres at {address.host}:{address.port} lets us connect and gives no answer."
        ) from error
    if is_pooled:
        session, thread = first
        await thread.call(session.execute, "RESET ALL")  # What we have set is not left to others.
        raise StoreRefusedError(f"Postgres at {address.host}:{address.port} {ADVICE}.", code="store.pooled")


class SessionPool:
    """Hands out sessions under a name. One that was left by an error, interrupted or given up is never used again."""

    def __init__(self, address: PostgresAddress, queries: PostgresQueries | None = None) -> None:
        self._address = address
        self._queries = queries
        self._idle: list[_Pooled] = []
        self._generation = 0

    @asynccontextmanager
    async def session(self, name: str) -> AsyncIterator[tuple[PostgresSession, OneThread]]:
        """Lend a session and its thread; it is clean, and in no transaction.

        Raises:
            StoreUnavailableError: the server cannot be reached.
        """
        pooled = await self._taken(name)
        generation = self._generation
        is_clean = False
        try:
            yield pooled.session, pooled.thread
            is_clean = True
        finally:
            await self._returned(pooled, is_clean=is_clean and generation == self._generation)

    async def close(self) -> None:
        """Close what is idle; what is lent is closed when it comes back."""
        self._generation += 1
        idle, self._idle = self._idle, []
        for pooled in idle:
            await pooled.close()

    async def _taken(self, name: str) -> _Pooled:
        while self._idle:
            pooled = self._idle.pop()
            try:
                if monotonic() - pooled.connected_at < _KEPT_SECONDS:
                    await pooled.thread.call(pooled.session.rename, name)
                    return pooled
            except StoreUnavailableError:
                # It broke while it was idle, and so did the others; each might take as long to tell.
                idle, self._idle = self._idle, []
                for other in idle:
                    await other.close()
            except BaseException:
                await pooled.close()
                raise
            await pooled.close()
        thread = OneThread("postgres")
        try:
            session = await thread.call(PostgresSession, self._address, name, self._queries)
        except BaseException:
            thread.close()
            raise
        thread.interrupt, thread.hang_up = session.interrupt, session.hang_up
        return _Pooled(session, thread, monotonic())

    async def _returned(self, pooled: _Pooled, *, is_clean: bool) -> None:
        is_kept = is_clean and not pooled.session.is_interrupted and not pooled.thread.is_abandoned
        is_kept = is_kept and len(self._idle) < MAX_IDLE and monotonic() - pooled.connected_at < _KEPT_SECONDS
        if is_kept:
            try:
                await pooled.thread.call(pooled.session.clean)
            except PlatformError:
                is_kept = False
        if is_kept:
            self._idle.append(pooled)
        else:
            await pooled.close()
