"""A run of a pipeline: brings its lane's read set to the published end, or stops it at the destination."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from application.connections.open_stores import OpenStores
from application.loads.attempt import Attempt
from application.loads.ends import connections_of
from application.loads.load import ReadSetLoader
from application.loads.report import published_report, unfinished_report
from application.runs.work import Claim, IWork, IWorks, Sealed
from domain.errors import FencedError, NotFoundError
from domain.loads.checkpoint import LaneState
from domain.pipelines.replay import replay_of
from domain.pipelines.spec import PipelineSpec, RetryOptions
from domain.ports.engine import OnProgress
from domain.ports.records.unit_of_work import IRecords, IUnitOfWork
from domain.quality.measures import Counts
from domain.runs.report import RunReport
from domain.runs.run import Run
from domain.stores.connection import ConnectionSpec

_REMEMBERED_SPECS = 1000


class PipelineWork(IWork):
    """The load of one claim."""

    def __init__(
        self,
        spec: PipelineSpec,
        connections: Sequence[ConnectionSpec] | NotFoundError,
        records: IRecords,
        stores: OpenStores,
        loader: ReadSetLoader,
    ) -> None:
        self._spec = spec
        self._connections = connections
        self._records = records
        self._stores = stores
        self._loader = loader
        self._attempt: Attempt | None = None

    @property
    def retry(self) -> RetryOptions:
        return self._spec.retry

    def timeout_or(self, default: timedelta) -> timedelta:
        return self._spec.run.timeout_or(default)

    async def perform(self, claim: Claim, on_progress: OnProgress) -> RunReport:
        return await self._loader.load(self._attempt_of(claim), on_progress)

    async def seal(self, claim: Claim) -> Sealed | None:
        attempt = self._attempt_of(claim)
        planned = attempt.planned
        if attempt.is_plan_damaged:
            return Sealed(is_done=False, report=unfinished_report(await self._sealed(attempt)))
        if planned is None:
            # No attempt at this run has opened a read set, and none can any more: there is no writer to stop.
            return None
        left = await self._sealed(attempt)
        if left.read_set_id == planned.id and not left.is_loading and not attempt.goes_on_after(planned):
            return Sealed(is_done=True, report=published_report(left, planned))
        return Sealed(is_done=False, report=unfinished_report(left))

    def completed(self) -> RunReport | None:
        if self._attempt is None or self._attempt.completed_first is None:
            return None
        return RunReport.of_counts(Counts()).after(self._attempt.completed_first)

    def _attempt_of(self, claim: Claim) -> Attempt:
        if self._attempt is None:
            self._attempt = Attempt.of(claim, self._spec, self._known_connections)
        return self._attempt

    def _known_connections(self) -> Sequence[ConnectionSpec]:
        if isinstance(self._connections, NotFoundError):
            raise self._connections
        return self._connections

    async def _sealed(self, attempt: Attempt) -> LaneState:
        claim, wanted = attempt.claim, attempt.spec.destination
        destination = await self._stores.named_destination(attempt.lane.organization, wanted.connection)
        while True:
            try:
                async with destination.owner(attempt.lane, wanted.table, claim.fence, token=attempt.token) as owner:
                    left = await attempt.take_over(owner)
                    await owner.seal()
                return left
            except FencedError as error:
                await claim.go_above(self._records, error)


@dataclass(frozen=True)
class PipelineWorks(IWorks):
    """Finds the pipeline of a run, as it was when the run was asked for."""

    records: IRecords
    stores: OpenStores
    loader: ReadSetLoader
    _specs: dict[tuple[str, str, int], PipelineSpec] = field(default_factory=dict)

    async def of(self, run: Run) -> PipelineWork:
        connections: Sequence[ConnectionSpec] | NotFoundError
        async with self.records.read(run.scope) as unit:
            spec = await self._spec_of(unit, run)
            try:
                connections = await self.stores.specs_in(unit, run.organization, connections_of(spec))
            except NotFoundError as error:  # By which the run fails, once it is performed.
                connections = error
        return PipelineWork(spec, connections, self.records, self.stores, self.loader)

    async def _spec_of(self, unit: IUnitOfWork, run: Run) -> PipelineSpec:
        key = (run.organization, run.work.name, run.work.revision)
        if key not in self._specs:
            (stored,) = await unit.pipelines.revisions(*key[:2], before=run.work.revision + 1, limit=1)
            if len(self._specs) >= _REMEMBERED_SPECS:
                self._specs.clear()
            # A revision never changes, so it is remembered for good.
            self._specs[key] = PipelineSpec.from_document(stored.document)
        spec = self._specs[key].with_parameters(run.request.parameters)
        return replay_of(spec, run.organization, run.request.replay) if run.request.replay is not None else spec
