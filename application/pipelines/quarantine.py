"""Looks at the rows that a pipeline refused, and asks for them to be replayed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from application.answers import AnswerLimits
from application.connections.open_stores import OpenStores
from application.pipelines.state import PipelineStates
from application.runs.launch import RunLauncher, TriggerRun
from domain.errors import ConflictError
from domain.identity.policy import Action, require
from domain.identity.principal import Principal
from domain.loads.checkpoint import Position
from domain.loads.quarantine import ALL_RUNS, RefusedRow, RefusedState
from domain.pipelines.replay import check_replay, refusals_of
from domain.pipelines.spec import PipelineSpec
from domain.ports.quarantine import IRefusedRows
from domain.runs.run import Run, RunRequest


@dataclass(frozen=True)
class RefusedPage:
    """Refused rows, and the place after which the next page begins."""

    rows: Sequence[RefusedRow]
    next_place: Position | None


@dataclass(frozen=True)
class QuarantineReviewer:
    """Answers what is in quarantine, and launches replays."""

    stores: OpenStores
    states: PipelineStates
    launcher: RunLauncher
    answers: AnswerLimits

    async def page(
        self,
        principal: Principal,
        pipeline: str,
        *,
        state: RefusedState | None = None,
        run: str | None = None,
        after: Position | None = None,
        limit: int = 50,
    ) -> RefusedPage:
        """List a pipeline's refused rows, oldest first. They hold data, so whoever may preview may look at them.

        Of large rows there are fewer than `limit`, and a next page all the same.

        Raises:
            NotFoundError: no such pipeline.
        """
        require(principal, Action.PREVIEW)
        spec = await self.states.spec_of(principal, pipeline)
        refusals = replace(refusals_of(spec, principal.organization, run), state=state)
        store = await self._store(principal, spec)
        rows = await store.refused_rows(refusals, after=after, limit=limit, most_bytes=self.answers.answer_bytes)
        last = rows[-1].place if rows else None
        has_more = last is not None and await store.refused_places(refusals, after=last, limit=1)
        return RefusedPage(rows, last if has_more else None)

    async def replay(self, principal: Principal, pipeline: str, *, run: str | None = None) -> Run:
        """Queue a run that replays a pipeline's open refused rows, or those of one run.

        Raises:
            NotFoundError: no such pipeline.
            InvalidInputError: the pipeline replaces its table.
            ConflictError: there is nothing to replay (`quarantine.empty`).
        """
        return await self.launcher.launch(principal, await self.command_to_replay(principal, pipeline, run=run))

    async def command_to_replay(self, principal: Principal, pipeline: str, *, run: str | None = None) -> TriggerRun:
        """The command that replays what `replay` says."""
        require(principal, Action.TRIGGER)
        spec = await self.states.spec_of(principal, pipeline)
        check_replay(spec)
        refusals = replace(refusals_of(spec, principal.organization, run), state=RefusedState.OPEN)
        if not await (await self._store(principal, spec)).refused_places(refusals, after=None, limit=1):
            raise ConflictError(
                f"{pipeline} has no refused rows to replay; those of a run wait until it is published.",
                code="quarantine.empty",
            )
        return TriggerRun(pipeline, RunRequest(replay=run or ALL_RUNS))

    async def _store(self, principal: Principal, spec: PipelineSpec) -> IRefusedRows:
        return await self.stores.named_destination(principal.organization, spec.destination.connection)
