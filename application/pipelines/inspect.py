"""Looks at pipelines and runs: previews, dry runs, state, status, history."""

from collections.abc import Mapping, Sequence
from contextlib import aclosing, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from application.answers import AnswerLimits
from application.connections.open_stores import OpenStores
from application.loads.landing import transform_plan
from application.loads.patience import Patience
from application.loads.plan_read import ReadPlanner
from application.missing import missing
from application.pipelines.turns import Turns
from application.runs.showing import event_for, run_for, transition_for
from domain.errors import ConflictError, InvalidInputError, NotFoundError
from domain.identity.policy import Action, require
from domain.identity.principal import Principal
from domain.loads.checkpoint import LaneState
from domain.pipelines.spec import PipelineSpec
from domain.ports.data_store import Batch
from domain.ports.security import TOO_LARGE
from domain.ports.transformer import ITransformer
from domain.ports.unit_of_work import IRecords, Page, StoredEvent
from domain.quality.measures import Counts, merge_stats
from domain.runs.lane import Lane
from domain.runs.run import Run, RunState, Transition

# What steps make of a batch has to fit beside it into the memory that a preview may take.
_PREVIEW_BATCH_BYTES = 16 * 1024 * 1024
# A run of a hundred million rows has more batches than anybody reads.
_NEWEST_EVENTS = 10_000


@dataclass(frozen=True)
class Preview:
    """The first rows after transforms, and what became of the rows that were read."""

    columns: tuple[tuple[str, str], ...]
    batches: tuple[Batch, ...]
    counts: Counts
    stats: Mapping[str, Any]
    note: str | None = None


@dataclass(frozen=True)
class PipelineStatus:
    """Where a pipeline stands."""

    name: str
    revision: int
    last_run: Run | None


@dataclass(frozen=True)
class PipelineInspector:
    """Answers questions about pipelines and runs; changes nothing but what `reset` says."""

    records: IRecords
    stores: OpenStores
    reads: ReadPlanner
    transformer: ITransformer
    max_preview_bytes: int
    turns: Turns
    patience: Patience
    answers: AnswerLimits

    async def preview(
        self, principal: Principal, spec: PipelineSpec, *, limit: int | None, keep_rows: bool = True
    ) -> Preview:
        """Read, transform and judge up to `limit` rows without writing; with no limit, all of them (a dry run).

        Raises:
            NotFoundError, InvalidInputError: the source or a transform is wrong.
            UnavailableError: so many are being made already (`worker.busy`).
            WorkFailedError: it takes too long, or one answer of the source does where all rows are only counted
            (`query.timeout`).
        """
        require(principal, Action.PREVIEW)
        with self.turns.one():
            async with self.patience.within() if keep_rows else nullcontext():
                return await self._previewed(principal.organization, spec, limit=limit, keep_rows=keep_rows)

    async def _previewed(self, organization: str, spec: PipelineSpec, *, limit: int | None, keep_rows: bool) -> Preview:
        store = await self.stores.named(organization, spec.source.connection)
        spec = await self.reads.with_key(store, spec)
        planning = store.plan(replace(spec.source, cursor=None), lo=None, limit=limit)
        plan = await self.patience.answer(self.reads.planned(planning))
        lenient = replace(spec, quality=tuple(rule for rule in spec.quality if rule.is_row_rule))
        rows = self.reads.batch_rows(spec) if limit is None else min(limit, self.reads.batch_rows(spec))
        size = min(self.reads.batch_bytes(spec), _PREVIEW_BATCH_BYTES)
        kept: list[Batch] = []
        counts, stats = Counts(), dict[str, Any]()
        async with (
            self.transformer.prepare(transform_plan(_warning(lenient), plan, ())) as transform,
            store.reader(
                replace(spec.source, cursor=None), plan, plan.streams[0], batch_rows=rows, batch_bytes=size
            ) as reader,
            aclosing(self.patience.each(self.reads.patience.each(reader.batches(None, limit=limit)))) as batches,
        ):
            columns = tuple((column.name, column.type) for column in transform.columns)
            async for batch in batches:
                judged = await (transform.apply if keep_rows else transform.measured)(batch.data)
                counts, stats = counts + judged.counts, merge_stats(stats, judged.stats)
                if keep_rows:
                    kept.append(judged.accepted)
                    self._check_size(kept)
        return Preview(columns, tuple(kept), counts, stats, plan.note)

    def _check_size(self, kept: Sequence[Batch]) -> None:
        size = sum(batch.nbytes for batch in kept)
        if size > self.max_preview_bytes:
            raise InvalidInputError(
                f"The rows have more than {self.max_preview_bytes // 1024**2} MB together: ask for fewer.",
                code=TOO_LARGE,
            )

    async def spec_of(self, principal: Principal, name: str) -> PipelineSpec:
        """Load a pipeline's latest spec.

        Raises:
            NotFoundError: no such pipeline.
        """
        require(principal, Action.READ)
        async with self.records.view() as unit:
            stored = await unit.pipelines.get(principal.organization, name)
        if stored is None:
            raise missing("pipeline", name)
        return PipelineSpec.from_document(stored.document)

    async def status(self, principal: Principal, name: str) -> PipelineStatus:
        """Return a pipeline's revision and newest run."""
        require(principal, Action.READ)
        async with self.records.view() as unit:
            stored = await unit.pipelines.get(principal.organization, name)
            last = await unit.runs.last_of(principal.organization, name)
        if stored is None:
            raise missing("pipeline", name)
        return PipelineStatus(name, stored.revision, run_for(principal, last) if last is not None else None)

    async def state(self, principal: Principal, name: str) -> LaneState:
        """Read position and watermark at the destination, taking nothing over from a running worker.

        The destination is opened for it and a position holds values of rows, so it is for who may preview; `status`
        tells from the records how far a pipeline came.
        """
        require(principal, Action.PREVIEW)
        spec = await self.spec_of(principal, name)
        organization = principal.organization
        store = await self.stores.named_destination(organization, spec.destination.connection)
        return await store.lane_state(Lane(organization, name), spec.destination.table)

    async def reset(self, principal: Principal, name: str, watermark: str | None) -> LaneState:
        """Forget the unfinished read set and set the watermark; rows at the destination stay as they are.

        Raises:
            ConflictError: a run is at work, or waits to try again (`run.lane_busy`); cancelled, it is no obstacle.
            FencedError: a run took over in between.
        """
        require(principal, Action.RESET_STATE)
        spec = await self.spec_of(principal, name)
        organization = principal.organization
        store = await self.stores.named_destination(organization, spec.destination.connection)
        lane = Lane(organization, name)
        there = await store.lane_state(lane, spec.destination.table)
        async with self.records.unit() as unit:
            # A run that is claimed at the same time waits for this, or is seen.
            fence = await unit.runs.next_fence(organization, name, above=there.fence)
            held_by = await unit.runs.holder(organization, name, lane.name)
            if held_by is not None:
                raise _at_work(held_by)
            # What a worker that died has left is part of what is forgotten; its run reads from the new position.
            await unit.runs.forget_plans(organization, name, lane.name)
            await unit.audit.add(principal, "reset", name)
            await unit.commit()
        async with store.owner(lane, spec.destination.table, fence) as owner:
            await owner.take_over()
            await owner.reset(watermark)
        return await store.lane_state(lane, spec.destination.table)

    async def run(self, principal: Principal, run_id: str) -> Run:
        """Return a run.

        Raises:
            NotFoundError: no such run in the principal's organization.
        """
        require(principal, Action.READ)
        async with self.records.view() as unit:
            run = await unit.runs.get(principal.organization, run_id)
        if run is None:
            raise NotFoundError("There is no such run.", code="run.not_found")
        return run_for(principal, run)

    async def runs(
        self,
        principal: Principal,
        *,
        pipeline: str | None = None,
        state: RunState | None = None,
        after: str | None = None,
        limit: int = 50,
    ) -> Page:
        """Return a page of runs, newest first."""
        require(principal, Action.READ)
        async with self.records.view() as unit:
            page = await unit.runs.page(
                principal.organization,
                pipeline=pipeline,
                state=state,
                after=after,
                limit=limit,
                most_characters=self.answers.answer_bytes,
            )
        return replace(page, items=tuple(run_for(principal, run) for run in page.items))

    async def transitions(self, principal: Principal, run_id: str) -> Sequence[Transition]:
        """Return a run's history, oldest first."""
        await self.run(principal, run_id)
        async with self.records.view() as unit:
            found = await unit.runs.transitions(principal.organization, run_id)
        return [transition_for(principal, transition) for transition in found]

    async def logs(self, principal: Principal, run_id: str) -> tuple[Sequence[Transition], Sequence[StoredEvent]]:
        """Return a run's history and its newest stored events, each oldest first."""
        history = await self.transitions(principal, run_id)
        async with self.records.view() as unit:
            events = await unit.events.of_run(principal.organization, run_id, newest=_NEWEST_EVENTS)
        return history, [event_for(principal, event) for event in events]


def _at_work(run: Run) -> ConflictError:
    does = "is running" if run.state is RunState.RUNNING else "waits to try again"
    return ConflictError(
        f"The run {run.id} of {run.pipeline} {does}: what it has read would be read once more. Wait for its end, or "
        f"cancel it with 'headrace runs cancel {run.id}'; then reset.",
        code="run.lane_busy",
    )


def _warning(spec: PipelineSpec) -> PipelineSpec:
    """A preview shows what violates a rule instead of stopping at it."""
    return replace(spec, quality=tuple(rule.patient for rule in spec.quality))
