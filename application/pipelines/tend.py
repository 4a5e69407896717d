"""What every replica does at every tick: rings again what was lost, and tells events that nobody told."""

from dataclasses import dataclass
from datetime import timedelta

from application.events.announce import Announcer
from application.pipelines.launch import RUNS_TOPIC
from domain.errors import UnavailableError
from domain.ports.message_queue import IMessageQueue, Message
from domain.ports.unit_of_work import IRecords


@dataclass(frozen=True)
class RunTender:
    """Rings queued runs whose ring was lost and running ones whose lease is over."""

    records: IRecords
    queue: IMessageQueue
    announcer: Announcer
    ring_again_after: timedelta
    page: int = 100

    async def tend(self) -> int:
        """Do one round; return how many runs were rung."""
        async with self.records.unit() as unit:
            due = await unit.runs.claimable(unrung_since=self.ring_again_after, limit=self.page)
            await unit.runs.stamp_rung([run_id for _, run_id in due])
            await unit.commit()
        rung = 0
        for organization, run_id in due:
            try:
                await self.queue.publish(RUNS_TOPIC, Message({"run_id": run_id, "org_id": organization}))
            except UnavailableError:
                break
            rung += 1
        await self.announcer.flush()
        return rung
