"""The processes of the installation: they say that they live, are listed, and are asked to drain."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from application.operations.health import Life
from application.runs.doorbell import RUNS_TOPIC
from domain.errors import NotFoundError, UnavailableError
from domain.identity.policy import Action, require
from domain.identity.principal import Principal
from domain.identity.scope import PLATFORM
from domain.ports.message_queue import IMessageQueue
from domain.ports.records.unit_of_work import IRecords
from domain.ports.records.workers import WorkerRecord


@dataclass(frozen=True)
class WorkerRegistry:
    """Heartbeats. `own` describes this process; one that was not heard of for `alive_within` is not listed."""

    records: IRecords
    queue: IMessageQueue
    life: Life
    own: WorkerRecord
    alive_within: timedelta

    async def beat(self, roles: str, *, running: int) -> None:
        """Say that this process lives, and begin to drain if it was asked to (spot notices come this way)."""
        async with self.records.unit(PLATFORM) as unit:
            now = replace(self.own, roles=roles, running=running, state=self.life.state.value)
            is_asked_to_drain = await unit.workers.beat(now)
            await unit.commit()
        if is_asked_to_drain:
            self.life.begin_shutdown()

    async def leave(self) -> None:
        """Forget this process, which ends well."""
        async with self.records.unit(PLATFORM) as unit:
            await unit.workers.remove(self.own.id)
            await unit.commit()

    async def alive(self, principal: Principal) -> Sequence[WorkerRecord]:
        """List the processes that live, oldest first."""
        require(principal, Action.READ)
        async with self.records.read(PLATFORM) as unit:
            return await unit.workers.seen_within(self.alive_within)

    async def queue_depth(self, principal: Principal) -> int | None:
        """Count the rings that no worker has taken; None while the queue cannot be reached."""
        require(principal, Action.READ)
        try:
            return await self.queue.depth(RUNS_TOPIC)
        except UnavailableError:
            return None

    async def drain(self, principal: Principal, worker_id: str) -> None:
        """Ask a process to take no more runs, bring those in hand to a checkpoint, and stop.

        Raises:
            NotFoundError: no such process.
        """
        require(principal, Action.OPERATE)
        async with self.records.unit(PLATFORM) as unit:
            if not await unit.workers.request_drain(worker_id):
                raise NotFoundError("There is no such worker.", code="worker.not_found")
            await unit.audit.add(principal, "drain", worker_id)
            await unit.commit()
