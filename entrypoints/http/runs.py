"""Runs over HTTP."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from domain.runs.run import RunState
from entrypoints.answers.runs import (
    Run,
    RunPage,
    logs_body,
    run_body,
    run_place_of,
    runs_body,
    shown_run,
    transitions_body,
)
from entrypoints.http import bodies
from entrypoints.http.dependencies import Bodies, Caller, Canceller, Cases, Place, Starter
from entrypoints.http.large import large
from entrypoints.http.pipelines import Cursor, Limit

router = APIRouter(prefix="/v1/runs", tags=["runs"])


@router.get("", response_model=RunPage)
async def list_runs(
    cases: Cases,
    caller: Caller,
    turn: Place,
    limit: Limit = 50,
    cursor: Cursor = None,
    pipeline: Annotated[str | None, Query(max_length=48)] = None,
    state: RunState | None = None,
) -> Any:
    """List runs, newest first; of those with large reports fewer than `limit`."""
    after = run_place_of(caller.organization, cursor)
    async with turn:
        page = await cases.inspector.runs(caller, pipeline=pipeline, state=state, after=after, limit=limit)
        return await large(lambda: runs_body(caller.organization, page, cases.answers))


@router.get("/{run_id}", response_model=Run)
async def get_run(run_id: str, cases: Cases, caller: Caller) -> Any:
    """Show a run; sentences and names that tell of data are for those who may preview."""
    return shown_run(await cases.inspector.run(caller, run_id), cases.answers)


@router.get("/{run_id}/transitions", response_model=dict[str, Any])
async def list_transitions(run_id: str, cases: Cases, caller: Caller, turn: Place) -> Any:
    """Show a run's history, oldest first."""
    async with turn:
        found = await cases.inspector.transitions(caller, run_id)
        return await large(lambda: transitions_body(found, cases.answers))


@router.get("/{run_id}/logs", response_model=dict[str, Any])
async def list_logs(run_id: str, cases: Cases, caller: Caller, turn: Place) -> Any:
    """Show a run's history together with its stored events, oldest first."""
    async with turn:
        transitions, events = await cases.inspector.logs(caller, run_id)
        return await large(lambda: logs_body(transitions, events, cases.answers))


@router.post("/{run_id}/cancel", status_code=202, response_model=Run)
async def cancel_run(run_id: str, cases: Cases, caller: Canceller) -> Any:
    """Cancel a run: at once if it was never claimed, else at its next batch; committed batches stay."""
    return run_body(await cases.controller.cancel(caller, run_id))


@router.post(
    "/{run_id}/retry",
    status_code=202,
    response_model=Run,
    openapi_extra=bodies.request_schema(bodies.RetryBody),
)
async def retry_run(
    run_id: str, request: Request, cases: Cases, caller: Starter, reader: Bodies, response: Response
) -> Any:
    """Ask for a new run with the same wishes; it completes what the failed one left unfinished."""
    wanted = await reader.json(request, bodies.RetryBody)
    run = await cases.controller.retry(caller, run_id, abandon=wanted.abandon)
    response.headers["Location"] = f"/v1/runs/{run.id}"
    return run_body(run)
