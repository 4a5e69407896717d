"""Claims runs for this process, and what a process holds while it executes one."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from typing import Any

from application.events.announce import Announcer
from application.pipelines.gathering import Gathered
from domain.errors import FencedError, StoreUnavailableError
from domain.events import RunStarted
from domain.loads.checkpoint import LaneState
from domain.loads.read_set import Lane, ReadSet
from domain.pipelines.spec import PipelineSpec
from domain.ports.data_store import IOwner
from domain.ports.unit_of_work import ILease, IRecords
from domain.runs.run import Run

MAX_RAISED = 10
"""How often a claim goes above what a destination remembers; an older copy of the records takes one."""


class StoppedError(Exception):
    """The work stopped because it was asked to; `reason` says by what."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass
class Claim:
    """A claimed run in the hands of this process. `deadline` is on the process's monotonic clock, `read_set` what this
    attempt works at, `token` what its latest take-over at the destination was given, `completed_first` the report of
    another run's read set that it has completed before, `notes` what the report of what is planned next has to say, `raised`
    how often its fence was.
    """

    run: Run
    spec: PipelineSpec
    lease: ILease
    fence: int
    deadline: float
    is_draining: Callable[[], bool]
    read_set: ReadSet | None = None
    token: str | None = None
    completed_first: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()
    raised: int = 0
    started: float = field(default_factory=time.monotonic)

    @property
    def lane(self) -> Lane:
        """The lane of the run."""
        return Lane(self.run.organization, self.run.pipeline, self.run.lane)

    @property
    def ids(self) -> tuple[str, str, str]:
        """What every event begins with."""
        return self.run.organization, self.run.pipeline, self.run.id

    @property
    def seconds(self) -> float:
        """How long the work has taken so far."""
        return round(time.monotonic() - self.started, 3)

    @property
    def planned(self) -> ReadSet | None:
        """What this attempt works at, else what one before it did; None while nothing is planned."""
        return self.read_set or (ReadSet.from_json(self.run.read_set) if self.run.read_set else None)

    def goes_on_after(self, read_set: ReadSet) -> bool:
        """Whether the run is not over when this is published: what arrived since an adopted read set is its own."""
        return read_set.is_adopted and self.spec.source.cursor is not None

    async def take_over(self, owner: IOwner) -> LaneState:
        """Take the lane over, and keep the token by which the next take-over shows that it is the same claim."""
        state = await owner.take_over()
        self.token = state.token
        return state

    async def go_above(self, records: IRecords, error: FencedError) -> None:
        """Claim again above what the destination remembers: another records database counts there too, or an older copy
        of this one (M2).

        Raises:
            FencedError: the lane is another worker's, as the claim does not stand any more.
            StoreUnavailableError: somebody with other records goes above this claim again and again (`run.contested`).
        """
        if error.fence is None or error.fence < self.fence:
            raise error
        self.raised += 1
        if self.raised > MAX_RAISED:
            raise StoreUnavailableError(
                f"Somebody with other records has taken the lane {self.lane} over {MAX_RAISED} times while this run was at work: "
                "let only one installation load this table, or give the pipelines different names.",
                code="run.contested",
            ) from error
        async with records.unit() as unit:
            raised = await unit.runs.raise_fence(self.run.id, self.fence, above=error.fence)
            if raised is None:
                raise error
            await unit.commit()
        self.fence = raised
        self.lease.moved_to(raised)

    def stop_reason(self) -> str | None:
        """Why the work must stop now, or None; costs nothing to ask."""
        reason = self.lease.stop_reason()
        if reason is None and time.monotonic() > self.deadline:
            return "timeout"
        return reason or ("drained" if self.is_draining() else None)


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
