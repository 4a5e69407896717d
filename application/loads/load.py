"""Brings a lane's read set to its published end: lane, plan, landing, route, streams, publication."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import cached_property

from application.connections.open_stores import OpenStores
from application.events.announce import Announcer
from application.loads.attempt import Attempt
from application.loads.ends import Ends, open_ends
from application.loads.landing import LandingPlanner, Prepared
from application.loads.lane import (
    check_table_is_there,
    is_forgotten,
    is_over,
    kept_watermark,
    leaves_nothing,
    refuse_to_read_again,
    unfinished,
)
from application.loads.plan_read import ReadPlanner, refuse_part
from application.loads.publish import verdict_of
from application.loads.report import Loaded, left_by_abandoned, published_report, run_report
from application.loads.route import route_of
from application.loads.telling import LoadTeller
from application.runs.gathering import Gathered
from application.runs.work import StoppedError
from domain.errors import FencedError, QualityRejectedError, WorkFailedError
from domain.failpoints import fail_at
from domain.loads.checkpoint import POSITION_FORMAT, LaneState
from domain.loads.read_set import ReadSet, id_after
from domain.loads.report import StreamReport
from domain.loads.way import Route, Way
from domain.pipelines.replay import refusals_of
from domain.pipelines.spec import Mode
from domain.ports.data_store import IOwner
from domain.ports.engine import IEngine, OnProgress, StreamTask
from domain.ports.records.unit_of_work import IRecords
from domain.ports.runtime import IClock, IIdentifiers
from domain.ports.telemetry import ITelemetry
from domain.runs.report import RunReport
from domain.runs.run import Run

MAX_FRUITLESS_CLAIMS = 3


@dataclass(eq=False)
class ReadSetLoader:
    """Loads read sets of claimed runs. `parallelism` is the streams at a time where a pipeline says nothing, and
    `max_parallelism` the most; `most_bytes` are those of all their batches together.
    """

    records: IRecords
    stores: OpenStores
    engine: IEngine
    reads: ReadPlanner
    landings: LandingPlanner
    announcer: Announcer
    identifiers: IIdentifiers
    clock: IClock
    telemetry: ITelemetry
    parallelism: int
    max_parallelism: int = 64
    most_bytes: int = 1024**3

    async def load(self, attempt: Attempt, on_progress: OnProgress) -> RunReport:
        """Bring the lane's read set to its published end and return the report.

        Raises:
            StoppedError: the streams stopped at a batch border because they were asked to.
            FencedError: another worker owns the run or the lane.
            WorkFailedError: the plan in the records was changed by somebody (`run.plan_damaged`), or what a load may
                fail by.
        """
        claim = attempt.claim
        if claim.run.cancel_requested:
            raise StoppedError("cancelled")  # Before a store is opened that may be why somebody gave up on the run.
        if attempt.is_plan_damaged:  # Planned anew, it might read for a second time what it has loaded.
            raise WorkFailedError(
                "What the records say that this run reads is not as Headrace writes it: somebody has changed it. The "
                "rows that it has committed stay; run the pipeline again with --full-refresh.",
                code="run.plan_damaged",
            )
        refuse_part(attempt.spec, attempt.request)  # It must not complete a part that a run before it has left either.
        with self.telemetry.span("open stores"):
            ends = await open_ends(self.stores, attempt.lane.organization, attempt.connections())
            await ends.check_health()
        attempt.spec = spec = await self.reads.with_key(ends.source, attempt.spec)
        while True:
            try:
                async with ends.destination.owner(
                    attempt.lane, spec.destination.table, claim.fence, token=attempt.token
                ) as owner:
                    state = await attempt.take_over(owner)
                    return await self._load_as_owner(attempt, ends, owner, state, on_progress)
            except FencedError as error:
                await claim.go_above(self.records, error)

    async def _load_as_owner(
        self, attempt: Attempt, ends: Ends, owner: IOwner, state: LaneState, on_progress: OnProgress
    ) -> RunReport:
        stored = attempt.stored
        if stored is not None and stored.id == state.read_set_id and not state.is_loading:
            # It died between publishing and saying so.
            done, report = stored, published_report(state, stored)
        else:
            done, state = await self._chosen(attempt, ends, owner, state)
            attempt.read_set = done
            report = run_report(done, await self._loaded(attempt, ends, owner, state, done, on_progress))
        if not attempt.goes_on_after(done):
            return report
        # After an adopted read set, what arrived since is still to be read.
        attempt.stored, attempt.read_set, attempt.completed_first = None, None, report.before_more
        return await self._load_as_owner(attempt, ends, owner, await attempt.take_over(owner), on_progress)

    async def _chosen(self, attempt: Attempt, ends: Ends, owner: IOwner, state: LaneState) -> tuple[ReadSet, LaneState]:
        """The read set to load: the run's own, else what the lane has unfinished, else what is read from here on."""
        stored, spec = attempt.stored, attempt.spec
        is_overtaken = stored is not None and is_over(stored, state)
        if is_overtaken:
            stored = None  # Another run has completed or abandoned it since; what is left is read anew.
        if stored is None and (attempt.request.abandon or leaves_nothing(spec, state)) and is_forgotten(spec, state):
            attempt.notes = left_by_abandoned(state, spec)
            await owner.reset(kept_watermark(spec, state))  # Committed rows stay.
            state = await attempt.take_over(owner)
        if stored is not None:
            return stored, state
        adopted = unfinished(attempt, state)
        if adopted is not None:
            # It may have failed for the size of its batches.
            size = self.reads.batch_bytes(spec)
            adopted = replace(adopted, is_adopted=True, completed_first=None, batch_bytes=size)
            await self._store(attempt, adopted)
            return adopted, state
        if is_overtaken:
            refuse_to_read_again(attempt, state)
        return await self._planned(attempt, ends, state), state

    async def _planned(self, attempt: Attempt, ends: Ends, state: LaneState) -> ReadSet:
        with self.telemetry.span("plan"):
            read_set = await self.reads.read_set(
                await self._new_id(attempt, ends), attempt.lane, ends, attempt.spec, attempt.request, state
            )
        plan = replace(read_set.plan, warnings=(*read_set.plan.warnings, *attempt.notes))
        read_set, attempt.notes = replace(read_set, plan=plan, completed_first=attempt.completed_first), ()
        await self._store(attempt, read_set)
        # Whoever claims again above another owner has to know what was planned before.
        attempt.stored = read_set
        fail_at("plan.after_store")
        return read_set

    async def _new_id(self, attempt: Attempt, ends: Ends) -> str:
        """An id for a read set. Refused rows that are merged are replayed in the order of these, so it is greater than
        those of all that refused any before, whatever the clock says.
        """
        spec, new = attempt.spec, self.identifiers.new_id()
        if spec.destination.mode is not Mode.MERGE:
            return new
        return id_after(new, await ends.destination.latest_read_set(refusals_of(spec, attempt.lane.organization)))

    async def _store(self, attempt: Attempt, read_set: ReadSet) -> None:
        if not await self._gathered.ask((attempt.claim.run, attempt.claim.fence, read_set)):
            raise _fenced(attempt)

    @cached_property
    def _gathered(self) -> Gathered[tuple[Run, int, ReadSet], bool]:
        return Gathered(self._store_all, apart=lambda planned: planned[0].scope)

    async def _store_all(self, planned: Sequence[tuple[Run, int, ReadSet]]) -> Sequence[bool]:
        async with self.records.unit(planned[0][0].scope) as unit:
            stored = await unit.runs.store_read_sets({(run.id, fence): plan for run, fence, plan in planned})
            await unit.commit()
        return [run.id in stored for run, _, _ in planned]

    async def _loaded(
        self,
        attempt: Attempt,
        ends: Ends,
        owner: IOwner,
        state: LaneState,
        read_set: ReadSet,
        on_progress: OnProgress,
    ) -> Loaded:
        """Stream a read set and publish it."""
        spec = attempt.spec
        landing = await self.landings.target(attempt.claim.run.id, ends.destination, spec, read_set, attempt.request)
        route = await route_of(self.landings.transformer, ends, spec, read_set.plan, landing)
        state = await self._opened(attempt, ends, owner, state, read_set, landing)
        await self._refuse_poison(attempt, state)
        reports = await self._streamed(attempt, _tasks(attempt, ends, read_set, state, landing, route), on_progress)
        # Every stream has its report, also one that an earlier attempt brought to its end.
        before = [StreamReport(s.stream, s.counts, s.seq, measures=s.measures) for s in state.streams if s.is_done]
        reports = sorted([*before, *reports], key=lambda report: report.stream)
        verdict = verdict_of(spec, read_set, landing.transform, self.clock.now())
        teller = LoadTeller(self.announcer, attempt)
        try:
            with self.telemetry.span("publish"):
                publication = await owner.publish(read_set, landing.target, verdict.checks, verdict.judge)
        except QualityRejectedError as error:
            teller.rejected(error)
            raise
        teller.published(publication, landing)
        return Loaded(
            publication, reports, route, landing.hooks, landing.target.discarded, landing.added, landing.left_out
        )

    async def _opened(
        self,
        attempt: Attempt,
        ends: Ends,
        owner: IOwner,
        state: LaneState,
        read_set: ReadSet,
        landing: Prepared,
    ) -> LaneState:
        """Open the read set at the destination, or go on in it."""
        is_open = state.is_loading and state.read_set_id == read_set.id
        check_table_is_there(attempt.spec, state, landing, is_open=is_open)
        if not is_open or not read_set.plan.ordered or state.seq == 0:
            # Without a total order there is no place to go on from, so the staging starts again from empty; and of a
            # load without a batch nothing may be left.
            return await owner.open_read_set(read_set, landing.target)
        by_name = {stream.name: stream for stream in read_set.plan.streams}
        for left in state.streams:
            if left.position is not None and not left.is_done and left.format < POSITION_FORMAT and read_set.plan.order:
                # An earlier version may have left rows between two batches.
                await ends.source.check_place(attempt.spec.source, read_set.plan, by_name[left.stream], left.position)
        await owner.fit(landing.target)  # A new revision may bring columns that the open load does not have.
        return state

    async def _refuse_poison(self, attempt: Attempt, state: LaneState) -> None:
        """Give up on a run whose claims keep dying in the same place (R4)."""
        claim = attempt.claim
        if claim.run.attempt == 1:
            return
        async with self.records.unit(claim.run.scope) as unit:
            fruitless = await unit.runs.note_progress(claim.run.id, claim.fence, progress=state.seq)
            if fruitless is None:
                raise _fenced(attempt)
            await unit.commit()
        if fruitless >= MAX_FRUITLESS_CLAIMS:
            raise WorkFailedError(
                f"{fruitless} workers in a row died at batch {state.seq + 1} of this run; look at their logs, then "
                "retry.",
                code="poison",
            )

    async def _streamed(
        self, attempt: Attempt, tasks: list[StreamTask], on_progress: OnProgress
    ) -> Sequence[StreamReport]:
        """Bring every stream to its end, as many at a time as are wanted, and as memory is there for."""
        claim = attempt.claim
        wanted = min(attempt.spec.run.parallelism or self.parallelism, self.max_parallelism, len(tasks))
        parallelism = max(1, min(wanted, self.most_bytes // tasks[0].read_set.batch_bytes)) if tasks else 1
        async with self._in_one_snapshot(tasks, parallelism) as ready:
            reports = await self.engine.run(
                ready,
                parallelism=parallelism,
                stop=claim.stop_reason,
                on_news=LoadTeller(self.announcer, attempt).hearing(on_progress),
            )
        if any(report.interrupted for report in reports):
            raise StoppedError(claim.stop_reason() or "stopped")
        return reports

    @asynccontextmanager
    async def _in_one_snapshot(self, tasks: list[StreamTask], readers: int) -> AsyncIterator[list[StreamTask]]:
        """Let several streams see the source at one moment, where it can show one to several readers."""
        if len(tasks) < 2:
            yield tasks
            return
        first = tasks[0]
        store = await self.stores.get(first.lane.organization, first.source)
        if not store.capabilities.shares_snapshots:
            yield tasks
            return
        undecoded = first.route.way is Way.PASS_THROUGH
        async with AsyncExitStack() as stack:
            held = store.snapshot(first.spec.source, readers=readers, undecoded=undecoded, by=first.owner)
            name = await self.reads.patience.answer(stack.enter_async_context(held))
            yield [replace(task, snapshot=name) for task in tasks]


def _tasks(
    attempt: Attempt, ends: Ends, read_set: ReadSet, state: LaneState, landing: Prepared, route: Route
) -> list[StreamTask]:
    """What is left to do of each stream."""
    streams = {stream.name: stream for stream in read_set.plan.streams}
    return [
        StreamTask(
            spec=attempt.spec,
            lane=attempt.lane,
            source=ends.source_connection,
            destination=ends.destination_connection,
            target=landing.target,
            transform=landing.transform,
            read_set=read_set,
            stream=streams[stream.stream],
            state=stream,
            fence=attempt.claim.fence,
            token=attempt.token or "",
            route=route,
        )
        for stream in state.streams
        if not stream.is_done
    ]


def _fenced(attempt: Attempt) -> FencedError:
    return FencedError(f"The run {attempt.claim.run.id} has been claimed by another worker.")
