"""From a message to a use case: claim first, then acknowledge, then work (Q3)."""

from dataclasses import dataclass

import structlog

from domain.errors import PlatformError
from domain.failpoints import fail_at
from domain.ports.message_queue import IDelivery
from domain.runs.run import Run
from entrypoints.use_cases import UseCases


@dataclass(frozen=True)
class RunHandler:
    """Handles rings, from the queue or from the tender."""

    use_cases: UseCases

    async def handle(self, delivery: IDelivery) -> None:
        """Claim the run that a message names and execute it; from the claim on, its lease answers for it."""
        run_id = delivery.message.body.get("run_id")
        if not isinstance(run_id, str):
            await delivery.reject("the message names no run")
            return
        run = await self._claim(run_id)
        fail_at("claim.before_ack")
        try:
            await delivery.acknowledge()
        except PlatformError as error:  # Delivered again, which claims nothing.
            structlog.get_logger("headrace").warning("acknowledge.failed", run_id=run_id, code=error.code)
        if run is not None:
            await self._perform(run)

    async def handle_ring(self, run_id: str) -> None:
        """Claim and execute a run that the tender found."""
        run = await self._claim(run_id)
        if run is not None:
            await self._perform(run)

    async def pass_on(self, delivery: IDelivery) -> None:
        """Leave a run to whichever worker has room, as this one is busy and the message would wait here."""
        run_id = delivery.message.body.get("run_id")
        if isinstance(run_id, str):
            await self.use_cases.doorbell.forget(run_id)
        await delivery.acknowledge()

    async def _claim(self, run_id: str) -> Run | None:
        try:
            return await self.use_cases.claimer.claim(run_id)
        except PlatformError as error:
            # The tender finds the run again when the records can be reached.
            structlog.get_logger("headrace").warning("claim.failed", run_id=run_id, code=error.code)
            return None

    async def _perform(self, run: Run) -> None:
        with structlog.contextvars.bound_contextvars(
            run_id=run.id, pipeline=run.pipeline, organization=run.organization
        ):
            try:
                await self.use_cases.executor.perform(run)
            except PlatformError as error:
                # How it ended could not be written: its lease runs out, and it is taken over when that can be.
                structlog.get_logger("headrace").warning("run.unsettled", code=error.code, message=error.message)
