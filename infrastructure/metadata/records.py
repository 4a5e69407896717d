"""IRecords on SQLAlchemy: opens SQLite or Postgres, migrates it, and keeps leases in a thread of its own."""

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiosqlite
from sqlalchemy import Connection, event, text, update
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, DisconnectionError, SQLAlchemyError
from sqlalchemy.ext import asyncio as alchemy
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import QueuePool

from domain.errors import MissingExtraError, PlatformError, StoreRefusedError, UnavailableError
from domain.identity.scope import Scope
from domain.ports.records.runs import ILease
from domain.ports.records.unit_of_work import IRecords, IUnitOfWork
from infrastructure.clock import monotonic
from infrastructure.metadata.events import Horizon
from infrastructure.metadata.lease_keeper import HeldLease, LeaseKeeper
from infrastructure.metadata.records_errors import records_ahead, records_error, records_pooled
from infrastructure.metadata.tables import workers
from infrastructure.metadata.unit_of_work import ONLY_READS, SqlUnitOfWork
from infrastructure.postgres.poolers import ASK, Backend, share_sessions
from infrastructure.postgres.settings import pinned
from infrastructure.postgres.sign_in import sign_in_of, signed_in
from infrastructure.room import lacks_room

HEAD_REVISION = "0007"
_MIGRATIONS = Path(__file__).parent / "migrations"
_SCHEMA = "headrace"
_IDLE_SECONDS = 1.0
_WRITES_REFUSED = ("disk_full", "records.read_only")
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
        admit: Callable[[Scope], None] = lambda _scope: None,
    ) -> None:
        """`admit` raises where a scope may not be had by whoever asks."""
        self._url = make_url(url)
        self._pool_size = pool_size
        self._max_overflow = max_overflow
        self._timeout_seconds = timeout_seconds
        self._upgrade_on_open = upgrade_on_open
        self._admit = admit
        self._engine: AsyncEngine | None = None
        self._horizon = Horizon()
        self._keeper = LeaseKeeper(self._create_engine)
        self._watcher: aiosqlite.Connection | None = None
        self._is_write_refused = False

    async def open(self) -> None:
        if self._engine is not None:
            return
        if self._url.get_backend_name() == "sqlite" and self._url.database:
            await asyncio.to_thread(_make_file, Path(self._url.database))
        self._engine = self._create_engine()
        if self._url.get_backend_name() == "postgresql":
            await self._refuse_pooler()
        current, newest = await self.current()
        if current == newest:
            return
        if current is not None and current > newest:
            raise records_ahead(current)
        if not self._upgrade_on_open:
            raise UnavailableError(
                "The records' schema is not the newest; run 'headrace db upgrade'.", code="records.behind"
            )
        await self.upgrade()

    async def _refuse_pooler(self) -> None:
        def asks(connection: AsyncConnection) -> Backend:
            async def asked() -> int:
                found = (await connection.execute(text(ASK))).scalar()
                await connection.rollback()
                return int(found or 0)

            return asked

        engine = self._create_engine(pool_size=2)  # That of the settings may have room for one.
        try:
            async with engine.connect() as first, engine.connect() as second:
                drivers: list[Any] = [(await each.get_raw_connection()).driver_connection for each in (first, second)]
                try:
                    async with asyncio.timeout(self._timeout_seconds):
                        is_pooled = await share_sessions(asks(first), asks(second))
                except TimeoutError:
                    for driver in drivers:
                        driver.terminate()  # To close it in good order would wait for an answer too.
                    raise
        except (BufferError, AssertionError) as error:  # The driver was given what another session has answered.
            raise records_pooled() from error
        except (DBAPIError, OSError, TimeoutError) as error:
            raise records_error(error) from error
        finally:
            await engine.dispose()
        if is_pooled:
            raise records_pooled()

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
            engine = self._opened().execution_options(**{ONLY_READS: not self._is_write_refused})
            async with asyncio.timeout(self._timeout_seconds), engine.begin() as connection:
                if self._is_write_refused:  # What can be read may still not be written: only a write tells.
                    await connection.execute(update(workers).values(id=workers.c.id))
                else:
                    await connection.execute(text("SELECT 1"))
        except (PlatformError, SQLAlchemyError, OSError, TimeoutError) as error:
            trouble = records_error(error)
            return trouble.message if trouble.code in _WRITES_REFUSED else "The platform's records cannot be reached."
        self._is_write_refused = False
        if self._url.get_backend_name() == "sqlite" and self._url.database and lacks_room(Path(self._url.database)):
            return "The disk of the platform's records is full."
        return None

    async def upgrade(self) -> str:
        try:
            async with self._opened().begin() as connection:
                if connection.dialect.name == "postgresql":
                    await connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
                    # A role that owns the schema may not be one that may make schemas.
                    if (await connection.execute(text(f"SELECT to_regnamespace('{_SCHEMA}')"))).scalar() is None:
                        await connection.execute(text(f"CREATE SCHEMA {_SCHEMA}"))
                await connection.run_sync(run_migrations)
        except (DBAPIError, OSError) as error:
            raise records_error(error) from error
        return HEAD_REVISION

    async def current(self) -> tuple[str | None, str]:
        try:
            async with self._opened().connect() as connection:
                revision = (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalar()
        except DBAPIError as error:
            if error.connection_invalidated or "alembic_version" not in str(error.orig):
                raise records_error(error) from error
            return None, HEAD_REVISION
        except (OSError, TimeoutError) as error:
            raise records_error(error) from error
        return revision, HEAD_REVISION

    def unit(self, scope: Scope) -> IUnitOfWork:
        self._admit(scope)
        return SqlUnitOfWork(self._opened, scope, self._horizon, self._note)

    def read(self, scope: Scope) -> IUnitOfWork:
        self._admit(scope)
        return SqlUnitOfWork(self._opened, scope, self._horizon, self._note, only_reads=True)

    def _note(self, trouble: PlatformError) -> None:
        self._is_write_refused = self._is_write_refused or trouble.code in _WRITES_REFUSED

    @asynccontextmanager
    async def hold_lease(self, run_id: str, fence: int, *, lease: timedelta) -> AsyncIterator[ILease]:
        held = HeldLease(run_id, fence, lease)
        self._keeper.add(held)
        try:
            yield held
        finally:
            self._keeper.remove(held)

    def connections(self) -> tuple[int, int]:
        pool = self._engine.pool if self._engine is not None else None
        if not isinstance(pool, QueuePool):
            return 0, 0
        return pool.checkedout(), pool.size() + max(0, pool._max_overflow)

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

    async def _signed_in(self) -> Any:
        target = sign_in_of(str(self._url.render_as_string(hide_password=False)))
        return await signed_in(target, timeout=self._timeout_seconds, application_name="headrace-records")

    def _create_engine(self, *, pool_size: int | None = None) -> AsyncEngine:
        if self._url.get_backend_name() == "sqlite":
            return _sqlite_engine(self._url, self._timeout_seconds)
        try:
            engine = alchemy.create_async_engine(
                self._url,
                pool_size=pool_size or self._pool_size,
                max_overflow=self._max_overflow,
                pool_timeout=self._timeout_seconds,
                hide_parameters=True,
                async_creator=self._signed_in,
            )
        except ModuleNotFoundError as error:
            raise MissingExtraError("postgres", "Records on Postgres") from error
        _set_up(engine)
        _ping_when_idle(engine)
        return engine


def _set_up(engine: AsyncEngine) -> None:
    """Pin the settings of each new connection, and name the schema that all of ours is in."""

    @event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        # A process that is stopped inside a transaction must not keep its rows from the others.
        own = {"search_path": _SCHEMA, "idle_in_transaction_session_timeout": "10000"}
        calls = ", ".join(f"pg_catalog.set_config('{name}', '{value}', false)" for name, value in own.items())
        connection.run_async(lambda driver: driver.execute(f"SELECT {pinned()}, {calls}"))


def _ping_when_idle(engine: AsyncEngine) -> None:
    """Try a connection before it is used if it has been idle: one round trip less for all that are busy."""

    @event.listens_for(engine.sync_engine, "checkin")
    def note(_connection: Any, record: Any) -> None:
        record.info["used_at"] = monotonic()

    @event.listens_for(engine.sync_engine, "checkout")
    def ping(connection: Any, record: Any, _proxy: Any) -> None:
        if monotonic() - record.info.get("used_at", monotonic()) < _IDLE_SECONDS:
            return
        try:
            engine.sync_engine.dialect.do_ping(connection)
        except Exception as error:
            raise DisconnectionError from error


def _make_file(path: Path) -> None:
    """Open a SQLite file once: the driver's thread would outlive an opening that fails, and end in a traceback.

    Raises:
        StoreRefusedError: its folder cannot be made, or it cannot be opened.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreRefusedError(
            f"The folder {path.parent} cannot be made: {error.strerror}.", code="home.not_creatable"
        ) from error
    try:
        sqlite3.connect(path).close()
    except sqlite3.Error as error:
        raise records_error(error) from error


def _sqlite_engine(url: URL, timeout_seconds: float) -> AsyncEngine:
    engine = alchemy.create_async_engine(
        url, hide_parameters=True, pool_size=5, connect_args={"timeout": timeout_seconds}
    )

    @event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # Transactions are ours to begin.
        cursor = connection.cursor()
        try:
            for pragma in ("journal_mode = WAL", "foreign_keys = ON", "synchronous = FULL"):
                cursor.execute(f"PRAGMA {pragma}")
        except BaseException:
            connection.close()  # The pool would forget it, and its thread would outlive the event loop.
            raise
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        # IMMEDIATE: a transaction that reads and then writes must not find its snapshot stale. Who only reads must not
        # take the one lock of all writers: whoever asks often would keep runs from being written down.
        connection.exec_driver_sql("BEGIN" if connection.get_execution_options().get(ONLY_READS) else "BEGIN IMMEDIATE")

    return engine


def run_migrations(connection: Connection, revision: str = "head") -> None:
    """Bring the schema to a revision, in the connection's transaction."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def sqlite_url(path: Path) -> str:
    """The URL of a SQLite file."""
    return f"sqlite+aiosqlite:///{os.fspath(path)}"
