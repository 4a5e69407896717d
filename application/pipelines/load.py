"""Brings a lane's read set to its published end: take over, plan, stream, publish."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from application.connections.open_stores import OpenStores
from application.events.announce import Announcer
from application.pipelines.claim import Claim, StoppedError
from application.pipelines.gathering import Gathered
from application.pipelines.preparing import Prepared, RunPreparer
from application.pipelines.reporting import Loaded, left_by_abandoned, published_report, run_report, told_first
from domain.errors import ConflictError, ConversionError, FencedError, WorkFailedError
from domain.events import BatchCommitted, QualityIssueFound, SchemaViolationFound
from domain.failpoints import fail_at
from domain.loads.checkpoint import POSITION_FORMAT, LaneState
from domain.loads.read_set import ReadSet
from domain.loads.report import StreamReport
from domain.loads.way import Route, Way
from domain.pipelines.spec import Mode, PipelineSpec
from domain.ports.data_store import IOwner, Publication
from domain.ports.engine import IEngine, OnProgress, Progress, StreamTask
from domain.ports.runtime import IClock, IIdentifiers
from domain.ports.transformer import TransformPlan
from domain.ports.unit_of_work import IRecords
from domain.quality.rules import Judgement, Measures, Rule, StagedChecks, judge

MAX_FRUITLESS_CLAIMS = 3


@dataclass(frozen=True)
class ReadSetLoader:
    """Loads read sets of claimed runs. `parallelism` is the streams at a time where a pipeline says nothing, and
    `max_parallelism` the most; `most_bytes` are those of all their batches together.
    """

    records: IRecords
    stores: OpenStores
    engine: IEngine
    preparer: RunPreparer
    announcer: Announcer
    identifiers: IIdentifiers
    clock: IClock
    parallelism: int
    max_parallelism: int = 64
    most_bytes: int = 1024**3

    async def load(self, claim: Claim, on_progress: OnProgress) -> Mapping[str, Any]:
        """Bring the lane's read set to its published end and return the report.

        Raises:
            StoppedError: the streams stopped at a batch border because they were asked to.
            FencedError: another worker owns the run or the lane.
        """
        spec = claim.spec
        organization = claim.lane.organization
        destination_spec = await self.stores.spec_of(organization, spec.destination.connection)
        destination = await self.stores.get(organization, destination_spec)
        claim.spec = spec = await self.preparer.with_key(organization, spec)
        while True:
            try:
                async with destination.owner(
                    claim.lane, spec.destination.table, claim.fence, token=claim.token
                ) as owner:
                    state = await claim.take_over(owner)
                    if claim.run.cancel_requested:
                        raise StoppedError("cancelled")
                    return await self._load_as_owner(claim, owner, state, on_progress)
            except FencedError as error:
                await claim.go_above(self.records, error)

    async def _load_as_owner(
        self, claim: Claim, owner: IOwner, state: LaneState, on_progress: OnProgress
    ) -> Mapping[str, Any]:
        run = claim.run
        stored = ReadSet.from_json(run.read_set) if run.read_set else None
        if stored is not None and stored.id == state.read_set_id and not state.is_loading:
            # It died between publishing and saying so.
            report = published_report(state, stored)
            return await self._after(claim, owner, stored, report, on_progress)
        is_overtaken = stored is not None and _is_over(stored, state)
        if is_overtaken:
            stored = None  # Another run has completed or abandoned it since; what is left is read anew.
        if stored is None and (run.request.abandon or _leaves_nothing(claim, state)):
            state = await self._abandoned(claim, owner, state)
        read_set = stored or self._unfinished(claim, state)
        if read_set is None:
            if is_overtaken:
                _refuse_to_read_again(claim, state)
            read_set = await self._planned(claim, state)
        elif stored is None:
            # It may have failed for the size of its batches.
            size = self.preparer.batch_bytes(claim.spec)
            read_set = replace(read_set, is_adopted=True, completed_first=None, batch_bytes=size)
            await self._store(claim, read_set)
        claim.read_set = read_set
        loaded = await self._stream_and_publish(claim, owner, state, read_set, on_progress)
        return await self._after(claim, owner, read_set, run_report(read_set, loaded), on_progress)

    async def _after(
        self, claim: Claim, owner: IOwner, done: ReadSet, report: Mapping[str, Any], on_progress: OnProgress
    ) -> Mapping[str, Any]:
        """Report what is published; after an adopted read set, what arrived since is still to be read."""
        if not claim.goes_on_after(done):
            return report
        claim.run, claim.read_set, claim.completed_first = replace(claim.run, read_set=None), None, told_first(report)
        return await self._load_as_owner(claim, owner, await claim.take_over(owner), on_progress)

    async def _abandoned(self, claim: Claim, owner: IOwner, state: LaneState) -> LaneState:
        """Forget what the lane left unfinished, and a watermark of another source; committed rows stay."""
        fits = _fits(claim, state)
        if not (state.is_loading or (not fits and _has_position(claim, state))):
            return state
        claim.notes = left_by_abandoned(state, claim.spec)
        await owner.reset(state.watermark if fits else None)
        return await claim.take_over(owner)

    def _unfinished(self, claim: Claim, state: LaneState) -> ReadSet | None:
        """The lane's unfinished read set, if this run may finish it.

        Raises:
            ConflictError: it may not, or the watermark belongs to another source.
        """
        if claim.run.request.full_refresh:
            return None
        has_begun = state.is_loading and state.seq > 0  # Of what committed no batch there is nothing to finish.
        if not _fits(claim, state) and (has_begun or _has_position(claim, state)):
            what = "an unfinished load" if has_begun else "the watermark"
            raise ConflictError(
                f"The source, key, cursor or destination changed since {what} of {claim.spec.name} was written: run "
                "with --full-refresh to replace the table, or with --abandon to forget it and start again beside the "
                "rows that are there.",
                code="run.position_conflict",
            )
        return ReadSet.from_json(state.stats["read_set"]) if has_begun else None

    async def _planned(self, claim: Claim, state: LaneState) -> ReadSet:
        read_set = await self.preparer.read_set(
            self.identifiers.new_id(), claim.lane, claim.spec, claim.run.request, state
        )
        plan = replace(read_set.plan, warnings=(*read_set.plan.warnings, *claim.notes))
        read_set, claim.notes = replace(read_set, plan=plan, completed_first=claim.completed_first), ()
        await self._store(claim, read_set)
        # Whoever claims again above another owner has to know what was planned before.
        claim.run = replace(claim.run, read_set=read_set.to_json())
        fail_at("plan.after_store")
        return read_set

    async def _store(self, claim: Claim, read_set: ReadSet) -> None:
        if not await self._gathered.ask((claim.run.id, claim.fence, read_set)):
            raise _fenced(claim)

    @cached_property
    def _gathered(self) -> Gathered[tuple[str, int, ReadSet], bool]:
        return Gathered(self._store_all)

    async def _store_all(self, planned: Sequence[tuple[str, int, ReadSet]]) -> Sequence[bool]:
        async with self.records.unit() as unit:
            stored = await unit.runs.store_read_sets({(run, fence): plan.to_json() for run, fence, plan in planned})
            await unit.commit()
        return [run in stored for run, _, _ in planned]

    async def _stream_and_publish(
        self, claim: Claim, owner: IOwner, state: LaneState, read_set: ReadSet, on_progress: OnProgress
    ) -> Loaded:
        organization, spec = claim.lane.organization, claim.spec
        prepared = await self.preparer.target(claim.run.id, organization, spec, read_set, claim.run.request)
        target, transform = prepared.target, prepared.transform
        route = await self.preparer.route(organization, spec, read_set.plan, target, transform)
        is_open = state.is_loading and state.read_set_id == read_set.id
        _check_table_is_there(spec, state, prepared, is_open=is_open)
        if not is_open or not read_set.plan.ordered or state.seq == 0:
            # Without a total order there is no place to go on from, so the staging starts again from empty; and of a load
            # without a batch nothing may be left.
            await owner.open_read_set(read_set, target)
            state = await claim.take_over(owner)
        else:
            await self._check_places(organization, spec, state, read_set)
            await owner.fit(target)  # A new revision may bring columns that the open load does not have.
        await self._refuse_poison(claim, state)
        tasks = await self._tasks(claim, read_set, state, prepared, route)
        parallelism = self._at_a_time(spec, read_set, tasks)
        async with self._in_one_snapshot(organization, tasks, parallelism) as ready:
            reports = await self.engine.run(
                ready,
                parallelism=parallelism,
                stop=claim.stop_reason,
                on_progress=self._progress(claim, on_progress),
            )
        if any(report.interrupted for report in reports):
            raise StoppedError(claim.stop_reason() or "stopped")
        # Every stream has its report, also one that an earlier attempt brought to its end.
        before = [StreamReport(s.stream, s.counts, s.seq, stats=s.stats) for s in state.streams if s.is_done]
        reports = sorted([*before, *reports], key=lambda report: report.stream)
        rules = tuple(_landed(rule, transform) for rule in spec.quality)
        judged = replace(spec, quality=rules)
        now, complete = self.clock.now(), _complete(spec, read_set, transform)

        def verdict(measures: Measures) -> Judgement:
            return _judge(judged, replace(measures, now=now, complete=complete))

        publication = await owner.publish(read_set, target, StagedChecks.of(rules), verdict)
        for result in publication.judgement.results:
            if result.violations:
                self.announcer.tell(QualityIssueFound(*claim.ids, result.rule, result.verdict, result.violations))
        self._tell_schema_violations(claim, publication, prepared)
        return Loaded(publication, reports, route, prepared.hooks, target.discarded, prepared.added, prepared.left_out)

    def _at_a_time(self, spec: PipelineSpec, read_set: ReadSet, tasks: Sequence[StreamTask]) -> int:
        """How many streams run at a time: as many as are wanted, and as memory is there for."""
        wanted = min(spec.run.parallelism or self.parallelism, self.max_parallelism, len(tasks))
        return max(1, min(wanted, self.most_bytes // read_set.batch_bytes))

    async def _tasks(
        self, claim: Claim, read_set: ReadSet, state: LaneState, prepared: Prepared, route: Route
    ) -> list[StreamTask]:
        """What is left to do of each stream."""
        organization, spec = claim.lane.organization, claim.spec
        source = await self.stores.spec_of(organization, spec.source.connection)
        destination = await self.stores.spec_of(organization, spec.destination.connection)
        streams = {stream.name: stream for stream in read_set.plan.streams}
        return [
            StreamTask(
                spec=spec,
                lane=claim.lane,
                source=source,
                destination=destination,
                target=prepared.target,
                transform=prepared.transform,
                read_set=read_set,
                stream=streams[stream.stream],
                state=stream,
                fence=claim.fence,
                token=claim.token or "",
                route=route,
            )
            for stream in state.streams
            if not stream.is_done
        ]

    def _tell_schema_violations(self, claim: Claim, publication: Publication, prepared: Prepared) -> None:
        counts = publication.counts
        found = [("unconverted", column, rows) for column, rows in publication.stats.get("unconverted", {}).items()]
        found += [("column_discarded", column, counts.read) for column in prepared.target.discarded]
        found += [("column_added", column, counts.used) for column in prepared.added]
        for violation, column, rows in found:
            if rows:
                self.announcer.tell(SchemaViolationFound(*claim.ids, violation, column, rows))

    @asynccontextmanager
    async def _in_one_snapshot(
        self, organization: str, tasks: list[StreamTask], readers: int
    ) -> AsyncIterator[list[StreamTask]]:
        """Let several streams see the source at one moment, where it can show one to several readers."""
        if len(tasks) < 2:
            yield tasks
            return
        store = await self.stores.get(organization, tasks[0].source)
        undecoded = tasks[0].route.way is Way.PASS_THROUGH
        async with AsyncExitStack() as stack:
            held = store.snapshot(tasks[0].spec.source, readers=readers, undecoded=undecoded, by=tasks[0].owner)
            name = await self.preparer.patience.answer(stack.enter_async_context(held))
            yield [replace(task, snapshot=name) for task in tasks]

    async def _check_places(self, organization: str, spec: PipelineSpec, state: LaneState, read_set: ReadSet) -> None:
        """Refuse to go on where an earlier version may have left rows between two batches."""
        source, streams = await self.preparer.source_store(organization, spec.source), read_set.plan.streams
        by_name = {stream.name: stream for stream in streams}
        for left in state.streams:
            if left.position is not None and not left.is_done and left.format < POSITION_FORMAT and read_set.plan.order:
                await source.check_place(spec.source, read_set.plan, by_name[left.stream], left.position)

    async def _refuse_poison(self, claim: Claim, state: LaneState) -> None:
        """Give up on a run whose claims keep dying in the same place (R4)."""
        if claim.run.attempt == 1:
            return
        async with self.records.unit() as unit:
            fruitless = await unit.runs.note_progress(claim.run.id, claim.fence, progress=state.seq)
            if fruitless is None:
                raise _fenced(claim)
            await unit.commit()
        if fruitless >= MAX_FRUITLESS_CLAIMS:
            raise WorkFailedError(
                f"{fruitless} workers in a row died at batch {state.seq + 1} of this run; look at their logs, then retry.",
                code="poison",
            )

    def _progress(self, claim: Claim, on_progress: OnProgress) -> OnProgress:
        def tell(progress: Progress) -> None:
            rate = round(progress.rows_read / progress.seconds, 1) if progress.seconds else 0.0
            batch_id = f"{claim.run.id}/{progress.stream}/{progress.seq}"
            seconds = round(progress.seconds, 4)
            self.announcer.tell(
                BatchCommitted(*claim.ids, batch_id, progress.rows_read, progress.rows_used, seconds, rate)
            )
            on_progress(progress)

        return tell


def _judge(spec: PipelineSpec, measures: Measures) -> Judgement:
    counts = measures.counts
    if not spec.on_error.allows(counts.failed, counts.read):
        raise ConversionError(f"{counts.failed} of {counts.read} rows did not convert, more than on_error allows.")
    return judge(spec.quality, measures)


def _complete(spec: PipelineSpec, read_set: ReadSet, transform: TransformPlan) -> Mapping[str, str]:
    """The time up to which the column of the cursor was read completely."""
    end = read_set.plan.end
    if spec.source.cursor is None or end is None or end.complete_as_of is None:
        return {}
    return {transform.landing_name(spec.source.cursor.column): end.complete_as_of}


def _landed(rule: Rule, transform: TransformPlan) -> Rule:
    """A rule over the whole run with the names that its columns have at the destination."""
    if rule.is_row_rule:
        return rule
    reference = rule.reference
    if reference is not None:
        reference = replace(reference, column=transform.landing_name(reference.column))
    return replace(rule, columns=tuple(transform.landing_name(name) for name in rule.columns), reference=reference)


def _check_table_is_there(spec: PipelineSpec, state: LaneState, prepared: Prepared, *, is_open: bool) -> None:
    """Refuse to go on beside rows that are gone: what follows would look like the whole.

    Raises:
        ConflictError: the table was dropped after rows had landed in it (`destination.missing`).
    """
    if not prepared.is_new or prepared.target.replaces:
        return
    has_landed = is_open and prepared.target.shadow is None and state.seq > 0
    # A watermark that somebody has put there by hand tells of no rows.
    has_loaded = spec.source.cursor is not None and state.watermark is not None and "fingerprint" in state.stats
    if has_landed or has_loaded:
        raise ConflictError(
            f"The table {prepared.target.table} is gone, though rows were loaded into it: run with --full-refresh to load "
            f"everything again, or forget the position with 'headrace pipelines reset {spec.name}'.",
            code="destination.missing",
        )


def _fits(claim: Claim, state: LaneState) -> bool:
    """Say whether what the lane remembers belongs to this run's source, cursor, key and destination."""
    return state.stats.get("fingerprint") in (None, claim.spec.fingerprint)


def _leaves_nothing(claim: Claim, state: LaneState) -> bool:
    """Say whether the unfinished load of an earlier revision lies in staging alone: nobody has seen anything of it."""
    if _fits(claim, state) or _has_position(claim, state) or not state.is_loading:
        return False
    return bool((state.stats.get("read_set") or {}).get("shadow"))


def _has_position(claim: Claim, state: LaneState) -> bool:
    return state.watermark is not None and claim.spec.source.cursor is not None


def _is_over(stored: ReadSet, state: LaneState) -> bool:
    """Say whether the lane has moved on since a read set was planned: it is not the open one, and others were since."""
    if stored.id == state.read_set_id:
        return False
    return stored.generation is not None and stored.generation != state.generation


def _refuse_to_read_again(claim: Claim, state: LaneState) -> None:
    """Refuse to append beside what this run or another one has loaded already.

    Raises:
        ConflictError: the lane has moved on and no watermark says what is left, or it was reset while this run was at
            work (`run.overtaken`).
    """
    spec = claim.spec
    if spec.destination.mode is not Mode.APPEND or claim.run.request.full_refresh:
        return
    if state.read_set_id is None:  # A reset of these records would have had the run plan anew: it was another's.
        raise ConflictError(
            f"The position of {spec.name} was reset elsewhere while this run was at work, so it would read its own rows once "
            "more: nothing more was written. Run it again to read from the new position.",
            code="run.overtaken",
        )
    if spec.source.cursor is None and spec.source.refused is None:
        raise ConflictError(
            f"Another run of {spec.name} has taken over and moved on since this one was planned, and without a cursor "
            "nothing tells what is left: nothing more was written. Run it again if the rows are to be loaded once more.",
            code="run.overtaken",
        )


def _fenced(claim: Claim) -> FencedError:
    return FencedError(f"The run {claim.run.id} has been claimed by another worker.")
