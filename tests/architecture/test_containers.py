"""Every provider under every setting, lifetimes, readable errors, and swapping by override."""

import asyncio
import itertools
from pathlib import Path
from typing import Any

import pytest
from dependency_injector import containers, providers
from dependency_injector.errors import Error

from application.catalog.documents import PutDocument
from application.runs.launch import TriggerRun
from domain.errors import ScopeError
from domain.identity.principal import Principal, Role
from domain.identity.scope import PLATFORM, Scope
from domain.ports.data_store import IDataStore
from domain.ports.records.unit_of_work import IUnitOfWork
from domain.runs.work import WorkKind
from entrypoints.composition import container as composed
from entrypoints.composition.checking import CircularDependencyError, UnregisteredDependencyError, check_container
from entrypoints.composition.container import Container, build_container
from entrypoints.composition.lifecycle import running
from entrypoints.documents.reading import read_text
from infrastructure.settings.sources import load_settings
from infrastructure.stores.duckdb.file import DuckDBOptions
from infrastructure.stores.duckdb.store import DuckDBDataStore
from infrastructure.stores.memory.store import InMemoryDataStore
from infrastructure.stores.postgres.store import PostgresDataStore
from tests.ports.backends import BACKENDS
from tests.ports.loading import rows

ME = Principal("me", "default", frozenset({Role.PLATFORM_ADMIN}))
POSTGRES = {"DB_HOST": "127.0.0.1", "DB_NAME": "d", "DB_USER": "u"}


def container_of(folder: Path, **environment: str) -> Container:
    return build_container(load_settings(root=folder, environment=environment).settings, folder)


@pytest.mark.parametrize(
    ("store", "metadata"), list(itertools.product(("duckdb", "memory", "postgres"), ("sqlite", "postgres")))
)
def test_every_provider_resolves_under_every_setting(store: str, metadata: str, tmp_path: Path) -> None:
    names = {"HEADRACE_STORE__KIND": store, "HEADRACE_METADATA__KIND": metadata}
    container = container_of(tmp_path, **names, **POSTGRES)

    resolved = check_container(container)

    assert {"use_cases.everything", "gateways.data_store", "gateways.records"} <= set(resolved)
    expected = {"duckdb": DuckDBDataStore, "memory": InMemoryDataStore, "postgres": PostgresDataStore}[store]
    assert type(container.gateways.data_store()) is expected


def test_unregistered_dependency_is_named() -> None:
    class Incomplete(containers.DeclarativeContainer):
        clock: providers.Dependency[Any] = providers.Dependency()
        thing = providers.Factory(dict, clock=clock)

    with pytest.raises(UnregisteredDependencyError, match="clock"):
        check_container(Incomplete())


def test_circular_dependency_is_named() -> None:
    class Circle(containers.DeclarativeContainer):
        first: providers.Factory[Any] = providers.Factory(dict)
        second = providers.Factory(dict, other=first)
        first.add_kwargs(other=second)

    with pytest.raises(CircularDependencyError, match="first → second → first"):
        check_container(Circle())


def test_program_does_not_start_with_what_nobody_registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Incomplete(Container):
        forgotten: providers.Dependency[Any] = providers.Dependency()

    monkeypatch.setattr(composed, "Container", Incomplete)

    with pytest.raises(UnregisteredDependencyError, match="forgotten"):
        container_of(tmp_path)


def test_singletons_are_one_and_units_of_work_are_new(tmp_path: Path) -> None:
    container = container_of(tmp_path, HEADRACE_STORE__KIND="memory")
    other = container_of(tmp_path, HEADRACE_STORE__KIND="memory")

    assert container.gateways.data_store() is container.gateways.data_store()
    assert container.gateways.data_store() is not other.gateways.data_store()
    assert container.gateways.connection_store(
        "memory", spec=None, secrets={}
    ) is not container.gateways.connection_store("memory", spec=None, secrets={})


async def test_unit_of_work_lives_as_long_as_its_scope(tmp_path: Path) -> None:
    container = container_of(tmp_path)
    async with running(container, with_store=False) as use_cases:
        with pytest.raises(ScopeError, match="create_scope"):
            container.gateways.unit_of_work()
        async with use_cases.scopes.create_scope(Scope("default")):
            first: IUnitOfWork = container.gateways.unit_of_work()
            assert container.gateways.unit_of_work() is first
            await first.__aenter__()
            await first.identity.ensure_organization("default")
            elsewhere = [asyncio.create_task(unit_in(container, Scope("default"))) for _ in range(2)]
            assert len({id(unit) for unit in [first, *await asyncio.gather(*elsewhere)]}) == 3
        with pytest.raises(ScopeError):
            container.gateways.unit_of_work()
        with pytest.raises(Exception, match="closed"):  # As its scope is.
            await first.identity.ensure_organization("default")


async def test_scope_is_kept_to_one_organization(tmp_path: Path) -> None:
    container = container_of(tmp_path)
    async with running(container, with_store=False) as use_cases:
        records, scopes = use_cases.launcher.records, use_cases.scopes
        async with scopes.create_scope(Scope("default")):
            assert scopes.current() == Scope("default")
            for mine in (Scope("default"), PLATFORM):
                async with records.unit(mine), records.read(mine):
                    pass
            with pytest.raises(ScopeError):
                records.unit(Scope("other"))
            with pytest.raises(ScopeError):
                records.read(Scope("other"))
            with pytest.raises(ScopeError):
                async with scopes.create_scope(Scope("other")):
                    pass
        async with records.read(Scope("other")) as unit:
            assert await unit.runs.last_of("other", WorkKind.PIPELINE.named("any")) is None


async def unit_in(container: Container, scope: Scope) -> IUnitOfWork:
    container.use_cases.everything()
    async with container.gateways.scopes().create_scope(scope):
        unit: IUnitOfWork = container.gateways.unit_of_work()
        return unit


@pytest.mark.parametrize("kind", list(BACKENDS))
async def test_override_swaps_default_and_named_store_under_one_test(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    backend = BACKENDS[kind]
    url = request.getfixturevalue("postgres_database") if backend.needs_postgres else ""
    default = backend.build(tmp_path, url)
    named: IDataStore = (
        DuckDBDataStore(DuckDBOptions(tmp_path / "named.duckdb")) if kind == "duckdb" else backend.build(tmp_path, url)
    )
    container = container_of(tmp_path)
    with (
        container.gateways.data_store.override(providers.Object(default)),
        container.gateways.connection_stores.override(providers.Object(lambda *_: named)),
    ):
        async with running(container, with_store=True) as use_cases:
            await named.open()
            await named.write(read_table("people"), [rows(1, 2, 3)])
            for text in (
                "{version: 1, connection: elsewhere, kind: memory}",
                "{version: 1, pipeline: copy, source: {connection: elsewhere, table: people, key: [id]}, "
                "transform: [{sql: 'select *, id * 2 as twice from batch'}], destination: {table: copied}}",
            ):
                document = read_text(text, "doc", {})
                await use_cases.catalog.put(ME, PutDocument(document.kind, document.name, document.body))
            run = await use_cases.launcher.launch_claimed(ME, TriggerRun("copy"))
            finished = await use_cases.executor.execute_to_end(run)
            assert finished.error is None
            described = await default.describe(read_table("copied"))
            assert described is not None
            assert [c.name for c in described.columns][:3] == ["id", "note", "twice"]
            assert finished.report is not None
            assert finished.report.counts.used == 3


def read_table(name: str) -> Any:
    from domain.stores.table import TableName

    return TableName.parse(name)


def test_misspelt_override_is_an_error(tmp_path: Path) -> None:
    with pytest.raises((AttributeError, Error)):
        container_of(tmp_path).gateways.data_stor.override(providers.Object(None))
