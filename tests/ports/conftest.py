"""A store of each backend for the suites of IDataStore, and a transformer of each kind for those of ITransformer."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from domain.ports.data_store import IDataStore
from domain.ports.transformer import ITransformer
from infrastructure.bench.bench import Bench
from infrastructure.stores.postgres.store import PostgresDataStore
from tests.ports.backends import BACKENDS, Backend, address_of
from tests.ports.transformers import one_bench, transformer_on


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Ask of a backend what it promises, and what is written in its SQL."""
    left_out = [item for item in items if not _is_promised(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if _is_promised(item)]


def _is_promised(item: pytest.Item) -> bool:
    backend = getattr(item, "callspec", None) and item.callspec.params.get("backend")  # type: ignore[attr-defined]
    if backend is None:
        return True
    needed = [name for marker in item.iter_markers("needs") for name in marker.args]
    return all(backend.name in marker.args for marker in item.iter_markers("only")) and all(
        getattr(backend.promises, name) for name in needed
    )


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


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with one_bench() as bench:
        yield bench


@pytest.fixture(params=["duckdb", "child"])
def transformer(request: pytest.FixtureRequest, bench: Bench) -> ITransformer:
    return transformer_on(request.param, bench)
