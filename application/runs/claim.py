"""Claims runs for this process."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property

from application.events.announce import Announcer
from application.runs.gathering import Gathered
from domain.events import RunStarted
from domain.ports.unit_of_work import IRecords
from domain.runs.run import Run


@dataclass(frozen=True)
class RunClaimer:
    """Claims runs; those that ask at the same time share a transaction. `owner` names this process in leases."""

    records: IRecords
    announcer: Announcer
    owner: str
    lease: timedelta

    async def claim(self, run_id: str) -> Run | None:
        """Claim a run, raising its pipeline's fence; None when there is nothing to claim."""
        return await self._gathered.ask(run_id)

    @cached_property
    def _gathered(self) -> Gathered[str, Run | None]:
        return Gathered(self._claim)

    async def _claim(self, run_ids: Sequence[str]) -> Sequence[Run | None]:
        async with self.records.unit() as unit:
            claimed = await unit.runs.claim_many(sorted(set(run_ids)), owner=self.owner, lease=self.lease)
            await unit.events.add(
                *(RunStarted(run.organization, run.pipeline, run.id, run.attempt, run.fence) for run in claimed)
            )
            await unit.commit()
        if claimed:
            self.announcer.nudge()
        by_id = {run.id: run for run in claimed}
        # A run that is asked for twice at once is given once.
        return [by_id.pop(run_id, None) for run_id in run_ids]
