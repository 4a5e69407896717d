"""Asks for a run: stored first, then rung; or claimed at once by the process that asks."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from application.pipelines.doorbell import Doorbell
from domain.errors import ConflictError, InvalidInputError, NotFoundError
from domain.events import RunQueued, RunStarted
from domain.failpoints import fail_at
from domain.identity.policy import Action, require
from domain.identity.principal import Principal
from domain.pipelines.run import Ring, Run, RunRequest, RunState
from domain.pipelines.spec import PipelineSpec
from domain.ports.runtime import IIdentifiers, ITelemetry
from domain.ports.unit_of_work import IRecords, IUnitOfWork

NO_WISHES = RunRequest()


@dataclass(frozen=True)
class TriggerRun:
    """What a caller asks for."""

    pipeline: str
    request: RunRequest = NO_WISHES


@dataclass(frozen=True)
class RunLauncher:
    """Queues runs; `owner` and `lease` are used when this process claims the run itself."""

    records: IRecords
    doorbell: Doorbell
    identifiers: IIdentifiers
    telemetry: ITelemetry
    owner: str
    lease: timedelta

    async def launch(self, principal: Principal, command: TriggerRun) -> Run:
        """Store a queued run and ring for it; the answer is given after the commit.

        Raises:
            NotFoundError: no such pipeline.
            InvalidInputError: a parameter the query does not have.
        """
        async with self.records.unit() as unit:
            run = await self._queued(unit, principal, command)
            await unit.commit()
        fail_at("enqueue.after_commit_before_publish")
        await self.doorbell.ring([Ring(run.organization, run.id, run.trace)])
        return run

    async def launch_claimed(self, principal: Principal, command: TriggerRun) -> Run:
        """Store and claim a run in one transaction, for a process that will execute it itself.

        Raises:
            ConflictError: the lane has an unfinished run (`run.lane_busy`).
        """
        async with self.records.unit() as unit:
            run = await self._queued(unit, principal, command)
            claimed = await unit.runs.claim(run.id, owner=self.owner, lease=self.lease)
            if claimed is None:
                raise ConflictError(
                    f"Another process is running {run.pipeline}; wait for it, or look with 'headrace runs list'.",
                    code="run.lane_busy",
                )
            await unit.events.add(
                RunStarted(run.organization, run.pipeline, run.id, attempt=claimed.attempt, fence=claimed.fence)
            )
            await unit.commit()
        return claimed

    async def unfinished(self, principal: Principal, command: TriggerRun) -> Run | None:
        """Find the run that an earlier process left unfinished in the lane this command would use."""
        async with self.records.unit() as unit:
            spec, _ = await self._spec(unit, principal, command)
            lane = spec.lane_for(command.request.parameters)
            return await unit.runs.unfinished(principal.organization, command.pipeline, lane)

    async def _queued(self, unit: IUnitOfWork, principal: Principal, command: TriggerRun) -> Run:
        spec, revision = await self._spec(unit, principal, command)
        run = Run(
            id=self.identifiers.new_id(),
            organization=principal.organization,
            pipeline=command.pipeline,
            revision=revision,
            lane=spec.lane_for(command.request.parameters),
            state=RunState.QUEUED,
            request=command.request,
            requested_by=principal.subject,
            trace=self.telemetry.current_trace(),
        )
        await unit.runs.insert(run)
        await unit.events.add(RunQueued(run.organization, run.pipeline, run.id))
        await unit.audit.add(principal, "trigger", run.pipeline)
        return run

    async def _spec(self, unit: IUnitOfWork, principal: Principal, command: TriggerRun) -> tuple[PipelineSpec, int]:
        require(principal, Action.TRIGGER)
        stored = await unit.pipelines.get(principal.organization, command.pipeline)
        if stored is None:
            raise NotFoundError(f"There is no pipeline named {command.pipeline}.", code="pipeline.not_found")
        spec = PipelineSpec.from_document(stored.document)
        _check(spec, command.request.parameters)
        return spec, stored.revision


def _check(spec: PipelineSpec, parameters: Mapping[str, Any]) -> None:
    unknown = sorted(set(parameters) - set(spec.source.parameters))
    if unknown:
        known = ", ".join(sorted(spec.source.parameters)) or "none"
        raise InvalidInputError(
            f"{spec.name} has no parameter {unknown[0]}; its parameters are: {known}.", code="run.parameter_unknown"
        )
