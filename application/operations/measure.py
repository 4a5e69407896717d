"""What nobody tells by itself is looked at again and again: queue, freshness, connections, health, the event loop."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from application.events.freshness import Freshness
from application.log import log
from application.operations.health import HealthMonitor, PartStatus
from domain.errors import PlatformError
from domain.identity.scope import PLATFORM, Scope
from domain.ports.records.unit_of_work import IRecords
from domain.ports.runtime import IClock
from domain.ports.telemetry import ITelemetry
from domain.runs.run import RunState
from domain.runs.work import WorkKind

_LAG_EVERY_SECONDS = 1.0
_MOST_WORKS = 1000
_PAGE = 100
_HOW = {PartStatus.HEALTHY: 1.0, PartStatus.DEGRADED: 0.5, PartStatus.UNHEALTHY: 0.0}

Labels = tuple[tuple[str, str], ...]


@dataclass(eq=False)
class Measurer:
    """Says what there is at every look; whoever asks for metrics has the last look, and touches nothing."""

    records: IRecords
    telemetry: ITelemetry
    health: HealthMonitor
    freshness: Freshness
    clock: IClock
    organization: str
    every: timedelta
    _waited: set[Labels] = field(default_factory=set)
    _dropped: dict[str, int] = field(default_factory=dict)

    async def watch(self) -> None:
        """Look until a shutdown begins."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch_loop(), name="lag")
            tasks.create_task(self._watch_all(), name="measure")

    async def _watch_all(self) -> None:
        is_known = False
        while not self.health.life.is_draining:
            try:
                if not is_known:
                    await self._remember()
                    is_known = True
                await self._measure_queue()
                await self._forget_gone()
            except PlatformError as error:  # That the records are away is told by whoever needs them.
                log.debug("measure.failed", code=error.code)
            self.measure()
            await self._pause(self.every.total_seconds())

    def measure(self) -> None:
        """Say all that is known without asking anybody."""
        gauge = self.telemetry.gauge
        for (organization, pipeline), seconds in self.freshness.ages(self.clock.now()).items():
            gauge("pipeline.freshness", seconds, {"organization": organization, "pipeline": pipeline})
        for part, found in self.health.liveness().parts.items():
            gauge("health.part", _HOW[found.status], {"part": part})
        used, most = self.records.connections()
        gauge("records.connections", used, {"state": "used"})
        gauge("records.connections", most, {"state": "most"})
        for reason, dropped in self.telemetry.drops().items():
            self.telemetry.count("telemetry.dropped", dropped - self._dropped.get(reason, 0), {"reason": reason})
            self._dropped[reason] = dropped

    async def _measure_queue(self) -> None:
        async with self.records.read(PLATFORM) as unit:
            waiting = await unit.runs.waiting(limit=_MOST_WORKS)
        now, said = self.clock.now(), set[Labels]()
        for work in waiting:
            labels = {"organization": work.organization, work.work.kind.value: work.work.name}
            self._say_queue(labels, work.runs, max(0.0, (now - work.since).total_seconds()))
            said.add(tuple(labels.items()))
        for gone in self._waited - said:
            self._say_queue(dict(gone), 0, 0.0)
        self._waited = said

    async def _forget_gone(self) -> None:
        """Nobody is to be woken for the age of what a pipeline has left that was deleted."""
        for organization, names in self.freshness.names().items():
            async with self.records.read(Scope(organization)) as unit:
                known = await unit.pipelines.latest(organization, sorted(names))
            for name in set(names) - set(known):
                self.freshness.forget(organization, name)
                self.telemetry.gauge("pipeline.freshness", None, {"organization": organization, "pipeline": name})

    def _say_queue(self, labels: Mapping[str, str], runs: int, seconds: float) -> None:
        self.telemetry.gauge("pipeline.queue.depth", runs, labels)
        self.telemetry.gauge("pipeline.queue.age", seconds, labels)

    async def _remember(self) -> None:
        """Find what runs before this process have published; a page of pipelines at a time."""
        after: str | None = None
        while True:
            async with self.records.read(Scope(self.organization)) as unit:
                page = await unit.pipelines.page(self.organization, after=after, limit=_PAGE)
                for document in page.items:
                    work = WorkKind.PIPELINE.named(document.name)
                    ended = await unit.runs.page(
                        self.organization, work=work, state=RunState.SUCCEEDED, after=None, limit=1
                    )
                    for run in ended.items:
                        as_of = run.report.complete_as_of if run.report is not None else None
                        begun = run.started_at or run.created_at or self.clock.now()
                        self.freshness.note(self.organization, document.name, as_of, begun)
            after = page.next_cursor
            if after is None:
                return

    async def _watch_loop(self) -> None:
        while not self.health.life.is_draining:
            due = self.clock.monotonic() + _LAG_EVERY_SECONDS
            await self._pause(_LAG_EVERY_SECONDS)
            self.telemetry.observe("process.loop.lag", max(0.0, self.clock.monotonic() - due), {})

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self.health.life.wait_for_shutdown()
        except TimeoutError:
            return
