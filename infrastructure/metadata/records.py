"""IRecords on SQLAlchemy: opens SQLite or Postgres, migrates it, and keeps leases in a thread of its own."""

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiosqlite
from sqlalchemy import Connection, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from domain.errors import MissingExtraError, PlatformError, UnavailableError
from domain.ports.unit_of_work import ILease, IRecords, IUnitOfWork
from infrastructure.metadata.unit_of_work import SqlUnitOfWork, records_unavailable

HEAD_REVISION = "0002"
_MIGRATIONS = Path(__file__).parent / "migrations"
_SCHEMA = "headrace"
# Any constant will do; it only has to be the same in every process that migrates.
_MIGRATION_LOCK = 727_201_401


class SqlRecords(IRecords):
    """The platform's records at one URL (`sqlite+aiosqlite:///…` or `postgresql+asyncpg://…`)."""

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 5,
        max_overflow: int = 10,
        timeout_seconds: float = 10.0,
        upgrade_on_open: bool = True,
    ) -> None:
        self._url = make_url(url)
        self._pool_size = pool_size
        self._max_overflow = max_overflow
        self._timeout_seconds = timeout_seconds
        self._upgrade_on_open = upgrade_on_open
        self._engine: AsyncEngine | None = None
        self._keeper = LeaseKeeper(self._create_engine)
        self._watcher: aiosqlite.Connection | None = None

    async def open(self) -> None:
        if self._engine is not None:
            return
        if self._url.get_backend_name() == "sqlite" and self._url.database:
            path = Path(self._url.database)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UnavailableError(f"The folder {path.parent} cannot be made: {error.strerror}.") from error
        self._engine = self._create_engine()
        current, newest = await self.current()
        if current == newest:
            return
        if not self._upgrade_on_open:
            raise UnavailableError(
                "The records' schema is not the newest; run 'headrace db upgrade'.", code="records.behind"
            )
        await self.upgrade()

    async def close(self) -> None:
        self._keeper.stop()
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            await watcher.close()
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.dispose()

    async def health_check(self) -> str | None:
        try:
            async with asyncio.timeout(self._timeout_seconds), self._opened().connect() as connection:
                await connection.execute(text("SELECT 1"))
        except (PlatformError, SQLAlchemyError, OSError, TimeoutError):
            return "The platform's records cannot be reached."
        return None

    async def upgrade(self) -> str:
        try:
            async with self._opened().begin() as connection:
                if connection.dialect.name == "postgresql":
                    await connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
                    await connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {_SCHEMA}"))
                await connection.run_sync(_run_migrations)
        except (OperationalError, OSError) as error:
            raise records_unavailable() from error
        return HEAD_REVISION

    async def current(self) -> tuple[str | None, str]:
        try:
            async with self._opened().connect() as connection:
                revision = (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalar()
        except DBAPIError as error:
            if error.connection_invalidated or "alembic_version" not in str(error.orig):
                raise records_unavailable() from error
            return None, HEAD_REVISION
        except OSError as error:
            raise records_unavailable() from error
        return revision, HEAD_REVISION

    def unit(self) -> IUnitOfWork:
        return SqlUnitOfWork(self._opened)

    @asynccontextmanager
    async def hold_lease(self, run_id: str, fence: int, *, lease: timedelta) -> AsyncIterator[ILease]:
        held = HeldLease(run_id, fence, lease)
        self._keeper.add(held)
        try:
            yield held
        finally:
            self._keeper.remove(held)

    async def changes(self) -> int:
        if self._url.get_backend_name() != "sqlite":
            return 0
        if self._watcher is None:
            # The number belongs to a connection, so it has to be the same one every time, outside of transactions.
            self._watcher = await aiosqlite.connect(self._url.database or "", isolation_level=None)
        async with self._watcher.execute("PRAGMA data_version") as cursor:
            row = await cursor.fetchone()
        return int(row[0]) if row else 0

    def _opened(self) -> AsyncEngine:
        if self._engine is None:
            raise UnavailableError("The platform's records are not open.", code="records.unavailable")
        return self._engine

    def _create_engine(self) -> AsyncEngine:
        if self._url.get_backend_name() == "sqlite":
            return _sqlite_engine(self._url, self._timeout_seconds)
        try:
            return create_async_engine(
                self._url,
                pool_size=self._pool_size,
                max_overflow=self._max_overflow,
                pool_timeout=self._timeout_seconds,
                pool_pre_ping=True,
                hide_parameters=True,
                connect_args={
                    "timeout": self._timeout_seconds,
                    "server_settings": {
                        "search_path": _SCHEMA,
                        "application_name": "headrace-records",
                        # A process that is stopped inside a transaction must not keep its rows from the others.
                        "idle_in_transaction_session_timeout": "10000",
                    },
                },
            )
        except ModuleNotFoundError as error:
            raise MissingExtraError("postgres", "Records on Postgres") from error


def _sqlite_engine(url: URL, timeout_seconds: float) -> AsyncEngine:
    engine = create_async_engine(url, hide_parameters=True, pool_size=5, connect_args={"timeout": timeout_seconds})

    @event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # Transactions are ours to begin.
        cursor = connection.cursor()
        for pragma in ("journal_mode = WAL", "foreign_keys = ON", "synchronous = FULL"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        # IMMEDIATE: a transaction that reads and then writes must not find its snapshot stale.
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _run_migrations(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


class HeldLease(ILease):
    """One claim under renewal. It also stops by this process's own clock, should renewals not get through (L2)."""

    def __init__(self, run_id: str, fence: int, lease: timedelta) -> None:
        self.run_id = run_id
        self.fence = fence
        self.lease = lease
        self.renewed_at = self.tried_at = time.monotonic()
        self.reason: str | None = None

    def stop_reason(self) -> str | None:
        if self.reason is not None:
            return self.reason
        return "lease_lost" if time.monotonic() - self.renewed_at > self.lease.total_seconds() else None

    def moved_to(self, fence: int) -> None:
        self.fence = fence


class LeaseKeeper:
    """Renews all leases of this process from one thread with a loop and a connection of its own (L3)."""

    def __init__(self, create_engine: Any) -> None:
        self._create_engine = create_engine
        self._held: set[HeldLease] = set()
        self._guard = threading.Lock()
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def add(self, lease: HeldLease) -> None:
        """Start renewing a lease."""
        with self._guard:
            self._held.add(lease)
            if self._thread is None:
                self._stopping = False
                self._thread = threading.Thread(target=self._run, name="leases", daemon=True)
                self._thread.start()
        self._wake.set()

    def remove(self, lease: HeldLease) -> None:
        """Stop renewing it."""
        with self._guard:
            self._held.discard(lease)

    def stop(self) -> None:
        """End the thread."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._stopping = True
            self._wake.set()
            thread.join(timeout=10)

    def _run(self) -> None:
        asyncio.run(self._renew_until_stopped())

    async def _renew_until_stopped(self) -> None:
        engine: AsyncEngine = self._create_engine()
        try:
            while not self._stopping:
                with self._guard:
                    held = list(self._held)
                pause = min((_renew_every(lease) for lease in held), default=1.0)
                await asyncio.to_thread(self._wake.wait, min(pause, 1.0))
                self._wake.clear()
                now = time.monotonic()
                for lease in held:
                    if now - lease.tried_at >= _renew_every(lease):
                        await self._renew(engine, lease)
        finally:
            await engine.dispose()

    async def _renew(self, engine: AsyncEngine, lease: HeldLease) -> None:
        started = lease.tried_at = time.monotonic()
        fence = lease.fence
        try:
            async with SqlUnitOfWork(lambda: engine) as unit:
                reason = await unit.runs.renew(lease.run_id, fence, lease=lease.lease)
                await unit.commit()
        except (PlatformError, SQLAlchemyError, OSError):
            return  # The next round tries again; the holder's own clock ends the lease in time.
        if reason is None:
            lease.renewed_at = started
        elif fence == lease.fence:
            lease.reason = "lease_lost" if reason == "fenced" else reason


def _renew_every(lease: HeldLease) -> float:
    """Seconds between renewals: well before the lease is over, and soon enough to hear of a cancel (C1)."""
    return min(lease.lease.total_seconds() / 3, 3.0)


def sqlite_url(path: Path) -> str:
    """The URL of a SQLite file."""
    return f"sqlite+aiosqlite:///{os.fspath(path)}"
