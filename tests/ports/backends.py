"""The table of backends: how each is built, and every legal difference of it, with its reason."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import duckdb

from domain.ports.data_store import IDataStore
from infrastructure.stores.duckdb.file import DuckDBOptions
from infrastructure.stores.duckdb.store import DuckDBDataStore
from infrastructure.stores.memory.store import InMemoryDataStore
from infrastructure.stores.postgres.connection import PostgresAddress
from infrastructure.stores.postgres.store import PostgresDataStore


@dataclass(frozen=True)
class Quirks:
    """Legal differences. `no_queries`: sources are tables only. `no_keys`: tables have no primary key.

    `no_case`: a name in other letter case is the same name.
    """

    no_queries: str | None = None
    no_keys: str | None = None
    no_case: str | None = None


@dataclass(frozen=True)
class Backend:
    """One row of the table."""

    name: str
    build: Callable[[Path, str], IDataStore]
    broken: Callable[[Path], IDataStore]
    quirks: Quirks = field(default_factory=Quirks)
    needs_postgres: bool = False


def cursor_of(store: IDataStore) -> duckdb.DuckDBPyConnection:
    """A cursor of the store's one connection, for what somebody else does in its file."""
    assert isinstance(store, DuckDBDataStore)
    connection = store._file._connection
    assert connection is not None
    return connection.cursor()


def address_of(url: str) -> PostgresAddress:
    parts = urlsplit(url)
    return PostgresAddress(parts.hostname or "", parts.port or 5432, parts.path.lstrip("/"), parts.username or "")


BACKENDS = {
    backend.name: backend
    for backend in (
        Backend(
            "memory",
            build=lambda folder, url: InMemoryDataStore(),
            broken=lambda folder: InMemoryDataStore(),
            quirks=Quirks(no_queries="a test double needs no query engine", no_keys="Arrow tables have none"),
        ),
        Backend(
            "duckdb",
            build=lambda folder, url: DuckDBDataStore(DuckDBOptions(folder / "data.duckdb")),
            broken=lambda folder: DuckDBDataStore(DuckDBOptions(folder / "data.duckdb")),
            quirks=Quirks(no_case="identifiers are compared without it"),
        ),
        Backend(
            "postgres",
            build=lambda folder, url: PostgresDataStore(address_of(url)),
            broken=lambda folder: PostgresDataStore(PostgresAddress("127.0.0.1", 1, "none", "nobody")),
            needs_postgres=True,
        ),
    )
}
