"""What became of runs: one, a page of them, their histories and events."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from application.answers import LARGE_CHARACTERS, AnswerLimits
from application.runs.showing import event_for, run_for, transition_for
from domain.errors import NotFoundError
from domain.identity.policy import Action, require
from domain.identity.principal import Principal
from domain.ports.records.events import StoredEvent
from domain.ports.records.page import Page
from domain.ports.records.unit_of_work import IRecords
from domain.runs.run import Run, RunState, Transition
from domain.runs.work import WorkKind


@dataclass(frozen=True)
class LogPlace:
    """Where the lines of a log end that are older: before a transition, and before an event."""

    transition: int
    event: int


@dataclass(frozen=True)
class RunHistory:
    """Shows runs, of each what its caller may see."""

    records: IRecords
    answers: AnswerLimits

    async def run(self, principal: Principal, run_id: str) -> Run:
        """Return a run.

        Raises:
            NotFoundError: no such run in the principal's organization.
        """
        found = await self._run(principal, run_id)
        assert found is not None
        return found

    async def run_unless_large(self, principal: Principal, run_id: str) -> Run | None:
        """Return a run, or None where it is so large that few of its kind are read at a time.

        Raises:
            NotFoundError: no such run in the principal's organization.
        """
        return await self._run(principal, run_id, most_characters=LARGE_CHARACTERS)

    async def _run(self, principal: Principal, run_id: str, most_characters: int | None = None) -> Run | None:
        require(principal, Action.READ)
        async with self.records.read(principal.scope) as unit:
            characters = await unit.runs.characters_of(principal.organization, run_id) if most_characters else 0
            if characters > (most_characters or 0):
                return None
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
        async with self.records.read(principal.scope) as unit:
            page = await unit.runs.page(
                principal.organization,
                work=WorkKind.PIPELINE.named(pipeline) if pipeline is not None else None,
                state=state,
                after=after,
                limit=limit,
                most_characters=self.answers.page_characters,
            )
        return replace(page, items=tuple(run_for(principal, run) for run in page.items))

    async def transitions(
        self, principal: Principal, run_id: str, *, before: int | None = None, newest: int = 500
    ) -> Sequence[Transition]:
        """Return the newest of a run's history, or of what was before one of its transitions, oldest first."""
        await self.run(principal, run_id)
        async with self.records.read(principal.scope) as unit:
            found = await unit.runs.transitions(principal.organization, run_id, before=before, newest=newest)
        return [transition_for(principal, transition) for transition in found]

    async def logs(
        self, principal: Principal, run_id: str, *, before: LogPlace | None = None, newest: int = 500
    ) -> tuple[Sequence[Transition], Sequence[StoredEvent]]:
        """Return the newest of a run's history and of its stored events, or those before a place, each oldest first."""
        first, other = (before.transition, before.event) if before is not None else (None, None)
        history = await self.transitions(principal, run_id, before=first, newest=newest)
        async with self.records.read(principal.scope) as unit:
            events = await unit.events.of_run(principal.organization, run_id, before=other, newest=newest)
        return history, [event_for(principal, event) for event in events]
