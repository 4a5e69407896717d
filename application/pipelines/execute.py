"""A run from claim to end: take over, plan, stream, publish, finish; or seal and say why it failed."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import structlog

from application.connections.open_stores import OpenStores
from application.events.announce import Announcer
from application.pipelines.preparing import RunPreparer
from application.pipelines.reporting import published_report, run_report
from domain.errors import (
    ConflictError,
    ConversionError,
    FencedError,
    NotFoundError,
    PlatformError,
    UnavailableError,
    WorkFailedError,
)
from domain.events import BatchCommitted, BatchFailed, QualityIssueFound, RunFinished, RunStarted
from domain.failpoints import fail_at
from domain.pipelines.checkpoint import LaneState
from domain.pipelines.quality import Judgement, Measures, judge
from domain.pipelines.read_set import Lane, ReadSet
from domain.pipelines.run import Run, RunState
from domain.pipelines.spec import PipelineSpec
from domain.ports.data_store import IOwner, Publication
from domain.ports.engine import IEngine, OnProgress, Progress, StreamTask
from domain.ports.runtime import IIdentifiers, ITelemetry
from domain.ports.unit_of_work import ILease, IRecords

MAX_FRUITLESS_CLAIMS = 3


class _InterruptedError(Exception):
    """The streams stopped at a batch border because they were asked to."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass
class _Claim:
    """What this process holds while it executes one run."""

    run: Run
    spec: PipelineSpec
    lane: Lane
    lease: ILease
    fence: int
    has_taken_over: bool = False


@dataclass(frozen=True)
class RunExecutor:
    """Executes claimed runs. `owner` names this process in leases; `is_draining` says that it wants to stop."""

    records: IRecords
    stores: OpenStores
    engine: IEngine
    preparer: RunPreparer
    announcer: Announcer
    identifiers: IIdentifiers
    telemetry: ITelemetry
    owner: str
    lease: timedelta
    is_draining: Callable[[], bool]

    async def execute(self, run_id: str, on_progress: OnProgress = lambda _: None) -> Run | None:
        """Claim and execute a run; None when there is nothing to claim."""
        run = await self.claim(run_id)
        return await self.perform(run, on_progress) if run else None

    async def claim(self, run_id: str) -> Run | None:
        """Claim a run, raising its pipeline's fence."""
        async with self.records.unit() as unit:
            run = await unit.runs.claim(run_id, owner=self.owner, lease=self.lease)
            if run is not None:
                await unit.events.add(_started(run))
                await unit.commit()
        return run

    async def perform(self, run: Run, on_progress: OnProgress = lambda _: None) -> Run:
        """Execute a run that this process has claimed, and return it as it then stands."""
        await self.announcer.flush()
        with self.telemetry.span("run"):
            async with self.records.hold_lease(run.id, run.fence, lease=self.lease) as lease:
                spec = await self._spec_of(run)
                lane = Lane(run.organization, run.pipeline, run.lane)
                claim = _Claim(run, spec, lane, lease, run.fence)
                await self._perform(claim, on_progress)
        await self.announcer.flush()
        async with self.records.unit() as unit:
            stands = await unit.runs.get(run.organization, run.id)
        assert stands is not None
        return stands

    async def _perform(self, claim: _Claim, on_progress: OnProgress) -> None:
        started = time.monotonic()
        try:
            report = await self._load(claim, on_progress)
            await self._finish(claim, RunState.SUCCEEDED, "published", report, None, started)
        except _InterruptedError as stop:
            await self._stopped(claim, stop.reason, started)
        except FencedError:
            return  # Somebody else owns the run now, and will say how it ends.
        except PlatformError as error:
            await self._failed(claim, error, started)
        except Exception as error:  # noqa: BLE001 - the border where a bug becomes a failed run
            # A bug of ours must end the run with a sentence, not leave it running or show a traceback.
            structlog.get_logger("headrace").error("run.crashed", run_id=claim.run.id, exc_info=error)
            unexpected = PlatformError(
                f"Something unexpected failed ({type(error).__name__}); the log has the details."
            )
            await self._failed(claim, unexpected, started)

    async def _load(self, claim: _Claim, on_progress: OnProgress) -> Mapping[str, Any]:
        """Bring the lane's read set to its published end and return the report."""
        spec = claim.spec
        organization = claim.lane.organization
        destination_spec = await self.stores.spec_of(organization, spec.destination.connection)
        destination = await self.stores.get(organization, destination_spec)
        claim.spec = spec = await self.preparer.with_key(organization, spec)
        while True:
            try:
                async with destination.owner(claim.lane, spec.destination.table, claim.fence) as owner:
                    state = await owner.take_over()
                    claim.has_taken_over = True
                    if claim.run.cancel_requested:
                        raise _InterruptedError("cancelled")
                    return await self._load_as_owner(claim, owner, state, on_progress)
            except FencedError as error:
                await self._raise_fence(claim, error)

    async def _raise_fence(self, claim: _Claim, error: FencedError) -> None:
        """The destination remembers a higher fence than ours: if our claim still stands, go above it (M2)."""
        if error.fence is None or error.fence <= claim.fence:
            raise error
        async with self.records.unit() as unit:
            raised = await unit.runs.raise_fence(claim.run.id, claim.fence, above=error.fence)
            if raised is None:
                raise error
            await unit.commit()
        claim.fence = raised
        claim.lease.moved_to(raised)

    async def _load_as_owner(
        self, claim: _Claim, owner: IOwner, state: LaneState, on_progress: OnProgress
    ) -> Mapping[str, Any]:
        run = claim.run
        stored = ReadSet.from_json(run.read_set) if run.read_set else None
        if stored is not None and stored.id == state.read_set_id and not state.is_loading:
            return published_report(state)  # It died between publishing and saying so.
        read_set = stored or self._unfinished(claim, state)
        is_adopted = stored is None and read_set is not None
        if read_set is None:
            read_set = await self._planned(claim, state)
        elif is_adopted:
            await self._store(claim, read_set)
        publication, reports = await self._stream_and_publish(claim, owner, state, read_set, on_progress)
        report = run_report(read_set, publication, reports, adopted=is_adopted)
        if is_adopted and claim.spec.source.cursor is not None:
            # The unfinished read set is complete; what arrived since is this run's own.
            state = await owner.take_over()
            claim.run = replace(run, read_set=None)
            return await self._load_as_owner(claim, owner, state, on_progress)
        return report

    def _unfinished(self, claim: _Claim, state: LaneState) -> ReadSet | None:
        """The lane's unfinished read set, if this run may finish it.

        Raises:
            ConflictError: it may not, or the watermark belongs to another source.
        """
        if claim.run.request.full_refresh:
            return None
        remembered = state.stats.get("fingerprint")
        fits = remembered is None or remembered == claim.spec.fingerprint
        if not fits and (state.is_loading or (state.watermark is not None and claim.spec.source.cursor is not None)):
            what = "an unfinished load" if state.is_loading else "the watermark"
            raise ConflictError(
                f"The source, key, cursor or destination changed since {what} of {claim.spec.name} was written: run "
                "with --full-refresh to replace the table, or 'headrace pipelines reset' to start again beside it.",
                code="run.position_conflict",
            )
        return ReadSet.from_json(state.stats["read_set"]) if state.is_loading else None

    async def _planned(self, claim: _Claim, state: LaneState) -> ReadSet:
        read_set = await self.preparer.read_set(
            self.identifiers.new_id(), claim.lane, claim.spec, claim.run.request, state.watermark
        )
        await self._store(claim, read_set)
        fail_at("plan.after_store")
        return read_set

    async def _store(self, claim: _Claim, read_set: ReadSet) -> None:
        async with self.records.unit() as unit:
            if not await unit.runs.store_read_set(claim.run.id, claim.fence, read_set.to_json()):
                raise FencedError(f"The run {claim.run.id} has been claimed by another worker.")
            await unit.commit()

    async def _stream_and_publish(
        self, claim: _Claim, owner: IOwner, state: LaneState, read_set: ReadSet, on_progress: OnProgress
    ) -> tuple[Publication, list[Any]]:
        organization, spec = claim.lane.organization, claim.spec
        target, transform = await self.preparer.target(claim.run.id, organization, spec, read_set, claim.run.request)
        is_open = state.is_loading and state.read_set_id == read_set.id
        if not is_open or not read_set.plan.ordered:
            # Without a total order there is no place to go on from, so the staging starts again from empty.
            await owner.open_read_set(read_set, target)
            state = await owner.take_over()
        await self._refuse_poison(claim, state)
        source = await self.stores.spec_of(organization, spec.source.connection)
        destination = await self.stores.spec_of(organization, spec.destination.connection)
        streams = {stream.name: stream for stream in read_set.plan.streams}
        tasks = [
            StreamTask(
                spec=spec,
                lane=claim.lane,
                source=source,
                destination=destination,
                target=target,
                transform=transform,
                read_set=read_set,
                stream=streams[stream.stream],
                state=stream,
                fence=claim.fence,
            )
            for stream in state.streams
            if not stream.is_done
        ]
        reports = await self.engine.run(
            tasks, stop=lambda: self._stop_reason(claim), on_progress=self._progress(claim, on_progress)
        )
        if any(report.interrupted for report in reports):
            raise _InterruptedError(self._stop_reason(claim) or "stopped")
        uniques = tuple({rule.columns: None for rule in spec.quality if rule.kind == "unique"})
        publication = await owner.publish(read_set, target, uniques, lambda measures: _judge(spec, measures))
        for result in publication.judgement.results:
            if result.violations:
                self.announcer.tell(QualityIssueFound(*_ids(claim.run), result.rule, result.verdict, result.violations))
        return publication, reports

    async def _refuse_poison(self, claim: _Claim, state: LaneState) -> None:
        """Give up on a run whose claims keep dying in the same place (R4)."""
        if claim.run.attempt == 1:
            return
        async with self.records.unit() as unit:
            fruitless = await unit.runs.note_progress(claim.run.id, claim.fence, progress=state.seq)
            if fruitless is None:
                raise FencedError(f"The run {claim.run.id} has been claimed by another worker.")
            await unit.commit()
        if fruitless >= MAX_FRUITLESS_CLAIMS:
            raise WorkFailedError(
                f"{fruitless} workers in a row died at batch {state.seq + 1} of this run; look at their logs, then retry.",
                code="poison",
            )

    def _stop_reason(self, claim: _Claim) -> str | None:
        return claim.lease.stop_reason() or ("drained" if self.is_draining() else None)

    def _progress(self, claim: _Claim, on_progress: OnProgress) -> OnProgress:
        def tell(progress: Progress) -> None:
            rate = round(progress.rows_read / progress.seconds, 1) if progress.seconds else 0.0
            batch_id = f"{claim.run.id}/{progress.stream}/{progress.seq}"
            seconds = round(progress.seconds, 4)
            self.announcer.tell(
                BatchCommitted(*_ids(claim.run), batch_id, progress.rows_read, progress.rows_used, seconds, rate)
            )
            on_progress(progress)

        return tell

    async def _stopped(self, claim: _Claim, reason: str, started: float) -> None:
        match reason:
            case "cancelled":
                await self._seal_and_finish(claim, RunState.CANCELLED, "cancelled", None, started)
            case "lease_lost":
                return
            case _:
                async with self.records.unit() as unit:
                    await unit.runs.release(claim.run.id, claim.fence, reason=reason)
                    await unit.commit()

    async def _failed(self, claim: _Claim, error: PlatformError, started: float) -> None:
        self.announcer.tell(BatchFailed(*_ids(claim.run), claim.run.id, error.code, error.message))
        told = {"code": error.code, "message": error.message, "retryable": error.retryable}
        if not claim.has_taken_over and claim.run.attempt == 1:
            # Nobody has written for this run, so there is no writer to stop and nothing to seal.
            await self._finish(claim, RunState.FAILED, error.code, None, told, started)
            return
        await self._seal_and_finish(claim, RunState.FAILED, error.code, told, started)

    async def _seal_and_finish(
        self, claim: _Claim, state: RunState, reason: str, error: Mapping[str, Any] | None, started: float
    ) -> None:
        """Stop every writer at the destination first; while it cannot be reached the run stays running."""
        try:
            organization, spec = claim.lane.organization, claim.spec
            destination = await self.stores.get(
                organization, await self.stores.spec_of(organization, spec.destination.connection)
            )
            async with destination.owner(claim.lane, spec.destination.table, claim.fence) as owner:
                await owner.take_over()
                await owner.seal()
        except FencedError:
            return
        except (UnavailableError, NotFoundError):
            async with self.records.unit() as unit:
                await unit.runs.note(claim.run.id, claim.fence, reason="sealing")
                await unit.commit()
            return
        await self._finish(claim, state, reason, None, error, started)

    async def _finish(
        self,
        claim: _Claim,
        state: RunState,
        reason: str,
        report: Mapping[str, Any] | None,
        error: Mapping[str, Any] | None,
        started: float,
    ) -> None:
        fail_at("finish.before_state")
        counts = (report or {}).get("counts", {})
        finished = RunFinished(
            *_ids(claim.run),
            state=state.value,
            rows_read=counts.get("read", 0),
            rows_used=counts.get("used", 0),
            duration_seconds=round(time.monotonic() - started, 3),
            code=(error or {}).get("code"),
        )
        async with self.records.unit() as unit:
            done = await unit.runs.finish(claim.run.id, claim.fence, state, reason=reason, report=report, error=error)
            if done:
                await unit.events.add(finished)
                await unit.commit()

    async def _spec_of(self, run: Run) -> PipelineSpec:
        async with self.records.unit() as unit:
            revisions = await unit.pipelines.revisions(run.organization, run.pipeline)
        document = next(stored.document for stored in revisions if stored.revision == run.revision)
        return PipelineSpec.from_document(document).with_parameters(run.request.parameters)


def _judge(spec: PipelineSpec, measures: Measures) -> Judgement:
    counts = measures.counts
    if not spec.on_error.allows(counts.failed, counts.read):
        raise ConversionError(f"{counts.failed} of {counts.read} rows did not convert, more than on_error allows.")
    return judge(spec.quality, measures)


def _started(run: Run) -> RunStarted:
    return RunStarted(*_ids(run), attempt=run.attempt, fence=run.fence)


def _ids(run: Run) -> tuple[str, str, str]:
    return run.organization, run.pipeline, run.id
