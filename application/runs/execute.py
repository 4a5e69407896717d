"""A claimed run from its spec to its end, watched: stopped when its lease, its time or its owner's wish is over."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from application.log import bound, log
from application.runs.claim import RunClaimer
from application.runs.settle import RunSettler
from application.runs.work import Claim, IWorks, StoppedError
from domain.errors import FencedError, PlatformError
from domain.ports.engine import OnProgress
from domain.ports.records.unit_of_work import IRecords
from domain.ports.runtime import IClock
from domain.ports.telemetry import Attribute, ISpan, ITelemetry
from domain.runs.report import RunReport
from domain.runs.run import LEASE_LOST, Run

_LOOK_EVERY_SECONDS = 0.2


@dataclass(frozen=True)
class RunExecutor:
    """Executes claimed runs.

    `is_draining` says that this process wants to stop. A run that does not reach a batch border within `patience` of
    being told to stop is interrupted in the middle of what its stores are doing.
    """

    records: IRecords
    claimer: RunClaimer
    works: IWorks
    settler: RunSettler
    telemetry: ITelemetry
    clock: IClock
    timeout: timedelta
    is_draining: Callable[[], bool]
    patience: timedelta = timedelta(seconds=3)

    async def execute_to_end(self, run: Run, on_progress: OnProgress = lambda _: None) -> Run:
        """Execute a claimed run, and again after each pause while it is to be retried; return it as it then stands."""
        run = await self.perform(run, on_progress) or await self._stands(run)
        while run.waits_to_retry and not self.is_draining():
            await asyncio.sleep(min(run.due_in + 0.05, _LOOK_EVERY_SECONDS))
            claimed = await self.claimer.claim(run.scope, run.id)
            ended = await self.perform(claimed, on_progress) if claimed is not None else None
            run = ended or await self._stands(run)
        return run

    async def perform(
        self, run: Run, on_progress: OnProgress = lambda _: None, *, claimed_in: str | None = None
    ) -> Run | None:
        """Execute a run that this process has claimed; return it if that was its end. It belongs to the trace of who
        asked for it, and has to do with the one that it was `claimed_in`.
        """
        fields = {f"{run.work.kind}_id": run.work.name, "organization_id": run.organization, "run_id": run.id}
        links = [claimed_in] if claimed_in is not None else []
        with (
            bound(correlation_id=run.correlation_id, **fields),
            self.telemetry.span("run", trace=run.trace, links=links, attributes=_told_of(run)) as span,
        ):
            async with self.records.hold_lease(run.id, run.fence, lease=self.claimer.lease) as lease:
                work = await self.works.of(run)
                timeout = work.timeout_or(self.timeout)
                claim = Claim(run, work, lease, run.fence, timeout, self.is_draining, self.clock)
                ended = await self._perform(claim, on_progress, span)
                span.set({"headrace.run.state": "unfinished" if ended is None else ended.state.value})
                if ended is not None and ended.error is not None:
                    span.fail(ended.error.code, ended.error.message)
                return ended

    async def _perform(self, claim: Claim, on_progress: OnProgress, span: ISpan) -> Run | None:
        try:
            report = await self._watched(claim, claim.work.perform(claim, on_progress))
        except StoppedError as stop:
            if stop.reason == LEASE_LOST:
                self._count_lost(claim.run)
            return await self.settler.stopped(claim, stop.reason)
        except FencedError:
            self._count_lost(claim.run)
            return None  # Somebody else owns the run now, and will say how it ends.
        except asyncio.CancelledError:
            await self.settler.stopped(claim, "stopped")
            raise
        except PlatformError as error:
            span.fail(error.code, error.message)
            return await self.settler.failed(claim, error)
        except Exception as error:  # noqa: BLE001 - the border where a bug becomes a failed run
            # A bug of ours must end the run with a sentence, not leave it running or show a traceback.
            log.error("run.crashed", exc_info=error)
            unexpected = PlatformError(
                f"Something unexpected failed ({type(error).__name__}); the log has the details."
            )
            return await self.settler.failed(claim, unexpected)
        return await self.settler.succeeded(claim, report)

    def _count_lost(self, run: Run) -> None:
        labels = {"organization": run.organization, run.work.kind.value: run.work.name}
        self.telemetry.count("pipeline.lease.losses", 1, labels)

    async def _watched(self, claim: Claim, work: Coroutine[Any, Any, RunReport]) -> RunReport:
        """Wait for the work; interrupt it when it goes on too long after it was told to stop."""
        task = asyncio.create_task(work)
        told_at: float | None = None
        try:
            while True:
                await asyncio.wait({task}, timeout=_LOOK_EVERY_SECONDS)
                reason = claim.stop_reason()
                if task.done():
                    return task.result()
                if reason is None or reason == "drained":
                    continue  # A process that drains has its own grace, and cancels what outlasts it.
                told_at = told_at or self.clock.monotonic()
                if self.clock.monotonic() - told_at > self.patience.total_seconds():
                    return await _interrupted(task, reason)
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait({task})
            raise

    async def _stands(self, run: Run) -> Run:
        async with self.records.read(run.scope) as unit:
            stands = await unit.runs.get(run.organization, run.id)
        assert stands is not None
        return stands


def _told_of(run: Run) -> dict[str, Attribute]:
    return {
        "headrace.run.id": run.id,
        "headrace.organization": run.organization,
        f"headrace.{run.work.kind.value}": run.work.name,
        "headrace.run.attempt": run.attempt,
    }


async def _interrupted(task: asyncio.Task[RunReport], reason: str) -> RunReport:
    """Interrupt the work; if it came to its end all the same, that end counts.

    Raises:
        StoppedError: it was interrupted.
    """
    task.cancel()
    await asyncio.wait({task})
    if task.cancelled() or isinstance(task.exception(), PlatformError | StoppedError):
        if not task.cancelled() and isinstance(task.exception(), FencedError):
            return task.result()
        raise StoppedError(reason)
    return task.result()
