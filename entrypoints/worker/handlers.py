"""From a message to a use case: claim first, then acknowledge, then work (Q3)."""

from contextlib import AbstractContextManager
from dataclasses import dataclass

from application.runs.doorbell import RUNS_TOPIC
from domain.errors import PlatformError
from domain.failpoints import fail_at
from domain.identity.scope import PLATFORM, Scope
from domain.ports.message_queue import IDelivery
from domain.ports.telemetry import ISpan, SpanKind
from domain.runs.run import Ring, Run
from entrypoints.log import log
from entrypoints.use_cases import UseCases


@dataclass(frozen=True)
class RunHandler:
    """Handles rings, from the queue or from the tender."""

    use_cases: UseCases

    async def handle(self, delivery: IDelivery) -> None:
        """Claim the run that a message names and execute it; from the claim on, its lease answers for it."""
        body = delivery.message.body
        organization, run_id = body.get("org_id"), body.get("run_id")
        if not isinstance(run_id, str):
            await delivery.reject("the message names no run")
            return
        scope = Scope(organization) if isinstance(organization, str) else PLATFORM
        with self._claiming(run_id, delivery.message.headers.get("traceparent")) as span:
            run = await self._claim(scope, run_id, span)
            claimed_in = self.use_cases.telemetry.current_trace()
            fail_at("claim.before_ack")
            try:
                await delivery.acknowledge()
            except PlatformError as error:  # Delivered again, which claims nothing.
                log.warning("acknowledge.failed", run_id=run_id, code=error.code)
        if run is not None:
            await self._perform(run, claimed_in)

    async def handle_ring(self, ring: Ring) -> None:
        """Claim and execute a run that the tender found."""
        with self._claiming(ring.run_id, ring.trace) as span:
            run = await self._claim(Scope(ring.organization), ring.run_id, span)
            claimed_in = self.use_cases.telemetry.current_trace()
        if run is not None:
            await self._perform(run, claimed_in)

    async def pass_on(self, delivery: IDelivery) -> None:
        """Leave a run to whichever worker has room, as this one is busy and the message would wait here."""
        run_id = delivery.message.body.get("run_id")
        if isinstance(run_id, str):
            await self.use_cases.doorbell.forget(run_id)
        await delivery.acknowledge()

    def _claiming(self, run_id: str, trace: str | None) -> AbstractContextManager[ISpan]:
        """From taking a ring to its acknowledgement, in the trace that the ring is of."""
        attributes = {"messaging.destination.name": RUNS_TOPIC, "headrace.run.id": run_id}
        return self.use_cases.telemetry.span("claim run", trace=trace, attributes=attributes, kind=SpanKind.CONSUMER)

    async def _claim(self, scope: Scope, run_id: str, span: ISpan) -> Run | None:
        try:
            run = await self.use_cases.claimer.claim(scope, run_id)
            span.set({"headrace.claimed": run is not None})
            return run
        except PlatformError as error:
            span.fail(error.code, error.message)
            # The tender finds the run again when the records can be reached.
            log.warning("claim.failed", run_id=run_id, code=error.code)
            return None

    async def _perform(self, run: Run, claimed_in: str | None) -> None:
        try:
            async with self.use_cases.scopes.create_scope(run.scope):
                await self.use_cases.executor.perform(run, claimed_in=claimed_in)
        except PlatformError as error:
            # How it ended could not be written: its lease runs out, and it is taken over when that can be.
            line = log.bind(run_id=run.id, organization_id=run.organization, correlation_id=run.correlation_id)
            line.warning("run.unsettled", code=error.code, message=error.message)
