"""The port to runs, their claims and histories."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from domain.ports.records.page import Page
from domain.runs.report import RunReport
from domain.runs.run import Finish, Ring, Run, RunError, RunState, Transition, WorkPlan
from domain.runs.work import WorkName


@dataclass(frozen=True)
class Waiting:
    """How many runs of some work are queued, and when the first of them was asked for."""

    organization: str
    work: WorkName
    runs: int
    since: datetime


class IRunRecords(ABC):
    """Runs and their claims. The row is the truth about a run."""

    @abstractmethod
    async def insert_many(self, asked: Sequence[Run]) -> None:
        """Store queued runs, each with its first transition."""

    async def insert(self, run: Run) -> None:
        """Store a queued run."""
        await self.insert_many([run])

    @abstractmethod
    async def caused_by(self, causes: Sequence[str]) -> set[tuple[WorkName, str]]:
        """Return (work, causing run) of the runs that exist already."""

    @abstractmethod
    async def get(self, organization: str, run_id: str) -> Run | None:
        """Return a run; its plan, which may be large, has only who claims it."""

    @abstractmethod
    async def page(
        self,
        organization: str,
        *,
        work: WorkName | None,
        state: RunState | None,
        after: str | None,
        limit: int,
        most_characters: int | None = None,
    ) -> Page:
        """Return runs, newest first: one at least, if there is one, then no more than have so many characters
        together.
        """

    @abstractmethod
    async def claim_many(self, run_ids: Sequence[str], *, owner: str, lease: timedelta) -> Sequence[Run]:
        """Claim those runs that are queued and due or whose lease has expired, raising the fences of their work. Left
        out is what cannot be claimed: not due, held by another, terminal, or in a lane that another run holds.
        """

    async def claim(self, run_id: str, *, owner: str, lease: timedelta) -> Run | None:
        """Claim one run, or None."""
        return next(iter(await self.claim_many([run_id], owner=owner, lease=lease)), None)

    @abstractmethod
    async def raise_fence(self, run_id: str, fence: int, *, above: int) -> int | None:
        """Claim again above a destination's fence; None if `fence` is not the claim any more."""

    @abstractmethod
    async def renew(self, run_id: str, fence: int, *, lease: timedelta) -> str | None:
        """Prolong a lease; the reason to stop (`fenced`, `cancelled`), or None to go on."""

    @abstractmethod
    async def store_read_sets(self, read_sets: Mapping[tuple[str, int], WorkPlan]) -> Sequence[str]:
        """Keep the plans of claimed runs, by (run id, fence); return the ids that were not fenced."""

    async def store_read_set(self, run_id: str, fence: int, read_set: WorkPlan) -> bool:
        """Keep the plan of one claimed run; False when fenced."""
        return run_id in await self.store_read_sets({(run_id, fence): read_set})

    @abstractmethod
    async def finish_many(self, finishes: Sequence[Finish]) -> Sequence[Run]:
        """Move claimed runs to their ends; return those that were not fenced, as they stand now."""

    async def finish(
        self,
        run_id: str,
        fence: int,
        state: RunState,
        *,
        reason: str,
        report: RunReport | None,
        error: RunError | None,
    ) -> bool:
        """Move one claimed run to a terminal state; False when fenced."""
        return bool(await self.finish_many([Finish(run_id, fence, state, reason, report, error)]))

    @abstractmethod
    async def release(
        self, run_id: str, fence: int, *, reason: str, pause: timedelta | None = None, is_retry: bool = False
    ) -> bool:
        """Give a claimed run back to the queue, due after a pause; False when fenced."""

    @abstractmethod
    async def note_progress(self, run_id: str, fence: int, *, progress: int) -> int | None:
        """Count a claim that begins where an earlier one did; return how many in a row, None when fenced."""

    @abstractmethod
    async def note(self, run_id: str, fence: int, *, reason: str) -> bool:
        """Write why a claimed run stands where it stands (`sealing`); False when fenced."""

    @abstractmethod
    async def request_cancel(self, organization: str, run_id: str, actor: str) -> RunState | None:
        """Cancel a run that was never claimed; flag any other unfinished one. None when unknown."""

    @abstractmethod
    async def transitions(
        self, organization: str, run_id: str, *, newest: int = 500, before: int | None = None
    ) -> Sequence[Transition]:
        """Return the newest of a run's history, or of what was before one of its transitions, oldest first."""

    @abstractmethod
    async def claimable(self, *, unrung_since: timedelta, limit: int) -> Sequence[Ring]:
        """Return queued, due runs not rung lately and running ones whose lease is over, the longest waiting first."""

    @abstractmethod
    async def waiting(self, *, limit: int) -> Sequence[Waiting]:
        """Return the works that have queued runs, as many as the limit, the longest waiting first."""

    @abstractmethod
    async def stamp_rung(self, run_ids: Sequence[str], *, has_rung: bool = True) -> None:
        """Remember that the doorbell was rung, or that nobody came."""

    @abstractmethod
    async def forget_rings(self) -> None:
        """Take every queued run as not rung for, those that wait for their lanes too."""

    @abstractmethod
    async def next_in_lanes(self, run_ids: Sequence[str]) -> Sequence[Ring]:
        """Wake the oldest queued run of each lane that these runs have left, and return it to be rung for."""

    @abstractmethod
    async def last_of(self, organization: str, work: WorkName) -> Run | None:
        """Return the newest run of some work."""

    @abstractmethod
    async def characters_of(self, organization: str, run: str | WorkName) -> int:
        """Return how many characters are read for a run, by its id, or for the newest of some work; 0 without one."""

    @abstractmethod
    async def unfinished(self, organization: str, work: WorkName, lane: str) -> Run | None:
        """Return the oldest unfinished run of a lane, preferring the claimed one."""

    @abstractmethod
    async def holder(self, organization: str, work: WorkName, lane: str) -> Run | None:
        """Return the run that works in a lane under a living lease, or waits to try again; None when nobody does."""

    @abstractmethod
    async def forget_plans(self, organization: str, work: WorkName, lane: str) -> None:
        """Let the unfinished runs of a lane plan anew when they are claimed."""

    @abstractmethod
    async def next_fence(self, organization: str, work: WorkName, *, above: int = 0) -> int:
        """Raise the fence of some work, above a destination's too, for work outside a run (reset) and return it."""


class ILease(ABC):
    """A claim that is being renewed in the background."""

    @abstractmethod
    def stop_reason(self) -> str | None:
        """Why the holder must stop now (`lease_lost`, `cancelled`), or None; costs nothing to ask."""

    @abstractmethod
    def moved_to(self, fence: int) -> None:
        """Go on renewing under a raised fence."""
