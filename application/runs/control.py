"""Cancels runs and tries failed ones again."""

from dataclasses import dataclass, replace

from application.runs.doorbell import Doorbell
from application.runs.launch import RunLauncher, TriggerRun
from application.runs.showing import run_for
from domain.errors import ConflictError, NotFoundError
from domain.events import Origin, RunFinished
from domain.failpoints import fail_at
from domain.identity.policy import Action, require
from domain.identity.principal import Principal
from domain.ports.records.unit_of_work import IRecords
from domain.runs.run import Ring, Run, RunState


@dataclass(frozen=True)
class RunController:
    """Acts on runs that exist."""

    records: IRecords
    doorbell: Doorbell
    launcher: RunLauncher

    async def cancel(self, principal: Principal, run_id: str) -> Run:
        """Cancel a run: at once if it was never claimed, else at its next batch; committed batches stay (C1).

        Raises:
            NotFoundError: no such run.
            ConflictError: it is at its end already (`run.terminal`).
        """
        require(principal, Action.CANCEL)
        async with self.records.unit(principal.scope) as unit:
            before = await unit.runs.get(principal.organization, run_id)
            if before is None:
                raise NotFoundError("There is no such run.", code="run.not_found")
            if before.state.is_terminal:
                raise ConflictError(f"The run has ended already: it {before.state.value}.", code="run.terminal")
            state = await unit.runs.request_cancel(principal.organization, run_id, principal.subject)
            if state is RunState.CANCELLED:
                await unit.events.add(RunFinished(Origin.of(before), state.value, "cancelled", 0, 0, 0.0))
            await unit.audit.add(principal, "cancel", run_id)
            await unit.commit()
        fail_at("cancel.after_flag")
        async with self.records.unit(principal.scope) as unit:
            after = await unit.runs.get(principal.organization, run_id)
        assert after is not None
        if after.state is RunState.QUEUED:
            # It was claimed once, so an owner has to seal it: ring for one.
            await self.doorbell.ring([Ring(after.organization, after.id, after.trace)])
        return run_for(principal, after)

    async def retry(self, principal: Principal, run_id: str, *, abandon: bool = False) -> Run:
        """Ask for a new run with the same wishes; it completes what the failed one left unfinished, or abandons it.

        Raises:
            NotFoundError: no such run.
            ConflictError: it has not failed or been cancelled (`run.not_failed`).
        """
        command = await self.command_to_retry(principal, run_id, abandon=abandon)
        return await self.launcher.launch(principal, command)

    async def command_to_retry(self, principal: Principal, run_id: str, *, abandon: bool = False) -> TriggerRun:
        """The command that tries a run again."""
        require(principal, Action.TRIGGER)
        async with self.records.read(principal.scope) as unit:
            run = await unit.runs.get(principal.organization, run_id)
        if run is None:
            raise NotFoundError("There is no such run.", code="run.not_found")
        if run.state not in (RunState.FAILED, RunState.CANCELLED):
            raise ConflictError(
                f"Only a failed or cancelled run can be retried; it is {run.state.value}.", code="run.not_failed"
            )
        return TriggerRun(run.work.name, replace(run.request, abandon=abandon))
