"""How a claimed run ends, or goes back to the queue: finished, sealed, retried after a pause, released."""

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property
from operator import itemgetter
from typing import TypeVar

from application.events.announce import Announcer
from application.runs.doorbell import Doorbell
from application.runs.gathering import Gathered
from application.runs.work import Claim
from domain.errors import (
    BusyError,
    FencedError,
    InvalidInputError,
    NotFoundError,
    PlatformError,
    QualityRejectedError,
    StoreUnavailableError,
    UnavailableError,
    WorkFailedError,
)
from domain.events import RunFinished, RunReleased
from domain.failpoints import fail_at
from domain.first_errors import FirstError
from domain.identity.scope import Scope
from domain.ports.records.unit_of_work import IRecords
from domain.quality.measures import Counts
from domain.rule_results import RuleResult
from domain.runs.report import RunReport
from domain.runs.run import LEASE_LOST, RETRY, Finish, Run, RunError, RunState

T = TypeVar("T")

_LONGEST_PAUSE = timedelta(minutes=10)
# The records may be restarting; a lease is longer than these together, so nobody else takes the run meanwhile.
_PAUSES_SECONDS = (0.2, 0.5, 1.0, 2.0, 4.0)


@dataclass(frozen=True)
class _About:
    """Which rows and rules a failure is about."""

    first_errors: Sequence[FirstError] = ()
    rules: Sequence[RuleResult] = ()


@dataclass(eq=False)
class RunSettler:
    """Ends claims; what ends a run returns it as it then stands. Runs that finish at the same time share a
    transaction.
    """

    records: IRecords
    announcer: Announcer
    doorbell: Doorbell
    max_retries: int

    async def succeeded(self, claim: Claim, report: RunReport) -> Run | None:
        """The work is done."""
        return await self._finish(claim, RunState.SUCCEEDED, "published", report=report)

    async def stopped(self, claim: Claim, reason: str) -> Run | None:
        """The work stopped at a batch border, or was interrupted, because it was asked to."""
        match reason:
            case "cancelled":
                return await self._seal_and_finish(claim, RunState.CANCELLED, "cancelled", None)
            case "timeout":
                limit = round(claim.timeout.total_seconds(), 1)
                error = WorkFailedError(
                    f"The run took longer than its {limit:g} s; raise run.timeout.", code="run.timeout"
                )
                return await self._seal_and_finish(claim, RunState.FAILED, error.code, RunError.of(error))
            case _ if reason == LEASE_LOST:
                return None  # Whoever has the lease now says how it ends.
            case _:
                await self._release(claim, reason)
                return None

    async def failed(self, claim: Claim, error: PlatformError) -> Run | None:
        """The work failed: again after a pause if that may help, else for good."""
        allowed = claim.work.retry.attempts if claim.work.retry.attempts is not None else self.max_retries
        if error.retryable and claim.run.retries < allowed and claim.lease.stop_reason() is None:
            await self._release(
                claim, RETRY + error.code, pause=pause_before_retry(claim.run, claim.work.retry.backoff), error=error
            )
            return None
        return await self._seal_and_finish(claim, RunState.FAILED, error.code, RunError.of(error), _about(error))

    async def _release(
        self, claim: Claim, reason: str, *, pause: timedelta | None = None, error: PlatformError | None = None
    ) -> None:
        seconds = pause.total_seconds() if pause else 0.0
        released = RunReleased(claim.origin, reason, claim.run.retries, seconds)
        if error is not None:
            released = replace(released, error_type=error.code, error_message=error.message)

        async def write() -> None:
            async with self.records.unit(claim.run.scope) as unit:
                if await unit.runs.release(
                    claim.run.id, claim.fence, reason=reason, pause=pause, is_retry=pause is not None
                ):
                    await unit.events.add(released)
                    await unit.commit()

        # Nobody is rung for: the tender of whoever lives next takes it, within a tick. A ring of this process, which
        # may be about to end, could be lost with it and would be missed only after a lease.
        await _persistently(write)
        self.announcer.nudge()

    async def _seal_and_finish(
        self,
        claim: Claim,
        state: RunState,
        reason: str,
        error: RunError | None,
        about: _About = _About(),
    ) -> Run | None:
        """Stop every writer at the destination first; while that is not to be had the run stays running,
        and says why.
        """
        try:
            sealed = await claim.work.seal(claim)
        except FencedError:
            return None
        except (UnavailableError, NotFoundError, BusyError, InvalidInputError) as why:
            reason = "sealing" if why.code == StoreUnavailableError.code else f"sealing: {why.code}"
            async with self.records.unit(claim.run.scope) as unit:
                await unit.runs.note(claim.run.id, claim.fence, reason=reason)
                await unit.commit()
            return None
        if sealed is None:
            return await self._finish(claim, state, reason, error=error)
        if sealed.is_done:  # Whoever asked again would read every row twice.
            return await self._finish(claim, RunState.SUCCEEDED, "published", report=sealed.report)
        report = sealed.report
        if about.first_errors or about.rules:  # Of a batch that was not committed, or of all that was read.
            report = (report or RunReport.of_counts(Counts())).blaming(about.first_errors, about.rules)
        return await self._finish(claim, state, reason, report=report, error=error)

    async def _finish(
        self,
        claim: Claim,
        state: RunState,
        reason: str,
        *,
        report: RunReport | None = None,
        error: RunError | None = None,
    ) -> Run | None:
        fail_at("finish.before_state")
        report = report if report is not None else claim.work.completed()
        counts = report.counts if report is not None else Counts()
        finished = RunFinished(
            claim.origin,
            status=state.value,
            reason=reason,
            rows_read=counts.read,
            record_count=counts.used,
            duration_seconds=claim.seconds,
            error_type=error.code if error is not None else None,
            error_message=error.message if error is not None else None,
            complete_as_of=report.complete_as_of if report is not None else None,
        )
        finish = Finish(claim.run.id, claim.fence, state, reason, report, error)
        return await _persistently(lambda: self._gathered.ask((claim.run.scope, finish, finished)))

    @cached_property
    def _gathered(self) -> Gathered[tuple[Scope, Finish, RunFinished], Run | None]:
        return Gathered(self._finish_all, apart=itemgetter(0))

    async def _finish_all(self, ends: Sequence[tuple[Scope, Finish, RunFinished]]) -> Sequence[Run | None]:
        async with self.records.unit(ends[0][0]) as unit:
            finished = {run.id: run for run in await unit.runs.finish_many([finish for _, finish, _ in ends])}
            await unit.events.add(*(told for _, finish, told in ends if finish.run_id in finished))
            rings = await unit.runs.next_in_lanes(list(finished))
            await unit.commit()
        self.announcer.nudge()
        await self.doorbell.ring(rings)
        return [finished.get(finish.run_id) for _, finish, _ in ends]


async def _persistently(write: Callable[[], Awaitable[T]]) -> T:
    """Write, again after a pause while the records cannot be reached.

    Raises:
        UnavailableError: they stayed away; the lease runs out and another worker finds where things stand.
    """
    for pause in _PAUSES_SECONDS:
        try:
            return await write()
        except UnavailableError:
            await asyncio.sleep(pause)
    return await write()


def pause_before_retry(run: Run, backoff: timedelta) -> timedelta:
    """The pause before the next try: doubled each time, and spread by up to a quarter, the same for the same run."""
    spread = 1 + (zlib.crc32(f"{run.id}/{run.retries}".encode()) % 1000) / 4000
    doubled = backoff.total_seconds() * 2.0 ** min(run.retries, 60)
    return timedelta(seconds=min(doubled * spread, _LONGEST_PAUSE.total_seconds()))


def _about(error: PlatformError) -> _About:
    if not isinstance(error, WorkFailedError):
        return _About()
    return _About(error.first_errors, error.results if isinstance(error, QualityRejectedError) else ())
