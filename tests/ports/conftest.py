"""A store of each backend for the suites of IDataStore."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from domain.ports.data_store import IDataStore
from infrastructure.stores.postgres.store import PostgresDataStore
from tests.ports.backends import BACKENDS, Backend, address_of


@pytest.fixture(params=BACKENDS.values(), ids=list(BACKENDS))
def backend(request: pytest.FixtureRequest) -> Backend:
    return request.param


@pytest.fixture
async def store(backend: Backend, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[IDataStore]:
    url = request.getfixturevalue("postgres_database") if backend.needs_postgres else ""
    built = backend.build(tmp_path, url)
    await built.open()
    yield built
    await built.close()


@pytest.fixture
async def postgres(postgres_database: str) -> AsyncIterator[PostgresDataStore]:
    """A Postgres store, for what only Postgres has."""
    store = PostgresDataStore(address_of(postgres_database))
    await store.open()
    yield store
    await store.close()
