"""Asks for a run: stored first, then rung; or claimed at once by the process that asks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any

from application.log import current_correlation_id
from application.missing import missing
from application.runs.doorbell import Doorbell
from application.runs.gathering import Gathered
from domain.errors import ConflictError, InvalidInputError, PlatformError
from domain.events import Origin, RunQueued, RunStarted
from domain.failpoints import fail_at
from domain.identity.policy import Action, require
from domain.identity.principal import Principal
from domain.pipelines.replay import lane_of
from domain.pipelines.spec import Mode, PipelineSpec
from domain.ports.records.unit_of_work import IRecords, IUnitOfWork
from domain.ports.runtime import IIdentifiers
from domain.ports.telemetry import ITelemetry
from domain.runs.run import LONGEST_PARAMETER, Ring, Run, RunRequest, RunState, is_parameter
from domain.runs.work import WorkKind, WorkRef

NO_WISHES = RunRequest()


@dataclass(frozen=True)
class TriggerRun:
    """What a caller asks for."""

    pipeline: str
    request: RunRequest = NO_WISHES


@dataclass(frozen=True)
class _Asked:
    """What a caller asks for, who that is, and the trace and request that they do it in."""

    principal: Principal
    command: TriggerRun
    trace: str | None
    correlation_id: str | None


@dataclass(eq=False)
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
            PermissionDeniedError: the caller may not start a run, or not one that forgets what was loaded.
        """
        _authorize(principal, command.request)
        launched = await self._gathered.ask(self._asked(principal, command))
        if isinstance(launched, PlatformError):
            raise launched
        return launched

    @cached_property
    def _gathered(self) -> Gathered[_Asked, Run | PlatformError]:
        return Gathered(self._launch_all, apart=lambda asked: asked.principal.scope)

    def _asked(self, principal: Principal, command: TriggerRun) -> _Asked:
        return _Asked(principal, command, self.telemetry.current_trace(), current_correlation_id())

    async def _launch_all(self, asked: Sequence[_Asked]) -> Sequence[Run | PlatformError]:
        """Store what was asked for at the same time in one transaction; what is refused is refused alone."""
        answers: list[Run | PlatformError] = []
        accepted: list[tuple[Principal, Run]] = []
        specs: dict[tuple[str, str], tuple[PipelineSpec, int]] = {}
        async with self.records.unit(asked[0].principal.scope) as unit:
            for one in asked:
                key = (one.principal.organization, one.command.pipeline)
                try:
                    if key not in specs:
                        specs[key] = await self._spec(unit, one.principal, one.command.pipeline)
                    run = self._run(one, *specs[key])
                except PlatformError as error:
                    answers.append(error)
                    continue
                answers.append(run)
                accepted.append((one.principal, run))
            if accepted:
                await self._store(unit, accepted)
                await unit.commit()
        fail_at("enqueue.after_commit_before_publish")
        await self.doorbell.ring([Ring(run.organization, run.id, run.trace) for _, run in accepted])
        return answers

    async def launch_claimed(self, principal: Principal, command: TriggerRun) -> Run:
        """Store and claim a run in one transaction, for a process that will execute it itself.

        Raises:
            ConflictError: the lane has an unfinished run (`run.lane_busy`).
        """
        _authorize(principal, command.request)
        async with self.records.unit(principal.scope) as unit:
            spec, revision = await self._spec(unit, principal, command.pipeline)
            run = self._run(self._asked(principal, command), spec, revision)
            await self._store(unit, [(principal, run)])
            claimed = await unit.runs.claim(run.id, owner=self.owner, lease=self.lease)
            if claimed is None:
                raise ConflictError(
                    f"Another process is running {run.work.name}; wait for it, or look with 'headrace runs list'.",
                    code="run.lane_busy",
                )
            await unit.events.add(RunStarted(Origin.of(run), attempt=claimed.attempt, fence=claimed.fence))
            await unit.commit()
        return claimed

    async def unfinished(self, principal: Principal, command: TriggerRun) -> Run | None:
        """Find the run that an earlier process left unfinished in the lane this command would use."""
        require(principal, Action.TRIGGER)
        async with self.records.read(principal.scope) as unit:
            spec, _ = await self._spec(unit, principal, command.pipeline)
            lane = lane_of(spec, command.request)
            return await unit.runs.unfinished(principal.organization, WorkKind.PIPELINE.named(command.pipeline), lane)

    def _run(self, asked: _Asked, spec: PipelineSpec, revision: int) -> Run:
        principal, command = asked.principal, asked.command
        _check(spec, command.request.parameters)
        # A part of the rows in the place of all of them gives up the others, as a reset does.
        if spec.destination.mode is Mode.REPLACE and command.request.limit is not None:
            require(principal, Action.RESET_STATE)
        return Run(
            id=self.identifiers.new_id(),
            organization=principal.organization,
            work=WorkRef(WorkKind.PIPELINE, command.pipeline, revision),
            lane=lane_of(spec, command.request),
            state=RunState.QUEUED,
            request=command.request,
            requested_by=principal.subject,
            trace=asked.trace,
            correlation_id=asked.correlation_id,
        )

    async def _store(self, unit: IUnitOfWork, asked: Sequence[tuple[Principal, Run]]) -> None:
        await unit.runs.insert_many([run for _, run in asked])
        await unit.events.add(*(RunQueued(Origin.of(run)) for _, run in asked))
        await unit.audit.add_many([(principal, "trigger", run.work.name) for principal, run in asked])

    async def _spec(self, unit: IUnitOfWork, principal: Principal, name: str) -> tuple[PipelineSpec, int]:
        stored = await unit.pipelines.get(principal.organization, name)
        if stored is None:
            raise missing("pipeline", name)
        return PipelineSpec.from_document(stored.document), stored.revision


def _authorize(principal: Principal, request: RunRequest) -> None:
    """Whoever may only start runs may not start one that gives up rows or a position: that is what a reset does."""
    require(principal, Action.TRIGGER)
    if request.full_refresh or request.abandon:
        require(principal, Action.RESET_STATE)


def _check(spec: PipelineSpec, parameters: Mapping[str, Any]) -> None:
    unknown = sorted(set(parameters) - set(spec.source.parameters))
    if unknown:
        known = ", ".join(sorted(spec.source.parameters)) or "none"
        raise InvalidInputError(
            f"{spec.name} has no parameter {unknown[0]}; its parameters are: {known}.", code="run.parameter_unknown"
        )
    for name, value in parameters.items():
        if not is_parameter(value):
            raise InvalidInputError(
                f"The parameter {name} is text of at most {LONGEST_PARAMETER:,} characters, a number of 64 bits, true, "
                "false or null.",
                code="run.parameter",
            )
