"""What every replica does at every tick: looks for lost rings and expired leases, and for events that nobody told."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from application.events.announce import Announcer
from application.runs.doorbell import RUNS_TOPIC, Doorbell
from domain.errors import UnavailableError
from domain.identity.scope import PLATFORM
from domain.ports.message_queue import IMessageQueue
from domain.ports.records.unit_of_work import IRecords
from domain.runs.run import Ring


@dataclass(frozen=True)
class RunTender:
    """Finds runs that should have been claimed by now: queued and not rung lately, or left by a dead worker."""

    records: IRecords
    queue: IMessageQueue
    doorbell: Doorbell
    announcer: Announcer
    ring_again_after: timedelta
    page: int = 100

    async def begin(self) -> None:
        """At the start of a process whose queue begins empty: what was rung for is due again at once."""
        if self.queue.outlives_process:
            return
        async with self.records.unit(PLATFORM) as unit:
            await unit.runs.forget_rings()
            await unit.commit()

    async def changes(self) -> int:
        """What is another number once another process has written into records that are a file."""
        return await self.records.changes()

    async def take(self, limit: int) -> Sequence[Ring]:
        """Take up to `limit` such runs for a worker of this process, which needs no doorbell; so a broker that is
        down makes runs later, never lost.
        """
        self.announcer.nudge()
        if limit < 1:
            return []
        async with self.records.unit(PLATFORM) as unit:
            due = await unit.runs.claimable(unrung_since=self.ring_again_after, limit=limit)
            await unit.runs.stamp_rung([ring.run_id for ring in due])
            await unit.commit()
        return due

    async def ring_again(self) -> int:
        """Ring for such runs, from a process without a worker; return how many.

        While more waits in the queue than a page, nothing is lost that could be told from what is late.
        """
        try:
            if await self.queue.depth(RUNS_TOPIC) > self.page:
                self.announcer.nudge()
                return 0
        except UnavailableError:
            return 0  # The workers' own tenders take what is due.
        due = await self.take(self.page)
        await self.doorbell.ring(due)
        return len(due)
