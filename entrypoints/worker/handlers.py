"""From a message to a use case: claim first, then acknowledge, then work (Q3)."""

from dataclasses import dataclass

import structlog

from application.pipelines.launch import RUNS_TOPIC
from domain.errors import PlatformError
from domain.failpoints import fail_at
from domain.pipelines.run import Run
from domain.ports.message_queue import IDelivery, Message
from entrypoints.use_cases import UseCases


@dataclass(frozen=True)
class RunHandler:
    """Handles ring messages."""

    use_cases: UseCases

    async def claim(self, delivery: IDelivery) -> Run | None:
        """Claim the run that a message names; from the claim on, its lease answers for it."""
        run_id = delivery.message.body.get("run_id")
        if not isinstance(run_id, str):
            await delivery.reject("the message names no run")
            return None
        try:
            run = await self.use_cases.executor.claim(run_id)
        except PlatformError as error:
            # Not acknowledged: the tender rings again when the records can be reached.
            structlog.get_logger("headrace").warning("claim.failed", run_id=run_id, code=error.code)
            await delivery.acknowledge()
            return None
        fail_at("claim.before_ack")
        await delivery.acknowledge()
        return run

    async def perform(self, run: Run) -> None:
        """Execute a claimed run, then ring for the next one of its lane."""
        with structlog.contextvars.bound_contextvars(
            run_id=run.id, pipeline=run.pipeline, organization=run.organization
        ):
            await self.use_cases.executor.perform(run)
        async with self.use_cases.records.unit() as unit:
            waiting = await unit.runs.unfinished(run.organization, run.pipeline, run.lane)
        if waiting is not None and waiting.id != run.id and not self.use_cases.life.is_draining:
            await self.use_cases.queue.publish(
                RUNS_TOPIC, Message({"run_id": waiting.id, "org_id": waiting.organization})
            )
