"""The port to the processes of an installation."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True)
class WorkerRecord:
    """A process of the installation, as it last said of itself. `roles` are `api`, `worker` or both."""

    id: str
    roles: str
    host: str
    process: str
    version: str
    concurrency: int
    running: int
    state: str
    drain_requested: bool = False
    started_at: datetime | None = None


class IWorkerRecords(ABC):
    """The processes that serve and work, by their heartbeats."""

    @abstractmethod
    async def beat(self, worker: WorkerRecord) -> bool:
        """Say that a process lives; return whether it was asked to drain."""

    @abstractmethod
    async def remove(self, worker_id: str) -> None:
        """Forget a process that has ended well."""

    @abstractmethod
    async def seen_within(self, age: timedelta) -> Sequence[WorkerRecord]:
        """Return the processes that were heard of lately."""

    @abstractmethod
    async def request_drain(self, worker_id: str) -> bool:
        """Ask a process to finish what it has and to stop; False when unknown."""
