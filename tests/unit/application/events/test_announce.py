"""Events are told at least once, and what follows from them is written exactly once."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from application.events.announce import Announcer
from application.events.follow import FollowerStarter
from application.runs.launch import TriggerRun
from domain.ports.unit_of_work import IUnitOfWork, StoredEvent
from domain.runs.run import Ring
from domain.stores.table import TableName
from entrypoints.composition.lifecycle import running
from infrastructure.runtime import RandomIdentifiers
from tests.faults.test_queues import ME, container_of, put


@pytest.mark.invariant("S3")
async def test_teller_that_dies_tells_again_and_starts_each_follower_once(tmp_path: Path) -> None:
    container = container_of(tmp_path)
    async with running(container, with_store=True) as use_cases:
        await container.gateways.data_store().write(TableName("source"), [pa.table({"id": [1]})])
        first = "{version: 1, pipeline: first, source: {table: source, key: [id]}, destination: {table: a}}"
        second = (
            "{version: 1, pipeline: second, source: {table: source, key: [id]}, destination: {table: b}, "
            "schedule: {after: [first]}}"
        )
        await put(use_cases, first)
        await put(use_cases, second)
        claimed = await use_cases.launcher.launch_claimed(ME, TriggerRun("first"))
        await use_cases.executor.perform(claimed)
        told: list[str] = []
        rung: list[Ring] = []
        dies = True

        async def last(unit: IUnitOfWork, events: Sequence[StoredEvent]) -> Sequence[Ring]:
            if dies:
                raise RuntimeError("as if the process died before the commit")
            return []

        async def ring(rings: Sequence[Ring]) -> None:
            rung.extend(rings)

        reactions = [FollowerStarter(RandomIdentifiers()), last]
        announcer = Announcer(use_cases.launcher.records, [lambda kind, _: told.append(kind)], reactions, ring)
        with pytest.raises(RuntimeError):
            await announcer.flush()
        before = list(told)
        dies = False
        await announcer.flush()
        await announcer.flush()

        assert before == ["pipeline.queued", "pipeline.started", "pipeline.completed"]
        assert told == [*before, *before, "pipeline.queued"]  # Told again, and then the follower's own event.
        async with use_cases.launcher.records.unit() as unit:
            runs = (await unit.runs.page("default", pipeline="second", state=None, after=None, limit=9)).items
        assert [(run.cause, run.requested_by) for run in runs] == [(claimed.id, "after:first")]
        assert [found.run_id for found in rung] == [runs[0].id]
