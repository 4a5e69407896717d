"""Rings for runs that may be claimed. A lost ring is rung again by the tender, so trouble here is nobody's."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from domain.errors import UnavailableError
from domain.failpoints import fail_at
from domain.identity.scope import PLATFORM
from domain.ports.message_queue import IDelivery, IMessageQueue, Message
from domain.ports.records.unit_of_work import IRecords
from domain.ports.telemetry import ITelemetry, SpanKind
from domain.runs.run import Ring

RUNS_TOPIC = "runs"


@dataclass
class Doorbell:
    """Publishes rings and remembers, in sets and behind the caller's back, that they were published."""

    records: IRecords
    queue: IMessageQueue
    telemetry: ITelemetry
    _rung: list[str] = field(default_factory=list)
    _stamping: asyncio.Task[None] | None = None

    async def ring(self, rings: Sequence[Ring]) -> None:
        """Ring once for each run."""
        for ring in rings:
            try:
                await self._publish(ring)
            except UnavailableError:
                break
            fail_at("queue.after_publish")
            self._rung.append(ring.run_id)
        if self._rung and (self._stamping is None or self._stamping.done()):
            self._stamping = asyncio.create_task(self._stamp())

    async def _publish(self, ring: Ring) -> None:
        """Leave a ring in the queue, as a part of the trace that asked for the run; whoever takes it goes on there."""
        attributes = {"messaging.destination.name": RUNS_TOPIC, "headrace.run.id": ring.run_id}
        with self.telemetry.span(
            f"publish {RUNS_TOPIC}", trace=ring.trace, attributes=attributes, kind=SpanKind.PRODUCER
        ):
            trace = self.telemetry.current_trace() if ring.trace else None
            body = {"run_id": ring.run_id, "org_id": ring.organization}
            headers = {"traceparent": trace} if trace else {}
            await self.queue.publish(RUNS_TOPIC, Message(body, headers, key=ring.organization))

    def rings(self) -> AsyncGenerator[IDelivery, None]:
        """Yield the rings that reach this process; each is settled by whoever got it.

        Raises:
            UnavailableError: the queue went away; the caller asks again.
        """
        return self.queue.subscribe(RUNS_TOPIC)

    @property
    def waits_for_whoever_is_free(self) -> bool:
        """False where a ring waits for this process alone, which passes it on when it has no room."""
        return self.queue.waits_for_whoever_is_free

    async def forget(self, run_id: str) -> None:
        """Have a run rung for again, by whichever process finds it."""
        async with self.records.unit(PLATFORM) as unit:
            await unit.runs.stamp_rung([run_id], has_rung=False)
            await unit.commit()

    async def settle(self) -> None:
        """Wait until what was rung is remembered; at the end of a process."""
        if self._stamping is not None:
            await self._stamping

    async def _stamp(self) -> None:
        while self._rung:
            rung, self._rung = self._rung, []
            try:
                async with self.records.unit(PLATFORM) as unit:
                    await unit.runs.stamp_rung(rung)
                    await unit.commit()
            except UnavailableError:
                return  # Rung a second time, which is harmless.
