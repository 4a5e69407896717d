"""What a pipeline says of its run cannot make the process take more memory than whoever installed it allows."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from domain.stores.table import TableName
from infrastructure.engines.local import LocalEngine
from tests.e2e.inside import inside

_SOURCE = "table: s, key: [id], partitions: {column: id, count: 8}"


@pytest.mark.line("29")
async def test_streams_whose_batches_are_large_run_few_at_a_time(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_a_time: list[int] = []
    run = LocalEngine.run

    async def told(self: LocalEngine, tasks: Any, *, parallelism: int, **rest: Any) -> Any:
        at_a_time.append(parallelism)
        return await run(self, tasks, parallelism=parallelism, **rest)

    monkeypatch.setattr(LocalEngine, "run", told)
    limits = {"HEADRACE_RUN__BATCHES_BYTES": str(2**20), "HEADRACE_RUN__MAX_PARALLELISM": "6"}
    async with inside(project, **limits) as installation:
        store = await installation.store("default")
        await store.write(TableName("s"), [pa.table({"id": range(800)})])
        for number, (wanted, due) in enumerate(
            {
                "parallelism: 64, batch_bytes: 1MiB": 1,
                "parallelism: 64, batch_bytes: 300KiB": 3,
                "parallelism: 64, batch_bytes: 64KiB": 6,
                "parallelism: 2, batch_bytes: 64KiB": 2,
                "parallelism: 64": 1,
            }.items()
        ):
            await installation.pipeline("many", _SOURCE, f"table: t{number}", f"run: {{{wanted}}}\n")
            report = await installation.report("many")
            assert (len(report["streams"]), report["counts"]["read"]) == (8, 800)
            assert at_a_time.pop() == due, wanted

        await installation.pipeline("many", _SOURCE, "table: t", "run: {batch_bytes: 2MiB}\n")
        refused = await installation.ran("many")
        assert refused.error is not None
        assert refused.error.code == "spec.batch_bytes"
