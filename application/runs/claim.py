"""Claims runs for this process."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from operator import itemgetter

from application.events.announce import Announcer
from application.runs.gathering import Gathered
from domain.events import Origin, RunStarted
from domain.identity.scope import Scope
from domain.ports.records.unit_of_work import IRecords
from domain.runs.run import Run


@dataclass(eq=False)
class RunClaimer:
    """Claims runs; those that ask at the same time share a transaction. `owner` names this process in leases."""

    records: IRecords
    announcer: Announcer
    owner: str
    lease: timedelta

    async def claim(self, scope: Scope, run_id: str) -> Run | None:
        """Claim a run, raising the fence of its work; None when there is nothing to claim."""
        return await self._gathered.ask((scope, run_id))

    @cached_property
    def _gathered(self) -> Gathered[tuple[Scope, str], Run | None]:
        return Gathered(self._claim, apart=itemgetter(0))

    async def _claim(self, asked: Sequence[tuple[Scope, str]]) -> Sequence[Run | None]:
        run_ids = [run_id for _, run_id in asked]
        async with self.records.unit(asked[0][0]) as unit:
            claimed = await unit.runs.claim_many(sorted(set(run_ids)), owner=self.owner, lease=self.lease)
            await unit.events.add(*(RunStarted(Origin.of(run), run.attempt, run.fence) for run in claimed))
            await unit.commit()
        if claimed:
            self.announcer.nudge()
        by_id = {run.id: run for run in claimed}
        # A run that is asked for twice at once is given once.
        return [by_id.pop(run_id, None) for run_id in run_ids]
