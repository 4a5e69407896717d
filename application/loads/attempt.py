"""What one claim knows of its load: what it works at, and what it has completed on the way."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from application.runs.work import Claim
from domain.loads.checkpoint import LaneState
from domain.loads.read_set import ReadSet
from domain.pipelines.spec import Mode, PipelineSpec
from domain.ports.data_store import IOwner
from domain.runs.lane import Lane
from domain.runs.report import RunReport
from domain.runs.run import DamagedPlan, RunRequest
from domain.stores.connection import ConnectionSpec


@dataclass
class Attempt:
    """The load of one claim. `connections` gives those of both ends, or raises for one that is not there. `stored` is
    the read set that the records have for the run, `read_set` the one that this claim works at, `token` what its
    take-over at the destination was given, `completed_first` the report of another run's read set that it has completed
    before, `notes` what the report of what is planned next has to say. With `is_plan_damaged` the records
    have something else than a read set: what the run has loaded by now cannot be told from it.
    """

    claim: Claim
    spec: PipelineSpec
    connections: Callable[[], Sequence[ConnectionSpec]]
    stored: ReadSet | None = None
    read_set: ReadSet | None = None
    token: str | None = None
    completed_first: RunReport | None = None
    notes: tuple[str, ...] = ()
    is_plan_damaged: bool = False

    @classmethod
    def of(cls, claim: Claim, spec: PipelineSpec, connections: Callable[[], Sequence[ConnectionSpec]]) -> "Attempt":
        """The beginning of a claim, with what an attempt before it has planned."""
        stored = claim.run.read_set
        if isinstance(stored, DamagedPlan):
            return cls(claim, spec, connections, is_plan_damaged=True)
        assert stored is None or isinstance(stored, ReadSet)
        return cls(claim, spec, connections, stored=stored)

    @property
    def lane(self) -> Lane:
        """The lane of the run."""
        return self.claim.lane

    @property
    def request(self) -> RunRequest:
        """What the run was asked for with."""
        return self.claim.run.request

    @property
    def planned(self) -> ReadSet | None:
        """What this claim works at, else what one before it did; None while nothing is planned."""
        return self.read_set or self.stored

    def goes_on_after(self, read_set: ReadSet) -> bool:
        """Whether the run is not over when this is published: what arrived since an adopted read set is its own, as is
        what a limit of the other run left out, where it may be read twice.
        """
        is_part = read_set.plan.limit != self.request.limit and self.spec.destination.mode is not Mode.APPEND
        return read_set.is_adopted and (self.spec.source.cursor is not None or is_part)

    async def take_over(self, owner: IOwner) -> LaneState:
        """Take the lane over, and keep the token by which the next take-over shows that it is the same claim."""
        state = await owner.take_over()
        self.token = state.token
        return state
