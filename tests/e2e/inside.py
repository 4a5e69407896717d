"""Pipelines applied and run in the test's own process: as the command line does it, without a process for each."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from application.catalog.documents import PutDocument
from application.runs.launch import TriggerRun
from domain.identity.principal import Principal, Role
from domain.pipelines.spec import SourceSpec
from domain.ports.data_store import IDataStore
from domain.runs.run import Run, RunRequest, RunState
from domain.stores.table import TableName
from entrypoints.composition.container import build_container
from entrypoints.composition.lifecycle import running
from entrypoints.documents.reading import read_text
from entrypoints.use_cases import UseCases
from infrastructure.settings.sources import load_settings

ME = Principal("test", "default", frozenset({Role.PLATFORM_ADMIN}))


class Inside:
    """One installation."""

    def __init__(self, use_cases: UseCases) -> None:
        self.use_cases = use_cases

    async def put(self, text: str) -> None:
        """Apply a document."""
        document = read_text(text, "doc", {})
        await self.use_cases.catalog.put(ME, PutDocument(document.kind, document.name, document.body))

    async def pipeline(self, name: str, source: str, destination: str, more: str = "") -> None:
        """Apply a pipeline, its parts as YAML on one line."""
        await self.put(f"version: 1\npipeline: {name}\nsource: {{{source}}}\ndestination: {{{destination}}}\n{more}")

    async def ran(self, name: str, **changes: Any) -> Run:
        """Run a pipeline to its end, whatever that is."""
        claimed = await self.use_cases.launcher.launch_claimed(ME, TriggerRun(name, RunRequest(**changes)))
        assert claimed is not None
        return await self.use_cases.executor.execute_to_end(claimed)

    async def report(self, name: str, **changes: Any) -> dict[str, Any]:
        """Run a pipeline that succeeds."""
        run = await self.ran(name, **changes)
        assert run.state is RunState.SUCCEEDED, run.error
        return run.report.to_json() if run.report is not None else {}

    async def store(self, connection: str = "default") -> IDataStore:
        """The store of a connection."""
        return await self.use_cases.probe.stores.named(ME.organization, connection)

    async def rows(self, table: str, connection: str = "default") -> list[dict[str, Any]]:
        """What a table holds."""
        store, found = await self.store(connection), list[dict[str, Any]]()
        async for batch in store.read(SourceSpec(table=TableName.parse(table)), batch_rows=1000):
            found += pa.table(batch).to_pylist()
        return found

    async def notes(self, name: str) -> tuple[str, ...]:
        """What `plan` says of a stored pipeline."""
        stored = await self.use_cases.catalog.get(ME, "pipeline", name)
        command = PutDocument("pipeline", name, stored.document)
        return (await self.use_cases.planner.plan(ME, [command], prune=False))[0].notes


@asynccontextmanager
async def inside(project: Path, **environment: str) -> AsyncIterator[Inside]:
    """Open an installation in a project folder."""
    settings = load_settings(root=project, environment=environment).settings
    async with running(build_container(settings, project), with_store=False) as use_cases:
        yield Inside(use_cases)
