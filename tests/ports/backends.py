"""The table of backends: how each is built. What it does not promise (`Capabilities`) is not asked of it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import duckdb

from domain.ports.data_store import IDataStore
from domain.stores.capabilities import Capabilities
from domain.stores.table import TableName
from infrastructure.stores.duckdb.file import DuckDBOptions
from infrastructure.stores.duckdb.store import DuckDBDataStore
from infrastructure.stores.memory.store import InMemoryDataStore
from infrastructure.stores.postgres.connection import PostgresAddress
from infrastructure.stores.postgres.store import PostgresDataStore


@dataclass(frozen=True)
class Backend:
    """One row of the table.

    `promises` are the store's `Capabilities`. `build` makes a store in a folder, or on the Postgres of a URL; `broken` one
    that cannot be reached. `empties` deletes every row of a table, as somebody else does.
    """

    name: str
    promises: Capabilities
    build: Callable[[Path, str], IDataStore]
    broken: Callable[[Path], IDataStore]
    empties: Callable[[IDataStore, TableName], Awaitable[None]]
    needs_postgres: bool = False


def cursor_of(store: IDataStore) -> duckdb.DuckDBPyConnection:
    """A cursor of the store's one connection, for what somebody else does in its file."""
    assert isinstance(store, DuckDBDataStore)
    connection = store._file._connection
    assert connection is not None
    return connection.cursor()


async def empties_in_memory(store: IDataStore, table: TableName) -> None:
    """Put no rows in the place of a table's."""
    assert isinstance(store, InMemoryDataStore)
    async with store.transaction() as content:
        columns, found = content.tables[str(table)]
        content.tables[str(table)] = (columns, found.slice(0, 0))


async def empties_by_sql(store: IDataStore, table: TableName) -> None:
    """Delete the rows of a table in a session of the store."""
    opening = store._session  # type: ignore[attr-defined]
    async with opening("somebody") if isinstance(store, PostgresDataStore) else opening() as (session, thread):
        await thread.call(session.execute, f'DELETE FROM "{table}"')


def address_of(url: str) -> PostgresAddress:
    parts = urlsplit(url)
    return PostgresAddress(parts.hostname or "", parts.port or 5432, parts.path.lstrip("/"), parts.username or "")


BACKENDS = {
    backend.name: backend
    for backend in (
        Backend(
            "memory",
            promises=InMemoryDataStore.capabilities,
            build=lambda folder, url: InMemoryDataStore(),
            broken=lambda folder: InMemoryDataStore(),
            empties=empties_in_memory,
        ),
        Backend(
            "duckdb",
            promises=DuckDBDataStore.capabilities,
            build=lambda folder, url: DuckDBDataStore(DuckDBOptions(folder / "data.duckdb")),
            broken=lambda folder: DuckDBDataStore(DuckDBOptions(folder / "data.duckdb")),
            empties=empties_by_sql,
        ),
        Backend(
            "postgres",
            promises=PostgresDataStore.capabilities,
            build=lambda folder, url: PostgresDataStore(address_of(url)),
            broken=lambda folder: PostgresDataStore(PostgresAddress("127.0.0.1", 1, "none", "nobody")),
            empties=empties_by_sql,
            needs_postgres=True,
        ),
    )
}
