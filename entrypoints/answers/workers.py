"""The processes of the installation."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from domain.ports.records.workers import WorkerRecord


class Worker(BaseModel):
    """A process of the installation."""

    id: str
    roles: list[str]
    host: str
    version: str
    concurrency: int
    running: int
    state: str
    started_at: str | None


class WorkerList(BaseModel):
    """The processes that live, and the rings that wait."""

    items: list[Worker]
    queue_depth: int | None


def workers_body(workers: Sequence[WorkerRecord], depth: int | None) -> dict[str, Any]:
    """The processes that live, and the queue's depth, null while it cannot be reached."""
    return {
        "items": [
            {
                "id": worker.id,
                "roles": worker.roles.split(),
                "host": worker.host,
                "version": worker.version,
                "concurrency": worker.concurrency,
                "running": worker.running,
                "state": "draining" if worker.drain_requested else worker.state,
                "started_at": worker.started_at.isoformat() if worker.started_at else None,
            }
            for worker in workers
        ],
        "queue_depth": depth,
    }


def draining_body(worker_id: str) -> dict[str, str]:
    """A process that was asked to drain."""
    return {"worker": worker_id, "state": "draining"}
