"""The processes of the installation over HTTP."""

from typing import Any

from fastapi import APIRouter

from entrypoints.answers.workers import WorkerList, draining_body, workers_body
from entrypoints.http.dependencies import Caller, Cases, Operator

router = APIRouter(prefix="/v1/workers", tags=["workers"])


@router.get("", response_model=WorkerList)
async def list_workers(cases: Cases, caller: Caller) -> Any:
    """List the processes that were heard of lately, and how many rings wait in the queue."""
    return workers_body(await cases.workers.alive(caller), await cases.workers.queue_depth(caller))


@router.post("/{worker_id}/drain", status_code=202)
async def drain_worker(worker_id: str, cases: Cases, caller: Operator) -> dict[str, str]:
    """Ask a process to bring its runs to a checkpoint and to stop, as before a spot machine goes away."""
    await cases.workers.drain(caller, worker_id)
    return draining_body(worker_id)
