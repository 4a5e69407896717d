"""Runs a second with one worker on Postgres records, each moving one row memory → memory through every step.

A process of its own, so that its peak memory is its own. Arguments: a URL, how many runs, pipelines, runs at a time.
"""

import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
import uvloop
from sqlalchemy import text

from application.catalog.documents import PutDocument
from application.runs.launch import TriggerRun
from domain.identity.principal import Principal, Role
from domain.identity.scope import PLATFORM
from domain.stores.table import TableName
from entrypoints.composition.container import build_container
from entrypoints.composition.lifecycle import running
from entrypoints.documents.reading import read_text
from entrypoints.use_cases import UseCases
from entrypoints.worker.background import BackgroundTasks
from entrypoints.worker.main import Worker
from infrastructure.observability.logs import configure_logs
from infrastructure.settings.sources import load_settings

ME = Principal("bench", "default", frozenset({Role.PLATFORM_ADMIN}))


async def count(use_cases: UseCases, sql: str) -> int:
    async with use_cases.launcher.records.unit(PLATFORM) as unit:
        found = await unit.runs._connection.execute(text(sql))  # type: ignore[attr-defined]
        return int(found.scalar() or 0)


async def main(url: str, runs: int, pipelines: int, concurrency: int) -> None:
    parts = urlsplit(url)
    environment = {
        "HEADRACE_STORE__KIND": "memory",
        "HEADRACE_METADATA__KIND": "postgres",
        "DB_HOST": parts.hostname or "",
        "DB_PORT": str(parts.port),
        "DB_NAME": parts.path.lstrip("/"),
        "DB_USER": parts.username or "",
        "HEADRACE_RUN__CONCURRENCY": str(concurrency),
        **{name: value for name, value in os.environ.items() if name.startswith("OTEL_")},
    }
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as name:
        folder = Path(name)
        container = build_container(load_settings(root=folder, environment=environment).settings, folder)
        async with running(container, with_store=True) as use_cases:
            await container.gateways.data_store().write(TableName("one"), [pa.table({"id": [1]})])
            for number in range(pipelines):
                document = read_text(
                    f"{{version: 1, pipeline: p{number}, source: {{table: one, key: [id]}}, "
                    f"destination: {{table: t{number}}}}}",
                    "bench",
                    {},
                )
                await use_cases.catalog.put(ME, PutDocument(document.kind, document.name, document.body))
            worker, background = Worker(use_cases), BackgroundTasks()
            background.start(worker.consume(), name="consume")
            background.start(use_cases.announcer.keep_telling(), name="tell")

            async def launch(first: int) -> None:
                for number in range(first, runs, 20):
                    await use_cases.launcher.launch(ME, TriggerRun(f"p{number % pipelines}"))

            begun = time.perf_counter()
            await asyncio.gather(*(launch(first) for first in range(20)))
            launched = time.perf_counter() - begun
            while await count(use_cases, "SELECT count(*) FROM runs WHERE state IN ('queued', 'running')"):
                await asyncio.sleep(0.02)
            seconds = time.perf_counter() - begun
            succeeded = await count(use_cases, "SELECT count(*) FROM runs WHERE state = 'succeeded'")
            transitions = await count(use_cases, "SELECT count(*) FROM run_transitions")
            assert (succeeded, transitions) == (runs, 3 * runs)
            await background.cancel(5)
    print(json.dumps({"launched_per_second": runs / launched, "per_second": runs / seconds}))


if __name__ == "__main__":
    configure_logs(level="error", as_json=True, service="bench", version="0", environment="bench")
    uvloop.run(main(sys.argv[1], *(int(argument) for argument in sys.argv[2:5])))
