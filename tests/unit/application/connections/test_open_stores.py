"""Stores that a plan opens beside those that are open."""

from pathlib import Path

from domain.stores.connection import ConnectionSpec
from infrastructure.stores.memory.store import InMemoryDataStore
from tests.e2e.inside import ME, inside


async def test_the_store_of_the_settings_is_one_and_is_closed_by_whom_it_belongs_to(project: Path) -> None:
    async with inside(project) as installation:
        stores = installation.use_cases.probe.stores
        there = {"other": ConnectionSpec("other", "memory")}
        async with stores.beside(there, {}) as beside:
            found = await beside.named(ME.organization, "default")
            other = await beside.named(ME.organization, "other")

        assert await stores.named(ME.organization, "default") is found
        assert (await found.health_check()).is_healthy  # Others may be at work in it.
        assert isinstance(other, InMemoryDataStore)

    async with inside(project) as installation:  # A DuckDB file that was left open would not open again.
        async with installation.use_cases.probe.stores.beside({}, {}) as beside:
            await beside.named(ME.organization, "default")
    async with inside(project) as installation:
        assert (await installation.use_cases.probe.test(ME, "default")).is_healthy


async def test_what_stands_in_for_the_store_of_the_settings_is_looked_at_instead(project: Path) -> None:
    async with inside(project) as installation:
        stand_in = InMemoryDataStore()
        async with installation.use_cases.probe.stores.beside({}, {"default": stand_in}) as beside:
            assert await beside.named(ME.organization, "default") is stand_in
