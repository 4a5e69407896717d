"""The processes of the installation, and whether it is ready."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from application.operations.health import Readiness
from domain.ports.unit_of_work import WorkerRecord


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


def readiness_body(readiness: Readiness) -> dict[str, Any]:
    """Whether work can be taken, and each part's trouble."""
    return {"ready": readiness.is_ready, "parts": dict(readiness.parts)}
