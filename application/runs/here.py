"""Runs in the process that asks for them: first what an earlier process left unfinished, then what is asked for."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from application.events.announce import Announcer
from application.runs.claim import RunClaimer
from application.runs.control import RunController
from application.runs.execute import RunExecutor
from application.runs.launch import RunLauncher, TriggerRun
from domain.errors import ConflictError
from domain.identity.principal import Principal
from domain.ports.engine import OnProgress
from domain.ports.records.unit_of_work import IRecords
from domain.runs.run import Run


@dataclass(frozen=True)
class RanHere:
    """A run as it stands after its end here. `resumed` says that an earlier process had asked for it; `followers` are
    queued after it where it succeeded, and nobody of this process takes them.
    """

    run: Run
    resumed: bool = False
    followers: Sequence[str] = ()


@dataclass(frozen=True)
class RunsHere:
    """Asks for runs and executes them itself."""

    records: IRecords
    launcher: RunLauncher
    claimer: RunClaimer
    controller: RunController
    executor: RunExecutor
    announcer: Announcer

    async def run(self, principal: Principal, command: TriggerRun, on_progress: OnProgress = lambda _: None) -> RanHere:
        """Complete the unfinished run of the lane instead; where `full_refresh` or `abandon` gives it up, end it first.

        Raises:
            ConflictError: another process is at work in the lane (`run.lane_busy`).
            NotFoundError, InvalidInputError, PermissionDeniedError: as `RunLauncher.launch_claimed`.
        """
        unfinished = await self.launcher.unfinished(principal, command)
        if unfinished is not None:
            found = await self._taken_over(principal, command, unfinished)
            ended = await self._executed(principal, found, on_progress)
            if not found.cancel_requested:
                return replace(ended, resumed=True)
        return await self._begun(principal, command, on_progress)

    async def retry(
        self, principal: Principal, run_id: str, *, abandon: bool = False, on_progress: OnProgress = lambda _: None
    ) -> RanHere:
        """Run a failed or cancelled run's pipeline again with the same wishes.

        Raises:
            NotFoundError, ConflictError: as `RunController.retry`, or the lane has an unfinished run (`run.lane_busy`).
        """
        command = await self.controller.command_to_retry(principal, run_id, abandon=abandon)
        return await self._begun(principal, command, on_progress)

    async def _begun(self, principal: Principal, command: TriggerRun, on_progress: OnProgress) -> RanHere:
        return await self._executed(principal, await self.launcher.launch_claimed(principal, command), on_progress)

    async def _taken_over(self, principal: Principal, command: TriggerRun, unfinished: Run) -> Run:
        claimed = await self.claimer.claim(unfinished.scope, unfinished.id)
        if claimed is None:
            raise ConflictError(
                f"Another process is running {command.pipeline} (run {unfinished.id}).", code="run.lane_busy"
            )
        if not (command.request.full_refresh or command.request.abandon):
            return claimed
        await self.controller.cancel(principal, claimed.id)
        return replace(claimed, cancel_requested=True)

    async def _executed(self, principal: Principal, run: Run, on_progress: OnProgress) -> RanHere:
        """Execute it to its end, and queue what runs after it."""
        ended = await self.executor.execute_to_end(run, on_progress)
        await self.announcer.flush()
        key = (principal.organization, run.work.name)
        async with self.records.read(principal.scope) as unit:
            followers = await unit.followers.of([key])
        return RanHere(ended, followers=followers.get(key, ()))
