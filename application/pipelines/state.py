"""Where a pipeline stands: by the records, and by what its destination remembers; and how that is set back."""

from dataclasses import dataclass

from application.answers import LARGE_CHARACTERS
from application.connections.open_stores import OpenStores
from application.missing import missing
from application.runs.showing import run_for
from domain.errors import ConflictError
from domain.identity.policy import Action, require
from domain.identity.principal import Principal
from domain.loads.checkpoint import LaneState
from domain.pipelines.spec import PipelineSpec
from domain.ports.records.unit_of_work import IRecords
from domain.runs.lane import Lane
from domain.runs.run import Run, RunState
from domain.runs.work import WorkKind


@dataclass(frozen=True)
class PipelineStatus:
    """Where a pipeline stands."""

    name: str
    revision: int
    last_run: Run | None


@dataclass(frozen=True)
class PipelineStates:
    """Tells where pipelines stand, and sets them back."""

    records: IRecords
    stores: OpenStores

    async def spec_of(self, principal: Principal, name: str) -> PipelineSpec:
        """Load a pipeline's latest spec.

        Raises:
            NotFoundError: no such pipeline.
        """
        require(principal, Action.READ)
        async with self.records.read(principal.scope) as unit:
            stored = await unit.pipelines.get(principal.organization, name)
        if stored is None:
            raise missing("pipeline", name)
        return PipelineSpec.from_document(stored.document)

    async def status(self, principal: Principal, name: str) -> PipelineStatus:
        """Return a pipeline's revision and newest run."""
        found = await self._status(principal, name)
        assert found is not None
        return found

    async def status_unless_large(self, principal: Principal, name: str) -> PipelineStatus | None:
        """Return the same, or None where the run is so large that few of its kind are read at a time."""
        return await self._status(principal, name, most_characters=LARGE_CHARACTERS)

    async def _status(
        self, principal: Principal, name: str, most_characters: int | None = None
    ) -> PipelineStatus | None:
        require(principal, Action.READ)
        organization, work = principal.organization, WorkKind.PIPELINE.named(name)
        async with self.records.read(principal.scope) as unit:
            characters = await unit.runs.characters_of(organization, work) if most_characters else 0
            if characters > (most_characters or 0):
                return None
            stored = await unit.pipelines.get(organization, name)
            last = await unit.runs.last_of(organization, work)
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
        lane, work = Lane(organization, name), WorkKind.PIPELINE.named(name)
        there = await store.lane_state(lane, spec.destination.table)
        async with self.records.unit(principal.scope) as unit:
            # A run that is claimed at the same time waits for this, or is seen.
            fence = await unit.runs.next_fence(organization, work, above=there.fence)
            held_by = await unit.runs.holder(organization, work, lane.name)
            if held_by is not None:
                raise _at_work(held_by)
            # What a worker that died has left is part of what is forgotten; its run reads from the new position.
            await unit.runs.forget_plans(organization, work, lane.name)
            await unit.audit.add(principal, "reset", name)
            await unit.commit()
        async with store.owner(lane, spec.destination.table, fence) as owner:
            await owner.take_over()
            await owner.reset(watermark)
        return await store.lane_state(lane, spec.destination.table)


def _at_work(run: Run) -> ConflictError:
    does = "is running" if run.state is RunState.RUNNING else "waits to try again"
    return ConflictError(
        f"The run {run.id} of {run.work.name} {does}: what it has read would be read once more. Wait for its end, or "
        f"cancel it with 'headrace runs cancel {run.id}'; then reset.",
        code="run.lane_busy",
    )
