"""A claimed run in the hands of this process, and what it is a run of: the work, which knows how it is done and
stopped.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from domain.errors import FencedError, StoreUnavailableError
from domain.events import Origin
from domain.pipelines.spec import RetryOptions
from domain.ports.engine import OnProgress
from domain.ports.records.runs import ILease
from domain.ports.records.unit_of_work import IRecords
from domain.ports.runtime import IClock
from domain.runs.lane import Lane
from domain.runs.report import RunReport
from domain.runs.run import Run
from domain.runs.work import WorkKind

MAX_RAISED = 10
"""How often a claim goes above what a destination remembers; an older copy of the records takes one."""


class StoppedError(Exception):
    """The work stopped because it was asked to; `reason` says by what."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass
class Claim:
    """A claimed run in the hands of this process, and its work. `timeout` is how long it may take; `raised` says how
    often the fence was.
    """

    run: Run
    work: "IWork"
    lease: ILease
    fence: int
    timeout: timedelta
    is_draining: Callable[[], bool]
    clock: IClock
    raised: int = 0
    started: float = field(init=False)

    def __post_init__(self) -> None:
        self.started = self.clock.monotonic()

    @property
    def lane(self) -> Lane:
        """The lane of the run."""
        return Lane(self.run.organization, self.run.work.name, self.run.lane)

    @property
    def origin(self) -> Origin:
        """Where its events come from."""
        return Origin.of(self.run)

    @property
    def seconds(self) -> float:
        """How long the work has taken so far."""
        return round(self.clock.monotonic() - self.started, 3)

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
                f"Somebody with other records has taken the lane {self.lane} over {MAX_RAISED} times while this run "
                "was at work: let only one installation load this table, or give the pipelines different names.",
                code="run.contested",
            ) from error
        async with records.unit(self.run.scope) as unit:
            raised = await unit.runs.raise_fence(self.run.id, self.fence, above=error.fence)
            if raised is None:
                raise error
            await unit.commit()
        self.fence = raised
        self.lease.moved_to(raised)

    def stop_reason(self) -> str | None:
        """Why the work must stop now, or None; costs nothing to ask."""
        reason = self.lease.stop_reason()
        if reason is None and self.seconds > self.timeout.total_seconds():
            return "timeout"
        return reason or ("drained" if self.is_draining() else None)


@dataclass(frozen=True)
class Sealed:
    """What was found once no writer of the work can write any more. `is_done` says that an attempt had finished it
    before; `report` tells of what there is, None where nothing is open.
    """

    is_done: bool
    report: RunReport | None


class IWork(ABC):
    """The work of one claim; it remembers how far the claim has come with it."""

    @property
    @abstractmethod
    def retry(self) -> RetryOptions:
        """What follows a failure that may pass."""

    @abstractmethod
    def timeout_or(self, default: timedelta) -> timedelta:
        """How long an attempt may take."""

    @abstractmethod
    async def perform(self, claim: Claim, on_progress: OnProgress) -> RunReport:
        """Do the work to its published end, going on where an attempt before has left it; return the run's report.

        Raises:
            StoppedError: it stopped at a border of its own because the claim was asked to.
            FencedError: another worker owns the run or what it works at.
        """

    @abstractmethod
    async def seal(self, claim: Claim) -> Sealed | None:
        """Stop every writer for good and say what is there; None where no attempt has begun, so that there is none.

        Raises:
            FencedError: another worker owns what it works at.
        """

    @abstractmethod
    def completed(self) -> RunReport | None:
        """The report of what the claim has completed so far, for an end that has none of its own."""


class IWorks(ABC):
    """Finds the work of a run."""

    @abstractmethod
    async def of(self, run: Run) -> IWork:
        """The work of a claimed run, at the revision that it was asked for with."""


@dataclass(frozen=True)
class WorksByKind(IWorks):
    """Asks who knows the kind of work that a run is a run of."""

    kinds: Mapping[WorkKind, IWorks]

    async def of(self, run: Run) -> IWork:
        return await self.kinds[run.work.kind].of(run)
